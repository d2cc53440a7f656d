//! A call into the kernels library: arguments from views, the status to an error.
//!
//! Never knows: what the kernel does. The op has checked dtypes, shapes and layouts before.

use std::ffi::c_void;

use cudarc::driver;

use super::device::failed;
use super::kernels::Kernels;
use super::stream::CudaStream;
use super::sys;
use crate::{DType, Device, Error, HostElement, View, ViewMut};

/// The call of one op. The device's context is current.
pub(super) struct Call<'s> {
    op: &'static str,
    stream: &'s CudaStream,
}

impl<'s> Call<'s> {
    pub(super) fn new(op: &'static str, stream: &'s CudaStream) -> Result<Self, Error> {
        stream.device().make_current()?;
        Ok(Self { op, stream })
    }

    pub(super) fn functions(&self) -> &'s sys::Functions {
        &self.kernels().functions
    }

    fn kernels(&self) -> &'s Kernels {
        self.stream.device().kernels()
    }

    pub(super) fn stream(&self) -> sys::Stream {
        self.stream.raw()
    }

    /// The result of a call with this status.
    pub(super) fn done(&self, status: i32) -> Result<(), Error> {
        self.kernels().check(self.op, status)
    }

    /// The address of a view's first element, which must be memory of the stream's device.
    pub(super) fn address(
        &self,
        argument: &'static str,
        view: View<'_>,
    ) -> Result<*const c_void, Error> {
        let ours = self.stream.device();
        match (view.device(), view.device_address()) {
            (Device::Cuda(device), Some(address)) if device.ordinal() == ours.ordinal() => {
                Ok(address)
            }
            (other, _) => Err(Error::OtherDevice {
                op: self.op,
                argument,
                got: other.description(),
                expected: ours.description(),
            }),
        }
    }

    /// The elements of a contiguous view.
    pub(super) fn elements<T: HostElement>(
        &self,
        argument: &'static str,
        view: View<'_>,
    ) -> Result<*const T, Error> {
        assert_eq!(view.dtype(), T::DTYPE, "an op checks dtypes before it calls");
        Ok(self.address(argument, view)?.cast())
    }

    /// The elements of a contiguous view, to be written.
    pub(super) fn elements_mut<T: HostElement>(
        &self,
        argument: &'static str,
        view: &mut ViewMut<'_>,
    ) -> Result<*mut T, Error> {
        Ok(self.elements::<T>(argument, view.as_view())?.cast_mut())
    }

    /// The rows of a view.
    pub(super) fn rows(&self, argument: &'static str, view: View<'_>) -> Result<sys::Rows, Error> {
        let layout = view.row_layout();
        let layout = layout.unwrap_or_else(|| panic!("an op checks layouts before it calls"));
        Ok(sys::Rows {
            data: self.address(argument, view)?.cast_mut(),
            rows: layout.num_rows as i64,
            row_len: layout.row_len as i64,
            stride: layout.row_stride as i64,
        })
    }

    /// The rows of a view, to be written.
    pub(super) fn rows_mut(
        &self,
        argument: &'static str,
        view: &mut ViewMut<'_>,
    ) -> Result<sys::Rows, Error> {
        self.rows(argument, view.as_view())
    }

    /// The elements of an array of any rank that must have no gaps at all.
    pub(super) fn dense(
        &self,
        argument: &'static str,
        view: View<'_>,
    ) -> Result<*const c_void, Error> {
        let has_gaps = view.num_elements() > 0
            && view
                .row_layout()
                .is_none_or(|layout| layout.num_rows > 1 && layout.row_stride != layout.row_len);
        if has_gaps {
            return Err(Error::Layout {
                op: self.op,
                argument,
                shape: view.shape(),
                strides: view.strides().to_vec(),
            });
        }
        self.address(argument, view)
    }

    pub(super) fn add_bias(
        &self,
        dtype: DType,
        bias: *const c_void,
        out_dtype: DType,
        out: sys::Rows,
    ) -> Result<(), Error> {
        let (dtype, out_dtype) = (code(dtype), code(out_dtype));
        let add = self.functions().msgl_add_bias;
        // SAFETY: the op has checked that `bias` has an element per column of `out`.
        self.done(unsafe { add(dtype, bias, out_dtype, out, self.stream()) })
    }

    /// Writes zeros to all rows.
    pub(super) fn zero(&self, rows: sys::Rows, dtype: DType) -> Result<(), Error> {
        let bytes = |elements: i64| elements as usize * dtype.size_bytes();
        let (pitch, width) = (bytes(rows.stride.max(rows.row_len)), bytes(rows.row_len));
        // SAFETY: the rows are device memory that a view borrows exclusively.
        let status = unsafe {
            driver::sys::cuMemsetD2D8Async(
                rows.data.addr() as u64,
                pitch,
                0,
                width,
                rows.rows as usize,
                self.stream().cast(),
            )
        };
        status.result().map_err(failed(self.op))
    }
}

/// The library's number of a float type.
pub(super) fn code(dtype: DType) -> i32 {
    match dtype {
        DType::Bf16 => sys::BF16,
        DType::F8E4M3 => sys::F8E4M3,
        _ => sys::F32,
    }
}
