//! Ranks and collectives for tensor parallelism.
//!
//! Never knows: models, requests or what a buffer means. It moves and sums arrays.
//!
//! A group of ranks computes one model together: each rank holds a shard of the weights, and where
//! a layer needs the whole of something, all ranks call the same collective of [`Communicator`].
//! [`SingleRank`] is a group of one; [`thread_group`] makes a group of ranks in this process, one
//! per thread; [`nodes::Node`] joins those of several processes.
//!
//! # Reading order
//! 1. [`Communicator`]: what every kind of rank can do, and what callers must keep to.
//! 2. `rendezvous`: where ranks wait for each other, compare their calls and learn of an abort.
//! 3. [`ThreadRank`]: the collectives over shared memory.
//! 4. `staging` and `blocks`: the buffers they use, and how large arrays are cut to fit.
//! 5. [`nodes`]: groups over several processes.
//! 6. [`nccl`], [`peers`]: ranks on GPUs.
//!
//! **Invariants:** every rank gets the same bits, and they do not depend on who arrived when. No
//! rank waits for ever for one that failed, panicked, left, or called something else: the group is
//! aborted, and every rank gets [`CommError::Aborted`] with the first reason.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use minisgl_comm::{Communicator, thread_group};
//! use minisgl_kernels::{Device, Tensor};
//!
//! let sums = std::thread::scope(|scope| {
//!     let ranks: Vec<_> = thread_group(2)?
//!         .into_iter()
//!         .map(|rank| {
//!             scope.spawn(move || {
//!                 let device = Device::cpu(NonZeroUsize::MIN)?;
//!                 let stream = device.new_stream()?;
//!                 let mut data = Tensor::from_slice(&device, [2], &[rank.rank() as f32, 1.0])?;
//!                 rank.all_reduce(&stream, data.view_mut())?;
//!                 Ok::<_, minisgl_comm::CommError>(data.to_vec::<f32>()?)
//!             })
//!         })
//!         .collect();
//!     ranks.into_iter().map(|rank| rank.join().unwrap()).collect::<Result<Vec<_>, _>>()
//! })?;
//! assert_eq!(sums, [[1.0, 2.0], [1.0, 2.0]]);
//! # Ok::<(), minisgl_comm::CommError>(())
//! ```

mod blocks;
mod call;
mod communicator;
mod error;
pub mod nccl;
pub mod nodes;
pub mod peers;
mod rendezvous;
mod single;
mod staging;
mod threads;

pub use communicator::Communicator;
pub use error::CommError;
pub use rendezvous::AbortHandle;
pub use single::SingleRank;
pub use threads::{ThreadRank, thread_group};
