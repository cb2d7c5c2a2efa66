//! The other commands: plan, why, show, status, log, cache, stages, doctor, report.

use crate::support::{Space, interrupt, provider};
use serde_json::Value;

const RECIPE: &str = "
recipe: demo
params: { suffix: a }
stages:
  src: { files: 'in/*.txt' }
  upper: { run: 'tr a-z A-Z < {file} > {out}/up', shell: true, from: src, writes: { up: blob } }
  ended: { run: 'cat {up} > {out}/end && echo {param.suffix} >> {out}/end', shell: true, from: upper, params: { suffix: '${suffix}' }, writes: { end: blob } }
  few: { select: ended, where: { path: [in/0.txt, in/1.txt] } }
  all: { run: 'cat {end} > {out}/all', shell: true, from: few, grain: whole, writes: { all: blob } }
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

fn plan(space: &Space, more: &[&str]) -> Value {
    let said = space.effigy(&[&["plan", "r.yaml", "--json"], more].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    said.json()
}

fn totals(plan: &Value) -> (u64, u64, u64) {
    let count = |name: &str| plan[name].as_u64().expect("a count");
    (count("hits"), count("misses"), count("unknown"))
}

#[test]
fn a_plan_foretells_what_a_run_does() {
    let space = start();
    assert_eq!(totals(&plan(&space, &[])), (0, 4, 4 + 1), "the rest is unknown until `upper` has run");
    assert_eq!(space.run(), (9, 0, 0));
    assert_eq!(totals(&plan(&space, &[])), (9, 0, 0));
    assert_eq!(totals(&plan(&space, &["--param", "suffix=b"])), (4, 4, 1));
    space.write("in/3.txt", "other\n");
    let foretold = plan(&space, &[]);
    assert_eq!(totals(&foretold), (6, 1, 2));
    assert_eq!(foretold["stages"][2]["until"], "upper");
    assert_eq!(space.run(), (2, 7, 0), "`all` does not see the fourth file");
    assert_eq!(totals(&plan(&space, &[])), (9, 0, 0));
    let text = space.effigy(&["plan", "r.yaml"]).out;
    assert!(text.contains("in all: 0 to run, 9 known, 0 unknown yet"), "{text}");
}

#[test]
fn why_names_the_fact_that_changed() {
    let space = start();
    let why = |args: &[&str]| {
        let said = space.effigy(&[&["why", "r.yaml"], args].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        said.out
    };
    assert!(why(&["upper"]).contains("nothing like it has been run before"));
    space.run();
    let text = why(&["ended", "--param", "suffix=b"]);
    assert!(text.contains("4 to run, 0 known") && text.contains("parameter `suffix`: a -> b"), "{text}");
    space.write("in/3.txt", "other\n");
    let text = why(&["upper"]);
    assert!(text.contains("1 to run, 3 known") && text.contains("path=in/3.txt"), "{text}");
    assert!(
        text.contains("column `file`: file") && text.contains("(written by stage `src`, row path=in/3.txt)"),
        "{text}"
    );
    let text = why(&["all"]);
    assert!(text.contains("nobody can tell about `all` until `upper` has run"), "{text}");
    // after the run the reason is still known
    space.run();
    let text = why(&["upper", "in/3.txt"]);
    assert!(text.contains("it was run because of what had changed") && text.contains("column `file`"), "{text}");
    let changed = RECIPE.replace("tr a-z A-Z < {file}", "tr a-z A-Y < {file}");
    space.write("r.yaml", &changed);
    assert!(why(&["upper"]).contains("command: tr a-z A-Z < {file} > {out}/up -> tr a-z A-Y"));
    let json: Value = serde_json::from_str(why(&["upper", "in/0", "--json"]).trim()).expect("JSON");
    assert_eq!(json["units"][0]["changes"][0]["fact"], "command");
    space.effigy(&["why", "r.yaml", "upper", "nobody"]).expect_error(2, &["has no unit `nobody`"]);
}

#[test]
fn tables_are_shown() {
    let space = start();
    space.run();
    let text = space.effigy(&["show", "r.yaml", "few", "--limit", "1", "--select", "path,end"]).out;
    assert!(
        text.contains("in/0.txt") && !text.contains("in/1.txt") && text.contains("1 of 2 rows are shown"),
        "{text}"
    );
    let row = &space.rows("few")[0];
    let digest = row["end"].as_str().expect("a digest");
    assert_eq!(digest.len(), 64);
    assert!(space.path(&format!(".effigy/blobs/{}/{}", &digest[..2], &digest[2..])).is_file());
}

#[test]
fn runs_are_recorded() {
    let space = start();
    space.run();
    space.run();
    space.effigy(&["run", "r.yaml", "--param", "suffix=b"]);
    let log = space.effigy(&["log", "--json"]).out;
    let runs: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(runs.len(), 2, "a run that did nothing leaves no record");
    assert_eq!((&runs[0]["executed"], &runs[1]["cached"]), (&9.into(), &4.into()));
    assert_eq!(runs[1]["overrides"][0], "suffix=b");
    let status = space.effigy(&["status"]).out;
    assert!(status.contains("r.yaml --param suffix=b: done"), "{status}");
}

#[test]
fn damage_is_found_named_and_repaired() {
    let space = start();
    space.run();
    let verify = |more: &[&str]| space.effigy(&[&["cache", "verify"], more].concat());
    assert_eq!(verify(&[]).code, 0);
    let digest = space.rows("upper")[2]["up"].as_str().expect("a digest").to_string();
    let path = space.path(&format!(".effigy/blobs/{}/{}", &digest[..2], &digest[2..]));
    std::fs::remove_file(&path).expect("it is there");
    std::fs::write(&path, "TEXT X\n").expect("a file of the same length");
    let said = verify(&["--json"]);
    assert_eq!((said.code, said.json()["damaged"][0]["digest"].as_str()), (1, Some(&digest[..])));
    assert_eq!(said.json()["damaged"][0]["stage"], "upper");
    assert!(verify(&[]).out.contains("its content has changed"));
    assert_eq!(verify(&["--discard"]).code, 0);
    assert_eq!(space.run(), (1, 8, 0));
    assert_eq!(verify(&[]).code, 0);
    assert!(space.effigy(&["cache", "rebuild"]).out.contains("9 units"));
    assert_eq!(space.run(), (0, 9, 0));
}

#[test]
fn unused_files_are_removed_on_request() {
    let space = start();
    space.run();
    space.effigy(&["run", "r.yaml", "--param", "suffix=b"]);
    let shown = space.effigy(&["cache", "gc", "--json"]).json();
    assert_eq!(shown["files"], 5, "those of the first run that the second replaced");
    let before = space.effigy(&["cache", "stats", "--json"]).json();
    space.effigy(&["cache", "gc", "--delete"]);
    let after = space.effigy(&["cache", "stats", "--json"]).json();
    assert_eq!(before["blobs"].as_u64(), after["blobs"].as_u64().map(|n| n + 5));
    assert_eq!(space.effigy(&["cache", "verify"]).code, 0, "what is gone is not missed");
    assert_eq!(space.effigy(&["run", "r.yaml", "--param", "suffix=b", "--json"]).counts(), (0, 9, 0));
    assert_eq!(space.run(), (5, 4, 0), "and can be made again");
}

#[test]
fn stages_and_doctor_tell_what_is_there() {
    let space = Space::new();
    let said = space.effigy(&["stages", "train", "--provider", &provider()]);
    for part in ["train (version 3, whole)", "with    bias: value: f64", "param   steps (required)", "How many steps."]
    {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    let said = space.effigy(&["doctor", "--json"]);
    let findings = said.json()["findings"].as_array().expect("a list").clone();
    let data = findings.iter().find(|one| one["what"] == "data").expect("about data packages");
    assert_eq!((said.code, data["state"].as_str()), (1, Some("missing")), "the home folder of tests is empty");
    assert!(data["hint"].as_str().expect("a hint").contains("make setup"));
}

#[test]
fn recipes_that_came_along_are_listed_and_what_one_takes_is_told() {
    let space = Space::new();
    let all = space.effigy(&["recipes"]);
    let line = all.out.lines().find(|line| line.starts_with("avatar ")).expect("a line").to_string();
    assert!(line.contains("Multi-view video of a person to an animatable avatar"), "{line}");
    let listed = space.effigy(&["recipes", "--json"]).json();
    let listed = listed.as_array().expect("a list").clone();
    let yaml = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|ending| ending == "yaml");
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/pipeline/recipes")).expect("a folder");
    assert_eq!(listed.len(), folder.flatten().filter(yaml).count());
    assert!(listed.iter().all(|one| one["doc"].as_str().is_some_and(|doc| doc.len() > 20)), "each says what it is");
    space.write(
        "base.yaml",
        "params:\n  size: 64   # px\n  path: a#b\nstages: { s: { rows: [] } }\nprofiles: { small: { size: 8 } }",
    );
    let own = "# Twice: or more.\nextends: base.yaml\nparams: { path: c }\nvariants: { a: {}, b: { size: 7 } }\n";
    space.write("r.yaml", &format!("{own}stages: {{ s: {{ rows: [{{ x: \"${{size}}\" }}] }} }}"));
    let told = space.effigy(&["recipes", "r.yaml", "--profile", "small"]);
    for part in [
        "  Twice: or more.\n",
        "extends   base.yaml",
        "profiles  small",
        "variant   a, b",
        "param     size = 8",
        "  px\n",
        "path = \"c\"\n",
    ] {
        assert!(told.out.contains(part), "{part:?} in {}", told.out);
    }
    space.effigy(&["recipes", "avatr"]).expect_error(2, &["there is no recipe `avatr`", "did you mean `avatar`?"]);
}

#[test]
fn a_report_is_written_once_and_again_on_request() {
    let space = start();
    space.write("r.yaml", &format!("{RECIPE}report:\n  - text: Hello.\n  - table: few\n    columns: [path]\n"));
    let commits = ["a", "b"].map(|digit| digit.repeat(40));
    space.write(".git/HEAD", &commits[0]);
    let said = space.effigy(&["run", "r.yaml"]);
    assert!(said.out.contains("report: out/report.html"), "{}{}", said.out, said.err);
    assert!(space.read("out/report.html").contains("Hello.") && space.read("out/report.md").contains("in/0.txt"));
    let time = || std::fs::metadata(space.path("out/report.html")).and_then(|meta| meta.modified()).expect("a time");
    let written = time();
    space.effigy(&["run", "r.yaml"]);
    assert_eq!(time(), written, "a run in which nothing changed writes nothing");
    let line = "tr a-z A-Z < {file}";
    space.write("r.yaml", &space.read("r.yaml").replace(line, &format!("true; {line}")));
    assert_eq!(space.effigy(&["run", "r.yaml", "--json"]).counts(), (4, 5, 0), "the same comes out");
    assert_ne!(time(), written, "what ran anew is told");
    std::fs::remove_dir_all(space.path("out")).expect("it is there");
    space.write(".git/HEAD", &commits[1]);
    assert_eq!(space.effigy(&["report", "r.yaml"]).code, 0);
    let page = space.read("out/report.html");
    assert!(page.contains("Hello.") && page.contains(&commits[0]) && !page.contains(&commits[1]), "{page}");
    space.write("r.yaml", &format!("{RECIPE}report:\n  - table: fwe\n"));
    space.effigy(&["run", "r.yaml"]).expect_error(2, &["there is no stage `fwe`", "did you mean `few`?"]);
}

#[test]
fn show_and_table_tell_of_the_run_that_is_asked_for() {
    let space = start();
    let text = RECIPE
        .replace("stages:", "report: [{ table: few, columns: [path, suffix] }]\nstages:")
        .replace("few: { select: ended, ", "few: { select: ended, set: { suffix: '${suffix}' }, ");
    space.write("r.yaml", &text);
    let show =
        |more: &[&str]| space.effigy(&[&["show", "r.yaml", "few", "--json", "--select", "suffix"], more].concat());
    let first = |text: &str| format!("{{\"suffix\":\"{text}\"}}\n").repeat(2);
    let with_b: &[&str] = &["--param", "suffix=b"];
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 0);
    let said = show(with_b);
    assert_eq!(said.code, 1, "nobody has run it so: {}", said.out);
    assert!(said.err.contains("stage `few` has not been finished yet with suffix=b"), "{}", said.err);
    assert!(
        said.err.contains("effigy run r.yaml --only few --param suffix=b") || said.err.contains("--only few"),
        "{}",
        said.err
    );
    assert_eq!(space.effigy(&[&["run", "r.yaml"], with_b].concat()).code, 0);
    assert_eq!(show(with_b).out, first("b"));
    let said = show(&[]);
    assert_eq!(said.out, first("b"), "without a word it is the last run");
    assert!(said.err.contains("these rows are of the last run, which was with suffix=b"), "{}", said.err);
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 0);
    let said = show(&[]);
    assert_eq!((said.out.as_str(), said.err.as_str()), (first("a").as_str(), ""));
    assert_eq!(show(with_b).out, first("b"), "the run before the last");
    let table = space.effigy(&[&["table", "r.yaml"], with_b].concat());
    assert!(table.code == 0 && table.out.contains("| b ") && !table.out.contains("| a "), "{}{}", table.out, table.err);
    let table = space.effigy(&["table", "r.yaml", "--param", "suffix=c"]);
    assert!(table.code == 1 && table.err.contains("has not been run yet with suffix=c"), "{}", table.err);
}

