//! Tasks that run elsewhere, and what is heard of them. An executor starts processes and reports; it does not know what a
//! task is for.

mod local;
mod spawn;

pub use local::{Local, kill, output_within, process};

use protocol::Event;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Work for a process: a task directory and who takes it.
#[derive(Clone, Debug)]
pub struct Task {
    /// The caller's name for it.
    pub id: usize,
    /// The task directory.
    pub dir: PathBuf,
    /// Who takes it.
    pub by: By,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// Who takes a task.
#[derive(Clone, Debug)]
pub enum By {
    /// A worker of a provider, kept alive for the next.
    Worker {
        /// The words that start the provider.
        argv: Vec<String>,
        /// Folder it is started in.
        dir: PathBuf,
        /// Tasks of the same stage gain from the same worker.
        stage_key: String,
    },
    /// A program, started for this task alone.
    Program {
        /// Its words.
        argv: Vec<String>,
        /// Folder it is started in.
        dir: PathBuf,
    },
}

/// What is heard of a task.
#[derive(Clone, Debug)]
pub enum Report {
    /// A worker said something.
    Event(Event),
    /// The task is over.
    Ended(Ended),
}

/// How a task was over.
#[derive(Clone, Debug)]
pub enum Ended {
    /// As it should be; for workers that is [`Event::Done`].
    Done,
    /// The process is gone.
    Died {
        /// How: `exited with code 3`, `was killed by signal 11`.
        how: String,
        /// The last lines it wrote.
        tail: String,
        /// What the system said of it, if that is known.
        status: Option<ExitStatus>,
    },
    /// It could not be started.
    NotStarted(String),
    /// It took longer than it may.
    TimedOut,
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
