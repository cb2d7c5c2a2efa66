//! `train_avatar`: ControlNet, feature maps and expression attentions of one person, on a frozen latent diffusion prior.
//!
//! reads: gbuffer, latent, expression, eyes?, lids?, participant?, mouth_mask?, eyes_mask?, target?; with backbone, validation?
//! writes: config (JSON), checkpoint, losses (CSV), events (TensorBoard), events_path, validation (CSV), validation_sheet (PNG)
//!
//! The objective is the paper's: mean squared error on v in latent space, times uniform over the whole schedule, posterior
//! samples as targets (DiffusionAvatars, sections 4.4 and 5.1 of the specification). The loop stands here from top to
//! bottom; network and loss lie in `models::avatar`. A killed training continues from its last checkpoint and ends with the
//! same bits, and one that diverges stops with it. Rows of several participants train one avatar of them all, with feature
//! maps for each. Every so many steps it is tried on the rows of `validation`, from which it learns nothing. Switches give the
//! paper's ablations, terms that the reference has and leaves off, and three stated departures for small priors (`prior: tuned`, cosine, standardised codes).

use crate::avatar_description::{Description, EYE_COLUMNS};
use crate::avatar_samples::Samples;
use crate::avatar_validation::Validation;
use crate::backbone;
use crate::event_file::EventFile;
use crate::trainer::{Checkpoints, LossCurve, batch, helpers};
use anyhow::{Context, Result};
use manifests::{Type, Value};
use models::adamw::{AdamW, Ema, cosine};
use models::avatar::{self, Avatar, AvatarConfig, ExpressionConfig, LossTerms};
use models::schedule::ScheduleConfig;
use models::team::{Team, cut};
use models::triplane::{FeatureMapConfig, Layout};
use models::unet::UNetConfig;
use models::vae::Vae;
use models::weights;
use protocol::{ColumnDef, Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;

/// Parameters.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Optimiser steps; the paper takes 100,000.
    steps: u64,
    /// Samples in a step, or in each of its rounds.
    #[serde(default = "batch_size")]
    batch: usize,
    /// Rounds of `batch` samples in a step, one after the other; their gradients add up to that of all.
    #[serde(default = "accumulate")]
    accumulate: usize,
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
    /// Decay of a moving average of the weights, which is then what is put out; 0 for none (the paper).
    #[serde(default)]
    ema: f64,
    /// Learned maps rigged to the surface.
    #[serde(default)]
    features: Features,
    /// Ambient coordinates and their map; off for head models without them, such as the linear one.
    #[serde(default = "yes")]
    ambient: bool,
    /// Texels on a side of each map; the paper has 512.
    #[serde(default = "map_resolution")]
    map_resolution: i64,
    /// Channels of each plane and of the ambient map; the paper has 16.
    #[serde(default = "map_channels")]
    map_channels: i64,
    /// How the expression code reaches the U-Net besides the geometry.
    #[serde(default)]
    expression: ExpressionPath,
    /// Tokens that an expression code becomes.
    #[serde(default = "expression_tokens")]
    expression_tokens: i64,
    /// Whether the expression code includes gaze (`eyes`) and lids (`lids`) as `track_eyes` puts them out. The paper has the gaze alone.
    #[serde(default)]
    eyes: EyeCodes,
    /// How the code is scaled before the network sees it.
    #[serde(default)]
    codes: Codes,
    /// What becomes of the prior.
    #[serde(default)]
    prior: Prior,
    /// What the network learns to say.
    #[serde(default)]
    objective: Objective,
    /// Weight of the error inside the mouth beside that of all; needs a column `mouth_mask` (`mask_regions` makes it). The paper
    /// has 0.
    #[serde(default)]
    mouth_weight: f64,
    /// The same around the eyes, by `eyes_mask`. The paper has no such term.
    #[serde(default)]
    eyes_weight: f64,
    /// Weight of the difference between the maps' last three channels and the picture; needs a column `target`. The paper has 0.
    #[serde(default)]
    color_weight: f64,
    /// Largest signal-to-noise ratio that counts in the weight of a sample (min-SNR; 5 is usual); none in the paper.
    #[serde(default)]
    min_snr: Option<f64>,
    /// Widths of the condition encoder; each after the first halves the resolution.
    #[serde(default = "encoder_channels")]
    encoder_channels: Vec<i64>,
    /// Parts that a batch is computed in, side by side where there are threads for it. More threads than parts are of no
    /// use; another number changes the rounding.
    #[serde(default = "parts")]
    parts: usize,
    /// The numbers that the networks compute in; weights, optimiser and samples are in f32 anyhow. Half-precision (f16) is
    /// not offered: it takes loss scaling, which bf16 does without.
    #[serde(default)]
    precision: Precision,
    /// Compute the stages of the networks once more for their gradients instead of keeping them: less memory, more time,
    /// the same bits.
    #[serde(default)]
    gradient_checkpointing: bool,
    /// Steps between trials on the rows of `validation`; the last step has one, too. The paper's is 5,000.
    #[serde(default = "validate_every")]
    validate_every: u64,
    /// Rows that are tried, spread evenly over those of `validation`.
    #[serde(default = "validation_images")]
    validation_images: usize,
    /// Sampling steps of their pictures.
    #[serde(default = "validation_steps")]
    validation_steps: usize,
    /// Steps between checkpoints.
    #[serde(default = "checkpoint_every")]
    checkpoint_every: u64,
    /// Seed of weights, batches and noise.
    #[serde(default = "seed")]
    pub seed: u64,
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

/// Learned maps rigged to the surface.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Features {
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
enum ExpressionPath {
    /// Four tokens, attended to in the U-Net (the paper).
    #[default]
    Tokens,
    /// Only through the geometry (the ablation "w/o exp. cond.").
    None,
}

/// What of the eyes belongs to the expression code.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum EyeCodes {
    /// Nothing.
    #[default]
    None,
    /// Six gaze values (the paper).
    Gaze,
    /// Six gaze values and two lid openings.
    GazeAndLids,
}

