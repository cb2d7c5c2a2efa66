//! How good the tracker is, and what it may know: the shipped recipe `tracking.yaml` in its small profile; and tracking
//! from a folder of video, mattes and calibration on a disk that never held the truth.

use crate::bad_input::one_error;
use crate::base::{Trial, base};
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
    for method in ["NPHM", "NPHM without skin", "PCA"] {
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
            assert!(number(row, "reprojection_truth") > floor && number(row, "reprojection_truth") < 10.0, "{row}");
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

    // skin: at the moment that it is found again from nothing moves, nor has it an error; elsewhere it is found, if not
    // well at this size
    let skin = rows("skin_scores");
    assert_eq!(skin.len(), 12);
    for person in [101, 102] {
        let of: Vec<&Value> = skin.iter().filter(|row| row["participant"] == person).collect();
        let (still, moving): (Vec<&Value>, _) = of.iter().partition(|row| number(row, "skin_moved_mm") < 0.01);
        assert!(
            still.len() == 1 && still[0]["skin_error_mm"].is_null() && still[0]["skin_error_tracked_mm"].is_null(),
            "{of:?}"
        );
        assert!(
            moving.iter().all(|row| number(row, "skin_found") > 30.0 && number(row, "skin_error_mm") < 10.0),
            "{of:?}"
        );
    }
    // each surface is asked where it has that skin, whatever its canonical head
    for method in ["NPHM", "NPHM without skin", "PCA", "PCA without skin"] {
        let carried: Vec<Value> = rows("carried").into_iter().filter(|row| row["method"] == method).collect();
        let known: Vec<f64> = carried.iter().filter_map(|row| row["skin_error_tracked_mm"].as_f64()).collect();
        assert!(carried.len() == 12 && known.len() == 10 && known.iter().all(|mm| *mm < 15.0), "{method}: {known:?}");
    }
    // a fit that begins at an earlier one ends near it, and elsewhere
    let (first, again) = (rows("first"), rows("neural"));
    for (first, again) in first.iter().zip(&again) {
        assert_eq!((&first["sequence"], &first["timestep"]), (&again["sequence"], &again["timestep"]));
        assert_ne!(first["expression"], again["expression"]);
    }

    let report = space.read("out/report.md");
    assert!(report.contains("each over the rows of one participant") && !report.contains("not available"), "{report}");
    assert_eq!(call("run", &["--json"]).counts().0, 0, "nothing is left to do");

    // of moments of several sequences one is the reference, not all that have its timestep
    let any = ["--set", "reference.where={}"];
    call("run", &[&["--json", "--only", "skin"][..], &any].concat());
    let said = call("show", &[&["skin", "--json"][..], &any].concat());
    let still = said.out.lines().filter(|line| {
        let row: Value = serde_json::from_str(line).expect("a row a line");
        number(&row, "skin_moved_mm") < 0.01
    });
    assert_eq!(still.count(), 2, "one of each person");

    // a code that has to be short is
    let short = ["--set", "neural_of_one.expression_prior=20", "--variant", "who=101"];
    call("run", &[&["--json", "--only", "neural_of_one"][..], &short].concat());
    let said = call("show", &[&["neural_of_one", "--json"][..], &short].concat());
    let length = |rows: &[Value]| -> f64 {
        let squares = |row: &Value| {
            row["expression"]
                .as_array()
                .expect("numbers")
                .iter()
                .map(|v| v.as_f64().expect("a number").powi(2))
                .sum::<f64>()
        };
        rows.iter().filter(|row| row["participant"] == 101).map(squares).sum()
    };
    let shorter: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect();
    assert!(!shorter.is_empty() && length(&shorter) < 0.8 * length(&again), "{} {}", length(&shorter), length(&again));

    // half an earlier tracking, one of another length, and views of several moments
    let columns = "participant, sequence, timestep, start_lost, start_expression";
    let half = format!("starts.columns=[{columns}]");
    for (edits, text) in [
        (
            &["starts.rename={start_expression: expression, start_lost: lost}", &half][..],
            "only one of `start_expression` and `start_pose`",
        ),
        // the linear model's code
        (
            &[
                "starts.select=linear_of_one",
                "starts.rename={start_expression: expression, start_pose: pose, start_lost: lost}",
            ][..],
            "numbers, this head model's codes",
        ),
        (&["skin.by=[participant, sequence]"][..], "is there more than once, or the views are of several moments"),
    ] {
        let edits = edits.iter().flat_map(|edit| ["--set", edit]);
        let words: Vec<&str> = ["run", shipped].into_iter().chain(edits).chain(small).collect();
        let said = space.effigy_with_packages(&words);
        assert!(said.code == 1 && said.err.contains(text) && said.err.contains("hint:"), "{words:?}: {}", said.err);
    }
}

