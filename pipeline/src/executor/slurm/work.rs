//! A job at work on its node: hands its tasks to the local executor, one after the other, and writes down what is heard
//! of them. Started again it goes on with the tasks that are not over, in folders of their own and with lines of its
//! own: it may have been started while its predecessor works on behind a broken connection. That one ends when it sees
//! its successor. Talks to Slurm in one case only: when its time is up and another beginning would help.

use super::afresh::afresh;
use super::ask;
use super::element::{Line, Orders, events, file};
use crate::executor::{Ended, Executor, Gpus, Local, Report, Task};
use crate::hints::hinted;
use anyhow::{Context, Result};
use protocol::{Event, STOP, TaskParams};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The job's time is nearly up.
static WARNED: AtomicBool = AtomicBool::new(false);

/// Slurm ends the job: whatever is heard from now on is its doing.
static ENDED: AtomicBool = AtomicBool::new(false);

/// How long room on the disk is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Slurm's signal reaches a program and us one after the other.
const TOGETHER: Duration = Duration::from_secs(1);

extern "C" fn note(signal: libc::c_int) {
    let flag = if signal == libc::SIGUSR1 { &WARNED } else { &ENDED };
    flag.store(true, Ordering::Relaxed);
}

/// A job at work.
struct Job {
    dir: PathBuf,
    index: usize,
    /// How often it was started before.
    start: usize,
    events: File,
    beat: Duration,
    said: Instant,
}

/// Works on the tasks of a job: the one of this index in the folder of its array. `id` is Slurm's number of it, `node`
/// where we are.
///
/// # Errors
/// If the folder cannot be read or written here, or Slurm refuses to start the job again.
pub fn work(dir: &Path, index: usize, id: &str, node: &str) -> Result<()> {
    for signal in [libc::SIGUSR1, libc::SIGTERM] {
        // SAFETY: the handler does nothing but set a flag.
        unsafe { libc::signal(signal, note as *const () as libc::sighandler_t) };
    }
    let shared = "the workspace has to be on a file system that all nodes see under the same path";
    let path = file(dir, index, "json");
    let text =
        std::fs::read(&path).map_err(|error| hinted(format!("cannot read {}: {error}", path.display()), shared))?;
    let orders: Orders = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    let (start, own) = begin(dir, index).map_err(|error| hinted(error, shared))?;
    // what those before have said until now
    let before = (0..start).flat_map(|start| std::fs::read(events(dir, index, start)).unwrap_or_default());
    let before: Vec<u8> = before.collect();
    let lines = before.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let over: HashSet<usize> =
        lines.filter_map(|line| if let Line::Ended(id, _) = line { Some(id) } else { None }).collect();
    let beat = Duration::from_millis(orders.beat_ms.max(100));
    let mut job = Job { dir: dir.into(), index, start, events: own, beat, said: Instant::now() };
    job.say(&Line::Here(node.into()))?;
    let began = SystemTime::now();
    let mut local = Local::new(usize::MAX, u64::MAX, Gpus::Elsewhere);
    // of one that has ended meanwhile the folder may be gone
    let is_open = |task: &Task| !over.contains(&task.id) && (start == 0 || task.dir.exists());
    let open = orders.tasks.into_iter().filter(is_open);
    let mut open: Vec<Task> =
        if start == 0 { open.collect() } else { open.map(|task| afresh(&task)).collect::<Result<_>>()? };
    let mut further = false;
    while let Some(task) = open.first().cloned() {
        let end = job.task(&task, &mut local, Duration::from_secs(orders.grace_s))?;
        match end {
            End::Over if open.len() > 1 && file(dir, index, "back").exists() => return job.say(&Line::Back),
            End::Over => further = true,
            End::Dismissed => return Ok(()),
            // no other start of it is wanted
            End::Warned if job.suffices() => return job.say(&Line::Ended(task.id, Ended::Withdrawn)),
            End::Warned => {
                if !further && !left_checkpoint(&task, began) {
                    let how =
                        "it did not finish within the time of its job, and left no checkpoint to go on from".into();
                    let hint = "raise `needs: { minutes: N }` of the stage, or `minutes:` in the cluster's file".into();
                    job.say(&Line::Ended(task.id, Ended::Lost { how, hint }))?;
                    open.remove(0);
                }
                break;
            }
        }
        open.remove(0);
        if WARNED.load(Ordering::Relaxed) {
            break;
        }
    }
    if open.is_empty() {
        return Ok(());
    }
    job.say(&Line::Again)?;
    ask::say(&["scontrol", "requeue"], id, dir).map_err(anyhow::Error::msg)?;
    // Slurm ends us
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}

/// Opens the file of this start of the job; the number of the start is the first that nobody has taken.
fn begin(dir: &Path, index: usize) -> Result<(usize, File), String> {
    for start in 0.. {
        let path = events(dir, index, start);
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((start, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("cannot write {}: {error}", path.display())),
        }
    }
    unreachable!("there are more numbers than starts")
}

/// How it went with a task.
enum End {
    /// It is over, and that was said.
    Over,
    /// The job's time is up, and the task is not over.
    Warned,
    /// Somebody else has it now, or the job is being ended.
    Dismissed,
}

