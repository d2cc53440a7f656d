//! `Qwen2ForCausalLM`: Qwen 2 and 2.5. Queries, keys and values always have a bias.

use super::{DecoderParts, WindowRule};

pub(super) const WINDOW_RULE: WindowRule = WindowRule::Switched;

pub(super) fn parts() -> DecoderParts {
    DecoderParts { qkv_bias: true, ..DecoderParts::default() }
}
