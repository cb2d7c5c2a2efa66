//! Eyes as stages pass them on: seen in a picture, triangulated, and as six gaze values and two lid openings.
//!
//! No stage, but what `detect_landmarks`, `triangulate_landmarks`, `fit_eyes` and `track_eyes` share. Of each eye three
//! points are known: the centre of the iris, and the middle of either lid's rim; the left eye stands first. Gaze is
//! what FLAME's `eyes` are: a rotation vector of the left eye, then of the right one, in the frame of the head, zero
//! straight ahead (+z). It has two degrees of freedom; how an eye rolls about its own axis is not seen. Knows no
//! pictures and no truth.

use anyhow::Result;
use geometry::triangulate::{Agreement, Point, View, triangulate};
use glam::{DQuat, DVec2, DVec3};
use manifests::Type;
use metrics::quantile::median;
use models::face_mesh::Eye;
use protocol::Row;

use crate::common::landmarks::to_column;

/// The column in which `detect_landmarks` puts out points: iris, upper and lower lid of the left eye, then of the right
/// one, px.
pub const SEEN: (&str, Type) = ("eye_points", Type::Floats(12));
/// The column in which `triangulate_landmarks` puts out the same points, world frame, metres; NaN where too few views
/// agree.
pub const TRIANGULATED: (&str, Type) = ("eye_points3d", Type::Floats(18));
/// The column with the number of views that agree on each iris.
pub const IRIS_VIEWS: (&str, Type) = ("iris_views", Type::Floats(2));

/// From the centre of an eyeball to the middle of its iris, metres: 11.5 mm in adults, who differ by less than a
/// millimetre.
const IRIS_DEPTH: f64 = 0.0115;
/// Of an eye that is less open than this, in shares of its usual opening, the iris is not seen.
pub const CLOSED: f64 = 0.35;
/// Eyes less open than this say nothing of where their ball is.
const NARROW: f64 = 0.6;
/// Deviation of a gaze angle that one good iris tells, radians.
const ONE_IRIS: f64 = 0.105;
/// An iris that is this far off the eyeball is twice as uncertain, metres.
const OFF_BALL: f64 = 0.0015;
/// Views that are enough; of fewer the deviation is the larger.
const ENOUGH_VIEWS: f64 = 8.0;
/// How differently both eyes turn sideways and upwards (deviations, radians): they meet at what is looked at.
const APART: [f64; 2] = [0.052, 0.026];
/// How far they turn together from where they usually look, sideways and upwards.
const TOGETHER: [f64; 2] = [0.19, 0.12];

/// The points of an eye as they stand in a column.
pub fn points_of(eye: &Eye) -> [[f64; 2]; 3] {
    [eye.iris, eye.upper, eye.lower]
}

/// Triangulates the points of both eyes from what each view saw; an iris to a finer `iris` threshold than lids, which
/// have no sharp middle. The column's values, and the views that agree on each iris.
pub fn triangulate_eyes(views: &[View], seen: &[Vec<f64>], iris: &Agreement, lids: &Agreement) -> (Vec<f64>, [f64; 2]) {
    let points: Vec<Option<Point>> = (0..6)
        .map(|i| {
            let sights: Vec<Option<DVec2>> =
                seen.iter().map(|s| Some(DVec2::new(s[2 * i], s[2 * i + 1])).filter(|p| p.is_finite())).collect();
            triangulate(views, &sights, if i % 3 == 0 { iris } else { lids })
        })
        .collect();
    let agreeing = |point: &Option<Point>| point.as_ref().map_or(0, |p| p.agree.iter().filter(|a| **a).count()) as f64;
    (to_column(points.iter().map(|p| p.as_ref().map(|p| p.position))), [0, 3].map(|i| agreeing(&points[i])))
}

/// Both eyes at one moment, in the frame of the head, metres.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// Centres of the irises.
    pub irises: [Option<DVec3>; 2],
    /// Distances of the lids' middles.
    pub openings: [Option<f64>; 2],
    /// Views that agree on each iris.
    pub views: [f64; 2],
}

impl Moment {
    /// Of a row with `pose`, `eye_points3d` and `iris_views`.
    ///
    /// # Errors
    /// If a column is missing or of another length.
    pub fn read(row: &Row<'_>) -> Result<Moment> {
        let pose: [f64; 6] = row.array("pose")?;
        let points: [f64; 18] = row.array(TRIANGULATED.0)?;
        let back = DQuat::from_scaled_axis(DVec3::from_slice(&pose[..3])).inverse();
        let at = |i: usize| {
            let world = DVec3::from_slice(&points[3 * i..]);
            world.is_finite().then(|| back * (world - DVec3::from_slice(&pose[3..])))
        };
        let opening = |side: usize| Some(at(3 * side + 1)?.distance(at(3 * side + 2)?));
        Ok(Moment { irises: [at(0), at(3)], openings: [opening(0), opening(1)], views: row.array(IRIS_VIEWS.0)? })
    }
}

