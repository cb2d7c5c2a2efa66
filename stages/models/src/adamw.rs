//! AdamW (Loshchilov & Hutter 2019) with parameter groups, per-group clipping, and a state that can be saved: training
//! 20 steps equals 10, save, load, 10, bit for bit. tch's own optimiser hides its state. Does not know networks or
//! losses.

use std::collections::BTreeMap;
use std::path::Path;

use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::numbers::{numbers, numbers_mut};
use crate::weights::{self, Precision, Tensors, WeightsError};

/// How one group of parameters is updated.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Names the group in saved states; must be unique.
    pub name: String,
    /// Learning rate before [`AdamW::step`]'s factor.
    pub lr: f64,
    /// Decay per step is lr * this.
    pub weight_decay: f64,
    /// Largest norm of the group's gradient; larger ones are scaled down to it.
    pub max_grad_norm: Option<f64>,
}

impl Group {
    /// Weight decay 0.01 and clipping at 1: the published recipe for networks.
    pub fn network(name: &str, lr: f64) -> Self {
        Self { name: name.into(), lr, weight_decay: 0.01, max_grad_norm: Some(1.0) }
    }
}

struct Parameter {
    name: String,
    value: Tensor,
    m: Tensor,
    v: Tensor,
}

/// The numbers of one update of one group.
struct Update {
    /// Factor of the gradient.
    clip: f64,
    /// What decay leaves of a weight.
    keep: f64,
    beta1: f64,
    beta2: f64,
    /// Learning rate over the first moment's correction.
    rate: f64,
    /// Root of the second moment's correction.
    correction2: f64,
    eps: f64,
}

impl Update {
    /// With operations of libtorch, one after the other: on any device.
    fn in_turn(&self, parameter: &mut Parameter, gradient: &Tensor) {
        let Parameter { value, m, v, .. } = parameter;
        let gradient = &(gradient * self.clip);
        *value *= self.keep;
        _ = m.lerp_(gradient, 1.0 - self.beta1);
        *v *= self.beta2;
        _ = v.addcmul_(gradient, &(gradient * (1.0 - self.beta2)));
        let denominator = v.sqrt() / self.correction2 + self.eps;
        _ = value.addcdiv_(&(&*m * -self.rate), &denominator);
    }

    /// The same in one pass over the numbers, for f32 on the CPU: there the many passes wait for memory, a third of a
    /// small network's step. tch does not offer libtorch's own fused update.
    fn at_once(&self, parameter: &mut Parameter, gradient: &Tensor) {
        let Parameter { value, m, v, .. } = parameter;
        let gradient = gradient.contiguous();
        let [clip, keep, beta1, beta2] = [self.clip, self.keep, self.beta1, self.beta2].map(|x| x as f32);
        let [rate, correction2, eps] = [self.rate, self.correction2, self.eps].map(|x| x as f32);
        let (fresh1, fresh2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        // variables, moments and gradients are storages of their own
        let (value, m, v, gradient) = (numbers_mut(value), numbers_mut(m), numbers_mut(v), numbers(&gradient));
        for (((value, m), v), gradient) in value.iter_mut().zip(m).zip(v).zip(gradient) {
            let gradient = gradient * clip;
            *m = beta1 * *m + fresh1 * gradient;
            *v = beta2 * *v + fresh2 * gradient * gradient;
            *value = keep * *value - rate * *m / (v.sqrt() / correction2 + eps);
        }
    }
}

/// The optimiser.
pub struct AdamW {
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    groups: Vec<(Group, Vec<Parameter>)>,
    step: i64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, groups: Vec::new(), step: 0 }
    }
}

impl AdamW {
    /// Adds every variable of a network that wants a gradient, in name order.
    pub fn add(&mut self, group: Group, vs: &VarStore) {
        let variables = weights::sorted(vs);
        self.add_tensors(group, variables.into_iter().filter(|(_, t)| t.requires_grad()).collect());
    }

    /// Adds named tensors.
    pub fn add_tensors(&mut self, group: Group, tensors: Tensors) {
        let parameter = |(name, value): (String, Tensor)| {
            let (m, v) = (value.detach().zeros_like(), value.detach().zeros_like());
            Parameter { name, value, m, v }
        };
        self.groups.push((group, tensors.into_iter().map(parameter).collect()));
    }

    /// Forgets the gradients.
    pub fn zero_grad(&mut self) {
        for parameter in self.groups.iter_mut().flat_map(|(_, list)| list) {
            parameter.value.zero_grad();
        }
    }

    /// Forgets all steps, as if none had been done.
    pub fn reset(&mut self) {
        self.step = 0;
        for parameter in self.groups.iter_mut().flat_map(|(_, list)| list) {
            let _ = (parameter.m.zero_(), parameter.v.zero_());
        }
    }

    /// Number of updates done.
    pub fn steps(&self) -> i64 {
        self.step
    }

    /// One update from the gradients present. `factor` multiplies every learning rate (a schedule's value). Returns
    /// each group's gradient norm before clipping. Parameters without a gradient are left alone.
    pub fn step(&mut self, factor: f64) -> Vec<f64> {
        let norms = self.norms();
        self.update(factor, &norms);
        norms
    }

