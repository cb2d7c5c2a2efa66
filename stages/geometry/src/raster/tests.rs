//! Coverage, clipping, depth and interpolation of meshes that are made up, against each face drawn alone and against
//! arithmetic.

use super::*;

/// A small deterministic generator; uniform in [0, 1).
fn noise(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 40) as f64 / (1u64 << 24) as f64
}

fn camera(width: u32, height: u32) -> Camera {
    let k = [64.0, 0.0, f64::from(width) / 2.0, 0.0, 64.0, f64::from(height) / 2.0, 0.0, 0.0, 1.0];
    let pose = glam::DMat4::IDENTITY.to_cols_array();
    Camera::from_row_major(&k, &pose, width, height)
}

/// How many faces, each drawn alone, cover each pixel.
fn coverage(positions: &[Vec3], faces: &[[u32; 3]], camera: &Camera, near: f32) -> Vec<u32> {
    let mut count = vec![0; (camera.width * camera.height) as usize];
    for face in faces {
        let alone = rasterize(positions, &[*face], camera, near);
        count.iter_mut().zip(alone.mask()).for_each(|(c, m)| *c += u32::from(m));
    }
    count
}

/// A triangulated patch that covers the image; vertices are jittered by up to `jitter` cells, rounded to half
/// pixels in every other run so that vertices and edges hit samples.
fn patch(camera: &Camera, cells: usize, seed: u64) -> (Vec<Vec3>, Vec<[u32; 3]>) {
    let mut state = seed;
    let on_grid = seed.is_multiple_of(2);
    let (w, h) = (f64::from(camera.width), f64::from(camera.height));
    let mut positions = Vec::new();
    for j in 0..=cells {
        for i in 0..=cells {
            let mut jitter = || 0.35 * (noise(&mut state) - 0.5);
            let x = (i as f64 + jitter()) / cells as f64 * (w + 20.0) - 10.0;
            let y = (j as f64 + jitter()) / cells as f64 * (h + 20.0) - 10.0;
            let (x, y) = if on_grid { ((2.0 * x).round() / 2.0, (2.0 * y).round() / 2.0) } else { (x, y) };
            let z = if on_grid { 2.0 } else { 1.0 + 2.0 * noise(&mut state) };
            let ray = DVec3::new((x - w / 2.0) / 64.0, (y - h / 2.0) / 64.0, 1.0);
            positions.push((ray * z).as_vec3());
        }
    }
    let mut faces = Vec::new();
    for j in 0..cells {
        for i in 0..cells {
            let v = |i, j| (j * (cells + 1) + i) as u32;
            let (a, b, c, d) = (v(i, j), v(i + 1, j), v(i, j + 1), v(i + 1, j + 1));
            match (noise(&mut state) * 4.0) as u32 {
                0 => faces.extend([[a, b, d], [a, d, c]]),
                1 => faces.extend([[a, d, b], [a, c, d]]),
                2 => faces.extend([[a, b, c], [c, b, d]]),
                _ => faces.extend([[b, a, c], [b, d, c]]),
            }
        }
    }
    (positions, faces)
}

#[test]
fn shared_edges_have_no_gap_and_no_double_hit() {
    let camera = camera(40, 33);
    for seed in 0..6 {
        let (positions, faces) = patch(&camera, if seed < 4 { 7 } else { 23 }, seed);
        assert!(coverage(&positions, &faces, &camera, 0.01).iter().all(|c| *c == 1), "seed {seed}");
    }
}

#[test]
fn what_has_no_area_covers_nothing() {
    let camera = camera(40, 33);
    let at = |x: f32, y: f32| Vec3::new((x - 20.0) / 64.0, (y - 16.5) / 64.0, 1.0);
    // through samples: along a row, up a column, down a diagonal, and a point
    let lines =
        [[(2.5, 4.5), (9.5, 4.5)], [(3.5, 20.5), (3.5, 2.5)], [(1.5, 1.5), (12.5, 12.5)], [(7.5, 7.5), (7.5, 7.5)]];
    for [from, to] in lines {
        let positions = [at(from.0, from.1), at(to.0, to.1), at((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0)];
        for face in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [0, 1, 0]] {
            let raster = rasterize(&positions, &[face], &camera, 0.01);
            assert!(raster.mask().iter().all(|covered| !covered), "{from:?} {to:?} {face:?}");
        }
    }
}

