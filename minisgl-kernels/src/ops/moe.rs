//! Mixture of experts: choosing experts per token, grouping tokens by expert, a matrix
//! multiplication per expert that was hit, and summing the results per token.
//!
//! Never knows: what the experts compute in between.
//!
//! A token with `k` experts makes `k` *pairs*, of which there are `p = t · k`. [`group`] orders them
//! by expert, so that each expert's rows are together: expert `e` has the grouped rows
//! `offsets[e]..offsets[e + 1]`. Tables of `[t, k]` are contiguous.

use super::check::Check;
use crate::{DType, Error, Stream, View, ViewMut, cpu, cuda};

/// The `k` most probable experts of each token, most probable first; the lower id among equals.
///
/// - `logits`: `[t, e]` f32. Probabilities are `softmax(logits)` over all `e` experts.
/// - `normalize`: whether the weights of a token are divided by their sum.
/// - `weights`: `[t, k]` f32. `experts`: `[t, k]` i32. `k` is at least 1 and at most `e`.
///
/// NaN is ordered after every number, so a token of NaN logits gets some experts and NaN weights.
///
/// # Errors
/// [`Error::Parameter`] if `k` is out of its domain.
pub fn route(
    stream: &Stream,
    logits: View<'_>,
    normalize: bool,
    weights: ViewMut<'_>,
    experts: ViewMut<'_>,
) -> Result<(), Error> {
    check_route(logits, weights.as_view(), experts.as_view())?;
    match stream {
        Stream::Cpu(_) => cpu::moe::route(logits, normalize, weights, experts),
        Stream::Cuda(stream) => cuda::ops::route(stream, logits, normalize, weights, experts)?,
    }
    Ok(())
}

/// Orders the pairs by expert; pairs of one expert stay in the order of their tokens.
///
/// - `experts`: `[t, k]` i32, each in `0..num_experts`.
/// - `tokens`: `[t * k]` i32: the token of each grouped row.
/// - `grouped_rows`: `[t, k]` i32: the grouped row of each pair.
/// - `offsets`: `[num_experts + 1]` i32.
///
/// # Errors
/// [`Error::Index`] if there is no such expert.
pub fn group(
    stream: &Stream,
    experts: View<'_>,
    tokens: ViewMut<'_>,
    grouped_rows: ViewMut<'_>,
    offsets: ViewMut<'_>,
) -> Result<(), Error> {
    check_group(experts, tokens.as_view(), grouped_rows.as_view(), offsets.as_view())?;
    match stream {
        Stream::Cpu(_) => {
            check_experts(experts, offsets.as_view())?;
            cpu::moe::group(experts, tokens, grouped_rows, offsets);
        }
        Stream::Cuda(stream) => cuda::ops::group(stream, experts, tokens, grouped_rows, offsets)?,
    }
    Ok(())
}

/// [`gemm`](super::gemm) per expert: `out[i] = x[i] · w[e]ᵀ` for the grouped rows `i` of expert `e`.
///
/// - `x`: `[p, k]` T. `w`: `[e, n, k]` T. `out`: `[p, n]` T.
/// - `offsets`: `[e + 1]` i32 from 0 to `p`, never decreasing.
///
/// # Errors
/// [`Error::Index`] if the offsets are not such.
pub fn grouped_gemm(
    stream: &Stream,
    x: View<'_>,
    offsets: View<'_>,
    w: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check_grouped_gemm(x, offsets, w, out.as_view())?;
    match stream {
        Stream::Cpu(stream) => {
            check_offsets(offsets, x)?;
            cpu::moe::grouped_gemm(stream.cpu(), x, offsets, w, out)
        }
        Stream::Cuda(stream) => cuda::ops::grouped_gemm(stream, x, offsets, w, out),
    }
}

