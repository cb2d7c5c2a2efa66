//! Where a head is that no landmarks tell: the mean of the linear head model, brought near a cloud of points by ICP.
//!
//! No stage, but what stages start their fits with. Landmarks tell a pose within a degree or two (Umeyama,
//! `landmarks::pose_of`), and where there are any this is of no use. Without landmarks, as with a published head model,
//! which has none in its space, ICP starts from an upright head at the middle of the rig, and finds what is near that.
//! A head that is turned far is not found: starts from several turns were tried, and on sparse clouds a wrong turn
//! explains as many points as the right one. The linear model has to live in the head model's space, which it does when
//! both are trained on the same scans. Knows no networks.

use crate::common::head_models::{initial_frame, observed};
use crate::common::pca_heads::{LinearHead, Moment, Seen, Settings};
use anyhow::Result;
use geometry::cloud::PointCloud;
use glam::Vec3;

/// The neutral mean head in a cloud (world, metres), of which `points` are used: from upright at `center`.
///
/// # Errors
/// If too few points lie where the face should be.
pub fn place(head: &LinearHead, cloud: &PointCloud, points: usize, center: [f64; 3]) -> Result<Moment> {
    let mut moment = Moment { expression: vec![0.0; head.expressions], pose: initial_frame(center).pose };
    let mean = vec![0.0; head.shapes];
    let settings =
        Settings { rounds: 15, rigid_rounds: 15, trim: vec![[0.0, 0.1], [0.5, 0.05]], ..Settings::default() };
    for _ in 0..3 {
        // which points lie on the face depends on the pose
        let points = observed(cloud, points, &moment.pose, 1.0)?.points.into_iter().map(Vec3::from).collect();
        let seen = Seen { points, ..Seen::default() };
        moment = head.fit(&[(&seen, moment)], Some(&mean), &settings).1.remove(0);
    }
    Ok(moment)
}
