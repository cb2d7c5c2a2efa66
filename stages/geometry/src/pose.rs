//! Rotations in the notations that data sets use, and the transform from the head model's space to the world.
//!
//! All in f64, radians and metres. This file knows nothing about tracking or about who stores which notation where.

use glam::{DMat3, DMat4, DQuat, DVec3, Vec3};

/// NPHM space is FLAME space times this.
pub const NPHM_PER_FLAME: f64 = 4.0;

/// The rotation of intrinsic XYZ Euler angles (radians): `Rx(a) Ry(b) Rz(c)`, SciPy's upper-case "XYZ".
pub fn euler_xyz(angles: DVec3) -> DMat3 {
    DMat3::from_rotation_x(angles.x) * DMat3::from_rotation_y(angles.y) * DMat3::from_rotation_z(angles.z)
}

/// The rotation about the direction of `r` by its length in radians (OpenCV's Rodrigues vector).
pub fn rodrigues(r: DVec3) -> DMat3 {
    DMat3::from_quat(DQuat::from_scaled_axis(r))
}

/// The Rodrigues vector of a rotation matrix, of length at most pi.
pub fn rodrigues_inverse(rotation: DMat3) -> DVec3 {
    let mut q = DQuat::from_mat3(&rotation);
    if q.w < 0.0 {
        q = -q;
    }
    let axis = q.xyz();
    let sine = axis.length();
    // Near the identity angle / sine tends to 2; the quotient itself would be 0 / 0.
    if sine < 1e-12 { axis * 2.0 } else { axis * (2.0 * sine.atan2(q.w) / sine) }
}

/// World-to-camera with OpenCV axes to the same with OpenGL axes (x right, y up, z backward).
pub fn opengl_from_opencv(world_to_cam: DMat4) -> DMat4 {
    DMat4::from_diagonal(glam::DVec4::new(1.0, -1.0, -1.0, 1.0)) * world_to_cam
}

/// Where the tracked head model lies in the world: `x_world = R diag(scale) x_flame + t`.
#[derive(Debug, Clone, PartialEq)]
pub struct FlamePose {
    /// Intrinsic XYZ Euler angles, radians.
    pub rotation: DVec3,
    /// Metres.
    pub translation: DVec3,
    /// Per axis, applied before the rotation. One for a whole sequence.
    pub scale: DVec3,
}

impl FlamePose {
    /// The transform from FLAME space to the world.
    pub fn flame_to_world(&self) -> DMat4 {
        let linear = euler_xyz(self.rotation) * DMat3::from_diagonal(self.scale);
        DMat4::from_mat3_translation(linear, self.translation)
    }

    /// The transform from NPHM space (4 x FLAME space) to the world.
    pub fn nphm_to_world(&self) -> DMat4 {
        self.flame_to_world() * DMat4::from_scale(DVec3::splat(1.0 / NPHM_PER_FLAME))
    }
}

/// Transforms points, computing in f64.
pub fn transform_points(transform: &DMat4, points: &[Vec3]) -> Vec<Vec3> {
    points.iter().map(|p| transform.transform_point3(p.as_dvec3()).as_vec3()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rodrigues_round_trip_from_tiny_to_half_a_turn() {
        let direction = DVec3::new(0.3, -0.8, 0.5).normalize();
        for angle in [0.0, 1e-14, 1e-7, 0.3, 2.0, 3.1, std::f64::consts::PI - 1e-7] {
            let r = direction * angle;
            assert!((rodrigues_inverse(rodrigues(r)) - r).length() < 1e-8, "{angle}");
        }
    }

    #[test]
    fn scale_comes_before_rotation() {
        let quarter = std::f64::consts::FRAC_PI_2;
        let pose = FlamePose {
            rotation: DVec3::new(0.0, 0.0, quarter),
            translation: DVec3::X,
            scale: DVec3::new(2.0, 1.0, 1.0),
        };
        let p = pose.nphm_to_world().transform_point3(DVec3::new(4.0, 0.0, 0.0));
        assert!((p - DVec3::new(1.0, 2.0, 0.0)).length() < 1e-12);
    }
}
