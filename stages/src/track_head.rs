//! `track_head`: a sequence of point clouds to expression codes, head poses and meshes that carry canonical coordinates.
//!
//! reads: timestep, cloud, landmarks3d?; with head_model, person, landmarks?   writes: mesh (PLY), expression, pose, residual (mm), kept
//!
//! A group is a sequence: frames are fitted one after the other, each starting from the one before, the identity
//! fixed; the first is aligned rigidly beforehand (NPHM section 5.5), from where its landmarks put the mean head, or else from the
//! upright pose at `center`. A frame that lost the face, which quick motion does to such a start, is sought again: rigidly aligned from
//! its landmarks, from where the face was last seen and from the upright pose, with the face neutral; the fit that explains most points stays.
//! Then the posed field's zero set is extracted coarse to fine and the field is
//! queried at every vertex for the 5-d canonical coordinate. `residual` is the mean distance of the points that trimming
//! kept, `kept` their share: a frame that failed shows itself. Sees points and landmarks, never an
//! image or any truth.

use crate::fit_identity::{UNIT_MM, initial_frame};
use crate::head_models::{self, Person, align, observed};
use crate::landmarks;
use crate::tracked;
use anyhow::{Context, Result};
use geometry::cloud::PointCloud;
use geometry::Mesh;
use glam::{DVec3, Vec3};
use manifests::Type;
use models::nphm::field::{HeadModel, canonical};
use models::nphm::fit::{FitConfig, Frame, fit_frame};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::Path;
use tch::Tensor;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Updates for every frame but the first.
    #[serde(default = "steps")]
    steps: usize,
    /// Updates for the first frame, which starts at the neutral face.
    #[serde(default = "first_steps")]
    first_steps: usize,
    /// Points kept of each cloud.
    #[serde(default = "points")]
    points: usize,
    /// Where the head is about to be if no landmarks say so, world frame, metres.
    #[serde(default)]
    center: [f64; 3],
    /// Grid points on a side of the coarse grid on which the surface is sought.
    #[serde(default = "coarse")]
    coarse: usize,
    /// How often the grid is halved around the surface.
    #[serde(default = "levels")]
    levels: u32,
}

/// A fit that keeps a smaller share of the points has lost the face.
const LOST: f64 = 0.7;

fn steps() -> usize {
    60
}
fn first_steps() -> usize {
    150
}
fn points() -> usize {
    5000
}
fn coarse() -> usize {
    25
}
fn levels() -> u32 {
    2
}

fn def() -> StageDef {
    StageDef::new("track_head", 4, Grain::Group)
        .doc("Tracks the head model through a sequence of point clouds and extracts its meshes.")
        .reads([("timestep", Type::I64), ("cloud", Type::Blob)])
        .may_read([landmarks::TRIANGULATED])
        .with("head_model", head_models::COLUMNS)
        .may_take("landmarks", [landmarks::PLACES])
        .with("person", [("person", Type::Blob)])
        .writes([("mesh", Type::Blob), ("expression", Type::Floats(0)), ("pose", Type::Floats(6))])
        .writes([("residual", Type::F64), ("kept", Type::F64)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params, cx: &Cx<'_>| {
    let model = head_models::read(cx.with("head_model")?)?;
    let path = cx.with("person")?.only().context("`person` is what fit_identity puts out")?.path("person")?;
    let person: Person = serde_json::from_slice(&std::fs::read(&path)?)
        .with_context(|| format!("{} does not describe a person", path.display()))?;
    anyhow::Ok(TrackHead { params, model, person, places: landmarks::known_places(cx)? })
});

struct TrackHead {
    params: Params,
    model: HeadModel,
    person: Person,
    /// Where the model has its landmarks.
    places: Option<Vec<Option<DVec3>>>,
}

impl Stage for TrackHead {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.track(unit, cx)).collect()
    }
}

impl TrackHead {
    fn track(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let rows = unit.rows();
        let mut order = rows
            .iter()
            .enumerate()
            .map(|(i, row)| Ok((row.i64("timestep")?, i)))
            .collect::<Result<Vec<_>>>()?;
        order.sort_unstable();
        let p = &self.params;
        let mut out = Rows::new();
        let mut last: Option<Frame> = None;
        for (done, (timestep, i)) in order.iter().copied().enumerate() {
            let place = || format!("timestep {timestep}");
            let cloud = geometry::ply::read_cloud(&rows[i].path("cloud")?)?;
            let upright = initial_frame(p.center);
            let told = landmarks::pose_in(&rows[i], self.places.as_deref(), self.person.scale).with_context(place)?;
            let told = told.map(|pose| Frame { pose, ..upright.clone() });
            let frame = match last.take() {
                None => self.seek(&cloud, told.unwrap_or(upright)).with_context(place)?,
                Some(before) => {
                    let config = FitConfig { steps: p.steps, scale: self.person.scale, ..FitConfig::frame() };
                    let seen = observed(&cloud, p.points, &before.pose, config.scale).with_context(place)?;
                    let mut frame = fit_frame(&self.model, &seen, &before, &self.person.z_id, &config);
                    let last_seen = Frame { pose: before.pose, ..upright.clone() };
                    for start in told.into_iter().chain([last_seen, upright]) {
                        if frame.kept >= LOST {
                            break;
                        }
                        let again = self.seek(&cloud, start).with_context(place)?;
                        if again.kept > frame.kept {
                            frame = again;
                        }
                    }
                    frame
                }
            };
            let path = cx.file(unit, &format!("{timestep:05}.ply"));
            self.extract(&frame, &path).with_context(place)?;
            let pose = frame.pose.rotation.into_iter().chain(frame.pose.translation);
            let row = OutRow::of(i)
                .file("mesh", &path)
                .floats("expression", frame.z_ex.iter().copied())
                .floats("pose", pose)
                .f64("residual", frame.residual * UNIT_MM)
                .f64("kept", frame.kept);
            out.push(row);
            last = Some(frame);
            cx.progress(done + 1, order.len(), "");
        }
        Ok(out)
    }

    /// Fits a frame whose pose is hardly known.
    fn seek(&self, cloud: &PointCloud, start: Frame) -> Result<Frame> {
        let p = &self.params;
        let start = align(&self.model, cloud, p.points, start, &self.person)?;
        let config = FitConfig { steps: p.first_steps, scale: self.person.scale, ..FitConfig::default() };
        let seen = observed(cloud, p.points, &start.pose, config.scale)?;
        Ok(fit_frame(&self.model, &seen, &start, &self.person.z_id, &config))
    }

    /// The posed surface with its canonical coordinates, in the world frame.
    fn extract(&self, frame: &Frame, path: &Path) -> Result<()> {
        let p = &self.params;
        let z_id = Tensor::from_slice(&self.person.z_id).unsqueeze(0);
        let z_ex = Tensor::from_slice(&frame.z_ex).unsqueeze(0);
        let surface = head_models::surface(&self.model, &z_id, &z_ex, p.coarse, p.levels);
        anyhow::ensure!(!surface.faces.is_empty(), "the fitted field has no surface: tracking failed\nhint: more `first_steps`, or a head model trained for longer");
        let vertices: Vec<[f32; 3]> = surface.positions.iter().map(|v| v.to_array()).collect();
        let canonical = canonical(&self.model, &z_id, &z_ex, &vertices);
        let world = vertices.iter().map(|v| Vec3::from(frame.pose.to_world(*v, self.person.scale))).collect();
        tracked::write_mesh(path, &Mesh { positions: world, faces: surface.faces }, &canonical)
    }
}
