//! Tables over the rows of a stage: means by group, or the rows as they are.
//!
//! Which of a column's means is best is found in the data, by the direction the recipe gives. Knows no markup.

use super::document::{Block, Cell, Head, Number, Table};
use super::groups::{Group, alike, as_number, delta, grouped, numeric, reference, together};
use super::numbers::{self, Style, counted};
use crate::finished::TableItem;
use anyhow::Context;
use manifests::{Manifest, Type, Value};

/// What a cell says that has no value.
const NOT_AVAILABLE: &str = "n/a";

/// More rows than this are not read by anybody; the rest is counted.
pub(super) const SHOWN: usize = 200;

/// The table asked for, of its first `shown` rows or groups, or a notice that says why there is none.
///
/// # Errors
/// If polars fails, which a manifest cannot make it do.
pub(super) fn table(manifest: &Manifest, asked: &TableItem, shown: usize) -> anyhow::Result<Block> {
    let needed = asked.by.iter().chain(&asked.per).chain(asked.filter.iter().map(|(column, _)| column));
    if let Some(missing) = needed.into_iter().find(|name| manifest.schema().position(name).is_none()) {
        return Ok(Block::Notice(absent(manifest, missing)));
    }
    let rows: Vec<usize> = (0..manifest.len()).filter(|&row| passes(manifest, row, &asked.filter)).collect();
    if rows.is_empty() {
        let why = match manifest.len() {
            0 => "it has no rows".into(),
            rows => format!("of {} there is none where {}", counted(rows, "row"), conditions(&asked.filter)),
        };
        return Ok(Block::Notice(format!("not available: {why}")));
    }
    let kept = manifest.take(&rows);
    let mut table = if asked.mean.is_empty() && (asked.by.is_empty() || !asked.columns.is_empty()) {
        plain(&kept, asked, shown)
    } else {
        means(&kept, asked, shown)?
    };
    if !asked.filter.is_empty() {
        table.remark(format!("rows where {}", conditions(&asked.filter)));
    }
    if let Some(note) = &asked.note {
        table.remark(note.trim().into());
    }
    Ok(Block::Table(table))
}

/// A sentence for a column that is not there.
pub(super) fn absent(manifest: &Manifest, column: &str) -> String {
    format!("not available: there is no column `{column}`; there are: {}", manifest.schema().names().join(", "))
}

