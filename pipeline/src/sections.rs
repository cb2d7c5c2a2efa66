//! What profiles, variants and the command line change about a recipe: parameters, fields of stages, stanzas, axes.
//! Works on what is written; what a stanza means is not its business.

use crate::error::{Place, Problem};
use crate::matrix::Axis;
use crate::spec::{A_STAGE, Overrides, place};
use crate::yaml::{self, At, Item, Key, Node};

/// The sections of a recipe that profiles change.
#[derive(Clone)]
pub struct Sections {
    /// Parameters.
    pub params: Vec<(Key, Item)>,
    /// Stanzas.
    pub stages: Vec<(Key, Item)>,
    /// Axes.
    pub matrix: Vec<(Key, Item)>,
    /// Variants.
    pub variants: Vec<(Key, Item)>,
}

impl Sections {
    /// Changes what a profile or a variant, here called `owner`, says: parameters, fields of stages, stanzas, axes.
    pub fn apply(&mut self, file: &str, owner: &str, item: &Item, problems: &mut Vec<Problem>) {
        let is_variant = owner.starts_with("variant");
        let items = match &item.node {
            Node::Map(items) => items,
            // `full:` is as good as `full: {}`
            Node::Null if is_variant => return,
            node => {
                let message = format!("{owner} must be a mapping, not {}", node.what());
                let name = owner.split('`').nth(1).unwrap_or_default();
                let hint = format!("for example `{name}: {{ size: 32 }}`, where `size` is under `params:`");
                problems.push(Problem::at(&place(file, item.at), message).hint(hint));
                return;
            }
        };
        for (key, item) in items {
            let section = match key.name.as_str() {
                "stages" => Some((&mut self.stages, A_STAGE)),
                "matrix" if !is_variant => Some((&mut self.matrix, "{ seed: [1, 2] }")),
                "variants" if !is_variant => Some((&mut self.variants, "{ full: {}, fewer: { steps: 10 } }")),
                _ => None,
            };
            if let Some((section, example)) = section {
                let name = &key.name;
                let Node::Map(changed) = &item.node else {
                    let message = format!("`{name}` of {owner} must be a mapping, not {}", item.node.what());
                    let problem = Problem::at(&place(file, item.at), message);
                    problems.push(problem.hint(format!("for example `{name}: {example}`")));
                    continue;
                };
                for (key, item) in changed {
                    match section.iter_mut().find(|(old, _)| old.name == key.name) {
                        Some(old) => *old = (key.clone(), item.clone()),
                        None => section.push((key.clone(), item.clone())),
                    }
                }
                continue;
            }
            if is_variant && key.name.contains('.') {
                let outcome =
                    set_field(&mut self.stages, &key.name, item.clone(), key.at, (&place(file, key.at), owner));
                problems.extend(outcome.err());
                continue;
            }
            match self.params.iter_mut().find(|(old, _)| old.name == key.name) {
                Some((_, old)) => *old = item.clone(),
                None => problems.push(
                    Problem::at(&place(file, key.at), format!("the recipe has no parameter `{}`", key.name))
                        .did_you_mean(
                            &key.name,
                            self.params.iter().map(|(key, _)| key.name.as_str()).chain(["stages"]),
                        ),
                ),
            }
        }
    }

    /// The sections of each variant; of a recipe without variants, its own.
    pub fn cases(self, file: &str, problems: &mut Vec<Problem>) -> Vec<Sections> {
        if self.variants.is_empty() {
            return vec![self];
        }
        let mut cases = Vec::new();
        for (key, item) in &self.variants {
            let mut case = self.clone();
            case.apply(file, &format!("variant `{}`", key.name), item, problems);
            cases.push(case);
        }
        cases
    }
}

/// Parameters with the command line applied, and with one another in the place of `${name}`.
pub fn parameters(
    file: &str,
    mut params: Vec<(Key, Item)>,
    axes: &[Axis],
    overrides: &Overrides,
    problems: &mut Vec<Problem>,
) -> Vec<(String, Item)> {
    for text in &overrides.params {
        match as_text(&params, text).map_or_else(|| assignment("--param", "size=64", text), Ok) {
            Ok((name, _)) if axes.iter().any(|axis| axis.name == name) => {
                let problem = Problem::at(&Place::command_line(), format!("`{name}` is an axis, not a parameter"));
                problems.push(problem.hint(format!("`--variant {name}=VALUE` chooses one of its values")));
            }
            Ok((name, value)) => {
                if let Some(problem) = rounded("--param", text, &value) {
                    problems.push(problem);
                }
                set_param(&mut params, &name, value, problems);
            }
            Err(problem) => problems.push(problem),
        }
    }
    resolve(file, &mut params, axes, problems);
    params.into_iter().map(|(key, item)| (key.name, item)).collect()
}

