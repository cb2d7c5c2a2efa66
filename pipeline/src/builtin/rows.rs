//! `rows: [{...}, ...]`: a table written into the recipe. Types come from the values: integers, numbers, text, truth
//! values, and lists of numbers (floats of that width). A column that holds integers and numbers is one of numbers; a
//! missing value is null.

use crate::fields::Fields;
use crate::key::Facts;
use crate::yaml::{At, Item, Node};
use manifests::{Manifest, Schema, Type, Value};

/// The stage.
#[derive(Clone, Debug)]
pub struct Inline {
    /// Its rows.
    pub table: Manifest,
}

impl Inline {
    /// Understands the stanza.
    pub fn parse(what: &Item, fields: &mut Fields<'_>) -> Option<Inline> {
        let Node::List(items) = &what.node else {
            let message = format!("`rows:` takes a list of mappings, not {}", what.node.what());
            fields.wrong(what.at, message, "for example `rows: [{ x: 1 }, { x: 2 }]`");
            return None;
        };
        let mut names: Vec<String> = Vec::new();
        let mut rows: Vec<Vec<(String, At, Value)>> = Vec::new();
        for item in items {
            let Node::Map(cells) = &item.node else {
                let hint = "for example `rows: [{ x: 1 }, { x: 2 }]`";
                fields.wrong(item.at, format!("a row must be a mapping, not {}", item.node.what()), hint);
                return None;
            };
            let mut row = Vec::new();
            for (key, item) in cells {
                if !names.contains(&key.name) {
                    names.push(key.name.clone());
                }
                match value_of(item) {
                    Some(value) => row.push((key.name.clone(), item.at, value)),
                    None => {
                        let hint = "a cell is a number, a text, a truth value, `~`, or a list of numbers";
                        fields.wrong(item.at, format!("a cell cannot be {}", item.node.what()), hint);
                        return None;
                    }
                }
            }
            rows.push(row);
        }
        let mut columns = Vec::new();
        let mut schema = Schema::default();
        for name in names {
            let cells: Vec<Option<&(String, At, Value)>> =
                rows.iter().map(|row| row.iter().find(|(cell, ..)| *cell == name)).collect();
            let ty = column_type(cells.iter().flatten().map(|(.., value)| value));
            let mut column = Vec::new();
            for cell in cells {
                let value = in_column(ty, cell.map_or(Value::Null, |(.., value)| value.clone()));
                if let (Some(found), Some((_, at, _))) = (value.ty().filter(|found| *found != ty), cell) {
                    let message = format!("column `{name}` is {ty} in other rows, and {found} here");
                    let hint = match ty {
                        Type::Floats(_) => "all lists of a column are equally long",
                        Type::Str => "a column has one type: put the value in quotes",
                        _ => "a column has one type; `~` stands for a value that is not there",
                    };
                    fields.wrong(*at, message, hint);
                    return None;
                }
                column.push(value);
            }
            if let Err(error) = schema.push(name, ty) {
                fields.wrong(
                    what.at,
                    error.to_string(),
                    "every name stands once; use letters, digits and `_`, not a digit first",
                );
                return None;
            }
            columns.push(column);
        }
        let table = Manifest::from_columns(schema, rows.len(), &columns).expect("types were made to agree");
        Some(Inline { table })
    }

    /// Facts: its content.
    pub fn facts(&self, facts: &mut dyn Facts) {
        facts.content("rows", &self.table.digest());
    }
}

/// A scalar, or a list of numbers.
pub fn value_of(item: &Item) -> Option<Value> {
    Some(match &item.node {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(*value),
        Node::Int(value) => Value::I64(*value),
        Node::Float(value) => Value::F64(*value),
        Node::Text(value) => Value::Str(value.clone()),
        Node::List(items) => {
            let number = |item: &Item| match item.node {
                Node::Int(value) => Some(value as f64),
                Node::Float(value) => Some(value),
                _ => None,
            };
            Value::Floats(items.iter().map(number).collect::<Option<_>>()?)
        }
        Node::Map(_) => return None,
    })
}

/// The type that all these values fit, or that of the first.
pub fn column_type<'a>(values: impl Iterator<Item = &'a Value> + Clone) -> Type {
    let types = values.filter_map(Value::ty);
    let is_number = |ty: &Type| matches!(ty, Type::I64 | Type::F64);
    match types.clone().next() {
        None => Type::Str,
        Some(first) if is_number(&first) && types.clone().all(|ty| is_number(&ty)) => {
            if types.clone().any(|ty| ty == Type::F64) { Type::F64 } else { Type::I64 }
        }
        Some(first) => first,
    }
}

/// A value as a column of this type holds it: an integer among numbers is one. Others stay as they are, and may be of
/// another type.
pub fn in_column(ty: Type, value: Value) -> Value {
    match (ty, value) {
        (Type::F64, Value::I64(value)) => Value::F64(value as f64),
        (_, value) => value,
    }
}
