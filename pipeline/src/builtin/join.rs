//! `join: [A, B]` with `on: [columns]`: each row of A with the row of B that has the same values there. B's columns
//! that A lacks are appended; of those that both have A's are taken, and if B's are others that is said. A row of B may
//! serve many rows of A, but no row of A may have two. `how: left` keeps rows of A without one, with nulls.

use crate::builtin::Columns;
use crate::error::Problem;
use crate::fields::Fields;
use crate::hints::hinted;
use crate::key::Facts;
use anyhow::Result;
use manifests::{Manifest, Value};
use std::collections::HashMap;

/// The stage.
#[derive(Clone, Debug)]
pub struct Join {
    on: Vec<String>,
    left: bool,
}

impl Join {
    /// Understands the stanza.
    pub fn parse(fields: &mut Fields<'_>, inputs: &[&Columns]) -> Option<Join> {
        let on = fields.texts("on");
        let left = match fields.text("how") {
            None => false,
            Some((_, how)) if how == "left" => true,
            Some((_, how)) if how == "inner" => false,
            Some((at, how)) => {
                let place = fields.place(at);
                let problem = Problem::at(&place, format!("`how` of a join cannot be `{how}`"));
                fields.problems.push(problem.did_you_mean(&how, ["inner", "left"]));
                false
            }
        };
        let Some(on) = on else {
            fields.missing("on", "the columns that must be equal, for example `on: [frame]`");
            return None;
        };
        if on.is_empty() {
            let hint = "name the columns that must be equal, for example `on: [frame]`";
            fields.wrong(fields.at(), "`on:` of a join names no column", hint);
            return None;
        }
        let [a, b] = inputs else { return None };
        for (at, name) in &on {
            let find = |columns: &Columns| columns.iter().find(|column| column.name == *name).map(|column| column.ty);
            match (find(a), find(b)) {
                (Some(a), Some(b)) if a == b => {}
                (Some(a), Some(b)) => {
                    let message = format!("column `{name}` is {a} in one table and {b} in the other");
                    fields.wrong(*at, message, "columns that are joined on have the same type in both tables");
                }
                _ => {
                    let place = fields.place(*at);
                    let common = a.iter().filter(|column| b.iter().any(|other| other.name == column.name));
                    let problem = Problem::at(&place, format!("column `{name}` is not in both tables"));
                    let problem = problem.did_you_mean(name, common.map(|column| column.name.as_str()));
                    let hint = "the two tables have no column in common: `rename:` of a `select:` gives them one";
                    fields.problems.push(problem.or_hint(hint));
                }
            }
        }
        Some(Join { on: on.into_iter().map(|(_, name)| name).collect(), left })
    }

    /// The columns of its table.
    pub fn columns(&self, inputs: &[&Columns]) -> Columns {
        let [a, b] = inputs else { return Vec::new() };
        let new = b.iter().filter(|column| !a.iter().any(|known| known.name == column.name));
        a.iter().chain(new).cloned().collect()
    }

    /// Its facts.
    pub fn facts(&self, facts: &mut dyn Facts) {
        facts.text("on", &self.on.join(","));
        facts.text("how", if self.left { "left" } else { "inner" });
    }

