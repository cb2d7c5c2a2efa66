//! Depth maps of one view: sub-hypothesis depths from a sweep, smoothing by local planes, normals.
//!
//! Knows one reference view and its neighbours; agreement between depth maps is the business of `volume` and `fuse`.

use super::StereoConfig;
use super::image::Image;
use super::sgm::{Penalties, aggregate};
use super::sweep::Sweep;
use glam::{DMat3, DVec3, Mat3, Vec3};

/// What a round of matching found for one view.
pub(super) struct Found {
    /// Camera z in metres; 0 where there was no base.
    pub depth: Vec<f32>,
    /// Correlation with the best neighbours at that depth, in [0, 1].
    pub score: Vec<f32>,
    /// How sharply the cost rises around that depth: the weight of the measurement.
    pub weight: Vec<f32>,
    /// Distance between hypotheses, m.
    pub step: f32,
}

/// A smoothed depth map, with what fusion needs to know about each pixel.
pub(super) struct DepthMap {
    /// Camera z in metres; 0 where unknown.
    pub depth: Vec<f32>,
    /// Correlation with the best neighbours, in [0, 1].
    pub score: Vec<f32>,
    /// Unit normals towards the camera, world frame; zero where unknown.
    pub normals: Vec<Vec3>,
}

impl DepthMap {
    /// Fits a plane around every pixel of what was found.
    pub fn of(image: &Image, found: &Found, config: &StereoConfig) -> DepthMap {
        let pixels = found.depth.len();
        let mut map =
            DepthMap { depth: vec![0.0; pixels], score: found.score.clone(), normals: vec![Vec3::ZERO; pixels] };
        let inverse: Vec<f32> = found.depth.iter().map(|z| if *z > 0.0 { 1.0 / z } else { 0.0 }).collect();
        let (transposed, to_world) = (image.intrinsics.transpose(), DMat3::from_mat4(image.world_to_cam).transpose());
        for pixel in (0..pixels).filter(|pixel| found.depth[*pixel] > 0.0) {
            let [q, a, b] = plane(found, &inverse, image.width, pixel, config);
            map.depth[pixel] = (1.0 / q) as f32;
            // Points X with n . X = 1 project to (u, v, 1) = K X / z, so 1 / z = (K^-T n) . (u, v, 1).
            let (u, v) = ((pixel % image.width) as f64 + 0.5, (pixel / image.width) as f64 + 0.5);
            let normal = to_world * (transposed * DVec3::new(a, b, q - a * u - b * v));
            map.normals[pixel] = -normal.normalize_or_zero().as_vec3();
        }
        map
    }
}

/// Inverse depth at a pixel and its slopes in x and y, per pixel (inverse depth of a plane is linear in the image):
/// weighted least squares in which pixels at other depths hardly count.
fn plane(found: &Found, inverse: &[f32], width: usize, pixel: usize, config: &StereoConfig) -> [f64; 3] {
    let (x, y, radius) = (pixel % width, pixel / width, config.smooth_radius);
    let height = inverse.len() / width;
    let spread = 1.0 / (config.smooth_depth * config.smooth_depth);
    // Symmetric normal equations for the difference to the middle pixel.
    let (mut m, mut r) = ([0.0f32; 6], Vec3::ZERO);
    for near_y in y.saturating_sub(radius)..(y + radius + 1).min(height) {
        for near_x in x.saturating_sub(radius)..(x + radius + 1).min(width) {
            let near = near_y * width + near_x;
            if found.depth[near] <= 0.0 {
                continue;
            }
            let apart = found.depth[near] - found.depth[pixel];
            let likeness = 1.0 / (1.0 + apart * apart * spread);
            let w = found.weight[near] * likeness * likeness;
            let (dx, dy) = (near_x as f32 - x as f32, near_y as f32 - y as f32);
            let terms = [1.0, dx, dy, dx * dx, dx * dy, dy * dy];
            m.iter_mut().zip(terms).for_each(|(sum, term)| *sum += w * term);
            r += w * (inverse[near] - inverse[pixel]) * Vec3::new(1.0, dx, dy);
        }
    }
    // A little prior towards facing the camera keeps lonely pixels solvable.
    let ridge = 0.01 * m[0];
    let matrix = Mat3::from_cols_array(&[m[0], m[1], m[2], m[1], m[3] + ridge, m[4], m[2], m[4], m[5] + ridge]);
    let solution = (matrix.inverse() * r).as_dvec3();
    [f64::from(inverse[pixel]) + solution.x, solution.y, solution.z]
}

