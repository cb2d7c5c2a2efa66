//! Times the G-buffer of a torus of 102,400 triangles: `raster_speed [size] [rounds]`, in ms of cpu and of wall clock per frame.
//!
//! Depth, normals, positions and canonical coordinates are interpolated (10 floats a pixel), the mesh is taken to be new in
//! every frame. The scene is the one that the comparison with other rasterisers uses.

use geometry::Camera;
use geometry::raster::rasterize;
use glam::Vec3;
use std::time::Instant;

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

/// Cpu time of this process, all threads, in ms.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |n: usize| after.split_whitespace().nth(n).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    // hundredths of a second on every Linux
    10.0 * (ticks(11) + ticks(12))
}

fn main() {
    let number = |n: usize, default: u32| std::env::args().nth(n).and_then(|word| word.parse().ok()).unwrap_or(default);
    let (size, rounds) = (number(1, 512), number(2, 50));
    let (positions, faces) = torus();
    let focal = f64::from(size) * 1.1;
    let half = f64::from(size) / 2.0;
    let (sin, cos) = 0.9f64.sin_cos();
    let pose = [1.0, 0.0, 0.0, 0.0, 0.0, cos, -sin, 0.0, 0.0, sin, cos, 1.9, 0.0, 0.0, 0.0, 1.0];
    let camera = Camera::from_row_major(&[focal, 0.0, half, 0.0, focal, half, 0.0, 0.0, 1.0], &pose, size, size);
    let mut covered = 0;
    let (wall, cpu) = (Instant::now(), cpu_ms());
    for _ in 0..rounds {
        let mesh = geometry::Mesh { positions: positions.clone(), faces: faces.clone() };
        let normals = mesh.vertex_normals();
        let attributes: Vec<[f32; 9]> = positions
            .iter()
            .zip(&normals)
            .map(|(p, n)| [p.x, p.y, p.z, n.x, n.y, n.z, 0.5 * p.z + 0.5, 0.5 * p.y + 0.5, 0.5 * p.x + 0.5])
            .collect();
        let raster = rasterize(&mesh.positions, &mesh.faces, &camera, 0.1);
        let values = raster.interpolate(&mesh.faces, &attributes, [0.0; 9]);
        covered = raster.tri_id.iter().zip(&values).filter(|(id, value)| **id >= 0 && value[0].is_finite()).count();
    }
    let per = |ms: f64| ms / f64::from(rounds);
    println!(
        "{} triangles, {size} x {size}, {covered} pixels covered: {:.1} ms of cpu, {:.1} ms of wall clock",
        faces.len(),
        per(cpu_ms() - cpu),
        per(wall.elapsed().as_secs_f64() * 1000.0)
    );
}
