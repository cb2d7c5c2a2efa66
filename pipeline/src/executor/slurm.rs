//! Tasks on the nodes of a Slurm cluster. Tasks that were handed in together become job arrays; each job works on a few
//! of them by the local executor (see `work`) and writes down what it hears, and that is what is listened to. Slurm
//! itself is asked only for jobs that stay silent, all in one call, beside the run.
//!
//! Knows nothing of what tasks are for, and reads no environment.

mod afresh;
mod ask;
mod cluster;
mod element;
mod left;
mod work;

pub use cluster::Cluster;
pub use left::Left;
pub use work::work;

use crate::executor::{Ended, Executor, Report, Task};
use afresh::afresh;
use ask::{Seen, Which};
use element::{Element, Orders, file};
use protocol::Needs;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// After Slurm has said that a job is over, its last lines may take so long to be seen on another machine.
const SETTLE: Duration = Duration::from_secs(5);
/// A task whose job is lost is handed in so often again if a node failed or others went first; else once.
const UNLUCKY: usize = 5;
/// A controller that does not answer is tried for so long.
const PATIENCE: Duration = Duration::from_secs(600);
/// A job that Slurm takes for running but that has been silent for so many times the usual is not waited for.
const STUCK: u32 = 5;

/// Runs tasks as jobs of a Slurm cluster.
pub struct Slurm {
    cluster: Cluster,
    /// Folder of the arrays' folders.
    dir: PathBuf,
    /// Handed in, and in no array yet.
    gathered: Vec<Task>,
    elements: BTreeMap<Which, Element>,
    batches: usize,
    /// How often each task was handed in again.
    tries: HashMap<usize, usize>,
    answer: Option<Receiver<Result<HashMap<Which, Seen>, String>>>,
    asked: Instant,
    /// Since when `sbatch` has been refused, and when to try it again.
    refused: Option<(Instant, Instant)>,
    jobs: Vec<String>,
    /// To be told with the next poll.
    told: Vec<(usize, Report)>,
    /// Whether the jobs go on without us.
    left: bool,
    /// Whether what had not begun was taken back.
    drained: bool,
}

impl Slurm {
    /// Jobs of this cluster, with their files below `dir`.
    pub fn new(cluster: Cluster, dir: &Path) -> Slurm {
        let left = Left::read(dir);
        let elements = left.as_ref().map_or_else(BTreeMap::new, |left| left.elements(dir));
        let (run, batches) = left.map_or((cluster.run.clone(), 0), |left| (left.run, left.batches));
        Slurm {
            cluster: Cluster { run, ..cluster },
            dir: dir.into(),
            gathered: Vec::new(),
            elements,
            batches,
            tries: HashMap::new(),
            answer: None,
            asked: Instant::now(),
            refused: None,
            jobs: Vec::new(),
            told: Vec::new(),
            left: false,
            drained: false,
        }
    }

