//! Sizes of the denoising U-Net, and reading the JSON configurations that diffusers writes. A configuration that would
//! need something that is not implemented is refused, never approximated. Does not know the network itself.

use std::fmt;

use serde_json::{Value, json};

use crate::weights::WeightsError;

pub(crate) use reader::Reader;

mod reader;

/// A value for each level, finest first, or one for all of them.
#[derive(Debug, Clone, PartialEq)]
pub enum PerLevel<T> {
    /// The same on every level.
    Same(T),
    /// One for each level.
    Each(Vec<T>),
}

impl<T: Copy + PartialEq + Into<Value>> PerLevel<T> {
    /// From a list, which is kept only if its values differ.
    pub fn of(list: Vec<T>) -> Self {
        match list.first() {
            Some(&first) if list.iter().all(|value| *value == first) => Self::Same(first),
            _ => Self::Each(list),
        }
    }

    /// The value of a level, 0 the finest.
    ///
    /// # Panics
    /// If the list is not so long.
    pub fn at(&self, level: usize) -> T {
        match self {
            Self::Same(value) => *value,
            Self::Each(list) => list[level],
        }
    }

    fn values(&self) -> &[T] {
        match self {
            Self::Same(value) => std::slice::from_ref(value),
            Self::Each(list) => list,
        }
    }

    fn fits(&self, levels: usize) -> bool {
        matches!(self, Self::Same(_)) || self.values().len() == levels
    }

    fn reversed(self) -> Self {
        match self {
            Self::Same(value) => Self::Same(value),
            Self::Each(list) => Self::Each(list.into_iter().rev().collect()),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Same(value) => (*value).into(),
            Self::Each(list) => list.clone().into(),
        }
    }
}

impl<T> From<T> for PerLevel<T> {
    fn from(value: T) -> Self {
        Self::Same(value)
    }
}

impl<T: fmt::Debug> fmt::Display for PerLevel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(value) => write!(f, "{value:?}"),
            Self::Each(list) => write!(f, "{list:?}"),
        }
    }
}

/// What lies between the two halves of the U-Net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Middle {
    /// Residual block, transformer, residual block (`UNetMidBlock2DCrossAttn`).
    #[default]
    CrossAttention,
    /// One residual block (`UNetMidBlock2D`).
    Residual,
    /// Nothing.
    None,
}

impl Middle {
    /// What diffusers calls it.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::CrossAttention => Some("UNetMidBlock2DCrossAttn"),
            Self::Residual => Some("UNetMidBlock2D"),
            Self::None => None,
        }
    }
}

/// One level of one half of the U-Net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Channels.
    pub channels: i64,
    /// Residual blocks.
    pub layers: i64,
    /// What follows each of them, on levels with attention.
    pub transformers: Option<Transformers>,
}

/// The transformers of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transformers {
    /// Channels inside: those of the level, or what its heads can share evenly of them.
    pub width: i64,
    /// Attention heads.
    pub heads: i64,
    /// Blocks in each.
    pub depth: i64,
    /// Whether they attend to the text where others attend to themselves.
    pub only_cross: bool,
}

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
    pub layers_per_block: PerLevel<i64>,
    /// Which levels have transformers.
    pub attention_levels: Vec<bool>,
    /// Which have them on the way up, finest first as well, where these are not the same.
    pub up_attention_levels: Option<Vec<bool>>,
    /// What lies below the last level.
    pub middle: Middle,
    /// Attention heads of each level (diffusers calls this number `attention_head_dim`). Levels without attention do
    /// not look at theirs.
    pub heads: Vec<i64>,
    /// Channels of the text tokens.
    pub cross_attention_dim: i64,
    /// Blocks per transformer; the middle has as many as the last level.
    pub transformer_layers: PerLevel<i64>,
    /// Blocks per transformer on the way up, finest first as well, where these are not the same.
    pub up_transformer_layers: Option<PerLevel<i64>>,
    /// Levels whose transformers attend to the text twice and never to themselves.
    pub only_cross_attention: PerLevel<bool>,
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
    /// Width of the time embedding, where it is not four times the finest level's. A ControlNet has its U-Net's, which
    /// diffusers cannot give it.
    pub time_embedding_dim: Option<i64>,
    /// Zeros around a map that is halved, 0 or 1; 0 stands for one row and column at the bottom and right only.
    pub downsample_padding: i64,
    /// What the middle's residual blocks put out is divided by this.
    pub mid_block_scale_factor: f64,
}

