//! The CPU backend: threads, vector instructions, and the ops on them.
//!
//! Never knows: whether an argument is right; the ops have checked before they dispatch here.
//!
//! Reading order: `simd` (one source, several instruction sets), `parallel` (dividing work), `dot`
//! (the register tile that matrix products and attention share), then an op per file.
//!
//! **Invariant:** a row of a result has the same bits whoever else is in the batch and however many
//! threads there are. Every sum has a fixed order, which no tiling and no division of work changes.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod fp8;
pub(crate) mod gather;
pub(crate) mod gemm;
pub(crate) mod moe;
pub(crate) mod norm;
pub(crate) mod pointwise;
pub(crate) mod rope;
pub(crate) mod sampling;
pub(crate) mod transfer;

mod dot;
mod math;
mod parallel;
mod simd;

use std::num::NonZeroUsize;
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::Error;
use simd::Isa;

pub use simd::InstructionSet;

/// The host's processor: a set of threads and an instruction set.
#[derive(Clone, Debug)]
pub struct CpuDevice {
    // None if there is one thread: then ops run on the thread that calls them.
    pool: Option<Arc<ThreadPool>>,
    isa: Isa,
}

impl CpuDevice {
    pub(crate) fn new(
        num_threads: NonZeroUsize,
        instruction_set: InstructionSet,
    ) -> Result<Self, Error> {
        let isa = Isa::new(instruction_set).ok_or_else(|| {
            Error::Unavailable(format!("this CPU does not have the {instruction_set} instructions"))
        })?;
        let num_threads = num_threads.get();
        if num_threads == 1 {
            return Ok(Self { pool: None, isa });
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(num_threads)
            .thread_name(|index| format!("minisgl-cpu-{index}"))
            .build()
            .map_err(|error| Error::Threads {
                num_threads,
                source: std::io::Error::other(error),
            })?;
        Ok(Self { pool: Some(Arc::new(pool)), isa })
    }

    /// How many threads ops run on.
    pub fn num_threads(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    /// The instruction set ops use.
    pub fn instruction_set(&self) -> InstructionSet {
        self.isa.set()
    }

    pub(crate) fn description(&self) -> String {
        let num_threads = self.num_threads();
        let plural = if num_threads == 1 { "" } else { "s" };
        format!("cpu ({num_threads} thread{plural}, {})", self.instruction_set())
    }

    /// Runs `work` on one of the device's threads, or here if there is only one.
    pub(crate) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    fn isa(&self) -> Isa {
        self.isa
    }
}
