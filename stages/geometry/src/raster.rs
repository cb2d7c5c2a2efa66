//! A triangle rasteriser with exact coverage.
//!
//! Vertices are projected in f64 and snapped to a sub-pixel grid (2^-16 px for images up to 4096 px); from there on
//! coverage is integer arithmetic with the top-left rule. So triangles that share an edge never leave a gap at it and
//! never both own a sample, whatever their size. Triangles that cross the near plane or reach far out of the image are
//! clipped; attributes are interpolated with perspective; the nearest surface wins, and of two at the same depth the
//! one with the lower number. Faces are drawn from both sides.
//!
//! The image is cut into bands of rows that are drawn independently, each taking triangles in order: the result does
//! not depend on the number of threads. This file knows nothing about shading, anti-aliasing or what is interpolated.

use glam::{DVec3, Vec3};
use rayon::prelude::*;

use crate::camera::Camera;

/// Coordinates in sub-pixel units stay below 2^29, so that edge functions (two products of differences) fit i64.
const COORDINATE_BITS: u32 = 29;
/// Rows drawn by one task.
const BAND: usize = 16;
/// Triangles prepared by one task.
const CHUNK: usize = 4096;
/// The nearest distance at which the near plane may lie, metres: perspective division needs a positive one.
const LEAST_NEAR: f64 = 1e-6;

/// Per pixel (row-major): which triangle is visible, where on it, and how far away.
#[derive(Clone, Debug, PartialEq)]
pub struct Raster {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Index of the visible face, -1 where there is none.
    pub tri_id: Vec<i32>,
    /// Perspective-correct barycentric coordinates on that face: non-negative, sum 1; zero where there is none.
    pub bary: Vec<[f32; 3]>,
    /// Camera z of the surface in metres, 0 where there is none.
    pub depth: Vec<f32>,
}

/// Draws a mesh (world coordinates, metres), sampling every pixel at its centre (index + 0.5).
///
/// What is nearer than `near` (camera z, metres, values below 1e-6 count as 1e-6) is clipped away. Triangles with a
/// vertex that is not finite are left out.
///
/// # Panics
/// If a face names a vertex that does not exist.
pub fn rasterize(positions: &[Vec3], faces: &[[u32; 3]], camera: &Camera, near: f32) -> Raster {
    rasterize_at(positions, faces, camera, near, 0.5)
}

/// Like [`rasterize`], with the sample of pixel (i, j) at (i + `pixel_center`, j + `pixel_center`): 0 for intrinsics
/// that were calibrated with integer pixel centres, as OpenCV does.
pub fn rasterize_at(positions: &[Vec3], faces: &[[u32; 3]], camera: &Camera, near: f32, pixel_center: f64) -> Raster {
    let (width, height) = (camera.width as usize, camera.height as usize);
    let count = width * height;
    let mut raster = Raster {
        width: camera.width,
        height: camera.height,
        tri_id: vec![-1; count],
        bary: vec![[0.0; 3]; count],
        depth: vec![0.0; count],
    };
    if count == 0 || faces.is_empty() {
        return raster;
    }
    let grid = Grid::new(width, height, f64::from(near).max(LEAST_NEAR));
    let vertices = project(positions, camera, pixel_center, &grid);
    let chunks: Vec<Chunk> = faces
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(c, part)| Chunk::prepare(c * CHUNK, part, &vertices, &grid))
        .collect();

    let rows = BAND * width;
    let bands = raster.tri_id.par_chunks_mut(rows).zip(raster.bary.par_chunks_mut(rows));
    bands.zip(raster.depth.par_chunks_mut(rows)).enumerate().for_each(|(b, ((tri_id, bary), depth))| {
        let mut band = Band { first_row: b * BAND, width, tri_id, bary, depth };
        for chunk in &chunks {
            for t in &chunk.bins[b] {
                band.draw(&chunk.triangles[*t as usize], chunk, &grid);
            }
        }
    });
    raster
}

impl Raster {
    /// Interpolates per-vertex `values` over the visible surface; `background` elsewhere.
    ///
    /// `faces` must be the ones that were drawn.
    pub fn interpolate<const N: usize>(
        &self,
        faces: &[[u32; 3]],
        values: &[[f32; N]],
        background: [f32; N],
    ) -> Vec<[f32; N]> {
        let at = |(id, b): (&i32, &[f32; 3])| {
            if *id < 0 {
                return background;
            }
            let [v0, v1, v2] = faces[*id as usize].map(|v| &values[v as usize]);
            std::array::from_fn(|n| b[0] * v0[n] + b[1] * v1[n] + b[2] * v2[n])
        };
        self.tri_id.par_iter().zip(&self.bary).with_min_len(4096).map(at).collect()
    }

