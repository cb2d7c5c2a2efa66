//! `effigy export`: the files of a stage's rows as a folder.
//!
//! A row's file in column X goes to the path in its text column `X_path`, or to what `--as` makes of other columns.
//! Knows nothing of what the files are. They are copied (shared where the file system can), never linked: whoever
//! changes a file in the folder changes none of ours.

use super::{DONE, RecipeArgs, load, print, show};
use crate::error::{Place, Problem};
use crate::hints::hinted;
use crate::memory::{Places, Store};
use crate::rows_where;
use anyhow::{Context, Result};
use manifests::{Blob, Digest, Manifest, Type, Value};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

/// What the name of a column of paths ends in.
const ENDING: &str = "_path";

/// Copy the files of stages into a folder, each to the path that its row names, or that --as makes of its columns
#[derive(clap::Args)]
pub struct Export {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// The stages: a file of column X goes to the path in column `X_path`, unless --as says where
    #[arg(required = true)]
    stages: Vec<String>,
    /// Make the paths of a column's files of other columns, and export only columns named so:
    /// 'render={sequence}/{camera}/{timestep:05}.png', where `:05` stands for five digits (may be given more than once)
    #[arg(long = "as", value_name = "COLUMN=PATH")]
    named: Vec<String>,
    /// The folder, which is made if it is not there
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Replace files in the folder that are not equal to what is exported
    #[arg(long)]
    overwrite: bool,
    /// Only rows for which this holds: = != < <= > >=, *= for contains, =~ and !=~ for whether there is a value (may be
    /// given more than once)
    #[arg(long = "where", value_name = "COLUMN=VALUE")]
    conditions: Vec<String>,
    /// Say what was done as a JSON object
    #[arg(long)]
    json: bool,
}

impl Export {
    /// Copies them.
    pub fn run(self) -> Result<u8> {
        let loaded = load::load(&self.recipe)?;
        let named = self.named.iter().map(|text| Named::parse(text)).collect::<Result<Vec<_>, Problem>>()?;
        let mut files: BTreeMap<PathBuf, Blob> = BTreeMap::new();
        let mut unknown: Vec<usize> = (0..named.len()).collect();
        for stage in &self.stages {
            let mut table = match show::kept(&self.recipe, &loaded, stage, "export")? {
                Ok(table) => table,
                Err(code) => return Ok(code),
            };
            if !self.conditions.is_empty() {
                table = table.take(&rows_where::rows(&table, &self.conditions)?);
            }
            let known = |one: &Named| table.schema().columns().iter().any(|column| column.name == one.column);
            unknown.retain(|i| !known(&named[*i]));
            let own: Vec<&Named> = named.iter().filter(|one| self.stages.len() == 1 || known(one)).collect();
            if own.is_empty() && !named.is_empty() {
                continue;
            }
            for (column, paths, said_by) in columns(&table, stage, &own)? {
                collect(&table, stage, (&column, paths, &said_by), &mut files)?;
            }
        }
        if let Some(i) = unknown.first() {
            let message = format!("none of the stages has a column `{}`, which `--as` is about", named[*i].column);
            return Err(Problem::at(&Place::command_line(), message)
                .hint("`effigy show RECIPE STAGE` names its columns")
                .into());
        }
        let workspace = &self.recipe.workspace.workspace;
        let memory = Store::new(workspace).load(&loaded.recipe, loaded.plan.spec.profile.as_deref());
        let places = Places::new(workspace, memory)?;
        let state =
            |(path, blob): (&PathBuf, &Blob)| Ok((self.to.join(path), blob.clone(), state(&self.to.join(path), blob)?));
        let states: Vec<(PathBuf, Blob, State)> = files.par_iter().map(state).collect::<Result<_>>()?;
        let others: Vec<&PathBuf> =
            states.iter().filter(|(.., state)| *state == State::Other).map(|(path, ..)| path).collect();
        if let (Some(first), false) = (others.first(), self.overwrite) {
            let more = if others.len() > 1 { format!(", and {} others", others.len() - 1) } else { String::new() };
            let message = format!("{} is there with other content{more}; nothing was copied", first.display());
            return Err(Problem::new(message)
                .hint("export to another folder, or replace them with --overwrite")
                .into());
        }
        let copy = |(path, blob, state): &(PathBuf, Blob, State)| -> Result<usize> {
            if *state == State::Equal {
                return Ok(0);
            }
            let again = format!(
                "effigy run {}, which makes damaged files again",
                self.recipe.typed(None, self.recipe.profile.as_deref())
            );
            let source = places.find(blob).ok_or_else(|| {
                hinted(format!("{} is gone, or has changed since the run", places.was(blob).display()), again.clone())
            })?;
            copy(&source, path, &blob.digest, &again)?;
            Ok(1)
        };
        let copied: usize = states.par_iter().map(copy).collect::<Result<Vec<usize>>>()?.into_iter().sum();
        let equal = states.len() - copied;
        let folder = self.to.display();
        print(&match self.json {
            true => serde_json::json!({ "event": "exported", "copied": copied, "equal": equal }).to_string(),
            false => format!("{copied} files copied to {folder}, {equal} were there and equal"),
        });
        Ok(DONE)
    }
}

