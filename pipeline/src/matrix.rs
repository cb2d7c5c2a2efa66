//! `matrix:` and `variants:`: a recipe's stages, once for each combination of the axes they depend on. What does not
//! depend on an axis stays one stage. Happens before anything is understood: stanzas come in and stanzas go out.
//!
//! Knows how stanzas refer to each other, and nothing else of what they mean.

mod expansion;

use crate::builtin::rows::{column_type, in_column, value_of};
use crate::error::{Place, Problem};
use crate::fields::texts_of;
use crate::spec::{Does, Stanza};
use crate::yaml::{At, Item, Key, Node};
use expansion::{Base, Expansion};
use manifests::{Type, Value};
use std::collections::{HashMap, HashSet};

/// The axis along which `variants:` lie.
pub const VARIANT: &str = "variant";
/// The field of `matrix:` that is no axis: combinations that are left out.
pub const EXCLUDE: &str = "exclude";
/// More combinations than this nobody means.
const MOST: usize = 10_000;

/// An axis.
pub struct Axis {
    /// Its name, which is that of its column.
    pub name: String,
    /// Its values as written.
    pub values: Vec<Item>,
    ty: Type,
    columns: Vec<Value>,
    /// Its values as names of stages have them.
    labels: Vec<String>,
    /// Which of them the command line chose.
    chosen: Vec<bool>,
}

/// A stanza of one variant, with the axes that it names by `${}`.
pub type Written = (Stanza, Vec<String>);

/// The axes of a recipe, that of its variants first.
pub fn axes(
    place: &dyn Fn(At) -> Place,
    matrix: &[(Key, Item)],
    variants: &[(Key, Item)],
    chosen: &[String],
    problems: &mut Vec<Problem>,
) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    for (key, _) in variants {
        if key.name.is_empty() || key.name != word(&key.name.as_str().into()) {
            let problem = Problem::at(&place(key.at), format!("`{}` cannot be the name of a variant", key.name));
            problems
                .push(problem.hint("it becomes part of names of stages: use letters, digits, `_`, `-`, `+` and `.`"));
        }
    }
    if !variants.is_empty() {
        let values = variants.iter().map(|(key, _)| Item { at: key.at, node: Node::Text(key.name.clone()) }).collect();
        axes.push(Axis::new(VARIANT.into(), values));
    }
    for (key, item) in matrix.iter().filter(|(key, _)| key.name != EXCLUDE) {
        let mut wrong = |at: At, message: String, hint: &str| {
            problems.push(Problem::at(&place(at), message).hint(hint.to_string()));
        };
        let name = &key.name;
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.is_empty();
        if !plain || name == VARIANT && !variants.is_empty() {
            wrong(
                key.at,
                format!("`{name}` cannot be the name of an axis here"),
                "use letters, digits and `_`; `variant` is the axis of `variants:`",
            );
            continue;
        }
        let Node::List(items) = &item.node else {
            wrong(
                item.at,
                format!("axis `{name}` must be a list, not {}", item.node.what()),
                "for example `matrix: { seed: [1, 2, 3] }`",
            );
            continue;
        };
        let values: Vec<Option<Value>> = items.iter().map(value_of).collect();
        let Some(values) = values.into_iter().collect::<Option<Vec<_>>>().filter(|values| !values.is_empty()) else {
            wrong(
                item.at,
                format!("axis `{name}` must be a list of at least one scalar"),
                "sets of several values go under `variants:`",
            );
            continue;
        };
        let ty = column_type(values.iter());
        let fits = |value: Value| in_column(ty, value).ty().is_none_or(|found| found == ty);
        if !values.into_iter().all(fits) {
            wrong(
                item.at,
                format!("axis `{name}` has values of several types"),
                "its column has one type: put them all in quotes, or none",
            );
            continue;
        }
        let axis = Axis::new(name.clone(), items.clone());
        let mut seen = HashSet::new();
        match axis.labels.iter().find(|label| !seen.insert(label.as_str())) {
            Some(twice) => {
                wrong(item.at, format!("axis `{name}` has the value `{twice}` twice"), "every value stands once")
            }
            None => axes.push(axis),
        }
    }
    let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.values.len()));
    if axes.len() > 16 || count.is_none_or(|count| count > MOST) {
        let at = matrix.first().map_or(At::default(), |(key, _)| key.at);
        let problem = Problem::at(&place(at), format!("the axes have more than {MOST} combinations"));
        problems.push(
            problem
                .hint("rows are cheaper than variants: let a `rows:` table hold the values, and a stage map over it"),
        );
        axes.clear();
    }
    choose(&mut axes, chosen, problems);
    axes
}

