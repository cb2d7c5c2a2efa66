//! Commands that look at what is there: graph, trace, diff, show with conditions, init, completions.

use crate::support::{Space, provider};
use serde_json::Value;

const RECIPE: &str = "
recipe: demo
params: { suffix: a }
stages:
  src: { files: 'in/*.txt' }
  upper: { run: 'tr a-z A-Z < {file} > {out}/up', shell: true, from: src, writes: { up: blob } }
  model: { run: 'cat {up} > {out}/model', shell: true, from: upper, grain: whole, writes: { model: blob } }
  learned: { select: model, columns: [model] }
  used: { run: 'cat {up} > {out}/end && echo {param.suffix} >> {out}/end', shell: true, from: upper, with: { model: learned }, params: { suffix: '${suffix}' }, writes: { end: blob } }
  alone: { run: 'wc -c < {up} > {out}/size', shell: true, from: upper, writes: { size: blob } }
  few: { select: alone, where: { path: [in/1.txt, in/2.txt] } }
report:
  - { table: few, columns: [path], title: Few }
";

fn start() -> Space {
    let space = Space::new();
    for i in 0..4 {
        space.write(&format!("in/{i}.txt"), &format!("text {i}\n"));
    }
    space.write("r.yaml", RECIPE);
    space.settle();
    space
}

fn say(space: &Space, args: &[&str]) -> String {
    let said = space.effigy(args);
    assert_eq!(said.code, 0, "{args:?}: {}\n{}", said.out, said.err);
    said.out
}

