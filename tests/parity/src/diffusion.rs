//! Stable Diffusion's parts: U-Net, ControlNet, auto-encoder, schedulers, the whole sampling loop, one training step.
//! Tolerances are those of the set's README; they lie 3 to 10 times above the reference's own f32 noise.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use models::adamw::{AdamW, Group};
use models::controlnet::{ControlNet, ControlNetConfig};
use models::schedule::{Sampler, Schedule, ScheduleConfig, Spacing, Walk};
use models::unet::{Extras, Probe, UNet, UNetConfig, times};
use models::vae::{Vae, VaeConfig};
use models::weights::{self, ModelFolder};
use serde_json::Value;
use std::cell::RefCell;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::check::{Case, Checks, Report, json, number};

/// Runs a folder of such folders, each with networks of another shape.
pub fn run_each(dir: &Path, report: &mut Report) {
    for name in crate::names(dir) {
        let before = report.passed + report.failed.len();
        run(&dir.join(&name), &format!("shapes/{name}/"), report);
        if report.passed + report.failed.len() == before {
            report.fail(&format!("shapes/{name}"), "there are no reference cases in this folder");
        }
    }
}

/// Runs the cases of this family that the folder has; `prefix` stands before their names.
pub fn run(dir: &Path, prefix: &str, report: &mut Report) {
    let has = |name: &str| dir.join(name).is_file();
    let named = |name: &str| format!("{prefix}{name}");
    if has("unet.safetensors") {
        report.case(&named("unet"), |c| tch::no_grad(|| unet(dir, c)));
    }
    if has("vae.safetensors") {
        report.case(&named("vae"), |c| tch::no_grad(|| vae(dir, "vae", c)));
        if dir.join("models/vae_legacy_names").is_dir() {
            report.case(&named("vae_legacy_names"), |c| tch::no_grad(|| vae(dir, "vae_legacy_names", c)));
        }
    }
    if has("schedulers.json") || has("schedulers.safetensors") {
        schedulers(dir, report);
    }
    if has("pipeline.safetensors") {
        report.case(&named("pipeline"), |c| tch::no_grad(|| pipeline(dir, c)));
    }
    if has("train_step.json") || has("train_step.safetensors") {
        report.case(&named("train_step"), |c| train_step(dir, c));
    }
}

fn load_unet(dir: &Path) -> Result<(VarStore, UNet)> {
    let folder = ModelFolder::open(&dir.join("models/unet"))?;
    let config = UNetConfig::from_json(&folder.config, &folder.config_path.display().to_string())?;
    let vs = VarStore::new(Device::Cpu);
    let unet = UNet::new(&vs.root(), &config);
    weights::load(&vs, &folder.weights)?;
    Ok((vs, unet))
}

fn load_controlnet(dir: &Path) -> Result<(VarStore, ControlNet)> {
    let folder = ModelFolder::open(&dir.join("models/controlnet"))?;
    let config = ControlNetConfig::from_json(&folder.config, &folder.config_path.display().to_string())?;
    let vs = VarStore::new(Device::Cpu);
    let net = ControlNet::new(&vs.root(), &config);
    weights::load(&vs, &folder.weights)?;
    Ok((vs, net))
}

fn load_vae(dir: &Path) -> Result<Vae> {
    let folder = ModelFolder::open(dir)?;
    let config = VaeConfig::from_json(&folder.config, &folder.config_path.display().to_string())?;
    let vs = VarStore::new(Device::Cpu);
    let vae = Vae::new(&vs.root(), &config);
    weights::load(&vs, &folder.weights)?;
    Ok(vae)
}

