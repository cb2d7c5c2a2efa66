//! Triangle meshes in OpenCTM files: positions and triangles.
//!
//! Source: the format specification of OpenCTM 1.0 (file format version 5). Written is the method RAW; read are RAW and
//! MG1 (byte planes packed by LZMA), which is what the library writes unless told otherwise. MG2 is refused: it stores
//! vertices in another order than they were given, so that per-vertex values of other files fit no longer. Normals,
//! texture coordinates and attributes lie behind the vertices and are not read.

use crate::fault::Fault;
use crate::files::put;
use geometry::Mesh;
use glam::Vec3;
use lzma_rs::decompress::{Options, UnpackedSize};
use std::path::Path;

/// The format's version.
const VERSION: u32 = 5;
/// Vertices and triangles of the largest mesh that is read.
const LARGEST: u32 = 1 << 26;

/// Writes a mesh as RAW.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, mesh: &Mesh) -> Result<(), Fault> {
    put(path, &pack(mesh))
}

/// The bytes of a RAW file.
pub fn pack(mesh: &Mesh) -> Vec<u8> {
    let mut file = b"OCTM".to_vec();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    file.extend(words(&[VERSION]));
    file.extend(b"RAW\0");
    // counts of vertices, triangles, texture maps and attributes; flags; length of the comment
    file.extend(words(&[mesh.positions.len() as u32, mesh.faces.len() as u32, 0, 0, 0, 0]));
    file.extend(b"INDX");
    file.extend(words(mesh.faces.as_flattened()));
    file.extend(b"VERT");
    file.extend(mesh.positions.iter().flat_map(|p| p.to_array()).flat_map(f32::to_le_bytes));
    file
}

/// Reads a mesh. Of MG1 files the triangles come in the order of the file, the vertices in their own.
///
/// # Errors
/// If the file is missing, truncated or of another method, or a triangle has a vertex that is not there.
pub fn read(path: &Path) -> Result<Mesh, Fault> {
    let bytes = std::fs::read(path).map_err(|e| Fault::unreadable(path, e))?;
    let mut file = Reader { path, length: bytes.len(), rest: &bytes };
    file.tag("magic", b"OCTM")?;
    let version = file.word("version")?;
    if version != VERSION {
        return Err(file.wrong("version", version.to_string(), VERSION.to_string()));
    }
    let method = file.take("method", 4)?;
    let packed = match method {
        b"RAW\0" => false,
        b"MG1\0" => true,
        other => {
            let found = String::from_utf8_lossy(other).trim_end_matches('\0').to_owned();
            return Err(file.wrong("method", format!("`{found}`"), "RAW or MG1".into()));
        }
    };
    let counts = [file.word("vertex count")?, file.word("triangle count")?];
    if let Some(count) = counts.iter().find(|count| **count > LARGEST) {
        return Err(file.wrong("vertex count, triangle count", count.to_string(), format!("at most {LARGEST}")));
    }
    let [vertices, triangles] = counts.map(|count| count as usize);
    for field in ["texture map count", "attribute count", "flags"] {
        file.word(field)?;
    }
    let comment = file.word("comment")? as usize;
    file.take("comment", comment)?;
    file.tag("INDX", b"INDX")?;
    let mut faces: Vec<[u32; 3]> = file.words("INDX", triangles * 3, 3, packed)?.as_chunks().0.to_vec();
    if packed {
        restore(&mut faces);
    }
    if let Some(i) = faces.iter().position(|face| face.iter().any(|v| *v as usize >= vertices)) {
        let found = format!("triangle {i} of the vertices {:?}", faces[i]);
        return Err(file.wrong("INDX", found, format!("indices below {vertices}")));
    }
    file.tag("VERT", b"VERT")?;
    let values: Vec<f32> = file.words("VERT", vertices * 3, 1, packed)?.into_iter().map(f32::from_bits).collect();
    if let Some(i) = values.iter().position(|value| !value.is_finite()) {
        return Err(file.wrong("VERT", format!("{} at vertex {}", values[i], i / 3), "finite numbers".into()));
    }
    let positions = values.as_chunks().0.iter().map(|p| Vec3::from_array(*p)).collect();
    Ok(Mesh { positions, faces })
}

/// Undoes MG1's differences: of the first index to that of the triangle before, of the third to the first, and of the
/// second to that of the triangle before if that begins with the same vertex, else to the first.
fn restore(faces: &mut [[u32; 3]]) {
    let mut before: Option<[u32; 3]> = None;
    for face in faces {
        let [a, b, c] = *face;
        let a = a.wrapping_add(before.map_or(0, |last| last[0]));
        let base = before.filter(|last| last[0] == a).map_or(a, |last| last[1]);
        *face = [a, b.wrapping_add(base), c.wrapping_add(a)];
        before = Some(*face);
    }
}

/// What is left of a file.
struct Reader<'a> {
    path: &'a Path,
    length: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn wrong(&self, field: &str, found: String, expected: String) -> Fault {
        Fault::field(
            self.path,
            field,
            found,
            expected,
            "OpenCTM's methods RAW and MG1 are read here. A file that was MG2 once has another order of vertices, which no conversion takes back: export it anew",
        )
    }

    fn take(&mut self, field: &str, count: usize) -> Result<&'a [u8], Fault> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            let at = self.length - self.rest.len();
            let found = format!("the end of the file after {} bytes", self.length);
            return Err(self.wrong(field, found, format!("{count} bytes from byte {at} on")));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn tag(&mut self, field: &str, tag: &[u8; 4]) -> Result<(), Fault> {
        let found = self.take(field, 4)?;
        if found != tag {
            let text = |bytes: &[u8]| format!("`{}`", bytes.escape_ascii());
            return Err(self.wrong(field, text(found), text(tag)));
        }
        Ok(())
    }

    fn word(&mut self, field: &str) -> Result<u32, Fault> {
        let bytes = self.take(field, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// `count` words in entries of `width`, plain or packed.
    fn words(&mut self, field: &str, count: usize, width: usize, packed: bool) -> Result<Vec<u32>, Fault> {
        if !packed {
            let bytes = self.take(field, count * 4)?;
            return Ok(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect());
        }
        let length = self.word(field)? as usize;
        // the five bytes of LZMA's properties are not counted
        let mut stream = self.take(field, length + 5)?;
        let options = Options {
            unpacked_size: UnpackedSize::UseProvided(Some(count as u64 * 4)),
            memlimit: Some((count * 4).max(1 << 16) + (1 << 20)),
            allow_incomplete: false,
        };
        let mut planes = Vec::new();
        let unpacked = lzma_rs::lzma_decompress_with_options(&mut stream, &mut planes, &options);
        if let Err(error) = unpacked {
            return Err(self.wrong(
                field,
                format!("LZMA data that cannot be unpacked ({error:?})"),
                "whole data".into(),
            ));
        }
        if planes.len() != count * 4 {
            return Err(self.wrong(field, format!("{} bytes", planes.len()), format!("{} bytes", count * 4)));
        }
        // four planes of bytes, the highest first; in each, the first words of all entries, then the second ones
        // (indices are entries of three words, coordinates of one)
        let entries = count / width;
        let word = |i: usize| {
            let at = i % width * entries + i / width;
            u32::from_be_bytes([0, 1, 2, 3].map(|plane| planes[plane * count + at]))
        };
        Ok((0..count).map(word).collect())
    }
}
