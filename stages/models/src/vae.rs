//! The variational auto-encoder of latent diffusion (diffusers' `AutoencoderKL`). The number of widths gives the
//! factor: four widths halve three times (f = 8), three widths twice (f = 4). Does not know losses (see `ldm.rs`).

use serde_json::{Value, json};
use tch::Tensor;
use tch::nn::Path;

use crate::attention::attend;
use crate::blocks::{Downsample, Norms, ResnetBlock, Upsample};
use crate::config::Reader;
use crate::layers::{Conv2d, GroupNorm, Linear};
use crate::weights::WeightsError;

/// Sizes of the auto-encoder. The default is Stable Diffusion's.
#[derive(Debug, Clone, PartialEq)]
pub struct VaeConfig {
    /// Image channels in.
    pub in_channels: i64,
    /// Image channels out.
    pub out_channels: i64,
    /// Channels of each level, finest first.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks per level of the encoder; the decoder has one more.
    pub layers_per_block: i64,
    /// Channels of the latent.
    pub latent_channels: i64,
    /// Groups of every group norm.
    pub norm_num_groups: i64,
    /// Self-attention in the middle of both halves.
    pub mid_block_add_attention: bool,
    /// Latents are multiplied by this for the diffusion model, after `shift` has been subtracted.
    pub scaling_factor: f64,
    /// Subtracted from each latent channel before scaling; empty means zero.
    pub shift: Vec<f64>,
    /// A 1x1 convolution behind the encoder.
    pub quant_conv: bool,
    /// A 1x1 convolution before the decoder.
    pub post_quant_conv: bool,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 4,
            norm_num_groups: 32,
            mid_block_add_attention: true,
            scaling_factor: 0.18215,
            shift: Vec::new(),
            quant_conv: true,
            post_quant_conv: true,
        }
    }
}

impl VaeConfig {
    /// For 64-pixel images: f = 4, widths 24/48/96, one residual block per level, no attention. The scaling factor is
    /// measured on the training latents once they exist.
    pub fn small() -> Self {
        Self {
            block_out_channels: vec![24, 48, 96],
            layers_per_block: 1,
            norm_num_groups: 8,
            mid_block_add_attention: false,
            scaling_factor: 1.0,
            ..Self::default()
        }
    }

    /// How many image pixels a latent pixel spans on each side.
    pub fn factor(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Reads diffusers' `config.json`. `place` names it in errors. `latents_mean` and `latents_std` change nothing:
    /// neither this network nor the pipelines of Stable Diffusion 1.x and 2.x look at them in diffusers.
    pub fn from_json(value: &Value, place: &str) -> Result<Self, WeightsError> {
        let read = Reader { value, place };
        // two names of one function
        read.refuse_unless("act_fn", &[json!("silu"), json!("swish")])?;
        let block_out_channels = read.integers("block_out_channels", None)?;
        for (key, block) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")] {
            let types = read.strings(key)?;
            if let Some(other) = types.iter().find(|name| *name != block) {
                return Err(read.error(format!("{key}: the block type {other} is not implemented")));
            }
            let (found, levels) = (types.len(), block_out_channels.len());
            if found != levels {
                return Err(read.error(format!("{key} has {found} values, and block_out_channels has {levels}")));
            }
        }
        let latent_channels = read.integer("latent_channels", 4)?;
        let config = Self {
            in_channels: read.integer("in_channels", 3)?,
            out_channels: read.integer("out_channels", 3)?,
            block_out_channels,
            layers_per_block: read.integer("layers_per_block", 1)?,
            latent_channels,
            norm_num_groups: read.integer("norm_num_groups", 32)?,
            mid_block_add_attention: read.boolean("mid_block_add_attention", true)?,
            scaling_factor: read.number("scaling_factor", 0.18215)?,
            shift: latent_shift(&read, latent_channels)?,
            quant_conv: read.boolean("use_quant_conv", true)?,
            post_quant_conv: read.boolean("use_post_quant_conv", true)?,
        };
        config.check(place)?;
        Ok(config)
    }

