//! Care for what is kept: damage that shows amid a run is made good, `cache` finds it, makes room, and no large file is
//! there twice.

use crate::support::Space;
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

const RECIPE: &str = "
recipe: cared
params: { suffix: a }
stages:
  src: { files: 'in/*.txt' }
  upper: { run: 'tr a-z A-Z < {file} > {out}/up && echo upper {path} >> ran.log', shell: true, from: src, writes: { up: blob } }
  ended: { run: 'cat {up} > {out}/end && echo {param.suffix} >> {out}/end && echo ended {path} >> ran.log', shell: true, from: upper, params: { suffix: '${suffix}' }, writes: { end: blob } }
";

fn start() -> Space {
    let space = Space::new();
    for i in 0..4 {
        space.write(&format!("in/{i}.txt"), &format!("text {i}\n"));
    }
    space.write("r.yaml", RECIPE);
    space.settle();
    assert_eq!(space.run(), (8, 0, 0));
    space.ran();
    space
}

fn run(space: &Space, suffix: &str) -> ((u64, u64, u64), String) {
    let said = space.effigy(&["run", "r.yaml", "--param", &format!("suffix={suffix}"), "--json"]);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    (said.counts(), said.out)
}

fn blob(space: &Space, stage: &str, row: usize, column: &str) -> PathBuf {
    let digest = space.rows(stage)[row][column].as_str().expect("a digest").to_string();
    space.path(&format!(".effigy/blobs/{}/{}", &digest[..2], &digest[2..]))
}

fn overwrite(path: &PathBuf, text: &str) {
    std::fs::remove_file(path).expect("it is there");
    std::fs::write(path, text).expect("a file");
}

fn json(space: &Space, args: &[&str]) -> Value {
    let said = space.effigy(&[&["cache"], args, &["--json"]].concat());
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    said.json()
}

#[test]
fn a_file_damaged_without_a_trace_is_made_again_before_anybody_reads_it() {
    let space = start();
    // its length is right: only who reads it can tell
    overwrite(&blob(&space, "upper", 2, "up"), "TEXT X\n");
    let (counts, out) = run(&space, "b");
    assert_eq!(counts, (5, 3, 0), "the damaged unit and the four that are new");
    assert_eq!(out.matches("is damaged or gone").count(), 1, "{out}");
    assert_eq!(space.ran().iter().filter(|line| line.starts_with("upper")).count(), 1);
    assert_eq!(run(&space, "b").0, (0, 8, 0));
    let said = space.effigy(&["show", "r.yaml", "ended", "--json", "--paths"]);
    let row: Value = serde_json::from_str(said.out.lines().nth(2).expect("a row")).expect("JSON");
    let end = std::fs::read_to_string(row["end"].as_str().expect("a path")).expect("a file");
    assert_eq!(end, "TEXT 2\nb\n");
}

#[test]
fn a_file_that_is_gone_or_cut_is_made_again() {
    let space = start();
    std::fs::remove_file(blob(&space, "upper", 0, "up")).expect("it is there");
    overwrite(&blob(&space, "upper", 1, "up"), "TE");
    overwrite(&blob(&space, "ended", 3, "end"), "");
    assert_eq!(space.run(), (3, 5, 0));
    assert_eq!(space.effigy(&["cache", "verify"]).code, 0);
}

#[test]
fn a_file_that_vanishes_amid_a_run_is_made_again() {
    let space = start();
    let gone = blob(&space, "upper", 3, "up");
    // the first programs of the second run remove what the last one is to read
    let remove = format!("'(test {{path}} = in/3.txt || rm -f {}) && cat {{up}}", gone.display());
    space.write("r.yaml", &RECIPE.replace("'cat {up}", &remove));
    let said = space.effigy(&["run", "r.yaml", "--jobs", "1", "--json"]);
    assert_eq!((said.code, said.counts()), (0, (5, 3, 0)), "{}{}", said.out, said.err);
    assert_eq!(space.file("upper", 3, "up"), "TEXT 3\n");
    assert_eq!(space.file("ended", 3, "end"), "TEXT 3\na\n");
}

