//! Files and code as facts: by content, read again only when they may have changed, and versions: one fact for each
//! test, named for it, from a log of what ran.

use crate::support::{Space, provider};
use std::fs::{File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

/// One row, counted by a provider's stage that also reads a file or folder named by a parameter, and a program below.
fn recipe(space: &Space, words: &str) {
    let log = space.path("ran.log").display().to_string();
    space.write("row.txt", "row");
    space.write(
        "r.yaml",
        &format!(
            "
providers: ['{}']
stages:
  src: {{ files: row.txt }}
  count: {{ stage: count, from: src, log: '{log}', words: {words} }}
  below: {{ run: 'echo {{letters}} > {{out}}/y && echo below {{letters}} >> ran.log', shell: true, from: count, writes: {{ y: blob }} }}
",
            provider()
        ),
    );
    space.settle();
}

/// A space where the words were counted once.
fn counted(words: &str) -> Space {
    let space = Space::new();
    space.write("words.txt", words);
    recipe(&space, "words.txt");
    assert_eq!(space.run(), (2, 0, 0));
    assert_eq!(space.ran().len(), 2);
    space
}

/// Sets a file's time of change, as `touch -d` does.
fn set_time(space: &Space, name: &str, time: SystemTime) {
    let file = File::options().write(true).open(space.path(name)).expect("a file");
    file.set_times(FileTimes::new().set_modified(time)).expect("its time");
}

#[test]
fn file_of_a_parameter_counts_by_content() {
    let space = counted("abc");
    space.write("words.txt", "abc");
    space.settle();
    assert_eq!(space.run(), (0, 2, 0), "written again, with the same content");
    space.write("words.txt", "abcd");
    space.settle();
    assert_eq!(space.run(), (2, 0, 0));
    assert_eq!(space.ran(), ["below 7.0", "row"]);
    space.write("words.txt", "abc");
    space.settle();
    assert_eq!(space.run(), (0, 2, 0), "what it was before is still known");
}

#[test]
fn file_of_a_parameter_may_move() {
    let space = counted("abc");
    space.write("elsewhere/named_otherwise.md", "abc");
    recipe(&space, "elsewhere/named_otherwise.md");
    assert_eq!(space.run(), (0, 2, 0));
}

#[test]
fn file_of_a_parameter_with_equal_effect_stops_the_change() {
    let space = counted("abc");
    space.write("words.txt", "xyz");
    space.settle();
    assert_eq!(space.run(), (1, 1, 0));
    assert_eq!(space.ran(), ["row"], "three other letters: the count is the same");
}

#[test]
fn change_of_equal_size_and_time_is_seen() {
    let space = counted("abc");
    let time = std::fs::metadata(space.path("words.txt")).and_then(|meta| meta.modified()).expect("a time");
    space.write("words.txt", "xyz");
    set_time(&space, "words.txt", time);
    space.settle();
    assert_eq!(space.run().0, 1, "the clock of the inode cannot be set back");
}

#[test]
fn older_file_moved_into_place_is_seen() {
    let space = counted("abc");
    space.write("old.txt", "xyz");
    set_time(&space, "old.txt", SystemTime::now() - Duration::from_secs(86_400));
    std::fs::rename(space.path("old.txt"), space.path("words.txt")).expect("it is there");
    space.settle();
    assert_eq!(space.run().0, 1);
}

#[test]
fn change_right_after_a_run_is_seen() {
    // no pause: the first run sees a file that is younger than the clock's grain
    for i in 0..5 {
        let space = Space::new();
        space.write("in.txt", "one");
        space.write(
            "r.yaml",
            "stages: { src: { files: in.txt }, s: { run: 'cp {file} {out}/y', from: src, writes: { y: blob } } }",
        );
        assert_eq!(space.run(), (1, 0, 0));
        space.write("in.txt", "two");
        assert_eq!(space.run(), (1, 0, 0), "time {i}");
        assert_eq!(space.file("s", 0, "y"), "two");
    }
}

/// Seconds of work of the processor that a run takes, by what its shell says of its children.
fn seconds_of(space: &Space) -> f64 {
    let effigy = env!("CARGO_BIN_EXE_effigy");
    let line = format!("'{effigy}' run r.yaml --quiet || exit 1; times");
    let said = std::process::Command::new("sh").args(["-c", &line]).current_dir(space.path("")).output();
    let said = said.expect("a shell");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    // the last line is `user system` of its children, each as `0m1.25s`
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let seconds = |word: &str| {
        let (minutes, seconds) = word.trim_end_matches('s').split_once('m').expect("minutes and seconds");
        60.0 * minutes.parse::<f64>().expect("a number") + seconds.parse::<f64>().expect("a number")
    };
    text.lines().last().expect("two lines").split_whitespace().map(seconds).sum()
}

#[test]
fn unchanged_files_are_not_read_again() {
    let space = Space::new();
    // a gigabyte that takes no room
    File::create(space.path("big")).and_then(|file| file.set_len(1 << 30)).expect("a sparse file");
    std::fs::create_dir(space.path("folder")).expect("a folder");
    std::fs::hard_link(space.path("big"), space.path("folder/same")).expect("a link");
    space.write(
        "r.yaml",
        "
stages:
  src: { files: big }
  x: { rows: [ { x: 1 } ] }
  size: { run: \"echo {file} > {out}/y\", shell: true, from: src, writes: { y: blob } }
  code: { run: \"echo {x} > {out}/y\", shell: true, from: x, code: [folder], writes: { y: blob } }
",
    );
    space.settle();
    let first = seconds_of(&space);
    let second = seconds_of(&space);
    assert!(second < first / 4.0, "{second} s after {first} s: the files were read again");
    // what is known of files survives the loss of what the last run came to
    std::fs::remove_dir_all(space.path(".effigy/runs")).expect("it is there");
    let third = seconds_of(&space);
    assert!(third < first / 4.0, "{third} s after {first} s: the files were read again");
    set_time(&space, "big", SystemTime::now() - Duration::from_secs(100));
    space.settle();
    let touched = seconds_of(&space);
    assert!(touched > 4.0 * second.max(0.01), "{touched} s after {second} s: a touched file was not read");
}

#[test]
fn file_of_a_parameter_that_changes_meanwhile_gives_no_wrong_result() {
    // the program changes the file it is given, as an editor may while it runs
    let space = Space::new();
    space.write("words.txt", "one");
    space.write("row.txt", "row");
    space.write("swap.sh", "cat words.txt > \"$1/y\"; printf %s \"$(cat next.txt)\" > words.txt\n");
    space.write("next.txt", "two");
    space.write("r.yaml", "stages: { s: { run: 'sh swap.sh {out}', code: [words.txt], writes: { y: blob } } }");
    space.settle();
    let said = space.effigy(&["run", "r.yaml"]);
    said.expect_error(1, &["words.txt changed while it was being read", "hint: run again"]);
    // now it writes what is there already, with the times that it has
    space.write("swap.sh", "cat words.txt > \"$1/y\"\n");
    space.settle();
    assert_eq!(space.run(), (1, 0, 0), "nothing was kept of what may be wrong");
    assert_eq!(space.file("s", 0, "y"), "two");
}

#[test]
fn what_python_leaves_beside_its_sources_is_no_fact() {
    let space = Space::new();
    space.write("lib/a.py", "pass");
    space.write("r.yaml", "stages: { s: { run: 'touch {out}/y', code: [lib], writes: { y: blob } } }");
    space.settle();
    assert_eq!(space.run(), (1, 0, 0));
    space.write("lib/__pycache__/a.cpython-311.pyc", "compiled");
    assert_eq!(space.run(), (0, 1, 0));
    space.write("lib/b.py", "pass");
    assert_eq!(space.run(), (1, 0, 0));
}

/// The test provider under a script of ours, whose stage `count` has this version.
fn provider_of_version(space: &Space, version: u32, remark: &str) {
    let script = format!("#!/bin/sh\n# {remark}\nCOUNT_VERSION={version} exec {} \"$@\"\n", provider());
    space.write("my-provider", &script);
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(space.path("my-provider"), executable).expect("permissions");
    space.settle();
}

#[test]
fn version_of_a_providers_stage_is_a_fact_and_its_bytes_are_not() {
    let space = Space::new();
    for i in 0..3 {
        space.write(&format!("in/{i}.txt"), &"o".repeat(i + 1));
    }
    let log = space.path("ran.log").display().to_string();
    space.write(
        "r.yaml",
        &format!(
            "
providers: [./my-provider]
stages:
  src: {{ files: 'in/*.txt' }}
  count: {{ stage: count, from: src, log: '{log}' }}
  words: {{ stage: split, from: src, log: '{log}' }}
  below: {{ run: 'echo {{letters}} > {{out}}/y && echo below >> ran.log', shell: true, from: count, writes: {{ y: blob }} }}
"
        ),
    );
    provider_of_version(&space, 1, "built once");
    assert_eq!(space.run(), (9, 0, 0));
    space.ran();
    provider_of_version(&space, 1, "built again, from the same code");
    assert_eq!(space.run(), (0, 9, 0), "another file of the same version");
    provider_of_version(&space, 2, "counts otherwise");
    assert_eq!(space.run(), (3, 6, 0));
    assert_eq!(space.ran(), ["o", "oo", "ooo"], "its rows, and nothing below, for they came out equal");
    provider_of_version(&space, 1, "back again");
    assert_eq!(space.run(), (0, 9, 0), "what the former version gave is still known");
}

#[test]
fn the_workspace_and_git_are_no_code() {
    let space = Space::new();
    space.write("code/a.sh", "echo a");
    space.write("code/r.yaml", "stages: { s: { run: 'touch {out}/y', code: ['.'], writes: { y: blob } } }");
    let run = || {
        space.settle();
        let said = space.effigy(&["run", "code/r.yaml", "--json", "--workspace", "code/.effigy"]);
        assert_eq!(said.code, 0, "{}", said.err);
        said.counts()
    };
    assert_eq!(run(), (1, 0, 0));
    assert_eq!(run(), (0, 1, 0), "it has written into the workspace");
    space.write("code/.git/HEAD", "ref: refs/heads/main");
    assert_eq!(run(), (0, 1, 0));
    space.write("code/b.sh", "echo b");
    assert_eq!(run(), (1, 0, 0));
}

#[test]
fn a_folder_may_hold_pipes_and_names_that_are_no_text_but_not_itself() {
    let space = Space::new();
    space.write("code/a.sh", "echo a");
    space.write(
        "r.yaml",
        "stages:\n  src: { rows: [{ n: 1 }] }\n  use: { run: 'sh code/a.sh > {out}/y', shell: true, from: src, code: [code], writes: { y: blob } }\n",
    );
    let pipe = std::ffi::CString::new(space.path("code/pipe").display().to_string()).expect("a name");
    // SAFETY: it takes a name and makes a file.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    let odd = std::ffi::OsStr::from_bytes(b"\xff.txt");
    std::fs::write(space.path("code").join(odd), "one").expect("a file");
    space.settle();
    assert_eq!(space.run(), (1, 0, 0));
    assert_eq!(space.run(), (0, 1, 0));
    std::fs::write(space.path("code").join(odd), "two").expect("a file");
    space.settle();
    assert_eq!(space.run(), (1, 0, 0), "its content counts, whatever it is called");
    std::os::unix::fs::symlink(".", space.path("code/again")).expect("a link");
    space
        .effigy(&["run", "r.yaml"])
        .expect_error(1, &["code/again leads to a folder that it lies in itself", "remove it"]);
}

#[test]
fn a_name_that_is_no_text_matters_where_a_pattern_wants_it() {
    let space = Space::new();
    space.write("in/a.png", "a");
    std::fs::write(space.path("in").join(std::ffi::OsStr::from_bytes(b"\xff.txt")), "one").expect("a file");
    let pipe = std::ffi::CString::new(space.path("in/pipe.png").display().to_string()).expect("a name");
    // SAFETY: it takes a name and makes a file.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    space.write("r.yaml", "stages:\n  src: { files: 'in/*.png' }\n");
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 0);
    assert_eq!(space.rows("src").len(), 1);
    space.write("r.yaml", "stages:\n  src: { files: 'in/*' }\n");
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["r.yaml:2:", "not UTF-8", "rename it"]);
    space.write("r.yaml", "stages:\n  src: { files: in/pipe.png }\n");
    space.effigy(&["run", "r.yaml"]).expect_error(1, &["no file matches `in/pipe.png`"]);
}

#[test]
fn a_workspace_whose_name_is_no_text_is_refused_and_a_folder_for_the_report_is_not() {
    let space = Space::new();
    space.write("r.yaml", "stages:\n  src: { rows: [{ n: 1 }] }\n");
    let odd = std::ffi::OsStr::from_bytes(b"w\xff");
    for (word, code) in [("--workspace", 2), ("--out", 0)] {
        let said = space.command(&["run", "r.yaml", word]).arg(odd).output().expect("it starts");
        let text = String::from_utf8_lossy(&said.stderr);
        assert_eq!((said.status.code(), text.contains("not UTF-8")), (Some(code), code == 2), "{text}");
    }
    assert!(!space.path("").join(odd).exists());
}
