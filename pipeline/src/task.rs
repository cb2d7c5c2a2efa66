//! Task directories: rows and parameters in, rows and files out. The only place that turns files by digest into paths
//! and back: programs see paths, the cache sees digests. Knows neither keys nor who runs the task.

mod directory;
mod jsonl;

use crate::builtin::fits;
use crate::command::Piece;
use crate::hints::{hint_of, hinted};
use crate::key::show;
use crate::shell::Shell;
use crate::stage::{UnitStage, Worker};
use anyhow::{Context, Result};
use cache::{Cache, OutRow, State, Take};
use directory::{write_params, write_rows};
use manifests::{Digest, Manifest, Schema, Type, Value, read_ipc};
use protocol::{Grain, OF, TaskParams, UNIT};
use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

pub use directory::write;

/// What a worker is told that names no unit, or a wrong one.
const OF_IN: &str = "each row needs the `_unit` of the rows of `in.arrow` that it comes from";

/// Where in a task's directory the files that it reads have names with extensions.
const LINKS: &str = "blobs";

/// What a task is made of.
pub struct Order<'a> {
    /// The stage.
    pub stage: &'a UnitStage,
    /// The rows of its input, projected to what it reads.
    pub table: &'a Manifest,
    /// The rows of each unit.
    pub units: Vec<&'a [usize]>,
    /// The units' keys.
    pub keys: Vec<Digest>,
    /// Digest of what all units of the stage share.
    pub stage_key: Digest,
    /// Threads it may use.
    pub threads: usize,
    /// Arrow files of its constants, blobs as paths: written once for all tasks of the stage.
    pub with: &'a BTreeMap<String, PathBuf>,
    /// A folder for checkpoints, if not that of the cache.
    pub scratch: Option<&'a Path>,
}

impl Order<'_> {
    fn sizes(&self) -> Vec<usize> {
        self.units.iter().map(|unit| unit.len()).collect()
    }
}

/// A task directory that was made.
pub struct Made {
    /// For programs: the words to execute.
    pub argv: Vec<String>,
    /// Digests of files that it may read outside of the workspace.
    pub outside: Vec<Digest>,
    /// For programs: our own files that it was given by name.
    pub lent: Vec<Lent>,
}

/// A file of ours in the hands of a program, which may only read it, and may not care.
#[derive(Clone, Debug, PartialEq)]
pub struct Lent {
    digest: Digest,
    state: State,
}

impl Lent {
    fn of(blob: &manifests::Blob, cache: &Cache) -> Option<Lent> {
        Some(Lent { digest: blob.digest, state: cache.blobs().state(&blob.digest)? })
    }

    /// Takes the files out of the workspace that are not what they were; the first of them.
    pub fn reclaim(lent: &[Lent], cache: &Cache) -> Option<Digest> {
        let changed = lent.iter().filter(|lent| !cache.blobs().is_still(&lent.digest, &lent.state));
        let changed: Vec<Digest> = changed.map(|lent| lent.digest).collect();
        cache.blobs().discard(&changed);
        changed.first().copied()
    }
}

/// A unit's output.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// New columns and their types.
    pub columns: Vec<(String, Type)>,
    /// New rows.
    pub rows: Vec<OutRow>,
}

