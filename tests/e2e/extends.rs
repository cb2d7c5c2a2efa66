//! `extends:`: a recipe that says only how it differs from another.

use crate::support::Space;

const BASE: &str = "
recipe: base
params: { word: one, times: 2 }
profiles:
  small: { times: 1, stages: { shout: { run: 'echo murmur >> ran.log; cat {x} > {out}/y', shell: true, from: say, writes: { y: blob } } } }
stages:
  src: { rows: [ { id: 0 } ] }
  say: { run: 'echo say {param.word} {param.times} >> ran.log; echo {param.word} > {out}/x', shell: true, from: src, params: { word: '${word}', times: '${times}' }, writes: { x: blob } }
  shout: { run: 'echo shout >> ran.log; cat {x} > {out}/y', shell: true, from: say, writes: { y: blob } }
report:
  - { text: of the base }
";

fn start(recipe: &str) -> Space {
    let space = Space::new();
    space.write("base.yaml", BASE);
    space.write("r.yaml", recipe);
    space.settle();
    space
}

fn ran(space: &Space, words: &[&str]) -> Vec<String> {
    let said = space.effigy(&[&["run", "r.yaml"], words].concat());
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    space.ran()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn what_it_does_not_say_is_its_bases() {
    let space = start(
        "extends: base.yaml\nparams: { word: two }\nstages:\n  shout:\n  whisper: { run: 'echo whisper >> ran.log; cat {x} > {out}/z', shell: true, from: say, writes: { z: blob } }\n",
    );
    assert_eq!(ran(&space, &[]), ["say two 2", "whisper"], "a parameter replaced, a stage taken away, one added");
    assert_eq!(ran(&space, &["--profile", "small"]), ["say two 1"], "and in the base's profiles it is away, too");
    let report = space.read("out/report.md");
    assert!(report.contains("of the base") && report.contains("# --- base.yaml"), "{report}");
    // the base's own work is known wherever it was done
    let said = space.effigy(&["run", "base.yaml", "--param", "word=two"]);
    assert_eq!((said.code, space.ran()), (0, vec!["shout".to_string()]), "{}", said.err);
}

#[test]
fn a_stage_of_its_own_is_not_replaced_by_the_bases_profiles() {
    let own =
        "  shout: { run: 'echo own >> ran.log; cat {x} > {out}/y', shell: true, from: say, writes: { y: blob } }\n";
    let space = start(&format!("extends: base.yaml\nstages:\n{own}"));
    assert_eq!(
        ran(&space, &["--profile", "small"]),
        ["own", "say one 1"],
        "the profile's parameter holds, its stage does not"
    );
    // its own profile says what it likes
    let murmur = own.replace("own", "murmur");
    space.write("r.yaml", &format!("extends: base.yaml\nstages:\n{own}profiles:\n  small:\n    stages:\n    {murmur}"));
    space.settle();
    assert_eq!(ran(&space, &["--profile", "small"]), ["murmur"]);
    // what only a profile has
    space.write("base.yaml", &BASE.replace("stages: { shout:", "stages: { echo:"));
    space.write("r.yaml", &format!("extends: base.yaml\nstages:\n  echo:\n{own}"));
    space.settle();
    assert!(ran(&space, &["--profile", "small"]).is_empty(), "it is away, and all else is known");
}

#[test]
fn what_the_bases_report_shows_of_a_stage_goes_with_it() {
    let space = start("extends: base.yaml\nstages:\n  shout:\n");
    let shown = "  - { table: say, columns: [id], title: Said }\n  - { table: shout, columns: [id], title: Shouted }\n";
    let cost =
        "  - { rates: [say, shout], count: shout, title: Cost }\n  - { rates: [shout], title: Cost of shouting }\n";
    space.write("base.yaml", &[BASE.trim_end(), "\n", shown, cost].concat());
    assert_eq!(ran(&space, &[]), ["say one 2"]);
    let report = space.read("out/report.md");
    let (told, _) = report.split_once("# --- base.yaml").expect("it ends with the recipe");
    assert!(told.contains("Said") && told.contains("of the base") && !told.contains("Shouted"), "{report}");
    let (_, cost) = told.split_once("Cost\n").expect("what it costs");
    assert!(cost.contains("| say |") && !told.contains("Cost of shouting"), "{report}");
    // a report of its own is as it says, and an item of a stage that is not there is an error
    space.write("r.yaml", "extends: base.yaml\nstages:\n  shout:\nreport: [{ table: shout, columns: [id] }]\n");
    space.effigy(&["plan", "r.yaml"]).expect_error(2, &["r.yaml:4", "shout"]);
}

#[test]
fn what_a_recipe_in_between_takes_away_stays_away_above_it() {
    let space = start("extends: middle.yaml\nparams: { word: three }\n");
    space.write("middle.yaml", "extends: base.yaml\nparams: { times: 3 }\nstages:\n  shout:\n");
    assert_eq!(ran(&space, &[]), ["say three 3"]);
    assert_eq!(ran(&space, &["--profile", "small"]), ["say three 1"]);
    // who wants it back says so
    space.write("r.yaml", "extends: middle.yaml\nstages: { shout: { select: say } }\n");
    let said = space.effigy(&["plan", "r.yaml"]);
    assert!(said.code == 0 && said.out.contains("shout"), "{}{}", said.out, said.err);
}

#[test]
fn a_stage_that_is_not_there_cannot_be_taken_away() {
    let space = start("extends: base.yaml\nstages:\n  shuot:\n");
    let parts = ["r.yaml:3:3: `shuot:` takes a stage away that base does not have", "did you mean `shout`?"];
    space.effigy(&["plan", "r.yaml"]).expect_error(2, &parts);
}

#[test]
fn profiles_of_one_name_apply_after_each_other_and_one_may_begin_with_another() {
    let space = start(
        "extends: base.yaml\nprofiles:\n  small: { word: few }\n  tiny: { profile: small, word: least }\n  round: { profile: round }\n  lost: { profile: smal }\n",
    );
    assert_eq!(sorted(ran(&space, &["--profile", "small"])), ["murmur", "say few 1"]);
    assert_eq!(sorted(ran(&space, &["--profile", "tiny"])), ["murmur", "say least 1"]);
    let wrong =
        |profile: &str, parts: &[&str]| space.effigy(&["plan", "r.yaml", "--profile", profile]).expect_error(2, parts);
    wrong("round", &["r.yaml:5:12: profile `round` begins with itself"]);
    wrong("lost", &["r.yaml:6:11: the recipe has no profile `smal`", "did you mean `small`?"]);
    wrong("smal", &["r.yaml has no profile `smal`", "did you mean `small`?"]);
}

#[test]
fn what_a_base_is_when_no_profile_is_chosen_its_parameters_are_replaced_in_as_well() {
    let space = Space::new();
    let base = BASE.replace("profiles:\n", "profiles:\n  default: { word: usual, times: 7 }\n");
    space.write("base.yaml", &base);
    space.write("r.yaml", "extends: base.yaml\nparams: { word: two }\nstages: { shout: }\n");
    space.settle();
    assert_eq!(ran(&space, &[]), ["say two 7"], "its own word, and what else the base's `default` says");
    assert_eq!(ran(&space, &["--profile", "small"]), ["say two 1"]);
}

#[test]
fn axes_of_its_own_vary_its_bases_stages() {
    let space = start(
        "extends: base.yaml\nmatrix: { word: [a, b] }\nvariants: { full: {}, once: { times: 1 } }\nstages: { all: { gather: shout } }\n",
    );
    assert_eq!(
        sorted(ran(&space, &[])),
        ["say a 1", "say a 2", "say b 1", "say b 2", "shout", "shout"],
        "what turns out equal is shared"
    );
}

#[test]
fn a_changed_base_is_seen_by_a_recipe_at_rest() {
    let space = start("extends: base.yaml\n");
    assert_eq!(ran(&space, &[]).len(), 2);
    space.settle();
    assert_eq!(ran(&space, &[]).len(), 0);
    space.write("base.yaml", &BASE.replace("word: one", "word: other"));
    space.settle();
    assert_eq!(ran(&space, &[]), ["say other 2", "shout"]);
}

#[test]
fn mistakes_are_told_with_the_file_they_stand_in() {
    let space = start("extends: base.yaml\nparams: { words: 3 }\nstages: { more: { gather: sai } }\n");
    space.write("base.yaml", &BASE.replace("from: say, writes", "from: sya, writes"));
    let said = space.effigy(&["plan", "r.yaml"]);
    said.expect_error(2, &["base.yaml:9:", "`sya`", "r.yaml:3:27", "`sai`"]);

    let check = |recipe: &str, parts: &[&str]| {
        space.write("r.yaml", recipe);
        space.effigy(&["plan", "r.yaml"]).expect_error(2, parts);
    };
    check("extends: bose.yaml\n", &["r.yaml:1:10: cannot read", "bose.yaml, which this recipe extends", "hint:"]);
    check("extends: ../base.yaml\n", &["r.yaml:1:10", "names no file beside this recipe", "hint:"]);
    check("extends: r.yaml\n", &["r.yaml extends itself"]);
    space.write("base.yaml", "extends: r.yaml\n");
    check("extends: base.yaml\n", &["base.yaml:1:10: r.yaml extends itself"]);
    space.write("base.yaml", "stages: [\n");
    check("extends: base.yaml\n", &["base.yaml:", "not valid YAML"]);
    space.write("base.yaml", "stages: { a: { rows: [{ x: 1 }] } }\n");
    check("extends: base.yaml\nstages: { a: }\n", &["a recipe needs at least one stage"]);
}
