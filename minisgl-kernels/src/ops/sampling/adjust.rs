//! Changing logits before a token is chosen: a bias for single tokens, penalties for those that
//! appeared; and the counts of output tokens that the penalties need, on the device, since the host
//! learns of a token only after the next step was queued.
//!
//! Never knows: requests. Histories and biases are rows of tables, and a batch names its rows.

use crate::ops::check::Check;
use crate::{DType, Error, Stream, View, ViewMut, cpu, cuda};

/// The tokens that appeared, by row of a table.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// `[r, v_local]` i32: how often each id of this shard was output.
    pub counts: View<'a>,
    /// `[r, w]` i32: bit `id % 32` of word `id / 32` says whether an id, of the whole vocabulary, is
    /// in the prompt; ids beyond the last word are not.
    pub prompts: View<'a>,
}

/// The penalties of each row of a batch: `[n]` f32 each.
#[derive(Clone, Copy, Debug)]
pub struct Penalties<'a> {
    /// Of tokens in the prompt or the output: divides what is positive, multiplies the rest; 1 is
    /// none.
    pub repetition: View<'a>,
    /// Subtracted as often as a token was output; 0 is none.
    pub frequency: View<'a>,
    /// Subtracted if a token was output; 0 is none.
    pub presence: View<'a>,
}

/// What is added to the logits of single tokens: lists by row of a table, and which part of its list
/// each row of a batch uses.
#[derive(Clone, Copy, Debug)]
pub struct Biases<'a> {
    /// `[r, e]` i32; those of other shards are passed over.
    pub ids: View<'a>,
    /// `[r, e]` f32
    pub values: View<'a>,
    /// `[n]` i32: the first entry used, in `0..=e`.
    pub begins: View<'a>,
    /// `[n]` i32: the end of the entries used, in `0..=e`; at or before the first there are none.
    pub ends: View<'a>,
}

/// `counts[rows[i]] = 0`, the whole row.
///
/// - `counts`: `[r, v_local]` i32. `rows`: `[n]` i32, each in `0..r`.
///
/// # Errors
/// [`Error::Index`] if a row is out of range.
pub fn clear_counts(stream: &Stream, counts: ViewMut<'_>, rows: View<'_>) -> Result<(), Error> {
    check_clear_counts(counts.as_view(), rows)?;
    match stream {
        Stream::Cpu(_) => {
            check_table_rows("clear_counts", rows, counts.as_view())?;
            cpu::sampling::clear_counts(counts, rows);
        }
        Stream::Cuda(stream) => cuda::ops::clear_counts(stream, counts, rows)?,
    }
    Ok(())
}

pub(crate) fn check_clear_counts(counts: View<'_>, rows: View<'_>) -> Result<(), Error> {
    let check = Check::of("clear_counts");
    let [r, v_local] = check.dims("counts", counts)?;
    let [n] = check.dims("rows", rows)?;
    check.tensor("counts", counts, DType::I32, [r, v_local])?;
    check.tensor("rows", rows, DType::I32, [n])
}

/// `counts[rows[i]][ids[i] - first_id] += 1`, where this shard has that id.
///
/// - `counts`: `[r, v_local]` i32. `rows`: `[n]` i32, each in `0..r`. `ids`: `[n]` i32, any.
///
/// # Errors
/// [`Error::Index`] if a row is out of range.
pub fn count_ids(
    stream: &Stream,
    counts: ViewMut<'_>,
    rows: View<'_>,
    ids: View<'_>,
    first_id: i32,
) -> Result<(), Error> {
    check_count_ids(counts.as_view(), rows, ids)?;
    match stream {
        Stream::Cpu(_) => {
            check_table_rows("count_ids", rows, counts.as_view())?;
            cpu::sampling::count_ids(counts, rows, ids, first_id);
        }
        Stream::Cuda(stream) => cuda::ops::count_ids(stream, counts, rows, ids, first_id)?,
    }
    Ok(())
}

pub(crate) fn check_count_ids(
    counts: View<'_>,
    rows: View<'_>,
    ids: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("count_ids");
    let [r, v_local] = check.dims("counts", counts)?;
    let [n] = check.dims("rows", rows)?;
    check.tensor("counts", counts, DType::I32, [r, v_local])?;
    check.tensor("rows", rows, DType::I32, [n])?;
    check.tensor("ids", ids, DType::I32, [n])
}

