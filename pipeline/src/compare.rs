//! Two tables against each other, row by row: which rows are the same, which changed and in what columns, which came
//! and went. Rows that are not the same are brought together by the columns that tell rows apart. How rows are called,
//! and which are meant by a name, is told here as well. Knows no runs.

use crate::key::show;
use anyhow::Result;
use manifests::{Digest, Manifest, Type, Value};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// What differs between two tables.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Compared {
    /// Rows of the old table and of the new one.
    pub rows: (usize, usize),
    /// Rows that are in both, with the same values in all columns that both have.
    pub same: usize,
    /// Rows whose values differ.
    pub changed: usize,
    /// Rows only the new table has.
    pub added: usize,
    /// Rows only the old table has.
    pub removed: usize,
    /// Whether rows that are the same stand in another order.
    pub reordered: bool,
    /// The columns by which rows were brought together; none: by their order.
    pub by: Vec<String>,
    /// Columns only the new table has.
    pub columns_added: Vec<String>,
    /// Columns only the old table has.
    pub columns_removed: Vec<String>,
    /// Columns of another type now, with both.
    pub columns_retyped: Vec<(String, String, String)>,
    /// The columns in which rows changed.
    pub columns: Vec<ColumnChange>,
    /// Some of the rows that changed.
    pub examples: Vec<RowChange>,
    /// Some of the rows that came, by name.
    pub came: Vec<String>,
    /// Some of the rows that went, by name.
    pub went: Vec<String>,
}

/// How a column changed.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnChange {
    /// Its name.
    pub column: String,
    /// In how many rows.
    pub rows: usize,
    /// Means before and after over the rows in which it changed, for numbers.
    pub mean: Option<(f64, f64)>,
    /// The largest change, for numbers.
    pub largest: Option<f64>,
}

/// A row that changed.
#[derive(Clone, Debug, Serialize)]
pub struct RowChange {
    /// The row, for people.
    pub row: String,
    /// Column, old and new value.
    pub cells: Vec<(String, String, String)>,
}

/// How the rows of a table are called: by columns in which they differ, from the left as many as tell all of them
/// apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    columns: Vec<String>,
}

/// A longer value than this names nothing to anybody.
const NAMED: usize = 200;

fn short(value: &str) -> String {
    match value.char_indices().nth(NAMED) {
        None => value.into(),
        Some((end, _)) => format!("{}…", &value[..end]),
    }
}

impl Naming {
    /// That of a table: by text and integers, and by truth values where these leave rows alike; by the first two of
    /// them if no column differs. Reads each column once at most.
    pub fn of(table: &Manifest) -> Naming {
        let telling = telling(table);
        let flags = table.schema().columns().iter().filter(|column| column.ty == Type::Bool);
        let flags: Vec<String> = flags.map(|column| column.name.clone()).collect();
        // rows of one class are alike in all columns that were looked at
        let (mut classes, mut count) = (vec![0; table.len()], table.len().min(1));
        let mut columns: Vec<String> = Vec::new();
        for name in telling.iter().chain(&flags) {
            if count == table.len() {
                break;
            }
            let Ok(values) = encoded(table, std::slice::from_ref(name)) else { continue };
            if values.windows(2).all(|pair| pair[0] == pair[1]) {
                continue;
            }
            let mut known: HashMap<(usize, Digest), usize> = HashMap::with_capacity(count);
            let finer = classes.iter().zip(values).map(|(&class, value)| {
                let next = known.len();
                *known.entry((class, value)).or_insert(next)
            });
            let finer: Vec<usize> = finer.collect();
            if known.len() > count {
                (classes, count) = (finer, known.len());
                columns.push(name.clone());
            }
        }
        if columns.is_empty() {
            columns = telling.into_iter().take(2).collect();
        }
        columns.sort_by_key(|name| table.schema().position(name));
        Naming { columns }
    }

