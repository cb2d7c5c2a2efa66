//! Where hair, brows, beard and shirt lie on the template head: smooth functions of template coordinates.
//!
//! Template coordinates are those of the base mesh (asset units, symmetric in x). Nothing here knows a person's shape;
//! the few personal parameters come as numbers.

use glam::Vec3;

use super::noise::{bump, curve, fractal_noise, smoothstep};

/// Middle of the template skull.
pub const SKULL: Vec3 = Vec3::new(0.0, 7.45, 0.45);

/// Azimuth (0 front, 180 back, unsigned) and elevation of a template point around [`SKULL`], degrees.
pub fn angles(t: Vec3) -> (f32, f32) {
    let d = t - SKULL;
    let flat = (d.x * d.x + d.z * d.z).sqrt();
    (d.x.abs().atan2(d.z).to_degrees(), d.y.atan2(flat).to_degrees())
}

/// The elevation of the hairline for each azimuth, degrees.
const HAIRLINE: [(f32, f32); 14] = [
    (0.0, 31.0),
    (20.0, 33.0),
    (32.0, 35.0),
    (42.0, 30.0),
    (50.0, 20.0),
    (57.0, 8.0),
    (64.0, -8.0),
    (74.0, -20.0),
    (82.0, -17.0),
    (92.0, -2.0),
    (112.0, -20.0),
    (128.0, -38.0),
    (150.0, -51.0),
    (180.0, -52.0),
];

/// How densely hair grows on the scalp, [0, 1]. `receding` in [0, 1] moves the front and the temples back.
pub fn scalp(t: Vec3, ears: f32, receding: f32, seed: u32) -> f32 {
    if t.y < 6.3 {
        return 0.0;
    }
    let (azimuth, elevation) = angles(t);
    let back = receding * (26.0 * bump(azimuth, 36.0, 16.0) + 12.0 * bump(azimuth, 0.0, 30.0));
    let ragged = 2.2 * fractal_noise(t * 9.0, 2, seed);
    let above = elevation - curve(&HAIRLINE, azimuth) - back + ragged;
    let edge = if azimuth < 60.0 { 6.0 } else { 5.0 };
    smoothstep(-0.5, edge, above) * (1.0 - smoothstep(0.15, 0.5, ears))
}

/// How densely a brow grows, [0, 1], and the direction it grows in at that point (template axes, not normalised).
pub fn brow(t: Vec3, thickness: f32) -> (f32, Vec3) {
    if t.z < 0.9 || !(7.2..7.8).contains(&t.y) {
        return (0.0, Vec3::ZERO);
    }
    let x = t.x.abs();
    let side = t.x.signum();
    let line = curve(&[(0.10, 7.435), (0.25, 7.485), (0.40, 7.52), (0.50, 7.505), (0.62, 7.44)], x);
    let width = curve(&[(0.10, 0.030), (0.22, 0.034), (0.42, 0.026), (0.62, 0.010)], x) * (0.6 + 0.5 * thickness);
    let along = smoothstep(0.085, 0.15, x) * smoothstep(0.64, 0.52, x);
    let density = along * bump(t.y, line, width) * (0.35 + 0.65 * thickness);
    let outwards = Vec3::new(side, curve(&[(0.10, 1.3), (0.2, 0.55), (0.42, 0.05), (0.6, -0.5)], x), -0.35);
    // Upper and lower hairs of a brow lean towards its middle line.
    (density, outwards + Vec3::Y * ((line - t.y) / width * 0.35))
}

/// How densely a beard grows, [0, 1].
pub fn beard(t: Vec3, lips: f32, ears: f32) -> f32 {
    if t.z < 0.2 || t.y > 7.2 || t.y < 5.75 {
        return 0.0;
    }
    let x = t.x.abs();
    // Upper edge on the cheek: falls from the ear to the corner of the mouth.
    let edge =
        curve(&[(0.0, 6.80), (0.12, 6.81), (0.20, 6.80), (0.30, 6.70), (0.42, 6.60), (0.58, 6.70), (0.70, 7.0)], x);
    let lower = curve(&[(0.0, 6.06), (0.4, 6.10), (0.7, 6.27)], x);
    let below_nose = smoothstep(0.0, 0.07, edge - t.y) * smoothstep(0.0, 0.14, t.y - lower);
    // Bare spots under the corners of the lower lip.
    let bare = 0.6 * bump(x, 0.17, 0.06) * bump(t.y, 6.42, 0.05) * smoothstep(1.3, 1.4, t.z);
    below_nose
        * (1.0 - smoothstep(0.08, 0.35, lips))
        * (1.0 - bare)
        * smoothstep(0.25, 0.6, t.z)
        * (1.0 - smoothstep(0.1, 0.3, ears))
}

/// Distance of a template point from the middle of the nearer eyeball.
pub fn eye_distance(t: Vec3) -> f32 {
    t.distance(eye_centre(t))
}

/// The middle of the eyeball on a template point's side.
pub fn eye_centre(t: Vec3) -> Vec3 {
    Vec3::new(0.308 * t.x.signum(), 7.284, 1.240)
}

/// Whether a body triangle (template corners) lines an eye socket: close to the eyeball and facing its middle.
pub fn in_socket(corner: [Vec3; 3]) -> bool {
    let middle = (corner[0] + corner[1] + corner[2]) / 3.0;
    let normal = (corner[1] - corner[0]).cross(corner[2] - corner[0]);
    eye_distance(middle) < 0.21 && normal.dot(eye_centre(middle) - middle) > 0.0
}

/// How far a template point lies below the collar, asset units: positive under the shirt.
pub fn below_collar(t: Vec3) -> f32 {
    let (x, z) = (t.x, t.z - 0.25);
    let front = z / x.hypot(z).max(1e-3);
    5.73 - 0.22 * front + 0.9 * smoothstep(0.75, 1.3, x.abs()) - t.y
}