fn unet(dir: &Path, checks: &mut Checks) -> Result<()> {
    let io = Case::read(&dir.join("unet.safetensors"))?;
    let ((_unet_vs, unet), (_net_vs, net)) = (load_unet(dir)?, load_controlnet(dir)?);
    let (sample, text) = (io.get("sample")?, io.get("encoder_hidden_states")?);
    let t = io.raw("timesteps")?.shallow_clone();

    let seen = RefCell::new(Vec::new());
    let see = |name: &str, x: &Tensor| seen.borrow_mut().push((name.to_owned(), x.copy()));
    let out = unet.forward(&sample, &t, &text, Extras { probe: Probe(Some(&see)), ..Extras::default() });
    for name in io.names().filter_map(|n| n.strip_prefix("inter.")) {
        let seen = seen.borrow();
        let (_, got) = seen.iter().find(|(n, _)| n == name).with_context(|| format!("no module output {name}"))?;
        // Intermediate values are up to several units large; the README's figure for such tensors is the ControlNet's.
        checks.by_rms(format!("inter.{name}"), got, &io.get(&format!("inter.{name}"))?, 5e-5);
    }
    checks.absolute("out_plain", &out, &io.get("out_plain")?, 1.5e-5);

    let encoded = net.encode(&io.get("controlnet_cond")?);
    let residuals = net.forward(&sample, &t, &text, &encoded, 0.7);
    let expected = io.series("cn_down")?;
    ensure!(expected.len() == residuals.down.len(), "{} residuals, not {}", residuals.down.len(), expected.len());
    for (i, (got, want)) in residuals.down.iter().zip(&expected).enumerate() {
        checks.absolute(format!("cn_down.{i}"), got, want, 5e-5);
    }
    checks.absolute("cn_mid", &residuals.mid, &io.get("cn_mid")?, 5e-5);
    let extras = Extras { down: Some(&residuals.down), mid: Some(&residuals.mid), ..Extras::default() };
    checks.absolute("out_controlled", &unet.forward(&sample, &t, &text, extras), &io.get("out_controlled")?, 1.5e-5);
    Ok(())
}

fn vae(dir: &Path, model: &str, checks: &mut Checks) -> Result<()> {
    let io = Case::read(&dir.join("vae.safetensors"))?;
    let vae = load_vae(&dir.join("models").join(model))?;
    let posterior = vae.encode(&io.get("image")?);
    checks.absolute("mean", &posterior.mean, &io.get("mean")?, 3e-5);
    checks.absolute("logvar", &posterior.logvar, &io.get("logvar")?, 3e-5);
    let latent = vae.scale(&posterior.sample(&io.get("noise")?));
    checks.absolute("latent_scaled", &latent, &io.get("latent_scaled")?, 3e-5);
    checks.absolute("decoded", &vae.decode(&vae.unscale(&io.get("latent_scaled")?)), &io.get("decoded")?, 3e-5);
    Ok(())
}

fn schedulers(dir: &Path, report: &mut Report) {
    let files = json(&dir.join("schedulers.json"))
        .and_then(|about| Case::read(&dir.join("schedulers.safetensors")).map(|io| (about, io)));
    let (about, io) = match files {
        Ok(files) => files,
        Err(error) => return report.fail("schedulers", &format!("{error:#}")),
    };
    for case in about["cases"].as_array().into_iter().flatten() {
        let name = case["name"].as_str().unwrap_or("unnamed");
        report.case(&format!("schedulers/{name}"), |c| scheduler(case, name, &io, c));
    }
    report.case("schedulers/timesteps", |c| timesteps(&about, c));
}

fn scheduler(case: &Value, name: &str, io: &Case, checks: &mut Checks) -> Result<()> {
    let schedule = Schedule::new(&ScheduleConfig::from_json(&case["config"], name)?);
    let sampler = match case["scheduler"].as_str() {
        Some("DDPM") => Sampler::Ddpm,
        Some("DDIM") => Sampler::Ddim { eta: case["eta"].as_f64().unwrap_or(0.0) },
        Some("UniPC") => Sampler::UniPc,
        other => bail!("the sampler {other:?} is unknown"),
    };
    let get = |suffix: &str| io.get(&format!("{name}.{suffix}"));
    let plan = schedule.plan(sampler, number(case, "steps")? as usize).map_err(anyhow::Error::msg)?;
    let visited: Vec<i64> = plan.iter().map(|step| step.t).collect();
    checks.exact("timesteps", visited == io.integers(&format!("{name}.timesteps"))?);

    let alphas = io.numbers(&format!("{name}.alphas_cumprod"))?;
    ensure!(alphas.len() == schedule.alphas_cumprod.len(), "the table has another length");
    let pairs = alphas.iter().zip(&schedule.alphas_cumprod);
    let worst = if schedule.config.zero_terminal_snr {
        checks.exact("last alpha is 0", schedule.alphas_cumprod.last() == Some(&0.0) && alphas.last() == Some(&0.0));
        // Rescaling subtracts nearly equal f32 roots in the reference, so towards 0 its rounding is no longer relative.
        pairs.map(|(want, got)| (want.sqrt() - got.sqrt()).abs() / want.sqrt().max(0.01)).fold(0.0, f64::max)
    } else {
        pairs.map(|(want, got)| (want - got).abs() / want).fold(0.0, f64::max)
    };
    checks.error("alphas_cumprod", worst, 1e-6);

    let t = io.integers(&format!("{name}.fwd.t"))?;
    let (x0, noise) = (get("fwd.x0")?, get("fwd.noise")?);
    checks.scaled("fwd.noisy", &schedule.add_noise(&x0, &noise, &t), &get("fwd.noisy")?, 2e-5);
    checks.scaled("fwd.velocity", &schedule.velocity(&x0, &noise, &t), &get("fwd.velocity")?, 2e-5);

    let (mut sample, mut walk) = (get("init")?, Walk::default());
    for (i, step) in plan.iter().enumerate() {
        let output = get(&format!("model_output.{i}"))?;
        let noise = get(&format!("noise.{i}")).ok();
        ensure!(noise.is_some() || step.noise_std < 1e-9, "step {i} needs noise, the set has none");
        checks.scaled(format!("pred_x0.{i}"), &step.pred_x0(&sample, &output), &get(&format!("pred_x0.{i}"))?, 2e-5);
        sample = step.advance(&sample, &output, noise.as_ref(), &mut walk);
        checks.scaled(format!("prev_sample.{i}"), &sample, &get(&format!("prev_sample.{i}"))?, 2e-5);
    }
    Ok(())
}

