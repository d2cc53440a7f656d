//! The largest logits and scores.
//!
//! Never knows: how results are combined over shards.

use super::{Segment, map_segments, num_segments};
use crate::cpu::CpuDevice;
use crate::cpu::math::{ln, ln_one_minus};
use crate::cpu::simd::{Isa, Kernel, LANES, Simd};
use crate::random;
use crate::{View, ViewMut};

/// The largest score of some elements and the id it belongs to.
#[derive(Clone, Copy)]
struct Best {
    value: f32,
    id: i32,
}

impl Best {
    /// No element yet.
    const NONE: Self = Self { value: f32::NEG_INFINITY, id: -1 };
    /// NaN or +inf is among the elements.
    const BROKEN: Self = Self { value: f32::NAN, id: -1 };

    /// The better of `self` and a later `other`.
    fn or(self, other: Self) -> Self {
        if self.value.is_nan() || other.id == -1 && !other.value.is_nan() {
            return self;
        }
        if other.value.is_nan() || self.id == -1 || other.value > self.value { other } else { self }
    }
}

pub(crate) fn argmax(
    cpu: &CpuDevice,
    logits: View<'_>,
    first_id: i32,
    out_value: ViewMut<'_>,
    out_id: ViewMut<'_>,
) {
    let logits = logits.host_rows::<f32>();
    let bests = map_segments(cpu, logits, 1, Best::NONE, |segment| {
        let first_id = first_id + segment.column as i32;
        cpu.isa().run(Largest { logits: segment.logits, first_id, score: Plain })
    });
    write_bests(&bests, num_segments(logits), out_value, out_id);
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the op")]
pub(crate) fn gumbel_argmax(
    cpu: &CpuDevice,
    logits: View<'_>,
    inv_temperature: View<'_>,
    threshold: View<'_>,
    (seeds, positions): (View<'_>, View<'_>),
    first_id: i32,
    out_value: ViewMut<'_>,
    out_id: ViewMut<'_>,
) {
    let logits = logits.host_rows::<f32>();
    let inv_temperature = inv_temperature.host_slice::<f32>();
    let threshold = threshold.host_slice::<f32>();
    let (seeds, positions) = (seeds.host_slice::<u64>(), positions.host_slice::<i32>());
    let bests = map_segments(cpu, logits, 8, Best::NONE, |Segment { row, column, logits }| {
        let score = Gumbel {
            inv_temperature: inv_temperature[row],
            threshold: threshold[row],
            key: random::position_key(seeds[row], positions[row]),
        };
        cpu.isa().run(Largest { logits, first_id: first_id + column as i32, score })
    });
    write_bests(&bests, num_segments(logits), out_value, out_id);
}

fn write_bests(bests: &[Best], per_row: usize, out_value: ViewMut<'_>, out_id: ViewMut<'_>) {
    let outs = out_value.host_slice::<f32>().iter_mut().zip(out_id.host_slice::<i32>());
    for (segments, (value, id)) in bests.chunks_exact(per_row).zip(outs) {
        let best = segments.iter().fold(Best::NONE, |best, &segment| best.or(segment));
        (*value, *id) = (best.value, best.id);
    }
}

/// What is compared in place of a logit.
trait Score: Copy {
    /// The score of a finite logit or -inf. -inf if the element is excluded.
    fn of<S: Simd>(self, simd: S, logit: f32, id: i32) -> f32;
    /// Whether an element with the score -inf may win.
    const MAY_BE_NEG_INFINITY: bool;
}

/// The logit itself.
#[derive(Clone, Copy)]
struct Plain;

impl Score for Plain {
    const MAY_BE_NEG_INFINITY: bool = true;

    #[inline(always)]
    fn of<S: Simd>(self, _simd: S, logit: f32, _id: i32) -> f32 {
        logit
    }
}

/// The scaled logit plus Gumbel noise.
#[derive(Clone, Copy)]
struct Gumbel {
    inv_temperature: f32,
    threshold: f32,
    key: u64,
}

impl Score for Gumbel {
    const MAY_BE_NEG_INFINITY: bool = false;

    #[inline(always)]
    fn of<S: Simd>(self, simd: S, logit: f32, id: i32) -> f32 {
        let exponential = -ln_one_minus(simd, random::uniform(self.key, id));
        let score = simd.mul_add_scalar(logit, self.inv_temperature, -ln(simd, exponential));
        if logit >= self.threshold { score } else { f32::NEG_INFINITY }
    }
}

/// Whether a logit leaves its row without a meaningful token.
#[inline(always)]
fn breaks(logit: f32) -> bool {
    logit.is_nan() || logit == f32::INFINITY
}

/// The largest score of a segment.
struct Largest<'a, C> {
    logits: &'a [f32],
    first_id: i32,
    score: C,
}

