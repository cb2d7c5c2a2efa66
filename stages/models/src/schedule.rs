//! Noise schedules and samplers: tables in f64, no network. Conventions and rounding are those of diffusers' DDPM, DDIM
//! and UniPC schedulers; zero terminal SNR after Lin et al. 2023. A sampling step is linear in the sample and the
//! network's output (UniPC's in those of the steps before it, too), so it is kept as its coefficients; where clean
//! samples are limited, in the limited one beside.

use std::f64::consts::FRAC_PI_2;

use tch::{Kind, Tensor};

use crate::unipc;

pub use crate::unipc::{Bh, Multistep, Solver, Walk};
pub use config::{BetaSchedule, Limit, Prediction, ScheduleConfig, Spacing, Variance};

pub(crate) mod config;

/// A sampler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampler {
    /// Ancestral sampling; [`Variance`] says with how much noise.
    Ddpm,
    /// Song et al. 2020; `eta` 0 is deterministic, 1 has the noise of DDPM.
    Ddim {
        /// Share of the ancestral noise.
        eta: f64,
    },
    /// Zhao et al. 2023: few steps, no noise. [`Solver`] says how; see `unipc.rs`.
    UniPc,
}

/// One sampling step as a linear map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Time the network is asked at.
    pub t: i64,
    /// Clean sample = `x0[0]` sample + `x0[1]` output, before it is limited.
    pub x0: [f64; 2],
    /// Next sample = `next[0]` sample + `next[1]` output + `noise_std` noise, if clean samples are not limited.
    pub next: [f64; 2],
    /// Standard deviation of the noise added; 0 for none.
    pub noise_std: f64,
    /// What a sampler that remembers does in place of `next`.
    pub multistep: Option<Multistep>,
    /// What a step with limited clean samples does in place of `next`.
    pub limited: Option<Limited>,
}

/// A step that limits the clean sample first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limited {
    /// What becomes of the clean sample.
    pub limit: Limit,
    /// Next sample = `next[0]` limited clean sample + `next[1]` sample + `next[2]` output + `noise_std` noise.
    pub next: [f64; 3],
}

impl Step {
    /// The clean sample that the network's output amounts to, limited.
    pub fn pred_x0(&self, sample: &Tensor, output: &Tensor) -> Tensor {
        let x0 = sample * self.x0[0] + output * self.x0[1];
        match &self.limited {
            Some(limited) => limited.limit.apply(&x0),
            None => x0,
        }
    }

    /// The next sample. `noise` is standard normal and not looked at where `noise_std` is 0. `walk` is the sampling
    /// run's own, from its first step on.
    pub fn advance(&self, sample: &Tensor, output: &Tensor, noise: Option<&Tensor>, walk: &mut Walk) -> Tensor {
        if let Some(multistep) = &self.multistep {
            let seen = match multistep.noise {
                Some(noise) => sample * noise[0] + output * noise[1],
                None => self.pred_x0(sample, output),
            };
            return walk.advance(multistep, sample, seen);
        }
        let mean = match &self.limited {
            None => sample * self.next[0] + output * self.next[1],
            Some(Limited { next, .. }) => self.pred_x0(sample, output) * next[0] + sample * next[1] + output * next[2],
        };
        match noise {
            Some(noise) if self.noise_std > 0.0 => mean + noise * self.noise_std,
            _ => mean,
        }
    }
}

/// A noise schedule with its tables.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its parameters.
    pub config: ScheduleConfig,
    /// Variance added at each time.
    pub betas: Vec<f64>,
    /// Product of (1 - beta) up to each time: the share of the clean sample's variance that is left.
    pub alphas_cumprod: Vec<f64>,
}

impl Schedule {
    /// Computes the tables.
    pub fn new(config: &ScheduleConfig) -> Self {
        let plain = betas(config);
        let alphas_cumprod = cumulative(&plain);
        let (betas, alphas_cumprod) = match config.zero_terminal_snr {
            true => zero_terminal_snr(&alphas_cumprod),
            false => (plain, alphas_cumprod),
        };
        Self { config: config.clone(), betas, alphas_cumprod }
    }

