//! What is computed again and what is not: one fact for each test, named for it, from a log of what ran.

use crate::support::Space;

/// A table of rows `id, text, extra`, through `upper` (reads `text`) and `twice` (reads `up`).
fn recipe(rows: &str, upper: &str) -> String {
    format!(
        "recipe: reuse
stages:
  src:
    rows:
{rows}
  upper: {{ run: \"printf %s {{text}} | tr a-z A-Z > {{out}}/up && echo upper {{text}} >> ran.log\", shell: true, from: src, writes: {{ up: blob }}{upper} }}
  twice: {{ run: \"cat {{up}} {{up}} > {{out}}/two && echo twice `cat {{up}}` >> ran.log\", shell: true, from: upper, writes: {{ two: blob }} }}
"
    )
}

fn rows(texts: &[(&str, i64)]) -> String {
    let row =
        |(i, (text, extra)): (usize, &(&str, i64))| format!("      - {{ id: {i}, text: {text}, extra: {extra} }}");
    texts.iter().enumerate().map(row).collect::<Vec<_>>().join("\n")
}

fn start(texts: &[(&str, i64)]) -> Space {
    let space = Space::new();
    space.write("r.yaml", &recipe(&rows(texts), ""));
    space.run();
    assert_eq!(space.ran().len(), 2 * texts.len());
    space
}

#[test]
fn nothing_changed_nothing_runs() {
    let space = start(&[("a", 1), ("b", 2)]);
    assert_eq!(space.run(), (0, 4, 0));
    assert!(space.ran().is_empty());
}

#[test]
fn unread_column_does_not_rerun() {
    let space = start(&[("a", 1), ("b", 2)]);
    space.write("r.yaml", &recipe(&rows(&[("a", 10), ("b", 20)]), ""));
    assert_eq!(space.run(), (0, 4, 0));
    assert_eq!(space.rows("twice")[1]["extra"], 20, "yet it is carried along as it is now");
}

#[test]
fn added_row_runs_alone() {
    let space = start(&[("a", 1), ("b", 2)]);
    space.write("r.yaml", &recipe(&rows(&[("a", 1), ("new", 3), ("b", 2)]), ""));
    assert_eq!(space.run(), (2, 4, 0));
    assert_eq!(space.ran(), ["twice NEW", "upper new"]);
    let texts: Vec<_> = space.rows("twice").iter().map(|row| row["text"].clone()).collect();
    assert_eq!(texts, ["a", "new", "b"], "the order is the input's");
}

#[test]
fn removed_row_runs_nothing() {
    let space = start(&[("a", 1), ("b", 2), ("c", 3)]);
    space.write("r.yaml", &recipe(&rows(&[("a", 1), ("c", 3)]), ""));
    assert_eq!(space.run(), (0, 4, 0));
    assert_eq!(space.rows("twice").len(), 2);
}

#[test]
fn reordered_rows_run_nothing() {
    let space = start(&[("a", 1), ("b", 2), ("c", 3)]);
    space.write("r.yaml", &recipe(&rows(&[("c", 3), ("a", 1), ("b", 2)]), ""));
    assert_eq!(space.run(), (0, 6, 0));
    assert_eq!(space.rows("twice")[0]["text"], "c");
}

#[test]
fn duplicated_row_runs_once() {
    let space = Space::new();
    space.write("r.yaml", &recipe(&rows(&[("a", 1), ("a", 2), ("b", 3)]), ""));
    assert_eq!(space.run(), (4, 2, 0));
    assert_eq!(space.ran(), ["twice A", "twice B", "upper a", "upper b"]);
    assert_eq!(space.rows("twice").len(), 3);
}

#[test]
fn equal_output_stops_the_change() {
    let space = start(&[("a", 1), ("b", 2)]);
    // another text with the same upper case
    space.write("r.yaml", &recipe(&rows(&[("A", 1), ("b", 2)]), ""));
    assert_eq!(space.run(), (1, 3, 0));
    assert_eq!(space.ran(), ["upper A"]);
}

#[test]
fn renamed_stage_runs_nothing() {
    let space = start(&[("a", 1), ("b", 2)]);
    let renamed = recipe(&rows(&[("a", 1), ("b", 2)]), "")
        .replace("upper:", "capitals:")
        .replace("from: upper", "from: capitals");
    space.write("r.yaml", &renamed);
    assert_eq!(space.run(), (0, 4, 0));
}

#[test]
fn stages_that_say_the_same_share_their_work() {
    let space = Space::new();
    let one = recipe(&rows(&[("a", 1), ("b", 2)]), "");
    let upper = one.lines().find(|line| line.starts_with("  upper:")).expect("it is there").replace("upper:", "again:");
    space.write("r.yaml", &format!("{one}{upper}\n"));
    assert_eq!(space.run(), (4, 2, 0));
    assert_eq!(space.ran().len(), 4);
}

#[test]
fn another_version_reruns_the_stage_and_stops_there() {
    let space = start(&[("a", 1), ("b", 2)]);
    space.write("r.yaml", &recipe(&rows(&[("a", 1), ("b", 2)]), ", version: 2"));
    assert_eq!(space.run(), (2, 2, 0));
    assert_eq!(space.ran(), ["upper a", "upper b"]);
}

#[test]
fn changed_code_file_reruns_the_stage() {
    let space = Space::new();
    let text = recipe(&rows(&[("a", 1), ("b", 2)]), ", code: [lib]");
    space.write("r.yaml", &text);
    space.write("lib/one.sh", "one");
    space.settle();
    space.run();
    space.ran();
    space.write("lib/one.sh", "one");
    assert_eq!(space.run(), (0, 4, 0), "touched, with equal content");
    space.write("lib/two.sh", "two");
    assert_eq!(space.run(), (2, 2, 0), "a file more in the folder");
}

#[test]
fn number_of_jobs_is_no_fact() {
    let space = start(&[("a", 1), ("b", 2), ("c", 3)]);
    let one = space.rows("twice");
    std::fs::remove_dir_all(space.path(".effigy")).expect("it is there");
    let said = space.effigy(&["run", "r.yaml", "--json", "--jobs", "1"]);
    assert_eq!(said.counts(), (6, 0, 0));
    assert_eq!(space.rows("twice"), one);
    assert_eq!(space.effigy(&["run", "r.yaml", "--json", "--jobs", "7"]).counts(), (0, 6, 0));
}

#[test]
fn missing_or_cut_file_is_made_again() {
    let space = start(&[("a", 1), ("b", 2)]);
    let said = space.effigy(&["show", "r.yaml", "upper", "--json", "--paths"]);
    let path = |row: usize| -> String {
        let line = said.out.lines().nth(row).expect("two rows");
        serde_json::from_str::<serde_json::Value>(line).expect("JSON")["up"].as_str().expect("a path").into()
    };
    std::fs::remove_file(path(0)).expect("it is there");
    assert_eq!(space.run(), (1, 3, 0));
    assert_eq!(space.ran(), ["upper a"]);
    std::fs::remove_file(path(1)).expect("it is there");
    std::fs::write(path(1), "").expect("a file");
    assert_eq!(space.run(), (1, 3, 0));
    assert_eq!(space.file("upper", 1, "up"), "B");
}

#[test]
fn changed_set_on_the_command_line_is_another_fact() {
    let space = start(&[("a", 1), ("b", 2)]);
    let said = space.effigy(&["run", "r.yaml", "--json", "--set", "upper.version=5"]);
    assert_eq!(said.counts(), (2, 2, 0));
    assert_eq!(space.run(), (0, 4, 0), "and the first is still known");
}

#[test]
fn select_with_equal_rows_runs_nothing_below() {
    let space = Space::new();
    let with_select = |condition: &str| {
        recipe(&rows(&[("a", 1), ("b", 2), ("c", 9)]), "").replace("from: src", "from: few")
            + &format!("  few: {{ select: src, where: {{ {condition} }} }}\n")
    };
    space.write("r.yaml", &with_select("extra: { max: 5 }"));
    assert_eq!(space.run(), (4, 0, 0));
    space.write("r.yaml", &with_select("text: { not: c }"));
    assert_eq!(space.run(), (0, 4, 0));
}