/// Makes a task directory.
///
/// # Errors
/// If it cannot be written, or a file it needs is gone.
pub fn make(dir: &Path, order: &Order<'_>, cache: &Cache) -> Result<Made> {
    match &order.stage.worker {
        Worker::Provider(_) => {
            let (rows, outside) = rows(dir, order, cache, None)?;
            write(dir, &params(order, cache), &rows, &order.sizes(), !order.with.is_empty())?;
            for (name, file) in order.with {
                let target = dir.join("with").join(format!("{name}.arrow"));
                std::fs::hard_link(file, &target).with_context(|| format!("cannot make {}", target.display()))?;
            }
            Ok(Made { argv: Vec::new(), outside, lent: Vec::new() })
        }
        Worker::Command(command) => {
            let out = dir.join("out");
            std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
            let (mut outside, mut lent) = (Vec::new(), Vec::new());
            let mut values: HashMap<&str, Vec<String>> = HashMap::new();
            if command.pieces().any(|piece| *piece == Piece::In) {
                let (rows, of_rows) = rows(dir, order, cache, Some(&mut lent))?;
                write_rows(dir, &rows, &order.sizes())?;
                outside = of_rows;
            }
            if command.pieces().any(|piece| *piece == Piece::Params) {
                // a program of the user's gets its parameters, nothing else
                write_params(dir, &serde_json::to_vec_pretty(&order.stage.given())?)?;
            }
            for name in command.columns() {
                let mut all = Vec::new();
                for &row in order.units[0] {
                    all.push(match order.table.value(row, name)? {
                        Value::Blob(blob) => {
                            if cache.is_referred(&blob.digest) {
                                outside.push(blob.digest);
                            }
                            // the only row's file may bear the column's name, several need names of their own
                            let alone = order.units[0].len() == 1;
                            lent.extend(Lent::of(&blob, cache));
                            readable(dir, &blob, (alone.then_some(name), true), cache)?
                        }
                        Value::Null => String::new(),
                        // JSON has no such numbers, but programs do
                        Value::F64(number) if !number.is_finite() => number.to_string().to_lowercase(),
                        other => show(&other),
                    });
                }
                values.insert(name, all);
            }
            let path = |path: &Path| vec![path.display().to_string()];
            let argv = command.fill(|piece| match piece {
                Piece::Text(text) => vec![text.clone()],
                Piece::Column(name) => values[name.as_str()].clone(),
                Piece::In => path(&dir.join("in.arrow")),
                Piece::Out => path(&out),
                Piece::Params => path(&dir.join("params.json")),
                Piece::Param(name) => vec![match &order.stage.params[name] {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                }],
                Piece::With(name) => path(&order.with[name]),
            });
            Ok(Made { argv: in_a_file(argv, command.shell, dir)?, outside, lent })
        }
    }
}

/// The longest line that a shell is given in its words: systems take 128 KiB of one.
const LINE: usize = 100 << 10;

/// A shell's line that is longer than a word may be, written into a file that the shell reads.
fn in_a_file(argv: Vec<String>, shell: Option<Shell>, dir: &Path) -> Result<Vec<String>> {
    let long = argv.last().filter(|line| line.len() > LINE);
    let Some((shell, line)) = shell.zip(long) else { return Ok(argv) };
    let path = dir.join("command.sh");
    std::fs::write(&path, line).with_context(|| format!("cannot write {}", path.display()))?;
    let words = shell.words_of_file().iter().map(|word| word.to_string());
    Ok(words.chain([path.display().to_string()]).collect())
}

/// What a worker is told beside the rows.
fn params(order: &Order<'_>, cache: &Cache) -> TaskParams {
    let stage = order.stage;
    let alone = !stage.def.is_row_wise();
    TaskParams {
        kind: stage.def.kind.clone(),
        version: stage.def.version,
        params: stage.given().into(),
        threads: order.threads,
        scratch: order.keys.first().filter(|_| alone).map(|key| match order.scratch {
            Some(folder) => folder.join(key.to_string()),
            None => cache.scratch(key),
        }),
        keys: order.keys.iter().map(Digest::to_string).collect(),
        stage_key: order.stage_key.to_string(),
    }
}

/// The rows of a task with paths in place of files, and which of these lie outside of the workspace.
fn rows(dir: &Path, order: &Order<'_>, cache: &Cache, lent: Option<&mut Vec<Lent>>) -> Result<(Manifest, Vec<Digest>)> {
    let rows: Vec<usize> = order.units.iter().flat_map(|unit| unit.iter().copied()).collect();
    let whole = rows.len() == order.table.len() && rows.iter().enumerate().all(|(i, row)| i == *row);
    let table = if whole { order.table.clone() } else { order.table.take(&rows) };
    with_paths(&table, dir, cache, lent)
}

