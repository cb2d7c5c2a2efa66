//! What a run that is on has come to, in a small file that `effigy status` reads from another terminal. Never the index: only
//! the process that runs may open that.

use crate::event::{Event, Reader};
use crate::memory;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
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
    /// Stages that have units to run, and those that are over.
    pub stages: Vec<LiveStage>,
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

/// And so seldom that writing it takes at most this share of the time: it grows with the number of stages.
const SHARE: u32 = 100;

struct Writer {
    path: PathBuf,
    live: Live,
    /// Where each stage stands in the list.
    places: HashMap<String, usize>,
    /// When it was written last, and how long that took.
    written: Option<(Instant, Duration)>,
}

/// Keeps the file of a workspace up to date.
pub fn reader(workspace: &Path, started: u64) -> Box<dyn Reader> {
    let live = Live { pid: std::process::id(), started, ..Live::default() };
    Box::new(Writer { path: path(workspace), live, places: HashMap::new(), written: None })
}

/// The run that is on in a workspace, if there is one.
pub fn current(workspace: &Path) -> Option<Live> {
    let live: Live = serde_json::from_slice(&std::fs::read(path(workspace)).ok()?).ok()?;
    // a killed run cannot remove its file
    Path::new("/proc").join(live.pid.to_string()).exists().then_some(live)
}

fn path(workspace: &Path) -> PathBuf {
    workspace.join("runs").join("current")
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
            Event::Start { recipe, .. } => self.live.recipe = recipe.clone(),
            Event::Stage { stage, units, cached } => {
                let (units, cached) = (units - cached, *cached);
                let name = stage.clone();
                *self.stage(stage) = LiveStage { name, state: "running".into(), units, cached, ..LiveStage::default() };
                self.write();
            }
            Event::Progress { stage, ran, of, within, note } => {
                let stage = self.stage(stage);
                (stage.ran, stage.units, stage.note) = (*ran as f64 + within, *of, note.clone());
                self.write();
            }
            Event::Finished { stage, state, executed, cached, .. } if self.written.is_some() => {
                let (ran, cached) = (*executed as f64, *cached);
                let stage = self.stage(stage);
                (stage.state, stage.ran, stage.cached) = ((*state).into(), ran, cached);
                self.write();
            }
            _ => {}
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
