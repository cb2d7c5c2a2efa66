//! Kills, full disks, second processes: nothing finished is done again, and the tables are those of an undisturbed run.

use crate::support::{Space, interrupt, provider};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn waits_for(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn recipe(space: &Space) -> String {
    format!(
        "
providers: ['{}']
stages:
  src: {{ files: 'in/*.txt' }}
  slow: {{ run: 'sleep 0.03 && tr a-z A-Z < {{file}} > {{out}}/file && echo slow {{path}} >> ran.log', shell: true, from: src, writes: {{ file: blob }} }}
  count: {{ stage: count, from: slow, log: '{log}' }}
  bias: {{ rows: [{{ value: 1 , x: 0 }}, ] }}
  one: {{ select: bias, set: {{ value: 1.0 }} }}
  train: {{ stage: train, from: count, with: {{ bias: one }}, steps: 20, pause: 15, log: '{log}' }}
",
        provider(),
        log = space.path("ran.log").display()
    )
}

fn start() -> Space {
    let space = Space::new();
    for i in 0..12 {
        space.write(&format!("in/{i:02}.txt"), &"o".repeat(i + 1));
    }
    space.write("r.yaml", &recipe(&space));
    space.settle();
    space
}

fn tables(space: &Space) -> BTreeMap<&'static str, Vec<serde_json::Value>> {
    ["slow", "count", "train"].into_iter().map(|stage| (stage, space.rows(stage))).collect()
}

#[test]
fn killed_anywhere_it_goes_on_where_it_was() {
    let undisturbed = start();
    undisturbed.run();
    let expected = tables(&undisturbed);
    let steps = undisturbed.ran().len();

    let space = start();
    let log = || std::fs::read_to_string(space.path("ran.log")).unwrap_or_default();
    // in the middle of the programs, of the worker's rows, and twice of the training
    for (what, lines) in [("slow", 3), ("slow", 8), ("step", 4), ("step", 11)] {
        let mut child = space.start(&["run", "r.yaml", "--jobs", "2"]);
        waits_for(what, || log().lines().filter(|line| line.starts_with(what)).count() >= lines);
        child.kill().expect("it was running");
        child.wait().expect("it is over");
    }
    space.run();
    assert_eq!(tables(&space), expected);
    // at most what was in flight is done again: two tasks for each kill
    let ran = space.ran().len();
    assert!(ran >= steps && ran <= steps + 2 * 4, "{ran} units and steps against {steps} of an undisturbed run");
    assert_eq!(space.run().0, 0);
}

#[test]
fn a_killed_run_leaves_no_worker_behind() {
    let space = start();
    let mut child = space.start(&["run", "r.yaml"]);
    let log = || std::fs::read_to_string(space.path("ran.log")).unwrap_or_default();
    waits_for("training", || log().contains("step 2"));
    child.kill().expect("it was running");
    child.wait().expect("it is over");
    std::thread::sleep(Duration::from_millis(100));
    let then = log().lines().count();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(log().lines().count(), then, "an orphaned worker went on");
}

/// The processes whose command line holds this text.
fn alive(text: &str) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

