//! Losses of the two networks that stand in for Stable Diffusion: the auto-encoder and the unconditional latent
//! diffusion prior. Loops, optimisers and data lie with whoever trains.

use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::init;
use crate::lpips::Lpips;
use crate::schedule::{Schedule, ScheduleConfig, time_tensor};
use crate::team::Member;
use crate::unet::{Extras, UNet, UNetConfig};
use crate::vae::{Vae, VaeConfig};
use crate::weights::{self, Tensors};

/// Weights of the auto-encoder's loss terms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VaeLossConfig {
    /// Mean absolute error.
    pub l1: f64,
    /// LPIPS.
    pub perceptual: f64,
    /// Divergence of the posterior, per image and summed over the latent (Rombach et al. 2022).
    pub kl: f64,
}

impl Default for VaeLossConfig {
    fn default() -> Self {
        Self { l1: 1.0, perceptual: 0.2, kl: 1e-6 }
    }
}

/// A loss and its terms, before weighting.
#[derive(Debug)]
pub struct VaeLoss {
    /// What to minimise.
    pub total: Tensor,
    /// Mean absolute error.
    pub l1: f64,
    /// LPIPS; none when it is not used.
    pub perceptual: Option<f64>,
    /// Divergence.
    pub kl: f64,
}

/// Loss of reconstructing `images` `[B, 3, H, W]` in [-1, 1] from a posterior sample drawn with `noise`
/// (latent-shaped).
pub fn vae_loss(vae: &Vae, lpips: Option<&Lpips>, images: &Tensor, noise: &Tensor, weights: VaeLossConfig) -> VaeLoss {
    let posterior = vae.encode(images);
    let decoded = vae.decode(&posterior.sample(noise));
    let (l1, kl) = ((&decoded - images).abs().mean(Kind::Float), posterior.kl());
    let perceptual = lpips.map(|lpips| {
        // The truth's features need no graph.
        let truth = tch::no_grad(|| lpips.features(images));
        lpips.compare(&truth, &lpips.features(&decoded)).0.mean(Kind::Float)
    });
    let mut total = &l1 * weights.l1 + &kl * weights.kl;
    if let Some(perceptual) = &perceptual {
        total += perceptual * weights.perceptual;
    }
    let value = |t: &Tensor| t.double_value(&[]);
    VaeLoss { l1: value(&l1), perceptual: perceptual.as_ref().map(value), kl: value(&kl), total }
}

/// An auto-encoder in training.
pub struct VaeTrainee {
    /// Its weights.
    pub vs: VarStore,
    /// The network.
    pub vae: Vae,
    lpips: Option<Lpips>,
    weights: VaeLossConfig,
}

impl VaeTrainee {
    /// With initial weights that are a function of `seed`.
    pub fn new(config: &VaeConfig, lpips: Option<Lpips>, weights: VaeLossConfig, seed: u64) -> Self {
        let (vs, vae) = init::build(Device::Cpu, seed, |p| Vae::new(p, config));
        quieten(&vs, config.latent_channels);
        Self { vs, vae, lpips, weights }
    }
}

/// Log-variance of the posterior at the start.
const FIRST_LOGVAR: f64 = -6.0;

/// Lets the picture through from the first step on: residual blocks add nothing yet, and the posterior is sure, where
/// PyTorch's defaults would drown small latents in noise of deviation 1.
fn quieten(vs: &VarStore, latent_channels: i64) {
    tch::no_grad(|| {
        for (name, mut variable) in vs.variables() {
            if name.ends_with("conv2.weight") || name.ends_with("conv2.bias") {
                _ = variable.zero_();
            } else if name == "quant_conv.bias" {
                _ = variable.narrow(0, latent_channels, latent_channels).fill_(FIRST_LOGVAR);
            }
        }
    });
}

impl Member for VaeTrainee {
    /// Images and noise, as [`vae_loss`] takes them.
    type Job = (Tensor, Tensor);

    fn learned(&self) -> Tensors {
        weights::sorted(&self.vs)
    }

    /// Terms: total, L1, LPIPS (0 when it is not used).
    fn loss(&self, (images, noise): &(Tensor, Tensor)) -> (Tensor, Vec<f64>) {
        let loss = vae_loss(&self.vae, self.lpips.as_ref(), images, noise, self.weights);
        let terms = vec![loss.total.double_value(&[]), loss.l1, loss.perceptual.unwrap_or(0.0)];
        (loss.total, terms)
    }
}

/// Per-channel mean and one standard deviation over all of the latents `[N, C, h, w]`: what [`crate::vae::VaeConfig`]
/// wants as `shift` and, inverted, as `scaling_factor`.
pub fn latent_statistics(latents: &Tensor) -> (Vec<f64>, f64) {
    let mean = latents.mean_dim(&[0i64, 2, 3][..], true, Kind::Double);
    let deviation = (latents - &mean).square().mean(Kind::Double).sqrt().double_value(&[]);
    (Vec::try_from(mean.flatten(0, -1)).expect("means are f64"), deviation)
}

