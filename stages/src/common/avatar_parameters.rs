//! Parameters of `train_avatar`: each with its default, the paper's value and what it becomes in the network.
//!
//! No stage; what a trained avatar is built again by, so that `avatar_description` keeps them. Knows neither rows of a
//! training nor its loop.

use anyhow::Result;
use manifests::Type;
use models::adamw::{cosine, warming};
use models::avatar::{self, AvatarConfig, ExpressionConfig, LossTerms};
use models::schedule::ScheduleConfig;
use models::triplane::{FeatureMapConfig, Layout};
use models::unet::{self, UNetConfig};
use protocol::Row;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Optimiser steps; the paper takes 100,000.
    #[schemars(range(min = 1))]
    pub steps: u64,
    /// Samples in a step, or in each of its rounds.
    #[serde(default = "batch_size")]
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Rounds of `batch` samples in a step, one after the other; their gradients add up to that of all.
    #[serde(default = "accumulate")]
    #[schemars(range(min = 1))]
    pub accumulate: usize,
    /// Learning rate of the networks; the paper's is 1e-4.
    #[serde(default = "lr_networks")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr_networks: f64,
    /// Learning rate of the feature maps.
    #[serde(default = "lr_maps")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr_maps: f64,
    /// Whether the learning rate stays (the paper) or falls (short trainings).
    #[serde(default)]
    pub lr_schedule: LrSchedule,
    /// Steps over which it rises before that; the paper has 0.
    #[serde(default = "warmup")]
    pub warmup: u64,
    /// Weight decay of networks and maps (AdamW).
    #[serde(default = "weight_decay")]
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// How much of the means of gradients and of their squares stays from step to step (AdamW).
    #[serde(default = "betas")]
    #[schemars(inner(range(min = 0, max = 1)))]
    pub betas: [f64; 2],
    /// Largest norm of a network's gradient; larger ones are scaled down to it. Of maps none is.
    #[serde(default = "max_grad_norm")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_grad_norm: f64,
    /// Clip the expression path's gradient as well; the paper clips the ControlNet's only.
    #[serde(default = "yes")]
    pub clip_expression: bool,
    /// Decay of a moving average of the weights, which is then what is put out; 0 for none (the paper).
    #[serde(default)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub ema: f64,
    /// Learned maps rigged to the surface.
    #[serde(default)]
    pub features: Features,
    /// Ambient coordinates and their map; off for head models without them, such as the linear one.
    #[serde(default = "yes")]
    pub ambient: bool,
    /// Texels on a side of each map; the paper has 512.
    #[serde(default = "map_resolution")]
    #[schemars(range(min = 2))]
    pub map_resolution: i64,
    /// Channels of each plane and of the ambient map; the paper has 16.
    #[serde(default = "map_channels")]
    #[schemars(range(min = 1))]
    pub map_channels: i64,
    /// How the expression code reaches the U-Net besides the geometry.
    #[serde(default)]
    pub expression: ExpressionPath,
    /// Tokens that an expression code becomes.
    #[serde(default = "expression_tokens")]
    #[schemars(range(min = 1))]
    pub expression_tokens: i64,
    /// Where the U-Net attends to them.
    #[serde(default)]
    pub expression_halves: ExpressionHalves,
    /// What becomes of these attentions' queries, which start as copies of the text's. The paper says that keys and
    /// values alone are learned; its published code learns the queries as well.
    #[serde(default)]
    pub expression_queries: ExpressionQueries,
    /// Whether the expression code includes gaze (`eyes`) and lids (`lids`) as `track_eyes` puts them out. The paper
    /// has the gaze alone.
    #[serde(default)]
    pub eyes: EyeCodes,
    /// How the code is scaled before the network sees it.
    #[serde(default)]
    pub codes: Codes,
    /// Deviation of the noise that disturbs every value of a code whenever it is learned from, in deviations of all
    /// values of the codes: it keeps the network from knowing a frame by its code. The paper has 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub code_noise: f64,
    /// What becomes of the prior.
    #[serde(default)]
    pub prior: Prior,
    /// What the network learns to say.
    #[serde(default)]
    pub objective: Objective,
    /// What of a latent's posterior is learned.
    #[serde(default)]
    pub posterior: Posterior,
    /// Weight of the error inside the mouth beside that of all; needs a column `mouth_mask` (`mask_regions` makes it).
    /// The paper has 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub mouth_weight: f64,
    /// The same around the eyes, by `eyes_mask`. The paper has no such term.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub eyes_weight: f64,
    /// Weight of the difference between the maps' last three channels and the picture; needs a column `target`. The
    /// paper has 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub color_weight: f64,
    /// Largest signal-to-noise ratio that counts in the weight of a sample (min-SNR; 5 is usual); none in the paper.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub min_snr: Option<f64>,
    /// Widths of the condition encoder; each after the first halves the resolution.
    #[serde(default = "encoder_channels")]
    #[schemars(length(min = 1), inner(range(min = 1)))]
    pub encoder_channels: Vec<i64>,
    /// Parts that a batch is computed in, side by side where there are threads for it. More threads than parts are of
    /// no use; another number changes the rounding.
    #[serde(default = "parts")]
    #[schemars(range(min = 1))]
    pub parts: usize,
    /// The numbers that the networks compute in; weights, optimiser and samples are in f32 anyhow.
    #[serde(default)]
    pub precision: Precision,
    /// Compute the stages of the networks once more for their gradients instead of keeping them: less memory, more
    /// time, the same bits.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Steps between trials on the rows of `validation`; the last step has one, too. The paper's is 5,000.
    #[serde(default = "validate_every")]
    #[schemars(range(min = 1))]
    pub validate_every: u64,
    /// Rows that are tried, spread evenly over those of `validation`.
    #[serde(default = "validation_images")]
    #[schemars(range(min = 1))]
    pub validation_images: usize,
    /// Sampling steps of their pictures.
    #[serde(default = "validation_steps")]
    #[schemars(range(min = 1))]
    pub validation_steps: usize,
    /// Steps between checkpoints.
    #[serde(default = "checkpoint_every")]
    #[schemars(range(min = 1))]
    pub checkpoint_every: u64,
    /// Seed of weights, batches and noise.
    #[serde(default = "seed")]
    pub seed: u64,
}