/// What of a person's eyes stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eyeballs {
    /// Their centres, in the frame of the head, metres.
    pub centers: [DVec3; 2],
    /// Usual distances of the lids, metres.
    pub open: [f64; 2],
}

/// Eyes at one moment as codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Codes {
    /// Rotation vectors of the left and the right eye.
    pub eyes: [f64; 6],
    /// How open each eye is: 1 is usual, 0 closed.
    pub lids: [f64; 2],
    /// Eyes whose iris was seen; without any the gaze is straight ahead.
    pub seen: usize,
}

impl Eyeballs {
    /// From many moments: of all gazes the median is straight ahead. A sphere fitted to the irises would say more of
    /// somebody who looks around widely, but slides away with somebody who does not.
    ///
    /// None if either eye was seen in fewer than `min_moments`.
    pub fn fit(moments: &[Moment], min_moments: usize) -> Option<Eyeballs> {
        let mut eyeballs = Eyeballs { centers: [DVec3::ZERO; 2], open: [0.0; 2] };
        for side in 0..2 {
            let openings: Vec<f64> = moments.iter().filter_map(|m| m.openings[side]).collect();
            if openings.len() < min_moments {
                return None;
            }
            let open = median(openings)?;
            let wide = |m: &&Moment| m.openings[side].is_some_and(|opening| opening > NARROW * open);
            let irises: Vec<DVec3> = moments.iter().filter(wide).filter_map(|m| m.irises[side]).collect();
            if irises.len() < min_moments {
                return None;
            }
            let along = |k: usize| median(irises.iter().map(|p| p[k]).collect());
            let middle = DVec3::new(along(0)?, along(1)?, along(2)?);
            (eyeballs.centers[side], eyeballs.open[side]) = (middle - IRIS_DEPTH * DVec3::Z, open);
        }
        Some(eyeballs)
    }

    /// Gaze and lids of a moment. Each iris tells a direction, the surer the more views agree on it, the nearer it lies
    /// to the eyeball and the wider the eye is open; both eyes look at nearly the same place, so one that is closed or
    /// mistaken goes with the other, and what is little known is near straight ahead.
    pub fn codes(&self, moment: &Moment) -> Codes {
        let lids = [0, 1].map(|side| {
            let opening = moment.openings[side].map(|o| o / self.open[side]);
            opening.or_else(|| moment.openings[1 - side].map(|o| o / self.open[1 - side])).unwrap_or(1.0)
        });
        // yaw to the subject's left, pitch upwards, weight
        let told = [0, 1].map(|side| {
            let d = moment.irises[side]? - self.centers[side];
            let off = (d.length() - IRIS_DEPTH) / OFF_BALL;
            let d = d.normalize();
            if lids[side] < CLOSED || d.z < 0.2 {
                return None;
            }
            let narrow = lids[side].min(1.0).powi(2);
            let few = (moment.views[side] / ENOUGH_VIEWS).min(1.0);
            let deviation = ONE_IRIS * (1.0 + off * off) / (narrow * few);
            Some(([d.x.atan2(d.z), d.y.asin()], 1.0 / (deviation * deviation)))
        });
        let angle = |k: usize| {
            let told = |side: usize| told[side].map_or((0.0, 0.0), |(angles, weight)| (angles[k], weight));
            both([told(0), told(1)], APART[k], TOGETHER[k])
        };
        let (yaw, pitch) = (angle(0), angle(1));
        let turn = |side: usize| DQuat::from_rotation_y(yaw[side]) * DQuat::from_rotation_x(-pitch[side]);
        let [left, right] = [0, 1].map(|side| turn(side).to_scaled_axis());
        let eyes = [left.x, left.y, left.z, right.x, right.y, right.z];
        Codes { eyes, lids, seen: told.iter().flatten().count() }
    }
}

/// The likeliest pair of angles for two measurements with their weights (one over the variance), if the two differ by
/// `apart` and their mean by `together` from zero: the minimum of a quadratic.
fn both([left, right]: [(f64, f64); 2], apart: f64, together: f64) -> [f64; 2] {
    let (d, q) = (1.0 / (apart * apart), 0.25 / (together * together));
    let (a, b, c) = (left.1 + d + q, q - d, right.1 + d + q);
    let determinant = a * c - b * b;
    let (u, v) = (left.0 * left.1, right.0 * right.1);
    [(c * u - b * v) / determinant, (a * v - b * u) / determinant]
}

