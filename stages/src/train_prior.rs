//! `train_prior`: the small latent diffusion model on portraits of other people: the "pre-trained LDM" of the default.
//!
//! reads: image; with vae, start?, validation? (image)
//! writes: component (`unet`, `scheduler`, `null_prompt`), config, weights, losses (CSV, unet's; with `validation` its
//! images' as well)
//!
//! Unconditional but for a constant null prompt, v-prediction, zero terminal SNR: the same schedule an avatar is
//! trained with. Latents of all images and their mirror images are encoded once. A prior that there is already,
//! `start`, is trained on. Now and then the averaged weights are tried on the images of `validation`, from which
//! nothing is learned. The loop stands here from top to bottom.

use crate::common::backbone;
use crate::common::prior_training::{check_widths, load_images, resume, save_state, to_signed};
use crate::common::trainer::{Checkpoints, LossCurve, batch, helpers};
use anyhow::Result;
use manifests::Type;
use models::adamw::{AdamW, Ema, Group, cosine};
use models::ldm::{Draw, PriorTrainee, null_prompt};
use models::schedule::{Schedule, ScheduleConfig};
use models::team::{Member, Team, cut};
use models::unet::UNetConfig;
use models::vae::Vae;
use models::{init, weights};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Table, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Optimiser steps.
    #[schemars(range(min = 1))]
    steps: u64,
    /// Latents in a step.
    #[serde(default = "batch_size")]
    #[schemars(range(min = 1))]
    batch: usize,
    /// Learning rate at the start; half a cosine takes it to a hundredth.
    #[serde(default = "lr")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    lr: f64,
    /// Steps that the half cosine takes; 0: all. Where these are more than `steps`, training ends while the rate is
    /// high, for another that goes on from there (`start`).
    #[serde(default)]
    decay_steps: u64,
    /// Widths of the levels; each level after the first halves the resolution.
    #[serde(default = "widths")]
    #[schemars(length(min = 1), inner(range(min = 1)))]
    widths: Vec<i64>,
    /// Residual blocks in a level.
    #[serde(default = "layers")]
    #[schemars(range(min = 1))]
    layers: i64,
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
    16
}
fn lr() -> f64 {
    1e-3
}
fn widths() -> Vec<i64> {
    UNetConfig::small().block_out_channels
}
fn layers() -> i64 {
    1
}
fn ema() -> f64 {
    0.998
}
fn parts() -> usize {
    2
}
fn checkpoint_every() -> u64 {
    500
}

/// Tokens of the null prompt: enough for a softmax to be one, no more than that is worth.
const NULL_TOKENS: i64 = 8;
/// Channels of an attention head.
const HEAD_WIDTH: i64 = 16;

fn def() -> StageDef {
    StageDef::new("train_prior", 4, Grain::Whole)
        .doc("Trains a small unconditional latent diffusion model on images.")
        .reads([("image", Type::Blob)])
        .with("vae", backbone::COLUMNS)
        .may_take("start", backbone::COLUMNS)
        .may_take("validation", [("image", Type::Blob)])
        .writes(backbone::COLUMNS)
        .writes([("losses", Type::Blob)])
        .threads(2)
        .memory_mb(2000)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    check_widths(&params.widths, UNetConfig::small().norm_num_groups.max(HEAD_WIDTH))?;
    anyhow::Ok(TrainPrior { params })
});

impl Params {
    /// The share of the learning rate that a step has.
    fn rate(&self, step: u64) -> f64 {
        cosine(step, if self.decay_steps == 0 { self.steps } else { self.decay_steps }, 50, 0.01)
    }
}

struct TrainPrior {
    params: Params,
}

impl Stage for TrainPrior {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.train(unit, cx)).collect()
    }
}

