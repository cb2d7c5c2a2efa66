//! PLY files: point clouds and meshes, with any number of extra float properties per vertex.
//!
//! Written are `x y z`, `nx ny nz` and `red green blue` where present, extra properties as `float`, and faces as a
//! `uchar`-counted list of `int`, binary little endian. Read are files of all three formats: other property types are
//! converted, other elements skipped, polygons cut into fans.

use std::io::Write;
use std::path::{Path, PathBuf};

use glam::Vec3;

use crate::cloud::PointCloud;
use crate::mesh::Mesh;

/// What can be wrong with a PLY file.
#[derive(Debug, thiserror::Error)]
pub enum PlyError {
    /// The file cannot be read or written.
    #[error("{path}: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The header is not one that this reader understands.
    #[error("{path}: line {line} of the header: {message}")]
    Header {
        /// The file.
        path: PathBuf,
        /// Counting from 1.
        line: usize,
        /// What is wrong, and what to do about it.
        message: String,
    },
    /// The file ends before its last element.
    #[error("{path}: cut off at {bytes} bytes, at {element} {index} of {count}, property `{property}`; copy it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Name of the element.
        element: String,
        /// Index of the element that is incomplete.
        index: usize,
        /// How many of them the header promises.
        count: usize,
        /// The property at which the data ends.
        property: String,
        /// Size of the file.
        bytes: usize,
    },
    /// A property is missing, or its values make no sense.
    #[error("{path}: {message}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// Everything a PLY file holds that this crate has a use for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ply {
    /// Positions and faces; without faces it is a point cloud.
    pub mesh: Mesh,
    /// One per vertex, or empty.
    pub normals: Vec<Vec3>,
    /// One per vertex, or empty.
    pub colors: Vec<[u8; 3]>,
    /// Further properties of the vertices, by name, in file order; each has one value per vertex.
    pub properties: Vec<(String, Vec<f32>)>,
}

impl Ply {
    /// The values of an extra property.
    pub fn property(&self, name: &str) -> Option<&[f32]> {
        self.properties.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice())
    }
}

/// Writes a point cloud.
///
/// # Errors
/// If normals or colours are neither absent nor one per point, or the file cannot be written.
pub fn write_cloud(path: &Path, cloud: &PointCloud) -> Result<(), PlyError> {
    let mesh = Mesh { positions: cloud.positions.clone(), faces: Vec::new() };
    write(path, &Ply { mesh, normals: cloud.normals.clone(), colors: cloud.colors.clone(), properties: Vec::new() })
}

/// Writes a mesh with extra per-vertex properties (name, one value per vertex).
///
/// # Errors
/// As [`write()`].
pub fn write_mesh(path: &Path, mesh: &Mesh, properties: &[(&str, &[f32])]) -> Result<(), PlyError> {
    let properties = properties.iter().map(|(n, v)| (n.to_string(), v.to_vec())).collect();
    write(path, &Ply { mesh: mesh.clone(), properties, ..Default::default() })
}

/// Reads a point cloud. Faces and extra properties are ignored, and so are points whose place or normal is not a
/// number: programs that reconstruct surfaces write them where they found none.
///
/// # Errors
/// As [`read`].
pub fn read_cloud(path: &Path) -> Result<PointCloud, PlyError> {
    let ply = read(path)?;
    let cloud = PointCloud { positions: ply.mesh.positions, normals: ply.normals, colors: ply.colors };
    let is_sound = |i: &usize| cloud.positions[*i].is_finite() && cloud.normals.get(*i).is_none_or(|n| n.is_finite());
    let sound: Vec<usize> = (0..cloud.positions.len()).filter(is_sound).collect();
    if sound.len() == cloud.positions.len() {
        return Ok(cloud);
    }
    let take =
        |values: &[Vec3]| if values.is_empty() { Vec::new() } else { sound.iter().map(|i| values[*i]).collect() };
    Ok(PointCloud {
        positions: take(&cloud.positions),
        normals: take(&cloud.normals),
        colors: if cloud.colors.is_empty() { Vec::new() } else { sound.iter().map(|i| cloud.colors[*i]).collect() },
    })
}

