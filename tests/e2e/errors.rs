//! What a user is told when something is wrong: the place, a sentence, a hint, and an exit code.

use crate::support::{Said, Space, provider};

/// Asserts that every error that was told has a hint under it.
fn all_have_hints(said: &Said) {
    let count = |start: &str| said.err.lines().filter(|line| line.starts_with(start)).count();
    assert!(count("error: ") > 0, "{}", said.err);
    assert_eq!(count("error: "), count("  hint: "), "{}", said.err);
}

/// Asserts that a command fails with this code, says all these parts, and has hints.
fn check(space: &Space, args: &[&str], code: i32, parts: &[&str]) {
    let said = space.effigy(args);
    said.expect_error(code, parts);
    all_have_hints(&said);
}

/// Runs a recipe that is wrong; nothing must have run.
fn wrong(yaml: &str, parts: &[&str]) {
    let space = Space::new();
    space.write("in/a.txt", "a");
    space.write("r.yaml", yaml);
    check(&space, &["run", "r.yaml"], 2, &[&["error: r.yaml:"], parts].concat());
    assert!(space.ran().is_empty());
}

#[test]
fn writing() {
    wrong("stages:\n  a: { files: 'in/*' }\n  a: { files: 'x' }\n", &["r.yaml:3:3", "duplicate", "hint"]);
    wrong("stages:\n\ta: 1\n", &["r.yaml:2"]);
    wrong("stages:\n  a: { rows: [{ x: .nan }] }\n", &["r.yaml:2:20", "non-finite", "is `null`"]);
    wrong("stage: { a: { files: x } }", &["r.yaml:1:1", "no field `stage`", "did you mean `stages`?"]);
    wrong(
        "stages:\n  a: { files: 'in/*', rot: x }",
        &["r.yaml:2:23", "stage `a` has no field `rot`", "did you mean `root`?"],
    );
    wrong("stages:\n  a: { files: 7 }", &["r.yaml:2:15", "a pattern or a list of patterns, not an integer"]);
    wrong("stages:\n  a: { files: 'in/[' }", &["r.yaml:2:15", "no pattern for file names"]);
    wrong(
        "stages:\n  a: { files: x, matrix: { n: [1, 2] } }",
        &["r.yaml:2:18: stage `a`: `matrix:` stands at the top of a recipe", "beside `stages:`"],
    );
    wrong("stages:\n  a: { foreach: [1, 2] }", &["r.yaml:2:8: stage `a`: there is no `foreach:`", "beside `stages:`"]);
    wrong("stages: [1", &["r.yaml:1", "brackets and quotes that are not closed"]);
    wrong("stages: { a: { rows: [], n: 1 } }", &["stage `a` has no field `n`", "hint: it takes no other fields"]);
    wrong("3", &["a recipe must be a mapping, not an integer", "hint: for example `stages: {"]);
    for field in ["set: { 'a b': 1 }", "rename: { 'a b': x }"] {
        let text = format!("stages:\n  a: {{ rows: [{{ x: 1 }}] }}\n  b: {{ select: a, {field} }}");
        wrong(&text, &["r.yaml:3:", "`a b` cannot be a column name here", "letters, digits and `_`"]);
    }
}

#[test]
fn a_pattern_that_matches_nothing_is_told_unless_it_may() {
    let space = Space::new();
    space.write("in/a.txt", "a");
    let recipe = |more: &str| format!("stages:\n  src: {{ files: ['in/*.txt', 'in/*.mp4'] {more} }}\n");
    space.write("r.yaml", &recipe(""));
    for (verb, code) in [("plan", 2), ("run", 1)] {
        let parts = ["stage `src`", "r.yaml:2:30: no file matches `in/*.mp4`", "optional: true"];
        check(&space, &[verb, "r.yaml"], code, &parts);
    }
    space.write("r.yaml", &recipe(", optional: true"));
    space.effigy(&["run", "r.yaml"]).expect_error(0, &[]);
}

