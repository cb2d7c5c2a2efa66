//! `evaluate_expression`: whether mouth and eyes in a render are as open as they truly were, on synthetic people, of
//! whom that is known.
//!
//! reads: gaps, gaps_target (of `evaluate_faces`), truth, intrinsics, world_to_cam, width, height, crop_rect
//! writes: mouth_error, eyes_error, mouth_error_target, eyes_error_target (% of the distance between the outer corners
//! of the eyes)
//!
//! How far lips, corners of the mouth and lids are apart in the picture, `evaluate_faces` says of the render and of the
//! truth's own picture, and the true surface says by its vertices, projected by the row's camera; the errors are mean
//! absolute differences. Gaps need no place and no size, and what the camera foreshortens it foreshortens of both. What
//! the face network means by a lip differs a little from the vertex: the same of the truth's own picture (`_target`) is
//! what the detector comes to by itself. All are null where the gaps are, which is where the network was not sure of a
//! face in both pictures, so that a render in which none is found is not taken for a good one. `evaluate_faces`
//! compares picture with picture; this one alone knows what was meant. Knows no pictures, no networks and no tracking.

use crate::common::landmarks::{GAP_WIDTHS, GAPS};
use crate::common::media::camera_of;
use anyhow::{Context, Result, ensure};
use datasets::truth::{Truth, landmark};
use geometry::Camera;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// No parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

/// What is measured in.
const OUTER: [&str; 2] = ["eyeOuterRight", "eyeOuterLeft"];
/// The first of the gaps are the mouth's, the others the eyes'.
const OF_MOUTH: usize = 2;

fn def() -> StageDef {
    StageDef::new("evaluate_expression", 3, Grain::Row)
        .doc("How far mouth and eyes of a render are from being as open as they truly were, on synthetic people.")
        .reads([("gaps", GAP_WIDTHS), ("gaps_target", GAP_WIDTHS), ("truth", Type::Blob)])
        .reads([("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .reads([("width", Type::I64), ("height", Type::I64), ("crop_rect", Type::Floats(3))])
        .writes(["mouth_error", "eyes_error", "mouth_error_target", "eyes_error_target"].map(|name| (name, Type::F64)))
}

protocol::register!(Params, def, |_: Params, _: &Cx<'_>| anyhow::Ok(EvaluateExpression));

struct EvaluateExpression;

impl Stage for EvaluateExpression {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(compare).collect()
    }
}

fn compare(unit: &Unit<'_>) -> Result<Rows> {
    let row = unit.row();
    let truth = Truth::read(&row.path("truth")?)?;
    let [_, _, side] = row.array("crop_rect")?;
    ensure!(side > 0.0, "column `crop_rect` has a square of {side} px");
    let mut out = OutRow::new();
    for (column, ending) in [("gaps", ""), ("gaps_target", "_target")] {
        if row.has(column) {
            let errors = gap_errors(&row.array(column)?.map(|gap| gap * side), &truth, &camera_of(&row, None)?)?;
            for (name, errors) in [("mouth_error", &errors[..OF_MOUTH]), ("eyes_error", &errors[OF_MOUTH..])] {
                out = out.f64(&format!("{name}{ending}"), errors.iter().sum::<f64>() / errors.len() as f64);
            }
        }
    }
    Ok(vec![out])
}

/// Absolute differences of gaps that were found, px of the camera, and the true ones, in % of what the outer corners of
/// the eyes are apart as the camera would see it head-on.
fn gap_errors(found: &[f64; GAPS.len()], truth: &Truth, camera: &Camera) -> Result<Vec<f64>> {
    let place = |name: &str| -> Result<glam::DVec3> {
        let at = landmark(name).and_then(|i| truth.landmarks.get(i));
        Ok(at.with_context(|| format!("the truth has no landmark `{name}`"))?.as_dvec3())
    };
    let [right, left] = [place(OUTER[0])?, place(OUTER[1])?];
    let depth = camera.project((right + left) / 2.0).1;
    let unit = right.distance(left) * camera.intrinsics.x_axis.x / depth;
    let error = |([(_, a), (_, b)], found): (&[(usize, &str); 2], &f64)| {
        let [a, b] = [camera.project(place(a)?).0, camera.project(place(b)?).0];
        Ok(100.0 * (found - a.distance(b)).abs() / unit)
    };
    GAPS.iter().zip(found).map(error).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::landmarks::Face;
    use glam::{Mat4, Vec3};
    use models::face_mesh::POINTS;

    #[test]
    fn an_open_mouth_is_an_error_where_the_true_one_is_shut_and_place_and_size_are_none() {
        let camera = datasets::capture::portrait_camera(0.0, 0.0, 1.0, 200, 200);
        let mut truth = Truth {
            positions: Vec::new(),
            canonical: Vec::new(),
            faces: Vec::new(),
            arkit: [0.0; 52],
            head_pose: Mat4::IDENTITY,
            landmarks: vec![Vec3::ZERO; 64],
            eyes: [Vec3::ZERO; 2],
        };
        let mut put = |name: &str, at: [f32; 3]| truth.landmarks[landmark(name).unwrap()] = Vec3::from(at);
        for (name, x) in [("Right", -1.0), ("Left", 1.0)] {
            put(&format!("eyeOuter{name}"), [0.05 * x, 0.03, 0.1]);
            put(&format!("eyeUpper{name}"), [0.03 * x, 0.036, 0.1]);
            put(&format!("eyeLower{name}"), [0.03 * x, 0.026, 0.1]);
            put(&format!("mouthCorner{name}"), [0.025 * x, -0.03, 0.1]);
        }
        put("lipUpperInner", [0.0, -0.03, 0.11]);
        put("lipLowerInner", [0.0, -0.032, 0.11]);
        // a face as the truth has it, in a picture of half the camera's size and elsewhere in it, with its lower lip
        // this far down
        let errors = |down: f32, moved: f64| {
            let mut points = vec![[0.0; 2]; POINTS];
            for (i, name) in GAPS.iter().flatten() {
                let down = if *name == "lipLowerInner" { Vec3::NEG_Y * down } else { Vec3::ZERO };
                let at = camera.project((truth.landmarks[landmark(name).unwrap()] + down).as_dvec3()).0;
                points[*i] = [at.x / 2.0 + moved, at.y / 2.0];
            }
            let face = Face { points, depths: vec![0.0; POINTS], presence: 0.9, score: None };
            gap_errors(&face.gaps(100).map(|gap| gap * 200.0), &truth, &camera).unwrap()
        };
        assert!(errors(0.0, 9.0).iter().all(|e| *e < 1e-9));
        // the first gap by a fifth of the distance between the eyes, a little nearer to the camera
        let opened = errors(0.02, 0.0);
        assert!((opened[0] - 20.0).abs() < 0.6, "{opened:?}");
        assert!(opened[1..].iter().all(|e| *e < 1e-9));
    }
}
