//! The avatar viewer: heads under codes that nobody has tracked, and what the avatar makes of them.
//!
//! The rows and weights are those of a finished run; the work is that of the provider's own stages, on task directories
//! in a temporary folder. Nothing that is computed here enters the workspace. Apart from `RECIPE`s, this and `cast` are
//! the only places in the engine that know stages of the provider by name: which of them belong together is what makes
//! a viewer of an avatar.

use super::api::Fields;
use super::asked::{Answer, Answered, Refusal, missing, wrong};
use super::camera::{Camera, view};
use super::cast::{Cast, RASTERS, RENDERS};
use super::site::Site;
use super::workers::{Desk, Task, text};
use crate::provider::Candidate;
use crate::record::Record;
use anyhow::{Result, anyhow};
use cache::layout;
use manifests::{Digest, Manifest, Schema, Type, Value};
use serde_json::{Map, Value as Json, json};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// What poses a head and finds directions; the other names are `cast`'s.
const POSES: &str = "pose_head";
const DIRECTIONS: &str = "expression_directions";
const ACTIONS: &str = "expression_actions";

/// What a picture takes of its moment besides the code: turns of the eyes about the head's axes (left, then right;
/// radians), how far the lids are open (1: as usual), and whose features.
const OF_MOMENT: [&str; 3] = ["eyes", "lids", "participant"];
/// How far sliders turn eyes sideways and up or down, degrees, and close or open lids.
const GAZE: [f64; 2] = [35.0, 25.0];
const LIDS: [f64; 2] = [-1.0, 0.5];

/// Meshes that are kept, so that a picture needs none anew.
const MESHES: usize = 24;
/// How far a slider goes, in standard deviations of the tracked codes.
const REACH: f64 = 3.0;
/// Levels of refinement that a sketch of the surface does without.
const COARSER: i64 = 1;

/// The avatar of this name, or the first.
fn find(record: &Record, fields: &Fields) -> Answered<Cast> {
    let mut casts = Cast::all(record).map_err(missing)?;
    let place = fields.get("avatar").map_or(Some(0), |name| casts.iter().position(|cast| cast.name == name));
    Ok(casts.swap_remove(place.ok_or_else(|| missing("this run has no avatar of this name"))?))
}

/// A mesh that was computed, by what decides it.
type Mesh = (String, PathBuf);

/// Computes what the viewer shows.
pub struct Viewer {
    /// Where heads are posed and directions found.
    heads: Mutex<Desk>,
    /// Where surfaces are sketched, which must not wait for the others.
    sketches: Mutex<Desk>,
    /// Where heads are rasterised.
    gbuffers: Mutex<Desk>,
    /// Where pictures are drawn.
    pictures: Mutex<Desk>,
    meshes: Mutex<VecDeque<Mesh>>,
    directions: Mutex<Vec<(Digest, Arc<Vec<Direction>>)>>,
    folder: PathBuf,
}

struct Direction {
    code: Vec<f64>,
    /// Share of the variance, of a principal direction.
    share: Option<f64>,
    /// Of an action: what it is called, and its largest weight.
    name: String,
    most: f64,
}

impl Viewer {
    /// Over a workspace, with the provider that has the stages, and an empty folder.
    pub fn new(root: &Path, provider: Option<Candidate>, folder: &Path) -> Viewer {
        let memory = root.join(layout::PROVIDERS);
        let desk = |name: &str| Mutex::new(Desk::new(folder.join(name), provider.clone(), &memory));
        Viewer {
            heads: desk("heads"),
            sketches: desk("sketches"),
            gbuffers: desk("gbuffers"),
            pictures: desk("pictures"),
            meshes: Mutex::default(),
            directions: Mutex::default(),
            folder: folder.into(),
        }
    }

    /// What there is to see of a run: directions of expression, moments to start from, and where cameras stood.
    ///
    /// # Errors
    /// If there is no avatar, its tables are gone, or the stages cannot be asked.
    pub fn describe(&self, site: &Site, record: &Record) -> Answered<Json> {
        let casts = Cast::all(record).map_err(missing)?;
        let told = casts.iter().map(|cast| self.described(site, cast)).collect::<Answered<Vec<Json>>>()?;
        Ok(json!({"run": record.run, "recipe": record.recipe, "avatars": told}))
    }

