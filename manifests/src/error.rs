//! What can be wrong with a table or an Arrow file. Knows no recipe: the engine adds the place.

use std::path::PathBuf;

/// A broken table or file, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not an Arrow file, or is truncated or damaged.
    #[error("{path} is not a readable Arrow IPC file: {reason}")]
    NotArrow {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// A column has an Arrow type outside our closed set.
    #[error("column `{column}` has Arrow type {found}; a manifest holds bool, i64, f64, str, floats[N] or blob")]
    UnsupportedType {
        /// The column.
        column: String,
        /// Its Arrow type.
        found: String,
    },
    /// A list of numbers holds a null.
    #[error("row {row} of column `{column}` is a list with a null at place {place}, expected a number there")]
    NullWithin {
        /// The column.
        column: String,
        /// The row, from 0.
        row: usize,
        /// Where in the list, from 0.
        place: usize,
    },
    /// A column is absent.
    #[error("there is no column `{column}`; there are: {present}")]
    MissingColumn {
        /// The column asked for.
        column: String,
        /// The columns there are.
        present: String,
    },
    /// A column or value has another type than asked for.
    #[error("column `{column}` is {found}, expected {expected}")]
    WrongType {
        /// The column.
        column: String,
        /// The type asked for.
        expected: String,
        /// The type found.
        found: String,
    },
    /// A name that cannot be a column, or twice the same.
    #[error("`{name}` cannot be a column name here: {reason}")]
    BadColumnName {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// Rows of different lengths and the like.
    #[error("{0}")]
    Malformed(String),
}