    /// The tasks that are not over.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.gathered.iter().chain(self.elements.values().flat_map(|element| &element.tasks))
    }

    /// Notes which jobs there are, for whoever goes on after us.
    fn note(&self, is_meant: bool) {
        let jobs = self.elements.iter().map(|(which, element)| (which.0, which.1, element.job.clone())).collect();
        let call = self.cluster.call.clone();
        let left = Left { run: self.cluster.run.clone(), call, is_meant, batches: self.batches, jobs };
        // without it the jobs' work is done once more, nothing else
        let _ = left.write(&self.dir);
    }

    /// The arrays that were handed in: `123_[0-7]`.
    pub fn jobs(&self) -> &[String] {
        &self.jobs
    }

    fn open_tasks(&self) -> usize {
        self.gathered.len() + self.elements.values().map(|element| element.tasks.len()).sum::<usize>()
    }

    /// Makes arrays of what was handed in since the last time.
    fn flush(&mut self) {
        if self.gathered.is_empty() || self.refused.is_some_and(|(_, next)| Instant::now() < next) {
            return;
        }
        let mut kinds: Vec<(Needs, Vec<Task>)> = Vec::new();
        for task in std::mem::take(&mut self.gathered) {
            match kinds.iter_mut().find(|(needs, _)| *needs == task.needs) {
                Some((_, tasks)) => tasks.push(task),
                None => kinds.push((task.needs, vec![task])),
            }
        }
        for (needs, tasks) in kinds {
            let free = self.cluster.jobs.saturating_sub(self.elements.len()).max(1);
            let jobs = tasks.len().min(free).max(tasks.len().div_ceil(self.cluster.tasks));
            // as even as can be: the first get one more
            let bound = |job: usize| job * (tasks.len() / jobs) + job.min(tasks.len() % jobs);
            let shares: Vec<&[Task]> = (0..jobs).map(|job| &tasks[bound(job)..bound(job + 1)]).collect();
            for shares in shares.chunks(self.cluster.array) {
                self.array(&needs, shares);
            }
        }
    }

    /// Hands in one array; each of its jobs gets one share, the first the largest.
    fn array(&mut self, needs: &Needs, shares: &[&[Task]]) {
        let batch = self.batches;
        let dir = self.dir.join(format!("{batch:04}"));
        let comment =
            format!("{}/{batch}/{}", self.cluster.run, &shares[0][0].keys.first().map_or("", |key| &key[..12]));
        let made = self.prepare(&dir, shares).map_err(|error| format!("cannot write {}: {error}", dir.display()));
        let handed_in = made.and_then(|script| {
            let words = ask::arguments(&self.cluster, needs, shares.len(), shares[0].len(), &comment, &dir);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            // an answer that was lost on its way is no reason to do it twice
            let known = || self.refused.and_then(|_| self.known(batch));
            known().map_or_else(|| ask::say(&words, &script, &dir), Ok)
        });
        match handed_in {
            Ok(job) => {
                // `--parsable` adds the cluster's name where there are several
                let job = job.trim().split(';').next().unwrap_or_default().to_string();
                self.jobs.push(format!("{job}_[0-{}]", shares.len() - 1));
                self.batches += 1;
                self.refused = None;
                for (index, tasks) in shares.iter().enumerate() {
                    self.elements.insert((batch, index), Element::new(&dir, index, &job, tasks.to_vec()));
                }
                self.note(false);
            }
            Err(error) => self.was_refused(error, &shares.concat()),
        }
    }

    /// Writes what an array's jobs read; gives back the script.
    fn prepare(&self, dir: &Path, shares: &[&[Task]]) -> std::io::Result<String> {
        std::fs::create_dir_all(dir)?;
        for (index, tasks) in shares.iter().enumerate() {
            let beat_ms = self.cluster.beat().as_millis() as u64;
            let orders = Orders { beat_ms, grace_s: self.cluster.grace.as_secs(), tasks: tasks.to_vec() };
            std::fs::write(file(dir, index, "json"), serde_json::to_vec(&orders)?)?;
        }
        let script = dir.join("job.sh");
        std::fs::write(&script, ask::script(&self.cluster, dir))?;
        Ok(script.display().to_string())
    }

    /// The number of an array that Slurm has although it did not say so.
    fn known(&self, batch: usize) -> Option<String> {
        let seen = ask::jobs(&self.cluster, &[], &self.dir).ok()?;
        let (_, seen) = seen.into_iter().find(|((of, _), _)| *of == batch)?;
        seen.job.split('_').next().map(str::to_string)
    }

    /// A controller that is not there comes back; one that says no is believed.
    fn was_refused(&mut self, error: String, tasks: &[Task]) {
        let passing = [
            "did not answer",
            "Unable to contact",
            "Socket timed out",
            "Connection refused",
            "try again",
            "Zero Bytes",
        ];
        let since = self.refused.map_or_else(Instant::now, |(since, _)| since);
        if passing.iter().any(|word| error.contains(word)) && since.elapsed() < PATIENCE {
            if self.refused.is_none() {
                let text = format!("Slurm takes no jobs for the moment, trying again: {error}");
                self.told.push((tasks[0].id, Report::Remark(text)));
            }
            self.refused = Some((since, Instant::now() + Duration::from_secs(5)));
            self.gathered.extend(tasks.iter().cloned());
            return;
        }
        let hint =
            "see `sinfo`, and what the cluster's file asks for (`--cluster FILE`); `--executor local` does without";
        for task in tasks {
            let ended = Ended::Lost { how: format!("it could not be handed to Slurm: {error}"), hint: hint.into() };
            self.told.push((task.id, Report::Ended(ended, Instant::now())));
        }
    }

    /// Listens to all jobs.
    fn listen(&mut self, reports: &mut Vec<(usize, Report)>) {
        for element in self.elements.values_mut() {
            element.listen(reports);
            if !element.back.is_empty() {
                // it may have been started again meanwhile, and not know of what its predecessor has given back
                element.dismiss();
                self.gathered.append(&mut element.back);
            }
        }
        self.elements.retain(|_, element| !element.tasks.is_empty());
    }

    /// How long tasks take nobody knows beforehand. Where jobs could be had for tasks that wait behind others, and
    /// nothing else is there for them, these are asked for; not of jobs that have only just begun, for short tasks are
    /// better off together.
    fn share(&mut self) {
        let free = self.cluster.jobs.saturating_sub(self.elements.len());
        let waits = !self.gathered.is_empty() || self.elements.values().any(|element| element.began.is_none());
        if free == 0 || waits || self.open_tasks() > self.most() / 2 {
            return;
        }
        let behind = |element: &Element| element.tasks.len() - 1;
        let asked: usize = self.elements.values().filter(|element| element.asked).map(behind).sum();
        let beat = self.cluster.beat();
        let is_laden = |element: &&mut Element| {
            !element.asked && behind(element) > 0 && element.began.is_some_and(|since| since.elapsed() > beat)
        };
        let mut laden: Vec<&mut Element> = self.elements.values_mut().filter(is_laden).collect();
        laden.sort_by_key(|element| std::cmp::Reverse(behind(element)));
        let mut wanted = free.saturating_sub(asked);
        for element in laden {
            if wanted == 0 {
                break;
            }
            wanted = wanted.saturating_sub(behind(element));
            element.ask_back();
        }
    }

    /// So many tasks are handed in at the same time.
    fn most(&self) -> usize {
        self.cluster.jobs * self.cluster.tasks
    }

    /// Asks for the jobs that are silent, and hears what was answered.
    fn ask(&mut self) {
        if let Some(answer) = &self.answer {
            match answer.try_recv() {
                Ok(Ok(seen)) => {
                    self.answer = None;
                    self.judge(&seen);
                }
                // nothing is known: it is asked again
                Ok(Err(_)) | Err(std::sync::mpsc::TryRecvError::Disconnected) => self.answer = None,
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
            }
            return;
        }
        let silent = |element: &Element| element.heard.elapsed() > self.cluster.silent;
        let settling = self.elements.values().any(|element| element.over.is_some());
        let pause = if settling { SETTLE.min(self.cluster.silent) } else { self.cluster.silent };
        if self.asked.elapsed() < pause || !self.elements.values().any(silent) {
            return;
        }
        self.asked = Instant::now();
        let (send, receive) = channel();
        let (cluster, dir) = (self.cluster.clone(), self.dir.clone());
        let silent = self.elements.iter().filter(|(_, element)| silent(element));
        let wanted: Vec<(Which, String)> = silent.map(|(which, element)| (*which, element.job.clone())).collect();
        self.answer = Some(receive);
        std::thread::spawn(move || {
            // a run that is over does not listen
            let _ = send.send(ask::jobs(&cluster, &wanted, &dir));
        });
    }

    /// What becomes of jobs that are silent, now that Slurm has said how it sees them.
    fn judge(&mut self, seen: &HashMap<Which, Seen>) {
        let now = Instant::now();
        let silent = self.cluster.silent;
        let which: Vec<Which> = self.elements.keys().copied().collect();
        for which in which {
            let Some(element) = self.elements.get_mut(&which) else { continue };
            if element.heard.elapsed() <= silent {
                continue;
            }
            let unknown = Seen::unknown();
            let seen = seen.get(&which).unwrap_or(&unknown);
            if seen.is_waiting() {
                (element.over, element.running) = (None, None);
                if seen.reason.contains("launch failed requeued held") {
                    // a node that could not start it is no reason to hold it for ever
                    let _ = ask::say(&["scontrol", "release"], &seen.job, &self.dir);
                }
            } else if seen.is_running() {
                element.over = None;
                let since = *element.running.get_or_insert(now);
                if since.elapsed() > silent * STUCK {
                    let _ = ask::say(&["scancel"], &seen.job, &self.dir);
                    self.lost(which, &Seen { state: "SILENT".into(), ..seen.clone() });
                }
            } else {
                let since = *element.over.get_or_insert(now);
                if since.elapsed() >= SETTLE.min(silent) {
                    self.lost(which, seen);
                }
            }
        }
    }

    /// A job is over, and its tasks are not.
    fn lost(&mut self, which: Which, seen: &Seen) {
        let Some(element) = self.elements.remove(&which) else { return };
        element.dismiss();
        let job = format!("{}_{}", element.job, which.1);
        let words = element.last_words();
        let (current, began) = (element.current, element.began);
        let mut rest: Vec<Task> = element.tasks.into();
        if self.drained {
            let withdrawn = |task: Task| (task.id, Report::Ended(Ended::Withdrawn, Instant::now()));
            self.told.extend(rest.into_iter().map(withdrawn));
            return;
        }
        let state = seen.state.as_str();
        // the task in work when its job was ended for what it did
        let blame = match state {
            "OUT_OF_MEMORY" => {
                let tail = if words.is_empty() { String::new() } else { format!(":\n{words}") };
                Some(Ended::Lost {
                    how: format!("it was ended by Slurm, because its memory ran out (job {job}){tail}"),
                    hint: "raise `needs: { memory_mb: N }` of the stage, or `memory_mb:` in the cluster's file".into(),
                })
            }
            "TIMEOUT" | "DEADLINE" => Some(Ended::Lost {
                how: format!("it was ended by Slurm, because the time of its job was up (job {job}, {state})"),
                hint: "raise `needs: { minutes: N }` of the stage, or `minutes:` in the cluster's file".into(),
            }),
            "FAILED" if began.is_some() => {
                let how = format!("ended with its job {job}, which failed");
                Some(Ended::Died { how, tail: words.clone(), status: None })
            }
            _ => None,
        };
        if let (Some(ended), Some(id)) = (blame, current) {
            rest.retain(|task| task.id != id);
            self.told.push((id, Report::Ended(ended, Instant::now())));
        }
        let unlucky = ["NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED"].contains(&state);
        let limit = if unlucky { UNLUCKY } else { 1 };
        let state = if state.is_empty() { "unknown to Slurm" } else { state };
        let (again, given_up): (Vec<Task>, Vec<Task>) = rest.into_iter().partition(|task| {
            let tries = self.tries.entry(task.id).or_default();
            *tries += 1;
            *tries <= limit
        });
        if let Some(first) = again.first() {
            let text = format!("job {job} is {state}; {} of its tasks are handed in again", again.len());
            self.told.push((first.id, Report::Remark(text)));
        }
        let words = if words.is_empty() { String::new() } else { format!(":\n{words}") };
        for task in given_up {
            let how = format!("its job {job} is {state}, after {} tries{words}", limit + 1);
            let hint = format!("`scontrol show job {job}` and the site's logs may tell why; run again to try again");
            self.told.push((task.id, Report::Ended(Ended::Lost { how, hint }, Instant::now())));
        }
        // whoever had them may work on where nobody reaches it
        for task in again {
            match afresh(&task) {
                Ok(task) => self.gathered.push(task),
                Err(error) => {
                    let how = format!("its job {job} is {state}, and it cannot be handed in again: {error:#}");
                    let hint = "see whether the disk is full; run again to try again".into();
                    self.told.push((task.id, Report::Ended(Ended::Lost { how, hint }, Instant::now())));
                }
            }
        }
    }
}