/// `out[i] = Σ weights[i][j] · x[grouped_rows[i][j]]` over the pairs `j` of token `i` in order, in
/// f32, rounded once.
///
/// - `x`: `[p, h]` T. `weights`: `[t, k]` f32. `grouped_rows`: `[t, k]` i32, each in `0..p`.
/// - `out`: `[t, h]` T.
///
/// # Errors
/// [`Error::Index`] if there is no such row.
pub fn combine(
    stream: &Stream,
    x: View<'_>,
    weights: View<'_>,
    grouped_rows: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check_combine(x, weights, grouped_rows, out.as_view())?;
    match stream {
        Stream::Cpu(stream) => {
            check_rows(x, grouped_rows)?;
            cpu::moe::combine(stream.cpu(), x, weights, grouped_rows, out);
        }
        Stream::Cuda(stream) => cuda::ops::combine(stream, x, weights, grouped_rows, out)?,
    }
    Ok(())
}

pub(crate) fn check_route(
    logits: View<'_>,
    weights: View<'_>,
    experts: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("route");
    let [t, num_experts] = check.dims("logits", logits)?;
    let [_, k] = check.dims("weights", weights)?;
    check.tensor("logits", logits, DType::F32, [t, num_experts])?;
    check.tensor("weights", weights, DType::F32, [t, k])?;
    check.tensor("experts", experts, DType::I32, [t, k])?;
    if !(1..=num_experts).contains(&k) {
        return Err(check.parameter("k", k, "1 to the number of experts"));
    }
    Ok(())
}

pub(crate) fn check_group(
    experts: View<'_>,
    tokens: View<'_>,
    grouped_rows: View<'_>,
    offsets: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("group");
    let [t, k] = check.dims("experts", experts)?;
    let [num_offsets] = check.dims("offsets", offsets)?;
    check.tensor("experts", experts, DType::I32, [t, k])?;
    experts.reshape([t * k])?;
    grouped_rows.reshape([t * k])?;
    check.tensor("tokens", tokens, DType::I32, [t * k])?;
    check.tensor("grouped_rows", grouped_rows, DType::I32, [t, k])?;
    check.tensor("offsets", offsets, DType::I32, [num_offsets])?;
    if num_offsets == 0 {
        return Err(check.parameter("number of offsets", 0, "at least 1"));
    }
    Ok(())
}

pub(crate) fn check_experts(experts: View<'_>, offsets: View<'_>) -> Result<(), Error> {
    let num_experts = offsets.num_elements() - 1;
    Check::of("group").indices("experts", experts.host_slice(), num_experts)
}

pub(crate) fn check_grouped_gemm(
    x: View<'_>,
    offsets: View<'_>,
    w: View<'_>,
    out: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("grouped_gemm");
    let dtype = check.float("x", x)?;
    let [p, k] = check.dims("x", x)?;
    let [num_experts, n, _] = check.dims("w", w)?;
    check.rows("x", x)?;
    check.tensor("w", w, dtype, [num_experts, n, k])?;
    check.tensor("offsets", offsets, DType::I32, [num_experts + 1])?;
    check.tensor("out", out, dtype, [p, n])
}

pub(crate) fn check_offsets(offsets: View<'_>, x: View<'_>) -> Result<(), Error> {
    let offsets = offsets.host_slice::<i32>();
    let (last, end) = (offsets.len() - 1, x.shape().dims()[0] as i64);
    let mut least = 0;
    for (position, &offset) in offsets.iter().enumerate() {
        let value = i64::from(offset);
        let min = if position == last { end } else { least };
        let max = if position == 0 { 1 } else { end + 1 };
        if !(min..max).contains(&value) {
            let (op, argument) = ("grouped_gemm", "offsets");
            return Err(Error::Index { op, argument, position, value, min, max });
        }
        least = value;
    }
    Ok(())
}

pub(crate) fn check_combine(
    x: View<'_>,
    weights: View<'_>,
    grouped_rows: View<'_>,
    out: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("combine");
    let dtype = check.float("x", x)?;
    let [p, h] = check.dims("x", x)?;
    let [t, k] = check.dims("weights", weights)?;
    check.tensor("x", x, dtype, [p, h])?;
    check.tensor("weights", weights, DType::F32, [t, k])?;
    check.tensor("grouped_rows", grouped_rows, DType::I32, [t, k])?;
    grouped_rows.reshape([t * k])?;
    check.tensor("out", out, dtype, [t, h])
}

pub(crate) fn check_rows(x: View<'_>, grouped_rows: View<'_>) -> Result<(), Error> {
    Check::of("combine").indices("grouped_rows", grouped_rows.host_slice(), x.shape().dims()[0])
}
