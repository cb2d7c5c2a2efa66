//! Models as COLMAP writes them, whole, cut and wrong.

use super::*;
use glam::DVec2;
use rand::{Rng, RngCore, SeedableRng};

/// Two cameras, three pictures: straight at (0, 0, -1), from the side, and one whose name has a blank.
const CAMERAS: &str = "# Camera list\n1 PINHOLE 200 100 100 110 100 50\n2 OPENCV 64 48 50 51 32 24 0.1 0.2 0.3 0.4\n";
const IMAGES: &str = "# Image list\n# two lines each\n\
    1 1 0 0 0 0 0 1 1 cam_a/frame_00001.png\n1.5 2.5 -1 3.5 4.5 17\n\
    2 0.7071067811865476 0 0.7071067811865476 0 0.25 0 1 2 cam_b/frame_00001.png\n\n\
    3 1 0 0 0 0 0 2 1 cam_a/a name.png\n";

fn cameras_bin() -> Vec<u8> {
    let mut bytes = 2u64.to_le_bytes().to_vec();
    for (id, model, size, params) in [
        (1u32, 1u32, [200u64, 100], &[100.0, 110.0, 100.0, 50.0][..]),
        (2, 4, [64, 48], &[50.0, 51.0, 32.0, 24.0, 0.1, 0.2, 0.3, 0.4]),
    ] {
        bytes.extend(id.to_le_bytes().into_iter().chain(model.to_le_bytes()));
        bytes.extend(size.iter().flat_map(|side| side.to_le_bytes()));
        bytes.extend(params.iter().flat_map(|x: &f64| x.to_le_bytes()));
    }
    bytes
}

fn images_bin() -> Vec<u8> {
    let mut bytes = 3u64.to_le_bytes().to_vec();
    let half = std::f64::consts::FRAC_1_SQRT_2;
    for (id, pose, camera, name, points) in [
        (1u32, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 1u32, "cam_a/frame_00001.png", 2u64),
        (2, [half, 0.0, half, 0.0, 0.25, 0.0, 1.0], 2, "cam_b/frame_00001.png", 0),
        (3, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0], 1, "cam_a/a name.png", 1),
    ] {
        bytes.extend(id.to_le_bytes());
        bytes.extend(pose.iter().flat_map(|x: &f64| x.to_le_bytes()));
        bytes.extend(camera.to_le_bytes());
        bytes.extend(name.bytes().chain([0]));
        bytes.extend(points.to_le_bytes());
        bytes.extend((0..points).flat_map(|_| [7u8; 24]));
    }
    bytes
}

fn text_model(cameras: &str, images: &str) -> (tempfile::TempDir, Result<Vec<View>, Fault>) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sparse/0");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("cameras.txt"), cameras).unwrap();
    fs::write(folder.join("images.txt"), images).unwrap();
    assert_eq!(find(root.path()), Some(folder.clone()));
    let views = read(root.path(), &folder);
    (root, views)
}

#[test]
fn text_and_binary_agree_and_points_fall_where_they_should() {
    let (root, views) = text_model(CAMERAS, IMAGES);
    let views = views.unwrap();
    assert_eq!(views.len(), 3);
    let folder = root.path().join("sparse/0");
    fs::write(folder.join("cameras.bin"), cameras_bin()).unwrap();
    fs::write(folder.join("images.bin"), images_bin()).unwrap();
    fs::write(folder.join("images.txt"), "damaged, and not looked at").unwrap();
    assert_eq!(read(root.path(), &folder).unwrap(), views);
    // straight: (0.1, 0.2, 0) is 1 before it, and y is down
    let seen = |view: &View, at: [f64; 3]| view.pinhole().project(DVec3::from_array(at));
    let (px, z) = seen(&views[0], [0.1, 0.2, 0.0]);
    assert!((px - DVec2::new(110.0, 72.0)).length() < 1e-9 && (z - 1.0).abs() < 1e-12, "{px}");
    // a quarter turn about y takes +z to +x and +x to -z: (0.5, 0, 0) gets x = 0.25, z = 1 - 0.5
    let (px, z) = seen(&views[1], [0.5, 0.0, 0.0]);
    assert!((px - DVec2::new(57.0, 24.0)).length() < 1e-9 && (z - 0.5).abs() < 1e-12, "{px}");
    assert_eq!(views[1].distortion, Some(Distortion::Rational([0.1, 0.2, 0.3, 0.4, 0.0, 0.0, 0.0, 0.0])));
    assert_eq!(views[2].file, root.path().join("cam_a/a name.png"), "without a folder `images`");
}

