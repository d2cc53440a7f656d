//! Which device each rank computes on, and what every device's ranks need of its memory.
//! Knows options and devices; never a step.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use minisgl_cache::KvLayout;
use minisgl_comm::peers::share_a_gpu;
use minisgl_kernels::Device;
use minisgl_kernels::cuda::CudaLibraries;

use crate::decoder::Geometry;
use crate::engine::{PhaseBackends, StepLimits};
use crate::memory::{self, MemoryPlan};
use crate::quantization;
use crate::shard::Shard;
use crate::{DeviceChoice, EngineOptions, LaunchObserver, ModelConfig, ModelError};

/// One rank's own share of the decisions.
pub(super) struct RankSetup {
    pub(super) shard: Shard,
    pub(super) geometry: Geometry,
    pub(super) layout: KvLayout,
    pub(super) device: Device,
    pub(super) attention: PhaseBackends,
}

/// One device per rank.
pub(crate) fn devices(
    options: &EngineOptions,
    observer: &dyn LaunchObserver,
) -> Result<Vec<Device>, ModelError> {
    let libraries = match options.device {
        DeviceChoice::Cpu => None,
        DeviceChoice::Cuda => Some(CudaLibraries::load(&options.libraries)?),
        DeviceChoice::Auto => match CudaLibraries::load(&options.libraries) {
            Ok(libraries) => Some(libraries),
            Err(reason) => {
                if minisgl_kernels::cuda::has_driver() {
                    observer
                        .warn(&format!("computing on the CPU although there is a GPU: {reason}"));
                }
                None
            }
        },
    };
    let num_ranks = options.local_ranks()?.len();
    let Some(libraries) = libraries else { return cpus(options) };
    let ordinals = match &options.gpus {
        None => (0..num_ranks).collect(),
        Some(gpus) if gpus.len() == num_ranks => gpus.clone(),
        Some(gpus) => {
            let problem = format!("{} GPUs for {num_ranks} ranks: name one for each", gpus.len());
            return Err(ModelError::Option { option: "--devices", problem });
        }
    };
    let mut opened: BTreeMap<usize, Device> = BTreeMap::new();
    let open = |ordinal: usize| match opened.get(&ordinal) {
        Some(device) => Ok(device.clone()),
        None => {
            let device = Device::cuda(ordinal, &libraries)?;
            opened.insert(ordinal, device.clone());
            Ok(device)
        }
    };
    ordinals.into_iter().map(open).collect()
}

fn cpus(options: &EngineOptions) -> Result<Vec<Device>, ModelError> {
    if let Some(gpus) = &options.gpus {
        let gpus: Vec<String> = gpus.iter().map(usize::to_string).collect();
        let problem = format!("{} is not allowed: the ranks are on the CPU", gpus.join(","));
        return Err(ModelError::Option { option: "--devices", problem });
    }
    let num_ranks = options.local_ranks()?.len();
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = options.cpu_threads.unwrap_or(cores).get() / num_ranks;
    let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
    (0..num_ranks).map(|_| Ok(Device::cpu(threads)?)).collect()
}

/// The ranks with their shares of the model.
pub(super) fn ranks(
    config: &ModelConfig,
    options: &EngineOptions,
    limits: &StepLimits,
    dtype: minisgl_kernels::DType,
    devices: Vec<Device>,
) -> Result<Vec<RankSetup>, ModelError> {
    let (world_size, local_ranks) = (options.tp_size.get(), options.local_ranks()?);
    let rank = |(rank, device): (usize, Device)| {
        let shard = Shard::new(config, rank, world_size)?;
        let geometry = quantization::geometry(config, options, &shard, dtype, &device)?;
        let layout = KvLayout {
            num_layers: config.num_layers,
            num_kv_heads: shard.kv_heads.len(),
            head_dim: config.head_dim,
            dtype: geometry.kv_dtype,
            page_size: options.page_size,
        };
        let choice = options.attention;
        let attention = PhaseBackends::resolve(choice, &device, config, &geometry, limits)?;
        Ok(RankSetup { shard, geometry, layout, device, attention })
    };
    local_ranks.zip(devices).map(rank).collect()
}

/// The memory of all ranks: each device holds its own ranks, and all have as many pages as the
/// device with the least room.
pub(super) fn memory(
    config: &ModelConfig,
    options: &EngineOptions,
    limits: &StepLimits,
    max_positions: usize,
    ranks: &[RankSetup],
) -> Result<MemoryPlan, ModelError> {
    // All ranks of the CPU share its memory.
    let mut by_device: BTreeMap<Option<usize>, Vec<&RankSetup>> = BTreeMap::new();
    for rank in ranks {
        let ordinal = match &rank.device {
            Device::Cpu(_) => None,
            Device::Cuda(device) => Some(device.ordinal()),
        };
        by_device.entry(ordinal).or_default().push(rank);
    }
    let mut least: Option<MemoryPlan> = None;
    for ranks in by_device.values() {
        let device = &ranks[0].device;
        let sizes: Vec<(Geometry, KvLayout)> =
            ranks.iter().map(|rank| (rank.geometry, rank.layout)).collect();
        let mut workspaces = 0;
        for rank in ranks {
            workspaces += rank.attention.bytes(device, &rank.geometry, limits)?;
        }
        let plan =
            memory::plan(config, options, limits, &sizes, workspaces, max_positions, device)?;
        if least.as_ref().is_none_or(|least| plan.num_pages < least.num_pages) {
            least = Some(plan);
        }
    }
    least.ok_or_else(|| ModelError::Option {
        option: "--tensor-parallel-size",
        problem: "there must be at least one rank".to_owned(),
    })
}

/// Sizes of decode batches that are captured as graphs: fine steps, so that little is computed for
/// nobody.
pub(super) fn graph_sizes(
    options: &EngineOptions,
    devices: &[Device],
    observer: &dyn LaunchObserver,
) -> Result<Vec<usize>, ModelError> {
    /// GPUs with less memory spend it on KV pages rather than on graphs.
    const LARGE_BYTES: u64 = 80_000_000_000;
    let device = &devices[0];
    let why_none = match device {
        Device::Cpu(_) => Some("on a CPU"),
        Device::Cuda(_) if share_a_gpu(devices) => Some("while ranks share a GPU"),
        Device::Cuda(_) => None,
    };
    if let Some(why) = why_none {
        if options.cuda_graph_max_bs.is_some_and(|most| most > 0) {
            observer.warn(&format!("--cuda-graph-max-bs does nothing: there are no graphs {why}"));
        }
        return Ok(Vec::new());
    }
    let most = match options.cuda_graph_max_bs {
        Some(most) => most,
        None if device.memory()?.total_bytes >= LARGE_BYTES => 256,
        None => 160,
    };
    let most = most.min(options.max_running_requests);
    let mut sizes: Vec<usize> = [1, 2, 4].into_iter().chain((8..=most).step_by(8)).collect();
    sizes.retain(|size| *size < most);
    sizes.extend((most > 0).then_some(most));
    Ok(sizes)
}