/// How the learning rate goes.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedule {
    /// Half a cosine down to a hundredth.
    #[default]
    Cosine,
    /// It falls evenly, to nothing.
    Linear,
    /// It stays.
    Constant,
}

/// What is taken of the distribution in which the auto-encoder has a latent.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Posterior {
    /// A sample, another one each time (the paper).
    #[default]
    Sampled,
    /// The mean.
    Mean,
}

/// Learned maps rigged to the surface.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Features {
    /// Three planes in canonical space (the paper).
    #[default]
    Triplane,
    /// One map around the head (the ablation "spherical UV").
    SphericalUv,
    /// None, nor an ambient map: the plain G-buffer (the ablation "w/o spatial features").
    None,
}

/// How the expression code reaches the U-Net.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpressionPath {
    /// Four tokens, attended to in the U-Net (the paper).
    #[default]
    Tokens,
    /// Only through the geometry (the ablation "w/o exp. cond.").
    None,
}

/// The half of the U-Net that attends to the expression code.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpressionHalves {
    /// Down and up levels (the paper).
    #[default]
    Both,
    /// The down levels.
    Encoder,
    /// The up levels.
    Decoder,
}

/// What becomes of the queries of the expression attentions.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpressionQueries {
    /// They learn (the paper's code).
    #[default]
    Learned,
    /// They stay as they start (the paper's text).
    Kept,
}

/// What of the eyes belongs to the expression code.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EyeCodes {
    /// Nothing.
    #[default]
    None,
    /// Six gaze values (the paper).
    Gaze,
    /// Six gaze values and two lid openings.
    GazeAndLids,
}

impl EyeCodes {
    /// The columns, and how many values each has.
    fn columns(self) -> &'static [(&'static str, u32)] {
        match self {
            EyeCodes::None => &[],
            EyeCodes::Gaze => &EYES[..1],
            EyeCodes::GazeAndLids => &EYES,
        }
    }
}

