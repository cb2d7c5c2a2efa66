//! `triangulate_landmarks`: landmarks of one moment, seen by several cameras, to places in space.
//!
//! reads: landmarks, landmark_confidence, eye_points?, intrinsics, world_to_cam, width, height
//! writes: landmarks3d (x y z of each, metres; NaN where too few views agree), landmark_residuals (px at a face of 100
//! px; NaN likewise), landmarks_found, landmark_error (root mean square over those found, px at a face of 100 px),
//! eye_points3d (irises and lids, metres; NaN likewise), iris_views (views that agree on the left and the right iris)
//!
//! A group is what was filmed at one moment. Views that the mesh is unsure of are left out, and a point counts where at
//! least `min_views` views agree (`geometry::triangulate`): the far side of a turned face is guessed, not seen. A
//! moment without a face has no places, and is no error. Reads no pictures.

use crate::common::eyes::{self, triangulate_eyes};
use crate::common::landmarks::{TRIANGULATED, disagreement, face_size, to_column, triangulate_all};
use crate::common::media::camera_of;
use anyhow::Result;
use geometry::triangulate::{Agreement, View};
use manifests::Type;
use models::face_mesh::POINTS;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Views in which the face is less certain are left out.
    #[serde(default = "min_confidence")]
    min_confidence: f64,
    /// A view agrees with a place whose projection is nearer to its landmark than this, in shares of the face's size
    /// there.
    #[serde(default = "threshold")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    threshold: f64,
    /// The same for an iris, which is small and round.
    #[serde(default = "iris_threshold")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    iris_threshold: f64,
    /// Views that have to agree.
    #[serde(default = "min_views")]
    #[schemars(range(min = 2))]
    min_views: usize,
}

fn min_confidence() -> f64 {
    0.5
}
/// About 4 mm on a face.
pub fn threshold() -> f64 {
    0.025
}
/// About 2 mm.
fn iris_threshold() -> f64 {
    0.012
}
/// Two views agree on any place along an epipolar line; a third one tells.
pub fn min_views() -> usize {
    3
}

fn def() -> StageDef {
    StageDef::new("triangulate_landmarks", 2, Grain::Group)
        .doc("Triangulates the landmarks of one moment over its views.")
        .reads([("landmarks", Type::Floats(2 * POINTS as u32)), ("landmark_confidence", Type::F64)])
        .may_read([eyes::SEEN])
        .reads([("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .reads([("width", Type::I64), ("height", Type::I64)])
        .writes([TRIANGULATED, ("landmark_residuals", Type::Floats(POINTS as u32))])
        .writes([("landmarks_found", Type::I64), ("landmark_error", Type::F64)])
        .writes([eyes::TRIANGULATED, eyes::IRIS_VIEWS])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(TriangulateLandmarks { params }));

struct TriangulateLandmarks {
    params: Params,
}

impl Stage for TriangulateLandmarks {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.triangulate(unit)).collect()
    }
}

impl TriangulateLandmarks {
    fn triangulate(&self, unit: &Unit<'_>) -> Result<Rows> {
        let p = &self.params;
        let (mut seen, mut seen_eyes) = (Vec::new(), Vec::new());
        for row in unit.rows() {
            if row.f64("landmark_confidence")? >= p.min_confidence {
                let unseen = || vec![f64::NAN; 12];
                seen_eyes.push(if row.has(eyes::SEEN.0) { row.floats(eyes::SEEN.0)?.to_vec() } else { unseen() });
                seen.push((camera_of(&row, None)?, row.floats("landmarks")?.as_chunks::<2>().0.to_vec()));
            }
        }
        let agreement = Agreement { threshold: p.threshold, min_views: p.min_views };
        let points = triangulate_all(&seen, &agreement);
        let views: Vec<View> = seen.iter().map(|(camera, points)| View::new(camera, face_size(points))).collect();
        let of_iris = Agreement { threshold: p.iris_threshold, min_views: p.min_views };
        let (eye_points, iris_views) = triangulate_eyes(&views, &seen_eyes, &of_iris, &agreement);
        let row = OutRow::new()
            .floats(TRIANGULATED.0, to_column(points.iter().map(|p| p.as_ref().map(|p| p.position))))
            .floats("landmark_residuals", points.iter().map(|p| p.as_ref().map_or(f64::NAN, |p| 100.0 * p.error)))
            .floats(eyes::TRIANGULATED.0, eye_points)
            .floats(eyes::IRIS_VIEWS.0, iris_views)
            .i64("landmarks_found", points.iter().flatten().count())
            .maybe_f64("landmark_error", disagreement(&points));
        Ok(vec![row])
    }
}
