//! `track_head`: a sequence of point clouds to expression codes, head poses and meshes that carry canonical coordinates.
//!
//! reads: timestep, cloud, landmarks3d?, free_space?; with head_model, person, landmarks?   writes: mesh (PLY), expression, pose, residual (mm), kept, lost
//!
//! A group is a sequence: frames are fitted one after the other, each starting from the one before, the identity
//! fixed; the first is aligned rigidly beforehand (NPHM section 5.5), from where its landmarks put the mean head, or else from the
//! upright pose at `center`. A frame that lost the face, which quick motion does to such a start, is sought again: rigidly aligned from
//! its landmarks, from where the face was last seen and from the upright pose, with the face neutral; the fit that explains most points stays.
//! In the end all frames of the sequence are refined together, as one smooth motion. Then the posed field's zero set is extracted coarse to fine and the field is
//! queried at every vertex for the 5-d canonical coordinate. `residual` is the mean distance of the points that trimming
//! kept, `kept` their share: a frame of which too little was kept is marked `lost`. One in which too little of a face was seen to fit anything is lost too: it
//! stays as the frame before was, without a residual. A sequence in which no face was seen at all is an error. Sees points and landmarks, never an
//! image or any truth.

use crate::fit_identity::{UNIT_MM, initial_frame};
use crate::head_models::{self, Moment, Person, align};
use crate::landmarks;
use crate::tracked;
use anyhow::{Context, Result};
use glam::DVec3;
use manifests::{Type, Value};
use models::nphm::field::HeadModel;
use models::nphm::fit::{Cloud, FitConfig, Frame, fit_frame, fit_frames};
use models::nphm::pose::Pose;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

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
    /// Updates of all frames together, after each has been fitted.
    #[serde(default = "refine_steps")]
    refine_steps: usize,
    /// Weight of squared second differences of the pose (radians, 25 cm) between neighbouring frames in these updates. For videos at full rate 0.1 is about
    /// right; frames that are far apart in time are not to be smoothed.
    #[serde(default = "smooth_motion")]
    smooth_motion: f64,
    /// Weight of the landmarks' distance from their canonical places.
    #[serde(default = "landmark_weight")]
    landmark_weight: f64,
    /// Weight of the field at places that are known to be free.
    #[serde(default = "free_weight")]
    free_weight: f64,
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
/// Frames that are refined together at most, for the memory they take.
const TOGETHER: usize = 32;
/// Trimming threshold of the refinement, model units: the last one of the fits before.
const REFINE_TRIM: f64 = 0.02;

fn steps() -> usize {
    60
}
fn first_steps() -> usize {
    150
}
fn refine_steps() -> usize {
    20
}
/// None: frames of a default capture are half a second apart, and a smooth motion is none there.
fn smooth_motion() -> f64 {
    0.0
}
/// Of landmarks in a fit.
pub fn landmark_weight() -> f64 {
    FitConfig::default().landmarks
}
/// Of free space in a fit.
pub fn free_weight() -> f64 {
    FitConfig::default().outside
}
fn points() -> usize {
    5000
}
/// Of the grid that a surface is sought on.
pub fn coarse() -> usize {
    25
}
/// How often that is halved.
pub fn levels() -> u32 {
    2
}

