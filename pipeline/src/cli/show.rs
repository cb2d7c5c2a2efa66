//! `effigy show`: the rows of a stage.

use super::{DONE, RecipeArgs, load, print};
use crate::error::{Place, Problem};
use crate::hints::hinted;
use crate::memory::Store;
use crate::rows_where;
use anyhow::Result;
use manifests::{Manifest, Type, Value};
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use std::path::PathBuf;

/// Show the rows of a stage, as the last run left them
#[derive(clap::Args)]
pub struct Show {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// The stage
    stage: String,
    /// Print a JSON object for each row, files as digests
    #[arg(long)]
    json: bool,
    /// At most so many rows
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only rows for which this holds: = != < <= > >=, *= for contains, `~` for no value (may be given more than once)
    #[arg(long = "where", value_name = "COLUMN=VALUE")]
    conditions: Vec<String>,
    /// Only these columns
    #[arg(long, value_name = "A,B,...", value_delimiter = ',')]
    select: Vec<String>,
    /// Print paths of files instead of digests
    #[arg(long)]
    paths: bool,
}

impl Show {
    /// Shows them.
    pub fn run(self) -> Result<u8> {
        let loaded = load::load(&self.recipe)?;
        let stages = loaded.plan.stages(&self.stage)?;
        let workspace = &self.recipe.workspace.workspace;
        let store = Store::new(workspace);
        let memory = store.load(&loaded.recipe, loaded.plan.spec.profile.as_deref());
        let mut tables = Vec::new();
        for i in stages {
            let name = &loaded.plan.nodes[i].name;
            let Some(remembered) = memory.stages.get(name) else {
                let message = format!("stage `{name}` has not been finished yet");
                return Ok(self.recipe.not_run(&message, "show", Some(name), &loaded, &store));
            };
            tables.push(store.table(&remembered.table).ok_or_else(|| {
                let again = self.recipe.typed(None, self.recipe.profile.as_deref());
                hinted(format!("the table of stage `{name}` is gone"), format!("effigy run {again}"))
            })?);
        }
        // the variants of a stage stand below each other
        let mut table = crate::builtin::concat::below_each_other(&tables.iter().collect::<Vec<_>>())?;
        if !self.conditions.is_empty() {
            table = table.take(&rows_where::rows(&table, &self.conditions)?);
        }
        if let Some(name) = self.select.iter().find(|name| table.schema().position(name).is_none()) {
            let message = format!("stage `{}` has no column `{name}`", self.stage);
            let problem = Problem::at(&Place::command_line(), message).did_you_mean(name, table.schema().names());
            return Err(problem.or_hint("it has no columns").into());
        }
        if !self.select.is_empty() {
            table = table.select(&self.select.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        if let Some(limit) = self.limit {
            table = table.take(&(0..table.len().min(limit)).collect::<Vec<_>>());
        }
        let blobs = cache::Blobs::open(&workspace.join("blobs"))?;
        let path = |value: &Value| match value {
            Value::Blob(blob) if self.paths => Value::Str(shown(blobs.path(&blob.digest))),
            other => other.clone(),
        };
        if self.json {
            (0..table.len()).for_each(|row| print(&json_row(&table, row, &path)));
            return Ok(DONE);
        }
        print(&frame(&table, &path)?.to_string());
        Ok(DONE)
    }
}

fn shown(path: PathBuf) -> String {
    path.canonicalize().unwrap_or(path).display().to_string()
}

fn json_row(table: &Manifest, row: usize, path: &impl Fn(&Value) -> Value) -> String {
    let names = table.schema().names();
    let cells = table.row(row);
    let cell =
        |(name, value): (&str, &Value)| format!("{}:{}", serde_json::Value::from(name), path(value).to_json_text());
    format!("{{{}}}", names.into_iter().zip(&cells).map(cell).collect::<Vec<_>>().join(","))
}

/// The table as polars prints it; files as short digests.
fn frame(table: &Manifest, path: &impl Fn(&Value) -> Value) -> Result<DataFrame> {
    let mut columns = Vec::new();
    for column in table.schema().columns() {
        let values = table.column(&column.name)?;
        let name = column.name.as_str().into();
        let series = match column.ty {
            Type::Bool => {
                Series::new(name, each(&values, |value| if let Value::Bool(x) = value { Some(*x) } else { None }))
            }
            Type::I64 => {
                Series::new(name, each(&values, |value| if let Value::I64(x) = value { Some(*x) } else { None }))
            }
            Type::F64 => {
                Series::new(name, each(&values, |value| if let Value::F64(x) = value { Some(*x) } else { None }))
            }
            _ => Series::new(
                name,
                each(&values, |value| match path(value) {
                    Value::Null => None,
                    other => Some(crate::key::show(&other)),
                }),
            ),
        };
        columns.push(Column::from(series));
    }
    Ok(DataFrame::new(table.len(), columns)?)
}

fn each<T>(values: &[Value], get: impl Fn(&Value) -> Option<T>) -> Vec<Option<T>> {
    values.iter().map(get).collect()
}
