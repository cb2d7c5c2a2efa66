//! What a stage of a Rust provider looks like from inside: units of rows in, rows out.

use crate::{Event, OF, STOP, STOPPED, StageDef, TaskParams, UNIT};
use anyhow::{Context, Result, bail};
use manifests::{Manifest, Value};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A stage, built for one set of parameters and constants. It stays in a worker between tasks, so weights load once.
pub trait Stage {
    /// One list of output rows for each unit, in order. A unit's result must not depend on its neighbours in the batch.
    ///
    /// # Errors
    /// Any; all units of the batch are then tried once more, each alone.
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>>;
}

/// The output rows of one unit.
pub type Rows = Vec<OutRow>;

/// A table as a stage sees it: blobs are paths.
#[derive(Clone, Debug)]
pub struct Table(Manifest);

impl Table {
    pub(crate) fn new(manifest: Manifest) -> Table {
        Table(manifest)
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.0.len()).map(|at| Row { table: &self.0, at })
    }

    /// The only row.
    ///
    /// # Errors
    /// If there is none, or there are more.
    pub fn only(&self) -> Result<Row<'_>> {
        match self.0.len() {
            1 => Ok(Row { table: &self.0, at: 0 }),
            n => bail!("expected one row, found {n}"),
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One row, projected to the columns the stage declares.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    table: &'a Manifest,
    at: usize,
}

impl Row<'_> {
    fn value(&self, column: &str) -> Result<Value> {
        Ok(self.table.value(self.at, column)?)
    }

    /// Whether the column is there and holds something.
    pub fn has(&self, column: &str) -> bool {
        self.value(column).is_ok_and(|value| value != Value::Null)
    }

    /// A truth value.
    pub fn bool(&self, column: &str) -> Result<bool> {
        match self.value(column)? {
            Value::Bool(value) => Ok(value),
            other => bail!("column `{column}` holds {other:?}, expected a bool"),
        }
    }

    /// An integer.
    pub fn i64(&self, column: &str) -> Result<i64> {
        match self.value(column)? {
            Value::I64(value) => Ok(value),
            other => bail!("column `{column}` holds {other:?}, expected an i64"),
        }
    }

    /// A float.
    pub fn f64(&self, column: &str) -> Result<f64> {
        match self.value(column)? {
            Value::F64(value) => Ok(value),
            other => bail!("column `{column}` holds {other:?}, expected an f64"),
        }
    }

    /// A text.
    pub fn str(&self, column: &str) -> Result<String> {
        match self.value(column)? {
            Value::Str(value) => Ok(value),
            other => bail!("column `{column}` holds {other:?}, expected a str"),
        }
    }

    /// Floats of any width.
    pub fn floats(&self, column: &str) -> Result<Vec<f64>> {
        match self.value(column)? {
            Value::Floats(value) => Ok(value),
            other => bail!("column `{column}` holds {other:?}, expected floats"),
        }
    }

    /// Exactly `N` floats.
    pub fn array<const N: usize>(&self, column: &str) -> Result<[f64; N]> {
        let floats = self.floats(column)?;
        let found = floats.len();
        floats.try_into().ok().with_context(|| format!("column `{column}` holds {found} floats, expected {N}"))
    }

    /// The path of a blob's file.
    pub fn path(&self, column: &str) -> Result<PathBuf> {
        match self.value(column)? {
            Value::Str(value) => Ok(value.into()),
            other => bail!("column `{column}` holds {other:?}, expected a file"),
        }
    }

    /// The path of a blob's file, if the column is there and holds one.
    pub fn maybe_path(&self, column: &str) -> Result<Option<PathBuf>> {
        if self.has(column) { self.path(column).map(Some) } else { Ok(None) }
    }

    /// A text, or a number as text: for captions and group names.
    pub fn text(&self, column: &str) -> Result<String> {
        Ok(match self.value(column)? {
            Value::Str(value) => value,
            Value::I64(value) => value.to_string(),
            other => bail!("column `{column}` holds {other:?}, expected text or an integer"),
        })
    }
}

/// The rows that are worked on together.
#[derive(Clone, Debug)]
pub struct Unit<'a> {
    table: &'a Manifest,
    rows: Vec<usize>,
    /// Index of the unit in its task.
    pub index: usize,
    /// The unit's key, hex.
    pub key: &'a str,
}

