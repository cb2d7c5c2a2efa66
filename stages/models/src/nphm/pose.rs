//! Rigid head poses: rotation vectors, and where points of the world lie in the model's frame.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Model units per metre.
pub const UNITS_PER_METRE: f64 = 4.0;

/// `x_world = R (s x_model / 4) + t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pose {
    /// Axis times angle, radians.
    pub rotation: [f64; 3],
    /// Metres.
    pub translation: [f64; 3],
}

impl Pose {
    /// The rotation, row by row.
    pub fn matrix(&self) -> [[f64; 3]; 3] {
        let [w, x, y, z] = quaternion(self.rotation);
        [
            [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
            [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
            [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
        ]
    }

    /// Model position of a world point, for a head of size `scale`.
    pub fn to_model(&self, world: [f32; 3], scale: f64) -> [f32; 3] {
        let shifted = [0, 1, 2].map(|i| f64::from(world[i]) - self.translation[i]);
        self.turn_back(shifted).map(|v| (v * UNITS_PER_METRE / scale) as f32)
    }

    /// World position of a model point, for a head of size `scale`.
    pub fn to_world(&self, model: [f32; 3], scale: f64) -> [f32; 3] {
        let m = self.matrix();
        [0, 1, 2].map(|i| {
            let turned: f64 = (0..3).map(|k| m[i][k] * f64::from(model[k])).sum();
            (turned * scale / UNITS_PER_METRE + self.translation[i]) as f32
        })
    }

    /// A world direction in the model's frame.
    pub fn turn_to_model(&self, direction: [f32; 3]) -> [f32; 3] {
        self.turn_back(direction.map(f64::from)).map(|v| v as f32)
    }

    /// The rotation vector, in the world's frame, that turns this pose's rotation into another's.
    pub fn turn_to(&self, other: &Pose) -> [f64; 3] {
        let [w, x, y, z] = quaternion(self.rotation);
        vector(product(quaternion(other.rotation), [w, -x, -y, -z]))
    }

    /// This pose after a correction in the model's frame: a rotation vector, then a shift in model units.
    pub fn corrected(&self, rotation: [f64; 3], shift: [f64; 3], scale: f64) -> Self {
        let m = self.matrix();
        let moved = [0, 1, 2].map(|i| {
            let turned: f64 = (0..3).map(|k| m[i][k] * shift[k]).sum();
            self.translation[i] + turned * scale / UNITS_PER_METRE
        });
        Self { rotation: vector(product(quaternion(self.rotation), quaternion(rotation))), translation: moved }
    }

    fn turn_back(&self, v: [f64; 3]) -> [f64; 3] {
        let m = self.matrix();
        [0, 1, 2].map(|i| (0..3).map(|k| m[k][i] * v[k]).sum())
    }
}

/// Rotation matrices `[B, 3, 3]` of rotation vectors `[B, 3]` (Rodrigues), differentiable at 0 too.
pub(crate) fn matrices(vectors: &Tensor) -> Tensor {
    let squared = (vectors.square().sum_dim_intlist(1, true, None::<Kind>) + 1e-12).unsqueeze(2);
    let angle = squared.sqrt();
    let zero = vectors.select(1, 0).zeros_like();
    let [x, y, z] = [0, 1, 2].map(|i| vectors.select(1, i));
    let cross = Tensor::stack(&[&zero, &-&z, &y, &z, &zero, &-&x, &-&y, &x, &zero], 1).reshape([-1, 3, 3]);
    let eye = Tensor::eye(3, (vectors.kind(), vectors.device()));
    eye + &cross * (angle.sin() / &angle) + cross.matmul(&cross) * ((-angle.cos() + 1.0) / squared)
}

/// `[w, x, y, z]`.
fn quaternion(v: [f64; 3]) -> [f64; 4] {
    let angle = v.iter().map(|c| c * c).sum::<f64>().sqrt();
    let s = if angle < 1e-12 { 0.5 } else { (angle / 2.0).sin() / angle };
    [(angle / 2.0).cos(), v[0] * s, v[1] * s, v[2] * s]
}

fn product([a, b, c, d]: [f64; 4], [e, f, g, h]: [f64; 4]) -> [f64; 4] {
    [
        a * e - b * f - c * g - d * h,
        a * f + b * e + c * h - d * g,
        a * g - b * h + c * e + d * f,
        a * h + b * g - c * f + d * e,
    ]
}

/// Rotation vector of a unit quaternion, of an angle within pi.
fn vector(q: [f64; 4]) -> [f64; 3] {
    let sign = if q[0] < 0.0 { -1.0 } else { 1.0 };
    let [w, x, y, z] = q.map(|c| c * sign);
    let sine = (x * x + y * y + z * z).sqrt();
    let s = if sine < 1e-12 { 2.0 } else { 2.0 * sine.atan2(w) / sine };
    [x * s, y * s, z * s]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correction_in_the_model_frame_moves_points_as_the_fit_assumes() {
        let start = Pose { rotation: [0.4, -0.3, 1.1], translation: [0.1, 0.2, -0.3] };
        let (turn, shift, scale) = ([0.2, 0.1, -0.5], [0.05, -0.02, 0.01], 1.1);
        let after = start.corrected(turn, shift, scale);
        let world = [0.12f32, -0.05, 0.2];
        // what `fit` computes with tensors: R_d^T (x0 - t_d)
        let x0 = Tensor::from_slice(&start.to_model(world, scale)).reshape([1, 1, 3]).to_kind(Kind::Double);
        let d = matrices(&Tensor::from_slice(&turn).reshape([1, 3]));
        let x = (x0 - Tensor::from_slice(&shift)).matmul(&d);
        let expected: Vec<f64> = x.reshape([-1]).try_into().unwrap();
        let got = after.to_model(world, scale);
        for i in 0..3 {
            assert!((f64::from(got[i]) - expected[i]).abs() < 1e-6, "{got:?} {expected:?}");
            assert!((after.to_world(got, scale)[i] - world[i]).abs() < 1e-6);
        }
    }
}
