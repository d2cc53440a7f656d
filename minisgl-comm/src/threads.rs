//! Ranks in one process: one per thread, exchanging data through shared host memory.
//!
//! Never knows: what the threads do between the collectives.
//!
//! # Protocol
//! Arrays are cut into blocks that fit the staging memory, and each block takes one round:
//!
//! 1. The rank copies its block to its own *input* staging. There are two, used in turn.
//! 2. All ranks meet.
//! 3. The rank reads the inputs of all ranks, in rank order, and writes its own array.
//!
//! No second meeting is needed before the next round: that one writes the other input, and who
//! comes back to this input has passed the next round's meeting, to which every rank came only
//! after it had read.
//!
//! In a sum of a large block step 3 would read `world_size` blocks on every rank. Instead each rank
//! sums its own share of the block into its *output* staging, all meet again, and each copies the
//! shares of all. One output is enough: the next round writes it only after its first meeting, to
//! which every rank came only after it had read.
//!
//! Ranks may be on one GPU, which they share. There work is queued, so a rank waits for its stream
//! before every meeting: then what it wrote is there, and what it read is read. That cannot be captured
//! in a graph.
//!
//! A rank whose meeting fails has not waited for the others, but it begins no further round: a
//! meeting fails only in an aborted group, and there no round begins.
//!
//! So the locks around the staging are always free when a rank takes one. They are there for the
//! compiler, to which this comment is no proof; one that is taken is a bug and panics.

use std::cell::Cell;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use minisgl_kernels::{Stream, View, ViewMut, ops};

use crate::blocks::Block;
use crate::call::Call;
use crate::rendezvous::Rendezvous;
use crate::staging::Staging;
use crate::{AbortHandle, CommError, Communicator};

/// Largest block: small enough that what the ranks stage stays in the processor's caches from one
/// step of a round to the next, large enough that copying it outweighs the meetings.
pub(crate) const BLOCK_BYTES: usize = 512 << 10;

/// From this size on a block is summed in shares: a second meeting costs less than reading the
/// inputs of all ranks on every rank. (`benches/collectives.rs` is how both were chosen.)
const SHARE_FROM_BYTES: usize = 32 << 10;

/// Makes a group of `world_size` ranks in this process. Rank `i` is element `i`; each goes to a
/// thread of its own.
///
/// Each rank should pass streams of a [`Device`](minisgl_kernels::Device) of its own: ranks block
/// while they wait, and ranks that share a device's threads through
/// [`Stream::run`](minisgl_kernels::Stream::run) could wait for a rank that has no thread to run
/// on. The number of ranks may exceed the number of cores; waiting ranks sleep.
///
/// # Errors
/// [`CommError::WorldSize`] if `world_size` is 0.
pub fn thread_group(world_size: usize) -> Result<Vec<ThreadRank>, CommError> {
    local_group(world_size, 0)
}

/// As [`thread_group`], for ranks that are part of a larger group, where they have the numbers
/// `first_rank..`; messages name them by these.
pub(crate) fn local_group(
    world_size: usize,
    first_rank: usize,
) -> Result<Vec<ThreadRank>, CommError> {
    if world_size == 0 {
        return Err(CommError::WorldSize { world_size });
    }
    let group = Arc::new(Group {
        first_rank,
        rendezvous: Arc::new(Rendezvous::new(world_size, first_rank)),
        members: (0..world_size).map(|_| Member::default()).collect(),
    });
    let rank = |rank| ThreadRank { rank, group: group.clone(), round: Cell::new(0) };
    Ok((0..world_size).map(rank).collect())
}

/// One rank of a [`thread_group`].
///
/// Dropping it, in a panic or not, aborts the group: collectives that have not completed, and all
/// later ones, fail on the other ranks. Ranks that have no more collectives to do notice nothing.
pub struct ThreadRank {
    rank: usize,
    group: Arc<Group>,
    /// How many rounds this rank has begun; the same on all ranks when they meet.
    round: Cell<usize>,
}

struct Group {
    /// What messages call the first rank.
    first_rank: usize,
    rendezvous: Arc<Rendezvous>,
    members: Vec<Member>,
}

