//! What lies around the networks of an avatar: quantisers, condition channels, TriPlane, the noise schedule and
//! sampling with shared noise; the transforms from head model to camera stand in `transforms`. Tolerances come with
//! each case.

mod transforms;

use anyhow::{Context, Result, bail, ensure};
use geometry::quantize::{self, Quantizer};
use models::schedule::{Sampler, Schedule, ScheduleConfig, Walk};
use models::triplane::{self, FeatureMaps, GBuffer, Padding};
use serde_json::Value;
use std::path::Path;
use tch::{Kind, Tensor};

use crate::check::{Case, Checks, Report, largest};
use crate::conventions::{self, agrees};
use crate::folder::Folder;
use transforms::{camera, flame_to_world};

/// Runs one case by its kind.
pub fn run(kind: &str, case: &Folder, checks: &mut Checks) -> Result<()> {
    conventions::check(kind, &case.meta["config"], checks)?;
    match kind {
        "quantizer" => quantizer(case, checks),
        "quantizer_normals" => normals(case, checks),
        "condition_channels" => condition(case, checks),
        "triplane_lookup" => lookup(case, checks),
        "noise_schedule" => noise_schedule(case, checks),
        "ddpm_trajectory" => trajectory(case, checks),
        "flame_to_world" => flame_to_world(case, checks),
        "camera_projection" => camera(case, checks),
        other => bail!("the kind {other} is unknown"),
    }
}

/// The quantiser that a case's configuration describes; single numbers stand for all channels.
fn described<const N: usize>(case: &Folder) -> Result<Quantizer<N>> {
    let ends = |key: &str| -> Result<[f64; N]> {
        let value = &case.meta["config"][key];
        if let Some(all) = value.as_f64() {
            return Ok([all; N]);
        }
        let list: Vec<f64> = serde_json::from_value(value.clone()).with_context(|| format!("config {key}"))?;
        list.try_into().map_err(|_| anyhow::anyhow!("config {key} does not have {N} entries"))
    };
    let mask_bin = case.meta["config"]["reserved_mask_bin"].as_bool().context("config reserved_mask_bin")?;
    let bits = case.config("bits")?;
    ensure!((1..=16).contains(&(bits as u32)) && bits.fract() == 0.0, "config bits: {bits} is not one of 1 to 16");
    Ok(Quantizer { min: ends("min")?, max: ends("max")?, bits: bits as u32, mask_bin })
}

fn entries<const N: usize>(case: &Case, name: &str) -> Result<Vec<[f32; N]>> {
    let values: Vec<f32> = Vec::try_from(case.get(name)?.flatten(0, -1))?;
    ensure!(values.len().is_multiple_of(N), "{name} is not made of {N} channels");
    Ok(values.chunks_exact(N).map(|c| c.try_into().expect("chunks of N")).collect())
}

fn flat<T: Copy, const N: usize>(list: &[[T; N]]) -> Vec<T> {
    list.iter().flatten().copied().collect()
}

/// Bins must be equal where `safe`, off by at most one elsewhere (`wrap`: or at the other end of a full turn).
fn compare_bins(case: &Folder, checks: &mut Checks, got: &[i64], wrap: Option<i64>) -> Result<()> {
    let (want, safe) = (case.io.integers("out.q")?, case.io.bytes("out.safe")?);
    ensure!(want.len() == got.len() && safe.len() == got.len(), "another number of bins");
    let difference = |i: usize| match wrap {
        Some(turn) if i % 3 == 2 => {
            let d = (want[i] - got[i]).abs();
            d.min((turn - 1 - d).abs())
        }
        _ => (want[i] - got[i]).abs(),
    };
    let (sure, unsure): (Vec<usize>, Vec<usize>) = (0..got.len()).partition(|&i| safe[i] != 0);
    let exact = sure.into_iter().map(|i| (want[i] - got[i]).abs()).max().unwrap_or(0);
    checks.error("out.q where safe", exact as f64, 0.0);
    checks.error("out.q elsewhere", unsure.into_iter().map(difference).max().unwrap_or(0) as f64, 1.0);
    if let Ok(png) = case.io.integers("out.png_channels") {
        let channels = got.len() * 3 / png.len();
        let ours = got.chunks(channels).flat_map(|q| (0..3).map(|c| q.get(c).copied().unwrap_or(0)));
        let safe = safe.chunks(channels).flat_map(|s| (0..3).map(|c| s.get(c).copied().unwrap_or(1)));
        let equal = png.iter().zip(ours).zip(safe).all(|((a, b), safe)| *a == b || (safe == 0 && (a - b).abs() <= 1));
        checks.exact("out.png_channels", equal);
    }
    Ok(())
}

