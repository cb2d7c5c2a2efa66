//! Point clouds with normals and colours: thinning, outliers, normals.
//!
//! `normals` and `colors` have one entry per position or none at all; every function keeps them in step. This file does
//! not know where points come from (see `stereo`) or how they are stored (see `ply`).

use std::collections::HashMap;

use glam::{DVec3, Vec3};
use rayon::prelude::*;

use crate::eigen::symmetric_eigen;
use crate::nearest::KdTree;

/// Points of a surface.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PointCloud {
    /// Positions, usually metres in world space.
    pub positions: Vec<Vec3>,
    /// Unit normals, or empty.
    pub normals: Vec<Vec3>,
    /// RGB, or empty.
    pub colors: Vec<[u8; 3]>,
}

impl PointCloud {
    /// Number of points.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The points with these indices, in this order.
    pub fn select(&self, indices: &[usize]) -> PointCloud {
        PointCloud {
            positions: indices.iter().map(|i| self.positions[*i]).collect(),
            normals: if self.normals.is_empty() {
                Vec::new()
            } else {
                indices.iter().map(|i| self.normals[*i]).collect()
            },
            colors: if self.colors.is_empty() { Vec::new() } else { indices.iter().map(|i| self.colors[*i]).collect() },
        }
    }

    /// The points for which `keep` is true.
    pub fn retain(&self, keep: impl Fn(usize) -> bool) -> PointCloud {
        self.select(&(0..self.len()).filter(|i| keep(*i)).collect::<Vec<_>>())
    }

    /// One point per occupied voxel of side `cell`: the mean of the positions, normals (made unit again) and colours in
    /// it, in order of the voxels' first points. Points that are not finite are dropped.
    ///
    /// # Panics
    /// If `cell` is not positive.
    pub fn voxel_subsample(&self, cell: f32) -> PointCloud {
        assert!(cell > 0.0, "a voxel needs a positive size, not {cell}");
        struct Sum {
            position: DVec3,
            normal: DVec3,
            color: [u64; 3],
            count: u64,
        }
        let mut slot: HashMap<[i64; 3], usize> = HashMap::new();
        let mut sums: Vec<Sum> = Vec::new();
        for (i, p) in self.positions.iter().enumerate().filter(|(_, p)| p.is_finite()) {
            let voxel = (p.as_dvec3() / f64::from(cell)).floor().to_array().map(|v| v as i64);
            let at = *slot.entry(voxel).or_insert(sums.len());
            if at == sums.len() {
                sums.push(Sum { position: DVec3::ZERO, normal: DVec3::ZERO, color: [0; 3], count: 0 });
            }
            let sum = &mut sums[at];
            sum.position += p.as_dvec3();
            sum.count += 1;
            if let Some(n) = self.normals.get(i) {
                sum.normal += n.as_dvec3();
            }
            if let Some(c) = self.colors.get(i) {
                (0..3).for_each(|k| sum.color[k] += u64::from(c[k]));
            }
        }
        let normal = |s: &Sum| s.normal.normalize_or_zero().as_vec3();
        let color = |s: &Sum| s.color.map(|c| ((c + s.count / 2) / s.count) as u8);
        PointCloud {
            positions: sums.iter().map(|s| (s.position / s.count as f64).as_vec3()).collect(),
            normals: if self.normals.is_empty() { Vec::new() } else { sums.iter().map(normal).collect() },
            colors: if self.colors.is_empty() { Vec::new() } else { sums.iter().map(color).collect() },
        }
    }

    /// Drops points whose mean distance to their `neighbours` nearest neighbours is above the mean of that figure over
    /// all points by more than `deviations` standard deviations.
    ///
    /// Typical: 16 neighbours, 2 deviations. A cloud of at most `neighbours` points is returned as it is.
    pub fn remove_outliers(&self, neighbours: usize, deviations: f32) -> PointCloud {
        if neighbours == 0 || self.len() <= neighbours {
            return self.clone();
        }
        let tree = KdTree::new(&self.positions);
        let mean_distance = |p: &Vec3| {
            // The nearest neighbour of a point is itself.
            let near = tree.k_nearest(*p, neighbours + 1);
            near.iter().map(|(_, d)| f64::from(*d)).sum::<f64>() / neighbours as f64
        };
        let spacing: Vec<f64> = self.positions.par_iter().with_min_len(256).map(mean_distance).collect();
        let mean = spacing.iter().sum::<f64>() / spacing.len() as f64;
        let variance = spacing.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / spacing.len() as f64;
        let limit = mean + f64::from(deviations) * variance.sqrt();
        self.retain(|i| spacing[i] <= limit)
    }