#[test]
fn damaged_tables_are_made_again_from_the_records() {
    let space = start();
    let tables = || {
        let entries = std::fs::read_dir(space.path(".effigy/tables")).expect("it is there");
        let paths = entries.map(|entry| entry.expect("it can be read").path());
        paths.filter(|path| path.extension().is_some_and(|ext| ext == "arrow")).collect::<Vec<_>>()
    };
    for damage in ["cut", "bent", "empty"] {
        for path in tables() {
            let mut bytes = std::fs::read(&path).expect("it can be read");
            match damage {
                "cut" => bytes.truncate(bytes.len() / 2),
                "empty" => bytes.clear(),
                // one letter of a value
                _ => {
                    let at = bytes.windows(8).position(|window| window == b"in/1.txt").expect("every table has it");
                    bytes[at + 3] = b'7';
                }
            }
            std::fs::write(&path, bytes).expect("it can be written");
        }
        let ((executed, ..), _) = run(&space, damage);
        assert_eq!(executed, 4, "{damage}: only what is new runs");
        let end = space.effigy(&["show", "r.yaml", "ended", "--json"]);
        assert_eq!((end.code, end.out.lines().count()), (0, 4), "{damage}: {}", end.err);
        // a table that nobody works on is seen to be damaged by whoever looks at it
        space.effigy(&["show", "r.yaml", "src"]);
        assert_eq!(run(&space, damage).0.0, 0);
        assert_eq!(space.rows("src")[1]["path"], "in/1.txt", "{damage}");
    }
    // or by `verify`
    let path = space.path(&format!(".effigy/tables/{}", tables()[0].file_name().unwrap().to_str().unwrap()));
    std::fs::write(&path, "no table").expect("it can be written");
    assert!(space.effigy(&["cache", "verify"]).out.contains("a table that was damaged"));
    assert_eq!(run(&space, "empty").0.0, 0);
    assert!(!space.effigy(&["cache", "verify"]).out.contains("a table that was damaged"));
}

#[test]
fn verify_names_stage_and_unit_and_heals_the_journal() {
    let space = start();
    overwrite(&blob(&space, "upper", 2, "up"), "TEXT X\n");
    let journal = space.path(".effigy/records/00000001.journal");
    let mut bytes = std::fs::read(&journal).expect("a journal");
    // somewhere within the record of a unit
    let at = bytes.windows(13).position(|window| window == b"path=in/1.txt").expect("a name");
    bytes[at] ^= 1;
    std::fs::write(&journal, bytes).expect("it can be written");
    let said = space.effigy(&["cache", "verify"]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("(made by stage `upper`, path=in/2.txt): its content has changed"), "{}", said.out);
    assert!(said.out.contains("are no record"), "{}", said.out);
    let said = space.effigy(&["cache", "verify", "--json"]);
    assert_eq!(said.json()["damaged"][0]["unit"], "path=in/2.txt");
    assert_eq!(space.effigy(&["cache", "verify", "--discard"]).code, 0);
    assert_eq!(space.effigy(&["cache", "verify"]).code, 0);
    // the memory of the last run knows the unit whose record is lost; without it, it runs again
    std::fs::remove_dir_all(space.path(".effigy/runs")).expect("it is there");
    assert_eq!(space.run(), (2, 6, 0), "one whose file was bad, one whose record was");
}

