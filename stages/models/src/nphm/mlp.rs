//! Conditioned MLPs, several at once: each member of a group maps `[coordinates | latent]` with its own weights. The
//! latent is the same for all points of a scan, so its share of a layer is computed once per scan and added as a bias:
//! the result is that of concatenating first. Knows nothing of anchors, blending or variable names.

use super::config::Activation;
use tch::Tensor;

/// What a group computes, apart from its weights.
#[derive(Clone, Copy)]
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

/// A group of `G` members, its weights laid out for evaluation.
///
/// Inside, values are multiplied by the activation's beta: softplus_beta(a) = softplus(beta a) / beta, so scaling
/// inputs and biases once replaces a scaling in every layer.
pub(crate) struct Group {
    layers: Vec<Layer>,
    between: Between,
    beta: f64,
}

/// One layer, transposed and scaled: `out = bias + own a + coords x + latents z`.
struct Layer {
    /// `[G, own, out]`; layers but the first.
    own: Option<Tensor>,
    /// `[G, C, out]` and `[G, L, out]`; the first layer and the skip layer.
    input: Option<[Tensor; 2]>,
    /// `[G, 1, out]`.
    bias: Tensor,
}

impl Group {
    /// From weights `[G, out, in]` and biases `[G, out]`, layer by layer; the input has `c` coordinates and `l`
    /// latents.
    pub fn new(weights: &[(Tensor, Tensor)], wiring: Wiring, c: i64, l: i64) -> Self {
        // what `activate` gives is this many times too large
        let (beta, excess) = match wiring.between {
            Between::Smooth(Activation::Softplus(beta)) => (beta, 1.0),
            Between::Smooth(Activation::Squareplus(beta)) => (beta, 2.0),
            Between::Relu => (1.0, 1.0),
        };
        let layer = |(i, (weight, bias)): (usize, &(Tensor, Tensor))| {
            let skips = wiring.skip == Some(i as i64);
            let sees_input = i == 0 || skips;
            let share = if skips { std::f64::consts::FRAC_1_SQRT_2 } else { 1.0 };
            let columns = weight.size()[2];
            let own = if sees_input { columns - c - l } else { columns };
            let part = |from: i64, count: i64, scale: f64| {
                let part = weight.narrow(2, from, count).transpose(1, 2);
                if scale == 1.0 { part } else { part * scale }
            };
            let (coords, latents) = if wiring.coords_first { (own, own + c) } else { (own + l, own) };
            Layer {
                own: (i > 0).then(|| part(0, own, share / excess)),
                input: sees_input.then(|| [part(coords, c, share * beta), part(latents, l, share * beta)]),
                bias: bias.unsqueeze(1) * beta,
            }
        };
        Self { layers: weights.iter().enumerate().map(layer).collect(), between: wiring.between, beta }
    }

    /// The members one by one, as groups of one.
    pub fn split(&self) -> Vec<Group> {
        let each = |t: &Tensor| t.split(1, 0).into_iter();
        let mut groups: Vec<Group> = Vec::new();
        for layer in &self.layers {
            let mut own = layer.own.as_ref().map(each);
            let mut input = layer.input.as_ref().map(|[c, l]| each(c).zip(each(l)));
            for (g, bias) in each(&layer.bias).enumerate() {
                if groups.len() <= g {
                    groups.push(Group { layers: Vec::new(), between: self.between, beta: self.beta });
                }
                groups[g].layers.push(Layer {
                    own: own.as_mut().and_then(Iterator::next),
                    input: input.as_mut().and_then(Iterator::next).map(|(c, l)| [c, l]),
                    bias,
                });
            }
        }
        groups
    }

    /// What latents `[G, B, L]` add to each layer that sees the input: `[G, B, out]`, bias included.
    pub fn shares(&self, latents: &Tensor) -> Vec<Tensor> {
        let share = |layer: &Layer| Some(layer.bias.baddbmm(latents, &layer.input.as_ref()?[1], 1.0, 1.0));
        self.layers.iter().filter_map(share).collect()
    }

    /// Evaluates the group at `coords [G, P, C]`, given the latents' shares at these points (`[G, P, out]`, or `[G, 1,
    /// out]` where all points share one). Gives the output `[G, P, out]` and the last hidden layer before its
    /// activation, `[G, P, hidden]` (which MonoNPHM's colour branch reads).
    pub fn run(&self, coords: &Tensor, shares: &[Tensor]) -> (Tensor, Tensor) {
        let mut shares = shares.iter();
        let mut hidden = Tensor::new();
        let mut activated: Option<Tensor> = None;
        for layer in &self.layers {
            let mut out = match &layer.input {
                Some([weight, _]) => {
                    shares.next().expect("a share for each layer that sees the input").baddbmm(coords, weight, 1.0, 1.0)
                }
                None => layer.bias.shallow_clone(),
            };
            if let (Some(xs), Some(own)) = (&activated, &layer.own) {
                out = out.baddbmm(xs, own, 1.0, 1.0);
            }
            if activated.is_some() && std::ptr::eq(layer, &self.layers[self.layers.len() - 1]) {
                return (out / self.beta, hidden / self.beta);
            }
            activated = Some(self.activate(&out));
            hidden = out;
        }
        unreachable!("a group has at least two layers")
    }

    fn activate(&self, x: &Tensor) -> Tensor {
        match self.between {
            Between::Smooth(Activation::Softplus(_)) => x.softplus(),
            Between::Smooth(Activation::Squareplus(_)) => {
                const WIDTH: f64 = 2.0 * std::f64::consts::LN_2;
                let width = Tensor::full([1], WIDTH * WIDTH, (x.kind(), x.device()));
                x + width.addcmul(x, x).sqrt()
            }
            Between::Relu => x.relu(),
        }
    }
}

/// Repeats rows `[G, B, H]` for the points of each scan, `[G, B * N, H]`; a single scan's row is left to broadcasting.
pub(crate) fn spread(per_scan: &Tensor, per_point: i64) -> Tensor {
    let (groups, scans, width) = per_scan.size3().expect("rows are [G, B, H]");
    if scans == 1 {
        return per_scan.shallow_clone();
    }
    per_scan.unsqueeze(2).expand([groups, scans, per_point, width], false).reshape([groups, scans * per_point, width])
}
