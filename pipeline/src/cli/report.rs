//! `effigy report`: the report of the last run once more, without running anything.

use super::past::{Found, Past};
use super::{DONE, RecipeArgs, host, load, print, remark};
use crate::finished::{FinishedNode, FinishedRun, NodeState};
use crate::memory::Places;
use crate::record::{Record, option_of};
use anyhow::Result;
use std::path::PathBuf;

/// Write the report of the last run once more
#[derive(clap::Args)]
pub struct Report {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Folder for the report
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
}

impl Report {
    /// Writes it.
    pub fn run(self) -> Result<u8> {
        let run = match last_run(&self.recipe, "report")? {
            Ok(run) => run,
            Err(code) => return Ok(code),
        };
        let written = crate::report::write(&run, &self.out)?;
        print(&format!("report: {}", written.html.display()));
        Ok(DONE)
    }
}

/// The last run of a recipe; an exit code if there was none, which was said then. `verb` is the command that asks.
pub fn last_run(recipe: &RecipeArgs, verb: &str) -> Result<Result<FinishedRun, u8>> {
    let asked = load::load(recipe)?;
    // stages are told with the parameters that the run had, if none are asked for
    let then = Past::new(recipe, &asked).run(0).map(|last| last.overrides.clone()).unwrap_or_default();
    let then = if recipe.overrides().is_empty() { then } else { Vec::new() };
    let (set, params) = then.into_iter().partition(|text| option_of(text) == "--set");
    let as_then = RecipeArgs { params, set, ..recipe.clone() };
    let loaded = match as_then.overrides().is_empty() {
        true => asked,
        // the recipe may not take them any more
        false => load::load(&as_then).unwrap_or(asked),
    };
    let plan = &loaded.plan;
    let workspace = &recipe.workspace.workspace;
    let mut past = Past::new(recipe, &loaded);
    let found: Vec<Found> = plan.nodes.iter().map(|node| past.stage(&node.name)).collect();
    if found.iter().all(|found| matches!(found, Found::Nothing)) {
        let message = format!("the recipe {} has not been run yet", plan.spec.file);
        return Ok(Err(recipe.not_run(&message, verb, None, &loaded, &past.store)));
    }
    for (node, found) in plan.nodes.iter().zip(&found) {
        if let Found::Lost(lost) = found
            && lost.state == NodeState::Failed
        {
            let log = past.log_of(lost).map_or(String::new(), |log| format!("; {log}"));
            remark(&format!("{}{log}", past.sentence(&node.name, lost)));
        }
    }
    let last = past.run(0).cloned();
    let node = |(i, found): (usize, &Found)| -> FinishedNode {
        let told = last.as_ref().and_then(|last| last.stage(&plan.nodes[i].name));
        let (state, left) = match found {
            Found::Rows(left) => (NodeState::Done, Some(left)),
            Found::Lost(lost) => (lost.state, None),
            Found::Nothing => (NodeState::Skipped, None),
        };
        FinishedNode {
            state,
            executed: told.map_or(0, |told| told.executed),
            cached: told.map_or(0, |told| told.cached),
            failed: told.map_or(0, |told| told.failed),
            seconds: told.map_or(0.0, |told| told.seconds),
            worth: left.map_or(0.0, |left| left.worth),
            key: left.and_then(|left| left.head).map_or(String::new(), |head| head.short()),
            manifest: left.and_then(|left| past.store.table(&left.table)),
            ..plan.describe(i)
        }
    };
    let nodes = found.iter().enumerate().map(node).collect();
    let places = Places::new(workspace, past.memory.clone())?;
    Ok(Ok(FinishedRun {
        recipe: plan.spec.name.clone(),
        file: plan.spec.file.clone(),
        text: plan.spec.text.clone(),
        profile: plan.spec.profile.clone(),
        // as they were for the run, whatever is asked for by now
        params: last.as_ref().map_or_else(|| plan.spec.shown_params(), |last| last.params.clone()),
        nodes,
        report: plan.report.clone(),
        workspace: workspace.canonicalize().unwrap_or(workspace.clone()),
        started: last.as_ref().map_or(0, |last| last.started),
        seconds: last.as_ref().map_or(0.0, |last| last.seconds),
        warnings: last.as_ref().map_or_else(Vec::new, |last| last.warnings.clone()),
        // where that run was, whatever is checked out by now
        host: last.as_ref().map_or_else(|| host::info(&plan.spec.dir, &plan.providers), Record::host),
        blob_path: Box::new(move |blob| places.find(blob)),
    }))
}
