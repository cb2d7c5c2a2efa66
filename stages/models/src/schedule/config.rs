//! Parameters of a noise schedule and of the samplers on it, read from and written as diffusers'
//! `scheduler_config.json`. A field is honoured or refused, never passed over. Knows no tables.

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::config::Reader;
use crate::unipc::Solver;
use crate::weights::WeightsError;

/// How the variances grow from `beta_start` to `beta_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BetaSchedule {
    /// Linearly.
    Linear,
    /// Their square roots grow linearly (Stable Diffusion).
    ScaledLinear,
    /// The share of the clean sample falls as a squared cosine, and no variance is above 0.999 (Nichol & Dhariwal
    /// 2021). Has neither start nor end.
    SquaredCosine,
}

impl BetaSchedule {
    const NAMES: [(&'static str, Self); 3] =
        [("linear", Self::Linear), ("scaled_linear", Self::ScaledLinear), ("squaredcos_cap_v2", Self::SquaredCosine)];
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

impl Prediction {
    const NAMES: [(&'static str, Self); 3] =
        [("epsilon", Self::Epsilon), ("v_prediction", Self::Velocity), ("sample", Self::Sample)];
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

impl Spacing {
    const NAMES: [(&'static str, Self); 3] =
        [("leading", Self::Leading), ("trailing", Self::Trailing), ("linspace", Self::Linspace)];
}

/// How much noise a step of ancestral sampling adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variance {
    /// That of the posterior; nothing in the last step.
    FixedSmall,
    /// That of the forward process; in the last step, too, if that is not at time 0.
    FixedLarge,
}

/// What becomes of a predicted clean sample before a step uses it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Cut to +- this. Not by UniPC, which has no such field.
    Range(f64),
    /// Saharia et al. 2022 (Imagen): cut to +- a quantile of its own absolute values and divided by it, each item of a
    /// batch for itself; the quantile counts as at least 1.
    Quantile {
        /// Which quantile, 0 to 1.
        ratio: f64,
        /// The largest it counts as; where this is below 1, it is what the quantile counts as.
        largest: f64,
    },
}

impl Limit {
    /// The limited sample, `[B, ...]` as is what comes in.
    pub fn apply(&self, x0: &Tensor) -> Tensor {
        match *self {
            Self::Range(range) => x0.clamp(-range, range),
            Self::Quantile { ratio, largest } => {
                // quantiles are of f32 and f64 alone
                let wide = match x0.kind() {
                    Kind::Float | Kind::Double => x0.shallow_clone(),
                    _ => x0.to_kind(Kind::Float),
                };
                let flat = wide.flatten(1, -1);
                let bound = flat.abs().quantile_scalar(ratio, 1, true, "linear").clamp(1.0, largest);
                let cut = flat.maximum(&-&bound).minimum(&bound) / bound;
                cut.view_as(x0).to_kind(x0.kind())
            }
        }
    }
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
    /// All variances, before rescaling, in place of a shape; T of them.
    pub trained_betas: Option<Vec<f64>>,
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
    /// DDPM's noise.
    pub variance: Variance,
    /// What becomes of clean samples; nothing if absent.
    pub limit: Option<Limit>,
    /// How UniPC steps.
    pub solver: Solver,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            train_steps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            trained_betas: None,
            zero_terminal_snr: true,
            prediction: Prediction::Velocity,
            spacing: Spacing::Trailing,
            steps_offset: 1,
            set_alpha_to_one: false,
            variance: Variance::FixedSmall,
            limit: None,
            solver: Solver::default(),
        }
    }
}

/// The class whose options are [`Solver`].
const UNIPC: &str = "UniPCMultistepScheduler";

/// What the classes take where a file leaves a field out.
struct Defaults {
    /// None where the class is not known, or not given: then the file has to say it.
    clip_sample: Option<bool>,
    spacing: &'static str,
    set_alpha_to_one: bool,
}

impl Defaults {
    fn of(class: &str) -> Self {
        // Solvers of few steps, PNDM too, have no clipping.
        let solvers = ["UniPC", "DPMSolver", "DEIS", "Euler", "Heun", "LMS", "KDPM"];
        let solver = solvers.iter().any(|name| class.starts_with(name));
        let clip_sample = match class {
            "DDPMScheduler" | "DDIMScheduler" | "DDPMParallelScheduler" | "DDIMParallelScheduler" => Some(true),
            "PNDMScheduler" => Some(false),
            _ => solver.then_some(false),
        };
        let spacing = if solver { "linspace" } else { "leading" };
        Self { clip_sample, spacing, set_alpha_to_one: class != "PNDMScheduler" }
    }
}

impl ScheduleConfig {
    /// Reads diffusers' `scheduler_config.json`; absent fields take the defaults of the class that it names.
    ///
    /// # Errors
    /// If a field has another type than there, or asks for something that is not implemented. `place` names the file.
    pub fn from_json(value: &Value, place: &str) -> Result<Self, WeightsError> {
        let read = Reader { value, place };
        let class = value.get("_class_name").and_then(Value::as_str).unwrap_or_default();
        let defaults = Defaults::of(class);
        for key in [
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "use_flow_sigmas",
            "use_dynamic_shifting",
        ] {
            read.refuse_unless(key, &[Value::from(false), Value::Null])?;
        }
        read.refuse_unless("shift_terminal", &[Value::Null])?;
        let train_steps = read.integer("num_train_timesteps", 1000)?.max(1) as usize;
        Ok(Self {
            train_steps,
            beta_start: read.number("beta_start", 0.0001)?,
            beta_end: read.number("beta_end", 0.02)?,
            beta_schedule: named(&read, "beta_schedule", "linear", &BetaSchedule::NAMES)?,
            trained_betas: trained_betas(&read, train_steps)?,
            zero_terminal_snr: read.boolean("rescale_betas_zero_snr", false)?,
            prediction: named(&read, "prediction_type", "epsilon", &Prediction::NAMES)?,
            spacing: named(&read, "timestep_spacing", defaults.spacing, &Spacing::NAMES)?,
            steps_offset: read.integer("steps_offset", 0)?,
            set_alpha_to_one: read.boolean("set_alpha_to_one", defaults.set_alpha_to_one)?,
            variance: variance(&read)?,
            limit: limit(&read, class, defaults.clip_sample)?,
            solver: if class == UNIPC { Solver::read(&read)? } else { Solver::default() },
        })
    }

    /// The diffusers `scheduler_config.json` of this schedule, without what few schedules have and this one leaves at
    /// its default.
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "_class_name": "DDPMScheduler",
            "beta_end": self.beta_end,
            "beta_schedule": name_of(self.beta_schedule, &BetaSchedule::NAMES),
            "beta_start": self.beta_start,
            "clip_sample": matches!(self.limit, Some(Limit::Range(_))),
            "num_train_timesteps": self.train_steps,
            "prediction_type": name_of(self.prediction, &Prediction::NAMES),
            "rescale_betas_zero_snr": self.zero_terminal_snr,
            "set_alpha_to_one": self.set_alpha_to_one,
            "steps_offset": self.steps_offset,
            "timestep_spacing": name_of(self.spacing, &Spacing::NAMES),
        });
        match self.limit {
            None => {}
            Some(Limit::Range(range)) => json["clip_sample_range"] = range.into(),
            Some(Limit::Quantile { ratio, largest }) => {
                json["thresholding"] = true.into();
                json["dynamic_thresholding_ratio"] = ratio.into();
                json["sample_max_value"] = largest.into();
            }
        }
        if let Some(betas) = &self.trained_betas {
            json["trained_betas"] = json!(betas);
        }
        if self.variance == Variance::FixedLarge {
            json["variance_type"] = "fixed_large".into();
        }
        if self.solver != Solver::default() {
            json["_class_name"] = UNIPC.into();
            self.solver.write(&mut json);
        }
        json
    }
}

/// The value whose name a field holds.
pub(crate) fn named<T: Copy>(
    read: &Reader<'_>,
    key: &str,
    default: &str,
    names: &[(&str, T)],
) -> Result<T, WeightsError> {
    let name = match read.value.get(key) {
        None => default,
        Some(v) => v.as_str().ok_or_else(|| read.error(format!("{key} must be a name, not {v}")))?,
    };
    match names.iter().find(|(known, _)| *known == name) {
        Some((_, value)) => Ok(*value),
        None => {
            let known = names.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
            Err(read.error(format!("{key}: {name} is not implemented (only {known})")))
        }
    }
}

/// The first name of a value; every value has one.
pub(crate) fn name_of<T: PartialEq>(value: T, names: &[(&'static str, T)]) -> &'static str {
    names.iter().find(|(_, other)| *other == value).map_or("", |(name, _)| *name)
}

fn trained_betas(read: &Reader<'_>, train_steps: usize) -> Result<Option<Vec<f64>>, WeightsError> {
    let list = match read.value.get("trained_betas") {
        None | Some(Value::Null) => return Ok(None),
        Some(list) => list.as_array().and_then(|list| list.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>()),
    };
    let betas = list.ok_or_else(|| read.error("trained_betas must be a list of numbers".into()))?;
    if betas.len() != train_steps {
        let found = betas.len();
        return Err(read.error(format!("trained_betas has {found} entries, num_train_timesteps says {train_steps}")));
    }
    match betas.iter().find(|beta| !(0.0..=1.0).contains(*beta)) {
        Some(bad) => Err(read.error(format!("trained_betas holds {bad}; variances lie between 0 and 1"))),
        None => Ok(Some(betas)),
    }
}

fn variance(read: &Reader<'_>) -> Result<Variance, WeightsError> {
    // Solvers save null where they learn none. The logarithm of `fixed_small_log` is undone before it is used.
    if read.value.get("variance_type").is_some_and(Value::is_null) {
        return Ok(Variance::FixedSmall);
    }
    let names = [
        ("fixed_small", Variance::FixedSmall),
        ("fixed_small_log", Variance::FixedSmall),
        ("fixed_large", Variance::FixedLarge),
    ];
    named(read, "variance_type", "fixed_small", &names)
}

fn limit(read: &Reader<'_>, class: &str, clip_sample: Option<bool>) -> Result<Option<Limit>, WeightsError> {
    if read.boolean("thresholding", false)? {
        let ratio = read.number("dynamic_thresholding_ratio", 0.995)?;
        let largest = read.number("sample_max_value", 1.0)?;
        if !(0.0..=1.0).contains(&ratio) || largest <= 0.0 {
            return Err(read.error(format!(
                "dynamic_thresholding_ratio must lie between 0 and 1 and sample_max_value above 0, not {ratio} and {largest}"
            )));
        }
        return Ok(Some(Limit::Quantile { ratio, largest }));
    }
    let clip = match (read.value.get("clip_sample"), clip_sample) {
        (None, Some(default)) => default,
        (None, None) => {
            let class = if class.is_empty() { "no class" } else { class };
            return Err(read.error(format!("clip_sample must be given: what {class} takes in its place is not known")));
        }
        (Some(_), _) => read.boolean("clip_sample", true)?,
    };
    if !clip {
        return Ok(None);
    }
    let range = read.number("clip_sample_range", 1.0)?;
    if range <= 0.0 {
        return Err(read.error(format!("clip_sample_range must be above 0, not {range}")));
    }
    Ok(Some(Limit::Range(range)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unipc::Bh;

    fn read(value: Value) -> Result<ScheduleConfig, String> {
        ScheduleConfig::from_json(&value, "a file").map_err(|error| error.to_string())
    }

    fn of_class(class: &str, fields: Value) -> Result<ScheduleConfig, String> {
        let mut value = fields;
        value["_class_name"] = class.into();
        read(value)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let solver = Solver { order: 3, bh: Bh::Linear, uncorrected: vec![0, 2], to_clean: false, ..Solver::default() };
        let quantile = Limit::Quantile { ratio: 0.9, largest: 1.5 };
        for config in [
            ScheduleConfig::default(),
            ScheduleConfig { limit: Some(Limit::Range(2.0)), variance: Variance::FixedLarge, ..Default::default() },
            ScheduleConfig { beta_schedule: BetaSchedule::SquaredCosine, limit: Some(quantile), ..Default::default() },
            ScheduleConfig { train_steps: 3, trained_betas: Some(vec![0.1, 0.2, 0.3]), ..Default::default() },
            ScheduleConfig { solver: solver.clone(), ..Default::default() },
            ScheduleConfig { solver, limit: Some(Limit::Range(1.0)), ..Default::default() },
        ] {
            assert_eq!(read(config.to_json()).unwrap(), config);
        }
        // files of older runs keep their digest
        let plain = ScheduleConfig::default().to_json();
        assert_eq!((plain.as_object().unwrap().len(), &plain["_class_name"]), (11, &json!("DDPMScheduler")));
    }

    #[test]
    fn absent_fields_are_those_of_the_class() {
        let clipped = of_class("DDIMScheduler", json!({})).unwrap();
        assert_eq!((clipped.limit, clipped.spacing), (Some(Limit::Range(1.0)), Spacing::Leading));
        assert!(clipped.set_alpha_to_one && !clipped.zero_terminal_snr);
        let unipc = of_class("UniPCMultistepScheduler", json!({})).unwrap();
        assert_eq!((unipc.limit, unipc.spacing, unipc.solver), (None, Spacing::Linspace, Solver::default()));
        let pndm = of_class("PNDMScheduler", json!({})).unwrap();
        assert_eq!((pndm.limit, pndm.spacing, pndm.set_alpha_to_one), (None, Spacing::Leading, false));
        let dpm = json!({ "variance_type": null, "solver_type": "midpoint" });
        assert_eq!(of_class("DPMSolverMultistepScheduler", dpm).unwrap().variance, Variance::FixedSmall);
        for class in ["", "FlowMatchEulerDiscreteScheduler"] {
            assert!(of_class(class, json!({})).unwrap_err().contains("clip_sample must be given"), "{class}");
        }
    }

    #[test]
    fn fields_are_honoured() {
        let fields = json!({
            "clip_sample": true, "thresholding": true, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 2.0,
            "variance_type": "fixed_large", "beta_schedule": "squaredcos_cap_v2",
        });
        let config = of_class("DDPMScheduler", fields).unwrap();
        assert_eq!(config.limit, Some(Limit::Quantile { ratio: 0.9, largest: 2.0 }));
        assert_eq!((config.variance, config.beta_schedule), (Variance::FixedLarge, BetaSchedule::SquaredCosine));
        let solver = json!({
            "solver_order": 1, "solver_type": "bh1", "lower_order_final": false, "disable_corrector": [0, 3],
            "predict_x0": false, "final_sigmas_type": "sigma_min",
        });
        let expected = Solver {
            order: 1,
            bh: Bh::Linear,
            predict_x0: false,
            lower_order_final: false,
            uncorrected: vec![0, 3],
            to_clean: false,
        };
        assert_eq!(of_class("UniPCMultistepScheduler", solver).unwrap().solver, expected);
    }

    #[test]
    fn what_is_not_implemented_is_refused() {
        for (key, value) in [
            ("beta_schedule", json!("sigmoid")),
            ("prediction_type", json!("flow_prediction")),
            ("variance_type", json!("learned_range")),
            ("use_karras_sigmas", json!(true)),
            ("use_dynamic_shifting", json!(true)),
            ("shift_terminal", json!(0.1)),
            ("trained_betas", json!([0.1, 0.2])),
            ("clip_sample", json!("yes")),
            ("clip_sample_range", json!(0)),
            ("solver_order", json!(4)),
            ("solver_type", json!("bh3")),
            ("disable_corrector", json!(2)),
            ("solver_p", json!({})),
            ("final_sigmas_type", json!("none")),
        ] {
            let mut fields = json!({ "clip_sample": true });
            fields[key] = value;
            assert!(of_class("UniPCMultistepScheduler", fields).unwrap_err().contains(key), "{key}");
        }
    }

    #[test]
    fn limits_are_those_of_their_definitions() {
        let x0 = Tensor::from_slice(&[-4.0f64, 1.0, 0.5, 3.0, 0.1, -0.2, 0.0, 0.4]).view([2, 1, 4]);
        let values = |limit: Limit| Vec::<f64>::try_from(limit.apply(&x0).flatten(0, -1)).unwrap();
        assert_eq!(values(Limit::Range(2.0)), [-2.0, 1.0, 0.5, 2.0, 0.1, -0.2, 0.0, 0.4]);
        // the median of 0.5, 1, 3 and 4 is 2; that of the second item is below 1 and counts as 1
        let median = |largest: f64| values(Limit::Quantile { ratio: 0.5, largest });
        assert_eq!(median(5.0), [-1.0, 0.5, 0.25, 1.0, 0.1, -0.2, 0.0, 0.4]);
        assert_eq!(median(1.0), [-1.0, 1.0, 0.5, 1.0, 0.1, -0.2, 0.0, 0.4]);
    }
}