impl<'a> Unit<'a> {
    /// The unit's rows.
    pub fn rows(&self) -> Vec<Row<'a>> {
        self.rows.iter().map(|&at| Row { table: self.table, at }).collect()
    }

    /// The one row of a unit of grain row.
    ///
    /// # Panics
    /// If the unit has no rows, which only a source's has.
    pub fn row(&self) -> Row<'a> {
        Row { table: self.table, at: self.rows[0] }
    }

    /// A seed drawn from the unit's key: the same for the same work, wherever and whenever it is done.
    pub fn seed(&self) -> u64 {
        u64::from_str_radix(&self.key[..16], 16).expect("keys are hex digits")
    }

    /// Cuts a task's table into units.
    pub(crate) fn cut(table: &'a Manifest, keys: &'a [String]) -> Result<Vec<Unit<'a>>> {
        let mut units: Vec<Unit<'a>> =
            keys.iter().enumerate().map(|(index, key)| Unit { table, rows: Vec::new(), index, key }).collect();
        if table.is_empty() {
            return Ok(units);
        }
        for (at, unit) in table.column(UNIT)?.iter().enumerate() {
            match unit {
                Value::I64(unit) if (0..keys.len() as i64).contains(unit) => units[*unit as usize].rows.push(at),
                other => bail!("in.arrow, row {at}: `{UNIT}` is {other:?}, expected 0 to {}", keys.len() - 1),
            }
        }
        Ok(units)
    }
}

/// A row that a stage puts out: new columns only.
#[derive(Clone, Debug, Default)]
pub struct OutRow {
    /// Which row of the unit it extends; in grain row that is the only one, and need not be said.
    pub of: Option<usize>,
    /// Its columns. A blob is the path of a file (see [`Cx::file`]) as text.
    pub values: BTreeMap<String, Value>,
}

impl OutRow {
    /// A row that stands alone (or, in grain row, extends the only one).
    pub fn new() -> OutRow {
        OutRow::default()
    }

    /// A row that extends row `of` of its unit.
    pub fn of(of: usize) -> OutRow {
        OutRow { of: Some(of), values: BTreeMap::new() }
    }

    /// Sets a column.
    pub fn set(mut self, column: &str, value: Value) -> OutRow {
        self.values.insert(column.into(), value);
        self
    }

    /// Sets an integer column.
    pub fn i64(self, column: &str, value: impl TryInto<i64>) -> OutRow {
        self.set(column, value.try_into().map_or(Value::Null, Value::I64))
    }

    /// Sets a float column.
    pub fn f64(self, column: &str, value: impl Into<f64>) -> OutRow {
        self.set(column, Value::F64(value.into()))
    }

    /// Sets a float column, or leaves it empty.
    pub fn maybe_f64(self, column: &str, value: Option<f64>) -> OutRow {
        self.set(column, value.map_or(Value::Null, Value::F64))
    }

    /// Sets a column of truth values.
    pub fn bool(self, column: &str, value: bool) -> OutRow {
        self.set(column, Value::Bool(value))
    }

    /// Sets a text column.
    pub fn str(self, column: &str, value: impl Into<String>) -> OutRow {
        self.set(column, Value::Str(value.into()))
    }

    /// Sets a column of floats.
    pub fn floats(self, column: &str, values: impl IntoIterator<Item = impl Into<f64>>) -> OutRow {
        self.set(column, Value::Floats(values.into_iter().map(Into::into).collect()))
    }

    /// Sets a blob column to the content of a file.
    pub fn file(self, column: &str, path: &Path) -> OutRow {
        self.set(column, Value::Str(path.to_string_lossy().into_owned()))
    }
}

/// What a stage may use besides its rows. Time, randomness and places come only through this.
pub struct Cx<'a> {
    /// Threads the stage may use.
    pub threads: usize,
    pub(crate) dir: &'a Path,
    pub(crate) task: &'a TaskParams,
    pub(crate) with: &'a BTreeMap<String, Table>,
    pub(crate) events: &'a (dyn Fn(&Event) + Sync),
}

