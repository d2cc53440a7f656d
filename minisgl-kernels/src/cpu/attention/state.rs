//! What is known of some query rows after some blocks of keys: the online softmax.
//!
//! Never knows: where keys and values are stored.
//!
//! A block's weights are relative to the block's own largest score, and merging rescales them
//! (Milakov and Gimelshein, 2018; FlashAttention, Dao et al., 2022).

use std::ops::Range;

use super::BLOCK;
use crate::cpu::math::exp;
use crate::cpu::simd::{LANES, Operand, Simd};

/// The state of each query row (a query head of a token), and room for the block at hand.
pub(super) struct State {
    head_dim: usize,
    /// Largest score so far; -inf before the first block.
    max: Vec<f32>,
    /// Sum of the weights so far, relative to `max`.
    sum: Vec<f32>,
    /// `[rows, d]`: weighted sum of values so far, relative to `max`.
    acc: Vec<f32>,
    /// The positions of the block that each row sees, counted from the block's start.
    pub(super) visible: Vec<Range<usize>>,
    /// `[rows]`: scores of the block, then weights.
    pub(super) weights: Vec<[f32; BLOCK]>,
    /// `[rows, d]`: weighted sum of the block's values, relative to the block's largest score.
    block_acc: Vec<f32>,
}

/// The softmax of one row over one block.
#[derive(Clone, Copy, Default)]
pub(super) struct BlockSoftmax {
    max: f32,
    sum: f32,
}

impl State {
    pub(super) fn new(num_rows: usize, head_dim: usize) -> Self {
        Self {
            head_dim,
            max: vec![0.0; num_rows],
            sum: vec![0.0; num_rows],
            acc: vec![0.0; num_rows * head_dim],
            visible: vec![0..0; num_rows],
            weights: vec![[0.0; BLOCK]; num_rows],
            block_acc: vec![0.0; num_rows * head_dim],
        }
    }

    /// Before the first block.
    pub(super) fn reset(&mut self) {
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        self.acc.fill(0.0);
    }

    /// Before each block.
    pub(super) fn start_block(&mut self) {
        self.block_acc.fill(0.0);
    }

    /// Turns a row's visible scores into weights, all others into 0.
    #[inline(always)]
    pub(super) fn softmax<S: Simd>(&mut self, simd: S, row: usize, scale: f32) -> BlockSoftmax {
        let weights = &mut self.weights[row];
        let Range { start, end } = self.visible[row].clone();
        for score in weights.iter_mut() {
            *score *= scale;
        }
        weights[..start].fill(f32::NEG_INFINITY);
        weights[end..].fill(f32::NEG_INFINITY);

        let mut maxima = [f32::NEG_INFINITY; LANES];
        for step in weights.as_chunks::<LANES>().0 {
            for (max, &score) in maxima.iter_mut().zip(step) {
                *max = if score > *max { score } else { *max };
            }
        }
        let larger = |a: f32, &b: &f32| if b > a { b } else { a };
        let max = maxima.iter().fold(f32::NEG_INFINITY, larger);

        let mut sums = [0f32; LANES];
        for step in weights.as_chunks_mut::<LANES>().0 {
            for (sum, weight) in sums.iter_mut().zip(step) {
                *weight = exp(simd, *weight - max);
                *sum += *weight;
            }
        }
        BlockSoftmax { max, sum: simd.reduce_add(simd.load(&sums)) }
    }

    /// Adds the weighted values of the positions `seen` of the block to the rows `row..row + M`.
    #[inline(always)]
    pub(super) fn add_values<S: Simd, T: Operand, const M: usize>(
        &mut self,
        simd: S,
        row: usize,
        values: &[&[T]; BLOCK],
        seen: Range<usize>,
    ) {
        if seen.is_empty() {
            return;
        }
        let mut column = 0;
        while column < self.head_dim {
            if column + 4 * LANES <= self.head_dim {
                self.add_columns::<S, T, M, 4>(simd, row, values, seen.clone(), column);
                column += 4 * LANES;
            } else if column + LANES <= self.head_dim {
                self.add_columns::<S, T, M, 1>(simd, row, values, seen.clone(), column);
                column += LANES;
            } else {
                self.add_column::<S, T, M>(simd, row, values, seen.clone(), column);
                column += 1;
            }
        }
    }

