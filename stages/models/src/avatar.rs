//! DiffusionAvatars (Kirschstein et al., CVPR 2024): a latent diffusion U-Net steered by a ControlNet that sees the
//! rasterised head with learned features on it, and by attentions that see the expression code. Switches give the paper's
//! ablations. Does not know files, cameras or training loops.

use std::collections::BTreeSet;

use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::adamw::{AdamW, Group};
use crate::controlnet::{ConditionEncoder, ControlNet, ControlNetConfig};
use crate::init;
use crate::layers::Linear;
use crate::ldm::Draw;
use crate::schedule::{Sampler, Schedule, ScheduleConfig, Step, Walk, time_tensor};
use crate::tape::Tape;
use crate::team::Member;
use crate::triplane::{FeatureMapConfig, FeatureMaps, GBuffer, condition};
use crate::unet::{ExpressionAttentions, Extras, UNet, UNetConfig, times};
use crate::weights::{self, Tensors, WeightsError};

/// What becomes of the pretrained U-Net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prior {
    /// It is frozen; ControlNet and expression attentions learn (the paper).
    Frozen,
    /// It learns too. Not in the paper; for small priors.
    Tuned,
    /// There is none: the U-Net starts from random weights, everything learns, and the encoded condition is added to its
    /// first convolution instead of going through a ControlNet (the paper's "w/o LDM prior").
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
    /// Clip the gradient of the expression path too; the paper clips the ControlNet's only.
    pub clip_expression: bool,
    /// Compute the stages of the networks once more for their gradients: less memory, more time, the same bits.
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
            expression: Some(ExpressionConfig { code: 206, tokens: 4 }),
            prior: Prior::Frozen,
            objective: Objective::Diffusion,
            lr_networks: 1e-4,
            lr_maps: 1e-2,
            clip_expression: false,
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
            expression: Some(ExpressionConfig { code, tokens: 4 }),
            lr_networks: 2e-3,
            clip_expression: true,
            ..Self::default()
        }
    }

    /// Channels of the condition image.
    pub fn condition_channels(&self) -> i64 {
        GBuffer::channels(self.ambient) + self.maps.map_or(0, |maps| maps.channels())
    }

    fn control(&self) -> ControlNetConfig {
        ControlNetConfig {
            unet: self.unet.clone(),
            condition_channels: self.condition_channels(),
            encoder_channels: self.encoder_channels.clone(),
        }
    }
}

/// How the condition reaches the U-Net.
#[derive(Debug)]
enum Steering {
    Control(Box<ControlNet>),
    Added(ConditionEncoder),
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
    maps: Option<FeatureMaps>,
    /// Tokens of the empty prompt, `[1, M, ctx]`.
    text: Tensor,
    unet_vs: VarStore,
    steering_vs: VarStore,
    expression_vs: VarStore,
    maps_vs: VarStore,
    device: Device,
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
}

impl Batch {
    /// `count` samples from `start` on.
    pub fn narrow(&self, start: i64, count: i64) -> Self {
        Self {
            latents: self.latents.narrow(0, start, count),
            gbuffer: self.gbuffer.narrow(start, count),
            codes: self.codes.narrow(0, start, count),
            draw: self.draw.narrow(start, count),
        }
    }
}

/// What [`Avatar::condition`] prepares; it does not depend on the diffusion time.
pub struct Prepared {
    /// Encoded condition, `[B, width, h, w]`.
    encoded: Tensor,
    /// Expression tokens, `[B, K, ctx]`.
    tokens: Option<Tensor>,
}

