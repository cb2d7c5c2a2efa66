//! The tables that past runs left, as long as two runs can be compared row by row: for each run a list of their
//! digests, and the tables themselves within a bound. Losing any of it costs a comparison, nothing else. And a note of
//! each run that has begun, as long as it has no record: what a run that was killed has finished, nothing else speaks
//! of.

use crate::memory::write;
use anyhow::Result;
use cache::Unit;
use cache::layout;
use manifests::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// The tables of so many runs are kept that have some of their own: a run all of whose tables others have as well costs
/// nothing and counts for none.
pub const RUNS: usize = 50;
/// As long as those that no last run needs take no more room than this, bytes.
pub const ROOM: u64 = 512 << 20;

fn lists(root: &Path) -> PathBuf {
    root.join(layout::RUNS).join(layout::TABLES)
}

/// Notes which tables a run left, so that [`hold`] finds them. Digests lie in the list one after the other.
///
/// # Errors
/// If it cannot be written.
pub fn note(root: &Path, run: &str, tables: impl IntoIterator<Item = Digest>) -> Result<()> {
    let bytes: Vec<u8> = tables.into_iter().flat_map(|table| table.0).collect();
    write(&lists(root).join(run), &bytes)
}

/// Adds the tables of the latest runs to those that are `named`, newest first, until one of the bounds is reached;
/// forgets the lists of older runs.
pub fn hold(root: &Path, named: &mut HashSet<String>) {
    let mut runs: Vec<PathBuf> =
        std::fs::read_dir(lists(root)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    // names of runs are times
    runs.sort();
    let (mut left, mut full, mut held) = (ROOM, false, 0);
    for run in runs.iter().rev() {
        let mut wanted = Vec::new();
        let mut size = 0;
        for digest in std::fs::read(run).unwrap_or_default().as_chunks().0 {
            let table = Digest(*digest).to_string();
            if !named.contains(&table) {
                let path = root.join(layout::TABLES).join(format!("{table}.arrow"));
                size += std::fs::metadata(path).map_or(0, |meta| meta.len());
                wanted.push(table);
            }
        }
        held += usize::from(!wanted.is_empty());
        full |= held > RUNS || size > left;
        if full {
            // a list that stays costs room, nothing else
            let _ = std::fs::remove_file(run);
        } else {
            left -= size;
            named.extend(wanted);
        }
    }
}

/// A run that has begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Begun {
    /// The recipe's file, absolute.
    pub recipe: String,
    /// The profile.
    pub profile: Option<String>,
    /// When, milliseconds since 1970.
    pub started: u64,
    /// The names of its stages.
    pub stages: BTreeSet<String>,
}

impl Begun {
    /// Whether a unit may be one of those that it has finished.
    pub fn may_have_made(&self, unit: &Unit) -> bool {
        unit.at >= self.started && self.stages.contains(&unit.node)
    }
}

/// What the name of such a note ends in.
const BEGUN: &str = "begun";

fn begun_path(root: &Path, run: &str) -> PathBuf {
    root.join(layout::RUNS).join(format!("{run}.{BEGUN}"))
}

/// Notes that a run begins.
///
/// # Errors
/// If it cannot be written.
pub fn begin(root: &Path, run: &str, begun: &Begun) -> Result<()> {
    write(&begun_path(root, run), &serde_json::to_vec(begun)?)
}

/// The run is on record, so that its note can go. `whole`: it did all of its recipe and profile, and so went on with
/// whatever runs of these had finished that were killed before it: their notes go as well.
pub fn end(root: &Path, run: &str, begun: &Begun, whole: bool) {
    let of_same = |(_, other): &(String, Begun)| other.recipe == begun.recipe && other.profile == begun.profile;
    let others = if whole { self::begun(root) } else { Vec::new() };
    for run in others.into_iter().filter(of_same).map(|(other, _)| other).chain([run.to_string()]) {
        // a note that stays keeps some records longer than need be, nothing else
        let _ = std::fs::remove_file(begun_path(root, &run));
    }
}