#[test]
fn a_plan_goes_on_beside_a_stage_that_fails() {
    let space = Space::new();
    space.write("in/a.txt", "a");
    space.write(
        "r.yaml",
        "stages:
  src: { files: 'in/*.txt', parse: 'in/{n:i64}.txt' }
  up: { run: 'cat {file} > {out}/up', shell: true, from: src, writes: { up: blob } }
  rows: { rows: [{ x: 1 }, { x: 2 }] }
  beside: { run: 'echo {x} > {out}/x', shell: true, from: rows, writes: { y: blob } }
",
    );
    let said = space.effigy(&["plan", "r.yaml"]);
    said.expect_error(2, &["error: stage `src`: r.yaml:2:36: the path in/a.txt is not of the form", "hint: narrow"]);
    all_have_hints(&said);
    for line in ["src     fails", "up      unknown, because `src` fails", "rows    2 rows", "beside  2 to run"] {
        assert!(said.out.lines().any(|found| found == line), "{line}: {}", said.out);
    }
    let said = space.effigy(&["plan", "r.yaml", "--json"]);
    assert_eq!((said.code, said.json()["misses"].as_u64()), (2, Some(2)), "{}", said.out);
    let error = said.json()["stages"][0]["error"].to_string();
    assert!(error.contains("r.yaml:2:36"), "{error}");
    // who needs the rows themselves is told as ever
    check(&space, &["why", "r.yaml", "up"], 1, &["the path in/a.txt is not of the form"]);
}

#[test]
fn a_value_of_a_wrong_type_is_answered_by_a_valid_one() {
    let select = |field: &str, parts: &[&str]| {
        wrong(&format!("stages:\n  a: {{ files: x }}\n  b: {{ select: a, {field} }}"), parts);
    };
    select("every: '3'", &["r.yaml:3:26", "must be an integer, at least 0, not text", "without quotes: `every: 3`"]);
    select("every: 0", &["`every` must be at least 1, not 0", "`every: 1` keeps all rows"]);
    select("limit: -3", &["must be an integer, at least 0, not -3"]);
    select("rename: { file: path }", &["r.yaml:3:35: two columns would be called `file`", "rename the other one"]);
    select("rename: { x: path, y: path }", &["`path` is renamed twice"]);
    select("columns: [path, path]", &["`columns` names `path` twice"]);
    select("rename: { copy_path: path }, columns: [path]", &["no column `path` here any more", "`copy_path` now"]);
    select("limit: few", &["hint: for example `limit: 1`"]);
    select("where: path", &["must be a mapping, not text", "hint: for example `where: { name: value }`"]);
    select("where: { path: 3 }", &["cannot be compared with an integer", "hint: for example `path: \"a text\"`"]);
    select("overrides: { path: 3 }", &["must be a list, not a mapping", "hint: for example `overrides: ["]);
    wrong("recipe: 7\nstages: { a: { files: x } }", &["r.yaml:1:9", "in quotes: `recipe: \"7\"`"]);
    wrong(
        "stages:\n  a: { run: 'true', shell: 1, writes: { y: blob } }",
        &["must be `true`, `false`, `sh` or `bash`, not an integer", "hint: for example `shell: true`"],
    );
    wrong(
        "stages:\n  a: { run: 'true', allow_failures: 2, writes: { y: blob } }",
        &["a share of the units, from 0 to 1, not 2", "hint: for example `allow_failures: 0.1`"],
    );
}

#[test]
fn wiring() {
    wrong(
        "stages:\n  a: { files: x }\n  b: { run: 'cat {file}', from: aa, writes: { y: blob } }",
        &["r.yaml:3:33", "there is no stage `aa`", "did you mean `a`?"],
    );
    wrong("stages:\n  a: { select: c }\n  b: { select: a }\n  c: { select: b }\n", &["in a circle: a -> c -> b -> a"]);
    wrong("stages:\n  a: { select: a }\n", &["in a circle: a -> a"]);
    wrong(
        "stages:\n  a: { files: x }\n  b: { run: 'cat {fiel}', from: a, writes: { y: blob } }",
        &["r.yaml:3:13", "`{fiel}` is neither a column", "did you mean `file`?"],
    );
    wrong(
        "stages:\n  a: { files: x }\n  b: { run: cat, from: a, writes: { y: blobb } }",
        &["r.yaml:3:40", "did you mean `blob`?"],
    );
    wrong("stages:\n  a: { files: x }\n  b: { run: cat, from: a }", &["stage `b` needs `writes:`"]);
    wrong("stages:\n  a: { files: x }\n  b: { select: a, where: { pth: 3 } }", &["did you mean `path`?"]);
    wrong("stages:\n  a: { files: x }\n  b: { select: a, where: { path: 3 } }", &["column `path` is str"]);
    wrong(
        "stages:\n  a: { rows: [ { x: 1 }, { x: a } ] }",
        &["r.yaml:2:31", "column `x` is i64 in other rows, and str here"],
    );
    wrong("stages:\n  a: { run: 'cat \"x', writes: { y: blob } }", &["never closed"]);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    wrong(
        "stages:\n  a: { files: x, one: 1 }\n  b: { files: y, two: 2 }\n  c: { select: nobody }\n",
        &["`one`", "`two`", "`nobody`"],
    );
}

