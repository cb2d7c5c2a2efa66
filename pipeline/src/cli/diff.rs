//! `effigy diff`: two runs of a workspace against each other, from their records and the tables that are still kept.

use super::why::short;
use super::{DONE, WorkspaceArgs, host, print, progress, say};
use crate::compare::{Compared, compare};
use crate::memory::Store;
use crate::record::{self, Record, StageRecord};
use crate::spec::DEFAULT_PROFILE;
use crate::why::{Change, diff};
use anyhow::Result;
use cache::{Entry, StageFacts};
use manifests::Digest;
use serde::Serialize;
use serde_json::json;
use std::collections::HashMap;

/// Tell what differs between two runs: parameters, versions, counts, the rows of tables, software, times
#[derive(clap::Args)]
pub struct Diff {
    /// The earlier run: its name, the beginning of it that is no other's, `last`, or `last~1` for the one before
    #[arg(value_name = "RUN", default_value = "last~1")]
    old: String,
    /// The later run
    #[arg(value_name = "RUN", default_value = "last")]
    new: String,
    /// Only these stages (may be given more than once)
    #[arg(long, value_name = "STAGE")]
    stage: Vec<String>,
    /// So many rows of each kind are shown for each table
    #[arg(long, value_name = "N", default_value_t = 3)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// What differs between a stage of one run and that of another.
#[derive(Serialize)]
struct StageDiff {
    stage: String,
    /// `changed`, `added` or `removed`.
    what: &'static str,
    /// How it ended.
    state: Option<(String, String)>,
    /// Kind, version, parameters, contents of files and constants.
    facts: Vec<Change>,
    /// Units that ran, were known and failed, before and after.
    executed: (usize, usize),
    cached: (usize, usize),
    failed: (usize, usize),
    /// Seconds of work in the run.
    seconds: (f64, f64),
    /// Whether its table is another.
    table_changed: bool,
    /// How, if both tables are there.
    rows: Option<Compared>,
    /// Why its facts or rows could not be compared.
    missing: Vec<String>,
}

impl Diff {
    /// Tells it.
    pub fn run(self) -> Result<u8> {
        let workspace = &self.workspace.workspace;
        self.workspace.must_be_there()?;
        let records = record::all(workspace);
        let (old, new) = (record::find(&records, &self.old)?, record::find(&records, &self.new)?);
        let mut facts: HashMap<Digest, StageFacts> = HashMap::new();
        cache::scan_units(workspace, &|_| false, &mut |entry| {
            if let Entry::Stage(stage) = entry {
                facts.insert(stage.digest, stage);
            }
        })?;
        let store = Store::new(workspace);
        let about = about(old, new);
        let mut stages = Vec::new();
        let (mut same, mut left_out) = (0, 0);
        for (a, b) in pairs(old, new) {
            let name = &a.or(b).expect("one of them is there").name;
            if !self.stage.is_empty() && !self.stage.contains(name) {
                continue;
            }
            // a run that was not about a stage says nothing of it
            if a.into_iter().chain(b).any(|one| one.left_out) {
                left_out += 1;
                continue;
            }
            let told = self.stage(name, (a, b), (old, new), &facts, &store)?;
            let quiet = told.what == "changed" && told.facts.is_empty() && !told.table_changed && told.state.is_none();
            if quiet && told.missing.is_empty() && told.failed.0 == told.failed.1 {
                same += 1;
            } else {
                stages.push(told);
            }
        }
        if self.json {
            let run = |one: &Record| {
                json!({"run": one.run, "recipe": one.recipe, "started": one.started, "seconds": one.seconds,
                       "outcome": one.outcome, "executed": one.executed, "cached": one.cached, "failed": one.failed})
            };
            print(
                &json!({"old": run(old), "new": run(new), "run": about, "stages": stages, "same_stages": same, "left_out": left_out})
                    .to_string(),
            );
            return Ok(DONE);
        }
        for (word, one) in [("old", old), ("new", new)] {
            say(&format!(
                "{word}  {}  {}  {}  {} run, {} known, {} failed  {}",
                one.run,
                one.outcome,
                one.typed(),
                one.executed,
                one.cached,
                one.failed,
                progress::seconds(one.seconds)
            ));
        }
        about.iter().for_each(|change| say(&format!("{}: {}", change.fact, arrow(change))));
        stages.iter().for_each(tell);
        if same > 0 {
            say(&format!("the same in both: {same} stage{}", if same == 1 { "" } else { "s" }));
        }
        if left_out > 0 {
            let many = if left_out == 1 { "" } else { "s" };
            say(&format!(
                "not to be compared: {left_out} stage{many} that one of the runs was not about (`--only`, `--from`)"
            ));
        }
        Ok(DONE)
    }

