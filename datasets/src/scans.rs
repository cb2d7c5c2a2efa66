//! Scans for training a head model: the outer surface, posed and neutral, in exact correspondence.
//!
//! Units are NPHM's: 1 unit = 25 cm, the head centre of the neutral pose at the origin, +y up, +z front. Turns of neck
//! and head are left out: a head model learns expressions, the tracker finds the rigid motion. The surface is skin and
//! the visible half of the eyeballs, without mouth bag, eye sockets, teeth, tongue and lashes, cut at the neck.

use glam::Vec3;

use crate::heads::{Expression, Head, HeadAssets, Part, regions};
use crate::truth::Landmarks;

/// NPHM units for each metre.
pub const UNITS_PER_METRE: f32 = 4.0;
/// The template height below which a scan is cut, asset units.
const NECK: f32 = 5.72;

/// Names of the anchors, left-right pairs first.
pub const ANCHORS: [&str; 13] = [
    "earLeft",
    "earRight",
    "eyeOuterLeft",
    "eyeOuterRight",
    "browMiddleLeft",
    "browMiddleRight",
    "mouthCornerLeft",
    "mouthCornerRight",
    "noseTip",
    "chin",
    "top",
    "back",
    "lipUpperInner",
];

/// Which part of the mesh a scan shows; the same for every identity and expression.
pub struct ScanTopology {
    /// Fine vertices that a scan keeps, ascending.
    pub vertices: Vec<u32>,
    /// Triangles over scan vertices.
    pub faces: Vec<[u32; 3]>,
    /// Scan vertices of [`ANCHORS`].
    pub anchors: [u32; 13],
}

/// One scan.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// Surface with the expression, NPHM units.
    pub posed: Vec<Vec3>,
    /// The same vertices in the neutral pose.
    pub neutral: Vec<Vec3>,
    /// ARKit weights of the expression.
    pub arkit: [f32; 52],
}

impl ScanTopology {
    /// Selects the outer surface on the template.
    pub fn new(assets: &HeadAssets) -> Self {
        let t = &assets.template;
        let mut kept: Vec<[u32; 3]> = Vec::new();
        for triangle in &assets.triangles[assets.triangles_of(Part::Body)] {
            let v = triangle.map(|v| v as usize);
            let middle = (t[v[0]] + t[v[1]] + t[v[2]]) / 3.0;
            let inside_mouth = v.iter().any(|v| assets.regions.mouth[*v] > 0.5);
            if middle.y > NECK && !inside_mouth && !regions::in_socket(triangle.map(|v| t[v as usize])) {
                kept.push(*triangle);
            }
        }
        for part in [Part::EyeLeft, Part::EyeRight] {
            let front = |tri: &&[u32; 3]| tri.iter().all(|v| t[*v as usize].z > 1.26);
            kept.extend(assets.triangles[assets.triangles_of(part)].iter().filter(front));
        }
        let mut vertices: Vec<u32> = kept.iter().flatten().copied().collect();
        vertices.sort_unstable();
        vertices.dedup();
        let number = |v: u32| vertices.binary_search(&v).map_or(0, |i| i as u32);
        let faces = kept.iter().map(|f| f.map(number)).collect();
        let landmarks = Landmarks::new(assets);
        // A landmark may sit just inside the mouth: take the kept vertex that is nearest on the template.
        let anchors = ANCHORS.map(|name| {
            let wanted = landmarks.vertex(name).map_or(Vec3::ZERO, |v| t[v as usize]);
            let distance = |v: &u32| t[*v as usize].distance_squared(wanted);
            let nearest = vertices.iter().copied().min_by(|a, b| distance(a).total_cmp(&distance(b)));
            nearest.map_or(0, number)
        });
        Self { vertices, faces, anchors }
    }

    /// Scans a person. Turns of neck and head in `expression` are ignored.
    pub fn scan(&self, head: &Head<'_>, expression: &Expression) -> Scan {
        let facing = Expression { arkit: expression.arkit, ..Expression::default() };
        let (posed, _) = head.geometry(&facing);
        let take = |from: &[Vec3]| self.vertices.iter().map(|v| from[*v as usize] * UNITS_PER_METRE).collect();
        Scan { posed: take(&posed), neutral: take(&head.neutral), arkit: expression.arkit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::Identity;
    use crate::heads::testing::assets;

    #[test]
    fn scans_correspond_and_show_the_outer_surface_only() {
        let a = assets();
        let topology = ScanTopology::new(a);
        let head = Head::new(a, &Identity::random(a, 4)).unwrap();
        let mut e = Expression { neck: Vec3::new(0.3, 0.0, 0.0), ..Expression::default() };
        let rest = topology.scan(&head, &e);
        // Turns are left out, so the neutral expression is the neutral shape.
        let worst = rest.posed.iter().zip(&rest.neutral).map(|(p, n)| p.distance(*n)).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{worst}");
        e.add("jawOpen", 1.0).unwrap();
        let open = topology.scan(&head, &e);
        assert_eq!((open.posed.len(), open.neutral), (topology.vertices.len(), rest.neutral.clone()));
        let chin = topology.anchors[ANCHORS.iter().position(|n| *n == "chin").unwrap()] as usize;
        let drop = rest.neutral[chin].y - open.posed[chin].y;
        assert!((0.04..0.25).contains(&drop), "the chin drops by {drop} units");
        // One connected skin and two eyeballs; every vertex is used.
        let mesh = geometry::Mesh { positions: rest.neutral.clone(), faces: topology.faces.clone() };
        let components = mesh.face_components();
        let mut sizes = std::collections::BTreeMap::new();
        components.iter().for_each(|c| *sizes.entry(*c).or_insert(0usize) += 1);
        assert!(sizes.values().filter(|n| **n > 100).count() == 3, "{sizes:?}");
        // Pairs of anchors lie on opposite sides, units are quarter metres.
        for pair in topology.anchors[..8].chunks(2) {
            let (l, r) = (rest.neutral[pair[0] as usize], rest.neutral[pair[1] as usize]);
            assert!(l.x > 0.05 && r.x < -0.05 && (l.y - r.y).abs() < 0.05, "{l} {r}");
        }
        let height = rest.neutral[topology.anchors[10] as usize].y - rest.neutral[chin].y;
        assert!((0.7..1.1).contains(&height), "from chin to top {height} units");
    }
}
