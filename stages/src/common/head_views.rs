//! What cameras see of a head in model space: point clouds as a scanner takes them, points to compare surfaces at, and
//! pictures.
//!
//! No stage, but what `evaluate_head_model` looks through. All is in model units (25 cm). A point is visible where the
//! rasteriser's depth test leaves its surface and that is seen from its outer side. Knows no models.

use crate::common::head_models::HEAD_CENTER;
use crate::common::media::Image;
use crate::common::scan_pools::cameras;
use datasets::capture::look_at;
use geometry::distance::MeshDistance;
use geometry::raster::{Raster, rasterize};
use geometry::{Camera, Mesh};
use glam::{DVec3, Vec3};
use metrics::points::Surface;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::HashSet;

/// What is nearer than this to a camera is not drawn.
const NEAR: f32 = 0.1;
/// Pixels that see the surface at a smaller cosine than this tell little of it.
const GRAZING: f32 = 0.15;
/// Width and height of the scanner's image, px, and its focal length for that size: half of the published 1000 and
/// 1500, since only some thousand of the pixels are kept.
const SCANNER: (u32, f64) = (500, 750.0);
/// What a picture shows of model space, across.
const PICTURED: f64 = 1.2;
/// The colour of what is not judged.
const PLAIN: [f32; 3] = [0.85, 0.82, 0.78];
/// How far the scanner is from the head's centre.
const SCANNER_DISTANCE: f64 = 2.6;

/// Random points of a head from in front (a viewpoint with 0.6 < z < 0.9 and |y| < 0.55 on the unit sphere, as
/// published, chosen by `seed`), or from behind and above. At most `count`.
pub fn scanned(mesh: &Mesh, behind: bool, count: usize, seed: u64) -> Vec<Vec3> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0005_CA77_EED5);
    let direction = match behind {
        true => DVec3::new(0.0, 1.6, -2.6).normalize(),
        false => loop {
            let unit = |rng: &mut ChaCha8Rng| (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            let (z, around) = (0.6 + 0.3 * unit(&mut rng), std::f64::consts::TAU * unit(&mut rng));
            let radius = (1.0 - z * z).sqrt();
            let direction = DVec3::new(radius * around.cos(), radius * around.sin(), z);
            if direction.y.abs() < 0.55 {
                break direction;
            }
        },
    };
    let center = DVec3::from(HEAD_CENTER.map(f64::from));
    let camera = camera(center + direction * SCANNER_DISTANCE, center, SCANNER.1, SCANNER.0);
    let image = rasterize(&mesh.positions, &mesh.faces, &camera, NEAR);
    let eye = camera.center().as_vec3();
    let mut hits: Vec<Vec3> = (0..image.tri_id.len())
        .filter_map(|i| facing(mesh, &image, i, eye).filter(|cosine| *cosine > 0.0).map(|_| place(mesh, &image, i)))
        .collect();
    // the first of a shuffle
    let count = count.min(hits.len());
    for i in 0..count {
        let j = i + (rng.next_u64() % (hits.len() - i) as u64) as usize;
        hits.swap(i, j);
    }
    hits.truncate(count);
    hits
}

/// The truth to compare with, and how to look at it.
pub struct Truth {
    /// What is visible of it.
    pub surface: Surface,
    /// The faces of the scan that `surface.mesh` consists of.
    pub faces: Vec<u32>,
    /// The face of the scan under each point.
    pub point_faces: Vec<u32>,
    cameras: Vec<Camera>,
    images: Vec<[Raster; 2]>,
    mesh: Mesh,
    /// The scan with its neck closed: who looks into it through the mouth sees an inner side, never through the neck
    /// into the open.
    closed: Mesh,
    /// Points below this are no part of the head: the scan ends at the neck.
    throat: f32,
}

/// Points from each surface.
const SAMPLES: usize = 30_000;
/// How far above the rim of the neck comparison begins.
const THROAT_MARGIN: f32 = 0.03;

