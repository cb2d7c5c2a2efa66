//! Stages on a task at a time: a provider's worker that is kept, a folder for its tasks, and rows in and out. Knows no
//! stage.

use super::asked::{Answered, Refusal, missing};
use super::site::Site;
use crate::conformance::talk::{End, Worker};
use crate::provider::{Candidate, ask_known};
use crate::task;
use anyhow::{Context, Result, anyhow};
use manifests::{Blob, Digest, Manifest, Schema, Type, Value, read_ipc, write_ipc};
use protocol::{Description, Grain, StageDef, TaskParams};
use serde_json::{Map, Value as Json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a task of the viewer may take.
const WITHIN: Duration = Duration::from_secs(300);

/// Where tasks of a kind are done, one after the other.
pub struct Desk {
    folder: PathBuf,
    provider: Option<Candidate>,
    memory: PathBuf,
    description: Option<Description>,
    worker: Option<Worker>,
    next: usize,
}

/// A task: rows for a stage.
pub struct Task<'a> {
    /// The stage's kind.
    pub kind: &'a str,
    /// Its parameters; what is absent has its default.
    pub params: Map<String, Json>,
    /// Its constants, as tables of the workspace.
    pub with: &'a [(&'a str, Digest)],
    /// Its rows; files are paths. One unit.
    pub rows: Manifest,
    /// What tells the built stage from others of its kind besides its parameters.
    pub stage: String,
}

/// What came out: rows, and the folder that paths are relative to.
pub struct Done {
    /// The rows.
    pub table: Manifest,
    dir: PathBuf,
}

impl Done {
    /// Where the file of a cell lies, until the next task.
    ///
    /// # Errors
    /// If there is none.
    pub fn file(&self, row: usize, column: &str) -> Answered<PathBuf> {
        match self.table.value(row, column) {
            Ok(Value::Str(path)) => Ok(self.dir.join(path)),
            _ => Err(missing(format!("the stage put out no file `{column}`"))),
        }
    }
}

/// A path as a cell.
pub fn text(path: &Path) -> Value {
    Value::Str(path.display().to_string())
}

impl Desk {
    /// With a folder of its own, which is made when the first task comes. What the provider says of itself may be known
    /// from `memory`.
    pub fn new(folder: PathBuf, provider: Option<Candidate>, memory: &Path) -> Desk {
        Desk { folder, provider, memory: memory.into(), description: None, worker: None, next: 0 }
    }

    /// Does a task.
    ///
    /// # Errors
    /// What the stage says, or why it cannot be asked.
    pub fn work(&mut self, site: &Site, task: &Task<'_>) -> Answered<Done> {
        let candidate = self.provider.clone().ok_or_else(|| {
            missing("the program `effigy-stages`, which computes heads and pictures, does not lie beside `effigy`")
        })?;
        if self.description.is_none() {
            self.description = Some(ask_known(&candidate, &self.memory)?);
        }
        let stages = self.description.iter().flat_map(|told| &told.stages);
        let def = stages.into_iter().find(|def| def.kind == task.kind).cloned();
        let def = def.ok_or_else(|| missing(format!("`effigy-stages` has no stage `{}`", task.kind)))?;
        let old = self.folder.join(format!("task {}", self.next));
        // what the task before has left
        let _ = std::fs::remove_dir_all(old);
        self.next += 1;
        let dir = self.folder.join(format!("task {}", self.next));
        make(site, &dir, &def, task)?;
        let worker = match self.worker.take() {
            Some(worker) if matches!(worker.last, End::Done) => worker,
            _ => Worker::start(&candidate, WITHIN)?,
        };
        let talk = self.worker.insert(worker).task(&dir);
        if let Some((_, error)) = talk.failures().next() {
            return Err(Refusal { status: 500, error: error.to_string(), hint: None });
        }
        match &talk.end {
            End::Done => {}
            End::Gone(_) => return Err(anyhow!("the worker died: {}", talk.words).into()),
            End::Silent(limit) => return Err(anyhow!("the worker was silent for {} s", limit.as_secs()).into()),
        }
        Ok(Done { table: collected(&dir, talk.parts())?, dir })
    }
}

