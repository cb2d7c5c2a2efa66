//! The run: one thread that decides. For a stage whose inputs are done it cuts units, looks them all up, hands the
//! misses to the executor, keeps each unit the moment it is finished, and assembles the table in input order.
//!
//! Knows what workers say, not what they do; prints nothing.

mod active;
mod constants;
mod damage;
mod errors;
mod logs;
mod outcome;
mod tables;
mod tasks;
#[cfg(test)]
mod tests;
mod transfers;

use crate::axes;
use crate::event::{Event, Reader};
use crate::executor::{Executors, Means, Report, Task};
use crate::finished::NodeState;
use crate::hints::hinted;
use crate::memory::{Memory, Remembered, Store};
use crate::plan::{Node, Plan, Work};
use crate::rest::Rest;
use crate::selection::{Part, Selection, frozen, refer};
use crate::stage::UnitStage;
use active::Flight;
use anyhow::Result;
use cache::Cache;
use errors::told;
use manifests::{Digest, Manifest};
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub use active::Active;
pub use constants::{Constants, With};
pub use damage::Damaged;
pub use errors::sentence;
pub use logs::{log_index, logs};
pub use outcome::{Done, Outcome, Tally};
pub use tables::{Prepared, node_key, prepare, prior, stage_head, table_key};
pub use transfers::Transfers;

/// What a run may do.
pub struct Options {
    /// With what.
    pub means: Means,
    /// Recipe's path, absolute: names its memory.
    pub recipe: PathBuf,
    /// `--param` and `--set` as they were typed: remembered beside what came of them.
    pub overrides: Vec<String>,
    /// Which stages.
    pub selection: Selection,
    /// Whether the first failure ends the run; else everything is done that does not need what failed.
    pub fail_fast: bool,
    /// Whether all units are tried, however many have failed.
    pub keep_going: bool,
}

/// Fewer units than this are looked up one by one, and so few files are remembered by name.
const FEW: usize = 16;

/// How often the user has asked to stop: once drains, twice stops.
pub static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);

/// Whether the user has asked to stop.
pub fn is_stopped() -> bool {
    INTERRUPTS.load(Ordering::Relaxed) > 0
}

/// Where a stage stands. Every change goes through [`Run::set`].
enum State {
    /// Something it needs is not done.
    Waiting,
    /// Its units are being worked on.
    Active(Box<Active>),
    /// Its table is there.
    Done(Done),
    /// Units failed, more than it allows.
    Failed,
    /// Something it needs failed, or the run was stopped before it began.
    Skipped,
}

/// A run in progress.
pub struct Run<'a> {
    plan: &'a Plan,
    cache: &'a mut Cache,
    readers: &'a mut [Box<dyn Reader>],
    options: &'a Options,
    executors: Executors,
    states: Vec<State>,
    /// Who waits for each stage.
    dependents: Vec<Vec<usize>>,
    /// For how many stages each waits.
    open_needs: Vec<usize>,
    /// Stages that can begin.
    ready: BTreeSet<usize>,
    /// Stages in the state `Active`.
    active: BTreeSet<usize>,
    tallies: Vec<Tally>,
    store: Store,
    memory: Memory,
    used: Memory,
    /// Tables that may not have reached the disk.
    new_tables: Vec<PathBuf>,
    constants: Constants,
    flights: HashMap<usize, Flight>,
    in_flight: HashSet<Digest>,
    next_task: usize,
    /// Tasks of an earlier run that no stage has asked for yet.
    left: Vec<Task>,
    /// What was told of these.
    early: Vec<(usize, Report)>,
    /// Whether a stage has asked for some of them since that was heard.
    adopted: bool,
    logs: logs::Logs,
    /// When readers were told last how far each stage is.
    told_at: Vec<Option<Instant>>,
    /// Task directories that are as good as new.
    spare: Vec<PathBuf>,
    last_commit: Instant,
    /// How often was heard what has happened.
    round: u64,
    /// Whether a failure has ended it.
    given_up: bool,
    /// Whether what had not begun was taken back.
    drained: bool,
    /// Something was damaged: what is in work is finished, then the plan is passed over once more.
    again: bool,
    /// Files of the user's that are not there any more and that stages before `--from` handed on.
    absent: HashMap<Digest, PathBuf>,
    /// Keys of units that changed a file that they were given: they are not tried again.
    careless: HashSet<Digest>,
}

