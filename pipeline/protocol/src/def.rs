//! How a stage describes itself: kind, version, grain, columns, parameters. Knows nothing of running one.

use manifests::Type;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What `PROVIDER describe` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// Version of this protocol; see [`crate::PROTOCOL`].
    pub protocol: u32,
    /// Name of the provider.
    pub provider: String,
    /// Version of the provider.
    pub version: String,
    /// Versions of what it is built on (`libtorch`, `opencv`), recorded with every run; never part of a key.
    #[serde(default)]
    pub software: serde_json::Map<String, Value>,
    /// Files besides those that its command line names whose change may change what it says of itself: modules that
    /// hold its stages. Paths are absolute, or relative to the folder of the script that the command line names; where
    /// that names none, to the folder that the provider is started in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Its stages.
    pub stages: Vec<StageDef>,
}

/// How rows are cut into units of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    /// Each row is a unit.
    Row,
    /// Rows equal in the columns named by `by:` are a unit.
    Group,
    /// All rows are one unit.
    Whole,
}

/// A column that a stage reads or writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnDef {
    /// Name of the column.
    pub name: String,
    /// Its type; `floats[0]` stands for floats of any width.
    #[serde(rename = "type")]
    pub ty: Type,
    /// For columns read: the stage can do without.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A constant table that a stage takes by `with:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WithDef {
    /// Name under `with:`.
    pub name: String,
    /// The stage can do without.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// The columns it reads of it.
    pub reads: Vec<ColumnDef>,
}

/// What a task of a stage takes up while it runs. Never part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Threads; 0 means all that the run may use.
    pub threads: usize,
    /// Memory in MiB; 0 means not worth mentioning.
    #[serde(default)]
    pub memory_mb: u64,
    /// GPUs.
    #[serde(default, skip_serializing_if = "is_none")]
    pub gpus: u64,
    /// Minutes that a task takes at most, for clusters, which want to know; 0 means what is usual there.
    #[serde(default, skip_serializing_if = "is_none")]
    pub minutes: u64,
}

impl Default for Needs {
    fn default() -> Needs {
        Needs { threads: 1, memory_mb: 0, gpus: 0, minutes: 0 }
    }
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// What an engine has to know of a stage to plan with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageDef {
    /// The name recipes use after `stage:`.
    pub kind: String,
    /// Version of the computation: enters every key. Bump it when results can change.
    pub version: u32,
    /// One sentence for `effigy stages`.
    #[serde(default)]
    pub doc: String,
    /// How rows are cut into units.
    pub grain: Grain,
    /// The stage takes no `from:`; it runs once, as a unit without rows.
    #[serde(default)]
    pub source: bool,
    /// The columns it reads: no others are shown to it, and no others enter the key.
    #[serde(default)]
    pub reads: Vec<ColumnDef>,
    /// The columns it writes; those of the input row are carried along by the engine.
    pub writes: Vec<ColumnDef>,
    /// The constants it takes.
    #[serde(default)]
    pub with: Vec<WithDef>,
    /// JSON Schema of its parameters, an object.
    #[serde(default)]
    pub params: Value,
    /// Parameters that are paths of files or folders, whose content enters the key in place of the path.
    #[serde(default)]
    pub files: Vec<String>,
    /// How many units one call gets: more where a network gains from a batch.
    #[serde(default = "one")]
    pub batch: usize,
    /// What it takes up while it runs.
    #[serde(default)]
    pub needs: Needs,
    /// The provider's verb `check` can look at what its parameters name without doing its work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check: bool,
}

/// What `PROVIDER check` says of one thing it looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Whether it is as it has to be.
    pub ok: bool,
    /// A sentence.
    pub text: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
}

fn one() -> usize {
    1
}

impl StageDef {
    /// Whether each row is a unit: a source has none to cut.
    pub fn is_row_wise(&self) -> bool {
        self.grain == Grain::Row && !self.source
    }

    /// A stage of this kind, version and grain that reads and writes nothing yet.
    pub fn new(kind: &str, version: u32, grain: Grain) -> StageDef {
        StageDef {
            kind: kind.into(),
            version,
            doc: String::new(),
            grain,
            source: false,
            reads: Vec::new(),
            writes: Vec::new(),
            with: Vec::new(),
            params: Value::Null,
            files: Vec::new(),
            batch: 1,
            needs: Needs::default(),
            check: false,
        }
    }