    /// The columns by which rows are called, in the order of the table.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The name of a row; its number if no column tells anything of it.
    pub fn name(&self, table: &Manifest, row: usize) -> String {
        let facts: Vec<String> =
            self.facts(table, row).map(|(name, value)| format!("{name}={}", short(&show(&value)))).collect();
        if facts.is_empty() { format!("row {row}") } else { facts.join(", ") }
    }

    /// The columns by which rows are called, in the order of the table, with the values of a row.
    pub fn facts<'a>(&'a self, table: &'a Manifest, row: usize) -> impl Iterator<Item = (&'a str, Value)> {
        self.columns.iter().filter_map(move |name| Some((name.as_str(), table.value(row, name).ok()?)))
    }
}

/// The rows that somebody means by some words, in order. `COLUMN=VALUE`, or several of them with commas between, means
/// the rows with these values, in any columns; other words mean the rows whose name holds them, or if there is none,
/// those of which some text or integer does.
pub fn meant(table: &Manifest, words: &str) -> Vec<usize> {
    let facts: Option<Vec<(&str, &str)>> = words.split(',').map(|part| part.trim().split_once('=')).collect();
    let is_there = |(name, _): &(&str, &str)| table.schema().position(name).is_some();
    if let Some(facts) = facts.filter(|facts| facts.iter().all(is_there)) {
        let mut rows: Vec<usize> = (0..table.len()).collect();
        for (name, wanted) in &facts {
            let values = table.column(name).unwrap_or_default();
            let number = wanted.parse::<f64>().ok();
            let is = |value: &Value| show(value) == *wanted || number.is_some() && self::number(value) == number;
            rows.retain(|&row| is(&values[row]));
        }
        // of a text the beginning may do, but not of a number
        let texts = facts.iter().all(|(name, _)| table.schema().ty(name) == Some(Type::Str));
        if !rows.is_empty() || !texts {
            return rows;
        }
    }
    let holding = |naming: &Naming| -> Vec<usize> {
        (0..table.len()).filter(|&row| naming.name(table, row).contains(words)).collect()
    };
    let named = holding(&Naming::of(table));
    if named.is_empty() { holding(&Naming { columns: telling(table) }) } else { named }
}

fn telling(table: &Manifest) -> Vec<String> {
    let tells = |ty: Type| matches!(ty, Type::Str | Type::I64);
    table.schema().columns().iter().filter(|column| tells(column.ty)).map(|column| column.name.clone()).collect()
}

/// Compares two tables, in these columns only if some are named (others still tell rows apart); shows at most `most`
/// rows of each kind.
///
/// # Errors
/// If a table cannot be read.
pub fn compare(old: &Manifest, new: &Manifest, only: Option<&[String]>, most: usize) -> Result<Compared> {
    let asked = |name: &str| only.is_none_or(|only| only.iter().any(|known| known == name));
    let mut told = Compared { rows: (old.len(), new.len()), ..Compared::default() };
    let shared = |column: &&manifests::Column| new.schema().ty(&column.name) == Some(column.ty);
    let shared: Vec<String> = old.schema().columns().iter().filter(shared).map(|column| column.name.clone()).collect();
    let mut common = Vec::new();
    for column in old.schema().columns().iter().filter(|column| asked(&column.name)) {
        match new.schema().ty(&column.name) {
            None => told.columns_removed.push(column.name.clone()),
            Some(ty) if ty != column.ty => {
                told.columns_retyped.push((column.name.clone(), column.ty.to_string(), ty.to_string()));
            }
            Some(_) => common.push(column.name.clone()),
        }
    }
    let is_new = |name: &&str| asked(name) && old.schema().position(name).is_none();
    told.columns_added = new.schema().names().into_iter().filter(is_new).map(str::to_string).collect();

    let (mut gone, mut fresh) = same_rows(old, new, &common, &mut told)?;
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    if !gone.is_empty() && !fresh.is_empty() {
        told.by = identity(old, new, &shared)?;
        let mut partners: HashMap<Digest, VecDeque<usize>> = HashMap::new();
        let (of_old, of_new) = (encoded(old, &told.by)?, encoded(new, &told.by)?);
        let replaced = told.same == 0 && old.len() == new.len();
        if told.by.is_empty() {
            let together = gone.len().min(fresh.len());
            pairs = gone.drain(..together).zip(fresh.drain(..together)).collect();
        } else {
            gone.iter().for_each(|&row| partners.entry(of_old[row]).or_default().push_back(row));
            fresh.retain(|&row| match partners.get_mut(&of_new[row]).and_then(VecDeque::pop_front) {
                Some(partner) => {
                    pairs.push((partner, row));
                    false
                }
                None => true,
            });
            let paired: HashSet<usize> = pairs.iter().map(|(old, _)| *old).collect();
            gone.retain(|row| !paired.contains(row));
            if pairs.is_empty() && replaced {
                // what tells rows apart is what changed
                told.by.clear();
                pairs = gone.drain(..).zip(fresh.drain(..)).collect();
            }
        }
    }
    (told.changed, told.added, told.removed) = (pairs.len(), fresh.len(), gone.len());
    let names = |table: &Manifest, rows: &[usize]| -> Vec<String> {
        let naming = Naming::of(table);
        rows.iter().take(most).map(|&row| naming.name(table, row)).collect()
    };
    told.came = if fresh.is_empty() { Vec::new() } else { names(new, &fresh) };
    told.went = if gone.is_empty() { Vec::new() } else { names(old, &gone) };
    cells(old, new, &common, &pairs, most, &mut told)?;
    Ok(told)
}

