//! Processes on this machine: programs, started for one task, and workers, kept alive and fed over standard input.
//!
//! Every process is a group of its own, so that Ctrl-C at the terminal reaches only us, and dies with us, however we
//! die: an orphaned worker would go on writing checkpoints beside its successor. Knows no stages.

mod ends;
#[cfg(test)]
mod tests;
mod text;

use crate::executor::devices::{Devices, Gpus, VARIABLE};
use crate::executor::orphans::{MARK, Watch};
use crate::executor::process::{LAST_WORDS, find, how, last_words, lines, process};
use crate::executor::spawn::{Group, spawn};
use crate::executor::{By, Ended, Executor, Report, Task, tail, weight};
use ends::{not_started, room, silent};
use protocol::{Event, Needs, STOP, STOPPED};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use text::Log;

/// How long a worker may live on after it has closed its standard output.
const STAYS_SILENT: Duration = Duration::from_secs(5);

/// How often tasks with a limit of memory are weighed.
const WEIGH: Duration = Duration::from_millis(300);

/// How long the end of what a worker wrote is waited for after the worker's own.
const LEFT_OPEN: Duration = Duration::from_secs(1);

/// Runs tasks as processes of this machine. Use it from one thread that lives as long as the tasks.
pub struct Local {
    /// Threads, MB and GPUs for all tasks together.
    all: Share,
    /// What of it no task has.
    free: Share,
    devices: Devices,
    send: Sender<Heard>,
    receive: Receiver<Heard>,
    running: HashMap<usize, Running>,
    workers: HashMap<u64, Worker>,
    next_worker: u64,
    /// Programs that were looked up.
    programs: HashMap<String, PathBuf>,
    waiters: Waiters,
    /// Started with the first task.
    watch: Option<Watch>,
    /// When the tasks with a limit of memory were weighed last.
    weighed: Instant,
}

/// A part of the machine.
#[derive(Clone, Copy)]
struct Share {
    threads: usize,
    memory_mb: u64,
    gpus: usize,
}

/// A program that is running.
struct Waiting {
    id: usize,
    group: Arc<Group>,
    log: PathBuf,
}

impl Waiting {
    fn wait(self, send: &Sender<Heard>) {
        let status = self.group.wait();
        // whoever listens may be busy for long
        let at = Instant::now();
        let (words, room) = match &status {
            Ok(status) if status.success() => (String::new(), None),
            _ => (last_words(&self.log), room(&self.log)),
        };
        // a coordinator that is gone does not listen
        let _ = send.send(Heard::Program(self.id, status, words, room, at));
    }
}

/// Threads that wait for programs, as many as have run at the same time; they end with the executor.
struct Waiters {
    send: Sender<Waiting>,
    receive: Arc<Mutex<Receiver<Waiting>>>,
    idle: Arc<AtomicUsize>,
}

impl Default for Waiters {
    fn default() -> Waiters {
        let (send, receive) = channel();
        Waiters { send, receive: Arc::new(Mutex::new(receive)), idle: Arc::default() }
    }
}

impl Waiters {
    fn wait_for(&self, program: Waiting, told: &Sender<Heard>) -> std::io::Result<()> {
        let one_less = |idle: usize| idle.checked_sub(1);
        if self.idle.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok() {
            self.send.send(program).expect("we hold the other end ourselves");
            return Ok(());
        }
        let (idle, receive, told) = (self.idle.clone(), self.receive.clone(), told.clone());
        let work = move || {
            let mut next = Some(program);
            while let Some(program) = next {
                program.wait(&told);
                idle.fetch_add(1, Ordering::AcqRel);
                next = receive.lock().expect("no thread panics while it holds this").recv().ok();
            }
        };
        std::thread::Builder::new().stack_size(64 << 10).spawn(work).map(drop)
    }
}

struct Running {
    group: Arc<Group>,
    worker: Option<u64>,
    /// The task directory.
    dir: PathBuf,
    deadline: Option<Instant>,
    timed_out: bool,
    limit_mb: Option<u64>,
    /// What it took when it was stopped for that, MB.
    too_heavy: Option<u64>,
    takes: Share,
    devices: Vec<usize>,
}

