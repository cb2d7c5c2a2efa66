//! From arguments to a plan: finds the recipe and the providers, reads, plans.

use super::{RecipeArgs, WorkspaceArgs, host};
use crate::error::{Place, Problem, Problems};
use crate::plan::{Plan, Work, plan};
use crate::provider::{self, Candidate, Provider};
use crate::record;
use crate::rest::Call;
use crate::spec::{Does, Overrides, Spec, read};
use anyhow::Result;
use cache::Fingerprint;
use cache::layout;
use std::path::{Path, PathBuf};

/// A planned recipe.
pub struct Loaded {
    /// The plan.
    pub plan: Plan,
    /// The recipe's file, absolute: names its memory.
    pub recipe: PathBuf,
    /// That file and those of the providers, as they were before they were read.
    pub seen: Vec<(PathBuf, Option<Fingerprint>)>,
    /// Whether these files tell if the providers would say the same again.
    pub can_rest: bool,
}

/// Reads and plans a recipe.
pub fn load(args: &RecipeArgs) -> Result<Loaded> {
    let path = find(&args.recipe)?;
    planned(args, &path).map_err(|error| match error.downcast::<Problems>() {
        Ok(problems) => called_otherwise(problems, args, &path).into(),
        Err(error) => error,
    })
}

/// Tells what the last run of a recipe was called with that this call is not, if the recipe is not right as it is
/// called.
fn called_otherwise(mut problems: Problems, args: &RecipeArgs, path: &Path) -> Problems {
    let recipe = place(path);
    let runs = record::names(&args.workspace.workspace);
    let mut last = runs.iter().rev().filter_map(|run| record::read(&args.workspace.workspace, run));
    let last = last.find(|run| Path::new(&run.path) == recipe);
    let asked = args.overrides();
    let more: Vec<String> =
        last.map_or(Vec::new(), |run| run.overrides.into_iter().filter(|text| !asked.contains(text)).collect());
    if let (Some(problem), false) = (problems.0.last_mut(), more.is_empty()) {
        let told = format!("the last run of this recipe was called with {} as well", more.join(" and "));
        problem.hint = Some(problem.hint.take().map_or(told.clone(), |hint| format!("{hint}; {told}")));
    }
    problems
}

fn planned(args: &RecipeArgs, path: &Path) -> Result<Loaded> {
    let overrides = Overrides {
        profile: args.profile.clone(),
        params: args.params.clone(),
        set: args.set.clone(),
        variants: args.variants.clone(),
        packages: packages_folder(),
        shipped: shipped_folder(),
    };
    let recipe = place(path);
    let mut seen = vec![(recipe.clone(), Fingerprint::of(&recipe).ok())];
    let spec = read(path, &overrides)?;
    seen.extend(spec.bases.iter().map(|base| (base.clone(), Fingerprint::of(base).ok())));
    // one that came with effigy is extended as long as none of its name lies beside the recipe
    let beside = spec.bases.iter().filter_map(|base| Some(spec.dir.join(base.file_name()?)));
    seen.extend(beside.map(|path| (path.clone(), Fingerprint::of(&path).ok())));
    let providers = providers(&spec, &args.workspace)?;
    for provider in &providers {
        seen.extend(provider.prints.iter().map(|(path, seen)| (path.clone(), Some(*seen))));
    }
    let can_rest = providers.iter().all(|provider| !provider.prints.is_empty());
    let plan = plan(spec, providers)?;
    // a parameter's file is found beside a recipe that is extended as long as none of its name lies beside this one
    for node in &plan.nodes {
        let Work::Units(stage) = &node.work else { continue };
        for (name, _) in &stage.files {
            let Some(serde_json::Value::String(text)) = stage.params.get(name) else { continue };
            let own = plan.spec.dir.join(text);
            if !text.starts_with("package:") && !own.exists() {
                seen.push((own, None));
            }
        }
    }
    Ok(Loaded { plan, recipe, seen, can_rest })
}