#[test]
fn older_rows_are_not_shown_for_those_of_a_run_that_failed() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "
stages:
  src: { files: score.txt }
  fit: { run: 'echo fitting {path}; grep -q 5 {file} && cp {file} {out}/fit', shell: true, from: src, writes: { fit: blob } }
  used: { run: 'cp {fit} {out}/used', from: fit, writes: { used: blob } }
  other: { select: src, columns: [path] }
report:
  - { table: fit, columns: [path], title: Fits }
  - { table: other, columns: [path], title: Others }
",
    );
    let show = |stage: &str| space.effigy(&["show", "r.yaml", stage, "--json", "--select", "path"]);
    let row = "{\"path\":\"score.txt\"}\n";
    space.write("score.txt", "5");
    space.settle();
    assert_eq!(space.run(), (2, 0, 0));
    assert_eq!(show("fit").out, row);
    space.write("score.txt", "7");
    space.settle();
    assert_eq!(space.effigy(&["run", "r.yaml", "--json"]).counts(), (0, 0, 1));
    let lost = || {
        let hints = ["`effigy log fit` shows what it wrote", "`effigy run r.yaml`", "`effigy serve`"];
        show("fit").expect_error(1, &[&["stage `fit` failed in the last run\n"], &hints[..]].concat());
        show("used").expect_error(1, &["stage `used` was skipped in the last run, because `fit` failed", "hint: "]);
        let export = ["export", "r.yaml", "fit", "--to", "to"];
        space.effigy(&export).expect_error(1, &["stage `fit` failed in the last run"]);
        space.effigy(&["trace", "r.yaml", "fit"]).expect_error(1, &["stage `fit` failed in the last run"]);
        let skipped = ["stage `used` was skipped in the last run, because `fit` failed"];
        space.effigy(&["trace", "r.yaml", "used", "0"]).expect_error(1, &skipped);
        // nor do older rows count as what used a source's
        let forward = space.effigy(&["trace", "r.yaml", "src", "--forward"]);
        assert!(
            forward.code == 0 && forward.out.contains("other") && !forward.out.contains("used  "),
            "{}",
            forward.out
        );
        assert_eq!((show("other").code, show("other").out), (0, row.to_string()), "what did not fail is shown");
        let table = space.effigy(&["table", "r.yaml", "--only", "Fits"]);
        table.expect_error(1, &["`Fits`: not available: stage `fit`: it failed", "effigy log fit"]);
        assert_eq!(space.effigy(&["table", "r.yaml", "--only", "Others"]).code, 0);
    };
    lost();
    for write in ["run", "report"] {
        let said = space.effigy(&[write, "r.yaml"]);
        assert!(said.out.contains("report: out/report.html"), "{write}: {}{}", said.out, said.err);
        let page = space.read("out/report.html");
        let told = ["Stage fit failed: 1 unit (effigy log fit says why).", "so they did not run: used."];
        assert!(told.iter().all(|part| page.contains(part)) && !page.contains("as it may"), "{write}: {page}");
        std::fs::remove_dir_all(space.path("out")).expect("it is there");
    }
    // a run that is about other stages says nothing of these, and one of these says nothing of others
    assert_eq!(space.effigy(&["run", "r.yaml", "--only", "other"]).code, 0);
    lost();
    assert!(!space.path("out").exists(), "its report would lack what it left out");
    assert_eq!(space.effigy(&["run", "r.yaml", "--only", "fit"]).code, 1);
    lost();
    space.write("score.txt", "5");
    space.settle();
    assert_eq!(space.run(), (0, 2, 0));
    assert_eq!((show("fit").out, show("used").out), (row.to_string(), row.to_string()));
}

