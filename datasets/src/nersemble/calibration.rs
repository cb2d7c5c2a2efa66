//! Calibrations: camera poses and intrinsics in every form in which NeRSemble captures are passed on.
//!
//! `camera_params.json` (A, B, C): `{"world_2_cam": {serial: 4x4}, "intrinsics": 3x3 or {serial: 3x3}}`.
//! `calibration_result.json` beside `config.json` (D): translations `ts`, Rodrigues vectors `rs` and `intrinsics` (a
//! list of one for all or of one for each camera, or flat `fx, cx, cy, fy` in old files; without `fy` it is `fx`), in
//! the order of the serials in `config.json`. DiffusionAvatars takes a row for that of the serial at the same place
//! among its 16 constants. Poses take the world to the camera, OpenCV axes, metres. Files that mean anything else are
//! refused as far as numbers tell.

use super::{FULL_SIZE, fault};
use crate::fault::Fault;
use crate::files;
use geometry::Camera;
use glam::{DMat3, DMat4, DQuat, DVec3};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A camera nearer to the head than this, or further than [`FARTHEST`], is not calibrated in metres.
const NEAREST: f64 = 0.1;
const FARTHEST: f64 = 20.0;
/// Cameras of the rig have the head in their picture, whose corners are 13 degrees off the axis. One that is further
/// off than this looks elsewhere, degrees.
const ASIDE: f64 = 30.0;
/// A matrix whose camera looks this far past the head is one of another convention, if all look at the head by that,
/// degrees.
const PAST: f64 = 20.0;
/// What to do about numbers that mean something else.
const CONVENTION: &str =
    "the file is to be as the data set has it: world to camera, OpenCV axes, rows first, metres and pixels";

/// A calibrated camera as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Row-major 3 x 3, pixels of the size that was calibrated.
    pub intrinsics: [f64; 9],
    /// Row-major 4 x 4, OpenCV axes, metres.
    pub world_to_cam: [f64; 16],
}

impl Calibration {
    /// The camera for pictures of the calibrated size.
    pub fn camera(&self, width: u32, height: u32) -> Camera {
        Camera::from_row_major(&self.intrinsics, &self.world_to_cam, width, height)
    }
}

/// The cameras of a participant.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibrations {
    /// By serial.
    pub cameras: BTreeMap<String, Calibration>,
    /// Size of the pictures that the intrinsics are for, px; `None`: that of the pictures that lie beside it.
    pub size: Option<(u32, u32)>,
}

/// Path of a participant's calibration below the root of a capture.
pub fn calibration_path(root: &Path, participant: u32) -> PathBuf {
    root.join(format!("{participant:03}/calibration/camera_params.json"))
}

/// Path of a camera's video of a sequence.
pub fn video_path(root: &Path, participant: u32, sequence: &str, serial: &str) -> PathBuf {
    root.join(format!("{participant:03}/sequences/{sequence}/images/cam_{serial}.mp4"))
}

/// Path of a camera's matte video of a sequence.
pub fn alpha_path(root: &Path, participant: u32, sequence: &str, serial: &str) -> PathBuf {
    root.join(format!("{participant:03}/sequences/{sequence}/alpha_maps/cam_{serial}.mp4"))
}

/// Writes a participant's calibration: one matrix if all cameras share their intrinsics, as in the download, else one
/// for each serial. Makes the folders that are needed.
pub fn write_calibration(root: &Path, participant: u32, cameras: &[(String, Camera)]) -> Result<PathBuf, Fault> {
    let path = calibration_path(root, participant);
    let rows = |values: &[f64], width: usize| Value::from(values.chunks(width).map(Value::from).collect::<Vec<_>>());
    let mut poses = Map::new();
    let mut intrinsics = Map::new();
    for (serial, camera) in cameras {
        poses.insert(serial.clone(), rows(&camera.world_to_cam_row_major(), 4));
        intrinsics.insert(serial.clone(), rows(&camera.intrinsics_row_major(), 3));
    }
    let shared = cameras.windows(2).all(|pair| pair[0].1.intrinsics == pair[1].1.intrinsics);
    let intrinsics = match cameras.first() {
        Some((serial, _)) if shared => intrinsics[serial].clone(),
        _ => Value::from(intrinsics),
    };
    put(&path, &json!({ "world_2_cam": poses, "intrinsics": intrinsics }))?;
    Ok(path)
}

