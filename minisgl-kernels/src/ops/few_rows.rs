//! Products of a few rows, with what a layer does before and after them: one kernel on a GPU, where
//! each kernel more costs about as long as a small matrix takes to read.
//!
//! Never knows: which layer it is.

use super::check::Check;
use super::{activation, gemm, norm, pointwise};
use crate::{DType, Device, Error, Stream, Tensor, View, ViewMut, cuda};

/// Up to how many rows the ops of this module are faster than those that they consist of, where `k`
/// elements of `dtype` are normalized (0 if none are). A GPU does not do them for more, and wants rows
/// that are multiples of 16 bytes; 0 on the CPU, which does them for any number.
pub fn few_rows(device: &Device, dtype: DType, k: usize) -> usize {
    match device {
        Device::Cuda(_) if dtype == DType::Bf16 => cuda::ops::few_rows(k),
        _ => 0,
    }
}

/// `residual = residual + x · wᵀ`, as [`gemm`](super::gemm) and [`add`](super::add).
///
/// - `x`: `[m, k]` T. `w`: `[n, k]` T. `residual`: `[m, n]` T.
///
/// # Errors
/// [`Error::Parameter`] on a GPU if there are more than [`few_rows`].
pub fn gemm_add(
    stream: &Stream,
    x: View<'_>,
    w: View<'_>,
    residual: ViewMut<'_>,
) -> Result<(), Error> {
    check_gemm_add(x, w, residual.as_view())?;
    match stream {
        Stream::Cpu(_) => {
            let mut product = like(residual.as_view())?;
            gemm::gemm(stream, x, w, None, product.view_mut())?;
            pointwise::add(stream, product.view(), residual)
        }
        Stream::Cuda(stream) => {
            check_few("gemm_add", x, 0)?;
            cuda::ops::gemm_add(stream, x, w, residual)
        }
    }
}

/// `out = rms_norm(x) · wᵀ`, as [`rms_norm`](super::rms_norm) and [`gemm`](super::gemm).
///
/// - `x`: `[m, k]` T. `norm`: `[k]` T. `w`: `[n, k]` T. `out`: `[m, n]` T.
///
/// # Errors
/// [`Error::Parameter`] if `eps` is out of its domain, or on a GPU if there are more than [`few_rows`].
pub fn norm_gemm(
    stream: &Stream,
    x: View<'_>,
    norm: View<'_>,
    eps: f32,
    w: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check_norm_gemm(x, norm, eps, w, out.as_view())?;
    match stream {
        Stream::Cpu(_) => {
            let mut normalized = like(x)?;
            norm::rms_norm(stream, x, norm, eps, normalized.view_mut())?;
            gemm::gemm(stream, normalized.view(), w, None, out)
        }
        Stream::Cuda(stream) => {
            check_few("norm_gemm", x, w.shape().dims()[1])?;
            cuda::ops::norm_gemm(stream, x, norm, eps, w, false, out)
        }
    }
}

/// `out = silu_and_mul(rms_norm(x) · wᵀ)`, as [`norm_gemm`] and [`silu_and_mul`](super::silu_and_mul).
///
/// - `x`: `[m, k]` T. `norm`: `[k]` T. `w`: `[2n, k]` T, the gates first. `out`: `[m, n]` T.
///
/// # Errors
/// As [`norm_gemm`].
pub fn norm_gemm_silu(
    stream: &Stream,
    x: View<'_>,
    norm: View<'_>,
    eps: f32,
    w: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check_norm_gemm_silu(x, norm, eps, w, out.as_view())?;
    match stream {
        Stream::Cpu(_) => {
            let shape = [x.shape().dims()[0], w.shape().dims()[0]];
            let mut gate_up = x.device().zeros(x.dtype(), shape)?;
            norm_gemm(stream, x, norm, eps, w, gate_up.view_mut())?;
            activation::silu_and_mul(stream, gate_up.view(), out)
        }
        Stream::Cuda(stream) => {
            check_few("norm_gemm_silu", x, w.shape().dims()[1])?;
            cuda::ops::norm_gemm(stream, x, norm, eps, w, true, out)
        }
    }
}

/// Memory for an array of this shape.
fn like(view: View<'_>) -> Result<Tensor, Error> {
    view.device().zeros(view.dtype(), view.shape())
}

/// On a GPU.
fn check_few(op: &'static str, x: View<'_>, k: usize) -> Result<(), Error> {
    let check = Check::of(op);
    let [m, _] = check.dims("x", x)?;
    if m <= few_rows(x.device(), x.dtype(), k) {
        return Ok(());
    }
    Err(check.parameter("number of rows", m, "what few_rows says"))
}

pub(crate) fn check_gemm_add(x: View<'_>, w: View<'_>, residual: View<'_>) -> Result<(), Error> {
    gemm::check(x, w, None, residual)?;
    Check::of("gemm_add").dtype("residual", residual, x.dtype())
}

pub(crate) fn check_norm_gemm(
    x: View<'_>,
    weight: View<'_>,
    eps: f32,
    w: View<'_>,
    out: View<'_>,
) -> Result<(), Error> {
    norm::check_rms_norm(x, weight, eps, x)?;
    gemm::check(x, w, None, out)?;
    Check::of("norm_gemm").dtype("out", out, x.dtype())
}

pub(crate) fn check_norm_gemm_silu(
    x: View<'_>,
    weight: View<'_>,
    eps: f32,
    w: View<'_>,
    out: View<'_>,
) -> Result<(), Error> {
    norm::check_rms_norm(x, weight, eps, x)?;
    let check = Check::of("norm_gemm_silu");
    let ([m, k], [_, n]) = (check.dims("x", x)?, check.dims("out", out)?);
    check.tensor("w", w, x.dtype(), [2 * n, k])?;
    check.tensor("out", out, x.dtype(), [m, n])
}
