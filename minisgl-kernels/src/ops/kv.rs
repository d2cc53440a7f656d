//! Writing keys and values into the KV pool.
//!
//! Never knows: who owns a slot.

use super::check::Check;
use crate::{DType, Error, Stream, View, ViewMut, cpu, cuda};

/// Scatters this step's keys and values into the KV pool: token `i` goes to slot `slots[i]`.
///
/// - `k`, `v`: `[t, hkv, d]` T.
/// - `slots`: `[t]` i32, each in `0..num_slots`. If a slot appears twice, which token wins is
///   unspecified.
/// - `k_pool`, `v_pool`: `[num_slots, hkv, d]`, both T or both f8_e4m3, to which elements are then
///   rounded as [`F8E4M3::from_f32`](crate::F8E4M3::from_f32) does. Slots that are not named are
///   untouched.
///
/// # Errors
/// [`Error::Index`] if a slot is out of range.
pub fn store_kv(
    stream: &Stream,
    k: View<'_>,
    v: View<'_>,
    slots: View<'_>,
    k_pool: ViewMut<'_>,
    v_pool: ViewMut<'_>,
) -> Result<(), Error> {
    check(k, v, slots, k_pool.as_view(), v_pool.as_view())?;
    match stream {
        Stream::Cpu(_) => {
            check_slots(slots, k_pool.as_view())?;
            cpu::gather::scatter_rows(k, slots, k_pool);
            cpu::gather::scatter_rows(v, slots, v_pool);
        }
        Stream::Cuda(stream) => cuda::ops::store_kv(stream, k, v, slots, k_pool, v_pool)?,
    }
    Ok(())
}

const CHECK: Check = Check::of("store_kv");

pub(crate) fn check(
    k: View<'_>,
    v: View<'_>,
    slots: View<'_>,
    k_pool: View<'_>,
    v_pool: View<'_>,
) -> Result<(), Error> {
    let check = CHECK;
    let dtype = check.float("k", k)?;
    let [t, num_kv_heads, d] = check.dims("k", k)?;
    check.rows("k", k)?;
    check.tensor("v", v, dtype, [t, num_kv_heads, d])?;
    check.tensor("slots", slots, DType::I32, [t])?;
    let [num_slots, _, _] = check.dims("k_pool", k_pool)?;
    let stored = check.stored("k_pool", k_pool, dtype)?;
    check.tensor("k_pool", k_pool, stored, [num_slots, num_kv_heads, d])?;
    check.tensor("v_pool", v_pool, stored, [num_slots, num_kv_heads, d])
}

pub(crate) fn check_slots(slots: View<'_>, k_pool: View<'_>) -> Result<(), Error> {
    CHECK.indices("slots", slots.host_slice(), k_pool.shape().dims()[0])
}