impl Default for UNetConfig {
    fn default() -> Self {
        Self {
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerLevel::Same(2),
            attention_levels: vec![true, true, true, false],
            up_attention_levels: None,
            middle: Middle::CrossAttention,
            heads: vec![5, 10, 20, 20],
            cross_attention_dim: 1024,
            transformer_layers: PerLevel::Same(1),
            up_transformer_layers: None,
            only_cross_attention: PerLevel::Same(false),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            use_linear_projection: true,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            time_embedding_dim: None,
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
        }
    }
}

impl UNetConfig {
    /// A network of about 2 million weights for 16x16 latents: 32/64/96 channels at 16/8/4 pixels, one residual block
    /// per level, attention with 16 channels a head on the two finer levels and in the middle, text tokens of 64
    /// channels.
    pub fn small() -> Self {
        Self {
            block_out_channels: vec![32, 64, 96],
            layers_per_block: PerLevel::Same(1),
            attention_levels: vec![true, true, false],
            heads: vec![2, 4, 6],
            cross_attention_dim: 64,
            norm_num_groups: 8,
            ..Self::default()
        }
    }

    /// Width of the time embedding.
    pub fn time_width(&self) -> i64 {
        self.time_embedding_dim.unwrap_or(4 * self.block_out_channels[0])
    }

    /// A level of the contracting half, 0 the finest.
    pub fn down(&self, level: usize) -> Level {
        let attends = self.attention_levels[level];
        self.level(level, self.layers_per_block.at(level), attends, &self.transformer_layers)
    }

    /// A level of the expanding half, 0 the finest.
    pub fn up(&self, level: usize) -> Level {
        let attends = self.up_attention_levels.as_ref().unwrap_or(&self.attention_levels)[level];
        let depths = self.up_transformer_layers.as_ref().unwrap_or(&self.transformer_layers);
        self.level(level, self.layers_per_block.at(level) + 1, attends, depths)
    }

    fn level(&self, level: usize, layers: i64, attends: bool, depths: &PerLevel<i64>) -> Level {
        let only_cross = self.only_cross_attention.at(level);
        let transformers = attends.then(|| self.transformers(level, depths.at(level), only_cross));
        Level { channels: self.block_out_channels[level], layers, transformers }
    }

    /// The transformer of the middle, if it has one. It attends to itself on any network.
    pub fn middle_transformer(&self) -> Option<Transformers> {
        let last = self.block_out_channels.len() - 1;
        let there = self.middle == Middle::CrossAttention;
        there.then(|| self.transformers(last, self.transformer_layers.at(last), false))
    }

    fn transformers(&self, level: usize, depth: i64, only_cross: bool) -> Transformers {
        let (channels, heads) = (self.block_out_channels[level], self.heads[level]);
        // a number of heads that there cannot be is for `check` to tell
        Transformers { width: heads * channels.checked_div(heads).unwrap_or(0), heads, depth, only_cross }
    }

    /// Number of expression attentions, one per block of each transformer of both halves: with N attention levels, L
    /// residual blocks and D blocks per transformer, (N L + N (L + 1)) D.
    pub fn expression_attentions(&self) -> i64 {
        let of = |level: Level| level.transformers.map_or(0, |transformers| level.layers * transformers.depth);
        (0..self.block_out_channels.len()).map(|i| of(self.down(i)) + of(self.up(i))).sum()
    }

