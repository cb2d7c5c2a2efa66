//! `train_avatar`: ControlNet, feature maps and expression attentions of one person, on a frozen latent diffusion prior.
//!
//! reads: gbuffer, latent, expression; with backbone   writes: config (JSON), checkpoint, losses (CSV)
//!
//! The objective is the paper's: mean squared error on v in latent space, times uniform over the whole schedule, posterior
//! samples as targets (DiffusionAvatars, sections 4.4 and 5.1 of the specification). The loop stands here from top to
//! bottom; network and loss lie in `models::avatar`. A killed training continues from its last checkpoint and ends with the
//! same bits. Switches give the paper's ablations and two stated departures for small priors (`prior: tuned`, cosine).

use crate::backbone;
use crate::gbuffers;
use crate::media::{array, read_arrays};
use crate::trainer::{Checkpoints, LossCurve, batch, helpers};
use anyhow::{Context, Result};
use geometry::gbuffer::GBuffer;
use manifests::Type;
use models::adamw::{AdamW, cosine};
use models::avatar::{self, Avatar, AvatarConfig, ExpressionConfig};
use models::ldm::Draw;
use models::schedule::ScheduleConfig;
use models::team::{Team, cut};
use models::triplane::FeatureMapConfig;
use models::unet::UNetConfig;
use models::vae::Vae;
use models::{init, runtime, weights};
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Table, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;

/// Parameters.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Optimiser steps; the paper takes 100,000.
    steps: u64,
    /// Samples in a step.
    #[serde(default = "batch_size")]
    batch: usize,
    /// Learning rate of the networks; the paper's is 1e-4.
    #[serde(default = "lr_networks")]
    lr_networks: f64,
    /// Learning rate of the feature maps.
    #[serde(default = "lr_maps")]
    lr_maps: f64,
    /// Whether the learning rate stays (the paper) or falls along half a cosine (short trainings).
    #[serde(default)]
    lr_schedule: LrSchedule,
    /// Clip the expression path's gradient as well; the paper clips the ControlNet's only.
    #[serde(default = "yes")]
    clip_expression: bool,
    /// Learned planes rigged to the surface; off for the ablation "w/o spatial features".
    #[serde(default = "yes")]
    triplane: bool,
    /// Texels on a side of each plane; the paper has 512.
    #[serde(default = "map_resolution")]
    map_resolution: i64,
    /// Channels of each plane and of the ambient map; the paper has 16.
    #[serde(default = "map_channels")]
    map_channels: i64,
    /// How the expression code reaches the U-Net besides the geometry.
    #[serde(default)]
    expression: ExpressionPath,
    /// What becomes of the prior.
    #[serde(default)]
    prior: Prior,
    /// What the network learns to say.
    #[serde(default)]
    objective: Objective,
    /// Widths of the condition encoder; each after the first halves the resolution.
    #[serde(default = "encoder_channels")]
    encoder_channels: Vec<i64>,
    /// Parts that a batch is computed in, side by side where there are threads for it. More threads than parts are of no
    /// use; another number changes the rounding.
    #[serde(default = "parts")]
    parts: usize,
    /// Compute the stages of the networks once more for their gradients instead of keeping them: less memory, more time,
    /// the same bits.
    #[serde(default)]
    gradient_checkpointing: bool,
    /// Steps between checkpoints.
    #[serde(default = "checkpoint_every")]
    checkpoint_every: u64,
    /// Seed of weights, batches and noise.
    #[serde(default = "seed")]
    seed: u64,
}

/// How the learning rate goes.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum LrSchedule {
    /// Half a cosine down to a hundredth.
    #[default]
    Cosine,
    /// It stays.
    Constant,
}

/// How the expression code reaches the U-Net.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ExpressionPath {
    /// Four tokens, attended to in the U-Net (the paper).
    #[default]
    Tokens,
    /// Only through the geometry (the ablation "w/o exp. cond.").
    None,
}

/// What becomes of the prior.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Prior {
    /// Frozen (the paper).
    #[default]
    Frozen,
    /// Trained on; not in the paper.
    Tuned,
    /// Not used: the U-Net starts from random weights (the ablation "w/o LDM prior").
    None,
}

/// What the network learns to say.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Objective {
    /// Denoising.
    #[default]
    Diffusion,
    /// The latent in one pass (the ablation "w/o diffusion").
    Direct,
}

fn batch_size() -> usize {
    8
}
fn lr_networks() -> f64 {
    AvatarConfig::small(0).lr_networks
}
fn lr_maps() -> f64 {
    1e-2
}
fn yes() -> bool {
    true
}
fn map_resolution() -> i64 {
    FeatureMapConfig::small().resolution
}
fn map_channels() -> i64 {
    FeatureMapConfig::small().plane_channels
}
fn encoder_channels() -> Vec<i64> {
    AvatarConfig::small(0).encoder_channels
}
fn parts() -> usize {
    2
}
fn checkpoint_every() -> u64 {
    250
}
/// The paper's.
fn seed() -> u64 {
    181_998
}

