//! `effigy export`: files of rows as a folder.

use crate::support::Space;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const RECIPE: &str = "
recipe: demo
params: { suffix: a }
stages:
  src: { files: 'in/*.txt', parse: 'in/{name}.txt' }
  upper: { run: 'tr a-z A-Z < {file} > {out}/up && echo {param.suffix} >> {out}/up', shell: true, from: src, params: { suffix: '${suffix}' }, writes: { up: blob } }
  named: { join: [upper, names], on: [name] }
  names: { rows: [{ name: one, up_path: a/b/one.txt, file_path: own/one.txt }, { name: two, up_path: a/two.txt }] }
  astray: { join: [upper, out], on: [name] }
  out: { rows: [{ name: one, up_path: a/../../one.txt }] }
  same: { join: [upper, clash], on: [name] }
  clash: { rows: [{ name: one, up_path: x }, { name: two, up_path: x }] }
";

fn start() -> Space {
    let space = Space::new();
    space.write("in/one.txt", "one\n");
    space.write("in/two.txt", "two\n");
    space.write("r.yaml", RECIPE);
    space.settle();
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 0);
    space
}

#[test]
fn files_go_where_their_rows_say() {
    let space = start();
    let export = |more: &[&str]| space.effigy(&[&["export", "r.yaml", "named", "--to", "to"], more].concat());
    let said = export(&["--json"]);
    assert_eq!((said.code, said.json()["copied"].as_u64()), (0, Some(3)), "{}", said.err);
    let read = |path: &str| std::fs::read_to_string(space.path(path)).expect("it is there");
    assert_eq!(
        [read("to/a/b/one.txt"), read("to/a/two.txt"), read("to/own/one.txt")],
        ["ONE\na\n", "TWO\na\n", "one\n"]
    );
    let meta = std::fs::metadata(space.path("to/a/two.txt")).expect("it is there");
    assert_eq!((meta.nlink(), meta.permissions().mode() & 0o200), (1, 0o200), "a copy that may be written");

    // again: equal files stay
    let said = export(&[]);
    assert!(said.code == 0 && said.out.contains("0 files copied") && said.out.contains("3 were there"), "{}", said.out);
    // one that is not equal is an error, and nothing is touched
    space.write("to/a/two.txt", "TWO\nb\n");
    std::fs::remove_file(space.path("to/own/one.txt")).expect("it was there");
    let said = export(&[]);
    assert!(said.code == 2 && said.err.contains("a/two.txt is there with other content"), "{}", said.err);
    assert!(said.err.contains("--overwrite") && !space.path("to/own/one.txt").exists(), "{}", said.err);
    let said = export(&["--overwrite", "--where", "name=two"]);
    assert!(said.code == 0 && said.out.contains("1 files copied"), "{}{}", said.out, said.err);
    assert_eq!(read("to/a/two.txt"), "TWO\na\n");
    assert!(!space.path("to/own/one.txt").exists());
    let left: Vec<_> =
        std::fs::read_dir(space.path("to/a")).expect("it is there").map(|e| e.expect("a name").file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn paths_can_be_made_of_columns() {
    let space = start();
    space.write("n.yaml", &RECIPE.replace("  out:", "  counted: { join: [upper, numbers], on: [name] }\n  numbers: { rows: [{ name: one, take: 7, good: true }, { name: two, take: 12, good: false }] }\n  out:"));
    assert_eq!(space.effigy(&["run", "n.yaml"]).code, 0);
    let export = |named: &[&str]| {
        let words = named.iter().flat_map(|named| ["--as", named]);
        space.effigy(&["export", "n.yaml", "counted", "--to", "to"].into_iter().chain(words).collect::<Vec<_>>())
    };
    let said = export(&["up={name}/{good}-{take:05}.txt", "file=all/{name}"]);
    assert!(said.code == 0 && said.out.contains("4 files copied"), "{}{}", said.out, said.err);
    let read = |path: &str| std::fs::read_to_string(space.path(path)).expect("it is there");
    let texts = ["to/one/true-00007.txt", "to/two/false-00012.txt", "to/all/one", "to/all/two"].map(read);
    assert_eq!(texts, ["ONE\na\n", "TWO\na\n", "one\n", "two\n"]);
    let check = |named: &str, parts: &[&str]| {
        let said = export(&[named]);
        assert!(said.code == 2 && parts.iter().all(|part| said.err.contains(part)), "{named}: {}", said.err);
    };
    check("upp={name}", &["no column of files `upp`", "did you mean `up`?"]);
    check("up={nam}", &["`{nam}` of `--as` is no column", "did you mean `name`?"]);
    check("up={file}", &["`{file}` of `--as` is no column of text or numbers"]);
    check("up=../{name}", &["row 0, --as up=../{name}: `../one` leads out of the folder"]);
    check("up=same", &["two different files", "are to be `same`"]);
    for wrong in ["up", "up={name", "up=", "={name}", "up={take:x}", "up=name}"] {
        check(wrong, &["says no place for files", "{timestep:05}"]);
    }
}

#[test]
fn what_cannot_be_exported_is_said() {
    let space = start();
    let check = |stage: &str, code: i32, parts: &[&str]| {
        let said = space.effigy(&["export", "r.yaml", stage, "--to", "to"]);
        assert!(
            said.code == code && parts.iter().all(|part| said.err.contains(part)),
            "{stage}: {} {}",
            said.code,
            said.err
        );
        assert!(!space.path("to").exists() && !space.path("one.txt").exists());
    };
    check("upper", 2, &["no file of stage `upper` has a path to go to", "text column `X_path`", "name"]);
    check("astray", 2, &["row 0, column `up_path`: `a/../../one.txt` leads out of the folder"]);
    check("same", 2, &["two different files", "are to be `x`"]);
    check("nothing", 2, &["nothing"]);
    let said = space.effigy(&["export", "r.yaml", "named", "--to", "to", "--param", "suffix=b", "--profile", "smoke"]);
    assert_eq!(said.code, 2, "{}", said.err);
    // a file that was damaged is not passed on
    let text = space.effigy(&["show", "r.yaml", "upper", "--json", "--paths"]).out;
    let row: serde_json::Value = serde_json::from_str(text.lines().next().expect("a row")).expect("JSON");
    let blob = row["up"].as_str().expect("a path");
    std::fs::set_permissions(blob, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    std::fs::write(blob, "ONE\nx\n").expect("it is ours");
    let said = space.effigy(&["export", "r.yaml", "named", "--to", "to"]);
    assert!(said.code == 1 && said.err.contains("is not what the run left"), "{}", said.err);
    assert!(!space.path("to/a/b/one.txt").exists());
}
