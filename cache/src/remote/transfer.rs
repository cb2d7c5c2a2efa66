//! One unit to a remote or from it: blobs before their record, nothing believed that has not the right digest. Knows
//! neither the journal nor who waits.

use super::{Answer, Remote, Trouble, blob_name, record, record_name};
use crate::entry::{StageFacts, Unit};
use crate::error::io;
use crate::{Blobs, Error};
use manifests::{Blob, Digest};
use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A unit to be sent.
pub(crate) struct Job {
    pub(crate) unit: Unit,
    pub(crate) facts: StageFacts,
    /// Its files, and where they lie.
    pub(crate) files: Vec<(Blob, PathBuf)>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// Whether the remote had the record already.
    pub(crate) known: bool,
    /// What the user should know.
    pub(crate) warning: Option<String>,
}

/// Sends a unit. The first writer of a record wins; one that says otherwise is told of in [`Sent::warning`].
///
/// # Errors
/// If the remote cannot be used.
pub(crate) fn send(remote: &dyn Remote, job: &Job) -> Answer<Sent> {
    let mut sent = Sent::default();
    let key = job.unit.key;
    let whose = format!("stage `{}`, unit {} ({})", job.unit.node, job.unit.name, key.short());
    for (blob, path) in &job.files {
        let name = blob_name(&blob.digest);
        if remote.length(&name)? == Some(blob.len) {
            continue;
        }
        if !Digest::of_file(path).is_ok_and(|(digest, _)| digest == blob.digest) {
            // others would only find out that it is damaged
            let digest = blob.digest.short();
            let warning =
                format!("{whose} is not sent: its file {digest} is damaged or gone; `effigy cache verify` names it");
            return Ok(Sent { warning: Some(warning), ..sent });
        }
        remote.write(&name, path)?;
        sent.files += 1;
        sent.bytes += blob.len;
    }
    let (name, bytes) = (record_name(&key), record::encode(&job.unit, &job.facts));
    for _ in 0..3 {
        if remote.write_new(&name, &bytes)? {
            sent.bytes += bytes.len() as u64;
            return Ok(sent);
        }
        let mut found = Vec::new();
        if remote.read(&name, record::LONGEST, &mut found)?.is_none() {
            // it has been evicted since
            continue;
        }
        match record::decode(&found, &key) {
            Ok((theirs, _)) if record::same(&theirs, &job.unit) => return Ok(Sent { known: true, ..sent }),
            Ok((theirs, _)) => {
                sent.warning = Some(format!(
                    "{whose} gave another result here than the one in the remote, so the stage is not deterministic; the \
                     remote keeps the first"
                ));
                if is_whole(remote, &theirs)? {
                    return Ok(Sent { known: true, ..sent });
                }
                // nobody can use it any more: its files are gone
                remote.set_aside(&name)?;
            }
            Err(reason) => {
                sent.warning = Some(format!("the remote's record of {whose} was damaged and is replaced: {reason}"));
                remote.set_aside(&name)?;
            }
        }
    }
    Err(Trouble(format!("its record {name} can neither be written nor read")))
}

