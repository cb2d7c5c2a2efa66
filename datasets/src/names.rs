//! Which camera took a picture, and when: what the paths of a capture tell where its calibration does not.
//!
//! Knows names, and of poses only which of them are nearly the same; no file is opened.

use crate::fault::Fault;
use crate::views::View;
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

/// Gives a camera and a timestep to views that have none, and sorts: by camera, then by time. Answers what was guessed
/// and is not certain, a sentence each.
///
/// `cam_{name}/frame_{n}.png` tells both. Else one of folder and file is the camera and the other one the moment: the
/// folder where files are numbered or called the same in several folders, and the file if poses say so (a camera that
/// stands still has nearly one), or a name that begins with `cam`. In one folder, `cam{name}_{n}.png` tells both, and
/// so do `{name}_{n}.png` and `{n}_{name}.png` if poses bear it out. All else is taken for pictures of one moving
/// camera, `0`, whose timesteps are their places in the order of paths, numbers in them by value. Where cameras are
/// known and times are not, the part of the paths tells moments that no camera has twice and that cameras share most;
/// if there is none, pictures are counted for each camera.
///
/// # Errors
/// If a picture is there twice, two views have the same camera and timestep, or two videos the same camera.
pub fn name_views(root: &Path, views: &mut [View]) -> Result<Vec<String>, Fault> {
    views.sort_by_cached_key(|view| natural(&view.file));
    check_pictures_differ(views)?;
    let nameless: Vec<usize> = places(views, |view| view.camera.is_empty());
    let picture = |at: &usize| (below(root, &views[*at]), views[*at].world_to_cam, views[*at].lens);
    let pictures: Vec<Picture> = nameless.iter().map(picture).collect();
    let (of_paths, guess) = of_paths(&pictures);
    let mut told: Vec<String> = guess.into_iter().collect();
    for (&at, name) in nameless.iter().zip(of_paths) {
        let (camera, timestep) = name.map_or(("0".to_owned(), None), |(camera, timestep)| (camera, Some(timestep)));
        views[at].camera = camera;
        views[at].timestep = views[at].timestep.or(timestep);
    }
    for view in views.iter_mut().filter(|view| view.camera.is_empty()) {
        view.camera = stem(&view.file);
    }
    told.extend(name_times(root, views));
    views.sort_by(|a, b| (&a.camera, a.timestep, &a.file).cmp(&(&b.camera, b.timestep, &b.file)));
    let twice = views.windows(2).find(|two| (&two[0].camera, two[0].timestep) == (&two[1].camera, two[1].timestep));
    let Some(two) = twice else {
        told.extend(apart(views));
        return Ok(told);
    };
    let when = two[0].timestep.map_or("as a video".to_owned(), |timestep| format!("at timestep {timestep}"));
    Err(Fault::unfit(
        format!(
            "camera `{}` is there twice {when}: {} and {}",
            two[0].camera,
            two[0].file.display(),
            two[1].file.display()
        ),
        "give cameras names and pictures numbers: cam_{name}/frame_{number}.png, or camera_label and timestep_index",
    ))
}

/// Gives a timestep to pictures that have a camera and none; answers what was guessed.
fn name_times(root: &Path, views: &mut [View]) -> Option<String> {
    let timeless = places(views, |view| view.timestep.is_none());
    let pictures: Vec<Taken> = timeless.iter().map(|&at| (views[at].camera.clone(), below(root, &views[at]))).collect();
    let (numbers, guess) = moments(&pictures);
    timeless.into_iter().zip(numbers).for_each(|(at, number)| views[at].timestep = Some(number));
    guess
}

/// The camera of a picture, and its path below the root.
type Taken = (String, PathBuf);

