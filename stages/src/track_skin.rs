//! `track_skin`: where the skin of one moment is, found by how it looked at another.
//!
//! reads: timestep, camera, image, intrinsics, world_to_cam, width, height, mesh, expression, pose; with reference
//! (sequence?, these, lost, expression, landmarks3d), person
//! writes: skin (safetensors), skin_found, skin_moved_mm
//!
//! A group is what was filmed and tracked at one moment: its views, each with the tracked mesh. `reference` holds such
//! rows of the same person, of one moment or several; of these the one whose expression is smallest and that was not
//! lost counts. A surface may slide along itself and hardly change, so points in space do not tell where lips and brows
//! went; how the skin looks does. Each camera's picture of the reference is laid over the tracked mesh of this moment,
//! which makes the picture that the camera would have taken had the surface been tracked rightly, in the light of the
//! reference; optical flow from there to what it did take says by how much it was not. Where flow there and back agree,
//! and rays of at least `min_views` cameras meet, the skin was found: its place in the world, with the canonical place
//! that tracking had for it at the reference. `track_head` takes these (`skin`). `skin_moved_mm` is the median distance
//! from where the tracked mesh had them. After Beeler et al. 2011, "High-Quality Passive Facial Performance Capture
//! using Anchor Frames", who propagate one mesh from such a frame. What lies between the lids at the reference moves
//! with the gaze and is no skin. A group that shares no camera with the reference finds nothing. Sees pictures and
//! calibration, no truth.

use crate::common::flow::{flow_in_any_light, laid};
use crate::common::head_models::{HEAD_CENTER, Person, UNIT_MM};
use crate::common::landmarks;
use crate::common::media::{Image, camera_of};
use crate::common::regions::OpenEyes;
use crate::common::skin::{self, SKIN};
use crate::common::surfaces::Surface;
use anyhow::{Context, Result, ensure};
use geometry::Camera;
use geometry::raster::{Raster, rasterize};
use geometry::triangulate::{Agreement, View, triangulate};
use glam::{DVec2, Vec2, Vec3};
use manifests::Type;
use metrics::quantile::median;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Points of the skin lie about this far apart, mm.
    #[serde(default = "spacing_mm")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    spacing_mm: f64,
    /// A view agrees with a place whose projection is nearer than this to where the skin is in its picture, px.
    #[serde(default = "threshold_px")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    threshold_px: f64,
    /// Views that have to agree.
    #[serde(default = "min_views")]
    #[schemars(range(min = 2))]
    min_views: usize,
    /// Skin that would have moved further than this from where it was tracked was mistaken for other skin, mm.
    #[serde(default = "max_moved_mm")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    max_moved_mm: f64,
}

fn spacing_mm() -> f64 {
    2.5
}
fn threshold_px() -> f64 {
    1.0
}
fn min_views() -> usize {
    3
}
fn max_moved_mm() -> f64 {
    10.0
}

/// Nearer to a camera than this, m, nothing is drawn.
const NEAR: f32 = 0.05;
/// A place is seen if it lies no further than this from what its pixel shows, m.
const DEPTH: f32 = 0.004;
/// And if its surface is turned to the camera by at least this cosine: beyond, a pixel is much skin.
const FACING: f32 = 0.35;
/// Flow there and back may end this far from where it began, px.
const THERE_AND_BACK: f64 = 0.7;

const VIEW: [(&str, Type); 8] = [
    ("camera", Type::Str),
    ("image", Type::Blob),
    ("intrinsics", Type::Floats(9)),
    ("world_to_cam", Type::Floats(16)),
    ("width", Type::I64),
    ("height", Type::I64),
    ("mesh", Type::Blob),
    ("pose", Type::Floats(6)),
];

