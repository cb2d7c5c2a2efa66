//! Sizes of the denoising U-Net, and reading the JSON configurations that diffusers writes. A configuration that would
//! need something that is not implemented is refused, never approximated. Does not know the network itself.

use serde_json::{Value, json};

use crate::weights::WeightsError;

/// Sizes of the U-Net. The default is Stable Diffusion 2.1.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetConfig {
    /// Latent channels in.
    pub in_channels: i64,
    /// Latent channels out.
    pub out_channels: i64,
    /// Channels of each level, finest first.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks per level on the way down; one more on the way up.
    pub layers_per_block: i64,
    /// Which levels have transformers.
    pub attention_levels: Vec<bool>,
    /// Attention heads of each level (diffusers calls this number `attention_head_dim`).
    pub heads: Vec<i64>,
    /// Channels of the text tokens.
    pub cross_attention_dim: i64,
    /// Blocks per transformer.
    pub transformer_layers: i64,
    /// Groups of every group norm.
    pub norm_num_groups: i64,
    /// Eps of the group norms in residual blocks and at the output.
    pub norm_eps: f64,
    /// Linear instead of 1x1 convolutional projections around the transformers.
    pub use_linear_projection: bool,
    /// Cosines before sines in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Shift of the time embedding's frequencies.
    pub freq_shift: f64,
}

impl Default for UNetConfig {
    fn default() -> Self {
        Self {
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            attention_levels: vec![true, true, true, false],
            heads: vec![5, 10, 20, 20],
            cross_attention_dim: 1024,
            transformer_layers: 1,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            use_linear_projection: true,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
        }
    }
}

impl UNetConfig {
    /// A network of about 2 million weights for 16x16 latents: 32/64/96 channels at 16/8/4 pixels, one residual block per
    /// level, attention with 16 channels a head on the two finer levels and in the middle, text tokens of 64 channels.
    pub fn small() -> Self {
        Self {
            block_out_channels: vec![32, 64, 96],
            layers_per_block: 1,
            attention_levels: vec![true, true, false],
            heads: vec![2, 4, 6],
            cross_attention_dim: 64,
            norm_num_groups: 8,
            ..Self::default()
        }
    }

    /// Width of the time embedding.
    pub fn time_width(&self) -> i64 {
        4 * self.block_out_channels[0]
    }

    /// Number of expression attentions: with N attention levels, L residual blocks and D blocks per transformer,
    /// (N L + N (L + 1)) D.
    pub fn expression_attentions(&self) -> i64 {
        let levels = self.attention_levels.iter().filter(|&&on| on).count() as i64;
        (levels * self.layers_per_block + levels * (self.layers_per_block + 1)) * self.transformer_layers
    }

