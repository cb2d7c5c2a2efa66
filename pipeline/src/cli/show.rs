//! `effigy show`: the rows of a stage.

use super::grid::{self, Grid};
use super::past::{Found, Past};
use super::{DONE, RecipeArgs, load, print, remark};
use crate::compare::Naming;
use crate::error::{Place, Problem};
use crate::hints::hinted;
use crate::memory::{Places, Store};
use crate::plan::Work;
use crate::rows_where;
use anyhow::Result;
use manifests::{Manifest, Type, Value};
use polars::prelude::{AnyValue, Column, DataFrame, IntoLazy, NamedFrom, Series};
use polars::sql::SQLContext;
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
    /// At most so many rows [default: all with --json, else 10]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only rows for which this holds: = != < <= > >=, *= for contains, =~ and !=~ for whether there is a value (may be
    /// given more than once)
    #[arg(long = "where", value_name = "COLUMN=VALUE")]
    conditions: Vec<String>,
    /// Only these columns [default: all with --json, else 8 of them]
    #[arg(long, value_name = "A,B,...", value_delimiter = ',')]
    select: Vec<String>,
    /// Show what this query says: the stage's rows are the table `rows` (for example "select split, avg(psnr) from rows
    /// group by split")
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
        if let Some((_, name)) = self.select.iter().enumerate().find(|(i, name)| self.select[..*i].contains(name)) {
            let problem = Problem::at(&Place::command_line(), format!("`--select` names `{name}` twice"));
            return Err(problem.hint("each column is shown once: leave one of the two out").into());
        }
        if !self.select.is_empty() {
            table = table.select(&self.select.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        let places = match self.paths {
            true => Some(self.places(&loaded)?),
            false => None,
        };
        let path = |value: &Value| match (value, &places) {
            (Value::Blob(blob), Some(places)) => Value::Str(shown(places.path(blob))),
            (other, _) => other.clone(),
        };
        if let Some(query) = &self.sql {
            return self.answer(&queried(frame(&table, &path)?, query)?);
        }
        if self.json {
            (0..self.rows(table.len(), table.len())).for_each(|row| print(&json_row(&table, row, &path)));
            return Ok(DONE);
        }
        let columns = table.schema().columns();
        let asked = |i: &usize| self.conditions.iter().any(|condition| is_about(condition, &columns[*i].name));
        let chosen = match self.select.is_empty() {
            true => grid::columns(columns.len(), (0..columns.len()).filter(asked), self.telling(&table, &loaded)),
            false => (0..columns.len()).collect(),
        };
        let row = |row: usize| {
            let cells = table.row(row);
            chosen.iter().map(|&i| text(&path(&cells[i]))).collect()
        };
        let grid = Grid {
            head: chosen.iter().map(|&i| (columns[i].name.clone(), columns[i].ty.to_string())).collect(),
            rows: (0..self.rows(table.len(), grid::ROWS)).map(row).collect(),
            of_rows: table.len(),
            of_columns: columns.len(),
        };
        print(&grid.text(self.paths, "`--limit N` shows more rows, `--select A,B,...` other columns, `--json` all"));
        Ok(DONE)
    }

    /// The columns that tell most: those that tell rows apart, and what the stage itself wrote.
    fn telling(&self, table: &Manifest, loaded: &load::Loaded) -> Vec<usize> {
        let mut names: Vec<String> = Naming::of(table).columns().to_vec();
        for &i in loaded.plan.stages(&self.stage).iter().flatten().take(1) {
            if let Work::Units(stage) = &loaded.plan.nodes[i].work {
                names.extend(stage.def.writes.iter().map(|column| column.name.clone()));
            }
        }
        names.iter().filter_map(|name| table.schema().position(name)).collect()
    }

    /// How many of all rows are shown; so many if nobody said it.
    fn rows(&self, all: usize, default: usize) -> usize {
        self.limit.unwrap_or(default).min(all)
    }

    /// Where files are.
    fn places(&self, loaded: &load::Loaded) -> Result<Places> {
        let root = &self.recipe.workspace.workspace;
        let memory = Store::new(root).load(&loaded.recipe, loaded.plan.spec.profile.as_deref());
        Places::new(root, memory)
    }

    /// Shows what a query found.
    fn answer(&self, found: &DataFrame) -> Result<u8> {
        if self.json {
            for row in 0..self.rows(found.height(), found.height()) {
                print(&json_of(found, row)?);
            }
            return Ok(DONE);
        }
        let columns = found.columns();
        let chosen = grid::columns(columns.len(), [], []);
        let row =
            |row: usize| -> Result<Vec<String>> { chosen.iter().map(|&i| Ok(cell(&columns[i].get(row)?))).collect() };
        let grid = Grid {
            head: chosen.iter().map(|&i| (columns[i].name().to_string(), columns[i].dtype().to_string())).collect(),
            rows: (0..self.rows(found.height(), grid::ROWS)).map(row).collect::<Result<_>>()?,
            of_rows: found.height(),
            of_columns: columns.len(),
        };
        print(&grid.text(self.paths, "`--limit N` shows more rows, a query that names columns others, `--json` all"));
        Ok(DONE)
    }
}

/// Whether a condition is about a column: its name stands before the first sign.
fn is_about(condition: &str, column: &str) -> bool {
    condition.split(['=', '!', '<', '>', '*']).next().is_some_and(|name| name.trim() == column)
}