fn def() -> StageDef {
    StageDef::new("track_skin", 3, Grain::Group)
        .doc("Finds the skin of a moment again by how it looked at another, in all views.")
        .reads(VIEW)
        .reads([("timestep", Type::I64)])
        .with("reference", VIEW)
        .with("reference", skin::CHOSEN_BY)
        .with_may_read("reference", [skin::SEQUENCE])
        .with("reference", [landmarks::TRIANGULATED])
        .with("person", [("person", Type::Blob)])
        .writes([SKIN, ("skin_found", Type::I64), ("skin_moved_mm", Type::F64)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    let scale = Person::of(cx)?.scale;
    let rows: Vec<Row<'_>> = cx.with("reference")?.rows().collect();
    let rows = skin::reference(&rows)?;
    let mut reference = Tracked::read(&rows, scale).context("`reference`")?;
    let found = landmarks::of_column(&rows[0].floats(landmarks::TRIANGULATED.0)?);
    let eyes =
        OpenEyes::of(&found.into_iter().map(|p| Some(reference.surface.in_head(p?.as_vec3()))).collect::<Vec<_>>());
    let skin = reference.skin(&eyes, &params);
    ensure!(
        !skin.is_empty(),
        "no place of the face of `reference` is seen by {} cameras\nhint: are its rows all views of that moment?",
        params.min_views
    );
    // of what its cameras see only the depth is asked from now on, and all is held while the stage works
    for view in reference.views.values_mut() {
        (view.raster.tri_id, view.raster.bary) = Default::default();
    }
    anyhow::Ok(TrackSkin { params, scale, reference, skin })
});

struct TrackSkin {
    params: Params,
    scale: f64,
    reference: Tracked,
    /// Vertices of the reference's mesh that are found again.
    skin: Vec<usize>,
}

/// A moment: its surface and its pictures.
struct Tracked {
    surface: Surface,
    views: BTreeMap<String, Seen>,
}

/// A picture, its camera and what the surface looks like from there.
struct Seen {
    image: Image,
    camera: Camera,
    raster: Raster,
}

impl Stage for TrackSkin {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.track(unit, cx)).collect()
    }
}

/// Whether a canonical place, model units, is of the face or of what is bare around it: before the ears, below the
/// hair, above the neck.
fn is_skin(place: Vec3) -> bool {
    let q = place - Vec3::from(HEAD_CENTER);
    q.z > 0.06 && q.x.abs() < 0.26 && q.y > -0.44 && q.y < 0.26
}

/// What became of the skin.
struct Found {
    /// Where each point is, world metres; none where too few views agree.
    points: Vec<Option<Vec3>>,
    /// Its canonical place, model units.
    places: Vec<Vec3>,
    /// Where the tracked surface has it, if it does.
    expected: Vec<Option<Vec3>>,
}

impl TrackSkin {
    fn track(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let found = self.find(&Tracked::read(&unit.rows(), self.scale)?)?;
        let all = || found.points.iter().zip(&found.places).zip(&found.expected);
        let skin: Vec<([f32; 3], [f32; 3])> =
            all().filter_map(|((point, place), _)| Some(((*point)?.to_array(), place.to_array()))).collect();
        let mm = |((point, _), expected): ((&Option<Vec3>, _), &Option<Vec3>)| {
            Some(f64::from(1000.0 * (*point)?.distance((*expected)?)))
        };
        let moved = median(all().filter_map(mm).collect());
        let path = cx.file(unit, "skin.safetensors");
        skin::write(&path, &skin)?;
        Ok(vec![OutRow::new().file(SKIN.0, &path).i64("skin_found", skin.len()).maybe_f64("skin_moved_mm", moved)])
    }