    /// Where there is a surface.
    pub fn mask(&self) -> Vec<bool> {
        self.tri_id.iter().map(|id| *id >= 0).collect()
    }
}

/// The sub-pixel grid of one image and the planes against which is clipped.
struct Grid {
    width: i32,
    height: i32,
    /// Sub-pixel bits: one pixel is `1 << bits` units.
    bits: u32,
    /// Projected coordinates beyond +-guard pixels are clipped away. Much wider than the image, so it is rarely needed.
    guard: f64,
    /// Near plane, metres.
    near: f64,
}

impl Grid {
    fn new(width: usize, height: usize, near: f64) -> Self {
        let guard = (2 * width.max(height)).next_power_of_two().max(1 << 13);
        let bits = COORDINATE_BITS - guard.trailing_zeros();
        Self { width: width as i32, height: height as i32, bits, guard: guard as f64, near }
    }

    /// Signed distance to clipping plane `plane`, not normalised; negative means outside.
    fn distance(&self, plane: usize, h: DVec3) -> f64 {
        match plane {
            0 => h.z - self.near,
            1 => self.guard * h.z - h.x,
            2 => self.guard * h.z + h.x,
            3 => self.guard * h.z - h.y,
            _ => self.guard * h.z + h.y,
        }
    }

    /// One bit per clipping plane that the point is outside of.
    fn outside(&self, h: DVec3) -> u8 {
        (0..5).fold(0, |code, plane| code | (u8::from(self.distance(plane, h) < 0.0) << plane))
    }

    fn snap(&self, h: DVec3) -> [i32; 2] {
        let unit = f64::from(1u32 << self.bits);
        let fixed = |v: f64| ((v / h.z).clamp(-self.guard, self.guard) * unit).round() as i32;
        [fixed(h.x), fixed(h.y)]
    }

    /// The samples (pixels) in a closed range of sub-pixel units, cut to `0..limit`.
    fn samples(&self, low: i32, high: i32, limit: i32) -> (i32, i32) {
        let first = (i64::from(low) + (1i64 << self.bits) - 1) >> self.bits;
        ((first as i32).max(0), (high >> self.bits).min(limit - 1))
    }
}

/// A projected vertex: (x z, y z, z) with x, y in pixels relative to the sample of pixel (0, 0).
#[derive(Clone, Copy)]
struct Vertex {
    homogeneous: DVec3,
    snapped: [i32; 2],
    outside: u8,
}

/// Set in `outside` for vertices that are not finite.
const NOT_FINITE: u8 = 0x80;

fn project(positions: &[Vec3], camera: &Camera, pixel_center: f64, grid: &Grid) -> Vec<Vertex> {
    let one = |p: &Vec3| {
        let mut h = camera.intrinsics * camera.world_to_cam.transform_point3(p.as_dvec3());
        h.x -= pixel_center * h.z;
        h.y -= pixel_center * h.z;
        if !h.is_finite() {
            return Vertex { homogeneous: h, snapped: [0; 2], outside: NOT_FINITE };
        }
        let outside = grid.outside(h);
        Vertex { homogeneous: h, snapped: if outside == 0 { grid.snap(h) } else { [0; 2] }, outside }
    };
    positions.par_iter().with_min_len(4096).map(one).collect()
}

/// A triangle ready to be drawn; whichever way its face runs, `v` runs so that edge functions are positive inside.
struct Triangle {
    v: [[i32; 2]; 3],
    /// 1 / camera z of each corner.
    inverse_z: [f64; 3],
    face: u32,
    /// Which of the face's vertices each corner is; or, with `clipped`, an index into the chunk's `weights`.
    corner: [u32; 3],
    clipped: bool,
}

/// A run of faces, prepared, and which of them touch which band.
struct Chunk {
    triangles: Vec<Triangle>,
    bins: Vec<Vec<u32>>,
    /// Barycentric coordinates, on their face, of corners that clipping made.
    weights: Vec<DVec3>,
}