/// The timesteps of pictures whose cameras are known, and what was guessed.
fn moments(pictures: &[Taken]) -> (Vec<i64>, Option<String>) {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    let mut counted = Vec::with_capacity(pictures.len());
    for (camera, _) in pictures {
        let count = counts.entry(camera).or_default();
        counted.push(*count);
        *count += 1;
    }
    let numbers =
        |of: &dyn Fn(&Path) -> Option<i64>| pictures.iter().map(|(_, path)| of(path)).collect::<Option<Vec<i64>>>();
    let certain = |path: &Path| cam_frame(path).map(|(_, number)| number);
    if let Some(numbers) = numbers(&certain) {
        return (numbers, None);
    }
    if counts.len() < 2 {
        // no other camera has moments that these would have to be
        let numbers = numbers(&|path| certain(path).or_else(|| name_number(path).map(|(_, number)| number)));
        return (numbers.unwrap_or(counted), None);
    }
    if counts.values().all(|count| *count == 1) {
        let guess = format!("{} pictures, each of a camera of its own, are taken for one moment", pictures.len());
        return (counted, Some(guess));
    }
    // of the parts that no camera has twice, that which most cameras share
    let part = |part: Part| {
        let names = pictures.iter().map(|(_, path)| part.of(path)).collect::<Option<Vec<String>>>()?;
        let distinct = names.iter().collect::<BTreeSet<_>>().len();
        let once = pictures.iter().zip(&names).map(|((camera, _), name)| (camera, name)).collect::<BTreeSet<_>>();
        (once.len() == names.len() && distinct < names.len()).then_some((distinct, part, names))
    };
    let Some((_, part, names)) = PARTS.into_iter().filter_map(part).min_by_key(|(distinct, ..)| *distinct) else {
        let guess = format!(
            "nothing in their paths tells the moments of {} pictures of {} cameras, which are counted for each camera: where one lacks a picture, its later moments are wrong",
            pictures.len(),
            counts.len()
        );
        return (counted, Some(guess));
    };
    let times = times(names.iter().map(String::as_str));
    let numbers: Vec<i64> = names.iter().map(|name| times[name]).collect();
    let example = pictures.first().zip(numbers.first()).map_or(String::new(), |((camera, path), number)| {
        format!(": {} is camera `{camera}`, timestep {number}", path.display())
    });
    (numbers, Some(format!("{} are taken for moments{example}", part.called())))
}

/// A part of a path that may tell a moment.
#[derive(Clone, Copy)]
enum Part {
    /// A number in the file's name, counted from its end.
    Number(usize),
    /// The file's name.
    File,
    /// A folder, counted from the file.
    Folder(usize),
}

const PARTS: [Part; 7] =
    [Part::Number(0), Part::Number(1), Part::Number(2), Part::File, Part::Folder(1), Part::Folder(2), Part::Folder(3)];

impl Part {
    fn of(self, path: &Path) -> Option<String> {
        let stem = path.file_stem()?.to_str()?;
        match self {
            Part::Number(at) => {
                let number = stem.rsplit(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty()).nth(at)?;
                Some(digits(number)?.to_string())
            }
            Part::File => Some(stem.to_owned()),
            Part::Folder(at) => Some(path.ancestors().nth(at)?.file_name()?.to_str()?.to_owned()),
        }
    }

    fn called(self) -> &'static str {
        match self {
            Part::Number(_) => "numbers in the names of files",
            Part::File => "names of files",
            Part::Folder(_) => "folders",
        }
    }
}