struct Worker {
    argv: Vec<String>,
    group: Arc<Group>,
    stdin: ChildStdin,
    task: Option<usize>,
    /// Whether it has finished a task.
    proven: bool,
    /// Whether it has said anything of the one that it has.
    spoke: bool,
    /// Whether it has left the rest of that one, as it was told to.
    left: bool,
    /// The GPUs that it was told of when it began.
    devices: Vec<usize>,
    stage_key: String,
    log: Arc<Mutex<Log>>,
}

enum Heard {
    /// How a program ended, its last words, the room that its disk had then, bytes, and when that was.
    Program(usize, std::io::Result<ExitStatus>, String, Option<u64>, Instant),
    Worker(u64, Event),
    WorkerGone(u64, std::io::Result<ExitStatus>, String),
}

impl Local {
    /// Tasks may take so many threads, so much memory and these GPUs together.
    pub fn new(threads: usize, memory_mb: u64, gpus: Gpus) -> Local {
        let (send, receive) = channel();
        let devices = Devices::new(gpus);
        let all = Share { threads, memory_mb, gpus: devices.share(u64::MAX) };
        Local {
            all,
            free: all,
            devices,
            send,
            receive,
            running: HashMap::new(),
            workers: HashMap::new(),
            next_worker: 0,
            programs: HashMap::new(),
            waiters: Waiters::default(),
            watch: None,
            weighed: Instant::now(),
        }
    }

    /// What processes of ours have in their environment.
    fn mark(&mut self) -> std::io::Result<&str> {
        if self.watch.is_none() {
            self.watch = Some(Watch::start()?);
        }
        Ok(self.watch.as_ref().map_or("", |watch| &watch.mark))
    }

    /// What a task takes up. One that needs more than there is takes all there is, and so runs alone.
    fn share(&self, needs: &Needs) -> Share {
        let threads = if needs.threads == 0 { self.all.threads } else { needs.threads.min(self.all.threads) };
        Share { threads, memory_mb: needs.memory_mb.min(self.all.memory_mb), gpus: self.devices.share(needs.gpus) }
    }

    /// Stops tasks that take more memory than they may.
    fn weigh(&mut self) {
        if self.weighed.elapsed() < WEIGH || self.running.values().all(|running| running.limit_mb.is_none()) {
            return;
        }
        self.weighed = Instant::now();
        let weights = weight::of_groups();
        for running in self.running.values_mut() {
            let weight = weights.get(&running.group.id).copied().unwrap_or(0);
            let is_too_heavy = running.limit_mb.is_some_and(|limit| weight > limit) && running.too_heavy.is_none();
            if is_too_heavy && running.group.kill() {
                running.too_heavy = Some(weight);
            }
        }
    }

    fn give_back(&mut self, id: usize) -> Option<Running> {
        let running = self.running.remove(&id)?;
        self.free.threads += running.takes.threads;
        self.free.memory_mb += running.takes.memory_mb;
        self.devices.give_back(&running.devices);
        Some(running)
    }

    fn program(&mut self, task: &Task, argv: &[String], dir: &Path, devices: &[usize]) -> std::io::Result<Arc<Group>> {
        let program = self.find(argv.first().map_or("", String::as_str), dir)?;
        let log = task.dir.join("log.txt");
        let mut variables = vec![(MARK, self.mark()?.to_string())];
        variables.extend(self.devices.told(devices).map(|names| (VARIABLE, names)));
        let group = Arc::new(Group::new(spawn(&program, argv, dir, &File::create(&log)?, &variables)?));
        if let Err(error) = self.waiters.wait_for(Waiting { id: task.id, group: group.clone(), log }, &self.send) {
            // nobody would ever hear of it
            group.kill();
            let _ = group.wait();
            return Err(error);
        }
        Ok(group)
    }

