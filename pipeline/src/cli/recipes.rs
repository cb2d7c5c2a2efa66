//! `effigy recipes`: what recipes came with effigy, and what can be said otherwise of one without changing it.

use super::{DONE, load, print};
use crate::command::quote;
use crate::error::{Place, Problem};
use crate::extends::Whole;
use crate::key::show;
use crate::spec::{self, Overrides};
use crate::yaml::At;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;

/// List the recipes that came with effigy; of one, its parameters, profiles and variants
#[derive(clap::Args)]
pub struct Recipes {
    /// Only this one: a file, or the name of one that came with effigy
    recipe: Option<String>,
    /// With the parameters of this profile
    #[arg(long, requires = "recipe")]
    profile: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A parameter of a recipe.
struct Param {
    name: String,
    value: Value,
    /// The comment in its line.
    doc: String,
}

/// What can be known of a recipe by reading it alone.
struct Said {
    file: String,
    /// The comment that it begins with.
    doc: String,
    extends: Vec<String>,
    params: Vec<Param>,
    profiles: Vec<String>,
    /// Names of axes, each with its values.
    axes: Vec<(String, Vec<String>)>,
}

impl Recipes {
    /// Lists them.
    pub fn run(self) -> Result<u8> {
        if let Some(recipe) = &self.recipe {
            let said = Said::of(&load::find(recipe)?, self.profile)?;
            print(&if self.json { said.json().to_string() } else { said.text() });
            return Ok(DONE);
        }
        let folder = load::shipped_folder().ok_or_else(|| {
            let message = "the folder `pipeline/recipes` is not beside this program";
            let hint = "recipes lie in the tree that effigy was built in: call it there, or give the path of a recipe";
            Problem::at(&Place::command_line(), message).hint(hint)
        })?;
        let names = load::shipped_names(&folder);
        let all = names.iter().map(|name| Said::of(&load::nearer(&folder.join(format!("{name}.yaml"))), None));
        let all = all.collect::<Result<Vec<Said>>>()?;
        if self.json {
            print(&Value::from(all.iter().map(Said::json).collect::<Vec<_>>()).to_string());
            return Ok(DONE);
        }
        let width = names.iter().map(String::len).max().unwrap_or(0);
        for (name, said) in names.iter().zip(&all) {
            print(&format!("{name:width$}  {}", first_sentence(&said.doc)));
        }
        print("\n`effigy recipes NAME` tells its parameters, profiles and variants; `effigy run NAME` runs it.");
        Ok(DONE)
    }
}

impl Said {
    fn of(path: &Path, profile: Option<String>) -> Result<Said> {
        let shipped = load::shipped_folder();
        let overrides = Overrides { profile, shipped: shipped.clone(), ..Overrides::default() };
        let spec = spec::read(path, &overrides)?;
        let text = std::fs::read_to_string(path)?;
        let whole = Whole::read(&spec.file, (&spec.dir, shipped.as_deref()), &text)?;
        let comment_at = |at: At| {
            let base = whole.bases.iter().find(|(path, _)| at.file.is_some_and(|file| path.ends_with(file)));
            let text = base.map_or(text.as_str(), |(_, text)| text);
            text.lines().nth((at.line as usize).saturating_sub(1)).map_or("", comment).to_string()
        };
        let value = |name: &str| spec.params.iter().find(|(own, _)| own == name).map(|(_, item)| item.to_json());
        let mut axes: Vec<(String, Vec<String>)> = Vec::new();
        for one in spec.stages.iter().flat_map(|stanza| &stanza.axes) {
            let known = axes.iter().position(|(axis, _)| *axis == one.axis);
            let known = known.unwrap_or_else(|| {
                axes.push((one.axis.clone(), Vec::new()));
                axes.len() - 1
            });
            let value = show(&one.value);
            if !axes[known].1.contains(&value) {
                axes[known].1.push(value);
            }
        }
        let is_axis = |name: &str| axes.iter().any(|(axis, _)| axis == name);
        let params = whole.sections.params.iter().filter(|(key, _)| !is_axis(&key.name)).map(|(key, item)| Param {
            name: key.name.clone(),
            value: value(&key.name).unwrap_or(item.to_json()),
            doc: comment_at(key.at),
        });
        Ok(Said {
            params: params.collect(),
            doc: heading(&text),
            extends: whole.bases.iter().map(|(path, _)| load::nearer(path).display().to_string()).collect(),
            file: spec.file,
            profiles: spec.profiles,
            axes,
        })
    }

