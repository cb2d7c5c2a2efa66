//! `where:`: which rows to keep. Every condition must hold:
//!
//! ```yaml
//! where: { camera: [3, 5], split: train, sequence: { not: idle }, psnr: { min: 20, max: 40 } }
//! ```
//!
//! A null fulfils only `not:`.

use crate::builtin::Columns;
use crate::error::Problem;
use crate::fields::Fields;
use crate::key::Facts;
use crate::yaml::{Item, Node};
use anyhow::Result;
use manifests::{Manifest, Type, Value};
use std::fmt;

/// Conditions on columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Column and condition.
    pub conditions: Vec<(String, Condition)>,
}

/// A condition on a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// It is one of these.
    In(Vec<Value>),
    /// It is none of these.
    NotIn(Vec<Value>),
    /// It is a number between these, both included.
    Between(Option<f64>, Option<f64>),
}

impl Filter {
    /// Understands the field `where`, against the columns there are; `None` if there is no such field.
    pub fn parse(fields: &mut Fields<'_>, columns: &Columns) -> Option<Filter> {
        let (_, items) = fields.map("where")?;
        Some(Filter::of(items, fields, columns))
    }

    /// Understands conditions.
    pub fn of(items: Vec<(crate::yaml::Key, Item)>, fields: &mut Fields<'_>, columns: &Columns) -> Filter {
        let mut conditions = Vec::new();
        for (key, item) in items {
            let Some(column) = columns.iter().find(|column| column.name == key.name) else {
                let place = fields.place(key.at);
                let problem = Problem::at(&place, format!("there is no column `{}` to ask for here", key.name));
                let problem = problem.did_you_mean(&key.name, columns.iter().map(|column| column.name.as_str()));
                fields.problems.push(problem.or_hint("the table has no columns"));
                continue;
            };
            if let Some(condition) = condition(&item, &key.name, column.ty, fields) {
                conditions.push((key.name, condition));
            }
        }
        Filter { conditions }
    }

    /// Its facts, which are no part of a unit's key: which rows there are is seen by the rows.
    pub fn facts(&self, facts: &mut dyn Facts) {
        self.facts_of("", facts);
    }

    /// Its facts, with the words before their names that say whose they are.
    pub fn facts_of(&self, owner: &str, facts: &mut dyn Facts) {
        let fact =
            |(column, condition): &(String, Condition)| (format!("{owner}where {column}"), condition.to_string());
        let mut texts: Vec<(String, String)> = self.conditions.iter().map(fact).collect();
        texts.sort();
        texts.iter().for_each(|(name, text)| facts.text(name, text));
    }

    /// The rows that fulfil it.
    pub fn rows(&self, table: &Manifest) -> Result<Vec<usize>> {
        let mut keep = vec![true; table.len()];
        for (column, condition) in &self.conditions {
            for (keep, value) in keep.iter_mut().zip(table.column(column)?) {
                *keep &= condition.holds(&value);
            }
        }
        Ok((0..table.len()).filter(|&row| keep[row]).collect())
    }
}

impl fmt::Display for Condition {
    /// For people; conditions that differ read differently, since what is remembered goes by it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[Value]| values.iter().map(Value::to_json_text).collect::<Vec<_>>().join(", ");
        match self {
            Condition::In(values) if values.len() == 1 => f.write_str(&list(values)),
            Condition::In(values) => write!(f, "one of {}", list(values)),
            Condition::NotIn(values) if values.len() == 1 => write!(f, "not {}", list(values)),
            Condition::NotIn(values) => write!(f, "none of {}", list(values)),
            Condition::Between(None, None) => f.write_str("any number"),
            Condition::Between(Some(low), None) => write!(f, "at least {low}"),
            Condition::Between(None, Some(high)) => write!(f, "at most {high}"),
            Condition::Between(Some(low), Some(high)) => write!(f, "from {low} to {high}"),
        }
    }
}

