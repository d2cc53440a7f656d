//! Attention over the paged KV pool: how it is divided among threads.
//!
//! Never knows: whether a step is prefill, extend or decode; there is one path.
//!
//! **Invariant:** a query's result has the same bits however its sequence was cut into steps and
//! pages, and whatever else is in the batch. Keys are taken in blocks of [`BLOCK`] absolute
//! positions; each block gives a partial result that depends on the query and the block alone, and
//! the partial results are merged in ascending order.

mod pass;
mod state;
mod stored;

use std::ops::Range;

use half::bf16;

use self::stored::Stored;
use super::CpuDevice;
use super::simd::Operand;
use crate::ops::{AttentionParams, PagedKv, VarlenBatch};
use crate::rows::{Rows, RowsMut};
use crate::{DType, F8E4M3, View, ViewMut};

/// Positions per block of keys. Part of the definition of a result's bits.
const BLOCK: usize = 128;

/// Parts of the work per thread. Sequences differ in length, so parts differ in cost.
const PARTS_PER_THREAD: usize = 4;

/// Query rows (tokens times query heads per KV head) that share one pass over the keys, roughly.
const TILE_ROWS: usize = 32;

pub(crate) fn paged_attention(
    cpu: &CpuDevice,
    q: View<'_>,
    kv: PagedKv<'_>,
    batch: VarlenBatch<'_>,
    params: AttentionParams,
    out: ViewMut<'_>,
) {
    match (q.dtype(), kv.k_pool.dtype()) {
        (DType::Bf16, DType::F8E4M3) => typed::<bf16, F8E4M3>(cpu, q, kv, batch, params, out),
        (_, DType::F8E4M3) => typed::<f32, F8E4M3>(cpu, q, kv, batch, params, out),
        (DType::Bf16, _) => typed::<bf16, bf16>(cpu, q, kv, batch, params, out),
        _ => typed::<f32, f32>(cpu, q, kv, batch, params, out),
    }
}

fn typed<T: Operand, K: Stored<T>>(
    cpu: &CpuDevice,
    q: View<'_>,
    kv: PagedKv<'_>,
    batch: VarlenBatch<'_>,
    params: AttentionParams,
    out: ViewMut<'_>,
) {
    let [num_q_heads, head_dim] = [q.shape().dims()[1], q.shape().dims()[2]];
    let num_kv_heads = kv.k_pool.shape().dims()[1];
    let problem = Problem::<T, K> {
        q: q.host_rows(),
        k_pool: kv.k_pool.host_rows(),
        v_pool: kv.v_pool.host_rows(),
        page_table: kv.page_table.host_rows(),
        page_size: kv.page_size,
        head_dim,
        group: num_q_heads / num_kv_heads,
        params,
    };
    let tiles = query_tiles(batch, problem.group);
    let num_keys: usize = tiles.iter().map(|tile| tile.num_tokens * tile.end_position()).sum();
    let cpu = cpu.for_cost(num_keys.saturating_mul(num_q_heads * head_dim / 8));
    let out = out.host_rows::<T>();
    let num_parts = if cpu.num_threads() == 1 { 1 } else { PARTS_PER_THREAD * cpu.num_threads() };
    cpu.run(|| problem.divide(&cpu, &tiles, 0..num_kv_heads, out, num_parts));
}

/// What all parts read. Keys and values are stored as K.
struct Problem<'a, T, K> {
    /// `[t, hq · d]`
    q: Rows<'a, T>,
    /// `[num_slots, hkv · d]`
    k_pool: Rows<'a, K>,
    /// `[num_slots, hkv · d]`
    v_pool: Rows<'a, K>,
    page_table: Rows<'a, i32>,
    page_size: usize,
    head_dim: usize,
    /// Query heads per KV head.
    group: usize,
    params: AttentionParams,
}

/// Neighbouring queries of one sequence.
struct QueryTile {
    /// The sequence's row of the page table.
    table_row: usize,
    /// The row of `q` of the first query.
    first_token: usize,
    num_tokens: usize,
    /// The position of the first query in its sequence.
    first_position: usize,
}

impl QueryTile {
    /// One more than the last position that any of its queries sees.
    fn end_position(&self) -> usize {
        self.first_position + self.num_tokens
    }
}

/// All queries of the batch in order.
fn query_tiles(batch: VarlenBatch<'_>, group: usize) -> Vec<QueryTile> {
    let max_tokens = (TILE_ROWS / group).max(1);
    let rows = batch.rows.host_slice::<i32>();
    let kv_lens = batch.kv_lens.host_slice::<i32>();
    let cu_seqlens_q = batch.cu_seqlens_q.host_slice::<i32>();
    let mut tiles = Vec::new();
    for (j, &row) in rows.iter().enumerate() {
        let [start, end] = [cu_seqlens_q[j] as usize, cu_seqlens_q[j + 1] as usize];
        let position_of = |token: usize| kv_lens[j] as usize - (end - token);
        tiles.extend((start..end).step_by(max_tokens).map(|token| QueryTile {
            table_row: row as usize,
            first_token: token,
            num_tokens: max_tokens.min(end - token),
            first_position: position_of(token),
        }));
    }
    tiles
}

impl<T: Operand, K: Stored<T>> Problem<'_, T, K> {
    /// Computes the outputs of `tiles` for `kv_heads` in about `num_parts` parts. `out` holds just
    /// those: a row per token, the heads' columns.
    fn divide(
        &self,
        cpu: &CpuDevice,
        tiles: &[QueryTile],
        kv_heads: Range<usize>,
        out: RowsMut<'_, T>,
        num_parts: usize,
    ) {
        let more_parts = num_parts.div_ceil(2);
        if num_parts > 1 && tiles.len() > 1 {
            let (upper, lower) = tiles.split_at(tiles.len() / 2);
            let num_rows = upper.iter().map(|tile| tile.num_tokens).sum();
            let (upper_out, lower_out) = out.split_at_row(num_rows);
            let (upper_heads, lower_heads) = (kv_heads.clone(), kv_heads);
            cpu.join(
                || self.divide(cpu, upper, upper_heads, upper_out, more_parts),
                || self.divide(cpu, lower, lower_heads, lower_out, more_parts),
            );
        } else if num_parts > PARTS_PER_THREAD && kv_heads.len() > 1 {
            // Heads of one sequence cost the same, and are better read together: one part each for
            // the threads there are.
            let middle = kv_heads.start + kv_heads.len() / 2;
            let columns = (middle - kv_heads.start) * self.group * self.head_dim;
            let (left_out, right_out) = out.split_at_column(columns);
            let (left, right) = (kv_heads.start..middle, middle..kv_heads.end);
            cpu.join(
                || self.divide(cpu, tiles, left, left_out, more_parts),
                || self.divide(cpu, tiles, right, right_out, more_parts),
            );
        } else {
            cpu.isa().run(pass::Part { problem: self, tiles, kv_heads, out });
        }
    }
}
