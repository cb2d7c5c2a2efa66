//! `expression_actions`: what a person's tracked expression codes do when an ARKit action does, on synthetic data,
//! where actions are known.
//!
//! reads: expression, arkit, action_mm
//! writes: action, direction, most
//!
//! All rows are one unit. A row comes out for each action that moves the skin visibly in these data: `direction` is
//! what its full weight adds to the code, by a ridge regression from all such actions' weights to codes; `most` is its
//! largest weight. Actions that always come together share what they do. Names for the sliders of a viewer: nothing is
//! trained or measured with it.

use crate::probe_expression::{ACTIONS, visible_mm};
use anyhow::{Context, Result, ensure};
use datasets::truth::ARKIT_NAMES;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use tch::{Kind, Tensor};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Root mean square motion of the skin from which an action counts as visible, mm.
    #[serde(default = "visible_mm")]
    visible_mm: f64,
    /// Strength of the ridge, for weights of unit variance.
    #[serde(default = "strength")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    strength: f64,
}

fn strength() -> f64 {
    0.02
}

fn def() -> StageDef {
    StageDef::new("expression_actions", 1, Grain::Whole)
        .doc("What each ARKit action of a synthetic capture adds to expression codes.")
        .reads([("expression", Type::Floats(0)), ("arkit", Type::Floats(52)), ("action_mm", Type::Floats(52))])
        .writes([("action", Type::Str), ("direction", Type::Floats(0)), ("most", Type::F64)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ExpressionActions { params }));

struct ExpressionActions {
    params: Params,
}

impl Stage for ExpressionActions {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.actions(unit)).collect()
    }
}

impl ExpressionActions {
    fn actions(&self, unit: &Unit<'_>) -> Result<Rows> {
        let (mut codes, mut weights, mut most, mut reach) =
            (Vec::new(), Vec::new(), [0.0f64; ACTIONS], [0.0f64; ACTIONS]);
        for row in unit.rows() {
            let arkit: [f64; ACTIONS] = row.array("arkit")?;
            let action_mm: [f64; ACTIONS] = row.array("action_mm")?;
            for a in 0..ACTIONS {
                most[a] = most[a].max(arkit[a]);
                reach[a] = reach[a].max(arkit[a] * action_mm[a]);
            }
            codes.push(row.floats("expression")?);
            weights.push(arkit);
        }
        let width = codes.first().context("there are no expression codes")?.len();
        ensure!(
            width > 0 && codes.iter().all(|code| code.len() == width),
            "column `expression` holds codes of different lengths\nhint: they have to be of one head model"
        );
        let seen: Vec<usize> = (0..ACTIONS).filter(|&a| reach[a] > self.params.visible_mm).collect();
        let weights: Vec<Vec<f64>> = weights.iter().map(|row| seen.iter().map(|&a| row[a]).collect()).collect();
        let directions = directions(&weights, &codes, self.params.strength);
        let row = |(direction, &a): (Vec<f64>, &usize)| {
            OutRow::new().str("action", ARKIT_NAMES[a]).floats("direction", direction).f64("most", most[a])
        };
        Ok(directions.into_iter().zip(&seen).map(row).collect())
    }
}

/// What a unit of each weight adds to the code. `[moments][weights]`, `[moments][code]`
fn directions(weights: &[Vec<f64>], codes: &[Vec<f64>], strength: f64) -> Vec<Vec<f64>> {
    let count = weights[0].len();
    if count == 0 {
        return Vec::new();
    }
    let centred = |rows: &[Vec<f64>]| {
        let matrix = Tensor::from_slice(rows.concat().as_slice()).view([rows.len() as i64, -1]);
        &matrix - matrix.mean_dim([0i64].as_slice(), true, Kind::Double)
    };
    let (x, y) = (centred(weights), centred(codes));
    let n = weights.len() as f64;
    // one that stays the same has no spread, and tells nothing
    let spread = (x.square().sum_dim_intlist([0i64].as_slice(), false, Kind::Double) / n).sqrt().clamp_min(1e-9);
    let x = x / &spread;
    let system = x.transpose(0, 1).matmul(&x) / n + Tensor::eye(count as i64, (Kind::Double, x.device())) * strength;
    let found = Tensor::linalg_solve(&system, &(x.transpose(0, 1).matmul(&y) / n), true) / spread.unsqueeze(1);
    let flat = Vec::<f64>::try_from(found.contiguous().view(-1)).expect("it is a vector of doubles");
    flat.chunks(codes[0].len()).map(<[f64]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_actions_add_to_codes_is_found() {
        // two actions of their own, and one that never moves
        let weights: Vec<Vec<f64>> =
            (0..60).map(|t| vec![f64::from(t % 5) / 4.0, f64::from(t % 7) / 6.0, 0.3]).collect();
        let codes: Vec<Vec<f64>> = weights.iter().map(|w| vec![1.0 + 2.0 * w[0], -w[0] + 3.0 * w[1], 0.5]).collect();
        let found = directions(&weights, &codes, 1e-6);
        let expected = [[2.0, -1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]];
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{found:?}");
        }
        assert_eq!(found.len(), 3);
        assert!(directions(&[vec![], vec![]], &codes[..2], 0.1).is_empty());
    }
}
