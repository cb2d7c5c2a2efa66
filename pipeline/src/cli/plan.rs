//! `effigy plan`.

use super::choice::Choice;
use super::remote::RemoteArgs;
use super::{DONE, RecipeArgs, host, load, print, remark};
use crate::foresee::foresee;
use crate::plan::Node;
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
    /// Print JSON: hits, misses and unknown for each stage and in total
    #[arg(long)]
    json: bool,
}

impl Plan {
    /// Shows it.
    pub fn run(self) -> Result<u8> {
        let loaded = load::load(&self.recipe)?;
        let selection = self.choice.selection(&loaded.plan)?;
        let mut cache = Cache::open(&self.recipe.workspace.workspace, host::VERSION)?;
        if let Some(remote) = self.remote.find()? {
            remote.ask(&mut cache)?;
        }
        tell(&loaded, &selection, &mut cache, self.json)
    }
}

/// Says what a run of these stages would do.
pub fn tell(loaded: &load::Loaded, selection: &Selection, cache: &mut Cache, json: bool) -> Result<u8> {
    let plan = &loaded.plan;
    let forecasts = foresee(plan, cache, &loaded.recipe, (None, selection), false)?;
    // files that had to be read need not be read again by the run
    cache.commit()?;
    cache.take_warnings().iter().for_each(|text| remark(text));
    let parts = selection.parts(plan);
    let taken = |(i, _): &(usize, &Node)| parts[*i] == Part::Taken;
    let nodes = || plan.nodes.iter().enumerate().filter(taken).map(|(i, node)| (node, &forecasts[i]));
    let sum = |get: fn(&crate::foresee::Forecast) -> usize| forecasts.iter().map(get).sum::<usize>();
    let (hits, misses, unknown) = (sum(|one| one.hits), sum(|one| one.misses), sum(|one| one.unknown));
    let far = sum(|one| one.far);
    if json {
        let stages: Vec<_> = nodes()
            .map(|(node, one)| {
                let until = one.until.map(|i| plan.nodes[i].name.as_str());
                json!({"stage": node.name, "kind": node.kind(), "hits": one.hits, "remote": one.far,
                       "misses": one.misses, "unknown": one.unknown, "until": until.filter(|until| *until != node.name)})
            })
            .collect();
        print(
            &json!({"stages": stages, "hits": hits, "remote": far, "misses": misses, "unknown": unknown}).to_string(),
        );
        return Ok(DONE);
    }
    let width = nodes().map(|(node, _)| node.name.len()).max().unwrap_or(0);
    for (node, one) in nodes() {
        let mut parts = Vec::new();
        if one.misses > 0 {
            parts.push(format!("{} to run", one.misses));
        }
        if one.hits > 0 {
            parts.push(format!("{} known{}", one.hits, there(one.far)));
        }
        if one.unknown > 0 {
            let until = one.until.map_or("", |i| plan.nodes[i].name.as_str());
            parts.push(format!("{} unknown until `{until}` has run", one.unknown));
        }
        if parts.is_empty() {
            let rows = match &one.table {
                crate::foresee::Foreseen::Whole(table) => format!("{} rows", table.len()),
                _ => "rows unknown yet".into(),
            };
            parts.push(rows);
        }
        print(&format!("{:width$}  {}", node.name, parts.join(", ")));
    }
    print(&format!("in all: {misses} to run, {hits} known{}, {unknown} unknown yet", there(far)));
    Ok(DONE)
}

/// So many of those that are known have to be fetched.
fn there(far: usize) -> String {
    if far == 0 { String::new() } else { format!(" ({far} of them in the remote)") }
}
