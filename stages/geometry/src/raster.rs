//! A triangle rasteriser with exact coverage.
//!
//! Vertices are projected in f64 and snapped to a sub-pixel grid (2^-16 px for images up to 4096 px); from there on
//! coverage is integer arithmetic with the top-left rule. So triangles that share an edge never leave a gap at it and
//! never both own a sample, whatever their size. Triangles that cross the near plane or reach far out of the image are
//! clipped; attributes are interpolated with perspective; the nearest surface wins, and of two at the same depth the
//! one with the lower number. Faces are drawn from both sides.
//!
//! The image is cut into bands of rows that are drawn independently, each taking triangles in order: the result does
//! not depend on the number of threads. What a band is given of a triangle is its number alone: vertices are shared,
//! and small enough to stay in the cache, where triangles would be written and read once each. This file knows nothing
//! about shading, anti-aliasing or what is interpolated.

use glam::{DVec3, Vec3};
use multiversion::multiversion;
use rayon::prelude::*;

use crate::camera::Camera;

/// Coordinates in sub-pixel units stay below 2^29, so that edge functions (two products of differences) fit i64.
const COORDINATE_BITS: u32 = 29;
/// Rows drawn by one task.
const BAND: usize = 32;
/// Samples on a side of what is tested for coverage at once.
const TILE: usize = 4;
/// Vertices or triangles prepared by one task.
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
    let mesh = Projected { faces, vertices: &vertices, grid: &grid };
    let homogeneous = |v: u32| homogeneous(positions[v as usize], camera, pixel_center);
    let chunks: Vec<Chunk> = faces
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(c, part)| Chunk::prepare(c * CHUNK, part, &mesh, homogeneous))
        .collect();

    let rows = BAND * width;
    let bands = raster.tri_id.par_chunks_mut(rows).zip(raster.bary.par_chunks_mut(rows));
    bands.zip(raster.depth.par_chunks_mut(rows)).enumerate().for_each(|(b, ((tri_id, bary), depth))| {
        let mut band = Band { number: b, width, tri_id, bary, depth };
        draw(&mut band, &chunks, &mesh);
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
    #[inline(always)]
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
    #[inline(always)]
    fn outside(&self, h: DVec3) -> u8 {
        (0..5).fold(0, |code, plane| code | (u8::from(self.distance(plane, h) < 0.0) << plane))
    }

    #[inline(always)]
    fn snap(&self, h: DVec3) -> [i32; 2] {
        let unit = f64::from(1u32 << self.bits);
        let fixed = |v: f64| ((v / h.z).clamp(-self.guard, self.guard) * unit).round() as i32;
        [fixed(h.x), fixed(h.y)]
    }

    /// The samples that a triangle may cover: left, right, top, bottom.
    #[inline(always)]
    fn samples_of(&self, v: &[[i32; 2]; 3]) -> [i32; 4] {
        let [x0, x1, y0, y1] = bounds(v);
        let (left, right) = self.samples(x0, x1, self.width);
        let (top, bottom) = self.samples(y0, y1, self.height);
        [left, right, top, bottom]
    }

    /// The samples (pixels) in a closed range of sub-pixel units, cut to `0..limit`.
    #[inline(always)]
    fn samples(&self, low: i32, high: i32, limit: i32) -> (i32, i32) {
        let first = (i64::from(low) + (1i64 << self.bits) - 1) >> self.bits;
        ((first as i32).max(0), (high >> self.bits).min(limit - 1))
    }
}

/// A vertex as (x z, y z, z) with x, y in pixels relative to the sample of pixel (0, 0).
#[inline(always)]
fn homogeneous(p: Vec3, camera: &Camera, pixel_center: f64) -> DVec3 {
    let mut h = camera.intrinsics * camera.world_to_cam.transform_point3(p.as_dvec3());
    h.x -= pixel_center * h.z;
    h.y -= pixel_center * h.z;
    h
}

/// A projected vertex.
#[derive(Clone, Copy)]
struct Vertex {
    snapped: [i32; 2],
    /// 1 / camera z; 0 if the vertex lies outside of a clipping plane, or nowhere.
    inverse_z: f64,
}

/// Projects all vertices.
fn project(positions: &[Vec3], camera: &Camera, pixel_center: f64, grid: &Grid) -> Vec<Vertex> {
    let mut vertices = vec![Vertex { snapped: [0; 2], inverse_z: 0.0 }; positions.len()];
    let parts = positions.par_chunks(CHUNK).zip(vertices.par_chunks_mut(CHUNK));
    parts.for_each(|(positions, vertices)| project_part(positions, camera, pixel_center, grid, vertices));
    vertices
}

/// Projects a run of them.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2"))]
fn project_part(positions: &[Vec3], camera: &Camera, pixel_center: f64, grid: &Grid, vertices: &mut [Vertex]) {
    for (p, vertex) in positions.iter().zip(vertices) {
        let h = homogeneous(*p, camera, pixel_center);
        if h.is_finite() && grid.outside(h) == 0 {
            *vertex = Vertex { snapped: grid.snap(h), inverse_z: 1.0 / h.z };
        }
    }
}

/// What is drawn.
struct Projected<'a> {
    faces: &'a [[u32; 3]],
    vertices: &'a [Vertex],
    grid: &'a Grid,
}

