//! One joint training step of a backward head model: codes, identity and expression networks together (MonoNPHM section 3.4), with a
//! signed far field and signed distances near the surface, which small models need. Knows no loop, files or schedules.

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
    /// The same off the surface, near and far (0.15 too); as dear as all other terms together, and distances that are known say the same.
    pub eikonal_around: f64,
    /// Mean |F - d| near the surface (not in MonoNPHM, which knows no distances).
    pub near: f64,
    /// Mean relu(0.5 |d| - sign(d) F) anywhere. MonoNPHM's exp(-10 |F|) leaves the sign open, and small models then grow surfaces far out.
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

/// Loss of a batch under the codes picked for it. With a backward model.
///
/// Spatial gradients, which cost a second differentiation, are taken at surface points only, unless `eikonal_around` asks for more.
pub fn training_step(model: &HeadModel, z_id: &Tensor, z_ex: &Tensor, batch: &Batch, weights: &LossWeights) -> Losses {
    debug_assert_eq!(model.config.deformation.direction, Direction::Backward);
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

    // a model without anchors is not asked for them
    let anchors = match model.config.identity.anchors() {
        0 => person.anchors.sum(None::<Kind>),
        _ => person.anchors.mse_loss(&batch.anchors, Reduction::Mean),
    };
    let terms = [
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
    ];
    let mut total = Tensor::zeros([], (surface.kind(), surface.device()));
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
        Self { model, z_id, z_ex, weights, rates, optimizer }
    }

    /// One update from one batch; `factor` multiplies every learning rate.
    pub fn step(&mut self, batch: &Batch, factor: f64) -> Losses {
        let id: Picked = self.z_id.pick(&batch.identities);
        let ex: Picked = self.z_ex.pick(&batch.expressions);
        let losses = training_step(&self.model, &id.codes, &ex.codes, batch, &self.weights);
        self.optimizer.zero_grad();
        losses.total.backward();
        self.optimizer.step(factor);
        self.z_id.update(&id, self.rates.z_id * factor, self.rates.clip);
        self.z_ex.update(&ex, self.rates.z_ex * factor, self.rates.clip);
        losses
    }

    /// Updates done so far.
    pub fn steps(&self) -> u64 {
        self.optimizer.steps() as u64
    }

    /// Writes everything a resumed run needs into a folder: `model.safetensors`, `codes.safetensors`, `optimizer.safetensors`.
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
mod tests {
    use super::*;
    use crate::init;
    use crate::nphm::sample::{Counts, Scan, draw};
    use crate::nphm::{Cloud, FitConfig, Frame, Pose, fit_identity};
    use tch::Device;

    /// A ball with a bump at the front whose height is the identity, squeezed along y by the expression.
    fn ball(identity: i64, expression: i64, bump: f32, squeeze: f32) -> Scan {
        let directions = init::normal(17, expression as u64, &[600, 3]);
        let directions = &directions / directions.square().sum_dim_intlist(1, true, None::<Kind>).sqrt();
        let directions: Vec<f32> = directions.reshape([-1]).try_into().unwrap();
        let mut scan = Scan { identity, expression, neutral: squeeze == 0.0, ..Scan::default() };
        let place = |d: [f32; 3], offset: f32, squeeze: f32| {
            let r = 0.4 + bump * (-8.0 * (1.0 - d[2])).exp() + offset;
            [r * d[0], r * d[1] * (1.0 - squeeze), r * d[2]]
        };
        for (i, d) in directions.as_chunks::<3>().0.iter().enumerate() {
            let offset = 0.04 * ((i % 5) as f32 - 2.0);
            scan.surface.push(place(*d, 0.0, squeeze));
            scan.normals.push(*d);
            scan.near.push(place(*d, offset, squeeze));
            scan.near_distance.push(offset);
            scan.far.push(place(*d, 6.0 * offset, squeeze));
            scan.far_distance.push(6.0 * offset);
            scan.posed.push(place(*d, 0.0, squeeze));
            scan.canonical.push(place(*d, 0.0, 0.0));
        }
        scan.anchors = vec![[-0.3, 0.1, 0.2], [0.3, 0.1, 0.2], place([0.0, 0.0, 1.0], 0.0, 0.0), [0.0, -0.3, 0.2]];
        scan
    }

