//! `probe_expression`: how much of the true expression a linear probe reads off the tracked expression codes.
//!
//! reads: participant?, sequence, timestep, expression, eyes?, lids?, arkit, action_mm
//! writes: action, r2, r2_of_truth, visible, blocks, reach_mm
//!
//! Gaze and lids, where `track_eyes` has told them, belong to the code: an avatar is given them with it.
//!
//! A group is a person tracked by one method, or several people: one probe for all of them asks whether a code means
//! the same of everybody, and has more to learn from. Its rows are moments, and a row comes out for each of the 52
//! ARKit actions. The frames of a person's sequence, in time, are cut into blocks of `block` frames; blocks are dealt
//! in turn to `folds` folds, so that neighbours in time are tested together and not on what was trained on beside them.
//! The probe is a ridge regression from codes, scaled to unit variance on its training folds, to weights. Its strength
//! is chosen for each action by another cross-validation, over the blocks of the training folds alone. `r2` is 1 -
//! (squared error over all held-out moments) / (squared distance of the true weights from their mean); null if the
//! action does not vary. `r2_of_truth` is what the same probe on the same splits reads off the true weights themselves,
//! as if they were the codes: a yardstick for how much so few moments can show, and no bound, since codes in which an
//! action stands out are read off with less.
//!
//! `reach_mm` is how far the action moves the skin by its largest weight in these data (`action_mm` times weight: root
//! mean square over the region it moves). `blocks` counts the blocks in which it moves it by more than `visible_mm`; an
//! action is `visible` if there are at least two: a probe that has seen an action at no other moment cannot know it,
//! whatever the codes hold. Reads no pictures and no meshes.

use anyhow::{Context, Result, ensure};
use datasets::truth::ARKIT_NAMES;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Parameters.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Frames in a block.
    #[serde(default = "block")]
    #[schemars(range(min = 1))]
    block: usize,
    /// Folds of the cross-validation, and of the one inside.
    #[serde(default = "folds")]
    #[schemars(range(min = 2))]
    folds: usize,
    /// Root mean square motion of the skin from which an action counts as visible, mm.
    #[serde(default = "visible_mm")]
    visible_mm: f64,
}

/// Strengths of the ridge that are tried, per frame, for codes of unit variance in each dimension over their number.
const STRENGTHS: [f64; 8] = [1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0];
/// ARKit actions.
pub const ACTIONS: usize = ARKIT_NAMES.len();

fn block() -> usize {
    2
}
fn folds() -> usize {
    5
}
/// From how many mm on the skin's motion counts as visible, unless a recipe says otherwise.
pub fn visible_mm() -> f64 {
    0.5
}

fn def() -> StageDef {
    StageDef::new("probe_expression", 2, Grain::Group)
        .doc("Cross-validated linear probe from tracked expression codes to the true ARKit weights.")
        .reads([("sequence", Type::Str), ("timestep", Type::I64), ("expression", Type::Floats(0))])
        .reads([("arkit", Type::Floats(52)), ("action_mm", Type::Floats(52))])
        .may_read([("participant", Type::I64), ("eyes", Type::Floats(6)), ("lids", Type::Floats(2))])
        .writes([("action", Type::Str), ("r2", Type::F64), ("r2_of_truth", Type::F64)])
        .writes([("visible", Type::Bool), ("blocks", Type::I64), ("reach_mm", Type::F64)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ProbeExpression { params }));

struct ProbeExpression {
    params: Params,
}

impl Stage for ProbeExpression {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.probe(unit)).collect()
    }
}

