//! The rig: sixteen cameras on an arc of 93 x 32 degrees, named and ordered as in NeRSemble.
//!
//! Poses are made up (the real ones differ between recordings); names, order and extent are the published ones.

use geometry::Camera;
use glam::{DMat3, DMat4, DVec3};

/// Serial numbers in camera order.
pub const SERIALS: [&str; 16] = [
    "222200042",
    "222200044",
    "222200046",
    "222200040",
    "222200036",
    "222200048",
    "220700191",
    "222200041",
    "222200037",
    "222200038",
    "222200047",
    "222200043",
    "222200049",
    "222200039",
    "222200045",
    "221501007",
];

/// The camera straight in front.
pub const FRONTAL: &str = "222200037";

/// How long the shutters are open, seconds.
pub const EXPOSURE: f32 = 0.008;

/// Elevation of each camera, degrees.
const ELEVATIONS: [f64; 16] =
    [-10.0, 9.0, -3.0, 15.0, -15.0, 4.0, -8.0, 11.0, 0.0, -12.0, 8.0, -4.0, 16.0, -16.0, 5.0, -9.0];
/// Degrees between neighbours.
const STEP: f64 = 6.2;
/// Metres from the head.
const DISTANCE: f64 = 1.05;
/// What the shorter side of a picture spans at the head, metres.
const SPAN: f64 = 0.32;
/// Where all cameras look.
const TARGET: DVec3 = DVec3::new(0.0, -0.004, 0.0);

/// World-to-camera matrix (OpenCV axes) of a camera at `eye` that looks at `target`, +y up.
pub fn look_at(eye: DVec3, target: DVec3) -> DMat4 {
    let forward = (target - eye).normalize();
    let right = forward.cross(DVec3::Y).normalize();
    let down = forward.cross(right);
    let rotation = DMat3::from_cols(right, down, forward).transpose();
    DMat4::from_mat3(rotation) * DMat4::from_translation(-eye)
}

/// A camera on the sphere around the head: azimuth towards the subject's left and elevation in degrees. `zoom` 1
/// frames the head with its hair in about three quarters of the shorter side.
pub fn portrait_camera(azimuth: f64, elevation: f64, zoom: f64, width: u32, height: u32) -> Camera {
    let (a, e) = (azimuth.to_radians(), elevation.to_radians());
    let eye = TARGET + DVec3::new(a.sin() * e.cos(), e.sin(), a.cos() * e.cos()) * DISTANCE;
    let focal = f64::from(width.min(height)) * DISTANCE / SPAN * zoom;
    let (cx, cy) = (f64::from(width) / 2.0, f64::from(height) / 2.0);
    let k = [focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0];
    Camera::from_row_major(&k, &look_at(eye, TARGET).transpose().to_cols_array(), width, height)
}

/// Cameras of the rig for the given serials, all with the same intrinsics. Serials that are not in [`SERIALS`] are
/// left out.
pub fn rig(serials: &[&str], width: u32, height: u32) -> Vec<(String, Camera)> {
    let place = |serial: &&str| {
        let i = SERIALS.iter().position(|s| s == serial)?;
        let camera = portrait_camera((i as f64 - 8.0) * STEP, ELEVATIONS[i], 1.0, width, height);
        Some((serial.to_string(), camera))
    };
    serials.iter().filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frontal_camera_sees_the_subjects_left_on_the_right() {
        let rig = rig(&[FRONTAL], 176, 256);
        let (px, z) = rig[0].1.project(DVec3::new(0.05, 0.06, 0.0));
        assert!(px.x > 88.0 && px.y < 128.0 && z > 1.0);
    }
}
