//! `describe_rendering_data`: the two JSON files beside the pictures of `export_rendering_data`.
//!
//! reads: participant, sequence, camera, timestep
//! writes: config, stats (JSON), config_path, stats_path
//!
//! All rows are one version. Each camera has to have every timestep of every sequence, as the reference's statistics
//! have no place for anything else. Sequences and timesteps come sorted. As tracking it names what `export_tracking`
//! and `export_flame` write, since the reference reads codes, eyes and the way of meshes to the world from there. Knows
//! no pictures; `major`, `minor`, `name` and `downscale_factor` are to be those of the pictures.

use crate::export_rendering_data::{Params, frame_of};
use anyhow::{Context, Result};
use datasets::nphm_tracking;
use datasets::rendering_data::Version;
use datasets::rendering_data::config::{Config, MeshProvider, SequenceSteps, Stats};
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use std::collections::{BTreeMap, BTreeSet};

fn def() -> StageDef {
    StageDef::new("describe_rendering_data", 2, Grain::Whole)
        .doc("Writes config.json and stats.json of DiffusionAvatars' G-buffer folder.")
        .reads([("participant", Type::I64), ("sequence", Type::Str), ("camera", Type::Str), ("timestep", Type::I64)])
        .writes([("config", Type::Blob), ("config_path", Type::Str), ("stats", Type::Blob), ("stats_path", Type::Str)])
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(DescribeRenderingData { params }));

struct DescribeRenderingData {
    params: Params,
}

impl Stage for DescribeRenderingData {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.describe(unit, cx)).collect()
    }
}

impl DescribeRenderingData {
    fn describe(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let mut views: BTreeMap<(u32, String, u32), BTreeSet<String>> = BTreeMap::new();
        for row in unit.rows() {
            let frame = frame_of(&row)?;
            views.entry((frame.participant, frame.sequence, frame.timestep)).or_default().insert(frame.camera);
        }
        let serials: BTreeSet<String> = views.values().flatten().cloned().collect();
        for ((participant, sequence, timestep), seen) in &views {
            if let Some(camera) = serials.difference(seen).next() {
                anyhow::bail!(
                    "participant {participant}, sequence {sequence}, timestep {timestep}: found no row of camera \
                     {camera}, expected each of the {} cameras\nhint: leave that timestep or that camera out of all of \
                     the version, with `where:`",
                    serials.len()
                );
            }
        }
        let mut sequences: Vec<SequenceSteps> = Vec::new();
        for (participant, sequence, timestep) in views.keys() {
            match sequences.last_mut().filter(|last| (last.participant, &last.sequence) == (*participant, sequence)) {
                Some(last) => last.timesteps.push(*timestep),
                None => sequences.push(SequenceSteps {
                    participant: *participant,
                    sequence: sequence.clone(),
                    timesteps: vec![*timestep],
                }),
            }
        }
        let first = sequences.first().context("there is no row to describe")?;
        let config = Config {
            name: p.name.clone(),
            downscale_factor: p.downscale_factor,
            sequences: sequences.iter().map(|s| (s.participant, s.sequence.clone())).collect(),
            n_timesteps: -1,
            use_mipmapping: false,
            use_antialiasing: false,
            use_ambient_dimensions: true,
            use_nphm: true,
            mesh_provider_config: MeshProvider {
                flame_tracking: nphm_tracking::FLAME.0.into(),
                nphm_tracking: nphm_tracking::folder(first.participant).0.into(),
                ..MeshProvider::default()
            },
            serials: serials.iter().cloned().collect(),
        };
        let folder = Version { major: p.major, minor: p.minor, name: p.name.clone() }.folder();
        let stats = Stats::of(sequences, serials.len());
        let (config_file, stats_file) = (cx.file(unit, "config.json"), cx.file(unit, "stats.json"));
        config.write(&config_file)?;
        stats.write(&stats_file)?;
        Ok(vec![
            OutRow::new()
                .file("config", &config_file)
                .str("config_path", format!("{folder}/config.json"))
                .file("stats", &stats_file)
                .str("stats_path", format!("{folder}/stats.json")),
        ])
    }
}
