//! A job as its files show it: the tasks it was given, and the lines in which it tells of them. The lines are appended
//! by one process, each with one write; a line is complete when its end is there. Asks nobody.

use crate::executor::{Ended, Report, Task, tail};
use protocol::Event;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a job is given: the file `INDEX.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// It gives a sign of life so often.
    pub beat_ms: u64,
    /// What is left from the signal to its end.
    pub grace_s: u64,
    /// The tasks, one after the other.
    pub tasks: Vec<Task>,
}

/// A line of a job's: the file `INDEX.events`, and one more for each time it was started again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// The job is at work on this node.
    Here(String),
    /// It still is.
    Alive,
    /// It begins a task, in this folder.
    Began(usize, PathBuf),
    /// A worker said something of a task.
    Said(usize, Event),
    /// A task is over.
    Ended(usize, Ended),
    /// Its time is up, and it asks to be started again.
    Again,
    /// What it has not begun is somebody else's, as it was asked.
    Back,
}

/// The file of this kind of a job.
pub fn file(dir: &Path, index: usize, kind: &str) -> PathBuf {
    dir.join(format!("{index}.{kind}"))
}

/// The file of the lines that a job has said since its start of this number, counted from 0.
pub fn events(dir: &Path, index: usize, start: usize) -> PathBuf {
    if start == 0 { file(dir, index, "events") } else { file(dir, index, &format!("events-{start}")) }
}

/// How often is looked whether a job has been started again.
const LOOK: Duration = Duration::from_secs(1);

/// A job whose tasks are not all over.
pub struct Element {
    /// The folder of its array.
    pub dir: PathBuf,
    /// Its index there.
    pub index: usize,
    /// The array, as Slurm names it.
    pub job: String,
    /// The tasks that are not over, in order.
    pub tasks: VecDeque<Task>,
    /// Those it has given back.
    pub back: Vec<Task>,
    /// The one in work.
    pub current: Option<usize>,
    /// When something was heard of it last.
    pub heard: Instant,
    /// When it was heard for the first time.
    pub began: Option<Instant>,
    /// Whether it was asked to give tasks back.
    pub asked: bool,
    /// Since when Slurm has said that it runs, while nothing was heard.
    pub running: Option<Instant>,
    /// Since when Slurm has said that it is over.
    pub over: Option<Instant>,
    /// The number of the start that is listened to.
    start: usize,
    /// When was looked for the next.
    looked: Instant,
    read: u64,
    rest: Vec<u8>,
}

impl Element {
    /// A job that was just handed in.
    pub fn new(dir: &Path, index: usize, job: &str, tasks: Vec<Task>) -> Element {
        Element {
            dir: dir.into(),
            index,
            job: job.into(),
            tasks: tasks.into(),
            back: Vec::new(),
            current: None,
            heard: Instant::now(),
            began: None,
            asked: false,
            running: None,
            over: None,
            start: 0,
            looked: Instant::now(),
            read: 0,
            rest: Vec::new(),
        }
    }

    /// What it has said since it was listened to last. What an earlier start of it says after a later one has begun is
    /// not heard.
    pub fn listen(&mut self, reports: &mut Vec<(usize, Report)>) {
        let looks = self.looked.elapsed() >= LOOK;
        let is_next = looks && events(&self.dir, self.index, self.start + 1).exists();
        self.hear(reports);
        if looks {
            self.looked = Instant::now();
        }
        if is_next {
            self.start += 1;
            (self.read, self.current) = (0, None);
            self.rest.clear();
            self.hear(reports);
        }
    }

    fn hear(&mut self, reports: &mut Vec<(usize, Report)>) {
        let path = events(&self.dir, self.index, self.start);
        // one that has not begun has no file
        let Ok(length) = std::fs::metadata(&path).map(|meta| meta.len()) else { return };
        if length <= self.read {
            return;
        }
        let Ok(mut file) = File::open(&path) else { return };
        let mut text = std::mem::take(&mut self.rest);
        let got = file.seek(SeekFrom::Start(self.read)).and_then(|_| file.read_to_end(&mut text));
        self.read += got.unwrap_or(0) as u64;
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.rest = text.split_off(end);
        (self.heard, self.running, self.over) = (Instant::now(), None, None);
        self.began.get_or_insert(self.heard);
        for line in text.split(|byte| *byte == b'\n') {
            // what a killed job left behind in the middle of a line is followed by a new one
            match serde_json::from_slice(line) {
                Ok(line) => self.understand(line, reports),
                Err(_) => continue,
            }
        }
    }

    fn understand(&mut self, line: Line, reports: &mut Vec<(usize, Report)>) {
        let is_open = |tasks: &VecDeque<Task>, id: usize| tasks.iter().any(|task| task.id == id);
        match line {
            Line::Here(_) | Line::Again => self.current = None,
            Line::Alive => {}
            Line::Back => self.back.extend(self.tasks.drain(..)),
            Line::Began(id, dir) if is_open(&self.tasks, id) => {
                self.current = Some(id);
                reports.push((id, Report::Began(dir)));
            }
            Line::Said(id, event) if is_open(&self.tasks, id) => reports.push((id, Report::Event(event))),
            Line::Ended(id, ended) if is_open(&self.tasks, id) => {
                self.current = None;
                self.tasks.retain(|task| task.id != id);
                reports.push((id, Report::Ended(ended, Instant::now())));
            }
            // of a task that was given up here
            Line::Began(..) | Line::Said(..) | Line::Ended(..) => {}
        }
    }

    /// Leaves word that whatever still works on it must not go on: its tasks are somebody else's now.
    pub fn dismiss(&self) {
        // not being able to costs work done twice, nothing else
        let _ = std::fs::write(file(&self.dir, self.index, "over"), "");
    }

    /// Leaves word that it may finish the unit that it is at, or leave a checkpoint of it, and begin no other.
    pub fn suffice(&self) {
        let _ = std::fs::write(file(&self.dir, self.index, "enough"), "");
    }

    /// Leaves word that what it has not begun when it is through with a task is wanted elsewhere.
    pub fn ask_back(&mut self) {
        self.asked = std::fs::write(file(&self.dir, self.index, "back"), "").is_ok();
    }

    /// The last lines that the job wrote beside its tasks' logs.
    pub fn last_words(&self) -> String {
        let text = std::fs::read(file(&self.dir, self.index, "log")).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text), 8)
    }
}