/// Which rows are asked for, in words.
fn conditions(filter: &[(String, Vec<Value>)]) -> String {
    let condition = |(column, values): &(String, Vec<Value>)| {
        let values: Vec<String> = values.iter().map(numbers::value).collect();
        format!("{column} is {}", values.join(" or "))
    };
    filter.iter().map(condition).collect::<Vec<_>>().join(" and ")
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

fn means(manifest: &Manifest, asked: &TableItem, shown: usize) -> anyhow::Result<Table> {
    let groups = together(grouped(manifest, asked).context("averaging a table of the report")?);
    let mut table = Table { shared: asked.by.len().saturating_sub(1), ..Table::default() };
    table.head.extend(asked.by.iter().map(|name| Head {
        text: name.clone(),
        number: flush_right(manifest, name),
        ..Head::default()
    }));
    table.head.push(Head { text: "n".into(), number: true, ..Head::default() });
    for group in groups.iter().take(shown) {
        let mut row: Vec<Cell> = group.keys.iter().map(Cell::new).collect();
        row.push(Cell::faint(group.rows.to_string()));
        table.rows.push(row);
    }
    let (mut uneven, mut partial) = (Vec::new(), Vec::new());
    for (c, name) in asked.mean.iter().enumerate() {
        let tolerance = asked.tolerance.iter().find(|(column, _)| column == name).map_or(0.0, |(_, most)| *most);
        let head = |text: String, means: String, tolerance: f64| Head {
            text,
            number: true,
            means: Some(means),
            tolerance,
            ..Head::default()
        };
        table.head.push(head(format!("{name}{}", arrow(asked, name)), name.clone(), tolerance));
        let style = Style::of(groups.iter().filter_map(|group| Some(group.means[c]?.value)));
        // compared are groups that differ in the last column of `by` alone: methods on one split, not splits
        let (mut odd, mut few) = (false, false);
        let best: Vec<Option<f64>> = groups
            .chunk_by(|a, b| a.section() == b.section())
            .flat_map(|section| {
                let means = section.iter().filter_map(|group| Some(group.means[c]?.value));
                let best = best(means, direction(asked, name));
                // nobody wins by seeds that others lack, whose differences beside it would say otherwise
                let fair = asked.against.is_none() || alike(section, c);
                odd |= best.is_some() && !fair;
                // nor by leaving out rows that others have, which may be the hard ones
                let most = section.iter().filter_map(|group| group.share(c)).fold(0.0, f64::max);
                let whole = |group: &Group| group.share(c) == Some(most);
                let held = |group: &Group| best.is_some() && group.means[c].map(|mean| mean.value) == best;
                few |= fair && best.is_some() && !section.iter().any(|group| held(group) && whole(group));
                section.iter().map(|group| best.filter(|_| fair && whole(group))).collect::<Vec<_>>()
            })
            .collect();
        if odd {
            uneven.push(format!("`{name}`"));
        }
        if few {
            partial.push(format!("`{name}`"));
        }
        for ((group, row), best) in groups.iter().zip(&mut table.rows).zip(best) {
            row.push(mean_cell(group.means[c], group.rows, best, |x| style.write(x), style));
        }
        if asked.against.is_some() {
            // either mean may be off
            table.head.push(head(format!("Δ {name}"), format!("{name}_delta"), 2.0 * tolerance));
            for (group, row) in groups.iter().zip(&mut table.rows) {
                row.push(match reference(&groups, group, asked) {
                    Some(same) if std::ptr::eq(same, group) => Cell::faint("–"),
                    same => {
                        let delta = same.and_then(|same| delta(group, same, c));
                        let sign = |x: f64| if style.write(x).starts_with(['-', 'N']) { "" } else { "+" };
                        mean_cell(delta, group.rows, None, |x| format!("{}{}", sign(x), style.write(x)), style)
                    }
                });
            }
        }
    }
    let mut notes = Vec::new();
    if groups.iter().flat_map(|group| &group.means).any(|mean| mean.is_some_and(|mean| mean.deviation.is_some())) {
        notes.push(match &asked.per[..] {
            [] => "mean ± standard deviation over n rows".to_string(),
            per => format!("mean ± standard deviation over n means, each over the rows of one {}", per.join(", ")),
        });
    }
    if let Some(against) = &asked.against {
        let found = groups.iter().any(|group| group.keys.last() == Some(against));
        notes.push(match &asked.per[..] {
            _ if !found => format!("no row is called {against}, so there is nothing to compare with"),
            [] => format!("Δ: difference from the mean of {against}"),
            per => format!(
                "Δ: difference from {against}, pair by pair of one {}, mean ± standard deviation",
                per.join(", ")
            ),
        });
    }
    if !uneven.is_empty() {
        let (columns, per) = (uneven.join(", "), asked.per.join(", "));
        notes.push(format!("no best of {columns} is marked among rows that do not have it of the same {per}"));
    }
    if !partial.is_empty() {
        let columns = partial.join(", ");
        notes.push(format!(
            "no best of {columns} is marked where it would be a mean over fewer of its rows than others"
        ));
    }
    let lacking: Vec<String> = (asked.mean.iter().enumerate())
        .filter(|(c, name)| numeric(manifest, name) && groups.iter().all(|group| group.means[*c].is_none()))
        .map(|(_, name)| format!("`{name}`"))
        .collect();
    if !lacking.is_empty() {
        notes.push(format!(
            "{NOT_AVAILABLE}: no row has a value of {}; if that is for want of weights, `effigy doctor` says how to get them",
            lacking.join(", ")
        ));
    }
    for name in asked.mean.iter().filter(|name| !numeric(manifest, name)) {
        match manifest.schema().ty(name) {
            Some(ty) => notes.push(format!("`{name}` is {ty}, not a number")),
            None => notes.push(format!("there is no column `{name}`")),
        }
    }
    if groups.len() > shown {
        notes.push(format!("the first {shown} of {} groups", groups.len()));
    }
    table.note = (!notes.is_empty()).then(|| notes.join("; "));
    Ok(table)
}

/// A mean as a cell; `write` writes it, `style` its spread. What it is the mean of is said where it is not all of the
/// group's rows.
fn mean_cell(
    mean: Option<Number>,
    rows: usize,
    best: Option<f64>,
    write: impl Fn(f64) -> String,
    style: Style,
) -> Cell {
    let Some(Number { value, deviation, n }) = mean else { return Cell::faint(NOT_AVAILABLE) };
    let spread = deviation.filter(|d| d.is_finite()).map_or(String::new(), |d| format!("± {}", style.write(d)));
    let count = if n < rows { format!("(n = {n})") } else { String::new() };
    Cell { spread, count, best: best == Some(value), number: mean, ..Cell::new(write(value)) }
}

fn flush_right(manifest: &Manifest, column: &str) -> bool {
    matches!(manifest.schema().ty(column), Some(Type::I64 | Type::F64))
}

/// Whether more (`true`) or less is better in a column; `None` if the recipe does not say.
fn direction(asked: &TableItem, name: &String) -> Option<bool> {
    asked.higher.contains(name).then_some(true).or_else(|| asked.lower.contains(name).then_some(false))
}

fn arrow(asked: &TableItem, name: &String) -> &'static str {
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

fn plain(manifest: &Manifest, asked: &TableItem, shown: usize) -> Table {
    let all: Vec<String> = manifest.schema().names().iter().map(|name| name.to_string()).collect();
    let chosen: Vec<String> = match asked.columns.is_empty() {
        true => all,
        false => asked.by.iter().chain(&asked.columns).cloned().collect(),
    };
    let shown = manifest.len().min(shown);
    let mut table = Table { rows: vec![Vec::new(); shown], ..Table::default() };
    let mut notes = Vec::new();
    for name in &chosen {
        let number = flush_right(manifest, name);
        let code = manifest.schema().ty(name) == Some(Type::Blob);
        table.head.push(Head { text: format!("{name}{}", arrow(asked, name)), number, code, ..Head::default() });
        let Ok(values) = manifest.column(name) else {
            notes.push(format!("there is no column `{name}`"));
            table.rows.iter_mut().for_each(|row| row.push(Cell::faint(NOT_AVAILABLE)));
            continue;
        };
        let number_column = numeric(manifest, name);
        let all_null = values.iter().all(|value| *value == Value::Null);
        let best = best(values.iter().filter_map(as_number), direction(asked, name));
        // these are numbers that somebody gave, with as many digits as that
        let style = Style::of(values.iter().filter_map(as_number)).given(values.iter().filter_map(as_number));
        for (row, value) in table.rows.iter_mut().zip(&values) {
            let text = match value {
                Value::F64(x) => style.write(*x),
                other => numbers::value(other),
            };
            let best = best.is_some() && as_number(value) == best;
            let number = as_number(value).map(|value| Number { value, deviation: None, n: 1 });
            row.push(match value {
                Value::Null if number_column || all_null => Cell::faint(NOT_AVAILABLE),
                Value::Null | Value::Blob(_) => Cell::faint(text),
                _ => Cell { best, number, ..Cell::new(text) },
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
            let text = format!("{} {}", cell.text, cell.behind()).trim().to_string();
            if cell.best { format!("*{text}*") } else { text }
        };
        let rows = table.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        (table.head.into_iter().map(|head| head.text).collect(), rows, table.note)
    }

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    fn asked(by: &str, mean: &str, higher: &str, lower: &str) -> TableItem {
        let (by, mean, higher, lower) = (names(by), names(mean), names(higher), names(lower));
        TableItem { by, mean, higher, lower, ..TableItem::default() }
    }

    #[test]
    fn means_by_group_with_the_best_marked() {
        let filter = vec![("held_out".to_string(), vec![Value::Bool(true)])];
        let note = Some("LPIPS needs weights.".into());
        let held_out = TableItem { filter, note, ..asked("method", "psnr lpips ssim", "psnr", "") };
        let (head, rows, note) = texts(table(&scores(), &held_out, SHOWN).unwrap());
        assert_eq!(head, ["method", "n", "psnr ↑", "lpips", "ssim"]);
        // the deviation of 24 and 26 is the square root of 2
        assert_eq!(rows[0], ["ours", "2", "*25.00 ± 1.41*", "n/a", "n/a"]);
        assert_eq!(rows[1], ["mean", "2", "18.50 (n = 1)", "n/a", "n/a"]);
        assert_eq!(rows.len(), 2);
        let said = "n/a: no row has a value of `lpips`; if that is for want of weights, `effigy doctor` says how to get them; there is no column `ssim`; rows where held_out is yes; LPIPS needs weights.";
        assert!(note.as_ref().unwrap().ends_with(said), "{note:?}");

        let (head, rows, _) = texts(table(&scores(), &asked("", "psnr", "", "psnr"), SHOWN).unwrap());
        assert_eq!((head[0].as_str(), &rows[0][..2]), ("n", &["5".to_string(), "inf (n = 4)".into()][..]));
        let (_, rows, _) = texts(table(&scores(), &asked("method", "psnr", "", "psnr"), SHOWN).unwrap());
        assert_eq!(
            rows.iter().map(|row| row[2].as_str()).collect::<Vec<_>>(),
            // the least, but of one row of two
            ["25.00 ± 1.41", "18.50 (n = 1)", "inf"]
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
        let people = TableItem { per: names("person"), ..asked("method", "mm", "", "mm") };
        let (_, rows, note) = texts(table(&manifest, &people, SHOWN).unwrap());
        // the mean of 2 and 4, not that of 1, 3 and 4
        assert_eq!(rows, [["ours", "2", "*3.000 ± 1.414*"], ["mean", "2", "9.000 (n = 1)"]]);
        assert!(note.unwrap().contains("over n means, each over the rows of one person"));
        let block = table(&manifest, &TableItem { per: names("nobody"), ..people }, SHOWN).unwrap();
        assert!(matches!(&block, Block::Notice(text) if text.contains("there is no column `nobody`")), "{block:?}");
    }

    #[test]
    fn nobody_is_the_best_by_leaving_out_rows() {
        let schema = Schema::new([("method", Type::Str), ("person", Type::I64), ("error", Type::F64)]).unwrap();
        let row = |method: &str, person, error| vec![Value::Str(method.into()), Value::I64(person), error];
        let mut rows = Vec::new();
        for person in [1, 2] {
            for hard in [false, true] {
                rows.push(row("ours", person, Value::F64(if hard { 4.0 } else { 2.0 })));
                rows.push(row("theirs", person, if hard { Value::Null } else { Value::F64(2.5) }));
            }
        }
        let manifest = Manifest::from_rows(schema, &rows).unwrap();
        for per in ["", "person"] {
            for (lower, mark) in [(true, false), (false, true)] {
                let (higher, lower) = if lower { ("", "error") } else { ("error", "") };
                let item = TableItem { per: names(per), ..asked("method", "error", higher, lower) };
                let (_, rows, note) = texts(table(&manifest, &item, SHOWN).unwrap());
                assert_eq!((rows[0][2].contains('*'), rows[1][2].contains('*')), (mark, false), "{rows:?}");
                assert_eq!(note.unwrap().contains("no best of `error` is marked"), !mark);
            }
        }
    }

    #[test]
    fn differences_from_a_row_are_those_of_pairs() {
        let schema = Schema::new([("variant", Type::Str), ("seed", Type::I64), ("psnr", Type::F64)]).unwrap();
        let row = |variant: &str, seed, psnr| vec![Value::Str(variant.into()), Value::I64(seed), Value::F64(psnr)];
        let rows = [
            row("full", 1, 20.0),
            row("full", 2, 30.0),
            row("less", 1, 19.0),
            row("less", 2, 29.5),
            row("less", 3, 50.0),
            row("once", 2, 31.0),
        ];
        let manifest = Manifest::from_rows(schema, &rows).unwrap();
        let against = Some("full".to_string());
        let paired = TableItem { per: names("seed"), against, ..asked("variant", "psnr", "psnr", "") };
        let (head, rows, note) = texts(table(&manifest, &paired, SHOWN).unwrap());
        assert_eq!(head, ["variant", "n", "psnr ↑", "Δ psnr"]);
        // seeds differ by ten, pairs by half: the third seed has no partner
        let deltas: Vec<&str> = rows.iter().map(|row| row[3].as_str()).collect();
        assert_eq!(deltas, ["–", "-0.75 ± 0.35 (n = 2)", "+1.00"]);
        let note = note.unwrap();
        assert!(note.contains("pair by pair of one seed"), "{note}");
        // by its third seed `less` would be the best, and by the two that `full` has too it is the worse one
        let means: Vec<&str> = rows.iter().map(|row| row[2].as_str()).collect();
        assert_eq!(means, ["25.00 ± 7.07", "32.83 ± 15.77", "31.00"]);
        assert!(note.contains("no best of `psnr` is marked among rows that do not have it of the same seed"), "{note}");
        // two seeds of both, and one of both
        for kept in [&[0, 1, 2, 3][..], &[1, 3]] {
            let (_, rows, note) = texts(table(&manifest.take(kept), &paired, SHOWN).unwrap());
            assert!(rows[0][2].starts_with('*') && !rows[1][2].contains('*'), "{rows:?}");
            assert!(!note.unwrap().contains("no best"));
        }
        let (_, rows, note) = texts(table(&manifest, &TableItem { per: Vec::new(), ..paired.clone() }, SHOWN).unwrap());
        assert_eq!((rows[0][3].as_str(), rows[2][3].as_str()), ("–", "+6.00"));
        assert!(note.unwrap().contains("difference from the mean of full"));
        let (_, rows, note) =
            texts(table(&manifest, &TableItem { against: Some("all".into()), ..paired }, SHOWN).unwrap());
        assert!(rows.iter().all(|row| row[3] == "n/a") && note.unwrap().contains("no row is called all"));
    }

    #[test]
    fn the_best_is_that_of_rows_that_differ_in_the_last_column_alone() {
        let schema = Schema::new([("split", Type::Str), ("method", Type::Str), ("psnr", Type::F64)]).unwrap();
        let row = |split: &str, method: &str, psnr| {
            vec![Value::Str(split.into()), Value::Str(method.into()), Value::F64(psnr)]
        };
        let rows = [row("b", "ours", 20.0), row("a", "ours", 30.0), row("b", "mean", 10.0), row("a", "mean", 31.0)];
        let asked = asked("split method", "psnr", "psnr", "");
        let (_, rows, _) = texts(table(&Manifest::from_rows(schema, &rows).unwrap(), &asked, SHOWN).unwrap());
        let shown: Vec<String> = rows.iter().map(|row| [&row[..2], &row[3..]].concat().join(" ")).collect();
        assert_eq!(shown, ["b ours *20.00*", "b mean 10.00", "a ours 30.00", "a mean *31.00*"]);
    }

    #[test]
    fn equal_ones_are_all_the_best() {
        let schema = Schema::new([("method", Type::Str), ("psnr", Type::F64)]).unwrap();
        let row = |method: &str, psnr| vec![Value::Str(method.into()), Value::F64(psnr)];
        let rows = [row("a", 20.0), row("b", 20.0), row("c", 10.0)];
        let manifest = Manifest::from_rows(schema, &rows).unwrap();
        let (_, rows, _) = texts(table(&manifest, &asked("method", "psnr", "psnr", ""), SHOWN).unwrap());
        assert_eq!(rows.iter().map(|row| row[2].as_str()).collect::<Vec<_>>(), ["*20.00*", "*20.00*", "10.00"]);
    }

    #[test]
    fn rows_as_they_are_and_tables_that_cannot_be() {
        let columns = names("method psnr");
        let plain = TableItem { columns: columns.clone(), ..asked("", "", "method psnr", "") };
        let (_, rows, _) = texts(table(&scores(), &plain, SHOWN).unwrap());
        assert_eq!((rows[0][1].as_str(), rows[3][1].as_str(), rows[4][1].as_str()), ("24.0", "n/a", "*inf*"));

        let Block::Notice(text) = table(&scores(), &TableItem { by: names("metod"), ..plain }, SHOWN).unwrap() else {
            panic!()
        };
        assert!(text.contains("`metod`") && text.contains("method"), "{text}");
    }
}
