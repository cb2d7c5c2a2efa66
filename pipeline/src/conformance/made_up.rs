//! Tasks that were made up from nothing but a stage's description: rows, files, constants, parameters. Knows no worker.

use crate::error::Place;
use crate::params::Checker;
use crate::task;
use crate::yaml::{self, At, Item, Key};
use anyhow::{Context, Result};
use manifests::{Digest, Manifest, Schema, Type, Value, write_ipc};
use protocol::{ColumnDef, StageDef, TaskParams};
use serde_json::{Map, Value as Json};
use std::path::{Path, PathBuf};

/// Units that were made up.
#[derive(Clone)]
pub(crate) struct Made {
    /// Their rows, one unit after the other.
    pub(crate) table: Manifest,
    /// How many rows each has.
    pub(crate) sizes: Vec<usize>,
    /// What tells each from the others wherever it stands: its key is drawn from it.
    pub(crate) names: Vec<usize>,
}

impl Made {
    /// Units of these sizes.
    pub(crate) fn units(table: Manifest, sizes: Vec<usize>) -> Made {
        let names = (0..sizes.len()).collect();
        Made { table, sizes, names }
    }

    /// Some of the units, in this order.
    pub(crate) fn some(&self, units: &[usize]) -> Made {
        let first = |unit: usize| self.sizes[..unit].iter().sum::<usize>();
        let rows: Vec<usize> = units.iter().flat_map(|&unit| first(unit)..first(unit) + self.sizes[unit]).collect();
        Made {
            table: self.table.take(&rows),
            sizes: units.iter().map(|&unit| self.sizes[unit]).collect(),
            names: units.iter().map(|&unit| self.names[unit]).collect(),
        }
    }

    /// The same with nulls in all columns of one unit.
    pub(crate) fn without_values(&self, unit: usize) -> Result<Made> {
        let first: usize = self.sizes[..unit].iter().sum();
        let emptied = first..first + self.sizes[unit];
        let rows = (0..self.table.len()).map(|row| (!emptied.contains(&row)).then_some(row));
        Ok(Made { table: self.table.take_or_null(&rows.collect::<Vec<_>>()), ..self.clone() })
    }
}

/// Makes tasks, in a folder of its own.
pub(crate) struct Tasks {
    root: PathBuf,
    file: Option<PathBuf>,
    next: usize,
}

impl Tasks {
    /// Tasks below a folder; columns of files hold `file`, or lines of text if there is none.
    pub(crate) fn new(root: &Path, file: Option<PathBuf>) -> Result<Tasks> {
        let root = root.canonicalize()?;
        std::fs::create_dir_all(root.join("inputs")).context("cannot make a folder for made-up files")?;
        Ok(Tasks { root, file, next: 0 })
    }

    /// Where the files lie that tasks are given.
    pub(crate) fn inputs(&self) -> Vec<PathBuf> {
        [Some(self.root.join("inputs")), self.file.clone()].into_iter().flatten().collect()
    }

    /// A task directory that is not there.
    pub(crate) fn nowhere(&self) -> PathBuf {
        self.root.join("nowhere")
    }

    /// Rows with these columns.
    pub(crate) fn rows(&self, columns: &[ColumnDef], count: usize) -> Result<Manifest> {
        let ty = |column: &ColumnDef| match column.ty {
            Type::Blob => Type::Str,
            Type::Floats(0) => Type::Floats(3),
            other => other,
        };
        let schema = Schema::new(columns.iter().map(|column| (column.name.clone(), ty(column))))?;
        let mut values = Vec::new();
        for column in columns {
            let cells = (0..count).map(|row| self.value(column, row));
            values.push(cells.collect::<Result<Vec<_>>>()?);
        }
        Ok(Manifest::from_columns(schema, count, &values)?)
    }

    fn value(&self, column: &ColumnDef, row: usize) -> Result<Value> {
        Ok(match column.ty {
            Type::Bool => Value::Bool(row.is_multiple_of(2)),
            Type::I64 => Value::I64(row as i64 + 1),
            Type::F64 => Value::F64(row as f64 + 0.5),
            Type::Str => Value::Str(format!("text {row}")),
            Type::Floats(n) => {
                let n = if n == 0 { 3 } else { n };
                Value::Floats((0..n).map(|i| f64::from(i) + row as f64).collect())
            }
            Type::Blob => Value::Str(self.file(&format!("{}_{row}", column.name))?.display().to_string()),
        })
    }

