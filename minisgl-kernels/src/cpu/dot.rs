//! Dot products of rows, a register tile at a time: the core of matrix multiplication, of
//! attention scores and of norms.
//!
//! Never knows: what the rows are.
//!
//! **Invariant:** a dot product has the same bits whatever tile it is computed in. Its terms are
//! summed into [`LANES`](super::simd::LANES) lanes, term `i` of f32 into lane `i mod 16` and of
//! bf16 into lane `i / 2 mod 16`, in ascending order, and the lanes are then summed by halving.

use super::simd::{Operand, Simd};

/// All dot products of `M` rows with `N` rows, all of the same length.
///
/// While it computes, it asks for the cache lines of the rows `ahead`, which will be wanted soon:
/// `A` lists of `P` rows.
#[inline(always)]
pub(super) fn tile<
    S: Simd,
    T: Operand,
    const M: usize,
    const N: usize,
    const P: usize,
    const A: usize,
>(
    simd: S,
    x: [&[T]; M],
    w: [&[T]; N],
    ahead: &[[&[T]; P]; A],
) -> [[f32; N]; M] {
    let (x_steps, x_tails) = split(x);
    let (w_steps, w_tails) = split(w);

    let mut sums = [[simd.splat(0.0); N]; M];
    for i in 0..w_steps[0].len() {
        for row in ahead.as_flattened() {
            if let Some(step) = T::steps(row).0.get(i) {
                simd.prefetch(step);
            }
        }
        let mut x_vectors = [T::load(simd, &x_steps[0][i]); M];
        for m in 1..M {
            x_vectors[m] = T::load(simd, &x_steps[m][i]);
        }
        for n in 0..N {
            let w_vector = T::load(simd, &w_steps[n][i]);
            for m in 0..M {
                sums[m][n] = T::dot(simd, x_vectors[m], w_vector, sums[m][n]);
            }
        }
    }
    if w_tails[0].is_empty() {
        return reduce(simd, sums);
    }
    for n in 0..N {
        let w_vector = T::load(simd, &T::padded(w_tails[n]));
        for m in 0..M {
            let x_vector = T::load(simd, &T::padded(x_tails[m]));
            sums[m][n] = T::dot(simd, x_vector, w_vector, sums[m][n]);
        }
    }
    reduce(simd, sums)
}

/// The sum of the lanes of each vector.
#[inline(always)]
fn reduce<S: Simd, const M: usize, const N: usize>(
    simd: S,
    sums: [[S::F32; N]; M],
) -> [[f32; N]; M] {
    let mut out = [[0.0; N]; M];
    if M == 4 && N == 4 {
        // Sixteen at once share their shuffles.
        let mut square = [[simd.splat(0.0); 4]; 4];
        for (square, sums) in square.iter_mut().zip(&sums) {
            square.copy_from_slice(sums);
        }
        for (out, sums) in out.iter_mut().zip(simd.reduce_add_16(square)) {
            out.copy_from_slice(&sums);
        }
    } else {
        for m in 0..M {
            for n in 0..N {
                out[m][n] = simd.reduce_add(sums[m][n]);
            }
        }
    }
    out
}

/// Whole steps and tails of each row.
#[inline(always)]
fn split<T: Operand, const R: usize>(rows: [&[T]; R]) -> ([&[T::Step]; R], [&[T]; R]) {
    let (mut steps, mut tails): ([&[T::Step]; R], [&[T]; R]) = ([&[]; R], [&[]; R]);
    for r in 0..R {
        (steps[r], tails[r]) = T::steps(rows[r]);
    }
    (steps, tails)
}
