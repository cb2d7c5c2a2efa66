//! `effigy graph`: the stages of a recipe as a diagram.

use super::{DONE, RecipeArgs, load, print};
use crate::foresee::{Forecast, Foreseen, foresee};
use crate::graph::{self, Stage, State};
use crate::plan::{Plan, Work};
use crate::record;
use crate::selection::Selection;
use anyhow::Result;

/// Draw the stages: what leads where, coloured by what is known, what has to run and what failed
#[derive(clap::Args)]
pub struct Graph {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    format: Format,
}

/// In which language.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For Markdown on GitHub and GitLab
    Mermaid,
    /// For Graphviz
    Dot,
    /// A picture, as in reports
    Svg,
}

impl Graph {
    /// Draws it.
    pub fn run(self) -> Result<u8> {
        let loaded = load::load(&self.recipe)?;
        let plan = &loaded.plan;
        let workspace = &self.recipe.workspace.workspace;
        let mut cache = self.recipe.workspace.open()?;
        let forecasts = foresee(plan, &mut cache, &loaded.recipe, (None, &Selection::default()), false)?;
        // files that had to be read need not be read again by the run
        cache.commit()?;
        let records = record::all(workspace);
        let last = records.iter().rfind(|one| one.is_of(plan, &loaded.recipe, &[]));
        let failed = |name: &str| {
            let mut told = last.into_iter().flat_map(|last| &last.stages);
            told.any(|stage| stage.name == name && stage.failed > 0)
        };
        let stages: Vec<Stage> =
            forecasts.iter().enumerate().map(|(i, one)| stage(plan, i, one, failed(&plan.nodes[i].name))).collect();
        let text = match self.format {
            Format::Mermaid => graph::mermaid(&stages),
            Format::Dot => graph::dot(&plan.spec.name, &stages),
            Format::Svg => graph::svg(&stages),
        };
        print(text.trim_end());
        Ok(DONE)
    }
}

fn stage(plan: &Plan, i: usize, forecast: &Forecast, failed: bool) -> Stage {
    let node = &plan.nodes[i];
    let state = match (&node.work, forecast.misses + forecast.equal, forecast.unknown) {
        (Work::Units(_), 1.., _) if failed => State::Failed,
        (Work::Units(_), 1.., _) => State::ToRun,
        (Work::Units(_), 0, 0) => State::Known,
        (Work::Table(_), ..) if matches!(forecast.table, Foreseen::Whole(_)) => State::Known,
        _ => State::Unknown,
    };
    let counts = [
        (forecast.misses, "to run"),
        (forecast.equal, "equal to what runs"),
        (forecast.hits, "known"),
        (forecast.unknown, "unknown"),
    ];
    let parts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let line = match &forecast.table {
        _ if !parts.is_empty() => parts.join(" · "),
        Foreseen::Whole(table) if table.len() == 1 => "1 row".into(),
        Foreseen::Whole(table) => format!("{} rows", table.len()),
        _ => "rows unknown yet".into(),
    };
    Stage {
        name: node.name.clone(),
        kind: node.kind().into(),
        line,
        state,
        from: node.from.clone(),
        with: node.with.clone(),
    }
}
