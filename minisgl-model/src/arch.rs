//! The architectures: a closed set, one file each. A file says by which parts its model differs
//! from the common decoder; the decoder itself is in [`crate::decoder`].
//!
//! Adding one: a file here, an arm in [`Architecture`], and golden fixtures.

mod llama;
mod mistral;
mod qwen2;
mod qwen3;

use crate::{ModelConfig, ModelError};

/// A model family, by the name in `config.json`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// `LlamaForCausalLM`
    Llama,
    /// `MistralForCausalLM`
    Mistral,
    /// `Mistral3ForConditionalGeneration`, its text part
    Mistral3,
    /// `Qwen2ForCausalLM`
    Qwen2,
    /// `Qwen3ForCausalLM`
    Qwen3,
    /// `Qwen3MoeForCausalLM`
    Qwen3Moe,
}

/// The optional parts of a decoder layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DecoderParts {
    /// Bias on the projections to queries, keys and values.
    pub qkv_bias: bool,
    /// Bias on attention's output projection.
    pub o_bias: bool,
    /// Bias on the three projections of the MLP.
    pub mlp_bias: bool,
    /// RMSNorm of each query and key head before rotation.
    pub qk_norm: bool,
}

/// When `sliding_window` in `config.json` means something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WindowRule {
    /// Never.
    Ignored,
    /// If it is not null, in all layers.
    Given,
    /// If `use_sliding_window` is on, in the layers of `layer_types`, or from `max_window_layers` on.
    Switched,
}

impl Architecture {
    const ALL: [(&'static str, Architecture); 6] = [
        ("LlamaForCausalLM", Architecture::Llama),
        ("MistralForCausalLM", Architecture::Mistral),
        ("Mistral3ForConditionalGeneration", Architecture::Mistral3),
        ("Qwen2ForCausalLM", Architecture::Qwen2),
        ("Qwen3ForCausalLM", Architecture::Qwen3),
        ("Qwen3MoeForCausalLM", Architecture::Qwen3Moe),
    ];

    /// The first of `config.json`'s `architectures`.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] if it is not one of these.
    pub fn from_config(names: &[String]) -> Result<Self, ModelError> {
        let name = names.first().map_or("none", String::as_str);
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, architecture)| *architecture).ok_or_else(|| ModelError::Unsupported {
            what: "architecture",
            got: name.to_owned(),
            allowed: format!("{} are", Self::ALL.map(|(name, _)| name).join(", ")),
        })
    }

    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// The optional parts that `config` asks for.
    pub fn parts(self, config: &ModelConfig) -> DecoderParts {
        match self {
            Self::Llama => llama::parts(config),
            Self::Mistral | Self::Mistral3 => mistral::parts(),
            Self::Qwen2 => qwen2::parts(),
            Self::Qwen3 | Self::Qwen3Moe => qwen3::parts(config),
        }
    }

    pub(crate) fn window_rule(self) -> WindowRule {
        match self {
            Self::Llama => llama::WINDOW_RULE,
            Self::Mistral | Self::Mistral3 => mistral::WINDOW_RULE,
            Self::Qwen2 => qwen2::WINDOW_RULE,
            Self::Qwen3 | Self::Qwen3Moe => qwen3::WINDOW_RULE,
        }
    }

    /// Whether layers may have experts in place of an MLP.
    pub(crate) fn has_experts(self) -> bool {
        self == Self::Qwen3Moe
    }
}
