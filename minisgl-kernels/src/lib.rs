//! Device memory, streams and the math of LLM inference.
//!
//! Never knows: requests, ranks or models. It sees arrays and index tables.
//!
//! A [`Device`] owns memory and compute, a [`Stream`] is one queue of work on it, a [`Tensor`] is
//! owned memory, and [`View`] / [`ViewMut`] are what the functions in [`ops`] read and write. Every
//! op checks the dtype, shape and layout of its arguments once, answers a wrong one with an
//! [`Error`] that names it, and then dispatches on the stream's device.
//!
//! # Reading order
//! 1. [`Device`], [`Stream`], [`Tensor`], [`View`]: where data lives and how it is named.
//! 2. [`ops`]: what can be done to it, with shapes and dtypes.
//! 3. [`reference`](mod@reference): the definition of right, in straight loops.
//! 4. `cpu`: the fast CPU backend, held to the reference by `tests/it`.
//! 5. [`cuda`]: what this machine offers, and the CUDA backend.
//! 6. [`Event`], [`Readback`], [`Graph`]: what keeps a GPU and its host from waiting for each other.
//!
//! **Invariant (CPU):** a row of a result has the same bits whoever else is in the batch, whatever
//! the number of threads, the page size, or the way a sequence was cut into chunks.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use minisgl_kernels::{DType, Device, Tensor, ops};
//!
//! let device = Device::cpu(NonZeroUsize::MIN)?;
//! let stream = device.new_stream()?;
//! let x = Tensor::from_slice(&device, [1, 3], &[1.0f32, 2.0, 3.0])?;
//! let w = Tensor::from_slice(&device, [2, 3], &[1.0f32, 0.0, 0.0, 0.0, 1.0, 1.0])?;
//! let mut out = device.zeros(DType::F32, [1, 2])?;
//! ops::gemm(&stream, x.view(), w.view(), None, out.view_mut())?;
//! assert_eq!(out.to_vec::<f32>()?, [1.0, 5.0]);
//! # Ok::<(), minisgl_kernels::Error>(())
//! ```

pub mod convert;
pub mod cuda;
pub mod mapped;
pub mod ops;
pub mod reference;

mod buffer;
mod cpu;
mod device;
mod dtype;
mod error;
mod event;
mod fp8;
mod graph;
mod host_memory;
mod layout;
mod random;
mod readback;
#[expect(unsafe_code, reason = "typed slices over a view's memory")]
mod rows;
mod shape;
mod stream;
mod tensor;
#[expect(unsafe_code, reason = "a view is a pointer: Send and Sync are promised by hand")]
mod view;

pub use cpu::{CpuDevice, InstructionSet};
pub use device::{Device, MemoryInfo};
pub use dtype::{DType, HostElement};
pub use error::Error;
pub use event::Event;
pub use fp8::F8E4M3;
pub use graph::Graph;
pub use readback::Readback;
pub use shape::{MAX_RANK, Shape};
pub use stream::{CpuStream, Stream};
pub use tensor::Tensor;
pub use view::{View, ViewMut};
