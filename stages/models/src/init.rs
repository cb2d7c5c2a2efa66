//! Where random numbers come from: initial weights and noise, as functions of a seed and a name or number.
//!
//! Nothing here touches libtorch's global generator, so results do not depend on what else runs in the process, and a
//! resumed training draws the noise of step k without replaying the steps before it. Knows no network.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// Standard normal numbers of the given shape: a function of `seed` and `stream` alone (Box-Muller on ChaCha8).
pub fn normal(seed: u64, stream: u64, shape: &[i64]) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let mut rng = generator(seed, stream);
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // 1 - u lies in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - unit(&mut rng)).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * unit(&mut rng)).sin_cos();
        values.push((radius * cos) as f32);
        values.push((radius * sin) as f32);
    }
    values.truncate(count);
    Tensor::from_slice(&values).view(shape)
}

/// Uniform numbers in [low, high): a function of `seed` and `stream` alone.
pub fn uniform(seed: u64, stream: u64, shape: &[i64], low: f64, high: f64) -> Tensor {
    let mut rng = generator(seed, stream);
    let count = shape.iter().product::<i64>();
    let values: Vec<f32> = (0..count).map(|_| (low + (high - low) * unit(&mut rng)) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Whole numbers in [0, end): a function of `seed` and `stream` alone.
pub fn integers(seed: u64, stream: u64, count: usize, end: i64) -> Vec<i64> {
    let mut rng = generator(seed, stream);
    (0..count).map(|_| ((unit(&mut rng) * end as f64) as i64).min(end - 1)).collect()
}

/// Gives every variable its initial value, PyTorch's default for its layer: weights of two or more dimensions and the
/// biases beside them are uniform in +-1/sqrt(fan in), norms are one and zero. A variable's numbers depend on `seed`
/// and its name only, so adding a layer leaves the others as they were.
pub fn seed(vs: &VarStore, seed: u64) {
    let variables = vs.variables();
    let fan_in = |name: &str| -> Option<i64> {
        let weight = variables.get(name)?;
        let size = weight.size();
        (size.len() >= 2).then(|| size[1..].iter().product())
    };
    tch::no_grad(|| {
        for (name, variable) in &variables {
            let weight = match name.strip_suffix("bias") {
                Some(stem) => format!("{stem}weight"),
                None => name.clone(),
            };
            let mut variable = variable.shallow_clone();
            match fan_in(&weight) {
                Some(fan) => {
                    let bound = 1.0 / (fan as f64).sqrt();
                    variable.copy_(&uniform(seed, name_stream(name), &variable.size(), -bound, bound));
                }
                None if name.ends_with("bias") => _ = variable.zero_(),
                None => _ = variable.fill_(1.0),
            }
        }
    });
}

/// A network on the CPU (or another device) with its variables, built by `build` and seeded.
pub fn build<N>(device: Device, seed_value: u64, build: impl FnOnce(&tch::nn::Path) -> N) -> (VarStore, N) {
    let vs = VarStore::new(device);
    let network = build(&vs.root());
    seed(&vs, seed_value);
    (vs, network)
}

/// Number of the stream that belongs to a name (FNV-1a).
pub fn name_stream(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn generator(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// Uniform in [0, 1) with 53 bits.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn noise_is_standard_normal_and_a_function_of_seed_and_stream() {
        let x = normal(1, 2, &[40_000]);
        assert!(x.mean(Kind::Double).double_value(&[]).abs() < 0.02);
        assert!((x.std(true).double_value(&[]) - 1.0).abs() < 0.02);
        assert_eq!(x, normal(1, 2, &[40_000]));
        assert_ne!(x.narrow(0, 0, 100), normal(1, 3, &[100]));
        assert_ne!(x.narrow(0, 0, 100), normal(2, 2, &[100]));
    }

    #[test]
    fn initial_values_follow_the_layer() {
        let (vs, _) = build(Device::Cpu, 3, |p| {
            (
                crate::layers::Conv2d::new(&(p / "conv"), 4, 6, 3, 1, 1),
                crate::layers::GroupNorm::new(&(p / "norm"), 6, 2, 1e-5),
            )
        });
        let v = vs.variables();
        let bound = 1.0 / 36f64.sqrt();
        for name in ["conv.weight", "conv.bias"] {
            let largest = v[name].abs().max().double_value(&[]);
            assert!(largest <= bound && largest > 0.3 * bound, "{name} {largest}");
        }
        assert_eq!(v["norm.weight"].min().double_value(&[]), 1.0);
        assert_eq!(v["norm.bias"].abs().max().double_value(&[]), 0.0);
    }
}
