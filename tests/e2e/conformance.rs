//! `effigy provider check`: good providers conform, and one that breaks a rule is told which. And what a run makes of
//! each broken rule that a user can meet: one clear error.

use crate::support::{Said, Space, broken_provider, provider};
use serde_json::Value;

fn check(space: &Space, provider: &str, more: &[&str]) -> Said {
    space.effigy(&[&["provider", "check", provider, "--timeout", "2"][..], more].concat())
}

/// The findings that do not hold: what was to hold, and how it shows.
fn failures(said: &Said) -> Vec<(String, String)> {
    let lines = said.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let fails = lines.filter(|line| line["verdict"] == "fails");
    fails
        .inspect(|line| assert!(!text(&line["hint"]).is_empty(), "no hint: {line}"))
        .map(|line| (text(&line["what"]), text(&line["message"])))
        .collect()
}

#[test]
fn the_frame_for_stages_in_rust_conforms() {
    let space = Space::new();
    let log = ["count", "rank", "train", "split"].map(|kind| format!("{kind}.log={}", space.path("log").display()));
    let mut set: Vec<&str> = Vec::new();
    log.iter().for_each(|text| set.extend(["--set", text]));
    let said = check(&space, &provider(), &set);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    let last = said.out.lines().last().unwrap_or_default();
    assert!(last.ends_with("hold, 0 do not, 0 could not be seen"), "{}", said.out);
    let holds: usize = last.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    assert!(holds > 30, "{}", said.out);
}

#[test]
fn what_breaks_no_rule_conforms() {
    let space = Space::new();
    let said = check(&space, &broken_provider("none"), &[]);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    assert!(said.out.contains(" 0 do not, 0 could not be seen"), "{}", said.out);
}

#[test]
fn each_broken_rule_is_named() {
    let cases = [
        ("describe-changes", "it describes itself", "described itself in two ways"),
        ("describe-batch", "its description can be used", "`batch` is 0"),
        ("describe-files", "its description can be used", "`files` names `weights`"),
        ("describe-unit", "its description can be used", "the column `_unit`"),
        ("never-done", "is refused", "did not say `done` within 2 s"),
        ("dies-of-nonsense", "a task directory that is not there is refused", "ended in the middle of a task"),
        ("silent-failure", "cut short is refused", "nothing but `done`"),
        ("stays", "ends well when its input does", "still ran 2 s after its input was closed"),
        ("ends-badly", "ends well when its input does", "exit status: 7"),
        ("any-kind", "a stage that it does not have is refused", "delivered a part all the same"),
        ("any-version", "another version than its own is refused", "delivered a part all the same"),
        ("dies", "rows that were made up", "signal: 6"),
        ("hangs", "rows that were made up", "did not say `done` within 2 s"),
        ("closes", "rows that were made up", "closed its standard output"),
        ("prints", "rows that were made up", "a line that is no event: `loading the model ...`"),
        ("progress", "rows that were made up", "3 of 2 are done"),
        ("forgets-a-unit", "rows that were made up", "neither delivered unit 1 nor said that it failed"),
        ("wrong-unit", "rows that were made up", "is for unit 99, which is not in the task"),
        ("wrong-of", "rows that were made up", "has `_of` 5, but the unit has 1 rows"),
        ("other-column", "rows that were made up", "put out a column `z` that it does not declare"),
        ("missing-column", "rows that were made up", "declares the column `y` but did not put it out"),
        ("wrong-type", "rows that were made up", "declares the column `y` as i64 but put it out as str"),
        ("cut-part", "rows that were made up", "not a readable Arrow IPC file"),
        ("part-missing", "rows that were made up", "`out.00001.arrow`, which is no file of its task directory"),
        ("part-elsewhere", "rows that were made up", "`../part.arrow`, which is no file of its task directory"),
        ("no-file", "rows that were made up", "names the file out/nothing.txt, which is not there"),
        ("file-outside", "rows that were made up", "a file outside of the task directory: /etc/passwd"),
        ("file-climbs", "rows that were made up", "a file outside of the task directory"),
        ("twice", "rows that were made up", "delivered unit 0 twice"),
        ("neighbours", "do not depend on its neighbours", "came out with other rows when the unit came alone"),
        ("threads", "do not depend on its neighbours", "came out with other rows with two threads"),
        ("time", "do not depend on its neighbours", "came out with other rows when it was asked again"),
        ("dies-of-nulls", "rows of nulls are answered", "ended in the middle of a task"),
        ("empty-error", "rows of nulls are answered", "said `failed` without an error"),
    ];
    let space = Space::new();
    // each waits for a time that is long for a processor
    let checked: Vec<_> = std::thread::scope(|scope| {
        let one = |rule: &'static str| {
            let space = &space;
            scope.spawn(move || check(space, &broken_provider(rule), &["--json"]))
        };
        let handles: Vec<_> = cases.iter().map(|(rule, ..)| one(rule)).collect();
        handles.into_iter().map(|handle| handle.join().expect("no panic")).collect()
    });
    for ((rule, what, message), said) in cases.into_iter().zip(checked) {
        let failures = failures(&said);
        let found = failures.iter().any(|(w, m)| w.contains(what) && m.contains(message));
        assert!(found && said.code == 1, "{rule}: expected {what:?}: {message:?} among {failures:#?}\n{}", said.err);
    }
}

