//! What the CUDA driver and libraries of this machine are.
//!
//! Never knows: what is done with the answer.

use std::sync::Arc;

use cudarc::driver::safe::CudaContext;
use cudarc::driver::{DriverError, result, sys};

use super::kernels::Kernels;
use super::library::{CUBLASLT, LibraryInfo, LibrarySearch, NCCL, NVRTC, find};

/// The driver and each library: what was found, or one sentence on what is missing.
#[derive(Clone, Debug)]
pub struct CudaReport {
    /// The NVIDIA driver and its GPUs.
    pub driver: Result<DriverInfo, String>,
    /// Matrix multiplication.
    pub cublaslt: Result<LibraryInfo, String>,
    /// Run-time compilation of kernels.
    pub nvrtc: Result<LibraryInfo, String>,
    /// Collectives between GPUs.
    pub nccl: Result<LibraryInfo, String>,
    /// This project's own kernels.
    pub kernels: Result<LibraryInfo, String>,
}

/// The NVIDIA driver.
#[derive(Clone, Debug)]
pub struct DriverInfo {
    /// The newest CUDA version it supports: major, minor.
    pub version: (u32, u32),
    /// The GPUs it shows to this process, in its order.
    pub devices: Vec<GpuInfo>,
}

/// A GPU.
#[derive(Clone, Debug)]
pub struct GpuInfo {
    /// Its product name.
    pub name: String,
    /// All of its memory, in bytes.
    pub total_bytes: u64,
    /// What could be allocated now, in bytes.
    pub free_bytes: u64,
    /// Its compute capability: major, minor.
    pub compute_capability: (u32, u32),
}

/// Looks for the driver, its GPUs, and the CUDA libraries.
///
/// Opens each GPU for a moment, which takes some hundred milliseconds and some of its memory.
pub fn probe(search: &LibrarySearch) -> CudaReport {
    CudaReport {
        driver: driver(),
        cublaslt: find(&CUBLASLT, None, search),
        nvrtc: find(&NVRTC, None, search),
        nccl: find(&NCCL, search.nccl.as_deref(), search),
        kernels: Kernels::load(search).map(|kernels| kernels.info()),
    }
}

fn driver() -> Result<DriverInfo, String> {
    let count = start_driver()?;
    let mut version = 0;
    // SAFETY: the driver is present, and writes one integer through the pointer.
    let status = unsafe { sys::cuDriverGetVersion(&mut version) };
    status.result().map_err(|error| failure("the NVIDIA driver tells no version", error))?;
    let version = version.unsigned_abs();
    let open = |ordinal| {
        open(ordinal).map_err(|error| failure(&format!("GPU {ordinal} cannot be opened"), error))
    };
    let devices = (0..count).map(open).collect::<Result<_, _>>()?;
    Ok(DriverInfo { version: (version / 1000, version % 1000 / 10), devices })
}

/// Starts the driver and returns the number of GPUs. Must come before every other call to cudarc,
/// which panics if there is no driver.
pub(super) fn start_driver() -> Result<usize, String> {
    // SAFETY: opens and closes the driver's library, which any process may do.
    if !unsafe { sys::is_culib_present() } {
        let missing = "no NVIDIA driver found (libcuda.so.1 could not be loaded)";
        return Err(format!("{missing}: install the driver, or run on the CPU"));
    }
    result::init().map_err(|error| failure("the NVIDIA driver does not start", error))?;
    let count = CudaContext::device_count();
    let count = count.map_err(|error| failure("the NVIDIA driver lists no GPUs", error))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

fn open(ordinal: usize) -> Result<GpuInfo, DriverError> {
    let context: Arc<CudaContext> = CudaContext::new(ordinal)?;
    let (free, total) = context.mem_get_info()?;
    let (major, minor) = context.compute_capability()?;
    Ok(GpuInfo {
        name: context.name()?,
        total_bytes: total as u64,
        free_bytes: free as u64,
        compute_capability: (major.unsigned_abs(), minor.unsigned_abs()),
    })
}

fn failure(what: &str, error: DriverError) -> String {
    format!("{what} ({error}): check that nvidia-smi works, or run on the CPU")
}
