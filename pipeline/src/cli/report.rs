//! `effigy report`: the report of the last run once more, without running anything.

use super::record::{self, Left};
use super::{DONE, RecipeArgs, host, load, print};
use crate::finished::{FinishedNode, FinishedRun, NodeState};
use crate::memory::Store;
use anyhow::Result;
use std::cell::LazyCell;
use std::collections::HashMap;
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
    let loaded = load::load(recipe)?;
    let plan = &loaded.plan;
    let workspace = &recipe.workspace.workspace;
    let store = Store::new(workspace);
    let memory = store.load(&loaded.recipe, plan.spec.profile.as_deref());
    let records = LazyCell::new(|| record::all(workspace));
    let left: Vec<Option<Left>> =
        plan.nodes.iter().map(|node| record::left(recipe, plan, &memory, &records, &node.name)).collect();
    if left.iter().all(Option::is_none) {
        let message = format!("the recipe {} has not been run yet", plan.spec.file);
        return Ok(Err(recipe.not_run(&message, verb, None, &loaded, &store)));
    }
    let last = records.iter().rfind(|one| one.is_of(plan, &recipe.overrides()));
    let node = |i: usize| -> FinishedNode {
        let name = &plan.nodes[i].name;
        let remembered = left[i].as_ref();
        let told = last.and_then(|last| last.stages.iter().find(|stage| stage.name == *name));
        FinishedNode {
            state: if remembered.is_some() { NodeState::Done } else { NodeState::Skipped },
            executed: told.map_or(0, |told| told.executed),
            cached: told.map_or(0, |told| told.cached),
            failed: told.map_or(0, |told| told.failed),
            seconds: told.map_or(0.0, |told| told.seconds),
            worth: remembered.map_or(0.0, |remembered| remembered.worth),
            key: remembered.and_then(|left| left.head).map_or(String::new(), |head| head.short()),
            manifest: remembered.and_then(|remembered| store.table(&remembered.table)),
            ..plan.describe(i)
        }
    };
    let files: HashMap<manifests::Digest, PathBuf> =
        memory.files.iter().map(|(path, _, digest)| (*digest, path.clone())).collect();
    let blobs = cache::Blobs::open(&workspace.join("blobs"))?;
    Ok(Ok(FinishedRun {
        recipe: plan.spec.name.clone(),
        file: plan.spec.file.clone(),
        text: plan.spec.text.clone(),
        profile: plan.spec.profile.clone(),
        params: plan.spec.shown_params(),
        nodes: (0..plan.nodes.len()).map(node).collect(),
        report: plan.report.clone(),
        workspace: workspace.canonicalize().unwrap_or(workspace.clone()),
        started: last.map_or(0, |last| last.started),
        seconds: last.map_or(0.0, |last| last.seconds),
        // where that run was, whatever is checked out by now
        host: last.map_or_else(|| host::info(&plan.spec.dir, &plan.providers), record::Record::host),
        blob_path: Box::new(move |blob| match blobs.has(blob) {
            true => Some(blobs.path(&blob.digest)),
            false => files.get(&blob.digest).cloned(),
        }),
    }))
}
