//! What people bring along from make, Snakemake and DVC: editors that leave files, scripts that are edited while they
//! run, lines that go on after a failure, all failures at a glance.

use crate::support::Space;
use std::time::{Duration, Instant};

fn space(recipe: &str) -> Space {
    let space = Space::new();
    space.write("r.yaml", recipe);
    space
}

#[test]
fn what_a_report_shows_is_no_input_of_the_next_run() {
    let space = space(
        "stages:\n  src: { files: '**/*.png' }\n  own: { run: 'cp {file} {out}/y.png', from: src, code: ['.'], writes: { y: blob } }\nreport:\n  - { images: src, column: file }\n",
    );
    std::fs::create_dir(space.path("in")).expect("the folder is new");
    std::fs::copy("docs/samples.png", space.path("in/a.png"))
        .or_else(|_| std::fs::copy("datasets/weights/prior-64/samples.png", space.path("in/a.png")))
        .expect("a picture of the project");
    space.settle();
    let run = || space.effigy(&["run", "r.yaml", "--json"]);
    assert_eq!(run().counts(), (1, 0, 0));
    assert!(space.path("out/report_files").is_dir());
    assert_eq!(run().counts(), (0, 1, 0), "neither as a row nor as code");
    // nor is another workspace, whatever it is called
    assert_eq!(space.effigy(&["run", "r.yaml", "--json", "--workspace", "other"]).counts(), (1, 0, 0));
    assert_eq!(run().counts(), (0, 1, 0));
    // a folder of the user's that happens to be called so is one
    space.write("mine/report_files/b.png", "a picture");
    assert_eq!(space.effigy(&["run", "r.yaml", "--only", "src", "--json"]).code, 0);
    assert_eq!(space.rows("src").len(), 2);
}

#[test]
fn a_script_that_is_edited_and_put_back_while_it_runs_leaves_nothing() {
    let script = "sleep 1\necho good $1 > $2/v\n";
    let space = space(
        "stages:\n  src: { rows: [ { i: 1 } ] }\n  a: { run: 'sh c.sh {i} {out}', from: src, code: [c.sh], writes: { v: blob } }\n",
    );
    space.write("c.sh", script);
    space.settle();
    let mut child = space.start(&["run", "r.yaml"]);
    let begun = Instant::now();
    let is_at_work = || std::fs::read_dir(space.path(".effigy/tasks")).is_ok_and(|tasks| tasks.count() > 0);
    while !is_at_work() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    // the shell reads on where it is; what matters is that nobody can tell what it read
    space.write("c.sh", &script.replace("good", "evil"));
    space.write("c.sh", script);
    assert!(!child.wait().expect("it ends").success());
    let again = space.effigy(&["run", "r.yaml", "--json"]);
    assert_eq!((again.code, again.counts()), (0, (1, 0, 0)), "{}", again.err);
    assert_eq!(space.file("a", 0, "v"), "good 1\n");
}

#[test]
fn what_editors_leave_in_a_folder_of_code_is_none() {
    let space = space(
        "stages:\n  src: { rows: [ { i: 1 } ] }\n  a: { run: 'cp lib/m.txt {out}/v', from: src, code: [lib], writes: { v: blob } }\n",
    );
    space.write("lib/m.txt", "m");
    space.settle();
    assert_eq!(space.run(), (1, 0, 0));
    std::os::unix::fs::symlink("nobody@nowhere.1:2", space.path("lib/.#m.txt")).expect("the name is free");
    space.write("lib/.m.txt.swp", "half");
    space.write("lib/m.txt~", "old");
    assert_eq!(space.run(), (0, 1, 0));
    space.write("lib/n.txt", "n");
    assert_eq!(space.run(), (1, 0, 0), "and any other file is");
}

#[test]
fn a_shells_line_ends_with_its_first_failure() {
    let space = space(
        "stages:\n  src: { rows: [ { i: 1 } ] }\n  a: { run: 'cat nobody > {out}/v\n\n      echo rest >> {out}/v', shell: true, from: src, writes: { v: blob } }\n",
    );
    let said = space.effigy(&["run", "r.yaml"]);
    said.expect_error(1, &["stage `a`", "exited with code 1", "nobody"]);
}

