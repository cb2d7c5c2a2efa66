//! `source_nersemble`: the recordings of a NeRSemble capture in any of its four layouts, a row per video or picture.
//!
//! no rows in   writes: participant, sequence, camera, timestep (of pictures), video or image, matte_video or matte,
//! background, color_transform or color_polynomial, intrinsics, world_to_cam, width, height; columns that do not apply
//! are null
//!
//! Intrinsics are for images of `width x height` px, which is the size they were calibrated at. Knows where things lie,
//! not what they show (see `datasets::nersemble` for the layouts).

use crate::common::frame_times::ensure_one_rate;
use crate::common::recordings::{COLUMNS, number, participant_of, rows};
use anyhow::{Result, ensure};
use datasets::nersemble::Recording;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The folder that holds the participants' folders, or the folder of one participant.
    path: PathBuf,
    /// The participant's number, if `path` is the folder of one: results do not depend on what that folder is called.
    #[serde(default)]
    participant: Option<i64>,
    /// Width and height of the images that the calibration is for, px; if absent, what the layout says.
    #[serde(default)]
    calibrated_size: Option<(u32, u32)>,
    /// Only these participants, where `path` holds several; all if empty.
    #[serde(default)]
    participants: Vec<i64>,
    /// Only these sequences; all if empty.
    #[serde(default)]
    sequences: Vec<String>,
    /// Only these cameras; all if empty.
    #[serde(default)]
    cameras: Vec<String>,
}

fn def() -> StageDef {
    StageDef::new("source_nersemble", 4, Grain::Whole)
        .doc("Lists the recordings of a NeRSemble capture.")
        .source()
        .file_param("path")
        .writes([("participant", Type::I64), ("sequence", Type::Str)])
        .writes(COLUMNS)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(SourceNersemble { params }));

struct SourceNersemble {
    params: Params,
}

impl Stage for SourceNersemble {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|_| self.params.list(cx)).collect()
    }
}

impl Params {
    fn list(&self, cx: &Cx<'_>) -> Result<Rows> {
        let asked = |names: &[String], name: &str| names.is_empty() || names.iter().any(|other| other == name);
        let one = participant_of(&self.path, self.participant)?;
        let is_one_of = |participant: &str| {
            let number = one.or_else(|| participant.parse().ok());
            self.participants.is_empty() || number.is_some_and(|number| self.participants.contains(&number))
        };
        let found = rows(&self.path, self.calibrated_size, &|[participant, sequence, camera]| {
            is_one_of(participant) && asked(&self.sequences, sequence) && asked(&self.cameras, camera)
        })?;
        ensure!(
            !found.is_empty(),
            "none of the recordings in {} is of a participant, sequence and camera that were asked for\n\
             hint: `effigy import nersemble {}` lists what there is",
            self.path.display(),
            self.path.display()
        );
        self.warn_of_absent(&found, one, cx);
        // the recordings of a sequence stand together
        for group in found.chunk_by(|(a, _), (b, _)| (&a.participant, &a.sequence) == (&b.participant, &b.sequence)) {
            let videos = group.iter().map(|(recording, _)| recording).filter(|recording| recording.timestep.is_none());
            ensure_one_rate(videos.map(|recording| recording.pixels.as_path()), cx)?;
        }
        found.into_iter().map(|(recording, row)| named(&recording, row, one)).collect()
    }

    /// Tells what was asked for and is not there: participants, cameras, and of each participant sequences.
    fn warn_of_absent(&self, found: &[(Recording, OutRow)], one: Option<i64>, cx: &Cx<'_>) {
        let number = |recording: &Recording| one.or_else(|| recording.participant.parse().ok());
        let there: BTreeSet<i64> = found.iter().filter_map(|(recording, _)| number(recording)).collect();
        let asked = |what: &str, absent: Vec<String>| {
            if !absent.is_empty() {
                cx.warn(&format!(
                    "`{what}` asks for {}, of which there are no recordings that are taken; `effigy import nersemble {}` lists what there is",
                    absent.join(", "),
                    self.path.display()
                ));
            }
        };
        let people = self.participants.iter().filter(|number| !there.contains(number));
        asked("participants", people.map(i64::to_string).collect());
        let has = |is_it: &dyn Fn(&Recording) -> bool| found.iter().any(|(recording, _)| is_it(recording));
        let cameras = self.cameras.iter().filter(|name| !has(&|recording| recording.camera == **name));
        asked("cameras", cameras.cloned().collect());
        let mut sequences = Vec::new();
        for &person in &there {
            let of = |name: &String| has(&|recording| number(recording) == Some(person) && recording.sequence == *name);
            let whose = if there.len() > 1 { format!(" of participant {person}") } else { String::new() };
            sequences.extend(self.sequences.iter().filter(|name| !of(name)).map(|name| format!("{name}{whose}")));
        }
        asked("sequences", sequences);
    }
}

/// The row with the number of the participant and the name of the sequence.
fn named(recording: &Recording, row: OutRow, one: Option<i64>) -> Result<OutRow> {
    let participant = one.map_or_else(|| number(&recording.participant), Ok)?;
    Ok(row.i64("participant", participant).str("sequence", &recording.sequence))
}