/// Where the files of a column go, as `--as` has it.
struct Named {
    column: String,
    /// The text as it was given.
    path: String,
    parts: Vec<Part>,
}

enum Part {
    Text(String),
    /// What a column holds, in at least so many digits.
    Column(String, usize),
}

impl Named {
    fn parse(text: &str) -> Result<Named, Problem> {
        let wrong = || {
            let problem = Problem::at(&Place::command_line(), format!("`--as {text}` says no place for files"));
            problem.hint("such as --as 'render={sequence}/{camera}/{timestep:05}.png', columns of the stage in braces")
        };
        let (column, path) = text.split_once('=').ok_or_else(wrong)?;
        let mut parts = Vec::new();
        let mut rest = path;
        while let Some((before, after)) = rest.split_once('{') {
            let (inside, after) = after.split_once('}').ok_or_else(wrong)?;
            let (name, digits) = inside.split_once(':').unwrap_or((inside, "0"));
            let digits = digits.parse().ok().filter(|digits| *digits <= 20).ok_or_else(wrong)?;
            parts.extend([Part::Text(before.into()), Part::Column(name.into(), digits)]);
            rest = after;
        }
        parts.push(Part::Text(rest.into()));
        if column.is_empty() || path.is_empty() || rest.contains('}') {
            return Err(wrong());
        }
        Ok(Named { column: column.into(), path: path.into(), parts })
    }

    /// The path of each row's file; none where a column that it names holds nothing.
    fn paths(&self, table: &Manifest) -> Result<Vec<Option<String>>> {
        let mut paths = vec![Some(String::new()); table.len()];
        for part in &self.parts {
            let values = match part {
                Part::Text(text) => {
                    paths.iter_mut().flatten().for_each(|path| path.push_str(text));
                    continue;
                }
                Part::Column(name, digits) => (table.column(name)?, *digits),
            };
            for (path, value) in paths.iter_mut().zip(values.0) {
                let said = match value {
                    Value::Str(text) => Some(text),
                    Value::I64(number) => Some(format!("{number:0width$}", width = values.1)),
                    Value::F64(number) => Some(number.to_string()),
                    Value::Bool(truth) => Some(truth.to_string()),
                    _ => None,
                };
                *path = path.take().zip(said).map(|(path, said)| path + &said);
            }
        }
        Ok(paths)
    }
}

