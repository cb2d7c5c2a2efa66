//! Where in space a point is that several calibrated cameras see, some of them wrongly.
//!
//! Every pair of views proposes a place, where their rays come nearest to each other; the place that most views agree
//! with is refined on these by Gauss-Newton steps on the reprojection error with Huber weights. All pairs are tried, so
//! nothing is random. Knows nothing of what is seen, or how it was found.

use crate::Camera;
use glam::{DMat3, DVec2, DVec3};

/// A camera, prepared for many points.
#[derive(Clone, Debug)]
pub struct View {
    /// `K [R | t]`: a world point to homogeneous px.
    linear: DMat3,
    offset: DVec3,
    center: DVec3,
    /// From homogeneous px to a direction in the world.
    back: DMat3,
    /// What one unit of error is in this view, px: the size of the object there, so that near and far cameras count
    /// alike.
    unit_px: f64,
}

impl View {
    /// A view in which errors are measured in `unit_px`.
    pub fn new(camera: &Camera, unit_px: f64) -> View {
        let rotation = DMat3::from_mat4(camera.world_to_cam);
        let translation = camera.world_to_cam.w_axis.truncate();
        View {
            linear: camera.intrinsics * rotation,
            offset: camera.intrinsics * translation,
            center: camera.center(),
            back: (camera.intrinsics * rotation).inverse(),
            unit_px,
        }
    }

    /// Error of a world point against where it was seen, in units; infinite behind the camera.
    fn error(&self, point: DVec3, seen: DVec2) -> f64 {
        let p = self.linear * point + self.offset;
        if p.z > 0.0 { (p.truncate() / p.z - seen).length() / self.unit_px } else { f64::INFINITY }
    }

    fn ray(&self, seen: DVec2) -> DVec3 {
        (self.back * seen.extend(1.0)).normalize()
    }
}

/// What counts as agreement.
#[derive(Clone, Copy, Debug)]
pub struct Agreement {
    /// Views with a larger error do not agree, in units.
    pub threshold: f64,
    /// Fewer views than this that agree are no result; at least 2.
    pub min_views: usize,
}

/// A point found.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// World, metres.
    pub position: DVec3,
    /// Root mean square of the errors of the views that agree, in units.
    pub error: f64,
    /// Which views agree.
    pub agree: Vec<bool>,
}

/// Rays that meet at a smaller angle than this (radians, about 2 degrees) propose nothing: their depth is a guess.
const MIN_ANGLE: f64 = 0.035;
/// Gauss-Newton steps; they converge in three or four.
const STEPS: usize = 8;

/// Triangulates one point from where each view saw it; `None` where it did not. `None` if too few views agree.
///
/// # Panics
/// If there is not one entry per view.
pub fn triangulate(views: &[View], seen: &[Option<DVec2>], agreement: &Agreement) -> Option<Point> {
    assert_eq!(views.len(), seen.len(), "one sight per view");
    let seers: Vec<(&View, DVec2)> = views.iter().zip(seen).filter_map(|(v, s)| s.map(|s| (v, s))).collect();
    let rays: Vec<DVec3> = seers.iter().map(|(view, seen)| view.ray(*seen)).collect();
    // squared errors up to the threshold: of two places that as many agree with, the one they agree with better
    let limit = agreement.threshold * agreement.threshold;
    let cost = |p: DVec3| seers.iter().map(|(view, seen)| view.error(p, *seen).powi(2).min(limit)).sum::<f64>();
    let mut best: Option<(f64, DVec3)> = None;
    for i in 0..seers.len() {
        for j in 0..i {
            if rays[i].cross(rays[j]).length() < MIN_ANGLE {
                continue;
            }
            let place = between(seers[i].0.center, rays[i], seers[j].0.center, rays[j]);
            let cost = cost(place);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, place));
            }
        }
    }
    let mut position = best?.1;
    for _ in 0..STEPS {
        position += step(&seers, position, agreement.threshold)?;
    }
    let agree: Vec<bool> = views
        .iter()
        .zip(seen)
        .map(|(view, seen)| seen.is_some_and(|seen| view.error(position, seen) <= agreement.threshold))
        .collect();
    let count = agree.iter().filter(|a| **a).count();
    if count < agreement.min_views.max(2) {
        return None;
    }
    let errors = seers.iter().map(|(view, seen)| view.error(position, *seen)).filter(|e| *e <= agreement.threshold);
    Some(Point { position, error: (errors.map(|e| e * e).sum::<f64>() / count as f64).sqrt(), agree })
}

/// The middle of the shortest line between two rays.
fn between(a: DVec3, along_a: DVec3, b: DVec3, along_b: DVec3) -> DVec3 {
    let (apart, cos) = (b - a, along_a.dot(along_b));
    let (pa, pb) = (apart.dot(along_a), apart.dot(along_b));
    let sine = 1.0 - cos * cos;
    let (s, t) = ((pa - cos * pb) / sine, (cos * pa - pb) / sine);
    (a + along_a * s + b + along_b * t) / 2.0
}

