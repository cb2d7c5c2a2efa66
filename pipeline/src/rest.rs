//! A run at rest: everything that a run with nothing to do has looked at. While all of it is as it was, the next run
//! has nothing to do either, and nobody reads the recipe, its memory or a table to say so.
//!
//! It can be thrown away: then the run looks at everything again. Knows paths and fingerprints, not what they are for.

use crate::memory::{self, Memory, Store};
use crate::plan::{Plan, Work};
use crate::run::Done;
use anyhow::{Context, Result, ensure};
use cache::layout;
use cache::{Blobs, Cache, Fingerprint};
use manifests::{Digest, Type, Value};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What a recipe at rest looks like.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rest {
    /// Files and folders outside of the workspace, and `None` for those that were not there.
    pub seen: Vec<(PathBuf, Option<Fingerprint>)>,
    /// Blobs of the workspace by digest, with their lengths.
    pub blobs: Vec<(Digest, u64)>,
    /// The same of tables.
    pub tables: Vec<(Digest, u64)>,
    /// The recipe's name.
    pub recipe: String,
    /// Name, units and rows of each stage, in the order in which they were found to be done.
    pub stages: Vec<(String, usize, usize)>,
    /// The page of the report, and the file that says what it shows with that file's digest.
    pub report: Option<(PathBuf, PathBuf, Digest)>,
}

/// How a run was called for, and by which program: it rests for the same call alone.
#[derive(Serialize)]
pub struct Call<'a> {
    /// The program, and what it was made of.
    pub program: (PathBuf, Fingerprint, &'a str),
    /// The recipe, absolute.
    pub recipe: &'a Path,
    /// Parameters, fields and variants of the command line.
    pub overrides: [&'a [String]; 3],
    /// Folders that decide where files are found: data packages, programs, the report.
    pub folders: (PathBuf, Vec<PathBuf>, PathBuf),
}

impl Call<'_> {
    fn digest(&self) -> Result<Digest> {
        Ok(Digest::of_bytes(&serde_json::to_vec(self)?))
    }
}

/// The file: whose rest it is, what it is, and a digest of that, for it is not brought to the disk.
#[derive(Serialize, Deserialize)]
struct Kept<R> {
    call: Digest,
    rest: R,
}

impl Rest {
    /// What a run looked at that has done everything, but for what the command line looks at; `None` if nobody can
    /// tell.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn of(plan: &Plan, memory: &Memory, done: &[Option<Done>], cache: &Cache) -> Result<Option<Rest>> {
        let mut rest = Rest { recipe: plan.spec.name.clone(), ..Rest::default() };
        for (node, done) in plan.nodes.iter().zip(done) {
            let (Some(remembered), Some(done)) = (memory.stages.get(&node.name), done) else { return Ok(None) };
            rest.stages.push((node.name.clone(), remembered.units, remembered.rows));
            rest.tables.push((remembered.table, remembered.bytes));
            let Work::Units(stage) = &node.work else { continue };
            if !stage.warnings.is_empty() || remembered.bytes == 0 {
                return Ok(None);
            }
            if let Some(blobs) = &remembered.blobs {
                rest.blobs.extend(blobs);
                continue;
            }
            for column in stage.def.writes.iter().filter(|column| column.ty == Type::Blob) {
                rest.blobs.extend(done.table()?.column(&column.name)?.into_iter().filter_map(|value| match value {
                    Value::Blob(blob) => Some((blob.digest, blob.len)),
                    _ => None,
                }));
            }
        }
        // a file of the user's that a stage handed on lies where it was seen
        rest.blobs.retain(|(digest, _)| !cache.is_referred(digest));
        for list in [&mut rest.blobs, &mut rest.tables] {
            list.sort_unstable();
            list.dedup();
        }
        rest.seen = cache.seen().map(|(path, seen)| (path.to_path_buf(), seen)).collect();
        // files of a folder beside each other
        rest.seen.sort_unstable_by(|a, b| a.0.parent().cmp(&b.0.parent()));
        Ok(Some(rest))
    }

    /// Keeps it, unless something was seen so early that it may have changed since without a trace, or has a name that
    /// is no text. `now`: when the run began ([`Fingerprint::now`]).
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&self, store: &Store, profile: Option<&str>, call: &Call<'_>, now: i64) -> Result<()> {
        if self.seen.iter().any(|(_, seen)| seen.is_some_and(|seen| !seen.is_settled(now))) {
            return Ok(());
        }
        // a path that is no text cannot be written down: then the next run looks at everything
        let text = call.digest().and_then(|call| Ok(serde_json::to_vec(&Kept { call, rest: self })?));
        let Ok(text) = text else { return Ok(()) };
        let digest = Digest::of_bytes(&text);
        memory::write(&store.rest_path(call.recipe, profile), &[&digest.0, text.as_slice()].concat())
    }

    /// What was kept for this call, if all of it is as it was: then it was of use now.
    pub fn find(root: &Path, profile: Option<&str>, call: &Call<'_>) -> Option<Rest> {
        let bytes = std::fs::read(Store::new(root).rest_path(call.recipe, profile)).ok()?;
        let (digest, text) = bytes.split_at_checked(32)?;
        if Digest::of_bytes(text).0 != digest {
            return None;
        }
        let kept: Kept<Rest> = serde_json::from_slice(text).ok()?;
        if kept.call != call.digest().ok()? {
            return None;
        }
        kept.rest.holds(root).ok()?;
        Store::new(root).touch(call.recipe, profile);
        Some(kept.rest)
    }

    fn holds(&self, root: &Path) -> Result<()> {
        let mut folder: (&Path, Option<Folder>) = (Path::new(""), None);
        for (path, seen) in &self.seen {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                ensure!(Fingerprint::of(path).ok() == *seen, "{} has changed", path.display());
                continue;
            };
            if folder.0 != parent {
                folder = (parent, Folder::open(parent).ok());
            }
            let found = folder.1.as_ref().and_then(|folder| folder.fingerprint(name));
            ensure!(found == *seen, "{} has changed", path.display());
        }
        if let Some((page, mark, digest)) = &self.report {
            ensure!(crate::report::is_whole(page), "{} is gone, or what belongs to it", page.display());
            ensure!(Digest::of_bytes(&std::fs::read(mark)?) == *digest, "{} has changed", mark.display());
        }
        let blobs = Folder::open(&root.join(layout::BLOBS))?;
        self.blobs.iter().try_for_each(|(digest, len)| blobs.holds(&Blobs::name(digest), *len))?;
        let tables = Folder::open(&root.join(layout::TABLES))?;
        self.tables.iter().try_for_each(|(digest, len)| tables.holds(&Store::table_name(digest), *len))
    }
}

/// A folder in which many files are looked for: names relative to it are found sooner than whole paths.
struct Folder(OwnedFd);

impl Folder {
    fn open(path: &Path) -> Result<Folder> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, path, flags, Mode::empty());
        Ok(Folder(folder.with_context(|| format!("cannot open {}", path.display()))?))
    }

    /// The fingerprint of a file in it; `None` if there is no such file.
    fn fingerprint(&self, name: &OsStr) -> Option<Fingerprint> {
        Some(Fingerprint::from(&rustix::fs::statat(&self.0, name, AtFlags::empty()).ok()?))
    }

    fn holds(&self, name: &str, len: u64) -> Result<()> {
        let found = rustix::fs::statat(&self.0, name, AtFlags::empty())?;
        ensure!(found.st_size as u64 == len, "{name} was cut");
        Ok(())
    }
}