#[test]
fn what_programs_have_started_ends_with_a_run_that_is_killed() {
    let space = Space::new();
    // seconds that no other process sleeps
    let seconds = format!("300.{}", std::process::id());
    let line = format!("sh -c \"sleep {seconds}; true\" & sleep {seconds}; true");
    let text = format!("stages:\n  a: {{ run: '{line}', shell: true, writes: {{ x: blob }} }}\n");
    space.write("r.yaml", &text);
    let mut child = space.start(&["run", "r.yaml"]);
    waits_for("two sleepers", || alive(&format!("sleep\0{seconds}")) == 2);
    child.kill().expect("it was running");
    child.wait().expect("it is over");
    waits_for("the end of what it had started", || alive(&seconds) == 0);
    // stopped in an orderly way nothing stays either
    let mut child = space.start(&["run", "r.yaml"]);
    waits_for("two sleepers", || alive(&format!("sleep\0{seconds}")) == 2);
    for _ in 0..2 {
        interrupt(&child);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    waits_for("the end of what it had started", || alive(&seconds) == 0);
}

#[test]
fn a_worker_that_dies_with_a_leaked_handle_takes_one_unit_with_it() {
    let space = start();
    space.write("in/05.txt", "xx");
    let text = space.read("r.yaml").replace("from: slow, log", "from: src, mishap: leak, log");
    space.write("r.yaml", &text);
    let began = Instant::now();
    let said = space.effigy(&["run", "r.yaml", "--json", "--only", "count"]);
    assert!(began.elapsed() < Duration::from_secs(15), "it waited for the handle");
    assert_eq!((said.code, said.counts()), (1, (11, 0, 1)), "{}\n{}", said.out, said.err);
    assert!(said.out.contains("signal 6"), "{}", said.out);
}

#[test]
fn a_second_process_is_told_who_is_at_work() {
    let space = start();
    let mut child = space.start(&["run", "r.yaml"]);
    waits_for("the first", || space.path("ran.log").exists());
    let said = space.effigy(&["run", "r.yaml"]);
    said.expect_error(2, &["in use by process", &child.id().to_string(), "--workspace"]);
    let status = space.effigy(&["status"]);
    assert!(status.out.contains("running: "), "{}", status.out);
    // in another workspace it may run at the same time
    assert_eq!(space.effigy(&["run", "r.yaml", "--only", "src", "--workspace", "other"]).code, 0);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn interrupted_once_it_finishes_what_has_begun() {
    let space = start();
    let mut child = space.start(&["run", "r.yaml"]);
    waits_for("the first", || space.path("ran.log").exists());
    interrupt(&child);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let ran = space.ran().len() as u64;
    assert!(ran < 12, "it drained instead of going on");
    let (executed, cached, _) = space.run();
    assert_eq!(cached, ran, "all that had begun was finished and kept");
    assert!(executed > 0);
}

/// Interrupts a run of the stage once the log has so many lines; what it came to, as it summed up.
fn interrupted(space: &Space, stage: &str, lines: usize) -> (u64, u64, u64) {
    let logged = || std::fs::read_to_string(space.path("ran.log")).unwrap_or_default().lines().count();
    let mut command = space.command(&["run", "r.yaml", "--json", "--jobs", "1", "--only", stage]);
    let child = command.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    waits_for("work", || logged() >= lines);
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    let out = String::from_utf8_lossy(&output.stdout);
    let done: serde_json::Value = serde_json::from_str(out.lines().last().expect("a sum")).expect("JSON");
    let count = |name: &str| done[name].as_u64().expect("a number");
    (count("executed"), count("cached"), count("failed"))
}

#[test]
fn interrupted_once_a_worker_stops_between_units() {
    let space = Space::new();
    let log = space.path("ran.log").display().to_string();
    space.write(
        "r.yaml",
        &format!(
            "providers: ['{}']\nstages:\n  ids: {{ stage: numbers, count: 160 }}\n  slow: {{ stage: on_gpu, from: ids, pause: 30, log: '{log}' }}\n",
            provider()
        ),
    );
    assert_eq!(space.effigy(&["run", "r.yaml", "--only", "ids"]).code, 0);
    let (executed, _, failed) = interrupted(&space, "slow", 4);
    let ended = space.ran().iter().filter(|line| line.starts_with("end")).count() as u64;
    assert!(failed == 0 && (1..30).contains(&executed), "it went on with its task: {executed} units");
    assert_eq!(executed, ended, "the unit in work was finished and kept");
    assert_eq!(space.run(), (160 - executed, 1 + executed, 0));
}

#[test]
fn interrupted_once_a_training_leaves_a_checkpoint() {
    let space = start();
    space.write("r.yaml", &space.read("r.yaml").replace("steps: 20, pause: 15", "steps: 100, pause: 60"));
    assert_eq!(space.effigy(&["run", "r.yaml", "--only", "count", "--only", "one"]).code, 0);
    space.ran();
    let steps = |lines: Vec<String>| lines.iter().filter(|line| line.starts_with("step")).count();
    let (executed, _, failed) = interrupted(&space, "train", 3);
    assert_eq!((executed, failed), (0, 0), "nothing is done, and nothing has failed");
    let before = steps(space.ran());
    assert!((3..50).contains(&before), "it went on to its end: {before} steps");
    let (executed, _, failed) = space.run();
    assert_eq!((executed, failed, before + steps(space.ran())), (1, 0, 100), "a step was done twice or not at all");
}

#[test]
fn a_check_that_is_interrupted_stops_soon_and_blames_nobody() {
    let space = start();
    space.write("r.yaml", &space.read("r.yaml").replace("steps: 20, pause: 15", "steps: 60, pause: 60"));
    space.run();
    space.ran();
    let command = &["run", "r.yaml", "--check", "--only", "train", "--jobs", "1"];
    let child = space.command(command).stderr(std::process::Stdio::piped()).spawn().expect("it starts");
    let steps = || std::fs::read_to_string(space.path("ran.log")).unwrap_or_default().matches("step").count();
    waits_for("steps", || steps() >= 3);
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(steps() < 40 && !err.contains("error"), "{} steps\n{err}", steps());
}

#[test]
fn a_full_disk_is_one_clear_error_and_loses_nothing() {
    let space = Space::new();
    for i in 0..4 {
        space.write(&format!("in/{i}.txt"), "x");
    }
    // no file may grow beyond 64 KiB: the big output cannot be written, as on a full disk
    space.write(
        "r.yaml",
        "
stages:
  src: { files: 'in/*.txt' }
  small: { run: 'echo {path} > {out}/file && echo small >> ran.log', shell: true, from: src, writes: { file: blob } }
  big: { run: 'head -c 200000 /dev/zero > {out}/file # {path}', shell: true, from: small, writes: { file: blob } }
",
    );
    space.settle();
    let program = env!("CARGO_BIN_EXE_effigy");
    let limited = format!("trap '' XFSZ; ulimit -f 128; exec {program} run r.yaml");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &limited]).current_dir(space.path("")).env_clear().env("PATH", "/usr/bin:/bin");
    let output = command.output().expect("it starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("stage `big`") || err.contains("hint: make room"), "{err}");
    space.ran();
    assert_eq!(space.run(), (4, 4, 0), "what was finished is kept");
    assert!(space.ran().is_empty());
}

#[test]
fn a_damaged_index_is_made_anew_and_said_once() {
    let space = start();
    space.run();
    space.ran();
    for entry in std::fs::read_dir(space.path(".effigy/index")).expect("it is there") {
        let path = entry.expect("it can be read").path();
        if path.is_file() {
            let len = std::fs::metadata(&path).expect("it is there").len() as usize;
            std::fs::write(&path, vec![0xff; len]).expect("a file");
        }
    }
    // without the memory of the last run every unit has to be looked up
    std::fs::remove_dir_all(space.path(".effigy/runs")).expect("it is there");
    let said = space.effigy(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(said.err.matches("the index was damaged").count(), 1, "{}", said.err);
    assert!(space.ran().is_empty(), "nothing was lost");
    assert!(!space.effigy(&["run", "r.yaml"]).err.contains("damaged"));
}

#[test]
fn an_input_that_changes_while_it_is_read_gives_no_wrong_result() {
    let space = Space::new();
    space.write("in/a.txt", "old");
    space.write(
        "r.yaml",
        "
stages:
  src: { files: 'in/*.txt' }
  copy: { run: 'test -e calm || echo newer > in/a.txt; cat {file} > {out}/file', shell: true, from: src, writes: { file: blob } }
",
    );
    space.settle();
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["in/a.txt changed while it was being read", "run again"]);
    space.write("calm", "");
    assert_eq!(space.run(), (1, 0, 0));
    assert_eq!(space.file("copy", 0, "file"), "newer\n");
}

#[test]
fn a_task_that_takes_more_memory_than_it_may_is_stopped_alone() {
    let space = Space::new();
    let line = r#"test {n} != 2 || { x=$(head -c 300000000 /dev/zero | tr "\\0" x); sleep 20; }; echo {n} > {out}/x"#;
    let text = "
stages:
  src: { rows: [{ n: 1 }, { n: 2 }, { n: 3 }] }
  work: { run: 'LINE', shell: true, from: src, writes: { x: blob }, needs: { memory_mb: 100 } }
";
    // braces that are the shell's own are doubled
    let line = line.replace("|| {", "|| {{").replace("; };", "; }};");
    space.write("r.yaml", &text.replace("LINE", &line));
    let began = Instant::now();
    let said = space.effigy(&["run", "r.yaml", "--json"]);
    assert_eq!((said.code, said.counts()), (1, (2, 0, 1)), "{}\n{}", said.out, said.err);
    assert!(
        said.out.contains("more than the 100 MB") && said.out.contains("raise `needs: { memory_mb: N }`"),
        "{}",
        said.out
    );
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[test]
fn logs_of_a_stage_are_shown_by_row() {
    let space = Space::new();
    let text = "
stages:
  src: { rows: [{ n: 1 }, { n: 2 }, { n: 3 }] }
  work: { run: 'echo said {n}; test {n} != 2; echo {n} > {out}/x', shell: true, from: src, writes: { x: blob } }
";
    space.write("r.yaml", &text.replace("test {n} != 2;", "test {n} != 2 &&"));
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 1);
    for row in 0..3 {
        let said = space.effigy(&["log", "work", &row.to_string()]);
        let (words, told) = said.out.split_once('\n').expect("a line");
        assert_eq!((said.code, words), (0, format!("said {}", row + 1).as_str()), "{}", said.err);
        // what failed has beside its words what the run said of it
        assert_eq!(
            told.contains("error: the program exited with code 1") && told.contains("hint: "),
            row == 1,
            "{told}"
        );
    }
    assert_eq!(space.effigy(&["log", "work"]).out.lines().filter(|line| line.starts_with("== row")).count(), 3);
    space.effigy(&["log", "work", "7"]).expect_error(2, &["row 7", "has left no log", "hint: "]);
}

#[test]
fn a_damaged_head_of_the_journal_is_seen_and_takes_no_unit_along() {
    let space = start();
    space.run();
    space.ran();
    let path = space.path(".effigy/records/00000001.journal");
    let mut bytes = std::fs::read(&path).expect("it is there");
    // behind the length and the checksum of the first record
    bytes[14] ^= 1;
    std::fs::write(&path, bytes).expect("it is ours");
    // without these the journal itself is all there is
    for folder in ["index", "runs"] {
        std::fs::remove_dir_all(space.path(".effigy").join(folder)).expect("it is there");
    }
    let verify = || space.effigy(&["cache", "verify"]);
    let said = verify();
    assert!(said.code == 1 && said.out.contains("bytes from 0 on are no record"), "{}", said.out);
    let (executed, known, _) = space.run();
    assert!(executed == 0 && known > 0 && space.ran().is_empty(), "{executed} units were computed again");
    assert_eq!(space.effigy(&["cache", "verify", "--discard"]).code, 0);
    assert_eq!(verify().code, 0);
    assert_eq!(space.run().0, 0);
}

#[test]
fn a_run_that_was_killed_is_told_as_one_without_an_end() {
    let space = Space::new();
    let text = "
stages:
  src: { rows: [{ n: 1 }, { n: 2 }] }
  slow: { run: 'echo {n} >> ran.log; test {n} = 1 || test -e go || sleep 20; echo {n} > {out}/x', shell: true, from: src, writes: { x: blob } }
";
    space.write("r.yaml", text);
    let mut child = space.start(&["run", "r.yaml", "--jobs", "1"]);
    let log = || std::fs::read_to_string(space.path("ran.log")).unwrap_or_default();
    waits_for("the second unit", || log().lines().count() == 2);
    let status = || space.effigy(&["status"]).out;
    assert!(!status().contains("not on record"), "it is on: {}", status());
    child.kill().expect("it was running");
    child.wait().expect("it is over");
    let text = status();
    for part in [
        "r.yaml: began at ",
        "its end is not on record (killed?)",
        " of it is kept",
        "`effigy run r.yaml`, with the options that it had",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("nothing has been run"), "{text}");
    assert!(space.effigy(&["log"]).out.contains("  not ended   r.yaml  "), "{}", space.effigy(&["log"]).out);
    let json = space.effigy(&["status", "--json"]).json();
    assert_eq!(
        (&json["unended"][0]["outcome"], &json["unended"][0]["executed"]),
        (&"not ended".into(), &1.into()),
        "{json}"
    );
    // the next run has gone on with it
    space.write("go", "");
    let (executed, known, _) = space.run();
    assert_eq!(executed + known, 2);
    assert!(status().starts_with("r.yaml: done at ") && !status().contains("not on record"), "{}", status());
}

#[test]
fn whoever_interrupts_while_a_file_is_read_begins_nothing_more() {
    let space = Space::new();
    // a hole that takes some seconds to read
    let file = std::fs::File::create(space.path("big.bin")).expect("a file");
    file.set_len(1 << 30).expect("a hole");
    let text = "stages:\n  big: { files: big.bin }\n  after: { run: 'echo ran >> ran.log', shell: true, from: big, writes: {} }\n";
    space.write("r.yaml", text);
    let mut child = space.start(&["run", "r.yaml"]);
    waits_for("the lock", || space.path(".effigy/lock").exists());
    std::thread::sleep(Duration::from_millis(200));
    interrupt(&child);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(space.ran().is_empty(), "nothing that had not begun");
}

#[test]
fn whoever_interrupts_a_third_time_waits_for_no_file() {
    let space = Space::new();
    // a hole of a terabyte takes an hour to read
    let file = std::fs::File::create(space.path("big.bin")).expect("a file");
    file.set_len(1 << 40).expect("a hole");
    space.write("r.yaml", "stages:\n  big: { files: big.bin }\n  after: { rows: [{ x: 1 }] }\n");
    let mut child = space.start(&["run", "r.yaml"]);
    waits_for("the lock", || space.path(".effigy/lock").exists());
    std::thread::sleep(Duration::from_millis(200));
    for _ in 0..3 {
        interrupt(&child);
        std::thread::sleep(Duration::from_millis(50));
    }
    let since = Instant::now();
    let ended = loop {
        match child.try_wait().expect("it was started") {
            None if since.elapsed() < Duration::from_secs(30) => std::thread::sleep(Duration::from_millis(5)),
            ended => break ended,
        }
    };
    let _ = child.kill();
    assert_eq!(ended.and_then(|status| status.code()), Some(130), "it ends at once");
}