/// The random draws of one training step of a diffusion model.
pub struct Draw {
    /// A time for every sample.
    pub t: Vec<i64>,
    /// Noise, shaped like the latents.
    pub noise: Tensor,
}

impl Draw {
    /// Times uniform over 0..T and standard normal noise: a function of `seed` and `step`.
    pub fn new(schedule: &Schedule, shape: &[i64], seed: u64, step: u64) -> Self {
        // other streams than the order of samples and the noise that pictures begin with, which may have the same seed
        let seed = seed ^ 0xD1FF;
        let t = init::integers(seed, 2 * step, shape[0] as usize, schedule.config.train_steps as i64);
        Self { t, noise: init::normal(seed, 2 * step + 1, shape) }
    }

    /// The draws of `count` samples from `start` on.
    pub fn narrow(&self, start: i64, count: i64) -> Self {
        let t = self.t[start as usize..(start + count) as usize].to_vec();
        Self { t, noise: self.noise.narrow(0, start, count) }
    }
}

/// Mean squared error of the U-Net's prediction on scaled `latents` `[B, C, h, w]`. `text` `[1, M, ctx]` is the same
/// for every sample: the null prompt.
pub fn prior_loss(unet: &UNet, schedule: &Schedule, latents: &Tensor, text: &Tensor, draw: &Draw) -> Tensor {
    let noise = draw.noise.to_device(latents.device());
    let noisy = schedule.add_noise(latents, &noise, &draw.t);
    let text = text.expand([latents.size()[0], -1, -1], false);
    let out = unet.forward(&noisy, &time_tensor(&draw.t, latents), &text, Extras::default());
    (out - schedule.target(latents, &noise, &draw.t)).square().mean(Kind::Float)
}

/// A diffusion prior in training.
pub struct PriorTrainee {
    /// Its weights.
    pub vs: VarStore,
    /// The network.
    pub unet: UNet,
    schedule: Schedule,
    text: Tensor,
}

impl PriorTrainee {
    /// With initial weights that are a function of `seed`; `text` `[1, M, ctx]` is the null prompt.
    pub fn new(config: &UNetConfig, schedule: &ScheduleConfig, text: &Tensor, seed: u64) -> Self {
        let (vs, unet) = init::build(Device::Cpu, seed, |p| UNet::new(p, config));
        Self { vs, unet, schedule: Schedule::new(schedule), text: text.shallow_clone() }
    }
}

impl Member for PriorTrainee {
    /// Scaled latents, and the draws for them.
    type Job = (Tensor, Draw);

    fn learned(&self) -> Tensors {
        weights::sorted(&self.vs)
    }

    /// One term: the loss.
    fn loss(&self, (latents, draw): &(Tensor, Draw)) -> (Tensor, Vec<f64>) {
        let loss = prior_loss(&self.unet, &self.schedule, latents, &self.text, draw);
        let value = loss.double_value(&[]);
        (loss, vec![value])
    }
}

/// Tokens `[1, tokens, width]` that stand for the empty prompt where there is no text encoder: fixed standard normal
/// numbers, a function of the seed. They are saved with the prior, which is trained with them.
pub fn null_prompt(tokens: i64, width: i64, seed: u64) -> Tensor {
    init::normal(seed, init::name_stream("null_prompt"), &[1, tokens, width])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auto_encoder_begins_with_a_sure_posterior_and_blocks_that_add_nothing() {
        let config = VaeConfig { latent_channels: 8, ..VaeConfig::small() };
        let trainee = VaeTrainee::new(&config, None, VaeLossConfig::default(), 3);
        let images = init::uniform(1, 2, &[2, 3, 16, 16], -1.0, 1.0);
        let posterior = trainee.vae.encode(&images);
        assert_eq!(posterior.mean.size(), [2, 8, 4, 4]);
        assert!((&posterior.logvar - FIRST_LOGVAR).abs().max().double_value(&[]) < 3.0);
        let seconds: Vec<f64> = (trainee.vs.variables().iter())
            .filter(|(name, _)| name.contains("resnets") && name.ends_with("conv2.weight"))
            .map(|(_, weight)| weight.abs().max().double_value(&[]))
            .collect();
        assert!(seconds.len() > 8 && seconds.iter().all(|w| *w == 0.0), "{seconds:?}");
        // and it learns: every weight that is zero has a gradient, or the block would stay shut
        vae_loss(&trainee.vae, None, &images, &init::normal(1, 3, &posterior.mean.size()), VaeLossConfig::default())
            .total
            .backward();
        for (name, weight) in trainee.vs.variables() {
            if name.ends_with("conv2.weight") {
                assert!(weight.grad().abs().max().double_value(&[]) > 0.0, "{name}");
            }
        }
    }
}