/// Lays the shared run's recordings out as a download: videos, mattes, calibration, colours; and beside them its head
/// model, which was made from other people. Nothing else leaves the shared run. The middle of each picture is said to
/// lie `aside` px from where it is.
fn download(space: &Space, aside: f64) {
    let trial = Trial::finished();
    std::fs::create_dir_all(space.path("head")).expect("a folder");
    let model = trial.paths("head_model").remove(0);
    for (column, name) in [("head_config", "head/head.json"), ("head_weights", "head/head.safetensors")] {
        std::fs::copy(model[column].as_str().expect("a path"), space.path(name)).expect("a copy");
    }
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

/// The shipped recipe for captures, which has nothing that makes or reads the truth.
const CAPTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/pipeline/recipes/capture.yaml");

/// Tracks what lies in a space's folder; the rows.
fn tracked(space: &Space) -> Vec<Value> {
    // the sizes of the shared run, and its head model
    let (path, head) = (space.path("data/018"), space.path("head"));
    let [path, head] = [("path", path), ("head", head)].map(|(name, path)| format!("{name}={}", path.display()));
    let small = "every=2 scan_people=2 person_steps=6 track_steps=4 width=96 participant=18 sequences=[]";
    let mut words: Vec<&str> =
        small.split(' ').chain([path.as_str(), &head]).flat_map(|param| ["--param", param]).collect();
    words.extend([
        "--set",
        "tracked.coarse=9",
        "--set",
        "person.key_frames=2",
        "--set",
        "capture.calibrated_size=[96, 140]",
    ]);
    words.extend(["--param", "lost=[false, true]"]);
    space.settle();
    let said = space.effigy_with_packages(&[&["run", CAPTURE, "--only", "gazes"], &words[..]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    let rows = |stage: &str| -> Vec<Value> {
        let said = space.effigy_with_packages(&[&["show", CAPTURE, stage, "--json"], &words[..]].concat());
        sorted(said.out.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect())
    };
    // eyes come from the same pictures, and in so small ones too few are seen: then they look straight ahead
    let gazes = rows("gazes");
    let views = |row: &Value| row["iris_views"].as_array().expect("numbers").iter().map(number_of).sum::<f64>();
    assert!(gazes.iter().map(views).sum::<f64>() > 10.0, "{:?}", gazes.iter().map(views).collect::<Vec<_>>());
    assert!(gazes.iter().all(|row| row["eyes"] == json!(vec![0.0; 6]) && row["lids"] == json!(vec![1.0; 2])));
    rows("tracked")
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(|row| (row["sequence"].to_string(), row["timestep"].as_i64()));
    rows
}

#[test]
fn the_readmes_command_for_a_capture_plans_all_but_what_reads_the_truth() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the readme");
    let line = readme.lines().find(|line| line.contains("effigy run pipeline/recipes/capture.yaml"));
    let said: Vec<&str> = line.expect("the readme has it").split_whitespace().skip(3).collect();
    assert!(said.contains(&"path=/data/nersemble/018"), "{said:?}");
    // names of files are enough for a plan
    let space = Space::new();
    space.write("018/calibration/camera_params.json", "{}");
    space.write("018/sequences/EXP-1-head/images/cam_222200037.mp4", "");
    let path = format!("path={}", space.path("018").display());
    let words: Vec<&str> = said.into_iter().map(|word| if word.starts_with("path=") { &path } else { word }).collect();
    let prior = concat!("prior=", env!("CARGO_MANIFEST_DIR"), "/datasets/weights/prior-64");
    for profile in ["default", "smoke", "paper"] {
        let more = ["--profile", profile, "--param", prior, "--json"];
        let planned = space.effigy_with_packages(&[&["plan", CAPTURE], &words[..], &more].concat());
        assert_eq!(planned.code, 0, "{profile}: {}", planned.err);
        let plan = planned.json();
        let stages = plan["stages"].as_array().expect("a list");
        let kind = |name: &str| stages.iter().find(|one| one["stage"] == name).map(|one| one["kind"].clone());
        assert_eq!(kind("capture"), Some(json!("source_nersemble")), "{profile}");
        assert!(kind("scores").is_some() && kind("flicker").is_some(), "{profile}: {plan}");
        let of_truth =
            |one: &&Value| one["kind"] == "capture_truth" || one["stage"].as_str().is_some_and(|s| s.contains("truth"));
        assert_eq!(stages.iter().find(of_truth), None, "{profile}");
    }
}

#[test]
fn clouds_of_a_capture_take_the_place_of_stereo_in_every_profile() {
    let space = Space::new();
    space.write("018/calibration/camera_params.json", "{}");
    space.write("018/sequences/EXP-1-head/images/cam_222200037.mp4", "");
    space.write("018/sequences/EXP-1-head/pointclouds/frame_00000.pcd", "");
    let folder = space.path("018").display().to_string();
    // what `import` prints fits into the recipe as well
    let printed = space.effigy_with_packages(&["import", "nersemble", &folder]).out;
    let stages = printed.split_once("in a recipe:\n").expect("stages").1;
    space.write("own.yaml", &format!("extends: capture.yaml\nstages:\n{stages}\n"));
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/pipeline/recipes/capture_clouds.yaml");
    let path = format!("path={folder}");
    for (recipe, profile) in
        [shipped, "own.yaml"].into_iter().flat_map(|r| ["default", "smoke", "paper"].map(|p| (r, p)))
    {
        let prior = concat!("prior=", env!("CARGO_MANIFEST_DIR"), "/datasets/weights/prior-64");
        let words = ["plan", recipe, "--profile", profile, "--param", &path, "--param", prior, "--json"];
        let planned = space.effigy_with_packages(&words);
        assert_eq!(planned.code, 0, "{recipe} {profile}: {}", planned.err);
        let plan = planned.json();
        let kinds: Vec<_> = plan["stages"].as_array().expect("a list").iter().map(|one| one["kind"].clone()).collect();
        assert!(kinds.contains(&json!("import_points")), "{recipe} {profile}: {kinds:?}");
    }
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

/// Clouds of the shared run, between them one with hardly a point in it, and that run's head model.
#[test]
fn a_moment_without_a_face_is_marked_and_necks_end_in_a_plane() {
    let space = Space::new();
    let trial = Trial::finished();
    let shown = |stage: &str| -> Vec<Value> {
        let output = trial.command("show", &[stage, "--json", "--paths"]).output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
    };
    let copy = |from: &Value, to: &str| std::fs::copy(from.as_str().expect("a path"), space.path(to)).expect("a copy");
    let model = shown("head_model").remove(0);
    copy(&model["head_config"], "head.json");
    copy(&model["head_weights"], "head.safetensors");
    let sequence: Vec<Value> = shown("points").into_iter().filter(|row| row["sequence"] == "EXP-1-head").collect();
    assert_eq!(sequence.len(), 2);
    std::fs::create_dir(space.path("clouds")).expect("a folder");
    copy(&sequence[0]["cloud"], "clouds/0.ply");
    copy(&sequence[1]["cloud"], "clouds/2.ply");
    let mut few = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\n".to_vec();
    few.extend(b"property float x\nproperty float y\nproperty float z\nend_header\n".iter().chain(&[0; 12]));
    std::fs::write(space.path("clouds/1.ply"), few).expect("it can be written");
    let recipe = |throat: &str, which: &str| {
        format!(
            "recipe: few
stages:
  config_file: {{ files: head.json }}
  config: {{ select: config_file, rename: {{ head_config: file }}, set: {{ model: 1 }} }}
  weights_file: {{ files: head.safetensors }}
  weights: {{ select: weights_file, rename: {{ head_weights: file }}, set: {{ model: 1 }} }}
  head_model: {{ join: [config, weights], on: [model] }}
  clouds: {{ files: \"clouds/*.ply\", parse: \"clouds/{{timestep:i64}}.ply\" }}
  points: {{ select: clouds, rename: {{ cloud: file }}, set: {{ participant: 1, sequence: a }} }}
  seen: {{ select: points, where: {{ timestep: 0 }} }}
  blank: {{ select: points, where: {{ timestep: 1 }} }}
  person: {{ stage: fit_identity, from: seen, by: [participant], with: {{ head_model: head_model }}, key_frames: 1, steps: 6{throat} }}
  tracked:
    stage: track_head
    from: {which}
    by: [participant, sequence]
    with: {{ head_model: head_model, person: person }}
    first_steps: 6
    steps: 4
    coarse: 9
"
        )
    };
    let tracked = |throat: &str| -> Vec<Value> {
        space.write("r.yaml", &recipe(throat, "points"));
        space.settle();
        let said = space.effigy(&["run", "r.yaml"]);
        assert_eq!(said.code, 0, "{}", said.err);
        let shown = space.effigy(&["show", "r.yaml", "tracked", "--json", "--paths"]);
        shown.out.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
    };
    let whole = tracked("");
    let lost: Vec<&Value> = whole.iter().map(|row| &row["lost"]).collect();
    assert_eq!(lost[1], &json!(true));
    assert_eq!((&whole[1]["residual"], &whole[1]["kept"]), (&Value::Null, &json!(0.0)));
    assert_eq!(
        (&whole[1]["pose"], &whole[1]["expression"]),
        (&whole[0]["pose"], &whole[0]["expression"]),
        "it stays as it was"
    );
    assert!(number(&whole[2], "kept") > 0.1, "{whole:?}");

    let cut = tracked(", throat: [0.0, -0.28, -0.55, 0.0, 1.0, 0.4]");
    let vertices = |row: &Value| -> usize {
        let file = std::fs::read(row["mesh"].as_str().expect("a path")).expect("a file");
        let head = String::from_utf8_lossy(&file[..300]).into_owned();
        let (_, count) = head.split_once("element vertex ").expect("a header");
        count.lines().next().expect("a line").parse().expect("a number")
    };
    for (whole, cut) in whole.iter().zip(&cut) {
        assert_eq!(whole["pose"], cut["pose"], "what is fitted is the same");
        assert!(vertices(cut) < vertices(whole) && 2 * vertices(cut) > vertices(whole), "{cut}");
    }

    let refused = |recipe: &str, words: &[&str]| {
        space.write("r.yaml", recipe);
        space.settle();
        one_error(&space.effigy(&["run", "r.yaml"]), 1, words);
    };
    refused(
        &recipe(", throat: [0, 0, 0, 0, -1, 0]", "points"),
        &["stage `person`", "`throat`", "a positive second number"],
    );
    refused(
        &recipe(", throat: [0, 3, 0, 0, 1, 0]", "points"),
        &["stage `tracked`", "no edge at the plane of `throat`"],
    );
    refused(&recipe("", "blank"), &["stage `tracked`", "points lie where the face should be"]);
}
