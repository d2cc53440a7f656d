//! Sums and activations, element by element.
//!
//! Never knows: how a backend divides the elements.

use super::matrix::{Matrix, MatrixMut};
use crate::ops::check;
use crate::{Error, View, ViewMut};

/// See [`ops::add`](crate::ops::add).
///
/// # Errors
/// Those of the op.
pub fn add(x: View<'_>, y: ViewMut<'_>) -> Result<(), Error> {
    check::add(x, y.as_view())?;
    let (x, mut y) = (Matrix::new(x), MatrixMut::new(y));
    for i in 0..y.num_rows() {
        for j in 0..y.row_len() {
            y.set(i, j, y.get(i, j) + x.get(i, j));
        }
    }
    Ok(())
}

/// See [`ops::reduce_sum`](crate::ops::reduce_sum).
///
/// # Errors
/// Those of the op.
pub fn reduce_sum(parts: &[View<'_>], out: ViewMut<'_>) -> Result<(), Error> {
    check::reduce_sum(parts, out.as_view())?;
    let parts: Vec<_> = parts.iter().map(|&part| Matrix::new(part)).collect();
    let mut out = MatrixMut::new(out);
    for i in 0..out.num_rows() {
        for j in 0..out.row_len() {
            out.set(i, j, parts.iter().fold(0.0, |sum, part| sum + part.get(i, j)));
        }
    }
    Ok(())
}

/// See [`ops::silu_and_mul`](crate::ops::silu_and_mul).
///
/// # Errors
/// Those of the op.
pub fn silu_and_mul(gate_up: View<'_>, out: ViewMut<'_>) -> Result<(), Error> {
    check::silu_and_mul(gate_up, out.as_view())?;
    let (gate_up, mut out) = (Matrix::new(gate_up), MatrixMut::new(out));
    for i in 0..out.num_rows() {
        for j in 0..out.row_len() {
            let gate = f64::from(gate_up.get(i, j));
            let silu = out.round((gate / (1.0 + (-gate).exp())) as f32);
            out.set(i, j, silu * gate_up.get(i, out.row_len() + j));
        }
    }
    Ok(())
}
