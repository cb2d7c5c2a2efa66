//! The same recording in NeRSemble's layouts: frames come out equal, whichever way they lie on disk.

use crate::base::{SMALL, Trial};
use crate::support::Space;
use serde_json::{Map, Value, json};

const CAMERAS: [&str; 2] = ["222200036", "222200037"];
/// The other cameras of the rig.
const OTHERS: &str = "222200042 222200044 222200046 222200040 222200048 220700191 222200041 222200038 222200047 222200043 \
                      222200049 222200039 222200045 221501007";

fn recipe(path: &str, more: &str) -> String {
    format!(
        "recipe: layouts\nstages:\n  capture: {{ stage: source_nersemble, path: {path}{more} }}\n  \
         frames: {{ stage: extract_frames, from: capture, every: 2 }}\n"
    )
}

/// Camera, frame number, digests of image and matte.
fn frames(space: &Space) -> Vec<(String, i64, String, Value)> {
    let row = |row: Value| {
        let camera = row["camera"].as_str().expect("a serial").to_string();
        let image = row["image"].as_str().expect("a digest").to_string();
        (camera, row["timestep"].as_i64().expect("a number"), image, row["matte"].clone())
    };
    let mut rows: Vec<_> = space.rows("frames").into_iter().map(row).collect();
    rows.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    rows
}

fn path_of(row: &Value, column: &str) -> String {
    row[column].as_str().expect("a path").to_string()
}

/// Puts the capture of the shared run into layout A, without mattes, and its frames into C and D, below `data/`.
fn laid_out() -> Space {
    let trial = Trial::finished();
    let space = Space::new();
    let output = trial.command("show", &["capture", "--json", "--paths"]).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row a line"));
    let rows =
        rows.filter(|row| row["sequence"] == "EXP-1-head" && CAMERAS.iter().any(|camera| row["camera"] == *camera));
    let (mut poses, mut intrinsics) = (Map::new(), Value::Null);
    for row in rows {
        let camera = path_of(&row, "camera");
        let rows_of = |name: &str, width: usize| -> Value {
            row[name].as_array().expect("numbers").chunks(width).map(|r| Value::from(r.to_vec())).collect()
        };
        poses.insert(camera.clone(), rows_of("world_to_cam", 4));
        intrinsics = rows_of("intrinsics", 3);
        let to = space.path(&format!("data/a/018/sequences/EXP-1-head/images/cam_{camera}.mp4"));
        std::fs::create_dir_all(to.parent().expect("it has one")).expect("a folder");
        std::fs::copy(path_of(&row, "video"), to).expect("a copy");
    }
    // a calibration is of the whole rig, whichever cameras were copied
    let pose = poses[CAMERAS[1]].clone();
    poses.extend(OTHERS.split_whitespace().map(|serial| (serial.to_string(), pose.clone())));
    let calibration = json!({ "world_2_cam": poses, "intrinsics": intrinsics }).to_string();
    space.write("data/a/018/calibration/camera_params.json", &calibration);
    space.write("data/c/018/camera_params.json", &calibration);
    space
}

