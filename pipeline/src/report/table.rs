//! Tables over the rows of a stage: means by group through polars, or the rows as they are.
//!
//! Which of a column's means is best is found in the data, by the direction the recipe gives. Knows no markup.

use super::document::{Block, Cell, Head, Table};
use super::numbers::{self, Style, counted};
use anyhow::Context;
use manifests::{Manifest, Type, Value};
use polars::prelude::*;
use std::collections::HashMap;

/// More rows than this are not read by anybody; the rest is counted.
const SHOWN: usize = 200;

/// What a recipe's `table:` asks for.
pub(super) struct Asked<'a> {
    /// Columns to group by.
    pub by: &'a [String],
    /// Columns to average.
    pub mean: &'a [String],
    /// Columns that tell apart what counts once: rows that are equal in them (and in `by`) are averaged first.
    pub per: &'a [String],
    /// Columns shown as they are, if nothing is averaged.
    pub columns: &'a [String],
    /// Columns where more is better.
    pub higher: &'a [String],
    /// Columns where less is better.
    pub lower: &'a [String],
    /// Only rows with one of these values in this column.
    pub filter: &'a [(String, Vec<Value>)],
}

/// The table asked for, or a notice that says why there is none.
///
/// # Errors
/// If polars fails, which a manifest cannot make it do.
pub(super) fn table(manifest: &Manifest, asked: &Asked<'_>) -> anyhow::Result<Block> {
    let needed = asked.by.iter().chain(asked.per).chain(asked.filter.iter().map(|(column, _)| column));
    if let Some(missing) = needed.into_iter().find(|name| manifest.schema().position(name).is_none()) {
        return Ok(Block::Notice(absent(manifest, missing)));
    }
    let rows: Vec<usize> = (0..manifest.len()).filter(|&row| passes(manifest, row, asked.filter)).collect();
    if rows.is_empty() {
        let why = if manifest.is_empty() { "it has no rows" } else { "none of its rows is asked for" };
        return Ok(Block::Notice(format!("not available: {why}")));
    }
    let kept = manifest.take(&rows);
    let mut table = if asked.mean.is_empty() && (asked.by.is_empty() || !asked.columns.is_empty()) {
        plain(&kept, asked)
    } else {
        means(&kept, asked)?
    };
    if !asked.filter.is_empty() {
        let condition = |(column, values): &(String, Vec<Value>)| {
            let values: Vec<String> = values.iter().map(numbers::value).collect();
            format!("{column} is {}", values.join(" or "))
        };
        let conditions: Vec<String> = asked.filter.iter().map(condition).collect();
        let which = format!("rows where {}", conditions.join(" and "));
        table.note = Some(table.note.into_iter().chain([which]).collect::<Vec<_>>().join("; "));
    }
    Ok(Block::Table(table))
}

/// A sentence for a column that is not there.
pub(super) fn absent(manifest: &Manifest, column: &str) -> String {
    format!("not available: there is no column `{column}`; there are: {}", manifest.schema().names().join(", "))
}

fn passes(manifest: &Manifest, row: usize, filter: &[(String, Vec<Value>)]) -> bool {
    filter.iter().all(|(column, values)| {
        let found = manifest.value(row, column).expect("checked before");
        values.iter().any(|value| match (&found, value) {
            // a recipe may say 1 of a column of floats
            (Value::F64(a), Value::I64(b)) | (Value::I64(b), Value::F64(a)) => *a == *b as f64,
            _ => found == *value,
        })
    })
}

/// Mean, spread and count of each column in each group of rows.
struct Group {
    keys: Vec<String>,
    rows: usize,
    /// For each averaged column: mean, sample standard deviation, rows that have a value.
    means: Vec<(Option<f64>, Option<f64>, usize)>,
}

impl Group {
    /// What it shares with the groups it is compared with.
    fn section(&self) -> &[String] {
        &self.keys[..self.keys.len().saturating_sub(1)]
    }
}