impl ProbeExpression {
    fn probe(&self, unit: &Unit<'_>) -> Result<Rows> {
        let mut moments = unit
            .rows()
            .into_iter()
            .map(|row| {
                let whose = if row.has("participant") { row.i64("participant")? } else { 0 };
                Ok(((whose, row.str("sequence")?, row.i64("timestep")?), row))
            })
            .collect::<Result<Vec<_>>>()?;
        moments.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(twice) = moments.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let (_, sequence, timestep) = &twice[0].0;
            anyhow::bail!(
                "{sequence} timestep {timestep} is there twice\nhint: `by:` has to name what tells people and methods apart"
            );
        }
        let (mut codes, mut weights, mut action_mm) = (Vec::new(), Vec::new(), Vec::new());
        for (_, row) in &moments {
            let mut code = row.floats("expression")?.to_vec();
            for more in ["eyes", "lids"].into_iter().filter(|more| row.has(more)) {
                code.extend(row.floats(more)?.iter());
            }
            codes.push(code);
            weights.push(row.array::<ACTIONS>("arkit")?);
            action_mm.push(row.array::<ACTIONS>("action_mm")?);
        }
        let sequences: Vec<(i64, &str)> = moments.iter().map(|((whose, name, _), _)| (*whose, name.as_str())).collect();
        let blocks = blocks(&sequences, self.params.block);
        let guessed = held_out(&codes, &weights, &blocks, self.params.folds)?;
        let perfect: Vec<Vec<f64>> = weights.iter().map(|w| w.to_vec()).collect();
        let best = held_out(&perfect, &weights, &blocks, self.params.folds)?;
        let rows = (0..ACTIONS).map(|action| {
            let moved: Vec<f64> = weights.iter().zip(&action_mm).map(|(w, mm)| w[action] * mm[action]).collect();
            let mut shown: Vec<usize> =
                moved.iter().zip(&blocks).filter(|(mm, _)| **mm > self.params.visible_mm).map(|(_, b)| *b).collect();
            shown.dedup();
            let of = |values: &[[f64; ACTIONS]]| values.iter().map(|v| v[action]).collect::<Vec<f64>>();
            let share = |guessed: &[[f64; ACTIONS]]| r2(&of(&weights), &of(guessed));
            OutRow::new()
                .str("action", ARKIT_NAMES[action])
                .maybe_f64("r2", share(&guessed))
                .maybe_f64("r2_of_truth", share(&best))
                .bool("visible", shown.len() >= 2)
                .i64("blocks", shown.len())
                .f64("reach_mm", moved.iter().copied().fold(0.0, f64::max))
        });
        Ok(rows.collect())
    }
}

/// The block of each frame; frames are sorted by person, sequence and time.
fn blocks(sequences: &[(i64, &str)], length: usize) -> Vec<usize> {
    let mut seen: BTreeMap<(i64, &str), usize> = BTreeMap::new();
    let (mut block, mut out) = (0, Vec::new());
    for (i, sequence) in sequences.iter().enumerate() {
        let n = seen.entry(*sequence).or_default();
        // a new sequence, or the block is full
        if i > 0 && n.is_multiple_of(length) {
            block += 1;
        }
        *n += 1;
        out.push(block);
    }
    out
}

/// Share of the variance of `truth` that is explained; none if it has none.
fn r2(truth: &[f64], guessed: &[f64]) -> Option<f64> {
    let mean = truth.iter().sum::<f64>() / truth.len() as f64;
    let total: f64 = truth.iter().map(|t| (t - mean).powi(2)).sum();
    let error: f64 = truth.iter().zip(guessed).map(|(t, g)| (t - g).powi(2)).sum();
    // weights are single-precision numbers; less than this is rounding
    (total / truth.len() as f64 > 1e-10).then(|| 1.0 - error / total)
}

