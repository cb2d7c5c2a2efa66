//! FLAME tracking that comes with a capture: shape, expression, pose and eyes of each frame.
//!
//! `tracking/flame2023_tracking*.npz` of the benchmark and `annotations/tracking/FLAME2023_v2/tracked_flame_params.npz` of
//! DiffusionAvatars. Reads and writes numbers; evaluates no head model.

use super::LayoutError;
use super::layout::flame_file;
use super::numpy::{NumpyArray, read_npz, write_npz};
use std::path::Path;

/// FLAME's parameters for one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct FlameFrame {
    /// Number of the frame in the video.
    pub timestep: u32,
    /// Identity, the same in all frames: 300 values.
    pub shape: Vec<f64>,
    /// Expression: 100 values.
    pub expression: Vec<f64>,
    /// Rotation from model to world, Rodrigues.
    pub rotation: [f64; 3],
    /// Translation of the model in the world, metres.
    pub translation: [f64; 3],
    /// Scale of the model.
    pub scale: f64,
    /// Rotation of the jaw, Rodrigues.
    pub jaw: [f64; 3],
    /// Rotation of the neck, Rodrigues, if it was tracked.
    pub neck: Option<[f64; 3]>,
    /// Rotations of the left and the right eye, Rodrigues, if they were tracked.
    pub eyes: Option<[f64; 6]>,
}

/// The FLAME tracking of a sequence's folder, a frame each; empty if there is none.
///
/// # Errors
/// If the file is damaged, or its arrays are of other or different lengths.
pub fn read_flame(sequence: &Path) -> Result<Vec<FlameFrame>, LayoutError> {
    let Some(path) = flame_file(sequence) else { return Ok(Vec::new()) };
    let optional = |name: &str| read_npz(&path, name);
    let expected = "an array of FLAME parameters";
    let needed =
        |name: &str| optional(name)?.ok_or_else(|| LayoutError::field(&path, name, "no array of this name", expected));
    let rotation = needed("rotation")?;
    let count = rotation.shape.first().copied().unwrap_or(0);
    let per_frame = |name: &str, array: NumpyArray, width: usize| -> Result<Vec<f64>, LayoutError> {
        if array.shape != [count, width] {
            let found = format!("shape {:?} beside {count} rotations", array.shape);
            return Err(LayoutError::field(&path, name, found, "a row for each frame"));
        }
        Ok(array.values)
    };
    let rotation = per_frame("rotation", rotation, 3)?;
    let translation = per_frame("translation", needed("translation")?, 3)?;
    let jaw = per_frame("jaw", needed("jaw")?, 3)?;
    let expression = needed("expression")?;
    let width = expression.shape.get(1).copied().unwrap_or(0);
    let expression = per_frame("expression", expression, width)?;
    let neck = optional("neck")?.map(|array| per_frame("neck", array, 3)).transpose()?;
    let eyes = optional("eyes")?.map(|array| per_frame("eyes", array, 6)).transpose()?;
    let shape = needed("shape")?.values;
    let scale = needed("scale")?.values;
    let scale =
        *scale.first().ok_or_else(|| LayoutError::field(&path, "scale", "no values", "the scale of the model"))?;
    let frames = match optional("frames")? {
        Some(frames) if frames.values.len() == count => frames.values.iter().map(|n| *n as u32).collect(),
        Some(frames) => {
            let found = format!("{} numbers beside {count} rotations", frames.values.len());
            return Err(LayoutError::field(&path, "frames", found, "a number for each frame"));
        }
        None => (0..count as u32).collect::<Vec<u32>>(),
    };
    let three = |values: &[f64], i: usize| [values[3 * i], values[3 * i + 1], values[3 * i + 2]];
    let frame = |(i, timestep): (usize, u32)| FlameFrame {
        timestep,
        shape: shape.clone(),
        expression: expression[width * i..width * (i + 1)].to_vec(),
        rotation: three(&rotation, i),
        translation: three(&translation, i),
        scale,
        jaw: three(&jaw, i),
        neck: neck.as_ref().map(|values| three(values, i)),
        eyes: eyes.as_ref().map(|values| std::array::from_fn(|k| values[6 * i + k])),
    };
    Ok(frames.into_iter().enumerate().map(frame).collect())
}

/// Writes the FLAME tracking of a sequence; the shape and the scale are those of the first frame, and the neck and the eyes go along
/// where all frames have them.
///
/// # Errors
/// If the file cannot be written.
pub fn write_flame(path: &Path, frames: &[FlameFrame]) -> Result<(), LayoutError> {
    let count = frames.len();
    let (shape, scale) = frames.first().map_or((Vec::new(), 1.0), |first| (first.shape.clone(), first.scale));
    let all = |of: fn(&FlameFrame) -> Vec<f64>| frames.iter().flat_map(of).collect::<Vec<f64>>();
    let expression = all(|frame| frame.expression.clone());
    let width = expression.len() / count.max(1);
    let (rotation, translation) = (all(|frame| frame.rotation.into()), all(|frame| frame.translation.into()));
    let (jaw, numbers) = (all(|frame| frame.jaw.into()), all(|frame| vec![f64::from(frame.timestep)]));
    let neck: Option<Vec<f64>> =
        frames.iter().map(|frame| frame.neck).collect::<Option<Vec<_>>>().map(|all| all.concat());
    let eyes: Option<Vec<f64>> =
        frames.iter().map(|frame| frame.eyes).collect::<Option<Vec<_>>>().map(|all| all.concat());
    let (of_shape, of_expression, of_three, of_six) = ([1, shape.len()], [count, width], [count, 3], [count, 6]);
    let mut arrays: Vec<(&str, &[usize], &[f64])> = vec![
        ("shape", &of_shape, &shape),
        ("expression", &of_expression, &expression),
        ("rotation", &of_three, &rotation),
        ("translation", &of_three, &translation),
        ("jaw", &of_three, &jaw),
        ("scale", &[1, 1], std::slice::from_ref(&scale)),
    ];
    let of_frames = [count];
    arrays.push(("frames", &of_frames, &numbers));
    arrays.extend(neck.as_ref().map(|values| ("neck", of_three.as_slice(), values.as_slice())));
    arrays.extend(eyes.as_ref().map(|values| ("eyes", of_six.as_slice(), values.as_slice())));
    write_npz(path, &arrays)
}
