//! `evaluate_animation`: whether the avatar does what its driver does, seen in pictures alone: there is no truth to
//! compare a render with.
//!
//! reads: timestep, render, image; with person?
//! writes: expression_distance, expression_still (% of the face's width), pose_distance, pose_still (degrees), csim,
//! csim_driver (cosine)
//!
//! A group is a film of the avatar beside the driver's pictures (`image`) of the same moments from about the same side.
//! In both the 468 points of MediaPipe's face mesh are found, with the network's guess of their depth; a similarity
//! that most points agree on takes each face to the first one of its film. Its rotation is the head's pose, relative to
//! that first face; what remains is expression and identity, and the mean over the film, which is subtracted, is
//! identity. So detector is compared with detector, and what differs between the two people at all moments cancels.
//!
//! `expression_distance` is the mean distance of the avatar's displacements from the driver's, `pose_distance` the
//! angle between their rotations; the `_still` columns are the driver's own displacements and rotations: the distances
//! of an avatar that never moves. The paper's AED and APD compare parameters of DECA and are other numbers. `csim` is
//! the cosine of the face descriptors of a render and of the avatar's person, which is the mean over the pictures
//! (`target`) of the constant `person`; `csim_driver` that of the render and the driver's picture: what of the driver's
//! looks came along. Null where the mesh is not sure of a face in one of the pictures, and distances of films in which
//! it is sure of one moment only.

use crate::common::landmarks::{Face, SIDES, refine, sure_face};
use crate::common::media::Image;
use crate::common::timesteps::in_time;
use crate::evaluate_faces::described;
use anyhow::{Context, Result};
use geometry::align::robust_umeyama;
use glam::{DQuat, DVec3};
use manifests::Type;
use models::face_descriptor::{FaceDescriptor, likeness};
use models::face_mesh::FaceMesh;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The wheel of mediapipe 0.10.14, which holds the face networks.
    networks: PathBuf,
    /// The weights of the descriptor: the npm package @vladmandic/face-api 1.7.15. Without them nothing is known of
    /// likeness.
    #[serde(default)]
    descriptor: Option<PathBuf>,
    /// How often the mesh looks again, where its own points say.
    #[serde(default = "refine")]
    refine: usize,
}

fn def() -> StageDef {
    StageDef::new("evaluate_animation", 3, Grain::Group)
        .doc("Expression and pose of an animated avatar against its driver's, by landmarks in pictures of both.")
        .reads([("timestep", Type::I64), ("render", Type::Blob), ("image", Type::Blob)])
        .writes([("expression_distance", Type::F64), ("expression_still", Type::F64)])
        .may_take("person", [("target", Type::Blob)])
        .writes([("pose_distance", Type::F64), ("pose_still", Type::F64)])
        .writes([("csim", Type::F64), ("csim_driver", Type::F64)])
        .file_param("networks")
        .file_param("descriptor")
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    let networks = FaceMesh::load(&params.networks)?;
    let descriptor = params.descriptor.as_ref().map(|path| FaceDescriptor::load(path)).transpose()?;
    let mut known = EvaluateAnimation { params, networks, descriptor, person: None };
    known.person = known.mean_face(cx)?;
    anyhow::Ok(known)
});

struct EvaluateAnimation {
    params: Params,
    networks: FaceMesh,
    descriptor: Option<FaceDescriptor>,
    /// Mean descriptor of the avatar's person.
    person: Option<Vec<f64>>,
}

impl Stage for EvaluateAnimation {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.score(unit, cx)).collect()
    }
}

