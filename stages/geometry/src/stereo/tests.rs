//! Stereo against analytic truth: a textured, bumpy ellipsoid, ray traced from a rig like NeRSemble's.

use super::*;
use glam::{DMat3, DMat4, DVec2, DVec3};
use std::sync::LazyLock;

/// The "head": semi-axes in metres.
const AXES: Vec3 = Vec3::new(0.075, 0.115, 0.09);

/// Distance of the surface from the origin in a unit direction: an ellipsoid with a nose and low bumps.
fn surface(direction: Vec3) -> f32 {
    let nose = (direction - Vec3::new(0.0, -0.12, 1.0).normalize()).length_squared() / (2.0 * 0.15 * 0.15);
    1.0 / (direction / AXES).length()
        + 0.018 * (-nose).exp()
        + 0.002 * (9.0 * direction.x).sin() * (11.0 * direction.y).cos()
}

/// Positive outside; nearly the distance close to the surface.
fn implicit(point: Vec3) -> f32 {
    point.length() - surface(point.normalize())
}

fn normal(point: Vec3) -> Vec3 {
    let h = 1e-3;
    let slope = |axis: Vec3| implicit(point + h * axis) - implicit(point - h * axis);
    Vec3::new(slope(Vec3::X), slope(Vec3::Y), slope(Vec3::Z)).normalize()
}

/// Skin-like, weakly textured grey with shading; the texture is a sum of waves in many directions.
fn grey(point: Vec3) -> f32 {
    let wave = |k: u32| {
        let k = k as f32;
        let direction = Vec3::new((1.7 * k).sin(), (2.9 * k).sin(), (4.3 * k + 1.0).sin()).normalize();
        ((200.0 + 45.0 * k) * point.dot(direction) + k).sin()
    };
    let light = Vec3::new(0.3, 0.5, 0.8).normalize();
    let shade = 0.6 + 0.4 * normal(point).dot(light).max(0.0);
    170.0 * shade * (1.0 + 0.03 * (0..12).map(wave).sum::<f32>())
}

fn trace(origin: Vec3, direction: Vec3) -> Option<Vec3> {
    let closest = -origin.dot(direction);
    let mut distance = closest - 0.14;
    while distance < closest + 0.14 {
        let point = origin + distance * direction;
        let gap = implicit(point);
        if gap < 2e-5 {
            return Some(point);
        }
        distance += (0.7 * gap).max(2e-5);
    }
    None
}

fn camera(azimuth: f64, elevation: f64, width: u32, height: u32) -> Camera {
    let (azimuth, elevation) = (azimuth.to_radians(), elevation.to_radians());
    let away = DVec3::new(azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos());
    let (right, forward) = (-away.cross(DVec3::Y).normalize(), -away);
    let rotation = DMat3::from_cols(right, forward.cross(right), forward).transpose();
    let focal = 3.6 * f64::from(width);
    let middle = DVec3::new(0.5 * f64::from(width) + 0.7, 0.5 * f64::from(height) - 1.3, 1.0);
    Camera {
        intrinsics: DMat3::from_cols(DVec3::X * focal, DVec3::Y * focal, middle),
        world_to_cam: DMat4::from_mat3(rotation) * DMat4::from_translation(-away),
        width,
        height,
    }
}

struct Photograph {
    camera: Camera,
    rgb: Vec<u8>,
    mask: Vec<u8>,
}

fn photograph(camera: Camera) -> Photograph {
    let origin = camera.center().as_vec3();
    let (mut rgb, mut mask) = (Vec::new(), Vec::new());
    for index in 0..camera.width * camera.height {
        let px = DVec2::new(f64::from(index % camera.width) + 0.5, f64::from(index / camera.width) + 0.5);
        let hit = trace(origin, camera.ray(px).as_vec3());
        let value = hit.map_or(255.0, grey) as u8;
        rgb.extend([value, value / 2, value / 3]);
        mask.push(if hit.is_some() { 255 } else { 0 });
    }
    Photograph { camera, rgb, mask }
}

static CAPTURE: LazyLock<Vec<Photograph>> = LazyLock::new(|| {
    let angles = (0..7).map(|i| (-46.0 + 15.3 * f64::from(i), [14.0, -14.0, 0.0][i as usize % 3]));
    angles.map(|(azimuth, elevation)| photograph(camera(azimuth, elevation, 144, 208))).collect()
});

fn views(photographs: &[Photograph]) -> Vec<View<'_>> {
    photographs.iter().map(|Photograph { camera, rgb, mask }| View { camera, rgb, mask }).collect()
}

