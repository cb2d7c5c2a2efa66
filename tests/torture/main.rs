//! Torture: the program is killed at random moments and at its write points, its index is spoilt between runs, its disk
//! refuses to write; then it runs to the end, and everything has to be as in a run that nobody disturbed. `make
//! torture` has hundreds of kills, the normal tests a few.
//!
//! Knows the program from outside only; write points are found and faults injected by `strace`, where it is installed.

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Space, provider};

/// What one torture came to.
#[derive(Debug, Default)]
struct Figures {
    rounds: usize,
    kills: usize,
    /// Units that a later run found finished.
    resumed: u64,
    /// Units that were in work when it was killed, and had to be done again.
    redone: u64,
    spoilt: usize,
    equal: usize,
}

/// Draws that are the same every time: a linear congruential generator.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// A recipe of all grains over so many files, done by programs, by a worker and by the engine.
fn start(files: usize) -> Space {
    let space = Space::new();
    for i in 0..files {
        space.write(&format!("in/{i:02}.txt"), &"o".repeat(i + 1));
    }
    let log = space.path("ran.log").display().to_string();
    let recipe = format!(
        "
providers: ['{}']
stages:
  src: {{ files: 'in/*.txt' }}
  up: {{ run: 'tr a-z A-Z < {{file}} > {{out}}/file && echo unit up {{path}} >> {log}', shell: true, from: src, writes: {{ file: blob }} }}
  count: {{ stage: count, from: up, log: '{log}' }}
  grouped: {{ select: count, set: {{ group: same }} }}
  rank: {{ stage: rank, from: grouped, by: [group], log: '{log}' }}
  words: {{ stage: split, from: up, log: '{log}' }}
  all: {{ run: 'cat {{file}} > {{out}}/all && echo unit all >> {log}', shell: true, from: rank, grain: whole, writes: {{ all: blob }} }}
  one: {{ rows: [{{ value: 1.5 }}] }}
  train: {{ stage: train, from: rank, with: {{ bias: one }}, steps: 8, pause: 4, log: '{log}' }}
",
        provider()
    );
    space.write("r.yaml", &recipe);
    space.settle();
    // what providers say of themselves takes longer to ask for than all the work, and is remembered only when it was
    // said
    assert_eq!(space.effigy(&["plan", "r.yaml"]).code, 0);
    space
}

const STAGES: [&str; 6] = ["up", "count", "rank", "words", "all", "train"];
const RUN: [&str; 5] = ["run", "r.yaml", "--json", "--jobs", "2"];

type Tables = BTreeMap<&'static str, Vec<serde_json::Value>>;

fn tables(space: &Space) -> Tables {
    STAGES.into_iter().map(|stage| (stage, space.rows(stage))).collect()
}

/// How many records of finished units there are, one for each time that one was finished.
fn records(space: &Space) -> u64 {
    let said = space.effigy(&["cache", "verify", "--json"]);
    let json = said.json();
    assert_eq!(json["ok"], true, "{}", said.out);
    json["records"].as_u64().expect("a count")
}

fn lines(space: &Space) -> u64 {
    std::fs::read_to_string(space.path("ran.log")).map_or(0, |text| text.lines().count() as u64)
}

/// A run that nobody disturbs: its tables, its units, the lines that its stages log, and how long it takes.
fn undisturbed(files: usize) -> (Tables, u64, u64, Duration) {
    let space = start(files);
    let since = Instant::now();
    let (executed, ..) = space.run();
    let took = since.elapsed();
    assert_eq!(records(&space), executed);
    (tables(&space), executed, lines(&space), took)
}

