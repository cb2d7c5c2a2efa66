//! `track_head`: a sequence of point clouds to expression codes, head poses and meshes that carry canonical
//! coordinates.
//!
//! reads: timestep, cloud, landmarks3d?, free_space?, skin?, start_expression?, start_pose?, start_lost?; with
//! head_model, person, landmarks?, pca_model?
//! writes: mesh (PLY), expression, pose, residual (mm), kept, lost
//!
//! A group is a sequence: frames are fitted one after the other, each starting from the one before (or, if landmarks
//! say that the head has moved far, from their pose), the identity fixed; the first is aligned rigidly beforehand (NPHM
//! section 5.5), from where its landmarks put the mean head, without landmarks from where the linear model `pca_model`
//! finds it (`linear_start`), or else from the upright pose at `center`. A frame that lost the face, which quick motion
//! does to such a start, is sought again: rigidly aligned from its landmarks or the linear model, from where the face
//! was last seen and from the upright pose, with the face neutral; the fit that explains most points stays. Frames that
//! were tracked before (`start_expression`, `start_pose`) start from that instead, to be fitted again with what is
//! known by now, such as skin that was found again. In the end all frames of the sequence are refined together, as one
//! smooth motion; lost frames and frames that are missing end a motion. Then the posed field's zero set is extracted
//! coarse to fine and the field is queried at every vertex for the 5-d canonical coordinate. `residual` is the mean
//! distance of the points that trimming kept, `kept` their share: a frame of which too little was kept is marked
//! `lost`. One in which too little of a face was seen to fit anything is lost too: it stays as the frame before was,
//! without a residual. A sequence in which no face was seen at all is an error. What is done is kept frame by frame
//! (`track_state`): a killed sequence goes on after the last frame that was finished, with the same bits. Sees points
//! and landmarks, never an image or any truth.

use crate::common::fit_defaults::{
    LOST, coarse, free_weight, hair_weight, landmark_weight, levels, points, residual_mm, skin_weight,
};
use crate::common::head_models::{self, Moment, Person, align, initial_frame};
use crate::common::landmarks;
use crate::common::linear_start::place;
use crate::common::pca_heads::{self, LinearHead};
use crate::common::skin::SKIN;
use crate::common::timesteps::in_time;
use crate::common::track_state::{Done, TrackState};
use crate::common::tracked;
use anyhow::{Context, Result};
use glam::DVec3;
use manifests::{Type, Value};
use models::nphm::field::HeadModel;
use models::nphm::fit::{Cloud, FitConfig, Frame, fit_frame, fit_frames};
use models::nphm::pose::Pose;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Updates for every frame but the first.
    #[serde(default = "steps")]
    #[schemars(range(min = 1))]
    steps: usize,
    /// Updates for the first frame, which starts at the neutral face.
    #[serde(default = "first_steps")]
    #[schemars(range(min = 1))]
    first_steps: usize,
    /// Updates of all frames together, after each has been fitted.
    #[serde(default = "refine_steps")]
    refine_steps: usize,
    /// Weight of squared second differences of the pose (radians, 25 cm) between neighbouring frames in these updates:
    /// how much a head is held to even motion. Frames that are far apart in time are not to be smoothed.
    #[serde(default = "smooth_motion")]
    #[schemars(range(min = 0))]
    smooth_motion: f64,
    /// Weight of squared changes of the expression code from one frame to the next, in all updates that start from the
    /// frame before; of frames that were tracked before, from what it was then.
    #[serde(default = "smooth_expression")]
    #[schemars(range(min = 0))]
    smooth_expression: f64,
    /// Weight of the landmarks' distance from their canonical places.
    #[serde(default = "landmark_weight")]
    #[schemars(range(min = 0))]
    landmark_weight: f64,
    /// Weight of the field at places that are known to be free.
    #[serde(default = "free_weight")]
    #[schemars(range(min = 0))]
    free_weight: f64,
    /// Weight of the distance of skin that was found again (`skin`) from its canonical places.
    #[serde(default = "skin_weight")]
    #[schemars(range(min = 0))]
    skin_weight: f64,
    /// Weight of the squared length of the expression code. Many codes make about the same face; of those the shortest
    /// is taken, so that like faces have like codes.
    #[serde(default = "expression_prior")]
    #[schemars(range(min = 0))]
    expression_prior: f64,
    /// How much a point that lies outside the surface counts if no landmark is within 15 mm of it: it may be hair or
    /// clothes, under which the head ends. 1 for head models that have hair, as the published ones do.
    #[serde(default = "hair_weight")]
    #[schemars(range(min = 0, max = 1))]
    hair_weight: f64,
    /// Points kept of each cloud.
    #[serde(default = "points")]
    #[schemars(range(min = 100))]
    points: usize,
    /// Where the head is about to be if no landmarks say so, world frame, metres.
    #[serde(default)]
    center: [f64; 3],
    /// Grid points on a side of the coarse grid on which the surface is sought.
    #[serde(default = "coarse")]
    #[schemars(range(min = 2, max = 512))]
    coarse: usize,
    /// How often the grid is halved around the surface.
    #[serde(default = "levels")]
    #[schemars(range(max = 5))]
    levels: u32,
}

