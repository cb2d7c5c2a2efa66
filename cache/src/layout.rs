//! What lies in a workspace, by name. ARCHITECTURE.md, "Workspace", says what each is for.
//!
//! Knows nothing of what stands in them; the folders of runs are the engine's, and named here so that all names stand
//! together.

/// Files by digest.
pub const BLOBS: &str = "blobs";
/// The journal of finished units.
pub const RECORDS: &str = "records";
/// Where a record lies.
pub const INDEX: &str = "index";
/// The last index that was damaged and set aside.
pub const INDEX_ASIDE: &str = "index.broken";
/// Checkpoints of units in work, a folder for each.
pub const SCRATCH: &str = "scratch";
/// What is still to be sent to a remote.
pub const UPLOADS: &str = "uploads";
/// Who has the workspace.
pub const LOCK: &str = "lock";
/// Task directories of the present run.
pub const TASKS: &str = "tasks";
/// Tables that runs left.
pub const TABLES: &str = "tables";
/// Records of runs.
pub const RUNS: &str = "runs";
/// What the last run of each recipe and profile left, below [`RUNS`].
pub const LAST: &str = "last";
/// Logs of units that failed.
pub const FAILED: &str = "failed";
/// Logs of the tasks that the last run with work for a stage did, a folder for each.
pub const LOGS: &str = "logs";
/// What the providers said of themselves.
pub const PROVIDERS: &str = "providers.json";