/// The rows of both tables that belong together, in the new table's order, and the columns that say so; by their order
/// if there are none.
///
/// # Errors
/// If a table cannot be read.
pub fn together(old: &Manifest, new: &Manifest) -> Result<(Vec<String>, Vec<(usize, usize)>)> {
    let shared = |name: &&str| new.schema().ty(name) == old.schema().ty(name);
    let shared: Vec<String> = old.schema().names().into_iter().filter(shared).map(str::to_string).collect();
    let by = identity(old, new, &shared)?;
    if by.is_empty() {
        return Ok((by, (0..old.len().min(new.len())).map(|row| (row, row)).collect()));
    }
    let mut partners: HashMap<Digest, VecDeque<usize>> = HashMap::with_capacity(old.len());
    for (row, value) in encoded(old, &by)?.into_iter().enumerate() {
        partners.entry(value).or_default().push_back(row);
    }
    let partner = |(row, value)| Some((partners.get_mut(&value)?.pop_front()?, row));
    let pairs = encoded(new, &by)?.into_iter().enumerate().filter_map(partner).collect();
    Ok((by, pairs))
}

/// Takes out the rows that are the same; gives back the others of both tables.
fn same_rows(
    old: &Manifest,
    new: &Manifest,
    common: &[String],
    told: &mut Compared,
) -> Result<(Vec<usize>, Vec<usize>)> {
    let mut known: HashMap<Digest, VecDeque<usize>> = HashMap::with_capacity(old.len());
    for (row, value) in encoded(old, common)?.into_iter().enumerate() {
        known.entry(value).or_default().push_back(row);
    }
    let mut fresh = Vec::new();
    let mut last = None;
    for (row, value) in encoded(new, common)?.into_iter().enumerate() {
        match known.get_mut(&value).and_then(VecDeque::pop_front) {
            Some(before) => {
                told.same += 1;
                told.reordered |= last.is_some_and(|last| last > before);
                last = Some(before);
            }
            None => fresh.push(row),
        }
    }
    let mut gone: Vec<usize> = known.into_values().flatten().collect();
    gone.sort_unstable();
    Ok((gone, fresh))
}

/// The fewest columns from the left that tell all rows apart in both tables; all that could, if rows repeat. Columns
/// from the sources stand left of those that were computed.
fn identity(old: &Manifest, new: &Manifest, shared: &[String]) -> Result<Vec<String>> {
    let candidates: Vec<String> = telling(old).into_iter().filter(|name| shared.contains(name)).collect();
    for n in 1..candidates.len() {
        let distinct = |table: &Manifest| -> Result<bool> {
            let values = encoded(table, &candidates[..n])?;
            let count = values.len();
            Ok(values.into_iter().collect::<HashSet<_>>().len() == count)
        };
        if distinct(old)? && distinct(new)? {
            return Ok(candidates[..n].to_vec());
        }
    }
    Ok(candidates)
}

