//! What is done with an input that nobody meant, and the sound ones that the others come from. Knows no generator.

use manifests::{Blob, Digest, Manifest, Schema, Type, Value, write_ipc};
use pipeline::plan::plan;
use pipeline::provider::Provider;
use pipeline::spec::{Overrides, parse};
use protocol::{Description, Grain, StageDef};
use std::path::{Path, PathBuf};

/// A provider that has stages of all grains, with parameters of all kinds.
pub fn provider() -> Provider {
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
    let description = Description {
        protocol: 1,
        provider: "fake".into(),
        version: "1".into(),
        software: Default::default(),
        files: Vec::new(),
        stages,
    };
    Provider { argv: vec!["fake".into()], dir: PathBuf::from("/"), description, prints: Vec::new() }
}

/// Sound recipes.
pub const SEEDS: [&str; 4] = [
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

/// Reads and plans; the first words of what it said.
pub fn understand(provider: &Provider, bytes: &[u8]) -> String {
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
pub fn tables() -> Vec<Vec<u8>> {
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
pub fn look(bytes: &[u8]) -> String {
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
