//! A stage whose units are looked up and worked on: which are known, which wait, which failed. What a run would do is
//! foreseen by the same looking up. Knows no executor.

use crate::builtin::fits;
use crate::compare::Naming;
use crate::key;
use crate::memory::Prior;
use crate::run::{Prepared, With};
use crate::stage::UnitStage;
use crate::task::{Lent, Order, Output};
use crate::units;
use anyhow::Result;
use cache::{Cache, OutRow, Unit};
use manifests::{Digest, Manifest, Value};
use rayon::prelude::*;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

/// A task keeps a worker busy for a while, but loses not too much if the worker dies.
const MOST_UNITS: usize = 256;

/// A distinct unit: units of the same key are one slot.
pub struct Slot {
    pub key: Digest,
    /// The first unit of this key.
    pub unit: usize,
    /// How many units have it.
    pub units: usize,
    pub output: Option<Output>,
    pub failed: bool,
    /// How often it was tried again after it had failed alone.
    pub retries: usize,
    pub seconds: f64,
}

/// A stage at work.
pub struct Active {
    pub prepared: Prepared,
    /// Digest of everything that decides its table.
    pub key: Digest,
    pub slots: Vec<Slot>,
    slot_of: Vec<usize>,
    waiting: VecDeque<Vec<usize>>,
    /// How many slots these are: asked for at each event, as are the following.
    waiting_slots: usize,
    failed_slots: usize,
    failed_units: usize,
    /// How its units are called, once somebody has to call one.
    naming: OnceCell<Naming>,
    pub with: With,
    /// In which round its constants and code were seen to be what they were, and since when.
    sound_in: Option<(u64, i64)>,
    pub executed: usize,
    /// Failures the user was told of.
    pub told: usize,
    /// Tries that failed and were followed by another.
    pub tried: usize,
    /// A task of it was started.
    pub begun: bool,
    open: usize,
    /// Whether its units run although they are known.
    forced: bool,
}

/// A task that was handed to the executor.
pub struct Flight {
    pub node: usize,
    pub slots: Vec<usize>,
    pub keys: Vec<Digest>,
    pub dir: PathBuf,
    pub outside: Vec<Digest>,
    pub lent: Vec<Lent>,
    pub since: Instant,
    /// When it was handed in, as files have it ([`cache::Fingerprint::now`]): it began no earlier.
    pub begun: i64,
    /// When it ended; not set while it is in work.
    pub until: Option<Instant>,
    pub within: f64,
    pub note: String,
    pub delivered: HashSet<usize>,
    pub failed: HashMap<usize, (String, Option<String>)>,
    pub error: Option<(String, Option<String>)>,
    /// Whoever did the work failed at it, so that another try may end otherwise; nothing is known to be wrong with what
    /// it was given or has put out.
    pub may_retry: bool,
    /// An earlier run handed it in.
    pub is_adopted: bool,
}

impl Flight {
    pub fn new(node: usize, slots: Vec<usize>, dir: PathBuf, outside: Vec<Digest>, keys: Vec<Digest>) -> Flight {
        Flight {
            node,
            slots,
            keys,
            dir,
            outside,
            lent: Vec::new(),
            since: Instant::now(),
            begun: cache::Fingerprint::now(),
            until: None,
            within: 0.0,
            note: String::new(),
            delivered: HashSet::new(),
            failed: HashMap::new(),
            error: None,
            may_retry: false,
            is_adopted: false,
        }
    }
}

/// What a record says of a unit, with the seconds that it took; nothing if the stage declares other columns by now.
fn recorded(prepared: &Prepared, unit: Unit) -> Option<(Output, f64)> {
    let output = units::fitted(&prepared.writes, Output { columns: unit.columns, rows: unit.rows })?;
    Some((output, unit.seconds))
}

impl Active {
    pub fn new(prepared: Prepared, key: Digest) -> Active {
        let mut slots: Vec<Slot> = Vec::new();
        let mut known: HashMap<Digest, usize> = HashMap::with_capacity(prepared.keys.len());
        let slot_of = prepared.keys.iter().enumerate().map(|(unit, key)| {
            let slot = *known.entry(*key).or_insert_with(|| {
                slots.push(Slot { key: *key, unit, units: 0, output: None, failed: false, retries: 0, seconds: 0.0 });
                slots.len() - 1
            });
            slots[slot].units += 1;
            slot
        });
        let slot_of = slot_of.collect();
        Active {
            prepared,
            key,
            slots,
            slot_of,
            waiting: VecDeque::new(),
            waiting_slots: 0,
            failed_slots: 0,
            failed_units: 0,
            naming: OnceCell::new(),
            with: With::default(),
            sound_in: None,
            executed: 0,
            told: 0,
            tried: 0,
            begun: false,
            open: 0,
            forced: false,
        }
    }

