//! Attention over the paged KV pool.
//!
//! Never knows: which request a sequence is, or whether its step is prefill, extend or decode.

mod planned;

use super::check::Check;
use crate::{DType, Error, Stream, View, ViewMut, cpu, cuda};

pub use planned::{Attention, AttentionBackend, AttentionConfig, HostBatch};

/// Where the keys and values of all sequences are.
#[derive(Clone, Copy, Debug)]
pub struct PagedKv<'a> {
    /// `[num_slots, hkv, d]` T or f8_e4m3.
    pub k_pool: View<'a>,
    /// `[num_slots, hkv, d]` T or f8_e4m3, as `k_pool`.
    pub v_pool: View<'a>,
    /// `[rows, max_pages]` i32: position `p` of a sequence lives in slot
    /// `page_table[row][p / page_size] * page_size + p % page_size`.
    pub page_table: View<'a>,
    /// Positions per page, at least 1.
    pub page_size: usize,
}

/// Which queries belong to which sequence.
#[derive(Clone, Copy, Debug)]
pub struct VarlenBatch<'a> {
    /// `[n]` i32: the row of the page table of each sequence.
    pub rows: View<'a>,
    /// `[n + 1]` i32: sequence `j` has the queries `cu_seqlens_q[j]..cu_seqlens_q[j + 1]`; starts
    /// at 0, ends at `t`, never decreases.
    pub cu_seqlens_q: View<'a>,
    /// `[n]` i32: how many positions of each sequence are in the pool, this step's included; at
    /// least its number of queries.
    pub kv_lens: View<'a>,
}

/// Scalars of attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionParams {
    /// Factor of the dot products, usually `1 / sqrt(d)`.
    pub scale: f32,
    /// Sliding window: a query at position `p` sees the positions above `p - window` only. At
    /// least 1.
    pub window: Option<usize>,
}

/// Causal attention of every query over its sequence's keys and values in the pool.
///
/// Sequence `j` has `q_len = cu_seqlens_q[j + 1] - cu_seqlens_q[j]` queries, which stand at the
/// positions `kv_lens[j] - q_len..kv_lens[j]`; the query at position `p` sees the positions `..=p`.
/// So prefill (`q_len == kv_len`), extend and decode (`q_len == 1`) are one form.
///
/// - `q`: `[t, hq, d]` T. `hq` is a multiple of `hkv`, and query head `h` uses KV head
///   `h / (hq / hkv)` (grouped-query attention).
/// - `out`: `[t, hq, d]` T: `softmax(scale · q·kᵀ) · v`, in f32, rounded once.
///
/// # Errors
/// [`Error::Parameter`] if `page_size`, `window`, `scale` or the number of heads is out of its
/// domain; [`Error::Index`] if an element of an index table is.
pub fn paged_attention(
    stream: &Stream,
    q: View<'_>,
    kv: PagedKv<'_>,
    batch: VarlenBatch<'_>,
    params: AttentionParams,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check(q, kv, batch, params, out.as_view())?;
    match stream {
        Stream::Cpu(stream) => {
            check_tables(q, kv, batch, params)?;
            cpu::attention::paged_attention(stream.cpu(), q, kv, batch, params, out);
        }
        Stream::Cuda(stream) => cuda::ops::paged_attention(stream, q, kv, batch, params, out)?,
    }
    Ok(())
}

const OP: &str = "paged_attention";
const CHECK: Check = Check::of(OP);

