//! Which camera took a picture, and when: what the paths of a capture tell where its calibration does not.
//!
//! Knows names, and of poses only whether two are the same; no file is opened.

use crate::views::{View, ViewError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a file is called without its ending; of `cam_{name}` the name.
fn stem(file: &Path) -> String {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem.strip_prefix("cam_").unwrap_or(stem).to_owned()
}

/// Says of pictures without a camera that each is of one of its own, called as the file is, all at one moment.
pub fn name_cameras(views: &mut [View]) {
    for view in views.iter_mut().filter(|view| view.camera.is_empty() && !view.is_video()) {
        view.camera = stem(&view.file);
        view.timestep = view.timestep.or(Some(0));
    }
}

/// Says of pictures without a camera that they are of one, `0`, which may move.
pub fn name_moments(views: &mut [View]) {
    views
        .iter_mut()
        .filter(|view| view.camera.is_empty() && !view.is_video())
        .for_each(|view| view.camera = "0".to_owned());
}

/// Gives a camera and a timestep to views that have none, and sorts: by camera, then by time. Answers what was guessed, if it is not certain.
///
/// `cam_{name}/frame_{n}.png` tells both. Else one of folder and file is the camera and the other one the moment: the folder where files are
/// numbered or called the same in several folders, and the file if poses say so (a camera that stands still has one), or a name that begins
/// with `cam`. In one folder, `cam{name}_{n}.png` tells both. All else is taken for pictures of one moving camera, `0`, whose timesteps are
/// their places in the order of paths, numbers in them by value. A view that knows its camera and not its time gets the number in its
/// path, or else its place among those of its camera.
///
/// # Errors
/// If a picture is there twice, two views have the same camera and timestep, or two videos the same camera.
pub fn name_views(root: &Path, views: &mut [View]) -> Result<Option<String>, ViewError> {
    views.sort_by_cached_key(|view| natural(&view.file));
    check_pictures_differ(views)?;
    let nameless: Vec<usize> = places(views, |view| view.camera.is_empty());
    let pictures: Vec<Picture> = nameless.iter().map(|&at| (below(root, &views[at]), views[at].world_to_cam)).collect();
    let (of_paths, guess) = of_paths(&pictures);
    for (&at, name) in nameless.iter().zip(of_paths) {
        let (camera, timestep) = name.map_or(("0".to_owned(), None), |(camera, timestep)| (camera, Some(timestep)));
        views[at].camera = camera;
        views[at].timestep = views[at].timestep.or(timestep);
    }
    for view in views.iter_mut().filter(|view| view.camera.is_empty()) {
        view.camera = stem(&view.file);
    }
    // what is left has a camera and no time
    let timeless = places(views, |view| view.timestep.is_none());
    let numbers: Option<Vec<i64>> = timeless
        .iter()
        .map(|&at| below(root, &views[at]))
        .map(|path| cam_frame(&path).or_else(|| name_number(&path)).map(|(_, n)| n))
        .collect();
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    for (place, &at) in timeless.iter().enumerate() {
        let count = seen.entry(views[at].camera.clone()).or_default();
        views[at].timestep = Some(numbers.as_ref().map_or(*count, |numbers| numbers[place]));
        *count += 1;
    }
    views.sort_by(|a, b| (&a.camera, a.timestep, &a.file).cmp(&(&b.camera, b.timestep, &b.file)));
    let twice = views.windows(2).find(|two| (&two[0].camera, two[0].timestep) == (&two[1].camera, two[1].timestep));
    let Some(two) = twice else { return Ok(guess) };
    let when = two[0].timestep.map_or("as a video".to_owned(), |timestep| format!("at timestep {timestep}"));
    Err(ViewError::Unfit {
        what: format!(
            "camera `{}` is there twice {when}: {} and {}",
            two[0].camera,
            two[0].file.display(),
            two[1].file.display()
        ),
        hint:
            "give cameras names and pictures numbers: cam_{name}/frame_{number}.png, or camera_label and timestep_index"
                .to_owned(),
    })
}

/// Where the pictures are for which this holds.
fn places(views: &[View], of: impl Fn(&View) -> bool) -> Vec<usize> {
    (0..views.len()).filter(|&at| !views[at].is_video() && of(&views[at])).collect()
}

fn below(root: &Path, view: &View) -> PathBuf {
    view.file.strip_prefix(root).unwrap_or(&view.file).to_owned()
}

/// Views are sorted by file.
fn check_pictures_differ(views: &[View]) -> Result<(), ViewError> {
    let same = |two: &&[View]| two[0].file == two[1].file && !two[0].is_video();
    match views.windows(2).find(same) {
        None => Ok(()),
        Some(two) => Err(ViewError::Unfit {
            what: format!("{} is there twice in the calibration", two[0].file.display()),
            hint: "a picture has one pose; take one of the two out".to_owned(),
        }),
    }
}

/// The path of a picture below the root, and its pose.
type Picture = (PathBuf, [f64; 16]);

/// Camera and timestep of each, and what is to be said of them; none for pictures of one moving camera.
type Named = (Vec<Option<(String, i64)>>, Option<String>);

fn of_paths(pictures: &[Picture]) -> Named {
    let certain: Option<Vec<_>> = pictures.iter().map(|(path, _)| cam_frame(path).map(Some)).collect();
    if let Some(certain) = certain {
        return (certain, None);
    }
    let folders: Option<Vec<[String; 2]>> = pictures.iter().map(|(path, _)| folder_and_file(path)).collect();
    if let Some(axes) = folders.filter(|axes| is_grid(axes)) {
        let files_are_cameras = files_are_cameras(pictures, &axes);
        let (camera, moment) = if files_are_cameras { (1, 0) } else { (0, 1) };
        let times = times(axes.iter().map(|axes| axes[moment].as_str()));
        let name = |axes: &[String; 2]| (unprefixed(&axes[camera]), times[&axes[moment]]);
        let named: Vec<_> = axes.iter().map(|axes| Some(name(axes))).collect();
        let (cameras, moments) = if files_are_cameras { ("files", "folders") } else { ("folders", "files") };
        return told(pictures, named, &format!("{cameras} are taken for cameras and {moments} for moments"));
    }
    let flat: Option<Vec<_>> = pictures.iter().map(|(path, _)| cam_number(path).map(Some)).collect();
    let count = |of: fn(&(String, i64)) -> String, named: &[Option<(String, i64)>]| {
        named.iter().flatten().map(of).collect::<BTreeSet<_>>().len()
    };
    let several =
        |flat: &Vec<_>| count(|name| name.0.clone(), flat) > 1 && count(|name| name.1.to_string(), flat) < flat.len();
    if let Some(flat) = flat.filter(several) {
        return told(pictures, flat, "the names of files are taken for a camera and a moment");
    }
    let guess = (pictures.len() > 1).then(|| {
        format!(
            "{} pictures are taken for moments of one moving camera; if each is of a camera of its own, say `views: cameras`",
            pictures.len()
        )
    });
    (vec![None; pictures.len()], guess)
}

/// Names, and the sentence about them with an example.
fn told(pictures: &[Picture], named: Vec<Option<(String, i64)>>, text: &str) -> Named {
    let example = pictures.iter().zip(&named).find_map(|((path, _), name)| {
        name.as_ref()
            .map(|(camera, timestep)| format!(": {} is camera `{camera}`, timestep {timestep}", path.display()))
    });
    (named, Some(format!("{text}{}", example.unwrap_or_default())))
}

/// Folders that pictures of all cameras lie in.
const COMMON: [&str; 8] = ["images", "image", "input", "rgb", "frames", "train", "test", "val"];

fn folder_and_file(path: &Path) -> Option<[String; 2]> {
    let folder = path.parent()?.file_name()?.to_str()?;
    let file = path.file_stem()?.to_str()?;
    (!COMMON.contains(&folder)).then(|| [folder.to_owned(), file.to_owned()])
}

/// Whether folder and file are a camera and a moment, either way: files are numbers, or have one and lie in several folders, or are called the
/// same in several.
fn is_grid(axes: &[[String; 2]]) -> bool {
    let distinct = |axis: usize| axes.iter().map(|axes| &axes[axis]).collect::<BTreeSet<_>>().len();
    let all = |of: fn(&str) -> bool| axes.iter().all(|[_, file]| of(file));
    !axes.is_empty()
        && (all(|file| digits(file).is_some())
            || (distinct(0) > 1 && (distinct(1) < axes.len() || all(|file| last_number(file).is_some()))))
}

/// Whether it is the file that names the camera, and not the folder.
fn files_are_cameras(pictures: &[Picture], axes: &[[String; 2]]) -> bool {
    // cameras that stand still have one pose, whatever the moment; moments of several cameras do not
    let still = |axis: usize| {
        let mut first: BTreeMap<&str, &[f64; 16]> = BTreeMap::new();
        let mut again = false;
        let same = pictures.iter().zip(axes).all(|((_, pose), axes)| match first.insert(&axes[axis], pose) {
            None => true,
            Some(other) => {
                again = true;
                let apart = |(a, b): (&f64, &f64)| (a - b).abs();
                pose.iter().zip(other).map(apart).all(|apart| apart < 1e-6)
            }
        });
        same && again
    };
    let starts = |axis: usize, with: &[&str]| {
        let begins = |name: &str| with.iter().any(|with| name.to_ascii_lowercase().starts_with(with));
        axes.iter().all(|axes| begins(&axes[axis]))
    };
    match (still(0), still(1)) {
        (false, true) => true,
        (true, false) => false,
        _ => !starts(0, &["cam"]) && (starts(1, &["cam"]) || starts(0, &["frame", "time"])),
    }
}

/// Timesteps of moments by their names: the numbers in them if these tell all of them apart, else their places in order.
fn times<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, i64> {
    let mut names: Vec<&str> = names.collect();
    names.sort_by_cached_key(|name| natural(Path::new(name)));
    names.dedup();
    let numbers: Option<Vec<i64>> = names.iter().map(|name| last_number(name)).collect();
    let numbers = numbers.filter(|numbers| numbers.iter().collect::<BTreeSet<_>>().len() == names.len());
    let time = |(place, name): (usize, &str)| {
        (name.to_owned(), numbers.as_ref().map_or(place as i64, |numbers| numbers[place]))
    };
    names.into_iter().enumerate().map(time).collect()
}

fn unprefixed(name: &str) -> String {
    name.strip_prefix("cam_").unwrap_or(name).to_owned()
}

/// `.../cam_{name}/frame_{n}.png`.
fn cam_frame(path: &Path) -> Option<(String, i64)> {
    let folder = path.parent()?.file_name()?.to_str()?.strip_prefix("cam_")?;
    let number = path.file_stem()?.to_str()?.strip_prefix("frame_")?;
    Some((folder.to_owned(), digits(number)?))
}

/// `.../{name}/{n}.png`.
fn name_number(path: &Path) -> Option<(String, i64)> {
    let [folder, file] = folder_and_file(path)?;
    Some((unprefixed(&folder), digits(&file)?))
}

/// `.../cam{name}_{n}.png`, with anything between the two.
fn cam_number(path: &Path) -> Option<(String, i64)> {
    let file = path.file_stem()?.to_str()?;
    let number = last_number(file)?;
    let front = file.trim_end_matches(|c: char| c.is_ascii_digit());
    let camera = front.split(['_', '-', '.', ' ']).take_while(|part| !part.is_empty());
    // `cam_{name}` has its name in the second part
    let parts: Vec<&str> = camera.collect();
    let named = match parts[..] {
        [cam, name, ..] if cam.eq_ignore_ascii_case("cam") || cam.eq_ignore_ascii_case("camera") => name,
        [name, ..] if name.to_ascii_lowercase().starts_with("cam") => name,
        _ => return None,
    };
    Some((named.to_owned(), number))
}

fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The number that a name ends with.
fn last_number(name: &str) -> Option<i64> {
    digits(&name[name.trim_end_matches(|c: char| c.is_ascii_digit()).len()..])
}

/// What paths are sorted by: `f2` before `f10`. Paths that differ only in zeros before a number come in the order of their text.
fn natural(path: &Path) -> (Vec<(String, u128)>, PathBuf) {
    let text = path.to_string_lossy();
    let mut parts: Vec<(String, u128)> = Vec::new();
    let mut rest = &*text;
    while !rest.is_empty() {
        let (front, number) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let (number, behind) = number.split_at(number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len()));
        parts.push((front.to_owned(), number.parse().unwrap_or(if number.is_empty() { 0 } else { u128::MAX })));
        rest = behind;
    }
    (parts, path.to_owned())
}

#[cfg(test)]
mod tests {
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
        let guess = name_views(Path::new("root"), &mut views).unwrap();
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
            assert_eq!(guess, None);
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
        let numbered = labelled(["left/0002.png", "left/0004.png"], ["A", "B"]).unwrap();
        assert_eq!(numbered.to_vec(), pairs(&[("A", 2), ("B", 4)]));
        // labels without any time: each camera has its first picture
        assert_eq!(labelled(["x.png", "y.png"], ["A", "B"]).unwrap().to_vec(), pairs(&[("A", 0), ("B", 0)]));
        let error = labelled(["a/0001.png", "b/0001.png"], ["A", "A"]).unwrap_err();
        let expected = "camera `A` is there twice at timestep 1: root/a/0001.png and root/b/0001.png";
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().contains("cam_{name}/frame_{number}.png"));
    }
}
