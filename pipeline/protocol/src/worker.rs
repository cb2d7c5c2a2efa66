//! The verbs of a Rust provider: `describe`, `worker` and `check`.
//!
//! A worker takes one task after the other, keeps the built stage as long as tasks ask for the same, hands finished
//! units over in parts, and turns panics into failed tasks. Knows nothing of where tasks come from.

use crate::stage::check_out_row;
use crate::{
    Cx, Description, Event, Finding, OF, OutRow, PROTOCOL, Registration, Rows, STOPPED, Stage, StageDef, Table,
    TaskParams, UNIT, Unit,
};
use anyhow::{Context, Result, bail};
use manifests::{Manifest, Schema, Type, Value};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Finished units are handed over at least this often, so that a killed run loses little.
const HAND_OVER: Duration = Duration::from_millis(500);

/// The `main` of a provider: runs the verb in the process's arguments over all registered stages.
///
/// `software` lists what the provider is built on; `prepare` is called before the first task with its number of
/// threads.
pub fn provider_main(provider: &str, version: &str, software: &[(&str, String)], prepare: fn(usize)) -> ExitCode {
    let verb = std::env::args().nth(1).unwrap_or_default();
    match verb.as_str() {
        "describe" => {
            let software = software.iter().map(|(name, version)| (name.to_string(), version.clone().into())).collect();
            let mut stages: Vec<StageDef> = inventory::iter::<Registration>().map(describe).collect();
            stages.sort_by(|a, b| a.kind.cmp(&b.kind));
            let description = Description {
                protocol: PROTOCOL,
                provider: provider.into(),
                version: version.into(),
                software,
                // it is one program
                files: Vec::new(),
                stages,
            };
            let text = serde_json::to_string_pretty(&description).expect("a description is plain data");
            // whoever asked may have seen enough and closed the pipe
            match writeln!(std::io::stdout(), "{text}") {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
                _ => ExitCode::SUCCESS,
            }
        }
        "worker" => {
            let mut built = None;
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                work(Path::new(line.trim()), &mut built, prepare);
            }
            ExitCode::SUCCESS
        }
        "check" => {
            let words: Vec<String> = std::env::args().skip(2).collect();
            let [kind, params] = &words[..] else {
                eprintln!("`{provider} check` takes a kind of stage and its parameters as JSON");
                return ExitCode::from(2);
            };
            let findings = check(kind, params, prepare);
            let text = serde_json::to_string(&findings).expect("findings are plain data");
            match writeln!(std::io::stdout(), "{text}") {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
                _ => ExitCode::SUCCESS,
            }
        }
        _ => {
            eprintln!("{provider} is a stage provider: `{provider} describe` lists its stages, `{provider} worker` is");
            eprintln!("started by effigy and takes task directories on standard input");
            ExitCode::from(2)
        }
    }
}

fn describe(registration: &Registration) -> StageDef {
    StageDef { params: (registration.schema)(), check: registration.check.is_some(), ..(registration.def)() }
}

/// What a stage finds of the files that its parameters name.
fn check(kind: &str, params: &str, prepare: fn(usize)) -> Vec<Finding> {
    let wrong = |error: &anyhow::Error| {
        let (text, hint) = told(error);
        vec![Finding { ok: false, text, hint }]
    };
    let looked = || -> Result<Vec<String>> {
        let found = inventory::iter::<Registration>().find(|registration| (registration.def)().kind == kind);
        let registration = found.with_context(|| format!("there is no stage `{kind}`"))?;
        let check = registration.check.with_context(|| format!("the stage `{kind}` has no check"))?;
        prepare(std::thread::available_parallelism().map_or(1, usize::from));
        check(serde_json::from_str(params)?)
    };
    match std::panic::catch_unwind(AssertUnwindSafe(looked)) {
        Ok(Ok(texts)) => texts.into_iter().map(|text| Finding { ok: true, text, hint: None }).collect(),
        Ok(Err(error)) => wrong(&error),
        Err(_) => wrong(&anyhow::anyhow!("the check panicked; its message is above")),
    }
}

fn say(event: &Event) {
    let mut out = std::io::stdout().lock();
    // an engine that is gone closes the pipe: nobody is left to work for
    let line = serde_json::to_string(event).expect("an event is plain data");
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

/// A stage kept between tasks, with the `stage_key` it was built for.
type Built = Option<(String, StageDef, Box<dyn Stage>)>;

fn work(dir: &Path, built: &mut Built, prepare: fn(usize)) {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| task(dir, built, prepare)));
    let error = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(told(&error)),
        Err(panic) => {
            // the stage may be in any state
            *built = None;
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Some((format!("the stage panicked: {}", one_line(text.unwrap_or("no message"))), None))
        }
    };
    if let Some((error, hint)) = error {
        say(&Event::Failed { unit: None, error, hint });
    }
    say(&Event::Done);
}

/// An error and its causes in one line, and what to do: the last line of a cause that begins with `hint: `.
fn told(error: &anyhow::Error) -> (String, Option<String>) {
    let (mut parts, mut hint): (Vec<String>, _) = (Vec::new(), None);
    for cause in error.chain() {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), StorageFull | QuotaExceeded | FileTooLarge)
        {
            hint = Some("make room and run again; what was finished is kept".into());
        }
        let text = cause.to_string();
        let (text, more) =
            text.rsplit_once("\nhint: ").map_or((text.as_str(), None), |(text, hint)| (text, Some(hint)));
        // the innermost knows best
        hint = more.map(one_line).or(hint);
        let line = one_line(text);
        // a cause that its wrapper has quoted already
        if !parts.iter().any(|part| part.contains(&line)) {
            parts.push(line);
        }
    }
    (parts.join(": "), hint)
}

