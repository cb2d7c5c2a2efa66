//! A manifest: a typed table over one Arrow record batch. Rows are views; all bulk work goes column by column.
//!
//! Knows how a row is encoded and hashed, not what a unit or a key is.

use crate::value::{encode_blob, encode_f64, encode_i64, encode_str};
use crate::{Blob, Digest, Error, Hasher, Result, Schema, Type, Value};
use arrow::array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions,
    StringArray, StructArray, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// The name under which blob columns are marked in Arrow field metadata.
pub(crate) const EXTENSION: (&str, &str) = ("ARROW:extension:name", "effigy.blob");

/// A table of rows.
#[derive(Clone, Debug)]
pub struct Manifest {
    schema: Schema,
    batch: RecordBatch,
}

/// A column with its Arrow type resolved, for loops over many rows.
enum Cells<'a> {
    Bool(&'a BooleanArray),
    I64(&'a Int64Array),
    F64(&'a Float64Array),
    Str(&'a StringArray),
    Floats(&'a FixedSizeListArray, &'a Float64Array),
    Blob(&'a StructArray, &'a StringArray, &'a Int64Array, &'a StringArray),
}

impl Manifest {
    /// A table from rows of values, one value for each column of `schema`.
    ///
    /// # Errors
    /// If a row has another number of values, or a value another type than its column.
    pub fn from_rows(schema: Schema, rows: &[Vec<Value>]) -> Result<Manifest> {
        if let Some((i, row)) = rows.iter().enumerate().find(|(_, row)| row.len() != schema.columns().len()) {
            let (found, expected) = (row.len(), schema.columns().len());
            return Err(Error::Malformed(format!("row {i} has {found} values for {expected} columns")));
        }
        let arrays = schema
            .columns()
            .iter()
            .enumerate()
            .map(|(c, column)| build(&column.name, column.ty, rows.iter().map(|row| &row[c]), rows.len()))
            .collect::<Result<Vec<_>>>()?;
        Manifest::from_arrays(schema, arrays, rows.len())
    }

    /// A table from columns of values, all of the same length.
    ///
    /// # Errors
    /// If there are not as many columns as in `schema`, their lengths differ, or a value has another type than its
    /// column.
    pub fn from_columns(schema: Schema, rows: usize, columns: &[Vec<Value>]) -> Result<Manifest> {
        if columns.len() != schema.columns().len() || columns.iter().any(|column| column.len() != rows) {
            return Err(Error::Malformed(format!("expected {} columns of {rows} values", schema.columns().len())));
        }
        let pairs = schema.columns().iter().zip(columns);
        let arrays = pairs.map(|(column, values)| build(&column.name, column.ty, values.iter(), rows));
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        Manifest::from_arrays(schema, arrays, rows)
    }

    /// The same table with other names for its columns.
    ///
    /// # Errors
    /// If there are not as many names as columns, one is not an identifier, or one is there twice.
    pub fn renamed(&self, names: &[&str]) -> Result<Manifest> {
        if names.len() != self.schema.columns().len() {
            return Err(Error::Malformed(format!("{} names for {} columns", names.len(), self.schema.columns().len())));
        }
        let columns = names.iter().zip(self.schema.columns()).map(|(name, column)| (*name, column.ty));
        Manifest::from_arrays(Schema::new(columns)?, self.batch.columns().to_vec(), self.len())
    }

    /// A table of whole columns.
    pub(crate) fn from_arrays(schema: Schema, arrays: Vec<ArrayRef>, rows: usize) -> Result<Manifest> {
        let fields: Fields = schema.columns().iter().map(|column| Arc::new(field(&column.name, column.ty))).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let arrow_schema = Arc::new(arrow::datatypes::Schema::new(fields));
        let batch = RecordBatch::try_new_with_options(arrow_schema, arrays, &options)
            .map_err(|error| Error::Malformed(error.to_string()))?;
        Ok(Manifest { schema, batch })
    }

    /// A table without columns and with so many rows; a source stage starts from one such row.
    pub fn unit(rows: usize) -> Manifest {
        Manifest::from_arrays(Schema::default(), Vec::new(), rows).expect("no column can disagree with the row count")
    }

    /// The columns.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The Arrow record batch underneath.
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One cell.
    ///
    /// # Errors
    /// If there is no such column.
    ///
    /// # Panics
    /// If the row is out of range.
    pub fn value(&self, row: usize, column: &str) -> Result<Value> {
        let index = self.schema.require(column)?;
        Ok(self.cells(index).value(row))
    }

    /// One row, in the order of the columns.
    pub fn row(&self, row: usize) -> Vec<Value> {
        (0..self.schema.columns().len()).map(|c| self.cells(c).value(row)).collect()
    }

    /// A whole column as values.
    ///
    /// # Errors
    /// If there is no such column.
    pub fn column(&self, column: &str) -> Result<Vec<Value>> {
        let cells = self.cells(self.schema.require(column)?);
        Ok((0..self.len()).map(|row| cells.value(row)).collect())
    }

    /// Some columns, in the order asked for.
    ///
    /// # Errors
    /// If one is missing.
    pub fn select(&self, columns: &[&str]) -> Result<Manifest> {
        let at = columns.iter().map(|name| self.schema.require(name)).collect::<Result<Vec<_>>>()?;
        let schema = Schema::new(at.iter().map(|&i| {
            let column = &self.schema.columns()[i];
            (column.name.clone(), column.ty)
        }))?;
        let arrays = at.iter().map(|&i| self.batch.column(i).clone()).collect();
        Manifest::from_arrays(schema, arrays, self.len())
    }

    /// Some rows, in the order asked for; an index may come more than once.
    ///
    /// # Panics
    /// If an index is out of range.
    pub fn take(&self, rows: &[usize]) -> Manifest {
        let indices = UInt32Array::from_iter_values(rows.iter().map(|&row| {
            assert!(row < self.len(), "row {row} of {}", self.len());
            row as u32
        }));
        let arrays = self
            .batch
            .columns()
            .iter()
            .map(|column| arrow::compute::take(column, &indices, None).expect("indices were checked"))
            .collect();
        Manifest::from_arrays(self.schema.clone(), arrays, rows.len()).expect("the columns are as before")
    }

    /// Some rows, in the order asked for; nulls where none is named.
    ///
    /// # Panics
    /// If an index is out of range.
    pub fn take_or_null(&self, rows: &[Option<usize>]) -> Manifest {
        let indices = UInt32Array::from_iter(rows.iter().map(|row| {
            row.map(|row| {
                assert!(row < self.len(), "row {row} of {}", self.len());
                row as u32
            })
        }));
        let take = |column: &ArrayRef| arrow::compute::take(column, &indices, None).expect("indices were checked");
        let arrays = self.batch.columns().iter().map(take).collect();
        Manifest::from_arrays(self.schema.clone(), arrays, rows.len()).expect("the columns are as before")
    }

    /// This table with the columns of another of equal length at its right; a column of the same name is replaced.
    ///
    /// # Errors
    /// If the lengths differ.
    pub fn beside(&self, right: &Manifest) -> Result<Manifest> {
        if self.len() != right.len() {
            return Err(Error::Malformed(format!("{} rows cannot stand beside {}", self.len(), right.len())));
        }
        let mut schema = Schema::default();
        let mut arrays = Vec::new();
        for (i, column) in self.schema.columns().iter().enumerate() {
            if right.schema.position(&column.name).is_none() {
                schema.push(column.name.clone(), column.ty)?;
                arrays.push(self.batch.column(i).clone());
            }
        }
        for (i, column) in right.schema.columns().iter().enumerate() {
            schema.push(column.name.clone(), column.ty)?;
            arrays.push(right.batch.column(i).clone());
        }
        Manifest::from_arrays(schema, arrays, self.len())
    }

    /// The rows of several tables below each other. All must have the columns of `schema`, in any order; a table that
    /// lacks one gets nulls there, one that has others loses them. Floats of unknown number (`floats[0]`) without a
    /// value are nulls of the number in `schema`.
    ///
    /// # Errors
    /// If a column has another type than in `schema`.
    pub fn concat(schema: &Schema, parts: &[&Manifest]) -> Result<Manifest> {
        let rows = parts.iter().map(|part| part.len()).sum();
        let mut arrays = Vec::new();
        for column in schema.columns() {
            let mut pieces: Vec<ArrayRef> = Vec::new();
            for part in parts {
                pieces.push(match part.schema.position(&column.name) {
                    None => arrow::array::new_null_array(&data_type(column.ty), part.len()),
                    Some(i) if part.schema.columns()[i].ty == column.ty => part.batch.column(i).clone(),
                    // a table without a value in a column of floats does not know their number
                    Some(i)
                        if matches!((part.schema.columns()[i].ty, column.ty), (Type::Floats(0), Type::Floats(_)))
                            && part.batch.column(i).null_count() == part.len() =>
                    {
                        arrow::array::new_null_array(&data_type(column.ty), part.len())
                    }
                    Some(i) => {
                        return Err(Error::WrongType {
                            column: column.name.clone(),
                            expected: column.ty.to_string(),
                            found: part.schema.columns()[i].ty.to_string(),
                        });
                    }
                });
            }
            let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| piece.as_ref()).collect();
            arrays.push(if pieces.is_empty() {
                arrow::array::new_empty_array(&data_type(column.ty))
            } else {
                arrow::compute::concat(&pieces).map_err(|error| Error::Malformed(error.to_string()))?
            });
        }
        Manifest::from_arrays(schema.clone(), arrays, rows)
    }

    /// Encodes every row, projected to `columns` in the order given, and maps the bytes; in parallel, in row order.
    ///
    /// # Errors
    /// If a column is missing.
    pub fn map_encoded<T: Send>(&self, columns: &[&str], map: impl Fn(&[u8]) -> T + Sync) -> Result<Vec<T>> {
        let at = columns.iter().map(|name| self.schema.require(name)).collect::<Result<Vec<_>>>()?;
        let cells: Vec<Cells<'_>> = at.iter().map(|&i| self.cells(i)).collect();
        Ok((0..self.len())
            .into_par_iter()
            .with_min_len(256)
            .map_init(Vec::new, |bytes, row| {
                bytes.clear();
                cells.iter().for_each(|column| column.encode(row, bytes));
                map(bytes)
            })
            .collect())
    }

    /// The digest of the table: its schema, with columns sorted by name, and its rows in order.
    ///
    /// Of the logical content, never of an Arrow file's bytes: writers may lay the same table out differently.
    pub fn digest(&self) -> Digest {
        let mut names = self.schema.names();
        names.sort_unstable();
        let mut hasher = Hasher::new("manifest/1");
        hasher.number(names.len() as u64);
        for name in &names {
            hasher.bytes(name.as_bytes());
            hasher.bytes(self.schema.ty(name).expect("it is a column of ours").to_string().as_bytes());
        }
        hasher.number(self.len() as u64);
        let rows = self.map_encoded(&names, Digest::of_bytes).expect("they are columns of ours");
        rows.iter().for_each(|row| hasher.digest(row));
        hasher.finish()
    }

    fn cells(&self, column: usize) -> Cells<'_> {
        let array = self.batch.column(column);
        let ty = self.schema.columns()[column].ty;
        cells(array, ty).expect("arrays were checked against the schema when the table was made")
    }
}

/// Whether they hold the same, as [`Manifest::digest`] sees it: NaN is NaN.
impl PartialEq for Manifest {
    fn eq(&self, other: &Manifest) -> bool {
        let names = self.schema.names();
        let rows = |table: &Manifest| table.map_encoded(&names, <[u8]>::to_vec).ok();
        // arrays are compared fast, but may hold the same in other pieces
        self.schema == other.schema
            && self.len() == other.len()
            && (self.batch == other.batch || rows(self) == rows(other))
    }
}

fn cells(array: &ArrayRef, ty: Type) -> Option<Cells<'_>> {
    let any = array.as_any();
    Some(match ty {
        Type::Bool => Cells::Bool(any.downcast_ref()?),
        Type::I64 => Cells::I64(any.downcast_ref()?),
        Type::F64 => Cells::F64(any.downcast_ref()?),
        Type::Str => Cells::Str(any.downcast_ref()?),
        Type::Floats(_) => {
            let list: &FixedSizeListArray = any.downcast_ref()?;
            Cells::Floats(list, list.values().as_any().downcast_ref()?)
        }
        Type::Blob => {
            let blob: &StructArray = any.downcast_ref()?;
            let (digest, len, ext) = (blob.column(0), blob.column(1), blob.column(2));
            Cells::Blob(
                blob,
                digest.as_any().downcast_ref()?,
                len.as_any().downcast_ref()?,
                ext.as_any().downcast_ref()?,
            )
        }
    })
}

