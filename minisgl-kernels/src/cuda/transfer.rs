//! Copies between host memory and a GPU's.
//!
//! Never knows: what the elements mean.

use cudarc::driver::{result, sys};

use super::device::{CudaDevice, failed};
use super::staging::Staging;
use super::stream::CudaStream;
use crate::convert::CheckpointDType;
use crate::cpu::transfer as host;
use crate::{DType, Device, Error, HostElement, View, ViewMut};

/// Rows of device memory, counted in bytes.
#[derive(Clone, Copy)]
pub(super) struct ByteRows {
    address: sys::CUdeviceptr,
    num_rows: usize,
    row_bytes: usize,
    stride: usize,
}

impl ByteRows {
    /// `view` has no gaps inside its rows, which the caller has checked; rows without gaps between
    /// them become one.
    pub(super) fn of(view: View<'_>) -> Self {
        let layout = view.row_layout();
        let layout = layout.unwrap_or_else(|| panic!("a copy checks layouts before it starts"));
        let size = view.dtype().size_bytes();
        let address = view.device_address().map_or(0, |address| address.addr() as u64);
        let (num_rows, row_bytes) = (layout.num_rows, layout.row_len * size);
        let stride = layout.row_stride * size;
        if num_rows <= 1 || stride == row_bytes {
            let row_bytes = num_rows * row_bytes;
            return Self { address, num_rows: 1, row_bytes, stride: row_bytes };
        }
        Self { address, num_rows, row_bytes, stride }
    }

    pub(super) fn bytes(&self) -> usize {
        self.num_rows * self.row_bytes
    }

    /// `count` of the rows, from `first` on.
    fn part(&self, first: usize, count: usize) -> Self {
        let address = self.address + (first * self.stride) as u64;
        Self { address, num_rows: count, ..*self }
    }

    /// At most `len` bytes of one row, from `start` on.
    fn piece(&self, row: usize, start: usize, len: usize) -> Self {
        let address = self.address + (row * self.stride + start) as u64;
        Self { address, num_rows: 1, row_bytes: len, stride: len }
    }

    fn plane(&self) -> sys::CUDA_MEMCPY2D {
        sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: std::ptr::null(),
            srcDevice: 0,
            srcArray: std::ptr::null_mut(),
            srcPitch: self.stride,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: 0,
            dstArray: std::ptr::null_mut(),
            dstPitch: self.stride,
            WidthInBytes: self.row_bytes,
            Height: self.num_rows,
        }
    }

    /// Queues the copy of dense rows at `source` to here.
    ///
    /// # Safety
    /// `source` has [`ByteRows::bytes`] bytes, which stay as they are until the copy is done; the
    /// context is current.
    pub(super) unsafe fn fill(
        &self,
        source: *const u8,
        stream: sys::CUstream,
    ) -> Result<(), Error> {
        if self.bytes() == 0 {
            return Ok(());
        }
        let status = if self.num_rows == 1 {
            // SAFETY: by the caller, and since `self` is device memory.
            unsafe {
                sys::cuMemcpyHtoDAsync_v2(self.address, source.cast(), self.row_bytes, stream)
            }
        } else {
            let plane = sys::CUDA_MEMCPY2D {
                srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
                srcHost: source.cast(),
                srcPitch: self.row_bytes,
                dstDevice: self.address,
                ..self.plane()
            };
            // SAFETY: as above.
            unsafe { sys::cuMemcpy2DAsync_v2(&plane, stream) }
        };
        status.result().map_err(failed("copying to a GPU"))
    }

    /// Queues the copy of the rows to dense rows at `target`.
    ///
    /// # Safety
    /// `target` has [`ByteRows::bytes`] bytes, which nobody else touches until the copy is done;
    /// the context is current.
    pub(super) unsafe fn read(&self, target: *mut u8, stream: sys::CUstream) -> Result<(), Error> {
        if self.bytes() == 0 {
            return Ok(());
        }
        let status = if self.num_rows == 1 {
            // SAFETY: by the caller, and since `self` is device memory.
            unsafe {
                sys::cuMemcpyDtoHAsync_v2(target.cast(), self.address, self.row_bytes, stream)
            }
        } else {
            let plane = sys::CUDA_MEMCPY2D {
                srcDevice: self.address,
                dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
                dstHost: target.cast(),
                dstPitch: self.row_bytes,
                ..self.plane()
            };
            // SAFETY: as above.
            unsafe { sys::cuMemcpy2DAsync_v2(&plane, stream) }
        };
        status.result().map_err(failed("copying from a GPU"))
    }
}

/// The bytes of elements.
fn bytes_of<T: HostElement>(elements: &[T]) -> &[u8] {
    // SAFETY: host elements are plain numbers without padding.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) }
}

/// Copies `source` through the stream's pinned ring. The stream's earlier work is not waited for.
pub(crate) fn upload<T: HostElement>(
    stream: &CudaStream,
    source: &[T],
    target: ViewMut<'_>,
) -> Result<(), Error> {
    let source = bytes_of(source);
    let Device::Cpu(cpu) = stream.device().host() else { return Ok(()) };
    send(stream, ByteRows::of(target.as_view()), |first, piece| {
        host::copy_bytes(cpu, &source[first..first + piece.len()], piece);
    })
}

