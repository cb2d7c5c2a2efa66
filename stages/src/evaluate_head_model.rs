//! `evaluate_head_model`: how well a head model explains people it has not seen: fitted to partial scans, compared with
//! the whole.
//!
//! reads: identity, scans; with head_model or pca_model
//! writes: the measures below, mesh (PLY), truth_picture, picture (PNG)
//!
//! After NPHM's protocol. A person's first scans (the neutral one first) are each seen from one point in front, 2500
//! points without normals, the first also from behind; scans lie in model space, so no pose is sought. One identity and
//! an expression per scan are fitted jointly, the surfaces extracted and compared with the scans: mean distances either
//! way and their mean (Chamfer-L1, mm), Chamfer-L2 (mm^2), normal consistency, F-scores at 1, 2 and 5 mm; for the head
//! above the throat and for its face, averaged over the person's scans. Unlike there, distances lead to the other
//! surface instead of to points of it, so that they have no floor. What is compared is what 37 cameras all around see
//! (`head_views`): nothing inside, nothing through the mouth. The face is where training draws most points
//! (`scan_pools::is_face`, on the neutral scan); a point of the model belongs to it if the nearest one of the scan
//! does. `mesh` is the neutral fit in model space; pictures show all scans, grey where nothing is compared.

use crate::common::drawing::below;
use crate::common::head_models::{self, UNIT_MM};
use crate::common::head_views::{self, Truth};
use crate::common::pca_heads::{self, LinearHead, Moment, Seen, Settings};
use crate::common::scan_pools::{is_face, read_meshes};
use anyhow::{Context, Result};
use geometry::{Mesh, ply};
use glam::Vec3;
use manifests::Type;
use metrics::points::{Likeness, Reach, likeness, reach};
use models::nphm::field::HeadModel;
use models::nphm::fit::{Cloud, FitConfig, Frame, fit_identity};
use models::nphm::pose::{Pose, UNITS_PER_METRE};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use tch::Tensor;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Scans of each person, the neutral one first.
    #[serde(default = "scans")]
    #[schemars(range(min = 1))]
    scans: usize,
    /// Points of each view.
    #[serde(default = "points")]
    #[schemars(range(min = 1))]
    points: usize,
    /// Updates of the fit of a neural model.
    #[serde(default = "steps")]
    steps: usize,
    /// For a linear model: what a coefficient of one standard deviation costs, as a mean squared distance (model
    /// units).
    #[serde(default = "ridge")]
    #[schemars(range(min = 0))]
    ridge: f64,
    /// Grid points on a side of the coarse grid on which a neural model's surface is sought.
    #[serde(default = "coarse")]
    #[schemars(range(min = 2, max = 512))]
    coarse: usize,
    /// How often the grid is halved around the surface.
    #[serde(default = "levels")]
    #[schemars(range(max = 5))]
    levels: u32,
    /// Height of the pictures, px.
    #[serde(default = "picture")]
    #[schemars(range(min = 1, max = 16384))]
    picture: u32,
}

fn scans() -> usize {
    3
}
fn points() -> usize {
    2500
}
fn steps() -> usize {
    400
}
fn ridge() -> f64 {
    Settings::default().ridge
}
fn coarse() -> usize {
    25
}
fn levels() -> u32 {
    2
}
fn picture() -> u32 {
    160
}

/// Millimetres within which a point counts for an F-score.
const WITHIN_MM: [f64; 3] = [1.0, 2.0, 5.0];
/// The names of the measures: of the head, and the same of the face.
const MEASURES: [[&str; 6]; 2] = [
    ["head_chamfer_mm", "head_chamfer_l2", "head_normals", "head_f1", "head_f2", "head_f5"],
    ["face_chamfer_mm", "face_chamfer_l2", "face_normals", "face_f1", "face_f2", "face_f5"],
];
/// The distance at which pictures are red.
const RED_MM: f32 = 5.0;

