//! `effigy stages`: what stages there are.

use super::{DONE, WorkspaceArgs, load, print};
use crate::error::{Place, Problem};
use crate::params::{plain, resolve};
use crate::provider;
use anyhow::Result;
use cache::layout;
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
        let providers = provider::ask_all(&candidates, &self.workspace.workspace.join(layout::PROVIDERS))?;
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
        text.push_str(&format!("  param   {name}{default}: {}{file}\n", takes(&def.params, schema, 0)));
        for line in description(&def.params, schema).lines().filter(|line| !line.trim().is_empty()) {
            text.push_str(&format!("            {}\n", line.trim()));
        }
        for (choice, doc) in choices(&def.params, schema, 0).unwrap_or_default() {
            if let Some(first) = doc.lines().find(|line| !line.trim().is_empty()) {
                text.push_str(&format!("            {choice}: {}\n", first.trim()));
            }
        }
    }
    text
}

/// What is said of a parameter: at the parameter itself, or at its type.
fn description<'s>(root: &'s Value, schema: &'s Value) -> &'s str {
    let own = |schema: &'s Value| schema.get("description").and_then(Value::as_str);
    own(schema).or_else(|| own(resolve(root, schema))).unwrap_or_default()
}

/// Schemas within schemas are looked at so deep: one may hold itself.
const DEEPEST: usize = 8;

/// The values that a parameter may have, if they are few enough to be listed, each with what is said of it.
fn choices(root: &Value, schema: &Value, depth: usize) -> Option<Vec<(String, String)>> {
    let schema = resolve(root, schema);
    if depth > DEEPEST {
        return None;
    }
    if let Some(only) = schema.get("const") {
        return Some(vec![(plain(only), description(root, schema).into())]);
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(values.iter().map(|value| (plain(value), String::new())).collect());
    }
    if schema.get("type").is_some_and(|ty| ty == "null") {
        return Some(vec![("~".into(), String::new())]);
    }
    let all = schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array)?;
    let parts = all.iter().map(|schema| choices(root, schema, depth + 1)).collect::<Option<Vec<_>>>()?;
    Some(parts.into_iter().flatten().collect())
}

/// What a parameter takes, in few words: its type and range, or the values that there are.
fn takes(root: &Value, schema: &Value, depth: usize) -> String {
    let schema = resolve(root, schema);
    if let Some(choices) = choices(root, schema, 0) {
        let names: Vec<String> = choices.into_iter().map(|(name, _)| name).collect();
        return if names.len() == 1 { names.concat() } else { format!("one of {}", names.join(", ")) };
    }
    if depth > DEEPEST {
        return "...".into();
    }
    let deeper = |schema: &Value| takes(root, schema, depth + 1);
    if let Some(all) = schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array) {
        return all.iter().map(deeper).collect::<Vec<_>>().join(", or ");
    }
    let word = |ty: &Value| match ty.as_str() {
        Some("integer") => format!("integer{}", range(schema)),
        Some("number") => format!("number{}", range(schema)),
        Some("string") => "text".into(),
        Some("boolean") => "true or false".into(),
        Some("array") => list(schema, &deeper),
        Some("object") => match schema.get("properties").and_then(Value::as_object) {
            Some(fields) => {
                let fields = fields.iter().map(|(name, schema)| format!("{name}: {}", deeper(schema)));
                format!("{{ {} }}", fields.collect::<Vec<_>>().join("; "))
            }
            None => "mapping".into(),
        },
        _ => "~".into(),
    };
    match schema.get("type") {
        Some(Value::Array(types)) => types.iter().map(word).collect::<Vec<_>>().join(", or "),
        Some(ty) => word(ty),
        None => "anything".into(),
    }
}

/// The limits of a number, behind its type.
fn range(schema: &Value) -> String {
    let limit = |keyword: &str| schema.get(keyword);
    if let (Some(low), Some(high)) = (limit("minimum"), limit("maximum")) {
        return format!(" from {low} to {high}");
    }
    let limits = [
        ("minimum", "at least"),
        ("exclusiveMinimum", "more than"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "less than"),
    ];
    let told = limits.into_iter().filter_map(|(keyword, words)| Some(format!("{words} {}", limit(keyword)?)));
    let told: Vec<String> = told.collect();
    if told.is_empty() { String::new() } else { format!(", {}", told.join(" and ")) }
}

/// A list: how many values, and what each takes.
fn list(schema: &Value, takes: &dyn Fn(&Value) -> String) -> String {
    if let Some(places) = schema.get("prefixItems").and_then(Value::as_array) {
        return format!("[{}]", places.iter().map(takes).collect::<Vec<_>>().join("; "));
    }
    let count = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    let count = match (count("minItems"), count("maxItems")) {
        (Some(least), Some(most)) if least == most => format!(" of {least}"),
        (Some(least), Some(most)) => format!(" of {least} to {most}"),
        (Some(least), None) if least > 0 => format!(" of at least {least}"),
        (_, Some(most)) => format!(" of at most {most}"),
        _ => String::new(),
    };
    let each = schema.get("items").map_or(String::new(), |items| format!(", each: {}", takes(items)));
    format!("list{count}{each}")
}

fn columns(columns: &[ColumnDef]) -> String {
    let one = |column: &ColumnDef| {
        let ty = column.ty.to_string().replace("floats[0]", "floats");
        format!("{}: {ty}{}", column.name, if column.optional { "?" } else { "" })
    };
    columns.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Grain;

    #[test]
    fn what_parameters_take_is_told() {
        let mut def = StageDef::new("thing", 1, Grain::Row);
        def.params = serde_json::from_str(
            r##"{"type": "object", "required": ["steps"], "properties": {
                "steps": {"type": "integer", "format": "uint32", "minimum": 1, "description": "How many."},
                "share": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5},
                "rate": {"type": ["number", "null"], "exclusiveMinimum": 0, "default": null},
                "schedule": {"$ref": "#/$defs/Schedule", "default": "cosine", "description": "How it falls."},
                "other": {"anyOf": [{"$ref": "#/$defs/Schedule"}, {"type": "null"}], "default": null},
                "size": {"oneOf": [{"type": "integer"}, {"const": "auto"}]},
                "crop": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
                "inner": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"$ref": "#/$defs/Inner"}}}},
               "$defs": {
                "Schedule": {"description": "Not this.", "oneOf": [
                    {"const": "cosine", "type": "string", "description": "Half a wave.\n\nMore."},
                    {"enum": ["linear", "none"], "type": "string"}]},
                "Inner": {"type": "array", "items": {"$ref": "#/$defs/Inner"}}}}"##,
        )
        .unwrap();
        let text = text(&def);
        for part in [
            "  param   steps (required): integer, at least 1\n            How many.\n",
            "  param   share = 0.5: number from 0 to 1\n",
            "  param   rate = null: number, more than 0, or ~\n",
            "  param   schedule = \"cosine\": one of cosine, linear, none\n            How it falls.\n            cosine: Half a wave.\n",
            "  param   other = null: one of cosine, linear, none, ~\n            cosine: Half a wave.\n",
            "  param   size: integer, or auto\n",
            "  param   crop: list of 4, each: number\n",
            "  param   inner: { a: text; b: list, each: list, each: ",
        ] {
            assert!(text.contains(part), "{part:?} in:\n{text}");
        }
    }
}
