//! Iso-surfaces of expensive fields: evaluates a field only near its surface, then runs marching cubes there.
//!
//! A coarse grid is evaluated in full. Cells that can contain the surface are kept and refined by two, level after
//! level. The result is the one of the dense finest grid as long as no part of the surface is missed, which can happen
//! only where it is thinner than a coarse cell and the field is steeper than 1.75 per unit of length (a signed
//! distance has slope 1). The field is a function of batches of points; what is behind it is not known here.

use glam::{DVec3, Vec3};

use crate::marching_cubes::marching_cubes;
use crate::mesh::Mesh;

/// Points handed to the field at a time.
const BATCH: usize = 1 << 16;
/// The slope up to which nothing is missed: a cell whose corners lie further from zero than this times the longest way
/// to the surface is dropped.
const STEEPEST: f64 = 1.75;

/// In `values`: not evaluated, and about to be evaluated. Two of the many NaNs, told apart by their bits.
const UNKNOWN: f32 = f32::NAN;
const QUEUED: f32 = f32::from_bits(f32::NAN.to_bits() ^ 1);

/// A field sampled near its zero level.
#[derive(Clone, Debug)]
pub struct Band {
    /// Values of the finest grid, x-major; NaN where the field was not evaluated.
    pub values: Vec<f32>,
    /// Grid points per axis.
    pub dims: [usize; 3],
    /// How many points were evaluated.
    pub evaluated: usize,
}

/// The zero surface of `f` in the box from `min` to `max`, in the box's coordinates; negative is inside.
///
/// `f` returns one value per point. The coarse grid has `coarse_res` points per axis, the finest one
/// `(coarse_res - 1) * 2^levels + 1`. Where the surface leaves the box, the mesh is open.
///
/// # Panics
/// If `coarse_res` is below 2 or `f` returns another number of values than it was given points.
pub fn extract(f: &dyn Fn(&[Vec3]) -> Vec<f32>, min: Vec3, max: Vec3, coarse_res: usize, levels: u32) -> Mesh {
    let band = evaluate(f, min, max, coarse_res, levels);
    let mut mesh = marching_cubes(&band.values, band.dims, 0.0);
    let cell = (max.as_dvec3() - min.as_dvec3()) / (band.dims[0] - 1) as f64;
    mesh.positions.iter_mut().for_each(|p| *p = (min.as_dvec3() + p.as_dvec3() * cell).as_vec3());
    mesh
}

/// The position of a grid point among `res` per axis.
fn grid_point(min: Vec3, max: Vec3, res: usize, index: [usize; 3]) -> Vec3 {
    let t = DVec3::from_array(index.map(|i| i as f64 / (res - 1) as f64));
    (min.as_dvec3() + (max.as_dvec3() - min.as_dvec3()) * t).as_vec3()
}

/// Evaluates `f` near its zero level; parameters as for [`extract`].
///
/// # Panics
/// As [`extract`].
pub fn evaluate(f: &dyn Fn(&[Vec3]) -> Vec<f32>, min: Vec3, max: Vec3, coarse_res: usize, levels: u32) -> Band {
    assert!(coarse_res >= 2, "a grid needs at least two points per axis");
    let res = ((coarse_res - 1) << levels) + 1;
    let mut band = Band { values: vec![UNKNOWN; res * res * res], dims: [res; 3], evaluated: 0 };
    let coarse = coarse_res - 1;
    let mut cells: Vec<[u32; 3]> = Vec::new();
    for i in 0..coarse as u32 {
        for j in 0..coarse as u32 {
            cells.extend((0..coarse as u32).map(|k| [i, j, k]));
        }
    }
    for level in 0..=levels {
        let stride = 1usize << (levels - level);
        band.fill(f, min, max, &cells, stride);
        if level < levels {
            let per_axis = coarse << level;
            cells = refine(&band.kept(&cells, stride, per_axis, max - min), per_axis);
        }
    }
    band
}

impl Band {
    fn index(&self, point: [usize; 3]) -> usize {
        (point[0] * self.dims[1] + point[1]) * self.dims[2] + point[2]
    }

    /// The eight corners of a cell of `stride` finest cells, as indices into `values`.
    fn corners(&self, cell: [u32; 3], stride: usize) -> [usize; 8] {
        std::array::from_fn(|n| {
            let point = [n & 1, n >> 1 & 1, n >> 2].map(|bit| bit * stride);
            self.index(std::array::from_fn(|a| cell[a] as usize * stride + point[a]))
        })
    }

