//! Input that nobody meant: recipes and Arrow files, cut, spliced and bent by a generator that draws the same every time. None
//! may end in a panic, whatever it says. `make fuzz` tries millions, the normal tests as many as some seconds allow.
//!
//! Knows the engine as a library; starts no program. An input that makes it panic is kept in the build folder.

mod mutate;

use manifests::{Blob, Digest, Manifest, Schema, Type, Value, write_ipc};
use mutate::Draws;
use pipeline::plan::plan;
use pipeline::provider::Provider;
use pipeline::spec::{Overrides, parse};
use protocol::{Description, Grain, StageDef};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

/// How long, or how many.
#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Inputs(usize),
}

/// What became of the inputs: so many ended like this.
type Ends = BTreeMap<String, usize>;

/// Tries inputs on two threads; says how they ended.
fn fuzz(
    what: &str,
    until: Until,
    seed: u64,
    input: impl Fn(&mut Draws) -> Vec<u8> + Sync,
    body: impl Fn(&[u8]) -> String + Sync,
) -> Ends {
    static QUIET: Once = Once::new();
    // thousands of caught panics would tell nothing; the first one is told below
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let (since, stop) = (Instant::now(), AtomicBool::new(false));
    let (ends, broken) = (Mutex::new(Ends::new()), Mutex::new(None));
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (ends, broken, stop, input, body) = (&ends, &broken, &stop, &input, &body);
            scope.spawn(move || {
                let mut draws = Draws::new(seed * 2 + thread);
                let mut own = Ends::new();
                for n in 0.. {
                    let over = match until {
                        Until::Time(most) => n % 16 == 0 && since.elapsed() > most,
                        Until::Inputs(most) => n >= most / 2,
                    };
                    if over || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let bytes = input(&mut draws);
                    match std::panic::catch_unwind(AssertUnwindSafe(|| body(&bytes))) {
                        Ok(end) => *own.entry(end).or_default() += 1,
                        Err(panic) => {
                            let text = panic.downcast_ref::<String>().cloned();
                            let text = text.or(panic.downcast_ref::<&str>().map(|text| text.to_string()));
                            *broken.lock().unwrap() = Some((text.unwrap_or_default(), bytes));
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
                let mut all = ends.lock().unwrap();
                own.into_iter().for_each(|(end, count)| *all.entry(end).or_default() += count);
            });
        }
    });
    if let Some((text, bytes)) = broken.into_inner().unwrap() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{what}.panic"));
        std::fs::write(&kept, &bytes).expect("it can be kept");
        let _ = std::panic::take_hook();
        panic!("{what}: it panicked: {text}\n{}\nkept in {}", String::from_utf8_lossy(&bytes), kept.display());
    }
    let ends = ends.into_inner().unwrap();
    let count: usize = ends.values().sum();
    println!("{what}: {count} inputs in {:.1} s, {} different ends", since.elapsed().as_secs_f64(), ends.len());
    let mut most: Vec<_> = ends.iter().collect();
    most.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    most.iter().take(12).for_each(|(end, count)| println!("  {count:9} {end}"));
    ends
}

