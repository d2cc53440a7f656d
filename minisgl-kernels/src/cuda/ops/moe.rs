//! Mixture of experts.
//!
//! Never knows: what the experts compute in between.

use crate::cuda::call::{Call, code};
use crate::cuda::stream::CudaStream;
use crate::{Error, View, ViewMut};

pub(crate) fn route(
    stream: &CudaStream,
    logits: View<'_>,
    normalize: bool,
    mut weights: ViewMut<'_>,
    mut experts: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("route", stream)?;
    let logits = call.rows("logits", logits)?;
    let weight_rows = call.rows_mut("weights", &mut weights)?;
    let experts = call.rows_mut("experts", &mut experts)?;
    if weights.num_elements() == 0 {
        return Ok(());
    }
    let (normalize, route) = (i32::from(normalize), call.functions().msgl_moe_route);
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { route(logits, normalize, weight_rows, experts, call.stream()) })
}

pub(crate) fn group(
    stream: &CudaStream,
    experts: View<'_>,
    mut tokens: ViewMut<'_>,
    grouped_rows: ViewMut<'_>,
    mut offsets: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("group", stream)?;
    let &[t, k] = experts.shape().dims() else { unreachable!("the op has checked the rank") };
    let num_experts = offsets.num_elements() - 1;
    let experts = call.dense("experts", experts)?.cast();
    let tokens = call.elements_mut("tokens", &mut tokens)?;
    let grouped_rows = call.dense("grouped_rows", grouped_rows.as_view())?.cast_mut().cast();
    let offsets = call.elements_mut("offsets", &mut offsets)?;
    let (t, k, num_experts) = (t as i64, k as i32, num_experts as i32);
    let group = call.functions().msgl_moe_group;
    // SAFETY: the op has checked the shapes; the kernel checks the experts.
    call.done(unsafe {
        group(experts, t, k, num_experts, tokens, grouped_rows, offsets, call.stream())
    })
}

pub(crate) fn grouped_gemm(
    stream: &CudaStream,
    x: View<'_>,
    offsets: View<'_>,
    w: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("grouped_gemm", stream)?;
    let &[num_experts, n, _] = w.shape().dims() else {
        unreachable!("the op has checked the rank")
    };
    let (rows, offsets) = (call.rows("x", x)?, call.elements("offsets", offsets)?);
    let (w, dtype) = (call.dense("w", w)?, code(x.dtype()));
    let target = call.rows_mut("out", &mut out)?;
    if out.num_elements() == 0 {
        return Ok(());
    }
    let (num_experts, n) = (num_experts as i32, n as i64);
    let grouped_gemm = call.functions().msgl_moe_grouped_gemm;
    // SAFETY: the op has checked the shapes; the kernel checks the offsets.
    call.done(unsafe {
        grouped_gemm(dtype, rows, offsets, num_experts, w, n, target, call.stream())
    })
}

pub(crate) fn combine(
    stream: &CudaStream,
    x: View<'_>,
    weights: View<'_>,
    grouped_rows: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("combine", stream)?;
    let (rows, dtype) = (call.rows("x", x)?, code(x.dtype()));
    let weights = call.rows("weights", weights)?;
    let grouped_rows = call.rows("grouped_rows", grouped_rows)?;
    let target = call.rows_mut("out", &mut out)?;
    if out.num_elements() == 0 {
        return Ok(());
    }
    let combine = call.functions().msgl_moe_combine;
    // SAFETY: the op has checked the shapes; the kernel checks the rows.
    call.done(unsafe { combine(dtype, rows, weights, grouped_rows, target, call.stream()) })
}
