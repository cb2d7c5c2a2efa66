//! A coarse voxel visual hull: where the mattes allow matter to be, and between which depths each pixel must look.
//!
//! Knows mattes and cameras, not colours. Parts of space that a view does not see are not carved by it.

use super::image::Image;
use glam::{DVec3, Vec3};
use rayon::prelude::*;

/// Voxels along each edge of the bounding cube.
pub(super) const SIDE: usize = 72;

/// Voxels inside the bounding sphere that lie in every matte, with about one voxel of tolerance.
pub(super) struct Hull {
    pub center: Vec3,
    pub radius: f32,
    /// Edge of a voxel, m.
    pub cell: f32,
    /// `(z * SIDE + y) * SIDE + x`; the cube's corner is `center - radius`.
    pub inside: Vec<bool>,
}

impl Hull {
    /// The middle of a voxel.
    pub fn voxel(&self, index: usize) -> Vec3 {
        let [x, y, z] = [index % SIDE, index / SIDE % SIDE, index / (SIDE * SIDE)];
        (Vec3::new(x as f32, y as f32, z as f32) + 0.5) * self.cell - self.radius + self.center
    }

    /// The distances between which a ray is inside the bounding sphere.
    pub fn chord(&self, origin: DVec3, unit: DVec3, center: DVec3) -> Option<(f64, f64)> {
        let closest = (center - origin).dot(unit);
        let squared = f64::from(self.radius).powi(2) - (origin + closest * unit - center).length_squared();
        (squared > 0.0).then(|| (closest - squared.sqrt(), closest + squared.sqrt()))
    }

    /// Carves the sphere with the mattes of `images`.
    pub fn carve(images: &[&Image], center: Vec3, radius: f32) -> Hull {
        let cell = 2.0 * radius / SIDE as f32;
        let mattes: Vec<Matte<'_>> = images.par_iter().map(|image| Matte::dilated(image, center, cell)).collect();
        let mut hull = Hull { center, radius, cell, inside: Vec::new() };
        let allowed = |index: usize| {
            let point = hull.voxel(index);
            point.distance(center) <= radius && mattes.iter().all(|matte| matte.allows(point.as_dvec3()))
        };
        hull.inside = (0..SIDE * SIDE * SIDE).into_par_iter().map(allowed).collect();
        hull
    }

    /// Whether the voxel around `point` survived.
    fn contains(&self, point: Vec3) -> bool {
        let index = (point - self.center + self.radius) / self.cell;
        let side = SIDE as f32;
        let within = |v: f32| v >= 0.0 && v < side;
        within(index.x)
            && within(index.y)
            && within(index.z)
            && self.inside[(index.z as usize * SIDE + index.y as usize) * SIDE + index.x as usize]
    }

    /// For each pixel of the image the camera z at which its ray enters the hull and at which it leaves it for good,
    /// row-major; `None` where the pixel is outside the matte or its ray misses the hull.
    pub fn depth_ranges(&self, image: &Image) -> Vec<Option<(f32, f32)>> {
        let rays = image.unprojector();
        let center = self.center.as_dvec3();
        let range = |index: usize| {
            if !image.inside(index) {
                return None;
            }
            let (x, y) = ((index % image.width) as f64 + 0.5, (index / image.width) as f64 + 0.5);
            let direction = rays.direction(x, y);
            let length = direction.length();
            let (start, end) = self.chord(rays.center, direction / length, center)?;
            let step = 0.5 * f64::from(self.cell) / length;
            let (mut depth, last) = (start / length, end / length);
            let mut found: Option<(f32, f32)> = None;
            while depth <= last {
                if self.contains((rays.center + depth * direction).as_vec3()) {
                    found = Some((found.map_or(depth as f32, |(near, _)| near), depth as f32));
                }
                depth += step;
            }
            found
        };
        (0..image.width * image.height).into_par_iter().map(range).collect()
    }
}

/// A matte grown by the size of a voxel.
struct Matte<'a> {
    image: &'a Image,
    inside: Vec<bool>,
}

impl Matte<'_> {
    fn dilated(image: &Image, center: Vec3, cell: f32) -> Matte<'_> {
        let depth = image.project(center.as_dvec3()).1;
        let footprint = depth / image.intrinsics.x_axis.x;
        let reach = (0.9 * f64::from(cell) / footprint).ceil() as usize;
        let (width, height) = (image.width, image.height);
        let grown_in_x: Vec<bool> = (0..width * height)
            .map(|index| {
                let (x, row) = (index % width, index - index % width);
                (x.saturating_sub(reach)..=(x + reach).min(width - 1)).any(|near| image.inside(row + near))
            })
            .collect();
        let inside = (0..width * height)
            .map(|index| {
                let (x, y) = (index % width, index / width);
                (y.saturating_sub(reach)..=(y + reach).min(height - 1)).any(|near| grown_in_x[near * width + x])
            })
            .collect();
        Matte { image, inside }
    }

    /// Whether this view has nothing against matter at `point`.
    fn allows(&self, point: DVec3) -> bool {
        let (px, depth) = self.image.project(point);
        let [x0, y0, x1, y1] = self.image.frame;
        if depth <= 0.0 || px.x < x0 || px.y < y0 || px.x >= x1 || px.y >= y1 {
            return true;
        }
        // The crop may have cut off the dilated rim: within a voxel of the crop its nearest pixel decides.
        let (width, height) = (self.image.width as f64, self.image.height as f64);
        let slack = 2.0;
        if px.x < -slack || px.y < -slack || px.x >= width + slack || px.y >= height + slack {
            return false;
        }
        let (x, y) = (px.x.clamp(0.0, width - 1.0) as usize, px.y.clamp(0.0, height - 1.0) as usize);
        self.inside[y * self.image.width + x]
    }
}
