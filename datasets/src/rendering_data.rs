//! DiffusionAvatars' folder of rendered G-buffers: names, files and their sizes, what is there and what is missing.
//!
//! ```text
//! rendering_data/v{major}.{minor}[-{name}]/
//!   config.json, stats.json                          see `config`
//!   {participant:03}/{SEQUENCE}/cam_{serial}/
//!     depths/frame_{t:05}.png        16 bit, 1 channel     clip-space depth
//!     uv/frame_{t:05}.png            16 bit, 3 channels    canonical xyz
//!     normals/frame_{t:05}.png        8 bit, 3 channels    spherical (r, theta, phi)
//!     uv_ambient/frame_{t:05}.png     8 bit, 3 channels    2 used
//!     mask/frame_{t:05}.png           8 bit, 1 channel     0 or 255
//! ```
//! Source: the published reference code (`create_renderings_dataset`). Colours are in the order in which a viewer shows
//! them. The folders that only its options for antialiasing and mipmaps write (`rast`, `uv_da`, `uvw_da`) are passed
//! over. This file knows the integers' places, not their meaning (`geometry::quantize`), and no rows.

pub mod config;
pub(crate) mod png;

use crate::fault::Fault;
use crate::files::put;
use config::{Config, Stats};
use geometry::gbuffer::EncodedGBuffer;
pub use png::{Kind, Picture};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder that holds all versions.
pub const FOLDER: &str = "rendering_data";
/// The groups of channels, each a folder and a column, in the reference's order.
pub const GROUPS: [&str; 5] = ["depths", "uv", "normals", "uv_ambient", "mask"];
/// How each of [`GROUPS`] is stored.
const KINDS: [Kind; 5] = [
    Kind { bits: 16, channels: 1 },
    Kind { bits: 16, channels: 3 },
    Kind { bits: 8, channels: 3 },
    Kind { bits: 8, channels: 3 },
    Kind { bits: 8, channels: 1 },
];

/// The name of a version's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// What it is called besides.
    pub name: Option<String>,
}

impl Version {
    /// The folder, below the one of all data, like `rendering_data/v1.1-ID-18-nphm`.
    pub fn folder(&self) -> String {
        let name = self.name.as_ref().map_or(String::new(), |name| format!("-{name}"));
        format!("{FOLDER}/v{}.{}{name}", self.major, self.minor)
    }
}

/// One view of one timestep.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    /// Participant.
    pub participant: u32,
    /// Sequence, like `EXP-1-head`.
    pub sequence: String,
    /// Camera serial.
    pub camera: String,
    /// Timestep: the number of the frame, not its row.
    pub timestep: u32,
}

impl Frame {
    /// Path of one of [`GROUPS`] below the version's folder.
    pub fn path(&self, group: &str) -> String {
        let Frame { participant, sequence, camera, timestep } = self;
        format!("{participant:03}/{sequence}/cam_{camera}/{group}/frame_{timestep:05}.png")
    }

    /// The paths of all [`GROUPS`] below a version's folder.
    pub fn paths(&self, folder: &Path) -> [PathBuf; 5] {
        GROUPS.map(|group| folder.join(self.path(group)))
    }
}

/// The PNG files of a G-buffer, in the order of [`GROUPS`].
pub fn encode(buffer: &EncodedGBuffer) -> [Vec<u8>; 5] {
    let (width, height) = (buffer.width, buffer.height);
    let bytes = |data: &[u8], channels| Picture::of_u8(width, height, channels, data.to_vec()).encode();
    let words = |data: &[u16], channels| Picture::of_u16(width, height, channels, data.to_vec()).encode();
    [
        words(&buffer.depths, 1),
        words(buffer.uv.as_flattened(), 3),
        bytes(buffer.normals.as_flattened(), 3),
        bytes(buffer.uv_ambient.as_flattened(), 3),
        bytes(&buffer.mask, 1),
    ]
}

/// Reads the PNG files of a G-buffer, in the order of [`GROUPS`].
///
/// # Errors
/// If one is missing, truncated, of another bit depth or number of channels, or of another size than the first.
pub fn read(paths: &[PathBuf; 5]) -> Result<EncodedGBuffer, Fault> {
    let mut pictures = Vec::with_capacity(5);
    for (path, kind) in paths.iter().zip(KINDS) {
        let picture = Picture::read(path, kind)?;
        let first: &Picture = pictures.first().unwrap_or(&picture);
        if (picture.width, picture.height) != (first.width, first.height) {
            return Err(Fault::field(
                path,
                "width, height",
                format!("{} x {}", picture.width, picture.height),
                format!("{} x {}, as in {}", first.width, first.height, paths[0].display()),
                "the five pictures of a frame are made together; make or copy them again",
            ));
        }
        pictures.push(picture);
    }
    let (width, height) = (pictures[0].width, pictures[0].height);
    let mut words = pictures.into_iter().map(|picture| picture.samples);
    let mut next = || words.next().unwrap_or_default();
    let (depths, uv, normals, uv_ambient, mask) = (next(), next(), next(), next(), next());
    let bytes = |words: Vec<u16>| words.into_iter().map(|word| word as u8).collect::<Vec<u8>>();
    Ok(EncodedGBuffer {
        width,
        height,
        depths,
        uv: uv.as_chunks().0.to_vec(),
        normals: bytes(normals).as_chunks().0.to_vec(),
        uv_ambient: bytes(uv_ambient).as_chunks().0.to_vec(),
        mask: bytes(mask),
    })
}

/// Writes the PNG files of a frame below a version's folder, which is made if it is not there.
///
/// # Errors
/// If a file cannot be written.
pub fn write(folder: &Path, frame: &Frame, buffer: &EncodedGBuffer) -> Result<(), Fault> {
    frame.paths(folder).iter().zip(encode(buffer)).try_for_each(|(path, bytes)| put(path, &bytes))
}

