//! Distances to triangle meshes, and points drawn evenly from their surface.
//!
//! The distance is exact (to the nearest point of the nearest triangle, not to a vertex), found with a hierarchy of
//! boxes. Whether a point is inside is not known here: meshes may be open.

use glam::{DVec3, Vec3};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;

use crate::mesh::Mesh;

/// Triangles per leaf.
const LEAF: usize = 4;

/// The nearest point of a mesh.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Closest {
    /// Where it is.
    pub point: Vec3,
    /// On which face (the first one, if several are equally near).
    pub face: u32,
    /// Its barycentric coordinates on that face.
    pub bary: Vec3,
    /// How far it is from the query.
    pub distance: f32,
}

/// A mesh prepared for distance queries.
#[derive(Debug, Clone)]
pub struct MeshDistance {
    /// Corners of the triangles, in tree order.
    triangles: Vec<[Vec3; 3]>,
    /// The face that each one is.
    faces: Vec<u32>,
    nodes: Vec<Node>,
}

/// A box around triangles `start..end`; inner nodes have their children at `left` and `left + 1`.
#[derive(Debug, Clone, Copy)]
struct Node {
    low: Vec3,
    high: Vec3,
    start: u32,
    end: u32,
    /// 0 for a leaf.
    left: u32,
}

impl Node {
    fn distance_squared(&self, p: Vec3) -> f32 {
        (self.low - p).max(p - self.high).max(Vec3::ZERO).length_squared()
    }
}

impl MeshDistance {
    /// Prepares a mesh (it is copied).
    pub fn new(mesh: &Mesh) -> Self {
        let corners: Vec<[Vec3; 3]> = (0..mesh.faces.len()).map(|f| mesh.corners(f)).collect();
        let mut order: Vec<u32> = (0..corners.len() as u32).collect();
        let mut nodes = Vec::new();
        if !order.is_empty() {
            nodes.push(Node { low: Vec3::ZERO, high: Vec3::ZERO, start: 0, end: order.len() as u32, left: 0 });
            split(&corners, &mut order, &mut nodes, 0);
        }
        Self { triangles: order.iter().map(|f| corners[*f as usize]).collect(), faces: order, nodes }
    }

    /// The distance from `p` to the mesh; infinite if it has no faces.
    pub fn distance(&self, p: Vec3) -> f32 {
        self.closest(p).map_or(f32::INFINITY, |c| c.distance)
    }

    /// [`MeshDistance::distance`] for many points, in parallel.
    pub fn distances(&self, points: &[Vec3]) -> Vec<f32> {
        points.par_iter().with_min_len(256).map(|p| self.distance(*p)).collect()
    }

    /// The point of the mesh nearest to `p`, or nothing if the mesh has no faces.
    pub fn closest(&self, p: Vec3) -> Option<Closest> {
        let root = self.nodes.first()?;
        let mut best: Option<(f32, u32, Vec3, Vec3)> = None;
        let mut stack = vec![(root.distance_squared(p), 0u32)];
        while let Some((squared, n)) = stack.pop() {
            // A hair of slack: boxes and triangles are rounded differently.
            if best.is_some_and(|b| squared * 0.999_99 > b.0) {
                continue;
            }
            let node = &self.nodes[n as usize];
            if node.left > 0 {
                let children = [node.left, node.left + 1].map(|c| (self.nodes[c as usize].distance_squared(p), c));
                let nearer = usize::from(children[1].0 < children[0].0);
                stack.extend([children[1 - nearer], children[nearer]]);
                continue;
            }
            for t in node.start as usize..node.end as usize {
                let (point, bary) = closest_on_triangle(p, self.triangles[t]);
                let squared = point.distance_squared(p);
                let face = self.faces[t];
                if best.is_none_or(|b| squared < b.0 || (squared == b.0 && face < b.1)) {
                    best = Some((squared, face, point, bary));
                }
            }
        }
        best.map(|(squared, face, point, bary)| Closest { point, face, bary, distance: squared.sqrt() })
    }
}

