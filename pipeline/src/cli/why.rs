//! `effigy why`.

use super::diff::run_at;
use super::record::{self, Record};
use super::{DONE, RecipeArgs, host, load, print, progress};
use crate::compare::{compare, row_name};
use crate::error::{Place, Problem};
use crate::foresee::{Forecast, foresee};
use crate::memory::Store;
use crate::plan::{Plan, Work};
use crate::run::Prepared;
use crate::selection::Selection;
use crate::stage::UnitStage;
use crate::why::{Change, ChangedRows, History, Reason, Source, earlier_rows};
use anyhow::Result;
use cache::Cache;
use manifests::Manifest;
use serde_json::json;
use std::collections::BTreeMap;

/// Tell why a stage has to run, or ran last: which parameter, file, column or version changed
#[derive(clap::Args)]
pub struct Why {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// The stage
    stage: String,
    /// Only units whose name contains this (`in/7.txt`), or the unit of this number, from 0
    row: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// So many units of one kind are named, and so many rows.
const NAMED: usize = 3;
/// So many different reasons are told.
const TOLD: usize = 20;
/// For so many units the rows behind a change are sought.
const COMPARED: usize = 20;

impl Why {
    /// Tells it.
    pub fn run(self) -> Result<u8> {
        let loaded = load::load(&self.recipe)?;
        let plan = &loaded.plan;
        let stages = plan.stages(&self.stage)?;
        let mut cache = Cache::open(&self.recipe.workspace.workspace, host::VERSION)?;
        // of a stage that varies, one after the other; with `--json` an object a line
        stages.into_iter().try_for_each(|stage| self.one(&loaded, stage, &mut cache))?;
        Ok(DONE)
    }

    fn one(&self, loaded: &load::Loaded, wanted: usize, cache: &mut Cache) -> Result<()> {
        let plan = &loaded.plan;
        let asked = &plan.nodes[wanted].name;
        let mut stage = wanted;
        let (forecasts, forecast) = loop {
            let mut forecasts = foresee(plan, cache, &loaded.recipe, (Some(stage), &Selection::default()), true)?;
            let forecast = forecasts.pop().expect("there is one for each stage");
            match forecast.until {
                // what decides it is what runs before it
                Some(until) if forecast.units.is_none() && until != stage => stage = until,
                _ => break (forecasts, forecast),
            }
        };
        let node = &plan.nodes[stage];
        let (Work::Units(work), Some((prepared, known))) = (&node.work, &forecast.units) else {
            print(&format!(
                "stage `{}` is evaluated by the engine itself, each time anew: there is nothing to know",
                node.name
            ));
            return Ok(());
        };
        let history = History::read(cache.root(), &node.name)?;
        let mut reasons: Vec<(usize, Reason)> =
            (0..known.len()).map(|unit| (unit, history.reason(work, prepared, unit, known[unit]))).collect();
        if let (Some(row), true) = (&self.row, stage == wanted) {
            let number = row.parse::<usize>().ok();
            let by_number = number.filter(|number| *number < reasons.len());
            let all: Vec<String> = reasons.iter().map(|(_, reason)| reason.unit.clone()).collect();
            reasons.retain(|(unit, reason)| by_number.map_or(reason.unit.contains(row), |number| number == *unit));
            if reasons.is_empty() {
                let message = format!("stage `{}` has no unit `{row}`", node.name);
                let problem = Problem::at(&Place::command_line(), message);
                let problem = problem.did_you_mean(row, all.iter().map(String::as_str).take(20));
                return Err(problem.or_hint("it has no units, because its input has no rows").into());
            }
        }
        let past = Past { records: record::all(cache.root()), store: Store::new(cache.root()) };
        for (unit, reason) in &mut reasons {
            reason.sources = sources(plan, stage, prepared, *unit, reason);
        }
        // each comparison reads tables: of a few units that is enough
        for (unit, reason) in reasons.iter_mut().filter(|(_, reason)| !reason.changes.is_empty()).take(COMPARED) {
            reason.rows = past.rows(plan, stage, work, (prepared, *unit), &forecasts, reason)?;
        }
        let reasons: Vec<Reason> = reasons.into_iter().map(|(_, reason)| reason).collect();
        if self.json {
            let misses = known.iter().filter(|known| !**known).count();
            print(
                &json!({"stage": node.name, "asked": asked, "hits": known.len() - misses, "misses": misses,
                        "unknown": forecast.unknown, "units": reasons})
                .to_string(),
            );
            return Ok(());
        }
        if stage != wanted {
            print(&format!("nobody can tell about `{asked}` until `{}` has run; about that:", node.name));
        }
        self.tell(plan, stage, &reasons);
        Ok(())
    }

