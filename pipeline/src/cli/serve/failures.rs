//! What units that failed have left behind, and which units are worked on: told by the logs that a run notes for each
//! stage. The log of what failed ends with what the run said of it. Knows nothing else of how logs are written.

use super::site::Site;
use crate::cli::live::Live;
use crate::compare::Naming;
use crate::record::{Record, StageRecord};
use crate::run::{log_index, logs};
use cache::layout;
use protocol::Grain;
use serde_json::{Value as Json, json};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Failures that are told of a stage.
const TOLD: usize = 5;
/// Lines and bytes of the end of a log.
const WORDS: (usize, u64) = (12, 8 << 10);

/// The failures of a stage of a run: unit, row, and the last words of its log. Logs are those of the last run that had
/// work for the stage; of an older one nothing is left.
pub fn of(site: &Site, record: &Record, stage: &StageRecord) -> Vec<Json> {
    let folder = site.root.join(layout::FAILED);
    let begun = moment(record.started);
    let of_this_run =
        |path: &Path| written(path).is_some_and(|time| time >= begun && time <= moment(record.ended() + 2000));
    let logs = logs(&site.root, &stage.name);
    let failed = logs.into_iter().filter(|one| one.log.starts_with(&folder) && of_this_run(&one.log));
    let rows = stage.cut.as_ref().is_some_and(|cut| cut.grain == Grain::Row);
    // units are rows of the one table that it maps over
    let input = match &stage.wiring.from[..] {
        [one] if rows => record.stage(one).and_then(|input| site.tables.table(&input.table?).ok()),
        _ => None,
    };
    let naming = input.as_ref().map(|table| Naming::of(table));
    let named = |unit: usize| {
        let (table, naming) = input.as_ref().zip(naming.as_ref())?;
        (unit < table.len()).then(|| naming.name(table, unit))
    };
    let told = failed.take(TOLD).map(|one| {
        let unit = one.units.first().copied();
        let text = end(&one.log);
        let (words, error, hint) = told_apart(&text);
        json!({
            "unit": unit,
            "grain": if rows { "row" } else { "unit" },
            "name": unit.and_then(named),
            "error": error,
            "hint": hint,
            "words": last(words, WORDS.0),
            "log": one.log,
        })
    });
    told.collect()
}

/// Units of a stage that somebody works on now; the others of a stage that is running wait for their turn.
pub fn working(root: &Path, live: &Live, stage: &str) -> usize {
    // what an earlier run noted says nothing of this one
    let index = log_index(root, stage);
    if written(&index).is_none_or(|time| time < moment(live.started)) {
        return 0;
    }
    let over = [root.join(layout::FAILED), root.join(layout::LOGS)];
    let open = logs(root, stage).into_iter().filter(|one| !over.iter().any(|folder| one.log.starts_with(folder)));
    open.map(|one| one.units.len()).sum()
}

/// A log's own words, and the sentence and the hint behind them.
fn told_apart(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let at = text.rfind("\nerror: ").map(|at| at + 1).or_else(|| text.starts_with("error: ").then_some(0));
    let Some(at) = at else { return (text, None, None) };
    let said = text[at..].trim_end().strip_prefix("error: ").unwrap_or_default();
    match said.rsplit_once("\nhint: ") {
        Some((error, hint)) => (&text[..at], Some(error), Some(hint)),
        None => (&text[..at], Some(said), None),
    }
}

/// The end of a file.
fn end(path: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let length = file.metadata().map_or(0, |meta| meta.len());
        // what cannot be read has no words
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(WORDS.1)));
        let _ = file.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// So many lines from the end of a text.
fn last(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn written(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

fn moment(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_run_said_stands_behind_the_words_of_the_log() {
        let text = "before\nerror: own\nwent wrong\nerror: `sh` ended with 3\nand more\nhint: see there\n";
        let own = "before\nerror: own\nwent wrong\n";
        assert_eq!(told_apart(text), (own, Some("`sh` ended with 3\nand more"), Some("see there")));
        assert_eq!(told_apart("error: alone\n"), ("", Some("alone"), None));
        assert_eq!(told_apart("words\n"), ("words\n", None, None));
    }

    #[test]
    fn what_is_worked_on_is_told_by_the_logs_of_this_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let put = |name: &str, text: &str| {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let lines = [
            (vec![0, 1], put("tasks/000001/log.txt", "")),
            (vec![2], put("failed/ab.txt", "words")),
            (vec![3], put("logs/s/000000.txt", "words")),
            (vec![4], root.join("tasks/000002/log.txt").display().to_string()),
        ];
        let text: String =
            lines.iter().map(|(units, log)| format!("{}\n", json!({"units": units, "log": log}))).collect();
        put("logs/s/index", &text);
        let live = Live { started: 1, ..Live::default() };
        assert_eq!(working(root, &live, "s"), 2, "the third failed, the fourth is over, the task of the fifth is gone");
        assert_eq!(working(root, &live, "t"), 0);
        let later = Live { started: u64::MAX / 2_000_000, ..Live::default() };
        assert_eq!(working(root, &later, "s"), 0, "noted by an earlier run");
    }
}