/// The table with paths in place of files by digest, and the digests of those that lie outside of the workspace. `dir`
/// gets links with the right extension, where the file itself has none; if files are `lent`, of all that are ours.
pub fn with_paths(
    table: &Manifest,
    dir: &Path,
    cache: &Cache,
    mut lent: Option<&mut Vec<Lent>>,
) -> Result<(Manifest, Vec<Digest>)> {
    let mut outside = Vec::new();
    let mut result = table.clone();
    for column in table.schema().columns().iter().filter(|column| column.ty == Type::Blob) {
        let mut paths = Vec::with_capacity(table.len());
        for value in table.column(&column.name)? {
            paths.push(match value {
                Value::Blob(blob) => {
                    if cache.is_referred(&blob.digest) {
                        outside.push(blob.digest);
                    }
                    lent.iter_mut().for_each(|lent| lent.extend(Lent::of(&blob, cache)));
                    Value::Str(readable(dir, &blob, (None, lent.is_some()), cache)?)
                }
                other => other,
            });
        }
        let order: Vec<String> = table.schema().names().iter().map(|name| name.to_string()).collect();
        let paths = Manifest::from_columns(Schema::new([(column.name.as_str(), Type::Str)])?, table.len(), &[paths])?;
        result = result.beside(&paths)?.select(&order.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    Ok((result, outside))
}

/// Whether a task has left its directory so that another can have it: file systems are slow to make what was just
/// removed.
pub fn is_as_new(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    let ours = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.ok().map(|entry| entry.file_name());
        name.is_some_and(|name| name == "out" || name == "log.txt")
    };
    entries.into_iter().all(ours) && std::fs::read_dir(dir.join("out")).is_ok_and(|mut out| out.next().is_none())
}

/// A path under which a blob can be read, with its extension: programs go by it. If it `is_lent`, one of ours has it in
/// the task's directory anyway: a program that puts another file in its place (`sed -i`) then does so there.
fn readable(
    dir: &Path,
    blob: &manifests::Blob,
    (name, is_lent): (Option<&str>, bool),
    cache: &Cache,
) -> Result<String> {
    let path = cache.path(blob)?;
    let ext = path.extension().and_then(|ext| ext.to_str()).unwrap_or_default();
    let is_ours = cache.blobs().digest_of(&path).is_some();
    if (blob.ext.is_empty() || ext == blob.ext) && !(is_lent && is_ours) {
        return Ok(path.display().to_string());
    }
    let links = dir.join(LINKS);
    let dot = if blob.ext.is_empty() { "" } else { "." };
    let name = name.map_or(blob.digest.to_string()[..24].to_string(), str::to_string);
    let link = links.join(format!("{name}{dot}{}", blob.ext));
    let mut made = second_name(&path, &link, cache);
    if made.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        std::fs::create_dir_all(&links).with_context(|| format!("cannot make {}", links.display()))?;
        made = second_name(&path, &link, cache);
    }
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make {}", link.display()))
        }
        _ => Ok(link.display().to_string()),
    }
}

/// A file of ours gets a second name, which is made and removed ten times faster than a link to so long a path, but not
/// by every file system; a user's file gets a link, as a second name would change its inode.
fn second_name(path: &Path, name: &Path, cache: &Cache) -> std::io::Result<()> {
    if cache.blobs().digest_of(path).is_some() {
        match std::fs::hard_link(path, name) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {}
            made => return made,
        }
    }
    std::os::unix::fs::symlink(path, name)
}

/// Whether a name is that of a file in a folder, and leads nowhere else.
pub fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

/// Reads a part that a worker put out: the outputs of some units, by their index in the task. Files are taken into the
/// cache.
///
/// # Errors
/// If it is no file of the task directory itself, its table is not readable, has other columns than the stage declares,
/// or names files that are not there.
pub fn collect(
    dir: &Path,
    file: &str,
    stage: &UnitStage,
    sizes: &[usize],
    cache: &Cache,
) -> Result<Vec<(usize, Output)>> {
    if !is_plain(file) {
        let message = format!("it delivered the part `{file}`, which is no file of its task directory");
        return Err(hinted(message, "a part is named by its file name: write it into the task directory itself"));
    }
    collect_table(dir, file, stage, sizes, cache)
}

