//! The recipes in `pipeline/recipes/examples` do what their comments say.

use crate::support::{Said, Space};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipeline/recipes/examples")
}

/// A copy of the examples, since their comments invite to change them.
fn start() -> Space {
    let space = Space::new();
    for file in ["shell.yaml", "python.yaml", "words.py", "texts/river.txt", "texts/night.txt", "texts/empty.txt"] {
        space.write(file, &std::fs::read_to_string(folder().join(file)).expect("it is committed"));
    }
    space.settle();
    space
}

/// Executed and known units of a run that goes well. Python is whichever the tester has.
fn run(space: &Space, recipe: &str) -> (u64, u64) {
    let (executed, cached, failed) = effigy(space, &["run", recipe, "--json"]).counts();
    assert_eq!(failed, 0);
    (executed, cached)
}

fn effigy(space: &Space, args: &[&str]) -> Said {
    let mut command = space.command(args);
    let Output { status, stdout, stderr } =
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let said = Said { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) };
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    said
}

fn has_pyarrow(test: &str) -> bool {
    let has = Command::new("python3").args(["-c", "import pyarrow"]).output().is_ok_and(|said| said.status.success());
    if !has {
        eprintln!("SKIPPED {test}: there is no python3 that can import pyarrow");
    }
    has
}

#[test]
fn programs_of_the_shell_example_run_once_for_each_content() {
    let space = start();
    assert_eq!(run(&space, "shell.yaml"), (7, 0));
    assert_eq!(run(&space, "shell.yaml"), (0, 7));
    let river = space.read("texts/river.txt");
    space.write("texts/river.txt", &river);
    space.settle();
    assert_eq!(run(&space, "shell.yaml"), (0, 7), "touched");
    let lines: Vec<&str> = river.lines().rev().collect();
    space.write("texts/river.txt", &(lines.join("\n") + "\n"));
    space.settle();
    assert_eq!(run(&space, "shell.yaml"), (1, 6), "sorted, it is as it was, and nothing follows");
    let said = effigy(&space, &["show", "shell.yaml", "frequent", "--json", "--paths"]);
    let words = std::fs::read_to_string(said.json()["words"].as_str().expect("a path")).expect("a file");
    assert_eq!(words.lines().count(), 4);
    assert!(words.contains("river") && words.contains("stone"), "{words}");
}

#[test]
fn rows_of_the_python_example_run_once_for_each_content() {
    if !has_pyarrow("rows_of_the_python_example_run_once_for_each_content") {
        return;
    }
    let space = start();
    // three texts twice, and a group for each of eight words
    assert_eq!(run(&space, "python.yaml"), (14, 0));
    assert_eq!(run(&space, "python.yaml"), (0, 14));
    let counts = effigy(&space, &["show", "python.yaml", "counts", "--json"]);
    let empty: serde_json::Value = serde_json::from_str(counts.out.lines().next().expect("a row")).expect("JSON");
    assert_eq!((&empty["title"], &empty["words"]), (&"empty".into(), &0.into()));
    assert!(empty["mean_length"].is_null(), "{empty}");
    let river = space.read("texts/river.txt") + "The current forgets.\n";
    space.write("texts/river.txt", &river);
    space.settle();
    // the text in both stages, and the groups of its two new long words; all others rank as before
    assert_eq!(run(&space, "python.yaml"), (4, 12));
}

#[test]
fn the_python_example_conforms() {
    if !has_pyarrow("the_python_example_conforms") {
        return;
    }
    let space = start();
    let said = effigy(&space, &["provider", "check", "python3 words.py"]);
    assert!(said.out.contains("30 hold, 0 do not, 0 could not be seen"), "{}", said.out);
}

#[test]
fn an_exception_in_python_is_one_clear_error() {
    if !has_pyarrow("an_exception_in_python_is_one_clear_error") {
        return;
    }
    let space = start();
    let source = space.read("words.py").replace("words = text.split()", "words = text.split(7)");
    space.write("words.py", &source);
    let mut command = space.command(&["run", "python.yaml"]);
    let output = command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).output().expect("it starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    for part in ["error: stage `counts`", "title=empty", "TypeError: must be str or None, not int", "hint: "] {
        assert!(err.contains(part), "expected {part:?} in:\n{err}");
    }
}
