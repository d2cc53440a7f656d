//! Small steps on one number per row. There are as many as rows in a batch, so loops will do.
//!
//! Never knows: how shards reached this device.

use crate::{View, ViewMut};

pub(crate) fn best_of_shards(
    values: View<'_>,
    ids: View<'_>,
    out_value: ViewMut<'_>,
    out_id: ViewMut<'_>,
) {
    let (values, ids) = (values.host_rows::<f32>(), ids.host_rows::<i32>());
    let (out_value, out_id) = (out_value.host_slice::<f32>(), out_id.host_slice::<i32>());
    out_value.fill(f32::NEG_INFINITY);
    out_id.fill(-1);
    for shard in 0..values.num_rows() {
        let found = values.row(shard).iter().zip(ids.row(shard));
        for ((&value, &id), (best, best_id)) in
            found.zip(out_value.iter_mut().zip(out_id.iter_mut()))
        {
            if value.is_nan() {
                (*best, *best_id) = (f32::NAN, -1);
            } else if id >= 0 && !best.is_nan() && (*best_id < 0 || value > *best) {
                (*best, *best_id) = (value, id);
            }
        }
    }
}

pub(crate) fn pick_logits(logits: View<'_>, ids: View<'_>, first_id: i32, out: ViewMut<'_>) {
    let (logits, ids) = (logits.host_rows::<f32>(), ids.host_slice::<i32>());
    for (i, out) in out.host_slice::<f32>().iter_mut().enumerate() {
        let column = usize::try_from(i64::from(ids[i]) - i64::from(first_id)).ok();
        *out = column.and_then(|column| logits.row(i).get(column)).copied().unwrap_or(0.0);
    }
}

pub(crate) fn mass_target(top_p: View<'_>, mass: View<'_>, remaining: ViewMut<'_>) {
    let factors = top_p.host_slice::<f32>().iter().zip(mass.host_slice::<f32>());
    for (remaining, (top_p, mass)) in remaining.host_slice::<f32>().iter_mut().zip(factors) {
        *remaining = top_p * mass;
    }
}

pub(crate) fn min_p_threshold(
    row_max: View<'_>,
    ln_min_p: View<'_>,
    inv_temperature: View<'_>,
    threshold: ViewMut<'_>,
) {
    let (row_max, ln_min_p) = (row_max.host_slice::<f32>(), ln_min_p.host_slice::<f32>());
    let inv_temperature = inv_temperature.host_slice::<f32>();
    for (i, threshold) in threshold.host_slice::<f32>().iter_mut().enumerate() {
        *threshold = threshold.max(row_max[i] + ln_min_p[i] / inv_temperature[i]);
    }
}

pub(crate) fn choose_ids(take_a: View<'_>, a: View<'_>, b: View<'_>, out: ViewMut<'_>) {
    let (take_a, a) = (take_a.host_slice::<i32>(), a.host_slice::<i32>());
    let b = b.host_slice::<i32>();
    for (i, out) in out.host_slice::<i32>().iter_mut().enumerate() {
        *out = if take_a[i] != 0 || a[i] == -1 { a[i] } else { b[i] };
    }
}
