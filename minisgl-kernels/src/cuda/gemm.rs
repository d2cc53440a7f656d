//! Matrix multiplication by cuBLASLt, with descriptors and algorithms kept.
//!
//! Never knows: what the weights project.
//!
//! cuBLASLt counts in columns: our row-major `out [m, n]` is its `[n, m]`, so `out = x · wᵀ` is its
//! `D = Aᵀ · B` with `A = w` (`[k, n]` in columns) and `B = x` (`[k, m]`), and the bias, one value
//! per output feature, is one per row of `D`, as its epilogue wants it.

mod fp8;
mod plan;
mod tune;

use std::collections::HashMap;
use std::ffi::c_void;

use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::{result, sys};

use super::call::{Call, code};
use super::stream::CudaStream;
use super::sys::Rows;
use crate::ops::tuning::GemmShape;
use crate::{DType, Error, View, ViewMut};
use plan::{Key, Plan};

pub(crate) use fp8::{check_fp8, gemm_fp8};
pub(crate) use tune::{load, save, tune};

/// Plans that are kept. Prefill has a new number of rows in every step, so they come and go.
const MAX_PLANS: usize = 4096;

/// The most rows of `x` that our own kernels for a few rows take.
pub(crate) const MAX_GEMV_ROWS: i64 = 4;

/// Of addresses: what the widest loads of a kernel need. More makes no difference to it.
const MAX_ALIGNMENT: usize = 16;

/// What all streams of a device share.
#[derive(Default)]
pub(super) struct Gemms {
    handle: Option<Handle>,
    plans: HashMap<Key, Plan>,
    /// Algorithms measured to be the best, by what they compute.
    pub(super) tuned: HashMap<GemmShape, sys::cublasLtMatmulAlgo_t>,
}

/// Of cuBLASLt; usable from every thread.
struct Handle(sys::cublasLtHandle_t);

// SAFETY: cuBLASLt's handles may be used from every thread.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: `handle` created it, and the plans do not use it.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

/// A call to cuBLASLt failed.
fn failed(error: CublasError) -> Error {
    Error::Device { call: "gemm", message: format!("cuBLASLt answers {error}") }
}

impl Gemms {
    /// The library's handle. The device's context is current.
    fn handle(&mut self) -> Result<sys::cublasLtHandle_t, Error> {
        if let Some(handle) = &self.handle {
            return Ok(handle.0);
        }
        let handle = Handle(result::create_handle().map_err(failed)?);
        Ok(self.handle.insert(handle).0)
    }
}

/// The addresses of a multiplication.
#[derive(Clone, Copy)]
struct Operands {
    x: *const c_void,
    w: *const c_void,
    bias: *const c_void,
    out: *mut c_void,
    /// A scale per row of `x` and of `w`, if they are multiplied in.
    scales: Option<[*const c_void; 2]>,
}

pub(crate) fn gemm(
    stream: &CudaStream,
    x: View<'_>,
    w: View<'_>,
    bias: Option<View<'_>>,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("gemm", stream)?;
    let [x_rows, w_rows] = [call.rows("x", x)?, call.rows("w", w)?];
    let out_rows = call.rows_mut("out", &mut out)?;
    let bias_address = match bias {
        Some(bias) => call.address("bias", bias)?,
        None => std::ptr::null(),
    };
    let (m, n, k) = (x_rows.rows as usize, w_rows.rows as usize, x_rows.row_len as usize);
    if m == 0 || n == 0 {
        return Ok(());
    }
    let (dtype, out_dtype) = (x.dtype(), out.dtype());
    if k == 0 {
        call.zero(out_rows, out_dtype)?;
        return match bias {
            Some(_) => call.add_bias(dtype, bias_address, out_dtype, out_rows),
            None => Ok(()),
        };
    }
    if bias.is_none() && dtype == DType::Bf16 && is_gemv(&x_rows, &w_rows) {
        let gemv = call.functions().msgl_gemv;
        // SAFETY: the op has checked the shapes; the addresses are those of the views.
        return call
            .done(unsafe { gemv(code(out_dtype), x_rows, w_rows, out_rows, call.stream()) });
    }
    // The epilogue adds a bias of the output's type only.
    let fused = bias.is_some() && dtype == out_dtype;
    let shape = GemmShape { m, n, k, dtype, out_dtype, bias: fused };
    let operands = Operands {
        x: x_rows.data,
        w: w_rows.data,
        bias: if fused { bias_address } else { std::ptr::null() },
        out: out_rows.data,
        scales: None,
    };
    let strides = [x_rows.stride, w_rows.stride, out_rows.stride];
    multiply(stream, shape, strides, operands)?;
    if bias.is_some() && !fused {
        return call.add_bias(dtype, bias_address, out_dtype, out_rows);
    }
    Ok(())
}

/// Queues the multiplication, by the plan there is for such ones.
fn multiply(
    stream: &CudaStream,
    shape: GemmShape,
    strides: [i64; 3],
    operands: Operands,
) -> Result<(), Error> {
    let alignment = [operands.x, operands.w, operands.bias, operands.out.cast_const()]
        .into_iter()
        .filter(|address| !address.is_null())
        .map(|address| 1 << (address.addr() | MAX_ALIGNMENT).trailing_zeros())
        .min()
        .unwrap_or(MAX_ALIGNMENT);
    let key = Key { shape, strides, alignment, has_scales: operands.scales.is_some() };
    let workspace = stream.workspace()?;
    let mut gemms = stream.device().gemms();
    let handle = gemms.handle()?;
    let Gemms { plans, tuned, .. } = &mut *gemms;
    if plans.len() >= MAX_PLANS {
        plans.clear();
    }
    let plan = match plans.entry(key) {
        std::collections::hash_map::Entry::Occupied(plan) => plan.into_mut(),
        std::collections::hash_map::Entry::Vacant(empty) => {
            let tuned = tuned.get(&shape).filter(|_| alignment == MAX_ALIGNMENT);
            empty.insert(Plan::new(handle, &key, workspace.1, tuned, operands)?)
        }
    };
    plan.run(handle, operands, workspace, stream)
}

/// Whether our own kernel for a few rows can, and is the faster one: it starts before the kernel before
/// it has ended, which counts for matrices that are read in microseconds, and for one row it reads as
/// fast as anything. (Measured on an H100: see BENCHMARKS.md.)
fn is_gemv(x: &Rows, w: &Rows) -> bool {
    const MAX_ELEMENTS: i64 = 16 << 20;
    let is_wide = |rows: &Rows| {
        rows.data.addr().is_multiple_of(MAX_ALIGNMENT)
            && rows.row_len % 8 == 0
            && (rows.rows == 1 || rows.stride % 8 == 0)
    };
    let is_faster = x.rows == 1 || x.rows <= MAX_GEMV_ROWS && w.rows * w.row_len <= MAX_ELEMENTS;
    is_faster && is_wide(x) && is_wide(w)
}

fn data_type(dtype: DType) -> sys::cudaDataType {
    match dtype {
        DType::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        DType::F8E4M3 => sys::cudaDataType_t::CUDA_R_8F_E4M3,
        _ => sys::cudaDataType_t::CUDA_R_32F,
    }
}
