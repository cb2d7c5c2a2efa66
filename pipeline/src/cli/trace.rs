//! `effigy trace`: from a row or a file back to everything it was made of, or forward to everything that used it.

use super::diff::{moment, run_at};
use super::past::{Found, Past};
use super::why::short;
use super::{DONE, RecipeArgs, load, print, progress, say};
use crate::compare::{Naming, meant};
use crate::error::{Place, Problem};
use crate::finished::ReportItem;
use crate::key::show;
use crate::lineage::{Computed, Left, Lineage, Step, computed};
use crate::plan::{Plan, Work};
use crate::record::{self, Record};
use anyhow::Result;
use cache::layout;
use manifests::{Digest, Manifest, Value};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

/// Tell where a row or a file comes from, back to the sources, or what used it
#[derive(clap::Args)]
pub struct Trace {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// The stage whose row it is; or a file, or the first digits of a file's digest
    #[arg(value_name = "STAGE|FILE|DIGEST")]
    what: String,
    /// The row: its number, from 0, a part of its name (`in/7.txt`), or values of any columns (`timestep=1`); all rows
    /// if left out
    row: Option<String>,
    /// Tell what used it, instead of what it was made of
    #[arg(long)]
    forward: bool,
    /// So many rows and units are shown for each stage
    #[arg(long, value_name = "N", default_value_t = 3)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Digests are recognised by at least so many digits.
const DIGITS: usize = 6;
/// Of the rows that there are so many are named to somebody who asks for another.
const OFFERED: usize = 8;

/// What is told of the steps of a trace.
struct Told<'a> {
    plan: &'a Plan,
    lineage: &'a Lineage<'a>,
    computed: HashMap<Digest, Computed>,
    records: Vec<Record>,
    /// Whether units of each stage failed in the last run.
    failed: Vec<bool>,
    root: &'a Path,
    limit: usize,
}

impl Trace {
    /// Tells it.
    pub fn run(self) -> Result<u8> {
        let loaded = load::load(&self.recipe)?;
        let plan = &loaded.plan;
        let root = &self.recipe.workspace.workspace;
        let mut past = Past::new(&self.recipe, &loaded);
        // one that failed everywhere leaves a record and no rows
        if past.memory.stages.is_empty() && past.run(0).is_none() {
            let message = format!("the recipe {} has not been run yet", plan.spec.file);
            return Ok(self.recipe.not_run(&message, "trace", None, &loaded, &past.store));
        }
        let (mut left, mut lost) = (Vec::new(), HashMap::new());
        for (i, node) in plan.nodes.iter().enumerate() {
            left.push(match past.stage(&node.name) {
                Found::Rows(rows) => {
                    let known = past.memory.stages.get(&node.name).filter(|one| one.table == rows.table);
                    let head = rows.head.filter(|_| matches!(node.work, Work::Units(_)));
                    Some(Left { key: known.map(|one| one.key), head, table: rows.table })
                }
                Found::Lost(why) => {
                    lost.insert(i, why);
                    None
                }
                Found::Nothing => None,
            });
        }
        let records = record::all(root);
        let last = past.run(0);
        let failures = |name: &str| last.and_then(|last| last.stage(name)).is_some_and(|stage| stage.failed > 0);
        let failed = plan.nodes.iter().map(|node| failures(&node.name)).collect();
        let start = plan.stages(&self.what).and_then(|stages| match stages[..] {
            [one] => Ok(one),
            _ => {
                let names: Vec<&str> = stages.iter().map(|&i| plan.nodes[i].name.as_str()).collect();
                let message = format!("stage `{}` is there {} times, once for each variant", self.what, names.len());
                Err(Problem::at(&Place::command_line(), message).hint(format!("name one: {}", names.join(", "))))
            }
        });
        if let Some(why) = start.as_ref().ok().and_then(|start| lost.get(start)) {
            return Ok(past.tell(&self.what, why, None));
        }
        let near = start.as_ref().map_or(vec![true; plan.nodes.len()], |start| near(plan, *start, self.forward));
        let lineage = Lineage::read(plan, (root, &past.store), &left, &|i| near[i])?;
        let (start, rows, content) = self.start(start, &lineage)?;
        let steps = if self.forward { lineage.forward(start, rows) } else { lineage.back(start, rows) };
        let keys: HashSet<Digest> = steps.iter().flat_map(|step| step.keys.iter().copied()).collect();
        let computed = computed(root, &keys)?;
        let told = Told { plan, lineage: &lineage, computed, records, failed, root, limit: self.limit };
        if self.json {
            print(&told.json(&steps, self.forward, content).to_string());
        } else {
            content.iter().for_each(|digest| print(&format!("file {digest}")));
            told.text(&steps, self.forward);
        }
        Ok(DONE)
    }