/// A provider that has stages of all grains, with parameters of all kinds.
fn provider() -> Provider {
    let params = serde_json::json!({
        "type": "object", "additionalProperties": false, "required": ["log"],
        "properties": {
            "log": {"type": "string"}, "steps": {"type": "integer", "minimum": 1, "maximum": 100, "default": 3},
            "factor": {"type": "number", "default": 1.0}, "words": {"type": ["string", "null"], "default": null},
            "mode": {"enum": ["none", "error"], "default": "none"}, "flags": {"type": "array", "items": {"type": "boolean"}},
            "box": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
            "inner": {"anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}]}
        },
        "$defs": {"Inner": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
    });
    let with_params = |mut def: StageDef| {
        def.params = params.clone();
        def
    };
    let stages = vec![
        with_params(
            StageDef::new("count", 1, Grain::Row)
                .reads([("file", Type::Blob)])
                .may_read([("weight", Type::F64)])
                .writes([("letters", Type::F64), ("copy", Type::Blob)])
                .file_param("words"),
        ),
        with_params(
            StageDef::new("rank", 1, Grain::Group).reads([("letters", Type::F64)]).writes([("rank", Type::I64)]),
        ),
        with_params(
            StageDef::new("train", 1, Grain::Whole)
                .reads([("letters", Type::F64)])
                .writes([("total", Type::Floats(3))])
                .with("bias", [("value", Type::F64)])
                .may_take("more", [("total", Type::Floats(0))]),
        ),
        with_params(StageDef::new("source", 1, Grain::Whole).source().writes([("file", Type::Blob)])),
    ];
    let description =
        Description { protocol: 1, provider: "fake".into(), version: "1".into(), software: Default::default(), stages };
    Provider { argv: vec!["fake".into()], dir: PathBuf::from("/"), description, prints: Vec::new() }
}

const SEEDS: [&str; 4] = [
    include_str!("../../pipeline/recipes/avatar.yaml"),
    "recipe: small
params: { size: 64, name: 'a b', on: true, list: [1, 2.5, x] }
profiles:
  smoke: { size: 32, stages: { extra: { files: '*.txt' } } }
providers: [fake]
stages:
  src: { files: ['in/*.txt', 'b'], parse: 'clouds/{sequence}/frame_{timestep:i64}.ply' }
  up: { run: 'tr a-z A-Z < {file} > {out}/file', shell: true, from: src, writes: { file: blob, n: 'floats[3]' }, timeout: 5, needs: { threads: 2, memory_mb: 10 } }
  count: { stage: count, from: up, log: l, factor: '${size}', words: null, box: [1, 2, 3, 4], inner: { a: 1 }, flags: [true] }
  rank: { stage: rank, from: count, by: [sequence], log: l, where: { letters: { min: 1, max: 5 }, sequence: [a, b] } }
  one: { rows: [{ value: 1.5, text: x, at: [1, 2] }, { value: ~ }] }
  train: { stage: train, from: rank, with: { bias: one }, log: l, steps: 3, allow_failures: 0.1 }
  sel: { select: count, where: { path: { not: b } }, columns: [path, letters], rename: { p: path }, set: { c: 1 }, every: 2, by: [path], limit: 3, distinct: [path], overrides: [{ where: { path: a }, set: { c: 2 } }] }
  j: { join: [sel, count], on: [path], how: left }
  c: { concat: [src, count], label: { column: method, values: [a, b] } }
  prog: { run: [python3, fit.py, '{in}', '{out}', '{with.fit}', '{params}'], from: j, with: { fit: one }, grain: group, by: [path], code: [fit.py], version: 2, reads: [letters], params: { x: 1 }, writes: { score: f64 } }
report:
  - text: Hello.
  - { table: count, by: [path], mean: [letters], higher: [letters], lower: [], where: { path: a }, title: T }
  - { images: count, column: copy, caption: [path], limit: 3 }
  - { curve: up, column: file }
  - { videos: up, column: file, caption: path }
",
    "stages: { a: { rows: [{ x: 1 }] }, b: { select: a, set: { y: .nan } }, c: { run: 'cat {x}', from: b, timeout: 1e300, writes: { z: str } } }\n",
    "a: &a { x: 1 }\nstages:\n  <<: *a\n  'b c': [1, [2, [3]]]\n  d: |\n    text\n  e: >-\n    folded\n  ? f\n  : !!str 7\n--- \n# end\n",
];

fn recipe(draws: &mut Draws) -> Vec<u8> {
    let seed = SEEDS[[1, 1, 1, 2, 3, 0][draws.below(6)]];
    mutate::text(seed, SEEDS[1], draws)
}

/// Reads and plans; the first words of what it said.
fn understand(provider: &Provider, bytes: &[u8]) -> String {
    // a recipe that is no text is refused before anybody reads it
    let Ok(text) = std::str::from_utf8(bytes) else { return "no text".into() };
    let overrides = Overrides { profile: text.contains("smoke").then(|| "smoke".into()), ..Overrides::default() };
    let planned = parse("r.yaml", PathBuf::from("/nowhere"), text.into(), &overrides)
        .and_then(|spec| plan(spec, vec![provider.clone()]));
    match planned {
        Ok(plan) => {
            (0..plan.nodes.len()).for_each(|i| drop(plan.describe(i)));
            "a plan".into()
        }
        Err(problems) => {
            assert!(!problems.0.is_empty(), "it was refused without a word");
            assert!(problems.0.iter().all(|problem| problem.hint.is_some()), "no hint: {problems}");
            // without names and numbers, as far as they can be told
            let message = &problems.0[0].message;
            let plain: Vec<&str> = message.split('`').step_by(2).collect();
            plain.join("_").split_whitespace().take(7).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Arrow files of all types, as we and others write them.
fn tables() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a folder");
    let blob = |n: u8| Value::Blob(Blob { digest: Digest([n; 32]), len: 7, ext: "png".into() });
    let columns = [
        ("b", Type::Bool),
        ("i", Type::I64),
        ("f", Type::F64),
        ("s", Type::Str),
        ("v", Type::Floats(3)),
        ("file", Type::Blob),
    ];
    let row = |n: u8| {
        vec![
            Value::Bool(n.is_multiple_of(2)),
            Value::I64(i64::from(n)),
            Value::F64(0.5),
            Value::Str("text".repeat(n as usize)),
            Value::Floats(vec![1.0; 3]),
            blob(n),
        ]
    };
    let all = Manifest::from_rows(Schema::new(columns).expect("a schema"), &[row(1), vec![Value::Null; 6], row(2)]);
    let all = all.expect("a table");
    let parts = [
        all.clone(),
        all.select(&["i", "s"]).expect("columns"),
        all.select(&["v"]).expect("a column"),
        all.select(&["file"]).expect("a column"),
        all.take(&[]),
        Manifest::unit(2),
    ];
    let write = |(i, table): (usize, &Manifest)| {
        let path = dir.path().join(format!("{i}.arrow"));
        write_ipc(&path, table).expect("it can be written");
        std::fs::read(&path).expect("it can be read")
    };
    parts.iter().enumerate().map(write).collect()
}

/// Reads a table, and all of it.
fn look(bytes: &[u8]) -> String {
    match manifests::read_ipc_from(std::io::Cursor::new(bytes), Path::new("t.arrow")) {
        Ok(table) => {
            // a table without columns can have millions of rows in no bytes
            let shown = table.len().min(10_000);
            (0..shown).for_each(|row| drop(table.row(row)));
            table.take(&(0..shown).collect::<Vec<_>>()).digest();
            table.take(&(0..shown).rev().collect::<Vec<_>>());
            "a table".into()
        }
        Err(error) => {
            let text = error.to_string();
            text.split(|c: char| c == '`' || c.is_ascii_digit()).next().unwrap_or_default().chars().take(70).collect()
        }
    }
}

fn recipes(until: Until, seed: u64) {
    let provider = provider();
    let ends = fuzz("recipes", until, seed, recipe, |bytes| understand(&provider, bytes));
    // a generator that reaches nothing finds nothing
    assert!(ends["a plan"] > 0 && ends.len() > 30, "{ends:?}");
}

fn arrow_files(until: Until, seed: u64) {
    let seeds = tables();
    let ends = fuzz(
        "tables",
        until,
        seed,
        |draws| {
            let (one, other) = (draws.below(seeds.len()), draws.below(seeds.len()));
            mutate::bytes(&seeds[one], &seeds[other], draws)
        },
        look,
    );
    assert!(ends["a table"] > 0 && ends.len() > 5, "{ends:?}");
}

#[test]
fn no_recipe_makes_it_panic() {
    recipes(Until::Time(Duration::from_secs(6)), 1);
}

#[test]
fn no_arrow_file_makes_it_panic() {
    arrow_files(Until::Time(Duration::from_secs(4)), 2);
}

/// Not for every day: `make fuzz`.
#[test]
#[ignore = "it takes minutes"]
fn at_length() {
    recipes(Until::Inputs(2_000_000), 3);
    arrow_files(Until::Inputs(3_000_000), 4);
}
