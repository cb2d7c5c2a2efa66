//! What a run comes to: what became of each stage, and its table. Knows nothing of how it is run.

use super::Damaged;
use crate::finished::{FinishedNode, NodeState};
use crate::plan::Plan;
use crate::rest::Rest;
use crate::selection::Selection;
use anyhow::Result;
use manifests::{Digest, Manifest};
use std::cell::OnceCell;
use std::path::PathBuf;

/// A stage's table, read from the disk only if somebody needs its rows.
pub struct Done {
    /// Digest of the table.
    pub digest: Digest,
    /// Its rows.
    pub rows: usize,
    pub(super) table: OnceCell<Manifest>,
    pub(super) path: PathBuf,
}

impl Done {
    /// The rows.
    ///
    /// # Errors
    /// [`Damaged`], if they lie on the disk and are not what they were.
    pub fn table(&self) -> Result<&Manifest> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let digest = self.digest.short();
        let damaged = || Damaged(format!("the table {digest} of the last run is damaged or gone; it is made again"));
        let table = crate::memory::whole(&self.path, &self.digest).ok_or_else(damaged)?;
        Ok(self.table.get_or_init(|| table))
    }

    /// A table that is at hand.
    pub fn of(digest: Digest, table: Manifest) -> Done {
        Done { digest, rows: table.len(), table: OnceCell::from(table), path: PathBuf::new() }
    }
}

/// What became of a stage, for summaries and records.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Units that ran.
    pub executed: usize,
    /// Units that were known.
    pub cached: usize,
    /// Units that failed.
    pub failed: usize,
    /// Seconds of work in this run.
    pub seconds: f64,
    /// Seconds of the unit that took longest in this run.
    pub longest: f64,
    /// Seconds of work in its table, whenever they were spent.
    pub worth: f64,
    /// Digest of kind, version, parameters and constants.
    pub head: Option<Digest>,
    /// Digest of its table.
    pub table: Option<Digest>,
    /// Rows of its table.
    pub rows: Option<usize>,
}

/// What a run came to.
pub struct Outcome {
    /// What became of each stage.
    pub tallies: Vec<Tally>,
    /// How each stage ended.
    pub states: Vec<NodeState>,
    /// The tables of the stages that are done.
    pub tables: Vec<Option<Done>>,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// What it looked at, if it did everything.
    pub rest: Option<Rest>,
    /// The jobs of a cluster that worked for it.
    pub jobs: Vec<String>,
    /// What the user was warned of, if somebody has listened.
    pub warnings: Vec<String>,
}

impl Outcome {
    /// Units over all stages: executed, cached, failed.
    pub fn totals(&self) -> (usize, usize, usize) {
        let sum = |get: fn(&Tally) -> usize| self.tallies.iter().map(get).sum();
        (sum(|tally| tally.executed), sum(|tally| tally.cached), sum(|tally| tally.failed))
    }

    /// Whether it did all of its recipe and profile, and so has gone on with what earlier runs of these had begun. A
    /// run from some stage on has not: what it took from the last run need not be what others had begun.
    pub fn is_whole(&self, plan: &Plan, selection: &Selection) -> bool {
        let is_all = selection.is_all() && plan.spec.left_out.is_empty();
        is_all && self.states.iter().all(|state| *state == NodeState::Done)
    }

    /// A stage's part of a finished run.
    pub fn node(&self, plan: &Plan, i: usize) -> Result<FinishedNode> {
        let tally = &self.tallies[i];
        Ok(FinishedNode {
            state: self.states[i],
            executed: tally.executed,
            cached: tally.cached,
            failed: tally.failed,
            seconds: tally.seconds,
            worth: tally.worth,
            key: tally.head.map_or(String::new(), |head| head.short()),
            manifest: self.tables[i].as_ref().map(|done| done.table().cloned()).transpose()?,
            ..plan.describe(i)
        })
    }
}
