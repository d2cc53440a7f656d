//! Products of a few rows with what stands around them: the ops one after the other.
//!
//! Never knows: that a backend does them at once.

use crate::ops::check;
use crate::{Error, View, ViewMut};

/// See [`ops::gemm_add`](crate::ops::gemm_add).
///
/// # Errors
/// Those of the op.
pub fn gemm_add(x: View<'_>, w: View<'_>, residual: ViewMut<'_>) -> Result<(), Error> {
    check::gemm_add(x, w, residual.as_view())?;
    let mut product = x.device().zeros(x.dtype(), residual.shape())?;
    super::gemm(x, w, None, product.view_mut())?;
    super::add(product.view(), residual)
}

/// See [`ops::norm_gemm`](crate::ops::norm_gemm).
///
/// # Errors
/// Those of the op.
pub fn norm_gemm(
    x: View<'_>,
    norm: View<'_>,
    eps: f32,
    w: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check::norm_gemm(x, norm, eps, w, out.as_view())?;
    let mut normalized = x.device().zeros(x.dtype(), x.shape())?;
    super::rms_norm(x, norm, eps, normalized.view_mut())?;
    super::gemm(normalized.view(), w, None, out)
}

/// See [`ops::norm_gemm_silu`](crate::ops::norm_gemm_silu).
///
/// # Errors
/// Those of the op.
pub fn norm_gemm_silu(
    x: View<'_>,
    norm: View<'_>,
    eps: f32,
    w: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check::norm_gemm_silu(x, norm, eps, w, out.as_view())?;
    let shape = [x.shape().dims()[0], w.shape().dims()[0]];
    let mut gate_up = x.device().zeros(x.dtype(), shape)?;
    norm_gemm(x, norm, eps, w, gate_up.view_mut())?;
    super::silu_and_mul(gate_up.view(), out)
}