    /// Reads diffusers' `config.json` of a U-Net. `place` names it in errors. Anything that would need a feature this
    /// network lacks is refused. `upcast_attention` changes nothing, since scores are in f32 anyhow (see
    /// [`attend`](crate::attention::attend)), nor does `dropout`, which is diffusers' own training's.
    pub fn from_json(value: &Value, place: &str) -> Result<Self, WeightsError> {
        let read = Reader { value, place };
        // diffusers refuses it as well, here and not for a ControlNet
        read.refuse_unless("num_attention_heads", &[Value::Null])?;
        Self::read(&read, "attention_head_dim")
    }

    /// Like [`UNetConfig::from_json`], of a ControlNet, whose `num_attention_heads` goes before `attention_head_dim`.
    pub(crate) fn from_controlnet_json(value: &Value, place: &str) -> Result<Self, WeightsError> {
        let given = value.get("num_attention_heads").is_some_and(|heads| !heads.is_null());
        let heads = if given { "num_attention_heads" } else { "attention_head_dim" };
        Self::read(&Reader { value, place }, heads)
    }

    fn read(read: &Reader<'_>, heads: &str) -> Result<Self, WeightsError> {
        refuse_other_networks(read)?;
        let default = Self::default();
        let block_out_channels = read.integers("block_out_channels", None)?;
        let levels = block_out_channels.len();
        let attention_levels = attending(read, "down_block_types", "Down")?;
        let up_attention_levels = match read.value.get("up_block_types") {
            None => None,
            Some(_) => {
                let mut up = attending(read, "up_block_types", "Up")?;
                up.reverse();
                (up != attention_levels).then_some(up)
            }
        };
        let depths = |key: &str| read.per_level(key, levels, 1, Value::as_i64);
        let transformer_layers = depths("transformer_layers_per_block")?;
        let up_transformer_layers = match read.value.get("reverse_transformer_layers_per_block") {
            None | Some(Value::Null) => None,
            Some(_) => Some(depths("reverse_transformer_layers_per_block")?.reversed()),
        };
        let time_embedding_dim = match read.value.get("time_embedding_dim") {
            None | Some(Value::Null) => None,
            // 0 is none in Python
            Some(_) => Some(read.integer("time_embedding_dim", 0)?).filter(|width| *width != 0),
        };
        let usual_time = block_out_channels.first().map(|channels| 4 * channels);
        let mut config = Self {
            in_channels: read.integer("in_channels", default.in_channels)?,
            out_channels: read.integer("out_channels", default.out_channels)?,
            layers_per_block: read.per_level("layers_per_block", levels, 2, Value::as_i64)?,
            attention_levels,
            up_attention_levels,
            middle: match read.value.get("mid_block_type") {
                Some(Value::Null) => Middle::None,
                Some(name) if name == "UNetMidBlock2D" => Middle::Residual,
                _ => Middle::CrossAttention,
            },
            heads: read.integers(heads, Some((8, levels)))?,
            cross_attention_dim: default.cross_attention_dim,
            up_transformer_layers: up_transformer_layers.filter(|up| *up != transformer_layers),
            transformer_layers,
            only_cross_attention: read.per_level("only_cross_attention", levels, false, Value::as_bool)?,
            norm_num_groups: read.integer("norm_num_groups", 32)?,
            norm_eps: read.number("norm_eps", 1e-5)?,
            use_linear_projection: read.boolean("use_linear_projection", false)?,
            flip_sin_to_cos: read.boolean("flip_sin_to_cos", true)?,
            freq_shift: read.number("freq_shift", 0.0)?,
            time_embedding_dim: time_embedding_dim.filter(|width| Some(*width) != usual_time),
            downsample_padding: read.integer("downsample_padding", default.downsample_padding)?,
            mid_block_scale_factor: read.number("mid_block_scale_factor", default.mid_block_scale_factor)?,
            block_out_channels,
        };
        config.check_lengths(read)?;
        config.cross_attention_dim = config.text_width(read)?;
        config.check(read.place)?;
        Ok(config)
    }

