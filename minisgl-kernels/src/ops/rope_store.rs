//! The rotation and the KV store in one: what lies between the projections and attention.
//!
//! Never knows: how the cosine and sine table was scaled, or who owns a slot.

use super::check::{self, Check};
use super::rope::QkNorm;
use crate::{Error, Stream, View, ViewMut, cpu, cuda};

/// Where keys and values go: the arguments of [`store_kv`](super::store_kv) but the keys.
#[derive(Debug)]
pub struct KvStore<'a> {
    /// `[t, hkv, d]` T.
    pub v: View<'a>,
    /// `[t]` i32, each in `0..num_slots`.
    pub slots: View<'a>,
    /// `[num_slots, hkv, d]` T or f8_e4m3.
    pub k_pool: ViewMut<'a>,
    /// `[num_slots, hkv, d]` T or f8_e4m3, as `k_pool`.
    pub v_pool: ViewMut<'a>,
}

/// [`qk_norm_rope`](super::qk_norm_rope) and [`store_kv`](super::store_kv) at once, with the same
/// bits: `q` is normalized (if asked) and rotated in place; what becomes of `k` goes to its slots,
/// as `v` does, while `k` itself stays as it was. (With pools of 8-bit floats, a GPU may sum the
/// squares of a norm in another order than `qk_norm_rope` does.)
///
/// # Errors
/// Those of the two ops.
pub fn qk_norm_rope_store(
    stream: &Stream,
    q: ViewMut<'_>,
    k: View<'_>,
    norm: Option<QkNorm<'_>>,
    positions: View<'_>,
    cos_sin: View<'_>,
    store: KvStore<'_>,
) -> Result<(), Error> {
    check(q.as_view(), k, norm, positions, cos_sin, &store)?;
    match stream {
        Stream::Cpu(cpu) => {
            check::positions(positions, cos_sin)?;
            check::slots(store.slots, store.k_pool.as_view())?;
            let mut rotated = stream.device().zeros(k.dtype(), k.shape())?;
            cpu::pointwise::copy(cpu.cpu(), k, rotated.view_mut());
            cpu::rope::qk_norm_rope(cpu.cpu(), q, rotated.view_mut(), norm, positions, cos_sin);
            cpu::gather::scatter_rows(rotated.view(), store.slots, store.k_pool);
            cpu::gather::scatter_rows(store.v, store.slots, store.v_pool);
        }
        Stream::Cuda(stream) => {
            cuda::ops::qk_norm_rope_store(stream, q, k, norm, positions, cos_sin, store)?;
        }
    }
    Ok(())
}

pub(crate) fn check(
    q: View<'_>,
    k: View<'_>,
    norm: Option<QkNorm<'_>>,
    positions: View<'_>,
    cos_sin: View<'_>,
    store: &KvStore<'_>,
) -> Result<(), Error> {
    check::qk_norm_rope(q, k, norm, positions, cos_sin)?;
    Check::of("qk_norm_rope_store").dtype("q", q, k.dtype())?;
    check::store_kv(k, store.v, store.slots, store.k_pool.as_view(), store.v_pool.as_view())
}
