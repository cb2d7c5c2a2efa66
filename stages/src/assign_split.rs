//! `assign_split`: which rows train and which are held out, by the name of their camera and sequence.
//!
//! reads: participant?, camera, sequence   writes: split (`train`, `view`: held-out camera, `sequence`: held-out sequence, `both`)
//!
//! The rule is the paper's (section 4.1): the held-out camera is never trained on; the held-out sequences are not
//! either, from any camera. Rows of both ask for the most: the paper reenacts those. Knows nothing of images.

use anyhow::{Context, Result, ensure};
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
    /// Whether to hold out of each NeRSemble participant, as well, the two sequences that the paper tests them on; needs `participant`.
    #[serde(default)]
    paper_sequences: bool,
}

/// NeRSemble's frontal camera, which the paper holds out.
fn frontal() -> Vec<String> {
    vec!["222200037".into()]
}

fn def() -> StageDef {
    StageDef::new("assign_split", 1, Grain::Row)
        .doc("Marks rows as train, view (held-out camera), sequence (held-out sequence) or both.")
        .reads([("camera", Type::Str), ("sequence", Type::Str)])
        .may_read([("participant", Type::I64)])
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
            let row = unit.row();
            let (camera, sequence) = (row.str("camera")?, row.str("sequence")?);
            let mut sequences = sequences.clone();
            if p.paper_sequences {
                ensure!(
                    row.has("participant"),
                    "`paper_sequences` asks whose the sequence is, and the rows have no `participant`\nhint: name sequences by `hold_out_sequences`"
                );
                let participant = row.i64("participant")?;
                sequences.extend(split::paper_sequences(participant).with_context(|| {
                    format!(
                        "the paper has no participant {participant}\nhint: `paper_sequences: false`, and `hold_out_sequences` names what is held out"
                    )
                })?);
            }
            let split = split::assign(&camera, &sequence, &cameras, &sequences);
            Ok(vec![OutRow::new().str("split", split.name())])
        };
        units.iter().map(split).collect()
    }
}