/// Makes the task's directory.
fn make(site: &Site, dir: &Path, def: &StageDef, task: &Task<'_>) -> Result<()> {
    let count = task.rows.len();
    let sizes = if def.grain == Grain::Row { vec![1; count] } else { vec![count] };
    let key = |unit: usize| Digest::of_bytes(format!("viewer {unit}").as_bytes()).to_string();
    let keys = (0..sizes.len()).map(key).collect();
    let stage = format!("{} {} {} {}", task.kind, def.version, task.stage, Json::from(task.params.clone()));
    let params = TaskParams {
        kind: def.kind.clone(),
        version: def.version,
        params: defaults(def, task.params.clone()),
        threads: crate::cli::host::threads(),
        scratch: None,
        keys,
        stage_key: Digest::of_bytes(stage.as_bytes()).to_string(),
    };
    task::write(dir, &params, &task.rows, &sizes, !task.with.is_empty())?;
    for (name, digest) in task.with {
        let table = site.tables.table(digest).map_err(|refusal| anyhow!("constant `{name}`: {}", refusal.error))?;
        let reads = def.with.iter().find(|with| with.name == *name).map(|with| &with.reads);
        let reads = reads.ok_or_else(|| anyhow!("`{}` takes no constant `{name}`", def.kind))?;
        let columns: Vec<&str> = reads.iter().map(|column| column.name.as_str()).collect();
        write_ipc(&dir.join("with").join(format!("{name}.arrow")), &with_paths(site, dir, &table.select(&columns)?)?)?;
    }
    Ok(())
}

/// Parameters, complete.
fn defaults(def: &StageDef, mut params: Map<String, Json>) -> Json {
    let known = def.params.get("properties").and_then(Json::as_object);
    if let Some(known) = known {
        // a run of an older version may have had others
        params.retain(|name, _| known.contains_key(name));
        for (name, schema) in known {
            if let (false, Some(value)) = (params.contains_key(name), schema.get("default")) {
                params.insert(name.clone(), value.clone());
            }
        }
    }
    params.into()
}

/// A table with paths in place of digests.
fn with_paths(site: &Site, dir: &Path, table: &Manifest) -> Result<Manifest> {
    let mut schema = Schema::default();
    let mut columns = Vec::new();
    for column in table.schema().columns() {
        let ty = if column.ty == Type::Blob { Type::Str } else { column.ty };
        schema.push(column.name.clone(), ty)?;
        let of = |value: Value| match value {
            Value::Blob(blob) => readable(site, dir, &blob),
            other => Ok(other),
        };
        columns.push(table.column(&column.name)?.into_iter().map(of).collect::<Result<Vec<_>>>()?);
    }
    Ok(Manifest::from_columns(schema, table.len(), &columns)?)
}

/// A path with the right extension, for programs that go by it.
fn readable(site: &Site, dir: &Path, blob: &Blob) -> Result<Value> {
    let path = site.files.path(&blob.digest).ok_or_else(|| anyhow!("the file {} is gone", blob.digest.short()))?;
    let ext = path.extension().and_then(|ext| ext.to_str()).unwrap_or_default();
    if blob.ext.is_empty() || ext == blob.ext {
        return Ok(text(&path));
    }
    let link = dir.join(format!("{}.{}", blob.digest.short(), blob.ext));
    match std::os::unix::fs::symlink(&path, &link) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make {}", link.display()))
        }
        _ => Ok(text(&link)),
    }
}

/// The rows of all parts.
fn collected<'p>(dir: &Path, parts: impl Iterator<Item = &'p str>) -> Result<Manifest> {
    let tables = parts.map(|part| Ok(read_ipc(&dir.join(part))?)).collect::<Result<Vec<_>>>()?;
    let first = tables.first().context("the stage put out nothing")?;
    Ok(Manifest::concat(&first.schema().clone(), &tables.iter().collect::<Vec<_>>())?)
}