fn def() -> StageDef {
    let measures = |names: [&'static str; 6]| names.map(|name| (name, Type::F64));
    StageDef::new("evaluate_head_model", 5, Grain::Row)
        .doc("Fits a head model to partial scans of people and compares it with the whole scans.")
        .reads([("identity", Type::I64), ("scans", Type::Blob)])
        .may_take("head_model", head_models::COLUMNS)
        .may_take("pca_model", pca_heads::COLUMNS)
        .writes(measures(MEASURES[0]))
        .writes(measures(MEASURES[1]))
        .writes([("mesh", Type::Blob), ("truth_picture", Type::Blob), ("picture", Type::Blob)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    head_models::check_grid(params.coarse, params.levels)?;
    let head = match (cx.maybe_with("head_model"), cx.maybe_with("pca_model")) {
        (Some(table), None) => Head::Neural(Box::new(head_models::read(table)?)),
        (None, Some(table)) => Head::Linear(pca_heads::read(table)?),
        (found, _) => anyhow::bail!(
            "{} of `head_model` and `pca_model` are given; expected one\nhint: with: {{ head_model: STAGE }}, or with: {{ pca_model: STAGE }}",
            if found.is_some() { "both" } else { "none" }
        ),
    };
    anyhow::Ok(EvaluateHeadModel { params, head })
});

enum Head {
    Neural(Box<HeadModel>),
    Linear(LinearHead),
}

struct EvaluateHeadModel {
    params: Params,
    head: Head,
}

impl Stage for EvaluateHeadModel {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.evaluate(unit, cx)).collect()
    }
}

impl EvaluateHeadModel {
    fn evaluate(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let (row, p) = (unit.row(), &self.params);
        let (identity, path) = (row.i64("identity")?, row.path("scans")?);
        let mut scans = read_meshes(&path)?;
        anyhow::ensure!(
            scans.len() >= p.scans,
            "{} holds {} scans, `scans` asks for {}\nhint: `expressions` of scan_synthetic",
            path.display(),
            scans.len(),
            p.scans
        );
        scans.truncate(p.scans);
        let clouds: Vec<Vec<Vec3>> = scans.iter().enumerate().map(|(i, scan)| self.cloud(scan, identity, i)).collect();
        let neutral = &scans[0];
        let in_face: Vec<bool> =
            (0..neutral.faces.len()).map(|f| is_face(neutral.corners(f).into_iter().sum::<Vec3>() / 3.0)).collect();
        let fitted = match &self.head {
            Head::Neural(model) => self.fit_neural(model, &clouds, cx),
            Head::Linear(head) => self.fit_linear(head, &clouds),
        };
        let (mut sums, mut pictures) = ([[0.0; 6]; 2], [Vec::new(), Vec::new()]);
        for (i, (scan, fitted)) in scans.iter().zip(&fitted).enumerate() {
            let place = || format!("scan {i} of identity {identity}");
            anyhow::ensure!(
                !fitted.faces.is_empty(),
                "{}: the fitted field has no surface\nhint: train the model for longer, or fit it with more `steps`",
                place()
            );
            let truth = Truth::new(scan);
            let measures = compare(&truth, fitted, &in_face).with_context(place)?;
            sums.as_flattened_mut().iter_mut().zip(measures.as_flattened()).for_each(|(sum, value)| *sum += value);
            pictures[0].push(head_views::picture(scan, p.picture));
            pictures[1].push(truth.errors(fitted, p.picture, RED_MM / UNIT_MM as f32));
        }
        let [mesh, truth_picture, picture] = ["mesh.ply", "truth.png", "picture.png"].map(|name| cx.file(unit, name));
        ply::write_mesh(&mesh, &fitted[0], &[])?;
        below(&pictures[0]).write_png(&truth_picture)?;
        below(&pictures[1]).write_png(&picture)?;
        let mut out = OutRow::new().file("mesh", &mesh).file("truth_picture", &truth_picture).file("picture", &picture);
        for (name, sum) in MEASURES.as_flattened().iter().zip(sums.as_flattened()) {
            out = out.f64(name, sum / scans.len() as f64);
        }
        Ok(vec![out])
    }

