//! The collectives of a rank on a GPU.
//!
//! Never knows: how NCCL moves data.

use std::cell::RefCell;
use std::ffi::c_int;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use minisgl_kernels::cuda::CudaStream;
use minisgl_kernels::{DType, Device, Event, Stream, Tensor, View, ViewMut};

use super::handle::Handle;
use super::sys::{Comm, Functions, RawStream, SUCCESS, SUM, Status, data_type};
use super::watchdog::Watch;
use super::{NcclGroup, NcclId, NcclTimeouts};
use crate::blocks::Block;
use crate::call::Call;
use crate::rendezvous::Rendezvous;
use crate::{AbortHandle, CommError, Communicator};

/// How often a barrier looks whether all have come.
const POLL: Duration = Duration::from_micros(50);

/// One rank of an [`NcclGroup`], owned by its thread. Dropping it aborts the group.
pub struct NcclRank {
    rank: usize,
    world_size: usize,
    /// This rank's number among those of this process, if they have to meet without the GPU first.
    meets_as: Option<usize>,
    handle: Arc<Handle>,
    rendezvous: Arc<Rendezvous>,
    timeouts: NcclTimeouts,
    watch: Arc<Watch>,
    watchdog: Option<JoinHandle<()>>,
    /// What a barrier sums, where, and a mark behind it.
    barrier: RefCell<(Stream, Tensor, Event)>,
}

impl NcclRank {
    pub(super) fn connect(
        group: &NcclGroup,
        id: NcclId,
        rank: usize,
        device: &Device,
    ) -> Result<Self, CommError> {
        let (timeouts, rendezvous) = (group.timeouts, &group.rendezvous);
        if !group.ranks.contains(&rank) {
            return Err(CommError::Rank { rank, allowed: group.ranks.clone() });
        }
        let Device::Cuda(gpu) = device else {
            return Err(CommError::Gpu { what: "NCCL", got: device.description() });
        };
        gpu.make_current()?;
        let handle = Handle::connect(group, id, rank)?;
        let stream = device.new_stream()?;
        let barrier = (stream, device.zeros(DType::F32, [1])?, Event::new(device)?);
        let (watch, watchdog) =
            Watch::start(rank, device, handle.clone(), rendezvous.clone(), timeouts.collective)?;
        Ok(Self {
            rank,
            world_size: group.world_size,
            meets_as: group.shares_gpus.then_some(rank - group.ranks.start),
            handle,
            rendezvous: rendezvous.clone(),
            timeouts,
            watch,
            watchdog: Some(watchdog),
            barrier: RefCell::new(barrier),
        })
    }

    /// Aborts this rank's group from anywhere.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(self.rendezvous.clone())
    }

    fn or_abort(&self, result: Result<(), CommError>) -> Result<(), CommError> {
        match &result {
            Ok(()) | Err(CommError::Aborted { .. }) => {}
            Err(error) => self.rendezvous.abort(&format!("rank {}: {error}", self.rank)),
        }
        result
    }

    /// Puts what `call` does into `stream`.
    fn enqueue(
        &self,
        name: &'static str,
        stream: &Stream,
        call: impl FnOnce(&Functions, Comm, RawStream) -> Status,
    ) -> Result<(), CommError> {
        let queue = cuda(stream)?;
        queue.device().make_current()?;
        let timeout = self.timeouts.collective;
        self.handle.call(name, timeout, |nccl, comm| call(nccl, comm, queue.raw()))?;
        // What is captured runs later, if at all.
        if !queue.is_capturing() {
            self.watch.mark(stream)?;
        }
        Ok(())
    }

    fn try_all_reduce(&self, stream: &Stream, mut data: ViewMut<'_>) -> Result<(), CommError> {
        Call::all_reduce(data.as_view())?;
        let kind = data_type(data.dtype());
        let parts = contiguous_parts(&mut data)?;
        self.enqueue("ncclAllReduce", stream, |nccl, comm, queue| {
            in_group(nccl, &parts, |part| {
                // SAFETY: `part` is memory of the stream's device with so many elements of this
                // type, exclusively borrowed by the caller, who keeps it until the stream is done
                // with it, as for every op.
                unsafe {
                    (nccl.all_reduce)(part.address, part.address, part.len, kind, SUM, comm, queue)
                }
            })
        })
    }

    fn try_all_gather(
        &self,
        stream: &Stream,
        input: View<'_>,
        mut output: ViewMut<'_>,
    ) -> Result<(), CommError> {
        Call::all_gather(input, output.as_view(), self.world_size)?;
        let len = input.num_elements();
        let source = input.reshape([len])?.device_address();
        let whole = output.reborrow().reshape([self.world_size * len])?.device_address();
        let (Some(source), Some(target)) = (source, whole) else {
            return Err(host_memory("all_gather"));
        };
        let kind = data_type(input.dtype());
        if len == 0 {
            return Ok(());
        }
        self.enqueue("ncclAllGather", stream, |nccl, comm, queue| {
            // SAFETY: as in `try_all_reduce`; `output` has room for `len` elements of each rank.
            unsafe { (nccl.all_gather)(source, target, len, kind, comm, queue) }
        })
    }

    fn try_broadcast(
        &self,
        stream: &Stream,
        mut data: ViewMut<'_>,
        root: usize,
    ) -> Result<(), CommError> {
        Call::broadcast(data.as_view(), root, self.world_size)?;
        let (kind, root) = (data_type(data.dtype()), root as c_int);
        let parts = contiguous_parts(&mut data)?;
        self.enqueue("ncclBroadcast", stream, |nccl, comm, queue| {
            in_group(nccl, &parts, |part| {
                // SAFETY: as in `try_all_reduce`.
                unsafe {
                    (nccl.broadcast)(part.address, part.address, part.len, kind, root, comm, queue)
                }
            })
        })
    }

    /// A sum of one number, waited for: done when all have come.
    fn try_barrier(&self) -> Result<(), CommError> {
        if let Some(rank) = self.meets_as {
            self.rendezvous.meet(rank, Call::Barrier)?;
        }
        let mut barrier = self.barrier.borrow_mut();
        let (stream, number, event) = &mut *barrier;
        self.try_all_reduce(stream, number.view_mut())?;
        event.record(stream)?;
        let deadline = Instant::now() + self.timeouts.collective;
        while !event.is_done()? {
            self.rendezvous.check()?;
            if Instant::now() > deadline {
                let message = "not all ranks have come in time".to_owned();
                return Err(CommError::Nccl { call: "a barrier", message });
            }
            std::thread::sleep(POLL);
        }
        // Kernels that were ended by an abort have passed the mark as well.
        self.rendezvous.check()
    }
}

