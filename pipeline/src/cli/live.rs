//! What a run that is on has come to, in a small file that `effigy status` and `effigy serve` read from other
//! processes. Never the index: only the process that runs may open that.

use crate::event::{Event, Reader};
use crate::memory;
use crate::plan::Plan;
use crate::record::Wiring;
use cache::layout;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A run that is on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Live {
    /// Process.
    pub pid: u32,
    /// Recipe.
    pub recipe: String,
    /// Milliseconds since 1970.
    pub started: u64,
    /// The run's name, which its record will bear.
    #[serde(default)]
    pub run: String,
    /// The profile.
    #[serde(default)]
    pub profile: Option<String>,
    /// Stages that have units to run, and those that are over.
    pub stages: Vec<LiveStage>,
    /// All stages of the recipe in order, what each takes, and its kind.
    #[serde(default)]
    pub graph: Vec<(String, String, Wiring)>,
    /// What failed and what the user was warned of: the latest.
    #[serde(default)]
    pub remarks: VecDeque<String>,
}

/// A stage of a run that is on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LiveStage {
    /// Its name.
    pub name: String,
    /// `running`, `done`, `failed`, `skipped`.
    pub state: String,
    /// Units that ran, with parts of those in work.
    pub ran: f64,
    /// Units to run.
    pub units: usize,
    /// Units that were known.
    pub cached: usize,
    /// A remark of the worker's.
    pub note: String,
}

/// The file is written at most so often.
const EVERY: Duration = Duration::from_secs(1);

/// So many remarks are kept.
const REMARKS: usize = 20;

/// And so seldom that writing it takes at most this share of the time: it grows with the number of stages.
const SHARE: u32 = 100;

struct Writer {
    path: PathBuf,
    live: Live,
    /// Where each stage stands in the list.
    places: HashMap<String, usize>,
    /// How many units of each stage have failed.
    failed: HashMap<String, usize>,
    /// When it was written last, and how long that took.
    written: Option<(Instant, Duration)>,
}

/// Keeps the file of a workspace up to date while this plan runs.
pub fn reader(workspace: &Path, plan: &Plan, started: u64) -> Box<dyn Reader> {
    let graph = plan.nodes.iter().enumerate();
    let graph = graph.map(|(i, node)| (node.name.clone(), node.kind().to_string(), Wiring::of(plan, i))).collect();
    let profile = plan.spec.profile.clone();
    let live = Live { pid: std::process::id(), started, profile, graph, ..Live::default() };
    Box::new(Writer { path: path(workspace), live, places: HashMap::new(), failed: HashMap::new(), written: None })
}

/// The run that is on in a workspace, if there is one.
pub fn current(workspace: &Path) -> Option<Live> {
    let live: Live = serde_json::from_slice(&std::fs::read(path(workspace)).ok()?).ok()?;
    // a killed run cannot remove its file, and its number may be somebody else's by now: a run has the workspace
    let is_on = Path::new("/proc").join(live.pid.to_string()).exists() && ::cache::is_locked(workspace);
    is_on.then_some(live)
}

fn path(workspace: &Path) -> PathBuf {
    workspace.join(layout::RUNS).join("current")
}

impl Writer {
    fn stage(&mut self, name: &str) -> &mut LiveStage {
        let stages = &mut self.live.stages;
        let i = *self.places.entry(name.into()).or_insert_with(|| {
            stages.push(LiveStage { name: name.into(), ..LiveStage::default() });
            stages.len() - 1
        });
        &mut stages[i]
    }

    fn remark(&mut self, text: String) {
        self.live.remarks.push_back(text);
        if self.live.remarks.len() > REMARKS {
            self.live.remarks.pop_front();
        }
    }

    fn write(&mut self) {
        if self.written.is_some_and(|(written, took)| written.elapsed() < EVERY.max(took * SHARE)) {
            return;
        }
        let begun = Instant::now();
        let text = serde_json::to_vec(&self.live).expect("it is plain data");
        // nobody's work depends on this file
        let _ = memory::write(&self.path, &text);
        self.written = Some((begun, begun.elapsed()));
    }
}

impl Reader for Writer {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Start { run, recipe, .. } => (self.live.run, self.live.recipe) = (run.clone(), recipe.clone()),
            Event::Stage { stage, units, cached, equal } => {
                let (units, cached) = (units - cached - equal, *cached);
                let name = stage.clone();
                *self.stage(stage) = LiveStage { name, state: "running".into(), units, cached, ..LiveStage::default() };
                self.write();
            }
            Event::Progress { stage, ran, of, within, note } => {
                let stage = self.stage(stage);
                (stage.ran, stage.units, stage.note) = (*ran as f64 + within, *of, note.clone());
                self.write();
            }
            Event::Finished { stage, state, executed, cached, .. } => {
                let (ran, cached) = (*executed as f64, *cached);
                let stage = self.stage(stage);
                (stage.state, stage.ran, stage.cached) = (state.word().into(), ran, cached);
                // a run in which nothing runs leaves no trace
                if self.written.is_some() {
                    self.write();
                }
            }
            Event::Failed { stage, unit, error, .. } => {
                let failed = self.failed.entry(stage.clone()).or_default();
                *failed += 1;
                // more of them would leave no room for what others have to say
                if *failed <= super::progress::TOLD {
                    self.remark(format!("{stage}, {unit}: {error}"));
                }
            }
            Event::Warning { text } => self.remark(format!("warning: {text}")),
            // what becomes of it is told
            Event::Retry { .. } | Event::Transfer { .. } | Event::Done { .. } => {}
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.written.is_some() {
            // the next run overwrites it anyway
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_on_while_it_has_the_workspace() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("workspace");
        let cache = ::cache::Cache::open(&root, "test").unwrap();
        let live = Live { pid: std::process::id(), recipe: "r".into(), ..Live::default() };
        std::fs::create_dir_all(root.join("runs")).unwrap();
        std::fs::write(path(&root), serde_json::to_vec(&live).unwrap()).unwrap();
        assert_eq!(current(&root).map(|live| live.recipe), Some("r".into()));
        // its process was killed, and the number is another's by now
        drop(cache);
        assert!(current(&root).is_none());
    }
}
