//! Matrix multiplication with a weight matrix.
//!
//! Never knows: what the weights project.

use super::check::Check;
use crate::{DType, Error, Stream, View, ViewMut, cpu, cuda};

/// `out = x · wᵀ + bias`, accumulated in f32 and rounded once (a GPU may round before it adds the
/// bias, too).
///
/// - `x`: `[m, k]` T.
/// - `w`: `[n, k]` T, a row per output feature, as checkpoints store it.
/// - `bias`: `[n]` T, or none.
/// - `out`: `[m, n]` T or f32. Every element is written.
///
/// # Errors
/// Only those of the conventions in [`ops`](crate::ops).
pub fn gemm(
    stream: &Stream,
    x: View<'_>,
    w: View<'_>,
    bias: Option<View<'_>>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check(x, w, bias, out.as_view())?;
    match stream {
        Stream::Cpu(stream) => cpu::gemm::gemm(stream.cpu(), x, w, bias, out),
        Stream::Cuda(stream) => cuda::gemm(stream, x, w, bias, out)?,
    }
    Ok(())
}

pub(crate) fn check(
    x: View<'_>,
    w: View<'_>,
    bias: Option<View<'_>>,
    out: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("gemm");
    let dtype = check.float("x", x)?;
    let [m, k] = check.dims("x", x)?;
    let [n, _] = check.dims("w", w)?;
    check.rows("x", x)?;
    check.tensor("w", w, dtype, [n, k])?;
    if let Some(bias) = bias {
        check.tensor("bias", bias, dtype, [n])?;
    }
    let out_dtype = if out.dtype() == DType::F32 { DType::F32 } else { dtype };
    check.tensor("out", out, out_dtype, [m, n])
}
