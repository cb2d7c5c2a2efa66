//! A cluster as its users describe it: a YAML file of a few lines that says which partition and account jobs go to, and
//! how many of them. Knows nothing of tasks, and reads no environment.

use crate::error::{Problem, Problems};
use crate::fields::Fields;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What jobs of a run are asked for with.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Name of the run, which its jobs bear.
    pub run: String,
    /// The program that works on the nodes: ourselves.
    pub program: PathBuf,
    /// What jobs find in their environment.
    pub env: Vec<(String, String)>,
    /// Names of further variables that are handed on.
    pub env_names: Vec<String>,
    /// Whether jobs stay when the run is interrupted.
    pub detach: bool,
    /// The folder and the words that the run was called with.
    pub call: (PathBuf, Vec<String>),
    /// The partition; where it is empty, the cluster's own.
    pub partition: Option<String>,
    /// Whose budget it is.
    pub account: Option<String>,
    /// The quality of service.
    pub qos: Option<String>,
    /// What a GPU is called in `--gres`: `gpu`, `gpu:a100`.
    pub gpu: String,
    /// Further generic resources of each job.
    pub gres: Option<String>,
    /// Minutes that a job may take whose stage says nothing of it.
    pub minutes: u64,
    /// Memory of a job whose stage says nothing of it, MB; 0: what is usual there.
    pub memory_mb: u64,
    /// Threads of a task that asks for all there are.
    pub threads: usize,
    /// So many jobs (elements of arrays) wait or run at the same time.
    pub jobs: usize,
    /// So many tasks one job works on, one after the other, at most.
    pub tasks: usize,
    /// So many elements an array has at most; the site's MaxArraySize is one more.
    pub array: usize,
    /// A job of which nothing is heard for so long is asked for.
    pub silent: Duration,
    /// So long before its time is up a job is told, so that it can leave checkpoints.
    pub grace: Duration,
    /// Lines for the shell before the work begins: `module load ...`.
    pub prelude: String,
    /// Further arguments of `sbatch`.
    pub args: Vec<String>,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            run: "run".into(),
            program: "effigy".into(),
            env: Vec::new(),
            env_names: Vec::new(),
            detach: false,
            call: (PathBuf::new(), Vec::new()),
            partition: None,
            account: None,
            qos: None,
            gpu: "gpu".into(),
            gres: None,
            minutes: 60,
            memory_mb: 0,
            threads: 1,
            jobs: 100,
            tasks: 16,
            array: 1000,
            silent: Duration::from_secs(60),
            grace: Duration::from_secs(120),
            prelude: String::new(),
            args: Vec::new(),
        }
    }
}

impl Cluster {
    /// Reads a cluster's file.
    ///
    /// # Errors
    /// If it is not there, or something in it is wrong: each with its line and what to do.
    pub fn read(path: &Path) -> Result<Cluster, Problems> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot read {name}: {error}");
            Problems(vec![Problem::new(message).hint("name the file that describes the cluster by `--cluster FILE`")])
        })?;
        let item = crate::yaml::parse(&name, &text).map_err(|problem| Problems(vec![problem]))?;
        let example = "{ partition: gpu, minutes: 120 }";
        let mut fields = Fields::of(&name, "the cluster", item, example).map_err(|problem| Problems(vec![problem]))?;
        let plain = Cluster::default();
        let text = |fields: &mut Fields<'_>, name: &str| fields.text(name).map(|(_, text)| text);
        let count = |fields: &mut Fields<'_>, name: &str, usual: u64, least: u64| {
            let Some((at, count)) = fields.count(name) else { return usual };
            if count < least {
                fields.wrong(at, format!("`{name}` of the cluster is at least {least}, not {count}"), "raise it");
            }
            count
        };
        let cluster = Cluster {
            partition: text(&mut fields, "partition"),
            account: text(&mut fields, "account"),
            qos: text(&mut fields, "qos"),
            gpu: text(&mut fields, "gpu").unwrap_or(plain.gpu),
            gres: text(&mut fields, "gres"),
            prelude: text(&mut fields, "prelude").unwrap_or_default(),
            minutes: count(&mut fields, "minutes", plain.minutes, 1),
            memory_mb: count(&mut fields, "memory_mb", plain.memory_mb, 0),
            threads: count(&mut fields, "threads", plain.threads as u64, 1) as usize,
            jobs: count(&mut fields, "jobs", plain.jobs as u64, 1) as usize,
            tasks: count(&mut fields, "tasks", plain.tasks as u64, 1) as usize,
            array: count(&mut fields, "array", plain.array as u64, 1) as usize,
            silent: Duration::from_secs(count(&mut fields, "silent_s", plain.silent.as_secs(), 1)),
            grace: Duration::from_secs(count(&mut fields, "grace_s", plain.grace.as_secs(), 1)),
            args: fields.texts("args").unwrap_or_default().into_iter().map(|(_, text)| text).collect(),
            env_names: fields.texts("env").unwrap_or_default().into_iter().map(|(_, text)| text).collect(),
            ..plain
        };
        let problems = fields.finish();
        if problems.is_empty() { Ok(cluster) } else { Err(Problems(problems)) }
    }

    /// A job gives a sign of life so often.
    pub fn beat(&self) -> Duration {
        self.silent / 3
    }

    /// The name that all jobs of the run bear.
    pub fn name(&self) -> String {
        format!("effigy.{}", self.run)
    }
}