    /// The times that `steps` sampling steps visit, latest first. UniPC's leading and linspace spacings also count the
    /// step to the clean sample, so they begin elsewhere than those of DDPM and DDIM.
    pub fn timesteps(&self, sampler: Sampler, steps: usize) -> Result<Vec<i64>, String> {
        let n = self.config.train_steps;
        if steps == 0 || steps > n {
            return Err(format!("{steps} sampling steps asked for; 1 to {n} are possible"));
        }
        let mut times: Vec<i64> = match self.config.spacing {
            Spacing::Leading if sampler == Sampler::UniPc => {
                let ratio = (n / (steps + 1)) as i64;
                (1..=steps as i64).rev().map(|i| i * ratio + self.config.steps_offset).collect()
            }
            Spacing::Linspace if sampler == Sampler::UniPc => {
                let gap = (n - 1) as f64 / steps as f64;
                (1..=steps).rev().map(|i| (i as f64 * gap).round_ties_even() as i64).collect()
            }
            Spacing::Leading => {
                let ratio = (n / steps) as i64;
                (0..steps as i64).rev().map(|i| i * ratio + self.config.steps_offset).collect()
            }
            Spacing::Trailing => {
                let ratio = n as f64 / steps as f64;
                // The increment as a range in f64 has it: exact multiples of `ratio` can round the other way.
                let delta = (n as f64 - ratio) - n as f64;
                let count = (n as f64 / ratio).ceil() as usize;
                (0..count).map(|i| (n as f64 + i as f64 * delta).round_ties_even() as i64 - 1).collect()
            }
            Spacing::Linspace => {
                let gap = if steps > 1 { (n - 1) as f64 / (steps - 1) as f64 } else { 0.0 };
                (0..steps).rev().map(|i| (i as f64 * gap).round_ties_even() as i64).collect()
            }
        };
        times.truncate(steps);
        match times.iter().find(|&&t| t < 0 || t >= n as i64) {
            Some(bad) => Err(format!("{steps} steps with this spacing and offset would visit time {bad} of 0..{n}")),
            None => Ok(times),
        }
    }

    /// All steps of a sampling run, in order.
    pub fn plan(&self, sampler: Sampler, steps: usize) -> Result<Vec<Step>, String> {
        let times = self.timesteps(sampler, steps)?;
        if sampler == Sampler::UniPc {
            return unipc::plan(self, &times);
        }
        let stride = (self.config.train_steps / steps) as i64;
        let mut plan = Vec::with_capacity(times.len());
        for (k, &t) in times.iter().enumerate() {
            let previous = match sampler {
                Sampler::Ddim { .. } => t - stride,
                _ => times.get(k + 1).copied().unwrap_or(-1),
            };
            plan.push(self.step(sampler, t, previous)?);
        }
        Ok(plan)
    }

    /// Clean sample and noise at time `t`, each as a linear map of (sample, output).
    ///
    /// # Errors
    /// If the network predicts noise and there is nothing else at that time.
    pub fn maps(&self, t: i64) -> Result<([f64; 2], [f64; 2]), String> {
        self.maps_at(t, self.alphas_cumprod[t as usize])
    }

    /// The same, with `a` for the share of the clean sample's variance.
    pub(crate) fn maps_at(&self, t: i64, a: f64) -> Result<([f64; 2], [f64; 2]), String> {
        if a == 0.0 && self.config.prediction == Prediction::Epsilon {
            return Err(format!("a noise prediction at time {t}, where nothing but noise is left, says nothing"));
        }
        let (signal, noise) = (a.sqrt(), (1.0 - a).sqrt());
        match self.config.prediction {
            Prediction::Velocity => Ok(([signal, -noise], [noise, signal])),
            Prediction::Sample => Ok(([0.0, 1.0], [1.0 / noise, -signal / noise])),
            Prediction::Epsilon => Ok(([1.0 / signal, -noise / signal], [0.0, 1.0])),
        }
    }

