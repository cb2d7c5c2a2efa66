//! What an engine and a stage provider say to each other, and the frame a Rust provider hangs its stages in.
//!
//! A provider is an executable with two verbs: `describe` prints what stages it has ([`Description`]); `worker` takes
//! task directories on standard input, one path a line, and answers with JSON lines ([`Event`]). A third, `check KIND
//! PARAMS`, is optional: it prints what it finds ([`Finding`]) of the files that a stage's parameters name. A task
//! directory holds `params.json` ([`TaskParams`]), `in.arrow` (column `_unit`, then the columns the stage reads; blobs
//! as readable paths), `with/NAME.arrow`, and `out/`; results go to `out.NNNNN.arrow` (columns `_unit`, optionally
//! `_of`, then the columns the stage writes; blobs as paths), each renamed into place. ARCHITECTURE.md has the whole
//! contract.
//!
//! Knows manifests, and nothing of recipes, keys, caches or the engine.

mod def;
mod message;
mod stage;
mod worker;

pub use def::{ColumnDef, Description, Finding, Grain, Needs, StageDef, WithDef};
pub use message::{Event, PROTOCOL, TaskParams};
pub use stage::{Cx, OutRow, Registration, Row, Rows, Stage, Table, Unit};
pub use worker::provider_main;

#[doc(hidden)]
pub use {inventory, schemars, serde_json};

/// The column that says which unit a row of `in.arrow` or `out.arrow` belongs to: an index into [`TaskParams::keys`].
pub const UNIT: &str = "_unit";
/// The column of `out.arrow` that says which of its unit's input rows an output row extends.
pub const OF: &str = "_of";
/// The file that appears in a task directory when the task should end soon: whoever can go on from a checkpoint leaves
/// one and stops, and whoever has several units stops between them.
pub const STOP: &str = "stop";
/// How the error of a task begins that ended because of [`STOP`].
pub const STOPPED: &str = "stopped";