impl Cx<'_> {
    /// The constant of this name.
    ///
    /// # Errors
    /// If the recipe gives none.
    pub fn with(&self, name: &str) -> Result<&Table> {
        self.with.get(name).with_context(|| format!("the recipe gives no `with: {name}:`"))
    }

    /// The constant of this name, if the recipe gives one.
    pub fn maybe_with(&self, name: &str) -> Option<&Table> {
        self.with.get(name)
    }

    /// A path for a file that a unit puts out; its name is unique in the task.
    pub fn file(&self, unit: &Unit<'_>, name: &str) -> PathBuf {
        self.dir.join("out").join(format!("{:05}_{name}", unit.index))
    }

    /// The folder that survives a kill.
    ///
    /// # Errors
    /// If the engine gives none: it does so for units of grain group and whole.
    pub fn scratch(&self) -> Result<&Path> {
        let scratch = self.task.scratch.as_deref().context("the engine gave this task no scratch folder")?;
        std::fs::create_dir_all(scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        Ok(scratch)
    }

    /// Says how far a long unit is.
    pub fn progress(&self, done: usize, total: usize, note: impl Into<String>) {
        (self.events)(&Event::Progress { done: done as u64, total: total as u64, note: note.into() });
    }

    /// Ends a long unit that should stop and has left a checkpoint for that.
    ///
    /// # Errors
    /// If it is to `stop`. It is begun again, and goes on from the checkpoint.
    pub fn stop_if(&self, stop: bool) -> Result<()> {
        if stop {
            bail!("{STOPPED} after a checkpoint, as it was told to\nhint: run again, and it goes on from there");
        }
        Ok(())
    }

    /// Whether the task should leave a checkpoint and stop.
    pub fn should_stop(&self) -> bool {
        self.dir.join(STOP).exists()
    }

    /// A remark that whoever runs should see, and not only who reads the log: something was guessed or left out.
    pub fn warn(&self, text: &str) {
        self.log(&format!("warning: {text}"));
    }

    /// A remark for the task's log.
    pub fn log(&self, text: &str) {
        // standard error is the log; a closed one is no reason to stop work
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// A stage in the provider's registry.
pub struct Registration {
    /// Its description, without the schema of its parameters.
    pub def: fn() -> StageDef,
    /// The schema of its parameters.
    pub schema: fn() -> serde_json::Value,
    /// Builds it.
    pub build: fn(serde_json::Value, &Cx<'_>) -> Result<Box<dyn Stage>>,
    /// Looks at what its parameters name, for the verb `check`; an error is one more thing that is not well.
    pub check: Option<fn(serde_json::Value) -> Result<Vec<String>>>,
}

inventory::collect!(Registration);

/// Puts a stage into the provider's registry: the type of its parameters (`Deserialize` + `JsonSchema`), a function
/// that describes it, and a function that builds it from parameters and [`Cx`]; where the stage can be checked, a
/// function from parameters to sentences about what they name.
#[macro_export]
macro_rules! register {
    ($params:ty, $def:expr, $build:expr) => {
        $crate::register!(@ $params, $def, $build, None);
    };
    ($params:ty, $def:expr, $build:expr, $check:expr) => {
        $crate::register!(@ $params, $def, $build, Some(|params| {
            let params: $params = $crate::serde_json::from_value(params)?;
            $check(params)
        }));
    };
    (@ $params:ty, $def:expr, $build:expr, $check:expr) => {
        $crate::inventory::submit! {
            $crate::Registration {
                def: $def,
                schema: || {
                    $crate::serde_json::to_value($crate::schemars::schema_for!($params))
                        .expect("a schema is a JSON value")
                },
                build: |params, cx| {
                    let params: $params = $crate::serde_json::from_value(params)?;
                    let stage = ($build)(params, cx)?;
                    Ok(Box::new(stage))
                },
                check: $check,
            }
        }
    };
}

/// Checks a column name a stage puts out against what it declares.
pub(crate) fn check_out_row(def: &StageDef, row: &OutRow) -> Result<()> {
    if let Some(name) = row.values.keys().find(|name| !def.writes.iter().any(|column| column.name == **name)) {
        bail!(
            "stage `{}` put out a column `{name}` that it does not declare ({UNIT} and {OF} are the engine's)",
            def.kind
        );
    }
    Ok(())
}
