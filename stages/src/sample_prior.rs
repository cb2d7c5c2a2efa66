//! `sample_prior`: pictures that a latent diffusion model draws of nothing but noise: what it has learned, to be looked
//! at.
//!
//! no rows in; with backbone   writes: sample, image (RGB PNG)
//!
//! Ancestral DDPM sampling with trailing spacing, given the null prompt, each sample from noise of its own. Knows no
//! avatar.

use crate::common::backbone;
use crate::common::latents::to_image;
use anyhow::Result;
use manifests::Type;
use models::schedule::{Sampler, Walk, time_tensor};
use models::unet::{Extras, UNet, UNetConfig};
use models::vae::VaeConfig;
use models::{init, weights};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use tch::Device;
use tch::nn::VarStore;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How many pictures.
    #[schemars(range(min = 1))]
    count: i64,
    /// Their width and height, px.
    #[schemars(range(min = 1))]
    size: i64,
    /// Sampling steps.
    #[serde(default = "steps")]
    #[schemars(range(min = 1))]
    steps: usize,
    /// Seed of the noise.
    #[serde(default)]
    seed: u64,
}

fn steps() -> usize {
    50
}

/// Pictures that go through the networks at a time.
const TOGETHER: i64 = 8;

fn def() -> StageDef {
    StageDef::new("sample_prior", 4, Grain::Whole)
        .doc("Draws pictures from a latent diffusion model.")
        .source()
        .with("backbone", backbone::COLUMNS)
        .writes([("sample", Type::I64), ("image", Type::Blob)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(SamplePrior { params }));

struct SamplePrior {
    params: Params,
}

impl Stage for SamplePrior {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.sample(unit, cx)).collect()
    }
}

impl SamplePrior {
    fn sample(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let backbone = cx.with("backbone")?;
        let (vae_vs, vae) = backbone::load_vae(backbone)?;
        let part = backbone::component(backbone, "unet")?;
        let config = UNetConfig::from_json(&weights::read_json(&part.path("config")?)?, "unet/config.json")?;
        let mut vs = VarStore::new(Device::Cpu);
        let unet = UNet::new(&vs.root(), &config);
        weights::load(&vs, &part.path("weights")?)?;
        vs.freeze();
        let text = backbone::load_null_prompt(backbone)?;
        let plan = backbone::load_schedule(backbone)?.plan(Sampler::Ddpm, p.steps).map_err(anyhow::Error::msg)?;
        let vae_config = backbone::component(backbone, "vae")?.path("config")?;
        let factor = VaeConfig::from_json(&weights::read_json(&vae_config)?, "vae/config.json")?.factor();
        anyhow::ensure!(
            p.size % factor == 0,
            "`size` is {} px, expected a multiple of {factor}, the side of a latent's pixel",
            p.size
        );
        let shape = [p.count, config.in_channels, p.size / factor, p.size / factor];
        let mut rows = Rows::new();
        for first in (0..p.count).step_by(TOGETHER as usize) {
            let n = TOGETHER.min(p.count - first);
            // drawn for all, so that a picture is the same however many there are
            let noise = |stream: u64| init::normal(p.seed, stream, &shape).narrow(0, first, n);
            let mut x = noise(0);
            let mut walk = Walk::default();
            for (k, step) in plan.iter().enumerate() {
                let times = time_tensor(&vec![step.t; n as usize], &x);
                let prompt = text.expand([n, -1, -1], false);
                let out = tch::no_grad(|| unet.forward(&x, &times, &prompt, Extras::default()));
                let fresh = (step.noise_std > 0.0).then(|| noise(k as u64 + 1));
                x = step.advance(&x, &out, fresh.as_ref(), &mut walk);
                cx.progress(first as usize * plan.len() + n as usize * (k + 1), p.count as usize * plan.len(), "");
            }
            let images =
                tch::no_grad(|| vae.decode(&vae.unscale(&x.to_device(vae_vs.device())))).to_device(Device::Cpu);
            for i in 0..n {
                let path = cx.file(unit, &format!("{:03}.png", first + i));
                to_image(&images.get(i))?.write_png(&path)?;
                rows.push(OutRow::new().i64("sample", first + i).file("image", &path));
            }
        }
        Ok(rows)
    }
}
