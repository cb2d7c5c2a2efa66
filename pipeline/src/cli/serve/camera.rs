//! The camera of the avatar viewer: one that goes around a head. Knows numbers alone, and neither runs nor stages.

/// A camera that looks at a point from somewhere around it, with square pixels and the point in its middle.
pub struct Camera {
    /// Focal length over the side of the picture.
    pub focal: f64,
    /// Where it looks, metres.
    pub center: [f64; 3],
    /// About the vertical from in front, and above the horizontal, radians.
    pub angles: [f64; 2],
    /// Metres.
    pub distance: f64,
}

impl Camera {
    /// Row by row, OpenCV's axes.
    pub fn world_to_cam(&self) -> [f64; 16] {
        let [about, above] = self.angles;
        // towards the viewer, and what is right and down in the picture
        let back = [about.sin() * above.cos(), above.sin(), about.cos() * above.cos()];
        let right = [about.cos(), 0.0, -about.sin()];
        let down = [about.sin() * above.sin(), -above.cos(), about.cos() * above.sin()];
        let forward = back.map(|v| -v);
        let eye: [f64; 3] = std::array::from_fn(|i| self.center[i] + self.distance * back[i]);
        let mut out = [0.0; 16];
        for (i, axis) in [right, down, forward].iter().enumerate() {
            out[4 * i..4 * i + 3].copy_from_slice(axis);
            out[4 * i + 3] = -(0..3).map(|k| axis[k] * eye[k]).sum::<f64>();
        }
        out[15] = 1.0;
        out
    }
}

/// From where a picture of this pose and focal length (over its side) shows a head: angles about the vertical and above
/// the horizontal, and the distance at which the viewer's camera would show it in the same size, over its own distance.
pub fn view(pose: &[f64], focal: f64, camera: &Camera) -> [f64; 3] {
    let eye: [f64; 3] = std::array::from_fn(|i| -(0..3).map(|k| pose[4 * k + i] * pose[4 * k + 3]).sum::<f64>());
    let [x, y, z]: [f64; 3] = std::array::from_fn(|i| eye[i] - camera.center[i]);
    let level = x.hypot(z);
    [x.atan2(z), y.atan2(level), camera.focal / focal * level.hypot(y) / camera.distance]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_looks_at_its_centre_upright() {
        let camera = Camera { focal: 2.0, center: [0.1, 0.2, -0.3], angles: [0.7, -0.4], distance: 1.3 };
        let m = camera.world_to_cam();
        let seen = |p: [f64; 3]| -> [f64; 3] {
            std::array::from_fn(|i| (0..3).map(|k| m[4 * i + k] * p[k]).sum::<f64>() + m[4 * i + 3])
        };
        let [x, y, z] = seen(camera.center);
        assert!(x.abs() < 1e-12 && y.abs() < 1e-12 && (z - 1.3).abs() < 1e-12);
        let [x, y, _] = seen([0.1, 0.3, -0.3]);
        assert!(x.abs() < 1e-12 && y < 0.0, "what is above stands above");
        // a rotation, not a mirror
        let (a, b, c) = (&m[0..3], &m[4..7], &m[8..11]);
        let det = a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
            + a[2] * (b[0] * c[1] - b[1] * c[0]);
        assert!((det - 1.0).abs() < 1e-12);
        let [about, above, away] = view(&m, 2.0 * camera.focal, &camera);
        assert!((about - 0.7).abs() < 1e-12 && (above + 0.4).abs() < 1e-12, "{about} {above}");
        assert!((away - 0.5).abs() < 1e-12, "a crop of half the size is half as far");
        let front = Camera { angles: [0.0; 2], center: [0.0; 3], ..camera };
        assert_eq!(
            front.world_to_cam(),
            [1.0, 0.0, -0.0, 0.0, 0.0, -1.0, 0.0, 0.0, -0.0, -0.0, -1.0, 1.3, 0.0, 0.0, 0.0, 1.0]
        );
    }
}
