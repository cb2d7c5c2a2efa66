//! What becomes of an error in a run: whether it ends the run or a unit, and what users are told of it. Prints nothing.

use super::Damaged;
use crate::hints::hint_of;
use anyhow::Result;

/// An error that ends the run, because the workspace cannot be written, or this pass of it; others end a unit.
pub(super) fn fatal(error: anyhow::Error) -> Result<anyhow::Error> {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let fatal = error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| matches!(io.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem))
            || cause.downcast_ref::<cache::Error>().is_some_and(|error| error.is_full() || error.is_refused())
            || cause.is::<Damaged>()
    });
    if fatal { Err(error) } else { Ok(error) }
}

/// What users are told of an error that does not end the run: a sentence, and what to do about it.
pub(super) fn told(error: anyhow::Error) -> Result<(String, Option<String>)> {
    let error = fatal(error)?;
    let hint = hint_of(&error)
        .unwrap_or_else(|| "`effigy why RECIPE STAGE` tells what the stage reads and what changed".into());
    Ok((sentence(&error), Some(hint)))
}

/// An error and its causes in one sentence.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // libraries like to repeat their cause
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}
