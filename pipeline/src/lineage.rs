//! Which rows came from which: from a row back to everything it was made of, and forward to everything that used it.
//! Nothing of this is stored: a stage's units are cut again from the tables that the last run left, and their records
//! say how many rows each of them gave. Needs no lock, reads no source file and prints nothing.

use crate::axes;
use crate::builtin::Table;
use crate::key::Head;
use crate::memory::Store;
use crate::plan::{Node, Plan, Work};
use crate::run::{node_key, prepare, table_key};
use crate::stage::UnitStage;
use anyhow::Result;
use cache::{Entry, StageFacts};
use manifests::{Digest, Manifest};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

/// What a run left of a stage.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// Digest of everything that decided its table, if that was remembered.
    pub key: Option<Digest>,
    /// Digest of kind, version, parameters and constants, of stages that have units.
    pub head: Option<Digest>,
    /// Digest of its table.
    pub table: Digest,
}

/// How the rows of a table come from the rows of others.
enum Links {
    /// From no rows.
    Source,
    /// Each from one row of one input, and perhaps of a second (a join).
    Rows(Vec<(usize, usize)>, Option<Vec<Option<usize>>>),
    /// From units of work.
    Units(Cut),
}

/// The units of a stage, and what each gave.
struct Cut {
    /// The rows of the input that each unit read.
    units: Vec<Vec<usize>>,
    /// Their keys.
    keys: Vec<Digest>,
    /// The unit that each row of the table comes from, and which row of that unit it extends.
    rows: Vec<(usize, Option<u32>)>,
}

/// A stage as the last run left it.
pub struct Past {
    /// Its table.
    pub table: Manifest,
    /// The facts that its units share; none for the engine's own tables.
    pub facts: Option<StageFacts>,
    links: Result<Links, String>,
}

/// The stages of a plan as the last run left them.
pub struct Lineage<'a> {
    plan: &'a Plan,
    /// One for each stage; why not, where there is none.
    pub stages: Vec<Result<Past, String>>,
}

/// A stage on the way of a trace.
pub struct Step {
    /// The stage.
    pub node: usize,
    /// Its rows that belong to the trace, sorted.
    pub rows: Vec<usize>,
    /// The keys of the units that gave them, each once, in order.
    pub keys: Vec<Digest>,
    /// The rows of its input that its rows extend, where they come from units that read more than these.
    pub extends: Vec<usize>,
    /// The stages of the trace it leads on to; `true` if as a constant.
    pub next: Vec<(usize, bool)>,
    /// Why it leads no further, where that is not the end.
    pub lost: Option<String>,
}

/// When, where and by what a unit was computed.
#[derive(Clone, Debug)]
pub struct Computed {
    /// The unit, for people.
    pub name: String,
    /// Milliseconds since 1970.
    pub at: u64,
    /// How long it took.
    pub seconds: f64,
    /// Name of the machine.
    pub host: String,
    /// Version of effigy.
    pub program: String,
}

