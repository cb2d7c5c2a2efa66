//! Point clouds in the Point Cloud Library's files (`.pcd`, version 0.7): ASCII, binary, and binary compressed by LZF.
//!
//! Text is also written. Positions are needed; normals (`normal_x ...`) and colours (`rgb` or `rgba`, packed) are taken
//! where they are. Every other field is passed over. Nothing in a header makes this file reserve more memory than the
//! file is long, save for the points themselves when LZF says that they grow. Knows no units.

use crate::cloud::PointCloud;
use glam::Vec3;
use std::path::{Path, PathBuf};

/// What can be wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum PcdError {
    /// It cannot be read.
    #[error("{path}: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// It is no such file, or a damaged one.
    #[error("{path}, {place}: found {found}, expected {expected}")]
    Content {
        /// Which.
        path: PathBuf,
        /// The header line or part.
        place: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
}

/// A field: where its first value lies in a point, and how it is stored.
struct Field {
    name: String,
    offset: usize,
    size: usize,
    kind: u8,
    count: usize,
}

impl Field {
    fn value(&self, bytes: &[u8]) -> Option<f32> {
        let b = bytes.get(..self.size)?;
        Some(match (self.kind, self.size) {
            (b'F', 4) => f32::from_le_bytes(b.try_into().ok()?),
            (b'F', 8) => f64::from_le_bytes(b.try_into().ok()?) as f32,
            (b'U', 1) => f32::from(b[0]),
            (b'U', 4) => u32::from_le_bytes(b.try_into().ok()?) as f32,
            (b'I', 4) => i32::from_le_bytes(b.try_into().ok()?) as f32,
            _ => return None,
        })
    }
}

/// Writes a point cloud as text: positions, and normals if it has them.
///
/// # Errors
/// If the file cannot be written.
pub fn write_cloud(path: &Path, cloud: &PointCloud) -> Result<(), PcdError> {
    let n = cloud.len();
    let (names, width) = if cloud.normals.is_empty() { ("x y z", 3) } else { ("x y z normal_x normal_y normal_z", 6) };
    let each = |word: &str| vec![word; width].join(" ");
    let mut text = format!(
        "# .PCD v0.7\nVERSION 0.7\nFIELDS {names}\nSIZE {}\nTYPE {}\nCOUNT {}\nWIDTH {n}\nHEIGHT 1\n\
         VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {n}\nDATA ascii\n",
        each("4"),
        each("F"),
        each("1")
    );
    for (i, p) in cloud.positions.iter().enumerate() {
        text += &format!("{} {} {}", p.x, p.y, p.z);
        if let Some(n) = cloud.normals.get(i) {
            text += &format!(" {} {} {}", n.x, n.y, n.z);
        }
        text.push('\n');
    }
    std::fs::write(path, text).map_err(|e| PcdError::Unreadable { path: path.to_owned(), reason: e.to_string() })
}