fn collect_table(
    dir: &Path,
    file: &str,
    stage: &UnitStage,
    sizes: &[usize],
    cache: &Cache,
) -> Result<Vec<(usize, Output)>> {
    let path = dir.join(file);
    let table = read_ipc(&path).map_err(|error| {
        let message = format!("what it put out cannot be used: {}", without_dir(&error.to_string(), dir));
        if let manifests::Error::NullWithin { .. } = error {
            return hinted(message, hint_of(&error.into()).unwrap_or_default());
        }
        hinted(message, "write an Arrow IPC file, as pyarrow's `ipc.new_file` does, and close it before the end")
    })?;
    of_table(dir, &table, stage, sizes, cache)
}

/// The outputs of some units in the table that a worker put out.
fn of_table(
    dir: &Path,
    table: &Manifest,
    stage: &UnitStage,
    sizes: &[usize],
    cache: &Cache,
) -> Result<Vec<(usize, Output)>> {
    let columns = columns(table, stage)?;
    let int = |name: &str, row: usize| -> Result<Option<i64>> {
        match table.schema().position(name).map(|_| table.value(row, name)).transpose()? {
            None | Some(Value::Null) => Ok(None),
            Some(Value::I64(value)) => Ok(Some(value)),
            Some(other) => {
                let message = format!("column `{name}` holds {}, expected an integer", other.to_json_text());
                Err(hinted(message, "`_unit` and `_of` are columns of type i64"))
            }
        }
    };
    let mut outputs: BTreeMap<usize, Vec<OutRow>> = BTreeMap::new();
    let is_command = matches!(stage.worker, Worker::Command(_));
    if is_command {
        // a program that puts out no rows has put out no rows: its unit is finished
        outputs.insert(0, Vec::new());
    }
    // several rows may name the same file, and it is moved but once
    let mut taken: HashMap<PathBuf, manifests::Blob> = HashMap::new();
    let cells: Vec<Vec<Value>> = columns.iter().map(|(name, _)| table.column(name)).collect::<Result<_, _>>()?;
    for row in 0..table.len() {
        let unit = match int(UNIT, row)? {
            Some(unit) => unit,
            None if is_command => 0,
            None => return Err(hinted(format!("row {row} of what it put out has no `{UNIT}`"), OF_IN)),
        };
        let size = usize::try_from(unit).ok().and_then(|unit| sizes.get(unit));
        let size = *size.ok_or_else(|| {
            hinted(format!("row {row} of what it put out is for unit {unit}, which is not in the task"), OF_IN)
        })?;
        let rows = outputs.entry(unit as usize).or_default();
        let of = match int(OF, row)? {
            Some(-1) => continue,
            Some(of) if (0..size as i64).contains(&of) => Some(of as u32),
            Some(of) => {
                let message = format!("row {row} of what it put out has `{OF}` {of}, but the unit has {size} rows");
                let hint = "`_of` says which row of its unit, from 0, a row extends; null if it stands alone";
                return Err(hinted(message, hint));
            }
            None => (stage.def.grain == Grain::Row && size > 0).then_some(0),
        };
        let mut values = Vec::with_capacity(columns.len());
        for (column, (name, ty)) in cells.iter().zip(&columns) {
            values.push(cell(dir, name, *ty, &column[row], cache, &mut taken)?);
        }
        rows.push(OutRow { of, values });
    }
    Ok(outputs.into_iter().map(|(unit, rows)| (unit, Output { columns: columns.clone(), rows })).collect())
}

