//! What `why` tells of rows: those behind a changed column, behind a unit of many rows, and behind a constant.

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