#[test]
fn a_run_that_found_everything_is_on_record_if_the_last_one_came_to_something_else() {
    let space = start();
    space.run();
    let records = || space.effigy(&["log", "--json"]).out.lines().count();
    let status = |word: &str| {
        let text = space.effigy(&["status"]).out;
        assert!(text.contains(&format!("r.yaml: {word} at ")), "{text}");
    };
    space.write("r.yaml", &RECIPE.replace("cat {end} > {out}/all", "false"));
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 1);
    status("failed");
    space.write("r.yaml", RECIPE);
    assert_eq!(space.run(), (0, 9, 0));
    status("done");
    let diff = space.effigy(&["diff", "last~1", "last", "--json"]);
    assert!(diff.code == 0 && diff.json()["stages"][0]["stage"] == "all", "{}{}", diff.out, diff.err);
    // as the last one left it, as a whole or in part
    assert_eq!(space.run(), (0, 9, 0));
    for part in [["--from", "ended"], ["--only", "few"]] {
        let said = space.effigy(&[&["run", "r.yaml", "--json"], &part[..]].concat());
        assert_eq!((said.code, said.counts().0), (0, 0), "{}{}", said.out, said.err);
    }
    assert_eq!(records(), 3);
    let said = space.effigy(&["run", "r.yaml", "--json", "--only", "few", "--set", "few.where={path: in/1.txt}"]);
    assert_eq!((said.code, said.counts().0, records()), (0, 0, 4), "another table without any work");
}

