//! Published head models: the checkpoints of NPHM (Giebenhain et al., CVPR 2023) and MonoNPHM (CVPR 2024) as a
//! [`HeadModel`].
//!
//! The generation is told by the names of the tensors, and every dimension by their shapes; blending rule and
//! activation are the generation's, as no tensor shows them. Optimiser states and validation codes are left out. The
//! mean anchors are in neither checkpoint and come as an array. Names and shapes: the public code of both, MIT licence;
//! the weights have licences of their own. Knows no rows and no folders.

use super::config::{Activation, Blend, ColorConfig, DeformationConfig, Direction, HeadConfig, IdentityConfig, Layout};
use super::field::HeadModel;
use crate::checkpoint::{self, Checkpoint};
use crate::weights::{Tensors, WeightFile, WeightsError};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Parts of a checkpoint that are no part of a head model: the state of a training, and codes of other people's
/// validation.
const TRAINING: [&str; 4] = ["optimizer", "latent_codes_val", "epoch", "scheduler"];

/// Parts of an identity network, where a file holds it alone.
const IDENTITY: [&str; 5] =
    ["ensembled_deep_sdf.", "mlp_pos.", "deepSDFensemble.", "aggr_app.", "communcation_bottleneck"];

/// A published head model.
pub struct Published {
    /// Both networks.
    pub model: HeadModel,
    /// Codes of the people it was trained on, if the files hold them: `identity` `[N, d_id]`, `appearance` `[N, d_id]`,
    /// `expression` `[M, d_ex]`.
    pub codes: Tensors,
    /// Tensors that say nothing about the model, by name: the optimiser's and the validation's.
    pub left: Vec<String>,
}

/// Reads a model from its files: NPHM's identity and expression checkpoints, or MonoNPHM's only one, as `torch.save`
/// wrote them or as safetensors of the same names. `mean_anchors [K, 3]`, symmetric pairs first, is the asset
/// `anchors_39.npy` or `anchors_65.npy` of the public code.
///
/// # Errors
/// If a file cannot be read, is of another model, lacks a tensor, has one that the model does not, or one of another
/// shape.
pub fn read(files: &[&Path], mean_anchors: &Tensor) -> Result<Published, WeightsError> {
    let source = files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ");
    let mut parts = Parts { source, ..Parts::default() };
    for path in files {
        let file = read_file(path)?;
        parts.left.extend(file.left);
        parts.sort(file.tensors, &path.display().to_string())?;
    }
    parts.build(mean_anchors)
}

/// The tensors of a file that are not the state of a training.
fn read_file(path: &Path) -> Result<Checkpoint, WeightsError> {
    let wanted = |name: &str| !TRAINING.iter().any(|part| name.starts_with(part));
    if checkpoint::is_one(path) {
        return checkpoint::read_where(path, wanted);
    }
    let file = WeightFile::open(path)?;
    let (names, left): (Vec<String>, Vec<String>) = file.names().into_iter().partition(|name| wanted(name));
    let tensors = names.into_iter().map(|name| file.tensor(&name).map(|t| (name, t))).collect::<Result<_, _>>()?;
    Ok(Checkpoint { tensors, left })
}

/// What the files hold, by what it is of.
#[derive(Default)]
struct Parts {
    source: String,
    /// Under `id_decoder.` and `ex_decoder.`.
    weights: Tensors,
    codes: Tensors,
    left: Vec<String>,
}

impl Parts {
    /// Gives each tensor of a file its place.
    fn sort(&mut self, tensors: Tensors, file: &str) -> Result<(), WeightsError> {
        let deforms = tensors.keys().any(|name| name.contains("defDeepSDF."));
        for (name, tensor) in tensors {
            let inner = name.strip_prefix("decoder_state_dict.").unwrap_or(&name);
            let place = if inner.starts_with("id_decoder.") || inner.starts_with("ex_decoder.") {
                inner.to_owned()
            } else if IDENTITY.iter().any(|part| inner.starts_with(part)) {
                format!("id_decoder.{inner}")
            } else if ["defDeepSDF.", "compressor."].iter().any(|part| inner.starts_with(part)) {
                format!("ex_decoder.{inner}")
            } else if inner.starts_with("lin0.") {
                return Err(wrong(
                    file,
                    format!("its tensor {name} belongs to NPM, one network for the whole head without anchors"),
                    "take the NPHM checkpoints, `nphm_identity_space…` and `nphm_expression_space…`",
                ));
            } else if let Some(code) = code_of(&name, deforms) {
                self.codes.insert(code.to_owned(), tensor.to_kind(Kind::Float));
                continue;
            } else {
                // the network will name it as one that it does not have
                name.clone()
            };
            if self.weights.insert(place.clone(), tensor.to_kind(Kind::Float)).is_some() {
                return Err(wrong(file, format!("{place} is in it and in another file too"), "name each file once"));
            }
        }
        Ok(())
    }