#[test]
fn recovers_a_bumpy_ellipsoid() {
    let cloud = reconstruct(&views(&CAPTURE), &StereoConfig::around(Vec3::ZERO, 0.14));

    let mut errors: Vec<f32> = cloud.positions.iter().map(|point| implicit(*point).abs()).collect();
    errors.sort_by(f32::total_cmp);
    let quantile = |q: f32| errors[(q * (errors.len() - 1) as f32) as usize];
    assert!(quantile(0.5) < 0.0006, "median error {} m", quantile(0.5));
    assert!(quantile(0.95) < 0.003, "95 % error {} m", quantile(0.95));

    let tilts = cloud.positions.iter().zip(&cloud.normals).map(|(point, n)| n.dot(normal(*point)));
    assert!(tilts.filter(|cosine| *cosine > 0.9).count() as f32 > 0.9 * cloud.positions.len() as f32);

    let off = cloud.positions.iter().zip(&cloud.colors).map(|(point, rgb)| (f32::from(rgb[0]) - grey(*point)).abs());
    assert!(off.filter(|off| *off < 20.0).count() as f32 > 0.9 * cloud.colors.len() as f32);

    // Completeness: a grid of front directions, each within 3 mm of some point.
    let (mut found, mut all) = (0, 0);
    for i in -10..=10 {
        for j in -10..=10 {
            let direction = Vec3::new(0.07 * i as f32, 0.07 * j as f32, 1.0).normalize();
            let truth = surface(direction) * direction;
            all += 1;
            found += u32::from(cloud.positions.iter().any(|point| point.distance(truth) < 0.003));
        }
    }
    assert!(found as f32 > 0.97 * all as f32, "{found} of {all} front points found");

    // No point may stand out against the background of any photograph by more than a pixel.
    for Photograph { camera, mask, .. } in CAPTURE.iter() {
        for point in &cloud.positions {
            let (px, _) = camera.project(point.as_dvec3());
            let near = |d: f64| (px.x + d).max(0.0) as usize;
            let inside = (-1..=1).any(|dy| {
                let row = (px.y + f64::from(dy)).max(0.0) as usize * camera.width as usize;
                [-1.0, 0.0, 1.0].iter().any(|dx| mask.get(row + near(*dx)).is_some_and(|value| *value > 0))
            });
            assert!(inside, "{point} shows at {px} in front of the background");
        }
    }
}

#[test]
fn a_view_that_sees_another_side_leaves_the_others_alone() {
    let mut photographs: Vec<Photograph> =
        [-30.0, -15.0, 0.0, 15.0].map(|azimuth| photograph(camera(azimuth, 0.0, 72, 104))).into();
    let config = StereoConfig { fine_rounds: 1, ..StereoConfig::around(Vec3::ZERO, 0.14) };
    let count = reconstruct(&views(&photographs), &config).positions.len();
    photographs.push(photograph(camera(120.0, 0.0, 72, 104)));
    let cloud = reconstruct(&views(&photographs), &config);
    // its matte carves the hull, which moves a few points
    assert!(count > 300 && cloud.positions.len() * 10 > count * 9, "{} of {count} points", cloud.positions.len());
    let mut errors: Vec<f32> = cloud.positions.iter().map(|point| implicit(*point).abs()).collect();
    errors.sort_by(f32::total_cmp);
    assert!(errors[errors.len() / 2] < 0.0012, "median error {} m", errors[errors.len() / 2]);
}

#[test]
fn two_views_suffice_if_nobody_else_has_to_agree() {
    let config = StereoConfig { min_agreeing: 1, fine_rounds: 1, ..StereoConfig::around(Vec3::ZERO, 0.14) };
    let cloud = reconstruct(&views(&CAPTURE[2..4]), &config);
    let near = cloud.positions.iter().filter(|point| implicit(**point).abs() < 0.003).count();
    assert!(near > 1000 && near * 2 > cloud.positions.len(), "{near} of {}", cloud.positions.len());
}

#[test]
fn threads_do_not_change_a_bit() {
    let config = StereoConfig { fine_rounds: 1, ..StereoConfig::around(Vec3::ZERO, 0.14) };
    let with_threads = |count: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().expect("a thread pool");
        pool.install(|| reconstruct(&views(&CAPTURE[1..6]), &config))
    };
    let (one, three) = (with_threads(1), with_threads(3));
    assert!(!one.positions.is_empty());
    assert_eq!(one.positions, three.positions);
    assert_eq!(one.normals, three.normals);
    assert_eq!(one.colors, three.colors);
}

#[test]
fn too_few_views_give_an_empty_cloud() {
    let config = StereoConfig::around(Vec3::ZERO, 0.14);
    assert!(reconstruct(&[], &config).positions.is_empty());
    assert!(reconstruct(&views(&CAPTURE[..2]), &config).positions.is_empty());
    // A sphere that nobody sees.
    let elsewhere = StereoConfig::around(Vec3::new(0.9, 0.0, 0.0), 0.05);
    assert!(reconstruct(&views(&CAPTURE), &elsewhere).positions.is_empty());
}

#[test]
#[should_panic(expected = "matte bytes")]
fn buffers_of_the_wrong_size_are_refused() {
    let camera = camera(0.0, 0.0, 16, 16);
    let view = View { camera: &camera, rgb: &[0; 16 * 16 * 3], mask: &[0; 16] };
    reconstruct(&[view], &StereoConfig::around(Vec3::ZERO, 0.14));
}
