//! `load_linear_head`: a linear head model of SMPL's kind, as FLAME is one, checked and brought into one form.
//!
//! no rows in   writes: linear_head (npz), pca_model (safetensors), mean_mesh (PLY), vertices, joints, shape_width,
//! expression_width
//!
//! Reads `.npz` files and the pickles that such models are published as, of which only numbers are taken. What comes
//! out has the same fields, dense and in double precision, in metres, and is read by the same programs. A mean head
//! that is not as large as a head is refused: files do not say their unit. `pca_model` is the same head for
//! `fit_pca_head`: linear offsets, in which a jaw is one of the expression's. `effigy doctor --recipe` asks for these
//! checks alone. Knows no tracking.

use crate::common::pca_heads;
use anyhow::{Context, Result, ensure};
use geometry::Mesh;
use glam::Vec3;
use manifests::Type;
use models::linear::{LinearHead, files};
use models::pca::PcaHead;
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
    /// How many of its directions, counted from the first, are the shape's; the others are the expression's. Left out:
    /// what the file says, else 300 as in FLAME, or all if there are fewer.
    #[serde(default)]
    shapes: Option<usize>,
    /// Metres per unit of the file: 1 for FLAME as it is published, 0.001 for a model in millimetres.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    scale: f64,
    /// Of its directions, counted from the first, so many of the shape and of the expression are in `pca_model`; a fit
    /// with all of FLAME's 400 takes long, and few points tell them.
    #[serde(default = "fitted")]
    fitted: [usize; 2],
    /// Which joint is the jaw; left out: 2 of five, as in FLAME, else none.
    #[serde(default)]
    jaw: Option<usize>,
    /// Whether a jaw that is a joint is among the directions of `pca_model`; else it stays shut there.
    #[serde(default = "yes")]
    jaw_moves: bool,
}

fn yes() -> bool {
    true
}

fn fitted() -> [usize; 2] {
    [60, 50]
}

fn one() -> f64 {
    1.0
}

/// FLAME's joints: the root, the neck, the jaw and the eyes.
const FLAMES_JOINTS: i64 = 5;
const FLAMES_JAW: usize = 2;

/// The longest side of a mean head's bounding box, metres: a face mask is larger, a bust with its shoulders smaller.
const SIZES: std::ops::RangeInclusive<f64> = 0.1..=0.8;

fn def() -> StageDef {
    StageDef::new("load_linear_head", 2, Grain::Whole)
        .doc("Loads and checks a linear head model such as FLAME.")
        .source()
        .file_param("path")
        .writes([
            ("linear_head", Type::Blob),
            pca_heads::COLUMNS[0],
            ("mean_mesh", Type::Blob),
            ("vertices", Type::I64),
            ("joints", Type::I64),
            ("shape_width", Type::I64),
            ("expression_width", Type::I64),
        ])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(LoadLinearHead { params }), |params: Params| {
    let (head, _) = open(&params)?;
    let [shapes, expressions] = head.widths();
    Ok(vec![format!(
        "a linear head of {} vertices, {} joints, {shapes} directions of the shape and {expressions} of the expression",
        head.vertex_count(),
        head.joint_count()
    )])
});

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
        let (head, positions) = open(&self.params)?;
        let (file, mesh) = (cx.file(unit, "linear_head.npz"), cx.file(unit, "mean_mesh.ply"));
        std::fs::write(&file, files::pack(&head)).with_context(|| format!("cannot write {}", file.display()))?;
        let pca = cx.file(unit, "pca_model.safetensors");
        let jaw = self.params.jaw.or((head.joint_count() == FLAMES_JOINTS).then_some(FLAMES_JAW));
        let jaw = jaw.filter(|_| self.params.jaw_moves);
        pca_heads::write(&pca, &PcaHead::of_linear(&head, self.params.fitted, jaw)?)?;
        geometry::ply::write_mesh(&mesh, &Mesh { positions, faces: head.faces.clone() }, &[])?;
        let [shapes, expressions] = head.widths();
        Ok(vec![
            OutRow::new()
                .file("linear_head", &file)
                .file("pca_model", &pca)
                .file("mean_mesh", &mesh)
                .i64("vertices", head.vertex_count())
                .i64("joints", head.joint_count())
                .i64("shape_width", shapes)
                .i64("expression_width", expressions),
        ])
    }
}

