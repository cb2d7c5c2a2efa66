//! `load_diffusers`: a latent diffusion model in the diffusers folder layout, as Stable Diffusion comes.
//!
//! no rows in   writes: component (vae, unet, scheduler, null_prompt), config, weights
//!
//! `vae/` and `unet/` hold `config.json` and `diffusion_pytorch_model.safetensors` or one of its kin (half precision,
//! several files with an index, `.bin`); `scheduler/` holds `scheduler_config.json`. The one text that is ever given,
//! the empty one unless `prompt` says otherwise, is encoded by `tokenizer/` and `text_encoder/`; a folder without a
//! text encoder brings its embedding as `null_prompt.safetensors` (`null_prompt` `[1, tokens, width]`). Weights are
//! checked against their configs here, so that a wrong file is an error at once and not after an hour; `effigy doctor
//! --recipe` asks for these checks alone. Knows no training.

use crate::common::backbone;
use anyhow::{Context, Result, anyhow, bail};
use models::schedule::{BetaSchedule, Prediction, ScheduleConfig, Spacing};
use models::text::{self, TextConfig, TextEncoder};
use models::tokenizer::Tokenizer;
use models::unet::{UNet, UNetConfig};
use models::vae::{Vae, VaeConfig};
use models::weights::{self, ModelFolder, Precision};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The folder.
    path: PathBuf,
    /// Rescales the noise schedule to zero terminal SNR with trailing time steps, whatever `scheduler_config.json`
    /// says, as DiffusionAvatars does with Stable Diffusion 2.1 (section 4.3).
    #[serde(default)]
    zero_terminal_snr: bool,
    /// The text that all later networks are given with every picture; the paper's is empty.
    #[serde(default)]
    prompt: String,
}

fn def() -> StageDef {
    StageDef::new("load_diffusers", 3, Grain::Whole)
        .doc("Loads and checks a latent diffusion model in the diffusers folder layout.")
        .source()
        .file_param("path")
        .writes(backbone::COLUMNS)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(LoadDiffusers { params }), |params: Params| {
    Ok(Model::open(&params)?.findings)
});

struct LoadDiffusers {
    params: Params,
}

impl Stage for LoadDiffusers {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.load(unit, cx)).collect()
    }
}

/// A folder all of whose weights fit.
struct Model {
    vae: ModelFolder,
    unet: ModelFolder,
    schedule: ScheduleConfig,
    /// Embedding of the text, `[1, tokens, width]`.
    prompt: Tensor,
    /// A sentence about each part.
    findings: Vec<String>,
}

impl Model {
    /// Loads one network after the other, the largest alone in memory.
    fn open(params: &Params) -> Result<Self> {
        let root = &params.path;
        let mut findings = Vec::new();
        let mut say = |part: &str, what: String| findings.push(format!("{part}: {what}"));

        let vae = ModelFolder::open(&root.join("vae"))?;
        let config = VaeConfig::from_json(&vae.config, &place(&vae.config_path))?;
        let vs = VarStore::new(Device::Cpu);
        let _vae = Vae::new(&vs.root(), &config);
        say("vae", weights::load(&vs, &vae.weights)?.to_string());
        let latent = config.latent_channels;
        drop((_vae, vs));

        let unet = ModelFolder::open(&root.join("unet"))?;
        let config = UNetConfig::from_json(&unet.config, &place(&unet.config_path))?;
        if config.in_channels != latent || config.out_channels != latent {
            bail!(
                "{}: the unet goes from {} to {} channels, the vae's latents have {latent}\n\
                 hint: are they of one model? Models for inpainting or depth take more channels and are not supported",
                root.display(),
                config.in_channels,
                config.out_channels
            );
        }
        let vs = VarStore::new(Device::Cpu);
        let _unet = UNet::new(&vs.root(), &config);
        say("unet", weights::load(&vs, &unet.weights)?.to_string());
        drop((_unet, vs));

        let scheduler = root.join("scheduler").join("scheduler_config.json");
        let value = weights::read_json(&scheduler)?;
        let mut schedule = ScheduleConfig::from_json(&value, &place(&scheduler))?;
        check_schedule(&value, &schedule, &scheduler)?;
        if params.zero_terminal_snr {
            schedule = ScheduleConfig { zero_terminal_snr: true, spacing: Spacing::Trailing, ..schedule };
        }
        if schedule.zero_terminal_snr && schedule.prediction == Prediction::Epsilon {
            bail!(
                "{}: the model predicts noise, and with zero terminal SNR the last step is nothing else: what it predicts says nothing of the picture there\n\
                 hint: take a model that predicts v, such as Stable Diffusion 2.1 at 768 px, or `zero_terminal_snr: false`",
                place(&scheduler)
            );
        }
        let rescaled = if schedule.zero_terminal_snr { ", zero terminal SNR" } else { "" };
        say("scheduler", format!("{:?} prediction, {:?} spacing{rescaled}", schedule.prediction, schedule.spacing));

        let width = config.cross_attention_dim;
        let prompt = match root.join("text_encoder").is_dir() {
            true => encode(root, &params.prompt, width, &mut say)?,
            false => stored(root, &params.prompt, width, &mut say)?,
        };
        Ok(Self { vae, unet, schedule, prompt, findings })
    }
}