/// A recipe and profile are at rest: whatever their runs had finished that were killed has been gone on with.
pub fn rest(root: &Path, recipe: &str, profile: Option<&str>) {
    let mut notes = begun(root);
    notes.retain(|(_, note)| note.recipe == recipe && note.profile.as_deref() == profile);
    // mostly there is none, and then nobody's lock is touched; the note of a run that is on stays
    if notes.is_empty() || cache::is_locked(root) {
        return;
    }
    for (run, _) in notes {
        let _ = std::fs::remove_file(begun_path(root, &run));
    }
}

/// The notes that are there, with the names of their runs: of those that were killed, and of one that is on.
pub fn begun(root: &Path) -> Vec<(String, Begun)> {
    let entries = std::fs::read_dir(root.join(layout::RUNS)).into_iter().flatten().flatten().map(|entry| entry.path());
    let notes = entries.filter(|path| path.extension().is_some_and(|ext| ext == BEGUN));
    let read = |path: PathBuf| {
        let note: Begun = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        Some((path.file_stem()?.to_str()?.to_string(), note))
    };
    notes.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_did_everything_ends_those_that_were_killed_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path();
        let note = |recipe: &str, profile: Option<&str>| Begun {
            recipe: recipe.into(),
            profile: profile.map(String::from),
            started: 7,
            stages: BTreeSet::from(["train".to_string()]),
        };
        let runs = || {
            let mut runs: Vec<String> = begun(root).into_iter().map(|(run, _)| run).collect();
            runs.sort();
            runs.join(" ")
        };
        assert_eq!(runs(), "");
        for (run, recipe, profile) in [("1", "a", None), ("2", "a", None), ("3", "a", Some("p")), ("4", "b", None)] {
            begin(root, run, &note(recipe, profile)).expect("it is writable");
        }
        std::fs::write(root.join("runs/5.begun"), "{").expect("it is writable");
        assert_eq!(runs(), "1 2 3 4", "one that was torn is none");
        end(root, "2", &note("a", None), false);
        assert_eq!(runs(), "1 3 4", "it did only a part");
        begin(root, "6", &note("a", None)).expect("it is writable");
        end(root, "6", &note("a", None), true);
        assert_eq!(runs(), "3 4");
        rest(root, "a", Some("p"));
        assert_eq!(runs(), "4");
    }

    #[test]
    fn the_latest_runs_hold_their_tables_within_the_bounds() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path();
        for run in 0..RUNS as u8 + 2 {
            note(root, &format!("run-{run:02}"), [Digest([run; 32]), Digest([200; 32])]).expect("it is writable");
        }
        // one that failed at once, and one that found all that another had left
        note(root, "run-98", []).expect("it is writable");
        note(root, "run-99", [Digest([RUNS as u8; 32])]).expect("it is writable");
        let held = || {
            let mut named = HashSet::from(["memory".to_string()]);
            hold(root, &mut named);
            named
        };
        let named = held();
        assert!(named.contains("memory") && named.contains(&Digest([2; 32]).to_string()));
        assert!(!named.contains(&Digest([1; 32]).to_string()), "more than so many runs are not held");
        assert_eq!(std::fs::read_dir(lists(root)).expect("a folder").count(), RUNS + 2);
        // a table that is too large lets go of its run and of all before it
        let large = root.join("tables").join(format!("{}.arrow", Digest([8; 32])));
        std::fs::create_dir_all(large.parent().expect("a folder")).expect("it is writable");
        std::fs::File::create(&large).and_then(|file| file.set_len(ROOM + 1)).expect("a sparse file");
        let named = held();
        assert!(named.contains(&Digest([9; 32]).to_string()) && !named.contains(&Digest([8; 32]).to_string()));
        assert!(!named.contains(&Digest([7; 32]).to_string()));
    }
}
