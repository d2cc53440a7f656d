//! From a configuration to a running server, and from there to its end: loading, serving, signals,
//! failure.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow};
use minisgl_model::{EngineLimits, RankGroup};
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
use crate::restarts::Restarts;

/// Threads of the network side: detokenizing and writing take little, computing takes the rest.
const MAX_NETWORK_THREADS: usize = 4;

/// How long the ranks may take to end, once they are told to.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

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
    let (engine, ended) = start_engine(group, config, serve)?;
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
        let mut supervisor = Supervisor { engine, config, serve, signals };
        let result = supervisor.run(ended).await;
        stop.send_replace(true);
        serving.await?;
        result
    })
}

/// What becomes ready when the engine has ended.
type Ended = oneshot::Receiver<Option<Arc<str>>>;

fn start_engine(group: RankGroup, config: &Config, serve: &ServeConfig) -> Result<(Engine, Ended)> {
    let max_running = group.limits().scheduler.max_running_requests;
    let scheduler = Scheduler::new(group.limits().scheduler)?;
    let driver = Driver::new(scheduler, group, config.overlap);
    let limits = EngineConfig {
        max_open_requests: max_running.saturating_add(serve.max_queued_requests),
        step_timeout: EngineConfig::DEFAULT_STEP_TIMEOUT,
    };
    Ok(engine::start(driver, limits)?)
}

/// Waits for the end of a server, by a signal or a failure.
struct Supervisor<'a> {
    engine: Engine,
    config: &'a Config,
    serve: &'a ServeConfig,
    signals: Signals,
}

impl Supervisor<'_> {
    async fn run(&mut self, mut ended: Ended) -> Result<()> {
        let mut restarts = Restarts::new(self.serve.restart_on_failure);
        loop {
            let failure = tokio::select! {
                failure = &mut ended => failure.ok().flatten(),
                () = self.signals.next() => return self.shut_down(ended).await,
            };
            let failure = self.report(failure).await;
            if !restarts.may_restart() {
                return Err(failure);
            }
            tracing::warn!("Starting the ranks again");
            ended = tokio::select! {
                restarted = restart(&self.engine, self.config, self.serve) => restarted.context("cannot start the ranks again")?,
                () = self.signals.next() => return Err(failure),
            };
            tracing::info!("API server is ready to serve again");
        }
    }

    /// Lets what is open finish, or not, and ends the engine.
    async fn shut_down(&mut self, mut ended: Ended) -> Result<()> {
        let engine = self.engine.clone();
        engine.drain();
        let (open, timeout) = (engine.open_requests(), self.serve.shutdown_timeout);
        let seconds = timeout.as_secs();
        tracing::info!(
            "Shutting down: {open} requests may finish within {seconds} s; once more to stop at \
             once"
        );
        let result = tokio::select! {
            failure = &mut ended => return Err(self.report(failure.ok().flatten()).await),
            () = self.signals.next() => "Stopping at once",
            () = tokio::time::sleep(timeout) => "Stopping: the time is up",
            () = all_closed(&engine) => "Stopping: all requests are finished",
        };
        tracing::info!("{result}");
        engine.stop();
        // What was still open is told so.
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, all_closed(&engine)).await;
        // Other nodes are told that this was meant.
        let _ = tokio::time::timeout(RELEASE_TIMEOUT, engine.released()).await;
        Ok(())
    }

    /// The failure as an error, after clients have been told.
    async fn report(&self, failure: Option<Arc<str>>) -> Error {
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, all_closed(&self.engine)).await;
        anyhow!("the engine has failed: {}", failure.as_deref().unwrap_or("it is gone"))
    }
}

/// Launches the ranks again and puts a new engine in the place of the old one.
async fn restart(engine: &Engine, config: &Config, serve: &ServeConfig) -> Result<Ended> {
    // Their memory is needed.
    engine.released().await;
    let for_launch = config.clone();
    let launch = move || -> Result<RankGroup> {
        let (checkpoint, _) = resolve_model(&for_launch.model, !for_launch.engine.dummy_weights)?;
        Ok(RankGroup::launch(&checkpoint, &for_launch.engine, &LoadProgress::new())?)
    };
    let group = tokio::task::spawn_blocking(launch).await??;
    let (new, ended) = start_engine(group, config, serve)?;
    engine.replace_by(&new);
    Ok(ended)
}

async fn all_closed(engine: &Engine) {
    while engine.open_requests() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// SIGTERM and SIGINT, which is Ctrl-C.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(crate) async fn next(&mut self) {
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
        "Model {name}: {}, {:.1} M parameters, {}, {:.1} MiB of weights on {}; attention: {}",
        limits.architecture,
        limits.num_parameters as f64 / 1e6,
        limits.number_formats(),
        mib(memory.weight_bytes),
        limits.device,
        limits.attention,
    );
    tracing::info!(
        "KV cache: {} pages of {page_size} = {} tokens, {:.1} MiB; prefix cache {}",
        memory.num_pages,
        memory.num_pages * page_size,
        mib(memory.kv_bytes),
        scheduler.cache,
    );
    if let Some(gpu) = limits.gpu_memory {
        let gib = |bytes: usize| mib(bytes) / 1024.0;
        let (total, free) = (gpu.total_bytes as usize, gpu.free_bytes as usize);
        let planned = memory.weight_bytes + memory.step_bytes + memory.kv_bytes;
        tracing::info!(
            "Memory of the first GPU, in GiB: weights {:.2}, steps and workspaces {:.2}, KV cache \
             {:.2}, graphs, libraries and others {:.2}, free {:.2}, in all {:.2}",
            gib(memory.weight_bytes),
            gib(memory.step_bytes),
            gib(memory.kv_bytes),
            gib(total.saturating_sub(free).saturating_sub(planned)),
            gib(free),
            gib(total),
        );
    }
    if !limits.graph_sizes.is_empty() {
        tracing::info!(
            "CUDA graphs for decode batches of up to {} sequences ({} sizes)",
            limits.graph_sizes.iter().max().unwrap_or(&0),
            limits.graph_sizes.len()
        );
    }
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
