//! Copies and sums of whole arrays.
//!
//! Never knows: what the arrays are.

use super::check::Check;
use crate::{Error, Stream, View, ViewMut, cpu, cuda};

/// `target = source`.
///
/// Both have the same shape and the same dtype, which may be any; the outermost dimensions may be
/// strided.
///
/// # Errors
/// Only those of the conventions in [`ops`](crate::ops).
pub fn copy(stream: &Stream, source: View<'_>, target: ViewMut<'_>) -> Result<(), Error> {
    let check = Check::of("copy");
    check.rows("source", source)?;
    check.tensor("target", target.as_view(), source.dtype(), source.shape())?;
    match stream {
        Stream::Cpu(stream) => cpu::pointwise::copy(stream.cpu(), source, target),
        Stream::Cuda(stream) => cuda::ops::copy(stream, source, target)?,
    }
    Ok(())
}

/// `y = round_T(y + x)`.
///
/// - `x`, `y`: the same shape, T; the outermost dimensions may be strided.
///
/// # Errors
/// Only those of the conventions in [`ops`](crate::ops).
pub fn add(stream: &Stream, x: View<'_>, y: ViewMut<'_>) -> Result<(), Error> {
    check_add(x, y.as_view())?;
    match stream {
        Stream::Cpu(stream) => cpu::pointwise::add(stream.cpu(), x, y),
        Stream::Cuda(stream) => cuda::ops::add(stream, x, y)?,
    }
    Ok(())
}

pub(crate) fn check_add(x: View<'_>, y: View<'_>) -> Result<(), Error> {
    let check = Check::of("add");
    let dtype = check.float("x", x)?;
    check.rows("x", x)?;
    check.tensor("y", y, dtype, x.shape())
}

/// `out = round_T(parts[0] + parts[1] + ..)`: added in f32 in the order of the slice, rounded once.
///
/// - `parts`: at least one; all have the shape and dtype (T) of `out`. The outermost dimensions
///   may be strided.
///
/// # Errors
/// [`Error::Parameter`] if `parts` is empty.
pub fn reduce_sum(stream: &Stream, parts: &[View<'_>], out: ViewMut<'_>) -> Result<(), Error> {
    check_reduce_sum(parts, out.as_view())?;
    match stream {
        Stream::Cpu(stream) => cpu::pointwise::reduce_sum(stream.cpu(), parts, out),
        Stream::Cuda(stream) => cuda::ops::reduce_sum(stream, parts, out)?,
    }
    Ok(())
}

pub(crate) fn check_reduce_sum(parts: &[View<'_>], out: View<'_>) -> Result<(), Error> {
    let check = Check::of("reduce_sum");
    if parts.is_empty() {
        return Err(check.parameter("parts", "empty", "at least one part"));
    }
    let dtype = check.float("out", out)?;
    check.rows("out", out)?;
    parts.iter().try_for_each(|&part| check.tensor("parts", part, dtype, out.shape()))
}