/// What one rank shows the others. Only that rank writes to it.
#[derive(Default)]
struct Member {
    inputs: [RwLock<Staging>; 2],
    output: RwLock<Staging>,
}

impl ThreadRank {
    /// Aborts this rank's group from anywhere.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(self.group.rendezvous.clone())
    }

    /// An error of this rank's own leaves the others waiting for it, so it ends the group.
    pub(crate) fn or_abort(&self, result: Result<(), CommError>) -> Result<(), CommError> {
        self.group.rendezvous.abort_on_error(self.rank, result)
    }

    pub(crate) fn meet(&self, call: Call) -> Result<(), CommError> {
        self.group.rendezvous.meet(self.rank, call)
    }

    /// Begins a round, unless the group is aborted; says which of the two inputs it uses.
    pub(crate) fn begin_round(&self) -> Result<usize, CommError> {
        self.group.rendezvous.check()?;
        let round = self.round.get();
        self.round.set(round.wrapping_add(1));
        Ok(round % 2)
    }

    /// Step 1 of a round: shows `block` to the others in this rank's input `index`.
    pub(crate) fn stage(
        &self,
        stream: &Stream,
        index: usize,
        block: View<'_>,
    ) -> Result<(), CommError> {
        let mut input = write(&self.group.members[self.rank].inputs[index]);
        let room = input.room(stream.device(), block.dtype(), dims(block))?;
        ops::copy(stream, block, room)?;
        Ok(stream.synchronize()?)
    }

    /// The inputs `index` of all ranks, in their order.
    pub(crate) fn inputs(&self, index: usize) -> Vec<RwLockReadGuard<'_, Staging>> {
        self.group.members.iter().map(|member| read(&member.inputs[index])).collect()
    }

    /// The first rank's output: for the first rank to fill, between two meetings.
    pub(crate) fn write_shared_output(&self) -> RwLockWriteGuard<'_, Staging> {
        write(&self.group.members[0].output)
    }

    /// The first rank's output: for all ranks to read, after the second meeting.
    pub(crate) fn shared_output(&self) -> RwLockReadGuard<'_, Staging> {
        read(&self.group.members[0].output)
    }

    fn try_all_reduce(&self, stream: &Stream, data: ViewMut<'_>) -> Result<(), CommError> {
        let call = Call::all_reduce(data.as_view())?;
        let whole = Block::whole(data.shape());
        let mut data = data.reshape(whole.dims())?;
        let element_bytes = data.dtype().size_bytes();
        for block in whole.cut(BLOCK_BYTES / element_bytes) {
            let target = block.of_mut(data.reborrow())?;
            if block.num_elements() * element_bytes < SHARE_FROM_BYTES {
                self.reduce_block(stream, call, target)?;
            } else {
                self.reduce_block_in_shares(stream, call, target)?;
            }
        }
        Ok(())
    }

    fn reduce_block(
        &self,
        stream: &Stream,
        call: Call,
        target: ViewMut<'_>,
    ) -> Result<(), CommError> {
        let index = self.begin_round()?;
        self.stage(stream, index, target.as_view())?;
        self.meet(call)?;
        let whole = Block::whole(target.shape());
        self.sum_inputs(stream, index, &whole, &whole, target)
    }

    fn reduce_block_in_shares(
        &self,
        stream: &Stream,
        call: Call,
        mut target: ViewMut<'_>,
    ) -> Result<(), CommError> {
        let index = self.begin_round()?;
        self.stage(stream, index, target.as_view())?;
        self.meet(call)?;

        let (dtype, block) = (target.dtype(), Block::whole(target.shape()));
        let world_size = self.world_size();
        {
            let share = block.share(self.rank, world_size);
            let mut output = write(&self.group.members[self.rank].output);
            let sum = output.room(stream.device(), dtype, share.dims())?;
            self.sum_inputs(stream, index, &block, &share, sum)?;
            stream.synchronize()?;
        }
        self.meet(call)?;

        for (rank, member) in self.group.members.iter().enumerate() {
            let share = block.share(rank, world_size);
            let output = read(&member.output);
            let sum = output.filled(dtype, share.dims())?;
            ops::copy(stream, sum, share.of_mut(target.reborrow())?)?;
        }
        Ok(())
    }

    /// `out` = the sum of `share` of the inputs `index`, each of which is a `block`.
    fn sum_inputs(
        &self,
        stream: &Stream,
        index: usize,
        block: &Block,
        share: &Block,
        out: ViewMut<'_>,
    ) -> Result<(), CommError> {
        let inputs = self.inputs(index);
        let parts = inputs
            .iter()
            .map(|input| share.of(input.filled(out.dtype(), block.dims())?))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(ops::reduce_sum(stream, &parts, out)?)
    }

    fn try_all_gather(
        &self,
        stream: &Stream,
        input: View<'_>,
        output: ViewMut<'_>,
    ) -> Result<(), CommError> {
        let world_size = self.world_size();
        let call = Call::all_gather(input, output.as_view(), world_size)?;
        let whole = Block::whole(input.shape());
        let [rows, columns] = whole.dims();
        let input = input.reshape([rows, columns])?;
        let mut output = output.reshape([world_size, rows, columns])?;
        for block in whole.cut(BLOCK_BYTES / input.dtype().size_bytes()) {
            let index = self.begin_round()?;
            self.stage(stream, index, block.of(input)?)?;
            self.meet(call)?;
            for (rank, theirs) in self.inputs(index).iter().enumerate() {
                let target = output.reborrow().rows(rank..rank + 1)?.reshape([rows, columns])?;
                let source = theirs.filled(input.dtype(), block.dims())?;
                ops::copy(stream, source, block.of_mut(target)?)?;
            }
        }
        Ok(())
    }

    fn try_broadcast(
        &self,
        stream: &Stream,
        data: ViewMut<'_>,
        root: usize,
    ) -> Result<(), CommError> {
        let call = Call::broadcast(data.as_view(), root, self.world_size())?;
        let dtype = data.dtype();
        let whole = Block::whole(data.shape());
        let mut data = data.reshape(whole.dims())?;
        for block in whole.cut(BLOCK_BYTES / dtype.size_bytes()) {
            let index = self.begin_round()?;
            let target = block.of_mut(data.reborrow())?;
            if self.rank == root {
                self.stage(stream, index, target.as_view())?;
                self.meet(call)?;
            } else {
                stream.synchronize()?;
                self.meet(call)?;
                let source = read(&self.group.members[root].inputs[index]);
                ops::copy(stream, source.filled(dtype, block.dims())?, target)?;
            }
        }
        Ok(())
    }
}

