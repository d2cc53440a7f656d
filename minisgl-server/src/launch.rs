//! From a configuration to a running server, and from there to its end: loading, serving, signals,
//! failure.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use minisgl_model::{DeviceChoice, EngineLimits, RankGroup};
use minisgl_sched::{Driver, Scheduler};
use minisgl_server::api::{Api, ApiOptions};
use minisgl_server::engine::{self, Engine, EngineConfig};
use minisgl_server::http::{self, BoundAddress, HttpLimits};
use minisgl_server::llm::load_model;
use minisgl_server::text::TextModel;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::config::{Config, ServeConfig};
use crate::logging::LoadProgress;
use crate::model_source::resolve_model;

/// Threads of the network side: detokenizing and writing take little, computing takes the rest.
const MAX_NETWORK_THREADS: usize = 4;

/// How long answers may take to reach their clients after the engine has failed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A model with what it is called.
pub(crate) struct Loaded {
    pub(crate) group: RankGroup,
    pub(crate) text: TextModel,
    pub(crate) name: String,
}

/// Loads the model that `config` names.
///
/// # Errors
/// If it is not there, or does not work on this machine.
pub(crate) fn load(config: &Config) -> Result<Loaded> {
    let (checkpoint, name) = resolve_model(&config.model, !config.engine.dummy_weights)?;
    let template = match &config.chat_template {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.with_context(|| format!("cannot read {}", path.display()))?)
        }
        None => None,
    };
    // As long as `auto` is the CPU.
    let is_on_gpus = config.engine.device == DeviceChoice::Cuda;
    let ranks = if is_on_gpus { "GPUs" } else { "CPU ranks" };
    tracing::info!("Initializing tensor parallelism with {} {ranks}", config.engine.tp_size);
    if !is_on_gpus && config.engine.cuda_graph_max_bs.is_some() {
        tracing::warn!("--cuda-graph-max-bs does nothing on the CPU");
    }
    let progress = LoadProgress::new();
    let (group, text) = load_model(&checkpoint, &config.engine, template.as_deref(), &progress)?;
    Ok(Loaded { group, text, name: config.served_model_name.clone().unwrap_or(name) })
}

/// Serves until told to stop.
///
/// # Errors
/// If the server cannot start, or the engine fails.
pub(crate) fn serve(config: &Config, serve: &ServeConfig) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(MAX_NETWORK_THREADS))
        .thread_name("network")
        .enable_all()
        .build()?;
    let result = start_and_serve(&runtime, config, serve);
    // Tokenizing for clients that are gone need not be waited for.
    runtime.shutdown_background();
    result
}

fn start_and_serve(runtime: &Runtime, config: &Config, serve: &ServeConfig) -> Result<()> {
    // First of all, so that a port in use is known before a model is loaded for minutes.
    let bound = BoundAddress::bind(&serve.host, serve.port)?;
    let Loaded { group, text, name } = load(config)?;
    log_limits(config, serve, group.limits(), &name);

    let _in_runtime = runtime.enter();
    let max_running = group.limits().scheduler.max_running_requests;
    let scheduler = Scheduler::new(group.limits().scheduler)?;
    let driver = Driver::new(scheduler, group, config.overlap);
    let limits = EngineConfig {
        max_open_requests: max_running.saturating_add(serve.max_queued_requests),
        step_timeout: EngineConfig::DEFAULT_STEP_TIMEOUT,
    };
    let (engine, ended) = engine::start(driver, limits)?;
    let options = ApiOptions {
        model_name: name,
        api_key: serve.api_key.clone(),
        max_body_bytes: serve.max_body_bytes,
        num_tokenizers: serve.num_tokenizers,
    };
    let api = Arc::new(Api::new(engine.clone(), Arc::new(text), options));
    let signals = Signals::listen()?;
    let port = bound.address().port();
    let listener = bound.listen()?;
    let (stop, stopping) = watch::channel(false);
    let serving = runtime.spawn(http::serve(listener, api, HttpLimits::default(), stopping));
    tracing::info!("API server is ready to serve on {}:{port}", serve.host);

    runtime.block_on(async {
        let result = supervise(&engine, ended, signals, serve.shutdown_timeout).await;
        stop.send_replace(true);
        serving.await?;
        result
    })
}

/// Waits until the engine fails, or until a signal has been followed.
async fn supervise(
    engine: &Engine,
    mut ended: oneshot::Receiver<Option<Arc<str>>>,
    mut signals: Signals,
    shutdown_timeout: Duration,
) -> Result<()> {
    tokio::select! {
        failure = &mut ended => return report(engine, failure.ok().flatten()).await,
        () = signals.next() => {}
    }
    engine.drain();
    let open = engine.open_requests();
    let seconds = shutdown_timeout.as_secs();
    tracing::info!(
        "Shutting down: {open} requests may finish within {seconds} s; once more to stop at once"
    );
    let result = tokio::select! {
        failure = &mut ended => return report(engine, failure.ok().flatten()).await,
        () = signals.next() => "Stopping at once",
        () = tokio::time::sleep(shutdown_timeout) => "Stopping: the time is up",
        () = all_closed(engine) => "Stopping: all requests are finished",
    };
    tracing::info!("{result}");
    engine.stop();
    // What was still open is told so.
    let _ = tokio::time::timeout(FLUSH_TIMEOUT, all_closed(engine)).await;
    Ok(())
}

async fn report(engine: &Engine, failure: Option<Arc<str>>) -> Result<()> {
    let _ = tokio::time::timeout(FLUSH_TIMEOUT, all_closed(engine)).await;
    bail!("the engine has failed: {}", failure.as_deref().unwrap_or("it is gone"));
}

async fn all_closed(engine: &Engine) {
    while engine.open_requests() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// SIGTERM and SIGINT, which is Ctrl-C.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Says what the server can do, all of it fixed from now on.
fn log_limits(config: &Config, serve: &ServeConfig, limits: &EngineLimits, name: &str) {
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let scheduler = &limits.scheduler;
    let (memory, page_size) = (limits.memory, scheduler.page_size.get());
    tracing::info!(
        "Model {name}: {}, {:.1} M parameters, {}, {:.1} MiB of weights on {}",
        limits.architecture,
        limits.num_parameters as f64 / 1e6,
        limits.dtype,
        mib(memory.weight_bytes),
        limits.device,
    );
    tracing::info!(
        "KV cache: {} pages of {page_size} = {} tokens, {:.1} MiB; prefix cache {}",
        memory.num_pages,
        memory.num_pages * page_size,
        mib(memory.kv_bytes),
        scheduler.cache,
    );
    tracing::info!(
        "Limits: {} tokens of context, {} running and {} waiting requests, {} prompt tokens a \
         step, {:.1} MiB a request body; overlap scheduling {}",
        limits.context_len,
        scheduler.max_running_requests,
        serve.max_queued_requests,
        scheduler.max_prefill_tokens,
        mib(serve.max_body_bytes),
        if config.overlap { "on" } else { "off" },
    );
}
