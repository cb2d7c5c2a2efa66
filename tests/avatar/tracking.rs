//! How good the tracker is, and what it may know: the shipped recipe `tracking.yaml` in its small profile; and tracking from a folder of video,
//! mattes and calibration on a disk that never held the truth.

use crate::base::{Trial, base, recipe};
use crate::support::Space;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

fn number(row: &Value, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("no {column} in {row}"))
}

#[test]
fn two_trackers_are_compared_on_people_the_head_models_have_not_seen() {
    let space = Space::new();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/pipeline/recipes/tracking.yaml");
    let small = ["--profile", "smoke", "--param", "scan_people=2", "--set", "linear_of_one.key_frames=2"];
    let call = |verb: &str, words: &[&str]| {
        let said = space.effigy_with_packages(&[&[verb, shipped], words, &small[..]].concat());
        assert_eq!(said.code, 0, "{words:?}: {}", said.err);
        said
    };
    let rows = |stage: &str| -> Vec<Value> {
        let said = call("show", &[stage, "--json"]);
        said.out.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect()
    };
    call("run", &["--json"]);

    let known: Vec<Value> = rows("scanned_people").into_iter().map(|row| row["identity"].clone()).collect();
    let (poses, reprojections, probes) = (rows("poses"), rows("reprojections"), rows("probes"));
    for method in ["NPHM", "PCA"] {
        let of = |rows: &[Value]| rows.iter().filter(|row| row["method"] == method).cloned().collect::<Vec<_>>();
        let moments = of(&poses);
        assert_eq!(moments.len(), 2 * 2 * 3, "people, sequences, frames");
        assert!(moments.iter().all(|row| !known.contains(&row["participant"])));
        for row in &moments {
            assert!(number(row, "scan_to_mesh_mm") < 30.0 && number(row, "pose_degrees") < 180.0, "{row}");
            assert!(number(row, "jitter_mm") > 0.0 && number(row, "pose_mm") > 0.0, "{row}");
        }
        let views = of(&reprojections);
        assert_eq!(views.len(), moments.len());
        for row in &views {
            // a px is 2 % of a face at this size, and detectors are better than that
            let floor = number(row, "reprojection_triangulated");
            assert!(floor < 3.0 && number(row, "landmark_views") >= 3.0, "{row}");
            assert!(number(row, "reprojection") > floor && number(row, "reprojection_mean_places") > floor, "{row}");
        }
        let actions = of(&probes);
        assert_eq!(actions.len(), 2 * 52);
        let named = |name: &str| actions.iter().find(|row| row["action"] == name).expect("an action");
        assert_eq!((&named("jawOpen")["visible"], &named("tongueOut")["visible"]), (&json!(true), &json!(false)));
        // nobody puffs the cheeks in these sequences
        assert_eq!(named("cheekPuff")["r2"], Value::Null, "what does not vary has no share");
        assert!(number(named("jawOpen"), "r2") <= 1.0 && number(named("jawOpen"), "r2_of_truth") <= 1.0);
        assert!(number(named("jawOpen"), "blocks") >= 2.0 && number(named("jawOpen"), "reach_mm") > 5.0);
    }
    let linear = |row: &&Value| row["method"] == "PCA";
    let surface = poses.iter().filter(linear).map(|row| number(row, "scan_to_mesh_mm")).sum::<f64>() / 12.0;
    assert!(surface < 8.0, "{surface} mm");

    let report = space.read("out/report.md");
    assert!(report.contains("each over the rows of one participant") && !report.contains("not available"), "{report}");
    assert_eq!(call("run", &["--json"]).counts().0, 0, "nothing is left to do");
}

