//! Calibrated pictures and videos of any capture: what the readers of `transforms` and `colmap` have in common.
//!
//! A [`View`] is a file with its camera, in OpenCV axes (x right, y down, z forward) and with the centre of pixel i at
//! i + 0.5. This file knows how a capture's world becomes ours, which camera and time a path speaks of, and what cannot be
//! a capture of a head. It knows no calibration format and decodes no video.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use geometry::camera::same_shape;
use geometry::{Camera, Distortion};
use glam::{DMat3, DMat4, DVec3, DVec4};

/// What can be wrong with a capture on disk.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A file or folder cannot be read.
    #[error("{path}: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// Something in a calibration file is missing, damaged or not known.
    #[error("{path}, {place}: found {found}, expected {expected}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, line or byte.
        place: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
        /// What the user can do about it.
        hint: &'static str,
    },
    /// Files that a calibration names are not there.
    #[error("{path} names {count} files that do not exist, the first of them {first}")]
    Missing {
        /// The calibration.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first.
        first: PathBuf,
    },
    /// The views do not fit together, or not a head.
    #[error("{what}")]
    Unfit {
        /// A sentence.
        what: String,
        /// What the user can do about it.
        hint: String,
    },
}

impl ViewError {
    /// What the user can do about it.
    pub fn hint(&self) -> &str {
        match self {
            Self::Unreadable { .. } => "does it exist, and may you read it?",
            Self::Field { hint, .. } => hint,
            Self::Missing { .. } => "paths count from the calibration's folder; were all pictures copied?",
            Self::Unfit { hint, .. } => hint,
        }
    }

