//! Decode steps as CUDA graphs: the whole forward pass is one launch.
//! Knows sizes of batches; never what a forward pass does.

use std::collections::BTreeMap;

use minisgl_comm::Communicator;
use minisgl_kernels::{Graph, Stream};

use super::StepMemory;
use crate::ModelError;
use crate::batch::HostBatch;

/// Graphs by the number of sequences.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    by_size: BTreeMap<usize, Graph>,
}

impl Graphs {
    /// The graph that computes `batch`, if it is a decode of a size that was captured.
    pub(super) fn of(&self, batch: &HostBatch) -> Option<&Graph> {
        if batch.is_decode() { self.by_size.get(&batch.layout().sequences) } else { None }
    }

    /// The largest first: what grows on demand has its size then.
    pub(super) fn capture(
        &mut self,
        sizes: &[usize],
        stream: &Stream,
        comm: &dyn Communicator,
        memory: &mut StepMemory,
    ) -> Result<(), ModelError> {
        let mut sizes = sizes.to_vec();
        sizes.sort_unstable_by_key(|size| std::cmp::Reverse(*size));
        // No kernel is to wait for a rank that still loads: kernels have less patience.
        comm.barrier()?;
        for size in sizes {
            let batch = HostBatch::placeholder(size);
            memory.prepare(stream, &batch, true)?;
            // Once outside of the graph: libraries choose their kernels at the first call.
            memory.forward(stream, comm)?;
            stream.synchronize()?;
            comm.barrier()?;
            let (graph, ()) = stream.capture(|| memory.forward(stream, comm))?;
            self.by_size.insert(size, graph);
        }
        stream.synchronize()?;
        comm.barrier()?;
        Ok(())
    }
}
