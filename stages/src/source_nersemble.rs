//! `source_nersemble`: the recordings of a NeRSemble capture in any of its four layouts, a row per video or picture.
//!
//! no rows in   writes: participant, sequence, camera, timestep (of pictures), video or image, matte_video or matte, background,
//! color_transform or color_polynomial, intrinsics, world_to_cam, width, height; columns that do not apply are null
//!
//! Intrinsics are for images of `width x height` px, which is the size they were calibrated at. Knows where things lie, not
//! what they show (see `datasets::nersemble` for the layouts).

use crate::common::media::VideoReader;
use crate::common::video::ensure_one_rate;
use anyhow::{Context, Result, bail, ensure};
use datasets::colour::Correction;
use datasets::nersemble::{self, Calibrations, LayoutError, Recording, Wanted};
use datasets::views::{self, Middle};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

/// What is known of a recording besides participant and sequence.
pub const COLUMNS: [(&str, Type); 13] = [
    ("camera", Type::Str),
    ("timestep", Type::I64),
    ("video", Type::Blob),
    ("image", Type::Blob),
    ("matte_video", Type::Blob),
    ("matte", Type::Blob),
    ("background", Type::Blob),
    ("color_transform", Type::Floats(12)),
    ("color_polynomial", Type::Floats(0)),
    ("intrinsics", Type::Floats(9)),
    ("world_to_cam", Type::Floats(16)),
    ("width", Type::I64),
    ("height", Type::I64),
];

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
        for (what, names, of) in [
            ("sequences", &self.sequences, (|r| &r.sequence) as fn(&Recording) -> &String),
            ("cameras", &self.cameras, |r| &r.camera),
        ] {
            let is_absent = |name: &&String| found.iter().all(|(recording, _)| of(recording) != *name);
            let absent: Vec<&str> = names.iter().filter(is_absent).map(String::as_str).collect();
            if !absent.is_empty() {
                cx.warn(&format!(
                    "`{what}` asks for {}, of which there are no recordings that are taken; `effigy import nersemble {}` lists what there is",
                    absent.join(", "),
                    self.path.display()
                ));
            }
        }
        // the recordings of a sequence stand together
        for group in found.chunk_by(|(a, _), (b, _)| (&a.participant, &a.sequence) == (&b.participant, &b.sequence)) {
            let videos = group.iter().map(|(recording, _)| recording).filter(|recording| recording.timestep.is_none());
            ensure_one_rate(videos.map(|recording| recording.pixels.as_path()), cx)?;
        }
        found.into_iter().map(|(recording, row)| named(&recording, row, one)).collect()
    }
}

/// The row with the number of the participant and the name of the sequence.
fn named(recording: &Recording, row: OutRow, one: Option<i64>) -> Result<OutRow> {
    let participant = one.map_or_else(|| number(&recording.participant), Ok)?;
    Ok(row.i64("participant", participant).str("sequence", &recording.sequence))
}

/// The participant that is given with a folder of one; none if the folder holds many, whose folders are their numbers.
///
/// # Errors
/// If it is not given with the one, or given with many.
pub fn participant_of(path: &Path, given: Option<i64>) -> Result<Option<i64>> {
    match (path.join("sequences").is_dir(), given) {
        (true, None) => {
            let name = path.file_name().and_then(|name| name.to_str()?.parse::<i64>().ok());
            bail!(
                "{} is the folder of one participant, and nothing in it says of which\nhint: set `participant: {}`, or `path` to the folder of all",
                path.display(),
                name.map_or("NUMBER".to_string(), |number| number.to_string())
            )
        }
        (false, Some(number)) => bail!(
            "`participant: {number}` is for the folder of one participant, which {} is not\nhint: leave it out, or set `path` to the folder of that one",
            path.display()
        ),
        (_, given) => Ok(given),
    }
}

/// The number that is a participant's folder's name.
///
/// # Errors
/// If it is none.
pub fn number(participant: &str) -> Result<i64> {
    participant.parse().with_context(|| format!("a participant's folder is a number, not `{participant}`"))
}

/// An error with its hint.
pub fn hinted(error: LayoutError) -> anyhow::Error {
    anyhow::anyhow!("{error}\nhint: {}", error.hint())
}

