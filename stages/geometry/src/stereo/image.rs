//! What stereo sees of a view: grey pixels inside the matte, cropped to the region of interest, in several sizes.
//!
//! Knows nothing of depths, neighbours or costs.

use super::View;
use glam::{DMat3, DMat4, DVec2, DVec3, Vec3};

/// Pixels of border around the samples of [`Image::padded`], so that bilinear lookups need no bounds tests.
const BORDER: usize = 2;
/// Pixels kept around the region of interest when a view is cropped, so that matching windows stay whole.
const MARGIN: f64 = 8.0;

/// One size of one cropped view.
pub(super) struct Image {
    pub width: usize,
    pub height: usize,
    pub intrinsics: DMat3,
    pub world_to_cam: DMat4,
    /// Grey value minus 128, row-major `width * height`; NaN outside the matte.
    pub grey: Vec<f32>,
    /// The uncropped image as `[x0, y0, x1, y1]` in this image's pixel coordinates: beyond it nothing is known.
    pub frame: [f64; 4],
    /// `grey` with a border of NaN.
    padded: Vec<f32>,
    /// The largest coordinates, in `padded`, of a sample.
    limit: (f32, f32),
}

impl Image {
    /// The view cropped to the part of the matte that can show the sphere; `None` if there is no such part.
    pub fn crop(view: &View<'_>, center: DVec3, radius: f64) -> Option<Image> {
        let camera = view.camera;
        let (full_width, full_height) = (camera.width as usize, camera.height as usize);
        let in_camera = camera.world_to_cam.transform_point3(center);
        if in_camera.z <= radius {
            return None;
        }
        let middle = camera.project(center).0;
        let reach = camera.intrinsics.x_axis.x.max(camera.intrinsics.y_axis.y) * radius / (in_camera.z - radius);
        let clip = |value: f64, limit: usize| value.clamp(0.0, limit as f64) as usize;
        let x_range = clip(middle.x - reach - MARGIN, full_width)..clip(middle.x + reach + MARGIN, full_width);
        let y_range = clip(middle.y - reach - MARGIN, full_height)..clip(middle.y + reach + MARGIN, full_height);
        let (mut low, mut high) = ([usize::MAX; 2], [0; 2]);
        for y in y_range.clone() {
            for x in x_range.clone().filter(|x| view.mask[y * full_width + x] >= 128) {
                low = [low[0].min(x), low[1].min(y)];
                high = [high[0].max(x + 1), high[1].max(y + 1)];
            }
        }
        if low[0] >= high[0] {
            return None;
        }
        let (width, height) = (high[0] - low[0], high[1] - low[1]);
        let mut grey = Vec::with_capacity(width * height);
        for y in low[1]..high[1] {
            for x in low[0]..high[0] {
                let index = y * full_width + x;
                let [r, g, b] = [0, 1, 2].map(|c| f32::from(view.rgb[3 * index + c]));
                let inside = view.mask[index] >= 128;
                grey.push(if inside { 0.299 * r + 0.587 * g + 0.114 * b - 128.0 } else { f32::NAN });
            }
        }
        let (x0, y0) = (low[0] as f64, low[1] as f64);
        let shift = DMat3::from_translation(-DVec2::new(x0, y0));
        let frame = [-x0, -y0, full_width as f64 - x0, full_height as f64 - y0];
        Some(Image::new(width, height, shift * camera.intrinsics, camera.world_to_cam, grey, frame))
    }

    fn new(w: usize, h: usize, intrinsics: DMat3, world_to_cam: DMat4, grey: Vec<f32>, frame: [f64; 4]) -> Image {
        let stride = w + 2 * BORDER;
        let mut padded = vec![f32::NAN; stride * (h + 2 * BORDER)];
        for (y, row) in grey.chunks_exact(w).enumerate() {
            let start = (y + BORDER) * stride + BORDER;
            padded[start..start + w].copy_from_slice(row);
        }
        let limit = ((w + BORDER) as f32, (h + BORDER) as f32);
        Image { width: w, height: h, intrinsics, world_to_cam, grey, frame, padded, limit }
    }

    /// Half the size: means over the matte's part of 2 x 2 pixels.
    pub fn halved(&self) -> Image {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let mut grey = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let (mut sum, mut count) = (0.0, 0.0);
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let (px, py) = (2 * x + dx, 2 * y + dy);
                    if px < self.width && py < self.height {
                        let value = self.grey[py * self.width + px];
                        if !value.is_nan() {
                            sum += value;
                            count += 1.0;
                        }
                    }
                }
                grey.push(if count >= 2.0 { sum / count } else { f32::NAN });
            }
        }
        let half = DMat3::from_diagonal(DVec3::new(0.5, 0.5, 1.0));
        let frame = self.frame.map(|edge| 0.5 * edge);
        Image::new(width, height, half * self.intrinsics, self.world_to_cam, grey, frame)
    }

    /// Pixel position and camera z of a world point.
    pub fn project(&self, point: DVec3) -> (DVec2, f64) {
        let p = self.intrinsics * self.world_to_cam.transform_point3(point);
        (p.truncate() / p.z, p.z)
    }

    /// Grey value at a continuous position relative to pixel *centres* (pixel i is at i), bilinear; NaN where any of
    /// the four pixels lies outside the matte.
    #[inline(always)]
    pub fn sample(&self, x: f32, y: f32) -> f32 {
        let x = (x + BORDER as f32).max(0.0).min(self.limit.0);
        let y = (y + BORDER as f32).max(0.0).min(self.limit.1);
        // Through i32: the conversion to it is the cheapest.
        let (i, j) = (x as i32, y as i32);
        let (fx, fy) = (x - i as f32, y - j as f32);
        let stride = self.width + 2 * BORDER;
        let at = j as usize * stride + i as usize;
        let Some(four) = self.padded.get(at..at + stride + 2) else { return f32::NAN };
        let (a, b, c, d) = (four[0], four[1], four[stride], four[stride + 1]);
        let (top, bottom) = (a + fx * (b - a), c + fx * (d - c));
        top + fy * (bottom - top)
    }

    /// Whether the pixel at `index` lies in the matte.
    pub fn inside(&self, index: usize) -> bool {
        !self.grey[index].is_nan()
    }

    /// World points for camera-z depths.
    pub fn unprojector(&self) -> Unprojector {
        let to_world = self.world_to_cam.inverse();
        let axes = DMat3::from_mat4(to_world) * self.intrinsics.inverse();
        Unprojector { axes, center: to_world.transform_point3(DVec3::ZERO) }
    }
}

/// Turns pixel positions and camera-z depths into world points.
pub(super) struct Unprojector {
    axes: DMat3,
    /// The optical centre.
    pub center: DVec3,
}

impl Unprojector {
    /// The direction of a pixel position, of such length that its camera z is 1.
    pub fn direction(&self, x: f64, y: f64) -> DVec3 {
        self.axes * DVec3::new(x, y, 1.0)
    }

    /// The world point at pixel position (`x`, `y`) (pixel centres at + 0.5) and camera z `depth`.
    pub fn point(&self, x: f64, y: f64, depth: f64) -> Vec3 {
        (self.center + depth * self.direction(x, y)).as_vec3()
    }
}
