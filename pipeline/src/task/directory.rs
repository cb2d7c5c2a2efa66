//! What lies in a task directory and under which names, whoever makes one: a run, the viewer, the check of a provider.
//! Knows neither where files of rows are nor what is put out.

use anyhow::{Context, Result};
use manifests::{Manifest, Schema, Type, Value, write_ipc};
use protocol::{TaskParams, UNIT};
use std::path::Path;

/// Writes the directory of a worker's task: its parameters, the rows of its units, of which each has so many, `out/`,
/// and a folder for constants if there are any.
///
/// # Errors
/// If it cannot be written.
pub fn write(dir: &Path, task: &TaskParams, rows: &Manifest, sizes: &[usize], has_with: bool) -> Result<()> {
    for folder in ["out", "with"].into_iter().take(1 + usize::from(has_with)) {
        std::fs::create_dir_all(dir.join(folder)).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    write_rows(dir, rows, sizes)?;
    write_params(dir, &serde_json::to_vec(task)?)
}

/// Writes a task's parameters alone.
pub fn write_params(dir: &Path, json: &[u8]) -> Result<()> {
    let path = dir.join("params.json");
    std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes the rows of a task's units alone.
pub fn write_rows(dir: &Path, rows: &Manifest, sizes: &[usize]) -> Result<()> {
    let unit = sizes.iter().enumerate().flat_map(|(unit, size)| std::iter::repeat_n(Value::I64(unit as i64), *size));
    let unit = Manifest::from_columns(Schema::new([(UNIT, Type::I64)])?, rows.len(), &[unit.collect()])?;
    Ok(write_ipc(&dir.join("in.arrow"), &unit.beside(rows)?)?)
}
