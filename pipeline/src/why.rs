//! Why a unit has to run, or did: the facts of its key against those of the nearest earlier record. The facts are the ones
//! that were hashed, so an explanation and a key cannot disagree. Prints nothing.

use crate::compare::Compared;
use crate::key;
use crate::run::Prepared;
use crate::stage::UnitStage;
use crate::units;
use anyhow::Result;
use cache::{Entry, StageFacts, Unit, scan_all};
use manifests::{Digest, Manifest};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A fact that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Change {
    /// The fact: `param steps`, `column file`, `version`.
    pub fact: String,
    /// What it was; nothing if it is new.
    pub old: Option<String>,
    /// What it is; nothing if it is gone.
    pub new: Option<String>,
}

/// Why one unit runs.
#[derive(Clone, Debug, Serialize)]
pub struct Reason {
    /// The unit, for people.
    pub unit: String,
    /// Whether it is known; then the reason is that of its last run.
    pub known: bool,
    /// Whether there is no earlier record to compare with.
    pub first: bool,
    /// When the record it is compared with was made, milliseconds since 1970.
    pub since: Option<u64>,
    /// When it was computed itself, if it is known.
    pub at: Option<u64>,
    /// How long that took, seconds.
    pub seconds: Option<f64>,
    /// What changed.
    pub changes: Vec<Change>,
    /// Where the columns that changed were written.
    pub sources: Vec<Source>,
    /// The rows behind contents of many rows that changed: its own, and those of constants.
    pub rows: Vec<ChangedRows>,
}

/// Where a column that changed was written.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    /// The column.
    pub column: String,
    /// The stage that wrote it.
    pub stage: String,
    /// The row of that stage, for people, if it is one.
    pub row: Option<String>,
}

/// The rows behind a content that changed.
#[derive(Clone, Debug, Serialize)]
pub struct ChangedRows {
    /// The stage whose rows they are.
    pub stage: String,
    /// As which constant they are read, if as one.
    pub constant: Option<String>,
    /// How they changed.
    pub compared: Compared,
}

/// The rows of a unit that an earlier table of its stage's input would give.
///
/// # Errors
/// If the table lacks a column.
pub fn earlier_rows(stage: &UnitStage, table: &Manifest, unit: &Manifest) -> Result<Manifest> {
    let table = match &stage.filter {
        Some(filter) => table.take(&filter.rows(table)?),
        None => table.clone(),
    };
    if stage.by.is_empty() || unit.is_empty() {
        return Ok(table);
    }
    let by: Vec<&str> = stage.by.iter().map(String::as_str).collect();
    let group = unit.map_encoded(&by, <[u8]>::to_vec)?.swap_remove(0);
    let rows = table.map_encoded(&by, |bytes| *bytes == *group)?;
    Ok(table.take(&(0..table.len()).filter(|&row| rows[row]).collect::<Vec<_>>()))
}

/// Everything recorded of a stage.
#[derive(Default)]
pub struct History {
    facts: HashMap<Digest, StageFacts>,
    units: Vec<Unit>,
    /// The last record of each key, and all of each name.
    by_key: HashMap<Digest, usize>,
    by_name: HashMap<String, Vec<usize>>,
}

impl History {
    /// Reads all records of the stage of this name, oldest first. Needs no lock.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn read(workspace: &Path, node: &str) -> Result<History> {
        let mut history = History::default();
        scan_all(workspace, &mut |_, entry| match entry {
            Entry::Stage(facts) => {
                history.facts.insert(facts.digest, facts);
            }
            Entry::Unit(unit) if unit.node == node => history.units.push(Unit { rows: Vec::new(), ..unit }),
            _ => {}
        })?;
        for (i, unit) in history.units.iter().enumerate() {
            history.by_key.insert(unit.key, i);
            history.by_name.entry(unit.name.clone()).or_default().push(i);
        }
        Ok(history)
    }

    /// Why a unit has to run, or why it ran last.
    pub fn reason(&self, stage: &UnitStage, prepared: &Prepared, unit: usize, known: bool) -> Reason {
        let rows = prepared.units.rows(unit);
        let name = units::name(stage, prepared.named(), rows);
        let key = prepared.keys[unit];
        let own = self.by_key.get(&key).copied();
        let inputs = key::inputs(&prepared.projected, rows);
        let end = own.filter(|_| known).unwrap_or(self.units.len());
        let nearest = self.nearest(end, key, &name, &inputs, &prepared.head.facts);
        let own = own.map(|i| &self.units[i]).filter(|_| known);
        let changes = nearest.map_or(Vec::new(), |old| {
            let empty = Vec::new();
            let old_facts = self.facts.get(&old.stage).map_or(&empty, |facts| &facts.facts);
            let mut changes = diff("", old_facts, &prepared.head.facts.facts);
            changes.extend(diff("column ", &old.inputs, &inputs));
            changes
        });
        Reason {
            unit: name,
            known,
            first: nearest.is_none(),
            since: nearest.map(|record| record.at),
            at: own.map(|record| record.at),
            seconds: own.map(|record| record.seconds),
            changes,
            sources: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Of the records before `end` the latest of the same unit; failing that the latest of those with most facts in common.
    fn nearest(
        &self,
        end: usize,
        key: Digest,
        name: &str,
        inputs: &[(String, String)],
        facts: &StageFacts,
    ) -> Option<&Unit> {
        let other = |i: &usize| *i < end && self.units[*i].key != key;
        let score = |i: &usize| {
            let record = &self.units[*i];
            let same_facts = usize::from(record.stage == facts.digest) * 10;
            (same_facts + inputs.iter().filter(|fact| record.inputs.contains(fact)).count(), *i)
        };
        let named = self.by_name.get(name).into_iter().flatten().copied();
        if let Some(best) = named.filter(other).max_by_key(score) {
            return Some(&self.units[best]);
        }
        let best = &self.units[(0..end).filter(other).max_by_key(score)?];
        // a row that shares nothing with any other is new, not changed
        let related = best.inputs.iter().any(|fact| inputs.contains(fact)) || inputs.is_empty();
        related.then_some(best)
    }
}

/// The facts that are not the same, by name; `prefix` is put before each name.
pub fn diff(prefix: &str, old: &[(String, String)], new: &[(String, String)]) -> Vec<Change> {
    let map = |facts: &[(String, String)]| -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for (name, value) in facts {
            // facts of the same name (several overrides) are one list
            map.entry(name.clone())
                .and_modify(|all: &mut String| all.push_str(&format!("; {value}")))
                .or_insert(value.clone());
        }
        map
    };
    let (old, new) = (map(old), map(new));
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    changed
        .map(|name| Change {
            fact: format!("{prefix}{name}"),
            old: old.get(name).cloned(),
            new: new.get(name).cloned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_what_came_went_and_moved() {
        let facts = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let changes =
            diff("", &facts(&[("a", "1"), ("b", "2"), ("c", "3")]), &facts(&[("b", "2"), ("c", "4"), ("d", "5")]));
        let text: Vec<String> = changes.iter().map(|c| format!("{} {:?} {:?}", c.fact, c.old, c.new)).collect();
        assert_eq!(text, [r#"a Some("1") None"#, r#"c Some("3") Some("4")"#, r#"d None Some("5")"#]);
    }
}
