//! `effigy import`: what a capture on disk has and lacks. The answer is that of the provider that came with effigy,
//! which knows the layouts; here its words are passed on.

use super::load;
use crate::hints::hinted;
use anyhow::{Context, Result};
use std::process::Command;

/// List what a capture on disk has, what is missing, and what that prevents
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Import {
    /// A layout, `nersemble`, and a folder; `effigy import --help` says more
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "LAYOUT FOLDER")]
    words: Vec<String>,
}

impl Import {
    /// Asks.
    pub fn run(self) -> Result<u8> {
        let provider = load::default_provider()
            .ok_or_else(|| hinted("effigy-stages, which knows layouts, is not beside effigy", "make build"))?;
        let mut command = Command::new(&provider.argv[0]);
        let status = command.args(&provider.argv[1..]).arg("import").args(&self.words).status();
        let status = status.with_context(|| format!("cannot start {}", provider.argv[0]))?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(super::FAILED))
    }
}