    /// The one width that all who look at the text want; the other levels may say what they like.
    fn text_width(&self, read: &Reader<'_>) -> Result<i64, WeightsError> {
        let levels = self.block_out_channels.len();
        let widths = read.per_level("cross_attention_dim", levels, 1280, Value::as_i64)?;
        let mut looking = (0..levels).filter(|&i| self.attends(i)).map(|i| widths.at(i));
        let Some(width) = looking.next() else { return Ok(widths.at(0)) };
        if looking.any(|other| other != width) {
            let reason = "is not implemented (only one width, the text's, for all levels with attention)";
            return Err(read.error(format!("cross_attention_dim: {widths} {reason}")));
        }
        Ok(width)
    }

    /// Whether a level has attention in either half; the middle belongs to the last.
    fn attends(&self, level: usize) -> bool {
        let middle = level + 1 == self.block_out_channels.len() && self.middle_transformer().is_some();
        middle || self.down(level).transformers.is_some() || self.up(level).transformers.is_some()
    }

    /// The diffusers `config.json` that describes this network.
    pub fn to_json(&self) -> Value {
        let levels = self.block_out_channels.len();
        let name = |half: &str, level: Level| {
            format!("{}{half}Block2D", if level.transformers.is_some() { "CrossAttn" } else { "" })
        };
        let down: Vec<String> = (0..levels).map(|i| name("Down", self.down(i))).collect();
        let up: Vec<String> = (0..levels).rev().map(|i| name("Up", self.up(i))).collect();
        let whole = self.freq_shift.fract() == 0.0;
        let freq_shift = if whole { json!(self.freq_shift as i64) } else { json!(self.freq_shift) };
        let mut value = json!({
            "_class_name": "UNet2DConditionModel",
            "act_fn": "silu",
            "attention_head_dim": self.heads,
            "block_out_channels": self.block_out_channels,
            "cross_attention_dim": self.cross_attention_dim,
            "down_block_types": down,
            "flip_sin_to_cos": self.flip_sin_to_cos,
            "freq_shift": freq_shift,
            "in_channels": self.in_channels,
            "layers_per_block": self.layers_per_block.json(),
            "mid_block_type": self.middle.name(),
            "norm_eps": self.norm_eps,
            "norm_num_groups": self.norm_num_groups,
            "out_channels": self.out_channels,
            "transformer_layers_per_block": self.transformer_layers.json(),
            "up_block_types": up,
            "use_linear_projection": self.use_linear_projection,
        });
        if self.only_cross_attention != PerLevel::Same(false) {
            value["only_cross_attention"] = self.only_cross_attention.json();
        }
        if let Some(depths) = &self.up_transformer_layers {
            // a list even of one number: diffusers takes nothing else here
            let list: Vec<i64> = (0..levels).rev().map(|i| depths.at(i)).collect();
            value["reverse_transformer_layers_per_block"] = json!(list);
        }
        if let Some(width) = self.time_embedding_dim {
            value["time_embedding_dim"] = json!(width);
        }
        if self.downsample_padding != 1 {
            value["downsample_padding"] = json!(self.downsample_padding);
        }
        if self.mid_block_scale_factor != 1.0 {
            value["mid_block_scale_factor"] = json!(self.mid_block_scale_factor);
        }
        value
    }

    /// Are the sizes possible, and consistent with each other?
    pub fn check(&self, place: &str) -> Result<(), WeightsError> {
        let read = Reader { value: &Value::Null, place };
        self.check_lengths(&read)?;
        read.norm_groups(&self.block_out_channels, self.norm_num_groups)?;
        read.at_least("in_channels", 1, &[self.in_channels])?;
        read.at_least("out_channels", 1, &[self.out_channels])?;
        read.at_least("cross_attention_dim", 1, &[self.cross_attention_dim])?;
        read.at_least("layers_per_block", 1, self.layers_per_block.values())?;
        read.at_least("transformer_layers_per_block", 0, self.transformer_layers.values())?;
        let up = self.up_transformer_layers.as_ref().map_or(&[] as &[i64], PerLevel::values);
        read.at_least("reverse_transformer_layers_per_block", 0, up)?;
        read.at_least("time_embedding_dim", 1, self.time_embedding_dim.as_slice())?;
        if ![0, 1].contains(&self.downsample_padding) {
            let padding = self.downsample_padding;
            return Err(read.error(format!("downsample_padding: {padding} is not implemented (only 0 or 1)")));
        }
        if self.mid_block_scale_factor == 0.0 || !self.mid_block_scale_factor.is_finite() {
            let factor = self.mid_block_scale_factor;
            return Err(read.error(format!("mid_block_scale_factor must not be {factor}: features are divided by it")));
        }
        for (i, (channels, heads)) in self.block_out_channels.iter().zip(&self.heads).enumerate() {
            if self.attends(i) && !(1..=*channels).contains(heads) {
                return Err(read.error(format!(
                    "attention_head_dim: a level of {channels} channels cannot be cut into {heads} heads"
                )));
            }
        }
        Ok(())
    }

