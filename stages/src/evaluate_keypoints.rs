//! `evaluate_keypoints`: average keypoint distance (AKD): whether a detector finds the landmarks of the face in the render where it does in the truth.
//!
//! reads: render, target   writes: akd, akd_inner (px of the picture)
//!
//! The mean distance of the 468 points of MediaPipe's face mesh, and without the 36 on the rim of the face, which slide along it. The paper's are
//! 98 points of PIPNet, so the numbers are not its. Where the mesh is not sure of a face in one of the pictures, which profiles and small or blurred pictures are reasons for, both are null: such frames
//! are skipped, as there. Knows no cameras and no meshes of heads.

use crate::landmarks::{Face, PRESENT, find_face};
use crate::media::Image;
use anyhow::{Result, ensure};
use manifests::{Type, Value};
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

fn refine() -> usize {
    1
}

/// The rim of the face in MediaPipe's mesh (`FACEMESH_FACE_OVAL`).
const RIM: [usize; 36] = [
    10, 21, 54, 58, 67, 93, 103, 109, 127, 132, 136, 148, 149, 150, 152, 162, 172, 176, 234, 251, 284, 288, 297, 323, 332,
    338, 356, 361, 365, 377, 378, 379, 389, 397, 400, 454,
];

fn def() -> StageDef {
    StageDef::new("evaluate_keypoints", 1, Grain::Row)
        .doc("Distance of the face's landmarks in each render from those in the truth, px.")
        .reads([("render", Type::Blob), ("target", Type::Blob)])
        .writes([("akd", Type::F64), ("akd_inner", Type::F64)])
        .file_param("networks")
        .batch(16)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let networks = FaceMesh::load(&params.networks)?;
    anyhow::Ok(EvaluateKeypoints { params, networks })
});

struct EvaluateKeypoints {
    params: Params,
    networks: FaceMesh,
}

impl Stage for EvaluateKeypoints {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.score(unit)).collect()
    }
}

impl EvaluateKeypoints {
    fn score(&self, unit: &Unit<'_>) -> Result<Rows> {
        let row = unit.row();
        let [render, target] = ["render", "target"].map(|column| Image::read(&row.path(column)?, 3));
        let (render, target) = (render?, target?);
        let sizes = [&render, &target].map(|image| (image.width, image.height));
        ensure!(sizes[0] == sizes[1], "the render is {:?} px, the target {:?}", sizes[0], sizes[1]);
        let face = |image: &Image| find_face(&self.networks, image, None, self.params.refine);
        let [all, inner] = distances(&face(&render)?, &face(&target)?).map_or([Value::Null, Value::Null], |d| d.map(Value::F64));
        Ok(vec![OutRow::new().set("akd", all).set("akd_inner", inner)])
    }
}

/// Mean distances of all landmarks, and of those within the rim; none if one is no face.
fn distances(a: &Face, b: &Face) -> Option<[f64; 2]> {
    let apart = |i: usize| (a.points[i][0] - b.points[i][0]).hypot(a.points[i][1] - b.points[i][1]);
    let mean = |of: &[usize]| of.iter().map(|&i| apart(i)).sum::<f64>() / of.len() as f64;
    let all: Vec<usize> = (0..a.points.len()).collect();
    let inner: Vec<usize> = all.iter().copied().filter(|i| !RIM.contains(i)).collect();
    (a.presence >= PRESENT && b.presence >= PRESENT).then(|| [mean(&all), mean(&inner)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::face_mesh::POINTS;

    #[test]
    fn the_rim_counts_once_and_faces_that_are_none_not_at_all() {
        let face = |rim: f64, presence: f64| {
            let at = |i: usize| [i as f64 + if RIM.contains(&i) { rim } else { 0.0 }, 3.0];
            Face { points: (0..POINTS).map(at).collect(), depths: vec![0.0; POINTS], presence, score: None }
        };
        let [all, inner] = distances(&face(0.0, 0.9), &face(13.0, 0.9)).unwrap();
        assert!((all - 13.0 * 36.0 / 468.0).abs() < 1e-9 && inner == 0.0, "{all} {inner}");
        assert_eq!(distances(&face(0.0, 0.9), &face(1.0, 0.4)), None);
        assert_eq!(distances(&face(0.0, 0.4), &face(1.0, 0.9)), None);
    }
}
