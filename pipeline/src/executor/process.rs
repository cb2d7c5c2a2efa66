//! Processes: how they are started so that they end with us, how they are ended, and how their ends are told. Knows no
//! tasks.

use crate::executor::tail;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Lines of a process's last words that are shown.
pub const LAST_WORDS: usize = 12;

/// The longest line that is taken whole, bytes: an event of a worker is shorter, even if it fails with a long story.
const LONGEST: u64 = 16 << 20;

/// The lines that come from a process, until there are no more. Longer ones come in pieces, so that nobody who forgets
/// to end a line takes all memory.
pub fn lines(from: impl Read) -> impl Iterator<Item = Vec<u8>> {
    let mut from = BufReader::new(from);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        let read = from.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        read.is_ok_and(|read| read > 0).then_some(line)
    })
}

/// Where a program lies. As a shell would have it: a name with a slash is a path (ours are relative to `dir`), one
/// without is looked up.
///
/// # Errors
/// If no folder of PATH has a file of that name that may be executed.
pub fn find(name: &str, dir: &Path) -> std::io::Result<PathBuf> {
    if name.contains('/') {
        return Ok(dir.join(name));
    }
    let executable = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    // an entry may be relative to where the program runs
    let mut places = crate::cli::path_dirs().into_iter().map(|place| dir.join(place).join(name));
    let nowhere = || std::io::Error::new(std::io::ErrorKind::NotFound, "it lies in no folder of PATH");
    places.find(executable).ok_or_else(nowhere)
}

/// A process of these words, in a group of its own, that dies when we die.
pub fn process(argv: &[String], dir: &Path) -> Command {
    let program = argv.first().map_or("", String::as_str);
    // whoever starts it hears that there is none
    let mut command = Command::new(find(program, dir).unwrap_or_else(|_| program.into()));
    // some programs are told by their name what they are
    command.arg0(program);
    command.args(argv.get(1..).unwrap_or_default()).current_dir(dir).process_group(0);
    let parent = std::process::id() as libc::pid_t;
    // SAFETY: only async-signal-safe system calls are made between fork and exec.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // we may have died before it was set
            if libc::getppid() != parent { Err(std::io::Error::other("the parent is gone")) } else { Ok(()) }
        });
    }
    command
}

/// What a process with one more word prints before it ends; `None` if it did not end in time and was stopped.
///
/// # Errors
/// If it cannot be started.
pub fn output_within(argv: &[String], verb: &str, dir: &Path, limit: Duration) -> std::io::Result<Option<Output>> {
    let mut command = process(argv, dir);
    command.arg(verb).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    let group = child.id();
    let (send, receive) = channel();
    let waiting = std::thread::spawn(move || {
        // nobody listens any more once the limit has passed
        let _ = send.send(child.wait_with_output());
    });
    match receive.recv_timeout(limit) {
        Ok(output) => output.map(Some),
        Err(_) => {
            kill(group);
            // what it started itself may hold its output open: it is of its group, unless it left that on purpose
            drop(waiting);
            Ok(None)
        }
    }
}

/// Ends a process and all of its group.
pub fn kill(group: u32) {
    // SAFETY: a system call without memory effects; a group that is gone is none of our business.
    unsafe { libc::killpg(group as libc::pid_t, libc::SIGKILL) };
}

/// How a process ended that did not end well, as a sentence without its subject.
pub fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}{}", signal_name(signal)),
        (None, None) => "ended in an unknown way".into(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGSEGV => " (segmentation fault)",
        libc::SIGABRT => " (aborted)",
        libc::SIGKILL => " (SIGKILL; out of memory?)",
        libc::SIGBUS => " (bus error)",
        libc::SIGFPE => " (arithmetic error)",
        libc::SIGILL => " (illegal instruction)",
        libc::SIGTERM => " (SIGTERM)",
        _ => "",
    }
}

/// The last lines of a log.
pub fn last_words(log: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let len = file.metadata().map_or(0, |meta| meta.len());
        let _ = file.seek(SeekFrom::Start(len.saturating_sub(16 << 10)));
        let _ = file.read_to_end(&mut text);
    }
    tail(&String::from_utf8_lossy(&text), LAST_WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_an_end_comes_in_pieces() {
        let long = vec![b'x'; LONGEST as usize + 3];
        let text = [&b"a\n\n"[..], &long, b"\nb"].concat();
        let found: Vec<usize> = lines(&text[..]).map(|line| line.len()).collect();
        assert_eq!(found, [1, 0, LONGEST as usize, 3, 1]);
    }
}
