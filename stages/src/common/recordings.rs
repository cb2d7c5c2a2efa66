//! The recordings of a NeRSemble capture as rows, and what its readers say of folders.
//!
//! No stage, but what the sources of such captures and the film of a synthetic one have in common. Knows where things
//! lie, not what they show.

use crate::common::faults::hinted;
use crate::common::video_reader::VideoReader;
use anyhow::{Context, Result, bail, ensure};
use datasets::colour::Correction;
use datasets::nersemble::{self, Calibrations, Recording, Wanted};
use datasets::views::{self, Middle};
use manifests::Type;
use protocol::OutRow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
