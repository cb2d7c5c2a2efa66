//! `evaluate_tracking`: how far the tracked surface is from the true one, beside the model's mean shape.
//!
//! reads: mesh, truth, landmarks3d?; with head_model
//! writes: scan_to_mesh_mm, scan_to_mesh_median_mm, mean_shape_mm, landmark_mm
//!
//! Points of the true skin and eyes in front of the ears and above the chin's underside, as cameras see them, to the
//! nearest point of the tracked mesh. `mean_shape_mm` is the same for the head model's mean (all codes zero), rigidly
//! placed by the true head motion: what one has without tracking. `landmark_mm` is the mean distance of triangulated
//! landmarks from the true corners of eyes and mouth, and null without any; what a network means by a corner differs a
//! little from what the synthetic head does. Poses and codes are judged by `evaluate_poses` and `probe_expression`.

use crate::common::head_models::{self, initial_frame};
use crate::common::landmarks;
use crate::common::tracked;
use anyhow::{Context, Result};
use datasets::capture::portrait_camera;
use datasets::truth::{Truth, landmark};
use geometry::{Mesh, raster};
use glam::Vec3;
use manifests::Type;
use metrics::points::scan_to_mesh;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use tch::{Kind, Tensor};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Centre of the true head at rest, world frame, metres.
    #[serde(default)]
    center: [f64; 3],
}

/// Width and height of the views that points of the truth are taken from, px.
const RESOLUTION: u32 = 96;

fn def() -> StageDef {
    StageDef::new("evaluate_tracking", 6, Grain::Row)
        .doc("Distance from the true face to the tracked mesh and to the mean shape.")
        .reads([("mesh", Type::Blob), ("truth", Type::Blob)])
        .may_read([landmarks::TRIANGULATED])
        .with("head_model", head_models::COLUMNS)
        .writes([("scan_to_mesh_mm", Type::F64), ("scan_to_mesh_median_mm", Type::F64), ("mean_shape_mm", Type::F64)])
        .writes([("landmark_mm", Type::F64)])
        .batch(8)
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    let model = head_models::read(cx.with("head_model")?)?;
    let zero = |n: i64| Tensor::zeros([1, n], (Kind::Float, model.vs.device()));
    let (z_id, z_ex) = (zero(model.config.identity.d_id()), zero(model.config.deformation.d_ex));
    let mut mean = head_models::surface(&model, &z_id, &z_ex, 25, 2);
    let pose = initial_frame(params.center).pose;
    mean.positions.iter_mut().for_each(|p| *p = Vec3::from(pose.to_world(p.to_array(), 1.0)));
    anyhow::Ok(EvaluateTracking { mean })
});

struct EvaluateTracking {
    /// The mean shape at rest, world frame.
    mean: Mesh,
}

impl Stage for EvaluateTracking {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.score(unit)).collect()
    }
}

impl EvaluateTracking {
    fn score(&self, unit: &Unit<'_>) -> Result<Rows> {
        let row = unit.row();
        let (mesh, _) = tracked::read_mesh(&row.path("mesh")?)?;
        let truth = Truth::read(&row.path("truth")?)?;
        let face = face_points(&truth);
        let moved = |p: &Vec3| truth.head_pose.transform_point3(*p);
        let mean = Mesh { positions: self.mean.positions.iter().map(moved).collect(), faces: self.mean.faces.clone() };
        let tracked = scan_to_mesh(&face, &mesh).context("the truth has no face, or the mesh no triangles")?;
        let untracked = scan_to_mesh(&face, &mean).context("the mean shape has no surface")?;
        let row = OutRow::new()
            .f64("scan_to_mesh_mm", tracked.mean * 1000.0)
            .f64("scan_to_mesh_median_mm", tracked.median * 1000.0)
            .f64("mean_shape_mm", untracked.mean * 1000.0)
            .maybe_f64("landmark_mm", corners_mm(&row, &truth)?);
        Ok(vec![row])
    }
}

/// Points of the face mesh that the truth has too, by its names.
const CORNERS: [(usize, &str); 6] = [
    (33, "eyeOuterRight"),
    (133, "eyeInnerRight"),
    (362, "eyeInnerLeft"),
    (263, "eyeOuterLeft"),
    (61, "mouthCornerRight"),
    (291, "mouthCornerLeft"),
];

/// Mean distance of triangulated corners of eyes and mouth from the true ones; none if none was found.
fn corners_mm(row: &Row<'_>, truth: &Truth) -> Result<Option<f64>> {
    if !row.has(landmarks::TRIANGULATED.0) {
        return Ok(None);
    }
    let found = landmarks::of_column(&row.floats(landmarks::TRIANGULATED.0)?);
    let distance = |(point, name): &(usize, &str)| {
        let place = truth.landmarks.get(landmark(name)?)?;
        Some((found[*point]? - place.as_dvec3()).length() * 1000.0)
    };
    let distances: Vec<f64> = CORNERS.iter().filter_map(distance).collect();
    Ok((!distances.is_empty()).then(|| distances.iter().sum::<f64>() / distances.len() as f64))
}

/// What cameras in front see of the true skin and eyes, one point a pixel, in front of the head's middle and between
/// brow-top and chin: the face. Not vertices: those crowd around the lips, and many lie in the mouth or behind the
/// lids.
fn face_points(truth: &Truth) -> Vec<Vec3> {
    let eyes = (truth.eyes[0] + truth.eyes[1]) / 2.0;
    let rest = truth.head_pose.inverse();
    let eyes_at_rest = rest.transform_point3(eyes);
    let is_face = |p: &Vec3| {
        let q = rest.transform_point3(*p) - eyes_at_rest;
        q.z > -0.035 && q.y > -0.105 && q.y < 0.05 && q.x.abs() < 0.075
    };
    let mut points = Vec::new();
    for azimuth in [-50.0, -25.0, 0.0, 25.0, 50.0] {
        let camera = portrait_camera(azimuth, 0.0, 1.0, RESOLUTION, RESOLUTION);
        let seen = raster::rasterize(&truth.positions, &truth.faces, &camera, 0.05);
        let hits = seen.tri_id.iter().zip(&seen.bary).filter(|(face, _)| **face >= 0);
        let point = |(face, bary): (&i32, &[f32; 3])| -> Vec3 {
            truth.faces[*face as usize].iter().zip(bary).map(|(&v, b)| truth.positions[v as usize] * *b).sum()
        };
        points.extend(hits.map(point).filter(is_face));
    }
    points
}
