//! `evaluate_identity`: whether a render looks like the person in the truth (CSIM).
//!
//! reads: target, render   writes: face_found (0 or 1), csim (cosine), csim_l2 (distance)
//!
//! The face mesh finds the face in either picture, each is cut out with its eyes level, and both are described by 128 numbers
//! (`models/face_descriptor.rs`, dlib's network): `csim` is the cosine of the two, `csim_l2` their distance, 0 for equal faces. Rows in which either picture
//! has no face that the mesh is sure of (profiles, blurred ones) have none, and `face_found` says how many had. The paper's CSIM takes ArcFace: its numbers lie on
//! another scale. Without the weights that `descriptor` names both are null ("not available"), never another number. Knows no tracking.

use crate::landmarks::{Face, find_face};
use crate::media::Image;
use anyhow::Result;
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
    /// Faces that the mesh is less sure of are none.
    #[serde(default = "min_confidence")]
    min_confidence: f64,
}

fn refine() -> usize {
    1
}
fn min_confidence() -> f64 {
    0.5
}

fn def() -> StageDef {
    StageDef::new("evaluate_identity", 1, Grain::Row)
        .doc("Cosine and distance of the face descriptors of render and truth (CSIM).")
        .reads([("target", Type::Blob), ("render", Type::Blob)])
        .writes([("face_found", Type::F64), ("csim", Type::F64), ("csim_l2", Type::F64)])
        .file_param("networks")
        .file_param("descriptor")
        .batch(16)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let mesh = FaceMesh::load(&params.networks)?;
    let descriptor = params.descriptor.as_ref().map(|path| FaceDescriptor::load(path)).transpose()?;
    anyhow::Ok(EvaluateIdentity { params, mesh, descriptor })
});

struct EvaluateIdentity {
    params: Params,
    mesh: FaceMesh,
    descriptor: Option<FaceDescriptor>,
}

impl Stage for EvaluateIdentity {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.compare(unit)).collect()
    }
}

impl EvaluateIdentity {
    fn compare(&self, unit: &Unit<'_>) -> Result<Rows> {
        let row = unit.row();
        let [target, render] = ["target", "render"].map(|name| self.face(&row.path(name)?));
        let likeness = match (target?, render?, &self.descriptor) {
            (Some(target), Some(render), Some(network)) => {
                Ok(likeness(&network.describe(&target.data), &network.describe(&render.data)))
            }
            (target, render, _) => Err(target.is_some() && render.is_some()),
        };
        let number = |of: fn((f64, f64)) -> f64| likeness.map_or(Value::Null, |both| Value::F64(of(both)));
        let found = likeness.map_or_else(|found| found, |_| true);
        let row = OutRow::new()
            .f64("face_found", u8::from(found))
            .set("csim", number(|(cosine, _)| cosine))
            .set("csim_l2", number(|(_, distance)| distance));
        Ok(vec![row])
    }

    /// The face of a picture as the descriptor is shown it; none if there is none that the mesh is sure of.
    fn face(&self, path: &std::path::Path) -> Result<Option<Image>> {
        let image = Image::read(path, 3)?;
        let Face { points, presence, .. } = find_face(&self.mesh, &image, None, self.params.refine)?;
        Ok((presence >= self.params.min_confidence).then(|| image.turned(&chip(&points), CHIP_SIZE)))
    }
}
