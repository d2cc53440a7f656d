//! Which sizes are timed: on a GPU those of the project's targets, on a CPU such that all of it
//! takes less than a minute.

/// See the fields.
pub(super) struct Sizes {
    /// How long a round of repetitions takes.
    pub(super) round_seconds: f64,
    /// What copies of an operation's inputs have together at least, so that no cache holds them.
    pub(super) cold_bytes: usize,
    /// The array whose copy is the ceiling.
    pub(super) ceiling_bytes: usize,
    /// The product that is the ceiling: `m`, `k`, `n`.
    pub(super) ceiling_product: [usize; 3],

    /// Of all attention.
    pub(super) head_dim: usize,
    pub(super) num_kv_heads: usize,
    pub(super) page_size: usize,
    /// Decode of a batch: sequences, tokens of each, query heads per KV head.
    pub(super) decode_batch: usize,
    pub(super) decode_context: usize,
    pub(super) decode_groups: &'static [usize],
    /// Decode of one sequence: tokens, query heads, and calls in a graph (layers of a model).
    pub(super) single_context: usize,
    pub(super) single_q_heads: usize,
    pub(super) single_calls: usize,
    /// Prefill of one sequence.
    pub(super) prefill_tokens: usize,
    pub(super) prefill_q_heads: usize,

    /// Rows of products.
    pub(super) product_rows: &'static [usize],
    /// Matrices of a layer: name, `k`, `n`.
    pub(super) matrices: [(&'static str, usize, usize); 4],

    /// Rows, hidden size and intermediate size of what is done row by row.
    pub(super) num_rows: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
}

impl Sizes {
    /// Products and rows are those of Qwen3-14B, the single sequence is one of Qwen3-0.6B.
    pub(super) const GPU: Self = Self {
        round_seconds: 0.04,
        // Five times the second-level cache of a Hopper GPU.
        cold_bytes: 256 << 20,
        ceiling_bytes: 1 << 30,
        ceiling_product: [8192, 8192, 8192],
        head_dim: 128,
        num_kv_heads: 8,
        page_size: 16,
        decode_batch: 64,
        decode_context: 4096,
        decode_groups: &[1, 2, 4, 5, 8],
        single_context: 1024,
        single_q_heads: 16,
        single_calls: 28,
        prefill_tokens: 8192,
        prefill_q_heads: 32,
        product_rows: &[1, 2, 4, 8, 64, 256, 8192],
        matrices: [
            ("qkv", 5120, 7168),
            ("o", 5120, 5120),
            ("gate_up", 5120, 34_816),
            ("down", 17_408, 5120),
        ],
        num_rows: 256,
        hidden: 5120,
        intermediate: 17_408,
    };

    /// Those of Qwen3-0.6B, and shorter.
    pub(super) const CPU: Self = Self {
        round_seconds: 0.04,
        cold_bytes: 128 << 20,
        ceiling_bytes: 256 << 20,
        ceiling_product: [256, 2048, 2048],
        head_dim: 128,
        num_kv_heads: 8,
        page_size: 16,
        decode_batch: 8,
        decode_context: 2048,
        decode_groups: &[1, 2, 4, 5, 8],
        single_context: 1024,
        single_q_heads: 16,
        single_calls: 28,
        prefill_tokens: 512,
        prefill_q_heads: 32,
        product_rows: &[1, 2, 4, 8, 64],
        matrices: [
            ("qkv", 1024, 4096),
            ("o", 2048, 1024),
            ("gate_up", 1024, 6144),
            ("down", 3072, 1024),
        ],
        num_rows: 256,
        hidden: 1024,
        intermediate: 3072,
    };

    /// How many copies of inputs of so many bytes take turns.
    pub(super) fn copies(&self, bytes: usize) -> usize {
        const MOST: usize = 64;
        self.cold_bytes.div_ceil(bytes.max(1)).clamp(1, MOST)
    }

    /// How many calls a graph has for `copies` of the inputs: each equally often.
    pub(super) fn calls(copies: usize) -> usize {
        const FEWEST: usize = 8;
        copies * FEWEST.div_ceil(copies)
    }
}