/// The columns of an earlier tracking's expression and pose.
const START: [&str; 2] = ["start_expression", "start_pose"];
/// Whether it had lost the face; nothing starts from there.
const START_LOST: &str = "start_lost";
/// Frames that are refined together at most, for the memory they take.
const TOGETHER: usize = 32;
/// Frames of the part before that stay as they are when a longer motion is refined part by part: as many as a second
/// difference needs.
const HELD: usize = 2;
/// Trimming threshold of the refinement, model units: the last one of the fits before.
const REFINE_TRIM: f64 = 0.02;
/// Learning rates of the refinement beside those of the fits before: whole ones shake what has settled.
const REFINE_RATE: f64 = 0.25;

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
fn smooth_expression() -> f64 {
    FitConfig::frame().smooth_z_ex
}
fn expression_prior() -> f64 {
    FitConfig::frame().z_ex
}

fn def() -> StageDef {
    StageDef::new("track_head", 11, Grain::Group)
        .doc("Tracks the head model through a sequence of point clouds and extracts its meshes.")
        .reads([("timestep", Type::I64), ("cloud", Type::Blob)])
        .may_read(Moment::MAY_READ)
        .may_read([SKIN, (START[0], Type::Floats(0)), (START[1], Type::Floats(6)), (START_LOST, Type::Bool)])
        .with("head_model", head_models::COLUMNS)
        .may_take("landmarks", [landmarks::PLACES])
        .may_take("pca_model", pca_heads::COLUMNS)
        .with("person", [("person", Type::Blob)])
        .writes([("mesh", Type::Blob), ("expression", Type::Floats(0)), ("pose", Type::Floats(6))])
        .writes([("residual", Type::F64), ("kept", Type::F64), ("lost", Type::Bool)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    head_models::check_grid(params.coarse, params.levels)?;
    let model = head_models::read(cx.with("head_model")?)?;
    let linear = cx.maybe_with("pca_model").map(pca_heads::read).transpose()?;
    anyhow::Ok(TrackHead { params, model, person: Person::of(cx)?, places: landmarks::known_places(cx)?, linear })
});

struct TrackHead {
    params: Params,
    model: HeadModel,
    person: Person,
    /// Where the model has its landmarks.
    places: Option<Vec<Option<DVec3>>>,
    /// What finds a head that no landmarks tell of.
    linear: Option<LinearHead>,
}

impl Stage for TrackHead {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.track(unit, cx)).collect()
    }
}