    /// Where a program lies; one without a folder is looked up once.
    fn find(&mut self, name: &str, dir: &Path) -> std::io::Result<PathBuf> {
        if let Some(known) = self.programs.get(name) {
            return Ok(known.clone());
        }
        let found = find(name, dir)?;
        if !name.contains('/') {
            self.programs.insert(name.into(), found.clone());
        }
        Ok(found)
    }

    fn worker(
        &mut self,
        task: &Task,
        argv: &[String],
        dir: &Path,
        stage_key: &str,
        gpus: usize,
    ) -> std::io::Result<(Arc<Group>, Option<u64>)> {
        let idle = |same: bool| {
            let mut ids = self.workers.iter().filter(|(_, worker)| {
                let fits = worker.devices.len() == gpus && self.devices.are_free(&worker.devices);
                fits && worker.task.is_none() && worker.argv == argv && (!same || worker.stage_key == stage_key)
            });
            ids.next().map(|(id, _)| *id)
        };
        let id = match idle(true).or_else(|| idle(false)) {
            Some(id) => id,
            None => self.start_worker(argv, dir, self.devices.first(gpus))?,
        };
        let worker = self.workers.get_mut(&id).expect("it is idle or was just started");
        {
            let mut log = worker.log.lock().expect("no thread panics while it holds this");
            log.file = Some(File::create(task.dir.join("log.txt"))?);
            log.tail.clear();
        }
        worker.task = Some(task.id);
        worker.spoke = false;
        worker.stage_key = stage_key.into();
        if writeln!(worker.stdin, "{}", task.dir.display()).and_then(|()| worker.stdin.flush()).is_err() {
            // its reader reports one that is dead; one that lives would wait for its task for ever
            worker.group.kill();
        }
        Ok((worker.group.clone(), Some(id)))
    }

    fn start_worker(&mut self, argv: &[String], dir: &Path, devices: Vec<usize>) -> std::io::Result<u64> {
        self.clear(&devices);
        let mut command = process(argv, dir);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(self.devices.told(&devices).map(|names| (VARIABLE, names)));
        let mut child = command.env(MARK, self.mark()?).spawn()?;
        let id = self.next_worker;
        self.next_worker += 1;
        let log: Arc<Mutex<Log>> = Arc::default();
        let stdin = child.stdin.take().expect("it was asked for");
        let (out, err) =
            (child.stdout.take().expect("it was asked for"), child.stderr.take().expect("it was asked for"));
        let group = Arc::new(Group::new(child.id()));
        // of one more handle the end of the process is no matter; without one its last words may come late
        let its_text = err.as_fd().try_clone_to_owned().ok();
        let ((text_open, text_closed), (events_open, events_closed)) = (channel::<()>(), channel::<()>());
        let text_log = log.clone();
        std::thread::spawn(move || {
            text::copy(err, &text_log);
            drop(text_open);
        });
        let (send, event_log, its_group) = (self.send.clone(), log.clone(), group.clone());
        std::thread::spawn(move || {
            listen(id, out, its_text, &event_log, &send);
            drop(events_open);
            stay_for_a_while(&its_group);
        });
        let (send, end_log, its_group) = (self.send.clone(), log.clone(), group.clone());
        std::thread::spawn(move || {
            // by its number: what it has left behind in its group ends with it
            let status = its_group.wait();
            // its last words are complete when what it wrote into is closed; somebody it has left behind may hold it
            // open
            for closed in [events_closed, text_closed] {
                let _ = closed.recv_timeout(LEFT_OPEN);
            }
            let words = tail(&end_log.lock().expect("no thread panics while it holds this").tail, LAST_WORDS);
            let _ = send.send(Heard::WorkerGone(id, status, words));
        });
        let worker = Worker {
            argv: argv.into(),
            group,
            stdin,
            task: None,
            proven: false,
            spoke: false,
            left: false,
            devices,
            stage_key: String::new(),
            log,
        };
        self.workers.insert(id, worker);
        Ok(id)
    }

