//! What all depth maps say together: a coarse signed distance volume, and its surface as seen from a view.
//!
//! After each round of matching the views exchange what they found: a surface that one view sees at a grazing angle
//! another sees frontally, so that everybody's next search starts from the common surface. Knows depth maps and the
//! hull, not how depths are matched.

use super::hull::{Hull, SIDE};
use super::image::Image;
use glam::{Vec3, Vec3A};
use rayon::prelude::*;

/// Signed distances are cut off at this many voxels.
const TRUNCATION: f32 = 3.0;

/// A depth map as a witness.
pub(super) struct Witness<'a> {
    pub image: &'a Image,
    /// Camera z, m; 0 unknown.
    pub depth: &'a [f32],
    /// How far the pixel is to be believed.
    pub trust: &'a [f32],
}

/// Signed distance samples (positive in front of the surface) at the voxel centres of the hull.
pub(super) struct Volume<'a> {
    hull: &'a Hull,
    /// In metres, `(z * SIDE + y) * SIDE + x`.
    values: Vec<f32>,
}

impl<'a> Volume<'a> {
    /// For each hull voxel the robust mean of what the depth maps say. Hull voxels about which nobody knows anything
    /// count as inside, so that the hull itself is the surface there.
    pub fn of(hull: &'a Hull, witnesses: &[Witness<'_>]) -> Volume<'a> {
        let truncation = TRUNCATION * hull.cell;
        let projections: Vec<Projection<'_>> = witnesses.iter().map(Projection::of).collect();
        let values = (0..SIDE * SIDE)
            .into_par_iter()
            .flat_map_iter(|zy| {
                let projections = &projections;
                let mut said: Vec<(f32, f32)> = Vec::with_capacity(projections.len());
                (0..SIDE).map(move |x| {
                    let index = zy * SIDE + x;
                    if !hull.inside[index] {
                        return truncation;
                    }
                    said.clear();
                    let point = hull.voxel(index);
                    said.extend(projections.iter().filter_map(|projection| projection.distance(point, truncation)));
                    robust_mean(&mut said, 0.5 * truncation).unwrap_or(-truncation)
                })
            })
            .collect();
        Volume { hull, values }
    }

    /// Camera z of the surface for each pixel of the matte; 0 where its ray does not meet any.
    pub fn depth(&self, image: &Image) -> Vec<f32> {
        let rays = image.unprojector();
        let center = self.hull.center.as_dvec3();
        let (origin, cell) = (rays.center.as_vec3(), self.hull.cell);
        let march = |index: usize| {
            if !image.inside(index) {
                return 0.0;
            }
            let (x, y) = ((index % image.width) as f64 + 0.5, (index / image.width) as f64 + 0.5);
            let direction = rays.direction(x, y);
            let length = direction.length();
            let Some((start, end)) = self.hull.chord(rays.center, direction / length, center) else { return 0.0 };
            let unit = (direction / length).as_vec3();
            let (mut t, mut previous) = (start as f32, (start as f32, f32::MAX));
            while t < end as f32 {
                let value = self.value(origin + t * unit);
                if value <= 0.0 {
                    let (before, above) = previous;
                    let crossing = if above == f32::MAX { t } else { before + (t - before) * above / (above - value) };
                    return crossing / length as f32;
                }
                previous = (t, value);
                // Not the whole distance: it was measured along other rays, and is only interpolated.
                t += (0.7 * value).clamp(0.3 * cell, 2.0 * cell);
            }
            0.0
        };
        (0..image.width * image.height).into_par_iter().map(march).collect()
    }

    /// Trilinear interpolation; positive beyond the cube.
    fn value(&self, point: Vec3) -> f32 {
        let p = (point - self.hull.center + self.hull.radius) / self.hull.cell - 0.5;
        if p.min_element() < 0.0 || p.max_element() >= (SIDE - 1) as f32 {
            return TRUNCATION * self.hull.cell;
        }
        // Positive, so that truncation is `floor`.
        let base = p.as_ivec3();
        let f = p - base.as_vec3();
        let at = (base.z as usize * SIDE + base.y as usize) * SIDE + base.x as usize;
        let lerp = |a: f32, b: f32, t: f32| a + t * (b - a);
        let row = |at: usize| lerp(self.values[at], self.values[at + 1], f.x);
        let layer = |at: usize| lerp(row(at), row(at + SIDE), f.y);
        lerp(layer(at), layer(at + SIDE * SIDE), f.z)
    }
}

/// A witness ready to be asked.
struct Projection<'a> {
    witness: &'a Witness<'a>,
    columns: [Vec3A; 4],
}

impl<'a> Projection<'a> {
    fn of(witness: &'a Witness<'a>) -> Projection<'a> {
        let pose = witness.image.world_to_cam;
        let columns = [pose.x_axis, pose.y_axis, pose.z_axis, pose.w_axis]
            .map(|column| (witness.image.intrinsics * column.truncate()).as_vec3a());
        Projection { witness, columns }
    }

    /// Distance along the viewing ray from `point` to the surface, cut off at `truncation`, and its weight; `None` if
    /// the point is hidden, out of the picture or in front of unknown depth.
    fn distance(&self, point: Vec3, truncation: f32) -> Option<(f32, f32)> {
        let image = self.witness.image;
        let p = self.columns[0] * point.x + self.columns[1] * point.y + self.columns[2] * point.z + self.columns[3];
        let (x, y) = (p.x / p.z - 0.5, p.y / p.z - 0.5);
        if p.z <= 0.0 || x < 0.0 || y < 0.0 || x >= (image.width - 1) as f32 || y >= (image.height - 1) as f32 {
            return None;
        }
        let (i, j) = (x as i32, y as i32);
        let (fx, fy) = (x - i as f32, y - j as f32);
        let at = j as usize * image.width + i as usize;
        let corners = [at, at + 1, at + image.width, at + image.width + 1];
        let nearest = corners[usize::from(fx > 0.5) + 2 * usize::from(fy > 0.5)];
        let middle = self.witness.depth[nearest];
        if middle <= 0.0 {
            return None;
        }
        // Bilinear, unless that would mix two surfaces.
        let [a, b, c, d] = corners.map(|corner| {
            let depth = self.witness.depth[corner];
            if (depth - middle).abs() < truncation { depth } else { middle }
        });
        let (top, bottom) = (a + fx * (b - a), c + fx * (d - c));
        let distance = top + fy * (bottom - top) - p.z;
        // A depth far behind the point speaks softly, as one far in front (the point is hidden) says nothing at all:
        // otherwise wrong depths would on average push the surface away from the cameras.
        let loudness = if distance > truncation { 0.1 } else { 1.0 };
        (distance > -truncation).then(|| (distance.min(truncation), loudness * self.witness.trust[nearest]))
    }
}

/// The weighted mean of the `(value, weight)`s within `spread` of the weighted median.
fn robust_mean(said: &mut [(f32, f32)], spread: f32) -> Option<f32> {
    said.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let half = 0.5 * said.iter().map(|(_, weight)| weight).sum::<f32>();
    let mut below = 0.0;
    let median = said.iter().find(|(_, weight)| {
        below += weight;
        below >= half
    })?;
    let near = said.iter().filter(|(value, _)| (value - median.0).abs() <= spread);
    let (sum, weights) =
        near.fold((0.0, 0.0), |(sum, weights), (value, weight)| (sum + weight * value, weights + weight));
    Some(if weights > 0.0 { sum / weights } else { median.0 })
}
