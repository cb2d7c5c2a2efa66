//! Whether stages give the same again: a sample of the units that are known is executed once more, and the rows that
//! come out are compared with those that were kept. The cache is only read; what the units put out goes into a
//! throw-away one.
//!
//! Knows no keys but those it is given; prints nothing.

use crate::executor::{By, Ended, Executor, Local, Report, Task};
use crate::foresee::{Forecast, foresee};
use crate::key::show;
use crate::plan::{Plan, Work};
use crate::run::{Constants, INTERRUPTS, Options, Prepared, With, sentence};
use crate::selection::Part;
use crate::stage::{UnitStage, Worker};
use crate::task::{self, Lent, Order, Output};
use crate::units;
use anyhow::Result;
use cache::layout;
use cache::{Cache, Unit};
use manifests::{Digest, Value};
use serde::Serialize;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Something that was not as it had been.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The stage.
    pub stage: String,
    /// The unit, for people.
    pub unit: String,
    /// The column that differs; `None` if the unit failed, or gave another number of rows.
    pub column: Option<String>,
    /// The first row of the unit's output in which it differs, from 0.
    pub row: Option<usize>,
    /// What was known: a digest, of a file or of the value's canonical encoding.
    pub known: String,
    /// What came out this time.
    pub now: String,
    /// The values, for people, unless they are files.
    pub values: Option<(String, String)>,
}

/// What a check came to.
#[derive(Debug, Default)]
pub struct Checked {
    /// Each stage with units: how many were executed again, and how many are known.
    pub stages: Vec<(String, usize, usize)>,
    /// All that differed, by stage and unit.
    pub differences: Vec<Difference>,
    /// Whether the user stopped it.
    pub interrupted: bool,
}

/// A unit that is executed again.
struct Again {
    node: usize,
    unit: usize,
    known: Unit,
}

/// One of them at work.
struct Flight {
    again: Again,
    dir: PathBuf,
    /// When it began, as files have it.
    begun: i64,
    /// Files outside of the workspace that it may read.
    outside: Vec<Digest>,
    /// Files of ours that its program was given.
    lent: Vec<Lent>,
    output: Option<Output>,
    error: Option<String>,
}

/// The check at work.
struct Check<'a> {
    plan: &'a Plan,
    cache: &'a Cache,
    /// Takes in what is put out, and is thrown away.
    aside: Cache,
    root: PathBuf,
    forecasts: &'a [Forecast],
    constants: Constants,
    with: HashMap<usize, With>,
    flights: HashMap<usize, Flight>,
    found: Vec<(usize, usize, Difference)>,
}

/// How many of a stage's known units are executed again.
#[derive(Clone, Copy, Debug)]
pub enum Sample {
    /// At most so many.
    Units(usize),
    /// This share of them, rounded up.
    Share(f64),
}

impl Sample {
    fn of(self, units: usize) -> usize {
        match self {
            Sample::Units(most) => most.min(units),
            Sample::Share(share) => ((units as f64 * share).ceil() as usize).min(units),
        }
    }
}

/// Executes a sample of the known units of each selected stage again.
///
/// # Errors
/// If the workspace cannot be read, or the throw-away cache cannot be written.
pub fn check(plan: &Plan, cache: &mut Cache, options: &Options, sample: Sample) -> Result<Checked> {
    let forecasts = foresee(plan, cache, &options.recipe, (None, &options.selection), true)?;
    let parts = options.selection.parts(plan);
    let mut checked = Checked::default();
    let mut waiting = VecDeque::new();
    for (i, node) in plan.nodes.iter().enumerate().filter(|(i, _)| parts[*i] == Part::Taken) {
        let Work::Units(_) = &node.work else { continue };
        let units = match &forecasts[i].units {
            Some((prepared, known)) => chosen(prepared, known),
            None => Vec::new(),
        };
        let before = waiting.len();
        for &(key, unit) in units.iter().take(sample.of(units.len())) {
            if let Some(known) = cache.get(&key)? {
                waiting.push_back(Again { node: i, unit, known });
            }
        }
        checked.stages.push((node.name.clone(), waiting.len() - before, units.len()));
    }
    let root = cache.root().join(layout::TASKS).join("check");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(&root)?;
    let aside = Cache::open(&root.join("cache"), "check")?;
    let mut check = Check {
        plan,
        cache,
        aside,
        root: root.clone(),
        forecasts: &forecasts,
        constants: Constants::new(root.join("with")),
        with: HashMap::new(),
        flights: HashMap::new(),
        found: Vec::new(),
    };
    let means = &options.means;
    let mut executor = Local::new(means.jobs, means.memory_mb, means.gpus.clone());
    let outcome = check.all(waiting, &mut executor);
    executor.stop_all();
    check.found.sort_by_key(|(node, unit, _)| (*node, *unit));
    checked.differences = std::mem::take(&mut check.found).into_iter().map(|(.., difference)| difference).collect();
    drop(check);
    // what stays of it is removed when the workspace is opened next
    let _ = std::fs::remove_dir_all(&root);
    checked.interrupted = outcome?;
    Ok(checked)
}