/// The value of a parameter that is a text, as it was typed: `Note: done` is no mapping there, and `#1` no comment.
/// What begins like a list, a mapping or a quoted text is that, and `null` is nothing.
fn as_text(params: &[(Key, Item)], text: &str) -> Option<(String, Item)> {
    let (name, typed) = text.split_once('=')?;
    let (name, typed) = (name.trim(), typed.trim());
    let is_yaml = typed.starts_with(['[', '{', '"', '\''])
        || ["null", "Null", "NULL", "~"].contains(&typed)
        || typed.starts_with("${");
    let item = || Item { at: At::default(), node: Node::Text(typed.into()) };
    (is_text(params, name) && !is_yaml).then(|| (name.to_string(), item()))
}

/// Whether a parameter is a text, or stands for one that is.
fn is_text(params: &[(Key, Item)], name: &str) -> bool {
    let mut name = name;
    // no chain of them is longer
    for _ in 0..=params.len() {
        let Some((_, item)) = params.iter().find(|(key, _)| key.name == name) else { return false };
        match reference(item) {
            Some(other) => name = other,
            None => return matches!(item.node, Node::Text(_)),
        }
    }
    false
}

/// The name in a text that is `${name}` and nothing else.
fn reference(item: &Item) -> Option<&str> {
    let Node::Text(text) = &item.node else { return None };
    let name = text.strip_prefix("${")?.strip_suffix('}')?;
    (!name.contains(['$', '{', '}'])).then_some(name)
}

/// The scalars of an item.
fn scalars<'i>(item: &'i Item, found: &mut Vec<&'i Item>) {
    match &item.node {
        Node::List(items) => items.iter().for_each(|item| scalars(item, found)),
        Node::Map(items) => items.iter().for_each(|(_, item)| scalars(item, found)),
        _ => found.push(item),
    }
}

/// The places and names of what stands as `${name}` in an item.
fn references(item: &Item) -> Vec<(At, &str)> {
    let mut found = Vec::new();
    scalars(item, &mut found);
    found.into_iter().filter_map(|item| Some((item.at, reference(item)?))).collect()
}

/// Puts values in the place of `${name}`.
fn fill(item: &mut Item, known: &[(String, Node)]) {
    match &mut item.node {
        Node::List(items) => items.iter_mut().for_each(|item| fill(item, known)),
        Node::Map(items) => items.iter_mut().for_each(|(_, item)| fill(item, known)),
        _ => {
            let value = reference(item).and_then(|name| known.iter().find(|(known, _)| known == name));
            if let Some((_, node)) = value {
                item.node = node.clone();
            }
        }
    }
}

/// A parameter holds no more values than this, whatever it is made of.
const MOST: usize = 1_000_000;

/// Puts parameters in the place of `${name}` in others.
fn resolve(file: &str, params: &mut [(Key, Item)], axes: &[Axis], problems: &mut Vec<Problem>) {
    let is_done = |item: &Item| references(item).is_empty();
    // one more is done in each round, or none ever will be
    loop {
        let known: Vec<(String, Node)> = params
            .iter()
            .filter(|(key, item)| is_done(item) && !axes.iter().any(|axis| axis.name == key.name))
            .map(|(key, item)| (key.name.clone(), item.node.clone()))
            .collect();
        let is_ready = |item: &Item| {
            let names = references(item);
            !names.is_empty() && names.iter().all(|(_, name)| known.iter().any(|(known, _)| known == name))
        };
        let Some((key, item)) = params.iter_mut().find(|(_, item)| is_ready(item)) else { break };
        fill(item, &known);
        let mut found = Vec::new();
        scalars(item, &mut found);
        if found.len() > MOST {
            let message = format!("parameter `{}` would hold more than {MOST} values", key.name);
            problems.push(Problem::at(&key.at.place(file), message).hint("lists of lists of parameters grow fast"));
            return;
        }
    }
    let names: Vec<&str> = params.iter().map(|(key, _)| key.name.as_str()).collect();
    for (key, item) in &*params {
        for (at, name) in references(item) {
            let wrong = |message: String| Problem::at(&at.place(file), message);
            problems.push(if axes.iter().any(|axis| axis.name == name) {
                wrong(format!("`{name}` is an axis, and parameter `{}` is the same for all its values", key.name))
                    .hint(format!("write `${{{name}}}` in the stages that vary"))
            } else if names.contains(&name) {
                wrong(format!("parameter `{}` waits for `${{{name}}}`, which has no value of its own", key.name))
                    .hint("parameters that stand for one another need one with a value among them")
            } else {
                wrong(format!("`${{{name}}}` stands for no parameter of the recipe"))
                    .did_you_mean(name, names.iter().copied())
                    .or_hint(format!("give it a value, for example `params: {{ {name}: 64 }}`"))
            });
        }
    }
}