    fn stage(
        &self,
        name: &str,
        (a, b): (Option<&StageRecord>, Option<&StageRecord>),
        (old, new): (&Record, &Record),
        facts: &HashMap<Digest, StageFacts>,
        store: &Store,
    ) -> Result<StageDiff> {
        let count = |get: fn(&StageRecord) -> usize| (a.map_or(0, get), b.map_or(0, get));
        let mut told = StageDiff {
            stage: name.into(),
            what: match (a, b) {
                (Some(_), Some(_)) => "changed",
                (None, _) => "added",
                (_, None) => "removed",
            },
            state: None,
            facts: Vec::new(),
            executed: count(|one| one.executed),
            cached: count(|one| one.cached),
            failed: count(|one| one.failed),
            seconds: (a.map_or(0.0, |one| one.seconds), b.map_or(0.0, |one| one.seconds)),
            table_changed: false,
            rows: None,
            missing: Vec::new(),
        };
        let (Some(a), Some(b)) = (a, b) else { return Ok(told) };
        let states = (old.state_of(a), new.state_of(b));
        told.state = (states.0 != states.1).then(|| (states.0.to_string(), states.1.to_string()));
        let of = |one: &StageRecord| match &one.head {
            None => Some(one.facts.clone()),
            Some(head) => facts.get(head).map(|facts| facts.facts.clone()),
        };
        told.facts = diff("", &[("kind".into(), a.kind.clone())], &[("kind".into(), b.kind.clone())]);
        if a.head != b.head || a.facts != b.facts {
            match (of(a), of(b)) {
                (Some(old), Some(new)) => {
                    told.facts.extend(diff("", &old, &new).into_iter().filter(|change| change.fact != "kind"));
                }
                _ => told.missing.push("parameters and versions: their records are no longer there".into()),
            }
        }
        told.table_changed = a.table != b.table;
        if let (Some(old), Some(new), true) = (a.table, b.table, told.table_changed) {
            match (store.table(&old), store.table(&new)) {
                (Some(old), Some(new)) => told.rows = Some(compare(&old, &new, None, self.limit)?),
                (old, new) => {
                    let which = match (old, new) {
                        (None, None) => "the tables of both runs are",
                        (None, _) => "the table of the old run is",
                        _ => "the table of the new run is",
                    };
                    told.missing.push(format!(
                        "rows: {which} no longer there; those of the last {} runs are kept, within {} MB",
                        crate::kept::RUNS,
                        crate::kept::ROOM >> 20
                    ));
                }
            }
        }
        Ok(told)
    }
}

/// The stages of both runs, in the order of the new one; then those it has no more.
fn pairs<'a>(old: &'a Record, new: &'a Record) -> Vec<(Option<&'a StageRecord>, Option<&'a StageRecord>)> {
    let by_name = |record: &'a Record| -> HashMap<&'a str, &'a StageRecord> {
        record.stages.iter().map(|stage| (stage.name.as_str(), stage)).collect()
    };
    let (before, after) = (by_name(old), by_name(new));
    let kept = new.stages.iter().map(|stage| (before.get(stage.name.as_str()).copied(), Some(stage)));
    let gone = old.stages.iter().filter(|stage| !after.contains_key(stage.name.as_str()));
    kept.chain(gone.map(|stage| (Some(stage), None))).collect()
}

/// What differs between two runs as a whole.
fn about(old: &Record, new: &Record) -> Vec<Change> {
    let facts = |one: &Record| {
        let mut facts: Vec<(String, String)> = vec![
            ("recipe".into(), one.file.clone()),
            ("profile".into(), one.profile.clone().unwrap_or_else(|| DEFAULT_PROFILE.into())),
            ("overrides".into(), one.overrides.join(" ")),
            ("outcome".into(), one.outcome.clone()),
            ("commit".into(), one.commit.clone().unwrap_or_else(|| "none".into())),
            ("machine".into(), one.host.clone()),
            ("processor".into(), one.cpu.clone()),
            ("software effigy".into(), one.version.clone()),
        ];
        // records of earlier versions do not say it
        if one.threads > 0 {
            facts.push(("threads".into(), one.threads.to_string()));
        }
        facts.extend(one.params.iter().map(|(name, value)| (format!("parameter `{name}`"), value.clone())));
        facts.extend(one.software.iter().map(|(name, version)| (format!("software {name}"), version.clone())));
        facts
    };
    diff("", &facts(old), &facts(new))
}

