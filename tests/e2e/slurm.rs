//! Runs on a Slurm cluster: the rows of a local run, whatever happens to jobs and nodes. Needs Debian's slurm-wlm and
//! munge, and says so where they are missing.

use crate::cluster::{Cluster, accounted, cluster};
use crate::support::{Space, interrupt, provider};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STAGES: [&str; 5] = ["src", "upper", "count", "ranks", "train"];

/// A space with a recipe of all grains, and a cluster's file for it.
fn space() -> Space {
    let space = Space::new();
    for i in 0..10 {
        space.write(&format!("in/{i:02}.txt"), &"o".repeat(i + 1));
    }
    let log = space.path("ran.log").display().to_string();
    let recipe = format!(
        "
providers: ['{}']
params: {{ pause: 0.05, steps: 6, step: 10 }}
stages:
  src: {{ files: 'in/*.txt' }}
  upper: {{ run: ['sh', '-c', 'sleep $1; echo $$ >> {log}.pids; tr a-z A-Z < $2 > $3/file; echo upper >> {log}', 'sh', '{{param.pause}}', '{{file}}', '{{out}}'], params: {{ pause: '${{pause}}' }}, from: src, writes: {{ file: blob }} }}
  count: {{ stage: count, from: upper, log: '{log}' }}
  ranks: {{ stage: rank, from: count, by: [letters], log: '{log}' }}
  bias: {{ rows: [{{ value: 1.5 }}] }}
  train: {{ stage: train, from: count, with: {{ bias: bias }}, steps: '${{steps}}', pause: '${{step}}', log: '{log}' }}
",
        provider()
    );
    space.write("r.yaml", &recipe);
    space.write(
        "cluster.yaml",
        "{ partition: main, jobs: 4, tasks: 3, array: 2, silent_s: 3, grace_s: 20, memory_mb: 100 }\n",
    );
    space.settle();
    space
}

fn command(space: &Space, cluster: &Cluster, args: &[&str]) -> Command {
    let mut command = space.command(args);
    command.env("SLURM_CONF", cluster.conf());
    command
}

/// Runs `r.yaml` on the cluster; it must succeed. What it said as JSON lines.
fn run(space: &Space, cluster: &Cluster, more: &[&str]) -> Vec<serde_json::Value> {
    finish(start(space, cluster, more), 0)
}

