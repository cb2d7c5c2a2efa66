//! `evaluate_eyes`: how far tracked gaze and lids are from the true ones.
//!
//! reads: eyes, lids, gaze, truth
//! writes: gaze_degrees, gaze_still_degrees, lid_error, eyes_open
//!
//! A group is a person. What "straight ahead" is, tracker and truth need not agree on: the median difference of each
//! eye's angles over the group is taken off. `gaze_degrees` is then the angle between tracked and true gaze, mean of
//! the eyes that are truly open, null if none is, whether the tracker saw an iris or not; `gaze_still_degrees` the same
//! for eyes that always look to the median. `lid_error` is the mean absolute error of the lids' openings, both in
//! shares of their own median; `eyes_open` the number of eyes truly open.

use crate::common::eyes::{CLOSED, angles};
use anyhow::{Context, Result};
use datasets::truth::{Truth, landmark};
use glam::DVec3;
use manifests::Type;
use metrics::quantile::median;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters: none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

fn def() -> StageDef {
    StageDef::new("evaluate_eyes", 1, Grain::Group)
        .doc("Errors of tracked gaze and lids.")
        .reads([("eyes", Type::Floats(6)), ("lids", Type::Floats(2))])
        .reads([("gaze", Type::Floats(4)), ("truth", Type::Blob)])
        .writes([("gaze_degrees", Type::F64), ("gaze_still_degrees", Type::F64)])
        .writes([("lid_error", Type::F64), ("eyes_open", Type::I64)])
}

protocol::register!(Params, def, |_: Params, _: &Cx<'_>| anyhow::Ok(EvaluateEyes));

struct EvaluateEyes;

impl Stage for EvaluateEyes {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(score).collect()
    }
}

/// One moment: (yaw, pitch) of each eye, and how far its lids are open.
#[derive(Clone, Copy)]
struct Look {
    angles: [[f64; 2]; 2],
    lids: [f64; 2],
}

fn score(unit: &Unit<'_>) -> Result<Rows> {
    let (mut tracked, mut truth) = (Vec::new(), Vec::new());
    for row in unit.rows() {
        tracked.push(Look { angles: angles(&row.array("eyes")?), lids: row.array("lids")? });
        let known = Truth::read(&row.path("truth")?)?;
        let at = |name: &str| -> Result<glam::Vec3> {
            let index = landmark(name).context("a landmark of the truth has no name")?;
            known.landmarks.get(index).copied().with_context(|| format!("the truth has no landmark {name}"))
        };
        let opening = |side: &str| -> Result<f64> {
            Ok(f64::from(at(&format!("eyeUpper{side}"))?.distance(at(&format!("eyeLower{side}"))?)))
        };
        let [left_yaw, left_pitch, right_yaw, right_pitch] = row.array("gaze")?;
        let gaze = [[left_yaw, left_pitch], [right_yaw, right_pitch]];
        truth.push(Look { angles: gaze, lids: [opening("Left")?, opening("Right")?] });
    }
    let rows = errors(&tracked, &truth).into_iter().enumerate().map(|(i, e)| {
        OutRow::of(i)
            .maybe_f64("gaze_degrees", e.gaze)
            .maybe_f64("gaze_still_degrees", e.still)
            .f64("lid_error", e.lids)
            .i64("eyes_open", e.open)
    });
    Ok(rows.collect())
}

/// Errors of a moment.
#[derive(Clone, Copy, Debug)]
struct Errors {
    gaze: Option<f64>,
    still: Option<f64>,
    lids: f64,
    open: usize,
}

fn errors(tracked: &[Look], truth: &[Look]) -> Vec<Errors> {
    let of_some = |values| median(values).expect("a group has moments");
    let usual = |looks: &[Look], side: usize| of_some(looks.iter().map(|l| l.lids[side]).collect());
    let usual = [0, 1].map(|side| (usual(tracked, side), usual(truth, side)));
    let open = |i: usize, side: usize| truth[i].lids[side] >= CLOSED * usual[side].1;
    // over moments in which the eye is open; over all, if it never is
    let middle = |side: usize, value: &dyn Fn(usize) -> f64| {
        let of_open: Vec<f64> = (0..truth.len()).filter(|&i| open(i, side)).map(value).collect();
        of_some(if of_open.is_empty() { (0..truth.len()).map(value).collect() } else { of_open })
    };
    let offset = [0, 1].map(|s| [0, 1].map(|k| middle(s, &|i| tracked[i].angles[s][k] - truth[i].angles[s][k])));
    let resting = [0, 1].map(|s| [0, 1].map(|k| middle(s, &|i| truth[i].angles[s][k])));
    let direction = |[yaw, pitch]: [f64; 2]| DVec3::new(pitch.cos() * yaw.sin(), pitch.sin(), pitch.cos() * yaw.cos());
    let between = |a: [f64; 2], b: [f64; 2]| direction(a).angle_between(direction(b)).to_degrees();
    let mean = |values: Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    (0..truth.len())
        .map(|i| {
            let sides: Vec<usize> = (0..2).filter(|&s| open(i, s)).collect();
            let found = |s: usize| [0, 1].map(|k| tracked[i].angles[s][k] - offset[s][k]);
            let lid = |s: usize| (tracked[i].lids[s] / usual[s].0 - truth[i].lids[s] / usual[s].1).abs();
            Errors {
                gaze: mean(sides.iter().map(|&s| between(found(s), truth[i].angles[s])).collect()),
                still: mean(sides.iter().map(|&s| between(resting[s], truth[i].angles[s])).collect()),
                lids: f64::midpoint(lid(0), lid(1)),
                open: sides.len(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(yaw: f64, lids: f64) -> Look {
        Look { angles: [[yaw, 0.0]; 2], lids: [lids; 2] }
    }

    #[test]
    fn a_constant_offset_is_no_error_and_closed_eyes_do_not_look() {
        let truth: Vec<Look> =
            [(0.0, 8.0), (0.2, 8.0), (-0.2, 9.0), (0.1, 8.0), (0.3, 1.0)].map(|(y, l)| look(y, l)).into();
        let mut tracked: Vec<Look> = truth.iter().map(|l| look(l.angles[0][0] + 0.05, l.lids[0] / 8.0)).collect();
        let found = errors(&tracked, &truth);
        assert!(
            found[..4].iter().all(|e| e.gaze.is_some_and(|g| g < 1e-6) && e.lids < 1e-9 && e.open == 2),
            "{found:?}"
        );
        assert!(found[4].gaze.is_none() && found[4].open == 0);
        // the open eyes rest between 0 and 0.1
        assert!((found[1].still.unwrap() - 0.15f64.to_degrees()).abs() < 1e-6, "{found:?}");
        tracked[1] = look(0.05, 0.5);
        let found = errors(&tracked, &truth);
        assert!(
            (found[1].gaze.unwrap() - 0.2f64.to_degrees()).abs() < 1e-6 && (found[1].lids - 0.5).abs() < 1e-9,
            "{found:?}"
        );
    }
}
