//! What jobs a run has on a cluster, in a file that outlives it: so that the next one goes on with them, whether the
//! first was detached on purpose or killed. Asks nobody.

use super::ask::Which;
use super::element::{Element, Orders, file};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The jobs of a run that are not over, as far as the run knew.
#[derive(Debug, Serialize, Deserialize)]
pub struct Left {
    /// The name its jobs bear.
    pub run: String,
    /// The folder and the words it was called with.
    pub call: (PathBuf, Vec<String>),
    /// Whether the user detached it; else it was killed.
    pub is_meant: bool,
    /// So many arrays were handed in.
    pub batches: usize,
    /// Array, index, and the number that Slurm has for the array.
    pub jobs: Vec<(usize, usize, String)>,
}

fn path(dir: &Path) -> PathBuf {
    dir.join(cache::LEFT)
}

impl Left {
    /// What a run has left in the folder of its arrays.
    pub fn read(dir: &Path) -> Option<Left> {
        serde_json::from_slice(&std::fs::read(path(dir)).ok()?).ok()
    }

    /// What a run has left in a workspace.
    pub fn of(workspace: &Path) -> Option<Left> {
        Left::read(&workspace.join("tasks/slurm"))
    }

    /// Writes it.
    pub(super) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        crate::memory::write(&path(dir), &serde_json::to_vec(self)?)
    }

    /// Nothing is left.
    pub(super) fn forget(dir: &Path) {
        // one that stays speaks of jobs that nobody knows any more
        let _ = std::fs::remove_file(path(dir));
    }

    /// The jobs, with all their tasks: what became of them, they tell from the beginning.
    pub(super) fn elements(&self, dir: &Path) -> BTreeMap<Which, Element> {
        let element = |(batch, index, job): &(usize, usize, String)| {
            let folder = dir.join(format!("{batch:04}"));
            let orders: Orders = serde_json::from_slice(&std::fs::read(file(&folder, *index, "json")).ok()?).ok()?;
            Some(((*batch, *index), Element::new(&folder, *index, job, orders.tasks)))
        };
        self.jobs.iter().filter_map(element).collect()
    }
}
