//! `evaluate_poses`: how far tracked head poses are from the true ones, and how much they shake.
//!
//! reads: sequence, timestep, pose, head_pose
//! writes: pose_degrees, pose_mm, jitter_mm
//!
//! A group is a person tracked by one method. The head model's frame and the truth's differ by a constant rigid offset
//! that nobody knows. It is estimated from all frames of the group: with T the tracked pose, H the true motion of the
//! head, and c the centre of the head in the model's frame, its rotation is the entry-wise median of `H^-1 T`, brought
//! to the nearest rotation, and the centre at rest the median of `H^-1 T c`. What remains of each frame is its error:
//! `pose_degrees` the angle of the rotation, `pose_mm` the distance of the centres. A constant misplacement of the
//! whole head is therefore not seen here; `evaluate_tracking` sees that.
//!
//! `jitter_mm` is the root mean square second difference in time of (tracked centre - true centre) over the row's
//! sequence: the motion of the truth cancels. Triples of frames count whose timesteps are equally spaced; null where a
//! sequence has none. Reads no pictures and no meshes.

use crate::common::head_models::HEAD_CENTER;
use anyhow::{Context, Result};
use geometry::align::umeyama;
use glam::{DMat3, DMat4, DQuat, DVec3};
use manifests::{Type, Value};
use metrics::quantile::median;
use models::nphm::pose::UNITS_PER_METRE;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Parameters: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

fn def() -> StageDef {
    StageDef::new("evaluate_poses", 1, Grain::Group)
        .doc("Errors of tracked head poses after one constant offset per group, and their jitter.")
        .reads([("sequence", Type::Str), ("timestep", Type::I64)])
        .reads([("pose", Type::Floats(6)), ("head_pose", Type::Floats(16))])
        .writes([("pose_degrees", Type::F64), ("pose_mm", Type::F64), ("jitter_mm", Type::F64)])
}

protocol::register!(Params, def, |_: Params, _: &Cx<'_>| anyhow::Ok(EvaluatePoses));

struct EvaluatePoses;

impl Stage for EvaluatePoses {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(score).collect()
    }
}

/// One moment.
struct Moment {
    sequence: String,
    timestep: i64,
    tracked: DMat4,
    truth: DMat4,
}

/// What remains of a moment.
#[derive(Clone, Copy, Debug)]
struct Left {
    degrees: f64,
    /// Tracked minus true centre, world, metres.
    shift: DVec3,
}

fn score(unit: &Unit<'_>) -> Result<Rows> {
    let moment = |row: &protocol::Row<'_>| -> Result<Moment> {
        let pose: [f64; 6] = row.array("pose")?;
        let rotation = DQuat::from_scaled_axis(DVec3::from_slice(&pose[..3]));
        Ok(Moment {
            sequence: row.str("sequence")?,
            timestep: row.i64("timestep")?,
            tracked: DMat4::from_rotation_translation(rotation, DVec3::from_slice(&pose[3..])),
            truth: DMat4::from_cols_array(&row.array("head_pose")?).transpose(),
        })
    };
    let moments = unit.rows().iter().map(moment).collect::<Result<Vec<_>>>()?;
    let left = remaining(&moments)?;
    let mut jitters: BTreeMap<&str, Option<f64>> = BTreeMap::new();
    let mut row = |i: usize| {
        let sequence = moments[i].sequence.as_str();
        let jitter = *jitters.entry(sequence).or_insert_with(|| jitter(&moments, &left, sequence));
        OutRow::of(i)
            .f64("pose_degrees", left[i].degrees)
            .f64("pose_mm", left[i].shift.length() * 1000.0)
            .set("jitter_mm", jitter.map_or(Value::Null, |metres| Value::F64(metres * 1000.0)))
    };
    Ok((0..moments.len()).map(&mut row).collect())
}

/// What remains of each moment after the offset that explains most of all.
///
/// # Errors
/// If the rotations have no median: they point everywhere.
fn remaining(moments: &[Moment]) -> Result<Vec<Left>> {
    let center = DVec3::from(HEAD_CENTER.map(|v| f64::from(v) / UNITS_PER_METRE));
    let offsets: Vec<DMat4> = moments.iter().map(|m| m.truth.inverse() * m.tracked).collect();
    let middle = |values| median(values).expect("a group has moments");
    let entry = |i: usize| middle(offsets.iter().map(|o| DMat3::from_mat4(*o).to_cols_array()[i]).collect());
    let rotation = nearest_rotation(DMat3::from_cols_array(&std::array::from_fn(entry)))?;
    let coordinate = |i: usize| middle(offsets.iter().map(|o| o.transform_point3(center)[i]).collect());
    let at_rest = DVec3::from_array(std::array::from_fn(coordinate));
    let left = |m: &Moment| {
        let expected = DQuat::from_mat4(&m.truth) * rotation;
        let turn = expected.inverse() * DQuat::from_mat4(&m.tracked);
        let shift = m.tracked.transform_point3(center) - m.truth.transform_point3(at_rest);
        // of the sine: an arc cosine loses small angles
        Left { degrees: (2.0 * turn.xyz().length().atan2(turn.w.abs())).to_degrees(), shift }
    };
    Ok(moments.iter().map(left).collect())
}