impl Params {
    /// The network these parameters describe, on a prior of this shape and for codes of this length.
    fn config(&self, unet: UNetConfig, schedule: ScheduleConfig, code: i64) -> AvatarConfig {
        AvatarConfig {
            unet,
            schedule,
            encoder_channels: self.encoder_channels.clone(),
            maps: self.triplane.then_some(FeatureMapConfig {
                resolution: self.map_resolution,
                plane_channels: self.map_channels,
                ambient_channels: self.map_channels,
            }),
            expression: (self.expression == ExpressionPath::Tokens).then_some(ExpressionConfig { code, tokens: 4 }),
            prior: match self.prior {
                Prior::Frozen => avatar::Prior::Frozen,
                Prior::Tuned => avatar::Prior::Tuned,
                Prior::None => avatar::Prior::None,
            },
            objective: match self.objective {
                Objective::Diffusion => avatar::Objective::Diffusion,
                Objective::Direct => avatar::Objective::Direct,
            },
            lr_networks: self.lr_networks,
            lr_maps: self.lr_maps,
            clip_expression: self.clip_expression,
            gradient_checkpointing: self.gradient_checkpointing,
            ..AvatarConfig::small(code)
        }
    }
}

/// An avatar's description on disk: enough to build the network again beside its backbone.
#[derive(Serialize, Deserialize)]
pub struct Description {
    /// The parameters it was trained with.
    params: Params,
    /// Length of the expression code.
    code: i64,
    /// Mean of each value of the code over the training set, subtracted before use.
    code_mean: Vec<f64>,
    /// Its deviation, divided by.
    code_std: Vec<f64>,
}

impl Description {
    /// Builds the avatar on a backbone, with its initial weights.
    pub fn build(&self, backbone: &Table) -> Result<Avatar> {
        let unet = backbone::component(backbone, "unet")?;
        let unet_config = UNetConfig::from_json(&weights::read_json(&unet.path("config")?)?, "unet/config.json")?;
        let schedule = backbone::load_schedule(backbone)?.config;
        let prior = weights::read(&unet.path("weights")?)?;
        let text = backbone::load_null_prompt(backbone)?;
        let config = self.params.config(unet_config, schedule, self.code);
        Ok(Avatar::new(&config, &prior, &text, self.params.seed, runtime::device())?)
    }

    /// Codes of some rows, normalised, `[B, code]`.
    pub fn codes(&self, rows: &[Row<'_>]) -> Result<Tensor> {
        let mut flat = Vec::new();
        for row in rows {
            let code = row.floats("expression")?;
            anyhow::ensure!(
                code.len() as i64 == self.code,
                "the expression code has {} values, the avatar was trained with {}",
                code.len(),
                self.code
            );
            let scaled = code.iter().zip(&self.code_mean).zip(&self.code_std).map(|((v, mean), std)| (v - mean) / std);
            flat.extend(scaled.map(|value| value as f32));
        }
        Ok(Tensor::from_slice(&flat).view([rows.len() as i64, self.code]))
    }
}

fn def() -> StageDef {
    StageDef::new("train_avatar", 2, Grain::Whole)
        .doc("Trains a person's avatar: ControlNet, TriPlane features and expression attentions on a diffusion prior.")
        .reads([("gbuffer", Type::Blob), ("latent", Type::Blob), ("expression", Type::Floats(0))])
        .with("backbone", backbone::COLUMNS)
        .writes([("config", Type::Blob), ("checkpoint", Type::Blob), ("losses", Type::Blob)])
        .threads(2)
        .memory_mb(4000)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(TrainAvatar { params }));

struct TrainAvatar {
    params: Params,
}

impl Stage for TrainAvatar {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.train(unit, cx)).collect()
    }
}

