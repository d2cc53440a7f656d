//! The gated activation of MLP layers.
//!
//! Never knows: the projections around it.

use super::check::Check;
use crate::{Error, Stream, View, ViewMut, cpu, cuda};

/// `out = round_T(silu(gate)) · up`, where `silu(x) = x / (1 + exp(-x))` (SwiGLU, Shazeer 2020).
///
/// - `gate_up`: `[t, 2i]` T: `i` gate columns, then `i` up columns, as a fused projection leaves
///   them.
/// - `out`: `[t, i]` T.
///
/// `silu` is computed in f32 and rounded to T before the product, as Hugging Face does.
///
/// # Errors
/// Only those of the conventions in [`ops`](crate::ops).
pub fn silu_and_mul(stream: &Stream, gate_up: View<'_>, out: ViewMut<'_>) -> Result<(), Error> {
    check(gate_up, out.as_view())?;
    match stream {
        Stream::Cpu(stream) => cpu::activation::silu_and_mul(stream.cpu(), gate_up, out),
        Stream::Cuda(stream) => cuda::ops::silu_and_mul(stream, gate_up, out)?,
    }
    Ok(())
}

pub(crate) fn check(gate_up: View<'_>, out: View<'_>) -> Result<(), Error> {
    let check = Check::of("silu_and_mul");
    let dtype = check.float("gate_up", gate_up)?;
    let [t, intermediate] = check.dims("out", out)?;
    check.tensor("gate_up", gate_up, dtype, [t, 2 * intermediate])?;
    check.tensor("out", out, dtype, [t, intermediate])
}
