//! What is in whose hands: files of the user's that a run does not look at anew, links to recipes, programs that write
//! where they may only read.

use crate::support::Space;

const RECIPE: &str = "
recipe: hands
params: { up: A-Z }
stages:
  src: { files: 'in/*.txt' }
  on: { run: 'printf \"{{\\\"same\\\": \\\"%s\\\"}}\" {file} > {out}/out.jsonl', shell: true, from: src, writes: { same: blob } }
  a: { run: 'echo {param.up} > {out}/y; cat {same} >> {out}/y', shell: true, from: on, params: { up: '${up}' }, writes: { y: blob } }
";

fn start() -> Space {
    let space = Space::new();
    space.write("in/1.txt", "one");
    space.write("in/2.txt", "two");
    space.write("r.yaml", RECIPE);
    space.settle();
    assert_eq!(space.run(), (4, 0, 0));
    space
}

#[test]
fn what_stands_before_from_may_have_handed_on_files_of_the_users() {
    let space = start();
    let run = |more: &[&str]| space.effigy(&[&["run", "r.yaml", "--json"], more].concat());
    let other = ["--from", "a", "--param", "up=B"];
    let plan = space.effigy(&[&["plan", "r.yaml", "--json"], &other[..]].concat());
    assert_eq!(plan.code, 0, "{}", plan.err);
    let said = run(&other);
    assert_eq!((said.code, said.counts()), (0, (2, 0, 0)), "{}", said.err);
    assert_eq!(space.file("a", 1, "y"), "B\ntwo");
    assert_eq!(run(&["--from", "on", "--force", "on"]).counts(), (2, 2, 0));
    let check = run(&["--check", "--from", "a"]);
    assert_eq!(check.code, 0, "{}{}", check.out, check.err);
    // one that has changed is not what the last run left
    space.write("in/2.txt", "three");
    run(&["--from", "a", "--param", "up=C"])
        .expect_error(2, &["in/2.txt is gone, or has changed since", "leave `--from` out"]);
    std::fs::remove_file(space.path("in/2.txt")).expect("it is there");
    run(&["--from", "a", "--param", "up=C"]).expect_error(2, &["in/2.txt is gone, or has changed"]);
}

#[test]
fn another_recipe_knows_where_the_same_files_are() {
    let space = start();
    space.write("other.yaml", &RECIPE.replace("recipe: hands", "recipe: other"));
    assert_eq!(space.effigy(&["run", "other.yaml"]).code, 0);
    let said = space.effigy(&["show", "other.yaml", "src", "--json", "--paths"]);
    assert!(said.out.contains("in/1.txt\"") && said.code == 0, "{}{}", said.out, said.err);
}

#[test]
fn a_link_to_a_recipe_is_a_recipe_of_its_own() {
    let space = Space::new();
    for (folder, text) in [("one", "first"), ("two", "second")] {
        space.write(&format!("{folder}/in/x.txt"), text);
    }
    space.write("one/r.yaml", RECIPE);
    std::os::unix::fs::symlink("../one/r.yaml", space.path("two/r.yaml")).expect("a link");
    space.settle();
    for _ in 0..2 {
        for (recipe, text) in [("one/r.yaml", "first"), ("two/r.yaml", "second")] {
            let said = space.effigy(&["run", recipe]);
            assert_eq!(said.code, 0, "{}", said.err);
            let said = space.effigy(&["show", recipe, "a", "--json", "--paths"]);
            let row: serde_json::Value = serde_json::from_str(said.out.lines().next().expect("a row")).expect("JSON");
            let path = row["y"].as_str().expect("a path");
            assert_eq!(std::fs::read_to_string(path).expect("a file"), format!("A-Z\n{text}"));
            let said = space.effigy(&["status", recipe]);
            assert!(said.out.starts_with(&format!("{recipe}: done at ")), "{}", said.out);
        }
    }
}

const CARELESS: &str = "
recipe: careless
stages:
  a: { run: 'echo hello > {out}/y', shell: true, writes: { y: blob } }
  b: { run: 'COMMAND; cp {y} {out}/z', shell: true, from: a, writes: { z: blob } }
  c: { run: 'cat {y} {z} > {out}/w', shell: true, from: b, writes: { w: blob } }
";

#[test]
fn a_program_that_replaces_its_input_replaces_a_copy_of_its_name() {
    let space = Space::new();
    space.write("r.yaml", &CARELESS.replace("COMMAND", "sed -i s/hello/jello/ {y}"));
    assert_eq!(space.run(), (3, 0, 0));
    assert_eq!(space.file("c", 0, "w"), "hello\njello\n");
    assert_eq!(space.effigy(&["cache", "verify"]).code, 0);
}

