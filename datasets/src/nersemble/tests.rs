//! Files in each of the four layouts, made here as their writers leave them, whole, cut and wrong.

use super::*;
use crate::capture::{SERIALS, rig};
use crate::colour::Correction;
use std::fs;
use std::path::Path;

fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A version 1.0 `.npy` file, as `numpy.save` writes it.
fn npy(descr: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    npy_in_order(descr, "False", shape, bytes)
}

fn npy_in_order(descr: &str, is_fortran: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {is_fortran}, 'shape': {shape}, }}");
    header.push_str(&" ".repeat(63 - (10 + header.len()) % 64));
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), bytes].concat()
}

fn f64s(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn npz(path: &Path, arrays: &[(&str, Vec<u8>)]) {
    use std::io::Write;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, bytes) in arrays {
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn calibration_round_trips_and_its_errors_are_exact() {
    let root = tempfile::tempdir().unwrap();
    let cameras = rig(&SERIALS, 176, 256);
    let path = write_calibration(root.path(), 17, &cameras).unwrap();
    assert!(path.ends_with("017/calibration/camera_params.json"));
    let read = read_calibration(&path).unwrap();
    assert_eq!((read.cameras.len(), read.size), (16, Some(FULL_SIZE)));
    for (serial, camera) in &cameras {
        assert_eq!(&read.cameras[serial].camera(176, 256), camera);
    }
    // Intrinsics that differ are written for each camera, and read back: they are for the pictures beside them.
    let mut uneven = cameras.clone();
    uneven[3].1.intrinsics.x_axis.x += 1.0;
    let path = write_calibration(root.path(), 18, &uneven).unwrap();
    let read = read_calibration(&path).unwrap();
    assert_eq!((&read.cameras[&uneven[3].0].camera(176, 256), read.size), (&uneven[3].1, None));

    let check = |text: &str, expected: &str| {
        fs::write(&path, text).unwrap();
        let error = read_calibration(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("{", "text that is not JSON");
    check("{}", "field `world_2_cam`: found nothing");
    check(
        r#"{"world_2_cam": {"1": [[1,2],[3,4]]}, "intrinsics": []}"#,
        "`world_2_cam.1`: found 2 rows of lengths 2, 2",
    );
    let pose = "[[1,0,0,0],[0,1,0,0],[0,0,1,1],[0,0,0,1]]";
    let with = |pose: &str, k: &str| format!(r#"{{"world_2_cam": {{"1": {pose}}}, "intrinsics": {k}}}"#);
    let k = "[[1000,0,500],[0,1000,500],[0,0,1]]";
    check(&with(pose, r#"{"2": []}"#), "`intrinsics.1`: found nothing");
    check(&with(pose, r#"[[1,0,"x"],[0,1,0],[0,0,1]]"#), "`intrinsics`: found an entry that is the text `x`");
    // millimetres, a mirrored pose, a focal length of none
    check(&with(&pose.replace("0,0,1,1]", "0,0,1,1050]"), k), "found 1050.000 m between camera and head");
    check(&with(&pose.replace("[[1,", "[[-1,"), k), "no rotation (off by 0.000, determinant -1.000)");
    check(&with(pose, &k.replace("[[1000", "[[0")), "intrinsics of camera 1`: found a focal length of 0 px");
    // by columns, in lengths of the picture, and no last row
    check(
        &with(pose, "[[1000,0,0],[0,1000,0],[500,500,1]]"),
        "found the rows [1000.0, 0.0, 0.0], [0.0, 1000.0, 0.0] and [500",
    );
    check(
        &with(pose, "[[3.7,0,0.5],[0,2.5,0.5],[0,0,1]]"),
        "found focal lengths of 3.7 and 2.5 and a principal point at (0.5",
    );
    check(&with(pose, "[[100,0,0.5],[0,100,0.5],[0,0,1]]"), "expected pixels");
    check(
        &with("[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,1,1]]", k),
        "`pose of camera 1`: found the last row [0.0, 0.0, 1.0, 1.0]",
    );
    fs::write(&path, with(pose, k)).unwrap();
    assert!(read_calibration(&path).is_ok());
}

#[test]
fn poses_that_mean_something_else_are_refused() {
    use glam::{DMat4, DVec3};
    let root = tempfile::tempdir().unwrap();
    let half_turn = DMat4::from_scale(DVec3::new(1.0, -1.0, -1.0));
    let read = |meant: &dyn Fn(DMat4) -> DMat4| {
        let mut cameras = rig(&SERIALS, 176, 256);
        cameras.iter_mut().for_each(|(_, camera)| camera.world_to_cam = meant(camera.world_to_cam));
        read_calibration(&write_calibration(root.path(), 17, &cameras).unwrap())
    };
    let refused = |meant: &dyn Fn(DMat4) -> DMat4, expected: &str| {
        let error = read(meant).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("poses of the cameras`: found cameras that look up to") && text.contains(expected),
            "{text}"
        );
        assert!(error.hint().contains("world to camera"), "{}", error.hint());
    };
    assert!(read(&|pose| pose).is_ok());
    refused(&|pose| pose.inverse(), "if each were inverted");
    refused(&|pose| half_turn * pose, "with y and z of each turned round");
    // as nerfstudio has them
    refused(&|pose| pose.inverse() * half_turn, "if each were inverted and its y and z turned round");
    // a rig that looks at a place a metre beside the origin
    refused(&|pose| pose * DMat4::from_translation(DVec3::new(0.0, 1.5, 0.0)), "cameras that look at the origin");
    // the head may be beside the middle
    assert!(read(&|pose| pose * DMat4::from_translation(DVec3::new(0.1, -0.1, 0.1))).is_ok());
}

#[test]
fn a_download_converts_to_the_calibration_of_diffusion_avatars_and_back() {
    let root = tempfile::tempdir().unwrap();
    let cameras = rig(&SERIALS, 2200, 3208);
    let read = read_calibration(&write_calibration(root.path(), 17, &cameras).unwrap()).unwrap();
    let [config, result] = write_diffusion_avatars_calibration(root.path(), &read, FULL_SIZE).unwrap();
    let back = read_calibration(&result).unwrap();
    assert_eq!(back.size, Some(FULL_SIZE));
    for (serial, camera) in &read.cameras {
        let off = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off(&camera.world_to_cam, &back.cameras[serial].world_to_cam) < 1e-12);
        assert_eq!(camera.intrinsics, back.cameras[serial].intrinsics);
    }
    let text = |path: &Path| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    assert_eq!(text(&config)["serials"][8], "222200037", "the rows are in the rig's order");
    // specification section 8.2 D: the fields of the reference's classes, of which most have no default
    let keys = |value: &serde_json::Value| {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort_unstable();
        keys.join(" ")
    };
    let expected = "corner_displacement_mode dataset_version image_size lambda_corner_displacements lambda_focal_length \
                    lambda_principal_point optimization_mode optimizer_per_camera_intrinsics positions serials use_double";
    assert_eq!(keys(&text(&config)), expected);
    assert!(text(&config)["positions"].is_array());
    assert_eq!(keys(&text(&result)), "cost_history detected_corners n_residuals params_result runtime");
    assert!(text(&result)["detected_corners"].is_array() && text(&result)["runtime"].is_f64());
    let params = &text(&result)["params_result"];
    assert_eq!(keys(params), "checkerboard_poses corner_displacements intrinsics rs ts");
    assert_eq!(keys(&params["intrinsics"][0]), "cx cy fx fy");

    // a quarter turn about y, by hand: (x, y, z) -> (z, y, -x)
    let half_pi = std::f64::consts::FRAC_PI_2;
    let one = |intrinsics: &str| {
        fs::write(&config, r#"{"serials": ["a"], "image_size": {"w": 100, "h": 200}}"#).unwrap();
        let text =
            format!(r#"{{"params_result": {{"ts": [[0.1, 0.2, 1.5]], "rs": [[0, {half_pi}, 0]], {intrinsics}}}}}"#);
        fs::write(&result, text).unwrap();
        read_calibration(&result)
    };
    // flat intrinsics, as older files have them
    let flat = one(r#""fx": 500, "fy": 510, "cx": 50, "cy": 100"#).unwrap();
    assert_eq!(flat.size, Some((100, 200)));
    let camera = &flat.cameras["a"];
    assert_eq!(camera.intrinsics, [500.0, 0.0, 50.0, 0.0, 510.0, 100.0, 0.0, 0.0, 1.0]);
    let expected = [0.0, 0.0, 1.0, 0.1, 0.0, 1.0, 0.0, 0.2, -1.0, 0.0, 0.0, 1.5, 0.0, 0.0, 0.0, 1.0];
    assert!(camera.world_to_cam.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{:?}", camera.world_to_cam);
    // fy is fx where it is not given, as in the reference
    for fy in ["", r#""fy": null, "#] {
        assert_eq!(one(&format!(r#""fx": 500, {fy}"cx": 50, "cy": 100"#)).unwrap().cameras["a"].intrinsics[4], 500.0);
    }
    let set = r#"{"fx": 500, "fy": 510, "cx": 50, "cy": 100}"#;
    assert_eq!(one(&format!(r#""intrinsics": [{set}]"#)).unwrap(), flat);
    let error = one(&format!(r#""intrinsics": [{set}, {set}]"#)).unwrap_err().to_string();
    assert!(error.contains("found a list of 2, expected one set for all cameras"), "{error}");
    let error = one(r#""intrinsics": [{"fx": 1}]"#).unwrap_err().to_string();
    assert!(error.contains("`params_result.intrinsics.0.cx`: found nothing") || error.contains(".fy"), "{error}");
    fs::remove_file(&config).unwrap();
    let error = read_calibration(&result).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
}

#[test]
fn lists_videos_and_says_what_it_expected() {
    let root = tempfile::tempdir().unwrap();
    let empty = list(root.path(), &|_| true).unwrap_err().to_string();
    assert!(empty.contains("cam_{serial}.mp4"), "{empty}");
    write_calibration(root.path(), 1, &rig(&SERIALS[..2], 64, 64)).unwrap();
    for (sequence, serial) in [("FREE", SERIALS[1]), ("EXP-1-head", SERIALS[0])] {
        put(&video_path(root.path(), 1, sequence, serial), b".");
    }
    let background = root.path().join(format!("001/sequences/BACKGROUND/image_{}.jpg", SERIALS[0]));
    put(&background, b".");
    put(&root.path().join("001/calibration/color_calibration.json"), b"{}");
    assert_eq!(survey(root.path()).unwrap()[0].layout, Layout::Download);
    let alpha = alpha_path(root.path(), 1, "FREE", SERIALS[1]);
    put(&alpha, b".");
    let recordings = list(root.path(), &|_| true).unwrap();
    let found: Vec<_> =
        recordings.iter().map(|r| (r.participant.as_str(), r.sequence.as_str(), r.matte.is_some())).collect();
    assert_eq!(found, [("001", "EXP-1-head", false), ("001", "FREE", true)]);
    put(&alpha, b"");
    let error = list(root.path(), &|_| true).unwrap_err();
    assert!(error.to_string().contains(&alpha.display().to_string()), "{error}");
    assert!(error.to_string().contains("an empty file") && error.hint().contains("or leave it out"), "{error}");
    // of what is not wanted nothing has to be whole
    let others = list(root.path(), &|[_, sequence, _]| sequence != "FREE").unwrap();
    assert_eq!(others.iter().map(|r| r.sequence.as_str()).collect::<Vec<_>>(), ["EXP-1-head"]);
    assert!(list(root.path(), &|_| false).unwrap().is_empty());
    put(&video_path(root.path(), 2, "FREE", SERIALS[0]), b".");
    assert!(list(root.path(), &|[participant, ..]| participant == "002").is_err(), "it has no calibration");
    assert_eq!(
        list(root.path(), &|[participant, sequence, _]| participant == "001" && sequence != "FREE").unwrap(),
        others
    );
    fs::remove_dir_all(root.path().join("002")).unwrap();
    put(&alpha, b".");
    assert_eq!(recordings[1].matte.as_deref(), Some(alpha.as_path()));
    assert_eq!((&recordings[0].background, &recordings[1].background), (&Some(background), &None));
    assert!(recordings.iter().all(|r| r.colour.is_some() && r.timestep.is_none()));
    // one participant's folder does as well, and so does the benchmark's folder
    assert_eq!(list(&root.path().join("001"), &|_| true).unwrap()[0].participant, "001");
    let benchmark = tempfile::tempdir().unwrap();
    fs::create_dir(benchmark.path().join("nvs")).unwrap();
    fs::rename(root.path().join("001"), benchmark.path().join("nvs/001")).unwrap();
    let survey = survey(benchmark.path()).unwrap();
    assert_eq!((survey[0].layout, survey[0].sequences.len()), (Layout::Benchmark, 2));
    // a matte without its video
    let widow = benchmark.path().join(format!("nvs/001/sequences/FREE/alpha_maps/cam_{}.mp4", SERIALS[5]));
    put(&widow, b".");
    let error = list(benchmark.path(), &|_| true).unwrap_err().to_string();
    assert!(error.contains("no such file, though its matte"), "{error}");
    put(&benchmark.path().join("nvs/001/sequences/FREE/alpha_maps/cam_1.mp4"), b".");
    // the survey tells it and goes on; a sequence of which only tracking or clouds were published is one too
    put(&benchmark.path().join("nvs/001/sequences/EXP-2-eyes/tracking/flame2023_tracking_v2.npz"), b".");
    put(&benchmark.path().join("nvs/001/sequences/EXP-3-cheeks+nose/pointclouds/frame_00000.pcd"), b".");
    let surveyed = &super::survey(benchmark.path()).unwrap()[0].sequences;
    let told: Vec<_> = surveyed.iter().map(|s| (s.name.as_str(), s.recordings, s.problem.is_some())).collect();
    let expected =
        [("EXP-1-head", 1, false), ("EXP-2-eyes", 0, false), ("EXP-3-cheeks+nose", 0, false), ("FREE", 1, true)];
    assert_eq!(told, expected);
    assert_eq!(surveyed[1].parts.keys().collect::<Vec<_>>(), [&Part::Flame]);
    assert_eq!(surveyed[2].parts.keys().collect::<Vec<_>>(), [&Part::Clouds]);
    let problem = surveyed[3].problem.as_ref().unwrap();
    assert!(problem.contains("though its matte") && problem.ends_with("and 1 more of this kind"), "{problem}");
}

#[test]
fn lists_folders_of_pictures_of_both_releases() {
    let root = tempfile::tempdir().unwrap();
    let c = root.path().join("030");
    put(&c.join("camera_params.json"), b"{}");
    for t in [0, 1, 12] {
        let frame = c.join(format!("sequences/EMO-1-shout+laugh/frame_{t:05}"));
        put(&frame.join("images-2x-73fps/cam_220700191.png"), b".");
        put(&frame.join("alpha_map-73fps/cam_220700191.png"), b".");
        put(&frame.join("colmap-73fps/depth_maps_compressed/cam_220700191.png"), b".");
    }
    put(&c.join("annotations/EMO-1-shout+laugh/color_correction/220700191.npy"), b".");
    let d = root.path().join("018");
    put(&d.join("calibration/calibration_result.json"), b"{}");
    for t in [0, 3] {
        let frame = d.join(format!("sequences/FREE/timesteps/frame_{t:05}"));
        put(&frame.join("images-2x/cam_222200037.jpg"), b".");
        put(&frame.join("images/cam_222200037.png"), b".");
        put(&frame.join("alpha_map/cam_222200037.png"), b".");
    }
    put(&d.join("flame.ply"), b".");
    put(&d.join("sequences/FREE/timesteps/frame_00003/facer_segmentation_masks/segmentation_cam_222200037.png"), b".");
    let annotations = d.join("sequences/FREE/annotations");
    put(&annotations.join("color_correction/222200037.npy"), b".");
    put(&annotations.join("tracking/NPHM_temp_wNeck/00000_ex_code.npz"), b".");
    put(&annotations.join("tracking/FLAME2023_v2/tracked_flame_params.npz"), b".");
    let recordings = list(root.path(), &|_| true).unwrap();
    let found: Vec<_> = recordings.iter().map(|r| (r.participant.as_str(), r.timestep)).collect();
    assert_eq!(found, [("018", Some(0)), ("018", Some(3)), ("030", Some(0)), ("030", Some(1)), ("030", Some(12))]);
    assert!(recordings.iter().all(|r| r.matte.is_some() && r.colour.is_some()));
    assert!(recordings[0].pixels.ends_with("images-2x/cam_222200037.jpg"), "half size goes before full size");
    let surveys = survey(root.path()).unwrap();
    assert_eq!(surveys[0].layout, Layout::DiffusionAvatars);
    assert_eq!(surveys[1].layout, Layout::PaperRelease);
    assert_eq!(surveys[0].unused, [("flame.ply", 1), ("facer_segmentation_masks", 1)]);
    assert!(surveys[1].unused.is_empty());
    let free = &surveys[0].sequences[0];
    assert_eq!((free.frames, free.parts[&Part::Nphm], free.parts[&Part::Flame]), (Some(2), 1, 1));
    assert!(!free.parts.contains_key(&Part::Boxes) && !free.parts.contains_key(&Part::Depths));
    // of NPHM fits those count that are read: in the folder where the reference looks for this participant's
    put(&annotations.join("tracking/NPHM_temp_wNeck_wLMs/00000_ex_code.npz"), b".");
    put(&annotations.join("tracking/NPHM_temp_wNeck_wLMs/00003_ex_code.npz"), b".");
    let again = &survey(root.path()).unwrap()[0];
    assert_eq!(again.sequences[0].parts[&Part::Nphm], 1);
    assert_eq!(again.unused[1], ("expression codes in folders of other NPHM fits", 2));
    assert_eq!(surveys[1].sequences[0].parts[&Part::Depths], 3);
    assert!(recordings[2].depth.as_ref().is_some_and(|path| path.ends_with("depth_maps_compressed/cam_220700191.png")));
    fs::remove_file(d.join("calibration/calibration_result.json")).unwrap();
    // a capture of another layout stays one when that calibration is put into it as well
    put(&c.join("calibration/calibration_result.json"), b"{}");
    put(&root.path().join("017/calibration/camera_params.json"), b"{}");
    put(&root.path().join("017/calibration/calibration_result.json"), b"{}");
    put(&video_path(root.path(), 17, "FREE", "222200037"), b".");
    let surveys = survey(root.path()).unwrap();
    let layouts: Vec<_> = surveys.iter().map(|survey| survey.layout).collect();
    assert_eq!(layouts, [Layout::Download, Layout::DiffusionAvatars, Layout::PaperRelease]);
    assert!(surveys[0].calibration.ends_with("017/calibration/camera_params.json") && surveys[0].sequences.len() == 1);
    fs::remove_dir_all(root.path().join("017")).unwrap();
    let error = list(root.path(), &|_| true).unwrap_err().to_string();
    assert!(error.contains("calibration_result.json"), "{error}");
}

#[test]
fn a_picture_that_is_not_there_is_told() {
    let root = tempfile::tempdir().unwrap();
    let d = root.path().join("018");
    put(&d.join("calibration/calibration_result.json"), b"{}");
    for (t, camera) in [(0, "1"), (0, "2"), (3, "2"), (7, "1"), (7, "2")] {
        put(&d.join(format!("sequences/FREE/timesteps/frame_{t:05}/images-2x/cam_{camera}.jpg")), b".");
    }
    let free = &survey(root.path()).unwrap()[0].sequences[0];
    assert_eq!((free.cameras.len(), free.recordings, free.frames), (2, 5, Some(3)));
    assert_eq!(free.absent, [("1".to_owned(), 3)]);
    assert!(free.problem.is_none(), "{:?}", free.problem);
}

#[test]
fn depth_maps_are_in_metres_and_unknown_at_zero() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("cam_1.png");
    // by the published quantiser: 65534 steps over 2 m, from bin 1 on
    let bins = [0u16, 1, 32768, 65535, 16385, 2];
    let png = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(3, 2, bins.to_vec()).unwrap();
    png.save(&path).unwrap();
    let map = read_depth(&path).unwrap();
    assert_eq!((map.width, map.height), (3, 2));
    let expected = [0.0, 0.0, 1.0, 2.0, 16384.0 / 32767.0, 1.0 / 32767.0];
    assert!(map.metres.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", map.metres);
    let far = DepthMap { metres: vec![0.0, 0.5, 1.0, 1.5, 2.5, 1e-4], ..map };
    write_depth(&path, &far).unwrap();
    let back = read_depth(&path).unwrap();
    let off = |a: f32, b: f32| (a - b).abs() < 1.6e-5;
    assert!(off(back.metres[1], 0.5) && off(back.metres[3], 1.5) && back.metres[4] == 0.0, "{:?}", back.metres);
    image::GrayImage::new(3, 2).save(&path).unwrap();
    let error = read_depth(&path).unwrap_err().to_string();
    assert!(error.contains("found 8 bits, 1 channel, expected 16 bits, 1 channel"), "{error}");
}

#[test]
fn colours_of_both_releases_and_their_errors() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("222200037.npy");
    let affine: [f64; 12] = std::array::from_fn(|i| i as f64 / 16.0);
    put(&path, npy("<f8", "(3, 4)", &f64s(&affine)));
    assert_eq!(read_colour(&path, "222200037").unwrap(), Correction::Affine(affine));
    let written = root.path().join("written.npy");
    write_affine(&written, &affine).unwrap();
    assert_eq!(read_colour(&written, "1").unwrap(), Correction::Affine(affine));
    put(&path, npy("<f4", "(3, 4)", &f32s(&affine.map(|x| x as f32))));
    assert_eq!(read_colour(&path, "222200037").unwrap(), Correction::Affine(affine));
    let fails = |expected: &str| {
        let error = read_colour(&path, "222200037").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let mut bytes = affine;
    bytes[7] = 25.5;
    put(&path, npy("<f8", "(3, 4)", &f64s(&bytes)));
    let error = read_colour(&path, "222200037").unwrap_err();
    assert!(error.to_string().contains("a colour shifted by 25.5") && error.hint().contains("255"), "{error}");
    put(&path, npy("<f8", "(4, 3)", &f64s(&affine)));
    fails("found shape [4, 3], expected shape [3, 4]");
    put(&path, npy("<f8", "(3, 4)", &f64s(&affine[..7])));
    fails("expected values for all of it");
    put(&path, npy("<f8", "(1000000000, 1000000000, 1000000000)", &[]));
    fails("expected values for all of it");
    // a pickle is refused, not run
    put(&path, npy("|O", "()", b"\x80\x04N."));
    fails("(array)");
    put(&path, b"\x93NUMPY");
    fails("no array");

    let path = root.path().join("color_calibration.json");
    let ragged = "[[1,2,3],[1,2,3,4],[1,2,3,4,5]]";
    let wrong = format!(r#""2": [[1,0],[0,1],[0,0]], "3": [[1,2,3],[1,2],[1]], "5": {ragged}"#);
    put(&path, format!(r#"{{"1": [[1,0,0,0],[0,1,0,0],[0,0,1,0.5]], {wrong}}}"#));
    let expected = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.5];
    assert_eq!(read_colour(&path, "1").unwrap(), Correction::Polynomial(expected.to_vec()));
    let error = |serial| read_colour(&path, serial).unwrap_err().to_string();
    assert!(error("2").contains("3 rows of lengths 2, 2, 2"), "{}", error("2"));
    assert!(error("3").contains("3 rows of lengths 3, 2, 1"), "{}", error("3"));
    assert!(error("4").contains("field `4`: found nothing"), "{}", error("4"));
    assert!(error("5").contains("3 rows of lengths 3, 4, 5"), "{}", error("5"));
}

#[test]
fn arrays_that_were_transposed_before_they_were_saved_are_read() {
    // 3 x 4 whose columns lie one after the other
    let affine: [f64; 12] = std::array::from_fn(|i| i as f64 / 16.0);
    let columns: [f64; 12] = std::array::from_fn(|i| affine[4 * (i % 3) + i / 3]);
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("222200037.npy");
    put(&path, npy_in_order("<f8", "True", "(3, 4)", &f64s(&columns)));
    assert_eq!(read_colour(&path, "222200037").unwrap(), Correction::Affine(affine));
    // element (i, j, k) of 2 x 3 x 4 is 100 i + 10 j + k
    let element = |i: usize, j: usize, k: usize| 100 * i + 10 * j + k;
    let stored: Vec<usize> = (0..24).map(|at| element(at % 2, at / 2 % 3, at / 6)).collect();
    let expected: Vec<usize> = (0..24).map(|at| element(at / 12, at / 4 % 3, at % 4)).collect();
    assert_eq!(c_order(&[2, 3, 4], &stored), expected);
    assert_eq!((c_order(&[3], &[5, 6, 7]), c_order(&[], &[5])), (vec![5, 6, 7], vec![5]));
    assert!(c_order::<f64>(&[0, 3], &[]).is_empty());
}

#[test]
fn rotation_matrices_tell_what_flames_rotations_are() {
    use geometry::pose::{euler_xyz, rodrigues};
    use glam::{DMat3, DVec3};
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("tracking/flame2023_tracking_v2.npz");
    let read = |rotations: [[f64; 3]; 2], matrices: Option<[DMat3; 2]>, translation: [f64; 3]| {
        let mut arrays = vec![
            ("shape", npy("<f8", "(1, 1)", &f64s(&[0.0]))),
            ("expression", npy("<f8", "(2, 1)", &f64s(&[0.0; 2]))),
            ("rotation", npy("<f8", "(2, 3)", &f64s(rotations.as_flattened()))),
            ("translation", npy("<f8", "(2, 3)", &f64s(&[[0.0; 3], translation].concat()))),
            ("jaw", npy("<f8", "(2, 3)", &f64s(&[0.0; 6]))),
            ("scale", npy("<f8", "(1, 1)", &f64s(&[1.0]))),
        ];
        let rows = matrices.map(|both| both.map(|m| m.transpose().to_cols_array()));
        arrays.extend(rows.map(|rows| ("rotation_matrices", npy("<f8", "(2, 3, 3)", &f64s(rows.as_flattened())))));
        npz(&path, &arrays);
        read_flame(root.path()).map(|frames| frames.into_iter().map(|frame| frame.rotation).collect::<Vec<_>>())
    };
    let turns = [[0.3, -0.5, 0.2], [-0.1, 0.9, 0.4]];
    let of = |turn: fn(DVec3) -> DMat3| turns.map(|r| turn(DVec3::from(r)));
    assert_eq!(
        read(turns, None, [0.0; 3]).unwrap(),
        turns,
        "without matrices they are what DiffusionAvatars takes them for"
    );
    assert_eq!(read(turns, Some(of(euler_xyz)), [0.0; 3]).unwrap(), turns);
    // Rodrigues vectors: the same rotations come out
    let found = read(turns, Some(of(rodrigues)), [0.0; 3]).unwrap();
    for (angles, matrix) in found.iter().zip(of(rodrigues)) {
        assert!(
            (euler_xyz(DVec3::from(*angles)) - matrix).to_cols_array().iter().all(|x| x.abs() < 1e-12),
            "{found:?}"
        );
    }
    let error = read(turns, Some(of(|r| euler_xyz(r).transpose())), [0.0; 3]).unwrap_err().to_string();
    assert!(error.contains("field `rotation_matrices`: found matrices that are off by"), "{error}");
    let error = read(turns, None, [12.0, -30.0, 840.0]).unwrap_err().to_string();
    assert!(error.contains("field `translation`: found a head 840.621 m from the origin in row 1"), "{error}");
    assert!(error.contains("are these numbers metres?"), "{error}");
}

#[test]
fn flame_tracking_of_both_releases_and_its_errors() {
    let root = tempfile::tempdir().unwrap();
    assert!(read_flame(root.path()).unwrap().is_empty());
    let path = root.path().join("tracking/flame2023_tracking_v2.npz");
    let ramp = |n: usize| f32s(&(0..n).map(|i| i as f32).collect::<Vec<_>>());
    let mut arrays = vec![
        ("shape", npy("<f4", "(1, 300)", &ramp(300))),
        ("expression", npy("<f4", "(2, 100)", &ramp(200))),
        ("rotation", npy("<f4", "(2, 3)", &ramp(6))),
        ("translation", npy("<f4", "(2, 3)", &f32s(&[0.0, 0.1, 0.2, 0.3, 0.4, 0.5]))),
        ("jaw", npy("<f4", "(2, 3)", &ramp(6))),
        ("scale", npy("<f4", "(1, 1)", &f32s(&[1.5]))),
        ("eyes", npy("<f4", "(2, 6)", &ramp(12))),
        ("frames", npy("<i8", "(2,)", &[4i64.to_le_bytes(), 7i64.to_le_bytes()].concat())),
    ];
    npz(&path, &arrays);
    let frames = read_flame(root.path()).unwrap();
    assert_eq!(frames.iter().map(|f| f.timestep).collect::<Vec<_>>(), [4, 7]);
    assert_eq!((frames[1].rotation, frames[1].scale), ([3.0, 4.0, 5.0], 1.5));
    assert_eq!((frames[1].expression[0], frames[1].eyes.unwrap()[0], frames[0].neck), (100.0, 6.0, None));
    // what is written is what was read
    let copy = root.path().join("copy/tracking/flame2023_tracking_v2.npz");
    put(&copy, b".");
    write_flame(&copy, &frames).unwrap();
    assert_eq!(read_flame(&root.path().join("copy")).unwrap(), frames);
    // what an array may not be: row, its place in the list, what is found
    let numbers = |values: [f64; 2]| npy("<f8", "(2,)", &f64s(&values));
    for (at, name, array, expected) in [
        (7, "frames", numbers([-1.0, 4.0]), "found -1 in row 0"),
        (7, "frames", numbers([4.0, 4.5]), "found 4.5 in row 1"),
        (7, "frames", numbers([4.0, 4.0]), "found frame 4 in rows 0 and 1, expected each frame once"),
        (7, "frames", numbers([0.0, 5e9]), "found 5000000000 in row 1"),
        (0, "shape", npy("<f4", "(2, 300)", &ramp(600)), "found shape [2, 300], expected one row"),
        (5, "scale", npy("<f4", "(1, 3)", &f32s(&[1.5, 1.5, 1.6])), "found [1.5, 1.5, 1.600"),
        (5, "scale", npy("<f4", "(2, 1)", &f32s(&[1.5, 1.5])), "found shape [2, 1]"),
        (
            2,
            "rotation",
            npy("<f4", "(2, 3)", &f32s(&[0.0, 45.0, 0.0, 0.0, 0.0, 0.0])),
            "found an angle of 45, expected radians",
        ),
        (5, "scale", npy("<f4", "(1, 1)", &f32s(&[1000.0])), "found [1000.0], expected a scale from 0.05"),
        (5, "scale", npy("<f4", "(1, 1)", &f32s(&[0.0])), "found [0.0], expected a scale from 0.05"),
    ] {
        let sound = std::mem::replace(&mut arrays[at], (name, array));
        npz(&path, &arrays);
        let error = read_flame(root.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("field `{name}`: {expected}")), "{error}");
        arrays[at] = sound;
    }
    // DiffusionAvatars stores the scale of each axis
    arrays[5] = ("scale", npy("<f4", "(1, 3)", &f32s(&[1.1; 3])));
    npz(&path, &arrays);
    assert_eq!(read_flame(root.path()).unwrap()[0].scale, f64::from(1.1f32));
    arrays[4] = ("jaw", npy("<f4", "(1, 3)", &ramp(3)));
    npz(&path, &arrays);
    let error = read_flame(root.path()).unwrap_err().to_string();
    assert!(error.contains("field `jaw`: found shape [1, 3] beside 2 rotations"), "{error}");
    arrays.remove(4);
    npz(&path, &arrays);
    let error = read_flame(root.path()).unwrap_err().to_string();
    assert!(error.contains("field `jaw`: found no array of this name"), "{error}");
    let bytes = fs::read(&path).unwrap();
    for keep in 0..bytes.len().min(400) {
        fs::write(&path, &bytes[..keep]).unwrap();
        assert!(read_flame(root.path()).is_err());
    }
}

#[test]
fn rows_without_numbers_are_of_the_folders_of_frames_in_their_order() {
    let root = tempfile::tempdir().unwrap();
    let sequence = root.path().join("018/sequences/FREE");
    let path = sequence.join("annotations/tracking/FLAME2023_v2/tracked_flame_params.npz");
    let rows = |name, width: usize| (name, npy("<f4", &format!("(4, {width})"), &f32s(&vec![0.5; 4 * width])));
    let single = |name, width: usize| (name, npy("<f4", &format!("(1, {width})"), &f32s(&vec![1.0; width])));
    let mut arrays = vec![rows("rotation", 3), rows("translation", 3), rows("jaw", 3), rows("expression", 100)];
    arrays.extend([rows("eyes", 6), single("shape", 300), single("scale", 3)]);
    npz(&path, &arrays);
    let timesteps = || read_flame(&sequence).map(|frames| frames.iter().map(|f| f.timestep).collect::<Vec<_>>());
    let refused = |frames: &str| {
        let error = timesteps().unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("`frames`: found nothing, and 4 rows beside {frames} folders")), "{text}");
        assert!(error.hint().contains("copy all frames"), "{}", error.hint());
    };
    refused("0");
    for t in [9, 0, 3] {
        put(&sequence.join(format!("timesteps/frame_{t:05}/images-2x/cam_222200037.jpg")), b".");
    }
    // a folder without pictures is no frame, as in the reference's reader
    put(&sequence.join("timesteps/frame_00012/alpha_map/cam_222200037.png"), b".");
    refused("3");
    put(&sequence.join("timesteps/frame_00006/images-2x/cam_222200037.jpg"), b".");
    assert_eq!(timesteps().unwrap(), [0, 3, 6, 9]);
    // of a video the row is the frame
    let video = root.path().join("018/sequences/EXP-1-head");
    npz(&video.join("tracking/flame2023_tracking.npz"), &arrays);
    assert_eq!(read_flame(&video).unwrap().iter().map(|f| f.timestep).collect::<Vec<_>>(), [0, 1, 2, 3]);
    // what is written has the reference's keys and shapes
    let frames = read_flame(&sequence).unwrap();
    write_flame(&path, &frames).unwrap();
    let shape = |name: &str| super::numpy::read_npz(&path, name).unwrap().map(|array| array.shape);
    assert_eq!((shape("scale"), shape("shape")), (Some(vec![1, 3]), Some(vec![1, 300])));
    assert_eq!((shape("rotation"), shape("eyes"), shape("neck")), (Some(vec![4, 3]), Some(vec![4, 6]), None));
    assert_eq!(read_flame(&sequence).unwrap(), frames);
}
