//! From a stage's inputs to the keys of its units, and the engine's own tables. What `plan` and `why` need as well as
//! `run`.

use crate::axes;
use crate::builtin::Table;
use crate::event::Event;
use crate::hints::hinted;
use crate::key::Head;
use crate::memory::{Memory, Prior, Remembered, Store};
use crate::own_output;
use crate::plan::{Node, Work};
use crate::run::{Done, FEW, Run, State};
use crate::stage::{UnitStage, Worker};
use crate::units::Units;
use anyhow::{Context, Result};
use cache::Cache;
use manifests::{Blob, Digest, Hasher, Manifest};
use protocol::ColumnDef;
use std::cell::OnceCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A stage with its units and their keys.
pub struct Prepared {
    /// What all its units share.
    pub head: Head,
    /// Its input after `where:`, with all columns.
    pub table: Option<Manifest>,
    /// Its input projected to what it reads.
    pub projected: Manifest,
    /// Its units.
    pub units: Units,
    /// Their keys.
    pub keys: Vec<Digest>,
    /// The columns that the stage declares to put out.
    pub writes: Vec<ColumnDef>,
}

impl Prepared {
    /// The table in which units have names.
    pub fn named(&self) -> &Manifest {
        self.table.as_ref().unwrap_or(&self.projected)
    }
}

/// The head of a stage's keys: its facts with the contents of its files and constants.
///
/// # Errors
/// If a file cannot be read, or a constant lacks a column.
pub fn stage_head<'t>(
    node: &Node,
    stage: &UnitStage,
    cache: &mut Cache,
    table: &dyn Fn(usize) -> Result<&'t Manifest>,
) -> Result<Head> {
    let mut files = Vec::new();
    // what is kept of earlier versions of code is none
    let passed_over: &[&str] = if matches!(stage.worker, Worker::Command(_)) { &[".git"] } else { &[] };
    for (name, path) in named_files(stage) {
        let digest = folder_digest(&path, passed_over, cache);
        let digest = digest.with_context(|| format!("`{name}` of stage `{}`", node.name))?;
        files.push((name, digest));
    }
    let mut with = Vec::new();
    for ((name, need), columns) in node.with.iter().zip(&stage.with_reads) {
        with.push((name.clone(), project(table(*need)?, columns, stage.constant(name))?.digest()));
    }
    Ok(Head::new(&stage.def.kind, |facts| stage.facts(facts, &with, &files)))
}

/// The files whose content is a fact of a stage: parameters that are paths, and the code of a program.
pub(super) fn named_files(stage: &UnitStage) -> Vec<(String, PathBuf)> {
    let mut files = stage.files.clone();
    if let Worker::Command(command) = &stage.worker {
        files.extend(command.code.iter().cloned());
    }
    files
}

/// The digest of a file, or of a folder: its relative paths and contents, sorted. The workspace is no part of a folder
/// that it lies in, and neither is what bears one of the names `passed_over`.
///
/// # Errors
/// If something cannot be read.
pub fn folder_digest(path: &Path, passed_over: &[&str], cache: &mut Cache) -> Result<Digest> {
    if !path.is_dir() {
        let found = cache.refer(std::slice::from_ref(&path.to_path_buf()))?;
        return Ok(found[0].0);
    }
    let mut found = Found::default();
    if let Ok(meta) = std::fs::metadata(path) {
        found.folders.insert((meta.dev(), meta.ino()), PathBuf::new());
    }
    list((path, Path::new("")), passed_over, cache, &mut found)?;
    let Found { mut files, again, .. } = found;
    files.sort();
    let paths: Vec<PathBuf> = files.iter().map(|file| path.join(file)).collect();
    let mut hasher = Hasher::new("folder/1");
    for (file, (digest, _)) in files.iter().zip(cache.refer(&paths)?) {
        hasher.bytes(file.as_os_str().as_encoded_bytes());
        hasher.digest(&digest);
    }
    for (link, folder) in again {
        // no file has this name
        hasher.bytes(b"");
        hasher.bytes(link.as_os_str().as_encoded_bytes());
        hasher.bytes(folder.as_os_str().as_encoded_bytes());
    }
    Ok(hasher.finish())
}

/// What lies below a folder, as relative paths.
#[derive(Default)]
struct Found {
    files: Vec<PathBuf>,
    /// Each folder, by device and inode, as it was met first.
    folders: HashMap<(u64, u64), PathBuf>,
    /// Links to folders that were met before, and how: folders may link to each other, and the ways through them are
    /// many.
    again: BTreeMap<PathBuf, PathBuf>,
}