impl Cells<'_> {
    fn value(&self, row: usize) -> Value {
        match self {
            Cells::Bool(a) if a.is_valid(row) => Value::Bool(a.value(row)),
            Cells::I64(a) if a.is_valid(row) => Value::I64(a.value(row)),
            Cells::F64(a) if a.is_valid(row) => Value::F64(a.value(row)),
            Cells::Str(a) if a.is_valid(row) => Value::Str(a.value(row).into()),
            Cells::Floats(list, values) if list.is_valid(row) => {
                let (start, n) = (list.value_offset_at(row), list.value_length() as usize);
                Value::Floats(values.values()[start..start + n].to_vec())
            }
            Cells::Blob(blob, digest, len, ext) if blob.is_valid(row) => Value::Blob(Blob {
                digest: digest.value(row).parse().expect("digests were checked when the table was made"),
                len: len.value(row) as u64,
                ext: ext.value(row).into(),
            }),
            _ => Value::Null,
        }
    }

    /// The same bytes as [`Value::encode`], without making a value.
    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Cells::Bool(a) if a.is_valid(row) => out.extend([1, u8::from(a.value(row))]),
            Cells::I64(a) if a.is_valid(row) => encode_i64(a.value(row), out),
            Cells::F64(a) if a.is_valid(row) => {
                out.push(3);
                encode_f64(a.value(row), out);
            }
            Cells::Str(a) if a.is_valid(row) => encode_str(a.value(row), out),
            Cells::Floats(list, values) if list.is_valid(row) => {
                let (start, n) = (list.value_offset_at(row), list.value_length() as usize);
                out.push(5);
                out.extend((n as u64).to_le_bytes());
                values.values()[start..start + n].iter().for_each(|value| encode_f64(*value, out));
            }
            Cells::Blob(blob, digest, _, ext) if blob.is_valid(row) => {
                encode_blob(digest.value(row), ext.value(row), out)
            }
            _ => out.push(0),
        }
    }
}

