//! Calibrated multi-view stereo: matted photographs with known cameras in, an oriented, coloured point cloud out.
//!
//! Every view is a reference once. Its hypotheses are offsets from a base surface (`sweep`), regularised by
//! semi-global aggregation (`sgm`) and sharpened by local plane fits (`depth`). The first base is the visual hull
//! (`hull`); after each round all depth maps vote in a coarse signed distance volume (`volume`), whose surface is
//! everybody's next, finer base. In the end, points that enough views agree on are averaged (`fuse`). The procedure
//! stands where COLMAP's CUDA-only dense stage does in the NeRSemble captures; rounds of few hypotheses around a
//! shared surface are what makes it affordable on a CPU.
//!
//! This knows neither faces nor time: each call is one instant. Lens distortion must have been removed. Strands of hair
//! thinner than a pixel, and what fewer than three views see, it cannot reconstruct.

mod depth;
mod fuse;
mod hull;
mod image;
mod sgm;
mod sweep;
mod volume;

use crate::camera::Camera;
use crate::cloud::PointCloud;
use depth::{DepthMap, Found};
use fuse::Fused;
use glam::Vec3;
use hull::Hull;
use image::Image;
use rayon::prelude::*;
use volume::{Volume, Witness};

/// One photograph.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Its camera; its image size is that of the two buffers.
    pub camera: &'a Camera,
    /// `[height, width, 3]` bytes, row-major.
    pub rgb: &'a [u8],
    /// `[height, width]` bytes, the matte: 0 background to 255 subject; pixels of at least 128 take part. What is 0
    /// here in any view is carved away, so leave no holes; all 255 where there is no matte.
    pub mask: &'a [u8],
}

/// What to reconstruct, and how carefully. Lengths are metres in the world frame of the cameras, and positive.
#[derive(Clone, Debug, PartialEq)]
pub struct StereoConfig {
    /// Centre of the sphere outside which nothing is reconstructed.
    pub center: Vec3,
    /// Radius of that sphere.
    pub radius: f32,
    /// Other views each view is matched against.
    pub neighbours: usize,
    /// How many of those, the best ones for each pixel and hypothesis, count: fewer tolerates more occlusion.
    pub keep: usize,
    /// Angle between viewing directions, in degrees, that neighbours should have: wider is more precise, narrower
    /// more alike.
    pub baseline: f32,
    /// Matching windows have `2 * window_radius + 1` pixels each way.
    pub window_radius: usize,
    /// Standard deviation of the grey-value noise, of 255. Texture weaker than that does not count.
    pub noise: f32,
    /// Size, on the subject, that pixels of the coarsest level should have; the levels are powers of two.
    pub coarse_pixel: f32,
    /// Rounds at the coarsest level, at least 1.
    pub coarse_rounds: usize,
    /// Rounds at each finer level.
    pub fine_rounds: usize,
    /// How far behind the visual hull the first round looks.
    pub search_depth: f32,
    /// How far later rounds look to both sides, in hypotheses of the round before.
    pub reach: f32,
    /// Distance between the hypotheses of the first round, in pixels of the neighbour where it shows most.
    pub coarse_step: f32,
    /// The same for later rounds.
    pub fine_step: f32,
    /// Aggregation penalty for offsets that differ by one hypothesis between neighbouring pixels.
    pub penalty_one: f32,
    /// Aggregation penalty for larger differences.
    pub penalty_more: f32,
    /// Planes are fitted to windows of `2 * smooth_radius + 1` pixels each way.
    pub smooth_radius: usize,
    /// Depth difference at which a pixel hardly counts in its neighbour's plane.
    pub smooth_depth: f32,
    /// Least correlation, in [0, 1], of a pixel that becomes a point.
    pub min_score: f32,
    /// Other views that must agree with a point.
    pub min_agreeing: usize,
    /// Reprojection error, in pixels, up to which a view agrees.
    pub max_reprojection: f32,
    /// Relative depth difference up to which a view agrees.
    pub max_depth_difference: f32,
    /// The cloud keeps one averaged point per cube of this size.
    pub voxel: f32,
}

