//! Choosing the next token from logits that may be sharded over the vocabulary.
//!
//! Never knows: how many shards there are. Each op works on one shard, `logits`: `[n, v_local]` f32
//! for the ids `first_id..first_id + v_local`; its results are small, and combine over shards by a
//! maximum or a sum, so that logits need never be gathered.
//!
//! # Combining shards
//! [`argmax`] and [`gumbel_argmax`] give a value and an id per row: the largest value wins, the
//! lowest id among equals. A shard that saw NaN or +inf answers NaN, which must win, since such a
//! row has no meaningful token. [`best_of_shards`] does that on the device.
//!
//! # Top-k and top-p without sorting
//! Both keep the elements at or above a threshold, and the threshold is found by a radix search
//! over the keys of [`key_of`], a byte per round, from the highest:
//! for each `round` in `0..ROUNDS`, [`threshold_histogram`], then sum `hist` over the shards, then
//! [`threshold_refine`]. After the last round, [`raise_threshold`] yields the threshold.
//!
//! # Changing logits first
//! [`bias_logits`] and [`penalize_logits`] change logits in place, before all of the above.
//! [`count_ids`] keeps what they need to know of a row's output.

mod adjust;
mod combine;
mod gumbel;
mod select;
mod threshold;

pub use adjust::{
    Biases, History, Penalties, bias_logits, clear_counts, count_ids, penalize_logits,
};
pub use combine::{best_of_shards, choose_ids, mass_target, min_p_threshold, pick_logits};
pub use gumbel::{gumbel_argmax, uniform};
pub use select::{argmax, sum_exp, sum_exp_above, top_n};
pub use threshold::{
    NUM_BINS, ROUNDS, ThresholdMode, ThresholdState, key_of, raise_threshold, threshold_histogram,
    threshold_refine, value_of,
};

pub(crate) use adjust::{
    check_bias_indices, check_bias_logits, check_clear_counts, check_count_ids,
    check_penalize_logits, check_table_rows,
};
pub(crate) use combine::{
    check_best_of_shards, check_choose_ids, check_mass_target, check_min_p, check_pick_logits,
};
pub(crate) use gumbel::check as check_gumbel_argmax;
pub(crate) use select::{check_argmax, check_sum_exp, check_top_n};
pub(crate) use threshold::{check_histogram, check_refine};
