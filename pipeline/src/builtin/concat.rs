//! `concat: [A, B, ...]`: tables below each other, columns matched by name, nulls where a table lacks one. `label:
//! {column:, values: [...]}` adds a column that says which table a row comes from, and `allow_failures:` the share of
//! the tables that may be missing.

use crate::builtin::{Columns, PlannedColumn, fits, rows};
use crate::fields::Fields;
use crate::key::Facts;
use crate::yaml::Node;
use anyhow::Result;
use manifests::{Manifest, Schema, Type, Value};

/// The stage.
#[derive(Clone, Debug)]
pub struct Concat {
    label: Option<(String, Vec<Value>)>,
    /// The share of its tables that may be missing because they failed. No fact: what is made of those that are there
    /// is a fact of those.
    allow_failures: f64,
}

impl Concat {
    /// Understands the stanza.
    pub fn parse(fields: &mut Fields<'_>, inputs: usize) -> Concat {
        let example = "0.5`: of those that fail up to half may be missing";
        let allow_failures = fields.share("allow_failures", ("tables", example)).unwrap_or(0.0);
        let Some((at, items)) = fields.map("label") else { return Concat { label: None, allow_failures } };
        let place = fields.place(at);
        let mut own = Fields::new(&place.file, "`label`", at, items);
        let column = own.text("column");
        let values = own.list("values");
        let mut problems = own.finish();
        let mut label = None;
        match (column, values) {
            (Some((_, column)), Some((at, items))) => {
                let values: Option<Vec<Value>> = items.iter().map(rows::value_of).collect();
                match values {
                    Some(values)
                        if values.len() == inputs && !items.iter().any(|item| matches!(item.node, Node::List(_))) =>
                    {
                        let ty = rows::column_type(values.iter());
                        let is_other =
                            |value: &Value| rows::in_column(ty, value.clone()).ty().is_some_and(|own| own != ty);
                        if let Some(i) = values.iter().position(is_other) {
                            let (own, hint) =
                                (values[i].ty().unwrap_or(ty), "a column has one type: put all of them in quotes");
                            fields.wrong(
                                items[i].at,
                                format!("`values` of `label` are of different types: {ty} and {own}"),
                                hint,
                            );
                        }
                        label = Some((column, values));
                    }
                    _ => {
                        let message = format!("`values` of `label` must be {inputs} scalars, one for each table");
                        let example: Vec<String> = (1..=inputs.min(8)).map(|i| format!("label{i}")).collect();
                        let more = if inputs > example.len() { ", ..." } else { "" };
                        fields.wrong(at, message, format!("for example `values: [{}{more}]`", example.join(", ")));
                    }
                }
            }
            _ if problems.is_empty() => {
                let hint = "for example `label: { column: method, values: [ours, theirs] }`";
                fields.wrong(at, "`label` needs `column:` and `values:`", hint);
            }
            _ => {}
        }
        fields.problems.append(&mut problems);
        Concat { label, allow_failures }
    }

    /// Itself of the tables that are there, if they are enough; `there` says of each whether it is.
    pub fn of_those(&self, there: &[bool]) -> Option<Concat> {
        let missing = there.iter().filter(|there| !**there).count();
        if missing == there.len() || missing as f64 > self.allow_failures * there.len() as f64 {
            return None;
        }
        let kept = |(column, values): &(String, Vec<Value>)| {
            let values = values.iter().zip(there).filter(|(_, there)| **there).map(|(value, _)| value.clone());
            (column.clone(), values.collect())
        };
        Some(Concat { label: self.label.as_ref().map(kept), allow_failures: self.allow_failures })
    }