    /// Lets workers go that have no task and still hold something on these GPUs.
    fn clear(&mut self, devices: &[usize]) {
        self.workers
            .retain(|_, worker| worker.task.is_some() || !worker.devices.iter().any(|device| devices.contains(device)));
    }

    fn understand(&mut self, heard: Heard) -> Option<(usize, Report)> {
        match heard {
            Heard::Program(id, status, words, room, at) => {
                let running = self.give_back(id)?;
                Some((id, Report::Ended(silent(ended(&running, status, words), room), at)))
            }
            Heard::Worker(worker, event) => {
                let worker = self.workers.get_mut(&worker)?;
                let id = worker.task?;
                worker.spoke = true;
                if matches!(event, Event::Done) {
                    worker.task = None;
                    worker.proven = true;
                    let ended = if std::mem::take(&mut worker.left) { Ended::Withdrawn } else { Ended::Done };
                    self.give_back(id);
                    return Some((id, Report::Ended(ended, Instant::now())));
                }
                // that is no failure
                if let Event::Failed { unit: None, error, .. } = &event
                    && error.starts_with(STOPPED)
                    && self.running.get(&id).is_some_and(|running| running.dir.join(STOP).exists())
                {
                    worker.left = true;
                    return None;
                }
                Some((id, Report::Event(event)))
            }
            Heard::WorkerGone(worker, status, words) => {
                let worker = self.workers.remove(&worker)?;
                let id = worker.task?;
                let running = self.give_back(id)?;
                // it may have left by itself before it was given this one, whose fault that then is not; a fresh worker
                // finds out
                let left = status.as_ref().is_ok_and(ExitStatus::success);
                if left && worker.proven && !worker.spoke && !running.timed_out && running.too_heavy.is_none() {
                    return Some((id, Report::Ended(Ended::Withdrawn, Instant::now())));
                }
                let said = words.clone();
                let died = match ended(&running, status, words) {
                    Ended::Done => {
                        Ended::Died { how: "ended in the middle of a task".into(), tail: said, status: None }
                    }
                    other => other,
                };
                Some((id, Report::Ended(died, Instant::now())))
            }
        }
    }

    /// What this says and all that was heard since.
    fn heard(&mut self, first: Option<Heard>) -> Vec<(usize, Report)> {
        let mut reports = Vec::new();
        let mut next = first.or_else(|| self.receive.try_recv().ok());
        while let Some(heard) = next {
            reports.extend(self.understand(heard));
            next = self.receive.try_recv().ok();
        }
        reports
    }

    /// Ends a task's process.
    pub fn stop(&mut self, id: usize) {
        if let Some(running) = self.give_back(id) {
            running.group.kill();
            if let Some(worker) = running.worker {
                self.workers.remove(&worker);
            }
        }
    }
}

impl Executor for Local {
    fn has_room(&self, needs: &Needs) -> bool {
        let share = self.share(needs);
        let (free, threads) = (self.free, self.free.threads > 0);
        threads && free.threads >= share.threads && free.memory_mb >= share.memory_mb && self.devices.has(share.gpus)
    }

    fn threads(&self, needs: &Needs) -> usize {
        self.share(needs).threads
    }

    fn lanes(&self, needs: &Needs) -> usize {
        (self.all.threads / self.share(needs).threads.max(1)).max(1)
    }