/// Groups that share their first keys stand together, each in the order of its first row.
fn together(groups: Vec<Group>) -> Vec<Group> {
    let mut first: HashMap<Vec<String>, usize> = HashMap::new();
    for (i, group) in groups.iter().enumerate() {
        for n in 1..=group.keys.len() {
            first.entry(group.keys[..n].to_vec()).or_insert(i);
        }
    }
    let rank = |group: &Group| (1..=group.keys.len()).map(|n| first[&group.keys[..n]]).collect::<Vec<_>>();
    let mut ranked: Vec<_> = groups.into_iter().map(|group| (rank(&group), group)).collect();
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    ranked.into_iter().map(|(_, group)| group).collect()
}

fn means(manifest: &Manifest, asked: &Asked<'_>) -> anyhow::Result<Table> {
    let groups = together(grouped(manifest, asked).context("averaging a table of the report")?);
    let mut table = Table::default();
    table.head.extend(asked.by.iter().map(|name| Head {
        text: name.clone(),
        number: flush_right(manifest, name),
        code: false,
    }));
    table.head.push(Head { text: "n".into(), number: true, code: false });
    for group in groups.iter().take(SHOWN) {
        let mut row: Vec<Cell> = group.keys.iter().map(Cell::new).collect();
        row.push(Cell::faint(group.rows.to_string()));
        table.rows.push(row);
    }
    for (c, name) in asked.mean.iter().enumerate() {
        table.head.push(Head { text: format!("{name}{}", arrow(asked, name)), number: true, code: false });
        let style = Style::of(groups.iter().filter_map(|group| group.means[c].0));
        // compared are groups that differ in the last column of `by` alone: methods on one split, not splits
        let best: Vec<Option<f64>> = groups
            .chunk_by(|a, b| a.section() == b.section())
            .flat_map(|section| {
                let means = section.iter().filter_map(|group| group.means[c].0);
                std::iter::repeat_n(best(means, direction(asked, name)), section.len())
            })
            .collect();
        for ((group, row), best) in groups.iter().zip(&mut table.rows).zip(best) {
            let (mean, deviation, n) = group.means[c];
            let Some(mean) = mean else {
                row.push(Cell::faint("not available"));
                continue;
            };
            let mut spread =
                deviation.filter(|d| d.is_finite()).map_or(String::new(), |d| format!("± {}", style.write(d)));
            if n < group.rows {
                spread = format!("{spread} (n = {n})").trim_start().into();
            }
            row.push(Cell { spread, best: best == Some(mean), ..Cell::new(style.write(mean)) });
        }
    }
    let mut notes = Vec::new();
    if groups.iter().flat_map(|group| &group.means).any(|(_, deviation, _)| deviation.is_some()) {
        notes.push(match asked.per {
            [] => "mean ± standard deviation over n rows".to_string(),
            per => format!("mean ± standard deviation over n means, each over the rows of one {}", per.join(", ")),
        });
    }
    for name in asked.mean.iter().filter(|name| !numeric(manifest, name)) {
        match manifest.schema().ty(name) {
            Some(ty) => notes.push(format!("`{name}` is {ty}, not a number")),
            None => notes.push(format!("there is no column `{name}`")),
        }
    }
    if groups.len() > SHOWN {
        notes.push(format!("the first {SHOWN} of {} groups", groups.len()));
    }
    table.note = (!notes.is_empty()).then(|| notes.join("; "));
    Ok(table)
}

fn numeric(manifest: &Manifest, column: &str) -> bool {
    matches!(manifest.schema().ty(column), Some(Type::I64 | Type::F64 | Type::Bool))
}

fn flush_right(manifest: &Manifest, column: &str) -> bool {
    matches!(manifest.schema().ty(column), Some(Type::I64 | Type::F64))
}

