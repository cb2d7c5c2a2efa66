//! Stages of a provider: grains, constants, parts, failures, and how its description is remembered.

use crate::support::{Space, provider};
use std::os::unix::fs::PermissionsExt;

fn recipe(count: &str, more: &str) -> String {
    format!(
        "
providers: [\"{}\"]
params: {{ steps: 4 }}
stages:
  src: {{ files: \"in/*.txt\" }}
  bias: {{ rows: [{{ value: 0.5, unread: 1 }}] }}
  count: {{ stage: count, from: src, log: '{{LOG}}'{count} }}
  sides: {{ select: count, set: {{ side: left }}, overrides: [{{ where: {{ path: in/0.txt }}, set: {{ side: right }} }}] }}
  rank: {{ stage: rank, from: sides, by: [side], log: '{{LOG}}' }}
  train: {{ stage: train, from: count, with: {{ bias: bias }}, steps: '${{steps}}', log: '{{LOG}}' }}
{more}",
        provider()
    )
}

fn start(count: &str, more: &str) -> Space {
    let space = Space::new();
    for i in 0..6 {
        space.write(&format!("in/{i}.txt"), &"o".repeat(i + 1));
    }
    write(&space, count, more);
    space.settle();
    space
}

fn write(space: &Space, count: &str, more: &str) {
    let log = space.path("ran.log").display().to_string();
    space.write("r.yaml", &recipe(count, more).replace("{LOG}", &log));
}

#[test]
fn all_grains_and_a_second_run_that_does_nothing() {
    let space = start("", "");
    assert_eq!(space.run(), (9, 0, 0));
    assert_eq!(space.ran().len(), 6 + 2 + 4);
    assert_eq!(space.run(), (0, 9, 0));
    assert!(space.ran().is_empty());
    assert_eq!(space.rows("train")[0]["total"], f64::from((1 + 2 + 3 + 4 + 5 + 6) * 4) + 0.5);
    let ranks: Vec<_> = space.rows("rank").iter().map(|row| row["rank"].as_i64().expect("a number")).collect();
    assert_eq!(ranks, [0, 0, 1, 2, 3, 4], "rows of a group extend its input rows, in the input's order");
    assert_eq!(space.rows("rank")[1]["both"][0], 2.0);
}

#[test]
fn a_worker_that_leaves_after_each_task_fails_nothing() {
    let space = start("", "  each: { stage: rank, from: count, by: [path], log: '{LOG}' }\n");
    // the second task may already lie in the pipe when it leaves
    let script = "#!/bin/sh\nif [ \"$1\" != worker ]; then exec PROVIDER \"$@\"; fi\nIFS= read -r task && echo \"$task\" | PROVIDER worker\nsleep 0.1\n";
    space.write("one.sh", &script.replace("PROVIDER", &provider()));
    std::fs::set_permissions(space.path("one.sh"), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    space.write("r.yaml", &space.read("r.yaml").replace(&provider(), "./one.sh"));
    assert_eq!(space.run(), (14, 1, 0), "one of the groups is the same as in `rank`");
    assert_eq!(space.ran().len(), 6 + 2 + 4 + 5, "and none of it is done twice");
    let check = space.effigy(&["run", "r.yaml", "--check=1"]);
    assert_eq!(check.code, 0, "{}{}", check.out, check.err);
}

#[test]
fn a_worker_that_crashes_takes_its_task_along_and_is_told_of() {
    let space = Space::new();
    let script = "#!/bin/sh\nif [ \"$1\" != worker ]; then exec PROVIDER \"$@\"; fi\nIFS= read -r task && echo \"$task\" | PROVIDER worker\nIFS= read -r task && kill -SEGV $$\n";
    space.write("two.sh", &script.replace("PROVIDER", &provider()));
    std::fs::set_permissions(space.path("two.sh"), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let rows: Vec<String> = (0..4).map(|n| format!("{{ n: {n}, letters: {n}.5 }}")).collect();
    let log = space.path("ran.log");
    let rank = format!("  rank: {{ stage: rank, from: src, by: [n], log: '{}' }}\n", log.display());
    space.write("r.yaml", &format!("providers: [./two.sh]\nstages:\n  src: {{ rows: [{}] }}\n{rank}", rows.join(", ")));
    let said = space.effigy(&["run", "r.yaml", "--jobs", "1", "--json"]);
    // each worker does one task and crashes over the next, which is not quietly given to another
    assert_eq!((said.code, said.counts()), (1, (2, 0, 2)), "{}{}", said.out, said.err);
    assert!(said.out.contains("signal 11"), "{}{}", said.out, said.err);
    // another worker does what one has crashed over
    space.write("r.yaml", &space.read("r.yaml").replace("by: [n]", "by: [n], retries: 1"));
    assert_eq!(space.run(), (2, 2, 0));
}

#[test]
fn a_unit_that_a_worker_fails_is_tried_again() {
    let space = start(", mishap: error, retries: 2", "");
    space.write("in/3.txt", "ox");
    let said = space.effigy(&["run", "r.yaml", "--json"]);
    let retries: Vec<u64> = said
        .out
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|event| event["event"] == "retry")
        .map(|event| event["retry"].as_u64().expect("a number"))
        .collect();
    assert_eq!((said.code, retries), (1, vec![1, 2]), "{}", said.out);
}

#[test]
fn parameters_constants_and_files_are_facts() {
    let space = start("", "");
    space.run();
    space.ran();
    let set = |what: &str| space.effigy(&["run", "r.yaml", "--json", "--set", what]).counts();
    assert_eq!(set("train.steps=5"), (1, 8, 0));
    assert_eq!(set("bias.rows=[{value: 0.5, unread: 2}]"), (0, 9, 0), "a column that is not read of a constant");
    assert_eq!(set("bias.rows=[{value: 1.5, unread: 1}]"), (1, 8, 0));
    assert_eq!(set("count.factor=1"), (0, 9, 0), "a parameter set to its default");
    assert_eq!(set("count.factor=2"), (9, 0, 0));
    space.write("words.txt", "abc");
    space.settle();
    assert_eq!(set("count.words=words.txt"), (9, 0, 0));
    space.write("other/words.txt", "abc");
    space.settle();
    assert_eq!(set("count.words=other/words.txt"), (0, 9, 0), "the same content elsewhere");
}

#[test]
fn rows_fan_out_and_are_dropped() {
    let space = start("", "  words: { stage: split, from: src, log: '{LOG}' }\n");
    space.write("in/1.txt", "two words");
    space.write("in/2.txt", "");
    space.run();
    let rows = space.rows("words");
    let of = |name: &str| rows.iter().filter(|row| row["path"] == name).count();
    assert_eq!((of("in/1.txt"), of("in/2.txt"), of("in/0.txt")), (2, 0, 1));
    assert_eq!(space.run().0, 0, "a unit without rows is known as well");
}

#[test]
fn a_unit_that_fails_does_not_take_the_others_with_it() {
    for (mishap, words) in [
        ("error", vec!["there is an x in it"]),
        ("panic", vec!["panicked", "an x makes me panic"]),
        ("abort", vec!["killed by signal 6", "last words of the worker"]),
    ] {
        let space = start(&format!(", mishap: {mishap}"), "");
        space.write("in/3.txt", "x");
        let said = space.effigy(&["run", "r.yaml"]);
        said.expect_error(1, &[&["stage `count`", "in/3.txt"][..], &words[..]].concat());
        assert_eq!(said.err.matches("error: stage").count(), 1, "one clear message: {}", said.err);
        assert!(said.err.contains("skipped, because"), "{}", said.err);
        let mut ran = space.ran();
        ran.dedup();
        assert_eq!(ran.len(), 5, "{mishap}: the others were finished: {ran:?}");
        // the next run tries only what failed
        space.write("in/3.txt", "good");
        assert_eq!(space.run(), (1 + 2 + 1, 5, 0), "{mishap}");
    }
}

#[test]
fn a_no_op_run_starts_no_provider() {
    let space = start("", "");
    let script = |end: &str| format!("#!/bin/sh\necho $1 >> '{}'\n{end}\n", space.path("starts.log").display());
    space.write("my-provider", &script(&format!("exec {} \"$@\"", provider())));
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(space.path("my-provider"), executable).expect("permissions");
    space.write("r.yaml", &space.read("r.yaml").replace(&provider(), "./my-provider"));
    space.settle();
    space.run();
    let starts = space.read("starts.log");
    assert_eq!(starts.matches("describe").count(), 1, "{starts}");
    assert!((1..=2).contains(&starts.matches("worker").count()), "workers are kept alive: {starts}");
    assert_eq!(space.run(), (0, 9, 0));
    assert_eq!(space.read("starts.log"), starts);
    space.write("my-provider", &script("exit 3"));
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["does not describe itself", "exit status: 3"]);
}

/// A recipe of one stage, over files that are there, of a provider that [`serves`] writes.
fn of_script(stage: &str) -> Space {
    let space = Space::new();
    for (name, text) in [("a", "one two"), ("b", "three")] {
        space.write(&format!("in/{name}.txt"), text);
    }
    let log = space.path("ran.log").display().to_string();
    space.write(
        "r.yaml",
        &format!(
            "
providers: [./my-provider]
stages:
  src: {{ files: 'in/*.txt' }}
  s: {{ stage: {stage}, from: src, log: '{log}' }}
"
        ),
    );
    space
}

/// Writes the provider: the test provider, whose description goes through the program `edit`.
fn serves(space: &Space, begin: &str, edit: &str) {
    let inner = provider();
    let describe = format!("{inner} describe | {edit}");
    let script = format!("#!/bin/sh\n{begin}\nif [ $1 = describe ]; then {describe}; else exec {inner} \"$@\"; fi\n");
    space.write("my-provider", &script);
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(space.path("my-provider"), executable).expect("permissions");
    space.settle();
}

const VERSION: &str = ". ./version.sh; export COUNT_VERSION=$version";

#[test]
fn a_version_that_a_worker_refuses_is_asked_for_again() {
    let space = of_script("count");
    space.write("version.sh", "version=1\n");
    serves(&space, VERSION, "cat");
    assert_eq!(space.run(), (2, 0, 0));
    // the script itself is as it was, so nobody knows
    space.write("version.sh", "version=2\n");
    space.write("in/c.txt", "four");
    space.settle();
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["asked for version 1 of `count`, this provider has 2"]);
    assert_eq!(space.run(), (3, 0, 0), "the next run knows");
    assert_eq!(space.run(), (0, 3, 0));
}

#[test]
fn a_provider_lists_the_files_that_its_stages_lie_in() {
    let space = of_script("count");
    space.write("version.sh", "version=1\n");
    serves(&space, VERSION, "sed 's/\"protocol\": 1,/\"protocol\": 1, \"files\": [\"version.sh\"],/'");
    assert_eq!(space.run(), (2, 0, 0));
    assert_eq!(space.run(), (0, 2, 0));
    space.write("version.sh", "version=2\n");
    space.settle();
    assert_eq!(space.run(), (2, 0, 0), "it is asked again at once");
    std::fs::remove_file(space.path("version.sh")).expect("it is there");
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["does not describe itself"]);
}

#[test]
fn columns_that_are_declared_otherwise_take_no_value_of_another() {
    let space = of_script("split");
    let (word, place) = (r#"{"name":"word","type":"str"}"#, r#"{"name":"place","type":"i64"}"#);
    let declares = |columns: &str| {
        serves(&space, "", &format!("tr -d ' \\n' | sed 's/{word},{place}/{columns}/'"));
        // units are looked up, and not taken from the last run's table
        let _ = std::fs::remove_dir_all(space.path(".effigy/runs"));
    };
    declares(&format!("{word},{place}"));
    assert_eq!(space.run(), (2, 0, 0));
    let rows = space.rows("s");
    declares(&format!("{place},{word}"));
    assert_eq!(space.run(), (0, 2, 0), "the same columns in another order");
    let others = space.rows("s");
    for (name, value) in [("word", "two".into()), ("place", serde_json::json!(1))] {
        assert_eq!((&rows[1][name], &others[1][name]), (&value, &value));
    }
    declares(&format!(r#"{word},{place},{{"name":"more","type":"f64"}}"#));
    let plan = space.effigy(&["plan", "r.yaml", "--json"]).json();
    assert_eq!((plan["hits"].as_u64(), plan["misses"].as_u64()), (Some(0), Some(2)), "nobody has put that out");
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["declares the column `more` but did not put it out"]);
}
