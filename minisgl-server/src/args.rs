//! The command line as it is typed: names, help and defaults. What the values mean, and which go
//! together, is in [`crate::config`].

pub(crate) mod nodes;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use minisgl_model::{
    AllReduceChoice, AttentionChoice, DTypeChoice, DeviceChoice, KvCacheDType, QuantizationChoice,
};
use minisgl_sched::CacheKind;

use self::nodes::NodeArgs;

const ABOUT: &str = "Serves a large language model with an OpenAI-compatible API.

Without --model it serves a small demo model that is part of the program, so `minisgl` alone works \
on any machine. The options are those of Mini-SGLang; any unambiguous beginning of one will do.";

const EXAMPLES: &str = "Examples:
  minisgl                                        the demo model on http://127.0.0.1:1919
  minisgl --shell                                talk to it in the terminal
  minisgl --model Qwen/Qwen3-0.6B                a model from Hugging Face, fetched once
  minisgl --model ./Qwen3-0.6B --port 8000       a model folder
  minisgl --model ./Qwen3-32B --tp 4             on four ranks
  minisgl --model ./Qwen3-32B --tp 8 --nnodes 2 --node-rank 0 --dist-init-addr 10.0.0.1:20000
                                                 on two machines; --node-rank 1 on the other
  minisgl doctor                                 what this machine has, and what is missing

  curl http://127.0.0.1:1919/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]}'

Endpoints:
  POST /v1/chat/completions  POST /v1/completions  GET /v1/models  POST /tokenize  POST /detokenize
  GET /health (for load balancers)  GET /metrics (for Prometheus)  POST /generate (Mini-SGLang's)

Environment, for models on a hub:
  HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE=1 (take what is in the cache)
  MODELSCOPE_API_TOKEN, MODELSCOPE_ENDPOINT, MODELSCOPE_CACHE; HTTPS_PROXY, NO_PROXY";

/// See [`ABOUT`].
#[derive(Debug, Parser)]
#[command(
    name = "minisgl",
    version,
    about = ABOUT,
    after_help = EXAMPLES,
    infer_long_args = true,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// What else there is to do.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what this machine has: CPU, memory, GPUs and their libraries; and what is missing
    ///
    /// Libraries are also looked for in the Python environment that is active, and NCCL where the
    /// environment variable MINISGL_NCCL_SO says.
    Doctor,
    /// Measure how fast this machine is, without a network
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// All requests at once, random prompts, outputs of fixed lengths: Mini-SGLang's offline workload
    ///
    /// Prints tokens per second beside the floor: the time that reading the weights in every step
    /// and the KV cache of every sequence takes at the memory bandwidth measured at the start; on GPUs
    /// also how long the first one had nothing to do between steps. Takes the options of the server as
    /// well; those about the network do nothing.
    Offline(Box<OfflineArgs>),
    /// Sums over ranks: how long they take by size, number of ranks and way to sum
    ///
    /// Bus bandwidth counts what each rank must at least send, 2 (N - 1) / N of every byte. Beside it
    /// stand the ceilings of ranks on the CPU: copying, and waking a thread.
    Comm(CommArgs),
    /// Single operations on one device: attention, products with weights, what is done row by row
    ///
    /// Beside each time stands what bounds it, bytes of keys and values or of weights, or arithmetic,
    /// and how much that is of what the same run measured for copying and summing arrays and for one
    /// large product. Times are taken by events on the device, in captured graphs where there are any;
    /// each is the median of five rounds.
    Kernels(KernelsArgs),
}

#[derive(Args, Debug)]
pub(crate) struct KernelsArgs {
    /// Where to compute: auto, cpu, cuda
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Which GPU, by the driver's numbers [default: 0]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub(crate) devices: Option<Vec<usize>>,
    /// CPU threads that compute [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) cpu_threads: Option<NonZeroUsize>,
    /// Attention kernels on GPUs, as for the server; auto is all that there are
    #[arg(long, visible_alias = "attn", value_name = "NAME", default_value = "auto")]
    pub(crate) attention_backend: AttentionChoice,
}

#[derive(Args, Debug)]
pub(crate) struct CommArgs {
    /// Numbers of ranks
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', default_value = "2,4,8")]
    pub(crate) ranks: Vec<usize>,
    /// Bytes of an array
    #[arg(
        long,
        value_name = "N,N,..",
        value_delimiter = ',',
        default_value = "4096,65536,1048576,16777216"
    )]
    pub(crate) sizes: Vec<usize>,
    /// Where the ranks are: auto, cpu, cuda
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Which GPU each rank uses, as for the server; with one number of ranks
    #[arg(long, value_name = "N,N,..", value_delimiter = ',')]
    pub(crate) devices: Option<Vec<usize>>,
    /// Ways to sum on GPUs: auto, nccl, p2p
    #[arg(long, value_name = "HOW,HOW,..", value_delimiter = ',', default_value = "auto")]
    pub(crate) all_reduce: Vec<AllReduceChoice>,
}

