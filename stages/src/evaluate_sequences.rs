//! `evaluate_sequences`: from the scores of frames to those of a sequence, as the paper's evaluator does it.
//!
//! reads: timestep, and of the scores what there is
//! writes: frames, psnr_pooled (dB), and each score's mean over the frames that have it
//!
//! A group is what one method gave for one sequence and camera: `by: [method, participant, split, sequence, camera]`. A
//! score is averaged over frames (of PSNR without those that have no error at all, whose infinite one would hide the
//! others); `psnr_pooled` is PSNR of the squared error pooled over `chunk` frames, averaged over chunks
//! (DiffusionAvatars: 16), which is below the mean of the frames' own. A table over these rows is an unweighted mean
//! over sequences, however long they are, and with `per: [participant]` one over people of such means. Reads no
//! pictures.

use crate::evaluate::METRICS;
use anyhow::Result;
use manifests::Type;
use metrics::psnr::{mean_psnr, pooled_psnr};
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Frames whose squared errors are pooled.
    #[serde(default = "chunk")]
    #[schemars(range(min = 1))]
    chunk: usize,
}

fn chunk() -> usize {
    16
}

/// Scores of other stages, joined to the rows, that are averaged too.
const JOINED: [&str; 6] = ["csim", "csim_l2", "akd", "akd_inner", "expression_error", "face_found"];

/// All that is averaged.
fn scores() -> [&'static str; METRICS.len() + JOINED.len()] {
    std::array::from_fn(|i| METRICS.get(i).copied().unwrap_or_else(|| JOINED[i - METRICS.len()]))
}

fn def() -> StageDef {
    StageDef::new("evaluate_sequences", 5, Grain::Group)
        .doc("Scores of a sequence from those of its frames, with PSNR pooled over chunks of frames.")
        .reads([("timestep", Type::I64)])
        .may_read(scores().map(|name| (name, Type::F64)))
        .writes([("frames", Type::I64), ("psnr_pooled", Type::F64)])
        .writes(scores().map(|name| (name, Type::F64)))
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(EvaluateSequences { params }));

struct EvaluateSequences {
    params: Params,
}

impl Stage for EvaluateSequences {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.sequence(unit)).collect()
    }
}

impl EvaluateSequences {
    fn sequence(&self, unit: &Unit<'_>) -> Result<Rows> {
        let mut rows: Vec<(i64, Row<'_>)> =
            unit.rows().into_iter().map(|row| Ok((row.i64("timestep")?, row))).collect::<Result<_>>()?;
        // chunks are those of time, in whatever order the rows came
        rows.sort_by_key(|(timestep, _)| *timestep);
        let values = |name: &str| -> Result<Vec<f64>> {
            let present = rows.iter().filter(|(_, row)| row.has(name));
            present.map(|(_, row)| row.f64(name)).collect()
        };
        let mut out = OutRow::new()
            .i64("frames", rows.len())
            .maybe_f64("psnr_pooled", pooled_psnr(&values("mse")?, self.params.chunk));
        for name in scores() {
            out = out.maybe_f64(name, mean(name, &values(name)?));
        }
        Ok(vec![out])
    }
}

/// The mean of a score over the frames that have it; none if none has.
fn mean(name: &str, values: &[f64]) -> Option<f64> {
    if name.starts_with("psnr") {
        return mean_psnr(values);
    }
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_without_an_error_does_not_hide_the_others() {
        let psnrs: Vec<&str> = scores().into_iter().filter(|name| name.contains("psnr")).collect();
        assert_eq!(psnrs, ["psnr", "psnr_head", "psnr_mouth", "psnr_eyes", "psnr_matte"]);
        for name in psnrs {
            assert_eq!(mean(name, &[20.0, f64::INFINITY, 24.0]), Some(22.0));
            assert_eq!(mean(name, &[20.5, 24.0, 25.0]), Some((20.5 + 24.0 + 25.0) / 3.0));
            assert_eq!(mean(name, &[f64::INFINITY]), Some(f64::INFINITY));
            assert_eq!(mean(name, &[]), None);
        }
        assert_eq!(mean("ssim", &[0.5, 1.0]), Some(0.75));
        assert_eq!(mean("ssim", &[]), None);
    }
}
