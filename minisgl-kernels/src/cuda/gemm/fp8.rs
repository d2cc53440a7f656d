//! Multiplication of 8-bit floats by cuBLASLt, with a scale per row of both matrices.
//!
//! Never knows: which rows are weights.
//!
//! From version 12.9 on, on GPUs of compute capability 9.0, cuBLASLt multiplies such scales in itself
//! (its "outer vectors"). Elsewhere it multiplies the bare numbers, and a kernel of ours scales the
//! result where it lies. GPUs before 8.9 have no such product.

use std::ffi::c_void;

use super::{Operands, multiply};
use crate::cuda::call::{Call, code};
use crate::cuda::device::CudaDevice;
use crate::cuda::stream::CudaStream;
use crate::ops::fp8::{CUDA_ALIGNMENT, Scaled};
use crate::ops::tuning::GemmShape;
use crate::{DType, Error, View, ViewMut};

/// The oldest GPUs that multiply 8-bit floats.
const MIN_CAPABILITY: (u32, u32) = (8, 9);

/// The only GPUs on which cuBLASLt takes a scale per row, and the version since which it does.
const ROW_SCALES_CAPABILITY: (u32, u32) = (9, 0);
const ROW_SCALES_VERSION: (u32, u32) = (12, 9);

/// Whether the device has such a product at all.
pub(crate) fn check_fp8(device: &CudaDevice) -> Result<(), Error> {
    check_capability(&device.description(), device.compute_capability()).map_err(Error::Unavailable)
}

fn check_capability(description: &str, capability: (u32, u32)) -> Result<(), String> {
    if capability >= MIN_CAPABILITY {
        return Ok(());
    }
    let (major, minor) = MIN_CAPABILITY;
    Err(format!(
        "products of 8-bit floats need a GPU of compute capability {major}.{minor} (Ada) or newer; \
         this is {description}"
    ))
}

/// Whether cuBLASLt takes a scale per row here.
pub(super) fn has_row_scales(device: &CudaDevice) -> bool {
    takes_row_scales(device.compute_capability(), &device.libraries().cublaslt().version)
}

fn takes_row_scales(capability: (u32, u32), version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    capability == ROW_SCALES_CAPABILITY && version >= ROW_SCALES_VERSION
}

pub(crate) fn gemm_fp8(
    stream: &CudaStream,
    x: Scaled<'_>,
    w: Scaled<'_>,
    bias: Option<View<'_>>,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    const OP: &str = "fp8 gemm";
    let call = Call::new(OP, stream)?;
    check_fp8(stream.device())?;
    let [x_rows, w_rows] = [call.rows("x", x.values)?, call.rows("w", w.values)?];
    let (x_scales, w_scales) =
        (call.elements::<f32>("x scales", x.scales)?, call.elements::<f32>("w scales", w.scales)?);
    let out_rows = call.rows_mut("out", &mut out)?;
    let bias = match bias {
        Some(bias) => Some((bias.dtype(), call.address("bias", bias)?)),
        None => None,
    };
    for (argument, view) in [("x", x.values), ("w", w.values)] {
        call.dense(argument, view)?;
    }
    let (m, n, k) = (x_rows.rows as usize, w_rows.rows as usize, x_rows.row_len as usize);
    for (parameter, size) in [("n", n), ("k", k)] {
        if !size.is_multiple_of(CUDA_ALIGNMENT) {
            let (value, allowed) = (size.to_string(), "a multiple of 16 on a GPU");
            return Err(Error::Parameter { op: OP, parameter, value, allowed });
        }
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    let out_dtype = out.dtype();
    if k == 0 {
        call.zero(out_rows, out_dtype)?;
    } else {
        let has_scales = has_row_scales(stream.device());
        let shape = GemmShape { m, n, k, dtype: DType::F8E4M3, out_dtype, bias: false };
        let operands = Operands {
            x: x_rows.data,
            w: w_rows.data,
            bias: std::ptr::null(),
            out: out_rows.data,
            scales: has_scales.then_some([x_scales.cast::<c_void>(), w_scales.cast::<c_void>()]),
        };
        let strides = [x_rows.row_len, w_rows.row_len, out_rows.stride];
        multiply(stream, shape, strides, operands)?;
        if !has_scales {
            let scale = call.functions().msgl_scale;
            // SAFETY: the op has checked that there is a scale for every row and column of `out`.
            call.done(unsafe {
                scale(code(out_dtype), out_rows, x_scales, w_scales, call.stream())
            })?;
        }
    }
    match bias {
        Some((dtype, bias)) => call.add_bias(dtype, bias, out_dtype, out_rows),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_before_ada_are_refused_by_name() {
        for capability in [(8, 9), (9, 0), (10, 0), (12, 0)] {
            assert_eq!(check_capability("a GPU", capability), Ok(()));
        }
        let error = check_capability("cuda:0 (NVIDIA A100)", (8, 0)).unwrap_err();
        assert!(error.contains("compute capability 8.9") && error.contains("A100"), "{error}");
    }

    #[test]
    fn only_hopper_with_a_new_library_takes_a_scale_per_row() {
        assert!(takes_row_scales((9, 0), "12.9.1") && takes_row_scales((9, 0), "13.1.0"));
        assert!(!takes_row_scales((9, 0), "12.8.4") && !takes_row_scales((9, 0), ""));
        for other in [(8, 9), (10, 0), (12, 0)] {
            assert!(!takes_row_scales(other, "13.1.0"));
        }
    }
}
