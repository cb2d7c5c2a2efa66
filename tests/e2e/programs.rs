//! `run:`: anybody's programs, and the engine's own tables around them.

use crate::support::Space;

#[test]
fn columns_are_renamed_all_at_once() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "stages:
  a: { rows: [ { x: 1, y: two } ] }
  b: { select: a, rename: { y: x, x: y } }
  c: { select: b, where: { x: two }, columns: [y] }
",
    );
    let said = space.effigy(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let show = |stage: &str| space.effigy(&["show", "r.yaml", stage, "--json"]).out;
    assert_eq!((show("b").trim(), show("c").trim()), (r#"{"y":1,"x":"two"}"#, r#"{"y":1}"#));
}

#[test]
fn a_program_runs_for_each_row_and_gets_values_and_paths() {
    let space = Space::new();
    space.write("in/a.txt", "hello\n");
    space.write("in/b c.txt", "world\n");
    space.write(
        "r.yaml",
        "
stages:
  src: { files: \"in/*.txt\" }
  upper: { run: \"tr a-z A-Z < {file} > {out}/file.txt\", shell: true, from: src, writes: { file: blob } }
  named: { run: [cp, '{file}', '{out}/copy'], from: upper, writes: { copy: blob } }
",
    );
    assert_eq!(space.run(), (4, 0, 0));
    assert_eq!(space.file("upper", 1, "file"), "WORLD\n");
    assert_eq!(space.file("named", 0, "copy"), "HELLO\n");
    let rows = space.rows("named");
    assert_eq!((rows.len(), rows[1]["path"].as_str()), (2, Some("in/b c.txt")));
}

#[test]
fn a_program_without_rows_runs_once() {
    let space = Space::new();
    space.write("r.yaml", "stages: { now: { run: 'echo once > {out}/page', shell: true, writes: { page: blob } } }");
    assert_eq!(space.run(), (1, 0, 0));
    assert_eq!(space.run(), (0, 1, 0));
    assert_eq!(space.file("now", 0, "page"), "once\n");
}

#[test]
fn a_program_of_several_rows_gets_all_their_files() {
    let space = Space::new();
    for name in ["a", "b", "c"] {
        space.write(&format!("in/{name}"), name);
    }
    space.write(
        "r.yaml",
        "
stages:
  src: { files: \"in/*\" }
  side: { select: src, set: { side: left }, overrides: [{ where: { path: in/c }, set: { side: right } }] }
  both: { run: \"cat {file} > {out}/all\", shell: true, from: side, grain: group, by: side, writes: { all: blob } }
  words: { run: [sh, -c, 'cat \"$@\" > \"$0\"', '{out}/all', '{file}'], from: src, grain: whole, writes: { all: blob } }
",
    );
    assert_eq!(space.run(), (3, 0, 0));
    let rows = space.rows("both");
    let sides: Vec<_> = rows.iter().map(|row| row["side"].as_str().expect("text")).collect();
    assert_eq!(sides, ["left", "right"], "a row that stands alone carries its group");
    assert_eq!((space.file("both", 0, "all"), space.file("words", 0, "all")), ("ab".into(), "abc".into()));
}

#[test]
fn parameters_and_constants_reach_a_program() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "
params: { n: 3 }
stages:
  few: { rows: [ { x: 1 }, { x: 2 } ] }
  one: { run: \"cat {params} > {out}/seen && test -s {with.table} && echo {param.n} >> {out}/seen\", shell: true,
         with: { table: few }, params: { n: \"${n}\", word: a }, writes: { seen: blob } }
",
    );
    assert_eq!(space.run(), (1, 0, 0));
    let seen = space.file("one", 0, "seen");
    assert!(seen.contains("\"n\": 3") && seen.contains("\"word\": \"a\"") && seen.ends_with("3\n"), "{seen}");
    let said = space.effigy(&["run", "r.yaml", "--json", "--param", "n=4"]);
    assert_eq!(said.counts(), (1, 0, 0));
    let said = space.effigy(&["run", "r.yaml", "--json", "--set", "few.rows=[{x: 1}, {x: 5}]"]);
    assert_eq!(said.counts(), (1, 0, 0), "a constant's rows are a fact");
}

#[test]
fn what_a_program_does_to_its_constants_no_other_stage_sees() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "
stages:
  made: { run: 'echo content > {out}/file.txt', shell: true, writes: { file: blob } }
  spoils: { run: 'for file in $(dirname {with.c})/blobs/*; do rm $file; echo spoilt > $file; done; rm {with.c}; echo {with.c} > {out}/table',
            shell: true, with: { c: made }, writes: { table: blob } }
  reads: { run: 'cat $(dirname {with.c})/blobs/* > {out}/seen && test -s {with.c}', shell: true, from: spoils, with: { c: made },
           writes: { seen: blob } }
",
    );
    assert_eq!(space.run(), (3, 0, 0));
    assert_eq!(space.file("reads", 0, "seen"), "content\n");
    assert_eq!(space.file("made", 0, "file"), "content\n");
}

#[test]
fn rows_that_hand_on_one_file_all_have_it() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "
stages:
  made: { run: 'echo content > {out}/file.txt', shell: true, writes: { file: blob } }
  handed: { run: 'ln {file} {out}/first.txt && cp -l {file} {out}/second.txt', shell: true, from: made, writes: { first: blob, second: blob } }
",
    );
    assert_eq!(space.run(), (2, 0, 0));
    assert_eq!(["first", "second"].map(|column| space.file("handed", 0, column)), ["content\n", "content\n"]);
    assert_eq!(space.effigy(&["cache", "verify"]).code, 0);
}

#[test]
fn tables_are_chosen_from_and_put_together() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "
stages:
  a: { rows: [ { k: x, n: 1 }, { k: x, n: 2 }, { k: x, n: 3 }, { k: y, n: 4 }, { k: y, n: 5 } ] }
  b: { rows: [ { k: x, w: 0.5 }, { k: y, w: 2 } ] }
  odd: { select: a, every: 2, by: k, rename: { number: n }, set: { who: me } }
  joined: { join: [a, b], on: k }
  distinct: { select: a, distinct: k, columns: [k] }
  both: { concat: [a, b], label: { column: from, values: [a, b] } }
",
    );
    assert_eq!(space.run(), (0, 0, 0));
    let numbers: Vec<_> = space.rows("odd").iter().map(|row| row["number"].as_i64().expect("a number")).collect();
    assert_eq!(numbers, [1, 3, 4]);
    assert_eq!(space.rows("joined")[3]["w"], 2.0);
    assert_eq!(space.rows("distinct").len(), 2);
    let both = space.rows("both");
    assert_eq!((both.len(), &both[5]["from"], both[5]["n"].is_null()), (7, &"b".into(), true));
}

