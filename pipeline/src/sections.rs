//! What profiles, variants and the command line change about a recipe: parameters, fields of stages, stanzas, axes. Works on
//! what is written; what a stanza means is not its business.

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

/// Parameters with the command line applied.
pub fn parameters(
    mut params: Vec<(Key, Item)>,
    axes: &[Axis],
    overrides: &Overrides,
    problems: &mut Vec<Problem>,
) -> Vec<(String, Item)> {
    for text in &overrides.params {
        match assignment("--param", "size=64", text) {
            Ok((name, _)) if axes.iter().any(|axis| axis.name == name) => {
                let problem = Problem::at(&Place::command_line(), format!("`{name}` is an axis, not a parameter"));
                problems.push(problem.hint(format!("`--variant {name}=VALUE` chooses one of its values")));
            }
            Ok((name, mut value)) => {
                let is_text = |(key, old): &(Key, Item)| key.name == name && matches!(old.node, Node::Text(_));
                // a serial number is a name where the recipe has a name
                if params.iter().any(is_text) && matches!(value.node, Node::Int(_) | Node::Float(_) | Node::Bool(_)) {
                    let typed = text.split_once('=').map_or("", |(_, typed)| typed.trim());
                    value.node = Node::Text(typed.into());
                }
                set_param(&mut params, &name, value, problems);
            }
            Err(problem) => problems.push(problem),
        }
    }
    params.into_iter().map(|(key, item)| (key.name, item)).collect()
}

/// `name=value` of the command line; the value is YAML. The example is one for this option.
pub fn assignment(option: &str, example: &str, text: &str) -> Result<(String, Item), Problem> {
    let wrong = |message: String| Problem::at(&Place::command_line(), message);
    let (name, value) = text.split_once('=').ok_or_else(|| {
        let form = if option == "--set" { "STAGE.FIELD=VALUE" } else { "NAME=VALUE" };
        wrong(format!("`{option} {text}` is not of the form {form}")).hint(format!("for example `{option} {example}`"))
    })?;
    let mut item = yaml::parse("command line", value).map_err(|problem| {
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
