//! A stage whose units are being worked on: which are known, which wait, which failed. Knows no executor.

use crate::key;
use crate::run::Prepared;
use crate::stage::{UnitStage, Worker};
use crate::task::{Order, Output};
use crate::units;
use anyhow::Result;
use cache::{Cache, Unit};
use manifests::{Digest, Manifest};
use protocol::Grain;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

/// A task keeps a worker busy for a while, but loses not too much if the worker dies.
const MOST_UNITS: usize = 256;

/// A distinct unit: units of the same key are one slot.
pub struct Slot {
    pub key: Digest,
    /// The first unit of this key.
    pub unit: usize,
    pub output: Option<Output>,
    pub failed: bool,
    pub tries: usize,
    pub seconds: f64,
}

/// A stage's constants as files.
#[derive(Default)]
pub struct With {
    pub files: BTreeMap<String, PathBuf>,
    pub outside: Vec<Digest>,
}

/// A stage at work.
pub struct Active {
    pub prepared: Prepared,
    /// Digest of everything that decides its table.
    pub key: Digest,
    pub slots: Vec<Slot>,
    slot_of: Vec<usize>,
    waiting: VecDeque<Vec<usize>>,
    pub with: With,
    pub executed: usize,
    open: usize,
}

/// A task that was handed to the executor.
pub struct Flight {
    pub node: usize,
    pub slots: Vec<usize>,
    pub keys: Vec<Digest>,
    pub dir: PathBuf,
    pub threads: usize,
    pub outside: Vec<Digest>,
    pub since: Instant,
    pub within: f64,
    pub note: String,
    pub delivered: HashSet<usize>,
    pub failed: HashMap<usize, (String, Option<String>)>,
    pub error: Option<(String, Option<String>)>,
}

impl Flight {
    pub fn new(
        node: usize,
        slots: Vec<usize>,
        dir: PathBuf,
        threads: usize,
        outside: Vec<Digest>,
        keys: Vec<Digest>,
    ) -> Flight {
        Flight {
            node,
            slots,
            keys,
            dir,
            threads,
            outside,
            since: Instant::now(),
            within: 0.0,
            note: String::new(),
            delivered: HashSet::new(),
            failed: HashMap::new(),
            error: None,
        }
    }
}

impl Active {
    pub fn new(prepared: Prepared, key: Digest) -> Active {
        let mut slots: Vec<Slot> = Vec::new();
        let mut known: HashMap<Digest, usize> = HashMap::with_capacity(prepared.keys.len());
        let slot_of = prepared.keys.iter().enumerate().map(|(unit, key)| {
            *known.entry(*key).or_insert_with(|| {
                slots.push(Slot { key: *key, unit, output: None, failed: false, tries: 0, seconds: 0.0 });
                slots.len() - 1
            })
        });
        let slot_of = slot_of.collect();
        Active { prepared, key, slots, slot_of, waiting: VecDeque::new(), with: With::default(), executed: 0, open: 0 }
    }

    /// Looks all units up.
    pub fn look_up(&mut self, cache: &mut Cache) -> Result<()> {
        for slot in &mut self.slots {
            if let Some(unit) = cache.get(&slot.key)? {
                slot.output = Some(Output { columns: unit.columns, rows: unit.rows });
                slot.seconds = unit.seconds;
            }
        }
        self.open = self.slots.iter().filter(|slot| slot.output.is_none()).count();
        Ok(())
    }

    /// Cuts the misses into tasks.
    pub fn begin(&mut self, with: With, stage: &UnitStage, jobs: usize) {
        self.with = with;
        let misses: Vec<usize> = (0..self.slots.len()).filter(|&slot| self.slots[slot].output.is_none()).collect();
        let alone = matches!(stage.worker, Worker::Command(_)) || stage.def.grain != Grain::Row || stage.def.source;
        let size = if alone {
            1
        } else {
            let threads = if stage.def.needs.threads == 0 { jobs } else { stage.def.needs.threads };
            let lanes = (jobs / threads.max(1)).max(1);
            let batch = stage.def.batch.max(1);
            // a few tasks for each lane, so that none waits long for the last
            (misses.len().div_ceil(lanes * 4).div_ceil(batch) * batch).clamp(batch, MOST_UNITS.max(batch))
        };
        self.waiting = misses.chunks(size).map(<[usize]>::to_vec).collect();
    }

    /// The next task, as slots. Units that another stage has finished meanwhile need none; those another is working on wait.
    pub fn next_task(&mut self, cache: &mut Cache, in_flight: &HashSet<Digest>) -> Result<Option<Vec<usize>>> {
        for _ in 0..self.waiting.len() {
            let Some(slots) = self.waiting.pop_front() else { break };
            let (busy, mut free): (Vec<usize>, Vec<usize>) =
                slots.into_iter().partition(|&slot| in_flight.contains(&self.slots[slot].key));
            let mut missing = Vec::new();
            for slot in free.drain(..) {
                match cache.fresh(&self.slots[slot].key)? {
                    Some(unit) => {
                        let slot = &mut self.slots[slot];
                        slot.output = Some(Output { columns: unit.columns, rows: unit.rows });
                        slot.seconds = unit.seconds;
                        self.open -= 1;
                    }
                    None => missing.push(slot),
                }
            }
            if !busy.is_empty() {
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
        }
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
            name: units::name(stage, self.prepared.named(), rows),
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

    /// Tries a unit once more, alone.
    pub fn retry(&mut self, slot: usize) {
        self.slots[slot].tries += 1;
        self.waiting.push_back(vec![slot]);
    }

    /// Gives a unit up.
    pub fn fail(&mut self, slot: usize) {
        self.slots[slot].failed = true;
        self.open -= 1;
    }

    /// Whether every unit is known or has failed.
    pub fn is_over(&self) -> bool {
        self.open == 0
    }

    /// Units that are known.
    pub fn cached(&self) -> usize {
        self.slot_of.iter().filter(|&&slot| self.slots[slot].output.is_some()).count()
    }

    /// Units that ran or have to.
    pub fn to_run(&self) -> usize {
        self.executed + self.open + self.slots.iter().filter(|slot| slot.failed).count()
    }

    /// Units that failed, those of equal key counted each.
    pub fn failed_units(&self) -> usize {
        self.slot_of.iter().filter(|&&slot| self.slots[slot].failed).count()
    }

    /// Seconds of work in its units.
    pub fn worth(&self) -> f64 {
        self.slots.iter().map(|slot| slot.seconds).sum()
    }

    /// Its table.
    pub fn table(&self, stage: &UnitStage) -> Result<Manifest> {
        let outputs: Vec<Option<&Output>> = self.slot_of.iter().map(|&slot| self.slots[slot].output.as_ref()).collect();
        units::assemble(stage, self.prepared.table.as_ref(), &self.prepared.units, &outputs)
    }
}
