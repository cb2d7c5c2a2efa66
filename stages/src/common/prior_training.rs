//! What `train_vae` and `train_prior` share: images in one tensor (those of an avatar's colour loss, too), and what a
//! training of one network keeps to go on from.
//!
//! No stage. Knows no loss and no loop.

use crate::common::media::Image;
use crate::common::trainer::{Checkpoints, LossCurve};
use anyhow::{Context, Result, bail};
use models::adamw::{AdamW, Ema};
use models::{init, weights};
use protocol::Row;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Images in a table, as one tensor `[N, 3, H, W]` of bytes.
pub fn load_images(rows: &[Row<'_>], column: &str) -> Result<Tensor> {
    read_images(&rows.iter().map(|row| row.path(column)).collect::<Result<Vec<_>>>()?)
}

/// Images, as one tensor `[N, 3, H, W]` of bytes.
pub fn read_images(paths: &[PathBuf]) -> Result<Tensor> {
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        let image = Image::read(path, 3)?;
        let (height, width) = (image.height as i64, image.width as i64);
        all.push(Tensor::from_slice(&image.data).view([height, width, 3]).permute([2, 0, 1]));
        if all[0].size() != all[all.len() - 1].size() {
            bail!("{} is of another size than the first image; a batch takes one size", path.display());
        }
    }
    if all.is_empty() {
        bail!("there are no images to train on");
    }
    Ok(Tensor::stack(&all, 0).contiguous())
}

/// Bytes to [-1, 1].
pub fn to_signed(images: &Tensor) -> Tensor {
    images.to_kind(Kind::Float) / 127.5 - 1.0
}

/// The images of a step, each second one on average mirrored.
pub fn flipped_batch(images: &Tensor, at: &[usize], seed: u64, step: u64) -> Tensor {
    let index: Vec<i64> = at.iter().map(|&i| i as i64).collect();
    let batch = images.index_select(0, &Tensor::from_slice(&index));
    let flips =
        Tensor::from_slice(&init::integers(seed ^ 0xF11B, step, at.len(), 2)).view([-1, 1, 1, 1]).to_kind(Kind::Bool);
    batch.flip([3]).where_self(&flips, &batch)
}

/// The state of a network in training: weights, optimiser, moving average and curve.
pub fn save_state(dir: &Path, vs: &VarStore, optimiser: &AdamW, average: &Ema, curve: &LossCurve) -> Result<()> {
    let plain = BTreeMap::new();
    weights::save(vs, &dir.join("weights.safetensors"), &plain, weights::Precision::Keep)?;
    weights::write(&dir.join("average.safetensors"), average.tensors(), &plain, weights::Precision::Keep)?;
    optimiser.save(&dir.join("optimiser.safetensors"))?;
    curve.save(&dir.join("losses.csv"))
}

/// Restores what [`save_state`] wrote last and is whole; tells how many steps that were. Where nothing is, all is as it
/// was: half of a damaged checkpoint is not taken.
///
/// # Errors
/// If checkpoints cannot be listed.
pub fn resume(
    checkpoints: &Checkpoints,
    vs: &VarStore,
    (optimiser, average, curve): (&mut AdamW, &mut Ema, &mut LossCurve),
    log: impl Fn(&str),
) -> Result<u64> {
    let beginning: weights::Tensors =
        weights::sorted(vs).into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect();
    let blank = curve.clone();
    let load = |dir: &Path| {
        weights::load(vs, &dir.join("weights.safetensors"))?;
        let path = dir.join("average.safetensors");
        average.restore(&weights::read(&path)?, &path.display().to_string())?;
        optimiser.load(&dir.join("optimiser.safetensors")).context("the optimiser's state")?;
        curve.restore(&dir.join("losses.csv"))
    };
    let start = checkpoints.resume(load, log)?;
    if start == 0 {
        weights::load_tensors(vs, &beginning, "the beginning")?;
        average.restore(&beginning, "the beginning")?;
        optimiser.reset();
        *curve = blank;
    }
    Ok(start)
}

/// Checks that the channels of each level can be cut into groups of norms and heads of attention.
///
/// # Errors
/// If one is no multiple of `of`.
pub fn check_widths(widths: &[i64], of: i64) -> Result<()> {
    let odd = widths.iter().find(|width| *width % of != 0);
    odd.map_or(Ok(()), |odd| {
        anyhow::bail!("`widths` has {odd}, expected multiples of {of}\nhint: norms and heads share them out evenly")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::adamw::Group;
    use tch::Device;
    use tch::nn::{self, Module};

    #[test]
    fn half_of_a_damaged_checkpoint_is_not_taken() {
        let dir = std::env::temp_dir().join(format!("effigy-resume-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let checkpoints = Checkpoints::new(&dir);
        let begin = || {
            let vs = VarStore::new(Device::Cpu);
            let net = nn::linear(
                vs.root(),
                2,
                1,
                nn::LinearConfig { ws_init: nn::Init::Const(0.5), bs_init: Some(nn::Init::Const(0.0)), bias: true },
            );
            let mut optimiser = AdamW::default();
            optimiser.add(Group::network("net", 0.1), &vs);
            let average = Ema::new(&weights::sorted(&vs), 0.9);
            (vs, net, optimiser, average, LossCurve::new(&["loss"], 4, 4))
        };
        let weight = |vs: &VarStore| weights::sorted(vs)["weight"].copy();
        let (vs, net, mut optimiser, mut average, mut curve) = begin();
        for step in 0..2 {
            optimiser.zero_grad();
            let loss = net.forward(&Tensor::ones([1, 2], (Kind::Float, Device::Cpu))).sum(None::<Kind>);
            loss.backward();
            optimiser.step(1.0);
            average.update(&weights::sorted(&vs));
            curve.push(step + 1, &[loss.double_value(&[])]);
        }
        let learned = weight(&vs);
        let save = || checkpoints.save(2, |dir| save_state(dir, &vs, &optimiser, &average, &curve)).unwrap();
        save();
        let resumed = || {
            let (vs, _, mut optimiser, mut average, mut curve) = begin();
            let start = resume(&checkpoints, &vs, (&mut optimiser, &mut average, &mut curve), |_| ()).unwrap();
            (start, weight(&vs), average.tensors()["weight"].copy(), optimiser.steps(), curve.last().is_nan())
        };
        let (start, there, ..) = resumed();
        assert!(start == 2 && there == learned);
        // what comes last is damaged
        std::fs::write(dir.join("step_000002/losses.csv"), "").unwrap();
        let (start, there, mean, steps, blank) = resumed();
        let first = weight(&begin().0);
        assert!(start == 0 && there == first && mean == first && steps == 0 && blank && there != learned);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