/// Writes a participant's calibration as DiffusionAvatars reads it: `calibration/config.json` and
/// `calibration_result.json` below `folder`, poses as Rodrigues vectors, one set of intrinsics if all cameras share it.
/// `size` is that of the pictures that the intrinsics are for, px. Answers with the two files.
///
/// All fields of the reference's classes are there. Nothing was optimised here and no checkerboard was seen: lists of
/// corners, positions and costs are empty, and weights are the classes' defaults. Rows are in the order of the rig's
/// serials, without gaps: where a camera is missing, DiffusionAvatars' reader, which goes by their places, takes those
/// behind it for others.
///
/// # Errors
/// If a file cannot be written.
pub fn write_diffusion_avatars_calibration(
    folder: &Path,
    calibrations: &Calibrations,
    size: (u32, u32),
) -> Result<[PathBuf; 2], Fault> {
    let order: Vec<&String> = crate::capture::SERIALS
        .iter()
        .filter_map(|serial| calibrations.cameras.get_key_value(*serial).map(|(serial, _)| serial))
        .chain(calibrations.cameras.keys().filter(|serial| !crate::capture::SERIALS.contains(&serial.as_str())))
        .collect();
    let cameras: Vec<&Calibration> = order.iter().map(|serial| &calibrations.cameras[*serial]).collect();
    let split: Vec<(DVec3, DVec3)> = cameras.iter().map(|camera| rodrigues_of(&camera.world_to_cam)).collect();
    let intrinsics = |k: &[f64; 9]| json!({ "cx": k[2], "cy": k[5], "fx": k[0], "fy": k[4] });
    let shared = cameras.windows(2).all(|pair| pair[0].intrinsics == pair[1].intrinsics);
    let sets: Vec<Value> =
        cameras.iter().take(if shared { 1 } else { usize::MAX }).map(|c| intrinsics(&c.intrinsics)).collect();
    let config = json!({
        "dataset_version": "effigy", "positions": [],
        "lambda_corner_displacements": 1000.0, "lambda_principal_point": 100.0, "lambda_focal_length": 0.0,
        "corner_displacement_mode": null, "optimization_mode": "SCIPY", "use_double": false,
        "serials": order, "image_size": { "w": size.0, "h": size.1 }, "optimizer_per_camera_intrinsics": !shared,
    });
    let triples =
        |take: &dyn Fn(&(DVec3, DVec3)) -> DVec3| split.iter().map(|s| take(s).to_array()).collect::<Vec<_>>();
    let result = json!({
        "params_result": {
            "ts": triples(&|s| s.1), "rs": triples(&|s| s.0), "checkerboard_poses": [],
            // none, where a list would have to have a shape
            "corner_displacements": null, "intrinsics": sets,
        },
        "detected_corners": [], "runtime": 0.0, "cost_history": [], "n_residuals": 0,
    });
    let files = ["config.json", "calibration_result.json"].map(|name| folder.join("calibration").join(name));
    for (path, value) in files.iter().zip([config, result]) {
        put(path, &value)?;
    }
    Ok(files)
}

pub(super) fn put(path: &Path, value: &Value) -> Result<(), Fault> {
    files::put(path, format!("{value:#}\n").as_bytes())
}

/// Rotation as a Rodrigues vector (axis times angle, radians) and translation of a row-major rigid transform.
fn rodrigues_of(m: &[f64; 16]) -> (DVec3, DVec3) {
    let rotation = DMat3::from_cols_array(&[m[0], m[4], m[8], m[1], m[5], m[9], m[2], m[6], m[10]]);
    let scaled = DQuat::from_mat3(&rotation).normalize().to_scaled_axis();
    (scaled, DVec3::new(m[3], m[7], m[11]))
}