impl Avatar {
    /// Builds an avatar on a prior's U-Net weights (not looked at for [`Prior::None`]) and its empty prompt `[1, M, ctx]`.
    /// At this point it predicts what the prior predicts.
    pub fn new(
        config: &AvatarConfig,
        prior: &Tensors,
        text: &Tensor,
        seed: u64,
        device: Device,
    ) -> Result<Self, WeightsError> {
        let (mut unet_vs, unet) = init::build(device, seed, |p| UNet::new(p, &config.unet));
        if config.prior != Prior::None {
            weights::load_tensors(&unet_vs, prior, "the prior's U-Net")?;
        }
        if config.prior == Prior::Frozen {
            unet_vs.freeze();
        }
        let control = config.control();
        let (steering_vs, steering) = init::build(device, seed, |p| match config.prior {
            Prior::None => Steering::Added(ConditionEncoder::new(&(p / "controlnet_cond_embedding"), &control)),
            _ => Steering::Control(Box::new(ControlNet::new(p, &control))),
        });
        if let Steering::Control(net) = &steering {
            net.start_from(&steering_vs, &unet_vs);
        }
        let width = config.unet.cross_attention_dim;
        let (expression_vs, expression) = init::build(device, seed, |p| {
            config.expression.map(|e| Expression {
                tokens: Linear::new(&(p / "tokens"), e.code, e.tokens * width),
                attentions: ExpressionAttentions::new(p, &config.unet),
            })
        });
        if let Some(expression) = &expression {
            expression.attentions.start_from(&unet);
        }
        let (maps_vs, maps) = init::build(device, seed, |p| config.maps.map(|c| FeatureMaps::new(p, &c)));
        if let Some(maps) = &maps {
            maps.seed(seed);
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
        })
    }

    /// An optimiser over everything that learns, in the groups `controlnet`, `expression`, `maps` and, where the U-Net
    /// learns, `unet`.
    pub fn optimiser(&self) -> AdamW {
        let c = &self.config;
        let mut optimiser = AdamW::default();
        optimiser.add(Group::network("controlnet", c.lr_networks), &self.steering_vs);
        let limit = c.clip_expression.then_some(1.0);
        let expression = Group { max_grad_norm: limit, ..Group::network("expression", c.lr_networks) };
        optimiser.add(expression, &self.expression_vs);
        optimiser.add(Group::feature_maps("maps", c.lr_maps), &self.maps_vs);
        optimiser.add(Group::network("unet", c.lr_networks), &self.unet_vs);
        optimiser
    }

    /// Everything that learns, under `controlnet.`, `expression.`, `maps.` and, where it learns, `unet.`: the contents of a
    /// checkpoint. The tensors are the live ones.
    pub fn learned(&self) -> Tensors {
        let mut stores =
            vec![("controlnet", &self.steering_vs), ("expression", &self.expression_vs), ("maps", &self.maps_vs)];
        if self.config.prior != Prior::Frozen {
            stores.push(("unet", &self.unet_vs));
        }
        let named = |(prefix, vs): (&str, &VarStore)| -> Vec<(String, Tensor)> {
            weights::sorted(vs).into_iter().map(|(name, t)| (format!("{prefix}.{name}"), t)).collect()
        };
        stores.into_iter().flat_map(named).collect()
    }

    /// Takes a checkpoint's tensors, strictly.
    pub fn restore(&self, tensors: &Tensors, source: &str) -> Result<(), WeightsError> {
        weights::copy_into(&self.learned(), tensors, source)
    }

    /// Names of weights that do not learn; for tests and reports.
    pub fn frozen(&self) -> BTreeSet<String> {
        self.unet_vs.variables().into_iter().filter(|(_, t)| !t.requires_grad()).map(|(n, _)| n).collect()
    }

    /// Encodes what does not depend on time, once for all sampling steps. `codes` `[B, code]`.
    pub fn condition(&self, gbuffer: &GBuffer, codes: &Tensor) -> Prepared {
        let (gbuffer, codes) = (gbuffer.to_device(self.device), codes.to_device(self.device));
        let image = condition(&gbuffer, self.maps.as_ref());
        let encoded = match &self.steering {
            Steering::Control(net) => net.encode(&image),
            Steering::Added(encoder) => encoder.forward(&image),
        };
        let width = self.config.unet.cross_attention_dim;
        let tokens = self.expression.as_ref().map(|e| e.tokens.forward(&codes).unflatten(1, [-1, width]));
        Prepared { encoded, tokens }
    }

    /// The U-Net's output for noisy latents `[B, C, h, w]` at times `t` `[B]`.
    pub fn predict(&self, noisy: &Tensor, t: &Tensor, prepared: &Prepared) -> Tensor {
        self.predict_on(None, noisy, t, prepared)
    }

    fn predict_on<'n>(&'n self, tape: Option<&Tape<'n>>, noisy: &Tensor, t: &Tensor, prepared: &Prepared) -> Tensor {
        let text = self.text.expand([noisy.size()[0], -1, -1], false);
        let expression = self.expression.as_ref().zip(prepared.tokens.as_ref());
        let expression = expression.map(|(e, tokens)| (&e.attentions, tokens));
        let base = Extras { expression, tape, ..Extras::default() };
        match &self.steering {
            Steering::Control(net) => {
                let residuals = net.forward_on(tape, noisy, t, &text, &prepared.encoded, 1.0);
                let extras = Extras { down: Some(&residuals.down), mid: Some(&residuals.mid), ..base };
                self.unet.forward(noisy, t, &text, extras)
            }
            Steering::Added(_) => self.unet.forward(noisy, t, &text, Extras { added: Some(&prepared.encoded), ..base }),
        }
    }

    /// Mean squared error over all elements of the batch.
    pub fn training_loss(&self, batch: &Batch) -> Tensor {
        self.training_loss_on(None, batch)
    }

    fn training_loss_on<'n>(&'n self, tape: Option<&Tape<'n>>, batch: &Batch) -> Tensor {
        let prepared = self.condition(&batch.gbuffer, &batch.codes);
        let (latents, draw) = (&batch.latents.to_device(self.device), &batch.draw);
        let (out, target) = match self.config.objective {
            Objective::Diffusion => {
                let noise = draw.noise.to_device(self.device);
                let noisy = self.schedule.add_noise(latents, &noise, &draw.t);
                let target = self.schedule.target(latents, &noise, &draw.t);
                (self.predict_on(tape, &noisy, &time_tensor(&draw.t, latents), &prepared), target)
            }
            Objective::Direct => {
                let t = times(0, latents.size()[0], self.device);
                (self.predict_on(tape, &latents.zeros_like(), &t, &prepared), latents.shallow_clone())
            }
        };
        (out - target).square().mean(Kind::Float)
    }

    /// Samples scaled latents `[B, C, h, w]` for B frames in `steps` steps (the paper: 20 of [`Sampler::Ddpm`]). The initial
    /// noise and the noise of each step are functions of `seed` and the same for every frame, which keeps neighbouring frames
    /// alike. Frames run one at a time, so a frame's bits do not depend on its neighbours.
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

    /// One term: the loss.
    fn loss(&self, batch: &Batch) -> (Tensor, Vec<f64>) {
        let loss = self.training_loss(batch);
        let value = loss.double_value(&[]);
        (loss, vec![value])
    }

    fn backward(&self, batch: &Batch, share: f64) -> Vec<f64> {
        let tape = self.config.gradient_checkpointing.then(Tape::new);
        let loss = self.training_loss_on(tape.as_ref(), batch);
        let (value, part) = (loss.double_value(&[]), loss * share);
        match tape {
            Some(tape) => tape.backward(&part),
            None => part.backward(),
        }
        vec![value]
    }
}

