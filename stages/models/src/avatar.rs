//! DiffusionAvatars (Kirschstein et al., CVPR 2024): a latent diffusion U-Net steered by a ControlNet that sees the
//! rasterised head with learned features on it, and by attentions that see the expression code. Switches give the
//! paper's ablations. Does not know files, cameras or training loops.

use std::collections::BTreeSet;

use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::adamw::{AdamW, Group};
use crate::controlnet::{ConditionEncoder, ControlNet, ControlNetConfig};
use crate::init;
use crate::layers::Linear;
use crate::ldm::Draw;
use crate::schedule::{Sampler, Schedule, ScheduleConfig, Step, Walk};
use crate::tape::Tape;
use crate::team::Member;
use crate::triplane::{FeatureMapConfig, FeatureMaps, GBuffer, Layout, condition};
use crate::unet::{ExpressionAttentions, ExpressionHalves, Extras, UNet, UNetConfig, times};
use crate::weights::{self, Tensors, WeightsError};

pub use loss::LossTerms;

mod loss;

/// What becomes of the pretrained U-Net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prior {
    /// It is frozen; ControlNet and expression attentions learn (the paper).
    Frozen,
    /// It learns too. Not in the paper; for small priors.
    Tuned,
    /// There is none: the U-Net starts from random weights, everything learns, and the encoded condition is given to it
    /// as further input channels beside the noisy latent instead of going through a ControlNet (the paper's "w/o LDM
    /// prior").
    None,
}

/// What the network learns to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// The schedule's target, from a noisy latent.
    Diffusion,
    /// The latent itself in one pass, from zeros (the paper's "w/o diffusion").
    Direct,
}

/// The expression path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpressionConfig {
    /// Length of the expression code.
    pub code: i64,
    /// Tokens that one linear layer makes of it.
    pub tokens: i64,
    /// Where the U-Net attends to them.
    pub halves: ExpressionHalves,
    /// Whether the attentions' queries stay copies of the text's. The paper learns their keys and values alone, its
    /// code the queries as well.
    pub keep_queries: bool,
}

impl ExpressionConfig {
    /// Four tokens of a code of so many values, attended to in both halves, queries learned: the reference's.
    pub fn new(code: i64) -> Self {
        Self { code, tokens: 4, halves: ExpressionHalves::Both, keep_queries: false }
    }
}

/// Parameters of an avatar. The default is published: Stable Diffusion 2.1 at 512 pixels, 206 code values, 4 tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct AvatarConfig {
    /// Sizes of the U-Net.
    pub unet: UNetConfig,
    /// Widths of the condition encoder.
    pub encoder_channels: Vec<i64>,
    /// Noise schedule.
    pub schedule: ScheduleConfig,
    /// Learned feature maps; none leaves the plain G-buffer ("w/o spatial features").
    pub maps: Option<FeatureMapConfig>,
    /// Whether G-buffers carry ambient coordinates.
    pub ambient: bool,
    /// Participants, each with feature maps of their own; all else they share.
    pub participants: usize,
    /// Expression path; none for "w/o expression condition".
    pub expression: Option<ExpressionConfig>,
    /// What becomes of the U-Net.
    pub prior: Prior,
    /// What is learned.
    pub objective: Objective,
    /// Learning rate of the networks.
    pub lr_networks: f64,
    /// Learning rate of the feature maps.
    pub lr_maps: f64,
    /// Weight decay of all that learns.
    pub weight_decay: f64,
    /// Of AdamW: what stays of the gradients' moments from step to step.
    pub betas: [f64; 2],
    /// Largest norm of a network's gradient; the maps' is not clipped.
    pub max_grad_norm: f64,
    /// Clip the gradient of the expression path too; the paper clips the ControlNet's only.
    pub clip_expression: bool,
    /// Terms beside the mean squared error; the paper has none.
    pub terms: LossTerms,
    /// Compute the stages of U-Net and ControlNet once more for their gradients instead of keeping what lies between:
    /// less memory, a third more time, the same bits.
    pub gradient_checkpointing: bool,
}

