//! Scans as pools of points: how they are drawn from meshes in correspondence, and how they lie on disk.
//!
//! No stage, but what `scan_synthetic` and `scan_meshes` put out and trainings take in. Points are taken where cameras
//! all around would see the surface, so that hidden folds are not learned; the side of a point is told by whether any
//! camera sees past it. Beside them lie the scans' vertices, which are the same in all scans of all people, and the
//! triangles. All is in model space: units of 25 cm, the head where FLAME has it (see `head_models::HEAD_CENTER`).
//! Knows no networks, and not whose heads they are.

use crate::common::arrays::{Array, Arrays, array, read_arrays};
use crate::common::head_models::HEAD_CENTER;
use anyhow::{Context, Result};
use geometry::nearest::KdTree;
use geometry::{Camera, Mesh, raster};
use glam::{DVec3, Vec3};
use models::nphm::sample;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;
use std::path::Path;

/// Cameras all around, and their resolution, px.
const CAMERAS: usize = 48;
const RESOLUTION: u32 = 200;
/// Deviation of points near the surface, model units (1 cm).
const NEAR: f32 = 0.04;
/// Deviation of correspondences from the surface, model units (2.5 mm).
const OFFSET: f32 = 0.01;
/// Share of points on the face: there the surface is finest, and there avatars are looked at.
const FACE_SHARE: f32 = 0.6;
/// Half sides of the box of far points around the head's centre, model units.
const FAR: Vec3 = Vec3::new(0.75, 0.8, 0.85);

/// What all scans of all people have in common, and how points are drawn from them.
pub struct Sampler {
    /// Triangles over the scans' vertices.
    pub faces: Vec<[u32; 3]>,
    /// Vertices of the anchors, pairs first.
    pub anchors: Vec<u32>,
    /// Surface points of each scan.
    pub points: usize,
    /// Cameras all around, see [`cameras`].
    pub cameras: Vec<Camera>,
}

impl Sampler {
    /// Draws the pools of scan `i` of a person, whose vertices (model units) are `posed` and, in their neutral scan,
    /// `neutral`; adds them and the vertices to `arrays`.
    ///
    /// # Errors
    /// If no camera sees a face, or nothing but a face.
    pub fn add(
        &self,
        i: usize,
        posed: &[Vec3],
        neutral: &[Vec3],
        rng: &mut ChaCha8Rng,
        arrays: &mut Arrays,
    ) -> Result<()> {
        self.sample(posed, neutral, rng, &format!("{i:03}."), arrays)?;
        let vertices = Array::of_f32(&[posed.len(), 3], posed.iter().flat_map(|p| p.to_array()));
        arrays.insert(format!("{i:03}.vertices"), vertices);
        Ok(())
    }

    /// Adds the triangles that all scans share.
    pub fn add_faces(&self, arrays: &mut Arrays) {
        let faces = &self.faces;
        arrays.insert("faces".into(), Array::of_u32(&[faces.len(), 3], faces.iter().flatten().copied()));
    }

