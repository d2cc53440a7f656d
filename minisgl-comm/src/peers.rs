//! Ranks on GPUs of one process that sum small arrays through memory they read from each other, and
//! leave everything else to another communicator.
//!
//! Never knows: how that one works, or what the kernels do.
//!
//! A sum of a few hundred KiB takes NCCL several times as long as one kernel that reads the other
//! GPUs' memory, and a decode step has two of them per layer. Which way is taken follows from the size
//! and from limits that all ranks have in common, so all ranks take the same.

mod measure;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use minisgl_kernels::cuda::{AbortFlag, PeerAlgorithm, PeerGroup, PeerMemory, check_peer_access};
use minisgl_kernels::{Device, Stream, View, ViewMut};

use crate::call::Call;
use crate::communicator::sum_then_norm;
use crate::{AbortHandle, CommError, Communicator};

/// Most bytes of one sum through peer memory.
pub const MAX_PEER_BYTES: usize = 8 << 20;

/// Up to which size a sum is taken how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// Every rank reads everything: one step.
    pub one_shot_bytes: usize,
    /// Every rank sums a part and reads the others' sums: two steps, less to read.
    pub two_shot_bytes: usize,
}

impl PeerLimits {
    /// For GPUs that are connected by NVLink, from where others have found the ways to cross. With
    /// two ranks both read as much, so one step is always better.
    pub fn for_world(world_size: usize) -> Self {
        let two_shot_bytes = MAX_PEER_BYTES;
        let one_shot_bytes = match world_size {
            ..=2 => two_shot_bytes,
            3..=4 => 512 << 10,
            _ => 256 << 10,
        };
        Self { one_shot_bytes, two_shot_bytes }
    }

    /// For up to eight ranks that share a GPU: all blocks of a sum must have room there at one time.
    pub fn sharing_a_gpu() -> Self {
        Self { one_shot_bytes: 64 << 10, two_shot_bytes: 128 << 10 }
    }

    fn max_bytes(&self) -> usize {
        self.one_shot_bytes.max(self.two_shot_bytes)
    }

    /// How to sum so many bytes; `None` for not here.
    pub fn algorithm(&self, bytes: usize) -> Option<PeerAlgorithm> {
        if bytes <= self.one_shot_bytes {
            Some(PeerAlgorithm::OneShot)
        } else if bytes <= self.two_shot_bytes {
            Some(PeerAlgorithm::TwoShot)
        } else {
            None
        }
    }
}

/// For people: `one-shot to 256 KiB, two-shot to 8192 KiB`.
impl fmt::Display for PeerLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { one_shot_bytes, two_shot_bytes } = *self;
        let two_shot = two_shot_bytes > one_shot_bytes;
        if one_shot_bytes > 0 {
            write!(f, "one-shot to {} KiB", one_shot_bytes >> 10)?;
        }
        if two_shot {
            let comma = if one_shot_bytes > 0 { ", " } else { "" };
            write!(f, "{comma}two-shot to {} KiB", two_shot_bytes >> 10)?;
        }
        if two_shot_bytes.max(one_shot_bytes) == 0 { write!(f, "nothing") } else { Ok(()) }
    }
}

/// What the ranks of one process need of each other, made before they start.
#[derive(Clone)]
pub struct PeerSetup {
    members: Vec<Arc<PeerMemory>>,
    abort: Arc<AbortFlag>,
    limits: PeerLimits,
    /// Whether the limits are only for as long as nothing was measured.
    measures: bool,
    /// Whether ranks share a GPU.
    shares_gpus: bool,
}

impl PeerSetup {
    /// Memory on each rank's device, `devices` being in the order of the ranks. Ranks may share one.
    /// Sums up to `limits` are taken here.
    ///
    /// # Errors
    /// [`CommError::WorldSize`] if there are none, [`CommError::Kernel`] on the CPU, without memory,
    /// or if one of the GPUs cannot read the memory of another.
    pub fn new(devices: &[Device], limits: PeerLimits) -> Result<Self, CommError> {
        let Some(first) = devices.first() else {
            return Err(CommError::WorldSize { world_size: 0 });
        };
        check_peer_access(devices)?;
        let memory = |device| PeerMemory::new(device, limits.max_bytes()).map(Arc::new);
        Ok(Self {
            members: devices.iter().map(memory).collect::<Result<_, _>>()?,
            abort: Arc::new(AbortFlag::new(first)?),
            limits,
            measures: false,
            shares_gpus: share_a_gpu(devices),
        })
    }