    /// Sets [`StageDef::doc`].
    pub fn doc(mut self, doc: &str) -> StageDef {
        self.doc = doc.into();
        self
    }

    /// Makes it a source; see [`StageDef::source`].
    pub fn source(mut self) -> StageDef {
        self.source = true;
        self
    }

    /// Adds columns it reads.
    pub fn reads<const N: usize>(mut self, columns: [(&str, Type); N]) -> StageDef {
        self.reads.extend(columns.map(|column| column_def(column, false)));
        self
    }

    /// Adds columns it reads if they are there.
    pub fn may_read<const N: usize>(mut self, columns: [(&str, Type); N]) -> StageDef {
        self.reads.extend(columns.map(|column| column_def(column, true)));
        self
    }

    /// Adds columns it writes.
    pub fn writes<const N: usize>(mut self, columns: [(&str, Type); N]) -> StageDef {
        self.writes.extend(columns.map(|column| column_def(column, false)));
        self
    }

    /// Adds a constant and columns it reads of it; called again for the same constant, more columns.
    pub fn with<const N: usize>(mut self, name: &str, columns: [(&str, Type); N]) -> StageDef {
        self.constant(name).reads.extend(columns.map(|column| column_def(column, false)));
        self
    }

    /// Adds columns it reads of a constant if they are there.
    pub fn with_may_read<const N: usize>(mut self, name: &str, columns: [(&str, Type); N]) -> StageDef {
        self.constant(name).reads.extend(columns.map(|column| column_def(column, true)));
        self
    }

    /// Adds a constant it can do without.
    pub fn may_take<const N: usize>(self, name: &str, columns: [(&str, Type); N]) -> StageDef {
        let mut def = self.with(name, columns);
        def.constant(name).optional = true;
        def
    }

    /// The constant of a name, made if there is none yet.
    fn constant(&mut self, name: &str) -> &mut WithDef {
        let at = self.with.iter().position(|with| with.name == name).unwrap_or(self.with.len());
        if at == self.with.len() {
            self.with.push(WithDef { name: name.into(), optional: false, reads: Vec::new() });
        }
        &mut self.with[at]
    }

    /// Names a parameter that is a path; see [`StageDef::files`].
    pub fn file_param(mut self, name: &str) -> StageDef {
        self.files.push(name.into());
        self
    }

    /// Sets [`StageDef::batch`].
    pub fn batch(mut self, units: usize) -> StageDef {
        self.batch = units;
        self
    }

    /// Sets [`Needs::threads`].
    pub fn threads(mut self, threads: usize) -> StageDef {
        self.needs.threads = threads;
        self
    }

    /// Sets [`Needs::memory_mb`].
    pub fn memory_mb(mut self, memory_mb: u64) -> StageDef {
        self.needs.memory_mb = memory_mb;
        self
    }
}

fn column_def((name, ty): (&str, Type), optional: bool) -> ColumnDef {
    ColumnDef { name: name.into(), ty, optional }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_may_list_files_and_need_not() {
        let text = r#"{"protocol":1,"provider":"p","version":"1","software":{},"stages":[]}"#;
        let mut description: Description = serde_json::from_str(text).unwrap();
        assert!(description.files.is_empty());
        assert_eq!(serde_json::to_string(&description).unwrap(), text, "engines of before see what they know");
        description.files.push("more.py".into());
        let listed: Description = serde_json::from_str(&serde_json::to_string(&description).unwrap()).unwrap();
        assert_eq!(listed.files, ["more.py"]);
    }

    #[test]
    fn a_constant_that_is_named_again_has_more_columns() {
        let def = StageDef::new("s", 1, Grain::Row)
            .with("a", [("x", Type::I64)])
            .may_take("b", [("x", Type::I64)])
            .with("a", [("y", Type::Str)])
            .with_may_read("b", [("y", Type::Str)]);
        let columns = |with: &WithDef| with.reads.iter().map(|c| (c.name.clone(), c.optional)).collect::<Vec<_>>();
        let found: Vec<_> = def.with.iter().map(|with| (with.name.as_str(), with.optional, columns(with))).collect();
        let [x, y] = ["x", "y"].map(String::from);
        let a = vec![(x.clone(), false), (y.clone(), false)];
        assert_eq!(found, [("a", false, a), ("b", true, vec![(x, false), (y, true)])]);
    }
}
