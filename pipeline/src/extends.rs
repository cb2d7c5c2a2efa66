//! `extends:`: a recipe that says only how it differs from another one beside it, or one that came with effigy. The
//! sections of both become one, before profiles, axes and the command line are looked at.
//!
//! Knows which sections there are, and nothing of what stands in them.

use crate::error::{Problem, Problems};
use crate::fields::Fields;
use crate::sections::Sections;
use crate::spec::{A_STAGE, DEFAULT_PROFILE};
use crate::yaml::{self, At, Item, Key, Node};
use std::path::{Path, PathBuf};

/// The sections of a recipe, or of several that extend each other.
pub struct Whole {
    /// The recipe's name: the first file's word, or its own name.
    pub name: String,
    /// Parameters, stanzas, axes, variants.
    pub sections: Sections,
    /// Profiles, in order; those of one name apply one after the other.
    pub profiles: Vec<(Key, Item)>,
    /// Programs that provide stages.
    pub providers: Vec<(At, String)>,
    /// The report's items.
    pub report: Option<Item>,
    /// The files that it extends, and their text.
    pub bases: Vec<(PathBuf, String)>,
    /// Where it says that it extends another, and which.
    extends: Option<(At, String)>,
}

impl Whole {
    /// Reads a recipe's text, and the recipes that it extends: those beside it, else those of that name in the folder
    /// of what came with effigy.
    ///
    /// # Errors
    /// All that is wrong with the writing.
    pub fn read(file: &str, (dir, shipped): (&Path, Option<&Path>), text: &str) -> Result<Whole, Problems> {
        let (mut whole, mut problems) = Whole::parse(file, yaml::parse(file, text)?)?;
        // laid over each other from the last one on: what a recipe in between takes away is there before it and gone
        // after it
        let (mut above, mut bases) = (Vec::new(), Vec::new());
        let mut met = vec![dir.join(Path::new(file).file_name().unwrap_or_default())];
        let mut dir = dir.to_path_buf();
        while let Some((at, name)) = whole.extends.take() {
            let place = at.place(file);
            let wrong = |message: String, hint: &str| Problem::at(&place, message).hint(hint);
            if Path::new(&name).file_name() != Some(name.as_ref()) {
                let message = format!("`extends: {name}` names no file beside this recipe");
                problems.push(wrong(
                    message,
                    "give the name of a recipe in the same folder, for example `extends: avatar.yaml`",
                ));
                break;
            }
            let beside = dir.join(&name);
            let shipped = shipped.map(|folder| folder.join(&name)).filter(|path| !beside.exists() && path.is_file());
            let path = shipped.unwrap_or(beside);
            if met.contains(&path) {
                problems.push(wrong(format!("{name} extends itself"), "one of the recipes has to stand alone"));
                break;
            }
            met.push(path.clone());
            dir = path.parent().map_or(dir, Path::to_path_buf);
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) => {
                    let message = format!("cannot read {}, which this recipe extends: {error}", path.display());
                    problems.push(wrong(
                        message,
                        "it must be a recipe in the same folder that you may read, or one that came with effigy",
                    ));
                    break;
                }
            };
            let (base, more) = Whole::parse(&name, yaml::parse_beside(&name, &text)?)?;
            problems.extend(more);
            bases.push((path, text));
            above.push(std::mem::replace(&mut whole, base));
        }
        let sound = problems.is_empty();
        while let Some(upper) = above.pop() {
            let stages = &whole.sections.stages;
            for (key, _) in upper.sections.stages.iter().filter(|(_, item)| item.node == Node::Null) {
                let is_in_a_profile =
                    || whole.profiles.iter().any(|(_, profile)| stages_of(profile).any(|name| name == key.name));
                if sound && !stages.iter().any(|(stage, _)| stage.name == key.name) && !is_in_a_profile() {
                    let message = format!("`{}:` takes a stage away that {} does not have", key.name, whole.name);
                    let problem = Problem::at(&key.at.place(file), message);
                    problems.push(problem.did_you_mean(&key.name, stages.iter().map(|(stage, _)| stage.name.as_str())));
                }
            }
            whole = upper.over(whole);
        }
        whole.bases = bases;
        let stages = whole.sections.stages.is_empty();
        if stages && problems.is_empty() {
            let problem = Problem::at(
                &At { line: 1, column: 1, ..At::default() }.place(file),
                "a recipe needs at least one stage",
            );
            problems.push(problem.hint(format!("for example `stages: {A_STAGE}`")));
        }
        if problems.is_empty() { Ok(whole) } else { Err(Problems(problems)) }
    }

    /// One file's sections, and what is wrong with them.
    fn parse(file: &str, root: Item) -> Result<(Whole, Vec<Problem>), Problem> {
        let mut top = Fields::of(file, "a recipe", root, &format!("stages: {A_STAGE}"))?;
        let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or("recipe").to_string();
        let name = top.text("recipe").map_or(stem, |(_, name)| name);
        let extends = top.text("extends");
        let mut section = |name: &str| top.map(name).map_or(Vec::new(), |(_, items)| items);
        let (params, matrix, variants) = (section("params"), section("matrix"), section("variants"));
        let profiles = section("profiles");
        let providers = top.texts("providers").unwrap_or_default();
        let stages = top.map("stages");
        let report = top.take("report");
        if extends.is_none() && top.problems.is_empty() {
            match &stages {
                None => top.missing("stages", &format!("for example `stages: {A_STAGE}`")),
                Some((at, stages)) if stages.is_empty() => {
                    top.wrong(*at, "a recipe needs at least one stage", format!("for example `stages: {A_STAGE}`"));
                }
                Some(_) => {}
            }
        }
        let sections = Sections { params, stages: stages.unwrap_or_default().1, matrix, variants };
        let whole = Whole { name, sections, profiles, providers, report, bases: Vec::new(), extends };
        Ok((whole, top.finish()))
    }

    /// These sections laid over those of a base: what has the same name replaces, also what the base's profiles say of
    /// a stage, a stanza of nothing takes away, also what the base's report says of it, profiles of one name apply one
    /// after the other, and a report is there as a whole or is the base's.
    fn over(self, base: Whole) -> Whole {
        let Whole { name, sections, profiles, providers, report, bases, extends } = self;
        let (mut inherited, mut told) = (base.profiles, base.report);
        // a profile of the base says how the base's stage is otherwise, not how this one is
        for (own, _) in &sections.stages {
            inherited.iter_mut().for_each(|(_, profile)| forget(profile, &own.name));
        }
        // nor is a parameter that this one sets the base's when nobody chose a profile
        for (own, _) in &sections.params {
            let unchosen = inherited.iter_mut().filter(|(key, _)| key.name == DEFAULT_PROFILE);
            unchosen.for_each(|(_, profile)| forget_param(profile, &own.name));
        }
        let mut stages = laid(base.sections.stages, sections.stages);
        let mut variants = base.sections.variants;
        for (gone, _) in stages.extract_if(.., |(_, item)| item.node == Node::Null) {
            told.iter_mut().for_each(|report| leave_out(report, &gone.name));
            variants.iter_mut().for_each(|(_, variant)| forget(variant, &gone.name));
        }
        Whole {
            name,
            sections: Sections {
                params: laid(base.sections.params, sections.params),
                stages,
                matrix: laid(base.sections.matrix, sections.matrix),
                variants: laid(variants, sections.variants),
            },
            profiles: inherited.into_iter().chain(profiles).collect(),
            providers: base.providers.into_iter().chain(providers).collect(),
            report: report.or(told),
            bases,
            extends,
        }
    }

    /// The profiles to apply for the one of a name, in order: a profile may begin with another, by `profile: NAME`.
    ///
    /// # Errors
    /// If there is none of that name, or it begins with itself.
    pub fn chosen(&self, file: &str, wanted: &str) -> Result<Vec<(Key, Item)>, Problem> {
        let mut chosen = Vec::new();
        self.choose(file, wanted, &mut Vec::new(), &mut chosen)?;
        Ok(chosen)
    }

    fn choose(
        &self,
        file: &str,
        wanted: &str,
        met: &mut Vec<String>,
        chosen: &mut Vec<(Key, Item)>,
    ) -> Result<(), Problem> {
        met.push(wanted.into());
        for (key, item) in self.profiles.iter().filter(|(key, _)| key.name == wanted) {
            let mut item = item.clone();
            if let Node::Map(items) = &mut item.node
                && let Some(i) = items.iter().position(|(key, _)| key.name == "profile")
            {
                let (at, first) = (items[i].0.at, items.remove(i).1);
                let place = at.place(file);
                let names = || self.profiles.iter().map(|(key, _)| key.name.as_str());
                let Node::Text(first) = &first.node else {
                    let message = format!("`profile` of profile `{wanted}` must be a name, not {}", first.node.what());
                    return Err(Problem::at(&place, message).hint("for example `profile: smoke`"));
                };
                if met.contains(first) {
                    let problem = Problem::at(&place, format!("profile `{first}` begins with itself"));
                    return Err(problem.hint("one of the profiles has to stand alone"));
                }
                if !names().any(|name| name == first) {
                    let problem = Problem::at(&place, format!("the recipe has no profile `{first}`"));
                    return Err(problem.did_you_mean(first, names()));
                }
                self.choose(file, first, met, chosen)?;
            }
            chosen.push((key.clone(), item));
        }
        met.pop();
        Ok(())
    }
}