fn start(space: &Space, cluster: &Cluster, more: &[&str]) -> Child {
    let args = [&["run", "r.yaml", "--json", "--executor", "slurm"], more].concat();
    command(space, cluster, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn finish(child: Child, code: i32) -> Vec<serde_json::Value> {
    let output = child.wait_with_output().expect("it ends");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn counts(lines: &[serde_json::Value]) -> (u64, u64, u64) {
    let last = lines.last().expect("a last line");
    let count = |name: &str| last[name].as_u64().expect("a count");
    (count("executed"), count("cached"), count("failed"))
}

/// What the user was told beside the progress.
fn remarks(lines: &[serde_json::Value]) -> String {
    lines.iter().filter_map(|line| line["text"].as_str()).collect::<Vec<_>>().join("\n")
}

fn tables(space: &Space) -> Vec<Vec<serde_json::Value>> {
    STAGES.iter().map(|stage| space.rows(stage)).collect()
}

fn waits_for(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn lines_of(space: &Space, word: &str) -> usize {
    let text = std::fs::read_to_string(space.path("ran.log")).unwrap_or_default();
    text.lines().filter(|line| line.starts_with(word)).count()
}

/// The tables of a run on this machine alone.
fn undisturbed(params: &[&str]) -> Vec<Vec<serde_json::Value>> {
    let space = space();
    let said = space.effigy(&[&["run", "r.yaml", "--json"], params].concat());
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    tables(&space)
}

#[test]
fn slurm_gives_the_rows_and_keys_of_a_local_run() {
    let Some((cluster, _turn)) = cluster() else { return };
    let space = space();
    let lines = run(&space, cluster, &[]);
    assert_eq!(counts(&lines), (10 + 10 + 10 + 1, 10 - 10, 0), "{lines:?}");
    assert_eq!(remarks(&lines), "");
    assert_eq!(tables(&space), undisturbed(&[]));
    // the same keys: a local run finds everything done
    let said = space.effigy(&["run", "r.yaml", "--json"]);
    assert_eq!(said.counts().0, 0);
    // the record names the jobs: several arrays, none of them larger than the site allows
    let record = space.effigy(&["log", "--json"]).json();
    let jobs = record["jobs"].as_array().expect("the jobs").len();
    assert!((4..20).contains(&jobs), "{record}");
    assert_eq!(cluster.jobs(), []);
}

#[test]
fn jobs_that_are_cancelled_or_requeued_cost_time_and_nothing_else() {
    let Some((cluster, _turn)) = cluster() else { return };
    let params = ["--param", "pause=0.4"];
    let space = space();
    let child = start(&space, cluster, &params);
    waits_for("two units", || lines_of(&space, "upper") >= 2);
    let running: Vec<String> =
        cluster.jobs().into_iter().filter(|(_, state)| state == "RUNNING").map(|(id, _)| id).collect();
    assert!(running.len() >= 2, "{running:?}");
    assert_eq!(cluster.say(&["scancel", &running[0]]), "");
    assert_eq!(cluster.say(&["scontrol", "requeue", &running[1]]), "");
    let lines = finish(child, 0);
    assert!(remarks(&lines).contains("CANCELLED"), "{}", remarks(&lines));
    assert_eq!(tables(&space), undisturbed(&params));
}

#[test]
fn jobs_that_have_to_make_room_for_others_cost_time_and_nothing_else() {
    let Some((cluster, _turn)) = cluster() else { return };
    let params = ["--param", "pause=1"];
    // in one partition they are put back into the queue, in the other they are cancelled
    for (partition, told) in [("main", ""), ("spare", "is PREEMPTED")] {
        let space = space();
        let file = space.read("cluster.yaml").replace("partition: main", &format!("partition: {partition}"));
        space.write("cluster.yaml", &file);
        let child = start(&space, cluster, &params);
        waits_for("a unit", || lines_of(&space, "upper") >= 1);
        let nodes = format!("--nodes={}", crate::cluster::NODES);
        let log = format!("--output={}", space.path("urgent.log").display());
        let words = ["sbatch", "--parsable", "--partition=urgent", "--exclusive", "--mem=0", &nodes, &log];
        let said = cluster.say(&[&words[..], &["--wrap", "sleep 4"]].concat());
        assert!(said.trim().parse::<u64>().is_ok(), "{said}");
        waits_for("the others' turn", || {
            let running = cluster.say(&["squeue", "--noheader", "--states=RUNNING", "--format=%P"]);
            running.lines().count() == 1 && running.trim() == "urgent"
        });
        let lines = finish(child, 0);
        assert!(remarks(&lines).contains(told), "{}", remarks(&lines));
        assert!(told.is_empty() == remarks(&lines).is_empty(), "{}", remarks(&lines));
        assert_eq!(tables(&space), undisturbed(&params));
    }
}

#[test]
fn a_node_that_is_lost_changes_nothing_but_time() {
    let Some((cluster, _turn)) = cluster() else { return };
    let params = ["--param", "pause=1", "--param", "step=100"];
    let space = space();
    let child = start(&space, cluster, &params);
    waits_for("a unit", || lines_of(&space, "upper") >= 1);
    let there = cluster.say(&["squeue", "--noheader", "--nodelist=n0", "--states=RUNNING", "--format=%i"]);
    assert!(there.lines().count() > 0, "nothing runs on the node: {:?}", cluster.jobs());
    cluster.kill_node(0);
    std::thread::sleep(Duration::from_secs(12));
    cluster.start_node(0).expect("it starts");
    finish(child, 0);
    assert_eq!(tables(&space), undisturbed(&params));
}

#[test]
fn a_controller_that_is_away_for_a_while_is_waited_for() {
    let Some((cluster, _turn)) = cluster() else { return };
    let space = space();
    let child = start(&space, cluster, &["--param", "pause=0.3"]);
    waits_for("a unit", || lines_of(&space, "upper") >= 1);
    // what it was told last it has written down by now
    std::thread::sleep(Duration::from_secs(6));
    cluster.kill_controller();
    std::thread::sleep(Duration::from_secs(4));
    cluster.start_controller().expect("it starts");
    finish(child, 0);
    assert_eq!(tables(&space), undisturbed(&["--param", "pause=0.3"]));
}

#[test]
fn a_worker_that_dies_on_a_node_takes_one_unit_with_it() {
    let Some((cluster, _turn)) = cluster() else { return };
    let space = space();
    space.write("in/05.txt", "xx");
    let text = space.read("r.yaml").replace("from: upper, log", "from: src, mishap: abort, log");
    space.write("r.yaml", &text);
    let lines = finish(start(&space, cluster, &["--only", "count"]), 1);
    let failed: Vec<_> = lines.iter().filter(|line| line["event"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{lines:?}");
    let error = failed[0]["error"].as_str().expect("a text");
    assert!(error.contains("signal 6") && error.contains("last words of the worker"), "{error}");
    assert_eq!(counts(&lines), (9, 0, 1));
    let log = space.effigy(&["log", "count", "5"]);
    assert!(log.out.contains("last words of the worker"), "{}\n{}", log.out, log.err);
}

#[test]
fn a_stage_says_itself_where_it_is_worked_on() {
    let Some((cluster, _turn)) = cluster() else { return };
    let space = space();
    let text = space.read("r.yaml");
    space
        .write("r.yaml", &text.replace("from: upper, log", "executor: slurm, needs: { minutes: 5 }, from: upper, log"));
    let output = command(&space, cluster, &["run", "r.yaml", "--json"]).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // the others were worked on here: `count` alone fits into two arrays
    let record = space.effigy(&["log", "--json"]).json();
    assert!((1..=2).contains(&record["jobs"].as_array().expect("the jobs").len()), "{record}");
    assert_eq!(tables(&space), undisturbed(&[]));
    space.write("r.yaml", &text.replace("from: upper, log", "executor: slurn, from: upper, log"));
    space.effigy(&["plan", "r.yaml"]).expect_error(2, &["r.yaml:7", "no executor `slurn`", "did you mean `slurm`"]);
}

#[test]
fn a_job_that_stops_answering_is_replaced() {
    let Some((cluster, _turn)) = cluster() else { return };
    let params = ["--param", "pause=0.5"];
    let space = space();
    let child = start(&space, cluster, &params);
    waits_for("a unit", || lines_of(&space, "upper") >= 1);
    let ours = space.path(".effigy").display().to_string();
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    let job = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("\0work\0") && line.contains(&ours)
    });
    // SAFETY: a process of a job of ours.
    unsafe { libc::kill(job.expect("a job is at work"), libc::SIGSTOP) };
    let lines = finish(child, 0);
    assert!(remarks(&lines).contains("SILENT"), "{}", remarks(&lines));
    assert_eq!(tables(&space), undisturbed(&params));
}

#[test]
fn what_the_controller_has_forgotten_accounting_knows() {
    let Some(cluster) = &accounted("a job that the controller has forgotten") else { return };
    let space = space();
    let child = start(&space, cluster, &["--param", "pause=4"]);
    waits_for("a job", || cluster.jobs().iter().any(|(_, state)| state == "RUNNING"));
    let pause = |signal: i32| {
        // SAFETY: a signal to a child of ours that was not waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
    };
    // while nobody asks, all of them are cancelled, and a controller forgets what is over once a minute
    pause(libc::SIGSTOP);
    cluster.say(&["scancel", "--user=root"]);
    let known = || cluster.say(&["squeue", "--noheader", "--states=all"]).lines().count();
    let since = Instant::now();
    while known() > 0 {
        assert!(since.elapsed() < Duration::from_secs(180), "the controller does not forget");
        std::thread::sleep(Duration::from_millis(500));
    }
    pause(libc::SIGCONT);
    let lines = finish(child, 0);
    assert!(remarks(&lines).contains("is CANCELLED; "), "{}", remarks(&lines));
    assert_eq!(tables(&space), undisturbed(&[]));
}

#[test]
fn interrupted_once_jobs_finish_the_task_they_are_at() {
    let Some((cluster, _turn)) = cluster() else { return };
    let space = space();
    let child = start(&space, cluster, &["--param", "pause=3"]);
    waits_for("a unit", || lines_of(&space, "upper") >= 1);
    interrupt(&child);
    let lines = finish(child, 130);
    let (executed, _, failed) = counts(&lines);
    assert!(failed == 0 && (1..10).contains(&executed), "{lines:?}");
    waits_for("the end of all jobs", || cluster.jobs().is_empty());
    assert_eq!(lines_of(&space, "upper"), executed as usize);
}

/// Of a training that tells every step, so that its job is never silent.
const STEPS: [&str; 4] = ["--param", "steps=120", "--param", "step=100"];

/// A run whose training is at work on a node.
fn amid_a_training(cluster: &Cluster) -> (Space, Child) {
    let space = space();
    let child = start(&space, cluster, &STEPS);
    waits_for("steps", || lines_of(&space, "step") >= 3);
    (space, child)
}

/// The next run does what is left of it.
fn goes_on(cluster: &Cluster, space: &Space) {
    waits_for("the end of all jobs", || cluster.jobs().is_empty());
    run(space, cluster, &STEPS);
    assert_eq!(lines_of(space, "step"), 120, "a step was done twice or not at all");
}

#[test]
fn interrupted_once_a_training_on_a_node_leaves_a_checkpoint() {
    let Some((cluster, _turn)) = cluster() else { return };
    let (space, child) = amid_a_training(cluster);
    interrupt(&child);
    let lines = finish(child, 130);
    let before = lines_of(&space, "step");
    assert!(counts(&lines).2 == 0 && before < 90, "it went on to its end: {before} steps, {lines:?}");
    goes_on(cluster, &space);
}

#[test]
fn interrupted_while_a_job_starts_it_begins_nothing() {
    let Some((cluster, _turn)) = cluster() else { return };
    let space = space();
    space.write(
        "cluster.yaml",
        "{ partition: main, jobs: 4, tasks: 3, silent_s: 3, memory_mb: 100, prelude: 'sleep 6' }\n",
    );
    let child = start(&space, cluster, &[]);
    waits_for("jobs", || cluster.jobs().iter().any(|(_, state)| state == "RUNNING"));
    interrupt(&child);
    let lines = finish(child, 130);
    assert_eq!((counts(&lines).2, lines_of(&space, "upper")), (0, 0), "{lines:?}");
    waits_for("the end of all jobs", || cluster.jobs().is_empty());
}

#[test]
fn what_a_job_left_for_a_run_that_is_gone_is_gone_on_with() {
    let Some((cluster, _turn)) = cluster() else { return };
    let (space, mut child) = amid_a_training(cluster);
    interrupt(&child);
    // it has told the job and does not live to hear what came of it
    std::thread::sleep(Duration::from_millis(400));
    child.kill().expect("it was running");
    child.wait().expect("it is over");
    goes_on(cluster, &space);
}

#[test]
fn interrupted_twice_nothing_is_left_on_the_cluster() {
    let Some((cluster, _turn)) = cluster() else { return };
    let space = space();
    let child = start(&space, cluster, &["--param", "pause=30"]);
    waits_for("jobs", || cluster.jobs().iter().any(|(_, state)| state == "RUNNING"));
    for _ in 0..2 {
        interrupt(&child);
        std::thread::sleep(Duration::from_millis(1500));
    }
    finish(child, 130);
    waits_for("the end of all jobs", || cluster.jobs().is_empty());
}

#[test]
fn a_detached_run_goes_on_by_itself_and_is_taken_up_again() {
    let Some((cluster, _turn)) = cluster() else { return };
    let params = ["--param", "pause=0.5"];
    let space = space();
    let child = start(&space, cluster, &[&params[..], &["--detach"]].concat());
    waits_for("a unit", || lines_of(&space, "upper") >= 1);
    interrupt(&child);
    finish(child, 130);
    // nobody else may take the workspace meanwhile
    let said = space.effigy(&["run", "r.yaml"]);
    said.expect_error(2, &["a run is detached here", "effigy attach"]);
    waits_for("the rest without us", || lines_of(&space, "upper") == 10);
    let attached = command(&space, cluster, &["attach"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let lines = finish(attached.expect("it starts"), 0);
    assert_eq!(lines_of(&space, "upper"), 10, "work was done twice");
    assert_eq!((counts(&lines).0 > 10, counts(&lines).2), (true, 0));
    assert_eq!(tables(&space), undisturbed(&params));
    assert!(command(&space, cluster, &["attach"]).output().expect("it starts").status.code() == Some(2));
}

#[test]
fn jobs_of_a_killed_run_are_found_by_the_next() {
    let Some((cluster, _turn)) = cluster() else { return };
    let params = ["--param", "pause=0.5"];
    let space = space();
    let mut child = start(&space, cluster, &params);
    waits_for("a unit", || lines_of(&space, "upper") >= 1);
    child.kill().expect("it was running");
    child.wait().expect("it is over");
    run(&space, cluster, &params);
    assert_eq!(lines_of(&space, "upper"), 10, "work was done twice");
    assert_eq!(tables(&space), undisturbed(&params));
    assert_eq!(cluster.jobs(), []);
}

#[test]
fn what_waits_behind_long_tasks_is_given_back_and_done_once() {
    let Some((cluster, _turn)) = cluster() else { return };
    let params = ["--param", "pause=4"];
    let space = space();
    // of six jobs four get two units; the last two get one, and are soon done with it
    let short = space.read("r.yaml").replace("sleep $1;", "grep -q ooooooooo $2 || sleep $1;");
    space.write("r.yaml", &short);
    space.write("cluster.yaml", "{ partition: main, jobs: 6, tasks: 5, array: 2, silent_s: 3, memory_mb: 100 }\n");
    let mut child = start(&space, cluster, &params);
    waits_for("tasks that were given back", || any_said(&space, "back"));
    // at once, and again when others have them
    child.kill().expect("it was running");
    child.wait().expect("it is over");
    let mut child = start(&space, cluster, &params);
    waits_for("four units", || lines_of(&space, "upper") >= 4);
    child.kill().expect("it was running");
    child.wait().expect("it is over");
    let lines = run(&space, cluster, &params);
    assert_eq!(remarks(&lines), "");
    assert_eq!(lines_of(&space, "upper"), 10, "work was done twice");
    assert_eq!(tables(&space), undisturbed(&[]));
    assert_eq!(cluster.jobs(), []);
}

/// A small disk, unmounted when the test is over.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(path: std::path::PathBuf, options: &str) -> Option<Disk> {
        std::fs::create_dir_all(&path).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&path).status();
        mounted.is_ok_and(|status| status.success()).then_some(Disk(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_run_and_the_next_goes_on() {
    let Some((cluster, _turn)) = cluster() else { return };
    let space = space();
    let Some(disk) = Disk::mount(space.path(".effigy"), "size=12m") else {
        return eprintln!("not tried: a full disk on the cluster, because none can be mounted here");
    };
    let big = space.read("r.yaml").replace("tr a-z A-Z < $2 > $3/file", "head -c 2000000 $2.big > $3/file");
    for i in 0..10_u8 {
        std::fs::write(space.path(&format!("in/{i:02}.txt.big")), vec![i; 2_000_000]).expect("a file");
    }
    space.write("r.yaml", &big);
    let output = command(&space, cluster, &["run", "r.yaml", "--executor", "slurm", "--only", "upper"]).output();
    let output = output.expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() != Some(0) && text.contains("No space left on device"), "{text}");
    waits_for("the end of all jobs", || cluster.jobs().is_empty());
    let larger = Command::new("mount").args(["-o", "remount,size=100m"]).arg(&disk.0).status();
    assert!(larger.is_ok_and(|status| status.success()));
    let lines = run(&space, cluster, &["--only", "upper"]);
    assert_eq!((counts(&lines).0 + counts(&lines).1, counts(&lines).2), (10, 0));
    assert!(counts(&lines).1 > 0, "what was finished was kept");
    assert_eq!(space.rows("upper").len(), 10);
}

#[test]
fn a_training_whose_time_is_up_goes_on_from_its_checkpoint() {
    let Some((cluster, _turn)) = cluster() else { return };
    let params = ["--param", "steps=28", "--param", "step=2000"];
    let space = space();
    space.write("cluster.yaml", "{ jobs: 4, tasks: 3, silent_s: 3, grace_s: 30, minutes: 1 }\n");
    let lines = finish(start(&space, cluster, &params), 0);
    assert_eq!(remarks(&lines), "");
    // every step was done once, by a job that ran twice
    let mut steps: Vec<String> = space.ran().into_iter().filter(|line| line.starts_with("step")).collect();
    steps.dedup();
    assert_eq!(steps.len(), 28);
    let again = lines.iter().filter(|line| line["stage"] == "train" && line["event"] == "finished").count();
    assert_eq!(again, 1);
    assert!(any_said(&space, "again"), "the job was never started again");
    let total = space.rows("train");
    assert_eq!(total, undisturbed(&["--param", "steps=28", "--param", "step=1"])[4], "{total:?}");
}

/// Whether a job of the last run has said this.
fn any_said(space: &Space, word: &str) -> bool {
    let arrays = std::fs::read_dir(space.path(".effigy/tasks/slurm")).into_iter().flatten().flatten();
    let mut files = arrays.flat_map(|array| std::fs::read_dir(array.path()).into_iter().flatten().flatten());
    let line = format!("\n\"{word}\"\n");
    files.any(|file| std::fs::read_to_string(file.path()).is_ok_and(|text| text.contains(&line)))
}

#[test]
fn a_cluster_that_is_not_there_is_one_clear_error() {
    let space = space();
    let said = space.effigy(&["run", "r.yaml", "--executor", "cloud"]);
    said.expect_error(2, &["cloud", "local, slurm"]);
    let mut command = space.command(&["run", "r.yaml", "--executor", "slurm", "--only", "upper"]);
    let output = command.env("PATH", "/nowhere").output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("could not be handed to Slurm: `sbatch` cannot be started") && text.contains("hint: "),
        "{text}"
    );
    space.write("cluster.yaml", "{ partitoin: main, jobs: 0 }");
    let said = space.effigy(&["run", "r.yaml", "--executor", "slurm"]);
    said.expect_error(2, &["cluster.yaml:1", "no field `partitoin`", "did you mean `partition`", "at least 1, not 0"]);
}
