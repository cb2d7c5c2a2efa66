//! `matrix:` and `variants:`: what is done once and what for each combination, how varied stages are named, and what is
//! wrong.

use crate::support::Space;
use serde_json::Value;

/// `base` varies along nothing, `train` along `seed`, `score` along `seed` and `size`; `all` gathers.
const MATRIX: &str = "
params: { steps: 5 }
matrix: { seed: [1, 2, 3], size: [32, 64] }
stages:
  src: { rows: [ { id: 0 }, { id: 1 } ] }
  base: { run: 'echo base {id} >> ran.log; echo {id} > {out}/x', shell: true, from: src, writes: { x: blob } }
  train:
    run: 'echo train {param.seed} >> ran.log; cat {x} > {out}/m; echo {param.seed} {param.steps} >> {out}/m'
    shell: true
    from: base
    grain: whole
    params: { seed: '${seed}', steps: '${steps}' }
    writes: { m: blob }
  score:
    run: 'echo score {param.size} `tail -n 1 {m}` >> ran.log; cat {m} > {out}/s'
    shell: true
    from: train
    params: { size: '${size}' }
    writes: { s: blob }
  all: { gather: score }
";

/// Variants that change a parameter, a field of a stanza, and nothing.
const VARIANTS: &str = "
params: { steps: 5 }
variants:
  full: {}
  short: { steps: 1 }
  loud: { train.shout: true, train.params: { steps: '${steps}', loud: yes } }
stages:
  src: { rows: [ { id: 0 }, { id: 1 } ] }
  base: { run: 'echo base {id} >> ran.log; echo {id} > {out}/x', shell: true, from: src, writes: { x: blob } }
  train:
    run: 'echo train {param.steps} {param.loud} >> ran.log; cat {x} > {out}/m'
    shell: true
    from: base
    grain: whole
    params: { steps: '${steps}', loud: no }
    writes: { m: blob }
  look: { run: 'echo look >> ran.log; cat {m} > {out}/l', shell: true, from: train, writes: { l: blob } }
  all: { gather: look }
";

fn start(recipe: &str) -> Space {
    let space = Space::new();
    space.write("r.yaml", recipe);
    space
}

fn variants() -> String {
    VARIANTS.replace("train.shout: true, ", "")
}

fn run(space: &Space, more: &[&str]) -> (u64, u64, u64) {
    let said = space.effigy(&[&["run", "r.yaml", "--json"], more].concat());
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    said.counts()
}

fn names(space: &Space, more: &[&str]) -> Vec<String> {
    let said = space.effigy(&[&["plan", "r.yaml", "--json"], more].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    let stages = said.json()["stages"].as_array().expect("a list").clone();
    stages.iter().map(|stage| stage["stage"].as_str().expect("a name").to_string()).collect()
}

fn column(rows: &[Value], name: &str) -> Vec<String> {
    rows.iter().map(|row| row[name].to_string().replace('"', "")).collect()
}

#[test]
fn work_that_does_not_depend_on_an_axis_is_done_once() {
    let space = start(MATRIX);
    assert_eq!(run(&space, &[]), (2 + 3 + 6, 0, 0));
    let ran = space.ran();
    let count = |start: &str| ran.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("base"), count("train"), count("score")), (2, 3, 6), "{ran:?}");
    assert_eq!(run(&space, &[]), (0, 11, 0));
    // one value more runs what depends on it, and nothing else
    space.write("r.yaml", &MATRIX.replace("size: [32, 64]", "size: [16, 32, 64]"));
    assert_eq!(run(&space, &[]), (3, 11, 0));
    assert_eq!(space.ran(), ["score 16 1 5", "score 16 2 5", "score 16 3 5"]);
    space.write("r.yaml", &MATRIX.replace("seed: [1, 2, 3]", "seed: [3, 1]"));
    assert_eq!(run(&space, &[]), (0, 2 + 2 + 4, 0), "the order of values is no fact of a unit");
}

#[test]
fn varied_stages_have_names_that_say_which() {
    let space = start(MATRIX);
    let all = names(&space, &[]);
    assert_eq!(&all[..5], ["src", "base", "train@seed=1", "train@seed=2", "train@seed=3"]);
    assert_eq!(all[5], "score@seed=1,size=32");
    assert_eq!((all.len(), all[11].as_str()), (12, "all"));
    let space = start(&variants());
    let expected =
        ["src", "base", "train@full", "train@short", "train@loud", "look@full", "look@short", "look@loud", "all"];
    assert_eq!(names(&space, &[]), expected);
}