/// The rows of a stage as the last run left them, or the last with the `--param` and `--set` that are given, those of
/// its variants below each other; an exit code if it left none, which was said then. `verb` is the command that asks.
pub fn kept(recipe: &RecipeArgs, loaded: &load::Loaded, stage: &str, verb: &str) -> Result<Result<Manifest, u8>> {
    let mut past = Past::new(recipe, loaded);
    let mut tables = Vec::new();
    let mut overrides: Vec<String> = Vec::new();
    let mut earlier: Vec<&str> = Vec::new();
    let stages = loaded.plan.stages(stage)?;
    for &i in &stages {
        let name = &loaded.plan.nodes[i].name;
        let left = match past.stage(name) {
            Found::Rows(left) => left,
            Found::Lost(lost) => {
                let mut names = stages.iter().map(|&i| loaded.plan.nodes[i].name.as_str());
                let other = names.find(|other| matches!(past.stage(other), Found::Rows(_)));
                return Ok(Err(past.tell(name, &lost, other)));
            }
            Found::Nothing => {
                let message = format!("stage `{name}` has not been finished yet");
                return Ok(Err(recipe.not_run(&message, verb, Some(name), loaded, &past.store)));
            }
        };
        if recipe.overrides().is_empty() && !left.overrides.is_empty() {
            overrides.clone_from(&left.overrides);
        }
        if left.is_earlier {
            earlier.push(name);
        }
        tables.push(past.store.table(&left.table).ok_or_else(|| {
            let again = recipe.typed(None, recipe.profile.as_deref());
            hinted(format!("the table of stage `{name}` is gone"), format!("effigy run {again}"))
        })?);
    }
    if let Some(name) = earlier.first() {
        remark(&format!("the last run was stopped before stage `{name}` was done: these rows are of an earlier one"));
    } else if !overrides.is_empty() {
        remark(&format!("these rows are of the last run, which was with {}", overrides.join(" and ")));
    }
    // a stage that gathers variants has the rows of those that ran
    if recipe.variants.is_empty()
        && let Some(last) = past.run(0).filter(|last| !last.variants.is_empty())
        && stages.iter().any(|&i| last.stage(&loaded.plan.nodes[i].name).is_some())
    {
        remark(&format!("these rows are of the last run, which was of {} alone", last.variants.join(" and ")));
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
    let wrong = |why: &str| {
        let hint =
            format!("the table is `{TABLE}`, its columns are {}; names with other signs go in \"\"", names.join(", "));
        Problem::at(&Place::command_line(), format!("`--sql` is not understood: {why}")).hint(hint)
    };
    // whatever else a database does to its tables, here nothing would come of it
    let word = query.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    let word = word.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    if !word.is_empty() && !["select", "with", "from"].contains(&word.to_lowercase().as_str()) {
        return Err(wrong(&format!("a query begins with `select` or `with`, not with `{word}`")).into());
    }
    let mut context = SQLContext::new();
    context.register(TABLE, table.lazy());
    let found = context.execute(query).and_then(|found| found.collect());
    found.map_err(|error| wrong(error.to_string().lines().next().unwrap_or_default()).into())
}

/// A row of what was found, as a JSON object.
fn json_of(found: &DataFrame, row: usize) -> Result<String> {
    let mut object = serde_json::Map::new();
    for column in found.columns() {
        object.insert(column.name().to_string(), json_value(&column.get(row)?)?);
    }
    Ok(serde_json::Value::Object(object).to_string())
}

fn json_value(value: &AnyValue<'_>) -> Result<serde_json::Value> {
    Ok(match value {
        AnyValue::Null => serde_json::Value::Null,
        AnyValue::Boolean(value) => (*value).into(),
        AnyValue::String(value) => (*value).into(),
        AnyValue::StringOwned(value) => value.as_str().into(),
        AnyValue::List(items) => {
            let items = (0..items.len()).map(|i| json_value(&items.get(i)?));
            serde_json::Value::Array(items.collect::<Result<_>>()?)
        }
        value if value.is_integer() => value.extract::<i64>().into(),
        value if value.is_float() => match value.extract::<f64>() {
            // as `--json` writes what is no number in JSON
            Some(number) if !number.is_finite() => number.to_string().into(),
            number => number.into(),
        },
        other => other.to_string().into(),
    })
}

/// A value of what was found, for people.
fn cell(value: &AnyValue<'_>) -> String {
    match value {
        AnyValue::String(text) => (*text).into(),
        AnyValue::StringOwned(text) => text.to_string(),
        other => other.to_string(),
    }
}

/// A value of a table, for people; files as short digests.
fn text(value: &Value) -> String {
    match value {
        Value::F64(number) => AnyValue::Float64(*number).to_string(),
        other => crate::key::show(other),
    }
}

/// A table as queries see it: files as digests, lists of numbers as such.
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
            Type::Floats(_) => {
                let list = |value: &Value| match value {
                    Value::Floats(list) => Some(Series::new("".into(), list.as_slice())),
                    _ => None,
                };
                Series::new(name, each(&values, list))
            }
            Type::Str | Type::Blob => Series::new(
                name,
                each(&values, |value| match path(value) {
                    Value::Str(text) => Some(text),
                    Value::Blob(blob) => Some(blob.digest.to_string()),
                    _ => None,
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
