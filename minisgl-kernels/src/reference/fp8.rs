//! Products of 8-bit floats.
//!
//! Never knows: how a float is rounded to eight bits; that is [`F8E4M3`]'s own.

use super::matrix::{Matrix, MatrixMut};
use crate::ops::check;
use crate::ops::fp8::{Scaled, scale_of};
use crate::{Error, F8E4M3, View, ViewMut};

/// See [`ops::fp8::quantize_rows`](crate::ops::fp8::quantize_rows).
///
/// # Errors
/// Those of the op.
pub fn quantize_rows(x: View<'_>, out: ViewMut<'_>, scales: ViewMut<'_>) -> Result<(), Error> {
    check::quantize_rows(x, out.as_view(), scales.as_view())?;
    let (x, mut out) = (Matrix::new(x), out.host_rows::<F8E4M3>());
    for (i, scale) in scales.host_slice::<f32>().iter_mut().enumerate() {
        let row: Vec<f32> = (0..x.row_len()).map(|j| x.get(i, j)).collect();
        let is_finite = row.iter().all(|x| x.is_finite());
        let largest = row.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        *scale = if is_finite { scale_of(largest) } else { f32::NAN };
        for (out, x) in out.row_mut(i).iter_mut().zip(row) {
            *out = F8E4M3::from_f32(x / *scale);
        }
    }
    Ok(())
}

/// See [`ops::fp8::gemm`](crate::ops::fp8::gemm).
///
/// # Errors
/// Those of the op on a CPU.
pub fn gemm(
    x: Scaled<'_>,
    w: Scaled<'_>,
    bias: Option<View<'_>>,
    out: ViewMut<'_>,
) -> Result<(), Error> {
    check::fp8_gemm(x, w, bias, out.as_view())?;
    let (x_rows, w_rows) = (x.values.host_rows::<F8E4M3>(), w.values.host_rows::<F8E4M3>());
    let (x_scales, w_scales) = (x.scales.host_slice::<f32>(), w.scales.host_slice::<f32>());
    let bias = bias.map(|bias| {
        let n = bias.num_elements();
        let bias = bias.reshape([1, n]).map(Matrix::new);
        bias.map(|bias| (0..n).map(|j| bias.get(0, j)).collect::<Vec<f32>>())
    });
    let bias = bias.transpose()?;
    let mut out = MatrixMut::new(out);
    for (i, x_scale) in x_scales.iter().enumerate() {
        for (j, w_scale) in w_scales.iter().enumerate() {
            let terms = x_rows.row(i).iter().zip(w_rows.row(j));
            let sum: f64 = terms.map(|(x, w)| f64::from(x.to_f32()) * f64::from(w.to_f32())).sum();
            let scaled = sum * f64::from(*x_scale) * f64::from(*w_scale);
            let bias = bias.as_ref().map_or(0.0, |bias| f64::from(bias[j]));
            out.set(i, j, (scaled + bias) as f32);
        }
    }
    Ok(())
}
