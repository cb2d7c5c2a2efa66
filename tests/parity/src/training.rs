//! One batch, some steps of AdamW: losses, gradients and weights of a ControlNet beside a frozen U-Net.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use models::adamw::{AdamW, Group};
use models::schedule::{Schedule, ScheduleConfig};
use models::unet::Extras;
use models::weights;
use serde_json::Value;
use tch::Kind;

use crate::check::{Case, Checks, json, number};
use crate::diffusion::{load_controlnet, load_unet};
use crate::noise_floor::{ABOVE, NoiseFloor};
use crate::settings::{SCALE, Settings};

/// What is known of train_step.json.
const FIELDS: [&str; 8] = [
    "note",
    "config",
    "optimiser",
    "scheduler",
    "f32",
    "f64_losses",
    "f64_grad_norm",
    "max_rel_grad_norm_diff_f32_f64",
];

/// Runs the case.
pub fn train_step(dir: &Path, checks: &mut Checks) -> Result<()> {
    let io = Case::read(&dir.join("train_step.safetensors"))?;
    let about = json(&dir.join("train_step.json"))?;
    let ((mut unet_vs, unet), (net_vs, net)) = (load_unet(dir)?, load_controlnet(dir)?);
    unet_vs.freeze();
    let (latents, noise) = (io.get("latents")?, io.get("noise")?);
    let times = io.integers("timesteps")?;
    let (t, text) = (io.raw("timesteps")?.shallow_clone(), io.get("encoder_hidden_states")?);
    let trained = about["f32"]["unet_grad_norms"].as_object().is_some_and(|norms| !norms.is_empty());
    ensure!(
        !trained,
        "f32/unet_grad_norms has values: a U-Net that is trained beside its ControlNet is not compared here"
    );
    checks.unknown_fields(&about, |field| FIELDS.contains(&field) || SCALE.is_called(field));
    let schedule = schedule(dir, &about, &io)?;
    let scale = Settings::read(dir, "train_step")?.number(&SCALE, 1.0)?;
    let noisy = schedule.add_noise(&latents, &noise, &times);
    checks.scaled("noisy", &noisy, &io.get("noisy")?, 2e-5);
    let (name, target) = if io.get("target_v").is_ok() {
        ("target_v", schedule.velocity(&latents, &noise, &times))
    } else if io.get("target_eps").is_ok() {
        ("target_eps", noise.shallow_clone())
    } else {
        ("target", schedule.target(&latents, &noise, &times))
    };
    checks.scaled(name, &target, &io.get(name)?, 2e-5);

    let (mut optimiser, group) = optimiser(&about["optimiser"])?;
    let lr = group.lr;
    optimiser.add(group, &net_vs);
    let list = |key: &str| -> Result<Vec<f64>> {
        serde_json::from_value(about["f32"][key].clone()).with_context(|| format!("f32/{key} is no list of numbers"))
    };
    let (losses, norms) = (list("losses")?, list("grad_norm_before_clip")?);
    ensure!(losses.len() == norms.len(), "{} losses and {} norms of gradients", losses.len(), norms.len());
    let variables = weights::sorted(&net_vs);
    let relative = |got: f64, want: f64| (got - want).abs() / want.abs();
    // the reference in f64, where it is stated, tells what its own roundings come to
    let above = |key: &str, k: usize, want: f64, tolerance: f64| {
        let exact = about[key][k].as_f64().filter(|exact| exact.is_finite());
        exact.map_or(tolerance, |exact| tolerance.max(ABOVE * relative(want, exact)))
    };
    for (k, (&loss_want, &norm_want)) in losses.iter().zip(&norms).enumerate() {
        let condition = io.leaf("controlnet_cond")?;
        let residuals = net.forward(&noisy, &t, &text, &net.encode(&condition), scale);
        let extras = Extras { down: Some(&residuals.down), mid: Some(&residuals.mid), ..Extras::default() };
        let out = unet.forward(&noisy, &t, &text, extras);
        let loss = (&out - &target).square().mean(Kind::Float);
        optimiser.zero_grad();
        loss.backward();
        let tolerance = above("f64_losses", k, loss_want, if k == 0 { 1e-5 } else { 1e-4 });
        checks.error(format!("losses.{k}"), relative(loss.double_value(&[]), loss_want), tolerance);
        if k == 0 {
            let tolerance = NoiseFloor::read(dir)?.above("unet.out_", 1.5e-5);
            checks.absolute("pred", &out, &io.get("pred")?, tolerance);
            gradients(&io, &about, &variables, checks)?;
            let want = io.get("grad_controlnet_cond")?;
            let largest = want.abs().max().double_value(&[]);
            checks.absolute("grad_controlnet_cond", &condition.grad(), &want, 1e-4 * largest);
        }
        let norm = optimiser.step(1.0)[0];
        checks.error(format!("grad_norm.{k}"), relative(norm, norm_want), above("f64_grad_norm", k, norm_want, 1e-4));
        if k == 0 {
            after_one_step(&io, lr, &variables, checks)?;
        }
    }
    let moved = unet_vs.variables().values().any(|v| v.grad().defined());
    checks.exact("the frozen U-Net has no gradient", !moved);
    io.all_asked(|_| false)
}