impl<C: Score> Kernel for Largest<'_, C> {
    type Output = Best;

    /// Keeps a maximum per lane and the step it came from, and looks at the lanes in the end.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Best {
        let (steps, tail) = self.logits.as_chunks::<LANES>();
        let mut values = [f32::NEG_INFINITY; LANES];
        let mut ids = [-1i32; LANES];
        let mut broken = [false; LANES];
        let mut update = |step: &[f32; LANES], base: i32| {
            for lane in 0..LANES {
                let id = base + lane as i32;
                let score = self.score.of(simd, step[lane], id);
                let first = C::MAY_BE_NEG_INFINITY && ids[lane] == -1;
                let better = score > values[lane] || first;
                values[lane] = if better { score } else { values[lane] };
                ids[lane] = if better { id } else { ids[lane] };
                broken[lane] |= breaks(step[lane]);
            }
        };
        let mut base = self.first_id;
        for step in steps {
            update(step, base);
            base += LANES as i32;
        }
        let mut best = Best::NONE;
        for lane in 0..LANES {
            let (value, id) = (values[lane], ids[lane]);
            let better = id != -1
                && (best.id == -1 || value > best.value || value == best.value && id < best.id);
            best = if better { Best { value, id } } else { best };
        }
        for (&logit, id) in tail.iter().zip(base..) {
            let value = self.score.of(simd, logit, id);
            let counts = C::MAY_BE_NEG_INFINITY || value > f32::NEG_INFINITY;
            best = if counts { best.or(Best { value, id }) } else { best };
        }
        let broken = broken.contains(&true) || tail.iter().any(|&x| breaks(x));
        if broken { Best::BROKEN } else { best }
    }
}

pub(crate) fn top_n(
    cpu: &CpuDevice,
    logits: View<'_>,
    first_id: i32,
    out_values: ViewMut<'_>,
    out_ids: ViewMut<'_>,
) {
    let logits = logits.host_rows::<f32>();
    let outs = (out_values.host_rows::<f32>(), out_ids.host_rows::<i32>());
    cpu.for_each_part(outs, logits.row_len() / 4, |first, (mut values, mut ids)| {
        for i in 0..values.num_rows() {
            top_of_row(
                cpu.isa(),
                logits.row(first + i),
                first_id,
                values.row_mut(i),
                ids.row_mut(i),
            );
        }
    });
}

/// Keeps the largest so far in order; most elements are smaller than all of them, and whole
/// stretches are passed over by their maximum.
fn top_of_row(isa: Isa, row: &[f32], first_id: i32, values: &mut [f32], ids: &mut [i32]) {
    const STRETCH: usize = 256;
    let mut count = 0;
    for (stretch, first_id) in row.chunks(STRETCH).zip((first_id..).step_by(STRETCH)) {
        let full = count == values.len();
        if full && isa.run(Max(stretch)) <= values.last().copied().unwrap_or(f32::INFINITY) {
            continue;
        }
        for (&x, id) in stretch.iter().zip(first_id..) {
            let full = count == values.len();
            if x.is_nan() || full && x <= values[count - 1] {
                continue;
            }
            // Behind all that are at least as large, which have lower ids.
            let place = values[..count].partition_point(|&value| value >= x);
            count = (count + 1).min(values.len());
            values.copy_within(place..count - 1, place + 1);
            ids.copy_within(place..count - 1, place + 1);
            (values[place], ids[place]) = (x, id);
        }
    }
    values[count..].fill(f32::NEG_INFINITY);
    ids[count..].fill(-1);
}

/// The largest number; -inf if there is none.
struct Max<'a>(&'a [f32]);

impl Kernel for Max<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> f32 {
        let (steps, tail) = self.0.as_chunks::<LANES>();
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for step in steps {
            for (lane, &x) in lanes.iter_mut().zip(step) {
                *lane = if x > *lane { x } else { *lane };
            }
        }
        let larger = |max: f32, &x: &f32| if x > max { x } else { max };
        tail.iter().fold(lanes.iter().fold(f32::NEG_INFINITY, larger), larger)
    }
}
