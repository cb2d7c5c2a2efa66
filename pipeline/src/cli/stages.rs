//! `effigy stages`: what stages there are.

use super::{DONE, WorkspaceArgs, load, print};
use crate::error::{Place, Problem};
use crate::provider;
use anyhow::Result;
use protocol::{ColumnDef, StageDef};
use serde_json::Value;

/// List the stages that providers have, with what they read, write and take
#[derive(clap::Args)]
pub struct Stages {
    /// Only this kind
    kind: Option<String>,
    /// Also the stages of this provider (may be given more than once)
    #[arg(long = "provider", value_name = "COMMAND")]
    providers: Vec<String>,
    /// Print the descriptions as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    workspace: WorkspaceArgs,
}

impl Stages {
    /// Lists them.
    pub fn run(self) -> Result<u8> {
        let here = std::env::current_dir()?;
        let named = self.providers.iter().map(|words| provider::of_words(words, &here, Place::command_line()));
        let mut candidates: Vec<_> = named.collect();
        candidates.extend(load::default_provider());
        let providers = provider::ask_all(&candidates, &self.workspace.workspace.join("providers.json"))?;
        let all: Vec<&StageDef> = providers.iter().flat_map(|provider| &provider.description.stages).collect();
        let chosen: Vec<&StageDef> = match &self.kind {
            None => all,
            Some(kind) => {
                let found: Vec<&StageDef> = all.iter().copied().filter(|def| def.kind == *kind).collect();
                if found.is_empty() {
                    let message = format!("no provider has a stage of kind `{kind}`");
                    let problem = Problem::at(&Place::command_line(), message);
                    let problem = problem.did_you_mean(kind, all.iter().map(|def| def.kind.as_str()));
                    let hint = "there is no provider: `make build` builds `effigy-stages`, --provider names another";
                    return Err(problem.or_hint(hint).into());
                }
                found
            }
        };
        if self.json {
            print(&serde_json::to_string_pretty(&chosen)?);
            return Ok(DONE);
        }
        for def in &chosen {
            print(&text(def));
        }
        if self.kind.is_none() {
            print("In the engine itself: files, rows, select, join, concat, gather, run.");
        }
        Ok(DONE)
    }
}

fn text(def: &StageDef) -> String {
    let grain = serde_json::to_value(def.grain).expect("a grain is a word");
    let source = if def.source { ", source" } else { "" };
    let mut text = format!("{} (version {}, {}{source})\n", def.kind, def.version, grain.as_str().unwrap_or_default());
    if !def.doc.is_empty() {
        text.push_str(&format!("  {}\n", def.doc));
    }
    if !def.reads.is_empty() {
        text.push_str(&format!("  reads   {}\n", columns(&def.reads)));
    }
    for with in &def.with {
        let optional = if with.optional { " (optional)" } else { "" };
        text.push_str(&format!("  with    {}{optional}: {}\n", with.name, columns(&with.reads)));
    }
    text.push_str(&format!("  writes  {}\n", columns(&def.writes)));
    let empty = serde_json::Map::new();
    let required: Vec<&str> =
        def.params.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, schema) in def.params.get("properties").and_then(Value::as_object).unwrap_or(&empty) {
        let default = match schema.get("default") {
            Some(default) => format!(" = {default}"),
            None if required.contains(&name.as_str()) => " (required)".into(),
            None => String::new(),
        };
        let file = if def.files.contains(name) { " [file, by content]" } else { "" };
        text.push_str(&format!("  param   {name}{default}{file}\n"));
        let doc = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        for line in doc.lines().filter(|line| !line.trim().is_empty()) {
            text.push_str(&format!("            {}\n", line.trim()));
        }
    }
    text
}

fn columns(columns: &[ColumnDef]) -> String {
    let one = |column: &ColumnDef| {
        let ty = column.ty.to_string().replace("floats[0]", "floats");
        format!("{}: {ty}{}", column.name, if column.optional { "?" } else { "" })
    };
    columns.iter().map(one).collect::<Vec<_>>().join(", ")
}