#[test]
fn recipes_of_one_name_are_told_apart_by_their_files() {
    let space = Space::new();
    for (file, word) in [("a.yaml", "one"), ("b.yaml", "two")] {
        let report = "report: [{ table: words, columns: [word] }]";
        space.write(file, &format!("recipe: same\nstages: {{ words: {{ rows: [{{ word: {word} }}] }} }}\n{report}"));
    }
    assert_eq!(space.effigy(&["run", "a.yaml"]).code, 0);
    // what is remembered of the last run is a file for each recipe; records are of all
    std::fs::remove_dir_all(space.path(".effigy/runs/last")).expect("it is there");
    space.effigy(&["show", "b.yaml", "words"]).expect_error(1, &["stage `words` has not been finished yet"]);
    space.effigy(&["report", "b.yaml"]).expect_error(1, &["the recipe b.yaml has not been run yet"]);
    let own = space.path("a.yaml").display().to_string();
    for name in ["a.yaml", "./a.yaml", own.as_str()] {
        assert_eq!(space.effigy(&["show", name, "words", "--json"]).out, "{\"word\":\"one\"}\n", "{name}");
    }
}

#[test]
fn status_finds_a_recipe_however_its_file_is_named() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "
recipe: demo
stages:
  a_stage_with_quite_a_long_name: { run: 'echo > {out}/x', shell: true, writes: { x: blob } }
  short: { run: 'cat {x} > {out}/y', shell: true, from: a_stage_with_quite_a_long_name, writes: { y: blob } }
