//! Triangle meshes: normals, areas, connected components, boundaries, sub-meshes.
//!
//! A mesh here is positions and triangles, nothing else. Attributes (normals, colours, canonical coordinates) are
//! separate slices, one entry per vertex; functions that renumber vertices return the map so that the attributes can
//! follow. This file knows nothing about files, cameras or units.

use glam::{DVec3, Vec3};

/// An indexed triangle mesh. Faces are counter-clockwise when seen from outside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mesh {
    /// Vertex positions.
    pub positions: Vec<Vec3>,
    /// Triangles as indices into `positions`.
    pub faces: Vec<[u32; 3]>,
}

impl Mesh {
    /// The three corners of a face.
    pub fn corners(&self, face: usize) -> [Vec3; 3] {
        self.faces[face].map(|v| self.positions[v as usize])
    }

    /// Unit vertex normals, each the mean of the normals of the faces around it weighted by their angle at the vertex
    /// (so they do not depend on how a flat part is triangulated). Vertices without a face of positive area get zero.
    pub fn vertex_normals(&self) -> Vec<Vec3> {
        let mut sums = vec![DVec3::ZERO; self.positions.len()];
        for face in &self.faces {
            let p = face.map(|v| self.positions[v as usize].as_dvec3());
            let cross = (p[1] - p[0]).cross(p[2] - p[0]);
            let length = cross.length();
            if length.is_nan() || length <= 0.0 {
                continue;
            }
            let normal = cross / length;
            for k in 0..3 {
                let (a, b) = (p[(k + 1) % 3] - p[k], p[(k + 2) % 3] - p[k]);
                // |a x b| is the same for all corners; atan2 is accurate for very small and very large angles.
                sums[face[k] as usize] += normal * length.atan2(a.dot(b));
            }
        }
        sums.into_iter().map(|n| n.normalize_or_zero().as_vec3()).collect()
    }

    /// The area of every face.
    pub fn face_areas(&self) -> Vec<f64> {
        let area = |f: usize| {
            let p = self.corners(f).map(|p| p.as_dvec3());
            0.5 * (p[1] - p[0]).cross(p[2] - p[0]).length()
        };
        (0..self.faces.len()).map(area).collect()
    }

    /// The sum of all face areas.
    pub fn area(&self) -> f64 {
        self.face_areas().iter().sum()
    }

    /// The enclosed volume of a closed mesh; positive if faces are counter-clockwise from outside.
    pub fn volume(&self) -> f64 {
        let signed = |f: usize| {
            let p = self.corners(f).map(|p| p.as_dvec3());
            p[0].dot(p[1].cross(p[2])) / 6.0
        };
        (0..self.faces.len()).map(signed).sum()
    }

    /// The corners of the axis-aligned bounding box, or nothing for a mesh without vertices.
    pub fn bounds(&self) -> Option<(Vec3, Vec3)> {
        let first = *self.positions.first()?;
        Some(self.positions.iter().fold((first, first), |(lo, hi), p| (lo.min(*p), hi.max(*p))))
    }

    /// The faces for which `keep` is true, and the vertices they use, in the old order.
    ///
    /// The second value holds the old index of each new vertex.
    pub fn select_faces(&self, keep: impl Fn(usize) -> bool) -> (Mesh, Vec<u32>) {
        let kept: Vec<[u32; 3]> = (0..self.faces.len()).filter(|f| keep(*f)).map(|f| self.faces[f]).collect();
        let mut new_index = vec![u32::MAX; self.positions.len()];
        for v in kept.iter().flatten() {
            new_index[*v as usize] = 0;
        }
        let old: Vec<u32> = (0..self.positions.len() as u32).filter(|v| new_index[*v as usize] == 0).collect();
        for (new, v) in old.iter().enumerate() {
            new_index[*v as usize] = new as u32;
        }
        let positions = old.iter().map(|v| self.positions[*v as usize]).collect();
        let faces = kept.iter().map(|f| f.map(|v| new_index[v as usize])).collect();
        (Mesh { positions, faces }, old)
    }

    /// The number of each face's component: faces that share a vertex are in the same one. Numbers count from 0 in
    /// order of first appearance.
    pub fn face_components(&self) -> Vec<u32> {
        let mut parent: Vec<u32> = (0..self.positions.len() as u32).collect();
        for f in &self.faces {
            let (a, b, c) = (root(&mut parent, f[0]), root(&mut parent, f[1]), root(&mut parent, f[2]));
            let least = a.min(b).min(c);
            for r in [a, b, c] {
                parent[r as usize] = least;
            }
        }
        let mut number = vec![u32::MAX; self.positions.len()];
        let mut count = 0;
        let mut result = Vec::with_capacity(self.faces.len());
        for f in &self.faces {
            let r = root(&mut parent, f[0]) as usize;
            if number[r] == u32::MAX {
                number[r] = count;
                count += 1;
            }
            result.push(number[r]);
        }
        result
    }

