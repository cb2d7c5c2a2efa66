//! Where the logs of a stage's tasks are: while they are in work, when they have failed, and afterwards until the stage
//! has work again. A line for each task, in a file for each stage. Knows nothing of what is in a log but the lines by
//! which a stage warns; prints nothing.

use cache::layout;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How a line of a log begins that whoever runs the recipe should see.
const WARNING: &str = "warning: ";
/// Such lines are sought in so much of a log, bytes: a stage that has something to say says it early.
const READ: u64 = 64 << 10;
/// So many of a stage are shown.
const SHOWN: usize = 3;
/// And so much of each, characters.
const WIDTH: usize = 300;

/// The log of some units.
#[derive(Debug, Serialize, Deserialize)]
pub struct Logged {
    /// The units, counted from 0 in the order of the stage's input: rows, where each row is a unit.
    pub units: Vec<usize>,
    /// The file.
    pub log: PathBuf,
    /// It is that of a try that failed and was followed by another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tried: bool,
}

/// The file that names the logs of a stage, beside them.
const INDEX: &str = "index";

/// The logs of a run.
pub struct Logs {
    dir: PathBuf,
    /// The stages that have work in this run, and the warnings of theirs that were shown.
    stages: HashMap<String, HashSet<String>>,
    kept: usize,
}

impl Logs {
    /// Those of a workspace.
    pub fn new(root: &Path) -> Logs {
        Logs { dir: root.join(layout::LOGS), stages: HashMap::new(), kept: 0 }
    }

    /// Notes where the log of these units is from now on.
    pub fn note(&mut self, stage: &str, units: Vec<usize>, log: &Path) {
        self.line(stage, &Logged { units, log: log.into(), tried: false });
    }

    fn line(&mut self, stage: &str, logged: &Logged) {
        let dir = self.dir.join(stage);
        if !self.stages.contains_key(stage) {
            // those of the run before
            let _ = std::fs::remove_dir_all(&dir);
            let _ = std::fs::create_dir_all(&dir);
            self.stages.insert(stage.into(), HashSet::new());
        }
        let line = serde_json::to_vec(logged);
        // a log that is not found is no reason to stop the work; closed at once, for stages may outnumber what may be
        // open
        let file = OpenOptions::new().create(true).append(true).open(dir.join(INDEX));
        if let (Ok(mut file), Ok(mut line)) = (file, line) {
            line.push(b'\n');
            let _ = file.write_all(&line);
        }
    }

    /// Keeps the log of a task that is over, if there is something in it; gives back what in it should be shown: lines
    /// that begin with `warning: `, each once for its stage and not too many of them.
    pub fn keep(&mut self, stage: &str, units: Vec<usize>, log: &Path) -> Vec<String> {
        if std::fs::metadata(log).map_or(0, |meta| meta.len()) == 0 {
            return Vec::new();
        }
        let warned = self.warnings(stage, log);
        if let Some(target) = self.take(stage, log) {
            self.note(stage, units, &target);
        }
        warned
    }

    /// Keeps the log of a try that failed, with what is said of it, beside that of the next; where it is then.
    pub fn keep_tried(&mut self, stage: &str, units: Vec<usize>, log: &Path, error: &str) -> Option<PathBuf> {
        let target = self.take(stage, log)?;
        let file = OpenOptions::new().append(true).open(&target);
        // the log is of use without
        let _ = file.and_then(|mut file| writeln!(file, "error: {}", error.trim_end()));
        self.line(stage, &Logged { units, log: target.clone(), tried: true });
        Some(target)
    }

    fn take(&mut self, stage: &str, log: &Path) -> Option<PathBuf> {
        let target = self.dir.join(stage).join(format!("{:06}.txt", self.kept));
        self.kept += 1;
        std::fs::rename(log, &target).ok()?;
        // a program that never stops writing fills no disk after its end
        let _ = shorten(&target);
        Some(target)
    }

    fn warnings(&mut self, stage: &str, log: &Path) -> Vec<String> {
        let shown = self.stages.entry(stage.into()).or_default();
        let mut news = Vec::new();
        // one more than are shown stands for all that are not
        if shown.len() > SHOWN {
            return news;
        }
        let mut text = Vec::new();
        // a log that cannot be read is no reason to stop the work
        let _ = File::open(log).and_then(|file| file.take(READ).read_to_end(&mut text));
        for line in String::from_utf8_lossy(&text).lines().filter_map(|line| line.strip_prefix(WARNING)) {
            let line: String = line.trim().chars().take(WIDTH).collect();
            if line.is_empty() || shown.contains(&line) {
                continue;
            }
            shown.insert(line.clone());
            if shown.len() > SHOWN {
                news.push(format!("more in `effigy log {stage}`"));
                break;
            }
            news.push(line);
        }
        news
    }
}

