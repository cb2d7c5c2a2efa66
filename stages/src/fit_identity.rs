//! `fit_identity`: who the person is: one identity code, jointly fitted to point clouds of several moments.
//!
//! reads: sequence, timestep, cloud, landmarks3d?, free_space?; with head_model, landmarks?, pca_model?
//! writes: person (JSON), residual (mm)
//!
//! Key frames are spread evenly over all timesteps given, or are those that differ most (`key_choice`); moments in
//! which too little of a face was seen are none of them, and only if all are like that there is an error. Each has its
//! own expression code and rigid pose, all share the identity (specs of NPHM fitting, section 5: joint identity on
//! diverse key frames), and each landmark has one canonical place in all of them. Poses start where a frame's landmarks
//! put the mean head; without landmarks where the linear model `pca_model` finds it (`linear_start`), or else upright,
//! facing +z of the rig, at `center`. They are first brought near by the mean shape alone. The size of the head is the
//! model's, since rig and model are both metric, or that of its landmarks (`size`). Sees points and landmarks only.

use crate::common::fit_defaults::{free_weight, hair_weight, landmark_weight, points, residual_mm};
use crate::common::head_models::{self, Moment, Person, Throat, align, initial_frame};
use crate::common::key_frames::{KeyChoice, choose};
use crate::common::landmarks;
use crate::common::linear_start::place;
use crate::common::pca_heads;
use crate::common::timesteps::once;
use anyhow::{Context, Result};
use manifests::Type;
use models::nphm::fit::{Cloud, FitConfig, Frame, fit_identity};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How large the head is.
#[derive(Clone, Copy, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Size {
    /// As the model says: identity codes tell large heads from small ones.
    #[default]
    Model,
    /// The model's times a factor, the median over all moments of what landmarks tell (specs of NPHM fitting, section
    /// 5): for calibrations that are not quite metric, and heads larger or smaller than all that the model learned
    /// from.
    Landmarks,
}

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Key frames.
    #[serde(default = "key_frames")]
    #[schemars(range(min = 1))]
    key_frames: usize,
    /// How they are chosen.
    #[serde(default)]
    key_choice: KeyChoice,
    /// Updates.
    #[serde(default = "steps")]
    #[schemars(range(min = 1))]
    steps: usize,
    /// Weight of the landmarks' distance from their mean canonical places.
    #[serde(default = "landmark_weight")]
    #[schemars(range(min = 0))]
    landmark_weight: f64,
    /// Weight of the field at places that are known to be free.
    #[serde(default = "free_weight")]
    #[schemars(range(min = 0))]
    free_weight: f64,
    /// How much a point that lies outside the surface counts if no landmark is within 15 mm of it: it may be hair or
    /// clothes, under which the head ends. 1 for head models that have hair, as the published ones do.
    #[serde(default = "hair_weight")]
    #[schemars(range(min = 0, max = 1))]
    hair_weight: f64,
    /// Points kept of each cloud.
    #[serde(default = "points")]
    #[schemars(range(min = 100))]
    points: usize,
    /// How large the head is.
    #[serde(default)]
    size: Size,
    /// Where the head is about to be if no landmarks say so, world frame, metres.
    #[serde(default)]
    center: [f64; 3],
    /// Where the meshes of this person are cut at the neck: a point of a plane and the direction from it in which the
    /// head lies, canonical space, model units. Without it they end where the head model does.
    #[serde(default)]
    throat: Option<Throat>,
}

fn key_frames() -> usize {
    8
}
fn steps() -> usize {
    300
}

