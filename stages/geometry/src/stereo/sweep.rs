//! The matching cost of a reference view against its neighbours, for hypotheses that are offsets from a base surface.
//!
//! A classical plane sweep warps the neighbours through fronto-parallel planes; here they are warped through the
//! *base depth map plus an offset*, so that matching windows follow the slant of the surface for free once the base
//! is about right. The cost is normalised cross-correlation over a square window, masked by the mattes, with a noise
//! floor so that flat regions cost "don't know" and not "anything goes". This file knows nothing of where bases come
//! from or what becomes of the costs.

use super::image::Image;
use glam::{DMat3, DVec3, Vec3};
use multiversion::multiversion;
use rayon::prelude::*;
use std::ops::Range;

/// Sums that normalised cross-correlation needs: w, wa, wb, waa, wbb, wab.
const SUMS: usize = 6;

/// One sweep of a reference view.
pub(super) struct Sweep<'a> {
    pub reference: &'a Image,
    pub neighbours: &'a [&'a Image],
    /// Camera z of the base surface per pixel, m; 0 where nothing is to be matched.
    pub base: &'a [f32],
    /// Offset of the first hypothesis, m.
    pub first: f32,
    /// Distance between hypotheses, m.
    pub step: f32,
    /// Number of hypotheses.
    pub count: usize,
    /// The window has `2 * radius + 1` pixels each way.
    pub radius: usize,
    /// How many of the neighbours, the best ones for each pixel and hypothesis, are averaged.
    pub keep: usize,
    /// Standard deviation of grey values taken for noise.
    pub noise: f32,
}

impl Sweep<'_> {
    /// `[pixel][hypothesis]` costs `1 - max(NCC, 0)` in [0, 1]; 1 where there is no base.
    pub fn costs(&self) -> Vec<f32> {
        let rows = self.base.chunks_exact(self.reference.width);
        let spans: Vec<Range<usize>> = rows.map(span).collect();
        let slices: Vec<Vec<f32>> = (0..self.count).into_par_iter().map(|k| self.slice(k, &spans)).collect();
        let pixels = self.base.len();
        let mut costs = vec![1.0; pixels * self.count];
        costs.par_chunks_mut(self.count * self.reference.width).enumerate().for_each(|(y, row)| {
            for (k, slice) in slices.iter().enumerate() {
                let slice = &slice[y * self.reference.width..][..self.reference.width];
                for (x, cost) in slice.iter().enumerate() {
                    row[x * self.count + k] = *cost;
                }
            }
        });
        costs
    }

    /// The cost of one hypothesis for all pixels: the mean over the `keep` best neighbours.
    fn slice(&self, k: usize, spans: &[Range<usize>]) -> Vec<f32> {
        let offset = self.first + k as f32 * self.step;
        let keep = self.keep.clamp(1, self.neighbours.len().max(1));
        let mut best = vec![vec![1.0f32; self.base.len()]; keep];
        let mut rows = Rows::new(self.reference.width, self.radius);
        for neighbour in self.neighbours {
            correlate(self, neighbour, offset, spans, &mut rows, &mut best);
        }
        let (first, others) = best.split_at_mut(1);
        for other in others {
            first[0].iter_mut().zip(other.iter()).for_each(|(sum, cost)| *sum += cost);
        }
        let scale = 1.0 / keep as f32;
        first[0].iter_mut().for_each(|sum| *sum *= scale);
        best.swap_remove(0)
    }
}

/// Adds one neighbour's costs to the sorted lists of the best.
// nearly all of matching; every number is computed for itself, so the width of the registers changes none
#[multiversion(targets("x86_64+avx2"))]
fn correlate(
    sweep: &Sweep<'_>,
    neighbour: &Image,
    offset: f32,
    spans: &[Range<usize>],
    rows: &mut Rows,
    best: &mut [Vec<f32>],
) {
    let (width, height, radius) = (sweep.reference.width, sweep.reference.height, sweep.radius);
    let warp = Warp::between(sweep.reference, neighbour);
    rows.clear();
    // Row `y` of products enters; the window around row `y - radius` is then complete.
    for y in 0..height + radius {
        rows.no_products();
        if y < height && !spans[y].is_empty() {
            let span = spans[y].clone();
            let pixels = y * width + span.start..y * width + span.end;
            warp.row(span.start, y, &sweep.base[pixels.clone()], offset, &mut rows.x, &mut rows.y);
            rows.products(span.start, &sweep.reference.grey[pixels], neighbour);
        }
        rows.slide(y % (2 * radius + 1));
        if y >= radius && !spans[y - radius].is_empty() {
            let done = y - radius;
            let span = spans[done].clone();
            let costs = rows.score(done % (2 * radius + 1), span.clone(), sweep.noise * sweep.noise);
            for list in best.iter_mut() {
                let kept = &mut list[done * width + span.start..done * width + span.end];
                for (kept, cost) in kept.iter_mut().zip(costs.iter_mut()) {
                    (*kept, *cost) = (kept.min(*cost), kept.max(*cost));
                }
            }
        }
    }
}

/// From the first to the last pixel of a row that has a base.
fn span(row: &[f32]) -> Range<usize> {
    let first = row.iter().position(|base| *base > 0.0);
    let last = row.iter().rposition(|base| *base > 0.0);
    first.zip(last).map_or(0..0, |(first, last)| first..last + 1)
}

/// Reference pixel and depth to neighbour pixel: `x = (depth * m (u, v, 1) + t) / z`.
struct Warp {
    columns: [Vec3; 3],
    translation: Vec3,
}

