//! Records of runs: a JSON file for each, which `status`, `log`, `diff`, `trace` and `why` read. Holds provenance; nothing
//! depends on it.

use super::{RecipeArgs, host, run::runs_folder};
use crate::error::{Place, Problem};
use crate::finished::{HostInfo, NodeState};
use crate::key::Printer;
use crate::memory::Memory;
use crate::plan::{Plan, Work};
use crate::run::Outcome;
use crate::{kept, memory};
use anyhow::Result;
use protocol::Grain;
use serde::{Deserialize, Serialize};
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A run that is over.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub run: String,
    /// The recipe's name.
    pub recipe: String,
    /// The recipe's file as it was named.
    pub file: String,
    /// The profile.
    pub profile: Option<String>,
    /// `--param` and `--set`.
    pub overrides: Vec<String>,
    /// `--variant`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<String>,
    /// The recipe's `params:` as they were for this run.
    #[serde(default)]
    pub params: Vec<(String, String)>,
    /// Milliseconds since 1970.
    pub started: u64,
    /// How long it took.
    pub seconds: f64,
    /// `done`, `failed` or `interrupted`.
    pub outcome: String,
    /// Units that ran.
    pub executed: usize,
    /// Units that were known.
    pub cached: usize,
    /// Units that failed.
    pub failed: usize,
    /// The machine.
    pub host: String,
    /// Its processor.
    pub cpu: String,
    /// Threads it could use.
    #[serde(default)]
    pub threads: usize,
    /// Version of effigy.
    pub version: String,
    /// Versions of what providers are built on.
    pub software: Vec<(String, String)>,
    /// The commit the recipe was at.
    pub commit: Option<String>,
    /// The jobs of a cluster that worked for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<String>,
    /// The stages.
    pub stages: Vec<StageRecord>,
}

/// A stage of a run that is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageRecord {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// `done`, `failed` or `skipped`.
    pub state: String,
    /// Units that ran.
    pub executed: usize,
    /// Units that were known.
    pub cached: usize,
    /// Units that failed.
    pub failed: usize,
    /// Seconds of work in this run.
    pub seconds: f64,
    /// Digest of kind, version, parameters and constants.
    pub head: Option<manifests::Digest>,
    /// Digest of its table.
    pub table: Option<manifests::Digest>,
    /// Rows of its table.
    #[serde(default)]
    pub rows: Option<usize>,
    /// What decided a table of the engine's own besides its inputs; those of other stages are found by `head`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<(String, String)>,
    /// Where it stood among the others.
    #[serde(default, flatten)]
    pub wiring: Wiring,
    /// How its work was cut; nothing for the engine's own tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    /// Its parameters; none for the engine's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, serde_json::Value>,
}

/// How the work of a stage was cut, for whoever asks what it would be elsewhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cut {
    /// What is a unit.
    pub grain: Grain,
    /// Whether each unit was a task of its own; else tasks had `batch` units or more.
    pub alone: bool,
    /// Units that a worker likes to have at once.
    pub batch: usize,
    /// Threads of a task; 0: all there are.
    pub threads: usize,
    /// Seconds of the unit that took longest in this run.
    pub longest: f64,
}

/// What a stage takes, by the names of other stages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wiring {
    /// The stages it maps over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Its constants: its own name for each, and the stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<(String, String)>,
}

impl Wiring {
    /// That of a stage of a plan.
    pub fn of(plan: &Plan, i: usize) -> Wiring {
        let name = |i: &usize| plan.nodes[*i].name.clone();
        let node = &plan.nodes[i];
        let with = node.with.iter().map(|(own, i)| (own.clone(), name(i))).collect();
        Wiring { from: node.from.iter().map(name).collect(), with }
    }
}

impl Record {
    /// When it was over, milliseconds since 1970.
    pub fn ended(&self) -> u64 {
        self.started + (self.seconds * 1000.0).ceil() as u64
    }

    /// Its stage of this name.
    pub fn stage(&self, name: &str) -> Option<&StageRecord> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// Whether it is a run of a plan's recipe and profile, with just these `--param` and `--set` if there are any.
    pub fn is_of(&self, plan: &Plan, asked: &[String]) -> bool {
        let recipe = self.recipe == plan.spec.name && self.profile == plan.spec.profile;
        recipe && (asked.is_empty() || same(asked, &self.overrides))
    }

