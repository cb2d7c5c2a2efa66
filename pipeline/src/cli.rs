//! The command line: arguments, dispatch, exit codes. Only here, and below, is anything printed or the environment read.

mod host;
mod load;
mod progress;
mod record;
mod run;
mod show;
mod stages;

use crate::error::{Problem, Problems};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

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
    Show(show::Show),
    Stages(stages::Stages),
}

/// Which recipe, and what about it is different this time.
#[derive(Args, Clone, Debug)]
struct RecipeArgs {
    /// The recipe: a file, or the name of one that came with effigy
    recipe: String,
    /// Apply this profile of the recipe
    #[arg(long)]
    profile: Option<String>,
    /// Set a parameter of the recipe (may be given more than once)
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Set a field of a stage (may be given more than once)
    #[arg(long = "set", value_name = "STAGE.FIELD=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    workspace: WorkspaceArgs,
}

/// Where things are kept.
#[derive(Args, Clone, Debug)]
struct WorkspaceArgs {
    /// The folder for everything that is computed [default: .effigy]
    #[arg(long, value_name = "DIR", default_value = ".effigy", hide_default_value = true)]
    workspace: PathBuf,
}

/// The `main` of `effigy`.
pub fn main() -> ExitCode {
    let line = Line::parse();
    let outcome = match line.verb {
        Verb::Run(verb) => verb.run(),
        Verb::Show(verb) => verb.run(),
        Verb::Stages(verb) => verb.run(),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(complain(&error)),
    }
}

/// Says what went wrong; gives the exit code that goes with it.
fn complain(error: &anyhow::Error) -> u8 {
    if let Some(problems) = error.downcast_ref::<Problems>() {
        for problem in &problems.0 {
            eprintln!("error: {problem}");
        }
        return WRONG;
    }
    eprintln!("error: {}", crate::run::sentence(error));
    match error.chain().find_map(|cause| cause.downcast_ref::<cache::Error>()) {
        Some(cache::Error::Busy { .. }) => {
            eprintln!("  hint: wait until it is done, or use another folder with --workspace");
            WRONG
        }
        Some(error) if error.is_full() => {
            eprintln!("  hint: make room and run again; what was finished is kept");
            FAILED
        }
        _ => FAILED,
    }
}

impl From<Problem> for anyhow::Error {
    fn from(problem: Problem) -> anyhow::Error {
        Problems::from(problem).into()
    }
}

/// The folders in which programs are looked up.
pub fn path_dirs() -> Vec<PathBuf> {
    std::env::var_os("PATH").map_or(Vec::new(), |path| std::env::split_paths(&path).collect())
}