fn quantizer(case: &Folder, checks: &mut Checks) -> Result<()> {
    match case.config("channels")? as i64 {
        1 => quantize_channels::<1>(case, checks),
        2 => quantize_channels::<2>(case, checks),
        3 => quantize_channels::<3>(case, checks),
        4 => quantize_channels::<4>(case, checks),
        5 => quantize_channels::<5>(case, checks),
        other => bail!("no quantiser has {other} channels"),
    }
}

fn bins<const N: usize>(case: &Folder, name: &str) -> Result<Vec<[u16; N]>> {
    let list = case.io.integers(name)?;
    Ok(list.chunks_exact(N).map(|c| std::array::from_fn(|k| c[k] as u16)).collect())
}

fn f32_tensor(values: &[f32], like: &Tensor) -> Tensor {
    Tensor::from_slice(values).view(like.size().as_slice())
}

fn quantize_channels<const N: usize>(case: &Folder, checks: &mut Checks) -> Result<()> {
    let quantizer = described::<N>(case)?;
    let values = entries::<N>(&case.io, "in.values")?;
    // Depth beyond the far plane, which is the only range with such a rule.
    let above_max = &case.meta["config"]["above_max"];
    let stored = match above_max.as_str() {
        None if above_max.is_null() => values.clone(),
        Some(rule) if N == 1 && rule.starts_with("becomes no-depth (0)") => {
            let largest = quantizer.max[0] as f32;
            values.iter().map(|v| v.map(|z| if z > largest { 0.0 } else { z })).collect()
        }
        _ => bail!("config above_max: {above_max} is unknown"),
    };
    let encoded: Vec<i64> = flat(&quantizer.encode(&stored)?).into_iter().map(i64::from).collect();
    let depth = &quantize::DEPTH;
    let is_renderers = (quantizer.min[0], quantizer.max[0], quantizer.bits) == (depth.min[0], depth.max[0], depth.bits);
    if is_renderers && !above_max.is_null() {
        let ours = quantize::encode_depth(&flat(&values))?;
        checks.exact("the renderer's depth", ours.into_iter().map(i64::from).eq(encoded.iter().copied()));
    }
    compare_bins(case, checks, &encoded, None)?;
    let decoded = quantizer.decode(&bins::<N>(case, "out.q")?);
    case.f32(checks, "out.decoded", &f32_tensor(&flat(&decoded), case.io.raw("out.decoded")?))?;
    if let Ok(table) = bins::<N>(case, "in.q_table") {
        let want = case.io.raw("out.q_table_decoded")?;
        case.f32(checks, "out.q_table_decoded", &f32_tensor(&flat(&quantizer.decode(&table)), want))?;
    }
    if let Ok(want) = case.io.raw("out.normalised") {
        let normalised: Vec<[f32; N]> = values.iter().map(|v| quantizer.normalize(*v)).collect();
        case.f32(checks, "out.normalised", &f32_tensor(&flat(&normalised), want))?;
    }
    Ok(())
}