/// The schedule that the noisy latents were made with: what train_step.json says under `scheduler`, else the README's,
/// which is Stable Diffusion 2.1's, or, if that does not give them, the one of models/scheduler.
fn schedule(dir: &Path, about: &Value, io: &Case) -> Result<Schedule> {
    if !about["scheduler"].is_null() {
        let mut config = about["scheduler"].clone();
        // training clips nothing, and noises the same in each class
        for (field, value) in [("_class_name", Value::from("DDPMScheduler")), ("clip_sample", false.into())] {
            if config.get(field).is_none() && config.is_object() {
                config[field] = value;
            }
        }
        return Ok(Schedule::new(&ScheduleConfig::from_json(&config, "train_step.json, scheduler")?));
    }
    let place = dir.join("models/scheduler/scheduler_config.json");
    let mut plain = ScheduleConfig { zero_terminal_snr: false, ..ScheduleConfig::default() };
    if place.is_file() {
        // which target is meant a target's name may not say
        plain.prediction = ScheduleConfig::from_json(&json(&place)?, &place.display().to_string())?.prediction;
    }
    let plain = Schedule::new(&plain);
    let times = io.integers("timesteps")?;
    let is_theirs = || -> Result<bool> {
        if times.iter().any(|t| *t < 0 || *t >= plain.alphas_cumprod.len() as i64) {
            return Ok(false);
        }
        let mut checks = Checks::default();
        let noisy = plain.add_noise(&io.get("latents")?, &io.get("noise")?, &times);
        checks.scaled("noisy", &noisy, &io.get("noisy")?, 2e-5);
        Ok(checks.hold())
    };
    let schedule = match place.is_file() && !is_theirs()? {
        true => Schedule::new(&ScheduleConfig::from_json(&json(&place)?, &place.display().to_string())?),
        false => plain,
    };
    let count = schedule.alphas_cumprod.len() as i64;
    match times.iter().find(|t| **t < 0 || **t >= count) {
        Some(bad) => bail!("timesteps holds {bad}; the schedule has {count} times"),
        None => Ok(schedule),
    }
}

/// The optimiser and its only group as the case describes them.
fn optimiser(about: &Value) -> Result<(AdamW, Group)> {
    for (key, value) in about.as_object().context("train_step.json has no optimiser")? {
        match key.as_str() {
            "name" => ensure!(value == "AdamW", "the optimiser {value} is unknown"),
            "lr" | "betas" | "eps" | "weight_decay" | "clip" => {}
            other => bail!("optimiser/{other} is unknown"),
        }
    }
    let max_grad_norm = match about.get("clip") {
        None | Some(Value::Null) => None,
        Some(_) => Some(number(about, "clip")?),
    };
    let (lr, weight_decay) = (number(about, "lr")?, number(about, "weight_decay")?);
    let group = Group { name: "controlnet".into(), lr, weight_decay, max_grad_norm };
    let mut optimiser = AdamW::default();
    optimiser.eps = number(about, "eps")?;
    if let Some(betas) = about.get("betas") {
        optimiser.betas = serde_json::from_value(betas.clone()).context("optimiser/betas are not two numbers")?;
    }
    Ok((optimiser, group))
}

