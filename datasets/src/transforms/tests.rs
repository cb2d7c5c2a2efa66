//! Calibrations as each of the programs writes them, whole, in parts, cut and wrong.

use super::*;
use glam::{DVec2, DVec3};
use serde_json::json;
use std::fs;

const IDENTITY: [[f64; 4]; 4] =
    [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]];

fn written(value: &Value) -> (tempfile::TempDir, Result<Vec<View>, Fault>) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("transforms.json");
    fs::write(&path, value.to_string()).unwrap();
    let views = read(&[path]).map(|(views, _)| views);
    (root, views)
}

fn whole(more: Value) -> Value {
    let mut value = json!({ "fl_x": 100.0, "fl_y": 100.0, "cx": 100.0, "cy": 50.0, "w": 200.0, "h": 100,
        "frames": [{ "file_path": "images/a.png", "transform_matrix": IDENTITY }] });
    for (name, field) in more.as_object().unwrap() {
        match name.strip_prefix("frame.") {
            Some(name) => value["frames"][0][name] = field.clone(),
            None => value[name] = field.clone(),
        }
    }
    value
}

fn seen(view: &View, at: [f64; 3]) -> DVec2 {
    view.pinhole().project(DVec3::from_array(at)).0
}

fn near(view: &View, at: [f64; 3], x: f64, y: f64) {
    let found = seen(view, at);
    assert!((found - DVec2::new(x, y)).length() < 1e-9, "{found} is not ({x}, {y})");
}

#[test]
fn opengl_cameras_see_x_to_the_right_and_y_up() {
    // at (0, 0, 1), looking along -z: (0.1, 0.2, 0) lies 1 m before it, 10 px right and 20 px above the middle
    let views = written(&whole(json!({}))).1.unwrap();
    near(&views[0], [0.1, 0.2, 0.0], 110.0, 30.0);
    assert_eq!(views[0].world_to_cam, [1., 0., 0., 0., 0., -1., 0., 0., 0., 0., -1., 1., 0., 0., 0., 1.]);
    assert_eq!((views[0].width, views[0].height, views[0].distortion), (200, 100, None));
    // at (1, 0, 0), looking along -x: -z is to its right
    let side = [[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]];
    let views = written(&whole(json!({ "frame.transform_matrix": side }))).1.unwrap();
    near(&views[0], [0.0, 0.2, -0.1], 110.0, 30.0);
}

#[test]
fn what_a_tool_applied_is_undone() {
    // nerfstudio turns (x, y, z) into (x, z, -y); here it also doubled all lengths
    let stored = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]];
    let turn = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0]];
    let more = json!({ "frame.transform_matrix": stored, "applied_transform": turn, "applied_scale": 2.0 });
    let views = written(&whole(more)).1.unwrap();
    near(&views[0], [0.1, 0.2, 0.0], 110.0, 30.0);
}

#[test]
fn nerf_synthetic_has_angles_and_no_extensions() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("train")).unwrap();
    image::RgbaImage::new(80, 60).save(root.path().join("train/r_0.png")).unwrap();
    let path = root.path().join("transforms_train.json");
    // 90 degrees over 80 px: a focal length of 40 px
    let text = json!({ "camera_angle_x": std::f64::consts::FRAC_PI_2,
        "frames": [{ "file_path": "./train/r_0", "rotation": 0.01, "transform_matrix": IDENTITY }] });
    fs::write(&path, text.to_string()).unwrap();
    assert_eq!(find(root.path()), std::slice::from_ref(&path));
    let views = read(std::slice::from_ref(&path)).unwrap().0;
    assert_eq!(views[0].file, root.path().join("train/r_0.png"));
    let expected = [40.0, 0.0, 40.0, 0.0, 40.0, 30.0, 0.0, 0.0, 1.0];
    assert!(views[0].intrinsics.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{:?}", views[0].intrinsics);
}

