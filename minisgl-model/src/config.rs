//! What a checkpoint's `config.json` says, checked. Both spellings are read: that of transformers 4
//! (`rope_theta`, `rope_scaling`, `torch_dtype`) and that of 5 (`rope_parameters`, `dtype`).
//!
//! Never knows which tensors there are; an unknown architecture, activation or rope type is an
//! error, never a guess.

mod moe;
mod quantization;
mod raw;
mod rope;

use minisgl_kernels::convert::CheckpointDType;
use serde_json::Value;

pub use self::moe::MoeConfig;
pub use self::quantization::Fp8Config;
use self::raw::{MAX_POSITIONS, RawConfig};
pub use self::rope::{RopeConfig, RopeScaling};
use crate::arch::Architecture;
use crate::{Checkpoint, ModelError};

/// A decoder-only transformer, as far as its configuration tells.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelConfig {
    /// Which model.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_qo_heads: usize,
    /// KV heads; divides the query heads.
    pub num_kv_heads: usize,
    /// Elements per head; not always `hidden_size / num_qo_heads`.
    pub head_dim: usize,
    /// Token ids.
    pub vocab_size: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// Whether the embedding is also the output projection.
    pub tie_word_embeddings: bool,
    /// Whether the projections of attention have a bias.
    pub attention_bias: bool,
    /// Whether the projections of the MLP have a bias.
    pub mlp_bias: bool,
    /// For each layer, how many positions back a token sees; `None` is all.
    pub windows: Vec<Option<usize>>,
    /// Experts in place of the MLP, in some layers.
    pub moe: Option<MoeConfig>,
    /// How the projections are quantized, if they are.
    pub fp8: Option<Fp8Config>,
    /// The element type of the checkpoint.
    pub dtype: CheckpointDType,
    /// Token ids that end an output.
    pub eos_token_ids: Vec<u32>,
}

impl ModelConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] that names the field, its value and what is allowed.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        Self::parse(&checkpoint.require("config.json")?)
    }

    /// Checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] that names the field, its value and what is allowed.
    pub fn parse(json: &[u8]) -> Result<Self, ModelError> {
        let invalid = |source| ModelError::Json { file: "config.json".to_owned(), source };
        let json: Value = serde_json::from_slice(json).map_err(invalid)?;
        let raw: RawConfig = serde_json::from_value(unwrap_text_config(json)).map_err(invalid)?;
        raw.check()
    }

    /// Whether layer `layer` has experts.
    pub fn is_sparse(&self, layer: usize) -> bool {
        self.moe.as_ref().is_some_and(|moe| moe.is_sparse[layer])
    }

    /// Query heads that share one KV head.
    pub fn group_size(&self) -> usize {
        self.num_qo_heads / self.num_kv_heads
    }

    /// Positions that it is used with unless told otherwise: those it was made for, or as many as
    /// YaRN stretches its original ones to.
    pub fn context_len(&self) -> usize {
        match self.rope.scaling {
            RopeScaling::Yarn { factor, original_max, .. } => self.stretched(original_max, factor),
            _ => self.max_position_embeddings,
        }
    }

    /// Positions that it can be used with: linear scaling stretches, too, but its config does not say
    /// whether `max_position_embeddings` are those before or after.
    pub fn max_positions(&self) -> usize {
        match self.rope.scaling {
            RopeScaling::Linear { factor } => self.stretched(self.max_position_embeddings, factor),
            _ => self.context_len(),
        }
    }

    fn stretched(&self, positions: usize, factor: f64) -> usize {
        let stretched = (positions as f64 * factor) as usize;
        stretched.clamp(self.max_position_embeddings, MAX_POSITIONS)
    }

    /// Parameters of the whole model, but for biases and the norms of heads.
    pub fn num_parameters(&self) -> usize {
        let h = self.hidden_size;
        let attention = h * self.head_dim * 2 * (self.num_qo_heads + self.num_kv_heads);
        let mlp = |layer| match &self.moe {
            Some(moe) if moe.is_sparse[layer] => {
                moe.num_experts * (3 * h * moe.intermediate_size + h)
            }
            _ => 3 * h * self.intermediate_size,
        };
        let layers: usize = (0..self.num_layers).map(|layer| attention + mlp(layer) + 2 * h).sum();
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        layers + (embeddings * self.vocab_size + 1) * h
    }
}

/// Multimodal checkpoints keep the language model's fields in `text_config`; what is not there is
/// outside.
fn unwrap_text_config(mut config: Value) -> Value {
    let Some(Value::Object(mut text)) = config.get_mut("text_config").map(Value::take) else {
        return config;
    };
    // Its own name is that of a part; the whole has the architecture.
    text.remove("architectures");
    if let Value::Object(outer) = config {
        for (field, value) in outer {
            text.entry(field).or_insert(value);
        }
    }
    Value::Object(text)
}

#[cfg(test)]
mod tests;
