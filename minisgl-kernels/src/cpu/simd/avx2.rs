//! AVX2 with FMA: a vector is two 256-bit registers, lanes 0 to 7 and lanes 8 to 15.
//!
//! Never knows: ops.

use std::arch::x86_64::*;

use half::bf16;

use super::{InstructionSet, Isa, Kernel, LANES, Simd};

/// Exists only inside [`run`], so only where the CPU has AVX2 and FMA. Every intrinsic below needs
/// no more than that, and every load or store stays inside the array it is given.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

pub(super) fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    assert_eq!(isa.set(), InstructionSet::Avx2);
    // SAFETY: an `Isa` exists only for instruction sets that the CPU has.
    unsafe { with_features(kernel) }
}

#[target_feature(enable = "avx2,fma")]
fn with_features<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

impl Simd for Avx2 {
    type F32 = [__m256; 2];
    type Bf16Pairs = [__m256i; 2];
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        // SAFETY: see `Avx2`.
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    fn load(self, source: &[f32; LANES]) -> Self::F32 {
        let (low, high) = source.split_at(8);
        // SAFETY: see `Avx2`.
        unsafe { [_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr())] }
    }

    #[inline(always)]
    fn load_bf16(self, source: &[bf16; LANES]) -> Self::F32 {
        let (low, high) = source.split_at(8);
        // SAFETY: see `Avx2`.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(low.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(high.as_ptr().cast()));
            [even(low), even(high)]
        }
    }

    #[inline(always)]
    fn load_bf16_pairs(self, source: &[bf16; 2 * LANES]) -> Self::Bf16Pairs {
        let (low, high) = source.split_at(LANES);
        // SAFETY: see `Avx2`.
        unsafe {
            let low = _mm256_loadu_si256(low.as_ptr().cast());
            [low, _mm256_loadu_si256(high.as_ptr().cast())]
        }
    }

    #[inline(always)]
    fn store(self, value: Self::F32, target: &mut [f32; LANES]) {
        let (low, high) = target.split_at_mut(8);
        // SAFETY: see `Avx2`.
        unsafe {
            _mm256_storeu_ps(low.as_mut_ptr(), value[0]);
            _mm256_storeu_ps(high.as_mut_ptr(), value[1]);
        }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // SAFETY: see `Avx2`.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn dot_pairs(self, a: Self::Bf16Pairs, b: Self::Bf16Pairs, c: Self::F32) -> Self::F32 {
        let c = self.mul_add([even(a[0]), even(a[1])], [even(b[0]), even(b[1])], c);
        self.mul_add([odd(a[0]), odd(a[1])], [odd(b[0]), odd(b[1])], c)
    }

    #[inline(always)]
    fn reduce_add(self, value: Self::F32) -> f32 {
        // SAFETY: see `Avx2`.
        let eight = unsafe { _mm256_add_ps(value[0], value[1]) };
        // SAFETY: see `Avx2`.
        unsafe { reduce_eight(eight) }
    }

    #[inline(always)]
    fn prefetch<T>(self, value: &T) {
        // SAFETY: every x86-64 CPU has it, and a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(value).cast()) }
    }

    #[inline(always)]
    fn mul_add_scalar(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

/// The even elements of pairs of bf16, widened.
#[inline(always)]
fn even(pairs: __m256i) -> __m256 {
    // SAFETY: see `Avx2`, the only user.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)) }
}

/// The odd elements of pairs of bf16, widened.
#[inline(always)]
fn odd(pairs: __m256i) -> __m256 {
    // SAFETY: see `Avx2`, the only user.
    unsafe {
        _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000u32 as i32)))
    }
}

/// The sum of eight lanes, halving.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn reduce_eight(eight: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}
