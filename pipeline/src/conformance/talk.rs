//! Talking to a worker: a task in, all that it says until the task is over, within a time. Judges nothing.

use super::{Fault, fault};
use crate::executor::{kill, lines, process, tail};
use crate::provider::Candidate;
use anyhow::{Context, Result};
use protocol::Event;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How the talk about a task ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// As it should: the worker said `done`.
    Done,
    /// The worker is gone, or has closed its standard output.
    Gone(Option<ExitStatus>),
    /// It has not said `done` in time, and was stopped.
    Silent(Duration),
}

/// What was said about a task.
pub(crate) struct Talk {
    /// The events before `done`.
    pub(crate) events: Vec<Event>,
    /// Lines that are no events.
    pub(crate) strays: Vec<String>,
    /// How it ended.
    pub(crate) end: End,
    /// The last that was written to standard error.
    pub(crate) words: String,
}

impl Talk {
    /// The files that were delivered.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| if let Event::Part { file } = event { Some(file.as_str()) } else { None })
    }

    /// What failed: a unit, or all, and why.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (Option<usize>, &str)> {
        self.events.iter().filter_map(|event| match event {
            Event::Failed { unit, error, .. } => Some((*unit, error.as_str())),
            _ => None,
        })
    }
}

/// A running worker.
pub(crate) struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Vec<u8>>,
    words: Arc<Mutex<String>>,
    limit: Duration,
    /// How the last talk ended.
    pub(crate) last: End,
}

impl Worker {
    /// Starts a provider's worker.
    pub(crate) fn start(candidate: &Candidate, limit: Duration) -> Result<Worker> {
        let mut command = process(&candidate.argv, &candidate.dir);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("`{} worker` cannot be started", candidate.argv.join(" ")))?;
        let stdin = child.stdin.take();
        let (out, err) =
            (child.stdout.take().expect("it was asked for"), child.stderr.take().expect("it was asked for"));
        let (send, lines) = channel();
        std::thread::spawn(move || listen(out, &send));
        let words: Arc<Mutex<String>> = Arc::default();
        let kept = words.clone();
        std::thread::spawn(move || copy(err, &kept));
        Ok(Worker { child, stdin, lines, words, limit, last: End::Done })
    }

    /// Gives it a task, and listens until that is over.
    pub(crate) fn task(&mut self, dir: &Path) -> Talk {
        if let Some(stdin) = &mut self.stdin {
            // one that has just died is heard of below
            let _ = writeln!(stdin, "{}", dir.display()).and_then(|()| stdin.flush());
        }
        let (mut events, mut strays) = (Vec::new(), Vec::new());
        let until = Instant::now() + self.limit;
        let end = loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => match serde_json::from_slice(&line) {
                    Ok(Event::Done) => break End::Done,
                    Ok(event) => events.push(event),
                    Err(_) => strays.push(String::from_utf8_lossy(&line).into_owned()),
                },
                Err(RecvTimeoutError::Disconnected) => break End::Gone(self.over(Duration::from_secs(2))),
                Err(RecvTimeoutError::Timeout) => {
                    kill(self.child.id());
                    break End::Silent(self.limit);
                }
            }
        };
        self.last = end.clone();
        Talk { events, strays, end, words: self.last_words() }
    }

    /// Closes its input: it has to end, and well.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        self.stdin = None;
        let hint = "read standard input line by line; when it ends, leave the loop and exit with code 0";
        match self.over(self.limit) {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                let message = format!("it ended with {status} when its input was closed{}", said(&self.last_words()));
                Err(fault(message, hint))
            }
            None => {
                let message = format!("it still ran {} s after its input was closed", self.limit.as_secs_f64());
                Err(fault(message, hint))
            }
        }
    }

    fn over(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            // one that cannot be waited for is one that nobody will hear of
            if let Some(status) = self.child.try_wait().ok()? {
                return Some(status);
            }
            if Instant::now() > until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    fn last_words(&self) -> String {
        tail(&self.words.lock().expect("no thread panics while it holds this"), 6)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // one that has been waited for must not be signalled: its number may be another's by now
        if let Ok(None) = self.child.try_wait() {
            kill(self.child.id());
            let _ = self.child.wait();
        }
    }
}

/// Last words, as they follow a sentence.
pub(crate) fn said(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(":\n{words}") }
}

fn listen(out: impl Read, send: &Sender<Vec<u8>>) {
    for line in lines(out) {
        if send.send(line).is_err() {
            return;
        }
    }
}

fn copy(mut from: impl Read, words: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let mut words = words.lock().expect("no thread panics while it holds this");
        words.push_str(&String::from_utf8_lossy(&buffer[..n]));
        if words.len() > 1 << 16 {
            *words = tail(&words, 12) + "\n";
        }
    }
}