    fn setting() -> (Vec<Scan>, Trainer) {
        crate::runtime::prepare(1);
        let scans = vec![ball(0, 0, 0.02, 0.0), ball(0, 1, 0.02, 0.15), ball(1, 2, 0.1, 0.0), ball(1, 3, 0.1, 0.15)];
        let mut config = HeadConfig::mini(1, 2);
        (config.identity.hidden, config.deformation.hidden, config.deformation.layers) = (40, 48, 3);
        let anchors = Tensor::from_slice(scans[0].anchors.as_flattened()).reshape([-1, 3]);
        let mut model = HeadModel::new(&config, &anchors, Device::Cpu).unwrap();
        model.seed(2);
        let rates = Rates { network: 3e-3, z_id: 1e-2, z_ex: 1e-2, ..Rates::default() };
        (scans, Trainer::new(model, 2, 4, LossWeights::default(), rates))
    }

    fn run(trainer: &mut Trainer, scans: &[Scan], steps: std::ops::Range<u64>) -> Vec<Losses> {
        let counts = Counts { surface: 24, near: 32, far: 16, correspondences: 24 };
        steps.map(|step| trainer.step(&draw(scans, 4, &counts, 1, step), 1.0)).collect()
    }

    #[test]
    fn training_and_tracking_work_on_bumpy_balls() {
        let (scans, mut trainer) = setting();
        let losses = run(&mut trainer, &scans, 0..80);
        let mean = |name: &str, range: std::ops::Range<usize>| {
            let of = |l: &Losses| l.terms.iter().find(|t| t.0 == name).unwrap().1;
            losses[range.clone()].iter().map(of).sum::<f64>() / range.len() as f64
        };
        for (name, factor) in [("surface", 0.6), ("near", 0.6), ("normals", 0.6), ("far", 0.3)] {
            let (early, late) = (mean(name, 0..5), mean(name, 75..80));
            assert!(late < factor * early, "{name}: {early} -> {late}");
        }

        // a ball in a pose that is not told exactly
        let truth = Pose { rotation: [0.1, -0.2, 0.05], translation: [0.01, 0.02, -0.03] };
        let start = Pose { rotation: [0.07, -0.22, 0.08], translation: [0.018, 0.016, -0.026] };
        let cloud =
            Cloud { points: scans[2].surface.iter().map(|p| truth.to_world(*p, 1.0)).collect(), ..Cloud::default() };
        let frame = Frame { z_ex: Vec::new(), pose: start, residual: 0.0, kept: 0.0 };
        let config = FitConfig { steps: 60, points: 150, normal_points: 0, ..FitConfig::default() };
        let mut told = Vec::new();
        let fit = fit_identity(&trainer.model, &[(&cloud, frame.clone())], &config, &mut |_, loss| told.push(loss));
        assert!(told[59] < 0.5 * told[0], "{} -> {}", told[0], told[59]);
        let off =
            |pose: &Pose| (0..3).map(|i| (pose.translation[i] - truth.translation[i]).powi(2)).sum::<f64>().sqrt();
        assert!(off(&fit.frames[0].pose) < 0.6 * off(&start), "{:?}", fit.frames[0]);
        let again = fit_identity(&trainer.model, &[(&cloud, frame)], &config, &mut |_, _| ());
        assert_eq!(fit.frames, again.frames);
    }

    #[test]
    fn the_paper_s_own_terms_push_the_field_to_a_distance_without_being_told_any() {
        let weights = |space: f64, eikonal_around: f64| LossWeights {
            near: 0.0,
            far: 0.0,
            space,
            eikonal_around,
            ..LossWeights::default()
        };
        let last = |weights: LossWeights, name: &str| {
            let (scans, mut trainer) = setting();
            trainer.weights = weights;
            let losses = run(&mut trainer, &scans, 0..60);
            let of = |l: &Losses| l.terms.iter().find(|t| t.0 == name).unwrap().1;
            losses[55..].iter().map(of).sum::<f64>() / 5.0
        };
        assert_eq!(last(weights(0.0, 0.0), "eikonal_around"), 0.0, "what has no weight is not computed");
        let (without, with) = (last(weights(0.0, 0.15), "space"), last(weights(1.0, 0.15), "space"));
        assert!(with < 0.8 * without, "the field moves away from 0: {without} -> {with}");
        let (weak, strong) = (last(weights(0.0, 1e-6), "eikonal_around"), last(weights(0.0, 10.0), "eikonal_around"));
        assert!(strong < 0.8 * weak, "slopes become 1: {weak} -> {strong}");
    }

