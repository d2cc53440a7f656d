//! The mixture-of-experts part of `config.json`. Knows which layers have experts, not what they do.

use serde::Deserialize;

use super::raw::{MAX_SIZE, size};
use crate::ModelError;

/// Limits no real model comes near, as those of [`super::raw`].
const MAX_EXPERTS: usize = 1 << 10;
const MAX_EXPERT_SIZE: usize = 1 << 16;

/// Layers whose MLP is a choice of experts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoeConfig {
    /// Experts per layer.
    pub num_experts: usize,
    /// Experts a token goes through.
    pub top_k: usize,
    /// Width of one expert.
    pub intermediate_size: usize,
    /// Whether the weights of a token's experts are made to add up to 1.
    pub normalize_weights: bool,
    /// For each layer, whether it has experts.
    pub is_sparse: Vec<bool>,
}

#[derive(Deserialize)]
pub(super) struct RawMoe {
    num_experts: Option<usize>,
    /// The name in transformers 5.
    num_local_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    moe_intermediate_size: Option<usize>,
    norm_topk_prob: Option<bool>,
    decoder_sparse_step: Option<usize>,
    mlp_only_layers: Option<Vec<usize>>,
}

impl RawMoe {
    pub(super) fn check(self, num_layers: usize) -> Result<MoeConfig, ModelError> {
        let experts = self.num_experts.or(self.num_local_experts);
        let num_experts = size("num_experts", experts, MAX_EXPERTS)?;
        let top_k = size("num_experts_per_tok", self.num_experts_per_tok, num_experts)?;
        let step = match self.decoder_sparse_step {
            None => 1,
            given => size("decoder_sparse_step", given, MAX_SIZE)?,
        };
        let dense = self.mlp_only_layers.unwrap_or_default();
        let is_sparse = |layer: usize| !dense.contains(&layer) && (layer + 1).is_multiple_of(step);
        Ok(MoeConfig {
            num_experts,
            top_k,
            intermediate_size: size(
                "moe_intermediate_size",
                self.moe_intermediate_size,
                MAX_EXPERT_SIZE,
            )?,
            normalize_weights: self.norm_topk_prob.unwrap_or(false),
            is_sparse: (0..num_layers).map(is_sparse).collect(),
        })
    }
}