    /// With other limits, not larger ones, once [`Communicator::measure`] has found them.
    /// That takes graphs, so it is for ranks on GPUs of their own above NCCL.
    pub fn measured(self) -> Self {
        Self { measures: true, ..self }
    }

    /// Rank `base.rank()`, which leaves to `base` what is not summed here. `abort` is of `base`'s
    /// group: when that is aborted, kernels that wait for another rank give up.
    ///
    /// # Errors
    /// [`CommError::Kernel`] if the rank's GPU cannot read the memory of another,
    /// [`CommError::WorldSize`] if `base` has another number of ranks.
    pub fn connect(
        &self,
        base: Box<dyn Communicator>,
        abort: AbortHandle,
    ) -> Result<PeerRank, CommError> {
        let world_size = base.world_size();
        if world_size != self.members.len() {
            return Err(CommError::WorldSize { world_size });
        }
        let peers = PeerGroup::connect(base.rank(), self.members.clone(), self.abort.clone())?;
        let flag = self.abort.clone();
        abort.on_abort(move |_| flag.raise());
        let gave_up = self.abort.clone();
        let Self { limits, measures, shares_gpus, .. } = *self;
        Ok(PeerRank { base, abort, gave_up, peers, limits, measures, shares_gpus })
    }
}

/// One rank of a [`PeerSetup`].
pub struct PeerRank {
    base: Box<dyn Communicator>,
    abort: AbortHandle,
    /// Raised by an abort, or by a kernel.
    gave_up: Arc<AbortFlag>,
    peers: PeerGroup,
    limits: PeerLimits,
    measures: bool,
    shares_gpus: bool,
}

impl PeerRank {
    /// Ends the group with `error`, unless it has ended before.
    fn fail(&self, error: CommError) -> CommError {
        if !matches!(error, CommError::Aborted { .. }) {
            self.abort.abort(&format!("rank {}: {error}", self.rank()));
        }
        error
    }

    /// Whether the sum of `x` and the norm after it are one kernel. The same on all ranks, whose
    /// strides may differ.
    fn is_one_kernel(&self, x: View<'_>) -> bool {
        const ALIGNMENT: usize = 16;
        let bytes = |elements: usize| elements * x.dtype().size_bytes();
        let row = x.shape().dims().last().map_or(0, |len| bytes(*len));
        self.limits.algorithm(bytes(x.num_elements())) == Some(PeerAlgorithm::OneShot)
            && bytes(x.num_elements()) <= self.peers.max_bytes() / 2
            && row.is_multiple_of(ALIGNMENT)
    }

    /// Queues a kernel in which the ranks wait for each other.
    ///
    /// On a GPU of its own each rank just does. Ranks that share one meet before and after: the driver
    /// may load a kernel at its first launch, for which it waits until the GPU is idle, and a kernel of
    /// this group would keep it busy while it waits for the rank that is loading. So nobody launches
    /// anything but this kernel as long as not all have.
    fn queue(
        &self,
        kernel: impl FnOnce() -> Result<(), minisgl_kernels::Error>,
    ) -> Result<(), CommError> {
        if self.shares_gpus {
            self.base.barrier()?;
        }
        kernel()?;
        if self.shares_gpus {
            self.base.barrier()?;
        }
        Ok(())
    }

    /// The sum, if it is one for here.
    fn try_all_reduce(&self, stream: &Stream, data: &mut ViewMut<'_>) -> Result<bool, CommError> {
        Call::all_reduce(data.as_view())?;
        let len = data.as_view().num_elements();
        let bytes = len * data.dtype().size_bytes();
        let Some(algorithm) = self.limits.algorithm(bytes) else { return Ok(false) };
        // Strides may differ between the ranks, but the way must not: so gaps are an error.
        let whole = data.reborrow().reshape([len])?;
        self.check()?;
        self.queue(|| self.peers.all_reduce(stream, whole, algorithm))?;
        Ok(true)
    }
}

impl Communicator for PeerRank {
    fn rank(&self) -> usize {
        self.base.rank()
    }

    fn world_size(&self) -> usize {
        self.base.world_size()
    }