    fn tell(&self, plan: &Plan, stage: usize, reasons: &[Reason]) {
        let node = &plan.nodes[stage];
        let misses = reasons.iter().filter(|reason| !reason.known).count();
        print(&format!("stage `{}`: {misses} to run, {} known", node.name, reasons.len() - misses));
        // units with the same reason are told together
        let mut alike: BTreeMap<(bool, bool, Vec<String>), Vec<&Reason>> = BTreeMap::new();
        for reason in reasons {
            let mut told: Vec<String> = Vec::new();
            for change in &reason.changes {
                told.push(tell(plan, stage, change, reason));
                told.extend(tell_rows(reason, change));
            }
            alike.entry((reason.known, reason.first, told)).or_default().push(reason);
        }
        let more = alike.len().saturating_sub(TOLD);
        for ((known, first, told), units) in alike.into_iter().take(TOLD) {
            let names: Vec<&str> = units.iter().take(NAMED).map(|reason| reason.unit.as_str()).collect();
            let more = units.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let names = format!("{}{more}", names.join("; "));
            let at = units.iter().filter_map(|reason| reason.at).max();
            let computed = at.map_or(String::new(), |at| {
                let seconds: f64 = units.iter().filter_map(|reason| reason.seconds).sum();
                format!(" (computed {} UTC in {})", host::utc(at), progress::seconds(seconds))
            });
            let since = units.iter().filter_map(|reason| reason.since).max();
            let since = since.map_or(String::new(), |since| format!(" since {} UTC", host::utc(since)));
            match (known, first) {
                (false, true) => print(&format!("  to run: {names}\n    nothing like it has been run before")),
                (false, false) => print(&format!("  to run: {names}\n    changed{since}:")),
                (true, true) => print(&format!("  known: {names}{computed}")),
                (true, false) => {
                    print(&format!("  known: {names}{computed}\n    it was run because of what had changed{since}:"))
                }
            }
            if !first && told.is_empty() {
                print("      nothing: its record or one of its files is gone");
            }
            told.iter().for_each(|line| print(&format!("      {line}")));
        }
        if more > 0 {
            print(&format!("  and {more} more reasons; name a ROW to see its own, or have them all with --json"));
        }
    }
}

/// What earlier runs left.
struct Past {
    records: Vec<Record>,
    store: Store,
}

impl Past {
    /// The table that a stage had when something was made, if that is still there.
    fn table(&self, stage: &str, at: u64) -> Option<Manifest> {
        let run = run_at(&self.records, at)?;
        self.store.table(&run.stage(stage)?.table?)
    }