fn list((root, relative): (&Path, &Path), passed_over: &[&str], cache: &mut Cache, found: &mut Found) -> Result<()> {
    let dir = root.join(relative);
    cache.glance(&dir);
    let unread = || format!("cannot read the folder {}", dir.display());
    let entries =
        std::fs::read_dir(&dir).and_then(Iterator::collect::<std::io::Result<Vec<_>>>).with_context(unread)?;
    // which way a folder is met first must not depend on how the disk has them; what is there itself goes before links
    // to it
    let is_link = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
    let mut entries: Vec<_> = entries.into_iter().map(|entry| (is_link(&entry), entry.file_name(), entry)).collect();
    entries.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    let has_report = own_output::has_report(&dir);
    for (is_link, own, entry) in entries {
        // Python leaves these beside its sources the first time it reads them: they follow from what is hashed anyway
        let is_passed_over = own == "__pycache__" || is_of_an_editor(&own) || own_output::is_report(&own, has_report);
        if is_passed_over || passed_over.iter().any(|name| own == *name) {
            continue;
        }
        let (name, path) = (relative.join(&own), entry.path());
        // a pipe or a device would be read for ever; of what is not there whoever reads it says so
        let folder = match std::fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => (meta.dev(), meta.ino()),
            Ok(meta) if !meta.is_file() => continue,
            _ => {
                found.files.push(name);
                continue;
            }
        };
        let real = path.canonicalize().ok();
        if is_link
            && let (Some(real), Ok(dir)) = (&real, dir.canonicalize())
            && dir.starts_with(real)
        {
            let message = format!("the link {} leads to a folder that it lies in itself", path.display());
            return Err(hinted(message, "remove it"));
        }
        // what each run writes is no part of what it reads
        if real.is_some_and(|real| real == cache.root()) || own_output::is_workspace(&path) {
            continue;
        }
        match found.folders.entry(folder) {
            Entry::Occupied(first) => {
                found.again.insert(name, first.get().clone());
            }
            Entry::Vacant(entry) => {
                entry.insert(name.clone());
                list((root, &name), passed_over, cache, found)?;
            }
        }
    }
    Ok(())
}

/// Whether a file is there only while somebody edits another: locks of Emacs, which lead nowhere, swap files of Vim,
/// and backups.
fn is_of_an_editor(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".#")
        || name.starts_with(b".") && (name.ends_with(b".swp") || name.ends_with(b".swo"))
        || name.ends_with(b"~")
}

/// Some columns of a table, which a stage declares. The plan promises more than a table may keep, as rows that stand
/// alone carry none of their input's columns: one that the stage may do without is left out.
///
/// # Errors
/// If another one is missing.
pub fn project(table: &Manifest, columns: &[String], declared: &[ColumnDef]) -> Result<Manifest> {
    let there = table.schema().names();
    let optional = |name: &str| declared.iter().any(|column| column.optional && column.name == name);
    let kept = |name: &&str| there.contains(name) || !optional(name);
    let names: Vec<&str> = columns.iter().map(String::as_str).filter(kept).collect();
    table.select(&names).map_err(|error| {
        let hint = "rows of a unit of several rows carry columns on only if they extend one of its rows (`_of`): let the \
                    stage before write the column itself, or take it from an earlier stage by a `join:`";
        hinted(error.to_string(), hint)
    })
}

/// Cuts a stage's input into units and computes their keys.
///
/// # Errors
/// If the input lacks a column.
pub fn prepare(stage: &UnitStage, head: Head, table: Option<Manifest>) -> Result<Prepared> {
    let table = match (&stage.filter, table) {
        (Some(filter), Some(table)) => Some(table.take(&filter.rows(&table)?)),
        (_, table) => table,
    };
    let units = Units::cut(stage, table.as_ref())?;
    let projected = match &table {
        // a column that nothing carried on is not missed by a table without rows
        Some(table) if table.is_empty() => {
            project(table, &stage.reads, &stage.def.reads).unwrap_or_else(|_| Manifest::unit(0))
        }
        Some(table) => project(table, &stage.reads, &stage.def.reads)?,
        None => Manifest::unit(0),
    };
    let keys = match &units {
        Units::Rows(_) => head.row_keys(&projected),
        Units::Many(units) => head.unit_keys(&projected, units),
    };
    Ok(Prepared { head, table, projected, units, keys, writes: stage.def.writes.clone() })
}

