//! What the flags of `run` choose, force and hold back.

use crate::support::Space;

/// Three stages in a row and one beside them; each notes what it does.
const RECIPE: &str = "
recipe: flags
stages:
  src: { rows: [ { id: 0, text: a }, { id: 1, text: b } ] }
  one: { run: 'echo one {text} >> ran.log; echo {text} > {out}/x', shell: true, from: src, writes: { x: blob } }
  two: { run: 'echo two {text} >> ran.log; cat {x} > {out}/y', shell: true, from: one, writes: { y: blob } }
  three: { run: 'echo three {text} >> ran.log; cat {y} > {out}/z', shell: true, from: two, writes: { z: blob } }
  beside: { run: 'echo beside {text} >> ran.log; echo {text} > {out}/x', shell: true, from: src, version: 2, writes: { x: blob } }
";

fn start() -> Space {
    let space = Space::new();
    space.write("r.yaml", RECIPE);
    space
}

fn run(space: &Space, more: &[&str]) -> (u64, u64, u64) {
    let said = space.effigy(&[&["run", "r.yaml", "--json"], more].concat());
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    said.counts()
}

#[test]
fn only_runs_a_stage_and_what_it_needs() {
    let space = start();
    assert_eq!(run(&space, &["--only", "two"]), (4, 0, 0));
    assert_eq!(space.ran(), ["one a", "one b", "two a", "two b"]);
}

#[test]
fn from_runs_a_stage_and_what_follows_and_nothing_before() {
    let space = start();
    let said = space.effigy(&["run", "r.yaml", "--from", "two"]);
    said.expect_error(2, &["stage `one` is needed and stands before `--from`", "hint: run it first, by `--only one`"]);
    let runs = std::fs::read_dir(space.path(".effigy/runs")).into_iter().flatten().flatten();
    let begun = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|ext| ext == "begun");
    assert_eq!(runs.filter(begun).count(), 0, "nothing was begun");
    run(&space, &["--only", "one"]);
    space.ran();
    // the source has changed, but what stands before is as the last run left it
    space.write("r.yaml", &RECIPE.replace("text: b", "text: new"));
    assert_eq!(run(&space, &["--from", "two"]), (4, 0, 0));
    assert_eq!(space.ran(), ["three a", "three b", "two a", "two b"]);
    assert_eq!(space.rows("three")[1]["text"], "b");
    assert_eq!(run(&space, &["--from", "two", "--only", "two"]), (0, 2, 0), "together: what lies between");
    assert_eq!(run(&space, &[]), (5, 3, 0), "without it the change goes through");
    assert_eq!(space.rows("three")[1]["text"], "new");
}