    /// Takes no unit for known. Their checkpoints go as well: from one of them, a training would only end once more.
    pub fn force(&mut self, cache: &Cache) {
        self.forced = true;
        self.open = self.slots.len();
        self.slots.iter().for_each(|slot| cache.drop_scratch(&slot.key));
    }

    /// Takes over the units that the last run's table holds.
    fn recall(&mut self, stage: &UnitStage, prior: Option<Prior>) -> Result<()> {
        let Some(prior) = prior else { return Ok(()) };
        let writes = || stage.def.writes.iter();
        let mut columns = Vec::new();
        for column in writes() {
            // a table of another version of the stage
            let found = prior.table.schema().ty(&column.name).filter(|found| fits(column.ty, *found));
            let Some(ty) = found else { return Ok(()) };
            columns.push((column.name.clone(), ty));
        }
        let values: Vec<Vec<Value>> =
            writes().map(|column| prior.table.column(&column.name)).collect::<Result<_, _>>()?;
        let worth = prior.seconds / prior.units.len().max(1) as f64;
        for slot in &mut self.slots {
            let Some(&(first, rows)) = prior.units.get(&slot.key) else { continue };
            let row =
                |row: usize| OutRow { of: Some(0), values: values.iter().map(|column| column[row].clone()).collect() };
            slot.output = Some(Output { columns: columns.clone(), rows: (first..first + rows).map(row).collect() });
            slot.seconds = worth;
        }
        Ok(())
    }

    /// Looks all units up, in the last run's table first; those whose files are gone are not known.
    pub fn look_up(&mut self, stage: &UnitStage, prior: Option<Prior>, cache: &mut Cache) -> Result<()> {
        self.recall(stage, prior)?;
        let known = &*cache;
        self.slots.par_iter_mut().with_min_len(64).for_each(|slot| {
            let whole = |output: &Output| {
                let mut values = output.rows.iter().flat_map(|row| &row.values);
                values.all(|value| if let Value::Blob(blob) = value { known.has(blob) } else { true })
            };
            if slot.output.as_ref().is_some_and(|output| !whole(output)) {
                slot.output = None;
            }
        });
        self.take(&mut |key| cache.get(key))
    }

    /// Takes over those units that are not known and that `unit` finds.
    pub fn take(&mut self, unit: &mut dyn FnMut(&Digest) -> Result<Option<Unit>, cache::Error>) -> Result<()> {
        for slot in self.slots.iter_mut().filter(|slot| slot.output.is_none()) {
            if let Some((output, seconds)) = unit(&slot.key)?.and_then(|unit| recorded(&self.prepared, unit)) {
                slot.output = Some(output);
                slot.seconds = seconds;
            }
        }
        self.open = self.slots.iter().filter(|slot| slot.output.is_none()).count();
        Ok(())
    }

    /// The keys of the units that are not known.
    pub fn missing(&self) -> Vec<Digest> {
        self.slots.iter().filter(|slot| slot.output.is_none()).map(|slot| slot.key).collect()
    }

    /// Whether each unit is known, in order.
    pub fn known(&self) -> Vec<bool> {
        self.slot_of.iter().map(|&slot| self.is_known(slot)).collect()
    }

    /// The slot of each key.
    pub fn places(&self) -> HashMap<Digest, usize> {
        self.slots.iter().enumerate().map(|(i, slot)| (slot.key, i)).collect()
    }

    /// Whether a unit need not be worked on.
    pub fn is_known(&self, slot: usize) -> bool {
        self.slots[slot].output.is_some()
    }

    /// The files outside of the workspace that these units read.
    pub fn outside(&self, slots: &[usize], cache: &Cache) -> Vec<Digest> {
        let table = &self.prepared.projected;
        let blobs = table.schema().columns().iter().filter(|column| column.ty == manifests::Type::Blob);
        let columns: Vec<Vec<Value>> = blobs.filter_map(|column| table.column(&column.name).ok()).collect();
        let rows = || slots.iter().flat_map(|&slot| self.prepared.units.rows(self.slots[slot].unit));
        let values = columns.iter().flat_map(|column| rows().map(|&row| &column[row]));
        let digests = values.filter_map(|value| if let Value::Blob(blob) = value { Some(blob.digest) } else { None });
        digests.filter(|digest| cache.is_referred(digest)).collect()
    }

