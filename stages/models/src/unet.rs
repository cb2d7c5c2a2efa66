//! The denoising U-Net of Stable Diffusion 1.x and 2.x (diffusers' `UNet2DConditionModel`), with two optional inputs:
//! the residuals of a ControlNet, and the expression attentions of DiffusionAvatars. Does not know noise schedules or
//! losses.

use tch::nn::Path;
use tch::{Device, Tensor};

use crate::attention::{Attention, TransformerShape};
use crate::blocks::{Context, DownBlock, LevelAttentions, MidBlock, Norms, Shared, UpBlock};
use crate::config::{Level, Middle, Transformers};
use crate::embeddings::{TimeEmbedding, sinusoids};
use crate::layers::{Conv2d, GroupNorm};
use crate::tape::Tape;

pub use crate::config::UNetConfig;

/// The contracting half and the middle, which a ControlNet copies.
#[derive(Debug)]
pub struct Encoder {
    config: UNetConfig,
    time_embedding: TimeEmbedding,
    conv_in: Conv2d,
    /// The levels, finest first.
    pub down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
}

/// What [`Encoder::down`] gives: the deepest features and every skip connection, finest first.
pub struct Features {
    /// Output of the deepest level, before the middle.
    pub x: Tensor,
    /// Output of the first convolution and of every stage.
    pub skips: Vec<Tensor>,
}

impl Encoder {
    /// Creates the variables at the root of `p`, under diffusers' names.
    pub fn new(p: &Path, config: &UNetConfig) -> Self {
        let widths = &config.block_out_channels;
        let last = widths.len() - 1;
        let shared = shared(config);
        let down = |i: usize| {
            let io = [widths[i.saturating_sub(1)], widths[i]];
            let Level { channels, layers, transformers } = config.down(i);
            let inside = transformers.map(|inside| shape(config, channels, inside));
            DownBlock::new(&(p / "down_blocks" / i), io, layers, inside, i != last, shared)
        };
        let mid = || {
            let inside = config.middle_transformer().map(|inside| shape(config, widths[last], inside));
            MidBlock::new(&(p / "mid_block"), widths[last], inside, shared, config.mid_block_scale_factor)
        };
        Self {
            time_embedding: TimeEmbedding::new(&(p / "time_embedding"), widths[0], config.time_width()),
            conv_in: Conv2d::new(&(p / "conv_in"), config.in_channels, widths[0], 3, 1, 1),
            down_blocks: (0..=last).map(down).collect(),
            mid_block: (config.middle != Middle::None).then(mid),
            config: config.clone(),
        }
    }

    /// Time embedding after its SiLU: `[B]` -> `[B, time_width]`.
    pub fn time(&self, t: &Tensor, probe: Probe) -> Tensor {
        let c = &self.config;
        let waves = sinusoids(t, c.block_out_channels[0], c.flip_sin_to_cos, c.freq_shift);
        probe.see("time_proj", &waves);
        let embedding = self.time_embedding.forward(&waves);
        probe.see("time_embedding", &embedding);
        embedding.silu()
    }

    /// Runs the levels. `added` (a ControlNet's encoded condition) is added to the first convolution's output.
    pub fn down<'n>(
        &'n self,
        sample: &Tensor,
        c: Context<'_, 'n>,
        added: Option<&Tensor>,
        extra: Option<&'n [LevelAttentions]>,
        probe: Probe,
    ) -> Features {
        let mut x = self.conv_in.forward(sample);
        probe.see("conv_in", &x);
        if let Some(added) = added {
            x += added;
        }
        let mut x = c.enter(x);
        let mut skips = vec![x.shallow_clone()];
        for (i, block) in self.down_blocks.iter().enumerate() {
            x = block.forward(&x, c, extra.map(|levels| &levels[i]), &mut skips);
            probe.see(&format!("down_blocks.{i}"), &x);
        }
        Features { x, skips }
    }

    /// Runs the middle, where there is one.
    pub fn mid<'n>(&'n self, x: &Tensor, c: Context<'_, 'n>, probe: Probe) -> Tensor {
        let Some(block) = &self.mid_block else {
            // what comes out of the last level is its last skip connection as well, and they meet again at once
            return c.apart(x);
        };
        let x = block.forward(x, c);
        probe.see("mid_block", &x);
        x
    }
}

