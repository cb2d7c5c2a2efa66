//! Head models and people on disk: what `train_head_model` and `fit_identity` put out and the tracker takes in.
//!
//! No stage. A head model is a JSON of its dimensions and a safetensors of its weights and mean anchors; a person is a
//! JSON of an identity code and the size of the head. Knows the networks' names, not their mathematics.

use anyhow::{Context, Result};
use geometry::cloud::PointCloud;
use glam::Vec3;
use manifests::Type;
use models::nphm::config::HeadConfig;
use models::nphm::field::HeadModel;
use models::nphm::fit::Cloud;
use models::weights;
use protocol::Table;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Device;

/// The columns of a head model.
pub const COLUMNS: [(&str, Type); 2] = [("head_config", Type::Blob), ("head_weights", Type::Blob)];

/// Where the centre of a head lies in model space: FLAME's origin is in the front of the neck's top, so the published
/// extraction box and the ranges of the canonical quantiser hold.
pub const HEAD_CENTER: [f32; 3] = [0.0, 0.1, -0.25];

/// The box in which a surface is sought, model units: the published extraction box, higher by a tall head's crown and lower
/// by the neck.
pub const BOX: [[f32; 3]; 2] = [[-0.6, -0.6, -0.95], [0.6, 0.9, 0.4]];

/// Writes a head model.
///
/// # Errors
/// If a file cannot be written.
pub fn write(config: &Path, file: &Path, model: &HeadModel) -> Result<()> {
    std::fs::write(config, serde_json::to_string_pretty(&model.config)? + "\n")
        .with_context(|| format!("cannot write {}", config.display()))?;
    Ok(weights::write(file, &model.tensors(), &BTreeMap::new(), weights::Precision::Keep)?)
}

/// Reads the head model of a table's only row, frozen.
///
/// # Errors
/// If a file is missing, or the weights do not fit the dimensions.
pub fn read(table: &Table) -> Result<HeadModel> {
    let row = table.only().context("a head model is one row")?;
    let path = row.path("head_config")?;
    let config: HeadConfig = serde_json::from_slice(&std::fs::read(&path)?)
        .with_context(|| format!("{} does not describe a head model", path.display()))?;
    let path = row.path("head_weights")?;
    let tensors = weights::read(&path)?;
    let anchors = tensors.get("mean_anchors").with_context(|| format!("{} has no mean_anchors", path.display()))?;
    let mut model = HeadModel::new(&config, anchors, Device::Cpu)?;
    model.set_tensors(&tensors, &path.display().to_string())?;
    model.vs.freeze();
    Ok(model)
}

/// A person: what all their frames share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Person {
    /// Identity code.
    pub z_id: Vec<f32>,
    /// Size of the head relative to the model's.
    pub scale: f64,
}

/// A point cloud of a timestep as observations for a fit: subsampled, world metres.
pub fn observations(cloud: &PointCloud, points: usize) -> Cloud {
    // evenly spaced in the file's order, which is spatial enough; a fit draws its own random points from these
    let n = cloud.positions.len();
    let every = n.div_ceil(points.max(1)).max(1);
    let take = |values: &[Vec3]| values.iter().step_by(every).map(|v| v.to_array()).collect();
    Cloud { points: take(&cloud.positions), normals: take(&cloud.normals), outside: Vec::new() }
}
