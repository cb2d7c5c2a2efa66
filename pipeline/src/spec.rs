//! A recipe as written: YAML into stanzas, with parameters, profile and command line applied, every item with its line.
//!
//! Says what is wrong with the writing (unknown sections, `${}` that stand for nothing). What stanzas mean is the
//! plan's business.

use crate::axes::AxisValue;
use crate::command::as_param;
use crate::error::{Place, Problem, Problems};
use crate::extends::Whole;
use crate::fields::elsewhere;
use crate::matrix::{self, Axis, Written};
use crate::sections::{Sections, assignment, parameters, rounded, set_field};
use crate::yaml::{At, Item, Key, Node};
use std::path::{Path, PathBuf};

/// The profile that runs unless another is named. What a recipe says of it, if anything, is then said; what ran with it
/// is kept as what ran without any.
pub const DEFAULT_PROFILE: &str = "default";

/// What the command line changes about a recipe.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The profile.
    pub profile: Option<String>,
    /// `name=value` for the recipe's parameters.
    pub params: Vec<String>,
    /// `stage.field=value`.
    pub set: Vec<String>,
    /// Variants, or `axis=value`: of the axes named, only these; of others all.
    pub variants: Vec<String>,
    /// The folder of data packages.
    pub packages: PathBuf,
    /// The folder of the recipes that came with effigy.
    pub shipped: Option<PathBuf>,
}

/// The smallest `stages:` that do something.
pub const A_STAGE: &str = "{ src: { files: \"in/*.txt\" } }";

/// What a stanza does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// A provider's stage.
    Stage,
    /// A program.
    Run,
    /// Files by pattern.
    Files,
    /// An inline table.
    Rows,
    /// A choice of rows and columns.
    Select,
    /// Two tables side by side.
    Join,
    /// Tables below each other.
    Concat,
    /// All variants of a stage below each other.
    Gather,
}

/// The field that says what a stanza does.
pub const DOES: [(&str, Does); 8] = [
    ("stage", Does::Stage),
    ("run", Does::Run),
    ("files", Does::Files),
    ("rows", Does::Rows),
    ("select", Does::Select),
    ("join", Does::Join),
    ("concat", Does::Concat),
    ("gather", Does::Gather),
];

/// A stage as the recipe writes it.
#[derive(Clone, Debug)]
pub struct Stanza {
    /// Its name.
    pub name: String,
    /// Its name in the recipe, which its variants share.
    pub base: String,
    /// The values of the axes along which it varies.
    pub axes: Vec<AxisValue>,
    /// Where it stands.
    pub at: At,
    /// What it does.
    pub does: Does,
    /// The value of the field that says so.
    pub what: Item,
    /// Its other fields.
    pub fields: Vec<(Key, Item)>,
}

/// A recipe, read.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The file as messages name it.
    pub file: String,
    /// The folder that paths in the recipe are relative to, absolute.
    pub dir: PathBuf,
    /// The folder of data packages, which `package:NAME` refers to.
    pub packages: PathBuf,
    /// The file's text, and below it those of the recipes it extends.
    pub text: String,
    /// The recipes it extends.
    pub bases: Vec<PathBuf>,
    /// The recipe's name.
    pub name: String,
    /// The profile that was applied; none for the one that is unless another is named.
    pub profile: Option<String>,
    /// The names of all profiles it has.
    pub profiles: Vec<String>,
    /// Parameters after profile and command line.
    pub params: Vec<(String, Item)>,
    /// Programs that provide stages.
    pub providers: Vec<(At, String)>,
    /// The stages, in the order of the file; those that vary, once for each combination of their axes.
    pub stages: Vec<Stanza>,
    /// Names of stages that were not chosen by `--variant`.
    pub left_out: Vec<String>,
    /// The report's items, not yet understood.
    pub report: Option<Item>,
}

impl Spec {
    /// The place of an item of this recipe.
    pub fn place(&self, at: At) -> Place {
        place(&self.file, at)
    }

