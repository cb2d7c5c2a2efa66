//! Meshes as other programs take them: Wavefront OBJ and binary glTF 2.0 (GLB).
//!
//! Positions are written as they are. glTF means metres in a right-handed frame with +y up, an asset's front to +z and
//! faces counter-clockwise from outside (glTF 2.0, section 3.4), and so does our world; OBJ has no convention, and says
//! in a comment which one it was given. Nothing is read here, and nothing is known of what the attributes mean.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use glam::Vec3;
use gltf::json;
use json::accessor::{ComponentType, GenericComponentType, Type};
use json::validation::Checked::Valid;
use json::validation::USize64;
use json::{Index, Root};

use crate::mesh::Mesh;

/// Why a mesh cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The file cannot be written.
    #[error("cannot write {path}: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The format cannot hold this mesh.
    #[error("cannot write {path}: {message}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// Values of the vertices that a GLB carries beside position and normal, one for each vertex.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Pairs.
    Vec2(&'a [[f32; 2]]),
    /// Triples.
    Vec3(&'a [[f32; 3]]),
}

impl Values<'_> {
    fn parts(&self) -> (Type, &[f32], usize) {
        match self {
            Values::Vec2(values) => (Type::Vec2, values.as_flattened(), values.len()),
            Values::Vec3(values) => (Type::Vec3, values.as_flattened(), values.len()),
        }
    }
}

/// Writes a mesh with its vertex normals as an OBJ file: `v`, `vn`, and faces `f a//a b//b c//c`, counted from 1.
/// Coordinates have as many digits as it takes to read the same numbers again.
///
/// # Errors
/// If the mesh has no faces, a face names a vertex that does not exist, a coordinate is not finite, or the file cannot
/// be written.
pub fn write_obj(path: &Path, mesh: &Mesh) -> Result<(), ExchangeError> {
    check(path, mesh)?;
    let mut text = String::from("# metres, right-handed, +y up, the front to +z\n");
    let mut line = |word: &str, v: Vec3| {
        // writing to a string does not fail
        let _ = writeln!(text, "{word} {} {} {}", v.x, v.y, v.z);
    };
    mesh.positions.iter().for_each(|p| line("v", *p));
    normals(mesh).iter().for_each(|n| line("vn", *n));
    for [a, b, c] in mesh.faces.iter().map(|f| f.map(|v| v + 1)) {
        let _ = writeln!(text, "f {a}//{a} {b}//{b} {c}//{c}");
    }
    save(path, text.as_bytes())
}

