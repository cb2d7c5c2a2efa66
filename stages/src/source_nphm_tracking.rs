//! `source_nphm_tracking`: the NPHM fits of a capture in the reference's layout D, a row per tracked frame.
//!
//! no rows in   writes: participant, sequence, timestep, expression, tracked_mesh? (OpenCTM), tracked_canonical?
//!
//! Joined with the frames of a capture they condition an avatar on the reference's own tracking. Meshes stay as they
//! lie there, in NPHM space and without a place in the world: `import_tracked_mesh` brings them there. Knows where
//! things lie, and no pictures.

use crate::common::faults::hinted;
use anyhow::Result;
use datasets::nphm_tracking;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The folder that holds `nersemble/`.
    path: PathBuf,
}

fn def() -> StageDef {
    StageDef::new("source_nphm_tracking", 3, Grain::Whole)
        .doc("Lists the expression codes and the meshes of a capture in DiffusionAvatars' layout.")
        .source()
        .file_param("path")
        .writes([("participant", Type::I64), ("sequence", Type::Str), ("timestep", Type::I64)])
        .writes([("expression", Type::Floats(0)), ("tracked_mesh", Type::Blob), ("tracked_canonical", Type::Blob)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(SourceNphmTracking { params }));

struct SourceNphmTracking {
    params: Params,
}

impl Stage for SourceNphmTracking {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|_| self.list(cx)).collect()
    }
}

impl SourceNphmTracking {
    fn list(&self, cx: &Cx<'_>) -> Result<Rows> {
        let root = &self.params.path;
        let frames = nphm_tracking::list(root).map_err(hinted)?;
        let mut rows = Rows::new();
        for (at, frame) in frames.iter().enumerate() {
            let code = nphm_tracking::read_expression(&root.join(frame.expression())).map_err(hinted)?;
            let row = OutRow::new().i64("participant", frame.participant).str("sequence", &frame.sequence);
            let mut row = row.i64("timestep", frame.timestep).floats("expression", code);
            for (column, file) in [("tracked_mesh", frame.mesh()), ("tracked_canonical", frame.canonical())] {
                let file = root.join(file);
                if file.is_file() {
                    row = row.file(column, &file);
                }
            }
            rows.push(row);
            if at % 100 == 0 {
                cx.progress(at, frames.len(), "");
            }
        }
        Ok(rows)
    }
}
