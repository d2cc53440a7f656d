//! `LlamaForCausalLM`: Llama 2 and 3. The common decoder as it is, with optional biases.

use super::{DecoderParts, WindowRule};
use crate::ModelConfig;

pub(super) const WINDOW_RULE: WindowRule = WindowRule::Ignored;

pub(super) fn parts(config: &ModelConfig) -> DecoderParts {
    DecoderParts {
        qkv_bias: config.attention_bias,
        o_bias: config.attention_bias,
        mlp_bias: config.mlp_bias,
        qk_norm: false,
    }
}
