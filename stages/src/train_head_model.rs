//! `train_head_model`: an NPHM on scans of other people: identity and expression networks with their code tables.
//!
//! reads: identity, scans; with validation?
//! writes: head_config (JSON), head_weights (safetensors), losses (CSV), validation (CSV; null without), multiply_adds,
//! parameters
//!
//! Of backward deformation with two ambient dimensions and the losses of MonoNPHM's geometry (`models::nphm::train`),
//! or of forward deformation as NPHM is: then the field is learned from neutral scans, and expressions from the
//! correspondences of as many others in every step. Scans have no colours here, so that a colour branch is loaded and
//! never trained. Expression codes start as principal coordinates of how the scans' vertices move; with
//! `correspondence_scans` every step learns the correspondences of so many more scans, at the codes they have. All
//! scans of all people are in memory; each step draws points from some of them. The loop stands here from top to
//! bottom. `multiply_adds` are those of the field at one posed point. A killed training continues from its last
//! checkpoint. `with: { validation: STAGE }` names scans of people who are not learned from: every so many steps codes
//! are fitted to them, the networks at rest, and the errors written down (`head_validation`).

use crate::common::head_losses::HeadLosses;
use crate::common::head_models;
use crate::common::head_validation::{Validation, content};
use crate::common::scan_pools::{read_meshes, read_scans};
use crate::common::trainer::{Checkpoints, LossCurve};
use anyhow::Result;
use manifests::{Type, Value};
use models::adamw::cosine;
use models::nphm::codes::principal_codes;
use models::nphm::config::{Direction, HeadConfig};
use models::nphm::field::HeadModel;
use models::nphm::sample::{Counts, Scan, draw};
use models::nphm::train::{Rates, Trainer};
use models::nphm::validate::Trial;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use tch::{Device, Tensor};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Optimiser steps.
    #[schemars(range(min = 1))]
    steps: u64,
    /// Scans in a step.
    #[serde(default = "batch_size")]
    #[schemars(range(min = 1))]
    batch: usize,
    /// Scans more in every step of which only correspondences are learned: what tells expressions apart is scans, not
    /// points, and these cost little.
    #[serde(default)]
    correspondence_scans: usize,
    /// Learning rate of the networks at the start; half a cosine takes all rates to a fiftieth.
    #[serde(default = "lr")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    lr: f64,
    /// Pairs of symmetric anchors; the anchors after them lie in the middle.
    #[serde(default = "anchor_pairs")]
    #[schemars(range(min = 1))]
    anchor_pairs: i64,
    /// Length of the expression code.
    #[serde(default = "expression_dims")]
    #[schemars(range(min = 1))]
    expression_dims: i64,
    /// Learning rate of expression codes, which start as principal coordinates of how vertices move; 0 leaves them
    /// that.
    #[serde(default = "expression_rate")]
    #[schemars(range(min = 0))]
    expression_rate: f64,
    /// How large the networks are.
    #[serde(default)]
    preset: Preset,
    /// Which way expressions map: that of the preset, unless it is said.
    #[serde(default)]
    direction: Option<Way>,
    /// What is trained: nphm (an ensemble of local networks) or npm (one network for the whole head at equal
    /// multiply-adds, with codes and everything else the same: its baseline).
    #[serde(default)]
    kind: Kind,
    /// Weights of the terms of the loss.
    #[serde(default)]
    loss_weights: HeadLosses,
    /// Steps between trials on the people of `validation`; the last step has one, too.
    #[serde(default = "validate_every")]
    #[schemars(range(min = 1))]
    validate_every: u64,
    /// Scans of each of these people that are tried, the neutral one first.
    #[serde(default = "validation_scans")]
    #[schemars(range(min = 1))]
    validation_scans: usize,
    /// Updates that fit codes to them.
    #[serde(default = "validation_steps")]
    validation_steps: u64,
    /// Steps between checkpoints.
    #[serde(default = "checkpoint_every")]
    #[schemars(range(min = 1))]
    checkpoint_every: u64,
    /// Seed of weights and draws.
    #[serde(default)]
    seed: u64,
}

/// Sizes of the networks; anchors and the length of the expression code are parameters of their own.
#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Preset {
    /// 0.2 M parameters: trains in minutes on a CPU.
    #[default]
    Mini,
    /// As MonoNPHM was released: members of 4 x 200, deformation 6 x 400. Its `expression_dims` are 100, its losses
    /// `loss_weights`; wants a GPU's hours and gigabytes.
    Mononphm,
    /// As DiffusionAvatars' tracking had it: deformation 6 x 512, and 200 `expression_dims`.
    Da,
    /// As NPHM was released: forward; members of 4 x 200, deformation 6 x 512, and 200 `expression_dims`.
    Nphm,
}

/// Which way expressions map.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Way {
    /// From the posed to the canonical head (MonoNPHM): a surface that opens and closes.
    Backward,
    /// From the canonical to the posed head (NPHM): one surface that moves.
    Forward,
}

