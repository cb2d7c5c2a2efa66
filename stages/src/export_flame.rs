//! `export_flame`: head poses and gaze as the FLAME tracking that the reference code reads beside its NPHM fits, for
//! `effigy export`.
//!
//! reads: participant, sequence, timestep, pose, eyes?; with person
//! writes: participant, sequence, flame (npz), flame_path
//!
//! A row per sequence. Where our tracking puts the head is where FLAME's rotation, scale and translation put it:
//! `x_world = R (s x) + t` of FLAME's space, whose unit is 4 of NPHM's. Of FLAME's face there is nothing: shape,
//! expression and jaw are 0. `eyes` go along where all moments of a sequence have them. Rows of the file are in the
//! order of timesteps, which is how the reference finds them; so the folders of frames have to be those of the same
//! timesteps. Knows no meshes and no images.

use crate::common::faults::hinted;
use crate::common::head_models::Person;
use anyhow::{Context, Result, ensure};
use datasets::nersemble::{FlameFrame, write_flame};
use datasets::nphm_tracking;
use geometry::pose::rodrigues;
use glam::{DVec3, EulerRot};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Parameters: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

/// How many numbers FLAME has for the shape and for the expression.
const WIDTHS: [usize; 2] = [300, 100];

fn def() -> StageDef {
    StageDef::new("export_flame", 1, Grain::Whole)
        .doc("Writes head poses and gaze as the FLAME tracking of DiffusionAvatars' data.")
        .reads([("participant", Type::I64), ("sequence", Type::Str), ("timestep", Type::I64)])
        .reads([("pose", Type::Floats(6))])
        .may_read([("eyes", Type::Floats(6))])
        .with("person", [("person", Type::Blob)])
        .writes([("participant", Type::I64), ("sequence", Type::Str)])
        .writes([("flame", Type::Blob), ("flame_path", Type::Str)])
}

protocol::register!(Params, def, |_: Params, cx: &Cx<'_>| anyhow::Ok(ExportFlame { scale: Person::of(cx)?.scale }));

struct ExportFlame {
    scale: f64,
}

impl Stage for ExportFlame {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.export(unit, cx)).collect()
    }
}

impl ExportFlame {
    fn export(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        // rows of several cameras may be of one moment
        let mut sequences: BTreeMap<(u32, String), BTreeMap<u32, FlameFrame>> = BTreeMap::new();
        for row in unit.rows() {
            let (participant, sequence) = (number(&row, "participant")?, row.str("sequence")?);
            let eyes = if row.has("eyes") { Some(row.array("eyes")?) } else { None };
            let frame = placed(number(&row, "timestep")?, row.array("pose")?, self.scale, eyes);
            let timestep = frame.timestep;
            let of_sequence = sequences.entry((participant, sequence.clone())).or_default();
            let other = of_sequence.insert(timestep, frame).filter(|other| *other != of_sequence[&timestep]);
            ensure!(
                other.is_none(),
                "participant {participant}, sequence {sequence}, timestep {timestep}: rows have different poses\n\
                 hint: take the rows of one tracking"
            );
        }
        let mut rows = Rows::new();
        for ((participant, sequence), frames) in sequences {
            let frames: Vec<FlameFrame> = frames.into_values().collect();
            let without = frames.iter().filter(|frame| frame.eyes.is_none()).count();
            if (1..frames.len()).contains(&without) {
                cx.warn(&format!(
                    "participant {participant}, sequence {sequence}: {without} of {} moments have no `eyes`, so none are written",
                    frames.len()
                ));
            }
            let file = cx.file(unit, &format!("flame{}.npz", rows.len()));
            write_flame(&file, &frames).map_err(hinted)?;
            rows.push(
                OutRow::new()
                    .i64("participant", participant)
                    .str("flame_path", nphm_tracking::flame_path(participant, &sequence))
                    .str("sequence", sequence)
                    .file("flame", &file),
            );
        }
        Ok(rows)
    }
}

fn number(row: &Row<'_>, column: &str) -> Result<u32> {
    let value = row.i64(column)?;
    u32::try_from(value).with_context(|| format!("column `{column}` holds {value}, expected a number from 0"))
}

/// FLAME's neutral face where a pose of ours puts the head.
fn placed(timestep: u32, pose: [f64; 6], scale: f64, eyes: Option<[f64; 6]>) -> FlameFrame {
    let rotation = rodrigues(DVec3::from_slice(&pose[..3])).to_euler(EulerRot::XYZ);
    FlameFrame {
        timestep,
        shape: vec![0.0; WIDTHS[0]],
        expression: vec![0.0; WIDTHS[1]],
        rotation: rotation.into(),
        translation: [pose[3], pose[4], pose[5]],
        scale,
        jaw: [0.0; 3],
        neck: None,
        eyes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use geometry::pose::FlamePose;
    use models::nphm::pose::Pose;

    #[test]
    fn flame_puts_the_head_where_the_tracking_does() {
        let turn = [0.3, -0.7, 0.45];
        let frame = placed(3, [turn[0], turn[1], turn[2], 0.1, -0.2, 0.03], 1.1, Some([0.5; 6]));
        let flame = FlamePose {
            rotation: DVec3::from(frame.rotation),
            translation: DVec3::from(frame.translation),
            scale: DVec3::splat(frame.scale),
        };
        let pose = Pose { rotation: turn, translation: [0.1, -0.2, 0.03] };
        for local in [[0.3f32, -0.1, 0.5], [-0.4, 0.6, 0.0]] {
            let world = flame.nphm_to_world().transform_point3(glam::Vec3::from(local).as_dvec3());
            let expected = glam::Vec3::from(pose.to_world(local, 1.1));
            assert!((world.as_vec3() - expected).length() < 1e-6, "{world} is not {expected}");
        }
        assert_eq!((frame.timestep, frame.eyes), (3, Some([0.5; 6])));
    }
}
