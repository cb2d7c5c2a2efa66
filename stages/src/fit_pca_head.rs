//! `fit_pca_head`: the linear head model fitted to a sequence of point clouds: the baseline of `track_head` on the same frames.
//!
//! reads: timestep, cloud; with pca_model   writes: mesh (PLY), expression, pose, residual (mm), kept
//!
//! A group is a person's sequence. The identity is fitted jointly with key frames spread over it, from the upright pose at `center`;
//! then frames are fitted one after the other, each from the one before, the identity fixed. Meshes carry the neutral template's
//! positions as canonical coordinates and no ambient ones. `residual` and `kept` mean what they mean in `track_head`. Sees points only.

use crate::fit_identity::{UNIT_MM, initial_frame};
use crate::head_models::observed;
use crate::pca_heads::{self, LinearHead, Moment, Settings};
use crate::tracked;
use anyhow::{Context, Result};
use geometry::cloud::PointCloud;
use geometry::distance::MeshDistance;
use geometry::{Mesh, ply};
use glam::Vec3;
use manifests::Type;
use models::nphm::pose::Pose;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Frames that the identity is fitted to.
    #[serde(default = "key_frames")]
    key_frames: usize,
    /// Points kept of each cloud.
    #[serde(default = "points")]
    points: usize,
    /// Where the head is about to be, world frame, metres.
    #[serde(default)]
    center: [f64; 3],
    /// What a coefficient of one standard deviation costs, as a mean squared distance (model units).
    #[serde(default = "ridge")]
    ridge: f64,
}

/// Distance (model units) up to which a point counts as explained: the last one of `track_head`'s trimming.
const EXPLAINED: f32 = 0.02;

fn key_frames() -> usize {
    8
}
fn points() -> usize {
    5000
}
fn ridge() -> f64 {
    Settings::default().ridge
}

fn def() -> StageDef {
    StageDef::new("fit_pca_head", 1, Grain::Group)
        .doc("Fits the linear head model to a sequence of point clouds.")
        .reads([("timestep", Type::I64), ("cloud", Type::Blob)])
        .with("pca_model", pca_heads::COLUMNS)
        .writes([("mesh", Type::Blob), ("expression", Type::Floats(0)), ("pose", Type::Floats(6))])
        .writes([("residual", Type::F64), ("kept", Type::F64)])
        .memory_mb(500)
}

protocol::register!(Params, def, |params, cx: &Cx<'_>| {
    anyhow::Ok(FitPcaHead { params, head: pca_heads::read(cx.with("pca_model")?)? })
});

struct FitPcaHead {
    params: Params,
    head: LinearHead,
}

impl Stage for FitPcaHead {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.track(unit, cx)).collect()
    }
}

impl FitPcaHead {
    fn track(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let rows = unit.rows();
        let mut order =
            rows.iter().enumerate().map(|(i, row)| Ok((row.i64("timestep")?, i))).collect::<Result<Vec<_>>>()?;
        order.sort_unstable();
        let cloud = |i: usize| -> Result<PointCloud> { Ok(ply::read_cloud(&rows[i].path("cloud")?)?) };
        let settings = Settings { ridge: self.params.ridge, ..Settings::default() };

        let n = self.params.key_frames.clamp(1, order.len());
        let mut keys: Vec<(Vec<Vec3>, Moment)> = Vec::new();
        for k in 0..n {
            let (timestep, i) = order[(2 * k + 1) * order.len() / (2 * n)];
            let moment = self.placed(&cloud(i)?).with_context(|| format!("timestep {timestep}"))?;
            keys.push((self.seen(&cloud(i)?, &moment.pose)?, moment));
        }
        let seen: Vec<(&[Vec3], Moment)> = keys.iter().map(|(points, m)| (points.as_slice(), m.clone())).collect();
        let (shape, _) = self.head.fit(&seen, None, &settings);

        let canonical: Vec<[f32; 5]> =
            self.head.mesh(&shape, &vec![0.0; self.head.expressions]).positions.iter().map(|p| [p.x, p.y, p.z, 0.0, 0.0]).collect();
        let (mut out, mut last) = (Rows::new(), None::<Moment>);
        for (done, (timestep, i)) in order.iter().copied().enumerate() {
            let place = || format!("timestep {timestep}");
            let cloud = cloud(i)?;
            let start = match last.take() {
                Some(before) => before,
                None => self.placed(&cloud).with_context(place)?,
            };
            let points = self.seen(&cloud, &start.pose).with_context(place)?;
            let (_, mut moments) = self.head.fit(&[(&points, start)], Some(&shape), &settings);
            let moment = moments.remove(0);
            let mesh = self.head.mesh(&shape, &moment.expression);
            let local: Vec<Vec3> = points.iter().map(|p| Vec3::from(moment.pose.to_model(p.to_array(), 1.0))).collect();
            let mut near = MeshDistance::new(&mesh).distances(&local);
            near.retain(|d| *d < EXPLAINED);
            let residual = near.iter().map(|d| f64::from(*d)).sum::<f64>() / near.len().max(1) as f64;
            let world = mesh.positions.iter().map(|p| Vec3::from(moment.pose.to_world(p.to_array(), 1.0))).collect();
            let path = cx.file(unit, &format!("{timestep:05}.ply"));
            tracked::write_mesh(&path, &Mesh { positions: world, faces: mesh.faces }, &canonical)?;
            let row = OutRow::of(i)
                .file("mesh", &path)
                .floats("expression", moment.expression.iter().copied())
                .floats("pose", moment.pose.rotation.into_iter().chain(moment.pose.translation))
                .f64("residual", residual * UNIT_MM)
                .f64("kept", near.len() as f64 / local.len() as f64);
            out.push(row);
            last = Some(moment);
            cx.progress(done + 1, order.len(), "");
        }
        Ok(out)
    }

    /// The neutral mean head, brought from the upright pose near a cloud.
    fn placed(&self, cloud: &PointCloud) -> Result<Moment> {
        let start = self.neutral(initial_frame(self.params.center).pose);
        let points = self.seen(cloud, &start.pose)?;
        let known = vec![0.0; self.head.shapes];
        let settings = Settings { rounds: 20, rigid_rounds: 20, keep: 0.8, ..Settings::default() };
        Ok(self.head.fit(&[(&points, start)], Some(&known), &settings).1.remove(0))
    }

    fn neutral(&self, pose: Pose) -> Moment {
        Moment { expression: vec![0.0; self.head.expressions], pose }
    }

    /// The points of a cloud that lie on the face.
    fn seen(&self, cloud: &PointCloud, pose: &Pose) -> Result<Vec<Vec3>> {
        Ok(observed(cloud, self.params.points, pose, 1.0)?.points.into_iter().map(Vec3::from).collect())
    }
}
