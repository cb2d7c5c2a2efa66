//! Two machines, which share a folder and a cable: caches and clusters between them, and the cable pulled out while
//! they work. The machines are network namespaces of this one; where these, an S3 server or Slurm cannot be had, the
//! tests say so and pass.

use crate::cluster::spread;
use crate::network::{ADDRESSES, Machines};
use crate::remotes::{self, BIG, S3, URL, named};
use crate::support::{Said, Space};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// So many small files, each in work for a moment, and a large one.
fn colleague(files: usize) -> Space {
    remotes::colleague(files, BIG, 0.1)
}

/// An S3 server on the second machine.
fn server(machines: &Machines, test: &str) -> Option<S3> {
    let listens = |host: &str, port: u16| machines.within(1, || TcpStream::connect((host, port)).is_ok());
    S3::start_at(test, ADDRESSES[1], |command| machines.on(1, command), listens)
}

/// Starts `r.yaml` on a machine, with the server's bucket as its remote.
fn start(space: &Space, machines: &Machines, machine: usize, s3: &S3) -> Child {
    let mut command = space.command(&["run", "r.yaml", "--json", "--jobs", "4", "--remote", URL]);
    s3.set_here(&mut command);
    machines.on(machine, &mut command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn finish(child: Child) -> Said {
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let said = Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) };
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    said
}

fn tables(space: &Space, stages: &[&str]) -> Vec<Vec<serde_json::Value>> {
    stages.iter().map(|stage| space.rows(stage)).collect()
}