#[test]
fn so_many_runs_are_kept_and_no_more() {
    let space = start();
    ["b", "c"].iter().for_each(|suffix| drop(run(&space, suffix)));
    let files = |args: &[&str]| json(&space, &[&["gc"], args].concat())["files"].as_u64().expect("a count");
    assert_eq!([files(&["--keep-last", "3"]), files(&["--keep-last", "2"]), files(&[])], [0, 4, 8]);
    let gc = json(&space, &["gc", "--keep-last", "2", "--delete"]);
    assert_eq!((gc["files"].as_u64(), gc["records"].as_u64()), (Some(4), Some(4)));
    assert_eq!(run(&space, "c").0, (0, 8, 0));
    assert_eq!(run(&space, "b").0, (0, 8, 0), "the run before is kept");
    assert_eq!(run(&space, "a").0, (4, 4, 0), "the one before that is not, and can be made again");
    assert_eq!(space.effigy(&["cache", "verify"]).code, 0);
}

#[test]
fn checkpoints_stay_unless_they_are_said_to_be_old() {
    let space = start();
    let folder = space.path(&format!(".effigy/scratch/{}", "ab".repeat(32)));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("step.safetensors"), [0; 1000]).expect("a file");
    let told = space.effigy(&["cache", "gc"]);
    assert!(told.out.contains("unfinished units that a run may go on from: 1;"), "{}", told.out);
    assert_eq!(json(&space, &["gc", "--checkpoints", "1", "--delete"])["checkpoints"], 0);
    assert!(folder.exists(), "it was written just now");
    let gc = json(&space, &["gc", "--checkpoints", "0", "--delete"]);
    assert_eq!((gc["checkpoints"].as_u64(), gc["checkpoint_bytes"].as_u64()), (Some(1), Some(1000)));
    assert!(!folder.exists() && space.run() == (0, 8, 0));
}

#[test]
fn files_take_up_so_much_room_and_no_more() {
    let space = start();
    let other = RECIPE.replace("recipe: cared", "recipe: other").replace("tr a-z A-Z", "tr a-z B-ZA");
    space.write("other.yaml", &other);
    assert_eq!(space.effigy(&["run", "other.yaml", "--json"]).counts(), (8, 0, 0));
    let bytes = |json: &Value| json["bytes"].as_u64().expect("bytes");
    let all = bytes(&json(&space, &["stats"]));
    assert_eq!(json(&space, &["gc", "--max-size", "1G"])["files"], 0);
    // the first recipe was of use last
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(space.run(), (0, 8, 0));
    let gc = json(&space, &["gc", "--max-size", &(all / 2).to_string(), "--delete"]);
    assert_eq!((gc["files"].as_u64(), gc["reached"].as_u64()), (Some(8), Some(8)));
    assert!(bytes(&json(&space, &["stats"])) <= all / 2);
    assert_eq!(space.run(), (0, 8, 0));
    assert_eq!(space.effigy(&["run", "other.yaml", "--json"]).counts(), (8, 0, 0), "it can be made again");
    space.effigy(&["cache", "gc", "--max-size", "many"]).expect_error(2, &["like 500M or 20G"]);
}

/// A recipe whose last unit waits for a file.
fn waiting() -> String {
    let gate = "echo new >> {out}/end && (test {path} != in/3.txt || test -e go || sleep 30)";
    RECIPE.replace("echo {param.suffix} >> {out}/end", gate)
}