#[test]
fn forced_units_run_though_they_are_known_and_replace_what_was() {
    let space = start();
    let random = RECIPE.replace(
        "echo {text} > {out}/x', shell: true, from: src, writes",
        "date +%N > {out}/x', shell: true, from: src, writes",
    );
    space.write("r.yaml", &random);
    run(&space, &[]);
    let before = space.rows("one");
    space.ran();
    assert_eq!(run(&space, &["--force", "three"]), (2, 6, 0));
    assert_eq!(space.ran(), ["three a", "three b"], "equal results stop the change");
    assert_eq!(run(&space, &["--force", "one"]), (6, 2, 0), "others do not");
    let after = space.rows("one");
    assert_ne!(before, after);
    assert_eq!(run(&space, &[]), (0, 8, 0));
    assert_eq!(space.rows("one"), after, "the new results are those that are known");
    space.effigy(&["cache", "rebuild"]);
    std::fs::remove_dir_all(space.path(".effigy/runs/last")).expect("it is there");
    assert_eq!(run(&space, &[]), (0, 8, 0));
    assert_eq!(space.rows("one"), after, "also without the memory of the run");
    let wrong = |args: &[&str], parts: &[&str]| {
        space.effigy(&[&["run", "r.yaml"], args].concat()).expect_error(2, parts);
    };
    wrong(&["--force", "src"], &["stage `src` has no units that `--force` could run", "hint: "]);
    wrong(&["--force", "one", "--only", "beside"], &["not among those that this run is about", "hint: "]);
    wrong(&["--force", "ones"], &["no stage `ones`", "did you mean `one`?"]);
    let nothing = "no stage that `--only one` needs follows `--from three`";
    wrong(&["--only", "one", "--from", "three"], &[nothing, "hint: "]);
    wrong(&["--only", "one", "--from", "three", "--dry-run"], &[nothing]);
    space.effigy(&["plan", "r.yaml", "--only", "one", "--from", "three"]).expect_error(2, &[nothing]);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let space = start();
    let dry = |more: &[&str]| {
        let said = space.effigy(&[&["run", "r.yaml", "--dry-run", "--json"], more].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        let planned = space.effigy(&[&["plan", "r.yaml", "--json"], more].concat());
        assert_eq!(said.out, planned.out);
        let json = said.json();
        ["hits", "misses", "unknown"].map(|name| json[name].as_u64().expect("a count"))
    };
    assert_eq!(dry(&[]), [0, 4, 4]);
    assert!(space.ran().is_empty());
    run(&space, &[]);
    space.ran();
    assert_eq!(dry(&["--force", "two"]), [4, 2, 2], "whether `three` follows depends on what comes out");
    assert_eq!(dry(&["--force", "two", "--from", "two"]), [0, 2, 2]);
    assert_eq!(dry(&["--only", "two"]), [4, 0, 0]);
    assert!(space.ran().is_empty());
}

/// `bad` fails at once, `slow` and what follows it do not depend on it.
const FAILS: &str = "
stages:
  bad: { run: 'sleep 0.2; false', shell: true, writes: { x: blob } }
  after: { run: 'echo after >> ran.log; cat {with.b} > {out}/x', shell: true, with: { b: bad }, writes: { x: blob } }
  slow: { run: 'sleep 0.6; echo slow >> ran.log; echo > {out}/x', shell: true, writes: { x: blob } }
  next: { run: 'echo next >> ran.log; cat {with.s} > {out}/x', shell: true, with: { s: slow }, writes: { x: blob } }
";

#[test]
fn after_a_failure_everything_is_done_that_does_not_need_it() {
    let space = Space::new();
    space.write("r.yaml", FAILS);
    for flags in [&["--jobs", "2"][..], &["--jobs", "2", "--keep-going", "--force", "slow", "--force", "next"]] {
        let said = space.effigy(&[&["run", "r.yaml", "--json"], flags].concat());
        assert_eq!((said.code, said.counts()), (1, (2, 0, 1)), "{}", said.out);
        assert_eq!(space.ran(), ["next", "slow"]);
    }
}

#[test]
fn fail_fast_finishes_what_has_begun_and_nothing_else() {
    let space = Space::new();
    space.write("r.yaml", FAILS);
    let said = space.effigy(&["run", "r.yaml", "--json", "--jobs", "2", "--fail-fast"]);
    assert_eq!((said.code, said.counts()), (1, (1, 0, 1)), "{}", said.out);
    assert_eq!(space.ran(), ["slow"], "it had begun, and is kept");
    let said = space.effigy(&["run", "r.yaml", "--json", "--only", "next"]);
    assert_eq!((said.code, said.counts()), (0, (1, 1, 0)));
    let said = space.effigy(&["run", "r.yaml", "--fail-fast", "--keep-going"]);
    assert_eq!(said.code, 2, "{}", said.err);
}

#[test]
fn fail_fast_lets_those_fail_that_may() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "stages:
  src: { rows: [ { id: 0, code: 0 }, { id: 1, code: 1 }, { id: 2, code: 0 }, { id: 3, code: 0 } ] }
  most:
    run: 'echo > {out}/x; exit {code}'
    shell: true
    from: src
    reads: [id]
    allow_failures: 0.5
    writes: { x: blob }
",
    );
    let said = space.effigy(&["run", "r.yaml", "--json", "--jobs", "1", "--fail-fast"]);
    assert_eq!((said.code, said.counts()), (0, (3, 0, 1)), "{}", said.out);
}

/// How many programs ran at once at most: each notes its beginning and its end.
fn most_at_once(space: &Space) -> i32 {
    let (mut now, mut most) = (0, 0);
    for line in space.read("at.log").lines() {
        now += if line == "+" { 1 } else { -1 };
        most = most.max(now);
    }
    std::fs::remove_file(space.path("at.log")).expect("it was just read");
    most
}

#[test]
fn jobs_memory_and_needs_bound_what_runs_at_once() {
    let space = Space::new();
    let recipe = |needs: &str| {
        format!(
            "stages:
  src: {{ rows: [ {{ n: 0 }}, {{ n: 1 }}, {{ n: 2 }}, {{ n: 3 }} ] }}
  work: {{ run: 'echo + >> at.log; sleep 0.3; echo {{n}} > {{out}}/x; echo - >> at.log', shell: true, from: src, writes: {{ x: blob }}{needs} }}
"
        )
    };
    let check = |needs: &str, flags: &[&str], expected: i32| {
        space.write("r.yaml", &recipe(needs));
        let forced = [&["--jobs", "4", "--memory", "1000", "--force", "work"], flags].concat();
        assert_eq!(run(&space, &forced), (4, 0, 0));
        assert_eq!(most_at_once(&space), expected, "{needs} {flags:?}");
    };
    check("", &[], 4);
    check(", needs: { threads: 2 }", &[], 2);
    check(", needs: { threads: 3 }", &[], 1);
    check(", needs: { threads: 0 }", &[], 1);
    check(", needs: { threads: 99 }", &[], 1);
    check(", needs: { memory_mb: 500 }", &[], 2);
    check(", needs: { memory_mb: 5000 }", &[], 1);
    check(", needs: { gpus: 1 }", &[], 1);
    check(", needs: { gpus: 1 }", &["--gpus", "3"], 3);
    space.write("r.yaml", &recipe(""));
    assert_eq!(run(&space, &["--jobs", "2", "--force", "work"]), (4, 0, 0));
    assert_eq!(most_at_once(&space), 2);
}
