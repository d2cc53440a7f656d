//! Sampling: rows of the vocabulary in segments.
//!
//! Never knows: how results are combined over shards.
//!
//! A row may be the only one and have 150,000 logits, so rows are cut into segments of fixed
//! length that several threads take; partial results are combined in ascending order, so that
//! neither the number of threads nor the other rows matter.

mod adjust;
mod best;
mod combine;
mod mass;
mod threshold;

use super::CpuDevice;
use crate::rows::Rows;

pub(crate) use adjust::{bias_logits, clear_counts, count_ids, penalize_logits};
pub(crate) use best::{argmax, gumbel_argmax, top_n};
pub(crate) use combine::{best_of_shards, choose_ids, mass_target, min_p_threshold, pick_logits};
pub(crate) use mass::sum_exp;
pub(crate) use threshold::{raise_threshold, threshold_histogram, threshold_refine};

/// Logits per segment. Part of the definition of a sum's bits.
const SEGMENT: usize = 4096;

/// A segment of a row.
struct Segment<'a> {
    row: usize,
    /// Column of its first logit.
    column: usize,
    logits: &'a [f32],
}

/// `result(segment)` of all segments, row by row, in ascending order. `cost` is that of one logit,
/// in cycles, roughly.
fn map_segments<R: Clone + Send>(
    cpu: &CpuDevice,
    logits: Rows<'_, f32>,
    cost: usize,
    initial: R,
    result: impl Fn(Segment<'_>) -> R + Sync,
) -> Vec<R> {
    let per_row = num_segments(logits);
    let mut results = vec![initial; logits.num_rows() * per_row];
    cpu.for_each_part(results.as_mut_slice(), SEGMENT * cost, |first, results| {
        for (i, slot) in results.iter_mut().enumerate() {
            let (row, column) = ((first + i) / per_row, (first + i) % per_row * SEGMENT);
            let logits = &logits.row(row)[column..];
            let logits = &logits[..logits.len().min(SEGMENT)];
            *slot = result(Segment { row, column, logits });
        }
    });
    results
}

fn num_segments(logits: Rows<'_, f32>) -> usize {
    logits.row_len().div_ceil(SEGMENT)
}
