//! What a rank asked for: the part of a call that all ranks must agree on.
//!
//! Never knows: where the arrays are or how they are strided; only what they must be.

use std::fmt;

use minisgl_kernels::{DType, Shape, View};

use crate::CommError;

/// One call of a collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    AllReduce { dtype: DType, shape: Shape },
    AllGather { dtype: DType, shape: Shape },
    Broadcast { dtype: DType, shape: Shape, root: usize },
    Barrier,
}

impl Call {
    /// An all_reduce of `data`, if it can be summed.
    pub(crate) fn all_reduce(data: View<'_>) -> Result<Self, CommError> {
        match data.dtype() {
            dtype @ (DType::F32 | DType::Bf16) => {
                Ok(Self::AllReduce { dtype, shape: data.shape() })
            }
            got => Err(CommError::DType {
                op: "all_reduce",
                argument: "data",
                got,
                expected: "float32 or bfloat16",
            }),
        }
    }

    /// An all_gather of `input` from each of `world_size` ranks, if `output` has room for it.
    pub(crate) fn all_gather(
        input: View<'_>,
        output: View<'_>,
        world_size: usize,
    ) -> Result<Self, CommError> {
        let (dtype, shape) = (input.dtype(), input.shape());
        if output.dtype() != dtype {
            return Err(CommError::DType {
                op: "all_gather",
                argument: "output",
                got: output.dtype(),
                expected: dtype.name(),
            });
        }
        let fits = match output.shape().dims() {
            [first, rest @ ..] => *first == world_size && rest == shape.dims(),
            [] => false,
        };
        if !fits {
            let output = output.shape();
            return Err(CommError::GatherShape { input: shape, output, world_size });
        }
        Ok(Self::AllGather { dtype, shape })
    }

    /// A broadcast of `data` from `root`, if that is one of `world_size` ranks.
    pub(crate) fn broadcast(
        data: View<'_>,
        root: usize,
        world_size: usize,
    ) -> Result<Self, CommError> {
        if root >= world_size {
            return Err(CommError::Root { root, world_size });
        }
        Ok(Self::Broadcast { dtype: data.dtype(), shape: data.shape(), root })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllReduce { dtype, shape } => write!(f, "all_reduce({dtype} {shape})"),
            Self::AllGather { dtype, shape } => write!(f, "all_gather({dtype} {shape})"),
            Self::Broadcast { dtype, shape, root } => {
                write!(f, "broadcast({dtype} {shape}, root {root})")
            }
            Self::Barrier => write!(f, "barrier()"),
        }
    }
}
