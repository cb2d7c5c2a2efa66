//! Noise schedules and samplers: tables in f64, no network. Conventions and rounding are those of diffusers' DDPM, DDIM and
//! UniPC schedulers; zero terminal SNR after Lin et al. 2023. A sampling step is linear in the sample and the network's
//! output (UniPC's in those of the steps before it, too), so it is kept as its coefficients.

use serde_json::Value;
use tch::{Kind, Tensor};

use crate::config::Reader;
use crate::unipc;
use crate::weights::WeightsError;

pub use crate::unipc::{Multistep, Walk};

/// How the variances grow from `beta_start` to `beta_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BetaSchedule {
    /// Linearly.
    Linear,
    /// Their square roots grow linearly (Stable Diffusion).
    ScaledLinear,
}

/// What the network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// v = sqrt(abar) noise - sqrt(1 - abar) x0.
    Velocity,
    /// The clean sample.
    Sample,
}

/// Which of the training times are visited when sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// From 0 upwards in equal steps, plus `steps_offset`.
    Leading,
    /// From the last time downwards in equal steps; the one that visits T-1, as zero terminal SNR needs.
    Trailing,
    /// Both ends included.
    Linspace,
}

/// Parameters of a schedule. The default is the one of DiffusionAvatars: Stable Diffusion 2.1's betas rescaled to zero
/// terminal SNR, v-prediction, trailing spacing.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleConfig {
    /// Number of training times T.
    pub train_steps: usize,
    /// First variance.
    pub beta_start: f64,
    /// Last variance, before rescaling.
    pub beta_end: f64,
    /// Shape in between.
    pub beta_schedule: BetaSchedule,
    /// Rescale so that the last time is pure noise.
    pub zero_terminal_snr: bool,
    /// What the network predicts.
    pub prediction: Prediction,
    /// Which times sampling visits.
    pub spacing: Spacing,
    /// Added to the times of `leading` spacing.
    pub steps_offset: i64,
    /// DDIM's last step goes to the clean sample; otherwise to time 0. DDPM always goes to the clean sample.
    pub set_alpha_to_one: bool,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            train_steps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            zero_terminal_snr: true,
            prediction: Prediction::Velocity,
            spacing: Spacing::Trailing,
            steps_offset: 1,
            set_alpha_to_one: false,
        }
    }
}