/// Sees the outputs of the U-Net's modules by name, for tests and debugging.
#[derive(Clone, Copy, Default)]
pub struct Probe<'a>(pub Option<&'a dyn Fn(&str, &Tensor)>);

impl Probe<'_> {
    fn see(&self, name: &str, x: &Tensor) {
        if let Some(see) = self.0 {
            see(name, x);
        }
    }
}

/// Optional inputs of [`UNet::forward`].
#[derive(Clone, Copy, Default)]
pub struct Extras<'a, 'n> {
    /// A ControlNet's residuals for every skip connection, in order.
    pub down: Option<&'a [Tensor]>,
    /// A ControlNet's residual for the middle.
    pub mid: Option<&'a Tensor>,
    /// Expression attentions and their tokens `[B, K, cross_attention_dim]`.
    pub expression: Option<(&'n ExpressionAttentions, &'a Tensor)>,
    /// Gradient checkpointing; `'n` is how long the networks live.
    pub tape: Option<&'a Tape<'n>>,
    /// Sees module outputs.
    pub probe: Probe<'a>,
}

/// The U-Net.
#[derive(Debug)]
pub struct UNet {
    encoder: Encoder,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet {
    /// Creates the variables at the root of `p`, under diffusers' names.
    pub fn new(p: &Path, config: &UNetConfig) -> Self {
        let widths: Vec<i64> = config.block_out_channels.iter().rev().copied().collect();
        let last = widths.len() - 1;
        let shared = shared(config);
        let up = |i: usize| {
            let around = [widths[i.saturating_sub(1)], widths[i], widths[(i + 1).min(last)]];
            let Level { channels, layers, transformers } = config.up(last - i);
            let inside = transformers.map(|inside| shape(config, channels, inside));
            UpBlock::new(&(p / "up_blocks" / i), around, layers, inside, i != last, shared)
        };
        Self {
            encoder: Encoder::new(p, config),
            up_blocks: (0..=last).map(up).collect(),
            conv_norm_out: GroupNorm::new(
                &(p / "conv_norm_out"),
                widths[last],
                config.norm_num_groups,
                config.norm_eps,
            ),
            conv_out: Conv2d::new(&(p / "conv_out"), widths[last], config.out_channels, 3, 1, 1),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.encoder.config
    }

    /// `sample` `[B, in, h, w]`, `t` `[B]` i64, `text` `[B, M, cross_attention_dim]` -> `[B, out, h, w]`.
    pub fn forward<'n>(&'n self, sample: &Tensor, t: &Tensor, text: &Tensor, extras: Extras<'_, 'n>) -> Tensor {
        let (probe, tape) = (extras.probe, extras.tape);
        let enter = |x: Tensor| tape.map_or_else(|| x.shallow_clone(), |tape| tape.enter(&x));
        let time = enter(self.encoder.time(t, probe));
        let tokens = extras.expression.map(|(_, tokens)| enter(tokens.shallow_clone()));
        let c = Context { time: &time, text, expression: tokens.as_ref(), tape };
        let attentions = extras.expression.map(|(attentions, _)| attentions);
        let Features { x, mut skips } =
            self.encoder.down(sample, c, None, attentions.and_then(|a| a.down.as_deref()), probe);
        let mut x = self.encoder.mid(&x, c, probe);
        if let Some(residuals) = extras.down {
            assert_eq!(residuals.len(), skips.len(), "one ControlNet residual per skip connection");
            skips = skips.iter().zip(residuals).map(|(skip, residual)| c.enter(skip + residual)).collect();
        }
        if let Some(residual) = extras.mid {
            x = c.enter(x + residual);
        }
        for (i, block) in self.up_blocks.iter().enumerate() {
            x = block.forward(&x, c, attentions.and_then(|a| a.up.as_ref()).map(|levels| &levels[i]), &mut skips);
            probe.see(&format!("up_blocks.{i}"), &x);
        }
        self.conv_out.forward(&self.conv_norm_out.forward(&x).silu())
    }
}

/// Which half of the U-Net has expression attentions (the reference's `use_temporal_unet_encoder` and
/// `use_temporal_unet_decoder`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpressionHalves {
    /// Both (the paper).
    #[default]
    Both,
    /// The down levels.
    Encoder,
    /// The up levels.
    Decoder,
}

