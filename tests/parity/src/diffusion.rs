//! Stable Diffusion's parts: U-Net, ControlNet, auto-encoder, and the whole sampling loop; schedulers and the training
//! step have files of their own. Tolerances are those of the first set's README, and more where a set says that its
//! reference is noisier.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use models::controlnet::{ControlNet, ControlNetConfig};
use models::schedule::{Schedule, ScheduleConfig, Walk};
use models::unet::{Extras, Probe, UNet, UNetConfig, times};
use models::vae::{Vae, VaeConfig};
use models::weights::{self, ModelFolder};
use std::cell::RefCell;
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::check::{Case, Checks, Report, json};
use crate::noise_floor::NoiseFloor;
use crate::settings::{ETA, GUIDANCE, SCALE, STEPS, Settings};
use crate::{schedulers, training};

/// What a folder may hold of this family.
pub const FILES: [&str; 12] = [
    "models",
    "noise_floor.json",
    "pipeline.json",
    "pipeline.safetensors",
    "schedulers.json",
    "schedulers.safetensors",
    "train_step.json",
    "train_step.safetensors",
    "unet.json",
    "unet.safetensors",
    "vae.json",
    "vae.safetensors",
];

/// What cases find their networks and schedules in, and the files of the cases that look there.
const MODELS: [(&str, &[&str]); 5] = [
    ("controlnet", &["unet.safetensors", "pipeline.safetensors", "train_step.safetensors"]),
    ("scheduler", &["pipeline.safetensors", "train_step.safetensors"]),
    ("unet", &["unet.safetensors", "pipeline.safetensors", "train_step.safetensors"]),
    ("vae", &["vae.safetensors", "pipeline.safetensors"]),
    ("vae_legacy_names", &["vae.safetensors"]),
];

