//! What is still to be brought to a remote, so that a kill loses none of it: a file of lines, `+KEY` when a unit is
//! finished and `-KEY` when it has arrived. A torn last line is passed over. Knows keys, and neither records nor
//! remotes.

use crate::Result;
use crate::error::io;
use manifests::Digest;
use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Uploads that wait, for one remote.
pub(crate) struct Queue {
    path: PathBuf,
    /// Opened with the first line that is written.
    file: Option<File>,
    waiting: VecDeque<Digest>,
    /// Those that wait and those under way.
    open: HashSet<Digest>,
}

impl Queue {
    /// The queue in a file, which need not be there. It is written anew, without what has arrived.
    pub(crate) fn open(path: &Path) -> Result<Queue> {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(io("read", path)(error)),
        };
        let (mut waiting, mut open) = (Vec::new(), HashSet::new());
        for line in text.lines() {
            let Some((sign, Ok(key))) = line.split_at_checked(1).map(|(sign, key)| (sign, key.parse::<Digest>()))
            else {
                continue;
            };
            match sign {
                "+" if open.insert(key) => waiting.push(key),
                "-" => {
                    open.remove(&key);
                }
                _ => {}
            }
        }
        // one that came again after it had arrived stands there twice
        let mut once = HashSet::new();
        waiting.retain(|key| open.contains(key) && once.insert(*key));
        let queue = Queue { path: path.into(), file: None, waiting: waiting.into(), open };
        if !text.is_empty() {
            queue.rewrite()?;
        }
        Ok(queue)
    }

    fn rewrite(&self) -> Result<()> {
        if self.waiting.is_empty() {
            return std::fs::remove_file(&self.path).map_err(io("remove", &self.path));
        }
        let lines: String = self.waiting.iter().map(|key| format!("+{key}\n")).collect();
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary).map_err(io("write", &temporary))?;
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_all());
        written.and_then(|()| std::fs::rename(&temporary, &self.path)).map_err(io("write", &self.path))
    }

    fn line(&mut self, sign: char, key: &Digest) -> Result<()> {
        let open = || -> std::io::Result<File> {
            std::fs::create_dir_all(self.path.parent().unwrap_or(Path::new("")))?;
            OpenOptions::new().create(true).append(true).open(&self.path)
        };
        let file = match self.file.take() {
            Some(file) => file,
            None => open().map_err(io("write", &self.path))?,
        };
        let written = (&file).write_all(format!("{sign}{key}\n").as_bytes());
        self.file = Some(file);
        written.map_err(io("write", &self.path))
    }

    /// Adds a key. It survives the end of this process at once, and a power failure once the file is synced
    /// ([`Queue::file`]).
    pub(crate) fn add(&mut self, key: Digest) -> Result<()> {
        if self.open.insert(key) {
            self.line('+', &key)?;
            self.waiting.push_back(key);
        }
        Ok(())
    }

    /// The next key; it stays open until [`Queue::done`].
    pub(crate) fn next(&mut self) -> Option<Digest> {
        self.waiting.pop_front()
    }

    /// A key has arrived, or there is nothing of it to be sent.
    pub(crate) fn done(&mut self, key: &Digest) -> Result<()> {
        if self.open.remove(key) {
            self.line('-', key)?;
        }
        if self.open.is_empty() && self.file.take().is_some() {
            std::fs::remove_file(&self.path).map_err(io("remove", &self.path))?;
        }
        Ok(())
    }

    /// Keys that have not arrived.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// The file, if something was written to it.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Digest {
        Digest([n; 32])
    }

    fn rest(path: &Path) -> Vec<u8> {
        let mut queue = Queue::open(path).unwrap();
        std::iter::from_fn(|| queue.next()).map(|key| key.0[0]).collect()
    }

    #[test]
    fn what_has_not_arrived_survives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uploads/a");
        assert!(rest(&path).is_empty() && !path.exists());
        let mut queue = Queue::open(&path).unwrap();
        for n in [1, 2, 3, 2] {
            queue.add(key(n)).unwrap();
        }
        assert_eq!((queue.next(), queue.next(), queue.len()), (Some(key(1)), Some(key(2)), 3));
        queue.done(&key(2)).unwrap();
        // killed here: 1 was under way, and 3 not even that
        drop(queue);
        assert_eq!(rest(&path), [1, 3]);
        // killed while it wrote a line
        std::fs::write(&path, format!("+{}\n+{}\n-{}\n+{}\n+0606", key(4), key(5), key(4), key(4))).unwrap();
        assert_eq!(rest(&path), [4, 5]);
        let mut queue = Queue::open(&path).unwrap();
        queue.add(key(6)).unwrap();
        for n in [4, 5, 6] {
            queue.done(&key(n)).unwrap();
        }
        assert!(!path.exists(), "nothing is left to be sent");
        queue.add(key(7)).unwrap();
        drop(queue);
        assert_eq!(rest(&path), [7]);
    }

    #[test]
    fn a_line_behind_a_torn_one_is_no_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, format!("+{}\n+05", key(4))).unwrap();
        let mut queue = Queue::open(&path).unwrap();
        queue.add(key(5)).unwrap();
        drop(queue);
        assert_eq!(rest(&path), [4, 5]);
    }
}
