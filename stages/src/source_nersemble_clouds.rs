//! `source_nersemble_clouds`: the point clouds that come with a NeRSemble capture, in place of stereo.
//!
//! no rows in   writes: participant, sequence, timestep, cloud (PLY: metres, normals, colours), points
//!
//! The benchmark's captures have a cloud for each frame (`pointclouds/frame_*.pcd`). Clouds without normals get them from
//! their neighbours, turned away from the head's inside. Knows no pictures.

use crate::source_nersemble::{hinted, number, participant_of};
use anyhow::{Context, Result, ensure};
use datasets::nersemble::survey;
use geometry::cloud::PointCloud;
use geometry::{pcd, ply};
use glam::Vec3;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The folder that holds the participants' folders, or the folder of one participant.
    path: PathBuf,
    /// The participant's number, if `path` is the folder of one.
    #[serde(default)]
    participant: Option<i64>,
    /// Take every n-th frame, the first included.
    #[serde(default = "every")]
    every: u32,
    /// Points are thinned to one in cubes of this side, metres; 0 keeps all.
    #[serde(default = "cell")]
    cell: f32,
    /// What is further from the origin of the world is left out, metres.
    #[serde(default = "radius")]
    radius: f32,
}

fn every() -> u32 {
    3
}
fn cell() -> f32 {
    0.002
}
fn radius() -> f32 {
    0.25
}

fn def() -> StageDef {
    StageDef::new("source_nersemble_clouds", 1, Grain::Whole)
        .doc("Lists the point clouds that come with a NeRSemble capture.")
        .source()
        .file_param("path")
        .writes([("participant", Type::I64), ("sequence", Type::Str), ("timestep", Type::I64)])
        .writes([("cloud", Type::Blob), ("points", Type::I64)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(SourceNersembleClouds { params }));

struct SourceNersembleClouds {
    params: Params,
}

impl Stage for SourceNersembleClouds {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.list(unit, cx)).collect()
    }
}

impl SourceNersembleClouds {
    fn list(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        ensure!(self.params.every > 0, "`every` must be at least 1");
        let mut rows = Rows::new();
        let one = participant_of(&self.params.path, self.params.participant)?;
        for person in survey(&self.params.path).map_err(hinted)? {
            let participant = one.map_or_else(|| number(&person.participant), Ok)?;
            for sequence in &person.sequences {
                let folder = person.folder.join("sequences").join(&sequence.name).join("pointclouds");
                for (timestep, path) in frames(&folder)? {
                    if timestep % self.params.every != 0 {
                        continue;
                    }
                    let cloud = self.read(&path)?;
                    let name = format!("{}_{}_{timestep:05}.ply", person.participant, sequence.name);
                    let to = cx.file(unit, &name);
                    ply::write_cloud(&to, &cloud)?;
                    let row = OutRow::new()
                        .i64("participant", participant)
                        .str("sequence", &sequence.name)
                        .i64("timestep", timestep)
                        .file("cloud", &to)
                        .i64("points", cloud.len());
                    rows.push(row);
                    cx.progress(rows.len(), rows.len(), &name);
                }
            }
        }
        ensure!(
            !rows.is_empty(),
            "there is no point cloud in {}: found no pointclouds/frame_*.pcd of a frame that is taken\n\
             hint: only the benchmark's captures come with clouds; `reconstruct_points` makes them from the frames",
            self.params.path.display()
        );
        Ok(rows)
    }

    fn read(&self, path: &Path) -> Result<PointCloud> {
        let cloud = if path.extension().is_some_and(|ext| ext == "ply") { ply::read_cloud(path)? } else { pcd::read_cloud(path)? };
        let near = self.params.radius * self.params.radius;
        let mut cloud = cloud.retain(|i| cloud.positions[i].length_squared() < near);
        ensure!(
            !cloud.is_empty(),
            "{}: none of its points is within {} m of the origin, where the head should be\n\
             hint: positions are metres in the world of the calibration; `radius` may be larger",
            path.display(),
            self.params.radius
        );
        if self.params.cell > 0.0 {
            cloud = cloud.voxel_subsample(self.params.cell);
        }
        if cloud.normals.is_empty() {
            cloud.estimate_normals(16);
            // from outside: of points on a head, the way from its middle
            let middle = cloud.positions.iter().sum::<Vec3>() / cloud.len() as f32;
            let positions = cloud.positions.clone();
            cloud.orient_normals(|i| positions[i] * 2.0 - middle);
        }
        Ok(cloud)
    }
}

/// The clouds of a folder by the number of their frame, sorted; none if there is no such folder.
fn frames(folder: &Path) -> Result<Vec<(u32, PathBuf)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|name| name.to_str()?.strip_prefix("frame_")?.parse().ok());
        if path.extension().is_some_and(|ext| ext == "pcd" || ext == "ply") {
            found.extend(number.map(|number| (number, path)));
        }
    }
    found.sort_unstable();
    Ok(found)
}
