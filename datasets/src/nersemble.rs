//! The folder layout of a NeRSemble download (version 2): where videos, masks and calibration lie.
//!
//! ```text
//! {id:03}/calibration/camera_params.json     {"world_2_cam": {serial: 4x4}, "intrinsics": 3x3 or {serial: 3x3}}
//! {id:03}/sequences/{SEQ}/images/cam_{serial}.mp4
//! {id:03}/sequences/{SEQ}/alpha_maps/cam_{serial}.mp4      optional
//! ```
//! Source: the published `nersemble-data` downloader and the benchmark's variant with intrinsics for each camera. This
//! file writes and reads names and numbers; it decodes no video. Serials and participant numbers are text.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use geometry::Camera;
use serde_json::{Map, Value, json};

/// Size in pixels of a full NeRSemble picture, for which published intrinsics hold.
pub const FULL_SIZE: (u32, u32) = (2200, 3208);

/// What can be wrong with a capture on disk.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file or folder can't be read or written.
    #[error("{path}: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// A folder has nothing that looks like a recording.
    #[error("{path}: found {found}, expected {expected}")]
    NoRecordings {
        /// The folder.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
    /// A field of a calibration file is missing or has the wrong shape.
    #[error("{path}, field `{field}`: found {found}, expected {expected}")]
    Field {
        /// The file.
        path: PathBuf,
        /// Dotted path of the field.
        field: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
}

impl LayoutError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "does it exist, and may you read it?",
            Self::NoRecordings { .. } => {
                "the folder is to look as `nersemble-data` leaves a download; was it cut short?"
            }
            Self::Field { .. } => "download the participant's calibration again",
        }
    }
}

/// One video of one camera.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recording {
    /// Participant, as the folder is called, like `017`.
    pub participant: String,
    /// Sequence, like `EXP-1-head`.
    pub sequence: String,
    /// Camera serial.
    pub camera: String,
    /// The video.
    pub video: PathBuf,
    /// The matte video, if there is one.
    pub alpha: Option<PathBuf>,
    /// The participant's calibration file.
    pub calibration: PathBuf,
}

/// A calibrated camera as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Row-major 3 x 3, pixels of the size that was calibrated.
    pub intrinsics: [f64; 9],
    /// Row-major 4 x 4, OpenCV axes, metres.
    pub world_to_cam: [f64; 16],
}

impl Calibration {
    /// The camera for pictures of the calibrated size.
    pub fn camera(&self, width: u32, height: u32) -> Camera {
        Camera::from_row_major(&self.intrinsics, &self.world_to_cam, width, height)
    }

    /// The camera for pictures of `size` when the calibration holds for `calibrated` (see [`FULL_SIZE`]).
    pub fn camera_scaled(&self, calibrated: (u32, u32), size: (u32, u32)) -> Camera {
        self.camera(calibrated.0, calibrated.1).resized(size.0, size.1)
    }
}

/// Path of a participant's calibration below the root of a capture.
pub fn calibration_path(root: &Path, participant: u32) -> PathBuf {
    root.join(format!("{participant:03}/calibration/camera_params.json"))
}

/// Path of a camera's video of a sequence.
pub fn video_path(root: &Path, participant: u32, sequence: &str, serial: &str) -> PathBuf {
    root.join(format!("{participant:03}/sequences/{sequence}/images/cam_{serial}.mp4"))
}

/// Path of a camera's matte video of a sequence.
pub fn alpha_path(root: &Path, participant: u32, sequence: &str, serial: &str) -> PathBuf {
    root.join(format!("{participant:03}/sequences/{sequence}/alpha_maps/cam_{serial}.mp4"))
}

/// Writes a participant's calibration: one matrix if all cameras share their intrinsics, as in the download, else one
/// for each serial. Makes the folders that are needed.
pub fn write_calibration(root: &Path, participant: u32, cameras: &[(String, Camera)]) -> Result<PathBuf, LayoutError> {
    let path = calibration_path(root, participant);
    let rows = |values: &[f64], width: usize| Value::from(values.chunks(width).map(Value::from).collect::<Vec<_>>());
    let mut poses = Map::new();
    let mut intrinsics = Map::new();
    for (serial, camera) in cameras {
        poses.insert(serial.clone(), rows(&camera.world_to_cam_row_major(), 4));
        intrinsics.insert(serial.clone(), rows(&camera.intrinsics_row_major(), 3));
    }
    let shared = cameras.windows(2).all(|pair| pair[0].1.intrinsics == pair[1].1.intrinsics);
    let intrinsics = match cameras.first() {
        Some((serial, _)) if shared => intrinsics[serial].clone(),
        _ => Value::from(intrinsics),
    };
    let text = format!("{:#}\n", json!({ "world_2_cam": poses, "intrinsics": intrinsics }));
    let unreadable = |e: std::io::Error| LayoutError::Unreadable { path: path.clone(), reason: e.to_string() };
    fs::create_dir_all(path.parent().expect("the path has folders")).map_err(unreadable)?;
    let partial = path.with_extension("json.partial");
    fs::write(&partial, text).map_err(unreadable)?;
    fs::rename(&partial, &path).map_err(unreadable)?;
    Ok(path)
}

