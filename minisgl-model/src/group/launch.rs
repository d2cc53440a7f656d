//! From a checkpoint and options to a running group: decides sizes, then starts one thread per rank
//! and waits until all are ready. Knows every option; never a step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use minisgl_cache::KvPool;
use minisgl_comm::{AbortHandle, Communicator};
use minisgl_kernels::convert::CheckpointDType;
use minisgl_kernels::{DType, Device};
use minisgl_sched::SchedulerConfig;

use super::members::{Member, check_all_reduce, members};
use super::nodes::{JoinedNode, OtherNodes};
use super::placement::{self, RankSetup};
use super::worker::{Progress, RankThread, Report};
use super::{EngineLimits, LaunchObserver, RankGroup, Worker};
use crate::batch::BatchBuilder;
use crate::decoder::Decoder;
use crate::engine::{Engine, StepLimits};
use crate::memory::MemoryPlan;
use crate::weights::{Loader, SafetensorsFiles, Source};
use crate::{Checkpoint, DTypeChoice, EngineOptions, ModelConfig, ModelError};

/// Everything that is decided before a rank starts.
struct Decisions {
    config: ModelConfig,
    dtype: DType,
    limits: StepLimits,
    max_seq_len: usize,
    memory: MemoryPlan,
    source: Source,
    graph_sizes: Vec<usize>,
    gemm_cache: Option<PathBuf>,
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
        let config = ModelConfig::load(checkpoint)?;
        check_options(options)?;
        let devices = placement::devices(options, observer)?;
        check_all_reduce(&devices, options, observer)?;
        observer.initializing(options.tp_size.get(), matches!(devices[0], Device::Cuda(_)));
        if options.nodes.is_some() && matches!(devices[0], Device::Cuda(_)) {
            let problem = "several nodes compute on CPUs only so far: add --device cpu".to_owned();
            return Err(ModelError::Option { option: "--nnodes", problem });
        }
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
        let mut nodes = JoinedNode::join(checkpoint, options, &decided)?;
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
        let first_device = ranks[0].device.clone();
        let mut engine_limits = EngineLimits {
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
        let builder = || {
            BatchBuilder::new(
                options.page_size,
                options.max_running_requests,
                limits.max_pages_per_row,
                graph_sizes.clone(),
            )
        };
        let decisions = Decisions {
            config,
            dtype,
            limits,
            max_seq_len,
            memory,
            source,
            graph_sizes: graph_sizes.clone(),
            gemm_cache: options.gemm_cache.clone(),
        };
        let started = start(Arc::new(decisions), ranks, nodes, builder(), options, observer)?;
        if matches!(first_device, Device::Cuda(_)) {
            engine_limits.gpu_memory = Some(first_device.memory()?);
        }
        Ok(Self {
            builder: builder(),
            limits: engine_limits,
            workers: started.workers,
            reports: started.reports,
            in_flight: Default::default(),
            abort: started.abort,
            nodes: started.nodes,
            broken: None,
        })
    }
}

fn check_options(options: &EngineOptions) -> Result<(), ModelError> {
    for (option, value) in [
        ("--max-running-requests", options.max_running_requests),
        ("--max-prefill-length", options.max_prefill_tokens),
    ] {
        if !(1..=1 << 20).contains(&value) {
            let problem = format!("{value} is not allowed: use 1 to {}", 1 << 20);
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
            problem: "there are no kernels for float16: use bfloat16 or float32".to_owned(),
        }),
    }
}

