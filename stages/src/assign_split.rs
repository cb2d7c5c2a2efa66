//! `assign_split`: which rows train and which are held out, by the name of their camera and sequence.
//!
//! reads: camera, sequence   writes: split (`train`, `view`: held-out camera, `sequence`: held-out sequence, `both`)
//!
//! The rule is the paper's (section 4.1): the held-out camera is never trained on; the held-out sequences are not
//! either, from any camera. Rows of both ask for the most: the paper reenacts those. Knows nothing of images.

use anyhow::Result;
use datasets::split;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Serials of the cameras that are never trained on.
    #[serde(default = "frontal")]
    hold_out_cameras: Vec<String>,
    /// Names of the sequences that are never trained on.
    #[serde(default)]
    hold_out_sequences: Vec<String>,
}

/// NeRSemble's frontal camera, which the paper holds out.
fn frontal() -> Vec<String> {
    vec!["222200037".into()]
}

fn def() -> StageDef {
    StageDef::new("assign_split", 1, Grain::Row)
        .doc("Marks rows as train, view (held-out camera), sequence (held-out sequence) or both.")
        .reads([("camera", Type::Str), ("sequence", Type::Str)])
        .writes([("split", Type::Str)])
        .batch(256)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(AssignSplit { params }));

struct AssignSplit {
    params: Params,
}

impl Stage for AssignSplit {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        let p = &self.params;
        let cameras: Vec<&str> = p.hold_out_cameras.iter().map(String::as_str).collect();
        let sequences: Vec<&str> = p.hold_out_sequences.iter().map(String::as_str).collect();
        let split = |unit: &Unit<'_>| -> Result<Rows> {
            let (camera, sequence) = (unit.row().str("camera")?, unit.row().str("sequence")?);
            let split = split::assign(&camera, &sequence, &cameras, &sequences);
            Ok(vec![OutRow::new().str("split", split.name())])
        };
        units.iter().map(split).collect()
    }
}