impl Job {
    /// Works on a task until it is over, or the time is up.
    fn task(&mut self, task: &Task, local: &mut Local, grace: Duration) -> Result<End> {
        let stop = task.dir.join(STOP);
        // of the time before the job was started again
        let _ = std::fs::remove_file(&stop);
        if self.is_dismissed() || self.suffices() {
            return Ok(End::Dismissed);
        }
        self.say(&Line::Began(task.id, task.dir.clone()))?;
        if let Some(ended) = local.submit(task) {
            self.say(&Line::Ended(task.id, ended))?;
            return Ok(End::Over);
        }
        let (mut warned, mut looked): (Option<Instant>, _) = (None, Instant::now());
        let (mut has_failed, mut has_some) = (false, false);
        loop {
            for (id, report) in local.poll(Duration::from_millis(100)) {
                match report {
                    // whoever is told to stop and knows no better word for it has not failed
                    Report::Event(Event::Failed { .. }) if warned.is_some() => has_failed = true,
                    Report::Event(event) => {
                        has_some |= matches!(event, Event::Part { .. });
                        self.say(&Line::Said(id, event))?;
                    }
                    // its other units are handed in again, unless the user wants no more
                    Report::Ended(Ended::Withdrawn, _) if has_some || self.suffices() => {
                        self.say(&Line::Ended(id, Ended::Withdrawn))?;
                        return Ok(End::Over);
                    }
                    Report::Ended(Ended::Done, _) if !has_failed => {
                        self.say(&Line::Ended(id, Ended::Done))?;
                        return Ok(End::Over);
                    }
                    Report::Ended(..) if warned.is_some() => return Ok(End::Warned),
                    Report::Ended(ended, _) if is_killed(&ended) && is_ending() => return Ok(End::Dismissed),
                    Report::Ended(ended, _) => {
                        self.say(&Line::Ended(id, ended))?;
                        return Ok(End::Over);
                    }
                    Report::Began(_) | Report::Remark(_) => {}
                }
            }
            if ENDED.load(Ordering::Relaxed) {
                local.stop_all();
                return Ok(End::Dismissed);
            }
            // by a clock of its own: a training that tells every step leaves no silence to look in
            if looked.elapsed() >= self.beat {
                looked = Instant::now();
                if self.is_dismissed() {
                    local.stop_all();
                    return Ok(End::Dismissed);
                }
                if self.suffices() && !stop.exists() {
                    let _ = std::fs::write(&stop, "");
                }
            }
            if self.said.elapsed() >= self.beat {
                self.say(&Line::Alive)?;
            }
            if WARNED.load(Ordering::Relaxed) && warned.is_none() {
                warned = Some(Instant::now());
            }
            // whoever does not look is stopped without; several units have no checkpoint, and may come to their end
            let patience = if task.keys.len() == 1 { Duration::ZERO } else { grace / 2 };
            if warned.is_some_and(|since| since.elapsed() >= patience) && !stop.exists() {
                let _ = std::fs::write(&stop, "");
            }
            // Slurm counts from the signal as we do; some of it is for asking to be started again
            if warned.is_some_and(|since| since.elapsed() + Duration::from_secs(5) > grace) {
                local.stop_all();
                return Ok(End::Warned);
            }
        }
    }

    /// Whether the user wants no other task, nor all of the one in work.
    fn suffices(&self) -> bool {
        file(&self.dir, self.index, "enough").exists()
    }

    fn is_dismissed(&self) -> bool {
        file(&self.dir, self.index, "over").exists() || events(&self.dir, self.index, self.start + 1).exists()
    }

    fn say(&mut self, line: &Line) -> Result<()> {
        self.said = Instant::now();
        let mut text = serde_json::to_vec(line).context("a line is plain data")?;
        text.push(b'\n');
        self.append(&text)
    }

    /// Appends to the events. A full disk is waited for: others may be about to make room.
    fn append(&mut self, text: &[u8]) -> Result<()> {
        let (since, mut rest) = (Instant::now(), text);
        while !rest.is_empty() {
            match self.events.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
                        && since.elapsed() < PATIENCE =>
                {
                    std::thread::sleep(Duration::from_secs(1));
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot write events below {}", self.dir.display()));
                }
            }
        }
        Ok(())
    }
}

/// Whether a process was stopped from outside.
fn is_killed(ended: &Ended) -> bool {
    let Ended::Died { status: Some(status), .. } = ended else { return false };
    // a shell reports a signal that ended its program as 128 more
    let signal = status.signal().or(status.code().map(|code| code - 128));
    signal.is_some_and(|signal| [libc::SIGTERM, libc::SIGKILL, libc::SIGINT].contains(&signal))
}

/// Whether Slurm ends the job, if need be in a moment.
fn is_ending() -> bool {
    let since = Instant::now();
    while !ENDED.load(Ordering::Relaxed) && since.elapsed() < TOGETHER {
        std::thread::sleep(Duration::from_millis(10));
    }
    ENDED.load(Ordering::Relaxed)
}

/// Whether a task has left something in its scratch folder since then.
fn left_checkpoint(task: &Task, since: SystemTime) -> bool {
    let params = std::fs::read(task.dir.join("params.json")).ok();
    let params = params.and_then(|text| serde_json::from_slice::<TaskParams>(&text).ok());
    let Some(scratch) = params.and_then(|params| params.scratch) else { return false };
    let mut open = vec![scratch];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.modified().is_ok_and(|modified| modified > since) {
                return true;
            }
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    false
}
