//! A place for one test: an empty folder, the real program, a cleared environment. What a test wrote stays with it; the
//! folder is gone afterwards unless the test fails.

#![allow(dead_code, reason = "each test executable uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// The folder of one test.
pub struct Space {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
}

/// What the program said, and how it ended.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Ctrl-C at a child of ours that was not waited for.
pub fn interrupt(child: &Child) {
    // SAFETY: a signal to a process that is there: its number is not given to another before it is waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
}

fn said(mut command: Command) -> Said {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
}

impl Said {
    /// The last line of standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        let line = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}\n{}", self.err))
    }

    /// Executed, cached and failed units of `run --json`.
    pub fn counts(&self) -> (u64, u64, u64) {
        let json = self.json();
        assert_eq!(json["event"], "done", "{}\n{}", self.out, self.err);
        let count = |name: &str| json[name].as_u64().expect("a count");
        (count("executed"), count("cached"), count("failed"))
    }

    /// Asserts the exit code and that the text of an error holds all these parts.
    pub fn expect_error(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "expected {part:?} in:\n{}", self.err);
        }
    }
}

impl Space {
    pub fn new() -> Space {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().canonicalize().expect("it is there");
        Space { dir: Some(dir), path }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Files whose times are older than the clock's grain, as they are in a user's life.
    pub fn settle(&self) {
        std::thread::sleep(Duration::from_millis(80));
    }

    /// The program with some arguments, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_effigy"));
        command.args(args).current_dir(&self.path).stdin(Stdio::null()).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", &self.path);
        command
    }

    /// The same with the data packages of whoever runs the tests.
    pub fn command_with_packages(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        let of_user = ["HOME", "XDG_CACHE_HOME"].map(|name| (name, std::env::var_os(name)));
        command.envs(of_user.into_iter().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    pub fn effigy(&self, args: &[&str]) -> Said {
        said(self.command(args))
    }

    pub fn effigy_with_packages(&self, args: &[&str]) -> Said {
        said(self.command_with_packages(args))
    }

    pub fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    }

    /// Runs `r.yaml`; it must succeed. Executed, cached, failed.
    pub fn run(&self) -> (u64, u64, u64) {
        let said = self.effigy(&["run", "r.yaml", "--json"]);
        assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
        said.counts()
    }

    /// The lines that stages have appended to `ran.log`, sorted; the log is empty afterwards.
    pub fn ran(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("ran.log")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("ran.log"));
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        lines.sort();
        lines
    }

    /// The rows of a stage as JSON.
    pub fn rows(&self, stage: &str) -> Vec<serde_json::Value> {
        let said = self.effigy(&["show", "r.yaml", stage, "--json"]);
        assert_eq!(said.code, 0, "{}", said.err);
        said.out.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
    }

    /// The text of the file in a blob column of a stage's row.
    pub fn file(&self, stage: &str, row: usize, column: &str) -> String {
        let said = self.effigy(&["show", "r.yaml", stage, "--json", "--paths"]);
        let line = said.out.lines().nth(row).unwrap_or_else(|| panic!("no row {row}: {}", said.err));
        let json: serde_json::Value = serde_json::from_str(line).expect("a JSON object");
        std::fs::read_to_string(json[column].as_str().expect("a path")).expect("a readable file")
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if let (true, Some(dir)) = (std::thread::panicking(), self.dir.take()) {
            eprintln!("what the test left is in {}", dir.keep().display());
        }
    }
}

/// The words that start the test provider.
pub fn provider() -> String {
    example("test-provider")
}

/// The words that start a provider that breaks one rule of the protocol.
pub fn broken_provider(rule: &str) -> String {
    format!("{} {rule}", example("broken-provider"))
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_BIN_EXE_effigy")).with_file_name("examples").join(name);
    assert!(path.exists(), "{} is not built: `cargo build --workspace --examples`", path.display());
    path.display().to_string()
}
