//! What the last run of a recipe came to: for each stage the facts of its table, the table itself, and the fingerprints
//! of the files it read. A stage whose facts are the same has the same table, and nobody needs to look at its rows.
//!
//! All of it can be thrown away: then every unit is looked up again.

use crate::spec::DEFAULT_PROFILE;
use anyhow::{Context, Result};
use cache::layout;
use cache::{Blobs, Fingerprint};
use manifests::{Blob, Digest, Hasher, Manifest};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The memory of a recipe.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Stages by name.
    pub stages: BTreeMap<String, Remembered>,
    /// Files that were read.
    pub files: Vec<(PathBuf, Fingerprint, Digest)>,
}

impl Memory {
    /// Takes over which files an earlier memory knows, but for those that this run has looked at: whoever ran only some
    /// stages knows nothing of what the others read and handed on.
    pub fn keep_files(&mut self, earlier: &Memory, looked_at: &HashSet<&Path>) {
        let others = earlier.files.iter().filter(|(path, ..)| !looked_at.contains(path.as_path()));
        self.files.extend(others.cloned());
        self.files.sort_by(|a, b| a.0.cmp(&b.0));
    }
}

/// Where the files of rows can be read: in the workspace, or where the user has them, for those are not copied.
pub struct Places {
    blobs: Blobs,
    own: HashMap<Digest, Vec<(PathBuf, Fingerprint)>>,
    /// Files that had to be read again because of their times alone, as they are now.
    touched: Mutex<HashMap<PathBuf, Fingerprint>>,
}

impl Places {
    /// Those of a workspace, and the user's own that a memory knows.
    ///
    /// # Errors
    /// If the workspace's folder of files cannot be opened.
    pub fn new(root: &Path, memory: Memory) -> Result<Places> {
        let mut own: HashMap<Digest, Vec<(PathBuf, Fingerprint)>> = HashMap::new();
        for (path, seen, digest) in memory.files {
            own.entry(digest).or_default().push((path, seen));
        }
        let root = std::path::absolute(root)?;
        Ok(Places { blobs: Blobs::open(&root.join(layout::BLOBS))?, own, touched: Mutex::default() })
    }

    /// Where a file is; `None` if nobody knows.
    pub fn find(&self, blob: &Blob) -> Option<PathBuf> {
        match self.blobs.has(blob) {
            true => Some(self.blobs.path(&blob.digest)),
            false => self.own(&blob.digest),
        }
    }

    /// Where the user has a file of this content. One that has changed since is another file.
    pub fn own(&self, digest: &Digest) -> Option<PathBuf> {
        let touched = || self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let is_still = |(path, seen): &&(PathBuf, Fingerprint)| {
            let begun = Fingerprint::now();
            let Ok(now) = Fingerprint::of(path) else { return false };
            if now == *seen || touched().get(path) == Some(&now) {
                return true;
            }
            // touched, or given another name: its times tell nothing of its content
            let is_same = now.size == seen.size && Digest::of_file(path).is_ok_and(|(now, _)| now == *digest);
            // one whose times are too young to tell of a later change is read again
            if is_same && now.is_settled(begun) {
                touched().insert(path.clone(), now);
            }
            is_same
        };
        self.own.get(digest)?.iter().find(is_still).map(|(path, _)| path.clone())
    }

    /// Where a file was that is not found: where the user had it, or its place in the workspace.
    pub fn was(&self, blob: &Blob) -> PathBuf {
        let own = self.own.get(&blob.digest).and_then(|all| all.first());
        own.map_or_else(|| self.blobs.path(&blob.digest), |(path, _)| path.clone())
    }

    /// Where a file is, or would be in the workspace if it were not gone.
    pub fn path(&self, blob: &Blob) -> PathBuf {
        self.find(blob).unwrap_or_else(|| self.blobs.path(&blob.digest))
    }
}

/// A stage of the last run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// Digest of everything that decides its table.
    pub key: Digest,
    /// Digest of its kind, version, parameters and constants.
    pub head: Digest,
    /// Digest of its table.
    pub table: Digest,
    /// Rows of its table.
    pub rows: usize,
    /// Its units.
    pub units: usize,
    /// Seconds of work that made it.
    pub worth: f64,
    /// Length of the file that holds its table; 0 if nobody noted it.
    #[serde(default)]
    pub bytes: u64,
    /// The files that its own units put out, with their lengths, if there are only few: then nobody has to read the
    /// table to see that they are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs: Option<Vec<(Digest, u64)>>,
    /// `--param` and `--set` of the run that made it, as they were typed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
}