    fn described(&self, site: &Site, cast: &Cast) -> Answered<Json> {
        let table = site.tables.table(&cast.tracked.table.expect("a cast has it"))?;
        let naming = crate::compare::Naming::of(&table);
        let moment = |row: usize| json!({"row": row, "name": naming.name(&table, row)});
        let moments: Vec<Json> = (0..table.len()).map(moment).collect();
        let directions = self.directions(site, cast, &table)?;
        let sliders: Vec<Json> = directions[1..].iter().map(|one| json!({"share": one.share})).collect();
        let actions = self.actions(site, cast)?;
        let actions: Vec<Json> = actions.iter().map(|one| json!({"name": one.name, "most": one.most})).collect();
        let camera = camera(site, cast, None)?;
        let tracked = &cast.tracked.name;
        Ok(json!({
            "name": cast.name,
            "tracked": tracked,
            "moments": moments,
            "directions": sliders,
            "reach": REACH,
            "actions": actions,
            "eyes": steered(site, cast)?,
            "camera": {"focal": camera.focal, "center": camera.center, "distance": camera.distance, "seen": seen(site, cast, &camera)?},
            "renders": cast.render.as_ref().map(|(gbuffer, render, ..)| {
                json!({"size": gbuffer.params.get("size"), "steps": render.params.get("steps")})
            }),
        }))
    }

    /// The surface under codes and pose of a request, as a PLY file.
    ///
    /// # Errors
    /// If a field is wrong, or the stage fails.
    pub fn mesh(&self, site: &Site, record: &Record, fields: &Fields) -> Answered {
        let cast = find(record, fields)?;
        let (code, pose) = self.asked_for(site, &cast, fields)?;
        let path = self.posed(site, &cast, &code, &pose, fields.get("sketch").is_some())?;
        let bytes = std::fs::read(path).map_err(|error| anyhow!("the mesh cannot be read: {error}"))?;
        Ok(Answer::bytes("application/octet-stream", bytes))
    }

    /// The avatar's picture under codes and pose of a request, from its camera, as a PNG.
    ///
    /// # Errors
    /// If a field is wrong, there is no avatar, or a stage fails.
    pub fn render(&self, site: &Site, record: &Record, fields: &Fields) -> Answered {
        let cast = find(record, fields)?;
        let (gbuffer, render, avatar, backbone) =
            cast.render.clone().ok_or_else(|| missing("this run tracked a head and trained no avatar of it"))?;
        let (code, pose) = self.asked_for(site, &cast, fields)?;
        let camera = camera(site, &cast, Some(fields))?;
        let mesh = self.posed(site, &cast, &code, &pose, false)?;
        let size =
            gbuffer.params.get("size").and_then(Json::as_i64).ok_or_else(|| missing("the G-buffers have no size"))?;
        let params = with_params(
            &gbuffer.params,
            &[("crops", json!(0)), ("eval_crop", json!(1.0)), ("center", json!(camera.center))],
        );
        let half = size as f64 / 2.0;
        let focal = camera.focal * size as f64;
        let k = vec![focal, 0.0, half, 0.0, focal, half, 0.0, 0.0, 1.0];
        let row = [
            ("mesh", Type::Str, text(&mesh)),
            // what names a frame decides random crops, of which there are none
            ("participant", Type::I64, Value::I64(0)),
            ("sequence", Type::Str, Value::Str("viewer".into())),
            ("camera", Type::Str, Value::Str("viewer".into())),
            ("timestep", Type::I64, Value::I64(0)),
            ("intrinsics", Type::Floats(9), Value::Floats(k)),
            ("world_to_cam", Type::Floats(16), Value::Floats(camera.world_to_cam().to_vec())),
            ("width", Type::I64, Value::I64(size)),
            ("height", Type::I64, Value::I64(size)),
        ];
        let drawn = {
            let mut desk = hold(&self.gbuffers);
            let task = Task { kind: RASTERS, params, with: &[], rows: table_of(&row)?, stage: "viewer".into() };
            desk.work(site, &task)?
        };
        let gbuffer = drawn.file(0, "gbuffer")?;
        let mut row = vec![
            ("gbuffer", Type::Str, text(&gbuffer)),
            ("expression", Type::Floats(code.len() as u32), Value::Floats(code)),
        ];
        let moment = if fields.get("mean").is_some() { None } else { Some(fields.number("row", 0)?) };
        row.extend(turned(of_moment(site, &cast, moment)?, fields)?);
        let with = [("avatar", avatar), ("backbone", backbone)];
        let stage = format!("{avatar} {backbone}");
        let task =
            Task { kind: RENDERS, params: with_params(&render.params, &[]), with: &with, rows: table_of(&row)?, stage };
        let picture = hold(&self.pictures).work(site, &task)?;
        let bytes = std::fs::read(picture.file(0, "render")?)
            .map_err(|error| anyhow!("the picture cannot be read: {error}"))?;
        Ok(Answer::bytes("image/png", bytes))
    }