impl<'a> Lineage<'a> {
    /// Reads what the last run left of the stages that are `wanted`.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn read(
        plan: &'a Plan,
        (root, store): (&Path, &Store),
        left: &[Option<Left>],
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<Lineage<'a>> {
        let mut facts: HashMap<Digest, StageFacts> = HashMap::new();
        cache::scan_units(root, &|_| false, &mut |entry| {
            if let Entry::Stage(stage) = entry {
                facts.insert(stage.digest, stage);
            }
        })?;
        let lost = |i: usize| format!("stage `{}` has not been finished by the last run", plan.nodes[i].name);
        let mut stages: Vec<Result<Past, String>> = Vec::new();
        for (i, left) in left.iter().enumerate() {
            stages.push(match left {
                _ if !wanted(i) => Err(String::new()),
                None => Err(lost(i)),
                Some(left) => match store.table(&left.table) {
                    Some(table) => {
                        let facts = left.head.and_then(|head| facts.get(&head).cloned());
                        Ok(Past { table, facts, links: Err(String::new()) })
                    }
                    None => Err(format!("the table of stage `{}` is gone", plan.nodes[i].name)),
                },
            });
        }
        let mut lineage = Lineage { plan, stages };
        lineage.link(root, store, left)?;
        Ok(lineage)
    }

    fn link(&mut self, root: &Path, store: &Store, lefts: &[Option<Left>]) -> Result<()> {
        let mut cuts = Vec::new();
        for (i, node) in self.plan.nodes.iter().enumerate() {
            let (Ok(_), Some(left)) = (&self.stages[i], lefts[i]) else { continue };
            let links = match &node.work {
                Work::Table(table) => {
                    let there: Vec<bool> = node.from.iter().map(|&from| lefts[from].is_some()).collect();
                    // some of its tables failed, and it could do without
                    match there.contains(&false).then(|| table.of_those(&there)).flatten() {
                        Some(kept) => self.of_table(node, &kept, &there, left),
                        None => self.of_table(node, table, &vec![true; there.len()], left),
                    }
                }
                Work::Units(stage) => match self.cut(i, node, stage, left) {
                    Ok(cut) => {
                        let by_row = stage.def.is_row_wise();
                        let kept = by_row.then(|| store.unit_keys(&left.table, &left.head?)).flatten();
                        cuts.push((i, cut, kept));
                        continue;
                    }
                    Err(lost) => Err(lost),
                },
            };
            let past = self.stages[i].as_mut().expect("it was just seen");
            past.links = match links {
                // without a key nobody can tell more
                Ok(Links::Rows(rows, _)) if rows.len() != past.table.len() => {
                    Err(format!("the rows that stage `{}` is made of are others now", node.name))
                }
                links => links,
            };
        }
        // those whose units were not kept beside the table: all of them sought at once
        let open = cuts.iter().filter(|(_, _, kept)| kept.is_none());
        let sought: HashSet<Digest> = open.flat_map(|(_, cut, _)| cut.keys.iter().copied()).collect();
        let mut gave: HashMap<Digest, Vec<Option<u32>>> = HashMap::with_capacity(sought.len());
        if !sought.is_empty() {
            cache::scan_units(root, &|key| sought.contains(key), &mut |entry| {
                if let Entry::Unit(unit) = entry {
                    gave.insert(unit.key, unit.rows.iter().map(|row| row.of).collect());
                }
            })?;
        }
        for (i, mut cut, kept) in cuts {
            let name = &self.plan.nodes[i].name;
            match kept {
                Some(kept) if kept.iter().map(|(key, _)| key).eq(&cut.keys) => {
                    let rows = kept.iter().enumerate();
                    cut.rows = rows.flat_map(|(unit, (_, n))| std::iter::repeat_n((unit, Some(0)), *n)).collect();
                }
                _ => {
                    for (unit, key) in cut.keys.iter().enumerate() {
                        let of = gave.get(key).into_iter().flatten();
                        cut.rows.extend(of.map(|of| (unit, *of)));
                    }
                }
            }
            let past = self.stages[i].as_mut().expect("it was cut");
            past.links = if cut.rows.len() == past.table.len() {
                Ok(Links::Units(cut))
            } else {
                Err(format!("records of units of stage `{name}` are gone"))
            };
        }
        Ok(())
    }

    fn input(&self, node: &Node, input: usize) -> Result<&Manifest, String> {
        self.stages[node.from[input]].as_ref().map(|past| &past.table).map_err(Clone::clone)
    }

    fn stale(&self, node: &Node) -> String {
        format!("the recipe or what stage `{}` reads has changed since the rows were made", node.name)
    }

    /// `there` says which of its inputs the table was put together of.
    fn of_table(&self, node: &Node, table: &Table, there: &[bool], left: Left) -> Result<Links, String> {
        let there: Vec<usize> = (0..node.from.len()).filter(|&i| there[i]).collect();
        let inputs = there.iter().map(|&i| self.input(node, i)).collect::<Result<Vec<_>, _>>()?;
        let key = table_key(node, table, &inputs.iter().map(|input| input.digest()).collect::<Vec<_>>());
        if left.key.is_some_and(|made| made != key) {
            return Err(self.stale(node));
        }
        let unfit = |error: anyhow::Error| crate::run::sentence(&error);
        Ok(match table {
            Table::Files(_) | Table::Rows(_) => Links::Source,
            Table::Select(select) => {
                let rows = select.rows(inputs[0]).map_err(unfit)?;
                Links::Rows(rows.into_iter().map(|row| (0, row)).collect(), None)
            }
            Table::Join(join) => {
                let (rows, partners) = join.pairs(inputs[0], inputs[1]).map_err(unfit)?;
                Links::Rows(rows.into_iter().map(|row| (0, row)).collect(), Some(partners))
            }
            Table::Concat(concat) => {
                // one that did without some has no key, and which it had is not on record
                let same = || Ok(axes::label(&node.axes, concat.evaluate(&inputs)?)?.digest() == left.table);
                if left.key.is_none() && !same().map_err(unfit)? {
                    return Err(format!("which tables stage `{}` was put together of is not on record", node.name));
                }
                let rows = inputs.iter().zip(there).flat_map(|(input, i)| (0..input.len()).map(move |row| (i, row)));
                Links::Rows(rows.collect(), None)
            }
        })
    }

    /// Cuts a stage's input into units as the last run did; what they gave is not known yet.
    fn cut(&self, i: usize, node: &Node, stage: &UnitStage, left: Left) -> Result<Cut, String> {
        let past = self.stages[i].as_ref().map_err(Clone::clone)?;
        if past.table.is_empty() && past.facts.is_none() {
            return Ok(Cut { units: Vec::new(), keys: Vec::new(), rows: Vec::new() });
        }
        let gone = || format!("the facts of stage `{}` are gone from the records", node.name);
        let facts = past.facts.as_ref().ok_or_else(gone)?;
        // contents as they were then: files may have changed since
        let contents = |prefix: &str| -> Vec<(String, Digest)> {
            let named = facts.facts.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
            named.filter_map(|(name, value)| Some((name.to_string(), value.parse().ok()?))).collect()
        };
        let (with, files) = (contents("with "), contents("file "));
        let head = Head::new(&stage.def.kind, |facts| stage.facts(facts, &with, &files));
        let input = node.from.first().map(|_| self.input(node, 0)).transpose()?;
        let key = node_key(node, stage, &head.facts.digest, input.map(Manifest::digest));
        if head.facts.digest != facts.digest || left.key.is_some_and(|made| made != key) {
            return Err(self.stale(node));
        }
        let kept: Option<Vec<usize>> = match (&stage.filter, input) {
            (Some(filter), Some(input)) => Some(filter.rows(input).map_err(|error| error.to_string())?),
            _ => None,
        };
        let prepared = prepare(stage, head, input.cloned()).map_err(|error| crate::run::sentence(&error))?;
        let rows = |unit: usize| -> Vec<usize> {
            let rows = prepared.units.rows(unit).iter();
            rows.map(|&row| kept.as_ref().map_or(row, |kept| kept[row])).collect()
        };
        let units = (0..prepared.units.count()).map(rows).collect();
        Ok(Cut { units, keys: prepared.keys, rows: Vec::new() })
    }

    /// Everything that these rows of a stage were made of, from them back to the sources.
    pub fn back(&self, start: usize, rows: impl IntoIterator<Item = usize>) -> Vec<Step> {
        let mut sets: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.plan.nodes.len()];
        sets[start].extend(rows);
        let mut steps = Vec::new();
        for i in (0..=start).rev() {
            if sets[i].is_empty() {
                continue;
            }
            let node = &self.plan.nodes[i];
            let rows: Vec<usize> = std::mem::take(&mut sets[i]).into_iter().collect();
            let mut step = Step { node: i, rows, keys: Vec::new(), extends: Vec::new(), next: Vec::new(), lost: None };
            match self.links(i) {
                Err(lost) => step.lost = Some(lost),
                Ok(Links::Source) => {}
                Ok(Links::Rows(first, second)) => {
                    for &row in &step.rows {
                        let (input, from) = first[row];
                        sets[node.from[input]].insert(from);
                        if let Some(partner) = second.as_ref().and_then(|second| second[row]) {
                            sets[node.from[1]].insert(partner);
                        }
                    }
                }
                Ok(Links::Units(cut)) => {
                    let units: BTreeSet<usize> = step.rows.iter().map(|&row| cut.rows[row].0).collect();
                    step.keys = keys(cut, &units);
                    let read: BTreeSet<usize> =
                        units.iter().flat_map(|&unit| cut.units[unit].iter().copied()).collect();
                    let extends = step.rows.iter().filter_map(|&row| {
                        let (unit, of) = cut.rows[row];
                        of.and_then(|of| cut.units[unit].get(of as usize)).copied()
                    });
                    let extends: BTreeSet<usize> = extends.collect();
                    if extends.len() < read.len() {
                        step.extends = extends.into_iter().collect();
                    }
                    if let Some(&from) = node.from.first() {
                        sets[from].extend(read);
                    }
                    for (_, need) in &node.with {
                        if let Ok(past) = &self.stages[*need] {
                            sets[*need].extend(0..past.table.len());
                        }
                    }
                }
            }
            step.next = next(node, |need| !sets[need].is_empty());
            steps.push(step);
        }
        steps
    }

    /// Everything that used these rows of a stage, from them on to the last stages.
    pub fn forward(&self, start: usize, rows: impl IntoIterator<Item = usize>) -> Vec<Step> {
        let mut sets: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.plan.nodes.len()];
        sets[start].extend(rows);
        let mut steps: Vec<Step> = Vec::new();
        for i in start..self.plan.nodes.len() {
            let node = &self.plan.nodes[i];
            let asked = |need: usize| !sets[need].is_empty();
            if i != start && !node.needs().any(asked) {
                continue;
            }
            let mut step =
                Step { node: i, rows: Vec::new(), keys: Vec::new(), extends: Vec::new(), next: Vec::new(), lost: None };
            let mut used = BTreeSet::new();
            match self.links(i) {
                Err(lost) if i != start => step.lost = Some(lost),
                Ok(Links::Rows(first, second)) if i != start => {
                    for (row, (input, from)) in first.iter().enumerate() {
                        let partner = second.as_ref().and_then(|second| second[row]);
                        let partner = partner.is_some_and(|partner| sets[node.from[1]].contains(&partner));
                        if partner || sets[node.from[*input]].contains(from) {
                            used.insert(row);
                        }
                    }
                }
                Ok(Links::Units(cut)) => {
                    let all = node.with.iter().any(|(_, need)| asked(*need));
                    let from = node.from.first().map(|&from| &sets[from]);
                    let uses = |unit: &usize| {
                        all || from.is_some_and(|from| cut.units[*unit].iter().any(|row| from.contains(row)))
                    };
                    let units: BTreeSet<usize> = match i == start {
                        true => sets[start].iter().map(|&row| cut.rows[row].0).collect(),
                        false => (0..cut.units.len()).filter(uses).collect(),
                    };
                    let gave = cut.rows.iter().enumerate().filter(|(_, (unit, _))| units.contains(unit));
                    used = gave.map(|(row, _)| row).collect();
                    step.keys = keys(cut, &units);
                }
                _ => {}
            }
            if i != start {
                sets[i] = used;
            }
            step.rows = sets[i].iter().copied().collect();
            if step.rows.is_empty() && step.keys.is_empty() && step.lost.is_none() {
                continue;
            }
            for before in &mut steps {
                let as_rows = node.from.contains(&before.node);
                let as_constant = !as_rows && node.with.iter().any(|(_, need)| *need == before.node);
                if (as_rows || as_constant) && !before.rows.is_empty() {
                    before.next.push((i, as_constant));
                }
            }
            steps.push(step);
        }
        steps
    }

    fn links(&self, i: usize) -> Result<&Links, String> {
        self.stages[i].as_ref().map_err(Clone::clone)?.links.as_ref().map_err(Clone::clone)
    }
}