fn split(corners: &[[Vec3; 3]], order: &mut [u32], nodes: &mut Vec<Node>, n: usize) {
    let mut low = Vec3::INFINITY;
    let mut high = Vec3::NEG_INFINITY;
    for c in order.iter().flat_map(|f| corners[*f as usize]) {
        (low, high) = (low.min(c), high.max(c));
    }
    (nodes[n].low, nodes[n].high) = (low, high);
    if order.len() <= LEAF {
        return;
    }
    let center = |f: u32| corners[f as usize].iter().sum::<Vec3>();
    let first = center(order[0]);
    let (least, most) = order.iter().fold((first, first), |(l, h), f| (l.min(center(*f)), h.max(center(*f))));
    let axis = (most - least).max_position();
    let middle = order.len() / 2;
    order.select_nth_unstable_by(middle, |a, b| center(*a)[axis].total_cmp(&center(*b)[axis]).then(a.cmp(b)));
    let left = nodes.len();
    let Node { start, end, .. } = nodes[n];
    let child = |start, end| Node { low: Vec3::ZERO, high: Vec3::ZERO, start, end, left: 0 };
    nodes.extend([child(start, start + middle as u32), child(start + middle as u32, end)]);
    nodes[n].left = left as u32;
    let (a, b) = order.split_at_mut(middle);
    split(corners, a, nodes, left);
    split(corners, b, nodes, left + 1);
}

/// The point of a triangle nearest to `p`, and its barycentric coordinates. Degenerate triangles count as segments.
///
/// By regions: `p` is tested against the corners' and edges' outer sides in turn (Ericson, Real-Time Collision
/// Detection, section 5.1.5). In f64, because the regions' borders are differences of products.
pub fn closest_on_triangle(p: Vec3, triangle: [Vec3; 3]) -> (Vec3, Vec3) {
    let [a, b, c] = triangle.map(|v| v.as_dvec3());
    let p = p.as_dvec3();
    let (ab, ac, ap) = (b - a, c - a, p - a);
    let (d1, d2) = (ab.dot(ap), ac.dot(ap));
    let (d3, d4) = (ab.dot(p - b), ac.dot(p - b));
    let (d5, d6) = (ab.dot(p - c), ac.dot(p - c));
    let (va, vb, vc) = (d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2);
    let bary = if va + vb + vc <= 1e-14 * ab.length_squared().max(ac.length_squared()).powi(2) {
        on_sides(p, [a, b, c])
    } else if d1 <= 0.0 && d2 <= 0.0 {
        DVec3::X
    } else if d3 >= 0.0 && d4 <= d3 {
        DVec3::Y
    } else if d6 >= 0.0 && d5 <= d6 {
        DVec3::Z
    } else if vc <= 0.0 && d1 >= 0.0 && d3 <= 0.0 {
        let t = d1 / (d1 - d3);
        DVec3::new(1.0 - t, t, 0.0)
    } else if vb <= 0.0 && d2 >= 0.0 && d6 <= 0.0 {
        let t = d2 / (d2 - d6);
        DVec3::new(1.0 - t, 0.0, t)
    } else if va <= 0.0 && d4 >= d3 && d5 >= d6 {
        let t = (d4 - d3) / ((d4 - d3) + (d5 - d6));
        DVec3::new(0.0, 1.0 - t, t)
    } else {
        DVec3::new(va, vb, vc) / (va + vb + vc)
    };
    ((a * bary.x + b * bary.y + c * bary.z).as_vec3(), bary.as_vec3())
}

/// The nearest point of a triangle's three sides, for triangles without an area to speak of.
fn on_sides(p: DVec3, corners: [DVec3; 3]) -> DVec3 {
    let side = |k: usize| {
        let (from, to) = (corners[k], corners[(k + 1) % 3]);
        let squared = (to - from).length_squared();
        let t = if squared > 0.0 { ((p - from).dot(to - from) / squared).clamp(0.0, 1.0) } else { 0.0 };
        let mut bary = DVec3::ZERO;
        bary[k] = 1.0 - t;
        bary[(k + 1) % 3] = t;
        ((from.lerp(to, t)).distance_squared(p), bary)
    };
    let nearest = (1..3).map(side).fold(side(0), |best, s| if s.0 < best.0 { s } else { best });
    nearest.1
}

/// A point on a surface.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SurfaceSample {
    /// Where it is.
    pub position: Vec3,
    /// The unit normal of its face, to the side from which the face is counter-clockwise.
    pub normal: Vec3,
    /// The face it lies on.
    pub face: u32,
    /// Its barycentric coordinates there, for interpolating what the vertices carry.
    pub bary: Vec3,
}

