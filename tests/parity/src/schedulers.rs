//! Schedulers alone: tables, visited times, and chained steps with given outputs of a network. The cases' classes and
//! configurations are those of diffusers.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use models::schedule::{Sampler, Schedule, ScheduleConfig, Spacing, Step, Walk};
use serde_json::Value;
use tch::Tensor;

use crate::check::{Case, Checks, Report, json, largest, number};
use crate::settings::ETA;

/// What is known of a case.
const FIELDS: [&str; 8] = ["name", "scheduler", "config", "steps", "eta", "timesteps", "init_noise_sigma", "note"];

/// Runs the cases of `schedulers.json`, and its table of visited times; `prefix` stands before their names.
pub fn run(dir: &Path, prefix: &str, report: &mut Report) {
    let named = |name: &str| format!("{prefix}schedulers{name}");
    let files = json(&dir.join("schedulers.json"))
        .and_then(|about| Case::read(&dir.join("schedulers.safetensors")).map(|io| (about, io)));
    let (about, io) = match files {
        Ok(files) => files,
        Err(error) => return report.fail(&named(""), &format!("{error:#}")),
    };
    let Some(cases) = about["cases"].as_array().filter(|cases| !cases.is_empty()) else {
        return report.fail(&named(""), "schedulers.json has no list of cases, or an empty one");
    };
    let mut listed = BTreeSet::new();
    for case in cases {
        let Some(name) = case["name"].as_str() else {
            report.fail(&named(""), &format!("schedulers.json has a case without a name: {case}"));
            continue;
        };
        listed.insert(format!("{name}."));
        report.case(&named(&format!("/{name}")), |c| scheduler(case, name, &io, c));
    }
    if about["timesteps"].is_null() {
        report.left(&named("/timesteps"), "schedulers.json has no table of them");
    } else {
        report.case(&named("/timesteps"), |c| timesteps(&about, c));
    }
    let unlisted = io.names().filter(|tensor| !listed.iter().any(|case| tensor.starts_with(case)));
    for name in unlisted.map(|tensor| tensor.split('.').next().unwrap_or_default()).collect::<BTreeSet<_>>() {
        report.fail(
            &named(&format!("/{name}")),
            "schedulers.safetensors has this case, schedulers.json does not list it",
        );
    }
}

/// The full name of a class, given that or what stands before `Scheduler`, and our sampler.
pub fn sampler(class: &str, eta: f64) -> Result<(&'static str, Sampler)> {
    match class.strip_suffix("Scheduler").unwrap_or(class) {
        "DDPM" => Ok(("DDPMScheduler", Sampler::Ddpm)),
        "DDIM" => Ok(("DDIMScheduler", Sampler::Ddim { eta })),
        "UniPC" | "UniPCMultistep" => Ok(("UniPCMultistepScheduler", Sampler::UniPc)),
        _ => bail!("the sampler {class} is unknown"),
    }
}

/// The noise that a step adds. The reference may add 1e-10 of it where ours adds none; such is not in every set.
pub fn noise(io: &Case, name: &str, step: &Step) -> Result<Option<Tensor>> {
    let noise = io.get(name).ok();
    ensure!(noise.is_some() || step.noise_std < 1e-9, "the step at time {} adds noise, the set has no {name}", step.t);
    Ok(noise)
}

/// Our table with the roundings of the reference that add up, which keeps 1 - beta and the products in f32. Over a
/// thousand times they come to as much as the tolerance, and to ten times that where a beta is close to 1.
fn rounded(config: &ScheduleConfig) -> Schedule {
    let single = |x: f64| f64::from(x as f32);
    let plain = Schedule::new(&ScheduleConfig { zero_terminal_snr: false, ..config.clone() });
    let betas = plain.betas.iter().map(|beta| 1.0 - single(1.0 - single(*beta))).collect();
    let mut table = Schedule::new(&ScheduleConfig { trained_betas: Some(betas), ..config.clone() });
    table.alphas_cumprod.iter_mut().for_each(|alpha| *alpha = single(*alpha));
    table
}