/// Runs a plan.
///
/// # Errors
/// If the workspace cannot be used any more (no room, an I/O error). A stage that fails is no error here, but in the
/// outcome.
pub fn run(plan: &Plan, cache: &mut Cache, options: &Options, readers: &mut [Box<dyn Reader>]) -> Result<Outcome> {
    let mut earlier = vec![(0, 0.0); plan.nodes.len()];
    let mut careless = HashSet::new();
    for _ in 0..damage::PASSES {
        match pass(plan, cache, options, readers, &mut careless)? {
            Ok(mut outcome) => {
                damage::add(&mut outcome, &earlier);
                return Ok(outcome);
            }
            Err(ran) => earlier.iter_mut().zip(ran).for_each(|(sum, (units, seconds))| {
                sum.0 += units;
                sum.1 += seconds;
            }),
        }
    }
    let message = format!("files in {} keep getting damaged", cache.root().display());
    Err(hinted(message, "see the disk (`dmesg`), or use another one with --workspace"))
}

/// Passes over the plan once; what each stage has run, if something was damaged and another pass has to make it again.
fn pass(
    plan: &Plan,
    cache: &mut Cache,
    options: &Options,
    readers: &mut [Box<dyn Reader>],
    careless: &mut HashSet<Digest>,
) -> Result<Result<Outcome, Vec<(usize, f64)>>> {
    let store = Store::new(cache.root());
    let memory = store.load(&options.recipe, plan.spec.profile.as_deref());
    for (path, fingerprint, digest) in &memory.files {
        cache.remember(path.clone(), *fingerprint, *digest);
    }
    let count = plan.nodes.len();
    let root = cache.root().to_path_buf();
    let executors = Executors::new(&options.means, &root.join("tasks"));
    let left = executors.left();
    let mut run = Run {
        plan,
        cache,
        readers,
        options,
        executors,
        states: (0..count).map(|_| State::Waiting).collect(),
        dependents: vec![Vec::new(); count],
        open_needs: vec![0; count],
        ready: BTreeSet::new(),
        active: BTreeSet::new(),
        tallies: vec![Tally::default(); count],
        store,
        used: Memory { stages: memory.stages.clone(), files: Vec::new() },
        memory,
        new_tables: Vec::new(),
        constants: Constants::new(root.join("tasks/with")),
        flights: HashMap::new(),
        in_flight: HashSet::new(),
        next_task: next_task(&root.join("tasks")),
        left,
        early: Vec::new(),
        adopted: false,
        spare: Vec::new(),
        logs: logs::Logs::new(&root),
        told_at: vec![None; count],
        last_commit: Instant::now(),
        round: 0,
        given_up: false,
        drained: false,
        again: false,
        absent: HashMap::new(),
        careless: std::mem::take(careless),
    };
    let outcome = run.all();
    *careless = std::mem::take(&mut run.careless);
    run.executors.stop_all();
    run.close();
    // what was put is worth keeping whatever happened after
    let kept = run.keep();
    let interrupted = outcome?;
    kept?;
    if run.again && !interrupted {
        return Ok(Err(run.ran()));
    }
    let states = run.states.iter().map(|state| match state {
        State::Done(_) => NodeState::Done,
        State::Failed => NodeState::Failed,
        _ => NodeState::Skipped,
    });
    let states = states.collect();
    let table = |state| if let State::Done(done) = state { Some(done) } else { None };
    let tables: Vec<Option<Done>> = std::mem::take(&mut run.states).into_iter().map(table).collect();
    let failed = run.tallies.iter().any(|tally| tally.failed > 0);
    let at_rest = !failed && !run.cache.is_doubtful() && run.options.selection.is_all();
    let rest = if at_rest { Rest::of(plan, &run.used, &tables, run.cache)? } else { None };
    let jobs = run.executors.jobs().to_vec();
    Ok(Ok(Outcome { tallies: run.tallies, states, tables, interrupted, rest, jobs, warnings: Vec::new() }))
}