fn place(path: &Path) -> String {
    path.display().to_string()
}

/// Checks that a schedule has times, and variances that are some.
fn check_schedule(value: &Value, schedule: &ScheduleConfig, file: &Path) -> Result<()> {
    let wrong = |field: &str, found: String, expected: &str| {
        let hint = "is the file whole, and of this model? download it again";
        Err(anyhow!("{}, field `{field}`: found {found}, expected {expected}\nhint: {hint}", file.display()))
    };
    if let Some(steps) = value.get("num_train_timesteps").and_then(Value::as_i64).filter(|steps| *steps < 1) {
        return wrong("num_train_timesteps", steps.to_string(), "an integer from 1");
    }
    // these have no start and no end
    if schedule.trained_betas.is_some() || schedule.beta_schedule == BetaSchedule::SquaredCosine {
        return Ok(());
    }
    let (start, end) = (schedule.beta_start, schedule.beta_end);
    for (field, beta) in [("beta_start", start), ("beta_end", end)] {
        if !(beta > 0.0 && beta < 1.0) {
            return wrong(field, beta.to_string(), "a variance above 0 and below 1");
        }
    }
    if start > end {
        return wrong("beta_end", end.to_string(), &format!("at least `beta_start`, which is {start}"));
    }
    Ok(())
}

/// The embedding of a text by the folder's own text encoder.
fn encode(root: &Path, text: &str, width: i64, say: &mut dyn FnMut(&str, String)) -> Result<Tensor> {
    let tokenizer = Tokenizer::open(&root.join("tokenizer"))?;
    let folder = ModelFolder::open_transformers(&root.join("text_encoder"))?;
    let config = TextConfig::from_json(&folder.config, &place(&folder.config_path))?;
    if config.hidden_size != width {
        bail!(
            "{}: the text encoder is {} wide, the unet takes {width}\nhint: are they of one model?",
            root.display(),
            config.hidden_size
        );
    }
    let vs = VarStore::new(Device::Cpu);
    let net = TextEncoder::new(&vs.root(), &config);
    say("text encoder", weights::load(&vs, &folder.weights)?.to_string());
    let hint = "shorten `prompt`; the folders `tokenizer` and `text_encoder` have to be of one model";
    let tokens = tokenizer.encode(text).map_err(|error| anyhow!("`prompt`: {error}\nhint: {hint}"))?;
    let largest = tokens.iter().copied().max().unwrap_or_default();
    if largest >= config.vocab_size || tokens.len() as i64 > config.max_position_embeddings {
        bail!(
            "{}: the tokenizer makes {} tokens numbered up to {largest}, the text encoder takes {} below {}\nhint: {hint}",
            root.display(),
            tokens.len(),
            config.max_position_embeddings,
            config.vocab_size
        );
    }
    say("prompt", format!("{text:?} is encoded as {} tokens", tokens.len()));
    Ok(tch::no_grad(|| net.forward(&text::ids(&tokens))))
}

