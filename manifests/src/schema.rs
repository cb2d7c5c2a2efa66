//! A table's columns: names and types, in order. Knows no rows.

use crate::{Error, Result, Type};

/// A column's name and type.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Column {
    /// The name: letters, digits, `_`, not starting with a digit.
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    pub ty: Type,
}

/// The columns of a table, in order, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Schema {
    columns: Vec<Column>,
}

impl Schema {
    /// A schema of these columns.
    ///
    /// # Errors
    /// If a name is twice there or is not an identifier.
    pub fn new(columns: impl IntoIterator<Item = (impl Into<String>, Type)>) -> Result<Schema> {
        let mut schema = Schema::default();
        for (name, ty) in columns {
            schema.push(name.into(), ty)?;
        }
        Ok(schema)
    }

    /// Adds a column at the end.
    ///
    /// # Errors
    /// If the name is there already or is not an identifier.
    pub fn push(&mut self, name: String, ty: Type) -> Result<()> {
        let identifier = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !identifier {
            return Err(Error::BadColumnName { name, reason: "use letters, digits and `_`, not a digit first" });
        }
        if self.position(&name).is_some() {
            return Err(Error::BadColumnName { name, reason: "there is a column of that name already" });
        }
        self.columns.push(Column { name, ty });
        Ok(())
    }

    /// The columns in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Where a column stands.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// A column's type.
    pub fn ty(&self, name: &str) -> Option<Type> {
        self.position(name).map(|i| self.columns[i].ty)
    }

    /// Where a column stands, or an error that lists what there is.
    pub fn require(&self, name: &str) -> Result<usize> {
        self.position(name)
            .ok_or_else(|| Error::MissingColumn { column: name.into(), present: self.names().join(", ") })
    }

    /// The names in order.
    pub fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.name.as_str()).collect()
    }
}
