//! What is told of programs that could not be started or died without a word, where more is known than the system says.
//! Starts and ends none.

use crate::executor::Ended;
use std::path::Path;

/// With less room than this, bytes, a disk is full: not even the last words of a program find room.
const FULL: u64 = 1 << 20;

/// Room on the disk of a file that we may use, bytes.
pub fn room(file: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(file).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}

/// What is told of a program that died, where the disk of its task had so much room then.
pub fn silent(ended: Ended, room: Option<u64>) -> Ended {
    match (ended, room) {
        (Ended::Died { how, tail, .. }, Some(room)) if tail.is_empty() && room < FULL => Ended::Lost {
            how: format!(
                "the program {how} and wrote nothing; the disk of the workspace is full ({room} bytes are left)"
            ),
            hint: "make room and run again; what was finished is kept".into(),
        },
        (ended, _) => ended,
    }
}

/// What is told of a program that could not be started.
pub fn not_started(name: &str, error: &std::io::Error) -> Ended {
    if error.kind() == std::io::ErrorKind::ArgumentListTooLong {
        let how = format!("`{name}` cannot be started: its line with all values is longer than the system takes");
        return Ended::Lost {
            how,
            hint: "let it read `{in}`, the Arrow file of all rows, in place of `{COLUMN}`".into(),
        };
    }
    Ended::NotStarted(format!("`{name}` cannot be started: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_of_where_a_program_could_not_say_it() {
        let died = |tail: &str| Ended::Died { how: "exited with code 1".into(), tail: tail.into(), status: None };
        let is_lost = |tail: &str, room| match silent(died(tail), room) {
            Ended::Lost { how, hint } => how.contains("exited with code 1") && hint.starts_with("make room"),
            _ => false,
        };
        assert!(is_lost("", Some(0)) && is_lost("", Some(4096)));
        assert!(!is_lost("", Some(1 << 30)) && !is_lost("", None) && !is_lost("No such file", Some(0)));
        assert!(matches!(silent(Ended::Done, Some(0)), Ended::Done));
        assert!(room(Path::new("/dev/null")).is_some() && room(Path::new("/no/such/file")).is_none());
    }

    #[test]
    fn a_line_that_is_too_long_is_told_from_a_program_that_is_not_there() {
        let long = std::io::Error::from_raw_os_error(libc::E2BIG);
        assert!(
            matches!(not_started("p", &long), Ended::Lost { how, hint } if how.contains("`p`") && hint.contains("{in}"))
        );
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert!(
            matches!(not_started("p", &gone), Ended::NotStarted(text) if text.starts_with("`p` cannot be started"))
        );
    }
}
