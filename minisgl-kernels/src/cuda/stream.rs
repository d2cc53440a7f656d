//! A queue of a GPU, with the memory that its ops need beside their arguments.
//!
//! Never knows: what is queued.

use std::ffi::c_void;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::result::stream::StreamKind;
use cudarc::driver::{result, sys};

use super::device::{CudaDevice, failed};
use super::memory::CudaBuffer;
use super::staging::Staging;
use crate::{Device, Error};

/// What cuBLASLt may use for partial sums. Its own recommendation for Hopper is half of this.
const WORKSPACE_BYTES: usize = 64 << 20;

/// A queue of a CUDA GPU. Cloning gives another handle to it.
#[derive(Clone)]
pub struct CudaStream {
    inner: Arc<Inner>,
}

struct Inner {
    raw: sys::CUstream,
    cuda: CudaDevice,
    /// The same, for those who ask for a [`Device`].
    device: Device,
    capturing: AtomicBool,
    staging: Mutex<Option<Staging>>,
    workspace: Mutex<Scratch>,
    sampling: Mutex<Scratch>,
}

// SAFETY: the driver's handle may be used from every thread.
unsafe impl Send for Inner {}
// SAFETY: as for Send.
unsafe impl Sync for Inner {}

/// Memory that grows to what was asked for. What it outgrew is kept: a captured graph may use it.
#[derive(Default)]
struct Scratch {
    blocks: Vec<CudaBuffer>,
}

impl CudaStream {
    pub(crate) fn new(cuda: &CudaDevice) -> Result<Self, Error> {
        cuda.make_current()?;
        let raw =
            result::stream::create(StreamKind::NonBlocking).map_err(failed("creating a stream"))?;
        let inner = Inner {
            raw,
            cuda: cuda.clone(),
            device: Device::Cuda(cuda.clone()),
            capturing: AtomicBool::new(false),
            staging: Mutex::default(),
            workspace: Mutex::default(),
            sampling: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The driver's handle, a `CUstream`, for other libraries that queue work on it. It is valid
    /// for as long as this stream or a clone of it lives.
    pub fn raw(&self) -> *mut c_void {
        self.inner.raw.cast()
    }

    /// The GPU it feeds.
    pub fn device(&self) -> &CudaDevice {
        &self.inner.cuda
    }

    pub(crate) fn any_device(&self) -> &Device {
        &self.inner.device
    }

    pub(super) fn handle(&self) -> sys::CUstream {
        self.inner.raw
    }

    pub(crate) fn synchronize(&self) -> Result<(), Error> {
        self.inner.cuda.make_current()?;
        self.refuse_while_capturing("waiting for a stream")?;
        // SAFETY: the handle lives as long as `self`.
        unsafe { result::stream::synchronize(self.inner.raw) }
            .map_err(failed("waiting for a stream"))
    }

    /// Whether what is queued goes into a graph at the moment.
    pub fn is_capturing(&self) -> bool {
        self.inner.capturing.load(Ordering::Relaxed)
    }

    pub(super) fn set_capturing(&self, capturing: bool) {
        self.inner.capturing.store(capturing, Ordering::Relaxed);
    }

    /// For what a graph cannot hold.
    pub(super) fn refuse_while_capturing(&self, call: &'static str) -> Result<(), Error> {
        if !self.is_capturing() {
            return Ok(());
        }
        let message = "not while a graph is captured: a graph cannot hold it".to_owned();
        Err(Error::Device { call, message })
    }

    /// The pinned ring for uploads.
    pub(super) fn staging(&self) -> MutexGuard<'_, Option<Staging>> {
        lock(&self.inner.staging)
    }

    /// Memory for cuBLASLt: address and bytes.
    pub(super) fn workspace(&self) -> Result<(*mut c_void, usize), Error> {
        let address = self.scratch(&self.inner.workspace, WORKSPACE_BYTES)?;
        Ok((address, WORKSPACE_BYTES))
    }

    /// Memory for sampling, at least `bytes`.
    pub(super) fn sampling_scratch(&self, bytes: usize) -> Result<*mut c_void, Error> {
        self.scratch(&self.inner.sampling, bytes)
    }

    fn scratch(&self, scratch: &Mutex<Scratch>, bytes: usize) -> Result<*mut c_void, Error> {
        let mut scratch = lock(scratch);
        let largest = scratch.blocks.last().map_or(0, CudaBuffer::bytes);
        if largest < bytes {
            if self.is_capturing() {
                let call = "growing a stream's scratch memory";
                let message = "not while a graph is captured: run the same ops once before";
                return Err(Error::Device { call, message: message.to_owned() });
            }
            let bytes = bytes.max(2 * largest);
            scratch.blocks.push(CudaBuffer::new(&self.inner.cuda, bytes)?);
        }
        Ok(scratch.blocks.last().map_or(std::ptr::null_mut(), CudaBuffer::address).cast())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic left behind is memory with anything in it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.cuda.make_current().is_ok() {
            // Pinned memory must not go while a copy reads it. A failure means that the context is
            // gone, and all its work with it.
            // SAFETY: `new` created the stream, and nobody has it any more.
            let _ = unsafe {
                result::stream::synchronize(self.raw)
                    .and_then(|()| result::stream::destroy(self.raw))
            };
        }
    }
}

impl fmt::Debug for CudaStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaStream({:p} of {})", self.inner.raw, self.inner.cuda.description())
    }
}