/// Whether all files of a unit are there.
fn is_whole(remote: &dyn Remote, unit: &Unit) -> Answer<bool> {
    for blob in unit.blobs() {
        if remote.length(&blob_name(&blob.digest))? != Some(blob.len) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a remote has of a key.
pub(crate) enum Found {
    /// The unit; its files have been taken in.
    Unit { unit: Box<Unit>, facts: StageFacts, files: usize, bytes: u64 },
    /// Nothing, or a record whose files have been evicted.
    Nothing,
    /// Something that is not what it should be. It is told, and as good as nothing.
    Refused(String),
}

/// Why fetching ended.
pub(crate) enum Failed {
    /// The remote cannot be used.
    Remote(Trouble),
    /// The workspace cannot be written.
    Here(Error),
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Failed {
        Failed::Remote(trouble)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Here(error)
    }
}

/// Fetches the unit of a key, and those of its files that are not `here`. What is wrong twice in the same way is set
/// aside if `heals`: then whoever computes it can put the right one there.
pub(crate) fn fetch(
    remote: &dyn Remote,
    blobs: &Blobs,
    here: &dyn Fn(&Blob) -> bool,
    key: &Digest,
    heals: bool,
) -> Result<Found, Failed> {
    let name = record_name(key);
    let mut wrong: Option<Vec<u8>> = None;
    let (unit, facts, length) = loop {
        let mut bytes = Vec::new();
        if remote.read(&name, record::LONGEST, &mut bytes)?.is_none() {
            return Ok(Found::Nothing);
        }
        match (record::decode(&bytes, key), wrong.take()) {
            (Ok((unit, facts)), _) => break (unit, facts, bytes.len() as u64),
            // it may have been spoilt on its way
            (Err(_), None) => wrong = Some(bytes),
            (Err(reason), Some(before)) => {
                return Ok(Found::Refused(refuse(remote, &name, &reason, heals && before == bytes)));
            }
        }
    };
    let (mut files, mut sum, mut seen) = (0, length, HashSet::new());
    for blob in unit.blobs().filter(|blob| seen.insert(blob.digest)) {
        if here(blob) {
            continue;
        }
        match fetch_blob(remote, blobs, blob, heals)? {
            Taken::In => {
                files += 1;
                sum += blob.len;
            }
            Taken::Gone => return Ok(Found::Nothing),
            Taken::Refused(text) => return Ok(Found::Refused(text)),
        }
    }
    Ok(Found::Unit { unit: Box::new(unit), facts, files, bytes: sum })
}

/// What a fetch would find: the unit of a key, if its files are `here` or there. Nothing is kept, nothing set aside.
///
/// # Errors
/// If the remote cannot be used.
pub(crate) fn look(remote: &dyn Remote, here: &dyn Fn(&Blob) -> bool, key: &Digest) -> Answer<Option<Unit>> {
    // what was spoilt on its way is asked for once more
    for _ in 0..2 {
        let mut bytes = Vec::new();
        if remote.read(&record_name(key), record::LONGEST, &mut bytes)?.is_none() {
            return Ok(None);
        }
        let Ok((unit, _)) = record::decode(&bytes, key) else { continue };
        for blob in unit.blobs().filter(|blob| !here(blob)) {
            if remote.length(&blob_name(&blob.digest))? != Some(blob.len) {
                return Ok(None);
            }
        }
        return Ok(Some(unit));
    }
    Ok(None)
}

enum Taken {
    In,
    Gone,
    Refused(String),
}

fn fetch_blob(remote: &dyn Remote, blobs: &Blobs, blob: &Blob, heals: bool) -> Result<Taken, Failed> {
    let name = blob_name(&blob.digest);
    let mut wrong: Option<Digest> = None;
    loop {
        let path = blobs.temporary()?;
        let file = File::create(&path).map_err(io("write", &path))?;
        let adopted = match pour(remote, (&name, blob.len), file, &path) {
            Ok(true) => blobs.adopt(&path, blob).map_err(Failed::Here),
            Ok(false) => Ok(Err(None)),
            Err(failed) => Err(failed),
        };
        if !matches!(adopted, Ok(Ok(()))) {
            // what is not right is of use to nobody
            let _ = std::fs::remove_file(&path);
        }
        match adopted? {
            Ok(()) => return Ok(Taken::In),
            Err(None) => return Ok(Taken::Gone),
            Err(Some(found)) => match wrong.replace(found) {
                // it may have been spoilt on its way
                None => {}
                Some(before) => {
                    let reason = format!("its content has the digest {}", found.short());
                    return Ok(Taken::Refused(refuse(remote, &name, &reason, heals && before == found)));
                }
            },
        }
    }
}

/// Writes an object's bytes, which should be so many, into the file at `path`; says whether there is such an object.
fn pour(remote: &dyn Remote, (name, length): (&str, u64), to: impl Write, path: &Path) -> Result<bool, Failed> {
    let mut sink = Sink { to, failed: None };
    let read = remote.read(name, length, &mut sink);
    match sink.failed {
        Some(error) => Err(Failed::Here(io("write", path)(error))),
        None => Ok(read?.is_some()),
    }
}

/// Whatever a remote writes into, with what it did not take: a full disk here is no fault of the remote.
struct Sink<W> {
    to: W,
    failed: Option<std::io::Error>,
}

impl<W> Sink<W> {
    /// Keeps an error, and tells the remote of one of its kind.
    fn noted<T>(&mut self, outcome: std::io::Result<T>) -> std::io::Result<T> {
        outcome.map_err(|error| {
            let kind = error.kind();
            // that is asked for once more
            if kind != ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes);
        self.noted(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = self.to.flush();
        self.noted(flushed)
    }
}

/// Says that an object is not used, and sets it aside if that can be done.
fn refuse(remote: &dyn Remote, name: &str, reason: &str, heals: bool) -> String {
    let aside =
        if heals && remote.set_aside(name).is_ok() { "it was moved to quarantine/ there" } else { "it is left there" };
    format!("{name} of the remote {} is refused: {reason}; {aside}, and what it should give is a miss", remote.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dir;

    #[test]
    fn a_full_disk_here_is_no_fault_of_the_remote() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x"), "content").unwrap();
        let (remote, path) = (Dir::new(dir.path()), Path::new("f"));
        let full = File::options().write(true).open("/dev/full").unwrap();
        let failed = pour(&remote, ("x", 7), full, path);
        assert!(matches!(failed, Err(Failed::Here(error)) if error.is_full()));
        let mut kept = Vec::new();
        assert!(matches!(pour(&remote, ("x", 7), &mut kept, path), Ok(true)) && kept == b"content");
        assert!(matches!(pour(&remote, ("y", 7), &mut kept, path), Ok(false)));
        let gone = Dir::new(&dir.path().join("gone"));
        assert!(matches!(pour(&gone, ("x", 7), &mut kept, path), Err(Failed::Remote(_))));
    }
}
