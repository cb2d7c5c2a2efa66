//! Colour calibration of a camera, and the face boxes beside it: where the releases keep them, in which form.

use super::calibration::put;
use super::fault;
use super::numpy::{read_npy, write_npy};
use crate::colour::{Correction, TERMS};
use crate::fault::Fault;
use crate::files::json;
use serde_json::{Map, Value};
use std::path::Path;

/// Writes a participant's colour calibration as version 2 has it: for each serial a 3 x 3 matrix, rows first, that is
/// multiplied with linear light.
///
/// # Errors
/// If the file cannot be written.
pub fn write_colours(root: &Path, participant: u32, cameras: &[(String, [f64; 9])]) -> Result<(), Fault> {
    let rows = |m: &[f64; 9]| Value::from(m.chunks(3).map(|row| Value::from(row.to_vec())).collect::<Vec<_>>());
    let all: Map<String, Value> = cameras.iter().map(|(serial, matrix)| (serial.clone(), rows(matrix))).collect();
    put(&root.join(format!("{participant:03}/calibration/color_calibration.json")), &Value::from(all))
}

/// Writes a camera's affine correction, 3 x 4 and rows first, as version 1 and DiffusionAvatars have it.
///
/// # Errors
/// If the file cannot be written.
pub fn write_affine(path: &Path, matrix: &[f64; 12]) -> Result<(), Fault> {
    write_npy(path, &[3, 4], matrix)
}

/// Writes face boxes as DiffusionAvatars has them for a camera and a sequence: left, top, width, height as shares of
/// the picture, and a score; a row for each timestep, in their order.
///
/// # Errors
/// If the file cannot be written.
pub fn write_boxes(path: &Path, boxes: &[[f64; 5]]) -> Result<(), Fault> {
    write_npy(path, &[boxes.len(), 5], boxes.as_flattened())
}

/// The correction of a camera's colours: `{serial: 3 x N}` of version 2 (JSON, polynomial), or a 3 x 4 array of version
/// 1 and DiffusionAvatars (`.npy`, affine).
///
/// # Errors
/// If the file is unreadable, lacks the camera, or its matrix has another shape.
pub fn read_colour(path: &Path, serial: &str) -> Result<Correction, Fault> {
    if path.extension().is_some_and(|ext| ext == "npy") {
        let array = read_npy(path)?;
        let shape = array.shape.clone();
        let values = if shape == [3, 4] { array.values.try_into().ok() } else { None };
        let values: [f64; 12] = values.ok_or_else(|| {
            fault(path, "(array)", format!("shape {shape:?}"), "shape [3, 4], an affine colour transform")
        })?;
        // a shift by more than from black to white leaves nothing of a picture
        if let Some(shift) = [values[3], values[7], values[11]].into_iter().find(|shift| shift.abs() > 1.0) {
            return Err(fault(
                path,
                "(array)",
                format!("a colour shifted by {shift}"),
                "at most 1, from black to white",
            )
            .advised("colours count from 0 to 1 here: divide the last column by 255 if they were bytes"));
        }
        return Ok(Correction::Affine(values));
    }
    let value = json(path)?;
    let expected = "a matrix of 3 rows with as many columns as Cheung's polynomial has terms (3 to 35)";
    let found = value.get(serial).ok_or_else(|| fault(path, serial, "nothing", expected))?;
    let wrong = || fault(path, serial, super::calibration::shape(found), expected);
    let rows = found.as_array().filter(|rows| rows.len() == 3).ok_or_else(wrong)?;
    let rows = rows.iter().map(|row| row.as_array().ok_or_else(wrong)).collect::<Result<Vec<_>, _>>()?;
    let terms = rows[0].len();
    if !TERMS.contains(&terms) || rows.iter().any(|row| row.len() != terms) {
        return Err(wrong());
    }
    let mut flat = Vec::with_capacity(3 * terms);
    for number in rows.into_iter().flatten() {
        flat.push(number.as_f64().filter(|x| x.is_finite()).ok_or_else(wrong)?);
    }
    Ok(Correction::Polynomial(flat))
}
