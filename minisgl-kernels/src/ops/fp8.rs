//! Matrix products in 8-bit floats ([`F8E4M3`]), with a scale per row of both matrices.
//!
//! Never knows: which rows are weights that were quantized once, and which are activations.

use super::check::Check;
use crate::{DType, Device, Error, F8E4M3, Stream, View, ViewMut, cpu, cuda};

/// On a GPU, what the sizes of the matrices must be multiples of.
pub const CUDA_ALIGNMENT: usize = 16;

/// Whether the device multiplies 8-bit floats: the CPU does; of GPUs, those with compute capability
/// 8.9 (Ada) or newer.
///
/// # Errors
/// [`Error::Unavailable`], with a sentence that says what is there and what is needed.
pub fn check_device(device: &Device) -> Result<(), Error> {
    match device {
        Device::Cpu(_) => Ok(()),
        Device::Cuda(device) => cuda::check_fp8(device),
    }
}

/// Each row of `x` as 8-bit floats and a scale: `x[i][j]` is about `out[i][j] · scales[i]`.
///
/// The scale is the row's largest magnitude divided by 448, the largest 8-bit float, but at least the
/// smallest normal f32; an element is `x / scale` in f32, as [`F8E4M3::from_f32`] rounds it. The bits
/// are the same on all devices. If a row has an element that is no finite number, its scale and all
/// its elements are NaN.
///
/// - `x`: `[m, k]` T.
/// - `out`: `[m, k]` f8_e4m3.
/// - `scales`: `[m]` f32.
///
/// # Errors
/// Only those of the conventions in [`ops`](crate::ops).
pub fn quantize_rows(
    stream: &Stream,
    x: View<'_>,
    out: ViewMut<'_>,
    scales: ViewMut<'_>,
) -> Result<(), Error> {
    check_quantize(x, out.as_view(), scales.as_view())?;
    match stream {
        Stream::Cpu(stream) => cpu::fp8::quantize_rows(stream.cpu(), x, out, scales),
        Stream::Cuda(stream) => cuda::ops::quantize_rows(stream, x, out, scales)?,
    }
    Ok(())
}

/// The scale of a row with this largest magnitude.
#[inline(always)]
pub(crate) fn scale_of(largest: f32) -> f32 {
    let scale = largest / F8E4M3::MAX;
    // Never 0, so that a row of zeros needs no special case; NaN and infinity stay.
    if scale < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { scale }
}

/// A row of 8-bit floats and their scales.
#[derive(Clone, Copy, Debug)]
pub struct Scaled<'a> {
    /// `[rows, k]` f8_e4m3.
    pub values: View<'a>,
    /// `[rows]` f32.
    pub scales: View<'a>,
}

/// `out[i][j] = (Σ x[i] · w[j]) · x_scale[i] · w_scale[j] + bias[j]`: products of 8-bit floats,
/// accumulated and scaled in f32, rounded once (a GPU may round to the type of `out` before it scales
/// and before it adds the bias, too, and its accumulators have fewer bits than f32).
///
/// - `x`: `m` rows of `k`. `w`: `n` rows of `k`, one per output feature.
/// - `bias`: `[n]` T, or none.
/// - `out`: `[m, n]`, f32 or bf16. With a bias T is its type, unless that is f32.
///
/// # Errors
/// On a GPU [`Error::Parameter`] if `k` or `n` is no multiple of 16, or if `x` or `w` has gaps;
/// [`Error::Unavailable`] if it has no such product ([`check_device`]).
pub fn gemm(
    stream: &Stream,
    x: Scaled<'_>,
    w: Scaled<'_>,
    bias: Option<View<'_>>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check_gemm(x, w, bias, out.as_view())?;
    match stream {
        Stream::Cpu(stream) => cpu::fp8::gemm(stream.cpu(), x, w, bias, out),
        Stream::Cuda(stream) => cuda::gemm_fp8(stream, x, w, bias, out)?,
    }
    Ok(())
}

pub(crate) fn check_quantize(x: View<'_>, out: View<'_>, scales: View<'_>) -> Result<(), Error> {
    let check = Check::of("quantize_rows");
    check.float("x", x)?;
    let [m, k] = check.dims("x", x)?;
    check.rows("x", x)?;
    check.tensor("out", out, DType::F8E4M3, [m, k])?;
    check.tensor("scales", scales, DType::F32, [m])
}

pub(crate) fn check_gemm(
    x: Scaled<'_>,
    w: Scaled<'_>,
    bias: Option<View<'_>>,
    out: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("fp8 gemm");
    let [m, k] = check.dims("x", x.values)?;
    let [n, _] = check.dims("w", w.values)?;
    check.tensor("x", x.values, DType::F8E4M3, [m, k])?;
    check.tensor("w", w.values, DType::F8E4M3, [n, k])?;
    check.tensor("x scales", x.scales, DType::F32, [m])?;
    check.tensor("w scales", w.scales, DType::F32, [n])?;
    let out_dtype = check.float("out", out)?;
    if let Some(bias) = bias {
        let bias_dtype = check.float("bias", bias)?;
        let dtype = if out_dtype == DType::F32 { bias_dtype } else { out_dtype };
        check.tensor("bias", bias, dtype, [n])?;
    }
    check.tensor("out", out, out_dtype, [m, n])
}
