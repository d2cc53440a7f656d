//! Owned device memory with a dtype and a shape.
//!
//! Never knows: strides other than its own contiguous ones; slices of it are views.

use std::fmt;

use half::bf16;

use crate::buffer::Buffer;
use crate::cuda;
use crate::dtype::Float;
use crate::ops::check::check_transfer;
use crate::{DType, Device, Error, F8E4M3, HostElement, Shape, View, ViewMut};

/// Owned, contiguous memory of one device.
pub struct Tensor {
    buffer: Buffer,
    dtype: DType,
    shape: Shape,
    device: Device,
}

impl Tensor {
    /// For [`Device::zeros`], which has checked that `buffer` holds `shape` elements of `dtype`.
    pub(crate) fn new(buffer: Buffer, dtype: DType, shape: Shape, device: Device) -> Self {
        Self { buffer, dtype, shape, device }
    }

    /// A tensor on `device` with the elements of `source`, row-major.
    ///
    /// # Errors
    /// [`Error::Length`] if `source` has another number of elements than `shape`, and the errors
    /// of [`Device::zeros`].
    pub fn from_slice<T: HostElement>(
        device: &Device,
        shape: impl Into<Shape>,
        source: &[T],
    ) -> Result<Self, Error> {
        let mut tensor = device.zeros(T::DTYPE, shape)?;
        check_transfer::<T>("from_slice", "source", source.len(), tensor.view())?;
        match device {
            Device::Cpu(_) => device.new_stream()?.upload(source, tensor.view_mut())?,
            Device::Cuda(cuda) => cuda::upload_now(cuda, source, tensor.view_mut())?,
        }
        Ok(tensor)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes, outermost first.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The number of elements.
    pub fn num_elements(&self) -> usize {
        self.view().num_elements()
    }

    /// The device that holds it.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A view of all of it.
    pub fn view(&self) -> View<'_> {
        View::new(self.buffer.address(), self.dtype, self.shape, &self.device)
    }

    /// An exclusive view of all of it.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(self.buffer.address_mut(), self.dtype, self.shape, &self.device)
    }

    /// A copy of the elements on the host, row-major, after all work queued on any stream of the
    /// device. For what must not wait, see [`Readback`](crate::Readback).
    ///
    /// # Errors
    /// [`Error::DType`] if `T` is not the tensor's element type, and errors of the device.
    pub fn to_vec<T: HostElement>(&self) -> Result<Vec<T>, Error> {
        let mut target = vec![T::default(); self.num_elements()];
        check_transfer::<T>("to_vec", "tensor", target.len(), self.view())?;
        match &self.device {
            Device::Cpu(_) => self.device.new_stream()?.download(self.view(), &mut target)?,
            Device::Cuda(cuda) => cuda::download_after_all(cuda, self.view(), &mut target)?,
        }
        Ok(target)
    }

    /// A copy of the elements on the host, row-major, bf16 and f8_e4m3 widened (exactly) to f32.
    ///
    /// # Errors
    /// [`Error::DType`] if the tensor is of integers.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>, Error> {
        match self.dtype {
            DType::Bf16 => Ok(self.to_vec::<bf16>()?.into_iter().map(Float::to_f32).collect()),
            DType::F8E4M3 => Ok(self.to_vec::<F8E4M3>()?.into_iter().map(F8E4M3::to_f32).collect()),
            _ => self.to_vec(),
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {} on {})", self.dtype, self.shape, self.device.description())
    }
}
