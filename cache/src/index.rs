//! The index: sled, and the only file that names it. It says in which journal and where the record of a key lies, and
//! which digest a file with a certain fingerprint has. All of it can be rebuilt, so every failure ends in [`Broken`]:
//! the caller sets the folder aside and fills a new one.

use crate::{Fingerprint, Place};
use manifests::Digest;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// What the index said, or how it panicked.
pub(crate) struct Broken(pub(crate) String);

/// An index that does not open within this time is taken to be broken.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
const CACHE_BYTES: u64 = 64 << 20;

/// An open index.
pub(crate) struct Index {
    db: sled::Db,
    units: sled::Tree,
    files: sled::Tree,
    segments: sled::Tree,
}

impl Index {
    /// Opens the index in `dir`, or makes a new one.
    pub(crate) fn open(dir: &Path) -> Result<Index, Broken> {
        let (send, receive) = mpsc::channel();
        let dir = dir.to_path_buf();
        // sled panics on some kinds of damage, and may take for ever on others
        std::thread::spawn(move || {
            let opened = std::panic::catch_unwind(AssertUnwindSafe(|| open(&dir)));
            let opened = opened.unwrap_or_else(|panic| Err(Broken(panic_text(&*panic))));
            // nobody listens any more once the limit has passed
            let _ = send.send(opened);
        });
        receive.recv_timeout(OPEN_LIMIT).unwrap_or_else(|_| Err(Broken("it does not open".into())))
    }

    /// Where the record of a key lies.
    pub(crate) fn unit(&self, key: &Digest) -> Result<Option<Place>, Broken> {
        guard(|| Ok(self.units.get(key.0)?.and_then(|bytes| Place::from_bytes(&bytes))))
    }

    /// The digest of a file when it had this fingerprint.
    pub(crate) fn file(&self, path: &Path, fingerprint: Fingerprint) -> Result<Option<Digest>, Broken> {
        guard(|| {
            let Some(bytes) = self.files.get(path.as_os_str().as_encoded_bytes())? else { return Ok(None) };
            let known = bytes.len() == 72 && bytes[..40] == fingerprint.to_bytes();
            Ok(known.then(|| Digest(bytes[40..].try_into().expect("the length was checked"))))
        })
    }

    /// Up to which length a segment of the journal is indexed.
    pub(crate) fn segment(&self, segment: u32) -> Result<Option<u64>, Broken> {
        guard(|| {
            let bytes = self.segments.get(segment.to_be_bytes())?;
            Ok(bytes.and_then(|bytes| Some(u64::from_le_bytes(bytes.as_ref().try_into().ok()?))))
        })
    }

    /// Adds what was found out, and makes it last.
    pub(crate) fn add(
        &self,
        units: &[(Digest, Place)],
        files: &[(std::path::PathBuf, Fingerprint, Digest)],
        segments: &[(u32, u64)],
    ) -> Result<(), Broken> {
        guard(|| {
            let mut batch = sled::Batch::default();
            for (key, place) in units {
                batch.insert(&key.0, &place.to_bytes());
            }
            self.units.apply_batch(batch)?;
            let mut batch = sled::Batch::default();
            for (path, fingerprint, digest) in files {
                let value = [&fingerprint.to_bytes()[..], &digest.0].concat();
                batch.insert(path.as_os_str().as_encoded_bytes(), value);
            }
            self.files.apply_batch(batch)?;
            // last: only what is indexed counts as indexed
            for (segment, length) in segments {
                self.segments.insert(segment.to_be_bytes(), &length.to_le_bytes())?;
            }
            self.db.flush()?;
            Ok(())
        })
    }
}

fn open(dir: &Path) -> Result<Index, Broken> {
    let open = || {
        let db = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
        let (units, files, segments) = (db.open_tree("units")?, db.open_tree("files")?, db.open_tree("segments")?);
        Ok(Index { db, units, files, segments })
    };
    open().map_err(|error: sled::Error| Broken(error.to_string()))
}

fn guard<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, Broken> {
    match std::panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Broken(error.to_string())),
        Err(panic) => Err(Broken(panic_text(&*panic))),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("it panicked: {}", text.unwrap_or("no message"))
}