#[cfg(test)]
mod checkpointing;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ldm;
    use crate::team::{Team, cut};

    /// Two-level networks on 4x4 latents: everything there is, in miniature.
    fn tiny(config: AvatarConfig) -> AvatarConfig {
        let unet = UNetConfig {
            block_out_channels: vec![8, 16],
            attention_levels: vec![true, false],
            heads: vec![2, 2],
            cross_attention_dim: 8,
            norm_num_groups: 4,
            ..UNetConfig::small()
        };
        let maps = config.maps.map(|_| FeatureMapConfig { resolution: 8, plane_channels: 2, ambient_channels: 2 });
        AvatarConfig { unet, maps, encoder_channels: vec![4, 8, 8], ..config }
    }

    fn gbuffer(frames: i64) -> GBuffer {
        let random = |stream, tail: &[i64]| init::uniform(9, stream, &[&[frames, 16, 16], tail].concat(), 0.0, 1.0);
        GBuffer {
            depth: random(0, &[]),
            canonical: random(1, &[3]),
            normals: random(2, &[3]),
            ambient: Some(random(3, &[2])),
            mask: random(4, &[]).gt(0.3),
        }
    }

    pub(super) fn avatar(config: AvatarConfig) -> (Avatar, Tensors, Tensor) {
        crate::runtime::prepare(1);
        let config = tiny(config);
        let (vs, _) = init::build(Device::Cpu, 77, |p| UNet::new(p, &config.unet));
        let (prior, text) = (weights::sorted(&vs), ldm::null_prompt(3, 8, 5));
        let avatar = Avatar::new(&config, &prior, &text, 1, Device::Cpu).unwrap();
        (avatar, prior, text)
    }

    pub(super) fn batch(avatar: &Avatar, step: u64) -> Batch {
        let (latents, codes) = (init::normal(2, 0, &[2, 4, 4, 4]), init::normal(2, 1, &[2, 6]));
        let draw = Draw::new(&avatar.schedule, &latents.size(), 3, step);
        Batch { latents, gbuffer: gbuffer(2), codes, draw }
    }

    pub(super) fn train(avatar: &Avatar, optimiser: &mut AdamW, from: u64, to: u64) -> f64 {
        let mut last = f64::NAN;
        for step in from..to {
            let loss = avatar.training_loss(&batch(avatar, step));
            optimiser.zero_grad();
            loss.backward();
            optimiser.step(1.0);
            last = loss.double_value(&[]);
        }
        last
    }

    #[test]
    fn a_fresh_avatar_is_its_prior() {
        let (avatar, prior, text) = avatar(AvatarConfig::small(6));
        let (vs, unet) = init::build(Device::Cpu, 0, |p| UNet::new(p, &avatar.config.unet));
        weights::load_tensors(&vs, &prior, "prior").unwrap();
        let (x, t) = (init::normal(0, 0, &[2, 4, 4, 4]), times(700, 2, Device::Cpu));
        tch::no_grad(|| {
            let prepared = avatar.condition(&gbuffer(2), &init::normal(0, 1, &[2, 6]));
            let plain = unet.forward(&x, &t, &text.expand([2, -1, -1], false), Extras::default());
            assert_eq!(avatar.predict(&x, &t, &prepared), plain);
        });
        assert_eq!(avatar.config.condition_channels(), 9 + 8);
        assert_eq!(AvatarConfig::default().condition_channels(), 73);
    }

    #[test]
    fn what_is_frozen_stays_and_what_learns_moves() {
        let (avatar, prior, _) = avatar(AvatarConfig::small(6));
        let before: Tensors = avatar.learned().into_iter().map(|(n, t)| (n, t.detach().copy())).collect();
        train(&avatar, &mut avatar.optimiser(), 0, 3);
        for (name, value) in weights::sorted(&avatar.unet_vs) {
            assert_eq!(value, prior[&name].detach(), "{name}");
        }
        let learned = avatar.learned();
        // Three steps: the zero convolutions have moved, so what lies behind them hears a gradient as well.
        let still: Vec<&String> = before.iter().filter(|(n, t)| learned[*n].detach() == **t).map(|(n, _)| n).collect();
        assert!(still.is_empty(), "{still:?} did not move");
        assert_eq!(avatar.frozen().len(), prior.len());
    }

    #[test]
    fn a_frame_does_not_depend_on_its_neighbours() {
        let (avatar, ..) = avatar(AvatarConfig::small(6));
        train(&avatar, &mut avatar.optimiser(), 0, 3);
        let (g, codes) = (gbuffer(3), init::normal(4, 0, &[3, 6]));
        for sampler in [Sampler::Ddpm, Sampler::Ddim { eta: 0.0 }, Sampler::Ddim { eta: 1.0 }, Sampler::UniPc] {
            let all = avatar.sample(&g, &codes, sampler, 4, 11).unwrap();
            for i in 0..3 {
                let alone = avatar.sample(&g.select(i), &codes.narrow(0, i, 1), sampler, 4, 11).unwrap();
                assert_eq!(alone, all.narrow(0, i, 1), "{sampler:?}");
            }
            assert_ne!(all.get(0), all.get(1));
            assert_ne!(avatar.sample(&g, &codes, sampler, 4, 12).unwrap(), all);
            let together = avatar.sample_together(&g, &codes, sampler, 4, 11).unwrap();
            assert!((together - &all).abs().max().double_value(&[]) < 1e-4, "{sampler:?}");
        }
    }

    #[test]
    fn training_can_stop_and_go_on() {
        let (whole, ..) = avatar(AvatarConfig::small(6));
        train(&whole, &mut whole.optimiser(), 0, 20);
        let dir = std::env::temp_dir().join(format!("effigy-avatar-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (file, state) = (dir.join("w.safetensors"), dir.join("s.safetensors"));
        let (first, ..) = avatar(AvatarConfig::small(6));
        let mut optimiser = first.optimiser();
        train(&first, &mut optimiser, 0, 10);
        weights::write(&file, &first.learned(), &Default::default(), weights::Precision::Keep).unwrap();
        optimiser.save(&state).unwrap();

        let (second, ..) = avatar(AvatarConfig::small(6));
        second.restore(&weights::read(&file).unwrap(), "file").unwrap();
        let mut optimiser = second.optimiser();
        optimiser.load(&state).unwrap();
        train(&second, &mut optimiser, 10, 20);
        for (name, value) in whole.learned() {
            assert_eq!(second.learned()[&name], value, "{name}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_team_trains_as_one_would() {
        let train = |helpers: usize| {
            let (leader, ..) = avatar(AvatarConfig::small(6));
            let mut optimiser = leader.optimiser();
            let mut team = Team::new(&leader, (0..helpers).map(|_| avatar(AvatarConfig::small(6)).0).collect());
            for step in 0..4 {
                let batch = batch(&leader, step);
                let jobs = cut(2, 2).into_iter().map(|(from, n, share)| (share, batch.narrow(from, n)));
                optimiser.zero_grad();
                team.backward(&leader, jobs.collect());
                optimiser.step(1.0);
            }
            leader.learned()
        };
        let (alone, together) = (train(0), train(1));
        for (name, value) in alone {
            assert_eq!(value, together[&name], "{name}");
        }
    }

    #[test]
    fn every_variant_trains_and_samples() {
        let small = AvatarConfig { lr_networks: 1e-2, ..AvatarConfig::small(6) };
        let variants = [
            AvatarConfig { maps: None, ..small.clone() },
            AvatarConfig { expression: None, ..small.clone() },
            AvatarConfig { prior: Prior::Tuned, ..small.clone() },
            AvatarConfig { prior: Prior::None, ..small.clone() },
            AvatarConfig { prior: Prior::None, objective: Objective::Direct, ..small },
        ];
        for config in variants {
            let what = format!("{:?} {:?} {:?} {:?}", config.maps, config.expression, config.prior, config.objective);
            let (avatar, ..) = avatar(config);
            let mut optimiser = avatar.optimiser();
            let first = train(&avatar, &mut optimiser, 0, 1);
            // The same draw again, after some steps on the same two samples.
            train(&avatar, &mut optimiser, 1, 13);
            let last = train(&avatar, &mut optimiser, 0, 1);
            assert!(last < 0.97 * first, "{what}: loss went from {first} to {last}");
            let out = avatar.sample(&gbuffer(1), &init::normal(4, 0, &[1, 6]), Sampler::Ddpm, 3, 0).unwrap();
            assert!(out.isfinite().all().int64_value(&[]) == 1 && out.size() == [1, 4, 4, 4], "{what}");
        }
    }
}
