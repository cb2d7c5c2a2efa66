//! `smooth_codes`: expression codes of a sequence, smoothed over time.
//!
//! reads: timestep, expression, lost?; by a sequence
//! writes: expression
//!
//! What the reference offers as `smooth_expression_codes` (DiffusionAvatars, section 9 of the specification: a Gaussian
//! of five frames): codes that were tracked frame by frame tremble, and a network that is given them trembles with
//! them. Each code becomes the mean of those around it, weighted by a Gaussian of their distance in frames, as many of
//! which as were taken of the film: from one to the next is the median difference of timesteps. What lies beyond an end
//! of the sequence has no weight, nor have frames that are missing or in which the tracker lost the face: their own
//! codes are made of those around them. Poses and surfaces stay as they were tracked. Knows no head model.

use crate::common::timesteps::in_time;
use anyhow::{Result, ensure};
use manifests::Type;
use metrics::quantile::median;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Deviation of the Gaussian, in frames that were taken; the reference's is 5, of 24 frames a second.
    #[serde(default = "sigma")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    sigma: f64,
}

fn sigma() -> f64 {
    5.0
}

fn def() -> StageDef {
    StageDef::new("smooth_codes", 3, Grain::Group)
        .doc("Smooths expression codes over a sequence.")
        .reads([("timestep", Type::I64), ("expression", Type::Floats(0))])
        .may_read([("lost", Type::Bool)])
        .writes([("expression", Type::Floats(0))])
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| anyhow::Ok(SmoothCodes { params }));

struct SmoothCodes {
    params: Params,
}

impl Stage for SmoothCodes {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        let smooth = |unit: &Unit<'_>| -> Result<Rows> {
            let rows = unit.rows();
            let order = in_time(&rows)?;
            let read = |(timestep, i): &(i64, usize)| -> Result<Frame> {
                let row = &rows[*i];
                let lost = row.has("lost") && row.bool("lost")?;
                Ok(Frame { timestep: *timestep, code: row.floats("expression")?, lost })
            };
            let frames = order.iter().map(read).collect::<Result<Vec<_>>>()?;
            let length = frames.first().map_or(0, |frame| frame.code.len());
            ensure!(frames.iter().all(|frame| frame.code.len() == length), "expression codes are of different lengths");
            let row = |((_, i), code): ((i64, usize), Vec<f64>)| OutRow::of(i).floats("expression", code);
            Ok(order.into_iter().zip(smoothed(&frames, self.params.sigma)).map(row).collect())
        };
        units.iter().map(smooth).collect()
    }
}

/// A frame that was taken of a film.
struct Frame {
    timestep: i64,
    code: Vec<f64>,
    /// Whether its code says nothing of the face.
    lost: bool,
}

/// The weighted mean of the codes around each, in the frames' order; `sigma` in frames. A lost frame around which
/// nothing has a weight keeps its code.
fn smoothed(frames: &[Frame], sigma: f64) -> Vec<Vec<f64>> {
    let mut times: Vec<i64> = frames.iter().map(|frame| frame.timestep).collect();
    times.sort_unstable();
    let step = median(times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect()).unwrap_or(1.0);
    // of a sequence that was lost from end to end no frame knows better than another
    let all_lost = frames.iter().all(|frame| frame.lost);
    let around = |frame: &Frame| {
        let (mut sum, mut total) = (vec![0.0; frame.code.len()], 0.0);
        for other in frames.iter().filter(|other| !other.lost || all_lost) {
            let distance = (other.timestep - frame.timestep) as f64 / (step * sigma);
            let weight = (-0.5 * distance * distance).exp();
            total += weight;
            sum.iter_mut().zip(&other.code).for_each(|(sum, value)| *sum += weight * value);
        }
        if total > f64::MIN_POSITIVE {
            sum.into_iter().map(|value| value / total).collect()
        } else {
            frame.code.clone()
        }
    };
    frames.iter().map(around).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(timestep: i64, code: Vec<f64>) -> Frame {
        Frame { timestep, code, lost: false }
    }

    #[test]
    fn what_trembles_goes_and_what_stays_stays() {
        let trembling = |t: i64| vec![2.0, if t % 2 == 0 { 1.0 } else { -1.0 }];
        // in no order, and one is missing
        let frames: Vec<_> = (0..40).rev().filter(|t| *t != 13).map(|t| seen(t, trembling(t))).collect();
        let smooth = smoothed(&frames, 3.0);
        assert!(smooth.iter().all(|code| (code[0] - 2.0).abs() < 1e-12), "also at the ends");
        assert!(smooth.iter().all(|code| code[1].abs() < 0.2));
    }

    #[test]
    fn weights_are_those_of_a_gaussian_of_frames() {
        // every third frame of a film was taken, and one of these is missing
        let frames = [(0, 0.0), (3, 0.0), (6, 0.0), (12, 1.0)].map(|(t, code)| seen(t, vec![code]));
        let weight = |frames: f64| (-0.5 * (frames / 2.0).powi(2)).exp();
        let smooth = smoothed(&frames, 2.0);
        assert!((smooth[3][0] - 1.0 / (1.0 + weight(2.0) + weight(3.0) + weight(4.0))).abs() < 1e-12);
        assert!((smooth[0][0] - weight(4.0) / (1.0 + weight(1.0) + weight(2.0) + weight(4.0))).abs() < 1e-12);
        assert_eq!(smoothed(&[seen(7, vec![2.0])], 1.0), [[2.0]], "a frame alone stays as it is");
    }
    #[test]
    fn a_lost_frame_has_no_say_and_is_told_by_those_around_it() {
        let mut frames = [(0, 1.0), (1, 50.0), (2, 3.0)].map(|(t, code)| seen(t, vec![code]));
        frames[1].lost = true;
        let smooth = smoothed(&frames, 1.0);
        assert!((smooth[1][0] - 2.0).abs() < 1e-12, "{smooth:?}");
        assert!(smooth[0][0] < 3.0 && smooth[2][0] > 1.0, "{smooth:?}");
        let as_seen = smoothed(&[(0, 1.0), (1, 50.0), (2, 3.0)].map(|(t, code)| seen(t, vec![code])), 1.0);
        frames.iter_mut().for_each(|frame| frame.lost = true);
        assert_eq!(smoothed(&frames, 1.0), as_seen, "one is as good as another");
    }
}
