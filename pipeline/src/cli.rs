//! The command line: arguments, dispatch, exit codes. Only here, and below, is anything printed or the environment
//! read.

mod attach;
mod cache;
mod check;
mod choice;
mod completions;
mod diff;
mod doctor;
mod export;
mod graph;
mod grid;
mod host;
mod import;
mod init;
mod live;
mod load;
mod past;
mod place;
mod plan;
mod progress;
mod provider;
mod recipes;
mod remote;
mod report;
mod run;
mod serve;
mod show;
mod stages;
mod status;
mod table;
mod trace;
mod why;
mod work;

use crate::command::quote;
use crate::error::{Place, Problem, Problems};
use crate::hints::hint_of;
use crate::memory::Store;
use crate::spec::DEFAULT_PROFILE;
use ::cache::{Cache, Error, layout};
use clap::{Args, Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// The workspace, if nobody names one.
const WORKSPACE: &str = ".effigy";
/// Everything went well.
const DONE: u8 = 0;
/// A stage failed.
const FAILED: u8 = 1;
/// The user's input is wrong.
const WRONG: u8 = 2;
/// The user stopped it.
const INTERRUPTED: u8 = 130;

/// Runs recipes: stages over tables of rows, each row computed once.
#[derive(Parser)]
#[command(name = "effigy", version, arg_required_else_help = true, max_term_width = 100)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(run::Run),
    Attach(attach::Attach),
    Plan(plan::Plan),
    Why(why::Why),
    Show(show::Show),
    Export(export::Export),
    Status(status::Status),
    Log(status::Log),
    Diff(diff::Diff),
    Trace(trace::Trace),
    Graph(graph::Graph),
    Init(init::Init),
    Recipes(recipes::Recipes),
    Stages(stages::Stages),
    Provider(provider::Provider),
    Import(import::Import),
    Report(report::Report),
    Table(table::Table),
    Serve(serve::Serve),
    Cache(cache::Cache),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
    Work(work::Work),
}

/// Which recipe, and what about it is different this time.
#[derive(Args, Clone, Debug)]
struct RecipeArgs {
    /// The recipe: a file, or the name of one that came with effigy
    recipe: String,
    /// Apply this profile of the recipe [default: default]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Set a parameter of the recipe (may be given more than once)
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Set a field of a stage (may be given more than once)
    #[arg(long = "set", value_name = "STAGE.FIELD=VALUE")]
    set: Vec<String>,
    /// Only this variant, or this value of an axis; of other axes all (may be given more than once)
    #[arg(long = "variant", value_name = "NAME|AXIS=VALUE")]
    variants: Vec<String>,
    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// Where things are kept.
#[derive(Args, Clone, Debug)]
struct WorkspaceArgs {
    /// The folder for everything that is computed [default: .effigy]
    #[arg(long, value_name = "DIR", default_value = WORKSPACE, hide_default_value = true)]
    workspace: PathBuf,
}

/// The `main` of `effigy`.
pub fn main() -> ExitCode {
    let line = Line::parse();
    let outcome = match line.verb {
        Verb::Run(verb) => verb.run(),
        Verb::Attach(verb) => verb.run(),
        Verb::Plan(verb) => verb.run(),
        Verb::Why(verb) => verb.run(),
        Verb::Show(verb) => verb.run(),
        Verb::Export(verb) => verb.run(),
        Verb::Status(verb) => verb.run(),
        Verb::Log(verb) => verb.run(),
        Verb::Diff(verb) => verb.run(),
        Verb::Trace(verb) => verb.run(),
        Verb::Graph(verb) => verb.run(),
        Verb::Init(verb) => verb.run(),
        Verb::Recipes(verb) => verb.run(),
        Verb::Stages(verb) => verb.run(),
        Verb::Provider(verb) => verb.run(),
        Verb::Import(verb) => verb.run(),
        Verb::Report(verb) => verb.run(),
        Verb::Table(verb) => verb.run(),
        Verb::Serve(verb) => verb.run(),
        Verb::Cache(verb) => verb.run(),
        Verb::Doctor(verb) => verb.run(),
        Verb::Completions(verb) => verb.run(),
        Verb::Work(verb) => verb.run(),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(complain(&error)),
    }
}

/// Prints a line. Whoever reads it may have seen enough and closed the pipe: then we are done.
fn print(text: &str) {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(i32::from(DONE)),
        Err(error) => {
            remark(&format!("error: cannot write to standard output: {error}\n  hint: is there room where it goes?"));
            std::process::exit(i32::from(FAILED));
        }
    }
}

