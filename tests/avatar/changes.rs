//! One change, and exactly what depends on it runs: as `plan` foretold and `why` explains.

use crate::base::{Ran, Trial};
use std::collections::BTreeSet;

/// Plans, asks why `stage` runs, runs; checks that the plan was kept, and gives back what ran.
fn change(trial: &Trial, words: &[&str], stage: &str, because: &str) -> Ran {
    let plan = trial.json("plan", words);
    let why = trial.command("why", &[&[stage], words].concat()).output().expect("it starts");
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.contains(because), "expected {because:?} in:\n{why}");
    let ran = trial.run(words);
    for planned in plan["stages"].as_array().expect("a list") {
        let name = planned["stage"].as_str().expect("a name");
        let number = |field: &str| planned[field].as_u64().unwrap_or(0);
        let units = ran.get(name).copied().unwrap_or(0);
        assert!(units >= number("misses"), "{name}: {units} ran, {planned} was planned");
        // what hangs on a table that is not there yet cannot be counted, and is said to be unknown
        let open = number("unknown") > 0 || !planned["until"].is_null();
        assert!(open || units == number("misses"), "{name}: {units} ran, {planned} was planned");
    }
    ran
}

fn stages(ran: &Ran) -> BTreeSet<&str> {
    ran.keys().map(String::as_str).collect()
}

#[test]
fn again_nothing_runs() {
    assert!(Trial::finished().run(&[]).is_empty());
}

#[test]
fn an_option_of_the_evaluation_runs_the_evaluation() {
    let trial = Trial::finished();
    let ran = change(&trial, &["--set", "scores.vgg=false"], "scores", "parameter `vgg`: true -> false");
    assert_eq!(stages(&ran), BTreeSet::from(["scores", "sequence_scores"]));
    assert!(trial.run(&[]).is_empty(), "taken back, it is all known");
}

#[test]
fn a_parameter_of_the_training_runs_training_and_what_follows() {
    let trial = Trial::finished();
    let words = ["--param", "lr=1.0e-3"];
    let ran = change(&trial, &words, "avatar", "parameter `lr_networks`: 0.002 -> 0.001");
    assert_eq!(ran["avatar"], 1);
    // no face is found in such small pictures, so that what compares their expression with the truth has nothing new
    let scored = ["renders", "scores", "faces", "sequence_scores", "sheet", "errors", "movies"];
    let animated = ["flight_renders", "conditions", "flight_movies", "driven_movies", "animation_scores", "flicker"];
    let expected = ["avatar"].into_iter().chain(scored).chain(animated).collect::<BTreeSet<_>>();
    assert_eq!(stages(&ran), expected);
    let renders = ran["renders"];
    assert_eq!(ran["scores"], renders, "the trivial answers are not scored again");
}

/// Takes every 4th frame of one camera's video of one sequence instead of every 2nd.
fn every(camera: &str) -> String {
    format!("videos.overrides=[{{where: {{camera: \"{camera}\", sequence: EXP-1-head}}, set: {{every: 4}}}}]")
}

#[test]
fn fewer_frames_of_a_held_out_video_extract_that_video_alone() {
    let trial = Trial::finished();
    let ran = change(&trial, &["--set", &every("222200037")], "frames", "every");
    assert_eq!(ran["frames"], 1, "one video");
    // whoever looks at many held-out rows at once does so again; nobody else
    let may: BTreeSet<&str> =
        ["splits", "frames", "sheet", "errors", "sequence_scores", "movies", "tracking_sheet"].into();
    assert!(stages(&ran).is_subset(&may), "{ran:?}");
}

#[test]
fn fewer_frames_of_a_training_video_track_that_sequence_alone() {
    let trial = Trial::finished();
    let words = ["--set", &every("222200036"), "--only", "gbuffers"];
    let ran = trial.run(&words);
    assert_eq!(ran["frames"], 1, "one video");
    assert_eq!(ran["points"], 1, "one moment is seen by one camera less");
    assert!(ran["person"] == 1 && ran["tracked"] <= 3, "who the person is, is fitted to all moments: {ran:?}");
    for known in ["capture", "scans", "head_model", "truth"] {
        assert!(!ran.contains_key(known), "{ran:?}");
    }
    let frames = trial.command("why", &["frames", "--set", &every("222200036")]).output().expect("it starts");
    let text = String::from_utf8_lossy(&frames.stdout);
    assert!(text.contains("every"), "{text}");
}
