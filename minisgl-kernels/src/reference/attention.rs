//! Attention over the paged KV pool, one query head at a time.
//!
//! Never knows: blocks of keys; the softmax is over the whole row at once.

use super::matrix::{Matrix, MatrixMut};
use crate::ops::{AttentionParams, PagedKv, VarlenBatch, check};
use crate::{Error, View, ViewMut};

/// See [`ops::paged_attention`](crate::ops::paged_attention).
///
/// # Errors
/// Those of the op.
pub fn paged_attention(
    q: View<'_>,
    kv: PagedKv<'_>,
    batch: VarlenBatch<'_>,
    params: AttentionParams,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check::paged_attention(q, kv, batch, params, out.as_view())?;
    check::attention_tables(q, kv, batch, params)?;
    let [num_q_heads, head_dim] = [q.shape().dims()[1], q.shape().dims()[2]];
    let group = num_q_heads / kv.k_pool.shape().dims()[1];
    let (q, mut out) = (Matrix::new(q), MatrixMut::new(out));
    let (k_pool, v_pool) = (Matrix::new(kv.k_pool), Matrix::new(kv.v_pool));
    let page_table = kv.page_table.host_rows::<i32>();
    let cu_seqlens_q = batch.cu_seqlens_q.host_slice::<i32>();
    let kv_lens = batch.kv_lens.host_slice::<i32>();

    for (j, &row) in batch.rows.host_slice::<i32>().iter().enumerate() {
        let pages = page_table.row(row as usize);
        let slot_of = |position: usize| {
            pages[position / kv.page_size] as usize * kv.page_size + position % kv.page_size
        };
        for token in cu_seqlens_q[j] as usize..cu_seqlens_q[j + 1] as usize {
            let last = kv_lens[j] as usize - (cu_seqlens_q[j + 1] as usize - token);
            let first = params.window.map_or(0, |window| (last + 1).saturating_sub(window));
            for head in 0..num_q_heads {
                let (q_at, kv_at) = (head * head_dim, head / group * head_dim);
                let scores: Vec<f64> = (first..=last)
                    .map(|position| {
                        let slot = slot_of(position);
                        let product = |i| {
                            f64::from(q.get(token, q_at + i))
                                * f64::from(k_pool.get(slot, kv_at + i))
                        };
                        (0..head_dim).map(product).sum::<f64>() * f64::from(params.scale)
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                for i in 0..head_dim {
                    let weighted = |(weight, position)| {
                        weight * f64::from(v_pool.get(slot_of(position), kv_at + i))
                    };
                    let sum: f64 = weights.iter().copied().zip(first..).map(weighted).sum();
                    out.set(token, q_at + i, (sum / total) as f32);
                }
            }
        }
    }
    Ok(())
}
