//! `load_linear_head`: a linear head model of SMPL's kind, as FLAME is one, checked and brought into one form.
//!
//! no rows in   writes: linear_head (npz), mean_mesh (PLY), vertices, joints, shape_width, expression_width
//!
//! Reads `.npz` files and the pickles that such models are published as, of which only numbers are taken. What comes out has the same
//! fields, dense and in double precision, and is read by the same programs. Knows no tracking.

use anyhow::{Context, Result};
use geometry::Mesh;
use glam::Vec3;
use manifests::Type;
use models::linear::files;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;
use tch::{Kind, Tensor};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The file.
    path: PathBuf,
    /// How many of its directions, counted from the first, are the shape's; the others are the expression's. Left out: what the
    /// file says, else 300 as in FLAME, or all if there are fewer.
    #[serde(default)]
    shapes: Option<usize>,
}

fn def() -> StageDef {
    StageDef::new("load_linear_head", 1, Grain::Whole)
        .doc("Loads and checks a linear head model such as FLAME.")
        .source()
        .file_param("path")
        .writes([
            ("linear_head", Type::Blob),
            ("mean_mesh", Type::Blob),
            ("vertices", Type::I64),
            ("joints", Type::I64),
            ("shape_width", Type::I64),
            ("expression_width", Type::I64),
        ])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(LoadLinearHead { params }));

struct LoadLinearHead {
    params: Params,
}

impl Stage for LoadLinearHead {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.load(unit, cx)).collect()
    }
}

impl LoadLinearHead {
    fn load(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let head = files::read(&self.params.path, self.params.shapes)?;
        let (file, mesh) = (cx.file(unit, "linear_head.npz"), cx.file(unit, "mean_mesh.ply"));
        std::fs::write(&file, files::pack(&head)).with_context(|| format!("cannot write {}", file.display()))?;
        let rest = |width: i64| Tensor::zeros([1, width], (Kind::Double, tch::Device::Cpu));
        let pose = rest(3 * head.joint_count()).reshape([1, -1, 3]);
        let mean = head.pose(&rest(0), &rest(0), &pose)?.vertices.to_kind(Kind::Float).reshape([-1]);
        let values: Vec<f32> = Vec::try_from(mean)?;
        let positions = values.as_chunks().0.iter().map(|p| Vec3::from_array(*p)).collect();
        geometry::ply::write_mesh(&mesh, &Mesh { positions, faces: head.faces.clone() }, &[])?;
        let [shapes, expressions] = head.widths();
        Ok(vec![
            OutRow::new()
                .file("linear_head", &file)
                .file("mean_mesh", &mesh)
                .i64("vertices", head.vertex_count())
                .i64("joints", head.joint_count())
                .i64("shape_width", shapes)
                .i64("expression_width", expressions),
        ])
    }
}
