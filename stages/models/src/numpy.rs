//! numpy's files of arrays, `.npy` and `.npz`, whatever their number type, as f64. Arrays of Python objects are
//! pickles, and are refused here. Knows no meaning of the numbers.

use crate::archive::{self, Archive};
use crate::pickle::Numbers;
use crate::weights::WeightsError;
use npyz::{DType, NpyFile, Order, TypeChar, WriterBuilder};
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of the largest array that is read out of a compressed file; twice what the largest body model has.
const LARGEST: u64 = 1 << 28;

/// Reads an `.npy` file.
///
/// # Errors
/// If it is missing, damaged, or holds no finite numbers.
pub fn read_npy(path: &Path) -> Result<Numbers, WeightsError> {
    let bytes = std::fs::read(path).map_err(|source| WeightsError::Io { verb: "read", path: path.into(), source })?;
    parse(&bytes).map_err(|reason| wrong(path, reason))
}

/// Reads those arrays of an `.npz` file whose names are wanted; the ones that hold no numbers are in the second place,
/// with the reason.
///
/// # Errors
/// If it is missing or damaged.
pub fn read_npz(
    path: &Path,
    wanted: &[&str],
) -> Result<(BTreeMap<String, Numbers>, BTreeMap<String, String>), WeightsError> {
    let mut archive = Archive::open(path).map_err(|reason| wrong(path, reason))?;
    let (mut arrays, mut others) = (BTreeMap::new(), BTreeMap::new());
    for entry in archive.names() {
        let Some(name) = entry.strip_suffix(".npy").filter(|name| wanted.contains(name)) else { continue };
        let bytes = archive.read(&entry, LARGEST, false).map_err(|reason| wrong(path, reason))?;
        match parse(&bytes) {
            Ok(numbers) => _ = arrays.insert(name.to_owned(), numbers),
            Err(reason) => _ = others.insert(name.to_owned(), reason),
        }
    }
    Ok((arrays, others))
}

/// The bytes of an `.npz` file of f64 arrays, compressed, in name order, without dates.
pub fn pack_npz(arrays: &BTreeMap<String, Numbers>) -> Vec<u8> {
    let entry = |(name, numbers): (&String, &Numbers)| {
        let shape: Vec<u64> = numbers.shape.iter().map(|side| *side as u64).collect();
        let write = || -> std::io::Result<Vec<u8>> {
            let mut npy = Vec::new();
            let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut npy).begin_nd()?;
            writer.extend(numbers.values.iter().copied())?;
            writer.finish()?;
            Ok(npy)
        };
        // the shape is that of the values, and memory takes everything
        (format!("{name}.npy"), write().expect("an array fits into memory"))
    };
    archive::pack(&arrays.iter().map(entry).collect::<Vec<_>>(), true)
}

fn wrong(path: &Path, reason: String) -> WeightsError {
    WeightsError::Config {
        place: path.display().to_string(),
        reason,
        hint: "it is to be as `numpy.save` or `numpy.savez` leaves arrays of numbers; was the copy cut short?".into(),
    }
}

fn parse(bytes: &[u8]) -> Result<Numbers, String> {
    let file = NpyFile::new(bytes).map_err(|e| format!("{} bytes that are no numpy array ({e})", bytes.len()))?;
    let dtype = file.dtype();
    let simple = match &dtype {
        DType::Plain(simple) => simple.clone(),
        _ => return Err(format!("an array of the type {}, which is no number", dtype.descr())),
    };
    let shape: Vec<usize> = file.shape().iter().map(|side| *side as usize).collect();
    // a header may promise more than is there: the values are counted before they are read
    let count = shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
    let count = count.filter(|n| n.saturating_mul(simple.size_field() as usize) <= bytes.len());
    let count = count.ok_or_else(|| format!("an array of shape {shape:?} in {} bytes", bytes.len()))?;
    let fortran = file.order() == Order::Fortran;
    macro_rules! values {
        ($ty:ty) => {
            file.into_vec::<$ty>().map_err(|e| format!("a cut array ({e})"))?.into_iter().map(|v| v as f64).collect()
        };
    }
    let values: Vec<f64> = match (simple.type_char(), simple.size_field()) {
        (TypeChar::Float, 4) => values!(f32),
        (TypeChar::Float, 8) => values!(f64),
        (TypeChar::Int, 4) => values!(i32),
        (TypeChar::Int, 8) => values!(i64),
        (TypeChar::Uint, 1) => values!(u8),
        (TypeChar::Uint, 2) => values!(u16),
        (TypeChar::Uint, 4) => values!(u32),
        (TypeChar::Uint, 8) => values!(u64),
        _ => return Err(format!("an array of the type {}, not of numbers of up to 64 bits", dtype.descr())),
    };
    if values.len() != count {
        return Err(format!("{} values in an array of shape {shape:?}", values.len()));
    }
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(format!("value {at} is {}, not a finite number", values[at]));
    }
    let values = if fortran { crate::pickle::last_axis_closest(&shape, &values) } else { values };
    Ok(Numbers { shape, values })
}
