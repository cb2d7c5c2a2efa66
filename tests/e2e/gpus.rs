//! Stages that need GPUs: each task is told of its own, and no two at the same time of the same. No GPU is needed for
//! that.

use crate::support::{Said, Space, provider};
use std::collections::BTreeSet;

/// The lines `begin GPUS` and `end GPUS` of tasks that note them in `ran.log`: which GPUs were used, after checking
/// that nobody else had them.
fn used(space: &Space) -> BTreeSet<String> {
    let text = space.read("ran.log");
    let (mut busy, mut used) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        let (word, gpus) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} of\n{text}"));
        for gpu in gpus.split(',') {
            let fits = if word == "begin" { busy.insert(gpu.to_string()) } else { busy.remove(gpu) };
            assert!(fits, "two tasks met on the GPU {gpu}:\n{text}");
            used.insert(gpu.to_string());
        }
    }
    std::fs::remove_file(space.path("ran.log")).expect("it is there");
    used
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(String::from).into()
}

fn run(space: &Space, visible: Option<&str>, args: &[&str]) -> Said {
    let mut command = space.command(&[&["run", "r.yaml", "--json", "--jobs", "8"], args].concat());
    visible.map(|names| command.env("CUDA_VISIBLE_DEVICES", names));
    let output = command.output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A program for each of four rows. Those of a pair wait for each other: they run side by side or not at all.
fn programs() -> Space {
    let space = Space::new();
    space.write(
        "r.yaml",
        "
stages:
  src: { rows: [{ i: 0 }, { i: 1 }, { i: 2 }, { i: 3 }] }
  one: { run: 'echo begin $CUDA_VISIBLE_DEVICES >> ran.log; touch here.{i}; until test -e here.$(({i} ^ 1)); do sleep 0.02; done; echo end $CUDA_VISIBLE_DEVICES >> ran.log; echo {i} > {out}/file', shell: true, timeout: 60, from: src, needs: { gpus: 1 }, writes: { file: blob } }
",
    );
    space
}

#[test]
fn programs_that_run_side_by_side_have_gpus_of_their_own() {
    let space = programs();
    let said = run(&space, None, &["--gpus", "2"]);
    assert_eq!((said.code, said.counts()), (0, (4, 0, 0)), "{}", said.out);
    assert_eq!(used(&space), set(["0", "1"]));
    // of those that the user has, by the names that the user has for them
    let space = programs();
    assert_eq!(run(&space, Some("5,GPU-b,9"), &["--gpus", "2"]).counts(), (4, 0, 0));
    assert_eq!(used(&space), set(["5", "GPU-b"]));
    let space = programs();
    assert_eq!(run(&space, Some("5,GPU-b"), &[]).counts(), (4, 0, 0));
    assert_eq!(used(&space), set(["5", "GPU-b"]));
    let said = run(&space, Some("5"), &["--gpus", "2"]);
    said.expect_error(2, &["`--gpus 2`", "CUDA_VISIBLE_DEVICES names, which is 1", "hint: lower it"]);
    // which GPUs a unit had is no part of its key
    assert_eq!(run(&space, Some("7"), &[]).counts(), (0, 4, 0));
}

#[test]
fn workers_that_are_kept_stay_on_their_gpus() {
    let space = Space::new();
    let recipe = |gpus: &str| {
        format!(
            "
providers: ['{}']
stages:
  src: {{ stage: numbers, count: 6 }}
  on: {{ stage: on_gpu, from: src, pause: 150, log: '{}', needs: {{ gpus: {gpus} }} }}
",
            provider(),
            space.path("ran.log").display()
        )
    };
    space.write("r.yaml", &recipe("1"));
    assert_eq!(run(&space, None, &["--gpus", "2"]).counts(), (7, 0, 0));
    assert_eq!(used(&space), set(["0", "1"]));
    // two at a time leave one over, and whoever asks for more than there are has all
    for gpus in ["2", "7"] {
        space.write("r.yaml", &recipe(gpus));
        assert_eq!(run(&space, None, &["--gpus", "3", "--force", "on"]).counts(), (6, 1, 0));
        assert_eq!(used(&space), if gpus == "2" { set(["0", "1"]) } else { set(["0", "1", "2"]) });
    }
}
