//! `effigy status` and `effigy log`: what runs there were, and the one that is on. Of a run that is over, stages that
//! are done are counted alone.

use super::{DONE, WorkspaceArgs, host, live, load, print, progress};
use crate::command::quote;
use crate::error::{Place, Problem};
use crate::finished::NodeState;
use crate::record::{self, Record, StageRecord};
use crate::run::logs;
use anyhow::Result;
use cache::layout;
use serde_json::json;
use std::path::Path;

/// Show the last run of each recipe, and the one in progress
#[derive(clap::Args)]
pub struct Status {
    /// Only this recipe
    recipe: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// List the runs of this workspace, or show what a stage has written while it worked
#[derive(clap::Args)]
pub struct Log {
    /// Show the logs of this stage, as the run that is on or the last one that had work for it has left them
    stage: Option<String>,
    /// Only that of this row of its input, from 0 (of a stage with groups: of this group)
    row: Option<usize>,
    /// At most so many, the latest
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Print a JSON object for each run
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// Where we are; files are told from there.
fn here() -> std::path::PathBuf {
    std::env::current_dir().unwrap_or_default()
}

impl Status {
    /// Shows it.
    pub fn run(self) -> Result<u8> {
        let workspace = &self.workspace.workspace;
        let current = live::current(workspace);
        let mut latest: Vec<Record> = Vec::new();
        let records = record::all(workspace);
        let open = record::unended(workspace, &records, &here())?;
        let is_asked = |one: &Record| self.recipe.as_ref().is_none_or(|name| is_meant(one, name));
        for one in records.into_iter().filter(is_asked) {
            latest.retain(|old| !old.is_like(&one));
            latest.push(one);
        }
        let mut unended: Vec<Record> = Vec::new();
        for one in open.into_iter().filter(is_asked) {
            // a later run of the recipe has gone on with it
            if !latest.iter().any(|last| last.is_like(&one) && last.started > one.started) {
                unended.retain(|old| !old.is_like(&one));
                unended.push(one);
            }
        }
        if self.json {
            print(&json!({"running": current, "last": latest, "unended": unended}).to_string());
            return Ok(DONE);
        }
        if let Some(current) = &current {
            print(&format!(
                "running: {} (process {}, since {} UTC)",
                current.recipe,
                current.pid,
                host::utc(current.started)
            ));
            // what is whole from earlier runs is no news
            let news = || current.stages.iter().filter(|stage| stage.state != "done" || stage.ran > 0.0);
            let width = width(news().map(|stage| stage.name.as_str()));
            for stage in news() {
                let note = if stage.note.is_empty() { String::new() } else { format!("  {}", stage.note) };
                let (name, state, of, known) = (&stage.name, &stage.state, stage.units, stage.cached);
                print(&format!("  {name:width$} {state:11} {} of {of} run, {known} known{note}", share(stage.ran)));
            }
        }
        if latest.is_empty() && unended.is_empty() && (current.is_none() || self.recipe.is_some()) {
            let workspace = workspace.display();
            print(&match &self.recipe {
                Some(name) => format!("no run of `{name}` is recorded in {workspace} (`effigy log` lists all)"),
                None => format!("nothing has been run in {workspace}"),
            });
        }
        for one in &latest {
            print(&format!(
                "{}: {} at {} UTC, {} run, {} known, {} failed ({})",
                one.typed(),
                one.outcome,
                host::utc(one.started),
                one.executed,
                one.cached,
                one.failed,
                progress::seconds(one.seconds)
            ));
            let (open, whole): (Vec<&StageRecord>, Vec<&StageRecord>) =
                (one.stages.iter().filter(|stage| !stage.left_out))
                    .partition(|stage| stage.state != NodeState::Done || stage.failed > 0);
            let width = width(open.iter().map(|stage| stage.name.as_str()));
            for stage in &open {
                let state = one.state_of(stage);
                let (name, ran, known, failed) = (&stage.name, stage.executed, stage.cached, stage.failed);
                print(&format!("  {name:width$} {state:11} {ran} run, {known} known, {failed} failed"));
            }
            if !whole.is_empty() {
                let stages = if whole.len() == 1 { "stage" } else { "stages" };
                print(&format!("  {} {stages} done (`--json` names them)", whole.len()));
            }
        }
        for one in &unended {
            let units = match one.executed {
                0 => "no unit of it is kept".to_string(),
                1 => "1 unit of it is kept".to_string(),
                n => format!("{n} units of it are kept"),
            };
            print(&format!(
                "{}: began at {} UTC, and its end is not on record (killed?); {units}",
                one.typed(),
                host::utc(one.started)
            ));
            let again = format!("{}{}", quote(&one.file), self.workspace.typed());
            print(&format!("  hint: `effigy run {again}`, with the options that it had, goes on with what is kept"));
        }
        Ok(DONE)
    }
}

/// Whether a run is of the recipe that somebody named: by its name, or by its file in whatever way.
fn is_meant(one: &Record, name: &str) -> bool {
    let is_at = |path: &Path| match one.path.as_str() {
        "" => load::place(Path::new(&one.file)) == path,
        known => known == path.to_string_lossy(),
    };
    let path = Path::new(name);
    one.recipe == name || if path.exists() { is_at(&load::place(path)) } else { one.file == name }
}

/// The length of the longest name.
fn width<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0)
}