    /// Cuts the misses that nobody works on yet into tasks, of which so many are worked on side by side.
    pub fn begin(&mut self, with: With, stage: &UnitStage, lanes: usize, taken: &[usize]) {
        self.with = with;
        let taken: HashSet<usize> = taken.iter().copied().collect();
        let is_missing = |slot: &usize| self.slots[*slot].output.is_none() && !taken.contains(slot);
        let misses: Vec<usize> = (0..self.slots.len()).filter(is_missing).collect();
        let size = if stage.is_alone() {
            1
        } else {
            let batch = stage.def.batch.max(1);
            // a few tasks for each lane, so that none waits long for the last
            (misses.len().div_ceil(lanes * 4).div_ceil(batch) * batch).clamp(batch, MOST_UNITS.max(batch))
        };
        self.waiting = misses.chunks(size).map(<[usize]>::to_vec).collect();
        self.waiting_slots = misses.len();
    }

    /// The next task, as slots. Units that another stage has finished meanwhile need none; those another is working on
    /// wait.
    pub fn next_task(&mut self, cache: &mut Cache, in_flight: &HashSet<Digest>) -> Result<Option<Vec<usize>>> {
        for _ in 0..self.waiting.len() {
            let Some(slots) = self.waiting.pop_front() else { break };
            self.waiting_slots -= slots.len();
            let (busy, mut free): (Vec<usize>, Vec<usize>) =
                slots.into_iter().partition(|&slot| in_flight.contains(&self.slots[slot].key));
            let mut missing = Vec::new();
            for slot in free.drain(..) {
                let known = if self.forced { None } else { cache.fresh(&self.slots[slot].key)? };
                match known.and_then(|unit| recorded(&self.prepared, unit)) {
                    Some((output, seconds)) => {
                        let slot = &mut self.slots[slot];
                        slot.output = Some(output);
                        slot.seconds = seconds;
                        self.open -= 1;
                    }
                    None => missing.push(slot),
                }
            }
            if !busy.is_empty() {
                self.waiting_slots += busy.len();
                self.waiting.push_back(busy);
            }
            if !missing.is_empty() {
                return Ok(Some(missing));
            }
        }
        Ok(None)
    }

    pub fn order<'a>(&'a self, stage: &'a UnitStage, slots: &[usize], threads: usize) -> Order<'a> {
        Order {
            stage,
            table: &self.prepared.projected,
            units: slots.iter().map(|&slot| self.prepared.units.rows(self.slots[slot].unit)).collect(),
            keys: slots.iter().map(|&slot| self.slots[slot].key).collect(),
            stage_key: self.prepared.head.facts.digest,
            threads,
            with: &self.with.files,
            scratch: None,
        }
    }

    /// These units, counted in the order of the input.
    pub fn unit_numbers(&self, slots: &[usize]) -> Vec<usize> {
        slots.iter().map(|&slot| self.slots[slot].unit).collect()
    }

    /// How many rows each of these units has.
    pub fn sizes(&self, slots: &[usize]) -> Vec<usize> {
        slots.iter().map(|&slot| self.prepared.units.rows(self.slots[slot].unit).len()).collect()
    }

    /// Keeps a finished unit.
    pub fn put(
        &mut self,
        slot: usize,
        output: Output,
        seconds: f64,
        (node, stage): (&str, &UnitStage),
        cache: &mut Cache,
    ) -> Result<()> {
        let rows = self.prepared.units.rows(self.slots[slot].unit);
        let unit = Unit {
            key: self.slots[slot].key,
            stage: self.prepared.head.facts.digest,
            node: node.into(),
            name: self.name(stage, slot),
            inputs: key::inputs(&self.prepared.projected, rows),
            columns: output.columns.clone(),
            rows: output.rows.clone(),
            at: (cache::Fingerprint::now() / 1_000_000) as u64,
            seconds,
        };
        cache.put(&unit, &self.prepared.head.facts)?;
        let slot = &mut self.slots[slot];
        slot.output = Some(output);
        slot.seconds = seconds;
        self.executed += 1;
        self.open -= 1;
        Ok(())
    }

    /// The first file of its constants and of its code that is not what it was since a task was begun: what was made
    /// meanwhile cannot be kept. All that is heard in one round was made before it, so one look at them is enough for
    /// all that was begun no earlier.
    pub fn changed_constant(&mut self, (round, begun): (u64, i64), cache: &Cache) -> Option<PathBuf> {
        if self.sound_in.is_some_and(|(sound, since)| sound == round && since <= begun) {
            return None;
        }
        let changed = cache.changed(&self.with.outside, begun).or_else(|| cache.changed_at(&self.with.read, begun));
        if changed.is_none() {
            self.sound_in = Some((round, begun));
        }
        changed.map(PathBuf::from)
    }