#[test]
fn allowed_failures_leave_their_rows_out_and_are_tried_again() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "
stages:
  src: { rows: [ { x: 1 }, { x: 2 }, { x: 3 }, { x: 4 } ] }
  some: { run: \"test {x} != 3 -o -e good && echo {x} > {out}/y\", shell: true, from: src, writes: { y: blob }, allow_failures: 0.25 }
",
    );
    let said = space.effigy(&["run", "r.yaml", "--json"]);
    assert_eq!((said.code, said.counts()), (0, (3, 0, 1)));
    assert_eq!(space.rows("src").len(), 4);
    space.write("good", "");
    assert_eq!(space.run(), (1, 3, 0));
    assert_eq!(space.rows("some").len(), 4);
}

/// A program that fails twice and then does its work, as often as its stage has it tried again.
#[test]
fn what_fails_is_tried_again_as_often_as_its_stage_says() {
    let space = Space::new();
    let program = "#!/bin/sh\necho try >> $1.tries\ntries=$(wc -l < $1.tries)\necho this is try $tries >&2\n\
                   test $tries -ge 3 || exit 7\ncp $1.tries $2/y\n";
    space.write("flaky.sh", program);
    let recipe = |retries: &str| {
        format!(
            "stages:
  src: {{ rows: [ {{ x: 1 }} ] }}
  some: {{ run: 'sh flaky.sh {{x}} {{out}}', from: src, writes: {{ y: blob }}, code: [flaky.sh]{retries} }}
  table: {{ run: 'sh flaky.sh table {{out}} {{in}}', from: src, grain: whole, writes: {{ y: blob }}, code: [flaky.sh], retries: 2 }}
"
        )
    };
    space.write("r.yaml", &recipe(", retries: 1"));
    let said = space.effigy(&["run", "r.yaml", "--jobs", "1"]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    let again = said.err.lines().filter(|line| line.contains("it is tried again")).collect::<Vec<_>>();
    assert_eq!(again.len(), 1 + 2, "{}", said.err);
    assert!(
        again
            .iter()
            .any(|line| line.contains("some, x=1: the program exited with code 7; it is tried again (1 of 1); log: "))
    );
    assert_eq!(space.read("1.tries").lines().count(), 2);
    let log = space.effigy(&["log", "some", "0"]).out;
    let first = log.find("this is try 1").expect("the log of the first try is kept");
    assert!(log.find("this is try 2").is_some_and(|second| second > first), "{log}");
    // how often is no fact: what was made is known, and what failed fails twice as always
    std::fs::remove_file(space.path("1.tries")).expect("it was tried");
    space.write("r.yaml", &recipe(", retries: 2"));
    assert_eq!(space.run(), (1, 1, 0));
    assert_eq!((space.file("some", 0, "y"), space.file("table", 0, "y")), ("try\n".repeat(3), "try\n".repeat(3)));
    let log = space.effigy(&["log", "some", "0"]).out;
    assert!((1..=3).all(|n| log.contains(&format!("this is try {n}"))), "{log}");
    space.write("r.yaml", &recipe(""));
    assert_eq!(space.run(), (0, 2, 0));
    space.write("r.yaml", &recipe(", retries: -1"));
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["r.yaml:3", "`retries`", "hint:"]);
}