    /// [`State::add_values`] in the columns from `column` on that fill `C` vectors.
    #[expect(clippy::needless_range_loop, reason = "a register tile is indexed by row and column")]
    #[inline(always)]
    fn add_columns<S: Simd, T: Operand, const M: usize, const C: usize>(
        &mut self,
        simd: S,
        row: usize,
        values: &[&[T]; BLOCK],
        seen: Range<usize>,
        column: usize,
    ) {
        let Self { weights, block_acc, head_dim, .. } = self;
        let at = |m: usize, c: usize| (row + m) * *head_dim + column + c * LANES;
        let mut acc = [[simd.splat(0.0); C]; M];
        for m in 0..M {
            for c in 0..C {
                acc[m][c] = simd.load(lanes(block_acc, at(m, c)));
            }
        }
        for j in seen {
            let mut value = [simd.splat(0.0); C];
            for c in 0..C {
                value[c] = T::load_lanes(simd, lanes(values[j], column + c * LANES));
            }
            for m in 0..M {
                let weight = simd.splat(weights[row + m][j]);
                for c in 0..C {
                    acc[m][c] = simd.mul_add(weight, value[c], acc[m][c]);
                }
            }
        }
        for m in 0..M {
            for c in 0..C {
                let mut result = [0.0; LANES];
                simd.store(acc[m][c], &mut result);
                block_acc[at(m, c)..][..LANES].copy_from_slice(&result);
            }
        }
    }

    /// [`State::add_values`] in a single column.
    #[inline(always)]
    fn add_column<S: Simd, T: Operand, const M: usize>(
        &mut self,
        simd: S,
        row: usize,
        values: &[&[T]; BLOCK],
        seen: Range<usize>,
        column: usize,
    ) {
        for row in row..row + M {
            let acc = &mut self.block_acc[row * self.head_dim + column];
            for j in seen.clone() {
                let value = values[j][column].to_f32();
                *acc = simd.mul_add_scalar(self.weights[row][j], value, *acc);
            }
        }
    }

    /// Adds the block's result to what is known of a row.
    #[inline(always)]
    pub(super) fn merge<S: Simd>(&mut self, simd: S, row: usize, block: BlockSoftmax) {
        let max = if block.max > self.max[row] { block.max } else { self.max[row] };
        let keep = exp(simd, self.max[row] - max);
        let take = exp(simd, block.max - max);
        self.max[row] = max;
        self.sum[row] = simd.mul_add_scalar(self.sum[row], keep, block.sum * take);
        let columns = row * self.head_dim..(row + 1) * self.head_dim;
        let block_acc = &self.block_acc[columns.clone()];
        for (acc, block) in self.acc[columns].iter_mut().zip(block_acc) {
            *acc = simd.mul_add_scalar(*acc, keep, block * take);
        }
    }

    /// The attention output of a row, after the last block.
    #[inline(always)]
    pub(super) fn finish<T: Operand>(&self, row: usize, out: &mut [T]) {
        let acc = &self.acc[row * self.head_dim..][..self.head_dim];
        for (out, acc) in out.iter_mut().zip(acc) {
            *out = T::from_f32(acc / self.sum[row]);
        }
    }
}

/// The [`LANES`] elements from `start` on.
#[inline(always)]
fn lanes<T>(slice: &[T], start: usize) -> &[T; LANES] {
    let chunk = slice[start..].first_chunk();
    chunk.unwrap_or_else(|| panic!("{LANES} elements from {start} on of {}", slice.len()))
}
