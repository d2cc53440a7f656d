//! Biases, penalties and counts for sampling.
//!
//! Never knows: requests.

use crate::cuda::call::Call;
use crate::cuda::stream::CudaStream;
use crate::ops::sampling::{Biases, History, Penalties};
use crate::{Error, View, ViewMut};

pub(crate) fn clear_counts(
    stream: &CudaStream,
    mut counts: ViewMut<'_>,
    rows: View<'_>,
) -> Result<(), Error> {
    let call = Call::new("clear_counts", stream)?;
    let counts = call.rows_mut("counts", &mut counts)?;
    let (n, rows) = (rows.num_elements() as i64, call.elements("rows", rows)?);
    if n == 0 {
        return Ok(());
    }
    let clear = call.functions().msgl_clear_counts;
    // SAFETY: the op has checked the shapes; the kernel checks the rows.
    call.done(unsafe { clear(counts, rows, n, call.stream()) })
}

pub(crate) fn count_ids(
    stream: &CudaStream,
    mut counts: ViewMut<'_>,
    rows: View<'_>,
    ids: View<'_>,
    first_id: i32,
) -> Result<(), Error> {
    let call = Call::new("count_ids", stream)?;
    let counts = call.rows_mut("counts", &mut counts)?;
    let (n, rows) = (rows.num_elements() as i64, call.elements("rows", rows)?);
    let ids = call.elements("ids", ids)?;
    if n == 0 {
        return Ok(());
    }
    let count = call.functions().msgl_count_ids;
    // SAFETY: the op has checked the shapes; the kernel checks rows and ids.
    call.done(unsafe { count(counts, rows, ids, n, first_id, call.stream()) })
}

pub(crate) fn bias_logits(
    stream: &CudaStream,
    mut logits: ViewMut<'_>,
    biases: &Biases<'_>,
    rows: View<'_>,
    first_id: i32,
) -> Result<(), Error> {
    let call = Call::new("bias_logits", stream)?;
    let target = call.rows_mut("logits", &mut logits)?;
    let ids = call.rows("ids", biases.ids)?;
    let values = call.rows("values", biases.values)?;
    let begins = call.elements("begins", biases.begins)?;
    let ends = call.elements("ends", biases.ends)?;
    let rows = call.elements("rows", rows)?;
    if logits.num_elements() == 0 {
        return Ok(());
    }
    let bias = call.functions().msgl_bias_logits;
    // SAFETY: the op has checked the shapes; the kernel checks rows, lists and ids.
    call.done(unsafe { bias(target, ids, values, rows, begins, ends, first_id, call.stream()) })
}

pub(crate) fn penalize_logits(
    stream: &CudaStream,
    mut logits: ViewMut<'_>,
    history: &History<'_>,
    rows: View<'_>,
    penalties: &Penalties<'_>,
    first_id: i32,
) -> Result<(), Error> {
    let call = Call::new("penalize_logits", stream)?;
    let target = call.rows_mut("logits", &mut logits)?;
    let counts = call.rows("counts", history.counts)?;
    let prompts = call.rows("prompts", history.prompts)?;
    let rows = call.elements("rows", rows)?;
    let repetition = call.elements("repetition", penalties.repetition)?;
    let frequency = call.elements("frequency", penalties.frequency)?;
    let presence = call.elements("presence", penalties.presence)?;
    if logits.num_elements() == 0 {
        return Ok(());
    }
    // SAFETY: the op has checked the shapes; the kernel checks the rows.
    call.done(unsafe {
        (call.functions().msgl_penalize_logits)(
            target,
            counts,
            prompts,
            rows,
            repetition,
            frequency,
            presence,
            first_id,
            call.stream(),
        )
    })
}
