//! UniPC (Zhao et al. 2023), the sampler of few steps, as diffusers' `UniPCMultistepScheduler` has it. Each step first
//! corrects the sample that the last one predicted, now that the network was asked there, and predicts the next. All of
//! it is linear, so a plan holds coefficients. Without word to the contrary: second order, data prediction, B(h) = e^h
//! - 1, and first order in the last step.
//!
//! With zero terminal SNR the first step would begin at log-SNR minus infinity, which is why DiffusionAvatars does
//! without this sampler (black images). As in later releases of diffusers, 2^-24 of the clean sample's variance stands
//! in place of zero.

use serde_json::{Value, json};
use tch::Tensor;

use crate::config::Reader;
use crate::schedule::config::{name_of, named};
use crate::schedule::{Limit, Limited, Schedule, Step};
use crate::weights::WeightsError;

/// The function B(h) of a step's length in log-SNR that the paper leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bh {
    /// B(h) = h (`bh1`).
    Linear,
    /// B(h) = e^h - 1 (`bh2`).
    Exponential,
}

/// How UniPC steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solver {
    /// Order of the prediction, 1 to 3: how many of the network's answers it rests on. The correction is of one more.
    pub order: usize,
    /// The function B(h).
    pub bh: Bh,
    /// Follows the clean sample; otherwise the noise.
    pub predict_x0: bool,
    /// The last steps are of lower order.
    pub lower_order_final: bool,
    /// Steps, from 0, whose prediction is not corrected.
    pub uncorrected: Vec<usize>,
    /// The last step goes to the clean sample; otherwise to time 0.
    pub to_clean: bool,
}

impl Default for Solver {
    fn default() -> Self {
        Self {
            order: 2,
            bh: Bh::Exponential,
            predict_x0: true,
            lower_order_final: true,
            uncorrected: Vec::new(),
            to_clean: true,
        }
    }
}

/// The names of B(h); those of other solvers stand for `bh2`, as there.
const BH: [(&str, Bh); 5] = [
    ("bh1", Bh::Linear),
    ("bh2", Bh::Exponential),
    ("midpoint", Bh::Exponential),
    ("heun", Bh::Exponential),
    ("logrho", Bh::Exponential),
];
/// Where the last step goes.
const ENDS: [(&str, bool); 2] = [("zero", true), ("sigma_min", false)];

impl Solver {
    /// Reads the fields of that class.
    pub(crate) fn read(read: &Reader<'_>) -> Result<Self, WeightsError> {
        let default = Self::default();
        read.refuse_unless("solver_p", &[Value::Null])?;
        let order = read.integer("solver_order", default.order as i64)?;
        if !(1..=3).contains(&order) {
            return Err(read.error(format!("solver_order: {order} is not implemented (only 1 to 3)")));
        }
        let uncorrected = match read.value.get("disable_corrector") {
            None => Vec::new(),
            Some(_) => read.integers("disable_corrector", None)?,
        };
        Ok(Self {
            order: order as usize,
            bh: named(read, "solver_type", "bh2", &BH)?,
            predict_x0: read.boolean("predict_x0", default.predict_x0)?,
            lower_order_final: read.boolean("lower_order_final", default.lower_order_final)?,
            // a step before the first does not exist
            uncorrected: uncorrected.into_iter().filter_map(|step| usize::try_from(step).ok()).collect(),
            to_clean: named(read, "final_sigmas_type", "zero", &ENDS)?,
        })
    }

    /// Adds these fields to a configuration.
    pub(crate) fn write(&self, config: &mut Value) {
        config["disable_corrector"] = json!(self.uncorrected);
        config["final_sigmas_type"] = name_of(self.to_clean, &ENDS).into();
        config["lower_order_final"] = self.lower_order_final.into();
        config["predict_x0"] = self.predict_x0.into();
        config["solver_order"] = self.order.into();
        config["solver_type"] = name_of(self.bh, &BH).into();
    }
}