fn max_seq_len(options: &EngineOptions, config: &ModelConfig) -> Result<usize, ModelError> {
    let longest = config.max_position_embeddings;
    match options.max_seq_len {
        None => Ok(longest),
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

/// A group whose ranks are ready.
struct Started {
    workers: Vec<Worker>,
    reports: Receiver<Report>,
    abort: AbortHandle,
    nodes: Option<OtherNodes>,
}

/// Starts the threads and waits until all ranks are ready: those of all nodes on node 0, and its own
/// on another.
fn start(
    decisions: Arc<Decisions>,
    ranks: Vec<RankSetup>,
    nodes: Option<JoinedNode>,
    builder: BatchBuilder,
    options: &EngineOptions,
    observer: &dyn LaunchObserver,
) -> Result<Started, ModelError> {
    let (world_size, num_local) = (ranks[0].shard.world_size, ranks.len());
    let follows = ranks[0].shard.rank > 0;
    let (members, unheard) = match nodes {
        None => {
            let devices: Vec<Device> = ranks.iter().map(|rank| rank.device.clone()).collect();
            (members(&devices, options, observer)?, None)
        }
        Some(nodes) => {
            let (members, unheard) = nodes.into_parts();
            let members = members.into_iter().map(|(comm, abort)| Member::of(comm, abort));
            (members.collect(), Some(unheard))
        }
    };
    let group = members[0].abort.clone();
    let (report, reports) = channel();
    let mut workers = Vec::new();
    for (setup, Member { connect, abort }) in ranks.into_iter().zip(members) {
        let rank = setup.shard.rank;
        let (work, receiver) = channel();
        let thread = RankThread { rank, work: receiver, reports: report.clone(), abort };
        let decisions = Arc::clone(&decisions);
        let run = move || thread.run(|reports| load(&decisions, setup, connect()?, reports));
        let thread = std::thread::Builder::new().name(format!("rank-{rank}")).spawn(run);
        let thread = thread.map_err(|source| ModelError::Thread { rank, source })?;
        workers.push(Worker { work: Some(work), thread: Some(thread) });
    }
    let work = workers.iter().filter_map(|worker| worker.work.clone()).collect();
    let nodes =
        unheard.map(|unheard| unheard.listen(&group, &report, work, builder)).transpose()?;
    drop(report);
    let awaited = if follows { num_local } else { world_size };
    await_ready(&decisions, awaited, world_size, &reports, observer)
        // The other nodes are to hear of a failure, not of a leave.
        .inspect_err(|error| group.abort(&error.to_string()))?;
    Ok(Started { workers, reports, abort: group, nodes })
}

fn await_ready(
    decisions: &Decisions,
    awaited: usize,
    world_size: usize,
    reports: &Receiver<Report>,
    observer: &dyn LaunchObserver,
) -> Result<(), ModelError> {
    let total = match &decisions.source {
        Source::Files(files) => files.total_bytes(),
        Source::Dummy => 0,
    };
    let (mut loaded, mut ready) = (0, 0);
    while ready < awaited {
        match reports.recv() {
            Ok(Report::Progress(progress)) => match progress {
                Progress::Loaded(bytes) => {
                    loaded += bytes;
                    observer.weights_loaded(loaded, total.max(loaded));
                }
                Progress::TuningGemms(num_shapes) => {
                    let file = decisions.gemm_cache.as_deref().unwrap_or(Path::new(""));
                    observer.tuning_gemms(num_shapes, file);
                }
                Progress::GemmsTuned(took) => observer.gemms_tuned(took),
                Progress::GraphsCaptured(count, took) => observer.graphs_captured(count, took),
            },
            Ok(Report::Ready { rank, unused_tensors }) => {
                ready += 1;
                if rank == 0 && !unused_tensors.is_empty() {
                    observer.warn(&unused_message(&unused_tensors));
                }
                observer.rank_ready(rank, world_size);
            }
            Ok(Report::Failed { error, .. }) => return Err(error),
            Ok(Report::Sampled(_)) | Err(_) => {
                let message = "ended before it was ready".to_owned();
                return Err(ModelError::Rank { rank: 0, message });
            }
        }
    }
    Ok(())
}

fn unused_message(names: &[String]) -> String {
    let shown = names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if names.len() > 3 { ", ..." } else { "" };
    format!("{} tensors of the checkpoint are not used: {shown}{more}", names.len())
}

/// In the rank's own thread: its weights, its pool, its engine.
fn load(
    decisions: &Decisions,
    setup: RankSetup,
    comm: Box<dyn Communicator>,
    reports: &Sender<Report>,
) -> Result<(Engine, Vec<String>), ModelError> {
    let RankSetup { shard, geometry, layout, device, attention } = setup;
    let Decisions { config, dtype, limits, max_seq_len, memory, source, graph_sizes, gemm_cache } =
        decisions;
    let stream = device.new_stream()?;
    // If nobody listens, this thread finds out later.
    let report = |progress| drop(reports.send(Report::Progress(progress)));
    // Of what all ranks do alike.
    let report_once = |progress| {
        if shard.rank == 0 {
            report(progress)
        }
    };
    let loaded = |bytes| report(Progress::Loaded(bytes));
    let loader = Loader::new(source, &stream, *dtype, &loaded);
    let decoder = Decoder::load(config, &shard, *max_seq_len, &loader, geometry, &device)?;
    let mut unused = loader.finish()?;
    if config.tie_word_embeddings {
        unused.retain(|name| name != "lm_head.weight"); // A copy of the embedding.
    }
    let pool = KvPool::new(&device, layout, memory.num_pages)?;
    let mut engine = Engine::new(stream, comm, decoder, pool, *limits, attention)?;
    if let Some(file) = gemm_cache {
        let mut begun = None;
        engine.tune(graph_sizes, file, |num_shapes| {
            begun = Some(Instant::now());
            report_once(Progress::TuningGemms(num_shapes));
        })?;
        if let Some(begun) = begun {
            report_once(Progress::GemmsTuned(begun.elapsed()));
        }
    }
    let begun = Instant::now();
    engine.capture(graph_sizes)?;
    if !graph_sizes.is_empty() {
        report_once(Progress::GraphsCaptured(graph_sizes.len(), begun.elapsed()));
    }
    Ok((engine, unused))
}