fn normals(case: &Folder, checks: &mut Checks) -> Result<()> {
    let quantizer = described::<3>(case)?;
    let values = entries::<3>(&case.io, "in.values")?;
    let spherical: Vec<[f32; 3]> = values.iter().map(|n| quantize::to_spherical(*n)).collect();
    let (want, safe) = (case.io.numbers("out.spherical")?, case.io.bytes("out.safe")?);
    let pairs = flat(&spherical).into_iter().zip(&want).zip(&safe).enumerate();
    // The azimuth has two names at the seam and none at the poles: compared where marked safe.
    let errors =
        pairs.filter(|(i, (_, safe))| i % 3 != 2 || **safe != 0).map(|(_, ((a, b), _))| (f64::from(a) - b).abs());
    checks.error("out.spherical", largest(errors), case.tolerance("out.spherical", "f32_abs")?);
    let encoded = flat(&quantize::encode_normals(&quantizer, &values)?).into_iter().map(i64::from).collect::<Vec<_>>();
    compare_bins(case, checks, &encoded, Some(1 << quantizer.bits))?;
    let decoded = quantize::decode_normals(&quantizer, &bins::<3>(case, "out.q")?);
    case.f32(checks, "out.decoded", &f32_tensor(&flat(&decoded), case.io.raw("out.decoded")?))?;
    // Angles and lengths as they are decoded; the set states no tolerance of their own.
    if let Ok(want) = case.io.raw("out.decoded_spherical") {
        let decoded = quantizer.decode(&bins::<3>(case, "out.q")?);
        let name =
            ["out.decoded_spherical", "out.decoded"].into_iter().find(|name| !case.meta["tolerance"][name].is_null());
        let tolerance = case.tolerance(name.unwrap_or("out.decoded"), "f32_abs")?;
        checks.absolute("out.decoded_spherical", &f32_tensor(&flat(&decoded), want), want, tolerance);
    }
    Ok(())
}

/// The channels of the condition that the case's textures make, after comparing their sizes with what its configuration
/// says.
fn textures(case: &Folder) -> Result<i64> {
    let config = &case.meta["config"];
    let (planes, map) = (case.io.raw("in.planes")?.size(), case.io.raw("in.ambient_map")?.size());
    ensure!(planes.len() == 4 && map.len() == 3, "in.planes is {planes:?} and in.ambient_map {map:?}");
    agrees(config, "C", &planes[3].into())?;
    agrees(config, "CA", &map[2].into())?;
    agrees(config, "texture_hw", &Value::from(planes[1..3].to_vec()))?;
    Ok(GBuffer::channels(true) + planes[0] * planes[3] + map[2])
}

fn condition(case: &Folder, checks: &mut Checks) -> Result<()> {
    agrees(&case.meta["config"], "channels", &textures(case)?.into())?;
    let batch = |name: &str| -> Result<Tensor> { Ok(case.io.get(name)?.unsqueeze(0)) };
    let g = GBuffer {
        depth: batch("in.depth")?,
        canonical: batch("in.uv")?,
        normals: batch("in.normals")?,
        ambient: Some(batch("in.uv_ambient")?),
        mask: batch("in.mask")?,
        whose: Vec::new(),
    };
    let maps = FeatureMaps {
        layout: triplane::Layout::TriPlane,
        planes: case.io.get("in.planes")?,
        ambient: Some(case.io.get("in.ambient_map")?),
    };
    case.f32(checks, "out.condition", &triplane::condition(&g, std::slice::from_ref(&maps)).squeeze_dim(0))
}

fn lookup(case: &Folder, checks: &mut Checks) -> Result<()> {
    textures(case)?;
    let leaf = |name: &str| case.io.leaf(name);
    let (planes, map) = (leaf("in.planes")?, leaf("in.ambient_map")?);
    let (points, ambient_points) = (leaf("in.points")?, leaf("in.ambient_points")?);
    // A list of N points is an image of N x 1 pixels.
    let pixels = |t: &Tensor| t.unsqueeze(0).unsqueeze(2);
    let list = |t: Tensor| t.squeeze_dim(3).squeeze_dim(0).transpose(0, 1);
    let features = list(triplane::lookup_planes(&planes, &pixels(&points)));
    let ambient = list(triplane::lookup(&map.unsqueeze(0), &pixels(&ambient_points).unsqueeze(0)).squeeze_dim(0));
    case.f32(checks, "out.features", &features)?;
    case.f32(checks, "out.ambient", &ambient)?;
    let objective = (&features * case.io.get("in.cot")?).sum(Kind::Float)
        + (&ambient * case.io.get("in.cot_ambient")?).sum(Kind::Float);
    objective.backward();
    case.f32(checks, "out.grad_planes", &planes.grad())?;
    case.f32(checks, "out.grad_ambient_map", &map.grad())?;
    // On a texel's line the gradient has two one-sided values.
    let safe = case.io.raw("out.grad_safe")?.to_kind(Kind::Bool);
    for (output, leaf) in [("out.grad_points", points), ("out.grad_ambient_points", ambient_points)] {
        let rows = |t: &Tensor| t.index(&[Some(&safe)]);
        let tolerance = case.tolerance(output, "f32_abs")?;
        checks.absolute(output, &rows(&leaf.grad()), &rows(case.io.raw(output)?), tolerance);
    }
    Ok(())
}