    fn build(mut self, mean_anchors: &Tensor) -> Result<Published, WeightsError> {
        let config = Shapes { source: &self.source, weights: &self.weights }.config()?;
        config.check()?;
        let mut model = HeadModel::new(&config, mean_anchors, Device::Cpu)?;
        model.set_tensors(&self.weights, &self.source)?;
        if let Some((name, _)) = self.weights.iter().find(|(_, t)| t.isfinite().all().int64_value(&[]) == 0) {
            return Err(wrong(
                &self.source,
                format!("tensor {name} has values that are not finite"),
                "was the copy damaged?",
            ));
        }
        model.vs.freeze();
        for (name, width) in [
            ("identity", config.identity.d_id()),
            ("appearance", config.identity.d_id()),
            ("expression", config.deformation.d_ex),
        ] {
            let size = self.codes.get(name).map(Tensor::size);
            if let Some(size) = size.filter(|size| size.len() != 2 || size[1] != width) {
                let reason = format!("its {name} codes are {size:?}, the networks take [people, {width}]");
                return Err(wrong(&self.source, reason, "do the files belong together?"));
            }
        }
        self.left.sort();
        Ok(Published { model, codes: self.codes, left: self.left })
    }
}

/// Which table of trained codes a tensor is. NPHM's expression checkpoint names its codes as the identity's does.
fn code_of(name: &str, deforms: bool) -> Option<&'static str> {
    match name {
        "latent_codes_state_dict.weight" | "latent_codes.weight" if deforms => Some("expression"),
        "latent_codes_state_dict.weight" | "latent_codes.weight" => Some("identity"),
        _ => match name.strip_prefix("latent_codes.codebook.")?.strip_suffix(".embedding.weight")? {
            "geo" => Some("identity"),
            "app" => Some("appearance"),
            "exp" => Some("expression"),
            _ => None,
        },
    }
}

fn wrong(place: &str, reason: String, hint: &str) -> WeightsError {
    WeightsError::Config { place: place.into(), reason, hint: hint.into() }
}

/// Dimensions out of shapes.
struct Shapes<'a> {
    source: &'a str,
    weights: &'a Tensors,
}