/// `logits[i][id - first_id] += value` for the entries `begins[i]..ends[i]` of list `rows[i]`.
///
/// - `logits`: `[n, v_local]` f32, `v_local` at least 1. `rows`: `[n]` i32, each in `0..r`.
/// - An id stands once among the entries used; if it stands there twice, the result is unspecified.
///
/// # Errors
/// [`Error::Parameter`] if there are no columns or their ids do not fit in an i32,
/// [`Error::Index`] if a row or the begin or end of a list is out of range.
pub fn bias_logits(
    stream: &Stream,
    logits: ViewMut<'_>,
    biases: &Biases<'_>,
    rows: View<'_>,
    first_id: i32,
) -> Result<(), Error> {
    check_bias_logits(logits.as_view(), biases, rows, first_id)?;
    match stream {
        Stream::Cpu(_) => {
            check_bias_indices(biases, rows)?;
            cpu::sampling::bias_logits(logits, biases, rows, first_id);
        }
        Stream::Cuda(stream) => cuda::ops::bias_logits(stream, logits, biases, rows, first_id)?,
    }
    Ok(())
}

pub(crate) fn check_bias_logits(
    logits: View<'_>,
    biases: &Biases<'_>,
    rows: View<'_>,
    first_id: i32,
) -> Result<(), Error> {
    let check = Check::of("bias_logits");
    let [n, _] = check.logits(logits, first_id)?;
    let [r, e] = check.dims("ids", biases.ids)?;
    check.tensor("ids", biases.ids, DType::I32, [r, e])?;
    check.tensor("values", biases.values, DType::F32, [r, e])?;
    check.tensor("begins", biases.begins, DType::I32, [n])?;
    check.tensor("ends", biases.ends, DType::I32, [n])?;
    check.tensor("rows", rows, DType::I32, [n])
}

pub(crate) fn check_bias_indices(biases: &Biases<'_>, rows: View<'_>) -> Result<(), Error> {
    let check = Check::of("bias_logits");
    let entries = biases.ids.shape().dims()[1];
    check_table_rows("bias_logits", rows, biases.ids)?;
    check.indices("begins", biases.begins.host_slice(), entries + 1)?;
    check.indices("ends", biases.ends.host_slice(), entries + 1)
}

/// Applies the penalties of row `i` with history `rows[i]`. Of a token with logit `x` that was output
/// `c` times, every step rounded to f32:
///
/// ```text
/// if it is in the prompt or c > 0:  x = x > 0 ? x / repetition : x * repetition
/// if c > 0:                         x = x - frequency * c
///                                   x = x - presence
/// ```
///
/// The logits of other tokens, and all of a row whose penalties are none, keep their bits.
///
/// - `logits`: `[n, v_local]` f32, `v_local` at least 1. `rows`: `[n]` i32, each in `0..r`.
///
/// # Errors
/// [`Error::Parameter`] if there are no columns or their ids do not fit in an i32,
/// [`Error::Index`] if a row is out of range.
pub fn penalize_logits(
    stream: &Stream,
    logits: ViewMut<'_>,
    history: &History<'_>,
    rows: View<'_>,
    penalties: &Penalties<'_>,
    first_id: i32,
) -> Result<(), Error> {
    check_penalize_logits(logits.as_view(), history, rows, penalties, first_id)?;
    match stream {
        Stream::Cpu(stream) => {
            check_table_rows("penalize_logits", rows, history.counts)?;
            cpu::sampling::penalize_logits(
                stream.cpu(),
                logits,
                history,
                rows,
                penalties,
                first_id,
            );
        }
        Stream::Cuda(stream) => {
            cuda::ops::penalize_logits(stream, logits, history, rows, penalties, first_id)?;
        }
    }
    Ok(())
}

pub(crate) fn check_penalize_logits(
    logits: View<'_>,
    history: &History<'_>,
    rows: View<'_>,
    penalties: &Penalties<'_>,
    first_id: i32,
) -> Result<(), Error> {
    let check = Check::of("penalize_logits");
    let [n, v_local] = check.logits(logits, first_id)?;
    let [r, w] = check.dims("prompts", history.prompts)?;
    check.tensor("counts", history.counts, DType::I32, [r, v_local])?;
    check.tensor("prompts", history.prompts, DType::I32, [r, w])?;
    check.tensor("rows", rows, DType::I32, [n])?;
    check.tensor("repetition", penalties.repetition, DType::F32, [n])?;
    check.tensor("frequency", penalties.frequency, DType::F32, [n])?;
    check.tensor("presence", penalties.presence, DType::F32, [n])
}

/// Every row must be one of `table`.
pub(crate) fn check_table_rows(
    op: &'static str,
    rows: View<'_>,
    table: View<'_>,
) -> Result<(), Error> {
    Check::of(op).indices("rows", rows.host_slice(), table.shape().dims()[0])
}