    fn file(&self, name: &str) -> Result<PathBuf> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let path = self.root.join("inputs").join(format!("{name}.txt"));
        std::fs::write(&path, format!("a line of {name}\n")).context("cannot write a made-up file")?;
        Ok(path)
    }

    /// Complete parameters: those given, the defaults, and something that fits for what is required beside.
    ///
    /// # Errors
    /// What is wrong with them, if nothing that fits can be made up.
    pub(crate) fn params(&self, def: &StageDef, given: &Map<String, Json>) -> Result<Map<String, Json>, String> {
        if def.params.is_null() {
            return Ok(Map::new());
        }
        let mut fields: Map<String, Json> = given.clone();
        let required =
            def.params.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        for name in required.filter(|name| !given.contains_key(*name)) {
            let schema = def.params.pointer(&format!("/properties/{name}")).unwrap_or(&Json::Null);
            let value = if def.files.iter().any(|file| file == name) {
                let path = self.file(&format!("param_{name}")).map_err(|error| error.to_string())?;
                path.display().to_string().into()
            } else {
                fitting(resolve(&def.params, schema))
            };
            fields.insert(name.into(), value);
        }
        let items: Vec<(Key, Item)> = fields
            .iter()
            .filter_map(|(name, value)| {
                // JSON is YAML
                let item = yaml::parse("", &value.to_string()).ok()?;
                Some((Key { at: At::default(), name: name.clone() }, item))
            })
            .collect();
        let place = |_: At| Place::command_line();
        let checker = Checker { schema: &def.params, owner: &format!("`{}`", def.kind), place: &place };
        checker.check(At::default(), &items).map_err(|problems| problems[0].message.clone())
    }

    /// A task directory.
    pub(crate) fn make(
        &mut self,
        def: &StageDef,
        params: &Map<String, Json>,
        units: &Made,
        threads: usize,
    ) -> Result<PathBuf> {
        let dir = self.root.join(format!("task {}", self.next));
        self.next += 1;
        let keys: Vec<String> =
            units.names.iter().map(|name| Digest::of_bytes(format!("unit {name}").as_bytes()).to_string()).collect();
        let scratch = (units.sizes.len() == 1).then(|| self.root.join("scratch").join(self.next.to_string()));
        let task = TaskParams {
            kind: def.kind.clone(),
            version: def.version,
            params: params.clone().into(),
            threads,
            scratch,
            keys,
            stage_key: Digest::of_bytes(format!("{} {} {threads}", def.kind, def.version).as_bytes()).to_string(),
        };
        let with: Vec<_> = def.with.iter().filter(|with| !with.optional).collect();
        task::write(&dir, &task, &units.table, &units.sizes, !with.is_empty())?;
        for with in with {
            write_ipc(&dir.join("with").join(format!("{}.arrow", with.name)), &self.rows(&with.reads, 1)?)?;
        }
        Ok(dir)
    }
}

fn resolve<'s>(root: &'s Json, schema: &'s Json) -> &'s Json {
    let target = schema.get("$ref").and_then(Json::as_str).and_then(|target| target.strip_prefix('#'));
    target.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

/// Something that fits a schema, as far as its type tells.
fn fitting(schema: &Json) -> Json {
    let first = |key: &str| schema.get(key).and_then(Json::as_array).and_then(|all| all.first()).cloned();
    if let Some(value) = schema.get("const").cloned().or_else(|| first("enum")).or_else(|| first("examples")) {
        return value;
    }
    if let Some(one) = first("oneOf").or_else(|| first("anyOf")) {
        return fitting(&one);
    }
    let least = || schema.get("minimum").cloned();
    let ty = schema.get("type").map(|ty| ty.as_array().and_then(|types| types.first()).unwrap_or(ty));
    match ty.and_then(Json::as_str) {
        Some("integer") => least().unwrap_or(1.into()),
        Some("number") => least().unwrap_or(1.0.into()),
        Some("boolean") => false.into(),
        Some("array") => {
            let count = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
            (0..count).map(|_| fitting(schema.get("items").unwrap_or(&Json::Null))).collect()
        }
        Some("object") => Map::new().into(),
        _ => "text".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Grain;
    use serde_json::json;

    #[test]
    fn parameters_are_made_up_to_fit_their_schema() {
        let dir = tempfile::tempdir().unwrap();
        let tasks = Tasks::new(dir.path(), None).unwrap();
        let mut def = StageDef::new("k", 1, Grain::Row).file_param("weights");
        def.params = json!({
            "type": "object", "additionalProperties": false,
            "required": ["n", "mode", "name", "weights"],
            "properties": {
                "n": { "type": "integer", "minimum": 3 }, "mode": { "enum": ["fast", "slow"] },
                "name": { "type": "string" }, "weights": { "type": "string" }, "rate": { "type": "number", "default": 2 },
            },
        });
        let made = tasks.params(&def, &Map::new()).unwrap();
        assert_eq!((&made["n"], &made["mode"], &made["rate"]), (&json!(3), &json!("fast"), &json!(2.0)));
        assert!(Path::new(made["weights"].as_str().unwrap()).is_file());
        let given = json!({ "name": 5 }).as_object().unwrap().clone();
        assert!(tasks.params(&def, &given).unwrap_err().contains("name"));
    }

    #[test]
    fn units_keep_their_rows_and_names_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let tasks = Tasks::new(dir.path(), None).unwrap();
        let column = |name: &str, ty| ColumnDef { name: name.into(), ty, optional: false };
        let table = tasks.rows(&[column("i", Type::I64)], 3).unwrap();
        let made = Made::units(table, vec![2, 1]);
        let turned = made.some(&[1, 0]);
        assert_eq!((&turned.sizes[..], &turned.names[..]), (&[1, 2][..], &[1, 0][..]));
        assert_eq!(turned.table.column("i").unwrap(), [Value::I64(3), Value::I64(1), Value::I64(2)]);
        let emptied = made.without_values(0).unwrap();
        assert_eq!(emptied.table.column("i").unwrap(), [Value::Null, Value::Null, Value::I64(3)]);
    }
}