    /// Each group's gradient norm. One that is not finite tells of an overflow.
    pub fn norms(&self) -> Vec<f64> {
        self.groups.iter().map(|(_, parameters)| global_norm(&gradients(parameters))).collect()
    }

    /// [`AdamW::step`] for a caller that has looked at the gradients' [`AdamW::norms`] before.
    pub fn update(&mut self, factor: f64, norms: &[f64]) {
        self.step += 1;
        let [beta1, beta2] = self.betas;
        let correction1 = 1.0 - beta1.powi(self.step as i32);
        let correction2 = (1.0 - beta2.powi(self.step as i32)).sqrt();
        tch::no_grad(|| {
            for ((group, parameters), norm) in self.groups.iter_mut().zip(norms) {
                let gradients = gradients(parameters);
                // The 1e-6 is PyTorch's; gradients below the limit are left alone.
                let clip = group.max_grad_norm.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0));
                let lr = group.lr * factor;
                let update = Update {
                    clip,
                    keep: 1.0 - lr * group.weight_decay,
                    beta1,
                    beta2,
                    rate: lr / correction1,
                    correction2,
                    eps: self.eps,
                };
                for (parameter, gradient) in parameters.iter_mut().zip(&gradients).filter(|(_, g)| g.defined()) {
                    let value = &parameter.value;
                    if value.device() == Device::Cpu && value.kind() == Kind::Float && value.is_contiguous() {
                        update.at_once(parameter, gradient);
                    } else {
                        update.in_turn(parameter, gradient);
                    }
                }
            }
        });
    }

    /// Writes the moments and the step count.
    pub fn save(&self, path: &Path) -> Result<(), WeightsError> {
        let mut tensors = Tensors::new();
        for (group, parameters) in &self.groups {
            for p in parameters {
                tensors.insert(format!("{}/{}/m", group.name, p.name), p.m.shallow_clone());
                tensors.insert(format!("{}/{}/v", group.name, p.name), p.v.shallow_clone());
            }
        }
        tensors.insert("step".into(), Tensor::from(self.step));
        weights::write(path, &tensors, &BTreeMap::new(), Precision::Keep)
    }

    /// Reads back what [`AdamW::save`] wrote, for the same groups and parameters; anything else is an error.
    pub fn load(&mut self, path: &Path) -> Result<(), WeightsError> {
        let key = |group: &Group, p: &Parameter, which: &str| format!("{}/{}/{which}", group.name, p.name);
        let mut tensors = weights::read(path)?;
        let mut expected = Tensors::new();
        for (group, parameters) in &self.groups {
            for p in parameters {
                expected.insert(key(group, p, "m"), p.m.shallow_clone());
                expected.insert(key(group, p, "v"), p.v.shallow_clone());
            }
        }
        let step = tensors.remove("step");
        weights::copy_into(&expected, &tensors, &path.display().to_string())?;
        self.step = match step {
            Some(step) => step.int64_value(&[]),
            None => {
                let reason = "it has no tensor \"step\"".into();
                return Err(WeightsError::Format { path: path.into(), reason });
            }
        };
        Ok(())
    }
}

fn gradients(parameters: &[Parameter]) -> Vec<Tensor> {
    parameters.iter().map(|p| p.value.grad()).collect()
}

/// Euclidean norm over a list of gradients; undefined ones count as zero. Summed in f64, so that the order of tensors
/// and the number of threads do not matter at f32 precision.
pub fn global_norm(gradients: &[Tensor]) -> f64 {
    let squares = gradients.iter().filter(|g| g.defined()).map(|g| g.norm().double_value(&[]).powi(2));
    squares.sum::<f64>().sqrt()
}

/// A copy of weights that follows them slowly.
pub struct Ema {
    decay: f64,
    average: Tensors,
}

impl Ema {
    /// Starts at the present weights, such as [`weights::sorted`] lists.
    pub fn new(weights: &Tensors, decay: f64) -> Self {
        Self { decay, average: weights.iter().map(|(n, t)| (n.clone(), t.detach().copy())).collect() }
    }

    /// average = decay average + (1 - decay) weights; `weights` has the names that it started with.
    pub fn update(&mut self, weights: &Tensors) {
        tch::no_grad(|| {
            for (name, average) in &mut self.average {
                _ = average.lerp_(&weights[name], 1.0 - self.decay);
            }
        });
    }

    /// The averaged weights, to save or to load into a network.
    pub fn tensors(&self) -> &Tensors {
        &self.average
    }

    /// Replaces the average, as when resuming.
    pub fn restore(&mut self, tensors: &Tensors, source: &str) -> Result<(), WeightsError> {
        weights::copy_into(&self.average, tensors, source)
    }
}

/// Learning-rate factor of a step while it rises to 1, over `warmup` steps.
pub fn warming(step: u64, warmup: u64) -> f64 {
    if step < warmup { (step + 1) as f64 / (warmup + 1) as f64 } else { 1.0 }
}

