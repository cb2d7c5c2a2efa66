//! `load_head_model`: a head model that was trained before, or a published NPHM or MonoNPHM, in place of
//! `train_head_model`.
//!
//! no rows in   writes: head_config (JSON), head_weights (safetensors), head_codes (safetensors, may be absent)
//!
//! One of our own is a folder with the two files that `train_head_model` put out, `head.json` and `head.safetensors`.
//! Published checkpoints are as `torch.save` wrote them (`.tar`), or safetensors with the same names. The generation is
//! told by the tensors, not by file names, and every dimension by their shapes. The anchors of the mean head are in no
//! checkpoint; they are an asset of the public code. The fits and meshes of later stages take models that deform
//! backward, as MonoNPHM does, and forward ones, as NPHM is, which have no ambient coordinates. `effigy doctor
//! --recipe` asks for these checks alone. Knows no training.

use crate::common::head_models;
use anyhow::{Context, Result, bail};
use manifests::Type;
use models::nphm::published::{self, Published};
use models::weights::{self, Precision, Tensors, WeightFile, WeightsError};
use models::{checkpoint, numpy};
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The checkpoint: MonoNPHM's, or that of NPHM's identity space; or a folder with `head.json` and
    /// `head.safetensors`.
    checkpoint: PathBuf,
    /// The checkpoint of NPHM's expression space; MonoNPHM has both in one.
    #[serde(default)]
    expression: Option<PathBuf>,
    /// The anchors of the mean head, `anchors_39.npy` (NPHM) or `anchors_65.npy` (MonoNPHM) of the public code: `[K,
    /// 3]`, symmetric pairs first. A folder of our own has its anchors within.
    #[serde(default)]
    anchors: Option<PathBuf>,
}

fn def() -> StageDef {
    StageDef::new("load_head_model", 1, Grain::Whole)
        .doc("Loads and checks a head model: one of our own, or a published NPHM or MonoNPHM.")
        .source()
        .file_param("checkpoint")
        .file_param("expression")
        .file_param("anchors")
        .writes([head_models::COLUMNS[0], head_models::COLUMNS[1], ("head_codes", Type::Blob)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(LoadHeadModel { params }), |params: Params| {
    let (_, finding, doubt) = open(&params)?;
    Ok(std::iter::once(finding).chain(doubt).collect())
});

struct LoadHeadModel {
    params: Params,
}

impl Stage for LoadHeadModel {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.load(unit, cx)).collect()
    }
}

impl LoadHeadModel {
    fn load(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let (loaded, finding, doubt) = open(&self.params)?;
        cx.log(&finding);
        doubt.iter().for_each(|doubt| cx.warn(doubt));
        let (config, file) = (cx.file(unit, "head_config.json"), cx.file(unit, "head_weights.safetensors"));
        head_models::write(&config, &file, &loaded.model)?;
        let row = OutRow::new().file("head_config", &config).file("head_weights", &file);
        if loaded.codes.is_empty() {
            return Ok(vec![row]);
        }
        let codes = cx.file(unit, "head_codes.safetensors");
        weights::write(&codes, &loaded.codes, &BTreeMap::new(), Precision::Keep)?;
        Ok(vec![row.file("head_codes", &codes)])
    }
}