    fn find(&self, now: &Tracked) -> Result<Found> {
        // where the surface of now was at the reference, and the skin of the reference is now, as tracked
        let before: Vec<Option<Vec3>> =
            now.surface.canonical.iter().map(|place| self.reference.surface.at(*place)).collect();
        let places: Vec<Vec3> = self.skin.iter().map(|v| self.reference.surface.canonical[*v]).collect();
        let expected: Vec<Option<(Vec3, Vec3)>> =
            places.iter().map(|place| now.surface.at_with_normal(*place)).collect();
        let shared: Vec<(&Seen, &Seen)> =
            now.views.iter().filter_map(|(name, view)| Some((view, self.reference.views.get(name)?))).collect();
        let sights = shared
            .par_iter()
            .map(|(view, was)| sights(now, view, was, &before, &expected))
            .collect::<Result<Vec<Vec<Option<DVec2>>>>>()?;
        let views: Vec<View> = shared.iter().map(|(view, _)| View::new(&view.camera, 1.0)).collect();
        let agreement = Agreement { threshold: self.params.threshold_px, min_views: self.params.min_views };
        let points = (0..places.len())
            .into_par_iter()
            .map(|k| {
                let seen: Vec<Option<DVec2>> = sights.iter().map(|view| view[k]).collect();
                let place = triangulate(&views, &seen, &agreement)?.position.as_vec3();
                let moved_mm = f64::from(1000.0 * place.distance(expected[k]?.0));
                (moved_mm <= self.params.max_moved_mm).then_some(place)
            })
            .collect();
        Ok(Found { points, places, expected: expected.into_iter().map(|e| e.map(|(place, _)| place)).collect() })
    }
}

/// Where each point of the skin, `expected` (with its normal) on the surface of now, is in one camera's picture, px;
/// none where that is not known. `before` is where the vertices of now were at the reference, which the same camera
/// took as `was`.
fn sights(
    now: &Tracked,
    view: &Seen,
    was: &Seen,
    before: &[Option<Vec3>],
    expected: &[Option<(Vec3, Vec3)>],
) -> Result<Vec<Option<DVec2>>> {
    let (width, height) = (view.image.width, view.image.height);
    let (expected_picture, known) = laid_over(now, view, was, before)?;
    let there = flow_in_any_light(&expected_picture, &view.image)?;
    let back = flow_in_any_light(&view.image, &expected_picture)?;
    let at = |flow: &[[f32; 2]], px: DVec2| -> Option<DVec2> {
        let from = (px - 0.5).floor();
        if from.x < 0.0 || from.y < 0.0 || from.x as usize + 1 >= width || from.y as usize + 1 >= height {
            return None;
        }
        let part = (px - 0.5 - from).as_vec2();
        let i = from.y as usize * width + from.x as usize;
        let along = |i: usize| Vec2::from(flow[i]).lerp(Vec2::from(flow[i + 1]), part.x);
        Some(along(i).lerp(along(i + width), part.y).as_dvec2())
    };
    let eye = view.camera.center().as_vec3();
    let sight = |expected: &Option<(Vec3, Vec3)>| -> Option<DVec2> {
        let (place, normal) = (*expected)?;
        if normal.dot((eye - place).normalize_or_zero()) < FACING {
            return None;
        }
        let px = view.sees(place)?;
        if !known[px.y as usize * width + px.x as usize] {
            return None;
        }
        let step = at(&there, px)?;
        let home = at(&back, px + step)?;
        ((step + home).length() < THERE_AND_BACK).then_some(px + step)
    };
    Ok(expected.iter().map(sight).collect())
}

/// A camera's picture of the reference, laid over the surface as it is now; and which pixels of it are known. The
/// others are as they are now: nothing flows there.
fn laid_over(now: &Tracked, view: &Seen, was: &Seen, before: &[Option<Vec3>]) -> Result<(Image, Vec<bool>)> {
    let values: Vec<[f32; 3]> = before.iter().map(|place| place.unwrap_or(Vec3::NAN).to_array()).collect();
    let places = view.raster.interpolate(&now.surface.mesh.faces, &values, [f32::NAN; 3]);
    // at the rim a sample would be half of what is beyond
    let (width, height) = (was.image.width as f64, was.image.height as f64);
    let inner = |px: &DVec2| px.x >= 0.5 && px.y >= 0.5 && px.x <= width - 0.5 && px.y <= height - 0.5;
    let source = |place: &[f32; 3]| {
        Some(Vec3::from(*place)).filter(|place| place.is_finite()).and_then(|p| was.sees(p)).filter(inner)
    };
    let sources: Vec<Option<DVec2>> = places.iter().map(source).collect();
    let at: Vec<Option<[f32; 2]>> = sources.iter().map(|px| px.map(|px| px.as_vec2().to_array())).collect();
    Ok((laid(&was.image, &view.image, &at)?, sources.iter().map(Option::is_some).collect()))
}

