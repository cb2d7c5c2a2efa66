//! Tasks of a run: handing them out, hearing of them, keeping what they deliver, trying again what they did not.

use super::active::{Active, Flight};
use super::{Run, State, told};
use crate::event::Event;
use crate::executor::{By, Ended, Report, Task};
use crate::hints::{hinted, of_death};
use crate::plan::Work;
use crate::provider;
use crate::stage::{UnitStage, Worker};
use crate::task::{self, Lent};
use anyhow::Result;
use cache::layout;
use manifests::Digest;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So many failures of a stage leave a log, and so many tries that another followed.
const LOGGED: usize = 1000;
/// Where more tasks are in work than these, readers are not told of every word of each.
const MANY: usize = 64;
/// They are told of a stage no more often than this then.
const SELDOM: Duration = Duration::from_millis(100);
/// After so many failures without a success the rest is not tried, if no more may fail.
const HOPELESS: usize = 5;

impl<'a> Run<'a> {
    /// Hands tasks to the executor as long as there is room.
    pub(super) fn submit(&mut self) -> Result<()> {
        let active: Vec<usize> = self.active.iter().copied().collect();
        for i in active {
            let Work::Units(stage) = &self.plan.nodes[i].work else { continue };
            while self.executors.at(stage.place).has_room(&stage.def.needs) {
                let State::Active(active) = &mut self.states[i] else { break };
                let Some(slots) = active.next_task(self.cache, &self.in_flight)? else { break };
                self.start(i, stage, slots)?;
            }
            // looking up may have finished it: another stage had the same unit
            self.finish_if_over(i)?;
        }
        Ok(())
    }

