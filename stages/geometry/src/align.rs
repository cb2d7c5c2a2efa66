//! The rigid or similarity transform that best maps one set of points to another, in the least-squares sense.
//!
//! The problem and its scale are Umeyama's (1991); the rotation is found by Horn's quaternion form (1987) of the same
//! optimum, which needs no special case for reflections. This file knows nothing about correspondences or outliers.

use glam::{DMat4, DQuat, DVec3};

use crate::eigen::symmetric_eigen;

/// `x -> scale * rotation * x + translation`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    /// Uniform scale; 1 for a rigid fit.
    pub scale: f64,
    /// Unit quaternion.
    pub rotation: DQuat,
    /// In units of the target.
    pub translation: DVec3,
}

impl Similarity {
    /// Maps a point.
    pub fn apply(&self, p: DVec3) -> DVec3 {
        self.scale * (self.rotation * p) + self.translation
    }

    /// The same as a matrix.
    pub fn matrix(&self) -> DMat4 {
        DMat4::from_scale_rotation_translation(DVec3::splat(self.scale), self.rotation, self.translation)
    }

    /// The transform back.
    pub fn inverse(&self) -> Similarity {
        let (scale, rotation) = (1.0 / self.scale, self.rotation.inverse());
        Similarity { scale, rotation, translation: -(scale * (rotation * self.translation)) }
    }
}

/// Why no transform can be determined.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AlignError {
    /// The slices do not have one entry per point.
    #[error(
        "{source_points} source points, {target_points} target points, {weights} weights: the numbers must be equal"
    )]
    Lengths {
        /// Number of source points.
        source_points: usize,
        /// Number of target points.
        target_points: usize,
        /// Number of weights.
        weights: usize,
    },
    /// The points (of positive weight) do not fix the rotation.
    #[error("the points do not determine a rotation: at least three that do not lie on a line are needed")]
    Degenerate,
    /// A point or weight is not a finite number, or a weight is negative.
    #[error("point pair {0} is not usable: coordinates must be finite and its weight finite and not negative")]
    NotFinite(usize),
}

/// The similarity (`with_scale`) or rigid transform that minimises `sum w |target - T(source)|^2`.
///
/// `weights` of `None` counts all pairs alike; weight 0 leaves a pair out.
///
/// # Errors
/// If the lengths differ, fewer than three points count, they lie on a line, or something is not finite.
pub fn umeyama(
    source: &[DVec3],
    target: &[DVec3],
    weights: Option<&[f64]>,
    with_scale: bool,
) -> Result<Similarity, AlignError> {
    let weight_count = weights.map_or(source.len(), <[f64]>::len);
    if source.len() != target.len() || source.len() != weight_count {
        return Err(AlignError::Lengths {
            source_points: source.len(),
            target_points: target.len(),
            weights: weight_count,
        });
    }
    let weight = |i: usize| weights.map_or(1.0, |w| w[i]);
    for i in 0..source.len() {
        if !(source[i].is_finite() && target[i].is_finite() && weight(i).is_finite() && weight(i) >= 0.0) {
            return Err(AlignError::NotFinite(i));
        }
    }
    let total: f64 = (0..source.len()).map(weight).sum();
    if total <= 0.0 {
        return Err(AlignError::Degenerate);
    }
    let mean = |points: &[DVec3]| points.iter().enumerate().map(|(i, p)| weight(i) * *p).sum::<DVec3>() / total;
    let (source_mean, target_mean) = (mean(source), mean(target));

    // cov[i][j] = sum w source_i target_j; the spreads are for the scale and for recognising degenerate input.
    let mut cov = [[0.0; 3]; 3];
    let (mut source_spread, mut target_spread) = (0.0, 0.0);
    for i in 0..source.len() {
        let (s, t) = (source[i] - source_mean, target[i] - target_mean);
        for r in 0..3 {
            (0..3).for_each(|c| cov[r][c] += weight(i) * s[r] * t[c]);
        }
        source_spread += weight(i) * s.length_squared();
        target_spread += weight(i) * t.length_squared();
    }
    let [[xx, xy, xz], [yx, yy, yz], [zx, zy, zz]] = cov;
    let n = [
        [xx + yy + zz, yz - zy, zx - xz, xy - yx],
        [0.0, xx - yy - zz, xy + yx, zx + xz],
        [0.0, 0.0, -xx + yy - zz, yz + zy],
        [0.0, 0.0, 0.0, -xx - yy + zz],
    ];
    let (values, vectors) = symmetric_eigen(&n);
    // If the second best rotation is as good, any mixture of the two is: the points lie on a line or in a point.
    if values[3] - values[2] <= 1e-9 * (source_spread * target_spread).sqrt() {
        return Err(AlignError::Degenerate);
    }
    let [w, x, y, z] = vectors[3];
    let rotation = DQuat::from_xyzw(x, y, z, w).normalize();
    // values[3] = sum w target . R source, the trace in Umeyama's formula.
    let scale = if with_scale { values[3] / source_spread } else { 1.0 };
    Ok(Similarity { scale, rotation, translation: target_mean - scale * (rotation * source_mean) })
}

