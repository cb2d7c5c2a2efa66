//! `effigy why`.

use super::diff::run_at;
use super::plan::equal;
use super::{DONE, RecipeArgs, host, load, print, progress, say};
use crate::compare::{Naming, compare};
use crate::error::{Place, Problem};
use crate::foresee::{Forecast, foresee};
use crate::memory::Store;
use crate::plan::{Plan, Work};
use crate::record::{self, Record};
use crate::run::Prepared;
use crate::selection::Selection;
use crate::stage::UnitStage;
use crate::why::{Asked, Change, ChangedRows, History, Reason, Source, earlier_rows};
use anyhow::Result;
use cache::Cache;
use manifests::Manifest;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};

/// Tell why a stage has to run, or ran last: which parameter, file, column or version changed
#[derive(clap::Args)]
pub struct Why {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// The stage
    stage: String,
    /// Only these units: by number, from 0, by a part of the name (`in/7.txt`), or by values of any columns
    /// (`timestep=1`)
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
/// Of the units that there are so many are named to somebody who asks for another.
const OFFERED: usize = 8;

impl Why {
    /// Tells it.
    pub fn run(self) -> Result<u8> {
        let loaded = load::load(&self.recipe)?;
        let plan = &loaded.plan;
        let stages = plan.stages(&self.stage)?;
        let mut cache = self.recipe.workspace.open()?;
        // of a stage that varies, one after the other; with `--json` an object a line
        stages.into_iter().try_for_each(|stage| self.one(&loaded, stage, &mut cache))?;
        Ok(DONE)
    }

    fn one(&self, loaded: &load::Loaded, wanted: usize, cache: &mut Cache) -> Result<()> {
        let plan = &loaded.plan;
        let name = |i: usize| &plan.nodes[i].name;
        let mut stage = wanted;
        loop {
            let mut forecasts = foresee(plan, cache, &loaded.recipe, (Some(stage), &Selection::default()), true)?;
            let forecast = forecasts.pop().expect("there is one for each stage");
            let open = forecast.units.is_none() || forecast.unknown > 0;
            let until = forecast.until.filter(|until| open && *until != stage);
            let none = forecast.units.as_ref().is_none_or(|(_, known)| known.is_empty());
            if let (true, Some(until)) = (none, until) {
                // what decides it is what runs before it
                stage = until;
                continue;
            }
            if stage != wanted && !self.json {
                let (asked, until) = (name(wanted), name(stage));
                print(&format!("nobody can tell about `{asked}` until `{until}` has run; about that:"));
            }
            self.explain(plan, (wanted, stage), &forecasts, &forecast, cache)?;
            match until {
                // the rest of its units wait for that
                Some(until) if self.row.is_none() && !self.json => stage = until,
                _ => return Ok(()),
            }
        }
    }

