//! Light inside hair: a grid of strand density and how much light each direction sends through it.
//!
//! The grid lies in the neutral frame of the head; turning the head turns the light relative to it. Knows strands as
//! density only.

use glam::{IVec3, Mat3, Mat4, Vec3};

use super::Strands;
use crate::heads::light::{Environment, ShadowMap};

/// Cell size, metres.
const CELL: f32 = 0.0075;
const SIZE: IVec3 = IVec3::new(46, 52, 46);
const ORIGIN: Vec3 = Vec3::new(-0.1725, -0.215, -0.185);
/// Share of light that one metre of strand in a cubic metre takes away, per metre: the projected width of strands.
const EXTINCTION: f32 = 0.00026;

/// Metres of strand in each cell, divided by the cell's volume.
pub struct Density {
    values: Vec<f32>,
    empty: bool,
}

fn index(c: IVec3) -> usize {
    ((c.z * SIZE.y + c.y) * SIZE.x + c.x) as usize
}

fn cell_of(p: Vec3) -> Option<IVec3> {
    let c = ((p - ORIGIN) / CELL).floor().as_ivec3();
    (c.cmpge(IVec3::ZERO).all() && c.cmplt(SIZE).all()).then_some(c)
}

impl Density {
    /// Counts the strands of the neutral pose.
    pub fn new(strands: &Strands) -> Self {
        let mut values = vec![0.0; (SIZE.x * SIZE.y * SIZE.z) as usize];
        for s in 0..strands.len() {
            let points = &strands.points[strands.starts[s] as usize..strands.starts[s + 1] as usize];
            for pair in points.windows(2) {
                if let Some(c) = cell_of(pair[0].midpoint(pair[1])) {
                    values[index(c)] += pair[0].distance(pair[1]) / (CELL * CELL * CELL);
                }
            }
        }
        Self { values, empty: strands.is_empty() }
    }
}

/// How much of each light direction reaches each cell.
pub struct HairShade {
    /// `[direction][cell]`, 255 is all.
    through: Vec<Vec<u8>>,
    to_neutral: Mat4,
}

impl HairShade {
    /// Sweeps the light of every direction through the density.
    pub fn new(density: &Density, environment: &Environment, head_pose: Mat4) -> Self {
        let to_neutral = head_pose.inverse();
        let turn = Mat3::from_mat4(to_neutral);
        let through = if density.empty {
            Vec::new()
        } else {
            environment.directions.iter().map(|d| sweep(&density.values, turn * *d)).collect()
        };
        Self { through, to_neutral }
    }

    /// The share of light direction `d` that reaches world point `p`.
    pub fn at(&self, p: Vec3, d: usize) -> f32 {
        let Some(through) = self.through.get(d) else { return 1.0 };
        let at = (self.to_neutral.transform_point3(p) - ORIGIN) / CELL - 0.5;
        let low = at.floor();
        let c = low.as_ivec3();
        if c.cmplt(IVec3::ZERO).any() || c.cmpge(SIZE - 1).any() {
            return 1.0;
        }
        let f = at - low;
        let mut sum = 0.0;
        for k in 0..8 {
            let o = IVec3::new(k & 1, k >> 1 & 1, k >> 2 & 1);
            let w = |f: f32, o: i32| if o == 1 { f } else { 1.0 - f };
            sum += w(f.x, o.x) * w(f.y, o.y) * w(f.z, o.z) * f32::from(through[index(c + o)]);
        }
        sum / 255.0
    }

