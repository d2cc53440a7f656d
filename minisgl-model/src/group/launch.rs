//! From a checkpoint and options to everything that must be known before ranks start: sizes, devices
//! and what the nodes agree on. Knows every option; never a thread or a step.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use minisgl_comm::nccl::NcclLibrary;
use minisgl_kernels::convert::CheckpointDType;
use minisgl_kernels::{DType, Device};
use minisgl_sched::SchedulerConfig;

use super::members::{Member, check_all_reduce, load_nccl, members};
use super::nodes::{JoinedNode, Unheard};
use super::placement::{self, RankSetup};
use super::{EngineLimits, LaunchObserver, RankGroup};
use crate::engine::StepLimits;
use crate::memory::MemoryPlan;
use crate::weights::{SafetensorsFiles, Source};
use crate::{Checkpoint, DTypeChoice, EngineOptions, ModelConfig, ModelError, StepClock};

/// More than any machine has cores.
const MAX_CPU_THREADS: usize = 1024;

/// What the ranks must know to load.
pub(super) struct Decisions {
    pub(super) config: ModelConfig,
    pub(super) dtype: DType,
    pub(super) limits: StepLimits,
    pub(super) max_seq_len: usize,
    pub(super) memory: MemoryPlan,
    pub(super) source: Source,
    pub(super) graph_sizes: Vec<usize>,
    pub(super) gemm_cache: Option<PathBuf>,
    pub(super) step_clock: Option<StepClock>,
}

/// A group that is decided and not started: see [`Launch::start`].
pub(super) struct Launch {
    pub(super) decisions: Decisions,
    pub(super) ranks: Vec<RankSetup>,
    pub(super) limits: EngineLimits,
    /// What ranks on GPUs meet through, if they need it.
    nccl: Option<Arc<NcclLibrary>>,
}

impl RankGroup {
    /// Loads a model and starts its ranks.
    ///
    /// # Errors
    /// [`ModelError`] that says what is wrong with the checkpoint, an option, or a rank.
    pub fn launch(
        checkpoint: &Checkpoint,
        options: &EngineOptions,
        observer: &dyn LaunchObserver,
    ) -> Result<Self, ModelError> {
        if let Some(nodes) = options.nodes.as_ref().filter(|nodes| nodes.node != 0) {
            let problem = format!("{} follows node 0, and has no requests of its own", nodes.node);
            return Err(ModelError::Option { option: "--node-rank", problem });
        }
        Self::launch_node(checkpoint, options, observer)
    }

    /// As [`RankGroup::launch`], on any node.
    pub(super) fn launch_node(
        checkpoint: &Checkpoint,
        options: &EngineOptions,
        observer: &dyn LaunchObserver,
    ) -> Result<Self, ModelError> {
        let (launch, nodes) = Launch::decide(checkpoint, options, observer)?;
        let (members, unheard) = launch.members(nodes, options, observer)?;
        launch.start(members, unheard, options, observer)
    }
}

impl Launch {
    /// Decides it, together with the other nodes if there are any.
    pub(super) fn decide(
        checkpoint: &Checkpoint,
        options: &EngineOptions,
        observer: &dyn LaunchObserver,
    ) -> Result<(Self, Option<JoinedNode>), ModelError> {
        let config = ModelConfig::load(checkpoint)?;
        check_options(options)?;
        let devices = placement::devices(options, observer)?;
        check_all_reduce(&devices, options, observer)?;
        observer.initializing(options.tp_size.get(), matches!(devices[0], Device::Cuda(_)));
        let nccl = load_nccl(&devices, options)?;
        let dtype = dtype(options.dtype, config.dtype, &devices[0], observer)?;
        let max_seq_len = max_seq_len(options, &config)?;
        let limits = StepLimits {
            // Chunks of prompts, and one token of every request that decodes.
            max_tokens: options.max_prefill_tokens.min(max_seq_len * options.max_running_requests)
                + options.max_running_requests,
            max_sequences: options.max_running_requests,
            max_pages_per_row: options.page_size.pages_for(max_seq_len),
            page_size: options.page_size.get(),
            vocab_size: config.vocab_size,
        };
        check_page_table(&limits)?;
        let graph_sizes = placement::graph_sizes(options, &devices, observer)?;
        let ranks = placement::ranks(&config, options, &limits, dtype, devices)?;
        let mut memory = placement::memory(&config, options, &limits, max_seq_len, &ranks)?;
        let decided = [
            ("device", kind(&ranks[0].device).to_owned()),
            ("--dtype", dtype.name().to_owned()),
            ("--quantization", options.quantization.name().to_owned()),
            ("--kv-cache-dtype", options.kv_cache_dtype.name().to_owned()),
            ("--max-seq-len-override", max_seq_len.to_string()),
            ("--attn", ranks[0].attention.to_string()),
            ("--cuda-graph-max-bs", format!("{graph_sizes:?}")),
        ];
        let mut nodes = JoinedNode::join(checkpoint, options, &decided, nccl.clone())?;
        if let Some(nodes) = &mut nodes {
            let page_bytes = memory.kv_bytes / memory.num_pages;
            memory.num_pages = nodes.agree(memory.num_pages)?;
            memory.kv_bytes = memory.num_pages * page_bytes;
        }
        let source = if options.dummy_weights {
            Source::Dummy
        } else {
            Source::Files(SafetensorsFiles::open(checkpoint)?)
        };
        let engine_limits = EngineLimits {
            scheduler: SchedulerConfig {
                num_pages: memory.num_pages,
                page_size: options.page_size,
                cache: options.cache,
                max_running_requests: options.max_running_requests,
                max_prefill_tokens: options.max_prefill_tokens,
                max_seq_len,
            },
            vocab_size: config.vocab_size,
            context_len: max_seq_len.min(memory.num_pages * options.page_size.get()),
            eos_token_ids: config.eos_token_ids.clone(),
            tp_size: options.tp_size.get(),
            dtype: dtype.name(),
            quantization: options.quantization,
            kv_cache_dtype: options.kv_cache_dtype,
            step_weight_bytes: ranks
                .iter()
                .map(|rank| rank.geometry.step_weight_bytes(&config))
                .sum(),
            kv_bytes_per_token: ranks.iter().map(|rank| rank.layout.bytes_per_token()).sum(),
            attention: ranks[0].attention,
            graph_sizes: graph_sizes.clone(),
            device: ranks[0].device.description(),
            memory,
            gpu_memory: None,
            num_parameters: config.num_parameters(),
            architecture: config.architecture.name(),
        };
        let decisions = Decisions {
            config,
            dtype,
            limits,
            max_seq_len,
            memory,
            source,
            graph_sizes,
            gemm_cache: options.gemm_cache.clone(),
            step_clock: options.step_clock.clone(),
        };
        Ok((Self { decisions, ranks, limits: engine_limits, nccl }, nodes))
    }

