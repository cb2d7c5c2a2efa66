//! `mask_mouth`: where the mouth is in each crop, from the landmarks of its frame; for `train_avatar`'s term `mouth_weight`.
//!
//! reads: crop_rect, landmarks?, landmark_confidence?   writes: mouth_mask (grey PNG, 255 inside the outer rim of the lips)
//!
//! Landmarks are those of MediaPipe's face mesh, in px of the calibrated image, as `detect_landmarks` finds them. Where there are none,
//! or the mesh doubts that it saw a face (in profile, from behind), nothing is marked. Looks at no image.

use crate::media::Image;
use crate::regions::LIPS;
use anyhow::Result;
use manifests::Type;
use models::face_mesh::POINTS;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Width and height of the masks, px: those of the G-buffers.
    size: usize,
    /// Least confidence of the landmarks, 0 to 1.
    #[serde(default = "confidence")]
    confidence: f64,
}

fn confidence() -> f64 {
    0.5
}

fn def() -> StageDef {
    StageDef::new("mask_mouth", 1, Grain::Row)
        .doc("Marks the mouth in each crop, by the landmarks of its frame.")
        .reads([("crop_rect", Type::Floats(3))])
        .may_read([("landmarks", Type::Floats(2 * POINTS as u32)), ("landmark_confidence", Type::F64)])
        .writes([("mouth_mask", Type::Blob)])
        .batch(64)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(MaskMouth { params }));

struct MaskMouth {
    params: Params,
}

impl Stage for MaskMouth {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.mask(unit, cx)).collect()
    }
}

impl MaskMouth {
    fn mask(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let (row, size) = (unit.row(), self.params.size);
        let [x0, y0, side] = row.array("crop_rect")?;
        let seen = row.has("landmarks")
            && (!row.has("landmark_confidence") || row.f64("landmark_confidence")? >= self.params.confidence);
        let mut mask = vec![0u8; size * size];
        if seen {
            let points = row.floats("landmarks")?;
            let scale = size as f64 / side;
            let rim = LIPS.map(|i| [(points[2 * i] - x0) * scale, (points[2 * i + 1] - y0) * scale]);
            for (i, value) in mask.iter_mut().enumerate() {
                let center = [(i % size) as f64 + 0.5, (i / size) as f64 + 0.5];
                *value = if inside(&rim, center) { 255 } else { 0 };
            }
        }
        let path = cx.file(unit, "mouth.png");
        Image::new(size, size, 1, mask).write_png(&path)?;
        Ok(vec![OutRow::new().file("mouth_mask", &path)])
    }
}

/// Whether a point lies in a polygon: a ray from it crosses the rim an odd number of times.
fn inside(rim: &[[f64; 2]], [x, y]: [f64; 2]) -> bool {
    let mut odd = false;
    for (i, a) in rim.iter().enumerate() {
        let b = rim[(i + 1) % rim.len()];
        if (a[1] > y) != (b[1] > y) && x < a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]) {
            odd = !odd;
        }
    }
    odd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_within_the_rim_is_inside() {
        let rim = [[1.0, 1.0], [5.0, 1.0], [3.0, 2.0], [5.0, 4.0], [1.0, 4.0]];
        assert!(inside(&rim, [2.0, 2.0]) && inside(&rim, [3.5, 3.5]));
        assert!(!inside(&rim, [4.5, 2.0]), "the notch is outside");
        assert!(!inside(&rim, [0.5, 2.0]) && !inside(&rim, [2.0, 4.5]));
    }
}