#[test]
fn a_program_that_writes_into_its_input_fails_and_spoils_nothing() {
    let space = Space::new();
    space.write("r.yaml", &CARELESS.replace("COMMAND", "chmod u+w {y}; echo more >> {y}"));
    let said = space.effigy(&["run", "r.yaml"]);
    said.expect_error(1, &["a file that the program was given (", "writes below `{out}`"]);
    let said = space.effigy(&["cache", "verify"]);
    assert!(said.out.contains("is missing") && !said.out.contains("has changed"), "{}{}", said.out, said.err);
    space.write("r.yaml", &CARELESS.replace("COMMAND", "true"));
    let said = space.effigy(&["run", "r.yaml", "--json"]);
    assert_eq!((said.code, said.counts()), (0, (3, 0, 0)), "{}", said.err);
    assert_eq!(space.file("c", 0, "w"), "hello\nhello\n");
}

#[test]
fn one_careless_program_stops_no_other_and_is_not_tried_again_and_again() {
    // however it ends
    for ending in ["true", "false"] {
        careless(ending);
    }
}

fn careless(ending: &str) {
    let space = Space::new();
    let careless = format!(
        "echo b >> ran.log; chmod u+w {{y}}; printf J | dd of={{y}} conv=notrunc 2> dd.log; sleep 0.1; echo > {{out}}/z; {ending}"
    );
    space.write(
        "r.yaml",
        &format!(
            "recipe: two\nstages:\n  a: {{ run: 'echo a >> ran.log; echo hello > {{out}}/y', shell: true, writes: {{ y: blob }} }}\n  \
             b: {{ run: '{careless}', shell: true, from: a, writes: {{ z: blob }} }}\n  \
             c: {{ run: 'echo c >> ran.log; cat {{y}} > {{out}}/w', shell: true, from: a, writes: {{ w: blob }} }}\n"
        ),
    );
    for jobs in ["1", "2"] {
        let said = space.effigy(&["run", "r.yaml", "--jobs", jobs]);
        said.expect_error(1, &["stage `b`", "changed while it was in use"]);
        assert!(!said.err.contains("keep getting damaged"), "{}", said.err);
        let ran = space.ran();
        assert!(
            ran.iter().filter(|name| *name == "b").count() == 1 && ran.iter().filter(|name| *name == "a").count() <= 2,
            "{ran:?}"
        );
    }
    // whatever became of c meanwhile, what is kept of it is right
    assert_eq!(space.effigy(&["run", "r.yaml", "--only", "c"]).code, 0);
    assert_eq!(space.file("c", 0, "w"), "hello\n");
}

#[test]
fn a_file_that_was_only_touched_is_what_it_was() {
    let space = Space::new();
    space.write("r.yaml", &CARELESS.replace("COMMAND", "touch {y}"));
    assert_eq!(space.run(), (3, 0, 0));
    assert_eq!(space.run(), (0, 3, 0));
}

