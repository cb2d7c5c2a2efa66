//! Draws the G-buffer of a torus of 102,400 triangles, as often as it is told: `raster [size] [rounds]`. Says how many
//! triangles there are and how many pixels they cover.
//!
//! Depth, normals, positions and canonical coordinates are interpolated (10 floats a pixel), and nothing is kept from
//! frame to frame. The scene is the one that the comparison with other rasterisers uses (`benches/peers/raster.py`).

use geometry::Camera;
use geometry::raster::rasterize;
use glam::Vec3;

const MAJOR: usize = 320;
const MINOR: usize = 160;

fn torus() -> (Vec<Vec3>, Vec<[u32; 3]>) {
    let tau = std::f32::consts::TAU;
    let (mut positions, mut faces) = (Vec::new(), Vec::new());
    for i in 0..MAJOR {
        for j in 0..MINOR {
            let (a, b) = (tau * i as f32 / MAJOR as f32, tau * j as f32 / MINOR as f32);
            let r = 0.55 + 0.25 * b.cos();
            let p = Vec3::new(r * a.cos(), r * a.sin(), 0.25 * b.sin());
            positions.push(p * (1.0 + 0.04 * (17.0 * p.x).sin() * (15.0 * p.y).sin()));
            let v = |i: usize, j: usize| ((i % MAJOR) * MINOR + j % MINOR) as u32;
            faces.push([v(i, j), v(i + 1, j), v(i + 1, j + 1)]);
            faces.push([v(i, j), v(i + 1, j + 1), v(i, j + 1)]);
        }
    }
    (positions, faces)
}

fn main() {
    let number = |n: usize, default: u32| std::env::args().nth(n).and_then(|word| word.parse().ok()).unwrap_or(default);
    let (size, rounds) = (number(1, 512), number(2, 1));
    let (positions, faces) = torus();
    let focal = f64::from(size) * 1.1;
    let half = f64::from(size) / 2.0;
    let (sin, cos) = 0.9f64.sin_cos();
    let pose = [1.0, 0.0, 0.0, 0.0, 0.0, cos, -sin, 0.0, 0.0, sin, cos, 1.9, 0.0, 0.0, 0.0, 1.0];
    let camera = Camera::from_row_major(&[focal, 0.0, half, 0.0, focal, half, 0.0, 0.0, 1.0], &pose, size, size);
    let mut covered = 0;
    let normals = geometry::Mesh { positions: positions.clone(), faces: faces.clone() }.vertex_normals();
    let attributes: Vec<[f32; 9]> = positions
        .iter()
        .zip(&normals)
        .map(|(p, n)| [p.x, p.y, p.z, n.x, n.y, n.z, 0.5 * p.z + 0.5, 0.5 * p.y + 0.5, 0.5 * p.x + 0.5])
        .collect();
    for _ in 0..rounds {
        let raster = rasterize(&positions, &faces, &camera, 0.1);
        let values = raster.interpolate(&faces, &attributes, [0.0; 9]);
        std::hint::black_box(&values);
        covered = raster.tri_id.iter().filter(|id| **id >= 0).count();
    }
    println!("{} {covered}", faces.len());
}
