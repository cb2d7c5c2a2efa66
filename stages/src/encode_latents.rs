//! `encode_latents`: the target image at each crop, and the posterior moments of its latent.
//!
//! reads: image, crop_rect, width; with vae
//! writes: target (RGB PNG), latent (safetensors: mean, logvar `[C, h, w]`, f16)
//!
//! Moments, not a sample: training draws from the posterior at every step, as the paper does, without running the
//! encoder again. Knows no head model: any image with a crop will do.

use crate::common::arrays::{Array, Arrays, write_arrays};
use crate::common::backbone;
use crate::common::latents::to_tensor;
use crate::common::media::{Image, px};
use anyhow::{Context, Result};
use half::f16;
use manifests::Type;
use models::runtime;
use models::vae::Vae;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;
use tch::Tensor;
use tch::nn::VarStore;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Width and height of the targets, px; a multiple of the auto-encoder's factor.
    #[schemars(range(min = 1, max = 16384))]
    size: usize,
}

fn def() -> StageDef {
    StageDef::new("encode_latents", 2, Grain::Row)
        .doc("Crops the target images and encodes them to latent moments.")
        .reads([("image", Type::Blob), ("crop_rect", Type::Floats(3)), ("width", Type::I64)])
        .with("vae", backbone::COLUMNS)
        .writes([("target", Type::Blob), ("latent", Type::Blob)])
        .batch(16)
        .memory_mb(1000)
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    let (vs, vae) = backbone::load_vae(cx.with("vae")?)?;
    let factor = vae.config().factor() as usize;
    anyhow::ensure!(
        params.size.is_multiple_of(factor),
        "size {} is no multiple of {factor}, the auto-encoder's factor",
        params.size
    );
    anyhow::Ok(EncodeLatents { params, vae, _vs: vs, last: None })
});

struct EncodeLatents {
    params: Params,
    vae: Vae,
    _vs: VarStore,
    /// The last picture: the crops of one stand together.
    last: Option<(PathBuf, Image)>,
}

impl Stage for EncodeLatents {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        let targets = units.iter().map(|unit| self.target(unit)).collect::<Result<Vec<_>>>()?;
        // convolutions of one image and of many may differ in the last bit: one at a time, a unit's result does not
        // depend on its neighbours
        units.iter().zip(targets).map(|(unit, target)| self.encode(unit, &target, cx)).collect()
    }
}

impl EncodeLatents {
    fn target(&mut self, unit: &Unit<'_>) -> Result<Image> {
        let row = unit.row();
        let path = row.path("image")?;
        if self.last.as_ref().is_none_or(|(last, _)| *last != path) {
            self.last = Some((path.clone(), Image::read(&path, 3)?));
        }
        let (_, image) = self.last.as_ref().context("it was just read")?;
        let scale = image.width as f64 / f64::from(px(&row, "width")?);
        let [x0, y0, side] = row.array("crop_rect")?.map(|px| px * scale);
        Ok(image.crop(x0, y0, side, self.params.size, 255))
    }

    fn encode(&self, unit: &Unit<'_>, target: &Image, cx: &Cx<'_>) -> Result<Rows> {
        let posterior = tch::no_grad(|| self.vae.encode(&to_tensor(target).to_device(runtime::device())));
        let moments = |tensor: &Tensor| -> Result<Array> {
            let shape: Vec<usize> = tensor.size()[1..].iter().map(|&n| n as usize).collect();
            let values: Vec<f32> = Vec::try_from(tensor.flatten(0, -1)).context("latent moments")?;
            Ok(Array::of_f16(&shape, values.into_iter().map(f16::from_f32)))
        };
        let arrays: Arrays =
            [("mean".into(), moments(&posterior.mean)?), ("logvar".into(), moments(&posterior.logvar)?)].into();
        let (target_path, latent_path) = (cx.file(unit, "target.png"), cx.file(unit, "latent.safetensors"));
        target.write_png(&target_path)?;
        write_arrays(&latent_path, &arrays)?;
        Ok(vec![OutRow::new().file("target", &target_path).file("latent", &latent_path)])
    }
}
