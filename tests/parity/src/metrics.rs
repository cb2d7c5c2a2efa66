//! Image metrics: PSNR and SSIM on 8-bit pairs, LPIPS with backbones that follow from a closed form.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use metrics::psnr;
use metrics::ssim::{Definition, ms_ssim, ssim};
use models::lpips::{Lpips, Net};
use models::weights::Tensors;
use serde_json::Value;
use tch::{Kind, Tensor};

use crate::check::{Case, Checks, Report, closed_form, json, number};

/// What the folder may hold.
const FILES: [&str; 6] = [
    "expected.json",
    "images.safetensors",
    "lpips_heads.safetensors",
    "lpips_images.safetensors",
    "multi_scale.json",
    "multi_scale.safetensors",
];
const NETS: [Net; 3] = [Net::Alex, Net::Vgg, Net::Squeeze];

/// Runs the folder's cases: one for each pair of images, and one for each pair and network.
pub fn run(dir: &Path, report: &mut Report) {
    let expected = match json(&dir.join("expected.json")) {
        Ok(expected) => expected,
        Err(error) => return report.fail("metrics", &format!("{error:#}")),
    };
    report.case("metrics/pairs", |checks| {
        let pairs = expected["pairs"].as_object().context("expected.json has no table of pairs")?;
        let images = Case::read(&dir.join("images.safetensors"))?;
        pairs.iter().try_for_each(|(name, want)| pair(&images, name, want, checks))?;
        images.all_asked(|_| false)
    });
    // folders made before there was an MS-SSIM lack it
    let multi_scale = dir.join("multi_scale.json");
    if multi_scale.exists() || dir.join("multi_scale.safetensors").exists() {
        report.case("metrics/multi_scale", |checks| scales(dir, &json(&multi_scale)?, checks));
    }
    let known = ["pairs", "lpips", "lpips_seed", "backbone_check", "note"];
    for name in
        expected.as_object().into_iter().flat_map(|table| table.keys()).filter(|name| !known.contains(&name.as_str()))
    {
        report.fail(&format!("metrics/{name}"), "no metric of ours is called so");
    }
    let has = |net: &Net| {
        expected["lpips"].as_object().is_some_and(|pairs| pairs.values().any(|d| d.get(net.name()).is_some()))
    };
    if expected["lpips"].is_null() {
        report.left("metrics/lpips", "expected.json has none");
    } else if !NETS.iter().any(has) {
        report.fail("metrics/lpips", "no pair has a value of a network of ours");
    }
    for net in NETS.into_iter().filter(has) {
        report.case(&format!("metrics/lpips_{}", net.name()), |checks| {
            tch::no_grad(|| lpips(dir, &expected, net, checks))
        });
    }
    crate::strangers(dir, "metrics", report, |name| FILES.contains(&name));
}

/// What is stated of a pair. The reference's own SSIM in f32 is there to tell its noise.
const VALUES: [&str; 9] = [
    "l1",
    "ms_ssim_torchmetrics",
    "mse",
    "psnr_skimage",
    "psnr_torchmetrics",
    "ssim_skimage_gaussian",
    "ssim_skimage_uniform7",
    "ssim_torchmetrics",
    "ssim_torchmetrics_f32",
];

fn pair(images: &Case, name: &str, want: &Value, checks: &mut Checks) -> Result<()> {
    let unknown = want.as_object().and_then(|want| want.keys().find(|key| !VALUES.contains(&key.as_str())));
    ensure!(unknown.is_none(), "{name} has a value {}, which is not known", unknown.map_or("", String::as_str));
    let (a, b) = (images.bytes(&format!("{name}.a"))?, images.bytes(&format!("{name}.b"))?);
    let (height, width, channels) = images.raw(&format!("{name}.a"))?.size3()?;
    let mse = psnr::mse(&a, &b);
    checks.error(format!("{name} mse"), (mse - number(want, "mse")?).abs(), 1e-9);
    if want.get("l1").is_some() {
        checks.error(format!("{name} l1"), (psnr::l1(&a, &b) - number(want, "l1")?).abs(), 1e-9);
    }
    for key in ["psnr_skimage", "psnr_torchmetrics"] {
        let got = psnr::psnr(mse);
        match want.get(key) {
            // Not a number in JSON: equal images.
            Some(Value::Null) => checks.exact(format!("{name} {key}"), got == f64::INFINITY),
            _ => checks.error(format!("{name} {key}"), (got - number(want, key)?).abs(), 1e-3),
        }
    }
    for (key, definition) in [
        ("ssim_torchmetrics", Definition::Torchmetrics),
        ("ssim_skimage_gaussian", Definition::Gaussian),
        ("ssim_skimage_uniform7", Definition::Uniform7),
    ] {
        let window = match definition {
            Definition::Torchmetrics => 6,
            Definition::Uniform7 => 7,
            Definition::Gaussian => 11,
        };
        if height.min(width) < window && want.get(key).is_none_or(Value::is_null) {
            checks.remark(format!("{name} {key}: the picture is smaller than its window, and the reference has none"));
            continue;
        }
        let got = ssim(&a, &b, width as usize, height as usize, channels as usize, definition);
        checks.error(format!("{name} {key}"), (got - number(want, key)?).abs(), 2e-5);
    }
    if want.get("ms_ssim_torchmetrics").is_some() {
        let got = ms_ssim(&a, &b, width as usize, height as usize, channels as usize, Definition::Torchmetrics);
        let got = got.with_context(|| format!("{name} is too small for five scales"))?;
        checks.error(format!("{name} ms_ssim_torchmetrics"), (got - number(want, "ms_ssim_torchmetrics")?).abs(), 2e-5);
    }
    Ok(())
}