/// Writes a mesh with its vertex normals as a GLB file: one scene with one node and one mesh of this name, its material
/// a matt grey that is seen from both sides. Attributes are written under their names behind an underscore, as glTF
/// asks of an application's own ("CANONICAL" is `_CANONICAL` in the file).
///
/// # Errors
/// As [`write_obj()`]; and if an attribute's name is not of capital letters, digits and underscores, or it has not one
/// value for each vertex.
pub fn write_glb(path: &Path, name: &str, mesh: &Mesh, attributes: &[(&str, Values<'_>)]) -> Result<(), ExchangeError> {
    check(path, mesh)?;
    let content = |message| ExchangeError::Content { path: path.to_owned(), message };
    for (name, values) in attributes {
        let (_, numbers, count) = values.parts();
        if count != mesh.positions.len() {
            let n = mesh.positions.len();
            return Err(content(format!("{count} values of `{name}` for {n} vertices; give one for each")));
        }
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
            return Err(content(format!("`{name}` is no name of an attribute; take capital letters, digits and `_`")));
        }
        if let Some(number) = numbers.iter().find(|number| !number.is_finite()) {
            return Err(content(format!("`{name}` holds {number}, which glTF does not allow")));
        }
    }
    let floats = |vectors: &[Vec3]| vectors.iter().flat_map(|v| v.to_array()).collect::<Vec<f32>>();
    let mut file = Contents::default();
    let positions = file.vertices(Type::Vec3, &floats(&mesh.positions));
    if let Some((low, high)) = mesh.bounds() {
        let accessor = &mut file.root.accessors[positions.value()];
        accessor.min = Some(json::Value::from(low.to_array().to_vec()));
        accessor.max = Some(json::Value::from(high.to_array().to_vec()));
    }
    let normals = file.vertices(Type::Vec3, &floats(&normals(mesh)));
    let mut all = std::collections::BTreeMap::from([
        (Valid(json::mesh::Semantic::Positions), positions),
        (Valid(json::mesh::Semantic::Normals), normals),
    ]);
    for (name, values) in attributes {
        let (ty, numbers, _) = values.parts();
        all.insert(Valid(json::mesh::Semantic::Extras((*name).to_string())), file.vertices(ty, numbers));
    }
    let corners = mesh.faces.as_flattened();
    let bytes = corners.iter().flat_map(|v| v.to_le_bytes());
    let target = json::buffer::Target::ElementArrayBuffer;
    let indices = file.accessor(target, ComponentType::U32, Type::Scalar, corners.len(), bytes);
    let material = file.root.push(json::Material {
        double_sided: true,
        pbr_metallic_roughness: json::material::PbrMetallicRoughness {
            base_color_factor: json::material::PbrBaseColorFactor([0.8, 0.8, 0.8, 1.0]),
            metallic_factor: json::material::StrengthFactor(0.0),
            roughness_factor: json::material::StrengthFactor(0.7),
            ..Default::default()
        },
        ..Default::default()
    });
    let primitive = json::mesh::Primitive {
        attributes: all,
        indices: Some(indices),
        material: Some(material),
        mode: Valid(json::mesh::Mode::Triangles),
        extensions: None,
        extras: Default::default(),
        targets: None,
    };
    let named = Some(name.to_string());
    let drawn = json::Mesh {
        name: named.clone(),
        primitives: vec![primitive],
        extensions: None,
        extras: Default::default(),
        weights: None,
    };
    let drawn = file.root.push(drawn);
    let node = file.root.push(json::Node { name: named, mesh: Some(drawn), ..Default::default() });
    let scene =
        file.root.push(json::Scene { name: None, nodes: vec![node], extensions: None, extras: Default::default() });
    file.root.scene = Some(scene);
    file.root.asset.generator = Some("effigy".into());
    let bytes = file.glb().map_err(|error| content(error.to_string()))?;
    save(path, &bytes)
}

/// The JSON of a GLB, and the buffer that it speaks of.
#[derive(Default)]
struct Contents {
    root: Root,
    buffer: Vec<u8>,
}

impl Contents {
    /// Adds numbers of vertices.
    fn vertices(&mut self, ty: Type, values: &[f32]) -> Index<json::Accessor> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        let count = values.len() / ty.multiplicity();
        self.accessor(json::buffer::Target::ArrayBuffer, ComponentType::F32, ty, count, bytes)
    }

    /// Adds an array. Its elements are of four bytes or several of them, so that each begins where glTF wants it.
    fn accessor(
        &mut self,
        target: json::buffer::Target,
        component: ComponentType,
        ty: Type,
        count: usize,
        bytes: impl Iterator<Item = u8>,
    ) -> Index<json::Accessor> {
        let start = self.buffer.len();
        self.buffer.extend(bytes);
        let view = self.root.push(json::buffer::View {
            // the only buffer, which is added last
            buffer: Index::new(0),
            byte_length: USize64::from(self.buffer.len() - start),
            byte_offset: Some(USize64::from(start)),
            byte_stride: None,
            name: None,
            target: Some(Valid(target)),
            extensions: None,
            extras: Default::default(),
        });
        self.root.push(json::Accessor {
            buffer_view: Some(view),
            byte_offset: None,
            count: USize64::from(count),
            component_type: Valid(GenericComponentType(component)),
            type_: Valid(ty),
            min: None,
            max: None,
            name: None,
            normalized: false,
            sparse: None,
            extensions: None,
            extras: Default::default(),
        })
    }

    fn glb(mut self) -> Result<Vec<u8>, gltf::Error> {
        self.root.push(json::Buffer {
            byte_length: USize64::from(self.buffer.len()),
            name: None,
            uri: None,
            extensions: None,
            extras: Default::default(),
        });
        let text = json::serialize::to_string(&self.root)?;
        let header = gltf::binary::Header { magic: *b"glTF", version: 2, length: 0 };
        gltf::Glb { header, json: text.into_bytes().into(), bin: Some(self.buffer.into()) }.to_vec()
    }
}

