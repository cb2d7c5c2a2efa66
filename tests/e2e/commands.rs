//! The other commands: plan, why, show, status, log, cache, stages, doctor, report.

use crate::support::{Space, provider};
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
    assert!(text.contains("in/0.txt") && !text.contains("in/1.txt") && text.contains("shape: (1, 2)"), "{text}");
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
    assert!(status.contains("r.yaml suffix=b: done"), "{status}");
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
