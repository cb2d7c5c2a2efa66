//! Free space: places near an observed surface through which some camera sees, so that nothing can be there.
//!
//! Knows cameras, mattes and a cloud; neither heads nor fits. A place is free if a matte shows background there (the
//! silhouette), or if it lies clearly in front of what a camera sees at its pixel. Candidates are points of the cloud,
//! moved at random.

use crate::camera::Camera;
use crate::cloud::PointCloud;
use glam::{DVec2, Vec3};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;

/// What one camera saw.
#[derive(Clone, Copy, Debug)]
pub struct Silhouette<'a> {
    /// The camera.
    pub camera: &'a Camera,
    /// `[height, width]` of the camera, row-major: 0 background to 255 subject.
    pub matte: &'a [u8],
}

/// What to look for. Lengths in metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FreeSpaceConfig {
    /// Candidates that are tried.
    pub candidates: usize,
    /// How far they are moved from the surface: standard deviation on each axis.
    pub reach: f64,
    /// What is less than this in front of the surface is not free for certain: the surface's own error.
    pub margin: f64,
    /// Decides which candidates are tried.
    pub seed: u64,
}

impl Default for FreeSpaceConfig {
    fn default() -> Self {
        Self { candidates: 20_000, reach: 0.02, margin: 0.005, seed: 0 }
    }
}

/// A pixel of a depth map stands for at least this size at the subject; the cloud has a point every 2 mm.
const PIXEL: f64 = 0.004;
/// Surfaces that turn away further than this from a camera (cosine) are not what it sees.
const FACING: f32 = 0.2;

