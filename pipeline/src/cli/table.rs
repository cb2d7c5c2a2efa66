//! `effigy table`: the tables of the last run's report as files of their own, and whether a committed file still holds
//! them.

use super::past::Past;
use super::report::last_run;
use super::{DONE, FAILED, RecipeArgs, load, print, remark};
use crate::error::{Place, Problem};
use crate::finished::{FinishedRun, ReportItem};
use crate::foresee::{Foreseen, foresee};
use crate::memory;
use crate::report::committed::differences;
use crate::report::splice::splice;
use crate::report::writers::{Format, Titled, write};
use crate::selection::Selection;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Write the tables of the last run's report: Markdown, CSV, LaTeX or HTML
#[derive(clap::Args)]
pub struct Table {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Only this table: its title, or its number in the report (may be given more than once)
    #[arg(long = "only", value_name = "TITLE|N")]
    only: Vec<String>,
    /// md, csv, tex or html [default: that of the file's name, else md]
    #[arg(long)]
    format: Option<String>,
    /// Write to this file instead of standard output. In a Markdown file that is there already, tables take the places
    /// of those below headings of the same titles, others are appended, and all other text stays; a file of another
    /// format is written anew
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    to: Option<PathBuf>,
    /// Compare with a committed file, which may hold other text too: exit code 1 and a diff if it has not these tables,
    /// or if the recipe has changed since the last run
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

impl Table {
    /// Writes or compares them.
    pub fn run(self) -> Result<u8> {
        let format = self.format()?;
        let run = match last_run(&self.recipe, "table")? {
            Ok(run) => run,
            Err(code) => return Ok(code),
        };
        let mut tables = Vec::new();
        let asked = run.report.iter().filter_map(|item| match item {
            ReportItem::Table(table) => Some(table.stage.as_str()),
            _ => None,
        });
        // programs read CSV, and want all of it
        let all = crate::report::tables(&run, format == Format::Csv)?.into_iter().zip(asked);
        let all = all.map(|(table, stage)| table.map_err(|why| format!("{why}\n  hint: {}", self.help(&run, stage))));
        for table in self.chosen(all.collect())? {
            match table {
                Ok(table) => tables.push(table),
                Err(why) => {
                    remark(&format!("error: {why}"));
                    return Ok(FAILED);
                }
            }
        }
        if let Some(file) = &self.check {
            if let Some(stage) = self.changed(&run)? {
                remark(&format!(
                    "error: the last run is not of the recipe as it is: stage `{stage}` would run or come out otherwise now\n  hint: effigy run {}",
                    self.recipe.typed(None, run.profile.as_deref())
                ));
                return Ok(FAILED);
            }
            return check(&run.recipe, &tables, file, format);
        }
        match &self.to {
            None => {
                print(write(&run.recipe, &tables, format)?.trim_end());
                self.warn_of_older(&run, "these tables have");
            }
            Some(file) => {
                let text = match kept(file, format)? {
                    Some(kept) => splice(&tables, &kept),
                    None => write(&run.recipe, &tables, format)?,
                };
                if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                    std::fs::create_dir_all(folder)
                        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
                }
                memory::write(file, text.as_bytes())?;
                self.warn_of_older(&run, &format!("{} has", file.display()));
                remark(&format!("tables: {}", file.display()));
            }
        }
        Ok(DONE)
    }

    /// Warns if a run would make other tables now.
    fn warn_of_older(&self, run: &FinishedRun, who: &str) {
        // while a run has the workspace nobody can tell
        if let Ok(Some(stage)) = self.changed(run) {
            let with = self.overrides_of_last();
            let which = match &with[..] {
                [] => "not of the whole recipe as it is".to_string(),
                with => format!("with {}", with.join(" and ")),
            };
            remark(&format!(
                "warning: {who} what the last run left, which was {which}: stage `{stage}` would run or come out otherwise now\n  hint: effigy run {}",
                self.recipe.typed(None, run.profile.as_deref())
            ));
        }
    }

    /// What the last run was called with, if nothing is asked for now.
    fn overrides_of_last(&self) -> Vec<String> {
        let Ok(loaded) = load::load(&self.recipe) else { return Vec::new() };
        match self.recipe.overrides().is_empty() {
            true => Past::new(&self.recipe, &loaded).run(0).map_or_else(Vec::new, |last| last.overrides.clone()),
            false => Vec::new(),
        }
    }

    /// What to do about a table that cannot be had: a run does not help if its stage is done.
    fn help(&self, run: &FinishedRun, stage: &str) -> String {
        let profile = run.profile.as_deref();
        match run.nodes.iter().any(|node| node.name == stage && node.manifest.is_some()) {
            true => format!("`effigy show {}` shows what its stage has", self.recipe.typed(Some(stage), profile)),
            false => format!("effigy run {}", self.recipe.typed(None, profile)),
        }
    }