impl TrackHead {
    fn track(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let rows = unit.rows();
        let order = in_time(&rows)?;
        let p = &self.params;
        let state = TrackState::new(cx.scratch()?)?;
        let mut done = state.resume(order.len(), |text| cx.log(text))?;
        let mut seen: Vec<Cloud> = Vec::new();
        // why the first frame without a face has none
        let mut trouble = None;
        for (k, (timestep, i)) in order.iter().copied().enumerate() {
            let at = || format!("timestep {timestep}");
            let moment = Moment::read(&rows[i]).with_context(at)?;
            if let Some(frame) = done.fitted.get(k) {
                seen.push(moment.observed(p.points, &frame.pose, self.person.scale).unwrap_or_default());
                continue;
            }
            let frames = &mut done.fitted;
            let told = landmarks::pose_in(&rows[i], self.places.as_deref(), self.person.scale).with_context(at)?;
            let told = told.map(|pose| self.neutral(pose));
            let upright = self.neutral(initial_frame(p.center).pose);
            let last_seen = frames.last().map(|before| self.neutral(before.pose));
            let sought = || {
                let linear = self.linear.as_ref().filter(|_| told.is_none())?;
                Some(self.neutral(place(linear, moment.cloud(), p.points, p.center).ok()?.pose))
            };
            let starts = told.clone().into_iter().chain(std::iter::once_with(sought).flatten());
            let starts = starts.chain(last_seen).chain([upright.clone()]);
            // how much of the points a fit keeps is a worse judge of where a head is than landmarks are
            let tries = if frames.is_empty() { 1 } else { usize::MAX };
            let told_pose = told.as_ref().map(|frame| frame.pose);
            let near = |frame: &Frame| Frame { pose: landmarks::nearer(frame.pose, told_pose), ..frame.clone() };
            let before = self.tracked_before(&rows[i]).with_context(at)?.or_else(|| frames.last().map(near));
            let found = self.find(&moment, before.as_ref(), starts.take(tries));
            // where too little of a face was seen, it stays as it was, and is marked
            let unseen =
                || Frame { residual: f64::NAN, kept: 0.0, ..frames.last().cloned().or(told).unwrap_or(upright) };
            let mut frame = found.unwrap_or_else(|error| {
                trouble.get_or_insert(error.context(at()));
                unseen()
            });
            let cloud = moment.observed(p.points, &frame.pose, self.person.scale);
            if cloud.is_err() {
                frame.kept = 0.0;
            }
            seen.push(cloud.unwrap_or_default());
            frames.push(frame);
            cx.progress(frames.len(), 2 * order.len(), "");
            // before a face was seen there is nothing to go on from but the reason why
            if done.fitted.iter().any(|frame| frame.kept > 0.0) {
                state.save(&done)?;
                cx.stop_if(cx.should_stop())?;
            }
        }
        if let Some(error) = trouble.filter(|_| done.fitted.iter().all(|frame| frame.kept == 0.0)) {
            return Err(error);
        }
        let times: Vec<i64> = order.iter().map(|(timestep, _)| *timestep).collect();
        self.refine(&seen, &times, &mut done, &state, cx)?;
        let mut out = Rows::new();
        // the last frame that had a surface, and its mesh
        let mut meshed: Option<(PathBuf, Frame)> = None;
        for ((timestep, i), frame) in order.into_iter().zip(done.refined) {
            let name = format!("{timestep:05}.ply");
            let mut has_surface = true;
            let made = state.mesh(&name, |path| {
                let (mesh, canonical) =
                    head_models::posed(&self.model, &self.person, &frame.z_ex, &frame.pose, p.coarse, p.levels)
                        .with_context(|| format!("timestep {timestep}"))
                        .inspect_err(|_| has_surface = false)?;
                tracked::write_mesh(path, &mesh, &canonical)
            });
            let (mesh, frame) = match (made, &meshed) {
                (Ok(mesh), _) => (mesh, frame),
                // as where no face was seen: it stays as it was, and is marked
                (Err(error), Some((mesh, before))) if !has_surface => {
                    cx.warn(&format!("{error:#}; the frame is marked as lost"));
                    (mesh.clone(), Frame { residual: f64::NAN, kept: 0.0, ..before.clone() })
                }
                (Err(error), _) => return Err(error),
            };
            cx.stop_if(cx.should_stop())?;
            let path = cx.file(unit, &name);
            std::fs::copy(&mesh, &path).with_context(|| format!("cannot write {}", path.display()))?;
            let pose = frame.pose.rotation.into_iter().chain(frame.pose.translation);
            let residual = residual_mm(frame.residual, self.person.scale);
            let row = OutRow::of(i)
                .file("mesh", &path)
                .floats("expression", frame.z_ex.iter().copied())
                .floats("pose", pose)
                .set("residual", if residual.is_nan() { Value::Null } else { Value::F64(residual) })
                .f64("kept", frame.kept)
                .bool("lost", frame.kept < LOST);
            out.push(row);
            meshed = Some((mesh, frame));
            cx.progress(rows.len() + out.len(), 2 * rows.len(), "");
        }
        Ok(out)
    }