#[test]
fn parameters_of_a_provider() {
    let providers = format!("providers: ['{}']\n", provider());
    let stage = |text: &str| format!("{providers}stages:\n  src: {{ files: 'in/*' }}\n  c: {{ {text} }}");
    let check = |text: &str, parts: &[&str]| wrong(&stage(text), parts);
    check(
        "stage: cuont, from: src",
        &["r.yaml:4:15", "no provider has a stage of kind `cuont`", "did you mean `count`?"],
    );
    check("stage: count, from: src", &["needs the parameter `log`", "Where it notes"]);
    check(
        "stage: count, from: src, log: x, factr: 2",
        &["r.yaml:4:41", "has no parameter `factr`", "did you mean `factor`?"],
    );
    check(
        "stage: count, from: src, log: x, factor: two",
        &["`factor` of stage `c` (count) must be a number, not text", "hint: for example `factor: "],
    );
    check("stage: count, from: src, log: x, mishap: eror", &["cannot be `eror`", "did you mean `error`?"]);
    check(
        "stage: count, from: src, log: x, mishap: 3",
        &["`mishap` of stage `c` (count) cannot be `3`", "hint: there are: none, error, panic, abort, leak"],
    );
    check("stage: count, from: src, log: x, words: none.txt", &["`none.txt` is not there", "looked for"]);
    check("stage: count, log: x", &["needs `from:`"]);
    check("stage: count, from: src, by: [path], log: x", &["`by:` is for stages that work on groups"]);
    check("stage: rank, from: src, log: x", &["needs `by:`", "reads column `letters` (f64), which is not there"]);
    check("stage: train, from: src, log: x, steps: 0", &["must be at least 1, not 0", "needs the constant `bias`"]);
    check(
        "stage: train, from: src, with: { bais: src }, log: x, steps: 1",
        &["takes no constant `bais`", "did you mean `bias`?"],
    );
}

#[test]
fn without_a_provider_there_is_a_hint() {
    let space = Space::new();
    space.write("r.yaml", "providers: [./nobody]\nstages: { a: { stage: thing } }");
    let run = |parts: &[&str]| check(&space, &["run", "r.yaml"], 2, parts);
    run(&["r.yaml:1:13", "the provider `./nobody` cannot be started", "hint: looked for"]);
    space.write("nobody", "#!/bin/sh\necho hello\n");
    run(&["the provider `./nobody` cannot be started", "hint: make it executable: chmod +x"]);
    space.write("r.yaml", "providers: [sh nobody]\nstages: { a: { stage: thing } }");
    run(&["says of itself is not understood", "hint: see `sh nobody describe`"]);
    space.write(
        "nobody",
        "echo '{\"protocol\":9,\"provider\":\"n\",\"version\":\"1\",\"software\":{},\"stages\":[]}'\n",
    );
    run(&["speaks version 9 of the protocol, not 1", "hint: effigy is the older of the two"]);
}

