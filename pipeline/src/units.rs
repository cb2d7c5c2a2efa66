//! From a table to units of work, and from their outputs back to a table. Pure: knows no cache and no worker.

use crate::builtin::fits;
use crate::compare::Naming;
use crate::hints::hinted;
use crate::stage::UnitStage;
use crate::task::Output;
use anyhow::Result;
use manifests::{Manifest, Schema, Type, Value};
use protocol::{ColumnDef, Grain};
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

/// How the units of a stage are called that takes the rows of a table: made once for all of them.
pub fn naming(stage: &UnitStage, table: &Manifest) -> Naming {
    match stage.def.grain {
        Grain::Row => Naming::of(table),
        Grain::Group | Grain::Whole => Naming::default(),
    }
}

/// What tells a unit from the others of its stage, for people: the group it is, or what tells its row from the others.
pub fn name(stage: &UnitStage, table: &Manifest, rows: &[usize]) -> String {
    named(stage, (table, &naming(stage, table)), rows)
}

/// The same, for whoever names many units and has their [`naming`].
pub fn named(stage: &UnitStage, (table, naming): (&Manifest, &Naming), rows: &[usize]) -> String {
    let Some(&first) = rows.first() else { return "the whole stage".into() };
    let fact = |name: &str| table.value(first, name).map(|value| format!("{name}={}", crate::key::show(&value)));
    match stage.def.grain {
        Grain::Whole => "all rows".into(),
        Grain::Group if stage.by.is_empty() => "all rows".into(),
        Grain::Group => stage.by.iter().filter_map(|name| fact(name).ok()).collect::<Vec<_>>().join(", "),
        Grain::Row => naming.name(table, first),
    }
}

/// What was recorded of a unit, with its values in the order in which the stage declares its columns by now; `None` if
/// one is not there or of another type: then it was put out by something else, although that had the same version.
pub fn fitted(writes: &[ColumnDef], output: Output) -> Option<Output> {
    let Output { columns, mut rows } = output;
    let is_meant = |wanted: &ColumnDef, (name, ty): &(String, Type)| wanted.name == *name && fits(wanted.ty, *ty);
    if columns.len() == writes.len() && writes.iter().zip(&columns).all(|(wanted, found)| is_meant(wanted, found)) {
        return Some(Output { columns, rows });
    }
    if rows.is_empty() {
        // there is no value that could be taken for another
        let columns = writes.iter().map(|column| (column.name.clone(), column.ty)).collect();
        return Some(Output { columns, rows });
    }
    let place = |wanted: &ColumnDef| columns.iter().position(|found| is_meant(wanted, found));
    let places: Vec<usize> = writes.iter().map(place).collect::<Option<_>>()?;
    for row in &mut rows {
        row.values = places.iter().map(|&place| row.values[place].clone()).collect();
    }
    let columns = places.iter().map(|&place| columns[place].clone()).collect();
    Some(Output { columns, rows })
}

/// The stage's table: for each unit in order its output rows, after the columns of the rows they extend. Units without
/// an output (they failed, and that is allowed) have no rows.
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

#[cfg(test)]
mod tests {
    use super::*;
    use cache::OutRow;

    fn column(name: &str, ty: Type) -> ColumnDef {
        ColumnDef { name: name.into(), ty, optional: false }
    }

    #[test]
    fn values_belong_to_names_and_not_to_places() {
        let (a, b) = (Value::F64(1.0), Value::F64(2.0));
        let output =
            |rows: Vec<OutRow>| Output { columns: vec![("a".into(), Type::F64), ("b".into(), Type::F64)], rows };
        let recorded = || output(vec![OutRow { of: Some(0), values: vec![a.clone(), b.clone()] }]);
        let values = |writes: &[ColumnDef]| fitted(writes, recorded()).map(|output| output.rows[0].values.clone());
        let (one, two) = (column("a", Type::F64), column("b", Type::F64));
        assert_eq!(fitted(&[one.clone(), two.clone()], recorded()), Some(recorded()));
        assert_eq!(values(&[two.clone(), one.clone()]), Some(vec![b.clone(), a.clone()]), "declared in another order");
        assert_eq!(values(std::slice::from_ref(&two)), Some(vec![b.clone()]), "declared no more");
        assert_eq!(values(&[one.clone(), two.clone(), column("c", Type::F64)]), None, "declared since");
        assert_eq!(values(&[one.clone(), column("b", Type::I64)]), None, "of another type");
        let none = fitted(&[one, column("c", Type::I64)], output(Vec::new()));
        assert!(none.is_some_and(|output| output.columns[1] == ("c".into(), Type::I64)));
    }

    #[test]
    fn floats_of_any_width_hold_what_was_recorded() {
        let recorded =
            |ty| Output { columns: vec![("k".into(), ty)], rows: vec![OutRow { of: None, values: vec![Value::Null] }] };
        let is_known = |wanted, found| fitted(&[column("k", wanted)], recorded(found)).is_some();
        assert!(is_known(Type::Floats(0), Type::Floats(9)) && is_known(Type::Floats(9), Type::Floats(0)));
        assert!(!is_known(Type::Floats(3), Type::Floats(9)));
    }
}