impl EvaluateAnimation {
    fn score(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let rows = unit.rows();
        let order = in_time(&rows)?;
        // moments at which both faces were found
        let (mut found, mut avatar, mut driver, mut alike) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (done, (timestep, i)) in order.iter().enumerate() {
            let [a, d] = ["render", "image"].map(|column| self.face(&rows[*i].path(column)?));
            let place = || format!("timestep {timestep}");
            if let (Some(a), Some(d)) = (a.with_context(place)?, d.with_context(place)?) {
                found.push(*i);
                alike.push(self.likeness(&a, &d));
                avatar.push(a.1.places());
                driver.push(d.1.places());
            }
            cx.progress(done + 1, order.len(), "");
        }
        let distances = distances(&avatar, &driver)?;
        let row = |(_, i): &(i64, usize)| {
            let known = found.iter().position(|f| f == i);
            let value = |of: fn(&Distances) -> f64| known.and_then(|at| distances.get(at)).map(of);
            let likeness = |side: usize| known.and_then(|at| alike[at][side]);
            OutRow::of(*i)
                .maybe_f64("expression_distance", value(|d| d.expression))
                .maybe_f64("expression_still", value(|d| d.expression_still))
                .maybe_f64("pose_distance", value(|d| d.pose))
                .maybe_f64("pose_still", value(|d| d.pose_still))
                .maybe_f64("csim", likeness(0))
                .maybe_f64("csim_driver", likeness(1))
        };
        Ok(order.iter().map(row).collect())
    }

    /// The face in a picture; none if the mesh is not sure of it.
    fn face(&self, path: &Path) -> Result<Option<(Image, Face)>> {
        sure_face(&self.networks, path, self.params.refine)
    }

    /// Cosines of a render's descriptor with those of the avatar's person and of the driver.
    fn likeness(&self, (render, its_face): &(Image, Face), (driver, face): &(Image, Face)) -> [Option<f64>; 2] {
        let Some(network) = &self.descriptor else { return [None; 2] };
        let render = described(network, render, its_face);
        let person = self.person.as_ref().map(|person| likeness(&render, person).0);
        [person, Some(likeness(&render, &described(network, driver, face)).0)]
    }

    /// The mean descriptor over the pictures of the constant `person` in which a face is found.
    fn mean_face(&self, cx: &Cx<'_>) -> Result<Option<Vec<f64>>> {
        let (Some(network), Some(table)) = (&self.descriptor, cx.maybe_with("person")) else { return Ok(None) };
        let mut sum: Option<Vec<f64>> = None;
        for row in table.rows() {
            if let Some((image, face)) = self.face(&row.path("target")?)? {
                let numbers = described(network, &image, &face);
                match &mut sum {
                    None => sum = Some(numbers),
                    Some(sum) => sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number),
                }
            }
        }
        // a cosine does not ask for the length
        Ok(sum)
    }
}

/// Of a moment.
#[derive(Clone, Copy, Debug)]
struct Distances {
    /// Per cent of the face's width.
    expression: f64,
    expression_still: f64,
    /// Degrees.
    pose: f64,
    pose_still: f64,
}

/// A face of a film without its mean.
struct Moved {
    /// From the first face's pose to this one's.
    turn: DQuat,
    /// Of each point from its mean, face widths, in the frame of the first face.
    displaced: Vec<DVec3>,
}

/// What moves in a film of faces, and its mean face, face widths.
fn motion(film: &[Vec<DVec3>]) -> Result<(Vec<Moved>, Vec<DVec3>)> {
    let first = &film[0];
    let width = first[SIDES[0]].distance(first[SIDES[1]]);
    let mut aligned = Vec::new();
    let mut turns = Vec::new();
    for face in film {
        let back = robust_umeyama(face, first, true).context("a face's landmarks lie on a line")?;
        aligned.push(face.iter().map(|p| back.apply(*p) / width).collect::<Vec<_>>());
        turns.push(back.rotation.inverse());
    }
    let mean: Vec<DVec3> =
        (0..first.len()).map(|i| aligned.iter().map(|face| face[i]).sum::<DVec3>() / film.len() as f64).collect();
    let displaced = |face: Vec<DVec3>| face.into_iter().zip(&mean).map(|(p, mean)| p - *mean).collect();
    let moved = turns.into_iter().zip(aligned).map(|(turn, face)| Moved { turn, displaced: displaced(face) });
    Ok((moved.collect(), mean))
}