/// The stages of which a profile says something.
fn stages_of(profile: &Item) -> impl Iterator<Item = &str> {
    let sections = if let Node::Map(sections) = &profile.node { &sections[..] } else { &[] };
    let stages = sections.iter().filter(|(key, _)| key.name == "stages");
    let stages = stages.filter_map(|(_, item)| if let Node::Map(stages) = &item.node { Some(stages) } else { None });
    stages.flatten().map(|(key, _)| key.name.as_str())
}

/// Takes what a profile says of a stage out of it.
fn forget(profile: &mut Item, stage: &str) {
    let Node::Map(sections) = &mut profile.node else { return };
    // a variant says it in one line
    sections.retain(|(key, _)| key.name.strip_prefix(stage).is_none_or(|rest| !rest.starts_with('.')));
    if let Some((_, stages)) = sections.iter_mut().find(|(key, _)| key.name == "stages")
        && let Node::Map(stages) = &mut stages.node
    {
        stages.retain(|(key, _)| key.name != stage);
    }
}

/// Takes the value of a parameter out of a profile.
fn forget_param(profile: &mut Item, name: &str) {
    if let Node::Map(sections) = &mut profile.node {
        sections.retain(|(key, _)| key.name != name);
    }
}

/// Takes the items of a report that show a stage out of it, and the stage out of those that show several.
fn leave_out(report: &mut Item, stage: &str) {
    let gone = Node::Text(stage.into());
    let shows = |(key, item): &(Key, Item)| match key.name.as_str() {
        "table" | "images" | "curve" | "videos" => item.node == gone,
        "rates" => item.node == Node::List(Vec::new()),
        _ => false,
    };
    let Node::List(items) = &mut report.node else { return };
    for item in &mut *items {
        let Node::Map(fields) = &mut item.node else { continue };
        let rates = fields.iter_mut().find(|(key, _)| key.name == "rates");
        if let Some((_, Item { node: Node::List(stages), .. })) = rates {
            stages.retain(|item| item.node != gone);
            fields.retain(|(key, item)| key.name != "count" || item.node != gone);
        }
    }
    items.retain(|item| !matches!(&item.node, Node::Map(fields) if fields.iter().any(shows)));
}