#[test]
fn a_frame_goes_before_the_file_and_has_names_and_masks() {
    // as VHAP exports
    let more = json!({ "frame.fl_x": 150.0, "frame.camera_index": 3, "frame.camera_id": "222200037",
        "frame.timestep_index": 7, "frame.fg_mask_path": "fg_masks/a.png" });
    let (root, views) = written(&whole(more));
    let view = &views.unwrap()[0];
    assert_eq!((view.intrinsics[0], view.intrinsics[4]), (150.0, 100.0));
    assert_eq!((view.camera.as_str(), view.timestep), ("222200037", Some(7)));
    assert_eq!(view.mask, Some(root.path().join("fg_masks/a.png")));
    let view =
        &written(&whole(json!({ "frame.camera_label": "C1", "frame.timestep_id": "frame_00012" }))).1.unwrap()[0];
    assert_eq!((view.camera.as_str(), view.timestep), ("C1", Some(12)));
    // D-NeRF's times are fractions: the second of three
    let mut value = whole(json!({}));
    let frame = value["frames"][0].clone();
    value["frames"] = [0.5, 0.25, 0.75]
        .map(|time| {
            let mut frame = frame.clone();
            frame["time"] = time.into();
            frame
        })
        .into();
    let times: Vec<_> = written(&value).1.unwrap().iter().map(|view| view.timestep).collect();
    assert_eq!(times, [Some(1), Some(0), Some(2)]);
}

#[test]
fn parts_of_one_recording_have_one_clock() {
    let root = tempfile::tempdir().unwrap();
    let read_parts = |more: &dyn Fn(usize) -> Value| {
        for (at, (part, times)) in
            [("train", &[0.0, 0.5, 0.75][..]), ("val", &[0.25][..]), ("test", &[0.0, 0.5, 1.0][..])]
                .into_iter()
                .enumerate()
        {
            let frame = |time: &f64| {
                let mut frame = more(at);
                frame["file_path"] = format!("./{part}/r_{time}.png").into();
                frame["transform_matrix"] = json!(IDENTITY);
                frame["time"] = json!(time);
                frame
            };
            let frames: Vec<Value> = times.iter().map(frame).collect();
            let text = json!({ "camera_angle_x": 0.7, "w": 80, "h": 60, "frames": frames }).to_string();
            fs::write(root.path().join(format!("transforms_{part}.json")), text).unwrap();
        }
        let views = read(&find(root.path())).unwrap().0;
        views.into_iter().map(|view| (view.camera, view.timestep.unwrap())).collect::<Vec<_>>()
    };
    let named = |list: [(&str, i64); 7]| list.map(|(camera, timestep)| (camera.to_owned(), timestep)).to_vec();
    // D-NeRF: its parts show the same moments, so each is another moving camera
    let expected = [("train", 0), ("train", 2), ("train", 3), ("val", 1), ("test", 0), ("test", 2), ("test", 4)];
    assert_eq!(read_parts(&|_| json!({})), named(expected));
    // cameras with names keep them
    let expected = [("0", 0), ("0", 2), ("0", 3), ("1", 1), ("2", 0), ("2", 2), ("2", 4)];
    assert_eq!(read_parts(&|at| json!({ "camera_index": at })), named(expected));
    // the frames of one film, in parts: one camera, as far as this file can tell
    let path = root.path().join("transforms_test.json");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("\"time\":0.0", "\"time\":2.5")).unwrap();
    let text = fs::read_to_string(&path).unwrap().replace("\"time\":0.5", "\"time\":3.5");
    fs::write(&path, text.replace("\"camera_index\":2,", "")).unwrap();
    let views = read(&find(root.path())).unwrap().0;
    let last: Vec<_> = views[4..].iter().map(|view| (view.camera.as_str(), view.timestep)).collect();
    assert_eq!(last, [("", Some(5)), ("", Some(6)), ("", Some(4))]);
}

#[test]
fn one_side_of_the_calibrated_picture_tells_the_other() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("images")).unwrap();
    image::RgbImage::new(80, 60).save(root.path().join("images/a.png")).unwrap();
    let path = root.path().join("transforms.json");
    let sides = |w: Value, h: Value| {
        let mut value = whole(json!({ "w": w, "h": h }));
        value["cx"] = Value::Null;
        fs::write(&path, value.to_string()).unwrap();
        let view = read(std::slice::from_ref(&path)).unwrap().0.remove(0);
        (view.width, view.height, view.intrinsics[2])
    };
    assert_eq!(sides(json!(160), Value::Null), (160, 120, 80.0));
    assert_eq!(sides(Value::Null, json!(30)), (40, 30, 20.0));
    assert_eq!(sides(Value::Null, Value::Null), (80, 60, 40.0));
}

