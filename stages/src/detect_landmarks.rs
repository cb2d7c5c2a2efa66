//! `detect_landmarks`: the face in each picture, as the 468 points of MediaPipe's face mesh, and its eyes.
//!
//! reads: image, matte?, width?, height?
//! writes: landmarks (x y of each, px), landmark_confidence, face_score, eye_points (iris, upper and lower lid of the
//! left eye, then of the right one, px)
//!
//! Points are in px of the row's `width x height`, for which its intrinsics hold; of the picture, where a row has
//! neither. `landmark_confidence` is the mesh's own word, 0 to 1, on whether there is a face where it looked: low in
//! profile, and for later stages to heed. `face_score` is the detector's, null if it found none. Pictures are looked at
//! one by one; knows no cameras.

use crate::common::eyes;
use crate::common::landmarks::{find_face, refine};
use crate::common::media::Image;
use anyhow::Result;
use manifests::Type;
use models::face_mesh::{EYE_SIZE, FaceMesh, POINTS, Square};
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

fn def() -> StageDef {
    StageDef::new("detect_landmarks", 3, Grain::Row)
        .doc("Finds the 468 landmarks of the face in each picture, and irises and lids.")
        .reads([("image", Type::Blob)])
        .may_read([("matte", Type::Blob), ("width", Type::I64), ("height", Type::I64)])
        .writes([eyes::SEEN])
        .writes([
            ("landmarks", Type::Floats(2 * POINTS as u32)),
            ("landmark_confidence", Type::F64),
            ("face_score", Type::F64),
        ])
        .file_param("networks")
        .batch(16)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let networks = FaceMesh::load(&params.networks)?;
    anyhow::Ok(DetectLandmarks { params, networks })
});

struct DetectLandmarks {
    params: Params,
    networks: FaceMesh,
}

impl Stage for DetectLandmarks {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.detect(unit)).collect()
    }
}

impl DetectLandmarks {
    fn detect(&self, unit: &Unit<'_>) -> Result<Rows> {
        let row = unit.row();
        let image = Image::read(&row.path("image")?, 3)?;
        let matte = row.maybe_path("matte")?.map(|path| Image::read(&path, 1)).transpose()?;
        let face = find_face(&self.networks, &image, matte.as_ref(), self.params.refine)?;
        let scale = |name: &str, size: usize| -> Result<f64> {
            Ok(if row.has(name) { row.i64(name)? as f64 / size as f64 } else { 1.0 })
        };
        let scale = [scale("width", image.width)?, scale("height", image.height)?];
        let mut eye_points = Vec::new();
        for (side, square) in Square::of_eyes(&face.points).iter().enumerate() {
            let eye = self.networks.eye(&image.turned(square, EYE_SIZE).data, side)?;
            eye_points.extend(eyes::points_of(&eye).map(|p| square.at(p[0], p[1])));
        }
        let row = OutRow::new()
            .floats(eyes::SEEN.0, eye_points.iter().flat_map(|p| [p[0] * scale[0], p[1] * scale[1]]))
            .floats("landmarks", face.points.iter().flat_map(|p| [p[0] * scale[0], p[1] * scale[1]]))
            .f64("landmark_confidence", face.presence)
            .maybe_f64("face_score", face.score);
        Ok(vec![row])
    }
}