/// The schedule that a case describes; what it does not say is DiffusionAvatars'.
fn schedule_config(case: &Folder) -> Result<ScheduleConfig> {
    let (about, mut json) = (&case.meta["config"], ScheduleConfig::default().to_json());
    for (ours, theirs) in [
        ("T", "num_train_timesteps"),
        ("beta_start", "beta_start"),
        ("beta_end", "beta_end"),
        ("beta_schedule", "beta_schedule"),
        ("trained_betas", "trained_betas"),
        ("rescale_zero_snr", "rescale_betas_zero_snr"),
        ("timestep_spacing", "timestep_spacing"),
        ("steps_offset", "steps_offset"),
        ("clip_range", "clip_sample_range"),
    ] {
        if let Some(value) = about.get(ours) {
            json[theirs] = value.clone();
        }
    }
    if let Some(prediction) = about.get("prediction") {
        json["prediction_type"] = match prediction.as_str() {
            Some("v") => "v_prediction".into(),
            Some("eps" | "noise") => "epsilon".into(),
            Some("x0") => "sample".into(),
            _ => prediction.clone(),
        };
    }
    if let Some(variance) = about.get("variance") {
        json["variance_type"] = variance.as_str().map_or(variance.clone(), |words| words.replace(' ', "_").into());
    }
    match about.get("clip") {
        None => {}
        Some(Value::Bool(clip)) => json["clip_sample"] = (*clip).into(),
        Some(range) => {
            json["clip_sample"] = true.into();
            json["clip_sample_range"] = range.clone();
        }
    }
    Ok(ScheduleConfig::from_json(&json, "the case's config")?)
}

fn noise_schedule(case: &Folder, checks: &mut Checks) -> Result<()> {
    let config = schedule_config(case)?;
    let plain = Schedule::new(&ScheduleConfig { zero_terminal_snr: false, ..config.clone() });
    let schedule = Schedule::new(&config);
    case.f64(checks, "out.betas_plain", &plain.betas)?;
    case.f64(checks, "out.alphas_cumprod_plain", &plain.alphas_cumprod)?;
    case.f64(checks, "out.betas", &schedule.betas)?;
    case.f64(checks, "out.alphas_cumprod", &schedule.alphas_cumprod)?;
    if config.zero_terminal_snr {
        let ends = (schedule.alphas_cumprod.last().copied(), schedule.betas.last().copied());
        checks.exact("the last alpha is 0 and the last beta 1", ends == (Some(0.0), Some(1.0)));
    }
    let (x0, eps, t) = (case.io.get("in.x0")?, case.io.get("in.eps")?, case.io.integers("in.t")?);
    case.f32(checks, "out.x_t", &schedule.add_noise(&x0, &eps, &t))?;
    case.f32(checks, "out.v", &schedule.velocity(&x0, &eps, &t))
}

/// The time that the stand-in for a network counts as 1: `.. + b*t/1000 + ..` in its formula.
fn unit_of_time(formula: &str) -> Result<f64> {
    let (mixing, rest) = formula.split_once("b*t/").with_context(|| format!("the network `{formula}` is unknown"))?;
    let (unit, offset) = rest.split_once(' ').unwrap_or((rest, ""));
    ensure!(mixing.contains("A x") && offset.contains("offset"), "the network `{formula}` is unknown");
    unit.parse::<f64>().with_context(|| format!("the network `{formula}` divides the time by no number"))
}