/// Runs a folder of such folders, each with networks of another shape.
pub fn run_each(dir: &Path, report: &mut Report) {
    for name in crate::names(dir).iter().filter(|name| !crate::is_note(name)) {
        let (folder, prefix) = (dir.join(name), format!("shapes/{name}"));
        let before = report.passed + report.failed.len();
        run(&folder, &format!("{prefix}/"), report);
        crate::strangers(&folder, &prefix, report, |file| FILES.contains(&file));
        if report.passed + report.failed.len() == before {
            report.fail(&prefix, "there are no reference cases in this folder");
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
        schedulers::run(dir, prefix, report);
    }
    if has("pipeline.safetensors") {
        report.case(&named("pipeline"), |c| tch::no_grad(|| pipeline(dir, c)));
    }
    if has("train_step.json") || has("train_step.safetensors") {
        report.case(&named("train_step"), |c| training::train_step(dir, c));
    }
    for stem in ["pipeline", "unet", "vae"] {
        if has(&format!("{stem}.json")) && !has(&format!("{stem}.safetensors")) {
            report.fail(&named(&format!("{stem}.json")), "there is nothing that it describes");
        }
    }
    for model in crate::names(&dir.join("models")).iter().filter(|model| !crate::is_note(model)) {
        match MODELS.iter().find(|(known, _)| known == model) {
            None => report.fail(&named(&format!("models/{model}")), "no case asks for such a model"),
            Some((_, files)) if !files.iter().any(|&file| has(file)) => {
                let reason = format!("there is nothing to compare it with: no {}", files.join(", no "));
                report.fail(&named(&format!("models/{model}")), &reason);
            }
            Some(_) => {}
        }
    }
}

/// The U-Net of the folder's models.
pub fn load_unet(dir: &Path) -> Result<(VarStore, UNet)> {
    let folder = ModelFolder::open(&dir.join("models/unet"))?;
    let config = UNetConfig::from_json(&folder.config, &folder.config_path.display().to_string())?;
    let vs = VarStore::new(Device::Cpu);
    let unet = UNet::new(&vs.root(), &config);
    weights::load(&vs, &folder.weights)?;
    Ok((vs, unet))
}

/// The ControlNet of the folder's models.
pub fn load_controlnet(dir: &Path) -> Result<(VarStore, ControlNet)> {
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
    // one time for all, as the reference takes it
    let t = io.raw("timesteps")?.reshape([-1]).expand([sample.size()[0]], false).contiguous();
    let floor = NoiseFloor::read(dir)?;
    // what the U-Net puts out, and what the ControlNet does, which is several units large
    let (out_noise, noise) = (floor.above("unet.out_", 1.5e-5), floor.above("unet.cn_", 5e-5));
    // between, the reference may be as far from itself as this in a deep network, and nobody says how far
    let inner_noise = floor.above("unet.", 2e-4);

    let seen = RefCell::new(Vec::new());
    let see = |name: &str, x: &Tensor| seen.borrow_mut().push((name.to_owned(), x.copy()));
    let out = unet.forward(&sample, &t, &text, Extras { probe: Probe(Some(&see)), ..Extras::default() });
    for name in io.names().filter_map(|n| n.strip_prefix("inter.")) {
        let seen = seen.borrow();
        let (_, got) = seen.iter().find(|(n, _)| n == name).with_context(|| format!("no module output {name}"))?;
        checks.by_rms(format!("inter.{name}"), got, &io.get(&format!("inter.{name}"))?, inner_noise);
    }
    checks.absolute("out_plain", &out, &io.get("out_plain")?, out_noise);

    let encoded = net.encode(&io.get("controlnet_cond")?);
    let settings = Settings::read(dir, "unet")?;
    settings.tell_unknown(&[&SCALE], checks);
    let scale = settings.number_or_told(&SCALE, 0.7, checks)?;
    let residuals = net.forward(&sample, &t, &text, &encoded, scale);
    let expected = io.series("cn_down")?;
    ensure!(expected.len() == residuals.down.len(), "{} residuals, not {}", residuals.down.len(), expected.len());
    for (i, (got, want)) in residuals.down.iter().zip(&expected).enumerate() {
        checks.absolute(format!("cn_down.{i}"), got, want, noise);
    }
    checks.absolute("cn_mid", &residuals.mid, &io.get("cn_mid")?, noise);
    let extras = Extras { down: Some(&residuals.down), mid: Some(&residuals.mid), ..Extras::default() };
    checks.absolute("out_controlled", &unet.forward(&sample, &t, &text, extras), &io.get("out_controlled")?, out_noise);
    io.all_asked(|_| false)
}

fn vae(dir: &Path, model: &str, checks: &mut Checks) -> Result<()> {
    let io = Case::read(&dir.join("vae.safetensors"))?;
    let vae = load_vae(&dir.join("models").join(model))?;
    let tolerance = NoiseFloor::read(dir)?.above("vae.", 3e-5);
    let posterior = vae.encode(&io.get("image")?);
    checks.absolute("mean", &posterior.mean, &io.get("mean")?, tolerance);
    checks.absolute("logvar", &posterior.logvar, &io.get("logvar")?, tolerance);
    let latent = vae.scale(&posterior.sample(&io.get("noise")?));
    checks.absolute("latent_scaled", &latent, &io.get("latent_scaled")?, tolerance);
    checks.absolute("decoded", &vae.decode(&vae.unscale(&io.get("latent_scaled")?)), &io.get("decoded")?, tolerance);
    io.all_asked(|_| false)
}

/// The loop of sampling with the class that models/scheduler names, as its pipelines call it: DDIM without noise of its
/// own if the case does not say otherwise. Each step begins with the reference's own latent, as schedulers alone do:
/// guidance multiplies the roundings of a deep network at every one.
fn pipeline(dir: &Path, checks: &mut Checks) -> Result<()> {
    let io = Case::read(&dir.join("pipeline.safetensors"))?;
    let ((_unet_vs, unet), (_net_vs, net)) = (load_unet(dir)?, load_controlnet(dir)?);
    let vae = load_vae(&dir.join("models/vae"))?;
    let place = dir.join("models/scheduler/scheduler_config.json");
    let about = json(&place)?;
    let class = about["_class_name"].as_str().with_context(|| format!("{} has no _class_name", place.display()))?;
    let settings = Settings::read(dir, "pipeline")?;
    settings.tell_unknown(&[&SCALE, &GUIDANCE, &ETA, &STEPS], checks);
    let scale = settings.number_or_told(&SCALE, 1.0, checks)?;
    let guidance = settings.number_or_told(&GUIDANCE, 3.0, checks)?;
    let tolerance = NoiseFloor::read(dir)?.above("pipeline.", 2e-4);
    let (_, sampler) = schedulers::sampler(class, settings.number(&ETA, 0.0)?)?;
    let schedule = Schedule::new(&ScheduleConfig::from_json(&about, &place.display().to_string())?);
    let visited = io.integers("timesteps")?;
    let steps = settings.number(&STEPS, visited.len() as f64)?;
    ensure!(steps == visited.len() as f64, "{steps} steps are stated, and there are {} timesteps", visited.len());
    let plan = schedule.plan(sampler, visited.len()).map_err(anyhow::Error::msg)?;
    checks.exact("timesteps", plan.iter().map(|s| s.t).eq(visited));

    let (mut latent, mut walk) = (io.get("init")?, Walk::default());
    let pictures = latent.size()[0];
    // first all without a prompt, then all with one
    let text = twice(&io.get("ctx_uncond_cond")?, pictures, 2, "ctx_uncond_cond")?;
    let condition = twice(&io.get("controlnet_cond")?, pictures, 1, "controlnet_cond")?;
    let condition = net.encode(&condition);
    for (i, step) in plan.iter().enumerate() {
        let both = Tensor::cat(&[&latent, &latent], 0);
        let t = times(step.t, 2 * pictures, Device::Cpu);
        let residuals = net.forward(&both, &t, &text, &condition, scale);
        let extras = Extras { down: Some(&residuals.down), mid: Some(&residuals.mid), ..Extras::default() };
        let out = unet.forward(&both, &t, &text, extras);
        let (uncond, cond) = (out.narrow(0, 0, pictures), out.narrow(0, pictures, pictures));
        let noise = schedulers::noise(&io, &format!("noise.{i}"), step)?;
        let guided = &uncond + (cond - &uncond) * guidance;
        let next = step.advance(&latent, &guided, noise.as_ref(), &mut walk);
        let (before, want) = (latent, io.get(&format!("latent.{i}"))?);
        let next =
            &next + schedulers::surplus(&schedule, (sampler, plan.len()), step.t, [&before, &guided], (&next, &want));
        latent = want;
        checks.absolute(format!("latent.{i}"), &next, &latent, tolerance);
    }
    checks.absolute("image", &vae.decode(&vae.unscale(&latent)), &io.get("image")?, tolerance);
    io.all_asked(|_| false)
}

/// What both halves of a batch are given, `2 * pictures` of it: it is stored as that, for each picture, or once,
/// `halves` of it then.
fn twice(stored: &Tensor, pictures: i64, halves: i64, name: &str) -> Result<Tensor> {
    match stored.size()[0] {
        all if all == 2 * pictures => Ok(stored.shallow_clone()),
        one if one == halves => Ok(stored.repeat_interleave_self_int(2 * pictures / halves, 0, None)),
        each if each == pictures => Ok(Tensor::cat(&[stored, stored], 0)),
        other => {
            bail!("{name} is of {other}, expected {halves}, {pictures} or {} for {pictures} pictures", 2 * pictures)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::weights::{Precision, Tensors};
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    fn golden() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/shapes/steep")
    }

    /// A folder of this name with the committed networks.
    fn with_networks(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("effigy-parity-diffusion-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink(golden().join("models"), dir.join("models")).unwrap();
        dir
    }

    fn holds(case: impl FnOnce(&mut Checks) -> Result<()>) -> Result<bool> {
        let mut checks = Checks::default();
        tch::no_grad(|| case(&mut checks))?;
        Ok(checks.hold())
    }

    #[test]
    fn residuals_are_scaled_as_the_case_says() {
        let dir = with_networks("scale");
        let mut tensors: Tensors = weights::read(&golden().join("unet.safetensors")).unwrap();
        // half of the residuals that are stored, and what the U-Net makes of them
        for (_, tensor) in tensors.iter_mut().filter(|(name, _)| name.starts_with("cn_")) {
            *tensor = &*tensor * 0.5;
        }
        let down: Vec<Tensor> =
            (0..).map_while(|i| tensors.get(&format!("cn_down.{i}")).map(Tensor::shallow_clone)).collect();
        let out = tch::no_grad(|| {
            let (_vs, unet) = load_unet(&golden()).unwrap();
            let extras = Extras { down: Some(&down), mid: Some(&tensors["cn_mid"]), ..Extras::default() };
            unet.forward(&tensors["sample"], &tensors["timesteps"], &tensors["encoder_hidden_states"], extras)
        });
        tensors.insert("out_controlled".into(), out);
        let run = |metadata: &[(&str, &str)]| {
            let metadata: BTreeMap<String, String> =
                metadata.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect();
            weights::write(&dir.join("unet.safetensors"), &tensors, &metadata, Precision::Keep).unwrap();
            holds(|checks| unet(&dir, checks))
        };
        assert!(!run(&[]).unwrap());
        assert!(run(&[("conditioning_scale", "0.35")]).unwrap());
        std::fs::write(dir.join("unet.json"), r#"{"controlnet_conditioning_scale": 0.35}"#).unwrap();
        assert!(run(&[]).unwrap());
        assert!(run(&[("conditioning_scale", "0.7")]).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_batch_has_all_without_a_prompt_first() {
        let dir = with_networks("batch");
        let one: Tensors = weights::read(&golden().join("pipeline.safetensors")).unwrap();
        // the same picture twice, of which each is what the one was
        let two =
            |name: &str| ["init", "image"].contains(&name) || name.starts_with("latent.") || name.starts_with("noise.");
        let run = |change: &dyn Fn(&mut Tensors)| {
            let doubled = |(name, x): (&String, &Tensor)| {
                (name.clone(), if two(name) { Tensor::cat(&[x, x], 0) } else { x.shallow_clone() })
            };
            let mut tensors: Tensors = one.iter().map(doubled).collect();
            change(&mut tensors);
            weights::write(&dir.join("pipeline.safetensors"), &tensors, &Default::default(), Precision::Keep).unwrap();
            holds(|checks| pipeline(&dir, checks))
        };
        assert!(run(&|_| ()).unwrap());
        assert!(
            run(&|tensors| _ = tensors.insert("controlnet_cond".into(), Tensor::cat(&[&one["controlnet_cond"]; 2], 0)))
                .unwrap()
        );
        let swapped = |tensors: &mut Tensors| {
            let text = one["ctx_uncond_cond"].repeat_interleave_self_int(2, 0, None);
            tensors.insert("ctx_uncond_cond".into(), text.flip([0]));
        };
        assert!(!run(&swapped).unwrap());
        let three = |tensors: &mut Tensors| {
            _ = tensors.insert("controlnet_cond".into(), Tensor::cat(&[&one["controlnet_cond"]; 3], 0))
        };
        assert!(run(&three).unwrap_err().to_string().contains("controlnet_cond is of 3"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_loop_is_run_with_the_settings_of_the_case() {
        let dir = with_networks("loop");
        std::fs::copy(golden().join("pipeline.safetensors"), dir.join("pipeline.safetensors")).unwrap();
        let run = |about: &str| {
            std::fs::write(dir.join("pipeline.json"), about).unwrap();
            holds(|checks| pipeline(&dir, checks))
        };
        let stated =
            r#"{"guidance_scale": 3.0, "controlnet_conditioning_scale": 1, "eta": 0, "num_inference_steps": 6}"#;
        assert!(run(stated).unwrap());
        for other in [stated.replace("3.0", "2.0"), stated.replace(": 1,", ": 0.5,")] {
            assert!(!run(&other).unwrap(), "{other}");
        }
        assert!(run(&stated.replace(": 6", ": 7")).unwrap_err().to_string().contains("7 steps"));
        assert!(run(&stated.replace("\"eta\": 0", "\"eta\": 1")).unwrap_err().to_string().contains("adds noise"));
        std::fs::remove_file(dir.join("pipeline.safetensors")).unwrap();
        let mut report = Report::default();
        super::run(&dir, "", &mut report);
        assert!(report.failed.contains(&"pipeline.json".to_owned()), "{:?}", report.failed);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
