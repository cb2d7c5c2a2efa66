//! What is kept of a trained avatar beside its weights: the parameters it was trained with, and how its codes are
//! normalised.
//!
//! No stage, but the common ground of `train_avatar`, which writes a description, and `render_avatar`, which builds the
//! network again from it. Knows neither losses nor samplers.

use crate::common::avatar_parameters::{Params, Posterior};
use crate::common::backbone;
use anyhow::{Context, Result};
use manifests::Type;
use models::avatar::Avatar;
use models::unet::UNetConfig;
use models::{runtime, weights};
use protocol::{Row, Table};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tch::Tensor;

/// An avatar's description on disk: enough to build the network again beside its backbone.
#[derive(Serialize, Deserialize)]
pub struct Description {
    /// The parameters it was trained with.
    params: Params,
    /// Length of the expression code.
    code: i64,
    /// Mean of each value of the code over the training set, subtracted before use; 0 for raw codes.
    code_mean: Vec<f64>,
    /// Its deviation, divided by; 1 for raw codes.
    code_std: Vec<f64>,
    /// Whom it shows, where rows said so; each has feature maps of their own.
    participants: Vec<i64>,
}

impl Description {
    /// Describes what is to be trained on some rows: the length, mean and deviation of their codes, and whom they show.
    ///
    /// # Errors
    /// If codes are of different lengths, or only some rows say whom they show.
    pub fn of(params: &Params, rows: &[Row<'_>]) -> Result<Description> {
        let codes = rows.iter().map(|row| params.code(row)).collect::<Result<Vec<_>>>()?;
        let n = codes[0].len();
        anyhow::ensure!(codes.iter().all(|code| code.len() == n), "expression codes are of different lengths");
        let (mean, std) = params.scales(&codes);
        // all rows say whom they show, or none counts
        let participants: BTreeSet<i64> = rows
            .iter()
            .filter(|row| row.has("participant"))
            .map(|row| row.i64("participant"))
            .collect::<Result<_>>()?;
        let silent = rows.iter().any(|row| !row.has("participant"));
        anyhow::ensure!(
            participants.len() < 2 || !silent,
            "some rows do not say whom they show, and others show {} people\nhint: fill the column `participant`, or leave it out",
            participants.len()
        );
        Ok(Description {
            params: params.clone(),
            code: n as i64,
            code_mean: mean,
            code_std: std,
            participants: participants.into_iter().collect(),
        })
    }

    /// Builds the avatar on a backbone, with its initial weights.
    pub fn build(&self, backbone: &Table) -> Result<Avatar> {
        let unet = backbone::component(backbone, "unet")?;
        let unet_config = UNetConfig::from_json(&weights::read_json(&unet.path("config")?)?, "unet/config.json")?;
        backbone::ensure_of_one_kind(backbone, &unet_config)?;
        let schedule = backbone::load_schedule(backbone)?.config;
        let prior = weights::read(&unet.path("weights")?)?;
        let text = backbone::load_null_prompt(backbone)?;
        let config = self.params.config(unet_config, schedule, self.code, self.participants.len().max(1));
        Ok(Avatar::new(&config, &prior, &text, self.params.seed, runtime::device())?)
    }

    /// Widths of the condition encoder, which halves G-buffers once less often.
    pub fn encoder_widths(&self) -> usize {
        self.params.encoder_channels.len()
    }

    /// Share of its deviation that a code is disturbed by in training.
    pub fn code_noise(&self) -> f64 {
        self.params.code_noise
    }

    /// What of the latents' posteriors is learned.
    pub fn posterior(&self) -> Posterior {
        self.params.posterior
    }

    /// Whose feature maps each of some rows is looked up in. An avatar of one person has no others, whatever a row
    /// says.
    pub fn whose(&self, rows: &[Row<'_>]) -> Result<Vec<usize>> {
        let known = &self.participants;
        if known.len() < 2 {
            return Ok(Vec::new());
        }
        let place = |row: &Row<'_>| -> Result<usize> {
            let participant = row.i64("participant").context("an avatar of several people has to know whom to show")?;
            known.iter().position(|known| *known == participant).with_context(|| {
                let known = known.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
                format!("the avatar has no feature maps of participant {participant}; it was trained on {known}")
            })
        };
        rows.iter().map(place).collect()
    }

    /// Codes of some rows, normalised, `[B, code]`.
    pub fn codes(&self, rows: &[Row<'_>]) -> Result<Tensor> {
        let mut flat = Vec::new();
        for row in rows {
            let code = self.params.code(row)?;
            anyhow::ensure!(
                code.len() as i64 == self.code,
                "the expression code has {} values, the avatar was trained with {}",
                code.len(),
                self.code
            );
            let scaled = code.iter().zip(&self.code_mean).zip(&self.code_std).map(|((v, mean), std)| (v - mean) / std);
            flat.extend(scaled.map(|value| value as f32));
        }
        Ok(Tensor::from_slice(&flat).view([rows.len() as i64, self.code]))
    }
}

/// The columns of a trained avatar.
pub const TRAINED: [(&str, Type); 2] = [("config", Type::Blob), ("checkpoint", Type::Blob)];

/// The avatar that `train_avatar` put out, on its backbone.
///
/// # Errors
/// If its files are not those of an avatar, or of one on another backbone.
pub fn trained(avatar: &Table, backbone: &Table) -> Result<(Description, Avatar)> {
    let trained = avatar.only().context("`avatar` is what train_avatar puts out")?;
    let path = trained.path("config")?;
    let description: Description = serde_json::from_slice(&std::fs::read(&path)?)
        .with_context(|| format!("{} does not describe an avatar", path.display()))?;
    let avatar = description.build(backbone)?;
    avatar.restore(&weights::read(&trained.path("checkpoint")?)?, "the avatar's checkpoint")?;
    Ok((description, avatar))
}
