//! `effigy init`: a recipe to begin with.

use super::{DONE, print};
use crate::command::quote;
use crate::error::{Place, Problem};
use crate::memory;
use anyhow::Result;
use std::path::PathBuf;

/// Write a small commented recipe that runs as it is
#[derive(clap::Args)]
pub struct Init {
    /// The file to write
    #[arg(default_value = "recipe.yaml")]
    file: PathBuf,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
}

const RECIPE: &str = include_str!("init.yaml");

impl Init {
    /// Writes it.
    pub fn run(self) -> Result<u8> {
        let shown = self.file.display().to_string();
        if self.file.is_dir() {
            let problem = Problem::at(&Place::command_line(), format!("{shown} is a folder"));
            return Err(problem
                .hint(format!("name a file in it: `effigy init {}`", quote(&format!("{shown}/recipe.yaml"))))
                .into());
        }
        if self.file.exists() && !self.force {
            let problem = Problem::at(&Place::command_line(), format!("{shown} is there already"));
            return Err(problem.hint("give another name, or `--force` to write over it").into());
        }
        // by its absolute path: a bare name lies in no folder
        memory::write(&std::path::absolute(&self.file)?, RECIPE.as_bytes())?;
        let name = quote(&shown);
        print(&format!(
            "{shown} is written; try\n  effigy run {name}\n  effigy show {name} counted\n  effigy plan {name} --param copies=5"
        ));
        Ok(DONE)
    }
}
