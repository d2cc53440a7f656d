//! What can go wrong in a collective.

use std::ops::Range;
use std::sync::Arc;

use minisgl_kernels::{DType, Shape};

/// Every error of this crate.
///
/// An error that a collective returns is final for the whole group: it has been aborted, because
/// its ranks can no longer be in step. What the collective was to write is unspecified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommError {
    /// The group was aborted: by a rank that failed, panicked, left or called another collective
    /// than the others, or from outside.
    #[error("the group of ranks was aborted: {reason}")]
    Aborted {
        /// The first reason given.
        reason: Arc<str>,
    },
    /// A group needs at least one rank.
    #[error("world size is {world_size}, allowed is 1 or more")]
    WorldSize {
        /// The number of ranks asked for.
        world_size: usize,
    },
    /// An array has an element type that the collective cannot work on.
    #[error("{op}: {argument} has dtype {got}, expected {expected}")]
    DType {
        /// The collective.
        op: &'static str,
        /// The name of its argument.
        argument: &'static str,
        /// The dtype it came with.
        got: DType,
        /// The dtype, or dtypes, it may have.
        expected: &'static str,
    },
    /// The output of an all_gather is not one input per rank.
    #[error(
        "all_gather: output has shape {output}, expected {world_size} times the input's {input}"
    )]
    GatherShape {
        /// Shape of the input.
        input: Shape,
        /// Shape of the output.
        output: Shape,
        /// The number of ranks: the output's first dimension.
        world_size: usize,
    },
    /// The root of a broadcast is not a rank of the group.
    #[error("broadcast: root is {root}, allowed is 0..{world_size}")]
    Root {
        /// The root given.
        root: usize,
        /// The number of ranks.
        world_size: usize,
    },
    /// A rank that the group does not have, or not in this process.
    #[error("there is no rank {rank} here, there are {} to {}", allowed.start, allowed.end - 1)]
    Rank {
        /// The rank asked for.
        rank: usize,
        /// The ranks that there are, at least one.
        allowed: Range<usize>,
    },
    /// Numbers of nodes that make no sense.
    #[error(
        "node {node} of {num_nodes} makes no sense: there are 2 to {max} nodes, counted from 0"
    )]
    Nodes {
        /// Nodes in all.
        num_nodes: usize,
        /// This node's number.
        node: usize,
        /// The most nodes there can be.
        max: usize,
    },
    /// Node 0 cannot listen.
    #[error("node 0 cannot listen on {address} for the other nodes: {source}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Node 0 cannot be reached.
    #[error("node 0 cannot be reached at {address} within {seconds} s: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// How long it was tried.
        seconds: f64,
        /// What came of the last try.
        source: std::io::Error,
    },
    /// Some nodes did not come in time.
    #[error("{nodes} (of {num_nodes} nodes) did not come to {address} within {seconds} s{hint}")]
    Missing {
        /// Which ones.
        nodes: String,
        /// Nodes in all.
        num_nodes: usize,
        /// Where node 0 waited.
        address: String,
        /// How long.
        seconds: f64,
        /// Who came but was turned away, if anybody.
        hint: String,
    },
    /// A node was started differently from node 0.
    #[error("{problem}")]
    Mismatch {
        /// Which node, and all that differs.
        problem: String,
    },
    /// Node 0 does not want this node.
    #[error("node 0 at {address} refuses this node: {reason}")]
    Refused {
        /// Where node 0 is.
        address: String,
        /// What it says.
        reason: String,
    },
    /// Who is at node 0's address does not know the secret of this node.
    #[error(
        "who listens at {address} does not know this node's secret: it must be the same on all"
    )]
    Secret {
        /// The address.
        address: String,
    },
    /// Another node is gone, or sends what makes no sense.
    #[error("node {node}: {problem}")]
    Node {
        /// Which one.
        node: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// NCCL does not load, or is not what is needed.
    #[error("NCCL cannot be used from {}: {problem}", path.display())]
    NcclLibrary {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A call of NCCL failed, or took too long.
    #[error("{call}: {message}")]
    Nccl {
        /// The call.
        call: &'static str,
        /// What NCCL says.
        message: String,
    },
    /// Something that only works on GPUs.
    #[error("{what} needs a GPU, this is {got}")]
    Gpu {
        /// What needs it.
        what: &'static str,
        /// What there is instead.
        got: String,
    },
    /// An op on this rank's own arrays failed: a layout it cannot use, or no memory for staging.
    #[error(transparent)]
    Kernel(#[from] minisgl_kernels::Error),
}
