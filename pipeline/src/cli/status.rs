//! `effigy status` and `effigy log`: what runs there were, and the one that is on.

use super::record::{self, Record};
use super::{DONE, WorkspaceArgs, host, live, print, progress};
use crate::error::{Place, Problem};
use crate::run::logs;
use anyhow::Result;
use serde_json::json;

/// Show the last run of each recipe, and the one that is on
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

impl Status {
    /// Shows it.
    pub fn run(self) -> Result<u8> {
        let workspace = &self.workspace.workspace;
        let current = live::current(workspace);
        let mut latest: Vec<Record> = Vec::new();
        for one in record::all(workspace) {
            let wanted = self.recipe.as_ref().is_none_or(|name| one.recipe == *name || one.file == *name);
            if wanted {
                latest.retain(|old| (&old.file, &old.profile) != (&one.file, &one.profile));
                latest.push(one);
            }
        }
        if self.json {
            print(&json!({"running": current, "last": latest}).to_string());
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
            for stage in current.stages.iter().filter(|stage| stage.state != "done" || stage.ran > 0.0) {
                let note = if stage.note.is_empty() { String::new() } else { format!("  {}", stage.note) };
                let of = stage.units;
                print(&format!(
                    "  {:16} {:8} {:.1} of {of} run, {} known{note}",
                    stage.name, stage.state, stage.ran, stage.cached
                ));
            }
        }
        if latest.is_empty() && current.is_none() {
            print(&format!("nothing has been run in {}", workspace.display()));
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
            for stage in &one.stages {
                let units = stage.executed + stage.cached + stage.failed;
                if units > 0 || stage.state != "done" {
                    let (ran, known) = (stage.executed, stage.cached);
                    print(&format!(
                        "  {:16} {:8} {ran} run, {known} known, {} failed",
                        stage.name, stage.state, stage.failed
                    ));
                }
            }
        }
        Ok(DONE)
    }
}

impl Log {
    /// Lists them.
    pub fn run(self) -> Result<u8> {
        if let Some(stage) = &self.stage {
            return self.of_stage(stage);
        }
        let records = record::all(&self.workspace.workspace);
        for one in &records[records.len().saturating_sub(self.limit)..] {
            if self.json {
                print(&serde_json::to_string(one)?);
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
        let mut logs = logs(&self.workspace.workspace, stage);
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
