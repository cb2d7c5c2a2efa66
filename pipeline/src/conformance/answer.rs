//! Judging what a worker said of a task and what it left in its directory. Tables are read as a run reads them. Starts
//! nothing.

use super::talk::{End, Talk, said as words};
use super::{Fault, fault};
use crate::hints::hint_of;
use crate::run::sentence;
use crate::stage::{UnitStage, Worker};
use crate::task::{self, is_plain};
use cache::Cache;
use manifests::{Manifest, Type, Value, read_ipc};
use protocol::{Event, StageDef, UNIT};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// What became of a unit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// Its rows, encoded canonically, files by content.
    Rows(Vec<Vec<u8>>),
    /// Why it failed.
    Failed(String),
}

/// Whether what was said of a task is what a worker may say.
pub(crate) fn said(talk: &Talk) -> Result<(), Fault> {
    let again = "say `failed` for what fails, then `done`, and go on with the next line of standard input";
    match &talk.end {
        End::Done => {}
        End::Gone(Some(status)) => {
            return Err(fault(format!("it ended in the middle of a task ({status}){}", words(&talk.words)), again));
        }
        End::Gone(None) => {
            let hint = "leave standard output open until the end: the engine hears of tasks through it";
            return Err(fault("it closed its standard output in the middle of a task", hint));
        }
        End::Silent(limit) => {
            let message = format!("it did not say `done` within {} s{}", limit.as_secs_f64(), words(&talk.words));
            let hint = "say `{\"event\":\"done\"}` when a task is over, and flush standard output after each line";
            return Err(fault(message, hint));
        }
    }
    if let Some(stray) = talk.strays.first() {
        let line: String = stray.chars().take(120).collect();
        let message = format!("it printed a line that is no event: `{}`", line.escape_debug());
        return Err(fault(
            message,
            "standard output is for events, each a JSON object on a line; print to standard error",
        ));
    }
    for event in &talk.events {
        match event {
            Event::Progress { done, total, .. } if done > total => {
                let message = format!("it said that {done} of {total} are done");
                return Err(fault(message, "`done` counts up to `total`"));
            }
            Event::Failed { error, .. } if error.trim().is_empty() => {
                return Err(fault("it said `failed` without an error", "`error` is a sentence that a user can read"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What became of each unit of a task. `inputs` are files and folders that it was given.
pub(crate) fn of_units(
    talk: &Talk,
    dir: &Path,
    def: &StageDef,
    sizes: &[usize],
    inputs: &[PathBuf],
    cache: &Cache,
) -> Result<Vec<Answer>, Fault> {
    said(talk)?;
    let stage = stage(def);
    let mut answers: BTreeMap<usize, Answer> = BTreeMap::new();
    for file in talk.parts() {
        let path = dir.join(file);
        if !is_plain(file) || !path.is_file() {
            let message = format!("it delivered the part `{file}`, which is no file of its task directory");
            let hint = "write it into the task directory under another name, rename it, then say its file name";
            return Err(fault(message, hint));
        }
        // a table that cannot be read is told of by whoever reads it next
        if let Ok(table) = read_ipc(&path) {
            within(&table, dir, def, inputs)?;
            let known = |value: &Value| match value {
                Value::I64(unit) => usize::try_from(*unit).ok().filter(|unit| answers.contains_key(unit)),
                _ => None,
            };
            if let Some(unit) = table.column(UNIT).unwrap_or_default().iter().find_map(known) {
                let hint = "all rows of a unit belong into one part: what was delivered is final";
                return Err(fault(format!("it delivered unit {unit} twice"), hint));
            }
        }
        let outputs = task::collect(dir, file, &stage, sizes, cache).map_err(|error| {
            let hint = hint_of(&error).unwrap_or_else(|| "see the task directory in ARCHITECTURE.md".into());
            (sentence(&error), hint)
        })?;
        for (unit, output) in outputs {
            let encode = |row: &cache::OutRow| {
                let mut bytes = Vec::new();
                Value::I64(row.of.map_or(-1, i64::from)).encode(&mut bytes);
                row.values.iter().for_each(|value| value.encode(&mut bytes));
                bytes
            };
            let rows = output.rows.iter().map(encode).collect();
            answers.insert(unit, Answer::Rows(rows));
        }
    }
    for (unit, error) in talk.failures() {
        match unit {
            Some(unit) if unit >= sizes.len() => {
                let message = format!("it said that unit {unit} failed, but the task has {}", sizes.len());
                return Err(fault(message, "a unit is named by its `_unit`, an index into `keys`"));
            }
            Some(unit) => {
                answers.entry(unit).or_insert_with(|| Answer::Failed(error.into()));
            }
            None => (0..sizes.len()).for_each(|unit| {
                answers.entry(unit).or_insert_with(|| Answer::Failed(error.into()));
            }),
        }
    }
    if let Some(unit) = (0..sizes.len()).find(|unit| !answers.contains_key(unit)) {
        let message = format!("it said `done`, but neither delivered unit {unit} nor said that it failed");
        let hint = "a unit that puts out no rows has one row with `_of` -1; one that cannot be done is `failed`";
        return Err(fault(message, hint));
    }
    Ok(answers.into_values().collect())
}

/// Whether the files that a delivered table names lie in the task directory, or are among those that the task was
/// given.
fn within(table: &Manifest, dir: &Path, def: &StageDef, inputs: &[PathBuf]) -> Result<(), Fault> {
    for column in def.writes.iter().filter(|column| column.ty == Type::Blob) {
        for value in table.column(&column.name).unwrap_or_default() {
            let Value::Str(path) = value else { continue };
            let path = dir.join(path);
            let climbs = path.components().any(|part| part == Component::ParentDir);
            let known = path.starts_with(dir) || inputs.iter().any(|input| path.starts_with(input));
            if climbs || !known {
                let message =
                    format!("column `{}` names a file outside of the task directory: {}", column.name, path.display());
                return Err(fault(
                    message,
                    "write files into the task directory's `out`; what lies elsewhere may change",
                ));
            }
        }
    }
    Ok(())
}

/// The stage as a run would have it, as far as reading its tables needs it.
fn stage(def: &StageDef) -> UnitStage {
    UnitStage {
        def: def.clone(),
        worker: Worker::Provider(0),
        provider: None,
        by: Vec::new(),
        filter: None,
        reads: Vec::new(),
        with_reads: Vec::new(),
        params: BTreeMap::new(),
        files: Vec::new(),
        allow_failures: 0.0,
        retries: 0,
        timeout: None,
        place: None,
        limit_mb: None,
        warnings: Vec::new(),
    }
}