impl TrainPrior {
    fn train(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let (vae_vs, vae) = backbone::load_vae(cx.with("vae")?)?;
        let posteriors = encode_all((&vae, vae_vs.device()), &load_images(&unit.rows(), "image")?, cx);

        let config = UNetConfig {
            block_out_channels: p.widths.clone(),
            layers_per_block: p.layers.into(),
            heads: p.widths.iter().map(|width| width / HEAD_WIDTH).collect(),
            in_channels: vae.config().latent_channels,
            out_channels: vae.config().latent_channels,
            attention_levels: (0..p.widths.len()).map(|level| level + 1 < p.widths.len()).collect(),
            ..UNetConfig::small()
        };
        config.check("train_prior")?;
        let known = cx.maybe_with("start");
        let (schedule, text) = match known {
            None => (
                Schedule::new(&ScheduleConfig::default()),
                null_prompt(NULL_TOKENS, config.cross_attention_dim, p.seed),
            ),
            Some(known) => (backbone::load_schedule(known)?, backbone::load_null_prompt(known)?),
        };
        let build = || PriorTrainee::new(&config, &schedule.config, &text, p.seed);
        let leader = build();
        if let Some(known) = known {
            start_from(known, &config, &leader.vs)?;
        }
        let mut team =
            Team::new(&leader, (0..helpers(leader.vs.device(), p.parts, cx.threads)).map(|_| build()).collect());
        let vs = &leader.vs;
        let mut optimiser = AdamW::default();
        optimiser.add(Group { max_grad_norm: Some(1.0), ..Group::network("unet", p.lr) }, vs);
        let variables = weights::sorted(vs);
        let mut average = Ema::new(&variables, p.ema);
        let judge = match cx.maybe_with("validation") {
            None => None,
            Some(others) => {
                let images = load_images(&others.rows().collect::<Vec<_>>(), "image")?;
                let scaled = |(mean, std): (Tensor, Tensor)| {
                    vae.scale(&(&mean + std * init::normal(p.seed ^ 0x7E57, 0, &mean.size())))
                };
                Some(Judge::new(build(), (&schedule, &scaled(encode_all((&vae, vae_vs.device()), &images, cx))), p))
            }
        };
        let mut curve = LossCurve::new(&["loss"], p.steps, 100);
        if judge.is_some() {
            curve = curve.with_seldom("validation");
        }

        let checkpoints = Checkpoints::new(cx.scratch()?);
        let start = resume(&checkpoints, vs, (&mut optimiser, &mut average, &mut curve), |text| cx.log(text))?;

        let (mean, std) = &posteriors;
        for step in start..p.steps {
            let at: Vec<i64> =
                batch(p.seed, step, p.batch, mean.size()[0] as usize).into_iter().map(|i| i as i64).collect();
            let at = Tensor::from_slice(&at);
            let mean = mean.index_select(0, &at);
            let sampled = &mean + std.index_select(0, &at) * init::normal(p.seed ^ 0x5A, step, &mean.size());
            let latents = vae.scale(&sampled);
            let draw = Draw::new(&schedule, &latents.size(), p.seed, step);
            let part = |(from, n, share)| (share, (latents.narrow(0, from, n), draw.narrow(from, n)));
            optimiser.zero_grad();
            let loss = team.backward(&leader, cut(p.batch, p.parts).into_iter().map(part).collect());
            let norms = optimiser.norms();
            checkpoints.finite(loss[0], &norms, step + 1)?;
            optimiser.update(p.rate(step), &norms);
            average.update(&variables);
            if let Some(judge) = judge.as_ref().filter(|_| curve.asks(step + 1)) {
                curve.tell(judge.loss(&average)?);
            }
            curve.push(step + 1, &loss);
            if step % 10 == 9 || step + 1 == p.steps {
                cx.progress(step as usize + 1, p.steps as usize, format!("loss {:.4}", curve.last()));
            }
            let save = |dir: &Path| save_state(dir, vs, &optimiser, &average, &curve);
            checkpoints.after(cx, step + 1, (p.checkpoint_every, p.steps), save)?;
        }

        let plain = BTreeMap::new();
        weights::load_tensors(vs, average.tensors(), "the moving average")?;
        let file = |name: &str| cx.file(unit, name);
        let (config_path, weights_path) = (file("unet_config.json"), file("unet.safetensors"));
        backbone::write_config(&config_path, &config.to_json())?;
        weights::save(vs, &weights_path, &plain, weights::Precision::Half)?;
        let scheduler_path = file("scheduler_config.json");
        backbone::write_config(&scheduler_path, &schedule.config.to_json())?;
        let prompt_path = file("null_prompt.safetensors");
        let prompt = [("null_prompt".to_string(), text)].into();
        weights::write(&prompt_path, &prompt, &plain, weights::Precision::Half)?;
        let losses = file("losses.csv");
        curve.write(&losses)?;
        Ok(vec![
            OutRow::new()
                .str("component", "unet")
                .file("config", &config_path)
                .file("weights", &weights_path)
                .file("losses", &losses),
            OutRow::new().str("component", "scheduler").file("config", &scheduler_path),
            OutRow::new().str("component", "null_prompt").file("weights", &prompt_path),
        ])
    }
}

