//! Matrix multiplication with a weight matrix, without packing.
//!
//! Never knows: how many rows the caller batches; see the invariant.
//!
//! Both matrices are stored along `k`, so an output element is a dot product of two contiguous
//! rows. One decode token reads each weight once, straight from memory; many tokens reuse a strip
//! of weight rows from the nearest cache while the next strip is fetched.
//!
//! **Invariant:** an output element has the same bits whatever `m`, `n` and the tiling are: `k` is
//! cut into blocks of fixed size, each block is a dot product as [`dot`] defines it, and the blocks
//! are added in ascending order.

use half::bf16;

use super::CpuDevice;
use super::dot;
use super::simd::{Kernel, Operand, Simd};
use crate::dtype::Float;
use crate::rows::{Rows, RowsMut};
use crate::{DType, View, ViewMut};

/// Bytes of each row per block of `k`. A strip of weights of this length stays in the L1 cache
/// beside the rows of `x` it meets. Part of the definition of a result's bits.
const BLOCK_BYTES: usize = 4096;

/// Weight rows per strip.
const STRIP: usize = 4;

/// Weight rows per part of the work.
const MAX_COLUMNS: usize = 64;

/// Rows of `x` per part: as many as leave room for the weights in the L2 cache.
const X_BYTES: usize = 512 << 10;
const MAX_ROWS: usize = 64;

pub(crate) fn gemm(
    cpu: &CpuDevice,
    x: View<'_>,
    w: View<'_>,
    bias: Option<View<'_>>,
    out: ViewMut<'_>,
) {
    match (x.dtype(), out.dtype()) {
        (DType::Bf16, DType::Bf16) => typed::<bf16, bf16>(cpu, x, w, bias, out),
        (DType::Bf16, _) => typed::<bf16, f32>(cpu, x, w, bias, out),
        _ => typed::<f32, f32>(cpu, x, w, bias, out),
    }
}

fn typed<T: Operand, O: Float>(
    cpu: &CpuDevice,
    x: View<'_>,
    w: View<'_>,
    bias: Option<View<'_>>,
    out: ViewMut<'_>,
) {
    let bias = bias.map(|bias| bias.host_slice());
    let problem = Problem::<T> { x: x.host_rows(), w: w.host_rows(), bias };
    let out = out.host_rows::<O>();
    // A weight costs its bytes once, and its products with every row of `x`.
    let weight_cost = size_of::<T>() + out.num_rows();
    let cpu = cpu.for_cost(out.row_len().saturating_mul(problem.w.row_len() * weight_cost / 16));
    cpu.run(|| problem.divide(&cpu, 0, 0, out));
}

pub(super) struct Problem<'a, T> {
    pub(super) x: Rows<'a, T>,
    pub(super) w: Rows<'a, T>,
    pub(super) bias: Option<&'a [T]>,
}

impl<T: Operand> Problem<'_, T> {
    /// Computes the part `out` of the output, whose first element is `[row, column]`.
    pub(super) fn divide<O: Float>(
        &self,
        cpu: &CpuDevice,
        row: usize,
        column: usize,
        out: RowsMut<'_, O>,
    ) {
        let (num_rows, num_columns) = (out.num_rows(), out.row_len());
        let row_bytes = self.x.row_len() * size_of::<T>();
        let max_rows = (X_BYTES / row_bytes.max(1)).clamp(4, MAX_ROWS);
        if num_columns > MAX_COLUMNS {
            let half = num_columns.div_ceil(MAX_COLUMNS) / 2 * MAX_COLUMNS;
            let (left, right) = out.split_at_column(half);
            cpu.join(
                || self.divide(cpu, row, column, left),
                || self.divide(cpu, row, column + half, right),
            );
        } else if num_rows > max_rows {
            let half = num_rows.div_ceil(max_rows) / 2 * max_rows;
            let (upper, lower) = out.split_at_row(half);
            cpu.join(
                || self.divide(cpu, row, column, upper),
                || self.divide(cpu, row + half, column, lower),
            );
        } else {
            cpu.isa().run(Part { problem: self, row, column, out });
        }
    }
}