#[test]
fn a_description_that_cannot_be_used_is_one_error() {
    let space = Space::new();
    for (rule, parts) in [
        ("describe-text", &["is not understood", "one JSON object on standard output"][..]),
        ("describe-exit", &["does not describe itself (exit status: 3)", "cannot load my libraries"][..]),
        ("describe-protocol", &["version 9 of the protocol, not 1", "effigy is the older"][..]),
        ("describe-twice", &["its stage `double` twice"][..]),
        ("describe-hang", &["did not describe itself within 2 s"][..]),
    ] {
        let said = check(&space, &broken_provider(rule), &[]);
        said.expect_error(2, parts);
        assert!(said.err.contains("hint: "), "{}", said.err);
    }
    let said = check(&space, &provider(), &["--kind", "cuont"]);
    said.expect_error(2, &["no stage of kind `cuont`", "did you mean `count`?"]);
    check(&space, "no-such-program", &[]).expect_error(2, &["cannot be started", "is `no-such-program` installed?"]);
    check(&space, &provider(), &["--set", "log=x"]).expect_error(2, &["not of the form KIND.PARAMETER=VALUE"]);
}

#[test]
fn parameters_that_cannot_be_made_up_are_asked_for() {
    let space = Space::new();
    // a path that is no file of a folder: the stage can write no log there
    let said = check(&space, &provider(), &["--kind", "rank", "--set", "rank.log=/no/such/folder/log"]);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    assert!(said.out.contains("unseen rank") && said.out.contains("cannot open the log"), "{}", said.out);
}

/// What a run says when its provider breaks a rule.
fn run(rule: &str, more: &str) -> Said {
    let space = Space::new();
    let provider = broken_provider(rule);
    space.write(
        "r.yaml",
        &format!(
            "providers: ['{provider}']\nstages:\n  src: {{ rows: [ {{ x: 1 }}, {{ x: 2 }} ] }}\n  s: {{ stage: double, from: src{more} }}\n"
        ),
    );
    space.effigy(&["run", "r.yaml", "--jobs", "1"])
}

#[test]
fn a_run_with_a_broken_provider_is_one_clear_error() {
    assert_eq!(run("none", "").code, 0);
    assert_eq!(run("never-done", ", timeout: 0.5").code, 0, "what was delivered before it was stopped is good");
    for (rule, more, parts) in [
        ("dies", "", &["the worker was killed by signal 6 (aborted)", "last words"][..]),
        ("hangs", ", timeout: 0.5", &["longer than its `timeout` of 0.5 s"][..]),
        ("closes", "", &["the worker was killed by signal 9"][..]),
        ("missing-column", "", &["declares the column `y` but did not put it out"][..]),
        ("wrong-type", "", &["declares the column `y` as i64 but put it out as str"][..]),
        ("other-column", "", &["put out a column `z` that it does not declare"][..]),
        ("wrong-unit", "", &["is for unit 99, which is not in the task"][..]),
        ("no-file", "", &["names the file out/nothing.txt, which is not there"][..]),
        ("part-missing", "", &["cannot read out.00001.arrow"][..]),
        ("part-elsewhere", "", &["`../part.arrow`, which is no file of its task directory"][..]),
        ("cut-part", "", &["not a readable Arrow IPC file"][..]),
    ] {
        let said = run(rule, more);
        said.expect_error(1, &[&["error: stage `s`", "hint: "], parts].concat());
    }
}
