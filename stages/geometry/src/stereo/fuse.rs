//! From depth maps to one cloud: agreement between views, averaging, voxel subsampling, stray points.
//!
//! Knows depth maps and cameras; nothing of how the depths were found.

use super::depth::DepthMap;
use super::image::{Image, Unprojector};
use super::{StereoConfig, View};
use crate::cloud::PointCloud;
use glam::{DVec2, IVec3, Vec3};
use rayon::prelude::*;
use std::collections::HashMap;

/// A view as fusion sees it.
pub(super) struct Fused<'a> {
    pub view: View<'a>,
    pub image: &'a Image,
    pub map: &'a DepthMap,
}

/// A point with its normal, colour and weight.
#[derive(Clone, Copy)]
struct Sample {
    position: Vec3,
    normal: Vec3,
    color: Vec3,
    weight: f32,
}

/// Fuses the depth maps into one cloud.
pub(super) fn fuse(views: &[Fused<'_>], config: &StereoConfig) -> PointCloud {
    let rays: Vec<Unprojector> = views.iter().map(|view| view.image.unprojector()).collect();
    let samples: Vec<Vec<Sample>> = (0..views.len())
        .into_par_iter()
        .map(|reference| {
            let pixels = 0..views[reference].map.depth.len();
            pixels.filter_map(|pixel| confirmed(views, &rays, reference, pixel, config)).collect()
        })
        .collect();
    let samples = subsample(&samples.concat(), config.voxel);
    let samples = without_strays(&samples, config.voxel);
    PointCloud {
        positions: samples.iter().map(|s| s.position).collect(),
        normals: samples.iter().map(|s| s.normal).collect(),
        colors: samples.iter().map(|s| s.color.to_array().map(|c| c.round().clamp(0.0, 255.0) as u8)).collect(),
    }
}

/// The point of one pixel, averaged with the views that agree; `None` if too few do, or as many contradict.
fn confirmed(
    views: &[Fused<'_>],
    rays: &[Unprojector],
    reference: usize,
    pixel: usize,
    config: &StereoConfig,
) -> Option<Sample> {
    let Fused { image, map, .. } = &views[reference];
    let (depth, normal) = (map.depth[pixel], map.normals[pixel]);
    if depth <= 0.0 || map.score[pixel] < config.min_score {
        return None;
    }
    let (x, y) = ((pixel % image.width) as f64 + 0.5, (pixel / image.width) as f64 + 0.5);
    let point = rays[reference].point(x, y, f64::from(depth));
    if point.distance(config.center) > config.radius {
        return None;
    }
    let facing = |view: usize, normal: Vec3| (rays[view].center.as_vec3() - point).normalize().dot(normal);
    let own = map.score[pixel] * facing(reference, normal).max(0.05);
    let (mut position, mut direction, mut weights) = (own * point, own * normal, own);
    let (mut agree, mut against) = (0, 0);
    for (other, fused) in views.iter().enumerate().filter(|(other, _)| *other != reference) {
        let (px, z) = fused.image.project(point.as_dvec3());
        match seen(fused, px, z as f32, config) {
            Seen::Outside => return None,
            Seen::Nothing => {}
            Seen::Behind => against += 1,
            Seen::Here(depth, normal, score) => {
                let theirs = rays[other].point(px.x, px.y, f64::from(depth));
                let (back, _) = image.project(theirs.as_dvec3());
                if back.distance(DVec2::new(x, y)) <= f64::from(config.max_reprojection) {
                    let weight = score * facing(other, normal).max(0.05);
                    position += weight * theirs;
                    direction += weight * normal;
                    weights += weight;
                    agree += 1;
                }
            }
        }
    }
    if agree < config.min_agreeing || against >= agree {
        return None;
    }
    // Through the original camera, because the depth map may have a coarser size than the photograph.
    let View { camera, rgb, .. } = views[reference].view;
    let (px, _) = camera.project(point.as_dvec3());
    let clip = |value: f64, limit: u32| (value.max(0.0) as usize).min(limit as usize - 1);
    let index = clip(px.y, camera.height) * camera.width as usize + clip(px.x, camera.width);
    let rgb = &rgb[3 * index..3 * index + 3];
    Some(Sample {
        position: position / weights,
        normal: direction.normalize_or(normal),
        color: Vec3::new(f32::from(rgb[0]), f32::from(rgb[1]), f32::from(rgb[2])),
        weight: weights,
    })
}

/// What another view says about a point.
enum Seen {
    /// It projects outside the matte.
    Outside,
    /// Out of the picture, hidden behind something, or of unknown depth there.
    Nothing,
    /// The view looks through the point at something behind.
    Behind,
    /// The view sees a surface at this depth, with this normal and score.
    Here(f32, Vec3, f32),
}

fn seen(fused: &Fused<'_>, px: DVec2, z: f32, config: &StereoConfig) -> Seen {
    let (image, map) = (fused.image, fused.map);
    let [x0, y0, x1, y1] = image.frame;
    if z <= 0.0 || px.x < x0 || px.y < y0 || px.x >= x1 || px.y >= y1 {
        return Seen::Nothing;
    }
    let (width, height) = (image.width as isize, image.height as isize);
    let (x, y) = ((px.x - 0.5).floor() as isize, (px.y - 0.5).floor() as isize);
    let (fx, fy) = ((px.x - 0.5) as f32 - x as f32, (px.y - 0.5) as f32 - y as f32);
    let tolerance = config.max_depth_difference * z;
    let (mut any, mut known) = (false, 0.0f32);
    let (mut sum, mut normal, mut score, mut weights) = (0.0, Vec3::ZERO, 0.0, 0.0);
    let mut farther = 0.0;
    for (dx, dy, weight) in
        [(0, 0, (1.0 - fx) * (1.0 - fy)), (1, 0, fx * (1.0 - fy)), (0, 1, (1.0 - fx) * fy), (1, 1, fx * fy)]
    {
        let (x, y) = (x + dx, y + dy);
        if x < 0 || y < 0 || x >= width || y >= height {
            continue;
        }
        let index = (y * width + x) as usize;
        any |= image.inside(index);
        if map.depth[index] <= 0.0 || map.score[index] < config.min_score {
            continue;
        }
        known += weight;
        if (map.depth[index] - z).abs() <= tolerance {
            sum += weight * map.depth[index];
            normal += weight * map.normals[index];
            score += weight * map.score[index];
            weights += weight;
        } else if map.depth[index] > z {
            farther += weight;
        }
    }
    if !any {
        Seen::Outside
    } else if weights > 0.25 && weights > 0.5 * known {
        Seen::Here(sum / weights, normal.normalize_or_zero(), score / weights)
    } else if farther > 0.5 {
        Seen::Behind
    } else {
        Seen::Nothing
    }
}

/// One averaged sample per voxel, ordered by voxel.
fn subsample(samples: &[Sample], voxel: f32) -> Vec<Sample> {
    let mut keyed: Vec<(IVec3, usize)> =
        samples.iter().enumerate().map(|(index, sample)| (cell(sample.position, voxel), index)).collect();
    keyed.par_sort_unstable_by_key(|(cell, index)| (cell.to_array(), *index));
    keyed
        .chunk_by(|a, b| a.0 == b.0)
        .map(|group| {
            let mut mean = Sample { position: Vec3::ZERO, normal: Vec3::ZERO, color: Vec3::ZERO, weight: 0.0 };
            for (_, index) in group {
                let sample = &samples[*index];
                mean.position += sample.weight * sample.position;
                mean.normal += sample.weight * sample.normal;
                mean.color += sample.weight * sample.color;
                mean.weight += sample.weight;
            }
            Sample {
                position: mean.position / mean.weight,
                normal: mean.normal.normalize_or(samples[group[0].1].normal),
                color: mean.color / mean.weight,
                weight: mean.weight,
            }
        })
        .collect()
}

/// Drops samples with hardly anything else around: fewer than a dozen others in the 27 cells, of four voxels each,
/// around it.
fn without_strays(samples: &[Sample], voxel: f32) -> Vec<Sample> {
    let mut counts: HashMap<IVec3, u32> = HashMap::new();
    for sample in samples {
        *counts.entry(cell(sample.position, 4.0 * voxel)).or_default() += 1;
    }
    let around = |sample: &Sample| {
        let middle = cell(sample.position, 4.0 * voxel);
        let cells = (0..27).map(|i| middle + IVec3::new(i % 3 - 1, i / 3 % 3 - 1, i / 9 - 1));
        cells.filter_map(|cell| counts.get(&cell)).sum::<u32>()
    };
    samples.iter().filter(|sample| around(sample) > 12).copied().collect()
}

fn cell(position: Vec3, size: f32) -> IVec3 {
    (position / size).floor().as_ivec3()
}
