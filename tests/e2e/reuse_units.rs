//! What is computed again of groups, of whole tables, of rows that fan out or are filtered, and of stages with
//! constants: one fact for each test, named for it, from a log of what ran.

use crate::support::{Space, provider};

/// A table of rows as YAML: group, value, and a column that nobody reads.
fn rows(rows: &[(&str, i64, i64)]) -> String {
    let row = |(k, x, unread): &(&str, i64, i64)| format!("      - {{ k: {k}, x: {x}, unread: {unread} }}\n");
    rows.iter().map(row).collect()
}

/// The rows through a stage of this grain that notes the values it got and puts out their sum, and a copy of that sum.
fn recipe(table: &[(&str, i64, i64)], grain: &str) -> String {
    format!(
        "stages:
  src:
    rows:
{}
  sum: {{ run: \"echo {{x}} | tr ' ' + | sed 's/^/0+/' > {{out}}/sum && echo $(( $(cat {{out}}/sum) )) > {{out}}/sum && echo sum {{x}} >> ran.log\", shell: true, from: src, {grain}, writes: {{ sum: blob }} }}
  copy: {{ run: \"cp {{sum}} {{out}}/copy && echo copy `cat {{sum}}` >> ran.log\", shell: true, from: sum, writes: {{ copy: blob }} }}
",
        rows(table)
    )
}

const GROUPS: &str = "grain: group, by: [k]";
const TABLE: [(&str, i64, i64); 4] = [("a", 1, 0), ("a", 2, 0), ("b", 10, 0), ("b", 20, 0)];

/// Runs the table, then another one: what ran the second time.
fn then(grain: &str, table: &[(&str, i64, i64)]) -> (Space, Vec<String>) {
    let space = Space::new();
    space.write("r.yaml", &recipe(&TABLE, grain));
    space.run();
    let units = if grain == GROUPS { 2 } else { 1 };
    assert_eq!(space.ran().len(), 2 * units, "each unit ran once");
    space.write("r.yaml", &recipe(table, grain));
    let (executed, _, failed) = space.run();
    let ran = space.ran();
    assert_eq!((executed as usize, failed), (ran.len(), 0), "what ran is what is said to have run");
    assert_eq!(space.run().0, 0, "and then nothing is left to do");
    (space, ran)
}

#[test]
fn changed_row_reruns_its_group_alone() {
    let (space, ran) = then(GROUPS, &[("a", 1, 0), ("a", 2, 0), ("b", 10, 0), ("b", 21, 0)]);
    assert_eq!(ran, ["copy 31", "sum 10 21"]);
    assert_eq!(space.file("copy", 1, "copy"), "31\n");
}

#[test]
fn added_row_reruns_its_group_alone() {
    let (_, ran) = then(GROUPS, &[("a", 1, 0), ("a", 2, 0), ("b", 10, 0), ("b", 20, 0), ("a", 3, 0)]);
    assert_eq!(ran, ["copy 6", "sum 1 2 3"]);
}

#[test]
fn added_group_runs_alone() {
    let (space, ran) = then(GROUPS, &[("c", 5, 0), ("a", 1, 0), ("a", 2, 0), ("b", 10, 0), ("b", 20, 0)]);
    assert_eq!(ran, ["copy 5", "sum 5"]);
    let groups: Vec<_> = space.rows("copy").iter().map(|row| row["k"].clone()).collect();
    assert_eq!(groups, ["c", "a", "b"], "the order is the input's");
}

#[test]
fn removed_group_runs_nothing() {
    let (space, ran) = then(GROUPS, &TABLE[2..]);
    assert!(ran.is_empty(), "{ran:?}");
    assert_eq!(space.rows("copy").len(), 1);
}

#[test]
fn reordered_groups_run_nothing() {
    let (space, ran) = then(GROUPS, &[("b", 10, 0), ("a", 1, 0), ("b", 20, 0), ("a", 2, 0)]);
    assert!(ran.is_empty(), "{ran:?}");
    assert_eq!(space.rows("copy")[0]["k"], "b");
}

#[test]
fn order_within_a_group_is_a_fact() {
    let (_, ran) = then(GROUPS, &[("a", 2, 0), ("a", 1, 0), ("b", 10, 0), ("b", 20, 0)]);
    assert_eq!(ran, ["sum 2 1"], "and an equal sum stops there");
}

#[test]
fn renamed_group_runs_nothing_and_is_carried_as_it_is_now() {
    let (space, ran) = then(GROUPS, &[("z", 1, 0), ("z", 2, 0), ("b", 10, 0), ("b", 20, 0)]);
    assert!(ran.is_empty(), "{ran:?}");
    assert_eq!(space.rows("copy")[0]["k"], "z");
}

#[test]
fn unread_column_does_not_rerun_a_group() {
    let (_, ran) = then(GROUPS, &[("a", 1, 7), ("a", 2, 7), ("b", 10, 0), ("b", 20, 7)]);
    assert!(ran.is_empty(), "{ran:?}");
}

#[test]
fn equal_output_of_a_group_stops_the_change() {
    let (_, ran) = then(GROUPS, &[("a", 0, 0), ("a", 3, 0), ("b", 10, 0), ("b", 20, 0)]);
    assert_eq!(ran, ["sum 0 3"]);
}

#[test]
fn groups_of_equal_rows_run_once() {
    let (space, ran) = then(GROUPS, &[("a", 7, 0), ("a", 8, 0), ("b", 7, 1), ("b", 8, 1)]);
    assert_eq!(ran, ["copy 15", "sum 7 8"]);
    assert_eq!(space.rows("copy").len(), 2);
}

#[test]
fn changed_row_reruns_the_whole() {
    let (_, ran) = then("grain: whole", &[("a", 1, 0), ("a", 2, 0), ("b", 10, 0), ("b", 21, 0)]);
    assert_eq!(ran, ["copy 34", "sum 1 2 10 21"]);
}

#[test]
fn unread_column_does_not_rerun_the_whole() {
    let (_, ran) = then("grain: whole", &[("a", 1, 7), ("b", 2, 8), ("c", 10, 9), ("d", 20, 10)]);
    assert!(ran.is_empty(), "{ran:?}");
}

#[test]
fn removed_or_reordered_rows_rerun_the_whole_and_equal_output_stops_there() {
    let (_, ran) = then("grain: whole", &[("b", 20, 0), ("a", 1, 0), ("a", 2, 0), ("b", 10, 0)]);
    assert_eq!(ran, ["sum 20 1 2 10"]);
    let (_, ran) = then("grain: whole", &TABLE[1..]);
    assert_eq!(ran, ["copy 32", "sum 2 10 20"]);
}

#[test]
fn row_outside_of_a_filter_is_no_fact() {
    let filtered = "grain: whole, where: { k: a }";
    let (_, ran) = then(filtered, &[("a", 1, 0), ("b", 11, 0), ("a", 2, 0), ("c", 5, 0)]);
    assert!(ran.is_empty(), "{ran:?}");
    let (_, ran) = then(filtered, &[("a", 1, 0), ("a", 2, 0), ("a", 10, 0), ("b", 20, 0)]);
    assert_eq!(ran, ["copy 13", "sum 1 2 10"]);
}

#[test]
fn rows_that_newly_pass_a_filter_run_alone() {
    let space = Space::new();
    let filtered = |most: i64| recipe(&TABLE, &format!("where: {{ x: {{ max: {most} }} }}"));
    space.write("r.yaml", &filtered(2));
    assert_eq!(space.run(), (4, 0, 0));
    space.ran();
    space.write("r.yaml", &filtered(10));
    assert_eq!(space.run(), (2, 4, 0));
    assert_eq!(space.ran(), ["copy 10", "sum 10"]);
    space.write("r.yaml", &filtered(1));
    assert_eq!(space.run(), (0, 2, 0), "fewer rows are all known");
    assert_eq!(space.rows("copy").len(), 1);
}

/// Files that fan out into a row for each word, and a program for each of these.
fn fan_out(files: &[(&str, &str)]) -> Space {
    let space = Space::new();
    let log = space.path("ran.log").display().to_string();
    for (name, text) in files {
        space.write(&format!("in/{name}"), text);
    }
    space.write(
        "r.yaml",
        &format!(
            "
providers: ['{}']
stages:
  src: {{ files: 'in/*' }}
  words: {{ stage: split, from: src, log: '{log}' }}
  each: {{ run: \"printf %s {{word}} > {{out}}/copy && echo each {{word}} >> ran.log\", shell: true, from: words, writes: {{ copy: blob }} }}
",
            provider()
        ),
    );
    space.settle();
    space.run();
    space
}

#[test]
fn changed_row_of_a_fan_out_runs_alone_below() {
    let space = fan_out(&[("a", "one two three"), ("b", "four one")]);
    let mut first = space.ran();
    first.dedup();
    assert_eq!(
        first,
        ["each four", "each one", "each three", "each two", "four one", "one two three"],
        "a word that is there twice ran once"
    );
    space.write("in/a", "one zwei three");
    space.settle();
    assert_eq!(space.run(), (2, 1 + 4, 0));
    assert_eq!(space.ran(), ["each zwei", "one zwei three"]);
    let words: Vec<_> = space.rows("each").iter().map(|row| row["word"].clone()).collect();
    assert_eq!(words, ["one", "zwei", "three", "four", "one"]);
}

#[test]
fn fan_out_that_grows_or_shrinks_runs_only_what_is_new() {
    let space = fan_out(&[("a", "one two"), ("b", "three")]);
    space.ran();
    space.write("in/a", "zero one two");
    space.settle();
    space.run();
    assert_eq!(space.ran(), ["each zero", "zero one two"]);
    space.write("in/a", "two");
    space.settle();
    space.run();
    assert_eq!(space.ran(), ["two"]);
    assert_eq!(space.rows("each").len(), 2);
}

#[test]
fn unit_that_puts_out_no_rows_is_known_and_comes_back_alone() {
    let space = fan_out(&[("a", ""), ("b", "one")]);
    space.ran();
    assert_eq!(space.run(), (0, 3, 0));
    space.write("in/a", "two");
    space.settle();
    assert_eq!(space.run(), (2, 2, 0));
    assert_eq!(space.ran(), ["each two", "two"]);
    space.write("in/a", "");
    space.settle();
    assert_eq!(space.run(), (0, 3, 0));
}

/// A row stage of a provider that may read a weight, over rows given with these columns.
fn counting(columns: &str, space: &Space) {
    space.write("f.txt", "word");
    let log = space.path("ran.log").display().to_string();
    space.write(
        "r.yaml",
        &format!(
            "
providers: ['{}']
stages:
  src: {{ files: f.txt }}
  seen: {{ select: src, set: {{ {columns} }} }}
  count: {{ stage: count, from: seen, log: '{log}' }}
",
            provider()
        ),
    );
    space.settle();
}

#[test]
fn optional_column_counts_from_when_it_is_there() {
    let space = Space::new();
    counting("other: 1", &space);
    assert_eq!(space.run(), (1, 0, 0));
    counting("other: 2, another: 1.5", &space);
    assert_eq!(space.run(), (0, 1, 0), "columns that it does not declare");
    counting("other: 2, weight: 2.0", &space);
    assert_eq!(space.run(), (1, 0, 0), "one that it may read");
    assert_eq!(space.rows("count")[0]["letters"], 8.0);
    counting("other: 2, weight: 3.0", &space);
    assert_eq!(space.run(), (1, 0, 0));
    counting("other: 2", &space);
    assert_eq!(space.run(), (0, 1, 0), "without it, as at first");
    assert_eq!(space.rows("count")[0]["letters"], 4.0);
}

/// Two rows, each worked on with a constant: a table that a program made from one value.
fn constant(value: i64, unread: i64) -> String {
    format!(
        "
stages:
  src: {{ rows: [ {{ x: 1 }}, {{ x: 2 }} ] }}
  seed: {{ rows: [ {{ v: {value}, unread: {unread} }} ] }}
  model: {{ run: \"echo $(( {{v}} / 2 )) > {{out}}/model && echo model {{v}} >> ran.log\", shell: true, from: seed, writes: {{ model: blob }} }}
  weights: {{ select: model, columns: [model] }}
  use: {{ run: \"test -s {{with.model}} && echo {{x}} > {{out}}/y && echo use {{x}} >> ran.log\", shell: true, from: src, with: {{ model: weights }}, writes: {{ y: blob }} }}
  alone: {{ run: \"echo {{x}} > {{out}}/y && echo alone {{x}} >> ran.log\", shell: true, from: src, writes: {{ y: blob }} }}
"
    )
}

#[test]
fn changed_constant_reruns_all_units_that_take_it_and_no_others() {
    let space = Space::new();
    space.write("r.yaml", &constant(10, 0));
    assert_eq!(space.run(), (5, 0, 0));
    space.ran();
    space.write("r.yaml", &constant(20, 0));
    assert_eq!(space.run(), (3, 2, 0));
    assert_eq!(space.ran(), ["model 20", "use 1", "use 2"]);
    space.write("r.yaml", &constant(10, 0));
    assert_eq!(space.run(), (0, 5, 0), "the former one is still known");
}

#[test]
fn constant_that_comes_out_equal_reruns_nothing() {
    let space = Space::new();
    space.write("r.yaml", &constant(10, 0));
    space.run();
    space.ran();
    // 11 / 2 is 10 / 2
    space.write("r.yaml", &constant(11, 5));
    assert_eq!(space.run(), (1, 4, 0));
    assert_eq!(space.ran(), ["model 11"]);
}

#[test]
fn optional_column_that_rows_do_not_carry_on_is_not_missed() {
    let space = Space::new();
    space.write("f.txt", "word");
    let recipe = format!(
        "
providers: ['{}']
stages:
  src: {{ files: f.txt }}
  seen: {{ select: src, rename: {{ source: file }}, set: {{ weight: 2.0, side: left }} }}
  both: {{ run: 'cat {{source}} > {{out}}/file', shell: true, from: seen, grain: group, by: side, writes: {{ file: blob }} }}
  count: {{ stage: count, from: both, log: '{}' }}
",
        provider(),
        space.path("ran.log").display()
    );
    space.write("r.yaml", &recipe);
    space.settle();
    space.run();
    assert_eq!(space.rows("count")[0]["letters"], 4.0);
}

#[test]
fn a_plan_looks_where_a_run_looks() {
    let space = Space::new();
    let recipe = |rows: i64| {
        let table: Vec<(&str, i64, i64)> = (0..rows).map(|x| ("a", x, 0)).collect();
        format!(
            "stages:\n  src:\n    rows:\n{}  out: {{ run: 'echo {{x}} > {{out}}/out', shell: true, from: src, writes: {{ out: blob }} }}\n",
            self::rows(&table)
        )
    };
    space.write("r.yaml", &recipe(20));
    assert_eq!(space.run(), (20, 0, 0));
    // what the last run's table holds needs no record
    for folder in ["records", "index"] {
        std::fs::remove_dir_all(space.path(".effigy").join(folder)).expect("a run has made it");
    }
    space.write("r.yaml", &recipe(21));
    let plan = space.effigy(&["plan", "r.yaml", "--json"]).json();
    assert_eq!((plan["hits"].as_u64(), plan["misses"].as_u64()), (Some(20), Some(1)));
    assert_eq!(space.run(), (1, 20, 0));
}
