//! `files: PATTERN`: a row for each file that matches: `path` (relative, text) and `file` (blob), sorted by path.
//!
//! `*` and `?` match within a name, `**` across folders, `{a,b}` either. Hidden names match only a pattern that names
//! them. A pattern that matches nothing is an error unless it says `optional: true`: one that is misspelt would do the
//! same. Files are not copied: their content is known by fingerprint, and programs read them where they lie. `parse:
//! "clouds/{sequence}/frame_{timestep:i64}.ply"` reads further columns off the paths.

use crate::error::{Place, Problem};
use crate::fields::Fields;
use crate::hints::hinted;
use crate::key::Facts;
use crate::own_output;
use crate::yaml::{At, Item};
use anyhow::{Context, Result};
use cache::Cache;
use globset::{GlobBuilder, GlobMatcher};
use manifests::{Blob, Manifest, Schema, Type, Value};
use std::path::{Path, PathBuf};

/// The stage.
#[derive(Clone, Debug)]
pub struct Files {
    /// Each with its place in the recipe, for whoever is told that nothing matches it.
    patterns: Vec<(Place, String)>,
    root: PathBuf,
    parse: Option<(Place, Template)>,
    /// Whether there may be no file that matches.
    optional: bool,
}

/// A path with names in it: `clouds/{sequence}/frame_{timestep:i64}.ply`.
#[derive(Clone, Debug)]
struct Template {
    text: String,
    /// What the path begins with.
    start: String,
    /// Each column, its type, and what follows its value in the path.
    columns: Vec<(String, Type, String)>,
}

impl Template {
    fn new(text: &str) -> Result<Template, String> {
        let mut parts = text.split('{');
        let start = parts.next().unwrap_or_default().to_string();
        let mut columns: Vec<(String, Type, String)> = Vec::new();
        let count = parts.clone().count();
        for (i, part) in parts.enumerate() {
            let Some((name, after)) = part.split_once('}') else { return Err("a `{` is not closed".into()) };
            let (name, ty) = match name.split_once(':') {
                None | Some((_, "str")) => (name.split(':').next().unwrap_or_default(), Type::Str),
                Some((name, "i64")) => (name, Type::I64),
                Some((_, other)) => return Err(format!("`{other}` is neither `i64` nor `str`")),
            };
            if name.is_empty() || ["path", "file"].contains(&name) || columns.iter().any(|(known, ..)| known == name) {
                return Err(format!("`{{{name}}}` names no new column"));
            }
            if after.is_empty() && i + 1 < count {
                return Err(format!("nothing tells where `{{{name}}}` ends"));
            }
            columns.push((name.into(), ty, after.into()));
        }
        if columns.is_empty() {
            Err("it names no column".into())
        } else {
            Ok(Template { text: text.into(), start, columns })
        }
    }

    /// The values in a path; `None` if it is not of this form. A value ends where what follows it in the template first
    /// comes, and holds no slash.
    fn values(&self, path: &str) -> Option<Vec<Value>> {
        let mut rest = path.strip_prefix(self.start.as_str())?;
        let mut values = Vec::new();
        for (_, ty, after) in &self.columns {
            let end = if after.is_empty() { rest.len() } else { rest.find(after.as_str())? };
            let text = &rest[..end];
            if text.is_empty() || text.contains('/') {
                return None;
            }
            values.push(if *ty == Type::I64 { Value::I64(text.parse().ok()?) } else { Value::Str(text.into()) });
            rest = &rest[end + after.len()..];
        }
        rest.is_empty().then_some(values)
    }
}