/// Part of a face that clipping left; `v` runs so that edge functions are positive inside.
struct Clipped {
    v: [[i32; 2]; 3],
    /// 1 / camera z of each corner.
    inverse_z: [f64; 3],
    face: u32,
    /// Barycentric coordinates of each corner on the face.
    weights: [DVec3; 3],
}

/// Set in what a band is given for what is left of a clipped face.
const CLIPPED: u32 = 1 << 31;

/// Which of a run of faces touch which band.
struct Chunk {
    /// For each band numbers of faces, in order; or, with [`CLIPPED`], of what is in `clipped`.
    bins: Vec<Vec<u32>>,
    clipped: Vec<Clipped>,
}

impl Chunk {
    /// Files `part` of the faces, which begins with face `first`.
    fn prepare(first: usize, part: &[[u32; 3]], mesh: &Projected<'_>, homogeneous: impl Fn(u32) -> DVec3) -> Self {
        let bands = (mesh.grid.height as usize).div_ceil(BAND);
        let mut chunk = Self { bins: vec![Vec::with_capacity(2 * part.len() / bands); bands], clipped: Vec::new() };
        for (i, face) in part.iter().enumerate() {
            let number = (first + i) as u32;
            let corners = face.map(|v| mesh.vertices[v as usize]);
            if corners.iter().all(|c| c.inverse_z > 0.0) {
                chunk.file(number, &corners.map(|c| c.snapped), mesh.grid);
            } else {
                chunk.clip(number, face.map(&homogeneous), mesh.grid);
            }
        }
        chunk
    }

    /// Files a triangle under the bands it may cover a sample of.
    #[inline(always)]
    fn file(&mut self, number: u32, v: &[[i32; 2]; 3], grid: &Grid) {
        let [left, right, top, bottom] = grid.samples_of(v);
        if left > right || top > bottom {
            return;
        }
        for band in top as usize / BAND..=bottom as usize / BAND {
            self.bins[band].push(number);
        }
    }

    /// Clips a face, given by its corners, against the planes that it reaches out of and files what is left as a fan.
    ///
    /// New corners are always computed from the inner end of an edge to its outer end. So the two faces at an edge get
    /// the same corner, bit for bit, and stay joined.
    fn clip(&mut self, face: u32, corners: [DVec3; 3], grid: &Grid) {
        let outside = corners.map(|c| grid.outside(c));
        let (any, all) = (outside[0] | outside[1] | outside[2], outside[0] & outside[1] & outside[2]);
        if all != 0 || corners.iter().any(|c| !c.is_finite()) {
            return;
        }
        let mut polygon: Vec<(DVec3, DVec3)> = corners.into_iter().zip([DVec3::X, DVec3::Y, DVec3::Z]).collect();
        for plane in (0..5).filter(|p| any & (1 << p) != 0) {
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
        let snapped: Vec<[i32; 2]> = polygon.iter().map(|p| grid.snap(p.0)).collect();
        for i in 1..polygon.len() - 1 {
            let mut ids = [0, i, i + 1];
            if edge(snapped[0], snapped[i], snapped[i + 1]) < 0 {
                ids.swap(1, 2);
            }
            let v = ids.map(|k| snapped[k]);
            self.file(CLIPPED | self.clipped.len() as u32, &v, grid);
            let inverse_z = ids.map(|k| 1.0 / polygon[k].0.z);
            self.clipped.push(Clipped { v, inverse_z, face, weights: ids.map(|k| polygon[k].1) });
        }
    }
}

/// Some rows of the image.
struct Band<'a> {
    number: usize,
    width: usize,
    tri_id: &'a mut [i32],
    bary: &'a mut [[f32; 3]],
    depth: &'a mut [f32],
}

/// Draws all that touches a band.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2"))]
fn draw(band: &mut Band<'_>, chunks: &[Chunk], mesh: &Projected<'_>) {
    for chunk in chunks {
        for number in &chunk.bins[band.number] {
            if number & CLIPPED == 0 {
                let corners = mesh.faces[*number as usize].map(|v| mesh.vertices[v as usize]);
                let (v, inverse_z) = (corners.map(|c| c.snapped), corners.map(|c| c.inverse_z));
                band.draw(v, inverse_z, *number, None, mesh.grid);
            } else {
                let t = &chunk.clipped[(number & !CLIPPED) as usize];
                band.draw(t.v, t.inverse_z, t.face, Some(&t.weights), mesh.grid);
            }
        }
    }
}

