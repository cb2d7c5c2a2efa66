//! Digests: BLAKE3, 32 bytes, written as 64 lower-case hex digits.
//!
//! The digest of a *file* is the plain BLAKE3 of its bytes, so that `b3sum` agrees with us. Every other pre-image (a
//! row, a manifest, a unit's key) starts with a type tag, so that no two kinds of record can collide. Knows no tables.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

/// Files from this length on, bytes, are hashed on several cores.
const LARGE: u64 = 1 << 20;
/// So much of them is read at once, bytes: enough for all cores to have a part.
const BLOCK: usize = 8 << 20;

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of some bytes, as a file with that content has it.
    pub fn of_bytes(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// The digest and length of a file's content. Large files are hashed on all cores. It may be written meanwhile:
    /// then it is the digest of what was read.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_file(path: &Path) -> std::io::Result<(Digest, u64)> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        if len < LARGE {
            let mut bytes = Vec::with_capacity(len as usize);
            file.read_to_end(&mut bytes)?;
            return Ok((Digest::of_bytes(&bytes), bytes.len() as u64));
        }
        let mut hasher = blake3::Hasher::new();
        let mut block = vec![0; BLOCK.min(len as usize)];
        loop {
            let mut filled = 0;
            while filled < block.len() {
                match file.read(&mut block[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            hasher.update_rayon(&block[..filled]);
            if filled < block.len() {
                return Ok((Digest(*hasher.finalize().as_bytes()), hasher.count()));
            }
        }
    }

    /// The same of a file that nobody writes any more, which is somewhat faster: it is mapped, and reading a part of it
    /// that somebody has cut off meanwhile would end the process.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_file_at_rest(path: &Path) -> std::io::Result<(Digest, u64)> {
        if std::fs::metadata(path)?.len() < LARGE {
            return Digest::of_file(path);
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
    fn files_of_any_length_are_hashed_whole() {
        let path = std::env::temp_dir().join(format!("effigy-digest-whole-{}", std::process::id()));
        for len in [0, 1, LARGE as usize - 1, LARGE as usize, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 77] {
            let bytes: Vec<u8> = (0..len).map(|i| ((i * i) >> 8) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let expected = (Digest::of_bytes(&bytes), len as u64);
            assert_eq!(Digest::of_file(&path).unwrap(), expected, "{len} bytes");
            assert_eq!(Digest::of_file_at_rest(&path).unwrap(), expected, "{len} bytes");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_cut_off_while_it_is_read_ends_nothing() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let path = std::env::temp_dir().join(format!("effigy-digest-cut-{}", std::process::id()));
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(&path).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    file.set_len(16 << 20).unwrap();
                    file.set_len(0).unwrap();
                }
            });
            for _ in 0..300 {
                Digest::of_file(&path).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        std::fs::remove_file(&path).unwrap();
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