#[test]
fn where_all_fail_few_are_tried_as_often_as_may_be() {
    let space = Space::new();
    let rows: Vec<String> = (1..=60).map(|x| format!("{{ x: {x} }}")).collect();
    let stage = "{ run: 'echo {x} >> tries; exit 7', shell: true, from: src, writes: { y: blob }, retries: 2 }";
    space.write("r.yaml", &format!("stages:\n  src: {{ rows: [{}] }}\n  some: {stage}\n", rows.join(", ")));
    let said = space.effigy(&["run", "r.yaml", "--jobs", "2"]);
    said.expect_error(1, &["failed and none succeeded; the other "]);
    let tries = space.read("tries").lines().count();
    assert!((15..=3 * (5 + 2)).contains(&tries), "{tries} tries");
}

#[test]
fn nothing_is_tried_again_once_a_run_ends() {
    let space = Space::new();
    let stage = "run: 'touch begun; until test -e go; do sleep 0.05; done; sleep 1; exit 7', shell: true";
    let slow = format!("  slow: {{ {stage}, writes: {{ y: blob }}, retries: 3 }}\n");
    let quick = "  quick: { run: 'until test -e begun; do sleep 0.05; done; touch go; exit 8', shell: true, writes: { y: blob } }\n";
    space.write("r.yaml", &format!("stages:\n{slow}{quick}"));
    let said = space.effigy(&["run", "r.yaml", "--fail-fast", "--jobs", "2"]);
    said.expect_error(1, &["exited with code 8", "exited with code 7"]);
    assert!(!said.err.contains("tried again"), "{}", said.err);
    // nor once it was asked to stop
    ["begun", "go"].iter().for_each(|name| std::fs::remove_file(space.path(name)).expect("it was made"));
    space.write("r.yaml", &format!("stages:\n{slow}"));
    let mut command = space.command(&["run", "r.yaml"]);
    let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn();
    let child = child.expect("it starts");
    while !space.path("begun").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().expect("it starts").success());
    space.write("go", "");
    let said = child.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(!err.contains("tried again") && !err.contains("error:"), "{err}");
}

#[test]
fn what_no_other_try_would_mend_is_not_tried_again() {
    let space = Space::new();
    let stage =
        |run: &str| format!("stages: {{ s: {{ run: {run}, shell: true, writes: {{ y: blob }}, retries: 3 }} }}");
    space.write("r.yaml", &stage("'echo try >> tries'"));
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["wrote no file {out}/y"]);
    assert_eq!(space.read("tries"), "try\n", "it ended well and put out the wrong thing");
    space.write("r.yaml", &stage("'./no/such/program'").replace("shell: true", "version: 2"));
    let said = space.effigy(&["run", "r.yaml"]);
    said.expect_error(1, &["cannot be started"]);
    assert!(!said.err.contains("tried again"), "{}", said.err);
    space.write("r.yaml", &stage("'echo try >> killed; kill -9 $$'"));
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["signal 9", "it is tried again (3 of 3)"]);
    assert_eq!(space.read("killed"), "try\n".repeat(4));
}

