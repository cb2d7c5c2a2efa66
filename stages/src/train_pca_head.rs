//! `train_pca_head`: a linear head model from scans in correspondence: principal components of identity and of
//! expression.
//!
//! reads: scans
//! writes: pca_model (safetensors), shape_explained, expression_explained
//!
//! What FLAME is without joints: the mean neutral head, components of the neutral heads around it, and components of
//! posed minus neutral. In closed form, so there are no steps, no seed and no checkpoints. `v_template`, `shapedirs`
//! and `f` are named as FLAME names them; the explained shares are of variance, and of squared offsets from neutral.

use crate::common::pca_heads;
use crate::common::scan_pools::read_meshes;
use anyhow::Result;
use manifests::Type;
use models::pca::PcaHead;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use tch::Tensor;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Identity components; at most one less than people.
    #[serde(default = "shape_components")]
    shape_components: usize,
    /// Expression components.
    #[serde(default = "expression_components")]
    expression_components: usize,
}

fn shape_components() -> usize {
    30
}
fn expression_components() -> usize {
    30
}

fn def() -> StageDef {
    StageDef::new("train_pca_head", 1, Grain::Whole)
        .doc("A linear head model of principal components, from scans in correspondence.")
        .reads([("scans", Type::Blob)])
        .writes(pca_heads::COLUMNS)
        .writes([("shape_explained", Type::F64), ("expression_explained", Type::F64)])
        .memory_mb(2000)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(TrainPcaHead { params }));

struct TrainPcaHead {
    params: Params,
}

impl Stage for TrainPcaHead {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.train(unit, cx)).collect()
    }
}

impl TrainPcaHead {
    fn train(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let (mut neutral, mut offsets, mut faces) = (Vec::new(), Vec::new(), Vec::new());
        for row in unit.rows() {
            let path = row.path("scans")?;
            let meshes = read_meshes(&path)?;
            if faces.is_empty() {
                faces.clone_from(&meshes[0].faces);
            }
            anyhow::ensure!(
                meshes[0].faces == faces,
                "{} has other triangles than the scans before it\nhint: components need the same vertices in all scans",
                path.display()
            );
            let tensor = |i: usize| {
                let flat: Vec<f32> = meshes[i].positions.iter().flat_map(|p| p.to_array()).collect();
                Tensor::from_slice(&flat).reshape([-1, 3])
            };
            neutral.push(tensor(0));
            offsets.extend((1..meshes.len()).map(|i| tensor(i) - tensor(0)));
        }
        anyhow::ensure!(neutral.len() >= 2, "components need at least two people, there are {}", neutral.len());
        anyhow::ensure!(!offsets.is_empty(), "no scan has an expression\nhint: `expressions` of scan_synthetic");
        let indices: Vec<i64> = faces.iter().flatten().map(|v| i64::from(*v)).collect();
        let faces = Tensor::from_slice(&indices).reshape([-1, 3]);
        let (neutral, offsets) = (Tensor::stack(&neutral, 0), Tensor::stack(&offsets, 0));
        let p = &self.params;
        let head = PcaHead::train(&neutral, &offsets, &faces, p.shape_components, p.expression_components);
        let path = cx.file(unit, "pca.safetensors");
        pca_heads::write(&path, &head)?;
        let row = OutRow::new()
            .file("pca_model", &path)
            .f64("shape_explained", head.shape_shares.iter().sum::<f64>())
            .f64("expression_explained", head.expression_shares.iter().sum::<f64>());
        Ok(vec![row])
    }
}
