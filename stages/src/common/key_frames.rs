//! Which moments of a person an identity is fitted to.
//!
//! No stage, but what `fit_identity` chooses its key frames with. Frames that show the same face say the same about who
//! it is; those in which landmarks lie differently within the head show other expressions of it. Functions of what they
//! are given, without any random number. Knows no head model beyond where it has its landmarks.

use crate::common::landmarks::pose_of;
use glam::DVec3;
use models::nphm::pose::{Pose, UNITS_PER_METRE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How key frames are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyChoice {
    /// Spread evenly over the frames.
    #[default]
    Spread,
    /// Those whose landmarks differ most within the head: the face that is nearest to the head model's mean first, then
    /// always the one that is farthest from all that were chosen. Frames without enough landmarks are taken only when
    /// there are no others, spread evenly.
    Diverse,
}

/// A landmark farther off than this counts no more, metres: one that was found elsewhere makes no other expression.
const LIMIT: f64 = 0.015;
/// Faces are compared by at least so many landmarks.
const COMMON: usize = 40;

/// `n` of `count` things, spread evenly, ascending.
pub fn spread(count: usize, n: usize) -> Vec<usize> {
    let n = n.min(count);
    (0..n).map(|i| (2 * i + 1) * count / (2 * n)).collect()
}

/// `n` of the frames whose landmarks these are (world, metres; empty where a frame has none), ascending. `places` are
/// the head model's (model units); `scale` is the size of the head relative to it.
pub fn choose(
    choice: KeyChoice,
    n: usize,
    frames: &[Vec<Option<DVec3>>],
    places: Option<&[Option<DVec3>]>,
    scale: f64,
) -> Vec<usize> {
    let places = match (choice, places) {
        (KeyChoice::Diverse, Some(places)) => places,
        _ => return spread(frames.len(), n),
    };
    let faces: Vec<Option<Vec<Option<DVec3>>>> = frames
        .iter()
        .map(|found| {
            let pose = pose_of(places, found, scale)?;
            Some(found.iter().map(|p| p.map(|p| within(&pose, p))).collect())
        })
        .collect();
    let mean: Vec<Option<DVec3>> = places.iter().map(|p| p.map(|p| p * scale / UNITS_PER_METRE)).collect();
    let mut chosen: Vec<usize> = Vec::new();
    // how far each face is from the nearest one that was chosen; those without a face are never farthest
    let mut apart: Vec<Option<f64>> =
        faces.iter().map(|face| face.as_ref().and_then(|face| difference(face, &mean))).collect();
    while chosen.len() < n {
        let open = || (0..faces.len()).filter_map(|i| Some((i, apart[i].filter(|_| !chosen.contains(&i))?)));
        // of equal ones the first
        let next = if chosen.is_empty() {
            open().min_by(|a, b| a.1.total_cmp(&b.1))
        } else {
            open().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
        };
        let Some((next, _)) = next else { break };
        let distance = |i: usize| difference(faces[i].as_ref()?, faces[next].as_ref()?);
        for i in 0..faces.len() {
            let to_next = distance(i);
            apart[i] = match (apart[i], to_next) {
                // the distance from the mean was for the first choice alone
                (Some(_), Some(to_next)) if chosen.is_empty() => Some(to_next),
                (Some(before), Some(to_next)) => Some(before.min(to_next)),
                _ => None,
            };
        }
        chosen.push(next);
    }
    let left: Vec<usize> = (0..frames.len()).filter(|i| !chosen.contains(i)).collect();
    chosen.extend(spread(left.len(), n.saturating_sub(chosen.len())).into_iter().map(|i| left[i]));
    chosen.sort_unstable();
    chosen
}

/// A place of the world within the head, metres.
fn within(pose: &Pose, place: DVec3) -> DVec3 {
    // with a scale of 4 units are metres
    DVec3::from(pose.to_model(place.as_vec3().to_array(), UNITS_PER_METRE).map(f64::from))
}

/// Root mean square distance of the landmarks that both faces have, metres; none if these are too few.
fn difference(a: &[Option<DVec3>], b: &[Option<DVec3>]) -> Option<f64> {
    let squares: Vec<f64> =
        a.iter().zip(b).filter_map(|(a, b)| Some((*a)?.distance((*b)?).min(LIMIT).powi(2))).collect();
    (squares.len() >= COMMON).then(|| (squares.iter().sum::<f64>() / squares.len() as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::face_mesh::POINTS;

    /// A face in some pose; the lower third of its landmarks drops by `jaw`, the upper third rises by `brow`, metres.
    fn face(turn: f64, jaw: f64, brow: f64) -> Vec<Option<DVec3>> {
        let pose = Pose { rotation: [0.1, turn, 0.0], translation: [0.02 * turn, 0.01, -0.03] };
        let moved = |i: usize| {
            let shift = match 3 * i / POINTS {
                0 => -jaw,
                2 => brow,
                _ => 0.0,
            };
            let p = place(i) + DVec3::new(0.0, shift * UNITS_PER_METRE, 0.0);
            Some(DVec3::from(pose.to_world(p.as_vec3().to_array(), 1.0).map(f64::from)))
        };
        (0..POINTS).map(moved).collect()
    }

    fn place(i: usize) -> DVec3 {
        let (t, height) = (i as f64 * 2.399, i as f64 / POINTS as f64 - 0.5);
        DVec3::new(0.3 * t.cos(), 0.8 * height, 0.3 * t.sin().abs())
    }

    #[test]
    fn faces_that_differ_are_chosen_and_turned_heads_are_not() {
        let places: Vec<_> = (0..POINTS).map(|i| Some(place(i))).collect();
        // a head that turns without a word, then opens its mouth, then raises its brows
        let mut frames: Vec<_> = (0..6).map(|i| face(0.15 * i as f64, 0.0005, 0.0)).collect();
        frames.push(face(0.0, 0.012, 0.0));
        frames.push(face(0.3, 0.011, 0.0));
        frames.push(face(0.2, 0.0, 0.009));
        let diverse = |n: usize| choose(KeyChoice::Diverse, n, &frames, Some(&places), 1.0);
        let three = diverse(3);
        assert!(three[0] < 6 && three[1..] == [6, 8], "{three:?}");
        assert_eq!(
            diverse(4),
            [three.clone(), vec![7]]
                .concat()
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
        assert_eq!(diverse(3), three, "it is the same every time");
        assert_eq!(diverse(20), (0..9).collect::<Vec<_>>());
        assert_eq!(choose(KeyChoice::Spread, 3, &frames, Some(&places), 1.0), [1, 4, 7]);
        // without the model's places, or without landmarks, nobody knows what differs
        assert_eq!(choose(KeyChoice::Diverse, 3, &frames, None, 1.0), [1, 4, 7]);
        frames[6] = vec![None; POINTS];
        frames[8] = Vec::new();
        let chosen = choose(KeyChoice::Diverse, 2, &frames, Some(&places), 1.0);
        assert!(chosen[0] < 6 && chosen[1] == 7, "{chosen:?}");
        let all = vec![Vec::new(); 4];
        assert_eq!(choose(KeyChoice::Diverse, 2, &all, Some(&places), 1.0), [1, 3]);
    }
}