/// As clouds of points of one's own take the place of stereo: by sequence and timestep, whatever the files are called.
#[test]
fn columns_are_read_off_paths() {
    let space = Space::new();
    for (sequence, timestep) in [("EXP-1-head", 2), ("EXP-1-head", 10), ("FREE", 0)] {
        space.write(&format!("clouds/{sequence}/frame_{timestep:05}.ply"), &format!("{sequence} {timestep}"));
    }
    let recipe = "
stages:
  clouds: { files: \"clouds/*/*.ply\", parse: \"clouds/{sequence}/frame_{timestep:i64}.ply\" }
  points: { select: clouds, rename: { cloud: file }, set: { participant: 18 }, where: { timestep: { min: 1 } } }
  ranked: { run: 'echo {participant} {sequence} {timestep} > {out}/line', shell: true, from: points, writes: { line: blob } }
";
    space.write("r.yaml", recipe);
    assert_eq!(space.run(), (2, 0, 0));
    assert_eq!(space.file("ranked", 0, "line"), "18 EXP-1-head 2\n");
    assert_eq!(space.rows("ranked")[1]["timestep"], 10);

    space.write("clouds/FREE/last.ply", "no number");
    let said = space.effigy(&["run", "r.yaml"]);
    said.expect_error(1, &["clouds/FREE/last.ply", "frame_{timestep:i64}.ply", "hint:"]);
    space.write("r.yaml", &recipe.replace("i64", "f64"));
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["r.yaml:3", "`f64` is neither `i64` nor `str`", "hint:"]);
}

#[test]
fn first_failures_that_are_allowed_do_not_end_a_stage() {
    let space = Space::new();
    let rows: Vec<String> = (1..=30).map(|x| format!("{{ x: {x} }}")).collect();
    let recipe = |least: u32, share: f64| {
        let run = format!("test {{x}} -gt {least} && echo {{x}} > {{out}}/y");
        format!(
            "stages:\n  src: {{ rows: [{}] }}\n  some: {{ run: '{run}', shell: true, from: src, writes: {{ y: blob }}, allow_failures: {share} }}\n",
            rows.join(", ")
        )
    };
    space.write("r.yaml", &recipe(6, 0.5));
    let said = space.effigy(&["run", "r.yaml", "--json"]);
    assert_eq!((said.code, said.counts()), (0, (24, 0, 6)), "{}", said.out);
    assert!(!said.out.contains("-0.0"), "a sum of nothing is nothing: {}", said.out);
    // what is known is a success
    space.write("r.yaml", &recipe(6, 0.1));
    let said = space.effigy(&["run", "r.yaml", "--json"]);
    assert_eq!((said.code, said.counts()), (1, (0, 24, 6)), "{}", said.out);
    // where more have failed than may, and nothing else came, the rest is not tried
    space.write("r.yaml", &recipe(99, 0.1));
    let said = space.effigy(&["run", "r.yaml", "--json", "--jobs", "2"]);
    assert_eq!((said.code, said.counts()), (1, (0, 0, 30)), "{}", said.out);
    assert!(said.out.contains("failed and none succeeded; the other "), "{}", said.out);
}

#[test]
fn a_file_that_lies_elsewhere_stays_there() {
    let space = Space::new();
    for name in ["linked", "above"] {
        space.write(&format!("own/{name}.txt"), name);
    }
    space.write(
        "r.yaml",
        r#"
stages:
  linked:
    run: "ln -s \"$PWD/own\" {out}/res && echo '{{\"f\": \"res/linked.txt\"}}' > {out}/out.jsonl"
    shell: true
    writes: { f: blob }
  above:
    run: "echo '{{\"f\": \"../../../own/above.txt\"}}' > {out}/out.jsonl"
    shell: true
    writes: { f: blob }
  column:
    run: "ln -s \"$PWD/own/linked.txt\" {out}/f"
    shell: true
    writes: { f: blob }
"#,
    );
    assert_eq!(space.run(), (3, 0, 0));
    for name in ["linked", "above"] {
        assert_eq!(space.read(&format!("own/{name}.txt")), name, "it is still the user's");
        assert_eq!(space.file(name, 0, "f"), name);
    }
    space.write("own/linked.txt", "another");
    assert_eq!(space.file("linked", 0, "f"), "linked");
}