/// The declared columns with the types they have here.
fn columns(table: &Manifest, stage: &UnitStage) -> Result<Vec<(String, Type)>> {
    for column in table.schema().columns() {
        let name = column.name.as_str();
        if name != UNIT && name != OF && !stage.def.writes.iter().any(|wanted| wanted.name == name) {
            let declared: Vec<&str> = stage.def.writes.iter().map(|column| column.name.as_str()).collect();
            let message =
                format!("it put out a column `{name}` that it does not declare; it declares {}", declared.join(", "));
            let ty = column.ty;
            let hint = match stage.worker {
                Worker::Command(_) => format!("add `{name}: {ty}` to `writes:`, or do not put it out"),
                Worker::Provider(_) => format!("its provider has to declare `{name}` ({ty}), or not to put it out"),
            };
            return Err(hinted(message, hint));
        }
    }
    let mut columns = Vec::new();
    for wanted in &stage.def.writes {
        let found = table.schema().ty(&wanted.name).ok_or_else(|| {
            let present: Vec<&str> = table.schema().names();
            let message = format!(
                "it declares the column `{}` but did not put it out; there are: {}",
                wanted.name,
                present.join(", ")
            );
            hinted(message, "put it out in every table, with nulls where there is no value, or do not declare it")
        })?;
        let ty = match (wanted.ty, found) {
            (Type::Blob, Type::Str) => Type::Blob,
            (Type::F64, Type::I64) => Type::F64,
            // a column of nothing but nulls has no type of its own
            (ty, Type::Str) if all_null(table, &wanted.name) => ty,
            (Type::Floats(0), Type::Floats(_)) => found,
            (ty, found) if fits(ty, found) => ty,
            (ty, found) => {
                let name = &wanted.name;
                let message = format!("it declares the column `{name}` as {ty} but put it out as {found}");
                return Err(hinted(message, format!("put it out as {ty}, or declare it as {found}")));
            }
        };
        columns.push((wanted.name.clone(), ty));
    }
    Ok(columns)
}

fn all_null(table: &Manifest, name: &str) -> bool {
    table.column(name).is_ok_and(|values| values.iter().all(|value| *value == Value::Null))
}

fn cell(
    dir: &Path,
    name: &str,
    ty: Type,
    value: &Value,
    cache: &Cache,
    taken: &mut HashMap<PathBuf, manifests::Blob>,
) -> Result<Value> {
    Ok(match (ty, value) {
        (Type::F64, Value::I64(value)) => Value::F64(*value as f64),
        (Type::Blob, Value::Str(path)) => {
            let given = Path::new(path);
            if let Some(blob) = taken.get(given) {
                return Ok(Value::Blob(blob.clone()));
            }
            let path = [dir.join(given), dir.join("out").join(given)].into_iter().find(|path| path.is_file());
            let path = path.ok_or_else(|| {
                let message = format!("column `{name}` names the file {}, which is not there", given.display());
                hinted(message, "paths are relative to the task directory or its `out`, and the file must be closed")
            })?;
            let blob = take_in(dir, &path, cache)?;
            taken.insert(given.into(), blob.clone());
            Value::Blob(blob)
        }
        (Type::Blob, Value::Blob(blob)) if !cache.has(blob) => {
            let (digest, len) = (blob.digest.short(), blob.len);
            let message =
                format!("column `{name}` names the file {digest} of {len} bytes, which is not in the workspace");
            let hint = "put out the path of a file, as text; a struct of digest, length and extension only hands on a file \
                        that it was given, unchanged";
            return Err(hinted(message, hint));
        }
        (Type::Blob, Value::Blob(blob)) if !cache::is_plain(&blob.ext) => {
            Value::Blob(manifests::Blob { ext: String::new(), ..blob.clone() })
        }
        (_, value) => value.clone(),
    })
}

fn take_in(dir: &Path, path: &Path, cache: &Cache) -> Result<manifests::Blob> {
    let ext = cache::extension(path);
    // what lies elsewhere, be it behind a link or a `..`, is somebody's and stays where it is, as do the files that the
    // task was given: more of its rows may name them
    let real = dir.canonicalize().ok().zip(path.canonicalize().ok());
    let is_made = real.is_some_and(|(dir, path)| path.starts_with(&dir) && !path.starts_with(dir.join(LINKS)));
    let take = if is_made { Take::Move } else { Take::Copy };
    Ok(cache.ingest(path, &ext, take)?)
}

