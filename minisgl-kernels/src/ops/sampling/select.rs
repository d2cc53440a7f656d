//! Maxima and sums over the vocabulary.
//!
//! Never knows: how their results are combined over shards.

use crate::ops::check::Check;
use crate::{DType, Error, Stream, View, ViewMut, cpu, cuda};

/// The largest logit of each row and its id; the lowest id among equals.
///
/// - `logits`: `[n, v_local]` f32, `v_local` at least 1.
/// - `out_value`: `[n]` f32. `out_id`: `[n]` i32. A row with any NaN or +inf gives NaN and -1.
///
/// # Errors
/// [`Error::Parameter`] if there are no columns or their ids do not fit in an i32.
pub fn argmax(
    stream: &Stream,
    logits: View<'_>,
    first_id: i32,
    out_value: ViewMut<'_>,
    out_id: ViewMut<'_>,
) -> Result<(), Error> {
    check_argmax(logits, first_id, out_value.as_view(), out_id.as_view())?;
    match stream {
        Stream::Cpu(stream) => {
            cpu::sampling::argmax(stream.cpu(), logits, first_id, out_value, out_id);
        }
        Stream::Cuda(stream) => cuda::ops::argmax(stream, logits, first_id, out_value, out_id)?,
    }
    Ok(())
}

pub(crate) fn check_argmax(
    logits: View<'_>,
    first_id: i32,
    out_value: View<'_>,
    out_id: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("argmax");
    let [n, _] = check.logits(logits, first_id)?;
    check.tensor("out_value", out_value, DType::F32, [n])?;
    check.tensor("out_id", out_id, DType::I32, [n])
}

/// `out = Σ exp((x - row_max) · inv_temperature)` over each row, in a fixed order.
///
/// - `logits`: `[n, v_local]` f32, `v_local` at least 1.
/// - `row_max`: `[n]` f32, the maximum of the whole row (all shards), which keeps `exp` at most 1.
/// - `inv_temperature`: `[n]` f32, positive.
/// - `out`: `[n]` f32.
///
/// # Errors
/// [`Error::Parameter`] if there are no columns.
pub fn sum_exp(
    stream: &Stream,
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check_sum_exp(logits, row_max, inv_temperature, None, out.as_view())?;
    match stream {
        Stream::Cpu(stream) => {
            cpu::sampling::sum_exp(stream.cpu(), logits, row_max, inv_temperature, None, out);
        }
        Stream::Cuda(stream) => {
            cuda::ops::sum_exp(stream, logits, row_max, inv_temperature, None, out)?
        }
    }
    Ok(())
}

/// [`sum_exp`] over the elements that are at least `threshold` only.
///
/// - `threshold`: `[n]` f32; -inf keeps all elements. The other arguments as for [`sum_exp`].
///
/// # Errors
/// [`Error::Parameter`] if there are no columns.
pub fn sum_exp_above(
    stream: &Stream,
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    threshold: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    let threshold = Some(threshold);
    check_sum_exp(logits, row_max, inv_temperature, threshold, out.as_view())?;
    match stream {
        Stream::Cpu(stream) => {
            cpu::sampling::sum_exp(stream.cpu(), logits, row_max, inv_temperature, threshold, out);
        }
        Stream::Cuda(stream) => {
            cuda::ops::sum_exp(stream, logits, row_max, inv_temperature, threshold, out)?
        }
    }
    Ok(())
}

pub(crate) fn check_sum_exp(
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    threshold: Option<View<'_>>,
    out: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("sum_exp");
    let [n, _] = check.logits(logits, 0)?;
    check.tensor("row_max", row_max, DType::F32, [n])?;
    check.tensor("inv_temperature", inv_temperature, DType::F32, [n])?;
    if let Some(threshold) = threshold {
        check.tensor("threshold", threshold, DType::F32, [n])?;
    }
    check.tensor("out", out, DType::F32, [n])
}

/// The `c` largest logits of each row with their ids, in descending order; the lower id first
/// among equals.
///
/// - `logits`: `[n, v_local]` f32, `v_local` at least 1. NaN is never picked.
/// - `out_values`: `[n, c]` f32. `out_ids`: `[n, c]` i32. Rows with fewer than `c` elements are
///   filled up with -inf and -1.
///
/// # Errors
/// [`Error::Parameter`] if there are no columns or their ids do not fit in an i32.
pub fn top_n(
    stream: &Stream,
    logits: View<'_>,
    first_id: i32,
    out_values: ViewMut<'_>,
    out_ids: ViewMut<'_>,
) -> Result<(), Error> {
    check_top_n(logits, first_id, out_values.as_view(), out_ids.as_view())?;
    match stream {
        Stream::Cpu(stream) => {
            cpu::sampling::top_n(stream.cpu(), logits, first_id, out_values, out_ids);
        }
        Stream::Cuda(stream) => cuda::ops::top_n(stream, logits, first_id, out_values, out_ids)?,
    }
    Ok(())
}

pub(crate) fn check_top_n(
    logits: View<'_>,
    first_id: i32,
    out_values: View<'_>,
    out_ids: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("top_n");
    let [n, _] = check.logits(logits, first_id)?;
    let [_, c] = check.dims("out_values", out_values)?;
    check.tensor("out_values", out_values, DType::F32, [n, c])?;
    check.tensor("out_ids", out_ids, DType::I32, [n, c])
}
