//! Arrays of numbers in NumPy's files: read whatever their element type and order, as f64; written as they are given.
//!
//! Arrays of Python objects are pickles; they are refused, never run. Knows no meaning of the numbers.

use super::fault;
use crate::fault::Fault;
use npyz::{AutoSerialize, NpyFile, TypeChar, WriterBuilder};
use std::io::{Cursor, Read, Write};
use std::path::Path;

/// An array: its shape and its values, the last axis lying closest.
#[derive(Clone, Debug, PartialEq)]
pub struct NumpyArray {
    /// Sizes of its axes.
    pub shape: Vec<usize>,
    /// As many values as these multiply to.
    pub values: Vec<f64>,
}

/// Reads an `.npy` file.
pub fn read_npy(path: &Path) -> Result<NumpyArray, Fault> {
    let bytes = std::fs::read(path).map_err(|e| Fault::unreadable(path, e))?;
    parse(path, "(array)", &bytes)
}

/// Reads one array of an `.npz` file; `None` if it has no array of this name.
pub fn read_npz(path: &Path, name: &str) -> Result<Option<NumpyArray>, Fault> {
    let bytes = std::fs::read(path).map_err(|e| Fault::unreadable(path, e))?;
    let broken = |e: &dyn std::fmt::Display| {
        fault(path, "(file)", format!("{} bytes that are no zip file ({e})", bytes.len()), "a whole npz file")
    };
    let mut archive = zip::ZipArchive::new(Cursor::new(&bytes)).map_err(|e| broken(&e))?;
    let mut npy = Vec::new();
    match archive.by_name(&format!("{name}.npy")) {
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        Err(e) => return Err(broken(&e)),
        Ok(mut entry) => entry.read_to_end(&mut npy).map_err(|e| broken(&e))?,
    };
    parse(path, name, &npy).map(Some)
}

/// Values of which those along the first axis lie closest (Fortran's order, as NumPy saves what was transposed),
/// brought into the order in which the last axis lies closest. There are as many as the sides of `shape` multiply to.
pub(crate) fn c_order<T: Copy>(shape: &[usize], values: &[T]) -> Vec<T> {
    let strides: Vec<usize> = shape
        .iter()
        .scan(1, |stride, side| {
            let own = *stride;
            *stride *= side;
            Some(own)
        })
        .collect();
    let mut place = vec![0; shape.len()];
    let mut ordered = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        ordered.push(values[place.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>()]);
        for (i, side) in place.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *side {
                break;
            }
            *i = 0;
        }
    }
    ordered
}

/// The bytes of an `.npy` file that holds this array.
///
/// # Errors
/// If there are fewer or more values than the shape says.
pub fn pack<T: AutoSerialize + Copy>(shape: &[usize], values: &[T]) -> std::io::Result<Vec<u8>> {
    let shape: Vec<u64> = shape.iter().map(|side| *side as u64).collect();
    let mut npy = Vec::new();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut npy).begin_nd()?;
    writer.extend(values.iter().copied())?;
    writer.finish()?;
    Ok(npy)
}

/// Writes an `.npy` file.
pub fn write_npy(path: &Path, shape: &[usize], values: &[f64]) -> Result<(), Fault> {
    let write = || std::fs::write(path, pack(shape, values)?);
    write().map_err(|e| Fault::unwritable(path, e))
}

/// Writes an `.npz` file of arrays ([`pack`]) with these names.
pub fn write_npz(path: &Path, arrays: &[(&str, Vec<u8>)]) -> Result<(), Fault> {
    let write = || -> std::io::Result<()> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, array) in arrays {
            zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default())?;
            zip.write_all(array)?;
        }
        std::fs::write(path, zip.finish()?.into_inner())
    };
    write().map_err(|e| Fault::unwritable(path, e))
}

fn parse(path: &Path, field: &str, bytes: &[u8]) -> Result<NumpyArray, Fault> {
    let wrong = |found: String, expected| fault(path, field, found, expected);
    let file = NpyFile::new(bytes).map_err(|e| {
        wrong(format!("{} bytes that are no array ({e})", bytes.len()), "an array as `numpy.save` leaves it")
    })?;
    let dtype = file.dtype();
    let descr = dtype.descr();
    let simple = match &dtype {
        npyz::DType::Plain(simple) => simple.clone(),
        _ => return Err(wrong(format!("the type {descr}"), "numbers")),
    };
    let shape: Vec<usize> = file.shape().iter().map(|side| *side as usize).collect();
    let is_fortran = file.order() == npyz::Order::Fortran;
    // a header may promise more than is there: the values are counted before they are read
    let count = shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
    let Some(count) = count.filter(|n| n.saturating_mul(simple.size_field() as usize) <= bytes.len()) else {
        return Err(wrong(format!("shape {shape:?} in {} bytes", bytes.len()), "values for all of it"));
    };
    let cut = |e: std::io::Error| wrong(format!("a cut array ({e})"), "values for all of its shape");
    macro_rules! values {
        ($ty:ty) => {
            file.into_vec::<$ty>().map_err(cut)?.into_iter().map(|value| value as f64).collect()
        };
    }
    let values: Vec<f64> = match (simple.type_char(), simple.size_field()) {
        (TypeChar::Float, 4) => values!(f32),
        (TypeChar::Float, 8) => values!(f64),
        (TypeChar::Int, 4) => values!(i32),
        (TypeChar::Int, 8) => values!(i64),
        (TypeChar::Uint, 1) => values!(u8),
        (TypeChar::Uint, 2) => values!(u16),
        _ => return Err(wrong(format!("the type {descr}"), "numbers of 32 or 64 bits")),
    };
    if values.len() != count {
        return Err(wrong(format!("{} values", values.len()), "as many as its shape says"));
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(wrong("values that are not finite".into(), "finite numbers"));
    }
    let values = if is_fortran { c_order(&shape, &values) } else { values };
    Ok(NumpyArray { shape, values })
}
