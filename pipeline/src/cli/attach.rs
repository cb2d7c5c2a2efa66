//! `effigy attach`: goes on with a run that was detached from its jobs on a cluster.

use super::{Line, Verb, WorkspaceArgs};
use crate::error::{Place, Problem};
use crate::executor::Left;
use anyhow::{Context, Result};
use clap::Parser;

/// Go on with a run whose jobs were left on a cluster (`effigy run --detach`)
#[derive(clap::Args)]
pub struct Attach {
    #[command(flatten)]
    workspace: WorkspaceArgs,
}

impl Attach {
    /// Runs what was called for, from the same folder. Its jobs are found by what they work on.
    pub fn run(self) -> Result<u8> {
        let Some(left) = Left::of(&self.workspace.workspace) else {
            let message = format!("no run has left jobs in {}", self.workspace.workspace.display());
            let hint = "`effigy run RECIPE --executor slurm --detach` does when it is interrupted";
            return Err(Problem::at(&Place::command_line(), message).hint(hint).into());
        };
        let (folder, words) = left.call;
        std::env::set_current_dir(&folder).with_context(|| format!("cannot go to {}", folder.display()))?;
        match Line::try_parse_from(&words)?.verb {
            Verb::Run(verb) => verb.attach(),
            _ => unreachable!("only `run` leaves jobs"),
        }
    }
}