/// The attentions through which DiffusionAvatars' U-Net sees the expression: one beside every text cross-attention of
/// the down and up levels, none in the middle. Their variables are their own, so that they train while the U-Net is
/// frozen.
#[derive(Debug)]
pub struct ExpressionAttentions {
    down: Option<Vec<LevelAttentions>>,
    up: Option<Vec<LevelAttentions>>,
}

impl ExpressionAttentions {
    /// Creates the variables; names follow the U-Net's, ending in `attn_expression`.
    pub fn new(p: &Path, config: &UNetConfig, halves: ExpressionHalves) -> Self {
        let last = config.block_out_channels.len() - 1;
        let level = |half: &str, block: usize, level: Level| -> LevelAttentions {
            let Some(inside) = level.transformers else { return Vec::new() };
            let one = |layer: i64, depth: i64| {
                let p = p / half / block / "attentions" / layer / "transformer_blocks" / depth / "attn_expression";
                Attention::new(&p, inside.width, config.cross_attention_dim, inside.heads)
            };
            (0..level.layers).map(|n| (0..inside.depth).map(|d| one(n, d)).collect()).collect()
        };
        let down = || (0..=last).map(|i| level("down_blocks", i, config.down(i))).collect();
        let up = || (0..=last).map(|i| level("up_blocks", i, config.up(last - i))).collect();
        Self {
            down: (halves != ExpressionHalves::Decoder).then(down),
            up: (halves != ExpressionHalves::Encoder).then(up),
        }
    }

    /// Starts them from the U-Net: q, k and v are copies of the text cross-attention beside them, the output
    /// projection's weight and bias are zero, so that the U-Net's output is unchanged. Queries that are `kept` stay
    /// those copies (the paper learns keys and values alone; the reference's code learns queries, too).
    pub fn start_from(&self, unet: &UNet, kept: bool) {
        let down = unet.encoder.down_blocks.iter().map(|b| &b.attentions);
        let up = unet.up_blocks.iter().map(|b| &b.attentions);
        tch::no_grad(|| {
            let (own_down, own_up) = (self.down.iter().flatten(), self.up.iter().flatten());
            for (level, transformers) in own_down.zip(down).chain(own_up.zip(up)) {
                for (attentions, transformer) in level.iter().zip(transformers) {
                    for (attention, block) in attentions.iter().zip(&transformer.blocks) {
                        let text = &block.attn2;
                        attention.to_q.weight.shallow_clone().copy_(&text.to_q.weight);
                        _ = attention.to_q.weight.set_requires_grad(!kept);
                        attention.to_k.weight.shallow_clone().copy_(&text.to_k.weight);
                        attention.to_v.weight.shallow_clone().copy_(&text.to_v.weight);
                        _ = attention.to_out.weight.shallow_clone().zero_();
                        if let Some(bias) = &attention.to_out.bias {
                            _ = bias.shallow_clone().zero_();
                        }
                    }
                }
            }
        });
    }

    /// How many there are; of both halves [`UNetConfig::expression_attentions`].
    pub fn len(&self) -> usize {
        self.down.iter().chain(&self.up).flatten().flatten().map(Vec::len).sum()
    }

    /// True for a U-Net without attention levels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The same time for a whole batch, `[B]` i64.
pub fn times(t: i64, batch: i64, device: Device) -> Tensor {
    Tensor::full([batch], t, (tch::Kind::Int64, device))
}

fn shared(config: &UNetConfig) -> Shared {
    Shared {
        time: config.time_width(),
        norms: Norms { groups: config.norm_num_groups, eps: config.norm_eps },
        downsample_padding: config.downsample_padding,
    }
}

fn shape(config: &UNetConfig, channels: i64, inside: Transformers) -> TransformerShape {
    TransformerShape {
        channels,
        width: inside.width,
        context: config.cross_attention_dim,
        heads: inside.heads,
        depth: inside.depth,
        groups: config.norm_num_groups,
        linear: config.use_linear_projection,
        only_cross: inside.only_cross,
    }
}

#[cfg(test)]
mod tests;