    #[test]
    fn a_fit_looks_for_the_head_under_what_covers_it() {
        let (scans, mut trainer) = setting();
        run(&mut trainer, &scans, 0..80);
        // the back half has hair of up to 12 mm, and every fifth point of it is the skin between
        let mut cloud = Cloud::default();
        for (i, (place, normal)) in scans[2].surface.iter().zip(&scans[2].normals).enumerate() {
            let back = place[2] < 0.0;
            let hair = if back && i % 5 > 0 { 0.012 * (i % 5) as f32 } else { 0.0 };
            cloud
                .points
                .push([0, 1, 2].map(|k| (place[k] + hair * normal[k]) / crate::nphm::pose::UNITS_PER_METRE as f32));
            cloud.covering.push(back);
        }
        let frame = Frame { z_ex: Vec::new(), pose: Pose::default(), residual: 0.0, kept: 0.0 };
        let off = |covering: f64| {
            let config = FitConfig { steps: 100, points: 200, normal_points: 0, covering, ..FitConfig::default() };
            let config = FitConfig { rate_rotation: 0.0, rate_translation: 0.0, ..config };
            let fit = fit_identity(&trainer.model, &[(&cloud, frame.clone())], &config, &mut |_, _| ());
            let (z_id, z_ex) = (Tensor::from_slice(&fit.z_id), Tensor::from_slice(&fit.frames[0].z_ex));
            let found = crate::nphm::field_values(&trainer.model, &z_id, &z_ex, scans[2].surface.as_flattened());
            // inside the fitted surface, where it was drawn out
            let mean = found.iter().map(|f| f64::from(-f)).sum::<f64>() / found.len() as f64;
            (mean, fit.frames[0].kept)
        };
        let ((under, kept), (over, _)) = (off(0.1), off(1.0));
        assert!(over > 0.004, "hair as skin draws the surface out: {over}");
        assert!(under.abs() < 0.5 * over, "{under}, with hair as skin {over}");
        assert!(kept > 0.8, "what may be hair does not count as lost: {kept}");
    }

    /// How far poses are from even motion: root mean square second difference of their places, metres.
    fn jitter(frames: &[Frame]) -> f64 {
        let second = |w: &[Frame]| {
            let at = |k: usize, i: usize| w[k].pose.translation[i];
            (0..3).map(|i| (at(2, i) - 2.0 * at(1, i) + at(0, i)).powi(2)).sum::<f64>()
        };
        (frames.windows(3).map(second).sum::<f64>() / (frames.len() - 2) as f64).sqrt()
    }

    #[test]
    fn smoothness_takes_the_jitter_out_of_noisy_clouds_and_held_frames_stay() {
        let (scans, mut trainer) = setting();
        run(&mut trainer, &scans, 0..80);
        // a ball that rolls along evenly; each cloud as a whole lies up to 3 mm from where it was
        let frames = 7;
        let even = |i: usize| Pose { rotation: [0.0, 0.04 * i as f64, 0.0], translation: [0.01 * i as f64, 0.0, 0.0] };
        let noise: Vec<f64> =
            Vec::try_from(init::uniform(3, 1, &[3 * frames as i64], -3e-3, 3e-3).to_kind(Kind::Double)).unwrap();
        let cloud = |i: usize| {
            let noisy = |p: &[f32; 3]| {
                let p = even(i).to_world(*p, 1.0);
                [0, 1, 2].map(|k| p[k] + noise[3 * i + k] as f32)
            };
            Cloud { points: scans[0].surface.iter().map(noisy).collect(), ..Cloud::default() }
        };
        let clouds: Vec<Cloud> = (0..frames).map(cloud).collect();
        let start = |i: usize| Frame {
            z_ex: vec![0.0; trainer.model.config.deformation.d_ex as usize],
            pose: even(i),
            residual: 0.0,
            kept: 0.0,
        };
        let seen: Vec<(&Cloud, Frame)> = clouds.iter().enumerate().map(|(i, cloud)| (cloud, start(i))).collect();
        let z_id: Vec<f32> = trainer.z_id.weight.get(0).try_into().unwrap();
        let person = crate::nphm::fit::Known { z_id: &z_id, landmarks: &[] };
        let fit = |smooth_motion: f64, held: usize| {
            let config =
                FitConfig { steps: 40, points: 150, normal_points: 0, smooth_motion, held, ..FitConfig::frame() };
            crate::nphm::fit_frames(&trainer.model, &seen, person, &config, &mut |_, _| ())
        };
        let (plain, smooth) = (fit(0.0, 0), fit(10.0, 0));
        assert!(jitter(&plain) > 1.5e-3, "the noise is followed: {}", jitter(&plain));
        assert!(jitter(&smooth) < 0.5 * jitter(&plain), "{} {}", jitter(&smooth), jitter(&plain));
        // and the motion itself is kept: no frame lags behind
        let off = |frames: &[Frame], i: usize| (frames[i].pose.translation[0] - even(i).translation[0]).abs();
        assert!(off(&smooth, 0) < 4e-3 && off(&smooth, frames - 1) < 4e-3, "{smooth:?}");
        let held = fit(10.0, 2);
        assert!((0..2).all(|i| held[i].z_ex == start(i).z_ex && held[i].pose.translation == start(i).pose.translation));
        assert!(held[2].pose.translation != start(2).pose.translation && held[2].z_ex != start(2).z_ex);
    }

