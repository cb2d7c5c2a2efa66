//! Blending weights: how much each local member says at a point. Knows distances, no networks.

use super::config::Blend;
use tch::{Kind, Tensor};

/// Members that take part at each of `P` points, and with what weight.
pub(crate) struct Weights {
    /// `[P, k]` anchor indices, int64; without gradient.
    pub nearest: Tensor,
    /// `[P, k + 1]` weights as blended, that is divided by their (regularised) sum; the last column is the global
    /// member.
    pub normalized: Tensor,
    /// `[P]` sum before division; for the softmax rule it is 1.
    pub sum: Tensor,
}

/// Smallest squared distance whose root is differentiated; below it the gradient is 0 instead of infinite.
const TINY: f64 = 1e-24;

/// Weights at points whose squared distances to all anchors are `squared [P, K]`. The dependence of the width on the
/// point (adaptive rule) is part of the gradient.
pub(crate) fn weights(blend: &Blend, squared: &Tensor) -> Weights {
    let (points, anchors) = squared.size2().expect("squared distances are [P, K]");
    match *blend {
        Blend::Gaussian { denominator, distance_eps, background, sum_eps } => {
            let distance = squared.clamp_min(TINY).sqrt() + distance_eps;
            let local = (distance.square() / -denominator).exp();
            let global = local.new_full([points, 1], (background / denominator).exp(), (local.kind(), local.device()));
            let nearest = Tensor::arange(anchors, (Kind::Int64, squared.device())).unsqueeze(0).repeat([points, 1]);
            divide(nearest, Tensor::cat(&[local, global], 1), sum_eps)
        }
        Blend::Softmax { denominator, background, neighbors } => {
            let nearest = nearest(squared, neighbors);
            let local = squared.gather(1, &nearest, false) / -denominator;
            let global = local.new_full([points, 1], background / denominator, (local.kind(), local.device()));
            let normalized = Tensor::cat(&[local, global], 1).softmax(1, squared.kind());
            let sum = normalized.new_ones([points], (squared.kind(), squared.device()));
            Weights { nearest, normalized, sum }
        }
        Blend::Adaptive { neighbors, blend_std, global_distance, sum_eps } => {
            let nearest = nearest(squared, neighbors);
            let local = squared.gather(1, &nearest, false).clamp_min(TINY).sqrt();
            let global = local.new_full([points, 1], global_distance, (local.kind(), local.device()));
            let all = Tensor::cat(&[local, global], 1);
            let sigma = all.narrow(1, 0, all.size()[1].min(8)).amax(1, true) / blend_std;
            divide(nearest, ((all / sigma).square() * -0.5).exp(), sum_eps)
        }
    }
}

fn divide(nearest: Tensor, weights: Tensor, sum_eps: f64) -> Weights {
    let sum = weights.sum_dim_intlist(1, true, None::<Kind>);
    let normalized = &weights / (&sum + sum_eps);
    Weights { nearest, normalized, sum: sum.squeeze_dim(1) }
}

/// Indices of the nearest anchors, nearest first.
fn nearest(squared: &Tensor, neighbors: i64) -> Tensor {
    squared.detach().topk(neighbors.min(squared.size()[1]), 1, false, true).1
}