/// Reads a calibration file: serial -> camera.
pub fn read_calibration(path: &Path) -> Result<BTreeMap<String, Calibration>, LayoutError> {
    let text = fs::read_to_string(path)
        .map_err(|e| LayoutError::Unreadable { path: path.to_owned(), reason: e.to_string() })?;
    let field =
        |field: String, found: String, expected| LayoutError::Field { path: path.to_owned(), field, found, expected };
    let value: Value = serde_json::from_str(&text)
        .map_err(|e| field("(file)".to_owned(), format!("text that is not JSON ({e})"), "a JSON object"))?;
    let get =
        |name: &str, expected| value.get(name).ok_or_else(|| field(name.to_owned(), "nothing".to_owned(), expected));
    let poses = get("world_2_cam", "an object of 4 x 4 matrices by camera serial")?;
    let poses = poses
        .as_object()
        .ok_or_else(|| field("world_2_cam".to_owned(), kind(poses), "an object of 4 x 4 matrices by camera serial"))?;
    let intrinsics = get("intrinsics", "a 3 x 3 matrix, or an object of them by camera serial")?;
    let mut cameras = BTreeMap::new();
    for (serial, pose) in poses {
        let name = format!("world_2_cam.{serial}");
        let world_to_cam =
            matrix::<16>(pose, 4).ok_or_else(|| field(name, shape(pose), "a 4 x 4 matrix of numbers, rows first"))?;
        let own = match intrinsics {
            Value::Object(by_serial) => by_serial.get(serial).ok_or_else(|| {
                field(
                    format!("intrinsics.{serial}"),
                    "nothing".to_owned(),
                    "a 3 x 3 matrix for each serial of world_2_cam",
                )
            })?,
            shared => shared,
        };
        let name = if intrinsics.is_object() { format!("intrinsics.{serial}") } else { "intrinsics".to_owned() };
        let intrinsics =
            matrix::<9>(own, 3).ok_or_else(|| field(name, shape(own), "a 3 x 3 matrix of numbers, rows first"))?;
        cameras.insert(serial.clone(), Calibration { intrinsics, world_to_cam });
    }
    Ok(cameras)
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a truth value".to_owned(),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("the text `{s}`"),
        Value::Array(a) => format!("a list of {}", a.len()),
        Value::Object(o) => format!("an object of {}", o.len()),
    }
}

fn shape(value: &Value) -> String {
    let Some(rows) = value.as_array() else { return kind(value) };
    let Some(bad) = rows.iter().flat_map(|r| r.as_array().into_iter().flatten()).find(|x| !x.is_number()) else {
        let lengths: Vec<String> =
            rows.iter().map(|r| r.as_array().map_or("no list".to_owned(), |r| r.len().to_string())).collect();
        return format!("{} rows of lengths {}", rows.len(), lengths.join(", "));
    };
    format!("an entry that is {}", kind(bad))
}

/// `N` finite numbers in rows of `width`.
fn matrix<const N: usize>(value: &Value, width: usize) -> Option<[f64; N]> {
    let rows = value.as_array()?;
    let mut flat = Vec::with_capacity(N);
    for row in rows {
        let row = row.as_array().filter(|r| r.len() == width)?;
        for x in row {
            flat.push(x.as_f64().filter(|x| x.is_finite())?);
        }
    }
    flat.try_into().ok()
}