/// The rotation nearest to a matrix (Frobenius): what best turns the axes, and their opposites, to where the matrix
/// sends them.
fn nearest_rotation(matrix: DMat3) -> Result<DQuat> {
    let axes = [DVec3::X, DVec3::Y, DVec3::Z].map(|axis| [axis, -axis]);
    let turned: Vec<DVec3> = axes.as_flattened().iter().map(|axis| matrix * *axis).collect();
    let fit = umeyama(axes.as_flattened(), &turned, None, false);
    Ok(fit.context("tracked and true head poses have no offset in common")?.rotation)
}

/// Root mean square second difference of the errors of a sequence, metres.
fn jitter(moments: &[Moment], left: &[Left], sequence: &str) -> Option<f64> {
    let mut frames: Vec<(i64, DVec3)> =
        moments.iter().zip(left).filter(|(m, _)| m.sequence == sequence).map(|(m, l)| (m.timestep, l.shift)).collect();
    frames.sort_by_key(|(timestep, _)| *timestep);
    let squares: Vec<f64> = frames
        .windows(3)
        .filter(|w| w[1].0 - w[0].0 == w[2].0 - w[1].0)
        .map(|w| (w[2].1 - 2.0 * w[1].1 + w[0].1).length_squared())
        .collect();
    (!squares.is_empty()).then(|| (squares.iter().sum::<f64>() / squares.len() as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head that nods and turns, tracked with a constant offset.
    fn moments() -> Vec<Moment> {
        let offset = DMat4::from_rotation_translation(
            DQuat::from_scaled_axis(DVec3::new(0.05, -0.1, 0.02)),
            DVec3::new(0.0, -0.03, 0.05),
        );
        let truth = |t: i64| {
            let t = t as f64;
            let turn = DQuat::from_scaled_axis(DVec3::new(0.2 * t.sin(), 0.4 * (0.7 * t).cos(), 0.1 * t.cos()));
            DMat4::from_rotation_translation(turn, DVec3::new(0.01 * t, 0.02 * t.sin(), 0.0))
        };
        let moment = |t| Moment {
            sequence: (if t < 7 { "a" } else { "b" }).into(),
            timestep: t,
            tracked: truth(t) * offset,
            truth: truth(t),
        };
        (0..14).map(moment).collect()
    }

    fn center() -> DVec3 {
        DVec3::from(HEAD_CENTER.map(|v| f64::from(v) / UNITS_PER_METRE))
    }

    #[test]
    fn a_constant_offset_is_no_error() {
        let moments = moments();
        for left in remaining(&moments).unwrap() {
            assert!(left.degrees < 1e-6 && left.shift.length() < 1e-9, "{left:?}");
        }
    }

    #[test]
    fn one_frame_that_is_off_is_told_by_degrees_and_millimetres() {
        let mut moments = moments();
        // turned by three degrees about the centre of the head, which goes 4 mm aside
        let turn = DMat4::from_quat(DQuat::from_rotation_x(3f64.to_radians()));
        let about = DMat4::from_translation(center()) * turn * DMat4::from_translation(-center());
        moments[4].tracked = DMat4::from_translation(DVec3::new(0.0, 0.004, 0.0)) * moments[4].tracked * about;
        let left = remaining(&moments).unwrap();
        assert!((left[4].degrees - 3.0).abs() < 1e-6 && (left[4].shift.length() - 0.004).abs() < 1e-9, "{:?}", left[4]);
        assert!(left.iter().enumerate().all(|(i, l)| i == 4 || (l.degrees < 1e-6 && l.shift.length() < 1e-9)));
        // a shift d of one frame is d, -2d, d in three second differences, of five
        let expected = (0.004f64.powi(2) * 6.0 / 5.0).sqrt();
        assert!((jitter(&moments, &left, "a").unwrap() - expected).abs() < 1e-9);
        assert!(jitter(&moments, &left, "b").unwrap() < 1e-9);
        // where a frame is missing, triples across the gap do not count
        moments.remove(2);
        let left = remaining(&moments).unwrap();
        assert!((jitter(&moments, &left, "a").unwrap() - (0.004f64.powi(2) * 5.0 / 2.0).sqrt()).abs() < 1e-9);
        moments.truncate(2);
        assert_eq!(jitter(&moments, &left, "a"), None);
    }

    #[test]
    fn poses_without_anything_in_common_are_an_error() {
        let mut moments = moments();
        moments.truncate(2);
        moments[0].tracked = moments[0].truth;
        moments[1].tracked = moments[1].truth * DMat4::from_quat(DQuat::from_rotation_z(std::f64::consts::PI));
        let said = remaining(&moments).unwrap_err().to_string();
        assert!(said.contains("no offset in common"), "{said}");
    }
}
