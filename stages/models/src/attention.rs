//! Attention, the transformer block of Stable Diffusion and its gated feed-forward. Does not know resolutions or blocks
//! of the U-Net. The optional third attention is the direct expression conditioning of DiffusionAvatars (section 3.4 of
//! the paper): its query is the hidden state itself, without a norm in front.

use tch::Tensor;
use tch::nn::Path;

use crate::layers::{Conv2d, GroupNorm, LayerNorm, Linear};

/// Multi-head attention: `to_q`, `to_k`, `to_v` (no bias) and `to_out.0`.
#[derive(Debug)]
pub struct Attention {
    /// Query projection.
    pub to_q: Linear,
    /// Key projection.
    pub to_k: Linear,
    /// Value projection.
    pub to_v: Linear,
    /// Output projection, with a bias.
    pub to_out: Linear,
    heads: i64,
}

impl Attention {
    /// Queries of `width` channels attend to a context of `context` channels.
    pub fn new(p: &Path, width: i64, context: i64, heads: i64) -> Self {
        Self {
            to_q: Linear::without_bias(&(p / "to_q"), width, width),
            to_k: Linear::without_bias(&(p / "to_k"), context, width),
            to_v: Linear::without_bias(&(p / "to_v"), context, width),
            to_out: Linear::new(&(p / "to_out" / 0), width, width),
            heads,
        }
    }

    /// `x` `[B, N, width]` attends to `context` `[B, M, context]`; gives `[B, N, width]`.
    pub fn forward(&self, x: &Tensor, context: &Tensor) -> Tensor {
        let split = |t: Tensor| {
            let (b, n, c) = t.size3().expect("attention works on [B, N, C]");
            t.view([b, n, self.heads, c / self.heads]).transpose(1, 2)
        };
        let (q, k, v) = (self.to_q.forward(x), self.to_k.forward(context), self.to_v.forward(context));
        let mixed = attend(&split(q), &split(k), &split(v));
        self.to_out.forward(&mixed.transpose(1, 2).flatten(2, 3))
    }
}

/// Softmax attention over `[B, heads, N, d]`, scaled by 1/sqrt(d). Scores and sums are in f32 even of halves, whatever
/// a configuration's `upcast_attention` says.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, None::<Tensor>, 0.0, false, None, false)
}

/// Self-attention (or another cross-attention), cross-attention and a GEGLU feed-forward, each with a residual and a
/// layer norm in front.
#[derive(Debug)]
pub struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    only_cross: bool,
    norm2: LayerNorm,
    /// Cross-attention to the text, which the expression attention starts from.
    pub attn2: Attention,
    norm3: LayerNorm,
    gate: Linear,
    project: Linear,
}

impl TransformerBlock {
    /// Hidden width `width`, text width `context`; with `only_cross` the first attention looks at the text, too.
    pub fn new(p: &Path, width: i64, context: i64, heads: i64, only_cross: bool) -> Self {
        Self {
            norm1: LayerNorm::new(&(p / "norm1"), width),
            attn1: Attention::new(&(p / "attn1"), width, if only_cross { context } else { width }, heads),
            only_cross,
            norm2: LayerNorm::new(&(p / "norm2"), width),
            attn2: Attention::new(&(p / "attn2"), width, context, heads),
            norm3: LayerNorm::new(&(p / "norm3"), width),
            gate: Linear::new(&(p / "ff" / "net" / 0 / "proj"), width, 8 * width),
            project: Linear::new(&(p / "ff" / "net" / 2), 4 * width, width),
        }
    }

    /// `x` `[B, N, width]`, `context` `[B, M, context]`; `expression`: the extra attention and its tokens.
    pub fn forward(&self, x: &Tensor, context: &Tensor, expression: Option<(&Attention, &Tensor)>) -> Tensor {
        let normed = self.norm1.forward(x);
        let x = self.attn1.forward(&normed, if self.only_cross { context } else { &normed }) + x;
        let mut x = self.attn2.forward(&self.norm2.forward(&x), context) + &x;
        if let Some((attention, tokens)) = expression {
            x = attention.forward(&x, tokens) + &x;
        }
        let halves = self.gate.forward(&self.norm3.forward(&x)).chunk(2, -1);
        self.project.forward(&(&halves[0] * halves[1].gelu("none"))) + &x
    }
}

/// How a transformer's channels are projected in and out.
#[derive(Debug)]
enum Projection {
    /// 1x1 convolutions (Stable Diffusion 1.x).
    Conv(Conv2d, Conv2d),
    /// Linear layers on flattened pixels (Stable Diffusion 2.x); the same map, stored with two dimensions.
    Linear(Linear, Linear),
}

/// Transformer over the pixels of a feature map.
#[derive(Debug)]
pub struct SpatialTransformer {
    norm: GroupNorm,
    projection: Projection,
    /// The blocks, one unless the configuration says otherwise.
    pub blocks: Vec<TransformerBlock>,
}

