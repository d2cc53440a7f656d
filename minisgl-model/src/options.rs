//! What a user may choose about the engine. Plain values; checked where they are used.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use minisgl_comm::nodes::NodeConfig;
use minisgl_kernels::cuda::LibrarySearch;
use minisgl_sched::{CacheKind, PageSize};

use crate::{ModelError, StepClock};

/// See the fields.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where to compute.
    pub device: DeviceChoice,
    /// Which GPU each rank of this process uses, by the driver's numbers; the first ones if not given.
    pub gpus: Option<Vec<usize>>,
    /// How GPUs sum.
    pub all_reduce: AllReduceChoice,
    /// How long the ranks may take to come together, and how long the loading of those of this
    /// process may take from one sign of progress to the next.
    pub init_timeout: Duration,
    /// How long a step may take before the group counts as broken.
    pub step_timeout: Duration,
    /// How long one of NCCL's collectives may take.
    pub nccl_timeout: Duration,
    /// Whether NCCL is told that ranks may share a GPU, by `NCCL_MULTI_RANK_GPU_ENABLE=1`. It reads
    /// that variable itself.
    pub nccl_shares_gpus: bool,
    /// Where the fastest GEMM algorithms of a GPU are kept; they are not measured if not given.
    pub gemm_cache: Option<PathBuf>,
    /// Where the CUDA libraries are looked for.
    pub libraries: LibrarySearch,
    /// CPU threads in all, shared out over the ranks; all cores if not given.
    pub cpu_threads: Option<NonZeroUsize>,
    /// Tensor-parallel ranks, over all nodes.
    pub tp_size: NonZeroUsize,
    /// The other processes that have ranks, if there are any; each has the same number.
    pub nodes: Option<NodeConfig>,
    /// Element type of weights and activations, and of KV unless that is chosen apart.
    pub dtype: DTypeChoice,
    /// What becomes of the weights when they are loaded.
    pub quantization: QuantizationChoice,
    /// Element type of keys and values in the KV pool.
    pub kv_cache_dtype: KvCacheDType,
    /// Attention kernels.
    pub attention: AttentionChoice,
    /// Tokens in a KV page.
    pub page_size: PageSize,
    /// Which prefix cache.
    pub cache: CacheKind,
    /// KV pages; as many as memory allows if not given.
    pub num_pages: Option<usize>,
    /// The share of free memory for weights and KV, in (0, 1]; by the kind of device if not given.
    pub memory_ratio: Option<f64>,
    /// Requests that run at one time.
    pub max_running_requests: usize,
    /// Prompt tokens computed in one step.
    pub max_prefill_tokens: usize,
    /// Tokens of one request, prompt and output; the model's context if not given.
    pub max_seq_len: Option<usize>,
    /// The largest decode batch captured as a CUDA graph, 0 for none; by the GPU's memory if not
    /// given.
    pub cuda_graph_max_bs: Option<usize>,
    /// Random weights in place of the checkpoint's: for measuring speed without files.
    pub dummy_weights: bool,
    /// For benchmarks: takes the times of the steps of this process's first rank, if that is rank 0.
    pub step_clock: Option<StepClock>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            gpus: None,
            all_reduce: AllReduceChoice::Auto,
            init_timeout: Duration::from_secs(600),
            step_timeout: Duration::from_secs(300),
            nccl_timeout: Duration::from_secs(600),
            nccl_shares_gpus: false,
            gemm_cache: None,
            libraries: LibrarySearch::default(),
            cpu_threads: None,
            tp_size: NonZeroUsize::MIN,
            nodes: None,
            dtype: DTypeChoice::Auto,
            quantization: QuantizationChoice::None,
            kv_cache_dtype: KvCacheDType::Auto,
            attention: AttentionChoice::AUTO,
            page_size: PageSize::new(1).expect("1 is a page size"),
            cache: CacheKind::Radix,
            num_pages: None,
            memory_ratio: None,
            max_running_requests: 256,
            max_prefill_tokens: 8192,
            max_seq_len: None,
            cuda_graph_max_bs: None,
            dummy_weights: false,
            step_clock: None,
        }
    }
}

impl EngineOptions {
    /// The ranks of this process.
    ///
    /// # Errors
    /// [`ModelError::Option`] if the ranks cannot be shared out evenly.
    pub fn local_ranks(&self) -> Result<Range<usize>, ModelError> {
        let tp_size = self.tp_size.get();
        let Some(nodes) = &self.nodes else { return Ok(0..tp_size) };
        let num_nodes = nodes.num_nodes.max(1);
        if !tp_size.is_multiple_of(num_nodes) {
            let problem =
                format!("{num_nodes} is not allowed with --tp {tp_size}: it must divide it");
            return Err(ModelError::Option { option: "--nnodes", problem });
        }
        let count = tp_size / num_nodes;
        Ok(nodes.node * count..(nodes.node + 1) * count)
    }
}

/// Where to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceChoice {
    /// GPUs if this build can use those that are there, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// GPUs, or an error.
    Cuda,
}

/// How GPUs sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllReduceChoice {
    /// Small arrays through peer memory if there is access to it, which takes one process, and if it
    /// is the faster way, which is measured at start; all others through NCCL.
    Auto,
    /// NCCL alone.
    Nccl,
    /// As `Auto` in one process, but peer memory for all that it can sum, by limits that are the same
    /// at every start; or an error without peer access.
    P2p,
}

