//! All ranks: those of this process, one thread each, fed by a channel with the batch of every step;
//! and those of other nodes, which get the plan. Implements the scheduler's [`Executor`]. If one rank
//! fails, all do, at once and for good.
//!
//! Never knows requests; it passes plans down and samples up.

mod launch;
mod members;
mod nodes;
mod placement;
mod start;
mod wire;
mod worker;
mod workers;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use minisgl_comm::AbortHandle;
use minisgl_kernels::MemoryInfo;
use minisgl_sched::{Executor, SchedulerConfig, StepId, StepOutput, StepPlan, Ticket};

pub(crate) use self::members::{Connect, connect_all};
use self::nodes::OtherNodes;
pub(crate) use self::placement::devices;
use self::worker::{Report, Work};
pub use self::workers::RunningRanks;
use self::workers::Workers;
use crate::batch::BatchBuilder;
use crate::engine::PhaseBackends;
use crate::memory::MemoryPlan;
use crate::{KvCacheDType, ModelError, QuantizationChoice};

/// What a launched group can do; all fixed at start.
#[derive(Clone, Debug)]
pub struct EngineLimits {
    /// For [`minisgl_sched::Scheduler::new`].
    pub scheduler: SchedulerConfig,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Tokens of one request, prompt and output.
    pub context_len: usize,
    /// Token ids that end an output, by `config.json`.
    pub eos_token_ids: Vec<u32>,
    /// Ranks.
    pub tp_size: usize,
    /// Element type of weights and activations.
    pub dtype: &'static str,
    /// What became of the weights of projections.
    pub quantization: QuantizationChoice,
    /// Element type of keys and values in the KV pool.
    pub kv_cache_dtype: KvCacheDType,
    /// The device of each rank.
    pub device: String,
    /// Bytes of weights that a step reads, of all ranks: all but an input embedding of its own.
    pub step_weight_bytes: usize,
    /// Attention kernels.
    pub attention: PhaseBackends,
    /// Decode batches that are captured as graphs.
    pub graph_sizes: Vec<usize>,
    /// Bytes of K and V of one token, of all ranks.
    pub kv_bytes_per_token: usize,
    /// Where the memory goes.
    pub memory: MemoryPlan,
    /// The memory of the first rank's GPU once all ranks are ready; `None` on CPUs.
    pub gpu_memory: Option<MemoryInfo>,
    /// Parameters of the model.
    pub num_parameters: usize,
    /// The architecture's name in `config.json`.
    pub architecture: &'static str,
}

impl EngineLimits {
    /// The formats of numbers in words, such as `bfloat16 with projections in fp8 and KV in fp8_e4m3`.
    pub fn number_formats(&self) -> String {
        let mut others = Vec::new();
        if self.quantization != QuantizationChoice::None {
            others.push(format!("projections in {}", self.quantization.name()));
        }
        if self.kv_cache_dtype != KvCacheDType::Auto {
            others.push(format!("KV in {}", self.kv_cache_dtype.name()));
        }
        match others.as_slice() {
            [] => self.dtype.to_owned(),
            others => format!("{} with {}", self.dtype, others.join(" and ")),
        }
    }
}

/// Hears how a launch gets on. Called from the launching thread.
pub trait LaunchObserver {
    /// The devices are known; weights come next.
    fn initializing(&self, world_size: usize, on_gpus: bool) {
        let _ = (world_size, on_gpus);
    }

    /// `rank` of `world_size` has its weights and memory.
    fn rank_ready(&self, rank: usize, world_size: usize);

    /// `bytes` of about `total` bytes of the checkpoint are read.
    fn weights_loaded(&self, bytes: u64, total: u64);

    /// Which sums over ranks go through the GPUs' own memory, and how: what was measured.
    fn sums_measured(&self, found: &str) {
        let _ = found;
    }

    /// How to multiply matrices of `num_shapes` shapes is not known yet and will be measured, which
    /// may take a minute; `file` keeps what comes out.
    fn tuning_gemms(&self, num_shapes: usize, file: &Path) {
        let _ = (num_shapes, file);
    }

    /// That took so long.
    fn gemms_tuned(&self, took: Duration) {
        let _ = took;
    }

    /// Each rank has `count` CUDA graphs, which took so long.
    fn graphs_captured(&self, count: usize, took: Duration) {
        let _ = (count, took);
    }

    /// Something that works but should be known.
    fn warn(&self, message: &str);
}

/// See the [module](self).
#[derive(Debug)]
pub struct RankGroup {
    limits: EngineLimits,
    builder: BatchBuilder,
    reports: Receiver<Report>,
    in_flight: VecDeque<StepId>,
    abort: AbortHandle,
    nodes: Option<OtherNodes>,
    workers: Workers,
    step_timeout: Duration,
    /// Why the group is gone.
    broken: Option<Failure>,
}

#[derive(Clone, Debug)]
enum Failure {
    /// Of a rank, or of what stands for it.
    Rank(usize, String),
    /// A step took too long, and these ranks do not even end.
    StepTimeout(Vec<usize>),
}