    /// The parameters as text.
    pub fn shown_params(&self) -> Vec<(String, String)> {
        let text = |value: serde_json::Value| value.as_str().map_or(value.to_string(), str::to_string);
        self.params.iter().map(|(name, item)| (name.clone(), text(item.to_json()))).collect()
    }
}

/// The place of an item of a file; what comes from the command line is told so.
pub fn place(file: &str, at: At) -> Place {
    at.place(file)
}

/// Reads a recipe.
///
/// # Errors
/// All that is wrong with the writing, each with its line.
pub fn read(path: &Path, overrides: &Overrides) -> Result<Spec, Problems> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Problem::new(format!("cannot read the recipe {file}: {error}"))
            .hint("it must be a text file in UTF-8 that you may read (`ls -l`)")
    })?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = dir.canonicalize().map_err(|error| {
        let problem = Problem::new(format!("cannot read {}: {error}", dir.display()));
        problem.hint("paths in a recipe are relative to its folder, which must be readable")
    })?;
    parse(&file, dir, text, overrides)
}

/// Reads a recipe's text.
pub fn parse(file: &str, dir: PathBuf, text: String, overrides: &Overrides) -> Result<Spec, Problems> {
    let whole = Whole::read(file, (&dir, overrides.shipped.as_deref()), &text)?;
    let mut problems = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (key, _) in &whole.profiles {
        if !names.contains(&key.name) {
            names.push(key.name.clone());
        }
    }
    let mut sections = whole.sections.clone();
    let wanted = overrides.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
    if names.iter().any(|name| name == wanted) {
        for (key, item) in whole.chosen(file, wanted)? {
            sections.apply(file, &format!("profile `{}`", key.name), &item, &mut problems);
        }
    } else if wanted != DEFAULT_PROFILE {
        problems.push(
            Problem::at(&Place::command_line(), format!("{file} has no profile `{wanted}`"))
                .did_you_mean(wanted, names.iter().map(String::as_str))
                .or_hint("it has no `profiles:` at all: leave `--profile` out"),
        );
    }
    let Whole { name, providers, report, bases, .. } = whole;
    let beside = |(path, text): &(PathBuf, String)| {
        format!("\n# --- {}\n{text}", path.file_name().unwrap_or_default().display())
    };
    let text = std::iter::once(text).chain(bases.iter().map(beside)).collect::<String>();
    let bases = bases.into_iter().map(|(path, _)| path).collect();
    let told = problems.len();
    let (axes, excluded) = {
        let place = |at: At| place(file, at);
        let axes = matrix::axes(&place, &sections.matrix, &sections.variants, &overrides.variants, &mut problems);
        let excluded = matrix::excluded(&place, &axes, &sections.matrix, &mut problems);
        (axes, excluded)
    };
    if problems.len() > told {
        // without its axes, all that names them would be wrong as well
        return Err(Problems(problems));
    }
    problems.extend(crate::params::overridden(&sections.params, &overrides.params));
    // the report, and whoever asks for the recipe's parameters, sees them without a variant
    let params = parameters(file, sections.params.clone(), &axes, overrides, &mut Vec::new());
    let mut cases: Vec<Vec<Written>> = Vec::new();
    for case in sections.cases(file, &mut problems) {
        cases.push(written(file, case, &axes, overrides, &mut problems));
    }
    let varied = if axes.is_empty() {
        let stanzas = cases.pop().unwrap_or_default().into_iter().map(|(stanza, _)| stanza).collect();
        matrix::Varied { stanzas, left_out: Vec::new(), groups: Vec::new() }
    } else {
        let place = |at: At| place(file, at);
        matrix::expand(&axes, &excluded, &cases, &place, &mut problems)
    };
    let matrix::Varied { stanzas: mut stages, left_out, groups } = varied;
    let mut report = report;
    if let Some(item) = &mut report {
        substitute(file, item, (&params, &[]), false, &mut Vec::new(), &mut problems);
        gather_for(item, &groups, &mut stages);
    }
    let problems = if axes.is_empty() { problems } else { matrix::once(problems) };
    if problems.is_empty() {
        let profile = overrides.profile.clone().filter(|profile| profile != DEFAULT_PROFILE);
        let packages = overrides.packages.clone();
        Ok(Spec {
            file: file.into(),
            dir,
            packages,
            text,
            bases,
            name,
            profile,
            profiles: names,
            params,
            providers,
            stages,
            left_out,
            report,
        })
    } else {
        Err(Problems(problems))
    }
}

