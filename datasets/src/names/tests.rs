//! Captures as people lay them out, certain, guessed and odd.

use super::*;

/// A picture whose camera stands at this place.
fn view(file: &str, x: f64) -> View {
    crate::views::tests::view(file, [x, 0.0, 1.0])
}

/// Cameras that all move: no two pictures have one pose.
fn named(files: &[&str]) -> (Vec<(String, Option<i64>)>, Option<String>) {
    standing(&files.iter().enumerate().map(|(x, file)| (*file, x as f64)).collect::<Vec<_>>())
}

fn standing(files: &[(&str, f64)]) -> (Vec<(String, Option<i64>)>, Option<String>) {
    let mut views: Vec<View> = files.iter().map(|(file, x)| view(file, *x)).collect();
    let told = name_views(Path::new("root"), &mut views).unwrap();
    let guess = (!told.is_empty()).then(|| told.join("; "));
    (views.into_iter().map(|view| (view.camera, view.timestep)).collect(), guess)
}

fn pairs(list: &[(&str, i64)]) -> Vec<(String, Option<i64>)> {
    list.iter().map(|(camera, timestep)| ((*camera).to_owned(), Some(*timestep))).collect()
}

#[test]
fn paths_tell_camera_and_time() {
    let rig = ["images/cam_b/frame_00003.png", "images/cam_a/frame_00010.jpg", "images/cam_a/frame_00003.png"];
    assert_eq!(named(&rig), (pairs(&[("a", 3), ("a", 10), ("b", 3)]), None));
    let videos = ["videos/cam_12.mp4", "videos/cam_11.mp4"];
    assert_eq!(named(&videos), (vec![("11".into(), None), ("12".into(), None)], None));
    let told = |files: &[&str], expected: &[(&str, i64)], word: &str| {
        let (found, guess) = named(files);
        assert_eq!(found, pairs(expected), "{files:?}");
        assert!(guess.as_ref().is_some_and(|guess| guess.contains(word)), "{files:?}: {guess:?}");
    };
    told(&["left/0002.png", "right/0001.png"], &[("left", 2), ("right", 1)], "folders are taken for cameras");
    told(
        &["l/IMG_7.png", "r/IMG_7.png", "l/IMG_10.png"],
        &[("l", 7), ("l", 10), ("r", 7)],
        "l/IMG_7.png is camera `l`, timestep 7",
    );
    told(&["l/a.png", "r/a.png", "l/b.png"], &[("l", 0), ("l", 1), ("r", 0)], "folders are taken for cameras");
    told(
        &["images/cam00_0001.png", "images/cam00_0002.png", "images/cam01_0001.png"],
        &[("cam00", 1), ("cam00", 2), ("cam01", 1)],
        "names of files",
    );
    told(&["cam_a-frame_3.png", "cam_b-frame_3.png"], &[("a", 3), ("b", 3)], "names of files");
    // one moving camera
    told(&["train/r_1.png", "train/r_0.png"], &[("0", 0), ("0", 1)], "one moving camera");
    told(&["images/0007.png", "images/0009.png"], &[("0", 0), ("0", 1)], "one moving camera");
    told(&["left/0002.png", "odd.png"], &[("0", 0), ("0", 1)], "one moving camera");
    told(&["images/cam00_1.png", "images/cam00_2.png"], &[("0", 0), ("0", 1)], "one moving camera");
}

#[test]
fn a_camera_that_stands_still_has_one_pose() {
    let files = ["0000/00.png", "0000/01.png", "0001/00.png", "0001/01.png"];
    let at = |x: [f64; 4]| standing(&files.into_iter().zip(x).collect::<Vec<_>>());
    let (found, guess) = at([1.0, 2.0, 1.0, 2.0]);
    assert_eq!(found, pairs(&[("00", 0), ("00", 1), ("01", 0), ("01", 1)]));
    assert!(guess.unwrap().contains("files are taken for cameras"));
    assert_eq!(at([1.0, 1.0, 2.0, 2.0]).0, pairs(&[("0000", 0), ("0000", 1), ("0001", 0), ("0001", 1)]));
    // poses do not tell, and the names do
    let moving = named(&["frame_3/cam1.png", "frame_3/cam2.png", "frame_4/cam1.png"]);
    assert_eq!(moving.0, pairs(&[("cam1", 3), ("cam1", 4), ("cam2", 3)]));
}