    /// How each rank of this process reaches the others, and the links to other nodes.
    pub(super) fn members(
        &self,
        nodes: Option<JoinedNode>,
        options: &EngineOptions,
        observer: &dyn LaunchObserver,
    ) -> Result<(Vec<Member>, Option<Unheard>), ModelError> {
        let devices: Vec<Device> = self.ranks.iter().map(|rank| rank.device.clone()).collect();
        let Some(nodes) = nodes else {
            return Ok((members(&devices, options, self.nccl.clone(), observer)?, None));
        };
        let (members, unheard) = nodes.into_parts(&devices)?;
        Ok((members, Some(unheard)))
    }
}

fn check_options(options: &EngineOptions) -> Result<(), ModelError> {
    for (option, value, max) in [
        ("--max-running-requests", options.max_running_requests, 1 << 20),
        ("--max-prefill-length", options.max_prefill_tokens, 1 << 20),
        ("--cpu-threads", options.cpu_threads.map_or(1, NonZeroUsize::get), MAX_CPU_THREADS),
    ] {
        if !(1..=max).contains(&value) {
            let problem = format!("{value} is not allowed: use 1 to {max}");
            return Err(ModelError::Option { option, problem });
        }
    }
    Ok(())
}

/// Refuses more entries of the page table than a kernel's 32-bit index counts.
fn check_page_table(limits: &StepLimits) -> Result<(), ModelError> {
    let entries = limits.max_sequences.checked_mul(limits.max_pages_per_row);
    if entries.is_some_and(|entries| i32::try_from(entries).is_ok()) {
        return Ok(());
    }
    let problem = format!(
        "{} with {} pages each is more than the 2^31 - 1 entries of a page table: lower it, or \
         raise --page-size",
        limits.max_sequences, limits.max_pages_per_row
    );
    Err(ModelError::Option { option: "--max-running-requests", problem })
}

fn dtype(
    choice: DTypeChoice,
    checkpoint: CheckpointDType,
    device: &Device,
    observer: &dyn LaunchObserver,
) -> Result<DType, ModelError> {
    match (choice, checkpoint) {
        (DTypeChoice::Auto, CheckpointDType::F16) if matches!(device, Device::Cuda(_)) => {
            observer.warn("computing in bfloat16, since there are no kernels for float16");
            Ok(DType::Bf16)
        }
        (DTypeChoice::Float32, _) | (DTypeChoice::Auto, CheckpointDType::F32) => Ok(DType::F32),
        (DTypeChoice::Bfloat16, _) | (DTypeChoice::Auto, CheckpointDType::Bf16) => Ok(DType::Bf16),
        (DTypeChoice::Auto, CheckpointDType::F16) => {
            observer.warn("the CPU does not compute in float16: using float32");
            Ok(DType::F32)
        }
        (DTypeChoice::Float16, _) => Err(ModelError::Option {
            option: "--dtype",
            problem: "float16 is not allowed: there are no kernels for float16; use bfloat16 or \
                      float32"
                .to_owned(),
        }),
    }
}

fn max_seq_len(options: &EngineOptions, config: &ModelConfig) -> Result<usize, ModelError> {
    let longest = config.max_positions();
    match options.max_seq_len {
        None => Ok(config.context_len()),
        Some(len) if (1..=longest).contains(&len) => Ok(len),
        Some(len) => Err(ModelError::Option {
            option: "--max-seq-len-override",
            problem: format!("{len} is not allowed: the model has 1 to {longest} positions"),
        }),
    }
}

/// What all nodes must have the same of.
fn kind(device: &Device) -> &'static str {
    match device {
        Device::Cpu(_) => "CPU",
        Device::Cuda(_) => "GPU",
    }
}
