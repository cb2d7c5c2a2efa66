//! `animate`: a person's face moved by another's: the expression codes and head poses of a tracked driver on this
//! identity (cross-reenactment).
//!
//! reads: participant, timestep, expression, pose, lost?; with head_model, person (the avatar's), rest (one tracked row
//! of the avatar's person)
//! writes: participant, driver, mesh, expression, pose
//!
//! A group is a sequence of the driver, who was tracked with the same head model. A row comes out for each frame, as
//! `track_head` would put it out for the avatar's person: the surface of this identity with the driver's expression.
//! What else a row has, such as gaze (`eyes`, relative to the head), goes along as it is.
//!
//! The paper copies expression codes plainly (`transfer: copy`). A code holds for the person it was fitted to: what
//! tracking could not explain by the identity, and a face that is never quite neutral, are in it too, and move to the
//! avatar. `transfer: change` adds to the avatar's code at rest how the driver's differs from the driver's first frame
//! that was not lost: better where that is a neutral face, worse where it is not.
//!
//! The pose is that of `rest`, followed by the driver's motion since the first frame, in the head's own frame: the
//! avatar turns as the driver does, from where the avatar's person was filmed. `motion: none` keeps it still, `motion:
//! world` copies the driver's pose. Knows no images.

use crate::common::fit_defaults::{coarse, levels};
use crate::common::head_models::{self, Person};
use crate::common::timesteps::in_time;
use crate::common::tracked;
use anyhow::{Context, Result, ensure};
use glam::{DMat4, DQuat, DVec3};
use manifests::Type;
use models::nphm::field::HeadModel;
use models::nphm::pose::Pose;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// What of the driver's expression codes the avatar takes.
    #[serde(default)]
    transfer: Transfer,
    /// What of the driver's head poses.
    #[serde(default)]
    motion: Motion,
    /// Grid points on a side of the coarse grid on which the surface is sought.
    #[serde(default = "coarse")]
    #[schemars(range(min = 2, max = 512))]
    coarse: usize,
    /// How often the grid is halved around the surface.
    #[serde(default = "levels")]
    #[schemars(range(max = 5))]
    levels: u32,
}

/// What of the driver's expression codes the avatar takes.
#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Transfer {
    /// The code (the paper).
    #[default]
    Copy,
    /// The change since the first frame.
    Change,
}

/// What of the driver's head poses the avatar takes.
#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Motion {
    /// The motion since the first frame.
    #[default]
    Relative,
    /// Nothing.
    None,
    /// The pose in the world.
    World,
}

fn def() -> StageDef {
    StageDef::new("animate", 4, Grain::Group)
        .doc("Moves a person's head model by the tracked expressions and poses of another.")
        .reads([("participant", Type::I64), ("timestep", Type::I64)])
        .reads([("expression", Type::Floats(0)), ("pose", Type::Floats(6))])
        .may_read([("lost", Type::Bool)])
        .with("head_model", head_models::COLUMNS)
        .with("person", [("participant", Type::I64), ("person", Type::Blob)])
        .with("rest", [("expression", Type::Floats(0)), ("pose", Type::Floats(6))])
        .writes([("participant", Type::I64), ("driver", Type::I64)])
        .writes([("mesh", Type::Blob), ("expression", Type::Floats(0)), ("pose", Type::Floats(6))])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    head_models::check_grid(params.coarse, params.levels)?;
    let rest = cx.with("rest")?.only();
    let rest = rest.context("`rest` is one tracked frame of the avatar's person\nhint: a `select:` with `limit: 1`")?;
    let participant =
        cx.with("person")?.only().context("`person` is what fit_identity puts out")?.i64("participant")?;
    let (model, rest) = (head_models::read(cx.with("head_model")?)?, Moved::read(&rest, "the rest")?);
    anyhow::Ok(Animate { params, person: Person::of(cx)?, participant, model, rest })
});

struct Animate {
    params: Params,
    model: HeadModel,
    person: Person,
    participant: i64,
    rest: Moved,
}

/// A tracked frame.
#[derive(Clone)]
struct Moved {
    code: Vec<f64>,
    /// Head to world, metres.
    pose: DMat4,
}

impl Moved {
    fn read(row: &Row<'_>, whose: &str) -> Result<Moved> {
        let pose: [f64; 6] = row.array("pose")?;
        let code = row.floats("expression")?;
        let finite = code.iter().chain(&pose).all(|value| value.is_finite());
        ensure!(finite, "the expression code or the pose of {whose} is not finite");
        let turn = DQuat::from_scaled_axis(DVec3::from_slice(&pose[..3]));
        Ok(Moved { code, pose: DMat4::from_rotation_translation(turn, DVec3::from_slice(&pose[3..])) })
    }
}

