//! Instruction sets, and how one source becomes code for each of them.
//!
//! Never knows: ops. A [`Kernel`] is generic code over [`Simd`]; [`Isa::run`] compiles it once per
//! instruction set, in a function with that set's features enabled, and picks one at run time.
//! Everything a kernel calls on its hot path is `#[inline(always)]`, so that it lands inside that
//! function; plain loops in it are vectorized by the compiler with the same features.

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector intrinsics")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector intrinsics")]
mod avx512;
mod portable;

use std::fmt;

use half::bf16;

use crate::dtype::Float;

/// Lanes of a vector of f32, on every instruction set. Sums over a row are kept per lane, so this
/// number is part of the definition of a result's bits.
pub(crate) const LANES: usize = 16;

/// Vector operations on [`LANES`] lanes.
///
/// A value of an implementor is a proof that the CPU has its instructions: only [`Isa::run`]
/// makes them.
pub(crate) trait Simd: Copy {
    /// [`LANES`] lanes of f32.
    type F32: Copy;
    /// Twice as many bf16, in pairs: lane `i` holds elements `2i` and `2i + 1`.
    type Bf16Pairs: Copy;
    /// Whether 16 sums fit in registers beside their operands; else 4.
    const MANY_REGISTERS: bool;

    fn splat(self, value: f32) -> Self::F32;
    fn load(self, source: &[f32; LANES]) -> Self::F32;
    /// Exact widening.
    fn load_bf16(self, source: &[bf16; LANES]) -> Self::F32;
    fn load_bf16_pairs(self, source: &[bf16; 2 * LANES]) -> Self::Bf16Pairs;
    fn store(self, value: Self::F32, target: &mut [f32; LANES]);
    /// `a · b + c` per lane, fused if the instruction set has it.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `c` plus both products of each pair.
    fn dot_pairs(self, a: Self::Bf16Pairs, b: Self::Bf16Pairs, c: Self::F32) -> Self::F32;
    /// The sum of all lanes: each time the upper half is added to the lower half.
    fn reduce_add(self, value: Self::F32) -> f32;
    /// [`Simd::reduce_add`] of each.
    #[inline(always)]
    fn reduce_add_16(self, values: [[Self::F32; 4]; 4]) -> [[f32; 4]; 4] {
        let mut sums = [[0.0; 4]; 4];
        for (sums, values) in sums.iter_mut().zip(values) {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = self.reduce_add(value);
            }
        }
        sums
    }
    /// Asks for the cache line of `value` to be brought close. Only a hint.
    fn prefetch<T>(self, value: &T);
    /// One lane of [`Simd::mul_add`], for loops that the compiler vectorizes.
    fn mul_add_scalar(self, a: f32, b: f32, c: f32) -> f32;
}

/// What dot products read: an element type together with how many of its elements fill a vector.
pub(crate) trait Operand: Float {
    /// Elements per vector step.
    type Step: Copy;
    /// A loaded step.
    type Vector<S: Simd>: Copy;

    /// Whole steps, and what is left.
    fn steps(row: &[Self]) -> (&[Self::Step], &[Self]);
    /// A step of the elements of `tail`, then zeros.
    fn padded(tail: &[Self]) -> Self::Step;
    fn load<S: Simd>(simd: S, step: &Self::Step) -> Self::Vector<S>;
    /// `c + a · b`, summed into lanes.
    fn dot<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: S::F32) -> S::F32;
    /// [`LANES`] elements widened to f32.
    fn load_lanes<S: Simd>(simd: S, lanes: &[Self; LANES]) -> S::F32;
}

impl Operand for f32 {
    type Step = [f32; LANES];
    type Vector<S: Simd> = S::F32;

    #[inline(always)]
    fn steps(row: &[Self]) -> (&[Self::Step], &[Self]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn padded(tail: &[Self]) -> Self::Step {
        let mut step = [0.0; LANES];
        step[..tail.len()].copy_from_slice(tail);
        step
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, step: &Self::Step) -> S::F32 {
        simd.load(step)
    }

    #[inline(always)]
    fn dot<S: Simd>(simd: S, a: S::F32, b: S::F32, c: S::F32) -> S::F32 {
        simd.mul_add(a, b, c)
    }

    #[inline(always)]
    fn load_lanes<S: Simd>(simd: S, lanes: &[Self; LANES]) -> S::F32 {
        simd.load(lanes)
    }
}

impl Operand for bf16 {
    type Step = [bf16; 2 * LANES];
    type Vector<S: Simd> = S::Bf16Pairs;

    #[inline(always)]
    fn steps(row: &[Self]) -> (&[Self::Step], &[Self]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn padded(tail: &[Self]) -> Self::Step {
        let mut step = [bf16::ZERO; 2 * LANES];
        step[..tail.len()].copy_from_slice(tail);
        step
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, step: &Self::Step) -> S::Bf16Pairs {
        simd.load_bf16_pairs(step)
    }

    #[inline(always)]
    fn dot<S: Simd>(simd: S, a: S::Bf16Pairs, b: S::Bf16Pairs, c: S::F32) -> S::F32 {
        simd.dot_pairs(a, b, c)
    }

    #[inline(always)]
    fn load_lanes<S: Simd>(simd: S, lanes: &[Self; LANES]) -> S::F32 {
        simd.load_bf16(lanes)
    }
}

/// Code that can be compiled for any instruction set.
pub(crate) trait Kernel {
    /// Its result.
    type Output;

    /// The work. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// A set of vector instructions of the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InstructionSet {
    /// What every CPU of the architecture has.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// As [`InstructionSet::Avx512`], with the bf16 dot product.
    Avx512Bf16,
}

impl InstructionSet {
    /// All of them, the best last.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// The best one this CPU has.
    pub fn detect() -> Self {
        Self::ALL.into_iter().rev().find(|set| set.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether this CPU has it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = || {
            avx2()
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        };
        match self {
            Self::Portable => true,
            Self::Avx2 => avx2(),
            Self::Avx512 => avx512(),
            Self::Avx512Bf16 => avx512() && is_x86_feature_detected!("avx512bf16"),
        }
    }

    /// Whether this CPU has it.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        self == Self::Portable
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
        })
    }
}

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Isa(InstructionSet);

impl Isa {
    /// `None` if this CPU does not have `set`.
    pub(crate) fn new(set: InstructionSet) -> Option<Self> {
        set.is_available().then_some(Self(set))
    }

    pub(crate) fn set(self) -> InstructionSet {
        self.0
    }

    /// Runs the version of `kernel` for this instruction set.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            InstructionSet::Portable => kernel.run(portable::Portable),
            InstructionSet::Avx2 => avx2::run(self, kernel),
            InstructionSet::Avx512 | InstructionSet::Avx512Bf16 => avx512::run(self, kernel),
        }
    }

    /// Runs the version of `kernel` for this instruction set.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(portable::Portable)
    }
}
