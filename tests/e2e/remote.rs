//! Shared caches in a folder: what one has computed the other need not, and nothing wrong comes from there.

use crate::remotes::{files, named, spoil, web};
use crate::support::{Said, Space, interrupt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const RECIPE: &str = "
stages:
  src: { files: 'in/*.txt' }
  upper: { run: 'tr a-z A-Z < {file} > {out}/file && echo upper {path} >> ran.log', shell: true, from: src, writes: { file: blob } }
  size: { run: 'wc -c < {file} > {out}/size && echo size {path} >> ran.log', shell: true, from: upper, writes: { size: blob } }
  all: { run: 'cat {in} | wc -c > /dev/null; echo one > {out}/one; echo all >> ran.log', shell: true, from: size, grain: whole, writes: { one: blob } }
";
/// Units of the recipe with `FILES` files.
const UNITS: u64 = 2 * FILES + 1;
const FILES: u64 = 6;

/// A folder that is shared.
struct Share(tempfile::TempDir);

impl Share {
    fn new() -> Share {
        Share(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn url(&self) -> String {
        format!("dir:{}", self.path().display())
    }

    fn count(&self, start: &str) -> usize {
        named(self.path(), start).len()
    }
}

/// The workspace of one colleague.
fn colleague() -> Space {
    let space = Space::new();
    for i in 0..FILES {
        space.write(&format!("in/{i}.txt"), &"word ".repeat(i as usize + 1));
    }
    space.write("r.yaml", RECIPE);
    space.settle();
    space
}

fn try_run(space: &Space, url: &str, more: &[&str]) -> Said {
    let said = space.effigy(&[&["run", "r.yaml", "--json", "--remote", url], more].concat());
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    said
}

/// The text of all warnings of a run.
fn warnings(said: &Said) -> Vec<String> {
    let lines = said.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON lines"));
    lines.filter(|json| json["event"] == "warning").map(|json| json["text"].as_str().expect("text").into()).collect()
}

/// Executed and known units of a run that has nothing to complain of.
fn run(space: &Space, url: &str) -> (u64, u64) {
    let said = try_run(space, url, &[]);
    assert!(warnings(&said).is_empty(), "{:?}", warnings(&said));
    let (executed, cached, _) = said.counts();
    (executed, cached)
}

fn tables(space: &Space) -> Vec<Vec<serde_json::Value>> {
    ["upper", "size", "all"].iter().map(|stage| space.rows(stage)).collect()
}

fn waits_for(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The file of a digest in a shared folder that is not empty.
fn some_blob(share: &Share) -> PathBuf {
    let mut blobs = named(share.path(), "blobs/");
    blobs.retain(|path| std::fs::metadata(path).is_ok_and(|meta| meta.len() > 4));
    blobs.swap_remove(0)
}

#[test]
fn a_plan_says_what_the_remote_has_and_fetches_nothing() {
    let (share, one, two) = (Share::new(), colleague(), colleague());
    run(&one, &share.url());
    let plan = |more: &[&str]| {
        let said = two.effigy(&[&["plan", "r.yaml", "--json"], more].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        let json = said.json();
        ["hits", "remote", "misses", "unknown"].map(|name| json[name].as_u64().expect("a count"))
    };
    let before = files(share.path());
    assert_eq!(plan(&[]), [0, 0, FILES, FILES + 1]);
    assert_eq!(plan(&["--remote", &share.url()]), [UNITS, UNITS, 0, 0]);
    let said = two.effigy(&["run", "r.yaml", "--dry-run", "--remote", &share.url()]);
    assert!(said.out.contains(&format!("{UNITS} known ({UNITS} of them in the remote)")), "{}", said.out);
    // one whose file was evicted is none, and what follows it is unknown
    std::fs::remove_file(some_blob(&share)).expect("it is there");
    assert_eq!(plan(&["--remote", &share.url()]), [UNITS - 3, UNITS - 3, 1, 2]);
    // nothing has come, and nothing was changed there
    assert_eq!(plan(&[]), [0, 0, FILES, FILES + 1]);
    assert_eq!(files(share.path()).len(), before.len() - 1);
    // one that cannot be used is said, and the plan is that of the workspace
    let said = two.effigy(&["plan", "r.yaml", "--remote", "http://127.0.0.1:9/cache"]);
    assert!(said.code == 0 && said.err.contains("cannot be used"), "{}\n{}", said.out, said.err);
    assert!(said.out.contains(&format!("{FILES} to run, 0 known")), "{}", said.out);
}

#[test]
fn what_a_colleague_has_computed_is_not_computed_again() {
    let (share, one, two) = (Share::new(), colleague(), colleague());
    assert_eq!(run(&one, &share.url()), (UNITS, 0));
    assert_eq!(share.count("records/"), UNITS as usize);
    let before = files(share.path());
    assert_eq!(run(&two, &share.url()), (0, UNITS));
    assert!(two.ran().is_empty());
    assert_eq!(tables(&two), tables(&one), "rows, with the digests of their files");
    assert!(files(share.path()) == before, "what is known already is not written again");
    // only what is new runs, and the first gets it back
    for space in [&two, &one] {
        space.write("in/new.txt", "other words");
        space.settle();
    }
    assert_eq!(run(&two, &share.url()), (3, UNITS - 1));
    assert_eq!(two.ran(), ["all", "size in/new.txt", "upper in/new.txt"]);
    one.ran();
    assert_eq!(run(&one, &share.url()), (0, UNITS + 2));
    assert!(one.ran().is_empty());
    assert_eq!(tables(&two), tables(&one));
}

#[test]
fn a_run_that_knows_everything_asks_nobody() {
    let (share, space) = (Share::new(), colleague());
    run(&space, &share.url());
    let url = share.url();
    drop(share);
    assert_eq!(run(&space, &url), (0, UNITS));
    for entry in std::fs::read_dir(space.path(".effigy/runs/last")).expect("it is there").flatten() {
        std::fs::remove_file(entry.path()).expect("a file");
    }
    assert_eq!(run(&space, &url), (0, UNITS), "nor one that has to look at everything");
}

#[test]
fn a_remote_that_is_not_there_is_said_once_and_nothing_is_lost() {
    let (share, one, two) = (Share::new(), colleague(), colleague());
    let folder = share.path().join("later");
    let url = format!("dir:{}", folder.display());
    let said = try_run(&one, &url, &[]);
    assert_eq!(said.counts(), (UNITS, 0, 0));
    let told = warnings(&said);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("there is no such folder") && told[0].contains("stays queued"), "{told:?}");
    let push = one.effigy(&["cache", "push", "--remote", &url]);
    push.expect_error(1, &["there is no such folder", "hint: "]);
    assert!(!folder.exists());
    std::fs::create_dir(&folder).expect("a folder");
    one.ran();
    assert_eq!(run(&one, &url), (0, UNITS), "it has nothing to compute, and something to send");
    assert!(one.ran().is_empty());
    assert_eq!(named(&folder, "records/").len(), UNITS as usize);
    assert!(named(&one.path(".effigy/uploads"), "").is_empty(), "nothing waits any more");
    assert_eq!(run(&two, &url), (0, UNITS));
}

#[test]
fn killed_while_it_sends_it_goes_on_where_it_was() {
    let (share, one, two) = (Share::new(), Space::new(), Space::new());
    let many = 300;
    let rows: Vec<String> = (0..many).map(|i| format!("{{ i: {i} }}")).collect();
    let recipe = format!(
        "stages:\n  n: {{ rows: [{}] }}\n  out: {{ run: 'echo {{i}} > {{out}}/file; echo {{i}} >> ran.log', shell: true, from: n, writes: {{ file: blob }} }}\n",
        rows.join(", ")
    );
    for space in [&one, &two] {
        space.write("r.yaml", &recipe);
        space.settle();
    }
    let arrived = || share.count("records/");
    let kill_at = |args: &[&str], least: usize| {
        let mut child = one.start(args);
        waits_for("uploads", || arrived() >= least || child_is_over(&child));
        child.kill().expect("it can be killed");
        child.wait().expect("it is over");
    };
    kill_at(&["run", "r.yaml", "--remote", &share.url()], 20);
    let said = try_run(&one, &share.url(), &[]);
    assert!(warnings(&said).is_empty(), "{:?}", warnings(&said));
    assert_eq!(arrived(), many);
    // and when it was asked to send all that it has
    for folder in ["records", "blobs"] {
        std::fs::remove_dir_all(share.path().join(folder)).expect("it is there");
    }
    kill_at(&["cache", "push", "--remote", &share.url()], 20);
    let said = one.effigy(&["cache", "push", "--remote", &share.url(), "--json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!((arrived(), said.json()["waiting"].as_u64()), (many, Some(0)));
    two.ran();
    assert_eq!(run(&two, &share.url()), (0, many as u64));
    assert!(two.ran().is_empty());
}

fn child_is_over(child: &std::process::Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

#[test]
fn a_poisoned_file_is_a_miss_and_is_healed() {
    let (share, one, two, three) = (Share::new(), colleague(), colleague(), colleague());
    run(&one, &share.url());
    let blob = some_blob(&share);
    spoil(&blob);
    let said = try_run(&two, &share.url(), &[]);
    let told = warnings(&said);
    assert!(told.len() == 1 && told[0].contains("is refused") && told[0].contains("quarantine"), "{told:?}");
    assert_eq!(said.counts(), (1, UNITS - 1, 0), "what made it runs again, and nothing else");
    assert_eq!(tables(&two), tables(&one));
    assert_eq!(share.count("quarantine/blobs/"), 1);
    assert_eq!(run(&three, &share.url()), (0, UNITS), "the right one is there now");
}

#[test]
fn a_poisoned_record_is_a_miss_and_is_healed() {
    let (share, one, two, three) = (Share::new(), colleague(), colleague(), colleague());
    run(&one, &share.url());
    let records = named(share.path(), "records/");
    spoil(&records[0]);
    // one that is whole and stands in the place of another
    std::fs::copy(&records[1], &records[2]).expect("a file");
    let said = try_run(&two, &share.url(), &[]);
    let told = warnings(&said);
    assert_eq!(told.iter().filter(|text| text.contains("is refused")).count(), 2, "{told:?}");
    assert_eq!(said.counts(), (2, UNITS - 2, 0));
    assert_eq!(tables(&two), tables(&one));
    assert_eq!(share.count("quarantine/records/"), 2);
    assert_eq!(run(&three, &share.url()), (0, UNITS));
}

#[test]
fn a_remote_that_is_only_to_be_read_is_left_as_it_is() {
    let (share, one, two) = (Share::new(), colleague(), colleague());
    run(&one, &share.url());
    spoil(&some_blob(&share));
    two.write("in/new.txt", "of a fork");
    two.settle();
    let before = files(share.path());
    let said = try_run(&two, &share.url(), &["--remote-read-only"]);
    assert_eq!(said.counts().0, 4, "the poisoned one, the new row and the whole");
    assert!(warnings(&said).iter().all(|text| text.contains("it is left there")), "{:?}", warnings(&said));
    assert!(!two.path(".effigy/uploads").exists(), "nothing is queued either");
    // the configuration says so as well
    two.write(".effigy.yaml", &format!("remote: '{}'\nremote_read_only: true\n", share.url()));
    two.write("in/newer.txt", "of a fork");
    two.settle();
    two.run();
    two.effigy(&["cache", "push"]).expect_error(2, &["only to be read", "hint: "]);
    let mut command = two.command(&["cache", "push", "--remote", &share.url()]);
    command.env("EFFIGY_REMOTE_READ_ONLY", "1");
    assert_eq!(command.output().expect("it starts").status.code(), Some(2));
    assert!(files(share.path()) == before);
}

#[test]
fn what_was_evicted_is_computed_and_sent_again() {
    let (share, one, two, three) = (Share::new(), colleague(), colleague(), colleague());
    run(&one, &share.url());
    let blobs = share.count("blobs/");
    std::fs::remove_dir_all(share.path().join("blobs")).expect("it is there");
    assert_eq!(
        run(&two, &share.url()),
        (UNITS, 0),
        "records whose files are gone are misses, and no reason to complain"
    );
    assert_eq!((share.count("blobs/"), share.count("records/")), (blobs, UNITS as usize));
    assert_eq!(run(&three, &share.url()), (0, UNITS));
}

#[test]
fn another_result_for_the_same_key_is_told_and_the_first_stays() {
    let (share, one, two) = (Share::new(), Space::new(), Space::new());
    for space in [&one, &two] {
        space.write(
            "r.yaml",
            "stages:\n  dice: { run: 'cat \"$PWD/own\" > {out}/file', shell: true, writes: { file: blob } }\n",
        );
    }
    one.write("own", "first");
    two.write("own", "second");
    run(&one, &share.url());
    two.run();
    let before = files(share.path());
    let push = two.effigy(&["cache", "push", "--remote", &share.url()]);
    assert_eq!(push.code, 0, "{}", push.err);
    assert!(push.err.contains("stage `dice`") && push.err.contains("not deterministic"), "{}", push.err);
    let record = |files: &std::collections::BTreeMap<String, Vec<u8>>| {
        files.iter().find(|(name, _)| name.starts_with("records/")).map(|(_, bytes)| bytes.clone())
    };
    assert_eq!(record(&files(share.path())), record(&before));
}

#[test]
fn all_that_is_there_can_be_fetched_and_sent() {
    let (share, one, two) = (Share::new(), colleague(), colleague());
    one.run();
    let push = one.effigy(&["cache", "push", "--remote", &share.url(), "--json"]);
    assert_eq!((push.code, push.json()["units"].as_u64()), (0, Some(UNITS)), "{}", push.err);
    let again = one.effigy(&["cache", "push", "--remote", &share.url(), "--json"]).json();
    assert_eq!((again["units"].as_u64(), again["known"].as_u64()), (Some(0), Some(UNITS)));
    let pull = two.effigy(&["cache", "pull", "--remote", &share.url(), "--json"]);
    assert_eq!((pull.code, pull.json()["units"].as_u64()), (0, Some(UNITS)), "{}", pull.err);
    assert_eq!(two.run(), (0, UNITS, 0), "without a remote");
    assert!(two.ran().is_empty());
    assert_eq!(tables(&two), tables(&one));
}

#[test]
fn the_remote_is_named_by_flag_environment_or_file() {
    let (share, space) = (Share::new(), colleague());
    space.effigy(&["cache", "push"]).expect_error(2, &["no remote is named", "EFFIGY_REMOTE", ".effigy.yaml"]);
    space.effigy(&["run", "r.yaml", "--remote", "ftp://x"]).expect_error(2, &["--remote", "dir:FOLDER", "hint: "]);
    space.write(".effigy.yaml", "remotes: x\n");
    space.effigy(&["run", "r.yaml"]).expect_error(2, &[".effigy.yaml:1", "`remotes`", "hint: "]);
    space.write(".effigy.yaml", "remote: dir:shared\n");
    std::fs::create_dir(space.path("shared")).expect("a folder");
    space.run();
    assert_eq!(named(&space.path("shared"), "records/").len(), UNITS as usize, "a path is relative to where one is");
    // the environment goes before the file, and the flag before both
    let with = |url: &str, args: &[&str]| {
        let mut command = space.command(&[&["cache", "push"], args].concat());
        assert!(command.env("EFFIGY_REMOTE", url).output().expect("it starts").status.success());
    };
    with(&share.url(), &[]);
    assert_eq!(share.count("records/"), UNITS as usize);
    with("dir:nowhere", &["--remote", &share.url()]);
    space.effigy(&["cache", "push", "--remote", "none"]).expect_error(2, &["no remote is named"]);
    let said = space.effigy(&["cache", "push", "--remote", "dir:nowhere"]);
    said.expect_error(1, &["cannot be used for sending: there is no such folder", "stays queued", "hint: "]);
    assert!(!said.err.contains("still read"), "{}", said.err);
}

#[test]
fn a_web_server_over_the_same_folder_serves_it_and_takes_it() {
    let (share, one, two, three) = (Share::new(), colleague(), colleague(), colleague());
    let url = |takes| format!("http://me:password@127.0.0.1:{}", web(share.path(), takes));
    assert_eq!(run(&one, &url(true)), (UNITS, 0));
    assert_eq!(share.count("records/"), UNITS as usize);
    assert_eq!(run(&two, &share.url()), (0, UNITS), "what was put over the web lies as in a folder");
    let serves = url(false);
    assert_eq!(run(&three, &serves), (0, UNITS));
    assert_eq!(tables(&three), tables(&one));
    // one that takes nothing is a remote that cannot be used, if something is to be sent
    three.write("in/new.txt", "other words");
    three.settle();
    let said = try_run(&three, &serves, &[]);
    let told = warnings(&said);
    assert!(told.len() == 1 && told[0].contains("cannot be used") && told[0].contains("405"), "{told:?}");
    three.effigy(&["cache", "pull", "--remote", &serves]).expect_error(1, &["cannot be listed", "hint: "]);
    assert!(![said.out, said.err].iter().any(|text| text.contains("password")));
}

#[test]
fn interrupted_while_it_sends_it_leaves_the_rest_queued() {
    let (share, one) = (Share::new(), colleague());
    one.run();
    let port = crate::remotes::Proxy::start(web(share.path(), true), |_, _| crate::remotes::Fault::Slow).port;
    let url = format!("http://127.0.0.1:{port}");
    let mut child = one.start(&["cache", "push", "--remote", &url]);
    waits_for("uploads", || share.count("blobs/") > 0);
    interrupt(&child);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(share.count("records/") < UNITS as usize);
    assert!(!named(&one.path(".effigy/uploads"), "").is_empty());
    assert_eq!(run(&one, &url), (0, UNITS), "the next run sends the rest");
    assert_eq!(share.count("records/"), UNITS as usize);
}