#[test]
fn a_gathering_stage_has_the_rows_of_all_variants_with_the_values_as_columns() {
    let space = start(MATRIX);
    run(&space, &[]);
    let rows = space.rows("all");
    assert_eq!(column(&rows, "seed"), ["1", "1", "2", "2", "3", "3"]);
    assert_eq!(column(&rows, "size"), ["32", "64", "32", "64", "32", "64"]);
    assert_eq!(column(&space.rows("train@seed=2"), "seed"), ["2"], "already the varied stage's own rows have them");
    assert_eq!(space.rows("score"), rows, "a stage's name alone shows all its variants");
    assert_eq!(column(&space.rows("score@size=64"), "seed"), ["1", "2", "3"]);
    assert!(space.rows("base")[0].get("seed").is_none(), "shared rows have none");
}

#[test]
fn gathering_over_one_axis_leaves_the_others() {
    let more = "  each: { gather: score, over: seed }
  mean: { run: 'wc -l {s} > {out}/n', shell: true, from: each, grain: whole, writes: { n: blob } }
";
    let space = start(&format!("{MATRIX}{more}"));
    assert_eq!(run(&space, &[]), (11 + 1, 1, 0), "for both sizes the files are equal, and so the work is the same");
    assert_eq!(column(&space.rows("each@size=32"), "seed"), ["1", "2", "3"]);
    assert_eq!(column(&space.rows("mean"), "size"), ["32", "64"]);
    space.effigy(&["show", "r.yaml", "mean@seed=1"]).expect_error(2, &["no stage `mean@seed=1`", "hint: "]);
}

/// A seed fails as long as `bad` names it; what gathers may lack half of the seeds.
const FAILING: &str = "
params: { bad: 2 }
matrix: { seed: [1, 2, 3] }
stages:
  train: { run: 'test {param.seed} != {param.bad} && echo {param.seed} > {out}/m', shell: true, params: { seed: '${seed}', bad: '${bad}' }, writes: { m: blob } }
  score: { run: 'cat {m} > {out}/s', shell: true, from: train, writes: { s: blob } }
  all: { gather: score, allow_failures: 0.5 }
  strict: { gather: score }
  count: { run: 'wc -l {in} > {out}/n', shell: true, from: all, grain: whole, reads: [seed, s], writes: { n: blob } }
  first: { select: score, columns: [seed] }
  named: { concat: [count, strict], label: { column: of, values: [one, two] }, allow_failures: 0.5 }
";

#[test]
fn what_gathers_may_do_without_a_variant_that_failed() {
    let space = start(FAILING);
    let said = space.effigy(&["run", "r.yaml", "--json"]);
    assert_eq!(said.code, 1, "what failed is still a failure: {}", said.out);
    let (executed, _, failed) = said.counts();
    assert_eq!((executed, failed), (2 + 2 + 1, 1));
    assert!(said.out.contains("stage `all` is put together without 1 of its 3 tables: score@seed=2"), "{}", said.out);
    assert_eq!(column(&space.rows("all"), "seed"), ["1", "3"]);
    assert_eq!(space.rows("count").len(), 1, "what comes after it goes on");
    assert_eq!(column(&space.rows("named"), "of"), ["one"], "a table keeps its own label");
    let status = space.effigy(&["status"]);
    assert!(status.out.contains("strict") && status.out.contains("skipped"), "{}", status.out);
    // too many
    space.write("r.yaml", &FAILING.replace("!= {param.bad}", "= {param.bad}"));
    let said = space.effigy(&["run", "r.yaml", "--json"]);
    assert_eq!((said.code, said.out.contains("put together without")), (1, false), "{}", said.out);
    // when what failed does not any more, the table is whole
    space.write("r.yaml", FAILING);
    assert_eq!(run(&space, &["--param", "bad=0"]).2, 0);
    assert_eq!(column(&space.rows("all"), "seed"), ["1", "2", "3"]);
    assert_eq!(column(&space.rows("named"), "of"), ["one", "two", "two", "two"]);
    space.write("r.yaml", &FAILING.replace("allow_failures: 0.5", "allow_failures: 7"));
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["a share of the tables, from 0 to 1, not 7", "hint: "]);
}

#[test]
fn variants_differ_in_parameters_and_fields_and_share_the_rest() {
    let space = start(&variants());
    assert_eq!(run(&space, &[]), (2 + 3 + 1, 2, 0), "the three `look` read the same, and do not know their variant");
    assert_eq!(space.ran(), ["base 0", "base 1", "look", "train 1 no", "train 5 no", "train 5 yes"]);
    assert_eq!(column(&space.rows("all"), "variant"), ["full", "short", "loud"]);
    // the command line stands above variants
    assert_eq!(run(&space, &["--param", "steps=7"]), (2, 6, 0));
    assert_eq!(space.ran(), ["train 7 no", "train 7 yes"]);
}

