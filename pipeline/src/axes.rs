//! The values of the axes that a stage stands for: columns of its rows, facts of its table. Knows neither recipes nor
//! how stages are varied.

use anyhow::Result;
use manifests::{Digest, Hasher, Manifest, Schema, Type, Value};

/// The value that one axis has for a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisValue {
    /// The axis.
    pub axis: String,
    /// The type of all its values.
    pub ty: Type,
    /// The value.
    pub value: Value,
}

/// A stage's table with a column for each axis. A column of that name that was carried along has the same values.
///
/// # Errors
/// If a name cannot be that of a column.
pub fn label(axes: &[AxisValue], table: Manifest) -> Result<Manifest> {
    if axes.is_empty() {
        return Ok(table);
    }
    let schema = Schema::new(axes.iter().map(|one| (one.axis.clone(), one.ty)))?;
    let columns: Vec<Vec<Value>> = axes.iter().map(|one| vec![one.value.clone(); table.len()]).collect();
    Ok(table.beside(&Manifest::from_columns(schema, table.len(), &columns)?)?)
}

/// What decides a table, the axes among it. Units do not know them: what two variants have in common is computed once.
pub fn key(axes: &[AxisValue], table: Digest) -> Digest {
    if axes.is_empty() {
        return table;
    }
    let mut hasher = Hasher::new("axes/1");
    hasher.digest(&table);
    for one in axes {
        let mut bytes = Vec::new();
        one.value.encode(&mut bytes);
        hasher.bytes(one.axis.as_bytes());
        hasher.bytes(one.ty.to_string().as_bytes());
        hasher.bytes(&bytes);
    }
    hasher.finish()
}
