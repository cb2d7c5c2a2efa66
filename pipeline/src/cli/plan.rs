//! `effigy plan`.

use super::{DONE, RecipeArgs, host, load, print};
use crate::foresee::foresee;
use anyhow::Result;
use cache::Cache;
use serde_json::json;

/// Show what a run would do: units known, units to run, units nobody can tell yet
#[derive(clap::Args)]
pub struct Plan {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Print JSON: hits, misses and unknown for each stage and in total
    #[arg(long)]
    json: bool,
}

impl Plan {
    /// Shows it.
    pub fn run(self) -> Result<u8> {
        let loaded = load::load(&self.recipe)?;
        let plan = &loaded.plan;
        let mut cache = Cache::open(&self.recipe.workspace.workspace, host::VERSION)?;
        let forecasts = foresee(plan, &mut cache, &loaded.recipe, None, false)?;
        // files that had to be read need not be read again by the run
        cache.commit()?;
        let sum = |get: fn(&crate::foresee::Forecast) -> usize| forecasts.iter().map(get).sum::<usize>();
        let (hits, misses, unknown) = (sum(|one| one.hits), sum(|one| one.misses), sum(|one| one.unknown));
        if self.json {
            let stages: Vec<_> = plan
                .nodes
                .iter()
                .zip(&forecasts)
                .map(|(node, one)| {
                    let until = one.until.map(|i| plan.nodes[i].name.as_str());
                    json!({"stage": node.name, "kind": node.kind(), "hits": one.hits, "misses": one.misses,
                           "unknown": one.unknown, "until": until.filter(|until| *until != node.name)})
                })
                .collect();
            print(&json!({"stages": stages, "hits": hits, "misses": misses, "unknown": unknown}).to_string());
            return Ok(DONE);
        }
        let width = plan.nodes.iter().map(|node| node.name.len()).max().unwrap_or(0);
        for (node, one) in plan.nodes.iter().zip(&forecasts) {
            let mut parts = Vec::new();
            if one.misses > 0 {
                parts.push(format!("{} to run", one.misses));
            }
            if one.hits > 0 {
                parts.push(format!("{} known", one.hits));
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
        print(&format!("in all: {misses} to run, {hits} known, {unknown} unknown yet"));
        Ok(DONE)
    }
}
