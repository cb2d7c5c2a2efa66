//! What a worker writes to standard error: it goes to the log of the task that the worker has then. Knows no task.

use crate::executor::process::LAST_WORDS;
use crate::executor::tail;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long what a worker has written is waited for when it says that a task is over. One that never stops writing is
/// not waited for longer.
const BEHIND: Duration = Duration::from_millis(200);

/// Where a worker's text goes: the log of its task.
#[derive(Default)]
pub struct Log {
    pub file: Option<File>,
    pub tail: String,
}

impl Log {
    /// Writes text down.
    pub fn note(&mut self, text: &[u8]) {
        if let Some(file) = &mut self.file {
            // a log that cannot be written must not stop the work
            let _ = file.write_all(text);
        }
        self.tail.push_str(&String::from_utf8_lossy(text));
        if self.tail.len() > 32 << 10 {
            self.tail = tail(&self.tail, LAST_WORDS);
            self.tail.push('\n');
        }
    }
}

/// Copies what a worker writes into the log of its task. It is taken out of the pipe only while the log is held, so
/// that whoever holds the log and finds nothing in the pipe has all of it.
pub fn copy(mut from: impl Read + AsRawFd, log: &Mutex<Log>) {
    let mut buffer = [0; 8192];
    loop {
        has_come(from.as_raw_fd(), -1);
        let mut log = log.lock().expect("no thread panics while it holds this");
        let Ok(n @ 1..) = from.read(&mut buffer) else { return };
        log.note(&buffer[..n]);
    }
}

/// Waits until all that has been written into a pipe that [`copy`] reads is in the log.
pub fn catch_up(pipe: RawFd, log: &Mutex<Log>) {
    let until = Instant::now() + BEHIND;
    loop {
        let held = log.lock().expect("no thread panics while it holds this");
        if !has_come(pipe, 0) || Instant::now() >= until {
            return;
        }
        drop(held);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether something can be read, within so many milliseconds; -1: for ever, or until the other end is closed.
fn has_come(pipe: RawFd, milliseconds: i32) -> bool {
    let mut asked = libc::pollfd { fd: pipe, events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, which is ours to write.
    while unsafe { libc::poll(&mut asked, 1, milliseconds) } < 0
        && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
    {}
    asked.revents & libc::POLLIN != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_was_written_before_is_in_the_log() {
        for _ in 0..200 {
            let (read, mut write) = std::io::pipe().unwrap();
            let (log, pipe) = (Arc::new(Mutex::new(Log::default())), read.try_clone().unwrap());
            let copied = log.clone();
            let thread = std::thread::spawn(move || copy(read, &copied));
            write.write_all(b"words").unwrap();
            catch_up(pipe.as_raw_fd(), &log);
            assert_eq!(log.lock().unwrap().tail, "words");
            drop(write);
            thread.join().unwrap();
        }
    }
}