impl Band<'_> {
    /// Draws what the band has of a triangle: corners on the grid, 1 / camera z of each, its number, and the
    /// barycentric coordinates of its corners if it is not a whole face.
    #[inline(always)]
    fn draw(&mut self, v: [[i32; 2]; 3], inverse_z: [f64; 3], face: u32, weights: Option<&[DVec3; 3]>, grid: &Grid) {
        let first_row = (self.number * BAND) as i32;
        let [left, right, top, bottom] = grid.samples_of(&v);
        let (top, bottom) = (top.max(first_row), bottom.min(first_row + BAND as i32 - 1));

        // Edge k lies opposite to corner k, so its function, over their sum, is corner k's affine coordinate. All are
        // turned (-1) where the face runs the other way, so that they are positive inside.
        let turned = edge(v[0], v[1], v[2]) >> 63;
        let opposite = [[v[1], v[2]], [v[2], v[0]], [v[0], v[1]]];
        let along = |axis: usize| opposite.map(|[a, b]| ((i64::from(b[axis]) - i64::from(a[axis])) ^ turned) - turned);
        let (dx, dy) = (along(0), along(1));
        // A sample on an edge belongs to the triangle if that is a left edge (running up, as y grows downwards) or a
        // top edge (horizontal, running right); of two triangles at an edge exactly one says so. No branches here: they
        // would be guessed wrongly.
        let least: [i64; 3] = std::array::from_fn(|k| i64::from(!((dy[k] < 0) | ((dy[k] == 0) & (dx[k] > 0)))));
        let unit = 1i64 << grid.bits;
        let (x0, y0) = (i64::from(left) * unit, i64::from(top) * unit);
        let mut row: [i64; 3] = std::array::from_fn(|k| {
            let [x, y] = opposite[k][0].map(i64::from);
            dx[k] * (y0 - y) - dy[k] * (x0 - x) - least[k]
        });
        let (step_x, step_y) = (dy.map(|d| -d * unit), dx.map(|d| d * unit));
        // a sample that is nearer than the nearest corner, by more than rounding, hides the triangle
        let nearness = inverse_z[0].max(inverse_z[1]).max(inverse_z[2]) as f32;

        // not `step_by` over inclusive ranges, which a compiler does not see through
        let mut y = top;
        while y <= bottom {
            let (mut tile, mut x) = (row, left);
            while x <= right {
                let mut inside = covered(tile, step_x, step_y, right - x, bottom - y);
                while inside != 0 {
                    let n = inside.trailing_zeros() as usize;
                    inside &= inside - 1;
                    let (i, j) = (n % TILE, n / TILE);
                    let pixel = ((y - first_row) as usize + j) * self.width + x as usize + i;
                    if self.tri_id[pixel] < 0 || self.depth[pixel] * nearness >= 1.0 - 1e-6 {
                        let at = |k: usize| tile[k] + step_x[k] * i as i64 + step_y[k] * j as i64 + least[k];
                        self.shade(pixel, std::array::from_fn(at), turned < 0, &inverse_z, face, weights);
                    }
                }
                (0..3).for_each(|k| tile[k] += TILE as i64 * step_x[k]);
                x += TILE as i32;
            }
            (0..3).for_each(|k| row[k] += TILE as i64 * step_y[k]);
            y += TILE as i32;
        }
    }

    #[inline(always)]
    fn shade(
        &mut self,
        pixel: usize,
        e: [i64; 3],
        turned: bool,
        inverse_z: &[f64; 3],
        face: u32,
        weights: Option<&[DVec3; 3]>,
    ) {
        let affine = e.map(|e| e as f64);
        let w: [f64; 3] = std::array::from_fn(|k| affine[k] * inverse_z[k]);
        // in the order of corners as the edges run
        let sum = |v: [f64; 3]| if turned { v[0] + v[2] + v[1] } else { v[0] + v[1] + v[2] };
        let scale = 1.0 / sum(w);
        let z = (sum(affine) * scale) as f32;
        if self.tri_id[pixel] >= 0 && self.depth[pixel] <= z {
            return;
        }
        let w = w.map(|w| w * scale);
        self.tri_id[pixel] = face as i32;
        self.depth[pixel] = z;
        self.bary[pixel] = match weights {
            Some(weights) => (0..3).map(|k| weights[k] * w[k]).sum::<DVec3>().max(DVec3::ZERO).as_vec3().to_array(),
            None => w.map(|w| w as f32),
        };
    }
}

/// Which samples of a tile lie on the inner side of all edges: bit `TILE * j + i` is the sample i to the right of the
/// first and j below it. Edge functions there are `first`, less what a sample on an edge lacks; no samples are wanted
/// further right or down than `right` and `down`.
#[inline(always)]
fn covered(first: [i64; 3], step_x: [i64; 3], step_y: [i64; 3], right: i32, down: i32) -> u32 {
    let mut outside = [0i64; TILE];
    let mut at = first;
    for j in 0..TILE {
        for (i, outside) in outside.iter_mut().enumerate() {
            let right = i as i64;
            let any = (at[0] + step_x[0] * right) | (at[1] + step_x[1] * right) | (at[2] + step_x[2] * right);
            *outside |= (any >> 63) & (1 << (TILE * j + i));
        }
        (0..3).for_each(|k| at[k] += step_y[k]);
    }
    let inside = !outside.iter().fold(0, |all, some| all | some) as u32;
    let (columns, lines) = ((right + 1).min(TILE as i32), (down + 1).min(TILE as i32));
    let columns = 0x1111 * ((1 << columns) - 1);
    inside & columns & ((1 << (TILE as i32 * lines)) - 1)
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
mod tests;
