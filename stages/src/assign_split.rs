//! `assign_split`: which rows train and which are held out, by the name of their camera and sequence.
//!
//! reads: participant?, camera, sequence
//! writes: split (`train`, `view`: held-out camera, `sequence`: held-out sequence, `both`)
//!
//! The rule is the paper's (section 4.1): the held-out camera is never trained on; the held-out sequences are not
//! either, from any camera. Rows of both ask for the most: the paper reenacts those. It looks at all rows together,
//! since a name that none of them has holds nothing out, and what was meant by it would be trained on. Knows nothing of
//! images.

use anyhow::{Context, Result, bail, ensure};
use datasets::split;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Serials of the cameras that are never trained on; each is that of a row.
    #[serde(default = "frontal")]
    hold_out_cameras: Vec<String>,
    /// Names of the sequences that are never trained on; each is that of a row.
    #[serde(default)]
    hold_out_sequences: Vec<String>,
    /// Whether to hold out of each NeRSemble participant, as well, the two sequences that the paper tests them on, or
    /// the one of them that there is; needs `participant`. Of somebody who is not in the paper `hold_out_sequences`
    /// alone are, and there have to be some.
    #[serde(default)]
    paper_sequences: bool,
}

/// NeRSemble's frontal camera, which the paper holds out.
fn frontal() -> Vec<String> {
    vec!["222200037".into()]
}

fn def() -> StageDef {
    StageDef::new("assign_split", 2, Grain::Whole)
        .doc("Marks rows as train, view (held-out camera), sequence (held-out sequence) or both.")
        .reads([("camera", Type::Str), ("sequence", Type::Str)])
        .may_read([("participant", Type::I64)])
        .writes([("split", Type::Str)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(AssignSplit { params }));

struct AssignSplit {
    params: Params,
}

impl Stage for AssignSplit {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.split(unit)).collect()
    }
}

impl AssignSplit {
    fn split(&self, unit: &Unit<'_>) -> Result<Rows> {
        let p = &self.params;
        let (mut cameras, mut sequences) = (BTreeSet::new(), BTreeSet::new());
        let mut filmed: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
        for row in unit.rows() {
            if p.paper_sequences {
                ensure!(
                    row.has("participant"),
                    "`paper_sequences` asks whose the sequence is, and the rows have no `participant`\nhint: name sequences by `hold_out_sequences`"
                );
                filmed.entry(row.i64("participant")?).or_default().insert(row.str("sequence")?);
            }
            cameras.insert(row.str("camera")?);
            sequences.insert(row.str("sequence")?);
        }
        known("hold_out_cameras", &p.hold_out_cameras, &cameras)?;
        known("hold_out_sequences", &p.hold_out_sequences, &sequences)?;
        let held_out_cameras: Vec<&str> = p.hold_out_cameras.iter().map(String::as_str).collect();
        let of_all: Vec<&str> = p.hold_out_sequences.iter().map(String::as_str).collect();
        let mut of_each: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
        for (participant, filmed) in &filmed {
            let is_others = split::paper_sequences(*participant).is_none() && !of_all.is_empty();
            let tested = if is_others { Vec::new() } else { tested(*participant, filmed)?.to_vec() };
            of_each.insert(*participant, [&of_all[..], &tested].concat());
        }
        let split = |(at, row): (usize, Row<'_>)| -> Result<OutRow> {
            let sequences = match p.paper_sequences {
                true => &of_each[&row.i64("participant")?],
                false => &of_all,
            };
            let split = split::assign(&row.str("camera")?, &row.str("sequence")?, &held_out_cameras, sequences);
            Ok(OutRow::of(at).str("split", split.name()))
        };
        unit.rows().into_iter().enumerate().map(split).collect()
    }
}

/// Checks that each name which a parameter holds out is that of a row.
fn known(parameter: &str, names: &[String], there: &BTreeSet<String>) -> Result<()> {
    let Some(name) = names.iter().find(|name| !there.contains(*name)) else { return Ok(()) };
    bail!(
        "`{parameter}` names {name}, which no row has: there are {}\nhint: what is misspelt is trained on; `{parameter}: []` holds nothing out",
        listed(there)
    )
}

/// The paper's sequences of a participant.
fn tested(participant: i64, filmed: &BTreeSet<String>) -> Result<[&'static str; 2]> {
    let tested = split::paper_sequences(participant).with_context(|| {
        format!(
            "the paper has no participant {participant}, and nothing else is held out\nhint: `hold_out_sequences` names what is"
        )
    })?;
    ensure!(
        tested.iter().any(|name| filmed.contains(*name)),
        "the paper tests participant {participant} on {} and {}, and no row is of either: there are {}\n\
         hint: `paper_sequences: false`, and `hold_out_sequences` names what is held out",
        tested[0],
        tested[1],
        listed(filmed)
    );
    Ok(tested)
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