/// Posterior moments of all samples, `[N, C, h, w]` each: mean and deviation.
fn load_latents(rows: &[Row<'_>]) -> Result<(Tensor, Tensor)> {
    let (mut means, mut deviations) = (Vec::new(), Vec::new());
    for row in rows {
        let path = row.path("latent")?;
        let arrays = read_arrays(&path)?;
        let moments = |name: &str| -> Result<Tensor> {
            let moments = array(&arrays, name)?;
            let values: Vec<f32> = moments.to_f16()?.into_iter().map(f32::from).collect();
            let shape: Vec<i64> = moments.shape.iter().map(|&n| n as i64).collect();
            Ok(Tensor::from_slice(&values).view(&shape[..]))
        };
        means.push(moments("mean").with_context(|| path.display().to_string())?);
        deviations.push((moments("logvar")? * 0.5).exp());
    }
    anyhow::ensure!(!means.is_empty(), "there are no rows to train on");
    Ok((Tensor::f_stack(&means, 0)?, Tensor::f_stack(&deviations, 0)?))
}

impl TrainAvatar {
    fn train(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let rows = unit.rows();
        let (means, deviations) = load_latents(&rows)?;
        let gbuffers: Vec<GBuffer> =
            rows.iter().map(|row| gbuffers::read(&row.path("gbuffer")?)).collect::<Result<_>>()?;
        let description = describe(p, &rows)?;
        let codes = description.codes(&rows)?;
        let backbone = cx.with("backbone")?;
        let (_vae_vs, vae): (_, Vae) = backbone::load_vae(backbone)?;
        let avatar = description.build(backbone)?;
        let replicas = (0..helpers(p.parts, cx.threads)).map(|_| description.build(backbone)).collect::<Result<_>>()?;
        let mut team = Team::new(&avatar, replicas);
        let mut optimiser = avatar.optimiser();
        let mut curve = LossCurve::new(&["loss"], p.steps, 100);

        let checkpoints = Checkpoints::new(cx.scratch()?);
        let load = |dir: &Path| load_state(dir, &avatar, &mut optimiser, &mut curve);
        let start = checkpoints.resume(load, |text| cx.log(text))?;

        for step in start..p.steps {
            let at = batch(p.seed, step, p.batch, rows.len());
            let index = Tensor::from_slice(&at.iter().map(|&i| i as i64).collect::<Vec<_>>());
            let mean = means.index_select(0, &index);
            // another stream than the diffusion noise of the same step
            let posterior_noise = init::normal(p.seed ^ 0x9057, step, &mean.size());
            let latents = vae.scale(&(&mean + deviations.index_select(0, &index) * posterior_noise).to_device(runtime::device()));
            let picked: Vec<GBuffer> = at.iter().map(|&i| gbuffers[i].clone()).collect();
            let samples = avatar::Batch {
                draw: Draw::new(&avatar.schedule, &latents.size(), p.seed, step),
                latents,
                gbuffer: gbuffers::to_tensors(&picked)?,
                codes: codes.index_select(0, &index),
            };
            let part = |(from, n, share)| (share, samples.narrow(from, n));
            optimiser.zero_grad();
            let loss = team.backward(&avatar, cut(p.batch, p.parts).into_iter().map(part).collect());
            anyhow::ensure!(loss[0].is_finite(), "the loss is {} at step {step}: try a lower learning rate", loss[0]);
            optimiser.step(match p.lr_schedule {
                LrSchedule::Cosine => cosine(step, p.steps, 20, 0.01),
                LrSchedule::Constant => 1.0,
            });
            curve.push(step + 1, &loss);
            if step % 10 == 9 || step + 1 == p.steps {
                cx.progress(step as usize + 1, p.steps as usize, format!("loss {:.4}", curve.last()));
            }
            if (step + 1) % p.checkpoint_every == 0 {
                checkpoints.save(step + 1, |dir| save_state(dir, &avatar, &optimiser, &curve))?;
            }
        }

        let [config, checkpoint, losses] =
            ["avatar.json", "avatar.safetensors", "losses.csv"].map(|name| cx.file(unit, name));
        std::fs::write(&config, serde_json::to_string_pretty(&description)?)
            .with_context(|| format!("cannot write {}", config.display()))?;
        weights::write(&checkpoint, &avatar.learned(), &BTreeMap::new(), weights::Precision::Keep)?;
        curve.write(&losses)?;
        let row = OutRow::new().file("config", &config).file("checkpoint", &checkpoint).file("losses", &losses);
        Ok(vec![row])
    }
}

/// What is worth keeping of the training set: the length, mean and deviation of its codes.
fn describe(params: &Params, rows: &[Row<'_>]) -> Result<Description> {
    let codes = rows.iter().map(|row| row.floats("expression")).collect::<Result<Vec<_>>>()?;
    let n = codes[0].len();
    anyhow::ensure!(codes.iter().all(|code| code.len() == n), "expression codes are of different lengths");
    let mean: Vec<f64> = (0..n).map(|i| codes.iter().map(|c| c[i]).sum::<f64>() / codes.len() as f64).collect();
    let std = (0..n).map(|i| {
        let variance = codes.iter().map(|c| (c[i] - mean[i]).powi(2)).sum::<f64>() / codes.len() as f64;
        // a value that never changes is passed on as it is, not blown up
        if variance > 1e-12 { variance.sqrt() } else { 1.0 }
    });
    let std = std.collect();
    Ok(Description { params: params.clone(), code: n as i64, code_mean: mean, code_std: std })
}

fn save_state(dir: &Path, avatar: &Avatar, optimiser: &AdamW, curve: &LossCurve) -> Result<()> {
    let keep = weights::Precision::Keep;
    weights::write(&dir.join("weights.safetensors"), &avatar.learned(), &BTreeMap::new(), keep)?;
    optimiser.save(&dir.join("optimiser.safetensors"))?;
    curve.save(&dir.join("losses.csv"))
}

fn load_state(dir: &Path, avatar: &Avatar, optimiser: &mut AdamW, curve: &mut LossCurve) -> Result<()> {
    let path = dir.join("weights.safetensors");
    avatar.restore(&weights::read(&path)?, &path.display().to_string())?;
    optimiser.load(&dir.join("optimiser.safetensors"))?;
    curve.restore(&dir.join("losses.csv"))
}