    /// Reads diffusers' `config.json` of a U-Net or a ControlNet. `place` names it in errors. Anything that would need a
    /// feature this network lacks is refused.
    pub fn from_json(value: &Value, place: &str) -> Result<Self, WeightsError> {
        let read = Reader { value, place };
        read.refuse_unless("act_fn", &[json!("silu")])?;
        read.refuse_unless("time_embedding_type", &[json!("positional")])?;
        read.refuse_unless("resnet_time_scale_shift", &[json!("default")])?;
        read.refuse_unless("mid_block_type", &[json!("UNetMidBlock2DCrossAttn")])?;
        read.refuse_unless("attention_type", &[json!("default")])?;
        read.refuse_unless("downsample_padding", &[json!(1)])?;
        read.refuse_unless("mid_block_scale_factor", &[json!(1), json!(1.0)])?;
        read.refuse_unless("resnet_out_scale_factor", &[json!(1), json!(1.0)])?;
        read.refuse_unless("conv_in_kernel", &[json!(3)])?;
        read.refuse_unless("conv_out_kernel", &[json!(3)])?;
        for key in [
            "addition_embed_type",
            "class_embed_type",
            "encoder_hid_dim",
            "encoder_hid_dim_type",
            "num_class_embeds",
            "num_attention_heads",
            "time_cond_proj_dim",
            "time_embedding_act_fn",
            "time_embedding_dim",
            "timestep_post_act",
            "cross_attention_norm",
            "reverse_transformer_layers_per_block",
        ] {
            read.refuse_unless(key, &[Value::Null])?;
        }
        for key in [
            "center_input_sample",
            "dual_cross_attention",
            "only_cross_attention",
            "class_embeddings_concat",
            "resnet_skip_time_act",
        ] {
            read.refuse_unless(key, &[json!(false), Value::Null])?;
        }
        let default = Self::default();
        let block_out_channels = read.integers("block_out_channels", None)?;
        let levels = block_out_channels.len();
        let down = read.strings("down_block_types")?;
        let attention = |types: &[String], half: &str| -> Result<Vec<bool>, WeightsError> {
            types
                .iter()
                .map(|name| match name.as_str() {
                    n if n == format!("CrossAttn{half}Block2D") => Ok(true),
                    n if n == format!("{half}Block2D") => Ok(false),
                    other => Err(read.error(format!("the block type {other} is not implemented"))),
                })
                .collect()
        };
        let attention_levels = attention(&down, "Down")?;
        if let Some(up) = value.get("up_block_types") {
            let up: Vec<String> = serde_json::from_value(up.clone()).map_err(|e| read.error(e.to_string()))?;
            let mirrored: Vec<bool> = attention(&up, "Up")?.into_iter().rev().collect();
            if mirrored != attention_levels {
                return Err(read.error("up_block_types is not the mirror image of down_block_types".into()));
            }
        }
        let config = Self {
            in_channels: read.integer("in_channels", default.in_channels)?,
            out_channels: read.integer("out_channels", default.out_channels)?,
            layers_per_block: read.integer("layers_per_block", 2)?,
            attention_levels,
            heads: read.integers("attention_head_dim", Some((8, levels)))?,
            cross_attention_dim: read.integer("cross_attention_dim", 1280)?,
            transformer_layers: read.integer("transformer_layers_per_block", 1)?,
            norm_num_groups: read.integer("norm_num_groups", 32)?,
            norm_eps: read.number("norm_eps", 1e-5)?,
            use_linear_projection: read.boolean("use_linear_projection", false)?,
            flip_sin_to_cos: read.boolean("flip_sin_to_cos", true)?,
            freq_shift: read.number("freq_shift", 0.0)?,
            block_out_channels,
        };
        config.check(place)?;
        Ok(config)
    }

    /// The diffusers `config.json` that describes this network.
    pub fn to_json(&self) -> Value {
        let types = |half: &str, levels: &mut dyn Iterator<Item = &bool>| -> Vec<String> {
            levels.map(|&on| format!("{}{half}Block2D", if on { "CrossAttn" } else { "" })).collect()
        };
        json!({
            "_class_name": "UNet2DConditionModel",
            "act_fn": "silu",
            "attention_head_dim": self.heads,
            "block_out_channels": self.block_out_channels,
            "cross_attention_dim": self.cross_attention_dim,
            "down_block_types": types("Down", &mut self.attention_levels.iter()),
            "flip_sin_to_cos": self.flip_sin_to_cos,
            "freq_shift": self.freq_shift as i64,
            "in_channels": self.in_channels,
            "layers_per_block": self.layers_per_block,
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "norm_eps": self.norm_eps,
            "norm_num_groups": self.norm_num_groups,
            "out_channels": self.out_channels,
            "transformer_layers_per_block": self.transformer_layers,
            "up_block_types": types("Up", &mut self.attention_levels.iter().rev()),
            "use_linear_projection": self.use_linear_projection,
        })
    }