#[test]
fn a_parameter_that_is_a_text_is_what_was_typed() {
    let space = space(
        "params: { title: Note }\nstages:\n  src: { rows: [ { i: 1 } ] }\n  a: { run: 'echo {param.title} > {out}/v', shell: true, from: src, params: { title: '${title}' }, writes: { v: blob } }\n",
    );
    for typed in ["", "#1", "Experiment #3", "Note: done", "&x", "!x", "a: b: c", "018"] {
        let said = space.effigy(&["run", "r.yaml", "--param", &format!("title={typed}")]);
        assert_eq!(said.code, 0, "{typed}: {}", said.err);
        let shown = space.effigy(&["show", "r.yaml", "a", "--json", "--paths", "--param", &format!("title={typed}")]);
        let path = shown.json()["v"].as_str().expect("a path").to_string();
        assert_eq!(std::fs::read_to_string(path).expect("it is there"), format!("{typed}\n"));
    }
}

#[test]
fn all_failures_are_told_to_programs_and_counted_for_people() {
    let space = space("stages:\n  src: { rows: 'ROWS' }\n  a: { run: 'test {i} -lt 0 && touch {out}/v', shell: true, from: src, allow_failures: 0.9, writes: { v: blob } }\n".replace("'ROWS'", &format!("[{}]", (0..14).map(|i| format!("{{ i: {i} }}")).collect::<Vec<_>>().join(", "))).as_str());
    let said = space.effigy(&["run", "r.yaml", "--keep-going", "-j", "2"]);
    assert_eq!(said.err.matches("error: stage `a`, i=").count(), 10, "{}", said.err);
    assert!(said.err.contains("stage `a`: 4 more have failed") && said.err.contains("`effigy log a`"), "{}", said.err);
    let why = space.effigy(&["why", "r.yaml", "a", "i=13"]);
    assert!(why.code == 0 && why.out.contains("failed") && !why.out.contains("nothing like it"), "{}", why.out);
    let json = space.effigy(&["run", "r.yaml", "--keep-going", "--json"]);
    assert_eq!(json.out.matches("\"event\":\"failed\"").count(), 14, "{}", json.out);
}

#[test]
fn all_units_are_tried_where_that_is_asked_for() {
    let rows: Vec<String> = (0..12).map(|i| format!("{{ i: {i} }}")).collect();
    let space = space(&format!(
        "stages:\n  src: {{ rows: [{}] }}\n  a: {{ run: 'test {{i}} -gt 6 && touch {{out}}/v', shell: true, from: src, writes: {{ v: blob }} }}\n",
        rows.join(", ")
    ));
    let run = |flag: &[&str]| space.effigy(&[&["run", "r.yaml", "--json", "-j", "1"], flag].concat());
    let hopeless = run(&[]);
    assert!(hopeless.out.contains("are not tried") && hopeless.out.contains("--keep-going"), "{}", hopeless.out);
    let patient = run(&["--keep-going"]);
    assert_eq!(patient.counts(), (5, 0, 7), "{}", patient.out);
}

#[test]
fn a_line_that_is_longer_than_a_word_may_be_is_read_from_a_file() {
    let rows: Vec<String> = (0..3000).map(|i| format!("{{ name: '{}{i}' }}", "x".repeat(60))).collect();
    let space = space(&format!(
        "stages:\n  src: {{ rows: [{}] }}\n  a: {{ run: 'echo {{name}} | wc -w > {{out}}/v', shell: true, from: src, grain: whole, writes: {{ v: blob }} }}\n",
        rows.join(", ")
    ));
    let said = space.effigy(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(space.file("a", 0, "v").trim(), "3000");
}

#[test]
fn files_of_this_moment_are_found_again() {
    let space = space("stages: { src: { files: 'in/*.txt' } }");
    space.write("in/1.txt", "just written");
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 0);
    let said = space.effigy(&["export", "r.yaml", "src", "--as", "file={path}", "--to", "copy"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(space.read("copy/in/1.txt"), "just written");
}

#[test]
fn rows_of_some_variants_are_told_to_be_that() {
    let space = space(
        "matrix: { k: [1, 2] }\nstages:\n  a: { rows: [ { x: 1 } ] }\n  b: { run: 'echo {param.k} > {out}/v', shell: true, from: a, params: { k: '${k}' }, writes: { v: blob } }\n  all: { gather: b }\n",
    );
    let run = space.effigy(&["run", "r.yaml", "--variant", "k=1"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let said = space.effigy(&["show", "r.yaml", "all"]);
    assert!(said.err.contains("which was of k=1 alone"), "{}{}", said.out, said.err);
}
