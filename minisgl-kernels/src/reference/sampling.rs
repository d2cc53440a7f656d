//! Sampling, one row after the other.
//!
//! Never knows: how a backend cuts the vocabulary.

use crate::ops::check;
use crate::ops::sampling::{NUM_BINS, ROUNDS, ThresholdMode, ThresholdState, key_of, uniform};
use crate::{Error, View, ViewMut};

/// See [`ops::sampling::argmax`](crate::ops::sampling::argmax).
///
/// # Errors
/// Those of the op.
pub fn argmax(
    logits: View<'_>,
    first_id: i32,
    out_value: ViewMut<'_>,
    out_id: ViewMut<'_>,
) -> Result<(), Error> {
    check::argmax(logits, first_id, out_value.as_view(), out_id.as_view())?;
    let logits = logits.host_rows::<f32>();
    let (out_value, out_id) = (out_value.host_slice::<f32>(), out_id.host_slice::<i32>());
    for i in 0..logits.num_rows() {
        (out_value[i], out_id[i]) = largest(logits.row(i), first_id, |x, _| Some(x));
    }
    Ok(())
}

/// See [`ops::sampling::gumbel_argmax`](crate::ops::sampling::gumbel_argmax).
///
/// # Errors
/// Those of the op.
#[expect(clippy::too_many_arguments, reason = "the arguments of the op")]
pub fn gumbel_argmax(
    logits: View<'_>,
    inv_temperature: View<'_>,
    threshold: View<'_>,
    seeds: View<'_>,
    positions: View<'_>,
    first_id: i32,
    out_value: ViewMut<'_>,
    out_id: ViewMut<'_>,
) -> Result<(), Error> {
    let outs = (out_value.as_view(), out_id.as_view());
    check::gumbel_argmax(logits, inv_temperature, threshold, (seeds, positions), first_id, outs)?;
    let logits = logits.host_rows::<f32>();
    let inv_temperature = inv_temperature.host_slice::<f32>();
    let threshold = threshold.host_slice::<f32>();
    let (seeds, positions) = (seeds.host_slice::<u64>(), positions.host_slice::<i32>());
    let (out_value, out_id) = (out_value.host_slice::<f32>(), out_id.host_slice::<i32>());
    for i in 0..logits.num_rows() {
        (out_value[i], out_id[i]) = largest(logits.row(i), first_id, |x, id| {
            let noise = -(-(-f64::from(uniform(seeds[i], positions[i], id))).ln_1p()).ln();
            let sum = f64::from(x) * f64::from(inv_temperature[i]) + noise;
            (x >= threshold[i] && x > f32::NEG_INFINITY).then_some(sum as f32)
        });
    }
    Ok(())
}

/// The largest score among the elements that have one, and its id.
fn largest(row: &[f32], first_id: i32, score: impl Fn(f32, i32) -> Option<f32>) -> (f32, i32) {
    if row.iter().any(|x| x.is_nan() || *x == f32::INFINITY) {
        return (f32::NAN, -1);
    }
    let mut best: Option<(f32, i32)> = None;
    for (&x, id) in row.iter().zip(first_id..) {
        if let Some(score) = score(x, id)
            && best.is_none_or(|(value, _)| score > value)
        {
            best = Some((score, id));
        }
    }
    best.unwrap_or((f32::NEG_INFINITY, -1))
}

/// See [`ops::sampling::sum_exp`](crate::ops::sampling::sum_exp).
///
/// # Errors
/// Those of the op.
pub fn sum_exp(
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    sum_exp_from(logits, row_max, inv_temperature, None, out)
}

/// See [`ops::sampling::sum_exp_above`](crate::ops::sampling::sum_exp_above).
///
/// # Errors
/// Those of the op.
pub fn sum_exp_above(
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    threshold: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    sum_exp_from(logits, row_max, inv_temperature, Some(threshold), out)
}

fn sum_exp_from(
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    threshold: Option<View<'_>>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check::sum_exp(logits, row_max, inv_temperature, threshold, out.as_view())?;
    let logits = logits.host_rows::<f32>();
    let (row_max, inv_temperature) = (row_max.host_slice(), inv_temperature.host_slice());
    let threshold = threshold.map(|threshold| threshold.host_slice::<f32>());
    for (i, out) in out.host_slice::<f32>().iter_mut().enumerate() {
        let least = threshold.map_or(f32::NEG_INFINITY, |threshold| threshold[i]);
        let kept = logits.row(i).iter().filter(|&&x| x >= least);
        *out = kept.map(|&x| mass(x, row_max[i], inv_temperature[i])).sum::<f64>() as f32;
    }
    Ok(())
}

