//! Moments that are not like the others: in which nobody is seen, and at which a run was killed.

use crate::base::Trial;
use crate::support::Space;
use crate::training::extended;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

fn number(row: &Value, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("no {column} in {row}"))
}

#[test]
fn a_moment_in_which_nobody_is_seen_is_marked_and_the_avatar_is_made() {
    let by = "by: [participant, sequence, timestep]";
    // stereo looks for the head where it is not, which gives what a dark picture gives
    let trial = extended(&format!(
        "stages:
  seen_views: {{ select: tracking_views, where: {{ timestep: {{ not: [2] }} }} }}
  dark_views: {{ select: tracking_views, where: {{ timestep: 2 }} }}
  seen_points: {{ stage: reconstruct_points, from: seen_views, {by} }}
  dark_points: {{ stage: reconstruct_points, from: dark_views, {by}, center: [3.0, 0.0, 0.0] }}
  points: {{ concat: [seen_points, dark_points] }}
  pca_model: {{ stage: train_pca_head, from: scans }}
  linear: {{ stage: fit_pca_head, from: observed, by: [participant], with: {{ pca_model: pca_model }}, points: 1500, key_frames: 2 }}
"
    ));
    let wanted = ["scores", "tracking_scores", "tracking_sheet", "eye_scores", "linear"];
    let words: Vec<&str> = wanted.iter().flat_map(|stage| ["--only", stage]).collect();
    trial.run(&words);
    let dark = |row: &&Value| row["timestep"] == 2;
    let points = trial.rows("points");
    let (few, enough): (Vec<&Value>, Vec<&Value>) = points.iter().partition(|row| dark(row));
    assert!(few.len() == 3 && enough.len() == 3, "{points:?}");
    assert!(few.iter().all(|row| row["too_few"] == true && row["points"] == 0));
    assert!(enough.iter().all(|row| row["too_few"] == false && number(row, "points") > 200.0));
    for stage in ["tracked", "linear"] {
        let rows = trial.rows(stage);
        assert_eq!(rows.len(), 6, "{stage}");
        for row in rows.iter().filter(dark) {
            assert_eq!(
                (&row["lost"], &row["kept"], &row["residual"]),
                (&json!(true), &json!(0.0), &Value::Null),
                "{stage}"
            );
            let before = rows.iter().find(|other| other["sequence"] == row["sequence"] && other["timestep"] == 0);
            assert_eq!(row["pose"], before.expect("one before")["pose"], "{stage}: it stays as it was");
        }
        assert!(rows.iter().filter(|row| !dark(row)).all(|row| number(row, "kept") > 0.0), "{stage}");
    }
    let sequences = trial.rows("scores").into_iter().map(|row| row["timestep"].clone());
    assert!(sequences.collect::<Vec<_>>().contains(&json!(2)), "marked frames are rendered and scored like others");

    // and where nobody is seen at all, one sentence says what may be wrong
    let nobody = trial.command("run", &["--only", "person", "--set", "seen_points.center=[3.0,0.0,0.0]"]).output();
    let said = String::from_utf8_lossy(&nobody.expect("it starts").stderr).into_owned();
    assert!(said.contains("no moment shows enough of a face") && said.contains("0 of 0 points"), "{said}");
}

/// A head model, and clouds of one moment after the other, out of the shared run.
fn clouds(space: &Space, n: usize) {
    let trial = Trial::finished();
    let path = |value: &Value| value.as_str().expect("a path").to_string();
    let model = trial.paths("head_model").remove(0);
    for (column, to) in [("head_config", "head.json"), ("head_weights", "head.safetensors")] {
        std::fs::copy(path(&model[column]), space.path(to)).expect("a copy");
    }
    std::fs::create_dir_all(space.path("clouds")).expect("a folder");
    let points = trial.paths("points");
    for i in 0..n {
        let from = path(&points[i % points.len()]["cloud"]);
        std::fs::copy(from, space.path(&format!("clouds/{i}.ply"))).expect("a copy");
    }
}

const MODEL: &str = "recipe: moments
stages:
  config_file: { files: head.json }
  config: { select: config_file, rename: { head_config: file }, set: { model: 1 } }
  weights_file: { files: head.safetensors }
  weights: { select: weights_file, rename: { head_weights: file }, set: { model: 1 } }
  head_model: { join: [config, weights], on: [model] }
  clouds: { files: \"clouds/*.ply\", parse: \"clouds/{timestep:i64}.ply\" }
  points: { select: clouds, rename: { cloud: file }, set: { participant: 1, sequence: a } }
";

#[test]
fn a_killed_sequence_goes_on_after_its_last_finished_frame() {
    let stages = "  person: { stage: fit_identity, from: points, by: [participant], with: { head_model: head_model }, key_frames: 1, steps: 4 }
  tracked:
    stage: track_head
    from: points
    by: [participant, sequence]
    with: { head_model: head_model, person: person }
    first_steps: 10
    steps: 40
    coarse: 9
";
    let space = || {
        let space = Space::new();
        clouds(&space, 6);
        space.write("r.yaml", &[MODEL, stages].concat());
        space.settle();
        space
    };
    let killed = space();
    let mut child = killed.command(&["run", "r.yaml", "--json"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut reached = false;
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let event: Value = serde_json::from_str(&line.expect("text")).expect("an event a line");
        // four of six frames, of as many again to mesh
        let within = event["within"].as_f64().unwrap_or(0.0);
        if event["event"] == "progress" && event["stage"] == "tracked" && within > 0.3 {
            child.kill().expect("it is running");
            reached = true;
            break;
        }
    }
    child.wait().expect("it is over");
    assert!(reached, "the run ended before it could be killed");
    let said = killed.effigy(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let log = killed.effigy(&["log", "tracked"]);
    let (_, after) =
        log.out.split_once("goes on after ").unwrap_or_else(|| panic!("it began anew: {} {}", log.out, log.err));
    let done: usize = after.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    assert!((3..=6).contains(&done), "{done} frames were finished");

    let whole = space();
    let said = whole.effigy(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(killed.rows("tracked"), whole.rows("tracked"), "to the last bit");
    assert!(!whole.effigy(&["log", "tracked"]).out.contains("goes on after"));
}
