//! From a step plan to next tokens.
//!
//! A [`Checkpoint`] names Hugging Face files; [`ModelConfig`] is what its `config.json` says; a
//! [`RankGroup`] loads the weights, sharded over tensor-parallel ranks, one thread each, and
//! executes the scheduler's plans ([`minisgl_sched::Executor`]).
//!
//! Never knows: text, requests' lives, the network. It sees token ids and plans.
//!
//! # Reading order
//! 1. [`config`], [`arch`]: what a checkpoint is, and which parts of a decoder it uses.
//! 2. [`shard`], [`weights`]: which rank holds which rows and columns; reading just those.
//! 3. [`decoder`]: the forward pass.
//! 4. [`sampler`]: from logits, sharded over the vocabulary, to tokens.
//! 5. [`engine`], [`group`]: one rank; all ranks.
//!
//! **Invariants:** all ranks execute the same plans in the same order and sample the same tokens.
//! On the CPU, what a request generates has the same bits whatever else is in the batch.
#![forbid(unsafe_code)]

pub mod arch;
pub mod bandwidth;
pub mod batch;
pub mod checkpoint;
pub mod comm_bench;
pub mod config;
pub mod decoder;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod group;
pub mod kernel_bench;
pub mod memory;
pub mod options;
pub mod presets;
mod quantization;
pub mod rope;
pub mod sampler;
pub mod shard;
pub mod step_clock;
pub mod weights;

pub use bandwidth::device_bandwidth;
pub use checkpoint::Checkpoint;
pub use config::ModelConfig;
pub use doctor::{Finding, doctor};
pub use error::ModelError;
pub use group::{EngineLimits, LaunchObserver, RankGroup, RunningRanks};
pub use minisgl_comm::AbortHandle;
pub use minisgl_comm::nodes::{NodeConfig, Secret};
pub use minisgl_kernels::cuda::LibrarySearch;
pub use options::{
    AllReduceChoice, AttentionChoice, DTypeChoice, DeviceChoice, EngineOptions, KvCacheDType,
    QuantizationChoice,
};
pub use presets::preset;
pub use step_clock::StepClock;