    /// Takes back a task that was not worked on.
    pub fn put_back(&mut self, slots: Vec<usize>) {
        let open = slots.into_iter().filter(|&slot| self.slots[slot].output.is_none() && !self.slots[slot].failed);
        let open: Vec<usize> = open.collect();
        self.waiting_slots += open.len();
        self.waiting.push_front(open);
    }

    /// Whether a unit that failed alone was not tried again so often.
    pub fn may_retry(&self, slot: usize, most: usize) -> bool {
        self.slots[slot].retries < most
    }

    /// Tries a unit that failed alone again; how often it then was. It is decided before others begin: where all fail,
    /// that is known after a few of them.
    pub fn retry_of(&mut self, slot: usize) -> usize {
        self.put_back(vec![slot]);
        self.tried += 1;
        self.slots[slot].retries += 1;
        self.slots[slot].retries
    }

    /// Tries a unit once more, alone.
    pub fn retry(&mut self, slot: usize) {
        self.waiting_slots += 1;
        self.waiting.push_back(vec![slot]);
    }

    /// Gives a unit up.
    pub fn fail(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.failed = true;
        self.failed_slots += 1;
        self.failed_units += slot.units;
        self.open -= 1;
    }

    /// Whether every unit is known or has failed.
    pub fn is_over(&self) -> bool {
        self.open == 0
    }

    /// Units that are known.
    pub fn cached(&self) -> usize {
        self.slot_of.iter().filter(|&&slot| self.is_known(slot)).count()
    }

    /// Units that ran or have to.
    pub fn to_run(&self) -> usize {
        self.executed + self.open + self.failed_slots
    }

    /// Whether any unit is known, from earlier or by now.
    pub fn has_some(&self) -> bool {
        self.slots.len() > self.open + self.failed_slots
    }

    /// A unit, for people.
    pub fn name(&self, stage: &UnitStage, slot: usize) -> String {
        let table = self.prepared.named();
        let naming = self.naming.get_or_init(|| units::naming(stage, table));
        units::named(stage, (table, naming), self.prepared.units.rows(self.slots[slot].unit))
    }

    /// Whether more of its units have failed than this share of them.
    pub fn failed_more_than(&self, share: f64) -> bool {
        let failed = self.failed_units();
        failed > 0 && failed as f64 / self.prepared.units.count().max(1) as f64 > share
    }

    /// Units that failed, those of equal key counted each.
    pub fn failed_units(&self) -> usize {
        self.failed_units
    }

    /// Each unit's key and number of rows, in order.
    pub fn unit_rows(&self) -> Vec<(Digest, usize)> {
        let rows = |slot: &usize| self.slots[*slot].output.as_ref().map_or(0, |output| output.rows.len());
        self.slot_of.iter().map(|slot| (self.slots[*slot].key, rows(slot))).collect()
    }

    /// The files its units put out, if there are at most so many.
    pub fn few_blobs(&self, most: usize) -> Option<Vec<(Digest, u64)>> {
        let rows = self.slots.iter().filter_map(|slot| slot.output.as_ref()).flat_map(|output| &output.rows);
        let mut blobs = Vec::new();
        for value in rows.flat_map(|row| &row.values) {
            if let Value::Blob(blob) = value {
                if blobs.len() == most {
                    return None;
                }
                blobs.push((blob.digest, blob.len));
            }
        }
        Some(blobs)
    }

    /// Gives up everything that has not begun, and says how many units that are. Of those that were tried and wait for
    /// another try, it was said that they are tried again.
    pub fn abandon(&mut self) -> usize {
        let is_tried = |slots: &Vec<usize>| slots.iter().any(|&slot| self.slots[slot].retries > 0);
        let (tried, untried): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(is_tried);
        self.waiting = tried;
        let untried: Vec<usize> = untried.into_iter().flatten().collect();
        self.waiting_slots -= untried.len();
        untried.iter().for_each(|&slot| self.fail(slot));
        untried.len()
    }

    /// Seconds of work in its units.
    pub fn worth(&self) -> f64 {
        self.slots.iter().map(|slot| slot.seconds).sum()
    }

    /// What to say of a stage whose units ran, none of which failed, and whose table of so many rows has none.
    pub fn barren(&self, name: &str, rows: usize) -> Option<String> {
        let units = self.prepared.units.count();
        let is_barren = rows == 0 && self.executed > 0 && self.failed_units() == 0;
        is_barren
            .then(|| format!("stage `{name}`: put out no row from {units} unit{}", if units == 1 { "" } else { "s" }))
    }

