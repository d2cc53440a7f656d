//! Moving rows and ids by index. The ops have checked the indices.
//!
//! Never knows: what the rows or ids are.

use half::bf16;

use super::CpuDevice;
use crate::dtype::Float;
use crate::rows::{Rows, RowsMut};
use crate::{DType, F8E4M3, HostElement, View, ViewMut};

pub(crate) fn embedding(
    cpu: &CpuDevice,
    ids: View<'_>,
    table: View<'_>,
    first_id: i32,
    out: ViewMut<'_>,
) {
    let ids = ids.host_slice::<i32>();
    let row_of = |i: usize| usize::try_from(i64::from(ids[i]) - i64::from(first_id)).ok();
    match table.dtype() {
        DType::Bf16 => pick_rows::<bf16>(cpu, table.host_rows(), row_of, out.host_rows()),
        _ => pick_rows::<f32>(cpu, table.host_rows(), row_of, out.host_rows()),
    }
}

pub(crate) fn gather_rows(cpu: &CpuDevice, x: View<'_>, indices: View<'_>, out: ViewMut<'_>) {
    let indices = indices.host_slice::<i32>();
    let row_of = |i: usize| Some(indices[i] as usize);
    match x.dtype() {
        DType::Bf16 => pick_rows::<bf16>(cpu, x.host_rows(), row_of, out.host_rows()),
        _ => pick_rows::<f32>(cpu, x.host_rows(), row_of, out.host_rows()),
    }
}

/// Row `i` of `out` becomes row `row_of(i)` of `x`, or zeros if there is no such row.
fn pick_rows<T: HostElement>(
    cpu: &CpuDevice,
    x: Rows<'_, T>,
    row_of: impl Fn(usize) -> Option<usize> + Sync,
    out: RowsMut<'_, T>,
) {
    cpu.for_each_part(out, x.row_len() / 4, |first, mut out| {
        for i in 0..out.num_rows() {
            match row_of(first + i).filter(|&row| row < x.num_rows()) {
                Some(row) => out.row_mut(i).copy_from_slice(x.row(row)),
                None => out.row_mut(i).fill(T::default()),
            }
        }
    });
}

/// Row `slots[i]` of `pool` becomes row `i` of `rows`; of equal slots, the last wins.
pub(crate) fn scatter_rows(rows: View<'_>, slots: View<'_>, pool: ViewMut<'_>) {
    match (rows.dtype(), pool.dtype()) {
        (DType::Bf16, DType::F8E4M3) => round_and_scatter_rows::<bf16>(rows, slots, pool),
        (_, DType::F8E4M3) => round_and_scatter_rows::<f32>(rows, slots, pool),
        (DType::Bf16, _) => typed_scatter_rows::<bf16>(rows, slots, pool),
        _ => typed_scatter_rows::<f32>(rows, slots, pool),
    }
}

fn round_and_scatter_rows<T: Float>(rows: View<'_>, slots: View<'_>, pool: ViewMut<'_>) {
    let (rows, mut pool) = (rows.host_rows::<T>(), pool.host_rows::<F8E4M3>());
    for (i, &slot) in slots.host_slice::<i32>().iter().enumerate() {
        for (stored, x) in pool.row_mut(slot as usize).iter_mut().zip(rows.row(i)) {
            *stored = F8E4M3::from_f32(x.to_f32());
        }
    }
}

fn typed_scatter_rows<T: HostElement>(rows: View<'_>, slots: View<'_>, pool: ViewMut<'_>) {
    let (rows, mut pool) = (rows.host_rows::<T>(), pool.host_rows::<T>());
    for (i, &slot) in slots.host_slice::<i32>().iter().enumerate() {
        pool.row_mut(slot as usize).copy_from_slice(rows.row(i));
    }
}

pub(crate) fn gather_ids(table: View<'_>, indices: View<'_>, out: ViewMut<'_>) {
    let (table, indices) = (table.host_slice::<i32>(), indices.host_slice::<i32>());
    for (out, &index) in out.host_slice::<i32>().iter_mut().zip(indices) {
        *out = table[index as usize];
    }
}

pub(crate) fn scatter_ids(values: View<'_>, indices: View<'_>, table: ViewMut<'_>) {
    let (values, table) = (values.host_slice::<i32>(), table.host_slice::<i32>());
    for (&value, &index) in values.iter().zip(indices.host_slice::<i32>()) {
        table[index as usize] = value;
    }
}
