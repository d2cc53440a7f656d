//! Biases, penalties and counts, one token after the other.
//!
//! Never knows: requests.

use std::collections::HashSet;

use crate::ops::check;
use crate::ops::sampling::{Biases, History, Penalties};
use crate::{Error, View, ViewMut};

/// See [`ops::sampling::clear_counts`](crate::ops::sampling::clear_counts).
///
/// # Errors
/// Those of the op.
pub fn clear_counts(counts: ViewMut<'_>, rows: View<'_>) -> Result<(), Error> {
    check::clear_counts(counts.as_view(), rows)?;
    check::table_rows("clear_counts", rows, counts.as_view())?;
    let named: HashSet<i32> = rows.host_slice::<i32>().iter().copied().collect();
    let mut counts = counts.host_rows::<i32>();
    for row in 0..counts.num_rows() {
        if named.contains(&(row as i32)) {
            counts.row_mut(row).iter_mut().for_each(|count| *count = 0);
        }
    }
    Ok(())
}

/// See [`ops::sampling::count_ids`](crate::ops::sampling::count_ids).
///
/// # Errors
/// Those of the op.
pub fn count_ids(
    counts: ViewMut<'_>,
    rows: View<'_>,
    ids: View<'_>,
    first_id: i32,
) -> Result<(), Error> {
    check::count_ids(counts.as_view(), rows, ids)?;
    check::table_rows("count_ids", rows, counts.as_view())?;
    let (rows, ids) = (rows.host_slice::<i32>(), ids.host_slice::<i32>());
    let mut counts = counts.host_rows::<i32>();
    for row in 0..counts.num_rows() {
        for (count, id) in counts.row_mut(row).iter_mut().zip(i64::from(first_id)..) {
            let is_it = |&(&of, &found): &(&i32, &i32)| of == row as i32 && i64::from(found) == id;
            *count += rows.iter().zip(ids).filter(is_it).count() as i32;
        }
    }
    Ok(())
}

/// See [`ops::sampling::bias_logits`](crate::ops::sampling::bias_logits).
///
/// # Errors
/// Those of the op.
pub fn bias_logits(
    logits: ViewMut<'_>,
    biases: &Biases<'_>,
    rows: View<'_>,
    first_id: i32,
) -> Result<(), Error> {
    check::bias_logits(logits.as_view(), biases, rows, first_id)?;
    check::bias_indices(biases, rows)?;
    let rows = rows.host_slice::<i32>();
    let (begins, ends) = (biases.begins.host_slice::<i32>(), biases.ends.host_slice::<i32>());
    let mut logits = logits.host_rows::<f32>();
    for (i, &row) in rows.iter().enumerate() {
        let ids = biases.ids.host_rows::<i32>().row(row as usize);
        let values = biases.values.host_rows::<f32>().row(row as usize);
        for (x, id) in logits.row_mut(i).iter_mut().zip(first_id..) {
            let mut used = begins[i] as usize..ends[i] as usize;
            if let Some(entry) = used.find(|&entry| ids[entry] == id) {
                *x += values[entry];
            }
        }
    }
    Ok(())
}

/// See [`ops::sampling::penalize_logits`](crate::ops::sampling::penalize_logits).
///
/// # Errors
/// Those of the op.
pub fn penalize_logits(
    logits: ViewMut<'_>,
    history: &History<'_>,
    rows: View<'_>,
    penalties: &Penalties<'_>,
    first_id: i32,
) -> Result<(), Error> {
    check::penalize_logits(logits.as_view(), history, rows, penalties, first_id)?;
    check::table_rows("penalize_logits", rows, history.counts)?;
    let repetition = penalties.repetition.host_slice::<f32>();
    let frequency = penalties.frequency.host_slice::<f32>();
    let presence = penalties.presence.host_slice::<f32>();
    let mut logits = logits.host_rows::<f32>();
    for (i, &row) in rows.host_slice::<i32>().iter().enumerate() {
        let counts = history.counts.host_rows::<i32>().row(row as usize);
        let prompt = history.prompts.host_rows::<i32>().row(row as usize);
        let mut ids = HashSet::new();
        for (word, first) in prompt.iter().zip((0..).step_by(32)) {
            ids.extend((0..32).filter(|bit| word & (1 << bit) != 0).map(|bit: i32| first + bit));
        }
        for (j, x) in logits.row_mut(i).iter_mut().enumerate() {
            let was_output = counts[j] > 0;
            if was_output || ids.contains(&(first_id + j as i32)) {
                *x = if *x > 0.0 { *x / repetition[i] } else { *x * repetition[i] };
            }
            if was_output {
                let by_frequency = frequency[i] * counts[j] as f32;
                *x = (*x - by_frequency) - presence[i];
            }
        }
    }
    Ok(())
}
