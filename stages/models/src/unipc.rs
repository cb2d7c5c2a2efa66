//! UniPC (Zhao et al. 2023), the sampler of few steps: second order, data prediction, B(h) = e^h - 1, first order in the last
//! step; the settings of diffusers' `UniPCMultistepScheduler`. Each step first corrects the sample that the last one predicted,
//! now that the network was asked there, and predicts the next. All of it is linear, so a plan holds coefficients.
//!
//! With zero terminal SNR the first step would begin at log-SNR minus infinity, which is why DiffusionAvatars does without
//! this sampler (black images). As in later releases of diffusers, 2^-24 of the clean sample's variance stands in place of zero.

use tch::Tensor;

use crate::schedule::{Schedule, Step};

/// One step of a sampler that remembers, as linear maps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multistep {
    /// Corrected sample = `[0]` sample the last step began with + `[1]` its clean sample + `[2]` that of the step before
    /// + `[3]` the present clean sample. None in the first step.
    correct: Option<[f64; 4]>,
    /// Next sample = `[0]` corrected sample + `[1]` present clean sample + `[2]` that of the last step.
    predict: [f64; 3],
}

/// What a sampling run remembers between steps; nothing for samplers without memory.
#[derive(Debug, Default)]
pub struct Walk {
    /// The corrected sample the last step began with.
    start: Option<Tensor>,
    /// Clean samples of the last step and the one before.
    x0: [Option<Tensor>; 2],
}

impl Walk {
    /// Corrects and predicts.
    pub(crate) fn advance(&mut self, step: &Multistep, sample: &Tensor, x0: Tensor) -> Tensor {
        let add = |sum: Tensor, part: &Option<Tensor>, factor: f64| match part {
            Some(part) if factor != 0.0 => sum + part * factor,
            _ => sum,
        };
        let start = match (&step.correct, &self.start) {
            (Some(c), Some(start)) => {
                let sum = start * c[0] + &x0 * c[3];
                add(add(sum, &self.x0[0], c[1]), &self.x0[1], c[2])
            }
            _ => sample.shallow_clone(),
        };
        let p = step.predict;
        let next = add(&start * p[0] + &x0 * p[1], &self.x0[0], p[2]);
        let last = self.x0[0].take();
        (self.start, self.x0) = (Some(start), [Some(x0), last]);
        next
    }
}

/// The least share of the clean sample's variance: the smallest positive half-precision number.
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

/// What the formulas take of a step of length h in log-SNR.
struct Length {
    h: f64,
    /// e^-h - 1.
    growth: f64,
    /// The right sides of the conditions of first and second order.
    b: [f64; 2],
}

impl Length {
    fn between(from: Place, to: Place) -> Self {
        let h = to.lambda - from.lambda;
        let growth = (-h).exp_m1();
        let first = growth / -h - 1.0;
        let second = first / -h - 0.5;
        Self { h, growth, b: [first / growth, 2.0 * second / growth] }
    }
}

/// The steps of a run that visits `times`, latest first, and then the clean sample.
pub(crate) fn plan(schedule: &Schedule, times: &[i64]) -> Result<Vec<Step>, String> {
    let count = times.len();
    let share = |t: &i64| schedule.alphas_cumprod[*t as usize].max(LEAST);
    let mut places: Vec<Place> = times.iter().map(|t| Place::new(share(t))).collect();
    places.push(Place::new(1.0));
    // the second needs a step to look back to, and the last is of first order
    let order = |k: usize| (k + 1).min(count - k).min(2);
    let mut plan = Vec::with_capacity(count);
    for (k, &t) in times.iter().enumerate() {
        let (x0, _) = schedule.maps_at(t, LEAST)?;
        let back = |from: usize, length: &Length| (places[from - 1].lambda - places[from].lambda) / length.h;
        let correct = (k > 0).then(|| {
            let (from, to) = (places[k - 1], places[k]);
            let length = Length::between(from, to);
            let gain = -to.signal * length.growth;
            let (start, mut last) = (to.noise / from.noise, gain);
            if order(k - 1) == 1 {
                return [start, last - 0.5 * gain, 0.0, 0.5 * gain];
            }
            let r = back(k - 1, &length);
            let before = (length.b[1] - length.b[0]) / (r - 1.0);
            let present = length.b[0] - before;
            last -= gain * (before / r + present);
            [start, last, gain * before / r, gain * present]
        });
        let (from, to) = (places[k], places[k + 1]);
        let length = Length::between(from, to);
        let gain = -to.signal * length.growth;
        let lean = if order(k) == 2 { 0.5 * gain / back(k, &length) } else { 0.0 };
        let predict = [to.noise / from.noise, gain - lean, lean];
        let multistep = Some(Multistep { correct, predict });
        plan.push(Step { t, x0, next: [f64::NAN; 2], noise_std: 0.0, multistep });
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;
    use crate::schedule::{Prediction, Sampler, ScheduleConfig, Spacing};
    use tch::Kind;

    /// Follows a plan where the network knows the answer for data N(mean, 0.25), the exact clean sample expected there; gives
    /// the error at the last time visited. The step from there to the clean sample is of first order for every sampler.
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
