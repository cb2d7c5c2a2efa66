//! Calibrated pictures and videos of any capture: what the readers of `transforms` and `colmap` have in common.
//!
//! A [`View`] is a file with its camera, in OpenCV axes (x right, y down, z forward) and with the centre of pixel i at
//! i + 0.5. This file knows how a capture's world becomes ours, and what cannot be a capture of a head. It knows no
//! calibration format and decodes no video; which camera and time a path speaks of is for `names`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use geometry::camera::same_shape;
use geometry::{Camera, Distortion};
use glam::{DMat3, DMat4, DVec3, DVec4};

use crate::fault::Fault;
use crate::files;

/// A picture or a video with its camera.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The picture or video.
    pub file: PathBuf,
    /// Its matte: what is bright belongs to the person.
    pub mask: Option<PathBuf>,
    /// The camera's name; empty as long as only the path can tell.
    pub camera: String,
    /// The number of the lens that took it, where a calibration counts these: most cameras have one of their own.
    pub lens: Option<u32>,
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
pub fn check_files(root: &Path, calibration: &Path, views: &[View]) -> Result<(), Fault> {
    let files = || views.iter().flat_map(|view| std::iter::once(&view.file).chain(&view.mask));
    let plain = |below: &Path| !below.iter().any(|part| part == "..");
    let inside =
        |file: &Path| -> Option<bool> { Some(file.canonicalize().ok()?.starts_with(root.canonicalize().ok()?)) };
    let outside = |file: &&PathBuf| match file.strip_prefix(root) {
        Ok(below) if plain(below) => false,
        _ => !inside(file).unwrap_or(false),
    };
    if let Some(file) = files().find(outside) {
        return Err(Fault::unfit(
            format!("{} names {}, which lies outside {}", calibration.display(), file.display(), root.display()),
            "only what lies in the capture's folder is watched for changes: give a folder that holds both",
        ));
    }
    let missing: BTreeSet<&PathBuf> = files().filter(|file| !file.is_file()).collect();
    match missing.first() {
        None => Ok(()),
        Some(first) => match called_otherwise(first) {
            Some(found) => Err(Fault::unfit(
                format!("{} names {}, and there is {}", calibration.display(), first.display(), found.display()),
                "names of files have to be the same to the letter, capitals included",
            )),
            None => {
                let (calibration, first) = (calibration.display(), first.display());
                let count = missing.len();
                Err(Fault::unfit(
                    format!("{calibration} names {count} files that do not exist, the first of them {first}"),
                    "paths count from the calibration's folder; were all pictures copied?",
                ))
            }
        },
    }
}

/// A file beside a missing one whose name differs from it in capitals alone, or in its ending's.
fn called_otherwise(missing: &Path) -> Option<PathBuf> {
    let name = missing.file_name()?.to_str()?;
    let is_alike = |other: &Path| {
        let other_name = other.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stem = other.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        other_name.eq_ignore_ascii_case(name) || (missing.extension().is_none() && stem == name)
    };
    let mut beside: Vec<PathBuf> = missing.parent()?.read_dir().ok()?.flatten().map(|entry| entry.path()).collect();
    beside.sort_unstable();
    beside.into_iter().find(|path| is_alike(path))
}

/// Checks that the first picture of each camera has the shape that its calibration is for; it may be smaller or larger.
/// Views are sorted by camera; formats that are not known here are passed over.
///
/// # Errors
/// If one has another ratio of width to height.
pub fn check_shapes(views: &[View]) -> Result<(), Fault> {
    for views in views.chunk_by(|a, b| a.camera == b.camera) {
        let view = &views[0];
        let Some((width, height)) = files::size(&view.file).ok().filter(|_| !view.is_video()) else {
            continue;
        };
        if !same_shape((width, height), (view.width, view.height)) {
            return Err(Fault::unfit(
                format!(
                    "{} is {width} x {height} px, and its calibration is for {} x {}",
                    view.file.display(),
                    view.width,
                    view.height
                ),
                "was it cropped or turned after calibration? Turned phone pictures have to be stored upright",
            ));
        }
    }
    Ok(())
}

