//! `fit_pca_head`: the linear head model fitted to a sequence of point clouds: the baseline of `track_head` on the same
//! frames.
//!
//! reads: sequence?, timestep, cloud, landmarks3d?, skin?; with pca_model, landmarks?, person?
//! writes: mesh (PLY), expression, pose, residual (mm), kept, lost
//!
//! A group is a person, or one sequence of a person: the identity is fitted jointly with key frames spread over the
//! group, from where landmarks put the mean head; without any from the upright pose at `center` (`linear_start`). Then
//! frames of a sequence are fitted one after the other, each from the one before, the identity fixed; one that lost the
//! face starts anew. Meshes carry the neutral template's positions as canonical coordinates and no ambient ones.
//! `residual`, `kept` and `lost` mean what they mean in `track_head`; a moment in which too little of a face was seen
//! stays as the one before was, and is lost. Skin that was found again (`skin`, of `track_skin`) says where along the
//! surface it is; its canonical places are of another model's surface of the `person`, which is laid on this one's.
//! Sees points, landmarks and skin only.

use crate::common::fit_defaults::{LOST, hair_weight, points, skin_weight};
use crate::common::head_models::{self, Person, Throat, UNIT_MM, initial_frame};
use crate::common::key_frames::spread;
use crate::common::landmarks;
use crate::common::linear_start::place;
use crate::common::pca_heads::{self, LinearHead, Moment, Place, Seen, Settings};
use crate::common::skin::{self, SKIN};
use crate::common::timesteps::once;
use crate::common::tracked;
use anyhow::{Context, Result};
use geometry::Mesh;
use geometry::distance::MeshDistance;
use glam::{DVec3, Vec3};
use manifests::{Type, Value};
use models::nphm::fit::Cloud;
use models::nphm::pose::Pose;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Frames that the identity is fitted to.
    #[serde(default = "key_frames")]
    #[schemars(range(min = 1))]
    key_frames: usize,
    /// How much a point that lies outside the surface counts if no landmark is within 15 mm of it: it may be hair or
    /// clothes, under which the head ends. 1 for head models that have hair, as the published ones do.
    #[serde(default = "hair_weight")]
    #[schemars(range(min = 0, max = 1))]
    hair_weight: f64,
    /// Weight of the distance of skin that was found again (`skin`) from its places on the surface.
    #[serde(default = "skin_weight")]
    #[schemars(range(min = 0))]
    skin_weight: f64,
    /// Points kept of each cloud.
    #[serde(default = "points")]
    #[schemars(range(min = 100))]
    points: usize,
    /// Where the head is about to be if no landmarks say so, world frame, metres.
    #[serde(default)]
    center: [f64; 3],
    /// What a coefficient of one standard deviation costs, as a mean squared distance (model units).
    #[serde(default = "ridge")]
    #[schemars(range(min = 0))]
    ridge: f64,
    /// Where meshes are cut at the neck, as in `fit_identity`.
    #[serde(default)]
    throat: Option<Throat>,
}

/// Distance (model units) up to which a point counts as explained: the last one of `track_head`'s trimming.
const EXPLAINED: f32 = 0.02;

fn key_frames() -> usize {
    8
}
fn ridge() -> f64 {
    Settings::default().ridge
}

fn def() -> StageDef {
    StageDef::new("fit_pca_head", 6, Grain::Group)
        .doc("Fits the linear head model to a sequence of point clouds.")
        .reads([("timestep", Type::I64), ("cloud", Type::Blob)])
        .may_read([("sequence", Type::Str), landmarks::TRIANGULATED, SKIN])
        .with("pca_model", pca_heads::COLUMNS)
        .may_take("landmarks", [landmarks::PLACES])
        .may_take("person", [("person", Type::Blob)])
        .writes([("mesh", Type::Blob), ("expression", Type::Floats(0)), ("pose", Type::Floats(6))])
        .writes([("residual", Type::F64), ("kept", Type::F64), ("lost", Type::Bool)])
        .memory_mb(500)
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    params.throat.map_or(Ok(()), |throat| throat.check())?;
    anyhow::Ok(FitPcaHead {
        params,
        head: pca_heads::read(cx.with("pca_model")?)?,
        places: landmarks::known_places(cx)?,
        scale: cx.maybe_with("person").map(|_| Person::of(cx)).transpose()?.map(|person| person.scale),
    })
});

struct FitPcaHead {
    params: Params,
    head: LinearHead,
    /// Where the model has its landmarks.
    places: Option<Vec<Option<DVec3>>>,
    /// Size of the head that skin has its canonical places on, if that is known.
    scale: Option<f64>,
}

