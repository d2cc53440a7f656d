//! Vectors as arrays: plain Rust that the compiler vectorizes with what the architecture has.
//!
//! Never knows: any particular CPU.

use half::bf16;

use super::{LANES, Simd};

/// Works everywhere.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Simd for Portable {
    type F32 = [f32; LANES];
    type Bf16Pairs = [u32; LANES];
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, source: &[f32; LANES]) -> Self::F32 {
        *source
    }

    #[inline(always)]
    fn load_bf16(self, source: &[bf16; LANES]) -> Self::F32 {
        source.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16))
    }

    #[inline(always)]
    fn load_bf16_pairs(self, source: &[bf16; 2 * LANES]) -> Self::Bf16Pairs {
        let mut pairs = [0; LANES];
        for (pair, elements) in pairs.iter_mut().zip(source.as_chunks::<2>().0) {
            *pair = u32::from(elements[0].to_bits()) | (u32::from(elements[1].to_bits()) << 16);
        }
        pairs
    }

    #[inline(always)]
    fn store(self, value: Self::F32, target: &mut [f32; LANES]) {
        *target = value;
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, mut c: Self::F32) -> Self::F32 {
        for i in 0..LANES {
            c[i] += a[i] * b[i];
        }
        c
    }

    #[inline(always)]
    fn dot_pairs(self, a: Self::Bf16Pairs, b: Self::Bf16Pairs, mut c: Self::F32) -> Self::F32 {
        for i in 0..LANES {
            c[i] += f32::from_bits(a[i] << 16) * f32::from_bits(b[i] << 16);
            c[i] += f32::from_bits(a[i] & 0xffff_0000) * f32::from_bits(b[i] & 0xffff_0000);
        }
        c
    }

    #[inline(always)]
    fn reduce_add(self, mut value: Self::F32) -> f32 {
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                value[i] += value[i + half];
            }
            half /= 2;
        }
        value[0]
    }

    #[inline(always)]
    fn prefetch<T>(self, _value: &T) {}

    /// Not fused: without the instruction, `f32::mul_add` is a slow library call.
    #[inline(always)]
    fn mul_add_scalar(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}