    /// The rows behind the contents of many rows that changed.
    fn rows(
        &self,
        plan: &Plan,
        stage: usize,
        work: &UnitStage,
        (prepared, unit): (&Prepared, usize),
        forecasts: &[Forecast],
        reason: &Reason,
    ) -> Result<Vec<ChangedRows>> {
        let node = &plan.nodes[stage];
        let (mut rows, Some(since)) = (Vec::new(), reason.since) else { return Ok(Vec::new()) };
        let name = |i: usize| plan.nodes[i].name.clone();
        for (constant, need) in &node.with {
            let changed = reason.changes.iter().any(|change| change.fact == format!("with {constant}"));
            let now = forecasts.get(*need).and_then(|forecast| forecast.table.whole());
            if let (true, Some(old), Some(new)) = (changed, self.table(&name(*need), since), now) {
                let reads =
                    node.with.iter().position(|(own, _)| own == constant).map(|i| work.with_reads[i].as_slice());
                let compared = compare(&old, new, reads, NAMED)?;
                rows.push(ChangedRows { stage: name(*need), constant: Some(constant.clone()), compared });
            }
        }
        let many = prepared.units.rows(unit).len() != 1 || work.def.grain != protocol::Grain::Row;
        let changed = reason.changes.iter().any(|change| change.fact.starts_with("column "));
        if let (true, true, Some(&from)) = (many, changed, node.from.first())
            && let Some(old) = self.table(&name(from), since)
        {
            let new = prepared.named().take(prepared.units.rows(unit));
            // a table that has other columns cannot be cut as this one
            if let Ok(old) = earlier_rows(work, &old, &new) {
                let compared = compare(&old, &new, Some(&work.reads), NAMED)?;
                rows.push(ChangedRows { stage: name(from), constant: None, compared });
            }
        }
        Ok(rows)
    }
}

/// Where the columns that changed were written: the stage, and its row as far as it is one.
fn sources(plan: &Plan, stage: usize, prepared: &Prepared, unit: usize, reason: &Reason) -> Vec<Source> {
    let columns = reason.changes.iter().filter_map(|change| change.fact.strip_prefix("column "));
    let rows = prepared.units.rows(unit);
    let source = |column: &str| {
        let wrote = writer(plan, stage, column)?;
        let row = match rows {
            [row] => {
                let known = |name: &&str| plan.nodes[wrote].columns.iter().any(|column| column.name == **name);
                let named = prepared.named();
                let names: Vec<&str> = named.schema().names().into_iter().filter(known).collect();
                named.select(&names).ok().map(|table| row_name(&table, *row))
            }
            _ => None,
        };
        Some(Source { column: column.into(), stage: plan.nodes[wrote].name.clone(), row })
    };
    columns.filter_map(source).collect()
}

/// The rows behind a change, a line each.
fn tell_rows(reason: &Reason, change: &Change) -> Vec<String> {
    let constant = change.fact.strip_prefix("with ");
    let first_column = reason.changes.iter().find(|change| change.fact.starts_with("column "));
    let own = first_column.is_some_and(|first| first == change);
    let wanted = |rows: &&ChangedRows| match &rows.constant {
        Some(name) => constant == Some(name),
        None => own,
    };
    let Some(found) = reason.rows.iter().find(wanted) else { return Vec::new() };
    let rows = &found.compared;
    let counts = [(rows.changed, "changed"), (rows.added, "new"), (rows.removed, "gone"), (rows.same, "the same")];
    let counts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let order = if rows.reordered { ", in another order" } else { "" };
    let mut told = vec![format!("  rows of stage `{}`: {}{order}", found.stage, counts.join(", "))];
    for row in &rows.examples {
        let cells: Vec<String> =
            row.cells.iter().map(|(name, old, new)| format!("{name} {} -> {}", short(old), short(new))).collect();
        told.push(format!("    {}: {}", row.row, cells.join("; ")));
    }
    let lists = [("new", &rows.came, rows.added), ("gone", &rows.went, rows.removed)];
    for (word, names, all) in lists.into_iter().filter(|(_, names, _)| !names.is_empty()) {
        let more = if all > names.len() { format!("; and {} more", all - names.len()) } else { String::new() };
        told.push(format!("    {word}: {}{more}", names.join("; ")));
    }
    told
}

/// A change in words.
fn tell(plan: &Plan, stage: usize, change: &Change, reason: &Reason) -> String {
    let node = &plan.nodes[stage];
    let (kind, name) = change.fact.split_once(' ').unwrap_or((change.fact.as_str(), ""));
    let value = |value: &Option<String>| value.as_ref().map_or("nothing".into(), |text| short(text));
    let arrow = format!("{} -> {}", value(&change.old), value(&change.new));
    match kind {
        "param" => format!("parameter `{name}`: {arrow}"),
        "file" => format!("content of the file `{name}`: {arrow}"),
        "with" => {
            let source = node.with.iter().find(|(own, _)| own == name).map(|(_, need)| plan.nodes[*need].name.as_str());
            format!("constant `{name}`: {arrow} (rows of stage `{}`)", source.unwrap_or("?"))
        }
        // units of several rows are known by their number of rows and a digest of each column
        "column" if name == "rows" && change.new.as_ref().is_some_and(|new| new.parse::<usize>().is_ok()) => {
            format!("number of rows: {arrow}")
        }
        "column" => match reason.sources.iter().find(|source| source.column == name) {
            Some(Source { stage, row: Some(row), .. }) => {
                format!("column `{name}`: {arrow} (written by stage `{stage}`, row {row})")
            }
            Some(source) => format!("column `{name}`: {arrow} (written by stage `{}`)", source.stage),
            None => format!("column `{name}`: {arrow}"),
        },
        _ => format!("{}: {arrow}", change.fact),
    }
}

/// Digests are shown by their beginning, long texts too; texts without the quotes they have in JSON.
pub fn short(text: &str) -> String {
    if let Ok(plain) = serde_json::from_str::<String>(text) {
        return short(&plain);
    }
    let is_digest = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match text {
        _ if is_digest => text[..12].into(),
        _ if text.chars().count() > 160 => text.chars().take(157).chain("...".chars()).collect(),
        _ => text.into(),
    }
}

/// The stage above that wrote a column.
fn writer(plan: &Plan, stage: usize, column: &str) -> Option<usize> {
    let mut at = *plan.nodes[stage].from.first()?;
    loop {
        let node = &plan.nodes[at];
        let has = |i: &usize| plan.nodes[*i].columns.iter().any(|known| known.name == column);
        let wrote = match &node.work {
            Work::Units(work) => work.def.writes.iter().any(|written| written.name == column),
            Work::Table(_) => false,
        };
        match node.from.iter().find(|from| has(from)) {
            Some(&from) if !wrote => at = from,
            _ => return Some(at),
        }
    }
}