/// Which identity network.
#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    Nphm,
    Npm,
}

fn batch_size() -> usize {
    8
}
fn lr() -> f64 {
    2e-3
}
fn anchor_pairs() -> i64 {
    4
}
fn expression_dims() -> i64 {
    40
}
fn expression_rate() -> f64 {
    Rates::default().z_ex
}
fn validate_every() -> u64 {
    500
}
fn validation_scans() -> usize {
    3
}
fn validation_steps() -> u64 {
    60
}
fn checkpoint_every() -> u64 {
    100
}

fn def() -> StageDef {
    StageDef::new("train_head_model", 5, Grain::Whole)
        .doc("Trains a neural parametric head model on scans.")
        .reads([("identity", Type::I64), ("scans", Type::Blob)])
        .may_take("validation", [("scans", Type::Blob)])
        .writes(head_models::COLUMNS)
        .writes([("losses", Type::Blob), ("validation", Type::Blob)])
        .writes([("multiply_adds", Type::I64), ("parameters", Type::I64)])
        .memory_mb(2000)
}

protocol::register!(Params, def, |params: Params, _: &Cx<'_>| {
    params.loss_weights.weights()?;
    anyhow::Ok(TrainHeadModel { params })
});

struct TrainHeadModel {
    params: Params,
}

impl Stage for TrainHeadModel {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.train(unit, cx)).collect()
    }
}