    /// Has every level its own value of everything?
    fn check_lengths(&self, read: &Reader<'_>) -> Result<(), WeightsError> {
        let levels = self.block_out_channels.len();
        let (down, heads) = (self.attention_levels.len(), self.heads.len());
        let up = self.up_attention_levels.as_ref().map_or(down, Vec::len);
        if levels == 0 || [down, up, heads] != [levels; 3] {
            return Err(read.error(format!(
                "{levels} widths, {down} block types on the way down and {up} on the way up, {heads} head counts: \
                 one of each per level is needed"
            )));
        }
        let lists = [
            ("layers_per_block", self.layers_per_block.fits(levels)),
            ("transformer_layers_per_block", self.transformer_layers.fits(levels)),
            (
                "reverse_transformer_layers_per_block",
                self.up_transformer_layers.as_ref().is_none_or(|depths| depths.fits(levels)),
            ),
            ("only_cross_attention", self.only_cross_attention.fits(levels)),
        ];
        match lists.iter().find(|(_, fits)| !fits) {
            Some((key, _)) => Err(read.error(format!("{key} has not one value for each of the {levels} levels"))),
            None => Ok(()),
        }
    }
}

/// Refuses what would be another network. Fields of block types that are refused, such as `resnet_out_scale_factor`,
/// `resnet_skip_time_act`, `cross_attention_norm` or `mid_block_only_cross_attention`, are not looked at: diffusers
/// does not look at them for the types there are here.
fn refuse_other_networks(read: &Reader<'_>) -> Result<(), WeightsError> {
    let middles = [Middle::CrossAttention, Middle::Residual, Middle::None].map(|middle| json!(middle.name()));
    read.refuse_unless("mid_block_type", &middles)?;
    // two names of one function
    read.refuse_unless("act_fn", &[json!("silu"), json!("swish")])?;
    read.refuse_unless("time_embedding_type", &[json!("positional")])?;
    read.refuse_unless("resnet_time_scale_shift", &[json!("default")])?;
    read.refuse_unless("attention_type", &[json!("default")])?;
    read.refuse_unless("conv_in_kernel", &[json!(3)])?;
    read.refuse_unless("conv_out_kernel", &[json!(3)])?;
    for key in [
        "addition_embed_type",
        "class_embed_type",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "num_class_embeds",
        "time_cond_proj_dim",
        "time_embedding_act_fn",
        "timestep_post_act",
    ] {
        read.refuse_unless(key, &[Value::Null])?;
    }
    for key in ["center_input_sample", "dual_cross_attention", "class_embeddings_concat"] {
        read.refuse_unless(key, &[json!(false), Value::Null])?;
    }
    Ok(())
}

/// Which block types of a half have transformers, in the order of the field.
fn attending(read: &Reader<'_>, key: &str, half: &str) -> Result<Vec<bool>, WeightsError> {
    let attends = |name: &String| match name.strip_suffix("Block2D").and_then(|name| name.strip_suffix(half)) {
        Some("CrossAttn") => Ok(true),
        Some("") => Ok(false),
        _ => Err(read.error(format!("{key}: the block type {name} is not implemented"))),
    };
    read.strings(key)?.iter().map(attends).collect()
}

#[cfg(test)]
mod tests;