/// All videos below the root of a capture, sorted by participant, sequence and camera.
///
/// Participants are folders with numeric names; sequences without an `images` folder (like BACKGROUND) are passed over.
pub fn list(root: &Path) -> Result<Vec<Recording>, LayoutError> {
    let mut recordings = Vec::new();
    for participant in folders(root)?.into_iter().filter(|p| p.chars().all(|c| c.is_ascii_digit())) {
        let base = root.join(&participant);
        let calibration = base.join("calibration/camera_params.json");
        let sequences = base.join("sequences");
        if !sequences.is_dir() {
            continue;
        }
        if !calibration.is_file() {
            return Err(LayoutError::NoRecordings {
                path: calibration,
                found: "no such file".to_owned(),
                expected: "the calibration of the participant",
            });
        }
        for sequence in folders(&sequences)? {
            let images = sequences.join(&sequence).join("images");
            if !images.is_dir() {
                continue;
            }
            let files = names(&images)?;
            let mattes = sequences.join(&sequence).join("alpha_maps");
            let widow = if mattes.is_dir() { names(&mattes)?.into_iter().find(|f| !files.contains(f)) } else { None };
            if let Some(file) = widow.filter(|file| file.ends_with(".mp4")) {
                return Err(LayoutError::NoRecordings {
                    path: images.join(file),
                    found: "no such file, though its matte is there".to_owned(),
                    expected: "a video for every matte",
                });
            }
            for file in files {
                let Some(camera) = file.strip_prefix("cam_").and_then(|f| f.strip_suffix(".mp4")) else { continue };
                let alpha = sequences.join(&sequence).join("alpha_maps").join(&file);
                recordings.push(Recording {
                    participant: participant.clone(),
                    sequence: sequence.clone(),
                    camera: camera.to_owned(),
                    video: images.join(&file),
                    alpha: alpha.is_file().then_some(alpha),
                    calibration: calibration.clone(),
                });
            }
        }
    }
    if recordings.is_empty() {
        let found = folders(root)?.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        return Err(LayoutError::NoRecordings {
            path: root.to_owned(),
            found: if found.is_empty() { "no folders".to_owned() } else { format!("folders {found}") },
            expected: "{participant number}/sequences/{SEQUENCE}/images/cam_{serial}.mp4",
        });
    }
    recordings.sort_unstable();
    Ok(recordings)
}

fn names(path: &Path) -> Result<Vec<String>, LayoutError> {
    let unreadable = |e: std::io::Error| LayoutError::Unreadable { path: path.to_owned(), reason: e.to_string() };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        names.extend(entry.map_err(unreadable)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

fn folders(path: &Path) -> Result<Vec<String>, LayoutError> {
    Ok(names(path)?.into_iter().filter(|n| path.join(n).is_dir()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{SERIALS, rig};

    #[test]
    fn calibration_round_trips_and_its_errors_are_exact() {
        let root = tempfile::tempdir().unwrap();
        let cameras = rig(&SERIALS, 176, 256);
        let path = write_calibration(root.path(), 17, &cameras).unwrap();
        assert!(path.ends_with("017/calibration/camera_params.json"));
        let read = read_calibration(&path).unwrap();
        assert_eq!(read.len(), 16);
        for (serial, camera) in &cameras {
            assert_eq!(&read[serial].camera(176, 256), camera);
        }
        // Intrinsics that differ are written for each camera, and read back.
        let mut uneven = cameras.clone();
        uneven[3].1.intrinsics.x_axis.x += 1.0;
        let path = write_calibration(root.path(), 18, &uneven).unwrap();
        assert_eq!(&read_calibration(&path).unwrap()[&uneven[3].0].camera(176, 256), &uneven[3].1);

        let check = |text: &str, expected: &str| {
            fs::write(&path, text).unwrap();
            let error = read_calibration(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("{", "field `(file)`");
        check("{}", "field `world_2_cam`: found nothing");
        check(
            r#"{"world_2_cam": {"1": [[1,2],[3,4]]}, "intrinsics": []}"#,
            "`world_2_cam.1`: found 2 rows of lengths 2, 2",
        );
        let pose = "[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]";
        check(
            &format!(r#"{{"world_2_cam": {{"1": {pose}}}, "intrinsics": {{"2": []}}}}"#),
            "`intrinsics.1`: found nothing",
        );
        check(
            &format!(r#"{{"world_2_cam": {{"1": {pose}}}, "intrinsics": [[1,0,"x"],[0,1,0],[0,0,1]]}}"#),
            "`intrinsics`: found an entry that is the text `x`",
        );
    }

    #[test]
    fn lists_recordings_and_says_what_it_expected() {
        let root = tempfile::tempdir().unwrap();
        let empty = list(root.path()).unwrap_err().to_string();
        assert!(empty.contains("cam_{serial}.mp4"), "{empty}");
        write_calibration(root.path(), 1, &rig(&SERIALS[..2], 64, 64)).unwrap();
        for (sequence, serial) in [("FREE", SERIALS[1]), ("EXP-1-head", SERIALS[0])] {
            let video = video_path(root.path(), 1, sequence, serial);
            fs::create_dir_all(video.parent().unwrap()).unwrap();
            fs::write(video, b"").unwrap();
        }
        let alpha = alpha_path(root.path(), 1, "FREE", SERIALS[1]);
        fs::create_dir_all(alpha.parent().unwrap()).unwrap();
        fs::write(&alpha, b"").unwrap();
        fs::create_dir_all(root.path().join("001/sequences/BACKGROUND")).unwrap();
        let recordings = list(root.path()).unwrap();
        let found: Vec<_> =
            recordings.iter().map(|r| (r.participant.as_str(), r.sequence.as_str(), r.alpha.is_some())).collect();
        assert_eq!(found, [("001", "EXP-1-head", false), ("001", "FREE", true)]);
        assert_eq!(recordings[1].alpha.as_deref(), Some(alpha.as_path()));
    }
}