/// How codes are scaled.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Codes {
    /// Each value to mean 0 and deviation 1 over the rows that are trained on.
    #[default]
    Standardised,
    /// Each kind (expression, gaze, lids) as a whole to mean 0 and deviation 1: what hardly varies stays small.
    Scaled,
    /// As they are (the paper).
    Raw,
}

/// The numbers that networks compute in.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits (the paper).
    #[default]
    F32,
    /// 16 bits with the range of f32: for GPUs. CPUs do it as well, most of them slower than f32.
    Bf16,
    /// 16 bits, half precision: for GPUs before Ampere. Losses are scaled, and a step whose gradients overflow is left
    /// out.
    F16,
}

/// What becomes of the prior.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prior {
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
pub enum Objective {
    /// Denoising.
    #[default]
    Diffusion,
    /// The latent in one pass (the ablation "w/o diffusion").
    Direct,
}

fn batch_size() -> usize {
    8
}
fn accumulate() -> usize {
    1
}
fn validate_every() -> u64 {
    500
}
fn validation_images() -> usize {
    16
}
fn validation_steps() -> usize {
    10
}
fn lr_networks() -> f64 {
    AvatarConfig::small(0).lr_networks
}
fn lr_maps() -> f64 {
    1e-2
}
fn warmup() -> u64 {
    20
}
fn weight_decay() -> f64 {
    AvatarConfig::small(0).weight_decay
}
fn betas() -> [f64; 2] {
    AvatarConfig::small(0).betas
}
fn max_grad_norm() -> f64 {
    AvatarConfig::small(0).max_grad_norm
}
fn yes() -> bool {
    true
}
fn map_resolution() -> i64 {
    FeatureMapConfig::small().resolution
}
fn expression_tokens() -> i64 {
    4
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
    /// The code of a row: its expression, and what of the eyes belongs to it.
    pub fn code(&self, row: &Row<'_>) -> Result<Vec<f64>> {
        let mut code = row.floats("expression")?;
        for (column, _) in self.eyes.columns() {
            anyhow::ensure!(
                row.has(column),
                "rows have no `{column}`, which `eyes` of the avatar asks for\nhint: it is what track_eyes puts out; or leave `eyes` at none"
            );
            code.extend(row.floats(column)?);
        }
        Ok(code)
    }

    /// Mean and deviation of each value, which codes of these rows are scaled by.
    pub fn scales(&self, codes: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
        let n = codes[0].len();
        let eyes: Vec<usize> = self.eyes.columns().iter().map(|(_, length)| *length as usize).collect();
        let kinds = [&[n - eyes.iter().sum::<usize>()], &eyes[..]].concat();
        match self.codes {
            Codes::Raw => (vec![0.0; n], vec![1.0; n]),
            Codes::Standardised => spread(codes, &vec![1; n]),
            Codes::Scaled => spread(codes, &kinds),
        }
    }

    /// The network these parameters describe, on a prior of this shape and for codes of this length.
    pub fn config(&self, unet: UNetConfig, schedule: ScheduleConfig, code: i64, participants: usize) -> AvatarConfig {
        let layout = match self.features {
            Features::Triplane => Some(Layout::TriPlane),
            Features::SphericalUv => Some(Layout::SphericalUv),
            Features::None => None,
        };
        AvatarConfig {
            unet,
            schedule,
            encoder_channels: self.encoder_channels.clone(),
            maps: layout.map(|layout| FeatureMapConfig {
                resolution: self.map_resolution,
                plane_channels: self.map_channels,
                ambient_channels: self.map_channels,
                layout,
            }),
            ambient: self.ambient,
            participants,
            expression: (self.expression == ExpressionPath::Tokens).then_some(ExpressionConfig {
                code,
                tokens: self.expression_tokens,
                halves: match self.expression_halves {
                    ExpressionHalves::Both => unet::ExpressionHalves::Both,
                    ExpressionHalves::Encoder => unet::ExpressionHalves::Encoder,
                    ExpressionHalves::Decoder => unet::ExpressionHalves::Decoder,
                },
                keep_queries: self.expression_queries == ExpressionQueries::Kept,
            }),
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
            weight_decay: self.weight_decay,
            betas: self.betas,
            max_grad_norm: self.max_grad_norm,
            clip_expression: self.clip_expression,
            gradient_checkpointing: self.gradient_checkpointing,
            terms: self.terms(),
        }
    }

    /// What the learning rates are multiplied by in a step.
    pub fn lr_factor(&self, step: u64) -> f64 {
        match self.lr_schedule {
            LrSchedule::Cosine => cosine(step, self.steps, self.warmup, 0.01),
            LrSchedule::Linear => {
                let left =
                    self.steps.saturating_sub(step) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64;
                warming(step, self.warmup).min(left)
            }
            LrSchedule::Constant => warming(step, self.warmup),
        }
    }

    /// The terms of the loss beside the mean squared error.
    pub fn terms(&self) -> LossTerms {
        LossTerms { mouth: self.mouth_weight, eyes: self.eyes_weight, colors: self.color_weight, min_snr: self.min_snr }
    }

    /// What no schema says.
    ///
    /// # Errors
    /// If two of them contradict each other.
    pub fn check(&self) -> Result<()> {
        anyhow::ensure!(
            self.betas.iter().all(|beta| *beta < 1.0),
            "`betas` are {:?}, expected less than 1: of 1 no gradient would ever count",
            self.betas
        );
        let colorless = self.features == Features::None || self.map_channels < 3;
        anyhow::ensure!(
            self.color_weight <= 0.0 || !colorless,
            "`color_weight` needs feature maps of three channels or more"
        );
        Ok(())
    }
}

