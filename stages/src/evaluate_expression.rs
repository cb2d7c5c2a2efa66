//! `evaluate_expression`: whether mouth and eyes in a render are as open as they truly were, on synthetic people, of whom that is known.
//!
//! reads: target, render, truth, intrinsics, world_to_cam, width, height, crop_rect
//! writes: mouth_error, eyes_error, mouth_error_target, eyes_error_target (% of the distance between the outer corners of the eyes), face_found (0 or 1)
//!
//! Gaps of the face: between the lips and between the corners of the mouth, and between the lids of either eye. How wide each is in the picture,
//! MediaPipe's face mesh finds in the render, and the true surface says by its vertices, projected by the row's camera; the errors are mean
//! absolute differences. Gaps need no place and no size, and what the camera foreshortens it foreshortens of both. What the network means by a lip differs a
//! little from the vertex: the same of the truth's own picture (`_target`) is what the detector comes to by itself. All are null where the mesh is not sure of a face in
//! both pictures, so that a render in which none is found is not taken for a good one: `face_found` tells for how many frames the others speak. `evaluate_faces` compares picture with picture; this one alone knows what was meant. Knows no tracking.

use crate::common::landmarks::{Face, refine, sure_face};
use crate::common::media::camera_of;
use anyhow::{Context, Result};
use datasets::truth::{Truth, landmark};
use geometry::Camera;
use manifests::Type;
use models::face_mesh::FaceMesh;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The wheel of mediapipe 0.10.14, which holds the face networks.
    networks: PathBuf,
    /// How often the mesh looks again, where its own points say.
    #[serde(default = "refine")]
    refine: usize,
}

/// Two points of the face mesh, and what the truth calls them.
type Gap = [(usize, &'static str); 2];

/// Between the lips, and between the corners of the mouth.
const MOUTH: [Gap; 2] =
    [[(13, "lipUpperInner"), (14, "lipLowerInner")], [(61, "mouthCornerRight"), (291, "mouthCornerLeft")]];
/// Between the lids.
const EYES: [Gap; 2] =
    [[(159, "eyeUpperRight"), (145, "eyeLowerRight")], [(386, "eyeUpperLeft"), (374, "eyeLowerLeft")]];
/// What is measured in.
const OUTER: [&str; 2] = ["eyeOuterRight", "eyeOuterLeft"];

fn def() -> StageDef {
    StageDef::new("evaluate_expression", 2, Grain::Row)
        .doc("How far mouth and eyes of a render are from being as open as they truly were, on synthetic people.")
        .reads([("target", Type::Blob), ("render", Type::Blob), ("truth", Type::Blob)])
        .reads([("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .reads([("width", Type::I64), ("height", Type::I64), ("crop_rect", Type::Floats(3))])
        .writes(["mouth_error", "eyes_error", "mouth_error_target", "eyes_error_target"].map(|name| (name, Type::F64)))
        .writes([("face_found", Type::F64)])
        .file_param("networks")
        .batch(16)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let mesh = FaceMesh::load(&params.networks)?;
    anyhow::Ok(EvaluateExpression { params, mesh })
});

struct EvaluateExpression {
    params: Params,
    mesh: FaceMesh,
}

impl Stage for EvaluateExpression {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.compare(unit)).collect()
    }
}

impl EvaluateExpression {
    fn compare(&self, unit: &Unit<'_>) -> Result<Rows> {
        let row = unit.row();
        let truth = Truth::read(&row.path("truth")?)?;
        let [x0, y0, side] = row.array("crop_rect")?;
        let [render, target] =
            ["render", "target"].map(|column| sure_face(&self.mesh, &row.path(column)?, self.params.refine));
        let both = render?.zip(target?);
        let mut out = OutRow::new().f64("face_found", u8::from(both.is_some()));
        let faces = both.map(|(render, target)| [(render, ""), (target, "_target")]);
        for ((image, face), ending) in faces.into_iter().flatten() {
            let camera = camera_of(&row, None)?.crop_resized(x0, y0, side, image.width as u32);
            for (name, gaps) in [("mouth_error", &MOUTH), ("eyes_error", &EYES)] {
                out = out.f64(&format!("{name}{ending}"), gap_error(gaps, &face, &truth, &camera)?);
            }
        }
        Ok(vec![out])
    }
}

/// Mean absolute difference of gaps in a face that was found and the true ones, in % of what the outer corners of the eyes are apart as the
/// camera would see it head-on.
fn gap_error(gaps: &[Gap], face: &Face, truth: &Truth, camera: &Camera) -> Result<f64> {
    let place = |name: &str| -> Result<glam::DVec3> {
        let at = landmark(name).and_then(|i| truth.landmarks.get(i));
        Ok(at.with_context(|| format!("the truth has no landmark `{name}`"))?.as_dvec3())
    };
    let [right, left] = [place(OUTER[0])?, place(OUTER[1])?];
    let depth = camera.project((right + left) / 2.0).1;
    let unit = right.distance(left) * camera.intrinsics.x_axis.x / depth;
    let mut sum = 0.0;
    for [(a, name_a), (b, name_b)] in gaps {
        let found = (face.points[*a][0] - face.points[*b][0]).hypot(face.points[*a][1] - face.points[*b][1]);
        let [at_a, at_b] = [place(name_a)?, place(name_b)?].map(|at| camera.project(at).0);
        sum += (found - at_a.distance(at_b)).abs();
    }
    Ok(100.0 * sum / gaps.len() as f64 / unit)
}

#[cfg(test)]
mod tests {
    use super::*;
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
        // a face as the truth has it, elsewhere in the picture, with its lower lip this far down
        let face = |down: f32, moved: f64| {
            let mut points = vec![[0.0; 2]; POINTS];
            for (i, name) in MOUTH.iter().chain(&EYES).flatten() {
                let down = if *name == "lipLowerInner" { Vec3::NEG_Y * down } else { Vec3::ZERO };
                let at = camera.project((truth.landmarks[landmark(name).unwrap()] + down).as_dvec3()).0;
                points[*i] = [at.x + moved, at.y];
            }
            Face { points, depths: vec![0.0; POINTS], presence: 0.9, score: None }
        };
        let error = |gaps: &[Gap], face: &Face| gap_error(gaps, face, &truth, &camera).unwrap();
        assert!(error(&MOUTH, &face(0.0, 9.0)) < 1e-9 && error(&EYES, &face(0.0, 9.0)) < 1e-9);
        // one of two gaps by a fifth of the distance between the eyes, a little nearer to the camera
        let opened = error(&MOUTH, &face(0.02, 0.0));
        assert!((opened - 10.0).abs() < 0.3, "{opened}");
        assert!(error(&EYES, &face(0.02, 0.0)) < 1e-9);
    }
}