#[test]
fn frames_are_equal_in_all_layouts() {
    let space = laid_out();
    let size = ", calibrated_size: [96, 140]";
    space.write("r.yaml", &recipe("data/a", size).replace("every: 2", "every: 1"));
    space.settle();
    assert_eq!(space.run().2, 0);
    // each frame as a picture, as the other layouts have them
    let output = space.command(&["show", "r.yaml", "frames", "--json", "--paths"]).output().expect("it starts");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let row: Value = serde_json::from_str(line).expect("a row a line");
        let (camera, timestep) = (path_of(&row, "camera"), row["timestep"].as_i64().expect("a number"));
        let frame = format!("data/c/018/sequences/EXP-1-head/frame_{timestep:05}/images-2x-73fps");
        std::fs::create_dir_all(space.path(&frame)).expect("a folder");
        std::fs::copy(path_of(&row, "image"), space.path(&format!("{frame}/cam_{camera}.png"))).expect("a copy");
    }
    // and into layout D by the program itself
    let places = "  places: { stage: export_nersemble, from: frames }\n";
    let all = recipe("data/a", size).replace("every: 2", "every: 1");
    space.write("to_d.yaml", &(all + places));
    let said = space.effigy(&["run", "to_d.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let said = space.effigy(&["export", "to_d.yaml", "places", "--to", "data/d"]);
    assert_eq!(said.code, 0, "{}", said.err);
    space.write("r.yaml", &recipe("data/a", size));
    space.settle();
    assert_eq!(space.run().2, 0);
    let from_videos = frames(&space);
    assert_eq!(from_videos.iter().map(|f| f.1).collect::<Vec<_>>(), [0, 2, 0, 2]);
    let poses =
        |space: &Space| space.rows("frames").into_iter().map(|row| row["world_to_cam"].clone()).collect::<Vec<_>>();
    let known = poses(&space);

    space.write("r.yaml", &recipe("data/c/018", size));
    let said = space.effigy(&["run", "r.yaml"]);
    said.expect_error(1, &["data/c/018 is the folder of one participant", "set `participant: 18`"]);
    space.write("r.yaml", &recipe("data/c/018", ", participant: 18, calibrated_size: [96, 140]"));
    space.settle();
    assert_eq!(space.run().2, 0);
    assert_eq!(frames(&space), from_videos, "pictures in folders of frames, and the folder of one participant");

    // the calibration of layout D, made from that of A
    let said = space.effigy(&["import", "nersemble", "data/a", "--calibration-to", "data/d"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("layout A") && said.out.contains("EXP-1-head  2 cameras, video"), "{}", said.out);
    space.write("r.yaml", &recipe("data/d", size));
    space.settle();
    assert_eq!(space.run().2, 0);
    assert_eq!(frames(&space), from_videos);
    // without some of the cameras the rows would be taken for those of others
    let calibration = space.read("data/a/018/calibration/camera_params.json");
    let mut partial: Value = serde_json::from_str(&calibration).expect("JSON");
    partial["world_2_cam"].as_object_mut().expect("an object").remove("222200042");
    space.write("data/a/018/calibration/camera_params.json", &partial.to_string());
    let said = space.effigy(&["import", "nersemble", "data/a", "--calibration-to", "data/partial"]);
    assert!(said.code == 2 && said.err.contains("missing: 222200042") && said.err.contains("hint:"), "{}", said.err);
    space.write("data/a/018/calibration/camera_params.json", &calibration);
    let close = |a: &Value, b: &Value| {
        let number = |v: &Value, i: usize| v[i].as_f64().expect("a number");
        (0..16).all(|i| (number(a, i) - number(b, i)).abs() < 1e-9)
    };
    assert!(known.iter().zip(poses(&space)).all(|(a, b)| close(a, &b)), "poses survive Rodrigues vectors");
}

/// A sequence of the shared run as a folder of pictures and mattes with `transforms.json`: cameras look along -z there,
/// y up.
fn folder_of_ones_own() -> Space {
    let (trial, space) = (Trial::finished(), Space::new());
    let output = trial.command("show", &["frames", "--json", "--paths"]).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row a line"));
    let mut frames = Vec::new();
    for row in rows.filter(|row| row["sequence"] == "EXP-1-head") {
        let name = format!("cam_{}/{:05}.png", path_of(&row, "camera"), row["timestep"].as_i64().expect("a number"));
        for (column, folder) in [("image", "images"), ("matte", "masks")] {
            let to = space.path(&format!("own/{folder}/{name}"));
            std::fs::create_dir_all(to.parent().expect("it has one")).expect("a folder");
            std::fs::copy(path_of(&row, column), to).expect("a copy");
        }
        let number = |column: &str, i: usize| row[column][i].as_f64().expect("a number");
        let w2c = |r: usize, c: usize| number("world_to_cam", 4 * r + c);
        let center = |i: usize| -(0..3).map(|r| w2c(r, i) * w2c(r, 3)).sum::<f64>();
        let line = |i: usize| json!([w2c(0, i), -w2c(1, i), -w2c(2, i), center(i)]);
        frames.push(json!({
            "file_path": format!("images/{name}"), "mask_path": format!("masks/{name}"),
            "transform_matrix": [line(0), line(1), line(2), [0, 0, 0, 1]],
            "fl_x": number("intrinsics", 0), "fl_y": number("intrinsics", 4), "cx": number("intrinsics", 2), "cy": number("intrinsics", 5),
            "w": row["width"], "h": row["height"],
        }));
    }
    space.write("own/transforms.json", &json!({ "frames": frames }).to_string());
    space
}

#[test]
fn a_folder_of_ones_own_becomes_an_avatar() {
    let space = folder_of_ones_own();
    let own = format!("path={}", space.path("own").display());
    let call = [&["--param", &own, "--param", "camera=222200037", "--param", "every=1"][..], &SMALL].concat();
    let said = space.effigy_with_packages(&[&["run", "folder", "--json"], &call[..]].concat());
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    assert!(said.counts().0 > 100 && space.path("out/report.html").exists());
    let said = space.effigy_with_packages(&[&["show", "folder", "scores", "--json"], &call[..]].concat());
    let rows: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect();
    assert!(!rows.is_empty() && rows.iter().all(|row| row["camera"] == "222200037" && row["split"] == "view"));
    let said = space.effigy_with_packages(&["plan", "folder", "--param", &own, "--param", "camera=222200037"]);
    assert_eq!(said.code, 0, "at the sizes of the default: {}", said.err);
    // what only the run was told
    let said = space.effigy_with_packages(&["show", "folder", "scores", "--profile", "smoke"]);
    said.expect_error(2, &["`path` of stage `capture`", "the last run of this recipe was called with path="]);
}

#[test]
fn colours_and_backgrounds_of_a_download_are_used() {
    let space = laid_out();
    let run = |name: &str, text: &str| {
        space.write(&format!("data/a/018/{name}"), text);
        space.write("r.yaml", &recipe("data/a", ", calibrated_size: [96, 140], cameras: ['222200037']"));
        space.settle();
        space.effigy(&["run", "r.yaml"])
    };
    let identity = "[[1,0,0],[0,1,0],[0,0,1]]";
    assert_eq!(run("calibration/color_calibration.json", &format!("{{\"222200037\": {identity}}}")).code, 0);
    let plain = frames(&space);
    assert_eq!(plain.len(), 2);
    // red takes the place of blue, and blue that of red
    let swapped = "[[0,0,1],[0,1,0],[1,0,0]]";
    assert_eq!(run("calibration/color_calibration.json", &format!("{{\"222200037\": {swapped}}}")).code, 0);
    let other = frames(&space);
    assert!(plain.iter().zip(&other).all(|(a, b)| a.2 != b.2), "colours were corrected");
    let said = run("calibration/color_calibration.json", &format!("{{\"222200036\": {identity}}}"));
    said.expect_error(1, &["stage `capture`", "color_calibration.json", "field `222200037`: found nothing"]);
    assert!(said.err.contains("hint:"), "{}", said.err);
    std::fs::remove_file(space.path("data/a/018/calibration/color_calibration.json")).expect("it is there");

    // the rig's pictures have white behind the head: a white picture is their background
    let background = space.path("data/a/018/sequences/BACKGROUND/image_222200037.jpg");
    std::fs::create_dir_all(background.parent().expect("it has one")).expect("a folder");
    // a PPM: pictures are recognised by their content
    let white = [b"P6\n96 140\n255\n".as_slice(), &[255; 96 * 140 * 3]].concat();
    std::fs::write(&background, white).expect("written");
    let said = run("note.txt", "");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(frames(&space).iter().all(|frame| frame.3.is_string()), "a matte was cut out");
    std::fs::write(&background, b"no picture").expect("written");
    let said = run("note.txt", "again");
    said.expect_error(1, &["stage `frames`", "image_222200037.jpg", "damaged or no image"]);
}

#[test]
fn importing_what_is_not_there_is_said() {
    let space = Space::new();
    let said = space.effigy(&["import", "nersemble", "nowhere"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("error: nowhere: No such file") && said.err.contains("hint:"), "{}", said.err);
    std::fs::create_dir_all(space.path("empty/photos")).expect("a folder");
    let said = space.effigy(&["import", "nersemble", "empty"]);
    assert!(said.code == 2 && said.err.contains("found folders photos, expected {participant number}"), "{}", said.err);
}