    /// The stage and the rows that are meant, and the digest of the file if one is.
    fn start(
        &self,
        stage: Result<usize, Problem>,
        lineage: &Lineage<'_>,
    ) -> Result<(usize, Vec<usize>, Option<Digest>)> {
        let problem = match stage {
            Ok(stage) => {
                let past = lineage.stages[stage].as_ref();
                let past = past.map_err(|lost| Problem::at(&Place::command_line(), lost).hint(self.again()))?;
                return Ok((stage, self.rows(&past.table)?, None));
            }
            Err(problem) => problem,
        };
        let path = Path::new(&self.what);
        let prefix = if path.is_file() {
            Digest::of_file(path)?.0.to_string()
        } else if self.what.len() >= DIGITS && self.what.bytes().all(|b| b.is_ascii_hexdigit()) {
            self.what.to_ascii_lowercase()
        } else {
            let hint = "or give a file, or the first six or more digits of a file's digest";
            let hint = problem.hint.as_ref().map_or(hint.to_string(), |known| format!("{known}; {hint}"));
            return Err(problem.hint(hint).into());
        };
        let mut found: BTreeMap<Digest, (usize, Vec<usize>)> = BTreeMap::new();
        for (stage, past) in lineage.stages.iter().enumerate() {
            let Ok(past) = past else { continue };
            for (row, digest) in files(&past.table, &prefix)? {
                let (first, rows) = found.entry(digest).or_insert((stage, Vec::new()));
                // the stage that put it out comes before all that carry it along
                if *first == stage && rows.last() != Some(&row) {
                    rows.push(row);
                }
            }
        }
        let wrong = |message: String| Problem::at(&Place::command_line(), message);
        match found.len() {
            0 => {
                let message = format!("no table of the last run holds the file {}", short(&prefix));
                Err(wrong(message).hint(self.again()).into())
            }
            1 => {
                let (digest, (stage, rows)) = found.pop_first().expect("there is one");
                Ok((stage, rows, Some(digest)))
            }
            n => {
                let digests: Vec<String> = found.keys().take(5).map(Digest::short).collect();
                let message = format!("the digests of {n} files begin with `{prefix}`");
                Err(wrong(message).hint(format!("give more digits: {}", digests.join(", "))).into())
            }
        }
    }

    fn again(&self) -> String {
        format!("effigy run {}", self.recipe.typed(None, self.recipe.profile.as_deref()))
    }

    fn rows(&self, table: &Manifest) -> Result<Vec<usize>> {
        let Some(wanted) = &self.row else { return Ok((0..table.len()).collect()) };
        let number = wanted.parse::<usize>().ok().filter(|row| *row < table.len());
        let mut rows: Vec<usize> = number.map_or_else(|| meant(table, wanted), |row| vec![row]);
        if rows.is_empty() && wanted.len() >= DIGITS && wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
            rows = files(table, &wanted.to_ascii_lowercase())?.into_iter().map(|(row, _)| row).collect();
            rows.dedup();
        }
        if rows.is_empty() {
            let naming = Naming::of(table);
            let names: Vec<String> = (0..table.len().min(OFFERED)).map(|row| naming.name(table, row)).collect();
            let message = format!("stage `{}` has no row `{wanted}`", self.what);
            let problem = Problem::at(&Place::command_line(), message).which_row(wanted, &names, table.len());
            return Err(problem.or_hint("its table has no rows").into());
        }
        Ok(rows)
    }
}