/// How a run is called for; `None` if the recipe or the program is not to be found.
pub fn call<'a>(args: &'a RecipeArgs, recipe: &'a Path, out: &Path) -> Option<Call<'a>> {
    let program = std::env::current_exe().ok()?;
    let print = Fingerprint::of(&program).ok()?;
    let out = std::path::absolute(out).ok()?;
    Some(Call {
        program: (program, print, host::VERSION),
        recipe,
        overrides: [&args.params, &args.set, &args.variants],
        folders: (packages_folder(), super::path_dirs(), out),
    })
}

/// The providers of a recipe; none is asked if no stage needs one.
pub fn providers(spec: &Spec, workspace: &WorkspaceArgs) -> Result<Vec<Provider>> {
    if !spec.stages.iter().any(|stanza| stanza.does == Does::Stage) {
        return Ok(Vec::new());
    }
    let mut candidates: Vec<Candidate> =
        spec.providers.iter().map(|(at, words)| provider::of_words(words, &spec.dir, spec.place(*at))).collect();
    candidates.extend(default_provider());
    Ok(provider::ask_all(&candidates, &workspace.workspace.join(layout::PROVIDERS))?)
}

/// Where `make setup` puts data packages.
pub fn packages_folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap_or_default();
    cache.join("effigy/downloads")
}

/// The provider that came with effigy.
pub fn default_provider() -> Option<Candidate> {
    provider::beside(&std::env::current_exe().ok()?)
}

/// The recipe's file, absolute, if there is one.
pub fn recipe(args: &RecipeArgs) -> Option<PathBuf> {
    find(&args.recipe).ok().map(|path| place(&path)).filter(|path| path.exists())
}

/// Which recipe a path means, absolute: a link to a recipe is one of its own, because what it names lies beside the
/// link.
pub fn place(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let whole = || Some(folder.canonicalize().ok()?.join(path.file_name()?));
    whole().unwrap_or(path.into())
}

/// The YAML files of the folder that a path is in, as they would be typed.
fn beside(path: &Path) -> Vec<String> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(listed).into_iter().flatten().flatten();
    let files = entries.map(|entry| folder.join(entry.file_name()));
    let recipe = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
    let mut names: Vec<String> = files.filter(recipe).map(|file| file.display().to_string()).collect();
    names.sort();
    names
}

/// The recipe's file: a path, or the name of one that came with effigy.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_file() {
        return Ok(path.into());
    }
    let shipped = shipped_folder();
    let plain = !name.contains('/');
    if let Some(folder) = shipped.as_ref().filter(|_| plain) {
        for candidate in [folder.join(name), folder.join(format!("{name}.yaml"))] {
            if candidate.is_file() {
                return Ok(nearer(&candidate));
            }
        }
    }
    let mut known = shipped.filter(|_| plain).map_or(Vec::new(), |folder| shipped_names(&folder));
    known.extend(beside(path));
    let problem = Problem::at(&Place::command_line(), format!("there is no recipe `{name}`"));
    let problem = problem.did_you_mean(name, known.iter().map(String::as_str));
    Err(problem.or_hint("give the path of a YAML file, relative to the folder you are in; `effigy recipes` lists what came with effigy").into())
}

/// A path relative to where we are, if it lies below: messages are shorter so.
pub fn nearer(path: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf));
    relative.unwrap_or_else(|| path.to_path_buf())
}

/// `pipeline/recipes` of the tree that the program was built in.
pub fn shipped_folder() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    exe.ancestors().skip(1).map(|dir| dir.join("pipeline/recipes")).find(|folder| folder.is_dir())
}

/// The names of the recipes of that folder, in order.
pub fn shipped_names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let yaml = names.filter(|path| path.extension().is_some_and(|ext| ext == "yaml"));
    let mut names: Vec<String> = yaml.filter_map(|path| Some(path.file_stem()?.to_str()?.to_string())).collect();
    names.sort();
    names
}
