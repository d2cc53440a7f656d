//! Borrowed, strided windows into device memory: what ops read and write.
//!
//! Never knows: what the elements mean. Slicing and reshaping only change the layout.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;

use crate::layout::{Layout, RowLayout};
use crate::rows::{Rows, RowsMut};
use crate::{DType, Device, Error, HostElement, Shape};

/// A read-only view of a tensor: dtype, shape and strides over borrowed memory.
///
/// The innermost dimension is always contiguous.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    // Every element that `layout` names is inside one live buffer of `device` and aligned for
    // `dtype`, for as long as 'a: views are made by `Tensor` and narrowed by `Layout` only.
    address: *const u8,
    dtype: DType,
    layout: Layout,
    device: &'a Device,
    memory: PhantomData<&'a [u8]>,
}

// SAFETY: a `View` is a shared borrow of plain memory, like `&[u8]`; nothing writes through it.
unsafe impl Send for View<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for View<'_> {}

impl<'a> View<'a> {
    /// For [`crate::Tensor`], which owns the memory and ties `'a` to its own borrow.
    pub(crate) fn new(address: *const u8, dtype: DType, shape: Shape, device: &'a Device) -> Self {
        let layout = Layout::contiguous(shape);
        Self { address, dtype, layout, device, memory: PhantomData }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes, outermost first.
    pub fn shape(&self) -> Shape {
        self.layout.shape()
    }

    /// The distance between neighbours in each dimension, in elements, outermost first.
    pub fn strides(&self) -> &[usize] {
        self.layout.strides()
    }

    /// The number of elements.
    pub fn num_elements(&self) -> usize {
        self.layout.num_elements()
    }

    /// The device whose memory this is.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// Keeps `range` of the outermost dimension.
    ///
    /// # Errors
    /// [`Error::Range`] if the range is not inside that dimension.
    pub fn rows(self, range: Range<usize>) -> Result<Self, Error> {
        Ok(self.narrowed(self.layout.slice(0, range)?))
    }

    /// Keeps `range` of the last dimension.
    ///
    /// # Errors
    /// [`Error::Range`] if the range is not inside that dimension.
    pub fn columns(self, range: Range<usize>) -> Result<Self, Error> {
        Ok(self.narrowed(self.layout.slice_columns(range)?))
    }

    /// The same elements in the same order with another shape: splits or merges dimensions.
    ///
    /// # Errors
    /// [`Error::Reshape`] if the number of elements differs, or if the strides cannot express the
    /// new shape without moving elements.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Self, Error> {
        Ok(Self { layout: self.layout.reshape(shape.into())?, ..self })
    }

    fn narrowed(self, (layout, offset): (Layout, usize)) -> Self {
        let address = self.address.wrapping_add(offset * self.dtype.size_bytes());
        Self { address, layout, ..self }
    }

    /// The view as equally long contiguous rows, `None` if there are gaps inside the rows.
    pub(crate) fn row_layout(&self) -> Option<RowLayout> {
        self.layout.as_rows()
    }

    /// Where a GPU finds the first element; `None` for memory of the host. For other libraries that
    /// run on the same device: to ask is safe, to use it is not. It is valid for as long as the
    /// tensor lives.
    pub fn device_address(&self) -> Option<*const c_void> {
        match self.device {
            Device::Cpu(_) => None,
            Device::Cuda(_) => Some(self.address.cast()),
        }
    }

    /// The memory must be that of `device`, if one of them is a GPU.
    pub(crate) fn check_device(
        &self,
        op: &'static str,
        argument: &'static str,
        device: &Device,
    ) -> Result<(), Error> {
        let same = match (self.device, device) {
            (Device::Cpu(_), Device::Cpu(_)) => true,
            (Device::Cuda(ours), Device::Cuda(other)) => ours.ordinal() == other.ordinal(),
            _ => false,
        };
        if same {
            return Ok(());
        }
        let (got, expected) = (self.device.description(), device.description());
        Err(Error::OtherDevice { op, argument, got, expected })
    }

    /// Typed rows of host memory. An op has checked dtype and layout before it asks for them.
    pub(crate) fn host_rows<T: HostElement>(self) -> Rows<'a, T> {
        assert_eq!(self.dtype, T::DTYPE, "an op checks dtypes before it reads");
        let layout = self.layout.as_rows();
        let layout = layout.unwrap_or_else(|| panic!("an op checks layouts before it reads"));
        match self.device {
            // SAFETY: the memory is the host's, and the field invariant of `address` says that
            // every element of `layout` is live, aligned and shared for 'a; `T` is its dtype.
            Device::Cpu(_) => unsafe { Rows::new(self.address.cast(), layout) },
            Device::Cuda(_) => panic!("memory of a GPU is not to be read by the host"),
        }
    }

    /// Typed elements of a contiguous view of host memory, as for [`View::host_rows`].
    pub(crate) fn host_slice<T: HostElement>(self) -> &'a [T] {
        self.host_rows().into_slice()
    }
}