fn keys(cut: &Cut, units: &BTreeSet<usize>) -> Vec<Digest> {
    let mut seen = HashSet::new();
    units.iter().map(|&unit| cut.keys[unit]).filter(|key| seen.insert(*key)).collect()
}

/// The needs of a stage that hold; one that it maps over and takes as a constant too counts as mapped over.
fn next(node: &Node, holds: impl Fn(usize) -> bool) -> Vec<(usize, bool)> {
    let mut next: Vec<(usize, bool)> = Vec::new();
    let from = node.from.iter().map(|need| (*need, false));
    for (need, constant) in from.chain(node.with.iter().map(|(_, need)| (*need, true))) {
        if holds(need) && !next.iter().any(|(known, _)| *known == need) {
            next.push((need, constant));
        }
    }
    next
}

/// When, where and by what the units of these keys were computed, as far as their records are there.
///
/// # Errors
/// If the records cannot be read.
pub fn computed(root: &Path, keys: &HashSet<Digest>) -> Result<HashMap<Digest, Computed>> {
    let mut found = HashMap::new();
    let (mut machine, mut version) = (String::new(), String::new());
    cache::scan_units(root, &|key| keys.contains(key), &mut |entry| match entry {
        Entry::Head { host, program, .. } => (machine, version) = (host, program),
        Entry::Unit(unit) => {
            let (host, program) = (machine.clone(), version.clone());
            found.insert(unit.key, Computed { name: unit.name, at: unit.at, seconds: unit.seconds, host, program });
        }
        _ => {}
    })?;
    Ok(found)
}