impl Stage for Animate {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.animate(unit, cx)).collect()
    }
}

impl Animate {
    fn animate(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let rows = unit.rows();
        let order = in_time(&rows)?;
        let moved = rows.iter().map(|row| Moved::read(row, "the driver")).collect::<Result<Vec<_>>>()?;
        // what a lost frame says of the head is what the tracker began with
        let lost = |i: usize| -> Result<bool> { Ok(rows[i].has("lost") && rows[i].bool("lost")?) };
        let mut first = order.first().context("a sequence of no frames")?.1;
        for (_, i) in &order {
            if !lost(*i)? {
                first = *i;
                break;
            }
        }
        let first = &moved[first];
        let mut out = Rows::new();
        for (timestep, i) in order.iter().copied() {
            let frame = follow(p.transfer, p.motion, &self.rest, first, &moved[i]);
            ensure!(
                frame.code.len() as i64 == self.model.config.deformation.d_ex,
                "the driver's expression code has {} values, the head model's have {}\n\
                 hint: the driver is to be tracked with the head model of the avatar",
                frame.code.len(),
                self.model.config.deformation.d_ex
            );
            let z_ex: Vec<f32> = frame.code.iter().map(|value| *value as f32).collect();
            let (_, turn, shift) = frame.pose.to_scale_rotation_translation();
            let pose = Pose { rotation: turn.to_scaled_axis().to_array(), translation: shift.to_array() };
            let (mesh, canonical) = head_models::posed(&self.model, &self.person, &z_ex, &pose, p.coarse, p.levels)
                .with_context(|| format!("timestep {timestep}"))?;
            let path = cx.file(unit, &format!("{timestep:05}.ply"));
            tracked::write_mesh(&path, &mesh, &canonical)?;
            let row = OutRow::of(i)
                .i64("participant", self.participant)
                .i64("driver", rows[i].i64("participant")?)
                .file("mesh", &path)
                .floats("expression", frame.code)
                .floats("pose", pose.rotation.into_iter().chain(pose.translation));
            out.push(row);
            cx.progress(out.len(), order.len(), "");
        }
        Ok(out)
    }
}

/// The avatar's frame for the driver's, who began with `first`.
fn follow(transfer: Transfer, motion: Motion, rest: &Moved, first: &Moved, driver: &Moved) -> Moved {
    let changed =
        || rest.code.iter().zip(&first.code).zip(&driver.code).map(|((rest, first), now)| rest + (now - first));
    let code = match transfer {
        Transfer::Copy => driver.code.clone(),
        Transfer::Change => changed().collect(),
    };
    let pose = match motion {
        Motion::Relative => rest.pose * (first.pose.inverse() * driver.pose),
        Motion::None => rest.pose,
        Motion::World => driver.pose,
    };
    Moved { code, pose }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(code: [f64; 2], angle: f64, shift: [f64; 3]) -> Moved {
        let pose = DMat4::from_rotation_translation(DQuat::from_rotation_y(angle), DVec3::from_array(shift));
        Moved { code: code.to_vec(), pose }
    }

    #[test]
    fn the_avatar_starts_at_rest_and_turns_by_the_drivers_angle_in_its_own_frame() {
        let rest = frame([1.0, 2.0], 0.5, [0.0, 0.1, 0.0]);
        let first = frame([0.5, 0.5], -0.3, [0.2, 0.0, 0.0]);
        let (copy, change) = (Transfer::Copy, Transfer::Change);
        let begun = follow(change, Motion::Relative, &rest, &first, &first);
        assert_eq!(begun.code, rest.code);
        assert!(begun.pose.abs_diff_eq(rest.pose, 1e-12));

        // the driver turns by 0.2 and goes 1 cm to where the head looked
        let ahead = DVec3::new((-0.3f64).sin(), 0.0, (-0.3f64).cos()) * 0.01;
        let later = frame([0.75, 0.0], -0.1, (DVec3::new(0.2, 0.0, 0.0) + ahead).to_array());
        let moved = follow(change, Motion::Relative, &rest, &first, &later);
        assert_eq!(moved.code, [1.25, 1.5]);
        let own = DVec3::new(0.0, 0.1, 0.0) + DVec3::new(0.5f64.sin(), 0.0, 0.5f64.cos()) * 0.01;
        assert!(moved.pose.abs_diff_eq(frame([0.0; 2], 0.7, own.to_array()).pose, 1e-12));

        assert_eq!(follow(copy, Motion::None, &rest, &first, &later).code, later.code);
        assert_eq!(follow(copy, Motion::None, &rest, &first, &later).pose, rest.pose);
        assert_eq!(follow(copy, Motion::World, &rest, &first, &later).pose, later.pose);
    }
}