/// The row-major rigid transform of a Rodrigues vector and a translation.
fn from_rodrigues(r: DVec3, t: DVec3) -> [f64; 16] {
    let m = DMat3::from_quat(DQuat::from_scaled_axis(r));
    let row = |i: usize| m.row(i).to_array();
    let [a, b, c] = [row(0), row(1), row(2)];
    [a[0], a[1], a[2], t.x, b[0], b[1], b[2], t.y, c[0], c[1], c[2], t.z, 0.0, 0.0, 0.0, 1.0]
}

/// Reads a calibration: `camera_params.json`, or `calibration_result.json` with `config.json` beside it.
///
/// # Errors
/// If the file is missing, a field is missing or has another shape, the poses are not rigid or not in metres, the
/// intrinsics not in pixels, or the cameras do not look at the origin, where the head is; the message says by which
/// other convention they would.
pub fn read_calibration(path: &Path) -> Result<Calibrations, Fault> {
    let value = files::json(path)?;
    let calibrations = if value.get("params_result").is_some() {
        rig_calibration(path, &value)?
    } else {
        camera_params(path, &value)?
    };
    for (serial, camera) in &calibrations.cameras {
        check_pose(path, serial, &camera.world_to_cam)?;
        check_intrinsics(path, serial, &camera.intrinsics)?;
    }
    check_directions(path, &calibrations)?;
    Ok(calibrations)
}

fn get<'a>(path: &Path, value: &'a Value, name: &str, expected: &'static str) -> Result<&'a Value, Fault> {
    let found = name.split('.').try_fold(value, |value, part| value.get(part));
    found.ok_or_else(|| fault(path, name, "nothing", expected))
}

fn camera_params(path: &Path, value: &Value) -> Result<Calibrations, Fault> {
    let expected = "an object of 4 x 4 matrices by camera serial";
    let poses = get(path, value, "world_2_cam", expected)?;
    let poses = poses.as_object().ok_or_else(|| fault(path, "world_2_cam", kind(poses), expected))?;
    let intrinsics = get(path, value, "intrinsics", "a 3 x 3 matrix, or an object of them by camera serial")?;
    let mut cameras = BTreeMap::new();
    for (serial, pose) in poses {
        let world_to_cam = matrix::<16>(pose, 4).ok_or_else(|| {
            let expected = "a 4 x 4 matrix of numbers, rows first";
            fault(path, format!("world_2_cam.{serial}"), shape(pose), expected)
        })?;
        let (name, own) = match intrinsics {
            Value::Object(_) => {
                let name = format!("intrinsics.{serial}");
                let own = get(path, value, &name, "a 3 x 3 matrix for each serial of world_2_cam")?;
                (name, own)
            }
            shared => ("intrinsics".to_owned(), shared),
        };
        let intrinsics = matrix::<9>(own, 3)
            .ok_or_else(|| fault(path, name, shape(own), "a 3 x 3 matrix of numbers, rows first"))?;
        cameras.insert(serial.clone(), Calibration { intrinsics, world_to_cam });
    }
    // the download's one matrix holds for full pictures; the benchmark's many are for the pictures beside them
    Ok(Calibrations { cameras, size: (!intrinsics.is_object()).then_some(FULL_SIZE) })
}