    /// Evaluates the corners of `cells` that are not known yet.
    fn fill(&mut self, f: &dyn Fn(&[Vec3]) -> Vec<f32>, min: Vec3, max: Vec3, cells: &[[u32; 3]], stride: usize) {
        let mut wanted: Vec<usize> = Vec::new();
        for cell in cells {
            for p in self.corners(*cell, stride) {
                if self.values[p].to_bits() == UNKNOWN.to_bits() {
                    self.values[p] = QUEUED;
                    wanted.push(p);
                }
            }
        }
        let [res, ny, nz] = self.dims;
        for batch in wanted.chunks(BATCH) {
            let points: Vec<Vec3> =
                batch.iter().map(|p| grid_point(min, max, res, [p / (ny * nz), p / nz % ny, p % nz])).collect();
            let values = f(&points);
            assert_eq!(values.len(), points.len(), "the field must return one value per point");
            batch.iter().zip(values).for_each(|(p, v)| self.values[*p] = v);
        }
        self.evaluated += wanted.len();
    }

    /// Marks, in a dense mask of `per_axis`^3 cells, which of `cells` to refine: those with a change of sign, their
    /// neighbours, and those that are close enough to zero to hide a surface.
    fn kept(&self, cells: &[[u32; 3]], stride: usize, per_axis: usize, size: Vec3) -> Vec<bool> {
        let diagonal = f64::from(size.length()) / per_axis as f64;
        // A surface point in the cell is at most half a diagonal from some corner and a diagonal from all.
        let (nearest, farthest) = ((0.5 * STEEPEST * diagonal) as f32, (STEEPEST * diagonal) as f32);
        let mut keep = vec![false; per_axis * per_axis * per_axis];
        let at = |c: [u32; 3]| (c[0] as usize * per_axis + c[1] as usize) * per_axis + c[2] as usize;
        for cell in cells {
            let values = self.corners(*cell, stride).map(|p| self.values[p]);
            let inside = values.iter().filter(|v| **v < 0.0).count();
            if inside > 0 && inside < 8 {
                let ends = cell.map(|c| (c.saturating_sub(1), (c + 1).min(per_axis as u32 - 1)));
                for i in ends[0].0..=ends[0].1 {
                    for j in ends[1].0..=ends[1].1 {
                        (ends[2].0..=ends[2].1).for_each(|k| keep[at([i, j, k])] = true);
                    }
                }
            } else {
                let least = values.iter().fold(f32::INFINITY, |m, v| m.min(v.abs()));
                let most = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                keep[at(*cell)] |= least < nearest && most < farthest;
            }
        }
        keep
    }
}

/// The eight halves of every marked cell, in order of the marked cells.
fn refine(keep: &[bool], per_axis: usize) -> Vec<[u32; 3]> {
    let mut cells = Vec::new();
    for (n, _) in keep.iter().enumerate().filter(|(_, k)| **k) {
        let parent = [n / per_axis / per_axis, n / per_axis % per_axis, n % per_axis];
        cells.extend((0..8).map(|c| {
            let half = [c & 1, c >> 1 & 1, c >> 2];
            std::array::from_fn(|a| (2 * parent[a] + half[a]) as u32)
        }));
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two lobes and a thin plate (half a coarse cell) that the coarse grid's signs do not show.
    fn field(p: Vec3) -> f32 {
        let lobes =
            ((p - Vec3::new(0.2, 0.1, 0.0)).length() - 0.3).min((p + Vec3::new(0.25, 0.1, 0.05)).length() - 0.2);
        let plate = (p - Vec3::new(0.0, 0.6, 0.013)).abs() - Vec3::new(0.3, 0.1, 0.015);
        lobes.min(plate.max(Vec3::ZERO).length() + plate.max_element().min(0.0))
    }

    #[test]
    fn the_band_gives_the_dense_surface() {
        let (min, max) = (Vec3::new(-0.6, -0.5, -0.9), Vec3::new(0.6, 0.8, 0.5));
        let batched = |points: &[Vec3]| points.iter().map(|p| field(*p)).collect::<Vec<f32>>();
        let band = evaluate(&batched, min, max, 21, 2);
        let res = band.dims[0];
        assert_eq!(res, 81);
        assert!(band.evaluated * 4 < res * res * res, "{} points evaluated", band.evaluated);

        let all: Vec<f32> = (0..res * res * res)
            .map(|p| field(grid_point(min, max, res, [p / res / res, p / res % res, p % res])))
            .collect();
        assert_eq!(marching_cubes(&band.values, band.dims, 0.0), marching_cubes(&all, band.dims, 0.0));
    }

    #[test]
    fn extracted_sphere_lies_on_the_sphere() {
        let sphere = |points: &[Vec3]| points.iter().map(|p| p.length() - 0.35).collect::<Vec<f32>>();
        let mesh = extract(&sphere, Vec3::new(-0.5, -0.4, -0.6), Vec3::splat(0.5), 17, 2);
        assert!(mesh.is_watertight() && mesh.euler_number() == 2 && mesh.volume() > 0.0);
        assert!(mesh.positions.iter().all(|p| (p.length() - 0.35).abs() < 1e-3));
    }
}