fn grouped(manifest: &Manifest, asked: &Asked<'_>) -> anyhow::Result<Vec<Group>> {
    let Asked { by, mean, per, .. } = asked;
    // Columns get names of their own: one may be asked for twice. Keys go in as exact text, and are shown by their
    // rounded one. A constant key makes all rows one group if nothing is grouped by.
    let mut columns = vec![Column::new("key".into(), vec![""; manifest.len()])];
    for (i, name) in by.iter().enumerate() {
        let values = manifest.column(name)?;
        let exact: Vec<String> = values.iter().map(Value::to_json_text).collect();
        let shown: Vec<String> = values.iter().map(numbers::value).collect();
        columns.push(Column::new(format!("key{i}").into(), exact));
        columns.push(Column::new(format!("shown{i}").into(), shown));
    }
    for (i, name) in mean.iter().enumerate() {
        let values: Vec<Option<f64>> = match numeric(manifest, name) {
            true => manifest.column(name)?.iter().map(as_number).collect(),
            false => vec![None; manifest.len()],
        };
        columns.push(Column::new(format!("value{i}").into(), values));
    }
    for (i, name) in per.iter().enumerate() {
        let exact: Vec<String> = manifest.column(name)?.iter().map(Value::to_json_text).collect();
        columns.push(Column::new(format!("unit{i}").into(), exact));
    }
    let keys: Vec<Expr> = std::iter::once(col("key")).chain((0..by.len()).map(|i| col(format!("key{i}")))).collect();
    let mut sums = vec![len().cast(DataType::Float64).alias("rows")];
    sums.extend((0..by.len()).map(|i| col(format!("shown{i}")).first()));
    for i in 0..mean.len() {
        let value = || col(format!("value{i}"));
        sums.push(value().mean().alias(format!("mean{i}")));
        sums.push(value().std(1).alias(format!("deviation{i}")));
        sums.push(value().count().cast(DataType::Float64).alias(format!("count{i}")));
    }
    let mut rows = DataFrame::new_infer_height(columns)?.lazy();
    if !per.is_empty() {
        let units = keys.iter().cloned().chain((0..per.len()).map(|i| col(format!("unit{i}"))));
        let shown = (0..by.len()).map(|i| col(format!("shown{i}")).first());
        let means = (0..mean.len()).map(|i| col(format!("value{i}")).mean());
        rows = rows.group_by_stable(units.collect::<Vec<_>>()).agg(shown.chain(means).collect::<Vec<_>>());
    }
    let frame = rows.group_by_stable(keys).agg(sums).collect()?;
    let floats = |name: String| -> PolarsResult<Vec<Option<f64>>> { Ok(frame.column(&name)?.f64()?.iter().collect()) };
    let texts = |name: String| -> PolarsResult<Vec<String>> {
        Ok(frame.column(&name)?.str()?.iter().map(|text| text.unwrap_or_default().to_string()).collect())
    };
    let count = |x: Option<f64>| x.unwrap_or(0.0) as usize;
    let rows = floats("rows".into())?;
    let mut groups: Vec<Group> =
        rows.into_iter().map(|rows| Group { keys: Vec::new(), rows: count(rows), means: Vec::new() }).collect();
    for i in 0..by.len() {
        texts(format!("shown{i}"))?.into_iter().zip(&mut groups).for_each(|(key, group)| group.keys.push(key));
    }
    for i in 0..mean.len() {
        let parts = [floats(format!("mean{i}"))?, floats(format!("deviation{i}"))?, floats(format!("count{i}"))?];
        for (g, group) in groups.iter_mut().enumerate() {
            group.means.push((parts[0][g], parts[1][g], count(parts[2][g])));
        }
    }
    Ok(groups)
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::F64(x) => Some(*x),
        Value::I64(x) => Some(*x as f64),
        Value::Bool(x) => Some(f64::from(u8::from(*x))),
        _ => None,
    }
}

/// Whether more (`true`) or less is better in a column; `None` if the recipe does not say.
fn direction(asked: &Asked<'_>, name: &String) -> Option<bool> {
    asked.higher.contains(name).then_some(true).or_else(|| asked.lower.contains(name).then_some(false))
}