#[test]
fn a_program_of_the_shell_gives_numbers() {
    let space = Space::new();
    for (name, text) in [("a", "12345"), ("b", "1")] {
        space.write(&format!("in/{name}.txt"), text);
    }
    space.write(
        "r.yaml",
        r#"
stages:
  src: { files: "in/*.txt" }
  size:
    run: "printf '{{\"bytes\": %d, \"half\": %s.5}}\\n' $(wc -c < {file}) 2 > {out}/out.jsonl"
    shell: true
    from: src
    writes: { bytes: i64, half: f64 }
  ranked:
    run: "test -s {in} && printf '{{\"_of\": 1, \"rank\": 0}}\\n{{\"_of\": 0, \"rank\": 1}}\\n' > {out}/out.jsonl"
    shell: true
    from: size
    grain: whole
    writes: { rank: i64 }
  none: { run: "touch {out}/out.jsonl", from: src, writes: { x: f64 } }
report:
  - { table: size, mean: [bytes] }
"#,
    );
    assert_eq!(space.run(), (4, 1, 0), "both `none` read nothing, and are one unit");
    let rows = space.rows("size");
    assert_eq!((&rows[0]["bytes"], &rows[0]["half"]), (&5.into(), &2.5.into()));
    let said = space.effigy(&["show", "r.yaml", "size", "--json", "--where", "bytes<3"]);
    assert_eq!((said.code, said.json()["path"].as_str()), (0, Some("in/b.txt")), "{}", said.err);
    let ranked = space.rows("ranked");
    let ranks: Vec<_> = ranked.iter().map(|row| (row["path"].as_str(), row["rank"].as_i64())).collect();
    assert_eq!(ranks, [(Some("in/b.txt"), Some(0)), (Some("in/a.txt"), Some(1))]);
    assert!(space.rows("none").is_empty());
    assert_eq!(space.run(), (0, 5, 0));
}

#[test]
fn lines_that_make_no_row_are_told_by_their_number() {
    for (line, parts) in [
        ("echo '{{\"y\": 1}}' > {out}/out.jsonl; echo oh >> {out}/out.jsonl", ["line 2 of {out}/out.jsonl", "no JSON"]),
        ("echo '{{\"y\": \"1\"}}' > {out}/out.jsonl", ["line 1 of {out}/out.jsonl", "`y` is \"1\", expected f64"]),
        ("touch {out}/out.jsonl {out}/out.arrow", ["both {out}/out.arrow and {out}/out.jsonl", "which one is meant?"]),
        ("true", ["wrote no {out}/out.arrow and no {out}/out.jsonl", "write {out}/out.jsonl with a line"]),
    ] {
        let space = Space::new();
        let line = line.replace('"', "\\\"");
        space.write("r.yaml", &format!("stages: {{ s: {{ run: \"{line}\", shell: true, writes: {{ y: f64 }} }} }}"));
        space.effigy(&["run", "r.yaml"]).expect_error(1, &parts);
    }
    // a file that is meant by its name is no table
    let space = Space::new();
    space.write("r.yaml", "stages: { s: { run: 'cp r.yaml {out}/out.jsonl', writes: { out: blob } } }");
    assert_eq!(space.run(), (1, 0, 0));
    assert_eq!(space.file("s", 0, "out"), space.read("r.yaml"));
}

#[test]
fn words_are_told_apart_where_they_hold_blanks() {
    let space = Space::new();
    space.write(
        "r.yaml",
        r#"
stages:
  one: { run: [sh, -c, 'printf "%s|" "$@" > "$0"', '{out}/x', a b, c], writes: { x: blob } }
  two: { run: [sh, -c, 'printf "%s|" "$@" > "$0"', '{out}/x', a, b c], writes: { x: blob } }
"#,
    );
    assert_eq!(space.run(), (2, 0, 0));
    assert_eq!((space.file("one", 0, "x"), space.file("two", 0, "x")), ("a b|c|".into(), "a|b c|".into()));
}

