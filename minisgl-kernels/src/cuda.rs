//! CUDA: what this machine offers, and the backend that runs on it.
//!
//! Never knows: environment variables or command lines; callers pass what they found there.
//!
//! Nothing here is linked against CUDA. The driver and the libraries are opened at run time, and
//! their absence is an ordinary answer.
//!
//! # Reading order
//! 1. `probe`, `library`, `kernels`, `libraries`: what there is, and opening it.
//! 2. `device`, `stream`, `memory`, `event`: the driver's objects as Rust owns them.
//! 3. `transfer`, `staging`, `readback`: bytes between the host and a GPU.
//! 4. `sys`, `call`, `ops`: the kernels library, and each op's call into it; `gemm`: cuBLASLt.
//! 5. `graph`: work that was captured; `peer`: sums over several GPUs.
//!
//! **Invariant:** whatever the host reads or writes asynchronously (pinned memory) is owned by a
//! value that waits for the GPU before the memory goes. Device memory is freed by a driver call
//! that waits as well, so views may end before queued work does.

#[expect(unsafe_code, reason = "calls into the kernels library, and memory it writes to")]
mod call;
#[expect(unsafe_code, reason = "the driver's context and device handles")]
mod device;
#[expect(unsafe_code, reason = "the driver's event handles")]
mod event;
#[expect(unsafe_code, reason = "calls to cuBLASLt, on addresses that views give")]
mod gemm;
#[expect(unsafe_code, reason = "the driver's graph handles")]
mod graph;
#[expect(unsafe_code, reason = "opening the kernels library")]
mod kernels;
#[expect(unsafe_code, reason = "asking whether a library is there")]
mod libraries;
#[expect(unsafe_code, reason = "opening shared libraries and calling their version functions")]
mod library;
#[expect(unsafe_code, reason = "memory of GPUs, and pinned memory of the host")]
mod memory;
#[expect(unsafe_code, reason = "calls into the kernels library, on addresses that views give")]
pub(crate) mod ops;
#[expect(unsafe_code, reason = "memory that several GPUs read and write")]
mod peer;
#[expect(unsafe_code, reason = "asking the CUDA driver")]
mod probe;
#[expect(unsafe_code, reason = "slices of pinned memory that GPUs have written")]
mod readback;
mod staging;
#[expect(unsafe_code, reason = "the driver's stream handles")]
mod stream;
#[expect(unsafe_code, reason = "the functions of the kernels library")]
mod sys;
#[expect(unsafe_code, reason = "copies between addresses of the host and of a GPU")]
mod transfer;

pub use device::CudaDevice;
pub use libraries::CudaLibraries;
pub use library::{LibraryInfo, LibrarySearch, find_nccl};
pub use peer::{AbortFlag, MAX_PEERS, PeerAlgorithm, PeerGroup, PeerMemory, check_peer_access};
pub use probe::{CudaReport, DriverInfo, GpuInfo, has_driver, probe};
pub use stream::CudaStream;

pub(crate) use event::CudaEvent;
pub(crate) use gemm::{
    check_fp8, gemm, gemm_fp8, load as load_gemms, save as save_gemms, tune as tune_gemm,
};
pub(crate) use graph::{CudaGraph, capture};
pub(crate) use memory::CudaBuffer;
pub(crate) use readback::CudaReadback;
pub(crate) use transfer::{copy_from_checkpoint, download, download_after_all, upload, upload_now};
