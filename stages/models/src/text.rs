//! The text encoder of Stable Diffusion: the text half of CLIP (transformers' `CLIPTextModel`), ViT-L in the first
//! generation and OpenCLIP's ViT-H in the second. A causal transformer over token numbers; the second generation's
//! folder has one layer less than OpenCLIP trained, so the "penultimate layer" is the last one here. Does not know how
//! a text becomes token numbers (`tokenizer.rs`).

use serde_json::{Value, json};
use tch::nn::Path;
use tch::{Kind, Tensor};

use crate::config::Reader;
use crate::layers::{LayerNorm, Linear};
use crate::weights::WeightsError;

/// The gate between the two linear maps of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x sigmoid(1.702 x): CLIP's own.
    QuickGelu,
    /// x Phi(x): OpenCLIP's.
    Gelu,
}

/// Sizes of the text encoder. The default is that of Stable Diffusion 2.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextConfig {
    /// Number of tokens there are.
    pub vocab_size: i64,
    /// Width of the hidden state.
    pub hidden_size: i64,
    /// Width between the two linear maps of a layer.
    pub intermediate_size: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Longest text, in tokens.
    pub max_position_embeddings: i64,
    /// The gate.
    pub hidden_act: Activation,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 23,
            num_attention_heads: 16,
            max_position_embeddings: 77,
            hidden_act: Activation::Gelu,
        }
    }
}

impl TextConfig {
    /// The first generation's: CLIP ViT-L/14.
    pub fn first_generation() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            hidden_act: Activation::QuickGelu,
            ..Self::default()
        }
    }

    /// Reads transformers' `config.json`; absent fields take that library's defaults. `place` names it in errors.
    pub fn from_json(value: &Value, place: &str) -> Result<Self, WeightsError> {
        let read = Reader { value, place };
        read.refuse_unless("model_type", &[json!("clip_text_model")])?;
        read.refuse_unless("layer_norm_eps", &[json!(1e-5)])?;
        let config = Self {
            vocab_size: read.integer("vocab_size", 49408)?,
            hidden_size: read.integer("hidden_size", 512)?,
            intermediate_size: read.integer("intermediate_size", 2048)?,
            num_hidden_layers: read.integer("num_hidden_layers", 12)?,
            num_attention_heads: read.integer("num_attention_heads", 8)?,
            max_position_embeddings: read.integer("max_position_embeddings", 77)?,
            hidden_act: match value.get("hidden_act").map_or(Some("quick_gelu"), Value::as_str) {
                Some("quick_gelu") => Activation::QuickGelu,
                Some("gelu") => Activation::Gelu,
                _ => return Err(read.error("hidden_act must be quick_gelu or gelu".into())),
            },
        };
        let positive =
            [config.vocab_size, config.hidden_size, config.intermediate_size, config.max_position_embeddings];
        if positive.iter().any(|&n| n <= 0) || config.num_hidden_layers <= 0 {
            return Err(read.error("a size is not positive".into()));
        }
        if config.num_attention_heads <= 0 || config.hidden_size % config.num_attention_heads != 0 {
            let (width, heads) = (config.hidden_size, config.num_attention_heads);
            return Err(read.error(format!("{width} channels cannot be cut into {heads} heads")));
        }
        Ok(config)
    }

    /// transformers' `config.json` of this network.
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["CLIPTextModel"],
            "hidden_act": match self.hidden_act {
                Activation::QuickGelu => "quick_gelu",
                Activation::Gelu => "gelu",
            },
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": "clip_text_model",
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "vocab_size": self.vocab_size,
        })
    }
}

/// The text encoder.
#[derive(Debug)]
pub struct TextEncoder {
    tokens: Tensor,
    positions: Tensor,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
}

impl TextEncoder {
    /// Creates the variables at the root of `p`, under transformers' names (`text_model.`).
    pub fn new(p: &Path, config: &TextConfig) -> Self {
        let p = p / "text_model";
        let (embeddings, width) = (&p / "embeddings", config.hidden_size);
        Self {
            tokens: (&embeddings / "token_embedding").zeros("weight", &[config.vocab_size, width]),
            positions: (&embeddings / "position_embedding").zeros("weight", &[config.max_position_embeddings, width]),
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(&(&p / "encoder" / "layers" / i), config))
                .collect(),
            final_norm: LayerNorm::new(&(&p / "final_layer_norm"), width),
        }
    }

    /// Token numbers `[B, M]` i64 -> hidden states after the last layer and its norm, `[B, M, hidden_size]`. Padding is
    /// seen like any token, as Stable Diffusion does.
    ///
    /// # Panics
    /// If a number is not below the vocabulary's size, or a text is longer than there are positions.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        let length = ids.size()[1];
        let tokens = Tensor::embedding(&self.tokens, ids, -1, false, false);
        let mut x = tokens + self.positions.narrow(0, 0, length);
        for layer in &self.layers {
            x = layer.forward(&x);
        }
        self.final_norm.forward(&x)
    }
}