    fn start(&mut self, i: usize, stage: &'a UnitStage, slots: Vec<usize>) -> Result<()> {
        let id = self.next_task;
        self.next_task += 1;
        let dir = self.cache.root().join(layout::TASKS).join(format!("{id:06}"));
        if let Some(spare) = self.spare.pop() {
            // one that cannot be had is made
            let _ = std::fs::rename(spare, &dir);
        }
        let State::Active(active) = &self.states[i] else { unreachable!("only active stages have tasks") };
        let threads = self.executors.at(stage.place).threads(&stage.def.needs);
        let order = active.order(stage, &slots, threads);
        self.sound(&self.plan.nodes[i].name, order.table, order.units.iter().flat_map(|unit| unit.iter().copied()))?;
        let keys: Vec<Digest> = order.keys.clone();
        if keys.iter().any(|key| self.careless.contains(key)) {
            let flight = Flight::new(i, slots, dir, Vec::new(), keys);
            return self.over(flight, Some(careless(None)));
        }
        let made = task::make(&dir, &order, self.cache);
        let stage_key = order.stage_key.to_string();
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                let flight = Flight::new(i, slots, dir, Vec::new(), keys);
                return self.over(flight, Some(told(error)?));
            }
        };
        let by = match &stage.worker {
            Worker::Provider(provider) => {
                let provider = &self.plan.providers[*provider];
                By::Worker { argv: provider.argv.clone(), dir: provider.dir.clone(), stage_key }
            }
            Worker::Command(command) => By::Program { argv: made.argv, dir: command.dir.clone() },
        };
        let mut flight = Flight::new(i, slots, dir.clone(), made.outside, keys);
        flight.lent = made.lent;
        let keys = flight.keys.iter().map(Digest::to_string).collect();
        let task = Task { id, keys, dir, by, timeout: stage.timeout, needs: stage.def.needs, limit_mb: stage.limit_mb };
        if let Some(ended) = self.executors.at(stage.place).submit(&task) {
            return self.ended(flight, ended);
        }
        if let State::Active(active) = &self.states[i] {
            self.logs.note(&self.plan.nodes[i].name, active.unit_numbers(&flight.slots), &flight.dir.join("log.txt"));
        }
        self.in_flight.extend(&flight.keys);
        self.flights.insert(id, flight);
        if let State::Active(active) = &mut self.states[i]
            && !std::mem::replace(&mut active.begun, true)
        {
            // it waited until now
            self.progress(i);
        }
        Ok(())
    }

    /// Takes over what an earlier run has left in work elsewhere and this stage wants; gives back the units.
    pub(super) fn adopt(&mut self, i: usize, active: &Active) -> Vec<usize> {
        let mut taken = Vec::new();
        let places = active.places();
        for task in std::mem::take(&mut self.left) {
            let keys: Vec<Digest> = task.keys.iter().filter_map(|key| key.parse().ok()).collect();
            let slots: Vec<usize> = keys.iter().filter_map(|key| places.get(key).copied()).collect();
            if slots.len() != task.keys.len() || keys.iter().any(|key| self.in_flight.contains(key)) {
                self.left.push(task);
                continue;
            }
            let outside = active.outside(&slots, self.cache);
            let mut flight = Flight::new(i, slots, task.dir, outside, keys);
            flight.is_adopted = true;
            // it began when it was handed in; what says nothing of that began before anything was written
            let handed_in = cache::Fingerprint::of(&flight.dir.join("params.json"));
            flight.begun = handed_in.map_or(0, |seen| seen.mtime);
            flight.delivered = (0..flight.slots.len()).filter(|unit| active.is_known(flight.slots[*unit])).collect();
            self.adopted = true;
            taken.extend(&flight.slots);
            self.in_flight.extend(&flight.keys);
            self.flights.insert(task.id, flight);
        }
        taken
    }

    /// Hears once more what was told of tasks before a stage had asked for them.
    pub(super) fn hear_early(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.adopted) {
            return Ok(());
        }
        let early = std::mem::take(&mut self.early);
        early.into_iter().try_for_each(|(id, report)| self.hear(id, report))
    }

    pub(super) fn hear(&mut self, id: usize, report: Report) -> Result<()> {
        if !matches!(report, Report::Remark(_)) && self.left.iter().any(|task| task.id == id) {
            self.early.push((id, report));
            return Ok(());
        }
        match report {
            Report::Event(event) => self.said(id, event),
            Report::Began(dir) => {
                if let Some(flight) = self.flights.get_mut(&id) {
                    // what it waited for a place is no work
                    flight.since = Instant::now();
                    if flight.dir != dir
                        && let State::Active(active) = &self.states[flight.node]
                    {
                        let units = active.unit_numbers(&flight.slots);
                        self.logs.note(&self.plan.nodes[flight.node].name, units, &dir.join("log.txt"));
                    }
                    flight.dir = dir;
                }
                Ok(())
            }
            Report::Remark(text) => {
                self.emit(&Event::Warning { text });
                Ok(())
            }
            Report::Ended(ended, at) => {
                let Some(mut flight) = self.flights.remove(&id) else { return Ok(()) };
                flight.keys.iter().for_each(|key| {
                    self.in_flight.remove(key);
                });
                flight.until = Some(at);
                self.ended(flight, ended)
            }
        }
    }

    fn said(&mut self, id: usize, event: protocol::Event) -> Result<()> {
        let Some(mut flight) = self.flights.remove(&id) else { return Ok(()) };
        match event {
            protocol::Event::Progress { done, total, note } => {
                flight.within = if total > 0 { (done as f64 / total as f64).min(1.0) } else { 0.0 };
                if !note.is_empty() {
                    flight.note = note;
                }
                let i = flight.node;
                self.flights.insert(id, flight);
                self.progress(i);
                return Ok(());
            }
            protocol::Event::Part { file } => {
                if let Err(error) = self.part(&mut flight, &file) {
                    flight.error = Some(told(error)?);
                }
            }
            protocol::Event::Failed { unit, error, hint } => {
                flight.may_retry = true;
                match unit {
                    Some(unit) if unit < flight.slots.len() => {
                        flight.failed.insert(unit, (error, hint));
                    }
                    _ => {
                        self.ask_again(flight.node);
                        flight.error = Some((error, hint));
                    }
                }
            }
            protocol::Event::Done => {}
        }
        self.flights.insert(id, flight);
        Ok(())
    }

    /// A worker refused a whole task. It may be of another version than what its provider said of itself, which is
    /// asked anew by the next run then.
    fn ask_again(&self, i: usize) {
        if let Work::Units(stage) = &self.plan.nodes[i].work
            && let Worker::Provider(provider) = &stage.worker
        {
            provider::forget(&self.plan.providers[*provider], &self.cache.root().join(layout::PROVIDERS));
        }
    }

    fn progress(&mut self, i: usize) {
        let State::Active(active) = &self.states[i] else { return };
        // with thousands of tasks in work, to add them all up for each word of one would take longer than the work on
        // it
        if self.flights.len() > MANY && self.told_at[i].is_some_and(|told| told.elapsed() < SELDOM) {
            return;
        }
        self.told_at[i] = Some(Instant::now());
        let flights: Vec<&Flight> = self.flights.values().filter(|flight| flight.node == i).collect();
        let open = |flight: &&Flight| flight.within * flight.slots.len() as f64 - flight.delivered.len() as f64;
        // a sum of nothing is -0.0
        let within = flights.iter().map(|flight| open(flight).max(0.0)).sum::<f64>() + 0.0;
        let note = flights.iter().map(|flight| flight.note.clone()).max_by_key(String::len).unwrap_or_default();
        let (ran, of) = (active.executed, active.to_run());
        let stage = self.plan.nodes[i].name.clone();
        self.emit(&Event::Progress { stage, ran, of, within, note });
    }

    /// Some units of a task are finished: keep them.
    fn part(&mut self, flight: &mut Flight, file: &str) -> Result<()> {
        let (i, Work::Units(stage)) = (flight.node, &self.plan.nodes[flight.node].work) else { return Ok(()) };
        let State::Active(active) = &mut self.states[i] else { return Ok(()) };
        let sizes = active.sizes(&flight.slots);
        if flight.is_adopted && !flight.dir.join(file).exists() {
            // the run that handed it in has collected it
            return Ok(());
        }
        let outputs = task::collect(&flight.dir, file, stage, &sizes, self.cache)?;
        self.put(stage, flight, outputs)?;
        // what was collected is not needed any more, and disks are small
        let _ = std::fs::remove_file(flight.dir.join(file));
        self.progress(i);
        Ok(())
    }

    fn put(&mut self, stage: &UnitStage, flight: &mut Flight, outputs: Vec<(usize, task::Output)>) -> Result<()> {
        let i = flight.node;
        let State::Active(active) = &mut self.states[i] else { return Ok(()) };
        let own = self.cache.changed(&flight.outside, flight.begun).map(Path::to_path_buf);
        if let Some(path) = own.or_else(|| active.changed_constant((self.round, flight.begun), self.cache)) {
            let message = format!("the file {} changed while it was being read", path.display());
            return Err(hinted(message, "run again when nobody writes it any more"));
        }
        let until = flight.until.unwrap_or_else(Instant::now);
        let seconds = until.saturating_duration_since(flight.since).as_secs_f64() / outputs.len().max(1) as f64;
        flight.since = until;
        for (unit, output) in outputs {
            if !flight.delivered.contains(&unit) {
                let slot = flight.slots[unit];
                active.put(slot, output, seconds, (&self.plan.nodes[i].name, stage), self.cache)?;
                if !stage.def.is_row_wise() {
                    self.cache.drop_scratch(&flight.keys[unit]);
                }
                let tally = &mut self.tallies[i];
                tally.seconds += seconds;
                tally.longest = tally.longest.max(seconds);
                // that it failed before is over
                let _ = std::fs::remove_file(failed_log(self.cache.root(), &flight.keys[unit]));
                // only now: what could not be kept has not been delivered, and the unit is not over
                flight.delivered.insert(unit);
            }
        }
        Ok(())
    }

    fn ended(&mut self, mut flight: Flight, ended: Ended) -> Result<()> {
        let Work::Units(stage) = &self.plan.nodes[flight.node].work else { return Ok(()) };
        let spoilt = Lent::reclaim(&flight.lent, self.cache);
        if spoilt.is_some() {
            // however it ended: it would spoil what is made anew for it
            self.careless.extend(&flight.keys);
        }
        let is_done = matches!(ended, Ended::Done);
        flight.may_retry |= matches!(ended, Ended::Died { .. } | Ended::TimedOut);
        flight.may_retry &= spoilt.is_none();
        let mut error = match ended {
            Ended::Done if spoilt.is_some() => Some(careless(spoilt)),
            Ended::Done if matches!(stage.worker, Worker::Command(_)) => {
                let State::Active(active) = &self.states[flight.node] else { return Ok(()) };
                let size = active.sizes(&flight.slots)[0];
                let output = task::collect_program(&flight.dir, stage, size, self.cache);
                match output.and_then(|output| self.put(stage, &mut flight, vec![(0, output)])) {
                    Ok(()) => None,
                    Err(error) => Some(told(error)?),
                }
            }
            Ended::Done => flight.error.take(),
            Ended::Died { how, tail, status } => {
                let who = if matches!(stage.worker, Worker::Command(_)) { "the program" } else { "the worker" };
                let is_worker = matches!(stage.worker, Worker::Provider(_));
                let hint = of_death(status, is_worker, !tail.is_empty()).to_string();
                let tail = if tail.is_empty() { "; it wrote nothing".into() } else { format!(":\n{tail}") };
                Some((format!("{who} {how}{tail}"), Some(hint)))
            }
            Ended::NotStarted(error) => Some((error, Some("is the program installed, and its path right?".into()))),
            Ended::Lost { how, hint } => Some((how, Some(hint))),
            Ended::Withdrawn => {
                if let State::Active(active) = &mut self.states[flight.node] {
                    active.put_back(flight.slots);
                }
                return Ok(());
            }
            Ended::TimedOut => {
                let limit = stage.timeout.unwrap_or_default().as_secs_f64();
                let hint = "raise `timeout:` of the stage, or leave it out; what it wrote until then is in its log";
                Some((format!("it took longer than its `timeout` of {limit} s and was stopped"), Some(hint.into())))
            }
        };
        if let (Some((text, _)), Some(file), false) = (&mut error, spoilt, is_done) {
            *text += &format!("\n{}", careless(Some(file)).0);
        }
        self.over(flight, error)
    }

    /// A task is over: what it did not deliver is tried once more, unit by unit, or has failed.
    fn over(&mut self, flight: Flight, error: Option<(String, Option<String>)>) -> Result<()> {
        let i = flight.node;
        let left: Vec<usize> = (0..flight.slots.len()).filter(|unit| !flight.delivered.contains(unit)).collect();
        if !left.is_empty() {
            let general = error.unwrap_or_else(|| {
                let hint =
                    "a worker must name each unit in a `part` or a `failed` before its `done`; its log may tell more";
                ("the worker ended the task without delivering it".into(), Some(hint.into()))
            });
            let alone = flight.slots.len() == 1;
            for unit in left {
                let slot = flight.slots[unit];
                let State::Active(active) = &mut self.states[i] else { break };
                let (error, hint) = flight.failed.get(&unit).unwrap_or(&general).clone();
                if !alone {
                    active.retry(slot);
                    continue;
                }
                let Work::Units(stage) = &self.plan.nodes[i].work else { break };
                let name = active.name(stage, slot);
                // a failure that has ended the run leaves no other try, and this one has to be told of
                if flight.may_retry && !self.given_up && active.may_retry(slot, stage.retries) {
                    if super::is_stopped() {
                        // the next run tries it
                        active.put_back(vec![slot]);
                        continue;
                    }
                    let (retry, of, units) = (active.retry_of(slot), stage.retries, active.unit_numbers(&[slot]));
                    let is_logged = active.tried <= LOGGED;
                    let (stage, log) = (self.plan.nodes[i].name.clone(), flight.dir.join("log.txt"));
                    let kept = is_logged.then(|| self.logs.keep_tried(&stage, units, &log, &error)).flatten();
                    if !is_logged {
                        // as below
                        let _ = std::fs::remove_file(&log);
                    }
                    let log = kept.map(|log| log.display().to_string());
                    self.emit(&Event::Retry { stage, unit: name, error, retry, of, log });
                    continue;
                }
                active.fail(slot);
                active.told += 1;
                let is_logged = active.told <= LOGGED;
                let log = Some(flight.dir.join("log.txt")).filter(|log| log.exists());
                if let Some(log) = log.as_ref().filter(|_| !is_logged) {
                    // of thousands nobody reads them all, and each may be two megabytes
                    let _ = std::fs::remove_file(log);
                }
                let log = log.filter(|_| is_logged);
                let units = active.unit_numbers(&[slot]);
                // a provider need not give a hint
                let described = || format!("`effigy stages {}` tells what the stage reads and takes", stage.def.kind);
                let hint = hint.or_else(|| Some(described()));
                let log = log.and_then(|log| self.keep_log(&log, &flight.keys[unit], &error, hint.as_deref()));
                if let Some(log) = &log {
                    self.logs.note(&self.plan.nodes[i].name, units, Path::new(log));
                }
                let stage = self.plan.nodes[i].name.clone();
                self.emit(&Event::Failed { stage, unit: name, error, hint, log });
            }
        }
        self.stop_if_failed(i);
        self.despair(i);
        if let State::Active(active) = &self.states[i] {
            let units = active.unit_numbers(&flight.slots);
            let stage = &self.plan.nodes[i].name;
            for text in self.logs.keep(stage, units, &flight.dir.join("log.txt")) {
                self.emit(&Event::Warning { text: format!("stage `{stage}`: {text}") });
            }
        }
        if task::is_as_new(&flight.dir) {
            self.spare.push(flight.dir);
        } else {
            // what is left of the task is of use to nobody
            let _ = std::fs::remove_dir_all(&flight.dir);
        }
        self.progress(i);
        self.finish_if_over(i)
    }

    /// The first failure may end the run.
    fn stop_if_failed(&mut self, i: usize) {
        let (State::Active(active), Work::Units(stage)) = (&self.states[i], &self.plan.nodes[i].work) else { return };
        // counting them takes its time, so only where it matters
        if self.options.fail_fast && active.failed_more_than(stage.allow_failures) {
            self.failed_for_good();
        }
    }

    /// Where nothing but failures comes, more than may be, the rest is not tried.
    fn despair(&mut self, i: usize) {
        let State::Active(active) = &mut self.states[i] else { return };
        let Work::Units(stage) = &self.plan.nodes[i].work else { return };
        let failed = active.told;
        if self.options.keep_going
            || failed < HOPELESS
            || active.has_some()
            || !active.failed_more_than(stage.allow_failures)
        {
            return;
        }
        let left = active.abandon();
        if left == 0 {
            return;
        }
        let stage = &self.plan.nodes[i].name;
        let text = format!(
            "stage `{stage}`: {failed} units failed and none succeeded; the other {left} are not tried\n  hint: `--keep-going` tries them all"
        );
        self.emit(&Event::Warning { text });
    }

    /// Failed units leave their log behind, and in it what was said of them.
    fn keep_log(&self, log: &Path, key: &Digest, error: &str, hint: Option<&str>) -> Option<String> {
        let target = failed_log(self.cache.root(), key);
        std::fs::create_dir_all(target.parent()?).ok()?;
        std::fs::rename(log, &target).ok()?;
        // a program that never stops writing fills no disk after its end
        let _ = super::logs::shorten(&target);
        // what the run says of it is in no other file; the log is of use without
        let hint = hint.map_or(String::new(), |hint| format!("hint: {hint}\n"));
        let told = OpenOptions::new().append(true).open(&target);
        let _ = told.and_then(|mut file| write!(file, "error: {}\n{hint}", error.trim_end()));
        Some(target.display().to_string())
    }
}

/// What is said of a unit while whose program was at work a file changed that it was given.
fn careless(file: Option<Digest>) -> (String, Option<String>) {
    let file = file.map_or(String::new(), |file| format!(" ({})", file.short()));
    let hint =
        "a program only reads what it is given, and writes below `{out}`; the file is made again when it is needed";
    (
        format!(
            "a file that the program was given{file} changed while it was in use: by this program, or by another that was given it"
        ),
        Some(hint.into()),
    )
}

/// Where the log of a failed unit is kept.
fn failed_log(root: &Path, key: &Digest) -> PathBuf {
    root.join(layout::FAILED).join(format!("{}.txt", key.short()))
}