    fn json(&self) -> Value {
        let params = self.params.iter().map(|one| json!({"name": one.name, "value": one.value, "doc": one.doc}));
        let axes = self.axes.iter().map(|axis| json!({"name": axis.0, "values": axis.1}));
        json!({"recipe": self.file, "doc": self.doc, "extends": self.extends, "profiles": self.profiles,
               "axes": axes.collect::<Vec<_>>(), "params": params.collect::<Vec<_>>()})
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.file);
        self.doc.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
        let mut list = |what: &str, names: &[String]| {
            if !names.is_empty() {
                text.push_str(&format!("\n{what:9} {}\n", names.join(", ")));
            }
        };
        list("extends", &self.extends);
        list("profiles", &self.profiles);
        self.axes.iter().for_each(|(name, values)| list(name, values));
        let typed: Vec<String> = self.params.iter().map(|one| format!("{} = {}", one.name, one.value)).collect();
        // a long list does not push all comments to the right
        let width = typed.iter().map(String::len).filter(|length| *length <= 40).max().unwrap_or(0);
        if !typed.is_empty() {
            text.push('\n');
        }
        for (typed, one) in typed.iter().zip(&self.params) {
            text.push_str(format!("param     {typed:width$}  {}", one.doc).trim_end());
            text.push('\n');
        }
        let file = quote(&self.file);
        text.push_str(&format!(
            "\neffigy run {file} --param NAME=VALUE changes one; effigy plan {file} tells what that runs."
        ));
        text
    }
}

/// The comment that a recipe begins with, without its signs.
fn heading(text: &str) -> String {
    let lines = text.lines().take_while(|line| line.starts_with('#'));
    let lines = lines.map(|line| line.trim_start_matches('#')).map(|line| line.strip_prefix(' ').unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// A text's first sentence, on one line.
fn first_sentence(text: &str) -> String {
    let line = text.lines().take_while(|line| !line.trim().is_empty()).collect::<Vec<_>>().join(" ");
    let end = line.match_indices(". ").next().map_or(line.trim_end_matches('.').len(), |(end, _)| end);
    line[..end].to_string()
}

/// The comment at the end of a line of YAML.
fn comment(line: &str) -> &str {
    let mut quoted = None;
    let mut before = ' ';
    for (i, c) in line.char_indices() {
        match quoted {
            Some(sign) if c == sign && before != '\\' => quoted = None,
            Some(_) => {}
            None if c == '#' && before.is_whitespace() => return line[i + 1..].trim(),
            // within a word it is an apostrophe
            None if "\"'".contains(c) && !before.is_alphanumeric() => quoted = Some(c),
            None => {}
        }
        before = c;
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_found_behind_values() {
        for (line, expected) in [
            ("  size: 64        # px, targets", "px, targets"),
            ("  size: 64", ""),
            ("  path: a#b", ""),
            ("  path: \"a # b\"  # where", "where"),
            ("  name: it's # whose", "whose"),
            ("  name: '#1' # the first", "the first"),
        ] {
            assert_eq!(comment(line), expected, "{line}");
        }
    }

    #[test]
    fn headings_end_where_the_recipe_begins() {
        let text = "# One thing: of\n# two lines. More.\n#\n#   effigy run x\nrecipe: x\n# not this\n";
        assert_eq!(heading(text), "One thing: of\ntwo lines. More.\n\n  effigy run x");
        assert_eq!(first_sentence(&heading(text)), "One thing: of two lines");
        assert_eq!(first_sentence("Short."), "Short");
        assert_eq!(first_sentence(""), "");
    }
}