    /// Added in the order of the ranks up to [`PeerLimits::two_shot_bytes`]; beyond, as the other
    /// communicator does. Small arrays must be contiguous.
    fn all_reduce(&self, stream: &Stream, mut data: ViewMut<'_>) -> Result<(), CommError> {
        match self.try_all_reduce(stream, &mut data) {
            Ok(true) => Ok(()),
            Ok(false) => self.base.all_reduce(stream, data),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn all_reduce_add_rms_norm(
        &self,
        stream: &Stream,
        x: ViewMut<'_>,
        residual: ViewMut<'_>,
        weight: View<'_>,
        eps: f32,
    ) -> Result<(), CommError> {
        if !self.is_one_kernel(x.as_view()) {
            return sum_then_norm(self, stream, x, residual, weight, eps);
        }
        self.check()?;
        let kernel = || self.peers.all_reduce_add_rms_norm(stream, x, residual, weight, eps);
        self.queue(kernel).map_err(|error| self.fail(error))
    }

    fn all_gather(
        &self,
        stream: &Stream,
        input: View<'_>,
        output: ViewMut<'_>,
    ) -> Result<(), CommError> {
        self.base.all_gather(stream, input, output)
    }

    fn broadcast(&self, stream: &Stream, data: ViewMut<'_>, root: usize) -> Result<(), CommError> {
        self.base.broadcast(stream, data, root)
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.base.barrier()
    }

    /// Limits at which the ways to sum cross on these GPUs. Sums through the other communicator may
    /// add in another order, so a later start that measures other limits may give other last bits.
    fn measure(&mut self, stream: &Stream) -> Result<Option<String>, CommError> {
        if !self.measures {
            return self.base.measure(stream);
        }
        let measured = measure::measure(self, stream, self.limits.max_bytes());
        self.limits = measured.map_err(|error| self.fail(error))?;
        Ok(Some(self.limits.to_string()))
    }

    fn check(&self) -> Result<(), CommError> {
        // A kernel that has waited too long raises the flag and tells nobody else.
        if self.gave_up.is_raised() && self.abort.reason().is_none() {
            let reason = "a GPU has waited in vain for another rank's part of a sum";
            self.abort.abort(&format!("rank {}: {reason}", self.rank()));
        }
        self.base.check()
    }

    fn abort(&self, reason: &str) {
        self.base.abort(reason);
    }
}

/// Whether two of them are the same GPU: good for tests, never for speed. NCCL must be asked for it, and
/// nothing that waits for another rank may then be in a graph.
pub fn share_a_gpu(devices: &[Device]) -> bool {
    let ordinal = |device: &Device| match device {
        Device::Cpu(_) => None,
        Device::Cuda(device) => Some(device.ordinal()),
    };
    let mut seen = HashSet::new();
    !devices.iter().filter_map(ordinal).all(|ordinal| seen.insert(ordinal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_follows_from_the_size() {
        let limits = PeerLimits::for_world(4);
        let way = |bytes| limits.algorithm(bytes);
        assert_eq!(way(0), Some(PeerAlgorithm::OneShot));
        assert_eq!(way(512 << 10), Some(PeerAlgorithm::OneShot));
        assert_eq!(way((512 << 10) + 1), Some(PeerAlgorithm::TwoShot));
        assert_eq!(way(8 << 20), Some(PeerAlgorithm::TwoShot));
        assert_eq!(way((8 << 20) + 1), None);
        assert_eq!(PeerLimits::for_world(2).algorithm(8 << 20), Some(PeerAlgorithm::OneShot));
        assert!(PeerLimits::for_world(8).one_shot_bytes < limits.one_shot_bytes);
    }

    #[test]
    fn limits_are_said_in_words() {
        let said = |one_shot_bytes, two_shot_bytes| {
            PeerLimits { one_shot_bytes, two_shot_bytes }.to_string()
        };
        assert_eq!(said(256 << 10, 8 << 20), "one-shot to 256 KiB, two-shot to 8192 KiB");
        assert_eq!(said(64 << 10, 64 << 10), "one-shot to 64 KiB");
        assert_eq!(said(0, 16 << 10), "two-shot to 16 KiB");
        assert_eq!(said(0, 0), "nothing");
    }

    #[test]
    fn a_cpu_has_no_peers() {
        let cpu = Device::cpu(std::num::NonZeroUsize::MIN).unwrap();
        let limits = PeerLimits::for_world(2);
        assert!(matches!(PeerSetup::new(&[cpu], limits), Err(CommError::Kernel(_))));
        assert!(matches!(PeerSetup::new(&[], limits), Err(CommError::WorldSize { .. })));
    }
}
