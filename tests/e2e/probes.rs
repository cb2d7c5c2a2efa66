//! The seven probes: of N units, how many run cold, again, after a touch, when a change has no effect, when it has,
//! when it is taken back, and when outputs are wiped. They must be N, 0, 0, 1, 4, 0, 0, in both forms: a stage for each
//! unit, and a row for each unit. Units are counted by what the commands log, not by what we say of ourselves.

use crate::support::Space;
use std::fmt::Write;

const WIDTH: usize = 24;
const GROUP: usize = 8;

/// One stage for each unit of the DAG: a_i (first line), b_i (copy), g_j (groups), out.
fn by_stages() -> String {
    let mut yaml = String::from("recipe: probes\nstages:\n");
    let shell = |name: &str, command: &str, from: &str| {
        format!(
            "  {name}: {{ run: \"{command} && echo {name} >> ran.log\", shell: true, from: {from}, grain: whole, writes: {{ file: blob }} }}\n"
        )
    };
    for i in 0..WIDTH {
        let _ = writeln!(yaml, "  i{i}: {{ files: in/{i}.txt }}");
        yaml += &shell(&format!("a{i}"), "head -n1 {file} > {out}/file", &format!("i{i}"));
        yaml += &shell(&format!("b{i}"), "cp {file} {out}/file", &format!("a{i}"));
    }
    for j in 0..WIDTH / GROUP {
        let members: Vec<String> = (j * GROUP..(j + 1) * GROUP).map(|i| format!("b{i}")).collect();
        let _ = writeln!(yaml, "  in{j}: {{ concat: [{}] }}", members.join(", "));
        yaml += &shell(&format!("g{j}"), "cat {file} > {out}/file", &format!("in{j}"));
    }
    let groups: Vec<String> = (0..WIDTH / GROUP).map(|j| format!("g{j}")).collect();
    let _ = writeln!(yaml, "  all: {{ concat: [{}] }}", groups.join(", "));
    yaml + &shell("out", "cat {file} > {out}/file", "all")
}

/// Four stages over rows.
fn by_rows() -> String {
    let rows: Vec<String> = (0..WIDTH).map(|i| format!("{{ path: in/{i}.txt, i: {i}, g: {} }}", i / GROUP)).collect();
    let shell = |command: &str, rest: &str| {
        format!("{{ run: \"{command} >> ran.log\", shell: true, {rest}, writes: {{ file: blob }} }}")
    };
    format!(
        "recipe: probes\nstages:\n  src: {{ files: 'in/*.txt' }}\n  index: {{ rows: [{}] }}\n  in: {{ join: [index, src], on: path }}\n  a: {}\n  b: {}\n  g: {}\n  out: {}\n",
        rows.join(", "),
        shell("head -n1 {file} > {out}/file && echo a{i}", "from: in"),
        shell("cp {file} {out}/file && echo b{i}", "from: a"),
        shell("cat {file} > {out}/file && echo g", "from: b, grain: group, by: [g]"),
        shell("cat {file} > {out}/file && echo out", "from: g, grain: whole"),
    )
}

fn probe(recipe: &str) {
    let space = Space::new();
    let units = 2 * WIDTH + WIDTH / GROUP + 1;
    for i in 0..WIDTH {
        space.write(&format!("in/{i}.txt"), &format!("row {i}\n"));
    }
    space.write("r.yaml", recipe);
    space.settle();
    let run = |what: &str, expected: usize| {
        let (executed, cached, failed) = space.run();
        let ran = space.ran();
        assert_eq!(ran.len(), expected, "{what}: {ran:?}");
        assert_eq!((executed as usize, failed), (expected, 0), "{what}: the count we give");
        assert_eq!((executed + cached) as usize, units, "{what}: all units");
        space.settle();
    };
    run("cold", units);
    run("no-op", 0);
    space.write("in/7.txt", "row 7\n");
    run("touch", 0);
    space.write("in/7.txt", "row 7\nsecond line\n");
    run("cutoff", 1);
    space.write("in/7.txt", "row 7 changed\nsecond line\n");
    run("change", 4);
    assert!(space.file("out", 0, "file").contains("row 7 changed\nrow 8\n"));
    space.write("in/7.txt", "row 7\n");
    run("revert", 0);
    assert!(!space.file("out", 0, "file").contains("changed"));
    for folder in ["tables", "runs"] {
        std::fs::remove_dir_all(space.path(".effigy").join(folder)).expect("it is there");
    }
    run("wiped tables", 0);
    std::fs::remove_dir_all(space.path(".effigy/index")).expect("it is there");
    run("wiped index", 0);
}

#[test]
fn seven_probes_with_a_stage_for_each_unit() {
    probe(&by_stages());
}

#[test]
fn seven_probes_with_a_row_for_each_unit() {
    probe(&by_rows());
}
