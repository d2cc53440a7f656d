//! The definition of right: every op in straight loops.
//!
//! Never knows: vector instructions, threads or tiles. It is slow, and it is what every backend is
//! held to. The functions take the arguments of the [`ops`](crate::ops) of the same names without
//! the stream, make the same checks, and work on tensors of any CPU device. Sums are kept in f64;
//! results are rounded to T exactly where the ops' documentation says so.

mod adjust;
mod attention;
mod combine;
mod few_rows;
pub mod fp8;
mod gather;
mod matrix;
mod moe;
mod pointwise;
mod sampling;
mod transform;

pub use adjust::{bias_logits, clear_counts, count_ids, penalize_logits};
pub use attention::paged_attention;
pub use combine::{best_of_shards, choose_ids, mass_target, min_p_threshold, pick_logits};
pub use few_rows::{gemm_add, norm_gemm, norm_gemm_silu};
pub use gather::{embedding, gather_ids, gather_rows, scatter_ids, store_kv};
pub use moe::{combine, group, grouped_gemm, route};
pub use pointwise::{add, reduce_sum, silu_and_mul};
pub use sampling::{
    argmax, gumbel_argmax, sum_exp, sum_exp_above, threshold_histogram, threshold_refine, top_n,
};
pub use transform::{add_rms_norm, gemm, qk_norm_rope, qk_norm_rope_store, rms_norm};
