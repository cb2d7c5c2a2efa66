//! The stages that live in the engine: tables made, chosen from and put together, without a program. They are evaluated
//! anew when what they read has changed, which costs no more than looking it up would, so they count no units.

pub mod concat;
pub mod files;
pub mod filter;
pub mod join;
pub mod rows;
pub mod select;

use crate::key::Facts;
use cache::Cache;
use manifests::{Manifest, Type};

/// A table stage, understood.
#[derive(Clone, Debug)]
pub enum Table {
    /// Files by pattern.
    Files(files::Files),
    /// An inline table.
    Rows(rows::Inline),
    /// A choice of rows and columns.
    Select(Box<select::Select>),
    /// Two tables side by side.
    Join(join::Join),
    /// Tables below each other.
    Concat(concat::Concat),
}

impl Table {
    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Table::Files(_) => "files",
            Table::Rows(_) => "rows",
            Table::Select(_) => "select",
            Table::Join(_) => "join",
            Table::Concat(_) => "concat",
        }
    }

    /// What decides its result besides its inputs.
    pub fn facts(&self, facts: &mut dyn Facts) {
        match self {
            Table::Files(stage) => stage.facts(facts),
            Table::Rows(stage) => stage.facts(facts),
            Table::Select(stage) => stage.facts(facts),
            Table::Join(stage) => stage.facts(facts),
            Table::Concat(stage) => stage.facts(facts),
        }
    }

    /// Itself without the inputs that failed, if it can do without: `there` says of each whether it is there, and not
    /// of all.
    pub fn of_those(&self, there: &[bool]) -> Option<Table> {
        match self {
            Table::Concat(stage) => stage.of_those(there).map(Table::Concat),
            _ => None,
        }
    }

    /// Its rows; `remarks` takes what its user should know of them.
    ///
    /// # Errors
    /// If a file cannot be read, or the tables do not fit together.
    pub fn evaluate(
        &self,
        inputs: &[&Manifest],
        cache: &mut Cache,
        remarks: &mut Vec<String>,
    ) -> anyhow::Result<Manifest> {
        match self {
            Table::Files(stage) => stage.evaluate(cache),
            Table::Rows(stage) => Ok(stage.table.clone()),
            Table::Select(stage) => stage.evaluate(inputs[0]),
            Table::Join(stage) => stage.evaluate(inputs[0], inputs[1], remarks),
            Table::Concat(stage) => stage.evaluate(inputs),
        }
    }
}

/// The columns of a table as far as the plan knows them.
pub type Columns = Vec<PlannedColumn>;

/// A column of a table that is not there yet.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedColumn {
    /// Its name.
    pub name: String,
    /// Its type; `floats[0]` for floats whose width only the rows tell.
    pub ty: Type,
    /// Whether it is certain to be there: rows of a unit of several rows may or may not extend its input rows.
    pub sure: bool,
}

impl PlannedColumn {
    /// A column that will be there.
    pub fn sure(name: impl Into<String>, ty: Type) -> PlannedColumn {
        PlannedColumn { name: name.into(), ty, sure: true }
    }
}

/// Whether a column of type `found` can be read as `wanted`.
pub fn fits(wanted: Type, found: Type) -> bool {
    match (wanted, found) {
        (Type::Floats(0), Type::Floats(_)) | (Type::Floats(_), Type::Floats(0)) => true,
        _ => wanted == found,
    }
}