/// Units that ran, of which one may be done in part.
fn share(ran: f64) -> String {
    if ran.fract() == 0.0 { format!("{ran:.0}") } else { format!("{ran:.1}") }
}

impl Log {
    /// Lists them.
    pub fn run(self) -> Result<u8> {
        if let Some(stage) = &self.stage {
            return self.of_stage(stage);
        }
        self.workspace.must_be_there()?;
        let mut records = record::all(&self.workspace.workspace);
        records.extend(record::unended(&self.workspace.workspace, &records, &here())?);
        // names of runs are times
        records.sort_by(|a, b| a.run.cmp(&b.run));
        for one in &records[records.len().saturating_sub(self.limit)..] {
            if self.json {
                print(&serde_json::to_string(one)?);
                continue;
            }
            if one.outcome == record::OPEN {
                print(&format!(
                    "{}  {:11} {}  {} run, the rest is not on record",
                    one.run,
                    one.outcome,
                    one.typed(),
                    one.executed
                ));
                continue;
            }
            print(&format!(
                "{}  {:11} {}  {} run, {} known, {} failed  {}",
                one.run,
                one.outcome,
                one.typed(),
                one.executed,
                one.cached,
                one.failed,
                progress::seconds(one.seconds)
            ));
        }
        Ok(DONE)
    }

    /// Prints what is there of a stage's logs.
    fn of_stage(&self, stage: &str) -> Result<u8> {
        let root = &self.workspace.workspace;
        let mut logs = logs(root, stage);
        // `STAGE` means all its variants
        for variant in variants(root, stage) {
            logs.extend(crate::run::logs(root, &variant));
        }
        if let Some(row) = self.row {
            logs.retain(|one| one.units.contains(&row));
        }
        if logs.is_empty() {
            let row = self.row.map_or(String::new(), |row| format!(", row {row},"));
            let message = format!("stage `{stage}`{row} has left no log in {}", self.workspace.workspace.display());
            let hint = "logs that are empty are not kept, and those of a stage go when it has work again";
            return Err(Problem::at(&Place::command_line(), message).hint(hint).into());
        }
        for one in logs {
            if self.json {
                print(&serde_json::to_string(&one)?);
                continue;
            }
            if self.row.is_none() {
                let rows: Vec<String> = one.units.iter().map(usize::to_string).collect();
                print(&format!("== row {}: {}", rows.join(", "), one.log.display()));
            }
            let text = std::fs::read(&one.log).unwrap_or_default();
            print(String::from_utf8_lossy(&text).trim_end());
        }
        Ok(DONE)
    }
}

/// The variants of a stage of which there are logs.
fn variants(root: &Path, stage: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root.join(layout::LOGS)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut all: Vec<String> = names.filter(|name| name.split_once('@').is_some_and(|(own, _)| own == stage)).collect();
    all.sort();
    all
}
