//! `decode_latents`: what is left of the target images once the auto-encoder has had them, to stand beside every
//! avatar: about the best that a network can draw which works on these latents.
//!
//! reads: latent; with vae
//! writes: render (RGB PNG)
//!
//! The latent is the mean of the posterior that `encode_latents` put out. Knows no head model, no cameras and no
//! avatar.

use crate::common::backbone;
use crate::common::latents::{read_posterior, to_image};
use anyhow::Result;
use manifests::Type;
use models::runtime;
use models::vae::Vae;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use tch::nn::VarStore;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

fn def() -> StageDef {
    StageDef::new("decode_latents", 1, Grain::Row)
        .doc("Decodes the latents of target images: about the best that an avatar can do with this auto-encoder.")
        .reads([("latent", Type::Blob)])
        .with("vae", backbone::COLUMNS)
        .writes([("render", Type::Blob)])
        .batch(16)
        .memory_mb(1000)
}

protocol::register!(Params, def, |_: Params, cx: &Cx<'_>| {
    let (vs, vae) = backbone::load_vae(cx.with("vae")?)?;
    anyhow::Ok(DecodeLatents { vae, _vs: vs })
});

struct DecodeLatents {
    vae: Vae,
    _vs: VarStore,
}

impl Stage for DecodeLatents {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.decode(unit, cx)).collect()
    }
}

impl DecodeLatents {
    fn decode(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let latent = read_posterior(&unit.row().path("latent")?)?.mean.unsqueeze(0).to_device(runtime::device());
        let image = tch::no_grad(|| self.vae.decode(&latent)).squeeze_dim(0);
        let path = cx.file(unit, "render.png");
        to_image(&image)?.write_png(&path)?;
        Ok(vec![OutRow::new().file("render", &path)])
    }
}