/// What the probe says of each frame, trained on the other folds alone.
///
/// # Errors
/// If there are fewer blocks than folds, or codes differ in length or are not finite.
fn held_out(
    codes: &[Vec<f64>],
    weights: &[[f64; ACTIONS]],
    blocks: &[usize],
    folds: usize,
) -> Result<Vec<[f64; ACTIONS]>> {
    let width = codes.first().context("there are no frames")?.len();
    let known = codes.iter().all(|c| c.len() == width && c.iter().all(|v| v.is_finite()));
    ensure!(known && width > 0, "expression codes differ in length, are empty or not finite");
    let count = blocks.last().map_or(0, |last| last + 1);
    ensure!(
        count > folds,
        "{} frames make {count} blocks, which are too few for {folds} folds\nhint: more frames or sequences, or fewer `folds`",
        codes.len()
    );
    let mut out = vec![[0.0; ACTIONS]; codes.len()];
    let all: Vec<usize> = (0..codes.len()).collect();
    for (train, test) in splits(&all, blocks, folds) {
        let data = |rows: &[usize]| -> (Vec<&[f64]>, Vec<&[f64; ACTIONS]>) {
            rows.iter().map(|&i| (codes[i].as_slice(), &weights[i])).unzip()
        };
        // which strength, for each action, from the training folds alone
        let mut errors = [[0.0; ACTIONS]; STRENGTHS.len()];
        for (inner, check) in splits(&train, blocks, folds) {
            let (x, y) = data(&inner);
            let (x_check, y_check) = data(&check);
            for (sum, guessed) in errors.iter_mut().zip(ridge(&x, &y, &x_check)) {
                for (guess, truth) in guessed.iter().zip(&y_check) {
                    (0..ACTIONS).for_each(|a| sum[a] += (guess[a] - truth[a]).powi(2));
                }
            }
        }
        let best = |a: usize| (0..STRENGTHS.len()).min_by(|&i, &j| errors[i][a].total_cmp(&errors[j][a])).unwrap_or(0);
        let (x, y) = data(&train);
        let guessed = ridge(&x, &y, &data(&test).0);
        for (k, &i) in test.iter().enumerate() {
            out[i] = std::array::from_fn(|a| guessed[best(a)][k][a]);
        }
    }
    Ok(out)
}

/// Some frames in training and test sets, their blocks dealt in turn; a fold without frames or that is all of them is
/// left out.
fn splits(frames: &[usize], blocks: &[usize], folds: usize) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut own: Vec<usize> = frames.iter().map(|&i| blocks[i]).collect();
    own.dedup();
    let fold = |i: usize| own.partition_point(|b| *b < blocks[i]) % folds;
    let split = |f: usize| frames.iter().partition::<Vec<usize>, _>(|&&i| fold(i) != f);
    (0..folds).map(split).filter(|(train, test)| !train.is_empty() && !test.is_empty()).collect()
}