/// Tells how well the averaged weights do on pictures of people that are not learned from: always the same pictures,
/// times and noise, so that only the weights differ.
struct Judge {
    network: PriorTrainee,
    /// Scaled latents and their draws, a batch each.
    batches: Vec<(Tensor, Draw)>,
}

impl Judge {
    fn new(network: PriorTrainee, (schedule, latents): (&Schedule, &Tensor), p: &Params) -> Self {
        let batches = latents.split(p.batch as i64, 0).into_iter().zip(0..);
        let draws = |part: &Tensor, i| Draw::new(schedule, &part.size(), p.seed ^ 0x7E57, i);
        let batches = batches.map(|(part, i)| (part.shallow_clone(), draws(&part, i))).collect();
        Self { network, batches }
    }

    /// The mean loss over all pictures.
    fn loss(&self, average: &Ema) -> Result<f64> {
        weights::load_tensors(&self.network.vs, average.tensors(), "the moving average")?;
        let of = |batch: &(Tensor, Draw)| self.network.loss(batch).1[0] * batch.1.t.len() as f64;
        let sum = tch::no_grad(|| self.batches.iter().map(of).sum::<f64>());
        Ok(sum / self.batches.iter().map(|(_, draw)| draw.t.len() as f64).sum::<f64>())
    }
}

/// Takes the weights of a prior that there is already, whose network has to be the one that is trained.
fn start_from(known: &Table, config: &UNetConfig, vs: &VarStore) -> Result<()> {
    let row = backbone::component(known, "unet")?;
    let theirs = UNetConfig::from_json(&weights::read_json(&row.path("config")?)?, "unet/config.json")?;
    anyhow::ensure!(
        theirs == *config,
        "the prior to start from is another network: widths {:?}, {} residual blocks a level, {} channels; `widths`, `layers` and the auto-encoder make {:?}, {} and {}\nhint: give them the values it was made with, and its own auto-encoder as `vae`",
        theirs.block_out_channels,
        theirs.layers_per_block,
        theirs.in_channels,
        config.block_out_channels,
        config.layers_per_block,
        config.in_channels
    );
    weights::load(vs, &row.path("weights")?)?;
    Ok(())
}

/// Mean and deviation of the posteriors of all images and of their mirror images, each `[2 N, C, h, w]`, in the
/// processor's memory.
fn encode_all((vae, device): (&Vae, Device), images: &Tensor, cx: &Cx<'_>) -> (Tensor, Tensor) {
    let (mut means, mut deviations) = (Vec::new(), Vec::new());
    let total = 2 * images.size()[0] as usize;
    tch::no_grad(|| {
        for mirrored in [false, true] {
            for batch in images.split(32, 0) {
                let batch = if mirrored { batch.flip([3]) } else { batch };
                let posterior = vae.encode(&to_signed(&batch).to_device(device));
                deviations.push((posterior.logvar * 0.5).exp().to_device(Device::Cpu));
                means.push(posterior.mean.to_device(Device::Cpu));
                cx.progress(means.len() * 32, total, "encoding");
            }
        }
    });
    (Tensor::cat(&means, 0), Tensor::cat(&deviations, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_may_end_while_the_rate_is_high() {
        let rate = |params: &str, step| serde_json::from_str::<Params>(params).unwrap().rate(step);
        assert!((rate(r#"{"steps": 400}"#, 400) - 0.01).abs() < 1e-9);
        for step in [0, 49, 50, 225, 300] {
            assert_eq!(rate(r#"{"steps": 300, "decay_steps": 400}"#, step), rate(r#"{"steps": 400}"#, step));
        }
        // half way between both ends
        assert!((rate(r#"{"steps": 300, "decay_steps": 400}"#, 225) - 0.505).abs() < 1e-9);
    }
}