impl ScheduleConfig {
    /// Reads diffusers' `scheduler_config.json`; absent fields take that library's defaults. `place` names it in errors.
    pub fn from_json(value: &Value, place: &str) -> Result<Self, WeightsError> {
        let read = Reader { value, place };
        read.refuse_unless("thresholding", &[Value::from(false)])?;
        read.refuse_unless("trained_betas", &[Value::Null])?;
        read.refuse_unless("variance_type", &[Value::from("fixed_small")])?;
        // Solvers of few steps have no such field, and count the last step among the times of a spacing.
        let class = value.get("_class_name").and_then(Value::as_str).unwrap_or_default();
        let solver =
            ["UniPC", "DPMSolver", "DEIS", "Euler", "Heun", "LMS", "KDPM"].iter().any(|name| class.starts_with(name));
        if value.get("clip_sample") != Some(&Value::from(false)) && !(solver && value.get("clip_sample").is_none()) {
            return Err(read.error("clip_sample must be given and false; clipping is not implemented".into()));
        }
        if class == "UniPCMultistepScheduler" {
            read.refuse_unless("solver_order", &[Value::from(2)])?;
            read.refuse_unless("solver_type", &[Value::from("bh2")])?;
            read.refuse_unless("predict_x0", &[Value::from(true)])?;
            read.refuse_unless("lower_order_final", &[Value::from(true)])?;
            read.refuse_unless("disable_corrector", &[Value::Array(Vec::new())])?;
            read.refuse_unless("solver_p", &[Value::Null])?;
            read.refuse_unless("final_sigmas_type", &[Value::from("zero")])?;
        }
        for key in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas"] {
            read.refuse_unless(key, &[Value::from(false), Value::Null])?;
        }
        let choice = |key: &str, default: &str| -> Result<String, WeightsError> {
            match value.get(key) {
                None => Ok(default.to_owned()),
                Some(v) => v.as_str().map(str::to_owned).ok_or_else(|| read.error(format!("{key} must be a name"))),
            }
        };
        let unknown = |key: &str, name: &str| read.error(format!("{key}: {name} is not implemented"));
        Ok(Self {
            train_steps: read.integer("num_train_timesteps", 1000)?.max(1) as usize,
            beta_start: read.number("beta_start", 0.0001)?,
            beta_end: read.number("beta_end", 0.02)?,
            beta_schedule: match choice("beta_schedule", "linear")?.as_str() {
                "linear" => BetaSchedule::Linear,
                "scaled_linear" => BetaSchedule::ScaledLinear,
                other => return Err(unknown("beta_schedule", other)),
            },
            zero_terminal_snr: read.boolean("rescale_betas_zero_snr", false)?,
            prediction: match choice("prediction_type", "epsilon")?.as_str() {
                "epsilon" => Prediction::Epsilon,
                "v_prediction" => Prediction::Velocity,
                "sample" => Prediction::Sample,
                other => return Err(unknown("prediction_type", other)),
            },
            spacing: match choice("timestep_spacing", if solver { "linspace" } else { "leading" })?.as_str() {
                "leading" => Spacing::Leading,
                "trailing" => Spacing::Trailing,
                "linspace" => Spacing::Linspace,
                other => return Err(unknown("timestep_spacing", other)),
            },
            steps_offset: read.integer("steps_offset", 0)?,
            set_alpha_to_one: read.boolean("set_alpha_to_one", true)?,
        })
    }

    /// The diffusers `scheduler_config.json` of this schedule.
    pub fn to_json(&self) -> Value {
        serde_json::json!({
            "_class_name": "DDPMScheduler",
            "beta_end": self.beta_end,
            "beta_schedule": match self.beta_schedule {
                BetaSchedule::Linear => "linear",
                BetaSchedule::ScaledLinear => "scaled_linear",
            },
            "beta_start": self.beta_start,
            "clip_sample": false,
            "num_train_timesteps": self.train_steps,
            "prediction_type": match self.prediction {
                Prediction::Epsilon => "epsilon",
                Prediction::Velocity => "v_prediction",
                Prediction::Sample => "sample",
            },
            "rescale_betas_zero_snr": self.zero_terminal_snr,
            "set_alpha_to_one": self.set_alpha_to_one,
            "steps_offset": self.steps_offset,
            "timestep_spacing": match self.spacing {
                Spacing::Leading => "leading",
                Spacing::Trailing => "trailing",
                Spacing::Linspace => "linspace",
            },
        })
    }
}

/// A sampler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampler {
    /// Ancestral sampling with the smaller of the two usual variances ("fixed small").
    Ddpm,
    /// Song et al. 2020; `eta` 0 is deterministic, 1 has the noise of DDPM.
    Ddim {
        /// Share of the ancestral noise.
        eta: f64,
    },
    /// Zhao et al. 2023, of second order: few steps, no noise. See `unipc.rs`.
    UniPc,
}

/// One sampling step as a linear map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Time the network is asked at.
    pub t: i64,
    /// Clean sample = `x0[0]` sample + `x0[1]` output.
    pub x0: [f64; 2],
    /// Next sample = `next[0]` sample + `next[1]` output + `noise_std` noise.
    pub next: [f64; 2],
    /// Standard deviation of the noise added; 0 for none.
    pub noise_std: f64,
    /// What a sampler that remembers does in place of `next`.
    pub multistep: Option<Multistep>,
}

impl Step {
    /// The clean sample that the network's output amounts to.
    pub fn pred_x0(&self, sample: &Tensor, output: &Tensor) -> Tensor {
        sample * self.x0[0] + output * self.x0[1]
    }