    /// Its table.
    pub fn table(&self, stage: &UnitStage) -> Result<Manifest> {
        let outputs: Vec<Option<&Output>> = self.slot_of.iter().map(|&slot| self.slots[slot].output.as_ref()).collect();
        units::assemble(stage, self.prepared.table.as_ref(), &self.prepared.units, &outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Head;
    use crate::units::Units;
    use manifests::{Schema, Type};

    fn of_one_unit() -> Active {
        let table = Manifest::from_rows(Schema::new([("x", Type::I64)]).unwrap(), &[vec![Value::I64(1)]]).unwrap();
        let head = Head::new("kind", |facts| facts.text("kind", "kind"));
        let (keys, units) = (head.row_keys(&table), Units::Rows(vec![0]));
        let prepared = Prepared { head, table: None, projected: table, units, keys, writes: Vec::new() };
        Active::new(prepared, Digest::of_bytes(b"key"))
    }

    #[test]
    fn constants_are_looked_at_once_in_a_round() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(&dir.path().join("workspace"), "test").unwrap();
        let (code, model) = (dir.path().join("code"), dir.path().join("model"));
        for path in [&code, &model] {
            std::fs::write(path, path.to_str().unwrap()).unwrap();
        }
        let seen = cache.refer(&[code.clone(), model.clone()]).unwrap();
        let mut active = of_one_unit();
        active.with = With { outside: vec![seen[1].0], read: vec![code.clone()], ..With::default() };
        assert_eq!(active.changed_constant((1, i64::MAX), &cache), None);
        std::fs::write(&model, "another").unwrap();
        assert_eq!(active.changed_constant((1, i64::MAX), &cache), None, "what was heard then was made before");
        assert_eq!(active.changed_constant((2, i64::MAX), &cache), Some(model.clone()));
        assert_eq!(
            active.changed_constant((2, i64::MAX), &cache),
            Some(model.clone()),
            "the next unit hears of it too"
        );
        std::fs::write(&model, model.to_str().unwrap()).unwrap();
        assert_eq!(active.changed_constant((3, i64::MAX), &cache), None);
        std::fs::write(&code, "another").unwrap();
        assert_eq!(active.changed_constant((4, i64::MAX), &cache), Some(code));
    }

    #[test]
    fn a_stage_without_rows_is_remarked_on() {
        let mut active = of_one_unit();
        assert_eq!(active.barren("a", 0), None, "nothing ran");
        active.executed = 1;
        assert_eq!(active.barren("a", 0).unwrap(), "stage `a`: put out no row from 1 unit");
        assert_eq!(active.barren("a", 1), None);
        active.open = active.slots.len();
        active.fail(0);
        assert_eq!(active.barren("a", 0), None, "failures speak for themselves");
    }

    #[test]
    fn counts_follow_what_becomes_of_units() {
        let rows: Vec<Vec<Value>> = [1, 1, 2, 3].map(|x| vec![Value::I64(x)]).to_vec();
        let table = Manifest::from_rows(Schema::new([("x", Type::I64)]).unwrap(), &rows).unwrap();
        let head = Head::new("kind", |facts| facts.text("kind", "kind"));
        let (keys, units) = (head.row_keys(&table), Units::Rows((0..4).collect()));
        let prepared = Prepared { head, table: None, projected: table, units, keys, writes: Vec::new() };
        let mut active = Active::new(prepared, Digest::of_bytes(b"key"));
        // three units that differ, none of them known
        active.open = active.slots.len();
        active.put_back(vec![1]);
        active.retry(2);
        assert_eq!((active.waiting_slots, active.to_run(), active.failed_units()), (2, 3, 0));
        active.fail(0);
        assert_eq!((active.waiting_slots, active.to_run(), active.failed_units()), (2, 3, 2), "two have its key");
        assert!(active.failed_more_than(0.4) && !active.failed_more_than(0.5) && !active.has_some());
        active.slots[1].output = Some(Output { columns: Vec::new(), rows: Vec::new() });
        (active.open, active.executed) = (1, 1);
        assert!(active.has_some());
        // the other is given up before it has begun
        active.waiting.retain(|slots| *slots == [2]);
        active.waiting_slots = 1;
        assert_eq!(active.abandon(), 1);
        assert_eq!((active.waiting_slots, active.to_run(), active.failed_units()), (0, 3, 3));
        assert!(active.is_over());
    }
}
