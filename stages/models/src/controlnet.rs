//! The ControlNet of Stable Diffusion (diffusers' `ControlNetModel`): a copy of the U-Net's contracting half that also
//! sees a condition image and speaks through zero-initialised 1x1 convolutions. Does not know what the condition shows.

use serde_json::Value;
use tch::nn::{Path, VarStore};
use tch::{Kind, Tensor};

use crate::blocks::Context;
use crate::config::Reader;
use crate::layers::Conv2d;
use crate::tape::Tape;
use crate::unet::{Encoder, Features, Probe, UNetConfig};
use crate::weights::{self, WeightsError};

/// The field that says in which order a condition's channels are.
const ORDER: &str = "controlnet_conditioning_channel_order";

/// Sizes of a ControlNet. The default is the one of DiffusionAvatars: 73 condition channels, an eighth of the
/// resolution.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlNetConfig {
    /// The U-Net it belongs to.
    pub unet: UNetConfig,
    /// Channels of the condition image.
    pub condition_channels: i64,
    /// Widths of the condition encoder, one for each resolution: four widths halve three times.
    pub encoder_channels: Vec<i64>,
    /// Whether the condition's channels are taken in the opposite order (diffusers'
    /// `controlnet_conditioning_channel_order: bgr`).
    pub bgr: bool,
    /// Whether all places of a residual get its mean over height and width (diffusers' `global_pool_conditions`).
    pub global_pool: bool,
}

impl Default for ControlNetConfig {
    fn default() -> Self {
        Self {
            unet: UNetConfig::default(),
            condition_channels: 73,
            encoder_channels: vec![16, 32, 96, 256],
            bgr: false,
            global_pool: false,
        }
    }
}

impl ControlNetConfig {
    /// For [`UNetConfig::small`]: a quarter of the resolution.
    pub fn small(condition_channels: i64) -> Self {
        Self { unet: UNetConfig::small(), condition_channels, encoder_channels: vec![16, 32, 64], ..Self::default() }
    }

    /// Reads diffusers' `config.json`. `place` names it in errors.
    pub fn from_json(value: &Value, place: &str) -> Result<Self, WeightsError> {
        let read = Reader { value, place };
        read.refuse_unless(ORDER, &[Value::from("rgb"), Value::from("bgr")])?;
        let config = Self {
            unet: UNetConfig::from_controlnet_json(value, place)?,
            condition_channels: read.integer("conditioning_channels", 3)?,
            encoder_channels: match value.get("conditioning_embedding_out_channels") {
                None => vec![16, 32, 96, 256],
                Some(_) => read.integers("conditioning_embedding_out_channels", None)?,
            },
            bgr: value.get(ORDER).is_some_and(|order| order == "bgr"),
            global_pool: read.boolean("global_pool_conditions", false)?,
        };
        config.check(place)?;
        Ok(config)
    }

    /// Are the sizes possible, and consistent with each other?
    pub fn check(&self, place: &str) -> Result<(), WeightsError> {
        let read = Reader { value: &Value::Null, place };
        self.unet.check(place)?;
        read.at_least("conditioning_channels", 1, &[self.condition_channels])?;
        read.at_least("conditioning_embedding_out_channels", 1, &self.encoder_channels)?;
        if self.encoder_channels.is_empty() {
            return Err(read.error("conditioning_embedding_out_channels is empty: at least one width is needed".into()));
        }
        Ok(())
    }

    /// The diffusers `config.json` that describes this network.
    pub fn to_json(&self) -> Value {
        let mut value = self.unet.to_json();
        let fields = value.as_object_mut().expect("a configuration is an object");
        for of_the_other_half in ["out_channels", "reverse_transformer_layers_per_block", "up_block_types"] {
            fields.remove(of_the_other_half);
        }
        fields.insert("_class_name".into(), "ControlNetModel".into());
        fields.insert("conditioning_channels".into(), self.condition_channels.into());
        fields.insert("conditioning_embedding_out_channels".into(), self.encoder_channels.clone().into());
        if self.bgr {
            fields.insert(ORDER.into(), "bgr".into());
        }
        if self.global_pool {
            fields.insert("global_pool_conditions".into(), true.into());
        }
        value
    }
}

/// What a ControlNet adds to its U-Net.
pub struct Residuals {
    /// For every skip connection, in order: `[B, C, h, w]`, or `[B, C, 1, 1]` where they are pooled.
    pub down: Vec<Tensor>,
    /// For the middle, likewise.
    pub mid: Tensor,
}

/// The ControlNet.
#[derive(Debug)]
pub struct ControlNet {
    encoder: Encoder,
    condition: ConditionEncoder,
    zero_down: Vec<Conv2d>,
    zero_mid: Conv2d,
    bgr: bool,
    global_pool: bool,
}