/// Distances of two films of the same moments; none of a single one, which is its own mean and would be at no distance
/// from anything.
fn distances(avatar: &[Vec<DVec3>], driver: &[Vec<DVec3>]) -> Result<Vec<Distances>> {
    if avatar.len() < 2 {
        return Ok(Vec::new());
    }
    let ((avatar, mean), (driver, mean_driver)) = (motion(avatar)?, motion(driver)?);
    // the avatar's frame to the driver's: the first faces may look in different directions
    let across = robust_umeyama(&mean, &mean_driver, true).context("the mean faces cannot be aligned")?.rotation;
    let mean_length = |of: Vec<DVec3>| 100.0 * of.iter().map(|d| d.length()).sum::<f64>() / of.len() as f64;
    let angle = |turn: DQuat| (2.0 * turn.xyz().length().atan2(turn.w.abs())).to_degrees();
    let moment = |(a, d): (Moved, Moved)| {
        let apart = a.displaced.iter().zip(&d.displaced).map(|(a, d)| across * *a - *d).collect();
        let turned = across * a.turn * across.inverse();
        Distances {
            expression: mean_length(apart),
            pose: angle(turned * d.turn.inverse()),
            pose_still: angle(d.turn),
            expression_still: mean_length(d.displaced),
        }
    };
    Ok(avatar.into_iter().zip(driver).map(moment).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::face_mesh::POINTS;

    /// A face of which a fifth drops by `open`, turned and elsewhere in the picture, of somebody with a longer or a
    /// shorter face. Left is like right, above like below and front like back, or the best fit of a longer face would
    /// tilt it, and directions in it with it.
    fn face(open: f64, turn: f64, long: f64) -> Vec<DVec3> {
        let sign = |positive: bool| if positive { 1.0 } else { -1.0 };
        let point = |i: usize| {
            let (t, right, below, before) =
                ((i / 8) as f64, sign(i.is_multiple_of(2)), sign(i % 4 < 2), sign(i % 8 < 4));
            let p = match SIDES.iter().position(|side| *side == i) {
                Some(side) => DVec3::new(45.0 * sign(side == 1), 0.0, 0.0),
                None => DVec3::new(
                    right * (t * 0.7).sin() * 40.0,
                    below * (t * 1.3).cos() * 50.0 * long,
                    before * (t * 0.3).sin() * 20.0,
                ),
            };
            DQuat::from_rotation_y(turn) * (p + if (i / 8).is_multiple_of(5) { DVec3::Y * open } else { DVec3::ZERO })
        };
        (0..POINTS).map(|i| point(i) + DVec3::new(90.0 + 100.0 * turn, 80.0, 0.0)).collect()
    }

    #[test]
    fn who_does_the_same_is_near_and_who_stays_still_is_as_far_as_the_driver_moves() {
        let does = [(0.0, 0.0), (8.0, 0.1), (16.0, -0.2), (4.0, 0.15)];
        let film = |long: f64, share: f64| does.map(|(open, turn)| face(share * open, share * turn, long)).to_vec();
        let driver = film(1.2, 1.0);
        let (same, still) =
            (distances(&film(1.0, 1.0), &driver).unwrap(), distances(&film(1.0, 0.0), &driver).unwrap());
        for (i, (_, turn)) in does.into_iter().enumerate() {
            let (same, still) = (same[i], still[i]);
            assert!(same.pose < 0.1 && same.expression < 0.05 * same.expression_still, "{same:?}");
            assert!(
                (still.pose - turn.abs().to_degrees()).abs() < 0.1 && (still.pose - still.pose_still).abs() < 1e-3,
                "{still:?}"
            );
            assert!((still.expression - still.expression_still).abs() < 1e-6, "{still:?}");
        }
        // a fifth of the points, on average so far from its mean of 7 px
        let width = face(0.0, 0.0, 1.2)[SIDES[0]].distance(face(0.0, 0.0, 1.2)[SIDES[1]]);
        assert!((same[2].expression_still - 100.0 * 9.0 / 5.0 / width).abs() < 0.1, "{:?} {width}", same[2]);
        assert!(distances(&[], &[]).unwrap().is_empty());
        assert!(distances(&driver[..1], &driver[..1]).unwrap().is_empty(), "one moment tells nothing of motion");
    }
}
