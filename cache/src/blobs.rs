//! Files by the digest of their content: `blobs/ab/cdef…`, read-only, each put in place by one rename.
//!
//! Whether a file is there is told by its name and length. Before it is worked on it is read and compared with its
//! name, once in the life of a process; [`crate::Cache::verify`] reads them all. Knows no records.

use crate::Result;
use crate::error::io;
use manifests::{Blob, Digest};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// More new files than this are brought to the disk by one request for the whole file system.
const FEW: usize = 8;

/// How a file gets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The file is moved: it was made for us. One that has a second name is somebody else's as well, and is copied.
    Move,
    /// The file stays; its content is copied (shared, where the file system can).
    Copy,
}

/// What the file system says of a file of ours without reading it. Its names, of which tasks have others, are no part
/// of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    ino: u64,
    len: u64,
    /// Of the last change of content: seconds and nanoseconds.
    mtime: (i64, i64),
}

/// The folder of blobs.
#[derive(Clone)]
pub struct Blobs {
    root: PathBuf,
    /// What came in since the last sync, with the folder it lies in.
    fresh: std::sync::Arc<Mutex<HashSet<Digest>>>,
    /// What this process has taken in or read, as it was then: it is what its name says as long as it looks like that.
    proven: std::sync::Arc<Mutex<HashMap<Digest, State>>>,
}

