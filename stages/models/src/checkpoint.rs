//! PyTorch's checkpoints, as `torch.save` has written them since version 1.6: a zip file of a pickle and of storages of
//! numbers. Usual suffixes are `.pt`, `.pth`, `.bin`, and `.tar` (which is no tar archive).
//!
//! The pickle is read as data (see [`crate::pickle`]); nothing is executed. No tensor takes more memory than the file
//! can account for. Knows no networks: names come out as they are nested, joined by dots.

use crate::archive::{self, Archive};
use crate::pickle::{Dialect, Element, Pickle, TensorAt, Value};
use crate::weights::{Tensors, WeightsError, first_line};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use tch::{Kind, Tensor};

/// Dictionaries in dictionaries: more than any checkpoint has.
const DEEPEST: usize = 32;
/// Entries of all dictionaries and lists together.
const MOST: usize = 1 << 20;
/// Views may repeat numbers, so tensors may be larger than their storages; so many times larger than the file they may
/// be together.
const LARGER: usize = 16;
/// And so many bytes beside.
const ANYWAY: usize = 1 << 20;

/// How a checkpoint of PyTorch before 1.6 begins: a pickle of a magic number.
const OLD: [u8; 4] = [0x80, 0x02, 0x8a, 0x0a];

/// Whether a file begins like a checkpoint, of whatever version.
pub fn is_one(path: &Path) -> bool {
    archive::is_zip(path) || begins_old(path)
}

