//! The cache of a workspace: `get`, `put`, files in and out. Blobs first, the record next, the index last.
//!
//! Knows no stage and no recipe.

use crate::entry::{Entry, StageFacts, Unit};
use crate::error::io;
use crate::index::{Broken, Index};
use crate::layout;
use crate::lock::Lock;
use crate::records::{Journal, Place};
use crate::shared::Shared;
use crate::{Blobs, Error, Fingerprint, Result, Take, is_plain};
use manifests::{Blob, Digest, Manifest, Value};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// An open workspace. There is one in the process that runs a recipe, and none anywhere else.
pub struct Cache {
    pub(crate) root: PathBuf,
    pub(crate) blobs: Blobs,
    pub(crate) journal: Journal,
    /// Opened when first asked: a run in which nothing changed never needs it.
    index: Option<Index>,
    /// Where the records of this process lie, until the index has them.
    pub(crate) places: HashMap<Digest, Place>,
    pub(crate) unindexed: Vec<(Digest, Place)>,
    pub(crate) known_stages: HashSet<Digest>,
    files: HashMap<PathBuf, (Fingerprint, Digest)>,
    new_files: HashSet<PathBuf>,
    /// Files that lie elsewhere and are not copied: a user's videos.
    elsewhere: HashMap<Digest, (PathBuf, Fingerprint)>,
    by_path: HashMap<PathBuf, (Digest, Fingerprint)>,
    /// Folders that were listed, and files that were looked for, as they were before; `None` where there was nothing.
    glanced: HashMap<PathBuf, Option<Fingerprint>>,
    /// Files being brought to the disk, and up to where the journal is then safe.
    syncing: Option<(std::thread::JoinHandle<Result<()>>, u64)>,
    /// A disk that once failed to take what it was given may say later that all is well. Then nothing more is vouched
    /// for.
    sync_failed: bool,
    pub(crate) warnings: Vec<String>,
    /// A remote behind it.
    pub(crate) shared: Option<Shared>,
    #[expect(dead_code, reason = "held, not used")]
    lock: Lock,
}

/// The file below `tasks/slurm` that says that jobs elsewhere work on task directories.
pub const LEFT: &str = "left.json";

impl Cache {
    /// Opens the workspace `root`, makes it if need be, and locks it. `program` is written into new journals.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process has it; [`Error::Io`] if it cannot be made or written.
    pub fn open(root: &Path, program: &str) -> Result<Cache> {
        std::fs::create_dir_all(root).map_err(io("make", root))?;
        let root = root.canonicalize().map_err(io("read", root))?;
        let lock = Lock::take(&root)?;
        // workspaces are nobody's source code
        let ignore = root.join(".gitignore");
        if !ignore.exists() {
            std::fs::write(&ignore, "*\n").map_err(io("write", &ignore))?;
        }
        let blobs = Blobs::open(&root.join(layout::BLOBS))?;
        blobs.sweep();
        // what a killed run was working on, unless somebody elsewhere still is
        if !root.join("tasks/slurm").join(LEFT).exists() {
            let _ = std::fs::remove_dir_all(root.join(layout::TASKS));
        }
        let journal = Journal::open(&root.join(layout::RECORDS), program)?;
        Ok(Cache {
            root,
            blobs,
            journal,
            index: None,
            places: HashMap::new(),
            unindexed: Vec::new(),
            known_stages: HashSet::new(),
            files: HashMap::new(),
            new_files: HashSet::new(),
            elsewhere: HashMap::new(),
            by_path: HashMap::new(),
            glanced: HashMap::new(),
            syncing: None,
            sync_failed: false,
            warnings: Vec::new(),
            shared: None,
            lock,
        })
    }

    /// The workspace's folder, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The blobs.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// What the user should be told: an index that had to be rebuilt. Each is given out once.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// The finished unit of this key, if there is one and all its files are there.
    ///
    /// # Errors
    /// If the workspace cannot be read.
    pub fn get(&mut self, key: &Digest) -> Result<Option<Unit>> {
        let place = match self.places.get(key) {
            Some(place) => Some(*place),
            None => self.indexed(|index| index.unit(key))?,
        };
        let Some(place) = place else { return Ok(None) };
        let unit = self.journal.read(place)?.filter(|unit| unit.key == *key);
        Ok(unit.filter(|unit| unit.blobs().all(|blob| self.has(blob))))
    }

    /// The unit of this key if this process has put it.
    ///
    /// # Errors
    /// If the workspace cannot be read.
    pub fn fresh(&mut self, key: &Digest) -> Result<Option<Unit>> {
        if self.places.contains_key(key) { self.get(key) } else { Ok(None) }
    }