impl Default for AvatarConfig {
    fn default() -> Self {
        Self {
            unet: UNetConfig::default(),
            encoder_channels: vec![16, 32, 96, 256],
            schedule: ScheduleConfig::default(),
            maps: Some(FeatureMapConfig::default()),
            ambient: true,
            participants: 1,
            expression: Some(ExpressionConfig::new(206)),
            prior: Prior::Frozen,
            objective: Objective::Diffusion,
            lr_networks: 1e-4,
            lr_maps: 1e-2,
            weight_decay: 0.01,
            betas: [0.9, 0.999],
            max_grad_norm: 1.0,
            clip_expression: false,
            terms: LossTerms::default(),
            gradient_checkpointing: false,
        }
    }
}

impl AvatarConfig {
    /// For 64-pixel images with [`UNetConfig::small`] and codes of `code` values. Larger learning rate, since small
    /// networks train for thousands of steps instead of a hundred thousand.
    pub fn small(code: i64) -> Self {
        Self {
            unet: UNetConfig::small(),
            encoder_channels: vec![16, 32, 64],
            maps: Some(FeatureMapConfig::small()),
            expression: Some(ExpressionConfig::new(code)),
            lr_networks: 2e-3,
            clip_expression: true,
            ..Self::default()
        }
    }

    /// Channels of the condition image.
    pub fn condition_channels(&self) -> i64 {
        let maps = self.feature_maps();
        // two coordinates of the surface instead of three
        let spherical = maps.is_some_and(|maps| maps.layout == Layout::SphericalUv);
        GBuffer::channels(self.ambient) - i64::from(spherical) + maps.map_or(0, |maps| maps.channels())
    }

    /// The maps there are: without ambient coordinates no ambient map.
    fn feature_maps(&self) -> Option<FeatureMapConfig> {
        let ambient = |maps: FeatureMapConfig| if self.ambient { maps.ambient_channels } else { 0 };
        self.maps.map(|maps| FeatureMapConfig { ambient_channels: ambient(maps), ..maps })
    }

    /// The last three channels of the condition that come from planes; [`LossTerms::colors`] wants them to be colours.
    pub(crate) fn color_channels(&self) -> Option<i64> {
        let maps = self.feature_maps().filter(|maps| maps.plane_channels >= 3)?;
        Some(self.condition_channels() - maps.ambient_channels - 3)
    }

    /// The U-Net as it is built: where it takes the encoded condition itself, it has as many input channels more.
    fn network(&self) -> UNetConfig {
        let encoded = if self.prior == Prior::None { self.unet.block_out_channels[0] } else { 0 };
        UNetConfig { in_channels: self.unet.in_channels + encoded, ..self.unet.clone() }
    }

    fn control(&self) -> ControlNetConfig {
        ControlNetConfig {
            unet: self.unet.clone(),
            condition_channels: self.condition_channels(),
            encoder_channels: self.encoder_channels.clone(),
            ..ControlNetConfig::default()
        }
    }
}

/// How the condition reaches the U-Net.
#[derive(Debug)]
enum Steering {
    Control(Box<ControlNet>),
    Input(ConditionEncoder),
}

#[derive(Debug)]
struct Expression {
    tokens: Linear,
    attentions: ExpressionAttentions,
}

/// An avatar: networks, feature maps and the schedule.
#[derive(Debug)]
pub struct Avatar {
    /// Its parameters.
    pub config: AvatarConfig,
    /// Its noise schedule.
    pub schedule: Schedule,
    unet: UNet,
    steering: Steering,
    expression: Option<Expression>,
    /// Of each participant; none without features.
    maps: Vec<FeatureMaps>,
    /// Tokens of the empty prompt, `[1, M, ctx]`.
    text: Tensor,
    unet_vs: VarStore,
    steering_vs: VarStore,
    expression_vs: VarStore,
    maps_vs: VarStore,
    device: Device,
    /// The numbers that networks compute in.
    kind: Kind,
}

/// One training batch of B samples.
pub struct Batch {
    /// Scaled latents, `[B, C, h, w]`.
    pub latents: Tensor,
    /// What the head looks like in each.
    pub gbuffer: GBuffer,
    /// Expression codes, `[B, code]`; not looked at without the expression path.
    pub codes: Tensor,
    /// Times and noise; not looked at by the direct objective.
    pub draw: Draw,
    /// Where the mouth is, 0 to 1, `[B, h, w]` as the latents; [`LossTerms::mouth`] needs it.
    pub mouth: Option<Tensor>,
    /// Where the eyes are, likewise; [`LossTerms::eyes`] needs it.
    pub eyes: Option<Tensor>,
    /// The pictures in [-1, 1], `[B, 3, H, W]` as the G-buffer; [`LossTerms::colors`] needs them.
    pub colors: Option<Tensor>,
}