fn json(space: &Space, args: &[&str]) -> Value {
    let text = say(space, &[args, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[test]
fn a_graph_shows_what_is_known_and_what_is_not() {
    let space = start();
    let text = say(&space, &["graph", "r.yaml"]);
    assert!(text.contains("[\"src<br/>4 rows\"]:::known") && text.contains("[\"upper<br/>4 to run\"]:::due"), "{text}");
    assert!(text.contains("[\"used<br/>4 unknown\"]:::unknown") && text.contains("-. \"model\" .->"), "{text}");
    space.run();
    let text = say(&space, &["graph", "r.yaml", "--format", "dot"]);
    assert!(
        text.contains("label=\"used\\n4 known\"") && !text.contains("to run") && text.contains("s3 -> s4 ["),
        "{text}"
    );
    space.write("r.yaml", &RECIPE.replace("wc -c", "false"));
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 1);
    let text = say(&space, &["graph", "r.yaml", "--format", "svg"]);
    assert!(text.contains("failed last time") && text.contains(">4 to run<") && !text.contains("var(--"), "{text}");
    assert_eq!(text.matches("<title>").count(), 7, "a box for each stage");
}

#[test]
fn a_trace_names_the_files_of_parameters() {
    let space = Space::new();
    space.write("in/1.txt", "one");
    space.write("words/list.txt", "a");
    let stages = "stages:\n  src: { files: 'in/*.txt' }\n  n: { stage: count, from: src, log: log.txt, words: words/list.txt }\n";
    space.write("r.yaml", &format!("providers: ['{}']\n{stages}", provider()));
    space.run();
    let text = say(&space, &["trace", "r.yaml", "n", "0"]);
    let line = text.lines().find(|line| line.contains("file words = ")).expect("a line");
    assert!(line.contains("/words/list.txt)"), "{line}");
    let trace = json(&space, &["trace", "r.yaml", "n", "0"]);
    assert!(
        trace["steps"][0]["files"]["words"].as_str().is_some_and(|path| path.ends_with("/words/list.txt")),
        "{trace}"
    );
}

#[test]
fn a_trace_leads_back_to_the_sources_of_a_row() {
    let space = start();
    space.run();
    let trace = json(&space, &["trace", "r.yaml", "few", "0"]);
    let steps = |trace: &Value| -> Vec<(String, u64, u64)> {
        let step = |step: &Value| {
            let count = |name: &str| step[name].as_u64().expect("a count");
            (step["stage"].as_str().expect("a name").to_string(), count("rows_count"), count("units_count"))
        };
        trace["steps"].as_array().expect("steps").iter().map(step).collect()
    };
    let step = |name: &str, rows, units| (name.to_string(), rows, units);
    assert_eq!(steps(&trace), [step("few", 1, 0), step("alone", 1, 1), step("upper", 1, 1), step("src", 1, 0)]);
    assert_eq!(trace["steps"][3]["rows"][0]["values"]["path"], "in/1.txt");
    let unit = &trace["steps"][1]["units"][0];
    assert_eq!(unit["key"].as_str().map(str::len), Some(64));
    assert!(unit["host"].is_string() && unit["at"].as_u64() > Some(0) && unit["run"].is_string(), "{unit}");
    assert_eq!(trace["steps"][1]["facts"]["command"], "wc -c < {up} > {out}/size");
    // a constant comes with all that it was made of
    let trace = json(&space, &["trace", "r.yaml", "used", "in/3.txt"]);
    let all = [step("used", 1, 1), step("learned", 1, 0), step("model", 1, 1), step("upper", 4, 4), step("src", 4, 0)];
    assert_eq!(steps(&trace), all);
    assert_eq!(trace["steps"][0]["facts"]["param suffix"], "\"a\"");
    let text = say(&space, &["trace", "r.yaml", "used", "3", "--limit", "2"]);
    assert!(text.contains("learned (as a constant)") && text.contains("and 2 more (--limit)"), "{text}");
    // forward, to every row that used it
    let trace = json(&space, &["trace", "r.yaml", "src", "in/3.txt", "--forward"]);
    let all = [
        step("src", 1, 0),
        step("upper", 1, 1),
        step("model", 1, 1),
        step("learned", 1, 0),
        step("used", 4, 4),
        step("alone", 1, 1),
    ];
    assert_eq!(steps(&trace), all, "`few` does not show the row");
    // a file by the beginning of its digest, or by its path
    let digest = space.rows("alone")[2]["up"].as_str().expect("a digest").to_string();
    for what in [digest[..8].to_string(), format!(".effigy/blobs/{}/{}", &digest[..2], &digest[2..])] {
        let trace = json(&space, &["trace", "r.yaml", &what]);
        assert_eq!(
            (steps(&trace), &trace["file"]),
            (vec![step("upper", 1, 1), step("src", 1, 0)], &digest.clone().into())
        );
    }
    let text = say(&space, &["trace", "r.yaml", "src", "in/2.txt", "--forward"]);
    assert!(text.contains("in the report: Few"), "{text}");
}

#[test]
fn a_trace_follows_stages_that_vary_and_tables_that_could_do_without() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "
recipe: varied
matrix: { seed: [1, 2, 3] }
stages:
  src: { rows: [{ n: 4 }, { n: 5 }] }
  run: { run: '[ {param.seed} != 2 -o -e go ] && echo {n} > {out}/end', shell: true, from: src, params: { seed: '${seed}' }, writes: { end: blob } }
  few: { select: run, where: { n: 5 } }
  all: { gather: few, allow_failures: 0.5 }
",
    );
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 1);
    // the second row of what was gathered is that of the third seed
    let trace = json(&space, &["trace", "r.yaml", "all", "1"]);
    let steps: Vec<&str> =
        trace["steps"].as_array().expect("steps").iter().filter_map(|s| s["stage"].as_str()).collect();
    assert_eq!(steps, ["all", "few@seed=3", "run@seed=3", "src"], "{trace}");
    assert_eq!(trace["steps"][3]["rows"][0]["values"]["n"], 5);
    let text = say(&space, &["trace", "r.yaml", "src", "1", "--forward"]);
    for seed in [1, 3] {
        assert!(text.contains(&format!("few@seed={seed}")), "{text}");
    }
    assert_eq!(text.matches("no further").count(), 1, "of the second seed alone: {text}");
    // what failed is there by now, and the table was made without
    space.write("go", "");
    assert_eq!(space.effigy(&["run", "r.yaml", "--only", "few@seed=2"]).code, 0);
    let text = say(&space, &["trace", "r.yaml", "all", "1"]);
    assert!(text.contains("no further: which tables stage `all` was put together of is not on record"), "{text}");
    assert!(!text.contains("few@"), "{text}");
    // whole, it is followed again
    space.run();
    let trace = json(&space, &["trace", "r.yaml", "all", "1"]);
    assert_eq!(trace["steps"][1]["stage"], "few@seed=2", "{trace}");
}

#[test]
fn a_trace_says_where_it_cannot_lead() {
    let space = start();
    space.effigy(&["trace", "r.yaml", "few", "0"]).expect_error(1, &["has not been run yet", "effigy run r.yaml"]);
    space.run();
    space
        .effigy(&["trace", "r.yaml", "fwe", "0"])
        .expect_error(2, &["has no stage `fwe`", "digits of a file's digest"]);
    space.effigy(&["trace", "r.yaml", "few", "9"]).expect_error(2, &["has no row `9`"]);
    space.effigy(&["trace", "r.yaml", "0123456789"]).expect_error(2, &["no table of the last run holds the file"]);
    // rows made by another recipe than that of today are not explained by it
    space.write("r.yaml", &RECIPE.replace("wc -c <", "wc -l <"));
    let text = say(&space, &["trace", "r.yaml", "few", "0"]);
    assert!(text.contains("no further: the recipe or what stage `alone` reads has changed"), "{text}");
}

