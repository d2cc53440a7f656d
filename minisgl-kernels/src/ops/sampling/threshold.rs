//! The threshold of top-k and top-p by radix search.
//!
//! Never knows: `k` or `p` as such; a row has a target, which is a count or a probability mass.

use crate::ops::check::Check;
use crate::{DType, Error, Stream, View, ViewMut, cpu, cuda};

/// How many rounds fix a whole key: one per byte.
pub const ROUNDS: usize = 4;

/// How many values a byte has.
pub const NUM_BINS: usize = 256;

/// What a row's target counts. Stored in tensors as its `i32` value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum ThresholdMode {
    /// The row takes no part: its state and histogram row stay as they are.
    Off = 0,
    /// Elements: the target is `k` of top-k.
    Count = 1,
    /// Sums of `exp((x - row_max) · inv_temperature)`: the target is `p` of top-p times the sum
    /// over the row (all shards).
    Mass = 2,
}

/// The state of the search, on the device, one element per row.
#[derive(Debug)]
pub struct ThresholdState<'a> {
    /// `[n]` i32: a [`ThresholdMode`] for each row.
    pub mode: View<'a>,
    /// `[n]` i32: the bytes of the key found so far, in place, and zeros below them. All zeros
    /// before the first round.
    pub prefix: ViewMut<'a>,
    /// `[n]` f32: what of the target is left to find under the prefix. The whole target, which is
    /// positive, before the first round.
    pub remaining: ViewMut<'a>,
}

/// The u32 whose unsigned order is the order of floats: for numbers, `a < b` if and only if
/// `key_of(a) < key_of(b)`, save that -0 comes before +0.
#[inline]
pub fn key_of(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 }
}

/// The number with the key `key`. Keys below that of -inf, which no number has, give -inf.
pub fn value_of(key: u32) -> f32 {
    if key < key_of(f32::NEG_INFINITY) {
        return f32::NEG_INFINITY;
    }
    f32::from_bits(if key >> 31 == 1 { key & 0x7fff_ffff } else { !key })
}

/// One round's histogram: of the elements whose key starts with the row's prefix, by the key's
/// byte `round` (0 is the highest), their number or their mass.
///
/// - `logits`: `[n, v_local]` f32, `v_local` at least 1.
/// - `row_max`, `inv_temperature`: `[n]` f32, as for [`sum_exp`](super::sum_exp). Read for rows
///   that search by mass only.
/// - `round`: in `0..ROUNDS`.
/// - `hist`: `[n, 256]` f32, overwritten. Counts are exact up to 2²⁴.
///
/// # Errors
/// [`Error::Parameter`] if `round` is out of range or there are no columns, [`Error::Index`] if a
/// mode is none.
pub fn threshold_histogram(
    stream: &Stream,
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    state: &ThresholdState<'_>,
    round: usize,
    hist: ViewMut<'_>,
) -> Result<(), Error> {
    check_histogram(logits, row_max, inv_temperature, state, round, hist.as_view())?;
    match stream {
        Stream::Cpu(stream) => {
            check_modes("threshold_histogram", state)?;
            cpu::sampling::threshold_histogram(
                stream.cpu(),
                logits,
                row_max,
                inv_temperature,
                state,
                round,
                hist,
            );
        }
        Stream::Cuda(stream) => cuda::ops::threshold_histogram(
            stream,
            logits,
            row_max,
            inv_temperature,
            state,
            round,
            hist,
        )?,
    }
    Ok(())
}

pub(crate) fn check_histogram(
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    state: &ThresholdState<'_>,
    round: usize,
    hist: View<'_>,
) -> Result<(), Error> {
    let check = Check::of("threshold_histogram");
    let [n, _] = check.logits(logits, 0)?;
    check.tensor("row_max", row_max, DType::F32, [n])?;
    check.tensor("inv_temperature", inv_temperature, DType::F32, [n])?;
    check_state(check, state, n)?;
    check_round(check, round)?;
    check.tensor("hist", hist, DType::F32, [n, NUM_BINS])
}

/// One round's decision: from the highest bin down, adds up `hist` until the row's remaining
/// target is reached, makes that bin the next byte of the prefix, and takes what lies above it off
/// the target.
///
/// If rounding, or a target beyond the total, leaves it unreached, the lowest bin that is not
/// empty is taken, so that everything is kept.
///
/// - `hist`: `[n, 256]` f32, summed over all shards.
/// - `round`: the round `hist` is of.
///
/// # Errors
/// [`Error::Parameter`] if `round` is out of range, [`Error::Index`] if a mode is none.
pub fn threshold_refine(
    stream: &Stream,
    hist: View<'_>,
    state: &mut ThresholdState<'_>,
    round: usize,
) -> Result<(), Error> {
    check_refine(hist, state, round)?;
    match stream {
        Stream::Cpu(_) => {
            check_modes("threshold_refine", state)?;
            cpu::sampling::threshold_refine(hist, state, round);
        }
        Stream::Cuda(stream) => cuda::ops::threshold_refine(stream, hist, state, round)?,
    }
    Ok(())
}

pub(crate) fn check_refine(
    hist: View<'_>,
    state: &ThresholdState<'_>,
    round: usize,
) -> Result<(), Error> {
    let check = Check::of("threshold_refine");
    let [n, _] = check.dims("hist", hist)?;
    check.tensor("hist", hist, DType::F32, [n, NUM_BINS])?;
    check_state(check, state, n)?;
    check_round(check, round)
}

/// After the last round: `threshold = max(threshold, value_of(prefix))` for the rows that take
/// part. The found value is the largest for which the count (or mass) of the elements at or above
/// it reaches the target.
///
/// - `threshold`: `[n]` f32, for [`gumbel_argmax`](super::gumbel_argmax). -inf to start from.
///
/// # Errors
/// [`Error::Index`] if a mode is none.
pub fn raise_threshold(
    stream: &Stream,
    state: &ThresholdState<'_>,
    threshold: ViewMut<'_>,
) -> Result<(), Error> {
    check_raise(state, threshold.as_view())?;
    match stream {
        Stream::Cpu(_) => {
            check_modes("raise_threshold", state)?;
            cpu::sampling::raise_threshold(state, threshold);
        }
        Stream::Cuda(stream) => cuda::ops::raise_threshold(stream, state, threshold)?,
    }
    Ok(())
}

pub(crate) fn check_raise(state: &ThresholdState<'_>, threshold: View<'_>) -> Result<(), Error> {
    let check = Check::of("raise_threshold");
    let [n] = check.dims("threshold", threshold)?;
    check.tensor("threshold", threshold, DType::F32, [n])?;
    check_state(check, state, n)
}

fn check_state(check: Check, state: &ThresholdState<'_>, n: usize) -> Result<(), Error> {
    check.tensor("mode", state.mode, DType::I32, [n])?;
    check.tensor("prefix", state.prefix.as_view(), DType::I32, [n])?;
    check.tensor("remaining", state.remaining.as_view(), DType::F32, [n])
}

fn check_round(check: Check, round: usize) -> Result<(), Error> {
    if round < ROUNDS {
        return Ok(());
    }
    Err(check.parameter("round", round, "0, 1, 2 or 3"))
}

fn check_modes(op: &'static str, state: &ThresholdState<'_>) -> Result<(), Error> {
    Check::of(op).indices("mode", state.mode.host_slice(), ThresholdMode::Mass as usize + 1)
}