/// Where it is noted which units' logs there are of a stage.
pub fn log_index(root: &Path, stage: &str) -> PathBuf {
    root.join(layout::LOGS).join(stage).join(INDEX)
}

/// The logs of a stage that are there, one for each group of units that were worked on together: the latest of each
/// unit, and before it those of tries that failed.
pub fn logs(root: &Path, stage: &str) -> Vec<Logged> {
    let text = std::fs::read_to_string(log_index(root, stage)).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Logged>(line).ok());
    let mut all: Vec<Logged> = lines.filter(|one| one.log.exists()).collect();
    let mut latest: HashMap<usize, usize> = HashMap::new();
    for (line, one) in all.iter().enumerate() {
        latest.extend(one.units.iter().map(|&unit| (unit, line)));
    }
    for (line, one) in all.iter_mut().enumerate() {
        one.units.retain(|unit| one.tried || latest[unit] == line);
    }
    all.retain(|one| !one.units.is_empty());
    all.sort_by_key(|one| one.units.first().copied());
    all
}

/// Of a longer log this much is kept from its beginning and from its end, bytes.
const KEPT: u64 = 1 << 20;

/// Takes the middle out of a log that is much longer than anybody reads.
///
/// # Errors
/// If it cannot be read or written.
pub fn shorten(path: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    if len <= 2 * KEPT {
        return Ok(());
    }
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(len - KEPT))?;
    file.take(KEPT).read_to_end(&mut end)?;
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.set_len(KEPT)?;
    file.seek(SeekFrom::End(0))?;
    write!(file, "\n[… {} bytes left out]\n", len - 2 * KEPT)?;
    file.write_all(&end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_its_beginning_and_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.txt");
        std::fs::write(&path, "short\n").unwrap();
        shorten(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "short\n");
        let line = "a line of thirty-one characters\n";
        std::fs::write(&path, format!("first\n{}last\n", line.repeat(200_000))).unwrap();
        shorten(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("first\na line") && text.ends_with("characters\nlast\n") && text.len() < 2_100_000);
        assert!(text.contains("\n[… 4302859 bytes left out]\n"), "{}", 6_400_011 - 2 * KEPT);
    }

    #[test]
    fn warnings_of_a_stage_are_shown_once_each_and_few_of_them() {
        let root = tempfile::tempdir().unwrap();
        let mut logs = Logs::new(root.path());
        let mut keep = |stage: &str, text: &str| {
            let path = root.path().join("log.txt");
            std::fs::write(&path, text).unwrap();
            logs.note(stage, vec![0], &path);
            logs.keep(stage, vec![0], &path)
        };
        assert_eq!(keep("s", "warning: a\nhello\n  warning: no\nwarning: a\nwarning:\nwarning: b \n"), ["a", "b"]);
        assert_eq!(keep("s", ""), [""; 0]);
        assert_eq!(keep("s", "warning: b\n"), [""; 0], "the same of another task");
        assert_eq!(keep("s", "warning: c\nwarning: a\nwarning: d\nwarning: e\n"), ["c", "more in `effigy log s`"]);
        assert_eq!(keep("s", "warning: f\n"), [""; 0]);
        assert_eq!(keep("t", "warning: a"), ["a"], "another stage");
        let late = format!("{}\nwarning: late\n", "x".repeat(READ as usize));
        assert_eq!(keep("u", &late), [""; 0]);
        let long = keep("u", &format!("warning: {}\n", "y".repeat(WIDTH + 1)));
        assert_eq!(long, ["y".repeat(WIDTH)]);
    }

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
        let found = || -> Vec<(Vec<usize>, PathBuf)> {
            super::logs(root.path(), "s").into_iter().map(|one| (one.units, one.log)).collect()
        };
        let expected = [(vec![0, 2], "b"), (vec![1], "c"), (vec![3], "e"), (vec![4], "d")];
        assert_eq!(found(), expected.map(|(units, name)| (units, root.path().join(name))));
        let tried = logs.keep_tried("s", vec![3], &file("e"), "it failed").unwrap();
        assert_eq!(std::fs::read_to_string(&tried).unwrap(), "eerror: it failed\n");
        logs.note("s", vec![3], &file("f"));
        assert_eq!(found()[2..4], [(vec![3], tried), (vec![3], root.path().join("f"))], "a try that failed is kept");
    }
}
