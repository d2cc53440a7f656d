//! Sums of exponentials.
//!
//! Never knows: how results are combined over shards.

use super::{Segment, map_segments, num_segments};
use crate::cpu::CpuDevice;
use crate::cpu::math::exp;
use crate::cpu::simd::{Kernel, LANES, Simd};
use crate::{View, ViewMut};

/// How the logits of a row become masses.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    pub(super) max: f32,
    pub(super) inv_temperature: f32,
}

impl Softmax {
    #[inline(always)]
    pub(super) fn mass<S: Simd>(self, simd: S, logit: f32) -> f32 {
        exp(simd, (logit - self.max) * self.inv_temperature)
    }
}

pub(crate) fn sum_exp(
    cpu: &CpuDevice,
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    threshold: Option<View<'_>>,
    out: ViewMut<'_>,
) {
    let logits = logits.host_rows::<f32>();
    let (row_max, inv_temperature) =
        (row_max.host_slice::<f32>(), inv_temperature.host_slice::<f32>());
    let threshold = threshold.map(|threshold| threshold.host_slice::<f32>());
    let sums = map_segments(cpu, logits, 2, 0.0, |Segment { row, logits, .. }| {
        let softmax = Softmax { max: row_max[row], inv_temperature: inv_temperature[row] };
        let threshold = threshold.map_or(f32::NEG_INFINITY, |threshold| threshold[row]);
        cpu.isa().run(SumExp { logits, softmax, threshold })
    });
    let rows = sums.chunks_exact(num_segments(logits));
    for (out, segments) in out.host_slice::<f32>().iter_mut().zip(rows) {
        *out = segments.iter().sum();
    }
}

/// The mass of the logits of a segment that are at least the threshold.
struct SumExp<'a> {
    logits: &'a [f32],
    softmax: Softmax,
    threshold: f32,
}

impl Kernel for SumExp<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let (steps, tail) = self.logits.as_chunks::<LANES>();
        let mut padded = [f32::NEG_INFINITY; LANES];
        padded[..tail.len()].copy_from_slice(tail);
        let mut lanes = [0f32; LANES];
        for step in steps.iter().chain([&padded]) {
            for (lane, &x) in lanes.iter_mut().zip(step) {
                let mass = self.softmax.mass(simd, x);
                *lane += if x < self.threshold { 0.0 } else { mass };
            }
        }
        simd.reduce_add(simd.load(&lanes))
    }
}
