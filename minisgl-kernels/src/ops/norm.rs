//! Root-mean-square normalization.
//!
//! Never knows: which layer it belongs to.

use super::check::Check;
use crate::{Error, Stream, View, ViewMut, cpu, cuda};

/// `out = weight · round_T(x / sqrt(mean(x²) + eps))`, per row.
///
/// RMSNorm (Zhang and Sennrich, 2019) with the rounding of Hugging Face's Llama: normalized in f32,
/// rounded to T, then multiplied by the weight.
///
/// - `x`: `[t, h]` T. `weight`: `[h]` T. `out`: `[t, h]` T.
/// - `eps`: added to the mean square; finite and not negative.
///
/// # Errors
/// [`Error::Parameter`] if `eps` is out of its domain.
pub fn rms_norm(
    stream: &Stream,
    x: View<'_>,
    weight: View<'_>,
    eps: f32,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check_rms_norm(x, weight, eps, out.as_view())?;
    match stream {
        Stream::Cpu(stream) => cpu::norm::rms_norm(stream.cpu(), x, weight, eps, out),
        Stream::Cuda(stream) => cuda::ops::rms_norm(stream, x, weight, eps, out)?,
    }
    Ok(())
}

pub(crate) fn check_rms_norm(
    x: View<'_>,
    weight: View<'_>,
    eps: f32,
    out: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("rms_norm");
    let dtype = check.float("x", x)?;
    let [t, h] = check.dims("x", x)?;
    check.rows("x", x)?;
    check.tensor("weight", weight, dtype, [h])?;
    check.eps(eps)?;
    check.tensor("out", out, dtype, [t, h])
}

/// `residual = round_T(residual + x)`, then `x = rms_norm(residual)`, per row and in place.
///
/// - `x`: `[t, h]` T: in, the output of the layer before; out, the normalized residual.
/// - `residual`: `[t, h]` T: the residual stream, updated.
/// - `weight`: `[h]` T. `eps`: as in [`rms_norm`].
///
/// # Errors
/// [`Error::Parameter`] if `eps` is out of its domain.
pub fn add_rms_norm(
    stream: &Stream,
    x: ViewMut<'_>,
    residual: ViewMut<'_>,
    weight: View<'_>,
    eps: f32,
) -> Result<(), Error> {
    check_add_rms_norm(x.as_view(), residual.as_view(), weight, eps)?;
    match stream {
        Stream::Cpu(stream) => cpu::norm::add_rms_norm(stream.cpu(), x, residual, weight, eps),
        Stream::Cuda(stream) => cuda::ops::add_rms_norm(stream, x, residual, weight, eps)?,
    }
    Ok(())
}

pub(crate) fn check_add_rms_norm(
    x: View<'_>,
    residual: View<'_>,
    weight: View<'_>,
    eps: f32,
) -> Result<(), Error> {
    let check = Check::of("add_rms_norm");
    let dtype = check.float("x", x)?;
    let [t, h] = check.dims("x", x)?;
    check.rows("x", x)?;
    check.tensor("residual", residual, dtype, [t, h])?;
    check.tensor("weight", weight, dtype, [h])?;
    check.eps(eps)
}