/// One step of a sampler that remembers, as linear maps. What it remembers of a step is the clean sample, or the noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multistep {
    /// Noise = `[0]` sample + `[1]` output, if it is noise that is remembered.
    pub(crate) noise: Option<[f64; 2]>,
    /// Corrected sample, from the one the last step began with. None in the first step, and where nothing is corrected.
    correct: Option<Weights>,
    /// Next sample, from the corrected one.
    predict: Weights,
}

/// A sum of a sample, what is seen at present, and what was seen in the steps before, latest first.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Weights {
    start: f64,
    present: f64,
    past: [f64; 3],
}

impl Weights {
    fn are_finite(&self) -> bool {
        [self.start, self.present].iter().chain(&self.past).all(|weight| weight.is_finite())
    }
}

/// What a sampling run remembers between steps; nothing for samplers without memory.
#[derive(Debug, Default)]
pub struct Walk {
    /// The corrected sample the last step began with.
    start: Option<Tensor>,
    /// What was seen in the steps before, latest first.
    past: [Option<Tensor>; 3],
}

impl Walk {
    /// Corrects and predicts; `present` is the clean sample of this step, or its noise.
    pub(crate) fn advance(&mut self, step: &Multistep, sample: &Tensor, present: Tensor) -> Tensor {
        let sum = |start: &Tensor, weights: &Weights| {
            let near = start * weights.start + &present * weights.present;
            self.past.iter().zip(weights.past).fold(near, |sum, (part, weight)| match part {
                Some(part) if weight != 0.0 => sum + part * weight,
                _ => sum,
            })
        };
        let start = match (&step.correct, &self.start) {
            (Some(correct), Some(start)) => sum(start, correct),
            _ => sample.shallow_clone(),
        };
        let next = sum(&start, &step.predict);
        self.start = Some(start);
        self.past.rotate_right(1);
        self.past[0] = Some(present);
        next
    }
}

/// The share of the clean sample's variance that stands in place of none: the smallest positive half-precision number.
const LEAST: f64 = 1.0 / (1u64 << 24) as f64;

/// A place on the noise schedule.
#[derive(Clone, Copy)]
struct Place {
    signal: f64,
    noise: f64,
    /// ln(signal / noise), infinity for the clean sample.
    lambda: f64,
}

impl Place {
    fn new(alpha_cumprod: f64) -> Self {
        let (signal, noise) = (alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).sqrt());
        Self { signal, noise, lambda: signal.ln() - noise.ln() }
    }
}

/// What the formulas take of a step from one place to another.
struct Stride {
    /// Weight of the sample it begins with.
    start: f64,
    /// Weight of what is seen, were it the same all along.
    gain: f64,
    /// Weight of what it changes by.
    lean: f64,
    /// Its length in log-SNR.
    h: f64,
    /// The right sides of the conditions of each order.
    b: [f64; 3],
}

impl Stride {
    fn between(from: Place, to: Place, solver: &Solver) -> Self {
        let h = to.lambda - from.lambda;
        // of clean samples and of noise the formulas are mirror images
        let (z, start, scale) = match solver.predict_x0 {
            true => (-h, to.noise / from.noise, -to.signal),
            false => (h, to.signal / from.signal, -to.noise),
        };
        let growth = z.exp_m1();
        let unit = match solver.bh {
            Bh::Linear => z,
            Bh::Exponential => growth,
        };
        let (mut phi, mut factorial) = (growth / z - 1.0, 1.0);
        let b = std::array::from_fn(|i| {
            let b = phi * factorial / unit;
            factorial *= (i + 2) as f64;
            phi = phi / z - 1.0 / factorial;
            b
        });
        Self { start, gain: scale * growth, lean: scale * unit, h, b }
    }

