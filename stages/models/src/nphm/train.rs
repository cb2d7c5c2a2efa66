//! One joint training step of a head model: codes, identity and expression networks together (of a backward one as in
//! MonoNPHM, section 3.4; of a forward one in `forward`), with a signed far field and signed distances near the
//! surface, which small models need. Knows no loop, files or schedules.

pub(super) mod forward;

use super::codes::{CodeTable, Picked};
use super::config::{Direction, HeadConfig};
use super::field::{HeadModel, gradient};
use super::identity::Far;
use super::sample::Batch;
use crate::adamw::{AdamW, Group};
use crate::weights::{self, Tensors, WeightsError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Reduction, Tensor};

/// Weights of the loss terms. The defaults train the `mini` preset; MonoNPHM's own are in brackets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LossWeights {
    /// Mean |F| on the surface (1).
    pub surface: f64,
    /// Mean |grad F - n| on the surface (0.3).
    pub normals: f64,
    /// Mean ||grad F| - 1| on the surface (0.15).
    pub eikonal: f64,
    /// The same off the surface, near and far (0.15 too); as dear as all other terms together, and distances that are
    /// known say the same.
    pub eikonal_around: f64,
    /// Mean |F - d| near the surface (not in MonoNPHM, which knows no distances).
    pub near: f64,
    /// Mean relu(0.5 |d| - sign(d) F) anywhere. MonoNPHM's exp(-10 |F|) leaves the sign open, and small models then
    /// grow surfaces far out.
    pub far: f64,
    /// Mean exp(-10 |F|) anywhere (0.01): no surface where there is none, for scans whose inside is not known.
    pub space: f64,
    /// Mean squared error of canonical positions (1000).
    pub correspondence: f64,
    /// Mean squared error of anchors (7.5).
    pub anchors: f64,
    /// Mean |omega| (0.05).
    pub hyper: f64,
    /// The same on neutral scans, on top (0.5).
    pub hyper_neutral: f64,
    /// Mean |delta|^2 on neutral scans (0.001).
    pub neutral_zero: f64,
    /// Mean |delta|^2 at far points (0.0025).
    pub zero_deformation: f64,
    /// Mean |z_id|^2 (0.01).
    pub z_id: f64,
    /// Mean |z_ex|^2 (0.05).
    pub z_ex: f64,
    /// Mean |z_k - z_k*| over pairs (0.01).
    pub symmetry: f64,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self {
            surface: 2.0,
            normals: 0.3,
            eikonal: 0.1,
            eikonal_around: 0.0,
            near: 2.0,
            far: 1.0,
            space: 0.0,
            correspondence: 1000.0,
            anchors: 7.5,
            hyper: 0.05,
            hyper_neutral: 0.5,
            neutral_zero: 0.1,
            zero_deformation: 0.0025,
            z_id: 0.01,
            z_ex: 0.05,
            symmetry: 0.01,
        }
    }
}

