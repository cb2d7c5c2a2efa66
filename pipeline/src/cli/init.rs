//! `effigy init`: a recipe to begin with.

use super::{DONE, print};
use crate::command::quote;
use crate::error::{Place, Problem};
use crate::memory;
use anyhow::Result;
use std::path::{Path, PathBuf};

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
/// The line of it that names the recipe.
const NAME: &str = "recipe: words\n";
/// What is no text to readers of YAML.
const WORDS: [&str; 11] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"];

/// The name of a recipe in this file: the file's own, with signs that every text may have.
fn name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let plain = |c: char| if c.is_alphanumeric() || "_-.".contains(c) { c } else { '_' };
    let name: String = stem.chars().map(plain).collect();
    // in quotes if YAML would read something else: a number, or a word of its own
    let is_text = name.starts_with(char::is_alphabetic) && !WORDS.contains(&name.to_lowercase().as_str());
    if is_text { name } else { format!("\"{name}\"") }
}

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
        let text = RECIPE.replacen(NAME, &format!("recipe: {}\n", name(&self.file)), 1);
        memory::write(&std::path::absolute(&self.file)?, text.as_bytes())?;
        let name = quote(&shown);
        print(&format!(
            "{shown} is written; try\n  effigy run {name}\n  effigy show {name} counted\n  effigy plan {name} --param copies=5"
        ));
        Ok(DONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_named_by_its_file() {
        assert_eq!(RECIPE.matches(NAME).count(), 1);
        let named = |file: &str| name(Path::new(file));
        assert_eq!(named("a/my-words.yaml"), "my-words");
        assert_eq!(named("two words: #1.yaml"), "two_words___1");
        for (file, expected) in [("12.yaml", "\"12\""), ("No.yaml", "\"No\""), (".yaml", "\".yaml\"")] {
            assert_eq!(named(file), expected);
        }
    }
}
