//! Stages that do not give the same again are found and named, and the number of jobs changes nothing.

use crate::support::{Space, provider};
use std::collections::BTreeMap;

/// `steady` gives the same each time, `noisy` for one of its rows not.
const RECIPE: &str = "
stages:
  src: { rows: [ { id: 0 }, { id: 1 }, { id: 2 } ] }
  steady: { run: 'echo steady >> ran.log; echo {id} > {out}/x', shell: true, from: src, writes: { x: blob } }
  noisy: { run: 'echo noisy >> ran.log; if [ {id} = 1 ]; then date +%s%N; else echo 1; fi > {out}/y', shell: true, from: steady, writes: { y: blob } }
";

/// Every file below the workspace with its content, but for the index, which may be written by reading, and what is
/// left of tasks, which every command clears away.
fn content(space: &Space) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![space.path(".effigy")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if !["index", "tasks", "lock"].iter().any(|name| path.starts_with(space.path(".effigy").join(name)))
            {
                let bytes = std::fs::read(&path).expect("a file");
                files.insert(path.display().to_string(), bytes);
            }
        }
    }
    files
}

#[test]
fn a_stage_that_gives_something_else_is_named_and_the_cache_stays_as_it_was() {
    let space = Space::new();
    space.write("r.yaml", RECIPE);
    space.effigy(&["run", "r.yaml", "--check"]).expect_error(1, &["nothing to check", "hint: effigy run r.yaml"]);
    space.run();
    space.ran();
    let (before, rows) = (content(&space), space.rows("noisy"));
    let said = space.effigy(&["run", "r.yaml", "--check"]);
    let known = rows[1]["y"].as_str().expect("a digest");
    said.expect_error(
        1,
        &["error: stage `noisy`, id=1: column `y` differs in row 0", &format!("known: {known}"), "now:   ", "hint: "],
    );
    assert_eq!(said.err.matches("error: ").count(), 1, "{}", said.err);
    assert!(said.out.contains("steady: 3 executed again: equal"), "{}", said.out);
    assert!(said.out.contains("noisy: 3 executed again: DIFFERS"), "{}", said.out);
    assert_eq!(space.ran().len(), 6);
    assert!(content(&space) == before, "a file of the workspace changed");
    assert_eq!(space.run(), (0, 6, 0));
    assert_eq!(space.rows("noisy"), rows);
    let json = space.effigy(&["run", "r.yaml", "--check", "--json"]);
    let first: serde_json::Value = serde_json::from_str(json.out.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["event"], &first["stage"], &first["column"]), (&"differs".into(), &"noisy".into(), &"y".into()));
    assert_eq!((&first["known"], first["now"] == first["known"]), (&known.into(), false));
    assert_eq!((&json.json()["event"], &json.json()["differ"][0]), (&"checked".into(), &"noisy".into()));
}

#[test]
fn a_check_takes_a_sample_of_the_stages_that_were_chosen() {
    let space = Space::new();
    space.write("r.yaml", RECIPE);
    space.run();
    space.ran();
    space.effigy(&["run", "r.yaml", "--check=120%"]).expect_error(2, &["a share of them, like 10%"]);
    let said = space.effigy(&["run", "r.yaml", "--check=2", "--only", "steady"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("steady: 2 of 3 executed again: equal"), "{}", said.out);
    assert_eq!(space.ran(), ["steady", "steady"]);
    // what is not known yet is not computed
    space.write("r.yaml", &RECIPE.replace("echo 1; fi", "echo 2; fi"));
    let said = space.effigy(&["run", "r.yaml", "--check"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("noisy: nothing is known of it yet"), "{}", said.out);
    assert_eq!(space.ran(), ["steady"; 3]);
}

#[test]
fn a_unit_that_fails_now_is_a_difference() {
    let space = Space::new();
    // whether a file lies beside is no fact of a key
    space.write(
        "r.yaml",
        "stages: { a: { run: 'test ! -e flag && echo > {out}/x', shell: true, writes: { x: blob } } }",
    );
    space.run();
    assert_eq!(space.effigy(&["run", "r.yaml", "--check"]).code, 0);
    space.write("flag", "");
    let parts =
        ["error: stage `a`, the whole stage: known: it succeeded; now: it failed: it exited with code 1", "hint: "];
    space.effigy(&["run", "r.yaml", "--check"]).expect_error(1, &parts);
}

/// Stages of a provider in all grains, and programs.
fn mixed(space: &Space) {
    let log = space.path("ran.log").display().to_string();
    for i in 0..9 {
        space.write(&format!("in/{i}.txt"), &"o u ".repeat(i + 1));
    }
    space.write(
        "r.yaml",
        &format!(
            "
providers: [\"{}\"]
stages:
  src: {{ files: \"in/*.txt\" }}
  bias: {{ rows: [{{ value: 0.5 }}] }}
  count: {{ stage: count, from: src, log: '{log}' }}
  sides: {{ select: count, set: {{ side: left }}, overrides: [{{ where: {{ path: in/0.txt }}, set: {{ side: right }} }}] }}
  rank: {{ stage: rank, from: sides, by: [side], log: '{log}' }}
  words: {{ stage: split, from: src, log: '{log}' }}
  train: {{ stage: train, from: count, with: {{ bias: bias }}, steps: 3, log: '{log}' }}
  cat: {{ run: 'cat {{copy}} > {{out}}/all', shell: true, from: count, grain: whole, writes: {{ all: blob }} }}
",
            provider()
        ),
    );
    space.settle();
}

#[test]
fn stages_of_a_provider_are_checked_from_the_beginning_and_without_their_neighbours() {
    let space = Space::new();
    mixed(&space);
    space.run();
    space.ran();
    let before = content(&space);
    let said = space.effigy(&["run", "r.yaml", "--check=100", "--jobs", "3"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    // nine counted, two ranked, nine split, one trained, one put together
    assert!(said.out.contains("22 units executed again, all equal"), "{}", said.out);
    assert_eq!(space.ran().iter().filter(|line| line.starts_with("step")).count(), 3);
    assert!(content(&space) == before, "a file of the workspace changed");
}

#[test]
fn reruns_with_other_jobs_give_equal_digests() {
    let space = Space::new();
    mixed(&space);
    let stages = ["src", "count", "rank", "words", "train", "cat"];
    let tables = |jobs: &str| -> Vec<_> {
        let _ = std::fs::remove_dir_all(space.path(".effigy"));
        let said = space.effigy(&["run", "r.yaml", "--json", "--jobs", jobs]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(said.counts().1, 0);
        stages.map(|stage| space.rows(stage)).to_vec()
    };
    let one = tables("1");
    for jobs in ["2", "5", "16"] {
        assert_eq!(tables(jobs), one, "--jobs {jobs}");
    }
}