    /// The step of DDPM or DDIM from time `t` to time `previous`, which is negative past the end.
    ///
    /// # Panics
    /// For [`Sampler::UniPc`], whose steps do not stand alone.
    pub fn step(&self, sampler: Sampler, t: i64, previous: i64) -> Result<Step, String> {
        let a = self.alphas_cumprod[t as usize];
        let end = match sampler {
            Sampler::Ddim { .. } if !self.config.set_alpha_to_one => self.alphas_cumprod[0],
            _ => 1.0,
        };
        let p = if previous >= 0 { self.alphas_cumprod[previous as usize] } else { end };
        let (x0, eps) = self.maps(t)?;
        // Next sample = u clean sample + v noise + w sample. At time 0 of an unscaled table nothing is left to add
        // noise to.
        let (u, v, w, noise_std) = match sampler {
            Sampler::Ddpm => {
                let keep = a / p;
                let variance = match self.config.variance {
                    Variance::FixedSmall => (1.0 - p) / (1.0 - a) * (1.0 - keep),
                    Variance::FixedLarge => 1.0 - keep,
                };
                let (u, w) = (p.sqrt() * (1.0 - keep) / (1.0 - a), keep.sqrt() * (1.0 - p) / (1.0 - a));
                (u, 0.0, w, if t > 0 { variance.sqrt() } else { 0.0 })
            }
            Sampler::Ddim { eta } => {
                let variance = (1.0 - p) / (1.0 - a) * (1.0 - a / p);
                let noise_std = eta * variance.sqrt();
                let direction = (1.0 - p - noise_std * noise_std).max(0.0).sqrt();
                (p.sqrt(), direction, 0.0, noise_std)
            }
            Sampler::UniPc => panic!("a step of UniPC depends on those before it: ask for a plan"),
        };
        let next = [u * x0[0] + v * eps[0] + w, u * x0[1] + v * eps[1]];
        // The noise is that of the clean sample before it was limited.
        let limited = self.config.limit.map(|limit| Limited { limit, next: [u, v * eps[0] + w, v * eps[1]] });
        Ok(Step { t, x0, next, noise_std, multistep: None, limited })
    }

    /// sqrt(abar) x0 + sqrt(1 - abar) noise, with one time per sample.
    pub fn add_noise(&self, x0: &Tensor, noise: &Tensor, t: &[i64]) -> Tensor {
        let (signal, scale) = self.scales(t, x0);
        x0 * signal + noise * scale
    }

    /// v = sqrt(abar) noise - sqrt(1 - abar) x0.
    pub fn velocity(&self, x0: &Tensor, noise: &Tensor, t: &[i64]) -> Tensor {
        let (signal, scale) = self.scales(t, x0);
        noise * signal - x0 * scale
    }

    /// What the network should say.
    pub fn target(&self, x0: &Tensor, noise: &Tensor, t: &[i64]) -> Tensor {
        match self.config.prediction {
            Prediction::Epsilon => noise.shallow_clone(),
            Prediction::Velocity => self.velocity(x0, noise, t),
            Prediction::Sample => x0.shallow_clone(),
        }
    }

    /// sqrt(abar) and sqrt(1 - abar), shaped to multiply `like` `[B, ...]`.
    fn scales(&self, t: &[i64], like: &Tensor) -> (Tensor, Tensor) {
        let mut shape = vec![1; like.dim()];
        shape[0] = t.len() as i64;
        let column = |f: &dyn Fn(f64) -> f64| {
            let values: Vec<f64> = t.iter().map(|&t| f(self.alphas_cumprod[t as usize])).collect();
            Tensor::from_slice(&values).view(shape.as_slice()).to_kind(like.kind()).to_device(like.device())
        };
        (column(&|a| a.sqrt()), column(&|a| (1.0 - a).sqrt()))
    }
}

/// Times as a tensor for the network, `[B]` i64.
pub fn time_tensor(t: &[i64], like: &Tensor) -> Tensor {
    Tensor::from_slice(t).to_kind(Kind::Int64).to_device(like.device())
}

