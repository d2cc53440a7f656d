//! Ranks on GPUs, through NVIDIA's NCCL.
//!
//! Never knows: CPUs, or how ranks on several machines learn each other's [`NcclId`].
//!
//! NCCL is not linked: [`NcclLibrary::load`] opens it at run time, and a library or a function that
//! is missing is an error value. One [`NcclGroup`] per process makes one [`NcclRank`] per GPU of that
//! process, each on the thread that uses it from then on. The group knows its own ranks and how many
//! there are in all processes; sums and barriers are over all of them.
//!
//! An abort reaches the ranks of the process where it happens. That it reaches the other processes is
//! up to the links between them, which [`Node::into_links`](crate::nodes::Node::into_links) ties to
//! the group's [`NcclGroup::abort_handle`]. NCCL notices alone that a process is gone, but not why,
//! and not that one stands still.
//!
//! Communicators do not block: where NCCL needs time, the rank's thread waits for it, and looks
//! meanwhile whether the group was aborted or the time is over. A watchdog per rank asks NCCL for
//! errors that showed later, and follows an abort with `ncclCommAbort`, which ends kernels that wait
//! for a rank that is gone.
//!
//! Sums have the same bits on all ranks. Unlike those of the other ranks of this crate they are not
//! added in the order of the ranks, and another NCCL, or another number of GPUs, may give others.
//!
//! **A graph** may hold collectives. All ranks must capture it, after each size in it was used once
//! outside of it, and drop it before the rank. What hangs inside a graph is not noticed here, but by
//! whoever waits for the step.

#[expect(unsafe_code, reason = "calls of NCCL with the communicator's handle")]
mod handle;
#[expect(unsafe_code, reason = "NCCL's collectives, on addresses that views give")]
mod rank;
#[expect(unsafe_code, reason = "opening NCCL, and the types of its functions")]
mod sys;
mod watchdog;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use minisgl_kernels::Device;

pub use self::rank::NcclRank;
pub use self::sys::{NcclId, NcclLibrary};
use crate::rendezvous::Rendezvous;
use crate::{AbortHandle, CommError};

/// How long NCCL may take.
#[derive(Clone, Copy, Debug)]
pub struct NcclTimeouts {
    /// For all ranks to come together.
    pub init: Duration,
    /// For one collective.
    pub collective: Duration,
}

/// The ranks of this process, before they are connected.
#[derive(Clone)]
pub struct NcclGroup {
    library: Arc<NcclLibrary>,
    /// Those of this process.
    ranks: Range<usize>,
    /// Of all processes.
    world_size: usize,
    timeouts: NcclTimeouts,
    shares_gpus: bool,
    rendezvous: Arc<Rendezvous>,
}

impl NcclGroup {
    /// The part that this process has of a group: `ranks` of `world_size` over all processes. They
    /// are made from clones of one value, so that an abort reaches all of them.
    ///
    /// # Errors
    /// [`CommError::WorldSize`] if there are no ranks at all or more than NCCL can count,
    /// [`CommError::Rank`] if there are none here, or some that the group does not have.
    pub fn new(
        library: Arc<NcclLibrary>,
        ranks: Range<usize>,
        world_size: usize,
        timeouts: NcclTimeouts,
    ) -> Result<Self, CommError> {
        if world_size == 0 || i32::try_from(world_size).is_err() {
            return Err(CommError::WorldSize { world_size });
        }
        if ranks.is_empty() || ranks.end > world_size {
            let rank = ranks.end.saturating_sub(1).max(ranks.start);
            return Err(CommError::Rank { rank, allowed: 0..world_size });
        }
        // For aborts; the meetings are NCCL's own calls, but for ranks that share a GPU.
        let rendezvous = Arc::new(Rendezvous::new(ranks.len(), ranks.start));
        Ok(Self { library, ranks, world_size, timeouts, shares_gpus: false, rendezvous })
    }

    /// For ranks of this process that share a GPU. There a kernel that waits for another rank would
    /// wait for ever if that rank's thread waits for all work of the GPU, as it does to free memory.
    /// So in a barrier the ranks of this process first meet without the GPU, and what waits for all
    /// of its work must be done before one.
    #[must_use]
    pub fn with_shared_gpus(self) -> Self {
        Self { shares_gpus: true, ..self }
    }

    /// The ranks of this process.
    pub fn ranks(&self) -> Range<usize> {
        self.ranks.clone()
    }

    /// Aborts the group's ranks in this process.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(self.rendezvous.clone())
    }

    /// Rank `rank`, on `device`. Call it on the rank's own thread; it waits until all ranks of all
    /// processes have called it with the same `id`.
    ///
    /// # Errors
    /// [`CommError::Rank`] if it is no rank of this process, [`CommError::Gpu`] if `device` is not a
    /// GPU, [`CommError::Nccl`] for what NCCL says, [`CommError::Aborted`]. The group is aborted then.
    pub fn connect(&self, id: NcclId, rank: usize, device: &Device) -> Result<NcclRank, CommError> {
        let connected = NcclRank::connect(self, id, rank, device);
        if let Err(error) = &connected
            && !matches!(error, CommError::Aborted { .. })
        {
            self.rendezvous.abort(&format!("rank {rank}: {error}"));
        }
        connected
    }
}

#[cfg(test)]
mod tests;