/// Mean of each value of codes, and the deviation of its kind; kinds are so many values long, one after the other.
fn spread(codes: &[Vec<f64>], kinds: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let count = codes.len() as f64;
    let mean: Vec<f64> = (0..codes[0].len()).map(|i| codes.iter().map(|c| c[i]).sum::<f64>() / count).collect();
    let variance = |i: usize| codes.iter().map(|c| (c[i] - mean[i]).powi(2)).sum::<f64>() / count;
    let mut deviations = Vec::new();
    for kind in kinds {
        let first = deviations.len();
        let of_kind = (first..first + kind).map(variance).sum::<f64>() / *kind as f64;
        // what never changes is passed on as it is, not blown up
        deviations.extend(vec![if of_kind > 1e-12 { of_kind.sqrt() } else { 1.0 }; *kind]);
    }
    (mean, deviations)
}

/// What of the eyes may belong to the code, and how many values each has.
const EYES: [(&str, u32); 2] = [("eyes", 6), ("lids", 2)];

/// The same as columns.
pub const EYE_COLUMNS: [(&str, Type); 2] = [(EYES[0].0, Type::Floats(EYES[0].1)), (EYES[1].0, Type::Floats(EYES[1].1))];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rates_rise_and_fall_as_said() {
        let factors = |schedule: &str, warmup: u64, steps: [u64; 4]| {
            let params = serde_json::json!({ "steps": 100, "lr_schedule": schedule, "warmup": warmup });
            let params: Params = serde_json::from_value(params).unwrap();
            steps.map(|step| (1e6 * params.lr_factor(step)).round() / 1e6)
        };
        // the paper's
        assert_eq!(factors("constant", 0, [0, 1, 50, 99]), [1.0; 4]);
        assert_eq!(factors("constant", 4, [0, 3, 4, 99]), [0.2, 0.8, 1.0, 1.0]);
        assert_eq!(factors("linear", 4, [0, 4, 52, 100]), [0.2, 1.0, 0.5, 0.0]);
        assert_eq!(factors("cosine", 4, [0, 4, 52, 100]), [0.2, 1.0, 0.505, 0.01]);
        // longer than the training
        assert_eq!(factors("linear", 200, [0, 1, 50, 98])[2], 0.253731);
    }
}