    /// What is seen of a scan, world metres.
    fn cloud(&self, scan: &Mesh, identity: i64, i: usize) -> Vec<Vec3> {
        let seed = (identity as u64) << 8 | i as u64;
        let mut points = head_views::scanned(scan, false, self.params.points, seed);
        if i == 0 {
            points.extend(head_views::scanned(scan, true, self.params.points, seed));
        }
        points.into_iter().map(|p| p / UNITS_PER_METRE as f32).collect()
    }

    fn fit_neural(&self, model: &HeadModel, clouds: &[Vec<Vec3>], cx: &Cx<'_>) -> Vec<Mesh> {
        let p = &self.params;
        let clouds: Vec<Cloud> = clouds
            .iter()
            .map(|points| Cloud { points: points.iter().map(|p| p.to_array()).collect(), ..Cloud::default() })
            .collect();
        let start = Frame { z_ex: Vec::new(), pose: Pose::default(), residual: 0.0, kept: 0.0 };
        let frames: Vec<(&Cloud, Frame)> = clouds.iter().map(|cloud| (cloud, start.clone())).collect();
        let config = FitConfig { steps: p.steps, rate_rotation: 0.0, rate_translation: 0.0, ..FitConfig::default() };
        let fit = fit_identity(model, &frames, &config, &mut |step, loss| {
            if step % 20 == 0 {
                cx.progress(step, p.steps, format!("loss {loss:.4}"));
            }
        });
        let z_id = Tensor::from_slice(&fit.z_id);
        let extract =
            |frame: &Frame| head_models::surface(model, &z_id, &Tensor::from_slice(&frame.z_ex), p.coarse, p.levels);
        fit.frames.iter().map(extract).collect()
    }

    fn fit_linear(&self, head: &LinearHead, clouds: &[Vec<Vec3>]) -> Vec<Mesh> {
        let start = Moment { expression: vec![0.0; head.expressions], pose: Pose::default() };
        let clouds = clouds.iter().map(|points| Seen { points: points.clone(), ..Seen::default() });
        let clouds: Vec<Seen> = clouds.collect();
        let seen: Vec<(&Seen, Moment)> = clouds.iter().map(|points| (points, start.clone())).collect();
        let settings = Settings { rigid: false, ridge: self.params.ridge, ..Settings::default() };
        let (shape, moments) = head.fit(&seen, None, &settings);
        moments.iter().map(|moment| head.mesh(&shape, &moment.expression)).collect()
    }
}

/// The measures of a fitted surface, in the order of their names. `in_face` says which faces of the scan are the face.
fn compare(truth: &Truth, fitted: &Mesh, in_face: &[bool]) -> Result<[[f64; 6]; 2]> {
    let seen = truth.view(fitted);
    let completeness = reach(&truth.surface, &seen);
    let accuracy = reach(&seen, &truth.surface);
    let of_face: [Vec<Reach>; 2] = [
        completeness.iter().zip(&truth.point_faces).filter(|(_, f)| in_face[**f as usize]).map(|(r, _)| *r).collect(),
        accuracy.iter().filter(|r| in_face[truth.faces[r.face as usize] as usize]).copied().collect(),
    ];
    let mut measures = [[0.0; 6]; 2];
    for (out, [there, back]) in measures.iter_mut().zip([&[completeness, accuracy], &of_face]) {
        let Likeness { chamfer_l1, chamfer_l2, normal_consistency, f_scores } =
            likeness(there, back, &WITHIN_MM.map(|mm| mm / UNIT_MM))
                .context("no camera sees the fitted surface where the scan is")?;
        out[..3].copy_from_slice(&[chamfer_l1 * UNIT_MM, chamfer_l2 * UNIT_MM * UNIT_MM, normal_consistency]);
        out[3..].copy_from_slice(&f_scores);
    }
    Ok(measures)
}
