//! Where a head is that no landmarks tell: the mean of the linear head model, brought near a cloud of points.
//!
//! No stage, but what stages start their fits with. Landmarks tell a pose within a degree or two (Umeyama, `landmarks::pose_of`), and where there are any this is of
//! no use. A published head model, or one made of a user's own scans, has none in its space: then ICP of the linear mean, from several
//! turns about the middle of what was seen, finds a head that is neither upright nor at its usual place. The linear model has to live in the head model's space, which it does when both
//! are trained on the same scans. Knows no networks.

use crate::fit_identity::initial_frame;
use crate::head_models::{HEAD_CENTER, observed};
use crate::pca_heads::{LinearHead, Moment, Settings};
use anyhow::Result;
use geometry::cloud::PointCloud;
use geometry::distance::MeshDistance;
use glam::Vec3;
use models::nphm::pose::Pose;

/// Turns about the vertical axis from which a head is sought that does not face +z, radians: as far as faces are seen by a rig in front.
const TURNS: [f64; 5] = [0.0, 0.5, -0.5, 1.0, -1.0];
/// A mean head that is in its place is so far from the points of somebody's face, model units (1 cm).
const NEAR: f32 = 0.04;
/// And that from so many of them.
const ENOUGH: f64 = 0.7;

/// The neutral mean head in a cloud (world, metres), of which `points` are used: from the pose `told`, else upright at `center`; and if that explains too
/// little, from several turns about the middle of the cloud. What explains most points stays.
///
/// # Errors
/// If too few points lie where the face should be, from wherever it is sought.
pub fn place(head: &LinearHead, cloud: &PointCloud, points: usize, center: [f64; 3], told: Option<Pose>) -> Result<Moment> {
    let first = settle(head, cloud, points, told.unwrap_or_else(|| initial_frame(center).pose));
    if told.is_some() || matches!(&first, Ok((_, share)) if *share >= ENOUGH) {
        return first.map(|(moment, _)| moment);
    }
    let middle = middle(cloud);
    let others = TURNS.iter().filter_map(|turn| settle(head, cloud, points, about(middle, *turn)).ok());
    // of equal ones the first
    let best = others.fold(first, |best, other| match &best {
        Ok((_, share)) if *share >= other.1 => best,
        _ => Ok(other),
    });
    best.map(|(moment, _)| moment)
}

/// A head that is turned about the vertical axis, the front of its middle at a place.
fn about(middle: Vec3, turn: f64) -> Pose {
    let rotation = [0.0, turn, 0.0];
    // clouds are of what faces cameras, not of the whole head
    let front = [HEAD_CENTER[0], HEAD_CENTER[1] - 0.1, HEAD_CENTER[2] + 0.3];
    let turned = Pose { rotation, translation: [0.0; 3] }.to_world(front, 1.0);
    Pose { rotation, translation: [0, 1, 2].map(|i| f64::from(middle[i] - turned[i])) }
}

/// The median of a cloud, coordinate by coordinate: some points of a shoulder or a wall do not move it far.
fn middle(cloud: &PointCloud) -> Vec3 {
    let median = |axis: usize| {
        let mut values: Vec<f32> = cloud.positions.iter().map(|p| p[axis]).collect();
        values.sort_by(f32::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    Vec3::new(median(0), median(1), median(2))
}

/// ICP of the mean from a pose, and the share of the points on the face that it explains.
fn settle(head: &LinearHead, cloud: &PointCloud, points: usize, pose: Pose) -> Result<(Moment, f64)> {
    let mut moment = Moment { expression: vec![0.0; head.expressions], pose };
    let mean = vec![0.0; head.shapes];
    let settings = Settings { rounds: 15, rigid_rounds: 15, trim: vec![[0.0, 0.1], [0.5, 0.05]], ..Settings::default() };
    let seen = |pose: &Pose| -> Result<Vec<Vec3>> {
        Ok(observed(cloud, points, pose, 1.0)?.points.into_iter().map(Vec3::from).collect())
    };
    for _ in 0..3 {
        let points = seen(&moment.pose)?;
        moment = head.fit(&[(&points, moment)], Some(&mean), &settings).1.remove(0);
    }
    let local: Vec<Vec3> =
        seen(&moment.pose)?.iter().map(|p| Vec3::from(moment.pose.to_model(p.to_array(), 1.0))).collect();
    let distances = MeshDistance::new(&head.mesh(&mean, &moment.expression)).distances(&local);
    // what few points explain well is an ear as soon as a face
    let whole = cloud.positions.len().min(points).max(1);
    let near = distances.iter().filter(|d| **d < NEAR).count() as f64;
    let share = near / local.len() as f64 * (2.0 * local.len() as f64 / whole as f64).min(1.0);
    Ok((moment, share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::nphm::pose::UNITS_PER_METRE;

    #[test]
    fn a_turned_start_lies_around_the_middle_of_what_is_seen() {
        let middle = Vec3::new(0.4, -0.1, 0.2);
        for turn in TURNS {
            let pose = about(middle, turn);
            let local = Vec3::from(pose.to_model(middle.to_array(), 1.0));
            assert!((local - Vec3::new(0.0, 0.0, 0.05)).length() < 1e-5, "{local}");
            let front = Vec3::from(pose.to_world([0.0, 0.0, 1.0], 1.0)) - Vec3::from(pose.to_world([0.0; 3], 1.0));
            let expected = Vec3::new(turn.sin() as f32, 0.0, turn.cos() as f32) / UNITS_PER_METRE as f32;
            assert!((front - expected).length() < 1e-5, "{front}");
        }
    }
}