impl Axis {
    fn new(name: String, values: Vec<Item>) -> Axis {
        let plain: Vec<Value> = values.iter().map(|item| value_of(item).unwrap_or(Value::Null)).collect();
        let ty = column_type(plain.iter());
        let columns = plain.into_iter().map(|value| in_column(ty, value)).collect();
        let labels = values.iter().map(|item| word(&item.to_json())).collect();
        let chosen = vec![true; values.len()];
        Axis { name, values, ty, columns, labels, chosen }
    }

    /// The place of the value that is called so; a number by any way to write it, `0.10` for `0.1`.
    fn find(&self, label: &str) -> Option<usize> {
        let number = |text: &str| text.parse::<f64>().ok().filter(|_| matches!(self.ty, Type::I64 | Type::F64));
        let wanted = number(label);
        let named = self.labels.iter().position(|known| known == label);
        named.or_else(|| self.labels.iter().position(|known| wanted.is_some() && number(known) == wanted))
    }
}

/// Some axes, each with one of its values: places of both.
pub type Combination = Vec<(usize, usize)>;

/// The combinations that `exclude:` leaves out, of all stages that vary along these axes.
pub fn excluded(
    place: &dyn Fn(At) -> Place,
    axes: &[Axis],
    matrix: &[(Key, Item)],
    problems: &mut Vec<Problem>,
) -> Vec<Combination> {
    const EXAMPLE: &str = "for example `exclude: [{ seed: 1, size: 64 }]`";
    let Some((_, item)) = matrix.iter().find(|(key, _)| key.name == EXCLUDE) else { return Vec::new() };
    let wrong = |at: At, message: String| Problem::at(&place(at), message);
    let Node::List(items) = &item.node else {
        let message = format!("`exclude` takes a list of combinations, not {}", item.node.what());
        problems.push(wrong(item.at, message).hint(EXAMPLE));
        return Vec::new();
    };
    let mut all = Vec::new();
    for item in items {
        let Node::Map(pairs) = &item.node else {
            let message = format!("a combination names axes and their values; this is {}", item.node.what());
            problems.push(wrong(item.at, message).hint(EXAMPLE));
            continue;
        };
        let mut combination = Combination::new();
        for (key, value) in pairs {
            let Some(bit) = axes.iter().position(|axis| axis.name == key.name) else {
                let problem = wrong(key.at, format!("there is no axis `{}`", key.name));
                problems.push(problem.did_you_mean(&key.name, axes.iter().map(|axis| axis.name.as_str())));
                continue;
            };
            let (axis, label) = (&axes[bit], word(&value.to_json()));
            match axis.find(&label) {
                Some(place) => combination.push((bit, place)),
                None => {
                    let problem = wrong(value.at, format!("axis `{}` has no value `{label}`", axis.name));
                    problems.push(problem.did_you_mean(&label, axis.labels.iter().map(String::as_str)));
                }
            }
        }
        if pairs.is_empty() {
            problems.push(wrong(item.at, "a combination of nothing would leave out everything".into()).hint(EXAMPLE));
        }
        all.push(combination);
    }
    all
}

/// A value as part of a name that needs no quotes in a shell.
fn word(value: &serde_json::Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let plain = |c: char| if c.is_alphanumeric() || "_.+-".contains(c) { c } else { '-' };
    text.chars().map(plain).collect()
}

/// Leaves only what `--variant` names, of the axes that it names.
fn choose(axes: &mut [Axis], chosen: &[String], problems: &mut Vec<Problem>) {
    let mut named = HashSet::new();
    for text in chosen {
        let (axis, label) = text.split_once('=').unwrap_or((VARIANT, text));
        let label = word(&label.into());
        let problem = |message: String| Problem::at(&Place::command_line(), message);
        let names: Vec<String> = axes.iter().map(|axis| axis.name.clone()).collect();
        let Some(i) = axes.iter().position(|known| known.name == axis) else {
            let known = axes.iter().flat_map(|axis| axis.labels.iter().map(|label| format!("{}={label}", axis.name)));
            let known: Vec<String> = known.collect();
            let message = match axis {
                VARIANT => format!("`--variant {text}`: the recipe has no `variants:`"),
                _ => format!("`--variant {text}`: the recipe has no axis `{axis}`"),
            };
            let problem = match axis {
                VARIANT => problem(message).did_you_mean(text, known.iter().map(String::as_str)),
                _ => problem(message).did_you_mean(axis, names.iter().map(String::as_str)),
            };
            problems.push(problem.or_hint("it has no `matrix:` either: leave `--variant` out"));
            continue;
        };
        let Some(value) = axes[i].find(&label) else {
            let message = match axis {
                VARIANT => format!("the recipe has no variant `{label}`"),
                _ => format!("axis `{axis}` has no value `{label}`"),
            };
            problems.push(problem(message).did_you_mean(&label, axes[i].labels.iter().map(String::as_str)));
            continue;
        };
        if named.insert(i) {
            axes[i].chosen.iter_mut().for_each(|chosen| *chosen = false);
        }
        axes[i].chosen[value] = true;
    }
}