/// What a root of the rescaled table may be off by because the reference subtracts f32 roots that are nearly equal:
/// three units of the last root's rounding, stretched as the table is.
fn rescaling_noise(config: &ScheduleConfig) -> f64 {
    let plain = Schedule::new(&ScheduleConfig { zero_terminal_snr: false, ..config.clone() });
    let root = |alpha: Option<&f64>| alpha.copied().unwrap_or(1.0).sqrt();
    let (first, last) = (root(plain.alphas_cumprod.first()), root(plain.alphas_cumprod.last()));
    3.0 * f64::from(f32::EPSILON) / 2.0 * last * first / (first - last)
}

/// Relative to the reference, 1e-6. Of a rescaled table it is the roots, since towards 0 the reference's own rounding
/// is no longer relative: its last entries are off by up to 4e-5 from what their formula gives.
fn alphas(checks: &mut Checks, config: &ScheduleConfig, got: &[f64], want: &[f64]) -> Result<()> {
    ensure!(want.len() == got.len(), "the table has {} entries, ours {}", want.len(), got.len());
    let pairs = want.iter().zip(got);
    if config.zero_terminal_snr {
        checks.exact("the last of alphas_cumprod", want.last() == got.last());
        let floor = rescaling_noise(config) / 1e-6;
        let error = |(want, got): (&f64, &f64)| (want.sqrt() - got.sqrt()).abs() / (want.sqrt() + floor);
        checks.error("roots of alphas_cumprod", largest(pairs.map(error)), 1e-6);
    } else {
        let error = |(want, got): (&f64, &f64)| (want - got).abs() / want.max(f64::MIN_POSITIVE);
        checks.error("alphas_cumprod", largest(pairs.map(error)), 1e-6);
    }
    Ok(())
}

fn scheduler(case: &Value, name: &str, io: &Case, checks: &mut Checks) -> Result<()> {
    let class = case["scheduler"].as_str().context("the case names no scheduler")?;
    let (class, sampler) = sampler(class, ETA.of(case)?.unwrap_or(0.0))?;
    checks.unknown_fields(case, |field| FIELDS.contains(&field));
    // The configurations are a constructor's arguments: what is absent has the default of that class.
    let mut config = case["config"].clone();
    ensure!(config.is_object(), "the case has no config");
    config["_class_name"] = class.into();
    let config = ScheduleConfig::from_json(&config, name)?;
    if let Some(sigma) = case["init_noise_sigma"].as_f64() {
        checks.error("init_noise_sigma", (sigma - 1.0).abs(), 0.0);
    }
    let mut table = rounded(&config);
    let get = |suffix: &str| io.get(&format!("{name}.{suffix}"));
    // UniPC puts out neither clean samples nor velocities, and noises for the times of a run alone.
    let given = |suffix: &str| match get(suffix) {
        Err(_) if sampler == Sampler::UniPc => Ok(None),
        tensor => tensor.map(Some),
    };
    if let (Sampler::UniPc, true, Some(last)) = (sampler, config.zero_terminal_snr, table.alphas_cumprod.last_mut()) {
        *last = 1.0 / f64::from(1u32 << 24);
    }
    let theirs = io.numbers(&format!("{name}.alphas_cumprod"))?;
    alphas(checks, &config, &table.alphas_cumprod, &theirs)?;
    // what is made of a table is compared by itself: near 1 a root of 1 - alpha has a thousand times the table's
    // rounding
    table.alphas_cumprod = theirs;
    let steps = number(case, "steps")? as usize;
    let plan = table.plan(sampler, steps).map_err(anyhow::Error::msg)?;
    let visited: Vec<i64> = plan.iter().map(|step| step.t).collect();
    checks.exact("timesteps", visited == io.integers(&format!("{name}.timesteps"))?);
    if let Some(listed) = case["timesteps"].as_array() {
        checks.exact("timesteps as they are listed", is_listed(&visited, listed));
    }
    if given("fwd.t")?.is_some() {
        let t = io.integers(&format!("{name}.fwd.t"))?;
        let (x0, noise) = (get("fwd.x0")?, get("fwd.noise")?);
        if let Some(noisy) = given("fwd.noisy")? {
            let last = visited.last().copied().unwrap_or_default();
            let known = |t: i64| if sampler == Sampler::UniPc && !visited.contains(&t) { last } else { t };
            let t: Vec<i64> = t.iter().copied().map(known).collect();
            checks.scaled("fwd.noisy", &table.add_noise(&x0, &noise, &t), &noisy, 2e-5);
        }
        if let Some(velocity) = given("fwd.velocity")? {
            checks.scaled("fwd.velocity", &table.velocity(&x0, &noise, &t), &velocity, 2e-5);
        }
    }

    let (mut sample, mut walk) = (get("init")?, Walk::default());
    for (i, step) in plan.iter().enumerate() {
        let output = get(&format!("model_output.{i}"))?;
        let noise = noise(io, &format!("{name}.noise.{i}"), step)?;
        let slack = Slack::of(&table, (sampler, steps), step, [&sample, &output]);
        if let Some(x0) = given(&format!("pred_x0.{i}"))? {
            let got = step.pred_x0(&sample, &output);
            checks.scaled_beyond(format!("pred_x0.{i}"), &got, &x0, 2e-5, &slack.clean);
        }
        let next = step.advance(&sample, &output, noise.as_ref(), &mut walk);
        let (before, want) = (sample, get(&format!("prev_sample.{i}"))?);
        let next = &next + surplus(&table, (sampler, steps), step.t, [&before, &output], (&next, &want));
        // The reference goes on from its own sample, and so does this step's successor: ours would carry the roundings
        // of hundreds of steps along. What UniPC corrected the reference keeps to itself; `walk` has ours.
        sample = want;
        checks.scaled_beyond(format!("prev_sample.{i}"), &next, &sample, slack.tolerance, &slack.next);
    }
    let own = format!("{name}.");
    io.all_asked(|tensor| !tensor.starts_with(&own))
}