fn mass(x: f32, row_max: f32, inv_temperature: f32) -> f64 {
    ((f64::from(x) - f64::from(row_max)) * f64::from(inv_temperature)).exp()
}

/// See [`ops::sampling::top_n`](crate::ops::sampling::top_n).
///
/// # Errors
/// Those of the op.
pub fn top_n(
    logits: View<'_>,
    first_id: i32,
    out_values: ViewMut<'_>,
    out_ids: ViewMut<'_>,
) -> Result<(), Error> {
    check::top_n(logits, first_id, out_values.as_view(), out_ids.as_view())?;
    let logits = logits.host_rows::<f32>();
    let (mut values, mut ids) = (out_values.host_rows::<f32>(), out_ids.host_rows::<i32>());
    for i in 0..logits.num_rows() {
        let mut row: Vec<(f32, i32)> = logits.row(i).iter().copied().zip(first_id..).collect();
        row.retain(|(x, _)| !x.is_nan());
        // The sort is stable, so equal values (-0 and +0 too) stay in the order of their ids.
        row.sort_by(|(a, _), (b, _)| b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal));
        for j in 0..values.row_len() {
            let (value, id) = row.get(j).copied().unwrap_or((f32::NEG_INFINITY, -1));
            (values.row_mut(i)[j], ids.row_mut(i)[j]) = (value, id);
        }
    }
    Ok(())
}

/// See [`ops::sampling::threshold_histogram`](crate::ops::sampling::threshold_histogram).
///
/// # Errors
/// Those of the op.
pub fn threshold_histogram(
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    state: &ThresholdState<'_>,
    round: usize,
    hist: ViewMut<'_>,
) -> Result<(), Error> {
    check::threshold_histogram(logits, row_max, inv_temperature, state, round, hist.as_view())?;
    let logits = logits.host_rows::<f32>();
    let (row_max, inv_temperature) = (row_max.host_slice(), inv_temperature.host_slice());
    let (mode, prefix) = (state.mode.host_slice::<i32>(), state.prefix.as_view().host_slice());
    let mut hist = hist.host_rows::<f32>();
    for i in 0..logits.num_rows() {
        if mode[i] == ThresholdMode::Off as i32 {
            continue;
        }
        let mut sums = [0f64; NUM_BINS];
        for &x in logits.row(i) {
            let key = key_of(x).to_be_bytes();
            let prefix: [u8; ROUNDS] = i32::to_be_bytes(prefix[i]);
            if key[..round] == prefix[..round] {
                let by_mass = mode[i] == ThresholdMode::Mass as i32;
                let weight = if by_mass { mass(x, row_max[i], inv_temperature[i]) } else { 1.0 };
                sums[usize::from(key[round])] += weight;
            }
        }
        for (bin, sum) in hist.row_mut(i).iter_mut().zip(sums) {
            *bin = sum as f32;
        }
    }
    Ok(())
}

/// See [`ops::sampling::threshold_refine`](crate::ops::sampling::threshold_refine).
///
/// # Errors
/// Those of the op.
pub fn threshold_refine(
    hist: View<'_>,
    state: &mut ThresholdState<'_>,
    round: usize,
) -> Result<(), Error> {
    check::threshold_refine(hist, state, round)?;
    let hist = hist.host_rows::<f32>();
    let mode = state.mode.host_slice::<i32>();
    let prefix = state.prefix.reborrow().host_slice::<i32>();
    let remaining = state.remaining.reborrow().host_slice::<f32>();
    for i in 0..mode.len() {
        if mode[i] == ThresholdMode::Off as i32 {
            continue;
        }
        let row = hist.row(i);
        let above = |bin: usize| row[bin + 1..].iter().rev().sum::<f32>();
        let reached = |&bin: &usize| above(bin) + row[bin] >= remaining[i];
        let lowest = (0..NUM_BINS).find(|&bin| row[bin] > 0.0).unwrap_or(0);
        let chosen = (0..NUM_BINS).rev().find(reached).unwrap_or(lowest);
        remaining[i] -= above(chosen);
        prefix[i] |= (chosen as i32) << (8 * (ROUNDS - 1 - round));
    }
    Ok(())
}