impl ControlNet {
    /// Creates the variables at the root of `p`, under diffusers' names.
    pub fn new(p: &Path, config: &ControlNetConfig) -> Self {
        let unet = &config.unet;
        let last = unet.block_out_channels.len() - 1;
        // One for the first convolution, one per residual block, one per down-sampling.
        let mut widths = vec![unet.block_out_channels[0]];
        for (i, &width) in unet.block_out_channels.iter().enumerate() {
            let stages = unet.layers_per_block.at(i) + i64::from(i != last);
            widths.extend(std::iter::repeat_n(width, stages as usize));
        }
        let zero = |p: &Path, width: i64| Conv2d::new(p, width, width, 1, 1, 0);
        let down = widths.iter().enumerate().map(|(i, &width)| zero(&(p / "controlnet_down_blocks" / i), width));
        Self {
            encoder: Encoder::new(p, unet),
            condition: ConditionEncoder::new(&(p / "controlnet_cond_embedding"), config),
            zero_down: down.collect(),
            zero_mid: zero(&(p / "controlnet_mid_block"), unet.block_out_channels[last]),
            bgr: config.bgr,
            global_pool: config.global_pool,
        }
    }

    /// Starts it from a U-Net: the contracting half is copied, everything that could be heard is zero, the rest of the
    /// condition encoder keeps its random values. `vs` is this network's store, `unet` the U-Net's.
    pub fn start_from(&self, vs: &VarStore, unet: &VarStore) {
        let source = unet.variables();
        tch::no_grad(|| {
            for (name, variable) in weights::sorted(vs) {
                if let Some(value) = source.get(&name) {
                    variable.shallow_clone().copy_(value);
                }
            }
            for conv in self.zero_down.iter().chain([&self.zero_mid, &self.condition.conv_out]) {
                _ = conv.weight.shallow_clone().zero_();
                _ = conv.bias.shallow_clone().zero_();
            }
        });
    }

    /// Condition image `[B, channels, H, W]` -> `[B, width, H/f, W/f]`. Does not depend on time: encode once per image.
    pub fn encode(&self, condition: &Tensor) -> Tensor {
        if self.bgr { self.condition.forward(&condition.flip([1])) } else { self.condition.forward(condition) }
    }

    /// Residuals for a noisy latent `[B, in, h, w]` at times `t` `[B]` with text `[B, M, ctx]` and an encoded
    /// condition, multiplied by `scale`.
    pub fn forward(&self, sample: &Tensor, t: &Tensor, text: &Tensor, encoded: &Tensor, scale: f64) -> Residuals {
        self.forward_on(None, sample, t, text, encoded, scale)
    }

    /// Like [`ControlNet::forward`], with gradient checkpointing where there is a tape.
    pub fn forward_on<'n>(
        &'n self,
        tape: Option<&Tape<'n>>,
        sample: &Tensor,
        t: &Tensor,
        text: &Tensor,
        encoded: &Tensor,
        scale: f64,
    ) -> Residuals {
        let time = self.encoder.time(t, Probe::default());
        let time = tape.map_or_else(|| time.shallow_clone(), |tape| tape.enter(&time));
        let c = Context { time: &time, text, expression: None, tape };
        let Features { x, skips } = self.encoder.down(sample, c, Some(encoded), None, Probe::default());
        let mid = self.encoder.mid(&x, c, Probe::default());
        let speak = |conv: &Conv2d, x: &Tensor| {
            let y = conv.forward(x);
            let y = if scale == 1.0 { y } else { y * scale };
            if self.global_pool { y.mean_dim(&[2i64, 3][..], true, None::<Kind>) } else { y }
        };
        Residuals {
            down: self.zero_down.iter().zip(&skips).map(|(conv, x)| speak(conv, x)).collect(),
            mid: speak(&self.zero_mid, &mid),
        }
    }
}

/// Convolutions that bring the condition image to the latent's resolution.
#[derive(Debug)]
pub struct ConditionEncoder {
    conv_in: Conv2d,
    blocks: Vec<Conv2d>,
    conv_out: Conv2d,
}

impl ConditionEncoder {
    /// Creates the variables at `p`.
    pub fn new(p: &Path, config: &ControlNetConfig) -> Self {
        let widths = &config.encoder_channels;
        let mut blocks = Vec::new();
        for pair in widths.windows(2) {
            for (outputs, stride) in [(pair[0], 1), (pair[1], 2)] {
                let p = p / "blocks" / blocks.len();
                blocks.push(Conv2d::new(&p, pair[0], outputs, 3, stride, 1));
            }
        }
        Self {
            conv_in: Conv2d::new(&(p / "conv_in"), config.condition_channels, widths[0], 3, 1, 1),
            blocks,
            conv_out: Conv2d::new(
                &(p / "conv_out"),
                widths[widths.len() - 1],
                config.unet.block_out_channels[0],
                3,
                1,
                1,
            ),
        }
    }