pub(crate) fn check(
    q: View<'_>,
    kv: PagedKv<'_>,
    batch: VarlenBatch<'_>,
    params: AttentionParams,
    out: View<'_>,
) -> Result<(), Error> {
    let check = CHECK;
    let dtype = check.float("q", q)?;
    let [t, num_q_heads, d] = check.dims("q", q)?;
    let [num_slots, num_kv_heads, _] = check.dims("k_pool", kv.k_pool)?;
    let [num_rows, max_pages] = check.dims("page_table", kv.page_table)?;
    let [num_sequences] = check.dims("rows", batch.rows)?;
    check.rows("q", q)?;
    let stored = check.stored("k_pool", kv.k_pool, dtype)?;
    check.tensor("k_pool", kv.k_pool, stored, [num_slots, num_kv_heads, d])?;
    check.tensor("v_pool", kv.v_pool, stored, [num_slots, num_kv_heads, d])?;
    check.tensor("page_table", kv.page_table, DType::I32, [num_rows, max_pages])?;
    check.tensor("rows", batch.rows, DType::I32, [num_sequences])?;
    check.tensor("cu_seqlens_q", batch.cu_seqlens_q, DType::I32, [num_sequences + 1])?;
    check.tensor("kv_lens", batch.kv_lens, DType::I32, [num_sequences])?;
    check.tensor("out", out, dtype, [t, num_q_heads, d])?;
    if num_kv_heads == 0 || num_q_heads % num_kv_heads != 0 {
        let allowed = "a multiple of the number of kv heads";
        return Err(check.parameter("number of query heads", num_q_heads, allowed));
    }
    if kv.page_size == 0 {
        return Err(check.parameter("page_size", kv.page_size, "at least 1"));
    }
    if params.window == Some(0) {
        return Err(check.parameter("window", 0, "at least 1"));
    }
    if !params.scale.is_finite() {
        return Err(check.parameter("scale", params.scale, "a finite number"));
    }
    Ok(())
}

/// Checks every table element that attention will follow, so that the loops need not.
pub(crate) fn check_tables(
    q: View<'_>,
    kv: PagedKv<'_>,
    batch: VarlenBatch<'_>,
    params: AttentionParams,
) -> Result<(), Error> {
    let num_tokens = q.shape().dims()[0] as i64;
    let num_slots = kv.k_pool.shape().dims()[0];
    let page_table = kv.page_table.host_rows::<i32>();
    let max_kv_len = page_table.row_len().saturating_mul(kv.page_size).min(i32::MAX as usize);
    let (rows, kv_lens) = (batch.rows.host_slice::<i32>(), batch.kv_lens.host_slice::<i32>());
    let cu_seqlens_q = batch.cu_seqlens_q.host_slice::<i32>();
    let num_sequences = rows.len();

    CHECK.indices("rows", rows, page_table.num_rows())?;
    check_index("cu_seqlens_q", 0, cu_seqlens_q[0], 0, 1)?;
    for j in 0..num_sequences {
        let start = i64::from(cu_seqlens_q[j]);
        check_index("cu_seqlens_q", j + 1, cu_seqlens_q[j + 1], start, num_tokens + 1)?;
        let q_len = i64::from(cu_seqlens_q[j + 1]) - start;
        check_index("kv_lens", j, kv_lens[j], q_len, max_kv_len as i64 + 1)?;
        if q_len == 0 {
            continue;
        }
        let (row, kv_len, q_len) = (rows[j] as usize, kv_lens[j] as usize, q_len as usize);
        // Pages that a sliding window has left behind may be anything.
        let first_seen =
            params.window.map_or(0, |window| (kv_len - q_len + 1).saturating_sub(window));
        for page in first_seen / kv.page_size..kv_len.div_ceil(kv.page_size) {
            // A last page that the pool's end cuts short is fine up to its positions in use.
            let used = kv.page_size.min(kv_len - page * kv.page_size);
            let num_pages = num_slots.checked_sub(used).map_or(0, |last| last / kv.page_size + 1);
            let position = row * page_table.row_len() + page;
            let id = page_table.row(row)[page];
            check_index("page_table", position, id, 0, num_pages as i64)?;
        }
    }
    check_index(
        "cu_seqlens_q",
        num_sequences,
        cu_seqlens_q[num_sequences],
        num_tokens,
        num_tokens + 1,
    )
}

fn check_index(
    argument: &'static str,
    position: usize,
    value: i32,
    min: i64,
    max: i64,
) -> Result<(), Error> {
    let value = i64::from(value);
    if (min..max).contains(&value) {
        return Ok(());
    }
    Err(Error::Index { op: OP, argument, position, value, min, max })
}