/// Writes positions, faces (if any) and everything the vertices carry.
///
/// # Errors
/// If an attribute does not have one entry per vertex, a property's name is not one word, a face names a vertex that
/// does not exist, or the file cannot be written.
pub fn write(path: &Path, ply: &Ply) -> Result<(), PlyError> {
    let content = |message| PlyError::Content { path: path.to_owned(), message };
    let n = ply.mesh.positions.len();
    let lengths = [("normals", ply.normals.len()), ("colors", ply.colors.len())];
    let extra = ply.properties.iter().map(|(name, v)| (name.as_str(), v.len()));
    for (name, length) in lengths.into_iter().filter(|(_, l)| *l > 0).chain(extra) {
        if length != n {
            return Err(content(format!(
                "cannot write {length} values of `{name}` for {n} vertices; give one for each"
            )));
        }
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(content(format!("`{name}` cannot be a property's name; it must be one word")));
        }
    }
    if let Some(face) = ply.mesh.faces.iter().find(|f| f.iter().any(|v| *v as usize >= n)) {
        return Err(content(format!("face {face:?} names a vertex that does not exist; there are {n}")));
    }

    let mut out = format!("ply\nformat binary_little_endian 1.0\nelement vertex {n}\n").into_bytes();
    let mut declare = |kind: &str, names: &[&str]| {
        names.iter().for_each(|name| out.extend_from_slice(format!("property {kind} {name}\n").as_bytes()));
    };
    declare("float", &["x", "y", "z"]);
    if !ply.normals.is_empty() {
        declare("float", &["nx", "ny", "nz"]);
    }
    if !ply.colors.is_empty() {
        declare("uchar", &["red", "green", "blue"]);
    }
    ply.properties.iter().for_each(|(name, _)| declare("float", &[name.as_str()]));
    if !ply.mesh.faces.is_empty() {
        let header = format!("element face {}\nproperty list uchar int vertex_indices\n", ply.mesh.faces.len());
        out.extend_from_slice(header.as_bytes());
    }
    out.extend_from_slice(b"end_header\n");
    for i in 0..n {
        let vector = |v: Vec3| v.to_array().into_iter().flat_map(f32::to_le_bytes);
        out.extend(vector(ply.mesh.positions[i]));
        if let Some(normal) = ply.normals.get(i) {
            out.extend(vector(*normal));
        }
        if let Some(color) = ply.colors.get(i) {
            out.extend_from_slice(color);
        }
        ply.properties.iter().for_each(|(_, v)| out.extend_from_slice(&v[i].to_le_bytes()));
    }
    for face in &ply.mesh.faces {
        out.push(3);
        face.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
    }
    let io = |reason| PlyError::Io { path: path.to_owned(), reason };
    std::fs::File::create(path).and_then(|mut file| file.write_all(&out)).map_err(io)
}

#[derive(Clone, Copy, PartialEq)]
enum Scalar {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    F32,
    F64,
}

impl Scalar {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "char" | "int8" => Self::I8,
            "uchar" | "uint8" => Self::U8,
            "short" | "int16" => Self::I16,
            "ushort" | "uint16" => Self::U16,
            "int" | "int32" => Self::I32,
            "uint" | "uint32" => Self::U32,
            "float" | "float32" => Self::F32,
            "double" | "float64" => Self::F64,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Of little endian bytes; f64 holds every value of all these types.
    fn decode(self, b: &[u8]) -> f64 {
        match self {
            Self::I8 => f64::from(b[0] as i8),
            Self::U8 => f64::from(b[0]),
            Self::I16 => f64::from(i16::from_le_bytes([b[0], b[1]])),
            Self::U16 => f64::from(u16::from_le_bytes([b[0], b[1]])),
            Self::I32 => f64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Self::U32 => f64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Self::F32 => f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Self::F64 => f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        }
    }
}

/// How values are written.
#[derive(Clone, Copy)]
enum Form {
    Little,
    Big,
    Text,
}

impl Form {
    /// The value at a place, which moves on; what stands there if it is no number, nothing if the file ends.
    fn next(self, kind: Scalar, bytes: &[u8], at: &mut usize) -> Result<f64, Option<String>> {
        if let Form::Text = self {
            let rest = &bytes[(*at).min(bytes.len())..];
            let blank = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
            let word = rest[blank..].split(u8::is_ascii_whitespace).next().unwrap_or_default();
            *at += blank + word.len();
            let text = String::from_utf8_lossy(word);
            return text.parse().map_err(|_| (!text.is_empty()).then(|| text.chars().take(40).collect()));
        }
        let end = *at + kind.size();
        let value = bytes.get(*at..end).ok_or(None)?;
        *at = end;
        let mut own = [0; 8];
        own[..value.len()].copy_from_slice(value);
        if let Form::Big = self {
            own[..value.len()].reverse();
        }
        Ok(kind.decode(&own))
    }
}

struct Property {
    name: String,
    value: Scalar,
    /// For lists, the type of the count.
    count: Option<Scalar>,
}

struct Element {
    name: String,
    count: usize,
    properties: Vec<Property>,
}