fn arrow(change: &Change) -> String {
    let value = |value: &Option<String>| value.as_ref().map_or("nothing".into(), |text| short(text));
    format!("{} -> {}", value(&change.old), value(&change.new))
}

fn tell(one: &StageDiff) {
    let ran = |(executed, cached, failed): (usize, usize, usize)| match failed {
        0 => format!("{executed} run, {cached} known"),
        _ => format!("{executed} run, {cached} known, {failed} failed"),
    };
    let (old, new) =
        (ran((one.executed.0, one.cached.0, one.failed.0)), ran((one.executed.1, one.cached.1, one.failed.1)));
    let seconds = |seconds: f64| progress::seconds(seconds);
    match one.what {
        "added" => return say(&format!("{}: only in the new run ({new}, {})", one.stage, seconds(one.seconds.1))),
        "removed" => return say(&format!("{}: only in the old run ({old}, {})", one.stage, seconds(one.seconds.0))),
        _ if one.executed.0 + one.cached.0 + one.executed.1 + one.cached.1 == 0 => say(&format!("{}:", one.stage)),
        _ => say(&format!("{}: {old} in {} -> {new} in {}", one.stage, seconds(one.seconds.0), seconds(one.seconds.1))),
    }
    if let Some((old, new)) = &one.state {
        say(&format!("  ended: {old} -> {new}"));
    }
    one.facts.iter().for_each(|change| say(&format!("  {}: {}", change.fact, arrow(change))));
    match &one.rows {
        Some(rows) => tell_rows(rows),
        None if one.table_changed && one.missing.is_empty() => say("  its table is there in one of the runs only"),
        None => {}
    }
    one.missing.iter().for_each(|text| say(&format!("  not to be compared: {text}")));
}

fn tell_rows(rows: &Compared) {
    let counts = [(rows.changed, "changed"), (rows.added, "new"), (rows.removed, "gone"), (rows.same, "the same")];
    let counts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let order = if rows.reordered { ", in another order" } else { "" };
    say(&format!("  rows {} -> {}: {}{order}", rows.rows.0, rows.rows.1, counts.join(", ")));
    let list = |word: &str, names: &[String]| {
        if !names.is_empty() {
            say(&format!("    {word}: {}", names.join(", ")));
        }
    };
    list("columns that came", &rows.columns_added);
    list("columns that went", &rows.columns_removed);
    for (name, old, new) in &rows.columns_retyped {
        say(&format!("    column `{name}`: {old} -> {new}"));
    }
    for column in &rows.columns {
        let numbers = match (column.mean, column.largest) {
            (Some((old, new)), Some(largest)) if column.rows > 1 => {
                format!(": mean {} -> {}, largest change {}", number(old), number(new), number(largest))
            }
            _ => String::new(),
        };
        say(&format!("    column `{}` in {} row{}{numbers}", column.column, column.rows, plural(column.rows)));
    }
    for row in &rows.examples {
        let cells: Vec<String> =
            row.cells.iter().map(|(name, old, new)| format!("{name} {} -> {}", short(old), short(new))).collect();
        say(&format!("      {}: {}", row.row, cells.join("; ")));
    }
    let more =
        |shown: usize, all: usize| if all > shown { format!("; and {} more", all - shown) } else { String::new() };
    if rows.changed > rows.examples.len() && !rows.examples.is_empty() {
        say(&format!("      and {} more", rows.changed - rows.examples.len()));
    }
    for (word, names, all) in [("new", &rows.came, rows.added), ("gone", &rows.went, rows.removed)] {
        if !names.is_empty() {
            say(&format!("    {word}: {}{}", names.join("; "), more(names.len(), all)));
        }
    }
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// A number as one compares it: six digits.
fn number(x: f64) -> String {
    let text = format!("{x:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if x != 0.0 && x.abs() < 1e-3 { format!("{x:.3e}") } else { text.to_string() }
}

/// The run that made something at this time, if it left a record.
pub fn run_at(records: &[Record], at: u64) -> Option<&Record> {
    records.iter().rfind(|one| one.started <= at && at <= one.ended())
}

/// A time for people.
pub fn moment(at: u64) -> String {
    format!("{} UTC", host::utc(at))
}