impl Chunk {
    fn prepare(first_face: usize, faces: &[[u32; 3]], vertices: &[Vertex], grid: &Grid) -> Self {
        let bands = (grid.height as usize).div_ceil(BAND);
        let mut chunk = Self {
            triangles: Vec::with_capacity(faces.len()),
            bins: vec![Vec::with_capacity(2 * faces.len() / bands); bands],
            weights: Vec::new(),
        };
        for (i, face) in faces.iter().enumerate() {
            let corners = face.map(|v| vertices[v as usize]);
            let any = corners.iter().fold(0, |code, c| code | c.outside);
            let all = corners.iter().fold(0xff, |code, c| code & c.outside);
            let face = (first_face + i) as u32;
            if any == 0 {
                let v = corners.map(|c| c.snapped);
                let inverse_z = corners.map(|c| 1.0 / c.homogeneous.z);
                chunk.push(Triangle { v, inverse_z, face, corner: [0, 1, 2], clipped: false }, grid);
            } else if all == 0 && any & NOT_FINITE == 0 {
                chunk.push_clipped(face, corners.map(|c| c.homogeneous), any, grid);
            }
        }
        chunk
    }

    /// Orients the triangle and files it under the bands it may cover a sample of.
    fn push(&mut self, mut t: Triangle, grid: &Grid) {
        let area = edge(t.v[0], t.v[1], t.v[2]);
        if area == 0 {
            return;
        }
        if area < 0 {
            t.v.swap(1, 2);
            t.inverse_z.swap(1, 2);
            t.corner.swap(1, 2);
        }
        let [x0, x1, y0, y1] = bounds(&t.v);
        let (left, right) = grid.samples(x0, x1, grid.width);
        let (top, bottom) = grid.samples(y0, y1, grid.height);
        if left > right || top > bottom {
            return;
        }
        for band in top as usize / BAND..=bottom as usize / BAND {
            self.bins[band].push(self.triangles.len() as u32);
        }
        self.triangles.push(t);
    }

    /// Clips a face against the planes in `planes` and files what is left as a fan.
    ///
    /// New corners are always computed from the inner end of an edge to its outer end. So the two faces at an edge get
    /// the same corner, bit for bit, and stay joined.
    fn push_clipped(&mut self, face: u32, corners: [DVec3; 3], planes: u8, grid: &Grid) {
        let mut polygon: Vec<(DVec3, DVec3)> = corners.into_iter().zip([DVec3::X, DVec3::Y, DVec3::Z]).collect();
        for plane in (0..5).filter(|p| planes & (1 << p) != 0) {
            let mut clipped = Vec::with_capacity(polygon.len() + 1);
            for (i, current) in polygon.iter().enumerate() {
                let next = &polygon[(i + 1) % polygon.len()];
                let (d0, d1) = (grid.distance(plane, current.0), grid.distance(plane, next.0));
                if d0 >= 0.0 {
                    clipped.push(*current);
                }
                if (d0 >= 0.0) != (d1 >= 0.0) {
                    let (inner, outer, t) =
                        if d0 >= 0.0 { (current, next, d0 / (d0 - d1)) } else { (next, current, d1 / (d1 - d0)) };
                    clipped.push((inner.0.lerp(outer.0, t), inner.1.lerp(outer.1, t)));
                }
            }
            polygon = clipped;
        }
        if polygon.len() < 3 {
            return;
        }
        let base = self.weights.len() as u32;
        self.weights.extend(polygon.iter().map(|p| p.1));
        let snapped: Vec<[i32; 2]> = polygon.iter().map(|p| grid.snap(p.0)).collect();
        for i in 1..polygon.len() - 1 {
            let ids = [0, i, i + 1];
            let v = ids.map(|k| snapped[k]);
            let inverse_z = ids.map(|k| 1.0 / polygon[k].0.z);
            let corner = ids.map(|k| base + k as u32);
            self.push(Triangle { v, inverse_z, face, corner, clipped: true }, grid);
        }
    }
}

/// Some rows of the image.
struct Band<'a> {
    first_row: usize,
    width: usize,
    tri_id: &'a mut [i32],
    bary: &'a mut [[f32; 3]],
    depth: &'a mut [f32],
}