/// Reads a PLY file.
///
/// # Errors
/// If the file cannot be read, is of no known format, is cut off, has vertices without `x`, `y`, `z`, or faces that
/// name vertices that do not exist. Every error names the file and the place.
pub fn read(path: &Path) -> Result<Ply, PlyError> {
    let bytes = std::fs::read(path).map_err(|reason| PlyError::Io { path: path.to_owned(), reason })?;
    let (elements, form, mut at) = parse_header(path, &bytes)?;
    let content = |message| PlyError::Content { path: path.to_owned(), message };
    let mut ply = Ply::default();
    for element in &elements {
        let (is_vertex, is_face) = (element.name == "vertex", element.name == "face");
        // A header can promise anything; no more is allocated than the file can hold.
        let room = element.count.min(bytes.len());
        let mut columns: Vec<Vec<f64>> =
            element.properties.iter().map(|_| Vec::with_capacity(if is_vertex { room } else { 0 })).collect();
        // without properties there is nothing of them in the file, however many a header promises
        let count = if element.properties.is_empty() { 0 } else { element.count };
        for index in 0..count {
            for (p, property) in element.properties.iter().enumerate() {
                let mut take = |kind: Scalar| {
                    form.next(kind, &bytes, &mut at).map_err(|found| match found {
                        Some(text) => content(format!(
                            "`{text}` is no number, at {} {index} of {}, property `{}`",
                            element.name, element.count, property.name
                        )),
                        None => PlyError::Truncated {
                            path: path.to_owned(),
                            element: element.name.clone(),
                            index,
                            count: element.count,
                            property: property.name.clone(),
                            bytes: bytes.len(),
                        },
                    })
                };
                let Some(count) = property.count else {
                    let value = take(property.value)?;
                    if is_vertex {
                        columns[p].push(value);
                    }
                    continue;
                };
                let corners = take(count)? as i64;
                let mut polygon = Vec::new();
                for _ in 0..corners {
                    polygon.push(take(property.value)?);
                }
                if is_face && (property.name == "vertex_indices" || property.name == "vertex_index") {
                    if let Some(v) = polygon.iter().find(|v| **v < 0.0 || **v > f64::from(u32::MAX)) {
                        return Err(content(format!("face {index} names vertex {v}, which cannot exist")));
                    }
                    let polygon: Vec<u32> = polygon.into_iter().map(|v| v as u32).collect();
                    ply.mesh.faces.extend((2..polygon.len()).map(|k| [polygon[0], polygon[k - 1], polygon[k]]));
                }
            }
        }
        if is_vertex {
            store_vertices(&mut ply, element, columns).map_err(content)?;
        }
    }
    let n = ply.mesh.positions.len();
    if let Some(face) = ply.mesh.faces.iter().find(|f| f.iter().any(|v| *v as usize >= n)) {
        return Err(content(format!("face {face:?} names a vertex that does not exist; there are {n}")));
    }
    Ok(ply)
}

fn store_vertices(ply: &mut Ply, element: &Element, columns: Vec<Vec<f64>>) -> Result<(), String> {
    let find = |name: &str| element.properties.iter().position(|p| p.name == name && p.count.is_none());
    let triple = |names: [&str; 3]| Some([find(names[0])?, find(names[1])?, find(names[2])?]);
    let vectors = |t: [usize; 3]| -> Vec<Vec3> {
        (0..element.count).map(|i| Vec3::from_array(t.map(|c| columns[c][i] as f32))).collect()
    };
    let position = triple(["x", "y", "z"]).ok_or("its vertices lack one of the properties `x`, `y`, `z`")?;
    let normal = triple(["nx", "ny", "nz"]);
    let color = triple(["red", "green", "blue"]);
    ply.mesh.positions = vectors(position);
    ply.normals = normal.map(vectors).unwrap_or_default();
    if let Some(t) = color {
        // Float colours run from 0 to 1, integer ones to 255.
        let is_float = |c: usize| matches!(element.properties[c].value, Scalar::F32 | Scalar::F64);
        let level = |c: usize, i: usize| (columns[c][i] * if is_float(c) { 255.0 } else { 1.0 }).round() as u8;
        ply.colors = (0..element.count).map(|i| t.map(|c| level(c, i))).collect();
    }
    let named: Vec<usize> = [Some(position), normal, color].into_iter().flatten().flatten().collect();
    for (p, property) in element.properties.iter().enumerate().filter(|(p, q)| q.count.is_none() && !named.contains(p))
    {
        ply.properties.push((property.name.clone(), columns[p].iter().map(|v| *v as f32).collect()));
    }
    Ok(())
}