/// As [`upload`], with the conversion of checkpoint elements on the way.
pub(crate) fn copy_from_checkpoint(
    stream: &CudaStream,
    source: &[u8],
    source_dtype: CheckpointDType,
    target: ViewMut<'_>,
) -> Result<(), Error> {
    let Device::Cpu(cpu) = stream.device().host() else { return Ok(()) };
    let (from, to) = (source_dtype.size_bytes(), target.dtype().size_bytes());
    let dtype = target.dtype();
    send(stream, ByteRows::of(target.as_view()), |first, piece| {
        let source = &source[first / to * from..][..piece.len() / to * from];
        match (source_dtype, dtype) {
            (CheckpointDType::F32, DType::F32) | (CheckpointDType::Bf16, DType::Bf16) => {
                host::copy_bytes(cpu, source, piece);
            }
            (_, DType::Bf16) => {
                let target = elements_of::<half::bf16>(piece);
                host::convert_elements(cpu, source, source_dtype, target);
            }
            _ => host::convert_elements(cpu, source, source_dtype, elements_of::<f32>(piece)),
        }
    })
}

/// The elements in a piece of the ring.
fn elements_of<T: HostElement>(piece: &mut [u8]) -> &mut [T] {
    // SAFETY: host elements are plain numbers, for which any bytes are values.
    let (before, elements, after) = unsafe { piece.align_to_mut() };
    assert!(before.is_empty() && after.is_empty(), "pieces are aligned and hold whole elements");
    elements
}

/// Has `fill(first, piece)` write every piece of the bytes for `target` (dense, in order), and
/// queues its copy.
fn send(
    stream: &CudaStream,
    target: ByteRows,
    mut fill: impl FnMut(usize, &mut [u8]),
) -> Result<(), Error> {
    stream.refuse_while_capturing("copying to a GPU")?;
    stream.device().make_current()?;
    let mut staging = stream.staging();
    let staging = match &mut *staging {
        Some(staging) => staging,
        none => none.insert(Staging::new(stream)?),
    };
    let mut copy = |first: usize, part: ByteRows| {
        let piece = staging.piece(stream, part.bytes())?;
        // SAFETY: the ring says that the piece is free, and that it has this many bytes.
        fill(first, unsafe { std::slice::from_raw_parts_mut(piece, part.bytes()) });
        // SAFETY: the ring hands the piece out again only after this copy.
        unsafe { part.fill(piece, stream.handle()) }
    };
    let ByteRows { num_rows, row_bytes, .. } = target;
    if num_rows > 1 && row_bytes <= Staging::MAX_PIECE {
        let step = (Staging::MAX_PIECE / row_bytes.max(1)).max(1);
        for first in (0..num_rows).step_by(step) {
            copy(first * row_bytes, target.part(first, step.min(num_rows - first)))?;
        }
        return Ok(());
    }
    for row in 0..num_rows {
        for start in (0..row_bytes).step_by(Staging::MAX_PIECE) {
            let len = Staging::MAX_PIECE.min(row_bytes - start);
            copy(row * row_bytes + start, target.piece(row, start, len))?;
        }
    }
    Ok(())
}

/// Copies `source` to `target`, after the stream's earlier work, and waits for it.
pub(crate) fn download<T: HostElement>(
    stream: &CudaStream,
    source: View<'_>,
    target: &mut [T],
) -> Result<(), Error> {
    stream.refuse_while_capturing("copying from a GPU")?;
    stream.device().make_current()?;
    read_and_wait(source, target, stream.handle())
}

/// Copies `source` to `target` after all work of the device, and waits for it.
pub(crate) fn download_after_all<T: HostElement>(
    device: &CudaDevice,
    source: View<'_>,
    target: &mut [T],
) -> Result<(), Error> {
    device.synchronize()?;
    read_and_wait(source, target, result::stream::null())
}

fn read_and_wait<T: HostElement>(
    source: View<'_>,
    target: &mut [T],
    stream: sys::CUstream,
) -> Result<(), Error> {
    let rows = ByteRows::of(source);
    assert_eq!(rows.bytes(), size_of_val(target), "a copy checks lengths before it starts");
    // SAFETY: `target` is that long, is borrowed exclusively, and the copy is waited for, also if
    // it could not be queued.
    let queued = unsafe { rows.read(target.as_mut_ptr().cast(), stream) };
    // SAFETY: the handle is that of a live stream, or null for the default one.
    let done = unsafe { result::stream::synchronize(stream) };
    queued.and(done.map_err(failed("copying from a GPU")))
}

/// Copies `source` to new memory that nobody else uses yet, and waits for it.
pub(crate) fn upload_now<T: HostElement>(
    device: &CudaDevice,
    source: &[T],
    target: ViewMut<'_>,
) -> Result<(), Error> {
    device.make_current()?;
    let stream = result::stream::null();
    // SAFETY: the caller has compared the lengths; `source` is borrowed until the copy is done.
    let queued = unsafe { ByteRows::of(target.as_view()).fill(source.as_ptr().cast(), stream) };
    // SAFETY: null is the default stream.
    let done = unsafe { result::stream::synchronize(stream) };
    queued.and(done.map_err(failed("copying to a GPU")))
}
