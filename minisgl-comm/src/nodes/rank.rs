//! A rank of a group over several nodes.
//!
//! Never knows: how nodes came together, or what is on the wire.
//!
//! # Protocol
//! Arrays are cut into blocks as in `threads`, and each block takes one round:
//!
//! 1. Each rank of the node copies its block to its own input staging, and the node's ranks meet.
//! 2. The node's first rank exchanges the inputs of all of them with the other nodes, and puts the
//!    result into its output staging. The node's ranks meet again.
//! 3. Each rank copies its part of the result.
//!
//! As in `threads`, two inputs in turn and one output are enough. Sums are taken on node 0 over the
//! arrays of all ranks in their order, by the same op as there, so the bits are the same.

use std::cell::RefCell;
use std::net::TcpStream;
use std::time::Duration;

use minisgl_kernels::{DType, Stream, View, ViewMut, ops};

use super::exchange::{Combine, Exchange, Round};
use crate::blocks::Block;
use crate::call::Call;
use crate::threads::{BLOCK_BYTES, ThreadRank, local_group};
use crate::{AbortHandle, CommError, Communicator};

/// A connection that breaks is often the echo of an abort whose reason is on its way on the link.
const WAIT_FOR_REASON: Duration = Duration::from_millis(500);

/// One rank of a group over several nodes. Those of one node go to threads of their own, with
/// devices of their own. Made by [`Node::into_ranks`](super::Node::into_ranks).
///
/// Dropping it aborts the group, as with a [`ThreadRank`]; also collectives that are complete on this
/// node and not yet on another. To end in good order, first drop the [`Link`](super::Link)s.
pub struct NodeRank {
    local: ThreadRank,
    num_nodes: usize,
    node: usize,
    /// Of the node's first rank alone.
    exchange: Option<RefCell<Exchange>>,
}

/// The ranks of node `node`; `peers` are its connections for arrays.
pub(super) fn node_group(
    num_nodes: usize,
    node: usize,
    ranks_per_node: usize,
    peers: Vec<(usize, TcpStream)>,
) -> Result<Vec<NodeRank>, CommError> {
    let ranks = local_group(ranks_per_node, node * ranks_per_node)?;
    let mut exchange = Some(Exchange::new(node, peers, num_nodes * ranks_per_node));
    let rank =
        |local| NodeRank { local, num_nodes, node, exchange: exchange.take().map(RefCell::new) };
    Ok(ranks.into_iter().map(rank).collect())
}

impl NodeRank {
    /// Aborts this rank's group, on all nodes, from anywhere.
    pub fn abort_handle(&self) -> AbortHandle {
        self.local.abort_handle()
    }

    fn ranks_per_node(&self) -> usize {
        self.local.world_size()
    }

    /// Both meetings, and what the first rank does between them. `num_inputs` of this node's ranks
    /// have put in their input `index`, the first one of these being `first_input`.
    fn exchange(
        &self,
        stream: &Stream,
        call: Call,
        round: &Round,
        index: usize,
        first_input: usize,
    ) -> Result<(), CommError> {
        self.local.meet(call)?;
        if let Some(exchange) = &self.exchange {
            let inputs = self.local.inputs(index);
            let num_inputs = round.counts[self.node];
            let inputs = inputs[first_input..first_input + num_inputs].iter();
            let inputs = inputs.map(|input| input.filled(round.dtype, round.dims));
            let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
            let mut out = self.local.write_shared_output();
            let result = exchange.borrow_mut().run(stream, call, round, &inputs, &mut out);
            result.map_err(|error| self.with_reason(error))?;
        }
        self.local.meet(call)
    }

    fn with_reason(&self, error: CommError) -> CommError {
        match error {
            CommError::Node { .. } => {
                let reason = self.abort_handle().reason_within(WAIT_FOR_REASON);
                reason.map_or(error, |reason| CommError::Aborted { reason })
            }
            CommError::Aborted { reason } => {
                // Found by this rank: nodes that are not in step.
                self.local.abort(&reason);
                CommError::Aborted { reason }
            }
            other => other,
        }
    }

