//! FLAME tracking that comes with a capture: shape, expression, pose and eyes of each frame.
//!
//! `tracking/flame2023_tracking*.npz` of the benchmark and `annotations/tracking/FLAME2023_v2/tracked_flame_params.npz`
//! of DiffusionAvatars. DiffusionAvatars reads `rotation` as intrinsic XYZ Euler angles (SciPy's upper-case "XYZ").
//! Files of the benchmark have `rotation_matrices` as well, and these decide: where they are those of Rodrigues
//! vectors, the angles of the same rotations are what comes out. Files of the benchmark number their rows (`frames`).
//! Those of DiffusionAvatars do not: its reader (`flame_provider.py`) counts rows along the sorted folders of frames
//! that hold pictures, so that frames 0, 3 and 6 are rows 0, 1 and 2. Reads and writes numbers; evaluates no head
//! model.

use super::fault;
use super::layout::{flame_file, pictured};
use super::numpy::{NumpyArray, pack, read_npz, write_npz};
use crate::fault::Fault;
use geometry::pose::{euler_xyz, rodrigues};
use glam::{DMat3, DVec3, EulerRot};
use std::collections::BTreeMap;
use std::path::Path;

/// How far entries of a rotation matrix may be from those of its angles, which are stored with 24 bits or rounded.
const ALIKE: f64 = 1e-3;
/// A head is nearer to the middle of the rig than this, metres.
const FARTHEST: f64 = 3.0;
/// No angle of a head is larger, radians; some count on over a full turn.
const TURNED: f64 = 7.0;
/// Scales of a FLAME model in metres.
const SCALES: std::ops::RangeInclusive<f64> = 0.05..=20.0;
/// How far the scales of the three axes may be apart, relative to the largest: they are one number, stored three times
/// with 24 bits.
const UNIFORM: f64 = 1e-5;

/// FLAME's parameters for one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct FlameFrame {
    /// Number of the frame in the video.
    pub timestep: u32,
    /// Identity, the same in all frames: 300 values.
    pub shape: Vec<f64>,
    /// Expression: 100 values.
    pub expression: Vec<f64>,
    /// Rotation from model to world: intrinsic XYZ Euler angles, radians ([`geometry::pose::euler_xyz`]).
    pub rotation: [f64; 3],
    /// Translation of the model in the world, metres.
    pub translation: [f64; 3],
    /// Scale of the model.
    pub scale: f64,
    /// Rotation of the jaw, radians, as the file has it.
    pub jaw: [f64; 3],
    /// Rotation of the neck, radians, as the file has it, if it was tracked.
    pub neck: Option<[f64; 3]>,
    /// Rotations of the left and the right eye, radians, as the file has them, if they were tracked.
    pub eyes: Option<[f64; 6]>,
}

