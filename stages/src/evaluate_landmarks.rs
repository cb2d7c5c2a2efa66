//! `evaluate_landmarks`: whether landmarks on the tracked surface are where detectors see them in the pictures.
//!
//! reads: sequence, timestep, mesh, landmarks3d, landmarks, landmark_confidence, intrinsics, world_to_cam, width,
//! height, truth?; with landmarks
//! writes: sequence, timestep, reprojection, reprojection_on_surface, reprojection_mean_places,
//! reprojection_triangulated, reprojection_truth, landmark_views
//!
//! A group is a person tracked by one method; its rows are views, and a row comes out for each moment. All errors are
//! mean distances in the picture, in per cent of the face's width as that camera would see it head-on: the distance of
//! the two outermost landmarks on the head model, times focal length over depth. Counted are views that the detector is
//! sure of, and in them landmarks whose surface looks at the camera (the detector guesses the others).
//!
//! A landmark is a point of the canonical head, as it is for the tracker, and need not lie on its surface: what the
//! views of a detector agree on is some millimetres before or behind the skin, by landmark. The tracked mesh, which
//! carries canonical coordinates, says where it is at a moment: as far above the surface there as above the canonical
//! one. Which point it is differs between people, and what a network means by it is not known. `reprojection` takes the
//! person's own: the median, over the frames of all *other* sequences, of the canonical points where triangulated
//! landmarks are; so a landmark that slides over the skin from one sequence to another is an error, and a constant
//! difference in what is meant is none. Null if the person has one sequence. `reprojection_on_surface` lays the same
//! points down on the surface. `reprojection_mean_places` takes the head model's places (the mean of other people's),
//! and so counts in how this person differs. `reprojection_triangulated` is the error of the triangulated landmarks
//! themselves, for the same landmarks and views: what no surface could be expected to go below. `reprojection_truth`,
//! of captures whose `truth` is there, is what `reprojection` would be of the true surface: detected landmarks slide
//! over the skin when a face moves, so it is not zero, and a tracker below it follows the detector rather than the
//! head.

use crate::common::head_models::HEAD_CENTER;
use crate::common::head_validation::content;
use crate::common::landmarks::{self, PLACES, TRIANGULATED};
use crate::common::media::camera_of;
use crate::common::tracked;
use anyhow::{Context, Result, ensure};
use datasets::truth::Truth;
use geometry::distance::{MeshDistance, closest_on_triangle};
use geometry::{Camera, Mesh};
use glam::{DVec2, DVec3, Vec3};
use manifests::Type;
use metrics::quantile::median;
use models::face_mesh::POINTS;
use models::nphm::pose::UNITS_PER_METRE;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Views in which the face is less certain are left out.
    #[serde(default = "min_confidence")]
    min_confidence: f64,
    /// Landmarks whose surface is turned away from the camera by more than this are left out, degrees.
    #[serde(default = "max_angle")]
    max_angle: f64,
}

fn min_confidence() -> f64 {
    0.5
}
fn max_angle() -> f64 {
    70.0
}

/// A triangulated landmark farther from the tracked surface than this, metres, says nothing about where on it the
/// landmark is.
const ON_SURFACE: f32 = 0.02;

/// A canonical place, on the surface or above or below it: position (model units) and ambient coordinates.
type Place = [f32; 5];