#[test]
fn what_fails_within_a_pipe_fails_in_bash() {
    let space = Space::new();
    let recipe = |shell: &str, run: &str| {
        let stage = format!("some: {{ run: '{run}', shell: {shell}, from: src, writes: {{ y: blob }} }}");
        format!("stages:\n  src: {{ rows: [ {{ x: \"it is $HOME\" }} ] }}\n  {stage}\n")
    };
    let pipe = "cat absent | cat > {out}/y; [[ {x} == it* ]]";
    space.write("r.yaml", &recipe("bash", pipe));
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["exited with code 1", "absent"]);
    space.write("r.yaml", &recipe("bash", &pipe.replace("absent", "<(echo {x})")));
    assert_eq!(space.run(), (1, 0, 0));
    assert_eq!(space.file("some", 0, "y"), "it is $HOME\n");
    // its line may be longer than a word of a program
    let long = format!("false | cat > {{out}}/y # {}", "long ".repeat(40_000));
    space.write("r.yaml", &recipe("bash", &long));
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["exited with code 1"]);
    space.write("r.yaml", &recipe("true", &long));
    assert_eq!(space.run(), (1, 0, 0), "another shell, another key");
    space.write("r.yaml", &recipe("sh", &long));
    assert_eq!(space.run(), (0, 1, 0), "which `true` stands for");
    space.write("r.yaml", &recipe("zsh", &long));
    space
        .effigy(&["run", "r.yaml"])
        .expect_error(2, &["r.yaml:3", "`shell`", "must be `true`, `false`, `sh` or `bash`", "hint:"]);
    space.write("r.yaml", &recipe("bash", "[[ {x} -gt 1 ]] && touch {out}/y"));
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["in a comparison of `[[…]]`", "compare by `[ … ]`"]);
    // where there is no bash
    std::fs::create_dir(space.path("bin")).expect("it is ours");
    space.write("r.yaml", &recipe("bash", "echo {x} > {out}/y"));
    let said = space.command(&["run", "r.yaml"]).env("PATH", space.path("bin")).output().expect("it starts");
    let err = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{err}");
    assert!(err.contains("`bash` cannot be started: it lies in no folder of PATH") && err.contains("hint:"), "{err}");
}

#[test]
fn what_only_a_shell_understands_is_told_before_anything_runs() {
    let wrong = |top: &str, stanza: &str, parts: &[&str]| {
        let space = Space::new();
        space.write("r.yaml", &format!("{top}\nstages:\n  a: {{ rows: [{{ x: 1 }}] }}\n  b: {{ {stanza} }}\n"));
        for verb in ["plan", "run"] {
            space.effigy(&[verb, "r.yaml"]).expect_error(2, &[&["r.yaml:4:", "hint: "], parts].concat());
        }
    };
    let line = "run: 'echo {x} > {out}/y', from: a, writes: { y: blob }";
    wrong("", line, &["no shell sees `>`", "add `shell: true`, or quote it: `'>'`"]);
    let shell = |text: &str| format!("run: 'echo {text} > {{out}}/y', shell: true, from: a, writes: {{ y: blob }}");
    let hint = "give it as `params: { steps: \"${steps}\" }` and write `{param.steps}`";
    wrong("params: { steps: 100 }", &shell("--steps ${steps}"), &["`${steps}` in a program's line", hint]);
    wrong("params: { steps: 100 }", &shell("--steps {steps}"), &["`{steps}` is no column of the rows", hint]);
}

#[test]
fn a_program_that_cannot_be_started_says_why() {
    let space = Space::new();
    space.write("r.yaml", "stages: { s: { run: no-such-program, writes: { y: blob } } }");
    let said = space.effigy(&["run", "r.yaml"]);
    said.expect_error(1, &["`no-such-program` cannot be started: it lies in no folder of PATH", "hint: "]);
    // one word of a line may have so many bytes and no more
    let recipe = "
stages:
  a: { rows: [{ x: LONG }] }
  s: { run: [echo, '{x}'], from: a, writes: { y: blob } }
";
    space.write("r.yaml", &recipe.replace("LONG", &"x".repeat(300_000)));
    let said = space.effigy(&["run", "r.yaml"]);
    said.expect_error(1, &["`echo` cannot be started", "longer than the system takes", "hint: let it read `{in}`"]);
}