impl StereoConfig {
    /// Settings for a head of which one pixel sees about 0.3 to 3 mm, in 6 to 16 views.
    pub fn around(center: Vec3, radius: f32) -> Self {
        Self {
            center,
            radius,
            neighbours: 4,
            keep: 3,
            baseline: 15.0,
            window_radius: 2,
            noise: 0.6,
            coarse_pixel: 0.0025,
            coarse_rounds: 2,
            fine_rounds: 2,
            search_depth: 0.10,
            reach: 3.0,
            coarse_step: 1.0,
            fine_step: 0.8,
            penalty_one: 0.01,
            penalty_more: 0.4,
            smooth_radius: 2,
            smooth_depth: 0.004,
            min_score: 0.1,
            min_agreeing: 2,
            max_reprojection: 1.0,
            max_depth_difference: 0.004,
            voxel: 0.002,
        }
    }
}

/// Reconstructs the surface inside the sphere that at least `1 + min_agreeing` views see.
///
/// The cloud has outward unit normals and colours, in an order that depends on positions only; the result does not
/// depend on the number of threads. It is empty if the sphere shows in too few views.
///
/// Time and memory are linear in pixels: 8 views of 192 x 280 take about 1.5 s of a 2 GHz core with the settings of
/// [`StereoConfig::around`]; every view in work holds about 200 bytes a pixel.
///
/// # Panics
/// If a view's buffers do not have the size its camera says.
pub fn reconstruct(views: &[View<'_>], config: &StereoConfig) -> PointCloud {
    let maps = depth_maps(views, config);
    let fused: Vec<Fused<'_>> =
        maps.iter().map(|(view, image, map)| Fused { view: views[*view], image, map }).collect();
    fuse::fuse(&fused, config)
}

/// The depth maps before fusion: index of the view, its cropped image, and the map. Views that do not show the sphere
/// have none.
fn depth_maps(views: &[View<'_>], config: &StereoConfig) -> Vec<(usize, Image, DepthMap)> {
    for (index, View { camera, rgb, mask }) in views.iter().enumerate() {
        let pixels = camera.width as usize * camera.height as usize;
        assert!(
            rgb.len() == 3 * pixels && mask.len() == pixels,
            "view {index}: camera of {} x {} pixels, but {} colour bytes and {} matte bytes",
            camera.width,
            camera.height,
            rgb.len(),
            mask.len()
        );
    }
    let (indices, pyramids) = pyramids(views, config);
    let Some(coarsest) = pyramids.first().map(|pyramid| pyramid.len() - 1) else { return Vec::new() };
    let at = |level: usize| -> Vec<&Image> { pyramids.iter().map(|pyramid| &pyramid[level]).collect() };
    let neighbours: Vec<Vec<usize>> = (0..pyramids.len()).map(|view| neighbours(&at(0), view, config)).collect();
    let hull = Hull::carve(&at(coarsest), config.center, config.radius);

    let (bases, ranges): (Vec<_>, Vec<_>) = at(coarsest)
        .par_iter()
        .map(|image| depth::first_base(image, &hull.depth_ranges(image), config.search_depth))
        .unzip();
    let mut found = round(&at(coarsest), &neighbours, &bases, &ranges, config.coarse_step, config);
    let mut last = coarsest;
    let coarse = std::iter::repeat_n(coarsest, config.coarse_rounds.saturating_sub(1));
    let fine = (0..coarsest).rev().flat_map(|level| std::iter::repeat_n(level, config.fine_rounds));
    for level in coarse.chain(fine) {
        let bases = exchange(&hull, &at(last), &found, &at(level), config);
        // a view that has nobody to be matched with has no step that means anything
        let matched = found.iter().zip(&neighbours).filter(|(_, neighbours)| !neighbours.is_empty());
        let reach = config.reach * matched.map(|(found, _)| found.step).fold(0.0, f32::max);
        let ranges = vec![(-reach, reach); bases.len()];
        found = round(&at(level), &neighbours, &bases, &ranges, config.fine_step, config);
        last = level;
    }
    let maps: Vec<DepthMap> =
        at(last).par_iter().zip(&found).map(|(image, found)| DepthMap::of(image, found, config)).collect();
    let finest = pyramids.into_iter().filter_map(|pyramid| pyramid.into_iter().nth(last));
    indices.into_iter().zip(finest).zip(maps).map(|((index, image), map)| (index, image, map)).collect()
}

/// The views that show the sphere, by index, and their sizes, finest first.
fn pyramids(views: &[View<'_>], config: &StereoConfig) -> (Vec<usize>, Vec<Vec<Image>>) {
    let center = config.center.as_dvec3();
    let (indices, images): (Vec<usize>, Vec<Image>) = views
        .par_iter()
        .enumerate()
        .filter_map(|(index, view)| Some((index, Image::crop(view, center, f64::from(config.radius))?)))
        .unzip();
    let footprints = images.iter().map(|image| image.project(center).1 / image.intrinsics.x_axis.x);
    let finest = footprints.fold(f64::INFINITY, f64::min);
    let halvings = (f64::from(config.coarse_pixel) / finest).log2().round().clamp(0.0, 6.0) as usize;
    let pyramid = |image: Image| {
        let mut sizes = vec![image];
        for _ in 0..halvings {
            sizes.push(sizes[sizes.len() - 1].halved());
        }
        sizes
    };
    (indices, images.into_par_iter().map(pyramid).collect())
}

/// The views whose directions differ from the reference's most nearly by the baseline asked for.
fn neighbours(images: &[&Image], reference: usize, config: &StereoConfig) -> Vec<usize> {
    let center = config.center.as_dvec3();
    let direction = |view: usize| (images[view].unprojector().center - center).normalize();
    let here = direction(reference);
    let mut others: Vec<(f64, usize)> = (0..images.len())
        .filter(|other| *other != reference)
        .map(|other| (here.angle_between(direction(other)).to_degrees(), other))
        // Below 4 degrees depths are noise; beyond 50 two windows hardly show the same.
        .filter(|(angle, _)| (4.0..50.0).contains(angle))
        .map(|(angle, other)| ((angle - f64::from(config.baseline)).abs(), other))
        .collect();
    others.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    others.truncate(config.neighbours);
    others.into_iter().map(|(_, other)| other).collect()
}

/// One round of matching: every view against its neighbours.
fn round(
    images: &[&Image],
    neighbours: &[Vec<usize>],
    bases: &[Vec<f32>],
    ranges: &[(f32, f32)],
    step: f32,
    config: &StereoConfig,
) -> Vec<Found> {
    (0..images.len())
        .into_par_iter()
        .map(|view| {
            let others: Vec<&Image> = neighbours[view].iter().map(|other| images[*other]).collect();
            depth::search(images[view], &others, &bases[view], ranges[view], step, config)
        })
        .collect()
}

/// The bases of the next round, at the sizes `next`, from what the last one found at the sizes `last`.
fn exchange(hull: &Hull, last: &[&Image], found: &[Found], next: &[&Image], config: &StereoConfig) -> Vec<Vec<f32>> {
    let maps: Vec<(DepthMap, Vec<f32>)> = last
        .par_iter()
        .zip(found)
        .map(|(image, found)| {
            let map = DepthMap::of(image, found, config);
            let towards = (image.unprojector().center.as_vec3() - config.center).normalize();
            let facing = map.normals.iter().map(|normal| normal.dot(towards).max(0.05));
            let trust = facing.zip(&found.weight).map(|(facing, weight)| facing * facing * weight).collect();
            (map, trust)
        })
        .collect();
    let witnesses: Vec<Witness<'_>> =
        maps.iter().zip(last).map(|((map, trust), image)| Witness { image, depth: &map.depth, trust }).collect();
    let volume = Volume::of(hull, &witnesses);
    next.par_iter().map(|image| volume.depth(image)).collect()
}

#[cfg(test)]
mod tests;