fn waits_for(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn log_lines(space: &Space, word: &str) -> Vec<String> {
    let text = std::fs::read_to_string(space.path("ran.log")).unwrap_or_default();
    text.lines().filter(|line| line.contains(word)).map(str::to_string).collect()
}

#[test]
fn what_one_machine_has_made_comes_to_another_over_the_cable() {
    let test = "a cache between two machines";
    let Some(machines) = Machines::new(test) else { return };
    let Some(s3) = server(&machines, test) else { return };
    assert!(TcpStream::connect((ADDRESSES[1], s3.port)).is_err(), "the server can be reached without the cable");
    let (one, two) = (colleague(6), colleague(6));
    assert_eq!(finish(start(&one, &machines, 1, &s3)).counts(), (7, 0, 0));
    let before = machines.carried();
    assert_eq!(finish(start(&two, &machines, 0, &s3)).counts(), (0, 7, 0));
    assert!(two.ran().is_empty());
    assert!(machines.carried() - before > BIG as u64, "the results came by another way");
    assert_eq!(tables(&two, &["upper", "big"]), tables(&one, &["upper", "big"]));
    // the second has all of it now, and needs no server for its next run
    drop(s3);
    assert_eq!(two.run(), (0, 7, 0));
}

#[test]
fn a_cable_that_is_pulled_out_while_results_are_sent_and_fetched_costs_time_alone() {
    let test = "a cable pulled out while results move";
    let Some(machines) = Machines::new(test) else { return };
    let Some(s3) = server(&machines, test) else { return };
    let (one, two, three) = (colleague(40), colleague(40), colleague(40));
    let is_calm = |said: &Said| !said.out.contains("\"event\":\"warning\"");
    let mut sending = start(&one, &machines, 0, &s3);
    waits_for("some units", || log_lines(&one, "txt").len() > 8);
    machines.pull();
    std::thread::sleep(Duration::from_secs(4));
    assert!(sending.try_wait().expect("it is ours").is_none(), "it was over before the cable was back");
    machines.plug();
    let said = finish(sending);
    assert!(said.counts() == (41, 0, 0) && is_calm(&said), "{}", said.out);
    assert_eq!(named(&s3.folder("team/cache"), "records/").len(), 41);
    // in the middle of what comes
    let before = machines.carried();
    let mut fetching = start(&two, &machines, 0, &s3);
    waits_for("the first bytes", || machines.carried() - before > 500_000);
    machines.pull();
    std::thread::sleep(Duration::from_secs(4));
    assert!(fetching.try_wait().expect("it is ours").is_none(), "it was over before the cable was back");
    machines.plug();
    let said = finish(fetching);
    assert!(said.counts() == (0, 41, 0) && is_calm(&said), "{}", said.out);
    // before anything has come
    machines.pull();
    let mut waiting = start(&three, &machines, 0, &s3);
    std::thread::sleep(Duration::from_secs(4));
    assert!(waiting.try_wait().expect("it is ours").is_none(), "it did not wait");
    machines.plug();
    let said = finish(waiting);
    assert!(said.counts() == (0, 41, 0) && is_calm(&said), "{}", said.out);
    for space in [&two, &three] {
        assert_eq!(tables(space, &["upper", "big"]), tables(&one, &["upper", "big"]));
    }
}

/// So many files, each taken by a line of shell from `$1` to `$2`, which notes where it ran.
fn on_a_cluster(files: usize, line: &str, cluster: &str) -> Space {
    let space = Space::new();
    for i in 0..files {
        space.write(&format!("in/{i:02}.txt"), &"o".repeat(i + 1));
    }
    let log = space.path("ran.log").display().to_string();
    space.write(
        "r.yaml",
        &format!(
            "
stages:
  src: {{ files: 'in/*.txt' }}
  upper: {{ run: ['sh', '-c', 'echo $(readlink /proc/self/ns/net) >> {log}; {line}; echo over >> {log}', 'sh', '{{file}}', '{{out}}/file'], from: src, writes: {{ file: blob }} }}
"
        ),
    );
    space.write("cluster.yaml", cluster);
    space.settle();
    space
}

fn start_jobs(space: &Space, cluster: &crate::cluster::Cluster) -> Child {
    let mut command: Command = space.command(&["run", "r.yaml", "--json", "--executor", "slurm"]);
    command.env("SLURM_CONF", cluster.conf());
    cluster.machines().on(0, &mut command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn undisturbed(files: usize) -> Vec<serde_json::Value> {
    let space = on_a_cluster(files, "tr a-z A-Z < $1 > $2", "{}");
    assert_eq!(space.run(), (files as u64, 0, 0));
    space.rows("upper")
}

#[test]
fn a_coordinator_on_one_machine_and_workers_on_the_other_give_the_rows_of_one() {
    let Some(cluster) = spread("workers on another machine") else { return };
    // the controller's machine has a node as well, which is not to be taken
    let line = "sleep 0.6; tr a-z A-Z < $1 > $2";
    let space = on_a_cluster(10, line, "{ jobs: 4, tasks: 3, silent_s: 2, memory_mb: 100, args: ['--exclude=n0'] }");
    let machines = cluster.machines();
    let child = start_jobs(&space, &cluster);
    waits_for("two units", || log_lines(&space, "over").len() >= 2);
    // shorter than Slurm waits for a node
    machines.pull();
    std::thread::sleep(Duration::from_secs(3));
    machines.plug();
    let said = finish(child);
    assert_eq!(said.counts(), (10, 0, 0));
    let marks = log_lines(&space, "net:");
    assert!(marks.iter().all(|mark| *mark == machines.mark(1)), "{marks:?}");
    assert_eq!(marks.len(), 10, "work was done twice");
    assert_eq!(space.rows("upper"), undisturbed(10));
}

#[test]
fn a_machine_that_works_on_behind_a_pulled_cable_spoils_nothing() {
    let Some(cluster) = spread("a machine that is cut off and works on") else { return };
    // whoever is first makes the file, and says that it is over when the second has emptied it again
    let line = "if mkdir $1.first 2> /dev/null; then tr a-z A-Z < $1 > $2; until test -e $1.second; do sleep 0.1; done; \
                else : > $2; touch $1.second; sleep 6; tr a-z A-Z < $1 > $2; fi";
    let space = on_a_cluster(2, line, "{ jobs: 2, tasks: 1, silent_s: 2, memory_mb: 100 }");
    let machines = cluster.machines();
    cluster.say(&["scontrol", "update", "nodename=n0", "state=drain", "reason=later"]);
    let child = start_jobs(&space, &cluster);
    let begun = || log_lines(&space, &machines.mark(1)).len();
    waits_for("both units on the other machine", || begun() == 2);
    machines.pull();
    cluster.say(&["scontrol", "update", "nodename=n0", "state=resume"]);
    // they are begun again on the machine that is not cut off, and then both end on the one that is
    waits_for("the ends there", || log_lines(&space, "over").len() >= 2);
    machines.plug();
    let said = finish(child);
    assert_eq!((said.counts().0, said.counts().2), (2, 0), "{}", said.out);
    assert_eq!((begun(), log_lines(&space, &machines.mark(0)).len()), (2, 2));
    assert_eq!(space.rows("upper"), undisturbed(2));
}