    #[test]
    fn one_network_for_the_whole_head_trains_like_an_ensemble() {
        let (scans, ensemble) = setting();
        let config = HeadConfig::npm(&ensemble.model.config);
        let mut model = HeadModel::new(&config, &Tensor::zeros([0, 3], tch::kind::FLOAT_CPU), Device::Cpu).unwrap();
        model.seed(2);
        let mut trainer = Trainer::new(model, 2, 4, LossWeights::default(), ensemble.rates);
        let losses = run(&mut trainer, &scans, 0..80);
        let surface = |l: &Losses| l.terms.iter().find(|t| t.0 == "surface").unwrap().1;
        let [early, late] = [0..5, 75..80].map(|range| losses[range].iter().map(surface).sum::<f64>());
        assert!(late < 0.6 * early, "{early} -> {late}");
        // written and read again, it says the same, also at many points
        let dir = std::env::temp_dir().join(format!("effigy-npm-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        trainer.save(&dir).unwrap();
        let tensors = weights::read(&dir.join("model.safetensors")).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let mut again = HeadModel::new(&config, &tensors["mean_anchors"], Device::Cpu).unwrap();
        again.set_tensors(&tensors, "itself").unwrap();
        let (z_id, z_ex) = (trainer.z_id.weight.get(1), trainer.z_ex.weight.get(3));
        let points: Vec<f32> = init::normal(5, 5, &[9000]).try_into().unwrap();
        let at = |model: &HeadModel| crate::nphm::field_values(model, &z_id, &z_ex, &points);
        assert_eq!(at(&trainer.model), at(&again));
    }

    #[test]
    fn a_trial_gets_better_with_training_and_leaves_no_trace() {
        use crate::nphm::validate::{Trial, validate};
        let (scans, mut tried) = setting();
        let (_, mut alone) = setting();
        // a person between the two, with an expression that nobody has
        let others = [ball(0, 0, 0.06, 0.0), ball(0, 1, 0.06, 0.1)];
        let points = Counts { surface: 24, near: 32, far: 16, correspondences: 24 };
        let trial = Trial { steps: 20, batch: 2, fitted: points.clone(), judged: points, seed: 5, ..Trial::default() };
        let before = validate(&mut tried, &others, &trial);
        run(&mut tried, &scans, 0..40);
        run(&mut alone, &scans, 0..40);
        let after = validate(&mut tried, &others, &trial);
        let surface = |l: &Losses| l.terms.iter().find(|t| t.0 == "surface").unwrap().1;
        assert!(surface(&after) < 0.7 * surface(&before), "{} -> {}", surface(&before), surface(&after));
        // fitted codes explain a person better than codes that were not
        let unfitted = validate(&mut tried, &others, &Trial { steps: 0, ..trial.clone() });
        let total = |l: &Losses| l.total.double_value(&[]);
        assert!(total(&after) < total(&unfitted), "{} {}", total(&after), total(&unfitted));
        assert_eq!(total(&after), total(&validate(&mut tried, &others, &trial)), "it is a function of the weights");
        // and training goes on as if nothing had been tried
        run(&mut tried, &scans, 40..44);
        run(&mut alone, &scans, 40..44);
        let (a, b) = (tried.model.tensors(), alone.model.tensors());
        assert!(a.iter().all(|(name, t)| *t == b[name]));
        assert_eq!((&tried.z_id.weight, &tried.z_ex.weight), (&alone.z_id.weight, &alone.z_ex.weight));
    }

    #[test]
    fn a_resumed_run_is_the_run() {
        let (scans, mut whole) = setting();
        run(&mut whole, &scans, 0..6);
        let dir = std::env::temp_dir().join(format!("effigy-nphm-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (_, mut first) = setting();
        run(&mut first, &scans, 0..3);
        first.save(&dir).unwrap();
        let (_, mut second) = setting();
        second.load(&dir).unwrap();
        assert_eq!(second.steps(), 3);
        run(&mut second, &scans, 3..6);
        let (a, b) = (whole.model.tensors(), second.model.tensors());
        assert!(a.iter().all(|(name, t)| *t == b[name]));
        assert_eq!(whole.z_id.weight, second.z_id.weight);
        assert_eq!(whole.z_ex.weight, second.z_ex.weight);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