/// What is wrong with a value of the command line that is written as a whole number and is none.
pub fn rounded(option: &str, text: &str, value: &Item) -> Option<Problem> {
    // one that was made a text is none any more
    if matches!(value.node, Node::Text(_)) {
        return None;
    }
    let (_, typed) = text.split_once('=')?;
    let digits = yaml::rounded(&yaml::parse_loosely("command line", typed).ok()?, &mut Vec::new(), typed)?.1;
    let message = format!("the value in `{option} {text}`: {}", yaml::not_whole(&digits));
    Some(Problem::at(&Place::command_line(), message).hint(yaml::WHOLE))
}

/// `name=value` of the command line; the value is YAML. The example is one for this option.
pub fn assignment(option: &str, example: &str, text: &str) -> Result<(String, Item), Problem> {
    let wrong = |message: String| Problem::at(&Place::command_line(), message);
    let (name, value) = text.split_once('=').ok_or_else(|| {
        let form = if option == "--set" { "STAGE.FIELD=VALUE" } else { "NAME=VALUE" };
        wrong(format!("`{option} {text}` is not of the form {form}")).hint(format!("for example `{option} {example}`"))
    })?;
    let mut item = yaml::parse_loosely("command line", value).map_err(|problem| {
        let hint = format!(
            "what holds `:`, `[`, `{{` or `#` needs quotes for YAML and for the shell: `{option} '{name}=\"...\"'`"
        );
        wrong(format!("the value in `{option} {text}`: {}", problem.message)).hint(hint)
    })?;
    forget_places(&mut item);
    Ok((name.trim().into(), item))
}

/// Items of the command line stand in no file.
fn forget_places(item: &mut Item) {
    item.at = At::default();
    match &mut item.node {
        Node::List(items) => items.iter_mut().for_each(forget_places),
        Node::Map(items) => items.iter_mut().for_each(|(key, item)| {
            key.at = At::default();
            forget_places(item);
        }),
        _ => {}
    }
}

fn set_param(params: &mut [(Key, Item)], name: &str, value: Item, problems: &mut Vec<Problem>) {
    match params.iter_mut().find(|(key, _)| key.name == name) {
        Some((_, old)) => *old = value,
        None => problems.push(
            Problem::at(&Place::command_line(), format!("the recipe has no parameter `{name}`"))
                .did_you_mean(name, params.iter().map(|(key, _)| key.name.as_str()))
                .or_hint("it has no `params:` at all; `--set STAGE.FIELD=VALUE` sets a field of a stage"),
        ),
    }
}

/// Sets a field of a stanza; `owner` is who says so, and where.
pub fn set_field(
    stages: &mut [(Key, Item)],
    target: &str,
    value: Item,
    at: At,
    (place, owner): (&Place, &str),
) -> Result<(), Problem> {
    let (stage, field) = target.split_once('.').ok_or_else(|| {
        let problem = Problem::at(place, format!("`{target}` in {owner} is not of the form STAGE.FIELD"));
        problem.hint(format!(
            "for example `--set {}.FIELD=VALUE`; `--param` sets a parameter of the recipe",
            target.trim()
        ))
    })?;
    let names: Vec<String> = stages.iter().map(|(key, _)| key.name.clone()).collect();
    let (_, item) = stages.iter_mut().find(|(key, _)| key.name == stage).ok_or_else(|| {
        Problem::at(place, format!("the recipe has no stage `{stage}`"))
            .did_you_mean(stage, names.iter().map(String::as_str))
            .or_hint("it has no stages at all")
    })?;
    // a stanza that is no mapping is complained about elsewhere
    if let Node::Map(items) = &mut item.node {
        match items.iter_mut().find(|(key, _)| key.name == field) {
            Some((_, old)) => *old = value,
            None => items.push((Key { at, name: field.into() }, value)),
        }
    }
    Ok(())
}
