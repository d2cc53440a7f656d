//! Owned memory: of a GPU, and pinned memory of the host that a GPU reads and writes.
//!
//! Never knows: element types or shapes; it counts bytes.

use std::ptr::NonNull;

use cudarc::driver::{result, sys};

use super::device::{CudaDevice, failed};
use crate::Error;

/// Memory of a GPU, aligned to 256 bytes.
pub(crate) struct CudaBuffer {
    address: sys::CUdeviceptr,
    bytes: usize,
    device: CudaDevice,
}

impl CudaBuffer {
    /// Memory with anything in it.
    pub(super) fn new(device: &CudaDevice, bytes: usize) -> Result<Self, Error> {
        device.make_current()?;
        if bytes == 0 {
            return Ok(Self { address: 0, bytes, device: device.clone() });
        }
        // SAFETY: the context is current. Whoever reads the memory has written it before.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(|error| {
            if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                out_of_memory(device, bytes)
            } else {
                failed("allocating memory of a GPU")(error)
            }
        })?;
        Ok(Self { address, bytes, device: device.clone() })
    }

    /// Memory that is zero when this returns.
    pub(crate) fn zeroed(device: &CudaDevice, bytes: usize) -> Result<Self, Error> {
        let buffer = Self::new(device, bytes)?;
        if bytes > 0 {
            // SAFETY: the memory is ours, and nobody else knows it yet. The null stream is waited
            // for, since no other stream waits for it.
            unsafe {
                result::memset_d8_async(buffer.address, 0, bytes, result::stream::null())
                    .and_then(|()| result::stream::synchronize(result::stream::null()))
            }
            .map_err(failed("zeroing memory of a GPU"))?;
        }
        Ok(buffer)
    }

    /// The first byte, as the GPU addresses it. Never to be read by the host.
    pub(crate) fn address(&self) -> *mut u8 {
        std::ptr::without_provenance_mut(self.address as usize)
    }

    pub(super) fn raw(&self) -> sys::CUdeviceptr {
        self.address
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        if self.address != 0 && self.device.make_current().is_ok() {
            // The driver waits until queued work that may use the memory is done. A failure means
            // that the context is gone, and the memory with it.
            // SAFETY: `new` allocated it, and nobody has it any more.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

fn out_of_memory(device: &CudaDevice, bytes: usize) -> Error {
    let free = device.memory().map_or(0, |memory| memory.free_bytes);
    let text = format!("{} has {free} bytes free", device.description());
    Error::OutOfMemory { bytes, source: std::io::Error::other(text) }
}

/// Zeroed memory of the host that does not move, so that copies to and from a GPU need no help of
/// the CPU. Every GPU of the process may use it.
pub(super) struct Pinned {
    address: NonNull<u8>,
    bytes: usize,
    device: CudaDevice,
}

// SAFETY: it is plain memory, like a `Box<[u8]>`.
unsafe impl Send for Pinned {}
// SAFETY: as for Send.
unsafe impl Sync for Pinned {}

impl Pinned {
    pub(super) fn zeroed(device: &CudaDevice, bytes: usize) -> Result<Self, Error> {
        device.make_current()?;
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        let size = bytes.max(1);
        // SAFETY: the context is current, and the memory is zeroed before anybody sees it.
        let address = unsafe { result::malloc_host(size, flags) }
            .map_err(failed("allocating pinned memory"))?;
        let Some(address) = NonNull::new(address.cast::<u8>()) else {
            let source = std::io::Error::other("the driver returned no memory");
            return Err(Error::OutOfMemory { bytes, source });
        };
        // SAFETY: the driver gave `size` bytes.
        unsafe { address.write_bytes(0, size) };
        Ok(Self { address, bytes, device: device.clone() })
    }

    /// The first byte, aligned to 4096.
    pub(super) fn address(&self) -> *mut u8 {
        self.address.as_ptr()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first byte, as GPUs address it.
    pub(super) fn device_address(&self) -> Result<sys::CUdeviceptr, Error> {
        self.device.make_current()?;
        let mut address = 0;
        // SAFETY: the memory was allocated for devices to map; one address is written.
        let status = unsafe {
            sys::cuMemHostGetDevicePointer_v2(&mut address, self.address.as_ptr().cast(), 0)
        };
        status.result().map_err(failed("mapping pinned memory"))?;
        Ok(address)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.device.make_current().is_ok() {
            // SAFETY: `zeroed` allocated it; the owners wait for the copies they queued.
            let _ = unsafe { result::free_host(self.address.as_ptr().cast()) };
        }
    }
}