/// A run of it that is killed when all other units are finished.
fn killed(space: &Space) {
    space.write("r.yaml", &waiting());
    let mut child = space.start(&["run", "r.yaml", "--jobs", "1"]);
    let since = std::time::Instant::now();
    let ended = || std::fs::read_to_string(space.path("ran.log")).unwrap_or_default().matches("ended").count();
    while ended() < 3 {
        assert!(since.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    child.kill().expect("it is running");
    child.wait().expect("it is over");
}

fn hits(space: &Space) -> Option<u64> {
    space.effigy(&["plan", "r.yaml", "--json"]).json()["hits"].as_u64()
}

#[test]
fn what_a_killed_run_has_finished_is_not_in_the_way() {
    let space = start();
    killed(&space);
    json(&space, &["gc", "--delete"]);
    space.write("r.yaml", &waiting().replace("sleep 30", "sleep 0"));
    let (executed, cached, _) = space.run();
    assert_eq!((executed, cached), (4, 4), "its line is another one");
    space.write("r.yaml", &waiting());
    assert_eq!(hits(&space), Some(7), "three units of the killed run are there");
}

#[test]
fn what_a_killed_run_has_finished_outlives_runs_of_other_recipes() {
    let space = start();
    killed(&space);
    let other = "stages: { one: { run: 'echo > {out}/x', shell: true, writes: { x: blob } } }";
    space.write("other.yaml", other);
    let run = || space.effigy(&["run", "other.yaml", "--json"]).counts();
    assert_eq!(run(), (1, 0, 0));
    json(&space, &["gc", "--delete"]);
    assert_eq!(hits(&space), Some(7), "three units of the killed run are there");
    // once it has gone on to its end, its tables speak of them
    space.write("go", "");
    assert_eq!(space.run(), (1, 7, 0));
    let runs = std::fs::read_dir(space.path(".effigy/runs")).expect("it is there").flatten();
    let mut names = runs.map(|entry| entry.file_name().to_string_lossy().into_owned());
    assert_eq!(names.find(|name| name.ends_with(".begun")), None);
    json(&space, &["gc", "--delete"]);
    assert_eq!((hits(&space), run()), (Some(8), (0, 1, 0)));
}

/// A run that is stopped at once while a program of it waits.
fn stopped(space: &Space, args: &[&str]) {
    let mut child = space.start(&[&["run", "r.yaml", "--jobs", "1"], args].concat());
    let since = std::time::Instant::now();
    while !space.path("waits").exists() {
        assert!(since.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let interrupt = || {
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().expect("it starts").success());
    };
    interrupt();
    std::thread::sleep(std::time::Duration::from_millis(300));
    interrupt();
    child.wait().expect("it is over");
}

#[test]
fn what_an_interrupted_run_has_finished_outlives_runs_of_some_stages() {
    let space = Space::new();
    let rows: Vec<String> = (0..20).map(|x| format!("{{ x: {x} }}")).collect();
    let wait = "test {x} -lt 10 || test -e go || { touch waits; until test -e go; do sleep 0.05; done; }";
    let one = "one: { run: 'echo {x} > {out}/y', shell: true, from: src, where: { x: 1 }, writes: { y: blob } }";
    space.write(
        "r.yaml",
        &format!(
            "stages:
  src: {{ rows: [{}] }}
  {one}
  all: {{ run: '{wait}; echo {{x}} and > {{out}}/z', shell: true, from: src, writes: {{ z: blob }} }}
",
            rows.join(", ")
        ),
    );
    stopped(&space, &[]);
    assert_eq!(hits(&space), Some(1 + 10));
    assert_eq!(space.effigy(&["run", "r.yaml", "--only", "one", "--json"]).counts(), (0, 1, 0));
    json(&space, &["gc", "--delete"]);
    assert_eq!(hits(&space), Some(1 + 10), "the last run was not about the others");
    space.write("go", "");
    assert_eq!(space.run(), (10, 11, 0));
    json(&space, &["gc", "--delete"]);
    assert_eq!(hits(&space), Some(21));
}

/// What it took for granted of the stages before may be what others have begun anew.
#[test]
fn what_an_interrupted_run_has_finished_outlives_runs_from_a_later_stage() {
    let space = Space::new();
    let rows: Vec<String> = (0..20).map(|x| format!("{{ x: {x} }}")).collect();
    let wait = "test {param.n} = 1 -o {x} -lt 10 || { touch waits; until test -e go; do sleep 0.05; done; }";
    space.write(
        "r.yaml",
        &format!(
            "params: {{ n: 1, m: 1 }}
stages:
  src: {{ rows: [{}] }}
  a: {{ run: '{wait}; echo {{x}} > {{out}}/y', shell: true, from: src, params: {{ n: '${{n}}' }}, writes: {{ y: blob }} }}
  b: {{ join: [src, a], on: [x] }}
  c: {{ run: 'echo {{param.m}} > {{out}}/z', shell: true, from: b, params: {{ m: '${{m}}' }}, writes: {{ z: blob }} }}
",
            rows.join(", ")
        ),
    );
    assert_eq!(space.effigy(&["run", "r.yaml", "--json"]).code, 0);
    let hits = || space.effigy(&["plan", "r.yaml", "--param", "n=2", "--json"]).json()["hits"].as_u64();
    stopped(&space, &["--param", "n=2"]);
    let known = hits();
    assert!(known >= Some(10), "{known:?}");
    assert_eq!(space.effigy(&["run", "r.yaml", "--param", "m=3", "--from", "b"]).code, 0);
    json(&space, &["gc", "--delete"]);
    assert_eq!(hits(), known, "that run was not about `a`");
}

#[test]
fn a_run_of_some_stages_forgets_no_file_that_others_handed_on() {
    let space = Space::new();
    space.write("in/a.bin", "of the user");
    space.write("b.txt", "b");
    space.write(
        "r.yaml",
        "
stages:
  src: { files: 'in/*.bin' }
  handed: { run: 'ln -s $(pwd)/in/a.bin {out}/own # {file}', shell: true, from: src, writes: { own: blob } }
  beside: { files: b.txt }
  other: { run: 'cp {file} {out}/y', from: beside, writes: { y: blob } }
",
    );
    space.settle();
    assert_eq!(space.run(), (2, 0, 0));
    space.write("b.txt", "bb");
    space.settle();
    for part in [["--only", "other"], ["--from", "other"]] {
        assert_eq!(space.effigy(&[&["run", "r.yaml"], &part[..]].concat()).code, 0);
        let said = space.effigy(&["cache", "verify"]);
        assert_eq!(said.code, 0, "{}", said.out);
        let row = &space.effigy(&["show", "r.yaml", "handed", "--json", "--paths"]).json()["own"];
        assert_eq!(row.as_str(), space.path("in/a.bin").to_str());
    }
    json(&space, &["gc", "--delete"]);
    assert_eq!(space.run(), (0, 2, 0));
}

#[test]
fn large_files_are_moved_and_what_is_handed_on_is_not_copied() {
    let space = Space::new();
    space.write("in/a.bin", &"large ".repeat(1000));
    space.write(
        "r.yaml",
        "
stages:
  src: { files: 'in/*.bin' }
  made: { run: 'cat {file} {file} > {out}/big && ls -i {out}/big > inode', shell: true, from: src, writes: { big: blob } }
  linked: { run: 'ln -s {big} {out}/same', shell: true, from: made, writes: { same: blob } }
  hard: { run: 'ln -L {big} {out}/again', shell: true, from: linked, writes: { again: blob } }
  handed: { run: 'ln -s $(pwd)/in/a.bin {out}/own # {file}', shell: true, from: hard, writes: { own: blob } }
  twice: { run: 'ln $(pwd)/in/a.bin {out}/kept # {file}', shell: true, from: handed, writes: { kept: blob } }
",
    );
    space.settle();
    space.run();
    let row = &space.rows("twice")[0];
    let big = blob(&space, "made", 0, "big");
    let inode = space.read("inode").split_whitespace().next().expect("a number").parse::<u64>().expect("a number");
    assert_eq!(std::fs::metadata(&big).expect("it is there").ino(), inode, "it was moved, not copied");
    assert_eq!((&row["same"], &row["again"]), (&row["big"], &row["big"]));
    assert_eq!((&row["own"], &row["kept"]), (&row["file"], &row["file"]));
    let stats = json(&space, &["stats"]);
    // `kept` is a second name of the user's file, which may be written again: that one has to be copied
    assert_eq!((stats["blobs"].as_u64(), stats["bytes"].as_u64()), (Some(2), Some(12_000 + 6_000)));
    space.write("in/a.bin", "new");
    assert_eq!(space.effigy(&["cache", "verify"]).code, 0, "the user's file is not ours");
}