/// Adam's first step is a gradient's sign times the learning rate: where gradients are nearly 0 it may go the other
/// way, which is twice as far. Below a few units of the weight's own rounding nothing is compared.
fn after_one_step(io: &Case, lr: f64, variables: &weights::Tensors, checks: &mut Checks) -> Result<()> {
    for name in io.names().filter_map(|n| n.strip_prefix("after1.")) {
        let value = variables.get(name).with_context(|| format!("no parameter {name}"))?;
        let want = io.get(&format!("after1.{name}"))?;
        let error = (value.detach() - &want).abs();
        let rounding = 4.0 * f64::from(f32::EPSILON) * want.abs().max().double_value(&[]);
        let (close, far) = (rounding.max(0.01 * lr), rounding.max(2.1 * lr));
        checks.error(format!("after1.{name}"), error.max().double_value(&[]), far);
        let off = error.gt(close).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        checks.error(format!("after1.{name}, share off by {close:.0e}"), off, 0.01);
    }
    Ok(())
}

fn gradients(io: &Case, about: &Value, variables: &weights::Tensors, checks: &mut Checks) -> Result<()> {
    let norms = about["f32"]["controlnet_grad_norms"].as_object().context("no controlnet_grad_norms")?;
    ensure!(norms.len() == variables.len(), "{} parameters, the reference has {}", variables.len(), norms.len());
    for (name, want) in norms {
        let (want, variable) = (want.as_f64().context("a norm is no number")?, variables.get(name));
        let variable = variable.with_context(|| format!("no parameter {name}"))?;
        let got = variable.grad().norm().double_value(&[]);
        // Norms of about 0 (keys' biases and the like) have no relative error to speak of.
        let (error, tolerance) = if want > 1e-5 { ((got - want).abs() / want, 1e-3) } else { (got, 2e-5) };
        checks.error(format!("norm of grad {name}"), error, tolerance);
    }
    for name in io.names().filter_map(|n| n.strip_prefix("grad.")) {
        let variable = variables.get(name).with_context(|| format!("no parameter {name}"))?;
        let want = io.get(&format!("grad.{name}"))?;
        checks.absolute(format!("grad.{name}"), &variable.grad(), &want, 1e-4 * want.abs().max().double_value(&[]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    #[test]
    fn an_optimiser_is_as_the_case_says() {
        let about = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let text =
            r#"{"name": "AdamW", "lr": 1e-4, "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0, "clip": null}"#;
        let (adam, group) = optimiser(&about(text)).unwrap();
        assert_eq!((adam.betas, adam.eps), ([0.8, 0.95], 1e-6));
        assert_eq!((group.lr, group.weight_decay, group.max_grad_norm), (1e-4, 0.0, None));
        let (_, group) = optimiser(&about(&text.replace("null", "0.5"))).unwrap();
        assert_eq!(group.max_grad_norm, Some(0.5));
        for (key, wrong) in [("AdamW", text.replace("AdamW", "SGD")), ("amsgrad", text.replace("clip", "amsgrad"))] {
            assert!(optimiser(&about(&wrong)).is_err(), "{key}");
        }
    }

    #[test]
    fn weights_after_a_step_are_held_to_the_learning_rate() {
        let dir = std::env::temp_dir().join(format!("effigy-parity-step-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("io.safetensors");
        let want = Tensor::from_slice(&[0.5f32; 200]);
        let tensors = weights::Tensors::from([("after1.w".to_owned(), want)]);
        weights::write(&path, &tensors, &Default::default(), weights::Precision::Keep).unwrap();
        let io = Case::read(&path).unwrap();
        let holds = |off: f32, entries: usize| {
            let mut values = [0.5f32; 200];
            values[..entries].iter_mut().for_each(|value| *value += off);
            let variables = weights::Tensors::from([("w".to_owned(), Tensor::from_slice(&values))]);
            let mut checks = Checks::default();
            after_one_step(&io, 1e-5, &variables, &mut checks).unwrap();
            checks.hold()
        };
        assert!(holds(2e-5, 2) && !holds(2e-5, 3) && !holds(3e-5, 1));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
