//! The descriptors and the algorithm of one multiplication.
//!
//! Never knows: addresses, other than how they are aligned.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use cudarc::cublaslt::{result, sys};

use super::{Operands, data_type, failed};
use crate::Error;
use crate::cuda::stream::CudaStream;
use crate::ops::tuning::GemmShape;

/// `CUBLAS_OP_T` of cublas_api.h.
const TRANSPOSED: i32 = 1;

/// What a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) shape: GemmShape,
    /// Elements between the rows of `x`, `w` and `out`.
    pub(super) strides: [i64; 3],
    /// Bytes that every address is a multiple of.
    pub(super) alignment: usize,
    /// Whether the rows of `x` and `w` have scales that are multiplied in.
    pub(super) has_scales: bool,
}

/// Everything cuBLASLt needs to know but the addresses.
pub(super) struct Plan {
    descriptors: Descriptors,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// What is multiplied, and the layouts of the matrices.
pub(super) struct Descriptors {
    multiply: Multiply,
    w: Layout,
    x: Layout,
    out: Layout,
    has_bias: bool,
    has_scales: bool,
}

struct Multiply(sys::cublasLtMatmulDesc_t);
struct Layout(sys::cublasLtMatrixLayout_t);
struct Preference(sys::cublasLtMatmulPreference_t);

// SAFETY: descriptors are plain memory that cuBLASLt reads during calls.
unsafe impl Send for Multiply {}
// SAFETY: as above.
unsafe impl Send for Layout {}

impl Drop for Multiply {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

impl Descriptors {
    /// `operands` are any that will be used: the library looks at some when it guesses.
    pub(super) fn new(key: &Key, operands: Operands) -> Result<Self, Error> {
        let GemmShape { m, n, k, dtype, out_dtype, bias } = key.shape;
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let multiply = result::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F);
        let multiply = Multiply(multiply.map_err(failed)?);
        multiply
            .set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, TRANSPOSED)?;
        if bias {
            use sys::cublasLtMatmulDescAttributes_t as Attribute;
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as i32;
            multiply.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
            multiply.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias)?;
        }
        if let Some(scales) = operands.scales.filter(|_| key.has_scales) {
            use sys::cublasLtMatmulDescAttributes_t as Attribute;
            let per_row =
                sys::cublasLtMatmulMatrixScale_t::CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F as i32;
            multiply.set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_MODE, per_row)?;
            multiply.set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_MODE, per_row)?;
            multiply.set_scales(scales)?;
        }
        let layout = |dtype, rows: usize, columns: usize, stride: i64| {
            // The stride of a single row may be anything in our layouts, but not in cuBLASLt's.
            let stride = stride.max(rows as i64);
            result::create_matrix_layout(data_type(dtype), rows as u64, columns as u64, stride)
                .map(Layout)
                .map_err(failed)
        };
        let [x_stride, w_stride, out_stride] = key.strides;
        Ok(Self {
            multiply,
            w: layout(dtype, k, n, w_stride)?,
            x: layout(dtype, k, m, x_stride)?,
            out: layout(out_dtype, n, m, out_stride)?,
            has_bias: bias,
            has_scales: key.has_scales,
        })
    }

    /// The library's guesses, the most promising first; at most `count`, at least one.
    pub(super) fn candidates(
        &self,
        handle: sys::cublasLtHandle_t,
        alignment: usize,
        workspace_bytes: usize,
        count: usize,
    ) -> Result<Vec<sys::cublasLtMatmulAlgo_t>, Error> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;

        let preference = Preference(result::create_matmul_pref().map_err(failed)?);
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes)?;
        // Partial sums are kept in f32: the others are rounded to the output's type in between.
        let scheme = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, scheme)?;
        for attribute in [
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            preference.set(attribute, alignment as u32)?;
        }
        let mut results =
            vec![MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit(); count];
        let mut found = 0;
        // SAFETY: all descriptors live; at most `count` results are written, `found` says how many.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                self.multiply.0,
                self.w.0,
                self.x.0,
                self.out.0,
                self.out.0,
                preference.0,
                count as i32,
                results.as_mut_ptr().cast(),
                &mut found,
            )
        };
        status.result().map_err(failed)?;
        let found = usize::try_from(found).unwrap_or(0).min(count);
        // SAFETY: these were written.
        let results = results[..found].iter().map(|result| unsafe { result.assume_init() });
        let usable = results.filter(|result| {
            result.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS
                && result.workspaceSize <= workspace_bytes
        });
        let algorithms: Vec<_> = usable.map(|result| result.algo).collect();
        if algorithms.is_empty() {
            return Err(failed(result::CublasError(
                sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
            )));
        }
        Ok(algorithms)
    }

    /// Whether the library can run this algorithm here.
    pub(super) fn accepts(
        &self,
        handle: sys::cublasLtHandle_t,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        workspace_bytes: usize,
    ) -> bool {
        let mut result = MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit();
        // SAFETY: all descriptors live; one result is written if the status is success.
        unsafe {
            let status = sys::cublasLtMatmulAlgoCheck(
                handle,
                self.multiply.0,
                self.w.0,
                self.x.0,
                self.out.0,
                self.out.0,
                algorithm,
                result.as_mut_ptr(),
            );
            status.result().is_ok() && result.assume_init().workspaceSize <= workspace_bytes
        }
    }

    /// Queues the multiplication.
    pub(super) fn run(
        &self,
        handle: sys::cublasLtHandle_t,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        operands: Operands,
        (workspace, workspace_bytes): (*mut c_void, usize),
        stream: &CudaStream,
    ) -> Result<(), Error> {
        if self.has_bias {
            let pointer = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            self.multiply.set(pointer, operands.bias)?;
        }
        if let Some(scales) = operands.scales.filter(|_| self.has_scales) {
            self.multiply.set_scales(scales)?;
        }
        let (one, zero) = (1f32, 0f32);
        // SAFETY: all descriptors live and describe memory of the device, which the views of the
        // op keep; alpha and beta are read before the call returns.
        unsafe {
            result::matmul(
                handle,
                self.multiply.0,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                operands.w,
                self.w.0,
                operands.x,
                self.x.0,
                operands.out,
                self.out.0,
                operands.out,
                self.out.0,
                algorithm,
                workspace,
                workspace_bytes,
                stream.raw().cast(),
            )
        }
        .map_err(failed)
    }
}