    /// Which rows of both tables make up its rows: those of the first, each with its partner in the second.
    ///
    /// # Errors
    /// If a row has more than one partner.
    pub fn pairs(&self, a: &Manifest, b: &Manifest) -> Result<(Vec<usize>, Vec<Option<usize>>)> {
        let on: Vec<&str> = self.on.iter().map(String::as_str).collect();
        let mut partners: HashMap<Vec<u8>, (usize, usize)> = HashMap::new();
        for (row, key) in b.map_encoded(&on, <[u8]>::to_vec)?.into_iter().enumerate() {
            partners.entry(key).or_insert((row, 0)).1 += 1;
        }
        let (mut rows, mut partner) = (Vec::new(), Vec::new());
        for (row, key) in a.map_encoded(&on, <[u8]>::to_vec)?.into_iter().enumerate() {
            match partners.get(&key) {
                Some((_, n)) if *n > 1 => {
                    let message =
                        format!("the second table has {n} rows for {}; a join needs at most one", self.place(a, row)?);
                    let columns = self.on.join(", ");
                    return Err(hinted(
                        message,
                        format!(
                            "name more columns under `on:`, or keep one row of each by `select:` with `distinct: [{columns}]`"
                        ),
                    ));
                }
                Some((other, _)) => {
                    rows.push(row);
                    partner.push(Some(*other));
                }
                None if self.left => {
                    rows.push(row);
                    partner.push(None);
                }
                None => {}
            }
        }
        Ok((rows, partner))
    }

    /// What to say if it matters whose value is taken where both tables have a column: rows and their partners have
    /// other values there. Of `path`, which every table of files has, nothing is said.
    fn contradiction(
        &self,
        a: &Manifest,
        b: &Manifest,
        rows: &[usize],
        partner: &[Option<usize>],
    ) -> Result<Option<String>> {
        let (rows, partner): (Vec<usize>, Vec<usize>) =
            rows.iter().zip(partner).filter_map(|(row, other)| Some((*row, (*other)?))).unzip();
        let (mut names, mut example) = (Vec::new(), String::new());
        for name in a.schema().names() {
            if name == "path" || b.schema().position(name).is_none() || self.on.iter().any(|on| on == name) {
                continue;
            }
            let (ours, theirs) = (a.select(&[name])?.take(&rows), b.select(&[name])?.take(&partner));
            if ours == theirs {
                continue;
            }
            let (ours, theirs) = (ours.column(name)?, theirs.column(name)?);
            let shown = |value: &Value| crate::key::show(value);
            let Some(at) = ours.iter().zip(&theirs).position(|(a, b)| shown(a) != shown(b)) else { continue };
            if names.is_empty() {
                let place = self.place(a, rows[at])?;
                example = format!("{} and {} for {place}", shown(&ours[at]), shown(&theirs[at]));
            }
            names.push(format!("`{name}`"));
        }
        Ok((!names.is_empty()).then(|| {
            format!(
                "both tables have {}, with other values ({example}): the first table's are taken; \
                 what is not meant is left out by `columns:` of a `select:`, or called something else by `rename:`",
                names.join(", ")
            )
        }))
    }

    /// What a row has in the columns that are joined on.
    fn place(&self, table: &Manifest, row: usize) -> Result<String> {
        let value = |name: &String| Ok(format!("{name}={}", crate::key::show(&table.value(row, name)?)));
        Ok(self.on.iter().map(value).collect::<Result<Vec<_>>>()?.join(", "))
    }

    /// Its rows; `remarks` takes what its user should know of them.
    pub fn evaluate(&self, a: &Manifest, b: &Manifest, remarks: &mut Vec<String>) -> Result<Manifest> {
        let (rows, partner) = self.pairs(a, b)?;
        remarks.extend(self.contradiction(a, b, &rows, &partner)?);
        let new: Vec<&str> =
            b.schema().names().into_iter().filter(|name| a.schema().position(name).is_none()).collect();
        let right = b.select(&new)?;
        let right = if partner.iter().all(Option::is_some) {
            right.take(&partner.iter().flatten().copied().collect::<Vec<_>>())
        } else {
            let column = |name: &&str| -> Result<Vec<Value>> {
                let values = right.column(name)?;
                Ok(partner.iter().map(|row| row.map_or(Value::Null, |row| values[row].clone())).collect())
            };
            let columns = new.iter().map(column).collect::<Result<Vec<_>>>()?;
            Manifest::from_columns(right.schema().clone(), partner.len(), &columns)?
        };
        Ok(a.take(&rows).beside(&right)?)
    }
}
