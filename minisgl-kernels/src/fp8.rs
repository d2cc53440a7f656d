//! An 8-bit float: OCP OFP8 E4M3, four bits of exponent (bias 7) and three of mantissa, with
//! subnormals and without infinities. Its largest number is 448.
//!
//! Never knows: scales; those who store numbers of other magnitudes keep them beside.

use crate::dtype::Float;

/// One number in OCP OFP8 E4M3, as PyTorch's `float8_e4m3fn`. Kept as its bits, which compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct F8E4M3(u8);

impl F8E4M3 {
    /// The largest number.
    pub const MAX: f32 = 448.0;

    /// The one NaN that [`F8E4M3::from_f32`] makes.
    pub const NAN: Self = Self(0x7f);

    /// The number with these bits.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub const fn to_bits(self) -> u8 {
        self.0
    }

    /// Rounded to nearest, ties to even; what is beyond the largest number, infinities too, becomes
    /// that. NaN becomes [`F8E4M3::NAN`].
    ///
    /// Branch-free, so that a loop over it becomes vector code.
    #[inline(always)]
    pub fn from_f32(value: f32) -> Self {
        let sign = (value.to_bits() >> 24) & 0x80;
        let magnitude = value.abs();
        let magnitude = if magnitude > Self::MAX { Self::MAX } else { magnitude };
        let bits = magnitude.to_bits();
        // As `bf16::from_f32`, with 20 bits dropped; then from f32's exponents to these.
        let normal =
            (bits.wrapping_add(0x7_ffff + ((bits >> 20) & 1)) >> 20).wrapping_sub(120 << 3);
        // Below the smallest normal number steps are 2⁻⁹ wide, as those of f32 are at 2¹⁴: adding that
        // rounds. Eight steps are the smallest normal number, in bits too.
        const ROUNDER: f32 = 16384.0;
        let subnormal = (magnitude + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits());
        let number = if magnitude < 0.015_625 { subnormal } else { normal };
        let bits = if value.is_nan() { 0x7f } else { number | sign };
        Self(bits as u8)
    }

    /// Exact. Branch-free as well.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        let magnitude = u32::from(self.0 & 0x7f);
        let is_subnormal = magnitude < 8;
        // A subnormal number is read with the smallest normal exponent, as if it had a leading one,
        // which is taken away again.
        let exponents = if is_subnormal { 121 << 23 } else { 120 << 23 };
        let leading = if is_subnormal { 0.015_625 } else { 0.0 };
        let number = f32::from_bits((magnitude << 20) + exponents) - leading;
        let number = if magnitude == 0x7f { f32::NAN } else { number };
        f32::from_bits(number.to_bits() | (u32::from(self.0 & 0x80) << 24))
    }
}

impl Float for F8E4M3 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }
}

#[cfg(test)]
mod tests;
