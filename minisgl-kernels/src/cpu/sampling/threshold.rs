//! Radix search for the threshold of top-k and top-p.
//!
//! Never knows: how histograms are combined over shards.

use super::mass::Softmax;
use super::{Segment, map_segments, num_segments};
use crate::cpu::CpuDevice;
use crate::cpu::simd::{Kernel, LANES, Simd};
use crate::ops::sampling::{NUM_BINS, ROUNDS, ThresholdMode, ThresholdState, key_of, value_of};
use crate::{View, ViewMut};

/// How far the byte of `round` is from the low end of the key.
fn shift_of(round: usize) -> u32 {
    8 * (ROUNDS - 1 - round) as u32
}

fn takes_part(mode: i32) -> bool {
    mode != ThresholdMode::Off as i32
}

pub(crate) fn threshold_histogram(
    cpu: &CpuDevice,
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    state: &ThresholdState<'_>,
    round: usize,
    hist: ViewMut<'_>,
) {
    let logits = logits.host_rows::<f32>();
    let row_max = row_max.host_slice::<f32>();
    let inv_temperature = inv_temperature.host_slice::<f32>();
    let mode = state.mode.host_slice::<i32>();
    let prefix = state.prefix.as_view().host_slice::<i32>();
    let parts =
        map_segments(cpu, logits, 2, [0f32; NUM_BINS], |Segment { row, logits, .. }| {
            if !takes_part(mode[row]) {
                return [0.0; NUM_BINS];
            }
            let softmax = Softmax { max: row_max[row], inv_temperature: inv_temperature[row] };
            let softmax = (mode[row] == ThresholdMode::Mass as i32).then_some(softmax);
            cpu.isa().run(Histogram { logits, softmax, prefix: prefix[row] as u32, round })
        });
    let mut hist = hist.host_rows::<f32>();
    for (row, parts) in parts.chunks_exact(num_segments(logits)).enumerate() {
        if takes_part(mode[row]) {
            let bins = hist.row_mut(row);
            bins.fill(0.0);
            for part in parts {
                for (bin, part) in bins.iter_mut().zip(part) {
                    *bin += part;
                }
            }
        }
    }
}

/// The histogram of a segment; of masses if there is a softmax, else of counts.
struct Histogram<'a> {
    logits: &'a [f32],
    softmax: Option<Softmax>,
    prefix: u32,
    round: usize,
}

impl Kernel for Histogram<'_> {
    type Output = [f32; NUM_BINS];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f32; NUM_BINS] {
        let shift = shift_of(self.round);
        // The bytes above this round's: none in the first round.
        let fixed = (u64::from(u32::MAX) << (shift + 8)) as u32;
        let mut bins = [0f32; NUM_BINS];
        for step in self.logits.chunks(LANES) {
            // Keys and masses are vector code; only what falls into a bin is done one by one.
            let mut keys = [0u32; LANES];
            let mut inside = false;
            for (key, &x) in keys.iter_mut().zip(step) {
                *key = key_of(x);
                inside |= *key & fixed == self.prefix & fixed;
            }
            if !inside {
                continue;
            }
            let mut weights = [1f32; LANES];
            if let Some(softmax) = self.softmax {
                for (weight, &x) in weights.iter_mut().zip(step) {
                    *weight = softmax.mass(simd, x);
                }
            }
            for (key, weight) in keys.iter().zip(weights).take(step.len()) {
                if key & fixed == self.prefix & fixed {
                    bins[(key >> shift) as usize % NUM_BINS] += weight;
                }
            }
        }
        bins
    }
}

pub(crate) fn threshold_refine(hist: View<'_>, state: &mut ThresholdState<'_>, round: usize) {
    let hist = hist.host_rows::<f32>();
    let mode = state.mode.host_slice::<i32>();
    let prefix = state.prefix.reborrow().host_slice::<i32>();
    let remaining = state.remaining.reborrow().host_slice::<f32>();
    for row in (0..mode.len()).filter(|&row| takes_part(mode[row])) {
        let bins = hist.row(row);
        let mut above = 0.0;
        // The lowest bin that is not empty so far, and what lies above it.
        let (mut chosen, mut above_chosen) = (0, 0.0);
        for bin in (0..NUM_BINS).rev().filter(|&bin| bins[bin] > 0.0) {
            (chosen, above_chosen) = (bin, above);
            above += bins[bin];
            if above >= remaining[row] {
                break;
            }
        }
        prefix[row] |= (chosen as i32) << shift_of(round);
        remaining[row] -= above_chosen;
    }
}

pub(crate) fn raise_threshold(state: &ThresholdState<'_>, threshold: ViewMut<'_>) {
    let mode = state.mode.host_slice::<i32>();
    let prefix = state.prefix.as_view().host_slice::<i32>();
    for (row, threshold) in threshold.host_slice::<f32>().iter_mut().enumerate() {
        if takes_part(mode[row]) {
            *threshold = threshold.max(value_of(prefix[row] as u32));
        }
    }
}