impl Batch {
    /// `count` samples from `start` on.
    pub fn narrow(&self, start: i64, count: i64) -> Self {
        Self {
            latents: self.latents.narrow(0, start, count),
            gbuffer: self.gbuffer.narrow(start, count),
            codes: self.codes.narrow(0, start, count),
            draw: self.draw.narrow(start, count),
            mouth: self.mouth.as_ref().map(|mouth| mouth.narrow(0, start, count)),
            eyes: self.eyes.as_ref().map(|eyes| eyes.narrow(0, start, count)),
            colors: self.colors.as_ref().map(|colors| colors.narrow(0, start, count)),
        }
    }
}

/// What [`Avatar::condition`] prepares; it does not depend on the diffusion time.
pub struct Prepared {
    /// Encoded condition, `[B, width, h, w]`.
    encoded: Tensor,
    /// Expression tokens, `[B, K, ctx]`.
    tokens: Option<Tensor>,
    /// The features that should be colours, `[B, 3, H, W]`, where a loss asks for it.
    colors: Option<Tensor>,
}

impl Avatar {
    /// Builds an avatar on a prior's U-Net weights (not looked at for [`Prior::None`]) and its empty prompt `[1, M,
    /// ctx]`. At this point it predicts what the prior predicts.
    ///
    /// # Errors
    /// If its sizes are impossible, or the weights are those of another U-Net.
    pub fn new(
        config: &AvatarConfig,
        prior: &Tensors,
        text: &Tensor,
        seed: u64,
        device: Device,
    ) -> Result<Self, WeightsError> {
        let control = config.control();
        control.check("the avatar's U-Net and `encoder_channels`")?;
        let (mut unet_vs, unet) = init::build(device, seed, |p| UNet::new(p, &config.network()));
        if config.prior != Prior::None {
            weights::load_tensors(&unet_vs, prior, "the prior's U-Net")?;
        }
        if config.prior == Prior::Frozen {
            unet_vs.freeze();
        }
        let (steering_vs, steering) = init::build(device, seed, |p| match config.prior {
            Prior::None => Steering::Input(ConditionEncoder::new(&(p / "controlnet_cond_embedding"), &control)),
            _ => Steering::Control(Box::new(ControlNet::new(p, &control))),
        });
        if let Steering::Control(net) = &steering {
            net.start_from(&steering_vs, &unet_vs);
        }
        let width = config.unet.cross_attention_dim;
        let (expression_vs, expression) = init::build(device, seed, |p| {
            config.expression.map(|e| Expression {
                tokens: Linear::new(&(p / "tokens"), e.code, e.tokens * width),
                attentions: ExpressionAttentions::new(p, &config.unet, e.halves),
            })
        });
        if let Some((expression, e)) = expression.as_ref().zip(config.expression) {
            expression.attentions.start_from(&unet, e.keep_queries);
        }
        // the first participant's have no number: an avatar of one person names them as if there were no others
        let participants = 0..if config.maps.is_some() { config.participants } else { 0 };
        let (maps_vs, maps) = init::build(device, seed, |p| {
            let path = |k: usize| if k == 0 { p.clone() } else { p / k };
            let c = config.feature_maps().unwrap_or_default();
            participants.map(|k| FeatureMaps::new(&path(k), &c)).collect::<Vec<_>>()
        });
        for (k, maps) in maps.iter().enumerate() {
            maps.seed(seed, &if k == 0 { String::new() } else { format!("{k}.") });
        }
        let (config, schedule) = (config.clone(), Schedule::new(&config.schedule));
        let text = text.detach().to_device(device);
        Ok(Self {
            config,
            schedule,
            unet,
            steering,
            expression,
            maps,
            text,
            unet_vs,
            steering_vs,
            expression_vs,
            maps_vs,
            device,
            kind: Kind::Float,
        })
    }

    /// The same avatar with networks that compute in bfloat16 or half precision, half as large; feature maps and losses
    /// stay in f32. As a [`Team::apprentice`](crate::team::Team::apprentice) of one in f32 it trains with mixed
    /// precision; half precision wants its losses scaled (`loss_scale`).
    pub fn computing_in(mut self, kind: Kind) -> Self {
        for vs in [&mut self.unet_vs, &mut self.steering_vs, &mut self.expression_vs] {
            vs.set_kind(kind);
        }
        self.kind = kind;
        self.text = self.text.to_kind(self.kind);
        self
    }