fn def() -> StageDef {
    StageDef::new("fit_identity", 9, Grain::Group)
        .doc("Fits a person's identity code to point clouds of several moments.")
        .reads([("sequence", Type::Str), ("timestep", Type::I64), ("cloud", Type::Blob)])
        .may_read(Moment::MAY_READ)
        .with("head_model", head_models::COLUMNS)
        .may_take("landmarks", [landmarks::PLACES])
        .may_take("pca_model", pca_heads::COLUMNS)
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

impl FitIdentity {
    fn fit(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let model = head_models::read(cx.with("head_model")?)?;
        let places = landmarks::known_places(cx)?;
        let linear = cx.maybe_with("pca_model").map(pca_heads::read).transpose()?;
        let mut rows = unit
            .rows()
            .into_iter()
            .map(|row| Ok(((row.str("sequence")?, row.i64("timestep")?), row.path("cloud")?, row)))
            .collect::<Result<Vec<_>>>()?;
        rows.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        once(rows.iter().map(|((sequence, timestep), ..)| (sequence.as_str(), *timestep)))?;
        let scale = match p.size {
            Size::Model => FitConfig::default().scale,
            Size::Landmarks => {
                let column = landmarks::TRIANGULATED.0;
                let found = rows
                    .iter()
                    .filter(|(_, _, row)| row.has(column))
                    .map(|(_, _, row)| Ok(landmarks::of_column(&row.floats(column)?)))
                    .collect::<Result<Vec<_>>>()?;
                places.as_deref().and_then(|places| landmarks::size_of(places, &found)).context(
                    "`size: landmarks` needs moments with landmarks, and none has enough of them\n\
                     hint: `landmarks3d` comes from triangulate_landmarks, `with: { landmarks: STAGE }` from scan_landmarks",
                )?
            }
        };
        let config = FitConfig {
            steps: p.steps,
            scale,
            landmarks: p.landmark_weight,
            outside: p.free_weight,
            covering: p.hair_weight,
            ..FitConfig::default()
        };
        let mean = Person {
            z_id: vec![0.0; model.config.identity.d_id() as usize],
            scale: config.scale,
            landmarks: Vec::new(),
            throat: None,
        };
        // moments that show enough of a face to start from, and why the first one that does not show it does not
        let (mut usable, mut found, mut trouble) = (Vec::new(), Vec::new(), None);
        for (_, path, row) in &rows {
            let of_cloud = || format!("the cloud {}", path.display());
            let moment = Moment::read(row).with_context(of_cloud)?;
            let upright = initial_frame(p.center);
            let told = landmarks::pose_in(row, places.as_deref(), config.scale).with_context(of_cloud)?;
            let sought = || place(linear.as_ref()?, moment.cloud(), p.points, p.center).ok().map(|m| m.pose);
            let pose = told.or_else(sought);
            let start = Frame { pose: pose.unwrap_or(upright.pose), ..upright };
            match moment.observed(p.points, &start.pose, config.scale) {
                Ok(_) => {
                    found.push(moment.found());
                    // read again when it is chosen: all clouds of a long video are too much to keep
                    usable.push((row, start, path));
                }
                Err(error) => _ = trouble.get_or_insert(error.context(of_cloud())),
            }
        }
        let mut seen = Vec::new();
        for i in choose(p.key_choice, p.key_frames.max(1), &found, places.as_deref(), config.scale) {
            let (row, start, path) = &usable[i];
            let moment = Moment::read(row)?;
            let near = align(&model, &moment, p.points, start.clone(), &mean, p.hair_weight)
                .and_then(|frame| Ok((moment.observed(p.points, &frame.pose, config.scale)?, frame)));
            match near {
                Ok(near) => seen.push(near),
                Err(error) => _ = trouble.get_or_insert(error.context(format!("the cloud {}", path.display()))),
            }
        }
        if seen.is_empty() {
            let none = "no moment shows enough of a face to fit a person to\nhint: do calibration and mattes belong to these videos?";
            return Err(trouble.map_or_else(|| anyhow::anyhow!(none), |error| error.context(none)));
        }
        let n = seen.len();
        let frames: Vec<(&Cloud, Frame)> = seen.iter().map(|(cloud, frame)| (cloud, frame.clone())).collect();
        let fit = fit_identity(&model, &frames, &config, &mut |step, loss| {
            if step % 5 == 0 || step == p.steps {
                cx.progress(step, p.steps, format!("loss {loss:.4}"));
            }
        });
        let residual = fit.frames.iter().map(|frame| frame.residual).sum::<f64>() / n as f64;
        let residual = residual_mm(residual, config.scale);
        let person = Person { z_id: fit.z_id, scale: config.scale, landmarks: fit.landmarks, throat: p.throat };
        let path = cx.file(unit, "person.json");
        std::fs::write(&path, serde_json::to_string(&person)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(vec![OutRow::new().file("person", &path).f64("residual", residual)])
    }
}