/// What the reference's own f32 comes to in a step.
struct Slack {
    /// In the clean sample, which is a difference of numbers that may be thousands of times larger.
    clean: Tensor,
    /// In the next sample: the same, and what is left of the weights of DDPM where 1 - abar has lost its digits.
    next: Tensor,
    /// UniPC divides by differences of log-SNR, which are the smaller the more steps there are.
    tolerance: f64,
}

impl Slack {
    fn of(table: &Schedule, (sampler, steps): (Sampler, usize), step: &Step, [sample, output]: [&Tensor; 2]) -> Self {
        let unit = f64::from(f32::EPSILON) / 2.0;
        let clean = (sample.abs() * step.x0[0].abs() + output.abs() * step.x0[1].abs()) * (2.0 * unit);
        let lost = match sampler {
            Sampler::Ddpm => 2.0 * unit / (1.0 - table.alphas_cumprod[step.t as usize]).max(unit),
            _ => 0.0,
        };
        let next = &clean + (step.pred_x0(sample, output).abs() + sample.abs()) * lost;
        let tolerance = if sampler == Sampler::UniPc { 2e-5 * (steps as f64 / 40.0).max(1.0) } else { 2e-5 };
        Self { clean, next, tolerance }
    }
}

/// What more of the noise the reference puts into a step of DDIM than its formula says, as far as its rounding allows.
/// The square of the noise's weight, 1 - p - std², is what is left of numbers near 1, in f32: where nothing of the
/// sample is left and eta is 1 that is one or two units of rounding, of which either sign is as likely, and its root
/// 2.4e-4 in place of 0.
pub fn surplus(
    table: &Schedule,
    (sampler, steps): (Sampler, usize),
    t: i64,
    [sample, output]: [&Tensor; 2],
    (next, want): (&Tensor, &Tensor),
) -> Tensor {
    let (Sampler::Ddim { eta }, Ok((_, noise))) = (sampler, table.maps(t)) else { return next.zeros_like() };
    if eta == 0.0 {
        return next.zeros_like();
    }
    let previous = t - (table.config.train_steps / steps) as i64;
    let end = if table.config.set_alpha_to_one { 1.0 } else { table.alphas_cumprod[0] };
    let (a, p) =
        (table.alphas_cumprod[t as usize], table.alphas_cumprod.get(previous as usize).copied().unwrap_or(end));
    let square = (1.0 - p - eta * eta * (1.0 - p) / (1.0 - a) * (1.0 - a / p)).max(0.0);
    let most = (square + f64::from(f32::EPSILON)).sqrt() - square.sqrt();
    let noise = sample * noise[0] + output * noise[1];
    let fitted = ((want - next) * &noise).sum(tch::Kind::Double)
        / noise.square().sum(tch::Kind::Double).clamp_min(f64::MIN_POSITIVE);
    noise * fitted.double_value(&[]).clamp(-most, most)
}