#[test]
fn pictures_and_masks_lie_beside_the_model() {
    let (root, _) = text_model(CAMERAS, IMAGES);
    for file in ["images/x", "masks/cam_a/frame_00001.png.png", "masks/cam_b/frame_00001.png"] {
        let file = root.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, b"").unwrap();
    }
    let views = read(root.path(), &root.path().join("sparse/0")).unwrap();
    assert_eq!(views[0].file, root.path().join("images/cam_a/frame_00001.png"));
    let masks: Vec<_> = views.iter().map(|view| view.mask.clone()).collect();
    let mask = |name| Some(root.path().join("masks").join(name));
    assert_eq!(masks, [mask("cam_a/frame_00001.png.png"), mask("cam_b/frame_00001.png"), None]);
}

#[test]
fn what_a_model_leaves_out_is_told() {
    let (root, views) = text_model(CAMERAS, IMAGES);
    let views = views.unwrap();
    let (root, folder) = (root.path(), root.path().join("sparse/0"));
    assert!(left_out(root, &folder, &views).unwrap().is_empty());
    fs::create_dir_all(root.join("images/cam_a")).unwrap();
    for name in ["frame_00001.png", "a name.png", "notes.txt"] {
        fs::write(root.join("images/cam_a").join(name), b"").unwrap();
    }
    // paths of pictures begin with `images` now that there is such a folder
    let views = read(root, &folder).unwrap();
    assert!(left_out(root, &folder, &views).unwrap().is_empty());
    fs::write(root.join("images/cam_a/frame_00002.JPG"), b"").unwrap();
    for (model, file) in [("1", "cameras.bin"), ("1", "images.bin"), ("2", "cameras.bin"), ("old", "cameras.bin")] {
        fs::create_dir_all(root.join("sparse").join(model)).unwrap();
        fs::write(root.join("sparse").join(model).join(file), b"").unwrap();
    }
    let told = left_out(root, &folder, &views).unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("sparse/0 is read") && told[0].ends_with("sparse/1"), "{}", told[0]);
    let mask = root.join("masks/cam_a/frame_00001_mask.png");
    fs::create_dir_all(mask.parent().unwrap()).unwrap();
    fs::write(&mask, b"").unwrap();
    let of_masks = left_out(root, &folder, &views).unwrap().pop().unwrap();
    assert!(
        of_masks.starts_with("none of 1 files in") && of_masks.contains("would be frame_00001.png.png"),
        "{of_masks}"
    );
    assert!(told[1].starts_with("1 of 3 pictures") && told[1].ends_with("cam_a/frame_00002.JPG"), "{}", told[1]);
}

