//! Distances between surfaces: how far a reconstruction is from the truth. Lengths come out in the unit they go in.

use geometry::Mesh;
use geometry::distance::MeshDistance;
use glam::Vec3;

/// How far points are from a surface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    /// Mean distance.
    pub mean: f64,
    /// Median distance.
    pub median: f64,
    /// The distance that 90 % of the points stay within.
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
    let at = |share: f64| distances[((distances.len() - 1) as f64 * share).round() as usize];
    let mean = distances.iter().sum::<f64>() / distances.len() as f64;
    Some(Deviation { mean, median: at(0.5), p90: at(0.9) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_above_a_plane_are_as_far_as_they_are_high() {
        let positions = [(-1.0, -1.0), (3.0, -1.0), (-1.0, 3.0)].map(|(x, y)| Vec3::new(x, y, 0.0)).to_vec();
        let plane = Mesh { positions, faces: vec![[0, 1, 2]] };
        let points: Vec<Vec3> = (1..=11).map(|z| Vec3::new(0.1, 0.1, z as f32)).collect();
        let deviation = scan_to_mesh(&points, &plane).unwrap();
        assert_eq!((deviation.median, deviation.p90), (6.0, 10.0));
        assert!((deviation.mean - 6.0).abs() < 1e-6);
        assert_eq!(scan_to_mesh(&[], &plane), None);
    }
}
