//! A sequence of ops that a GPU replays as one.
//!
//! Never knows: what was captured.

use crate::cuda::{self, CudaGraph};
use crate::{Error, Stream};

/// Captured ops: launching them costs the host a few microseconds, however many they are.
///
/// A launch uses the addresses and sizes of the capture. Its inputs are whatever is in that memory
/// by then. **The tensors (and [`Attention`](crate::ops::Attention)) that the captured ops use must outlive the
/// graph**: keep them beside it
/// (in the `R` of [`Stream::capture`]). A launch after they are gone reads and writes memory of the
/// GPU that may belong to somebody else.
#[derive(Debug)]
pub struct Graph {
    cuda: CudaGraph,
}

impl Graph {
    /// Queues the captured ops on `stream`, which must be of the device they were captured on.
    ///
    /// # Errors
    /// [`Error::OtherDevice`] for a stream of the CPU, and errors of the device.
    pub fn launch(&self, stream: &Stream) -> Result<(), Error> {
        let Stream::Cuda(stream) = stream else {
            let (op, argument) = ("launching a graph", "graph");
            let expected = stream.device().description();
            return Err(Error::OtherDevice { op, argument, got: "a GPU".to_owned(), expected });
        };
        self.cuda.launch(stream)
    }
}

impl Stream {
    /// Captures what `work` queues on this stream as a graph, instead of running it.
    ///
    /// In `work`, ops do nothing but become part of the graph; uploads, downloads and waiting are
    /// errors, and so is an op that needs more scratch memory than the stream has: run `work` once
    /// before. Allocating tensors is not allowed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] on the CPU, errors of `work`, and errors of the device.
    pub fn capture<R, E: From<Error>>(
        &self,
        work: impl FnOnce() -> Result<R, E>,
    ) -> Result<(Graph, R), E> {
        match self {
            Self::Cpu(_) => {
                let text = "the CPU has no graphs: run the ops as they are";
                Err(Error::Unavailable(text.to_owned()).into())
            }
            Self::Cuda(stream) => {
                let (cuda, result) = cuda::capture(stream, work)?;
                Ok((Graph { cuda }, result))
            }
        }
    }
}
