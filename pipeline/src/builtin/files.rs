//! `files: PATTERN`: a row for each file that matches: `path` (relative, text) and `file` (blob), sorted by path.
//!
//! `*` and `?` match within a name, `**` across folders, `{a,b}` either. Hidden names match only a pattern that names them.
//! Files are not copied: their content is known by fingerprint, and programs read them where they lie.

use crate::error::Problem;
use crate::fields::Fields;
use crate::key::Facts;
use crate::yaml::{At, Item};
use anyhow::{Context, Result};
use cache::Cache;
use globset::{GlobBuilder, GlobMatcher};
use manifests::{Blob, Manifest, Schema, Type, Value};
use std::path::{Path, PathBuf};

/// The stage.
#[derive(Clone, Debug)]
pub struct Files {
    patterns: Vec<String>,
    root: PathBuf,
}

impl Files {
    /// Understands the stanza.
    pub fn parse(what: &Item, fields: &mut Fields<'_>, dir: &Path) -> Option<Files> {
        let Some(patterns) = crate::fields::texts_of(what) else {
            fields.wrong(what.at, format!("`files:` takes a pattern or a list of patterns, not {}", what.node.what()));
            return None;
        };
        let root = match fields.text("root") {
            Some((at, root)) => {
                let root = dir.join(root);
                if !root.is_dir() {
                    fields.wrong(at, format!("the folder {} is not there", root.display()));
                }
                root
            }
            None => dir.to_path_buf(),
        };
        let mut sound = Vec::new();
        for (at, pattern) in patterns {
            match glob(&split_literal(&pattern).1) {
                Some(Err(error)) => wrong_pattern(fields, at, &pattern, &error),
                Some(Ok(_)) | None => sound.push(pattern),
            }
        }
        Some(Files { patterns: sound, root })
    }

    /// Facts: none but its result, which is evaluated each time.
    pub fn facts(&self, facts: &mut dyn Facts) {
        self.patterns.iter().for_each(|pattern| facts.text("pattern", pattern));
    }

    /// The files that match now, relative and absolute, sorted.
    pub fn list(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        for pattern in &self.patterns {
            // a pattern that climbs out of the folder or is absolute starts at its literal beginning
            let (base, rest) = split_literal(pattern);
            let start = self.root.join(&base);
            let Some(matcher) = glob(&rest) else {
                if start.is_file() {
                    found.push((base, start));
                }
                continue;
            };
            let matcher = matcher.with_context(|| format!("pattern `{pattern}`"))?;
            let deep = rest.contains("**");
            let depth = if deep { usize::MAX } else { rest.split('/').count() };
            let hidden = rest.split('/').any(|part| part.starts_with('.'));
            walk(&start, "", depth, hidden, &mut |relative, path| {
                if matcher.is_match(relative) {
                    let name = if base.is_empty() { relative.to_string() } else { format!("{base}/{relative}") };
                    found.push((name, path));
                }
            })?;
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Its rows.
    pub fn evaluate(&self, cache: &mut Cache) -> Result<Manifest> {
        let (names, paths): (Vec<String>, Vec<PathBuf>) = self.list()?.into_iter().unzip();
        let contents = cache.refer(&paths)?;
        let blobs = contents.into_iter().zip(&paths).map(|((digest, len), path)| {
            let ext = path.extension().and_then(|ext| ext.to_str()).unwrap_or_default().to_string();
            Value::Blob(Blob { digest, len, ext })
        });
        let schema = Schema::new([("path", Type::Str), ("file", Type::Blob)])?;
        let (rows, blobs) = (names.len(), blobs.collect());
        Ok(Manifest::from_columns(schema, rows, &[names.into_iter().map(Value::Str).collect(), blobs])?)
    }
}

fn wrong_pattern(fields: &mut Fields<'_>, at: At, pattern: &str, error: &globset::Error) {
    let place = fields.place(at);
    fields.problems.push(
        Problem::at(&place, format!("`{pattern}` is no pattern for file names: {}", error.kind()))
            .hint("`*` matches within a name, `**` across folders, `{a,b}` either of two"),
    );
}

/// The matcher of the part of a pattern that has wildcards; `None` if it has none.
fn glob(pattern: &str) -> Option<Result<GlobMatcher, globset::Error>> {
    let build = || Ok(GlobBuilder::new(pattern).literal_separator(true).build()?.compile_matcher());
    (!pattern.is_empty()).then(build)
}

/// The folders a pattern begins with that hold no wildcard, and the rest of it.
fn split_literal(pattern: &str) -> (String, String) {
    let parts: Vec<&str> = pattern.split('/').collect();
    let literal = parts.iter().take_while(|part| !part.contains(['*', '?', '[', '{'])).count();
    (parts[..literal].join("/"), parts[literal..].join("/"))
}

fn walk(dir: &Path, relative: &str, depth: usize, hidden: bool, found: &mut dyn FnMut(&str, PathBuf)) -> Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        // no such folder: no such files
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read the folder {}", dir.display())),
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read the folder {}", dir.display()))?;
        let name = entry.file_name();
        let name = name.to_str().with_context(|| format!("{} has a name that is not UTF-8", entry.path().display()))?;
        if name.starts_with('.') && !hidden {
            continue;
        }
        let path = if relative.is_empty() { name.to_string() } else { format!("{relative}/{name}") };
        let kind = entry.file_type()?;
        let is_dir = kind.is_dir() || kind.is_symlink() && entry.path().is_dir();
        if is_dir && depth > 1 {
            // a link to a folder above would never end; its depth is bounded like any other
            if !kind.is_symlink() || depth < usize::MAX {
                walk(&entry.path(), &path, depth.saturating_sub(usize::from(depth < usize::MAX)), hidden, found)?;
            }
        } else if !is_dir {
            found(&path, entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["in/b.txt", "in/a.txt", "in/deep/c.txt", "in/.hidden.txt", "x.png"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        let list = |patterns: &[&str]| {
            let patterns = patterns.iter().map(|pattern| pattern.to_string()).collect();
            let files = Files { patterns, root: dir.path().into() };
            files.list().unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(list(&["in/*.txt"]), ["in/a.txt", "in/b.txt"]);
        assert_eq!(list(&["**/*.txt"]), ["in/a.txt", "in/b.txt", "in/deep/c.txt"]);
        assert_eq!(list(&["x.png", "*.{png,jpg}"]), ["x.png"]);
        assert_eq!(list(&["none/*"]), Vec::<String>::new());
        assert_eq!(list(&["in/.h*"]), ["in/.hidden.txt"]);
    }
}
