//! Care for a workspace: what its runs reach, what could go, and what takes up room.
//!
//! Reached is what the tables of kept runs hold: the last run of each recipe and profile, and as many before it as are
//! asked for. Of a run whose tables are gone, all units of its stages count as reached. So does whatever was finished
//! since the last run on record began, and by a run that was killed or interrupted, whichever others have run since but
//! for one that did all of its recipe and profile: it goes on from there. Prints nothing.

use crate::kept::{self, Begun};
use crate::memory::Store;
use crate::record::{self, Record};
use anyhow::Result;
use cache::layout;
use cache::{Cache, Entry, Unit};
use manifests::{Digest, Manifest, Type, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// So many runs of each recipe and profile.
    pub keep_last: usize,
    /// The files together may take up so many bytes.
    pub max_bytes: Option<u64>,
    /// Checkpoints of units that nobody has worked on for longer than this go: none of them if it is not given, for no
    /// run tells which of them somebody will go on from.
    pub checkpoints: Option<Duration>,
}

/// What could go.
#[derive(Debug, Default)]
pub struct Loose {
    /// Files that no kept run reaches, and, beyond `max_bytes`, those that were reached longest ago.
    pub files: Vec<Digest>,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them kept runs do reach: they go only because there is no room for them.
    pub reached: usize,
    /// Records that nothing reaches, or whose files go.
    pub records: usize,
    /// Records in all.
    pub of_records: usize,
    /// Tables, with the keys of their units.
    pub tables: Vec<PathBuf>,
    /// Their bytes.
    pub table_bytes: u64,
    /// Folders of checkpoints.
    pub checkpoints: Vec<PathBuf>,
    /// Their bytes.
    pub checkpoint_bytes: u64,
    /// Folders of checkpoints that stay.
    pub of_unfinished: usize,
    keep: Keep,
}

/// Which records stay: by the facts of their stage those of some keys, or all.
#[derive(Debug, Default)]
struct Keep {
    heads: HashMap<Digest, Option<HashSet<Digest>>>,
    since: u64,
    /// Runs that ended without a record.
    killed: Vec<Begun>,
}

impl Keep {
    /// Whether no table can speak of a unit, because the run that finished it may be one without a record.
    fn is_late(&self, unit: &Unit) -> bool {
        unit.at >= self.since || self.killed.iter().any(|begun| begun.may_have_made(unit))
    }

    fn wants(&self, unit: &Unit) -> bool {
        let known = self.heads.get(&unit.stage);
        self.is_late(unit) || known.is_some_and(|keys| keys.as_ref().is_none_or(|keys| keys.contains(&unit.key)))
    }
}

/// The records of runs, newest first. One that cannot be read is left out.
fn runs(root: &Path) -> Vec<Record> {
    let mut runs = record::all(root);
    runs.sort_by(|a, b| (b.started, &b.run).cmp(&(a.started, &a.run)));
    runs
}

fn blobs(table: &Manifest) -> impl Iterator<Item = Digest> + '_ {
    let columns = table.schema().columns().iter().filter(|column| column.ty == Type::Blob);
    let values = columns.flat_map(|column| table.column(&column.name).unwrap_or_default());
    values.filter_map(|value| if let Value::Blob(blob) = value { Some(blob.digest) } else { None })
}

/// What runs reach, and when they did so last.
#[derive(Default)]
struct Reach {
    files: HashMap<Digest, u64>,
    tables: HashSet<Digest>,
    /// Stages whose tables are gone.
    whole: HashMap<Digest, u64>,
    keep: Keep,
}

impl Reach {
    fn file(&mut self, digest: Digest, at: u64) {
        let last = self.files.entry(digest).or_default();
        *last = at.max(*last);
    }

    fn stage(&mut self, store: &Store, head: Digest, table: Digest, at: u64) {
        match store.table(&table) {
            Some(found) => {
                let held: HashSet<Digest> = blobs(&found).collect();
                held.into_iter().for_each(|digest| self.file(digest, at));
                self.tables.insert(table);
                let keys = store.unit_keys(&table, &head);
                let known = self.keep.heads.entry(head).or_insert_with(|| Some(HashSet::new()));
                match (keys, known.as_mut()) {
                    (Some(keys), Some(known)) => known.extend(keys.into_iter().map(|(key, _)| key)),
                    // nobody noted which of its units are in the table
                    _ => *known = None,
                }
            }
            None => {
                self.whole.insert(head, at);
                self.keep.heads.insert(head, None);
            }
        }
    }
}