    /// A configuration with this stage's weights and this person's size.
    fn weighted(&self, config: FitConfig) -> FitConfig {
        let p = &self.params;
        FitConfig {
            landmarks: p.landmark_weight,
            outside: p.free_weight,
            skin: p.skin_weight,
            z_ex: p.expression_prior,
            covering: p.hair_weight,
            scale: self.person.scale,
            ..config
        }
    }

    /// The neutral face in a pose.
    fn neutral(&self, pose: Pose) -> Frame {
        let z_ex = vec![0.0; self.model.config.deformation.d_ex as usize];
        Frame { z_ex, pose, residual: 0.0, kept: 0.0 }
    }

    /// The state that an earlier tracking left a frame in, if the row has it and the face was not lost.
    ///
    /// # Errors
    /// If the row has half of it, or a code of another head model.
    fn tracked_before(&self, row: &Row<'_>) -> Result<Option<Frame>> {
        let [has_expression, has_pose] = START.map(|column| row.has(column));
        let [expression, pose] = START;
        anyhow::ensure!(
            has_expression == has_pose,
            "there is only one of `{expression}` and `{pose}`\nhint: an earlier tracking has both: `rename: {{ {expression}: expression, {pose}: pose }}`"
        );
        if !has_expression || (row.has(START_LOST) && row.bool(START_LOST)?) {
            return Ok(None);
        }
        let z_ex: Vec<f32> = row.floats(expression)?.iter().map(|v| *v as f32).collect();
        let expected = self.model.config.deformation.d_ex as usize;
        anyhow::ensure!(
            z_ex.len() == expected,
            "`{expression}` has {} numbers, this head model's codes {expected}\nhint: it has to come from tracking with the same head model",
            z_ex.len()
        );
        let [a, b, c, x, y, z] = row.array::<6>(pose)?;
        let pose = Pose { rotation: [a, b, c], translation: [x, y, z] };
        Ok(Some(Frame { z_ex, pose, residual: 0.0, kept: 0.0 }))
    }

