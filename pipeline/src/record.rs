//! Records of runs: a JSON file for each, which `status`, `log`, `diff`, `trace`, `report` and `why` read, and by which
//! `cache gc` tells what is still needed. What a run computes does not depend on it.

use crate::command::quote;
use crate::error::{Place, Problem};
use crate::finished::{HostInfo, NodeState};
use crate::key::Printer;
use crate::memory::Store;
use crate::plan::{Plan, Work};
use crate::run::{Options, Outcome};
use crate::selection::Part;
use crate::spec::DEFAULT_PROFILE;
use crate::{kept, memory};
use anyhow::Result;
use cache::layout;
use cache::{Entry, scan_units};
use protocol::Grain;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// A run that is over.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub run: String,
    /// The recipe's name.
    pub recipe: String,
    /// The recipe's file as it was named.
    pub file: String,
    /// The same, absolute; empty in older records. It tells recipes of one name apart.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
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
    /// `done`, `failed` or `interrupted`; [`OPEN`] in none that a run has written.
    pub outcome: String,
    /// It did all of its recipe and profile ([`Outcome::is_whole`]); older records do not say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// Units that ran.
    pub executed: usize,
    /// Units that were known.
    pub cached: usize,
    /// Units that failed.
    pub failed: usize,
    /// What it warned of, and of stages that had nothing to do what earlier runs did; none in older records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
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

/// How a run was called for, as it was typed.
#[derive(Clone, Debug, Default)]
pub struct Called {
    /// `--param` and `--set`.
    pub overrides: Vec<String>,
    /// `--variant`.
    pub variants: Vec<String>,
}

/// The option by which an override is given: fields of stages are named `STAGE.FIELD`, parameters have no point.
pub fn option_of(text: &str) -> &'static str {
    if text.split('=').next().is_some_and(|name| name.contains('.')) { "--set" } else { "--param" }
}

/// So many runs are looked at for what they warned of, of whatever recipes.
const LOOKED_AT: usize = 50;

/// What earlier runs warned of in stages that did no work now and whose table is the one that they left: nobody else
/// says it again. `outcome` has what this one warned of.
///
/// A stage that worked on a part of its rows says what it warned of now alone: it is not known to which of the others
/// an earlier warning belonged.
pub fn still_warned(workspace: &Path, plan: &Plan, recipe: &Path, outcome: &Outcome) -> Vec<String> {
    let records = names(workspace).into_iter().rev().take(LOOKED_AT).filter_map(|name| read(workspace, &name));
    let mut open: Vec<usize> = (0..plan.nodes.len())
        .filter(|i| {
            let tally = &outcome.tallies[*i];
            tally.executed + tally.failed == 0 && tally.table.is_some()
        })
        .collect();
    let mut told: Vec<String> = Vec::new();
    for record in records.filter(|one| one.is_of(plan, recipe, &[])) {
        // the last run that had a table of the stage
        open.retain(|i| {
            let name = &plan.nodes[*i].name;
            let Some(table) = record.stage(name).and_then(|then| then.table) else { return true };
            if Some(table) == outcome.tallies[*i].table {
                let begin = format!("stage `{name}`: ");
                let is_new = |text: &&String| text.starts_with(&begin) && !outcome.warnings.contains(text);
                told.extend(record.warnings.iter().filter(is_new).cloned());
            }
            false
        });
        if open.is_empty() {
            break;
        }
    }
    told
}

/// Where records of runs lie.
pub fn runs_folder(workspace: &Path) -> PathBuf {
    workspace.join(layout::RUNS)
}

/// The outcome of a run that began and has left no record.
pub const OPEN: &str = "not ended";