/// The loss of one batch.
pub struct Losses {
    /// Weighted sum, to be differentiated.
    pub total: Tensor,
    /// Each term before weighting, by name.
    pub terms: Vec<(&'static str, f64)>,
}

/// Loss of a batch under the codes picked for it.
///
/// Spatial gradients, which cost a second differentiation, are taken at surface points only, unless `eikonal_around`
/// asks for more.
pub fn training_step(model: &HeadModel, z_id: &Tensor, z_ex: &Tensor, batch: &Batch, weights: &LossWeights) -> Losses {
    match model.config.deformation.direction {
        Direction::Backward => backward_step(model, z_id, z_ex, batch, weights),
        Direction::Forward => forward::step(model, z_id, z_ex, batch, weights),
    }
}

fn backward_step(model: &HeadModel, z_id: &Tensor, z_ex: &Tensor, batch: &Batch, weights: &LossWeights) -> Losses {
    let mean = |t: Tensor| t.mean(None::<Kind>);
    let person = model.person(z_id, None);

    // points with spatial gradients, from the posed space through both networks
    let x = batch.surface.detach().copy().set_requires_grad(true);
    let q = model.query(&person, z_ex, &x);
    let surface = model.canonical_field(&person, &q, Far::Learned).sdf;
    let slope = gradient(&surface, &x, true);
    let length = |v: &Tensor| (v.square().sum_dim_intlist(2, false, None::<Kind>) + 1e-12).sqrt();

    // points without
    let [near, far, pairs] = [&batch.near, &batch.far, &batch.posed].map(|t| t.size()[1]);
    let points = Tensor::cat(&[&batch.near, &batch.far, &batch.posed], 1);
    let others = model.query(&person, z_ex, &points);
    let moved = &others.narrow(2, 0, 3) - &points;
    let omega = others.narrow(2, 3, model.config.identity.n_hyper);
    let field = model.canonical_field(&person, &others.narrow(1, 0, near + far), Far::Learned).sdf;
    let (near_field, far_field) = (field.narrow(1, 0, near), field.narrow(1, near, far));
    let hinge = (batch.far_distance.abs() * 0.5 - batch.far_distance.sign() * &far_field).relu();

    let all_omega = Tensor::cat(&[q.narrow(2, 3, omega.size()[2]), omega], 1).abs().mean_dim(
        [1i64, 2].as_slice(),
        false,
        None::<Kind>,
    );
    let neutral_share = batch.neutral.sum(None::<Kind>).clamp_min(1.0);
    let at_neutral = |per_scan: Tensor| (per_scan * &batch.neutral).sum(None::<Kind>) / &neutral_share;
    let moved_squared = moved.square().mean_dim([1i64, 2].as_slice(), false, None::<Kind>);

    // terms of no weight are not computed if that takes another look at the field
    let around = if weights.eikonal_around > 0.0 {
        let x = Tensor::cat(&[&batch.near, &batch.far], 1).detach().copy().set_requires_grad(true);
        let field = model.posed_field(&person, z_ex, &x, Far::Learned).sdf;
        mean((length(&gradient(&field, &x, true)) - 1.0).abs())
    } else {
        Tensor::zeros([], (surface.kind(), surface.device()))
    };

    let anchors = anchor_error(model, &person.anchors, batch);
    weighted([
        ("surface", weights.surface, mean(surface.abs())),
        ("normals", weights.normals, mean(length(&(&slope - &batch.normals)))),
        ("eikonal", weights.eikonal, mean((length(&slope) - 1.0).abs())),
        ("eikonal_around", weights.eikonal_around, around),
        ("near", weights.near, mean((near_field - &batch.near_distance).abs())),
        ("far", weights.far, mean(hinge)),
        ("space", weights.space, mean((far_field.abs() * -10.0).exp())),
        (
            "correspondence",
            weights.correspondence,
            others.narrow(1, near + far, pairs).narrow(2, 0, 3).mse_loss(&batch.canonical, Reduction::Mean),
        ),
        ("anchors", weights.anchors, anchors),
        ("hyper", weights.hyper, mean(all_omega.shallow_clone())),
        ("hyper_neutral", weights.hyper_neutral, at_neutral(all_omega)),
        ("neutral_zero", weights.neutral_zero, at_neutral(moved_squared)),
        ("zero_deformation", weights.zero_deformation, mean(moved.narrow(1, near, far).square())),
        ("z_id", weights.z_id, mean(z_id.square().sum_dim_intlist(1, false, None::<Kind>))),
        ("z_ex", weights.z_ex, mean(z_ex.square().sum_dim_intlist(1, false, None::<Kind>))),
        ("symmetry", weights.symmetry, model.identity.asymmetry(z_id)),
    ])
}

/// Mean squared error of predicted anchors `[B, K, 3]`; a model without any is not asked for them.
fn anchor_error(model: &HeadModel, anchors: &Tensor, batch: &Batch) -> Tensor {
    match model.config.identity.anchors() {
        0 => anchors.sum(None::<Kind>),
        _ => anchors.mse_loss(&batch.anchors, Reduction::Mean),
    }
}

/// The sum of terms: name, weight and value of each. What has no weight is told and not learned from.
fn weighted<const N: usize>(terms: [(&'static str, f64, Tensor); N]) -> Losses {
    let mut total = Tensor::zeros([], (terms[0].2.kind(), terms[0].2.device()));
    let mut report = Vec::with_capacity(terms.len());
    for (name, weight, value) in terms {
        report.push((name, value.double_value(&[])));
        if weight > 0.0 {
            total += value * weight;
        }
    }
    Losses { total, terms: report }
}

/// Learning rates and limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// Both networks.
    pub network: f64,
    /// Weight decay of both networks.
    pub weight_decay: f64,
    /// Largest gradient norm of each network, and of the codes of each kind.
    pub clip: f64,
    /// Identity codes.
    pub z_id: f64,
    /// Expression codes.
    pub z_ex: f64,
}

impl Default for Rates {
    fn default() -> Self {
        Self { network: 1e-3, weight_decay: 5e-4, clip: 1.0, z_id: 2e-3, z_ex: 5e-3 }
    }
}

/// A model in training: networks, codes and optimisers.
pub struct Trainer {
    /// The networks.
    pub model: HeadModel,
    /// A code per identity.
    pub z_id: CodeTable,
    /// A code per scan.
    pub z_ex: CodeTable,
    /// Weights of the loss terms.
    pub weights: LossWeights,
    /// Learning rates.
    pub rates: Rates,
    /// Norms of the gradients of the last step, of each network; ones that are not finite have spoilt it.
    pub norms: Vec<f64>,
    optimizer: AdamW,
}

impl Trainer {
    /// Starts at the model's weights and at codes that are 0 (as MonoNPHM's are), of length at most 1.
    pub fn new(model: HeadModel, identities: i64, scans: i64, weights: LossWeights, rates: Rates) -> Self {
        let HeadConfig { identity, deformation } = &model.config;
        let mut optimizer = AdamW::default();
        let variables = weights::sorted(&model.vs);
        for part in ["id_decoder", "ex_decoder"] {
            let group = Group {
                name: part.into(),
                lr: rates.network,
                weight_decay: rates.weight_decay,
                max_grad_norm: Some(rates.clip),
            };
            let own = variables.iter().filter(|(name, _)| name.starts_with(part));
            optimizer.add_tensors(group, own.map(|(name, t)| (name.clone(), t.shallow_clone())).collect());
        }
        let z_id = CodeTable::new(identities, identity.d_id(), 0.0, 1.0, 0);
        let z_ex = CodeTable::new(scans, deformation.d_ex, 0.0, 1.0, 0);
        Self { model, z_id, z_ex, weights, rates, norms: Vec::new(), optimizer }
    }

    /// One update from one batch, and from the correspondences of `more` scans: a backward model's at the codes they
    /// have, while a forward model learns these codes, too, because its own batch had better be of neutral scans, where
    /// alone its field is seen. `factor` multiplies every learning rate.
    pub fn step(&mut self, batch: &Batch, more: Option<&Batch>, factor: f64) -> Losses {
        let id: Picked = self.z_id.pick(&batch.identities);
        let ex: Picked = self.z_ex.pick(&batch.expressions);
        let mut losses = training_step(&self.model, &id.codes, &ex.codes, batch, &self.weights);
        let mut learned = None;
        if let Some(more) = more {
            let [z_id, z_ex] = [self.z_id.pick(&more.identities), self.z_ex.pick(&more.expressions)];
            let error = match self.model.config.deformation.direction {
                Direction::Backward => {
                    let error = self.correspondence_error(more, &z_id.codes.detach(), &z_ex.codes.detach());
                    losses.total += &error * self.weights.correspondence;
                    error
                }
                Direction::Forward => {
                    let expressions = forward::expressions(&self.model, &z_id.codes, &z_ex.codes, more, &self.weights);
                    losses.total += expressions.total;
                    learned = Some(z_ex);
                    expressions.error
                }
            };
            losses.terms.push(("more_correspondence", error.double_value(&[])));
        }
        self.optimizer.zero_grad();
        losses.total.backward();
        self.norms = self.optimizer.step(factor);
        self.z_id.update(&id, self.rates.z_id * factor, self.rates.clip);
        for ex in [Some(ex), learned].iter().flatten() {
            self.z_ex.update(ex, self.rates.z_ex * factor, self.rates.clip);
        }
        losses
    }

    /// Mean squared error of the canonical places of a batch's points. With a backward model.
    fn correspondence_error(&self, batch: &Batch, z_id: &Tensor, z_ex: &Tensor) -> Tensor {
        let deformation = &self.model.deformation;
        let anchors = match self.model.config.deformation.anchors {
            0 => batch.anchors.narrow(1, 0, 0),
            _ => batch.anchors.shallow_clone(),
        };
        let (offset, _) = deformation.forward(&batch.posed, &deformation.compress(z_id, &anchors), z_ex);
        (&batch.posed + offset).mse_loss(&batch.canonical, Reduction::Mean)
    }

    /// Updates done so far.
    pub fn steps(&self) -> u64 {
        self.optimizer.steps() as u64
    }

    /// Writes everything a resumed run needs into a folder: `model.safetensors`, `codes.safetensors`,
    /// `optimizer.safetensors`.
    pub fn save(&self, dir: &Path) -> Result<(), WeightsError> {
        let write = |name: &str, tensors: &Tensors| {
            weights::write(&dir.join(name), tensors, &BTreeMap::new(), weights::Precision::Keep)
        };
        write("model.safetensors", &self.model.tensors())?;
        write("codes.safetensors", &prefixed([("z_id", self.z_id.state()), ("z_ex", self.z_ex.state())]))?;
        self.optimizer.save(&dir.join("optimizer.safetensors"))
    }

    /// Takes up what [`Trainer::save`] wrote: going on from there gives bit for bit what not stopping would have given.
    pub fn load(&mut self, dir: &Path) -> Result<(), WeightsError> {
        let source = |name: &str| dir.join(name).display().to_string();
        self.model.set_tensors(&weights::read(&dir.join("model.safetensors"))?, &source("model.safetensors"))?;
        let codes = weights::read(&dir.join("codes.safetensors"))?;
        for (prefix, table) in [("z_id", &mut self.z_id), ("z_ex", &mut self.z_ex)] {
            let own: Tensors = codes
                .iter()
                .filter_map(|(name, t)| {
                    Some((name.strip_prefix(prefix)?.strip_prefix('.')?.to_owned(), t.shallow_clone()))
                })
                .collect();
            table.restore(&own, &source("codes.safetensors"))?;
        }
        self.optimizer.load(&dir.join("optimizer.safetensors"))
    }
}

/// Factor of the learning rates at `step` of `total`: halved at one half and at three quarters.
pub fn halving(step: u64, total: u64) -> f64 {
    match 4 * step / total.max(1) {
        0 | 1 => 1.0,
        2 => 0.5,
        _ => 0.25,
    }
}

fn prefixed<const N: usize>(groups: [(&str, Tensors); N]) -> Tensors {
    groups
        .into_iter()
        .flat_map(|(prefix, tensors)| tensors.into_iter().map(move |(name, t)| (format!("{prefix}.{name}"), t)))
        .collect()
}

#[cfg(test)]
mod tests;
