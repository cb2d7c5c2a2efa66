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

/// Height of the window in which random crops lie, in image widths (`crop_selection_aspect_ratio`).
const WINDOW: f64 = 1.2;

/// The parameters of both stages.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Width and height of the G-buffers, px.
    pub size: u32,
    /// Random crops of every training row, besides the evaluation crop.
    #[serde(default = "crops")]
    crops: u32,
    /// Smallest side of a random crop, in image widths.
    #[serde(default = "min_crop")]
    min_crop: f64,
    /// Side of the evaluation crop, in image widths.
    #[serde(default = "eval_crop")]
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
        let p = self;
        let (width, height) = (f64::from(camera.width), f64::from(camera.height));
        let (center, depth) = camera.project(DVec3::from(p.center));
        anyhow::ensure!(depth > 0.0, "the centre of the crops lies behind the camera");
        // the top of a span of this length around the head, moved into the image
        let top = |span: f64| (center.y - span / 2.0).min(height - span).max(0.0);
        let side = (width * p.eval_crop).min(height);
        let left = if p.eval_crop >= 1.0 { 0.0 } else { (center.x - side / 2.0).clamp(0.0, width - side) };
        let mut crops = vec![[left, top(side), side]];
        if row.has("split") && row.str("split")? == "train" {
            let mut rng = ChaCha8Rng::seed_from_u64(p.seed);
            rng.set_stream(stream(row)?);
            let window = (WINDOW * width).min(height);
            for _ in 0..p.crops {
                let side = (width * (p.min_crop + (1.0 - p.min_crop) * unit_float(&mut rng))).floor().min(window);
                let x0 = ((width - side) * unit_float(&mut rng)).floor();
                let y0 = top(window) + ((window - side) * unit_float(&mut rng)).floor();
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