/// Lets it run to the end, and compares.
fn to_the_end(space: &Space, expected: &(Tables, u64, u64, Duration), figures: &mut Figures, what: &str) {
    let (tables_expected, units, logged, _) = expected;
    let before = records(space);
    let (executed, cached, failed) = space.run();
    assert_eq!((executed, failed), (units - before, 0), "{what}: what was finished is not done again");
    assert_eq!(cached, before, "{what}");
    assert_eq!(tables(space), *tables_expected, "{what}: the tables differ from those of an undisturbed run");
    assert_eq!(records(space), *units, "{what}: a unit was finished twice, or lost");
    assert_eq!(space.run(), (0, *units, 0), "{what}: something is left to do");
    figures.equal += 1;
    figures.redone += lines(space).saturating_sub(*logged);
    figures.rounds += 1;
}

/// Spoils the index, and sometimes the memory of the last run, so that the index is asked.
fn spoil(space: &Space, draws: &mut Draws) -> bool {
    let index = space.path(".effigy/index");
    let mut files: Vec<_> = std::fs::read_dir(&index).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    if draws.below(3) == 0 {
        let _ = std::fs::remove_dir_all(space.path(".effigy/runs"));
    }
    if files.is_empty() {
        return false;
    }
    let file = &files[draws.below(files.len())];
    let bytes = std::fs::read(file).expect("a file of the index");
    match draws.below(4) {
        0 => std::fs::remove_dir_all(&index).expect("it is there"),
        1 => std::fs::write(file, &bytes[..draws.below(bytes.len())]).expect("it can be written"),
        2 => std::fs::write(file, vec![0; bytes.len()]).expect("it can be written"),
        _ => std::fs::remove_file(file).expect("it is there"),
    }
    true
}

/// Kills it at random moments, again and again, until it ends before that.
fn random_kills(least: usize, spoils: bool, seed: u64) -> Figures {
    let expected = undisturbed(12);
    let mut draws = Draws(seed);
    let mut figures = Figures::default();
    while figures.kills < least {
        let space = start(12);
        let mut known = 0;
        loop {
            let mut child = space.start(&RUN);
            let most = expected.3.as_micros() as usize * 7 / 10;
            std::thread::sleep(Duration::from_micros(draws.below(most) as u64));
            let _ = child.kill();
            if child.wait().expect("it is over").signal().is_none() {
                break;
            }
            figures.kills += 1;
            let now = records(&space);
            assert!(now >= known, "kill {}: {known} units were finished, {now} are left", figures.kills);
            figures.resumed += now;
            known = now;
            if spoils && draws.below(2) == 0 {
                figures.spoilt += usize::from(spoil(&space, &mut draws));
            }
        }
        let what = format!("after {} kills", figures.kills);
        to_the_end(&space, &expected, &mut figures, &what);
    }
    figures
}

/// System calls that change something on the disk; `?`: not every machine has each.
const WRITES: &str = "?write,?pwrite64,?writev,?rename,?renameat,?renameat2,?fsync,?fdatasync,?syncfs,?ftruncate,?unlink,\
                      ?unlinkat,?rmdir,?mkdir,?mkdirat,?chmod,?fchmod,?fchmodat,?link,?linkat,?symlink,?symlinkat";

fn strace(space: &Space, inject: &str, log: &Path) -> Command {
    let plain = space.command(&RUN);
    let mut command = Command::new("strace");
    command.args(["-qq", "-e", &format!("trace={WRITES}"), "-e", "signal=none", "-o"]).arg(log);
    if !inject.is_empty() {
        command.args(["-e", &format!("inject={WRITES}:{inject}")]);
    }
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(space.path("")).env_clear();
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", space.path("")).stdin(Stdio::null());
    command
}

/// How many write points the thread that decides has in an undisturbed run; `None` without `strace`.
fn write_points(files: usize) -> Option<usize> {
    let space = start(files);
    let log = space.path("trace");
    let ran = strace(&space, "", &log).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success()).then(|| space.read("trace").lines().count())
}

