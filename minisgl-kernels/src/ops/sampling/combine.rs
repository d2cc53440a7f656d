//! What lies between the ops on shards: small steps on one number per row, so that sampling needs
//! no trip to the host.
//!
//! Never knows: how shards reached this device.

use crate::ops::check::Check;
use crate::{DType, Error, Stream, View, ViewMut, cpu, cuda};

/// The best of what [`argmax`](super::argmax) or [`gumbel_argmax`](super::gumbel_argmax) found in
/// each shard: the largest value wins, the lowest shard among equals.
///
/// - `values`: `[w, n]` f32, `ids`: `[w, n]` i32, both without gaps: shard by shard.
/// - `out_value`: `[n]` f32. `out_id`: `[n]` i32. A NaN in any shard gives NaN and -1. Shards that
///   found nothing (id -1) do not count; if none found anything, -inf and -1.
///
/// # Errors
/// Only those of the conventions in [`ops`](crate::ops).
pub fn best_of_shards(
    stream: &Stream,
    values: View<'_>,
    ids: View<'_>,
    out_value: ViewMut<'_>,
    out_id: ViewMut<'_>,
) -> Result<(), Error> {
    check_best_of_shards(values, ids, out_value.as_view(), out_id.as_view())?;
    match stream {
        Stream::Cpu(_) => cpu::sampling::best_of_shards(values, ids, out_value, out_id),
        Stream::Cuda(stream) => {
            cuda::ops::best_of_shards(stream, values, ids, out_value, out_id)?;
        }
    }
    Ok(())
}

pub(crate) fn check_best_of_shards(
    values: View<'_>,
    ids: View<'_>,
    out_value: View<'_>,
    out_id: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("best_of_shards");
    let [w, n] = check.dims("values", values)?;
    check.tensor("values", values, DType::F32, [w, n])?;
    check.tensor("ids", ids, DType::I32, [w, n])?;
    values.reshape([w * n])?;
    ids.reshape([w * n])?;
    check.tensor("out_value", out_value, DType::F32, [n])?;
    check.tensor("out_id", out_id, DType::I32, [n])
}

/// `out[i] = logits[i][ids[i] - first_id]`, or 0 if this shard does not have that id. The sum over
/// the shards is the logit.
///
/// - `logits`: `[n, v_local]` f32, `v_local` at least 1. `ids`: `[n]` i32, any. `out`: `[n]` f32.
///
/// # Errors
/// [`Error::Parameter`] if there are no columns or their ids do not fit in an i32.
pub fn pick_logits(
    stream: &Stream,
    logits: View<'_>,
    ids: View<'_>,
    first_id: i32,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check_pick_logits(logits, ids, first_id, out.as_view())?;
    match stream {
        Stream::Cpu(_) => cpu::sampling::pick_logits(logits, ids, first_id, out),
        Stream::Cuda(stream) => cuda::ops::pick_logits(stream, logits, ids, first_id, out)?,
    }
    Ok(())
}

pub(crate) fn check_pick_logits(
    logits: View<'_>,
    ids: View<'_>,
    first_id: i32,
    out: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("pick_logits");
    let [n, _] = check.logits(logits, first_id)?;
    check.tensor("ids", ids, DType::I32, [n])?;
    check.tensor("out", out, DType::F32, [n])
}

/// `remaining[i] = top_p[i] · mass[i]`: the target of a search by mass.
///
/// - `top_p`, `mass`, `remaining`: `[n]` f32. `mass` is the sum over all shards.
///
/// # Errors
/// Only those of the conventions in [`ops`](crate::ops).
pub fn mass_target(
    stream: &Stream,
    top_p: View<'_>,
    mass: View<'_>,
    remaining: ViewMut<'_>,
) -> Result<(), Error> {
    check_mass_target(top_p, mass, remaining.as_view())?;
    match stream {
        Stream::Cpu(_) => cpu::sampling::mass_target(top_p, mass, remaining),
        Stream::Cuda(stream) => cuda::ops::mass_target(stream, top_p, mass, remaining)?,
    }
    Ok(())
}

pub(crate) fn check_mass_target(
    top_p: View<'_>,
    mass: View<'_>,
    remaining: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("mass_target");
    let [n] = check.dims("remaining", remaining)?;
    check.tensor("top_p", top_p, DType::F32, [n])?;
    check.tensor("mass", mass, DType::F32, [n])?;
    check.tensor("remaining", remaining, DType::F32, [n])
}

/// `threshold[i] = max(threshold[i], row_max[i] + ln_min_p[i] / inv_temperature[i])`: keeps what is
/// at least `min_p` times as probable as the most probable. A sum that is NaN raises nothing.
///
/// - `row_max`: `[n]` f32, over all shards. `ln_min_p`: `[n]` f32, -inf to keep everything.
/// - `inv_temperature`: `[n]` f32, positive. `threshold`: `[n]` f32.
///
/// # Errors
/// Only those of the conventions in [`ops`](crate::ops).
pub fn min_p_threshold(
    stream: &Stream,
    row_max: View<'_>,
    ln_min_p: View<'_>,
    inv_temperature: View<'_>,
    threshold: ViewMut<'_>,
) -> Result<(), Error> {
    check_min_p(row_max, ln_min_p, inv_temperature, threshold.as_view())?;
    match stream {
        Stream::Cpu(_) => {
            cpu::sampling::min_p_threshold(row_max, ln_min_p, inv_temperature, threshold);
        }
        Stream::Cuda(stream) => {
            cuda::ops::min_p_threshold(stream, row_max, ln_min_p, inv_temperature, threshold)?;
        }
    }
    Ok(())
}

pub(crate) fn check_min_p(
    row_max: View<'_>,
    ln_min_p: View<'_>,
    inv_temperature: View<'_>,
    threshold: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("min_p_threshold");
    let [n] = check.dims("threshold", threshold)?;
    check.tensor("row_max", row_max, DType::F32, [n])?;
    check.tensor("ln_min_p", ln_min_p, DType::F32, [n])?;
    check.tensor("inv_temperature", inv_temperature, DType::F32, [n])?;
    check.tensor("threshold", threshold, DType::F32, [n])
}

/// `out[i]` is `a[i]` where `take_a[i]` is not 0, and `b[i]` elsewhere; but -1 wherever `a[i]` is
/// -1. With the most likely tokens as `a` and drawn ones as `b`, it mixes greedy and sampled rows,
/// and a row that is broken stays so.
///
/// - `take_a`, `a`, `b`, `out`: `[n]` i32.
///
/// # Errors
/// Only those of the conventions in [`ops`](crate::ops).
pub fn choose_ids(
    stream: &Stream,
    take_a: View<'_>,
    a: View<'_>,
    b: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check_choose_ids(take_a, a, b, out.as_view())?;
    match stream {
        Stream::Cpu(_) => cpu::sampling::choose_ids(take_a, a, b, out),
        Stream::Cuda(stream) => cuda::ops::choose_ids(stream, take_a, a, b, out)?,
    }
    Ok(())
}

pub(crate) fn check_choose_ids(
    take_a: View<'_>,
    a: View<'_>,
    b: View<'_>,
    out: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("choose_ids");
    let [n] = check.dims("out", out)?;
    check.tensor("take_a", take_a, DType::I32, [n])?;
    check.tensor("a", a, DType::I32, [n])?;
    check.tensor("b", b, DType::I32, [n])?;
    check.tensor("out", out, DType::I32, [n])
}