/// The stages, varied.
pub struct Varied {
    /// The stanzas, in the order of the file.
    pub stanzas: Vec<Stanza>,
    /// Names of the stages that the command line did not choose.
    pub left_out: Vec<String>,
    /// Stages that vary, with the names of what they became.
    pub groups: Vec<(String, Vec<String>)>,
}

/// Varies stanzas: `cases` holds those of each variant, or those of the only one; combinations in `excluded` are left
/// out.
pub fn expand(
    axes: &[Axis],
    excluded: &[Combination],
    cases: &[Vec<Written>],
    place: &dyn Fn(At) -> Place,
    problems: &mut Vec<Problem>,
) -> Varied {
    let mut bases: Vec<Base<'_>> = Vec::new();
    let mut ids: HashMap<&str, usize> = HashMap::new();
    for (case, stanzas) in cases.iter().enumerate() {
        for (stanza, used) in stanzas {
            let id = *ids.entry(&stanza.name).or_insert_with(|| {
                let over = (stanza.does == Does::Gather).then(|| over(axes, stanza, place, problems));
                bases.push(Base { name: stanza.name.clone(), written: vec![None; cases.len()], mask: 0, over });
                bases.len() - 1
            });
            bases[id].written[case] = Some(stanza);
            for (bit, _) in axes.iter().enumerate().filter(|(_, axis)| used.contains(&axis.name)) {
                bases[id].mask |= 1 << bit;
            }
        }
    }
    for base in &mut bases {
        let same = base.written.windows(2).all(|pair| match (pair[0], pair[1]) {
            (Some(a), Some(b)) => alike(a, b),
            _ => false,
        });
        base.mask |= u32::from(!same);
    }
    let needs: Vec<Vec<usize>> = bases
        .iter()
        .map(|base| {
            let mut needs = Vec::new();
            for stanza in base.written.iter().flatten() {
                refer(&mut (*stanza).clone(), &mut |name| needs.extend(ids.get(name.as_str())));
            }
            needs
        })
        .collect();
    // masks only grow, so this ends, circles or not
    loop {
        let mut grew = false;
        for i in 0..bases.len() {
            let gathered = bases[i].over.unwrap_or(0);
            let mask = needs[i].iter().fold(bases[i].mask, |mask, &need| mask | bases[need].mask & !gathered);
            grew |= mask != bases[i].mask;
            bases[i].mask = mask;
        }
        if !grew {
            break;
        }
    }
    let used = bases.iter().fold(0, |used, base| used | base.mask);
    // a name that was misspelt somewhere is told there
    let told = !problems.is_empty();
    let is_idle = |bit: usize, axis: &Axis| axis.name != VARIANT && used >> bit & 1 == 0 && !told;
    for (_, axis) in axes.iter().enumerate().filter(|(bit, axis)| is_idle(*bit, axis)) {
        let at = axis.values.first().map_or(At::default(), |value| value.at);
        let problem = Problem::at(&place(at), format!("no stage varies along the axis `{}`", axis.name));
        problems
            .push(problem.hint(format!("write `${{{}}}` for a value in a stage, or leave the axis out", axis.name)));
    }
    for (base, needs) in bases.iter().zip(&needs) {
        // where there is but one variant, nobody can tell what differs between them
        let alone = cases.len() == 1 && axes.first().is_some_and(|axis| axis.name == VARIANT);
        if let (Some(over), Some(&need)) = (base.over, needs.first())
            && bases[need].mask & over == 0
            && !(alone && over & 1 == 1)
        {
            let at = base.written.iter().flatten().next().map_or(At::default(), |stanza| stanza.what.at);
            let problem = Problem::at(
                &place(at),
                format!("stage `{}` does not vary, so there is nothing to gather", bases[need].name),
            );
            problems.push(
                problem.hint(
                    "a stage varies that says `${axis}`, differs between variants, or takes rows of one that does",
                ),
            );
        }
    }
    let all = Expansion::new(axes, excluded, &bases, &ids);
    let mut varied = Varied { stanzas: Vec::new(), left_out: Vec::new(), groups: Vec::new() };
    for (id, base) in bases.iter().enumerate() {
        let mut names = Vec::new();
        let cells = all.cells(base, base.mask, &vec![0; axes.len()]);
        let none = cells.is_empty();
        let mut chosen = false;
        for cell in cells {
            chosen |= all.is_chosen(base, &cell);
            if !all.is_there(id, &cell) {
                varied.left_out.push(all.name(base, &cell));
                continue;
            }
            let Some(stanza) = all.stanza(base, &cell) else { continue };
            names.push(stanza.name.clone());
            if base.over.is_some() && matches!(&stanza.what.node, Node::List(members) if members.is_empty()) {
                let message = format!("stage `{}` has nothing to gather: `exclude:` leaves it none", stanza.name);
                let hint = "leave out its own combination as well, without the axes that it gathers over";
                problems.push(Problem::at(&place(stanza.what.at), message).hint(hint));
                continue;
            }
            varied.stanzas.push(stanza);
        }
        // a stage that some variant does not have may well be gone with the others
        if names.is_empty() && base.written.iter().all(Option::is_some) && !chosen {
            problems.push(all.nothing_left(base, none, place));
        }
        if base.mask != 0 || names.is_empty() {
            varied.groups.push((base.name.clone(), names));
        }
    }
    varied
}

