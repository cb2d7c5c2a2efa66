//! `smooth_codes`: expression codes of a sequence, smoothed over time.
//!
//! reads: timestep, expression; by a sequence   writes: expression
//!
//! What the reference offers as `smooth_expression_codes` (DiffusionAvatars, section 9 of the specification: a Gaussian of five frames):
//! codes that were tracked frame by frame tremble, and a network that is given them trembles with them. Each code becomes the mean of those
//! around it, weighted by a Gaussian of their distance in frames, as many of which as were taken of the film: from one to the next is the median
//! difference of timesteps. What lies beyond an end of the sequence has no weight, nor have frames that are missing. Poses and surfaces stay as they were tracked. Knows no head model.

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
    StageDef::new("smooth_codes", 2, Grain::Group)
        .doc("Smooths expression codes over a sequence.")
        .reads([("timestep", Type::I64), ("expression", Type::Floats(0))])
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
            let read = |(timestep, i): &(i64, usize)| Ok((*timestep, rows[*i].floats("expression")?));
            let frames = order.iter().map(read).collect::<Result<Vec<_>>>()?;
            let length = frames.first().map_or(0, |(_, code)| code.len());
            ensure!(frames.iter().all(|(_, code)| code.len() == length), "expression codes are of different lengths");
            let row = |((_, i), code): ((i64, usize), Vec<f64>)| OutRow::of(i).floats("expression", code);
            Ok(order.into_iter().zip(smoothed(&frames, self.params.sigma)).map(row).collect())
        };
        units.iter().map(smooth).collect()
    }
}

/// The weighted mean of the codes around each, in the frames' order; `sigma` in frames.
fn smoothed(frames: &[(i64, Vec<f64>)], sigma: f64) -> Vec<Vec<f64>> {
    let mut times: Vec<i64> = frames.iter().map(|(timestep, _)| *timestep).collect();
    times.sort_unstable();
    let step = median(times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect()).unwrap_or(1.0);
    let around = |(timestep, code): &(i64, Vec<f64>)| {
        let (mut sum, mut total) = (vec![0.0; code.len()], 0.0);
        for (other, code) in frames {
            let distance = (other - timestep) as f64 / (step * sigma);
            let weight = (-0.5 * distance * distance).exp();
            total += weight;
            sum.iter_mut().zip(code).for_each(|(sum, value)| *sum += weight * value);
        }
        sum.into_iter().map(|value| value / total).collect()
    };
    frames.iter().map(around).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_trembles_goes_and_what_stays_stays() {
        let trembling = |t: i64| vec![2.0, if t % 2 == 0 { 1.0 } else { -1.0 }];
        // in no order, and one is missing
        let frames: Vec<_> = (0..40).rev().filter(|t| *t != 13).map(|t| (t, trembling(t))).collect();
        let smooth = smoothed(&frames, 3.0);
        assert!(smooth.iter().all(|code| (code[0] - 2.0).abs() < 1e-12), "also at the ends");
        assert!(smooth.iter().all(|code| code[1].abs() < 0.2));
    }

    #[test]
    fn weights_are_those_of_a_gaussian_of_frames() {
        // every third frame of a film was taken, and one of these is missing
        let frames = [(0, vec![0.0]), (3, vec![0.0]), (6, vec![0.0]), (12, vec![1.0])];
        let weight = |frames: f64| (-0.5 * (frames / 2.0).powi(2)).exp();
        let smooth = smoothed(&frames, 2.0);
        assert!((smooth[3][0] - 1.0 / (1.0 + weight(2.0) + weight(3.0) + weight(4.0))).abs() < 1e-12);
        assert!((smooth[0][0] - weight(4.0) / (1.0 + weight(1.0) + weight(2.0) + weight(4.0))).abs() < 1e-12);
        assert_eq!(smoothed(&[(7, vec![2.0])], 1.0), [[2.0]], "a frame alone stays as it is");
    }
}