impl EyeCodes {
    /// The columns.
    fn columns(self) -> &'static [&'static str] {
        match self {
            EyeCodes::None => &[],
            EyeCodes::Gaze => &["eyes"],
            EyeCodes::GazeAndLids => &["eyes", "lids"],
        }
    }
}

/// How codes are scaled.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Codes {
    /// Each value to mean 0 and deviation 1 over the rows that are trained on.
    #[default]
    Standardised,
    /// As they are (the paper).
    Raw,
}

/// The numbers that networks compute in.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Precision {
    /// 32 bits (the paper).
    #[default]
    F32,
    /// 16 bits with the range of f32: for GPUs. CPUs do it as well, most of them slower than f32.
    Bf16,
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
        for column in self.eyes.columns() {
            anyhow::ensure!(row.has(column), "rows have no `{column}`, which `eyes` of the avatar asks for\nhint: it is what track_eyes puts out; or leave `eyes` at none");
            code.extend(row.floats(column)?);
        }
        Ok(code)
    }

    /// Whether codes are scaled to the rows that are trained on.
    pub fn standardises(&self) -> bool {
        self.codes == Codes::Standardised
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
            expression: (self.expression == ExpressionPath::Tokens).then_some(ExpressionConfig { code, tokens: self.expression_tokens }),
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
            terms: self.terms(),
        }
    }

    fn terms(&self) -> LossTerms {
        LossTerms { mouth: self.mouth_weight, eyes: self.eyes_weight, colors: self.color_weight, min_snr: self.min_snr }
    }

    /// What no schema says.
    fn check(&self) -> Result<()> {
        let no = |wrong: bool, sentence: &str| if wrong { Err(anyhow::anyhow!("{sentence}")) } else { Ok(()) };
        no(self.batch == 0 || self.accumulate == 0, "a step needs samples: `batch` and `accumulate` are at least 1")?;
        no(!(0.0..1.0).contains(&self.ema), "`ema` is a decay: at least 0 and less than 1, for example 0.999")?;
        no([self.mouth_weight, self.eyes_weight, self.color_weight].iter().any(|weight| *weight < 0.0), "the weight of a loss is not negative")?;
        no(self.expression_tokens < 1, "`expression_tokens` is at least 1\nhint: `expression: none` gives the network no code")?;
        no(self.min_snr.is_some_and(|limit| limit <= 0.0), "`min_snr` is a ratio above 0, for example 5")?;
        no(self.validate_every == 0, "`validate_every` is at least 1\nhint: without `with: { validation: ... }` nothing is validated")?;
        let colorless = self.features == Features::None || self.map_channels < 3;
        no(self.color_weight > 0.0 && colorless, "`color_weight` needs feature maps of three channels or more")
    }
}