    /// The prediction of what lies at this stride's end; `back` are the lengths from its begin to the steps before,
    /// latest first.
    fn predict(&self, back: &[f64]) -> Weights {
        let ratios: Vec<f64> = back.iter().map(|length| length / self.h).collect();
        let shares = match ratios.len() {
            // the published simplification
            1 => vec![0.5],
            count => conditions(&ratios, &self.b[..count]),
        };
        let mut past = [0.0; 3];
        for (weight, (share, ratio)) in past.iter_mut().zip(shares.iter().zip(&ratios)) {
            *weight = self.lean * share / ratio;
        }
        Weights { start: self.start, present: self.gain - past.iter().sum::<f64>(), past }
    }

    /// The correction of the sample at this stride's end, after the network was asked there.
    fn correct(&self, back: &[f64]) -> Weights {
        let ratios: Vec<f64> = std::iter::once(1.0).chain(back.iter().map(|length| length / self.h)).collect();
        let shares = match back.len() {
            0 => vec![0.5],
            _ => conditions(&ratios, &self.b[..ratios.len()]),
        };
        let mut past = [0.0; 3];
        let mut moved = 0.0;
        for (weight, (share, ratio)) in past[1..].iter_mut().zip(shares.iter().zip(&ratios).skip(1)) {
            *weight = self.lean * share / ratio;
            moved += share / ratio;
        }
        past[0] = self.gain - self.lean * (moved + shares[0]);
        Weights { start: self.start, present: self.lean * shares[0], past }
    }
}

/// The numbers whose sums, weighted with the powers 0, 1, .. of `nodes`, are `sums` (Bjorck & Pereyra 1970).
fn conditions(nodes: &[f64], sums: &[f64]) -> Vec<f64> {
    let (mut x, n) = (sums.to_vec(), nodes.len());
    for k in 0..n.saturating_sub(1) {
        for i in (k + 1..n).rev() {
            x[i] -= nodes[k] * x[i - 1];
        }
    }
    for k in (0..n.saturating_sub(1)).rev() {
        for i in k + 1..n {
            x[i] /= nodes[i] - nodes[i - k - 1];
        }
        for i in k..n - 1 {
            x[i] -= x[i + 1];
        }
    }
    x
}

