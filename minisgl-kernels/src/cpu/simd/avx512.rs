//! AVX-512: a vector is one 512-bit register.
//!
//! Never knows: ops.

use std::arch::x86_64::*;

use half::bf16;

use super::avx2::reduce_eight;
use super::{InstructionSet, Isa, Kernel, LANES, Simd};

/// Exists only inside [`run`], so only where the CPU has AVX-512 F, BW, DQ and VL, and BF16 if
/// `DOT` says so. Every intrinsic below needs no more than that, and every load or store stays
/// inside the array it is given.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const DOT: bool>(());

pub(super) fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa.set() {
        // SAFETY: an `Isa` exists only for instruction sets that the CPU has.
        InstructionSet::Avx512Bf16 => unsafe { with_bf16(kernel) },
        set => {
            assert_eq!(set, InstructionSet::Avx512);
            // SAFETY: as above.
            unsafe { without_bf16(kernel) }
        }
    }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn with_bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<true>(()))
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
fn without_bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<false>(()))
}

impl<const DOT: bool> Simd for Avx512<DOT> {
    type F32 = __m512;
    type Bf16Pairs = __m512i;
    const MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        // SAFETY: see `Avx512`.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, source: &[f32; LANES]) -> Self::F32 {
        // SAFETY: see `Avx512`.
        unsafe { _mm512_loadu_ps(source.as_ptr()) }
    }

    #[inline(always)]
    fn load_bf16(self, source: &[bf16; LANES]) -> Self::F32 {
        // SAFETY: see `Avx512`.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(source.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    fn load_bf16_pairs(self, source: &[bf16; 2 * LANES]) -> Self::Bf16Pairs {
        // SAFETY: see `Avx512`.
        unsafe { _mm512_loadu_si512(source.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, value: Self::F32, target: &mut [f32; LANES]) {
        // SAFETY: see `Avx512`.
        unsafe { _mm512_storeu_ps(target.as_mut_ptr(), value) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // SAFETY: see `Avx512`.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn dot_pairs(self, a: Self::Bf16Pairs, b: Self::Bf16Pairs, c: Self::F32) -> Self::F32 {
        if DOT {
            // SAFETY: see `Avx512`; `__m512i` and `__m512bh` are both 512 plain bits.
            return unsafe {
                let a = std::mem::transmute::<__m512i, __m512bh>(a);
                let b = std::mem::transmute::<__m512i, __m512bh>(b);
                _mm512_dpbf16_ps(c, a, b)
            };
        }
        let c = self.mul_add(even(a), even(b), c);
        self.mul_add(odd(a), odd(b), c)
    }

    #[inline(always)]
    fn reduce_add(self, value: Self::F32) -> f32 {
        // SAFETY: see `Avx512`.
        unsafe {
            let upper = _mm512_extractf32x8_ps::<1>(value);
            reduce_eight(_mm256_add_ps(_mm512_castps512_ps256(value), upper))
        }
    }

    /// Each level adds the halves of two vectors into one, so all share the shuffles; the order of
    /// the additions is that of `reduce_add`.
    #[inline(always)]
    fn reduce_add_16(self, values: [[Self::F32; 4]; 4]) -> [[f32; 4]; 4] {
        let [a, b, c, d] = values;
        // SAFETY: see `Avx512`.
        let sums = unsafe {
            // Quarter i of column j holds the sum of value [i][j], in four parts.
            let column0 = add_quarters(add_halves(a[0], b[0]), add_halves(c[0], d[0]));
            let column1 = add_quarters(add_halves(a[1], b[1]), add_halves(c[1], d[1]));
            let column2 = add_quarters(add_halves(a[2], b[2]), add_halves(c[2], d[2]));
            let column3 = add_quarters(add_halves(a[3], b[3]), add_halves(c[3], d[3]));
            add_neighbours(add_pairs(column0, column1), add_pairs(column2, column3))
        };
        let mut lanes = [0.0; LANES];
        self.store(sums, &mut lanes);
        let mut rows = [[0.0; 4]; 4];
        rows.as_flattened_mut().copy_from_slice(&lanes);
        rows
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

/// Lanes `i` and `i + 8`: of `a` into the lower half, of `b` into the upper.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_halves(a: __m512, b: __m512) -> __m512 {
    let lower = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
    _mm512_add_ps(lower, _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b))
}

/// Lanes `i` and `i + 4` of each half: of `a` into the lower two quarters, of `b` into the upper.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_quarters(a: __m512, b: __m512) -> __m512 {
    let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
    _mm512_add_ps(even, _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b))
}

/// Lanes `i` and `i + 2` of each quarter: of `a` into its lower pair, of `b` into its upper.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_pairs(a: __m512, b: __m512) -> __m512 {
    let lower = _mm512_shuffle_ps::<0b01_00_01_00>(a, b);
    _mm512_add_ps(lower, _mm512_shuffle_ps::<0b11_10_11_10>(a, b))
}

/// Neighbouring lanes: of `a` into the lower pair of each quarter, of `b` into the upper.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_neighbours(a: __m512, b: __m512) -> __m512 {
    let even = _mm512_shuffle_ps::<0b10_00_10_00>(a, b);
    _mm512_add_ps(even, _mm512_shuffle_ps::<0b11_01_11_01>(a, b))
}

/// The even elements of pairs of bf16, widened.
#[inline(always)]
fn even(pairs: __m512i) -> __m512 {
    // SAFETY: see `Avx512`, the only user.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)) }
}

/// The odd elements of pairs of bf16, widened.
#[inline(always)]
fn odd(pairs: __m512i) -> __m512 {
    // SAFETY: see `Avx512`, the only user.
    unsafe {
        let upper = _mm512_set1_epi32(0xffff_0000u32 as i32);
        _mm512_castsi512_ps(_mm512_and_si512(pairs, upper))
    }
}