/// The stanzas of a variant with the command line applied and parameters filled in. Axes stay as they are.
fn written(
    file: &str,
    case: Sections,
    axes: &[Axis],
    overrides: &Overrides,
    problems: &mut Vec<Problem>,
) -> Vec<Written> {
    let Sections { params, mut stages, .. } = case;
    let params = parameters(file, params, axes, overrides, problems);
    for text in &overrides.set {
        let command_line = Place::command_line();
        let outcome = assignment("--set", "stage.field=64", text).and_then(|(target, value)| {
            rounded("--set", text, &value).map_or(Ok(()), Err)?;
            set_field(&mut stages, &target, value, At::default(), (&command_line, "`--set`"))
        });
        problems.extend(outcome.err());
    }
    let mut stanzas = Vec::new();
    for (key, item) in stages {
        match stanza(file, key, item) {
            Ok(mut stanza) => {
                let command = stanza.does == Does::Run;
                let mut used = Vec::new();
                substitute(file, &mut stanza.what, (&params, axes), command, &mut used, problems);
                if command {
                    misplaced(file, &stanza.what, (&params, axes), problems);
                }
                for (_, item) in &mut stanza.fields {
                    substitute(file, item, (&params, axes), false, &mut used, problems);
                }
                stanzas.push((stanza, used));
            }
            Err(problem) => problems.push(problem),
        }
    }
    stanzas
}

/// Items of the report that name a stage that varies mean all of its variants: a stage is added that gathers them.
/// Those of a stage of which nothing was chosen are not shown.
fn gather_for(report: &mut Item, groups: &[(String, Vec<String>)], stages: &mut Vec<Stanza>) {
    let Node::List(items) = &mut report.node else { return };
    let group = |key: &Key, item: &Item| match &item.node {
        Node::Text(stage) if ["table", "images", "curve", "videos"].contains(&key.name.as_str()) => {
            groups.iter().find(|(base, _)| base == stage)
        }
        _ => None,
    };
    items.retain(|item| match &item.node {
        Node::Map(entries) => {
            entries.iter().filter_map(|(key, item)| group(key, item)).all(|(_, names)| !names.is_empty())
        }
        _ => true,
    });
    let entries =
        items.iter_mut().filter_map(|item| if let Node::Map(entries) = &mut item.node { Some(entries) } else { None });
    for (key, item) in entries.flatten() {
        let Some((base, names)) = group(key, item) else { continue };
        let Node::Text(stage) = &mut item.node else { continue };
        *stage = format!("{base}@*");
        if !stages.iter().any(|known| known.name == *stage) {
            let what = Item { at: item.at, node: matrix::list(item.at, names.clone()) };
            let (name, base) = (stage.clone(), base.clone());
            stages.push(Stanza {
                name,
                base,
                axes: Vec::new(),
                at: item.at,
                does: Does::Concat,
                what,
                // a report shows what there is
                fields: vec![(
                    Key { at: item.at, name: "allow_failures".into() },
                    Item { at: item.at, node: Node::Int(1) },
                )],
            });
        }
    }
}