#[test]
fn lenses() {
    let lens = |more: Value| written(&whole(more)).1.unwrap()[0].distortion;
    let expected = Distortion::Rational([0.1, 0.2, 0.5, 0.6, 0.3, 0.0, 0.0, 0.0]);
    let k = json!({ "k1": 0.1, "k2": 0.2, "k3": 0.3, "k4": 0.0, "p1": 0.5, "p2": 0.6, "camera_model": "OPENCV" });
    assert_eq!(lens(k), Some(expected));
    let fisheye = Some(Distortion::Fisheye([0.1, 0.0, 0.0, 0.4]));
    assert_eq!(lens(json!({ "k1": 0.1, "k4": 0.4, "camera_model": "OPENCV_FISHEYE" })), fisheye);
    assert_eq!(lens(json!({ "k1": 0.1, "k4": 0.4, "is_fisheye": true })), fisheye);
    assert_eq!(lens(json!({ "camera_model": "PINHOLE" })), None);
}

#[test]
fn lenses_of_nerfstudio_are_lists() {
    let lens = |more: Value| written(&whole(more)).1.map(|views| views[0].distortion);
    let list = json!([0.1, 0.2, 0.3, 0.0, 0.5, 0.6]);
    let expected = Some(Distortion::Rational([0.1, 0.2, 0.5, 0.6, 0.3, 0.0, 0.0, 0.0]));
    assert_eq!(lens(json!({ "distortion_params": list })).unwrap(), expected);
    // a frame's goes before the file's, whichever way each is given
    assert_eq!(lens(json!({ "frame.distortion_params": list, "k1": 7.0, "k2": 0.0 })).unwrap(), expected);
    assert_eq!(lens(json!({ "distortion_params": list, "k1": 0.1 })).unwrap(), expected, "said twice, and the same");
    let own = lens(json!({ "distortion_params": list, "frame.k1": 0.7 })).unwrap();
    assert_eq!(own, Some(Distortion::Rational([0.7, 0.2, 0.5, 0.6, 0.3, 0.0, 0.0, 0.0])));
    let fisheye = |list: Value| json!({ "camera_model": "OPENCV_FISHEYE", "frame.distortion_params": list });
    let expected = Some(Distortion::Fisheye([0.1, 0.2, 0.3, 0.4]));
    assert_eq!(lens(fisheye(json!([0.1, 0.2, 0.3, 0.4]))).unwrap(), expected);
    assert_eq!(lens(fisheye(json!([0.1, 0.2, 0.3, 0.4, 0, 0]))).unwrap(), expected);
    let error = |more: Value| lens(more).unwrap_err().to_string();
    assert!(
        error(json!({ "distortion_params": list, "k1": 0.0 })).contains("`k1`: found 0.0, expected 0.1 as in dist")
    );
    let four = json!({ "frame.distortion_params": [0.1, 0.2, 0.3, 0.4] });
    assert!(error(four).contains("`frames[0].distortion_params`: found a list of 4, expected the six"));
    assert!(error(json!({ "distortion_params": [0, 0, 0, 0.1, 0, 0] })).contains("`distortion_params`: found a list"));
    assert!(error(json!({ "distortion_params": list, "camera_model": "PINHOLE" })).contains("expected OPENCV, as k1"));
}

/// Frames of these fields.
fn frames(fields: &[Value]) -> Value {
    let mut value = whole(json!({}));
    let plain = value["frames"][0].clone();
    let frame = |fields: &Value| {
        let mut frame = plain.clone();
        frame.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        frame
    };
    value["frames"] = fields.iter().map(frame).collect();
    value
}

#[test]
fn clocks_of_cameras_differ() {
    let read = |fields: &[Value]| {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("transforms.json");
        fs::write(&path, frames(fields).to_string()).unwrap();
        let (views, told) = read(&[path]).unwrap();
        (views.into_iter().map(|view| view.timestep.unwrap()).collect::<Vec<_>>(), told)
    };
    let rig = |late: f64| -> Vec<Value> {
        let at = |i: usize| json!({ "camera_label": (["a", "b", "c"][i % 3]), "time": ((i / 3) as f64 / 25.0 + late * (i % 3) as f64) });
        (0..9).map(at).collect()
    };
    let (found, told) = read(&rig(0.0005));
    assert_eq!(found, [0, 0, 0, 1, 1, 1, 2, 2, 2]);
    assert!(told.len() == 1 && told[0].contains("up to 0.001000 apart"), "{told:?}");
    assert_eq!(read(&rig(0.0)), (vec![0, 0, 0, 1, 1, 1, 2, 2, 2], vec![]));
    // half a frame is another moment
    assert_eq!(read(&rig(0.02)).0, [0, 1, 2, 2, 3, 4, 4, 5, 6]);
    // one camera has no clocks, however its pictures lie
    let one: Vec<Value> = [0.0, 0.4, 0.41, 0.9].map(|time| json!({ "time": time })).to_vec();
    assert_eq!(read(&one), (vec![0, 1, 2, 3], vec![]));
}