/// (yaw to the subject's left, pitch upwards) of the left and the right eye, radians, of six gaze values.
pub fn angles(eyes: &[f64; 6]) -> [[f64; 2]; 2] {
    [0, 3].map(|at| {
        let d = DQuat::from_scaled_axis(DVec3::from_slice(&eyes[at..])) * DVec3::Z;
        [d.x.atan2(d.z), d.y.clamp(-1.0, 1.0).asin()]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CENTERS: [DVec3; 2] = [DVec3::new(0.031, 0.02, 0.05), DVec3::new(-0.031, 0.021, 0.051)];

    /// Eyes that look there, seen by eight cameras.
    fn moment(yaw: f64, pitch: f64, open: f64) -> Moment {
        let d = DVec3::new(pitch.cos() * yaw.sin(), pitch.sin(), pitch.cos() * yaw.cos());
        Moment { irises: CENTERS.map(|c| Some(c + IRIS_DEPTH * d)), openings: [Some(0.008 * open); 2], views: [8.0; 2] }
    }

    fn eyeballs() -> Eyeballs {
        let looks: Vec<Moment> = (-4..=4).map(|i| moment(0.1 * f64::from(i), -0.04 * f64::from(i), 1.0)).collect();
        Eyeballs::fit(&looks, 5).unwrap()
    }

    #[test]
    fn a_look_comes_back_as_codes() {
        let eyeballs = eyeballs();
        for (found, center) in eyeballs.centers.iter().zip(CENTERS) {
            // looking aside, an iris is less far in front
            assert!(found.distance(center) < 5e-4, "{found} {center}");
        }
        let codes = eyeballs.codes(&moment(0.3, -0.15, 1.0));
        assert_eq!((codes.seen, codes.lids), (2, [1.0; 2]));
        for [yaw, pitch] in angles(&codes.eyes) {
            // nearer to straight ahead, which is likelier
            assert!((0.24..0.3).contains(&yaw) && (-0.15..-0.1).contains(&pitch), "{yaw} {pitch}");
        }
        assert!(codes.eyes[1] > 0.0 && codes.eyes[0] > 0.0, "to the left, and down: {codes:?}");
    }

    #[test]
    fn an_eye_that_is_not_seen_goes_with_the_other() {
        let eyeballs = eyeballs();
        let mut one = moment(0.25, 0.1, 1.0);
        (one.irises[0], one.openings[0]) = (None, None);
        let codes = eyeballs.codes(&one);
        let [left, right] = angles(&codes.eyes);
        assert!(codes.seen == 1 && left[0] > 0.15 && (right[0] - left[0]).abs() < 0.03, "{codes:?}");
        // a lid that is shut leaves a guess of an iris, which does not count
        let mut wink = moment(0.25, 0.1, 1.0);
        (wink.irises[0], wink.openings[0]) = (wink.irises[0].map(|p| p - 0.006 * DVec3::Y), Some(0.001));
        let codes = eyeballs.codes(&wink);
        assert!(codes.seen == 1 && (codes.lids[0] - 0.125).abs() < 1e-9, "{codes:?}");
        assert!(angles(&codes.eyes)[0][1] > 0.04, "{codes:?}");
        // one that lies off its ball says little
        let mut mistaken = moment(0.25, 0.1, 1.0);
        mistaken.irises[1] = moment(-0.3, 0.1, 1.0).irises[1].map(|p| p - 0.005 * DVec3::Z);
        let [_, right] = angles(&eyeballs.codes(&mistaken).eyes);
        assert!(right[0] > 0.12, "{right:?}");
    }

    #[test]
    fn closed_eyes_look_nowhere_and_eyes_never_seen_have_no_balls() {
        let codes = eyeballs().codes(&moment(0.3, 0.0, 0.2));
        assert_eq!((codes.seen, codes.eyes), (0, [0.0; 6]));
        assert!((codes.lids[0] - 0.2).abs() < 1e-9);
        let unseen = Moment { irises: [None; 2], openings: [None; 2], views: [0.0; 2] };
        assert_eq!(Eyeballs::fit(&vec![unseen; 9], 5), None);
        assert_eq!(Eyeballs::fit(&vec![moment(0.0, 0.0, 1.0); 4], 5), None);
    }
}