/// A list of names, all at one place.
pub fn list(at: At, names: Vec<String>) -> Node {
    Node::List(names.into_iter().map(|name| Item { at, node: Node::Text(name) }).collect())
}

/// The axes that a gathering stage puts together: those of `over:`, or all.
fn over(axes: &[Axis], stanza: &Stanza, place: &dyn Fn(At) -> Place, problems: &mut Vec<Problem>) -> u32 {
    let Some((_, item)) = stanza.fields.iter().find(|(key, _)| key.name == "over") else { return u32::MAX };
    let Some(names) = texts_of(item) else {
        let message = format!("`over` takes names of axes, not {}", item.node.what());
        problems.push(Problem::at(&place(item.at), message).hint("for example `over: seed` or `over: [seed, size]`"));
        return u32::MAX;
    };
    let mut over = 0;
    for (at, name) in names {
        match axes.iter().position(|axis| axis.name == name) {
            Some(bit) => over |= 1 << bit,
            None => {
                let problem = Problem::at(&place(at), format!("there is no axis `{name}`"));
                problems.push(problem.did_you_mean(&name, axes.iter().map(|axis| axis.name.as_str())));
                return u32::MAX;
            }
        }
    }
    over
}

/// Whether two stanzas say the same, wherever they stand.
fn alike(a: &Stanza, b: &Stanza) -> bool {
    let fields = |stanza: &Stanza| -> HashMap<String, serde_json::Value> {
        stanza.fields.iter().map(|(key, item)| (key.name.clone(), item.to_json())).collect()
    };
    a.does == b.does && a.what.to_json() == b.what.to_json() && fields(a) == fields(b)
}

/// Replaces `${axis}`.
fn fill(item: &mut Item, values: &[(&str, &Item)]) {
    match &mut item.node {
        Node::Text(text) => {
            let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            if let Some((_, value)) = values.iter().find(|(axis, _)| name == Some(axis)) {
                item.node = value.node.clone();
            }
        }
        Node::List(items) => items.iter_mut().for_each(|item| fill(item, values)),
        Node::Map(items) => items.iter_mut().for_each(|(_, item)| fill(item, values)),
        _ => {}
    }
}

/// Visits every name of a stage that a stanza takes rows of.
fn refer(stanza: &mut Stanza, visit: &mut dyn FnMut(&mut String)) {
    let mut each = |item: &mut Item| match &mut item.node {
        Node::Text(name) => visit(name),
        Node::List(items) => items.iter_mut().for_each(|item| {
            if let Node::Text(name) = &mut item.node {
                visit(name);
            }
        }),
        _ => {}
    };
    match stanza.does {
        Does::Select | Does::Join | Does::Concat | Does::Gather => each(&mut stanza.what),
        Does::Stage | Does::Run => {
            for (key, item) in &mut stanza.fields {
                match (key.name.as_str(), &mut item.node) {
                    ("from", _) => each(item),
                    ("with", Node::Map(items)) => items.iter_mut().for_each(|(_, item)| each(item)),
                    _ => {}
                }
            }
        }
        Does::Files | Does::Rows => {}
    }
}

/// What is wrong with each of a stage's variants, told once.
pub fn once(problems: Vec<Problem>) -> Vec<Problem> {
    let mut seen = HashSet::new();
    let plain = |problem: &Problem| {
        let parts = problem.message.split('`').map(|part| part.split('@').next().unwrap_or(part));
        (problem.place.as_ref().map(ToString::to_string), parts.collect::<Vec<_>>().join("`"))
    };
    problems.into_iter().filter(|problem| seen.insert(plain(problem))).collect()
}