/// A text on one line without what a terminal would obey: names and values come from files and programs.
fn clean(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Prints a line that holds names or values.
fn say(text: &str) {
    print(&clean(text));
}

/// Says lines on standard error, without what a terminal would obey. A log that takes no more is no reason to end.
fn remark(text: &str) {
    let text = text.replace(|c: char| c.is_control() && !"\n\t".contains(c), " ");
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says what went wrong; gives the exit code that goes with it.
fn complain(error: &anyhow::Error) -> u8 {
    if let Some(problems) = error.downcast_ref::<Problems>() {
        for problem in &problems.0 {
            remark(&format!("error: {problem}"));
        }
        return WRONG;
    }
    let hint = hint_of(error)
        .unwrap_or_else(|| "`effigy doctor` tells whether this machine and the workspace are sound".into());
    remark(&format!("error: {}\n  hint: {hint}", crate::run::sentence(error)));
    let busy = error.chain().any(|cause| matches!(cause.downcast_ref(), Some(Error::Busy { .. })));
    if busy { WRONG } else { FAILED }
}

impl WorkspaceArgs {
    /// What was said of the workspace, as it is typed.
    fn typed(&self) -> String {
        let workspace = self.workspace.display().to_string();
        if workspace == WORKSPACE { String::new() } else { format!(" --workspace {}", quote(&workspace)) }
    }

    /// Opens it; makes it if it is not there.
    ///
    /// # Errors
    /// If it cannot be a workspace, or somebody else has it.
    fn open(&self) -> anyhow::Result<Cache> {
        if self.workspace.exists() && !self.workspace.is_dir() {
            let message = format!("the workspace {} is a file, not a folder", self.workspace.display());
            return Err(Problem::at(&Place::command_line(), message).hint("`--workspace DIR` names another").into());
        }
        Ok(Cache::open(&self.workspace, host::VERSION)?)
    }

    /// Says so if there is no workspace: what only looks after one makes none.
    fn must_be_there(&self) -> Result<(), Problem> {
        // a folder of another kind is none, and does not become one
        let is_one = [layout::RECORDS, layout::LOCK].iter().any(|name| self.workspace.join(name).exists());
        if is_one {
            return Ok(());
        }
        let message = format!("there is no workspace {}", self.workspace.display());
        Err(Problem::new(message).hint("`effigy run RECIPE` makes one; `--workspace DIR` names another"))
    }
}

impl RecipeArgs {
    /// `--param` and `--set`, as they were typed.
    fn overrides(&self) -> Vec<String> {
        self.params.iter().chain(&self.set).cloned().collect()
    }

    /// The profile that what runs is kept under.
    fn kept_profile(&self) -> Option<&str> {
        self.profile.as_deref().filter(|profile| *profile != DEFAULT_PROFILE)
    }

    /// How a run of it is called for.
    fn called(&self) -> crate::record::Called {
        crate::record::Called { overrides: self.overrides(), variants: self.variants.clone() }
    }

    /// The recipe and all that was said of it, with this profile, as it is typed. A stage stands behind the recipe.
    fn typed(&self, stage: Option<&str>, profile: Option<&str>) -> String {
        let mut words = vec![quote(&self.recipe)];
        words.extend(stage.map(quote));
        words.extend(profile.map(|profile| format!("--profile {}", quote(profile))));
        words.extend(self.params.iter().map(|text| format!("--param {}", quote(text))));
        words.extend(self.set.iter().map(|text| format!("--set {}", quote(text))));
        words.extend(self.variants.iter().map(|text| format!("--variant {}", quote(text))));
        words.join(" ") + &self.workspace.typed()
    }

    /// Says that a command needs a run that was not there, and how to have it: by running the recipe, or, if another of
    /// its profiles did run, by asking for that: what ran is remembered for each profile alone.
    fn not_run(&self, message: &str, verb: &str, stage: Option<&str>, loaded: &load::Loaded, store: &Store) -> u8 {
        let spec = &loaded.plan.spec;
        let named = || spec.profiles.iter().map(String::as_str).filter(|name| *name != DEFAULT_PROFILE);
        let profiles = || std::iter::once(None).chain(named().map(Some));
        let ran = |profile: Option<&str>| {
            let stages = store.load(&loaded.recipe, profile).stages;
            stage.map_or(!stages.is_empty(), |stage| stages.contains_key(stage))
        };
        let only = stage.map_or(String::new(), |stage| format!(" --only {}", quote(stage)));
        let mut hint = format!("effigy run {}{only}", self.typed(None, self.profile.as_deref()));
        if let Some(other) = profiles().find(|other| *other != spec.profile.as_deref() && ran(*other)) {
            let named = other.map_or("without `--profile`".into(), |name| format!("with `--profile {name}`"));
            // what such a command takes besides the recipe
            let more = match verb {
                "export" => " --to DIR",
                "trace" => " STAGE",
                _ => "",
            };
            hint += &format!("\n  or, since it was run {named}: effigy {verb} {}{more}", self.typed(stage, other));
        }
        let asked: Vec<String> =
            spec.profile.iter().map(|profile| format!("`--profile {profile}`")).chain(self.overrides()).collect();
        let with = if asked.is_empty() { String::new() } else { format!(" with {}", asked.join(" and ")) };
        let workspace = self.workspace.workspace.display();
        remark(&format!("error: {message}{with} in the workspace {workspace}\n  hint: {hint}"));
        FAILED
    }
}

impl From<Problem> for anyhow::Error {
    fn from(problem: Problem) -> anyhow::Error {
        Problems::from(problem).into()
    }
}

/// The folders in which programs are looked up; without a PATH, the shell's own default holds.
pub fn path_dirs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    std::env::split_paths(&path).collect()
}