    /// An optimiser over everything that learns, in the groups `controlnet`, `expression`, `maps` and, where the U-Net
    /// learns, `unet`.
    pub fn optimiser(&self) -> AdamW {
        let c = &self.config;
        let mut optimiser = AdamW::default();
        optimiser.betas = c.betas;
        let group = |name: &str, lr: f64, clipped: bool| {
            let max_grad_norm = clipped.then_some(c.max_grad_norm);
            Group { name: name.into(), lr, weight_decay: c.weight_decay, max_grad_norm }
        };
        optimiser.add(group("controlnet", c.lr_networks, true), &self.steering_vs);
        optimiser.add(group("expression", c.lr_networks, c.clip_expression), &self.expression_vs);
        optimiser.add(group("maps", c.lr_maps, false), &self.maps_vs);
        optimiser.add(group("unet", c.lr_networks, true), &self.unet_vs);
        optimiser
    }

    /// Everything that learns, under `controlnet.`, `expression.`, `maps.` and, where it learns, `unet.`: the contents
    /// of a checkpoint. The tensors are the live ones.
    pub fn learned(&self) -> Tensors {
        let stores = [
            ("controlnet", &self.steering_vs),
            ("expression", &self.expression_vs),
            ("maps", &self.maps_vs),
            ("unet", &self.unet_vs),
        ];
        let named = |(prefix, vs): (&str, &VarStore)| -> Vec<(String, Tensor)> {
            let learned = weights::sorted(vs).into_iter().filter(|(_, t)| t.requires_grad());
            learned.map(|(name, t)| (format!("{prefix}.{name}"), t)).collect()
        };
        stores.into_iter().flat_map(named).collect()
    }

    /// Takes a checkpoint's tensors, strictly.
    pub fn restore(&self, tensors: &Tensors, source: &str) -> Result<(), WeightsError> {
        weights::copy_into(&self.learned(), tensors, source)
    }

    /// Names of weights that do not learn; for tests and reports.
    pub fn frozen(&self) -> BTreeSet<String> {
        let all = [&self.unet_vs, &self.expression_vs].into_iter().flat_map(VarStore::variables);
        all.filter(|(_, t)| !t.requires_grad()).map(|(n, _)| n).collect()
    }

    /// Encodes what does not depend on time, once for all sampling steps. `codes` `[B, code]`.
    pub fn condition(&self, gbuffer: &GBuffer, codes: &Tensor) -> Prepared {
        let (image, codes) = (self.image(gbuffer), codes.to_device(self.device));
        let colors = self.config.color_channels().filter(|_| self.config.terms.colors > 0.0);
        let colors = colors.map(|from| image.narrow(1, from, 3));
        let (image, codes) = (image.to_kind(self.kind), codes.to_kind(self.kind));
        let encoded = match &self.steering {
            Steering::Control(net) => net.encode(&image),
            Steering::Input(encoder) => encoder.forward(&image),
        };
        let width = self.config.unet.cross_attention_dim;
        let tokens = self.expression.as_ref().map(|e| e.tokens.forward(&codes).unflatten(1, [-1, width]));
        Prepared { encoded, tokens, colors }
    }

    /// What the feature maps say of each pixel's surface, `[B, C, H, W]`: the learned channels of the condition; none
    /// without maps.
    pub fn features(&self, gbuffer: &GBuffer) -> Option<Tensor> {
        let learned = self.config.feature_maps()?.channels();
        let image = self.image(gbuffer);
        Some(image.narrow(1, image.size()[1] - learned, learned))
    }

    /// The condition image, before it is encoded.
    fn image(&self, gbuffer: &GBuffer) -> Tensor {
        let mut gbuffer = gbuffer.to_device(self.device);
        if !self.config.ambient {
            gbuffer.ambient = None;
        }
        condition(&gbuffer, &self.maps)
    }

    /// The U-Net's output for noisy latents `[B, C, h, w]` at times `t` `[B]`.
    pub fn predict(&self, noisy: &Tensor, t: &Tensor, prepared: &Prepared) -> Tensor {
        self.predict_on(None, noisy, t, prepared)
    }

