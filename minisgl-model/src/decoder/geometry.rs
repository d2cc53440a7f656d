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
    /// Whether the projections of attention and MLP are 8-bit floats with a scale per output feature;
    /// [`Geometry::new`] says no. Experts never are.
    pub fp8_projections: bool,
    /// Element type of keys and values in the pool; [`Geometry::new`] says `dtype`.
    pub kv_dtype: DType,
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
            fp8_projections: false,
            kv_dtype: dtype,
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
        let (h, element) = (self.hidden_size, self.dtype.size_bytes());
        let projection = |rows: usize, columns: usize| match self.fp8_projections {
            true => rows * (columns * DType::F8E4M3.size_bytes() + size_of::<f32>()),
            false => rows * columns * element,
        };
        let mlp = |layer| match self.experts.filter(|_| config.is_sparse(layer)) {
            Some(experts) => {
                experts.num_experts * (3 * h * experts.intermediate_size + h) * element
            }
            None => {
                projection(2 * self.intermediate_size, h) + projection(h, self.intermediate_size)
            }
        };
        let attention = projection(self.qkv_size(), h) + projection(h, self.attention_size());
        let norms = 2 * h * element;
        let layers = (0..config.num_layers).map(|layer| attention + norms + mlp(layer));
        let embeddings = if config.tie_word_embeddings { 1 } else { 2 };
        layers.sum::<usize>() + h * (embeddings * self.vocab_size + 1) * element
    }
}