/// A part of the output.
struct Part<'a, T, O> {
    problem: &'a Problem<'a, T>,
    row: usize,
    column: usize,
    out: RowsMut<'a, O>,
}

impl<T: Operand, O: Float> Kernel for Part<'_, T, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let num_columns = self.out.row_len();
        let mut n = 0;
        // A single row of `x` is bound by memory, which is read fastest as one sequence.
        while self.out.num_rows() > 1 && n + STRIP <= num_columns {
            if S::MANY_REGISTERS {
                self.strip::<S, STRIP>(simd, n);
            } else {
                self.strip::<S, 2>(simd, n);
                self.strip::<S, 2>(simd, n + 2);
            }
            n += STRIP;
        }
        for n in n..num_columns {
            self.strip::<S, 1>(simd, n);
        }
    }
}

impl<T: Operand, O: Float> Part<'_, T, O> {
    /// Columns `n..n + N` of the part.
    #[inline(always)]
    fn strip<S: Simd, const N: usize>(&mut self, simd: S, n: usize) {
        let num_rows = self.out.num_rows();
        let column = self.column + n;
        let k = self.problem.w.row_len();
        let block_len = BLOCK_BYTES / size_of::<T>();
        let mut sums = [[0f32; N]; MAX_ROWS];
        for start in (0..k).step_by(block_len) {
            let end = k.min(start + block_len);
            let w_block: [&[T]; N] = self.problem.w.block(column, start..end);
            let next = self.next_block::<N>(column, end, block_len);
            // What is next is fetched by the first two tiles of four rows, or by the only one.
            let share = if num_rows > 4 { N / 2 } else { N };
            let mut m = 0;
            while m < num_rows {
                let mut ahead: [&[T]; N] = [&[]; N];
                let range = N.min(m / 4 * share)..N.min((m / 4 + 1) * share);
                ahead[range.clone()].copy_from_slice(&next[range]);
                let sums = &mut sums[m..];
                if S::MANY_REGISTERS && m + 4 <= num_rows {
                    self.tile::<S, 4, N>(simd, m, start, w_block, ahead, sums);
                    m += 4;
                } else if m + 2 <= num_rows {
                    self.tile::<S, 2, N>(simd, m, start, w_block, ahead, sums);
                    m += 2;
                } else {
                    self.tile::<S, 1, N>(simd, m, start, w_block, ahead, sums);
                    m += 1;
                }
            }
        }
        let mut bias = [0f32; N];
        if let Some(all) = self.problem.bias {
            for (bias, value) in bias.iter_mut().zip(&all[column..]) {
                *bias = value.to_f32();
            }
        }
        for (m, sums) in sums.iter().take(num_rows).enumerate() {
            let out = &mut self.out.row_mut(m)[n..n + N];
            for ((out, sum), bias) in out.iter_mut().zip(sums).zip(bias) {
                *out = O::from_f32(sum + bias);
            }
        }
    }

    /// What the strip at `column` reads after column `end` of its weights: its next block, or the
    /// first block of the next strip. Nothing if there is none, or if `x` has a single row: then
    /// the weights are one sequence, which the hardware foresees.
    #[inline(always)]
    fn next_block<const N: usize>(&self, column: usize, end: usize, block_len: usize) -> [&[T]; N] {
        let w = self.problem.w;
        let k = w.row_len();
        let (column, start) = if end < k { (column, end) } else { (column + N, 0) };
        if self.out.num_rows() == 1 || column + N > w.num_rows() {
            return [&[]; N];
        }
        w.block(column, start..k.min(start + block_len))
    }

    /// Adds the products of rows `m..m + M` with a block of weights to their sums.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(
        &self,
        simd: S,
        m: usize,
        start: usize,
        w_block: [&[T]; N],
        ahead: [&[T]; N],
        sums: &mut [[f32; N]],
    ) {
        let end = start + w_block[0].len();
        let x_block: [&[T]; M] = self.problem.x.block(self.row + m, start..end);
        let products = dot::tile(simd, x_block, w_block, &[ahead]);
        for (sums, products) in sums.iter_mut().zip(products) {
            for (sum, product) in sums.iter_mut().zip(products) {
                *sum += product;
            }
        }
    }
}
