//! The pre-trained latent diffusion model as rows: `component` (vae, unet, scheduler, null_prompt), `config`,
//! `weights`.
//!
//! No stage, but what `load_diffusers`, `train_vae` and `train_prior` put out and all later networks take in. Knows the
//! diffusers folder layout, and not where a model comes from.

use anyhow::{Context, Result, bail, ensure};
use manifests::Type;
use models::runtime;
use models::schedule::{Schedule, ScheduleConfig};
use models::unet::UNetConfig;
use models::vae::{Vae, VaeConfig};
use models::weights;
use protocol::{Row, Table};
use std::path::Path;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// The columns of a component.
pub const COLUMNS: [(&str, Type); 3] = [("component", Type::Str), ("config", Type::Blob), ("weights", Type::Blob)];

/// The row of a component.
///
/// # Errors
/// If the table has none; the sentence says how the recipe should provide it.
pub fn component<'a>(table: &'a Table, name: &str) -> Result<Row<'a>> {
    for row in table.rows() {
        if row.str("component")? == name {
            return Ok(row);
        }
    }
    let found = table.rows().map(|row| row.str("component")).collect::<Result<Vec<_>>>()?.join(", ");
    bail!("the backbone has no `{name}` (found: {found}); it takes vae, unet, scheduler and null_prompt")
}

/// The auto-encoder, frozen, with its weights.
pub fn load_vae(table: &Table) -> Result<(VarStore, Vae)> {
    let row = component(table, "vae")?;
    let config = VaeConfig::from_json(&weights::read_json(&row.path("config")?)?, "vae/config.json")?;
    let mut vs = VarStore::new(runtime::device());
    let vae = Vae::new(&vs.root(), &config);
    weights::load(&vs, &row.path("weights")?).context("the vae does not fit its config")?;
    vs.freeze();
    Ok((vs, vae))
}

/// Checks that a U-Net takes the latents that the backbone's auto-encoder gives.
///
/// # Errors
/// If they have another number of channels.
pub fn ensure_of_one_kind(table: &Table, unet: &UNetConfig) -> Result<()> {
    let config = component(table, "vae")?.path("config")?;
    let latents = VaeConfig::from_json(&weights::read_json(&config)?, "vae/config.json")?.latent_channels;
    ensure!(
        unet.in_channels == latents,
        "the backbone's U-Net takes latents of {} channels, and its auto-encoder gives {latents}\n\
         hint: a backbone's parts have to come from one model",
        unet.in_channels
    );
    Ok(())
}

/// The noise schedule.
pub fn load_schedule(table: &Table) -> Result<Schedule> {
    let row = component(table, "scheduler")?;
    let config = ScheduleConfig::from_json(&weights::read_json(&row.path("config")?)?, "scheduler_config.json")?;
    Ok(Schedule::new(&config))
}

/// The embedding of the empty prompt `[1, tokens, width]`.
pub fn load_null_prompt(table: &Table) -> Result<Tensor> {
    let path = component(table, "null_prompt")?.path("weights")?;
    let mut tensors = weights::read(&path)?;
    let prompt = tensors.remove("null_prompt").with_context(|| format!("{} holds no `null_prompt`", path.display()))?;
    Ok(prompt.to_kind(Kind::Float))
}

/// Writes a component's config.
pub fn write_config(path: &Path, config: &serde_json::Value) -> Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(config)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))
}
