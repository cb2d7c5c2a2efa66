//! Why a unit has to run, or did: the facts of its key against those of the nearest earlier record. The facts are the
//! ones that were hashed, so an explanation and a key cannot disagree. Prints nothing.

use crate::compare::{Compared, Naming, meant};
use crate::key;
use crate::run::Prepared;
use crate::stage::UnitStage;
use crate::units;
use anyhow::Result;
use cache::layout;
use cache::{Entry, StageFacts, Unit, scan_all};
use manifests::{Digest, Manifest};
use protocol::Grain;
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Of records that could be the predecessor of a unit, the latest so many are looked at.
const LOOKED: usize = 64;

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
    /// The log of its last failure, if it has failed and not succeeded since.
    pub failed: Option<String>,
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

/// A stage's units as they are now, about which is asked.
pub struct Asked<'a> {
    stage: &'a UnitStage,
    prepared: &'a Prepared,
    naming: Naming,
    /// The keys of all of them: what has one of these is a sibling of the others, and no predecessor.
    present: HashSet<Digest>,
}

impl<'a> Asked<'a> {
    /// The units of a stage.
    pub fn new(stage: &'a UnitStage, prepared: &'a Prepared) -> Asked<'a> {
        let naming = units::naming(stage, prepared.named());
        Asked { stage, prepared, naming, present: prepared.keys.iter().copied().collect() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.prepared.units.count()
    }

    /// A unit, for people.
    pub fn name(&self, unit: usize) -> String {
        units::named(self.stage, (self.prepared.named(), &self.naming), self.prepared.units.rows(unit))
    }

    /// The units that somebody means by some words, in order: by number, by a part of the name, or by what [`meant`]
    /// says of their rows.
    pub fn meant(&self, words: &str) -> Vec<usize> {
        let count = self.count();
        if let Some(unit) = words.parse::<usize>().ok().filter(|unit| *unit < count) {
            return vec![unit];
        }
        if self.stage.def.grain != Grain::Row {
            let named: Vec<usize> = (0..count).filter(|&unit| self.name(unit).contains(words)).collect();
            if !named.is_empty() {
                return named;
            }
        }
        let rows: HashSet<usize> = meant(self.prepared.named(), words).into_iter().collect();
        let holds = |unit: &usize| self.prepared.units.rows(*unit).iter().any(|row| rows.contains(row));
        (0..count).filter(holds).collect()
    }
}

/// Everything recorded of a stage.
#[derive(Default)]
pub struct History {
    facts: HashMap<Digest, StageFacts>,
    units: Vec<Unit>,
    /// The last record of each key.
    by_key: HashMap<Digest, usize>,
    /// The records that are not those of present units, and these by name and by what they read, oldest first.
    others: Vec<usize>,
    by_name: HashMap<String, Vec<usize>>,
    /// By each `COLUMN=VALUE` of their names.
    by_part: HashMap<String, Vec<usize>>,
    by_input: HashMap<u64, Vec<usize>>,
    /// What each record of `others` read, as sorted hashes; of others nothing.
    inputs: Vec<Vec<u64>>,
    /// What changed of the facts that all units share, by the digest of the earlier ones.
    heads: HashMap<Digest, Vec<Change>>,
    /// The logs of units that failed, by the beginning of their keys.
    failed: HashMap<String, String>,
}