    /// The light in every cell that holds scalp hair, for the strands in their posed place.
    pub fn light_cells(
        &self,
        strands: &Strands,
        scalp: usize,
        environment: &Environment,
        maps: &[ShadowMap],
    ) -> CellLight {
        let mut middle = vec![(Vec3::ZERO, 0.0f32); (SIZE.x * SIZE.y * SIZE.z) as usize];
        for p in &strands.points[..strands.starts[scalp] as usize] {
            if let Some(c) = cell_of(self.to_neutral.transform_point3(*p)) {
                let m = &mut middle[index(c)];
                *m = (m.0 + *p, m.1 + 1.0);
            }
        }
        let light = middle.iter().enumerate().map(|(i, (sum, n))| {
            let mut light = (Vec3::ZERO, [0.0; 4]);
            if *n == 0.0 {
                return light;
            }
            let p = *sum / *n;
            for d in 0..environment.directions.len() {
                let through = f32::from(self.through[d][i]) / 255.0;
                let share = if through > 0.01 { through * maps[d].visible(p, 0.010) } else { 0.0 };
                // A strand catches light from all around: a quarter of each direction's power on average.
                light.0 += environment.power[d] * (0.25 * share);
                if let Some(k) = environment.key_direction.iter().position(|k| *k == d) {
                    light.1[k] = share;
                }
            }
            light
        });
        CellLight { light: light.collect(), to_neutral: self.to_neutral }
    }
}

/// The light inside hair, cell by cell.
pub struct CellLight {
    light: Vec<(Vec3, [f32; 4])>,
    to_neutral: Mat4,
}

impl CellLight {
    /// The light at a point of strand number `strand`. Each strand looks up a slightly different place, which blends
    /// the cells.
    pub fn at(&self, p: Vec3, strand: usize) -> (Vec3, [f32; 4]) {
        let local = self.to_neutral.transform_point3(p);
        let h = (strand as u32).wrapping_mul(0x9E37_79B1);
        let jitter = |shift: u32| ((h >> shift) & 0xff) as f32 / 255.0 - 0.5;
        let moved = local + Vec3::new(jitter(0), jitter(8), jitter(16)) * CELL;
        let filled = |p: Vec3| cell_of(p).map(|c| self.light[index(c)]).filter(|l| l.0 != Vec3::ZERO);
        filled(moved).or_else(|| filled(local)).unwrap_or((Vec3::ZERO, [0.0; 4]))
    }
}

/// Transmittance towards the light in direction `d` (neutral frame) for every cell: slice by slice along the axis that
/// is closest to the light, starting at the light.
fn sweep(density: &[f32], d: Vec3) -> Vec<u8> {
    let axis = (0..3).max_by(|a, b| d[*a].abs().total_cmp(&d[*b].abs())).expect("three axes");
    let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
    let strides = [1, SIZE.x as usize, (SIZE.x * SIZE.y) as usize];
    let (nu, nv, n) = (SIZE[u] as usize, SIZE[v] as usize, SIZE[axis] as usize);
    // From a cell towards the light, one slice on: the same offset for all cells. |offset| <= 1, so a rim of two cells
    // of free light around the slice is enough.
    let (du, dv) = (d[u] / d[axis].abs(), d[v] / d[axis].abs());
    let (iu, iv) = (du.floor(), dv.floor());
    let (fu, fv) = (du - iu, dv - iv);
    let weights = [(1.0 - fu) * (1.0 - fv), fu * (1.0 - fv), (1.0 - fu) * fv, fu * fv];
    let width = nu + 4;
    let shift = (iv + 2.0) as usize * width + (iu + 2.0) as usize;
    let fade = -EXTINCTION * CELL / d[axis].abs();
    let mut result = vec![255u8; density.len()];
    let mut slice = vec![1.0f32; width * (nv + 4)];
    let mut next = slice.clone();
    for k in 0..n {
        let along = if d[axis] > 0.0 { n - 1 - k } else { k };
        for j in 0..nv {
            let row = along * strides[axis] + j * strides[v];
            for i in 0..nu {
                let at = j * width + i + shift;
                let near = [slice[at], slice[at + 1], slice[at + width], slice[at + width + 1]];
                let before = near[0] * weights[0] + near[1] * weights[1] + near[2] * weights[2] + near[3] * weights[3];
                let here = row + i * strides[u];
                // Half of a cell's own hair lies before its middle.
                let half = if density[here] > 0.0 { (0.5 * fade * density[here]).exp() } else { 1.0 };
                next[(j + 2) * width + i + 2] = before * half * half;
                result[here] = (255.0 * before * half) as u8;
            }
        }
        std::mem::swap(&mut slice, &mut next);
    }
    result
}
