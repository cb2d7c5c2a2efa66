//! The lock of a workspace: one process at a time, and the others are told which. Knows nothing of what is in there.

use crate::error::io;
use crate::layout;
use crate::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a lock is waited for whose holder has ended.
const GRACE: Duration = Duration::from_secs(1);
/// How long any lock is waited for: [`is_locked`] has it for a moment.
const MOMENT: Duration = Duration::from_millis(50);

/// Held as long as it lives; the system frees it when the process ends, however it ends.
pub(crate) struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Lock {
    /// Takes the lock of the workspace `root`, or says who has it.
    pub(crate) fn take(root: &Path) -> Result<Lock> {
        let path = root.join(layout::LOCK);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("open", &path))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    // the holder may be about to write its name
                    let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
                    let patience = if has_ended(&holder) { GRACE } else { MOMENT };
                    if begun.elapsed() < patience {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    }
                    let holder = if holder.trim().is_empty() { "unknown".into() } else { holder.trim().to_string() };
                    return Err(Error::Busy { path: root.into(), holder });
                }
                Err(TryLockError::Error(source)) => return Err(io("lock", &path)(source)),
            }
        }
        let holder = format!("{} on {}\n", std::process::id(), crate::records::host());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(holder.as_bytes()))
            .map_err(io("write", &path))?;
        Ok(Lock(file))
    }
}

/// Whether a process has the workspace `root`, whatever it does there.
pub fn is_locked(root: &Path) -> bool {
    // for a moment it is ours: whoever wants it then waits so long
    File::open(root.join(layout::LOCK))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Whether this holder was a process of this machine that is no more. A process that is killed while it starts another
/// one leaves the lock to that for a moment, until the other program begins.
fn has_ended(holder: &str) -> bool {
    let Some((process, host)) = holder.trim().split_once(" on ") else { return false };
    let is_number = process.bytes().all(|b| b.is_ascii_digit());
    is_number && host == crate::records::host() && !Path::new("/proc").join(process).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process of this machine that has ended.
    fn ended() -> String {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = child.id();
        child.wait().unwrap();
        format!("{id} on {}\n", crate::records::host())
    }

    #[test]
    fn what_a_killed_process_leaves_behind_is_waited_for_and_nobody_else() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("lock");
        std::fs::write(&path, ended()).unwrap();
        let held = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        held.lock().unwrap();
        let child = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(held);
        });
        drop(Lock::take(root.path()).unwrap());
        child.join().unwrap();

        assert!(!is_locked(root.path()) && !is_locked(&root.path().join("none")));
        let _mine = Lock::take(root.path()).unwrap();
        assert!(is_locked(root.path()));
        let begun = Instant::now();
        let error = Lock::take(root.path()).err().unwrap();
        assert!(begun.elapsed() < GRACE / 2, "a holder that lives is not waited for");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        // one that never lets go
        std::fs::write(&path, ended()).unwrap();
        assert!(Lock::take(root.path()).is_err());
    }
}