impl History {
    /// Reads all records of the stage of this name, oldest first. Needs no lock.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn read(workspace: &Path, node: &str, asked: &Asked<'_>) -> Result<History> {
        let mut history = History::default();
        scan_all(workspace, &mut |_, entry| match entry {
            Entry::Stage(facts) => {
                history.facts.insert(facts.digest, facts);
            }
            Entry::Unit(unit) if unit.node == node => history.units.push(Unit { rows: Vec::new(), ..unit }),
            _ => {}
        })?;
        history.order(&asked.present);
        for entry in std::fs::read_dir(workspace.join(layout::FAILED)).into_iter().flatten().flatten() {
            let path = entry.path();
            if let Some(key) = path.file_stem().and_then(|stem| stem.to_str()) {
                history.failed.insert(key.into(), path.display().to_string());
            }
        }
        Ok(history)
    }

    fn order(&mut self, present: &HashSet<Digest>) {
        for (i, unit) in self.units.iter().enumerate() {
            self.by_key.insert(unit.key, i);
            if present.contains(&unit.key) {
                self.inputs.push(Vec::new());
                continue;
            }
            let inputs = hashes(&unit.inputs);
            inputs.iter().for_each(|input| self.by_input.entry(*input).or_default().push(i));
            self.inputs.push(inputs);
            self.others.push(i);
            self.by_name.entry(unit.name.clone()).or_default().push(i);
            unit.name.split(", ").for_each(|part| self.by_part.entry(part.into()).or_default().push(i));
        }
    }

    /// Why a unit has to run, or why it ran last. `asked` is that of [`History::read`].
    pub fn reason(&mut self, asked: &Asked<'_>, unit: usize, known: bool) -> Reason {
        let prepared = asked.prepared;
        let name = asked.name(unit);
        let key = prepared.keys[unit];
        let own = self.by_key.get(&key).copied();
        let inputs = key::inputs(&prepared.projected, prepared.units.rows(unit));
        let end = own.filter(|_| known).unwrap_or(self.units.len());
        let nearest = self.nearest(end, &name, &hashes(&inputs), &prepared.head.facts.digest);
        let mut changes = Vec::new();
        if let Some(old) = nearest.map(|old| &self.units[old]) {
            let heads = self.heads.entry(old.stage).or_insert_with(|| {
                let old = self.facts.get(&old.stage).map_or(&[][..], |facts| facts.facts.as_slice());
                diff("", old, &prepared.head.facts.facts)
            });
            changes.extend_from_slice(heads);
            changes.extend(diff("column ", &old.inputs, &inputs));
        }
        // what has a record and is not known has lost a file, and did not fail
        let failed = if own.is_none() { self.failed.get(&key.short()).cloned() } else { None };
        let own = own.map(|i| &self.units[i]).filter(|_| known);
        Reason {
            unit: name,
            known,
            first: nearest.is_none(),
            failed: failed.filter(|_| !known),
            since: nearest.map(|record| self.units[record].at),
            at: own.map(|record| record.at),
            seconds: own.map(|record| record.seconds),
            changes,
            sources: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Of the records before `end` that are not those of present units, the one that is most like a unit, of several
    /// the latest: of those of its name, or failing that of those that read what the fewest others did, or else of
    /// those whose name says less or more of the same.
    fn nearest(&self, end: usize, name: &str, inputs: &[u64], head: &Digest) -> Option<usize> {
        let latest = |all: &[usize]| -> Vec<usize> {
            let before = all.partition_point(|i| *i < end);
            all[before.saturating_sub(LOOKED)..before].to_vec()
        };
        let score = |i: &usize| {
            let same_facts = usize::from(self.units[*i].stage == *head) * 10;
            (same_facts + in_common(inputs, &self.inputs[*i]), *i)
        };
        let best = |records: Vec<usize>| records.into_iter().max_by_key(score);
        if let Some(named) = self.by_name.get(name).and_then(|all| best(latest(all))) {
            return Some(named);
        }
        if inputs.is_empty() {
            return best(latest(&self.others));
        }
        // a row that shares nothing with any other is new, not changed
        let mut lists: Vec<&Vec<usize>> = inputs.iter().filter_map(|input| self.by_input.get(input)).collect();
        lists.sort_by_key(|list| list.len());
        let mut found = Vec::new();
        for list in lists {
            found.extend(latest(list));
            if found.len() >= LOOKED {
                break;
            }
        }
        if let Some(found) = best(found) {
            return Some(found);
        }
        // rows that came or went change by which columns a row is called
        let parts: HashSet<&str> = name.split(", ").collect();
        let list = parts.iter().filter_map(|part| self.by_part.get(*part)).min_by_key(|list| list.len())?;
        let alike = |i: &usize| {
            let old: HashSet<&str> = self.units[*i].name.split(", ").collect();
            old.is_subset(&parts) || parts.is_subset(&old)
        };
        best(latest(list).into_iter().filter(alike).collect())
    }
}

/// Facts as sorted hashes, which are compared faster than texts.
fn hashes(facts: &[(String, String)]) -> Vec<u64> {
    let hash = |fact: &(String, String)| {
        let mut hasher = DefaultHasher::new();
        fact.hash(&mut hasher);
        hasher.finish()
    };
    let mut hashes: Vec<u64> = facts.iter().map(hash).collect();
    hashes.sort_unstable();
    hashes
}

/// How many of two sorted lists are in both.
fn in_common(a: &[u64], b: &[u64]) -> usize {
    let (mut i, mut j, mut count) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            Ordering::Less => i += 1,
            Ordering::Greater => j += 1,
            Ordering::Equal => (i, j, count) = (i + 1, j + 1, count + 1),
        }
    }
    count
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
    use crate::key::Head;
    use crate::plan::{Work, plan};
    use crate::run::prepare;
    use crate::spec::{Overrides, parse};
    use crate::units::Units;
    use manifests::{Schema, Type, Value};

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

    fn stage() -> UnitStage {
        let text = "stages:\n  src: { rows: [{ seq: a, t: 1 }] }\n  s: { run: 'echo {seq} {t}', from: src, writes: { y: blob } }\n";
        let spec = parse("r.yaml", ".".into(), text.into(), &Overrides::default()).unwrap();
        match plan(spec, Vec::new()).unwrap().nodes.pop().unwrap().work {
            Work::Units(stage) => *stage,
            Work::Table(_) => panic!("it is a program"),
        }
    }

    /// Rows of a sequence and a time, as units of a stage with a parameter.
    fn prepared(rows: &[(&str, i64)], param: &str) -> Prepared {
        let schema = Schema::new([("seq", Type::Str), ("t", Type::I64)]).unwrap();
        let row = |(seq, t): &(&str, i64)| vec![Value::Str((*seq).into()), Value::I64(*t)];
        let table = Manifest::from_rows(schema, &rows.iter().map(row).collect::<Vec<_>>()).unwrap();
        prepare(&stage(), Head::new("kind", |facts| facts.text("param n", param)), Some(table)).unwrap()
    }

    /// What an earlier run of these rows left, asked about by `asked`.
    fn history(earlier: &Prepared, asked: &Asked<'_>) -> History {
        let stage = stage();
        let before = Asked::new(&stage, earlier);
        let unit = |unit: usize| Unit {
            key: earlier.keys[unit],
            stage: earlier.head.facts.digest,
            node: "n".into(),
            name: before.name(unit),
            inputs: key::inputs(&earlier.projected, earlier.units.rows(unit)),
            columns: Vec::new(),
            rows: Vec::new(),
            at: 5,
            seconds: 1.0,
        };
        let mut history = History { units: (0..before.count()).map(unit).collect(), ..History::default() };
        history.facts.insert(earlier.head.facts.digest, earlier.head.facts.clone());
        history.order(&asked.present);
        history
    }

    #[test]
    fn a_present_sibling_is_no_predecessor() {
        let stage = stage();
        let (old, now) = (prepared(&[("a", 1), ("b", 1)], "1"), prepared(&[("a", 1), ("a", 2), ("b", 1)], "1"));
        let asked = Asked::new(&stage, &now);
        let mut history = history(&old, &asked);
        let reason = history.reason(&asked, 1, false);
        assert!(reason.first && reason.changes.is_empty(), "{reason:?}");
        assert_eq!(reason.unit, "seq=a, t=2");
        assert!(history.reason(&asked, 0, true).first, "and before a known one there was none either");
    }

    #[test]
    fn a_predecessor_is_found_by_its_name_or_by_what_it_read() {
        let stage = stage();
        let (old, now) = (prepared(&[("a", 1), ("b", 7)], "1"), prepared(&[("a", 1), ("a", 2), ("c", 7)], "2"));
        let asked = Asked::new(&stage, &now);
        let mut history = history(&old, &asked);
        let mut facts = |unit| -> String {
            let changes = history.reason(&asked, unit, false).changes.into_iter();
            changes.map(|change| change.fact).collect::<Vec<_>>().join(", ")
        };
        assert_eq!([facts(0), facts(1), facts(2)], ["param n", "param n, column t", "param n, column seq"]);
        let key = now.keys[1].short();
        history.failed.insert(key, "w/failed/1.txt".into());
        assert_eq!(history.reason(&asked, 1, false).failed.as_deref(), Some("w/failed/1.txt"));
        assert_eq!(history.reason(&asked, 0, false).failed, None);
    }

    #[test]
    fn units_are_meant_by_number_name_or_any_column() {
        let (mut stage, now) = (stage(), prepared(&[("a", 1), ("a", 10), ("b", 1)], "1"));
        let meant = |stage: &UnitStage, now: &Prepared, words: &str| Asked::new(stage, now).meant(words);
        assert_eq!(meant(&stage, &now, "2"), [2]);
        assert_eq!((meant(&stage, &now, "t=1"), meant(&stage, &now, "seq=a, t=10")), (vec![0, 2], vec![1]));
        (stage.def.grain, stage.by) = (Grain::Group, vec!["seq".into()]);
        let groups = Prepared { units: Units::Many(vec![vec![0, 1], vec![2]]), ..now };
        assert_eq!((meant(&stage, &groups, "seq=b"), meant(&stage, &groups, "t=10")), (vec![1], vec![0]));
        assert!(meant(&stage, &groups, "t=3").is_empty());
    }
}