/// A linear stand-in for the network; what is tested is the sampler and that all frames share their noise.
fn trajectory(case: &Folder, checks: &mut Checks) -> Result<()> {
    let config = schedule_config(case)?;
    let unit = match case.meta["config"]["network"].as_str() {
        Some(formula) => unit_of_time(formula)?,
        None => config.train_steps as f64,
    };
    let plan =
        Schedule::new(&config).plan(Sampler::Ddpm, case.config("steps")? as usize).map_err(anyhow::Error::msg)?;
    let times: Vec<i64> = plan.iter().map(|s| s.t).collect();
    checks.exact("out.timesteps", times == case.io.integers("out.timesteps")?);
    let variances: Vec<f64> = plan.iter().map(|s| s.noise_std * s.noise_std).collect();
    case.f64(checks, "out.variance", &variances)?;

    let (mixing, slope, offset) = (case.io.get("in.A")?, case.io.get("in.b")?, case.io.get("in.offset")?);
    let noise = case.io.get("in.step_noise")?;
    let given = noise.size().first().copied().unwrap_or(0) as usize;
    ensure!(given == plan.len(), "config steps: {} steps, but in.step_noise is for {given}", plan.len());
    let mut x = case.io.get("in.x_T")?.expand(offset.size().as_slice(), false);
    let (mut states, mut clean, mut walk) = (vec![x.contiguous()], Vec::new(), Walk::default());
    for (k, step) in plan.iter().enumerate() {
        let out =
            Tensor::einsum("ij,bjhw->bihw", &[&mixing, &x], None::<i64>) + &slope * (step.t as f64 / unit) + &offset;
        clean.push(step.pred_x0(&x, &out));
        x = step.advance(&x, &out, Some(&noise.get(k as i64)), &mut walk);
        states.push(x.shallow_clone());
    }
    case.f32(checks, "out.trajectory", &Tensor::stack(&states, 0))?;
    case.f32(checks, "out.pred_x0", &Tensor::stack(&clean, 0))
}