/// The first base of a view, from its depth ranges in the hull, and the offsets to search.
pub(super) fn first_base(image: &Image, ranges: &[Option<(f32, f32)>], search_depth: f32) -> (Vec<f32>, (f32, f32)) {
    // Voxel steps and the sharp ridges of a hull from few views are not surface slants: smooth them away.
    let reach = 3;
    let near: Vec<f32> = ranges.iter().map(|range| range.map_or(0.0, |(near, _)| near)).collect();
    let base = smooth(&near, image.width, reach);
    let (mut first, mut last) = (0.0f32, 0.0f32);
    for (range, base) in ranges.iter().zip(&base) {
        if let Some((near, far)) = range {
            first = first.min(near - base);
            last = last.max((far - base).min(search_depth));
        }
    }
    (base, (first, last))
}

/// Means over the known pixels (not 0) of the (2 `radius` + 1)^2 window, three times; unknown pixels stay unknown.
fn smooth(values: &[f32], width: usize, radius: usize) -> Vec<f32> {
    let height = values.len() / width;
    let mut out = values.to_vec();
    // (stride along a line, its length, stride between lines, their number)
    let (horizontal, vertical) = ((1, width, width, height), (width, height, 1, width));
    for (along, length, across, lines) in [horizontal, vertical].repeat(3) {
        for line in 0..lines {
            let source: Vec<f32> = (0..length).map(|i| out[line * across + i * along]).collect();
            for i in (0..length).filter(|i| source[*i] > 0.0) {
                let known = source[i.saturating_sub(radius)..(i + radius + 1).min(length)].iter().filter(|v| **v > 0.0);
                let (sum, count) = known.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
                out[line * across + i * along] = sum / count;
            }
        }
    }
    out
}

/// Searches the offsets `range` (m) around `base` (camera z, 0 = nothing there) in steps of `step` pixels in the
/// neighbour where they show most.
pub(super) fn search(
    image: &Image,
    neighbours: &[&Image],
    base: &[f32],
    range: (f32, f32),
    step: f32,
    config: &StereoConfig,
) -> Found {
    let center = config.center.as_dvec3();
    let here = image.unprojector().center;
    let pixels_per_metre = neighbours.iter().map(|neighbour| {
        let there = neighbour.unprojector().center;
        let sine = (here - center).angle_between(there - center).sin();
        neighbour.intrinsics.x_axis.x * sine / (there - center).length()
    });
    let step = step / pixels_per_metre.fold(1.0, f64::max) as f32;
    let count = (((range.1 - range.0) / step).ceil() as usize + 1).max(3);
    let sweep = Sweep {
        reference: image,
        neighbours,
        base,
        first: range.0,
        step,
        count,
        radius: config.window_radius,
        keep: config.keep,
        noise: config.noise,
    };
    let costs = sweep.costs();
    let active: Vec<bool> = base.iter().map(|base| *base > 0.0).collect();
    let penalties = Penalties { one: config.penalty_one, more: config.penalty_more };
    let total = aggregate(&costs, &active, image.width, count, penalties);
    let blank = || vec![0.0; base.len()];
    let mut found = Found { depth: blank(), score: blank(), weight: blank(), step };
    for pixel in (0..base.len()).filter(|pixel| active[*pixel]) {
        let total = &total[pixel * count..(pixel + 1) * count];
        let costs = &costs[pixel * count..(pixel + 1) * count];
        let best = (0..count).fold(0, |best, k| if total[k] < total[best] { k } else { best });
        let inner = best.clamp(1, count - 2);
        let curvature = |values: &[f32]| values[inner - 1] + values[inner + 1] - 2.0 * values[inner];
        let bend = curvature(total);
        // The vertex of the parabola through the three totals, unless the best is at the end of the range.
        let shift = if best == inner && bend > 0.0 {
            ((total[inner - 1] - total[inner + 1]) / (2.0 * bend)).clamp(-0.5, 0.5)
        } else {
            0.0
        };
        found.depth[pixel] = base[pixel] + range.0 + (best as f32 + shift) * step;
        found.score[pixel] = 1.0 - costs[best];
        found.weight[pixel] = 1e-3 + curvature(costs).max(0.0) * (1.0 - costs[best]);
    }
    found
}
