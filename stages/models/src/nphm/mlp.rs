//! Conditioned MLPs, many at once: each member of a group maps `[coordinates | latent]` with its own weights.
//! The latent is the same for all points of a scan, so its share of a layer is computed once per scan and added as a bias: the
//! result is that of concatenating first. Knows nothing of anchors, blending or variable names.

use super::config::Activation;
use tch::Tensor;

/// Weights of one linear layer of a group of `M` members.
pub(crate) struct Layer {
    /// `[M, out, in]`.
    pub weight: Tensor,
    /// `[M, out]`.
    pub bias: Tensor,
}

/// What the group computes, apart from its weights.
pub(crate) struct Wiring {
    /// Coordinates come first in the input (else last).
    pub coords_first: bool,
    /// Layer that sees `[activations | input] / sqrt 2`.
    pub skip: Option<i64>,
    /// Between layers.
    pub between: Between,
}

/// What lies between layers.
#[derive(Clone, Copy)]
pub(crate) enum Between {
    /// A smooth one, for fields whose gradients are trained on.
    Smooth(Activation),
    /// max(0, x).
    Relu,
}

/// To which scan each point belongs.
pub(crate) enum Owner<'a> {
    /// `P = B * N`: the first `N` points belong to scan 0, and so on.
    InOrder,
    /// `[P]` scan numbers.
    Of(&'a Tensor),
}

/// Runs a group. `coords [M, P, C]`, `latents [M, B, L]`; gives the output `[M, P, out]` and the last hidden layer before its
/// activation, `[M, P, hidden]` (MonoNPHM's colour branch reads that).
///
/// Inside, values are multiplied by the activation's beta: softplus_beta(a) = softplus(beta a) / beta, so scaling inputs and biases
/// once replaces a scaling in every layer.
pub(crate) fn run(
    layers: &[Layer],
    wiring: &Wiring,
    coords: &Tensor,
    latents: &Tensor,
    owner: &Owner<'_>,
) -> (Tensor, Tensor) {
    let (members, points, c) = coords.size3().expect("coords are [M, P, C]");
    let (_, scans, l) = latents.size3().expect("latents are [M, B, L]");
    let (beta, activate): (f64, fn(&Tensor) -> Tensor) = match wiring.between {
        Between::Smooth(Activation::Softplus(beta)) => (beta, Tensor::softplus),
        Between::Smooth(Activation::Squareplus(beta)) => (beta, squareplus),
        Between::Relu => (1.0, Tensor::relu),
    };
    let coords = coords * beta;
    let latents = latents * beta;
    let input_layer = |weight: &Tensor, bias: &Tensor| {
        let (ci, li) = if wiring.coords_first { (0, c) } else { (l, 0) };
        let per_scan = bias.baddbmm(&latents, &weight.narrow(2, li, l).transpose(1, 2), 1.0, 1.0);
        let per_point = match owner {
            Owner::InOrder => {
                let width = per_scan.size()[2];
                let size = [members, scans, points / scans, width];
                per_scan.unsqueeze(2).expand(size, false).reshape([members, points, width])
            }
            Owner::Of(scan) => per_scan.index_select(1, scan),
        };
        per_point.baddbmm(&coords, &weight.narrow(2, ci, c).transpose(1, 2), 1.0, 1.0)
    };

    let mut hidden = Tensor::new();
    for (i, layer) in layers.iter().enumerate() {
        let bias = layer.bias.unsqueeze(1) * beta;
        let pre = if i == 0 {
            input_layer(&layer.weight, &bias)
        } else if wiring.skip == Some(i as i64) {
            let xs = activate(&hidden);
            let weight = &layer.weight * std::f64::consts::FRAC_1_SQRT_2;
            let own = xs.size()[2];
            let from_input = input_layer(&weight.narrow(2, own, c + l), &bias);
            from_input.baddbmm(&xs, &weight.narrow(2, 0, own).transpose(1, 2), 1.0, 1.0)
        } else {
            bias.baddbmm(&activate(&hidden), &layer.weight.transpose(1, 2), 1.0, 1.0)
        };
        if i + 1 == layers.len() {
            return (pre / beta, hidden / beta);
        }
        hidden = pre;
    }
    unreachable!("a group has at least two layers")
}

/// Squareplus with beta 1: `(x + sqrt(x^2 + (2 ln 2)^2)) / 2`.
fn squareplus(x: &Tensor) -> Tensor {
    const WIDTH: f64 = 2.0 * std::f64::consts::LN_2;
    (x + (x.square() + WIDTH * WIDTH).sqrt()) * 0.5
}