/// A text in one line; of libtorch's, which carry thirty lines of stack trace, the first.
fn one_line(text: &str) -> String {
    // unwrapped errors come through a panic with their line ends spelled out
    let text = text.replace("\\n", "\n");
    let trace = text.contains("Exception raised from");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.take(if trace { 1 } else { 12 }).collect::<Vec<_>>().join(" ")
}

fn task(dir: &Path, built: &mut Built, prepare: fn(usize)) -> Result<()> {
    let read = |name: &str| std::fs::read(dir.join(name)).with_context(|| format!("cannot read {name} of the task"));
    let task: TaskParams = serde_json::from_slice(&read("params.json")?).context("params.json of the task")?;
    prepare(task.threads);
    let table = manifests::read_ipc(&dir.join("in.arrow"))?;
    let mut with = BTreeMap::new();
    if let Ok(entries) = std::fs::read_dir(dir.join("with")) {
        for entry in entries {
            let path = entry?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_string();
            with.insert(name, Table::new(manifests::read_ipc(&path)?));
        }
    }
    let cx = Cx { threads: task.threads, dir, task: &task, with: &with, events: &say };
    if built.as_ref().is_none_or(|(key, ..)| *key != task.stage_key) {
        *built = None;
        let (def, stage) = build(&task, &cx)?;
        *built = Some((task.stage_key.clone(), def, stage));
    }
    let (_, def, stage) = built.as_mut().expect("it was just built");

    let units = Unit::cut(&table, &task.keys)?;
    let mut parts = Parts { dir, def, next: 0, rows: Vec::new(), since: Instant::now() };
    let mut done = 0;
    for batch in units.chunks(def.batch.max(1)) {
        let results = stage.run(batch, &cx)?;
        if results.len() != batch.len() {
            bail!("stage `{}` gave {} results for {} units", def.kind, results.len(), batch.len());
        }
        for (unit, rows) in batch.iter().zip(results) {
            parts.rows.push((unit.index, rows));
        }
        done += batch.len();
        if units.len() > 1 {
            say(&Event::Progress { done: done as u64, total: units.len() as u64, note: String::new() });
        }
        let stop = done < units.len() && cx.should_stop();
        if stop || parts.since.elapsed() > HAND_OVER {
            parts.hand_over()?;
        }
        if stop {
            bail!("{STOPPED} between units, as it was told to\nhint: run again, and it goes on with the next");
        }
    }
    parts.hand_over()
}

fn build(task: &TaskParams, cx: &Cx<'_>) -> Result<(StageDef, Box<dyn Stage>)> {
    let registration = inventory::iter::<Registration>()
        .find(|registration| (registration.def)().kind == task.kind)
        .with_context(|| format!("this provider has no stage `{}`", task.kind))?;
    let def = describe(registration);
    if def.version != task.version {
        bail!("the engine asked for version {} of `{}`, this provider has {}", task.version, def.kind, def.version);
    }
    let stage = (registration.build)(task.params.clone(), cx).with_context(|| format!("stage `{}`", def.kind))?;
    Ok((def, stage))
}

/// Results waiting to be handed over.
struct Parts<'a> {
    dir: &'a Path,
    def: &'a StageDef,
    next: usize,
    rows: Vec<(usize, Rows)>,
    since: Instant,
}

impl Parts<'_> {
    fn hand_over(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let file = format!("out.{:05}.arrow", self.next);
        manifests::write_ipc(&self.dir.join(&file), &table_of(self.def, &self.rows)?)?;
        say(&Event::Part { file });
        self.next += 1;
        self.rows.clear();
        self.since = Instant::now();
        Ok(())
    }
}

/// The rows of several units as one table. A unit without rows has one marker row with `_of` -1 and nulls.
fn table_of(def: &StageDef, results: &[(usize, Rows)]) -> Result<Manifest> {
    let all = || results.iter().flat_map(|(_, rows)| rows);
    for row in all() {
        check_out_row(def, row)?;
    }
    let mut schema = Schema::new([(UNIT, Type::I64), (OF, Type::I64)])?;
    for column in &def.writes {
        let ty = match column.ty {
            Type::Blob => Type::Str,
            Type::Floats(0) => {
                // the width is what the rows have
                all().find_map(|row| row.values.get(&column.name)?.ty()).unwrap_or(Type::Floats(0))
            }
            other => other,
        };
        schema.push(column.name.clone(), ty)?;
    }
    let mut rows = Vec::new();
    for (unit, unit_rows) in results {
        if unit_rows.is_empty() {
            let mut row = vec![Value::I64(*unit as i64), Value::I64(-1)];
            row.resize(schema.columns().len(), Value::Null);
            rows.push(row);
        }
        for OutRow { of, values } in unit_rows {
            let of = of.map_or(Value::Null, |of| Value::I64(of as i64));
            let mut row = vec![Value::I64(*unit as i64), of];
            row.extend(def.writes.iter().map(|column| values.get(&column.name).cloned().unwrap_or(Value::Null)));
            rows.push(row);
        }
    }
    Ok(Manifest::from_rows(schema, &rows)?)
}