    /// Are the sizes possible, and consistent with each other?
    pub fn check(&self, place: &str) -> Result<(), WeightsError> {
        let read = Reader { value: &Value::Null, place };
        if self.block_out_channels.is_empty() {
            return Err(read.error("block_out_channels is empty".into()));
        }
        read.norm_groups(&self.block_out_channels, self.norm_num_groups)?;
        read.at_least("in_channels", 1, &[self.in_channels])?;
        read.at_least("out_channels", 1, &[self.out_channels])?;
        read.at_least("latent_channels", 1, &[self.latent_channels])?;
        read.at_least("layers_per_block", 1, &[self.layers_per_block])?;
        if self.scaling_factor == 0.0 {
            return Err(read.error("scaling_factor must not be 0: nothing would be left of a latent".into()));
        }
        let (shifts, channels) = (self.shift.len(), self.latent_channels);
        if shifts != 0 && shifts as i64 != channels {
            let reason = format!("effigy_latent_shift has {shifts} values, and there are {channels} latent channels");
            return Err(read.error(reason));
        }
        Ok(())
    }

    /// The diffusers `config.json` that describes this network. A latent shift is written as `effigy_latent_shift`,
    /// since diffusers has a field (`shift_factor`) only for one that all channels share.
    pub fn to_json(&self) -> Value {
        let levels = self.block_out_channels.len();
        let mut value = json!({
            "_class_name": "AutoencoderKL",
            "act_fn": "silu",
            "block_out_channels": self.block_out_channels,
            "down_block_types": vec!["DownEncoderBlock2D"; levels],
            "in_channels": self.in_channels,
            "latent_channels": self.latent_channels,
            "layers_per_block": self.layers_per_block,
            "mid_block_add_attention": self.mid_block_add_attention,
            "norm_num_groups": self.norm_num_groups,
            "out_channels": self.out_channels,
            "scaling_factor": self.scaling_factor,
            "up_block_types": vec!["UpDecoderBlock2D"; levels],
        });
        match &self.shift[..] {
            [] => {}
            [first, others @ ..] if !others.is_empty() && others.iter().all(|other| other == first) => {
                value["shift_factor"] = json!(first);
            }
            shift => value["effigy_latent_shift"] = json!(shift),
        }
        for (key, there) in [("use_quant_conv", self.quant_conv), ("use_post_quant_conv", self.post_quant_conv)] {
            if !there {
                value[key] = json!(false);
            }
        }
        value
    }
}

/// What is subtracted from each channel of a latent; empty for nothing.
fn latent_shift(read: &Reader<'_>, channels: i64) -> Result<Vec<f64>, WeightsError> {
    let shared = match read.value.get("shift_factor") {
        None | Some(Value::Null) => 0.0,
        Some(_) => read.number("shift_factor", 0.0)?,
    };
    match read.value.get("effigy_latent_shift") {
        None if shared == 0.0 => Ok(Vec::new()),
        None => Ok(vec![shared; channels.max(0) as usize]),
        Some(_) if shared != 0.0 => Err(read.error("shift_factor and effigy_latent_shift say the same twice".into())),
        Some(list) => serde_json::from_value(list.clone())
            .map_err(|_| read.error("effigy_latent_shift must be a list of numbers".into())),
    }
}

/// Mean and log-variance of a latent, `[B, latent, h, w]` each, before scaling.
#[derive(Debug)]
pub struct Posterior {
    /// Mean.
    pub mean: Tensor,
    /// Logarithm of the variance, clamped to [-30, 20].
    pub logvar: Tensor,
}

impl Posterior {
    /// mean + std * noise.
    pub fn sample(&self, noise: &Tensor) -> Tensor {
        &self.mean + (&self.logvar * 0.5).exp() * noise
    }

    /// Divergence from the standard normal, summed over the latent and averaged over the batch.
    pub fn kl(&self) -> Tensor {
        let batch = self.mean.size()[0] as f64;
        (self.mean.square() + self.logvar.exp() - 1.0 - &self.logvar).sum(tch::Kind::Float) * (0.5 / batch)
    }
}

/// The auto-encoder.
#[derive(Debug)]
pub struct Vae {
    config: VaeConfig,
    encoder: Half,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    decoder: Half,
}

