//! Where the logs of a stage's tasks are: while they are in work, when they have failed, and afterwards until the stage has work again.
//! A line for each task, in a file for each stage. Knows nothing of what is in a log; prints nothing.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The log of some units.
#[derive(Debug, Serialize, Deserialize)]
pub struct Logged {
    /// The units, counted from 0 in the order of the stage's input: rows, where each row is a unit.
    pub units: Vec<usize>,
    /// The file.
    pub log: PathBuf,
}

/// The logs of a run.
pub struct Logs {
    dir: PathBuf,
    /// The lines of each stage that has work in this run.
    stages: HashMap<String, Option<File>>,
    kept: usize,
}

impl Logs {
    /// Those of a workspace.
    pub fn new(root: &Path) -> Logs {
        Logs { dir: root.join("logs"), stages: HashMap::new(), kept: 0 }
    }

    /// Notes where the log of these units is from now on.
    pub fn note(&mut self, stage: &str, units: Vec<usize>, log: &Path) {
        let dir = self.dir.join(stage);
        let lines = self.stages.entry(stage.into()).or_insert_with(|| {
            // those of the run before
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir).ok()?;
            OpenOptions::new().create(true).append(true).open(dir.join("index")).ok()
        });
        let line = serde_json::to_vec(&Logged { units, log: log.into() });
        // a log that is not found is no reason to stop the work
        if let (Some(file), Ok(mut line)) = (lines, line) {
            line.push(b'\n');
            let _ = file.write_all(&line);
        }
    }

    /// Keeps the log of a task that is over, if there is something in it.
    pub fn keep(&mut self, stage: &str, units: Vec<usize>, log: &Path) {
        if std::fs::metadata(log).map_or(0, |meta| meta.len()) == 0 {
            return;
        }
        let target = self.dir.join(stage).join(format!("{:06}.txt", self.kept));
        self.kept += 1;
        if std::fs::rename(log, &target).is_ok() {
            self.note(stage, units, &target);
        }
    }
}

/// The logs of a stage that are there, one for each group of units that were worked on together, the latest of each unit.
pub fn logs(root: &Path, stage: &str) -> Vec<Logged> {
    let text = std::fs::read_to_string(root.join("logs").join(stage).join("index")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Logged>(line).ok());
    let mut all: Vec<Logged> = lines.filter(|one| one.log.exists()).collect();
    let mut latest: HashMap<usize, usize> = HashMap::new();
    for (line, one) in all.iter().enumerate() {
        latest.extend(one.units.iter().map(|&unit| (unit, line)));
    }
    for (line, one) in all.iter_mut().enumerate() {
        one.units.retain(|unit| latest[unit] == line);
    }
    all.retain(|one| !one.units.is_empty());
    all.sort_by_key(|one| one.units.first().copied());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_log_of_each_unit_is_found() {
        let root = tempfile::tempdir().unwrap();
        let mut logs = Logs::new(root.path());
        let file = |name: &str| {
            let path = root.path().join(name);
            std::fs::write(&path, name).unwrap();
            path
        };
        logs.note("s", vec![3, 4], &file("a"));
        logs.note("s", vec![0, 1, 2], &file("b"));
        logs.note("s", vec![1], &file("c"));
        logs.note("s", vec![4], &file("d"));
        logs.note("s", vec![3], &file("e"));
        logs.note("s", vec![2], &root.path().join("gone"));
        let found: Vec<(Vec<usize>, PathBuf)> =
            super::logs(root.path(), "s").into_iter().map(|one| (one.units, one.log)).collect();
        let expected = [(vec![0, 2], "b"), (vec![1], "c"), (vec![3], "e"), (vec![4], "d")];
        assert_eq!(found, expected.map(|(units, name)| (units, root.path().join(name))));
    }
}