/// A head model all of whose files fit together, a sentence about it, and what may be wrong with it.
fn open(p: &Params) -> Result<(Published, String, Option<String>)> {
    let told = |loaded: &Published| {
        let facts: Vec<String> =
            published::facts(loaded).iter().map(|(name, value)| format!("{name} {value}")).collect();
        facts.join(", ")
    };
    if p.checkpoint.is_dir() {
        anyhow::ensure!(
            p.expression.is_none() && p.anchors.is_none(),
            "{} is a folder of `train_head_model`, which holds all of a model, and `expression` and `anchors` are given as well\n\
             hint: leave them out, or name the checkpoint's file",
            p.checkpoint.display()
        );
        let model = head_models::of_files(&p.checkpoint.join("head.json"), &p.checkpoint.join("head.safetensors"))?;
        let own = Published { model, codes: Tensors::new(), left: Vec::new() };
        let finding = format!("a model of `train_head_model`: {}", told(&own));
        return Ok((own, finding, None));
    }
    let files: Vec<&Path> =
        [Some(&p.checkpoint), p.expression.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect();
    files.iter().try_for_each(|path| check_is_one(path))?;
    let places = p.anchors.as_ref().with_context(|| {
        format!(
            "{} is a published checkpoint, which does not hold the anchors of its mean head\nhint: `anchors: anchors_65.npy`, from the \
             `assets` of its public code",
            p.checkpoint.display()
        )
    })?;
    let anchors = anchors(places)?;
    let loaded = published::read(&files, &anchors)
        .with_context(|| format!("the anchors {} and these checkpoints make no head model", places.display()))?;
    check_extent(&anchors, places)?;
    let left = match loaded.left.len() {
        0 => String::new(),
        n => format!("; left out: {n} tensors of the training, {} to {}", loaded.left[0], loaded.left[n - 1]),
    };
    let finding = format!("{}: {}{left}", published::generation(&loaded.model.config), told(&loaded));
    let doubt = disordered(&anchors, loaded.model.config.identity.pairs);
    Ok((loaded, finding, doubt.map(|doubt| format!("{}: {doubt}", places.display()))))
}

/// Checks that a file begins as a checkpoint does: what else there is to say of a file that is none misleads.
fn check_is_one(path: &Path) -> Result<()> {
    if checkpoint::is_one(path) {
        return Ok(());
    }
    match WeightFile::open(path) {
        Ok(_) => Ok(()),
        Err(WeightsError::Format { reason, .. }) => bail!(
            "{} is no checkpoint: it does not begin like a file of `torch.save`, and it is no whole safetensors file: {reason}\n\
             hint: take the file as it was published; copy or download it again",
            path.display()
        ),
        Err(error) => Err(error.into()),
    }
}

/// `[K, 3]` anchors from a numpy file.
fn anchors(path: &Path) -> Result<Tensor> {
    anyhow::ensure!(
        path.exists(),
        "{} is missing: the anchors of the mean head, which the checkpoint does not hold\n\
         hint: take `anchors_39.npy` for NPHM or `anchors_65.npy` for MonoNPHM from the `assets` of its public code",
        path.display()
    );
    let numbers = numpy::read_npy(path)?;
    // the public code has them with leading axes of 1 too
    let shape: Vec<usize> = numbers.shape.iter().copied().skip_while(|side| *side == 1).collect();
    let [count, 3] = shape[..] else {
        bail!(
            "{}: the anchors are {:?}, expected [K, 3]\nhint: one xyz row per anchor, symmetric pairs first",
            path.display(),
            numbers.shape
        );
    };
    Ok(Tensor::from_slice(&numbers.values).reshape([count as i64, 3]).to_kind(Kind::Float))
}

/// Checks that anchors are those of a head in the model's units.
fn check_extent(anchors: &Tensor, path: &Path) -> Result<()> {
    let extent =
        (anchors.amax([0i64].as_slice(), false) - anchors.amin([0i64].as_slice(), false)).max().double_value(&[]);
    anyhow::ensure!(
        EXTENTS.contains(&extent),
        "{}: the anchors reach over {extent:.4} units, expected {} to {}, those of a head in units of 25 cm\n\
         hint: multiply metres by 4, millimetres by 0.004",
        path.display(),
        EXTENTS.start(),
        EXTENTS.end()
    );
    Ok(())
}

/// How far from each other the anchors of a head can be along an axis, units of 25 cm.
const EXTENTS: std::ops::RangeInclusive<f64> = 0.3..=3.0;
/// How far an anchor of a pair may be from the other's mirror image, as a share of what is between the two.
const MIRRORED: f64 = 0.5;

/// What is to be said of anchors of which one of a pair is not where the other's mirror image is: they may be in
/// another order.
fn disordered(anchors: &Tensor, pairs: i64) -> Option<String> {
    let places: Vec<Vec<f32>> = Vec::try_from(anchors).ok()?;
    let off = |pair: &&[Vec<f32>]| {
        let [a, b] = pair else { return false };
        let mirrored = [a[0] + b[0], a[1] - b[1], a[2] - b[2]].iter().map(|x| x * x).sum::<f32>().sqrt();
        let between = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        f64::from(mirrored) > MIRRORED * f64::from(between)
    };
    let wrong = places.chunks(2).take(pairs as usize).filter(off).count();
    (wrong > 0).then(|| {
        format!(
            "{wrong} of {pairs} pairs of anchors are not mirror images of each other: rows 0 and 1, 2 and 3 and so on are to be, the others on \
             the middle; are they in their order?"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_have_the_size_and_the_order_of_a_heads() {
        // two pairs and one on the middle
        let sound = [0.3f32, 0.1, 0.2, -0.3, 0.1, 0.2, 0.2, -0.2, 0.3, -0.2, -0.2, 0.3, 0.0, 0.3, 0.4];
        let tensor = |values: &[f32]| Tensor::from_slice(values).reshape([-1, 3]);
        let path = Path::new("anchors.npy");
        assert!(check_extent(&tensor(&sound), path).is_ok() && disordered(&tensor(&sound), 2).is_none());
        for times in [0.25, 250.0] {
            let error = check_extent(&(tensor(&sound) * times), path).unwrap_err().to_string();
            assert!(error.contains("anchors.npy: the anchors reach over") && error.contains("hint:"), "{error}");
        }
        let turned: Vec<f32> = sound.chunks(3).rev().flatten().copied().collect();
        assert!(disordered(&tensor(&turned), 2).expect("it is told").starts_with("2 of 2 pairs"));
    }
    use protocol::Registration;
    use serde_json::json;

    /// What the stage's check says of a checkpoint.
    fn check(checkpoint: &Path) -> Result<Vec<String>> {
        let mut stages = protocol::inventory::iter::<Registration>();
        let stage = stages.find(|stage| (stage.def)().kind == "load_head_model").unwrap();
        stage.check.unwrap()(json!({ "checkpoint": checkpoint }))
    }

    fn fault(checkpoint: &Path) -> String {
        format!("{:#}", check(checkpoint).unwrap_err())
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("effigy-head-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn weights_that_are_not_whole_are_found_before_a_run() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/weights/head-mini");
        let said = check(&shipped).unwrap();
        assert!(said.len() == 1 && said[0].contains("`train_head_model`: ambient dimensions "), "{said:?}");

        let cut = scratch("cut");
        std::fs::copy(shipped.join("head.json"), cut.join("head.json")).unwrap();
        let whole = std::fs::read(shipped.join("head.safetensors")).unwrap();
        std::fs::write(cut.join("head.safetensors"), &whole[..whole.len() / 2]).unwrap();
        let error = fault(&cut);
        assert!(error.contains("head.safetensors") && error.contains("is it cut off?"), "{error}");
        // the same as the file of somebody else
        let error = fault(&cut.join("head.safetensors"));
        assert!(error.contains("is no checkpoint") && error.contains("is it cut off?"), "{error}");
        assert!(fault(&shipped.join("head.safetensors")).contains("does not hold the anchors"));
        std::fs::remove_dir_all(&cut).unwrap();
    }

    #[test]
    fn what_is_no_checkpoint_is_not_asked_for_its_anchors() {
        let dir = scratch("noise");
        let noise = dir.join("nphm.tar");
        for content in ["", "no file that anybody would take for the weights of a network"] {
            std::fs::write(&noise, content).unwrap();
            let error = fault(&noise);
            assert!(error.contains("nphm.tar is no checkpoint") && !error.contains("anchors"), "{error}");
            assert!(error.contains("`torch.save`") && error.contains("safetensors"), "{error}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