#[test]
fn cameras_that_took_no_picture_may_be_of_any_model() {
    for model in ["77 EUCM 640 480 500 500 320 240 0.9 1\n", "78 ODD 1 1 2\n"] {
        assert_eq!(text_model(&[CAMERAS, model].concat(), IMAGES).1.unwrap().len(), 3, "{model}");
    }
    let error = text_model("1 EUCM 2 2 1 1 1 1 1 1\n", IMAGES).1.unwrap_err().to_string();
    assert!(error.contains("line 1: found the camera model EUCM"), "{error}");
    // of COLMAP's binary models the length is known
    let mut bytes = cameras_bin();
    bytes[..8].copy_from_slice(&3u64.to_le_bytes());
    bytes.extend([77u32, 13].into_iter().flat_map(u32::to_le_bytes));
    bytes.extend([640u64, 480].into_iter().flat_map(u64::to_le_bytes));
    bytes.extend([500.0f64, 500.0, 320.0, 240.0, 0.9].into_iter().flat_map(f64::to_le_bytes));
    let lenses = parse_cameras(Path::new("x.bin"), &bytes).unwrap();
    assert!(lenses[&1].is_ok() && lenses[&2].is_ok() && lenses[&77].is_err());
    let mut bytes = 1u64.to_le_bytes().to_vec();
    bytes.extend([1u32, 17].into_iter().flat_map(u32::to_le_bytes));
    bytes.extend([640u64, 320].into_iter().flat_map(u64::to_le_bytes));
    bytes.extend([640.0f64, 320.0].into_iter().flat_map(f64::to_le_bytes));
    let error = parse_cameras(Path::new("x.bin"), &bytes).unwrap().remove(&1).unwrap().unwrap_err().to_string();
    assert!(error.contains("x.bin, byte 8: found the camera model EQUIRECTANGULAR, expected one of"), "{error}");
    // COLMAP has changed how many parameters its newest models have
    let lenses = text_model(&[CAMERAS, "77 EQUIRECTANGULAR 640 320 640 320 0\n"].concat(), IMAGES).1;
    assert_eq!(lenses.unwrap().len(), 3);
}

#[test]
fn points_at_whole_pixels_are_no_picture() {
    let points = "100 200 5 101 0 6 1 0 7 2 3 8";
    let images = format!("1 1 0 0 0 0 0 1 1 cam_a/1.png\n{points}\n2 1 0 0 0 0 0 1 1 cam_a/2.png\n\n");
    let folder = text_model(CAMERAS, &images).0;
    let found = read_images_txt(&folder.path().join("sparse/0/images.txt")).unwrap();
    assert_eq!(found.len(), 2);
}