/// A table's rows by the keys of the units that gave them, for stages of grain row.
pub struct Prior {
    /// The table.
    pub table: Manifest,
    /// Key, first row and number of rows of each unit.
    pub units: HashMap<Digest, (usize, usize)>,
    /// Seconds of work in it.
    pub seconds: f64,
}

/// Where a workspace keeps memories and tables.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store of a workspace.
    pub fn new(root: &Path) -> Store {
        Store { root: root.into() }
    }

    /// Where the memory of a recipe lies.
    fn path(&self, recipe: &Path, profile: Option<&str>) -> PathBuf {
        let mut hasher = Hasher::new("recipe/1");
        hasher.bytes(recipe.as_os_str().as_encoded_bytes());
        hasher.bytes(profile.unwrap_or_default().as_bytes());
        self.root.join(layout::RUNS).join(layout::LAST).join(format!("{}.json", hasher.finish().short()))
    }

    /// The memory of a recipe; empty if there is none or it is damaged.
    pub fn load(&self, recipe: &Path, profile: Option<&str>) -> Memory {
        // workspaces of before have what runs without a profile under the name of `default`, too
        let older = || profile.is_none().then(|| std::fs::read(self.path(recipe, Some(DEFAULT_PROFILE))));
        let bytes = std::fs::read(self.path(recipe, profile)).ok().or_else(|| older()?.ok());
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Keeps the memory of a recipe; what it speaks of has reached the disk.
    pub fn save(&self, recipe: &Path, profile: Option<&str>, memory: &Memory) -> Result<()> {
        // what was at rest is so no more
        let _ = std::fs::remove_file(self.rest_path(recipe, profile));
        if profile.is_none() {
            let _ = std::fs::remove_file(self.path(recipe, Some(DEFAULT_PROFILE)));
        }
        put(&self.path(recipe, profile), &serde_json::to_vec(memory)?, true)
    }

    /// Where it is noted what a recipe at rest looks like.
    pub fn rest_path(&self, recipe: &Path, profile: Option<&str>) -> PathBuf {
        self.path(recipe, profile).with_extension("rest")
    }

    /// Notes that the memory of a recipe was of use now, for `cache gc --max-size`.
    pub fn touch(&self, recipe: &Path, profile: Option<&str>) {
        // not being able to costs files that are made again, nothing else
        let file = std::fs::OpenOptions::new().write(true).open(self.path(recipe, profile));
        let _ = file.and_then(|file| file.set_modified(std::time::SystemTime::now()));
    }

    /// Where a table lies.
    pub fn table_path(&self, table: &Digest) -> PathBuf {
        self.root.join(layout::TABLES).join(Store::table_name(table))
    }

    /// The name of a table's file.
    pub fn table_name(table: &Digest) -> String {
        format!("{table}.arrow")
    }

    /// A table, if it is there and whole.
    pub fn table(&self, digest: &Digest) -> Option<Manifest> {
        whole(&self.table_path(digest), digest)
    }

    /// Keeps a table; gives back its file and that file's length.
    pub fn keep(&self, digest: &Digest, table: &Manifest) -> Result<(PathBuf, u64)> {
        let path = self.table_path(digest);
        let length = || std::fs::metadata(&path).map(|meta| meta.len());
        if let Some(bytes) = length().ok().filter(|bytes| *bytes > 0) {
            return Ok((path, bytes));
        }
        let folder = self.root.join(layout::TABLES);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        manifests::write_ipc(&path, table)?;
        let bytes = length().with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path, bytes))
    }

    fn keys_path(&self, table: &Digest, head: &Digest) -> PathBuf {
        // tables may be equal where keys are not
        self.root.join(layout::TABLES).join(format!("{table}.{}.keys", head.short()))
    }

    /// Keeps the keys of a table's units, each with its number of rows, in order.
    pub fn keep_keys(&self, table: &Digest, head: &Digest, units: &[(Digest, usize)]) -> Result<()> {
        let path = self.keys_path(table, head);
        let mut bytes = Vec::with_capacity(units.len() * 36);
        for (key, rows) in units {
            bytes.extend(key.0);
            bytes.extend((*rows as u32).to_le_bytes());
        }
        write(&path, &bytes)
    }

    /// The keys of a table's units, each with its number of rows, in order, if they were kept.
    pub fn unit_keys(&self, table: &Digest, head: &Digest) -> Option<Vec<(Digest, usize)>> {
        let bytes = std::fs::read(self.keys_path(table, head)).ok()?;
        let unit = |unit: &[u8]| {
            let rows = u32::from_le_bytes(unit[32..].try_into().ok()?) as usize;
            Some((Digest(unit[..32].try_into().ok()?), rows))
        };
        bytes.chunks_exact(36).map(unit).collect()
    }

    /// A table with the keys of its units; `None` if they were not kept, or are not of this table.
    pub fn prior(&self, stage: &Remembered) -> Option<Prior> {
        let keys = self.unit_keys(&stage.table, &stage.head)?;
        let manifest = self.table(&stage.table)?;
        let mut units = HashMap::with_capacity(keys.len());
        let mut row = 0;
        for (key, rows) in keys {
            units.insert(key, (row, rows));
            row += rows;
        }
        (row == manifest.len()).then_some(Prior { table: manifest, units, seconds: stage.worth })
    }

    /// All memories, each with the time at which it was of use last, milliseconds since 1970; `None` while one of them
    /// cannot be read.
    pub fn all(&self) -> Option<Vec<(Memory, u64)>> {
        let entries =
            std::fs::read_dir(self.root.join(layout::RUNS).join(layout::LAST)).into_iter().flatten().flatten();
        let json = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ext| ext == "json"));
        let read = |path: PathBuf| {
            let used = std::fs::metadata(&path).and_then(|meta| meta.modified()).ok()?;
            let used = used.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
            Some((serde_json::from_slice(&std::fs::read(path).ok()?).ok()?, used))
        };
        json.map(read).collect()
    }

    /// Tells a cache of the files outside of the workspace that runs have read.
    pub fn refer_all(&self, cache: &mut cache::Cache) {
        for (memory, _) in self.all().unwrap_or_default() {
            for (path, fingerprint, digest) in memory.files {
                cache.remember(path.clone(), fingerprint, digest);
                // one that is gone is not there to be referred to
                let _ = cache.refer(&[path]);
            }
        }
    }

    /// Removes tables that no memory names any more, but for those of this run and of the runs that can still be
    /// compared.
    pub fn sweep(&self, present: impl IntoIterator<Item = Digest>) {
        // while a memory cannot be read nothing is known to be unnamed
        let Some(memories) = self.all() else { return };
        let stages = memories.iter().flat_map(|(memory, _)| memory.stages.values());
        let mut named: HashSet<String> = stages.map(|stage| stage.table.to_string()).collect();
        named.extend(present.into_iter().map(|table| table.to_string()));
        crate::kept::hold(&self.root, &mut named);
        let table_of = |path: &Path| Some(path.file_name()?.to_str()?.split('.').next()?.to_string());
        for entry in std::fs::read_dir(self.root.join(layout::TABLES)).into_iter().flatten().flatten() {
            let path = entry.path();
            if table_of(&path).is_some_and(|table| !named.contains(&table)) {
                // a table that stays costs room, nothing else
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// The table in a file, if it is the one of this digest. One that is not is removed: it can be made again from the
/// records.
pub fn whole(path: &Path, digest: &Digest) -> Option<Manifest> {
    match manifests::read_ipc(path) {
        Ok(table) if table.digest() == *digest => return Some(table),
        // it may be readable another time
        Err(manifests::Error::Io { .. }) => return None,
        _ => {}
    }
    let _ = std::fs::remove_file(path);
    None
}

/// Writes a file under a temporary name, then renames it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    put(path, bytes, false)
}

/// The same; if `lasting`, it has reached the disk before it bears its name.
fn put(path: &Path, bytes: &[u8], lasting: bool) -> Result<()> {
    let folder = path.parent().context("a file lies in a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = || {
        let mut file = std::fs::File::create(&temporary)?;
        std::io::Write::write_all(&mut file, bytes)?;
        if lasting { file.sync_all() } else { Ok(()) }
    };
    written()
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
