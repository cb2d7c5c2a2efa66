//! A remote: a place beside the workspace where colleagues and CI find what was computed once. Objects with names,
//! nothing else: `blobs/ab/cdef…` is a file by digest, `records/ab/cdef…` the record of a key.
//!
//! Nothing is locked. A blob may be written twice, with the same bytes; a record is written by whoever comes first.
//! Objects may vanish at any time, and what arrives is believed only if its digest is right. Knows neither the journal
//! nor the index.

mod dir;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod transfer;

pub use dir::Dir;

use manifests::Digest;
use std::io::Write;
use std::path::Path;

/// Why a remote cannot be used: a sentence, and nothing secret in it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(pub String);

/// What functions of a remote return.
pub type Answer<T> = std::result::Result<T, Trouble>;

/// Where objects lie under names like `blobs/ab/cdef…`. It tries again by itself what may succeed then; its answers are
/// final. Threads use it side by side, and it costs nothing before it is first asked.
pub trait Remote: Send + Sync {
    /// How messages call it, without anything secret.
    fn name(&self) -> &str;

    /// The length of an object; `None` if there is none.
    ///
    /// # Errors
    /// If the remote cannot tell.
    fn length(&self, name: &str) -> Answer<Option<u64>>;

    /// Writes an object's bytes to `to`, `limit` of them at most and one more if there are more; says how many, and
    /// `None` if there is no such object.
    ///
    /// # Errors
    /// If it cannot be read to its end, or `to` does not take it.
    fn read(&self, name: &str, limit: u64, to: &mut dyn Write) -> Answer<Option<u64>>;

    /// Puts a file there under this name: whole or not at all, in the place of what there was.
    ///
    /// # Errors
    /// If it cannot be written.
    fn write(&self, name: &str, file: &Path) -> Answer<()>;

    /// Puts these bytes there unless there is something of this name; says whether it did.
    ///
    /// # Errors
    /// If it cannot be written.
    fn write_new(&self, name: &str, bytes: &[u8]) -> Answer<bool>;

    /// Moves an object below `quarantine/`, so that its name is free for the right one.
    ///
    /// # Errors
    /// If it cannot.
    fn set_aside(&self, name: &str) -> Answer<()>;

    /// The names of all objects below a folder, in no order.
    ///
    /// # Errors
    /// If the remote cannot list.
    fn list(&self, folder: &str) -> Answer<Vec<String>>;
}

/// Where the record of a key lies.
pub(crate) fn record_name(key: &Digest) -> String {
    format!("records/{}", crate::Blobs::name(key))
}

/// Where a file lies.
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}", crate::Blobs::name(digest))
}

/// The key whose record has this name.
pub(crate) fn key_of(name: &str) -> Option<Digest> {
    name.strip_prefix("records/")?.replacen('/', "", 1).parse().ok()
}