/// The steps of a run that visits `times`, latest first, and then the clean sample or time 0.
pub(crate) fn plan(schedule: &Schedule, times: &[i64]) -> Result<Vec<Step>, String> {
    let (config, count) = (&schedule.config, times.len());
    let solver = &config.solver;
    let share = |t: i64| match t as usize + 1 == schedule.alphas_cumprod.len() && config.zero_terminal_snr {
        true => LEAST,
        false => schedule.alphas_cumprod[t as usize],
    };
    let mut places: Vec<Place> = times.iter().map(|t| Place::new(share(*t))).collect();
    places.push(Place::new(if solver.to_clean { 1.0 } else { schedule.alphas_cumprod[0] }));
    // as many steps as there are to look back to, and towards the end no more than are left
    let order = |k: usize| {
        let left = if solver.lower_order_final { count - k } else { solver.order };
        (k + 1).min(left).min(solver.order)
    };
    let stride = |k: usize| Stride::between(places[k], places[k + 1], solver);
    let back = |k: usize| -> Vec<f64> { (1..order(k)).map(|i| places[k - i].lambda - places[k].lambda).collect() };
    let limit = config.limit.filter(|limit| matches!(limit, Limit::Quantile { .. }));
    let mut plan = Vec::with_capacity(count);
    for (k, &t) in times.iter().enumerate() {
        let (x0, noise) = schedule.maps_at(t, share(t))?;
        let is_corrected = k > 0 && !solver.uncorrected.contains(&(k - 1));
        let correct = is_corrected.then(|| stride(k - 1).correct(&back(k - 1)));
        let predict = stride(k).predict(&back(k));
        if ![Some(predict), correct].iter().flatten().all(Weights::are_finite) {
            return Err(format!(
                "step {} of {count} of UniPC, at time {t}, has no finite coefficients: with final_sigmas_type `zero` the last step \
                 needs predict_x0 and lower_order_final, and no two steps may be at the same time",
                k + 1
            ));
        }
        let noise = (!solver.predict_x0).then_some(noise);
        let multistep = Some(Multistep { noise, correct, predict });
        let limited = limit.map(|limit| Limited { limit, next: [f64::NAN; 3] });
        plan.push(Step { t, x0, next: [f64::NAN; 2], noise_std: 0.0, multistep, limited });
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;
    use crate::schedule::{Prediction, Sampler, ScheduleConfig, Spacing};
    use tch::Kind;

    /// Follows a plan where the network knows the answer for data N(mean, 0.25), the exact clean sample expected there;
    /// gives the error at the last time visited. The step from there to the clean sample is of first order for every
    /// sampler.
    fn follow(schedule: &Schedule, sampler: Sampler, steps: usize) -> f64 {
        let plan = schedule.plan(sampler, steps).unwrap();
        let (mean, deviation) = (0.7, 0.5f64);
        let mut x = init::normal(5, 5, &[64]).to_kind(Kind::Double);
        let begin = x.copy();
        let mut walk = Walk::default();
        let (last, visited) = plan.split_last().unwrap();
        for step in visited {
            let a = schedule.alphas_cumprod[step.t as usize];
            let (signal, variance) = (a.sqrt(), a * deviation * deviation + 1.0 - a);
            let x0 = (&x - mean * signal) * (signal * deviation * deviation / variance) + mean;
            // the output whose clean sample this is
            let output = (x0 - &x * step.x0[0]) / step.x0[1];
            x = step.advance(&x, &output, None, &mut walk);
        }
        // the flow of this process is affine: what stays is how many deviations x lies from the mean
        let [first, end] = [plan[0].t, last.t].map(|t| schedule.alphas_cumprod[t as usize]);
        let spread = |a: f64| (a * deviation * deviation + 1.0 - a).sqrt();
        let exact = (begin - mean * first.sqrt()) * (spread(end) / spread(first)) + mean * end.sqrt();
        (x - exact).abs().max().double_value(&[])
    }

    #[test]
    fn it_follows_the_exact_flow_closer_than_ddim_also_from_pure_noise() {
        for zero_terminal_snr in [false, true] {
            for prediction in [Prediction::Velocity, Prediction::Sample] {
                let schedule = Schedule::new(&ScheduleConfig { zero_terminal_snr, prediction, ..Default::default() });
                let errors = |sampler| [10, 20, 40].map(|steps| follow(&schedule, sampler, steps));
                let (unipc, ddim) = (errors(Sampler::UniPc), errors(Sampler::Ddim { eta: 0.0 }));
                let what = format!("{zero_terminal_snr} {prediction:?}: {unipc:?} {ddim:?}");
                assert!(unipc.iter().zip(ddim).all(|(u, d)| *u < 0.2 * d), "{what}");
            }
        }
    }

    /// Worked out in f64 from the paper's formulas, with the conditions solved by elimination.
    #[test]
    fn every_setting_ends_where_its_formulas_do() {
        let solver = Solver::default;
        let to_time_0 = || Solver { to_clean: false, ..Solver::default() };
        let plain = ScheduleConfig { zero_terminal_snr: false, spacing: Spacing::Linspace, ..Default::default() };
        for (solver, expected) in [
            (solver(), 0.212737088818),
            (Solver { order: 1, ..solver() }, 0.104731432370),
            (Solver { order: 3, ..solver() }, 0.219474204161),
            (Solver { bh: Bh::Linear, ..solver() }, 0.268777976729),
            (Solver { order: 3, bh: Bh::Linear, ..solver() }, 0.278025053906),
            (Solver { uncorrected: vec![0, 2], ..solver() }, 0.142836707937),
            (to_time_0(), 0.224800363318),
            (Solver { lower_order_final: false, ..to_time_0() }, -0.411268337297),
            (Solver { order: 3, lower_order_final: false, ..to_time_0() }, -6.090552196948),
            (Solver { predict_x0: false, ..to_time_0() }, 0.074468997887),
            (Solver { predict_x0: false, order: 3, bh: Bh::Linear, ..to_time_0() }, 0.039113283848),
        ] {
            let schedule = Schedule::new(&ScheduleConfig { solver: solver.clone(), ..plain.clone() });
            let (mut x, mut walk) = (Tensor::from_slice(&[0.3f64]), Walk::default());
            let outputs = [0.4, -0.3, 0.2, 0.1, -0.5, 0.6];
            for (step, output) in schedule.plan(Sampler::UniPc, 6).unwrap().iter().zip(outputs) {
                x = step.advance(&x, &Tensor::from_slice(&[output]), None, &mut walk);
            }
            assert!((x.double_value(&[0]) - expected).abs() < 1e-10, "{solver:?}: {x:?}");
        }
    }

    #[test]
    fn a_last_step_without_an_end_is_refused() {
        for solver in [
            Solver { lower_order_final: false, ..Solver::default() },
            Solver { predict_x0: false, ..Solver::default() },
        ] {
            let schedule = Schedule::new(&ScheduleConfig { solver, ..Default::default() });
            assert!(schedule.plan(Sampler::UniPc, 8).unwrap_err().contains("step 8 of 8"));
        }
    }

    #[test]
    fn little_signal_is_left_as_it_is_where_the_end_is_not_rescaled() {
        use crate::schedule::BetaSchedule;
        let cosine = ScheduleConfig { beta_schedule: BetaSchedule::SquaredCosine, ..Default::default() };
        let first = |zero_terminal_snr: bool| {
            let schedule = Schedule::new(&ScheduleConfig { zero_terminal_snr, ..cosine.clone() });
            (schedule.plan(Sampler::UniPc, 4).unwrap()[0].x0[0].powi(2), schedule.alphas_cumprod[999])
        };
        let (used, known) = first(false);
        assert!(known < LEAST && (used / known - 1.0).abs() < 1e-12);
        assert!((first(true).0 / LEAST - 1.0).abs() < 1e-12);
    }

    #[test]
    fn thresholds_limit_what_is_remembered() {
        let limit = Some(Limit::Quantile { ratio: 1.0, largest: 1.0 });
        let schedule = Schedule::new(&ScheduleConfig { limit, zero_terminal_snr: false, ..Default::default() });
        let (mut x, mut walk) = (init::normal(1, 1, &[1, 8]) * 3.0, Walk::default());
        for step in schedule.plan(Sampler::UniPc, 3).unwrap() {
            x = step.advance(&x, &(init::normal(1, 2, &[1, 8]) * 3.0), None, &mut walk);
        }
        // the last step goes to the clean sample
        assert_eq!(x.abs().max().double_value(&[]), 1.0);
    }

    #[test]
    fn one_step_is_that_of_ddim() {
        let config = ScheduleConfig { set_alpha_to_one: true, zero_terminal_snr: false, ..ScheduleConfig::default() };
        let schedule = Schedule::new(&config);
        let (x, out) = (init::normal(1, 1, &[4]), init::normal(1, 2, &[4]));
        let run = |sampler| schedule.plan(sampler, 1).unwrap()[0].advance(&x, &out, None, &mut Walk::default());
        assert_eq!(run(Sampler::UniPc), run(Sampler::Ddim { eta: 0.0 }));
    }

    #[test]
    fn it_begins_one_gap_before_the_clean_sample() {
        let times = |spacing| {
            Schedule::new(&ScheduleConfig { spacing, ..Default::default() }).timesteps(Sampler::UniPc, 4).unwrap()
        };
        assert_eq!(times(Spacing::Leading), [801, 601, 401, 201]);
        assert_eq!(times(Spacing::Linspace), [999, 749, 500, 250]);
        assert_eq!(times(Spacing::Trailing), [999, 749, 499, 249]);
    }
}