fn stanza(file: &str, key: Key, item: Item) -> Result<Stanza, Problem> {
    let name = &key.name;
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !plain {
        let message = format!("`{name}` cannot be the name of a stage");
        return Err(Problem::at(&place(file, key.at), message).hint("use letters, digits, `_` and `-`"));
    }
    let Node::Map(mut fields) = item.node else {
        let message = format!("stage `{name}` must be a mapping, not {}", item.node.what());
        let problem = Problem::at(&place(file, item.at), message);
        return Err(problem.hint(format!("for example `{name}: {{ files: \"in/*.txt\" }}`")));
    };
    let found: Vec<(usize, Does)> = DOES
        .iter()
        .filter_map(|(field, does)| fields.iter().position(|(key, _)| key.name == *field).map(|i| (i, *does)))
        .collect();
    let names = DOES.map(|(field, _)| field).join(", ");
    match found[..] {
        [(i, does)] => {
            let (_, what) = fields.remove(i);
            Ok(Stanza { base: key.name.clone(), name: key.name, axes: Vec::new(), at: key.at, does, what, fields })
        }
        [] => {
            let wrong = fields.iter().map(|(key, _)| key);
            let problem = Problem::at(&place(file, key.at), format!("stage `{name}` does not say what it does"));
            // a misspelt `stage:` is likelier than a missing one
            for key in wrong {
                if let Some(problem) = elsewhere(&place(file, key.at), &format!("stage `{name}`"), &key.name) {
                    return Err(problem);
                }
                let hinted = Problem::new("").did_you_mean(&key.name, DOES.map(|(field, _)| field)).hint;
                if let Some(hint) = hinted.filter(|hint| hint.starts_with("did you mean")) {
                    let message = format!("stage `{name}` has no field `{}`", key.name);
                    return Err(Problem::at(&place(file, key.at), message).hint(hint));
                }
            }
            Err(problem.hint(format!("give it one of {names}")))
        }
        _ => {
            let message = format!("stage `{name}` says more than once what it does");
            Err(Problem::at(&place(file, key.at), message).hint(format!("give it only one of {names}")))
        }
    }
}

/// Replaces whole scalars `${name}` by the recipe's parameters, and notes axes that stand so. In command lines `${...}`
/// in the middle is the shell's.
fn substitute(
    file: &str,
    item: &mut Item,
    (params, axes): (&[(String, Item)], &[Axis]),
    command: bool,
    used: &mut Vec<String>,
    problems: &mut Vec<Problem>,
) {
    match &mut item.node {
        Node::Text(text) if text.contains("${") && !command || text.starts_with("${") => {
            let whole = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            match whole.filter(|name| !name.contains(['$', '{', '}'])) {
                Some(name) if axes.iter().any(|axis| axis.name == name) => used.push(name.into()),
                Some(name) => match params.iter().find(|(param, _)| param == name) {
                    Some((_, value)) => item.node = value.node.clone(),
                    None if command => {}
                    None => problems.push(
                        Problem::at(
                            &place(file, item.at),
                            format!("`${{{name}}}` stands for no parameter of the recipe"),
                        )
                        .did_you_mean(
                            name,
                            params
                                .iter()
                                .map(|(param, _)| param.as_str())
                                .chain(axes.iter().map(|axis| axis.name.as_str())),
                        )
                        .or_hint(format!("give it a value, for example `params: {{ {name}: 64 }}`")),
                    ),
                },
                None if command => {}
                None => problems.push(
                    Problem::at(&place(file, item.at), format!("`{text}` mixes `${{...}}` with other text"))
                        .hint("`${name}` stands for a whole value; make the whole text a parameter"),
                ),
            }
        }
        Node::List(items) => {
            items.iter_mut().for_each(|item| substitute(file, item, (params, axes), command, used, problems));
        }
        Node::Map(items) => {
            items.iter_mut().for_each(|(_, item)| substitute(file, item, (params, axes), command, used, problems));
        }
        _ => {}
    }
}

