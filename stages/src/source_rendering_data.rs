//! `source_rendering_data`: the G-buffer pictures of a folder that the reference code made, a row per frame.
//!
//! no rows in   writes: participant, sequence, camera, timestep, depths, uv, normals, uv_ambient, mask (PNG)
//!
//! The folder has to hold what its config.json and stats.json say. Cameras are no part of it: joined with those of the
//! capture, rows go to `import_rendering_data`. Knows where things lie, not what they show.

use crate::common::faults::hinted;
use anyhow::{Result, anyhow};
use datasets::rendering_data::{self, GROUPS};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The folder of a version, like `rendering_data/v1.1-ID-18-nphm`.
    path: PathBuf,
    /// Pass over frames of which a picture is missing, instead of failing.
    #[serde(default)]
    partial: bool,
}

fn def() -> StageDef {
    StageDef::new("source_rendering_data", 1, Grain::Whole)
        .doc("Lists the G-buffer pictures of a folder in DiffusionAvatars' layout.")
        .source()
        .file_param("path")
        .writes([("participant", Type::I64), ("sequence", Type::Str), ("camera", Type::Str), ("timestep", Type::I64)])
        .writes(GROUPS.map(|group| (group, Type::Blob)))
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(SourceRenderingData { params }));

struct SourceRenderingData {
    params: Params,
}

impl Stage for SourceRenderingData {
    fn run(&mut self, units: &[Unit<'_>], _: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|_| self.list()).collect()
    }
}

impl SourceRenderingData {
    fn list(&self) -> Result<Rows> {
        let folder = &self.params.path;
        let (config, _, listing) = rendering_data::open(folder).map_err(hinted)?;
        for (field, holds) in [("use_nphm", config.use_nphm), ("use_ambient_dimensions", config.use_ambient_dimensions)]
        {
            anyhow::ensure!(
                holds,
                "{}, field `{field}`: found false, expected true\nhint: only G-buffers of the neural head model are \
                 read, whose `uv` is canonical xyz, and which have ambient coordinates",
                folder.join("config.json").display()
            );
        }
        if let (Some(error), false) = (rendering_data::missing_files(&listing.missing), self.params.partial) {
            return Err(anyhow!("{error}, or set `partial: true`\nhint: {}", error.hint()));
        }
        let row = |frame: &rendering_data::Frame| {
            let row = OutRow::new()
                .i64("participant", frame.participant)
                .str("sequence", &frame.sequence)
                .str("camera", &frame.camera)
                .i64("timestep", frame.timestep);
            GROUPS.iter().fold(row, |row, group| row.file(group, &folder.join(frame.path(group))))
        };
        Ok(listing.whole.iter().map(row).collect())
    }
}