impl<'a> Run<'a> {
    /// Works until nothing is left; says whether the user stopped it.
    fn all(&mut self) -> Result<bool> {
        let parts = self.options.selection.parts(self.plan);
        self.thaw(&parts)?;
        for (i, node) in self.plan.nodes.iter().enumerate().filter(|(i, _)| parts[*i] == Part::Taken) {
            let open = || node.needs().filter(|&need| parts[need] == Part::Taken);
            open().for_each(|need| self.dependents[need].push(i));
            self.open_needs[i] = open().count();
            if self.open_needs[i] == 0 {
                self.ready.insert(i);
            }
        }
        loop {
            let stops = INTERRUPTS.load(Ordering::Relaxed);
            if stops > 1 {
                return Ok(true);
            }
            if stops > 0 && !std::mem::replace(&mut self.drained, true) {
                self.executors.drain();
            }
            let draining = stops > 0 || self.given_up || self.again;
            if !draining {
                let begun = self.begin_ready().and_then(|()| if is_stopped() { Ok(()) } else { self.submit() });
                self.despite(begun)?;
                self.hear_early()?;
            }
            if self.flights.is_empty() && (draining || self.active.is_empty() && self.ready.is_empty()) {
                return Ok(stops > 0 && !self.complete(&parts));
            }
            if !draining && !self.ready.is_empty() {
                continue;
            }
            let heard = self.executors.poll(Duration::from_millis(100));
            // only now: what is heard next was made before this
            self.round += 1;
            for (id, report) in heard {
                self.hear(id, report)?;
            }
            self.cache.send_some()?;
            if self.last_commit.elapsed() > Duration::from_secs(5) {
                self.cache.commit_soon()?;
                self.last_commit = Instant::now();
            }
            self.warn();
        }
    }

    /// Stages that are needed but not run have the tables of the last run.
    fn thaw(&mut self, parts: &[Part]) -> Result<()> {
        for i in (0..parts.len()).filter(|&i| parts[i] == Part::Frozen) {
            let left = frozen(self.plan, i, &self.store, &self.memory)?;
            let path = self.store.table_path(&left.table);
            if let Some(table) = self.store.table(&left.table) {
                self.absent.extend(refer(&table, self.cache, &self.memory)?);
            }
            self.tallies[i].table = Some(left.table);
            self.states[i] = State::Done(Done { digest: left.table, rows: left.rows, table: OnceCell::new(), path });
        }
        Ok(())
    }

    fn complete(&self, parts: &[Part]) -> bool {
        self.states.iter().zip(parts).all(|(state, part)| *part == Part::Left || matches!(state, State::Done(_)))
    }

    /// A failure that is not allowed ends the run, if that was asked for.
    fn failed_for_good(&mut self) {
        if self.options.fail_fast && !self.given_up {
            self.given_up = true;
            let text = "a unit failed: finishing what has begun, and nothing else (`--fail-fast`)".into();
            self.emit(&Event::Warning { text });
        }
    }

    /// What stages that a stopped run leaves unfinished came to.
    fn close(&mut self) {
        for i in self.active.clone() {
            let State::Active(active) = &self.states[i] else { continue };
            let tally = &mut self.tallies[i];
            (tally.executed, tally.failed) = (active.executed, active.failed_units());
            tally.cached = active.cached().saturating_sub(active.executed);
            if tally.failed > 0 {
                self.set(i, State::Failed);
            }
        }
    }

    fn emit(&mut self, event: &Event) {
        self.readers.iter_mut().for_each(|reader| reader.hear(event));
    }

    fn warn(&mut self) {
        for text in self.cache.take_warnings() {
            self.emit(&Event::Warning { text });
        }
    }

    /// The only place where a stage changes its state.
    fn set(&mut self, i: usize, state: State) {
        let tally = &self.tallies[i];
        let (ended, rows) = match &state {
            State::Waiting => unreachable!("no stage goes back to waiting"),
            State::Active(_) => {
                self.active.insert(i);
                self.states[i] = state;
                return;
            }
            State::Done(done) => (NodeState::Done, done.rows),
            State::Failed => (NodeState::Failed, 0),
            State::Skipped => (NodeState::Skipped, 0),
        };
        let event = Event::Finished {
            stage: self.plan.nodes[i].name.clone(),
            state: ended,
            executed: tally.executed,
            cached: tally.cached,
            failed: tally.failed,
            rows,
            seconds: tally.seconds,
        };
        if ended == NodeState::Done {
            self.tallies[i].rows = Some(rows);
        }
        self.states[i] = state;
        self.active.remove(&i);
        for dependent in std::mem::take(&mut self.dependents[i]) {
            self.open_needs[dependent] -= 1;
            if self.open_needs[dependent] == 0 {
                self.ready.insert(dependent);
            }
        }
        self.emit(&event);
    }

