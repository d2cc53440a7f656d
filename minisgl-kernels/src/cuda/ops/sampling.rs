//! Sampling from shards of logits.
//!
//! Never knows: how many shards there are.

use std::ffi::c_void;

use crate::cuda::call::Call;
use crate::cuda::stream::CudaStream;
use crate::ops::sampling::ThresholdState;
use crate::{Error, View, ViewMut};

/// The stream's memory for intermediate results of `n` rows.
fn scratch(call: &Call<'_>, stream: &CudaStream, n: usize) -> Result<*mut c_void, Error> {
    let size = call.functions().msgl_sampling_scratch_bytes;
    // SAFETY: it only computes.
    let bytes = unsafe { size(n as i64) };
    stream.sampling_scratch(usize::try_from(bytes).unwrap_or(0))
}

pub(crate) fn argmax(
    stream: &CudaStream,
    logits: View<'_>,
    first_id: i32,
    mut out_value: ViewMut<'_>,
    mut out_id: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("argmax", stream)?;
    let rows = call.rows("logits", logits)?;
    let value = call.elements_mut("out_value", &mut out_value)?;
    let id = call.elements_mut("out_id", &mut out_id)?;
    if logits.num_elements() == 0 {
        return Ok(());
    }
    let scratch = scratch(&call, stream, out_id.num_elements())?;
    let argmax = call.functions().msgl_argmax;
    // SAFETY: the op has checked the shapes; the scratch is for so many rows.
    call.done(unsafe { argmax(rows, first_id, value, id, scratch, call.stream()) })
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the op")]
pub(crate) fn gumbel_argmax(
    stream: &CudaStream,
    logits: View<'_>,
    inv_temperature: View<'_>,
    threshold: View<'_>,
    (seeds, positions): (View<'_>, View<'_>),
    first_id: i32,
    mut out_value: ViewMut<'_>,
    mut out_id: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("gumbel_argmax", stream)?;
    let rows = call.rows("logits", logits)?;
    let inv_temperature = call.elements("inv_temperature", inv_temperature)?;
    let threshold = call.elements("threshold", threshold)?;
    let seeds = call.elements("seeds", seeds)?;
    let positions = call.elements("positions", positions)?;
    let value = call.elements_mut("out_value", &mut out_value)?;
    let id = call.elements_mut("out_id", &mut out_id)?;
    if logits.num_elements() == 0 {
        return Ok(());
    }
    let scratch = scratch(&call, stream, out_id.num_elements())?;
    // SAFETY: the op has checked the shapes; the scratch is for so many rows.
    call.done(unsafe {
        (call.functions().msgl_gumbel_argmax)(
            rows,
            inv_temperature,
            threshold,
            seeds,
            positions,
            first_id,
            value,
            id,
            scratch,
            call.stream(),
        )
    })
}

pub(crate) fn sum_exp(
    stream: &CudaStream,
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    threshold: Option<View<'_>>,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("sum_exp", stream)?;
    let rows = call.rows("logits", logits)?;
    let row_max = call.elements("row_max", row_max)?;
    let inv_temperature = call.elements("inv_temperature", inv_temperature)?;
    let threshold = match threshold {
        Some(threshold) => call.elements("threshold", threshold)?,
        None => std::ptr::null(),
    };
    let target = call.elements_mut("out", &mut out)?;
    if logits.num_elements() == 0 {
        return Ok(());
    }
    let scratch = scratch(&call, stream, out.num_elements())?;
    let sum_exp = call.functions().msgl_sum_exp;
    // SAFETY: the op has checked the shapes; the scratch is for so many rows.
    call.done(unsafe {
        sum_exp(rows, row_max, inv_temperature, threshold, target, scratch, call.stream())
    })
}

pub(crate) fn top_n(
    stream: &CudaStream,
    logits: View<'_>,
    first_id: i32,
    mut out_values: ViewMut<'_>,
    mut out_ids: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("top_n", stream)?;
    let rows = call.rows("logits", logits)?;
    let values = call.rows_mut("out_values", &mut out_values)?;
    let ids = call.rows_mut("out_ids", &mut out_ids)?;
    if out_ids.num_elements() == 0 {
        return Ok(());
    }
    let scratch = scratch(&call, stream, out_ids.shape().dims()[0])?;
    let top_n = call.functions().msgl_top_n;
    // SAFETY: the op has checked the shapes; the scratch is for so many rows.
    call.done(unsafe { top_n(rows, first_id, values, ids, scratch, call.stream()) })
}

pub(crate) fn threshold_histogram(
    stream: &CudaStream,
    logits: View<'_>,
    row_max: View<'_>,
    inv_temperature: View<'_>,
    state: &ThresholdState<'_>,
    round: usize,
    mut hist: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("threshold_histogram", stream)?;
    let rows = call.rows("logits", logits)?;
    let row_max = call.elements("row_max", row_max)?;
    let inv_temperature = call.elements("inv_temperature", inv_temperature)?;
    let mode = call.elements("mode", state.mode)?;
    let prefix = call.elements("prefix", state.prefix.as_view())?;
    let hist_rows = call.rows_mut("hist", &mut hist)?;
    if hist.num_elements() == 0 {
        return Ok(());
    }
    let (round, histogram) = (round as i32, call.functions().msgl_threshold_histogram);
    // SAFETY: the op has checked the shapes.
    call.done(unsafe {
        histogram(rows, row_max, inv_temperature, mode, prefix, round, hist_rows, call.stream())
    })
}

pub(crate) fn threshold_refine(
    stream: &CudaStream,
    hist: View<'_>,
    state: &mut ThresholdState<'_>,
    round: usize,
) -> Result<(), Error> {
    let call = Call::new("threshold_refine", stream)?;
    let rows = call.rows("hist", hist)?;
    let mode = call.elements("mode", state.mode)?;
    let prefix = call.elements_mut("prefix", &mut state.prefix)?;
    let remaining = call.elements_mut("remaining", &mut state.remaining)?;
    if hist.num_elements() == 0 {
        return Ok(());
    }
    let (round, refine) = (round as i32, call.functions().msgl_threshold_refine);
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { refine(rows, mode, prefix, remaining, round, call.stream()) })
}

