//! The command line: arguments, dispatch, exit codes. Only here, and below, is anything printed or the environment read.

mod cache;
mod doctor;
mod host;
mod live;
mod load;
mod plan;
mod progress;
mod record;
mod report;
mod run;
mod show;
mod stages;
mod status;
mod why;

use crate::error::{Problem, Problems};
use ::cache::Error;
use clap::{Args, Parser, Subcommand};
use std::io::Write;
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
    Plan(plan::Plan),
    Why(why::Why),
    Show(show::Show),
    Status(status::Status),
    Log(status::Log),
    Stages(stages::Stages),
    Report(report::Report),
    Cache(cache::Cache),
    Doctor(doctor::Doctor),
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
        Verb::Plan(verb) => verb.run(),
        Verb::Why(verb) => verb.run(),
        Verb::Show(verb) => verb.run(),
        Verb::Status(verb) => verb.run(),
        Verb::Log(verb) => verb.run(),
        Verb::Stages(verb) => verb.run(),
        Verb::Report(verb) => verb.run(),
        Verb::Cache(verb) => verb.run(),
        Verb::Doctor(verb) => verb.run(),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(complain(&error)),
    }
}

/// Prints a line. Whoever reads it may have seen enough and closed the pipe: then we are done.
fn print(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(i32::from(DONE));
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
    match error.chain().find_map(|cause| cause.downcast_ref::<Error>()) {
        Some(Error::Busy { .. }) => {
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
