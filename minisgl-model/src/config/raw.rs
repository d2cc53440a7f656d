//! `config.json` as it is written, and the checks that make a [`ModelConfig`] of it.
//! Knows the fields' names and ranges, not what they are for.

use minisgl_kernels::convert::CheckpointDType;
use serde::Deserialize;

use super::ModelConfig;
use super::moe::RawMoe;
use super::quantization::RawQuantization;
use super::rope::{RawRope, RopeConfig};
use crate::ModelError;
use crate::arch::{Architecture, WindowRule};

#[derive(Deserialize)]
pub(super) struct RawConfig {
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: Option<usize>,
    rms_norm_eps: Option<f64>,
    max_position_embeddings: Option<usize>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    torch_dtype: Option<String>,
    dtype: Option<String>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    eos_token_id: Option<OneOrMany>,
    use_sliding_window: Option<bool>,
    sliding_window: Option<usize>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    quantization_config: Option<RawQuantization>,
    partial_rotary_factor: Option<f64>,
    #[serde(flatten)]
    moe: RawMoe,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

/// Limits no real model comes near; with them, products of sizes fit 64 bits.
pub(super) const MAX_SIZE: usize = 1 << 20;
const MAX_HEADS: usize = 1 << 16;
const MAX_VOCAB: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 10;
pub(super) const MAX_POSITIONS: usize = 1 << 28;

/// What transformers takes for Qwen 2 and 3 where the config says nothing.
const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;

impl RawConfig {
    pub(super) fn check(self) -> Result<ModelConfig, ModelError> {
        let architecture = Architecture::from_config(&self.architectures)?;
        let fp8 = self.quantization_config.as_ref().map(RawQuantization::check).transpose()?;
        let act = self.hidden_act.as_deref().unwrap_or("silu");
        if act != "silu" {
            return Err(ModelError::Unsupported {
                what: "hidden_act",
                got: act.to_owned(),
                allowed: "only silu is".to_owned(),
            });
        }
        let hidden_size = size("hidden_size", self.hidden_size, MAX_SIZE)?;
        let num_layers = size("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS)?;
        let num_qo_heads = size("num_attention_heads", self.num_attention_heads, MAX_HEADS)?;
        let num_kv_heads = match self.num_key_value_heads {
            None => num_qo_heads,
            given => size("num_key_value_heads", given, MAX_HEADS)?,
        };
        if num_qo_heads % num_kv_heads != 0 {
            return Err(ModelError::Config {
                field: "num_attention_heads",
                problem: format!(
                    "= {num_qo_heads} is not a multiple of the {num_kv_heads} KV heads"
                ),
            });
        }
        let head_dim = match self.head_dim {
            None => hidden_size / num_qo_heads,
            given => size("head_dim", given, MAX_SIZE)?,
        };
        if head_dim == 0 || !head_dim.is_multiple_of(8) || head_dim > 512 {
            return Err(ModelError::Config {
                field: "head_dim",
                problem: format!("= {head_dim} is not allowed: use a multiple of 8 up to 512"),
            });
        }
        let max_position_embeddings =
            size("max_position_embeddings", self.max_position_embeddings, MAX_POSITIONS)?;
        let windows = self.windows(architecture, num_layers)?;
        let rope = RopeConfig::check(
            self.rope_theta,
            self.partial_rotary_factor,
            self.rope_scaling.or(self.rope_parameters),
            max_position_embeddings,
        )?;
        let moe = architecture.has_experts().then(|| self.moe.check(num_layers)).transpose()?;
        Ok(ModelConfig {
            architecture,
            hidden_size,
            intermediate_size: size("intermediate_size", self.intermediate_size, MAX_SIZE)?,
            num_layers,
            num_qo_heads,
            num_kv_heads,
            head_dim,
            vocab_size: size("vocab_size", self.vocab_size, MAX_VOCAB)?,
            rms_norm_eps: epsilon(self.rms_norm_eps)?,
            rope,
            max_position_embeddings,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            attention_bias: self.attention_bias.unwrap_or(false),
            mlp_bias: self.mlp_bias.unwrap_or(false),
            windows,
            moe,
            fp8,
            dtype: dtype(self.dtype.or(self.torch_dtype))?,
            eos_token_ids: match self.eos_token_id {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => vec![id],
                Some(OneOrMany::Many(ids)) => ids,
            },
        })
    }

    /// Sliding windows by layer.
    fn windows(
        &self,
        architecture: Architecture,
        num_layers: usize,
    ) -> Result<Vec<Option<usize>>, ModelError> {
        let applies = match architecture.window_rule() {
            WindowRule::Ignored => false,
            WindowRule::Given => self.sliding_window.is_some(),
            WindowRule::Switched => self.use_sliding_window.unwrap_or(false),
        };
        if !applies {
            return Ok(vec![None; num_layers]);
        }
        let window = size("sliding_window", self.sliding_window, MAX_POSITIONS)?;
        if architecture.window_rule() == WindowRule::Given {
            return Ok(vec![Some(window); num_layers]);
        }
        let Some(types) = &self.layer_types else {
            let first = self.max_window_layers.unwrap_or(DEFAULT_MAX_WINDOW_LAYERS);
            return Ok((0..num_layers).map(|layer| (layer >= first).then_some(window)).collect());
        };
        if types.len() != num_layers {
            return Err(ModelError::Config {
                field: "layer_types",
                problem: format!("has {} entries for {num_layers} layers", types.len()),
            });
        }
        let window = |kind: &String| match kind.as_str() {
            "full_attention" => Ok(None),
            "sliding_attention" => Ok(Some(window)),
            _ => Err(ModelError::Unsupported {
                what: "layer type",
                got: kind.clone(),
                allowed: "full_attention and sliding_attention are".to_owned(),
            }),
        };
        types.iter().map(window).collect()
    }
}

/// A size that must be given and lie in `1..=max`.
pub(super) fn size(
    field: &'static str,
    value: Option<usize>,
    max: usize,
) -> Result<usize, ModelError> {
    match value {
        None => Err(ModelError::Config { field, problem: "is missing".to_owned() }),
        Some(value) if (1..=max).contains(&value) => Ok(value),
        Some(value) => Err(ModelError::Config {
            field,
            problem: format!("= {value} is not allowed: use 1 to {max}"),
        }),
    }
}

fn epsilon(value: Option<f64>) -> Result<f32, ModelError> {
    let field = "rms_norm_eps";
    match value {
        None => Err(ModelError::Config { field, problem: "is missing".to_owned() }),
        Some(value) if (0.0..1.0).contains(&value) => Ok(value as f32),
        Some(value) => Err(ModelError::Config {
            field,
            problem: format!("= {value} is not allowed: use a small positive number"),
        }),
    }
}

fn dtype(name: Option<String>) -> Result<CheckpointDType, ModelError> {
    match name.as_deref().map(|name| name.strip_prefix("torch.").unwrap_or(name)) {
        None | Some("float32") => Ok(CheckpointDType::F32),
        Some("float16") => Ok(CheckpointDType::F16),
        Some("bfloat16") => Ok(CheckpointDType::Bf16),
        Some(other) => Err(ModelError::Unsupported {
            what: "dtype",
            got: other.to_owned(),
            allowed: "float32, float16 and bfloat16 are".to_owned(),
        }),
    }
}