/// The embedding that a folder without a text encoder brings.
fn stored(root: &Path, text: &str, width: i64, say: &mut dyn FnMut(&str, String)) -> Result<Tensor> {
    let path = root.join("null_prompt.safetensors");
    let encoder = root.join("text_encoder");
    if !text.is_empty() {
        bail!(
            "the prompt {text:?} needs a text encoder, and {} is not there\n\
             hint: leave `prompt` out, or take a folder with tokenizer and text_encoder",
            encoder.display()
        );
    }
    if !path.exists() {
        bail!(
            "neither {} nor {} is there: one of them has to tell what the empty prompt looks like to the unet\n\
             hint: take the whole folder of the model, with tokenizer and text_encoder",
            encoder.display(),
            path.display()
        );
    }
    let prompt = weights::read(&path)?
        .remove("null_prompt")
        .with_context(|| format!("{} holds no tensor `null_prompt`", path.display()))?;
    let size = prompt.size();
    if size.len() != 3 || size[0] != 1 || size[2] != width {
        bail!("{}: `null_prompt` is {size:?}, the unet takes [1, tokens, {width}]", path.display());
    }
    say("prompt", format!("the stored embedding of the empty text, {} tokens", size[1]));
    Ok(prompt)
}

impl LoadDiffusers {
    fn load(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let model = Model::open(&self.params)?;
        model.findings.iter().for_each(|finding| cx.log(finding));
        let [scheduler, prompt] = ["scheduler_config.json", "null_prompt.safetensors"].map(|name| cx.file(unit, name));
        backbone::write_config(&scheduler, &model.schedule.to_json())?;
        let tensors = BTreeMap::from([("null_prompt".to_owned(), model.prompt)]);
        weights::write(&prompt, &tensors, &BTreeMap::new(), Precision::Keep)?;

        let copy = |from: &Path, name: &str| -> Result<PathBuf> {
            let to = cx.file(unit, name);
            std::fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
            Ok(to)
        };
        let row = |name: &str, folder: &ModelFolder| -> Result<OutRow> {
            let weights_name = format!("{name}.safetensors");
            // later networks read one file of safetensors
            let weights = if folder.weights.extension().is_some_and(|extension| extension == "safetensors") {
                copy(&folder.weights, &weights_name)?
            } else {
                let to = cx.file(unit, &weights_name);
                weights::write(&to, &weights::read(&folder.weights)?, &BTreeMap::new(), Precision::Keep)?;
                to
            };
            Ok(OutRow::new()
                .str("component", name)
                .file("config", &copy(&folder.config_path, &format!("{name}_config.json"))?)
                .file("weights", &weights))
        };
        Ok(vec![
            row("vae", &model.vae)?,
            row("unet", &model.unet)?,
            OutRow::new().str("component", "scheduler").file("config", &scheduler),
            OutRow::new().str("component", "null_prompt").file("weights", &prompt),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(more: Value) -> Result<()> {
        let mut all = json!({ "_class_name": "DDPMScheduler", "clip_sample": false });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        check_schedule(&all, &ScheduleConfig::from_json(&all, "s.json").unwrap(), Path::new("s.json"))
    }

    #[test]
    fn a_schedule_has_times_and_variances() {
        checked(json!({})).unwrap();
        checked(json!({ "num_train_timesteps": 1, "beta_start": 0.5, "beta_end": 0.5 })).unwrap();
        // the cosine has no such ends
        checked(json!({ "beta_schedule": "squaredcos_cap_v2", "beta_end": 2.0 })).unwrap();
        let wrong = [
            (json!({ "num_train_timesteps": 0 }), "field `num_train_timesteps`: found 0, expected an integer from 1"),
            (json!({ "beta_end": -5 }), "field `beta_end`: found -5, expected a variance above 0"),
            (json!({ "beta_start": 0.0 }), "field `beta_start`: found 0, expected a variance above 0"),
            (json!({ "beta_end": 1.0 }), "field `beta_end`: found 1, expected a variance above 0 and below 1"),
            (json!({ "beta_start": 0.2, "beta_end": 0.1 }), "found 0.1, expected at least `beta_start`, which is 0.2"),
        ];
        for (more, part) in wrong {
            let error = checked(more).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("s.json") && error.contains("hint:"), "{error}");
        }
    }
}
