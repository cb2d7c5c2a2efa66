//! A finished run as plain data: what reports are made of. Knows nothing of how it was run.

use manifests::{Blob, Manifest, Value};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything a report may tell of a run.
pub struct FinishedRun {
    /// Name of the recipe.
    pub recipe: String,
    /// The recipe's file as the user named it.
    pub file: String,
    /// The recipe's text.
    pub text: String,
    /// The profile asked for.
    pub profile: Option<String>,
    /// The recipe's `params:` with profile and command line applied, as text.
    pub params: Vec<(String, String)>,
    /// The stages in topological order.
    pub nodes: Vec<FinishedNode>,
    /// The recipe's `report:`.
    pub report: Vec<ReportItem>,
    /// The workspace, absolute.
    pub workspace: PathBuf,
    /// When the run began, milliseconds since 1970 UTC.
    pub started: u64,
    /// What it warned of.
    pub warnings: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// Where it ran.
    pub host: HostInfo,
    /// Where a blob's file can be read; `None` if it is gone.
    pub blob_path: Box<dyn Fn(&Blob) -> Option<PathBuf>>,
}

/// One stage of a finished run.
#[derive(Clone, Debug)]
pub struct FinishedNode {
    /// Its name in the recipe.
    pub name: String,
    /// Its kind: `run`, `files`, `select`, or a provider's.
    pub kind: String,
    /// Version of its kind.
    pub version: u32,
    /// `row`, `group` or `whole`; `table` for the engine's own.
    pub grain: String,
    /// How it ended.
    pub state: NodeState,
    /// Units that ran.
    pub executed: usize,
    /// Units that were known.
    pub cached: usize,
    /// Units that failed.
    pub failed: usize,
    /// Seconds of work in this run, summed over its tasks.
    pub seconds: f64,
    /// Seconds of work when its rows were made, in whichever run that was.
    pub worth: f64,
    /// The first digits of the digest of its kind, version, parameters and constants.
    pub key: String,
    /// Parameters as text.
    pub params: Vec<(String, String)>,
    /// Names of the stages it maps over.
    pub from: Vec<String>,
    /// Names of its constants: its own name for it, and the stage.
    pub with: Vec<(String, String)>,
    /// Its rows, if it was finished.
    pub manifest: Option<Manifest>,
}

/// How a stage ended. Events, records and pages have it as its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// All its rows are there.
    Done,
    /// Units failed, more than it allows.
    Failed,
    /// Something it needs failed.
    Skipped,
}

impl NodeState {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            NodeState::Done => "done",
            NodeState::Failed => "failed",
            NodeState::Skipped => "skipped",
        }
    }
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// Where a run took place, and with what.
#[derive(Clone, Debug, Default)]
pub struct HostInfo {
    /// Name of the machine.
    pub name: String,
    /// The processor.
    pub cpu: String,
    /// Threads the run could use.
    pub threads: usize,
    /// Version of effigy.
    pub version: String,
    /// Versions of what the providers are built on.
    pub software: Vec<(String, String)>,
    /// Commit of the folder the recipe lies in, if it is a git repository.
    pub commit: Option<String>,
}

/// One item of a recipe's `report:`.
#[derive(Clone, Debug, PartialEq)]
pub enum ReportItem {
    /// A paragraph of Markdown.
    Text {
        /// The text.
        text: String,
    },
    /// A table over the rows of a stage.
    Table(TableItem),
    /// Pictures from a blob column.
    Images {
        /// The stage.
        stage: String,
        /// Heading.
        title: Option<String>,
        /// The blob column.
        column: String,
        /// Columns written below each picture, or a fixed text if it names no column.
        caption: Vec<String>,
        /// Rows that are equal in these columns are shown together or not at all.
        groups: Vec<String>,
        /// At most so many, spread evenly over the rows.
        limit: Option<usize>,
    },
    /// Curves from CSV files (first column the step).
    Curve {
        /// The stage.
        stage: String,
        /// Heading.
        title: Option<String>,
        /// The blob column.
        column: String,
        /// At most so many, spread evenly over the rows.
        limit: Option<usize>,
    },
    /// How fast stages were.
    Rates {
        /// The stages.
        stages: Vec<String>,
        /// Heading.
        title: Option<String>,
        /// The stage whose rows are what was made; each stage's own if absent.
        count: Option<String>,
    },
    /// Videos from a blob column.
    Videos {
        /// The stage.
        stage: String,
        /// Heading.
        title: Option<String>,
        /// The blob column.
        column: String,
        /// Columns written below each video.
        caption: Vec<String>,
        /// Rows that are equal in these columns are shown together or not at all.
        groups: Vec<String>,
        /// At most so many, evenly spaced over the rows.
        limit: Option<usize>,
    },
}

/// A table over the rows of a stage: what a report shows, and what `effigy table` writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableItem {
    /// The stage.
    pub stage: String,
    /// Heading.
    pub title: Option<String>,
    /// Columns to group by; all rows are one group if there are none.
    pub by: Vec<String>,
    /// Columns to average.
    pub mean: Vec<String>,
    /// Columns that tell apart what counts once: rows that are equal in them (and in `by`) are averaged first.
    pub per: Vec<String>,
    /// Columns shown as they are (one row each), if nothing is averaged.
    pub columns: Vec<String>,
    /// Columns in which more is better: the best value is marked.
    pub higher: Vec<String>,
    /// Columns in which less is better.
    pub lower: Vec<String>,
    /// Only rows that have one of these values in this column.
    pub filter: Vec<(String, Vec<Value>)>,
    /// The value of the last column of `by` whose group the others are compared with.
    pub against: Option<String>,
    /// How far a mean of a column may be from that of a committed table.
    pub tolerance: Vec<(String, f64)>,
    /// A line below the table: what its author has to say of it.
    pub note: Option<String>,
}
