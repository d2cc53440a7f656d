//! The devices this crate computes on.
//!
//! Never knows: which device a user asked for by name, or how many ranks there are.

use std::num::NonZeroUsize;

use crate::buffer::{Buffer, HostBuffer};
use crate::cpu::CpuDevice;
use crate::cuda::{CudaBuffer, CudaDevice, CudaLibraries, CudaStream};
use crate::stream::CpuStream;
use crate::{DType, Error, InstructionSet, Shape, Stream, Tensor, host_memory};

/// A place where tensors live and ops run. Cloning gives another handle to the same device.
#[derive(Clone, Debug)]
pub enum Device {
    /// The host's processor and memory.
    Cpu(CpuDevice),
    /// A CUDA GPU.
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
    /// [`Error::Unavailable`], with a sentence that says what is missing and how to get it;
    /// [`Error::Device`] if the driver refuses.
    pub fn cuda(ordinal: usize, libraries: &CudaLibraries) -> Result<Self, Error> {
        CudaDevice::open(ordinal, libraries).map(Self::Cuda)
    }

    /// One line for logs: kind, threads and instruction set.
    pub fn description(&self) -> String {
        match self {
            Self::Cpu(cpu) => cpu.description(),
            Self::Cuda(cuda) => cuda.description(),
        }
    }

    /// Total and free memory. For the CPU these are the system's, or the limit of the control
    /// group (container) the process runs in, if that is lower.
    ///
    /// # Errors
    /// [`Error::File`] if the system's figures cannot be read, [`Error::Unavailable`] where the
    /// CPU's system is not Linux, and errors of a GPU.
    pub fn memory(&self) -> Result<MemoryInfo, Error> {
        match self {
            Self::Cpu(_) => host_memory::read(),
            Self::Cuda(cuda) => cuda.memory(),
        }
    }

    /// A new queue of work.
    ///
    /// # Errors
    /// Errors of the device. None on the CPU.
    pub fn new_stream(&self) -> Result<Stream, Error> {
        match self {
            Self::Cpu(cpu) => Ok(Stream::Cpu(CpuStream::new(cpu.clone()))),
            Self::Cuda(cuda) => CudaStream::new(cuda).map(Stream::Cuda),
        }
    }

    /// A tensor of zeros, aligned to 64 bytes. On the CPU, large ones get their memory page by page
    /// when it is first touched; on a GPU the call waits for the zeroing.
    ///
    /// # Errors
    /// [`Error::ShapeOverflow`] if the size does not fit in a `usize`, [`Error::OutOfMemory`] if
    /// the system or the GPU refuses the memory.
    pub fn zeros(&self, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor, Error> {
        let shape = shape.into();
        let bytes = shape
            .num_elements()?
            .checked_mul(dtype.size_bytes())
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or(Error::ShapeOverflow { shape })?;
        let buffer = match self {
            Self::Cpu(_) => Buffer::Host(HostBuffer::zeroed(bytes)?),
            Self::Cuda(cuda) => Buffer::Cuda(CudaBuffer::zeroed(cuda, bytes)?),
        };
        Ok(Tensor::new(buffer, dtype, shape, self.clone()))
    }
}
