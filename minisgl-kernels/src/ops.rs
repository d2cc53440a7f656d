//! The ops: functions that check their arguments once and then run on the stream's device.
//!
//! Never knows: how a device computes them; what they compute is defined by
//! [`reference`](mod@crate::reference).
//!
//! # Conventions
//! - `T` is f32 or bf16, the same for all arguments that say `T`. Sums are kept in f32.
//! - The outermost dimension of an argument may be strided (columns of a larger array); the
//!   dimensions inside it must be dense. Vectors must be contiguous.
//! - An argument of another dtype, shape or layout is [`Error::DType`](crate::Error::DType),
//!   [`Error::Rank`](crate::Error::Rank), [`Error::Shape`](crate::Error::Shape) or
//!   [`Error::Layout`](crate::Error::Layout), and nothing has been written. The docs of each op
//!   list only the errors beyond these.
//! - Elements of index tables are checked on the CPU
//!   ([`Error::Index`](crate::Error::Index)), also before anything is written. A GPU skips what an
//!   element out of range would have read or written; then the output there is unspecified.
//! - Arguments of a stream of a GPU must be memory of that GPU
//!   ([`Error::OtherDevice`](crate::Error::OtherDevice)). Pools, rotation tables and the weights of
//!   experts must have no gaps there ([`Error::Layout`](crate::Error::Layout)).
//! - Zero rows (no tokens) are fine and do nothing.
//! - Ops are queued on the stream; on the CPU they are done when they return. On a GPU a driver
//!   call that fails is [`Error::Device`](crate::Error::Device); what fails later shows when the
//!   stream is waited for.

mod activation;
mod attention;
pub(crate) mod check;
mod embedding;
mod few_rows;
pub mod fp8;
mod gather;
mod gemm;
mod kv;
pub mod moe;
mod norm;
mod pointwise;
mod rope;
mod rope_store;
pub mod sampling;
pub mod tuning;

pub use activation::silu_and_mul;
pub use attention::{
    Attention, AttentionBackend, AttentionConfig, AttentionParams, HostBatch, PagedKv, VarlenBatch,
    paged_attention,
};
pub use embedding::embedding;
pub use few_rows::{few_rows, gemm_add, norm_gemm, norm_gemm_silu};
pub use gather::{gather_ids, gather_rows, scatter_ids};
pub use gemm::gemm;
pub use kv::store_kv;
pub use norm::{add_rms_norm, rms_norm};
pub use pointwise::{add, copy, reduce_sum};
pub use rope::{QkNorm, qk_norm_rope};
pub use rope_store::{KvStore, qk_norm_rope_store};
