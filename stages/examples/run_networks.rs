//! The networks at work: `run_networks CASE ROUNDS` does a case so many times on one thread and prints how many
//! parameters it has and the last value it saw. Whoever calls measures: the difference of two counts of rounds is what
//! the rounds cost.
//!
//! CASE is, with the small U-Net (four levels, 32 to 128 channels): `step` (a ControlNet learns from four latents of 8
//! x 8), `sample` (20 steps of DDIM with guidance, and the picture); in the size of Stable Diffusion 2.1: `vae_256`,
//! `vae_512` (a picture to its latent), `unet` (one pass at 64 x 64), `control_step` (a ControlNet learns from one
//! latent of 64 x 64).

use models::adamw::{AdamW, Group};
use models::controlnet::{ControlNet, ControlNetConfig};
use models::init;
use models::runtime;
use models::schedule::{Sampler, Schedule, ScheduleConfig, Walk};
use models::unet::{Extras, UNet, UNetConfig, times};
use models::vae::{Vae, VaeConfig};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const CPU: Device = Device::Cpu;
const GUIDANCE: f64 = 7.5;

fn small() -> UNetConfig {
    UNetConfig {
        block_out_channels: vec![32, 64, 128, 128],
        attention_levels: vec![true, true, true, false],
        heads: vec![2, 4, 8, 8],
        layers_per_block: 2.into(),
        cross_attention_dim: 64,
        ..UNetConfig::default()
    }
}

fn parameters(stores: &[&VarStore]) -> usize {
    stores.iter().flat_map(|vs| vs.trainable_variables()).map(|t| t.numel()).sum()
}

fn noise(stream: u64, shape: &[i64]) -> Tensor {
    init::normal(5, stream, shape)
}

/// A frozen U-Net, and a ControlNet that starts from it and sees three channels.
struct Pair {
    unet: UNet,
    control: ControlNet,
    control_vs: VarStore,
    parameters: usize,
}

impl Pair {
    fn new(unet: UNetConfig) -> Self {
        let (mut unet_vs, net) = init::build(CPU, 1, |p| UNet::new(p, &unet));
        let config = ControlNetConfig { unet, condition_channels: 3, ..ControlNetConfig::default() };
        let (control_vs, control) = init::build(CPU, 2, |p| ControlNet::new(p, &config));
        control.start_from(&control_vs, &unet_vs);
        let parameters = parameters(&[&unet_vs, &control_vs]);
        unet_vs.freeze();
        Self { unet: net, control, control_vs, parameters }
    }

    fn predict(&self, x: &Tensor, t: &Tensor, text: &Tensor, encoded: &Tensor) -> Tensor {
        let residuals = self.control.forward(x, t, text, encoded, 1.0);
        let extras = Extras { down: Some(&residuals.down), mid: Some(&residuals.mid), ..Extras::default() };
        self.unet.forward(x, t, text, extras)
    }

    /// Optimiser steps on `batch` latents of `side` x `side`.
    fn learn(&self, rounds: usize, batch: i64, side: i64, width: i64) -> f64 {
        let schedule = Schedule::new(&ScheduleConfig::default());
        let mut optimiser = AdamW::default();
        optimiser.add(Group::network("controlnet", 1e-5), &self.control_vs);
        let latents = noise(0, &[batch, 4, side, side]);
        let condition = noise(1, &[batch, 3, 8 * side, 8 * side]);
        let text = noise(2, &[batch, 77, width]);
        let mut last = 0.0;
        for round in 0..rounds as u64 {
            let fresh = noise(3 + round, &latents.size());
            let at = init::integers(6, round, batch as usize, 1000);
            let noisy = schedule.add_noise(&latents, &fresh, &at);
            optimiser.zero_grad();
            let encoded = self.control.encode(&condition);
            let out = self.predict(&noisy, &Tensor::from_slice(&at), &text, &encoded);
            let loss = (out - schedule.target(&latents, &fresh, &at)).square().mean(Kind::Float);
            loss.backward();
            optimiser.step(1.0);
            last = loss.double_value(&[]);
        }
        last
    }
}

fn sample(rounds: usize) -> Result<(usize, f64), String> {
    let pair = Pair::new(small());
    let config = VaeConfig { block_out_channels: vec![32, 64, 128, 128], ..VaeConfig::default() };
    let (vae_vs, vae) = init::build(CPU, 3, |p| Vae::new(p, &config));
    let plan = Schedule::new(&ScheduleConfig::default()).plan(Sampler::Ddim { eta: 0.0 }, 20)?;
    let text = noise(2, &[2, 77, 64]);
    let condition = noise(1, &[1, 3, 64, 64]);
    let mut last = 0.0;
    for _ in 0..rounds {
        let image = tch::no_grad(|| {
            let encoded = pair.control.encode(&condition).expand([2, -1, -1, -1], false);
            let (mut x, mut walk) = (noise(0, &[1, 4, 8, 8]), Walk::default());
            for step in &plan {
                let out = pair.predict(&x.expand([2, -1, -1, -1], false), &times(step.t, 2, CPU), &text, &encoded);
                let parts = out.chunk(2, 0);
                let guided = &parts[0] + (&parts[1] - &parts[0]) * GUIDANCE;
                x = step.advance(&x, &guided, None, &mut walk);
            }
            vae.decode(&vae.unscale(&x))
        });
        last = image.abs().mean(Kind::Float).double_value(&[]);
    }
    Ok((pair.parameters + parameters(&[&vae_vs]), last))
}

fn encode(rounds: usize, side: i64) -> (usize, f64) {
    let (vs, vae) = init::build(CPU, 3, |p| Vae::new(p, &VaeConfig::default()));
    let image = noise(0, &[1, 3, side, side]).clamp(-1.0, 1.0);
    let mut last = 0.0;
    for _ in 0..rounds {
        last = tch::no_grad(|| vae.encode(&image).mean.abs().mean(Kind::Float).double_value(&[]));
    }
    (parameters(&[&vs]), last)
}

fn pass(rounds: usize) -> (usize, f64) {
    let config = UNetConfig::default();
    let (mut vs, unet) = init::build(CPU, 1, |p| UNet::new(p, &config));
    let count = parameters(&[&vs]);
    vs.freeze();
    let (x, text) = (noise(0, &[1, 4, 64, 64]), noise(1, &[1, 77, config.cross_attention_dim]));
    let mut last = 0.0;
    for _ in 0..rounds {
        let out = tch::no_grad(|| unet.forward(&x, &times(500, 1, CPU), &text, Extras::default()));
        last = out.abs().mean(Kind::Float).double_value(&[]);
    }
    (count, last)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [case, rounds] = &words[..] else { return Err("usage: run_networks CASE ROUNDS".into()) };
    runtime::prepare(1);
    let rounds = rounds.parse()?;
    let learn = |unet: UNetConfig, batch, side| {
        let width = unet.cross_attention_dim;
        let pair = Pair::new(unet);
        (pair.parameters, pair.learn(rounds, batch, side, width))
    };
    let (count, last) = match case.as_str() {
        "step" => learn(small(), 4, 8),
        "sample" => sample(rounds)?,
        "vae_256" => encode(rounds, 256),
        "vae_512" => encode(rounds, 512),
        "unet" => pass(rounds),
        "control_step" => learn(UNetConfig::default(), 1, 64),
        other => return Err(format!("there is no case {other}").into()),
    };
    println!("{count} {last}");
    Ok(())
}
