//! What effigy itself writes into the user's folders: workspaces and reports. No pattern and no folder that a recipe
//! reads has them as a part, or each run would read what the one before it wrote.
//!
//! Knows their names, and nothing of what stands in them.

use cache::layout;
use std::path::Path;

/// The page of a report.
pub const PAGE: &str = "report.html";
/// Its Markdown.
pub const MARKDOWN: &str = "report.md";
/// The folder of its pictures, films and drawings.
pub const FILES: &str = "report_files";
/// The file in that folder that tells it from one of the user's.
pub const MARK: &str = ".effigy-report";

/// Whether a folder is a workspace, of whatever name.
pub fn is_workspace(folder: &Path) -> bool {
    [layout::RECORDS, layout::BLOBS].iter().all(|name| folder.join(name).is_dir())
        && folder.join(layout::LOCK).is_file()
}

/// Whether a name in a folder is that of a part of a report; `has_report` says whether the folder has one.
pub fn is_report(name: &std::ffi::OsStr, has_report: bool) -> bool {
    has_report && [PAGE, MARKDOWN, FILES, "report.tmp", "report_files.tmp"].iter().any(|own| name == *own)
}

/// Whether there is a report of ours in a folder.
pub fn has_report(folder: &Path) -> bool {
    folder.join(FILES).join(MARK).is_file()
}