/// Contiguous elements on a GPU.
struct Part {
    address: *mut std::ffi::c_void,
    len: usize,
}

/// All elements of `data`, in as few contiguous parts as its strides allow.
fn contiguous_parts(data: &mut ViewMut<'_>) -> Result<Vec<Part>, CommError> {
    let len = data.as_view().num_elements();
    if len == 0 {
        return Ok(Vec::new());
    }
    let part = |mut view: ViewMut<'_>, len| match view.reborrow().device_address() {
        Some(address) => Ok(Part { address, len }),
        None => Err(host_memory("a collective")),
    };
    if let Ok(whole) = data.reborrow().reshape([len]) {
        return Ok(vec![part(whole, len)?]);
    }
    let [rows, columns] = Block::whole(data.shape()).dims();
    let mut matrix = data.reborrow().reshape([rows, columns])?;
    (0..rows).map(|row| part(matrix.reborrow().rows(row..row + 1)?, columns)).collect()
}

/// Makes `call` for every part, as one operation if there are several.
fn in_group(nccl: &Functions, parts: &[Part], call: impl Fn(&Part) -> Status) -> Status {
    if let [part] = parts {
        return call(part);
    }
    // SAFETY: it takes nothing, and each start has its end below.
    let started = unsafe { (nccl.group_start)() };
    if started != SUCCESS {
        return started;
    }
    let failed = parts.iter().map(call).find(|status| !matches!(*status, SUCCESS | 7));
    // SAFETY: a group was started on this thread.
    let ended = unsafe { (nccl.group_end)() };
    failed.unwrap_or(ended)
}

fn host_memory(what: &'static str) -> CommError {
    CommError::Gpu { what, got: "memory of the host".to_owned() }
}

fn cuda(stream: &Stream) -> Result<&CudaStream, CommError> {
    match stream {
        Stream::Cuda(stream) => Ok(stream),
        Stream::Cpu(_) => {
            Err(CommError::Gpu { what: "NCCL", got: "a stream of the CPU".to_owned() })
        }
    }
}

impl Communicator for NcclRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    /// Added in an order that NCCL chooses, the same on all ranks.
    fn all_reduce(&self, stream: &Stream, data: ViewMut<'_>) -> Result<(), CommError> {
        self.or_abort(self.try_all_reduce(stream, data))
    }

    /// `input` must be contiguous.
    fn all_gather(
        &self,
        stream: &Stream,
        input: View<'_>,
        output: ViewMut<'_>,
    ) -> Result<(), CommError> {
        self.or_abort(self.try_all_gather(stream, input, output))
    }

    fn broadcast(&self, stream: &Stream, data: ViewMut<'_>, root: usize) -> Result<(), CommError> {
        self.or_abort(self.try_broadcast(stream, data, root))
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.or_abort(self.try_barrier())
    }

    fn check(&self) -> Result<(), CommError> {
        self.rendezvous.check()
    }

    fn abort(&self, reason: &str) {
        self.rendezvous.abort(reason);
    }
}

impl Drop for NcclRank {
    fn drop(&mut self) {
        let what = if std::thread::panicking() { "panicked" } else { "left the group" };
        self.rendezvous.abort(&format!("rank {} {what}", self.rank));
        self.watch.end();
        if let Some(watchdog) = self.watchdog.take() {
            let _ = watchdog.join(); // It does not panic.
        }
        self.handle.abort();
    }
}
