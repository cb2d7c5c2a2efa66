//! What happens during a run, as values. Who shows it, and how, is somebody else's business.

use crate::finished::NodeState;
use serde::Serialize;

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// The run begins.
    Start {
        /// Name of the run; its record bears it.
        run: String,
        /// The recipe.
        recipe: String,
        /// Its stages, in order.
        stages: Vec<String>,
    },
    /// A stage has units to run.
    Stage {
        /// The stage.
        stage: String,
        /// Units in all.
        units: usize,
        /// Units that are known already.
        cached: usize,
        /// Units that are equal to one that has to run, so that they need not.
        equal: usize,
    },
    /// A stage got further.
    Progress {
        /// The stage.
        stage: String,
        /// Units that were finished in this run.
        ran: usize,
        /// Units to run in all.
        of: usize,
        /// How far the units in work are, in units: 0.5 is half a unit.
        within: f64,
        /// A remark of the worker's: a loss perhaps.
        #[serde(skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// A unit failed and is tried again, as its stage says (`retries:`).
    Retry {
        /// The stage.
        stage: String,
        /// Which unit, for people.
        unit: String,
        /// Why it failed.
        error: String,
        /// Which of the further tries comes now.
        retry: usize,
        /// So many there are at most.
        of: usize,
        /// Where the log of the try lies that failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        log: Option<String>,
    },
    /// A unit failed.
    Failed {
        /// The stage.
        stage: String,
        /// Which unit, for people.
        unit: String,
        /// Why.
        error: String,
        /// What to do about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        /// Where the whole log lies.
        #[serde(skip_serializing_if = "Option::is_none")]
        log: Option<String>,
    },
    /// A stage is over.
    Finished {
        /// The stage.
        stage: String,
        /// How it ended.
        state: NodeState,
        /// Units that ran.
        executed: usize,
        /// Units that were known.
        cached: usize,
        /// Units that failed.
        failed: usize,
        /// Rows of its table.
        rows: usize,
        /// Seconds since it began.
        seconds: f64,
    },
    /// Units go to the remote or come from it.
    Transfer {
        /// The stage that they are of; empty if they are of several.
        #[serde(skip_serializing_if = "String::is_empty")]
        stage: String,
        /// `sent` or `fetched`.
        verb: &'static str,
        /// Units so far.
        units: usize,
        /// Units that were asked for, or wait.
        open: usize,
        /// Bytes so far.
        bytes: u64,
        /// Whether these are all.
        over: bool,
    },
    /// Something the user should know.
    Warning {
        /// What.
        text: String,
    },
    /// The run is over.
    Done {
        /// Units that ran, over all stages.
        executed: usize,
        /// Units that were known.
        cached: usize,
        /// Units that failed.
        failed: usize,
        /// Seconds.
        seconds: f64,
    },
}

/// Takes in what happens.
pub trait Reader {
    /// Something happened.
    fn hear(&mut self, event: &Event);
}