pub(crate) fn raise_threshold(
    stream: &CudaStream,
    state: &ThresholdState<'_>,
    mut threshold: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("raise_threshold", stream)?;
    let mode = call.elements("mode", state.mode)?;
    let prefix = call.elements("prefix", state.prefix.as_view())?;
    let target = call.elements_mut("threshold", &mut threshold)?;
    let n = threshold.num_elements() as i64;
    if n == 0 {
        return Ok(());
    }
    let raise = call.functions().msgl_raise_threshold;
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { raise(mode, prefix, target, n, call.stream()) })
}

pub(crate) fn best_of_shards(
    stream: &CudaStream,
    values: View<'_>,
    ids: View<'_>,
    mut out_value: ViewMut<'_>,
    mut out_id: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("best_of_shards", stream)?;
    let &[num_shards, n] = values.shape().dims() else {
        unreachable!("the op has checked the rank")
    };
    let values = call.dense("values", values)?.cast();
    let ids = call.dense("ids", ids)?.cast();
    let value = call.elements_mut("out_value", &mut out_value)?;
    let id = call.elements_mut("out_id", &mut out_id)?;
    if n == 0 {
        return Ok(());
    }
    let (num_shards, n) = (num_shards as i64, n as i64);
    let best = call.functions().msgl_best_of_shards;
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { best(values, ids, num_shards, n, value, id, call.stream()) })
}

pub(crate) fn pick_logits(
    stream: &CudaStream,
    logits: View<'_>,
    ids: View<'_>,
    first_id: i32,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("pick_logits", stream)?;
    let (rows, ids) = (call.rows("logits", logits)?, call.elements("ids", ids)?);
    let target = call.elements_mut("out", &mut out)?;
    if out.num_elements() == 0 {
        return Ok(());
    }
    let pick = call.functions().msgl_pick_logits;
    // SAFETY: the op has checked the shapes; the kernel checks the ids.
    call.done(unsafe { pick(rows, ids, first_id, target, call.stream()) })
}

pub(crate) fn mass_target(
    stream: &CudaStream,
    top_p: View<'_>,
    mass: View<'_>,
    mut remaining: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("mass_target", stream)?;
    let (top_p, mass) = (call.elements("top_p", top_p)?, call.elements("mass", mass)?);
    let target = call.elements_mut("remaining", &mut remaining)?;
    let n = remaining.num_elements() as i64;
    if n == 0 {
        return Ok(());
    }
    let mass_target = call.functions().msgl_mass_target;
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { mass_target(top_p, mass, target, n, call.stream()) })
}

pub(crate) fn min_p_threshold(
    stream: &CudaStream,
    row_max: View<'_>,
    ln_min_p: View<'_>,
    inv_temperature: View<'_>,
    mut threshold: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("min_p_threshold", stream)?;
    let row_max = call.elements("row_max", row_max)?;
    let ln_min_p = call.elements("ln_min_p", ln_min_p)?;
    let inv_temperature = call.elements("inv_temperature", inv_temperature)?;
    let target = call.elements_mut("threshold", &mut threshold)?;
    let n = threshold.num_elements() as i64;
    if n == 0 {
        return Ok(());
    }
    let min_p = call.functions().msgl_min_p_threshold;
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { min_p(row_max, ln_min_p, inv_temperature, target, n, call.stream()) })
}

pub(crate) fn choose_ids(
    stream: &CudaStream,
    take_a: View<'_>,
    a: View<'_>,
    b: View<'_>,
    mut out: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("choose_ids", stream)?;
    let take_a = call.elements("take_a", take_a)?;
    let (a, b) = (call.elements("a", a)?, call.elements("b", b)?);
    let target = call.elements_mut("out", &mut out)?;
    let n = out.num_elements() as i64;
    if n == 0 {
        return Ok(());
    }
    let choose = call.functions().msgl_choose_ids;
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { choose(take_a, a, b, target, n, call.stream()) })
}