    fn submit(&mut self, task: &Task) -> Option<Ended> {
        let takes = self.share(&task.needs);
        let started = match &task.by {
            By::Program { argv, dir } => {
                let devices = self.devices.first(takes.gpus);
                self.clear(&devices);
                self.program(task, argv, dir, &devices).map(|group| (group, None))
            }
            By::Worker { argv, dir, stage_key } => self.worker(task, argv, dir, stage_key, takes.gpus),
        };
        match started {
            Ok((group, worker)) => {
                let deadline = task.timeout.map(|timeout| Instant::now() + timeout);
                let devices = match worker {
                    Some(id) => self.workers[&id].devices.clone(),
                    None => self.devices.first(takes.gpus),
                };
                self.devices.take(&devices);
                self.free.threads = self.free.threads.saturating_sub(takes.threads);
                self.free.memory_mb = self.free.memory_mb.saturating_sub(takes.memory_mb);
                self.running.insert(
                    task.id,
                    Running {
                        group,
                        worker,
                        dir: task.dir.clone(),
                        deadline,
                        timed_out: false,
                        limit_mb: task.limit_mb,
                        too_heavy: None,
                        takes,
                        devices,
                    },
                );
                None
            }
            Err(error) => {
                let (By::Program { argv, .. } | By::Worker { argv, .. }) = &task.by;
                Some(not_started(argv.first().map_or("", String::as_str), &error))
            }
        }
    }

    fn poll(&mut self, wait: Duration) -> Vec<(usize, Report)> {
        // what ended while nobody listened has ended, however late it is by now: only what is left is judged
        let mut reports = self.heard(None);
        self.weigh();
        let now = Instant::now();
        for running in self.running.values_mut() {
            let is_late = running.deadline.is_some_and(|deadline| deadline <= now) && !running.timed_out;
            // one that has been reaped meanwhile is about to be heard of
            if is_late && running.group.kill() {
                running.timed_out = true;
            }
        }
        if !reports.is_empty() {
            return reports;
        }
        let next = self.running.values().filter_map(|running| running.deadline).min();
        let wait = next.map_or(wait, |deadline| wait.min(deadline.saturating_duration_since(now)));
        let first = self.receive.recv_timeout(wait).ok();
        if first.is_some() {
            reports = self.heard(first);
        }
        reports
    }

    fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    fn drain(&mut self) {
        // whatever was handed in has begun; a program knows nothing of the file and is waited for, and where the file
        // cannot be written, so is a worker
        for running in self.running.values().filter(|running| running.worker.is_some()) {
            let _ = std::fs::write(running.dir.join(STOP), "");
        }
    }

    fn stop_all(&mut self) {
        let ids: Vec<usize> = self.running.keys().copied().collect();
        ids.into_iter().for_each(|id| self.stop(id));
        self.workers.clear();
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.stop_all();
    }
}

fn ended(running: &Running, status: std::io::Result<ExitStatus>, tail: String) -> Ended {
    if running.timed_out {
        return Ended::TimedOut;
    }
    if let (Some(weight), Some(limit)) = (running.too_heavy, running.limit_mb) {
        let how = format!(
            "it took {weight} MB of memory, more than the {limit} MB that it needs by its stanza, and was stopped"
        );
        let hint = "raise `needs: { memory_mb: N }` of the stage".into();
        return Ended::Lost { how, hint };
    }
    match status {
        Ok(status) if status.success() => Ended::Done,
        Ok(status) => Ended::Died { how: how(status), tail, status: Some(status) },
        Err(error) => Ended::Died { how: format!("could not be waited for: {error}"), tail, status: None },
    }
}

/// A worker says nothing any more, because it has closed its standard output. One that stays all the same can never
/// tell of its task: it is stopped.
fn stay_for_a_while(group: &Group) {
    let until = Instant::now() + STAYS_SILENT;
    while !group.is_reaped() {
        if Instant::now() >= until {
            group.kill();
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Hears what a worker says until it has closed its standard output. What it wrote to `err` before it said so is in the
/// log then.
fn listen(id: u64, out: impl Read, err: Option<OwnedFd>, log: &Mutex<Log>, send: &Sender<Heard>) {
    for line in lines(out) {
        match serde_json::from_slice(&line) {
            Ok(event) => {
                if let (Event::Done | Event::Failed { .. }, Some(err)) = (&event, &err) {
                    text::catch_up(err.as_raw_fd(), log);
                }
                if send.send(Heard::Worker(id, event)).is_err() {
                    return;
                }
            }
            // a library of the worker's that prints
            Err(_) => log.lock().expect("no thread panics while it holds this").note(&[&line[..], b"\n"].concat()),
        }
    }
}