/// A Gauss-Newton step on the views within the threshold, errors beyond a third of it counting linearly (Huber). `None`
/// if they do not fix a place.
fn step(seers: &[(&View, DVec2)], at: DVec3, threshold: f64) -> Option<DVec3> {
    let (mut normal, mut right) = (DMat3::ZERO, DVec3::ZERO);
    for (view, seen) in seers {
        let p = view.linear * at + view.offset;
        let error = view.error(at, *seen);
        if error > threshold {
            continue;
        }
        let weight = (threshold / 3.0 / error.max(1e-12)).min(1.0) / (view.unit_px * view.unit_px);
        let projected = p.truncate() / p.z;
        let rows = view.linear.transpose();
        // d(px) / d(world), a row for x and one for y
        let jacobian = [0, 1].map(|i| (rows.col(i) - rows.z_axis * projected[i]) / p.z);
        for (row, miss) in jacobian.into_iter().zip((*seen - projected).to_array()) {
            normal += DMat3::from_cols(row * row.x, row * row.y, row * row.z) * weight;
            right += row * (miss * weight);
        }
    }
    let step = normal.inverse() * right;
    step.is_finite().then_some(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use glam::{DMat4, DQuat};

    /// Cameras on an arc, one metre away, looking at the origin.
    fn cameras(n: usize) -> Vec<Camera> {
        let k = [800.0, 0.0, 320.0, 0.0, 800.0, 240.0, 0.0, 0.0, 1.0];
        let pose = |i: usize| {
            let turn = DQuat::from_rotation_y(0.2 * i as f64) * DQuat::from_rotation_x(0.1 * (i % 3) as f64);
            let pose = DMat4::from_rotation_translation(turn, DVec3::new(0.0, 0.0, 1.0));
            Camera::from_row_major(&k, &pose.transpose().to_cols_array(), 640, 480)
        };
        (0..n).map(pose).collect()
    }

    const AGREEMENT: Agreement = Agreement { threshold: 0.03, min_views: 3 };

    fn views(cameras: &[Camera]) -> Vec<View> {
        cameras.iter().map(|camera| View::new(camera, 100.0)).collect()
    }

    #[test]
    fn exact_sights_give_the_exact_place_and_wrong_ones_are_named() {
        let cameras = cameras(8);
        let point = DVec3::new(0.05, -0.03, 0.04);
        let mut seen: Vec<Option<DVec2>> = cameras.iter().map(|c| Some(c.project(point).0)).collect();
        seen[1] = seen[1].map(|p| p + DVec2::new(40.0, -10.0));
        seen[4] = seen[4].map(|p| p - DVec2::new(0.0, 25.0));
        // the wrong ones agree with each other, on another place
        for i in [6, 7] {
            seen[i] = Some(cameras[i].project(point + DVec3::new(0.06, 0.0, 0.02)).0);
        }
        let found = triangulate(&views(&cameras), &seen, &AGREEMENT).unwrap();
        assert!((found.position - point).length() < 1e-9, "{found:?}");
        assert!(found.error < 1e-9);
        assert_eq!(found.agree, [true, false, true, true, false, true, false, false]);
    }

    #[test]
    fn small_errors_are_averaged_over_all_views() {
        let cameras = cameras(12);
        let point = DVec3::new(-0.02, 0.06, 0.01);
        let noise = |i: usize| DVec2::new((i as f64 * 2.4).sin(), (i as f64 * 3.7).cos());
        let seen: Vec<_> = cameras.iter().enumerate().map(|(i, c)| Some(c.project(point).0 + noise(i))).collect();
        let views = views(&cameras);
        let all = triangulate(&views, &seen, &AGREEMENT).unwrap();
        // a px is 1.25 mm at this distance; twelve views average it
        assert!((all.position - point).length() < 1.0e-3, "{:?}", all.position - point);
        assert!((all.error - 0.01).abs() < 0.004, "{}", all.error);
        assert!(all.agree.iter().all(|a| *a));
        // no small step away is better: it is the minimum
        let huber = |p: DVec3| -> f64 {
            let one = |e: f64| if e < 0.01 { e * e } else { 0.01 * (2.0 * e - 0.01) };
            views.iter().zip(&seen).map(|(v, s)| one(v.error(p, s.unwrap()))).sum()
        };
        for axis in [DVec3::X, DVec3::Y, DVec3::Z] {
            for sign in [-1e-5, 1e-5] {
                assert!(huber(all.position) <= huber(all.position + axis * sign), "{axis}");
            }
        }
    }

    #[test]
    fn too_few_views_that_agree_are_no_result() {
        let cameras = cameras(4);
        let point = DVec3::new(0.0, 0.02, 0.0);
        let exact = |i: usize| Some(cameras[i].project(point).0);
        let views = views(&cameras);
        let none = |seen: [Option<DVec2>; 4]| assert_eq!(triangulate(&views, &seen, &AGREEMENT), None);
        none([None; 4]);
        none([exact(0), exact(1), None, None]);
        none([exact(0), exact(1), exact(2).map(|p| p + 30.0), exact(3).map(|p| p - DVec2::new(5.0, 60.0))]);
        assert!(triangulate(&views, &[exact(0), exact(1), exact(2), None], &AGREEMENT).is_some());
        // one place, seen four times by cameras that stand in one spot
        let same = vec![views[0].clone(); 4];
        assert_eq!(triangulate(&same, &[exact(0); 4], &AGREEMENT), None);
    }
}
