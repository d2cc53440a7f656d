//! What can go wrong in a collective.

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
    /// An op on this rank's own arrays failed: a layout it cannot use, or no memory for staging.
    #[error(transparent)]
    Kernel(#[from] minisgl_kernels::Error),
}