/// Looks for what could go; `None` while a memory of a last run cannot be read, for then nobody can tell.
///
/// # Errors
/// If the workspace cannot be read.
pub fn look(cache: &mut Cache, store: &Store, wanted: Wanted) -> Result<Option<Loose>> {
    let Some(memories) = store.all() else { return Ok(None) };
    store.refer_all(cache);
    let mut reach = Reach::default();
    for (memory, used) in &memories {
        memory.stages.values().for_each(|stage| reach.stage(store, stage.head, stage.table, *used));
    }
    let runs = runs(cache.root());
    reach.keep.since = runs.first().map_or(0, |last| last.started);
    let is_open = |name: &String| runs.iter().all(|run| run.run != *name);
    reach.keep.killed =
        kept::begun(cache.root()).into_iter().filter(|(name, _)| is_open(name)).map(|(_, begun)| begun).collect();
    // how many runs of each recipe and profile, and whether one of them did everything
    let mut counts: HashMap<(&str, Option<&str>), (usize, bool)> = HashMap::new();
    for run in &runs {
        let (count, is_whole) = counts.entry((run.recipe_file(), run.profile.as_deref())).or_default();
        *count += 1;
        *is_whole |= run.whole;
        let goes_on = run.outcome == "interrupted" && !*is_whole;
        if *count > wanted.keep_last && !goes_on {
            continue;
        }
        for stage in &run.stages {
            match (stage.head, stage.table) {
                (head, Some(table)) => reach.stage(store, head.unwrap_or(table), table, run.started),
                // it failed or was stopped; what it finished is worth keeping
                (Some(head), None) => {
                    reach.whole.insert(head, run.started);
                    reach.keep.heads.insert(head, None);
                }
                (None, None) => {}
            }
        }
    }
    let mut records: HashMap<Digest, (bool, Vec<Digest>)> = HashMap::new();
    cache::scan_all(cache.root(), &mut |_, entry| {
        let Entry::Unit(unit) = entry else { return };
        let whole = reach.whole.get(&unit.stage).copied();
        let at = whole.or(reach.keep.is_late(&unit).then_some(unit.at));
        at.iter().for_each(|at| unit.blobs().for_each(|blob| reach.file(blob.digest, *at)));
        let sound = unit.blobs().all(|blob| cache.has(blob));
        let wanted = sound && reach.keep.wants(&unit);
        records.insert(unit.key, (wanted, unit.blobs().map(|blob| blob.digest).collect()));
    })?;
    let mut loose = Loose { of_records: records.len(), ..Loose::default() };
    let (mut held, mut held_bytes) = (Vec::new(), 0);
    for (digest, path, bytes) in cache.blobs().list()? {
        match reach.files.get(&digest) {
            None => {
                loose.files.push(digest);
                loose.bytes += bytes;
            }
            Some(at) => {
                let made = std::fs::metadata(&path).and_then(|meta| meta.modified()).ok();
                held.push((*at, made, digest, bytes));
                held_bytes += bytes;
            }
        }
    }
    held.sort_unstable();
    for (_, _, digest, bytes) in held {
        if wanted.max_bytes.is_none_or(|most| held_bytes <= most) {
            break;
        }
        held_bytes -= bytes;
        loose.bytes += bytes;
        loose.reached += 1;
        loose.files.push(digest);
    }
    let going: HashSet<Digest> = loose.files.iter().copied().collect();
    let stays = |(wanted, files): &(bool, Vec<Digest>)| *wanted && !files.iter().any(|file| going.contains(file));
    loose.records = records.values().filter(|record| !stays(record)).count();
    let named: HashSet<String> = reach.tables.iter().map(Digest::to_string).collect();
    for entry in std::fs::read_dir(cache.root().join(layout::TABLES)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let table = name.to_str().and_then(|name| name.split('.').next()).unwrap_or_default();
        if !named.contains(table) {
            loose.tables.push(entry.path());
            loose.table_bytes += entry.metadata().map_or(0, |meta| meta.len());
        }
    }
    loose.tables.sort();
    for entry in std::fs::read_dir(cache.root().join(layout::SCRATCH)).into_iter().flatten().flatten() {
        let folder = entry.path();
        let is_old = wanted.checkpoints.is_some_and(|most| idle(&folder).is_some_and(|idle| idle > most));
        // what a remote or another workspace has finished needs none
        let key = entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok());
        let is_finished = key.and_then(|key| records.get(&key)).is_some_and(stays);
        if is_old || is_finished {
            loose.checkpoint_bytes += room(&folder);
            loose.checkpoints.push(folder);
        } else {
            loose.of_unfinished += 1;
        }
    }
    loose.checkpoints.sort();
    loose.keep = reach.keep;
    Ok(Some(loose))
}

