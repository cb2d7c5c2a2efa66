//! Fingerprints of files: device, inode, size and both times, so that an unchanged file need not be read again.
//!
//! The rule is git's: a fingerprint taken while the file's times are younger than the clock's grain proves nothing (the
//! file may change again without its times changing), so it is not kept. Knows no index.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the file system says of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Fingerprint {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of content, nanoseconds since 1970.
    pub mtime: i64,
    /// Time of the last change of content or attributes, which no program can set.
    pub ctime: i64,
}

/// File times step with the kernel's tick, at most 10 ms; some file systems are coarser.
const GRAIN_NS: i64 = 50_000_000;
/// Those that know whole seconds alone step by one, and FAT by two.
const COARSE_NS: i64 = 2 * SECOND_NS;
const SECOND_NS: i64 = 1_000_000_000;

impl Fingerprint {
    /// The fingerprint of a file (symbolic links are followed). A pipe has none: what it gives is read once.
    pub fn of(path: &Path) -> std::io::Result<Fingerprint> {
        let meta = std::fs::metadata(path)?;
        if meta.file_type().is_fifo() {
            return Err(std::io::Error::new(ErrorKind::InvalidInput, "it is a pipe, not a file"));
        }
        Ok(Fingerprint::from(&meta))
    }

    /// Whether the file's times are at least the clock's grain older than `now` (see [`Fingerprint::now`]), so that a
    /// later change is bound to show.
    pub fn is_settled(&self, now: i64) -> bool {
        // a time without a fraction may be chance, two of them are not
        let is_coarse = [self.mtime, self.ctime].iter().all(|time| time % SECOND_NS == 0);
        let grain = if is_coarse { COARSE_NS } else { GRAIN_NS };
        self.mtime.max(self.ctime) < now - grain
    }

    /// The present in nanoseconds since 1970.
    pub fn now() -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
    }

    pub(crate) fn to_bytes(self) -> [u8; 40] {
        let mut bytes = [0; 40];
        for (i, field) in [self.dev, self.ino, self.size, self.mtime as u64, self.ctime as u64].into_iter().enumerate()
        {
            bytes[8 * i..8 * i + 8].copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }
}

impl From<&std::fs::Metadata> for Fingerprint {
    fn from(meta: &std::fs::Metadata) -> Fingerprint {
        Fingerprint {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            ctime: nanoseconds(meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl From<&rustix::fs::Stat> for Fingerprint {
    fn from(stat: &rustix::fs::Stat) -> Fingerprint {
        Fingerprint {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size as u64,
            mtime: nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime: nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds * SECOND_NS + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_whole_seconds_take_longer_to_prove_something() {
        let print = |mtime, ctime| Fingerprint { dev: 1, ino: 1, size: 1, mtime, ctime };
        let now = 1000 * SECOND_NS;
        let fine = now - SECOND_NS + 1;
        assert!(print(fine, fine).is_settled(now) && !print(now - 1, now - 1).is_settled(now));
        assert!(!print(now - SECOND_NS, now - SECOND_NS).is_settled(now), "it may change within the same second");
        assert!(print(now - 3 * SECOND_NS, now - 3 * SECOND_NS).is_settled(now));
        assert!(print(now - SECOND_NS, fine).is_settled(now), "a time that was set by `touch -d`");
    }
}