#[test]
fn a_program_that_takes_the_table_reads_its_own_axes_only_by_name() {
    // `mark` writes the same in both variants
    let text = "
variants: { one: { mark.version: 1 }, two: { mark.version: 2 } }
stages:
  src: { rows: [ { id: 0 }, { id: 1 } ] }
  mark: { run: 'echo {id} > {out}/x', shell: true, from: src, version: 1, writes: { x: blob } }
  sum: { run: 'echo sum >> ran.log; wc -c {in} > /dev/null; echo > {out}/y', shell: true, from: mark, grain: whole, writes: { y: blob } }
";
    let space = start(text);
    assert_eq!(run(&space, &[]), (2 + 2 + 1, 1, 0), "equal rows are equal work, whichever variant they are of");
    assert_eq!(column(&space.rows("mark"), "variant"), ["one", "one", "two", "two"]);
    space.write("r.yaml", &text.replace("grain: whole", "grain: whole, reads: [variant]"));
    assert_eq!(run(&space, &[]), (2, 4, 0));
}

#[test]
fn variant_chooses_and_forgets_nothing_of_the_others() {
    let space = start(MATRIX);
    assert_eq!(run(&space, &["--variant", "seed=2"]), (2 + 1 + 2, 0, 0));
    assert_eq!(column(&space.rows("all"), "seed"), ["2", "2"]);
    assert_eq!(run(&space, &["--variant", "seed=1", "--variant", "seed=2", "--variant", "size=64"]), (2, 4, 0));
    run(&space, &[]);
    let before = space.rows("score");
    run(&space, &["--variant", "seed=3", "--set", "all.over=[seed, size]"]);
    assert_eq!(space.rows("score"), before, "their tables are still there");
    space.effigy(&["cache", "gc", "--delete"]);
    assert_eq!(run(&space, &[]), (0, 11, 0));
    let wrong = |text: &str, parts: &[&str]| {
        space.effigy(&["run", "r.yaml", "--variant", text]).expect_error(2, parts);
    };
    wrong("seed=70", &["axis `seed` has no value `70`", "hint: there are: 1, 2, 3"]);
    wrong("seed=12", &["axis `seed` has no value `12`", "hint: there are: 1, 2, 3"]);
    wrong("sede=1", &["no axis `sede`", "did you mean `seed`?"]);
    wrong("full", &["the recipe has no `variants:`", "seed=1"]);
    let said = space.effigy(&["run", "r.yaml", "--variant", "seed=1", "--only", "train@seed=2"]);
    said.expect_error(2, &["no stage `train@seed=2`", "hint: `--variant` leaves it out"]);
    let said = space.effigy(&["run", "r.yaml", "--param", "seed=9"]);
    said.expect_error(2, &["`seed` is an axis, not a parameter", "hint: `--variant seed=VALUE`"]);
    assert_eq!(said.err.matches("error: ").count(), 1, "{}", said.err);
}

#[test]
fn numbers_of_an_axis_are_meant_however_they_are_written() {
    let space = start(&MATRIX.replace("size: [32, 64]", "size: [0.1, 2.5]"));
    let chosen = names(&space, &["--variant", "size=0.10", "--variant", "seed=1"]);
    assert_eq!(chosen, ["src", "base", "train@seed=1", "score@seed=1,size=0.1", "all"]);
    let said = space.effigy(&["plan", "r.yaml", "--variant", "size=0.2"]);
    said.expect_error(2, &["axis `size` has no value `0.2`", "hint: there are: 0.1, 2.5"]);
}

#[test]
fn commands_take_all_variants_or_one() {
    let space = start(MATRIX);
    assert_eq!(run(&space, &["--only", "train"]), (5, 0, 0));
    assert_eq!(run(&space, &["--only", "score@seed=1,size=64"]), (1, 3, 0));
    run(&space, &[]);
    assert_eq!(run(&space, &["--force", "score@size=32", "--from", "score@size=32"]).0, 3);
    let why = space.effigy(&["why", "r.yaml", "train@seed=2", "--param", "steps=6"]);
    assert!(why.out.contains("stage `train@seed=2`: 1 to run"), "{}{}", why.out, why.err);
    assert!(why.out.contains("parameter `steps`: 5 -> 6") && !why.out.contains("parameter `seed`"), "{}", why.out);
    assert_eq!(space.effigy(&["why", "r.yaml", "train"]).out.matches("stage `train@").count(), 3);
    let check = space.effigy(&["run", "r.yaml", "--check", "--only", "train@seed=1", "--from", "train"]);
    assert!(check.out.contains("train@seed=1: 1 executed again: equal"), "{}{}", check.out, check.err);
}