#[test]
fn a_camera_that_was_calibrated_again_and_again_stands_nearly_still() {
    let files = ["0001/00.png", "0001/01.png", "0002/00.png", "0002/01.png"];
    let at = |apart: f64| {
        let places = [1.0, 2.0, 1.0 + apart, 2.0 - apart];
        standing(&files.into_iter().zip(places).collect::<Vec<_>>()).0
    };
    assert_eq!(at(1e-4), pairs(&[("00", 1), ("00", 2), ("01", 1), ("01", 2)]));
    assert_eq!(at(1.0)[0], ("0001".to_owned(), Some(0)), "such poses tell nothing");
}

#[test]
fn a_camera_that_moves_is_told_by_its_lens() {
    let read = |files: [&str; 4], lenses: [u32; 4]| {
        let place = |i: usize| View { lens: Some(lenses[i]), ..view(files[i], i as f64) };
        let mut views: Vec<View> = (0..4).map(place).collect();
        name_views(Path::new("root"), &mut views).unwrap();
        views.into_iter().map(|view| (view.camera, view.timestep)).collect::<Vec<_>>()
    };
    let folders = ["0001/00.png", "0001/01.png", "0002/00.png", "0002/01.png"];
    assert_eq!(read(folders, [7, 8, 7, 8]), pairs(&[("00", 1), ("00", 2), ("01", 1), ("01", 2)]));
    assert_eq!(read(folders, [7, 7, 8, 8])[0], ("0001".to_owned(), Some(0)));
    // a lens of its own for each picture, as COLMAP gives them unless it is told, says nothing
    assert_eq!(read(folders, [5, 6, 7, 8])[0], ("0001".to_owned(), Some(0)));
    let flat = ["images/l_1.png", "images/r_1.png", "images/l_2.png", "images/r_2.png"];
    assert_eq!(read(flat, [7, 8, 7, 8]), pairs(&[("l", 1), ("l", 2), ("r", 1), ("r", 2)]));
}

#[test]
fn rigs_lie_in_many_ways() {
    let check = |path: &dyn Fn(usize, usize) -> String, cameras: [&str; 2]| {
        let all: Vec<(String, f64)> = (0..6).map(|i| (path(i % 2, i / 2 + 1), (i % 2) as f64)).collect();
        let all: Vec<(&str, f64)> = all.iter().map(|(path, x)| (path.as_str(), *x)).collect();
        let (found, guess) = standing(&all);
        let expected: Vec<_> = cameras.iter().flat_map(|camera| [1, 2, 3].map(|t| (*camera, t))).collect();
        assert_eq!(found, pairs(&expected), "{}", all[0].0);
        assert!(guess.unwrap().contains(" is camera `"), "{}", all[0].0);
    };
    check(&|c, t| format!("cam{c}/images/{t:05}.png"), ["cam0", "cam1"]);
    check(&|c, t| format!("cam{c}/rgb/frame_{t:05}.png"), ["cam0", "cam1"]);
    check(&|c, t| format!("images/{}_{t:05}.png", ["left", "right"][c]), ["left", "right"]);
    check(&|c, t| format!("images/{t:05}_cam{c}.png"), ["cam0", "cam1"]);
    check(&|c, t| format!("images/frame_{t:05}_{}.png", ["l", "r"][c]), ["l", "r"]);
    // two takes of one camera that moves
    let takes = ["images/a_1.png", "images/a_2.png", "images/b_1.png", "images/b_2.png"];
    assert!(named(&takes).1.unwrap().contains("one moving camera"));
}