fn rig_calibration(path: &Path, value: &Value) -> Result<Calibrations, Fault> {
    let config_path = path.with_file_name("config.json");
    let config = files::json(&config_path)?;
    let serials = get(&config_path, &config, "serials", "a list of camera serials")?;
    let serials: Vec<String> = serials
        .as_array()
        .and_then(|list| list.iter().map(|serial| serial.as_str().map(str::to_owned)).collect())
        .ok_or_else(|| fault(&config_path, "serials", kind(serials), "a list of camera serials"))?;
    let side = |name: &str| -> Result<u32, Fault> {
        let found = get(&config_path, &config, name, "a number of pixels")?;
        let number = found.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        number.ok_or_else(|| fault(&config_path, name, kind(found), "a number of pixels"))
    };
    let size = (side("image_size.w")?, side("image_size.h")?);
    let triples = |name: &str| -> Result<Vec<DVec3>, Fault> {
        let expected = "three numbers for each serial of config.json";
        let found = get(path, value, name, expected)?;
        let triples: Option<Vec<DVec3>> = found.as_array().and_then(|rows| {
            rows.iter().map(|row| matrix::<3>(&Value::from(vec![row.clone()]), 3).map(DVec3::from)).collect()
        });
        triples
            .filter(|triples| triples.len() == serials.len())
            .ok_or_else(|| fault(path, name, shape(found), expected))
    };
    let (translations, rotations) = (triples("params_result.ts")?, triples("params_result.rs")?);
    let params = get(path, value, "params_result", "an object")?;
    let sets: Vec<[f64; 9]> = match params.get("intrinsics").and_then(Value::as_array) {
        Some(list) => {
            let name = |i: usize| format!("params_result.intrinsics.{i}");
            list.iter().enumerate().map(|(i, set)| pinhole(path, set, &name(i))).collect::<Result<_, _>>()?
        }
        None => vec![pinhole(path, params, "params_result")?],
    };
    if sets.len() != 1 && sets.len() != serials.len() {
        let found = format!("a list of {}", sets.len());
        let expected = "one set for all cameras, or one for each serial of config.json";
        return Err(fault(path, "params_result.intrinsics", found, expected));
    }
    let camera = |(i, serial): (usize, String)| {
        let world_to_cam = from_rodrigues(rotations[i], translations[i]);
        (serial, Calibration { intrinsics: sets[i % sets.len()], world_to_cam })
    };
    Ok(Calibrations { cameras: serials.into_iter().enumerate().map(camera).collect(), size: Some(size) })
}

/// Intrinsics from `fx`, `fy`, `cx`, `cy`; as in the reference, `fy` is `fx` where it is not given.
fn pinhole(path: &Path, set: &Value, name: &str) -> Result<[f64; 9], Fault> {
    let number = |key: &str| {
        let field = format!("{name}.{key}");
        let found = set.get(key).ok_or_else(|| fault(path, &field, "nothing", "a number of pixels"))?;
        found.as_f64().ok_or_else(|| fault(path, &field, kind(found), "a number of pixels"))
    };
    let fx = number("fx")?;
    let fy = if set.get("fy").is_none_or(Value::is_null) { fx } else { number("fy")? };
    Ok([fx, 0.0, number("cx")?, 0.0, fy, number("cy")?, 0.0, 0.0, 1.0])
}

/// Whether a pose can be that of a camera of a rig around a head.
fn check_pose(path: &Path, serial: &str, m: &[f64; 16]) -> Result<(), Fault> {
    let wrong = |found: String, expected| {
        Err(fault(path, format!("pose of camera {serial}"), found, expected).advised(CONVENTION))
    };
    if m[12..].iter().zip([0.0, 0.0, 0.0, 1.0]).any(|(x, y)| (x - y).abs() > 1e-6) {
        return wrong(format!("the last row {:?}", &m[12..]), "0 0 0 1: a matrix is stored rows first");
    }
    let rotation = DMat3::from_cols_array(&[m[0], m[4], m[8], m[1], m[5], m[9], m[2], m[6], m[10]]);
    let off =
        (rotation * rotation.transpose() - DMat3::IDENTITY).to_cols_array().iter().fold(0.0f64, |a, b| a.max(b.abs()));
    if off > 1e-3 || rotation.determinant() < 0.0 {
        let found =
            format!("a matrix that is no rotation (off by {off:.3}, determinant {:.3})", rotation.determinant());
        return wrong(found, "a rigid transform from world to camera");
    }
    let distance = DVec3::new(m[3], m[7], m[11]).length();
    if !(NEAREST..FARTHEST).contains(&distance) {
        let found = format!("{distance:.3} m between camera and head");
        return wrong(found, "0.1 to 20 m: are these numbers metres?");
    }
    Ok(())
}