impl Vae {
    /// Creates the variables at the root of `p`, under diffusers' names.
    pub fn new(p: &Path, config: &VaeConfig) -> Self {
        let latent = config.latent_channels;
        let conv = |name: &str, channels: i64| Conv2d::new(&(p / name), channels, channels, 1, 1, 0);
        Self {
            encoder: Half::encoder(&(p / "encoder"), config),
            quant_conv: config.quant_conv.then(|| conv("quant_conv", 2 * latent)),
            post_quant_conv: config.post_quant_conv.then(|| conv("post_quant_conv", latent)),
            decoder: Half::decoder(&(p / "decoder"), config),
            config: config.clone(),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Images `[B, 3, H, W]` in [-1, 1] -> posterior of `[B, latent, H/f, W/f]`.
    pub fn encode(&self, images: &Tensor) -> Posterior {
        let features = self.encoder.forward(images);
        let moments = match &self.quant_conv {
            Some(conv) => conv.forward(&features),
            None => features,
        };
        let parts = moments.chunk(2, 1);
        Posterior { mean: parts[0].shallow_clone(), logvar: parts[1].clamp(-30.0, 20.0) }
    }

    /// Unscaled latents -> images in about [-1, 1], not clamped.
    pub fn decode(&self, latents: &Tensor) -> Tensor {
        match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(latents)),
            None => self.decoder.forward(latents),
        }
    }

    /// What the diffusion model sees: (latent - shift) * scaling factor.
    pub fn scale(&self, latents: &Tensor) -> Tensor {
        (latents - self.shift(latents)) * self.config.scaling_factor
    }

    /// The inverse of [`Vae::scale`].
    pub fn unscale(&self, latents: &Tensor) -> Tensor {
        latents / self.config.scaling_factor + self.shift(latents)
    }

    fn shift(&self, like: &Tensor) -> Tensor {
        let shift = if self.config.shift.is_empty() { &[0.0][..] } else { &self.config.shift };
        Tensor::from_slice(shift).view([1, -1, 1, 1]).to_kind(like.kind()).to_device(like.device())
    }
}

/// Encoder or decoder; they differ in the order of their parts and in how they resample.
#[derive(Debug)]
struct Half {
    conv_in: Conv2d,
    /// Encoder: before the middle. Decoder: after it.
    levels: Vec<Level>,
    mid: Mid,
    mid_first: bool,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

#[derive(Debug)]
struct Level {
    resnets: Vec<ResnetBlock>,
    resample: Resample,
}

#[derive(Debug)]
enum Resample {
    Down(Downsample),
    Up(Upsample),
    None,
}

/// Eps of every norm in this network, unlike the U-Net's.
const EPS: f64 = 1e-6;

impl Half {
    fn encoder(p: &Path, c: &VaeConfig) -> Self {
        let widths = &c.block_out_channels;
        let last = widths.len() - 1;
        let level = |i: usize| {
            let p = p / "down_blocks" / i;
            let down = || Downsample::new(&(&p / "downsamplers" / 0), widths[i], 0);
            Level {
                resnets: resnets(&p, widths[i.saturating_sub(1)], widths[i], c.layers_per_block, c),
                resample: if i != last { Resample::Down(down()) } else { Resample::None },
            }
        };
        Self {
            conv_in: Conv2d::new(&(p / "conv_in"), c.in_channels, widths[0], 3, 1, 1),
            levels: (0..=last).map(level).collect(),
            mid: Mid::new(&(p / "mid_block"), widths[last], c),
            mid_first: false,
            conv_norm_out: GroupNorm::new(&(p / "conv_norm_out"), widths[last], c.norm_num_groups, EPS),
            conv_out: Conv2d::new(&(p / "conv_out"), widths[last], 2 * c.latent_channels, 3, 1, 1),
        }
    }

