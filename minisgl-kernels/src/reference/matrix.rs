//! Element by element access to the rows of a view.
//!
//! Never knows: ops.

use half::bf16;

use crate::dtype::Float;
use crate::rows::{Rows, RowsMut};
use crate::{DType, F8E4M3, View, ViewMut};

/// Rows of floats, read as f32.
pub(super) enum Matrix<'a> {
    F32(Rows<'a, f32>),
    Bf16(Rows<'a, bf16>),
    F8E4M3(Rows<'a, F8E4M3>),
}

impl<'a> Matrix<'a> {
    /// `view` has been checked to be of floats, without gaps inside its rows.
    pub(super) fn new(view: View<'a>) -> Self {
        match view.dtype() {
            DType::Bf16 => Self::Bf16(view.host_rows()),
            DType::F8E4M3 => Self::F8E4M3(view.host_rows()),
            _ => Self::F32(view.host_rows()),
        }
    }

    pub(super) fn num_rows(&self) -> usize {
        match self {
            Self::F32(rows) => rows.num_rows(),
            Self::Bf16(rows) => rows.num_rows(),
            Self::F8E4M3(rows) => rows.num_rows(),
        }
    }

    pub(super) fn row_len(&self) -> usize {
        match self {
            Self::F32(rows) => rows.row_len(),
            Self::Bf16(rows) => rows.row_len(),
            Self::F8E4M3(rows) => rows.row_len(),
        }
    }

    pub(super) fn get(&self, row: usize, column: usize) -> f32 {
        match self {
            Self::F32(rows) => rows.row(row)[column],
            Self::Bf16(rows) => rows.row(row)[column].to_f32(),
            Self::F8E4M3(rows) => rows.row(row)[column].to_f32(),
        }
    }
}

/// Exclusive rows of floats, read and written as f32.
pub(super) enum MatrixMut<'a> {
    F32(RowsMut<'a, f32>),
    Bf16(RowsMut<'a, bf16>),
    F8E4M3(RowsMut<'a, F8E4M3>),
}

impl<'a> MatrixMut<'a> {
    /// As for [`Matrix::new`].
    pub(super) fn new(view: ViewMut<'a>) -> Self {
        match view.dtype() {
            DType::Bf16 => Self::Bf16(view.host_rows()),
            DType::F8E4M3 => Self::F8E4M3(view.host_rows()),
            _ => Self::F32(view.host_rows()),
        }
    }

    pub(super) fn num_rows(&self) -> usize {
        match self {
            Self::F32(rows) => rows.num_rows(),
            Self::Bf16(rows) => rows.num_rows(),
            Self::F8E4M3(rows) => rows.num_rows(),
        }
    }

    pub(super) fn row_len(&self) -> usize {
        match self {
            Self::F32(rows) => rows.row_len(),
            Self::Bf16(rows) => rows.row_len(),
            Self::F8E4M3(rows) => rows.row_len(),
        }
    }

    pub(super) fn get(&self, row: usize, column: usize) -> f32 {
        match self {
            Self::F32(rows) => rows.row(row)[column],
            Self::Bf16(rows) => rows.row(row)[column].to_f32(),
            Self::F8E4M3(rows) => rows.row(row)[column].to_f32(),
        }
    }

    /// Rounds `value` to the element type.
    pub(super) fn set(&mut self, row: usize, column: usize, value: f32) {
        match self {
            Self::F32(rows) => rows.row_mut(row)[column] = value,
            Self::Bf16(rows) => rows.row_mut(row)[column] = Float::from_f32(value),
            Self::F8E4M3(rows) => rows.row_mut(row)[column] = F8E4M3::from_f32(value),
        }
    }

    /// `value` as it would be read back after [`MatrixMut::set`].
    pub(super) fn round(&self, value: f32) -> f32 {
        match self {
            Self::F32(_) => value,
            Self::Bf16(_) => <bf16 as Float>::from_f32(value).to_f32(),
            Self::F8E4M3(_) => F8E4M3::from_f32(value).to_f32(),
        }
    }
}
