//! `source_nphm_tracking`: the expression codes of a capture in the reference's layout D, a row per tracked frame.
//!
//! no rows in   writes: participant, sequence, timestep, expression
//!
//! Joined with the frames of a capture they condition an avatar on the reference's own tracking. Meshes are not read here:
//! the way from their space to the world is FLAME's. Knows where things lie.

use anyhow::{Result, anyhow};
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
    StageDef::new("source_nphm_tracking", 1, Grain::Whole)
        .doc("Lists the expression codes of a capture in DiffusionAvatars' layout.")
        .source()
        .file_param("path")
        .writes([("participant", Type::I64), ("sequence", Type::Str), ("timestep", Type::I64)])
        .writes([("expression", Type::Floats(0))])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(SourceNphmTracking { params }));

struct SourceNphmTracking {
    params: Params,
}

impl Stage for SourceNphmTracking {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        let list = || -> Result<Rows> {
            let hinted = |error: datasets::rendering_data::ExchangeError| anyhow!("{error}\nhint: {}", error.hint());
            let mut rows = Rows::new();
            for frame in nphm_tracking::list(&self.params.path).map_err(hinted)? {
                let code =
                    nphm_tracking::read_expression(&self.params.path.join(frame.expression())).map_err(hinted)?;
                let row = OutRow::new().i64("participant", frame.participant).str("sequence", frame.sequence);
                rows.push(row.i64("timestep", frame.timestep).floats("expression", code));
            }
            Ok(rows)
        };
        units.iter().map(|_| list()).collect()
    }
}