/// The other TriPlane convention: points in [-1, 1], sums or products over planes, with both corner rules and paddings.
pub fn planes(path: &Path, report: &mut Report) {
    report.case("triplane", |checks| {
        let io = Case::read(path)?;
        for (corners, align) in [("ac0", false), ("ac1", true)] {
            for (name, padding) in [("zeros", Padding::Zeros), ("border", Padding::Border)] {
                let leaf = |name: &str| io.leaf(name);
                let (planes, points) = (leaf("planes")?, leaf("points")?);
                let features = triplane::sample_planes(&planes, &points, padding, align);
                let sum = features.sum_dim_intlist(0, false, Kind::Float);
                let mut value = |what: &str, got: &Tensor, tolerance: f64| -> Result<()> {
                    let name = format!("{corners}.{name}.{what}");
                    match io.get(&name) {
                        Ok(want) => checks.absolute(name, got, &want, tolerance),
                        // The set leaves out one of the per-plane tensors to save space.
                        Err(_) if what == "per_plane" => {}
                        Err(error) => return Err(error),
                    }
                    Ok(())
                };
                value("per_plane", &features, 2e-5)?;
                value("sum", &sum, 2e-5)?;
                value("product", &(features.get(0) * features.get(1) * features.get(2)), 2e-5)?;
                (sum * io.get("upstream_for_sum")?).sum(Kind::Float).backward();
                value("grad_planes", &planes.grad(), 2e-4)?;
                value("grad_points", &points.grad(), 2e-4)?;
            }
        }
        io.all_asked(|_| false)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use glam::DVec3;
    use models::schedule::{Limit, Prediction, Spacing, Variance};
    use serde_json::json;
    use transforms::{scale, sizes};

    /// A case of these tensors, each with its shape.
    fn case_of(meta: Value, tensors: &[(&str, &[f64], &[i64])]) -> Folder {
        let dir = std::env::temp_dir().join(format!("effigy-parity-avatar-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join(format!("{:?}.safetensors", std::thread::current().id()));
        let named =
            |&(name, values, shape): &(&str, &[f64], &[i64])| (name.to_owned(), Tensor::from_slice(values).view(shape));
        let tensors: models::weights::Tensors = tensors.iter().map(named).collect();
        models::weights::write(&path, &tensors, &Default::default(), models::weights::Precision::Keep).unwrap();
        let io = Case::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        Folder { dir, meta, io }
    }

    /// A case with a tensor that nobody needs.
    fn described_by(config: &Value, notes: &Value) -> Folder {
        case_of(json!({ "config": config, "notes": notes }), &[("in.one", &[1.0], &[1])])
    }

    /// The same tolerance for each of these outputs, in both precisions.
    fn tolerances(outputs: &[&str]) -> Value {
        outputs.iter().map(|output| (output.to_string(), json!({ "f32_abs": 1e-6, "f64_abs": 1e-9 }))).collect()
    }

    fn holds(kind: &str, case: &Folder) -> Result<bool> {
        let mut checks = Checks::default();
        run(kind, case, &mut checks)?;
        Ok(checks.hold())
    }

    #[test]
    fn planes_of_a_camera_are_those_of_the_case() {
        let case = |near: f64, far: f64| {
            let outputs =
                ["out.z_clip", "out.network_depth", "out.rotation", "out.world_to_gl", "out.pixels", "out.clip"];
            let config = json!({ "near": near, "far": far, "render_size": [32, 32], "pixel_centre": 0.5 });
            let upright = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
            let gl = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
            // for planes at 0.2 and 3: (3.2 d - 1.2) / 2.8
            let clip = 2.0 / 2.8;
            case_of(
                json!({ "config": config, "tolerance": tolerances(&outputs) }),
                &[
                    ("in.camera_depth", &[1.0, 3.0], &[2]),
                    ("in.K", &[50.0, 0.0, 16.0, 0.0, 50.0, 16.0, 0.0, 0.0, 1.0], &[3, 3]),
                    ("in.rodrigues", &[0.0; 3], &[3]),
                    ("in.t", &[0.0; 3], &[3]),
                    ("in.points_world", &[0.1, 0.2, 1.0], &[1, 3]),
                    ("in.size", &[3.0, 9.0], &[1, 2]),
                    ("out.z_clip", &[clip, 3.0], &[2]),
                    ("out.network_depth", &[clip - 1.0, -1.0], &[2]),
                    ("out.rotation", &upright, &[3, 3]),
                    ("out.world_to_gl", &gl, &[4, 4]),
                    ("out.pixels", &[21.0, 26.0], &[1, 2]),
                    ("out.clip", &[0.3125, 0.625, clip, 1.0], &[1, 4]),
                    ("out.padded_size", &[8.0, 16.0], &[1, 2]),
                ],
            )
        };
        assert!(holds("camera_projection", &case(0.2, 3.0)).unwrap());
        assert!(!holds("camera_projection", &case(0.1, 2.0)).unwrap());
        assert!(holds("camera_projection", &case(3.0, 0.2)).unwrap_err().to_string().contains("near and far"));
    }

    #[test]
    fn the_scale_of_a_head_model_is_that_of_the_case() {
        let case = |config: Value| {
            let outputs = tolerances(&["out.rotation_matrix", "out.world"]);
            case_of(
                json!({ "config": config, "tolerance": outputs }),
                &[
                    ("in.rotation", &[0.0; 3], &[1, 3]),
                    ("in.translation", &[0.5, 0.0, 0.0], &[1, 3]),
                    ("in.scale", &[1.0, 2.0, 1.0], &[1, 3]),
                    ("in.vertices_nphm", &[5.0, 10.0, 0.0], &[1, 3]),
                    ("out.rotation_matrix", &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], &[1, 3, 3]),
                    ("out.world", &[1.5, 4.0, 0.0], &[1, 1, 3]),
                ],
            )
        };
        assert!(holds("flame_to_world", &case(json!({ "nphm_over_flame": 5 }))).unwrap());
        for other in [json!({ "nphm_over_flame": 4 }), json!({})] {
            assert!(!holds("flame_to_world", &case(other)).unwrap());
        }
        assert!(holds("flame_to_world", &case(json!({ "nphm_over_flame": 0 }))).is_err());
    }

    #[test]
    fn a_scale_is_of_three_numbers_or_of_one() {
        let read = |values: &[f64], shape: &[i64]| scale(&case_of(json!({}), &[("in.scale", values, shape)]));
        assert_eq!(read(&[1.0, 2.0, 3.0], &[1, 3]).unwrap(), DVec3::new(1.0, 2.0, 3.0));
        assert_eq!(read(&[1.0, 2.0, 3.0], &[3]).unwrap(), DVec3::new(1.0, 2.0, 3.0));
        assert_eq!(read(&[1.1], &[1, 1]).unwrap(), DVec3::splat(1.1));
        assert_eq!(read(&[1.1], &[]).unwrap(), DVec3::splat(1.1));
        assert!(read(&[1.0, 2.0], &[1, 2]).unwrap_err().to_string().contains("in.scale is [1, 2]"));
    }

    #[test]
    fn every_step_has_its_noise() {
        let case = |steps: usize| {
            let config = json!({ "T": 1000, "steps": steps, "network": "v = A x + b*t/1000 + offset[frame]" });
            let tolerance = tolerances(&["out.variance", "out.trajectory", "out.pred_x0"]);
            let zeros = [0.0; 6];
            let tensors: [(&str, &[f64], &[i64]); 7] = [
                ("in.A", &[0.5], &[1, 1]),
                ("in.b", &[0.0], &[1, 1, 1, 1]),
                ("in.offset", &[0.0, 0.0], &[2, 1, 1, 1]),
                ("in.x_T", &[1.0], &[1, 1, 1, 1]),
                ("in.step_noise", &zeros[..3], &[3, 1, 1, 1]),
                ("out.timesteps", &zeros[..3], &[3]),
                ("out.variance", &zeros[..3], &[3]),
            ];
            let more: [(&str, &[f64], &[i64]); 2] =
                [("out.trajectory", &[0.0; 8], &[4, 2, 1, 1, 1]), ("out.pred_x0", &zeros, &[3, 2, 1, 1, 1])];
            case_of(json!({ "config": config, "tolerance": tolerance }), &[&tensors[..], &more].concat())
        };
        // compared, and not equal
        assert!(!holds("ddpm_trajectory", &case(3)).unwrap());
        for steps in [2, 4] {
            let error = holds("ddpm_trajectory", &case(steps)).unwrap_err().to_string();
            assert!(error.starts_with("config steps") && error.contains("for 3"), "{error}");
        }
    }

    #[test]
    fn textures_have_the_sizes_that_the_case_states() {
        let case = |config: Value| {
            let (planes, map) = ([0.0; 3 * 4 * 2 * 5], [0.0; 4 * 4 * 2]);
            let tensors: [(&str, &[f64], &[i64]); 2] =
                [("in.planes", &planes, &[3, 4, 2, 5]), ("in.ambient_map", &map, &[4, 4, 2])];
            textures(&case_of(json!({ "config": config }), &tensors))
        };
        assert_eq!(case(json!({ "C": 5, "CA": 2, "texture_hw": [4, 2] })).unwrap(), 9 + 15 + 2);
        for (key, value) in [("C", json!(6)), ("CA", json!(3)), ("texture_hw", json!([2, 4]))] {
            assert!(case(json!({ key: value })).unwrap_err().to_string().starts_with(key));
        }
    }

    #[test]
    fn bits_are_a_whole_number_up_to_sixteen() {
        for (bits, possible) in [(json!(8), true), (json!(17), false), (json!(0), false), (json!(7.5), false)] {
            let config = json!({ "min": 0, "max": 1, "bits": bits, "reserved_mask_bin": true });
            assert_eq!(described::<3>(&described_by(&config, &Value::Null)).is_ok(), possible, "{bits}");
        }
    }

    #[test]
    fn a_schedule_is_what_the_case_says() {
        let read = |config: Value| schedule_config(&described_by(&config, &Value::Null));
        assert_eq!(read(json!({ "T": 1000 })).unwrap(), ScheduleConfig::default());
        let config = read(json!({
            "T": 500, "timestep_spacing": "linspace", "prediction": "eps", "variance": "fixed large", "clip": 2.0,
            "rescale_zero_snr": false,
        }))
        .unwrap();
        assert_eq!((config.train_steps, config.spacing), (500, Spacing::Linspace));
        assert_eq!((config.prediction, config.variance), (Prediction::Epsilon, Variance::FixedLarge));
        assert_eq!((config.limit, config.zero_terminal_snr), (Some(Limit::Range(2.0)), false));
        for (key, value) in
            [("prediction", "flow"), ("variance", "learned"), ("timestep_spacing", "odd"), ("clip", "yes")]
        {
            let mut config = json!({});
            config[key] = value.into();
            assert!(read(config).is_err(), "{key}");
        }
    }

    #[test]
    fn formulas_and_notes_are_read() {
        assert_eq!(unit_of_time("v = A x (channel mixing) + b*t/500 + offset[frame]").unwrap(), 500.0);
        assert!(unit_of_time("v = tanh(A x)").is_err());
        let notes = json!(["something", "out.padded_size: (3, 5), (17,8) rounded up to multiples of 8."]);
        assert_eq!(sizes(&described_by(&Value::Null, &notes)).unwrap(), [3, 5, 17, 8]);
        assert!(sizes(&described_by(&Value::Null, &json!([]))).is_err());
    }
}
