//! What can go wrong with a workspace. Knows no recipe: the command line adds hints.

use std::path::{Path, PathBuf};

/// A workspace that cannot be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb: `read`, `write`, `make`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process works in this workspace.
    #[error("the workspace {} is in use by process {holder}", path.display())]
    Busy {
        /// The workspace.
        path: PathBuf,
        /// Process id, host and start of the holder, as it wrote them down.
        holder: String,
    },
    /// A record could not be decoded although its checksum is right: written by another version.
    #[error("a record in {} is not understood: {reason}", path.display())]
    Foreign {
        /// The journal.
        path: PathBuf,
        /// What is odd about it.
        reason: String,
    },
    /// A record is longer than the journal takes.
    #[error("the record of {what} takes {bytes} bytes, and one may have {most}")]
    TooLong {
        /// The unit and its stage, as people know them.
        what: String,
        /// Its length, bytes.
        bytes: usize,
        /// The most that a record may have, bytes.
        most: usize,
    },
    /// A blob that is needed is nowhere.
    #[error("the file with digest {digest} is gone: {reason}")]
    Gone {
        /// Its digest.
        digest: String,
        /// Where it was looked for.
        reason: String,
    },
    /// The index failed in the middle of work; it will be rebuilt at the next start.
    #[error("the index of the workspace failed: {0}")]
    Index(String),
}

impl Error {
    /// Whether the disk (or a quota) is full.
    pub fn is_full(&self) -> bool {
        // the index tells only in words
        let told = matches!(self, Error::Index(text) if FULL.iter().any(|words| text.contains(words)));
        told || matches!(self, Error::Io { source, .. } if matches!(source.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge))
    }

    /// Whether the disk refuses to be written, so that nothing can be kept any more.
    pub fn is_refused(&self) -> bool {
        let Error::Io { doing, source, .. } = self else { return false };
        let failing = rustix::io::Errno::from_io_error(source) == Some(rustix::io::Errno::IO);
        // what cannot be read or copied may be a file of the user's
        source.kind() == std::io::ErrorKind::ReadOnlyFilesystem
            || failing && !["read", "copy", "remove"].contains(doing)
    }
}

/// What the system says of a full disk, of a used-up quota, and of a file that grew beyond a limit.
const FULL: [&str; 3] = ["No space left on device", "Disk quota exceeded", "File too large"];

/// Whether a text of the index tells of a disk that cannot be written rather than of damage.
pub(crate) fn tells_of_room(text: &str) -> bool {
    FULL.iter().chain(&["Read-only file system"]).any(|words| text.contains(words))
}

/// For `map_err`: names what was being done to which file.
pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { doing, path, source }
}