#[derive(Args, Debug)]
pub(crate) struct OfflineArgs {
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct WorkloadArgs {
    /// Sequences
    #[arg(long, value_name = "N", default_value = "256", help_heading = "Workload")]
    pub(crate) num_seqs: usize,
    /// The longest prompt; lengths are drawn from 100 up to it
    #[arg(long, value_name = "TOKENS", default_value = "1024", help_heading = "Workload")]
    pub(crate) max_input: u32,
    /// The longest output; lengths are drawn from 100 up to it
    #[arg(long, value_name = "TOKENS", default_value = "1024", help_heading = "Workload")]
    pub(crate) max_output: u32,
    /// Temperature of sampling; 0 takes the most likely token each time
    #[arg(
        long,
        value_name = "T",
        default_value = "0.6",
        allow_negative_numbers = true,
        help_heading = "Workload"
    )]
    pub(crate) temperature: f32,
    /// How often each workload is run, each time with other prompts
    #[arg(
        long,
        value_name = "N",
        default_value = "2",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Workload"
    )]
    pub(crate) rounds: u32,
}

/// Where a model comes from that is not in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelSource {
    Huggingface,
    Modelscope,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// A folder in the Hugging Face layout (config.json, *.safetensors, tokenizer.json, ...), or a
    /// name on a hub as in Qwen/Qwen3-0.6B [default: the demo model]
    #[arg(long, alias = "model-path", value_name = "MODEL", help_heading = "Model")]
    pub(crate) model: Option<String>,
    /// The hub that --model is on, if it is not a folder
    #[arg(long, value_name = "HUB", default_value = "huggingface", help_heading = "Model")]
    pub(crate) model_source: ModelSource,
    /// A branch, tag or commit of the model on the hub [default: main, or master on ModelScope]
    #[arg(long, value_name = "REVISION", help_heading = "Model")]
    pub(crate) revision: Option<String>,
    /// What clients call the model [default: what --model says]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(crate) served_model_name: Option<String>,
    /// Type of weights and activations, and of KV if --kv-cache-dtype is auto: auto (as config.json says), float16, bfloat16, float32
    #[arg(long, value_name = "TYPE", default_value = "auto", help_heading = "Model")]
    pub(crate) dtype: DTypeChoice,
    /// Weights of attention and MLP as 8-bit floats, made when they are loaded, and what they multiply too:
    /// none, fp8
    #[arg(long, value_name = "HOW", default_value = "none", help_heading = "Model")]
    pub(crate) quantization: QuantizationChoice,
    /// Tokens that prompt and output of a request may have together, if less than the model allows
    #[arg(long, value_name = "TOKENS", help_heading = "Model")]
    pub(crate) max_seq_len_override: Option<usize>,
    /// A Jinja file in place of the model's chat template
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Random weights: for measuring speed with config.json and the tokenizer alone; for well-known
    /// names without them, and then prompts are token ids
    #[arg(long, help_heading = "Model")]
    pub(crate) dummy_weight: bool,

    /// Tensor-parallel ranks, over all nodes: GPUs, or groups of threads on the CPU
    #[arg(
        long = "tensor-parallel-size",
        visible_aliases = ["tp-size", "tp"],
        value_name = "N",
        default_value = "1",
        help_heading = "Machine"
    )]
    pub(crate) tp_size: NonZeroUsize,
    /// Where to compute: auto, cpu, cuda
    #[arg(long, value_name = "DEVICE", default_value = "auto", help_heading = "Machine")]
    pub(crate) device: DeviceChoice,
    /// Which GPU each rank of this node uses, by the driver's numbers; one named twice is shared
    /// [default: 0,1,..]
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', help_heading = "Machine")]
    pub(crate) devices: Option<Vec<usize>>,
    /// How GPUs sum: auto (small arrays through each other's memory where measuring at start finds
    /// that faster; large ones and those of several nodes through NCCL), nccl, p2p (nothing measured)
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "Machine")]
    pub(crate) all_reduce: AllReduceChoice,
    /// Seconds that one of NCCL's collectives may take before the group counts as broken
    #[arg(
        long,
        env = "NCCL_TIMEOUT",
        value_name = "SECONDS",
        default_value = "600",
        value_parser = clap::value_parser!(u64).range(1..=86_400),
        help_heading = "Machine"
    )]
    pub(crate) nccl_timeout: u64,
    /// CPU threads that compute, over all ranks [default: all cores]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub(crate) cpu_threads: Option<NonZeroUsize>,
    /// Attention kernels on GPUs: auto, fa (FlashAttention), fi (FlashInfer), native (our own), or two
    /// of them for prefill and decode, as in fa,fi
    #[arg(
        long,
        visible_alias = "attn",
        value_name = "NAME",
        default_value = "auto",
        help_heading = "Machine"
    )]
    pub(crate) attention_backend: AttentionChoice,
    /// The largest batch of decodes that is captured as a CUDA graph; 0 for none
    #[arg(long, visible_alias = "graph", value_name = "N", help_heading = "Machine")]
    pub(crate) cuda_graph_max_bs: Option<usize>,

    #[command(flatten)]
    pub(crate) nodes: NodeArgs,

    /// The share of free memory for weights and KV pages, more than 0 and at most 1
    #[arg(long, value_name = "SHARE", help_heading = "Memory")]
    pub(crate) memory_ratio: Option<f64>,
    /// KV pages [default: as many as fit]
    #[arg(long, value_name = "N", help_heading = "Memory")]
    pub(crate) num_pages: Option<usize>,
    /// Type of keys and values in the cache: auto (as --dtype), or fp8 (fp8_e4m3: half of bfloat16's
    /// bytes, so twice the tokens)
    #[arg(long, value_name = "TYPE", default_value = "auto", help_heading = "Memory")]
    pub(crate) kv_cache_dtype: KvCacheDType,
    /// Tokens in a KV page
    #[arg(long, value_name = "TOKENS", default_value = "1", help_heading = "Memory")]
    pub(crate) page_size: usize,
    /// Whether requests share the KV of common beginnings: radix (they do), naive (they do not)
    #[arg(
        long,
        visible_alias = "cache",
        value_name = "KIND",
        default_value = "radix",
        help_heading = "Memory"
    )]
    pub(crate) cache_type: CacheKind,

    /// Requests computed at one time; more wait
    #[arg(long, value_name = "N", default_value = "256", help_heading = "Scheduling")]
    pub(crate) max_running_requests: usize,
    /// Requests that may wait; more are refused with 503
    #[arg(long, value_name = "N", default_value = "1024", help_heading = "Scheduling")]
    pub(crate) max_queued_requests: usize,
    /// Prompt tokens computed in one step; longer prompts are cut into chunks
    #[arg(
        long,
        visible_alias = "max-extend-length",
        value_name = "TOKENS",
        default_value = "8192",
        help_heading = "Scheduling"
    )]
    pub(crate) max_prefill_length: usize,
    /// Plan each step only when the one before is done
    #[arg(
        long,
        env = "MINISGL_DISABLE_OVERLAP_SCHEDULING",
        value_parser = FalseyValueParser::new(),
        help_heading = "Scheduling"
    )]
    pub(crate) disable_overlap_scheduling: bool,

    /// The address to listen on; 0.0.0.0 for all of this machine
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", help_heading = "Server")]
    pub(crate) host: String,
    /// The port to listen on; 0 for any that is free
    #[arg(long, value_name = "PORT", default_value = "1919", help_heading = "Server")]
    pub(crate) port: u16,
    /// What clients must send as `Authorization: Bearer KEY` to all paths but /health
    #[arg(
        long,
        env = "MINISGL_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        help_heading = "Server"
    )]
    pub(crate) api_key: Option<String>,
    /// Threads that tokenize prompts; 0 is one, too
    #[arg(
        long,
        visible_alias = "tokenizer-count",
        value_name = "N",
        default_value = "0",
        help_heading = "Server"
    )]
    pub(crate) num_tokenizer: usize,
    /// Longer request bodies are refused with 413
    #[arg(long, value_name = "BYTES", default_value = "16777216", help_heading = "Server")]
    pub(crate) max_body_bytes: usize,
    /// How long requests may take to finish after SIGTERM or Ctrl-C; a second one stops at once
    #[arg(long, value_name = "SECONDS", default_value = "30", help_heading = "Server")]
    pub(crate) shutdown_timeout: u64,

    /// Talk to the model in this terminal, without a server
    #[arg(long, alias = "shell-mode", help_heading = "Shell")]
    pub(crate) shell: bool,
    /// Tokens of an answer in the shell
    #[arg(
        long,
        env = "MINISGL_SHELL_MAX_TOKENS",
        value_name = "TOKENS",
        default_value = "2048",
        help_heading = "Shell"
    )]
    pub(crate) shell_max_tokens: usize,
    /// Temperature in the shell; 0 takes the most likely token each time
    #[arg(
        long,
        env = "MINISGL_SHELL_TEMPERATURE",
        value_name = "T",
        default_value = "0.6",
        allow_negative_numbers = true,
        help_heading = "Shell"
    )]
    pub(crate) shell_temperature: f32,
    /// Only the K most likely tokens, in the shell; -1 is all
    #[arg(
        long,
        env = "MINISGL_SHELL_TOP_K",
        value_name = "K",
        default_value = "-1",
        allow_negative_numbers = true,
        help_heading = "Shell"
    )]
    pub(crate) shell_top_k: i32,
    /// Only the most likely tokens that make up this probability, in the shell
    #[arg(
        long,
        env = "MINISGL_SHELL_TOP_P",
        value_name = "P",
        default_value = "1",
        allow_negative_numbers = true,
        help_heading = "Shell"
    )]
    pub(crate) shell_top_p: f32,

    /// What is logged: error, warn, info, debug, trace, off, or a filter such as minisgl_sched=trace
    #[arg(long, env = "MINISGL_LOG", value_name = "LEVEL", help_heading = "Other")]
    pub(crate) log_level: Option<String>,

    /// Refused: there is no such thing here.
    #[arg(long, hide = true)]
    pub(crate) disable_pynccl: bool,
    /// Refused: there is only one.
    #[arg(long, hide = true)]
    pub(crate) moe_backend: Option<String>,
}