#[test]
fn clipped_faces_stay_joined() {
    // A floor 0.5 m below the camera, from 50 m behind to 50 m before it.
    let camera = camera(48, 40);
    let n = 9;
    let at = |k: u32| (k as f32 / n as f32 - 0.4873) * 100.0;
    let positions: Vec<Vec3> = (0..=n).flat_map(|j| (0..=n).map(move |i| Vec3::new(at(i), 0.5, at(j)))).collect();
    let quad = |i: u32, j: u32| {
        let a = j * (n + 1) + i;
        [[a, a + 1, a + n + 1], [a + 1, a + n + 2, a + n + 1]]
    };
    let faces: Vec<[u32; 3]> = (0..n).flat_map(|j| (0..n).flat_map(move |i| quad(i, j))).collect();
    let count = coverage(&positions, &faces, &camera, 0.1);
    let raster = rasterize(&positions, &faces, &camera, 0.1);
    for y in 0..40u32 {
        let below_horizon = f64::from(y) + 0.5 - 20.0;
        let z = if below_horizon > 0.0 { 0.5 * 64.0 / below_horizon } else { f64::INFINITY };
        for p in (y * 48) as usize..(y * 48 + 48) as usize {
            assert_eq!(count[p], u32::from(z < 50.0), "row {y}");
            assert!(z >= 50.0 || (f64::from(raster.depth[p]) / z - 1.0).abs() < 1e-4, "row {y}");
        }
    }
}

#[test]
fn interpolated_positions_project_to_the_sample() {
    let camera = camera(64, 50);
    let (positions, faces) = patch(&camera, 8, 1);
    let raster = rasterize(&positions, &faces, &camera, 0.01);
    let values: Vec<[f32; 3]> = positions.iter().map(|p| p.to_array()).collect();
    for (i, p) in raster.interpolate(&faces, &values, [0.0; 3]).into_iter().enumerate() {
        let (px, z) = camera.project(DVec3::from_array(p.map(f64::from)));
        let sample = glam::DVec2::new((i % 64) as f64 + 0.5, (i / 64) as f64 + 0.5);
        assert!((px - sample).length() < 1e-3, "{px} {sample}");
        assert!((z - f64::from(raster.depth[i])).abs() < 1e-5);
    }
}

#[test]
fn bands_and_threads_do_not_show() {
    let camera = camera(70, 90);
    let (positions, faces) = patch(&camera, 60, 3);
    let draw = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| rasterize(&positions, &faces, &camera, 0.01))
    };
    assert_eq!(draw(1), draw(3));
}

#[test]
fn the_nearest_surface_wins_and_of_equals_the_lowest_number() {
    // more than a band high and wide, with triangles of all sizes through each other, out of the image and behind the
    // camera
    let camera = camera(75, 90);
    for seed in 1..6u64 {
        let mut state = seed;
        let mut at = |reach: f64| {
            let mut one = |by: f64| (by * (2.0 * noise(&mut state) - 1.0)) as f32;
            Vec3::new(one(1.2), one(1.2), 1.0 + one(reach))
        };
        let mut positions = Vec::new();
        for n in 0..120 {
            let (middle, size) = (at(1.3), [1.0, 0.2, 0.03][n % 3]);
            positions.extend([0, 1, 2].map(|_| middle + size * (at(1.0) - Vec3::Z)));
        }
        // each twice, the second time turned around
        let faces: Vec<[u32; 3]> =
            (0..120).map(|n| [3 * n, 3 * n + 1, 3 * n + 2]).flat_map(|[a, b, c]| [[a, b, c], [c, b, a]]).collect();
        let together = rasterize(&positions, &faces, &camera, 0.05);
        let mut expected = rasterize(&positions, &[], &camera, 0.05);
        for (n, face) in faces.iter().enumerate() {
            let alone = rasterize(&positions, &[*face], &camera, 0.05);
            for p in (0..alone.depth.len()).filter(|p| alone.tri_id[*p] >= 0) {
                if expected.tri_id[p] < 0 || alone.depth[p] < expected.depth[p] {
                    (expected.tri_id[p], expected.depth[p]) = (n as i32, alone.depth[p]);
                    expected.bary[p] = alone.bary[p];
                }
            }
        }
        assert!(together.tri_id.iter().filter(|id| **id >= 0).count() > 3000);
        assert!(together == expected, "seed {seed}");
    }
}
