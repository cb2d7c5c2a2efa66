//! Bad input, as a user meets it: a folder of recordings, a recipe over it, and one thing wrong. One clear error, with
//! the place, a sentence and what to do; what was finished is kept.

use crate::base::Trial;
use crate::support::{Said, Space};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

const CAMERAS: [&str; 2] = ["222200036", "222200037"];

/// A folder in the layout of a NeRSemble download, and a recipe that extracts its frames.
struct Recordings {
    space: Space,
}

const RECIPE: &str = "
recipe: recordings
stages:
  videos: { stage: source_nersemble, path: data, calibrated_size: [96, 140] }
  splits: { stage: assign_split, from: videos, hold_out_cameras: ['222200037'], hold_out_sequences: [] }
  frames: { stage: extract_frames, from: splits, every: 2 }
";

impl Recordings {
    fn new() -> Recordings {
        let trial = Trial::finished();
        let output = trial.command("show", &["capture", "--json", "--paths"]).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row a line"));
        let space = Space::new();
        let rows: Vec<Value> = rows
            .filter(|row| row["sequence"] == "EXP-1-head" && CAMERAS.iter().any(|camera| row["camera"] == *camera))
            .collect();
        assert_eq!(rows.len(), CAMERAS.len());
        let (mut poses, mut intrinsics) = (Map::new(), Value::Null);
        for row in &rows {
            let camera = row["camera"].as_str().expect("a serial");
            let rows_of = |name: &str, width: usize| -> Value {
                row[name].as_array().expect("numbers").chunks(width).map(|r| Value::from(r.to_vec())).collect()
            };
            poses.insert(camera.into(), rows_of("world_to_cam", 4));
            intrinsics = rows_of("intrinsics", 3);
            for (column, folder) in [("video", "images"), ("matte_video", "alpha_maps")] {
                let to = space.path(&format!("data/018/sequences/EXP-1-head/{folder}/cam_{camera}.mp4"));
                std::fs::create_dir_all(to.parent().expect("it has one")).expect("a folder");
                std::fs::copy(row[column].as_str().expect("a path"), to).expect("a copy");
            }
        }
        let calibration = json!({ "world_2_cam": poses, "intrinsics": intrinsics });
        space.write("data/018/calibration/camera_params.json", &calibration.to_string());
        space.write("r.yaml", RECIPE);
        Recordings { space }
    }

    fn video(&self, camera: &str) -> PathBuf {
        self.space.path(&format!("data/018/sequences/EXP-1-head/images/cam_{camera}.mp4"))
    }

    fn calibration(&self) -> PathBuf {
        self.space.path("data/018/calibration/camera_params.json")
    }

    fn run(&self) -> Said {
        self.space.settle();
        self.space.effigy(&["run", "r.yaml"])
    }
}

/// One error, and it says what to do.
pub fn one_error(said: &Said, code: i32, parts: &[&str]) {
    said.expect_error(code, parts);
    assert_eq!(said.err.matches("error:").count(), 1, "one error, said once:\n{}", said.err);
    assert!(said.err.contains("hint:"), "no hint in:\n{}", said.err);
    assert!(!said.err.contains("panicked"), "{}", said.err);
}

#[test]
fn recordings_that_are_as_they_should_be() {
    let recordings = Recordings::new();
    let said = recordings.run();
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(recordings.space.rows("frames").len(), 4, "two cameras, two of four frames");
}

#[test]
fn a_missing_video() {
    let recordings = Recordings::new();
    let video = recordings.video(CAMERAS[1]);
    let away = recordings.space.path("away.mp4");
    std::fs::rename(&video, &away).expect("it is there");
    one_error(&recordings.run(), 1, &["stage `videos`", "cam_222200037.mp4"]);
    std::fs::rename(&away, &video).expect("it is there");
    assert_eq!(recordings.run().code, 0);
}

#[test]
fn a_truncated_video() {
    let recordings = Recordings::new();
    let video = recordings.video(CAMERAS[1]);
    let whole = std::fs::read(&video).expect("it is there");
    std::fs::write(&video, &whole[..whole.len() / 2]).expect("written");
    one_error(&recordings.run(), 1, &["stage `frames`", "cam_222200037.mp4"]);
    std::fs::write(&video, &whole).expect("written");
    // the source lists anew, the video that was sound is known
    let (executed, cached, failed) = recordings.space.run();
    assert!(failed == 0 && executed <= 3 && cached >= 1, "{executed} executed, {cached} known");
}

