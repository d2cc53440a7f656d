//! Choosing the fastest of a library's algorithms by measuring them.
//!
//! Never knows: which shapes a model has, or where results are kept; the caller says and saves.

use crate::{DType, Device, Error, Stream, cuda};

/// What a [`gemm`](super::gemm) or an [`fp8::gemm`](super::fp8::gemm()) computes: `out [m, n] = x [m, k] · w [n, k]ᵀ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmShape {
    /// Rows of `x` and `out`.
    pub m: usize,
    /// Rows of `w`.
    pub n: usize,
    /// Columns of `x` and `w`.
    pub k: usize,
    /// The dtype of `x` and `w`: f32 or bf16, or f8_e4m3 with a scale per row.
    pub dtype: DType,
    /// The dtype of `out`: f32, or that of `x`; for f8_e4m3, f32 or bf16.
    pub out_dtype: DType,
    /// Whether a bias of the output's dtype is added. (A bias of another dtype is added by a kernel
    /// of its own and needs no tuning.)
    pub bias: bool,
}

/// What tuning found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuned {
    /// The time of the fastest algorithm, with weights that are not in the cache.
    pub seconds: f64,
    /// The time of the library's own first choice.
    pub first_guess_seconds: f64,
}

/// Measures the library's most promising algorithms for `shape`, and has every later [`gemm`]
/// of this shape on the device use the fastest, if its addresses are aligned to 16 bytes. Takes some
/// ten milliseconds, and for that time memory of a few times the second-level cache. Graphs that
/// were captured before keep their algorithm.
///
/// The CPU has one algorithm: there the answer is `None`.
///
/// [`gemm`]: super::gemm
///
/// # Errors
/// [`Error::Parameter`] if a size is 0, [`Error::DType`] if a dtype is none of those above, and
/// errors of the device.
pub fn tune_gemm(stream: &Stream, shape: &GemmShape) -> Result<Option<Tuned>, Error> {
    const OP: &str = "tune_gemm";
    let GemmShape { m, n, k, dtype, out_dtype, .. } = *shape;
    if let Some(parameter) = [("m", m), ("n", n), ("k", k)]
        .into_iter()
        .find_map(|(name, size)| (size == 0).then_some(name))
    {
        let (value, allowed) = ("0".to_owned(), "at least 1");
        return Err(Error::Parameter { op: OP, parameter, value, allowed });
    }
    if !matches!(dtype, DType::F32 | DType::Bf16 | DType::F8E4M3) {
        let expected = "float32, bfloat16 or float8_e4m3fn";
        return Err(Error::DType { op: OP, argument: "dtype", got: dtype, expected });
    }
    let narrow = if dtype == DType::F8E4M3 { DType::Bf16 } else { dtype };
    if out_dtype != DType::F32 && out_dtype != narrow {
        let expected = narrow.name();
        return Err(Error::DType { op: OP, argument: "out_dtype", got: out_dtype, expected });
    }
    match stream {
        Stream::Cpu(_) => Ok(None),
        Stream::Cuda(stream) => cuda::tune_gemm(stream, shape).map(Some),
    }
}

/// Whether a fastest algorithm for `shape` is known on the device; there is nothing to know on the CPU.
pub fn is_tuned(device: &Device, shape: &GemmShape) -> bool {
    match device {
        Device::Cpu(_) => true,
        Device::Cuda(device) => device.is_tuned(shape),
    }
}

/// All that was tuned on the device, as text for [`load_tuned`].
pub fn save_tuned(device: &Device) -> String {
    match device {
        Device::Cpu(_) => String::new(),
        Device::Cuda(device) => cuda::save_gemms(device),
    }
}

/// Takes over what [`save_tuned`] wrote, if that was for the same kind of GPU and version of the
/// library; otherwise nothing. Returns the number of shapes that were taken over.
pub fn load_tuned(device: &Device, text: &str) -> usize {
    match device {
        Device::Cpu(_) => 0,
        Device::Cuda(device) => cuda::load_gemms(device, text),
    }
}