impl Plan {
    /// With the tuned algorithm if there is one and it fits, or else the library's best guess.
    pub(super) fn new(
        handle: sys::cublasLtHandle_t,
        key: &Key,
        workspace_bytes: usize,
        tuned: Option<&sys::cublasLtMatmulAlgo_t>,
        operands: Operands,
    ) -> Result<Self, Error> {
        let descriptors = Descriptors::new(key, operands)?;
        let tuned = tuned.filter(|tuned| descriptors.accepts(handle, tuned, workspace_bytes));
        let algorithm = match tuned {
            Some(tuned) => *tuned,
            None => descriptors.candidates(handle, key.alignment, workspace_bytes, 1)?[0],
        };
        Ok(Self { descriptors, algorithm })
    }

    pub(super) fn run(
        &self,
        handle: sys::cublasLtHandle_t,
        operands: Operands,
        workspace: (*mut c_void, usize),
        stream: &CudaStream,
    ) -> Result<(), Error> {
        self.descriptors.run(handle, &self.algorithm, operands, workspace, stream)
    }
}

impl Multiply {
    /// The scales of the rows of `x` (the library's B) and of `w` (its A).
    fn set_scales(&self, [x, w]: [*const c_void; 2]) -> Result<(), Error> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        self.set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, w)?;
        self.set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, x)
    }

    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: T,
    ) -> Result<(), Error> {
        // SAFETY: the descriptor lives, and the value is of the attribute's size.
        unsafe {
            let value = (&raw const value).cast();
            result::set_matmul_desc_attribute(self.0, attribute, value, size_of::<T>())
        }
        .map_err(failed)
    }
}

impl Preference {
    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: T,
    ) -> Result<(), Error> {
        // SAFETY: the preference lives, and the value is of the attribute's size.
        unsafe {
            let value = (&raw const value).cast();
            result::set_matmul_pref_attribute(self.0, attribute, value, size_of::<T>())
        }
        .map_err(failed)
    }
}
