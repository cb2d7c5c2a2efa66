//! The records of a workspace's runs, newest first. A record is written once and never changes, so each is read once
//! for the list of runs, and the few that are looked at stay in memory: what the avatar viewer asks for comes many
//! times a second.

use crate::record::{self, Record};
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Records that are kept whole.
const KEPT: usize = 16;

/// The records of a workspace.
pub struct Records {
    root: PathBuf,
    recent: Mutex<Vec<Arc<Record>>>,
    /// What the list of runs tells of each.
    lines: Mutex<HashMap<String, Json>>,
}

impl Records {
    /// Those of a workspace.
    pub fn new(root: &Path) -> Records {
        Records { root: root.into(), recent: Mutex::default(), lines: Mutex::default() }
    }

    /// The record of the run of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Record>> {
        if let Some(known) = locked(&self.recent).iter().find(|known| known.run == name) {
            return Some(known.clone());
        }
        // a name is looked for among those that are there; it never becomes a path
        let name = record::names(&self.root).into_iter().find(|known| known == name)?;
        let record = Arc::new(record::read(&self.root, &name)?);
        let mut recent = locked(&self.recent);
        recent.insert(0, record.clone());
        recent.truncate(KEPT);
        Some(record)
    }

    /// How many runs there are, and what is told of those of a page. `avatar`: only those that have one.
    pub fn page(&self, offset: usize, limit: usize, avatar: bool) -> (usize, Vec<Json>) {
        let mut names = record::names(&self.root);
        names.reverse();
        if avatar {
            names.retain(|name| self.line(name).is_some_and(|line| line["avatar"] == true));
        }
        let shown = names.iter().skip(offset).take(limit).filter_map(|name| self.line(name)).collect();
        (names.len(), shown)
    }

    fn line(&self, name: &str) -> Option<Json> {
        if let Some(known) = locked(&self.lines).get(name) {
            return Some(known.clone());
        }
        let one = record::read(&self.root, name)?;
        let line = json!({
            "run": one.run, "recipe": one.recipe, "typed": one.typed(), "profile": one.profile, "started": one.started,
            "seconds": one.seconds, "outcome": one.outcome, "executed": one.executed, "cached": one.cached,
            "failed": one.failed, "avatar": super::cast::Cast::all(&one).is_ok(),
        });
        locked(&self.lines).insert(name.into(), line.clone());
        Some(line)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(records: &Records, run: &str, text: Option<&str>) {
        let folder = crate::record::runs_folder(&records.root);
        std::fs::create_dir_all(&folder).unwrap();
        let record = Record { run: run.into(), recipe: "r".into(), ..Record::default() };
        let text = text.map_or_else(|| serde_json::to_string(&record).unwrap(), str::to_string);
        std::fs::write(folder.join(format!("{run}.json")), text).unwrap();
    }

    #[test]
    fn a_record_is_read_once_and_pages_are_those_of_the_newest() {
        let root = tempfile::tempdir().unwrap();
        let records = Records::new(root.path());
        assert_eq!(records.page(0, 9, false), (0, Vec::new()));
        (1..=4).for_each(|i| write(&records, &format!("2026-{i}"), None));
        write(&records, "2025-1", Some("{"));
        let names = |(total, lines): (usize, Vec<Json>)| {
            let names: Vec<String> = lines.iter().map(|line| line["run"].as_str().unwrap().to_string()).collect();
            (total, names.join(" "))
        };
        assert_eq!(names(records.page(0, 2, false)), (5, "2026-4 2026-3".into()));
        assert_eq!(names(records.page(2, 9, false)), (5, "2026-2 2026-1".into()), "what cannot be read is left out");
        assert_eq!(names(records.page(0, 9, true)), (0, String::new()), "none of them has an avatar");
        let one = records.get("2026-3").unwrap();
        assert!(records.get("2025-1").is_none() && records.get("../runs/2026-3").is_none());
        // whoever had to read these again would not find them
        (1..=4).for_each(|i| write(&records, &format!("2026-{i}"), Some("")));
        assert!(Arc::ptr_eq(&one, &records.get("2026-3").unwrap()));
        assert_eq!(names(records.page(0, 1, false)), (5, "2026-4".into()));
        assert!(records.get("2026-1").is_none());
    }
}