    /// The columns of its table.
    pub fn columns(&self, inputs: &[&Columns], fields: &mut Fields<'_>) -> Columns {
        let mut columns: Columns = Vec::new();
        for input in inputs {
            for column in *input {
                match columns.iter_mut().find(|known| known.name == column.name) {
                    None => columns.push(column.clone()),
                    Some(known) if fits(known.ty, column.ty) => {
                        known.sure |= column.sure;
                        if known.ty == Type::Floats(0) {
                            known.ty = column.ty;
                        }
                    }
                    Some(known) => {
                        let message = format!(
                            "column `{}` is {} in one table and {} in another",
                            column.name, known.ty, column.ty
                        );
                        let at = fields.at();
                        let hint =
                            "a `select:` before it can leave the column out (`columns:`) or rename it (`rename:`)";
                        fields.wrong(at, message, hint);
                    }
                }
            }
        }
        if let Some((name, values)) = &self.label {
            columns.retain(|column| column.name != *name);
            columns.push(PlannedColumn::sure(name, rows::column_type(values.iter())));
        }
        columns
    }

    /// Its facts.
    pub fn facts(&self, facts: &mut dyn Facts) {
        if let Some((column, values)) = &self.label {
            let values: Vec<String> = values.iter().map(Value::to_json_text).collect();
            facts.text(&format!("label {column}"), &values.join(","));
        }
    }

    /// Its rows.
    pub fn evaluate(&self, inputs: &[&Manifest]) -> Result<Manifest> {
        let labelled: Vec<Manifest> = match &self.label {
            None => inputs.iter().map(|input| (*input).clone()).collect(),
            Some((name, values)) => {
                let ty = rows::column_type(values.iter());
                let label = |(input, value): (&&Manifest, &Value)| {
                    let value = rows::in_column(ty, value.clone());
                    let schema = Schema::new([(name.as_str(), ty)])?;
                    input.beside(&Manifest::from_columns(schema, input.len(), &[vec![value; input.len()]])?)
                };
                inputs.iter().zip(values).map(label).collect::<manifests::Result<_>>()?
            }
        };
        below_each_other(&labelled.iter().collect::<Vec<_>>())
    }
}

/// Tables below each other, columns matched by name, nulls where a table lacks one.
///
/// # Errors
/// If a column has several types.
pub fn below_each_other(tables: &[&Manifest]) -> Result<Manifest> {
    if let [table] = tables {
        return Ok((*table).clone());
    }
    let mut schema = Schema::default();
    let columns = || tables.iter().flat_map(|table| table.schema().columns());
    for column in columns() {
        // floats of any number are of the number that another table knows
        let known = |other: &&manifests::Column| other.name == column.name && other.ty != Type::Floats(0);
        let column = if column.ty == Type::Floats(0) { columns().find(known).unwrap_or(column) } else { column };
        if schema.position(&column.name).is_none() {
            schema.push(column.name.clone(), column.ty)?;
        }
    }
    Ok(Manifest::concat(&schema, tables)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_does_not_know_how_many_floats_goes_with_one_that_does() {
        let table = |width: u32, values: &[Value]| {
            let schema = Schema::new([("x", Type::Floats(width))]).unwrap();
            Manifest::from_rows(schema, &values.iter().map(|value| vec![value.clone()]).collect::<Vec<_>>()).unwrap()
        };
        let known = table(2, &[Value::Floats(vec![1.0, 2.0])]);
        for unknown in [table(0, &[]), table(0, &[Value::Null])] {
            for tables in [[&unknown, &known], [&known, &unknown]] {
                let all = below_each_other(&tables).unwrap();
                assert_eq!(all.schema().ty("x"), Some(Type::Floats(2)));
                let values = all.column("x").unwrap();
                assert_eq!(values.len(), 1 + unknown.len());
                assert!(values.contains(&Value::Floats(vec![1.0, 2.0])));
            }
        }
        let other = table(3, &[Value::Floats(vec![1.0, 2.0, 3.0])]);
        let said = below_each_other(&[&known, &other]).unwrap_err().to_string();
        assert!(said.contains("floats[3]") && said.contains("floats[2]"), "{said}");
    }
}
