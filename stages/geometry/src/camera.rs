//! Pinhole cameras: projection, viewing rays, crops and resizes.
//!
//! Everything is f64 and uses OpenCV axes (x right, y down, z forward, metres). Pixel coordinates are continuous: the
//! top-left corner of the image is (0, 0) and the centre of pixel (i, j) is (i + 0.5, j + 0.5). This file knows
//! nothing about lens distortion, images or how a data set stores its calibration.

use glam::{DMat3, DMat4, DVec2, DVec3};

/// A pinhole camera of a certain image size.
#[derive(Clone, Debug, PartialEq)]
pub struct Camera {
    /// `[fx s cx; 0 fy cy; 0 0 1]` in pixels (glam stores columns; the last row must be `0 0 1`).
    pub intrinsics: DMat3,
    /// Rigid transform from world to camera coordinates, metres, OpenCV axes.
    pub world_to_cam: DMat4,
    /// Image width in pixels.
    pub width: u32,
    /// Image height in pixels.
    pub height: u32,
}

impl Camera {
    /// A camera from row-major matrices, as manifests and calibration files store them.
    pub fn from_row_major(k: &[f64; 9], w2c: &[f64; 16], width: u32, height: u32) -> Self {
        Self {
            intrinsics: DMat3::from_cols_array(k).transpose(),
            world_to_cam: DMat4::from_cols_array(w2c).transpose(),
            width,
            height,
        }
    }

    /// The intrinsics, row by row.
    pub fn intrinsics_row_major(&self) -> [f64; 9] {
        self.intrinsics.transpose().to_cols_array()
    }

    /// The world-to-camera matrix, row by row.
    pub fn world_to_cam_row_major(&self) -> [f64; 16] {
        self.world_to_cam.transpose().to_cols_array()
    }

    /// Projects a world point: its pixel position and its camera z in metres.
    ///
    /// Points with z <= 0 lie behind the camera; their pixel position is meaningless (and not finite at z = 0).
    pub fn project(&self, p_world: DVec3) -> (DVec2, f64) {
        let p = self.intrinsics * self.world_to_cam.transform_point3(p_world);
        (p.truncate() / p.z, p.z)
    }

    /// The places in the world, metres, that pixels show: `depth` is the camera z of each pixel of this camera's image,
    /// row by row; pixels of depth 0 show nothing known and are left out.
    ///
    /// # Panics
    /// If the depths are not as many as the pixels.
    pub fn unproject(&self, depth: &[f32]) -> Vec<DVec3> {
        assert_eq!(depth.len(), self.width as usize * self.height as usize, "a depth for each pixel");
        let (to_ray, to_world) = (self.intrinsics.inverse(), self.world_to_cam.inverse());
        let place = |(i, z): (usize, &f32)| {
            let (x, y) = (i % self.width as usize, i / self.width as usize);
            let ray = to_ray * DVec3::new(x as f64 + 0.5, y as f64 + 0.5, 1.0);
            to_world.transform_point3(ray * f64::from(*z))
        };
        depth.iter().enumerate().filter(|(_, z)| **z > 0.0).map(place).collect()
    }

    /// The optical centre in world coordinates.
    pub fn center(&self) -> DVec3 {
        self.world_to_cam.inverse().transform_point3(DVec3::ZERO)
    }

    /// The unit direction, in world coordinates, in which the pixel position `px` looks.
    pub fn ray(&self, px: DVec2) -> DVec3 {
        let in_camera = self.intrinsics.inverse() * px.extend(1.0);
        self.world_to_cam.inverse().transform_vector3(in_camera).normalize()
    }

    /// The camera of the image that remains after cutting the square with corner (`x0`, `y0`) and side `side` (pixels)
    /// and scaling it to `out` x `out` pixels. The square may reach beyond the image.
    pub fn crop_resized(&self, x0: f64, y0: f64, side: f64, out: u32) -> Camera {
        let scale = f64::from(out) / side;
        self.affine(scale, scale, -x0 * scale, -y0 * scale, out, out)
    }

