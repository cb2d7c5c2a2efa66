//! The folder of NPHM tracking as DiffusionAvatars reads it (layout D of a NeRSemble capture).
//!
//! ```text
//! nersemble/{participant:03}/sequences/{SEQUENCE}/annotations/tracking/NPHM_temp_wNeck[_wLMs]/
//!   {t:05}_local_new.CTM                        OpenCTM mesh, see `ctm`
//!   {t:05}_canonical_vertices_uint16.npz        arr_0: [V, 5] u16, by `geometry::quantize::VERTEX_CANONICAL`
//!   {t:05}_ex_code.npz                          arr_0: [200] f32; other widths are written and read, too
//! ```
//! Vertices of the mesh are in the space of the head model ("scaled NPHM", 1 unit = 25 cm), posed but not placed: the
//! reference divides them by 4 (FLAME space) and takes them to the world with the rotation, scale and translation of
//! the FLAME tracking. With a pose of ours that is `x_world = R (s x / 4) + t`. Source: the reference code,
//! specification sections 1.1, 2.1 and 8.2 D. This file fits and places nothing, and knows of FLAME parameters only
//! where they lie.

pub mod ctm;
mod npz;

use crate::fault::Fault;
use crate::files::put;
use crate::rendering_data::{folders, names};
use geometry::Mesh;
use geometry::quantize::{VERTEX_CANONICAL, with_ambient_in_range};
use std::path::Path;

/// The FLAME tracking beside the NPHM fits, which takes them to the world: as the reference's config names it, and the
/// name of its folder.
pub const FLAME: (&str, &str) = ("FLAME_2023_V2", "FLAME2023_v2");

/// Path of a sequence's FLAME tracking ([`crate::nersemble::write_flame`]) below the folder of all data.
pub fn flame_path(participant: u32, sequence: &str) -> String {
    let (_, folder) = FLAME;
    format!("nersemble/{participant:03}/sequences/{sequence}/annotations/tracking/{folder}/tracked_flame_params.npz")
}

/// The tracking that the reference uses for a participant: as its config names it, and the name of its folder.
pub fn folder(participant: u32) -> (&'static str, &'static str) {
    match participant {
        18 | 37 => ("NPHM_TEMPORAL_NECK", "NPHM_temp_wNeck"),
        _ => ("NPHM_TEMPORAL_NECK_LMS", "NPHM_temp_wNeck_wLMs"),
    }
}

/// A tracked frame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tracked {
    /// Participant.
    pub participant: u32,
    /// Sequence.
    pub sequence: String,
    /// Timestep: the number of the frame.
    pub timestep: u32,
}

impl Tracked {
    fn path(&self, ending: &str) -> String {
        let Tracked { participant, sequence, timestep } = self;
        let (_, folder) = folder(*participant);
        format!("nersemble/{participant:03}/sequences/{sequence}/annotations/tracking/{folder}/{timestep:05}_{ending}")
    }

    /// Path of the mesh below the folder of all data.
    pub fn mesh(&self) -> String {
        self.path("local_new.CTM")
    }

    /// Path of the canonical coordinates below the folder of all data.
    pub fn canonical(&self) -> String {
        self.path("canonical_vertices_uint16.npz")
    }

    /// Path of the expression code below the folder of all data.
    pub fn expression(&self) -> String {
        self.path("ex_code.npz")
    }
}

/// The frames below the folder of all data of which there is an expression code, sorted; of each participant in the
/// folder that the reference looks into.
///
/// # Errors
/// If a folder cannot be read, or there is none of them.
pub fn list(root: &Path) -> Result<Vec<Tracked>, Fault> {
    let base = root.join("nersemble");
    let mut frames = Vec::new();
    for (person, participant) in folders(&base)?.iter().filter_map(|name| Some((name, digits(name)?))) {
        let sequences = base.join(person).join("sequences");
        for sequence in if sequences.is_dir() { folders(&sequences)? } else { Vec::new() } {
            let numbers = timesteps(&sequences.join(&sequence), participant)?;
            let tracked = |timestep| Tracked { participant, sequence: sequence.clone(), timestep };
            frames.extend(numbers.into_iter().map(tracked));
        }
    }
    if frames.is_empty() {
        return Err(Fault::field(
            &base,
            "(folder)",
            "no expression code",
            "{participant:03}/sequences/{SEQUENCE}/annotations/tracking/NPHM_temp_wNeck[_wLMs]/{t:05}_ex_code.npz",
            "the folder is to be the one that holds `nersemble/`, as the reference's archives unpack",
        ));
    }
    frames.sort_unstable();
    Ok(frames)
}

