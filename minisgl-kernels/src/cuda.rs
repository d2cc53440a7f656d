//! CUDA: what this machine offers, and the device that a build with CUDA kernels will have.
//!
//! Never knows: environment variables or command lines; callers pass what they found there.
//!
//! Nothing here is linked against CUDA. The driver and the libraries are opened at run time, and
//! their absence is an ordinary answer.

#[expect(unsafe_code, reason = "opening shared libraries and calling their version functions")]
mod library;
#[expect(unsafe_code, reason = "asking the CUDA driver")]
mod probe;

pub use library::{LibraryInfo, LibrarySearch};
pub use probe::{CudaReport, DriverInfo, GpuInfo, probe};

use crate::Error;

/// A CUDA GPU. This build has no CUDA kernels, so there is no value of this type.
#[derive(Clone, Debug)]
pub enum CudaDevice {}

/// A queue of a CUDA GPU. This build has no CUDA kernels, so there is no value of this type.
#[derive(Clone, Debug)]
pub enum CudaStream {}

impl CudaDevice {
    pub(crate) fn open(ordinal: usize) -> Result<Self, Error> {
        let reason = match probe::gpu(ordinal) {
            Ok(gpu) => format!(
                "found {}, but this build has no CUDA kernels yet; run with --device cpu",
                gpu.name
            ),
            Err(reason) => reason,
        };
        Err(Error::Unavailable(reason))
    }
}
