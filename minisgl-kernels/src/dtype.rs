//! Element types of tensors, and the Rust types they are on the host.
//!
//! Never knows: which element type a model or an op wants.

use std::fmt;

use half::bf16;

use crate::F8E4M3;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// bfloat16: the upper half of an IEEE 754 binary32.
    Bf16,
    /// OCP OFP8 E4M3: see [`F8E4M3`]. Only the ops that say so take it.
    F8E4M3,
    /// Signed 32-bit integer: token ids, positions, slots, page numbers.
    I32,
    /// Unsigned 64-bit integer: random seeds.
    U64,
}

impl DType {
    /// Size of one element, in bytes.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F8E4M3 => 1,
            Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::U64 => 8,
        }
    }

    /// The name that PyTorch and Hugging Face configs use, such as `"bfloat16"`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F8E4M3 => "float8_e4m3fn",
            Self::I32 => "int32",
            Self::U64 => "uint64",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that is the host form of a [`DType`]: `f32`, [`bf16`], [`F8E4M3`], `i32` or `u64`.
pub trait HostElement:
    Copy + Default + PartialEq + fmt::Debug + Send + Sync + sealed::Plain
{
    /// The dtype of a tensor of these.
    const DTYPE: DType;
}

impl HostElement for f32 {
    const DTYPE: DType = DType::F32;
}

impl HostElement for bf16 {
    const DTYPE: DType = DType::Bf16;
}

impl HostElement for F8E4M3 {
    const DTYPE: DType = DType::F8E4M3;
}

impl HostElement for i32 {
    const DTYPE: DType = DType::I32;
}

impl HostElement for u64 {
    const DTYPE: DType = DType::U64;
}

/// An element type the float ops are written for; they compute in f32.
pub(crate) trait Float: HostElement {
    /// Exact.
    fn to_f32(self) -> f32;
    /// Rounds to nearest, ties to even.
    fn from_f32(value: f32) -> Self;
}

impl Float for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Float for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Branch-free, so that a loop over it becomes vector code.
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        // Adding 0x7fff, plus one if the kept part is odd, carries exactly when the dropped half
        // is above the middle, or on it with an odd kept part: round to nearest, ties to even.
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // A NaN could carry into infinity or zero; keep its sign and make it quiet.
        let quiet_nan = (bits >> 16) | 0x0040;
        Self::from_bits(if value.is_nan() { quiet_nan } else { rounded } as u16)
    }
}

mod sealed {
    /// Any bit pattern is a value and there is no padding, so a zeroed buffer is a valid slice.
    pub trait Plain: 'static {}
    impl Plain for f32 {}
    impl Plain for half::bf16 {}
    impl Plain for crate::F8E4M3 {}
    impl Plain for i32 {}
    impl Plain for u64 {}
}

#[cfg(test)]
mod tests;