#[derive(Debug)]
struct Layer {
    norm1: LayerNorm,
    /// Query, key, value.
    project: [Linear; 3],
    out: Linear,
    norm2: LayerNorm,
    widen: Linear,
    narrow: Linear,
    heads: i64,
    act: Activation,
}

impl Layer {
    fn new(p: &Path, c: &TextConfig) -> Self {
        let width = c.hidden_size;
        let attention = |name: &str| Linear::new(&(p / "self_attn" / name), width, width);
        Self {
            norm1: LayerNorm::new(&(p / "layer_norm1"), width),
            project: ["q_proj", "k_proj", "v_proj"].map(attention),
            out: attention("out_proj"),
            norm2: LayerNorm::new(&(p / "layer_norm2"), width),
            widen: Linear::new(&(p / "mlp" / "fc1"), width, c.intermediate_size),
            narrow: Linear::new(&(p / "mlp" / "fc2"), c.intermediate_size, width),
            heads: c.num_attention_heads,
            act: c.hidden_act,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let normed = self.norm1.forward(x);
        let [q, k, v] =
            self.project.each_ref().map(|l| l.forward(&normed).unflatten(2, [self.heads, -1]).transpose(1, 2));
        let mixed = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, true, None, false);
        let x = x + self.out.forward(&mixed.transpose(1, 2).flatten(2, 3));
        let wide = self.widen.forward(&self.norm2.forward(&x));
        let gated = match self.act {
            Activation::QuickGelu => &wide * (&wide * 1.702).sigmoid(),
            Activation::Gelu => wide.gelu("none"),
        };
        x + self.narrow.forward(&gated)
    }
}

/// Token numbers as the encoder takes them, `[1, M]`.
pub fn ids(tokens: &[i64]) -> Tensor {
    Tensor::from_slice(tokens).to_kind(Kind::Int64).unsqueeze(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{init, weights};
    use tch::Device;

    #[test]
    fn configurations_survive_and_published_sizes_are_right() {
        for config in [TextConfig::default(), TextConfig::first_generation()] {
            assert_eq!(TextConfig::from_json(&config.to_json(), "here").unwrap(), config);
        }
        // Stable Diffusion 1.x: 196 tensors, 123.06 million values; only shapes are asked for, so the meta data
        // suffices.
        let vs = tch::nn::VarStore::new(Device::Cpu);
        let small = TextConfig {
            vocab_size: 7,
            hidden_size: 8,
            num_attention_heads: 2,
            intermediate_size: 16,
            ..TextConfig::first_generation()
        };
        TextEncoder::new(&vs.root(), &small);
        assert_eq!(vs.variables().len(), 196);
        let mut odd = TextConfig::default().to_json();
        odd["hidden_act"] = json!("relu");
        assert!(TextConfig::from_json(&odd, "here").unwrap_err().to_string().contains("hidden_act"));
    }

    #[test]
    fn a_token_sees_what_stands_before_it_and_nothing_after() {
        let config = TextConfig {
            vocab_size: 9,
            hidden_size: 8,
            intermediate_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            max_position_embeddings: 5,
            hidden_act: Activation::Gelu,
        };
        let (vs, net) = init::build(Device::Cpu, 1, |p| TextEncoder::new(p, &config));
        assert_eq!(weights::count(&vs), 9 * 8 + 5 * 8 + 2 * (4 * 72 + 2 * 16 + 8 * 16 + 16 + 16 * 8 + 8) + 16);
        let states = |tokens: &[i64]| tch::no_grad(|| net.forward(&ids(tokens)));
        let (a, b) = (states(&[1, 2, 3, 4, 5]), states(&[1, 2, 3, 8, 5]));
        assert_eq!(a.narrow(1, 0, 3), b.narrow(1, 0, 3));
        assert_ne!(a.select(1, 3), b.select(1, 3));
        assert_ne!(a.select(1, 4), b.select(1, 4));
    }
}
