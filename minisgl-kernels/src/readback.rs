//! Results on their way from a device to the host, without anybody waiting.
//!
//! Never knows: what the results are.

use std::fmt;

use crate::cpu::transfer;
use crate::cuda::CudaReadback;
use crate::ops::check::Check;
use crate::{DType, Device, Error, HostElement, Stream, View};

const OP: &str = "readback";
const CHECK: Check = Check::of(OP);

/// Where each view begins is a multiple of this.
const ALIGNMENT: usize = 64;

/// Host memory for results that are copied behind queued work, and read when they are there.
///
/// It is used again and again; [`Readback::start`] forgets what was there before.
pub struct Readback {
    memory: Memory,
    bytes: usize,
    parts: Vec<Part>,
}

enum Memory {
    /// A list per part, since each has its own type.
    Cpu(Vec<HostList>),
    Cuda(CudaReadback),
}

enum HostList {
    F32(Vec<f32>),
    Bf16(Vec<half::bf16>),
    F8E4M3(Vec<crate::F8E4M3>),
    I32(Vec<i32>),
    U64(Vec<u64>),
}

#[derive(Clone, Copy)]
struct Part {
    dtype: DType,
    len: usize,
    offset: usize,
}

impl Readback {
    /// Room for views of `bytes` in all, each rounded up to 64 bytes.
    ///
    /// # Errors
    /// Errors of the device. None on the CPU.
    pub fn new(device: &Device, bytes: usize) -> Result<Self, Error> {
        let memory = match device {
            Device::Cpu(_) => Memory::Cpu(Vec::new()),
            Device::Cuda(device) => Memory::Cuda(CudaReadback::new(device, bytes)?),
        };
        Ok(Self { memory, bytes, parts: Vec::new() })
    }

    /// Queues copies of `views` on `stream`. On the CPU they are done at once. If copies of an
    /// earlier start are under way, it waits for them first.
    ///
    /// # Errors
    /// [`Error::Length`] if the views do not fit, [`Error::Layout`] if one has gaps inside its rows,
    /// [`Error::OtherDevice`] if one is not of the stream's device, and errors of the device.
    pub fn start(&mut self, stream: &Stream, views: &[View<'_>]) -> Result<(), Error> {
        let mut end = 0;
        let mut parts = Vec::with_capacity(views.len());
        for &view in views {
            CHECK.rows("views", view)?;
            let (dtype, len) = (view.dtype(), view.num_elements());
            parts.push(Part { dtype, len, offset: end });
            end += (len * dtype.size_bytes()).next_multiple_of(ALIGNMENT);
        }
        if end > self.bytes {
            let (got, expected) = (end, self.bytes);
            return Err(Error::Length { op: OP, got, expected, unit: "bytes" });
        }
        for view in views {
            view.check_device(OP, "views", stream.device())?;
        }
        self.parts.clear();
        match (&mut self.memory, stream) {
            (Memory::Cpu(lists), Stream::Cpu(_)) => {
                lists.clear();
                lists.extend(views.iter().map(|&view| HostList::of(view)));
            }
            (Memory::Cuda(memory), Stream::Cuda(stream)) => {
                let placed: Vec<_> =
                    parts.iter().zip(views).map(|(part, &view)| (part.offset, view)).collect();
                memory.start(stream, &placed)?;
            }
            _ => {
                let (op, argument) = (OP, "readback");
                let expected = stream.device().description();
                let got = "another device".to_owned();
                return Err(Error::OtherDevice { op, argument, got, expected });
            }
        }
        self.parts = parts;
        Ok(())
    }

    /// Whether the results are there.
    ///
    /// # Errors
    /// Errors of the device, also those of the work before the copies.
    pub fn is_done(&self) -> Result<bool, Error> {
        match &self.memory {
            Memory::Cpu(_) => Ok(true),
            Memory::Cuda(memory) => memory.is_done(),
        }
    }

    /// Waits until the results are there.
    ///
    /// # Errors
    /// Errors of the device, also those of the work before the copies.
    pub fn wait(&self) -> Result<(), Error> {
        match &self.memory {
            Memory::Cpu(_) => Ok(()),
            Memory::Cuda(memory) => memory.wait(),
        }
    }

    /// The elements of the view number `index` of the last start, row-major. Waits until they are
    /// there.
    ///
    /// # Errors
    /// [`Error::Parameter`] if there was no such view, [`Error::DType`] if it has another type, and
    /// errors of the device.
    pub fn slice<T: HostElement>(&self, index: usize) -> Result<&[T], Error> {
        let Some(&Part { dtype, len, offset }) = self.parts.get(index) else {
            return Err(CHECK.parameter("index", index, "the number of a view that was started"));
        };
        if dtype != T::DTYPE {
            let (op, argument, expected) = (OP, "slice", T::DTYPE.name());
            return Err(Error::DType { op, argument, got: dtype, expected });
        }
        match &self.memory {
            Memory::Cuda(memory) => memory.elements(offset, len),
            Memory::Cpu(lists) => {
                let list: &dyn std::any::Any = match &lists[index] {
                    HostList::F32(list) => list,
                    HostList::Bf16(list) => list,
                    HostList::F8E4M3(list) => list,
                    HostList::I32(list) => list,
                    HostList::U64(list) => list,
                };
                Ok(list.downcast_ref::<Vec<T>>().map_or(&[], Vec::as_slice))
            }
        }
    }
}

impl HostList {
    fn of(view: View<'_>) -> Self {
        fn list<T: HostElement>(view: View<'_>) -> Vec<T> {
            let mut list = vec![T::default(); view.num_elements()];
            transfer::download(view.host_rows(), &mut list);
            list
        }
        match view.dtype() {
            DType::F32 => Self::F32(list(view)),
            DType::Bf16 => Self::Bf16(list(view)),
            DType::F8E4M3 => Self::F8E4M3(list(view)),
            DType::I32 => Self::I32(list(view)),
            DType::U64 => Self::U64(list(view)),
        }
    }
}

impl fmt::Debug for Readback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readback({} bytes, {} views)", self.bytes, self.parts.len())
    }
}