/// A fitted frame.
struct Found {
    moment: Moment,
    /// Mean distance of explained points, model units.
    residual: f64,
    /// Their share.
    kept: f64,
}

impl Stage for FitPcaHead {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.track(unit, cx)).collect()
    }
}

impl FitPcaHead {
    fn track(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let rows = unit.rows();
        // what is missing is said before anything is fitted
        let scale = self.scale(&rows)?;
        let when = |(i, row): (usize, &Row<'_>)| -> Result<(String, i64, usize)> {
            let (sequence, timestep) = skin::moment(row)?;
            Ok((sequence, timestep, i))
        };
        let mut order = rows.iter().enumerate().map(when).collect::<Result<Vec<_>>>()?;
        order.sort_unstable();
        once(order.iter().map(|(sequence, timestep, _)| (sequence.as_str(), *timestep)))?;
        let at = |sequence: &str, timestep: i64| format!("{sequence} timestep {timestep}").trim_start().to_string();
        let read = |i: usize| head_models::Moment::read(&rows[i]);
        let settings = Settings {
            ridge: self.params.ridge,
            covering: self.params.hair_weight,
            skin: self.params.skin_weight,
            rounds: 20,
            rigid_rounds: 5,
            ..Settings::default()
        };

        let told =
            |i: usize| self.places.as_ref().map_or(Ok(None), |places| landmarks::pose_in(&rows[i], Some(places), 1.0));
        // from where a frame starts that has none before it
        let start = |seen: &head_models::Moment, i: usize| match told(i)? {
            Some(pose) => Ok(self.neutral(pose)),
            None => place(&self.head, seen.cloud(), self.params.points, self.params.center),
        };

        // why the first moment that does not show a face does not
        let mut trouble = None;
        let mut usable = Vec::new();
        for (sequence, timestep, i) in &order {
            match self.seen(&read(*i)?, &told(*i)?.unwrap_or_else(|| initial_frame(self.params.center).pose)) {
                Ok(_) => usable.push((sequence, timestep, *i)),
                Err(error) => _ = trouble.get_or_insert(error.context(at(sequence, *timestep))),
            }
        }
        let mut keys: Vec<(Seen, Moment)> = Vec::new();
        for k in spread(usable.len(), self.params.key_frames.max(1)) {
            let (sequence, timestep, i) = usable[k];
            let observed = read(i)?;
            match start(&observed, i).and_then(|moment| Ok((self.seen(&observed, &moment.pose)?, moment))) {
                Ok(key) => keys.push(key),
                Err(error) => _ = trouble.get_or_insert(error.context(at(sequence, *timestep))),
            }
        }
        if keys.is_empty() {
            let none = "no moment shows enough of a face to fit a person to\nhint: do calibration and mattes belong to these videos?";
            return Err(trouble.map_or_else(|| anyhow::anyhow!(none), |error| error.context(none)));
        }
        let seen: Vec<(&Seen, Moment)> = keys.iter().map(|(seen, m)| (seen, m.clone())).collect();
        let (shape, _) = self.head.fit(&seen, None, &settings);

        let canonical: Vec<[f32; 5]> = self
            .head
            .mesh(&shape, &vec![0.0; self.head.expressions])
            .positions
            .iter()
            .map(|p| [p.x, p.y, p.z, 0.0, 0.0])
            .collect();
        let skins = self.skin(&rows, &shape, scale)?;
        let (mut out, mut last) = (Rows::new(), None::<Moment>);
        for (done, (sequence, timestep, i)) in order.iter().enumerate() {
            let observed = read(*i)?;
            last = last.filter(|_| order[done - 1].0 == *sequence);
            let fitted = |start: Moment| self.settle((&observed, &skins[*i]), start, &shape, &settings);
            let anew = || start(&observed, *i).and_then(fitted);
            let pose = told(*i)?;
            let start_here = last.clone().map(|last| Moment { pose: landmarks::nearer(last.pose, pose), ..last });
            let found = match start_here.map(fitted) {
                Some(Ok(found)) if found.kept >= LOST => Some(found),
                Some(Ok(found)) => Some(anew().ok().filter(|again| again.kept > found.kept).unwrap_or(found)),
                _ => anew().ok(),
            };
            let mut before = || last.take().unwrap_or_else(|| self.neutral(initial_frame(self.params.center).pose));
            let Found { moment, residual, kept } =
                found.unwrap_or_else(|| Found { moment: before(), residual: f64::NAN, kept: 0.0 });
            let mesh = self.head.mesh(&shape, &moment.expression);
            let world = mesh.positions.iter().map(|p| Vec3::from(moment.pose.to_world(p.to_array(), 1.0))).collect();
            let path = cx.file(unit, &format!("{done:05}.ply"));
            let (mesh, canonical) = (Mesh { positions: world, faces: mesh.faces }, canonical.clone());
            let (mesh, canonical) = match &self.params.throat {
                Some(throat) => throat.cut(mesh, canonical).with_context(|| at(sequence, *timestep))?,
                None => (mesh, canonical),
            };
            tracked::write_mesh(&path, &mesh, &canonical)?;
            let row = OutRow::of(*i)
                .file("mesh", &path)
                .floats("expression", moment.expression.iter().copied())
                .floats("pose", moment.pose.rotation.into_iter().chain(moment.pose.translation))
                .set("residual", if residual.is_nan() { Value::Null } else { Value::F64(residual * UNIT_MM) })
                .f64("kept", kept)
                .bool("lost", kept < LOST);
            out.push(row);
            last = Some(moment);
            cx.progress(done + 1, order.len(), "");
        }
        Ok(out)
    }