    pub(crate) fn unreadable(path: &Path, reason: impl ToString) -> Self {
        Self::Unreadable { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// A picture or a video with its camera.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The picture or video.
    pub file: PathBuf,
    /// Its matte: what is bright belongs to the person.
    pub mask: Option<PathBuf>,
    /// The camera's name; empty as long as only the path can tell.
    pub camera: String,
    /// When it was taken; none for a video, or as long as only the path can tell.
    pub timestep: Option<i64>,
    /// Row-major 3 x 3, pixels of a `width x height` picture.
    pub intrinsics: [f64; 9],
    /// Row-major 4 x 4, OpenCV axes.
    pub world_to_cam: [f64; 16],
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How the lens bends the picture, if it does.
    pub distortion: Option<Distortion>,
}

impl View {
    /// Whether the file is a video, by its name.
    pub fn is_video(&self) -> bool {
        is_video(&self.file)
    }

    /// The pinhole camera.
    pub fn pinhole(&self) -> Camera {
        Camera::from_row_major(&self.intrinsics, &self.world_to_cam, self.width, self.height)
    }
}

/// Whether a path is that of a video, by its extension.
pub fn is_video(path: &Path) -> bool {
    let ext = path.extension().and_then(|ext| ext.to_str()).unwrap_or_default().to_ascii_lowercase();
    ["mp4", "mov", "avi", "mkv", "webm", "m4v"].contains(&ext.as_str())
}

/// Checks that every file exists, and lies below `root`; `calibration` is what names them.
///
/// # Errors
/// If some do not: the first, and how many.
pub fn check_files(root: &Path, calibration: &Path, views: &[View]) -> Result<(), ViewError> {
    let files = || views.iter().flat_map(|view| std::iter::once(&view.file).chain(&view.mask));
    let outside = |file: &&PathBuf| !file.strip_prefix(root).is_ok_and(|below| !below.iter().any(|part| part == ".."));
    if let Some(file) = files().find(outside) {
        return Err(ViewError::Unfit {
            what: format!("{} names {}, which lies outside {}", calibration.display(), file.display(), root.display()),
            hint: "only what lies in the capture's folder is watched for changes: give a folder that holds both"
                .to_owned(),
        });
    }
    let missing: BTreeSet<&PathBuf> = files().filter(|file| !file.is_file()).collect();
    match missing.first() {
        None => Ok(()),
        Some(first) => {
            Err(ViewError::Missing { path: calibration.to_owned(), count: missing.len(), first: (*first).clone() })
        }
    }
}

/// Checks that the first picture of each camera has the shape that its calibration is for; it may be smaller or larger.
/// Views are sorted by camera; formats that are not known here are passed over.
///
/// # Errors
/// If one has another ratio of width to height.
pub fn check_shapes(views: &[View]) -> Result<(), ViewError> {
    for views in views.chunk_by(|a, b| a.camera == b.camera) {
        let view = &views[0];
        let Some((width, height)) = image::image_dimensions(&view.file).ok().filter(|_| !view.is_video()) else {
            continue;
        };
        if !same_shape((width, height), (view.width, view.height)) {
            return Err(ViewError::Unfit {
                what: format!(
                    "{} is {width} x {height} px, and its calibration is for {} x {}",
                    view.file.display(),
                    view.width,
                    view.height
                ),
                hint: "was it cropped or turned after calibration? Turned phone pictures have to be stored upright"
                    .to_owned(),
            });
        }
    }
    Ok(())
}

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

/// Gives a camera and a timestep to views that have none, and sorts: by camera, then by time. Answers whether pictures were taken for those
/// of one moving camera because nothing tells.
///
/// From the path, if all of them agree: `cam_{name}/frame_{n}.png`, or `{name}/{n}.png`. Else they are taken for pictures of
/// one moving camera, `0`, whose timesteps are their places in the order of paths. A view that knows its camera and not
/// its time gets the number in its path, or else its place among those of its camera.
///
/// # Errors
/// If two views have the same camera and timestep, or two videos the same camera.
pub fn name_views(root: &Path, views: &mut [View]) -> Result<bool, ViewError> {
    views.sort_by(|a, b| a.file.cmp(&b.file));
    let relative = |view: &View| view.file.strip_prefix(root).unwrap_or(&view.file).to_owned();
    let pictures = |view: &View| !view.is_video();
    let nameless: Vec<PathBuf> = views.iter().filter(|v| pictures(v) && v.camera.is_empty()).map(&relative).collect();
    let of_path: BTreeMap<PathBuf, (String, i64)> = [cam_frame, name_number]
        .iter()
        .find_map(|rule| nameless.iter().map(|path| Some((path.clone(), rule(path)?))).collect())
        .unwrap_or_default();
    let guessed = of_path.is_empty() && nameless.len() > 1;
    for view in views.iter_mut().filter(|view| view.camera.is_empty()) {
        if view.is_video() {
            view.camera = stem(&view.file);
        } else if let Some((camera, timestep)) = of_path.get(&relative(view)) {
            view.camera.clone_from(camera);
            view.timestep = view.timestep.or(Some(*timestep));
        } else {
            view.camera = "0".to_owned();
        }
    }
    // what is left has a camera and no time
    let timeless: Vec<usize> =
        (0..views.len()).filter(|&at| pictures(&views[at]) && views[at].timestep.is_none()).collect();
    let numbers: Option<Vec<i64>> = timeless
        .iter()
        .map(|&at| cam_frame(&relative(&views[at])).or_else(|| name_number(&relative(&views[at]))).map(|(_, n)| n))
        .collect();
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    for (place, &at) in timeless.iter().enumerate() {
        let count = seen.entry(views[at].camera.clone()).or_default();
        views[at].timestep = Some(numbers.as_ref().map_or(*count, |numbers| numbers[place]));
        *count += 1;
    }
    views.sort_by(|a, b| (&a.camera, a.timestep, &a.file).cmp(&(&b.camera, b.timestep, &b.file)));
    let twice = views.windows(2).find(|two| (&two[0].camera, two[0].timestep) == (&two[1].camera, two[1].timestep));
    let Some(two) = twice else { return Ok(guessed) };
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

/// `.../cam_{name}/frame_{n}.png`.
fn cam_frame(path: &Path) -> Option<(String, i64)> {
    let folder = path.parent()?.file_name()?.to_str()?.strip_prefix("cam_")?;
    let number = path.file_stem()?.to_str()?.strip_prefix("frame_")?;
    Some((folder.to_owned(), digits(number)?))
}

/// `.../{name}/{n}.png`, where the folder is not one that pictures of all cameras lie in.
fn name_number(path: &Path) -> Option<(String, i64)> {
    let folder = path.parent()?.file_name()?.to_str()?;
    let common = ["images", "image", "input", "rgb", "frames", "train", "test", "val"];
    if common.contains(&folder) {
        return None;
    }
    let number = digits(path.file_stem()?.to_str()?)?;
    Some((folder.strip_prefix("cam_").unwrap_or(folder).to_owned(), number))
}

fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Reads `world`: a rigid motion as 12 or 16 numbers, row by row.
///
/// # Errors
/// If it is anything else.
pub fn rigid(world: &[f64]) -> Result<DMat4, ViewError> {
    let unfit = |what: String| ViewError::Unfit {
        what: format!("`world` {what}, expected a rotation and a translation as 3 x 4 or 4 x 4 numbers, rows first"),
        hint: "a change of units belongs into `scale`, which is applied before".to_owned(),
    };
    if world.len() != 12 && world.len() != 16 {
        return Err(unfit(format!("has {} numbers", world.len())));
    }
    let row = |at: usize| DVec4::from_slice(&world[4 * at..]);
    let last = if world.len() == 16 { row(3) } else { DVec4::W };
    let matrix = DMat4::from_cols(row(0), row(1), row(2), last).transpose();
    if !matrix.is_finite() || last != DVec4::W {
        return Err(unfit("has entries that are not finite, or a last row other than 0 0 0 1".to_owned()));
    }
    match rotation_fault(&matrix) {
        Some(fault) => Err(unfit(fault.to_owned())),
        None => Ok(matrix),
    }
}

/// What keeps the upper left of a matrix from being a rotation. Files round to a few digits, so 0.01 is forgiven.
pub(crate) fn rotation_fault(matrix: &DMat4) -> Option<&'static str> {
    let r = DMat3::from_mat4(*matrix);
    let defect =
        (r.transpose() * r - DMat3::IDENTITY).to_cols_array().into_iter().fold(0.0, |a: f64, x| a.max(x.abs()));
    if defect.is_nan() || defect > 0.01 {
        Some("scales or shears")
    } else if r.determinant() < 0.0 {
        Some("mirrors")
    } else {
        None
    }
}

/// Brings a view from the capture's world into ours: lengths are multiplied by `scale`, then `world` moves it.
pub fn move_view(view: &mut View, scale: f64, world: &DMat4) {
    // x = R p + t in the capture's units, so scale x = R (scale p) + scale t
    let mut pose = DMat4::from_cols_array(&view.world_to_cam).transpose();
    pose.w_axis = (pose.w_axis.truncate() * scale).extend(1.0);
    view.world_to_cam = (pose * world.inverse()).transpose().to_cols_array();
}

/// Nearest and furthest that a camera can be from a head, metres.
pub const DISTANCES: (f64, f64) = (0.05, 20.0);

/// Checks that the cameras are where cameras that film a head at the origin are, in metres.
///
/// # Errors
/// If one is nearer than 5 cm or further than 20 m; the hint says what the cameras look at.
pub fn check_distances(views: &[View]) -> Result<(), ViewError> {
    let far = |view: &&View| {
        let distance = view.pinhole().center().length();
        !(DISTANCES.0..=DISTANCES.1).contains(&distance)
    };
    let Some(first) = views.iter().find(far) else { return Ok(()) };
    let focus = focus(views).map_or(String::new(), |at| {
        format!("; with the present ones the cameras look at ({:.3}, {:.3}, {:.3})", at.x, at.y, at.z)
    });
    Err(ViewError::Unfit {
        what: format!(
            "{} of {} cameras are nearer than {} m to the head or further than {} m, the first of them `{}` of {}: {:.3} m",
            views.iter().filter(far).count(),
            views.len(),
            DISTANCES.0,
            DISTANCES.1,
            first.camera,
            first.file.display(),
            first.pinhole().center().length(),
        ),
        hint: format!("the head is at the origin: `scale` is metres per unit, `world` moves what is scaled{focus}"),
    })
}

/// How many views have the origin, where the head is, behind their camera or outside the picture.
pub fn looking_away(views: &[View]) -> usize {
    let sees = |view: &View| {
        let (at, z) = view.pinhole().project(DVec3::ZERO);
        z > 0.0 && (0.0..=f64::from(view.width)).contains(&at.x) && (0.0..=f64::from(view.height)).contains(&at.y)
    };
    views.iter().filter(|view| !sees(view)).count()
}

/// Checks that some camera has the origin in its picture, where the head is.
///
/// # Errors
/// If none has; the hint says whether one would have with the axes of another convention, or what the cameras look at.
pub fn check_directions(views: &[View]) -> Result<(), ViewError> {
    if looking_away(views) < views.len() {
        return Ok(());
    }
    let half_turn = DMat4::from_scale(DVec3::new(1.0, -1.0, -1.0));
    // the camera's axes, on its own side and on the world's of a matrix that was meant the other way round
    let turned: Vec<View> = views.iter().map(|view| with_pose(view, half_turn * view.pinhole().world_to_cam)).collect();
    let inverted: Vec<View> = views.iter().map(|view| with_pose(view, view.pinhole().world_to_cam.inverse())).collect();
    let sees = |views: &[View]| 2 * looking_away(views) < views.len();
    let hint = if sees(&turned) {
        "they would with y and z of each camera turned round: poses in `transforms.json` have OpenGL's axes (y up, z back), those of COLMAP OpenCV's \
         (y down, z forward)"
            .to_owned()
    } else if sees(&inverted) {
        "they would if each pose were inverted: poses in `transforms.json` take the camera to the world, those of COLMAP the world to the camera".to_owned()
    } else {
        let focus = focus(views)
            .map_or(String::new(), |at| format!("; the cameras look at ({:.3}, {:.3}, {:.3})", at.x, at.y, at.z));
        format!("the head is at the origin: `world` moves it there{focus}")
    };
    Err(ViewError::Unfit {
        what: format!("none of {} cameras has the origin in its picture, where the head is to be", views.len()),
        hint,
    })
}

fn with_pose(view: &View, pose: DMat4) -> View {
    View { world_to_cam: pose.transpose().to_cols_array(), ..view.clone() }
}

/// The point nearest to all optical axes, if there is one.
pub fn focus(views: &[View]) -> Option<DVec3> {
    let (mut matrix, mut right) = (DMat3::ZERO, DVec3::ZERO);
    for view in views {
        let pose = view.pinhole().world_to_cam;
        let axis = pose.row(2).truncate();
        let across = DMat3::IDENTITY - DMat3::from_cols(axis * axis.x, axis * axis.y, axis * axis.z);
        matrix += across;
        right += across * view.pinhole().center();
    }
    // parallel axes, or one camera, meet nowhere in particular
    (matrix.determinant() > 1e-6 * (views.len() as f64).powi(3)).then(|| matrix.inverse() * right)
}

/// The matte that a picture carries as its alpha channel; none if it has no such channel or is opaque.
///
/// # Errors
/// If the file cannot be decoded.
pub fn alpha(picture: &Path) -> Result<Option<image::GrayImage>, ViewError> {
    use image::ImageDecoder;
    let broken = |error: image::ImageError| ViewError::unreadable(picture, error);
    let open = image::ImageReader::open(picture).and_then(image::ImageReader::with_guessed_format);
    let decoder = match open.map_err(|error| ViewError::unreadable(picture, error))?.into_decoder() {
        Ok(decoder) => decoder,
        // formats of OpenCV that are not known here have their own reader later
        Err(image::ImageError::Unsupported(_)) => return Ok(None),
        Err(error) => return Err(broken(error)),
    };
    if !decoder.color_type().has_alpha() {
        return Ok(None);
    }
    let picture = image::DynamicImage::from_decoder(decoder).map_err(broken)?.into_rgba8();
    let alpha: Vec<u8> = picture.pixels().map(|pixel| pixel.0[3]).collect();
    if alpha.iter().all(|value| *value == 255) {
        return Ok(None);
    }
    Ok(image::GrayImage::from_raw(picture.width(), picture.height(), alpha))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A camera at `center` with OpenCV axes that looks along -z, y up.
    fn view(file: &str, center: [f64; 3]) -> View {
        let [x, y, z] = center;
        View {
            file: Path::new("root").join(file),
            mask: None,
            camera: String::new(),
            timestep: None,
            intrinsics: [100.0, 0.0, 50.0, 0.0, 100.0, 50.0, 0.0, 0.0, 1.0],
            world_to_cam: [1., 0., 0., -x, 0., -1., 0., y, 0., 0., -1., z, 0., 0., 0., 1.],
            width: 100,
            height: 100,
            distortion: None,
        }
    }

    fn named(files: &[&str]) -> Vec<(String, Option<i64>)> {
        let mut views: Vec<View> = files.iter().map(|file| view(file, [0.0, 0.0, 1.0])).collect();
        let guessed = name_views(Path::new("root"), &mut views).unwrap();
        assert_eq!(guessed, views.iter().all(|view| view.camera == "0"));
        views.into_iter().map(|view| (view.camera, view.timestep)).collect()
    }

    fn pairs(list: &[(&str, i64)]) -> Vec<(String, Option<i64>)> {
        list.iter().map(|(camera, timestep)| ((*camera).to_owned(), Some(*timestep))).collect()
    }

    #[test]
    fn paths_tell_camera_and_time() {
        let rig = ["images/cam_b/frame_00003.png", "images/cam_a/frame_00010.jpg", "images/cam_a/frame_00003.png"];
        assert_eq!(named(&rig), pairs(&[("a", 3), ("a", 10), ("b", 3)]));
        assert_eq!(named(&["left/0002.png", "right/0001.png"]), pairs(&[("left", 2), ("right", 1)]));
        // one moving camera
        assert_eq!(named(&["train/r_1.png", "train/r_0.png"]), pairs(&[("0", 0), ("0", 1)]));
        assert_eq!(named(&["images/0007.png", "images/0009.png"]), pairs(&[("0", 0), ("0", 1)]));
        assert_eq!(named(&["left/0002.png", "odd.png"]), pairs(&[("0", 0), ("0", 1)]));
        assert_eq!(named(&["videos/cam_12.mp4", "videos/cam_11.mp4"]), [("11".into(), None), ("12".into(), None)]);
    }

    #[test]
    fn pictures_that_do_not_tell_are_what_one_says_they_are() {
        let named = |files: &[&str], say: fn(&mut [View])| {
            let mut views: Vec<View> = files.iter().map(|file| view(file, [0.0, 0.0, 1.0])).collect();
            say(&mut views);
            let guessed = name_views(Path::new("root"), &mut views).map_err(|error| error.to_string())?;
            assert!(!guessed);
            Ok::<_, String>(views.into_iter().map(|view| (view.camera, view.timestep)).collect::<Vec<_>>())
        };
        let flat = ["images/cam01.png", "images/cam_02.png"];
        assert_eq!(named(&flat, name_cameras).unwrap(), pairs(&[("02", 0), ("cam01", 0)]));
        assert_eq!(named(&flat, name_moments).unwrap(), pairs(&[("0", 0), ("0", 1)]));
        let error = named(&["a/1.png", "b/1.png"], name_cameras).unwrap_err();
        assert!(error.contains("camera `1` is there twice at timestep 0"), "{error}");
        assert_eq!(named(&["a/1.png", "b/2.png"], name_moments).unwrap(), pairs(&[("0", 1), ("0", 2)]));
    }

    #[test]
    fn cameras_of_which_none_sees_the_head_are_an_error_that_knows_conventions() {
        let sound = view("a.png", [0.1, 0.0, 1.0]);
        assert!(check_directions(std::slice::from_ref(&sound)).is_ok());
        let pose = sound.pinhole().world_to_cam;
        let hint = |pose: DMat4| {
            let error = check_directions(&[with_pose(&sound, pose), with_pose(&sound, pose)]).unwrap_err();
            assert!(error.to_string().starts_with("none of 2 cameras has the origin"), "{error}");
            error.hint().to_owned()
        };
        assert!(
            hint(DMat4::from_scale(DVec3::new(1.0, -1.0, -1.0)) * pose).contains("y and z of each camera turned round")
        );
        let aside = view("a.png", [9.0, 0.0, 1.0]).pinhole().world_to_cam;
        assert!(hint(aside).contains("`world` moves it there"), "{}", hint(aside));
        // a camera on the x axis: the inverse of its pose has the origin ahead, the pose itself to the left
        let center = DVec3::new(1.0, 0.0, 0.3);
        let (ahead, down) = (-center.normalize(), DVec3::NEG_Y);
        let axes = DMat3::from_cols(down.cross(ahead), down, ahead).transpose();
        let opencv = DMat4::from_mat3(axes) * DMat4::from_translation(-center);
        assert!(check_directions(&[with_pose(&sound, opencv)]).is_ok());
        assert!(hint(opencv.inverse()).contains("if each pose were inverted"), "{}", hint(opencv.inverse()));
    }

    #[test]
    fn fields_go_before_paths_and_nothing_is_there_twice() {
        let labelled = |files: [&str; 2], cameras: [&str; 2]| {
            let mut views = files.map(|file| view(file, [0.0, 0.0, 1.0]));
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

    #[test]
    fn the_world_is_scaled_and_then_moved() {
        // millimetres; the head is at (0, 1500, 0), and the camera 800 before it
        let mut view = view("a.png", [0.0, 1500.0, 800.0]);
        let down = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.5, 0.0, 0.0, 1.0, 0.0];
        move_view(&mut view, 0.001, &rigid(&down).unwrap());
        assert!((view.pinhole().center() - DVec3::new(0.0, 0.0, 0.8)).length() < 1e-12);
        let (px, z) = view.pinhole().project(DVec3::new(0.1, 0.2, 0.0));
        assert!((z - 0.8).abs() < 1e-12 && (px.x - 62.5).abs() < 1e-9 && (px.y - 25.0).abs() < 1e-9, "{px}");
        assert!(check_distances(std::slice::from_ref(&view)).is_ok() && looking_away(&[view]) == 0);
        // a z-up world: its y is our -z
        let turn = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        assert!(rigid(&turn).is_ok());
        let fault = |world: &[f64]| rigid(world).unwrap_err().to_string();
        assert!(fault(&[1.0; 3]).contains("has 3 numbers"));
        assert!(fault(&[2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0]).contains("scales or shears"));
        assert!(fault(&[1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0]).contains("mirrors"));
        assert!(fault(&[f64::NAN; 12]).contains("not finite"));
    }

    #[test]
    fn wrong_units_are_an_error_that_says_where_the_cameras_look() {
        // two cameras at right angles that look at (1, 2, 30)
        let ahead = view("a.png", [1.0, 2.0, 40.0]);
        let mut side = view("b.png", [0.0; 3]);
        // at (11, 2, 30), looking along -x: right is -z
        side.world_to_cam = [0., 0., -1., 30., 0., -1., 0., 2., -1., 0., 0., 11., 0., 0., 0., 1.];
        let error = check_distances(&[ahead.clone(), side]).unwrap_err();
        assert!(error.to_string().starts_with("2 of 2 cameras"), "{error}");
        assert!(error.hint().contains("look at (1.000, 2.000, 30.000)"), "{}", error.hint());
        let error = check_distances(&[view("a.png", [0.0, 0.0, 0.04])]).unwrap_err();
        assert!(error.to_string().ends_with("0.040 m") && !error.hint().contains("look at"), "{error}");
        assert_eq!(looking_away(&[ahead, view("a.png", [0.0, 0.0, 1.0]), view("a.png", [0.0, 0.0, -1.0])]), 1);
    }

    #[test]
    fn missing_files_are_counted() {
        let root = tempfile::tempdir().unwrap();
        let mut views = ["b.png", "a.png", "c.png"].map(|file| view(file, [0.0, 0.0, 1.0]));
        views.iter_mut().for_each(|view| view.file = root.path().join(view.file.file_name().unwrap()));
        std::fs::write(&views[1].file, b"").unwrap();
        let error = check_files(root.path(), Path::new("t.json"), &views).unwrap_err().to_string();
        assert!(error.starts_with("t.json names 2 files") && error.ends_with("b.png"), "{error}");
    }

    #[test]
    fn alpha_is_a_matte() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a.png");
        let pixel = |x: u32| image::Rgba([9, 9, 9, if x == 0 { 0 } else { 200 }]);
        image::RgbaImage::from_fn(2, 1, |x, _| pixel(x)).save(&file).unwrap();
        assert_eq!(alpha(&file).unwrap().unwrap().into_raw(), [0, 200]);
        image::RgbaImage::from_pixel(2, 1, image::Rgba([9, 9, 9, 255])).save(&file).unwrap();
        assert_eq!(alpha(&file).unwrap(), None);
        image::RgbImage::new(2, 1).save(&file).unwrap();
        assert_eq!(alpha(&file).unwrap(), None);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..20]).unwrap();
        assert!(alpha(&file).unwrap_err().to_string().contains("a.png"));
    }
}
