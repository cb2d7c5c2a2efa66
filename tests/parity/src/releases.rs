//! Networks of both generations of Stable Diffusion in the files that releases come in (half precision, checkpoints,
//! several files with an index), text included, and the UniPC sampler. `tests/golden/releases/write.py` makes such a
//! family.

use anyhow::{Context, Result, bail, ensure};
use models::controlnet::{ControlNet, ControlNetConfig};
use models::schedule::{Sampler, Schedule, ScheduleConfig, Walk};
use models::text::{TextConfig, TextEncoder};
use models::tokenizer::Tokenizer;
use models::unet::{Extras, UNet, UNetConfig};
use models::weights::{self, ModelFolder};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::check::{Checks, number};
use crate::folder::Folder;
use crate::settings::SCALE;

/// Runs a case of this family.
pub fn run(kind: &str, case: &Folder, checks: &mut Checks) -> Result<()> {
    tch::no_grad(|| match kind {
        "text" => text(case, checks),
        "networks" => networks(case, checks),
        "unipc" => unipc(case, checks),
        other => bail!("the kind {other} is unknown"),
    })
}

/// Prompts to token numbers, exactly, and these to hidden states.
fn text(case: &Folder, checks: &mut Checks) -> Result<()> {
    let tokenizer = Tokenizer::open(&case.dir.join("tokenizer"))?;
    let prompts: Vec<String> = serde_json::from_value(case.meta["config"]["prompts"].clone())?;
    let ids = case.io.raw("ids")?;
    ensure!(ids.size()[0] as usize == prompts.len(), "as many prompts as rows of ids");
    for (i, prompt) in prompts.iter().enumerate() {
        let want: Vec<i64> = Vec::try_from(ids.get(i as i64))?;
        let got = tokenizer.encode(prompt).map_err(anyhow::Error::msg)?;
        checks.exact(format!("tokens of {prompt:?}"), got == want);
    }
    let folder = ModelFolder::open_transformers(&case.dir.join("text_encoder"))?;
    let config = TextConfig::from_json(&folder.config, &folder.config_path.display().to_string())?;
    let vs = VarStore::new(Device::Cpu);
    let net = TextEncoder::new(&vs.root(), &config);
    weights::load(&vs, &folder.weights)?;
    case.f32(checks, "states", &net.forward(ids))
}

fn networks(case: &Folder, checks: &mut Checks) -> Result<()> {
    let folder = ModelFolder::open(&case.dir.join("unet"))?;
    let config = UNetConfig::from_json(&folder.config, &folder.config_path.display().to_string())?;
    let unet_vs = VarStore::new(Device::Cpu);
    let unet = UNet::new(&unet_vs.root(), &config);
    weights::load(&unet_vs, &folder.weights)?;
    let folder = ModelFolder::open(&case.dir.join("controlnet"))?;
    let config = ControlNetConfig::from_json(&folder.config, &folder.config_path.display().to_string())?;
    let net_vs = VarStore::new(Device::Cpu);
    let net = ControlNet::new(&net_vs.root(), &config);
    weights::load(&net_vs, &folder.weights)?;

    let (sample, text, t) = (case.io.get("sample")?, case.io.get("text")?, case.io.raw("t")?);
    case.f32(checks, "plain", &unet.forward(&sample, t, &text, Extras::default()))?;
    let scale = SCALE.of(&case.meta["config"])?.unwrap_or(1.0);
    let residuals = net.forward(&sample, t, &text, &net.encode(&case.io.get("image")?), scale);
    case.f32(checks, "mid", &residuals.mid)?;
    let extras = Extras { down: Some(&residuals.down), mid: Some(&residuals.mid), ..Extras::default() };
    case.f32(checks, "controlled", &unet.forward(&sample, t, &text, extras))
}

/// The network's outputs are given, so that this tests the sampler alone.
fn unipc(case: &Folder, checks: &mut Checks) -> Result<()> {
    let mut config = case.meta["config"]["scheduler"].clone();
    config["_class_name"] = "UniPCMultistepScheduler".into();
    let schedule = Schedule::new(&ScheduleConfig::from_json(&config, "scheduler")?);
    let plan = schedule.plan(Sampler::UniPc, case.config("steps")? as usize).map_err(anyhow::Error::msg)?;
    checks.exact("timesteps", plan.iter().map(|step| step.t).eq(case.io.integers("timesteps")?));
    let tolerance = number(&case.meta, "tolerance/next/f64_abs").context("tolerance of next")?;
    let (mut x, mut walk) = (case.io.raw("init")?.to_kind(Kind::Double), Walk::default());
    for (i, step) in plan.iter().enumerate() {
        let output: &Tensor = case.io.raw(&format!("output.{i}"))?;
        x = step.advance(&x, output, None, &mut walk);
        checks.absolute(format!("next.{i}"), &x, case.io.raw(&format!("next.{i}"))?, tolerance);
    }
    Ok(())
}