impl TrainHeadModel {
    fn train(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let p = &self.params;
        let (mut scans, mut offsets): (Vec<Scan>, Vec<Tensor>) = (Vec::new(), Vec::new());
        let mut learned: BTreeSet<(u64, u64)> = BTreeSet::new();
        for (identity, row) in unit.rows().into_iter().enumerate() {
            let path = row.path("scans")?;
            learned.extend(content(&path));
            let more = read_scans(&path, identity as i64, scans.len() as i64)?;
            scans.extend(more);
            let meshes = read_meshes(&path)?;
            let flat = |i: usize| {
                Tensor::from_slice(meshes[i].positions.iter().flat_map(|p| p.to_array()).collect::<Vec<_>>().as_slice())
            };
            let own = (0..meshes.len()).map(|i| flat(i) - flat(0));
            offsets.extend(own);
            let same = offsets.iter().all(|o| o.size() == offsets[0].size());
            anyhow::ensure!(
                same,
                "{} has other vertices than the scans before it\nhint: scans need the same vertices",
                path.display()
            );
            let (first, last) = (scans[0].anchors.len(), scans[scans.len() - 1].anchors.len());
            anyhow::ensure!(
                first == last,
                "{} has {last} anchors, and the scans before it {first}\nhint: `anchors` of what makes scans has to be the same for all",
                path.display()
            );
        }
        anyhow::ensure!(!scans.is_empty(), "there are no scans to train on");
        let people = 1 + scans.iter().map(|scan| scan.identity).max().unwrap_or(0);
        let anchors = mean_anchors(&scans, p.anchor_pairs)?;
        let middle = anchors.size()[0] - 2 * p.anchor_pairs;
        let mut sized = match p.preset {
            Preset::Mini => HeadConfig::mini(p.anchor_pairs, middle),
            Preset::Mononphm => HeadConfig::mononphm().for_scans(p.anchor_pairs, middle),
            Preset::Da => HeadConfig::da().for_scans(p.anchor_pairs, middle),
            Preset::Nphm => HeadConfig::nphm().for_scans(p.anchor_pairs, middle),
        };
        sized.deformation.d_ex = p.expression_dims;
        let sized = match p.direction {
            None => sized,
            Some(Way::Backward) => sized.directed(Direction::Backward),
            Some(Way::Forward) => sized.directed(Direction::Forward),
        };
        let (config, anchors) = match p.kind {
            Kind::Nphm => (sized, anchors),
            Kind::Npm => (HeadConfig::npm(&sized), anchors.narrow(0, 0, 0)),
        };
        let begin = || -> Result<Trainer> {
            let mut model = HeadModel::new(&config, &anchors, Device::Cpu)?;
            model.seed(p.seed);
            let rates = Rates { network: p.lr, z_ex: p.expression_rate, ..Rates::default() };
            let mut trainer = Trainer::new(model, people, scans.len() as i64, p.loss_weights.weights()?, rates);
            trainer.z_ex.weight = principal_codes(&Tensor::stack(&offsets, 0), p.expression_dims);
            Ok(trainer)
        };
        let mut trainer = begin()?;
        let counts = Counts { surface: 48, near: 160, far: 48, correspondences: 96 };
        let is_forward = config.deformation.direction == Direction::Forward;
        // a forward model's field is that of neutral scans, and it learns expressions from as many others
        let neutral: Vec<Scan> = scans.iter().filter(|scan| is_forward && scan.neutral).cloned().collect();
        let seen = if is_forward { &neutral } else { &scans };
        let (more, far) = if is_forward { (p.batch + p.correspondence_scans, 48) } else { (p.correspondence_scans, 0) };
        let pairs = Counts { surface: 0, near: 0, far, correspondences: 100 };
        let names = ["loss", "surface", "normals", "correspondence"];
        let mut curve = LossCurve::new(&names, p.steps, 100);
        // training draws surfaces by the seed itself
        let trial = Trial { steps: p.validation_steps, seed: !p.seed, ..Trial::default() };
        let tried = cx.maybe_with("validation");
        let tried = tried.map(|table| Validation::new(table, &learned, &scans[0], p.validation_scans, trial));
        let mut validation = tried.transpose()?;

        let checkpoints = Checkpoints::new(cx.scratch()?);
        let load = |dir: &Path| {
            if let Some(validation) = &mut validation {
                validation.restore(&dir.join("validation.csv"))?;
            }
            curve.restore(&dir.join("losses.csv"))?;
            Ok(trainer.load(dir)?)
        };
        let start = checkpoints.resume(load, |text| cx.log(text))?;
        if start == 0 {
            // half of a damaged checkpoint may have been taken
            trainer = begin()?;
            curve = LossCurve::new(&names, p.steps, 100);
            validation.iter_mut().for_each(Validation::forget);
        }

        for step in start..p.steps {
            let batch = draw(seen, p.batch, &counts, p.seed, step);
            let more = (more > 0).then(|| draw(&scans, more, &pairs, !p.seed, step));
            let losses = trainer.step(&batch, more.as_ref(), cosine(step, p.steps, 20, 0.02));
            let term = |name: &str| losses.terms.iter().find(|(n, _)| *n == name).map_or(f64::NAN, |(_, v)| *v);
            let total = losses.total.double_value(&[]);
            checkpoints.finite(total, &trainer.norms, step + 1)?;
            let moved = if is_forward { "more_correspondence" } else { "correspondence" };
            curve.push(step + 1, &[total, term("surface"), term("normals"), term(moved)]);
            let note = format!("loss {:.4}", curve.last());
            if step % 5 == 4 || step + 1 == p.steps {
                cx.progress(step as usize + 1, p.steps as usize, note);
            }
            let after = step + 1;
            if let Some(validation) = &mut validation
                && (after.is_multiple_of(p.validate_every) || after == p.steps)
            {
                validation.run(after, &mut trainer);
            }
            checkpoints.after(cx, after, (p.checkpoint_every, p.steps), |dir| {
                trainer.save(dir)?;
                if let Some(validation) = &validation {
                    validation.write(&dir.join("validation.csv"))?;
                }
                curve.save(&dir.join("losses.csv"))
            })?;
        }

        let (multiply_adds, parameters) = (config.multiply_adds(), models::weights::count(&trainer.model.vs));
        let [config, weights, losses, tried] =
            ["head.json", "head.safetensors", "losses.csv", "validation.csv"].map(|name| cx.file(unit, name));
        head_models::write(&config, &weights, &trainer.model)?;
        curve.write(&losses)?;
        let row = OutRow::new().file("head_config", &config).file("head_weights", &weights).file("losses", &losses);
        let row = match &validation {
            Some(validation) => {
                validation.write(&tried)?;
                row.file("validation", &tried)
            }
            None => row.set("validation", Value::Null),
        };
        Ok(vec![row.i64("multiply_adds", multiply_adds).i64("parameters", parameters as i64)])
    }
}

/// The mean anchors of all neutral scans, made symmetric, `[K, 3]`.
fn mean_anchors(scans: &[Scan], pairs: i64) -> Result<Tensor> {
    let neutral: Vec<&Scan> = scans.iter().filter(|scan| scan.neutral).collect();
    anyhow::ensure!(!neutral.is_empty(), "there is no neutral scan");
    let k = neutral[0].anchors.len();
    anyhow::ensure!(k as i64 >= 2 * pairs, "the scans have {k} anchors, too few for {pairs} pairs");
    let mut mean = vec![[0.0f32; 3]; k];
    for scan in &neutral {
        for (mean, anchor) in mean.iter_mut().zip(&scan.anchors) {
            mean.iter_mut().zip(anchor).for_each(|(m, a)| *m += a / neutral.len() as f32);
        }
    }
    for pair in 0..pairs as usize {
        let (a, b) = (mean[2 * pair], mean[2 * pair + 1]);
        let [x, y, z] = [(a[0] - b[0]) / 2.0, (a[1] + b[1]) / 2.0, (a[2] + b[2]) / 2.0];
        (mean[2 * pair], mean[2 * pair + 1]) = ([x, y, z], [-x, y, z]);
    }
    mean[2 * pairs as usize..].iter_mut().for_each(|anchor| anchor[0] = 0.0);
    Ok(Tensor::from_slice(mean.as_flattened()).view([k as i64, 3]))
}