/// What a version's folder holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Frames of which all [`GROUPS`] are there, sorted.
    pub whole: Vec<Frame>,
    /// Files that are missing: of frames of which some file is there, or that the statistics promise.
    pub missing: Vec<PathBuf>,
}

/// What lies in a version's folder, by names alone; no file is opened.
///
/// # Errors
/// If the folder cannot be read.
pub fn list(folder: &Path) -> Result<Listing, Fault> {
    let mut found: [BTreeSet<Frame>; 5] = Default::default();
    let is_number = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    for person in names(folder)?.into_iter().filter(|name| is_number(name)) {
        let Ok(participant) = person.parse() else { continue };
        for sequence in folders(&folder.join(&person))? {
            let base = folder.join(&person).join(&sequence);
            for (view, camera) in folders(&base)?.iter().filter_map(|n| Some((n, n.strip_prefix("cam_")?))) {
                for (group, found) in GROUPS.iter().zip(&mut found) {
                    let place = base.join(view).join(group);
                    let files = if place.is_dir() { names(&place)? } else { Vec::new() };
                    let number = |name: &String| -> Option<u32> {
                        let digits = name.strip_prefix("frame_")?.strip_suffix(".png")?;
                        (is_number(digits) && digits.len() >= 5).then(|| digits.parse().ok())?
                    };
                    let frame = |timestep| Frame {
                        participant,
                        sequence: sequence.clone(),
                        camera: camera.to_owned(),
                        timestep,
                    };
                    found.extend(files.iter().filter_map(number).map(frame));
                }
            }
        }
    }
    let all: BTreeSet<&Frame> = found.iter().flatten().collect();
    let mut listing = Listing::default();
    for frame in all {
        let lacking =
            (0..GROUPS.len()).filter(|i| !found[*i].contains(frame)).map(|i| folder.join(frame.path(GROUPS[i])));
        let before = listing.missing.len();
        listing.missing.extend(lacking);
        if listing.missing.len() == before {
            listing.whole.push(frame.clone());
        }
    }
    Ok(listing)
}

/// Reads `config.json` and `stats.json` of a version's folder and lists what they promise and what is there.
///
/// # Errors
/// If one of the two files is missing or wrong, if they disagree with each other, or if there are pictures that the
/// statistics do not know of. Pictures that are missing are listed.
pub fn open(folder: &Path) -> Result<(Config, Stats, Listing), Fault> {
    let config = Config::read(&folder.join("config.json"))?;
    let place = folder.join("stats.json");
    let stats = Stats::read(&place)?;
    let wrong = |field: &str, found: String, expected: String| {
        Fault::field(
            &place,
            field,
            found,
            expected,
            "are config.json, stats.json and the folders of the same version? remove what an earlier one left, or make it again",
        )
    };
    let timesteps: usize = stats.sequences.iter().map(|s| s.timesteps.len()).sum();
    for (field, found, expected) in [
        ("total_n_timesteps", stats.total_n_timesteps, timesteps),
        ("total_n_frames", stats.total_n_frames, timesteps * config.serials.len()),
    ] {
        if found != expected {
            return Err(wrong(
                field,
                found.to_string(),
                format!("{expected}, counted from `available_sequences` and the cameras"),
            ));
        }
    }
    let named: BTreeSet<(u32, &str)> = stats.sequences.iter().map(|s| (s.participant, s.sequence.as_str())).collect();
    let wanted: BTreeSet<(u32, &str)> = config.sequences.iter().map(|(p, s)| (*p, s.as_str())).collect();
    if let Some((p, s)) = named.symmetric_difference(&wanted).next() {
        let (found, expected) = if named.contains(&(*p, s)) { ("", "no ") } else { ("no ", "") };
        let field = format!("available_sequences.{p}.{s}");
        return Err(wrong(
            &field,
            format!("{found}such sequence"),
            format!("{expected}such sequence, as in config.json"),
        ));
    }
    let mut listing = list(folder)?;
    let promised: BTreeSet<Frame> = stats.frames(&config.serials).collect();
    let there: BTreeSet<&Frame> = listing.whole.iter().collect();
    if let Some(frame) = listing.whole.iter().find(|frame| !promised.contains(frame)) {
        let Frame { participant, sequence, camera, timestep } = frame;
        return Err(wrong(
            &format!("available_sequences.{participant}.{sequence}"),
            format!("no timestep {timestep} of camera {camera}"),
            format!("it to be named, for {} is there", frame.path(GROUPS[0])),
        ));
    }
    let absent = promised.iter().filter(|frame| !there.contains(frame)).flat_map(|frame| frame.paths(folder));
    listing.missing = absent.filter(|path| !path.is_file()).collect();
    Ok((config, stats, listing))
}

/// The first of the missing files as an error, with their number.
pub fn missing_files(missing: &[PathBuf]) -> Option<Fault> {
    Some(Fault::whole(
        missing.first()?,
        match missing.len() {
            1 => "no such file".into(),
            n => format!("no such file, nor {} others", n - 1),
        },
        "a picture for each timestep of stats.json and camera of config.json",
        "was the copy cut short? make or copy it again, or take only what is whole",
    ))
}

/// Names in a folder, sorted.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, Fault> {
    let unreadable = |e: std::io::Error| Fault::unreadable(path, e);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        names.extend(entry.map_err(unreadable)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Names of folders in a folder, sorted.
pub(crate) fn folders(path: &Path) -> Result<Vec<String>, Fault> {
    Ok(names(path)?.into_iter().filter(|n| path.join(n).is_dir()).collect())
}

#[cfg(test)]
mod tests;