fn def() -> StageDef {
    StageDef::new("evaluate_landmarks", 4, Grain::Group)
        .doc("Reprojection of landmarks that the tracked surface carries, in per cent of the face's width.")
        .reads([("sequence", Type::Str), ("timestep", Type::I64), ("mesh", Type::Blob), TRIANGULATED])
        .reads([("landmarks", Type::Floats(2 * POINTS as u32)), ("landmark_confidence", Type::F64)])
        .reads([("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .reads([("width", Type::I64), ("height", Type::I64)])
        .may_read([("truth", Type::Blob)])
        .with("landmarks", [PLACES])
        .writes([("sequence", Type::Str), ("timestep", Type::I64), ("reprojection", Type::F64)])
        .writes([("reprojection_on_surface", Type::F64), ("reprojection_mean_places", Type::F64)])
        .writes([("reprojection_triangulated", Type::F64)])
        .writes([("reprojection_truth", Type::F64), ("landmark_views", Type::I64)])
        .memory_mb(500)
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    let places = landmarks::mean_places(cx.with("landmarks")?)?;
    let [right, left] = landmarks::SIDES.map(|i| places[i]);
    let width = right.zip(left).map(|(a, b)| a.distance(b) / UNITS_PER_METRE);
    let width = width
        .context("the head model has no landmarks at the sides of the face, which its width is measured between")?;
    anyhow::Ok(EvaluateLandmarks { params, places, width })
});

struct EvaluateLandmarks {
    params: Params,
    /// Where the head model has its landmarks, model units.
    places: Vec<Option<DVec3>>,
    /// Width of the face, metres.
    width: f64,
}

impl Stage for EvaluateLandmarks {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.score(unit, cx)).collect()
    }
}

/// The tracked surface of a moment.
struct Surface {
    mesh: Mesh,
    normals: Vec<Vec3>,
    canonical: Vec<Place>,
    /// Of the canonical surface.
    canonical_normals: Vec<Vec3>,
    /// Faces around each vertex.
    around: Vec<Vec<u32>>,
}

/// A point of the surface or above it, world: what lies below it on the surface, the way out of the surface there, and
/// how far that way it is, metres.
#[derive(Clone, Copy, Debug)]
struct Spot {
    foot: DVec3,
    normal: DVec3,
    height: f64,
}

impl Spot {
    fn position(&self) -> DVec3 {
        self.foot + self.height * self.normal
    }
}

impl Surface {
    fn new(mesh: Mesh, canonical: Vec<Place>) -> Surface {
        let mut around = vec![Vec::new(); mesh.positions.len()];
        for (f, face) in mesh.faces.iter().enumerate() {
            face.iter().for_each(|v| around[*v as usize].push(f as u32));
        }
        let positions = canonical.iter().map(|place| Vec3::from_slice(place)).collect();
        let at_rest = Mesh { positions, faces: mesh.faces.clone() };
        let canonical_normals = at_rest.vertex_normals();
        Surface { normals: mesh.vertex_normals(), mesh, canonical, canonical_normals, around }
    }

    /// What a point of a face has of values of its corners.
    fn mixed(face: [u32; 3], bary: Vec3, values: &[Vec3]) -> Vec3 {
        (0..3).map(|k| bary[k] * values[face[k] as usize]).sum()
    }

    /// Canonical places of triangulated landmarks: as far above the canonical surface as they are above this one.
    fn places_of(&self, found: &[Option<DVec3>]) -> Vec<Option<Place>> {
        let distance = MeshDistance::new(&self.mesh);
        let place = |p: &DVec3| {
            let near = distance.closest(p.as_vec3()).filter(|near| near.distance < ON_SURFACE)?;
            let face = self.mesh.faces[near.face as usize];
            let mixed = |values: &[Vec3]| Self::mixed(face, near.bary, values);
            let height = (p.as_vec3() - mixed(&self.mesh.positions)).dot(mixed(&self.normals).normalize_or_zero());
            let above = mixed(&self.canonical_normals).normalize_or_zero() * height * UNITS_PER_METRE as f32;
            let corners = face.map(|v| self.canonical[v as usize]);
            let below = |i: usize| (0..3).map(|k| near.bary[k] * corners[k][i]).sum::<f32>();
            Some(std::array::from_fn(|i| below(i) + if i < 3 { above[i] } else { 0.0 }))
        };
        found.iter().map(|p| p.as_ref().and_then(place)).collect()
    }

