//! What to do about an error that shows only in a run, found by what caused it. Knows no stage and prints nothing.

use cache::Error;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// A mistake in the data of a run that knows what to do about itself.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Hinted {
    message: String,
    hint: String,
}

/// An error with what to do about it, which [`hint_of`] finds again under whatever context it got on its way.
pub fn hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { message: message.into(), hint: hint.into() }.into()
}

/// What to do about an error, if one of its causes tells.
pub fn hint_of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let own = cause.downcast_ref::<Hinted>().map(|hinted| hinted.hint.clone());
        let kept = || cause.downcast_ref::<Error>().map(of_workspace);
        let table = || cause.downcast_ref::<manifests::Error>().map(of_table);
        let system = || cause.downcast_ref::<std::io::Error>().map(|error| of_system(error.kind()));
        own.or_else(kept).or_else(table).or_else(system)
    })
}

/// What to do about a process that died. `spoke`: whether it left last words.
pub fn of_death(status: Option<ExitStatus>, is_worker: bool, spoke: bool) -> &'static str {
    let (code, signal) = (status.and_then(|status| status.code()), status.and_then(|status| status.signal()));
    // a shell reports a signal that ended its program as 128 more, and what it cannot start as 126 or 127
    match (code, signal.or(code.filter(|code| *code > 128).map(|code| code - 128))) {
        (_, Some(libc::SIGKILL)) => {
            "somebody killed it; if memory ran out (see `dmesg`), `--jobs 1` runs one task at a time, and \
             `needs: { memory_mb: N }` says how much a task takes"
        }
        (_, Some(libc::SIGTERM | libc::SIGINT | libc::SIGHUP)) => "somebody stopped it from outside: run again",
        (Some(126), _) if !is_worker => {
            "a program that its line names may not be executed: see `ls -l`, and `chmod +x`"
        }
        (Some(127), _) if !is_worker => "a program that its line names is not installed, or its path is wrong",
        _ if spoke => "its last lines stand above, and all of them in its log",
        _ if is_worker => {
            "a crash of the provider: run again with `--jobs 1`, and report it to whoever provides the stage"
        }
        _ => "run its line by hand in the recipe's folder to see what it does",
    }
}

fn of_workspace(error: &Error) -> String {
    match error {
        Error::Busy { .. } => "wait until it is done, or use another folder with --workspace".into(),
        error if error.is_full() => "make room and run again; what was finished is kept".into(),
        Error::Foreign { .. } => {
            "another version of effigy wrote it: use that one here, or this one in another folder with --workspace".into()
        }
        Error::TooLong { .. } => {
            "records hold small values: write large ones into files, as columns of type `blob`, or cut the stage's rows into \
             more units"
                .into()
        }
        Error::Gone { .. } => {
            "put the file back, or let `effigy cache verify --discard` (with the same --workspace) forget what is gone, \
             and run again"
                .into()
        }
        // the next start finds the damage and reads the journal, which holds all that the index does
        Error::Index(_) => {
            "run again, or make it anew by `effigy cache rebuild` (with the same --workspace); nothing that was finished \
             is lost"
                .into()
        }
        Error::Io { source, .. } => of_system(source.kind()),
    }
}

fn of_table(error: &manifests::Error) -> String {
    use manifests::Error;
    match error {
        Error::Io { source, .. } => of_system(source.kind()),
        Error::NotArrow { .. } => "it is damaged: remove it and run again".into(),
        Error::NullWithin { .. } => "write NaN for a number that there is none of, or null for the whole list".into(),
        _ => "`effigy show RECIPE STAGE` shows the rows of the stage that it comes from".into(),
    }
}

fn of_system(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::NotFound => "is its path right? if it was removed or moved meanwhile, put it back and run again",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "see whose it is by `ls -ld`; --workspace and --out name folders that may be written"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room and run again; what was finished is kept",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists | ErrorKind::IsADirectory => {
            "a file stands where a folder should, or the other way round: move it away, or name another path"
        }
        _ => "the system refused it: see the free room (`df`), the rights (`ls -ld`) and the disk (`dmesg`), then run again",
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn hints_are_found_under_context() {
        let error = Err::<(), _>(hinted("two rows", "drop one")).context("stage `j`").unwrap_err();
        assert_eq!(hint_of(&error).as_deref(), Some("drop one"));
        assert_eq!(crate::run::sentence(&error), "stage `j`: two rows");
        assert_eq!(hint_of(&anyhow::anyhow!("nobody knows")), None);
    }

    #[test]
    fn deaths_are_told_apart() {
        let death = |raw: i32, is_worker| of_death(Some(ExitStatus::from_raw(raw)), is_worker, false);
        for raw in [libc::SIGKILL, 137 << 8] {
            assert!(death(raw, false).contains("--jobs 1"), "{raw}");
        }
        assert!(death(127 << 8, false).contains("not installed"));
        assert!(death(3 << 8, false).contains("by hand"));
        assert!(death(libc::SIGSEGV, true).contains("crash of the provider"));
        assert!(of_death(None, true, true).contains("log"));
    }

    #[test]
    fn every_error_of_the_workspace_says_what_to_do() {
        let path = std::path::PathBuf::from("w");
        let hint = |error: Error| hint_of(&error.into()).unwrap_or_default();
        let refused = || std::io::Error::from(ErrorKind::PermissionDenied);
        let full = std::io::Error::from(ErrorKind::StorageFull);
        assert!(hint(Error::Busy { path: path.clone(), holder: "1".into() }).contains("--workspace"));
        assert!(hint(Error::Foreign { path: path.clone(), reason: String::new() }).contains("version"));
        assert!(hint(Error::Gone { digest: String::new(), reason: String::new() }).contains("cache verify --discard"));
        assert!(hint(Error::Index("torn".into())).contains("cache rebuild"));
        assert!(hint(Error::Io { doing: "write", path: path.clone(), source: refused() }).contains("--workspace"));
        assert!(hint(Error::Io { doing: "write", path, source: full }).contains("make room"));
    }
}
