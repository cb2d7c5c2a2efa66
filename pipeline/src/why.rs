//! Why a unit has to run, or did: the facts of its key against those of the nearest earlier record. The facts are the ones
//! that were hashed, so an explanation and a key cannot disagree. Prints nothing.

use crate::key;
use crate::run::Prepared;
use crate::stage::UnitStage;
use crate::units;
use anyhow::Result;
use cache::{Entry, StageFacts, Unit, scan_all};
use manifests::Digest;
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
}

/// Everything recorded of a stage.
#[derive(Default)]
pub struct History {
    facts: HashMap<Digest, StageFacts>,
    units: Vec<Unit>,
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
        Ok(history)
    }

    /// Why a unit has to run, or why it ran last.
    pub fn reason(&self, stage: &UnitStage, prepared: &Prepared, unit: usize, known: bool) -> Reason {
        let rows = prepared.units.rows(unit);
        let name = units::name(stage, prepared.named(), rows);
        let key = prepared.keys[unit];
        let own = self.units.iter().rposition(|record| record.key == key);
        let inputs = key::inputs(&prepared.projected, rows);
        let earlier = &self.units[..own.filter(|_| known).unwrap_or(self.units.len())];
        let nearest = self.nearest(earlier, key, &name, &inputs, &prepared.head.facts);
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
        }
    }

    /// The latest record of the same unit; failing that the latest of those with most facts in common.
    fn nearest(
        &self,
        earlier: &[Unit],
        key: Digest,
        name: &str,
        inputs: &[(String, String)],
        facts: &StageFacts,
    ) -> Option<&Unit> {
        let others = earlier.iter().filter(|record| record.key != key);
        let score = |record: &Unit| {
            let same_name = usize::from(record.name == name) * 1000;
            let same_facts = usize::from(record.stage == facts.digest) * 10;
            same_name + same_facts + inputs.iter().filter(|fact| record.inputs.contains(fact)).count()
        };
        let best = others.enumerate().max_by_key(|(i, record)| (score(record), *i))?.1;
        // a row that shares nothing with any other is new, not changed
        let related = best.name == name || best.inputs.iter().any(|fact| inputs.contains(fact)) || inputs.is_empty();
        let best = earlier.iter().rfind(|record| std::ptr::eq(*record, best))?;
        related.then(|| self.units.iter().find(|record| std::ptr::eq(*record, best)))?
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