impl Warp {
    fn between(reference: &Image, neighbour: &Image) -> Warp {
        let relative = neighbour.world_to_cam * reference.world_to_cam.inverse();
        let linear = neighbour.intrinsics * DMat3::from_mat4(relative) * reference.intrinsics.inverse();
        let translation: DVec3 = neighbour.intrinsics * relative.w_axis.truncate();
        let columns = [linear.x_axis, linear.y_axis, linear.z_axis].map(|column| column.as_vec3());
        Warp { columns, translation: translation.as_vec3() }
    }

    /// Positions, relative to pixel centres, of reference pixels from `x` on in row `y`; far outside where there is no
    /// base.
    #[inline(always)]
    fn row(&self, x: usize, y: usize, base: &[f32], offset: f32, out_x: &mut [f32], out_y: &mut [f32]) {
        let start = self.columns[2] + (y as f32 + 0.5) * self.columns[1] + (x as f32 + 0.5) * self.columns[0];
        let (step, shift) = (self.columns[0], self.translation);
        for (x, ((&base, out_x), out_y)) in base.iter().zip(out_x).zip(out_y).enumerate() {
            let x = x as f32;
            let depth = base + offset;
            let z = 1.0 / (depth * (start.z + x * step.z) + shift.z);
            let px = (depth * (start.x + x * step.x) + shift.x) * z - 0.5;
            let py = (depth * (start.y + x * step.y) + shift.y) * z - 0.5;
            *out_x = if base > 0.0 { px } else { -9.0 };
            *out_y = if base > 0.0 { py } else { -9.0 };
        }
    }
}

/// Row buffers for running window sums.
struct Rows {
    radius: usize,
    x: Vec<f32>,
    y: Vec<f32>,
    /// Products of one row with `radius` zeros on both sides.
    products: [Vec<f32>; SUMS],
    /// Horizontal window sums of the last `2 * radius + 1` rows.
    ring: Vec<[Vec<f32>; SUMS]>,
    /// The matte of the rows in the ring.
    valid: Vec<Vec<f32>>,
    /// Window sums.
    sums: [Vec<f32>; SUMS],
    cost: Vec<f32>,
}

impl Rows {
    fn new(width: usize, radius: usize) -> Rows {
        let six = |len: usize| std::array::from_fn(|_| vec![0.0; len]);
        Rows {
            radius,
            x: vec![0.0; width],
            y: vec![0.0; width],
            products: six(width + 2 * radius),
            ring: (0..2 * radius + 1).map(|_| six(width)).collect(),
            valid: vec![vec![0.0; width]; 2 * radius + 1],
            sums: six(width),
            cost: vec![0.0; width],
        }
    }

    fn clear(&mut self) {
        self.ring.iter_mut().flatten().chain(&mut self.sums).chain(&mut self.valid).for_each(|row| row.fill(0.0));
    }

    /// Samples the neighbour along the warped row and multiplies it with the reference pixels from `start` on.
    #[inline(always)]
    fn products(&mut self, start: usize, reference: &[f32], neighbour: &Image) {
        let width = reference.len();
        let inner = self.radius + start..self.radius + start + width;
        let [w, a, b, aa, bb, ab] = self.products.each_mut().map(|row| &mut row[inner.clone()][..width]);
        for ((out, x), y) in b.iter_mut().zip(&self.x).zip(&self.y) {
            *out = neighbour.sample(*x, *y);
        }
        for i in 0..width {
            let (left, right) = (reference[i], b[i]);
            let valid = !(left + right).is_nan();
            let (left, right) = if valid { (left, right) } else { (0.0, 0.0) };
            w[i] = if valid { 1.0 } else { 0.0 };
            a[i] = left;
            b[i] = right;
            aa[i] = left * left;
            bb[i] = right * right;
            ab[i] = left * right;
        }
    }

    fn no_products(&mut self) {
        self.products.iter_mut().for_each(|row| row.fill(0.0));
    }

    /// Replaces the oldest row of the ring by the horizontal sums of the current products.
    #[inline(always)]
    fn slide(&mut self, slot: usize) {
        let (width, radius) = (self.cost.len(), self.radius);
        self.valid[slot].copy_from_slice(&self.products[0][radius..radius + width]);
        for ((products, ring), sums) in self.products.iter().zip(&mut self.ring[slot]).zip(&mut self.sums) {
            sums.iter_mut().zip(ring.iter()).for_each(|(sum, old)| *sum -= old);
            ring.copy_from_slice(&products[..width]);
            for shift in 1..=2 * radius {
                ring.iter_mut().zip(&products[shift..shift + width]).for_each(|(sum, value)| *sum += value);
            }
            sums.iter_mut().zip(ring.iter()).for_each(|(sum, new)| *sum += new);
        }
    }

    /// Costs of the pixels in `span` from the window sums; `slot` holds the row in the middle of the windows.
    #[inline(always)]
    fn score(&mut self, slot: usize, span: Range<usize>, noise: f32) -> &mut [f32] {
        let [w, a, b, aa, bb, ab] = self.sums.each_ref().map(|row| &row[span.clone()]);
        let valid = &self.valid[slot][span.clone()];
        let cost = &mut self.cost[span];
        for x in 0..cost.len() {
            let count = w[x].max(1.0);
            let per = 1.0 / count;
            let covariance = ab[x] - a[x] * b[x] * per;
            let left = (aa[x] - a[x] * a[x] * per).max(0.0) + count * noise;
            let right = (bb[x] - b[x] * b[x] * per).max(0.0) + count * noise;
            let ncc = covariance / (left * right).sqrt();
            cost[x] = 1.0 - valid[x] * ncc.clamp(0.0, 1.0);
        }
        cost
    }
}