/// Whether intrinsics are an upper triangle in pixels.
fn check_intrinsics(path: &Path, serial: &str, k: &[f64; 9]) -> Result<(), Fault> {
    let wrong = |found: String, expected| {
        Err(fault(path, format!("intrinsics of camera {serial}"), found, expected).advised(CONVENTION))
    };
    if k[0] <= 0.0 || k[4] <= 0.0 {
        return wrong(format!("a focal length of {} px", k[0].min(k[4])), "a positive focal length");
    }
    if [k[3], k[6], k[7], k[8] - 1.0].iter().any(|x| x.abs() > 1e-6) {
        let found = format!("the rows {:?}, {:?} and {:?}", &k[..3], &k[3..6], &k[6..]);
        return wrong(found, "fx s cx, 0 fy cy and 0 0 1: a matrix is stored rows first");
    }
    if k[0].min(k[4]) < 10.0 || (k[2].abs() < 2.0 && k[5].abs() < 2.0) {
        let found = format!("focal lengths of {} and {} and a principal point at ({}, {})", k[0], k[4], k[2], k[5]);
        return wrong(found, "pixels: these are lengths relative to the picture");
    }
    Ok(())
}

/// Whether the cameras look at the origin, where the head is, as those of a capture of one's own have to
/// ([`crate::views::check_directions`]). Pictures need no size here: of each pose counts by how much it looks past the
/// origin, and whether all would look there if the matrices were meant otherwise.
fn check_directions(path: &Path, calibrations: &Calibrations) -> Result<(), Fault> {
    let half_turn = DMat4::from_scale(DVec3::new(1.0, -1.0, -1.0));
    let past = |meant: &dyn Fn(DMat4) -> DMat4| -> Vec<f64> {
        let degrees = |camera: &Calibration| {
            let origin = meant(DMat4::from_cols_array(&camera.world_to_cam).transpose()).w_axis.truncate();
            origin.angle_between(DVec3::Z).to_degrees()
        };
        calibrations.cameras.values().map(degrees).collect()
    };
    let worst = |degrees: &[f64]| degrees.iter().fold(0.0f64, |a, b| a.max(*b));
    let given = past(&|pose| pose);
    let others: [(&'static str, Vec<f64>); 3] = [
        (
            "matrices from world to camera: the cameras would look at the head if each were inverted",
            past(&|m| m.inverse()),
        ),
        (
            "OpenCV axes (y down, z forward): the cameras would look at the head with y and z of each turned round",
            past(&|m| half_turn * m),
        ),
        (
            "matrices from world to camera with OpenCV axes: the cameras would look at the head if each were inverted and its y and z turned round",
            past(&|m| half_turn * m.inverse()),
        ),
    ];
    let best = others.iter().min_by(|(_, a), (_, b)| worst(a).total_cmp(&worst(b)));
    let expected = match best {
        Some((expected, other)) if worst(&given) > PAST && 2.0 * worst(other) < worst(&given) => *expected,
        _ if !given.is_empty() && given.iter().all(|degrees| *degrees > ASIDE) => {
            "cameras that look at the origin, where the head is"
        }
        _ => return Ok(()),
    };
    let found = format!("cameras that look up to {:.0} degrees past the origin", worst(&given));
    Err(fault(path, "poses of the cameras", found, expected).advised(CONVENTION))
}

pub(super) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a truth value".to_owned(),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("the text `{s}`"),
        Value::Array(a) => format!("a list of {}", a.len()),
        Value::Object(o) => format!("an object of {}", o.len()),
    }
}

pub(super) fn shape(value: &Value) -> String {
    let Some(rows) = value.as_array() else { return kind(value) };
    let Some(bad) = rows.iter().flat_map(|r| r.as_array().into_iter().flatten()).find(|x| !x.is_number()) else {
        let lengths: Vec<String> =
            rows.iter().map(|r| r.as_array().map_or("no list".to_owned(), |r| r.len().to_string())).collect();
        return format!("{} rows of lengths {}", rows.len(), lengths.join(", "));
    };
    format!("an entry that is {}", kind(bad))
}

/// `N` finite numbers in rows of `width`.
fn matrix<const N: usize>(value: &Value, width: usize) -> Option<[f64; N]> {
    let rows = value.as_array()?;
    let mut flat = Vec::with_capacity(N);
    for row in rows {
        let row = row.as_array().filter(|r| r.len() == width)?;
        for x in row {
            flat.push(x.as_f64().filter(|x| x.is_finite())?);
        }
    }
    flat.try_into().ok()
}