/// The rigid transform or similarity that most pairs agree on: least squares, with pairs weighed down by how far they
/// are off compared with the median (Geman-McClure), until nothing changes much.
///
/// # Errors
/// As [`umeyama`].
pub fn robust_umeyama(source: &[DVec3], target: &[DVec3], with_scale: bool) -> Result<Similarity, AlignError> {
    let mut found = umeyama(source, target, None, with_scale)?;
    for _ in 0..ROBUST_STEPS {
        let squared: Vec<f64> =
            source.iter().zip(target).map(|(s, t)| (*t - found.apply(*s)).length_squared()).collect();
        let mut sorted = squared.clone();
        sorted.sort_by(f64::total_cmp);
        // pairs that fit exactly must not divide by 0
        let spread = sorted[sorted.len() / 2].max(1e-18);
        let weights: Vec<f64> = squared.iter().map(|d| (spread / (spread + d)).powi(2)).collect();
        found = umeyama(source, target, Some(&weights), with_scale)?;
    }
    Ok(found)
}

/// Reweightings of a robust alignment.
const ROBUST_STEPS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Vec<DVec3> {
        (0..9).map(f64::from).map(|i| DVec3::new((i * 1.7).sin(), (i * 2.3).cos(), (i * 0.9).sin() + 0.2 * i)).collect()
    }

    fn truth() -> Similarity {
        let rotation = DQuat::from_scaled_axis(DVec3::new(2.0, -1.2, 1.9));
        Similarity { scale: 0.25, rotation, translation: DVec3::new(3.0, -1.0, 0.5) }
    }

    #[test]
    fn recovers_a_similarity_and_its_inverse() {
        let source = points();
        let target: Vec<DVec3> = source.iter().map(|p| truth().apply(*p)).collect();
        let found = umeyama(&source, &target, None, true).unwrap();
        for p in &source {
            assert!((found.apply(*p) - truth().apply(*p)).length() < 1e-12);
            assert!((found.inverse().apply(found.apply(*p)) - *p).length() < 1e-12);
            assert!((found.matrix().transform_point3(*p) - found.apply(*p)).length() < 1e-12);
        }
        assert!((found.scale - 0.25).abs() < 1e-12);
    }

    #[test]
    fn weights_leave_outliers_out_and_mirrored_points_get_a_rotation() {
        let source = points();
        let mut target: Vec<DVec3> = source.iter().map(|p| Similarity { scale: 1.0, ..truth() }.apply(*p)).collect();
        target[4] += DVec3::splat(7.0);
        let weights: Vec<f64> = (0..9).map(|i| if i == 4 { 0.0 } else { 1.0 + f64::from(i) }).collect();
        let found = umeyama(&source, &target, Some(&weights), false).unwrap();
        assert!((found.apply(source[0]) - target[0]).length() < 1e-12);
        let mirrored: Vec<DVec3> = source.iter().map(|p| DVec3::new(-p.x, p.y, p.z)).collect();
        let rotation = glam::DMat3::from_quat(umeyama(&source, &mirrored, None, true).unwrap().rotation);
        assert!((rotation.determinant() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn degenerate_input_is_an_error() {
        let line: Vec<DVec3> = (0..5).map(|i| DVec3::new(f64::from(i), 2.0 * f64::from(i), 1.0)).collect();
        assert_eq!(umeyama(&line, &line, None, true), Err(AlignError::Degenerate));
        assert_eq!(umeyama(&line[..2], &line[..2], None, true), Err(AlignError::Degenerate));
        assert!(matches!(umeyama(&line, &line[1..], None, true), Err(AlignError::Lengths { .. })));
    }

    #[test]
    fn a_third_of_wrong_pairs_does_not_move_the_rest() {
        let source: Vec<DVec3> = points().into_iter().chain(points().into_iter().map(|p| p * 1.7 + 0.1)).collect();
        let truth = Similarity {
            scale: 1.0,
            rotation: DQuat::from_rotation_y(0.7) * DQuat::from_rotation_x(-0.2),
            translation: DVec3::new(0.1, -0.05, 0.3),
        };
        let mut target: Vec<DVec3> = source.iter().map(|p| truth.apply(*p)).collect();
        target.iter_mut().step_by(3).for_each(|p| *p += DVec3::new(0.3, -0.8, 0.2));
        let plain = umeyama(&source, &target, None, false).unwrap();
        assert!((plain.translation - truth.translation).length() > 0.05);
        let robust = robust_umeyama(&source, &target, false).unwrap();
        assert!(robust.rotation.angle_between(truth.rotation) < 1e-3, "{robust:?}");
        assert!((robust.translation - truth.translation).length() < 1e-3, "{robust:?}");
    }
}