#[test]
fn options_that_are_wrong() {
    let space = Space::new();
    space.write("r.yaml", "stages: { alpha: { rows: [] } }");
    let run = |args: &[&str], parts: &[&str]| {
        check(&space, &[&["run", "r.yaml"], args].concat(), 2, &[&["error: command line: "], parts].concat());
    };
    run(&["--param", "size"], &["`--param size` is not of the form NAME=VALUE", "for example `--param size=64`"]);
    run(&["--param", "size=1"], &["has no parameter `size`", "it has no `params:` at all"]);
    run(&["--param", "size=[1"], &["the value in `--param size=[1`", "needs quotes"]);
    space.write("r.yaml", "params: { copies: 2 }\nstages: { alpha: { rows: [{ n: '${copies}' }] } }");
    run(&["--param", "copies="], &["`copies` must be a number, as in the recipe, not nothing", "`--param copies=2`"]);
    run(&["--param", "copies=many"], &["`copies` must be a number, as in the recipe, not text", "`--param copies=2`"]);
    space.effigy(&["plan", "r.yaml", "--param", "copies=2.5"]).expect_error(0, &[]);
    space.write("r.yaml", "stages: { alpha: { rows: [] } }");
    run(&["--set", "alpha.rows"], &["not of the form STAGE.FIELD=VALUE", "for example `--set stage.field=64`"]);
    run(&["--set", "alpha=3"], &["`alpha` in `--set` is not of the form STAGE.FIELD", "`--set alpha.FIELD=VALUE`"]);
    run(&["--profile", "x"], &["has no profile `x`", "leave `--profile` out"]);
}

#[test]
fn what_has_to_be_run_first_is_said_as_it_is_typed() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "params: { n: 1 }\nprofiles: { default: {}, smoke: {} }\nstages: { alpha: { rows: [{ x: 1 }] } }",
    );
    let options = ["--profile", "smoke", "--param", "n=2", "--workspace", "other place"];
    let show = [&["show", "r.yaml", "alpha"], &options[..]].concat();
    let report = [&["report", "r.yaml"], &options[..]].concat();
    let typed = "hint: effigy run r.yaml --profile smoke --param n=2 --workspace 'other place'";
    check(&space, &show, 1, &["not been finished yet with `--profile smoke`", &format!("{typed} --only alpha")]);
    check(&space, &report, 1, &["has not been run yet with `--profile smoke`", typed]);
    assert!(!space.effigy(&show).err.contains("since it was run"));
    // the memory of what ran is one for each profile
    let run = ["run", "r.yaml", "--profile", "default", "--workspace", "other place"];
    assert_eq!(space.effigy(&run).code, 0);
    let other = "since it was run without `--profile`: effigy";
    let rest = "--param n=2 --workspace 'other place'";
    check(&space, &show, 1, &[typed, &format!("{other} show r.yaml alpha {rest}")]);
    check(&space, &report, 1, &[typed, &format!("{other} report r.yaml {rest}")]);
    let column = ["show", "r.yaml", "alpha", "--profile", "default", "--workspace", "other place", "--select", "y"];
    check(&space, &column, 2, &["stage `alpha` has no column `y`", "hint: did you mean `x`?"]);
}

#[test]
fn a_workspace_that_cannot_be_used() {
    let space = Space::new();
    space.write("r.yaml", "stages: { alpha: { rows: [] } }");
    space.write("file", "");
    for verb in ["run", "plan"] {
        check(&space, &[verb, "r.yaml", "--workspace", "file"], 2, &["the workspace file is a file, not a folder"]);
    }
}

#[test]
fn recipes_and_stages_that_are_not_there() {
    let space = Space::new();
    space.write("r.yaml", "stages: { alpha: { rows: [] } }");
    space.effigy(&["run", "nowhere.yaml"]).expect_error(2, &["there is no recipe `nowhere.yaml`"]);
    space.write("folder/recipe.yaml", "recipe: r\nstages: {}\n");
    space
        .effigy(&["run", "folder/recipe.ymal"])
        .expect_error(2, &["there is no recipe `folder/recipe.ymal`", "did you mean `folder/recipe.yaml`"]);
    space.effigy(&["show", "r.yaml", "alpa"]).expect_error(2, &["has no stage `alpa`", "did you mean `alpha`?"]);
    space
        .effigy(&["show", "r.yaml", "alpha"])
        .expect_error(1, &["has not been finished yet", "hint: effigy run r.yaml"]);
    space.effigy(&["run", "r.yaml", "--profile", "x"]).expect_error(2, &["has no profile `x`"]);
    space.effigy(&["run", "r.yaml", "--param", "x=1"]).expect_error(2, &["has no parameter `x`"]);
    space.effigy(&["run", "r.yaml", "--set", "alpa.rows=[]"]).expect_error(2, &["has no stage `alpa`"]);
}

fn fails(stage: &str, parts: &[&str]) {
    let space = Space::new();
    space.write("in/a.txt", "a");
    space.write("r.yaml", &format!("stages:\n  src: {{ files: 'in/*' }}\n  s: {{ {stage} }}"));
    check(&space, &["run", "r.yaml"], 1, &[&["error: stage `s`"], parts].concat());
}

