//! A recipe at rest: what was noted of it is enough to say that there is nothing to do, and no change gets past it.

use crate::support::{Said, Space, provider};

const RECIPE: &str = "
recipe: resting
params: { suffix: one }
stages:
  src: { files: ['in/*.txt', extra.txt], optional: true }
  up: { run: 'tr a-z A-Z < {file} > {out}/up; cat tools/* >> {out}/up', shell: true, from: src, code: [tools], writes: { up: blob } }
  end: { run: 'cat {up} > {out}/end; echo {param.suffix} >> {out}/end', shell: true, from: up, params: { suffix: \"${suffix}\" }, writes: { end: blob } }
report:
  - { text: 'what came out' }
";

fn start() -> Space {
    let space = Space::new();
    for i in 0..3 {
        space.write(&format!("in/{i}.txt"), &format!("text {i}"));
    }
    space.write("tools/a", "tool");
    space.write("r.yaml", RECIPE);
    space.settle();
    assert_eq!(space.run(), (6, 0, 0));
    assert!(rests(&space), "everything was older than the clock's grain");
    space
}

fn rests(space: &Space) -> bool {
    let entries = std::fs::read_dir(space.path(".effigy/runs/last")).expect("it is there").flatten();
    entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|ext| ext == "rest"))
}

/// A blob of the only row of this stage that ends so.
fn blob(space: &Space, stage: &str) -> std::path::PathBuf {
    let said = space.effigy(&["show", "r.yaml", stage, "--json", "--paths"]);
    let row: serde_json::Value = serde_json::from_str(said.out.lines().next().expect("a row")).expect("JSON");
    row[stage].as_str().expect("a path").into()
}

/// Changes something after `start`, and says what runs; afterwards it rests again.
fn after(change: impl FnOnce(&Space)) -> (u64, u64, u64) {
    let space = start();
    change(&space);
    space.settle();
    let counts = space.run();
    assert_eq!(space.run().0, 0);
    counts
}

#[test]
fn no_change_gets_past_a_recipe_at_rest() {
    assert_eq!(after(|_| {}), (0, 6, 0));
    assert_eq!(after(|space| space.write("in/3.txt", "new")), (2, 6, 0), "a file more in a folder");
    assert_eq!(after(|space| space.write("extra.txt", "new")), (2, 6, 0), "a file that was looked for");
    assert_eq!(after(|space| std::fs::remove_file(space.path("in/0.txt")).expect("it is there")), (0, 4, 0));
    assert_eq!(after(|space| space.write("in/0.txt", "new")), (2, 4, 0), "a file");
    assert_eq!(after(|space| space.write("tools/a", "TOOL")), (6, 0, 0), "code");
    assert_eq!(after(|space| space.write("tools/b", "another")), (6, 0, 0), "more code");
    assert_eq!(after(|space| space.write("r.yaml", &RECIPE.replace("one }", "two }"))), (3, 3, 0), "the recipe");
    let cut = |space: &Space, stage: &str| {
        let path = blob(space, stage);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("it is ours");
        std::fs::write(path, "cut").expect("it can be written");
    };
    assert_eq!(after(|space| cut(space, "end")), (1, 5, 0), "a file of the workspace was cut");
    assert_eq!(after(|space| std::fs::remove_file(blob(space, "up")).expect("it is there")), (1, 5, 0), "or is gone");
    let tables = |space: &Space| std::fs::remove_dir_all(space.path(".effigy/tables")).expect("it is there");
    assert_eq!(after(tables), (0, 6, 0));
}

#[test]
fn it_rests_for_the_same_call_alone() {
    let space = start();
    let param = ["run", "r.yaml", "--json", "--param", "suffix=two"];
    assert_eq!(space.effigy(&param).counts(), (3, 3, 0));
    assert_eq!(space.effigy(&param).counts(), (0, 6, 0));
    let text = |space: &Space| std::fs::read_to_string(blob(space, "end")).expect("a text");
    assert!(text(&space).ends_with("two\n"));
    assert_eq!(space.run(), (0, 6, 0));
    assert!(text(&space).ends_with("one\n"), "the last run is the one that is shown");
    space.write("tools/a", "TOOL");
    space.effigy(&["run", "r.yaml", "--json", "--only", "up"]);
    assert_eq!(space.run().0, 3, "the other stage is still to be done");
    let plan = space.effigy(&["run", "r.yaml", "--dry-run"]);
    assert!(plan.out.contains("known"), "{}", plan.out);
}

#[test]
fn after_a_run_that_failed_it_rests_no_more() {
    let space = start();
    // what the programs ask for is no fact of theirs
    space.write("r.yaml", &RECIPE.replace("cat tools", "test ! -e broken && cat tools"));
    space.settle();
    assert_eq!(space.run(), (3, 3, 0));
    assert!(rests(&space));
    space.write("broken", "");
    assert_eq!(space.effigy(&["run", "r.yaml", "--force", "up"]).code, 1);
    assert!(!rests(&space), "the last run is one that failed");
    assert!(space.effigy(&["status"]).out.contains("r.yaml: failed"));
    assert_eq!(space.run(), (0, 6, 0));
    assert!(space.effigy(&["status"]).out.contains("r.yaml: done"));
}

#[test]
fn a_report_that_is_gone_is_written_again() {
    let space = start();
    std::fs::remove_file(space.path("out/report.html")).expect("it is there");
    assert_eq!(space.run(), (0, 6, 0));
    assert!(space.path("out/report.html").exists());
    assert_eq!(space.effigy(&["run", "r.yaml", "--json", "--out", "other"]).counts(), (0, 6, 0));
    assert!(space.path("other/report.html").exists());
}

#[test]
fn events_at_rest_are_those_of_a_run() {
    let space = start();
    let events = |said: Said| {
        let mut lines: Vec<serde_json::Value> =
            said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        for line in &mut lines {
            let line = line.as_object_mut().expect("an object");
            line.remove("seconds");
            line.remove("run");
        }
        lines
    };
    let rested = events(space.effigy(&["run", "r.yaml", "--json"]));
    std::fs::remove_dir_all(space.path(".effigy/runs")).expect("it is there");
    let looked = events(space.effigy(&["run", "r.yaml", "--json"]));
    assert_eq!(rested, looked);
}

#[test]
fn a_provider_that_changes_is_asked_again() {
    let space = Space::new();
    space.write("in/a.txt", "text");
    space.write("stages.sh", &format!("#!/bin/sh\nexec {} \"$@\"\n", provider()));
    std::fs::set_permissions(space.path("stages.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("ours");
    let log = space.path("ran.log").display().to_string();
    space.write(
        "r.yaml",
        &format!(
            "providers: [./stages.sh]\nstages:\n  src: {{ files: 'in/*.txt' }}\n  count: {{ stage: count, from: src, log: '{log}' }}\n"
        ),
    );
    space.settle();
    assert_eq!(space.run(), (1, 0, 0));
    assert!(rests(&space));
    assert_eq!(space.run(), (0, 1, 0));
    space.write("stages.sh", "#!/bin/sh\necho '{'\n");
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["is not understood"]);
}
