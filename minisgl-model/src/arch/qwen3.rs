//! `Qwen3ForCausalLM` and `Qwen3MoeForCausalLM`: queries and keys are normalized per head before
//! they are rotated.

use super::{DecoderParts, WindowRule};
use crate::ModelConfig;

pub(super) const WINDOW_RULE: WindowRule = WindowRule::Switched;

pub(super) fn parts(config: &ModelConfig) -> DecoderParts {
    DecoderParts {
        qkv_bias: config.attention_bias,
        o_bias: config.attention_bias,
        mlp_bias: false,
        qk_norm: true,
    }
}
