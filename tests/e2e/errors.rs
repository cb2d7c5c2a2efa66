//! What a user is told when something is wrong: the place, a sentence, a hint, and an exit code.

use crate::support::{Space, provider};

/// Runs a recipe that is wrong; nothing must have run.
fn wrong(yaml: &str, parts: &[&str]) {
    let space = Space::new();
    space.write("in/a.txt", "a");
    space.write("r.yaml", yaml);
    space.effigy(&["run", "r.yaml"]).expect_error(2, &[&["error: r.yaml:"], parts].concat());
    assert!(space.ran().is_empty());
}

#[test]
fn writing() {
    wrong("stages:\n  a: { files: 'in/*' }\n  a: { files: 'x' }\n", &["r.yaml:3:3", "duplicate", "hint"]);
    wrong("stages:\n\ta: 1\n", &["r.yaml:2"]);
    wrong("stage: { a: { files: x } }", &["r.yaml:1:1", "no field `stage`", "did you mean `stages`?"]);
    wrong(
        "stages:\n  a: { files: 'in/*', rot: x }",
        &["r.yaml:2:23", "stage `a` has no field `rot`", "did you mean `root`?"],
    );
    wrong("stages:\n  a: { files: 7 }", &["r.yaml:2:15", "a pattern or a list of patterns, not an integer"]);
    wrong("stages:\n  a: { files: 'in/[' }", &["r.yaml:2:15", "no pattern for file names"]);
    wrong("variants: { a: {} }\nstages: { a: { files: x } }", &["`variants:` is not supported yet"]);
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
        &["`factor` of stage `c` (count) must be a number, not text"],
    );
    check("stage: count, from: src, log: x, mishap: eror", &["cannot be `eror`", "did you mean `error`?"]);
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
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["the provider `./nobody` cannot be started"]);
}

#[test]
fn recipes_and_stages_that_are_not_there() {
    let space = Space::new();
    space.write("r.yaml", "stages: { alpha: { rows: [] } }");
    space.effigy(&["run", "nowhere.yaml"]).expect_error(2, &["there is no recipe `nowhere.yaml`"]);
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
    space.effigy(&["run", "r.yaml"]).expect_error(1, &[&["failed: stage `s`"], parts].concat());
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
    fails("run: 'sleep 20', from: src, timeout: 0.2, writes: { y: blob }", &["longer than its `timeout` of 0.2 s"]);
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
        space.write("r.yaml", "stages:\n  src: { files: 'in/*' }\n  s: { run: 'cp table {out}/out.arrow', from: src, writes: { y: f64 } }");
        let said = space.effigy(&["run", "r.yaml"]);
        match expected {
            Some(parts) => said.expect_error(1, parts),
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
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["stage `j`", "2 rows for k=1", "l: skipped"]);
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
