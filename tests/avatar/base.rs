//! One undisturbed run of the small recipe, shared by all tests: `prepared` has the stages that no test disturbs,
//! `finished` has all. Tests work on copies.

use crate::support::Space;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The shipped recipe.
pub fn recipe() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/pipeline/recipes/avatar.yaml").into()
}

/// Sizes at which every stage still does its work, in a fraction of the smoke profile's time.
pub const SMALL: [&str; 30] = [
    "--profile",
    "smoke",
    "--param",
    "frames=4",
    "--param",
    "scan_people=2",
    "--param",
    "person_steps=6",
    "--param",
    "track_steps=4",
    "--param",
    "avatar_steps=40",
    "--param",
    "checkpoint_every=15",
    "--param",
    "sampling_steps=2",
    "--param",
    "validation_steps=2",
    "--set",
    "portrayed.count=2",
    "--set",
    "portraits.views=2",
    "--set",
    "vae.steps=4",
    "--set",
    "unet.steps=4",
    "--set",
    "tracked.coarse=9",
    "--set",
    "person.key_frames=2",
];

/// Workspaces of the shared run, and the rows of all its stages.
pub struct Base {
    prepared: PathBuf,
    finished: PathBuf,
    /// By stage, files as digests.
    pub tables: BTreeMap<String, Vec<Value>>,
}

/// The shared run, made when it is first asked for.
pub fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("avatar");
        // an earlier run's
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a folder");
        let (prepared, finished) = (dir.join("prepared"), dir.join("finished"));
        let space = Trial { space: Space::new(), recipe: recipe() };
        space.run(&["--only", "capture", "--only", "head_model", "--only", "backbone", "--only", "truth"]);
        copy(&space.workspace(), &prepared);
        space.run(&[]);
        copy(&space.workspace(), &finished);
        Base { prepared, finished, tables: space.tables() }
    })
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().expect("cp is there");
    assert!(status.success(), "copying {} failed", from.display());
}

/// What one run did to each stage.
pub type Ran = BTreeMap<String, u64>;

/// A folder with a workspace of its own.
pub struct Trial {
    pub space: Space,
    recipe: String,
}

impl Trial {
    /// With the work of the stages that are not disturbed.
    pub fn prepared() -> Trial {
        let trial = Trial { space: Space::new(), recipe: recipe() };
        copy(&base().prepared, &trial.workspace());
        trial
    }

    /// With everything done.
    pub fn finished() -> Trial {
        let trial = Trial { space: Space::new(), recipe: recipe() };
        copy(&base().finished, &trial.workspace());
        trial
    }

    /// The same, of another recipe in the folder.
    pub fn of(self, recipe: &str) -> Trial {
        Trial { recipe: recipe.into(), ..self }
    }

    fn workspace(&self) -> PathBuf {
        self.space.path(".effigy")
    }

    /// A command on the small recipe.
    pub fn command(&self, verb: &str, words: &[&str]) -> Command {
        let mut all = vec![verb, self.recipe.as_str()];
        all.extend(SMALL);
        // what a test says goes before
        all.extend(words);
        self.space.command_with_packages(&all)
    }

    /// Runs to the end, which has to be a good one; executed units by stage, those without any left out.
    pub fn run(&self, words: &[&str]) -> Ran {
        let output = self.command("run", &[words, &["--json"]].concat()).output().expect("it starts");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}\n{err}");
        out.lines().map(|line| serde_json::from_str(line).expect("an event a line")).filter_map(executed).collect()
    }

    /// Runs until an event, kills it there without a word, and gives back the events up to it.
    pub fn kill_at(&self, words: &[&str], what: &str, reached: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut command = self.command("run", &[words, &["--json"]].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut events = Vec::new();
        for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
            let event: Value = serde_json::from_str(&line.expect("text")).expect("an event a line");
            let stop = reached(&event);
            events.push(event);
            if stop {
                child.kill().expect("it is running");
                child.wait().expect("it is over");
                return events;
            }
        }
        child.wait().expect("it is over");
        panic!("the run ended before {what}; its last events: {:?}", &events[events.len().saturating_sub(5)..]);
    }

    /// JSON that a command prints.
    pub fn json(&self, verb: &str, words: &[&str]) -> Value {
        let output = self.command(verb, &[words, &["--json"]].concat()).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(text.lines().last().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error} in {text:?}\n{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The rows of all stages, files as digests.
    pub fn tables(&self) -> BTreeMap<String, Vec<Value>> {
        let plan = self.json("plan", &[]);
        let stages = plan["stages"].as_array().expect("a list").iter();
        stages
            .map(|stage| stage["stage"].as_str().expect("a name").to_string())
            .map(|n| (n.clone(), self.rows(&n)))
            .collect()
    }

    /// The rows of a stage, files as digests.
    pub fn rows(&self, stage: &str) -> Vec<Value> {
        self.shown(&[stage, "--json"])
    }

    /// The rows of a stage, files as paths.
    pub fn paths(&self, stage: &str) -> Vec<Value> {
        self.shown(&[stage, "--json", "--paths"])
    }

    fn shown(&self, words: &[&str]) -> Vec<Value> {
        // of the last run, whatever parameters it had
        let all = [&["show", self.recipe.as_str(), "--profile", "smoke"], words].concat();
        let (output, stage) = (self.space.command_with_packages(&all).output().expect("it starts"), words[0]);
        assert!(output.status.success(), "{stage}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect()
    }
}

/// Stage and number of executed units, of the event that ends a stage.
pub fn executed(event: Value) -> Option<(String, u64)> {
    let units = event["executed"].as_u64().filter(|units| *units > 0 && event["event"] == "finished")?;
    Some((event["stage"].as_str()?.to_string(), units))
}
