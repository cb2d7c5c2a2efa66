//! A shared folder as a remote, over NFS too: every object gets its name by one rename, or by one hard link where the
//! first writer is to win, and may be used by whom the folder itself may be used by. Knows digests as little as any
//! remote does.

use super::{Answer, Remote, Trouble};
use std::fs::{File, Metadata, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Half-written files older than this were left by processes that are no more.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// A folder that others reach too.
pub struct Dir {
    root: PathBuf,
    name: String,
    sweep: Once,
}

impl Dir {
    /// The remote in a folder. The folder itself has to be there when it is used: one that is missing is a share that
    /// is not mounted, and nobody wants a new cache in its place.
    pub fn new(root: &Path) -> Dir {
        Dir { root: root.into(), name: format!("dir:{}", root.display()), sweep: Once::new() }
    }

    /// A file of our own in the remote, to be written and then named.
    fn temporary(&self) -> Answer<(PathBuf, File)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let dir = self.root.join("tmp");
        self.sweep.call_once(|| sweep(&dir));
        self.make(&dir)?;
        // other machines have processes of the same number
        let (host, n) = (crate::records::host(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = dir.join(format!("{host}-{}-{n}", std::process::id()));
        let file = File::create(&path).map_err(|error| self.trouble("write", &error))?;
        let mode = (self.mode()? & 0o666) | 0o600;
        // a share that knows no such bits has rules of its own
        let _ = file.set_permissions(Permissions::from_mode(mode));
        Ok((path, file))
    }

    /// Writes such a file, and brings it to the disk before it gets a name.
    fn fill(&self, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> Answer<PathBuf> {
        let (path, mut file) = self.temporary()?;
        let filled = fill(&mut file).and_then(|()| file.sync_all());
        filled.map(|()| path.clone()).map_err(|error| {
            // half of a file is of use to nobody
            let _ = std::fs::remove_file(&path);
            self.trouble("write", &error)
        })
    }

    /// Makes a folder below the root, which itself must be there.
    fn make(&self, dir: &Path) -> Answer<()> {
        // a file of the group that comes to lie in it stays the group's
        let mode = (self.mode()? & 0o2777) | 0o700;
        let is_missing = |dir: &&Path| *dir != self.root && !dir.is_dir();
        let mut missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
        while let Some(dir) = missing.pop() {
            match std::fs::create_dir(dir) {
                Ok(()) => {
                    // a share that knows no such bits has rules of its own
                    let _ = std::fs::set_permissions(dir, Permissions::from_mode(mode));
                }
                // somebody else was faster
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(self.trouble("write", &error)),
            }
        }
        Ok(())
    }

    /// The permission bits of the root, which hold for all that comes to lie below it: the umask of whoever is first is
    /// nothing to the others.
    fn mode(&self) -> Answer<u32> {
        Ok(self.is_there()?.permissions().mode())
    }

    fn is_there(&self) -> Answer<Metadata> {
        match std::fs::metadata(&self.root) {
            Ok(meta) if meta.is_dir() => Ok(meta),
            Ok(_) => Err(Trouble("it is no folder".into())),
            Err(error) => Err(self.trouble("read", &error)),
        }
    }

    /// A path whose folder is there.
    fn place(&self, name: &str) -> Answer<PathBuf> {
        let path = self.root.join(name);
        self.make(path.parent().unwrap_or(&self.root))?;
        Ok(path)
    }

    fn trouble(&self, doing: &str, error: &std::io::Error) -> Trouble {
        if error.kind() == ErrorKind::NotFound && !self.root.exists() {
            return Trouble("there is no such folder: mount it, or make it once".into());
        }
        Trouble(format!("cannot {doing} it: {error}"))
    }

    /// Nothing at a path is an answer only while the folder of all is there.
    fn found<T>(&self, outcome: std::io::Result<T>) -> Answer<Option<T>> {
        match outcome {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == ErrorKind::NotFound => self.is_there().map(|_| None),
            Err(error) => Err(self.trouble("read", &error)),
        }
    }
}

impl Remote for Dir {
    fn name(&self) -> &str {
        &self.name
    }

    fn length(&self, name: &str) -> Answer<Option<u64>> {
        Ok(self.found(std::fs::metadata(self.root.join(name)))?.map(|meta| meta.len()))
    }

    fn read(&self, name: &str, limit: u64, to: &mut dyn Write) -> Answer<Option<u64>> {
        let Some(file) = self.found(File::open(self.root.join(name)))? else { return Ok(None) };
        let copied = std::io::copy(&mut file.take(limit.saturating_add(1)), to);
        copied.map(Some).map_err(|error| self.trouble("read", &error))
    }

    fn write(&self, name: &str, file: &Path) -> Answer<()> {
        let path = self.place(name)?;
        let temporary =
            self.fill(|to| File::open(file).and_then(|mut from| std::io::copy(&mut from, to)).map(|_| ()))?;
        std::fs::rename(&temporary, &path).map_err(|error| self.trouble("write", &error))
    }

    fn write_new(&self, name: &str, bytes: &[u8]) -> Answer<bool> {
        let path = self.place(name)?;
        let temporary = self.fill(|to| to.write_all(bytes))?;
        let linked = match std::fs::hard_link(&temporary, &path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            // a share without hard links: two that write at the same moment may both believe to be first
            Err(_) if path.exists() => Ok(false),
            Err(_) => std::fs::rename(&temporary, &path).map(|()| true),
        };
        // it may have been renamed away
        let _ = std::fs::remove_file(&temporary);
        linked.map_err(|error| self.trouble("write", &error))
    }

    fn set_aside(&self, name: &str) -> Answer<()> {
        let place = self.place(&format!("quarantine/{name}"))?;
        match std::fs::rename(self.root.join(name), place) {
            // somebody else was faster
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            renamed => renamed.map_err(|error| self.trouble("write", &error)),
        }
    }

    fn list(&self, folder: &str) -> Answer<Vec<String>> {
        let (mut names, mut open) = (Vec::new(), vec![folder.to_string()]);
        while let Some(folder) = open.pop() {
            let Some(entries) = self.found(std::fs::read_dir(self.root.join(&folder)))? else { continue };
            for entry in entries {
                let entry = entry.map_err(|error| self.trouble("read", &error))?;
                let Some(name) = entry.file_name().to_str().map(|name| format!("{folder}/{name}")) else { continue };
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_dir { open.push(name) } else { names.push(name) }
            }
        }
        Ok(names)
    }
}

/// Removes what killed processes left half-written.
fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let written = entry.metadata().and_then(|meta| meta.modified());
        let age = written.ok().and_then(|written| SystemTime::now().duration_since(written).ok());
        if age.is_some_and(|age| age > STALE) {
            // what stays costs room, nothing else
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_writer_wins_and_a_missing_folder_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let remote = Dir::new(dir.path());
        let read = |name: &str| {
            let mut bytes = Vec::new();
            remote.read(name, 3, &mut bytes).unwrap().map(|_| bytes)
        };
        assert_eq!(read("records/ab/c"), None);
        assert!(remote.write_new("records/ab/c", b"one").unwrap());
        assert!(!remote.write_new("records/ab/c", b"two").unwrap());
        assert_eq!(read("records/ab/c").unwrap(), b"one");
        let file = dir.path().join("f");
        std::fs::write(&file, "longer").unwrap();
        remote.write("records/ab/c", &file).unwrap();
        assert_eq!(read("records/ab/c").unwrap(), b"long", "one byte more than asked tells that there are more");
        assert_eq!(remote.list("records").unwrap(), ["records/ab/c"]);
        remote.set_aside("records/ab/c").unwrap();
        remote.set_aside("records/ab/c").unwrap();
        assert_eq!(remote.length("records/ab/c").unwrap(), None);
        assert!(dir.path().join("quarantine/records/ab/c").exists());
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);

        let gone = Dir::new(&dir.path().join("gone"));
        assert!(gone.length("x").is_err() && gone.write_new("x", b"").is_err() && gone.list("records").is_err());
        assert!(!dir.path().join("gone").exists());
    }

    #[test]
    fn whoever_may_use_the_folder_may_use_what_comes_to_lie_in_it() {
        // no usual umask leaves these bits
        for (folders, files) in [(0o777, 0o666), (0o700, 0o600)] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("shared");
            std::fs::create_dir(&root).unwrap();
            std::fs::set_permissions(&root, Permissions::from_mode(folders)).unwrap();
            let (remote, file) = (Dir::new(&root), dir.path().join("f"));
            std::fs::write(&file, "content").unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
            assert!(remote.write_new("records/ab/c", b"one").unwrap());
            remote.write("blobs/cd/e", &file).unwrap();
            let mode = |name: &str| std::fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
            for folder in ["tmp", "records", "records/ab", "blobs", "blobs/cd"] {
                assert_eq!(mode(folder), folders, "{folder}");
            }
            assert_eq!((mode("records/ab/c"), mode("blobs/cd/e")), (files, files));
        }
    }
}