#[test]
fn a_misspelt_camera_or_sequence_holds_nothing_out_and_is_said() {
    let recordings = Recordings::new();
    let run = |from: &str, to: &str| {
        recordings.space.write("r.yaml", &RECIPE.replace(from, to));
        recordings.run()
    };
    let there = "there are 222200036, 222200037";
    one_error(
        &run("['222200037']", "['22220037']"),
        1,
        &["stage `splits`", "`hold_out_cameras` names 22220037", there],
    );
    let parts = ["stage `splits`", "`hold_out_sequences` names EXP-1-haed", "there are EXP-1-head"];
    one_error(&run("sequences: []", "sequences: [EXP-1-haed]"), 1, &parts);
    let parts = ["participant 18 on EXP-5-mouth and EMO-3-angry+sad, and no row is of either: there are EXP-1-head"];
    one_error(&run("sequences: []", "sequences: [], paper_sequences: true"), 1, &parts);
    let said = run("sequences: []", "sequences: [EXP-1-head]");
    assert_eq!(said.code, 0, "{}", said.err);
    let splits: Vec<Value> = recordings.space.rows("splits").iter().map(|row| row["split"].clone()).collect();
    assert_eq!(splits, ["sequence", "both"]);
    // who is held out is no matter of pictures: they stay as they are
    assert_eq!(run("[]", "[]").code, 0);
    assert_eq!(recordings.space.rows("frames").len(), 4);
}

#[test]
fn pictures_and_mattes_of_another_shape() {
    let recordings = Recordings::new();
    recordings.space.write("r.yaml", &RECIPE.replace("[96, 140]", "[140, 96]"));
    let parts = ["stage `frames`", "cam_222200036.mp4: found 96 x 140 px", "calibrated pictures, 140 x 96 px", "hint:"];
    recordings.run().expect_error(1, &parts);
    // of twice the size they are of one shape, but no middle of theirs is where it would be, and of half the size it is
    // outside
    recordings.space.write("r.yaml", &RECIPE.replace("[96, 140]", "[192, 280]"));
    let parts =
        ["stage `videos`", "the middle of pictures of about 96 x 140 px, expected that of pictures of 192 x 280"];
    recordings.run().expect_error(1, &parts);
    recordings.space.write("r.yaml", &RECIPE.replace("[96, 140]", "[48, 70]"));
    let parts = ["stage `videos`", "(48, 70) px, expected a place in its pictures of 48 x 70 px", "`calibrated_size"];
    recordings.run().expect_error(1, &parts);

    // and a picture with a matte of another one
    let space = &recordings.space;
    let files = "recipe: pictures\nstages:\n  pictures: { files: '*.ppm', parse: '{name}.ppm' }\n  \
        picture: { select: pictures, where: { name: picture }, rename: { image: file }, set: { timestep: 0 }, columns: [timestep, image] }\n  \
        mattes: { select: pictures, where: { name: matte }, rename: { matte: file }, set: { timestep: 0 }, columns: [timestep, matte] }\n  \
        both: { join: [picture, mattes], on: [timestep] }\n  frames: { stage: extract_frames, from: both }\n";
    space.write("r.yaml", files);
    let ppm = |name: &str, width: usize, height: usize| {
        let head = format!("P6\n{width} {height}\n255\n").into_bytes();
        std::fs::write(space.path(name), [head, vec![200; width * height * 3]].concat()).expect("written");
    };
    ppm("picture.ppm", 11, 16);
    ppm("matte.ppm", 32, 22);
    one_error(
        &recordings.run(),
        1,
        &["stage `frames`", "found 32 x 22 px, expected the shape of the picture", "11 x 16 px"],
    );
    ppm("matte.ppm", 22, 32);
    assert_eq!(recordings.run().code, 0);
}

#[test]
fn a_key_that_is_not_there() {
    let recordings = Recordings::new();
    recordings.space.write("r.yaml", &RECIPE.replace("every: 2", "evry: 2"));
    one_error(&recordings.run(), 2, &["r.yaml:6", "stage `frames`", "evry", "every"]);
}

#[test]
fn a_calibration_that_cannot_be_read() {
    let recordings = Recordings::new();
    let sound = std::fs::read_to_string(recordings.calibration()).expect("it is there");
    std::fs::write(recordings.calibration(), &sound[..sound.len() / 2]).expect("written");
    one_error(&recordings.run(), 1, &["stage `videos`", "camera_params.json", "not JSON"]);

    let mut other: Value = serde_json::from_str(&sound).expect("JSON");
    other["world_2_cam"].as_object_mut().expect("an object").remove(CAMERAS[0]);
    std::fs::write(recordings.calibration(), other.to_string()).expect("written");
    one_error(&recordings.run(), 1, &["stage `videos`", "camera_params.json", "no camera 222200036"]);

    std::fs::remove_file(recordings.calibration()).expect("it is there");
    one_error(&recordings.run(), 1, &["stage `videos`", "camera_params.json"]);
    std::fs::write(recordings.calibration(), &sound).expect("written");
    assert_eq!(recordings.run().code, 0);
}

