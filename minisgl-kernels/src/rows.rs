//! Host memory as equally long, contiguous, possibly strided rows of a Rust type.
//!
//! Never knows: tensors or ops. This is the one place that turns addresses into slices, so that
//! the CPU backend is written without unsafe memory access.

use std::marker::PhantomData;

use crate::layout::RowLayout;

/// Shared rows.
pub(crate) struct Rows<'a, T> {
    address: *const T,
    layout: RowLayout,
    memory: PhantomData<&'a [T]>,
}

impl<T> Clone for Rows<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Rows<'_, T> {}

// SAFETY: `Rows` is a shared borrow of `T`s, like `&[T]`.
unsafe impl<T: Sync> Send for Rows<'_, T> {}
// SAFETY: as for Send.
unsafe impl<T: Sync> Sync for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    /// `num_rows` rows without gaps.
    pub(crate) fn dense(elements: &'a [T], num_rows: usize, row_len: usize) -> Self {
        assert_eq!(elements.len(), num_rows * row_len, "the rows are all there is");
        let layout = RowLayout { num_rows, row_len, row_stride: row_len };
        Self { address: elements.as_ptr(), layout, memory: PhantomData }
    }

    /// # Safety
    /// Every element of `layout`, counted from `address`, is live, initialized, aligned and not
    /// written to during `'a`. If there are no elements, `address` need only be aligned.
    pub(crate) unsafe fn new(address: *const T, layout: RowLayout) -> Self {
        Self { address, layout, memory: PhantomData }
    }

    pub(crate) fn num_rows(&self) -> usize {
        self.layout.num_rows
    }

    pub(crate) fn row_len(&self) -> usize {
        self.layout.row_len
    }

    /// Row `index`.
    #[inline(always)]
    pub(crate) fn row(&self, index: usize) -> &'a [T] {
        assert!(index < self.layout.num_rows);
        let start = self.address.wrapping_add(index * self.layout.row_stride);
        // SAFETY: the row is one of the layout's, so `new`'s contract covers its elements.
        unsafe { std::slice::from_raw_parts(start, self.layout.row_len) }
    }

    /// Elements `columns` of the `N` rows from `first` on.
    #[inline(always)]
    pub(crate) fn block<const N: usize>(
        &self,
        first: usize,
        columns: std::ops::Range<usize>,
    ) -> [&'a [T]; N] {
        let mut rows: [&[T]; N] = [&[]; N];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = &self.row(first + i)[columns.clone()];
        }
        rows
    }

    /// All elements, for rows without gaps between them.
    pub(crate) fn into_slice(self) -> &'a [T] {
        let RowLayout { num_rows, row_len, row_stride } = self.layout;
        assert!(num_rows <= 1 || row_stride == row_len, "the rows have gaps between them");
        // SAFETY: without gaps the rows are one run of elements, all covered by `new`'s contract.
        unsafe { std::slice::from_raw_parts(self.address, num_rows * row_len) }
    }
}

/// Exclusive rows. They can be split into disjoint parts for several threads.
pub(crate) struct RowsMut<'a, T> {
    address: *mut T,
    layout: RowLayout,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: `RowsMut` is an exclusive borrow of `T`s, like `&mut [T]`.
unsafe impl<T: Send> Send for RowsMut<'_, T> {}
// SAFETY: through a shared `RowsMut` one can only read `T`s.
unsafe impl<T: Sync> Sync for RowsMut<'_, T> {}

impl<'a, T> RowsMut<'a, T> {
    /// One row.
    pub(crate) fn one(row: &'a mut [T]) -> Self {
        let layout = RowLayout { num_rows: 1, row_len: row.len(), row_stride: row.len() };
        Self { address: row.as_mut_ptr(), layout, memory: PhantomData }
    }

    /// `num_rows` rows without gaps.
    pub(crate) fn dense(elements: &'a mut [T], num_rows: usize, row_len: usize) -> Self {
        assert_eq!(elements.len(), num_rows * row_len, "the rows are all there is");
        let layout = RowLayout { num_rows, row_len, row_stride: row_len };
        Self { address: elements.as_mut_ptr(), layout, memory: PhantomData }
    }

    /// # Safety
    /// Every element of `layout`, counted from `address`, is live, initialized, aligned and
    /// reached through nothing else during `'a`, and no two rows share an element. If there are
    /// no elements, `address` need only be aligned.
    pub(crate) unsafe fn new(address: *mut T, layout: RowLayout) -> Self {
        Self { address, layout, memory: PhantomData }
    }

    pub(crate) fn num_rows(&self) -> usize {
        self.layout.num_rows
    }

    pub(crate) fn row_len(&self) -> usize {
        self.layout.row_len
    }

    /// Row `index`.
    #[inline(always)]
    pub(crate) fn row(&self, index: usize) -> &[T] {
        assert!(index < self.layout.num_rows);
        let start = self.address.wrapping_add(index * self.layout.row_stride);
        // SAFETY: the row is one of the layout's, so `new`'s contract covers its elements; the
        // borrow of `self` keeps writers out.
        unsafe { std::slice::from_raw_parts(start, self.layout.row_len) }
    }

    /// Row `index`.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, index: usize) -> &mut [T] {
        assert!(index < self.layout.num_rows);
        let start = self.address.wrapping_add(index * self.layout.row_stride);
        // SAFETY: the row is one of the layout's, so `new`'s contract covers its elements; the
        // exclusive borrow of `self` keeps everybody else out.
        unsafe { std::slice::from_raw_parts_mut(start, self.layout.row_len) }
    }

    /// Rows `..row` and rows `row..`.
    pub(crate) fn split_at_row(self, row: usize) -> (Self, Self) {
        let Self { address, layout, memory } = self;
        assert!(row <= layout.num_rows);
        let first = Self { address, layout: RowLayout { num_rows: row, ..layout }, memory };
        let rest = RowLayout { num_rows: layout.num_rows - row, ..layout };
        // One past the last row may lie outside the buffer, but then `rest` is empty.
        let start = if rest.num_rows == 0 { 0 } else { row * layout.row_stride };
        (first, Self { address: address.wrapping_add(start), layout: rest, memory })
    }

    /// Columns `..column` and columns `column..` of every row.
    pub(crate) fn split_at_column(self, column: usize) -> (Self, Self) {
        let Self { address, layout, memory } = self;
        assert!(column <= layout.row_len);
        let first = Self { address, layout: RowLayout { row_len: column, ..layout }, memory };
        let rest = RowLayout { row_len: layout.row_len - column, ..layout };
        (first, Self { address: address.wrapping_add(column), layout: rest, memory })
    }

    /// All elements, for rows without gaps between them.
    pub(crate) fn into_slice(self) -> &'a mut [T] {
        let RowLayout { num_rows, row_len, row_stride } = self.layout;
        assert!(num_rows <= 1 || row_stride == row_len, "the rows have gaps between them");
        // SAFETY: without gaps the rows are one run of elements, all covered by `new`'s contract.
        unsafe { std::slice::from_raw_parts_mut(self.address, num_rows * row_len) }
    }
}
