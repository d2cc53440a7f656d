//! Queues of work on a device.
//!
//! Never knows: what the work is for.

use crate::cpu::{CpuDevice, transfer};
use crate::cuda::{self, CudaStream};
use crate::ops::check::check_transfer;
use crate::{Device, Error, HostElement, View, ViewMut};

/// A queue of work on one device: what is put in runs in order.
///
/// On the CPU the work is done when the call returns; on a GPU it is done after
/// [`Stream::synchronize`].
#[derive(Clone, Debug)]
pub enum Stream {
    /// A queue of the CPU.
    Cpu(CpuStream),
    /// A queue of a CUDA device.
    Cuda(CudaStream),
}

/// The CPU's queue: hands work to the device's threads and waits for it.
#[derive(Clone, Debug)]
pub struct CpuStream {
    cpu: CpuDevice,
    device: Device,
}

impl CpuStream {
    pub(crate) fn new(cpu: CpuDevice) -> Self {
        Self { device: Device::Cpu(cpu.clone()), cpu }
    }

    pub(crate) fn cpu(&self) -> &CpuDevice {
        &self.cpu
    }
}

impl Stream {
    /// Waits until everything put in so far is done.
    ///
    /// # Errors
    /// Errors of the device that showed only while the work ran. None on the CPU.
    pub fn synchronize(&self) -> Result<(), Error> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Cuda(stream) => stream.synchronize(),
        }
    }

    /// The device it feeds.
    pub fn device(&self) -> &Device {
        match self {
            Self::Cpu(stream) => &stream.device,
            Self::Cuda(stream) => stream.any_device(),
        }
    }

    /// Copies host memory to the device: `source`, row-major, into `target` of any shape. It takes
    /// its turn behind the work queued so far, but does not wait for it: `source` has been copied
    /// when the call returns.
    ///
    /// # Errors
    /// [`Error::DType`] if `target` does not hold `T`, [`Error::Length`] if the numbers of
    /// elements differ, [`Error::Layout`] if `target` has gaps inside its rows,
    /// [`Error::OtherDevice`] if it is not of the stream's device, and errors of the device.
    pub fn upload<T: HostElement>(&self, source: &[T], target: ViewMut<'_>) -> Result<(), Error> {
        check_transfer::<T>("upload", "target", source.len(), target.as_view())?;
        target.as_view().check_device("upload", "target", self.device())?;
        match self {
            Self::Cpu(stream) => transfer::upload(&stream.cpu, source, target.host_rows()),
            Self::Cuda(stream) => cuda::upload(stream, source, target)?,
        }
        Ok(())
    }

    /// Copies device memory to the host: `source` of any shape, row-major, into `target`. Waits
    /// until the copy is done.
    ///
    /// # Errors
    /// [`Error::DType`] if `source` does not hold `T`, [`Error::Length`] if the numbers of
    /// elements differ, [`Error::Layout`] if `source` has gaps inside its rows,
    /// [`Error::OtherDevice`] if it is not of the stream's device, and errors of the device.
    pub fn download<T: HostElement>(
        &self,
        source: View<'_>,
        target: &mut [T],
    ) -> Result<(), Error> {
        check_transfer::<T>("download", "source", target.len(), source)?;
        source.check_device("download", "source", self.device())?;
        match self {
            Self::Cpu(_) => transfer::download(source.host_rows(), target),
            Self::Cuda(stream) => cuda::download(stream, source, target)?,
        }
        Ok(())
    }

    /// Runs `work`, which calls ops on this stream, and returns its result.
    ///
    /// On the CPU it runs on one of the device's own threads, so that the parallel ops in it start
    /// without handing over from the calling thread each time. A panic in it is passed on. On a GPU it runs
    /// on the calling thread.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Cpu(stream) => stream.cpu.run(work),
            Self::Cuda(_) => work(),
        }
    }
}
