//! The constants of stages (`with:`) as files that workers read. Variants of a stage mostly have the same ones, and a table is written
//! once however many of them read it. Knows no units.

use crate::plan::Node;
use crate::run::tables::{named_files, project};
use crate::stage::UnitStage;
use crate::task::{Links, with_paths};
use anyhow::{Context, Result};
use cache::Cache;
use manifests::{Digest, Manifest};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// A stage's constants as files.
#[derive(Default)]
pub struct With {
    /// The Arrow file of each.
    pub files: BTreeMap<String, PathBuf>,
    /// Files outside of the workspace that they name.
    pub outside: Vec<Digest>,
    /// Files that its workers read at their own paths: those of parameters, and code.
    pub read: Vec<PathBuf>,
}

/// All that were written, in a folder of theirs.
pub struct Constants {
    dir: PathBuf,
    /// By the table's digest: its file, and the files outside of the workspace that it names.
    written: HashMap<Digest, (PathBuf, Vec<Digest>)>,
}

impl Constants {
    /// Those of a run; the folder is made when there is one.
    pub fn new(dir: PathBuf) -> Constants {
        Constants { dir, written: HashMap::new() }
    }

    /// Writes what a stage needs of them.
    ///
    /// # Errors
    /// If a constant lacks a column, or the files cannot be written.
    pub fn of<'t>(
        &mut self,
        node: &Node,
        stage: &UnitStage,
        cache: &Cache,
        table: &dyn Fn(usize) -> Result<&'t Manifest>,
    ) -> Result<With> {
        let mut with = With::default();
        for ((name, need), columns) in node.with.iter().zip(&stage.with_reads) {
            let (path, outside) = self.write(&project(table(*need)?, columns, stage.constant(name))?, cache)?;
            with.outside.extend(outside);
            with.files.insert(name.clone(), path);
        }
        for (_, path) in named_files(stage) {
            with.read.extend(cache.referred_below(&path));
        }
        Ok(with)
    }

    fn write(&mut self, table: &Manifest, cache: &Cache) -> Result<(PathBuf, Vec<Digest>)> {
        let digest = table.digest();
        if let Some(known) = self.written.get(&digest) {
            return Ok(known.clone());
        }
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        let (table, outside) = with_paths(table, &self.dir, Links::Shared, cache)?;
        let path = self.dir.join(format!("{digest}.arrow"));
        manifests::write_ipc(&path, &table)?;
        Ok(self.written.entry(digest).or_insert((path, outside)).clone())
    }
}