fn encoded(table: &Manifest, columns: &[String]) -> Result<Vec<Digest>> {
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    Ok(table.map_encoded(&names, Digest::of_bytes)?)
}

fn cells(
    old: &Manifest,
    new: &Manifest,
    common: &[String],
    pairs: &[(usize, usize)],
    most: usize,
    told: &mut Compared,
) -> Result<()> {
    let mut examples: BTreeMap<usize, Vec<(String, String, String)>> = BTreeMap::new();
    for name in common.iter().filter(|_| !pairs.is_empty()) {
        let (before, after) = (old.column(name)?, new.column(name)?);
        let (mut rows, mut sums, mut numbers, mut largest) = (0, (0.0, 0.0), 0, 0.0f64);
        for (i, &(a, b)) in pairs.iter().enumerate() {
            let (a, b) = (&before[a], &after[b]);
            if encode(a) == encode(b) {
                continue;
            }
            rows += 1;
            if i < most {
                examples.entry(i).or_default().push((name.clone(), show(a), show(b)));
            }
            if let (Some(a), Some(b)) = (number(a), number(b)) {
                sums = (sums.0 + a, sums.1 + b);
                numbers += 1;
                largest = largest.max((b - a).abs());
            }
        }
        if rows > 0 {
            let n = f64::from(numbers);
            let mean = (numbers > 0).then(|| (sums.0 / n, sums.1 / n));
            let largest = (numbers > 0).then_some(largest);
            told.columns.push(ColumnChange { column: name.clone(), rows, mean, largest });
        }
    }
    let naming = if examples.is_empty() { Naming::default() } else { Naming::of(new) };
    let example = |(i, cells): (usize, _)| RowChange { row: naming.name(new, pairs[i].1), cells };
    told.examples = examples.into_iter().map(example).collect();
    Ok(())
}

fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::I64(number) => Some(*number as f64),
        Value::F64(number) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifests::Schema;

    fn table(rows: &[(&str, i64, f64)]) -> Manifest {
        let schema = Schema::new([("name", Type::Str), ("n", Type::I64), ("x", Type::F64)]).unwrap();
        let row = |(name, n, x): &(&str, i64, f64)| vec![Value::Str((*name).into()), Value::I64(*n), Value::F64(*x)];
        Manifest::from_rows(schema, &rows.iter().map(row).collect::<Vec<_>>()).unwrap()
    }

    fn counts(told: &Compared) -> (usize, usize, usize, usize) {
        (told.same, told.changed, told.added, told.removed)
    }

    #[test]
    fn rows_are_brought_together_by_what_tells_them_apart() {
        let old = table(&[("a", 1, 1.0), ("b", 2, 2.0), ("c", 3, 3.0)]);
        let told = compare(&old, &table(&[("c", 3, 3.0), ("a", 9, 1.5), ("d", 4, 4.0)]), None, 3).unwrap();
        assert_eq!(counts(&told), (1, 1, 1, 1));
        assert_eq!((told.by.as_slice(), told.reordered), (["name".to_string()].as_slice(), false));
        let changed: Vec<(&str, usize)> = told.columns.iter().map(|one| (one.column.as_str(), one.rows)).collect();
        assert_eq!(changed, [("n", 1), ("x", 1)], "a computed integer does not tell rows apart");
        assert_eq!((told.columns[1].mean, told.columns[1].largest), (Some((1.0, 1.5)), Some(0.5)));
        let (by, pairs) = together(&old, &table(&[("c", 3, 3.0), ("a", 9, 1.5), ("d", 4, 4.0)])).unwrap();
        assert_eq!((by.as_slice(), pairs.as_slice()), (["name".to_string()].as_slice(), [(2, 0), (0, 1)].as_slice()));
        assert_eq!(told.examples[0].cells[0], ("n".into(), "1".into(), "9".into()));
        assert_eq!((told.came[0].as_str(), told.went[0].as_str()), ("name=d", "name=b"));
    }

    #[test]
    fn rows_are_called_by_what_differs() {
        let schema =
            [("who", Type::Str), ("seq", Type::Str), ("take", Type::I64), ("t", Type::I64), ("lost", Type::Bool)];
        let row = |seq: &str, take, t, lost| {
            vec![Value::Str("me".into()), Value::Str(seq.into()), Value::I64(take), Value::I64(t), Value::Bool(lost)]
        };
        let table = |rows: &[Vec<Value>]| Manifest::from_rows(Schema::new(schema).unwrap(), rows).unwrap();
        let names = |rows: &[Vec<Value>]| -> Vec<String> {
            let table = table(rows);
            let naming = Naming::of(&table);
            (0..table.len()).map(|row| naming.name(&table, row)).collect()
        };
        // `who` says nothing, `take` no more than `seq`, and `lost` is not needed
        let rows = [row("a", 1, 0, true), row("a", 1, 1, false), row("b", 2, 0, false)];
        assert_eq!(names(&rows), ["seq=a, t=0", "seq=a, t=1", "seq=b, t=0"]);
        assert_eq!(names(&rows[..1]), ["who=me, seq=a"], "a row that is alone");
        assert_eq!(names(&[row("a", 1, 0, true), row("a", 1, 0, false)]), ["lost=true", "lost=false"]);
        assert_eq!(names(&[rows[0].clone(), rows[0].clone()]), ["who=me, seq=a", "who=me, seq=a"]);
        let unnamed = Manifest::unit(2);
        assert_eq!(Naming::of(&unnamed).name(&unnamed, 1), "row 1");

        let table = table(&[rows[0].clone(), rows[1].clone(), rows[2].clone(), row("b", 2, 10, true)]);
        let meant = |words: &str| meant(&table, words);
        assert_eq!((meant("t=1"), meant("t=0"), meant("t=7")), (vec![1], vec![0, 2], vec![]), "not t=10");
        assert_eq!((meant("lost=true"), meant("who=me, t=10"), meant("take=2")), (vec![0, 3], vec![3], vec![2, 3]));
        assert_eq!((meant("seq=b, t=1"), meant("=b, t=1"), meant("who=m")), (vec![], vec![3], vec![0, 1, 2, 3]));
    }

    #[test]
    fn repeated_rows_are_counted_and_order_is_told() {
        let old = table(&[("a", 1, 1.0), ("a", 1, 1.0), ("b", 2, 2.0)]);
        let told = compare(&old, &table(&[("b", 2, 2.0), ("a", 1, 1.0)]), None, 3).unwrap();
        assert_eq!((counts(&told), told.reordered), ((2, 0, 0, 1), true));
        let nan = table(&[("a", 1, f64::NAN)]);
        assert_eq!(compare(&nan, &nan, None, 3).unwrap().same, 1);
    }

    #[test]
    fn a_table_whose_names_all_changed_is_compared_by_order() {
        let told = compare(&table(&[("a", 1, 1.0)]), &table(&[("b", 1, 1.0)]), None, 3).unwrap();
        assert_eq!((counts(&told), told.by.len(), told.columns[0].column.as_str()), ((0, 1, 0, 0), 0, "name"));
        let only = ["x".to_string()];
        assert_eq!(compare(&table(&[("a", 1, 1.0)]), &table(&[("b", 1, 1.0)]), Some(&only), 3).unwrap().same, 1);
    }

    #[test]
    fn columns_that_came_and_went_are_named() {
        let old = table(&[("a", 1, 1.0)]);
        let new = old.select(&["name", "n"]).unwrap().renamed(&["name", "m"]).unwrap();
        let told = compare(&old, &new, None, 3).unwrap();
        assert_eq!((told.columns_added, told.columns_removed), (vec!["m".to_string()], vec!["n".into(), "x".into()]));
        assert_eq!(told.same, 1);
    }
}
