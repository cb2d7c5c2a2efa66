//! 3x3 convolutions with 4/9 of the multiplications: 2x2 pixels at a time out of 4x4, by products of sums (Lavin and
//! Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1; Winograd's F(2x2, 3x3)). libtorch does
//! not choose it on the CPU. Gives no gradients, and knows no layer: `layers.rs` says when.

use crate::numbers::{numbers, numbers_mut};
use multiversion::multiversion;
use tch::{Device, Kind, Tensor};

/// Products of sums for 2x2 pixels: four rows times four columns.
const PRODUCTS: usize = 16;

/// How many numbers a strip may have, so that the cache holds it.
const HELD: usize = 1 << 21;

/// From how many channels on, and tiles of 2x2 pixels, it is worth its sums.
const LEAST: [i64; 2] = [64, 512];

/// Whether [`conv3x3`] takes these, and is faster than libtorch's convolution: it is for one thread, as the samples of
/// stages are worked on.
pub fn suits(x: &Tensor, weight: &Tensor) -> bool {
    let takes = |t: &Tensor| t.device() == Device::Cpu && t.kind() == Kind::Float && t.dim() == 4;
    if !takes(x) || !takes(weight) {
        return false;
    }
    let (x, weight) = (x.size(), weight.size());
    let tiles = ((x[2] + 1) / 2) * ((x[3] + 1) / 2);
    let is_large = weight[0].min(weight[1]) >= LEAST[0] && tiles >= LEAST[1];
    weight[1..] == [x[1], 3, 3] && is_large && tch::get_num_threads() == 1
}

/// `[B, in, H, W]` with `weight` `[out, in, 3, 3]` and `bias` `[out]`, a row and a column of zeros all around:
/// `[B, out, H, W]`. Samples are worked on one by one, so that a picture comes out the same in every batch.
///
/// # Panics
/// If they have other shapes, or are not f32 on the CPU.
pub fn conv3x3(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    tch::no_grad(|| {
        let (samples, input, height, width) = x.size4().expect("a feature map is [B, C, H, W]");
        let mut out = Tensor::empty([samples, weight.size()[0], height, width], (Kind::Float, Device::Cpu));
        let shape = Shape::new([input, weight.size()[0], height, width].map(|n| n as usize));
        let (x, kernels) = (x.contiguous(), kernels(weight));
        let bias = Vec::<f32>::try_from(bias).expect("numbers of f32");
        let mut strip = Strip::new(&shape);
        let pixels = shape.height * shape.width;
        let finished = numbers_mut(&mut out).chunks_exact_mut(shape.out * pixels);
        for (sample, finished) in numbers(&x).chunks_exact(shape.input * pixels).zip(finished) {
            for first in (0..shape.down).step_by(shape.rows) {
                strip.gather(&shape, sample, first);
                let _ = kernels.bmm_out(&strip.products, &strip.sums);
                strip.spread(&shape, &bias, finished, first);
            }
        }
        out
    })
}

/// What sums of pixels are multiplied by, `[16, out, in]`: G g Gᵀ of each kernel g.
fn kernels(weight: &Tensor) -> Tensor {
    let (out, input, ..) = weight.size4().expect("a kernel is [out, in, 3, 3]");
    let g = Tensor::from_slice(&[1f32, 0., 0., 0.5, 0.5, 0.5, 0.5, -0.5, 0.5, 0., 0., 1.]).view([4, 3]);
    g.kron(&g).matmul(&weight.reshape([-1, 9]).transpose(0, 1)).view([PRODUCTS as i64, out, input])
}

/// Sizes of a convolution.
struct Shape {
    input: usize,
    out: usize,
    height: usize,
    width: usize,
    /// Rows of tiles.
    down: usize,
    /// Tiles side by side.
    across: usize,
    /// Rows of tiles that make a strip.
    rows: usize,
}

impl Shape {
    fn new([input, out, height, width]: [usize; 4]) -> Self {
        let (down, across) = (height.div_ceil(2), width.div_ceil(2));
        let rows = (HELD / (PRODUCTS * (input + out) * across)).clamp(1, down);
        Self { input, out, height, width, down, across, rows }
    }
}

/// What is worked on at a time. Rows of tiles below the map hold what was there before.
struct Strip {
    /// `[16, in, tiles]`.
    sums: Tensor,
    /// `[16, out, tiles]`.
    products: Tensor,
}