/// Draws `count` independent points, evenly by area. The same seed gives the same points. Nothing can be drawn from a
/// mesh without area: the result is empty.
pub fn sample_surface(mesh: &Mesh, count: usize, seed: u64) -> Vec<SurfaceSample> {
    let mut sums = Vec::with_capacity(mesh.faces.len());
    let mut total = 0.0;
    for area in mesh.face_areas() {
        total += area;
        sums.push(total);
    }
    if total.is_nan() || total <= 0.0 {
        return Vec::new();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let draw = |_| {
        let (area, u, v) = (uniform() * total, uniform(), uniform());
        let face = sums.partition_point(|s| *s <= area).min(sums.len() - 1);
        // The square root makes (1 - r, r (1 - v), r v) even over the triangle.
        let r = u.sqrt();
        let bary = DVec3::new(1.0 - r, r * (1.0 - v), r * v);
        let [a, b, c] = mesh.corners(face).map(|p| p.as_dvec3());
        SurfaceSample {
            position: (a * bary.x + b * bary.y + c * bary.z).as_vec3(),
            normal: (b - a).cross(c - a).normalize_or_zero().as_vec3(),
            face: face as u32,
            bary: bary.as_vec3(),
        }
    };
    (0..count).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::band;

    fn sphere() -> Mesh {
        let field = |points: &[Vec3]| points.iter().map(|p| p.length() - 0.7).collect::<Vec<f32>>();
        band::extract(&field, Vec3::NEG_ONE, Vec3::ONE, 41, 0)
    }

    #[test]
    fn distance_to_a_sphere_and_to_every_triangle() {
        let mesh = sphere();
        let distance = MeshDistance::new(&mesh);
        for i in 0..300 {
            let t = i as f32 * 0.1;
            let p = Vec3::new(t.sin(), (1.7 * t).cos(), (0.3 * t).sin()) * (0.05 * t);
            let closest = distance.closest(p).unwrap();
            assert!((closest.distance - (p.length() - 0.7).abs()).abs() < 2e-3);
            let brute = (0..mesh.faces.len())
                .map(|f| closest_on_triangle(p, mesh.corners(f)).0.distance(p))
                .fold(f32::INFINITY, f32::min);
            assert_eq!(closest.distance, brute);
            let [a, b, c] = mesh.corners(closest.face as usize);
            let bary = closest.bary;
            assert!((a * bary.x + b * bary.y + c * bary.z - closest.point).length() < 1e-6);
        }
        assert_eq!(MeshDistance::new(&Mesh::default()).distance(Vec3::ZERO), f32::INFINITY);
    }

    #[test]
    fn no_point_of_a_triangle_is_nearer_than_the_nearest() {
        let triangles = [
            [Vec3::ZERO, Vec3::X, Vec3::Y],
            [Vec3::ZERO, Vec3::X, Vec3::X * 2.0],
            [Vec3::ONE; 3],
            [Vec3::ZERO, Vec3::X, Vec3::new(0.5, 1e-6, 0.0)],
        ];
        for triangle in triangles {
            for i in 0..200 {
                let t = i as f32;
                let p = Vec3::new((t * 0.7).sin() * 2.0, (t * 1.3).cos() * 2.0, (t * 0.11).sin());
                let (found, _) = closest_on_triangle(p, triangle);
                for k in 0..=400 {
                    let (u, v) = ((k / 20) as f32 / 20.0, (k % 20) as f32 / 20.0);
                    let (u, v) = if u + v > 1.0 { (1.0 - u, 1.0 - v) } else { (u, v) };
                    let q = triangle[0] * (1.0 - u - v) + triangle[1] * u + triangle[2] * v;
                    assert!(found.distance(p) <= q.distance(p) + 1e-5, "{triangle:?} {p}");
                }
            }
        }
    }

    #[test]
    fn samples_are_even_and_lie_on_the_surface() {
        let mesh = sphere();
        let samples = sample_surface(&mesh, 20_000, 7);
        assert_eq!(samples, sample_surface(&mesh, 20_000, 7));
        assert_ne!(samples[0], sample_surface(&mesh, 1, 8)[0]);
        let mean: Vec3 = samples.iter().map(|s| s.position).sum::<Vec3>() / 20_000.0;
        assert!(mean.length() < 0.02, "{mean}");
        // On a sphere every coordinate is evenly distributed.
        let below = samples.iter().filter(|s| s.position.y < -0.35).count();
        assert!((below as f32 / 20_000.0 - 0.25).abs() < 0.01, "{below}");
        assert!(samples.iter().all(|s| s.normal.dot(s.position.normalize()) > 0.95));
    }
}
