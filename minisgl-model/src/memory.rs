//! How many KV pages fit: weights and the memory for one step come first, KV pages take what the
//! memory ratio leaves. Knows sizes; allocates nothing.

use minisgl_cache::KvLayout;
use minisgl_kernels::Device;

use crate::batch::StepInputs;
use crate::decoder::{Activations, Geometry};
use crate::engine::StepLimits;
use crate::sampler::Sampler;
use crate::{EngineOptions, ModelConfig, ModelError};

/// The share of free memory used unless told otherwise: on a CPU others live there too.
const DEFAULT_CPU_RATIO: f64 = 0.5;
const DEFAULT_GPU_RATIO: f64 = 0.9;

/// Where one device's memory goes, in bytes; all ranks of that device together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryPlan {
    /// Weights.
    pub weight_bytes: usize,
    /// Activations, logits, tables and workspaces.
    pub step_bytes: usize,
    /// The KV pool.
    pub kv_bytes: usize,
    /// Pages in it.
    pub num_pages: usize,
}

/// The share of memory that `options` allows.
///
/// # Errors
/// [`ModelError::Option`] if it is not in (0, 1].
pub fn memory_ratio(options: &EngineOptions, device: &Device) -> Result<f64, ModelError> {
    match options.memory_ratio {
        None => Ok(match device {
            Device::Cpu(_) => DEFAULT_CPU_RATIO,
            Device::Cuda(_) => DEFAULT_GPU_RATIO,
        }),
        Some(ratio) if ratio > 0.0 && ratio <= 1.0 => Ok(ratio),
        Some(ratio) => Err(ModelError::Option {
            option: "--memory-ratio",
            problem: format!("{ratio} is not allowed: use more than 0 and at most 1"),
        }),
    }
}

/// Plans the memory of `device`, which holds the ranks with these sizes; its kernels need
/// `workspace_bytes` of their own, and each rank a table of rotations for `max_positions`.
///
/// # Errors
/// [`ModelError::OutOfMemory`] if not even one request of `max_pages_per_row` pages fits beside the
/// weights, [`ModelError::Option`] if an option makes no sense.
pub fn plan(
    config: &ModelConfig,
    options: &EngineOptions,
    limits: &StepLimits,
    ranks: &[(Geometry, KvLayout)],
    workspace_bytes: usize,
    max_positions: usize,
    device: &Device,
) -> Result<MemoryPlan, ModelError> {
    let memory = device.memory()?;
    let budget = Budget {
        free_bytes: memory.free_bytes as usize,
        ratio: memory_ratio(options, device)?,
        workspace_bytes,
        max_positions,
        device: device.description(),
    };
    plan_within(config, options, limits, ranks, &budget)
}

/// What a device offers.
struct Budget {
    free_bytes: usize,
    ratio: f64,
    /// What its kernels need beside activations.
    workspace_bytes: usize,
    /// Positions that queries and keys can be rotated to.
    max_positions: usize,
    device: String,
}

fn plan_within(
    config: &ModelConfig,
    options: &EngineOptions,
    limits: &StepLimits,
    ranks: &[(Geometry, KvLayout)],
    budget: &Budget,
) -> Result<MemoryPlan, ModelError> {
    let sum =
        |bytes: &dyn Fn(&(Geometry, KvLayout)) -> usize| ranks.iter().map(bytes).sum::<usize>();
    let table_bytes = limits.max_sequences * limits.max_pages_per_row * size_of::<i32>();
    let rotary_bytes = budget.max_positions * config.head_dim * size_of::<f32>();
    let weight_bytes = sum(&|(geometry, _)| geometry.weight_bytes(config));
    let step_bytes = sum(&|(geometry, _)| {
        Activations::bytes(geometry, limits.max_tokens, limits.max_sequences)
            + StepInputs::bytes(limits.max_tokens, limits.max_sequences)
            + Sampler::bytes(geometry.vocab_size, limits.vocab_size, limits.max_sequences)
            + table_bytes
            + rotary_bytes
    }) + budget.workspace_bytes;
    let page_bytes = sum(&|(_, layout)| layout.bytes_per_page());
    // More than this could never be held by requests; a prefix cache gains little from more.
    let most_useful = limits.max_sequences * limits.max_pages_per_row;
    let allowed = (budget.free_bytes as f64 * budget.ratio) as usize;
    let fixed_bytes = weight_bytes + step_bytes;
    let left = allowed.saturating_sub(fixed_bytes);
    let num_pages = match options.num_pages {
        Some(0) => {
            return Err(ModelError::Option {
                option: "--num-pages",
                problem: "0 is not allowed: use at least 1".to_owned(),
            });
        }
        Some(num_pages) => num_pages,
        None => (left / page_bytes).min(most_useful),
    };
    let kv_bytes = num_pages.saturating_mul(page_bytes);
    let needed = fixed_bytes.saturating_add(kv_bytes.max(page_bytes));
    let available = match options.num_pages {
        Some(_) => budget.free_bytes,
        None => allowed,
    };
    if num_pages == 0 || needed > available {
        return Err(ModelError::OutOfMemory {
            device: budget.device.clone(),
            what: "weights, activations and KV pages",
            needed: mib(needed),
            available: mib(available),
            advice: "lower --max-prefill-length, --max-running-requests or --num-pages, raise \
                     --memory-ratio, or use a smaller --dtype or model",
        });
    }
    Ok(MemoryPlan { weight_bytes, step_bytes, kv_bytes, num_pages })
}

fn mib(bytes: usize) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests;
