//! Records of runs: a JSON file for each, which `status`, `log` and `why` read. Holds provenance; nothing depends on it.

use super::{RecipeArgs, host, run::runs_folder};
use crate::finished::NodeState;
use crate::memory;
use crate::plan::Plan;
use crate::run::Outcome;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A run that is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub run: String,
    /// The recipe's name.
    pub recipe: String,
    /// The recipe's file as it was named.
    pub file: String,
    /// The profile.
    pub profile: Option<String>,
    /// `--param` and `--set`.
    pub overrides: Vec<String>,
    /// Milliseconds since 1970.
    pub started: u64,
    /// How long it took.
    pub seconds: f64,
    /// `done`, `failed` or `interrupted`.
    pub outcome: String,
    /// Units that ran.
    pub executed: usize,
    /// Units that were known.
    pub cached: usize,
    /// Units that failed.
    pub failed: usize,
    /// The machine.
    pub host: String,
    /// Its processor.
    pub cpu: String,
    /// Version of effigy.
    pub version: String,
    /// Versions of what providers are built on.
    pub software: Vec<(String, String)>,
    /// The commit the recipe was at.
    pub commit: Option<String>,
    /// The stages.
    pub stages: Vec<StageRecord>,
}

/// A stage of a run that is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageRecord {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// `done`, `failed` or `skipped`.
    pub state: String,
    /// Units that ran.
    pub executed: usize,
    /// Units that were known.
    pub cached: usize,
    /// Units that failed.
    pub failed: usize,
    /// Seconds of work in this run.
    pub seconds: f64,
    /// Digest of kind, version, parameters and constants.
    pub head: Option<manifests::Digest>,
    /// Digest of its table.
    pub table: Option<manifests::Digest>,
}

/// Writes the record of a run. One in which nothing happened leaves none, or the log would be full of them.
pub fn write(
    args: &RecipeArgs,
    plan: &Plan,
    outcome: &Outcome,
    workspace: &Path,
    id: &str,
    started: u64,
    seconds: f64,
) -> Result<()> {
    let (executed, cached, failed) = outcome.totals();
    let whole = outcome.states.iter().all(|state| *state == NodeState::Done);
    if executed + failed == 0 && whole && runs_folder(workspace).join("latest").exists() {
        return Ok(());
    }
    let word = |state: &NodeState| match state {
        NodeState::Done => "done",
        NodeState::Failed => "failed",
        NodeState::Skipped => "skipped",
    };
    let stages =
        plan.nodes.iter().zip(&outcome.tallies).zip(&outcome.states).map(|((node, tally), state)| StageRecord {
            name: node.name.clone(),
            kind: node.kind().into(),
            state: word(state).into(),
            executed: tally.executed,
            cached: tally.cached,
            failed: tally.failed,
            seconds: tally.seconds,
            head: tally.head,
            table: tally.table,
        });
    let host = host::info(&plan.spec.dir, &plan.providers);
    let record = Record {
        run: id.into(),
        recipe: plan.spec.name.clone(),
        file: plan.spec.file.clone(),
        profile: plan.spec.profile.clone(),
        overrides: args.params.iter().chain(&args.set).chain(&args.variants).cloned().collect(),
        started,
        seconds,
        outcome: match (outcome.interrupted, whole || outcome.states.iter().all(|state| *state != NodeState::Failed)) {
            (true, _) => "interrupted".into(),
            (false, true) => "done".into(),
            (false, false) => "failed".into(),
        },
        executed,
        cached,
        failed,
        host: host.name,
        cpu: host.cpu,
        version: host.version,
        software: host.software,
        commit: host.commit,
        stages: stages.collect(),
    };
    let folder = runs_folder(workspace);
    memory::write(&folder.join(format!("{id}.json")), &serde_json::to_vec_pretty(&record)?)?;
    memory::write(&folder.join("latest"), id.as_bytes())
}

/// All records of a workspace, oldest first. One that cannot be read is left out.
pub fn all(workspace: &Path) -> Vec<Record> {
    let entries = std::fs::read_dir(runs_folder(workspace)).into_iter().flatten().flatten();
    let json = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ext| ext == "json"));
    let mut records: Vec<Record> =
        json.filter_map(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok()).collect();
    records.sort_by(|a, b| a.run.cmp(&b.run));
    records
}