impl Truth {
    /// Looks at a scan, which is open at the neck, from all around.
    pub fn new(scan: &Mesh) -> Truth {
        let cameras = cameras();
        let images: Vec<Raster> = cameras.iter().map(|c| rasterize(&scan.positions, &scan.faces, c, NEAR)).collect();
        let heights = || scan.boundary_vertices().into_iter().map(|v| scan.positions[v as usize].y);
        let lowest = heights().fold(f32::INFINITY, f32::min);
        let rim = heights().filter(|y| *y < lowest + 0.15).fold(f32::NEG_INFINITY, f32::max);
        let throat = rim + THROAT_MARGIN;
        let (surface, faces, point_faces) = visible(scan, &cameras, &images, throat, &|_, _| true);
        let closed = closed_below(scan, throat);
        let with_closed = |(image, c): (Raster, &Camera)| [image, rasterize(&closed.positions, &closed.faces, c, NEAR)];
        let images = images.into_iter().zip(&cameras).map(with_closed).collect();
        Truth { surface, faces, point_faces, cameras, images, mesh: scan.clone(), closed, throat }
    }

    /// What the same cameras see of another head in the same place. A pixel where the scan shows its inner side,
    /// because one looks through the mouth or the neck there, does not count: what a model closes behind the lips has
    /// no counterpart.
    pub fn view(&self, mesh: &Mesh) -> Surface {
        let images: Vec<Raster> =
            self.cameras.iter().map(|c| rasterize(&mesh.positions, &mesh.faces, c, NEAR)).collect();
        let compares = |camera: usize, pixel: usize| {
            self.compares(&self.images[camera], pixel, self.cameras[camera].center().as_vec3())
        };
        visible(mesh, &self.cameras, &images, self.throat, &compares).0
    }

    /// Whether a pixel of a view shows the scan's outer side, or nothing; of the scan as it is, and with its neck
    /// closed.
    fn compares(&self, images: &[Raster; 2], pixel: usize, eye: Vec3) -> bool {
        let outer = |mesh: &Mesh, image: &Raster| facing(mesh, image, pixel, eye).is_none_or(|cosine| cosine >= 0.0);
        outer(&self.mesh, &images[0]) && outer(&self.closed, &images[1])
    }

    /// A picture of another head as [`picture`] makes it, where it is compared coloured by its distance to the scan,
    /// red from `red` on; grey elsewhere.
    pub fn errors(&self, mesh: &Mesh, size: u32, red: f32) -> Image {
        let tree = MeshDistance::new(&self.mesh);
        let color =
            |points: &[Vec3]| -> Vec<[f32; 3]> { tree.distances(points).into_iter().map(|d| heat(d, red)).collect() };
        draw(mesh, size, &color, Some(self))
    }
}

/// A mesh whose rim below a height is closed by a fan to the rim's middle.
fn closed_below(mesh: &Mesh, height: f32) -> Mesh {
    let edges = |f: &[u32; 3]| [[f[0], f[1]], [f[1], f[2]], [f[2], f[0]]];
    let all: HashSet<[u32; 2]> = mesh.faces.iter().flat_map(edges).collect();
    let low = |v: u32| mesh.positions[v as usize].y < height;
    let open = |e: &[u32; 2]| !all.contains(&[e[1], e[0]]) && e.iter().all(|v| low(*v));
    let rim: Vec<[u32; 2]> = mesh.faces.iter().flat_map(edges).filter(open).collect();
    let mut closed = mesh.clone();
    let middle = rim.iter().map(|e| mesh.positions[e[0] as usize]).sum::<Vec3>() / rim.len().max(1) as f32;
    let fan = closed.positions.len() as u32;
    closed.positions.push(middle);
    closed.faces.extend(rim.into_iter().map(|[a, b]| [b, a, fan]));
    closed
}