#[test]
fn a_diff_tells_what_changed_between_two_runs() {
    let space = start();
    space.run();
    space.write("in/3.txt", "other\n");
    assert_eq!(space.effigy(&["run", "r.yaml", "--param", "suffix=b"]).code, 0);
    let diff = json(&space, &["diff"]);
    let stage = |name: &str| diff["stages"].as_array().and_then(|all| all.iter().find(|one| one["stage"] == name));
    let fact = |change: &Value| change["fact"].as_str().map(str::to_string);
    let about: Vec<_> = diff["run"].as_array().expect("changes").iter().filter_map(fact).collect();
    assert_eq!(about, ["overrides", "parameter `suffix`"]);
    let upper = stage("upper").expect("its table changed");
    assert_eq!((&upper["rows"]["same"], &upper["rows"]["changed"]), (&3.into(), &1.into()), "{upper}");
    assert_eq!(upper["rows"]["by"][0], "path");
    assert_eq!((&upper["executed"][1], &upper["cached"][1]), (&1.into(), &3.into()));
    let used = stage("used").expect("its parameter changed");
    let facts: Vec<_> = used["facts"].as_array().expect("changes").iter().filter_map(fact).collect();
    assert_eq!(facts, ["param suffix", "with model"]);
    assert!(stage("few").is_none(), "nothing of it changed");
    assert_eq!(diff["same_stages"], 1);
    let text = say(&space, &["diff", "last~1", "last", "--stage", "used"]);
    assert!(text.contains("param suffix: a -> b") && text.contains("rows 4 -> 4: 4 changed"), "{text}");
    assert!(text.contains("column `end` in 4 rows"), "{text}");
    assert!(say(&space, &["diff", "last", "last"]).contains("the same in both: 7 stages"));
    space.effigy(&["diff", "last~2"]).expect_error(2, &["only 2 recorded runs", "effigy log"]);
    space.effigy(&["diff", "never"]).expect_error(2, &["there is no run `never`"]);
    // what is no longer there is told, not guessed
    std::fs::remove_dir_all(space.path(".effigy/tables")).expect("it was there");
    let text = say(&space, &["diff"]);
    assert!(text.contains("not to be compared: rows: the tables of both runs are no longer there"), "{text}");
}

#[test]
fn rows_are_shown_by_conditions() {
    let space = start();
    space.run();
    let rows = |conditions: &[&str]| {
        let mut args = vec!["show", "r.yaml", "alone", "--json"];
        conditions.iter().for_each(|text| args.extend(["--where", text]));
        say(&space, &args).lines().count()
    };
    assert_eq!(
        (rows(&["path=in/1.txt"]), rows(&["path>=in/1.txt"]), rows(&["path>=in/1.txt", "path!=in/2.txt"])),
        (1, 3, 2)
    );
    let said = space.effigy(&["show", "r.yaml", "alone", "--where", "pth=1"]);
    said.expect_error(2, &["there is no column `pth`", "did you mean `path`?"]);
}

#[test]
fn rows_are_queried() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "stages:\n  scores: { rows: [{ split: test, psnr: 20.5, n: 1 }, { split: test, psnr: 21.5, n: 2 }, { split: train, psnr: 30.0, n: 3 }, { split: train, psnr: ~, n: 4 }] }\n",
    );
    space.run();
    let query =
        |text: &str, more: &[&str]| space.effigy(&[&["show", "r.yaml", "scores", "--sql", text], more].concat());
    let said =
        query("select split, avg(psnr) as mean, count(*) as n from rows group by split order by split", &["--json"]);
    assert_eq!(
        said.out, "{\"split\":\"test\",\"mean\":21.0,\"n\":2}\n{\"split\":\"train\",\"mean\":30.0,\"n\":2}\n",
        "{}",
        said.err
    );
    let said =
        query("select n from rows where psnr is null or split like 'te%' order by n desc", &["--json", "--limit", "2"]);
    assert_eq!(said.out, "{\"n\":4}\n{\"n\":2}\n", "{}", said.err);
    let said = query("select max(psnr) - min(psnr) as span from rows", &[]);
    assert!(said.out.contains("9.5"), "{}{}", said.out, said.err);
    query("select snr from rows", &[])
        .expect_error(2, &["`--sql` is not understood", "its columns are `split`, `psnr`, `n`"]);
    query("selekt", &[]).expect_error(2, &["`--sql` is not understood", "hint: "]);
}