    /// Code and pose of a request: those of a tracked moment, or the mean code, and steps along the directions from
    /// there.
    fn asked_for(&self, site: &Site, cast: &Cast, fields: &Fields) -> Answered<(Vec<f64>, Vec<f64>)> {
        let table = site.tables.table(&cast.tracked.table.expect("a cast has it"))?;
        let row = fields.number("row", 0)?;
        if row >= table.len() {
            return Err(wrong("the tracking has no such row"));
        }
        let floats = |column: &str| -> Answered<Vec<f64>> {
            match table.value(row, column) {
                Ok(Value::Floats(values)) => Ok(values),
                _ => Err(missing(format!("the tracking has no column `{column}`"))),
            }
        };
        let (mut code, pose) = (floats("expression")?, floats("pose")?);
        let directions = self.directions(site, cast, &table)?;
        if fields.get("mean").is_some() {
            code.clone_from(&directions[0].code);
        }
        for (slider, direction) in fields.get("along").unwrap_or_default().split(',').zip(&directions[1..]) {
            if slider.is_empty() {
                continue;
            }
            let step: Option<f64> = slider.parse().ok().filter(|step: &f64| step.abs() <= REACH);
            let step = step.ok_or_else(|| wrong(format!("a slider goes from -{REACH} to {REACH}")))?;
            code.iter_mut().zip(&direction.code).for_each(|(value, along)| *value += step * along);
        }
        let actions = self.actions(site, cast)?;
        for action in fields.all("action") {
            let found = action.split_once(':').and_then(|(name, weight)| {
                let weight = weight.parse().ok().filter(|weight| (0.0..=1.0).contains(weight));
                Some((actions.iter().find(|one| one.name == name)?, weight?))
            });
            let (action, weight): (_, f64) =
                found.ok_or_else(|| wrong("an action is NAME:WEIGHT, with a weight from 0 to 1"))?;
            code.iter_mut().zip(&action.code).for_each(|(value, along)| *value += weight * along);
        }
        Ok((code, pose))
    }

    /// The mean code, and the directions in which the tracked ones vary.
    fn directions(&self, site: &Site, cast: &Cast, tracked: &Manifest) -> Answered<Arc<Vec<Direction>>> {
        let digest = cast.tracked.table.expect("a cast has it");
        let found = self.found(site, digest, DIRECTIONS, || Ok(tracked.select(&["expression"])?))?;
        if found.is_empty() {
            return Err(missing(format!("`{DIRECTIONS}` gave no mean")));
        }
        Ok(found)
    }

    /// What ARKit's actions add to a code; none if the truth is not known.
    fn actions(&self, site: &Site, cast: &Cast) -> Answered<Arc<Vec<Direction>>> {
        let Some(digest) = cast.truth.filter(|digest| site.tables.has(digest)) else { return Ok(Arc::default()) };
        let table = site.tables.table(&digest)?;
        self.found(site, digest, ACTIONS, || Ok(table.select(&["expression", "arkit", "action_mm"])?))
    }