impl Blobs {
    /// The blobs below `root`, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(root: &Path) -> Result<Blobs> {
        std::fs::create_dir_all(root).map_err(io("make", root))?;
        Ok(Blobs { root: root.into(), fresh: std::sync::Arc::default(), proven: std::sync::Arc::default() })
    }

    /// Where the file of this digest lies, if we have it.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(Blobs::name(digest))
    }

    /// The name of that file, relative to the folder of all.
    pub fn name(digest: &Digest) -> String {
        let hex = digest.to_string();
        format!("{}/{}", &hex[..2], &hex[2..])
    }

    /// Whether we have the file, at its full length.
    pub fn has(&self, blob: &Blob) -> bool {
        std::fs::metadata(self.path(&blob.digest)).is_ok_and(|meta| meta.len() == blob.len)
    }

    /// The digest of a file that lies in here, by its name.
    pub fn digest_of(&self, path: &Path) -> Option<Digest> {
        let mut parts = path.strip_prefix(&self.root).ok()?.components();
        let hex: String = parts.by_ref().take(2).filter_map(|part| part.as_os_str().to_str()).collect();
        parts.next().is_none().then(|| hex.parse().ok())?
    }

    /// Which of these files are not what their names say, or gone.
    pub(crate) fn damaged<'b>(&self, blobs: impl Iterator<Item = &'b Blob>) -> Vec<Digest> {
        let unread: HashSet<Digest> = {
            let proven = self.proven.lock().expect("no thread panics while it holds this");
            let is_proven = |blob: &&Blob| {
                let now = self.state(&blob.digest).filter(|now| now.len == blob.len);
                now.is_some() && proven.get(&blob.digest) == now.as_ref()
            };
            blobs.filter(|blob| !is_proven(blob)).map(|blob| blob.digest).collect()
        };
        // as it was before it is read: what is written meanwhile shows
        let read = |digest: Digest| {
            let state = self.state(&digest);
            let is_whole = Digest::of_file_at_rest(&self.path(&digest)).is_ok_and(|(found, _)| found == digest);
            (digest, state.filter(|_| is_whole))
        };
        let read: Vec<(Digest, Option<State>)> = unread.into_par_iter().map(read).collect();
        let mut damaged: Vec<Digest> =
            read.iter().filter(|(_, state)| state.is_none()).map(|(digest, _)| *digest).collect();
        let whole = read.into_iter().filter_map(|(digest, state)| Some((digest, state?)));
        self.proven.lock().expect("no thread panics while it holds this").extend(whole);
        damaged.sort_unstable();
        damaged
    }

    /// How a file of ours looks; none if we do not have it.
    pub fn state(&self, digest: &Digest) -> Option<State> {
        let meta = std::fs::metadata(self.path(digest)).ok()?;
        Some(State { ino: meta.ino(), len: meta.len(), mtime: (meta.mtime(), meta.mtime_nsec()) })
    }

    /// Whether a file of ours is what its name says: if it looks as it did then, or else if it reads right.
    pub fn is_still(&self, digest: &Digest, then: &State) -> bool {
        self.state(digest).as_ref() == Some(then)
            || Digest::of_file(&self.path(digest)).is_ok_and(|(now, _)| now == *digest)
    }

    /// Removes files, so that the units that made them run again.
    pub fn discard(&self, digests: &[Digest]) {
        let mut proven = self.proven.lock().expect("no thread panics while it holds this");
        for digest in digests {
            proven.remove(digest);
            // one that is missing is as good as removed
            let _ = std::fs::remove_file(self.path(digest));
        }
    }

    /// Takes a file in. An extension that cannot be part of a file's name everywhere ([`is_plain`]) is dropped.
    ///
    /// # Errors
    /// If it cannot be read, or there is no room for it.
    pub fn ingest(&self, file: &Path, ext: &str, take: Take) -> Result<Blob> {
        let ext = if is_plain(ext) { ext } else { "" };
        let mut take = take;
        if std::fs::metadata(file).is_ok_and(|meta| meta.nlink() > 1) {
            let (digest, len) = Digest::of_file(file).map_err(io("read", file))?;
            // it may be a second name of a file of ours: then there is nothing to copy
            let inode = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
            if inode(file).is_some_and(|file| Some(file) == inode(&self.path(&digest))) {
                self.noted(digest);
                if take == Take::Move {
                    std::fs::remove_file(file).map_err(io("remove", file))?;
                }
                return Ok(Blob { digest, len, ext: ext.into() });
            }
            take = Take::Copy;
        }
        let copy;
        let (source, temporary) = match take {
            Take::Move => (file, None),
            Take::Copy => {
                // copied first and hashed then: the original may change in between
                copy = self.temporary()?;
                std::fs::copy(file, &copy).map_err(io("copy", file))?;
                (copy.as_ref(), Some(&copy))
            }
        };
        let (digest, len) = Digest::of_file(source).map_err(io("read", source))?;
        let blob = Blob { digest, len, ext: ext.into() };
        let placed = self.place(source, &blob);
        if let (Err(_), Some(temporary)) = (&placed, temporary) {
            // what could not be placed is of no use to anybody
            let _ = std::fs::remove_file(temporary);
        }
        placed.map(|()| blob)
    }

    /// Takes in a file that should be this one; gives back its digest, and leaves it where it is, if it is another.
    ///
    /// # Errors
    /// If it cannot be read, or there is no room for it.
    pub(crate) fn adopt(&self, file: &Path, blob: &Blob) -> Result<Result<(), Option<Digest>>> {
        let (digest, len) = Digest::of_file(file).map_err(io("read", file))?;
        if (digest, len) != (blob.digest, blob.len) {
            return Ok(Err(Some(digest)));
        }
        self.place(file, blob).map(Ok)
    }

    /// Moves a file whose content is known into its place.
    fn place(&self, source: &Path, blob: &Blob) -> Result<()> {
        let target = self.path(&blob.digest);
        let proven = self.proven.lock().expect("no thread panics while it holds this").get(&blob.digest).copied();
        let known = proven.is_some() && self.state(&blob.digest).filter(|now| now.len == blob.len) == proven;
        // an old file of that name may be the remains of a power failure: it is believed only if it reads right
        if known || Digest::of_file_at_rest(&target).is_ok_and(|(digest, _)| digest == blob.digest) {
            // it may lie there since a moment ago, by a process that was killed before its files reached the disk
            self.noted(blob.digest);
            return std::fs::remove_file(source).map_err(io("remove", source));
        }
        let folder = target.parent().expect("a blob lies in a folder");
        std::fs::create_dir_all(folder).map_err(io("make", folder))?;
        std::fs::set_permissions(source, Permissions::from_mode(0o444)).map_err(io("protect", source))?;
        match std::fs::rename(source, &target) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
                let temporary = self.temporary()?;
                std::fs::copy(source, &temporary).map_err(io("copy", source))?;
                std::fs::rename(&temporary, &target).map_err(io("write", &target))?;
                std::fs::remove_file(source).map_err(io("remove", source))?;
            }
            Err(error) => return Err(io("write", &target)(error)),
        }
        self.noted(blob.digest);
        Ok(())
    }

    fn noted(&self, digest: Digest) {
        let state = self.state(&digest).map(|state| (digest, state));
        self.proven.lock().expect("no thread panics while it holds this").extend(state);
        self.still_fresh([digest]);
    }

    /// Notes files that have not reached the disk yet, as far as is known.
    pub(crate) fn still_fresh(&self, digests: impl IntoIterator<Item = Digest>) {
        self.fresh.lock().expect("no thread panics while it holds this").extend(digests);
    }

    /// A name for a file that is to become one of ours.
    pub(crate) fn temporary(&self) -> Result<PathBuf> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let dir = self.root.join("tmp");
        std::fs::create_dir_all(&dir).map_err(io("make", &dir))?;
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(dir.join(format!("{}-{n}", std::process::id())))
    }

    /// What came in since the last call.
    pub(crate) fn take_fresh(&self) -> Vec<Digest> {
        self.fresh.lock().expect("no thread panics while it holds this").drain().collect()
    }

    /// Brings files to the disk.
    pub(crate) fn sync(&self, fresh: &[Digest]) -> Result<()> {
        self.sync_files(&fresh.iter().map(|digest| self.path(digest)).collect::<Vec<_>>())
    }

    /// Brings files of this file system to the disk.
    pub(crate) fn sync_files(&self, files: &[PathBuf]) -> Result<()> {
        if files.len() > FEW {
            return self.sync_all();
        }
        for path in files {
            let folder = path.parent().expect("a blob lies in a folder");
            for place in [path.as_path(), folder] {
                match File::open(place).and_then(|file| file.sync_all()) {
                    // it was removed meanwhile: nobody will take its unit for known
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    synced => synced.map_err(io("sync", place))?,
                }
            }
        }
        Ok(())
    }

    /// Brings all files to the disk.
    pub(crate) fn sync_all(&self) -> Result<()> {
        let root = File::open(&self.root).map_err(io("open", &self.root))?;
        rustix::fs::syncfs(&root).map_err(|error| io("sync", &self.root)(error.into()))
    }

    /// All files, by digest, in order, with their lengths.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn list(&self) -> Result<Vec<(Digest, PathBuf, u64)>> {
        let mut found = Vec::new();
        let read = |dir: &Path| std::fs::read_dir(dir).map_err(io("read", dir));
        for folder in read(&self.root)? {
            let folder = folder.map_err(io("read", &self.root))?.path();
            if folder.file_name().is_none_or(|name| name.len() != 2) {
                continue;
            }
            for entry in read(&folder)? {
                let entry = entry.map_err(io("read", &folder))?;
                let len = entry.metadata().map_err(io("read", &folder))?.len();
                if let Some(digest) = self.digest_of(&entry.path()) {
                    found.push((digest, entry.path(), len));
                }
            }
        }
        found.sort_by_key(|(digest, ..)| *digest);
        Ok(found)
    }

    /// Removes files that nobody needs; one that is gone already is no error.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn remove(&self, digests: &[Digest]) -> Result<()> {
        for path in digests.iter().map(|digest| self.path(digest)) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what a killed process left half copied.
    pub(crate) fn sweep(&self) {
        // nothing refers to these; a failure to remove them is no reason to stop
        let _ = std::fs::remove_dir_all(self.root.join("tmp"));
    }
}