/// The table of visited times: keys are `DDIMScheduler.leading.10`.
fn timesteps(about: &Value, checks: &mut Checks) -> Result<()> {
    for (key, times) in about["timesteps"].as_object().context("there is no table of timesteps")? {
        let parts: Vec<&str> = key.split('.').collect();
        let [class, spacing, steps] = parts[..] else { bail!("the key {key} is not understood") };
        let spacing = match spacing {
            "leading" => Spacing::Leading,
            "trailing" => Spacing::Trailing,
            "linspace" => Spacing::Linspace,
            other => bail!("the spacing {other} is unknown"),
        };
        // Long lists are shortened to both ends with "..." between.
        let expected = times.as_array().context("times are no list")?;
        if expected.first().and_then(Value::as_i64) == Some(1000) {
            continue; // The reference leaves its own table here; ours refuses, which a unit test checks.
        }
        let steps = steps.parse()?;
        let config = ScheduleConfig { spacing, ..ScheduleConfig::default() };
        let sampler = match class {
            "UniPCMultistepScheduler" => Sampler::UniPc,
            _ => Sampler::Ddpm,
        };
        let got = Schedule::new(&config).timesteps(sampler, steps).map_err(anyhow::Error::msg)?;
        let got: Vec<Value> = got.into_iter().map(Value::from).collect();
        let equal = match expected.iter().position(|v| v == "...") {
            Some(cut) => got.starts_with(&expected[..cut]) && got.ends_with(&expected[cut + 1..]),
            None => got == *expected,
        };
        checks.exact(key.clone(), equal && got.len() == steps);
    }
    Ok(())
}

fn pipeline(dir: &Path, checks: &mut Checks) -> Result<()> {
    let io = Case::read(&dir.join("pipeline.safetensors"))?;
    let ((_unet_vs, unet), (_net_vs, net)) = (load_unet(dir)?, load_controlnet(dir)?);
    let vae = load_vae(&dir.join("models/vae"))?;
    let place = dir.join("models/scheduler/scheduler_config.json");
    let schedule = Schedule::new(&ScheduleConfig::from_json(&json(&place)?, &place.display().to_string())?);
    let visited = io.integers("timesteps")?;
    let plan = schedule.plan(Sampler::Ddim { eta: 0.0 }, visited.len()).map_err(anyhow::Error::msg)?;
    checks.exact("timesteps", plan.iter().map(|s| s.t).eq(visited));

    let text = io.get("ctx_uncond_cond")?;
    let condition = net.encode(&io.get("controlnet_cond")?.expand([2, -1, -1, -1], false));
    let (mut latent, mut walk) = (io.get("init")?, Walk::default());
    for (i, step) in plan.iter().enumerate() {
        let both = latent.expand([2, -1, -1, -1], false).contiguous();
        let t = times(step.t, 2, Device::Cpu);
        let residuals = net.forward(&both, &t, &text, &condition, 1.0);
        let extras = Extras { down: Some(&residuals.down), mid: Some(&residuals.mid), ..Extras::default() };
        let out = unet.forward(&both, &t, &text, extras);
        let (uncond, cond) = (out.narrow(0, 0, 1), out.narrow(0, 1, 1));
        latent = step.advance(&latent, &(&uncond + (cond - &uncond) * 3.0), None, &mut walk);
        checks.absolute(format!("latent.{i}"), &latent, &io.get(&format!("latent.{i}"))?, 2e-4);
    }
    checks.absolute("image", &vae.decode(&vae.unscale(&latent)), &io.get("image")?, 2e-4);
    Ok(())
}

