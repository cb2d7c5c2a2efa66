//! `effigy completions`: what a shell has to know to complete our words.

use super::{DONE, Line};
use anyhow::Result;
use clap::CommandFactory;
use std::io::Write;

/// Print completions for a shell, for example: effigy completions bash >
/// ~/.local/share/bash-completion/completions/effigy
#[derive(clap::Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Completions {
    /// Prints them.
    pub fn run(self) -> Result<u8> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Line::command(), "effigy", &mut text);
        // who closed the pipe has seen enough
        let _ = std::io::stdout().write_all(&text);
        Ok(DONE)
    }
}
