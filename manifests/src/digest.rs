//! Digests: BLAKE3, 32 bytes, written as 64 lower-case hex digits.
//!
//! The digest of a *file* is the plain BLAKE3 of its bytes, so that `b3sum` agrees with us. Every other pre-image (a row,
//! a manifest, a unit's key) starts with a type tag, so that no two kinds of record can collide. Knows no tables.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of some bytes, as a file with that content has it.
    pub fn of_bytes(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// The digest and length of a file's content. Large files are hashed on all cores.
    pub fn of_file(path: &Path) -> std::io::Result<(Digest, u64)> {
        const MAP_FROM: u64 = 1 << 20;
        let len = std::fs::metadata(path)?.len();
        if len < MAP_FROM {
            let bytes = std::fs::read(path)?;
            return Ok((Digest::of_bytes(&bytes), bytes.len() as u64));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_mmap_rayon(path)?;
        Ok((Digest(*hasher.finalize().as_bytes()), hasher.count()))
    }

    /// The first 12 hex digits: enough to tell records apart when a person reads them.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        f.write_str(std::str::from_utf8(&text).expect("hex digits are ASCII"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.short())
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        let bad = || format!("`{text}` is not a digest of 64 hex digits");
        if text.len() != 64 {
            return Err(bad());
        }
        let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = (digit(pair[0]).ok_or_else(bad)? << 4) | digit(pair[1]).ok_or_else(bad)?;
        }
        Ok(Digest(bytes))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes a record: a type tag, then length-prefixed parts. Integers are 64-bit little-endian.
#[derive(Clone)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Starts a record of the kind `tag`, for example `unit/1`.
    pub fn new(tag: &str) -> Hasher {
        let mut hasher = Hasher(blake3::Hasher::new());
        hasher.bytes(tag.as_bytes());
        hasher
    }

    /// Adds bytes, preceded by their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    /// Adds another record's digest.
    pub fn digest(&mut self, digest: &Digest) {
        self.0.update(&digest.0);
    }

    /// The digest of what was added.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_digests_are_plain_blake3() {
        // the published test vector for the empty input
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(Digest::of_bytes(b"").to_string(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap(), Digest::of_bytes(b""));
        assert!("zz".parse::<Digest>().is_err());
    }

    #[test]
    fn parts_cannot_run_into_each_other() {
        let digest = |parts: &[&str]| {
            let mut hasher = Hasher::new("test/1");
            parts.iter().for_each(|part| hasher.bytes(part.as_bytes()));
            hasher.finish()
        };
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_ne!(digest(&["abc"]), digest(&["abc", ""]));
    }
}
