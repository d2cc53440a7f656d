//! What the first rank of a node does for all of them: sends what they put in to node 0, and gets
//! what comes out. On node 0 it gathers what all nodes send, combines it, and sends it back.
//!
//! Never knows: how the ranks of a node share their arrays.
//!
//! A round is one frame from each node to node 0, and one back. The frame begins with the call, as
//! messages name it, so that nodes that are not in step notice; the arrays follow.

use std::net::TcpStream;

use minisgl_kernels::{DType, Stream, View, ops};

use super::bytes;
use super::frame::{self, FrameBuffer, Kind, Parts, push_text};
use crate::CommError;
use crate::call::Call;
use crate::staging::Staging;
use crate::threads::BLOCK_BYTES;

/// The arrays of one round. All have the same dtype and dimensions.
pub(super) struct Round {
    pub(super) dtype: DType,
    pub(super) dims: [usize; 2],
    pub(super) combine: Combine,
    /// How many arrays each node puts in, by node.
    pub(super) counts: Vec<usize>,
}

/// What comes out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Combine {
    /// One array: the sum of all, in the order of the ranks.
    Sum,
    /// All of them, in the order of the ranks.
    List,
}

impl Round {
    fn array_bytes(&self) -> usize {
        self.dims[0] * self.dims[1] * self.dtype.size_bytes()
    }

    /// How many arrays come out.
    fn num_results(&self) -> usize {
        match self.combine {
            Combine::Sum => 1,
            Combine::List => self.counts.iter().sum(),
        }
    }

    /// The result as one matrix: the arrays, one after the other.
    pub(super) fn result_dims(&self) -> [usize; 2] {
        [self.num_results(), self.dims[0] * self.dims[1]]
    }
}

/// One node's connections for arrays.
pub(super) struct Exchange {
    node: usize,
    /// On node 0 all others in their order, else node 0.
    peers: Vec<(usize, TcpStream)>,
    frame: FrameBuffer,
    body: Vec<u8>,
    /// On node 0: an array that came, by its place among all.
    received: Vec<Staging>,
    max_frame_bytes: usize,
}

impl Exchange {
    pub(super) fn new(node: usize, peers: Vec<(usize, TcpStream)>, world_size: usize) -> Self {
        Self {
            node,
            peers,
            frame: FrameBuffer::default(),
            body: Vec::new(),
            received: (0..world_size).map(|_| Staging::default()).collect(),
            // All arrays of a round, and the name of the call.
            max_frame_bytes: world_size * BLOCK_BYTES + 1024,
        }
    }

    /// One round: `inputs` are this node's arrays, and `out` gets the result.
    pub(super) fn run(
        &mut self,
        stream: &Stream,
        call: Call,
        round: &Round,
        inputs: &[View<'_>],
        out: &mut Staging,
    ) -> Result<(), CommError> {
        let call = call.to_string();
        if self.node == 0 {
            self.gather(stream, &call, round)?;
            self.combine(stream, round, inputs, out)?;
            self.write_arrays(stream, &call, &[out.filled(round.dtype, round.result_dims())?])
        } else {
            self.write_arrays(stream, &call, inputs)?;
            let (node, stream_of_0) = &self.peers[0];
            let arrays = read_arrays(
                *node,
                stream_of_0,
                &mut self.body,
                self.max_frame_bytes,
                (self.node, &call),
                round.num_results() * round.array_bytes(),
            )?;
            let target = out.room(stream.device(), round.dtype, round.result_dims())?;
            bytes::fill(stream, arrays, target)
        }
    }

    /// Node 0: what all other nodes put in.
    fn gather(&mut self, stream: &Stream, call: &str, round: &Round) -> Result<(), CommError> {
        let mut place = round.counts[0];
        for (node, connection) in &self.peers {
            let count = round.counts[*node];
            let arrays = read_arrays(
                *node,
                connection,
                &mut self.body,
                self.max_frame_bytes,
                (0, call),
                count * round.array_bytes(),
            )?;
            for (index, staging) in self.received[place..place + count].iter_mut().enumerate() {
                let array = &arrays[index * round.array_bytes()..][..round.array_bytes()];
                let target = staging.room(stream.device(), round.dtype, round.dims)?;
                bytes::fill(stream, array, target)?;
            }
            place += count;
        }
        Ok(())
    }

    /// Node 0: its own arrays come first, since they are those of the first ranks.
    fn combine(
        &mut self,
        stream: &Stream,
        round: &Round,
        inputs: &[View<'_>],
        out: &mut Staging,
    ) -> Result<(), CommError> {
        let num_arrays: usize = round.counts.iter().sum();
        let received = self.received[inputs.len()..num_arrays].iter();
        let received = received.map(|staging| staging.filled(round.dtype, round.dims));
        let arrays = inputs.iter().copied().map(Ok).chain(received);
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        let mut target = out.room(stream.device(), round.dtype, round.result_dims())?;
        match round.combine {
            Combine::Sum => ops::reduce_sum(stream, &arrays, target.reshape(round.dims)?)?,
            Combine::List => {
                for (index, array) in arrays.into_iter().enumerate() {
                    let place = target.reborrow().rows(index..index + 1)?.reshape(round.dims)?;
                    ops::copy(stream, array, place)?;
                }
            }
        }
        Ok(())
    }

    fn write_arrays(
        &mut self,
        stream: &Stream,
        call: &str,
        arrays: &[View<'_>],
    ) -> Result<(), CommError> {
        let body = self.frame.begin(Kind::Arrays);
        push_text(body, call);
        for array in arrays {
            bytes::append(stream, *array, body)?;
        }
        for (node, connection) in &self.peers {
            self.frame.write(connection).map_err(|error| broken(*node, &error))?;
        }
        Ok(())
    }
}

/// The arrays of the frame that `node` sends, after its call was compared with `(own node, call)`.
fn read_arrays<'a>(
    node: usize,
    connection: &TcpStream,
    body: &'a mut Vec<u8>,
    max_frame_bytes: usize,
    (own_node, call): (usize, &str),
    num_bytes: usize,
) -> Result<&'a [u8], CommError> {
    let kind = frame::read(connection, max_frame_bytes, body).map_err(|e| broken(node, &e))?;
    let garbled = || CommError::Node { node, problem: "it sent what is no array".to_owned() };
    if kind != Kind::Arrays {
        return Err(garbled());
    }
    let mut parts = Parts(body);
    let their_call = parts.text().ok_or_else(garbled)?;
    if their_call != call {
        let reason = format!("node {node} called {their_call}, but node {own_node} called {call}");
        return Err(CommError::Aborted { reason: reason.into() });
    }
    if parts.0.len() != num_bytes {
        return Err(garbled());
    }
    Ok(parts.0)
}

fn broken(node: usize, error: &std::io::Error) -> CommError {
    CommError::Node { node, problem: error.to_string() }
}
