//! The four layers everything is made of. Variables are named `weight` and `bias`; they start as zeros (norms: one and
//! zero) because weights are loaded, or seeded by name in `init.rs`. Does not know how layers are combined.

use tch::Tensor;
use tch::nn::Path;

use crate::{runtime, winograd};

/// 2-D convolution over `[B, C, H, W]`.
#[derive(Debug)]
pub struct Conv2d {
    /// `[out, in, k, k]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// A square kernel of side `k`.
    pub fn new(p: &Path, inputs: i64, outputs: i64, k: i64, stride: i64, padding: i64) -> Self {
        let weight = p.zeros("weight", &[outputs, inputs, k, k]);
        Self { weight, bias: p.zeros("bias", &[outputs]), stride, padding }
    }

    /// `[B, in, H, W]` -> `[B, out, H', W']`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        convolve(x, &self.weight, &self.bias, self.stride, self.padding)
    }
}

/// The convolution of a [`Conv2d`], in fewer multiplications where no gradient is kept and that is faster.
pub fn convolve(x: &Tensor, weight: &Tensor, bias: &Tensor, stride: i64, padding: i64) -> Tensor {
    let learns = || runtime::keeps_gradients() && [x, weight, bias].iter().any(|t| t.requires_grad());
    if (stride, padding) == (1, 1) && winograd::suits(x, weight) && !learns() {
        winograd::conv3x3(x, weight, bias)
    } else {
        x.conv2d(weight, Some(bias), stride, padding, 1, 1)
    }
}

/// Affine map of the last dimension.
#[derive(Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`, or none.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// With a bias.
    pub fn new(p: &Path, inputs: i64, outputs: i64) -> Self {
        Self { weight: p.zeros("weight", &[outputs, inputs]), bias: Some(p.zeros("bias", &[outputs])) }
    }

    /// Without a bias.
    pub fn without_bias(p: &Path, inputs: i64, outputs: i64) -> Self {
        Self { weight: p.zeros("weight", &[outputs, inputs]), bias: None }
    }

    /// `[..., in]` -> `[..., out]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        // As one matrix: libtorch would otherwise choose between one product and one per sample by whether the weights
        // want gradients, and a frozen network would differ from the same network unfrozen in the last bit.
        let mut size = x.size();
        let last = size.len() - 1;
        let flat = x.reshape([-1, size[last]]).linear(&self.weight, self.bias.as_ref());
        size[last] = -1;
        flat.view(size.as_slice())
    }
}

/// Group normalisation over `[B, C, ...]`.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// `channels` must be a multiple of `groups`.
    pub fn new(p: &Path, channels: i64, groups: i64, eps: f64) -> Self {
        Self { weight: p.ones("weight", &[channels]), bias: p.zeros("bias", &[channels]), groups, eps }
    }

    /// Same shape as the input.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.group_norm(self.groups, Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}

/// Layer normalisation over the last dimension, eps 1e-5.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    /// Over `channels` values.
    pub fn new(p: &Path, channels: i64) -> Self {
        Self { weight: p.ones("weight", &[channels]), bias: p.zeros("bias", &[channels]) }
    }

    /// Same shape as the input.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), 1e-5, true)
    }
}