    /// Where the point with a canonical place is: below it the vertex nearest to the place, then the nearest point of
    /// the faces around it. Lips that touch in the canonical head are told apart by the ambient coordinates, if the
    /// place has them.
    fn spot(&self, place: &[f32]) -> Option<Spot> {
        let distance = |c: &Place| place.iter().zip(c).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let (nearest, _) = self
            .canonical
            .iter()
            .enumerate()
            .filter(|(v, _)| !self.around[*v].is_empty())
            .map(|(v, c)| (v, distance(c)))
            .min_by(|a, b| a.1.total_cmp(&b.1))?;
        let at = Vec3::from_slice(place);
        let in_face = |f: &u32| {
            let face = self.mesh.faces[*f as usize];
            let corners = face.map(|v| Vec3::from_slice(&self.canonical[v as usize]));
            let (point, bary) = closest_on_triangle(at, corners);
            (point.distance_squared(at), face, bary)
        };
        let (_, face, bary) = self.around[nearest].iter().map(in_face).min_by(|a, b| a.0.total_cmp(&b.0))?;
        let mixed = |values: &[Vec3]| Self::mixed(face, bary, values);
        let corners = face.map(|v| Vec3::from_slice(&self.canonical[v as usize]));
        let below: Vec3 = corners.iter().zip(bary.to_array()).map(|(p, b)| *p * b).sum();
        let height = (at - below).dot(mixed(&self.canonical_normals).normalize_or_zero());
        Some(Spot {
            foot: mixed(&self.mesh.positions).as_dvec3(),
            normal: mixed(&self.normals).as_dvec3().normalize_or_zero(),
            height: f64::from(height) / UNITS_PER_METRE,
        })
    }

    fn spots<'a>(&self, places: impl Iterator<Item = Option<&'a [f32]>>) -> Vec<Option<Spot>> {
        places.map(|place| self.spot(place?)).collect()
    }
}

impl Surface {
    /// The tracked surface of a moment.
    fn tracked(path: &Path) -> Result<Surface> {
        let (mesh, canonical) = tracked::read_mesh(path)?;
        Ok(Surface::new(mesh, canonical))
    }

    /// The true surface of a moment; its canonical coordinates are the neutral face.
    fn truth(path: &Path) -> Result<Surface> {
        let truth = Truth::read(path)?;
        let center = Vec3::from(HEAD_CENTER);
        let canonical = truth.canonical.iter().map(|p| (*p * UNITS_PER_METRE as f32 + center).extend(0.0));
        let canonical = canonical.map(|p| [p.x, p.y, p.z, p.w, 0.0]).collect();
        Ok(Surface::new(Mesh { positions: truth.positions, faces: truth.faces }, canonical))
    }
}

/// A moment, without its surfaces: of all moments they would not fit into memory.
struct Moment {
    sequence: String,
    timestep: i64,
    found: Vec<Option<DVec3>>,
    /// Canonical places of the landmarks, as the tracked surface has them.
    places: Vec<Option<Place>>,
    /// As the true one has them.
    true_places: Option<Vec<Option<Place>>>,
    mesh: PathBuf,
    truth: Option<PathBuf>,
    views: Vec<(Camera, Vec<[f64; 2]>)>,
}

