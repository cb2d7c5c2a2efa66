//! Cutting the neck off: planes, fitting them, and the throat cut of a posed head.
//!
//! Source: DiffusionAvatars, specification section 2.1. Where the plane lies on a particular head model (which three
//! vertices span it) is the caller's knowledge.

use glam::{DVec3, Vec3};

use crate::eigen::symmetric_eigen;
use crate::mesh::Mesh;

/// Rim vertices whose canonical z (NPHM units) is not above this belong to the back side of the box in which the
/// surface was extracted, not to the neck.
const BOX_BACK: f32 = -0.9;

/// An oriented plane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plane {
    /// A point on it.
    pub origin: DVec3,
    /// Unit normal; it points to the side that is kept.
    pub normal: DVec3,
}

impl Plane {
    /// The plane through three points, its normal being `(b - a) x (c - a)`, moved by `margin` along the normal
    /// (negative: more is kept). Nothing if the points lie on a line.
    pub fn through(a: DVec3, b: DVec3, c: DVec3, margin: f64) -> Option<Plane> {
        let normal = (b - a).cross(c - a).try_normalize()?;
        Some(Plane { origin: a + margin * normal, normal })
    }

    /// The plane with the least squared distances to the points, its normal pointing to +y. Nothing if they do not span
    /// one.
    pub fn fit(points: &[DVec3]) -> Option<Plane> {
        let origin = points.iter().sum::<DVec3>() / points.len().max(1) as f64;
        let mut covariance = [[0.0; 3]; 3];
        for d in points.iter().map(|p| *p - origin) {
            for r in 0..3 {
                (r..3).for_each(|c| covariance[r][c] += d[r] * d[c]);
            }
        }
        let (values, vectors) = symmetric_eigen(&covariance);
        let normal = DVec3::from_array(vectors[0]);
        let spans = points.len() >= 3 && values[1] > 1e-12 * values[2];
        spans.then_some(Plane { origin, normal: if normal.y < 0.0 { -normal } else { normal } })
    }

    /// The distance to the plane, negative below it.
    pub fn distance(&self, p: DVec3) -> f64 {
        (p - self.origin).dot(self.normal)
    }

    /// The nearest point on the plane.
    pub fn project(&self, p: DVec3) -> DVec3 {
        p - self.distance(p) * self.normal
    }
}

/// Cuts the throat off a posed head so that its lower rim is flat.
///
/// `canonical` holds the canonical position of every vertex (NPHM units) and `plane` the cut in canonical space. Faces
/// that reach below it tell where the neck ends in the pose; a plane is fitted to that end, the mesh is cut again by
/// it, and its new rim is moved onto it. Also returned is the old index of each vertex. Nothing is returned if the mesh
/// has no rim at the plane to which one could be fitted.
///
/// # Panics
/// If `canonical` has fewer entries than there are vertices.
pub fn throat_cut(posed: &Mesh, canonical: &[Vec3], plane: &Plane) -> Option<(Mesh, Vec<u32>)> {
    let above = |v: u32| plane.distance(canonical[v as usize].as_dvec3()) >= 0.0;
    let (rough, old) = posed.select_faces(|f| posed.faces[f].iter().all(|v| above(*v)));
    let rim: Vec<DVec3> = neck_rim(&rough, &old, canonical).map(|v| rough.positions[v].as_dvec3()).collect();
    let mut posed_plane = Plane::fit(&rim)?;
    // which side of it the head is on, its points tell: the world need not be upright, nor the head
    let middle = rough.positions.iter().map(|p| p.as_dvec3()).sum::<DVec3>() / rough.positions.len() as f64;
    if posed_plane.distance(middle) < 0.0 {
        posed_plane.normal = -posed_plane.normal;
    }

    let above = |v: u32| posed_plane.distance(posed.positions[v as usize].as_dvec3()) >= 0.0;
    let (mut cut, old) = posed.select_faces(|f| posed.faces[f].iter().all(|v| above(*v)));
    let rim: Vec<usize> = neck_rim(&cut, &old, canonical).collect();
    for v in rim {
        cut.positions[v] = posed_plane.project(cut.positions[v].as_dvec3()).as_vec3();
    }
    Some((cut, old))
}

fn neck_rim(mesh: &Mesh, old: &[u32], canonical: &[Vec3]) -> impl Iterator<Item = usize> {
    mesh.boundary_vertices().into_iter().map(|v| v as usize).filter(|v| canonical[old[*v] as usize].z > BOX_BACK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::band;
    use crate::pose::transform_points;
    use glam::{DMat4, DQuat};

    #[test]
    fn the_rim_of_a_turned_sphere_is_flat_and_where_the_canonical_plane_went() {
        // a head that is nearly upright, one that lies, and one that hangs upside down
        for turn in [0.3, 1.9, 3.0] {
            rim_of_a_sphere_turned_by(turn);
        }
    }

    fn rim_of_a_sphere_turned_by(turn: f64) {
        let field = |points: &[Vec3]| points.iter().map(|p| p.length() - 0.5).collect::<Vec<f32>>();
        let mesh = band::extract(&field, Vec3::splat(-0.6), Vec3::splat(0.6), 41, 0);
        let pose = DMat4::from_rotation_translation(DQuat::from_rotation_z(turn), DVec3::new(1.0, 2.0, 3.0));
        let posed = Mesh { positions: transform_points(&pose, &mesh.positions), faces: mesh.faces.clone() };
        let slope = DVec3::new(0.0, 1.0, 0.4).normalize();
        let plane = Plane { origin: DVec3::new(0.0, -0.2, 0.0), normal: slope };
        let (cut, old) = throat_cut(&posed, &mesh.positions, &plane).unwrap();
        assert!(cut.faces.len() < posed.faces.len() && cut.faces.len() > posed.faces.len() / 2);
        assert_eq!(old.len(), cut.positions.len());

        let normal = pose.transform_vector3(slope);
        let rim = cut.boundary_vertices();
        let heights: Vec<f64> = rim
            .iter()
            .map(|v| (cut.positions[*v as usize].as_dvec3() - pose.transform_point3(plane.origin)).dot(normal))
            .collect();
        let fitted =
            Plane::fit(&rim.iter().map(|v| cut.positions[*v as usize].as_dvec3()).collect::<Vec<_>>()).unwrap();
        assert!(fitted.normal.dot(normal).abs() > 0.999);
        // The rough rim lies within a cell (0.03) above the plane.
        assert!(heights.iter().all(|h| (-0.01..0.04).contains(h)), "{heights:?}");
        assert!(rim.iter().all(|v| fitted.distance(cut.positions[*v as usize].as_dvec3()).abs() < 1e-6));
    }

    #[test]
    fn no_rim_no_cut() {
        let field = |points: &[Vec3]| points.iter().map(|p| p.length() - 0.5).collect::<Vec<f32>>();
        let mesh = band::extract(&field, Vec3::splat(-0.6), Vec3::splat(0.6), 11, 0);
        let below = Plane { origin: DVec3::new(0.0, -2.0, 0.0), normal: DVec3::Y };
        assert!(throat_cut(&mesh, &mesh.positions, &below).is_none());
        assert!(Plane::through(DVec3::ZERO, DVec3::X, DVec3::X * 2.0, 0.0).is_none());
        assert_eq!(Plane::through(DVec3::ZERO, DVec3::Z, DVec3::X, -0.05).unwrap().origin, DVec3::new(0.0, -0.05, 0.0));
    }
}
