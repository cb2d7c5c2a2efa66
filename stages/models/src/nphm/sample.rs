//! Scans as pools of points, and the random draws that one training step sees. Knows no files and no meshes: whoever
//! has meshes samples them densely once. All points are in model units (25 cm); distances are signed, positive outside.

use crate::init;
use tch::{Device, Tensor};

/// One scan of one person: points sampled densely, in posed space unless said otherwise.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Row of the identity's code.
    pub identity: i64,
    /// Row of the expression's code; every scan has its own.
    pub expression: i64,
    /// Whether this is the identity's neutral scan, which defines its canonical space.
    pub neutral: bool,
    /// Points on the surface.
    pub surface: Vec<[f32; 3]>,
    /// Unit outward normals of `surface`.
    pub normals: Vec<[f32; 3]>,
    /// Points within a centimetre or two of the surface.
    pub near: Vec<[f32; 3]>,
    /// Signed distances of `near`.
    pub near_distance: Vec<f32>,
    /// Points anywhere in the training box.
    pub far: Vec<[f32; 3]>,
    /// Signed distances of `far`; beyond the surface only their sign must be right.
    pub far_distance: Vec<f32>,
    /// Points on or near the surface,
    pub posed: Vec<[f32; 3]>,
    /// and where the same points lie in the identity's neutral scan.
    pub canonical: Vec<[f32; 3]>,
    /// Anchors of the neutral scan.
    pub anchors: Vec<[f32; 3]>,
}

/// Points per scan in one training step.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Surface points, where distance and normal are supervised.
    pub surface: usize,
    /// Points near the surface.
    pub near: usize,
    /// Points anywhere.
    pub far: usize,
    /// Correspondences.
    pub correspondences: usize,
}

/// What one training step sees of `B` scans.
pub struct Batch {
    /// Rows of the identity codes.
    pub identities: Vec<i64>,
    /// Rows of the expression codes.
    pub expressions: Vec<i64>,
    /// `[B]` 1 for neutral scans, 0 for others.
    pub neutral: Tensor,
    /// `[B, S, 3]`.
    pub surface: Tensor,
    /// `[B, S, 3]`.
    pub normals: Tensor,
    /// `[B, E, 3]`.
    pub near: Tensor,
    /// `[B, E]`.
    pub near_distance: Tensor,
    /// `[B, F, 3]`.
    pub far: Tensor,
    /// `[B, F]`.
    pub far_distance: Tensor,
    /// `[B, C, 3]`.
    pub posed: Tensor,
    /// `[B, C, 3]`.
    pub canonical: Tensor,
    /// `[B, K, 3]`.
    pub anchors: Tensor,
}

/// Draws `batch` scans and their points: a function of `seed` and `step` alone. Every scan comes once before any comes
/// again (shuffled anew each round), so codes are trained evenly.
pub fn draw(scans: &[Scan], batch: usize, counts: &Counts, seed: u64, step: u64) -> Batch {
    let picked: Vec<&Scan> = (0..batch)
        .map(|i| {
            let n = step as usize * batch + i;
            &scans[shuffled(scans.len(), seed, (n / scans.len()) as u64)[n % scans.len()]]
        })
        .collect();
    // eight streams of random numbers per step; the shuffles use the upper half of the numbers
    let indices = |stream: u64, count: usize, of: &dyn Fn(&Scan) -> usize| -> Vec<Vec<i64>> {
        let all = init::integers(seed, step * 8 + stream, count * batch, 1 << 40);
        let rows = all.chunks(count.max(1)).zip(&picked);
        rows.map(|(row, scan)| row.iter().map(|&n| n % of(scan).max(1) as i64).collect()).collect()
    };
    let points = |index: &[Vec<i64>], of: &dyn Fn(&Scan) -> &[[f32; 3]]| {
        let flat: Vec<f32> =
            index.iter().zip(&picked).flat_map(|(row, scan)| row.iter().flat_map(|&i| of(scan)[i as usize])).collect();
        Tensor::from_slice(&flat).reshape([batch as i64, -1, 3])
    };
    let values = |index: &[Vec<i64>], of: &dyn Fn(&Scan) -> &[f32]| {
        let flat: Vec<f32> =
            index.iter().zip(&picked).flat_map(|(row, scan)| row.iter().map(|&i| of(scan)[i as usize])).collect();
        Tensor::from_slice(&flat).reshape([batch as i64, -1])
    };
    let surface = indices(0, counts.surface, &|s| s.surface.len());
    let near = indices(1, counts.near, &|s| s.near.len());
    let far = indices(2, counts.far, &|s| s.far.len());
    let pairs = indices(3, counts.correspondences, &|s| s.posed.len());
    let anchors: Vec<f32> = picked.iter().flat_map(|s| s.anchors.as_flattened().iter().copied()).collect();
    let neutral: Vec<f32> = picked.iter().map(|s| f32::from(u8::from(s.neutral))).collect();
    Batch {
        identities: picked.iter().map(|s| s.identity).collect(),
        expressions: picked.iter().map(|s| s.expression).collect(),
        neutral: Tensor::from_slice(&neutral),
        surface: points(&surface, &|s| &s.surface),
        normals: points(&surface, &|s| &s.normals),
        near: points(&near, &|s| &s.near),
        near_distance: values(&near, &|s| &s.near_distance),
        far: points(&far, &|s| &s.far),
        far_distance: values(&far, &|s| &s.far_distance),
        posed: points(&pairs, &|s| &s.posed),
        canonical: points(&pairs, &|s| &s.canonical),
        anchors: Tensor::from_slice(&anchors).reshape([batch as i64, -1, 3]),
    }
}

impl Batch {
    /// The same batch on another device.
    pub fn to_device(&self, device: Device) -> Self {
        let to = |t: &Tensor| t.to_device(device);
        Self {
            identities: self.identities.clone(),
            expressions: self.expressions.clone(),
            neutral: to(&self.neutral),
            surface: to(&self.surface),
            normals: to(&self.normals),
            near: to(&self.near),
            near_distance: to(&self.near_distance),
            far: to(&self.far),
            far_distance: to(&self.far_distance),
            posed: to(&self.posed),
            canonical: to(&self.canonical),
            anchors: to(&self.anchors),
        }
    }
}

/// A permutation of `0..n`: a function of `seed` and `round` alone (Fisher-Yates).
fn shuffled(n: usize, seed: u64, round: u64) -> Vec<usize> {
    let random = init::integers(seed, (1 << 63) | round, n, 1 << 40);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (random[i] % (i as i64 + 1)) as usize);
    }
    order
}