/// Whether an extension can be part of a file's name everywhere, in a link, an object of a remote and a command line.
/// No other is kept, sent, or taken from a remote.
pub fn is_plain(ext: &str) -> bool {
    ext.len() <= 64 && ext.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
}

/// The extension of a file's name, if it [`is_plain`]; else none.
pub fn extension(path: &Path) -> String {
    path.extension().and_then(|ext| ext.to_str()).filter(|ext| is_plain(ext)).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_that_cannot_be_part_of_a_name_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
        for (name, ext) in [("a.png", "png"), ("a.tar.gz", "gz"), ("f.v1 (copy)", ""), ("a", ""), ("a.b+c_-", "b+c_-")]
        {
            let file = dir.path().join(name);
            std::fs::write(&file, name).unwrap();
            assert_eq!(extension(&file), ext);
            let given = file.extension().and_then(|ext| ext.to_str()).unwrap_or_default();
            assert_eq!(blobs.ingest(&file, given, Take::Copy).unwrap().ext, ext);
        }
        assert!(is_plain(&"x".repeat(64)) && !is_plain(&"x".repeat(65)) && !is_plain("../x"));
    }

    #[test]
    fn files_come_in_once_and_damaged_ones_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.txt");
        let write = || std::fs::write(&file, "hello").unwrap();
        write();
        let blob = Blobs::open(&dir.path().join("blobs")).unwrap().ingest(&file, "txt", Take::Copy).unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
        let path = blobs.path(&blob.digest);
        assert!(file.exists() && blobs.has(&blob));
        assert_eq!(blobs.digest_of(&path), Some(blob.digest));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);

        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&path, "jello").unwrap();
        assert_eq!(blobs.ingest(&file, "txt", Take::Move).unwrap(), blob);
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
        assert!(!file.exists());
        write();
        std::fs::write(path.with_extension("x"), "").unwrap();
        assert_eq!(blobs.list().unwrap().len(), 1, "strangers are not listed");
    }

    #[test]
    fn what_is_damaged_is_seen_before_it_is_used_and_can_come_in_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.txt");
        let (write, root) = (|| std::fs::write(&file, "hello").unwrap(), dir.path().join("blobs"));
        write();
        let blob = Blobs::open(&root).unwrap().ingest(&file, "txt", Take::Move).unwrap();
        let spoil = |blobs: &Blobs| {
            let path = blobs.path(&blob.digest);
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, "jello").unwrap();
        };
        let blobs = Blobs::open(&root).unwrap();
        assert!(blobs.damaged([&blob].into_iter()).is_empty());
        let blobs = Blobs::open(&root).unwrap();
        spoil(&blobs);
        assert!(blobs.has(&blob), "its length is right");
        assert_eq!(blobs.damaged([&blob].into_iter()), [blob.digest]);
        blobs.discard(&[blob.digest]);
        assert_eq!(blobs.damaged([&blob].into_iter()), [blob.digest], "gone");
        write();
        blobs.ingest(&file, "txt", Take::Move).unwrap();
        // what came in a moment ago may be lost before it reaches the disk
        std::fs::remove_file(blobs.path(&blob.digest)).unwrap();
        assert_eq!(blobs.damaged([&blob].into_iter()), [blob.digest]);
        write();
        blobs.ingest(&file, "txt", Take::Move).unwrap();
        assert!(blobs.has(&blob) && blobs.damaged([&blob].into_iter()).is_empty());
    }

    #[test]
    fn moved_files_are_not_copied_and_shared_ones_not_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
        let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
        let made = dir.path().join("made");
        std::fs::write(&made, "made").unwrap();
        let before = inode(&made);
        let blob = blobs.ingest(&made, "", Take::Move).unwrap();
        assert_eq!(inode(&blobs.path(&blob.digest)), before);
        // a program may hand on a file of the user's by a hard link, and the user may write it again
        let (own, link) = (dir.path().join("own"), dir.path().join("link"));
        std::fs::write(&own, "own").unwrap();
        std::fs::hard_link(&own, &link).unwrap();
        let blob = blobs.ingest(&link, "", Take::Move).unwrap();
        std::fs::write(&own, "new").unwrap();
        assert_eq!(std::fs::read(blobs.path(&blob.digest)).unwrap(), b"own");
        // one that hands on what it was given takes up no room
        let link = dir.path().join("given");
        std::fs::hard_link(blobs.path(&blob.digest), &link).unwrap();
        assert_eq!(blobs.ingest(&link, "", Take::Move).unwrap(), blob);
        assert!(!link.exists(), "it was made for us");
    }
}
