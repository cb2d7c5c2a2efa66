//! `export_linear_head`: our linear head model as a file of FLAME's format, for `load_linear_head` and any program that
//! takes such models.
//!
//! reads: pca_model
//! writes: linear_head (npz), linear_head_path
//!
//! Fields and their order are FLAME's (`v_template`, `shapedirs`, `posedirs`, `J_regressor`, `kintree_table`,
//! `weights`, `f`; identity first in `shapedirs`, `n_shape` of them), in metres. There is one joint, the middle of all
//! vertices, which every vertex follows: the scans that the components are of have no others. Knows no tracking.

use crate::common::pca_heads;
use anyhow::{Context, Result};
use manifests::Type;
use models::linear::files;
use models::pca::PcaHead;
use models::weights;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Where `effigy export` puts the file, below its folder.
    #[serde(default = "name")]
    name: String,
}

fn name() -> String {
    "linear_head.npz".into()
}

fn def() -> StageDef {
    StageDef::new("export_linear_head", 1, Grain::Row)
        .doc("Writes a linear head model of train_pca_head as an .npz file of FLAME's fields.")
        .reads(pca_heads::COLUMNS)
        .writes([("linear_head", Type::Blob), ("linear_head_path", Type::Str)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ExportLinearHead { params }));

struct ExportLinearHead {
    params: Params,
}

impl Stage for ExportLinearHead {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.export(unit, cx)).collect()
    }
}

impl ExportLinearHead {
    fn export(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let path = unit.row().path("pca_model")?;
        let head = PcaHead::from_tensors(&weights::read(&path)?, &path.display().to_string())?;
        let file = cx.file(unit, "linear_head.npz");
        std::fs::write(&file, files::pack(&head.linear()))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(vec![OutRow::new().file("linear_head", &file).str("linear_head_path", self.params.name.clone())])
    }
}
