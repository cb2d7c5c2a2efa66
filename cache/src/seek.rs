//! Some units of the journal, sought by their keys without the index: for looking back while another process runs.
//! Knows no more of a record than where its key stands.

use crate::Result;
use crate::entry::{Entry, UNIT};
use crate::layout;
use crate::records::{scan_if, segment_path, segments};
use manifests::Digest;
use std::path::Path;

/// Calls `each` as [`crate::scan_all`] does, but of the units only for those whose key is `wanted`: others are not even
/// decoded. Needs no lock.
///
/// # Errors
/// If a segment cannot be read.
pub fn scan_units(root: &Path, wanted: &dyn Fn(&Digest) -> bool, each: &mut dyn FnMut(Entry)) -> Result<()> {
    let dir = root.join(layout::RECORDS);
    if !dir.exists() {
        return Ok(());
    }
    // a unit's payload begins with its tag and its key
    let keep = |payload: &[u8]| match payload.split_first() {
        Some((&UNIT, rest)) => rest.first_chunk().is_none_or(|key| wanted(&Digest(*key))),
        _ => true,
    };
    for segment in segments(&dir)? {
        scan_if(&segment_path(&dir, segment), segment, 0, &keep, &mut |_, entry| each(entry))?;
    }
    Ok(())
}