    /// Replaces the normals by those of planes fitted to each point and its `neighbours` nearest neighbours. Their side
    /// is arbitrary: call [`PointCloud::orient_normals`] next. Where there is no plane the normal is zero.
    pub fn estimate_normals(&mut self, neighbours: usize) {
        let tree = KdTree::new(&self.positions);
        let plane = |p: &Vec3| {
            let near = tree.k_nearest(*p, neighbours + 1);
            let points: Vec<DVec3> = near.iter().map(|(i, _)| self.positions[*i].as_dvec3()).collect();
            let mean = points.iter().sum::<DVec3>() / points.len().max(1) as f64;
            let mut covariance = [[0.0; 3]; 3];
            for d in points.iter().map(|q| *q - mean) {
                for r in 0..3 {
                    (r..3).for_each(|c| covariance[r][c] += d[r] * d[c]);
                }
            }
            let (values, vectors) = symmetric_eigen(&covariance);
            // Points on a line leave the plane open.
            if values[1] > 1e-9 * values[2] { DVec3::from_array(vectors[0]).as_vec3() } else { Vec3::ZERO }
        };
        self.normals = self.positions.par_iter().with_min_len(256).map(plane).collect();
    }

    /// Turns every normal to the side of `viewpoint(i)`, a place from which point i was seen.
    pub fn orient_normals(&mut self, viewpoint: impl Fn(usize) -> Vec3) {
        for (i, n) in self.normals.iter_mut().enumerate() {
            if n.dot(viewpoint(i) - self.positions[i]) < 0.0 {
                *n = -*n;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points all over a sphere of radius 1.
    fn sphere(n: usize) -> PointCloud {
        let at = |i: usize| {
            let (z, a) = (1.0 - (i as f32 + 0.5) * 2.0 / n as f32, i as f32 * 2.399_963);
            let r = (1.0 - z * z).sqrt();
            Vec3::new(r * a.cos(), r * a.sin(), z)
        };
        PointCloud { positions: (0..n).map(at).collect(), ..Default::default() }
    }

    #[test]
    fn estimated_normals_point_to_the_viewer() {
        let mut cloud = sphere(2000);
        cloud.estimate_normals(8);
        let towards = cloud.positions.iter().map(|p| *p * 3.0).collect::<Vec<_>>();
        cloud.orient_normals(|i| towards[i]);
        assert!(cloud.positions.iter().zip(&cloud.normals).all(|(p, n)| p.dot(*n) > 0.99));
    }

    #[test]
    fn outliers_go_and_the_surface_stays() {
        let mut cloud = sphere(2000);
        let strays: Vec<Vec3> = (0..20).map(|i| Vec3::splat(2.0 + i as f32)).collect();
        cloud.positions.extend(&strays);
        cloud.colors = (0..cloud.len()).map(|i| [u8::from(i >= 2000); 3]).collect();
        let clean = cloud.remove_outliers(8, 0.5);
        assert!(clean.len() >= 1990 && clean.colors.len() == clean.len());
        assert!(clean.colors.iter().all(|c| c[0] == 0));
    }

    #[test]
    fn voxels_hold_means() {
        let positions = vec![Vec3::splat(0.1), Vec3::splat(-0.2), Vec3::splat(0.3), Vec3::NAN];
        let normals = vec![Vec3::X, Vec3::Z, Vec3::Y, Vec3::X];
        let cloud = PointCloud { positions, normals, colors: vec![[10; 3], [0; 3], [21; 3], [0; 3]] };
        let thin = cloud.voxel_subsample(0.5);
        assert_eq!(thin.len(), 2);
        assert!((thin.positions[0] - Vec3::splat(0.2)).length() < 1e-6 && thin.positions[1] == Vec3::splat(-0.2));
        assert!((thin.normals[0] - Vec3::new(1.0, 1.0, 0.0).normalize()).length() < 1e-6);
        assert_eq!(thin.colors, [[16; 3], [0; 3]]);
    }
}