    /// Begins every stage whose inputs are there.
    fn begin_ready(&mut self) -> Result<()> {
        // to begin one may mean to read files for a long time
        while let (false, Some(i)) = (is_stopped(), self.ready.first().copied()) {
            self.ready.remove(&i);
            let node = &self.plan.nodes[i];
            let there = |need: usize| !matches!(self.states[need], State::Failed | State::Skipped);
            if node.needs().all(there) {
                self.begin(i, node)?;
                continue;
            }
            let table = if let Work::Table(table) = &node.work { Some(table) } else { None };
            let kept: Vec<bool> = node.from.iter().map(|&need| there(need)).collect();
            match table.and_then(|table| table.of_those(&kept)) {
                Some(table) => self.begin_without(i, node, &table)?,
                None => self.set(i, State::Skipped),
            }
        }
        Ok(())
    }

    fn done(&self, i: usize) -> &Done {
        done(&self.states, i)
    }

    fn begin(&mut self, i: usize, node: &'a Node) -> Result<()> {
        match &node.work {
            Work::Table(table) => self.begin_table(i, node, table, &node.from),
            Work::Units(stage) => self.begin_units(i, node, stage),
        }
    }

    fn begin_units(&mut self, i: usize, node: &'a Node, stage: &'a UnitStage) -> Result<()> {
        for text in &stage.warnings {
            self.emit(&Event::Warning { text: text.clone() });
        }
        let head = {
            let states = &self.states;
            stage_head(node, stage, self.cache, &|need| done(states, need).table())
        };
        let head = match head {
            Ok(head) => head,
            Err(error) => return self.fail_whole(i, error),
        };
        let input = node.from.first().map(|&from| self.done(from).digest);
        let key = tables::node_key(node, stage, &head.facts.digest, input);
        self.tallies[i].head = Some(head.facts.digest);
        let forced = self.options.selection.force.contains(&i);
        if let (false, Some((remembered, done))) = (forced, self.remembered(i, key)?) {
            let units = remembered.units;
            self.tallies[i].cached = units;
            self.tallies[i].worth = remembered.worth;
            self.set(i, State::Done(done));
            return Ok(());
        }
        let table = match node.from.first() {
            Some(&from) => Some(self.done(from).table()?.clone()),
            None => None,
        };
        let prepared = match prepare(stage, head, table) {
            Ok(prepared) => prepared,
            Err(error) => return self.fail_whole(i, error),
        };
        let mut active = Active::new(prepared, key);
        if forced {
            active.force(self.cache);
        } else {
            active.look_up(stage, prior(&node.name, stage, (&self.store, &self.memory)), self.cache)?;
            Transfers::default().fetch(&node.name, &active.missing(), self.cache, self.readers)?;
            active.take(&mut |key| self.cache.fresh(key))?;
            self.warn();
        }
        let (units, cached) = (active.prepared.units.count(), active.cached());
        if active.is_over() {
            return self.finish(i, active);
        }
        for ((name, need), columns) in node.with.iter().zip(&stage.with_reads) {
            if let Ok(table) = tables::project(self.done(*need).table()?, columns, stage.constant(name)) {
                self.sound(&node.name, &table, 0..table.len())?;
            }
        }
        let states = &self.states;
        let with = self.constants.of((i, node), stage, self.cache, &|need| done(states, need).table());
        let with = match with {
            Ok(with) => with,
            Err(error) => return self.fail_whole(i, error),
        };
        let taken = if forced { Vec::new() } else { self.adopt(i, &active) };
        active.begin(with, stage, self.executors.at(stage.place).lanes(&stage.def.needs), &taken);
        let equal = units - cached - active.to_run();
        self.emit(&Event::Stage { stage: node.name.clone(), units, cached, equal });
        self.set(i, State::Active(Box::new(active)));
        Ok(())
    }

    /// A stage that cannot even begin.
    fn fail_whole(&mut self, i: usize, error: anyhow::Error) -> Result<()> {
        let (error, hint) = told(error)?;
        self.tallies[i].failed += 1;
        let stage = self.plan.nodes[i].name.clone();
        self.emit(&Event::Failed { stage, unit: "the whole stage".into(), error, hint, log: None });
        self.set(i, State::Failed);
        self.failed_for_good();
        Ok(())
    }

    fn finish_if_over(&mut self, i: usize) -> Result<()> {
        let over = matches!(&self.states[i], State::Active(active) if active.is_over());
        if !over || self.flights.values().any(|flight| flight.node == i) {
            return Ok(());
        }
        match std::mem::replace(&mut self.states[i], State::Waiting) {
            State::Active(active) => self.finish(i, *active),
            _ => unreachable!("it was just seen to be active"),
        }
    }

