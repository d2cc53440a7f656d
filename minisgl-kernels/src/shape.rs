//! Shapes: up to four sizes, outermost first.
//!
//! Never knows: strides or element types.

use std::fmt;

use crate::Error;

/// The largest number of dimensions of a tensor.
pub const MAX_RANK: usize = 4;

/// The sizes of a tensor's dimensions, outermost first. Made from an array: `Shape::from([2, 3])`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    // Sizes beyond the rank are 1, so that derived equality is equality of shapes.
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// The sizes, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank()]
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    /// The product of the sizes; 1 for rank 0.
    ///
    /// # Errors
    /// [`Error::ShapeOverflow`] if the product does not fit in a `usize`.
    pub fn num_elements(&self) -> Result<usize, Error> {
        // A zero size makes the product zero even if the other sizes alone would overflow.
        if self.dims.contains(&0) {
            return Ok(0);
        }
        self.dims
            .iter()
            .try_fold(1usize, |product, &dim| product.checked_mul(dim))
            .ok_or(Error::ShapeOverflow { shape: *self })
    }

    /// The same shape with the size of dimension `axis` replaced.
    pub(crate) fn with_dim(mut self, axis: usize, size: usize) -> Self {
        debug_assert!(axis < self.rank());
        self.dims[axis] = size;
        self
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Self {
        const { assert!(N <= MAX_RANK, "a shape has at most four dimensions") };
        let mut dims = [1; MAX_RANK];
        dims[..N].copy_from_slice(&sizes);
        Self { dims, rank: N as u8 }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.dims()).finish()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
