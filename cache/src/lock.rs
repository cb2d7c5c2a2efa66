//! The lock of a workspace: one process at a time, and the others are told which. Knows nothing of what is in there.

use crate::error::io;
use crate::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// Held as long as it lives; the system frees it when the process ends, however it ends.
pub(crate) struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Lock {
    /// Takes the lock of the workspace `root`, or says who has it.
    pub(crate) fn take(root: &Path) -> Result<Lock> {
        let path = root.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // the holder may be about to write its name
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "unknown".into() } else { holder.trim().to_string() };
                return Err(Error::Busy { path: root.into(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock", &path)(source)),
        }
        let holder = format!("{} on {}\n", std::process::id(), crate::records::host());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(holder.as_bytes()))
            .map_err(io("write", &path))?;
        Ok(Lock(file))
    }
}
