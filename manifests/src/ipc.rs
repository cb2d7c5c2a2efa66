//! Manifests as Arrow IPC files that polars, pyarrow and DuckDB read. Knows no cache: the caller names the file.

use crate::manifest::{EXTENSION, data_type};
use crate::{Error, Manifest, Result, Schema, Type};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

/// Writes a manifest as an Arrow IPC file, under a temporary name first, so that no half file ever bears the name.
///
/// # Errors
/// If the file cannot be written; the message names it.
pub fn write_ipc(path: &Path, manifest: &Manifest) -> Result<()> {
    let io = |source| Error::Io { doing: "write", path: path.into(), source };
    let arrow = |error: arrow::error::ArrowError| match error {
        arrow::error::ArrowError::IoError(_, source) => io(source),
        other => Error::Malformed(other.to_string()),
    };
    let temporary = path.with_extension("arrow.tmp");
    let mut out = BufWriter::new(File::create(&temporary).map_err(io)?);
    let batch = manifest.batch();
    let mut writer = FileWriter::try_new(&mut out, &batch.schema()).map_err(arrow)?;
    writer.write(batch).map_err(arrow)?;
    writer.finish().map_err(arrow)?;
    drop(writer);
    out.flush().map_err(io)?;
    drop(out);
    std::fs::rename(&temporary, path).map_err(io)
}

/// Reads a manifest. Columns of related Arrow types (32-bit numbers, large or view strings) are converted.
///
/// # Errors
/// If the file is missing, truncated, not Arrow, or has a column outside the closed set of types.
pub fn read_ipc(path: &Path) -> Result<Manifest> {
    let file = File::open(path).map_err(|source| Error::Io { doing: "read", path: path.into(), source })?;
    read_ipc_from(BufReader::new(file), path)
}

/// The same from any reader; `path` is its name in messages.
///
/// # Errors
/// If it is truncated, not Arrow, or has a column outside the closed set of types.
pub fn read_ipc_from(from: impl Read + Seek, path: &Path) -> Result<Manifest> {
    let broken = |error: arrow::error::ArrowError| Error::NotArrow { path: path.into(), reason: error.to_string() };
    let reader = FileReader::try_new(from, None).map_err(broken)?;
    let arrow_schema = reader.schema();
    let mut schema = Schema::default();
    for field in arrow_schema.fields() {
        schema.push(field.name().clone(), column_type(field)?)?;
    }
    let mut parts = Vec::new();
    for batch in reader {
        let batch = batch.map_err(broken)?;
        let arrays = schema.columns().iter().zip(batch.columns()).map(|(column, array)| convert(array, column.ty));
        parts.push(Manifest::from_arrays(schema.clone(), arrays.collect::<Result<_>>()?, batch.num_rows())?);
    }
    let manifest = Manifest::concat(&schema, &parts.iter().collect::<Vec<_>>())?;
    check_blobs(path, &manifest)?;
    Ok(manifest)
}

fn column_type(field: &Field) -> Result<Type> {
    let blob = field.metadata().get(EXTENSION.0).is_some_and(|name| name == EXTENSION.1);
    Ok(match field.data_type() {
        DataType::Boolean => Type::Bool,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Type::I64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Type::I64,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => Type::F64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Type::Str,
        // a writer that knows no dictionaries of ours (pyarrow's default for categories)
        DataType::Dictionary(_, values) if matches!(**values, DataType::Utf8 | DataType::LargeUtf8) => Type::Str,
        DataType::Null => Type::Str,
        DataType::FixedSizeList(item, n) if item.data_type().is_floating() => Type::Floats(*n as u32),
        other if blob && *other == data_type(Type::Blob) => Type::Blob,
        // polars drops field metadata when it rewrites a file; the shape is telling enough
        DataType::Struct(fields) if fields.iter().map(|f| f.name().as_str()).eq(["digest", "len", "ext"]) => Type::Blob,
        other => return Err(Error::UnsupportedType { column: field.name().clone(), found: other.to_string() }),
    })
}

fn convert(array: &ArrayRef, ty: Type) -> Result<ArrayRef> {
    let wanted = data_type(ty);
    if *array.data_type() == wanted {
        return Ok(array.clone());
    }
    let strict = arrow::compute::CastOptions { safe: false, ..Default::default() };
    arrow::compute::cast_with_options(array, &wanted, &strict).map_err(|error| Error::Malformed(error.to_string()))
}

fn check_blobs(path: &Path, manifest: &Manifest) -> Result<()> {
    for (i, column) in manifest.schema().columns().iter().enumerate() {
        if column.ty != Type::Blob {
            continue;
        }
        let array = manifest.batch().column(i);
        let parts = array.as_any().downcast_ref::<arrow::array::StructArray>().expect("converted above");
        let digests = parts.column(0).as_any().downcast_ref::<arrow::array::StringArray>().expect("converted above");
        for row in (0..array.len()).filter(|&row| array.is_valid(row)) {
            if let Err(reason) = digests.value(row).parse::<crate::Digest>() {
                let reason = format!("row {row} of blob column `{}`: {reason}", column.name);
                return Err(Error::NotArrow { path: path.into(), reason });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Blob, Digest, Value};

    #[test]
    fn files_round_trip_and_truncated_ones_are_refused() {
        let dir = std::env::temp_dir().join(format!("effigy-ipc-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.arrow");
        let schema = Schema::new([("x", Type::F64), ("k", Type::Floats(9)), ("file", Type::Blob)]).unwrap();
        let blob = Blob { digest: Digest::of_bytes(b"1"), len: 1, ext: String::new() };
        let rows =
            [vec![Value::F64(f64::INFINITY), Value::Floats(vec![0.5; 9]), Value::Blob(blob)], vec![Value::Null; 3]];
        let manifest = Manifest::from_rows(schema, &rows).unwrap();
        write_ipc(&path, &manifest).unwrap();
        assert_eq!(read_ipc(&path).unwrap(), manifest);
        assert_eq!(read_ipc(&path).unwrap().digest(), manifest.digest());

        let bytes = std::fs::read(&path).unwrap();
        for keep in [0, 7, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..keep]).unwrap();
            let error = read_ipc(&path).unwrap_err();
            assert!(matches!(error, Error::NotArrow { .. }), "{keep} bytes: {error}");
        }
        assert!(read_ipc(&dir.join("none.arrow")).unwrap_err().to_string().contains("none.arrow"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn empty_tables_and_tables_without_columns_keep_their_length() {
        let path = std::env::temp_dir().join(format!("effigy-ipc-empty-{}.arrow", std::process::id()));
        for rows in [0, 1] {
            write_ipc(&path, &Manifest::unit(rows)).unwrap();
            assert_eq!(read_ipc(&path).unwrap().len(), rows);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
