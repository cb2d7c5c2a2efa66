//! COLMAP's camera models: their numbers, their parameters, and what they are as intrinsics and lenses.
//!
//! Source: COLMAP's page on camera models, and its list of them for numbers and orders of parameters. Opens no file;
//! the place of a fault is told by who reads.

use std::path::Path;

use geometry::Distortion;

use super::{DAMAGED, Lens};
use crate::fault::Fault;

/// COLMAP's models by number, with how many parameters each has.
pub(super) const MODELS: [(&str, usize); 18] = [
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
    ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    ("SIMPLE_DIVISION", 4),
    ("DIVISION", 5),
    ("SIMPLE_FISHEYE", 3),
    ("FISHEYE", 4),
    ("EUCM", 6),
    ("EQUIRECTANGULAR", 2),
];

/// Those of them that are no lens here.
const UNKNOWN: [&str; 5] = ["RAD_TAN_THIN_PRISM_FISHEYE", "SIMPLE_DIVISION", "DIVISION", "EUCM", "EQUIRECTANGULAR"];

/// Intrinsics and distortion of a model, by its name; none if it is not known here, or has another number of
/// parameters.
///
/// Known are SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV, FULL_OPENCV, FOV, OPENCV_FISHEYE,
/// SIMPLE_RADIAL_FISHEYE, RADIAL_FISHEYE, THIN_PRISM_FISHEYE, SIMPLE_FISHEYE and FISHEYE.
pub fn lens(model: &str, params: &[f64]) -> Option<([f64; 9], Option<Distortion>)> {
    let rational = |k1, k2, p1, p2, k3, k4, k5, k6| Some(Distortion::Rational([k1, k2, p1, p2, k3, k4, k5, k6]));
    let fisheye = |k1, k2, k3, k4| Some(Distortion::Fisheye([k1, k2, k3, k4]));
    let (fx, fy, cx, cy, distortion) = match (model, params) {
        ("SIMPLE_PINHOLE", &[f, cx, cy]) => (f, f, cx, cy, None),
        ("PINHOLE", &[fx, fy, cx, cy]) => (fx, fy, cx, cy, None),
        ("SIMPLE_RADIAL", &[f, cx, cy, k]) => (f, f, cx, cy, rational(k, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        ("RADIAL", &[f, cx, cy, k1, k2]) => (f, f, cx, cy, rational(k1, k2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        ("OPENCV", &[fx, fy, cx, cy, k1, k2, p1, p2]) => (fx, fy, cx, cy, rational(k1, k2, p1, p2, 0.0, 0.0, 0.0, 0.0)),
        ("FULL_OPENCV", &[fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, k5, k6]) => {
            (fx, fy, cx, cy, rational(k1, k2, p1, p2, k3, k4, k5, k6))
        }
        ("FOV", &[fx, fy, cx, cy, omega]) => (fx, fy, cx, cy, Some(Distortion::Fov(omega))),
        ("OPENCV_FISHEYE", &[fx, fy, cx, cy, k1, k2, k3, k4]) => (fx, fy, cx, cy, fisheye(k1, k2, k3, k4)),
        // the first terms of the same polynomial of the angle, or none
        ("SIMPLE_RADIAL_FISHEYE", &[f, cx, cy, k]) => (f, f, cx, cy, fisheye(k, 0.0, 0.0, 0.0)),
        ("RADIAL_FISHEYE", &[f, cx, cy, k1, k2]) => (f, f, cx, cy, fisheye(k1, k2, 0.0, 0.0)),
        ("SIMPLE_FISHEYE", &[f, cx, cy]) => (f, f, cx, cy, fisheye(0.0, 0.0, 0.0, 0.0)),
        ("FISHEYE", &[fx, fy, cx, cy]) => (fx, fy, cx, cy, fisheye(0.0, 0.0, 0.0, 0.0)),
        ("THIN_PRISM_FISHEYE", &[fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1]) => {
            (fx, fy, cx, cy, Some(Distortion::ThinPrism([k1, k2, p1, p2, k3, k4, sx1, sy1])))
        }
        _ => return None,
    };
    Some(([fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0], distortion.filter(|lens| !lens.is_identity())))
}

/// A camera; within it an error if its model is not known here.
pub(super) fn checked(
    path: &Path,
    place: &str,
    model: &str,
    size: [u64; 2],
    params: &[f64],
) -> Result<Result<Lens, Fault>, Fault> {
    let Some((intrinsics, distortion)) = lens(model, params) else {
        let known = MODELS.iter().filter(|(name, _)| !UNKNOWN.contains(name));
        if let Some((_, count)) = known.clone().find(|(name, _)| *name == model) {
            let (found, expected) = (format!("{} parameters", params.len()), format!("{count} for {model}"));
            return Err(Fault::at(path, place, &found, &expected, DAMAGED));
        }
        let names: Vec<&str> = known.map(|(name, _)| *name).collect();
        return Ok(Err(Fault::at(
            path,
            place,
            format!("the camera model {model}"),
            format!("one of {}", names.join(", ")),
            "run `colmap image_undistorter`, which makes pictures and a model of PINHOLE cameras, or calibrate as OPENCV",
        )));
    };
    let [width, height] = size.map(|side| u32::try_from(side).ok().filter(|side| (1..=65536).contains(side)));
    let (Some(width), Some(height)) = (width, height) else {
        return Err(Fault::at(path, place, format!("{} x {} px", size[0], size[1]), "1 to 65536 px a side", DAMAGED));
    };
    let found = || format!("parameters {params:?}");
    if params.iter().any(|x| !x.is_finite()) || intrinsics[0] <= 0.0 || intrinsics[4] <= 0.0 {
        return Err(Fault::at(path, place, found(), "finite ones, focal lengths above 0", DAMAGED));
    }
    if let Some(Distortion::Fov(omega)) = distortion
        && omega.abs() >= std::f64::consts::PI
    {
        let hint = "omega is the last parameter of FOV; was the calibration given degrees?";
        return Err(Fault::at(path, place, found(), "an omega of less than pi, radians", hint));
    }
    Ok(Ok(Lens { width, height, intrinsics, distortion }))
}
