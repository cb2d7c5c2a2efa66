//! Named arrays in safetensors files, which stages hand to each other.
//!
//! Knows bytes and shapes, not what arrays mean.

use anyhow::{Context, Result, bail};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeMap;
use std::path::Path;

/// An array on its way to or from a safetensors file.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Element type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// Little-endian bytes.
    pub bytes: Vec<u8>,
}

macro_rules! array_of {
    ($name:ident, $read:ident, $ty:ty, $dtype:expr) => {
        /// An array of this type and shape.
        pub fn $name(shape: &[usize], values: impl IntoIterator<Item = $ty>) -> Array {
            let bytes: Vec<u8> = values.into_iter().flat_map(|value| value.to_le_bytes()).collect();
            Array { dtype: $dtype, shape: shape.to_vec(), bytes }
        }

        /// The values of an array of this type.
        ///
        /// # Errors
        /// If it is of another type.
        pub fn $read(&self) -> Result<Vec<$ty>> {
            if self.dtype != $dtype {
                bail!("expected {:?}, found {:?}", $dtype, self.dtype);
            }
            let size = std::mem::size_of::<$ty>();
            Ok(self
                .bytes
                .chunks_exact(size)
                .map(|b| <$ty>::from_le_bytes(b.try_into().expect("exact chunks")))
                .collect())
        }
    };
}

impl Array {
    array_of!(of_f32, to_f32, f32, Dtype::F32);
    array_of!(of_u8, to_u8, u8, Dtype::U8);
    array_of!(of_u16, to_u16, u16, Dtype::U16);
    array_of!(of_u32, to_u32, u32, Dtype::U32);
    array_of!(of_f16, to_f16, half::f16, Dtype::F16);
}

/// Named arrays.
pub type Arrays = BTreeMap<String, Array>;

/// Writes named arrays as a safetensors file.
///
/// # Errors
/// If the file cannot be written, or a shape does not fit its bytes.
pub fn write_arrays(path: &Path, arrays: &Arrays) -> Result<()> {
    let views = arrays
        .iter()
        .map(|(name, array)| Ok((name, TensorView::new(array.dtype, array.shape.clone(), &array.bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    let bytes = safetensors::serialize(views, None)?;
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a safetensors file.
///
/// # Errors
/// If the file is missing, truncated or damaged; the message names it.
pub fn read_arrays(path: &Path) -> Result<Arrays> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file =
        SafeTensors::deserialize(&bytes).with_context(|| format!("{} is no safetensors file", path.display()))?;
    Ok(file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            (name, Array { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() })
        })
        .collect())
}

/// One array of a file.
///
/// # Errors
/// If it is not there.
pub fn array<'a>(arrays: &'a Arrays, name: &str) -> Result<&'a Array> {
    arrays.get(name).with_context(|| {
        format!("there is no array `{name}`; there are: {}", arrays.keys().cloned().collect::<Vec<_>>().join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_arrays_are_named() {
        let dir = std::env::temp_dir().join(format!("effigy-arrays-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("arrays.safetensors");
        write_arrays(&path, &[("a".to_string(), Array::of_f32(&[2], [1.0, 2.0]))].into()).unwrap();
        assert_eq!(array(&read_arrays(&path).unwrap(), "a").unwrap().to_f32().unwrap(), [1.0, 2.0]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let error = format!("{:#}", read_arrays(&path).unwrap_err());
        assert!(error.contains("arrays.safetensors"), "{error}");
    }
}