/// The distinct known units by their keys, which are as good as random numbers: the first few are a fair sample, and
/// one that is the same each time.
fn chosen(prepared: &Prepared, known: &[bool]) -> Vec<(Digest, usize)> {
    let mut seen = HashSet::new();
    let all = prepared.keys.iter().enumerate().filter(|(unit, key)| known[*unit] && seen.insert(**key));
    let mut units: Vec<(Digest, usize)> = all.map(|(unit, key)| (*key, unit)).collect();
    units.sort();
    units
}

impl Check<'_> {
    /// Executes all; says whether the user stopped it.
    fn all(&mut self, mut waiting: VecDeque<Again>, executor: &mut Local) -> Result<bool> {
        let (mut next, mut drained) = (0, false);
        loop {
            let stopped = INTERRUPTS.load(Ordering::Relaxed);
            if stopped > 0 && !std::mem::replace(&mut drained, true) {
                executor.drain();
            }
            if stopped > 1 || stopped > 0 && self.flights.is_empty() {
                return Ok(!waiting.is_empty() || !self.flights.is_empty());
            }
            while let (0, Some(again)) = (stopped, waiting.front()) {
                let Work::Units(stage) = &self.plan.nodes[again.node].work else { break };
                if !executor.has_room(&stage.def.needs) {
                    break;
                }
                let again = waiting.pop_front().expect("it was just seen");
                let dir = self.root.join(format!("{next:06}"));
                let mut flight = Flight {
                    again,
                    dir,
                    begun: cache::Fingerprint::now(),
                    outside: Vec::new(),
                    lent: Vec::new(),
                    output: None,
                    error: None,
                };
                let ended = match self.start(next, stage, &mut flight, executor) {
                    Ok(ended) => ended,
                    Err(error) => {
                        flight.error = Some(sentence(&error));
                        Some(Ended::Done)
                    }
                };
                match ended {
                    Some(ended) => self.ended(flight, ended),
                    None => _ = self.flights.insert(next, flight),
                }
                next += 1;
            }
            if self.flights.is_empty() && waiting.is_empty() {
                return Ok(false);
            }
            for (id, report) in executor.poll(Duration::from_millis(100)) {
                match report {
                    Report::Event(event) => self.said(id, event),
                    Report::Began(_) | Report::Remark(_) => {}
                    Report::Ended(ended, _) => {
                        let Some(flight) = self.flights.remove(&id) else { continue };
                        if matches!(ended, Ended::Withdrawn) {
                            remove(&flight.dir);
                            waiting.push_back(flight.again);
                            continue;
                        }
                        self.ended(flight, ended);
                    }
                }
            }
        }
    }

    fn start(
        &mut self,
        id: usize,
        stage: &UnitStage,
        flight: &mut Flight,
        executor: &mut Local,
    ) -> Result<Option<Ended>> {
        let node = flight.again.node;
        if !self.with.contains_key(&node) {
            let table = |need: usize| Ok(self.forecasts[need].table.whole().expect("known units have known constants"));
            let with = self.constants.of((node, &self.plan.nodes[node]), stage, self.cache, &table)?;
            self.with.insert(node, with);
        }
        let (prepared, _) = self.forecasts[node].units.as_ref().expect("its units were chosen from these");
        let scratch = self.root.join("scratch");
        let order = Order {
            stage,
            table: &prepared.projected,
            units: vec![prepared.units.rows(flight.again.unit)],
            keys: vec![flight.again.known.key],
            stage_key: prepared.head.facts.digest,
            threads: executor.threads(&stage.def.needs),
            with: &self.with[&node].files,
            scratch: Some(&scratch),
        };
        let made = task::make(&flight.dir, &order, self.cache)?;
        flight.outside = made.outside;
        flight.lent = made.lent;
        let by = match &stage.worker {
            Worker::Provider(provider) => {
                let provider = &self.plan.providers[*provider];
                let stage_key = order.stage_key.to_string();
                By::Worker { argv: provider.argv.clone(), dir: provider.dir.clone(), stage_key }
            }
            Worker::Command(command) => By::Program { argv: made.argv, dir: command.dir.clone() },
        };
        let keys = vec![flight.again.known.key.to_string()];
        let (dir, timeout, needs) = (flight.dir.clone(), stage.timeout, stage.def.needs);
        Ok(executor.submit(&Task { id, keys, dir, by, timeout, needs, limit_mb: stage.limit_mb }))
    }

    fn said(&mut self, id: usize, event: protocol::Event) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let Work::Units(stage) = &self.plan.nodes[flight.again.node].work else { return };
        match event {
            protocol::Event::Part { file } => {
                let sizes = [size(self.forecasts, &flight.again)];
                match task::collect(&flight.dir, &file, stage, &sizes, &self.aside) {
                    Ok(outputs) => flight.output = outputs.into_iter().map(|(_, output)| output).next(),
                    Err(error) => flight.error = Some(sentence(&error)),
                }
            }
            protocol::Event::Failed { error, .. } => flight.error = Some(error),
            protocol::Event::Progress { .. } | protocol::Event::Done => {}
        }
    }

    fn ended(&mut self, mut flight: Flight, ended: Ended) {
        let (node, unit) = (flight.again.node, flight.again.unit);
        let Work::Units(stage) = &self.plan.nodes[node].work else { return };
        match ended {
            Ended::Done if matches!(stage.worker, Worker::Command(_)) && flight.error.is_none() => {
                match task::collect_program(&flight.dir, stage, size(self.forecasts, &flight.again), &self.aside) {
                    Ok(output) => flight.output = Some(output),
                    Err(error) => flight.error = Some(sentence(&error)),
                }
            }
            Ended::Done => {}
            Ended::Died { how, tail, .. } => flight.error = Some(format!("it {how}: {tail}")),
            Ended::NotStarted(error) => flight.error = Some(error),
            Ended::Lost { how, .. } => flight.error = Some(how),
            Ended::Withdrawn => unreachable!("whoever was told hands it in again"),
            Ended::TimedOut => flight.error = Some("it took longer than its `timeout:`".into()),
        }
        let (prepared, _) = self.forecasts[node].units.as_ref().expect("its units were chosen from these");
        if let (None, Some(file)) = (&flight.error, Lent::reclaim(&flight.lent, self.cache)) {
            flight.error =
                Some(format!("a file that the program was given ({}) changed while it was in use", file.short()));
        }
        if let (None, Some(path)) = (&flight.error, self.cache.changed(&flight.outside, flight.begun)) {
            flight.error = Some(format!("the file {} changed while it was being read", path.display()));
        }
        // only what differs is named: that reads the whole table
        let name = || units::name(stage, prepared.named(), prepared.units.rows(unit));
        let whole = |known: &str, now: String| Difference {
            stage: self.plan.nodes[node].name.clone(),
            unit: name(),
            column: None,
            row: None,
            known: known.into(),
            now,
            values: None,
        };
        let differences = match (flight.error, &flight.output) {
            (Some(error), _) => vec![whole("it succeeded", format!("it failed: {error}"))],
            (None, None) => vec![whole("it succeeded", "it failed: the worker ended without delivering it".into())],
            (None, Some(output)) => {
                let (before, after) = (flight.again.known.rows.len(), output.rows.len());
                if before == after {
                    columns(&flight.again.known, output)
                        .into_iter()
                        .map(|found| found.of(whole("", String::new())))
                        .collect()
                } else {
                    vec![whole(&format!("{before} rows"), format!("{after} rows"))]
                }
            }
        };
        self.found.extend(differences.into_iter().map(|difference| (node, unit, difference)));
        remove(&flight.dir);
    }
}

