//! From a table to units of work, and from their outputs back to a table. Pure: knows no cache and no worker.

use crate::hints::hinted;
use crate::stage::UnitStage;
use crate::task::Output;
use anyhow::Result;
use manifests::{Manifest, Schema, Type, Value};
use protocol::Grain;
use std::collections::HashMap;

/// The rows of each unit.
pub enum Units {
    /// Each row is a unit: `0..n`, kept so that units are slices.
    Rows(Vec<usize>),
    /// Units of several rows, or of none.
    Many(Vec<Vec<usize>>),
}

impl Units {
    /// Cuts a table into units. A stage without input has one unit without rows.
    pub fn cut(stage: &UnitStage, table: Option<&Manifest>) -> Result<Units> {
        let Some(table) = table else { return Ok(Units::Many(vec![Vec::new()])) };
        Ok(match stage.def.grain {
            Grain::Row => Units::Rows((0..table.len()).collect()),
            Grain::Whole => Units::Many(vec![(0..table.len()).collect()]),
            Grain::Group => {
                let by: Vec<&str> = stage.by.iter().map(String::as_str).collect();
                let mut groups: Vec<Vec<usize>> = Vec::new();
                let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
                for (row, key) in table.map_encoded(&by, <[u8]>::to_vec)?.into_iter().enumerate() {
                    let group = *known.entry(key).or_insert_with(|| {
                        groups.push(Vec::new());
                        groups.len() - 1
                    });
                    groups[group].push(row);
                }
                Units::Many(groups)
            }
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Units::Rows(rows) => rows.len(),
            Units::Many(units) => units.len(),
        }
    }

    /// The rows of one.
    pub fn rows(&self, unit: usize) -> &[usize] {
        match self {
            Units::Rows(rows) => &rows[unit..=unit],
            Units::Many(units) => &units[unit],
        }
    }
}

/// What tells a unit from the others of its stage, for people: the group it is, or the text and integers of its row.
pub fn name(stage: &UnitStage, table: &Manifest, rows: &[usize]) -> String {
    let Some(&first) = rows.first() else { return "the whole stage".into() };
    let fact = |name: &str| table.value(first, name).map(|value| format!("{name}={}", crate::key::show(&value)));
    match stage.def.grain {
        Grain::Whole => "all rows".into(),
        Grain::Group => stage.by.iter().filter_map(|name| fact(name).ok()).collect::<Vec<_>>().join(", "),
        Grain::Row => {
            // files and floats tell people nothing
            let tells = |ty: Type| matches!(ty, Type::Str | Type::I64);
            let columns = table.schema().columns().iter().filter(|column| tells(column.ty)).take(4);
            let facts: Vec<String> = columns.filter_map(|column| fact(&column.name).ok()).collect();
            if facts.is_empty() { format!("row {first}") } else { facts.join(", ") }
        }
    }
}

/// The stage's table: for each unit in order its output rows, after the columns of the rows they extend. Units without an
/// output (they failed, and that is allowed) have no rows.
///
/// # Errors
/// If rows of different units do not fit into one table.
pub fn assemble(
    stage: &UnitStage,
    table: Option<&Manifest>,
    units: &Units,
    outputs: &[Option<&Output>],
) -> Result<Manifest> {
    let types = column_types(stage, outputs)?;
    let count = outputs.iter().flatten().map(|output| output.rows.len()).sum();
    let mut columns: Vec<Vec<Value>> = types.iter().map(|_| Vec::with_capacity(count)).collect();
    // the input row each output row extends, and the first row of its unit
    let mut extends: Vec<Option<usize>> = Vec::with_capacity(count);
    let mut firsts: Vec<Option<usize>> = Vec::with_capacity(count);
    for (unit, output) in outputs.iter().enumerate() {
        let Some(output) = output else { continue };
        let rows = units.rows(unit);
        for row in &output.rows {
            extends.push(row.of.map(|of| rows[of as usize]));
            firsts.push(rows.first().copied());
            columns.iter_mut().zip(&row.values).for_each(|(column, value)| column.push(value.clone()));
        }
    }
    let schema = Schema::new(stage.def.writes.iter().zip(&types).map(|(column, ty)| (column.name.clone(), *ty)))?;
    let new = Manifest::from_columns(schema, count, &columns)?;
    let Some(table) = table else { return Ok(new) };
    let carried = if extends.iter().any(Option::is_some) || stage.def.grain == Grain::Row {
        let whole = table.take_or_null(&extends);
        if extends.iter().all(Option::is_some) { whole } else { whole.beside(&groups(stage, table, &firsts)?)? }
    } else {
        groups(stage, table, &firsts)?
    };
    // columns stand in the order of the input, then the new ones
    let order: Vec<&str> =
        table.schema().names().into_iter().filter(|name| carried.schema().position(name).is_some()).collect();
    Ok(carried.select(&order)?.beside(&new)?)
}

/// The columns that make the group, which also rows that stand alone carry.
fn groups(stage: &UnitStage, table: &Manifest, firsts: &[Option<usize>]) -> Result<Manifest> {
    let by: Vec<&str> = stage.by.iter().map(String::as_str).collect();
    Ok(table.select(&by)?.take_or_null(firsts))
}

/// The columns' types; `floats[0]` gets the width that the rows have.
fn column_types(stage: &UnitStage, outputs: &[Option<&Output>]) -> Result<Vec<Type>> {
    let mut types: Vec<Type> = stage.def.writes.iter().map(|column| column.ty).collect();
    for output in outputs.iter().flatten().filter(|output| !output.rows.is_empty()) {
        for (i, (name, found)) in output.columns.iter().enumerate() {
            match (types[i], *found) {
                (Type::Floats(0), Type::Floats(n)) if n > 0 => types[i] = *found,
                (Type::Floats(a), Type::Floats(b)) if a != b && b > 0 => {
                    let message = format!("column `{name}` holds {a} floats in one row and {b} in another");
                    return Err(hinted(message, "whoever writes it must put out lists of one length"));
                }
                _ => {}
            }
        }
    }
    Ok(types)
}