/// Learning-rate factor of step `step` of `total`: linear warm-up over `warmup` steps, then half a cosine down to
/// `floor`.
pub fn cosine(step: u64, total: u64, warmup: u64, floor: f64) -> f64 {
    if step < warmup {
        return warming(step, warmup);
    }
    let progress = (step - warmup) as f64 / (total.saturating_sub(warmup)).max(1) as f64;
    floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;
    use crate::layers::Linear;

    /// Trains a two-layer regression from step `from` to step `to`; noise is a function of the step.
    fn train(net: &[Linear; 2], optimiser: &mut AdamW, from: u64, to: u64) {
        for step in from..to {
            let x = init::normal(5, step, &[16, 3]);
            let y = x.square().sum_dim_intlist(1, true, Kind::Float);
            let loss = (net[1].forward(&net[0].forward(&x).tanh()) - y).square().mean(Kind::Float);
            optimiser.zero_grad();
            loss.backward();
            optimiser.step(cosine(step, 20, 2, 0.1));
        }
    }

    fn build() -> (VarStore, [Linear; 2], AdamW) {
        let (vs, net) = init::build(Device::Cpu, 1, |p| [Linear::new(&(p / "a"), 3, 8), Linear::new(&(p / "b"), 8, 1)]);
        let mut optimiser = AdamW::default();
        optimiser.add(Group::network("net", 1e-2), &vs);
        (vs, net, optimiser)
    }

    #[test]
    fn twenty_steps_are_ten_save_load_ten() {
        let (whole_vs, whole, mut whole_opt) = build();
        train(&whole, &mut whole_opt, 0, 20);

        let dir = std::env::temp_dir().join(format!("effigy-adamw-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (weights_file, state_file) = (dir.join("w.safetensors"), dir.join("s.safetensors"));
        let (vs, net, mut optimiser) = build();
        train(&net, &mut optimiser, 0, 10);
        weights::save(&vs, &weights_file, &BTreeMap::new(), Precision::Keep).unwrap();
        optimiser.save(&state_file).unwrap();

        let (vs, net, mut optimiser) = build();
        weights::load(&vs, &weights_file).unwrap();
        optimiser.load(&state_file).unwrap();
        assert_eq!(optimiser.steps(), 10);
        train(&net, &mut optimiser, 10, 20);
        for (name, value) in whole_vs.variables() {
            assert_eq!(value, vs.variables()[&name], "{name}");
        }
        // A state of another network is refused.
        let mut other = AdamW::default();
        other.add(Group::network("other", 1e-2), &vs);
        assert!(other.load(&state_file).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_update_at_once_is_the_update_in_turn() {
        let update =
            Update { clip: 0.3, keep: 0.99, beta1: 0.9, beta2: 0.999, rate: 0.02, correction2: 0.05, eps: 1e-8 };
        let made = || {
            let m = init::normal(1, 1, &[7, 5]) * 0.1;
            let v = init::normal(1, 2, &[7, 5]).square() * 0.01;
            Parameter { name: "p".into(), value: init::normal(1, 0, &[7, 5]), m, v }
        };
        let (mut once, mut turns) = (made(), made());
        for step in 0..5 {
            // one that lies the other way round in memory, as gradients may
            let gradient = init::normal(2, step, &[5, 7]).transpose(0, 1);
            update.at_once(&mut once, &gradient);
            update.in_turn(&mut turns, &gradient);
        }
        for (a, b) in [(&once.value, &turns.value), (&once.m, &turns.m), (&once.v, &turns.v)] {
            let off = ((a - b).abs() / (b.abs() + 1e-3)).max().double_value(&[]);
            assert!(off < 1e-5, "{off}");
        }
        let moved = (&once.value - made().value).abs().min().double_value(&[]);
        assert!(moved > 1e-4, "{moved}");
    }

    #[test]
    fn the_first_step_is_the_sign_of_the_gradient_and_frozen_tensors_stay() {
        let vs = VarStore::new(Device::Cpu);
        let x = vs.root().zeros("x", &[3]);
        let mut frozen = VarStore::new(Device::Cpu);
        let y = frozen.root().ones("y", &[3]);
        frozen.freeze();
        let mut optimiser = AdamW::default();
        let group = Group { name: "g".into(), lr: 0.1, weight_decay: 0.0, max_grad_norm: None };
        optimiser.add(group.clone(), &vs);
        optimiser.add(Group { name: "f".into(), ..group }, &frozen);
        let loss = ((&x + &y) * Tensor::from_slice(&[2f32, -3.0, 0.5])).sum(Kind::Float);
        loss.backward();
        let norms = optimiser.step(1.0);
        assert!((norms[0] - (4.0f64 + 9.0 + 0.25).sqrt()).abs() < 1e-6 && norms[1] == 0.0);
        let moved: Vec<f32> = Vec::try_from(x.detach()).unwrap();
        for (got, want) in moved.iter().zip([-0.1, 0.1, -0.1]) {
            assert!((got - want).abs() < 1e-6, "{moved:?}");
        }
        assert_eq!(y.min().double_value(&[]), 1.0);
    }
}