#[test]
fn a_plan_foretells_variants() {
    let space = start(MATRIX);
    let count = |name: &str| space.effigy(&["plan", "r.yaml", "--json"]).json()[name].as_u64().expect("a count");
    // each `train` takes two rows and may give as many, so there may be two units in each `score`
    assert_eq!((count("hits"), count("misses"), count("unknown")), (0, 2, 3 + 6 * 2));
    run(&space, &[]);
    assert_eq!((count("hits"), count("misses"), count("unknown")), (11, 0, 0));
    std::fs::remove_dir_all(space.path(".effigy/runs/last")).expect("it is there");
    assert_eq!((count("hits"), count("misses"), count("unknown")), (11, 0, 0), "also from the units alone");
}

#[test]
fn excluded_combinations_are_not_there() {
    let excluded = |text: &str| {
        let more = format!("size: [32, 64], exclude: {text} }}");
        MATRIX.replace("size: [32, 64] }", &more)
    };
    let all = names(&start(MATRIX), &[]);
    let space = start(&excluded("[{ seed: 1, size: 64 }, { seed: 3 }]"));
    let left = names(&space, &[]);
    let gone = |name: &&String| !name.contains("seed=3") && !name.contains("seed=1,size=64");
    assert_eq!(left, all.iter().filter(gone).cloned().collect::<Vec<_>>());
    assert!(left.len() < all.len() && left.iter().any(|name| name.contains("seed=1,size=32")), "{left:?}");
    run(&space, &[]);
    for (text, part) in [
        ("[{ seeds: 1 }]", "did you mean `seed`?"),
        ("[{ seed: 7 }]", "axis `seed` has no value `7`"),
        ("{ seed: 1 }", "`exclude` takes a list of combinations"),
        ("[{}]", "would leave out everything"),
        ("[{ seed: 1 }, { seed: 2 }, { seed: 3 }]", "`exclude:` leaves no combination of stage"),
    ] {
        start(&excluded(text)).effigy(&["run", "r.yaml"]).expect_error(2, &[part, "hint: "]);
    }
    let chosen = ["run", "r.yaml", "--variant", "seed=3"];
    space.effigy(&chosen).expect_error(2, &["leaves no combination that `--variant` chose", "hint: "]);
}

#[test]
fn what_would_gather_nothing_that_was_chosen_is_left_out_with_what_reads_it() {
    let text = "
matrix: { seed: [1, 2], size: [3, 4], exclude: [{ seed: 1, size: 3 }] }
stages:
  a: { rows: [{ k: 1 }] }
  b: { run: 'echo {param.s} {param.t} > {out}/f', shell: true, from: a, params: { s: '${seed}', t: '${size}' }, writes: { f: blob } }
  z: { gather: b, over: [seed] }
  y: { select: z }
  all: { gather: y }
";
    let space = start(text);
    assert_eq!(names(&space, &[]).len(), 1 + 3 + 2 + 2 + 1);
    assert_eq!(names(&space, &["--variant", "seed=1"]), ["a", "b@seed=1,size=4", "z@size=4", "y@size=4", "all"]);
    // what the recipe itself leaves nothing to is a mistake of the recipe
    let none = text.replace("size: 3 }]", "size: 3 }, { seed: 2, size: 3 }]");
    let wrong =
        ["r.yaml:6:16: stage `z@size=3` has nothing to gather: `exclude:` leaves it none", "hint: leave out its own"];
    start(&none).effigy(&["plan", "r.yaml"]).expect_error(2, &wrong);
    // a stage of one variant alone, gathered where the other is chosen
    let space = start(
        "
variants: { a: {}, b: { stages: { extra: { rows: [{ k: 1 }] } } } }
stages:
  base: { rows: [{ k: 1, v: '${variant}' }] }
  all: { gather: extra }
report:
  - { table: all }
",
    );
    assert_eq!(names(&space, &["--variant", "a"]), ["base@a"]);
}

