//! Reading Wavefront OBJ: positions and faces of one mesh, whatever groups, materials, normals and texture coordinates
//! the file has besides.
//!
//! Vertices keep the order of the file, which is what makes scans of one topology correspond. Polygons are cut into
//! fans; negative numbers count from the end, as the format has it. Colours behind positions are passed over. Writing
//! is `exchange`'s.

use std::path::{Path, PathBuf};

use glam::Vec3;

use crate::mesh::Mesh;

/// What can be wrong with an OBJ file.
#[derive(Debug, thiserror::Error)]
pub enum ObjError {
    /// The file cannot be read.
    #[error("{path}: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// A line makes no sense.
    #[error("{path}: line {line}: {message}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counting from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The file holds no mesh.
    #[error("{path}: no {missing} in {bytes} bytes; is it an OBJ file, and whole?")]
    Empty {
        /// The file.
        path: PathBuf,
        /// What there is none of.
        missing: &'static str,
        /// Size of the file.
        bytes: usize,
    },
}

/// Reads a mesh.
///
/// # Errors
/// If the file cannot be read or is no text, a position has fewer than three numbers or one that is not finite, a face
/// has fewer than three corners or names a vertex that does not exist, or there are no vertices or no faces.
pub fn read(path: &Path) -> Result<Mesh, ObjError> {
    let bytes = std::fs::read(path).map_err(|reason| ObjError::Io { path: path.to_owned(), reason })?;
    let text = String::from_utf8_lossy(&bytes);
    let mut mesh = Mesh::default();
    for (i, line) in text.lines().enumerate() {
        let wrong = |message: String| ObjError::Line { path: path.to_owned(), line: i + 1, message };
        let mut words = line.split_whitespace();
        match words.next() {
            Some("v") => {
                let numbers: Vec<f32> = words.take(3).filter_map(|word| word.parse().ok()).collect();
                let [x, y, z] = numbers[..] else {
                    return Err(wrong(format!(
                        "`{line}` is no position: three numbers were expected; is the file cut off?"
                    )));
                };
                if ![x, y, z].iter().all(|v| v.is_finite()) {
                    return Err(wrong(format!("`{line}` is no place")));
                }
                mesh.positions.push(Vec3::new(x, y, z));
            }
            Some("f") => {
                let corners: Vec<u32> =
                    words.map(|word| corner(word, mesh.positions.len()).map_err(&wrong)).collect::<Result<_, _>>()?;
                if corners.len() < 3 {
                    return Err(wrong(format!(
                        "`{line}` is no face: three corners or more were expected; is the file cut off?"
                    )));
                }
                mesh.faces.extend((1..corners.len() - 1).map(|k| [corners[0], corners[k], corners[k + 1]]));
            }
            _ => {}
        }
    }
    let empty = |missing| ObjError::Empty { path: path.to_owned(), missing, bytes: bytes.len() };
    if mesh.positions.is_empty() {
        return Err(empty("vertex"));
    }
    if mesh.faces.is_empty() {
        return Err(empty("face"));
    }
    Ok(mesh)
}

/// The vertex of a corner `v`, `v/vt`, `v//vn` or `v/vt/vn`, counting from 0.
fn corner(word: &str, vertices: usize) -> Result<u32, String> {
    let number: i64 = word.split('/').next().and_then(|v| v.parse().ok()).ok_or(format!("`{word}` names no vertex"))?;
    let index = if number < 0 { number + vertices as i64 } else { number - 1 };
    if number == 0 || index < 0 || index >= vertices as i64 {
        return Err(format!("a face names vertex {number}, and there are {vertices} so far"));
    }
    Ok(index as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, text: &str) -> Result<Mesh, String> {
        let path = std::env::temp_dir().join(format!("effigy-{name}-{}.obj", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let read = read(&path).map_err(|error| error.to_string());
        std::fs::remove_file(&path).unwrap();
        read
    }

    #[test]
    fn faces_of_every_form_are_read() {
        let text = "# a square\nmtllib a.mtl\no square\nv 0 0 0 0.5 0.5 0.5\nv 1 0 0\r\nv 1 1 0\nvn 0 0 1\nv 0 1.5e0 0\nusemtl red\nf 1/1/1 2/2/1 3/3/1 4/4/1\nf -4//1 -3//1 -2//1\nf 1/2 2/3 4/1\n";
        let mesh = parse("forms", text).unwrap();
        assert_eq!(mesh.positions[3], Vec3::new(0.0, 1.5, 0.0));
        assert_eq!(mesh.faces, [[0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 1, 3]]);
    }

    #[test]
    fn what_was_written_is_read() {
        let mesh = Mesh { positions: vec![Vec3::new(0.1, -2.0, 1e-5), Vec3::X, Vec3::Y], faces: vec![[0, 1, 2]] };
        let path = std::env::temp_dir().join(format!("effigy-round-{}.obj", std::process::id()));
        crate::exchange::write_obj(&path, &mesh).unwrap();
        assert_eq!(read(&path).unwrap(), mesh);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_cut_file_is_told_by_its_line() {
        let said = parse("cut", "v 0 0 0\nv 1 0").unwrap_err();
        assert!(said.contains("line 2") && said.contains("cut off"), "{said}");
        let said = parse("face", "v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2").unwrap_err();
        assert!(said.contains("line 4") && said.contains("no face"), "{said}");
        let said = parse("beyond", "v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 4\n").unwrap_err();
        assert!(said.contains("names vertex 4, and there are 3"), "{said}");
        let said = parse("far", "v 0 0 inf\n").unwrap_err();
        assert!(said.contains("no place"), "{said}");
        assert!(parse("cloud", "v 0 0 0\n").unwrap_err().contains("no face"));
        assert!(parse("other", "\u{0}\u{1}").unwrap_err().contains("no vertex"));
    }
}