/// Reads `world`: a rigid motion as 12 or 16 numbers, row by row.
///
/// # Errors
/// If it is anything else.
pub fn rigid(world: &[f64]) -> Result<DMat4, Fault> {
    let unfit = |what: String| {
        Fault::unfit(
            format!("`world` {what}, expected a rotation and a translation as 3 x 4 or 4 x 4 numbers, rows first"),
            "a change of units belongs into `scale`, which is applied before",
        )
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

/// How far from the middle of its picture a principal point may be and nothing is said of it, as a share of the side.
const OFF_CENTRE: f64 = 0.2;

/// A camera's principal point, px, and width and height of the pictures that it is said to be for.
pub type Middle = ([f64; 2], (u32, u32));

/// How far a principal point may be from the middle of its own pictures, as a share of the middle.
const AROUND: f64 = 0.15;
/// Pictures of another size differ from those that are meant by this factor at least.
const ANOTHER: f64 = 1.25;

/// Width and height of the pictures that intrinsics are for, px, if the principal points of all cameras agree that
/// these are others than is said.
pub fn of_another_size(cameras: &[Middle]) -> Option<[u32; 2]> {
    let times = |([x, y], (width, height)): &Middle| [2.0 * x / f64::from(*width), 2.0 * y / f64::from(*height)];
    let mut all: Vec<f64> = cameras.iter().flat_map(times).collect();
    all.sort_by(f64::total_cmp);
    let factor = *all.get(all.len() / 2)?;
    let agree = all.iter().all(|times| (times / factor - 1.0).abs() <= AROUND);
    let is_another = factor > 0.0 && factor.max(1.0 / factor) >= ANOTHER;
    // one camera's pictures may be a cut-out of others
    if !agree || !is_another || cameras.len() < 2 {
        return None;
    }
    let (width, height) = cameras[0].1;
    Some([width, height].map(|side| (f64::from(side) * factor).round() as u32))
}

/// What is to be said of principal points far from the middle: intrinsics are of pictures of another size, or pictures
/// were cropped.
pub fn off_centre(views: &[View]) -> Option<String> {
    let share = |view: &View| {
        let of = |at: f64, side: u32| at / f64::from(side) - 0.5;
        [of(view.intrinsics[2], view.width), of(view.intrinsics[5], view.height)]
    };
    let far = |view: &&View| share(view).iter().any(|share| share.abs() >= OFF_CENTRE);
    let first = views.iter().find(far)?;
    let middle = |view: &View| ([view.intrinsics[2], view.intrinsics[5]], (view.width, view.height));
    let another = of_another_size(&views.iter().map(middle).collect::<Vec<Middle>>());
    let size = another.map_or("are intrinsics and pictures of one size?".to_owned(), |[width, height]| {
        format!("these are the middle of pictures of about {width} x {height} px")
    });
    Some(format!(
        "{} of {} principal points are far from the middle of their picture, the first, ({:.1}, {:.1}) px of {} x {}, in {}; {size}",
        views.iter().filter(far).count(),
        views.len(),
        first.intrinsics[2],
        first.intrinsics[5],
        first.width,
        first.height,
        first.file.display()
    ))
}

/// Nearest and furthest that a camera can be from a head, metres.
pub const DISTANCES: (f64, f64) = (0.05, 20.0);

/// Checks that the cameras are where cameras that film a head at the origin are, in metres.
///
/// # Errors
/// If one is nearer than 5 cm or further than 20 m; the hint says what the cameras look at.
pub fn check_distances(views: &[View]) -> Result<(), Fault> {
    let far = |view: &&View| {
        let distance = view.pinhole().center().length();
        !(DISTANCES.0..=DISTANCES.1).contains(&distance)
    };
    let Some(first) = views.iter().find(far) else { return Ok(()) };
    let focus = focus(views).map_or(String::new(), |at| {
        format!("; with the present ones the cameras look at ({:.3}, {:.3}, {:.3})", at.x, at.y, at.z)
    });
    Err(Fault::unfit(
        format!(
            "{} of {} cameras are nearer than {} m to the head or further than {} m, the first of them `{}` of {}: {:.3} m",
            views.iter().filter(far).count(),
            views.len(),
            DISTANCES.0,
            DISTANCES.1,
            first.camera,
            first.file.display(),
            first.pinhole().center().length(),
        ),
        format!("the head is at the origin: `scale` is metres per unit, `world` moves what is scaled{focus}"),
    ))
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
pub fn check_directions(views: &[View]) -> Result<(), Fault> {
    if looking_away(views) < views.len() {
        return Ok(());
    }
    let half_turn = DMat4::from_scale(DVec3::new(1.0, -1.0, -1.0));
    let meant = |of: &dyn Fn(DMat4) -> DMat4| -> Vec<View> {
        views.iter().map(|view| with_pose(view, of(view.pinhole().world_to_cam))).collect()
    };
    let axes = "they would with y and z of each camera turned round: poses in `transforms.json` have OpenGL's axes (y up, z back), those of COLMAP OpenCV's \
         (y down, z forward)";
    let inverse = "they would if each pose were inverted: poses in `transforms.json` take the camera to the world, those of COLMAP the world to the camera";
    let others = [
        (meant(&|pose| half_turn * pose), axes),
        (meant(&|pose| pose.inverse()), inverse),
        // a matrix with OpenGL's axes on both of its sides, which the reader has turned on one
        (meant(&|pose| half_turn * pose.inverse() * half_turn), inverse),
    ];
    // several may have the head in their pictures; cameras stand upright, and look at it
    let others = others.iter().filter(|(views, _)| 2 * looking_away(views) < views.len());
    let score = |views: &[View]| (2 * upside_down(views) > views.len(), past(views));
    let best = others.min_by(|(a, _), (b, _)| {
        let (a, b) = (score(a), score(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    let hint = best.map(|(_, hint)| hint.to_string()).unwrap_or_else(|| {
        let focus = focus(views)
            .map_or(String::new(), |at| format!("; the cameras look at ({:.3}, {:.3}, {:.3})", at.x, at.y, at.z));
        format!("the head is at the origin: `world` moves it there{focus}")
    });
    Err(Fault::unfit(
        format!("none of {} cameras has the origin in its picture, where the head is to be", views.len()),
        hint,
    ))
}

/// How many cameras stand on their head where +y is up, as it is in our world.
pub fn upside_down(views: &[View]) -> usize {
    // the camera's y points down; one that lies on its side stands on nothing
    views.iter().filter(|view| view.pinhole().world_to_cam.row(1).y > 0.5).count()
}

/// By how much most cameras look past the origin, degrees.
fn past(views: &[View]) -> f64 {
    let degrees = |view: &View| view.pinhole().world_to_cam.w_axis.truncate().angle_between(DVec3::Z).to_degrees();
    let mut all: Vec<f64> = views.iter().map(degrees).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
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

/// The matte that a PNG picture carries as its alpha channel, turned as the picture is to be shown (EXIF); none if it
/// has no such channel or is opaque.
///
/// # Errors
/// If the file cannot be decoded.
pub fn alpha(picture: &Path) -> Result<Option<image::GrayImage>, Fault> {
    use image::ImageDecoder;
    let broken = |error: image::ImageError| {
        Fault::unreadable(picture, error).advised("is the picture whole? copy or download it again")
    };
    let open = image::ImageReader::open(picture).and_then(image::ImageReader::with_guessed_format);
    let mut decoder = match open.map_err(|error| Fault::unreadable(picture, error))?.into_decoder() {
        Ok(decoder) => decoder,
        // formats of OpenCV that are not known here have their own reader later
        Err(image::ImageError::Unsupported(_)) => return Ok(None),
        Err(error) => return Err(broken(error)),
    };
    if !decoder.color_type().has_alpha() {
        return Ok(None);
    }
    // as everything that shows pictures does, OpenCV too
    let orientation = decoder.orientation().map_err(broken)?;
    let mut picture = image::DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    let picture = picture.into_rgba8();
    let alpha: Vec<u8> = picture.pixels().map(|pixel| pixel.0[3]).collect();
    if alpha.iter().all(|value| *value == 255) {
        return Ok(None);
    }
    Ok(image::GrayImage::from_raw(picture.width(), picture.height(), alpha))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A camera at `center` with OpenCV axes that looks along -z, y up.
    pub(crate) fn view(file: &str, center: [f64; 3]) -> View {
        let [x, y, z] = center;
        View {
            file: Path::new("root").join(file),
            mask: None,
            camera: String::new(),
            lens: None,
            timestep: None,
            intrinsics: [100.0, 0.0, 50.0, 0.0, 100.0, 50.0, 0.0, 0.0, 1.0],
            world_to_cam: [1., 0., 0., -x, 0., -1., 0., y, 0., 0., -1., z, 0., 0., 0., 1.],
            width: 100,
            height: 100,
            distortion: None,
        }
    }

    #[test]
    fn intrinsics_of_another_size_are_found_where_all_cameras_agree() {
        let size = (192, 280);
        let of = |times: f64| [([96.0 * times, 140.0 * times], size), ([99.0 * times, 133.0 * times], size)];
        assert_eq!((of_another_size(&of(1.0)), of_another_size(&of(1.2)), of_another_size(&[])), (None, None, None));
        let [width, height] = of_another_size(&of(2.0)).unwrap();
        assert!((372..=408).contains(&width) && (540..=580).contains(&height), "{width} x {height}");
        assert!(of_another_size(&of(0.1)).is_some());
        assert_eq!(of_another_size(&of(2.0)[..1]), None, "one may have been cut out");
        assert_eq!(of_another_size(&[of(2.0)[0], of(1.0)[0]]), None);
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
        // the same of a matrix with OpenGL's axes, by which the head would be in the picture of cameras that stand on
        // their heads, too
        let opengl = DMat4::from_scale(DVec3::new(1.0, -1.0, -1.0)) * pose;
        let read = DMat4::from_scale(DVec3::new(1.0, -1.0, -1.0)) * opengl.inverse();
        assert!(hint(read).contains("if each pose were inverted"), "{}", hint(read));
        assert_eq!(
            (
                upside_down(&[with_pose(&sound, pose)]),
                upside_down(&[with_pose(&sound, pose * DMat4::from_scale(DVec3::new(-1.0, -1.0, 1.0)))])
            ),
            (0, 1)
        );
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
    fn a_principal_point_at_a_quarter_is_that_of_a_picture_twice_as_small() {
        let mut half = view("b.png", [0.0, 0.0, 1.0]);
        (half.intrinsics[2], half.intrinsics[5]) = (25.0, 25.0);
        assert_eq!(off_centre(&[view("a.png", [0.0, 0.0, 1.0])]), None);
        let said = off_centre(&[view("a.png", [0.0, 0.0, 1.0]), half]).unwrap();
        assert!(said.starts_with("1 of 2") && said.contains("(25.0, 25.0) px of 100 x 100, in root/b.png"), "{said}");
    }

    #[test]
    fn missing_files_are_counted() {
        let root = tempfile::tempdir().unwrap();
        let mut views = ["b.png", "a.png", "c.png"].map(|file| view(file, [0.0, 0.0, 1.0]));
        views.iter_mut().for_each(|view| view.file = root.path().join(view.file.file_name().unwrap()));
        std::fs::write(&views[1].file, b"").unwrap();
        let error = check_files(root.path(), Path::new("t.json"), &views).unwrap_err().to_string();
        assert!(error.starts_with("t.json names 2 files") && error.ends_with("b.png"), "{error}");
        std::fs::write(root.path().join("B.PNG"), b"").unwrap();
        let error = check_files(root.path(), Path::new("t.json"), &views).unwrap_err().to_string();
        assert!(error.contains("b.png, and there is") && error.ends_with("B.PNG"), "{error}");
        // a way round that stays inside
        let mut round = view("a.png", [0.0, 0.0, 1.0]);
        std::fs::create_dir(root.path().join("sub")).unwrap();
        round.file = root.path().join("sub/../a.png");
        assert!(check_files(root.path(), Path::new("t.json"), std::slice::from_ref(&round)).is_ok());
        round.file = root.path().join("../a.png");
        let error = check_files(root.path(), Path::new("t.json"), &[round]).unwrap_err().to_string();
        assert!(error.contains("lies outside"), "{error}");
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
        let error = alpha(&file).unwrap_err();
        assert!(error.to_string().contains("a.png") && error.hint().contains("whole"), "{error}");
    }
}
