//! The closed set of column types and values, and the canonical encoding of a value.
//!
//! Canonical encoding (the pre-image of every row digest; pinned by a test): one tag byte, then null `0`; bool `1` +
//! one byte; i64 `2` + 8 bytes little-endian; f64 `3` + its bits little-endian, with every NaN the quiet NaN and -0.0
//! as 0.0; str `4` + length as u64 + UTF-8; floats `5` + count as u64 + each as f64; blob `6` + the 64 hex digits of
//! its digest + length of the extension as u64 + extension. A blob's length is not encoded: its digest implies it.
//!
//! Knows no tables and no Arrow.

use crate::Digest;
use std::fmt;
use std::str::FromStr;

/// A file, by content.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Blob {
    /// Digest of the content.
    pub digest: Digest,
    /// Length in bytes.
    pub len: u64,
    /// File extension without the dot, so that programs that go by it can read the file; may be empty.
    pub ext: String,
}

/// The type of a column. Every column may hold nulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// True or false.
    Bool,
    /// A 64-bit integer.
    I64,
    /// A 64-bit float.
    F64,
    /// UTF-8 text.
    Str,
    /// A list of so many 64-bit floats: a camera matrix, a code, a crop.
    Floats(u32),
    /// A file by content.
    Blob,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Bool => f.write_str("bool"),
            Type::I64 => f.write_str("i64"),
            Type::F64 => f.write_str("f64"),
            Type::Str => f.write_str("str"),
            Type::Floats(n) => write!(f, "floats[{n}]"),
            Type::Blob => f.write_str("blob"),
        }
    }
}

impl FromStr for Type {
    type Err = String;

    fn from_str(text: &str) -> Result<Type, String> {
        Ok(match text {
            "bool" => Type::Bool,
            "i64" => Type::I64,
            "f64" => Type::F64,
            "str" => Type::Str,
            "blob" => Type::Blob,
            _ => {
                let count = text.strip_prefix("floats[").and_then(|rest| rest.strip_suffix(']'));
                match count.and_then(|count| count.parse().ok()) {
                    Some(count) => Type::Floats(count),
                    None => {
                        return Err(format!(
                            "`{text}` is not a column type; known are bool, i64, f64, str, floats[N] and blob"
                        ));
                    }
                }
            }
        })
    }
}

impl serde::Serialize for Type {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Type {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Type, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing known.
    Null,
    /// See [`Type::Bool`].
    Bool(bool),
    /// See [`Type::I64`].
    I64(i64),
    /// See [`Type::F64`].
    F64(f64),
    /// See [`Type::Str`].
    Str(String),
    /// See [`Type::Floats`].
    Floats(Vec<f64>),
    /// See [`Type::Blob`].
    Blob(Blob),
}

impl Value {
    /// The type of the value; `None` for null, which fits every column.
    pub fn ty(&self) -> Option<Type> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(_) => Type::Bool,
            Value::I64(_) => Type::I64,
            Value::F64(_) => Type::F64,
            Value::Str(_) => Type::Str,
            Value::Floats(values) => Type::Floats(values.len() as u32),
            Value::Blob(_) => Type::Blob,
        })
    }

    /// Appends the canonical encoding (see the head of this file).
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => out.push(0),
            Value::Bool(value) => out.extend([1, u8::from(*value)]),
            Value::I64(value) => encode_i64(*value, out),
            Value::F64(value) => {
                out.push(3);
                encode_f64(*value, out);
            }
            Value::Str(value) => encode_str(value, out),
            Value::Floats(values) => {
                out.push(5);
                out.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| encode_f64(*value, out));
            }
            Value::Blob(blob) => encode_blob(&blob.digest.to_string(), &blob.ext, out),
        }
    }

    /// As JSON, the way `--json` prints it: blobs as their digests.
    pub fn to_json_text(&self) -> String {
        match self {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::I64(value) => value.to_string(),
            Value::F64(value) => float_text(*value),
            Value::Str(value) => json_str(value),
            Value::Floats(values) => {
                format!("[{}]", values.iter().map(|value| float_text(*value)).collect::<Vec<_>>().join(","))
            }
            Value::Blob(blob) => json_str(&blob.digest.to_string()),
        }
    }
}

pub(crate) fn encode_i64(value: i64, out: &mut Vec<u8>) {
    out.push(2);
    out.extend(value.to_le_bytes());
}

pub(crate) fn encode_f64(value: f64, out: &mut Vec<u8>) {
    // NaN payloads and the sign of zero are no facts about the world
    let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
    out.extend(value.to_bits().to_le_bytes());
}

pub(crate) fn encode_str(value: &str, out: &mut Vec<u8>) {
    out.push(4);
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}

/// A blob from its hex digest: in a table digests are text, and turning a million of them back would be waste.
pub(crate) fn encode_blob(digest_hex: &str, ext: &str, out: &mut Vec<u8>) {
    out.push(6);
    out.extend(digest_hex.as_bytes());
    out.extend((ext.len() as u64).to_le_bytes());
    out.extend(ext.as_bytes());
}

fn float_text(value: f64) -> String {
    // JSON has no infinities: an infinite PSNR is written as text, as Python's json module can be asked to
    if value.is_finite() { format!("{value:?}") } else { json_str(&value.to_string()) }
}

fn json_str(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_pinned() {
        let blob = Blob { digest: Digest::of_bytes(b"x"), len: 1, ext: "png".into() };
        let values = [
            Value::Null,
            Value::Bool(true),
            Value::I64(-2),
            Value::F64(0.5),
            Value::Str("é".into()),
            Value::Floats(vec![1.0, -0.0]),
            Value::Blob(blob),
        ];
        let mut bytes = Vec::new();
        values.iter().for_each(|value| value.encode(&mut bytes));
        assert_eq!(bytes.len(), 1 + 2 + 9 + 9 + (1 + 8 + 2) + (1 + 8 + 16) + (1 + 64 + 8 + 3));
        assert_eq!(
            Digest::of_bytes(&bytes).to_string(),
            "5e6b87cec7ce4b0f524e6fe2bc778d20da6319a473d52bbc70188a0c359822ee"
        );
    }

    #[test]
    fn types_read_back_as_written() {
        for ty in [Type::Bool, Type::I64, Type::F64, Type::Str, Type::Floats(16), Type::Blob] {
            assert_eq!(ty.to_string().parse::<Type>().unwrap(), ty);
        }
        assert!("image".parse::<Type>().unwrap_err().contains("floats[N]"));
    }
}