fn blob_fields() -> Fields {
    Fields::from(vec![
        Field::new("digest", DataType::Utf8, true),
        Field::new("len", DataType::Int64, true),
        Field::new("ext", DataType::Utf8, true),
    ])
}

pub(crate) fn data_type(ty: Type) -> DataType {
    match ty {
        Type::Bool => DataType::Boolean,
        Type::I64 => DataType::Int64,
        Type::F64 => DataType::Float64,
        Type::Str => DataType::Utf8,
        Type::Floats(n) => DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float64, true)), n as i32),
        Type::Blob => DataType::Struct(blob_fields()),
    }
}

pub(crate) fn field(name: &str, ty: Type) -> Field {
    let field = Field::new(name, data_type(ty), true);
    match ty {
        Type::Blob => field.with_metadata(HashMap::from([(EXTENSION.0.to_string(), EXTENSION.1.to_string())])),
        _ => field,
    }
}

fn build<'a>(name: &str, ty: Type, values: impl Iterator<Item = &'a Value> + Clone, n: usize) -> Result<ArrayRef> {
    let wrong = values.clone().find(|value| value.ty().is_some_and(|found| found != ty));
    if let Some(found) = wrong.and_then(Value::ty) {
        return Err(Error::WrongType { column: name.into(), expected: ty.to_string(), found: found.to_string() });
    }
    let valid = || NullBuffer::from(values.clone().map(|value| !matches!(value, Value::Null)).collect::<Vec<_>>());
    Ok(match ty {
        Type::Bool => {
            Arc::new(BooleanArray::from_iter(values.map(|v| if let Value::Bool(b) = v { Some(*b) } else { None })))
        }
        Type::I64 => {
            Arc::new(Int64Array::from_iter(values.map(|v| if let Value::I64(i) = v { Some(*i) } else { None })))
        }
        Type::F64 => {
            Arc::new(Float64Array::from_iter(values.map(|v| if let Value::F64(f) = v { Some(*f) } else { None })))
        }
        Type::Str => Arc::new(StringArray::from_iter(
            values.map(|v| if let Value::Str(s) = v { Some(s.as_str()) } else { None }),
        )),
        Type::Floats(width) => {
            let mut flat = Vec::with_capacity(n * width as usize);
            for value in values.clone() {
                match value {
                    Value::Floats(floats) => flat.extend_from_slice(floats),
                    _ => flat.extend(std::iter::repeat_n(0.0, width as usize)),
                }
            }
            let item = Arc::new(Field::new("item", DataType::Float64, true));
            let flat: ArrayRef = Arc::new(Float64Array::from(flat));
            Arc::new(
                FixedSizeListArray::try_new(item, width as i32, flat, Some(valid()))
                    .map_err(|error| Error::Malformed(format!("column `{name}`: {error}")))?,
            )
        }
        Type::Blob => {
            let blob = |value: &'a Value| if let Value::Blob(blob) = value { Some(blob) } else { None };
            let digest = StringArray::from_iter(values.clone().map(|v| blob(v).map(|b| b.digest.to_string())));
            let len = Int64Array::from_iter(values.clone().map(|v| blob(v).map(|b| b.len as i64)));
            let ext = StringArray::from_iter(values.clone().map(|v| blob(v).map(|b| b.ext.as_str())));
            let columns: Vec<ArrayRef> = vec![Arc::new(digest), Arc::new(len), Arc::new(ext)];
            Arc::new(
                StructArray::try_new(blob_fields(), columns, Some(valid()))
                    .map_err(|error| Error::Malformed(format!("column `{name}`: {error}")))?,
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let schema = Schema::new([
            ("id", Type::I64),
            ("name", Type::Str),
            ("pose", Type::Floats(2)),
            ("image", Type::Blob),
            ("score", Type::F64),
            ("held_out", Type::Bool),
        ]);
        let blob =
            |text: &str| Value::Blob(Blob { digest: Digest::of_bytes(text.as_bytes()), len: 1, ext: "png".into() });
        let row = |id, name: &str, image, score| {
            vec![
                Value::I64(id),
                Value::Str(name.into()),
                Value::Floats(vec![1.0, 2.0]),
                image,
                score,
                Value::Bool(true),
            ]
        };
        let rows = [row(1, "a", blob("a"), Value::F64(0.5)), row(2, "b", Value::Null, Value::Null)];
        Manifest::from_rows(schema.unwrap(), &rows).unwrap()
    }

    #[test]
    fn rows_come_back_as_they_went_in() {
        let manifest = sample();
        assert_eq!(manifest.value(1, "image").unwrap(), Value::Null);
        assert_eq!(manifest.value(0, "pose").unwrap(), Value::Floats(vec![1.0, 2.0]));
        let error = manifest.value(0, "nmae").unwrap_err().to_string();
        assert!(error.contains("nmae") && error.contains("held_out"), "{error}");
    }

    #[test]
    fn column_encoding_equals_value_encoding() {
        let manifest = sample();
        let names = manifest.schema().names();
        let encoded = manifest.map_encoded(&names, <[u8]>::to_vec).unwrap();
        for (i, bytes) in encoded.iter().enumerate() {
            let mut expected = Vec::new();
            manifest.row(i).iter().for_each(|value| value.encode(&mut expected));
            assert_eq!(bytes, &expected);
        }
    }

    #[test]
    fn digest_is_of_content_and_pinned() {
        let manifest = sample();
        let reordered = manifest.select(&["score", "name", "id", "held_out", "image", "pose"]).unwrap();
        assert_eq!(manifest.digest(), reordered.digest(), "column order is no content");
        assert_ne!(manifest.digest(), manifest.take(&[1, 0]).digest(), "row order is");
        assert_eq!(manifest.digest().to_string(), "31afbf90fbb8415e88db991d52edb3564c151b9db6dc4384a83e904f2c614169");
    }

    #[test]
    fn tables_stand_beside_and_below() {
        let manifest = sample();
        let score = Schema::new([("score", Type::F64), ("extra", Type::I64)]).unwrap();
        let right = Manifest::from_rows(score, &[vec![Value::F64(9.0), Value::I64(7)], vec![Value::Null, Value::Null]]);
        let wide = manifest.beside(&right.unwrap()).unwrap();
        assert_eq!(wide.value(0, "score").unwrap(), Value::F64(9.0));
        let long = Manifest::concat(wide.schema(), &[&manifest, &wide]).unwrap();
        assert_eq!((long.len(), long.value(0, "extra").unwrap()), (4, Value::Null));
        assert_eq!(long.value(2, "extra").unwrap(), Value::I64(7));
    }
}
