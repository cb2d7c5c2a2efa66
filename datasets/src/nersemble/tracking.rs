//! FLAME tracking that comes with a capture: shape, expression, pose and eyes of each frame.
//!
//! `tracking/flame2023_tracking*.npz` of the benchmark and `annotations/tracking/FLAME2023_v2/tracked_flame_params.npz` of
//! DiffusionAvatars. DiffusionAvatars reads `rotation` as intrinsic XYZ Euler angles (SciPy's upper-case "XYZ"). Files of the benchmark have
//! `rotation_matrices` as well, and these decide: where they are those of Rodrigues vectors, the angles of the same rotations are what comes out.
//! Reads and writes numbers; evaluates no head model.

use super::LayoutError;
use super::layout::flame_file;
use super::numpy::{NumpyArray, read_npz, write_npz};
use geometry::pose::{euler_xyz, rodrigues};
use glam::{DMat3, DVec3, EulerRot};
use std::path::Path;

/// How far entries of a rotation matrix may be from those of its angles, which are stored with 24 bits or rounded.
const ALIKE: f64 = 1e-3;
/// A head is nearer to the middle of the rig than this, metres.
const FARTHEST: f64 = 3.0;

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
/// If the file is damaged, its arrays are of other or different lengths, its rotation matrices are neither those of Euler angles nor those of
/// Rodrigues vectors, or a head is not near the origin in metres.
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
    let rotation = match optional("rotation_matrices")? {
        None => rotation,
        Some(matrices) if matrices.shape == [count, 3, 3] => angles(&path, rotation, &matrices.values)?,
        Some(matrices) => {
            let found = format!("shape {:?} beside {count} rotations", matrices.shape);
            return Err(LayoutError::field(&path, "rotation_matrices", found, "a 3 x 3 matrix for each frame"));
        }
    };
    let translation = per_frame("translation", needed("translation")?, 3)?;
    let away = |t: &[f64]| DVec3::from_slice(t).length();
    if let Some((i, t)) = translation.chunks(3).enumerate().find(|(_, t)| away(t).is_nan() || away(t) > FARTHEST) {
        let found = format!("a head {:.3} m from the origin in row {i}", away(t));
        return Err(LayoutError::field(&path, "translation", found, "less than 3 m: are these numbers metres?"));
    }
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

/// The Euler angles of rotations of which the matrices tell whether they are Euler angles already, or Rodrigues vectors.
fn angles(path: &Path, rotation: Vec<f64>, matrices: &[f64]) -> Result<Vec<f64>, LayoutError> {
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
        return Err(LayoutError::field(path, "rotation_matrices", found, "those of one of them"));
    }
    if as_euler <= as_rodrigues {
        return Ok(rotation);
    }
    Ok(matrices.iter().flat_map(|m| <[f64; 3]>::from(m.to_euler(EulerRot::XYZ))).collect())
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
