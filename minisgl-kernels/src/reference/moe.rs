//! Mixture of experts.
//!
//! Never knows: what the experts compute in between.

use super::matrix::{Matrix, MatrixMut};
use super::transform::gemm;
use crate::ops::check;
use crate::{Error, View, ViewMut};

/// See [`ops::moe::route`](crate::ops::moe::route).
///
/// # Errors
/// Those of the op.
pub fn route(
    logits: View<'_>,
    normalize: bool,
    weights: ViewMut<'_>,
    experts: ViewMut<'_>,
) -> Result<(), Error> {
    check::route(logits, weights.as_view(), experts.as_view())?;
    let (logits, mut weights) = (Matrix::new(logits), MatrixMut::new(weights));
    let mut experts = experts.host_rows::<i32>();
    for token in 0..logits.num_rows() {
        let logit = |expert: usize| f64::from(logits.get(token, expert));
        let total: f64 = (0..logits.row_len()).map(|expert| logit(expert).exp()).sum();
        let mut chosen: Vec<usize> = Vec::new();
        for _ in 0..weights.row_len() {
            let left = (0..logits.row_len()).filter(|expert| !chosen.contains(expert));
            let best = left.reduce(|best, other| {
                let better = logit(other) > logit(best);
                let first_number = logit(best).is_nan() && !logit(other).is_nan();
                if better || first_number { other } else { best }
            });
            chosen.extend(best);
        }
        let probability = |expert: &usize| logit(*expert).exp() / total;
        let sum: f64 = if normalize { chosen.iter().map(probability).sum() } else { 1.0 };
        for (j, expert) in chosen.iter().enumerate() {
            weights.set(token, j, (probability(expert) / sum) as f32);
            experts.row_mut(token)[j] = *expert as i32;
        }
    }
    Ok(())
}

/// See [`ops::moe::group`](crate::ops::moe::group).
///
/// # Errors
/// Those of the op.
pub fn group(
    experts: View<'_>,
    tokens: ViewMut<'_>,
    grouped_rows: ViewMut<'_>,
    offsets: ViewMut<'_>,
) -> Result<(), Error> {
    check::group(experts, tokens.as_view(), grouped_rows.as_view(), offsets.as_view())?;
    check::experts(experts, offsets.as_view())?;
    let k = experts.shape().dims()[1];
    let (tokens, grouped_rows) = (tokens.host_slice::<i32>(), grouped_rows.host_slice::<i32>());
    let offsets = offsets.host_slice::<i32>();
    let mut row = 0;
    for (expert, offset) in offsets.iter_mut().enumerate() {
        *offset = row;
        for (pair, &of) in experts.host_slice::<i32>().iter().enumerate() {
            if of == expert as i32 {
                tokens[row as usize] = (pair / k) as i32;
                grouped_rows[pair] = row;
                row += 1;
            }
        }
    }
    Ok(())
}

/// See [`ops::moe::grouped_gemm`](crate::ops::moe::grouped_gemm).
///
/// # Errors
/// Those of the op.
pub fn grouped_gemm(
    x: View<'_>,
    offsets: View<'_>,
    w: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    check::grouped_gemm(x, offsets, w, out.as_view())?;
    check::offsets(offsets, x)?;
    let (n, k) = (w.shape().dims()[1], w.shape().dims()[2]);
    for (expert, bounds) in offsets.host_slice::<i32>().windows(2).enumerate() {
        let rows = bounds[0] as usize..bounds[1] as usize;
        let w = w.rows(expert..expert + 1)?.reshape([n, k])?;
        gemm(x.rows(rows.clone())?, w, None, out.reborrow().rows(rows)?)?;
    }
    Ok(())
}

/// See [`ops::moe::combine`](crate::ops::moe::combine).
///
/// # Errors
/// Those of the op.
pub fn combine(
    x: View<'_>,
    weights: View<'_>,
    grouped_rows: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check::combine(x, weights, grouped_rows, out.as_view())?;
    check::grouped_rows(x, grouped_rows)?;
    let (x, weights) = (Matrix::new(x), Matrix::new(weights));
    let (rows, mut out) = (grouped_rows.host_rows::<i32>(), MatrixMut::new(out));
    for token in 0..weights.num_rows() {
        for j in 0..x.row_len() {
            let term = |pair: usize| {
                let row = rows.row(token)[pair] as usize;
                f64::from(weights.get(token, pair)) * f64::from(x.get(row, j))
            };
            out.set(token, j, (0..weights.row_len()).map(term).sum::<f64>() as f32);
        }
    }
    Ok(())
}
