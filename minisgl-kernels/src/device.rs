//! The devices this crate computes on.
//!
//! Never knows: which device a user asked for by name, or how many ranks there are.

use std::num::NonZeroUsize;

use crate::buffer::HostBuffer;
use crate::cpu::CpuDevice;
use crate::cuda::CudaDevice;
use crate::stream::CpuStream;
use crate::{DType, Error, InstructionSet, Shape, Stream, Tensor, host_memory};

/// A place where tensors live and ops run. Cloning gives another handle to the same device.
#[derive(Clone, Debug)]
pub enum Device {
    /// The host's processor and memory.
    Cpu(CpuDevice),
    /// A CUDA GPU. No value exists in a build without CUDA kernels.
    Cuda(CudaDevice),
}

/// Memory of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What could be allocated now, in bytes. An estimate: others allocate too.
    pub free_bytes: u64,
}

impl Device {
    /// The CPU with `num_threads` threads of its own and the best instruction set it has. With one
    /// thread, ops run on the thread that calls them.
    ///
    /// # Errors
    /// [`Error::Threads`] if the threads cannot be started.
    pub fn cpu(num_threads: NonZeroUsize) -> Result<Self, Error> {
        Self::cpu_with(num_threads, InstructionSet::detect())
    }

    /// As [`Device::cpu`], with a given instruction set: to compare them, or to get the results of
    /// a smaller machine.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if this CPU does not have the instruction set, [`Error::Threads`] if
    /// the threads cannot be started.
    pub fn cpu_with(
        num_threads: NonZeroUsize,
        instruction_set: InstructionSet,
    ) -> Result<Self, Error> {
        CpuDevice::new(num_threads, instruction_set).map(Self::Cpu)
    }

    /// The CUDA GPU number `ordinal`, in the driver's order.
    ///
    /// # Errors
    /// [`Error::Unavailable`], with a sentence that says what is missing and how to get it.
    pub fn cuda(ordinal: usize) -> Result<Self, Error> {
        CudaDevice::open(ordinal).map(Self::Cuda)
    }

    /// One line for logs: kind, threads and instruction set.
    pub fn description(&self) -> String {
        match self {
            Self::Cpu(cpu) => cpu.description(),
            Self::Cuda(never) => match *never {},
        }
    }

    /// Total and free memory. For the CPU these are the system's, or the limit of the control
    /// group (container) the process runs in, if that is lower.
    ///
    /// # Errors
    /// [`Error::File`] if the system's figures cannot be read, [`Error::Unavailable`] where the
    /// CPU's system is not Linux.
    pub fn memory(&self) -> Result<MemoryInfo, Error> {
        match self {
            Self::Cpu(_) => host_memory::read(),
            Self::Cuda(never) => match *never {},
        }
    }

    /// A new queue of work.
    ///
    /// # Errors
    /// Errors of the device. None on the CPU.
    pub fn new_stream(&self) -> Result<Stream, Error> {
        match self {
            Self::Cpu(cpu) => Ok(Stream::Cpu(CpuStream::new(cpu.clone()))),
            Self::Cuda(never) => match *never {},
        }
    }

    /// A tensor of zeros, aligned to 64 bytes. Large ones get their memory page by page when it is
    /// first touched.
    ///
    /// # Errors
    /// [`Error::ShapeOverflow`] if the size does not fit in a `usize`, [`Error::OutOfMemory`] if
    /// the system refuses the memory.
    pub fn zeros(&self, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor, Error> {
        let shape = shape.into();
        let bytes = shape
            .num_elements()?
            .checked_mul(dtype.size_bytes())
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or(Error::ShapeOverflow { shape })?;
        let buffer = match self {
            Self::Cpu(_) => HostBuffer::zeroed(bytes)?,
            Self::Cuda(never) => match *never {},
        };
        Ok(Tensor::new(buffer, dtype, shape, self.clone()))
    }
}