    /// Directions that a stage finds in a table, once.
    fn found(
        &self,
        site: &Site,
        table: Digest,
        kind: &str,
        rows: impl Fn() -> Result<Manifest>,
    ) -> Answered<Arc<Vec<Direction>>> {
        let lock = || self.directions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, known)) = lock().iter().find(|(known, _)| *known == table) {
            return Ok(known.clone());
        }
        let mut desk = hold(&self.heads);
        // whoever waited for the desk may have waited for these
        if let Some((_, known)) = lock().iter().find(|(known, _)| *known == table) {
            return Ok(known.clone());
        }
        let task = Task { kind, params: Map::new(), with: &[], rows: rows()?, stage: "viewer".into() };
        let found = desk.work(site, &task)?.table;
        let number = |row: usize, column: &str| match found.value(row, column) {
            Ok(Value::F64(number)) => Some(number),
            _ => None,
        };
        let direction = |row: usize| -> Result<Direction> {
            let Value::Floats(code) = found.value(row, "direction")? else {
                return Err(anyhow!("`{kind}` gave no direction"));
            };
            let name = if let Ok(Value::Str(name)) = found.value(row, "action") { name } else { String::new() };
            Ok(Direction { code, name, share: number(row, "share"), most: number(row, "most").unwrap_or(1.0) })
        };
        let directions: Arc<Vec<Direction>> = Arc::new((0..found.len()).map(direction).collect::<Result<_>>()?);
        lock().push((table, directions.clone()));
        Ok(directions)
    }

    /// The file of a surface: extracted as the tracking did it, or a sketch of it on a coarser grid.
    fn posed(&self, site: &Site, cast: &Cast, code: &[f64], pose: &[f64], sketch: bool) -> Answered<PathBuf> {
        let (coarse, levels) = (cast.tracked.params.get("coarse"), cast.tracked.params.get("levels"));
        let mut params = Map::new();
        params.extend(coarse.map(|coarse| ("coarse".to_string(), coarse.clone())));
        if let Some(levels) = levels.and_then(Json::as_i64) {
            params.insert("levels".into(), (levels - if sketch { COARSER } else { 0 }).max(0).into());
        }
        let stage = format!("{} {} {}", cast.head_model, cast.person, Json::from(params.clone()));
        let what = format!("{stage} {code:?} {pose:?}");
        let lock = || self.meshes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // whoever waited for the desk may have waited for this very mesh
        let mut desk = hold(if sketch { &self.sketches } else { &self.heads });
        if let Some((_, path)) = lock().iter().find(|(known, _)| *known == what) {
            return Ok(path.clone());
        }
        let row = [
            ("expression", Type::Floats(code.len() as u32), Value::Floats(code.to_vec())),
            ("pose", Type::Floats(6), Value::Floats(pose.to_vec())),
        ];
        let with = [("head_model", cast.head_model), ("person", cast.person)];
        let task = Task { kind: POSES, params, with: &with, rows: table_of(&row)?, stage };
        let made = desk.work(site, &task)?.file(0, "mesh")?;
        let mut meshes = lock();
        // its task's folder goes when the next task comes
        let path = self.folder.join(format!("{}.ply", Digest::of_bytes(what.as_bytes()).short()));
        std::fs::rename(&made, &path).map_err(|error| anyhow!("the mesh cannot be kept: {error}"))?;
        meshes.push_front((what, path.clone()));
        while meshes.len() > MESHES {
            // one that stays goes with the folder
            let _ = meshes.pop_back().map(|(_, path)| std::fs::remove_file(path));
        }
        Ok(path)
    }
}