fn scales(dir: &Path, expected: &Value, checks: &mut Checks) -> Result<()> {
    let images = Case::read(&dir.join("multi_scale.safetensors"))?;
    for (name, want) in expected.as_object().context("multi_scale.json holds no pairs")? {
        let (a, b) = (images.bytes(&format!("{name}.a"))?, images.bytes(&format!("{name}.b"))?);
        let (height, width, channels) = images.raw(&format!("{name}.a"))?.size3()?;
        for (key, definition) in [("torchmetrics", Definition::Torchmetrics), ("pytorch_msssim", Definition::Gaussian)]
        {
            let got = ms_ssim(&a, &b, width as usize, height as usize, channels as usize, definition);
            let got = got.context("the pictures are too small for five scales")?;
            checks.error(format!("{name} {key}"), (got - number(want, key)?).abs(), 1e-5);
        }
    }
    images.all_asked(|_| false)
}

fn lpips(dir: &Path, expected: &Value, net: Net, checks: &mut Checks) -> Result<()> {
    let seed = number(expected, "lpips_seed")? as u64;
    let heads = Case::read(&dir.join("lpips_heads.safetensors"))?;
    let mut weights = Tensors::new();
    for (k, (name, shape)) in net.weights().into_iter().enumerate() {
        let tensor = if name.starts_with("lin") {
            heads.get(&format!("{}.{name}", net.name()))?
        } else {
            // Weights are uniform in +-sqrt(6 / fan in), biases in +-0.1.
            let count = shape.iter().product::<i64>();
            let bound = if shape.len() > 1 { (6.0 * shape[0] as f64 / count as f64).sqrt() } else { 0.1 };
            let tensor = Tensor::from_slice(&closed_form(seed, k as u64, count as u64, bound)).view(shape.as_slice());
            let about = &expected["backbone_check"][net.name()][&name];
            checks.error(
                format!("sum of {name}"),
                (tensor.sum(Kind::Double).double_value(&[]) - number(about, "sum_f64")?).abs(),
                1e-6,
            );
            tensor
        };
        weights.insert(name, tensor);
    }
    let others = NETS.map(Net::name).into_iter().filter(|name| *name != net.name());
    let others: Vec<String> = others.map(|name| format!("{name}.")).collect();
    heads.all_asked(|tensor| others.iter().any(|other| tensor.starts_with(other)))?;
    let lpips = Lpips::from_tensors(net, weights, "the closed form")?;
    let images = Case::read(&dir.join("lpips_images.safetensors"))?;
    let image = |name: String| -> Result<Tensor> {
        Ok((images.get(&name)? / 127.5 - 1.0).permute([2, 0, 1]).unsqueeze(0).contiguous())
    };
    for (name, want) in expected["lpips"].as_object().context("expected.json has no lpips")? {
        let known = |key: &String| NETS.iter().any(|net| net.name() == key);
        if let Some(key) = want.as_object().and_then(|want| want.keys().find(|key| !known(key))) {
            anyhow::bail!("{name} has values of {key}, which no network of ours is called");
        }
        let want = want.get(net.name()).with_context(|| format!("no value of {} for {name}", net.name()))?;
        let (a, b) = (lpips.features(&image(format!("{name}.a"))?), lpips.features(&image(format!("{name}.b"))?));
        let (d, layers) = lpips.compare(&a, &b);
        let mut check = |what: String, got: &Tensor, want: f64| {
            checks.error(
                what,
                (got.double_value(&[0]) - want).abs(),
                if want == 0.0 { 0.0 } else { 1e-6 + 1e-4 * want },
            );
        };
        check(format!("{name} d"), &d, number(want, "d")?);
        let per_layer = want["per_layer"].as_array().context("no per_layer")?;
        anyhow::ensure!(per_layer.len() == layers.len(), "{} layers, not {}", layers.len(), per_layer.len());
        for (k, (got, want)) in layers.iter().zip(per_layer).enumerate() {
            check(format!("{name} layer {k}"), got, want.as_f64().context("a layer is no number")?);
        }
    }
    images.all_asked(|_| false)
}