/// The elements that the header announces, how they are written, and where the data begins.
fn parse_header(path: &Path, bytes: &[u8]) -> Result<(Vec<Element>, Form, usize), PlyError> {
    let mut elements: Vec<Element> = Vec::new();
    let mut form = None;
    let mut start = 0;
    for line in 1.. {
        let fail = |message: &str| PlyError::Header { path: path.to_owned(), line, message: message.to_owned() };
        let Some(length) = bytes[start..].iter().position(|b| *b == b'\n') else {
            return Err(fail(if line == 1 { "this is not a PLY file" } else { "the file ends before `end_header`" }));
        };
        let text = String::from_utf8_lossy(&bytes[start..start + length]);
        start += length + 1;
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            _ if line == 1 => {
                if words != ["ply"] {
                    return Err(fail("this is not a PLY file; the first line must be `ply`"));
                }
            }
            [] | ["comment" | "obj_info", ..] => {}
            ["format", "binary_little_endian", _] => form = Some(Form::Little),
            ["format", "binary_big_endian", _] => form = Some(Form::Big),
            ["format", "ascii", _] => form = Some(Form::Text),
            ["format", other, ..] => {
                return Err(fail(&format!("there is no format `{other}`; save the file as binary little endian")));
            }
            ["element", name, count] => {
                let count = count.parse().map_err(|_| fail(&format!("`{count}` is not a number of elements")))?;
                elements.push(Element { name: name.to_owned(), count, properties: Vec::new() });
            }
            ["property", "list", count, value, name] => {
                let (Some(count), Some(value)) = (Scalar::parse(count), Scalar::parse(value)) else {
                    return Err(fail(&format!("unknown type in `{text}`")));
                };
                let element = elements.last_mut().ok_or_else(|| fail("a property comes before any element"))?;
                element.properties.push(Property { name: name.to_owned(), value, count: Some(count) });
            }
            ["property", kind, name] => {
                let value = Scalar::parse(kind).ok_or_else(|| fail(&format!("unknown type `{kind}`")))?;
                let element = elements.last_mut().ok_or_else(|| fail("a property comes before any element"))?;
                element.properties.push(Property { name: name.to_owned(), value, count: None });
            }
            ["end_header"] => {
                let form = form.ok_or_else(|| fail("the header has no line `format`; save the file again"))?;
                return Ok((elements, form, start));
            }
            _ => return Err(fail(&format!("cannot make sense of `{text}`"))),
        }
    }
    unreachable!("lines are counted without end")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of its own for each test, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("geometry-ply-{}-{name}.ply", std::process::id())))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn points_that_are_no_numbers_are_left_out_of_clouds() {
        let scratch = Scratch::new("nan");
        let hole = Vec3::new(0.0, f32::NAN, 0.0);
        let cloud = PointCloud {
            positions: vec![Vec3::X, hole, Vec3::Y, Vec3::Z],
            normals: vec![Vec3::X, Vec3::Y, hole, Vec3::Z],
            colors: vec![[1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]],
        };
        write_cloud(&scratch.0, &cloud).unwrap();
        let read = read_cloud(&scratch.0).unwrap();
        assert_eq!(read.positions, [Vec3::X, Vec3::Z]);
        assert_eq!(read.normals, [Vec3::X, Vec3::Z]);
        assert_eq!(read.colors, [[1, 1, 1], [4, 4, 4]]);
    }

    fn example() -> Ply {
        let positions = vec![Vec3::ZERO, Vec3::X, Vec3::Y, Vec3::new(0.1, f32::MIN_POSITIVE, -1e30)];
        Ply {
            mesh: Mesh { positions, faces: vec![[0, 1, 2], [2, 1, 3]] },
            normals: vec![Vec3::Z; 4],
            colors: vec![[0, 128, 255]; 4],
            properties: vec![("canonical_x".into(), vec![0.5, 1.5, -2.0, 0.1]), ("w".into(), vec![1.0; 4])],
        }
    }

    #[test]
    fn round_trip_is_exact() {
        let file = Scratch::new("round");
        write(&file.0, &example()).unwrap();
        let back = read(&file.0).unwrap();
        assert_eq!(back, example());
        assert_eq!(back.property("w"), Some(&[1.0f32; 4][..]));
        let cloud = read_cloud(&file.0).unwrap();
        write_cloud(&file.0, &cloud).unwrap();
        assert_eq!(read_cloud(&file.0).unwrap(), cloud);
    }

    #[test]
    fn every_truncation_is_an_error_that_names_the_place() {
        let file = Scratch::new("cut");
        write(&file.0, &example()).unwrap();
        let whole = std::fs::read(&file.0).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&file.0, &whole[..length]).unwrap();
            assert!(read(&file.0).is_err(), "{length} of {} bytes", whole.len());
        }
        let message = read(&file.0).unwrap_err().to_string();
        assert!(
            message.contains("face 1 of 2, property `vertex_indices`") && message.contains("-cut.ply"),
            "{message}"
        );
    }

    #[test]
    fn foreign_types_quads_and_elements() {
        let file = Scratch::new("foreign");
        let header = "ply\r\nformat binary_little_endian 1.0\r\ncomment x\r\nelement camera 1\r\nproperty short a\r\n\
            element vertex 4\r\nproperty double x\r\nproperty double y\r\nproperty double z\r\n\
            property list uchar char n\r\n\
            element face 1\r\nproperty list ushort uint vertex_index\r\nend_header\r\n";
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(7i16.to_le_bytes());
        for v in 0..4 {
            (0..3).for_each(|c| bytes.extend(f64::from(10 * v + c).to_le_bytes()));
            bytes.extend([1, 9]);
        }
        bytes.extend(4u16.to_le_bytes());
        (0..4u32).for_each(|v| bytes.extend(v.to_le_bytes()));
        std::fs::write(&file.0, &bytes).unwrap();
        let ply = read(&file.0).unwrap();
        assert_eq!(ply.mesh.positions[3], Vec3::new(30.0, 31.0, 32.0));
        assert_eq!(ply.mesh.faces, [[0, 1, 2], [0, 2, 3]]);
        std::fs::write(&file.0, "ply\nformat xml 1.0\nend_header\n").unwrap();
        assert!(read(&file.0).unwrap_err().to_string().contains("line 2"));
        std::fs::write(&file.0, "ply\nend_header\n").unwrap();
        assert!(read(&file.0).unwrap_err().to_string().contains("no line `format`"));
    }

    #[test]
    fn text_and_big_endian_say_the_same() {
        let file = Scratch::new("forms");
        let header = |form: &str| {
            format!(
                "ply\nformat {form} 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty double z\n\
                 property uchar red\nproperty uchar green\nproperty uchar blue\nelement face 1\n\
                 property list uchar int vertex_indices\nend_header\n"
            )
        };
        let text = "0 -0.5 1e-3 255 0 1\r\n 1 2 3 4 5 6\n7.25 8 9 10 11 12\n3 0 1 2\n";
        std::fs::write(&file.0, header("ascii") + text).unwrap();
        let said = read(&file.0).unwrap();
        assert_eq!(
            said.mesh.positions,
            [Vec3::new(0.0, -0.5, 0.001), Vec3::new(1.0, 2.0, 3.0), Vec3::new(7.25, 8.0, 9.0)]
        );
        assert_eq!(
            (&said.colors[..], &said.mesh.faces[..]),
            (&[[255, 0, 1], [4, 5, 6], [10, 11, 12]][..], &[[0, 1, 2]][..])
        );
        let mut bytes = header("binary_big_endian").into_bytes();
        for (xy, z, colour) in
            [([0.0f32, -0.5], 1e-3, [255, 0, 1]), ([1.0, 2.0], 3.0, [4, 5, 6]), ([7.25, 8.0], 9.0, [10, 11, 12])]
        {
            xy.iter().for_each(|v| bytes.extend(v.to_be_bytes()));
            bytes.extend(f64::to_be_bytes(z));
            bytes.extend(colour);
        }
        bytes.push(3);
        (0..3i32).for_each(|v| bytes.extend(v.to_be_bytes()));
        std::fs::write(&file.0, bytes).unwrap();
        assert_eq!(read(&file.0).unwrap(), said);

        let fault = |text: &str| {
            std::fs::write(&file.0, header("ascii") + text).unwrap();
            read(&file.0).unwrap_err().to_string()
        };
        let error = fault(&text.replace("7.25", "seven"));
        assert!(error.contains("`seven` is no number, at vertex 2 of 3, property `x`"), "{error}");
        let error = fault("0 0 0 0 0 0\n1 1");
        assert!(error.contains("at vertex 1 of 3, property `z`"), "{error}");
    }

    #[test]
    fn mismatched_attributes_are_not_written() {
        let file = Scratch::new("mismatch");
        let mut ply = example();
        ply.colors.pop();
        assert!(write(&file.0, &ply).unwrap_err().to_string().contains("3 values of `colors`"));
        assert!(write_mesh(&file.0, &example().mesh, &[("two words", &[0.0; 4])]).is_err());
    }
}