/// Digest of everything that decides a stage's table, the axes that it varies along among it.
pub fn node_key(node: &Node, stage: &UnitStage, head: &Digest, input: Option<Digest>) -> Digest {
    let mut hasher = Hasher::new("node/1");
    hasher.digest(head);
    hasher.number(u64::from(input.is_some()));
    input.iter().for_each(|input| hasher.digest(input));
    stage.by.iter().for_each(|name| hasher.bytes(name.as_bytes()));
    hasher.number(stage.reads.len() as u64);
    stage.reads.iter().for_each(|name| hasher.bytes(name.as_bytes()));
    // a provider may declare other columns and have the same version; those of a program are facts of its head
    if matches!(stage.worker, Worker::Provider(_)) {
        hasher.number(stage.def.writes.len() as u64);
        for column in &stage.def.writes {
            hasher.bytes(column.name.as_bytes());
            hasher.bytes(column.ty.to_string().as_bytes());
        }
    }
    if let Some(filter) = &stage.filter {
        filter.facts(&mut hasher);
    }
    axes::key(&node.axes, hasher.finish())
}

/// Digest of everything that decides a table of the engine's own, the axes that it varies along among it.
pub fn table_key(node: &Node, table: &Table, inputs: &[Digest]) -> Digest {
    let mut hasher = Hasher::new("table/1");
    hasher.bytes(table.kind().as_bytes());
    table.facts(&mut hasher);
    inputs.iter().for_each(|input| hasher.digest(input));
    axes::key(&node.axes, hasher.finish())
}

/// The last run's table of a stage of grain row, whose rows need not be looked up one by one.
pub fn prior(name: &str, stage: &UnitStage, (store, memory): (&Store, &Memory)) -> Option<Prior> {
    let remembered = memory.stages.get(name)?;
    if !stage.def.is_row_wise() || remembered.units < FEW {
        return None;
    }
    store.prior(remembered)
}

impl<'a> Run<'a> {
    /// A table of the engine's own of those of its inputs that are there: others failed, and it may do without.
    pub(super) fn begin_without(&mut self, i: usize, node: &'a Node, table: &Table) -> Result<()> {
        let is_done = |need: &usize| matches!(self.states[*need], State::Done(_));
        let (there, missing): (Vec<usize>, Vec<usize>) = node.from.iter().partition(|need| is_done(need));
        let names: Vec<&str> = missing.iter().map(|&need| self.plan.nodes[need].name.as_str()).collect();
        let text = format!(
            "stage `{}` is put together without {} of its {} tables: {}",
            node.name,
            missing.len(),
            node.from.len(),
            names.join(", ")
        );
        self.emit(&Event::Warning { text });
        self.begin_table(i, node, table, &there)
    }

    /// A table of the engine's own: evaluated, unless nothing it is made `from` has changed.
    pub(super) fn begin_table(&mut self, i: usize, node: &'a Node, table: &Table, from: &[usize]) -> Result<()> {
        let inputs: Vec<Digest> = from.iter().map(|&from| self.done(from).digest).collect();
        let key = table_key(node, table, &inputs);
        // files may have changed without any fact of the recipe changing
        let known = if matches!(table, Table::Files(_)) { None } else { self.remembered(i, key)? };
        if let Some((_, done)) = known {
            self.set(i, State::Done(done));
            return Ok(());
        }
        let mut remarks = Vec::new();
        let evaluated = {
            let mut tables = Vec::new();
            for &from in from {
                match &self.states[from] {
                    State::Done(done) => tables.push(done.table()?),
                    _ => unreachable!("a stage begins when all it needs is done"),
                }
            }
            let table = table.evaluate(&tables, self.cache, &mut remarks);
            table.and_then(|table| axes::label(&node.axes, table))
        };
        for remark in remarks {
            self.emit(&Event::Warning { text: format!("stage `{}`: {remark}", node.name) });
        }
        match evaluated {
            Ok(manifest) => {
                let (table, rows) = (manifest.digest(), manifest.len());
                let remembered = Remembered {
                    key,
                    head: key,
                    table,
                    rows,
                    units: 0,
                    worth: 0.0,
                    bytes: 0,
                    blobs: None,
                    overrides: Vec::new(),
                };
                // one that lacks something is made again as soon as that is there
                self.settle(i, manifest, remembered, from.len() == node.from.len())
            }
            Err(error) => self.fail_whole(i, error),
        }
    }

