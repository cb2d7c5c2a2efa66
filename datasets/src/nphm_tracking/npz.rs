//! The one array of an `.npz` file (`arr_0`, as `numpy.savez` names an array without a name): a zip file around an npy
//! file.
//!
//! Knows no meaning of the numbers. Written compressed and without a date, so that equal arrays are equal files.

use crate::fault::Fault;
use crate::nersemble::c_order;
use npyz::{AutoSerialize, Deserialize, NpyFile, Order, WriterBuilder};
use std::io::{Cursor, Read, Write};
use std::path::Path;

/// Name of the array's file in the archive.
const ENTRY: &str = "arr_0.npy";

/// The bytes of a file that holds this array, the last axis lying closest.
pub fn pack<T: AutoSerialize + Copy>(shape: &[u64], values: &[T]) -> Vec<u8> {
    let write = || -> std::io::Result<Vec<u8>> {
        let mut npy = Vec::new();
        let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut npy).begin_nd()?;
        writer.extend(values.iter().copied())?;
        writer.finish()?;
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file(ENTRY, zip::write::SimpleFileOptions::default())?;
        zip.write_all(&npy)?;
        Ok(zip.finish()?.into_inner())
    };
    // the shape is made from the values, and memory takes everything
    write().expect("an array fits into memory")
}

/// Reads the array `arr_0` and its shape.
///
/// # Errors
/// If the file is missing or damaged, or the array is of another type.
pub fn read<T: Deserialize + AutoSerialize + Copy>(path: &Path) -> Result<(Vec<u64>, Vec<T>), Fault> {
    let bytes = std::fs::read(path).map_err(|e| Fault::unreadable(path, e))?;
    let broken = |e: &dyn std::fmt::Display| {
        wrong(path, "(file)", format!("{} bytes that cannot be read ({e})", bytes.len()), "a whole npz file".into())
    };
    let mut archive = zip::ZipArchive::new(Cursor::new(&bytes)).map_err(|e| broken(&e))?;
    let names: Vec<String> = archive.file_names().filter_map(Result::ok).map(String::from).collect();
    if !names.iter().any(|name| name == ENTRY) {
        return Err(wrong(path, "arr_0", format!("the entries {names:?}"), format!("an entry `{ENTRY}`")));
    }
    let mut npy = Vec::new();
    archive.by_name(ENTRY).map_err(|e| broken(&e))?.read_to_end(&mut npy).map_err(|e| broken(&e))?;
    let file = NpyFile::new(npy.as_slice()).map_err(|e| broken(&e))?;
    if file.dtype() != T::default_dtype() {
        let expected = T::default_dtype().descr();
        return Err(wrong(path, "arr_0", format!("the type {}", file.dtype().descr()), format!("the type {expected}")));
    }
    let is_fortran = file.order() == Order::Fortran;
    let shape = file.shape().to_vec();
    // a header may promise more than is there: the values are counted before they are read
    let promised = shape.iter().try_fold(1u64, |n, side| n.checked_mul(*side));
    if promised.is_none_or(|n| n > npy.len() as u64) {
        return Err(wrong(
            path,
            "arr_0",
            format!("shape {shape:?} in {} bytes", npy.len()),
            "values for all of it".into(),
        ));
    }
    let values = file.into_vec::<T>().map_err(|e| broken(&e))?;
    let sides: Vec<usize> = shape.iter().map(|side| *side as usize).collect();
    Ok((shape, if is_fortran { c_order(&sides, &values) } else { values }))
}

/// What is wrong with an array.
pub fn wrong(path: &Path, field: &str, found: String, expected: String) -> Fault {
    Fault::field(
        path,
        field,
        found,
        expected,
        "was the copy cut short? the file is to be as `numpy.savez` leaves it for one array",
    )
}