    /// Where it was, and of which version.
    pub fn host(&self) -> HostInfo {
        HostInfo {
            name: self.host.clone(),
            cpu: self.cpu.clone(),
            threads: self.threads,
            version: self.version.clone(),
            software: self.software.clone(),
            commit: self.commit.clone(),
        }
    }

    /// How it was called for, as one types it.
    pub fn typed(&self) -> String {
        let profile = self.profile.as_ref().map_or(String::new(), |profile| format!(" --profile {profile}"));
        let overrides: String = self.overrides.iter().chain(&self.variants).map(|text| format!(" {text}")).collect();
        format!("{}{profile}{overrides}", self.file)
    }
}

/// Writes the record of a run. One in which nothing happened leaves none, or the log would be full of them.
pub fn write(
    args: &RecipeArgs,
    plan: &Plan,
    outcome: &Outcome,
    workspace: &Path,
    id: &str,
    started: u64,
    seconds: f64,
) -> Result<()> {
    let (executed, cached, failed) = outcome.totals();
    let whole = outcome.states.iter().all(|state| *state == NodeState::Done);
    if executed + failed == 0 && whole && runs_folder(workspace).join("latest").exists() {
        return Ok(());
    }
    let word = |state: &NodeState| match state {
        NodeState::Done => "done",
        NodeState::Failed => "failed",
        NodeState::Skipped => "skipped",
    };
    let told = plan.nodes.iter().zip(&outcome.tallies).zip(&outcome.states).enumerate();
    let stages = told.map(|(i, ((node, tally), state))| StageRecord {
        name: node.name.clone(),
        kind: node.kind().into(),
        state: word(state).into(),
        executed: tally.executed,
        cached: tally.cached,
        failed: tally.failed,
        seconds: tally.seconds,
        head: tally.head,
        table: tally.table,
        rows: tally.table.and(tally.rows),
        facts: match &node.work {
            Work::Table(table) => {
                let mut printer = Printer::default();
                table.facts(&mut printer);
                printer.0
            }
            Work::Units(_) => Vec::new(),
        },
        wiring: Wiring::of(plan, i),
        cut: match &node.work {
            Work::Table(_) => None,
            Work::Units(stage) => Some(Cut {
                grain: stage.def.grain,
                alone: stage.is_alone(),
                batch: stage.def.batch,
                threads: stage.def.needs.threads,
                longest: tally.longest,
            }),
        },
        params: match &node.work {
            Work::Table(_) => BTreeMap::new(),
            Work::Units(stage) => stage.params.clone(),
        },
    });
    let host = host::info(&plan.spec.dir, &plan.providers);
    let record = Record {
        run: id.into(),
        recipe: plan.spec.name.clone(),
        file: plan.spec.file.clone(),
        profile: plan.spec.profile.clone(),
        overrides: args.overrides(),
        variants: args.variants.clone(),
        params: plan.spec.shown_params(),
        started,
        seconds,
        outcome: match (outcome.interrupted, whole || outcome.states.iter().all(|state| *state != NodeState::Failed)) {
            (true, _) => "interrupted".into(),
            (false, true) => "done".into(),
            (false, false) => "failed".into(),
        },
        executed,
        cached,
        failed,
        host: host.name,
        cpu: host.cpu,
        threads: host.threads,
        version: host.version,
        software: host.software,
        commit: host.commit,
        jobs: outcome.jobs.clone(),
        stages: stages.collect(),
    };
    kept::note(workspace, id, outcome.tallies.iter().filter_map(|tally| tally.table))?;
    let folder = runs_folder(workspace);
    memory::write(&folder.join(format!("{id}.json")), &serde_json::to_vec_pretty(&record)?)?;
    memory::write(&folder.join("latest"), id.as_bytes())
}

/// What is known of a stage as it was asked for.
pub struct Left {
    /// Its table.
    pub table: manifests::Digest,
    /// Kind, version, parameters and constants.
    pub head: Option<manifests::Digest>,
    /// Seconds of work that made it.
    pub worth: f64,
    /// `--param` and `--set` of the run that made it.
    pub overrides: Vec<String>,
}

