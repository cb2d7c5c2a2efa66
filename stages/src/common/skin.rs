//! Points of the skin on disk, and the moment they are found again from: what `track_skin` puts out, and `track_head`
//! and `evaluate_skin` take in.
//!
//! No stage. A file is safetensors of `points` (world, metres) and `places` (canonical, model units), each `[N, 3]`.
//! Knows not how they were found.

use crate::common::arrays::{Array, Arrays, array, read_arrays, write_arrays};
use anyhow::{Context, Result, ensure};
use manifests::Type;
use protocol::Row;
use std::path::Path;

/// The column of points of the skin.
pub const SKIN: (&str, Type) = ("skin", Type::Blob);

/// Writes points of the skin, world metres, with their canonical places, model units.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, skin: &[([f32; 3], [f32; 3])]) -> Result<()> {
    let mut arrays = Arrays::new();
    arrays.insert("points".into(), Array::of_f32(&[skin.len(), 3], skin.iter().flat_map(|(point, _)| *point)));
    arrays.insert("places".into(), Array::of_f32(&[skin.len(), 3], skin.iter().flat_map(|(_, place)| *place)));
    write_arrays(path, &arrays)
}

/// Reads what [`fn@write`] wrote.
///
/// # Errors
/// If the file is damaged; the message names it.
pub fn read(path: &Path) -> Result<Vec<([f32; 3], [f32; 3])>> {
    let parse = || -> Result<Vec<([f32; 3], [f32; 3])>> {
        let arrays = read_arrays(path)?;
        let [points, places] = ["points", "places"].map(|name| array(&arrays, name)?.to_f32());
        let (points, places) = (points?, places?);
        ensure!(
            points.len() == places.len() && points.len().is_multiple_of(3),
            "{} numbers of points and {} of places, expected as many, three for each",
            points.len(),
            places.len()
        );
        Ok(points.as_chunks().0.iter().copied().zip(places.as_chunks().0.iter().copied()).collect())
    };
    parse().with_context(|| format!("the skin {}", path.display()))
}

/// With `timestep` it names a moment, if several sequences are tracked.
pub const SEQUENCE: (&str, Type) = ("sequence", Type::Str);

/// The columns by which a reference is chosen.
pub const CHOSEN_BY: [(&str, Type); 3] =
    [("timestep", Type::I64), ("lost", Type::Bool), ("expression", Type::Floats(0))];

/// The moment of a row: its sequence, empty if rows name none, and its timestep.
///
/// # Errors
/// If a column is of another type.
pub fn moment(row: &Row<'_>) -> Result<(String, i64)> {
    let sequence = if row.has(SEQUENCE.0) { row.str(SEQUENCE.0)? } else { String::new() };
    Ok((sequence, row.i64("timestep")?))
}

/// Whether two are one moment, as far as both say of which sequence they are.
pub fn is_same(a: &(String, i64), b: &(String, i64)) -> bool {
    a.1 == b.1 && (a.0 == b.0 || a.0.is_empty() || b.0.is_empty())
}

/// Of rows of tracked moments of a person those of one: the moment that was not lost and whose expression is smallest,
/// the first in the table if several are equal.
///
/// # Errors
/// If there is none.
pub fn reference<'a>(rows: &[Row<'a>]) -> Result<Vec<Row<'a>>> {
    let faces = rows.iter().map(|row| Ok((row.bool("lost")?, row.floats("expression")?.iter().map(|v| v * v).sum())));
    let faces = faces.collect::<Result<Vec<(bool, f64)>>>()?;
    let chosen = calmest(&faces).context(
        "`reference` has no moment in which the face was found\nhint: it takes rows of the person as `track_head` puts them out",
    )?;
    let chosen = moment(&rows[chosen])?;
    let mut out = Vec::new();
    for row in rows {
        if moment(row)? == chosen {
            out.push(*row);
        }
    }
    Ok(out)
}

/// The first of the faces, each lost or not and with the size of its expression, that was found and whose expression is
/// smallest. Where a face was lost the code is 0, or that of the moment before.
fn calmest(faces: &[(bool, f64)]) -> Option<usize> {
    let found = faces.iter().enumerate().filter(|(_, (lost, size))| !lost && size.is_finite());
    found.min_by(|(_, a), (_, b)| a.1.total_cmp(&b.1)).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skin_comes_back_as_it_was_written_and_damage_is_named() {
        let dir = std::env::temp_dir().join(format!("effigy-skin-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("skin.safetensors");
        let skin = vec![([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]), ([-0.1, 0.0, 0.5], [0.0, 0.25, -1.0])];
        for skin in [skin, Vec::new()] {
            write(&path, &skin).unwrap();
            assert_eq!(read(&path).unwrap(), skin);
        }
        let mut arrays = Arrays::new();
        arrays.insert("points".into(), Array::of_f32(&[2, 3], [0.0; 6]));
        arrays.insert("places".into(), Array::of_f32(&[1, 3], [0.0; 3]));
        write_arrays(&path, &arrays).unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("skin.safetensors") && error.contains("6 numbers of points and 3 of places"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn moments_are_told_apart_by_sequence_where_both_name_one() {
        let moment = |sequence: &str, timestep| (sequence.to_string(), timestep);
        assert!(is_same(&moment("a", 1), &moment("a", 1)) && is_same(&moment("", 1), &moment("a", 1)));
        assert!(!is_same(&moment("a", 1), &moment("b", 1)) && !is_same(&moment("", 2), &moment("a", 1)));
    }

    #[test]
    fn the_calmest_face_is_one_that_was_found() {
        // the first was lost and is blank, the third was lost and stays as the second
        let faces = [(true, 0.0), (false, 0.5), (true, 0.5), (false, 0.2), (false, f64::NAN), (false, 0.2)];
        assert_eq!(calmest(&faces), Some(3));
        assert_eq!(calmest(&[(true, 0.0), (false, f64::NAN)]), None);
    }
}