    /// Fits a frame of a known identity. Which points lie on the face depends on the pose, so they are chosen again
    /// when that is better known.
    fn settle(
        &self,
        (observed, skin): (&head_models::Moment, &[(Vec3, Place)]),
        start: Moment,
        shape: &[f64],
        settings: &Settings,
    ) -> Result<Found> {
        let mut moment = start;
        let seen_from =
            |pose: &Pose| Ok::<_, anyhow::Error>(Seen { skin: skin.to_vec(), ..self.seen(observed, pose)? });
        let mut seen = seen_from(&moment.pose)?;
        for _ in 0..2 {
            moment = self.head.fit(&[(&seen, moment)], Some(shape), settings).1.remove(0);
            seen = seen_from(&moment.pose)?;
        }
        let mesh = self.head.mesh(shape, &moment.expression);
        // what may be hair is no measure of a fit
        let sure = |i: usize| seen.is_bare(i) || settings.covering >= 1.0;
        let points = seen.points.iter().enumerate().filter(|(i, _)| sure(*i)).map(|(_, p)| p.to_array());
        let local: Vec<Vec3> = points.map(|p| Vec3::from(moment.pose.to_model(p, 1.0))).collect();
        let mut near = MeshDistance::new(&mesh).distances(&local);
        near.retain(|d| *d < EXPLAINED);
        let residual = near.iter().map(|d| f64::from(*d)).sum::<f64>() / near.len().max(1) as f64;
        Ok(Found { moment, residual, kept: near.len() as f64 / local.len().max(1) as f64 })
    }

    fn neutral(&self, pose: Pose) -> Moment {
        Moment { expression: vec![0.0; self.head.expressions], pose }
    }

    /// What was seen of the face.
    fn seen(&self, observed: &head_models::Moment, pose: &Pose) -> Result<Seen> {
        let Cloud { points, covering, .. } = observed.observed(self.params.points, pose, 1.0)?;
        Ok(Seen { points: points.into_iter().map(Vec3::from).collect(), covering, skin: Vec::new() })
    }

    /// Size of the head that the skin of rows has its canonical places on; 1 if they have no skin.
    fn scale(&self, rows: &[Row<'_>]) -> Result<f64> {
        if !rows.iter().any(|row| row.has(SKIN.0)) {
            return Ok(1.0);
        }
        self.scale.context(
            "rows have `skin`, and nobody says of which person its places are\n\
             hint: `with: { person: STAGE }` takes what fit_identity put out for track_skin; or leave the column out",
        )
    }

    /// The skin of each row, if it has any, with what it is of the surface of the person.
    fn skin(&self, rows: &[Row<'_>], shape: &[f64], scale: f64) -> Result<Vec<Vec<(Vec3, Place)>>> {
        let read = |row: &Row<'_>| row.maybe_path(SKIN.0)?.map_or(Ok(Vec::new()), |path| skin::read(&path));
        let skins = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
        if skins.iter().all(Vec::is_empty) {
            return Ok(vec![Vec::new(); rows.len()]);
        }
        // of all moments together, most of which found the same places
        let all: BTreeSet<[u32; 3]> = skins.iter().flatten().map(|(_, place)| place.map(f32::to_bits)).collect();
        let canonical: Vec<Vec3> = all.iter().map(|bits| Vec3::from(bits.map(f32::from_bits)) * scale as f32).collect();
        let places: BTreeMap<[u32; 3], Option<Place>> =
            all.into_iter().zip(self.head.places(shape, &canonical)).collect();
        let known =
            |(point, place): &([f32; 3], [f32; 3])| Some((Vec3::from(*point), places[&place.map(f32::to_bits)]?));
        Ok(skins.iter().map(|skin| skin.iter().filter_map(known).collect()).collect())
    }
}
