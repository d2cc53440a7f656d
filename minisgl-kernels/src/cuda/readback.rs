//! Results on their way to the host, through pinned memory, without anybody waiting.
//!
//! Never knows: what the results are.

use super::device::CudaDevice;
use super::event::CudaEvent;
use super::memory::Pinned;
use super::stream::CudaStream;
use super::transfer::ByteRows;
use crate::{Error, HostElement, View};

/// Pinned memory and the event after the copies into it.
pub(crate) struct CudaReadback {
    memory: Pinned,
    event: CudaEvent,
    /// Whether copies may be under way.
    pending: bool,
}

impl CudaReadback {
    pub(crate) fn new(device: &CudaDevice, bytes: usize) -> Result<Self, Error> {
        let (memory, event) = (Pinned::zeroed(device, bytes)?, CudaEvent::new(device, false)?);
        Ok(Self { memory, event, pending: false })
    }

    /// Queues a copy of each view to its offset. The offsets are inside the memory, and the views
    /// are as long as the distances between them, by the caller.
    pub(crate) fn start(
        &mut self,
        stream: &CudaStream,
        views: &[(usize, View<'_>)],
    ) -> Result<(), Error> {
        stream.refuse_while_capturing("reading back from a GPU")?;
        self.wait()?;
        stream.device().make_current()?;
        self.pending = true;
        let queued = self.queue(stream, views);
        if queued.is_err() {
            // Copies may be under way that the event does not cover.
            stream.synchronize()?;
        }
        queued
    }

    fn queue(&self, stream: &CudaStream, views: &[(usize, View<'_>)]) -> Result<(), Error> {
        for &(offset, view) in views {
            let rows = ByteRows::of(view);
            assert!(offset + rows.bytes() <= self.memory.bytes(), "a read-back checks its size");
            let target = self.memory.address().wrapping_add(offset);
            // SAFETY: inside the memory, by the check above; nobody reads it before the event,
            // nor frees it, since dropping waits.
            unsafe { rows.read(target, stream.handle()) }?;
        }
        self.event.record(stream)
    }

    pub(crate) fn is_done(&self) -> Result<bool, Error> {
        self.event.is_done()
    }

    pub(crate) fn wait(&self) -> Result<(), Error> {
        if self.pending { self.event.wait() } else { Ok(()) }
    }

    /// `len` elements at `offset`, after the copies are done.
    pub(crate) fn elements<T: HostElement>(
        &self,
        offset: usize,
        len: usize,
    ) -> Result<&[T], Error> {
        self.wait()?;
        assert!(offset + len * size_of::<T>() <= self.memory.bytes(), "inside the memory");
        let address = self.memory.address().wrapping_add(offset).cast::<T>();
        assert!(address.is_aligned(), "offsets are aligned");
        // SAFETY: inside the memory, aligned, any bytes are values of `T`, and no copy is under
        // way: `start` needs `self` exclusively.
        Ok(unsafe { std::slice::from_raw_parts(address, len) })
    }
}

impl Drop for CudaReadback {
    fn drop(&mut self) {
        if self.pending {
            // If the copies cannot be waited for, the context is gone, and they with it.
            let _ = self.event.wait();
        }
    }
}
