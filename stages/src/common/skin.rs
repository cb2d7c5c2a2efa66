//! Points of the skin on disk, and the moment they are found again from: what `track_skin` puts out, and `track_head` and `evaluate_skin` take in.
//!
//! No stage. A file is safetensors of `points` (world, metres) and `places` (canonical, model units), each `[N, 3]`. Knows not how they were found.

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

/// The columns by which a reference is chosen.
pub const CHOSEN_BY: [(&str, Type); 3] =
    [("timestep", Type::I64), ("lost", Type::Bool), ("expression", Type::Floats(0))];

/// Of rows of tracked moments of a person those of one: the moment that was not lost and whose expression is smallest, the first in
/// the table if several are equal.
///
/// # Errors
/// If there is none.
pub fn reference<'a>(rows: &[Row<'a>]) -> Result<Vec<Row<'a>>> {
    let moment = |row: &Row<'_>| -> Result<(String, i64)> {
        let sequence = if row.has("sequence") { row.str("sequence")? } else { String::new() };
        Ok((sequence, row.i64("timestep")?))
    };
    let mut calmest: Option<(f64, (String, i64))> = None;
    for row in rows {
        let size: f64 = row.floats("expression")?.iter().map(|v| v * v).sum();
        if !row.bool("lost")? && size.is_finite() && calmest.as_ref().is_none_or(|(least, _)| size < *least) {
            calmest = Some((size, moment(row)?));
        }
    }
    let (_, chosen) = calmest.context(
        "`reference` has no moment in which the face was found\nhint: it takes rows of the person as `track_head` puts them out",
    )?;
    let mut out = Vec::new();
    for row in rows {
        if moment(row)? == chosen {
            out.push(*row);
        }
    }
    Ok(out)
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
}
