//! The ops on a GPU: each hands its checked arguments to the kernels library.
//!
//! Never knows: what an op computes; `ops` says it, and the library does it.

mod adjust;
mod attention;
mod few_rows;
mod fp8;
mod layers;
mod moe;
mod rows;
mod sampling;

pub(crate) use adjust::{bias_logits, clear_counts, count_ids, penalize_logits};
pub(crate) use attention::{CudaAttention, paged_attention};
pub(crate) use few_rows::{few_rows, gemm_add, norm_gemm};
pub(crate) use fp8::quantize_rows;
pub(crate) use layers::{
    add_rms_norm, qk_norm_rope, qk_norm_rope_store, rms_norm, silu_and_mul, store_kv,
};
pub(crate) use moe::{combine, group, grouped_gemm, route};
pub(crate) use rows::{add, copy, embedding, gather_ids, gather_rows, reduce_sum, scatter_ids};
pub(crate) use sampling::{
    argmax, best_of_shards, choose_ids, gumbel_argmax, mass_target, min_p_threshold, pick_logits,
    raise_threshold, sum_exp, threshold_histogram, threshold_refine, top_n,
};