fn arrow(asked: &Asked<'_>, name: &String) -> &'static str {
    match direction(asked, name) {
        Some(true) => " ↑",
        Some(false) => " ↓",
        None => "",
    }
}

/// The best of some numbers; `None` if there is no direction or nothing to compare with.
fn best(numbers: impl Iterator<Item = f64>, direction: Option<bool>) -> Option<f64> {
    let numbers: Vec<f64> = numbers.filter(|x| !x.is_nan()).collect();
    if numbers.len() < 2 {
        return None;
    }
    let pick: fn(f64, f64) -> f64 = if direction? { f64::max } else { f64::min };
    numbers.into_iter().reduce(pick)
}

fn plain(manifest: &Manifest, asked: &Asked<'_>) -> Table {
    let all: Vec<String> = manifest.schema().names().iter().map(|name| name.to_string()).collect();
    let chosen: Vec<String> = match asked.columns.is_empty() {
        true => all,
        false => asked.by.iter().chain(asked.columns).cloned().collect(),
    };
    let shown = manifest.len().min(SHOWN);
    let mut table = Table { rows: vec![Vec::new(); shown], ..Table::default() };
    let mut notes = Vec::new();
    for name in &chosen {
        let number = flush_right(manifest, name);
        let code = manifest.schema().ty(name) == Some(Type::Blob);
        table.head.push(Head { text: format!("{name}{}", arrow(asked, name)), number, code });
        let Ok(values) = manifest.column(name) else {
            notes.push(format!("there is no column `{name}`"));
            table.rows.iter_mut().for_each(|row| row.push(Cell::faint("not available")));
            continue;
        };
        let all_null = values.iter().all(|value| *value == Value::Null);
        let best = best(values.iter().filter_map(as_number), direction(asked, name));
        let style = Style::of(values.iter().filter_map(as_number));
        for (row, value) in table.rows.iter_mut().zip(&values) {
            let text = match value {
                Value::F64(x) => style.write(*x),
                other => numbers::value(other),
            };
            let best = best.is_some() && as_number(value) == best;
            row.push(match value {
                Value::Null if all_null => Cell::faint("not available"),
                Value::Null | Value::Blob(_) => Cell::faint(text),
                _ => Cell { best, ..Cell::new(text) },
            });
        }
    }
    if manifest.len() > shown {
        notes.push(format!("the first {shown} of {}", counted(manifest.len(), "row")));
    }
    table.note = (!notes.is_empty()).then(|| notes.join("; "));
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifests::Schema;

    fn scores() -> Manifest {
        let schema =
            Schema::new([("method", Type::Str), ("psnr", Type::F64), ("lpips", Type::F64), ("held_out", Type::Bool)]);
        let row =
            |method: &str, psnr, held_out| vec![Value::Str(method.into()), psnr, Value::Null, Value::Bool(held_out)];
        let rows = [
            row("ours", Value::F64(24.0), true),
            row("mean", Value::F64(18.5), true),
            row("ours", Value::F64(26.0), true),
            row("mean", Value::Null, true),
            row("perfect", Value::F64(f64::INFINITY), false),
        ];
        Manifest::from_rows(schema.unwrap(), &rows).unwrap()
    }

    fn texts(block: Block) -> (Vec<String>, Vec<Vec<String>>, Option<String>) {
        let Block::Table(table) = block else { panic!("{block:?}") };
        let cell = |cell: &Cell| {
            let text = format!("{} {}", cell.text, cell.spread).trim().to_string();
            if cell.best { format!("*{text}*") } else { text }
        };
        let rows = table.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        (table.head.into_iter().map(|head| head.text).collect(), rows, table.note)
    }

    #[test]
    fn means_by_group_with_the_best_marked() {
        let (by, mean) = (["method".to_string()], ["psnr".to_string(), "lpips".into(), "ssim".into()]);
        let (higher, filter) = (["psnr".to_string()], [("held_out".to_string(), vec![Value::Bool(true)])]);
        let asked =
            Asked { by: &by, mean: &mean, per: &[], columns: &[], higher: &higher, lower: &[], filter: &filter };
        let (head, rows, note) = texts(table(&scores(), &asked).unwrap());
        assert_eq!(head, ["method", "n", "psnr ↑", "lpips", "ssim"]);
        // the deviation of 24 and 26 is the square root of 2
        assert_eq!(rows[0], ["ours", "2", "*25.00 ± 1.41*", "not available", "not available"]);
        assert_eq!(rows[1], ["mean", "2", "18.50 (n = 1)", "not available", "not available"]);
        assert_eq!(rows.len(), 2);
        assert!(note.unwrap().ends_with("there is no column `ssim`; rows where held_out is yes"));

        let everything = Asked { by: &[], filter: &[], lower: &higher, higher: &[], ..asked };
        let (head, rows, _) = texts(table(&scores(), &everything).unwrap());
        assert_eq!((head[0].as_str(), &rows[0][..2]), ("n", &["5".to_string(), "inf (n = 4)".into()][..]));
        let infinite = Asked { by: &by, ..everything };
        let (_, rows, _) = texts(table(&scores(), &infinite).unwrap());
        assert_eq!(
            rows.iter().map(|row| row[2].as_str()).collect::<Vec<_>>(),
            ["25.00 ± 1.41", "*18.50 (n = 1)*", "inf"]
        );
    }

    #[test]
    fn people_count_once_each_however_many_rows_they_have() {
        let schema = Schema::new([("method", Type::Str), ("person", Type::I64), ("mm", Type::F64)]).unwrap();
        let row = |method: &str, person, mm| vec![Value::Str(method.into()), Value::I64(person), mm];
        let (number, none) = (Value::F64, Value::Null);
        let rows = [
            row("ours", 1, number(1.0)),
            row("ours", 1, number(3.0)),
            row("ours", 1, none.clone()),
            row("ours", 2, number(4.0)),
            row("mean", 1, none),
            row("mean", 2, number(9.0)),
        ];
        let manifest = Manifest::from_rows(schema, &rows).unwrap();
        let [by, mean, per] = ["method", "mm", "person"].map(|name| [name.to_string()]);
        let asked = Asked { by: &by, mean: &mean, per: &per, columns: &[], higher: &[], lower: &mean, filter: &[] };
        let (_, rows, note) = texts(table(&manifest, &asked).unwrap());
        // the mean of 2 and 4, not that of 1, 3 and 4
        assert_eq!(rows, [["ours", "2", "*3.000 ± 1.414*"], ["mean", "2", "9.000 (n = 1)"]]);
        assert!(note.unwrap().contains("over n means, each over the rows of one person"));
        let unknown = ["nobody".to_string()];
        let block = table(&manifest, &Asked { per: &unknown, ..asked }).unwrap();
        assert!(matches!(&block, Block::Notice(text) if text.contains("there is no column `nobody`")), "{block:?}");
    }

    #[test]
    fn the_best_is_that_of_rows_that_differ_in_the_last_column_alone() {
        let schema = Schema::new([("split", Type::Str), ("method", Type::Str), ("psnr", Type::F64)]).unwrap();
        let row = |split: &str, method: &str, psnr| {
            vec![Value::Str(split.into()), Value::Str(method.into()), Value::F64(psnr)]
        };
        let rows = [row("b", "ours", 20.0), row("a", "ours", 30.0), row("b", "mean", 10.0), row("a", "mean", 31.0)];
        let (by, mean) = (["split".to_string(), "method".into()], ["psnr".to_string()]);
        let asked = Asked { by: &by, mean: &mean, per: &[], columns: &[], higher: &mean, lower: &[], filter: &[] };
        let (_, rows, _) = texts(table(&Manifest::from_rows(schema, &rows).unwrap(), &asked).unwrap());
        let shown: Vec<String> = rows.iter().map(|row| [&row[..2], &row[3..]].concat().join(" ")).collect();
        assert_eq!(shown, ["b ours *20.00*", "b mean 10.00", "a ours 30.00", "a mean *31.00*"]);
    }

    #[test]
    fn rows_as_they_are_and_tables_that_cannot_be() {
        let columns = ["method".to_string(), "psnr".into()];
        let asked =
            Asked { by: &[], mean: &[], per: &[], columns: &columns, higher: &columns, lower: &[], filter: &[] };
        let (_, rows, _) = texts(table(&scores(), &asked).unwrap());
        assert_eq!((rows[0][1].as_str(), rows[3][1].as_str(), rows[4][1].as_str()), ("24.00", "–", "*inf*"));

        let wrong = ["metod".to_string()];
        let Block::Notice(text) = table(&scores(), &Asked { by: &wrong, ..asked }).unwrap() else { panic!() };
        assert!(text.contains("`metod`") && text.contains("method"), "{text}");
    }
}
