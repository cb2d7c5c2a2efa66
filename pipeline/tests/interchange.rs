//! Manifests in the hands of others: polars and pyarrow read the Arrow files we write, with every type and with nulls,
//! and we read what they write of it.
//!
//! Knows nothing of recipes.

use manifests::{Blob, Digest, Manifest, Schema, Type, Value, read_ipc, write_ipc};
use polars::prelude::{DataFrame, DataType};
use polars_io::prelude::{IpcReader, IpcWriter, SerReader, SerWriter};
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// A row with values, one with other values, one with none.
fn table() -> Manifest {
    let schema = Schema::new([
        ("known", Type::Bool),
        ("timestep", Type::I64),
        ("score", Type::F64),
        ("method", Type::Str),
        ("position", Type::Floats(3)),
        ("image", Type::Blob),
    ]);
    let row = |known, timestep, score, method: &str, position: [f64; 3], content: &str, ext: &str| {
        let digest = Digest::of_bytes(content.as_bytes());
        vec![
            Value::Bool(known),
            Value::I64(timestep),
            Value::F64(score),
            Value::Str(method.into()),
            Value::Floats(position.into()),
            Value::Blob(Blob { digest, len: content.len() as u64, ext: ext.into() }),
        ]
    };
    let rows = [
        // the integer is no f64, the sum is not 0.3
        row(true, (1 << 53) + 1, 0.1 + 0.2, "é", [1.0, -2.5, 1e-300], "a picture", "png"),
        row(false, i64::MIN, -7.0, "", [0.0, 0.5, 3.0], "", ""),
        vec![Value::Null; 6],
    ];
    Manifest::from_rows(schema.expect("names of columns"), &rows).expect("values of these types")
}

fn polars_reads(path: &Path) -> DataFrame {
    IpcReader::new(File::open(path).expect("just written")).finish().expect("polars reads it")
}

#[test]
fn polars_reads_every_type() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.arrow");
    write_ipc(&path, &table()).unwrap();
    let frame = polars_reads(&path);

    assert_eq!(frame.shape(), (3, 6));
    let column = |name: &str| frame.column(name).unwrap();
    let known: Vec<_> = column("known").bool().unwrap().iter().collect();
    assert_eq!(known, [Some(true), Some(false), None]);
    let timesteps: Vec<_> = column("timestep").i64().unwrap().iter().collect();
    assert_eq!(timesteps, [Some((1 << 53) + 1), Some(i64::MIN), None]);
    let scores: Vec<_> = column("score").f64().unwrap().iter().collect();
    assert_eq!(scores, [Some(0.1 + 0.2), Some(-7.0), None]);
    let methods: Vec<_> = column("method").str().unwrap().iter().collect();
    assert_eq!(methods, [Some("é"), Some(""), None]);

    assert_eq!(*column("position").dtype(), DataType::Array(Box::new(DataType::Float64), 3));
    let positions = column("position").array().unwrap();
    let position = |row| -> Option<Vec<f64>> {
        let list = positions.get_as_series(row)?;
        Some(list.f64().unwrap().iter().map(Option::unwrap).collect())
    };
    assert_eq!(
        [position(0), position(1), position(2)],
        [Some(vec![1.0, -2.5, 1e-300]), Some(vec![0.0, 0.5, 3.0]), None]
    );

    // polars keeps the mark of a blob as an extension type around the struct
    let images = column("image").as_materialized_series();
    assert!(
        matches!(images.dtype(), DataType::Extension(mark, _) if mark.name() == "effigy.blob"),
        "{}",
        images.dtype()
    );
    let parts = images.to_storage().struct_().expect("a struct below the mark");
    let texts = |name: &str| -> Vec<Option<String>> {
        parts.field_by_name(name).unwrap().str().unwrap().iter().map(|text| text.map(str::to_string)).collect()
    };
    let digest = |content: &str| Some(Digest::of_bytes(content.as_bytes()).to_string());
    assert_eq!(texts("digest")[..2], [digest("a picture"), digest("")]);
    assert_eq!(texts("ext")[..2], [Some("png".to_string()), Some(String::new())]);
    let lengths: Vec<_> = parts.field_by_name("len").unwrap().i64().unwrap().iter().collect();
    assert_eq!(lengths[..2], [Some(9), Some(0)]);
    assert_eq!(images.null_count(), 1);
}

#[test]
fn what_polars_writes_of_a_manifest_is_the_same_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.arrow");
    write_ipc(&path, &table()).unwrap();
    let mut frame = polars_reads(&path);
    let again = dir.path().join("again.arrow");
    IpcWriter::new(File::create(&again).unwrap()).finish(&mut frame).unwrap();
    assert_eq!(read_ipc(&again).unwrap().digest(), table().digest());
}

/// Says types, marks and rows of a file, and writes it again.
const PYARROW: &str = r#"
import json, sys, pyarrow
with pyarrow.ipc.open_file(sys.argv[1]) as file:
    table = file.read_all()
with pyarrow.ipc.new_file(sys.argv[2], table.schema) as out:
    out.write_table(table)
marks = {field.name: field.metadata[b"ARROW:extension:name"].decode() for field in table.schema if field.metadata}
print(json.dumps({"types": [str(field.type) for field in table.schema], "marks": marks, "rows": table.to_pylist()}))
"#;

#[test]
fn pyarrow_reads_every_type() {
    let python = |code: &str, files: &[&Path]| Command::new("python3").args(["-c", code]).args(files).output();
    if !python("import pyarrow", &[]).is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED pyarrow_reads_every_type: there is no python3 that can import pyarrow");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, again) = (dir.path().join("rows.arrow"), dir.path().join("again.arrow"));
    write_ipc(&path, &table()).unwrap();
    let output = python(PYARROW, &[&path, &again]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let blob = |content: &str, ext: &str| {
        let digest = Digest::of_bytes(content.as_bytes()).to_string();
        serde_json::json!({ "digest": digest, "len": content.len(), "ext": ext })
    };
    let expected = serde_json::json!({
        "types": [
            "bool", "int64", "double", "string", "fixed_size_list<item: double>[3]",
            "struct<digest: string, len: int64, ext: string>",
        ],
        "marks": { "image": "effigy.blob" },
        "rows": [
            {
                "known": true, "timestep": (1i64 << 53) + 1, "score": 0.1 + 0.2, "method": "é",
                "position": [1.0, -2.5, 1e-300], "image": blob("a picture", "png"),
            },
            {
                "known": false, "timestep": i64::MIN, "score": -7.0, "method": "",
                "position": [0.0, 0.5, 3.0], "image": blob("", ""),
            },
            { "known": null, "timestep": null, "score": null, "method": null, "position": null, "image": null },
        ],
    });
    assert_eq!(found, expected);
    assert_eq!(read_ipc(&again).unwrap().digest(), table().digest());
}
