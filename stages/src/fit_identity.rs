//! `fit_identity`: who the person is: one identity code, jointly fitted to point clouds of several moments.
//!
//! reads: sequence, timestep, cloud, landmarks3d?, free_space?; with head_model, landmarks?   writes: person (JSON), residual (mm)
//!
//! Key frames are spread evenly over all timesteps given; each has its own expression code and rigid pose, all share the
//! identity (specs of NPHM fitting, section 5: joint identity on diverse key frames), and each landmark has one canonical place in all of them. Poses start where a frame's landmarks put the mean
//! head; without landmarks upright, facing +z of the rig, at `center`. They are first brought near by the mean shape alone; the size of the head is the model's, since rig and model are both metric. Sees points and landmarks only.

use crate::head_models::{self, Moment, Person, Throat, align};
use crate::landmarks;
use crate::track_head::{free_weight, landmark_weight};
use anyhow::{Context, Result};
use manifests::Type;
use models::nphm::fit::{Cloud, FitConfig, Frame, fit_identity};
use models::nphm::pose::Pose;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Key frames.
    #[serde(default = "key_frames")]
    key_frames: usize,
    /// Updates.
    #[serde(default = "steps")]
    steps: usize,
    /// Weight of the landmarks' distance from their mean canonical places.
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
    /// Where the meshes of this person are cut at the neck: a point of a plane and the direction from it in which the head lies, canonical space,
    /// model units. Without it they end where the head model does.
    #[serde(default)]
    throat: Option<Throat>,
}

fn key_frames() -> usize {
    8
}
fn steps() -> usize {
    300
}
fn points() -> usize {
    5000
}

/// One unit of the head model in millimetres.
pub const UNIT_MM: f64 = 250.0;

fn def() -> StageDef {
    StageDef::new("fit_identity", 6, Grain::Group)
        .doc("Fits a person's identity code to point clouds of several moments.")
        .reads([("sequence", Type::Str), ("timestep", Type::I64), ("cloud", Type::Blob)])
        .may_read(Moment::MAY_READ)
        .with("head_model", head_models::COLUMNS)
        .may_take("landmarks", [landmarks::PLACES])
        .writes([("person", Type::Blob), ("residual", Type::F64)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    params.throat.map_or(Ok(()), |throat| throat.check())?;
    anyhow::Ok(FitIdentity { params })
});

struct FitIdentity {
    params: Params,
}

impl Stage for FitIdentity {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.fit(unit, cx)).collect()
    }
}

/// A frame to start from: neutral, upright, facing +z, the centre of the head at `center` (world, metres).
pub fn initial_frame(center: [f64; 3]) -> Frame {
    let translation = [0, 1, 2].map(|i| center[i] - f64::from(head_models::HEAD_CENTER[i]) * UNIT_MM / 1000.0);
    Frame { z_ex: Vec::new(), pose: Pose { rotation: [0.0; 3], translation }, residual: 0.0, kept: 0.0 }
}

impl FitIdentity {
    fn fit(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let model = head_models::read(cx.with("head_model")?)?;
        let places = landmarks::known_places(cx)?;
        let mut rows = unit.rows().into_iter().map(|row| {
            Ok(((row.str("sequence")?, row.i64("timestep")?), row.path("cloud")?, row))
        }).collect::<Result<Vec<_>>>()?;
        rows.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        let n = p.key_frames.clamp(1, rows.len());
        let config =
            FitConfig { steps: p.steps, landmarks: p.landmark_weight, outside: p.free_weight, ..FitConfig::default() };
        let mean = Person { z_id: vec![0.0; model.config.identity.d_id() as usize], scale: config.scale, landmarks: Vec::new(), throat: None };
        let mut seen = Vec::new();
        for i in 0..n {
            let (_, path, row) = &rows[(2 * i + 1) * rows.len() / (2 * n)];
            let moment = Moment::read(row)?;
            let place = || format!("the cloud {}", path.display());
            let upright = initial_frame(p.center);
            let pose = landmarks::pose_in(row, places.as_deref(), config.scale).with_context(place)?;
            let start = Frame { pose: pose.unwrap_or(upright.pose), ..upright };
            let frame = align(&model, &moment, p.points, start, &mean).with_context(place)?;
            seen.push((moment.observed(p.points, &frame.pose, config.scale).with_context(place)?, frame));
        }
        let frames: Vec<(&Cloud, Frame)> = seen.iter().map(|(cloud, frame)| (cloud, frame.clone())).collect();
        let fit = fit_identity(&model, &frames, &config, &mut |step, loss| {
            if step % 5 == 0 || step == p.steps {
                cx.progress(step, p.steps, format!("loss {loss:.4}"));
            }
        });
        let residual = fit.frames.iter().map(|frame| frame.residual).sum::<f64>() / n as f64 * UNIT_MM;
        let person = Person { z_id: fit.z_id, scale: config.scale, landmarks: fit.landmarks, throat: p.throat };
        let path = cx.file(unit, "person.json");
        std::fs::write(&path, serde_json::to_string(&person)?).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(vec![OutRow::new().file("person", &path).f64("residual", residual)])
    }
}
