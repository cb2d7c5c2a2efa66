//! The rows of a table in groups: means, spreads and counts through polars, and what sets groups apart.
//!
//! Knows which columns are averaged and what counts once, not what is best or how a cell looks.

use super::document::Number;
use super::numbers;
use crate::finished::TableItem;
use manifests::{Manifest, Type, Value};
use polars::prelude::*;
use std::collections::{HashMap, HashSet};

/// Mean, spread and count of each column in each group of rows.
#[derive(Default)]
pub(super) struct Group {
    pub keys: Vec<String>,
    pub rows: usize,
    /// For each averaged column its mean; none if no row has a value.
    pub means: Vec<Option<Number>>,
    /// For each averaged column the share of the rows that has a value.
    shares: Vec<f64>,
    /// For each of what counts once, by its name: its value in each averaged column. Empty without `per:`.
    units: HashMap<Vec<String>, Vec<Option<f64>>>,
}

impl Group {
    /// What it shares with the groups it is compared with.
    pub fn section(&self) -> &[String] {
        &self.keys[..self.keys.len().saturating_sub(1)]
    }

    /// The share of its rows that has a value in a column; none if no row has.
    pub fn share(&self, column: usize) -> Option<f64> {
        Some(self.shares[column]).filter(|share| *share > 0.0)
    }

    /// What counts once and has a value in a column.
    fn valued(&self, column: usize) -> HashSet<&[String]> {
        let there = self.units.iter().filter(|(_, values)| values[column].is_some());
        there.map(|(unit, _)| unit.as_slice()).collect()
    }
}

/// Groups that share their first keys stand together, each in the order of its first row.
pub(super) fn together(groups: Vec<Group>) -> Vec<Group> {
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

pub(super) fn grouped(manifest: &Manifest, asked: &TableItem) -> anyhow::Result<Vec<Group>> {
    let TableItem { by, mean, per, .. } = asked;
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
    // of rows, whatever counts once: groups come in the same order below
    let filled = |i| col(format!("value{i}")).count().cast(DataType::Float64) / len().cast(DataType::Float64);
    let filled: Vec<Expr> = (0..mean.len()).map(|i| filled(i).alias(format!("share{i}"))).collect();
    let shares = rows.clone().group_by_stable(keys.clone()).agg(filled).collect()?;
    if !per.is_empty() {
        let units = keys.iter().cloned().chain((0..per.len()).map(|i| col(format!("unit{i}"))));
        let shown = (0..by.len()).map(|i| col(format!("shown{i}")).first());
        let means = (0..mean.len()).map(|i| col(format!("value{i}")).mean());
        rows = rows.group_by_stable(units.collect::<Vec<_>>()).agg(shown.chain(means).collect::<Vec<_>>());
    }
    // what counts once is kept for pairs; without `per:` that is nothing
    let single = if per.is_empty() { None } else { Some(rows.clone().collect()?) };
    let frame = rows.group_by_stable(keys).agg(sums).collect()?;
    let floats = |name: String| -> PolarsResult<Vec<Option<f64>>> { Ok(frame.column(&name)?.f64()?.iter().collect()) };
    let texts = |name: String| -> PolarsResult<Vec<String>> {
        Ok(frame.column(&name)?.str()?.iter().map(|text| text.unwrap_or_default().to_string()).collect())
    };
    let count = |x: Option<f64>| x.unwrap_or(0.0) as usize;
    let rows = floats("rows".into())?;
    let mut groups: Vec<Group> = rows.into_iter().map(|rows| Group { rows: count(rows), ..Group::default() }).collect();
    for i in 0..by.len() {
        texts(format!("shown{i}"))?.into_iter().zip(&mut groups).for_each(|(key, group)| group.keys.push(key));
    }
    for i in 0..mean.len() {
        let parts = [floats(format!("mean{i}"))?, floats(format!("deviation{i}"))?, floats(format!("count{i}"))?];
        for (g, group) in groups.iter_mut().enumerate() {
            let (deviation, n) = (parts[1][g], count(parts[2][g]));
            group.means.push(parts[0][g].map(|value| Number { value, deviation, n }));
        }
        let shares = shares.column(&format!("share{i}"))?.f64()?.iter();
        groups.iter_mut().zip(shares).for_each(|(group, share)| group.shares.push(share.unwrap_or(0.0)));
    }
    if let Some(single) = single {
        let texts = |frame: &DataFrame, name: String| -> PolarsResult<Vec<String>> {
            Ok(frame.column(&name)?.str()?.iter().map(|text| text.unwrap_or_default().to_string()).collect())
        };
        let exact = |frame: &DataFrame, name: &str, n: usize| -> PolarsResult<Vec<Vec<String>>> {
            (0..n).map(|i| texts(frame, format!("{name}{i}"))).collect()
        };
        let (group_keys, keys, units) =
            (exact(&frame, "key", by.len())?, exact(&single, "key", by.len())?, exact(&single, "unit", per.len())?);
        let of = |columns: &[Vec<String>], row: usize| columns.iter().map(|column| column[row].clone()).collect();
        let places: HashMap<Vec<String>, usize> = (0..groups.len()).map(|g| (of(&group_keys, g), g)).collect();
        let values = (0..mean.len())
            .map(|i| Ok(single.column(&format!("value{i}"))?.f64()?.iter().collect()))
            .collect::<PolarsResult<Vec<Vec<Option<f64>>>>>()?;
        for row in 0..single.height() {
            let group = &mut groups[places[&of(&keys, row)]];
            group.units.insert(of(&units, row), values.iter().map(|column| column[row]).collect());
        }
    }
    Ok(groups)
}

pub(super) fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::F64(x) => Some(*x),
        Value::I64(x) => Some(*x as f64),
        Value::Bool(x) => Some(f64::from(u8::from(*x))),
        _ => None,
    }
}

/// Whether all groups that have values in a column have them of the same of what counts once; always so without `per:`.
pub(super) fn alike(groups: &[Group], column: usize) -> bool {
    let mut sets = groups.iter().map(|group| group.valued(column)).filter(|set| !set.is_empty());
    let first = sets.next();
    sets.all(|set| first.as_ref() == Some(&set))
}

/// The group that one is compared with.
pub(super) fn reference<'a>(groups: &'a [Group], group: &Group, asked: &TableItem) -> Option<&'a Group> {
    groups.iter().find(|other| other.section() == group.section() && other.keys.last() == asked.against.as_ref())
}

/// How much more a group has in a column than another: by what counts once, where both have it, or of the means.
pub(super) fn delta(group: &Group, than: &Group, column: usize) -> Option<Number> {
    if group.units.is_empty() {
        let value = group.means[column]?.value - than.means[column]?.value;
        return Some(Number { value, deviation: None, n: group.rows });
    }
    let pair =
        |(unit, values): (&Vec<String>, &Vec<Option<f64>>)| Some(values[column]? - than.units.get(unit)?[column]?);
    let mut pairs: Vec<f64> = group.units.iter().filter_map(pair).collect();
    // sums do not depend on the order of a hash map
    pairs.sort_by(f64::total_cmp);
    let n = pairs.len();
    let value = pairs.iter().sum::<f64>() / n as f64;
    let squares = pairs.iter().map(|x| (x - value).powi(2)).sum::<f64>();
    (n > 0).then(|| Number { value, deviation: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()), n })
}

pub(super) fn numeric(manifest: &Manifest, column: &str) -> bool {
    matches!(manifest.schema().ty(column), Some(Type::I64 | Type::F64 | Type::Bool))
}