impl Band<'_> {
    fn draw(&mut self, t: &Triangle, chunk: &Chunk, grid: &Grid) {
        let rows = (self.tri_id.len() / self.width) as i32;
        let first_row = self.first_row as i32;
        let [x0, x1, y0, y1] = bounds(&t.v);
        let (left, right) = grid.samples(x0, x1, grid.width);
        let (top, bottom) = grid.samples(y0, y1, grid.height);
        let (top, bottom) = (top.max(first_row), bottom.min(first_row + rows - 1));

        // Edge k lies opposite to corner k, so its function, over their sum, is corner k's affine coordinate.
        let opposite = [[t.v[1], t.v[2]], [t.v[2], t.v[0]], [t.v[0], t.v[1]]];
        let dx = opposite.map(|[a, b]| i64::from(b[0]) - i64::from(a[0]));
        let dy = opposite.map(|[a, b]| i64::from(b[1]) - i64::from(a[1]));
        // A sample on an edge belongs to the triangle if that is a left edge (running up, as y grows downwards) or a
        // top edge (horizontal, running right); of two triangles at an edge exactly one says so.
        let least: [i64; 3] = std::array::from_fn(|k| i64::from(!(dy[k] < 0 || (dy[k] == 0 && dx[k] > 0))));
        let start = [left << grid.bits, top << grid.bits];
        let mut row: [i64; 3] = std::array::from_fn(|k| edge(opposite[k][0], opposite[k][1], start));
        let (step_x, step_y) = (dy.map(|d| -(d << grid.bits)), dx.map(|d| d << grid.bits));

        for y in top..=bottom {
            let offset = (y - first_row) as usize * self.width;
            let mut e = row;
            let mut entered = false;
            for x in left..=right {
                if e[0] >= least[0] && e[1] >= least[1] && e[2] >= least[2] {
                    entered = true;
                    self.shade(offset + x as usize, t, e, chunk);
                } else if entered {
                    break; // A triangle is convex: the rest of the row is outside.
                }
                (0..3).for_each(|k| e[k] += step_x[k]);
            }
            (0..3).for_each(|k| row[k] += step_y[k]);
        }
    }

    fn shade(&mut self, pixel: usize, t: &Triangle, e: [i64; 3], chunk: &Chunk) {
        let affine = e.map(|e| e as f64);
        let w: [f64; 3] = std::array::from_fn(|k| affine[k] * t.inverse_z[k]);
        let scale = 1.0 / (w[0] + w[1] + w[2]);
        let z = ((affine[0] + affine[1] + affine[2]) * scale) as f32;
        if self.tri_id[pixel] >= 0 && self.depth[pixel] <= z {
            return;
        }
        let mut bary = [0.0f32; 3];
        if t.clipped {
            let sum: DVec3 = (0..3).map(|k| chunk.weights[t.corner[k] as usize] * (w[k] * scale)).sum();
            bary = sum.max(DVec3::ZERO).as_vec3().to_array();
        } else {
            for k in 0..3 {
                bary[t.corner[k] as usize] = (w[k] * scale) as f32;
            }
        }
        self.tri_id[pixel] = t.face as i32;
        self.bary[pixel] = bary;
        self.depth[pixel] = z;
    }
}

/// Twice the signed area of (a, b, p); with y downwards positive if p lies to the right of a -> b as seen on screen.
fn edge(a: [i32; 2], b: [i32; 2], p: [i32; 2]) -> i64 {
    let d = |u: i32, v: i32| i64::from(u) - i64::from(v);
    d(b[0], a[0]) * d(p[1], a[1]) - d(b[1], a[1]) * d(p[0], a[0])
}

