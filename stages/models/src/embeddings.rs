//! Embeddings of the diffusion time. Does not know what is denoised.

use tch::nn::Path;
use tch::{Kind, Tensor};

use crate::layers::Linear;

/// Sinusoids of the time (Ho et al. 2020, with Stable Diffusion's ordering): `[B]` integers -> `[B, width]`, f32; a
/// single number, of no dimensions, is one time for the whole batch: `[1, width]`. `flip` puts the cosines first;
/// `shift` lowers the number of steps that the frequencies are spread over. Rounded as diffusers does.
pub fn sinusoids(t: &Tensor, width: i64, flip: bool, shift: f64) -> Tensor {
    let half = width / 2;
    let steps = Tensor::arange(half, (Kind::Float, t.device()));
    // multiplied, then divided, and rounded after each: time 999 shows the last bit of a frequency
    let frequencies = (steps * -(10000f64.ln()) / (half as f64 - shift)).exp();
    let angles = t.to_kind(Kind::Float).reshape([-1, 1]) * frequencies.unsqueeze(0);
    let (sin, cos) = (angles.sin(), angles.cos());
    let pair = if flip { Tensor::cat(&[cos, sin], 1) } else { Tensor::cat(&[sin, cos], 1) };
    pair.constant_pad_nd([0, width - 2 * half])
}

/// Two-layer network on the sinusoids: `linear_1`, SiLU, `linear_2`.
#[derive(Debug)]
pub struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimeEmbedding {
    /// From `inputs` sinusoids to `width` values.
    pub fn new(p: &Path, inputs: i64, width: i64) -> Self {
        Self {
            linear_1: Linear::new(&(p / "linear_1"), inputs, width),
            linear_2: Linear::new(&(p / "linear_2"), width, width),
        }
    }

    /// `[B, inputs]` -> `[B, width]`, in the numbers of its weights.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(self.linear_1.weight.kind());
        self.linear_2.forward(&self.linear_1.forward(&x).silu())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_time_is_that_of_the_whole_batch() {
        let [alone, listed] = [Tensor::from(7i64), Tensor::from_slice(&[7i64])].map(|t| sinusoids(&t, 8, true, 0.0));
        assert_eq!(alone.size(), [1, 8]);
        assert!(alone.equal(&listed));
    }

    #[test]
    fn frequencies_are_rounded_as_diffusers_rounds_them() {
        for width in [72, 320] {
            let half = width / 2;
            let logarithm = -(10000f64.ln()) as f32;
            let exponents: Vec<f32> = (0..half).map(|i| i as f32 * logarithm / half as f32).collect();
            let frequencies: Vec<f32> = Vec::try_from(Tensor::from_slice(&exponents).exp()).unwrap();
            let waves = sinusoids(&Tensor::from_slice(&[999i64]), width, false, 0.0);
            assert_eq!(waves.size(), [1, width]);
            for (i, frequency) in (0..half).zip(frequencies) {
                let (sin, cos) = f64::from(999f32 * frequency).sin_cos();
                let found = [i, half + i].map(|at| waves.double_value(&[0, at]));
                assert!(
                    (found[0] - sin).abs() < 1e-6 && (found[1] - cos).abs() < 1e-6,
                    "width {width}, {i}: {found:?}, not {sin} and {cos}"
                );
            }
        }
    }
}
