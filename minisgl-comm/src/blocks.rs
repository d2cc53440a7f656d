//! Cutting an array into blocks that fit the staging memory, and a block into one share per rank.
//!
//! Never knows: dtypes, strides or memory. The cuts follow from the shape alone, because all ranks
//! must cut alike and only the shape is sure to be the same on all of them.

use std::ops::Range;

use minisgl_kernels::{Error, Shape, View, ViewMut};

/// Some rows and columns of a matrix, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
}

impl Block {
    /// An array of any shape as a matrix: its outermost dimension by all the others. A vector is
    /// one row.
    pub(crate) fn whole(shape: Shape) -> Self {
        let (rows, columns) = match shape.dims() {
            [rows, rest @ ..] if !rest.is_empty() => (*rows, rest.iter().product()),
            dims => (1, dims.iter().product()),
        };
        Self { rows: 0..rows, columns: 0..columns }
    }

    /// `[rows, columns]`.
    pub(crate) fn dims(&self) -> [usize; 2] {
        [self.rows.len(), self.columns.len()]
    }

    pub(crate) fn num_elements(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// This block of `matrix`.
    pub(crate) fn of<'a>(&self, matrix: View<'a>) -> Result<View<'a>, Error> {
        matrix.rows(self.rows.clone())?.columns(self.columns.clone())
    }

    /// This block of `matrix`.
    pub(crate) fn of_mut<'a>(&self, matrix: ViewMut<'a>) -> Result<ViewMut<'a>, Error> {
        matrix.rows(self.rows.clone())?.columns(self.columns.clone())
    }

    /// Cuts this block into blocks of at most `capacity` elements (1 or more): as many whole rows
    /// as fit, or parts of one row if not even one does. There is always at least one, if only an empty one.
    pub(crate) fn cut(self, capacity: usize) -> impl Iterator<Item = Self> {
        let columns_step = self.columns.len().clamp(1, capacity);
        let rows_step = capacity / columns_step;
        steps(self.rows, rows_step).flat_map(move |rows| {
            steps(self.columns.clone(), columns_step)
                .map(move |columns| Self { rows: rows.clone(), columns })
        })
    }

    /// The share of this block that rank `rank` of `world_size` works on. The shares are disjoint
    /// and make up the block. Counted from the block's own first row and column.
    pub(crate) fn share(&self, rank: usize, world_size: usize) -> Self {
        let [rows, columns] = self.dims();
        let part = |len: usize| len * rank / world_size..len * (rank + 1) / world_size;
        if rows >= world_size {
            Self { rows: part(rows), columns: 0..columns }
        } else {
            Self { rows: 0..rows, columns: part(columns) }
        }
    }
}

/// `range` in pieces of `step`, the last one perhaps shorter; one piece if it is empty.
fn steps(range: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    let count = range.len().div_ceil(step).max(1);
    (0..count).map(move |i| {
        let start = range.start + i * step;
        start..range.end.min(start + step)
    })
}

#[cfg(test)]
mod tests;
