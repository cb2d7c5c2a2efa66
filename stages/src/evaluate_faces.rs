//! `evaluate_faces`: the face in each render against that in the truth: average keypoint distance (AKD), and whether it
//! is the same person (CSIM).
//!
//! reads: target, render
//! writes: face_found (0 or 1), akd, akd_inner (px of the picture), expression_error (% of the face's width), csim
//! (cosine), csim_l2 (distance), gaps, gaps_target (shares of the picture's width: `common/landmarks.rs` names them)
//!
//! MediaPipe's face mesh finds 468 points in either picture. `akd` is the mean distance of one picture's points from
//! the other's, `akd_inner` that without the 36 on the rim of the face, which slide along it. `expression_error` is
//! what remains of the distances, with the network's guess of the points' depth, when the similarity that most points
//! agree on has taken one face to the other: a head in the wrong place or turned too far has none. `gaps` are how far
//! lips, mouth's corners and lids are apart in the render, `gaps_target` in the truth, for whoever knows how far they
//! should be. Each face is then cut out with its eyes level and described by 128 numbers (`models/face_descriptor.rs`,
//! dlib's network): `csim` is the cosine of the two, `csim_l2` their distance, 0 for equal faces. Where the mesh is not
//! sure of a face in either picture, which profiles and small or blurred pictures are reasons for, all are null, as the
//! paper's evaluator skips such frames, and `face_found` says how many had one. The paper takes PIPNet's 98 points and
//! ArcFace: its numbers lie on other scales. Without the weights that `descriptor` names csim and csim_l2 are null
//! ("not available"), never another number. Knows no cameras, no tracking and no meshes of heads.

use crate::common::landmarks::{Face, GAP_WIDTHS, SIDES, refine, sure_face};
use crate::common::media::Image;
use anyhow::{Context, Result, ensure};
use geometry::align::robust_umeyama;
use manifests::{Type, Value};
use models::face_descriptor::{CHIP_SIZE, FaceDescriptor, chip, likeness};
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
    /// The weights of the descriptor: the npm package @vladmandic/face-api 1.7.15.
    #[serde(default)]
    descriptor: Option<PathBuf>,
    /// How often the mesh looks again, where its own points say.
    #[serde(default = "refine")]
    refine: usize,
}

/// The rim of the face in MediaPipe's mesh (`FACEMESH_FACE_OVAL`).
const RIM: [usize; 36] = [
    10, 21, 54, 58, 67, 93, 103, 109, 127, 132, 136, 148, 149, 150, 152, 162, 172, 176, 234, 251, 284, 288, 297, 323,
    332, 338, 356, 361, 365, 377, 378, 379, 389, 397, 400, 454,
];

fn def() -> StageDef {
    StageDef::new("evaluate_faces", 2, Grain::Row)
        .doc("Distance of the face's landmarks (AKD, px) and likeness of the face (CSIM) in each render and its truth.")
        .reads([("target", Type::Blob), ("render", Type::Blob)])
        .writes([("face_found", Type::F64), ("akd", Type::F64), ("akd_inner", Type::F64)])
        .writes([("expression_error", Type::F64), ("csim", Type::F64), ("csim_l2", Type::F64)])
        .writes([("gaps", GAP_WIDTHS), ("gaps_target", GAP_WIDTHS)])
        .file_param("networks")
        .file_param("descriptor")
        .batch(16)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let mesh = FaceMesh::load(&params.networks)?;
    let descriptor = params.descriptor.as_ref().map(|path| FaceDescriptor::load(path)).transpose()?;
    anyhow::Ok(EvaluateFaces { params, mesh, descriptor })
});

struct EvaluateFaces {
    params: Params,
    mesh: FaceMesh,
    descriptor: Option<FaceDescriptor>,
}

impl Stage for EvaluateFaces {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.compare(unit)).collect()
    }
}

