//! `effigy plan`.

use super::choice::Choice;
use super::remote::RemoteArgs;
use super::{DONE, RecipeArgs, WRONG, load, print, remark};
use crate::foresee::{Forecast, foresee_despite};
use crate::hints::hint_of;
use crate::plan::Node;
use crate::run::sentence;
use crate::selection::{Part, Selection};
use anyhow::Result;
use cache::Cache;
use serde_json::json;

/// Show what a run would do: units known, units to run, units nobody can tell yet
#[derive(clap::Args)]
pub struct Plan {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    remote: RemoteArgs,
    /// Print JSON: hits, misses, equal (to a miss, and computed with it) and unknown for each stage and in total
    #[arg(long)]
    json: bool,
}

impl Plan {
    /// Shows it.
    pub fn run(self) -> Result<u8> {
        let loaded = load::load(&self.recipe)?;
        let selection = self.choice.selection(&loaded.plan)?;
        let mut cache = self.recipe.workspace.open()?;
        if let Some(remote) = self.remote.find()? {
            remote.ask(&mut cache)?;
        }
        tell(&loaded, &selection, &mut cache, self.json)
    }
}

/// Says what a run of these stages would do.
pub fn tell(loaded: &load::Loaded, selection: &Selection, cache: &mut Cache, json: bool) -> Result<u8> {
    let plan = &loaded.plan;
    let forecasts = foresee_despite(plan, cache, &loaded.recipe, (None, selection), false)?;
    // files that had to be read need not be read again by the run
    cache.commit()?;
    cache.take_warnings().iter().for_each(|text| remark(text));
    let parts = selection.parts(plan);
    let taken = |(i, _): &(usize, &Node)| parts[*i] == Part::Taken;
    let nodes = || plan.nodes.iter().enumerate().filter(taken).map(|(i, node)| (node, &forecasts[i]));
    let sum = |get: fn(&Forecast) -> usize| forecasts.iter().map(get).sum::<usize>();
    let (hits, misses, unknown) = (sum(|one| one.hits), sum(|one| one.misses), sum(|one| one.unknown));
    let (far, same) = (sum(|one| one.far), sum(|one| one.equal));
    if json {
        let stages: Vec<_> = nodes()
            .map(|(node, one)| {
                let until = one.until.map(|i| plan.nodes[i].name.as_str());
                json!({"stage": node.name, "kind": node.kind(), "hits": one.hits, "remote": one.far,
                       "misses": one.misses, "equal": one.equal, "unknown": one.unknown,
                       "until": until.filter(|until| *until != node.name),
                       "error": one.failed.as_ref().map(sentence)})
            })
            .collect();
        print(
            &json!({"stages": stages, "hits": hits, "remote": far, "misses": misses, "equal": same, "unknown": unknown})
                .to_string(),
        );
        return Ok(complain(&forecasts));
    }
    let width = nodes().map(|(node, _)| node.name.len()).max().unwrap_or(0);
    for (node, one) in nodes() {
        let mut parts = Vec::new();
        if one.misses > 0 {
            parts.push(format!("{} to run", one.misses));
        }
        if one.equal > 0 {
            parts.push(equal(one.equal));
        }
        if one.hits > 0 {
            parts.push(format!("{} known{}", one.hits, there(one.far)));
        }
        let until = one.until.map_or("", |i| plan.nodes[i].name.as_str());
        if one.failed.is_some() {
            parts.push("fails".into());
        } else if one.until.is_some_and(|i| forecasts[i].failed.is_some()) {
            parts.push(format!("unknown, because `{until}` fails"));
        } else if one.unknown > 0 {
            parts.push(format!("{} unknown until `{until}` has run", one.unknown));
        }
        if parts.is_empty() {
            let rows = match &one.table {
                crate::foresee::Foreseen::Whole(table) => super::progress::rows(table.len()),
                _ => "rows unknown yet".into(),
            };
            parts.push(rows);
        }
        print(&format!("{:width$}  {}", node.name, parts.join(", ")));
    }
    let same = if same > 0 { format!(", {}", equal(same)) } else { String::new() };
    print(&format!("in all: {misses} to run{same}, {hits} known{}, {unknown} unknown yet", there(far)));
    Ok(complain(&forecasts))
}

/// Says which stages fail before anything runs; gives the exit code that goes with it.
fn complain(forecasts: &[Forecast]) -> u8 {
    let mut code = DONE;
    for error in forecasts.iter().filter_map(|one| one.failed.as_ref()) {
        let hint = hint_of(error).unwrap_or_else(|| "`effigy show RECIPE STAGE` shows the rows that it takes".into());
        remark(&format!("error: {}\n  hint: {hint}", sentence(error)));
        code = WRONG;
    }
    code
}

/// So many units do not run, because each is equal to one that does.
pub fn equal(n: usize) -> String {
    if n == 1 { "1 equal to one that runs".into() } else { format!("{n} equal to some that run") }
}

/// So many of those that are known have to be fetched.
fn there(far: usize) -> String {
    if far == 0 { String::new() } else { format!(" ({far} of them in the remote)") }
}
