//! `MistralForCausalLM`, and the text part of `Mistral3ForConditionalGeneration`: the common decoder
//! as it is, with a sliding window in all layers if the config gives one.

use super::{DecoderParts, WindowRule};

pub(super) const WINDOW_RULE: WindowRule = WindowRule::Given;

pub(super) fn parts() -> DecoderParts {
    DecoderParts::default()
}