/// What is to be said of pictures of several cameras of which no two have a moment in common.
fn apart(views: &[View]) -> Option<String> {
    let pictures = views.iter().filter(|view| !view.is_video());
    let mut first: BTreeMap<i64, &str> = BTreeMap::new();
    let mut cameras: BTreeSet<&str> = BTreeSet::new();
    for view in pictures {
        cameras.insert(&view.camera);
        if *first.entry(view.timestep?).or_insert(&view.camera) != view.camera {
            return None;
        }
    }
    (cameras.len() > 1).then(|| {
        format!(
            "no two of {} cameras have a picture of the same moment, of which points need several: do their clocks or their numbers differ?",
            cameras.len()
        )
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
fn check_pictures_differ(views: &[View]) -> Result<(), Fault> {
    let same = |two: &&[View]| two[0].file == two[1].file && !two[0].is_video();
    match views.windows(2).find(same) {
        None => Ok(()),
        Some(two) => Err(Fault::unfit(
            format!("{} is there twice in the calibration", two[0].file.display()),
            "a picture has one pose; take one of the two out",
        )),
    }
}

/// The path of a picture below the root, its pose, and the number of its lens.
type Picture = (PathBuf, [f64; 16], Option<u32>);

/// Camera and timestep of each, and what is to be said of them; none for pictures of one moving camera.
type Named = (Vec<Option<(String, i64)>>, Option<String>);

fn of_paths(pictures: &[Picture]) -> Named {
    let certain: Option<Vec<_>> = pictures.iter().map(|(path, ..)| cam_frame(path).map(Some)).collect();
    if let Some(certain) = certain {
        return (certain, None);
    }
    if let Some(axes) = folders_and_files(pictures).filter(|axes| is_grid(axes)) {
        let files_are_cameras = files_are_cameras(pictures, &axes);
        let (camera, moment) = if files_are_cameras { (1, 0) } else { (0, 1) };
        let times = times(axes.iter().map(|axes| axes[moment].as_str()));
        let name = |axes: &[String; 2]| (unprefixed(&axes[camera]), times[&axes[moment]]);
        let named: Vec<_> = axes.iter().map(|axes| Some(name(axes))).collect();
        let (cameras, moments) = if files_are_cameras { ("files", "folders") } else { ("folders", "files") };
        return told(pictures, named, &format!("{cameras} are taken for cameras and {moments} for moments"));
    }
    let flat: Option<Vec<_>> = pictures.iter().map(|(path, ..)| cam_number(path).map(Some)).collect();
    let count = |of: fn(&(String, i64)) -> String, named: &[Option<(String, i64)>]| {
        named.iter().flatten().map(of).collect::<BTreeSet<_>>().len()
    };
    let several =
        |flat: &Vec<_>| count(|name| name.0.clone(), flat) > 1 && count(|name| name.1.to_string(), flat) < flat.len();
    if let Some(flat) = flat.filter(several).or_else(|| in_one_folder(pictures)) {
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
    let example = pictures.iter().zip(&named).find_map(|((path, ..), name)| {
        name.as_ref()
            .map(|(camera, timestep)| format!(": {} is camera `{camera}`, timestep {timestep}", path.display()))
    });
    (named, Some(format!("{text}{}", example.unwrap_or_default())))
}

/// Folders that pictures of all cameras lie in.
const COMMON: [&str; 8] = ["images", "image", "input", "rgb", "frames", "train", "test", "val"];

fn is_common(folder: &str) -> bool {
    // nerfstudio's copies made smaller
    COMMON.contains(&folder) || folder.strip_prefix("images_").and_then(digits).is_some()
}

fn folder_and_file(path: &Path) -> Option<[String; 2]> {
    let folder = path.parent()?.file_name()?.to_str()?;
    let file = path.file_stem()?.to_str()?;
    (!is_common(folder)).then(|| [folder.to_owned(), file.to_owned()])
}

/// Folder and file of all pictures; the folder above `images` and the like if there are several of these, as in
/// `cam01/images/00001.png`.
fn folders_and_files(pictures: &[Picture]) -> Option<Vec<[String; 2]>> {
    let above = |path: &Path| {
        let name = |folder: &Path| folder.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let folder = path.ancestors().skip(1).filter_map(name).find(|folder| !is_common(folder))?;
        Some([folder, path.file_stem()?.to_str()?.to_owned()])
    };
    let direct: Option<Vec<_>> = pictures.iter().map(|(path, ..)| folder_and_file(path)).collect();
    direct.or_else(|| {
        let axes = pictures.iter().map(|(path, ..)| above(path)).collect::<Option<Vec<_>>>()?;
        (axes.iter().map(|[folder, _]| folder).collect::<BTreeSet<_>>().len() > 1).then_some(axes)
    })
}

/// Camera and moment of pictures in one folder, `{camera}_{n}.png` or `{n}_{camera}.png`: each camera has most of the
/// moments, and stands still or is called so.
fn in_one_folder(pictures: &[Picture]) -> Option<Vec<Option<(String, i64)>>> {
    let separators = ['_', '-', '.', ' '];
    let stems: Vec<&str> = pictures.iter().map(|(path, ..)| path.file_stem()?.to_str()).collect::<Option<_>>()?;
    if pictures.windows(2).any(|two| two[0].0.parent() != two[1].0.parent()) {
        return None;
    }
    let named = |camera: &str, number: &str| {
        let camera = unprefixed(camera.trim_matches(separators));
        Some((camera, digits(number)?)).filter(|(camera, _)| !camera.is_empty())
    };
    let ends = |stem: &&str| {
        let (front, number) = stem.split_at(stem.trim_end_matches(|c: char| c.is_ascii_digit()).len());
        if number.is_empty() { None } else { named(front, number) }
    };
    // what stands before the number is the same in all
    let begin = stems.first()?.find(|c: char| c.is_ascii_digit()).map(|at| &stems[0][..at]);
    let begins = |stem: &&str| {
        let rest = stem.strip_prefix(begin?)?;
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        if number.is_empty() { None } else { named(behind, number) }
    };
    let fits = |names: &Vec<(String, i64)>| {
        let mut cameras: BTreeMap<&str, usize> = BTreeMap::new();
        names.iter().for_each(|(camera, _)| *cameras.entry(camera).or_default() += 1);
        let moments = names.iter().map(|(_, number)| number).collect::<BTreeSet<_>>().len();
        let once = names.iter().collect::<BTreeSet<_>>().len() == names.len();
        once && cameras.len() > 1 && moments < names.len() && cameras.values().all(|count| 2 * count >= moments)
    };
    let is_rig = |names: &Vec<(String, i64)>| {
        let cameras: Vec<&str> = names.iter().map(|(camera, _)| camera.as_str()).collect();
        let moments: Vec<String> = names.iter().map(|(_, number)| number.to_string()).collect();
        let moments: Vec<&str> = moments.iter().map(String::as_str).collect();
        match steadier(pictures, [&cameras, &moments]) {
            Some(axis) => axis == 0,
            None if of_lenses(pictures, [&cameras, &moments]) == Some(0) => true,
            None => cameras.iter().all(|camera| camera.to_ascii_lowercase().starts_with("cam")),
        }
    };
    let all = |of: &dyn Fn(&&str) -> Option<(String, i64)>| stems.iter().map(of).collect::<Option<Vec<_>>>();
    let found = [all(&ends), all(&begins)].into_iter().flatten().find(|names| fits(names) && is_rig(names))?;
    Some(found.into_iter().map(Some).collect())
}

/// Whether folder and file are a camera and a moment, either way: files are numbers, or have one and lie in several
/// folders, or are called the same in several.
fn is_grid(axes: &[[String; 2]]) -> bool {
    let distinct = |axis: usize| axes.iter().map(|axes| &axes[axis]).collect::<BTreeSet<_>>().len();
    let all = |of: fn(&str) -> bool| axes.iter().all(|[_, file]| of(file));
    !axes.is_empty()
        && (all(|file| digits(file).is_some())
            || (distinct(0) > 1 && (distinct(1) < axes.len() || all(|file| last_number(file).is_some()))))
}

/// Whether it is the file that names the camera, and not the folder.
fn files_are_cameras(pictures: &[Picture], axes: &[[String; 2]]) -> bool {
    let [folders, files] = [0, 1].map(|axis| axes.iter().map(|axes| axes[axis].as_str()).collect::<Vec<&str>>());
    let starts = |axis: usize, with: &[&str]| {
        let begins = |name: &str| with.iter().any(|with| name.to_ascii_lowercase().starts_with(with));
        axes.iter().all(|axes| begins(&axes[axis]))
    };
    match steadier(pictures, [&folders, &files]).or_else(|| of_lenses(pictures, [&folders, &files])) {
        Some(axis) => axis == 1,
        None => !starts(0, &["cam"]) && (starts(1, &["cam"]) || starts(0, &["frame", "time"])),
    }
}

/// By how much pictures of one name stand and look more alike than those of another, squared, for the name to be that
/// of a camera that stands still: who calibrates each picture by itself finds a fixed camera in many places, a
/// millimetre apart or so.
const STEADIER: f64 = 0.01;

/// Which of two names of each picture is that of a camera, by poses: cameras that stand still have nearly one, whatever
/// the moment, and moments of several cameras do not. None if poses do not tell.
fn steadier(pictures: &[Picture], names: [&[&str]; 2]) -> Option<usize> {
    // the camera's axes, and its place in units of the rig
    let mut poses: Vec<[f64; 12]> = pictures.iter().map(|(_, pose, _)| placed(pose)).collect();
    let all: Vec<&[f64; 12]> = poses.iter().collect();
    let middle = mean(&all);
    let size = poses.iter().map(|pose| (9..12).map(|i| (pose[i] - middle[i]).powi(2)).sum::<f64>()).sum::<f64>();
    let size = (size / poses.len() as f64).sqrt();
    if size > 0.0 {
        poses.iter_mut().for_each(|pose| pose[9..].iter_mut().for_each(|x| *x /= size));
    }
    let spread = |names: &[&str]| {
        let mut groups: BTreeMap<&str, Vec<&[f64; 12]>> = BTreeMap::new();
        names.iter().zip(&poses).for_each(|(name, pose)| groups.entry(name).or_default().push(pose));
        groups.retain(|_, group| group.len() > 1);
        let square =
            |pose: &[f64; 12], middle: &[f64; 12]| pose.iter().zip(middle).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        let of_group = |group: &Vec<&[f64; 12]>| {
            let middle = mean(group);
            group.iter().map(|pose| square(pose, &middle)).sum::<f64>()
        };
        let count = groups.values().map(Vec::len).sum::<usize>();
        (count > 0).then(|| groups.values().map(of_group).sum::<f64>() / count as f64)
    };
    // all of them the same, to the digits of a file
    let still = |spread: f64| spread < 1e-10;
    match names.map(spread) {
        [Some(a), Some(b)] if a < STEADIER * b && !still(b) => Some(0),
        [Some(a), Some(b)] if b < STEADIER * a && !still(a) => Some(1),
        [Some(a), None] if still(a) => Some(0),
        [None, Some(b)] if still(b) => Some(1),
        _ => None,
    }
}

/// Which of two names of each picture has a lens of its own for each; none if both have, or neither.
fn of_lenses(pictures: &[Picture], names: [&[&str]; 2]) -> Option<usize> {
    let lenses = pictures.iter().map(|(.., lens)| *lens).collect::<Option<Vec<u32>>>()?;
    let distinct = lenses.iter().collect::<BTreeSet<_>>().len();
    let [first, second] = names.map(|names| {
        let pairs = names.iter().zip(&lenses).collect::<BTreeSet<_>>().len();
        distinct > 1 && pairs == distinct && names.iter().collect::<BTreeSet<_>>().len() == distinct
    });
    (first != second).then_some(usize::from(second))
}

fn mean(poses: &[&[f64; 12]]) -> [f64; 12] {
    std::array::from_fn(|i| poses.iter().map(|pose| pose[i]).sum::<f64>() / poses.len() as f64)
}

/// The rotation of a pose from world to camera, and where the camera is.
fn placed(pose: &[f64; 16]) -> [f64; 12] {
    let rotation = |row: usize, column: usize| pose[4 * row + column];
    let center = |i: usize| -(0..3).map(|row| rotation(row, i) * pose[4 * row + 3]).sum::<f64>();
    std::array::from_fn(|i| if i < 9 { rotation(i / 3, i % 3) } else { center(i - 9) })
}

/// Timesteps of moments by their names: the numbers in them if these tell all of them apart, else their places in
/// order.
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

/// What paths are sorted by: `f2` before `f10`. Paths that differ only in zeros before a number come in the order of
/// their text.
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
mod tests;