impl EvaluateLandmarks {
    fn score(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let mut by_time: BTreeMap<(String, i64), Vec<Row<'_>>> = BTreeMap::new();
        for row in unit.rows() {
            by_time.entry((row.str("sequence")?, row.i64("timestep")?)).or_default().push(row);
        }
        let total = 2 * by_time.len();
        let mut moments = Vec::new();
        for (key, rows) in by_time {
            moments.push(self.moment(key, &rows)?);
            cx.progress(moments.len(), total, "");
        }
        let mean_places: Vec<Option<[f32; 3]>> =
            self.places.iter().map(|p| p.map(|p| p.as_vec3().to_array())).collect();
        let mut own: BTreeMap<&str, (Vec<Option<Place>>, Vec<Option<Place>>)> = BTreeMap::new();
        let mut out = Rows::new();
        for (done, moment) in moments.iter().enumerate() {
            let surface = Surface::tracked(&moment.mesh)?;
            let (places, true_places) = own.entry(&moment.sequence).or_insert_with_key(|without| {
                (
                    own_places(&moments, without, |m| Some(&m.places)),
                    own_places(&moments, without, |m| m.true_places.as_ref()),
                )
            });
            let own = surface.spots(places.iter().map(|p| p.as_ref().map(|p| p.as_slice())));
            let truth = match &moment.truth {
                Some(path) => Surface::truth(path)?.spots(true_places.iter().map(|p| p.as_ref().map(|p| p.as_slice()))),
                None => vec![None; POINTS],
            };
            let mean = surface.spots(mean_places.iter().map(|p| p.as_ref().map(|p| p.as_slice())));
            // what was triangulated looks where the surface does there
            let triangulated: Vec<Option<Spot>> = moment
                .found
                .iter()
                .zip(&mean)
                .map(|(p, spot)| Some(Spot { foot: (*p)?, height: 0.0, ..(*spot)? }))
                .collect();
            let laid_down: Vec<Option<Spot>> =
                own.iter().map(|spot| spot.map(|spot| Spot { height: 0.0, ..spot })).collect();
            // the same landmarks in the same views for all, as far as they are known
            let counted = |i: usize| triangulated[i].is_some() && (own[i].is_some() || own.iter().all(Option::is_none));
            let error = |spots: &[Option<Spot>]| self.error(spots, &mean, &moment.views, &counted);
            let row = OutRow::new()
                .str("sequence", &moment.sequence)
                .i64("timestep", moment.timestep)
                .maybe_f64("reprojection", error(&own))
                .maybe_f64("reprojection_on_surface", error(&laid_down))
                .maybe_f64("reprojection_mean_places", error(&mean))
                .maybe_f64("reprojection_triangulated", error(&triangulated))
                .maybe_f64("reprojection_truth", error(&truth))
                .i64("landmark_views", moment.views.len());
            out.push(row);
            cx.progress(moments.len() + done + 1, total, "");
        }
        Ok(out)
    }

