//! Passes over the keys and values of a sequence, block by block.
//!
//! Never knows: threads or other sequences.

use std::ops::Range;

use super::state::{BlockSoftmax, State};
use super::stored::Stored;
use super::{BLOCK, Problem, QueryTile, TILE_ROWS};
use crate::cpu::dot;
use crate::cpu::simd::{Kernel, Operand, Simd};
use crate::rows::RowsMut;

/// Some queries and some heads.
pub(super) struct Part<'a, T, K> {
    pub(super) problem: &'a Problem<'a, T, K>,
    pub(super) tiles: &'a [QueryTile],
    pub(super) kv_heads: Range<usize>,
    /// A row per token of `tiles`, the columns of the query heads of `kv_heads`.
    pub(super) out: RowsMut<'a, T>,
}

impl<T: Operand, K: Stored<T>> Kernel for Part<'_, T, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let problem = self.problem;
        let rows_per_head = |tile: &QueryTile| tile.num_tokens * problem.group;
        let heads_per_pass =
            |tile: &QueryTile| (TILE_ROWS / rows_per_head(tile)).clamp(1, self.kv_heads.len());
        let max_rows = self.tiles.iter().map(|tile| heads_per_pass(tile) * rows_per_head(tile));
        let mut state = State::new(max_rows.max().unwrap_or(0), problem.head_dim);
        let max_columns = self.kv_heads.len() * problem.head_dim;
        let room = if K::IS_WIDENED { 2 * BLOCK * max_columns } else { 0 };
        let mut room = vec![T::default(); room];
        let mut first_row = 0;
        for tile in self.tiles {
            // Few queries take many heads at once, so that the pool is read in long stretches.
            let heads_per_pass = heads_per_pass(tile);
            let mut first_head = self.kv_heads.start;
            while first_head < self.kv_heads.end {
                let end_head = self.kv_heads.end.min(first_head + heads_per_pass);
                let pass = Pass::new(problem, tile, first_head..end_head);
                pass.attend(simd, &mut state, &mut room);
                let first_column = (first_head - self.kv_heads.start) * pass.q_columns();
                for token in 0..tile.num_tokens {
                    let out = &mut self.out.row_mut(first_row + token)[first_column..];
                    pass.finish(&state, token, out);
                }
                first_head = end_head;
            }
            first_row += tile.num_tokens;
        }
    }
}

/// Neighbouring queries of a sequence and some heads. A row of the [`State`] is a query head of a
/// token: rows count KV heads, tokens within a KV head, and query heads within a token.
struct Pass<'a, T, K> {
    problem: &'a Problem<'a, T, K>,
    tile: &'a QueryTile,
    kv_heads: Range<usize>,
    /// The query of each row.
    queries: Vec<&'a [T]>,
}

