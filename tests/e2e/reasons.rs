//! What `why` tells of rows: those behind a changed column, behind a unit of many rows, and behind a constant; how rows
//! are called, and what is said of those that nobody knows yet or that failed.

use crate::support::Space;
use serde_json::Value;

const RECIPE: &str = "
recipe: demo
stages:
  src: { files: 'in/*.txt' }
  upper: { run: 'tr a-z A-Z < {file} > {out}/up', shell: true, from: src, writes: { up: blob } }
  all: { run: 'cat {up} > {out}/all', shell: true, from: upper, grain: whole, writes: { all: blob } }
  used: { run: 'echo {path} > {out}/used', shell: true, from: src, with: { words: upper }, writes: { used: blob } }
";

fn start() -> Space {
    let space = Space::new();
    for i in 0..3 {
        space.write(&format!("in/{i}.txt"), &format!("text {i}\n"));
    }
    space.write("r.yaml", RECIPE);
    space.settle();
    space.run();
    space
}

fn why(space: &Space, args: &[&str]) -> String {
    let said = space.effigy(&[&["why", "r.yaml"], args].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    said.out
}

fn json(space: &Space, stage: &str) -> Value {
    serde_json::from_str(why(space, &[stage, "--json"]).trim()).expect("JSON")
}

#[test]
fn the_row_that_wrote_a_changed_column_is_named() {
    let space = start();
    space.write("in/1.txt", "other\n");
    let text = why(&space, &["upper", "in/1.txt"]);
    assert!(text.contains("(written by stage `src`, row path=in/1.txt)"), "{text}");
    let units = json(&space, "upper")["units"].as_array().expect("units").clone();
    let missed: Vec<&Value> = units.iter().filter(|unit| unit["known"] == false).collect();
    assert_eq!(missed.len(), 1);
    let source = &missed[0]["sources"][0];
    assert_eq!((&source["column"], &source["stage"]), (&"file".into(), &"src".into()));
    assert_eq!(source["row"], "path=in/1.txt");
}

#[test]
fn the_rows_behind_a_unit_of_many_rows_and_a_constant_are_named() {
    let space = start();
    space.write("in/1.txt", "other\n");
    space.write("in/9.txt", "new\n");
    assert_eq!(space.effigy(&["run", "r.yaml", "--only", "upper"]).code, 0);
    let text = why(&space, &["all"]);
    let counts = "rows of stage `upper`: 1 changed, 1 new, 2 the same";
    for part in ["number of rows: 3 -> 4", counts, "path=in/1.txt: up file ", "new: path=in/9.txt"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let rows = &json(&space, "all")["units"][0]["rows"][0];
    assert_eq!((&rows["stage"], &rows["constant"]), (&"upper".into(), &Value::Null));
    assert_eq!(rows["compared"]["changed"], 1);
    let rows = &json(&space, "used")["units"][0]["rows"][0];
    assert_eq!((&rows["constant"], &rows["compared"]["added"]), (&"words".into(), &1.into()));
    // after the run the reason is still known
    space.run();
    let text = why(&space, &["all"]);
    assert!(text.contains("it was run because of what had changed") && text.contains("1 changed, 1 new"), "{text}");
    // and without the earlier tables what is left of it is told
    std::fs::remove_dir_all(space.path(".effigy/tables")).expect("it was there");
    assert!(why(&space, &["all"]).contains("number of rows: 3 -> 4"));
}

/// Rows of a person, written into a recipe.
fn with_rows(rows: &[(&str, u32)]) -> String {
    let row =
        |(seq, timestep): &(&str, u32)| format!("{{ who: 1, kind: a, seq: {seq}, timestep: {timestep}, w: 0.5 }}");
    let rows: Vec<String> = rows.iter().map(row).collect();
    format!(
        "stages:\n  src: {{ rows: [{}] }}\n  b: {{ run: 'echo {{seq}} {{timestep}} > {{out}}/y', shell: true, from: src, writes: {{ y: blob }} }}\n",
        rows.join(", ")
    )
}

#[test]
fn rows_are_named_by_what_differs_and_siblings_explain_nothing() {
    let space = Space::new();
    space.write("r.yaml", &with_rows(&[("x", 1)]));
    space.run();
    space.write("r.yaml", &with_rows(&[("x", 1), ("x", 10), ("y", 1)]));
    let text = why(&space, &["b"]);
    let new = "to run: seq=x, timestep=10; seq=y, timestep=1\n    nothing like it has been run before";
    for part in ["stage `b`: 2 to run, 1 known\n", new, "known: seq=x, timestep=1 (computed"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let units = |words: &str| -> Vec<String> {
        let said: Value = serde_json::from_str(why(&space, &["b", words, "--json"]).trim()).expect("JSON");
        let units = said["units"].as_array().expect("units").iter();
        units.map(|unit| unit["unit"].as_str().expect("a name").to_string()).collect()
    };
    assert_eq!(units("timestep=1"), ["seq=x, timestep=1", "seq=y, timestep=1"], "not the tenth");
    assert_eq!(units("seq=x, timestep=10"), ["seq=x, timestep=10"], "as it is printed");
    assert_eq!(units("kind=a, seq=y"), ["seq=y, timestep=1"], "by a column that is no part of the name");
    assert_eq!((units("w=0.5").len(), units("1").len()), (3, 1));
    let listed = "hint: there are: 0: seq=x, timestep=1; 1: seq=x, timestep=10; 2: seq=y, timestep=1";
    space.effigy(&["why", "r.yaml", "b", "99"]).expect_error(2, &["stage `b` has no unit `99`", listed]);
    space.effigy(&["trace", "r.yaml", "b", "99"]).expect_error(2, &["has no row `99`", "hint: there are: 0: "]);
}

const CHAIN: &str = "
params: { copies: 1 }
stages:
  src: { rows: [{ x: a }, { x: b }] }
  written: { run: 'echo {x} {param.copies} > {out}/w', shell: true, from: src, params: { copies: '${copies}' }, writes: { w: blob } }
  counted: { run: 'wc -c < {w} > {out}/n', shell: true, from: written, writes: { n: blob } }
";

#[test]
fn a_file_that_changed_is_known_although_rows_that_came_gave_it_another_name() {
    let space = Space::new();
    space.write("in/1.txt", "one\n");
    space.write(
        "r.yaml",
        "stages:
  src: { files: 'in/*.txt', parse: '{dir}/{n:i64}.txt' }
  copy: { run: 'cp {file} {out}/y', from: src, writes: { y: blob } }
",
    );
    space.settle();
    space.run();
    space.write("in/1.txt", "other\n");
    space.write("in/2.txt", "two\n");
    let told = json(&space, "copy");
    let of = |name: &str| {
        let units = told["units"].as_array().expect("a list").iter();
        let found = units.clone().find(|unit| unit["unit"].as_str().is_some_and(|unit| unit.contains(name)));
        found.unwrap_or_else(|| panic!("{told}"))["first"].as_bool()
    };
    assert_eq!((of("1.txt"), of("2.txt")), (Some(false), Some(true)), "{told}");
}

#[test]
fn what_nobody_can_tell_yet_is_said_and_led_back() {
    let space = Space::new();
    space.write("r.yaml", CHAIN);
    space.run();
    let text = why(&space, &["counted", "--param", "copies=3"]);
    let until = "nobody can tell about `counted` until `written` has run; about that:\n";
    for part in [until, "stage `written`: 2 to run, 0 known", "parameter `copies`: 1 -> 3"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // of some units it can be told
    let other = ["counted", "--set", "src.rows=[{x: a}, {x: c}]"];
    let text = why(&space, &other);
    let own = "stage `counted`: 0 to run, 1 known, 1 unknown until `written` has run\n";
    for part in [own, until, "stage `written`: 1 to run, 1 known", "to run: x=c"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let said: Value = serde_json::from_str(why(&space, &[&other[..], &["--json"]].concat()).trim()).expect("one line");
    assert_eq!((&said["unknown"], &said["until"]), (&1.into(), &"written".into()));
}

#[test]
fn a_unit_that_failed_is_no_news() {
    let space = Space::new();
    let recipe = "
stages:
  src: { rows: [{ x: a }, { x: b }] }
  some: { run: 'echo oh no >&2; test {x} != b && echo {x} > {out}/y', shell: true, from: src, writes: { y: blob }, allow_failures: 0.5 }
";
    space.write("r.yaml", recipe);
    assert!(why(&space, &["some", "x=b"]).contains("nothing like it has been run before"));
    assert_eq!(space.effigy(&["run", "r.yaml", "--json"]).counts(), (1, 0, 1));
    let text = why(&space, &["some", "x=b"]);
    let log = text.lines().find_map(|line| line.strip_prefix("    it failed last time; log: "));
    assert!(text.contains("to run: x=b\n") && !text.contains("nothing like it"), "{text}");
    assert!(space.read(log.expect("a log")).contains("oh no"), "{text}");
    assert!(!why(&space, &["some", "x=a"]).contains("it failed"), "the other one did not");
    // and whoever looks forward from its row is told the same
    let said = space.effigy(&["trace", "r.yaml", "src", "x=b", "--forward"]);
    assert!(said.out.contains("it failed; log: ") && said.out.contains("1 unit, 0.00 s"), "{}{}", said.out, said.err);
}

#[test]
fn a_diff_tells_of_tables_in_words() {
    let space = Space::new();
    let recipe = |more: &str| {
        format!("stages:\n  a: {{ rows: [{{ n: 1, g: x }}, {{ n: 2, g: x }}] }}\n  s: {{ select: a{more} }}\n")
    };
    space.write("r.yaml", &recipe(""));
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 0);
    let chosen = ", where: { n: { min: 2 } }, every: 2, by: g, overrides: [{ where: { n: 2 }, set: { n: 3 } }]";
    // a run that does nothing leaves no record: something has to run
    let ran = "  p: { run: 'echo {n} > {out}/y', shell: true, from: s, writes: { y: blob } }\n";
    space.write("r.yaml", &(recipe(chosen) + ran));
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 0);
    let said = space.effigy(&["diff"]);
    for part in [
        "  every: none -> 2 by g\n",
        "  where n: nothing -> at least 2\n",
        "  override 1 where n: nothing -> 2\n",
        "  override 1 set n: nothing -> 3\n",
    ] {
        assert!(said.out.contains(part), "{part}: {}{}", said.out, said.err);
    }
    assert!(!said.out.contains("Some(") && !said.out.contains("None"), "{}", said.out);
}

#[test]
fn names_and_values_are_shown_without_what_a_terminal_obeys() {
    let space = Space::new();
    space.write("in/esc\u{1b}[31m.txt", "x");
    space.write("in/plain.txt", "y");
    let text = r#"
stages:
  src: { files: 'in/*.txt' }
  vals: { rows: [{ v: "a\nb" }, { v: c }] }
  one: { run: 'false {path}', shell: true, from: src, writes: { y: blob } }
  two: { run: 'test {v} = c && echo > {out}/y', shell: true, from: vals, writes: { y: blob } }
  three: { run: 'echo {v} > {out}/y', shell: true, from: vals, writes: { y: blob } }
"#;
    space.write("r.yaml", text);
    let run = space.effigy(&["run", "r.yaml"]);
    run.expect_error(1, &["stage `one`, path=in/esc [31m.txt: ", "stage `two`, v=a b: "]);
    let tells = |args: &[&str], part: &str| {
        let said = space.effigy(args);
        assert!(said.code == 0 && said.out.contains(part), "{args:?}: {}{}", said.out, said.err);
        assert!(!said.out.contains('\u{1b}'), "{:?}", said.out);
    };
    tells(&["why", "r.yaml", "one"], "in/esc [31m.txt");
    tells(&["why", "r.yaml", "three"], "v=a b; v=c");
    tells(&["trace", "r.yaml", "three"], "row 0: v=a b");
    tells(&["trace", "r.yaml", "src"], "in/esc [31m.txt");
    assert!(!run.err.contains('\u{1b}'), "{:?}", run.err);
}

#[test]
fn equal_units_are_counted_alike_by_plan_and_why() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "stages:\n  a: { rows: [{ x: 1 }, { x: 1 }] }\n  f: { run: 'false {x}', shell: true, from: a, writes: { y: blob } }\n",
    );
    // a unit that has failed is no more known than before
    for _ in 0..2 {
        let plan = space.effigy(&["plan", "r.yaml", "--json"]).json();
        assert_eq!(["misses", "equal", "hits"].map(|name| plan[name].as_u64()), [Some(1), Some(1), Some(0)], "{plan}");
        let text = space.effigy(&["plan", "r.yaml"]).out;
        assert!(text.contains("in all: 1 to run, 1 equal to one that runs, 0 known"), "{text}");
        let why = space.effigy(&["why", "r.yaml", "f"]).out;
        assert!(why.contains("stage `f`: 1 to run, 1 equal to one that runs, 0 known\n"), "{why}");
        assert_eq!(space.effigy(&["run", "r.yaml"]).code, 1);
    }
    let why = space.effigy(&["why", "r.yaml", "f"]).out;
    assert_eq!(why.matches("/failed/").count(), 1, "{why}");
}
