//! `source_nersemble_flame`: the FLAME tracking that comes with a NeRSemble capture, a row per frame.
//!
//! no rows in   writes: participant, sequence, timestep, flame_shape, flame_expression, flame_rotation,
//! flame_translation (metres), flame_scale, flame_jaw, flame_neck?, eyes? (left, then right)
//!
//! `flame_rotation` is the head's, intrinsic XYZ Euler angles in radians, also where the file has Rodrigues vectors and
//! says so by its matrices; what turns within the head is as the file has it. Sequences of which nothing but the
//! tracking is there are listed too. A file that does not number its rows has them for the frames whose pictures are
//! there, in their order (DiffusionAvatars' data).
//!
//! Reads numbers; evaluates no head model.

use crate::common::faults::hinted;
use crate::common::recordings::{number, participant_of};
use anyhow::{Result, ensure};
use datasets::nersemble::{read_flame, survey};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The folder that holds the participants' folders, or the folder of one participant.
    path: PathBuf,
    /// The participant's number, if `path` is the folder of one.
    #[serde(default)]
    participant: Option<i64>,
}

fn def() -> StageDef {
    StageDef::new("source_nersemble_flame", 3, Grain::Whole)
        .doc("Lists the FLAME tracking that comes with a NeRSemble capture.")
        .source()
        .file_param("path")
        .writes([("participant", Type::I64), ("sequence", Type::Str), ("timestep", Type::I64)])
        .writes([("flame_shape", Type::Floats(0)), ("flame_expression", Type::Floats(0))])
        .writes([
            ("flame_rotation", Type::Floats(3)),
            ("flame_translation", Type::Floats(3)),
            ("flame_scale", Type::F64),
        ])
        .writes([("flame_jaw", Type::Floats(3)), ("flame_neck", Type::Floats(3)), ("eyes", Type::Floats(6))])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(SourceNersembleFlame { params }));

struct SourceNersembleFlame {
    params: Params,
}

impl Stage for SourceNersembleFlame {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|_| self.list()).collect()
    }
}

impl SourceNersembleFlame {
    fn list(&self) -> Result<Rows> {
        let mut rows = Rows::new();
        let one = participant_of(&self.params.path, self.params.participant)?;
        for person in survey(&self.params.path).map_err(hinted)? {
            let participant = one.map_or_else(|| number(&person.participant), Ok)?;
            for sequence in &person.sequences {
                let folder = person.folder.join("sequences").join(&sequence.name);
                for frame in read_flame(&folder).map_err(hinted)? {
                    let mut row = OutRow::new()
                        .i64("participant", participant)
                        .str("sequence", &sequence.name)
                        .i64("timestep", frame.timestep)
                        .floats("flame_shape", frame.shape)
                        .floats("flame_expression", frame.expression)
                        .floats("flame_rotation", frame.rotation)
                        .floats("flame_translation", frame.translation)
                        .f64("flame_scale", frame.scale)
                        .floats("flame_jaw", frame.jaw);
                    if let Some(neck) = frame.neck {
                        row = row.floats("flame_neck", neck);
                    }
                    if let Some(eyes) = frame.eyes {
                        row = row.floats("eyes", eyes);
                    }
                    rows.push(row);
                }
            }
        }
        ensure!(
            !rows.is_empty(),
            "there is no FLAME tracking in {}: found neither tracking/flame2023_tracking*.npz nor \
             annotations/tracking/FLAME2023_v2/tracked_flame_params.npz\nhint: `track_head` needs none",
            self.params.path.display()
        );
        Ok(rows)
    }
}