    fn moment(&self, (sequence, timestep): (String, i64), rows: &[Row<'_>]) -> Result<Moment> {
        let mesh = rows[0].path("mesh")?;
        for row in rows {
            ensure!(
                content(&row.path("mesh")?) == content(&mesh),
                "sequence {sequence} has several meshes at timestep {timestep}\nhint: `by: [participant]` keeps people apart"
            );
        }
        let found = landmarks::of_column(&rows[0].floats(TRIANGULATED.0)?);
        let places = Surface::tracked(&mesh)?.places_of(&found);
        let truth = rows[0].maybe_path("truth")?;
        let true_places = truth.as_ref().map(|path| Ok::<_, anyhow::Error>(Surface::truth(path)?.places_of(&found)));
        let true_places = true_places.transpose()?;
        let mut views = Vec::new();
        for row in rows {
            if row.f64("landmark_confidence")? >= self.params.min_confidence {
                views.push((camera_of(row, None)?, row.floats("landmarks")?.as_chunks::<2>().0.to_vec()));
            }
        }
        Ok(Moment { sequence, timestep, found, places, true_places, mesh, truth, views })
    }

    /// Mean error over views and the landmarks that count, per cent; none if there is nothing to compare. `facing` says
    /// which way the surface looks at each landmark.
    fn error(
        &self,
        spots: &[Option<Spot>],
        facing: &[Option<Spot>],
        views: &[(Camera, Vec<[f64; 2]>)],
        counted: &impl Fn(usize) -> bool,
    ) -> Option<f64> {
        let cosine = self.params.max_angle.to_radians().cos();
        let (mut sum, mut n) = (0.0, 0usize);
        for (camera, seen) in views {
            let eye = camera.center();
            let focal = f64::midpoint(camera.intrinsics.x_axis.x, camera.intrinsics.y_axis.y);
            for (i, pixel) in seen.iter().enumerate() {
                let (Some(spot), Some(way)) = (spots[i], facing[i]) else { continue };
                if !counted(i) || way.normal.dot((eye - way.foot).normalize()) < cosine {
                    continue;
                }
                let (projected, depth) = camera.project(spot.position());
                if depth > 0.0 {
                    sum += 100.0 * projected.distance(DVec2::from(*pixel)) / (self.width * focal / depth);
                    n += 1;
                }
            }
        }
        (n > 0).then(|| sum / n as f64)
    }
}

/// A person's own places of landmarks on one kind of surface, from all sequences but one: medians over their moments.
fn own_places<'a>(
    moments: &'a [Moment],
    without: &str,
    of: impl Fn(&'a Moment) -> Option<&'a Vec<Option<Place>>>,
) -> Vec<Option<Place>> {
    let others: Vec<&Vec<Option<Place>>> = moments.iter().filter(|m| m.sequence != without).filter_map(of).collect();
    (0..POINTS).map(|i| middle(&others.iter().filter_map(|places| places[i]).collect::<Vec<_>>())).collect()
}

/// The median, coordinate by coordinate.
fn middle(places: &[Place]) -> Option<Place> {
    let mut middle = Place::default();
    for (axis, value) in middle.iter_mut().enumerate() {
        *value = median(places.iter().map(|p| f64::from(p[axis])).collect())? as f32;
    }
    Some(middle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datasets::capture::portrait_camera;

    /// A bowl, open to the back, whose canonical coordinates are its rest positions in model units, moved by `shift`
    /// metres.
    fn bowl(shift: Vec3) -> Surface {
        let n = 40i32;
        let mut mesh = Mesh { positions: Vec::new(), faces: Vec::new() };
        for y in 0..n {
            for x in 0..n {
                let (x, y) = ((x as f32 / (n - 1) as f32 - 0.5) * 0.2, (y as f32 / (n - 1) as f32 - 0.5) * 0.2);
                mesh.positions.push(Vec3::new(x, y, -5.0 * (x * x + y * y)));
            }
        }
        for y in 0..n - 1 {
            for x in 0..n - 1 {
                let [a, b, c, d] = [y * n + x, y * n + x + 1, (y + 1) * n + x, (y + 1) * n + x + 1].map(|v| v as u32);
                mesh.faces.extend([[a, b, c], [b, d, c]]);
            }
        }
        let canonical = mesh.positions.iter().map(|p| [p.x * 4.0, p.y * 4.0, p.z * 4.0, 0.0, 0.0]).collect();
        mesh.positions.iter_mut().for_each(|p| *p += shift);
        Surface::new(mesh, canonical)
    }

    fn stage() -> EvaluateLandmarks {
        let params = Params { min_confidence: 0.5, max_angle: 70.0 };
        EvaluateLandmarks { params, places: Vec::new(), width: 0.14 }
    }

    /// Points of the bowl at rest, metres.
    fn points() -> Vec<Option<DVec3>> {
        points_beside(0.0)
    }

    /// Others, each so many metres to the right of one of those.
    fn points_beside(aside: f64) -> Vec<Option<DVec3>> {
        let point = |i: usize| {
            let (x, y) = ((i as f64 * 0.7).sin() * 0.05 + aside, (i as f64 * 1.3).cos() * 0.05);
            DVec3::new(x, y, -5.0 * (x * x + y * y))
        };
        (0..POINTS).map(|i| Some(point(i))).collect()
    }

    #[test]
    fn landmarks_move_with_the_surface_and_an_error_is_in_per_cent_of_the_width() {
        let places = bowl(Vec3::ZERO).places_of(&points());
        let moved = bowl(Vec3::new(0.03, -0.01, 0.02));
        let spots = moved.spots(places.iter().map(|p| p.as_ref().map(|p| p.as_slice())));
        for (spot, point) in spots.iter().zip(points()) {
            let there = point.unwrap() + DVec3::new(0.03, -0.01, 0.02);
            assert!(spot.unwrap().position().distance(there) < 5e-4, "{spot:?} {there}");
        }
        // from in front, landmarks seen 2.8 mm aside are 2 % of 140 mm off
        let camera = portrait_camera(0.0, 0.0, 1.0, 320, 320);
        let aside = DVec3::new(0.0028, 0.0, 0.0);
        let seen = spots.iter().map(|s| camera.project(s.unwrap().position() + aside).0.to_array()).collect();
        let error = stage().error(&spots, &spots, &[(camera, seen)], &|_| true).unwrap();
        assert!((error - 2.0).abs() < 0.01, "{error}");
    }

    #[test]
    fn a_landmark_above_the_skin_stays_above_it() {
        let above = |p: DVec3| p + 0.006 * DVec3::new(10.0 * p.x, 10.0 * p.y, 1.0).normalize();
        let found: Vec<_> = points().into_iter().map(|p| p.map(above)).collect();
        let rest = bowl(Vec3::ZERO);
        let places = rest.places_of(&found);
        // the head turns, and its landmarks with it
        let turn = glam::Quat::from_rotation_y(0.5);
        let mut turned = rest.mesh.clone();
        turned.positions.iter_mut().for_each(|p| *p = turn * *p + Vec3::new(0.1, 0.0, -0.2));
        let turned = Surface::new(turned, rest.canonical.clone());
        let spots = turned.spots(places.iter().map(|p| p.as_ref().map(|p| p.as_slice())));
        for (spot, point) in spots.iter().zip(found) {
            let there = turn.as_dquat() * point.unwrap() + DVec3::new(0.1, 0.0, -0.2);
            let spot = spot.unwrap();
            assert!(spot.position().distance(there) < 5e-4, "{spot:?} {there}");
            assert!((spot.height - 0.006).abs() < 5e-4 && (spot.foot.distance(there) - 0.006).abs() < 5e-4, "{spot:?}");
        }
    }

    #[test]
    fn what_is_turned_away_does_not_count() {
        let surface = bowl(Vec3::ZERO);
        let places = surface.places_of(&points());
        let spots = surface.spots(places.iter().map(|p| p.as_ref().map(|p| p.as_slice())));
        let behind = portrait_camera(180.0, 0.0, 1.0, 320, 320);
        let seen = vec![[0.0, 0.0]; POINTS];
        assert_eq!(stage().error(&spots, &spots, &[(behind, seen)], &|_| true), None);
    }

    #[test]
    fn own_places_come_from_other_sequences() {
        // a face on which landmarks are found so many metres aside
        let moment = |sequence: &str, aside: f64| Moment {
            sequence: sequence.into(),
            timestep: 0,
            found: Vec::new(),
            places: bowl(Vec3::ZERO).places_of(&points_beside(aside)),
            true_places: None,
            mesh: PathBuf::new(),
            truth: None,
            views: Vec::new(),
        };
        let moments = [moment("a", 0.005), moment("b", 0.01), moment("b", 0.015), moment("c", 0.02)];
        let tracked = |moments: &[Moment], without: &str| {
            let place = own_places(moments, without, |m| Some(&m.places))[7]?;
            Some(f64::from(place[0]) / 4.0 - points()[7].unwrap().x)
        };
        assert!((tracked(&moments, "b").unwrap() - 0.0125).abs() < 1e-3, "half way between a and c");
        assert!((tracked(&moments, "a").unwrap() - 0.015).abs() < 1e-3, "of b, b and c the middle one");
        assert_eq!(tracked(&moments[..1], "a"), None);
        assert!(own_places(&moments, "a", |m| m.true_places.as_ref()).iter().all(Option::is_none));
    }
}
