//! Times one training step of the small networks on one thread: `cargo run -p models --example step_times`.
use std::time::Instant;

use models::adamw::{AdamW, Group};
use models::avatar::{Avatar, AvatarConfig, Batch, Prior};
use models::init;
use models::ldm::{self, Draw, VaeLossConfig};
use models::lpips::{Lpips, Net};
use models::schedule::{Sampler, Schedule, ScheduleConfig};
use models::team::{Team, cut};
use models::triplane::GBuffer;
use models::unet::{UNet, UNetConfig};
use models::vae::{Vae, VaeConfig};
use models::weights;
use tch::Device;

/// CPU seconds of this thread so far.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

/// Prints CPU time, which a busy machine disturbs less than wall time.
fn time(name: &str, mut step: impl FnMut(u64)) {
    step(0);
    let mut best = f64::INFINITY;
    let (start, begin) = (cpu(), Instant::now());
    let mut n = 0;
    while n < 5 || begin.elapsed().as_secs_f64() < 3.0 {
        let t = cpu();
        step(n + 1);
        best = best.min(cpu() - t);
        n += 1;
    }
    let (mean, wall) = ((cpu() - start) * 1e3 / n as f64, begin.elapsed().as_secs_f64() * 1e3 / n as f64);
    println!("{name:<50} best {:7.1}, mean {mean:7.1} CPU-ms of this thread; {wall:7.1} ms by the clock", best * 1e3);
}

fn main() {
    models::runtime::prepare(1);
    let only = std::env::args().nth(1).unwrap_or_default();
    let images = init::uniform(0, 0, &[8, 3, 64, 64], -1.0, 1.0);
    let tensors = Net::Alex.weights().into_iter().enumerate().map(|(k, (name, shape))| {
        let bound = 1.0 / (shape[1..].iter().product::<i64>() as f64).sqrt();
        (name, init::uniform(0, k as u64, &shape, -bound, bound))
    });
    let lpips = Lpips::from_tensors(Net::Alex, tensors.collect(), "made up").unwrap();
    for widths in [[16, 32, 64], [24, 48, 96], [32, 64, 96], [32, 64, 128]] {
        let config = VaeConfig { block_out_channels: widths.to_vec(), ..VaeConfig::small() };
        let (vs, vae) = init::build(Device::Cpu, 0, |p| Vae::new(p, &config));
        let mut optimiser = AdamW::default();
        optimiser.add(Group::network("vae", 1e-3), &vs);
        let name = format!("vae {widths:?} {:.2} M, batch 8", weights::count(&vs) as f64 / 1e6);
        if !name.contains(&only) {
            continue;
        }
        for (tag, lpips) in [("", None), (" + lpips", Some(&lpips))] {
            time(&format!("{name}{tag}"), |step| {
                let noise = init::normal(0, step, &[8, 4, 16, 16]);
                optimiser.zero_grad();
                ldm::vae_loss(&vae, lpips, &images, &noise, VaeLossConfig::default()).total.backward();
                optimiser.step(1.0);
            });
        }
        time(&format!("{name}, forward only"), |_| {
            let _ = tch::no_grad(|| vae.decode(&vae.encode(&images).mean));
        });
    }
    let config = AvatarConfig::small(58);
    let (unet_vs, _) = init::build(Device::Cpu, 0, |p| UNet::new(p, &config.unet));
    let text = ldm::null_prompt(8, 64, 0);
    let zeros = |tail: &[i64]| init::uniform(0, 0, &[&[8, 64, 64], tail].concat(), 0.0, 1.0);
    let gbuffer = GBuffer {
        depth: zeros(&[]),
        canonical: zeros(&[3]),
        normals: zeros(&[3]),
        ambient: Some(zeros(&[2])),
        mask: zeros(&[]).gt(0.5),
        whose: Vec::new(),
    };
    let (latents, codes) = (init::normal(0, 1, &[8, 4, 16, 16]), init::normal(0, 2, &[8, 58]));
    for prior in [Prior::Frozen, Prior::Tuned, Prior::None] {
        let name = format!("avatar, prior {prior:?}, batch 8");
        if !name.contains(&only) {
            continue;
        }
        let config = AvatarConfig { prior, ..config.clone() };
        let avatar = Avatar::new(&config, &weights::sorted(&unet_vs), &text, 0, Device::Cpu).unwrap();
        let mut optimiser = avatar.optimiser();
        let batch = |step| Batch {
            latents: latents.shallow_clone(),
            gbuffer: gbuffer.narrow(0, 8),
            codes: codes.shallow_clone(),
            draw: Draw::new(&avatar.schedule, &latents.size(), 0, step),
            mouth: None,
            eyes: None,
            colors: None,
        };
        for helpers in [0, 1] {
            let replica = || Avatar::new(&config, &weights::sorted(&unet_vs), &text, 0, Device::Cpu).unwrap();
            let mut team = Team::new(&avatar, (0..helpers).map(|_| replica()).collect());
            time(&format!("{name}, in 2 parts on {} threads", helpers + 1), |step| {
                let batch = batch(step);
                let jobs = cut(8, 2).into_iter().map(|(from, n, share)| (share, batch.narrow(from, n)));
                optimiser.zero_grad();
                team.backward(&avatar, jobs.collect());
                optimiser.step(1.0);
            });
        }
        time(&name, |step| {
            optimiser.zero_grad();
            avatar.training_loss(&batch(step)).sum.backward();
            optimiser.step(1.0);
        });
        let (one, code) = (gbuffer.select(0), codes.narrow(0, 0, 1));
        time(&format!("{name}, 10 sampling steps of a frame"), |seed| {
            _ = avatar.sample(&one, &code, Sampler::Ddpm, 10, seed)
        });
    }
    let schedule = Schedule::new(&ScheduleConfig::default());
    for (widths, batch) in [([32, 64, 96], 8), ([32, 64, 96], 16), ([48, 96, 96], 16), ([64, 96, 128], 16)] {
        let heads = widths.iter().map(|w| w / 16).collect();
        let config = UNetConfig { block_out_channels: widths.to_vec(), heads, ..UNetConfig::small() };
        let (vs, unet) = init::build(Device::Cpu, 0, |p| UNet::new(p, &config));
        let mut optimiser = AdamW::default();
        optimiser.add(Group::network("unet", 1e-3), &vs);
        let name = format!("unet {widths:?} {:.2} M, batch {batch}", weights::count(&vs) as f64 / 1e6);
        if !name.contains(&only) {
            continue;
        }
        let latents = init::normal(1, 0, &[batch, 4, 16, 16]);
        time(&format!("{name}, forward only"), |step| {
            let draw = Draw::new(&schedule, &latents.size(), 0, step);
            let _ = tch::no_grad(|| ldm::prior_loss(&unet, &schedule, &latents, &text, &draw));
        });
        time(&name, |step| {
            let draw = Draw::new(&schedule, &latents.size(), 0, step);
            optimiser.zero_grad();
            ldm::prior_loss(&unet, &schedule, &latents, &text, &draw).backward();
            optimiser.step(1.0);
        });
        time(&format!("{name}, optimiser alone"), |_| _ = optimiser.step(1.0));
    }
}