    /// Keeps a finished unit, whose files have been taken in. From now on a killed process loses it no more.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&mut self, unit: &Unit, facts: &StageFacts) -> Result<()> {
        // first: a unit that is known and not queued would never be sent
        self.queue(unit.key, facts)?;
        self.keep(unit, facts)
    }

    /// The same for a unit that a remote had.
    pub(crate) fn keep(&mut self, unit: &Unit, facts: &StageFacts) -> Result<()> {
        if !self.known_stages.contains(&facts.digest) {
            self.journal.append(&Entry::Stage(facts.clone()))?;
            // only now: facts that could not be written are not known
            self.known_stages.insert(facts.digest);
        }
        let place = self.journal.append(&Entry::Unit(unit.clone()))?;
        self.places.insert(unit.key, place);
        self.unindexed.push((unit.key, place));
        Ok(())
    }

    /// Begins to make what was put safe from a power failure, beside other work; finishes what was begun earlier. Disks
    /// take their time, and nobody has to wait for them before the end.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn commit_soon(&mut self) -> Result<()> {
        if self.sync_failed || self.syncing.as_ref().is_some_and(|(thread, _)| !thread.is_finished()) {
            return Ok(());
        }
        self.finish_sync()?;
        self.update_index()?;
        if let Some((file, upto)) = self.journal.unsynced() {
            let file = file.try_clone().map_err(io("write", &self.root))?;
            let (blobs, fresh, root) = (self.blobs.clone(), self.blobs.take_fresh(), self.root.clone());
            let again = fresh.clone();
            let queue = self.queue_file().and_then(|file| file.try_clone().ok());
            let work = move || -> Result<()> {
                blobs.sync(&fresh)?;
                queue.map_or(Ok(()), |queue| queue.sync_data()).map_err(io("write", &root))?;
                file.sync_data().map_err(io("write", &root))
            };
            match std::thread::Builder::new().name("sync".into()).spawn(work) {
                Ok(thread) => self.syncing = Some((thread, upto)),
                // no thread to be had: the next commit sees to it
                Err(_) => self.blobs.still_fresh(again),
            }
        }
        Ok(())
    }

    fn finish_sync(&mut self) -> Result<()> {
        let Some((thread, upto)) = self.syncing.take() else { return Ok(()) };
        let synced = thread.join().expect("it does not panic");
        self.vouch(synced, upto)
    }

    /// Marks what was brought to the disk, if it was.
    fn vouch(&mut self, synced: Result<()>, upto: u64) -> Result<()> {
        let marked = synced.and_then(|()| self.journal.committed(upto));
        self.sync_failed |= marked.is_err();
        marked
    }

    /// Whether the disk failed to take what it was given, so that nothing can be promised about it any more.
    pub fn is_doubtful(&self) -> bool {
        self.sync_failed
    }

    /// Makes what was put safe from a power failure, and tells the index. After a failure it does nothing any more.
    ///
    /// # Errors
    /// If it cannot be written. What was put stays usable.
    pub fn commit(&mut self) -> Result<()> {
        if self.sync_failed {
            return Ok(());
        }
        self.finish_sync()?;
        if let Some((file, upto)) = self.journal.unsynced() {
            let synced = self.blobs.sync(&self.blobs.take_fresh());
            let queue = self.queue_file().map_or(Ok(()), std::fs::File::sync_data);
            let synced = synced.and_then(|()| queue.map_err(io("write", &self.root)));
            let synced = synced.and_then(|()| file.sync_data().map_err(io("write", &self.root)));
            self.vouch(synced, upto)?;
        }
        let marked = self.journal.sync_mark();
        self.sync_failed |= marked.is_err();
        marked?;
        self.update_index()
    }

    fn update_index(&mut self) -> Result<()> {
        // the index must not speak of what a power failure may take back
        let (units, later) =
            std::mem::take(&mut self.unindexed).into_iter().partition(|(_, place)| self.journal.is_safe(*place));
        self.unindexed = later;
        let units: Vec<(Digest, Place)> = units;
        let files: Vec<_> = std::mem::take(&mut self.new_files)
            .into_iter()
            .filter_map(|path| self.files.get(&path).map(|&(fingerprint, digest)| (path.clone(), fingerprint, digest)))
            .collect();
        if units.is_empty() && files.is_empty() {
            return Ok(());
        }
        let segments = self.journal.segments()?;
        self.indexed(|index| index.add(&units, &files, &segments))
    }

    /// Brings files of others in the workspace to the disk.
    ///
    /// # Errors
    /// If the disk does not take them.
    pub fn sync_beside(&self, files: &[PathBuf]) -> Result<()> {
        self.blobs.sync_files(files)
    }

    /// Whether a file can be had.
    pub fn has(&self, blob: &Blob) -> bool {
        self.blobs.has(blob) || self.elsewhere.contains_key(&blob.digest)
    }

    /// Which of these files of ours are not what their names say, or gone. Each is read once in the life of a process;
    /// what it has taken in itself, it need not read. Files that lie elsewhere are looked after by [`Cache::changed`].
    pub fn damaged<'b>(&self, blobs: impl IntoIterator<Item = &'b Blob>) -> Vec<Digest> {
        let ours = |blob: &&Blob| !self.elsewhere.contains_key(&blob.digest) || self.blobs.has(blob);
        self.blobs.damaged(blobs.into_iter().filter(ours))
    }

    /// Whether all files of a blob column can be had.
    ///
    /// # Errors
    /// If there is no such column.
    pub fn has_all(&self, table: &Manifest, column: &str) -> Result<bool, manifests::Error> {
        let values = table.column(column)?;
        Ok(values.par_iter().with_min_len(64).all(|value| match value {
            Value::Blob(blob) => self.has(blob),
            _ => true,
        }))
    }

    /// Where a file can be read.
    ///
    /// # Errors
    /// [`Error::Gone`] if it cannot.
    pub fn path(&self, blob: &Blob) -> Result<PathBuf> {
        if self.blobs.has(blob) {
            return Ok(self.blobs.path(&blob.digest));
        }
        self.elsewhere.get(&blob.digest).map(|(path, _)| path.clone()).ok_or_else(|| Error::Gone {
            digest: blob.digest.short(),
            reason: format!("it is not at {}", self.blobs.path(&blob.digest).display()),
        })
    }

    /// Where files can be read, for use after the cache is closed.
    pub fn places(&self) -> impl Fn(&Blob) -> Option<PathBuf> + 'static {
        let (blobs, elsewhere) = (self.blobs.clone(), self.elsewhere.clone());
        move |blob| match blobs.has(blob) {
            true => Some(blobs.path(&blob.digest)),
            false => elsewhere.get(&blob.digest).map(|(path, _)| path.clone()),
        }
    }

    /// Takes a file in; see [`Blobs::ingest`]. One that lies among the blobs already is recognised, and so is one that
    /// [`Cache::refer`] knows: a stage may put out the videos of a folder it was given, and nobody wants them twice.
    ///
    /// # Errors
    /// If it cannot be read, or there is no room for it.
    pub fn ingest(&self, file: &Path, ext: &str, take: Take) -> Result<Blob> {
        let real = file.canonicalize().map_err(io("read", file))?;
        let ext = if is_plain(ext) { ext } else { "" };
        if let Some(digest) = self.blobs.digest_of(&real) {
            let len = std::fs::metadata(&real).map_err(io("read", &real))?.len();
            return Ok(Blob { digest, len, ext: ext.into() });
        }
        for path in [file, &real] {
            let Some((digest, seen)) = self.by_path.get(path) else { continue };
            if self.elsewhere.contains_key(digest) && Fingerprint::of(path).is_ok_and(|now| now == *seen) {
                return Ok(Blob { digest: *digest, len: seen.size, ext: ext.into() });
            }
        }
        // a link cannot be moved in place of what it points to
        let is_link = std::fs::symlink_metadata(file).is_ok_and(|meta| meta.is_symlink());
        self.blobs.ingest(&real, ext, if is_link { Take::Copy } else { take })
    }

    /// The files of a user, in place: their digests and lengths, and from now on [`Cache::path`] finds them. Files with
    /// a known fingerprint are not read.
    ///
    /// # Errors
    /// The first file that cannot be read.
    pub fn refer(&mut self, paths: &[PathBuf]) -> Result<Vec<(Digest, u64)>> {
        let stats: Vec<Fingerprint> = paths
            .par_iter()
            .with_min_len(64)
            .map(|path| Fingerprint::of(path).map_err(io("read", path)))
            .collect::<Result<_>>()?;
        let mut digests: Vec<Option<Digest>> = Vec::with_capacity(paths.len());
        for (path, stat) in paths.iter().zip(&stats) {
            let known = match self.files.get(path) {
                Some((fingerprint, digest)) => (fingerprint == stat).then_some(*digest),
                None => {
                    let known = self.indexed(|index| index.file(path, *stat))?;
                    // who asks what was referred to is told of it, too
                    self.files.extend(known.map(|digest| (path.clone(), (*stat, digest))));
                    known
                }
            };
            digests.push(known);
        }
        let now = Fingerprint::now();
        let unknown: Vec<usize> = (0..paths.len()).filter(|&i| digests[i].is_none()).collect();
        let hashed: Vec<Digest> = unknown
            .par_iter()
            .map(|&i| Digest::of_file(&paths[i]).map(|(digest, _)| digest).map_err(io("read", &paths[i])))
            .collect::<Result<_>>()?;
        for (&i, digest) in unknown.iter().zip(hashed) {
            digests[i] = Some(digest);
            if stats[i].is_settled(now) {
                self.files.insert(paths[i].clone(), (stats[i], digest));
                self.new_files.insert(paths[i].clone());
            } else {
                self.files.remove(&paths[i]);
            }
        }
        let mut found = Vec::with_capacity(paths.len());
        for ((path, stat), digest) in paths.iter().zip(&stats).zip(digests) {
            let digest = digest.expect("every file was looked up or hashed");
            self.elsewhere.insert(digest, (path.clone(), *stat));
            self.by_path.insert(path.clone(), (digest, *stat));
            found.push((digest, stat.size));
        }
        Ok(found)
    }

    /// Tells of fingerprints that were kept elsewhere, so that the index need not be asked.
    pub fn remember(&mut self, path: PathBuf, fingerprint: Fingerprint, digest: Digest) {
        self.files.entry(path).or_insert((fingerprint, digest));
    }

    /// The files that were referred to; sorted. The fingerprint of one that may have changed since without showing it
    /// has no times: it matches nothing, and the file is read again.
    pub fn referred(&self) -> Vec<(PathBuf, Fingerprint, Digest)> {
        let mut referred: Vec<_> = Vec::with_capacity(self.by_path.len());
        for (path, (digest, seen)) in &self.by_path {
            let unproven = (Fingerprint { mtime: 0, ctime: 0, ..*seen }, *digest);
            let (fingerprint, digest) = self.files.get(path).copied().unwrap_or(unproven);
            referred.push((path.clone(), fingerprint, digest));
        }
        referred.sort_by(|a, b| a.0.cmp(&b.0));
        referred
    }

    /// Notes what lies at a path, before it is listed or because it decides something that it is there or not.
    pub fn glance(&mut self, path: &Path) {
        if !self.glanced.contains_key(path) {
            self.glanced.insert(path.into(), Fingerprint::of(path).ok());
        }
    }

    /// Everything outside of the workspace that was looked at, and how it was: the files of [`Cache::refer`], and what
    /// [`Cache::glance`] noted. In no order.
    pub fn seen(&self) -> impl Iterator<Item = (&Path, Option<Fingerprint>)> {
        let files = self.by_path.iter().map(|(path, (_, seen))| (path.as_path(), Some(*seen)));
        files.chain(self.glanced.iter().map(|(path, seen)| (path.as_path(), *seen)))
    }

    /// Whether a file lies outside of the workspace.
    pub fn is_referred(&self, digest: &Digest) -> bool {
        self.elsewhere.contains_key(digest)
    }

    /// The first of these files outside of the workspace that is not what it was when [`Cache::refer`] saw it, or was
    /// written anew after `since` ([`Fingerprint::now`]), if only to be what it had been: what was computed from it
    /// meanwhile cannot be kept.
    pub fn changed(&self, digests: &[Digest], since: i64) -> Option<&Path> {
        let outside = digests.iter().filter_map(|digest| Some((digest, self.elsewhere.get(digest)?)));
        let mut changed = outside.filter(|(digest, (path, seen))| !is_still(path, seen, digest, since));
        changed.next().map(|(_, (path, _))| path.as_path())
    }

    /// The files at a path, or below it, that [`Cache::refer`] has seen; sorted.
    pub fn referred_below(&self, path: &Path) -> Vec<PathBuf> {
        if self.by_path.contains_key(path) {
            return vec![path.into()];
        }
        let mut below: Vec<PathBuf> = self.by_path.keys().filter(|file| file.starts_with(path)).cloned().collect();
        below.sort();
        below
    }

    /// The same of files that [`Cache::refer`] saw at these very paths.
    pub fn changed_at<'p>(&self, paths: &'p [PathBuf], since: i64) -> Option<&'p Path> {
        let known = |path: &PathBuf| self.by_path.get(path);
        let same = |path: &PathBuf| known(path).is_none_or(|(digest, seen)| is_still(path, seen, digest, since));
        paths.iter().find(|path| !same(path)).map(PathBuf::as_path)
    }

    /// The folder in which a unit may keep checkpoints: it survives a kill, and is removed by [`Cache::drop_scratch`].
    pub fn scratch(&self, key: &Digest) -> PathBuf {
        self.root.join(layout::SCRATCH).join(key.to_string())
    }

    /// Removes a unit's checkpoints.
    pub fn drop_scratch(&self, key: &Digest) {
        // left-over checkpoints of a finished unit harm nobody
        let _ = std::fs::remove_dir_all(self.scratch(key));
    }

    /// Makes the index anew from the journal; gives back how many units it holds.
    ///
    /// # Errors
    /// If the journal cannot be read or the index not written.
    pub fn rebuild(&mut self) -> Result<usize> {
        self.index = None;
        self.set_aside()?;
        let mut units = HashSet::new();
        crate::records::scan_all(&self.root, &mut |_, entry| {
            if let Entry::Unit(unit) = entry {
                units.insert(unit.key);
            }
        })?;
        self.indexed(|_| Ok(()))?;
        Ok(units.len())
    }

    fn set_aside(&self) -> Result<()> {
        let (dir, aside) = (self.root.join(layout::INDEX), self.root.join(layout::INDEX_ASIDE));
        if dir.exists() {
            // only the latest is of interest
            let _ = std::fs::remove_dir_all(&aside);
            std::fs::rename(&dir, &aside).map_err(io("set aside", &dir))?;
        }
        Ok(())
    }

    /// Asks the index; one that fails is set aside and made anew, once.
    fn indexed<T>(&mut self, ask: impl Fn(&Index) -> Result<T, Broken>) -> Result<T> {
        for attempt in 0..2 {
            let index = match self.index.take() {
                Some(index) => Ok(index),
                None => self.open_index(),
            };
            match index.and_then(|index| Ok((ask(&index)?, index))) {
                Ok((answer, index)) => {
                    self.index = Some(index);
                    return Ok(answer);
                }
                // an index that cannot be written is not damaged, and there is no room for another
                Err(Broken(reason)) if attempt == 0 && !crate::error::tells_of_room(&reason) => {
                    self.set_aside()?;
                    self.warnings.push(format!("the index was damaged ({reason}); it was rebuilt from the records"));
                }
                Err(Broken(reason)) => return Err(Error::Index(reason)),
            }
        }
        unreachable!("the second attempt returns")
    }

    /// Opens the index and brings it up to date with the journal.
    fn open_index(&self) -> Result<Index, Broken> {
        let index = Index::open(&self.root.join(layout::INDEX))?;
        let unreadable = |error: Error| Broken(error.to_string());
        for (segment, length) in self.journal.segments().map_err(unreadable)? {
            let from = index.segment(segment)?.unwrap_or(0);
            if from >= length {
                continue;
            }
            let mut units = Vec::new();
            let mut note = |place, entry| match entry {
                // of the present segment only what has reached the disk: later records follow with their commit
                Entry::Unit(unit) if self.journal.is_safe(place) => units.push((unit.key, place)),
                _ => {}
            };
            let believed = self.journal.scan(segment, from, &mut note).map_err(unreadable)?;
            let mut length = length;
            let whole = believed.end >= from;
            if whole && believed.sure < believed.end && !self.journal.is_current(segment) {
                // a killed process left it; the index must not speak of what a power failure may take back
                self.blobs.sync_all().and_then(|()| self.journal.seal(segment, &believed)).map_err(unreadable)?;
                length = self.journal.length(segment).map_err(unreadable)?;
            }
            index.add(&units, &[], &[(segment, length)])?;
        }
        Ok(index)
    }
}

/// Whether a file is what it was, all the time since a moment. One that has got another name (a hard link) is, and one
/// that was touched or put back before.
fn is_still(path: &Path, seen: &Fingerprint, digest: &Digest, since: i64) -> bool {
    let Ok(now) = Fingerprint::of(path) else { return false };
    // a script that was edited and put back while it ran is what it was, and what it put out is not
    let is_written = (now.ino, now.mtime) != (seen.ino, seen.mtime) && !now.is_settled(since);
    now == *seen || !is_written && now.size == seen.size && Digest::of_file(path).is_ok_and(|(now, _)| now == *digest)
}

#[cfg(test)]
mod tests;
