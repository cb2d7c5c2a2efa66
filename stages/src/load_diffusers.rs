//! `load_diffusers`: a latent diffusion model in the diffusers folder layout, as Stable Diffusion comes.
//!
//! no rows in   writes: component (vae, unet, scheduler, null_prompt), config, weights
//!
//! `vae/` and `unet/` hold `config.json` and `diffusion_pytorch_model.safetensors`, or `.bin`; `scheduler/` holds
//! `scheduler_config.json`. The embedding of the empty prompt, the only text ever given, comes as
//! `null_prompt.safetensors` (`null_prompt` `[1, tokens, width]`). Weights are checked against their configs here, so
//! that a wrong file is an error at once and not after an hour. Knows no training.

use crate::backbone;
use anyhow::{Context, Result, bail};
use models::schedule::{ScheduleConfig, Spacing};
use models::unet::{UNet, UNetConfig};
use models::vae::{Vae, VaeConfig};
use models::weights::{self, ModelFolder, Precision};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::Device;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The folder.
    path: PathBuf,
    /// Rescales the noise schedule to zero terminal SNR with trailing time steps, whatever `scheduler_config.json` says, as
    /// DiffusionAvatars does with Stable Diffusion 2.1 (section 4.3).
    #[serde(default)]
    zero_terminal_snr: bool,
}

fn def() -> StageDef {
    StageDef::new("load_diffusers", 2, Grain::Whole)
        .doc("Loads and checks a latent diffusion model in the diffusers folder layout.")
        .source()
        .file_param("path")
        .writes(backbone::COLUMNS)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(LoadDiffusers { params }));

struct LoadDiffusers {
    params: Params,
}

impl Stage for LoadDiffusers {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.load(unit, cx)).collect()
    }
}

impl LoadDiffusers {
    fn load(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let root = &self.params.path;
        let vae = ModelFolder::open(&root.join("vae"))?;
        let vs = VarStore::new(Device::Cpu);
        let _vae = Vae::new(&vs.root(), &VaeConfig::from_json(&vae.config, &vae.config_path.display().to_string())?);
        weights::load(&vs, &vae.weights)?;

        let unet = ModelFolder::open(&root.join("unet"))?;
        let config = UNetConfig::from_json(&unet.config, &unet.config_path.display().to_string())?;
        let vs = VarStore::new(Device::Cpu);
        let _unet = UNet::new(&vs.root(), &config);
        weights::load(&vs, &unet.weights)?;

        let scheduler = root.join("scheduler").join("scheduler_config.json");
        let schedule = ScheduleConfig::from_json(&weights::read_json(&scheduler)?, &scheduler.display().to_string())?;

        let prompt = root.join("null_prompt.safetensors");
        if !prompt.exists() {
            bail!(
                "{} is missing: the text encoder's output for the empty prompt, as `null_prompt` [1, tokens, {}]\n\
                 hint: README.md, \"Weights of the paper profile\", says how to make it",
                prompt.display(),
                config.cross_attention_dim
            );
        }
        let size = weights::read(&prompt)?
            .get("null_prompt")
            .with_context(|| format!("{} holds no tensor `null_prompt`", prompt.display()))?
            .size();
        if size.len() != 3 || size[0] != 1 || size[2] != config.cross_attention_dim {
            bail!(
                "{}: `null_prompt` is {size:?}, the unet takes [1, tokens, {}]",
                prompt.display(),
                config.cross_attention_dim
            );
        }

        let scheduler_path = cx.file(unit, "scheduler_config.json");
        let schedule = match self.params.zero_terminal_snr {
            true => ScheduleConfig { zero_terminal_snr: true, spacing: Spacing::Trailing, ..schedule },
            false => schedule,
        };
        backbone::write_config(&scheduler_path, &schedule.to_json())?;

        let copy = |from: &Path, name: &str| -> Result<PathBuf> {
            let to = cx.file(unit, name);
            std::fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
            Ok(to)
        };
        let model = |name: &str, folder: &ModelFolder| -> Result<OutRow> {
            let weights_name = format!("{name}.safetensors");
            let weights = if folder.weights.extension().is_some_and(|ext| ext == "bin") {
                let to = cx.file(unit, &weights_name);
                weights::write(&to, &weights::read(&folder.weights)?, &BTreeMap::new(), Precision::Keep)?;
                to
            } else {
                copy(&folder.weights, &weights_name)?
            };
            Ok(OutRow::new()
                .str("component", name)
                .file("config", &copy(&folder.config_path, &format!("{name}_config.json"))?)
                .file("weights", &weights))
        };
        Ok(vec![
            model("vae", &vae)?,
            model("unet", &unet)?,
            OutRow::new().str("component", "scheduler").file("config", &scheduler_path),
            OutRow::new().str("component", "null_prompt").file("weights", &copy(&prompt, "null_prompt.safetensors")?),
        ])
    }
}
