//! Mixture of experts on the CPU. The ops have checked every index.
//!
//! Never knows: what the experts compute in between.

use half::bf16;

use super::simd::Operand;
use super::{CpuDevice, gemm};
use crate::{DType, Error, View, ViewMut};

pub(crate) fn route(logits: View<'_>, normalize: bool, weights: ViewMut<'_>, experts: ViewMut<'_>) {
    let logits = logits.host_rows::<f32>();
    let (mut weights, mut experts) = (weights.host_rows::<f32>(), experts.host_rows::<i32>());
    let mut order: Vec<usize> = (0..logits.row_len()).collect();
    for token in 0..logits.num_rows() {
        let logits = logits.row(token);
        let k = weights.row_len();
        // Descending, the lower id first among equals, NaN after every number.
        let before = |a: &usize, b: &usize| {
            let (x, y) = (logits[*a], logits[*b]);
            let by_value = x.is_nan().cmp(&y.is_nan()).then(y.total_cmp(&x));
            if x == y { a.cmp(b) } else { by_value.then(a.cmp(b)) }
        };
        order.select_nth_unstable_by(k - 1, before);
        order[..k].sort_unstable_by(before);
        let max = logits[order[0]];
        let total: f32 = logits.iter().map(|logit| (logit - max).exp()).sum();
        let row = weights.row_mut(token);
        for (weight, expert) in row.iter_mut().zip(&order) {
            *weight = (logits[*expert] - max).exp() / total;
        }
        if normalize {
            let total: f32 = row.iter().sum();
            row.iter_mut().for_each(|weight| *weight /= total);
        }
        for (id, expert) in experts.row_mut(token).iter_mut().zip(&order) {
            *id = *expert as i32;
        }
    }
}

pub(crate) fn group(
    experts: View<'_>,
    tokens: ViewMut<'_>,
    grouped_rows: ViewMut<'_>,
    offsets: ViewMut<'_>,
) {
    let k = experts.shape().dims()[1];
    let experts = experts.host_slice::<i32>();
    let (tokens, grouped_rows) = (tokens.host_slice::<i32>(), grouped_rows.host_slice::<i32>());
    let offsets = offsets.host_slice::<i32>();
    // Count, sum, place: a stable counting sort.
    offsets.fill(0);
    for &expert in experts {
        offsets[expert as usize + 1] += 1;
    }
    for expert in 1..offsets.len() {
        offsets[expert] += offsets[expert - 1];
    }
    let mut next = offsets.to_vec();
    for (pair, &expert) in experts.iter().enumerate() {
        let row = &mut next[expert as usize];
        tokens[*row as usize] = (pair / k) as i32;
        grouped_rows[pair] = *row;
        *row += 1;
    }
}

pub(crate) fn grouped_gemm(
    cpu: &CpuDevice,
    x: View<'_>,
    offsets: View<'_>,
    w: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let (n, k) = (w.shape().dims()[1], w.shape().dims()[2]);
    let offsets = offsets.host_slice::<i32>();
    for (expert, bounds) in offsets.windows(2).enumerate() {
        let rows = bounds[0] as usize..bounds[1] as usize;
        if !rows.is_empty() {
            let w = w.rows(expert..expert + 1)?.reshape([n, k])?;
            gemm::gemm(cpu, x.rows(rows.clone())?, w, None, out.reborrow().rows(rows)?);
        }
    }
    Ok(())
}

pub(crate) fn combine(
    cpu: &CpuDevice,
    x: View<'_>,
    weights: View<'_>,
    grouped_rows: View<'_>,
    out: ViewMut<'_>,
) {
    match x.dtype() {
        DType::Bf16 => typed_combine::<bf16>(cpu, x, weights, grouped_rows, out),
        _ => typed_combine::<f32>(cpu, x, weights, grouped_rows, out),
    }
}

fn typed_combine<T: Operand>(
    cpu: &CpuDevice,
    x: View<'_>,
    weights: View<'_>,
    grouped_rows: View<'_>,
    out: ViewMut<'_>,
) {
    let (x, weights) = (x.host_rows::<T>(), weights.host_rows::<f32>());
    let grouped_rows = grouped_rows.host_rows::<i32>();
    let cost = x.row_len() * weights.row_len();
    cpu.for_each_part(out.host_rows::<T>(), cost, |first, mut out| {
        let mut sum = vec![0f32; x.row_len()];
        for i in 0..out.num_rows() {
            sum.fill(0.0);
            let pairs = weights.row(first + i).iter().zip(grouped_rows.row(first + i));
            for (weight, row) in pairs {
                for (sum, value) in sum.iter_mut().zip(x.row(*row as usize)) {
                    *sum += weight * value.to_f32();
                }
            }
            for (out, sum) in out.row_mut(i).iter_mut().zip(&sum) {
                *out = T::from_f32(*sum);
            }
        }
    });
}