impl Communicator for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.group.members.len()
    }

    fn all_reduce(&self, stream: &Stream, data: ViewMut<'_>) -> Result<(), CommError> {
        self.or_abort(self.try_all_reduce(stream, data))
    }

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
        self.meet(Call::Barrier)
    }

    fn check(&self) -> Result<(), CommError> {
        self.group.rendezvous.check()
    }

    fn abort(&self, reason: &str) {
        self.group.rendezvous.abort(reason);
    }
}

impl Drop for ThreadRank {
    fn drop(&mut self) {
        let what = if std::thread::panicking() { "panicked" } else { "left the group" };
        self.abort(&format!("rank {} {what}", self.group.first_rank + self.rank));
    }
}

/// The sizes of a block, which is a matrix.
fn dims(block: View<'_>) -> [usize; 2] {
    Block::whole(block.shape()).dims()
}

/// Never waits; see the protocol. A rank that panics while it writes aborts the group when it is
/// dropped, so nobody reads what it left behind, and poisoning adds nothing.
fn read(staging: &RwLock<Staging>) -> RwLockReadGuard<'_, Staging> {
    match staging.try_read() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(error)) => error.into_inner(),
        Err(TryLockError::WouldBlock) => panic!("a rank reads staging that is being written"),
    }
}

/// As [`read`].
fn write(staging: &RwLock<Staging>) -> RwLockWriteGuard<'_, Staging> {
    match staging.try_write() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(error)) => error.into_inner(),
        Err(TryLockError::WouldBlock) => panic!("a rank writes staging that is in use"),
    }
}

#[cfg(test)]
mod tests;
