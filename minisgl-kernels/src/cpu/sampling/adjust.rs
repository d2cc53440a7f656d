//! Biases, penalties and counts. The ops have checked the rows.
//!
//! Never knows: requests.

use crate::cpu::CpuDevice;
use crate::ops::sampling::{Biases, History, Penalties};
use crate::{View, ViewMut};

pub(crate) fn clear_counts(counts: ViewMut<'_>, rows: View<'_>) {
    let mut counts = counts.host_rows::<i32>();
    for &row in rows.host_slice::<i32>() {
        counts.row_mut(row as usize).fill(0);
    }
}

pub(crate) fn count_ids(counts: ViewMut<'_>, rows: View<'_>, ids: View<'_>, first_id: i32) {
    let mut counts = counts.host_rows::<i32>();
    for (&row, &id) in rows.host_slice::<i32>().iter().zip(ids.host_slice::<i32>()) {
        if let Some(count) =
            column(id, first_id).and_then(|column| counts.row_mut(row as usize).get_mut(column))
        {
            *count += 1;
        }
    }
}

pub(crate) fn bias_logits(logits: ViewMut<'_>, biases: &Biases<'_>, rows: View<'_>, first_id: i32) {
    let mut logits = logits.host_rows::<f32>();
    let (ids, values) = (biases.ids.host_rows::<i32>(), biases.values.host_rows::<f32>());
    let (begins, ends) = (biases.begins.host_slice::<i32>(), biases.ends.host_slice::<i32>());
    for (i, &row) in rows.host_slice::<i32>().iter().enumerate() {
        let (row, begin) = (row as usize, begins[i] as usize);
        let used = begin..begin.max(ends[i] as usize);
        let logits = logits.row_mut(i);
        for (&id, value) in ids.row(row)[used.clone()].iter().zip(&values.row(row)[used]) {
            if let Some(logit) = column(id, first_id).and_then(|column| logits.get_mut(column)) {
                *logit += value;
            }
        }
    }
}

fn column(id: i32, first_id: i32) -> Option<usize> {
    usize::try_from(i64::from(id) - i64::from(first_id)).ok()
}

pub(crate) fn penalize_logits(
    cpu: &CpuDevice,
    logits: ViewMut<'_>,
    history: &History<'_>,
    rows: View<'_>,
    penalties: &Penalties<'_>,
    first_id: i32,
) {
    let logits = logits.host_rows::<f32>();
    let counts = history.counts.host_rows::<i32>();
    let prompts = history.prompts.host_rows::<i32>();
    let rows = rows.host_slice::<i32>();
    let repetition = penalties.repetition.host_slice::<f32>();
    let frequency = penalties.frequency.host_slice::<f32>();
    let presence = penalties.presence.host_slice::<f32>();
    let cost = logits.row_len();
    cpu.for_each_part(logits, cost, |first, mut logits| {
        for i in 0..logits.num_rows() {
            let at = first + i;
            let penalty = Penalty {
                repetition: repetition[at],
                frequency: frequency[at],
                presence: presence[at],
            };
            if !penalty.is_none() {
                let row = rows[at] as usize;
                penalty.apply(logits.row_mut(i), counts.row(row), prompts.row(row), first_id);
            }
        }
    });
}

/// That of one row.
struct Penalty {
    repetition: f32,
    frequency: f32,
    presence: f32,
}

impl Penalty {
    fn is_none(&self) -> bool {
        self.repetition == 1.0 && self.frequency == 0.0 && self.presence == 0.0
    }

    fn apply(&self, logits: &mut [f32], counts: &[i32], prompt: &[i32], first_id: i32) {
        for ((logit, &count), id) in logits.iter_mut().zip(counts).zip(first_id..) {
            let word = prompt.get(id as u32 as usize / 32).copied().unwrap_or(0) as u32;
            let in_prompt = word >> (id as u32 % 32) & 1 == 1;
            if count <= 0 && !in_prompt {
                continue;
            }
            let x = *logit;
            *logit = if x > 0.0 { x / self.repetition } else { x * self.repetition };
            if count > 0 {
                *logit -= self.frequency * count as f32;
                *logit -= self.presence;
            }
        }
    }
}