impl Condition {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Condition::In(values) => values.contains(value),
            Condition::NotIn(values) => !values.contains(value),
            Condition::Between(low, high) => {
                let number = match value {
                    Value::I64(value) => *value as f64,
                    Value::F64(value) => *value,
                    _ => return false,
                };
                low.is_none_or(|low| number >= low) && high.is_none_or(|high| number <= high)
            }
        }
    }
}

fn condition(item: &Item, column: &str, ty: Type, fields: &mut Fields<'_>) -> Option<Condition> {
    match &item.node {
        Node::Map(items) => {
            let mut own = Fields::new("", format!("the condition on `{column}`"), item.at, items.clone());
            let not = own.take("not");
            let (low, high) = (own.number("min"), own.number("max"));
            let problems = own.finish();
            if !problems.is_empty() {
                let place = fields.place(item.at);
                fields.problems.extend(problems.into_iter().map(|one| Problem { place: Some(place.clone()), ..one }));
                return None;
            }
            match (not, low, high) {
                (Some(item), None, None) => values(&item, column, ty, fields).map(Condition::NotIn),
                (None, low, high) if low.is_some() || high.is_some() => {
                    if !matches!(ty, Type::I64 | Type::F64) {
                        let message = format!("column `{column}` is {ty}: only numbers have `min` and `max`");
                        fields.wrong(item.at, message, format!("list the values: `{column}: [VALUE, VALUE]`"));
                    }
                    Some(Condition::Between(low.map(|(_, low)| low), high.map(|(_, high)| high)))
                }
                _ => {
                    let message = format!("the condition on `{column}` must be either `not:` or `min:`/`max:`");
                    let hint = format!("for example `{column}: {{ not: VALUE }}` or `{column}: {{ min: 0, max: 9 }}`");
                    fields.wrong(item.at, message, hint);
                    None
                }
            }
        }
        _ => values(item, column, ty, fields).map(Condition::In),
    }
}

/// A condition that a column of this type can have.
fn comparable(column: &str, ty: Type) -> String {
    let value = match ty {
        Type::Bool => "true",
        Type::I64 => "3",
        Type::F64 => "0.5",
        Type::Str => "\"a text\"",
        _ => return format!("only whether it is there can be asked of it: `{column}: ~` or `{column}: {{ not: ~ }}`"),
    };
    format!("for example `{column}: {value}`")
}

fn values(item: &Item, column: &str, ty: Type, fields: &mut Fields<'_>) -> Option<Vec<Value>> {
    let one = std::slice::from_ref(item);
    let items = match &item.node {
        Node::List(items) => items,
        _ => one,
    };
    let mut values = Vec::new();
    for item in items {
        let value = match (&item.node, ty) {
            (Node::Null, _) => Value::Null,
            (Node::Bool(value), Type::Bool) => Value::Bool(*value),
            (Node::Int(value), Type::I64) => Value::I64(*value),
            (Node::Int(value), Type::F64) => Value::F64(*value as f64),
            (Node::Float(value), Type::F64) => Value::F64(*value),
            (Node::Text(value), Type::Str) => Value::Str(value.clone()),
            (node, _) => {
                let message = format!("column `{column}` is {ty}, it cannot be compared with {}", node.what());
                fields.wrong(item.at, message, comparable(column, ty));
                return None;
            }
        };
        values.push(value);
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_told_in_words() {
        let texts = [
            (Condition::In(vec![Value::I64(3)]), "3"),
            (Condition::In(vec![Value::Str("a".into()), Value::Null]), "one of \"a\", null"),
            (Condition::NotIn(vec![Value::Bool(true)]), "not true"),
            (Condition::NotIn(vec![Value::I64(1), Value::I64(2)]), "none of 1, 2"),
            (Condition::Between(Some(2.0), None), "at least 2"),
            (Condition::Between(None, Some(0.5)), "at most 0.5"),
            (Condition::Between(Some(2.0), Some(4.0)), "from 2 to 4"),
        ];
        for (condition, text) in texts {
            assert_eq!(condition.to_string(), text);
        }
    }
}