impl Strip {
    fn new(shape: &Shape) -> Self {
        let zeros = |size: [usize; 3]| Tensor::zeros(size.map(|n| n as i64), (Kind::Float, Device::Cpu));
        let tiles = shape.rows * shape.across;
        Self { sums: zeros([PRODUCTS, shape.input, tiles]), products: zeros([PRODUCTS, shape.out, tiles]) }
    }

    /// Sums of a sample's pixels, for the tiles from row `first` on: Bᵀ d B of each 4x4 pixels d.
    fn gather(&mut self, shape: &Shape, sample: &[f32], first: usize) {
        let tiles = shape.rows * shape.across;
        let mut lines: [Line; 4] = std::array::from_fn(|_| std::array::from_fn(|_| vec![0.0; shape.across + 1]));
        let mut mixed = lines.clone();
        let sums = numbers_mut(&mut self.sums);
        for (channel, map) in sample.chunks_exact(shape.height * shape.width).enumerate() {
            for row in 0..shape.rows.min(shape.down - first) {
                for (k, line) in lines.iter_mut().enumerate() {
                    match (2 * (first + row) + k).checked_sub(1).filter(|y| *y < shape.height) {
                        Some(y) => take(line, &map[y * shape.width..][..shape.width]),
                        None => take(line, &[]),
                    }
                }
                for (k, mixed) in mixed.iter_mut().enumerate() {
                    for (half, mixed) in mixed.iter_mut().enumerate() {
                        sum(k, lines.each_ref().map(|line| line[half].as_slice()), mixed);
                    }
                }
                let at = channel * tiles + row * shape.across;
                for (k, part) in sums.chunks_exact_mut(shape.input * tiles).enumerate() {
                    let [odd, even] = &mixed[k / 4];
                    sum(k % 4, [odd, even, &odd[1..], &even[1..]], &mut part[at..][..shape.across]);
                }
            }
        }
    }

    /// Pixels of a sample from the products, of the tiles from row `first` on: Aᵀ m A of each tile's 4x4 products m,
    /// and the bias.
    fn spread(&self, shape: &Shape, bias: &[f32], sample: &mut [f32], first: usize) {
        let products = numbers(&self.products);
        let mut folded: [Vec<f32>; 4] = std::array::from_fn(|_| vec![0.0; shape.across]);
        for (channel, map) in sample.chunks_exact_mut(shape.height * shape.width).enumerate() {
            let lines = map.chunks_exact_mut(shape.width).skip(2 * first).take(2 * shape.rows);
            for (y, line) in lines.enumerate() {
                for (column, folded) in folded.iter_mut().enumerate() {
                    let product = |k: usize| {
                        let at = ((4 * k + column) * shape.out + channel) * shape.rows + y / 2;
                        &products[at * shape.across..][..shape.across]
                    };
                    fold(y % 2 == 1, [0, 1, 2, 3].map(product), folded);
                }
                finish(folded.each_ref().map(Vec::as_slice), bias[channel], line);
            }
        }
    }
}

/// A row of pixels between zeros: columns -1, 1, 3 and so on, and columns 0, 2, 4; of tile t these are the first and
/// the second of its four columns, and those of the next tile the third and the fourth.
type Line = [Vec<f32>; 2];

/// Rows and columns that are not there are zeros.
fn take(line: &mut Line, row: &[f32]) {
    let [odd, even] = line;
    let pairs = row.chunks_exact(2);
    if let [last] = pairs.remainder() {
        even[row.len() / 2] = *last;
    }
    for ((pair, odd), even) in pairs.zip(&mut odd[1..]).zip(&mut *even) {
        (*even, *odd) = (pair[0], pair[1]);
    }
    if row.is_empty() {
        [odd, even].into_iter().for_each(|half| half.fill(0.0));
    }
}

/// The `k`-th of the four sums (Bᵀ d) of four numbers each.
#[multiversion(targets("x86_64+avx2"))]
fn sum(k: usize, [a, b, c, d]: [&[f32]; 4], out: &mut [f32]) {
    match k {
        0 => out.iter_mut().zip(a).zip(c).for_each(|((out, a), c)| *out = a - c),
        1 => out.iter_mut().zip(b).zip(c).for_each(|((out, b), c)| *out = b + c),
        2 => out.iter_mut().zip(b).zip(c).for_each(|((out, b), c)| *out = c - b),
        _ => out.iter_mut().zip(b).zip(d).for_each(|((out, b), d)| *out = b - d),
    }
}