",
    );
    assert_eq!(space.effigy(&["status"]).out, "nothing has been run in .effigy\n");
    space.run();
    let own = space.path("r.yaml").display().to_string();
    for name in ["r.yaml", "./r.yaml", "demo", own.as_str()] {
        let said = space.effigy(&["status", name]);
        assert!(said.out.starts_with("r.yaml: done at "), "{name}: {}", said.out);
        let told: Vec<_> = said.out.lines().skip(1).collect();
        assert_eq!(told, ["  2 stages done (`--json` names them)"], "{}", said.out);
    }
    // what is not done is named, one stage below the other
    let good = space.read("r.yaml");
    space.write("r.yaml", &good.replace("echo >", "false >"));
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 1);
    let said = space.effigy(&["status", "r.yaml"]);
    let states = [" failed ", " skipped "].map(|word| said.out.lines().skip(1).find_map(|line| line.find(word)));
    assert!(states[0].is_some() && states[0] == states[1] && said.out.lines().count() == 3, "{}", said.out);
    space.write("r.yaml", &good);
    let said = space.effigy(&["status", "q.yaml"]);
    assert_eq!(said.out, "no run of `q.yaml` is recorded in .effigy (`effigy log` lists all)\n");
    // another name of the same file is no other recipe
    space.write("r.yaml", &space.read("r.yaml").replace("echo >", "echo 1 >"));
    assert_eq!(space.effigy(&["run", &own]).code, 0);
    assert_eq!(space.effigy(&["status"]).out.matches(": done at ").count(), 1);
}