/// The faces that cameras see at a fair angle, with points of them above `throat`; and which faces these are of `mesh`,
/// and under the points.
fn visible(
    mesh: &Mesh,
    cameras: &[Camera],
    images: &[Raster],
    throat: f32,
    compares: &dyn Fn(usize, usize) -> bool,
) -> (Surface, Vec<u32>, Vec<u32>) {
    let normals = mesh.vertex_normals();
    let mut seen = vec![false; mesh.faces.len()];
    let mut hits: Vec<(usize, usize)> = Vec::new();
    for (c, (camera, image)) in cameras.iter().zip(images).enumerate() {
        let eye = camera.center().as_vec3();
        for i in 0..image.tri_id.len() {
            if facing(mesh, image, i, eye).is_some_and(|cosine| cosine > GRAZING) && compares(c, i) {
                seen[image.tri_id[i] as usize] = true;
                if place(mesh, image, i).y > throat {
                    hits.push((c, i));
                }
            }
        }
    }
    let every = hits.len().div_ceil(SAMPLES).max(1);
    let (mut points, mut point_normals, mut point_faces) = (Vec::new(), Vec::new(), Vec::new());
    for &(c, i) in hits.iter().step_by(every) {
        let face = images[c].tri_id[i] as u32;
        let corners = mesh.faces[face as usize];
        let normal = corners.into_iter().zip(images[c].bary[i]).map(|(v, b)| normals[v as usize] * b).sum::<Vec3>();
        points.push(place(mesh, &images[c], i));
        point_normals.push(normal.normalize_or_zero());
        point_faces.push(face);
    }
    let faces: Vec<u32> = (0..mesh.faces.len() as u32).filter(|f| seen[*f as usize]).collect();
    let (shown, _) = mesh.select_faces(|f| seen[f]);
    (Surface { mesh: shown, points, normals: point_normals }, faces, point_faces)
}

/// The cosine between a pixel's surface and the way to the eye, negative where its inner side shows; none where there
/// is nothing.
fn facing(mesh: &Mesh, image: &Raster, pixel: usize, eye: Vec3) -> Option<f32> {
    let [a, b, c] = mesh.corners(usize::try_from(image.tri_id[pixel]).ok()?);
    Some((b - a).cross(c - a).normalize_or_zero().dot((eye - a).normalize_or_zero()))
}

fn place(mesh: &Mesh, image: &Raster, pixel: usize) -> Vec3 {
    mesh.corners(image.tri_id[pixel] as usize).into_iter().zip(image.bary[pixel]).map(|(p, b)| p * b).sum()
}

/// A picture of a head from in front and one from the side beside it, `size` px high: shaded.
pub fn picture(mesh: &Mesh, size: u32) -> Image {
    draw(mesh, size, &|points| vec![PLAIN; points.len()], None)
}

/// Draws a picture, coloured by `color` of each visible point (RGB in 0 to 1) where that is compared with a scan, if
/// there is one.
fn draw(mesh: &Mesh, size: u32, color: &dyn Fn(&[Vec3]) -> Vec<[f32; 3]>, beside: Option<&Truth>) -> Image {
    let center = DVec3::from(HEAD_CENTER.map(f64::from));
    let normals = mesh.vertex_normals();
    let views = [0.0f64, 65.0].map(|degrees| {
        let turn = degrees.to_radians();
        let eye = center + DVec3::new(turn.sin(), 0.0, turn.cos()) * 8.0;
        let camera = camera(eye, center, f64::from(size) * 8.0 / PICTURED, size);
        let image = rasterize(&mesh.positions, &mesh.faces, &camera, NEAR);
        let view = |mesh: &Mesh| rasterize(&mesh.positions, &mesh.faces, &camera, NEAR);
        let scan = beside.map(|truth| [view(&truth.mesh), view(&truth.closed)]);
        let judged = |pixel: usize, point: Vec3| match (beside, &scan) {
            (Some(truth), Some(scan)) => point.y > truth.throat && truth.compares(scan, pixel, eye.as_vec3()),
            _ => true,
        };
        let drawn: Vec<usize> = (0..image.tri_id.len()).filter(|i| image.tri_id[*i] >= 0).collect();
        let points: Vec<Vec3> = drawn.iter().map(|i| place(mesh, &image, *i)).collect();
        let mut data = vec![255u8; image.tri_id.len() * 3];
        for ((i, point), rgb) in drawn.into_iter().zip(&points).zip(color(&points)) {
            let rgb = if judged(i, *point) { rgb } else { PLAIN };
            let corners = mesh.faces[image.tri_id[i] as usize];
            let normal = corners.into_iter().zip(image.bary[i]).map(|(v, b)| normals[v as usize] * b).sum::<Vec3>();
            let way = (eye.as_vec3() - *point).normalize();
            // the inner side, seen through an opening, stays dark
            let shade = 0.25 + 0.75 * normal.normalize_or_zero().dot(way).max(0.0);
            (0..3).for_each(|k| data[3 * i + k] = (255.0 * rgb[k] * shade).round().clamp(0.0, 255.0) as u8);
        }
        Image::new(size as usize, size as usize, 3, data)
    });
    crate::common::drawing::beside(&views)
}

