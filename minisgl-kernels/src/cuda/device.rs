//! A GPU: its primary context, and what streams of it share.
//!
//! Never knows: ranks; several devices of one process do not know each other.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::{CUcontext, CUdevice, CUdevice_attribute as Attribute};
use cudarc::driver::{DriverError, result};

use super::gemm::Gemms;
use super::kernels::Kernels;
use super::libraries::CudaLibraries;
use super::probe::start_driver;
use crate::{Device, Error, MemoryInfo};

/// A CUDA GPU. Cloning gives another handle to it.
///
/// Work is queued through the GPU's primary context, which every call makes current on the calling
/// thread, so that a device may be used from any thread.
#[derive(Clone)]
pub struct CudaDevice {
    inner: Arc<Inner>,
}

struct Inner {
    ordinal: usize,
    device: CUdevice,
    context: CUcontext,
    libraries: CudaLibraries,
    name: String,
    capability: (u32, u32),
    l2_bytes: usize,
    num_multiprocessors: usize,
    /// Threads that fill pinned memory.
    host: Device,
    gemms: Mutex<Gemms>,
}

// SAFETY: the handles of the driver may be used from every thread.
unsafe impl Send for Inner {}
// SAFETY: as for Send.
unsafe impl Sync for Inner {}

/// A driver call failed.
pub(super) fn failed(call: &'static str) -> impl Fn(DriverError) -> Error {
    move |error| Error::Device { call, message: format!("{error:?}") }
}

impl CudaDevice {
    pub(crate) fn open(ordinal: usize, libraries: &CudaLibraries) -> Result<Self, Error> {
        let count = start_driver().map_err(Error::Unavailable)?;
        if ordinal >= count {
            let plural = if count == 1 { "" } else { "s" };
            let text = format!("no CUDA device {ordinal}: the driver shows {count} GPU{plural}");
            return Err(Error::Unavailable(text));
        }
        let failed = failed("opening a GPU");
        let device = result::device::get(ordinal as i32).map_err(&failed)?;
        let name = result::device::get_name(device).map_err(&failed)?;
        let attribute = |attribute| {
            // SAFETY: `device` is one that the driver returned.
            let value = unsafe { result::device::get_attribute(device, attribute) };
            value.map(|value| value.unsigned_abs()).map_err(&failed)
        };
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        libraries.kernels().check_arch(&name, capability).map_err(Error::Unavailable)?;
        let l2_bytes = attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize;
        let num_multiprocessors =
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize;
        // A few threads read files and fill pinned memory faster than the bus takes it.
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let host =
            Device::cpu(NonZeroUsize::new((cores / 4).clamp(1, 8)).unwrap_or(NonZeroUsize::MIN))?;
        // SAFETY: `device` is one that the driver returned.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(&failed)?;
        let inner = Inner {
            ordinal,
            device,
            context,
            libraries: libraries.clone(),
            name,
            capability,
            l2_bytes,
            num_multiprocessors,
            host,
            gemms: Mutex::default(),
        };
        let device = Self { inner: Arc::new(inner) };
        device.make_current()?;
        Ok(device)
    }

    /// Makes the device's context the current one of the calling thread. Every function of this
    /// crate does so itself; other libraries (NCCL) need it before their calls.
    ///
    /// # Errors
    /// [`Error::Device`] if the driver refuses, which it does after a fatal error.
    pub fn make_current(&self) -> Result<(), Error> {
        // SAFETY: the context is retained for as long as `self` lives.
        unsafe { result::ctx::set_current(self.inner.context) }
            .map_err(failed("making a GPU current"))
    }

    /// The driver's number of the device.
    pub fn ordinal(&self) -> usize {
        self.inner.ordinal
    }

    /// The product name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The compute capability: major, minor.
    pub fn compute_capability(&self) -> (u32, u32) {
        self.inner.capability
    }

    /// Bytes of the cache before its memory.
    pub fn l2_bytes(&self) -> usize {
        self.inner.l2_bytes
    }

    /// How many streaming multiprocessors it has.
    pub fn num_multiprocessors(&self) -> usize {
        self.inner.num_multiprocessors
    }

    /// The libraries it runs on.
    pub fn libraries(&self) -> &CudaLibraries {
        &self.inner.libraries
    }

    pub(crate) fn description(&self) -> String {
        let (major, minor) = self.inner.capability;
        format!("cuda:{} ({}, compute capability {major}.{minor})", self.ordinal(), self.name())
    }

    pub(crate) fn memory(&self) -> Result<MemoryInfo, Error> {
        self.make_current()?;
        let (free, total) = result::mem_get_info().map_err(failed("asking for memory"))?;
        Ok(MemoryInfo { total_bytes: total as u64, free_bytes: free as u64 })
    }

    /// Waits for everything that was queued on any stream of the device.
    pub(crate) fn synchronize(&self) -> Result<(), Error> {
        self.make_current()?;
        result::ctx::synchronize().map_err(failed("waiting for a GPU"))
    }

    pub(super) fn kernels(&self) -> &Kernels {
        self.inner.libraries.kernels()
    }

    pub(super) fn gemms(&self) -> MutexGuard<'_, Gemms> {
        // What a panic left behind is a cache.
        self.inner.gemms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn host(&self) -> &Device {
        &self.inner.host
    }

    pub(super) fn handle(&self) -> CUdevice {
        self.inner.device
    }

    pub(super) fn context(&self) -> CUcontext {
        self.inner.context
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A context that cannot be released ends with the process.
        // SAFETY: `open` retained it, and everything in it holds a handle to `self`.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaDevice({})", self.description())
    }
}