impl Seen {
    /// Where a place is in the picture, px, if nothing is before it.
    fn sees(&self, place: Vec3) -> Option<DVec2> {
        let (px, z) = self.camera.project(place.as_dvec3());
        let inside =
            px.x >= 0.0 && px.y >= 0.0 && px.x < f64::from(self.camera.width) && px.y < f64::from(self.camera.height);
        if z <= 0.0 || !inside {
            return None;
        }
        let depth = self.raster.depth[px.y as usize * self.camera.width as usize + px.x as usize];
        (depth > 0.0 && (z as f32 - depth).abs() < DEPTH).then_some(px)
    }
}

impl Tracked {
    /// The moment of these rows, one a view.
    fn read(rows: &[Row<'_>], scale: f64) -> Result<Tracked> {
        let first = rows.first().context("there are no views")?;
        let surface = Surface::read(first, scale)?;
        let mut views = BTreeMap::new();
        for row in rows {
            let image = Image::read(&row.path("image")?, 3)?;
            let camera = camera_of(row, Some((image.width, image.height)))?;
            let raster = rasterize(&surface.mesh.positions, &surface.mesh.faces, &camera, NEAR);
            let name = row.str("camera")?;
            let once = views.insert(name.clone(), Seen { image, camera, raster }).is_none();
            ensure!(
                once && row.i64("timestep")? == first.i64("timestep")?,
                "camera {name} is there more than once, or the views are of several moments\nhint: `by: [participant, sequence, timestep]`"
            );
        }
        Ok(Tracked { surface, views })
    }

    /// Vertices of the face but of its `eyes` that enough cameras see, one for each cell of a grid.
    fn skin(&self, eyes: &OpenEyes, params: &Params) -> Vec<usize> {
        let cell = (params.spacing_mm / UNIT_MM) as f32;
        let mut taken: HashSet<[i32; 3]> = HashSet::new();
        let seen = |v: usize| {
            let (place, normal) = (self.surface.mesh.positions[v], self.surface.normals[v]);
            let is_turned_to = |view: &&Seen| {
                let eye = view.camera.center().as_vec3();
                normal.dot((eye - place).normalize_or_zero()) >= FACING && view.sees(place).is_some()
            };
            self.views.values().filter(is_turned_to).count() >= params.min_views
        };
        (0..self.surface.canonical.len())
            .filter(|v| is_skin(self.surface.canonical[*v]))
            .filter(|v| !eyes.hold(self.surface.in_head(self.surface.mesh.positions[*v])) && seen(*v))
            .filter(|v| taken.insert((self.surface.canonical[*v] / cell).floor().to_array().map(|c| c as i32)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datasets::capture::look_at;
    use glam::{DVec3, Quat};
    use models::nphm::pose::Pose;

    /// Radius of a ball of skin, model units.
    const RADIUS: f32 = 0.4;

    /// What the ball's skin looks like: waves of several lengths and directions.
    fn shade(p: Vec3) -> u8 {
        let waves = [Vec3::new(50.0, 11.0, 0.0), Vec3::new(-17.0, 61.0, 5.0), Vec3::new(90.0, -70.0, 20.0)];
        (128.0 + waves.iter().map(|w| 30.0 * w.dot(p).sin()).sum::<f32>()) as u8
    }

    /// The front of the ball, tracked as if its skin had never moved, seen by six cameras while it is turned by an
    /// angle about its axis.
    fn moment(angle: f32) -> Tracked {
        let n = 60u32;
        let place = |i: u32, j: u32| {
            let [a, b] = [i, j].map(|k| (k as f32 / n as f32 - 0.5) * 1.6);
            Vec3::from(HEAD_CENTER) + RADIUS * Vec3::new(a.sin() * b.cos(), b.sin(), a.cos() * b.cos())
        };
        let canonical: Vec<Vec3> = (0..=n).flat_map(|j| (0..=n).map(move |i| place(i, j))).collect();
        let quad = |k: u32| {
            let v = k / n * (n + 1) + k % n;
            [[v, v + 1, v + n + 2], [v, v + n + 2, v + n + 1]]
        };
        let faces: Vec<[u32; 3]> = (0..n * n).flat_map(quad).collect();
        let pose = Pose { rotation: [0.0; 3], translation: [0.0; 3] };
        let positions = canonical.iter().map(|place| pose.to_world(place.to_array(), 1.0).into()).collect();
        let surface = Surface::new(geometry::Mesh { positions, faces }, canonical, pose, 1.0);
        let center = surface.mesh.positions.iter().copied().sum::<Vec3>() / surface.mesh.positions.len() as f32;
        let view = |i: usize| {
            let around = (i as f64 - 2.5) * 0.25;
            let eye = center.as_dvec3() + 0.8 * DVec3::new(around.sin(), 0.1, around.cos());
            let w2c = look_at(eye, center.as_dvec3()).transpose().to_cols_array();
            let camera =
                Camera::from_row_major(&[1000.0, 0.0, 140.0, 0.0, 1000.0, 140.0, 0.0, 0.0, 1.0], &w2c, 280, 280);
            let raster = rasterize(&surface.mesh.positions, &surface.mesh.faces, &camera, NEAR);
            let values: Vec<[f32; 3]> = surface.canonical.iter().map(Vec3::to_array).collect();
            let shown = raster.interpolate(&surface.mesh.faces, &values, [f32::NAN; 3]);
            // the skin that is here now was elsewhere on the ball
            let was = |p: &[f32; 3]| Quat::from_rotation_y(-angle) * (Vec3::from(*p) - Vec3::from(HEAD_CENTER));
            let pixel = |p: &[f32; 3]| if p[0].is_nan() { 255 } else { shade(was(p)) };
            let image = Image::new(280, 280, 3, shown.iter().flat_map(|p| [pixel(p); 3]).collect());
            (i.to_string(), Seen { image, camera, raster })
        };
        let views = (0..6).map(view).collect();
        Tracked { surface, views }
    }

    #[test]
    fn skin_that_slid_along_an_unchanged_surface_is_found() {
        let params = Params {
            spacing_mm: spacing_mm(),
            threshold_px: threshold_px(),
            min_views: min_views(),
            max_moved_mm: max_moved_mm(),
        };
        let reference = moment(0.0);
        let skin = reference.skin(&OpenEyes::of(&[]), &params);
        let stage = TrackSkin { params, scale: 1.0, reference, skin };
        // 3 mm at the equator
        let angle = 0.03;
        let found = stage.find(&moment(angle)).unwrap();
        let truly = |place: &Vec3| {
            let turned = Quat::from_rotation_y(angle) * (*place - Vec3::from(HEAD_CENTER)) + Vec3::from(HEAD_CENTER);
            turned / 4.0
        };
        let mut errors: Vec<f32> = Vec::new();
        let mut before: Vec<f32> = Vec::new();
        for ((point, place), expected) in found.points.iter().zip(&found.places).zip(&found.expected) {
            if let (Some(point), Some(expected)) = (point, expected) {
                errors.push(1000.0 * point.distance(truly(place)));
                before.push(1000.0 * expected.distance(truly(place)));
            }
        }
        assert!(errors.len() > found.places.len() / 2, "{} of {}", errors.len(), found.places.len());
        for values in [&mut errors, &mut before] {
            values.sort_unstable_by(f32::total_cmp);
        }
        let [after, before] = [&errors, &before].map(|values| values[values.len() / 2]);
        assert!(before > 2.5 && after < 0.2, "{before} mm beside, then {after}");
        // and where nothing moved nothing does
        let still = stage.find(&moment(0.0)).unwrap();
        let moved = still.points.iter().zip(&still.expected).filter_map(|(p, e)| Some(1000.0 * (*p)?.distance((*e)?)));
        let largest = moved.fold(0.0, f32::max);
        assert!(largest < 0.1, "{largest}");
    }
}