    fn sample(
        &self,
        posed: &[Vec3],
        neutral: &[Vec3],
        rng: &mut ChaCha8Rng,
        prefix: &str,
        arrays: &mut Arrays,
    ) -> Result<()> {
        let mesh = |positions: &[Vec3]| Mesh { positions: positions.to_vec(), faces: self.faces.clone() };
        let posed_mesh = mesh(posed);
        let (posed_normals, neutral_normals) = (posed_mesh.vertex_normals(), mesh(neutral).vertex_normals());
        let seen = Seen::new(&posed_mesh, &self.cameras);
        let at = |values: &[Vec3], (face, bary): (u32, [f32; 3])| -> Vec3 {
            self.faces[face as usize].iter().zip(bary).map(|(&v, b)| values[v as usize] * b).sum()
        };
        let (face, rest): (Vec<_>, Vec<_>) = seen.samples.iter().copied().partition(|s| is_face(at(posed, *s)));
        anyhow::ensure!(!face.is_empty(), "cameras all around see no face where it should be");
        anyhow::ensure!(!rest.is_empty(), "cameras all around see nothing but a face");
        let mut pick = |n: usize| -> Vec<(u32, [f32; 3])> {
            let one = |_| {
                let pool = if unit_float(rng) < FACE_SHARE { &face } else { &rest };
                pool[(rng.next_u64() % pool.len() as u64) as usize]
            };
            (0..n).map(one).collect()
        };
        let n = self.points;
        let (chosen, dense) = (pick(n), pick(5 * n));
        let dense_points: Vec<Vec3> = dense.iter().map(|s| at(posed, *s)).collect();
        let tree = KdTree::new(&dense_points);

        let mut put = |name: &str, points: Vec<Vec3>| {
            let array = Array::of_f32(&[points.len(), 3], points.iter().flat_map(|p| p.to_array()));
            arrays.insert(format!("{prefix}{name}"), array);
        };
        let surface: Vec<Vec3> = chosen.iter().map(|s| at(posed, *s)).collect();
        let normals: Vec<Vec3> = chosen.iter().map(|s| at(&posed_normals, *s).normalize_or_zero()).collect();
        let (mut near, mut near_distance) = (Vec::new(), Vec::new());
        for (p, normal) in surface.iter().zip(&normals) {
            let q = *p + *normal * NEAR * normal_float(rng);
            let (nearest, _) = tree.nearest(q);
            let offset = q - dense_points[nearest];
            let distance = at(&posed_normals, dense[nearest]).normalize_or_zero().dot(offset);
            // where the nearest sample lies to the side, at a rim or in a fold, the distance is not known
            if offset.length() <= 1.4 * distance.abs() + 0.015 {
                near.push(q);
                near_distance.push(distance);
            }
        }
        let (mut far, mut far_distance) = (Vec::new(), Vec::new());
        for _ in 0..n / 2 {
            let side = Vec3::new(unit_float(rng), unit_float(rng), unit_float(rng)) * 2.0 - 1.0;
            let q = Vec3::from(HEAD_CENTER) + side * FAR;
            let distance = tree.nearest(q).1;
            far_distance.push(if seen.outside(q, &self.cameras) { distance } else { -distance });
            far.push(q);
        }
        let offsets: Vec<f32> = chosen.iter().map(|_| OFFSET * normal_float(rng)).collect();
        let shifted = |positions: &[Vec3], normals: &[Vec3]| -> Vec<Vec3> {
            chosen
                .iter()
                .zip(&offsets)
                .map(|(s, offset)| at(positions, *s) + at(normals, *s).normalize_or_zero() * *offset)
                .collect()
        };
        put("posed", shifted(posed, &posed_normals));
        put("canonical", shifted(neutral, &neutral_normals));
        put("anchors", self.anchors.iter().map(|&v| neutral[v as usize]).collect());
        put("surface", surface);
        put("normals", normals);
        put("near", near);
        put("far", far);
        for (name, values) in [("near_distance", near_distance), ("far_distance", far_distance)] {
            arrays.insert(format!("{prefix}{name}"), Array::of_f32(&[values.len()], values));
        }
        Ok(())
    }
}

/// Whether a point lies between the ears, brows and chin, in front of the cheeks' rims.
pub fn is_face(p: Vec3) -> bool {
    let q = p - Vec3::from(HEAD_CENTER);
    q.z > 0.12 && q.x.abs() < 0.2 && q.y > -0.42 && q.y < 0.2
}

/// What cameras all around see of a mesh.
struct Seen {
    /// Face and barycentric coordinates of every pixel hit at a fair angle.
    samples: Vec<(u32, [f32; 3])>,
    depths: Vec<Vec<f32>>,
}

impl Seen {
    fn new(mesh: &Mesh, cameras: &[Camera]) -> Seen {
        let mut seen = Seen { samples: Vec::new(), depths: Vec::new() };
        for camera in cameras {
            let image = raster::rasterize(&mesh.positions, &mesh.faces, camera, 0.1);
            let eye = camera.center().as_vec3();
            for (&face, bary) in image.tri_id.iter().zip(&image.bary) {
                if face >= 0 {
                    let [a, b, c] = mesh.corners(face as usize);
                    let normal = (b - a).cross(c - a).normalize_or_zero();
                    // grazing pixels see a lot of surface each, and back faces are the inside of an open mesh
                    if normal.dot((eye - a).normalize()) > 0.15 {
                        seen.samples.push((face as u32, *bary));
                    }
                }
            }
            seen.depths.push(image.depth);
        }
        seen
    }

    /// Whether some camera sees the point, or past it.
    fn outside(&self, p: Vec3, cameras: &[Camera]) -> bool {
        cameras.iter().zip(&self.depths).any(|(camera, depths)| {
            let (px, z) = camera.project(p.as_dvec3());
            let inside =
                px.x >= 0.0 && px.y >= 0.0 && px.x < f64::from(camera.width) && px.y < f64::from(camera.height);
            if !inside {
                return true;
            }
            let depth = depths[px.y as usize * camera.width as usize + px.x as usize];
            depth == 0.0 || (z as f32) < depth - 0.004
        })
    }
}

