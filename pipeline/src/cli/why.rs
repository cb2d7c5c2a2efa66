//! `effigy why`.

use super::{DONE, RecipeArgs, host, load, print, progress};
use crate::error::{Place, Problem};
use crate::foresee::foresee;
use crate::plan::{Plan, Work};
use crate::selection::Selection;
use crate::why::{Change, History, Reason};
use anyhow::Result;
use cache::Cache;
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

/// So many units of one kind are named.
const NAMED: usize = 3;

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
        let forecast = loop {
            let mut forecasts = foresee(plan, cache, &loaded.recipe, (Some(stage), &Selection::default()), true)?;
            let forecast = forecasts.pop().expect("there is one for each stage");
            match forecast.until {
                // what decides it is what runs before it
                Some(until) if forecast.units.is_none() && until != stage => stage = until,
                _ => break forecast,
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
            let told = reason.changes.iter().map(|change| tell(plan, stage, change)).collect();
            alike.entry((reason.known, reason.first, told)).or_default().push(reason);
        }
        for ((known, first, told), units) in alike {
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
    }
}

/// A change in words.
fn tell(plan: &Plan, stage: usize, change: &Change) -> String {
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
        "column" => match writer(plan, stage, name) {
            Some(writer) => format!("column `{name}`: {arrow} (written by stage `{writer}`)"),
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
fn writer(plan: &Plan, stage: usize, column: &str) -> Option<String> {
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
            _ => return Some(node.name.clone()),
        }
    }
}