fn def() -> StageDef {
    StageDef::new("track_head", 7, Grain::Group)
        .doc("Tracks the head model through a sequence of point clouds and extracts its meshes.")
        .reads([("timestep", Type::I64), ("cloud", Type::Blob)])
        .may_read(Moment::MAY_READ)
        .with("head_model", head_models::COLUMNS)
        .may_take("landmarks", [landmarks::PLACES])
        .with("person", [("person", Type::Blob)])
        .writes([("mesh", Type::Blob), ("expression", Type::Floats(0)), ("pose", Type::Floats(6))])
        .writes([("residual", Type::F64), ("kept", Type::F64), ("lost", Type::Bool)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params, cx: &Cx<'_>| {
    let model = head_models::read(cx.with("head_model")?)?;
    anyhow::Ok(TrackHead { params, model, person: Person::of(cx)?, places: landmarks::known_places(cx)? })
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
        let mut frames: Vec<Frame> = Vec::new();
        let mut seen: Vec<Cloud> = Vec::new();
        // why the first frame without a face has none
        let mut trouble = None;
        for (timestep, i) in order.iter().copied() {
            let place = || format!("timestep {timestep}");
            let moment = Moment::read(&rows[i]).with_context(place)?;
            let told = landmarks::pose_in(&rows[i], self.places.as_deref(), self.person.scale).with_context(place)?;
            let told = told.map(|pose| self.neutral(pose));
            let upright = self.neutral(initial_frame(p.center).pose);
            let last_seen = frames.last().map(|before| self.neutral(before.pose));
            let starts: Vec<Frame> = match last_seen {
                // how much of the points a fit keeps is a worse judge of where a head is than landmarks are
                None => vec![told.clone().unwrap_or_else(|| upright.clone())],
                Some(last_seen) => told.clone().into_iter().chain([last_seen, upright.clone()]).collect(),
            };
            let found = self.find(&moment, frames.last(), starts);
            // where too little of a face was seen, it stays as it was, and is marked
            let unseen = || Frame { residual: f64::NAN, kept: 0.0, ..frames.last().cloned().or(told).unwrap_or(upright) };
            let mut frame = found.unwrap_or_else(|error| {
                trouble.get_or_insert(error.context(place()));
                unseen()
            });
            let cloud = moment.observed(p.points, &frame.pose, self.person.scale);
            if cloud.is_err() {
                frame.kept = 0.0;
            }
            seen.push(cloud.unwrap_or_default());
            frames.push(frame);
            cx.progress(frames.len(), 2 * order.len(), "");
        }
        if let Some(error) = trouble.filter(|_| frames.iter().all(|frame| frame.kept == 0.0)) {
            return Err(error);
        }
        let frames = self.refine(&seen, frames);
        let mut out = Rows::new();
        for ((timestep, i), frame) in order.into_iter().zip(frames) {
            let path = cx.file(unit, &format!("{timestep:05}.ply"));
            let (mesh, canonical) = head_models::posed(&self.model, &self.person, &frame.z_ex, &frame.pose, p.coarse, p.levels)
                .with_context(|| format!("timestep {timestep}"))?;
            tracked::write_mesh(&path, &mesh, &canonical)?;
            let pose = frame.pose.rotation.into_iter().chain(frame.pose.translation);
            let row = OutRow::of(i)
                .file("mesh", &path)
                .floats("expression", frame.z_ex.iter().copied())
                .floats("pose", pose)
                .set("residual", if frame.residual.is_nan() { Value::Null } else { Value::F64(frame.residual * UNIT_MM) })
                .f64("kept", frame.kept)
                .set("lost", Value::Bool(frame.kept < LOST));
            out.push(row);
            cx.progress(rows.len() + out.len(), 2 * rows.len(), "");
        }
        Ok(out)
    }

    /// A configuration with this stage's weights and this person's size.
    fn weighted(&self, config: FitConfig) -> FitConfig {
        FitConfig { landmarks: self.params.landmark_weight, outside: self.params.free_weight, scale: self.person.scale, ..config }
    }

    /// The neutral face in a pose.
    fn neutral(&self, pose: Pose) -> Frame {
        let z_ex = vec![0.0; self.model.config.deformation.d_ex as usize];
        Frame { z_ex, pose, residual: 0.0, kept: 0.0 }
    }

    /// Fits a frame after the one before; while the face is lost, from each of these starts.
    ///
    /// # Errors
    /// If too little of a face was seen from any of them.
    fn find(&self, moment: &Moment, before: Option<&Frame>, starts: Vec<Frame>) -> Result<Frame> {
        let mut found = before.map(|before| self.follow(moment, before));
        for start in starts {
            if matches!(&found, Some(Ok(frame)) if frame.kept >= LOST) {
                break;
            }
            let again = self.seek(moment, start);
            found = match (found, again) {
                (Some(Ok(found)), Ok(again)) if again.kept > found.kept => Some(Ok(again)),
                (Some(Ok(found)), _) => Some(Ok(found)),
                (_, again) => Some(again),
            };
        }
        found.context("there was nowhere to start")?
    }

    /// Fits a frame to what was seen where the face was before.
    fn follow(&self, moment: &Moment, before: &Frame) -> Result<Frame> {
        let config = FitConfig { steps: self.params.steps, ..self.weighted(FitConfig::frame()) };
        let seen = moment.observed(self.params.points, &before.pose, config.scale)?;
        Ok(fit_frame(&self.model, &seen, before, self.person.known(), &config))
    }

    /// Fits a frame whose pose is hardly known.
    fn seek(&self, moment: &Moment, start: Frame) -> Result<Frame> {
        let p = &self.params;
        let start = align(&self.model, moment, p.points, start, &self.person)?;
        let config = FitConfig { steps: p.first_steps, ..self.weighted(FitConfig::default()) };
        let seen = moment.observed(p.points, &start.pose, config.scale)?;
        Ok(fit_frame(&self.model, &seen, &start, self.person.known(), &config))
    }

    /// Refines runs of frames that were not lost, each run as one motion.
    fn refine(&self, seen: &[Cloud], mut frames: Vec<Frame>) -> Vec<Frame> {
        let p = &self.params;
        let config = FitConfig {
            steps: p.refine_steps,
            smooth_motion: p.smooth_motion,
            trim: vec![[0.0, REFINE_TRIM]],
            ..self.weighted(FitConfig::frame())
        };
        let mut start = 0;
        while start < frames.len() {
            let run = frames[start..].iter().take_while(|frame| frame.kept >= LOST).count().min(TOGETHER);
            if run > 0 && p.refine_steps > 0 {
                let together: Vec<(&Cloud, Frame)> = seen[start..].iter().zip(frames[start..start + run].iter().cloned()).collect();
                let refined = fit_frames(&self.model, &together, self.person.known(), &config, &mut |_, _| ());
                frames.splice(start..start + run, refined);
            }
            start += run.max(1);
        }
        frames
    }
}