#[test]
fn moments_are_told_in_one_way() {
    let error = |fields: &[Value]| written(&frames(fields)).1.unwrap_err().to_string();
    let some = error(&[json!({ "timestep_index": 3 }), json!({}), json!({ "timestep_id": 4 })]);
    assert!(some.contains("`frames[1].timestep_index`: found nothing, expected `timestep_index`, as"), "{some}");
    let mixed = error(&[json!({ "timestep_id": "f3" }), json!({ "time": 0.5 })]);
    assert!(mixed.contains("`frames[1].timestep_index`: found `time`, expected"), "{mixed}");
    // a video has no moment of its own
    let video = json!({ "file_path": "a.mp4" });
    assert!(written(&frames(&[json!({ "timestep_index": 3 }), video])).1.is_ok());
}

#[test]
fn errors_say_where_and_what() {
    let check = |more: Value, expected: &str| {
        let error = written(&whole(more)).1.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.hint().is_empty());
    };
    check(
        json!({ "camera_model": "EQUIRECTANGULAR" }),
        "field `camera_model`: found \"EQUIRECTANGULAR\", expected OPENCV,",
    );
    check(json!({ "camera_model": "PINHOLE", "k1": 0.1 }), "`camera_model`: found \"PINHOLE\", expected OPENCV, as k1");
    check(json!({ "k4": 0.1 }), "field `k4`: found 0.1");
    check(json!({ "frame.transform_matrix": [[1, 0, 0, 0]] }), "field `frames[0].transform_matrix`: found a list of 1");
    let doubled = [[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]];
    check(json!({ "frame.transform_matrix": doubled }), "found a matrix that scales or shears");
    let mirror = [[-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];
    check(json!({ "frame.transform_matrix": mirror }), "found a matrix that mirrors");
    let columns = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 2.0, 1.0]];
    check(json!({ "frame.transform_matrix": columns }), "the last row 0 0 0 1");
    check(json!({ "frame.file_path": 3 }), "field `frames[0].file_path`: found 3");
    check(json!({ "fl_x": "100" }), "field `fl_x`: found \"100\", expected a finite number");
    check(json!({ "fl_x": null, "fl_y": null, "camera_angle_x": 90.0 }), "expected an angle between 0 and pi");
    let degrees = json!({ "fl_x": null, "fl_y": null, "x_fov": 200.0 });
    check(degrees, "field `x_fov`: found 200.0, expected an angle between 0 and 180");
    let relative = "found 0.5, 0.5, 0.5, 0.5 for a picture of 200 x 100 px, expected pixels";
    check(json!({ "fl_x": 0.5, "fl_y": 0.5, "cx": 0.5, "cy": 0.5 }), relative);
    check(json!({ "fl_x": -3.0 }), "field `fl_x`: found -3.0, expected a focal length above 0 px");
    check(json!({ "fl_y": 0 }), "field `fl_y`: found 0, expected a focal length above 0 px");
    check(json!({ "frame.fl_x": -80 }), "field `frames[0].fl_x`: found -80, expected a focal length above 0 px");
    check(json!({ "w": 0.5 }), "field `w`: found 0.5");
    check(json!({ "h": null }), "field `frames[0].h`: found nothing, and the size of");
    let video = json!({ "w": null, "frame.file_path": "videos/cam_a.mp4" });
    check(video, "field `frames[0].w`: found nothing, and ");
    check(json!({ "frames": [] }), "field `frames`: found a list of 0, expected at least one frame");
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("transforms.json");
    let text = whole(json!({})).to_string();
    for length in 0..text.len() {
        fs::write(&path, &text[..length]).unwrap();
        let error = read(std::slice::from_ref(&path)).unwrap_err().to_string();
        assert!(error.contains("transforms.json: found text that is not JSON"), "{error}");
    }
    // what was cut off is told from what Python writes for a number that is none
    let hint = |text: &str| {
        fs::write(&path, text).unwrap();
        read(std::slice::from_ref(&path)).unwrap_err().hint().to_owned()
    };
    assert!(hint(&text[..text.len() - 1]).contains("cut short"));
    let hint = hint(&text.replacen("100.0", "NaN", 1));
    assert!(hint.contains("NaN") && !hint.contains("cut short"), "{hint}");
}
