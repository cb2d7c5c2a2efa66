//! Manifests as Arrow IPC files that polars, pyarrow and DuckDB read. Knows no cache: the caller names the file.

use crate::manifest::{EXTENSION, data_type};
use crate::{Error, Manifest, Result, Schema, Type};
use arrow::array::{Array, ArrayRef, FixedSizeListArray};
use arrow::datatypes::{DataType, Field};
use arrow::ipc::reader::{FileReader, read_footer_length};
use arrow::ipc::writer::FileWriter;
use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
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
pub fn read_ipc_from(mut from: impl Read + Seek, path: &Path) -> Result<Manifest> {
    check_blocks(&mut from, path)?;
    calmly(|| read_checked(from, path)).unwrap_or_else(|panic| {
        let reason = format!("it is damaged ({panic})");
        Err(Error::NotArrow { path: path.into(), reason })
    })
}

/// Some damage is found only by assertions of the reader. For the caller it is an error like others, and nothing is
/// printed.
fn calmly<T>(read: impl FnOnce() -> T) -> std::result::Result<T, String> {
    static HOOK: std::sync::Once = std::sync::Once::new();
    thread_local!(static READS: Cell<bool> = const { Cell::new(false) });
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !READS.get() {
                before(info);
            }
        }));
    });
    let outer = READS.replace(true);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    READS.set(outer);
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or(panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default()
    })
}

fn read_checked(from: impl Read + Seek, path: &Path) -> Result<Manifest> {
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
    check_floats(&manifest)?;
    Ok(manifest)
}

/// Makes sure that the parts of a file lie within it, and the buffers of a batch within that: the reader believes what
/// is said of them, and panics where it is not so.
fn check_blocks(from: &mut (impl Read + Seek), path: &Path) -> Result<()> {
    // the length of the footer and the mark at the end
    const TAIL: u64 = 10;
    let broken = |reason: String| Error::NotArrow { path: path.into(), reason };
    let cut = || broken("its parts do not lie within it: it is cut off or damaged".into());
    let io = |source| Error::Io { doing: "read", path: path.into(), source };
    let length = from.seek(SeekFrom::End(0)).map_err(io)?;
    // `None` where the file does not reach so far
    let mut bytes = |at: Option<u64>, count: u64| -> Result<Vec<u8>> {
        let at = at.filter(|at| at.checked_add(count).is_some_and(|end| end <= length)).ok_or_else(cut)?;
        let mut bytes = vec![0; count as usize];
        from.seek(SeekFrom::Start(at)).and_then(|_| from.read_exact(&mut bytes)).map_err(io)?;
        Ok(bytes)
    };
    let tail = length.checked_sub(TAIL);
    let footer_length = read_footer_length(bytes(tail, TAIL)?.try_into().expect("so many were read"));
    let footer_length = footer_length.map_err(|error| broken(error.to_string()))? as u64;
    let footer = bytes(tail.and_then(|tail| tail.checked_sub(footer_length)), footer_length)?;
    let footer = arrow::ipc::root_as_footer(&footer).map_err(|error| broken(error.to_string()))?;
    for block in footer.dictionaries().into_iter().flatten().chain(footer.recordBatches().into_iter().flatten()) {
        let parts = (u64::try_from(block.metaDataLength()), u64::try_from(block.bodyLength()));
        let (Ok(metadata), Ok(body)) = parts else { return Err(cut()) };
        let at = u64::try_from(block.offset()).ok();
        let head = bytes(at, metadata)?;
        if at.and_then(|at| (at + metadata).checked_add(body)).is_none_or(|end| end > length) {
            return Err(cut());
        }
        // a length stands before the message, in newer files behind a mark
        let message = head.get(if head.starts_with(&[0xff; 4]) { 8 } else { 4 }..).ok_or_else(cut)?;
        let message = arrow::ipc::root_as_message(message).map_err(|error| broken(error.to_string()))?;
        let batch = message.header_as_record_batch();
        let batch = batch.or_else(|| message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()));
        let Some(batch) = batch else { continue };
        let nodes = batch.nodes().into_iter().flatten();
        // a bool takes up a bit; what is null throughout takes up nothing, and rows without columns are hashed all the
        // same
        let room = if batch.nodes().is_none_or(|nodes| nodes.is_empty()) { 1 << 24 } else { (8 * length).max(1 << 20) };
        for rows in nodes.map(|node| node.length()).chain([batch.length()]) {
            if u64::try_from(rows).is_ok_and(|rows| rows <= room) {
                continue;
            }
            return Err(broken(format!("it speaks of {rows} rows and has room for {room}")));
        }
        for buffer in batch.buffers().into_iter().flatten() {
            let (Ok(at), Ok(count)) = (u64::try_from(buffer.offset()), u64::try_from(buffer.length())) else {
                return Err(cut());
            };
            if at.checked_add(count).is_none_or(|end| end > body) {
                return Err(cut());
            }
        }
    }
    from.rewind().map_err(io)
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

/// Under a null lies whatever its writer left there: a list may be null as a whole, but not hold one.
fn check_floats(manifest: &Manifest) -> Result<()> {
    for (i, column) in manifest.schema().columns().iter().enumerate() {
        let array = manifest.batch().column(i);
        let Some(list) = array.as_any().downcast_ref::<FixedSizeListArray>() else { continue };
        if list.values().null_count() == 0 {
            continue;
        }
        for row in (0..list.len()).filter(|&row| list.is_valid(row)) {
            let numbers = list.value(row);
            if let Some(place) = (0..numbers.len()).find(|&place| numbers.is_null(place)) {
                return Err(Error::NullWithin { column: column.name.clone(), row, place });
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
    fn a_null_within_a_list_of_numbers_is_refused() {
        use arrow::array::{Float32Array, RecordBatch};
        use std::sync::Arc;
        let path = std::env::temp_dir().join(format!("effigy-ipc-null-{}.arrow", std::process::id()));
        let read = |numbers: Vec<Option<f32>>, valid: [bool; 2]| {
            let item = Arc::new(Field::new("item", DataType::Float32, true));
            let numbers = Arc::new(Float32Array::from(numbers));
            let list = FixedSizeListArray::new(item, 2, numbers, Some(valid.to_vec().into()));
            let batch = RecordBatch::try_from_iter_with_nullable([("pose", Arc::new(list) as ArrayRef, true)]).unwrap();
            let mut writer = FileWriter::try_new(File::create(&path).unwrap(), &batch.schema()).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
            read_ipc(&path)
        };
        let error = read(vec![Some(1.0), Some(2.0), Some(3.0), None], [true, true]).unwrap_err();
        assert!(matches!(&error, Error::NullWithin { column, row: 1, place: 1 } if column == "pose"), "{error}");
        let table = read(vec![Some(1.0), Some(f32::INFINITY), None, None], [true, false]).unwrap();
        let expected = [Value::Floats(vec![1.0, f64::INFINITY]), Value::Null];
        assert_eq!(table.column("pose").unwrap(), expected, "a list may be null as a whole");
        std::fs::remove_file(&path).unwrap();
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
