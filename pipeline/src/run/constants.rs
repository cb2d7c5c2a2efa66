//! The constants of stages (`with:`) as files that workers read. Variants of a stage mostly have the same ones, and a
//! table is written once for all providers' stages that read it. Knows no units.

use crate::plan::Node;
use crate::run::tables::{named_files, project};
use crate::stage::{UnitStage, Worker};
use crate::task::with_paths;
use anyhow::{Context, Result};
use cache::Cache;
use manifests::{Digest, Manifest};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

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

/// All that were written, below a folder of theirs.
pub struct Constants {
    dir: PathBuf,
    /// By digest and columns, in their order: the table's file, and the files outside of the workspace that it names.
    written: HashMap<(Digest, Vec<String>), Written>,
}

type Written = (PathBuf, Vec<Digest>);

impl Constants {
    /// None as yet; `dir` is made when there is something to write.
    pub fn new(dir: PathBuf) -> Constants {
        Constants { dir, written: HashMap::new() }
    }

    /// Writes what a stage needs of them.
    ///
    /// # Errors
    /// If a constant lacks a column, or the files cannot be written.
    pub fn of<'t>(
        &mut self,
        (i, node): (usize, &Node),
        stage: &UnitStage,
        cache: &Cache,
        table: &dyn Fn(usize) -> Result<&'t Manifest>,
    ) -> Result<With> {
        let mut with = With::default();
        for ((name, need), columns) in node.with.iter().zip(&stage.with_reads) {
            let table = project(table(*need)?, columns, stage.constant(name))?;
            let (path, outside) = match stage.worker {
                Worker::Provider(_) => self.shared(&table, cache)?,
                // some programs put what they make in the place of what they read: nobody else's
                Worker::Command(_) => write(&self.dir.join(i.to_string()), name, &table, cache)?,
            };
            with.outside.extend(outside);
            with.files.insert(name.clone(), path);
        }
        for (_, path) in named_files(stage) {
            with.read.extend(cache.referred_below(&path));
        }
        Ok(with)
    }

    fn shared(&mut self, table: &Manifest, cache: &Cache) -> Result<Written> {
        // the order of columns is no content, but somebody may go by it
        let columns: Vec<String> = table.schema().names().iter().map(|name| name.to_string()).collect();
        let key = (table.digest(), columns);
        if let Some(known) = self.written.get(&key) {
            return Ok(known.clone());
        }
        let name = format!("shared-{}", self.written.len());
        let written = write(&self.dir, &name, table, cache)?;
        Ok(self.written.entry(key).or_insert(written).clone())
    }
}

fn write(dir: &Path, name: &str, table: &Manifest, cache: &Cache) -> Result<Written> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (table, outside) = with_paths(table, dir, cache, None)?;
    let path = dir.join(format!("{name}.arrow"));
    manifests::write_ipc(&path, &table)?;
    Ok((path, outside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifests::{Schema, Type, Value, read_ipc};

    #[test]
    fn equal_tables_are_one_file_unless_their_columns_stand_otherwise() {
        let space = tempfile::tempdir().unwrap();
        let cache = Cache::open(&space.path().join("ws"), "test").unwrap();
        let mut constants = Constants::new(space.path().join("with"));
        let schema = Schema::new([("a", Type::I64), ("b", Type::I64)]).unwrap();
        let one = Manifest::from_columns(schema, 1, &[vec![Value::I64(1)], vec![Value::I64(2)]]).unwrap();
        let other = one.select(&["b", "a"]).unwrap();
        let paths = [&one, &other, &one].map(|table| constants.shared(table, &cache).unwrap().0);
        assert!(paths[0] == paths[2] && paths[0] != paths[1]);
        let names = |path| read_ipc(path).unwrap().schema().names().join(" ");
        assert_eq!([names(&paths[0]), names(&paths[1])], ["a b", "b a"]);
    }
}