/// Element type of weights, activations and KV.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DTypeChoice {
    /// What `config.json` says.
    Auto,
    /// 32 bits.
    Float32,
    /// 16 bits with float32's range.
    Bfloat16,
    /// 16 bits of IEEE 754.
    Float16,
}

/// What becomes of the weights of projections when they are loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuantizationChoice {
    /// They stay what `--dtype` says.
    None,
    /// 8-bit floats (E4M3) with a scale per output feature; what they multiply is rounded likewise,
    /// with a scale per token.
    Fp8,
}

impl QuantizationChoice {
    /// Its name as an option.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Fp8 => "fp8",
        }
    }
}

/// Element type of keys and values in the KV pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KvCacheDType {
    /// That of activations.
    Auto,
    /// 8-bit floats (E4M3), with a scale of 1: what is beyond 448 becomes that.
    Fp8,
}

impl KvCacheDType {
    /// Its name as an option.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fp8 => "fp8_e4m3",
        }
    }
}

/// One attention backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttentionBackend {
    /// The best one of the device.
    Auto,
    /// FlashAttention.
    Fa,
    /// FlashInfer.
    Fi,
    /// This project's own.
    Native,
}

/// Attention backends for prefill and for decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttentionChoice {
    /// For steps with more than one token of a sequence.
    pub prefill: AttentionBackend,
    /// For steps with one token of each sequence.
    pub decode: AttentionBackend,
}

impl AttentionChoice {
    /// The best of the device for both.
    pub const AUTO: Self = Self { prefill: AttentionBackend::Auto, decode: AttentionBackend::Auto };
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(format!("unknown device `{text}`: use auto, cpu or cuda")),
        }
    }
}

impl FromStr for AllReduceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "nccl" => Ok(Self::Nccl),
            "p2p" => Ok(Self::P2p),
            _ => Err(format!("unknown all-reduce `{text}`: use auto, nccl or p2p")),
        }
    }
}

impl FromStr for DTypeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "float32" => Ok(Self::Float32),
            "bfloat16" => Ok(Self::Bfloat16),
            "float16" => Ok(Self::Float16),
            _ => Err(format!("unknown dtype `{text}`: use auto, float16, bfloat16 or float32")),
        }
    }
}

impl FromStr for QuantizationChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "fp8" => Ok(Self::Fp8),
            _ => Err(format!("unknown quantization `{text}`: use none or fp8")),
        }
    }
}

impl FromStr for KvCacheDType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "fp8" | "fp8_e4m3" => Ok(Self::Fp8),
            _ => Err(format!("unknown KV cache dtype `{text}`: use auto, fp8 or fp8_e4m3")),
        }
    }
}

impl FromStr for AttentionBackend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "fa" => Ok(Self::Fa),
            "fi" => Ok(Self::Fi),
            "native" => Ok(Self::Native),
            _ => Err(format!("unknown attention backend `{text}`: use auto, fa, fi or native")),
        }
    }
}

impl FromStr for AttentionChoice {
    type Err = String;

    /// One name for both phases, or `prefill,decode`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (prefill, decode) = text.split_once(',').unwrap_or((text, text));
        Ok(Self { prefill: prefill.parse()?, decode: decode.parse()? })
    }
}

impl fmt::Display for AttentionBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Fa => "fa",
            Self::Fi => "fi",
            Self::Native => "native",
        })
    }
}

impl fmt::Display for AttentionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefill == self.decode {
            self.prefill.fmt(f)
        } else {
            write!(f, "{},{}", self.prefill, self.decode)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats_are_asked_for_by_name() {
        for name in ["none", "fp8"] {
            assert_eq!(name.parse::<QuantizationChoice>().unwrap().name(), name);
        }
        for bad in ["", "awq", "FP8"] {
            let error = bad.parse::<QuantizationChoice>().unwrap_err();
            assert!(error.contains(&format!("`{bad}`: use none or fp8")), "{error}");
        }
        for (name, kind) in [
            ("auto", KvCacheDType::Auto),
            ("fp8", KvCacheDType::Fp8),
            ("fp8_e4m3", KvCacheDType::Fp8),
        ] {
            assert_eq!(name.parse(), Ok(kind));
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        for bad in ["", "fp8_e5m2", "int8"] {
            let error = bad.parse::<KvCacheDType>().unwrap_err();
            assert!(error.contains(&format!("`{bad}`: use auto, fp8 or fp8_e4m3")), "{error}");
        }
    }

    #[test]
    fn attention_is_one_name_or_a_pair() {
        let parse = |text: &str| text.parse::<AttentionChoice>();
        assert_eq!(parse("auto"), Ok(AttentionChoice::AUTO));
        assert_eq!(parse("fa,fi").unwrap().to_string(), "fa,fi");
        assert_eq!(parse("fi,fi").unwrap().to_string(), "fi");
        for bad in ["", "fa,", "fa,fi,fa", "trtllm"] {
            assert!(parse(bad).unwrap_err().contains("use auto, fa, fi or native"), "{bad}");
        }
    }
}
