//! Two tables side by side: rows brought together, each with its files and numbers from both, for pictures under a
//! slider.

use super::asked::Answered;
use super::rows::cell;
use crate::compare::{Naming, together};
use anyhow::Result;
use manifests::{Manifest, Type, Value};
use serde_json::{Map, Value as Json, json};

/// A page of pairs.
///
/// # Errors
/// If a table cannot be read.
pub fn pairs(old: &Manifest, new: &Manifest, offset: usize, limit: usize) -> Answered<Json> {
    Ok(told(old, new, offset, limit)?)
}

fn told(old: &Manifest, new: &Manifest, offset: usize, limit: usize) -> Result<Json> {
    let (by, pairs) = together(old, new)?;
    let files = |table: &Manifest| -> Vec<String> {
        let blobs = table.schema().columns().iter().filter(|column| column.ty == Type::Blob);
        blobs.map(|column| column.name.clone()).collect()
    };
    let (left, right) = (files(old), files(new));
    let numbers: Vec<&str> = old.schema().names();
    let numbers: Vec<&str> = numbers
        .into_iter()
        .filter(|name| old.schema().ty(name) == Some(Type::F64) && new.schema().ty(name) == Some(Type::F64))
        .collect();
    let naming = Naming::of(new);
    let mut shown = Vec::new();
    for &(a, b) in pairs.iter().skip(offset).take(limit) {
        let of = |table: &Manifest, row: usize, names: &[String]| -> Result<Map<String, Json>> {
            names.iter().map(|name| Ok((name.clone(), cell(&table.value(row, name)?, false)))).collect()
        };
        let both = |name: &&str| -> Result<Option<Json>> {
            let (a, b) = (old.value(a, name)?, new.value(b, name)?);
            Ok((a != Value::Null || b != Value::Null).then(|| json!([name, cell(&a, false), cell(&b, false)])))
        };
        let numbers: Vec<Json> = numbers.iter().filter_map(|name| both(name).transpose()).collect::<Result<_>>()?;
        shown.push(json!({
            "name": naming.name(new, b),
            "rows": [a, b],
            "left": of(old, a, &left)?,
            "right": of(new, b, &right)?,
            "numbers": numbers,
        }));
    }
    Ok(json!({
        "by": by,
        "total": pairs.len(),
        "alone": [old.len() - pairs.len(), new.len() - pairs.len()],
        "files": [left, right],
        "pairs": shown,
    }))
}
