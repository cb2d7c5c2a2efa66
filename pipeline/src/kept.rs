//! The tables that past runs left, as long as two runs can be compared row by row: for each run a list of their digests, and
//! the tables themselves within a bound. Losing any of it costs a comparison, nothing else.

use crate::memory::write;
use anyhow::Result;
use manifests::Digest;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// The tables of so many runs are kept.
pub const RUNS: usize = 10;
/// As long as those that no last run needs take no more room than this, bytes.
pub const ROOM: u64 = 256 << 20;

fn lists(root: &Path) -> PathBuf {
    root.join("runs/tables")
}

/// Notes which tables a run left, so that [`hold`] finds them. Digests lie in the list one after the other.
///
/// # Errors
/// If it cannot be written.
pub fn note(root: &Path, run: &str, tables: impl IntoIterator<Item = Digest>) -> Result<()> {
    let bytes: Vec<u8> = tables.into_iter().flat_map(|table| table.0).collect();
    write(&lists(root).join(run), &bytes)
}

/// Adds the tables of the latest runs to those that are `named`, newest first, until one of the bounds is reached; forgets the
/// lists of older runs.
pub fn hold(root: &Path, named: &mut HashSet<String>) {
    let mut runs: Vec<PathBuf> =
        std::fs::read_dir(lists(root)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    // names of runs are times
    runs.sort();
    let (mut left, mut full) = (ROOM, false);
    for (age, run) in runs.iter().rev().enumerate() {
        let mut wanted = Vec::new();
        let mut size = 0;
        for digest in std::fs::read(run).unwrap_or_default().as_chunks().0 {
            let table = Digest(*digest).to_string();
            if !named.contains(&table) {
                let path = root.join("tables").join(format!("{table}.arrow"));
                size += std::fs::metadata(path).map_or(0, |meta| meta.len());
                wanted.push(table);
            }
        }
        full |= age >= RUNS || size > left;
        if full {
            // a list that stays costs room, nothing else
            let _ = std::fs::remove_file(run);
        } else {
            left -= size;
            named.extend(wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_runs_hold_their_tables_within_the_bounds() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path();
        for run in 0..RUNS as u8 + 2 {
            note(root, &format!("run-{run:02}"), [Digest([run; 32]), Digest([200; 32])]).expect("it is writable");
        }
        let held = || {
            let mut named = HashSet::from(["memory".to_string()]);
            hold(root, &mut named);
            named
        };
        let named = held();
        assert!(named.contains("memory") && named.contains(&Digest([2; 32]).to_string()));
        assert!(!named.contains(&Digest([1; 32]).to_string()), "more than so many runs are not held");
        assert_eq!(std::fs::read_dir(lists(root)).expect("a folder").count(), RUNS);
        // a table that is too large lets go of its run and of all before it
        let large = root.join("tables").join(format!("{}.arrow", Digest([8; 32])));
        std::fs::create_dir_all(large.parent().expect("a folder")).expect("it is writable");
        std::fs::File::create(&large).and_then(|file| file.set_len(ROOM + 1)).expect("a sparse file");
        let named = held();
        assert!(named.contains(&Digest([9; 32]).to_string()) && !named.contains(&Digest([8; 32]).to_string()));
        assert!(!named.contains(&Digest([7; 32]).to_string()));
    }
}