    /// A stage that tables are of, and that a run would do again; or one before it.
    fn changed(&self, run: &FinishedRun) -> Result<Option<String>> {
        let loaded = load::load(&self.recipe)?;
        let nodes = &loaded.plan.nodes;
        let asked = run.report.iter().filter_map(|item| match item {
            ReportItem::Table(table) => nodes.iter().position(|node| node.name == table.stage),
            _ => None,
        });
        let selection = Selection { only: asked.collect(), ..Selection::default() };
        let mut cache = self.recipe.workspace.open()?;
        let forecasts = foresee(&loaded.plan, &mut cache, &loaded.recipe, (None, &selection), false)?;
        let ran =
            |i: usize| run.nodes.iter().find(|node| node.name == nodes[i].name).and_then(|node| node.manifest.as_ref());
        let stale = (0..nodes.len()).find(|&i| {
            let forecast = &forecasts[i];
            let other = selection.only.contains(&i)
                && !matches!((&forecast.table, ran(i)), (Foreseen::Whole(table), Some(ran)) if table.digest() == ran.digest());
            forecast.misses + forecast.equal > 0 || other
        });
        Ok(stale.map(|i| nodes[i].name.clone()))
    }

    fn format(&self) -> Result<Format> {
        let names = || Format::ALL.iter().map(|(name, _)| *name);
        if let Some(asked) = &self.format {
            let found = Format::ALL.into_iter().find(|(name, _)| name == asked).map(|(_, format)| format);
            let unknown = || Problem::at(&Place::command_line(), format!("there is no format `{asked}`"));
            return Ok(found.ok_or_else(|| unknown().did_you_mean(asked, names()))?);
        }
        let Some(file) = self.to.as_ref().or(self.check.as_ref()) else { return Ok(Format::Markdown) };
        let message = format!("the name of {} does not tell how tables are written in it", file.display());
        let hint = format!("`--format` says it: {}", names().collect::<Vec<_>>().join(", "));
        Ok(Format::of(file).ok_or_else(|| Problem::at(&Place::command_line(), message).hint(hint))?)
    }

    /// The tables asked for, in the order of the report.
    fn chosen(&self, all: Vec<Result<Titled, String>>) -> Result<Vec<Result<Titled, String>>> {
        let title = |table: &Result<Titled, String>| match table {
            Ok(table) => table.title.clone(),
            // a sentence about it begins with its title
            Err(why) => why.split('`').nth(1).unwrap_or_default().to_string(),
        };
        let titles: Vec<String> = all.iter().map(title).collect();
        if all.is_empty() {
            let hint = "`report: [{ table: STAGE, by: [COLUMN], mean: [COLUMN] }]` in the recipe makes one";
            return Err(Problem::at(&Place::command_line(), "the report of this recipe has no tables")
                .hint(hint)
                .into());
        }
        let mut wanted = vec![self.only.is_empty(); all.len()];
        for name in &self.only {
            let number = name.parse().ok().filter(|n| (1..=all.len()).contains(n)).map(|n: usize| n - 1);
            let found: Vec<usize> = match number {
                Some(at) => vec![at],
                None => (0..all.len()).filter(|&at| titles[at] == *name).collect(),
            };
            if found.is_empty() {
                let problem = Problem::at(&Place::command_line(), format!("the report has no table `{name}`"));
                return Err(problem.did_you_mean(name, titles.iter().map(String::as_str)).into());
            }
            found.into_iter().for_each(|at| wanted[at] = true);
        }
        Ok(all.into_iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(table, _)| table).collect())
    }
}

/// The text of a file whose tables alone are to be replaced: of one in Markdown, if it is there.
fn kept(file: &Path, format: Format) -> Result<Option<String>> {
    if format != Format::Markdown {
        return Ok(None);
    }
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let message = format!("cannot read {}, which is to be kept but for its tables: {error}", file.display());
            Err(Problem::at(&Place::command_line(), message)
                .hint("`--to` can name a file that is not there yet")
                .into())
        }
    }
}

/// Compares with a file; says what differs.
fn check(title: &str, tables: &[Titled], file: &Path, format: Format) -> Result<u8> {
    let committed = std::fs::read_to_string(file).map_err(|error| {
        Problem::at(&Place::command_line(), format!("cannot read {}: {error}", file.display()))
            .hint("`effigy table RECIPE --to FILE` writes it")
    })?;
    let differences = differences(title, tables, &committed, format)?;
    if differences.is_empty() {
        let count = if tables.len() == 1 { "the table".into() } else { format!("all {} tables", tables.len()) };
        print(&format!(
            "{}: {count} as the last run has {}",
            file.display(),
            if tables.len() == 1 { "it" } else { "them" }
        ));
        return Ok(DONE);
    }
    differences.iter().for_each(|line| print(line));
    let anew = match format {
        Format::Markdown => "`--to` puts the tables in their places there and leaves all other text",
        _ => "`--to` writes the whole file anew, without any text around the tables",
    };
    remark(&format!(
        "error: {} does not hold what the last run gives\n  hint: look why; if it is meant to change, {anew}; then commit it",
        file.display()
    ));
    Ok(FAILED)
}
