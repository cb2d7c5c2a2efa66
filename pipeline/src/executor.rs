//! Tasks that run elsewhere, and what is heard of them. An executor starts processes and reports; it does not know what
//! a task is for.

mod devices;
mod local;
mod orphans;
mod process;
mod slurm;
mod spawn;
mod weight;

pub use devices::{Gpus, VARIABLE as GPU_VARIABLE};
pub use local::Local;
pub use process::{find, kill, lines, output_within, process};
pub use slurm::{Cluster, Left, Slurm, work};

use protocol::{Event, Needs};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Where tasks are worked on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// On this machine.
    #[default]
    Local,
    /// On the nodes of a Slurm cluster.
    Slurm,
}

impl std::str::FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Place, ()> {
        match text {
            "local" => Ok(Place::Local),
            "slurm" => Ok(Place::Slurm),
            _ => Err(()),
        }
    }
}

impl Place {
    /// All of them, by name.
    pub const NAMES: [&str; 2] = ["local", "slurm"];
}

/// Takes tasks and tells what becomes of them.
pub trait Executor {
    /// Whether a task that needs so much may be handed in now.
    fn has_room(&self, needs: &Needs) -> bool;

    /// The threads that a task with these needs may use.
    fn threads(&self, needs: &Needs) -> usize;

    /// How many tasks with these needs are worked on side by side.
    fn lanes(&self, needs: &Needs) -> usize;

    /// Hands a task in. One that cannot be started is reported like one that died.
    fn submit(&mut self, task: &Task) -> Option<Ended>;

    /// What was heard since the last call; waits so long for something to be heard.
    fn poll(&mut self, wait: Duration) -> Vec<(usize, Report)>;

    /// Whether a task was handed in that is not over.
    fn is_busy(&self) -> bool;

    /// The user wants to stop: takes back what was handed in and has not begun, and tells workers at the rest to end
    /// soon.
    fn drain(&mut self);

    /// Ends everything.
    fn stop_all(&mut self);
}

/// What there is to work with.
#[derive(Clone, Debug)]
pub struct Means {
    /// Threads of this machine for all tasks together.
    pub jobs: usize,
    /// Memory of this machine for all tasks together, MB.
    pub memory_mb: u64,
    /// GPUs of this machine for all tasks together.
    pub gpus: Gpus,
    /// Where the tasks of stages go that say nothing of it.
    pub place: Place,
    /// The cluster.
    pub cluster: Cluster,
}

/// All executors of a run.
pub struct Executors {
    local: Local,
    slurm: Slurm,
    place: Place,
}

impl Executors {
    /// Those of a run whose task directories lie below `tasks`.
    pub fn new(means: &Means, tasks: &Path) -> Executors {
        Executors {
            local: Local::new(means.jobs, means.memory_mb, means.gpus.clone()),
            slurm: Slurm::new(means.cluster.clone(), &tasks.join("slurm")),
            place: means.place,
        }
    }

    /// The one that takes the tasks of a stage.
    pub fn at(&mut self, place: Option<Place>) -> &mut dyn Executor {
        match place.unwrap_or(self.place) {
            Place::Local => &mut self.local,
            Place::Slurm => &mut self.slurm,
        }
    }

    /// What was heard of all tasks since the last call; waits so long for something to be heard.
    pub fn poll(&mut self, wait: Duration) -> Vec<(usize, Report)> {
        if !self.slurm.is_busy() {
            return self.local.poll(wait);
        }
        // nothing wakes us when a file on the cluster grows
        let mut reports = self.slurm.poll(if self.local.is_busy() { Duration::ZERO } else { wait });
        if self.local.is_busy() {
            let wait = if reports.is_empty() { wait.min(Duration::from_millis(50)) } else { Duration::ZERO };
            reports.extend(self.local.poll(wait));
        }
        reports
    }

    /// The user wants to stop: takes back what has not begun.
    pub fn drain(&mut self) {
        self.local.drain();
        self.slurm.drain();
    }

    /// Ends everything.
    pub fn stop_all(&mut self) {
        self.local.stop_all();
        self.slurm.stop_all();
    }

    /// Tasks that an earlier run has left with a cluster: whoever wants them hears of them like of those it hands in.
    pub fn left(&self) -> Vec<Task> {
        self.slurm.tasks().cloned().collect()
    }

    /// The jobs that worked on tasks, as the cluster names them.
    pub fn jobs(&self) -> &[String] {
        self.slurm.jobs()
    }
}

/// Work for a process: a task directory and who takes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// The caller's name for it.
    pub id: usize,
    /// The keys of its units, hex.
    pub keys: Vec<String>,
    /// The task directory.
    pub dir: PathBuf,
    /// Who takes it.
    pub by: By,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// What it takes up.
    pub needs: Needs,
    /// How much memory it may take, MB.
    pub limit_mb: Option<u64>,
}

/// Who takes a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// It is being worked on from now on, in this folder; if it is heard twice, from the beginning.
    Began(PathBuf),
    /// Something happened that the user should know.
    Remark(String),
    /// A worker said something.
    Event(Event),
    /// The task is over, since then.
    Ended(Ended, Instant),
}

/// How a task was over.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
        #[serde(with = "raw_status")]
        status: Option<ExitStatus>,
    },
    /// It could not be started.
    NotStarted(String),
    /// It took longer than it may.
    TimedOut,
    /// Where it was worked on, something happened that is not its own fault.
    Lost {
        /// What, as a sentence that begins with "it".
        how: String,
        /// What to do about it.
        hint: String,
    },
    /// It was taken back before it began, as far as anybody knows.
    Withdrawn,
}

/// How a process ended, as the number that the system has for it.
mod raw_status {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    pub fn serialize<S: Serializer>(status: &Option<ExitStatus>, to: S) -> Result<S::Ok, S::Error> {
        status.map(ExitStatusExt::into_raw).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ExitStatus>, D::Error> {
        Ok(Option::<i32>::deserialize(from)?.map(ExitStatus::from_raw))
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