#[test]
fn models_have_their_parameters_in_order() {
    let rational = |k: [f64; 8]| Some(Distortion::Rational(k));
    assert_eq!(lens("SIMPLE_PINHOLE", &[5.0, 1.0, 2.0]).unwrap().0, [5.0, 0.0, 1.0, 0.0, 5.0, 2.0, 0.0, 0.0, 1.0]);
    let bent = |model: &str, params: &[f64]| lens(model, params).unwrap().1;
    assert_eq!(bent("SIMPLE_RADIAL", &[5.0, 1.0, 2.0, 0.1]), rational([0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
    assert_eq!(bent("RADIAL", &[5.0, 1.0, 2.0, 0.1, 0.2]), rational([0.1, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
    let twelve = [5.0, 6.0, 1.0, 2.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];
    assert_eq!(bent("FULL_OPENCV", &twelve), rational([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]));
    assert_eq!(bent("OPENCV_FISHEYE", &twelve[..8]), Some(Distortion::Fisheye([0.1, 0.2, 0.3, 0.4])));
    assert_eq!(bent("OPENCV", &[5.0, 6.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0]), None);
    let prism = Some(Distortion::ThinPrism([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]));
    assert_eq!(bent("THIN_PRISM_FISHEYE", &twelve), prism);
    assert_eq!((bent("FOV", &[1.0, 1.0, 1.0, 1.0, 0.0]), lens("FOV", &[1.0; 4])), (None, None));
    assert_eq!(lens("DIVISION", &[1.0; 5]), None);
}

/// Where (0.6, -0.3, 1) before the camera is seen, px, computed from the published formulas outside of this project.
/// With x = 0.6, y = -0.3, r2 = x x + y y of pinholes; x, y, r2 = those times atan(r) / r of fisheye lenses:
///
/// ```text
/// OPENCV and those before  u = x q + 2 p1 x y + p2 (r2 + 2 x x),  v = y q + p1 (r2 + 2 y y) + 2 p2 x y,
///                          q = (1 + k1 r2 + k2 r2^2 + k3 r2^3) / (1 + k4 r2 + k5 r2^2 + k6 r2^3)
/// FOV                      u = x d / r, v = y d / r, d = atan(2 r tan(omega / 2)) / omega
/// fisheye                  as OPENCV with q = 1 + k1 r2 + k2 r2^2 + k3 r2^3 + k4 r2^4, and u + sx1 r2, v + sy1 r2
/// ```
#[test]
fn each_model_shows_a_point_where_its_formula_does() {
    let seen: [(&str, [f64; 2]); 13] = [
        ("SIMPLE_PINHOLE 500 320 240", [620.000000000, 90.000000000]),
        ("PINHOLE 500 510 320 240", [620.000000000, 87.000000000]),
        ("SIMPLE_RADIAL 500 320 240 -0.1", [606.500000000, 96.750000000]),
        ("RADIAL 500 320 240 -0.1 0.02", [607.715000000, 96.142500000]),
        ("OPENCV 500 510 320 240 -0.1 0.02 0.003 -0.004", [604.835000000, 94.963650000]),
        ("FULL_OPENCV 500 510 320 240 -0.1 0.02 0.003 -0.004 0.05 0.06 -0.07 0.08", [600.501653049, 97.173656945]),
        ("OPENCV_FISHEYE 500 510 320 240 -0.1 0.02 0.03 -0.04", [575.845186805, 109.518954729]),
        ("FOV 500 510 320 240 0.9", [605.734103713, 94.275607106]),
        ("SIMPLE_RADIAL_FISHEYE 500 320 240 -0.1", [575.020679022, 112.489660489]),
        ("RADIAL_FISHEYE 500 320 240 -0.1 0.02", [575.664870243, 112.167564879]),
        (
            "THIN_PRISM_FISHEYE 500 510 320 240 -0.1 0.02 0.003 -0.004 0.03 -0.04 0.005 -0.006",
            [574.483577439, 109.768233983],
        ),
        ("SIMPLE_FISHEYE 500 320 240", [584.246327075, 107.876836462]),
        ("FISHEYE 500 510 320 240", [584.246327075, 105.234373192]),
    ];
    for (camera, expected) in seen {
        let (model, params) = camera.split_once(' ').unwrap();
        let images = "1 1 0 0 0 0 0 1 1 a.png\n\n";
        let view = text_model(&format!("1 {model} 640 480 {params}\n"), images).1.unwrap().remove(0);
        let to_pixel = |p: DVec2| (view.pinhole().intrinsics * p.extend(1.0)).truncate();
        let p = DVec2::new(0.6, -0.3);
        let found = to_pixel(view.distortion.map_or(p, |lens| lens.distort(p)));
        assert!((found - DVec2::from_array(expected)).length() < 1e-6, "{camera}: {found}, not {expected:?}");
        // what takes it out looks in the same place: the pixel that a pinhole shows the point in
        if let Some(lens) = view.distortion {
            let mut moved = view.pinhole();
            let px = to_pixel(p).floor() + 0.5;
            moved.intrinsics.z_axis += (px - to_pixel(p)).extend(0.0);
            let (x, y) = lens.maps(&moved);
            let pixel = px.y as usize * 640 + px.x as usize;
            let mapped = DVec2::new(f64::from(x[pixel]) + 0.5, f64::from(y[pixel]) + 0.5) - px + to_pixel(p);
            assert!((mapped - found).length() < 1e-3, "{camera}: {mapped} is not {found}");
        }
        // binary files tell the model, and not how many parameters it has
        let number = MODELS.iter().position(|(name, _)| *name == model).unwrap();
        assert_eq!(MODELS[number].1, params.split(' ').count(), "{model}");
    }
}

#[test]
fn errors_say_where_and_what() {
    let check = |cameras: &str, images: &str, expected: &str| {
        let error = text_model(cameras, images).1.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.hint().is_empty());
    };
    let unknown = "cameras.txt, line 1: found the camera model EUCM, expected one of SIMPLE_PINHOLE,";
    check("1 EUCM 2 2 1 1 1 1 1 1\n", IMAGES, unknown);
    check("1 FOV 2 2 1 1 1 1 90\n", IMAGES, "found parameters [1.0, 1.0, 1.0, 1.0, 90.0], expected an omega of less");
    check("1 PINHOLE 2 2 1 1 1\n", IMAGES, "line 1: found 3 parameters, expected 4 for PINHOLE");
    check("1 PINHOLE 2 0 1 1 1 1\n", IMAGES, "found 2 x 0 px");
    check("1 PINHOLE 2 2 1 nan 1 1\n", IMAGES, "found parameters");
    check("1 PINHOLE\n", IMAGES, "line 1: found `1 PINHOLE`");
    check(&CAMERAS[..CAMERAS.len() / 2], IMAGES, "picture `cam_b/frame_00001.png`: found camera 2");
    check(&[CAMERAS, CAMERAS].concat(), IMAGES, "camera 1: found it twice");
    check(CAMERAS, "", "found no picture");
    check(CAMERAS, "1 1 0 0 0 0 0 1 1\n", "images.txt, line 1: found `1 1 0 0 0 0 0 1 1`");
    // written without a line for points, every second picture would be taken for one
    let pose = "1 0 0 0 0 0 1 1";
    check(
        CAMERAS,
        &format!("1 {pose} a b.png\n2 {pose} c.png\n"),
        "line 2: found the next picture, `2 1 0 0 0 0 0 1 1 c.png`, expected the points of a b.png",
    );
    check(CAMERAS, "1 9 0 0 0 0 0 1 1 a.png\n", "picture `a.png`: found the pose");
    let error = parse_cameras(Path::new("c.bin"), &[&1u64.to_le_bytes()[..], &[9, 0, 0, 0, 99], &[0; 43]].concat());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("c.bin, byte 8: found the camera model number 99"), "{error}");
}

#[test]
fn truncated_and_hostile_files_are_errors() {
    let path = Path::new("x.bin");
    let (cameras, images) = (cameras_bin(), images_bin());
    assert_eq!(parse_cameras(path, &cameras).unwrap().len(), 2);
    for length in 0..cameras.len() {
        assert!(parse_cameras(path, &cameras[..length]).is_err(), "{length}");
    }
    for length in 0..images.len() {
        assert!(parse_images(path, &images[..length]).is_err(), "{length}");
    }
    assert!(parse_images(path, &[&images[..], &[0]].concat()).unwrap_err().to_string().contains("1 bytes more"));
    let hostile = [&u64::MAX.to_le_bytes()[..], &images[8..]].concat();
    let error = parse_images(path, &hostile).unwrap_err().to_string();
    assert!(error.contains("byte 0: found 18446744073709551615 as the number of pictures"), "{error}");
}

#[test]
fn random_bytes_never_panic() {
    let path = Path::new("x.bin");
    let mut draw = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    for _ in 0..20_000 {
        let mut noise = vec![0; draw.random_range(0..300)];
        draw.fill_bytes(&mut noise);
        // a small count, so that records are looked at
        if noise.len() > 8 {
            noise[1..8].fill(0);
        }
        let _ = parse_cameras(path, &noise);
        let _ = parse_images(path, &noise);
        let (mut cameras, mut images) = (cameras_bin(), images_bin());
        for bytes in [&mut cameras, &mut images] {
            for _ in 0..draw.random_range(1..4) {
                let at = draw.random_range(0..bytes.len());
                bytes[at] = draw.random();
            }
        }
        let _ = parse_cameras(path, &cameras);
        let _ = parse_images(path, &images);
    }
}