/// What ridge regressions of all [`STRENGTHS`] say, by strength and frame. In the dual form, for there are more codes
/// than frames.
fn ridge(x: &[&[f64]], y: &[&[f64; ACTIONS]], x_test: &[&[f64]]) -> Vec<Vec<[f64; ACTIONS]>> {
    let width = x[0].len() as i64;
    let matrix = |rows: &[&[f64]]| Tensor::from_slice(&rows.concat()).reshape([-1, width]);
    let (x, x_test) = (matrix(x), matrix(x_test));
    let y = Tensor::from_slice(y.iter().flat_map(|row| **row).collect::<Vec<f64>>().as_slice())
        .reshape([-1, ACTIONS as i64]);
    let dim = [0i64].as_slice();
    let (x_mean, y_mean) = (x.mean_dim(dim, true, Kind::Double), y.mean_dim(dim, true, Kind::Double));
    // a dimension that does not vary tells nothing, and is not blown up
    let spread = x.std_dim(dim, false, true);
    let scale = spread.where_self(&spread.gt(1e-9), &Tensor::from(f64::INFINITY)) * (width as f64).sqrt();
    let (x, x_test) = ((x - &x_mean) / &scale, (x_test - &x_mean) / &scale);
    let n = x.size()[0];
    let kernel = x.matmul(&x.transpose(0, 1));
    let seen = x_test.matmul(&x.transpose(0, 1));
    let guess = |strength: &f64| -> Vec<[f64; ACTIONS]> {
        let system = &kernel + Tensor::eye(n, (Kind::Double, kernel.device())) * (strength * n as f64);
        let found = seen.matmul(&Tensor::linalg_solve(&system, &(&y - &y_mean), true)) + &y_mean;
        let flat = Vec::<f64>::try_from(found.reshape([-1])).expect("it is a vector of doubles");
        flat.as_chunks::<ACTIONS>().0.to_vec()
    };
    STRENGTHS.iter().map(guess).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in [0, 1) that look random.
    fn noise(i: usize) -> f64 {
        ((i as f64 * 12.9898).sin() * 43_758.545).rem_euclid(1.0)
    }

    /// 60 frames in which each weight goes its own way, in blocks of two.
    fn weights() -> (Vec<[f64; ACTIONS]>, Vec<usize>) {
        let row = |t: usize| std::array::from_fn(|a| noise(t * 131 + a * 7 + 3));
        ((0..60).map(row).collect(), (0..60).map(|t| t / 2).collect())
    }

    fn mean_r2(codes: &[Vec<f64>], weights: &[[f64; ACTIONS]], blocks: &[usize]) -> f64 {
        let guessed = held_out(codes, weights, blocks, 5).unwrap();
        let of = |values: &[[f64; ACTIONS]], a: usize| values.iter().map(|v| v[a]).collect::<Vec<f64>>();
        (0..10).map(|a| r2(&of(weights, a), &of(&guessed, a)).unwrap()).sum::<f64>() / 10.0
    }

    #[test]
    fn codes_that_hold_the_weights_are_read_and_others_are_not() {
        let (weights, blocks) = weights();
        // 24 numbers mixed of the first ten weights
        let mixed =
            |w: &[f64; ACTIONS]| (0..24).map(|k| (0..10).map(|a| w[a] * (noise(k * 17 + a) - 0.5)).sum()).collect();
        let codes: Vec<Vec<f64>> = weights.iter().map(mixed).collect();
        let r2 = mean_r2(&codes, &weights, &blocks);
        assert!(r2 > 0.95, "{r2}");
        let unrelated: Vec<Vec<f64>> =
            (0..60).map(|t| (0..24).map(|k| noise(t * 977 + k * 31 + 11)).collect()).collect();
        let r2 = mean_r2(&unrelated, &weights, &blocks);
        assert!(r2 < 0.1, "{r2}");
        // with a code for each frame beside them, whoever tests on what was trained on reads everything
        let own: Vec<Vec<f64>> = (0..60).map(|t| (0..60).map(|k| f64::from(u8::from(t == k))).collect()).collect();
        let r2 = mean_r2(&own, &weights, &blocks);
        assert!(r2 < 0.1, "{r2}");
    }

    #[test]
    fn frames_that_look_alike_are_not_told_by_their_neighbours() {
        // frames come in equal pairs: codes tell the pair and nothing else
        let (weights, blocks) = weights();
        let weights: Vec<[f64; ACTIONS]> = (0..60).map(|t| weights[t / 2]).collect();
        let codes: Vec<Vec<f64>> =
            (0..60).map(|t| (0..30).map(|k| f64::from(u8::from(t / 2 == k))).collect()).collect();
        let r2 = mean_r2(&codes, &weights, &blocks);
        assert!(r2 < 0.1, "{r2}");
        // split frame by frame it would
        let alone: Vec<usize> = (0..60).collect();
        assert!(mean_r2(&codes, &weights, &alone) > 0.5);
    }

    #[test]
    fn blocks_end_with_their_sequence() {
        let own = ["a", "a", "a", "b", "b", "c"].map(|name| (1, name));
        assert_eq!(blocks(&own, 2), [0, 0, 1, 2, 2, 3]);
        // and with the person
        assert_eq!(blocks(&[(1, "a"), (2, "a"), (2, "a"), (2, "b")], 2), [0, 1, 1, 2]);
        let said = held_out(&vec![vec![0.0]; 4], &[[0.0; ACTIONS]; 4], &[0, 0, 1, 1], 5).unwrap_err().to_string();
        assert!(said.contains("4 frames make 2 blocks") && said.contains("hint:"), "{said}");
    }
}