/// A stage of a run that is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageRecord {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// How it ended.
    pub state: NodeState,
    /// The run was not about it (`--only`, `--from`), so it says nothing of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_out: bool,
    /// Units that ran.
    pub executed: usize,
    /// Units that were known.
    pub cached: usize,
    /// Units that failed.
    pub failed: usize,
    /// Seconds of work in this run.
    pub seconds: f64,
    /// Seconds of work that made its rows, in whichever run.
    #[serde(default)]
    pub worth: f64,
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

    /// The recipe's file, absolute if the record says so.
    pub fn recipe_file(&self) -> &str {
        if self.path.is_empty() { &self.file } else { &self.path }
    }

    /// Its stage of this name.
    pub fn stage(&self, name: &str) -> Option<&StageRecord> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// How a stage of its ended: whoever stopped a run stopped it amid the stages that had begun.
    pub fn state_of(&self, stage: &StageRecord) -> &'static str {
        let begun = stage.executed + stage.cached + stage.failed > 0 || stage.head.is_some();
        match (self.outcome.as_str(), stage.state) {
            ("interrupted", NodeState::Skipped) if begun => "interrupted",
            (_, state) => state.word(),
        }
    }

    /// Whether it is a run of a plan's recipe, which lies at this absolute path, and of its profile, with just these
    /// `--param` and `--set` if there are any.
    pub fn is_of(&self, plan: &Plan, recipe: &Path, asked: &[String]) -> bool {
        let recipe = match self.path.as_str() {
            "" => self.file == plan.spec.file,
            path => path == recipe.to_string_lossy(),
        };
        recipe && self.profile == plan.spec.profile && (asked.is_empty() || same(asked, &self.overrides))
    }

    /// Whether it is a run of the same recipe and profile as another.
    pub fn is_like(&self, other: &Record) -> bool {
        let recipe = match (self.path.as_str(), other.path.as_str()) {
            ("", _) | (_, "") => self.file == other.file,
            (one, other) => one == other,
        };
        recipe && self.profile == other.profile
    }

    /// The stages that failed and that this one needs, directly or by way of others.
    pub fn failed_before(&self, name: &str) -> Vec<String> {
        let (mut open, mut met, mut failed) = (vec![name], BTreeSet::new(), Vec::new());
        while let Some(name) = open.pop() {
            let Some(wiring) = self.stage(name).map(|stage| &stage.wiring) else { continue };
            for need in wiring.from.iter().chain(wiring.with.iter().map(|(_, need)| need)) {
                if !met.insert(need.as_str()) {
                    continue;
                }
                match self.stage(need) {
                    Some(stage) if stage.state == NodeState::Failed => failed.push(need.clone()),
                    _ => open.push(need.as_str()),
                }
            }
        }
        failed
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
        let word = |option: &str, text: &String| format!(" {option} {}", quote(text));
        let overrides: String = self.overrides.iter().map(|text| word(option_of(text), text)).collect();
        let variants: String = self.variants.iter().map(|text| word("--variant", text)).collect();
        format!("{}{profile}{overrides}{variants}", quote(&self.file))
    }
}