    /// The camera of the same image scaled to `width` x `height` pixels.
    pub fn resized(&self, width: u32, height: u32) -> Camera {
        let sx = f64::from(width) / f64::from(self.width);
        let sy = f64::from(height) / f64::from(self.height);
        self.affine(sx, sy, 0.0, 0.0, width, height)
    }

    fn affine(&self, sx: f64, sy: f64, tx: f64, ty: f64, width: u32, height: u32) -> Camera {
        let image = DMat3::from_cols_array(&[sx, 0.0, 0.0, 0.0, sy, 0.0, tx, ty, 1.0]);
        Camera { intrinsics: image * self.intrinsics, world_to_cam: self.world_to_cam, width, height }
    }
}

/// Whether pictures of these widths and heights, px, can be of the same camera, one of them made smaller: sides are
/// rounded then, by up to a pixel of the smaller one. More is a rim that was cut off or added, and shifts the middle.
pub fn same_shape(one: (u32, u32), other: (u32, u32)) -> bool {
    let [width, height] = [one.0, one.1].map(u64::from);
    let [across, along] = [other.0, other.1].map(u64::from);
    // codecs take even sides, and nothing was made smaller there
    if width == across || height == along {
        return width.abs_diff(across) <= 1 && height.abs_diff(along) <= 1;
    }
    // a pixel of one picture is a side of the other
    (width * along).abs_diff(height * across) <= width.max(height).max(across).max(along)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera() -> Camera {
        let k = [500.0, 0.0, 310.0, 0.0, 510.0, 250.0, 0.0, 0.0, 1.0];
        let pose = DMat4::from_rotation_translation(glam::DQuat::from_rotation_y(2.8), DVec3::new(0.1, -0.2, 1.3));
        Camera::from_row_major(&k, &pose.transpose().to_cols_array(), 640, 480)
    }

    #[test]
    fn rays_lead_back_to_the_point() {
        let camera = camera();
        let point = DVec3::new(0.05, 0.1, -0.02);
        let (px, z) = camera.project(point);
        assert!(z > 0.0);
        let to_point = point - camera.center();
        assert!((camera.ray(px) - to_point.normalize()).length() < 1e-12);
    }

    #[test]
    fn pictures_of_one_shape_have_sides_that_are_rounded() {
        for small in [(1100, 1604), (64, 94), (96, 140), (48, 70), (2200, 3208), (3, 4)] {
            assert!(same_shape(small, (2200, 3208)) && same_shape((2200, 3208), small), "{small:?}");
        }
        // turned, another camera's, cropped to a square, and by a tenth
        for other in [(3208, 2200), (160, 110), (512, 512), (1100, 1444), (2200, 3224), (2176, 3208), (1100, 1612)] {
            assert!(!same_shape(other, (2200, 3208)) && !same_shape((2200, 3208), other), "{other:?}");
        }
        assert!(!same_shape((8, 6), (16, 16)));
        // an encoder's even sides, and a rim of four
        assert!(same_shape((275, 402), (274, 402)) && same_shape((101, 67), (100, 66)));
        assert!(!same_shape((512, 384), (512, 388)) && !same_shape((1920, 1080), (1920, 1088)));
    }

    #[test]
    fn row_major_round_trip() {
        let camera = camera();
        assert_eq!(camera.intrinsics_row_major()[2], 310.0);
        let again = Camera::from_row_major(
            &camera.intrinsics_row_major(),
            &camera.world_to_cam_row_major(),
            camera.width,
            camera.height,
        );
        assert_eq!(again, camera);
    }

    #[test]
    fn crop_moves_pixels_linearly() {
        let camera = camera();
        let point = DVec3::new(0.05, 0.1, -0.02);
        let (px, _) = camera.project(point);
        let (cropped, _) = camera.crop_resized(20.0, 10.0, 400.0, 100).project(point);
        assert!((cropped - (px - DVec2::new(20.0, 10.0)) / 4.0).length() < 1e-9);
        let (small, _) = camera.resized(320, 120).project(point);
        assert!((small - px * DVec2::new(0.5, 0.25)).length() < 1e-9);
    }
}