impl Files {
    /// Understands the stanza.
    pub fn parse(what: &Item, fields: &mut Fields<'_>, dir: &Path) -> Option<Files> {
        let Some(patterns) = crate::fields::texts_of(what) else {
            let message = format!("`files:` takes a pattern or a list of patterns, not {}", what.node.what());
            fields.wrong(what.at, message, "for example `files: \"in/*.txt\"`");
            return None;
        };
        let root = match fields.text("root") {
            Some((at, root)) => {
                let root = dir.join(root);
                if !root.is_dir() {
                    let hint = "paths are relative to the recipe's folder";
                    fields.wrong(at, format!("the folder {} is not there", root.display()), hint);
                }
                root
            }
            None => dir.to_path_buf(),
        };
        let mut sound = Vec::new();
        for (at, pattern) in patterns {
            match glob(&split_literal(&pattern).1) {
                Some(Err(error)) => wrong_pattern(fields, at, &pattern, &error),
                Some(Ok(_)) | None => sound.push((fields.place(at), pattern)),
            }
        }
        let parse = fields.text("parse").and_then(|(at, text)| match Template::new(&text) {
            Ok(template) => Some((fields.place(at), template)),
            Err(reason) => {
                let place = fields.place(at);
                let problem = Problem::at(&place, format!("`{text}` does not say how to read a path: {reason}"));
                fields.problems.push(problem.hint("like \"clouds/{sequence}/frame_{timestep:i64}.ply\""));
                None
            }
        });
        Some(Files { patterns: sound, root, parse, optional: fields.flag("optional") })
    }

    /// Its columns.
    pub fn columns(&self) -> Vec<(String, Type)> {
        let parsed = self.parse.iter().flat_map(|(_, template)| &template.columns);
        let parsed = parsed.map(|(name, ty, _)| (name.clone(), *ty));
        [("path".to_string(), Type::Str), ("file".to_string(), Type::Blob)].into_iter().chain(parsed).collect()
    }

    /// Facts: none but its result, which is evaluated each time.
    pub fn facts(&self, facts: &mut dyn Facts) {
        self.patterns.iter().for_each(|(_, pattern)| facts.text("pattern", pattern));
        self.parse.iter().for_each(|(_, template)| facts.text("parse", &template.text));
    }