#[test]
fn programs_that_fail() {
    fails(
        "run: 'echo oh no >&2; exit 3', shell: true, from: src, writes: { y: blob }",
        &["path=in/a.txt", "exited with code 3", "oh no", "log: "],
    );
    fails("run: 'kill -SEGV $$', shell: true, from: src, writes: { y: blob }", &["signal 11 (segmentation fault)"]);
    fails("run: no-such-program, from: src, writes: { y: blob }", &["`no-such-program` cannot be started", "hint"]);
    fails("run: 'true', from: src, writes: { y: blob }", &["wrote no file {out}/y", "the folder is empty"]);
    fails("run: 'touch {out}/z', from: src, writes: { y: blob }", &["wrote no file {out}/y", "it wrote z"]);
    fails("run: 'true', from: src, writes: { y: f64 }", &["wrote no {out}/out.arrow", "column `y` (f64)"]);
    fails(
        "run: 'sleep 20', from: src, timeout: 0.2, writes: { y: blob }",
        &["longer than its `timeout` of 0.2 s", "hint: raise `timeout:`"],
    );
    fails("run: 'kill -KILL $$', shell: true, from: src, writes: { y: blob }", &["signal 9", "hint: ", "`--jobs 1`"]);
    fails(
        "run: 'nosuch {file}', shell: true, from: src, writes: { y: blob }",
        &["code 127", "hint: ", "not installed"],
    );
    fails(
        "run: 'touch {out}/y.a {out}/y.b', from: src, writes: { y: blob }",
        &["several files {out}/y.*", "hint: leave one of them"],
    );
}

#[test]
fn tables_of_programs_that_cannot_be_used() {
    let arrow = |rows: &[(&str, manifests::Value)]| -> Vec<u8> {
        let schema = manifests::Schema::new(rows.iter().map(|(name, value)| (*name, value.ty().expect("a type"))))
            .expect("names");
        let table = manifests::Manifest::from_rows(schema, &[rows.iter().map(|(_, value)| value.clone()).collect()])
            .expect("rows");
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("t.arrow");
        manifests::write_ipc(&path, &table).expect("a file");
        std::fs::read(path).expect("a file")
    };
    use manifests::Value::{F64, I64, Str};
    let good = arrow(&[("y", F64(1.0))]);
    let cases: Vec<(Vec<u8>, Option<&[&str]>)> = vec![
        (good.clone(), None),
        (arrow(&[("y", I64(1))]), None),
        (good[..good.len() / 2].to_vec(), Some(&["cannot be used", "not a readable Arrow IPC file"])),
        (b"text".to_vec(), Some(&["cannot be used", "not a readable Arrow IPC file"])),
        (arrow(&[("z", F64(1.0))]), Some(&["put out a column `z` that it does not declare"])),
        (arrow(&[("y", Str("a".into()))]), Some(&["declares the column `y` as f64 but put it out as str"])),
        (arrow(&[("y", F64(1.0)), ("_of", I64(5))]), Some(&["`_of` 5, but the unit has 1 rows"])),
        (arrow(&[("_unit", I64(0))]), Some(&["declares the column `y` but did not put it out"])),
    ];
    for (bytes, expected) in cases {
        let space = Space::new();
        space.write("in/a.txt", "a");
        std::fs::write(space.path("table"), bytes).expect("a file");
        space.write("r.yaml", "stages:\n  src: { files: 'in/*' }\n  s: { run: 'cp table {out}/out.arrow', code: [table], from: src, writes: { y: f64 } }");
        let said = space.effigy(&["run", "r.yaml"]);
        match expected {
            Some(parts) => {
                said.expect_error(1, parts);
                all_have_hints(&said);
            }
            None => assert_eq!((said.code, &space.rows("s")[0]["y"]), (0, &1.0.into()), "{}", said.err),
        }
    }
}

#[test]
fn a_join_that_is_not_unique_fails_and_says_where() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "stages:\n  a: { rows: [{ k: 1 }] }\n  b: { rows: [{ k: 1, x: 1 }, { k: 1, x: 2 }] }\n  j: { join: [a, b], on: k }\n  l: { select: j }",
    );
    check(&space, &["run", "r.yaml"], 1, &["stage `j`", "2 rows for k=1", "hint: ", "`distinct: [k]`", "l: skipped"]);
}