/// Cameras around the head's place in model space, in whose unit they measure: on a spiral over the upper four fifths
/// of a sphere around the head; from below one would see into the neck.
pub fn cameras() -> Vec<Camera> {
    let center = DVec3::from(HEAD_CENTER.map(f64::from));
    let (distance, span) = (8.0, 1.9);
    (0..CAMERAS)
        .filter_map(|i| {
            let y = 1.0 - 2.0 * (i as f64 + 0.5) / CAMERAS as f64;
            let (around, radius) = (i as f64 * 2.399_963, (1.0 - y * y).sqrt());
            let eye = center + DVec3::new(radius * around.cos(), y, radius * around.sin()) * distance;
            let focal = f64::from(RESOLUTION) * distance / span;
            let half = f64::from(RESOLUTION) / 2.0;
            let k = [focal, 0.0, half, 0.0, focal, half, 0.0, 0.0, 1.0];
            let pose = datasets::capture::look_at(eye, center).transpose().to_cols_array();
            (y > -0.45).then(|| Camera::from_row_major(&k, &pose, RESOLUTION, RESOLUTION))
        })
        .collect()
}

/// Reads the scans of a person: `identity` is the row of their code, `first` that of their first scan's.
///
/// # Errors
/// If the file is damaged or lacks an array; the message names it.
pub fn read_scans(path: &Path, identity: i64, first: i64) -> Result<Vec<sample::Scan>> {
    let parse = || -> Result<Vec<sample::Scan>> {
        let arrays = read_arrays(path)?;
        let mut scans = Vec::new();
        while arrays.contains_key(&format!("{:03}.surface", scans.len())) {
            let i = scans.len();
            let floats = |name: &str| array(&arrays, &format!("{i:03}.{name}"))?.to_f32();
            let points = |name: &str| -> Result<Vec<[f32; 3]>> { Ok(floats(name)?.as_chunks().0.to_vec()) };
            scans.push(sample::Scan {
                identity,
                expression: first + i as i64,
                neutral: i == 0,
                surface: points("surface")?,
                normals: points("normals")?,
                near: points("near")?,
                near_distance: floats("near_distance")?,
                far: points("far")?,
                far_distance: floats("far_distance")?,
                posed: points("posed")?,
                canonical: points("canonical")?,
                anchors: points("anchors")?,
            });
        }
        anyhow::ensure!(!scans.is_empty(), "it holds no scans");
        for (i, scan) in scans.iter().enumerate() {
            for (name, points) in
                [("surface", &scan.surface), ("near", &scan.near), ("far", &scan.far), ("posed", &scan.posed)]
            {
                anyhow::ensure!(
                    !points.is_empty(),
                    "scan {i} has no points `{name}`\nhint: more `points` of what makes scans; hundreds are few"
                );
            }
        }
        Ok(scans)
    };
    parse().with_context(|| format!("the scans {}", path.display()))
}

/// Reads the meshes of a person, the neutral one first: the same vertices and faces in all, and in all people.
///
/// # Errors
/// If the file is damaged, or lacks an array, which older scans do; the message names it.
pub fn read_meshes(path: &Path) -> Result<Vec<Mesh>> {
    let parse = || -> Result<Vec<Mesh>> {
        let arrays = read_arrays(path)?;
        let faces: Vec<[u32; 3]> = array(&arrays, "faces")?.to_u32()?.as_chunks().0.to_vec();
        let mut meshes: Vec<Mesh> = Vec::new();
        while meshes.is_empty() || arrays.contains_key(&format!("{:03}.vertices", meshes.len())) {
            let flat = array(&arrays, &format!("{:03}.vertices", meshes.len()))?.to_f32()?;
            let positions: Vec<Vec3> = flat.as_chunks().0.iter().map(|p: &[f32; 3]| Vec3::from(*p)).collect();
            anyhow::ensure!(
                faces.iter().flatten().all(|v| (*v as usize) < positions.len()),
                "a face of scan {} names a vertex beyond the {} there are",
                meshes.len(),
                positions.len()
            );
            meshes.push(Mesh { positions, faces: faces.clone() });
        }
        Ok(meshes)
    };
    parse().with_context(|| format!("the scans {}", path.display()))
}

/// Uniform in [0, 1), 24 bits.
pub fn unit_float(rng: &mut ChaCha8Rng) -> f32 {
    (rng.next_u64() >> 40) as f32 / (1u64 << 24) as f32
}

fn normal_float(rng: &mut ChaCha8Rng) -> f32 {
    let (radius, angle) = ((-2.0 * (1.0 - unit_float(rng)).ln()).sqrt(), std::f32::consts::TAU * unit_float(rng));
    radius * angle.cos()
}