/// What the last run left of a stage; where `--param` or `--set` are given and that run had others, what the last one with
/// just these left of it.
pub fn left(
    args: &RecipeArgs,
    plan: &Plan,
    memory: &Memory,
    records: &LazyCell<Vec<Record>, impl FnOnce() -> Vec<Record>>,
    stage: &str,
) -> Option<Left> {
    let asked = args.overrides();
    let remembered = memory.stages.get(stage);
    if let Some(last) = remembered.filter(|last| asked.is_empty() || same(&asked, &last.overrides)) {
        let head = Some(last.head);
        return Some(Left { table: last.table, head, worth: last.worth, overrides: last.overrides.clone() });
    }
    // a table that lacks what failed is in no memory, because the next run makes it again
    records.iter().rev().filter(|run| run.is_of(plan, &asked)).find_map(|run| {
        let stage = run.stage(stage)?;
        Some(Left { table: stage.table?, head: stage.head, worth: stage.seconds, overrides: run.overrides.clone() })
    })
}

/// Whether two lists of `--param` and `--set` say the same.
fn same(a: &[String], b: &[String]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect()
}

/// All records of a workspace, oldest first. One that cannot be read is left out.
pub fn all(workspace: &Path) -> Vec<Record> {
    names(workspace).iter().filter_map(|name| read(workspace, name)).collect()
}

/// The names of all runs of a workspace, the earliest first.
pub fn names(workspace: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(runs_folder(workspace)).into_iter().flatten().flatten();
    let name = |file: std::ffi::OsString| file.to_str()?.strip_suffix(".json").map(str::to_string);
    let mut names: Vec<String> = entries.filter_map(|entry| name(entry.file_name())).collect();
    names.sort_unstable();
    names
}

/// The record of the run of this name, one of [`names`]; none if it cannot be read.
pub fn read(workspace: &Path, name: &str) -> Option<Record> {
    serde_json::from_slice(&std::fs::read(runs_folder(workspace).join(format!("{name}.json"))).ok()?).ok()
}

/// The run that somebody means: its name or a beginning of it that no other has, `last`, or `last~1` for the one before.
///
/// # Errors
/// If there is none, or more than one.
pub fn find<'a>(records: &'a [Record], name: &str) -> Result<&'a Record, Problem> {
    let wrong = |message: String| Problem::at(&Place::command_line(), message);
    const HINT: &str = "`effigy log` lists them; `last` is the latest, `last~1` the one before";
    let back = match name.strip_prefix("last") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix('~').and_then(|n| n.parse::<usize>().ok()),
        None => None,
    };
    if let Some(back) = back {
        return match records.len().checked_sub(back + 1) {
            Some(place) => Ok(&records[place]),
            None => {
                Err(wrong(format!("there are only {} recorded runs, so there is no `{name}`", records.len()))
                    .hint(HINT))
            }
        };
    }
    let found: Vec<&Record> = records.iter().filter(|one| one.run.starts_with(name)).collect();
    match (found.as_slice(), records.iter().find(|one| one.run == name)) {
        (_, Some(one)) => Ok(one),
        ([one], None) => Ok(*one),
        ([], None) => Err(wrong(format!("there is no run `{name}`")).hint(HINT)),
        (several, None) => {
            let names: Vec<&str> = several.iter().take(5).map(|one| one.run.as_str()).collect();
            let more = if several.len() > names.len() { ", ..." } else { "" };
            Err(wrong(format!("{} runs begin with `{name}`", several.len()))
                .hint(format!("{}{more}", names.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_named_by_age_and_by_a_unique_beginning() {
        let record = |run: &str| Record { run: run.into(), ..Record::default() };
        let records = [record("20260101-1"), record("20260101-2"), record("20260202-1")];
        let name = |text: &str| find(&records, text).map(|one| one.run.clone()).map_err(|problem| problem.to_string());
        assert_eq!(name("last").unwrap(), "20260202-1");
        assert_eq!(name("last~2").unwrap(), "20260101-1");
        assert!(name("last~3").unwrap_err().contains("only 3 recorded runs"));
        assert_eq!(name("20260202").unwrap(), "20260202-1");
        assert!(name("202601").unwrap_err().contains("2 runs begin with"));
        assert!(name("x").unwrap_err().contains("`effigy log` lists them"));
    }
}
