//! Distances between surfaces: how far a reconstruction is from the truth. Lengths come out in the unit they go in.

use geometry::Mesh;
use geometry::distance::MeshDistance;
use glam::Vec3;
use rayon::prelude::*;

use crate::quantile::quantile;

/// How far points are from a surface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    /// Mean distance.
    pub mean: f64,
    /// Median distance; of an even number of points the mean of the middle two.
    pub median: f64,
    /// The distance that 90 % of the points stay within, see [`quantile`].
    pub p90: f64,
}

/// Distances from `points` to the nearest point of `surface` (one direction: "scan to mesh").
///
/// None if there are no points or no faces.
pub fn scan_to_mesh(points: &[Vec3], surface: &Mesh) -> Option<Deviation> {
    if points.is_empty() || surface.faces.is_empty() {
        return None;
    }
    let mut distances: Vec<f64> = MeshDistance::new(surface).distances(points).into_iter().map(f64::from).collect();
    distances.sort_unstable_by(f64::total_cmp);
    let mean = distances.iter().sum::<f64>() / distances.len() as f64;
    Some(Deviation { mean, median: quantile(&distances, 0.5)?, p90: quantile(&distances, 0.9)? })
}

/// A surface to compare: a mesh to measure distances to, and points on it to measure from.
pub struct Surface {
    /// What distances are measured to.
    pub mesh: Mesh,
    /// Points on the surface.
    pub points: Vec<Vec3>,
    /// Unit normals of `points`.
    pub normals: Vec<Vec3>,
}

/// From a point to the nearest point of another surface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reach {
    /// How far it is.
    pub distance: f32,
    /// |cosine| between the point's normal and that of the surface there.
    pub cosine: f32,
    /// The nearest point.
    pub nearest: Vec3,
    /// The face it lies on.
    pub face: u32,
}

/// From each point of `from` to the mesh of `to`, in order. Empty if that has no faces.
pub fn reach(from: &Surface, to: &Surface) -> Vec<Reach> {
    let distance = MeshDistance::new(&to.mesh);
    let normals = to.mesh.vertex_normals();
    let one = |(point, normal): (&Vec3, &Vec3)| {
        let found = distance.closest(*point)?;
        let corners = to.mesh.faces[found.face as usize].map(|v| normals[v as usize]);
        let there =
            corners.into_iter().zip(found.bary.to_array()).map(|(n, b)| n * b).sum::<Vec3>().normalize_or_zero();
        Some(Reach {
            distance: found.distance,
            cosine: normal.dot(there).abs(),
            nearest: found.point,
            face: found.face,
        })
    };
    from.points.par_iter().zip(&from.normals).with_min_len(256).filter_map(one).collect()
}

/// How alike two surfaces are.
#[derive(Clone, Debug, PartialEq)]
pub struct Likeness {
    /// Mean of the mean distances, either way.
    pub chamfer_l1: f64,
    /// Mean of the mean squared distances, either way.
    pub chamfer_l2: f64,
    /// Mean |cosine| between normals, over both ways.
    pub normal_consistency: f64,
    /// For each threshold the harmonic mean of the shares of points within it, either way.
    pub f_scores: Vec<f64>,
}

/// The likeness of two surfaces from the reach of points of either to the other, as NPHM's evaluation defines it.
///
/// None if there are no points on one side.
pub fn likeness(completeness: &[Reach], accuracy: &[Reach], thresholds: &[f64]) -> Option<Likeness> {
    if completeness.is_empty() || accuracy.is_empty() {
        return None;
    }
    let both = |value: &dyn Fn(&Reach) -> f64| {
        [completeness, accuracy].map(|side| side.iter().map(value).sum::<f64>() / side.len() as f64)
    };
    let mean = |value: &dyn Fn(&Reach) -> f64| both(value).iter().sum::<f64>() / 2.0;
    let f_score = |threshold: &f64| {
        let [recall, precision] = both(&|r| f64::from(u8::from(f64::from(r.distance) <= *threshold)));
        if recall + precision > 0.0 { 2.0 * recall * precision / (recall + precision) } else { 0.0 }
    };
    Some(Likeness {
        chamfer_l1: mean(&|r| f64::from(r.distance)),
        chamfer_l2: mean(&|r| f64::from(r.distance).powi(2)),
        normal_consistency: mean(&|r| f64::from(r.cosine)),
        f_scores: thresholds.iter().map(f_score).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(z: f32, side: f32) -> Surface {
        let positions = [(0.0, 0.0), (side, 0.0), (side, side), (0.0, side)].map(|(x, y)| Vec3::new(x, y, z)).to_vec();
        let points = (0..100).map(|i| Vec3::new((i % 10) as f32 + 0.5, (i / 10) as f32 + 0.5, 0.0) * side / 10.0);
        let points: Vec<Vec3> = points.map(|p| p + Vec3::Z * z).collect();
        let normals = vec![Vec3::Z; points.len()];
        Surface { mesh: Mesh { positions, faces: vec![[0, 1, 2], [0, 2, 3]] }, points, normals }
    }

    #[test]
    fn a_surface_is_like_itself() {
        let a = square(0.0, 1.0);
        let there = reach(&a, &a);
        let same = likeness(&there, &there, &[0.1]).unwrap();
        assert!(same.chamfer_l1 < 1e-6 && same.chamfer_l2 < 1e-9 && same.normal_consistency > 1.0 - 1e-6);
        assert_eq!(same.f_scores, [1.0]);
        assert_eq!(likeness(&[], &there, &[0.1]), None);
    }

    #[test]
    fn a_part_is_accurate_but_not_complete() {
        // the upper half of the large square's points and the right half of them lie beside the small one
        let (large, small) = (square(0.0, 2.0), square(0.1, 1.0));
        let (completeness, accuracy) = (reach(&large, &small), reach(&small, &large));
        let alike = likeness(&completeness, &accuracy, &[0.05, 0.1001]).unwrap();
        assert!(accuracy.iter().all(|r| (r.distance - 0.1).abs() < 1e-6 && r.cosine > 0.999));
        let recall = completeness.iter().filter(|r| r.distance <= 0.1001).count() as f64 / 100.0;
        assert_eq!(recall, 0.25);
        assert_eq!(alike.f_scores, [0.0, 2.0 * 0.25 / 1.25]);
        let mean = completeness.iter().map(|r| f64::from(r.distance)).sum::<f64>() / 100.0;
        assert!((alike.chamfer_l1 - (mean + 0.1) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn points_above_a_plane_are_as_far_as_they_are_high() {
        let positions = [(-1.0, -1.0), (3.0, -1.0), (-1.0, 3.0)].map(|(x, y)| Vec3::new(x, y, 0.0)).to_vec();
        let plane = Mesh { positions, faces: vec![[0, 1, 2]] };
        let points: Vec<Vec3> = (1..=11).map(|z| Vec3::new(0.1, 0.1, z as f32)).collect();
        let deviation = scan_to_mesh(&points, &plane).unwrap();
        assert_eq!((deviation.median, deviation.p90), (6.0, 10.0));
        assert!((deviation.mean - 6.0).abs() < 1e-6);
        // of an even number the median lies between two of them
        let even = scan_to_mesh(&points[..10], &plane).unwrap();
        assert!((even.median - 5.5).abs() < 1e-6 && (even.p90 - 9.1).abs() < 1e-6, "{even:?}");
        assert_eq!(scan_to_mesh(&[], &plane), None);
    }
}