    /// Fits a frame after the one before; while the face is lost, from each of these starts.
    ///
    /// # Errors
    /// If too little of a face was seen from any of them.
    fn find(&self, moment: &Moment, before: Option<&Frame>, starts: impl Iterator<Item = Frame>) -> Result<Frame> {
        let mut found = before.map(|before| self.follow(moment, before));
        let mut starts = starts;
        while !matches!(&found, Some(Ok(frame)) if frame.kept >= LOST)
            && let Some(start) = starts.next()
        {
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
        let config = FitConfig { steps: self.params.steps, ..self.following() };
        let seen = moment.observed(self.params.points, &before.pose, config.scale)?;
        Ok(fit_frame(&self.model, &seen, before, self.person.known(), &config))
    }

    /// Fits a frame whose pose is hardly known.
    fn seek(&self, moment: &Moment, start: Frame) -> Result<Frame> {
        let p = &self.params;
        let start = align(&self.model, moment, p.points, start, &self.person, p.hair_weight)?;
        let config = FitConfig { steps: p.first_steps, ..self.weighted(FitConfig::default()) };
        let seen = moment.observed(p.points, &start.pose, config.scale)?;
        Ok(fit_frame(&self.model, &seen, &start, self.person.known(), &config))
    }

    /// A configuration for frames that start from others.
    fn following(&self) -> FitConfig {
        FitConfig { smooth_z_ex: self.params.smooth_expression, ..self.weighted(FitConfig::frame()) }
    }

    /// Refines runs of frames that were not lost, each run as one motion, after as many frames as have been.
    fn refine(&self, seen: &[Cloud], times: &[i64], done: &mut Done, state: &TrackState, cx: &Cx<'_>) -> Result<()> {
        let p = &self.params;
        let lost: Vec<bool> = done.fitted.iter().map(|frame| frame.kept < LOST).collect();
        let parts = if p.refine_steps > 0 { parts(&lost, times, TOGETHER) } else { Vec::new() };
        for Part { from, to, held } in parts {
            if to <= done.refined.len() {
                continue;
            }
            carry(&mut done.refined, &done.fitted[..from]);
            let frame = self.following();
            let config = FitConfig {
                steps: p.refine_steps,
                smooth_motion: p.smooth_motion,
                held,
                trim: vec![[0.0, REFINE_TRIM]],
                rate_codes: REFINE_RATE * frame.rate_codes,
                rate_rotation: REFINE_RATE * frame.rate_rotation,
                rate_translation: REFINE_RATE * frame.rate_translation,
                ..frame
            };
            let starts = done.refined[from - held..].iter().chain(&done.fitted[from..to]).cloned();
            let together: Vec<(&Cloud, Frame)> = seen[from - held..].iter().zip(starts).collect();
            let refined = fit_frames(&self.model, &together, self.person.known(), &config, &mut |_, _| ());
            done.refined.extend(refined.into_iter().skip(held));
            state.save(done)?;
            cx.stop_if(cx.should_stop())?;
        }
        carry(&mut done.refined, &done.fitted);
        Ok(())
    }
}

/// Takes what is not refined over from `fitted`; moments without a face stay as the frame before now is.
fn carry(refined: &mut Vec<Frame>, fitted: &[Frame]) {
    for frame in &fitted[refined.len()..] {
        let stays = refined.last().filter(|_| frame.kept == 0.0);
        let carried = stays
            .map_or_else(|| frame.clone(), |before| Frame { kept: 0.0, residual: frame.residual, ..before.clone() });
        refined.push(carried);
    }
}

/// Frames that are refined together: `from..to`, after `held` ones that stay as they are.
#[derive(Debug, PartialEq)]
struct Part {
    from: usize,
    to: usize,
    held: usize,
}

/// Cuts a sequence into motions, which lost frames and gaps in time end (neighbours are one usual step apart, the
/// smallest there is), and these into parts of at most `together` frames with those that are held.
fn parts(lost: &[bool], times: &[i64], together: usize) -> Vec<Part> {
    let step = times.windows(2).map(|w| w[1] - w[0]).min().unwrap_or(1);
    let mut parts: Vec<Part> = Vec::new();
    let mut begin = 0;
    while begin < lost.len() {
        let mut end = begin;
        while end < lost.len() && !lost[end] && (end == begin || times[end] - times[end - 1] == step) {
            end += 1;
        }
        let mut from = begin;
        while from < end {
            let held = HELD.min(from - begin);
            let to = end.min(from + together - held);
            parts.push(Part { from, to, held });
            from = to;
        }
        begin = end.max(begin + 1);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residuals_are_as_long_as_in_the_world() {
        let pose = Pose { rotation: [0.1, 0.7, -0.05], translation: [0.1, -0.02, 0.04] };
        for scale in [0.8, 1.0, 1.3] {
            let [a, b] = [[0.1, 0.2, 0.0], [0.11, 0.2, 0.0]].map(|p| pose.to_world(p, scale).map(f64::from));
            let apart = DVec3::from(a).distance(DVec3::from(b));
            assert!((residual_mm(0.01, scale) - 1000.0 * apart).abs() < 1e-3, "{scale}");
        }
        // where the size is the model's, it changes no bit
        assert_eq!(residual_mm(0.0123, 1.0), 0.0123 * head_models::UNIT_MM);
    }

    #[test]
    fn lost_frames_and_gaps_end_a_motion_and_long_ones_go_on_from_their_end() {
        let part = |from, to, held| Part { from, to, held };
        let lost = |which: &[usize], n: usize| (0..n).map(|i| which.contains(&i)).collect::<Vec<_>>();
        let times: Vec<i64> = (0..10).map(|i| 3 * i).collect();
        assert_eq!(parts(&lost(&[], 10), &times, 32), [part(0, 10, 0)]);
        assert_eq!(parts(&lost(&[0, 4, 5], 10), &times, 32), [part(1, 4, 0), part(6, 10, 0)]);
        assert_eq!(parts(&lost(&[], 10), &times, 5), [part(0, 5, 0), part(5, 8, 2), part(8, 10, 2)]);
        // timestep 12 is missing
        let gap: Vec<i64> = times.iter().copied().filter(|t| *t != 12).collect();
        assert_eq!(parts(&lost(&[], 9), &gap, 32), [part(0, 4, 0), part(4, 9, 0)]);
        assert_eq!(parts(&[true, true], &[0, 1], 32), []);
        assert_eq!(parts(&[false], &[7], 32), [part(0, 1, 0)]);
        assert_eq!(parts(&[], &[], 32), []);
    }
}
