//! The sizes of one rank's share of a decoder. Knows numbers only.

use minisgl_kernels::DType;

use crate::ModelConfig;
use crate::shard::Shard;

/// Sizes of one rank's share.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub num_qo_heads: usize,
    /// KV heads.
    pub num_kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Columns of the MLP's inner layer.
    pub intermediate_size: usize,
    /// Experts in place of the MLP, in some layers.
    pub experts: Option<ExpertGeometry>,
    /// The first token id.
    pub first_token_id: i32,
    /// Token ids.
    pub vocab_size: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Element type of weights and activations.
    pub dtype: DType,
}

impl Geometry {
    /// Columns of the fused projection to queries, keys and values.
    pub(crate) fn qkv_size(&self) -> usize {
        (self.num_qo_heads + 2 * self.num_kv_heads) * self.head_dim
    }

    /// Columns of attention's output.
    pub(crate) fn attention_size(&self) -> usize {
        self.num_qo_heads * self.head_dim
    }
}

/// Sizes of one rank's share of the experts of a layer.
#[derive(Clone, Copy, Debug)]
pub struct ExpertGeometry {
    /// Experts per layer.
    pub num_experts: usize,
    /// Experts a token goes through.
    pub top_k: usize,
    /// Columns of one expert's inner layer.
    pub intermediate_size: usize,
}

impl Geometry {
    /// The sizes of `shard`.
    pub fn new(config: &ModelConfig, shard: &Shard, dtype: DType) -> Self {
        Self {
            hidden_size: config.hidden_size,
            num_qo_heads: shard.qo_heads.len(),
            num_kv_heads: shard.kv_heads.len(),
            head_dim: config.head_dim,
            intermediate_size: shard.intermediate.len(),
            experts: config.moe.as_ref().map(|moe| ExpertGeometry {
                num_experts: moe.num_experts,
                top_k: moe.top_k,
                intermediate_size: shard.expert_intermediate.len(),
            }),
            first_token_id: shard.vocab.start as i32,
            vocab_size: shard.vocab.len(),
            rms_norm_eps: config.rms_norm_eps,
            dtype,
        }
    }

    /// Bytes of the weights that every step reads: all but an input embedding of its own, of which
    /// a step reads a few rows.
    pub fn step_weight_bytes(&self, config: &ModelConfig) -> usize {
        let embedding = self.hidden_size * self.vocab_size * self.dtype.size_bytes();
        self.weight_bytes(config) - if config.tie_word_embeddings { 0 } else { embedding }
    }

    /// Bytes of the weights of this rank, but for biases and the norms of heads.
    pub fn weight_bytes(&self, config: &ModelConfig) -> usize {
        let h = self.hidden_size;
        let mlp = |layer| match self.experts.filter(|_| config.is_sparse(layer)) {
            Some(experts) => experts.num_experts * (3 * h * experts.intermediate_size + h),
            None => 3 * h * self.intermediate_size,
        };
        let attention = h * (self.qkv_size() + self.attention_size() + 2);
        let layers: usize = (0..config.num_layers).map(|layer| attention + mlp(layer)).sum();
        let embeddings = if config.tie_word_embeddings { 1 } else { 2 };
        (layers + h * (embeddings * self.vocab_size + 1)) * self.dtype.size_bytes()
    }
}