/// Unit normals; a vertex that has none, for lack of a face with an area, gets +z, since both formats ask for one of
/// length 1.
fn normals(mesh: &Mesh) -> Vec<Vec3> {
    mesh.vertex_normals().into_iter().map(|n| if n == Vec3::ZERO { Vec3::Z } else { n }).collect()
}

fn check(path: &Path, mesh: &Mesh) -> Result<(), ExchangeError> {
    let n = mesh.positions.len();
    let message = if mesh.faces.is_empty() {
        "the mesh has no faces".to_string()
    } else if let Some(face) = mesh.faces.iter().find(|f| f.iter().any(|v| *v as usize >= n)) {
        format!("face {face:?} names a vertex that does not exist; there are {n}")
    } else if let Some((i, p)) = mesh.positions.iter().enumerate().find(|(_, p)| !p.is_finite()) {
        format!("vertex {i} lies at {p}, which is no place")
    } else {
        return Ok(());
    };
    Err(ExchangeError::Content { path: path.to_owned(), message })
}

fn save(path: &Path, bytes: &[u8]) -> Result<(), ExchangeError> {
    std::fs::write(path, bytes).map_err(|reason| ExchangeError::Io { path: path.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gltf::Semantic;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("effigy-exchange-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir.join(name)
    }

    /// Most of a ball with awkward coordinates, and a vertex without a face.
    fn mesh() -> Mesh {
        let center = Vec3::new(0.1, -0.2, 0.3);
        let field = |points: &[Vec3]| points.iter().map(|p| (*p - center).length() - 0.1).collect::<Vec<f32>>();
        let ball = crate::band::extract(&field, center - 0.15, center + 0.15, 9, 1);
        let (mut mesh, _) = ball.select_faces(|f| f % 7 != 0);
        mesh.positions.push(Vec3::new(1.0 / 3.0, -1e-7, 1234.5));
        mesh
    }

    /// Two attributes that tell vertices and components apart.
    fn values(n: usize) -> (Vec<[f32; 3]>, Vec<[f32; 2]>) {
        let third = |i: usize| i as f32 / 3.0;
        ((0..n).map(|i| [third(i), -third(i), 0.5]).collect(), (0..n).map(|i| [0.25, third(i)]).collect())
    }

    fn written(mesh: &Mesh, name: &str) -> Vec<u8> {
        let (canonical, ambient) = values(mesh.positions.len());
        let attributes = [("CANONICAL", Values::Vec3(&canonical)), ("AMBIENT", Values::Vec2(&ambient))];
        write_glb(&scratch(name), "head", mesh, &attributes).unwrap();
        std::fs::read(scratch(name)).unwrap()
    }

    /// The numbers of an accessor, by nothing but what the file says of it.
    fn floats(accessor: &gltf::Accessor<'_>, bin: &[u8]) -> Vec<f32> {
        assert_eq!(accessor.data_type(), gltf::accessor::DataType::F32);
        let view = accessor.view().unwrap();
        assert_eq!((view.stride(), accessor.offset()), (None, 0));
        let bytes = &bin[view.offset()..view.offset() + view.length()];
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    #[test]
    fn a_glb_holds_every_vertex_face_and_attribute() {
        let mesh = mesh();
        // `Gltf::from_slice` validates, too
        let read = gltf::Gltf::from_slice(&written(&mesh, "a.glb")).unwrap();
        let bin = read.blob.as_deref().unwrap();
        let scene = read.default_scene().unwrap();
        let node = scene.nodes().next().unwrap();
        // nothing moves, turns or scales what is in metres
        assert_eq!(
            node.transform().matrix(),
            gltf::scene::Transform::Decomposed {
                translation: [0.0; 3],
                rotation: [0.0, 0.0, 0.0, 1.0],
                scale: [1.0; 3],
            }
            .matrix()
        );
        let drawn = node.mesh().unwrap();
        assert_eq!((drawn.name(), drawn.primitives().len()), (Some("head"), 1));
        let primitive = drawn.primitives().next().unwrap();
        assert_eq!(primitive.mode(), gltf::mesh::Mode::Triangles);
        let reader = primitive.reader(|buffer| (buffer.index() == 0).then_some(bin));
        let positions: Vec<Vec3> = reader.read_positions().unwrap().map(Vec3::from).collect();
        let corners: Vec<u32> = reader.read_indices().unwrap().into_u32().collect();
        assert_eq!((&positions, corners.as_slice()), (&mesh.positions, mesh.faces.as_flattened()));
        let bounds = primitive.bounding_box();
        assert_eq!((Vec3::from(bounds.min), Vec3::from(bounds.max)), mesh.bounds().unwrap());
        let normals: Vec<Vec3> = reader.read_normals().unwrap().map(Vec3::from).collect();
        let n = mesh.positions.len();
        assert!(normals.iter().all(|n| (n.length() - 1.0).abs() < 1e-5));
        assert_eq!((normals[..n - 1].to_vec(), normals[n - 1]), (mesh.vertex_normals()[..n - 1].to_vec(), Vec3::Z));
        // outwards, as the order of the corners says
        let center = Vec3::new(0.1, -0.2, 0.3);
        assert!(mesh.faces.iter().all(|f| (positions[f[0] as usize] - center).dot(normals[f[0] as usize]) > 0.0));
        let (canonical, ambient) = values(n);
        let attribute = |name: &str| floats(&primitive.get(&Semantic::Extras(name.into())).unwrap(), bin);
        assert_eq!(attribute("CANONICAL"), canonical.as_flattened());
        assert_eq!(attribute("AMBIENT"), ambient.as_flattened());
        let text = String::from_utf8(gltf::Glb::from_slice(&written(&mesh, "a.glb")).unwrap().json.into()).unwrap();
        assert!(text.contains("\"_CANONICAL\"") && text.contains("\"_AMBIENT\""), "{text}");
    }

    #[test]
    fn the_same_mesh_is_the_same_file() {
        assert_eq!(written(&mesh(), "b.glb"), written(&mesh(), "c.glb"));
    }

    #[test]
    fn an_obj_is_read_back_to_the_last_bit() {
        let mesh = mesh();
        write_obj(&scratch("a.obj"), &mesh).unwrap();
        let (models, _) = tobj::load_obj(scratch("a.obj"), &tobj::LoadOptions::default()).unwrap();
        let [read] = &models[..] else { panic!("{} models", models.len()) };
        let read = &read.mesh;
        // the reader leaves out a vertex that no face names, and keeps the order of the others as the faces name them
        let at = |i: usize| Vec3::from_slice(&read.positions[3 * i..3 * i + 3]);
        let normal = |i: usize| Vec3::from_slice(&read.normals[3 * i..3 * i + 3]);
        let normals = mesh.vertex_normals();
        assert_eq!(read.indices.len(), mesh.faces.as_flattened().len());
        for ((v, w), expected) in read.indices.iter().zip(&read.normal_indices).zip(mesh.faces.as_flattened()) {
            assert_eq!(at(*v as usize), mesh.positions[*expected as usize]);
            assert_eq!(normal(*w as usize), normals[*expected as usize]);
        }
    }

    #[test]
    fn what_the_formats_cannot_hold_is_named() {
        let write = |mesh: &Mesh, name: &str, values: Values<'_>| {
            write_glb(&scratch("no.glb"), "x", mesh, &[(name, values)]).unwrap_err().to_string()
        };
        let mesh = mesh();
        let n = mesh.positions.len();
        let (canonical, ambient) = values(n);
        assert!(write(&mesh, "canonical", Values::Vec3(&canonical)).contains("capital letters"));
        let short = write(&mesh, "AMBIENT", Values::Vec2(&ambient[1..]));
        assert!(
            short.contains(&format!("{} values of `AMBIENT` for {n}", n - 1)) && short.contains("no.glb"),
            "{short}"
        );
        assert!(write(&mesh, "AMBIENT", Values::Vec2(&vec![[f32::NAN, 0.0]; n])).contains("NaN"));
        let mut nowhere = mesh.clone();
        nowhere.positions[2].y = f32::INFINITY;
        assert!(write_obj(&scratch("no.obj"), &nowhere).unwrap_err().to_string().contains("vertex 2"));
        assert!(write_obj(&scratch("no.obj"), &Mesh::default()).unwrap_err().to_string().contains("no faces"));
        let error = write_obj(&scratch("no/such/folder.obj"), &mesh).unwrap_err().to_string();
        assert!(error.contains("no/such/folder.obj"), "{error}");
    }
}