/// The columns of a table whose files are exported: name, the path of each row's file, and by which column or option.
fn columns(table: &Manifest, stage: &str, named: &[&Named]) -> Result<Vec<(String, Vec<Option<String>>, String)>> {
    let at = |message: String| Problem::at(&Place::command_line(), message);
    let ty = |name: &str| table.schema().columns().iter().find(|column| column.name == name).map(|column| column.ty);
    let blobs = table.schema().columns().iter().filter(|column| column.ty == Type::Blob);
    if !named.is_empty() {
        let mut found = Vec::new();
        for one in named {
            if ty(&one.column) != Some(Type::Blob) {
                let message = format!("stage `{stage}` has no column of files `{}`", one.column);
                return Err(at(message)
                    .did_you_mean(&one.column, blobs.clone().map(|column| column.name.as_str()))
                    .into());
            }
            for part in &one.parts {
                let Part::Column(name, _) = part else { continue };
                if matches!(ty(name), None | Some(Type::Blob | Type::Floats(_))) {
                    let message = format!("`{{{name}}}` of `--as` is no column of text or numbers of stage `{stage}`");
                    let others = table.schema().columns().iter();
                    let others = others.filter(|column| !matches!(column.ty, Type::Blob | Type::Floats(_)));
                    return Err(at(message).did_you_mean(name, others.map(|column| column.name.as_str())).into());
                }
            }
            found.push((one.column.clone(), one.paths(table)?, format!("--as {}={}", one.column, one.path)));
        }
        return Ok(found);
    }
    let pairs: Vec<(&str, String)> = blobs
        .map(|column| (column.name.as_str(), format!("{}{ENDING}", column.name)))
        .filter(|(_, path)| ty(path) == Some(Type::Str))
        .collect();
    if pairs.is_empty() {
        let message = format!("no file of stage `{stage}` has a path to go to");
        return Err(at(message)
            .hint(format!(
                "--as 'COLUMN={{sequence}}/{{timestep:05}}.png' makes paths of its columns; without it a column X of files needs a text column `X{ENDING}` \
                 beside it. It has {}",
                table.schema().names().join(", ")
            ))
            .into());
    }
    let of_column = |(column, paths): (&str, String)| {
        let text = |value| if let Value::Str(text) = value { Some(text) } else { None };
        Ok((column.to_string(), table.column(&paths)?.into_iter().map(text).collect(), format!("column `{paths}`")))
    };
    pairs.into_iter().map(of_column).collect()
}

/// The files of a column by their paths, which `said_by` tells the origin of.
fn collect(
    table: &Manifest,
    stage: &str,
    (column, paths, said_by): (&str, Vec<Option<String>>, &str),
    files: &mut BTreeMap<PathBuf, Blob>,
) -> Result<()> {
    let at = |message: String| Problem::at(&Place::command_line(), message);
    for (row, (blob, path)) in table.column(column)?.into_iter().zip(paths).enumerate() {
        let (Value::Blob(blob), Some(path)) = (blob, path) else { continue };
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if path.is_empty() || !Path::new(&path).components().all(plain) {
            let message = format!("stage `{stage}`, row {row}, {said_by}: `{path}` leads out of the folder");
            return Err(at(message).hint("a path is relative and has no `..`").into());
        }
        if let Some(other) =
            files.insert(PathBuf::from(&path), blob.clone()).filter(|other| other.digest != blob.digest)
        {
            let [one, two] = [other.digest, blob.digest].map(|digest| digest.short());
            let message = format!("stage `{stage}`, row {row}: two different files ({one}, {two}) are to be `{path}`");
            return Err(at(message).hint("choose rows with --where, or name the paths apart").into());
        }
    }
    Ok(())
}

/// What there is in a file's place.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Nothing,
    Equal,
    Other,
}

fn state(path: &Path, blob: &Blob) -> Result<State> {
    let meta = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(State::Nothing),
        meta => meta.with_context(|| format!("cannot look at {}", path.display()))?,
    };
    if meta.is_dir() {
        return Err(hinted(format!("{} is a folder", path.display()), "export to another folder"));
    }
    if meta.len() != blob.len {
        return Ok(State::Other);
    }
    let (digest, _) = Digest::of_file(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(if digest == blob.digest { State::Equal } else { State::Other })
}

/// Copies a file and gives it its name when it is complete and what it should be.
fn copy(source: &Path, target: &Path, digest: &Digest, again: &str) -> Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let partial = folder.join(format!(".{name}.{}.partial", std::process::id()));
    let whole = || -> Result<()> {
        let mut from = File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
        let mut to = File::create(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
        std::io::copy(&mut from, &mut to)
            .with_context(|| format!("cannot copy {} to {}", source.display(), partial.display()))?;
        drop(to);
        if Digest::of_file(&partial)?.0 != *digest {
            return Err(hinted(format!("{} is not what the run left", source.display()), again));
        }
        std::fs::rename(&partial, target).with_context(|| format!("cannot make {}", target.display()))
    };
    whole().inspect_err(|_| {
        // what is not complete is of no use to anybody
        let _ = std::fs::remove_file(&partial);
    })
}