    /// The next sample. `noise` is standard normal and not looked at where `noise_std` is 0. `walk` is the sampling run's
    /// own, from its first step on.
    pub fn advance(&self, sample: &Tensor, output: &Tensor, noise: Option<&Tensor>, walk: &mut Walk) -> Tensor {
        if let Some(multistep) = &self.multistep {
            return walk.advance(multistep, sample, self.pred_x0(sample, output));
        }
        let mean = sample * self.next[0] + output * self.next[1];
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
        let n = config.train_steps;
        let at = |i: usize| if n > 1 { i as f64 / (n - 1) as f64 } else { 0.0 };
        let between = |a: f64, b: f64, i: usize| a + (b - a) * at(i);
        let plain: Vec<f64> = (0..n)
            .map(|i| match config.beta_schedule {
                BetaSchedule::Linear => between(config.beta_start, config.beta_end, i),
                BetaSchedule::ScaledLinear => between(config.beta_start.sqrt(), config.beta_end.sqrt(), i).powi(2),
            })
            .collect();
        let alphas_cumprod = cumulative(&plain);
        let (betas, alphas_cumprod) = match config.zero_terminal_snr {
            true => zero_terminal_snr(&alphas_cumprod),
            false => (plain, alphas_cumprod),
        };
        Self { config: config.clone(), betas, alphas_cumprod }
    }

    /// The times that `steps` sampling steps visit, latest first. UniPC's leading and linspace spacings also count the step
    /// to the clean sample, so they begin elsewhere than those of DDPM and DDIM.
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
        self.maps_at(t, 0.0)
    }

    /// The same, with a share of the clean sample that is at least `least`.
    pub(crate) fn maps_at(&self, t: i64, least: f64) -> Result<([f64; 2], [f64; 2]), String> {
        let a = self.alphas_cumprod[t as usize];
        if a == 0.0 && self.config.prediction == Prediction::Epsilon {
            return Err(format!("a noise prediction at time {t}, where nothing but noise is left, says nothing"));
        }
        let a = a.max(least);
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
        let combine = |u: f64, v: f64, w: f64| [u * x0[0] + v * eps[0] + w, u * x0[1] + v * eps[1]];
        // At time 0 of an unscaled table nothing is left to add noise to.
        let (next, noise_std) = match sampler {
            Sampler::Ddpm => {
                let keep = a / p;
                let variance = (1.0 - p) / (1.0 - a) * (1.0 - keep);
                let next = combine(p.sqrt() * (1.0 - keep) / (1.0 - a), 0.0, keep.sqrt() * (1.0 - p) / (1.0 - a));
                (next, if t > 0 { variance.sqrt() } else { 0.0 })
            }
            Sampler::Ddim { eta } => {
                let variance = (1.0 - p) / (1.0 - a) * (1.0 - a / p);
                let noise_std = eta * variance.sqrt();
                let direction = (1.0 - p - noise_std * noise_std).max(0.0).sqrt();
                (combine(p.sqrt(), direction, 0.0), noise_std)
            }
            Sampler::UniPc => panic!("a step of UniPC depends on those before it: ask for a plan"),
        };
        Ok(Step { t, x0, next, noise_std, multistep: None })
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

/// Betas and cumulative products moved so that the last product is exactly 0 and the first is unchanged (Lin et al. 2023,
/// algorithm 1).
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

    #[test]
    fn impossible_requests_are_refused() {
        let leading = ScheduleConfig { spacing: Spacing::Leading, ..Default::default() };
        assert!(Schedule::new(&leading).timesteps(Sampler::Ddpm, 1000).unwrap_err().contains("1000"));
        assert!(Schedule::new(&leading).timesteps(Sampler::Ddpm, 0).is_err());
        let blind = ScheduleConfig { prediction: Prediction::Epsilon, ..Default::default() };
        for sampler in [Sampler::Ddpm, Sampler::Ddim { eta: 0.0 }, Sampler::UniPc] {
            assert!(Schedule::new(&blind).plan(sampler, 10).unwrap_err().contains("nothing but noise"), "{sampler:?}");
        }
    }
}