    fn decoder(p: &Path, c: &VaeConfig) -> Self {
        let widths: Vec<i64> = c.block_out_channels.iter().rev().copied().collect();
        let last = widths.len() - 1;
        let level = |i: usize| {
            let p = p / "up_blocks" / i;
            let up = || Upsample::new(&(&p / "upsamplers" / 0), widths[i]);
            Level {
                resnets: resnets(&p, widths[i.saturating_sub(1)], widths[i], c.layers_per_block + 1, c),
                resample: if i != last { Resample::Up(up()) } else { Resample::None },
            }
        };
        Self {
            conv_in: Conv2d::new(&(p / "conv_in"), c.latent_channels, widths[0], 3, 1, 1),
            levels: (0..=last).map(level).collect(),
            mid: Mid::new(&(p / "mid_block"), widths[0], c),
            mid_first: true,
            conv_norm_out: GroupNorm::new(&(p / "conv_norm_out"), widths[last], c.norm_num_groups, EPS),
            conv_out: Conv2d::new(&(p / "conv_out"), widths[last], c.out_channels, 3, 1, 1),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.conv_in.forward(x);
        if self.mid_first {
            x = self.mid.forward(&x);
        }
        for level in &self.levels {
            for resnet in &level.resnets {
                x = resnet.forward(&x, None);
            }
            x = match &level.resample {
                Resample::Down(down) => down.forward(&x),
                Resample::Up(up) => {
                    let size = x.size();
                    up.forward(&x, [2 * size[2], 2 * size[3]])
                }
                Resample::None => x,
            };
        }
        if !self.mid_first {
            x = self.mid.forward(&x);
        }
        self.conv_out.forward(&self.conv_norm_out.forward(&x).silu())
    }
}

fn resnets(p: &Path, inputs: i64, outputs: i64, layers: i64, c: &VaeConfig) -> Vec<ResnetBlock> {
    let norms = Norms { groups: c.norm_num_groups, eps: EPS };
    let one = |i| ResnetBlock::new(&(p / "resnets" / i), if i == 0 { inputs } else { outputs }, outputs, None, norms);
    (0..layers).map(one).collect()
}

/// Residual block, optional single-head attention, residual block.
#[derive(Debug)]
struct Mid {
    resnets: [ResnetBlock; 2],
    attention: Option<PixelAttention>,
}

impl Mid {
    fn new(p: &Path, channels: i64, c: &VaeConfig) -> Self {
        let norms = Norms { groups: c.norm_num_groups, eps: EPS };
        let resnet = |i| ResnetBlock::new(&(p / "resnets" / i), channels, channels, None, norms);
        let attention = || PixelAttention::new(&(p / "attentions" / 0), channels, c.norm_num_groups);
        Self { resnets: [resnet(0), resnet(1)], attention: c.mid_block_add_attention.then(attention) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.resnets[0].forward(x, None);
        if let Some(attention) = &self.attention {
            x = attention.forward(&x);
        }
        self.resnets[1].forward(&x, None)
    }
}

/// Single-head self-attention over pixels. Unlike the U-Net's, its projections have biases.
#[derive(Debug)]
struct PixelAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl PixelAttention {
    fn new(p: &Path, channels: i64, groups: i64) -> Self {
        let linear = |name: &str| Linear::new(&(p / name), channels, channels);
        Self {
            group_norm: GroupNorm::new(&(p / "group_norm"), channels, groups, EPS),
            to_q: linear("to_q"),
            to_k: linear("to_k"),
            to_v: linear("to_v"),
            to_out: Linear::new(&(p / "to_out" / 0), channels, channels),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let (_, _, h, w) = x.size4().expect("a feature map is [B, C, H, W]");
        let pixels = self.group_norm.forward(x).flatten(2, 3).transpose(1, 2).unsqueeze(1);
        let project = |linear: &Linear| linear.forward(&pixels);
        let mixed = attend(&project(&self.to_q), &project(&self.to_k), &project(&self.to_v));
        x + self.to_out.forward(&mixed).squeeze_dim(1).transpose(1, 2).unflatten(2, [h, w])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{init, weights};
    use tch::Device;

    #[test]
    fn the_factor_follows_the_widths() {
        let config = VaeConfig { scaling_factor: 0.5, shift: vec![0.1, -0.2, 0.0, 1.0], ..VaeConfig::small() };
        assert_eq!((VaeConfig::default().factor(), config.factor()), (8, 4));
        let (vs, vae) = init::build(Device::Cpu, 0, |p| Vae::new(p, &config));
        let latent = tch::no_grad(|| vae.encode(&init::normal(0, 0, &[1, 3, 32, 16]))).mean;
        assert_eq!(latent.size(), [1, 4, 8, 4]);
        assert_eq!(tch::no_grad(|| vae.decode(&latent)).size(), [1, 3, 32, 16]);
        assert!((vae.unscale(&vae.scale(&latent)) - &latent).abs().max().double_value(&[]) < 1e-6);
        assert_eq!(VaeConfig::from_json(&config.to_json(), "here").unwrap(), config);
        assert!(weights::count(&vs) < 2_000_000);
    }

    #[test]
    fn a_shift_of_all_channels_is_taken_off_before_scaling() {
        let mut value = VaeConfig { scaling_factor: 2.0, ..VaeConfig::small() }.to_json();
        assert_eq!((value.get("shift_factor"), value.get("effigy_latent_shift")), (None, None));
        for nothing in [json!(0), json!(0.0), Value::Null] {
            value["shift_factor"] = nothing;
            assert_eq!(VaeConfig::from_json(&value, "here").unwrap().shift, Vec::<f64>::new());
        }
        value["shift_factor"] = json!(0.25);
        let config = VaeConfig::from_json(&value, "here").unwrap();
        assert_eq!(config.shift, [0.25; 4]);
        assert_eq!(config.to_json()["shift_factor"], json!(0.25));
        assert_eq!(VaeConfig::from_json(&config.to_json(), "here").unwrap(), config);
        let (_vs, vae) = init::build(Device::Cpu, 0, |p| Vae::new(p, &config));
        let latent = init::normal(0, 0, &[2, 4, 3, 5]);
        let wanted = (&latent - 0.25) * 2.0;
        assert!((vae.scale(&latent) - &wanted).abs().max().double_value(&[]) < 1e-6);
        assert!((vae.unscale(&wanted) - &latent).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn statistics_of_latents_are_not_looked_at() {
        let config = VaeConfig::small();
        let mut value = config.to_json();
        value["latents_mean"] = json!([0.1, -0.2, 0.3, 0.0]);
        value["latents_std"] = json!([1.5, 1.0, 2.0, 0.5]);
        assert_eq!(VaeConfig::from_json(&value, "here").unwrap(), config);
    }

    #[test]
    fn without_convolutions_around_the_latent_there_are_no_weights_of_them() {
        for (quant, post) in [(false, false), (true, false), (false, true)] {
            let mut value = VaeConfig::small().to_json();
            value["use_quant_conv"] = json!(quant);
            value["use_post_quant_conv"] = json!(post);
            let config = VaeConfig::from_json(&value, "here").unwrap();
            assert_eq!(VaeConfig::from_json(&config.to_json(), "here").unwrap(), config);
            let (vs, vae) = init::build(Device::Cpu, 0, |p| Vae::new(p, &config));
            let has = |name: &str| vs.variables().contains_key(name);
            assert_eq!((has("quant_conv.weight"), has("post_quant_conv.bias")), (quant, post));
            let latent = tch::no_grad(|| vae.encode(&init::normal(0, 0, &[1, 3, 12, 20]))).mean;
            assert_eq!(latent.size(), [1, 4, 3, 5]);
            assert_eq!(tch::no_grad(|| vae.decode(&latent)).size(), [1, 3, 12, 20]);
            // a file of a network that has them does not fit
            let (full, _) = init::build(Device::Cpu, 0, |p| Vae::new(p, &VaeConfig::small()));
            let error = weights::load_tensors(&vs, &weights::sorted(&full), "a file").unwrap_err();
            let weights::WeightsError::Mismatch(mismatch) = &error else { panic!("{error}") };
            assert_eq!(mismatch.missing, Vec::<String>::new());
            let unwanted = 2 * (usize::from(!quant) + usize::from(!post));
            assert_eq!(mismatch.unexpected.len(), unwanted, "{:?}", mismatch.unexpected);
        }
    }

    #[test]
    fn what_cannot_be_is_told_with_file_and_field() {
        for (key, bad) in [
            ("norm_num_groups", json!(0)),
            ("norm_num_groups", json!(7)),
            ("block_out_channels", json!([])),
            ("block_out_channels", json!([24, 48, 0])),
            ("layers_per_block", json!(0)),
            ("latent_channels", json!(0)),
            ("scaling_factor", json!(0.0)),
            ("shift_factor", json!("none")),
            ("effigy_latent_shift", json!([0.5, 0.5])),
            ("act_fn", json!("mish")),
            ("down_block_types", json!(["DownEncoderBlock2D"])),
            ("up_block_types", json!(["AttnUpDecoderBlock2D"])),
            ("use_quant_conv", json!("no")),
        ] {
            let mut value = VaeConfig::small().to_json();
            value[key] = bad;
            let error = VaeConfig::from_json(&value, "vae/config.json").unwrap_err().to_string();
            assert!(error.starts_with("vae/config.json: ") && error.contains(key), "{key}: {error}");
        }
        let twice = VaeConfig { shift: vec![0.1, 0.2, 0.3, 0.4], ..VaeConfig::small() };
        let mut value = twice.to_json();
        value["shift_factor"] = json!(0.1);
        let error = VaeConfig::from_json(&value, "here").unwrap_err().to_string();
        assert!(error.contains("shift_factor and effigy_latent_shift"), "{error}");
    }
}