/// Timesteps of which the folder of a sequence has an expression code, where the reference looks for that
/// participant's; none if there is no such folder.
///
/// # Errors
/// If the folder cannot be read.
pub fn timesteps(sequence: &Path, participant: u32) -> Result<Vec<u32>, Fault> {
    let place = sequence.join("annotations/tracking").join(folder(participant).1);
    let files = if place.is_dir() { names(&place)? } else { Vec::new() };
    Ok(files.iter().filter_map(|name| digits(name.strip_suffix("_ex_code.npz")?)).collect())
}

fn digits(name: &str) -> Option<u32> {
    name.bytes().all(|b| b.is_ascii_digit()).then(|| name.parse().ok())?
}

/// Writes an expression code.
///
/// # Errors
/// If the file cannot be written.
pub fn write_expression(path: &Path, code: &[f32]) -> Result<(), Fault> {
    put(path, &npz::pack(&[code.len() as u64], code))
}

/// Reads an expression code, of whatever width.
///
/// # Errors
/// If the file is missing or damaged, or `arr_0` is no list of finite f32.
pub fn read_expression(path: &Path) -> Result<Vec<f32>, Fault> {
    let (shape, code) = npz::read::<f32>(path)?;
    if shape.len() != 1 {
        return Err(npz::wrong(path, "arr_0", format!("shape {shape:?}"), "[N]".into()));
    }
    match code.iter().position(|value| !value.is_finite()) {
        Some(i) => Err(npz::wrong(path, &format!("arr_0[{i}]"), code[i].to_string(), "a finite number".into())),
        None => Ok(code),
    }
}

/// Writes the canonical position and the two ambient coordinates of every vertex, in NPHM units.
///
/// # Errors
/// If a position is outside of the quantiser's range, or the file cannot be written.
pub fn write_canonical(path: &Path, canonical: &[[f32; 5]]) -> Result<(), Fault> {
    let canonical: Vec<[f32; 5]> = canonical.iter().map(|c| with_ambient_in_range(*c)).collect();
    let bins = VERTEX_CANONICAL.encode(&canonical).map_err(|error| {
        let what = format!("canonical coordinates (entries are vertices): {error}");
        Fault::unfit(what, "they are positions of the head model, of which a unit is 25 cm; nothing was written")
    })?;
    put(path, &npz::pack(&[bins.len() as u64, 5], bins.as_flattened()))
}

/// Reads the canonical coordinates of `vertices` vertices.
///
/// # Errors
/// If the file is missing or damaged, or `arr_0` is not `[vertices, 5]` of u16.
pub fn read_canonical(path: &Path, vertices: usize) -> Result<Vec<[f32; 5]>, Fault> {
    let (shape, bins) = npz::read::<u16>(path)?;
    let expected = [vertices as u64, 5];
    if shape != expected {
        let (found, expected) =
            (format!("shape {shape:?}"), format!("{expected:?}, a row for each vertex of the mesh"));
        return Err(npz::wrong(path, "arr_0", found, expected));
    }
    Ok(VERTEX_CANONICAL.decode(bins.as_chunks().0))
}

/// A mesh with the canonical coordinates of its vertices, as two files of this folder hold them.
///
/// # Errors
/// As [`ctm::read`] and [`read_canonical`].
pub fn read_mesh(mesh: &Path, canonical: &Path) -> Result<(Mesh, Vec<[f32; 5]>), Fault> {
    let mesh = ctm::read(mesh)?;
    let canonical = read_canonical(canonical, mesh.positions.len())?;
    Ok((mesh, canonical))
}

#[cfg(test)]
mod tests;