/// Lets go what was found.
///
/// # Errors
/// If something cannot be removed, or the journal not be written anew.
pub fn clean(cache: &mut Cache, loose: &Loose) -> Result<()> {
    cache.blobs().remove(&loose.files)?;
    if loose.records > 0 {
        cache.compact(&|unit| loose.keep.wants(unit))?;
    }
    for path in &loose.tables {
        // a table that stays costs room, nothing else
        let _ = std::fs::remove_file(path);
    }
    for folder in &loose.checkpoints {
        // as above
        let _ = std::fs::remove_dir_all(folder);
    }
    // of use only to whoever looks into why it broke
    let _ = std::fs::remove_dir_all(cache.root().join(layout::INDEX_ASIDE));
    Ok(())
}

/// A table of a last run that is not what its name says; it has been removed, and the next run makes it again.
pub fn damaged_tables(store: &Store, root: &Path) -> Vec<(PathBuf, Option<String>)> {
    let mut stages: HashMap<Digest, String> = HashMap::new();
    for (memory, _) in store.all().unwrap_or_default() {
        stages.extend(memory.stages.into_iter().map(|(name, stage)| (stage.table, name)));
    }
    let mut damaged = Vec::new();
    for entry in std::fs::read_dir(root.join(layout::TABLES)).into_iter().flatten().flatten() {
        let path = entry.path();
        let digest = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<Digest>().ok());
        let Some(digest) = digest.filter(|_| path.extension().is_some_and(|ext| ext == "arrow")) else { continue };
        if store.table(&digest).is_none() {
            damaged.push((path, stages.get(&digest).cloned()));
        }
    }
    damaged.sort();
    damaged
}

/// What is kept, by stage.
#[derive(Debug, Default)]
pub struct Kept {
    /// Finished units.
    pub units: usize,
    /// Files that they put out, each counted for the stage that did so last.
    pub files: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Seconds of work in them.
    pub seconds: f64,
}

/// What is kept, by the stages that made it; and files that no record speaks of.
///
/// # Errors
/// If the workspace cannot be read.
pub fn kept(cache: &Cache) -> Result<(BTreeMap<String, Kept>, Kept)> {
    let mut units: HashMap<Digest, (String, f64)> = HashMap::new();
    let mut owners: HashMap<Digest, String> = HashMap::new();
    cache::scan_all(cache.root(), &mut |_, entry| {
        if let Entry::Unit(unit) = entry {
            owners.extend(unit.blobs().map(|blob| (blob.digest, unit.node.clone())));
            units.insert(unit.key, (unit.node, unit.seconds));
        }
    })?;
    let mut stages: BTreeMap<String, Kept> = BTreeMap::new();
    for (stage, seconds) in units.into_values() {
        let kept = stages.entry(stage).or_default();
        kept.units += 1;
        kept.seconds += seconds;
    }
    let mut nobodys = Kept::default();
    for (digest, _, bytes) in cache.blobs().list()? {
        let kept = owners.get(&digest).map_or(&mut nobodys, |stage| stages.entry(stage.clone()).or_default());
        kept.files += 1;
        kept.bytes += bytes;
    }
    Ok((stages, nobodys))
}

/// For how long nothing was written into a folder; none if nobody can tell.
fn idle(folder: &Path) -> Option<Duration> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let written =
        entries.chain([folder.to_owned()]).filter_map(|path| std::fs::metadata(path).ok()?.modified().ok()).max();
    written?.elapsed().ok()
}

/// Bytes of all files below a folder.
pub fn room(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => room(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    bytes.sum()
}