impl Executor for Slurm {
    /// Tasks are taken in crowds, so that they make arrays: there is room again when half of them are done.
    fn has_room(&self, _: &Needs) -> bool {
        let (most, open) = (self.most(), self.open_tasks());
        if self.gathered.is_empty() { open <= most / 2 } else { open < most }
    }

    fn threads(&self, needs: &Needs) -> usize {
        if needs.threads == 0 { self.cluster.threads } else { needs.threads }
    }

    fn lanes(&self, _: &Needs) -> usize {
        self.cluster.jobs
    }

    fn submit(&mut self, task: &Task) -> Option<Ended> {
        self.gathered.push(task.clone());
        None
    }

    fn poll(&mut self, wait: Duration) -> Vec<(usize, Report)> {
        self.flush();
        let mut reports = std::mem::take(&mut self.told);
        self.listen(&mut reports);
        if reports.is_empty() && !wait.is_zero() {
            std::thread::sleep(wait.min(Duration::from_millis(20 + self.elements.len() as u64)));
            self.listen(&mut reports);
        }
        self.ask();
        self.share();
        reports
    }

    fn is_busy(&self) -> bool {
        self.open_tasks() > 0 || !self.told.is_empty()
    }

    fn drain(&mut self) {
        let withdrawn = |task: &Task| (task.id, Report::Ended(Ended::Withdrawn, Instant::now()));
        self.told.extend(self.gathered.drain(..).map(|task| withdrawn(&task)));
        if self.cluster.detach && !self.elements.is_empty() {
            self.note(true);
            self.left = true;
            let elements = std::mem::take(&mut self.elements);
            self.told.extend(elements.values().flat_map(|element| &element.tasks).map(withdrawn));
            return;
        }
        // one that is just about to begin after all finds that it need not
        self.elements.values().for_each(Element::suffice);
        let name = format!("--name={}", self.cluster.name());
        if self.elements.is_empty() || ask::say(&["scancel", "--state=PENDING"], &name, &self.dir).is_err() {
            return;
        }
        let wanted: Vec<(Which, String)> = Vec::new();
        let Ok(seen) = ask::jobs(&self.cluster, &wanted, &self.dir) else { return };
        self.drained = true;
        let idle = |which: &Which| seen.get(which).is_none_or(|seen| !seen.is_running());
        for element in self.elements.values_mut().filter(|element| element.began.is_some()) {
            // the unit that it is at it may finish
            let current = element.current;
            let (kept, rest): (VecDeque<Task>, VecDeque<Task>) =
                element.tasks.drain(..).partition(|task| Some(task.id) == current);
            element.tasks = kept;
            self.told.extend(rest.iter().map(withdrawn));
        }
        for (_, element) in self.elements.extract_if(.., |which, element| element.began.is_none() && idle(which)) {
            element.dismiss();
            self.told.extend(element.tasks.iter().map(withdrawn));
        }
    }

    fn stop_all(&mut self) {
        self.gathered.clear();
        if self.left {
            return;
        }
        Left::forget(&self.dir);
        // of what was taken back something may have begun after all
        if self.elements.is_empty() && !self.drained {
            return;
        }
        let elements = std::mem::take(&mut self.elements);
        elements.values().for_each(Element::dismiss);
        let _ = ask::say(&["scancel"], &format!("--name={}", self.cluster.name()), &self.dir);
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        self.stop_all();
    }
}
