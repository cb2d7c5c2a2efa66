//! `effigy show`: the rows of a stage.

use super::{DONE, RecipeArgs, load, print, record};
use crate::error::{Place, Problem};
use crate::hints::hinted;
use crate::memory::Store;
use crate::rows_where;
use anyhow::Result;
use manifests::{Manifest, Type, Value};
use polars::prelude::{AnyValue, Column, DataFrame, IntoLazy, NamedFrom, Series};
use polars::sql::SQLContext;
use std::cell::LazyCell;
use std::path::PathBuf;

/// The name of a stage's rows in a query.
const TABLE: &str = "rows";

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
    /// Show what this query says: the stage's rows are the table `rows` (for example "select split, avg(psnr) from rows group by split")
    #[arg(long, value_name = "QUERY", conflicts_with_all = ["conditions", "select"])]
    sql: Option<String>,
    /// Print paths of files instead of digests
    #[arg(long)]
    paths: bool,
}

impl Show {
    /// Shows them.
    pub fn run(self) -> Result<u8> {
        let loaded = load::load(&self.recipe)?;
        let workspace = &self.recipe.workspace.workspace;
        let mut table = match kept(&self.recipe, &loaded, &self.stage, "show")? {
            Ok(table) => table,
            Err(code) => return Ok(code),
        };
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
        if let (Some(limit), None) = (self.limit, &self.sql) {
            table = table.take(&(0..table.len().min(limit)).collect::<Vec<_>>());
        }
        let blobs = cache::Blobs::open(&workspace.join("blobs"))?;
        let path = |value: &Value| match value {
            Value::Blob(blob) if self.paths => Value::Str(shown(blobs.path(&blob.digest))),
            other => other.clone(),
        };
        if let Some(query) = &self.sql {
            let mut found = queried(frame(&table, &path)?, query)?;
            if let Some(limit) = self.limit {
                found = found.head(Some(limit));
            }
            if self.json {
                for row in 0..found.height() {
                    print(&json_of(&found, row)?);
                }
            } else {
                print(&found.to_string());
            }
            return Ok(DONE);
        }
        if self.json {
            (0..table.len()).for_each(|row| print(&json_row(&table, row, &path)));
            return Ok(DONE);
        }
        print(&frame(&table, &path)?.to_string());
        Ok(DONE)
    }
}

/// The rows of a stage as the last run left them, or the last with the `--param` and `--set` that are given, those of its
/// variants below each other; an exit code if it has not been finished, which was said then. `verb` is the command that asks.
pub fn kept(recipe: &RecipeArgs, loaded: &load::Loaded, stage: &str, verb: &str) -> Result<Result<Manifest, u8>> {
    let store = Store::new(&recipe.workspace.workspace);
    let memory = store.load(&loaded.recipe, loaded.plan.spec.profile.as_deref());
    let records = LazyCell::new(|| record::all(&recipe.workspace.workspace));
    let mut tables = Vec::new();
    let mut others: Vec<String> = Vec::new();
    for i in loaded.plan.stages(stage)? {
        let name = &loaded.plan.nodes[i].name;
        let Some(left) = record::left(recipe, &loaded.plan, &memory, &records, name) else {
            let message = format!("stage `{name}` has not been finished yet");
            return Ok(Err(recipe.not_run(&message, verb, Some(name), loaded, &store)));
        };
        if recipe.overrides().is_empty() && !left.overrides.is_empty() {
            others.clone_from(&left.overrides);
        }
        tables.push(store.table(&left.table).ok_or_else(|| {
            let again = recipe.typed(None, recipe.profile.as_deref());
            hinted(format!("the table of stage `{name}` is gone"), format!("effigy run {again}"))
        })?);
    }
    if !others.is_empty() {
        super::remark(&format!("these rows are of the last run, which was with {}", others.join(" and ")));
    }
    Ok(Ok(crate::builtin::concat::below_each_other(&tables.iter().collect::<Vec<_>>())?))
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

/// What a query says of a table.
fn queried(table: DataFrame, query: &str) -> Result<DataFrame> {
    let names: Vec<String> = table.get_column_names().into_iter().map(|name| format!("`{name}`")).collect();
    let mut context = SQLContext::new();
    context.register(TABLE, table.lazy());
    context.execute(query).and_then(|found| found.collect()).map_err(|error| {
        let hint =
            format!("the table is `{TABLE}`, its columns are {}; names with other signs go in \"\"", names.join(", "));
        let text = error.to_string();
        let message = format!("`--sql` is not understood: {}", text.lines().next().unwrap_or_default());
        Problem::at(&Place::command_line(), message).hint(hint).into()
    })
}

/// A row of what was found, as a JSON object.
fn json_of(found: &DataFrame, row: usize) -> Result<String> {
    let mut object = serde_json::Map::new();
    for column in found.columns() {
        let value = column.get(row)?;
        let value = match &value {
            AnyValue::Null => serde_json::Value::Null,
            AnyValue::Boolean(value) => (*value).into(),
            AnyValue::String(value) => (*value).into(),
            AnyValue::StringOwned(value) => value.as_str().into(),
            value if value.is_integer() => value.extract::<i64>().into(),
            value if value.is_float() => value.extract::<f64>().into(),
            other => other.to_string().into(),
        };
        object.insert(column.name().to_string(), value);
    }
    Ok(serde_json::Value::Object(object).to_string())
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