/// Reads a point cloud. Points that are not finite are left out.
///
/// # Errors
/// If the file is missing, cut, has no positions or a header that contradicts it.
pub fn read_cloud(path: &Path) -> Result<PointCloud, PcdError> {
    let bytes = std::fs::read(path)
        .map_err(|error| PcdError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
    parse(path, &bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<PointCloud, PcdError> {
    let wrong = |place: &str, found: String, expected| PcdError::Content {
        path: path.to_owned(),
        place: place.into(),
        found,
        expected,
    };
    let (mut names, mut sizes, mut kinds, mut counts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut points, mut data) = (None::<usize>, None::<String>);
    let mut at = 0;
    while data.is_none() {
        let end = bytes[at..].iter().position(|b| *b == b'\n').map(|n| at + n);
        let line = end.and_then(|end| std::str::from_utf8(&bytes[at..end]).ok());
        let Some(line) = line else {
            return Err(wrong(
                "header",
                format!("{} bytes without a line DATA", bytes.len()),
                "a header of a pcd file",
            ));
        };
        at += line.len() + 1;
        let mut words = line.split_whitespace().map(str::to_owned);
        let key = words.next().unwrap_or_default();
        let numbers = |words: &mut dyn Iterator<Item = String>| -> Result<Vec<usize>, PcdError> {
            let number = |word: String| word.parse().map_err(|_| wrong(&key, format!("`{word}`"), "whole numbers"));
            words.map(number).collect()
        };
        match key.as_str() {
            "FIELDS" => names = words.collect(),
            "SIZE" => sizes = numbers(&mut words)?,
            "TYPE" => kinds = words.collect(),
            "COUNT" => counts = numbers(&mut words)?,
            "POINTS" => points = numbers(&mut words)?.first().copied(),
            "DATA" => data = Some(words.next().unwrap_or_default()),
            _ => {}
        }
    }
    if counts.is_empty() {
        counts = vec![1; names.len()];
    }
    let lengths = [sizes.len(), kinds.len(), counts.len()];
    if names.is_empty() || lengths != [names.len(); 3] {
        let found =
            format!("{} fields, {} sizes, {} types, {} counts", names.len(), sizes.len(), kinds.len(), counts.len());
        return Err(wrong("header", found, "one of each for every field"));
    }
    let count = points.ok_or_else(|| wrong("POINTS", "nothing".into(), "the number of points"))?;
    let mut fields = Vec::new();
    let mut stride = 0usize;
    for (i, name) in names.into_iter().enumerate() {
        let kind = kinds[i].bytes().next().unwrap_or(0);
        if ![1, 2, 4, 8].contains(&sizes[i]) || counts[i] == 0 || counts[i] > 4096 {
            return Err(wrong(
                &name,
                format!("{} values of {} bytes", counts[i], sizes[i]),
                "values of 1, 2, 4 or 8 bytes",
            ));
        }
        fields.push(Field { name, offset: stride, size: sizes[i], kind, count: counts[i] });
        stride += sizes[i] * counts[i];
    }
    let find = |name: &str| fields.iter().find(|field| field.name == name);
    let three = |names: [&str; 3]| Some([find(names[0])?, find(names[1])?, find(names[2])?]);
    let position = three(["x", "y", "z"]).ok_or_else(|| wrong("FIELDS", "no x, y and z".into(), "positions"))?;
    let normal = three(["normal_x", "normal_y", "normal_z"]);
    let colour = find("rgb").or_else(|| find("rgba"));
    let body = &bytes[at..];
    let data = data.unwrap_or_default();
    let short = |found: usize| wrong("DATA", format!("{found} bytes"), "values for all points");
    let needed = count.checked_mul(stride).ok_or_else(|| short(body.len()))?;
    // the bytes of a field of a point
    let mut cloud = PointCloud::default();
    let mut add = |value: &dyn Fn(&Field) -> Option<f32>, packed: &dyn Fn(&Field) -> Option<[u8; 4]>| -> Option<()> {
        let vector = |f: [&Field; 3]| Some(Vec3::new(value(f[0])?, value(f[1])?, value(f[2])?));
        let p = vector(position)?;
        let n = normal.map_or(Some(Vec3::ZERO), vector)?;
        if p.is_finite() && n.is_finite() {
            cloud.positions.push(p);
            if normal.is_some() {
                cloud.normals.push(n.normalize_or_zero());
            }
            if let Some(field) = colour {
                let [b, g, r, _] = packed(field)?;
                cloud.colors.push([r, g, b]);
            }
        }
        Some(())
    };
    match data.as_str() {
        "ascii" => {
            let text =
                std::str::from_utf8(body).map_err(|_| wrong("DATA", "bytes that are no text".into(), "numbers"))?;
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            let mut index = vec![0; fields.len()];
            let mut next = 0;
            for (i, field) in fields.iter().enumerate() {
                index[i] = next;
                next += field.count;
            }
            for i in 0..count {
                let words: Vec<&str> = lines.next().map(|line| line.split_whitespace().collect()).unwrap_or_default();
                let word = |field: &Field| {
                    let at = fields.iter().position(|f| std::ptr::eq(f, field))?;
                    words.get(index[at]).copied()
                };
                let value = |field: &Field| word(field)?.parse::<f32>().ok();
                let packed = |field: &Field| match field.kind {
                    b'F' => Some(word(field)?.parse::<f32>().ok()?.to_le_bytes()),
                    _ => Some((word(field)?.parse::<i64>().ok()? as u32).to_le_bytes()),
                };
                add(&value, &packed)
                    .ok_or_else(|| wrong("DATA", format!("point {i} cut or no numbers"), "a line for each point"))?;
            }
        }
        "binary" => {
            let body = body.get(..needed).ok_or_else(|| short(body.len()))?;
            for point in body.chunks_exact(stride.max(1)) {
                let bytes = |field: &Field| &point[field.offset..field.offset + field.size];
                let packed = |field: &Field| bytes(field).try_into().ok();
                add(&|field| field.value(bytes(field)), &packed).ok_or_else(|| {
                    wrong("TYPE", "a type of values that is not read".into(), "F 4, F 8, U 1, U 4 or I 4")
                })?;
            }
        }
        "binary_compressed" => {
            let number =
                |at: usize| body.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
            let (Some(packed_size), Some(size)) = (number(0), number(4)) else { return Err(short(body.len())) };
            let packed = body.get(8..8 + packed_size).ok_or_else(|| short(body.len()))?;
            // LZF makes at most 264 bytes of 3
            if size != needed || size > packed.len().saturating_mul(90) {
                return Err(wrong("DATA", format!("{size} bytes once unpacked"), "values for all points"));
            }
            let plain = unpack(packed, size).ok_or_else(|| wrong("DATA", "LZF that does not unpack".into(), "LZF"))?;
            // field after field, each for all points
            for i in 0..count {
                let bytes = |field: &Field| {
                    let at = field.offset * count + field.size * field.count * i;
                    &plain[at..at + field.size]
                };
                let packed = |field: &Field| bytes(field).try_into().ok();
                add(&|field| field.value(bytes(field)), &packed).ok_or_else(|| {
                    wrong("TYPE", "a type of values that is not read".into(), "F 4, F 8, U 1, U 4 or I 4")
                })?;
            }
        }
        other => return Err(wrong("DATA", format!("`{other}`"), "ascii, binary or binary_compressed")),
    }
    Ok(cloud)
}

/// Undoes LZF (Marc Lehmann's liblzf): runs of literals, and copies of what was written before.
fn unpack(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(size);
    let mut at = 0;
    while at < packed.len() {
        let control = packed[at] as usize;
        at += 1;
        if control < 32 {
            out.extend_from_slice(packed.get(at..=at + control)?);
            at += control + 1;
        } else {
            let mut length = control >> 5;
            if length == 7 {
                length += *packed.get(at)? as usize;
                at += 1;
            }
            let back = ((control & 31) << 8) + *packed.get(at)? as usize + 1;
            at += 1;
            let start = out.len().checked_sub(back)?;
            // the copy may run into what it writes
            for i in 0..length + 2 {
                out.push(out[start + i]);
            }
        }
        if out.len() > size {
            return None;
        }
    }
    (out.len() == size).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(data: &str, points: usize) -> String {
        format!(
            "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z rgb normal_x normal_y normal_z\nSIZE 4 4 4 4 4 4 4\nTYPE F F F F F F F\n\
             COUNT 1 1 1 1 1 1 1\nWIDTH {points}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {points}\nDATA {data}\n"
        )
    }

    fn rows() -> [[f32; 7]; 2] {
        let colour = f32::from_le_bytes([3, 2, 1, 0]);
        [[0.5, 1.0, -2.0, colour, 0.0, 0.0, 1.0], [1.5, 0.25, 4.0, colour, 1.0, 0.0, 0.0]]
    }

    #[test]
    fn what_is_written_is_read_back() {
        let path = std::env::temp_dir().join(format!("effigy-cloud-{}.pcd", std::process::id()));
        let cloud = PointCloud {
            positions: vec![Vec3::new(0.1, -2.5e-7, 3.0), Vec3::ONE / 3.0],
            normals: vec![Vec3::X, Vec3::new(0.6, 0.0, -0.8)],
            colors: Vec::new(),
        };
        write_cloud(&path, &cloud).unwrap();
        assert_eq!(read_cloud(&path).unwrap(), cloud);
        let bare = PointCloud { normals: Vec::new(), ..cloud };
        write_cloud(&path, &bare).unwrap();
        assert_eq!(read_cloud(&path).unwrap(), bare);
        std::fs::remove_file(&path).unwrap();
        let error = write_cloud(Path::new("/nowhere/at/all.pcd"), &bare).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/at/all.pcd: "), "{error}");
    }

    fn check(bytes: &[u8]) {
        let cloud = parse(Path::new("a.pcd"), bytes).unwrap();
        assert_eq!(cloud.positions, [Vec3::new(0.5, 1.0, -2.0), Vec3::new(1.5, 0.25, 4.0)]);
        assert_eq!(cloud.normals, [Vec3::Z, Vec3::X]);
        assert_eq!(cloud.colors, [[1, 2, 3]; 2]);
        for keep in 0..bytes.len() - 1 {
            // a cut text may still end in a shorter number
            let cut = parse(Path::new("a.pcd"), &bytes[..keep]);
            assert!(cut.is_err() || bytes.ends_with(b"0\n"), "{keep} bytes");
        }
    }

    #[test]
    fn the_three_kinds_of_data_agree() {
        let mut text = header("ascii", 2);
        for row in rows() {
            text += &row.map(|x| format!("{x:e}")).join(" ");
            text.push('\n');
        }
        check(text.as_bytes());
        let binary: Vec<u8> = rows().iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
        check(&[header("binary", 2).as_bytes(), &binary].concat());
        // by field, as one run of literals after the other: LZF that saves nothing
        let fields: Vec<u8> = (0..7).flat_map(|f| rows().map(|row| row[f].to_le_bytes())).flatten().collect();
        let packed: Vec<u8> = fields.chunks(32).flat_map(|run| [&[run.len() as u8 - 1], run].concat()).collect();
        let sizes = [packed.len() as u32, fields.len() as u32].map(u32::to_le_bytes).concat();
        check(&[header("binary_compressed", 2).as_bytes(), &sizes, &packed].concat());
    }

    #[test]
    fn copies_of_lzf_run_into_what_they_write() {
        // "abc", then 7 bytes from 3 back, then 300 bytes from 1 back would be too long for the size that is promised
        assert_eq!(unpack(&[2, b'a', b'b', b'c', 5 << 5, 2], 10).unwrap(), b"abcabcabca");
        assert_eq!(unpack(&[0, b'a', 7 << 5, 10, 0], 20).unwrap(), [b'a'; 20]);
        assert!(unpack(&[0, b'a', 1 << 5, 7], 4).is_none(), "from before the beginning");
        assert!(unpack(&[0, b'a', 7 << 5, 255, 0], 20).is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| parse(Path::new("a.pcd"), text.as_bytes()).unwrap_err().to_string();
        assert!(error("ply\n").contains("without a line DATA"));
        assert!(error(&header("zip", 0)).contains("DATA: found `zip`"));
        assert!(error(&header("binary", 2)).contains("found 0 bytes, expected values for all points"));
        assert!(error(&header("binary", usize::MAX)).contains("values for all points"));
        assert!(error(&header("ascii", 1).replace(" x y z", " a b c")).contains("no x, y and z"));
        assert!(error(&header("ascii", 1).replace("SIZE 4", "SIZE")).contains("6 sizes"));
    }
}
