//! The binary form of records: little-endian numbers, length-prefixed text, tagged values. Knows no journal.

use manifests::{Blob, Digest, Type, Value};

pub(crate) fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend(number.to_le_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend(number.to_le_bytes());
}

pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_u32(out, text.len() as u32);
    out.extend(text.as_bytes());
}

pub(crate) fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0),
        Value::Bool(value) => out.extend([1, u8::from(*value)]),
        Value::I64(value) => {
            out.push(2);
            out.extend(value.to_le_bytes());
        }
        Value::F64(value) => {
            out.push(3);
            out.extend(value.to_bits().to_le_bytes());
        }
        Value::Str(value) => {
            out.push(4);
            put_str(out, value);
        }
        Value::Floats(values) => {
            out.push(5);
            put_u32(out, values.len() as u32);
            values.iter().for_each(|value| out.extend(value.to_bits().to_le_bytes()));
        }
        Value::Blob(blob) => {
            out.push(6);
            out.extend(blob.digest.0);
            put_u64(out, blob.len);
            put_str(out, &blob.ext);
        }
    }
}

/// Reads what the functions above wrote. Every method fails on bytes that do not fit, and never panics.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

/// What is odd about some bytes.
pub(crate) type Odd = &'static str;

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Odd> {
        let (head, tail) = self.0.split_at_checked(n).ok_or("it ends early")?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Odd> {
        Ok(self.take(N)?.try_into().expect("so many were taken"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Odd> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Odd> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Odd> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn f64(&mut self) -> Result<f64, Odd> {
        Ok(f64::from_bits(self.u64()?))
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, Odd> {
        Ok(Digest(self.array()?))
    }

    pub(crate) fn str(&mut self) -> Result<String, Odd> {
        let n = self.u32()? as usize;
        std::str::from_utf8(self.take(n)?).map(str::to_string).map_err(|_| "text that is not UTF-8")
    }

    pub(crate) fn ty(&mut self) -> Result<Type, Odd> {
        self.str()?.parse().map_err(|_| "a column type that is not known")
    }

    pub(crate) fn value(&mut self) -> Result<Value, Odd> {
        Ok(match self.u8()? {
            0 => Value::Null,
            1 => Value::Bool(self.u8()? != 0),
            2 => Value::I64(self.u64()? as i64),
            3 => Value::F64(self.f64()?),
            4 => Value::Str(self.str()?),
            5 => {
                let n = self.u32()? as usize;
                if n > self.0.len() / 8 {
                    return Err("it ends early");
                }
                Value::Floats((0..n).map(|_| self.f64()).collect::<Result<_, _>>()?)
            }
            6 => Value::Blob(Blob { digest: self.digest()?, len: self.u64()?, ext: self.str()? }),
            _ => return Err("a value of an unknown kind"),
        })
    }
}
