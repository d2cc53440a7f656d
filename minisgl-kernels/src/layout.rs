//! The arithmetic of strided layouts: slicing and reshaping without moving elements.
//!
//! Never knows: memory, devices or element types. Offsets and strides are in elements.

use std::ops::Range;

use crate::shape::MAX_RANK;
use crate::{Error, Shape};

/// A shape and the distance between neighbours in each dimension.
///
/// **Invariant:** the innermost stride is 1, and distinct indices name distinct elements (layouts
/// come from a contiguous one by slicing and reshaping only, never by repeating).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    shape: Shape,
    strides: [usize; MAX_RANK],
}

/// A layout seen as equally long, contiguous rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowLayout {
    pub(crate) num_rows: usize,
    pub(crate) row_len: usize,
    pub(crate) row_stride: usize,
}

/// `len` elements, each `step` after the one before.
#[derive(Clone, Copy)]
struct Run {
    len: usize,
    step: usize,
}

impl Layout {
    /// Row-major with no gaps. The number of elements must have been checked not to overflow.
    pub(crate) fn contiguous(shape: Shape) -> Self {
        let mut strides = [1; MAX_RANK];
        let mut step = 1usize;
        for axis in (0..shape.rank()).rev() {
            strides[axis] = step;
            step = step.saturating_mul(shape.dims()[axis].max(1));
        }
        Self { shape, strides }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn strides(&self) -> &[usize] {
        &self.strides[..self.shape.rank()]
    }

    pub(crate) fn num_elements(&self) -> usize {
        self.shape.dims().iter().product()
    }

    /// Keeps `range` of dimension `axis`. Returns the layout and where its first element lies.
    pub(crate) fn slice(&self, axis: usize, range: Range<usize>) -> Result<(Self, usize), Error> {
        let inside = axis < self.shape.rank()
            && range.start <= range.end
            && range.end <= self.shape.dims()[axis];
        if !inside {
            return Err(Error::Range {
                axis,
                start: range.start,
                end: range.end,
                shape: self.shape,
            });
        }
        // An empty slice has no first element; offset 0 keeps the address inside the buffer.
        let offset = if range.is_empty() { 0 } else { range.start * self.strides[axis] };
        let shape = self.shape.with_dim(axis, range.len());
        Ok((Self { shape, strides: self.strides }, offset))
    }

    /// Keeps `range` of the last dimension.
    pub(crate) fn slice_columns(&self, range: Range<usize>) -> Result<(Self, usize), Error> {
        self.slice(self.shape.rank().wrapping_sub(1), range)
    }

    /// The same elements in the same order with another shape, if strides can express it.
    pub(crate) fn reshape(&self, to: Shape) -> Result<Self, Error> {
        let refusal = || Error::Reshape { from: self.shape, strides: self.strides().to_vec(), to };
        let num_elements = self.num_elements();
        if to.num_elements()? != num_elements {
            return Err(refusal());
        }
        if num_elements == 0 {
            return Ok(Self::contiguous(to));
        }
        // Hand the runs out to the new dimensions, innermost first. No new dimension may straddle
        // two runs, since its elements would not be equally far apart.
        let mut strides = [1; MAX_RANK];
        let mut runs = self.runs();
        let mut run = runs.next().unwrap_or(Run { len: 1, step: 1 });
        for (axis, &dim) in to.dims().iter().enumerate().rev() {
            if run.len == 1 && dim > 1 {
                run = runs.next().ok_or_else(refusal)?;
            }
            if !run.len.is_multiple_of(dim) {
                return Err(refusal());
            }
            strides[axis] = run.step;
            run = Run { len: run.len / dim, step: run.step * dim };
        }
        // The innermost dimension stays contiguous; a column of single elements cannot be a vector.
        if to.dims().last().is_some_and(|&dim| dim > 1) && strides[to.rank() - 1] != 1 {
            return Err(refusal());
        }
        Ok(Self { shape: to, strides })
    }

    /// The longest groups of dimensions whose elements are equally far apart, innermost first.
    fn runs(&self) -> impl Iterator<Item = Run> {
        let dims = self.shape.dims().iter().zip(self.strides()).rev();
        let mut dims = dims.filter(|&(&dim, _)| dim != 1).peekable();
        std::iter::from_fn(move || {
            let (&dim, &step) = dims.next()?;
            let mut run = Run { len: dim, step };
            while let Some((&outer, _)) = dims.next_if(|&(_, &s)| s == run.len * run.step) {
                run.len *= outer;
            }
            Some(run)
        })
    }

    /// The layout as rows: the outermost dimension may be strided, the others must be dense.
    /// A vector is one row. `None` if there are gaps inside the rows.
    pub(crate) fn as_rows(&self) -> Option<RowLayout> {
        let dims = self.shape.dims();
        let inner_from = usize::from(dims.len() > 1);
        let inner = &dims[inner_from..];
        let row_len: usize = inner.iter().product();
        let num_rows: usize = dims[..inner_from].iter().product();
        let mut step = 1;
        for (&dim, &stride) in inner.iter().zip(&self.strides()[inner_from..]).rev() {
            if dim > 1 && stride != step {
                return None;
            }
            step *= dim.max(1);
        }
        let row_stride = if num_rows > 1 { self.strides[0] } else { row_len };
        Some(RowLayout { num_rows, row_len, row_stride })
    }
}

#[cfg(test)]
mod tests;