    /// The table of the last run, if everything that decides it is the same and its files are all there.
    pub(super) fn remembered(&mut self, i: usize, key: Digest) -> Result<Option<(Remembered, Done)>> {
        let node = &self.plan.nodes[i];
        let Some(remembered) = self.memory.stages.get(&node.name).filter(|remembered| remembered.key == key) else {
            return Ok(None);
        };
        let path = self.store.table_path(&remembered.table);
        let writes_blobs = match &node.work {
            Work::Table(_) => false,
            Work::Units(stage) => stage.def.writes.iter().any(|column| column.ty == manifests::Type::Blob),
        };
        let done = Done { digest: remembered.table, rows: remembered.rows, table: OnceCell::new(), path };
        // one of another length was cut by a power failure
        let found = std::fs::metadata(&done.path).map(|meta| meta.len());
        if !found.is_ok_and(|bytes| remembered.bytes == 0 || bytes == remembered.bytes) {
            let _ = std::fs::remove_file(&done.path);
            return Ok(None);
        }
        if let Some(blobs) = &remembered.blobs {
            if !blobs
                .iter()
                .all(|(digest, len)| self.cache.has(&Blob { digest: *digest, len: *len, ext: String::new() }))
            {
                return Ok(None);
            }
        } else if writes_blobs {
            // only what is worked on is read closely
            let Ok(table) = manifests::read_ipc(&done.path) else {
                let _ = std::fs::remove_file(&done.path);
                return Ok(None);
            };
            let Work::Units(stage) = &node.work else { return Ok(None) };
            for column in stage.def.writes.iter().filter(|column| column.ty == manifests::Type::Blob) {
                if !self.cache.has_all(&table, &column.name)? {
                    return Ok(None);
                }
            }
        }
        self.tallies[i].table = Some(remembered.table);
        // that of this run as well
        let remembered = Remembered { overrides: self.options.overrides.clone(), ..remembered.clone() };
        self.used.stages.insert(node.name.clone(), remembered.clone());
        Ok(Some((remembered, done)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_link_to_each_other_are_walked_once() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
        for name in names {
            std::fs::create_dir_all(data.join(name)).unwrap();
            std::fs::write(data.join(name).join("file"), name).unwrap();
            for other in names.iter().filter(|other| **other != name) {
                let target = Path::new("..").join(other);
                std::os::unix::fs::symlink(target, data.join(name).join(format!("to-{other}"))).unwrap();
            }
        }
        let mut cache = Cache::open(&dir.path().join("workspace"), "test").unwrap();
        let before = folder_digest(&data, &[], &mut cache).unwrap();
        assert_eq!(folder_digest(&data, &[], &mut cache).unwrap(), before);
        // each file counts, and so does where a link leads
        std::fs::write(data.join("l/file"), "another").unwrap();
        assert_ne!(folder_digest(&data, &[], &mut cache).unwrap(), before);
        std::fs::write(data.join("l/file"), "l").unwrap();
        assert_eq!(folder_digest(&data, &[], &mut cache).unwrap(), before);
        std::fs::remove_file(data.join("l/to-a")).unwrap();
        std::os::unix::fs::symlink("../b", data.join("l/to-a")).unwrap();
        assert_ne!(folder_digest(&data, &[], &mut cache).unwrap(), before);
    }

    #[test]
    fn what_a_run_and_git_write_is_no_code() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        };
        write("lib/a.py");
        let mut cache = Cache::open(&dir.path().join("lib/.effigy"), "test").unwrap();
        let folder = dir.path().join("lib/.");
        let mut digest = |passed_over: &[&str]| folder_digest(&folder, passed_over, &mut cache).unwrap();
        let (code, data) = (digest(&[".git"]), digest(&[]));
        assert_eq!(code, data);
        write("lib/.effigy/records/more");
        write("lib/.git/HEAD");
        write("lib/sub/.git");
        assert_eq!(digest(&[".git"]), code);
        let with_git = digest(&[]);
        assert_ne!(with_git, data, "among data it is a file like others");
        write("lib/.effigy/records/still more");
        assert_eq!(digest(&[]), with_git);
        write("lib/sub/b.py");
        assert_ne!(digest(&[".git"]), code);
    }
}
