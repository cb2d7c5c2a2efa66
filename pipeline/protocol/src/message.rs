//! The messages: what a task directory's `params.json` says, and the JSON lines a worker prints.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The protocol's version.
pub const PROTOCOL: u32 = 1;

/// `params.json` of a task directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskParams {
    /// The stage's kind.
    pub kind: String,
    /// The stage's version, as the engine planned with it; a worker of another version refuses.
    pub version: u32,
    /// The stage's parameters, complete.
    pub params: serde_json::Value,
    /// Threads the task may use, at least 1.
    pub threads: usize,
    /// A folder that survives a kill: named by the unit's key, for checkpoints. Only for tasks of one unit.
    #[serde(default)]
    pub scratch: Option<PathBuf>,
    /// The units' keys as hex: `_unit` in `in.arrow` is an index into this list, seeds are drawn from them.
    pub keys: Vec<String>,
    /// A digest of kind, version, parameters and constants: a worker keeps the built stage for the next task that has
    /// the same.
    pub stage_key: String,
}

/// A line a worker prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// How far the task is: units, or steps of a single long unit.
    Progress {
        /// Done so far.
        done: u64,
        /// Of so many.
        total: u64,
        /// A short remark, a loss perhaps.
        #[serde(default)]
        note: String,
    },
    /// Results of some units are complete.
    Part {
        /// File name in the task directory.
        file: String,
    },
    /// A unit, or the whole task, has failed.
    Failed {
        /// The unit; all that were not delivered if there is none.
        #[serde(default)]
        unit: Option<usize>,
        /// What went wrong, a sentence.
        error: String,
        /// What to do about it.
        #[serde(default)]
        hint: Option<String>,
    },
    /// The task is over: what was not delivered by now has failed.
    Done,
}
