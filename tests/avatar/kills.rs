//! `kill -9` in the middle of extraction, tracking and training: the next run goes on, and all tables end with the
//! digests of an undisturbed run.

use crate::base::{Trial, base, executed};
use serde_json::Value;

/// Whether an event says that units of a stage have been kept, and others are in work. Units are kept when their task
/// hands them over, not when it tells of them.
fn half(event: &Value, stage: &str) -> bool {
    amid(event, stage, 1.2) && event["ran"].as_u64() >= Some(1)
}

/// Whether an event says that a stage has done so much, but not all.
fn amid(event: &Value, stage: &str, least: f64) -> bool {
    let number = |name: &str| event[name].as_f64().unwrap_or(0.0);
    event["event"] == "progress" && event["stage"] == stage && {
        let done = number("ran") + number("within").max(0.0);
        done >= least && number("ran") < number("of")
    }
}

#[test]
fn killed_in_extraction_tracking_and_training_it_ends_with_the_same_digests() {
    let trial = Trial::prepared();
    let finished = |events: &[Value]| events.iter().cloned().filter_map(executed).collect::<crate::base::Ran>();

    trial.kill_at(&[], "frames were half extracted", |event| half(event, "frames"));
    let second = trial.kill_at(&[], "a sequence was half tracked", |event| half(event, "tracked"));
    let frames = finished(&second)["frames"];
    assert!((1..15).contains(&frames), "{frames} of 15 videos extracted anew: those that were finished are kept");
    // checkpoints come every 15 steps of 40, word of progress every 10
    let third = trial.kill_at(&[], "training had a checkpoint", |event| amid(event, "avatar", 0.7));
    let tracked = finished(&third);
    assert!(!tracked.contains_key("frames") && !tracked.contains_key("points"), "{tracked:?}");
    assert!((1..3).contains(&tracked["tracked"]), "the sequence that was tracked is kept: {tracked:?}");

    let output = trial.command("run", &["--json"]).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect();
    let first = events
        .iter()
        .filter(|event| event["stage"] == "avatar")
        .find_map(|event| event["within"].as_f64().filter(|within| *within > 0.0));
    assert!(
        first.is_some_and(|within| within > 0.45),
        "training went on from a checkpoint, not from the start: {first:?}"
    );
    let ran = finished(&events);
    assert!(!ran.contains_key("tracked") && !ran.contains_key("gbuffers") && ran["avatar"] == 1, "{ran:?}");

    for (stage, rows) in trial.tables() {
        assert_eq!(rows, base().tables[&stage], "stage `{stage}` differs from that of an undisturbed run");
    }
    assert!(trial.run(&[]).is_empty(), "nothing is left to do");
}

#[test]
fn killed_with_a_scaled_loss_it_ends_with_the_same_digests() {
    let words = ["--only", "avatar", "--set", "avatar.precision=f16", "--param", "avatar_steps=30"];
    let (killed, undisturbed) = (Trial::finished(), Trial::finished());
    killed.kill_at(&words, "training had a checkpoint", |event| amid(event, "avatar", 0.6));
    for trial in [&killed, &undisturbed] {
        assert_eq!(trial.run(&words)["avatar"], 1);
    }
    assert_eq!(killed.rows("avatar"), undisturbed.rows("avatar"));
}

#[test]
fn killed_while_it_learns_correspondences_of_more_scans_a_head_model_ends_with_the_same_digests() {
    let words = ["--only", "head_model", "--set", "head_model.correspondence_scans=3"];
    let (killed, undisturbed) = (Trial::finished(), Trial::finished());
    killed.kill_at(&words, "the head model had a checkpoint", |event| amid(event, "head_model", 0.5));
    for trial in [&killed, &undisturbed] {
        assert_eq!(trial.run(&words)["head_model"], 1);
    }
    assert_eq!(killed.rows("head_model"), undisturbed.rows("head_model"));
    assert_ne!(killed.rows("head_model"), base().tables["head_model"], "the correspondences count");
}