    /// The files that match now, relative and absolute, sorted; what each run writes into the workspace is none, unless
    /// a pattern begins in there. `glance` is told each path before it is looked at.
    fn list(&self, workspace: &Path, glance: &mut dyn FnMut(&Path)) -> Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        for (place, pattern) in &self.patterns {
            // a pattern that climbs out of the folder or is absolute starts at its literal beginning
            let (base, rest) = split_literal(pattern);
            let start = self.root.join(&base);
            let before = found.len();
            let Some(matcher) = glob(&rest) else {
                glance(&start);
                if start.is_file() {
                    found.push((base, start));
                }
                self.demand((place, pattern), found.len() > before)?;
                continue;
            };
            let matcher = matcher.with_context(|| format!("pattern `{pattern}`"))?;
            let deep = rest.contains("**");
            let depth = if deep { usize::MAX } else { rest.split('/').count() };
            let hidden = rest.split('/').any(|part| part.starts_with('.'));
            walk(&start, Path::new(""), (depth, hidden, workspace), glance, &mut |relative, path| {
                // one that the pattern would not have may be called what it likes
                if matcher.is_match(relative) {
                    let Some(relative) = relative.to_str() else {
                        let message = format!("{place}: {} has a name that is not UTF-8", path.display());
                        return Err(hinted(message, "rename it, or move it elsewhere"));
                    };
                    let name = if base.is_empty() { relative.to_string() } else { format!("{base}/{relative}") };
                    found.push((name, path));
                }
                Ok(())
            })?;
            self.demand((place, pattern), found.len() > before)?;
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn demand(&self, (place, pattern): (&Place, &str), is_there: bool) -> Result<()> {
        if is_there || self.optional {
            return Ok(());
        }
        let message = format!("{place}: no file matches `{pattern}` in {}", self.root.display());
        Err(hinted(message, "`*` matches within a name, `**` across folders; `optional: true` lets there be none"))
    }

    /// Its rows.
    pub fn evaluate(&self, cache: &mut Cache) -> Result<Manifest> {
        let workspace = cache.root().to_path_buf();
        let (names, paths): (Vec<String>, Vec<PathBuf>) =
            self.list(&workspace, &mut |path| cache.glance(path))?.into_iter().unzip();
        let contents = cache.refer(&paths)?;
        let blobs = contents
            .into_iter()
            .zip(&paths)
            .map(|((digest, len), path)| Value::Blob(Blob { digest, len, ext: cache::extension(path) }));
        let blobs = blobs.collect();
        let mut parsed = vec![Vec::with_capacity(names.len()); self.columns().len() - 2];
        let asked =
            self.parse.iter().flat_map(|(place, template)| names.iter().map(move |name| (place, template, name)));
        for (place, template, name) in asked {
            let values = template.values(name).ok_or_else(|| {
                let form = &template.text;
                let message = format!("{place}: the path {name} is not of the form `{form}` that `parse:` gives");
                hinted(message, "narrow `files:` to the paths that are, or change `parse:`; no value holds a slash")
            })?;
            parsed.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
        let rows = names.len();
        let columns: Vec<Vec<Value>> =
            [names.into_iter().map(Value::Str).collect(), blobs].into_iter().chain(parsed).collect();
        Ok(Manifest::from_columns(Schema::new(self.columns())?, rows, &columns)?)
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

fn walk(
    dir: &Path,
    relative: &Path,
    (depth, hidden, workspace): (usize, bool, &Path),
    glance: &mut dyn FnMut(&Path),
    found: &mut dyn FnMut(&Path, PathBuf) -> Result<()>,
) -> Result<()> {
    glance(dir);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        // no such folder: no such files
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read the folder {}", dir.display())),
    };
    let has_report = own_output::has_report(dir);
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read the folder {}", dir.display()))?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") && !hidden || own_output::is_report(&name, has_report) {
            continue;
        }
        let path = relative.join(name);
        let kind = entry.file_type()?;
        let is_dir = kind.is_dir() || kind.is_symlink() && entry.path().is_dir();
        if is_dir && depth > 1 {
            // a link to a folder above would never end; its depth is bounded like any other
            let is_endless = kind.is_symlink() && depth == usize::MAX;
            let is_ours = || own_output::is_workspace(&entry.path());
            if !is_endless && entry.path().canonicalize().ok().is_none_or(|real| real != workspace) && !is_ours() {
                let below = depth.saturating_sub(usize::from(depth < usize::MAX));
                walk(&entry.path(), &path, (below, hidden, workspace), glance, found)?;
            }
        } else if !is_dir && (kind.is_file() || kind.is_symlink()) {
            // a pipe or a device holds no picture, and would be read for ever
            found(&path, entry.path())?;
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
        for name in ["in/b.txt", "in/a.txt", "in/deep/c.txt", "in/.hidden.txt", "x.png", "work/logs/d.txt"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        let list = |patterns: &[&str]| {
            let place = Place { file: "r.yaml".into(), line: 2, column: 9 };
            let patterns = patterns.iter().map(|pattern| (place.clone(), pattern.to_string())).collect();
            let files = Files { patterns, root: dir.path().into(), parse: None, optional: false };
            let workspace = dir.path().canonicalize().unwrap().join("work");
            let found = files.list(&workspace, &mut |_| {})?;
            Ok::<_, anyhow::Error>(found.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
        };
        assert_eq!(list(&["in/*.txt"]).unwrap(), ["in/a.txt", "in/b.txt"]);
        assert_eq!(list(&["**/*.txt"]).unwrap(), ["in/a.txt", "in/b.txt", "in/deep/c.txt"]);
        assert_eq!(list(&["work/logs/*.txt"]).unwrap(), ["work/logs/d.txt"], "somebody wants just these");
        assert_eq!(list(&["x.png", "*.{png,jpg}"]).unwrap(), ["x.png"]);
        assert_eq!(list(&["in/.h*"]).unwrap(), ["in/.hidden.txt"]);
        for nothing in ["none/*", "in/*.png", "y.png"] {
            let error = list(&["x.png", nothing]).unwrap_err().to_string();
            assert!(error.contains(nothing) && !error.contains("x.png"), "{error}");
            assert!(error.starts_with("r.yaml:2:9: no file matches"), "{error}");
        }
    }

    #[test]
    fn paths_hold_columns() {
        let template = Template::new("clouds/{sequence}/frame_{timestep:i64}.ply").unwrap();
        let values = |path| template.values(path);
        let found = vec![Value::Str("EXP-1-head".into()), Value::I64(12)];
        assert_eq!(values("clouds/EXP-1-head/frame_00012.ply"), Some(found));
        for other in ["clouds/a/b/frame_1.ply", "clouds/a/frame_x.ply", "clouds//frame_1.ply", "a/frame_1.ply", ""] {
            assert_eq!(values(other), None, "{other}");
        }
        for wrong in ["a", "{a}{b}", "{a", "{a}/{a}", "{path}", "{a:f64}"] {
            assert!(Template::new(wrong).is_err(), "{wrong}");
        }
    }
}