#[test]
fn a_join_of_tables_that_contradict_each_other_says_so() {
    let space = Space::new();
    let run = |x: &str, b: &str, how: &str| {
        let rows = format!("{{ k: 1, x: 1.0, z: 5 }}, {{ k: 2, x: {x}, z: 6 }}, {{ k: 4, x: 9.0, z: 7 }}");
        let a = "{ k: 3, x: 8.0, y: 1 }, { k: 2, x: 2.0, y: 2 }, { k: 1, x: 1.0, y: 3 }";
        let text = format!(
            "stages:\n  a: {{ rows: [{a}] }}\n  b: {{ rows: [{rows}] }}\n  c: {{ select: b, columns: [k, z] }}\n  j: {{ join: [a, {b}], on: k, how: {how} }}"
        );
        space.write("r.yaml", &text);
        let said = space.effigy(&["run", "r.yaml"]);
        assert_eq!(said.code, 0, "{}", said.err);
        // the first table's are taken
        let found: Vec<_> = space.rows("j").iter().map(|row| row["x"].as_f64().expect("a number")).collect();
        assert_eq!(found, if how == "left" { vec![8.0, 2.0, 1.0] } else { vec![2.0, 1.0] });
        said.err
    };
    for how in ["inner", "left"] {
        let said = run("3.0", "b", how);
        let text = "warning: stage `j`: both tables have `x`, with other values (2.0 and 3.0 for k=2)";
        assert!(said.contains(text) && said.contains("`columns:`"), "{said}");
        // what has no partner contradicts nobody, nor does a column that only one has
        assert!(!run("2.0", "b", how).contains("warning"));
        assert!(!run("3.0", "c", how).contains("warning"));
    }
}

#[test]
fn the_rest_goes_on_where_it_can() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "
stages:
  a: { run: 'false', writes: { y: blob } }
  b: { run: 'cat {y}', from: a, writes: { y: blob } }
  c: { run: 'echo c > {out}/y', shell: true, writes: { y: blob } }
",
    );
    let said = space.effigy(&["run", "r.yaml", "--json"]);
    assert_eq!((said.code, said.counts()), (1, (1, 0, 1)));
    assert_eq!(space.file("c", 0, "y"), "c\n");
}

#[test]
fn rates_of_stages_that_are_not_there() {
    let report = |item: &str, parts: &[&str]| {
        wrong(&format!("stages:\n  films: {{ files: 'in/*' }}\nreport:\n  - {{ {item} }}"), parts);
    };
    report("rates: [film]", &["r.yaml:4:15", "there is no stage `film`", "did you mean `films`?"]);
    report("rates: [films], count: frame", &["there is no stage `frame`"]);
    report("rates: films, table: films", &["an item of the report must be one thing", "rates"]);
    report("rates: 7", &["`rates` of an item of the report must be a name or a list of names"]);
}

#[test]
fn tables_of_a_report_that_could_not_be_made() {
    let report = |item: &str, parts: &[&str]| {
        let rows = "stages:\n  a: { rows: [{ m: one, n: 1, on: true }] }\n";
        wrong(&format!("{rows}report:\n  - {{ table: a, {item} }}"), parts);
    };
    report(
        "by: [m], mean: [m]",
        &["r.yaml:4:33: column `m` of `a` is str, and `mean:` is for numbers", "there are: n, on"],
    );
    report("higher: m", &["r.yaml:4:25: column `m` of `a` is str, and `higher:` is for numbers"]);
    report("lower: [n, m]", &["`lower:` is for numbers"]);
    report(
        "by: [m], mean: [n], higher: [on]",
        &["r.yaml:4:46: `higher:` names `on`, which this table does not average", "hint: `mean: [COLUMN]`"],
    );
    report("columns: [m], lower: [n]", &["`lower:` names `n`, which this table does not show"]);
    report("higher: [n], lower: [n]", &["column `n` is under `higher:` and under `lower:`", "hint: "]);
    report(
        "by: [m], columns: [n]",
        &["r.yaml:4:36: a table shows groups (`by:`) or rows (`columns:`), not both", "hint: "],
    );
}