fn begins_old(path: &Path) -> bool {
    let mut magic = [0u8; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == OLD
}

/// What a checkpoint holds.
pub struct Checkpoint {
    /// Tensors whose names were wanted.
    pub tensors: Tensors,
    /// Names of the tensors that were not.
    pub left: Vec<String>,
}

/// Reads every tensor of a checkpoint, in the number types it is stored in.
///
/// # Errors
/// If it is cut or damaged, or its pickle asks for anything but tensors and arrays.
pub fn read(path: &Path) -> Result<Tensors, WeightsError> {
    Ok(read_where(path, |_| true)?.tensors)
}

/// Reads the tensors of a checkpoint whose names are wanted. A list or tuple of one item counts as that item, longer
/// ones name their items by number.
///
/// # Errors
/// As [`read`].
pub fn read_where(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Checkpoint, WeightsError> {
    let bad = |reason: String| {
        WeightsError::Config {
        place: path.display().to_string(),
        reason: format!("it is not a usable PyTorch checkpoint: {reason}"),
        hint: "save the tensors alone, by `torch.save(model.state_dict(), file)` of PyTorch 1.6 or newer, or as safetensors".into(),
    }
    };
    if begins_old(path) {
        return Err(bad("it is in the format before PyTorch 1.6".into()));
    }
    let mut archive = Archive::open(path).map_err(bad)?;
    let names = archive.names();
    let pickle = names.iter().find(|name| name.as_str() == "data.pkl" || name.ends_with("/data.pkl"));
    let pickle = pickle.ok_or_else(|| bad("it is a zip file without an entry data.pkl".into()))?;
    let folder = pickle.trim_end_matches("data.pkl").to_owned();
    if names.contains(&format!("{folder}byteorder")) {
        let order = archive.read(&format!("{folder}byteorder"), 16, true).map_err(bad)?;
        if order != b"little" {
            return Err(bad(format!("its numbers are {}-endian", order.escape_ascii())));
        }
    }
    let length = archive.length;
    let bytes = archive.read(pickle, length, true).map_err(bad)?;
    let at = |e: crate::pickle::PickleError| bad(format!("data.pkl, {e}"));
    let pickle = Pickle::read(&bytes, Dialect::Torch).map_err(at)?;
    let mut found = Vec::new();
    let mut visited = 0;
    flatten(&pickle, pickle.root(), "", 0, &mut visited, &mut found).map_err(bad)?;
    if found.is_empty() {
        return Err(bad("it holds no tensor".into()));
    }

    let mut out = Checkpoint { tensors: Tensors::new(), left: Vec::new() };
    // a storage is read once for all tensors that lie in it
    let mut by_storage: BTreeMap<&str, Vec<(String, &TensorAt<'_>)>> = BTreeMap::new();
    let mut room = (length as usize).saturating_mul(LARGER).saturating_add(ANYWAY);
    for (name, tensor) in found {
        if !wanted(&name) {
            out.left.push(name);
            continue;
        }
        let size = tensor.shape.iter().try_fold(width(tensor.element), |n, side| n.checked_mul(*side as usize));
        room = size.and_then(|size| room.checked_sub(size)).ok_or_else(|| {
            bad(format!(
                "tensor {name} of shape {:?} is larger than a file of {length} bytes can account for",
                tensor.shape
            ))
        })?;
        by_storage.entry(tensor.storage).or_default().push((name, tensor));
    }
    for (storage, tensors) in by_storage {
        let bytes = archive.read(&format!("{folder}data/{storage}"), length, true).map_err(bad)?;
        for (name, tensor) in tensors {
            let made = cut(tensor, &bytes).map_err(|reason| bad(format!("tensor {name}: {reason}")))?;
            if out.tensors.insert(name.clone(), made).is_some() {
                return Err(bad(format!("it has two tensors of the name {name}")));
            }
        }
    }
    out.left.sort();
    Ok(out)
}

/// All tensors below a value with their names.
fn flatten<'p, 'a>(
    pickle: &'p Pickle<'a>,
    value: Value<'a>,
    name: &str,
    depth: usize,
    visited: &mut usize,
    found: &mut Vec<(String, &'p TensorAt<'a>)>,
) -> Result<(), String> {
    *visited += 1;
    if depth > DEEPEST {
        return Err(format!(
            "its dictionaries are nested more than {DEEPEST} deep, at {}",
            &name[..name.len().min(200)]
        ));
    }
    if *visited > MOST {
        return Err(format!("it has more than {MOST} entries"));
    }
    if let Some(tensor) = pickle.tensor(value) {
        found.push((name.to_owned(), tensor));
        return Ok(());
    }
    let mut below = |part: &str, value: Value<'a>| {
        let name = if name.is_empty() {
            part.to_owned()
        } else if part.is_empty() {
            name.to_owned()
        } else {
            format!("{name}.{part}")
        };
        flatten(pickle, value, &name, depth + 1, visited, found)
    };
    if let Some(entries) = pickle.entries(value) {
        for (key, value) in entries {
            match key {
                Value::Int(n) => below(&n.to_string(), *value)?,
                key => match pickle.text(*key) {
                    Some(key) => below(key, *value)?,
                    None => {
                        return Err(format!(
                            "a key of {} is neither text nor a whole number",
                            if name.is_empty() { "the whole" } else { name }
                        ));
                    }
                },
            }
        }
    } else if let Some(items) = pickle.items(value) {
        for (i, value) in items.iter().enumerate() {
            below(&if items.len() == 1 { String::new() } else { i.to_string() }, *value)?;
        }
    }
    Ok(())
}

fn width(element: Element) -> usize {
    kind(element).elt_size_in_bytes()
}

fn kind(element: Element) -> Kind {
    match element {
        Element::F64 => Kind::Double,
        Element::F32 => Kind::Float,
        Element::F16 => Kind::Half,
        Element::BF16 => Kind::BFloat16,
        Element::I64 => Kind::Int64,
        Element::I32 => Kind::Int,
        Element::I16 => Kind::Int16,
        Element::I8 => Kind::Int8,
        Element::U8 => Kind::Uint8,
        Element::Bool => Kind::Bool,
    }
}

/// A tensor out of its storage's bytes. That it lies within the count the pickle gave was seen when it was read.
fn cut(tensor: &TensorAt<'_>, bytes: &[u8]) -> Result<Tensor, String> {
    let kind = kind(tensor.element);
    let wanted = tensor.count.checked_mul(kind.elt_size_in_bytes());
    if wanted != Some(bytes.len()) {
        return Err(format!(
            "its storage {} has {} bytes for {} numbers of {kind:?}",
            tensor.storage,
            bytes.len(),
            tensor.count
        ));
    }
    let cut = || -> Result<Tensor, tch::TchError> {
        let all = Tensor::f_from_data_size(bytes, &[tensor.count as i64], kind)?;
        // its own memory, also where it is one of several views
        Ok(all.f_as_strided(&tensor.shape, &tensor.strides, tensor.offset)?.f_contiguous()?.copy())
    };
    cut().map_err(|e| first_line(&e))
}

#[cfg(test)]
pub(crate) mod tests;