/// A column that differs, and where first.
struct Found {
    column: String,
    row: usize,
    known: Value,
    now: Value,
}

impl Found {
    fn of(self, unit: Difference) -> Difference {
        let is_file = |value: &Value| matches!(value, Value::Blob(_));
        let values = (!is_file(&self.known) || !is_file(&self.now)).then(|| (show(&self.known), show(&self.now)));
        let (known, now) = (digest(&self.known), digest(&self.now));
        Difference { column: Some(self.column), row: Some(self.row), known, now, values, ..unit }
    }
}

/// The columns in which as many rows differ from each other. Which row of the input each extends counts as a column.
fn columns(known: &Unit, now: &Output) -> Vec<Found> {
    let mut found = Vec::new();
    let of = |of: Option<u32>| of.map_or(Value::Null, |of| Value::I64(i64::from(of)));
    let pairs = || known.rows.iter().zip(&now.rows).enumerate();
    if let Some((row, (a, b))) = pairs().find(|(_, (a, b))| a.of != b.of) {
        found.push(Found { column: protocol::OF.into(), row, known: of(a.of), now: of(b.of) });
    }
    for (i, (name, _)) in known.columns.iter().enumerate() {
        let j = now.columns.iter().position(|(other, _)| other == name);
        let new = |row: &cache::OutRow| j.map_or(Value::Null, |j| row.values[j].clone());
        if let Some((row, (a, b))) = pairs().find(|(_, (a, b))| digest(&a.values[i]) != digest(&new(b))) {
            found.push(Found { column: name.clone(), row, known: a.values[i].clone(), now: new(b) });
        }
    }
    found
}

/// A file's digest, or that of a value's canonical encoding: equal values have equal ones.
fn digest(value: &Value) -> String {
    match value {
        Value::Blob(blob) => blob.digest.to_string(),
        other => {
            let mut bytes = Vec::new();
            other.encode(&mut bytes);
            Digest::of_bytes(&bytes).to_string()
        }
    }
}

fn size(forecasts: &[Forecast], again: &Again) -> usize {
    forecasts[again.node].units.as_ref().map_or(0, |(prepared, _)| prepared.units.rows(again.unit).len())
}

fn remove(dir: &Path) {
    // the whole folder goes in the end
    let _ = std::fs::remove_dir_all(dir);
}