    /// Are the sizes consistent with each other?
    pub fn check(&self, place: &str) -> Result<(), WeightsError> {
        let levels = self.block_out_channels.len();
        let fail = |reason: String| Err(Reader { value: &Value::Null, place }.error(reason));
        if levels == 0 || self.attention_levels.len() != levels || self.heads.len() != levels {
            return fail(format!(
                "{levels} widths, {} block types and {} head counts: one of each per level is needed",
                self.attention_levels.len(),
                self.heads.len()
            ));
        }
        for (&channels, &heads) in self.block_out_channels.iter().zip(&self.heads) {
            if channels <= 0 || channels % self.norm_num_groups != 0 || heads <= 0 || channels % heads != 0 {
                return fail(format!(
                    "a level of {channels} channels cannot be cut into {} norm groups and {heads} heads",
                    self.norm_num_groups
                ));
            }
        }
        Ok(())
    }
}

/// Reads fields of a diffusers configuration, with errors that name the file and the field.
pub(crate) struct Reader<'a> {
    pub value: &'a Value,
    pub place: &'a str,
}

impl Reader<'_> {
    pub fn error(&self, reason: String) -> WeightsError {
        let hint = "networks of the Stable Diffusion 1.x and 2.x families are supported".into();
        WeightsError::Config { place: self.place.to_owned(), reason, hint }
    }

    /// An absent field is fine: diffusers then uses its default, which is what is implemented.
    pub fn refuse_unless(&self, key: &str, allowed: &[Value]) -> Result<(), WeightsError> {
        match self.value.get(key) {
            Some(found) if !allowed.contains(found) => {
                Err(self.error(format!("{key}: {found} is not implemented (only {})", allowed[0])))
            }
            _ => Ok(()),
        }
    }

    pub fn integer(&self, key: &str, default: i64) -> Result<i64, WeightsError> {
        match self.value.get(key) {
            None => Ok(default),
            Some(v) => v.as_i64().ok_or_else(|| self.error(format!("{key} must be a whole number, not {v}"))),
        }
    }

    pub fn number(&self, key: &str, default: f64) -> Result<f64, WeightsError> {
        match self.value.get(key) {
            None => Ok(default),
            Some(v) => v.as_f64().ok_or_else(|| self.error(format!("{key} must be a number, not {v}"))),
        }
    }

    pub fn boolean(&self, key: &str, default: bool) -> Result<bool, WeightsError> {
        match self.value.get(key) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.error(format!("{key} must be true or false, not {v}"))),
        }
    }

    /// A list; where `scalar` gives (default, length), a single number or an absent field stands for that many.
    pub fn integers(&self, key: &str, scalar: Option<(i64, usize)>) -> Result<Vec<i64>, WeightsError> {
        let wrong = || self.error(format!("{key} must be a list of whole numbers"));
        match (self.value.get(key), scalar) {
            (None, Some((default, length))) => Ok(vec![default; length]),
            (Some(Value::Number(n)), Some((_, length))) => Ok(vec![n.as_i64().ok_or_else(wrong)?; length]),
            (Some(list), _) => serde_json::from_value(list.clone()).map_err(|_| wrong()),
            (None, None) => Err(self.error(format!("the field {key} is missing"))),
        }
    }

    pub fn strings(&self, key: &str) -> Result<Vec<String>, WeightsError> {
        let list = self.value.get(key).ok_or_else(|| self.error(format!("the field {key} is missing")))?;
        serde_json::from_value(list.clone()).map_err(|_| self.error(format!("{key} must be a list of names")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_survive_the_trip_through_json() {
        for config in [UNetConfig::default(), UNetConfig::small()] {
            assert_eq!(UNetConfig::from_json(&config.to_json(), "here").unwrap(), config);
        }
        let mut value = UNetConfig::default().to_json();
        value["class_embed_type"] = json!("timestep");
        let error = UNetConfig::from_json(&value, "here").unwrap_err().to_string();
        assert!(error.contains("class_embed_type"), "{error}");
    }
}