/// An exclusive view of a tensor: dtype, shape and strides over mutably borrowed memory.
///
/// The innermost dimension is always contiguous. Its methods consume it; call
/// [`ViewMut::reborrow`] first to keep it.
#[derive(Debug)]
pub struct ViewMut<'a> {
    // As in `View`; and the elements that `layout` names are reachable through this view alone.
    address: *mut u8,
    dtype: DType,
    layout: Layout,
    device: &'a Device,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: a `ViewMut` is an exclusive borrow of plain memory, like `&mut [u8]`.
unsafe impl Send for ViewMut<'_> {}
// SAFETY: through a shared `ViewMut` one can only read, like through `&&mut [u8]`.
unsafe impl Sync for ViewMut<'_> {}

impl<'a> ViewMut<'a> {
    /// For [`crate::Tensor`], which owns the memory and ties `'a` to its own exclusive borrow.
    pub(crate) fn new(address: *mut u8, dtype: DType, shape: Shape, device: &'a Device) -> Self {
        let layout = Layout::contiguous(shape);
        Self { address, dtype, layout, device, memory: PhantomData }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes, outermost first.
    pub fn shape(&self) -> Shape {
        self.layout.shape()
    }

    /// The distance between neighbours in each dimension, in elements, outermost first.
    pub fn strides(&self) -> &[usize] {
        self.layout.strides()
    }

    /// The number of elements.
    pub fn num_elements(&self) -> usize {
        self.layout.num_elements()
    }

    /// The device whose memory this is.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// A read-only view of the same elements, for as long as `self` is not used.
    pub fn as_view(&self) -> View<'_> {
        View {
            address: self.address,
            dtype: self.dtype,
            layout: self.layout,
            device: self.device,
            memory: PhantomData,
        }
    }

    /// The same view with a shorter life, so that `self` can be used again after it.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        ViewMut {
            address: self.address,
            dtype: self.dtype,
            layout: self.layout,
            device: self.device,
            memory: PhantomData,
        }
    }

    /// Keeps `range` of the outermost dimension.
    ///
    /// # Errors
    /// [`Error::Range`] if the range is not inside that dimension.
    pub fn rows(self, range: Range<usize>) -> Result<Self, Error> {
        let narrow = self.layout.slice(0, range)?;
        Ok(self.narrowed(narrow))
    }

    /// Keeps `range` of the last dimension.
    ///
    /// # Errors
    /// [`Error::Range`] if the range is not inside that dimension.
    pub fn columns(self, range: Range<usize>) -> Result<Self, Error> {
        let narrow = self.layout.slice_columns(range)?;
        Ok(self.narrowed(narrow))
    }

    /// Two disjoint views: columns `..at` and columns `at..` of the last dimension. Splits a fused
    /// projection into its parts.
    ///
    /// # Errors
    /// [`Error::Range`] if `at` is beyond the last dimension.
    pub fn split_columns(self, at: usize) -> Result<(Self, Self), Error> {
        let end = self.shape().dims().last().copied().unwrap_or(0);
        let left = self.layout.slice_columns(0..at)?;
        let right = self.layout.slice_columns(at..end)?;
        let alias = Self { ..self };
        // The two layouts name disjoint elements, so each result is exclusive.
        Ok((alias.narrowed(left), self.narrowed(right)))
    }

    /// The same elements in the same order with another shape: splits or merges dimensions.
    ///
    /// # Errors
    /// [`Error::Reshape`] if the number of elements differs, or if the strides cannot express the
    /// new shape without moving elements.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Self, Error> {
        Ok(Self { layout: self.layout.reshape(shape.into())?, ..self })
    }

    fn narrowed(self, (layout, offset): (Layout, usize)) -> Self {
        let address = self.address.wrapping_add(offset * self.dtype.size_bytes());
        Self { address, layout, ..self }
    }

    /// As [`View::device_address`], to be written through.
    pub fn device_address(&self) -> Option<*mut c_void> {
        self.as_view().device_address().map(<*const c_void>::cast_mut)
    }

    /// Typed rows of host memory. An op has checked dtype and layout before it asks for them.
    pub(crate) fn host_rows<T: HostElement>(self) -> RowsMut<'a, T> {
        assert_eq!(self.dtype, T::DTYPE, "an op checks dtypes before it writes");
        let layout = self.layout.as_rows();
        let layout = layout.unwrap_or_else(|| panic!("an op checks layouts before it writes"));
        match self.device {
            // SAFETY: the memory is the host's, and the field invariant of `address` says that
            // every element of `layout` is live, aligned and exclusive for 'a; `T` is its dtype.
            Device::Cpu(_) => unsafe { RowsMut::new(self.address.cast(), layout) },
            Device::Cuda(_) => panic!("memory of a GPU is not to be written by the host"),
        }
    }

    /// Typed elements of a contiguous view of host memory, as for [`ViewMut::host_rows`].
    pub(crate) fn host_slice<T: HostElement>(self) -> &'a mut [T] {
        self.host_rows().into_slice()
    }
}

#[cfg(test)]
mod tests;
