//! Moving rows and ids by index.
//!
//! Never knows: what the rows or ids are.

use super::matrix::{Matrix, MatrixMut};
use crate::ops::check;
use crate::{Error, View, ViewMut};

/// See [`ops::embedding`](crate::ops::embedding).
///
/// # Errors
/// Those of the op.
pub fn embedding(
    ids: View<'_>,
    table: View<'_>,
    first_id: i32,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check::embedding(ids, table, out.as_view())?;
    let (table, mut out) = (Matrix::new(table), MatrixMut::new(out));
    for (token, &id) in ids.host_slice::<i32>().iter().enumerate() {
        let row = i64::from(id) - i64::from(first_id);
        let inside = (0..table.num_rows() as i64).contains(&row);
        for j in 0..out.row_len() {
            out.set(token, j, if inside { table.get(row as usize, j) } else { 0.0 });
        }
    }
    Ok(())
}

/// See [`ops::gather_rows`](crate::ops::gather_rows).
///
/// # Errors
/// Those of the op.
pub fn gather_rows(x: View<'_>, indices: View<'_>, out: ViewMut<'_>) -> Result<(), Error> {
    check::gather_rows(x, indices, out.as_view())?;
    check::indices("gather_rows", indices, x)?;
    let (x, mut out) = (Matrix::new(x), MatrixMut::new(out));
    for (i, &index) in indices.host_slice::<i32>().iter().enumerate() {
        for j in 0..out.row_len() {
            out.set(i, j, x.get(index as usize, j));
        }
    }
    Ok(())
}

/// See [`ops::store_kv`](crate::ops::store_kv). Of tokens with the same slot the last wins.
///
/// # Errors
/// Those of the op.
pub fn store_kv(
    k: View<'_>,
    v: View<'_>,
    slots: View<'_>,
    k_pool: ViewMut<'_>,
    v_pool: ViewMut<'_>,
) -> Result<(), Error> {
    check::store_kv(k, v, slots, k_pool.as_view(), v_pool.as_view())?;
    check::slots(slots, k_pool.as_view())?;
    for (rows, pool) in [(k, k_pool), (v, v_pool)] {
        let (rows, mut pool) = (Matrix::new(rows), MatrixMut::new(pool));
        for (i, &slot) in slots.host_slice::<i32>().iter().enumerate() {
            for j in 0..rows.row_len() {
                pool.set(slot as usize, j, rows.get(i, j));
            }
        }
    }
    Ok(())
}

/// See [`ops::gather_ids`](crate::ops::gather_ids).
///
/// # Errors
/// Those of the op.
pub fn gather_ids(table: View<'_>, indices: View<'_>, out: ViewMut<'_>) -> Result<(), Error> {
    check::ids("gather_ids", table, indices, ("out", out.as_view()))?;
    check::indices("gather_ids", indices, table)?;
    let (table, out) = (table.host_slice::<i32>(), out.host_slice::<i32>());
    for (i, &index) in indices.host_slice::<i32>().iter().enumerate() {
        out[i] = table[index as usize];
    }
    Ok(())
}

/// See [`ops::scatter_ids`](crate::ops::scatter_ids). Of values with the same index the last wins.
///
/// # Errors
/// Those of the op.
pub fn scatter_ids(values: View<'_>, indices: View<'_>, table: ViewMut<'_>) -> Result<(), Error> {
    check::ids("scatter_ids", table.as_view(), indices, ("values", values))?;
    check::indices("scatter_ids", indices, table.as_view())?;
    let (values, table) = (values.host_slice::<i32>(), table.host_slice::<i32>());
    for (i, &index) in indices.host_slice::<i32>().iter().enumerate() {
        table[index as usize] = values[i];
    }
    Ok(())
}
