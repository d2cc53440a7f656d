//! The command line checked and lowered: what to serve and how, with nothing left to decide.
//! Never knows flags' names, but in messages.

mod nodes;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use minisgl_model::EngineOptions;
use minisgl_sched::PageSize;

use crate::args::{ModelSource, ServeArgs};
use crate::doctor::{library_search, nccl_shares_gpus};

/// Tokenizing threads beyond this only fight for cores.
const MAX_TOKENIZERS: usize = 64;

/// Those that sampling without a server takes.
const TEMPERATURES: std::ops::RangeInclusive<f32> = 0.0..=100.0;

/// See the fields.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) model: ModelArg,
    /// What clients call it, if not what `model` says.
    pub(crate) served_model_name: Option<String>,
    pub(crate) engine: EngineOptions,
    pub(crate) chat_template: Option<PathBuf>,
    pub(crate) overlap: bool,
    pub(crate) mode: Mode,
}

/// Which model.
#[derive(Clone, Debug)]
pub(crate) struct ModelArg {
    /// A folder, or a name; the demo model if not given.
    pub(crate) name: Option<String>,
    /// Where names are looked for.
    pub(crate) source: ModelSource,
    /// Of a model on a hub.
    pub(crate) revision: Option<String>,
}

/// What to do with it.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    Serve(ServeConfig),
    Shell(ShellConfig),
    /// Be a node other than node 0.
    Follow(FollowConfig),
}

#[derive(Clone, Debug)]
pub(crate) struct FollowConfig {
    pub(crate) shutdown_timeout: Duration,
    pub(crate) restart_on_failure: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct ShellConfig {
    pub(crate) max_tokens: usize,
    pub(crate) temperature: f32,
    /// 0 is all.
    pub(crate) top_k: u32,
    pub(crate) top_p: f32,
}

#[derive(Clone, Debug)]
pub(crate) struct ServeConfig {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) api_key: Option<String>,
    pub(crate) num_tokenizers: usize,
    pub(crate) max_queued_requests: usize,
    pub(crate) max_body_bytes: usize,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) restart_on_failure: bool,
}

impl Config {
    /// Checks what can be checked without the model and the machine.
    ///
    /// # Errors
    /// A sentence about the first option that makes no sense.
    pub(crate) fn from_args(args: ServeArgs) -> Result<Self> {
        ensure!(
            !args.disable_pynccl,
            "--disable-pynccl: there is no PyNCCL here; NCCL is called directly, and only if \
             there is more than one GPU"
        );
        if let Some(backend) = args.moe_backend {
            bail!("--moe-backend {backend}: there is nothing to choose from here; leave it out");
        }
        ensure!(
            args.revision.is_none() || args.model.is_some(),
            "--revision needs --model: which model's?"
        );
        ensure!(!args.host.is_empty(), "--host must not be empty");
        ensure!(
            args.served_model_name.as_deref().is_none_or(|name| !name.is_empty()),
            "--served-model-name must not be empty"
        );
        ensure!(args.max_body_bytes > 0, "--max-body-bytes 0 would refuse every request");
        ensure!(
            args.num_tokenizer <= MAX_TOKENIZERS,
            "--num-tokenizer {} is not allowed: use 0 to {MAX_TOKENIZERS}",
            args.num_tokenizer
        );
        ensure!(
            args.api_key.as_deref().is_none_or(|key| !key.is_empty()),
            "the API key must not be empty: leave out --api-key (and MINISGL_API_KEY) for none"
        );
        let page_size = PageSize::new(args.page_size)?;
        let nodes = nodes::node_config(&args.nodes)?;
        let restart_on_failure = args.nodes.restart_on_failure;
        let shutdown_timeout = Duration::from_secs(args.shutdown_timeout);
        let mode = if args.nodes.node_rank > 0 {
            ensure!(
                !args.shell,
                "--shell with --node-rank {}: talk to node 0",
                args.nodes.node_rank
            );
            Mode::Follow(FollowConfig { shutdown_timeout, restart_on_failure })
        } else if args.shell {
            ensure!(!restart_on_failure, "--restart-on-failure is for the server, not for --shell");
            ensure!(!args.dummy_weight, "--shell with --dummy-weight: there is nothing to talk to");
            Mode::Shell(ShellConfig::from_args(&args)?)
        } else {
            Mode::Serve(ServeConfig {
                host: args.host,
                port: args.port,
                api_key: args.api_key,
                num_tokenizers: args.num_tokenizer.max(1),
                max_queued_requests: args.max_queued_requests,
                max_body_bytes: args.max_body_bytes,
                shutdown_timeout,
                restart_on_failure,
            })
        };
        Ok(Self {
            model: ModelArg {
                name: args.model,
                source: args.model_source,
                revision: args.revision,
            },
            served_model_name: args.served_model_name,
            engine: EngineOptions {
                device: args.device,
                gpus: args.devices,
                all_reduce: args.all_reduce,
                nccl_timeout: Duration::from_secs(args.nccl_timeout),
                nccl_shares_gpus: nccl_shares_gpus(),
                init_timeout: Duration::from_secs_f64(args.nodes.dist_init_timeout),
                step_timeout: Duration::from_secs_f64(args.nodes.watchdog_timeout),
                gemm_cache: gemm_cache(),
                libraries: library_search(),
                cpu_threads: args.cpu_threads,
                tp_size: args.tp_size,
                nodes,
                dtype: args.dtype,
                quantization: args.quantization,
                kv_cache_dtype: args.kv_cache_dtype,
                attention: args.attention_backend,
                page_size,
                cache: args.cache_type,
                num_pages: args.num_pages,
                memory_ratio: args.memory_ratio,
                // In the shell there is one at a time.
                max_running_requests: if args.shell { 1 } else { args.max_running_requests },
                max_prefill_tokens: args.max_prefill_length,
                max_seq_len: args.max_seq_len_override,
                cuda_graph_max_bs: args.cuda_graph_max_bs,
                dummy_weights: args.dummy_weight,
                step_clock: None,
            },
            chat_template: args.chat_template,
            overlap: !args.disable_overlap_scheduling,
            mode,
        })
    }
}

impl ShellConfig {
    fn from_args(args: &ServeArgs) -> Result<Self> {
        let (temperature, top_p) = (args.shell_temperature, args.shell_top_p);
        ensure!(args.shell_max_tokens > 0, "--shell-max-tokens 0 leaves no room for an answer");
        ensure!(
            TEMPERATURES.contains(&temperature),
            "--shell-temperature {temperature} is not allowed: use {} to {}",
            TEMPERATURES.start(),
            TEMPERATURES.end()
        );
        ensure!(
            top_p > 0.0 && top_p <= 1.0,
            "--shell-top-p {top_p} is not allowed: use more than 0, at most 1"
        );
        let top_k = args.shell_top_k;
        ensure!(top_k >= -1, "--shell-top-k {top_k} is not allowed: use -1 for all, or more");
        Ok(Self {
            max_tokens: args.shell_max_tokens,
            temperature,
            top_k: u32::try_from(top_k).unwrap_or(0),
            top_p,
        })
    }
}

/// Among the user's other caches; none without a home.
fn gemm_cache() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty());
    let caches = named.map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cache")));
    Some(caches?.join("minisgl/gemm-algorithms.txt"))
}

#[cfg(test)]
mod tests;