/// Smallest and largest x, smallest and largest y.
fn bounds(v: &[[i32; 2]; 3]) -> [i32; 4] {
    let least = |k: usize| v[0][k].min(v[1][k]).min(v[2][k]);
    let most = |k: usize| v[0][k].max(v[1][k]).max(v[2][k]);
    [least(0), most(0), least(1), most(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small deterministic generator; uniform in [0, 1).
    fn noise(state: &mut u64) -> f64 {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*state >> 40) as f64 / (1u64 << 24) as f64
    }

    fn camera(width: u32, height: u32) -> Camera {
        let k = [64.0, 0.0, f64::from(width) / 2.0, 0.0, 64.0, f64::from(height) / 2.0, 0.0, 0.0, 1.0];
        let pose = glam::DMat4::IDENTITY.to_cols_array();
        Camera::from_row_major(&k, &pose, width, height)
    }

    /// How many faces, each drawn alone, cover each pixel.
    fn coverage(positions: &[Vec3], faces: &[[u32; 3]], camera: &Camera, near: f32) -> Vec<u32> {
        let mut count = vec![0; (camera.width * camera.height) as usize];
        for face in faces {
            let alone = rasterize(positions, &[*face], camera, near);
            count.iter_mut().zip(alone.mask()).for_each(|(c, m)| *c += u32::from(m));
        }
        count
    }

    /// A triangulated patch that covers the image; vertices are jittered by up to `jitter` cells, rounded to half
    /// pixels in every other run so that vertices and edges hit samples.
    fn patch(camera: &Camera, cells: usize, seed: u64) -> (Vec<Vec3>, Vec<[u32; 3]>) {
        let mut state = seed;
        let on_grid = seed.is_multiple_of(2);
        let (w, h) = (f64::from(camera.width), f64::from(camera.height));
        let mut positions = Vec::new();
        for j in 0..=cells {
            for i in 0..=cells {
                let mut jitter = || 0.35 * (noise(&mut state) - 0.5);
                let x = (i as f64 + jitter()) / cells as f64 * (w + 20.0) - 10.0;
                let y = (j as f64 + jitter()) / cells as f64 * (h + 20.0) - 10.0;
                let (x, y) = if on_grid { ((2.0 * x).round() / 2.0, (2.0 * y).round() / 2.0) } else { (x, y) };
                let z = if on_grid { 2.0 } else { 1.0 + 2.0 * noise(&mut state) };
                let ray = DVec3::new((x - w / 2.0) / 64.0, (y - h / 2.0) / 64.0, 1.0);
                positions.push((ray * z).as_vec3());
            }
        }
        let mut faces = Vec::new();
        for j in 0..cells {
            for i in 0..cells {
                let v = |i, j| (j * (cells + 1) + i) as u32;
                let (a, b, c, d) = (v(i, j), v(i + 1, j), v(i, j + 1), v(i + 1, j + 1));
                match (noise(&mut state) * 4.0) as u32 {
                    0 => faces.extend([[a, b, d], [a, d, c]]),
                    1 => faces.extend([[a, d, b], [a, c, d]]),
                    2 => faces.extend([[a, b, c], [c, b, d]]),
                    _ => faces.extend([[b, a, c], [b, d, c]]),
                }
            }
        }
        (positions, faces)
    }

    #[test]
    fn shared_edges_have_no_gap_and_no_double_hit() {
        let camera = camera(40, 33);
        for seed in 0..6 {
            let (positions, faces) = patch(&camera, if seed < 4 { 7 } else { 23 }, seed);
            assert!(coverage(&positions, &faces, &camera, 0.01).iter().all(|c| *c == 1), "seed {seed}");
        }
    }

    #[test]
    fn clipped_faces_stay_joined() {
        // A floor 0.5 m below the camera, from 50 m behind to 50 m before it.
        let camera = camera(48, 40);
        let n = 9;
        let at = |k: u32| (k as f32 / n as f32 - 0.4873) * 100.0;
        let positions: Vec<Vec3> = (0..=n).flat_map(|j| (0..=n).map(move |i| Vec3::new(at(i), 0.5, at(j)))).collect();
        let quad = |i: u32, j: u32| {
            let a = j * (n + 1) + i;
            [[a, a + 1, a + n + 1], [a + 1, a + n + 2, a + n + 1]]
        };
        let faces: Vec<[u32; 3]> = (0..n).flat_map(|j| (0..n).flat_map(move |i| quad(i, j))).collect();
        let count = coverage(&positions, &faces, &camera, 0.1);
        let raster = rasterize(&positions, &faces, &camera, 0.1);
        for y in 0..40u32 {
            let below_horizon = f64::from(y) + 0.5 - 20.0;
            let z = if below_horizon > 0.0 { 0.5 * 64.0 / below_horizon } else { f64::INFINITY };
            for p in (y * 48) as usize..(y * 48 + 48) as usize {
                assert_eq!(count[p], u32::from(z < 50.0), "row {y}");
                assert!(z >= 50.0 || (f64::from(raster.depth[p]) / z - 1.0).abs() < 1e-4, "row {y}");
            }
        }
    }

    #[test]
    fn interpolated_positions_project_to_the_sample() {
        let camera = camera(64, 50);
        let (positions, faces) = patch(&camera, 8, 1);
        let raster = rasterize(&positions, &faces, &camera, 0.01);
        let values: Vec<[f32; 3]> = positions.iter().map(|p| p.to_array()).collect();
        for (i, p) in raster.interpolate(&faces, &values, [0.0; 3]).into_iter().enumerate() {
            let (px, z) = camera.project(DVec3::from_array(p.map(f64::from)));
            let sample = glam::DVec2::new((i % 64) as f64 + 0.5, (i / 64) as f64 + 0.5);
            assert!((px - sample).length() < 1e-3, "{px} {sample}");
            assert!((z - f64::from(raster.depth[i])).abs() < 1e-5);
        }
    }

    #[test]
    fn bands_and_threads_do_not_show() {
        let camera = camera(70, 90);
        let (positions, faces) = patch(&camera, 60, 3);
        let draw = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| rasterize(&positions, &faces, &camera, 0.01))
        };
        assert_eq!(draw(1), draw(3));
    }
}