impl RankGroup {
    /// What it can do.
    pub fn limits(&self) -> &EngineLimits {
        &self.limits
    }

    /// Which ranks of this process still have a thread; for when the group is gone.
    pub fn running_ranks(&self) -> RunningRanks {
        self.workers.running().clone()
    }

    /// Ends the group from anywhere: for a watchdog.
    pub fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }

    /// The samples of the oldest step; the first failure breaks the group, and so does a step that
    /// takes too long.
    fn next_samples(&mut self) -> Result<StepOutput, ModelError> {
        let begun = Instant::now();
        while self.broken.is_none() {
            let left = self.step_timeout.saturating_sub(begun.elapsed());
            self.broken = match self.reports.recv_timeout(left) {
                Ok(Report::Sampled(output)) => return Ok(output),
                Ok(Report::Failed { rank, error }) => Some(Failure::Rank(rank, error.to_string())),
                Ok(Report::Progress(_) | Report::Ready { .. }) => None,
                Err(RecvTimeoutError::Timeout) => Some(self.give_up()),
                Err(RecvTimeoutError::Disconnected) => {
                    Some(Failure::Rank(0, "all ranks are gone".to_owned()))
                }
            };
        }
        Err(self.failure())
    }

    /// A step takes too long. The abort wakes the ranks that only wait for another one, here and on
    /// other nodes; those that do not end then are at fault.
    fn give_up(&mut self) -> Failure {
        let error = self.step_timeout_error(Vec::new());
        self.abort.abort(&error.to_string());
        Failure::StepTimeout(self.workers.who_hangs())
    }

    /// Breaks the group for what `error` says, unless it is broken.
    fn fail(&mut self, rank: usize, error: &str) -> ModelError {
        self.broken.get_or_insert_with(|| Failure::Rank(rank, error.to_owned()));
        self.failure()
    }

    fn failure(&self) -> ModelError {
        match self.broken.clone() {
            Some(Failure::Rank(rank, message)) => ModelError::Rank { rank, message },
            Some(Failure::StepTimeout(ranks)) => self.step_timeout_error(ranks),
            None => ModelError::Rank { rank: 0, message: "ended".to_owned() },
        }
    }

    fn step_timeout_error(&self, ranks: Vec<usize>) -> ModelError {
        let seconds = self.step_timeout.as_secs_f64();
        let (what, option) = ("a step takes longer than", "--watchdog-timeout");
        ModelError::Timeout { what, option, seconds, ranks }
    }
}

impl Executor for RankGroup {
    type Error = ModelError;

    fn submit(&mut self, plan: Arc<StepPlan>) -> Result<Ticket, ModelError> {
        if self.broken.is_some() {
            return Err(self.failure());
        }
        if let Some(Err(error)) = self.nodes.as_ref().map(|nodes| nodes.submit(&plan)) {
            // That the link is gone may be but the echo of what a rank has reported.
            self.abort.abort(&error.to_string());
            self.check()?;
            return Err(self.fail(0, &error.to_string()));
        }
        let batch = Arc::new(self.builder.build(&plan));
        for channel in self.workers.work() {
            let work = Work { step: plan.step, batch: Arc::clone(&batch) };
            if channel.send(work).is_err() {
                // The thread is gone; it has said why, unless it could not even do that.
                return Err(match self.next_samples() {
                    Err(error) => error,
                    Ok(_) => self.failure(),
                });
            }
        }
        self.in_flight.push_back(plan.step);
        Ok(Ticket(plan.step))
    }

    fn wait(&mut self, ticket: Ticket) -> Result<StepOutput, ModelError> {
        assert_eq!(self.in_flight.pop_front(), Some(ticket.0), "steps are waited for in order");
        self.next_samples()
    }

    fn on_failure(&mut self, notify: Box<dyn FnOnce() + Send>) {
        self.abort.on_abort(move |_| notify());
    }

    fn check(&mut self) -> Result<(), ModelError> {
        while self.broken.is_none() {
            match self.reports.try_recv() {
                Ok(Report::Failed { rank, error }) => {
                    return Err(self.fail(rank, &error.to_string()));
                }
                Ok(Report::Progress(_) | Report::Ready { .. } | Report::Sampled(_)) => {}
                Err(TryRecvError::Disconnected) => return Err(self.fail(0, "all ranks are gone")),
                Err(TryRecvError::Empty) => match self.abort.reason() {
                    Some(reason) => return Err(self.fail(0, &reason)),
                    None => return Ok(()),
                },
            }
        }
        Err(self.failure())
    }
}

impl Drop for RankGroup {
    fn drop(&mut self) {
        // The other nodes are to hear of a failure, not of a leave.
        if self.broken.is_some() {
            self.abort.abort(&self.failure().to_string());
        }
        // Goodbyes come first: after them, that ranks leave is no failure to other nodes.
        self.nodes = None;
        // Then the threads end, by the drop of `workers`.
    }
}

#[cfg(test)]
mod tests;