fn train_step(dir: &Path, checks: &mut Checks) -> Result<()> {
    let io = Case::read(&dir.join("train_step.safetensors"))?;
    let about = json(&dir.join("train_step.json"))?;
    let ((mut unet_vs, unet), (net_vs, net)) = (load_unet(dir)?, load_controlnet(dir)?);
    unet_vs.freeze();
    let config = ScheduleConfig { zero_terminal_snr: false, ..ScheduleConfig::default() };
    let schedule = Schedule::new(&config);
    let (latents, noise) = (io.get("latents")?, io.get("noise")?);
    let times = io.integers("timesteps")?;
    let (t, text) = (io.raw("timesteps")?.shallow_clone(), io.get("encoder_hidden_states")?);
    let noisy = schedule.add_noise(&latents, &noise, &times);
    let target = schedule.target(&latents, &noise, &times);
    checks.scaled("noisy", &noisy, &io.get("noisy")?, 2e-5);
    checks.scaled("target_v", &target, &io.get("target_v")?, 2e-5);

    let mut optimiser = AdamW::default();
    let group = Group {
        name: "controlnet".into(),
        lr: number(&about, "optimiser/lr")?,
        weight_decay: number(&about, "optimiser/weight_decay")?,
        max_grad_norm: Some(number(&about, "optimiser/clip")?),
    };
    optimiser.eps = number(&about, "optimiser/eps")?;
    optimiser.add(group, &net_vs);
    let list = |key: &str| -> Result<Vec<f64>> { Ok(serde_json::from_value(about["f32"][key].clone())?) };
    let (losses, norms) = (list("losses")?, list("grad_norm_before_clip")?);
    let variables = weights::sorted(&net_vs);
    let relative = |got: f64, want: f64| (got - want).abs() / want.abs();
    for (k, (&loss_want, &norm_want)) in losses.iter().zip(&norms).enumerate() {
        let condition = io.leaf("controlnet_cond")?;
        let residuals = net.forward(&noisy, &t, &text, &net.encode(&condition), 1.0);
        let extras = Extras { down: Some(&residuals.down), mid: Some(&residuals.mid), ..Extras::default() };
        let out = unet.forward(&noisy, &t, &text, extras);
        let loss = (&out - &target).square().mean(Kind::Float);
        optimiser.zero_grad();
        loss.backward();
        let tolerance = if k == 0 { 1e-5 } else { 1e-4 };
        checks.error(format!("losses.{k}"), relative(loss.double_value(&[]), loss_want), tolerance);
        if k == 0 {
            checks.absolute("pred", &out, &io.get("pred")?, 1.5e-5);
            gradients(&io, &about, &variables, checks)?;
            let want = io.get("grad_controlnet_cond")?;
            let largest = want.abs().max().double_value(&[]);
            checks.absolute("grad_controlnet_cond", &condition.grad(), &want, 1e-4 * largest);
        }
        let norm = optimiser.step(1.0)[0];
        checks.error(format!("grad_norm.{k}"), relative(norm, norm_want), 1e-4);
        if k == 0 {
            for name in io.names().filter_map(|n| n.strip_prefix("after1.")) {
                let value = variables.get(name).with_context(|| format!("no parameter {name}"))?;
                let error = (value.detach() - io.get(&format!("after1.{name}"))?).abs();
                checks.error(format!("after1.{name}"), error.max().double_value(&[]), 2.1e-3);
                let off = error.gt(1e-5).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
                checks.error(format!("after1.{name}, share off by 1e-5"), off, 0.01);
            }
        }
    }
    let moved = unet_vs.variables().values().any(|v| v.grad().defined());
    checks.exact("the frozen U-Net has no gradient", !moved);
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