/// A head all of whose fields fit, in metres, and the vertices of its mean.
fn open(params: &Params) -> Result<(LinearHead, Vec<Vec3>)> {
    let head = in_metres(files::read(&params.path, params.shapes)?, params.scale);
    let rest = |width: i64| Tensor::zeros([1, width], (Kind::Double, tch::Device::Cpu));
    let pose = rest(3 * head.joint_count()).reshape([1, -1, 3]);
    let mean = head.pose(&rest(0), &rest(0), &pose)?.vertices.to_kind(Kind::Float).reshape([-1]);
    let values: Vec<f32> = Vec::try_from(mean)?;
    let positions: Vec<Vec3> = values.as_chunks().0.iter().map(|p| Vec3::from_array(*p)).collect();
    check_size(&positions).with_context(|| format!("{}: a head of the wrong size", params.path.display()))?;
    Ok((head, positions))
}

/// A model whose file has units of `scale` metres.
fn in_metres(head: LinearHead, scale: f64) -> LinearHead {
    if scale == 1.0 {
        return head;
    }
    let [template, shapes, expressions, pose_corrections] =
        [&head.template, &head.shapes, &head.expressions, &head.pose_corrections].map(|lengths| lengths * scale);
    LinearHead { template, shapes, expressions, pose_corrections, ..head }
}

/// Checks that a head is as large as a head, metres.
fn check_size(positions: &[Vec3]) -> Result<()> {
    let low = positions.iter().fold(Vec3::INFINITY, |low, p| low.min(*p));
    let high = positions.iter().fold(Vec3::NEG_INFINITY, |high, p| high.max(*p));
    let size = f64::from((high - low).max_element());
    ensure!(
        SIZES.contains(&size),
        "found a mean head that is {size:.3} m large, expected {} to {} m\n\
         hint: `scale` is metres per unit of the file: 0.001 if it is in millimetres, 0.01 in centimetres",
        SIZES.start(),
        SIZES.end()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::linear::files::read;

    #[test]
    fn a_head_is_as_large_as_a_head() {
        let corners = |side: f32| [Vec3::new(-0.4, 0.0, 0.1) * side, Vec3::new(0.4, 1.0, 0.5) * side];
        assert!(check_size(&corners(0.3)).is_ok());
        // millimetres, decimetres, and units that are metres of something else
        for side in [300.0, 3.0, 0.03] {
            let error = check_size(&corners(side)).unwrap_err().to_string();
            assert!(error.contains(&format!("{side:.3} m large, expected 0.1 to 0.8 m")), "{error}");
            assert!(error.contains("hint: `scale`"), "{error}");
        }
        assert!(check_size(&[]).is_err());
    }

    #[test]
    fn the_check_reads_all_of_a_file() {
        let mut stages = protocol::inventory::iter::<protocol::Registration>();
        let stage = stages.find(|stage| (stage.def)().kind == "load_linear_head").unwrap();
        let check = |path: &std::path::Path, scale: f64| {
            stage.check.unwrap()(serde_json::json!({ "path": path, "shapes": 5, "scale": scale }))
        };
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fixtures/linear.npz");
        let said = check(&path, 0.1).unwrap();
        assert_eq!(said, ["a linear head of 12 vertices, 4 joints, 5 directions of the shape and 2 of the expression"]);
        assert!(format!("{:#}", check(&path, 1.0).unwrap_err()).contains("expected 0.1 to 0.8 m"));
        let cut = std::env::temp_dir().join(format!("effigy-linear-{}.npz", std::process::id()));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
        let error = format!("{:#}", check(&cut, 0.1).unwrap_err());
        assert!(error.contains("effigy-linear-"), "{error}");
        std::fs::remove_file(&cut).unwrap();
    }

    #[test]
    fn all_lengths_are_scaled_and_nothing_else() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fixtures/linear.npz");
        let posed = |scale: f64| {
            let head = in_metres(read(&path, Some(5)).unwrap(), scale);
            let some = |width: i64| Tensor::linspace(-1.0, 1.0, width, (Kind::Double, tch::Device::Cpu)).unsqueeze(0);
            let [shapes, expressions] = head.widths();
            let pose = some(3 * head.joint_count()).reshape([1, -1, 3]);
            head.pose(&some(shapes), &some(expressions), &pose).unwrap().vertices
        };
        let off = (posed(0.1) - posed(1.0) * 0.1).abs().max().double_value(&[]);
        assert!(off < 1e-12, "{off}");
    }
}