/// Kills it at write points, `step` apart; then at those of the run that goes on.
fn kills_at_write_points(step: usize, most: usize) -> Option<Figures> {
    const FILES: usize = 3;
    let points = write_points(FILES)?;
    let expected = undisturbed(FILES);
    let mut figures = Figures::default();
    for point in (1..=points).step_by(step).take(most) {
        let space = start(FILES);
        for next in [point, 1 + point / 2] {
            let inject = format!("signal=SIGKILL:when={next}");
            let output = strace(&space, &inject, Path::new("/dev/null")).output().expect("it starts");
            if output.status.signal() == Some(9) {
                figures.kills += 1;
                figures.resumed += records(&space);
            }
        }
        to_the_end(&space, &expected, &mut figures, &format!("killed at write point {point} of {points}"));
    }
    Some(figures)
}

/// From a write point on the disk refuses everything, as a failing, full or read-only one does; then it is well again.
fn faults_at_write_points(step: usize, most: usize) -> Option<Figures> {
    const FILES: usize = 3;
    let points = write_points(FILES)?;
    let expected = undisturbed(FILES);
    let mut figures = Figures::default();
    for (i, point) in (1..=points).step_by(step).take(most).enumerate() {
        let space = start(FILES);
        let error = ["EIO", "ENOSPC", "EROFS"][i % 3];
        let when = if i % 2 == 0 { format!("{point}+") } else { point.to_string() };
        let inject = format!("error={error}:when={when}");
        let output = strace(&space, &inject, Path::new("/dev/null")).output().expect("it starts");
        let err = String::from_utf8_lossy(&output.stderr);
        let what = format!("{error} at write point {when} of {points}");
        assert!(matches!(output.status.code(), Some(0..=2)), "{what}: {:?}\n{err}", output.status);
        assert!(!err.contains("panicked"), "{what}: {err}");
        figures.kills += 1;
        let before = records(&space);
        figures.resumed += before;
        let (executed, cached, failed) = space.run();
        assert_eq!((executed + cached, failed), (expected.1, 0), "{what}");
        assert!(executed <= expected.1 - before, "{what}: what was finished is not done again");
        assert_eq!(tables(&space), expected.0, "{what}: the tables differ from those of an undisturbed run");
        assert_eq!(space.run(), (0, expected.1, 0), "{what}: something is left to do");
        figures.equal += 1;
        figures.rounds += 1;
    }
    Some(figures)
}

fn tell(what: &str, figures: &Figures) {
    let Figures { rounds, kills, resumed, redone, spoilt, equal } = figures;
    println!(
        "{what}: {kills} kills, {rounds} runs to the end, {equal} of them with equal digests; {resumed} units resumed, \
         {redone} in work done again, index spoilt {spoilt} times"
    );
}

#[test]
fn killed_at_random_moments_nothing_is_lost_redone_or_wrong() {
    tell("random moments", &random_kills(8, false, 1));
}

#[test]
fn killed_and_its_index_spoilt_nothing_is_lost_redone_or_wrong() {
    tell("random moments, index spoilt", &random_kills(8, true, 2));
}

#[test]
fn killed_at_write_points_nothing_is_lost_redone_or_wrong() {
    match kills_at_write_points(37, 3) {
        Some(figures) => tell("write points", &figures),
        None => println!("write points: not tried, `strace` is not installed or may not trace"),
    }
}

#[test]
fn a_disk_that_refuses_is_an_error_and_never_a_wrong_result() {
    match faults_at_write_points(29, 6) {
        Some(figures) => tell("faults (counted as kills)", &figures),
        None => println!("faults: not tried, `strace` is not installed or may not trace"),
    }
}

/// Not for every day: `make torture`.
#[test]
#[ignore = "it takes minutes"]
fn torture() {
    let since = Instant::now();
    tell("random moments", &random_kills(100, false, 3));
    tell("random moments, index spoilt", &random_kills(100, true, 4));
    let figures = kills_at_write_points(3, usize::MAX).expect("`strace` is installed and may trace");
    tell("write points", &figures);
    let figures = faults_at_write_points(4, usize::MAX).expect("`strace` is installed and may trace");
    tell("faults (counted as kills)", &figures);
    println!("{:.0} s", since.elapsed().as_secs_f64());
}