#[test]
fn a_plan_counts_what_variants_share_once() {
    // two stages of the same words and rows: the units of one are those of the other
    let recipe = "
matrix: { seed: [1, 2] }
stages:
  src: { rows: [{ x: a }, { x: b }] }
  same: { run: 'echo {x} > {out}/m', shell: true, from: src, writes: { m: blob }, where: { x: [a, b] } }
  twin: { run: 'echo {x} > {out}/m', shell: true, from: src, writes: { m: blob } }
  seeded: { run: 'echo {x} {param.seed} > {out}/s', shell: true, from: src, params: { seed: '${seed}' }, writes: { s: blob } }
";
    let space = start(recipe);
    let plan = space.effigy(&["plan", "r.yaml", "--json"]).json();
    let counts = ["misses", "equal", "hits"].map(|name| plan[name].as_u64().expect("a count"));
    assert_eq!(counts, [2 + 4, 2, 0], "{plan}");
    assert_eq!(run(&space, &[]), (6, 2, 0));
}

#[test]
fn profiles_bring_axes_and_reports_show_all_variants() {
    let recipe = MATRIX
        .replace("matrix: { seed: [1, 2, 3], size: [32, 64] }", "profiles: { sweep: { matrix: { seed: [1, 2] } } }")
        .replace("params: { steps: 5 }", "params: { steps: 5, seed: 0, size: 32 }");
    let space = start(&format!("{recipe}report:\n  - {{ table: score, columns: [seed, s] }}\n"));
    let said = space.effigy(&["run", "r.yaml", "--json"]);
    said.expect_error(2, &["stage `score` has no column `seed`"]);
    space.write("r.yaml", &format!("{recipe}report:\n  - {{ table: score, columns: [s] }}\n"));
    assert_eq!(run(&space, &[]), (2 + 1 + 1, 0, 0));
    space.write("r.yaml", &format!("{recipe}report:\n  - {{ table: score, columns: [seed, s] }}\n"));
    assert_eq!(run(&space, &["--profile", "sweep"]), (2 + 2, 2, 0));
    let report = space.read("out/report.md");
    assert!(report.contains("| seed |") && report.contains("| 1 |") && report.contains("| 2 |"), "{report}");
    assert!(report.contains("### Score\n"), "{report}");
}

#[test]
fn wrong_axes_are_told_with_a_place_once() {
    let wrong = |old: &str, new: &str, parts: &[&str]| {
        let space = start(&MATRIX.replace(old, new));
        let said = space.effigy(&["run", "r.yaml"]);
        said.expect_error(2, parts);
        assert_eq!(said.err.matches("error: ").count(), 1, "{}", said.err);
        assert_eq!(said.err.matches("hint: ").count(), 1, "{}", said.err);
        assert!(space.ran().is_empty());
    };
    wrong("seed: [1, 2, 3]", "seed: 1", &["r.yaml:3:17: axis `seed` must be a list"]);
    wrong("seed: [1, 2, 3]", "seed: []", &["at least one scalar"]);
    wrong("seed: [1, 2, 3]", "seed: [1, 2, 3], other: [1]", &["no stage varies along the axis `other`"]);
    wrong("seed: [1, 2, 3]", "seed: [1, a]", &["values of several types"]);
    wrong("seed: [1, 2, 3]", "seed: [1, 1]", &["the value `1` twice"]);
    wrong("seed: [1, 2, 3]", "seed: [{ a: 1 }]", &["sets of several values go under `variants:`"]);
    wrong("'${seed}'", "'${sede}'", &["`${sede}` stands for no parameter", "did you mean `seed`?"]);
    wrong("gather: score", "gather: base", &["stage `base` does not vary"]);
    wrong("gather: score", "gather: scor", &["there is no stage `scor`", "did you mean `score"]);
    wrong("gather: score", "gather: score, over: sizes", &["there is no axis `sizes`", "did you mean `size`?"]);
    // wrong in each of three variants, told once
    wrong("writes: { m: blob }", "writes: { m: blobb }", &["did you mean `blob`?"]);
    wrong("writes: { m: blob }", "writes: { m: blob, seed: i64 }", &["has a column `seed`, and varies along"]);
    wrong("id: 0", "size: 0", &["column `size`, and varies along the axis `size`"]);
    let space = start(&VARIANTS.replace("short:", "a/b:"));
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["r.yaml:5:3: `a/b` cannot be the name of a variant", "hint: "]);
    let space = start(&VARIANTS.replace("steps: 1", "stpes: 1"));
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["r.yaml:5:12: the recipe has no parameter `stpes`", "`steps`?"]);
    let space = start(VARIANTS);
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["stage `train@loud` has no field `shout`"]);
    let space = start(&VARIANTS.replace("train.shout", "trian.shout"));
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["r.yaml:6:11", "no stage `trian`", "did you mean `train`?"]);
}
