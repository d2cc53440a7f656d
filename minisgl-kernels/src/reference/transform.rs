//! Matrix multiplication, norms and the rotary embedding.
//!
//! Never knows: how a backend orders its sums.

use super::matrix::{Matrix, MatrixMut};
use crate::ops::{KvStore, QkNorm, check};
use crate::{Error, View, ViewMut};

/// See [`ops::gemm`](crate::ops::gemm).
///
/// # Errors
/// Those of the op.
pub fn gemm(
    x: View<'_>,
    w: View<'_>,
    bias: Option<View<'_>>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check::gemm(x, w, bias, out.as_view())?;
    let (x, w, mut out) = (Matrix::new(x), Matrix::new(w), MatrixMut::new(out));
    let bias = bias.map(Matrix::new);
    for i in 0..x.num_rows() {
        for j in 0..w.num_rows() {
            let mut sum = bias.as_ref().map_or(0.0, |bias| f64::from(bias.get(0, j)));
            for l in 0..x.row_len() {
                sum += f64::from(x.get(i, l)) * f64::from(w.get(j, l));
            }
            out.set(i, j, sum as f32);
        }
    }
    Ok(())
}

/// See [`ops::rms_norm`](crate::ops::rms_norm).
///
/// # Errors
/// Those of the op.
pub fn rms_norm(x: View<'_>, weight: View<'_>, eps: f32, out: ViewMut<'_>) -> Result<(), Error> {
    check::rms_norm(x, weight, eps, out.as_view())?;
    let (x, weight, mut out) = (Matrix::new(x), Matrix::new(weight), MatrixMut::new(out));
    for i in 0..x.num_rows() {
        let scale = inverse_rms((0..x.row_len()).map(|j| x.get(i, j)), eps);
        for j in 0..x.row_len() {
            let normalized = out.round((f64::from(x.get(i, j)) * scale) as f32);
            out.set(i, j, normalized * weight.get(0, j));
        }
    }
    Ok(())
}

/// See [`ops::add_rms_norm`](crate::ops::add_rms_norm).
///
/// # Errors
/// Those of the op.
pub fn add_rms_norm(
    mut x: ViewMut<'_>,
    mut residual: ViewMut<'_>,
    weight: View<'_>,
    eps: f32,
) -> Result<(), Error> {
    check::add_rms_norm(x.as_view(), residual.as_view(), weight, eps)?;
    super::add(x.as_view(), residual.reborrow())?;
    rms_norm(residual.as_view(), weight, eps, x.reborrow())
}

/// See [`ops::qk_norm_rope`](crate::ops::qk_norm_rope).
///
/// # Errors
/// Those of the op.
pub fn qk_norm_rope(
    q: ViewMut<'_>,
    k: ViewMut<'_>,
    norm: Option<QkNorm<'_>>,
    positions: View<'_>,
    cos_sin: View<'_>,
) -> Result<(), Error> {
    check::qk_norm_rope(q.as_view(), k.as_view(), norm, positions, cos_sin)?;
    check::positions(positions, cos_sin)?;
    let head_dim = q.shape().dims()[2];
    let q_norm = norm.map(|norm| (Matrix::new(norm.q_weight), norm.eps));
    let k_norm = norm.map(|norm| (Matrix::new(norm.k_weight), norm.eps));
    norm_rope(MatrixMut::new(q), head_dim, q_norm, positions, cos_sin);
    norm_rope(MatrixMut::new(k), head_dim, k_norm, positions, cos_sin);
    Ok(())
}

/// See [`ops::qk_norm_rope_store`](crate::ops::qk_norm_rope_store).
///
/// # Errors
/// Those of the op.
pub fn qk_norm_rope_store(
    q: ViewMut<'_>,
    k: View<'_>,
    norm: Option<QkNorm<'_>>,
    positions: View<'_>,
    cos_sin: View<'_>,
    store: KvStore<'_>,
) -> Result<(), Error> {
    check::qk_norm_rope_store(q.as_view(), k, norm, positions, cos_sin, &store)?;
    check::slots(store.slots, store.k_pool.as_view())?;
    let (source, mut rotated) = (Matrix::new(k), k.device().zeros(k.dtype(), k.shape())?);
    let mut target = MatrixMut::new(rotated.view_mut());
    for i in 0..source.num_rows() {
        for j in 0..source.row_len() {
            target.set(i, j, source.get(i, j));
        }
    }
    qk_norm_rope(q, rotated.view_mut(), norm, positions, cos_sin)?;
    super::store_kv(rotated.view(), store.v, store.slots, store.k_pool, store.v_pool)
}

/// Each row of `x` holds the heads of one token.
fn norm_rope(
    mut x: MatrixMut<'_>,
    head_dim: usize,
    norm: Option<(Matrix<'_>, f32)>,
    positions: View<'_>,
    cos_sin: View<'_>,
) {
    let table = Matrix::new(cos_sin);
    let half = table.row_len() / 2;
    for (token, &position) in positions.host_slice::<i32>().iter().enumerate() {
        for head in (0..x.row_len()).step_by(head_dim.max(1)) {
            if let Some((weight, eps)) = &norm {
                let scale = inverse_rms((0..head_dim).map(|i| x.get(token, head + i)), *eps);
                for i in 0..head_dim {
                    let value = x.round((f64::from(x.get(token, head + i)) * scale) as f32);
                    x.set(token, head + i, value * weight.get(0, i));
                }
            }
            for i in 0..half {
                let cos = f64::from(table.get(position as usize, i));
                let sin = f64::from(table.get(position as usize, half + i));
                let a = f64::from(x.get(token, head + i));
                let b = f64::from(x.get(token, head + half + i));
                x.set(token, head + i, (a * cos - b * sin) as f32);
                x.set(token, head + half + i, (b * cos + a * sin) as f32);
            }
        }
    }
}

fn inverse_rms(row: impl ExactSizeIterator<Item = f32>, eps: f32) -> f64 {
    let len = row.len() as f64;
    let sum: f64 = row.map(|value| f64::from(value).powi(2)).sum();
    1.0 / (sum / len + f64::from(eps)).sqrt()
}