/// The variances before rescaling.
fn betas(config: &ScheduleConfig) -> Vec<f64> {
    if let Some(betas) = &config.trained_betas {
        return betas.clone();
    }
    let n = config.train_steps;
    let at = |i: usize| if n > 1 { i as f64 / (n - 1) as f64 } else { 0.0 };
    let between = |a: f64, b: f64, i: usize| a + (b - a) * at(i);
    let share = |i: usize| ((i as f64 / n as f64 + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
    (0..n)
        .map(|i| match config.beta_schedule {
            BetaSchedule::Linear => between(config.beta_start, config.beta_end, i),
            BetaSchedule::ScaledLinear => between(config.beta_start.sqrt(), config.beta_end.sqrt(), i).powi(2),
            BetaSchedule::SquaredCosine => (1.0 - share(i + 1) / share(i)).min(0.999),
        })
        .collect()
}

/// Betas and cumulative products moved so that the last product is exactly 0 and the first is unchanged (Lin et al.
/// 2023, algorithm 1).
fn zero_terminal_snr(alphas_cumprod: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let roots: Vec<f64> = alphas_cumprod.iter().map(|a| a.sqrt()).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let products: Vec<f64> = roots.iter().map(|r| ((r - last) * first / (first - last)).powi(2)).collect();
    let betas = (0..products.len())
        .map(|i| if i == 0 { 1.0 - products[0] } else { 1.0 - products[i] / products[i - 1] })
        .collect();
    (betas, products)
}

fn cumulative(betas: &[f64]) -> Vec<f64> {
    betas
        .iter()
        .scan(1.0, |product, beta| {
            *product *= 1.0 - beta;
            Some(*product)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;

    #[test]
    fn the_last_time_is_pure_noise_and_the_first_step_ignores_the_sample() {
        let schedule = Schedule::new(&ScheduleConfig::default());
        assert_eq!(schedule.alphas_cumprod[999], 0.0);
        assert_eq!(schedule.betas[999], 1.0);
        let plan = schedule.plan(Sampler::Ddpm, 20).unwrap();
        assert_eq!((plan[0].t, plan[19].t), (999, 49));
        assert_eq!((plan[0].x0, plan[0].next[0]), ([0.0, -1.0], 0.0));
        assert_eq!(plan[19].noise_std, 0.0);
    }

    #[test]
    fn predictions_are_inverses_of_the_forward_process() {
        for prediction in [Prediction::Velocity, Prediction::Epsilon, Prediction::Sample] {
            let config = ScheduleConfig { prediction, zero_terminal_snr: false, ..Default::default() };
            let schedule = Schedule::new(&config);
            let (x0, noise) = (init::normal(0, 0, &[1, 8]), init::normal(0, 1, &[1, 8]));
            for t in [0, 500, 999] {
                let x = schedule.add_noise(&x0, &noise, &[t]);
                let step = schedule.step(Sampler::Ddim { eta: 0.0 }, t, -1).unwrap();
                let error = step.pred_x0(&x, &schedule.target(&x0, &noise, &[t])) - &x0;
                assert!(error.abs().max().double_value(&[]) < 2e-5, "{prediction:?} {t}");
            }
        }
    }

    /// A schedule with signal left at its last time, and numbers for a sample and an output that go beyond +-1.
    fn sampled(limit: Option<Limit>, spacing: Spacing) -> (Schedule, Tensor, Tensor) {
        let config = ScheduleConfig { limit, spacing, zero_terminal_snr: false, ..Default::default() };
        let numbers = |stream: u64| init::normal(7, stream, &[2, 4, 3]).to_kind(Kind::Double) * 2.0;
        (Schedule::new(&config), numbers(0), numbers(1))
    }

    #[test]
    fn limited_clean_samples_enter_the_step_and_the_noise_stays() {
        let (schedule, x, out) = sampled(Some(Limit::Range(1.0)), Spacing::Trailing);
        let (a, p) = (schedule.alphas_cumprod[500], schedule.alphas_cumprod[400]);
        let x0 = (&x * a.sqrt() - &out * (1.0 - a).sqrt()).clamp(-1.0, 1.0);
        let noise = &x * (1.0 - a).sqrt() + &out * a.sqrt();
        let ddim = &x0 * p.sqrt() + noise * (1.0 - p).sqrt();
        let keep = a / p;
        let ddpm = &x0 * (p.sqrt() * (1.0 - keep) / (1.0 - a)) + &x * (keep.sqrt() * (1.0 - p) / (1.0 - a));
        for (sampler, expected) in [(Sampler::Ddim { eta: 0.0 }, ddim), (Sampler::Ddpm, ddpm)] {
            let step = schedule.step(sampler, 500, 400).unwrap();
            let next = step.advance(&x, &out, None, &mut Walk::default());
            assert!((next - expected).abs().max().double_value(&[]) < 1e-12, "{sampler:?}");
            assert_eq!(step.pred_x0(&x, &out).abs().max().double_value(&[]), 1.0);
        }
        // a limit that cuts nothing changes nothing
        let (free, ..) = sampled(None, Spacing::Trailing);
        let (wide, ..) = sampled(Some(Limit::Range(1e9)), Spacing::Trailing);
        for sampler in [Sampler::Ddpm, Sampler::Ddim { eta: 0.5 }, Sampler::UniPc] {
            let run = |schedule: &Schedule| {
                let (mut x, mut walk) = (x.shallow_clone(), Walk::default());
                for step in schedule.plan(sampler, 4).unwrap() {
                    x = step.advance(&x, &out, Some(&out), &mut walk);
                }
                x
            };
            assert!((run(&free) - run(&wide)).abs().max().double_value(&[]) < 1e-12, "{sampler:?}");
        }
    }

    #[test]
    fn the_larger_variance_is_that_of_the_forward_process_and_stays_to_the_end() {
        let config = ScheduleConfig { spacing: Spacing::Leading, zero_terminal_snr: false, ..Default::default() };
        let small = Schedule::new(&config).plan(Sampler::Ddpm, 10).unwrap();
        let large = Schedule::new(&ScheduleConfig { variance: Variance::FixedLarge, ..config.clone() });
        let (a, plan) = (&large.alphas_cumprod, large.plan(Sampler::Ddpm, 10).unwrap());
        assert!((plan[0].noise_std.powi(2) - (1.0 - a[901] / a[801])).abs() < 1e-12);
        assert_eq!((small[9].t, small[9].noise_std), (1, 0.0));
        assert!((plan[9].noise_std.powi(2) - (1.0 - a[1])).abs() < 1e-12);
        assert_eq!((small[0].next, small[0].x0), (plan[0].next, plan[0].x0));
    }

    #[test]
    fn tables_are_those_of_their_definitions() {
        let cosine = ScheduleConfig { beta_schedule: BetaSchedule::SquaredCosine, ..Default::default() };
        let schedule = Schedule::new(&ScheduleConfig { zero_terminal_snr: false, ..cosine });
        let share = |t: f64| ((t + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
        assert!((schedule.alphas_cumprod[499] - share(0.5) / share(0.0)).abs() < 1e-12);
        assert_eq!(schedule.betas[999], 0.999);
        let given = ScheduleConfig { train_steps: 3, trained_betas: Some(vec![0.1, 0.2, 0.5]), ..Default::default() };
        let schedule = Schedule::new(&ScheduleConfig { zero_terminal_snr: false, ..given.clone() });
        let errors = schedule.alphas_cumprod.iter().zip([0.9, 0.72, 0.36]).map(|(a, b)| (a - b).abs());
        assert!(errors.fold(0.0, f64::max) < 1e-12);
        assert_eq!(Schedule::new(&given).alphas_cumprod[2], 0.0);
    }

    #[test]
    fn impossible_requests_are_refused() {
        let leading = ScheduleConfig { spacing: Spacing::Leading, ..Default::default() };
        assert!(Schedule::new(&leading).timesteps(Sampler::Ddpm, 1000).unwrap_err().contains("1000"));
        assert!(Schedule::new(&leading).timesteps(Sampler::Ddpm, 0).is_err());
        let blind = ScheduleConfig { prediction: Prediction::Epsilon, ..Default::default() };
        for sampler in [Sampler::Ddpm, Sampler::Ddim { eta: 0.0 }] {
            assert!(Schedule::new(&blind).plan(sampler, 10).unwrap_err().contains("nothing but noise"), "{sampler:?}");
        }
        // which has a little left of the sample there
        assert!(Schedule::new(&blind).plan(Sampler::UniPc, 10).is_ok());
    }
}
