//! `mask_regions`: where mouth and eyes are in each crop, from the landmarks of its frame; for `train_avatar`'s terms
//! `mouth_weight` and `eyes_weight`.
//!
//! reads: crop_rect, landmarks?, landmark_confidence?
//! writes: mouth_mask (grey PNG, 255 inside the outer rim of the lips), eyes_mask (the same of a disc around each eye:
//! closed, its contour has no inside)
//!
//! Landmarks are those of MediaPipe's face mesh, in px of the calibrated image, as `detect_landmarks` finds them. Where
//! there are none, or the mesh doubts that it saw a face (in profile, from behind), nothing is marked. Looks at no
//! image.

use crate::common::media::Image;
use crate::common::regions::{EYE_CORNERS, LIPS};
use anyhow::Result;
use manifests::Type;
use models::face_mesh::POINTS;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// How much wider the disc around an eye is than the eye.
const GROWN: f64 = 1.3;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Width and height of the masks, px: those of the G-buffers.
    #[schemars(range(min = 1, max = 16384))]
    size: usize,
    /// Least confidence of the landmarks, 0 to 1.
    #[serde(default = "confidence")]
    confidence: f64,
}

fn confidence() -> f64 {
    0.5
}

fn def() -> StageDef {
    StageDef::new("mask_regions", 1, Grain::Row)
        .doc("Marks the mouth and the eyes in each crop, by the landmarks of its frame.")
        .reads([("crop_rect", Type::Floats(3))])
        .may_read([("landmarks", Type::Floats(2 * POINTS as u32)), ("landmark_confidence", Type::F64)])
        .writes([("mouth_mask", Type::Blob), ("eyes_mask", Type::Blob)])
        .batch(64)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(MaskRegions { params }));

struct MaskRegions {
    params: Params,
}

impl Stage for MaskRegions {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.mask(unit, cx)).collect()
    }
}

impl MaskRegions {
    fn mask(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let (row, size) = (unit.row(), self.params.size);
        let [x0, y0, side] = row.array("crop_rect")?;
        let seen = row.has("landmarks")
            && (!row.has("landmark_confidence") || row.f64("landmark_confidence")? >= self.params.confidence);
        let (mut mouth, mut eyes) = (vec![0u8; size * size], vec![0u8; size * size]);
        if seen {
            let points = row.floats("landmarks")?;
            let scale = size as f64 / side;
            let at = |i: usize| [(points[2 * i] - x0) * scale, (points[2 * i + 1] - y0) * scale];
            let rim = LIPS.map(at);
            let discs = EYE_CORNERS.map(|corners| disc(corners.map(at)));
            for i in 0..size * size {
                let center = [(i % size) as f64 + 0.5, (i / size) as f64 + 0.5];
                let marked = |is: bool| if is { 255 } else { 0 };
                mouth[i] = marked(inside(&rim, center));
                eyes[i] = marked(discs.iter().any(|(middle, radius)| distance(*middle, center) < *radius));
            }
        }
        let file = |name: &str, mask: Vec<u8>| -> Result<PathBuf> {
            let path = cx.file(unit, name);
            Image::new(size, size, 1, mask).write_png(&path)?;
            Ok(path)
        };
        let (mouth, eyes) = (file("mouth.png", mouth)?, file("eyes.png", eyes)?);
        Ok(vec![OutRow::new().file("mouth_mask", &mouth).file("eyes_mask", &eyes)])
    }
}

/// The disc around an eye with these corners: middle and radius, which takes in both lids and the skin that moves
/// along.
fn disc([a, b]: [[f64; 2]; 2]) -> ([f64; 2], f64) {
    (std::array::from_fn(|i| 0.5 * (a[i] + b[i])), 0.5 * GROWN * distance(a, b))
}

fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
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

    #[test]
    fn the_disc_of_an_eye_is_about_its_middle_whether_it_is_open_or_closed() {
        let (middle, radius) = disc([[2.0, 3.0], [6.0, 6.0]]);
        assert_eq!((middle, radius), ([4.0, 4.5], 0.5 * GROWN * 5.0));
    }
}