    /// All units of a stage are known or have failed.
    fn finish(&mut self, i: usize, active: Active) -> Result<()> {
        let Work::Units(stage) = &self.plan.nodes[i].work else { return Ok(()) };
        let tally = &mut self.tallies[i];
        (tally.executed, tally.failed) = (active.executed, active.failed_units());
        tally.cached = active.prepared.units.count() - tally.failed - tally.executed;
        tally.worth = active.worth();
        let share = tally.failed as f64 / active.prepared.units.count().max(1) as f64;
        if tally.failed > 0 && share > stage.allow_failures {
            self.set(i, State::Failed);
            return Ok(());
        }
        let labelled = active.table(stage).and_then(|table| axes::label(&self.plan.nodes[i].axes, table));
        let table = match labelled {
            Ok(table) => table,
            Err(error) => return self.fail_whole(i, error),
        };
        let (whole, worth) = (tally.failed == 0, tally.worth);
        if let Some(text) = active.barren(&self.plan.nodes[i].name, table.len()) {
            self.emit(&Event::Warning { text });
        }
        let units = active.unit_rows();
        let remembered = Remembered {
            key: active.key,
            head: active.prepared.head.facts.digest,
            table: table.digest(),
            rows: table.len(),
            units: units.len(),
            worth,
            bytes: 0,
            blobs: active.few_blobs(FEW),
            overrides: Vec::new(),
        };
        let keep_keys = stage.def.is_row_wise() && units.len() >= FEW;
        if whole && keep_keys {
            self.store.keep_keys(&remembered.table, &remembered.head, &units)?;
        }
        self.settle(i, table, remembered, whole)
    }

    /// A stage's table is known: keep it and remember what it came from.
    fn settle(&mut self, i: usize, table: Manifest, mut remembered: Remembered, whole: bool) -> Result<()> {
        let digest = remembered.table;
        let (path, bytes) = self.store.keep(&digest, &table)?;
        remembered.bytes = bytes;
        remembered.overrides.clone_from(&self.options.overrides);
        self.new_tables.push(path);
        let name = &self.plan.nodes[i].name;
        if whole {
            self.used.stages.insert(name.clone(), remembered);
        } else {
            // units that failed are tried again next time
            self.used.stages.remove(name);
        }
        self.tallies[i].table = Some(digest);
        self.set(i, State::Done(Done::of(digest, table)));
        Ok(())
    }

    /// Makes everything that was found out last.
    fn keep(&mut self) -> Result<()> {
        self.cache.commit()?;
        if self.cache.is_doubtful() {
            // a memory must not speak of what may not be there after a power failure
            self.warn();
            return Ok(());
        }
        self.used.files = self.cache.referred();
        // a path that is no text cannot be written down: its file is read again
        self.used.files.retain(|(path, ..)| path.to_str().is_some());
        let done = self.states.iter().all(|state| matches!(state, State::Done(_)));
        if !(done && self.options.selection.is_all() && self.plan.spec.left_out.is_empty()) {
            let looked_at: HashSet<&Path> = self.cache.seen().map(|(path, _)| path).collect();
            self.used.keep_files(&self.memory, &looked_at);
        }
        let same = self.used.stages == self.memory.stages && self.used.files == self.memory.files;
        if !same {
            let left_out = self.plan.spec.left_out.iter().map(String::as_str);
            let names: HashSet<&str> = self.plan.nodes.iter().map(|node| node.name.as_str()).chain(left_out).collect();
            self.used.stages.retain(|name, _| names.contains(name.as_str()));
            self.cache.sync_beside(&std::mem::take(&mut self.new_tables))?;
            self.store.save(&self.options.recipe, self.plan.spec.profile.as_deref(), &self.used)?;
            self.store.sweep(self.tallies.iter().filter_map(|tally| tally.table));
        } else {
            self.store.touch(&self.options.recipe, self.plan.spec.profile.as_deref());
        }
        self.warn();
        Ok(())
    }
}

/// What a stage that has begun may ask for.
fn done(states: &[State], i: usize) -> &Done {
    match &states[i] {
        State::Done(done) => done,
        _ => unreachable!("a stage begins when all it needs is done"),
    }
}

/// The first number that no task directory has: those of an earlier run may still be in work.
fn next_task(tasks: &Path) -> usize {
    let entries = std::fs::read_dir(tasks).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.split('.').next()?.parse::<usize>().ok());
    numbers.max().map_or(0, |last| last + 1)
}