impl EvaluateFaces {
    fn compare(&self, unit: &Unit<'_>) -> Result<Rows> {
        let row = unit.row();
        let [target, render] =
            ["target", "render"].map(|name| sure_face(&self.mesh, &row.path(name)?, self.params.refine));
        let both = target?.zip(render?);
        if let Some(((target, _), (render, _))) = &both {
            let sizes = [render, target].map(|image| (image.width, image.height));
            ensure!(sizes[0] == sizes[1], "the render is {:?} px, the target {:?}", sizes[0], sizes[1]);
        }
        let distances = both.as_ref().map(|((_, target), (_, render))| distances(target, render));
        let expression =
            both.as_ref().map(|((_, target), (_, render))| expression_error(render, target)).transpose()?;
        let likeness = both.as_ref().zip(self.descriptor.as_ref()).map(|((target, render), network)| {
            let [target, render] = [target, render].map(|(image, face)| described(network, image, face));
            likeness(&target, &render)
        });
        let [gaps, gaps_target] = match &both {
            Some((target, render)) => {
                [render, target].map(|(image, face)| Value::Floats(face.gaps(image.width).to_vec()))
            }
            None => [Value::Null, Value::Null],
        };
        let row = OutRow::new()
            .f64("face_found", u8::from(both.is_some()))
            .maybe_f64("akd", distances.map(|d| d[0]))
            .maybe_f64("akd_inner", distances.map(|d| d[1]))
            .maybe_f64("expression_error", expression)
            .maybe_f64("csim", likeness.map(|(cosine, _)| cosine))
            .maybe_f64("csim_l2", likeness.map(|(_, distance)| distance))
            .set("gaps", gaps)
            .set("gaps_target", gaps_target);
        Ok(vec![row])
    }
}

/// The descriptor of a face, which is shown it with its eyes level.
pub fn described(network: &FaceDescriptor, image: &Image, face: &Face) -> Vec<f64> {
    network.describe(&image.turned(&chip(&face.points), CHIP_SIZE).data)
}

/// Mean distances of all landmarks, and of those within the rim.
fn distances(a: &Face, b: &Face) -> [f64; 2] {
    let apart = |i: usize| (a.points[i][0] - b.points[i][0]).hypot(a.points[i][1] - b.points[i][1]);
    let mean = |of: &[usize]| of.iter().map(|&i| apart(i)).sum::<f64>() / of.len() as f64;
    let all: Vec<usize> = (0..a.points.len()).collect();
    let inner: Vec<usize> = all.iter().copied().filter(|i| !RIM.contains(i)).collect();
    [mean(&all), mean(&inner)]
}

/// What differs between a face and the true one besides place, size and turn, % of the true one's width.
fn expression_error(face: &Face, truth: &Face) -> Result<f64> {
    let (face, truth) = (face.places(), truth.places());
    let onto = robust_umeyama(&face, &truth, true).context("a face's landmarks lie on a line")?;
    let apart = face.iter().zip(&truth).map(|(a, b)| onto.apply(*a).distance(*b)).sum::<f64>() / truth.len() as f64;
    Ok(100.0 * apart / truth[SIDES[0]].distance(truth[SIDES[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use glam::{DQuat, DVec3};
    use models::face_mesh::POINTS;

    #[test]
    fn the_rim_counts_once_and_faces_that_are_none_not_at_all() {
        let face = |rim: f64, presence: f64| {
            let at = |i: usize| [i as f64 + if RIM.contains(&i) { rim } else { 0.0 }, 3.0];
            Face { points: (0..POINTS).map(at).collect(), depths: vec![0.0; POINTS], presence, score: None }
        };
        let [all, inner] = distances(&face(0.0, 0.9), &face(13.0, 0.9));
        assert!((all - 13.0 * 36.0 / 468.0).abs() < 1e-9 && inner == 0.0, "{all} {inner}");
        assert!(face(0.0, 0.9).sure().is_some() && face(0.0, 0.4).sure().is_none());
    }
    #[test]
    fn an_open_mouth_is_an_error_of_expression_and_a_turned_head_is_none() {
        let face = |open: f64, turn: f64| {
            let place = |i: usize| {
                let t = i as f64;
                let at = DVec3::new((t * 0.7).sin() * 40.0, (t * 1.3).cos() * 50.0, (t * 0.3).sin() * 20.0);
                DQuat::from_rotation_z(turn) * (at + if i.is_multiple_of(9) { DVec3::Y * open } else { DVec3::ZERO })
                    + 90.0
            };
            let places: Vec<DVec3> = (0..POINTS).map(place).collect();
            let (points, depths) = places.iter().map(|p| ([p.x, p.y], p.z)).unzip();
            Face { points, depths, presence: 0.9, score: None }
        };
        let error = |a: &Face, b: &Face| expression_error(a, b).unwrap();
        assert!(error(&face(0.0, 0.3), &face(0.0, -0.1)) < 1e-6);
        let truth = face(0.0, 0.0).places();
        let width = truth[SIDES[0]].distance(truth[SIDES[1]]);
        // a ninth of the points, 18 px
        let opened = error(&face(18.0, 0.3), &face(0.0, 0.0));
        assert!((opened - 100.0 * 2.0 / width).abs() < 0.1 * opened, "{opened} {width}");
    }
}
