//! The small steps between the sampling ops, one row after the other.
//!
//! Never knows: how a backend divides them.

use crate::ops::check;
use crate::{Error, View, ViewMut};

/// See [`ops::sampling::best_of_shards`](crate::ops::sampling::best_of_shards).
///
/// # Errors
/// Those of the op.
pub fn best_of_shards(
    values: View<'_>,
    ids: View<'_>,
    out_value: ViewMut<'_>,
    out_id: ViewMut<'_>,
) -> Result<(), Error> {
    check::best_of_shards(values, ids, out_value.as_view(), out_id.as_view())?;
    let (values, ids) = (values.host_rows::<f32>(), ids.host_rows::<i32>());
    let (out_value, out_id) = (out_value.host_slice::<f32>(), out_id.host_slice::<i32>());
    for i in 0..out_id.len() {
        let shards = || (0..values.num_rows()).map(|s| (values.row(s)[i], ids.row(s)[i]));
        (out_value[i], out_id[i]) = if shards().any(|(value, _)| value.is_nan()) {
            (f32::NAN, -1)
        } else {
            // Of equal maxima, `max_by` takes the last, so the order is turned around.
            let found = shards().rev().filter(|&(_, id)| id >= 0);
            let best = found.max_by(|(a, _), (b, _)| a.total_cmp(b));
            let best = best.map(|(value, _)| {
                // -0 and +0 are equal.
                shards().find(|&(other, id)| id >= 0 && other == value).unwrap_or((value, -1))
            });
            best.unwrap_or((f32::NEG_INFINITY, -1))
        };
    }
    Ok(())
}

/// See [`ops::sampling::pick_logits`](crate::ops::sampling::pick_logits).
///
/// # Errors
/// Those of the op.
pub fn pick_logits(
    logits: View<'_>,
    ids: View<'_>,
    first_id: i32,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check::pick_logits(logits, ids, first_id, out.as_view())?;
    let (logits, out) = (logits.host_rows::<f32>(), out.host_slice::<f32>());
    for (i, &id) in ids.host_slice::<i32>().iter().enumerate() {
        out[i] = 0.0;
        for (&logit, column_id) in logits.row(i).iter().zip(first_id..) {
            if column_id == id {
                out[i] = logit;
            }
        }
    }
    Ok(())
}

/// See [`ops::sampling::mass_target`](crate::ops::sampling::mass_target).
///
/// # Errors
/// Those of the op.
pub fn mass_target(top_p: View<'_>, mass: View<'_>, remaining: ViewMut<'_>) -> Result<(), Error> {
    check::mass_target(top_p, mass, remaining.as_view())?;
    let (top_p, mass) = (top_p.host_slice::<f32>(), mass.host_slice::<f32>());
    for (i, remaining) in remaining.host_slice::<f32>().iter_mut().enumerate() {
        *remaining = (f64::from(top_p[i]) * f64::from(mass[i])) as f32;
    }
    Ok(())
}

/// See [`ops::sampling::min_p_threshold`](crate::ops::sampling::min_p_threshold).
///
/// # Errors
/// Those of the op.
pub fn min_p_threshold(
    row_max: View<'_>,
    ln_min_p: View<'_>,
    inv_temperature: View<'_>,
    threshold: ViewMut<'_>,
) -> Result<(), Error> {
    check::min_p_threshold(row_max, ln_min_p, inv_temperature, threshold.as_view())?;
    let (row_max, ln_min_p) = (row_max.host_slice::<f32>(), ln_min_p.host_slice::<f32>());
    let inv_temperature = inv_temperature.host_slice::<f32>();
    for (i, threshold) in threshold.host_slice::<f32>().iter_mut().enumerate() {
        let below = f64::from(ln_min_p[i]) / f64::from(inv_temperature[i]);
        *threshold = threshold.max((f64::from(row_max[i]) + below) as f32);
    }
    Ok(())
}

/// See [`ops::sampling::choose_ids`](crate::ops::sampling::choose_ids).
///
/// # Errors
/// Those of the op.
pub fn choose_ids(
    take_a: View<'_>,
    a: View<'_>,
    b: View<'_>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check::choose_ids(take_a, a, b, out.as_view())?;
    let (take_a, a) = (take_a.host_slice::<i32>(), a.host_slice::<i32>());
    let b = b.host_slice::<i32>();
    for (i, out) in out.host_slice::<i32>().iter_mut().enumerate() {
        *out = match (a[i], take_a[i]) {
            (-1, _) => -1,
            (_, 0) => b[i],
            (a, _) => a,
        };
    }
    Ok(())
}
