//! Checkpoint bytes to tensors.
//!
//! Never knows: file formats or tensor names; it is given the bytes of one tensor or of some rows.

use std::fmt;

use crate::cpu::transfer;
use crate::ops::check::check_float_rows;
use crate::{Error, Stream, ViewMut, cuda};

/// The float formats of checkpoint files, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckpointDType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    Bf16,
}

impl CheckpointDType {
    /// Size of one element, in bytes.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name that PyTorch and Hugging Face configs use, such as `"float16"`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }
}

impl fmt::Display for CheckpointDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Converts the bytes of a checkpoint tensor, or of a part of one, to the dtype of `target`.
///
/// - `source`: contiguous, row-major, little-endian, any alignment, as many elements as `target`.
/// - `target`: any shape, f32 or bf16; the outermost dimension may be strided.
///
/// Exact where `target` has the precision, otherwise rounded to nearest, ties to even.
///
/// # Errors
/// [`Error::Length`] if `source` has not exactly the bytes of `target`'s elements,
/// [`Error::DType`] or [`Error::Layout`] if `target` does not fit, and errors of the device.
pub fn copy_from_checkpoint(
    stream: &Stream,
    source: &[u8],
    source_dtype: CheckpointDType,
    target: ViewMut<'_>,
) -> Result<(), Error> {
    const OP: &str = "copy_from_checkpoint";
    check_float_rows(OP, "target", target.as_view())?;
    let expected = target.num_elements() * source_dtype.size_bytes();
    if source.len() != expected {
        return Err(Error::Length { op: OP, got: source.len(), expected, unit: "bytes" });
    }
    match stream {
        Stream::Cpu(stream) => {
            transfer::copy_from_checkpoint(stream.cpu(), source, source_dtype, target)
        }
        Stream::Cuda(stream) => {
            target.as_view().check_device(OP, "target", stream.any_device())?;
            cuda::copy_from_checkpoint(stream, source, source_dtype, target)?;
        }
    }
    Ok(())
}
