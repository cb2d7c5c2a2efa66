//! `source_nphm_tracking`: the NPHM fits of a capture in the reference's layout D, a row per tracked frame.
//!
//! no rows in   writes: participant, sequence, timestep, expression, mesh (PLY with canonical coordinates, world metres; null unless asked for)
//!
//! Joined with the frames of a capture they condition an avatar on the reference's own tracking. Meshes come into the world by the FLAME tracking that
//! lies beside them, as the reference takes them there; a frame that lacks the mesh, its canonical coordinates or the pose has none. They
//! end where the head model does: the reference's cut of the throat is not made. Knows where things lie, and no pictures.

use crate::common::tracked;
use crate::source_nersemble::hinted;
use anyhow::{Result, anyhow, ensure};
use datasets::nersemble::{self, FlameFrame};
use datasets::nphm_tracking::{self, Tracked};
use datasets::rendering_data::ExchangeError;
use geometry::pose::{FlamePose, transform_points};
use glam::DVec3;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The folder that holds `nersemble/`.
    path: PathBuf,
    /// Whether the tracked meshes are put out as well, where there are any.
    #[serde(default)]
    meshes: bool,
}

fn def() -> StageDef {
    StageDef::new("source_nphm_tracking", 2, Grain::Whole)
        .doc("Lists the expression codes, and the meshes if asked for, of a capture in DiffusionAvatars' layout.")
        .source()
        .file_param("path")
        .writes([("participant", Type::I64), ("sequence", Type::Str), ("timestep", Type::I64)])
        .writes([("expression", Type::Floats(0)), ("mesh", Type::Blob)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(SourceNphmTracking { params }));

struct SourceNphmTracking {
    params: Params,
}

impl Stage for SourceNphmTracking {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.list(unit, cx)).collect()
    }
}

impl SourceNphmTracking {
    fn list(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let root = &self.params.path;
        let frames = nphm_tracking::list(root).map_err(exchange)?;
        let (mut rows, mut meshes) = (Rows::new(), 0);
        let mut poses: BTreeMap<(u32, &str), BTreeMap<u32, FlameFrame>> = BTreeMap::new();
        for (at, frame) in frames.iter().enumerate() {
            let code = nphm_tracking::read_expression(&root.join(frame.expression())).map_err(exchange)?;
            let row = OutRow::new().i64("participant", frame.participant).str("sequence", &frame.sequence);
            let mut row = row.i64("timestep", frame.timestep).floats("expression", code);
            let key = (frame.participant, frame.sequence.as_str());
            if self.params.meshes
                && let Entry::Vacant(place) = poses.entry(key)
            {
                place.insert(flame(root, frame)?);
            }
            let pose = poses.get(&key).and_then(|poses| poses.get(&frame.timestep));
            let to = cx.file(unit, &format!("mesh_{at:06}.ply"));
            if let Some(pose) = pose
                && write_mesh(root, frame, pose, &to)?
            {
                row = row.file("mesh", &to);
                meshes += 1;
            }
            rows.push(row);
            if at % 100 == 0 {
                cx.progress(at, frames.len(), "");
            }
        }
        if self.params.meshes && meshes < frames.len() {
            cx.warn(&format!(
                "{} of {} frames have no mesh, or no FLAME pose for it",
                frames.len() - meshes,
                frames.len()
            ));
        }
        ensure!(
            !self.params.meshes || meshes > 0,
            "{}: found {} expression codes and no mesh that can be placed, and `meshes` asks for them\n\
             hint: beside the codes there have to be *_local_new.CTM and *_canonical_vertices_uint16.npz, and {}/tracked_flame_params.npz beside their folder",
            root.display(),
            frames.len(),
            nphm_tracking::FLAME.1
        );
        Ok(rows)
    }
}

fn exchange(error: ExchangeError) -> anyhow::Error {
    anyhow!("{error}\nhint: {}", error.hint())
}

/// The FLAME tracking of a frame's sequence, by timestep.
fn flame(root: &Path, frame: &Tracked) -> Result<BTreeMap<u32, FlameFrame>> {
    let sequence = root.join(format!("nersemble/{:03}/sequences/{}", frame.participant, frame.sequence));
    let frames = nersemble::read_flame(&sequence).map_err(hinted)?;
    Ok(frames.into_iter().map(|frame| (frame.timestep, frame)).collect())
}

/// Writes the mesh of a frame in the world; whether there is one.
fn write_mesh(root: &Path, frame: &Tracked, pose: &FlameFrame, to: &Path) -> Result<bool> {
    let files = [frame.mesh(), frame.canonical()].map(|name| root.join(name));
    if files.iter().any(|file| !file.is_file()) {
        return Ok(false);
    }
    let (mut mesh, canonical) = nphm_tracking::read_mesh(&files[0], &files[1]).map_err(exchange)?;
    let pose = FlamePose {
        rotation: DVec3::from(pose.rotation),
        translation: DVec3::from(pose.translation),
        scale: DVec3::splat(pose.scale),
    };
    mesh.positions = transform_points(&pose.nphm_to_world(), &mesh.positions);
    tracked::write_mesh(to, &mesh, &canonical)?;
    Ok(true)
}