/// A desk for oneself, until whoever works at it is done.
fn hold(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The camera of a request. Focal length and distance are those of the first camera that pictures were drawn for;
/// without any, of one that shows a head whole.
fn camera(site: &Site, cast: &Cast, fields: Option<&Fields>) -> Answered<Camera> {
    let mut camera = Camera { focal: 2.4, center: [0.0; 3], angles: [0.0; 2], distance: 1.0 };
    if let Some((gbuffer, ..)) = &cast.render {
        let table = site.tables.table(&gbuffer.table.expect("a cast has it"))?;
        let first = |column: &str| table.value(0, column).ok();
        let center = gbuffer.params.get("center").and_then(Json::as_array);
        if let Some(center) = center.map(|list| list.iter().filter_map(Json::as_f64).collect::<Vec<_>>()) {
            camera.center = center.try_into().unwrap_or_default();
        }
        if let (Some(Value::Floats(k)), Some(Value::Floats(pose)), Some(Value::Floats(rect))) =
            (first("intrinsics"), first("world_to_cam"), first("crop_rect"))
        {
            let eye: [f64; 3] =
                std::array::from_fn(|i| -(0..3).map(|k| pose[4 * k + i] * pose[4 * k + 3]).sum::<f64>());
            camera.distance = (0..3).map(|i| (eye[i] - camera.center[i]).powi(2)).sum::<f64>().sqrt();
            camera.focal = k[0] / rect[2];
        }
    }
    let Some(fields) = fields else { return Ok(camera) };
    let number = |name: &str, otherwise: f64, low: f64, high: f64| -> Answered<f64> {
        let Some(text) = fields.get(name) else { return Ok(otherwise) };
        let value = text.parse().ok().filter(|value: &f64| (low..=high).contains(value));
        value.ok_or_else(|| wrong(format!("the field `{name}` is no number from {low} to {high}")))
    };
    let limit = std::f64::consts::PI;
    camera.angles = [number("about", 0.0, -limit, limit)?, number("above", 0.0, -1.5, 1.5)?];
    camera.distance *= number("away", 1.0, 0.3, 3.0)?;
    Ok(camera)
}

/// From where the pictures were drawn that an avatar learned from, as the least and the greatest of each: `about` the
/// vertical and `above` the horizontal, radians, and how far `away`, where a crop of half the size is half as far. What
/// it makes of a view from elsewhere is guessed. Nothing if there is no avatar.
fn seen(site: &Site, cast: &Cast, camera: &Camera) -> Answered<Json> {
    let Some((gbuffer, ..)) = &cast.render else { return Ok(Json::Null) };
    let table = site.tables.table(&gbuffer.table.expect("a cast has it"))?;
    let column = |name: &str| table.column(name).map_err(anyhow::Error::from);
    let (poses, intrinsics, crops) = (column("world_to_cam")?, column("intrinsics")?, column("crop_rect")?);
    let views = poses.iter().zip(&intrinsics).zip(&crops).filter_map(|((pose, k), rect)| match (pose, k, rect) {
        (Value::Floats(pose), Value::Floats(k), Value::Floats(rect)) => Some(view(pose, k[0] / rect[2], camera)),
        _ => None,
    });
    let single = views.map(|view| view.map(|value| [value, value]));
    let range = single.reduce(|a, b| std::array::from_fn(|i| [a[i][0].min(b[i][0]), a[i][1].max(b[i][1])]));
    Ok(range.map_or(Json::Null, |[about, above, away]| json!({"about": about, "above": above, "away": away})))
}

/// What a picture takes of a tracked moment besides its code: that of the G-buffer that was drawn of it. Of no moment,
/// or one of which no picture was drawn, the eyes are those of the mean.
fn of_moment(site: &Site, cast: &Cast, row: Option<usize>) -> Answered<Vec<(&'static str, Type, Value)>> {
    let Some((gbuffer, ..)) = &cast.render else { return Ok(Vec::new()) };
    let tracked = site.tables.table(&cast.tracked.table.expect("a cast has it"))?;
    let drawn = site.tables.table(&gbuffer.table.expect("a cast has it"))?;
    let place = match row {
        Some(row) => {
            let code = tracked.value(row, "expression").map_err(anyhow::Error::from)?;
            drawn.column("expression").map_err(anyhow::Error::from)?.iter().position(|known| *known == code)
        }
        None => None,
    };
    let of = |name: &'static str| {
        let value = match place {
            Some(place) => drawn.value(place, name).ok()?,
            None => mean(&drawn.column(name).ok()?)?,
        };
        Some((name, drawn.schema().ty(name)?, value))
    };
    Ok(OF_MOMENT.into_iter().filter_map(of).collect())
}

/// The mean of vectors; of anything else the first.
fn mean(column: &[Value]) -> Option<Value> {
    let vectors: Vec<&Vec<f64>> =
        column.iter().filter_map(|value| if let Value::Floats(v) = value { Some(v) } else { None }).collect();
    let Some(first) = vectors.first() else { return column.first().cloned() };
    let sum = |i: usize| vectors.iter().filter_map(|vector| vector.get(i)).sum::<f64>();
    Some(Value::Floats((0..first.len()).map(|i| sum(i) / vectors.len() as f64).collect()))
}

/// Which of gaze and lids sliders can move, and how far; nothing if pictures were drawn without.
fn steered(site: &Site, cast: &Cast) -> Answered<Json> {
    let Some((gbuffer, ..)) = &cast.render else { return Ok(Json::Null) };
    let drawn = site.tables.table(&gbuffer.table.expect("a cast has it"))?;
    let has = |name: &str| drawn.schema().ty(name).is_some();
    Ok(json!({"gaze": has("eyes").then_some(GAZE), "lids": has("lids").then_some(LIDS)}))
}