/// The first or the second of the two sums (Aᵀ m) of four numbers each.
#[multiversion(targets("x86_64+avx2"))]
fn fold(second: bool, [a, b, c, d]: [&[f32]; 4], out: &mut [f32]) {
    match second {
        false => out.iter_mut().zip(a).zip(b).zip(c).for_each(|(((out, a), b), c)| *out = a + b + c),
        true => out.iter_mut().zip(b).zip(c).zip(d).for_each(|(((out, b), c), d)| *out = b - c - d),
    }
}

/// A row of pixels from the folded rows of a row of tiles: their columns folded, and a bias.
#[multiversion(targets("x86_64+avx2"))]
fn finish([a, b, c, d]: [&[f32]; 4], bias: f32, out: &mut [f32]) {
    let mut pairs = out.chunks_exact_mut(2);
    for ((((out, a), b), c), d) in pairs.by_ref().zip(a).zip(b).zip(c).zip(d) {
        (out[0], out[1]) = (a + b + c + bias, b - c - d + bias);
    }
    if let [last] = pairs.into_remainder() {
        let t = a.len() - 1;
        *last = a[t] + b[t] + c[t] + bias;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::normal;
    use crate::runtime;

    #[test]
    fn the_convolution_is_the_usual_one() {
        // wide, odd, of several strips, of several samples, hardly larger than the kernel
        for (x, out) in [([1, 64, 40, 130], 96), ([2, 70, 33, 41], 64), ([1, 256, 64, 70], 130), ([3, 5, 3, 1], 2)] {
            let x = normal(1, 0, &x);
            let weight = normal(1, 1, &[out, x.size()[1], 3, 3]);
            let bias = normal(1, 2, &[out]);
            let exact = x.to_kind(Kind::Double).conv2d(
                &weight.to_kind(Kind::Double),
                Some(bias.to_kind(Kind::Double)),
                1,
                1,
                1,
                1,
            );
            let off = |found: &Tensor| {
                (found.to_kind(Kind::Double) - &exact).square().mean(Kind::Double).sqrt().double_value(&[])
            };
            let found = conv3x3(&x, &weight, &bias);
            assert_eq!(found.size(), exact.size());
            let rounding = exact.square().mean(Kind::Double).sqrt().double_value(&[]) * f64::from(f32::EPSILON);
            assert!(off(&found) < 4.0 * rounding, "{:?}: {} of {rounding}", x.size(), off(&found));
        }
    }

    #[test]
    fn samples_change_no_bit() {
        let (x, weight, bias) = (normal(1, 0, &[3, 64, 66, 35]), normal(1, 1, &[64, 64, 3, 3]), normal(1, 2, &[64]));
        let alone = conv3x3(&x.narrow(0, 1, 1), &weight, &bias);
        assert_eq!(alone, conv3x3(&x, &weight, &bias).narrow(0, 1, 1));
    }

    #[test]
    fn a_layer_that_learns_does_not_take_it() {
        runtime::one_thread();
        let vs = tch::nn::VarStore::new(Device::Cpu);
        let conv = crate::layers::Conv2d::new(&vs.root(), 64, 64, 3, 1, 1);
        crate::init::seed(&vs, 1);
        let x = normal(1, 0, &[1, 64, 48, 48]);
        let direct = tch::no_grad(|| x.conv2d(&conv.weight, Some(&conv.bias), 1, 1, 1, 1));
        let learning = conv.forward(&x);
        assert!(learning.requires_grad() && learning.detach() == direct);
        let fast = tch::no_grad(|| conv.forward(&x));
        assert_eq!(fast, conv3x3(&x, &conv.weight, &conv.bias));
        assert!(fast != direct && fast.allclose(&direct, 1e-4, 1e-5, false), "one of them rounds otherwise");
        let x = x.set_requires_grad(true);
        assert!(conv.forward(&x).requires_grad());
    }

    #[test]
    fn it_is_for_large_maps_of_many_channels_on_the_processor() {
        let of = |x: [i64; 4], weight: [i64; 4], kind: Kind| {
            suits(&Tensor::zeros(x, (kind, Device::Cpu)), &Tensor::zeros(weight, (kind, Device::Cpu)))
        };
        runtime::one_thread();
        assert!(of([1, 64, 48, 48], [64, 64, 3, 3], Kind::Float));
        assert!(!of([1, 64, 48, 48], [64, 64, 3, 3], Kind::BFloat16));
        assert!(!of([1, 64, 48, 48], [64, 64, 1, 1], Kind::Float));
        assert!(!of([1, 64, 48, 48], [32, 64, 3, 3], Kind::Float));
        assert!(!of([1, 64, 44, 44], [64, 64, 3, 3], Kind::Float));
    }
}