#[test]
fn a_path_of_a_table_is_lent_as_well() {
    let space = Space::new();
    let recipe = CARELESS.replace(
        "COMMAND; cp {y} {out}/z",
        "f=$(strings {in} | grep -m 1 tasks/); sed -i s/hello/jello/ $f; cp $f {out}/z",
    );
    space.write("r.yaml", &recipe);
    let said = space.effigy(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(space.file("c", 0, "w"), "hello\njello\n");
}

#[test]
fn a_file_that_nobody_reads_may_be_gone() {
    let space = Space::new();
    space.write("in/1.txt", "one");
    space.write(
        "r.yaml",
        "recipe: f\nparams: { k: 1 }\nstages:\n  src: { files: 'in/*.txt' }\n  a: { run: 'cat {file} > {out}/y', shell: true, from: src, writes: { y: blob } }\n  b: { run: 'cat {y} > {out}/z; echo {param.k} >> {out}/z', shell: true, from: a, params: { k: '${k}' }, writes: { z: blob } }\n",
    );
    space.settle();
    assert_eq!(space.run(), (2, 0, 0));
    std::fs::remove_file(space.path("in/1.txt")).expect("it is there");
    let said = space.effigy(&["run", "r.yaml", "--from", "b", "--param", "k=2", "--json"]);
    assert_eq!((said.code, said.counts()), (0, (1, 0, 0)), "{}", said.err);
}

#[test]
fn a_users_file_that_was_handed_on_and_changed_is_no_lasting_damage() {
    let space = start();
    space.write("in/2.txt", "three");
    space.settle();
    assert_eq!(space.run(), (2, 2, 0));
    let verify = |more: &[&str]| space.effigy(&[&["cache", "verify"], more].concat());
    verify(&["--discard"]);
    let said = verify(&[]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert_eq!(space.run(), (0, 4, 0));
}

#[test]
fn a_table_of_csv_is_whole_and_a_report_is_made_again_where_part_of_it_is_gone() {
    let space = Space::new();
    let rows: Vec<String> = (0..300).map(|i| format!("{{ i: {i} }}")).collect();
    space.write(
        "r.yaml",
        &format!(
            "recipe: long\nparams: {{ k: 1 }}\nstages:\n  src: {{ rows: [{}] }}\n  a: {{ select: src, set: {{ k: \"${{k}}\" }} }}\nreport: [{{ table: a }}]\n",
            rows.join(", ")
        ),
    );
    let run = |more: &[&str]| assert_eq!(space.effigy(&[&["run", "r.yaml"], more].concat()).code, 0);
    run(&[]);
    let table = |format: &str| space.effigy(&["table", "r.yaml", "--format", format]).out;
    assert_eq!(table("csv").trim().lines().count(), 301);
    assert!(table("md").contains("the first 200 of 300 rows"));
    for part in ["out/report.md", "out/report_files"] {
        let path = space.path(part);
        assert!(if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.is_ok());
        run(&[]);
        assert!(path.exists(), "{part}");
    }
    // a report, and a table, of what ran
    run(&["--param", "k=2"]);
    assert_eq!(space.effigy(&["report", "r.yaml"]).code, 0);
    let text = space.read("out/report.md");
    assert!(text.contains("k: 2\n") && !text.contains("k: 1\n\n") && text.contains("Profile: default"), "{text}");
    let said = space.effigy(&["table", "r.yaml"]);
    assert!(said.err.contains("these tables have what the last run left"), "{}", said.err);
}

#[test]
fn a_failure_that_is_over_leaves_no_log() {
    let space = Space::new();
    space.write("r.yaml", "recipe: f\nstages:\n  a: { run: 'cat flag > {out}/y', shell: true, writes: { y: blob } }\n");
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 1);
    let logs = || std::fs::read_dir(space.path(".effigy/failed")).into_iter().flatten().count();
    assert_eq!(logs(), 1);
    space.write("flag", "up");
    assert_eq!(space.run(), (1, 0, 0));
    assert_eq!(logs(), 0);
}

#[test]
fn a_file_beside_the_recipe_that_is_no_code_is_told_of() {
    let space = Space::new();
    space.write("mk.sh", "echo 1 > \"$1/y\"\n");
    space.write("data.txt", "x");
    let stage = |more: &str| {
        format!("recipe: s\nstages:\n  a: {{ run: 'sh mk.sh {{out}} data.txt'{more}, writes: {{ y: blob }} }}\n")
    };
    space.write("r.yaml", &stage(""));
    let said = space.effigy(&["run", "r.yaml"]);
    assert!(said.code == 0 && said.err.contains("changes of `mk.sh`"), "{}", said.err);
    assert!(said.err.contains("changes of `data.txt`"), "{}", said.err);
    space.write("r.yaml", &stage(", code: [mk.sh]"));
    let said = space.effigy(&["run", "r.yaml"]);
    assert!(!said.err.contains("mk.sh") && said.err.contains("data.txt"), "{}", said.err);
    space.write("r.yaml", &stage(", code: [mk.sh, data.txt]"));
    assert!(!space.effigy(&["run", "r.yaml"]).err.contains("warning"));
}

#[test]
fn a_table_without_rows_has_its_columns() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "recipe: n\nstages:\n  src: { rows: [{ x: 1, longer_name: a }] }\n  \
         none: { select: src, where: { x: 7 } }\n  \
         all: { run: 'strings {in} > {out}/y', shell: true, grain: whole, from: none, reads: [longer_name], writes: { y: blob } }\n",
    );
    assert_eq!(space.run(), (1, 0, 0));
    assert!(space.file("all", 0, "y").contains("longer_name"));
}

#[test]
fn what_a_recipe_takes_away_its_bases_variants_do_not_speak_of() {
    let space = Space::new();
    space.write(
        "base.yaml",
        "recipe: base\nvariants: { plain: {}, odd: { b.version: 2, stages: { b: { rows: [{ x: 3 }] } } } }\nstages:\n  a: { rows: [{ x: 1 }] }\n  b: { rows: [{ x: 2 }] }\n",
    );
    space.write("r.yaml", "recipe: r\nextends: base.yaml\nstages:\n  b:\n");
    let said = space.effigy(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
}

#[test]
fn a_diff_does_not_tell_of_stages_that_a_run_was_not_about() {
    let space = Space::new();
    let stage =
        |name: &str| format!("  {name}: {{ run: 'echo {name} > {{out}}/y', shell: true, writes: {{ y: blob }} }}\n");
    space.write("r.yaml", &format!("recipe: d\nstages:\n{}{}", stage("a"), stage("b")));
    for more in [&["--only", "a"][..], &[]] {
        assert_eq!(space.effigy(&[&["run", "r.yaml"], more].concat()).code, 0);
    }
    let said = space.effigy(&["diff", "last~1", "last"]);
    assert!(!said.out.contains("skipped") && said.out.contains("not to be compared: 1 stage"), "{}", said.out);
}

#[test]
fn rows_of_a_workspace_of_before_that_were_named_default_are_found() {
    let space = start();
    // as it was written then: the profile is named in record and memory
    let runs = space.path(".effigy/runs");
    for entry in std::fs::read_dir(&runs).expect("a folder").flatten() {
        if entry.path().extension().is_some_and(|ext| ext == "json") {
            let text = std::fs::read_to_string(entry.path()).expect("a record");
            std::fs::write(entry.path(), text.replace("\"profile\":null", "\"profile\":\"default\"")).expect("written");
        }
    }
    let said = space.effigy(&["show", "r.yaml", "a", "--json"]);
    assert_eq!(said.out.lines().count(), 2, "{}", said.err);
}
