//! `source_nersemble`: the recordings of a NeRSemble download (layout A), a row per video.
//!
//! no rows in   writes: participant, sequence, camera, video, matte_video, intrinsics, world_to_cam, width, height
//!
//! Intrinsics are for images of `width x height` px, which is the size they were calibrated at. Knows where things lie, not
//! what they show.

use anyhow::{Context, Result};
use datasets::nersemble::{self, LayoutError};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The folder that holds the participants' folders.
    path: PathBuf,
    /// Width and height of the images that the calibration is for, px.
    #[serde(default = "calibrated_size")]
    calibrated_size: (u32, u32),
}

/// NeRSemble's cameras.
fn calibrated_size() -> (u32, u32) {
    (2200, 3208)
}

/// What is known of a recording besides participant and sequence.
pub const COLUMNS: [(&str, Type); 7] = [
    ("camera", Type::Str),
    ("video", Type::Blob),
    ("matte_video", Type::Blob),
    ("intrinsics", Type::Floats(9)),
    ("world_to_cam", Type::Floats(16)),
    ("width", Type::I64),
    ("height", Type::I64),
];

fn def() -> StageDef {
    StageDef::new("source_nersemble", 1, Grain::Whole)
        .doc("Lists the recordings of a NeRSemble download.")
        .source()
        .file_param("path")
        .writes([("participant", Type::I64), ("sequence", Type::Str)])
        .writes(COLUMNS)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(SourceNersemble { params }));

struct SourceNersemble {
    params: Params,
}

impl Stage for SourceNersemble {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        let list = || -> Result<Rows> {
            rows(&self.params.path, Some(self.params.calibrated_size))?
                .into_iter()
                .map(|(recording, row)| {
                    let participant: i64 = recording.participant.parse().context("a participant's folder is a number")?;
                    Ok(row.i64("participant", participant).str("sequence", recording.sequence))
                })
                .collect()
        };
        units.iter().map(|_| list()).collect()
    }
}

/// All recordings below a folder, each with its row of [`COLUMNS`].
///
/// # Errors
/// If there are none, or a calibration is unreadable or lacks a camera.
pub fn rows(root: &Path, calibrated_size: Option<(u32, u32)>) -> Result<Vec<(nersemble::Recording, OutRow)>> {
    let (width, height) = calibrated_size.unwrap_or_else(self::calibrated_size);
    let mut calibrations = BTreeMap::new();
    let mut rows = Vec::new();
    let hinted = |error: LayoutError| anyhow::anyhow!("{error}\nhint: {}", error.hint());
    for recording in nersemble::list(root).map_err(hinted)? {
        if !calibrations.contains_key(&recording.calibration) {
            let calibration = nersemble::read_calibration(&recording.calibration).map_err(hinted)?;
            calibrations.insert(recording.calibration.clone(), calibration);
        }
        let camera = calibrations[&recording.calibration].get(&recording.camera).with_context(|| {
            format!(
                "{} has no camera {}, which has a video\nhint: is it the calibration of this participant?",
                recording.calibration.display(),
                recording.camera
            )
        })?;
        let mut row = OutRow::new()
            .str("camera", &recording.camera)
            .file("video", &recording.video)
            .floats("intrinsics", camera.intrinsics)
            .floats("world_to_cam", camera.world_to_cam)
            .i64("width", width)
            .i64("height", height);
        if let Some(alpha) = &recording.alpha {
            row = row.file("matte_video", alpha);
        }
        rows.push((recording, row));
    }
    Ok(rows)
}
