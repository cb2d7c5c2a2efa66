//! A tracked surface whose places are asked for by what they are of the head.
//!
//! No stage, but what `track_skin` and `evaluate_skin` follow skin with. Places between vertices are beside the vertex
//! whose canonical place is nearest, as far as in the canonical head, turned as the head is: vertices lie some
//! millimetres apart, over which skin hardly bends. A place that has no vertex near, such as the inside of a mouth that
//! is shut now, is nowhere. Knows no pictures.

use crate::common::tracked;
use anyhow::{Result, ensure};
use geometry::Mesh;
use geometry::nearest::KdTree;
use glam::{DVec3, Vec3};
use models::nphm::pose::Pose;
use protocol::Row;

/// A place is on the surface if a vertex is no further from it than this, model units (5 mm).
const REACH: f32 = 0.02;

/// The surface of a moment.
pub struct Surface {
    /// World, metres.
    pub mesh: Mesh,
    /// Of its vertices, outwards.
    pub normals: Vec<Vec3>,
    /// Canonical places of its vertices, model units.
    pub canonical: Vec<Vec3>,
    tree: KdTree,
    pose: Pose,
    scale: f64,
}

impl Surface {
    /// The surface of a row, of a head of size `scale` beside the model's.
    ///
    /// # Errors
    /// If its mesh cannot be read, or is empty.
    pub fn read(row: &Row<'_>, scale: f64) -> Result<Surface> {
        let path = row.path("mesh")?;
        let (mesh, canonical) = tracked::read_mesh(&path)?;
        ensure!(
            !canonical.is_empty(),
            "the tracked mesh {} is empty\nhint: `effigy trace` says which stage made it",
            path.display()
        );
        let [a, b, c, x, y, z] = row.array::<6>("pose")?;
        let canonical = canonical.iter().map(|c| Vec3::new(c[0], c[1], c[2])).collect();
        let pose = Pose { rotation: [a, b, c], translation: [x, y, z] };
        Ok(Surface::new(mesh, canonical, pose, scale))
    }

    /// A mesh, world metres, and the canonical places of its vertices, model units.
    pub fn new(mesh: Mesh, canonical: Vec<Vec3>, pose: Pose, scale: f64) -> Surface {
        Surface { normals: mesh.vertex_normals(), tree: KdTree::new(&canonical), mesh, canonical, pose, scale }
    }

    /// A place of the world, metres, in the frame of the head as it is held, model units.
    pub fn in_head(&self, world: Vec3) -> DVec3 {
        Vec3::from(self.pose.to_model(world.to_array(), self.scale)).as_dvec3()
    }

    /// Where a canonical place is, world metres; none if the surface does not have it.
    pub fn at(&self, place: Vec3) -> Option<Vec3> {
        self.at_with_normal(place).map(|(at, _)| at)
    }

    /// The same with the way out of the surface there.
    pub fn at_with_normal(&self, place: Vec3) -> Option<(Vec3, Vec3)> {
        let (v, distance) = self.tree.nearest(place);
        let world = |p: Vec3| Vec3::from(self.pose.to_world(p.to_array(), self.scale));
        let at = || self.mesh.positions[v] + world(place) - world(self.canonical[v]);
        (distance <= REACH).then(|| (at(), self.normals[v]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_beside_its_vertex_and_nowhere_if_there_is_none() {
        // a triangle that lies turned and moved in the world, one of its corners bent away besides
        let pose = Pose { rotation: [0.0, 0.0, std::f64::consts::FRAC_PI_2], translation: [1.0, 0.0, 0.0] };
        let canonical = vec![Vec3::ZERO, Vec3::new(0.01, 0.0, 0.0), Vec3::new(0.0, 0.01, 0.0)];
        let world = |p: Vec3| Vec3::from(pose.to_world(p.to_array(), 2.0));
        let mut positions: Vec<Vec3> = canonical.iter().map(|p| world(*p)).collect();
        positions[1] += Vec3::new(0.0, 0.0, 0.5);
        let surface = Surface::new(Mesh { positions, faces: vec![[0, 1, 2]] }, canonical, pose, 2.0);
        let near = |a: Option<Vec3>, b: Vec3| a.unwrap().distance(b) < 1e-6;
        // a unit is 25 cm of the model, and 50 cm of this head, which is twice as large; x points along y
        assert!(near(surface.at(Vec3::ZERO), Vec3::new(1.0, 0.0, 0.0)));
        assert!(near(surface.at(Vec3::new(0.0, 0.014, 0.0)), Vec3::new(1.0 - 0.007, 0.0, 0.0)));
        assert!(near(surface.at(Vec3::new(0.012, 0.0, 0.0)), Vec3::new(1.0, 0.006, 0.5)));
        assert_eq!(surface.at(Vec3::new(0.0, 0.04, 0.0)), None);
        let head = surface.in_head(world(Vec3::new(0.1, 0.2, 0.3))).as_vec3();
        assert!(head.distance(Vec3::new(0.1, 0.2, 0.3)) < 1e-6);
    }
}