/// The keys and values of the pass's heads at the positions of a block; empty where none of its
/// queries looks.
struct BlockRows<'a, T> {
    keys: [&'a [T]; BLOCK],
    values: [&'a [T]; BLOCK],
}

impl<'a, T: Operand, K: Stored<T>> Pass<'a, T, K> {
    fn new(problem: &'a Problem<'a, T, K>, tile: &'a QueryTile, kv_heads: Range<usize>) -> Self {
        let Problem { q, group, head_dim, .. } = problem;
        let mut queries = Vec::with_capacity(kv_heads.len() * tile.num_tokens * group);
        for kv_head in kv_heads.clone() {
            for token in tile.first_token..tile.first_token + tile.num_tokens {
                let heads = kv_head * group..(kv_head + 1) * group;
                queries.extend(heads.map(|head| &q.row(token)[head * head_dim..][..*head_dim]));
            }
        }
        Self { problem, tile, kv_heads, queries }
    }

    /// Columns of `q` and `out` per KV head.
    fn q_columns(&self) -> usize {
        self.problem.group * self.problem.head_dim
    }

    fn rows_per_head(&self) -> usize {
        self.tile.num_tokens * self.problem.group
    }

    #[inline(always)]
    fn attend<S: Simd>(&self, simd: S, state: &mut State, room: &mut [T]) {
        state.reset();
        let first_seen = self.first_seen(self.tile.first_position);
        for start in (first_seen / BLOCK * BLOCK..self.tile.end_position()).step_by(BLOCK) {
            self.attend_block(simd, state, start, room);
        }
    }

    /// Writes the results of a token, from its first query head of the pass on.
    #[inline(always)]
    fn finish(&self, state: &State, token: usize, out: &mut [T]) {
        let group = self.problem.group;
        let heads = out.chunks_exact_mut(self.problem.head_dim.max(1));
        for (head, out) in heads.take(self.kv_heads.len() * group).enumerate() {
            let row = head / group * self.rows_per_head() + token * group + head % group;
            state.finish(row, out);
        }
    }

    /// The first position that the query at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        self.problem.params.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    #[inline(always)]
    fn attend_block<S: Simd>(&self, simd: S, state: &mut State, start: usize, room: &mut [T]) {
        let positions = start..self.tile.end_position().min(start + BLOCK);
        let rows_per_head = self.rows_per_head();
        for row in 0..rows_per_head * self.kv_heads.len() {
            let token = row % rows_per_head / self.problem.group;
            let position = self.tile.first_position + token;
            let clamp = |p: usize| p.clamp(positions.start, positions.end) - positions.start;
            let end = clamp(position + 1);
            state.visible[row] = clamp(self.first_seen(position)).min(end)..end;
        }
        let seen = state.visible[0].start..state.visible[rows_per_head - 1].end;
        let block = self.block_rows(start, seen.clone(), room);

        state.start_block();
        self.score(simd, state, &block, seen);
        for head in 0..self.kv_heads.len() {
            let mut values = block.values;
            for values in values.iter_mut().filter(|values| !values.is_empty()) {
                *values = self.head_of(values, head);
            }
            let (mut row, end) = (head * rows_per_head, (head + 1) * rows_per_head);
            while row < end {
                if S::MANY_REGISTERS && row + 4 <= end {
                    self.weigh::<S, 4>(simd, state, row, &values);
                    row += 4;
                } else {
                    self.weigh::<S, 1>(simd, state, row, &values);
                    row += 1;
                }
            }
        }
    }

    /// The rows of the positions `seen` of the block at `start`. A sliding window may have left
    /// the pages before behind: they are no longer the sequence's. What is not stored as T is widened
    /// to `room`.
    #[inline(always)]
    fn block_rows<'r>(
        &self,
        start: usize,
        seen: Range<usize>,
        room: &'r mut [T],
    ) -> BlockRows<'r, T>
    where
        'a: 'r,
    {
        let Problem { k_pool, v_pool, page_table, page_size, head_dim, .. } = self.problem;
        let pages = page_table.row(self.tile.table_row);
        let columns = self.kv_heads.start * head_dim..self.kv_heads.end * head_dim;
        let mut rows = BlockRows { keys: [&[]; BLOCK], values: [&[]; BLOCK] };
        let mut rooms = room.chunks_exact_mut(columns.len().max(1));
        let mut next_room = || rooms.next().unwrap_or_default();
        for j in seen {
            let position = start + j;
            let slot = pages[position / page_size] as usize * page_size + position % page_size;
            rows.keys[j] = K::read(&k_pool.row(slot)[columns.clone()], next_room());
            rows.values[j] = K::read(&v_pool.row(slot)[columns.clone()], next_room());
        }
        rows
    }

    /// The part of a row of keys or values that belongs to head `head` of the pass.
    #[inline(always)]
    fn head_of<'r>(&self, row: &'r [T], head: usize) -> &'r [T] {
        let head_dim = self.problem.head_dim;
        &row[head * head_dim..][..head_dim]
    }

    /// The scores of all rows for the positions `seen`, not yet scaled: a few positions at a time
    /// for all heads, which reads the keys in the order they are stored in.
    #[inline(always)]
    fn score<S: Simd>(
        &self,
        simd: S,
        state: &mut State,
        block: &BlockRows<'_, T>,
        seen: Range<usize>,
    ) {
        let mut j = seen.start;
        while j < seen.end {
            if j + 4 <= seen.end {
                self.score_positions::<S, 4>(simd, state, block, j);
                j += 4;
            } else {
                self.score_positions::<S, 1>(simd, state, block, j);
                j += 1;
            }
        }
    }

    /// [`Pass::score`] of the positions `j..j + N`. Their values and the next keys are fetched
    /// meanwhile.
    #[inline(always)]
    fn score_positions<S: Simd, const N: usize>(
        &self,
        simd: S,
        state: &mut State,
        block: &BlockRows<'_, T>,
        j: usize,
    ) {
        let rows_per_head = self.rows_per_head();
        for head in 0..self.kv_heads.len() {
            let mut keys: [&[T]; N] = [&[]; N];
            let mut ahead: [[&[T]; N]; 2] = [[&[]; N]; 2];
            for n in 0..N {
                keys[n] = self.head_of(block.keys[j + n], head);
                ahead[0][n] = self.head_of(block.values[j + n], head);
                if let Some(&next) = block.keys.get(j + N + n).filter(|next| !next.is_empty()) {
                    ahead[1][n] = self.head_of(next, head);
                }
            }
            let (mut row, end) = (head * rows_per_head, (head + 1) * rows_per_head);
            while row < end {
                let m = if S::MANY_REGISTERS && row + 4 <= end { 4 } else { 1 };
                // Later rows see further.
                if j < state.visible[row + m - 1].end {
                    if m == 4 {
                        self.score_tile::<S, 4, N>(simd, state, row, j, keys, ahead);
                    } else {
                        self.score_tile::<S, 1, N>(simd, state, row, j, keys, ahead);
                    }
                    ahead = [[&[]; N]; 2];
                }
                row += m;
            }
        }
    }

    #[inline(always)]
    fn score_tile<S: Simd, const M: usize, const N: usize>(
        &self,
        simd: S,
        state: &mut State,
        row: usize,
        j: usize,
        keys: [&[T]; N],
        ahead: [[&[T]; N]; 2],
    ) {
        let mut queries: [&[T]; M] = [&[]; M];
        queries.copy_from_slice(&self.queries[row..row + M]);
        let scores = dot::tile(simd, queries, keys, &ahead);
        for (m, scores) in scores.iter().enumerate() {
            state.weights[row + m][j..j + N].copy_from_slice(scores);
        }
    }

    /// Turns the scores of the rows `row..row + M` into weights, adds up the weighted values of
    /// the block, and merges the result.
    #[inline(always)]
    fn weigh<S: Simd, const M: usize>(
        &self,
        simd: S,
        state: &mut State,
        row: usize,
        values: &[&[T]; BLOCK],
    ) {
        let mut softmax = [BlockSoftmax::default(); M];
        for (row, softmax) in (row..).zip(&mut softmax) {
            if !state.visible[row].is_empty() {
                *softmax = state.softmax(simd, row, self.problem.params.scale);
            }
        }
        // Every row adds up exactly the values it sees, in ascending order; most are common to
        // all rows of the tile.
        let (first, last) = (state.visible[row].clone(), state.visible[row + M - 1].clone());
        let common = last.start..first.end.max(last.start);
        for row in row..row + M {
            let Range { start, end } = state.visible[row];
            state.add_values::<S, T, 1>(simd, row, values, start..end.min(common.start));
        }
        state.add_values::<S, T, M>(simd, row, values, common.clone());
        for row in row..row + M {
            let Range { start, end } = state.visible[row];
            state.add_values::<S, T, 1>(simd, row, values, start.max(common.end)..end);
        }
        for (row, softmax) in (row..).zip(softmax) {
            if !state.visible[row].is_empty() {
                state.merge(simd, row, softmax);
            }
        }
    }
}