    /// The connected component with the most faces (the first one of several equal ones), and the old index of each of
    /// its vertices. Marching cubes on a neural field leaves specks of surface in the air; this drops them.
    pub fn largest_component(&self) -> (Mesh, Vec<u32>) {
        let component = self.face_components();
        let mut sizes = vec![0usize; component.iter().max().map_or(0, |m| *m as usize + 1)];
        for c in &component {
            sizes[*c as usize] += 1;
        }
        let Some(most) = sizes.iter().max() else { return (Mesh::default(), Vec::new()) };
        let best = sizes.iter().position(|s| s == most).unwrap_or(0) as u32;
        self.select_faces(|f| component[f] == best)
    }

    /// All undirected edges (smaller index first), sorted, each with the number of faces at it.
    pub fn edges(&self) -> Vec<([u32; 2], u32)> {
        let mut all: Vec<[u32; 2]> =
            self.faces.iter().flat_map(|f| [[f[0], f[1]], [f[1], f[2]], [f[2], f[0]]]).collect();
        all.iter_mut().for_each(|e| e.sort_unstable());
        all.sort_unstable();
        let mut edges: Vec<([u32; 2], u32)> = Vec::with_capacity(all.len() / 2 + 1);
        for e in all {
            match edges.last_mut() {
                Some((last, count)) if *last == e => *count += 1,
                _ => edges.push((e, 1)),
            }
        }
        edges
    }

    /// Whether every edge has exactly two faces.
    pub fn is_watertight(&self) -> bool {
        self.edges().iter().all(|(_, count)| *count == 2)
    }

    /// Vertices - edges + faces: 2 for a sphere, 0 for a torus. Vertices without faces count, too.
    pub fn euler_number(&self) -> i64 {
        self.positions.len() as i64 - self.edges().len() as i64 + self.faces.len() as i64
    }

    /// Vertices on the rim: the ends of edges with only one face, sorted.
    pub fn boundary_vertices(&self) -> Vec<u32> {
        let mut rim: Vec<u32> =
            self.edges().into_iter().filter(|(_, count)| *count == 1).flat_map(|(e, _)| e).collect();
        rim.sort_unstable();
        rim.dedup();
        rim
    }
}

/// The representative of `v`'s set, shortening the path on the way.
fn root(parent: &mut [u32], mut v: u32) -> u32 {
    while parent[v as usize] != v {
        parent[v as usize] = parent[parent[v as usize] as usize];
        v = parent[v as usize];
    }
    v
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tetrahedron with the right angle at `offset`.
    fn tetrahedron(offset: Vec3) -> Mesh {
        let positions = [Vec3::ZERO, Vec3::X, Vec3::Y, Vec3::Z].map(|p| p + offset).to_vec();
        Mesh { positions, faces: vec![[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]] }
    }

    #[test]
    fn tetrahedron_measures() {
        let mesh = tetrahedron(Vec3::new(3.0, 1.0, 2.0));
        assert!(mesh.is_watertight());
        assert_eq!(mesh.euler_number(), 2);
        assert!((mesh.volume() - 1.0 / 6.0).abs() < 1e-6);
        assert!((mesh.area() - (1.5 + 0.75f64.sqrt())).abs() < 1e-6);
        let corner = mesh.vertex_normals()[0];
        assert!((corner + Vec3::splat(1.0 / 3f32.sqrt())).length() < 1e-6, "{corner}");
    }

    #[test]
    fn normals_do_not_depend_on_the_triangulation() {
        // The corner of a cube, one side being split into two triangles at that corner.
        let positions = vec![Vec3::ZERO, Vec3::X, Vec3::Y, Vec3::Z, Vec3::new(1.0, 1.0, 0.0)];
        let mesh = Mesh { positions, faces: vec![[0, 2, 4], [0, 4, 1], [0, 1, 3], [0, 3, 2]] };
        assert!((mesh.vertex_normals()[0] + Vec3::splat(1.0 / 3f32.sqrt())).length() < 1e-6);
    }

    #[test]
    fn largest_component_keeps_attributes_traceable() {
        let mut mesh = tetrahedron(Vec3::ZERO);
        mesh.faces.truncate(2);
        let big = tetrahedron(Vec3::splat(5.0));
        mesh.positions.extend(&big.positions);
        mesh.faces.extend(big.faces.iter().map(|f| f.map(|v| v + 4)));
        let (largest, old) = mesh.largest_component();
        assert_eq!(largest, big);
        assert_eq!(old, [4, 5, 6, 7]);
        assert_eq!(mesh.boundary_vertices(), [0, 1, 2, 3]);
    }
}