    /// Tells of the units of a stage: of the one that is `wanted`, or one before it.
    fn explain(
        &self,
        plan: &Plan,
        (wanted, stage): (usize, usize),
        forecasts: &[Forecast],
        forecast: &Forecast,
        cache: &Cache,
    ) -> Result<()> {
        let node = &plan.nodes[stage];
        let (Work::Units(work), Some((prepared, known))) = (&node.work, &forecast.units) else {
            print(&format!(
                "stage `{}` is evaluated by the engine itself, each time anew: there is nothing to know",
                node.name
            ));
            return Ok(());
        };
        let asked = Asked::new(work, prepared);
        let units = match &self.row {
            Some(row) if stage == wanted => chosen(&asked, &node.name, row)?,
            _ => (0..asked.count()).collect(),
        };
        let mut history = History::read(cache.root(), &node.name, &asked)?;
        let mut sources = Sources { plan, stage, prepared, written: HashMap::new() };
        let mut reasons: Vec<(usize, Reason)> = Vec::with_capacity(units.len());
        for unit in units {
            let mut reason = history.reason(&asked, unit, known[unit]);
            reason.sources = sources.of(unit, &reason);
            reasons.push((unit, reason));
        }
        let past = Past { records: record::all(cache.root()), store: Store::new(cache.root()) };
        // each comparison reads tables: of a few units that is enough
        for (unit, reason) in reasons.iter_mut().filter(|(_, reason)| !reason.changes.is_empty()).take(COMPARED) {
            reason.rows = past.rows(plan, stage, work, (prepared, *unit), forecasts, reason)?;
        }
        let reasons: Vec<Reason> = reasons.into_iter().map(|(_, reason)| reason).collect();
        let until = forecast.until.filter(|until| *until != stage).map(|until| plan.nodes[until].name.as_str());
        if self.json {
            print(
                &json!({"stage": node.name, "asked": plan.nodes[wanted].name, "hits": forecast.hits,
                        "misses": forecast.misses, "equal": forecast.equal, "unknown": forecast.unknown, "until": until,
                        "units": reasons})
                .to_string(),
            );
            return Ok(());
        }
        let unknown = match (forecast.unknown, until) {
            (0, _) => String::new(),
            (n, Some(until)) => format!(", {n} unknown until `{until}` has run"),
            (n, None) => format!(", {n} unknown"),
        };
        let known = reasons.iter().filter(|reason| reason.known).count();
        let to_run = match forecast.equal {
            // of a few nobody is told how many of them are equal
            n if n > 0 && reasons.len() == asked.count() => format!("{} to run, {}", forecast.misses, equal(n)),
            _ => format!("{} to run", reasons.len() - known),
        };
        say(&format!("stage `{}`: {to_run}, {known} known{unknown}", node.name));
        tell_all(plan, stage, &reasons);
        Ok(())
    }
}

/// Tells of the units of a stage, why each is known or not; those with the same reason together.
fn tell_all(plan: &Plan, stage: usize, reasons: &[Reason]) {
    let mut alike: BTreeMap<(bool, bool, bool, Vec<String>), Vec<&Reason>> = BTreeMap::new();
    for reason in reasons {
        let mut told: Vec<String> = Vec::new();
        for change in &reason.changes {
            told.push(tell(plan, stage, change, reason));
            told.extend(tell_rows(reason, change));
        }
        alike.entry((reason.known, reason.first, reason.failed.is_none(), told)).or_default().push(reason);
    }
    let more = alike.len().saturating_sub(TOLD);
    for ((known, first, _, told), units) in alike.into_iter().take(TOLD) {
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
        let mut logs: Vec<&str> = Vec::new();
        for log in units.iter().filter_map(|reason| reason.failed.as_deref()) {
            // equal units have failed as one
            if logs.len() < NAMED && !logs.contains(&log) {
                logs.push(log);
            }
        }
        let failed = (!logs.is_empty()).then(|| format!("it failed last time; log: {}", logs.join(", ")));
        match (known, first, failed) {
            (false, true, failed) => {
                say(&format!("  to run: {names}"));
                say(&format!("    {}", failed.as_deref().unwrap_or("nothing like it has been run before")));
            }
            (false, false, failed) => {
                say(&format!("  to run: {names}"));
                failed.iter().for_each(|failed| say(&format!("    {failed}")));
                say(&format!("    changed{since}:"));
            }
            (true, true, _) => say(&format!("  known: {names}{computed}")),
            (true, false, _) => {
                say(&format!("  known: {names}{computed}"));
                say(&format!("    it was run because of what had changed{since}:"));
            }
        }
        if !first && told.is_empty() {
            print("      nothing: its record or one of its files is gone");
        }
        told.iter().for_each(|line| say(&format!("      {line}")));
    }
    if more > 0 {
        print(&format!("  and {more} more reasons; name a ROW to see its own, or have them all with --json"));
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

/// The units of a stage that are asked for.
fn chosen(asked: &Asked<'_>, stage: &str, row: &str) -> Result<Vec<usize>> {
    let units = asked.meant(row);
    if units.is_empty() {
        let names: Vec<String> = (0..asked.count().min(OFFERED)).map(|unit| asked.name(unit)).collect();
        let problem = Problem::at(&Place::command_line(), format!("stage `{stage}` has no unit `{row}`"));
        let problem = problem.which_row(row, &names, asked.count());
        return Err(problem.or_hint("it has no units, because its input has no rows").into());
    }
    Ok(units)
}

/// Where the columns that changed were written: the stage, and its row as far as it is one. Found once for all units.
struct Sources<'a> {
    plan: &'a Plan,
    stage: usize,
    prepared: &'a Prepared,
    /// The stage that wrote each column, its columns, and how its rows are called.
    written: HashMap<String, Option<(usize, Manifest, Naming)>>,
}

impl Sources<'_> {
    fn of(&mut self, unit: usize, reason: &Reason) -> Vec<Source> {
        let rows = self.prepared.units.rows(unit);
        let mut sources = Vec::new();
        for column in reason.changes.iter().filter_map(|change| change.fact.strip_prefix("column ")) {
            if !self.written.contains_key(column) {
                let found = self.find(column);
                self.written.insert(column.into(), found);
            }
            if let Some((wrote, table, naming)) = &self.written[column] {
                let row = if let [row] = rows { Some(naming.name(table, *row)) } else { None };
                sources.push(Source { column: column.into(), stage: self.plan.nodes[*wrote].name.clone(), row });
            }
        }
        sources
    }

    fn find(&self, column: &str) -> Option<(usize, Manifest, Naming)> {
        let wrote = writer(self.plan, self.stage, column)?;
        let known = |name: &&str| self.plan.nodes[wrote].columns.iter().any(|column| column.name == **name);
        let named = self.prepared.named();
        let names: Vec<&str> = named.schema().names().into_iter().filter(known).collect();
        let table = named.select(&names).ok()?;
        let naming = Naming::of(&table);
        Some((wrote, table, naming))
    }
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