/// Width and height of a video or picture, px.
///
/// # Errors
/// If it cannot be read; the message names it.
pub fn size(pixels: &Path) -> Result<(u32, u32)> {
    if pixels.extension().is_some_and(|ext| ext == "mp4") {
        return VideoReader::open(pixels)?.size();
    }
    let unreadable = || {
        format!(
            "cannot read the size of the picture {}\nhint: is it whole? copy or download it again",
            pixels.display()
        )
    };
    // by its content, whatever it is called
    let picture = image::ImageReader::open(pixels).and_then(image::ImageReader::with_guessed_format);
    picture.with_context(unreadable)?.into_dimensions().with_context(unreadable)
}

/// The recordings below a folder that are wanted, each with its row of [`COLUMNS`].
///
/// # Errors
/// If there are none at all, or a calibration is unreadable or lacks a camera.
pub fn rows(root: &Path, calibrated_size: Option<(u32, u32)>, wanted: Wanted<'_>) -> Result<Vec<(Recording, OutRow)>> {
    let mut calibrations: BTreeMap<PathBuf, Calibrations> = BTreeMap::new();
    // principal points and sizes of pictures by calibration and camera
    let mut middles: BTreeMap<PathBuf, BTreeMap<String, Middle>> = BTreeMap::new();
    let mut rows = Vec::new();
    for recording in nersemble::list(root, wanted).map_err(hinted)? {
        if !calibrations.contains_key(&recording.calibration) {
            let calibration = nersemble::read_calibration(&recording.calibration).map_err(hinted)?;
            calibrations.insert(recording.calibration.clone(), calibration);
        }
        let calibration = &calibrations[&recording.calibration];
        let camera = calibration.cameras.get(&recording.camera).with_context(|| {
            format!(
                "{} has no camera {}, which has a recording\nhint: is it the calibration of this participant?",
                recording.calibration.display(),
                recording.camera
            )
        })?;
        let (width, height) = match calibrated_size.or(calibration.size) {
            Some(size) => size,
            None => size(&recording.pixels)?,
        };
        let [cx, cy] = [camera.intrinsics[2], camera.intrinsics[5]];
        ensure!(
            (0.0..f64::from(width)).contains(&cx) && (0.0..f64::from(height)).contains(&cy),
            "{}: the principal point of camera {} is ({cx}, {cy}) px, expected a place in its pictures of {width} x {height} px\n\
             hint: a calibration is for pictures of one size, which `calibrated_size: [WIDTH, HEIGHT]` says",
            recording.calibration.display(),
            recording.camera
        );
        let of_this = middles.entry(recording.calibration.clone()).or_default();
        of_this.entry(recording.camera.clone()).or_insert(([cx, cy], (width, height)));
        let [pixels, matte] = if recording.timestep.is_some() { ["image", "matte"] } else { ["video", "matte_video"] };
        let mut row = OutRow::new()
            .str("camera", &recording.camera)
            .file(pixels, &recording.pixels)
            .floats("intrinsics", camera.intrinsics)
            .floats("world_to_cam", camera.world_to_cam)
            .i64("width", width)
            .i64("height", height);
        if let Some(timestep) = recording.timestep {
            row = row.i64("timestep", timestep);
        }
        if let Some(path) = &recording.matte {
            row = row.file(matte, path);
        }
        if let Some(path) = &recording.background {
            row = row.file("background", path);
        }
        row = match &recording.colour {
            None => row,
            Some(path) => match nersemble::read_colour(path, &recording.camera).map_err(hinted)? {
                Correction::Affine(matrix) => row.floats("color_transform", matrix),
                Correction::Polynomial(matrix) => row.floats("color_polynomial", matrix),
            },
        };
        rows.push((recording, row));
    }
    for (calibration, cameras) in &middles {
        let all: Vec<Middle> = cameras.values().copied().collect();
        if let Some([width, height]) = views::of_another_size(&all) {
            bail!(
                "{}: the principal points of its cameras are the middle of pictures of about {width} x {height} px, expected that of pictures of {} x {}\n\
                 hint: a calibration is for pictures of one size, which `calibrated_size: [WIDTH, HEIGHT]` says",
                calibration.display(),
                all[0].1.0,
                all[0].1.1
            );
        }
    }
    Ok(rows)
}