/// What a program left in its `{out}`: a table, or a file for each column.
pub fn collect_program(dir: &Path, stage: &UnitStage, size: usize, cache: &Cache) -> Result<Output> {
    let lines = dir.join("out").join(jsonl::FILE);
    // the file of a column of that name is no table
    let is_column = stage.def.writes.iter().any(|column| column.ty == Type::Blob && column.name == "out");
    let outputs = match (dir.join("out/out.arrow").exists(), lines.exists() && !is_column) {
        (false, false) => None,
        (true, false) => Some(collect_table(dir, "out/out.arrow", stage, &[size], cache)?),
        (false, true) => Some(of_table(dir, &jsonl::read(&lines, &stage.def.writes)?, stage, &[size], cache)?),
        (true, true) => {
            let message = "the program wrote both {out}/out.arrow and {out}/out.jsonl; which one is meant?";
            return Err(hinted(message, "leave one of them: each is a table of all rows"));
        }
    };
    if let Some(mut outputs) = outputs {
        return Ok(outputs.pop().expect("a program's unit is always among them").1);
    }
    let mut values = Vec::new();
    let mut columns = Vec::new();
    for column in &stage.def.writes {
        if column.ty != Type::Blob {
            let (name, ty) = (&column.name, column.ty);
            let message = format!(
                "the program wrote no {{out}}/out.arrow and no {{out}}/out.jsonl, so the column `{name}` ({ty}) has no value; \
                 only blob columns can be files"
            );
            let hint = format!(
                "write {{out}}/out.jsonl with a line `{{\"{name}\": ...}}` for each result, or an Arrow IPC file \
                 {{out}}/out.arrow with a column `{name}`"
            );
            return Err(hinted(message, hint));
        }
        let path = file_of(&dir.join("out"), &column.name)?;
        values.push(Value::Blob(take_in(dir, &path, cache)?));
        columns.push((column.name.clone(), Type::Blob));
    }
    let of = (stage.def.grain == Grain::Row && size > 0).then_some(0);
    Ok(Output { columns, rows: vec![OutRow { of, values }] })
}

/// The file `name` or `name.EXT` in a folder.
fn file_of(out: &Path, name: &str) -> Result<PathBuf> {
    let exact = out.join(name);
    if exact.is_file() {
        return Ok(exact);
    }
    let mut found = Vec::new();
    let mut others = Vec::new();
    for entry in std::fs::read_dir(out).with_context(|| format!("cannot read {}", out.display()))? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == name) && path.is_file() {
            found.push(path);
        } else {
            others.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    others.sort();
    let wrote =
        if others.is_empty() { "the folder is empty".into() } else { format!("it wrote {}", others.join(", ")) };
    let (message, hint) = match &found[..] {
        [one] => return Ok(one.clone()),
        [] => (
            format!("the program ended well but wrote no file {{out}}/{name}; {wrote}"),
            format!("a blob column is the file of its name: let it write `{{out}}/{name}`, with any extension"),
        ),
        _ => (
            format!("the program wrote several files {{out}}/{name}.*; which one is meant?"),
            "leave one of them, or give each a column and a name of its own".into(),
        ),
    };
    Err(hinted(message, hint))
}

fn without_dir(text: &str, dir: &Path) -> String {
    text.replace(&format!("{}/", dir.display()), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_believed_to_be_there_only_if_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("workspace"), "test").unwrap();
        let take = |blob: &manifests::Blob| {
            cell(dir.path(), "mesh", Type::Blob, &Value::Blob(blob.clone()), &cache, &mut HashMap::new())
        };
        let gone = manifests::Blob { digest: manifests::Digest::of_bytes(b"gone"), len: 4, ext: "ply".into() };
        let error = take(&gone).unwrap_err();
        assert!(error.to_string().starts_with("column `mesh` names the file"), "{error}");
        assert!(hint_of(&error).unwrap().contains("path of a file"));
        std::fs::write(dir.path().join("own.v1 (copy)"), "here").unwrap();
        let own = Value::Str("own.v1 (copy)".into());
        let own = cell(dir.path(), "mesh", Type::Blob, &own, &cache, &mut HashMap::new()).unwrap();
        let Value::Blob(own) = own else { panic!("{own:?}") };
        assert_eq!(own.ext, "", "it could not be part of a name elsewhere");
        assert_eq!(take(&own).unwrap(), Value::Blob(own.clone()));
        assert_eq!(take(&manifests::Blob { ext: "a/b".into(), ..own.clone() }).unwrap(), Value::Blob(own));
    }
}