#[test]
fn a_stage_that_was_stopped_is_told_as_interrupted_and_its_older_rows_as_such() {
    let space = Space::new();
    let recipe = "stages:
  src: { rows: [{ n: 1 }, { n: 2 }, { n: 3 }] }
  slow: { run: 'echo {n} >> ran.log; LINE; echo {n} > {out}/x', shell: true, from: src, writes: { x: blob } }
  after: { select: slow, columns: [n] }
";
    space.write("r.yaml", &recipe.replace("LINE", "true"));
    assert_eq!(space.run(), (3, 0, 0));
    space.ran();
    space.write("r.yaml", &recipe.replace("LINE", "sleep 0.4"));
    let mut child = space.start(&["run", "r.yaml", "--jobs", "1"]);
    let since = std::time::Instant::now();
    while !space.path("ran.log").exists() {
        assert!(since.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    interrupt(&child);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let status = space.effigy(&["status"]).out;
    assert!(status.contains("  slow  interrupted 1 run, 0 known, 0 failed"), "{status}");
    assert!(status.contains("  after skipped     0 run"), "{status}");
    let diff = space.effigy(&["diff"]).out;
    assert!(diff.contains("  ended: done -> interrupted\n") && diff.contains("  ended: done -> skipped\n"), "{diff}");
    let said = space.effigy(&["show", "r.yaml", "slow", "--json"]);
    assert_eq!((said.code, said.out.lines().count()), (0, 3), "{}", said.err);
    assert!(said.err.contains("the last run was stopped before stage `slow` was done"), "{}", said.err);
}

#[test]
fn a_report_that_cannot_be_written_takes_nothing_along() {
    let space = start();
    space.write("r.yaml", &format!("{RECIPE}report: [{{ table: few, columns: [path] }}]\n"));
    let records = || space.effigy(&["log", "--json"]).out.lines().count();
    // nothing is computed for a folder that cannot be made
    space.write("taken", "");
    let said = space.effigy(&["run", "r.yaml", "--out", "taken"]);
    said.expect_error(1, &["cannot make the folder taken for the report", "hint: a file stands where a folder should"]);
    assert_eq!(records(), 0);
    // a folder stands in the place of the page
    space.write("out/report.html/file", "");
    let said = space.effigy(&["run", "r.yaml", "--json"]);
    said.expect_error(1, &["the report cannot be written", "out/report.html", "hint: "]);
    assert_eq!((said.counts(), records()), ((9, 0, 0), 1), "what was done is on record, and told");
    std::fs::remove_dir_all(space.path("out")).expect("it is there");
    assert_eq!(space.run(), (0, 9, 0));
    assert!(space.read("out/report.html").contains("in/0.txt"));
}

#[test]
fn a_report_tells_which_variants_failed_and_shows_the_others() {
    let space = Space::new();
    let recipe = "
matrix: { seed: [1, 2] }
stages:
  train: { run: 'test {param.seed} != 2 && echo {param.seed} > {out}/m', shell: true, params: { seed: '${seed}' }, writes: { m: blob } }
  score: { run: 'cat {m} > {out}/s', shell: true, from: train, writes: { s: blob } }
  all: { gather: score, allow_failures: 0.5 }
report:
  - { table: all, columns: [seed], title: All }
";
    space.write("r.yaml", recipe);
    for write in ["run", "report"] {
        let said = space.effigy(&[write, "r.yaml"]);
        assert_eq!(said.code, i32::from(write == "run"), "{}{}", said.out, said.err);
        let page = space.read("out/report.html");
        let told = [
            "Stage train@seed=2 failed: 1 unit (effigy log train@seed=2 says why).",
            "so they did not run: score@seed=2.",
        ];
        assert!(told.iter().all(|part| page.contains(part)), "{write}: {page}");
        let text = space.read("out/report.md");
        assert!(text.contains("| seed |") && text.contains("| 1 |") && !text.contains("| 2 |"), "{write}: {text}");
        std::fs::remove_dir_all(space.path("out")).expect("it is there");
    }
    let said = space.effigy(&["show", "r.yaml", "train"]);
    said.expect_error(1, &["stage `train@seed=2` failed in the last run", "`train@seed=1` has rows"]);
    assert_eq!(space.rows("train@seed=1").len(), 1);
    // where nothing has a table there is nothing to show
    space.write("r.yaml", &recipe.replace("test {param.seed} != 2", "false"));
    let said = space.effigy(&["run", "r.yaml"]);
    assert!(said.code == 1 && !said.out.contains("report: "), "{}", said.out);
    assert!(!space.path("out/report.html").exists());
}

#[test]
fn a_command_that_is_suggested_has_all_it_needs() {
    let space = Space::new();
    space.write("r.yaml", "profiles: { small: {} }\nstages: { alpha: { rows: [{ x: 1 }] } }\n");
    assert_eq!(space.effigy(&["run", "r.yaml", "--profile", "small"]).code, 0);
    let other = "since it was run with `--profile small`: effigy";
    let suggests = |args: &[&str], command: &str| {
        space.effigy(args).expect_error(1, &[format!("{other} {command}\n").as_str()]);
    };
    suggests(&["export", "r.yaml", "alpha", "--to", "to"], "export r.yaml alpha --profile small --to DIR");
    suggests(&["show", "r.yaml", "alpha"], "show r.yaml alpha --profile small");
}