impl Shapes<'_> {
    fn wrong(&self, reason: String) -> WeightsError {
        wrong(
            self.source,
            reason,
            "NPHM's two checkpoints hold `ensembled_deep_sdf` and `defDeepSDF` under `decoder_state_dict`, MonoNPHM's one `id_decoder` and `ex_decoder`",
        )
    }

    /// Shape of a tensor, which has as many axes.
    fn shape<const N: usize>(&self, name: &str) -> Result<[i64; N], WeightsError> {
        let tensor = self.weights.get(name).ok_or_else(|| self.wrong(format!("there is no tensor {name}")))?;
        let size = tensor.size();
        <[i64; N]>::try_from(size.as_slice())
            .map_err(|_| self.wrong(format!("tensor {name} is {size:?}, and should have {N} axes")))
    }

    /// How many `{prefix}{0, step, 2 step, ..}.weight` there are.
    fn count(&self, prefix: &str, step: usize, suffix: &str) -> Result<i64, WeightsError> {
        let there = |i: &usize| self.weights.contains_key(&format!("{prefix}{}{suffix}", i * step));
        match (0..).take_while(there).count() as i64 {
            0 => Err(self.wrong(format!("there is no tensor {prefix}0{suffix}"))),
            count => Ok(count),
        }
    }

    fn config(&self) -> Result<HeadConfig, WeightsError> {
        let has = |part: &str| self.weights.keys().any(|name| name.starts_with(part));
        let layout = match (has("id_decoder.ensembled_deep_sdf."), has("id_decoder.deepSDFensemble.")) {
            (true, false) => Layout::Nphm,
            (false, true) => Layout::MonoNphm,
            (true, true) => return Err(self.wrong("it has identity networks of both generations".into())),
            (false, false) if has("ex_decoder.") => {
                return Err(self.wrong("it has an expression network and no identity network".into()));
            }
            (false, false) => return Err(self.wrong("it has no identity network".into())),
        };
        if !has("ex_decoder.") {
            return Err(self.wrong("it has an identity network and no expression network".into()));
        }
        let identity = self.identity(layout)?;
        let deformation = self.deformation(&identity)?;
        Ok(HeadConfig { identity, deformation })
    }

    fn identity(&self, layout: Layout) -> Result<IdentityConfig, WeightsError> {
        let [pos_hidden, d_glob] = self.shape("id_decoder.mlp_pos.0.weight")?;
        let [flat, _] = self.shape("id_decoder.mlp_pos.4.weight")?;
        let anchors = flat / 3;
        // width of input and output of each layer of a member
        let (unique, widths) = match layout {
            Layout::Nphm => {
                let prefix = "id_decoder.ensembled_deep_sdf.lin";
                let [unique, ..] = self.shape::<3>(&format!("{prefix}0.weight"))?;
                let width = |i: i64| self.shape::<3>(&format!("{prefix}{i}.weight")).map(|[_, to, from]| (from, to));
                (unique, (0..self.count(prefix, 1, ".weight")?).map(width).collect::<Result<Vec<_>, _>>()?)
            }
            Layout::MonoNphm => {
                let prefix = "id_decoder.deepSDFensemble.layers.";
                let unique = self.count(prefix, 1, ".layers.0.weight")?;
                (unique, self.separate(&format!("{prefix}0.layers."))?)
            }
        };
        // 2 pairs + middle = anchors, and pairs + middle + 1 = unique
        let (pairs, middle) = (anchors + 1 - unique, 2 * (unique - 1) - anchors);
        if 3 * anchors != flat || pairs < 0 || middle < 0 {
            return Err(self.wrong(format!(
                "{flat} anchor coordinates (id_decoder.mlp_pos.4.weight) and {unique} sets of member weights do not go together"
            )));
        }
        let (hidden, input) = (widths[widths.len() - 1].0, widths[0].0);
        let skip_layer = (1..widths.len()).find(|&i| widths[i - 1].1 != widths[i].0).map(|i| i as i64);
        // a code is [global | anchors + 1 times local], and the compressor reads it and the anchors
        let [_, compressed] = self.shape("ex_decoder.compressor.0.weight")?;
        let local = compressed - 3 * anchors - d_glob;
        let d_loc = local / (anchors + 1);
        let n_hyper = input - 3 - d_glob - d_loc;
        if local % (anchors + 1) != 0 || d_loc < 1 || n_hyper < 0 {
            return Err(self.wrong(format!(
                "ex_decoder.compressor.0.weight reads {compressed} numbers; codes of {anchors} anchors and one global member with a \
                 global part of {d_glob} do not make that"
            )));
        }
        let published = match layout {
            Layout::Nphm => HeadConfig::nphm(),
            Layout::MonoNphm => HeadConfig::mononphm(),
        };
        let color = match self.weights.keys().any(|name| name.starts_with("id_decoder.aggr_app.")) {
            true => {
                let widths = self.separate("id_decoder.aggr_app.layers.0.layers.")?;
                let [bottleneck, _] = self.shape("id_decoder.communcation_bottleneck1.weight")?;
                Some(ColorConfig { hidden: widths[0].1, layers: widths.len() as i64 - 1, bottleneck })
            }
            false => None,
        };
        Ok(IdentityConfig {
            pairs,
            middle,
            d_glob,
            d_loc,
            n_hyper,
            hidden,
            layers: widths.len() as i64 - 1,
            skip_layer,
            pos_hidden,
            activation: Activation::Softplus(100.0),
            layout,
            blend: published.identity.blend,
            color,
        })
    }

    /// Widths of a member of modules, whose layers have even numbers.
    fn separate(&self, prefix: &str) -> Result<Vec<(i64, i64)>, WeightsError> {
        let width = |i: i64| self.shape::<2>(&format!("{prefix}{}.weight", 2 * i)).map(|[to, from]| (from, to));
        (0..self.count(prefix, 2, ".weight")?).map(width).collect()
    }

    fn deformation(&self, identity: &IdentityConfig) -> Result<DeformationConfig, WeightsError> {
        let prefix = "ex_decoder.defDeepSDF.lin";
        let width = |i: i64| self.shape::<2>(&format!("{prefix}{i}.weight")).map(|[to, from]| (from, to));
        let widths = (0..self.count(prefix, 1, ".weight")?).map(width).collect::<Result<Vec<_>, _>>()?;
        let [d_compress, _] = self.shape("ex_decoder.compressor.0.weight")?;
        let (last, input) = (widths[widths.len() - 1], widths[0].0);
        let skip = (1..widths.len()).find(|&i| widths[i - 1].1 != widths[i].0);
        let skip = skip.ok_or_else(|| self.wrong(format!("no layer of {prefix}… sees the input again")))?;
        Ok(DeformationConfig {
            d_id: identity.d_id(),
            anchors: identity.anchors(),
            d_ex: input - 3 - d_compress,
            d_compress,
            hidden: last.0,
            layers: widths.len() as i64 - 1,
            skip_layer: skip as i64,
            // either the layer before makes room for the input, or the input is appended
            narrow: widths[skip - 1].1 + input == widths[skip].0 && widths[skip].0 == last.0,
            n_hyper: last.1 - 3,
            direction: match identity.layout {
                Layout::Nphm => Direction::Forward,
                Layout::MonoNphm => Direction::Backward,
            },
            activation: Activation::Softplus(100.0),
            last_std: None,
        })
    }
}

/// Facts about a model, for a table or a log: name and value.
pub fn facts(published: &Published) -> BTreeMap<&'static str, i64> {
    let (id, ex) = (&published.model.config.identity, &published.model.config.deformation);
    BTreeMap::from([
        ("anchors", id.anchors()),
        ("symmetric pairs", id.pairs),
        ("identity code", id.d_id()),
        ("expression code", ex.d_ex),
        ("ambient dimensions", id.n_hyper),
    ])
}

/// Name of the generation that a model is laid out as.
pub fn generation(config: &HeadConfig) -> &'static str {
    match (config.identity.layout, &config.identity.blend) {
        (Layout::Nphm, Blend::Gaussian { .. }) => "NPHM",
        (Layout::MonoNphm, Blend::Adaptive { .. }) => "MonoNPHM",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