/// Entries over others: those of the same name in their place, new ones behind.
fn laid(mut below: Vec<(Key, Item)>, above: Vec<(Key, Item)>) -> Vec<(Key, Item)> {
    for (key, item) in above {
        match below.iter_mut().find(|(old, _)| old.name == key.name) {
            Some(old) => *old = (key, item),
            None => below.push((key, item)),
        }
    }
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_beside_goes_before_one_that_came_with_effigy() {
        let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bases = |text: &str| {
            let whole = Whole::read("my.yaml", (dir.path(), Some(folder.path())), text);
            let whole = whole.map_err(|problems| problems.to_string())?;
            Ok::<_, String>(whole.bases.into_iter().map(|(path, _)| path).collect::<Vec<_>>())
        };
        let shipped = |name: &str| folder.path().join(name);
        std::fs::write(shipped("avatar.yaml"), "stages: { a: { rows: [{ x: 2 }] } }").unwrap();
        std::fs::write(shipped("ablations.yaml"), "extends: avatar.yaml").unwrap();
        assert_eq!(bases("extends: avatar.yaml").unwrap(), [shipped("avatar.yaml")]);
        // whose own base lies beside it, not beside us
        assert_eq!(bases("extends: ablations.yaml").unwrap(), [shipped("ablations.yaml"), shipped("avatar.yaml")]);
        std::fs::write(dir.path().join("avatar.yaml"), "extends: ablations.yaml").unwrap();
        let chain = [dir.path().join("avatar.yaml"), shipped("ablations.yaml"), shipped("avatar.yaml")];
        assert_eq!(bases("extends: avatar.yaml").unwrap(), chain);
        std::fs::write(dir.path().join("avatar.yaml"), "stages: { a: { rows: [{ x: 1 }] } }").unwrap();
        assert_eq!(bases("extends: avatar.yaml").unwrap(), [dir.path().join("avatar.yaml")]);
        let error = bases("extends: nobody.yaml").unwrap_err();
        assert!(error.contains("cannot read") && error.contains("or one that came with effigy"), "{error}");
    }
}