/// The FLAME tracking of a sequence's folder, a frame each; empty if there is none.
///
/// # Errors
/// If the file is damaged, its arrays are of other or different lengths, its rotation matrices are neither those of
/// Euler angles nor those of Rodrigues vectors, a head is not near the origin in metres, axes have different scales, or
/// nothing tells which frame a row is of.
pub fn read_flame(sequence: &Path) -> Result<Vec<FlameFrame>, Fault> {
    let Some(path) = flame_file(sequence) else { return Ok(Vec::new()) };
    let optional = |name: &str| read_npz(&path, name);
    let expected = "an array of FLAME parameters";
    let needed = |name: &str| optional(name)?.ok_or_else(|| fault(&path, name, "no array of this name", expected));
    let rotation = needed("rotation")?;
    let count = rotation.shape.first().copied().unwrap_or(0);
    let per_frame = |name: &str, array: NumpyArray, width: usize| -> Result<Vec<f64>, Fault> {
        if array.shape != [count, width] {
            let found = format!("shape {:?} beside {count} rotations", array.shape);
            return Err(fault(&path, name, found, "a row for each frame"));
        }
        Ok(array.values)
    };
    let rotation = per_frame("rotation", rotation, 3)?;
    if let Some(angle) = rotation.iter().find(|angle| angle.abs() > TURNED) {
        let found = format!("an angle of {angle}");
        return Err(fault(&path, "rotation", found, "radians: are these degrees?"));
    }
    let rotation = match optional("rotation_matrices")? {
        None => rotation,
        Some(matrices) if matrices.shape == [count, 3, 3] => angles(&path, rotation, &matrices.values)?,
        Some(matrices) => {
            let found = format!("shape {:?} beside {count} rotations", matrices.shape);
            return Err(fault(&path, "rotation_matrices", found, "a 3 x 3 matrix for each frame"));
        }
    };
    let translation = per_frame("translation", needed("translation")?, 3)?;
    let away = |t: &[f64]| DVec3::from_slice(t).length();
    if let Some((i, t)) = translation.chunks(3).enumerate().find(|(_, t)| away(t).is_nan() || away(t) > FARTHEST) {
        let found = format!("a head {:.3} m from the origin in row {i}", away(t));
        return Err(fault(&path, "translation", found, "less than 3 m: are these numbers metres?"));
    }
    let jaw = per_frame("jaw", needed("jaw")?, 3)?;
    let expression = needed("expression")?;
    let width = expression.shape.get(1).copied().unwrap_or(0);
    let expression = per_frame("expression", expression, width)?;
    let neck = optional("neck")?.map(|array| per_frame("neck", array, 3)).transpose()?;
    let eyes = optional("eyes")?.map(|array| per_frame("eyes", array, 6)).transpose()?;
    let shape = one_row(&path, "shape", needed("shape")?)?;
    let scale = uniform(&path, needed("scale")?)?;
    let frames = match optional("frames")? {
        Some(frames) => numbers(&path, &frames.values, count)?,
        None => unnumbered(sequence, &path, count)?,
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

/// What holds for the whole sequence: a list, or a matrix of one row.
fn one_row(path: &Path, name: &str, array: NumpyArray) -> Result<Vec<f64>, Fault> {
    match array.shape[..] {
        [] | [_] | [1, _] => Ok(array.values),
        _ => {
            let found = format!("shape {:?}", array.shape);
            Err(fault(path, name, found, "one row, which holds for the whole sequence"))
        }
    }
}

/// The one scale of a model: a number, or the same for each of the three axes.
fn uniform(path: &Path, array: NumpyArray) -> Result<f64, Fault> {
    let values = one_row(path, "scale", array)?;
    let wrong = |expected| fault(path, "scale", format!("{values:?}"), expected);
    let (&[scale] | &[scale, _, _]) = &values[..] else {
        return Err(wrong("one scale, or that of each of three axes"));
    };
    if values.iter().any(|axis| (axis - scale).abs() > UNIFORM * scale.abs()) {
        return Err(wrong("the same scale for all three axes: this reader keeps one"));
    }
    match SCALES.contains(&scale) {
        true => Ok(scale),
        false => Err(wrong("a scale from 0.05 to 20, that of a model in metres")),
    }
}

/// The frames' numbers as the file has them.
fn numbers(path: &Path, values: &[f64], count: usize) -> Result<Vec<u32>, Fault> {
    let wrong = |found: String, expected| fault(path, "frames", found, expected);
    if values.len() != count {
        return Err(wrong(format!("{} numbers beside {count} rotations", values.len()), "a number for each frame"));
    }
    let mut rows: BTreeMap<u32, usize> = BTreeMap::new();
    let mut numbers = Vec::with_capacity(count);
    for (row, value) in values.iter().enumerate() {
        if value.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(value) {
            return Err(wrong(format!("{value} in row {row}"), "numbers of frames, which are integers from 0"));
        }
        let number = *value as u32;
        if let Some(before) = rows.insert(number, row) {
            return Err(wrong(format!("frame {number} in rows {before} and {row}"), "each frame once"));
        }
        numbers.push(number);
    }
    Ok(numbers)
}

/// The frames' numbers where the file has none: those of the folders with pictures, in their order. Of a video the row
/// is the frame.
fn unnumbered(sequence: &Path, path: &Path, count: usize) -> Result<Vec<u32>, Fault> {
    let frames = pictured(sequence)?;
    if frames.is_empty() && !path.starts_with(sequence.join("annotations")) {
        return Ok((0..count as u32).collect());
    }
    if frames.len() == count {
        return Ok(frames);
    }
    let found = format!("nothing, and {count} rows beside {} folders of frames that hold pictures", frames.len());
    let expected = "a row for each folder timesteps/frame_{number} that holds pictures, in their order";
    Err(fault(path, "frames", found, expected).advised(
        "rows tell their frame by their place alone: copy all frames of the sequence, or add an array `frames` of their numbers",
    ))
}

/// The Euler angles of rotations of which the matrices tell whether they are Euler angles already, or Rodrigues
/// vectors.
fn angles(path: &Path, rotation: Vec<f64>, matrices: &[f64]) -> Result<Vec<f64>, Fault> {
    let matrices: Vec<DMat3> = matrices.chunks(9).map(|m| DMat3::from_cols_slice(m).transpose()).collect();
    let off = |of: fn(DVec3) -> DMat3| {
        let entries =
            rotation.chunks(3).zip(&matrices).flat_map(|(r, m)| (of(DVec3::from_slice(r)) - *m).to_cols_array());
        entries.fold(0.0, |worst: f64, x| if x.is_finite() { worst.max(x.abs()) } else { f64::INFINITY })
    };
    let (as_euler, as_rodrigues) = (off(euler_xyz), off(rodrigues));
    if as_euler.min(as_rodrigues) > ALIKE {
        let found = format!(
            "matrices that are off by {as_euler:.4} from `rotation` as XYZ Euler angles and by {as_rodrigues:.4} as Rodrigues vectors"
        );
        return Err(fault(path, "rotation_matrices", found, "those of one of them"));
    }
    if as_euler <= as_rodrigues {
        return Ok(rotation);
    }
    Ok(matrices.iter().flat_map(|m| <[f64; 3]>::from(m.to_euler(EulerRot::XYZ))).collect())
}

/// Writes the FLAME tracking of a sequence with the reference's keys and shapes, numbers of 32 bits; the shape and the
/// scale are those of the first frame, and the neck and the eyes go along where all frames have them. Frames are to be
/// sorted: DiffusionAvatars goes by their place, others by the array `frames`.
///
/// # Errors
/// If the file cannot be written.
pub fn write_flame(path: &Path, frames: &[FlameFrame]) -> Result<(), Fault> {
    let count = frames.len();
    let shape = frames.first().map_or(Vec::new(), |first| first.shape.clone());
    let scale = frames.first().map_or(1.0, |first| first.scale);
    let all = |of: fn(&FlameFrame) -> &[f64]| frames.iter().flat_map(of).copied().collect::<Vec<f64>>();
    let expression = all(|frame| frame.expression.as_slice());
    let per_frame = |values: &[f64]| [count, values.len() / count.max(1)];
    let neck: Option<Vec<[f64; 3]>> = frames.iter().map(|frame| frame.neck).collect();
    let eyes: Option<Vec<[f64; 6]>> = frames.iter().map(|frame| frame.eyes).collect();
    let single = |shape: &[usize], values: &[f64]| {
        let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
        pack(shape, &values)
    };
    let arrays = || -> std::io::Result<Vec<(&'static str, Vec<u8>)>> {
        let mut arrays = vec![
            ("shape", single(&[1, shape.len()], &shape)?),
            ("expression", single(&per_frame(&expression), &expression)?),
            ("rotation", single(&[count, 3], &all(|frame| frame.rotation.as_slice()))?),
            ("translation", single(&[count, 3], &all(|frame| frame.translation.as_slice()))?),
            ("jaw", single(&[count, 3], &all(|frame| frame.jaw.as_slice()))?),
            ("scale", single(&[1, 3], &[scale; 3])?),
            ("frames", pack(&[count], &frames.iter().map(|frame| i64::from(frame.timestep)).collect::<Vec<i64>>())?),
        ];
        if let Some(neck) = &neck {
            arrays.push(("neck", single(&[count, 3], neck.as_flattened())?));
        }
        if let Some(eyes) = &eyes {
            arrays.push(("eyes", single(&[count, 6], eyes.as_flattened())?));
        }
        Ok(arrays)
    };
    write_npz(path, &arrays().map_err(|e| Fault::unwritable(path, e))?)
}