#[test]
fn no_room_on_the_disk() {
    let recordings = Recordings::new();
    for folder in ["images", "alpha_maps"] {
        let other = format!("data/018/sequences/EXP-1-head/{folder}/cam_{}.mp4", CAMERAS[0]);
        std::fs::remove_file(recordings.space.path(&other)).expect("it is there");
    }
    recordings.space.write("r.yaml", &RECIPE.replace("every: 2", "every: 4, width: 2400"));
    recordings.space.settle();
    assert_eq!(recordings.space.effigy(&["run", "r.yaml", "--only", "splits"]).code, 0);
    // no file may grow beyond 1 MiB: large frames cannot be written, as on a full disk
    let program = env!("CARGO_BIN_EXE_effigy");
    let limited = format!("trap '' XFSZ; ulimit -f 2048; exec {program} run r.yaml");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &limited]).current_dir(recordings.space.path("")).env_clear().env("PATH", "/usr/bin:/bin");
    let output = command.output().expect("it starts");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = Said { code: output.status.code().unwrap_or(-1), out: String::new(), err };
    one_error(&said, 1, &["stage `frames`", "frame_00000.png", "File too large", "make room"]);
    let (executed, _, failed) = recordings.space.run();
    assert_eq!((executed, failed), (1, 0), "what was there is kept, the rest is done now");
}

#[test]
fn weights_of_another_shape() {
    let space = Space::new();
    let prior = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/weights/prior-64");
    let copied = std::process::Command::new("cp").arg("-r").arg(prior).arg(space.path("prior")).status();
    assert!(copied.expect("cp is there").success());
    let config = space.read("prior/unet/config.json");
    let mut value: Value = serde_json::from_str(&config).expect("JSON");
    value["block_out_channels"][2] = json!(192);
    space.write("prior/unet/config.json", &value.to_string());
    space.write("r.yaml", "recipe: weights\nstages:\n  backbone: { stage: load_diffusers, path: prior }\n");
    space.settle();
    let said = space.effigy(&["run", "r.yaml"]);
    one_error(&said, 1, &["stage `backbone`", "unet/diffusion_pytorch_model.safetensors", "192"]);
    space.write("prior/unet/config.json", &config);
    assert_eq!(space.run(), (1, 0, 0));

    // at the last time of a zero terminal SNR the noise says nothing of the picture: known before an avatar is trained
    // for days
    let config = space.read("prior/scheduler/scheduler_config.json");
    let mut value: Value = serde_json::from_str(&config).expect("JSON");
    value["prediction_type"] = json!("epsilon");
    space.write("prior/scheduler/scheduler_config.json", &value.to_string());
    space.write(
        "r.yaml",
        "recipe: weights\nstages:\n  backbone: { stage: load_diffusers, path: prior, zero_terminal_snr: true }\n",
    );
    space.settle();
    one_error(
        &space.effigy(&["run", "r.yaml"]),
        1,
        &["scheduler_config.json", "predicts noise", "hint:", "zero_terminal_snr: false"],
    );
}

#[test]
fn parameters_out_of_their_range_are_told_before_anything_runs() {
    let space = Space::new();
    let wrong = |stage: &str, parts: &[&str]| {
        space.write("r.yaml", &format!("stages:\n  a: {{ rows: [ {{ image: 1 }} ] }}\n  b: {{ {stage} }}\n"));
        space.effigy_with_packages(&["plan", "r.yaml"]).expect_error(2, &[&["r.yaml:3"], parts].concat());
    };
    wrong("stage: raster_gbuffer, from: a, size: 0", &["`size`", "at least 1, not 0"]);
    wrong("stage: raster_gbuffer, from: a, size: 64, eval_crop: 0", &["`eval_crop`", "more than 0"]);
    wrong("stage: raster_gbuffer, from: a, size: 64, min_crop: 3", &["`min_crop`", "at most 1"]);
    wrong("stage: train_vae, from: a, steps: 3, checkpoint_every: 0", &["`checkpoint_every`", "at least 1"]);
    wrong("stage: train_vae, from: a, steps: 3, ema: 1.0", &["`ema`", "less than 1"]);
    wrong("stage: train_prior, from: a, steps: 3, lr: -1", &["`lr`", "more than 0"]);
    wrong("stage: train_avatar, from: a, steps: 3, checkpoint_every: 0", &["`checkpoint_every`", "at least 1"]);
    wrong("stage: track_head, from: a, coarse: 1", &["`coarse`", "at least 2"]);
    wrong("stage: fit_identity, from: a, points: 1", &["`points`", "at least 100"]);
    wrong("stage: make_video, from: a, enlarge: 5000000", &["`enlarge`", "at most 64"]);
    wrong("stage: smooth_codes, from: a, sigma: 0", &["`sigma`", "more than 0"]);
}