/// The colour of a distance: blue for 0, over green and yellow to red for `full` and beyond.
fn heat(distance: f32, full: f32) -> [f32; 3] {
    const STOPS: [[f32; 3]; 5] =
        [[0.25, 0.35, 0.8], [0.25, 0.75, 0.8], [0.5, 0.85, 0.4], [0.95, 0.8, 0.25], [0.85, 0.15, 0.15]];
    let t = (distance / full).clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let i = (t as usize).min(STOPS.len() - 2);
    std::array::from_fn(|k| STOPS[i][k] + (STOPS[i + 1][k] - STOPS[i][k]) * (t - i as f32))
}

fn camera(eye: DVec3, at: DVec3, focal_px: f64, size: u32) -> Camera {
    let half = f64::from(size) / 2.0;
    let k = [focal_px, 0.0, half, 0.0, focal_px, half, 0.0, 0.0, 1.0];
    Camera::from_row_major(&k, &look_at(eye, at).transpose().to_cols_array(), size, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::points::{likeness, reach};

    /// A ball at the head's place, cut open at the bottom, with a hole in front if asked.
    fn ball(radius: f32, hole: bool) -> Mesh {
        let center = Vec3::from(HEAD_CENTER);
        let field = |points: &[Vec3]| points.iter().map(|p| (*p - center).length() - radius).collect::<Vec<f32>>();
        let mesh = geometry::band::extract(&field, center - 0.8, center + 0.8, 33, 1);
        let middle = |f: usize| mesh.corners(f).into_iter().sum::<Vec3>() / 3.0 - center;
        let kept = |f: usize| {
            let m = middle(f);
            m.y > -0.45 && !(hole && m.z > 0.0 && m.truncate().length() < 0.12)
        };
        mesh.select_faces(kept).0
    }

    #[test]
    fn scans_from_in_front_and_behind_show_that_side() {
        let mesh = ball(0.6, false);
        for seed in 0..4 {
            let front = scanned(&mesh, false, 500, seed);
            let back = scanned(&mesh, true, 500, seed);
            let mean = |points: &[Vec3]| points.iter().map(|p| p.z - HEAD_CENTER[2]).sum::<f32>() / points.len() as f32;
            assert_eq!((front.len(), back.len()), (500, 500));
            assert!(mean(&front) > 0.2 && mean(&back) < -0.2);
        }
        assert_ne!(scanned(&mesh, false, 50, 1), scanned(&mesh, false, 50, 2));
    }

    #[test]
    fn a_larger_ball_is_as_far_as_it_is_larger() {
        let truth = Truth::new(&ball(0.6, false));
        let other = truth.view(&ball(0.62, false));
        let alike = likeness(&reach(&truth.surface, &other), &reach(&other, &truth.surface), &[0.01, 0.03]).unwrap();
        assert!((alike.chamfer_l1 - 0.02).abs() < 2e-3, "{alike:?}");
        assert!(alike.f_scores[0] < 0.01 && alike.f_scores[1] > 0.99 && alike.normal_consistency > 0.99, "{alike:?}");
    }

    #[test]
    fn what_lies_behind_an_opening_is_not_compared() {
        // the model has a wall 0.3 behind the lips
        let truth = Truth::new(&ball(0.6, true));
        let mut walled = ball(0.6, true);
        let wall = ball(0.3, false);
        let first = walled.positions.len() as u32;
        walled.positions.extend(&wall.positions);
        walled.faces.extend(wall.faces.iter().map(|f| f.map(|v| v + first)));
        let other = truth.view(&walled);
        let accuracy = reach(&other, &truth.surface);
        let worst = accuracy.iter().map(|r| r.distance).fold(0.0, f32::max);
        assert!(worst < 0.01, "{worst}");
        // but a closed front is no mistake either, and a wall outside is one
        let outside = truth.view(&ball(0.75, false));
        assert!(reach(&outside, &truth.surface).iter().all(|r| r.distance > 0.1));
    }
}