/// Writes the record of a run. One that did nothing, and found what the last one had left, leaves none, or the log
/// would be full of them.
pub fn write(
    called: &Called,
    plan: &Plan,
    (options, outcome): (&Options, &Outcome),
    workspace: &Path,
    id: &str,
    (started, host): (u64, &HostInfo),
    seconds: f64,
) -> Result<()> {
    let (executed, cached, failed) = outcome.totals();
    let parts = options.selection.parts(plan);
    let whole = outcome.is_whole(plan, &options.selection);
    let did = outcome.states.iter().zip(&parts).all(|(state, part)| *part == Part::Left || *state == NodeState::Done);
    let newest = || {
        let mut records = names(workspace).into_iter().rev().filter_map(|name| read(workspace, &name));
        records.find(|one| one.is_of(plan, &options.recipe, &[]))
    };
    if executed + failed == 0
        && did
        && !outcome.interrupted
        && newest().is_some_and(|last| (last.whole || !whole) && is_still(&last, called, plan, outcome, &parts))
    {
        return Ok(());
    }
    // from now on the last run is this one, whatever an earlier one has found to be at rest
    let _ = std::fs::remove_file(Store::new(workspace).rest_path(&options.recipe, plan.spec.profile.as_deref()));
    let told = plan.nodes.iter().zip(&outcome.tallies).zip(&outcome.states).enumerate();
    let stages = told.map(|(i, ((node, tally), state))| StageRecord {
        name: node.name.clone(),
        kind: node.kind().into(),
        state: *state,
        left_out: parts[i] == Part::Left,
        executed: tally.executed,
        cached: tally.cached,
        failed: tally.failed,
        seconds: tally.seconds,
        worth: tally.worth,
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
    let record = Record {
        run: id.into(),
        recipe: plan.spec.name.clone(),
        file: plan.spec.file.clone(),
        path: options.recipe.to_string_lossy().into_owned(),
        profile: plan.spec.profile.clone(),
        overrides: called.overrides.clone(),
        variants: called.variants.clone(),
        params: plan.spec.shown_params(),
        started,
        seconds,
        outcome: match (outcome.interrupted, outcome.states.contains(&NodeState::Failed)) {
            (true, _) => "interrupted".into(),
            (false, false) => "done".into(),
            (false, true) => "failed".into(),
        },
        whole,
        executed,
        cached,
        failed,
        warnings: outcome.warnings.clone(),
        host: host.name.clone(),
        cpu: host.cpu.clone(),
        threads: host.threads,
        version: host.version.clone(),
        software: host.software.clone(),
        commit: host.commit.clone(),
        jobs: outcome.jobs.clone(),
        stages: stages.collect(),
    };
    kept::note(workspace, id, outcome.tallies.iter().filter_map(|tally| tally.table))?;
    let folder = runs_folder(workspace);
    memory::write(&folder.join(format!("{id}.json")), &serde_json::to_vec_pretty(&record)?)?;
    memory::write(&folder.join("latest"), id.as_bytes())
}

/// Whether the record of the last run says all that is to be said of a run that did nothing.
fn is_still(last: &Record, called: &Called, plan: &Plan, outcome: &Outcome, parts: &[Part]) -> bool {
    let told: HashMap<&str, &StageRecord> = last.stages.iter().map(|stage| (stage.name.as_str(), stage)).collect();
    let stages = plan.nodes.iter().zip(&outcome.tallies).zip(parts);
    let mut asked = stages.filter(|(_, part)| **part != Part::Left);
    let as_before = same(&last.overrides, &called.overrides) && same(&last.variants, &called.variants);
    last.outcome == "done"
        && as_before
        && asked.all(|((node, tally), part)| {
            told.get(node.name.as_str()).is_some_and(|told| {
                let head = *part == Part::Frozen || told.head == tally.head;
                told.state == NodeState::Done && told.table == tally.table && head
            })
        })
}

/// Whether two lists of `--param` and `--set` say the same.
pub fn same(a: &[String], b: &[String]) -> bool {
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
    let mut record: Record =
        serde_json::from_slice(&std::fs::read(runs_folder(workspace).join(format!("{name}.json"))).ok()?).ok()?;
    // what runs without a profile; older records name it
    record.profile = record.profile.filter(|profile| profile != DEFAULT_PROFILE);
    Some(record)
}

/// The runs that began and are not among the `records`, because they were killed or an error ended them, oldest first;
/// what they had finished are the units that ran. The one that is on is none of them. Files are told as seen from
/// `here`.
///
/// # Errors
/// If the units that are kept cannot be read.
pub fn unended(workspace: &Path, records: &[Record], here: &Path) -> Result<Vec<Record>> {
    let mut notes = kept::begun(workspace);
    notes.retain(|(run, _)| records.iter().all(|one| one.run != *run));
    notes.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let begun: Vec<u64> =
        records.iter().map(|one| one.started).chain(notes.iter().map(|(_, note)| note.started)).collect();
    // whoever has the workspace may be the one that began last
    if !notes.is_empty() && cache::is_locked(workspace) {
        notes.pop();
    }
    if notes.is_empty() {
        return Ok(Vec::new());
    }
    // one run at a time: what was finished after the next one began is not of this
    let next = |note: &kept::Begun| begun.iter().copied().filter(|at| *at > note.started).min();
    let ends: Vec<u64> = notes.iter().map(|(_, note)| next(note).unwrap_or(u64::MAX)).collect();
    let mut units = vec![0; notes.len()];
    scan_units(workspace, &|_| true, &mut |entry| {
        if let Entry::Unit(unit) = entry {
            let mut made = notes.iter().zip(&ends).map(|((_, note), end)| note.may_have_made(&unit) && unit.at < *end);
            if let Some(i) = made.position(|made| made) {
                units[i] += 1;
            }
        }
    })?;
    let told = notes.into_iter().zip(units).map(|((run, note), executed)| {
        let path = Path::new(&note.recipe);
        let known = records.iter().rfind(|one| one.path == note.recipe).map(|one| one.recipe.clone());
        let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Record {
            run,
            recipe: known.unwrap_or_else(stem),
            file: path.strip_prefix(here).unwrap_or(path).display().to_string(),
            path: note.recipe.clone(),
            profile: note.profile,
            started: note.started,
            outcome: OPEN.into(),
            executed,
            ..Record::default()
        }
    });
    Ok(told.collect())
}

/// The run that somebody means: its name or a beginning of it that no other has, `last`, or `last~1` for the one
/// before.
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

    #[test]
    fn runs_are_of_one_recipe_by_its_path_and_not_by_its_name() {
        let record = |file: &str, path: &str, profile: Option<&str>| Record {
            recipe: "words".into(),
            file: file.into(),
            path: path.into(),
            profile: profile.map(String::from),
            ..Record::default()
        };
        let one = record("a.yaml", "/x/a.yaml", None);
        assert!(one.is_like(&record("../x/a.yaml", "/x/a.yaml", None)));
        assert!(!one.is_like(&record("a.yaml", "/y/a.yaml", None)));
        assert!(!one.is_like(&record("a.yaml", "/x/a.yaml", Some("small"))));
        assert!(one.is_like(&record("a.yaml", "", None)), "an older record has no path");
    }

    #[test]
    fn what_a_stage_needs_is_followed_to_what_failed() {
        let stage = |name: &str, state: &str, from: &str, with: &str| -> StageRecord {
            let from: Vec<&str> = from.split_whitespace().collect();
            let with: Vec<[&str; 2]> = with.split_whitespace().map(|need| ["own", need]).collect();
            let text = serde_json::json!({"name": name, "kind": "run", "state": state, "executed": 0, "cached": 0,
                "failed": 0, "seconds": 0.0, "head": null, "table": null, "from": from, "with": with});
            serde_json::from_value(text).unwrap()
        };
        let stages = vec![
            stage("a", "failed", "", ""),
            stage("b", "failed", "", ""),
            stage("c", "skipped", "a", ""),
            stage("d", "skipped", "c", "b"),
            stage("e", "done", "", ""),
        ];
        let record = Record { stages, ..Record::default() };
        let before = |name: &str| {
            let mut failed = record.failed_before(name);
            failed.sort();
            failed.join(" ")
        };
        assert_eq!([before("c"), before("d"), before("e"), before("x")], ["a", "a b", "", ""]);
    }
}
