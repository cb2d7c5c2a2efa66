//! Quad meshes: cropping, one Catmull-Clark step as a fixed sparse matrix, triangles.
//!
//! The subdivision depends on the quads alone, so every identity and expression keeps the same vertex numbering. This
//! file knows nothing about heads.

use std::collections::HashMap;

use glam::{Vec2, Vec3};

/// A sparse matrix of weights: fine vertices from cage vertices.
#[derive(Clone, Debug, Default)]
pub struct Subdivision {
    /// Row `r` uses the entries `rows[r]..rows[r + 1]`.
    pub rows: Vec<u32>,
    /// Cage vertex of each entry.
    pub columns: Vec<u32>,
    /// Weight of each entry; every row sums to one.
    pub weights: Vec<f32>,
    /// The fine quads: four for each cage quad, in cage order.
    pub quads: Vec<[u32; 4]>,
}

impl Subdivision {
    /// Number of fine vertices.
    pub fn len(&self) -> usize {
        self.rows.len() - 1
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position of one fine vertex from cage positions.
    pub fn vertex(&self, fine: usize, cage: &[Vec3]) -> Vec3 {
        let entries = self.rows[fine] as usize..self.rows[fine + 1] as usize;
        entries.fold(Vec3::ZERO, |sum, e| sum + cage[self.columns[e] as usize] * self.weights[e])
    }

    /// Fine positions from cage positions.
    pub fn apply(&self, cage: &[Vec3]) -> Vec<Vec3> {
        (0..self.len()).map(|fine| self.vertex(fine, cage)).collect()
    }
}

/// One Catmull-Clark step of a quad mesh with `vertices` vertices: rows are cage vertices, then edges, then faces.
///
/// Rims follow the usual cubic B-spline rule; vertices with several rims through them stay where they are.
pub fn catmull_clark(vertices: usize, quads: &[[u32; 4]]) -> Subdivision {
    let mut edge_of: HashMap<[u32; 2], u32> = HashMap::new();
    let mut edges: Vec<[u32; 2]> = Vec::new();
    let mut edge_faces: Vec<Vec<u32>> = Vec::new();
    let mut quad_edges = Vec::with_capacity(quads.len());
    for (f, quad) in quads.iter().enumerate() {
        let ids = std::array::from_fn(|k| {
            let (a, b) = (quad[k], quad[(k + 1) % 4]);
            let key = [a.min(b), a.max(b)];
            let id = *edge_of.entry(key).or_insert_with(|| {
                edges.push(key);
                edge_faces.push(Vec::new());
                edges.len() as u32 - 1
            });
            edge_faces[id as usize].push(f as u32);
            id
        });
        quad_edges.push(ids);
    }
    let mut vertex_faces = vec![Vec::new(); vertices];
    let mut vertex_edges = vec![Vec::new(); vertices];
    for (f, quad) in quads.iter().enumerate() {
        quad.iter().for_each(|v| vertex_faces[*v as usize].push(f));
    }
    for (e, ends) in edges.iter().enumerate() {
        ends.iter().for_each(|v| vertex_edges[*v as usize].push(e));
    }

    let mut result = Subdivision { rows: vec![0], ..Default::default() };
    let mut push_row = |mut entries: Vec<(u32, f32)>| {
        entries.sort_by_key(|e| e.0);
        let mut last = None;
        for (column, weight) in entries {
            if last == Some(column) {
                *result.weights.last_mut().expect("an entry before an equal one") += weight;
            } else {
                result.columns.push(column);
                result.weights.push(weight);
                last = Some(column);
            }
        }
        result.rows.push(result.columns.len() as u32);
    };
    let add_face = |entries: &mut Vec<(u32, f32)>, f: usize, w: f32| {
        entries.extend(quads[f].iter().map(|v| (*v, w / 4.0)));
    };
    for v in 0..vertices {
        let rims: Vec<usize> = vertex_edges[v].iter().copied().filter(|e| edge_faces[*e].len() != 2).collect();
        let n = vertex_faces[v].len() as f32;
        let mut entries = Vec::new();
        if rims.is_empty() && n > 0.0 {
            entries.push((v as u32, (n - 3.0) / n));
            vertex_faces[v].iter().for_each(|f| add_face(&mut entries, *f, 1.0 / (n * n)));
            for e in &vertex_edges[v] {
                entries.extend(edges[*e].iter().map(|end| (*end, 1.0 / (n * n))));
            }
        } else if rims.len() == 2 {
            entries.push((v as u32, 0.5));
            for e in rims {
                entries.extend(edges[e].iter().map(|end| (*end, 0.125)));
            }
        } else {
            entries.push((v as u32, 1.0));
        }
        push_row(entries);
    }
    for (e, ends) in edges.iter().enumerate() {
        let inner = edge_faces[e].len() == 2;
        let mut entries: Vec<(u32, f32)> = ends.iter().map(|v| (*v, if inner { 0.25 } else { 0.5 })).collect();
        if inner {
            edge_faces[e].iter().for_each(|f| add_face(&mut entries, *f as usize, 0.25));
        }
        push_row(entries);
    }
    for f in 0..quads.len() {
        let mut entries = Vec::new();
        add_face(&mut entries, f, 1.0);
        push_row(entries);
    }
    let edge_id = |e: u32| vertices as u32 + e;
    for (f, quad) in quads.iter().enumerate() {
        let middle = (vertices + edges.len() + f) as u32;
        let ids: [u32; 4] = quad_edges[f];
        for k in 0..4 {
            result.quads.push([quad[k], edge_id(ids[k]), middle, edge_id(ids[(k + 3) % 4])]);
        }
    }
    result
}

/// A texture coordinate for each fine vertex: the mean of the corners it lies between, taken within one face, so that
/// seams do not blend. Fine vertices on a seam take one of its sides.
pub fn fine_uvs(subdivision: &Subdivision, quad_uvs: &[[u32; 4]], uvs: &[Vec2]) -> Vec<Vec2> {
    let mut result = vec![Vec2::ZERO; subdivision.len()];
    for (f, corner_uvs) in quad_uvs.iter().enumerate() {
        let uv = corner_uvs.map(|t| uvs[t as usize]);
        for k in 0..4 {
            let fine = subdivision.quads[4 * f + k];
            result[fine[0] as usize] = uv[k];
            result[fine[1] as usize] = (uv[k] + uv[(k + 1) % 4]) / 2.0;
            result[fine[2] as usize] = (uv[0] + uv[1] + uv[2] + uv[3]) / 4.0;
        }
    }
    result
}

/// Two triangles for each quad, in quad order.
pub fn triangles(quads: &[[u32; 4]]) -> Vec<[u32; 3]> {
    quads.iter().flat_map(|q| [[q[0], q[1], q[2]], [q[0], q[2], q[3]]]).collect()
}

/// For each of `vertices` vertices, the vertices it shares a quad edge with, sorted, as (row starts, columns).
pub fn neighbours(vertices: usize, quads: &[[u32; 4]]) -> (Vec<u32>, Vec<u32>) {
    let mut pairs: Vec<[u32; 2]> =
        quads.iter().flat_map(|q| (0..4).flat_map(move |k| [[q[k], q[(k + 1) % 4]], [q[(k + 1) % 4], q[k]]])).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let mut starts = vec![0u32; vertices + 1];
    for p in &pairs {
        starts[p[0] as usize + 1] += 1;
    }
    for v in 0..vertices {
        starts[v + 1] += starts[v];
    }
    (starts, pairs.into_iter().map(|p| p[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cube_shrinks_towards_its_centre_and_keeps_its_symmetry() {
        let cage: Vec<Vec3> =
            (0..8).map(|i| Vec3::new((i & 1) as f32, (i >> 1 & 1) as f32, (i >> 2 & 1) as f32) * 2.0 - 1.0).collect();
        let quads = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]];
        let subdivision = catmull_clark(8, &quads);
        assert_eq!(subdivision.len(), 8 + 12 + 6);
        assert_eq!(subdivision.quads.len(), 24);
        let fine = subdivision.apply(&cage);
        // The textbook values: corners at 5/9, edge points at 3/4, face points at 1.
        assert!((fine[7] - Vec3::splat(5.0 / 9.0)).length() < 1e-6, "{}", fine[7]);
        assert!(fine[8..20].iter().all(|p| (p.length() - 0.75 * 2f32.sqrt()).abs() < 1e-6));
        assert!(fine[20..].iter().all(|p| (p.length() - 1.0).abs() < 1e-6));
    }
}