/// Sizes of a [`SpatialTransformer`].
#[derive(Debug, Clone, Copy)]
pub struct TransformerShape {
    /// Channels of the feature map.
    pub channels: i64,
    /// Channels inside, a multiple of the heads.
    pub width: i64,
    /// Channels of the text context.
    pub context: i64,
    /// Attention heads.
    pub heads: i64,
    /// Number of blocks.
    pub depth: i64,
    /// Groups of the input norm.
    pub groups: i64,
    /// Linear instead of 1x1 convolutional projections.
    pub linear: bool,
    /// Attention to the text in the place of self-attention.
    pub only_cross: bool,
}

impl SpatialTransformer {
    /// Builds it from its sizes.
    pub fn new(p: &Path, s: TransformerShape) -> Self {
        let (c, width) = (s.channels, s.width);
        let projection = if s.linear {
            Projection::Linear(Linear::new(&(p / "proj_in"), c, width), Linear::new(&(p / "proj_out"), width, c))
        } else {
            Projection::Conv(
                Conv2d::new(&(p / "proj_in"), c, width, 1, 1, 0),
                Conv2d::new(&(p / "proj_out"), width, c, 1, 1, 0),
            )
        };
        let block = |i| TransformerBlock::new(&(p / "transformer_blocks" / i), width, s.context, s.heads, s.only_cross);
        // This norm has its own eps, unlike those of the residual blocks.
        let norm = GroupNorm::new(&(p / "norm"), c, s.groups, 1e-6);
        Self { norm, projection, blocks: (0..s.depth).map(block).collect() }
    }

    /// `x` `[B, C, H, W]`; `expression`: one extra attention per block, and the tokens.
    pub fn forward(&self, x: &Tensor, context: &Tensor, expression: Option<(&[Attention], &Tensor)>) -> Tensor {
        let (_, _, h, w) = x.size4().expect("a feature map is [B, C, H, W]");
        let pixels = |t: &Tensor| t.flatten(2, 3).transpose(1, 2);
        let map = |t: &Tensor| t.transpose(1, 2).unflatten(2, [h, w]);
        let normed = self.norm.forward(x);
        let mut hidden = match &self.projection {
            Projection::Linear(input, _) => input.forward(&pixels(&normed)),
            Projection::Conv(input, _) => pixels(&input.forward(&normed)),
        };
        for (i, block) in self.blocks.iter().enumerate() {
            hidden = block.forward(&hidden, context, expression.map(|(list, tokens)| (&list[i], tokens)));
        }
        let out = match &self.projection {
            Projection::Linear(_, output) => map(&output.forward(&hidden)),
            Projection::Conv(_, output) => output.forward(&map(&hidden)),
        };
        // In this order the sum has the memory layout of `x`, not the transposed one of `out`: later layers are faster,
        // and adding zeros somewhere cannot change which of their implementations runs.
        x + out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;
    use tch::{Device, Kind};

    #[test]
    fn scores_of_halves_do_not_overflow() {
        // 300 * 300 * 8 lies beyond the largest half, 65504
        let keys = Tensor::from_slice(&[300f32, -300.]).view([1, 1, 2, 1]).expand([1, 1, 2, 8], false);
        let (query, keys) = (keys.narrow(2, 0, 1).to_kind(Kind::Half), keys.to_kind(Kind::Half));
        let values = init::normal(1, 0, &[1, 1, 2, 8]).to_kind(Kind::Half);
        assert_eq!(tch::no_grad(|| attend(&query, &keys, &values)), values.narrow(2, 0, 1));
    }

    #[test]
    fn heads_share_evenly_what_they_can_of_the_channels() {
        for linear in [false, true] {
            let shape = TransformerShape {
                channels: 8,
                width: 6,
                context: 5,
                heads: 3,
                depth: 1,
                groups: 4,
                linear,
                only_cross: true,
            };
            let (vs, transformer) = init::build(Device::Cpu, 3, |p| SpatialTransformer::new(p, shape));
            let size = |name: &str| vs.variables()[name].size();
            assert_eq!((&size("proj_in.weight")[..2], &size("proj_out.weight")[..2]), (&[6, 8][..], &[8, 6][..]));
            assert_eq!(size("transformer_blocks.0.attn2.to_q.weight"), [6, 6]);
            // both attentions look at the text
            assert_eq!(size("transformer_blocks.0.attn1.to_k.weight"), [6, 5]);
            let (x, text) = (init::normal(2, 0, &[2, 8, 3, 5]), init::normal(2, 1, &[2, 4, 5]));
            let out = tch::no_grad(|| transformer.forward(&x, &text, None));
            assert_eq!(out.size(), [2, 8, 3, 5]);
            // no pixel hears of another: each is what it would be alone, but for the norm's statistics
            let block = &transformer.blocks[0];
            let hidden = init::normal(2, 2, &[2, 15, 6]);
            let all = tch::no_grad(|| block.forward(&hidden, &text, None));
            let one = tch::no_grad(|| block.forward(&hidden.narrow(1, 7, 1), &text, None));
            assert!((all.narrow(1, 7, 1) - one).abs().max().double_value(&[]) < 1e-5);
        }
    }
}