#[test]
fn help_keeps_to_the_width_of_the_terminal() {
    let space = Space::new();
    for verb in ["run", "table", "why"] {
        let mut command = space.command(&[verb, "--help"]);
        let said = command.env("COLUMNS", "80").output().expect("it starts");
        let text = String::from_utf8(said.stdout).expect("UTF-8");
        let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(text.contains("--workspace") && long.is_empty(), "{long:?}");
    }
}

#[test]
fn what_only_looks_after_a_workspace_makes_none() {
    let space = Space::new();
    for verb in ["verify", "stats", "gc", "rebuild"] {
        check(
            &space,
            &["cache", verb, "--workspace", "typo"],
            2,
            &["there is no workspace typo", "`effigy run RECIPE`"],
        );
        assert!(!space.path("typo").exists(), "{verb}");
    }
    std::fs::create_dir(space.path("far")).expect("a folder");
    let push = ["cache", "push", "--remote", "dir:far", "--workspace", "typo"];
    check(&space, &push, 2, &["there is no workspace typo"]);
    assert!(!space.path("typo").exists());
    space.write("afile", "");
    let said = space.effigy(&["doctor", "--workspace", "afile"]);
    assert!(said.out.contains("afile is a file, not a folder"), "{}", said.out);
    // one in which nothing was done has no work behind it
    space.write("r.yaml", "stages: { alpha: { rows: [{ k: 1 }] } }");
    space.run();
    let said = space.effigy(&["cache", "stats"]);
    assert!(said.out.contains("0 units, 0.00 s of work") && said.code == 0, "{}", said.out);
}

#[test]
fn mistakes_that_would_show_only_in_a_run() {
    let tables = "stages:\n  a: { rows: [{ x: 1 }] }\n  b: { rows: [{ x: 2 }] }\n";
    wrong(
        &format!("{tables}  c: {{ concat: [a, b], label: {{ column: m, values: [1, x] }} }}\n"),
        &["r.yaml:4:56: `values` of `label` are of different types: i64 and str", "hint: "],
    );
    wrong(&format!("{tables}  c: {{ join: [a, b], on: [] }}\n"), &["`on:` of a join names no column"]);
    wrong(&format!("{tables}---\nstages: {{}}\n"), &["a second YAML document begins here", "leave out the line `---`"]);
    // numbers go together
    let space = Space::new();
    space.write("r.yaml", &format!("{tables}  c: {{ concat: [a, b], label: {{ column: m, values: [1, 0.5] }} }}\n"));
    space.run();
    // a command that is none is the only thing to be said of its stage
    for line in ["''", "'echo \"x'"] {
        space.write("r.yaml", &format!("{tables}  z: {{ run: {line}, from: a, writes: {{ y: blob }} }}\n"));
        let said = space.effigy(&["plan", "r.yaml"]);
        all_have_hints(&said);
        assert_eq!((said.code, said.err.matches("error: ").count()), (2, 1), "{}", said.err);
    }
}

#[test]
fn what_cannot_be_shown_is_told_as_what_it_is() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "stages:\n  a: { rows: [{ m: x, n: 1 }] }\n  s: { select: a, where: { n: 2 } }\nreport:\n  - { table: s, by: [m], mean: [n] }\n",
    );
    space.run();
    let show = |more: &[&str], parts: &[&str]| check(&space, &[&["show", "r.yaml", "a"], more].concat(), 2, parts);
    show(&["--select", "m,m"], &["`--select` names `m` twice"]);
    show(&["--sql", "drop table rows"], &["`--sql` is not understood", "`select` or `with`, not with `drop`"]);
    assert_eq!(space.effigy(&["show", "r.yaml", "a", "--sql", " (SELECT n FROM rows)", "--json"]).out, "{\"n\":1}\n");
    check(
        &space,
        &["table", "r.yaml"],
        1,
        &["it has no rows", "hint: `effigy show r.yaml s` shows what its stage has"],
    );
    // a recipe of which nothing was ever finished has been run all the same
    space.write("f.yaml", "stages:\n  z: { run: 'false', shell: true, writes: { y: blob } }\n");
    assert_eq!(space.effigy(&["run", "f.yaml"]).code, 1);
    check(&space, &["trace", "f.yaml", "z"], 1, &["stage `z` failed in the last run", "hint: "]);
}