/// The rows of a table that hold a file whose digest begins so, in order.
fn files(table: &Manifest, prefix: &str) -> Result<Vec<(usize, Digest)>> {
    let mut found = Vec::new();
    for column in table.schema().columns().iter().filter(|column| column.ty == manifests::Type::Blob) {
        for (row, value) in table.column(&column.name)?.into_iter().enumerate() {
            if let Value::Blob(blob) = value
                && blob.digest.to_string().starts_with(prefix)
            {
                found.push((row, blob.digest));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The stages that a trace can come to: what a stage needs, or what needs it, with what these take.
fn near(plan: &Plan, start: usize, forward: bool) -> Vec<bool> {
    let mut near = vec![false; plan.nodes.len()];
    near[start] = true;
    if forward {
        for i in start + 1..near.len() {
            near[i] = plan.nodes[i].needs().any(|need| near[need]);
        }
        // how their rows come about is told only by the rows they map over
        let users: Vec<usize> = (start..near.len()).filter(|&i| near[i]).collect();
        users.into_iter().for_each(|i| plan.nodes[i].from.iter().for_each(|&need| near[need] = true));
    } else {
        for i in (0..=start).rev() {
            if near[i] {
                plan.nodes[i].needs().for_each(|need| near[need] = true);
            }
        }
    }
    near
}

impl Told<'_> {
    /// The rows of a step that are shown, with the values of theirs that the stage gave.
    fn shown(&self, step: &Step) -> Vec<(usize, String, Vec<(String, Value)>)> {
        let Ok(past) = &self.lineage.stages[step.node] else { return Vec::new() };
        let names = past.table.schema().names();
        let columns: Vec<&str> = match &self.plan.nodes[step.node].work {
            Work::Units(stage) => {
                names.into_iter().filter(|name| stage.def.writes.iter().any(|column| column.name == *name)).collect()
            }
            Work::Table(_) => names,
        };
        let cell = |row: usize, name: &&str| Some((name.to_string(), past.table.value(row, name).ok()?));
        let naming = Naming::of(&past.table);
        let shown = step.rows.iter().take(self.limit);
        let shown = shown.map(|&row| {
            let cells = columns.iter().filter_map(|name| cell(row, name)).collect();
            (row, naming.name(&past.table, row), cells)
        });
        shown.collect()
    }

    fn units<'a>(&'a self, step: &'a Step) -> impl Iterator<Item = (&'a Digest, Option<&'a Computed>)> {
        step.keys.iter().map(|key| (key, self.computed.get(key)))
    }

    fn seconds(&self, step: &Step) -> f64 {
        // a sum of nothing is -0.0
        self.units(step).filter_map(|(_, unit)| unit.map(|unit| unit.seconds)).sum::<f64>() + 0.0
    }

    /// The log of a unit's failure, if it is there.
    fn failure(&self, key: &Digest) -> Option<String> {
        let log = self.root.join(layout::FAILED).join(format!("{}.txt", key.short()));
        log.exists().then(|| log.display().to_string())
    }

    /// What decides a stage's results besides its rows: its version first.
    fn facts(&self, step: &Step) -> Vec<(String, String)> {
        let past = self.lineage.stages[step.node].as_ref().ok();
        let facts = past.and_then(|past| past.facts.as_ref()).map_or(Vec::new(), |facts| facts.facts.clone());
        facts.into_iter().filter(|(name, _)| name != "kind").collect()
    }

    fn total(&self, step: &Step) -> usize {
        self.lineage.stages[step.node].as_ref().map_or(0, |past| past.table.len())
    }

    fn json(&self, steps: &[Step], forward: bool, content: Option<Digest>) -> Json {
        let name = |i: usize| self.plan.nodes[i].name.as_str();
        let mut runs: BTreeMap<&str, &Record> = BTreeMap::new();
        let mut told = Vec::new();
        for step in steps {
            let mut units = Vec::new();
            for (key, unit) in self.units(step).take(self.limit) {
                let run = unit.and_then(|unit| run_at(&self.records, unit.at));
                runs.extend(run.map(|run| (run.run.as_str(), run)));
                units.push(match unit {
                    Some(unit) => json!({"key": key, "unit": unit.name, "at": unit.at, "seconds": unit.seconds,
                                         "host": unit.host, "effigy": unit.program, "run": run.map(|run| &run.run)}),
                    None if self.failed[step.node] => json!({"key": key, "failed": true, "log": self.failure(key)}),
                    None => json!({"key": key, "gone": true}),
                });
            }
            let rows = self.shown(step).into_iter().map(|(row, name, cells)| {
                let cells: serde_json::Map<String, Json> = cells
                    .into_iter()
                    .map(|(name, value)| (name, serde_json::from_str(&value.to_json_text()).unwrap_or(Json::Null)))
                    .collect();
                json!({"row": row, "name": name, "values": cells})
            });
            let facts: serde_json::Map<String, Json> =
                self.facts(step).into_iter().map(|(name, value)| (name, value.into())).collect();
            let next: Vec<Json> = step
                .next
                .iter()
                .map(|(node, constant)| json!({"stage": name(*node), "as": if *constant { "with" } else { "from" }}))
                .collect();
            let files = facts.keys().filter_map(|name| name.strip_prefix("file "));
            let files: serde_json::Map<String, Json> =
                files.filter_map(|name| Some((name.into(), self.named(step.node, name)?.into()))).collect();
            told.push(json!({
                "files": files, "stage": name(step.node), "kind": self.plan.nodes[step.node].kind(), "facts": facts,
                "rows_total": self.total(step), "rows_count": step.rows.len(), "rows": rows.collect::<Vec<_>>(),
                "extends": step.extends.len(), "units_count": step.keys.len(), "units": units,
                "seconds": self.seconds(step), "next": next, "lost": step.lost,
                "report": self.report(step.node),
            }));
        }
        let runs: Vec<Json> = runs
            .into_values()
            .map(|run| {
                json!({"run": run.run, "commit": run.commit, "host": run.host, "cpu": run.cpu, "effigy": run.version,
                       "software": run.software.iter().cloned().collect::<BTreeMap<_, _>>()})
            })
            .collect();
        json!({"recipe": self.plan.spec.name, "direction": if forward { "forward" } else { "back" }, "file": content,
               "steps": told, "runs": runs})
    }

    /// The file or folder that the recipe names in a parameter.
    fn named(&self, node: usize, param: &str) -> Option<String> {
        let Work::Units(stage) = &self.plan.nodes[node].work else { return None };
        Some(stage.files.iter().find(|(name, _)| name == param)?.1.display().to_string())
    }

    /// What the report shows of a stage.
    fn report(&self, node: usize) -> Vec<String> {
        let name = &self.plan.nodes[node].name;
        let items = self.plan.report.iter().filter_map(|item| match item {
            ReportItem::Text { .. } => None,
            ReportItem::Rates { stages, title, .. } => {
                stages.contains(name).then(|| title.clone().unwrap_or_else(|| crate::report::RATES.to_string()))
            }
            ReportItem::Table(crate::finished::TableItem { stage, title, .. })
            | ReportItem::Images { stage, title, .. }
            | ReportItem::Curve { stage, title, .. }
            | ReportItem::Videos { stage, title, .. } => {
                (stage == name).then(|| title.clone().unwrap_or_else(|| stage.clone()))
            }
        });
        items.collect()
    }

    fn text(&self, steps: &[Step], forward: bool) {
        let places: HashMap<usize, usize> = steps.iter().enumerate().map(|(place, step)| (step.node, place)).collect();
        let mut told = BTreeSet::new();
        // the stage, what leads to it, and how it is drawn
        let mut open = vec![(0, String::new(), String::new(), String::new())];
        let mut runs: BTreeMap<&str, &Record> = BTreeMap::new();
        while let Some((place, how, first, rest)) = open.pop() {
            let step = &steps[place];
            let node = &self.plan.nodes[step.node];
            if !told.insert(place) {
                say(&format!("{first}{}{how}: see above", node.name));
                continue;
            }
            self.head(step, &how, &first);
            let next: Vec<(usize, bool)> =
                step.next.iter().filter_map(|(node, constant)| Some((*places.get(node)?, *constant))).collect();
            let line = if next.is_empty() { format!("{rest}    ") } else { format!("{rest}│   ") };
            self.body(step, &line, forward, &mut runs);
            for (i, (place, constant)) in next.iter().enumerate().rev() {
                let last = i + 1 == next.len();
                let (branch, below) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
                let how = if *constant { " (as a constant)" } else { "" };
                open.push((*place, how.into(), format!("{rest}{branch}"), format!("{rest}{below}")));
            }
        }
        for run in runs.values() {
            let commit = run
                .commit
                .as_ref()
                .map_or(String::new(), |commit| format!(", commit {}", &commit[..commit.len().min(12)]));
            let software: Vec<String> =
                run.software.iter().map(|(name, version)| format!("{name} {version}")).collect();
            let software = if software.is_empty() { String::new() } else { format!(", {}", software.join(", ")) };
            say(&format!("run {}: {}, {}, effigy {}{software}{commit}", run.run, run.host, run.cpu, run.version));
        }
    }

    fn head(&self, step: &Step, how: &str, first: &str) {
        let node = &self.plan.nodes[step.node];
        let version = self.facts(step).into_iter().find(|(name, _)| name == "version");
        let version = version.map_or(String::new(), |(_, version)| format!(" version {version}"));
        let (rows, total) = (step.rows.len(), self.total(step));
        let of = if rows == total { format!("{total}") } else { format!("{rows} of {total}") };
        let units = match step.keys.len() {
            0 => String::new(),
            1 => ", 1 unit".into(),
            n => format!(", {n} units"),
        };
        let seconds =
            if step.keys.is_empty() { String::new() } else { format!(", {}", progress::seconds(self.seconds(step))) };
        let word = if total == 1 { "row" } else { "rows" };
        say(&format!("{first}{}{how}  {}{version}, {of} {word}{units}{seconds}", node.name, node.kind()));
    }

    fn body<'a>(&'a self, step: &Step, line: &str, forward: bool, runs: &mut BTreeMap<&'a str, &'a Record>) {
        let more = |all: usize| {
            if all > self.limit {
                say(&format!("{line}and {} more (--limit)", all - self.limit));
            }
        };
        if !forward {
            // what the line says of columns and words is in the recipe
            let told = |(name, _): &&(String, String)| {
                ["command", "param ", "file ", "with ", "code "].iter().any(|kind| name.starts_with(kind))
            };
            for (name, value) in self.facts(step).iter().filter(told) {
                let place = name.strip_prefix("file ").and_then(|name| self.named(step.node, name));
                let place = place.map_or(String::new(), |place| format!("  ({place})"));
                say(&format!("{line}{name} = {}{place}", short(value)));
            }
        }
        for (row, name, cells) in self.shown(step) {
            // what the name says already need not be said again
            let cells =
                cells.into_iter().filter(|(column, value)| !name.contains(&format!("{column}={}", show(value))));
            let cells: Vec<String> =
                cells.take(8).map(|(column, value)| format!(", {column}={}", short(&show(&value)))).collect();
            let name = if name == format!("row {row}") { String::new() } else { format!(" {name}") };
            let text = format!("{name}{}", cells.concat());
            say(&format!("{line}row {row}: {}", text.trim_start_matches([',', ' '])));
        }
        more(step.rows.len());
        for (key, unit) in self.units(step).take(self.limit) {
            let when = match unit {
                Some(unit) => {
                    let run = run_at(&self.records, unit.at);
                    runs.extend(run.map(|run| (run.run.as_str(), run)));
                    let run = run.map_or(String::new(), |run| format!(", run {}", run.run));
                    let (at, seconds) = (moment(unit.at), progress::seconds(unit.seconds));
                    format!("{at} on {} in {seconds}{run}", unit.host)
                }
                // rows and records are all there, or the trace would not have come to units: what has none gave nothing
                None if self.failed[step.node] => match self.failure(key) {
                    Some(log) => format!("it failed; log: {log}"),
                    None => "it failed".into(),
                },
                None => "its record is gone".into(),
            };
            say(&format!("{line}unit {}: {when}", key.short()));
        }
        more(step.keys.len());
        if !step.extends.is_empty() && !forward {
            let n = step.extends.len();
            say(&format!(
                "{line}made of all rows below, of which {n} {}",
                if n == 1 { "is its own" } else { "are their own" }
            ));
        }
        let report = if forward { self.report(step.node) } else { Vec::new() };
        if !report.is_empty() {
            say(&format!("{line}in the report: {}", report.join(", ")));
        }
        if let Some(lost) = &step.lost {
            say(&format!("{line}no further: {lost}"));
        }
    }
}