#[test]
fn known_cameras_share_moments() {
    // camera b lacks its second picture
    let rig = |path: &dyn Fn(&str, usize) -> String| {
        let taken = ["a", "b", "c"].iter().flat_map(|camera| [0, 1, 2].map(|t| (*camera, t)));
        let taken = taken.filter(|taken| *taken != ("b", 1));
        let name = |(camera, t)| View { camera: format!("{camera}!"), ..view(&path(camera, t), 0.0) };
        let mut views: Vec<View> = taken.map(name).collect();
        let told = name_views(Path::new("root"), &mut views).unwrap();
        let of_b = views.into_iter().filter(|view| view.camera == "b!").map(|view| view.timestep.unwrap());
        (of_b.collect::<Vec<_>>(), told)
    };
    let check = |path: &dyn Fn(&str, usize) -> String| {
        let (found, told) = rig(path);
        assert_eq!(found, [0, 2], "{}", path("b", 2));
        assert!(told.len() == 1 && told[0].contains("is camera `a!`, timestep 0"), "{told:?}");
    };
    check(&|camera, t| format!("images/cam{camera}_{t:05}.png"));
    check(&|camera, t| format!("images/frame_{t:05}_{camera}.png"));
    check(&|camera, t| format!("{t:05}/cam{camera}.png"));
    check(&|camera, t| format!("{t:05}/{:02}.png", camera.as_bytes()[0]));
    check(&|camera, t| format!("{camera}/images/{t}.png"));
    let (found, told) = rig(&|camera, t| format!("images/{}.png", 3 * usize::from(camera.as_bytes()[0]) + t));
    assert!(found == [0, 1] && told[0].contains("are counted for each camera"), "{told:?}");
}

#[test]
fn cameras_that_share_no_moment_are_told() {
    let told = |files: &[&str]| named(files).1.unwrap();
    let apart = "no two of 2 cameras have a picture of the same moment";
    assert!(told(&["left/0002.png", "right/0001.png"]).contains(apart));
    assert!(!told(&["left/0002.png", "right/0002.png", "right/0003.png"]).contains(apart));
    assert!(!told(&["train/r_1.png", "train/r_0.png"]).contains(apart));
}

#[test]
fn numbers_are_sorted_by_value() {
    let files = ["f10.png", "f2.png", "f1.png", "f01.png"];
    let mut views: Vec<View> = files.map(|file| view(file, 0.0)).to_vec();
    name_views(Path::new("root"), &mut views).unwrap();
    let order: Vec<&str> = views.iter().map(|view| view.file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(order, ["f01.png", "f1.png", "f2.png", "f10.png"]);
}

#[test]
fn pictures_that_do_not_tell_are_what_one_says_they_are() {
    let named = |files: &[&str], say: fn(&mut [View])| {
        let mut views: Vec<View> = files.iter().map(|file| view(file, 0.0)).collect();
        say(&mut views);
        let guess = name_views(Path::new("root"), &mut views).map_err(|error| error.to_string())?;
        assert!(guess.is_empty(), "{guess:?}");
        Ok::<_, String>(views.into_iter().map(|view| (view.camera, view.timestep)).collect::<Vec<_>>())
    };
    let flat = ["images/cam01.png", "images/cam_02.png"];
    assert_eq!(named(&flat, name_cameras).unwrap(), pairs(&[("02", 0), ("cam01", 0)]));
    assert_eq!(named(&flat, name_moments).unwrap(), pairs(&[("0", 0), ("0", 1)]));
    let error = named(&["a/1.png", "b/1.png"], name_cameras).unwrap_err();
    assert!(error.contains("camera `1` is there twice at timestep 0"), "{error}");
    assert_eq!(named(&["a/1.png", "b/2.png"], name_moments).unwrap(), pairs(&[("0", 1), ("0", 2)]));
    let error = named(&["a/1.png", "a/1.png"], name_moments).unwrap_err();
    assert_eq!(error, "root/a/1.png is there twice in the calibration");
}

#[test]
fn fields_go_before_paths_and_nothing_is_there_twice() {
    let labelled = |files: [&str; 2], cameras: [&str; 2]| {
        let mut views = files.map(|file| view(file, 0.0));
        views.iter_mut().zip(cameras).for_each(|(view, camera)| view.camera = camera.into());
        name_views(Path::new("root"), &mut views).map(|_| views.map(|view| (view.camera, view.timestep)))
    };
    // labels without any time: each camera has its first picture, whatever number cameras have in their files
    let numbered = labelled(["left/0002.png", "left/0004.png"], ["A", "B"]).unwrap();
    assert_eq!(numbered.to_vec(), pairs(&[("A", 0), ("B", 0)]));
    assert_eq!(labelled(["x.png", "y.png"], ["A", "B"]).unwrap().to_vec(), pairs(&[("A", 0), ("B", 0)]));
    let error = labelled(["a/0001.png", "b/0001.png"], ["A", "A"]).unwrap_err();
    let expected = "camera `A` is there twice at timestep 1: root/a/0001.png and root/b/0001.png";
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().contains("cam_{name}/frame_{number}.png"));
}