/// Complains about parameters and axes in the middle of a command line, where `${...}` is the shell's: it would put in
/// nothing, and nobody would hear of it.
fn misplaced(file: &str, item: &Item, (params, axes): (&[(String, Item)], &[Axis]), problems: &mut Vec<Problem>) {
    match &item.node {
        Node::Text(text) => {
            let is_ours =
                |name: &str| params.iter().any(|(param, _)| param == name) || axes.iter().any(|axis| axis.name == name);
            let mut told: Vec<&str> = Vec::new();
            for (at, start) in text.match_indices("${") {
                let Some((name, after)) = text[at + start.len()..].split_once('}') else { continue };
                // a whole word is what the value takes the place of
                let is_whole = at == 0 && after.is_empty();
                if is_whole || told.contains(&name) || !is_ours(name) {
                    continue;
                }
                told.push(name);
                let message = format!("`${{{name}}}` in a program's line is the shell's, which does not know it");
                let hint = format!("{}; a variable of the shell's own is `${name}`", as_param(name));
                problems.push(Problem::at(&place(file, item.at), message).hint(hint));
            }
        }
        Node::List(items) => items.iter().for_each(|item| misplaced(file, item, (params, axes), problems)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str, overrides: &Overrides) -> Result<Spec, Problems> {
        parse("r.yaml", PathBuf::from("."), text.into(), overrides)
    }

    const RECIPE: &str = "
params: { size: 64, device: auto }
profiles:
  smoke: { size: 32, stages: { extra: { files: '*.b' } } }
stages:
  a: { files: '*.a' }
  b: { stage: thing, from: a, size: '${size}' }
";

    fn size(spec: &Spec) -> Node {
        let stage = spec.stages.iter().find(|stanza| stanza.name == "b").unwrap();
        stage.fields.iter().find(|(key, _)| key.name == "size").unwrap().1.node.clone()
    }

    #[test]
    fn parameters_may_stand_for_one_another() {
        let text = |params: &str| format!("params: {params}\nstages:\n  b: {{ stage: thing, size: \"${{size}}\" }}\n");
        let read = |params: &str| spec(&text(params), &Overrides::default()).unwrap();
        let size = |spec: &Spec| spec.stages[0].fields.iter().find(|(key, _)| key.name == "size").unwrap().1.to_json();
        assert_eq!(size(&read("{ size: \"${all}\", all: [1, \"${one}\"], one: 2 }")), serde_json::json!([1, 2]));
        let set = Overrides { params: vec!["one=3".into()], ..Overrides::default() };
        assert_eq!(size(&spec(&text("{ size: \"${one}\", one: 2 }"), &set).unwrap()), 3);
        // `${` amid a text is a shell's
        assert_eq!(size(&read("{ size: \"a ${HOME}\" }")), "a ${HOME}");
        check(
            &text("{ size: \"${sise}\" }"),
            &["r.yaml:1:17", "`${sise}` stands for no parameter", "did you mean `size`?"],
        );
        check(&text("{ size: \"${b}\", b: \"${size}\" }"), &["parameter `size` waits for `${b}`", "with a value"]);
        let varied = format!("{}matrix: {{ seed: [1, 2] }}\n", text("{ size: \"${seed}\" }"));
        check(&varied, &["`seed` is an axis", "in the stages that vary"]);
    }

    #[test]
    fn whole_numbers_of_the_command_line_are_read_as_such() {
        let set = |param: &str| Overrides { params: vec![param.into()], ..Overrides::default() };
        let problem = spec(RECIPE, &set("size=018")).unwrap_err().to_string();
        assert!(problem.contains("`--param size=018`") && problem.contains("in quotes"), "{problem}");
        // where the recipe has a text it is one
        let plain = spec(RECIPE, &set("device=018")).unwrap();
        assert!(plain.params.iter().any(|(name, item)| name == "device" && item.node == Node::Text("018".into())));
        let set = Overrides { set: vec!["b.size=007".into()], ..Overrides::default() };
        assert!(spec(RECIPE, &set).unwrap_err().to_string().contains("`--set b.size=007`"));
    }

    #[test]
    fn the_default_profile_is_what_runs_without_any() {
        let named = |name: &str| Overrides { profile: Some(name.into()), ..Overrides::default() };
        // a recipe that does not have it
        let plain = spec(RECIPE, &named("default")).unwrap();
        assert_eq!((size(&plain), plain.profile), (Node::Int(64), None));
        // and one that does
        let text = RECIPE.replace("profiles:", "profiles:\n  default: { size: 48 }");
        for overrides in [Overrides::default(), named("default")] {
            let plain = spec(&text, &overrides).unwrap();
            assert_eq!((size(&plain), plain.profile), (Node::Int(48), None));
        }
        let smoke = spec(&text, &named("smoke")).unwrap();
        assert_eq!((size(&smoke), smoke.profile.as_deref()), (Node::Int(32), Some("smoke")));
    }

    #[test]
    fn parameters_come_from_recipe_profile_and_command_line() {
        let plain = spec(RECIPE, &Overrides::default()).unwrap();
        assert_eq!((size(&plain), plain.stages.len()), (Node::Int(64), 2));
        let mut overrides = Overrides { profile: Some("smoke".into()), ..Overrides::default() };
        let smoke = spec(RECIPE, &overrides).unwrap();
        assert_eq!((size(&smoke), smoke.stages.len()), (Node::Int(32), 3));
        overrides.params.push("size=16".into());
        assert_eq!(size(&spec(RECIPE, &overrides).unwrap()), Node::Int(16));
        overrides.set.push("b.size=8".into());
        assert_eq!(size(&spec(RECIPE, &overrides).unwrap()), Node::Int(8));
    }

    #[test]
    fn a_text_of_the_recipe_stays_one() {
        let text = "params: { size: cam03 }\nstages: { b: { stage: s, size: \"${size}\" } }";
        let given = |value: &str| {
            let overrides = Overrides { params: vec![format!("size={value}")], ..Overrides::default() };
            size(&spec(text, &overrides).unwrap())
        };
        let as_typed = |value: &str| Node::Text(value.into());
        assert_eq!([given("007"), given("1e3"), given("yes")], ["007", "1e3", "yes"].map(as_typed));
        assert_eq!(
            [given("~"), given("[1]")],
            [Node::Null, Node::List(vec![Item { at: At::default(), node: Node::Int(1) }])]
        );
    }

    fn check(text: &str, expected: &[&str]) {
        let problems = spec(text, &Overrides::default()).unwrap_err().to_string();
        for part in expected {
            assert!(problems.contains(part), "expected {part:?} in:\n{problems}");
        }
    }

    #[test]
    fn a_parameter_within_a_program_s_line_is_told_of() {
        let recipe = |top: &str, run: &str| format!("{top}\nstages: {{ b: {{ run: {run}, shell: true }} }}");
        let told = "`${steps}` in a program's line is the shell's";
        let hint = "give it as `params: { steps: \"${steps}\" }` and write `{param.steps}`";
        let line = "'echo --steps ${steps} ${steps} > {out}/y'";
        for top in ["params: { steps: 100 }", "matrix: { steps: [1, 2] }"] {
            check(&recipe(top, line), &["r.yaml:2:", told, hint]);
            let problems = spec(&recipe(top, line), &Overrides::default()).unwrap_err();
            assert_eq!(problems.0.len(), 1, "{problems}");
            check(&recipe(top, "[p, 'a${steps}']"), &[told, hint]);
        }
        // what is the shell's own, and words that are a value as a whole
        let fine = ["'echo ${HOME} ${steps:-3} $steps > {out}/y'", "'${'", "[p, '${steps}']"];
        for run in fine {
            assert!(spec(&recipe("params: { steps: 100 }", run), &Overrides::default()).is_ok(), "{run}");
        }
    }

    #[test]
    fn mistakes_are_told_with_place_and_hint() {
        check("stags: {}", &["r.yaml:1:1: a recipe has no field `stags`", "did you mean `stages`?"]);
        check("stages:\n  a: { fles: x }", &["r.yaml:2:8: stage `a` has no field `fles`", "did you mean `files`?"]);
        check("stages: { a: { files: x, rows: [] } }", &["more than once"]);
        check("params: { size: 1 }\nstages: { a: { stage: x, n: '${sise}' } }", &["`${sise}`", "did you mean `size`?"]);
        check("params: { size: 1 }\nstages: { a: { stage: x, n: 'a${size}' } }", &["mixes"]);
        check("stages: { a: 3 }", &["must be a mapping, not an integer"]);
        check("stages: {}", &["at least one stage"]);
        let missing = Overrides { profile: Some("smok".into()), ..Overrides::default() };
        assert!(spec(RECIPE, &missing).unwrap_err().to_string().contains("did you mean `smoke`?"));
    }
}
