//! The cache of a workspace: `get`, `put`, files in and out. Blobs first, the record next, the index last.
//!
//! Knows no stage and no recipe.

use crate::error::io;
use crate::index::{Broken, Index};
use crate::lock::Lock;
use crate::records::{Entry, Journal, Place, StageFacts, Unit};
use crate::{Blobs, Error, Fingerprint, Result, Take};
use manifests::{Blob, Digest, Manifest, Value};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// An open workspace. There is one in the process that runs a recipe, and none anywhere else.
pub struct Cache {
    root: PathBuf,
    blobs: Blobs,
    journal: Journal,
    /// Opened when first asked: a run in which nothing changed never needs it.
    index: Option<Index>,
    /// Where the records of this process lie, until the index has them.
    places: HashMap<Digest, Place>,
    unindexed: Vec<(Digest, Place)>,
    known_stages: HashSet<Digest>,
    files: HashMap<PathBuf, (Fingerprint, Digest)>,
    new_files: HashSet<PathBuf>,
    /// Files that lie elsewhere and are not copied: a user's videos.
    elsewhere: HashMap<Digest, (PathBuf, Fingerprint)>,
    by_path: HashMap<PathBuf, (Digest, Fingerprint)>,
    /// Files being brought to the disk, and up to where the journal is then safe.
    syncing: Option<(std::thread::JoinHandle<Result<()>>, u64)>,
    /// A disk that once failed to take what it was given may say later that all is well. Then nothing more is vouched for.
    sync_failed: bool,
    warnings: Vec<String>,
    #[expect(dead_code, reason = "held, not used")]
    lock: Lock,
}

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
        let blobs = Blobs::open(&root.join("blobs"))?;
        blobs.sweep();
        // what a killed run was working on
        let _ = std::fs::remove_dir_all(root.join("tasks"));
        let journal = Journal::open(&root.join("records"), program)?;
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
            syncing: None,
            sync_failed: false,
            warnings: Vec::new(),
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
        if self.known_stages.insert(facts.digest) {
            self.journal.append(&Entry::Stage(facts.clone()))?;
        }
        let place = self.journal.append(&Entry::Unit(unit.clone()))?;
        self.places.insert(unit.key, place);
        self.unindexed.push((unit.key, place));
        Ok(())
    }

    /// Begins to make what was put safe from a power failure, beside other work; finishes what was begun earlier. Disks take
    /// their time, and nobody has to wait for them before the end.
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
            let work = move || -> Result<()> {
                blobs.sync(&fresh)?;
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
        self.sync_failed |= synced.is_err();
        synced?;
        self.journal.committed(upto)
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
            let synced = synced.and_then(|()| file.sync_data().map_err(io("write", &self.root)));
            self.sync_failed |= synced.is_err();
            synced?;
            self.journal.committed(upto)?;
        }
        self.journal.sync_mark()?;
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

    /// Whether a file can be had.
    pub fn has(&self, blob: &Blob) -> bool {
        self.blobs.has(blob) || self.elsewhere.contains_key(&blob.digest)
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
        if let Some(digest) = self.blobs.digest_of(&real) {
            let len = std::fs::metadata(&real).map_err(io("read", &real))?.len();
            return Ok(Blob { digest, len, ext: ext.into() });
        }
        for path in [file, &real] {
            let Some((digest, (_, seen))) =
                self.by_path.get(path).and_then(|(digest, _)| Some((digest, self.elsewhere.get(digest)?)))
            else {
                continue;
            };
            if Fingerprint::of(path).is_ok_and(|now| now == *seen) {
                return Ok(Blob { digest: *digest, len: seen.size, ext: ext.into() });
            }
        }
        // a link cannot be moved in place of what it points to
        let is_link = std::fs::symlink_metadata(file).is_ok_and(|meta| meta.is_symlink());
        self.blobs.ingest(&real, ext, if is_link { Take::Copy } else { take })
    }

    /// The files of a user, in place: their digests and lengths, and from now on [`Cache::path`] finds them. Files with a
    /// known fingerprint are not read.
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
                None => self.indexed(|index| index.file(path, *stat))?,
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

    /// The files that were referred to, with fingerprints that prove something; sorted.
    pub fn referred(&self) -> Vec<(PathBuf, Fingerprint, Digest)> {
        let known =
            |path: &PathBuf| self.files.get(path).map(|&(fingerprint, digest)| (path.clone(), fingerprint, digest));
        let mut referred: Vec<_> = self.by_path.keys().filter_map(known).collect();
        referred.sort_by(|a, b| a.0.cmp(&b.0));
        referred
    }

    /// Whether a file lies outside of the workspace.
    pub fn is_referred(&self, digest: &Digest) -> bool {
        self.elsewhere.contains_key(digest)
    }

    /// The first of these files outside of the workspace that is not what it was when [`Cache::refer`] saw it: what was
    /// computed from it meanwhile cannot be kept.
    pub fn changed(&self, digests: &[Digest]) -> Option<&Path> {
        let outside = digests.iter().filter_map(|digest| self.elsewhere.get(digest));
        let mut changed = outside.filter(|(path, seen)| Fingerprint::of(path).ok() != Some(*seen));
        changed.next().map(|(path, _)| path.as_path())
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

    /// The first of these files that is not what it was when [`Cache::refer`] saw it at this very path.
    pub fn changed_at<'p>(&self, paths: &'p [PathBuf]) -> Option<&'p Path> {
        let same = |path: &PathBuf| {
            self.by_path.get(path).is_none_or(|(_, seen)| Fingerprint::of(path).is_ok_and(|now| now == *seen))
        };
        paths.iter().find(|path| !same(path)).map(PathBuf::as_path)
    }

    /// The folder in which a unit may keep checkpoints: it survives a kill, and is removed by [`Cache::drop_scratch`].
    pub fn scratch(&self, key: &Digest) -> PathBuf {
        self.root.join("scratch").join(key.to_string())
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

    /// Writes the journal anew without the units whose files are gone, and the index with it; gives back how many units are
    /// left.
    ///
    /// # Errors
    /// If it cannot be read or written. The old journal is removed only when the new one has reached the disk.
    pub fn compact(&mut self) -> Result<usize> {
        self.commit()?;
        let mut stages = Vec::new();
        let mut units: HashMap<Digest, Unit> = HashMap::new();
        crate::records::scan_all(&self.root, &mut |_, entry| match entry {
            Entry::Stage(facts) => stages.push(facts),
            Entry::Unit(unit) => {
                units.insert(unit.key, unit);
            }
            _ => {}
        })?;
        let mut left: Vec<Unit> = units.into_values().filter(|unit| unit.blobs().all(|blob| self.has(blob))).collect();
        left.sort_by_key(|unit| (unit.at, unit.key));
        let used: HashSet<Digest> = left.iter().map(|unit| unit.stage).collect();
        let old = self.journal.next_segment()?;
        let mut written = HashSet::new();
        for facts in stages.into_iter().filter(|facts| used.contains(&facts.digest)) {
            if written.insert(facts.digest) {
                self.journal.append(&Entry::Stage(facts))?;
            }
        }
        for unit in &left {
            self.journal.append(&Entry::Unit(unit.clone()))?;
        }
        if let Some((file, upto)) = self.journal.unsynced() {
            // the new segment vouches for files that the old ones may not have vouched for
            self.blobs.sync_all()?;
            file.sync_data().map_err(io("write", &self.root))?;
            self.journal.committed(upto)?;
            self.journal.sync_mark()?;
        }
        self.journal.remove(&old)?;
        self.places.clear();
        self.unindexed.clear();
        self.rebuild()?;
        Ok(left.len())
    }

    fn set_aside(&self) -> Result<()> {
        let (dir, aside) = (self.root.join("index"), self.root.join("index.broken"));
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
        let index = Index::open(&self.root.join("index"))?;
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
                self.blobs.sync_all().and_then(|()| self.journal.seal(segment, believed.end)).map_err(unreadable)?;
                length = self.journal.length(segment).map_err(unreadable)?;
            }
            index.add(&units, &[], &[(segment, length)])?;
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OutRow;
    use manifests::Type;

    fn facts() -> StageFacts {
        StageFacts { digest: Digest([1; 32]), kind: "k".into(), facts: Vec::new() }
    }

    fn unit(key: u8, blob: Option<Blob>) -> Unit {
        let value = blob.map_or(Value::Null, Value::Blob);
        Unit {
            key: Digest([key; 32]),
            stage: Digest([1; 32]),
            node: "a".into(),
            name: String::new(),
            inputs: Vec::new(),
            columns: vec![("file".into(), Type::Blob)],
            rows: vec![OutRow { of: Some(0), values: vec![value] }],
            at: 0,
            seconds: 0.0,
        }
    }

    #[test]
    fn units_are_found_again_with_and_without_an_index() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "content").unwrap();
        let root = dir.path().join("ws");
        let mut cache = Cache::open(&root, "test").unwrap();
        let blob = cache.ingest(&file, "", Take::Move).unwrap();
        cache.put(&unit(1, Some(blob.clone())), &facts()).unwrap();
        cache.commit().unwrap();
        // put, but the process ends before it can commit
        cache.put(&unit(2, None), &facts()).unwrap();
        drop(cache);

        let mut cache = Cache::open(&root, "test").unwrap();
        assert_eq!(cache.get(&Digest([1; 32])).unwrap(), Some(unit(1, Some(blob.clone()))));
        assert_eq!(cache.get(&Digest([2; 32])).unwrap(), Some(unit(2, None)));
        assert_eq!(cache.get(&Digest([3; 32])).unwrap(), None);
        drop(cache);

        // every kind of damage to the index leaves the same answers
        for damage in ["delete", "zero", "truncate"] {
            for entry in std::fs::read_dir(root.join("index")).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() || damage == "delete" {
                    continue;
                }
                let len = std::fs::metadata(&path).unwrap().len() as usize;
                let bytes =
                    if damage == "zero" { vec![0; len] } else { std::fs::read(&path).unwrap()[..len / 2].to_vec() };
                std::fs::write(&path, bytes).unwrap();
            }
            if damage == "delete" {
                std::fs::remove_dir_all(root.join("index")).unwrap();
            }
            let mut cache = Cache::open(&root, "test").unwrap();
            assert!(cache.get(&Digest([1; 32])).unwrap().is_some(), "{damage}");
            assert!(cache.get(&Digest([2; 32])).unwrap().is_some(), "{damage}");
            cache.commit().unwrap();
        }

        // a blob that is gone or cut makes its unit a miss
        let mut cache = Cache::open(&root, "test").unwrap();
        assert!(cache.verify().unwrap().damaged.is_empty());
        std::fs::remove_file(cache.path(&blob).unwrap()).unwrap();
        assert_eq!(cache.get(&Digest([1; 32])).unwrap(), None);
        let damaged = cache.verify().unwrap().damaged;
        assert_eq!((damaged.len(), damaged[0].stage.as_deref()), (1, Some("a")));
        assert_eq!(cache.rebuild().unwrap(), 2);
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Cache::open(dir.path(), "test").unwrap();
        let error = Cache::open(dir.path(), "test").err().expect("it is locked").to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        Cache::open(dir.path(), "test").unwrap();
    }

    #[test]
    fn files_are_read_again_only_when_they_may_have_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "one").unwrap();
        let mut cache = Cache::open(&dir.path().join("ws"), "test").unwrap();
        let one = cache.refer(std::slice::from_ref(&file)).unwrap();
        assert!(cache.referred().is_empty(), "written just now: its fingerprint proves nothing");
        std::fs::write(&file, "two").unwrap();
        assert_ne!(cache.refer(std::slice::from_ref(&file)).unwrap(), one);
        std::thread::sleep(std::time::Duration::from_millis(80));
        cache.refer(std::slice::from_ref(&file)).unwrap();
        assert_eq!(cache.referred().len(), 1);
    }
}