/// Lays the shared run's recordings out as a download: videos, mattes, calibration, colours. Nothing else leaves the shared run.
/// The middle of each picture is said to lie `aside` px from where it is.
fn download(space: &Space, aside: f64) {
    let trial = Trial::finished();
    let output = trial.command("show", &["capture", "--json", "--paths"]).output().expect("it starts");
    let (mut poses, mut intrinsics, mut colours) = (Map::new(), Value::Null, Map::new());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let row: Value = serde_json::from_str(line).expect("a row a line");
        let [camera, sequence] = ["camera", "sequence"].map(|name| row[name].as_str().expect("a text"));
        let rows_of = |name: &str, width: usize| -> Value {
            row[name].as_array().expect("numbers").chunks(width).map(|r| Value::from(r.to_vec())).collect()
        };
        poses.insert(camera.into(), rows_of("world_to_cam", 4));
        intrinsics = rows_of("intrinsics", 3);
        intrinsics[0][2] = json!(number_of(&intrinsics[0][2]) + aside);
        colours.insert(camera.into(), rows_of("color_polynomial", 3));
        for (column, kind) in [("video", "images"), ("matte_video", "alpha_maps")] {
            let to = space.path(&format!("data/018/sequences/{sequence}/{kind}/cam_{camera}.mp4"));
            std::fs::create_dir_all(to.parent().expect("it has one")).expect("a folder");
            std::fs::copy(row[column].as_str().expect("a path"), to).expect("a copy");
        }
    }
    let calibration = json!({ "world_2_cam": poses, "intrinsics": intrinsics });
    space.write("data/018/calibration/camera_params.json", &calibration.to_string());
    space.write("data/018/calibration/color_calibration.json", &Value::from(colours).to_string());
}

fn number_of(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// The shipped recipe up to `tracked`, with a folder in the place of the capture, and without anything that makes or reads the truth.
fn blind() -> String {
    let shipped = std::fs::read_to_string(recipe()).expect("it is shipped");
    let (tracking, _) = shipped.split_once("  # --- what the networks see").expect("it says where tracking ends");
    let mut out = String::new();
    let mut dropped = false;
    for line in tracking.lines() {
        let stanza = line.strip_prefix("  ").filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        if let Some((name, _)) = stanza.and_then(|stanza| stanza.split_once(':')) {
            dropped =
                ["sequences", "capture", "truth", "tracked_truth", "tracking_scores", "gazes_truth", "eye_scores"]
                    .contains(&name);
            if name == "capture" {
                out += "  capture: { stage: source_nersemble, path: data, calibrated_size: [96, 140] }\n";
            }
        }
        if !dropped {
            out += line;
            out += "\n";
        }
    }
    let stages = out.split_once("stages:\n").expect("it has stages").1;
    assert!(!stages.contains("truth") && !stages.contains("capture_synthetic"), "{stages}");
    out
}

/// Tracks what lies in a space's folder; the rows.
fn tracked(space: &Space) -> Vec<Value> {
    // the sizes of the shared run
    let small =
        "every=2 scan_people=2 scan_expressions=5 head_steps=40 person_steps=6 track_steps=4 checkpoint_every=15";
    let mut words: Vec<&str> = small.split(' ').flat_map(|param| ["--param", param]).collect();
    words.extend(["--set", "tracked.coarse=9", "--set", "person.key_frames=2"]);
    space.write("r.yaml", &blind());
    space.settle();
    let said = space.effigy_with_packages(&[&["run", "r.yaml", "--only", "tracked"], &words[..]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    let said = space.effigy_with_packages(&[&["show", "r.yaml", "tracked", "--json"], &words[..]].concat());
    let rows = said.out.lines().map(|line| serde_json::from_str(line).expect("a row a line"));
    sorted(rows.collect())
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(|row| (row["sequence"].to_string(), row["timestep"].as_i64()));
    rows
}

#[test]
fn tracking_reads_video_mattes_and_calibration_and_nothing_else() {
    let known = sorted(base().tables["tracked"].clone());
    assert_eq!(known.len(), 6);
    let space = Space::new();
    download(&space, 0.0);
    let found = tracked(&space);
    // meshes as digests, codes and poses to the last bit, and every number on the way
    assert_eq!(found, known);

    // and it does read them: with another calibration, every mesh is another
    download(&space, 0.4);
    let other = tracked(&space);
    let meshes = |rows: &[Value]| rows.iter().map(|row| row["mesh"].to_string()).collect::<BTreeSet<_>>();
    assert_eq!(other.len(), known.len());
    assert!(meshes(&other).is_disjoint(&meshes(&known)));
}
