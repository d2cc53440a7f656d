//! Products of a few rows with what stands around them, in one kernel each.
//!
//! Never knows: which layer they belong to.

use crate::cuda::call::Call;
use crate::cuda::gemm::MAX_GEMV_ROWS;
use crate::cuda::stream::CudaStream;
use crate::{Error, View, ViewMut};

/// How many rows of `k` bfloat16 the kernels take: they keep them and the norm's weight in shared
/// memory.
pub(crate) fn few_rows(k: usize) -> usize {
    const MAX_ROWS: usize = MAX_GEMV_ROWS as usize;
    const SHARED_BYTES: usize = 47 << 10;
    const ELEMENTS_OF_ACCESS: usize = 8;
    if !k.is_multiple_of(ELEMENTS_OF_ACCESS) {
        return 0;
    }
    (SHARED_BYTES / 2 / k.max(1)).saturating_sub(1).min(MAX_ROWS)
}

pub(crate) fn gemm_add(
    stream: &CudaStream,
    x: View<'_>,
    w: View<'_>,
    mut residual: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("gemm_add", stream)?;
    let (x, w) = (call.rows("x", x)?, call.rows("w", w)?);
    let target = call.rows_mut("residual", &mut residual)?;
    if residual.num_elements() == 0 || x.row_len == 0 {
        return Ok(());
    }
    let gemv_add = call.functions().msgl_gemv_add;
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { gemv_add(x, w, target, call.stream()) })
}

/// With `silu`, `w` has the gates first, then what they are multiplied with.
pub(crate) fn norm_gemm(
    stream: &CudaStream,
    x: View<'_>,
    norm: View<'_>,
    eps: f32,
    w: View<'_>,
    silu: bool,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new(if silu { "norm_gemm_silu" } else { "norm_gemm" }, stream)?;
    let (x, w, norm) = (call.rows("x", x)?, call.rows("w", w)?, call.address("norm", norm)?);
    let target = call.rows_mut("out", &mut out)?;
    if out.num_elements() == 0 {
        return Ok(());
    }
    let functions = call.functions();
    let norm_gemv = if silu { functions.msgl_norm_gemv_silu } else { functions.msgl_norm_gemv };
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { norm_gemv(x, norm, eps, w, target, call.stream()) })
}