    fn try_all_reduce(&self, stream: &Stream, data: ViewMut<'_>) -> Result<(), CommError> {
        let call = Call::all_reduce(data.as_view())?;
        let (dtype, whole) = (data.dtype(), Block::whole(data.shape()));
        let mut data = data.reshape(whole.dims())?;
        for block in whole.cut(BLOCK_BYTES / dtype.size_bytes()) {
            let target = block.of_mut(data.reborrow())?;
            let round = Round {
                dtype,
                dims: block.dims(),
                combine: Combine::Sum,
                counts: vec![self.ranks_per_node(); self.num_nodes],
            };
            let index = self.local.begin_round()?;
            self.local.stage(stream, index, target.as_view())?;
            self.exchange(stream, call, &round, index, 0)?;
            let output = self.local.shared_output();
            let sum = output.filled(dtype, round.result_dims())?.reshape(block.dims())?;
            ops::copy(stream, sum, target)?;
        }
        Ok(())
    }

    fn try_all_gather(
        &self,
        stream: &Stream,
        input: View<'_>,
        output: ViewMut<'_>,
    ) -> Result<(), CommError> {
        let world_size = self.world_size();
        let call = Call::all_gather(input, output.as_view(), world_size)?;
        let (dtype, whole) = (input.dtype(), Block::whole(input.shape()));
        let [rows, columns] = whole.dims();
        let input = input.reshape([rows, columns])?;
        let mut output = output.reshape([world_size, rows, columns])?;
        for block in whole.cut(BLOCK_BYTES / dtype.size_bytes()) {
            let round = Round {
                dtype,
                dims: block.dims(),
                combine: Combine::List,
                counts: vec![self.ranks_per_node(); self.num_nodes],
            };
            let index = self.local.begin_round()?;
            self.local.stage(stream, index, block.of(input)?)?;
            self.exchange(stream, call, &round, index, 0)?;
            let all = self.local.shared_output();
            let all = all.filled(dtype, round.result_dims())?;
            for rank in 0..world_size {
                let target = output.reborrow().rows(rank..rank + 1)?.reshape([rows, columns])?;
                let source = all.rows(rank..rank + 1)?.reshape(block.dims())?;
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
        let (dtype, whole) = (data.dtype(), Block::whole(data.shape()));
        let mut data = data.reshape(whole.dims())?;
        let (root_node, root_on_node) =
            (root / self.ranks_per_node(), root % self.ranks_per_node());
        for block in whole.cut(BLOCK_BYTES / dtype.size_bytes()) {
            let target = block.of_mut(data.reborrow())?;
            let mut counts = vec![0; self.num_nodes];
            counts[root_node] = 1;
            let round = Round { dtype, dims: block.dims(), combine: Combine::List, counts };
            let index = self.local.begin_round()?;
            if self.rank() == root {
                self.local.stage(stream, index, target.as_view())?;
            }
            self.exchange(stream, call, &round, index, root_on_node)?;
            let output = self.local.shared_output();
            let source = output.filled(dtype, round.result_dims())?.reshape(block.dims())?;
            ops::copy(stream, source, target)?;
        }
        Ok(())
    }

    fn try_barrier(&self) -> Result<(), CommError> {
        let counts = vec![0; self.num_nodes];
        let round = Round { dtype: DType::F32, dims: [0, 0], combine: Combine::List, counts };
        let index = self.local.begin_round()?;
        // Nothing is computed: any device will do to hold no array.
        let device = minisgl_kernels::Device::cpu(std::num::NonZeroUsize::MIN)?;
        self.exchange(&device.new_stream()?, Call::Barrier, &round, index, 0)
    }
}

impl Communicator for NodeRank {
    fn rank(&self) -> usize {
        self.node * self.ranks_per_node() + self.local.rank()
    }

    fn world_size(&self) -> usize {
        self.num_nodes * self.ranks_per_node()
    }

    fn all_reduce(&self, stream: &Stream, data: ViewMut<'_>) -> Result<(), CommError> {
        self.local.or_abort(self.try_all_reduce(stream, data))
    }

    fn all_gather(
        &self,
        stream: &Stream,
        input: View<'_>,
        output: ViewMut<'_>,
    ) -> Result<(), CommError> {
        self.local.or_abort(self.try_all_gather(stream, input, output))
    }

    fn broadcast(&self, stream: &Stream, data: ViewMut<'_>, root: usize) -> Result<(), CommError> {
        self.local.or_abort(self.try_broadcast(stream, data, root))
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.local.or_abort(self.try_barrier())
    }

    fn check(&self) -> Result<(), CommError> {
        self.local.check()
    }

    fn abort(&self, reason: &str) {
        self.local.abort(reason);
    }
}
