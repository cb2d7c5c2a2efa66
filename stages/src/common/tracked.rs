//! The tracked mesh on disk: a PLY with, for every vertex, its canonical position and two ambient coordinates.
//!
//! No stage, but what `track_head` puts out and `raster_gbuffer` and the scores take in. Positions are metres in the
//! world frame; canonical coordinates are NPHM units (1 unit = 25 cm), as the 5-d point at which the head model is
//! queried.

use anyhow::{Context, Result};
use geometry::Mesh;
use geometry::ply;
use std::path::Path;

/// Names of the vertex properties.
const CANONICAL: [&str; 5] = ["canonical_x", "canonical_y", "canonical_z", "ambient_0", "ambient_1"];

/// Writes a tracked mesh.
///
/// # Errors
/// If the file cannot be written.
pub fn write_mesh(path: &Path, mesh: &Mesh, canonical: &[[f32; 5]]) -> Result<()> {
    let columns: [Vec<f32>; 5] = std::array::from_fn(|i| canonical.iter().map(|c| c[i]).collect());
    let properties: [(&str, &[f32]); 5] = std::array::from_fn(|i| (CANONICAL[i], columns[i].as_slice()));
    Ok(ply::write_mesh(path, mesh, &properties)?)
}

/// Reads a tracked mesh.
///
/// # Errors
/// If the file is missing, damaged or lacks a property; the message names it.
pub fn read_mesh(path: &Path) -> Result<(Mesh, Vec<[f32; 5]>)> {
    let ply = ply::read(path)?;
    let mut canonical = vec![[0.0; 5]; ply.mesh.positions.len()];
    for (i, name) in CANONICAL.iter().enumerate() {
        let values = ply
            .property(name)
            .with_context(|| format!("{} has no vertex property `{name}`: it is no tracked mesh", path.display()))?;
        canonical.iter_mut().zip(values).for_each(|(c, value)| c[i] = *value);
    }
    Ok((ply.mesh, canonical))
}