/// Free places near the cloud, in the order tried. Without normals in the cloud silhouettes alone tell, since it is not
/// known then what faces a camera.
///
/// # Panics
/// If a matte does not have the size its camera says.
pub fn free_space(cloud: &PointCloud, views: &[Silhouette<'_>], config: &FreeSpaceConfig) -> Vec<Vec3> {
    if cloud.is_empty() {
        return Vec::new();
    }
    let depths: Vec<DepthMap> = views.par_iter().map(|view| DepthMap::of(view, cloud)).collect();
    let mut random = ChaCha8Rng::seed_from_u64(config.seed);
    let candidates: Vec<Vec3> = (0..config.candidates)
        .map(|_| {
            let start = cloud.positions[random.next_u64() as usize % cloud.len()];
            let mut offset = || (normal(&mut random) * config.reach) as f32;
            start + Vec3::new(offset(), offset(), offset())
        })
        .collect();
    let is_free = |p: &&Vec3| views.iter().zip(&depths).any(|(view, depth)| sees_through(view, depth, **p, config));
    candidates.par_iter().filter(is_free).copied().collect()
}

fn sees_through(view: &Silhouette<'_>, depths: &DepthMap, place: Vec3, config: &FreeSpaceConfig) -> bool {
    let (px, z) = view.camera.project(place.as_dvec3());
    let (width, height) = (f64::from(view.camera.width), f64::from(view.camera.height));
    if z <= 0.0 || px.x < 0.0 || px.y < 0.0 || px.x >= width || px.y >= height {
        return false;
    }
    let pixel = px.y as usize * view.camera.width as usize + px.x as usize;
    view.matte[pixel] == 0 || depths.nearest(px).is_some_and(|surface| z < f64::from(surface) - config.margin)
}

/// Nearest depth of the points that face a camera, at pixels large enough that a surface leaves no gaps.
struct DepthMap {
    width: usize,
    height: usize,
    /// Pixels of the picture that one of these stands for.
    cell: f64,
    /// Metres along the camera's axis; infinite where nothing was seen.
    depth: Vec<f32>,
}

impl DepthMap {
    fn of(view: &Silhouette<'_>, cloud: &PointCloud) -> DepthMap {
        let camera = view.camera;
        assert_eq!(view.matte.len(), camera.width as usize * camera.height as usize, "pixels of a matte");
        let center = camera.center().as_vec3();
        let middle = cloud.positions.iter().sum::<Vec3>() / cloud.len() as f32;
        let cell = (PIXEL * camera.intrinsics.x_axis.x / f64::from(center.distance(middle))).max(1.0);
        let count = |n: u32| (f64::from(n) / cell).ceil() as usize;
        let (width, height) = (count(camera.width), count(camera.height));
        let mut depth = vec![f32::INFINITY; width * height];
        for (place, normal) in cloud.positions.iter().zip(&cloud.normals) {
            if (center - *place).normalize_or_zero().dot(*normal) < FACING {
                continue;
            }
            let (px, z) = camera.project(place.as_dvec3());
            let (x, y) = ((px.x / cell).floor(), (px.y / cell).floor());
            if z > 0.0 && x >= 0.0 && y >= 0.0 && (x as usize) < width && (y as usize) < height {
                let here = &mut depth[y as usize * width + x as usize];
                *here = here.min(z as f32);
            }
        }
        DepthMap { width, height, cell, depth }
    }

    /// The nearest depth around a pixel of the picture; none unless the surface was seen all around, since a place at
    /// its rim may be behind what was not.
    fn nearest(&self, px: DVec2) -> Option<f32> {
        let (x, y) = ((px.x / self.cell) as usize, (px.y / self.cell) as usize);
        if x == 0 || y == 0 || x + 1 >= self.width || y + 1 >= self.height {
            return None;
        }
        let around = (y - 1..=y + 1).flat_map(|y| (x - 1..=x + 1).map(move |x| y * self.width + x));
        let (low, high) =
            around.fold((f32::INFINITY, 0.0f32), |(low, high), i| (low.min(self.depth[i]), high.max(self.depth[i])));
        high.is_finite().then_some(low)
    }
}

/// A standard normal number (Box and Muller).
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let mut share = || (random.next_u32() as f64 + 0.5) / 2f64.powi(32);
    let (u, v) = (share(), share());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use glam::{DMat4, DQuat, DVec3};

    /// A camera 1 m from the origin that looks at it from an azimuth, 200 px square.
    fn camera(azimuth: f64) -> Camera {
        let eye = DVec3::new(azimuth.sin(), 0.0, azimuth.cos());
        let turn = DQuat::from_rotation_y(azimuth) * DQuat::from_rotation_x(std::f64::consts::PI);
        let world_to_cam = DMat4::from_rotation_translation(turn, eye).inverse();
        Camera::from_row_major(
            &[400.0, 0.0, 100.0, 0.0, 400.0, 100.0, 0.0, 0.0, 1.0],
            &world_to_cam.transpose().to_cols_array(),
            200,
            200,
        )
    }

    /// A ball of 10 cm, and its matte from a camera.
    fn ball() -> PointCloud {
        let n = 40_000;
        let at = |i: usize| {
            let y = 1.0 - 2.0 * (i as f32 + 0.5) / n as f32;
            let angle = i as f32 * 2.399_963;
            Vec3::new((1.0 - y * y).sqrt() * angle.cos(), y, (1.0 - y * y).sqrt() * angle.sin())
        };
        let normals: Vec<Vec3> = (0..n).map(at).collect();
        PointCloud { positions: normals.iter().map(|p| *p * 0.1).collect(), normals, colors: Vec::new() }
    }

    fn matte(camera: &Camera) -> Vec<u8> {
        let center = camera.center();
        (0..200 * 200)
            .map(|i| {
                let ray = camera.ray(DVec2::new(f64::from(i % 200) + 0.5, f64::from(i / 200) + 0.5));
                let nearest = center + ray * -center.dot(ray);
                if nearest.length() < 0.1 { 255 } else { 0 }
            })
            .collect()
    }

    #[test]
    fn what_is_free_lies_outside_and_most_of_the_outside_is_free() {
        let cameras = [0.0, 0.6, -0.6].map(camera);
        let mattes = cameras.each_ref().map(matte);
        let views: Vec<_> = cameras.iter().zip(&mattes).map(|(camera, matte)| Silhouette { camera, matte }).collect();
        // half of the ball, as cameras in front see it
        let ball = ball();
        let seen = ball.retain(|i| ball.positions[i].z > 0.0);
        let config = FreeSpaceConfig { candidates: 4000, ..FreeSpaceConfig::default() };
        let free = free_space(&seen, &views, &config);
        assert_eq!(free, free_space(&seen, &views, &config));
        // a pixel of the mattes is 2.5 mm wide
        assert!(
            free.iter().all(|p| p.length() > 0.098),
            "{:?}",
            free.iter().map(|p| p.length()).fold(f32::INFINITY, f32::min)
        );
        // all that is tried, as a camera that sees nothing but background tells it
        let nothing = vec![0; 200 * 200];
        let all = free_space(&seen, &[Silhouette { camera: &cameras[0], matte: &nothing }], &config);
        assert_eq!(all.len(), config.candidates);
        let in_all_mattes = |p: &Vec3| {
            views.iter().all(|view| {
                let (px, _) = view.camera.project(p.as_dvec3());
                view.matte[px.y as usize * 200 + px.x as usize] == 255
            })
        };
        // how far a place within the mattes is in front of the half that was seen, in the eyes of the camera for which
        // that is most; a place at whose rim nothing was seen is left open
        let in_front = |p: &Vec3| -> f64 {
            let depth = |camera: &Camera| {
                let (px, _) = camera.project(p.as_dvec3());
                let (eye, ray) = (camera.center(), camera.ray(px));
                let along = -eye.dot(ray);
                let half = (0.01 - (eye + ray * along).length_squared()).max(0.0).sqrt();
                let surface = eye + ray * (along - half);
                // well inside the rim, both of the ball and of the half
                let is_seen = surface.z > 0.015 && half > 0.05;
                // within the pixels that are looked at, a surface that is tilted comes so much nearer
                let nearer = 1.5 * PIXEL * (0.01 - half * half).sqrt() / half;
                if is_seen { along - half - nearer - (p.as_dvec3() - eye).length() } else { f64::NEG_INFINITY }
            };
            cameras.iter().map(depth).fold(f64::NEG_INFINITY, f64::max)
        };
        let is_found = |p: &&Vec3| free.contains(p);
        let beside: Vec<&Vec3> = all.iter().filter(|p| !in_all_mattes(p)).collect();
        assert_eq!(
            beside.iter().copied().filter(is_found).count(),
            beside.len(),
            "each of them is beside a silhouette"
        );
        let clear: Vec<&Vec3> = all.iter().filter(|p| in_all_mattes(p) && in_front(p) > config.margin).collect();
        let found = clear.iter().copied().filter(is_found).count();
        assert!(beside.len() > 500 && clear.len() > 100, "{} beside, {} in front", beside.len(), clear.len());
        assert!(found as f64 > 0.98 * clear.len() as f64, "{found} of {} in front", clear.len());
    }

    #[test]
    fn a_hole_in_the_front_does_not_make_its_inside_free() {
        let cameras = [camera(0.0)];
        let mattes = [matte(&cameras[0])];
        let views = [Silhouette { camera: &cameras[0], matte: &mattes[0] }];
        let ball = ball();
        let cap = |i: usize| ball.positions[i].z > 0.09;
        let free = free_space(&ball.retain(|i| !cap(i)), &views, &FreeSpaceConfig::default());
        assert!(free.iter().all(|p| p.length() > 0.095), "a place within the ball is said to be free");
    }
}