fn def() -> StageDef {
    let tried = [("gbuffer", Type::Blob), ("latent", Type::Blob), ("expression", Type::Floats(0)), ("target", Type::Blob)];
    let mut def = StageDef::new("train_avatar", 6, Grain::Whole)
        .doc("Trains a person's avatar: ControlNet, TriPlane features and expression attentions on a diffusion prior.")
        .reads([("gbuffer", Type::Blob), ("latent", Type::Blob), ("expression", Type::Floats(0))])
        .may_read(EYE_COLUMNS)
        .may_read([("participant", Type::I64), ("mouth_mask", Type::Blob), ("eyes_mask", Type::Blob), ("target", Type::Blob)])
        .with("backbone", backbone::COLUMNS)
        .may_take("validation", tried)
        .writes([("config", Type::Blob), ("checkpoint", Type::Blob), ("losses", Type::Blob)])
        .writes([("events", Type::Blob), ("events_path", Type::Str)])
        .writes([("validation", Type::Blob), ("validation_sheet", Type::Blob)])
        .threads(2)
        .memory_mb(4000);
    let optional = [("participant", Type::I64)].into_iter().chain(EYE_COLUMNS);
    let optional = optional.map(|(name, ty)| ColumnDef { name: name.into(), ty, optional: true });
    def.with.last_mut().expect("it was just added").reads.extend(optional);
    def
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    params.check()?;
    anyhow::Ok(TrainAvatar { params })
});

struct TrainAvatar {
    params: Params,
}

impl Stage for TrainAvatar {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.train(unit, cx)).collect()
    }
}

/// All that changes in the course of a training.
struct State<'a> {
    avatar: &'a Avatar,
    optimiser: AdamW,
    /// The moving average, if one is wanted.
    average: Option<Ema>,
    curve: LossCurve,
    validation: Option<Validation>,
    events: EventFile,
}

impl TrainAvatar {
    fn train(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let rows = unit.rows();
        anyhow::ensure!(!rows.is_empty(), "there are no rows to train on");
        let description = Description::of(p, &rows)?;
        let samples = Samples::load(&rows, &description, &p.terms())?;
        let backbone = cx.with("backbone")?;
        let (_vae_vs, vae): (_, Vae) = backbone::load_vae(backbone)?;
        let avatar = description.build(backbone)?;
        let replica = || description.build(backbone);
        let mut team = match p.precision {
            Precision::F32 => {
                let replicas = (0..helpers(p.parts, cx.threads)).map(|_| replica()).collect::<Result<_>>()?;
                Team::new(&avatar, replicas)
            }
            Precision::Bf16 => Team::apprentice(&avatar, replica()?.in_bfloat16()),
        };
        let names = p.terms().names();
        let scratch = cx.scratch()?;
        let checkpoints = Checkpoints::new(scratch);
        // its name is what TensorBoard goes by
        let live = scratch.join("events.out.tfevents");
        let begin = |events: EventFile| -> Result<State<'_>> {
            let trial = (p.validation_images, p.validation_steps, p.seed);
            let validation = cx.maybe_with("validation").map(|table| Validation::new(table, &description, (&vae, &avatar), trial));
            Ok(State {
                avatar: &avatar,
                optimiser: avatar.optimiser(),
                average: (p.ema > 0.0).then(|| Ema::new(&avatar.learned(), p.ema)),
                curve: LossCurve::new(&names, p.steps, 100),
                validation: validation.transpose()?,
                events,
            })
        };
        let mut state = begin(EventFile::reopen(&live)?)?;
        let damaged = Cell::new(false);
        let told = |text: &str| {
            damaged.set(true);
            cx.log(text);
        };
        let start = checkpoints.resume(|dir| state.load(dir), told)?;
        if start == 0 {
            if damaged.get() {
                // half of a damaged checkpoint may have been taken
                avatar.restore(&description.build(backbone)?.learned(), "the beginning")?;
            }
            state = begin(EventFile::create(&live)?)?;
        }

        let size = p.batch * p.accumulate;
        for step in start..p.steps {
            let at = batch(p.seed, step, size, samples.len());
            let drawn = samples.batch(&at, &vae, &avatar.schedule, (p.seed, step))?;
            state.optimiser.zero_grad();
            let mut loss = vec![0.0; names.len()];
            for (from, n, round) in cut(size, p.accumulate) {
                let part = |(first, n, share)| (share * round, drawn.narrow(from + first, n));
                let terms = team.backward(&avatar, cut(n as usize, p.parts).into_iter().map(part).collect());
                loss.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
            if !loss[0].is_finite() {
                return Err(checkpoints.diverged(&format!("the loss is {}", loss[0]), step + 1));
            }
            let norms = state.optimiser.step(match p.lr_schedule {
                LrSchedule::Cosine => cosine(step, p.steps, 20, 0.01),
                LrSchedule::Constant => 1.0,
            });
            if let Some(norm) = norms.iter().find(|norm| !norm.is_finite()) {
                return Err(checkpoints.diverged(&format!("the norm of a gradient is {norm}"), step + 1));
            }
            if let Some(average) = &mut state.average {
                average.update(&avatar.learned());
            }
            let done = step + 1;
            if let Some(means) = state.curve.push(done, &loss) {
                for (name, mean) in names.iter().zip(means) {
                    state.events.scalar(done, &format!("train/{name}"), mean)?;
                }
            }
            if done.is_multiple_of(10) || done == p.steps {
                cx.progress(done as usize, p.steps as usize, format!("loss {:.4}", state.curve.last()));
            }
            if done.is_multiple_of(p.validate_every) || done == p.steps {
                state.validate(done, &vae, scratch)?;
            }
            let stop = done < p.steps && cx.should_stop();
            if done.is_multiple_of(p.checkpoint_every) || stop {
                checkpoints.save(done, |dir| state.save(dir))?;
            }
            cx.go_on(stop)?;
        }
        state.put_out(unit, cx, &description, &live)
    }
}