#[test]
fn what_is_not_shown_is_told() {
    let space = Space::new();
    let long = "long ".repeat(20);
    let cells = |n: usize| (0..12).map(|i| format!("c{i:02}: {}", n * i)).collect::<Vec<_>>().join(", ");
    let rows: Vec<String> = (0..15).map(|n| format!("      - {{ {}, text: '{long}{n}' }}", cells(n))).collect();
    space.write("r.yaml", &format!("stages:\n  wide:\n    rows:\n{}\n", rows.join("\n")));
    space.run();
    let show = |more: &[&str]| say(&space, &[&["show", "r.yaml", "wide"], more].concat());
    let text = show(&[]);
    assert!(text.contains("10 of 15 rows and 8 of 13 columns are shown: `--limit N` shows more rows"), "{text}");
    assert!(text.contains("texts that end in … are longer") && !text.contains(long.trim()), "{text}");
    assert!(text.contains("c03") && !text.contains("c06") && text.contains("c11"), "{text}");
    assert_eq!(text.lines().count(), 3 + 10 + 1, "{text}");
    let text = show(&["--where", "c06>=0", "--limit", "12"]);
    assert!(text.contains("c06") && text.contains("12 of 15 rows and 8 of 13 columns are shown"), "{text}");
    assert_eq!(text.lines().count(), 3 + 12 + 1, "{text}");
    let text = show(&["--select", "c04,c05,c06,c07,c00,c01,c02,c03,c08", "--limit", "20"]);
    assert!(text.starts_with("c04 ") && text.contains("c08") && !text.contains("are shown"), "{text}");
    let text = show(&["--sql", "select * from rows", "--limit", "11"]);
    assert!(text.contains("11 of 15 rows and 8 of 13 columns are shown"), "{text}");
    assert!(show(&["--where", "c01>99"]).ends_with("\nno rows\n"));
    assert_eq!(show(&["--json"]).lines().filter(|line| line.contains(&long)).count(), 15, "all of it");
}

#[test]
fn files_and_lists_are_the_same_with_a_query_and_without() {
    let space = Space::new();
    space.write("in/0.txt", "text\n");
    space.write(
        "r.yaml",
        "
stages:
  src: { files: 'in/*.txt' }
  codes: { rows: [{ x: 1, code: [0.0269, -1.5, 2.0] }, { x: 2, code: [0.1, 0.2, 0.3] }] }
  made: { run: 'echo {x} > {out}/file.txt', shell: true, from: codes, writes: { file: blob } }
",
    );
    space.settle();
    space.run();
    let show = |more: &[&str]| say(&space, &[&["show", "r.yaml", "made", "--json"], more].concat());
    let plain = show(&["--select", "x,code,file"]);
    assert!(plain.contains("\"code\":[0.0269,-1.5,2.0]"), "{plain}");
    assert_eq!(show(&["--sql", "select x, code, \"file\" from rows order by x"]), plain);
    let paths = show(&["--select", "x,code,file", "--paths"]);
    assert_eq!(show(&["--sql", "select x, code, \"file\" from rows order by x", "--paths"]), paths);
    let digest = space.rows("made")[1]["file"].as_str().expect("a digest").to_string();
    let query = format!("select x from rows where \"file\" = '{digest}'");
    assert_eq!(show(&["--sql", &query]), "{\"x\":2}\n");
    // a path is shown as a whole, and it is one that is there: a file of the user's is not copied
    for stage in ["made", "src"] {
        let path = space.effigy(&["show", "r.yaml", stage, "--json", "--paths"]);
        let row: Value = serde_json::from_str(path.out.lines().next().expect("a row")).expect("JSON");
        let path = row["file"].as_str().expect("a path").to_string();
        assert!(std::path::Path::new(&path).is_file(), "{path}");
        let text = say(&space, &["show", "r.yaml", stage, "--paths"]);
        assert!(text.contains(&path), "{text}");
    }
    assert_eq!(space.file("src", 0, "file"), "text\n");
}

#[test]
fn the_recipe_to_begin_with_runs_as_it_is() {
    let space = Space::new();
    for (file, name) in [("mine.yaml", "mine"), ("2.yaml", "\"2\"")] {
        say(&space, &["init", file]);
        assert!(space.read(file).contains(&format!("\nrecipe: {name}\n")), "{file}");
        assert_eq!(space.effigy(&["plan", file]).code, 0, "{file}");
    }
    say(&space, &["init", "r.yaml"]);
    assert_eq!(space.run(), (7, 0, 0));
    assert_eq!(space.run(), (0, 7, 0));
    assert_eq!(space.file("all", 0, "book"), "likeness\nlikeness\nAbbild\nAbbild\nportrait\nportrait\n");
    assert_eq!(space.rows("german").len(), 1);
    assert_eq!(space.effigy(&["run", "r.yaml", "--profile", "many"]).code, 0);
    space.effigy(&["init", "r.yaml"]).expect_error(2, &["r.yaml is there already", "--force"]);
    say(&space, &["init", "r.yaml", "--force"]);
}

#[test]
fn shells_learn_our_words() {
    let space = Space::new();
    for shell in ["bash", "zsh", "fish"] {
        let text = say(&space, &["completions", shell]);
        assert!(text.contains("trace") && text.contains("forward"), "{shell}");
    }
}
