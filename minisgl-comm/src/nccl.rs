//! Ranks on GPUs, through NVIDIA's NCCL.
//!
//! Never knows: CPUs, or how ranks on several machines learn each other's [`NcclId`].
//!
//! NCCL is not linked: [`NcclLibrary::load`] opens it at run time, and a library or a function that
//! is missing is an error value. One [`NcclGroup`] per process makes one [`NcclRank`] per GPU, each
//! on the thread that uses it from then on.
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
    id: NcclId,
    world_size: usize,
    timeouts: NcclTimeouts,
    rendezvous: Arc<Rendezvous>,
}

impl NcclGroup {
    /// A part of the group `id` of `world_size` ranks over all processes; all its ranks in this
    /// process are made from clones of one value, so that an abort reaches them.
    ///
    /// # Errors
    /// [`CommError::WorldSize`] if there are no ranks.
    pub fn new(
        library: Arc<NcclLibrary>,
        id: NcclId,
        world_size: usize,
        timeouts: NcclTimeouts,
    ) -> Result<Self, CommError> {
        if world_size == 0 || i32::try_from(world_size).is_err() {
            return Err(CommError::WorldSize { world_size });
        }
        // Used for aborts alone: NCCL's own calls are the meetings.
        let rendezvous = Arc::new(Rendezvous::new(1, 0));
        Ok(Self { library, id, world_size, timeouts, rendezvous })
    }

    /// Aborts the group's ranks in this process, which NCCL then notices on the others.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(self.rendezvous.clone())
    }

    /// Rank `rank`, on `device`. Call it on the rank's own thread; it waits until all ranks have.
    ///
    /// # Errors
    /// [`CommError::Root`] if there is no such rank, [`CommError::Gpu`] if `device` is not a GPU,
    /// [`CommError::Nccl`] for what NCCL says, [`CommError::Aborted`]. The group is aborted then.
    pub fn connect(&self, rank: usize, device: &Device) -> Result<NcclRank, CommError> {
        let connected = NcclRank::connect(self, rank, device);
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
