//! Which squares of a frame the networks see: one evaluation crop, and random ones of training rows.
//!
//! No stage, but the rule of `raster_gbuffer` and `import_rendering_data`, which must agree for the same frame. Source:
//! DiffusionAvatars, section 2.4 of the specification. Draws depend on names alone. Knows no images.

use anyhow::{Context, Result};
use geometry::Camera;
use glam::DVec3;
use protocol::Row;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use schemars::JsonSchema;
use serde::Deserialize;

/// Height of the window in which random crops lie, in shorter sides of the image (`crop_selection_aspect_ratio`).
const WINDOW: f64 = 1.2;

/// The parameters of both stages.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Width and height of the G-buffers, px.
    #[schemars(range(min = 1, max = 16384))]
    pub size: u32,
    /// Random crops of every training row, besides the evaluation crop.
    #[serde(default = "crops")]
    crops: u32,
    /// Smallest side of a random crop, in shorter sides of the image: the width of an upright one, as in the paper.
    #[serde(default = "min_crop")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    min_crop: f64,
    /// Side of the evaluation crop, in shorter sides of the image.
    #[serde(default = "eval_crop")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    eval_crop: f64,
    /// What crops are centred on, world frame, metres.
    #[serde(default)]
    center: [f64; 3],
    /// Seed of the random crops.
    #[serde(default)]
    seed: u64,
}

fn crops() -> u32 {
    4
}
fn min_crop() -> f64 {
    0.7
}
fn eval_crop() -> f64 {
    1.0
}

impl Params {
    /// The rectangles of a frame, in px of the calibrated image: x0, y0, side. The evaluation crop comes first.
    ///
    /// # Errors
    /// If the centre lies behind the camera, or the row lacks a column.
    pub fn crops(&self, row: &Row<'_>, camera: &Camera) -> Result<Vec<[f64; 3]>> {
        let stream = (row.has("split") && row.str("split")? == "train").then(|| stream(row)).transpose()?;
        self.squares(camera, stream)
    }

    /// The evaluation crop, and of a stream of random numbers the random ones.
    fn squares(&self, camera: &Camera, stream: Option<u64>) -> Result<Vec<[f64; 3]>> {
        let p = self;
        let (width, height) = (f64::from(camera.width), f64::from(camera.height));
        let (center, depth) = camera.project(DVec3::from(p.center));
        anyhow::ensure!(depth > 0.0, "the centre of the crops lies behind the camera");
        // where a span of this length around the head begins, moved into the image
        let top = |span: f64| (center.y - span / 2.0).min(height - span).max(0.0);
        let left = |span: f64| (center.x - span / 2.0).min(width - span).max(0.0);
        let shorter = width.min(height);
        let side = (shorter * p.eval_crop).min(height);
        let mut crops = vec![[left(side), top(side), side]];
        if let Some(stream) = stream {
            let mut rng = ChaCha8Rng::seed_from_u64(p.seed);
            rng.set_stream(stream);
            let [across, down] = [width, height].map(|length| (WINDOW * shorter).min(length));
            for _ in 0..p.crops {
                let side = (shorter * (p.min_crop + (1.0 - p.min_crop) * unit_float(&mut rng))).floor().min(down);
                let x0 = left(across) + ((across - side) * unit_float(&mut rng)).floor();
                let y0 = top(down) + ((down - side) * unit_float(&mut rng)).floor();
                crops.push([x0, y0, side]);
            }
        }
        Ok(crops)
    }
}

/// The stream of random numbers that belongs to a frame, by its names.
fn stream(row: &Row<'_>) -> Result<u64> {
    let name =
        format!("{}/{}/{}/{}", row.i64("participant")?, row.str("sequence")?, row.str("camera")?, row.i64("timestep")?);
    let digest = manifests::Digest::of_bytes(name.as_bytes());
    Ok(u64::from_le_bytes(digest.0[..8].try_into().context("eight bytes")?))
}

fn unit_float(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use glam::{DMat3, DMat4};

    fn crops(text: &str, [width, height]: [u32; 2], across: f64) -> Vec<[f64; 3]> {
        let params: Params = serde_json::from_str(text).unwrap();
        let [f, middle] = [100.0, f64::from(height) / 2.0];
        // the head a metre ahead, so far from the left edge
        let intrinsics = DMat3::from_cols_array(&[f, 0.0, 0.0, 0.0, f, 0.0, across, middle, 1.0]);
        let world_to_cam = DMat4::from_translation(DVec3::Z);
        params.squares(&Camera { intrinsics, world_to_cam, width, height }, Some(1)).unwrap()
    }

    #[test]
    fn an_upright_picture_is_seen_in_its_whole_width() {
        let drawn = crops(r#"{"size": 8}"#, [90, 160], 45.0);
        assert_eq!(drawn[0], [0.0, 35.0, 90.0]);
        assert_eq!(crops(r#"{"size": 8, "eval_crop": 0.5}"#, [90, 160], 60.0)[0], [37.5, 57.5, 45.0]);
        for [x, y, side] in &drawn[1..] {
            assert!((63.0..=90.0).contains(side) && *x >= 0.0 && x + side <= 90.0);
            assert!(*y >= 26.0 && y + side <= 134.0, "within 1.2 widths around the head");
        }
    }

    #[test]
    fn a_picture_that_lies_is_seen_where_the_head_is() {
        assert_eq!(crops(r#"{"size": 8}"#, [160, 90], 80.0)[0], [35.0, 0.0, 90.0]);
        assert_eq!(crops(r#"{"size": 8}"#, [160, 90], 150.0)[0], [70.0, 0.0, 90.0], "no further than the edge");
        for [x, y, side] in &crops(r#"{"size": 8, "crops": 50}"#, [160, 90], 80.0)[1..] {
            assert!((63.0..=90.0).contains(side) && *y >= 0.0 && y + side <= 90.0);
            assert!(*x >= 26.0 && x + side <= 134.0, "within 1.2 heights around the head");
        }
    }
}