    /// `[B, channels, H, W]` -> `[B, width, H/f, W/f]`.
    pub fn forward(&self, condition: &Tensor) -> Tensor {
        let mut x = self.conv_in.forward(condition).silu();
        for block in &self.blocks {
            x = block.forward(&x).silu();
        }
        self.conv_out.forward(&x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Middle, PerLevel};
    use crate::init;
    use crate::unet::{Extras, UNet, times};
    use tch::Device;

    #[test]
    fn a_fresh_controlnet_is_silent() {
        let config = ControlNetConfig::small(7);
        let (unet_vs, unet) = init::build(Device::Cpu, 0, |p| UNet::new(p, &config.unet));
        let (vs, net) = init::build(Device::Cpu, 1, |p| ControlNet::new(p, &config));
        net.start_from(&vs, &unet_vs);
        let (x, text) = (init::normal(0, 0, &[2, 4, 16, 16]), init::normal(0, 1, &[2, 3, 64]));
        let t = times(700, 2, Device::Cpu);
        tch::no_grad(|| {
            let encoded = net.encode(&init::normal(0, 2, &[2, 7, 64, 64]));
            let residuals = net.forward(&x, &t, &text, &encoded, 1.0);
            let extras = Extras { down: Some(&residuals.down), mid: Some(&residuals.mid), ..Extras::default() };
            assert_eq!(unet.forward(&x, &t, &text, extras), unet.forward(&x, &t, &text, Extras::default()));
            assert_eq!(
                vs.variables()["down_blocks.1.resnets.0.conv1.weight"],
                unet_vs.variables()["down_blocks.1.resnets.0.conv1.weight"]
            );
        });
        assert_eq!(ControlNetConfig::from_json(&config.to_json(), "here").unwrap(), config);
    }

    #[test]
    fn it_speaks_to_every_skip_connection_of_any_unet() {
        for middle in [Middle::CrossAttention, Middle::Residual, Middle::None] {
            let unet = UNetConfig {
                block_out_channels: vec![8, 12, 16],
                layers_per_block: PerLevel::Each(vec![1, 3, 2]),
                attention_levels: vec![false, true, false],
                up_attention_levels: Some(vec![true, true, false]),
                middle,
                heads: vec![2, 3, 4],
                cross_attention_dim: 10,
                up_transformer_layers: Some(PerLevel::Same(2)),
                norm_num_groups: 4,
                ..UNetConfig::default()
            };
            let config = ControlNetConfig {
                unet,
                condition_channels: 2,
                encoder_channels: vec![4, 6],
                ..ControlNetConfig::default()
            };
            let (unet_vs, unet) = init::build(Device::Cpu, 0, |p| UNet::new(p, &config.unet));
            let (vs, net) = init::build(Device::Cpu, 1, |p| ControlNet::new(p, &config));
            let (x, text) = (init::normal(0, 0, &[1, 4, 9, 6]), init::normal(0, 1, &[1, 3, 10]));
            let t = times(7, 1, Device::Cpu);
            tch::no_grad(|| {
                let encoded = net.encode(&init::normal(0, 2, &[1, 2, 18, 12]));
                let residuals = net.forward(&x, &t, &text, &encoded, 1.0);
                assert_eq!(residuals.down.len(), 1 + (1 + 1) + (3 + 1) + 2);
                assert_eq!(residuals.mid.size(), [1, 16, 3, 2]);
                let extras = Extras { down: Some(&residuals.down), mid: Some(&residuals.mid), ..Extras::default() };
                let with = unet.forward(&x, &t, &text, extras);
                assert!((with - unet.forward(&x, &t, &text, Extras::default())).abs().max().double_value(&[]) > 0.0);
            });
            // all of the contracting half is the U-Net's under the same names
            let theirs = unet_vs.variables();
            let mut copied = weights::sorted(&vs).into_keys().filter(|name| !name.starts_with("controlnet_"));
            assert!(copied.all(|name| theirs.contains_key(&name)));
            // what the other half is made of is not written down
            let read = ControlNetConfig::from_json(&config.to_json(), "here").unwrap();
            let unet = UNetConfig { up_attention_levels: None, up_transformer_layers: None, ..config.unet.clone() };
            assert_eq!(read, ControlNetConfig { unet, ..config });
        }
    }

    #[test]
    fn channels_may_be_in_the_opposite_order() {
        let config = ControlNetConfig { bgr: true, ..ControlNetConfig::small(3) };
        assert_eq!(ControlNetConfig::from_json(&config.to_json(), "here").unwrap(), config);
        let plain = ControlNetConfig::small(3).to_json();
        assert_eq!([ORDER, "global_pool_conditions"].map(|key| plain.get(key)), [None; 2]);
        let (_vs, net) = init::build(Device::Cpu, 1, |p| ControlNet::new(p, &config));
        let (_vs, rgb) = init::build(Device::Cpu, 1, |p| ControlNet::new(p, &ControlNetConfig::small(3)));
        let condition = init::normal(0, 0, &[1, 3, 16, 8]);
        tch::no_grad(|| {
            assert_eq!(net.encode(&condition), rgb.encode(&condition.flip([1])));
            assert_ne!(net.encode(&condition), rgb.encode(&condition));
        });
    }

    #[test]
    fn pooled_residuals_are_the_means_of_the_others() {
        let config = ControlNetConfig { global_pool: true, ..ControlNetConfig::small(3) };
        assert_eq!(ControlNetConfig::from_json(&config.to_json(), "here").unwrap(), config);
        let (_vs, net) = init::build(Device::Cpu, 1, |p| ControlNet::new(p, &config));
        let (_vs, plain) = init::build(Device::Cpu, 1, |p| ControlNet::new(p, &ControlNetConfig::small(3)));
        let (_vs, unet) = init::build(Device::Cpu, 0, |p| UNet::new(p, &config.unet));
        let (x, text) = (init::normal(0, 0, &[2, 4, 8, 4]), init::normal(0, 1, &[2, 3, 64]));
        let t = times(700, 2, Device::Cpu);
        tch::no_grad(|| {
            let encoded = net.encode(&init::normal(0, 2, &[2, 3, 32, 16]));
            let pooled = net.forward(&x, &t, &text, &encoded, 0.5);
            let whole = plain.forward(&x, &t, &text, &encoded, 0.5);
            let all = |residuals: &Residuals| {
                residuals.down.iter().chain([&residuals.mid]).map(Tensor::shallow_clone).collect::<Vec<_>>()
            };
            for (pooled, whole) in all(&pooled).iter().zip(all(&whole)) {
                let (b, c, h, w) = whole.size4().unwrap();
                let mean = whole.sum_dim_intlist(&[2i64, 3][..], true, Kind::Float) / (h * w) as f64;
                assert_eq!(pooled.size(), [b, c, 1, 1]);
                assert!((pooled - &mean).abs().max().double_value(&[]) < 1e-6);
                assert!((pooled - &whole).abs().max().double_value(&[]) > 1e-3);
            }
            // every place of the U-Net's maps gets it
            let extras = Extras { down: Some(&pooled.down), mid: Some(&pooled.mid), ..Extras::default() };
            let steered = unet.forward(&x, &t, &text, extras);
            assert_eq!(steered.size(), [2, 4, 8, 4]);
            assert_ne!(steered, unet.forward(&x, &t, &text, Extras::default()));
        });
    }

    #[test]
    fn heads_may_be_given_by_either_name() {
        let mut value = ControlNetConfig::small(3).to_json();
        value["num_attention_heads"] = Value::Null;
        assert_eq!(ControlNetConfig::from_json(&value, "here").unwrap().unet.heads, [2, 4, 6]);
        value["num_attention_heads"] = Value::from(vec![1, 2, 3]);
        assert_eq!(ControlNetConfig::from_json(&value, "here").unwrap().unet.heads, [1, 2, 3]);
        value["attention_head_dim"] = Value::Null;
        value["num_attention_heads"] = Value::from(4);
        assert_eq!(ControlNetConfig::from_json(&value, "here").unwrap().unet.heads, [4, 4, 4]);
    }

    #[test]
    fn what_cannot_be_is_told_with_file_and_field() {
        for (key, bad) in [
            ("conditioning_embedding_out_channels", Value::from(Vec::<i64>::new())),
            ("conditioning_embedding_out_channels", Value::from(vec![16, 0])),
            ("conditioning_channels", Value::from(0)),
            (ORDER, Value::from("gbr")),
            ("global_pool_conditions", Value::Null),
            ("norm_num_groups", Value::from(0)),
        ] {
            let mut value = ControlNetConfig::small(3).to_json();
            value[key] = bad;
            let error = ControlNetConfig::from_json(&value, "controlnet/config.json").unwrap_err().to_string();
            assert!(error.starts_with("controlnet/config.json: ") && error.contains(key), "{error}");
        }
    }
}