impl State<'_> {
    /// The weights that are put out: the average's, if there is one.
    fn result(&self) -> weights::Tensors {
        let plain = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.shallow_clone());
        self.average.as_ref().map_or_else(|| self.avatar.learned(), |average| average.tensors().iter().map(plain).collect())
    }

    fn validate(&mut self, step: u64, vae: &Vae, scratch: &Path) -> Result<()> {
        let Some(validation) = &mut self.validation else { return Ok(()) };
        let own: Option<weights::Tensors> = self.average.as_ref().map(|average| {
            let own = self.avatar.learned().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect();
            self.avatar.restore(average.tensors(), "the moving average").map(|()| own)
        }).transpose()?;
        validation.run(step, (vae, self.avatar), &mut self.events, scratch)?;
        own.map_or(Ok(()), |own| Ok(self.avatar.restore(&own, "the weights in training")?))
    }

    fn put_out(&self, unit: &Unit<'_>, cx: &Cx<'_>, description: &Description, live: &Path) -> Result<Rows> {
        let [config, checkpoint, losses, events, validation, sheet] = [
            "avatar.json", "avatar.safetensors", "losses.csv", "events.out.tfevents", "validation.csv", "validation.png",
        ]
        .map(|name| cx.file(unit, name));
        std::fs::write(&config, serde_json::to_string_pretty(description)?)
            .with_context(|| format!("cannot write {}", config.display()))?;
        weights::write(&checkpoint, &self.result(), &BTreeMap::new(), weights::Precision::Keep)?;
        self.curve.write(&losses)?;
        std::fs::copy(live, &events).with_context(|| format!("cannot write {}", events.display()))?;
        let row = OutRow::new().file("config", &config).file("checkpoint", &checkpoint).file("losses", &losses);
        // several trainings side by side have a folder each
        let row = row.file("events", &events).str("events_path", format!("{}/events.out.tfevents", &unit.key[..12]));
        Ok(vec![match &self.validation {
            Some(tried) => {
                tried.save(&validation, &sheet)?;
                row.file("validation", &validation).file("validation_sheet", &sheet)
            }
            None => row.set("validation", Value::Null).set("validation_sheet", Value::Null),
        }])
    }

    fn save(&self, dir: &Path) -> Result<()> {
        let keep = weights::Precision::Keep;
        weights::write(&dir.join("weights.safetensors"), &self.avatar.learned(), &BTreeMap::new(), keep)?;
        if let Some(average) = &self.average {
            weights::write(&dir.join("average.safetensors"), average.tensors(), &BTreeMap::new(), keep)?;
        }
        if let Some(validation) = &self.validation {
            validation.save(&dir.join("validation.csv"), &dir.join("validation.png"))?;
        }
        self.optimiser.save(&dir.join("optimiser.safetensors"))?;
        std::fs::write(dir.join("events"), self.events.length().to_string())?;
        self.curve.save(&dir.join("losses.csv"))
    }

    fn load(&mut self, dir: &Path) -> Result<()> {
        let events = std::fs::read_to_string(dir.join("events")).context("the length of the event file")?;
        let path = dir.join("weights.safetensors");
        self.avatar.restore(&weights::read(&path)?, &path.display().to_string())?;
        if let Some(average) = &mut self.average {
            let path = dir.join("average.safetensors");
            average.restore(&weights::read(&path)?, &path.display().to_string())?;
        }
        if let Some(validation) = &mut self.validation {
            validation.restore(&dir.join("validation.csv"), &dir.join("validation.png"))?;
        }
        self.optimiser.load(&dir.join("optimiser.safetensors"))?;
        self.curve.restore(&dir.join("losses.csv"))?;
        self.events.cut(events.parse().context("the length of the event file")?)
    }
}