/// Are times those of a list? Long ones are shortened to both ends with "..." between.
fn is_listed(times: &[i64], list: &[Value]) -> bool {
    let times: Vec<Value> = times.iter().copied().map(Value::from).collect();
    match list.iter().position(|entry| entry == "...") {
        Some(cut) => times.starts_with(&list[..cut]) && times.ends_with(&list[cut + 1..]),
        None => times == list,
    }
}

/// The table of visited times: keys are `DDIMScheduler.leading.10`. It says neither the length of the schedule nor
/// `steps_offset`: times of the first kind end with the last of all, of the second with the offset, 1 or 0, the same in
/// all of the table.
fn timesteps(about: &Value, checks: &mut Checks) -> Result<()> {
    let table = about["timesteps"].as_object().context("there is no table of timesteps")?;
    // Trailing times begin with the last of all.
    let trailing = table.iter().filter(|(key, _)| key.contains(".trailing."));
    let last = trailing.filter_map(|(_, times)| times[0].as_u64()).max();
    let spaced = table.iter().filter(|(key, _)| key.contains(".linspace."));
    let last = last.or_else(|| spaced.filter_map(|(_, times)| times[0].as_u64()).max());
    let train_steps = last.map_or(1000, |last| last as usize + 1);
    let leading = table.iter().filter(|(key, _)| key.contains(".leading."));
    let ends = leading.filter_map(|(_, times)| times.as_array()?.last()?.as_i64());
    let steps_offset = if ends.clone().count() > 0 && ends.clone().all(|end| end == 0) { 0 } else { 1 };
    for (key, times) in table {
        let parts: Vec<&str> = key.split('.').collect();
        let [class, spacing, steps] = parts[..] else { bail!("the key {key} is not understood") };
        let spacing = match spacing {
            "leading" => Spacing::Leading,
            "trailing" => Spacing::Trailing,
            "linspace" => Spacing::Linspace,
            other => bail!("the spacing {other} is unknown"),
        };
        let expected = times.as_array().context("times are no list")?;
        if expected.first().and_then(Value::as_u64) == Some(train_steps as u64) {
            continue; // The reference leaves its own table here; ours refuses, which a unit test checks.
        }
        let steps = steps.parse()?;
        let config = ScheduleConfig { spacing, train_steps, steps_offset, ..ScheduleConfig::default() };
        let (_, sampler) = sampler(class, 0.0)?;
        let got = Schedule::new(&config).timesteps(sampler, steps).map_err(anyhow::Error::msg)?;
        checks.exact(key.clone(), is_listed(&got, expected) && got.len() == steps);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::weights::{self, Precision, Tensors};
    use serde_json::json;

    /// A case of UniPC, third order, on zero terminal SNR: what its class has and nothing else. The samples were worked
    /// out in f64 from the paper's formulas.
    fn unipc() -> (Value, Tensors) {
        let mut alphas = Schedule::new(&ScheduleConfig::default()).alphas_cumprod;
        alphas[999] = 1.0 / f64::from(1u32 << 24);
        let alphas: Vec<f32> = alphas.into_iter().map(|alpha| alpha as f32).collect();
        let times = [999i64, 832, 666, 500, 333, 166];
        let mut tensors = Tensors::new();
        let mut put = |name: String, tensor: Tensor| _ = tensors.insert(format!("u.{name}"), tensor);
        put("alphas_cumprod".into(), Tensor::from_slice(&alphas));
        put("timesteps".into(), Tensor::from_slice(&times));
        put("init".into(), Tensor::from_slice(&[0.3f32]));
        let outputs = [0.4f32, -0.3, 0.2, 0.1, -0.5, 0.6];
        let samples = [0.256416769f64, 0.351255887, 0.200201185, 0.264304435, 0.543660829, 0.209640440];
        for (i, (output, sample)) in outputs.into_iter().zip(samples).enumerate() {
            put(format!("model_output.{i}"), Tensor::from_slice(&[output]));
            put(format!("prev_sample.{i}"), Tensor::from_slice(&[sample]));
        }
        let config = json!({
            "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "prediction_type": "v_prediction", "rescale_betas_zero_snr": true, "solver_order": 3,
        });
        let about = json!({
            "cases": [{ "name": "u", "scheduler": "UniPC", "config": config, "steps": 6, "eta": null }],
            "timesteps": { "UniPCMultistepScheduler.linspace.6": times, "DDPMScheduler.trailing.2": [999, 499] },
        });
        (about, tensors)
    }

    /// What fails of such a folder; `change` makes it another before.
    fn failed(name: &str, change: impl FnOnce(&mut Value, &mut Tensors)) -> Vec<String> {
        let dir = std::env::temp_dir().join(format!("effigy-parity-schedulers-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (mut about, mut tensors) = unipc();
        change(&mut about, &mut tensors);
        std::fs::write(dir.join("schedulers.json"), about.to_string()).unwrap();
        weights::write(&dir.join("schedulers.safetensors"), &tensors, &Default::default(), Precision::Keep).unwrap();
        let mut report = Report::default();
        run(&dir, "", &mut report);
        std::fs::remove_dir_all(&dir).unwrap();
        report.failed
    }

    #[test]
    fn unipc_is_run_as_its_class_is_configured() {
        assert!(failed("as-it-is", |_, _| ()).is_empty());
        for (key, value) in [
            ("solver_order", json!(2)),
            ("solver_order", json!(7)),
            ("solver_type", json!("bh1")),
            ("final_sigmas_type", json!("sigma_min")),
            ("disable_corrector", json!([1])),
            ("timestep_spacing", json!("leading")),
            ("thresholding", json!(0)),
        ] {
            let change = |about: &mut Value, _: &mut Tensors| about["cases"][0]["config"][key] = value;
            assert_eq!(failed("configured", change), ["schedulers/u"], "{key}");
        }
    }

    /// A case whose samples lie 1.9e-5 beside what each step makes of the sample before: within the tolerance, if every
    /// step is compared by itself.
    fn drifting(about: &mut Value, tensors: &mut Tensors, class: &str, spacing: &str) {
        let case = &mut about["cases"][0];
        case["scheduler"] = class.into();
        case["config"]["clip_sample"] = false.into();
        case["config"]["timestep_spacing"] = spacing.into();
        let mut config = case["config"].clone();
        let (class, sampler) = sampler(class, 0.0).unwrap();
        config["_class_name"] = class.into();
        let table = rounded(&ScheduleConfig::from_json(&config, "a case").unwrap());
        let plan = table.plan(sampler, 6).unwrap();
        let mut put = |name: String, tensor: Tensor| _ = tensors.insert(format!("u.{name}"), tensor);
        let times: Vec<i64> = plan.iter().map(|step| step.t).collect();
        put("timesteps".into(), Tensor::from_slice(&times));
        let (mut sample, mut walk) = (Tensor::from_slice(&[0.3f32]), Walk::default());
        for (i, (step, output)) in plan.iter().zip([0.4f32, -0.3, 0.2, 0.1, -0.5, 0.6]).enumerate() {
            let output = Tensor::from_slice(&[output]);
            put(format!("pred_x0.{i}"), step.pred_x0(&sample, &output));
            sample = step.advance(&sample, &output, None, &mut walk) + 1.9e-5;
            put(format!("prev_sample.{i}"), sample.shallow_clone());
        }
        if sampler != Sampler::UniPc {
            let alphas: Vec<f32> = table.alphas_cumprod.iter().map(|alpha| *alpha as f32).collect();
            let (t, x0, noise) =
                ([0, 499, 999], Tensor::from_slice(&[0.1f32, 0.2, 0.3]), Tensor::from_slice(&[1.0f32; 3]));
            put("alphas_cumprod".into(), Tensor::from_slice(&alphas));
            put("fwd.noisy".into(), table.add_noise(&x0, &noise, &t));
            put("fwd.velocity".into(), table.velocity(&x0, &noise, &t));
            put("fwd.t".into(), Tensor::from_slice(&t));
            put("fwd.x0".into(), x0);
            put("fwd.noise".into(), noise);
        }
    }

    #[test]
    fn each_step_begins_where_the_reference_did() {
        for (class, spacing) in [("DDIM", "leading"), ("DDIM", "trailing"), ("UniPC", "linspace")] {
            let name = format!("drifting-{class}-{spacing}");
            let change = |about: &mut Value, tensors: &mut Tensors| drifting(about, tensors, class, spacing);
            assert_eq!(failed(&name, change), Vec::<String>::new(), "{class} {spacing}");
            let wrong = failed(&name, |about, tensors| {
                drifting(about, tensors, class, spacing);
                let sample = tensors.remove("u.prev_sample.3").unwrap();
                tensors.insert("u.prev_sample.3".into(), sample + 1e-4);
            });
            assert_eq!(wrong, ["schedulers/u"], "{class} {spacing}");
        }
    }

    #[test]
    fn times_are_those_that_the_case_lists() {
        let listed = |times: Value| failed("listed", move |about, _| about["cases"][0]["timesteps"] = times);
        assert!(listed(json!([999, 832, 666, 500, 333, 166])).is_empty());
        assert!(listed(json!([999, 832, "...", 166])).is_empty());
        assert_eq!(listed(json!([999, 832, 666, 500, 333, 167])), ["schedulers/u"]);
        let wrong = failed("eta", |about, _| about["cases"][0]["eta"] = json!([1.0]));
        assert_eq!(wrong, ["schedulers/u"]);
    }

    #[test]
    fn what_nobody_lists_or_looks_at_fails() {
        let one = || Tensor::from_slice(&[0.0f32]);
        let unlisted = failed("unlisted", |_, tensors| _ = tensors.insert("v.init".into(), one()));
        assert_eq!(unlisted, ["schedulers/v"]);
        let unknown = failed("unknown", |_, tensors| _ = tensors.insert("u.residual.0".into(), one()));
        assert_eq!(unknown, ["schedulers/u"]);
        for cases in [json!(3), json!([]), Value::Null] {
            assert_eq!(failed("cases", |about, _| about["cases"] = cases), ["schedulers"]);
        }
        let unnamed = failed("unnamed", |about, _| about["cases"][0]["name"] = Value::Null);
        assert_eq!(unnamed, ["schedulers", "schedulers/u"]);
        let sampler =
            failed("sampler", |about, _| about["timesteps"]["EulerDiscreteScheduler.trailing.1"] = json!([999]));
        assert_eq!(sampler, ["schedulers/timesteps"]);
    }

    #[test]
    fn tables_are_held_to_their_tolerance() {
        for zero_terminal_snr in [false, true] {
            let config = ScheduleConfig { zero_terminal_snr, ..ScheduleConfig::default() };
            let table = Schedule::new(&config).alphas_cumprod;
            let holds = |at: usize, off: f64| {
                let mut want = table.clone();
                want[at] *= 1.0 + off;
                let mut checks = Checks::default();
                alphas(&mut checks, &config, &table, &want).unwrap();
                checks.hold()
            };
            assert!(holds(500, 5e-7) && !holds(500, 3e-6) && !holds(990, 1e-3), "{zero_terminal_snr}");
            // f32 adds up to less than that
            let rounded = rounded(&config).alphas_cumprod;
            let errors = table.iter().zip(&rounded).map(|(a, b)| (a.sqrt() - b.sqrt()).abs());
            assert!(largest(errors) < 1e-6);
            let mut unknown = table.clone();
            unknown[500] = f64::NAN;
            let mut checks = Checks::default();
            alphas(&mut checks, &config, &table, &unknown).unwrap();
            assert!(!checks.hold());
        }
    }
}