    fn predict_on<'n>(&'n self, tape: Option<&Tape<'n>>, noisy: &Tensor, t: &Tensor, prepared: &Prepared) -> Tensor {
        let text = self.text.expand([noisy.size()[0], -1, -1], false);
        let noisy = &noisy.to_kind(self.kind);
        let expression = self.expression.as_ref().zip(prepared.tokens.as_ref());
        let expression = expression.map(|(e, tokens)| (&e.attentions, tokens));
        let base = Extras { expression, tape, ..Extras::default() };
        let out = match &self.steering {
            Steering::Control(net) => {
                let residuals = net.forward_on(tape, noisy, t, &text, &prepared.encoded, 1.0);
                let extras = Extras { down: Some(&residuals.down), mid: Some(&residuals.mid), ..base };
                self.unet.forward(noisy, t, &text, extras)
            }
            Steering::Input(_) => self.unet.forward(&Tensor::cat(&[noisy, &prepared.encoded], 1), t, &text, base),
        };
        out.to_kind(Kind::Float)
    }

    /// Samples scaled latents `[B, C, h, w]` for B frames in `steps` steps (the paper: 20 of [`Sampler::Ddpm`]). The
    /// initial noise and the noise of each step are functions of `seed` and the same for every frame, which keeps
    /// neighbouring frames alike. Frames run one at a time, so a frame's bits do not depend on its neighbours.
    pub fn sample(
        &self,
        gbuffer: &GBuffer,
        codes: &Tensor,
        sampler: Sampler,
        steps: usize,
        seed: u64,
    ) -> Result<Tensor, String> {
        let plan = self.schedule.plan(sampler, steps)?;
        let frames = (0..gbuffer.len())
            .map(|i| self.sample_chunk(&gbuffer.select(i), &codes.narrow(0, i, 1), &plan, seed))
            .collect::<Vec<_>>();
        Ok(Tensor::cat(&frames, 0))
    }

    /// Like [`Avatar::sample`], all frames at once: faster where there are many cores, equal up to rounding.
    pub fn sample_together(
        &self,
        gbuffer: &GBuffer,
        codes: &Tensor,
        sampler: Sampler,
        steps: usize,
        seed: u64,
    ) -> Result<Tensor, String> {
        Ok(self.sample_chunk(gbuffer, codes, &self.schedule.plan(sampler, steps)?, seed))
    }

    fn sample_chunk(&self, gbuffer: &GBuffer, codes: &Tensor, plan: &[Step], seed: u64) -> Tensor {
        tch::no_grad(|| {
            let prepared = self.condition(gbuffer, codes);
            let (batch, size) = (gbuffer.len(), prepared.encoded.size());
            let shape = [1, self.config.unet.in_channels, size[2], size[3]];
            let noise = |stream: u64| init::normal(seed, stream, &shape).to_device(self.device);
            if self.config.objective == Objective::Direct {
                let zeros = noise(0).zeros_like().expand([batch, -1, -1, -1], false);
                return self.predict(&zeros, &times(0, batch, self.device), &prepared);
            }
            let mut x = noise(0).expand([batch, -1, -1, -1], false).contiguous();
            let mut walk = Walk::default();
            for (k, step) in plan.iter().enumerate() {
                let out = self.predict(&x, &times(step.t, batch, self.device), &prepared);
                let fresh = (step.noise_std > 0.0).then(|| noise(k as u64 + 1));
                x = step.advance(&x, &out, fresh.as_ref(), &mut walk);
            }
            x
        })
    }
}

impl Member for Avatar {
    type Job = Batch;

    fn learned(&self) -> Tensors {
        self.learned()
    }

    /// The loss, and then what [`LossTerms::names`] says.
    fn loss(&self, batch: &Batch) -> (Tensor, Vec<f64>) {
        let loss = self.training_loss(batch);
        (loss.sum, loss.terms)
    }

    fn backward(&self, batch: &Batch, share: f64) -> Vec<f64> {
        let tape = self.config.gradient_checkpointing.then(Tape::new);
        let loss = self.training_loss_on(tape.as_ref(), batch);
        let part = loss.sum * share;
        match tape {
            Some(tape) => tape.backward(&part),
            None => part.backward(),
        }
        loss.terms
    }
}

#[cfg(test)]
mod checkpointing;

#[cfg(test)]
mod tests;