/// The eyes and lids of a moment as the sliders of a request move them: `gaze` sideways and up, degrees, and `lids`.
fn turned(mut moment: Vec<(&'static str, Type, Value)>, fields: &Fields) -> Answered<Vec<(&'static str, Type, Value)>> {
    let numbers = |name: &str, ranges: &[[f64; 2]]| -> Answered<Option<Vec<f64>>> {
        let Some(text) = fields.get(name) else { return Ok(None) };
        let values: Option<Vec<f64>> = text.split(',').map(|part| part.parse().ok()).collect();
        let fit = |values: &Vec<f64>| {
            values.len() == ranges.len() && values.iter().zip(ranges).all(|(x, [low, high])| (*low..=*high).contains(x))
        };
        let refused = || wrong(format!("the field `{name}` is to be {} numbers within {ranges:?}", ranges.len()));
        values.filter(fit).map(Some).ok_or_else(refused)
    };
    let (gaze, lids) = (numbers("gaze", &GAZE.map(|most| [-most, most]))?, numbers("lids", &[LIDS])?);
    for (name, _, value) in &mut moment {
        let Value::Floats(values) = value else { continue };
        match (*name, &gaze, &lids) {
            // about the head's x what is ahead goes down, about its y to the person's left, which is the picture's
            // right
            ("eyes", Some(gaze), _) => values.chunks_exact_mut(3).for_each(|eye| {
                eye[0] -= gaze[1].to_radians();
                eye[1] += gaze[0].to_radians();
            }),
            ("lids", _, Some(lids)) => values.iter_mut().for_each(|open| *open = (*open + lids[0]).max(0.0)),
            _ => {}
        }
    }
    Ok(moment)
}

fn table_of(row: &[(&str, Type, Value)]) -> Result<Manifest, Refusal> {
    let schema = Schema::new(row.iter().map(|(name, ty, _)| (*name, *ty))).map_err(anyhow::Error::from)?;
    let values: Vec<Value> = row.iter().map(|(.., value)| value.clone()).collect();
    Ok(Manifest::from_rows(schema, &[values]).map_err(anyhow::Error::from)?)
}

fn with_params(own: &std::collections::BTreeMap<String, Json>, other: &[(&str, Json)]) -> Map<String, Json> {
    let mut params: Map<String, Json> = own.clone().into_iter().collect();
    params.extend(other.iter().map(|(name, value)| (name.to_string(), value.clone())));
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sliders_turn_eyes_and_close_lids_within_their_ranges() {
        let moment = || {
            vec![
                ("eyes", Type::Floats(6), Value::Floats(vec![0.1, 0.0, 0.0, 0.1, 0.2, 0.0])),
                ("lids", Type::Floats(2), Value::Floats(vec![1.0, 0.4])),
                ("participant", Type::I64, Value::I64(18)),
            ]
        };
        let asked = |query: &str| {
            let fields = query.split('&').filter_map(|field| field.split_once('='));
            turned(moment(), &Fields(fields.map(|(name, value)| (name.into(), value.into())).collect()))
        };
        let Ok(unmoved) = asked("row=0") else { panic!("nothing is asked of it") };
        assert_eq!(unmoved, moment());
        let Ok(moved) = asked("gaze=30,-10&lids=-0.5") else { panic!("it is within the ranges") };
        let (Value::Floats(eyes), Value::Floats(lids)) = (&moved[0].2, &moved[1].2) else { panic!("they are vectors") };
        let (aside, down) = (30f64.to_radians(), 10f64.to_radians());
        let expected = [0.1 + down, aside, 0.0, 0.1 + down, 0.2 + aside, 0.0];
        assert!(eyes.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{eyes:?}");
        assert_eq!((lids.as_slice(), &moved[2]), (&[0.5, 0.0][..], &moment()[2]));
        for query in ["gaze=90,0", "gaze=1", "gaze=a,b", "lids=-2", "lids=NaN"] {
            assert!(asked(query).is_err(), "{query}");
        }
        assert_eq!(
            mean(&[Value::Floats(vec![0.0, 1.0]), Value::Null, Value::Floats(vec![1.0, 2.0])]),
            Some(Value::Floats(vec![0.5, 1.5]))
        );
        assert_eq!(mean(&[Value::I64(3), Value::I64(4)]), Some(Value::I64(3)));
    }
}
