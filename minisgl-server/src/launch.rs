//! From a configuration to a running server, and from there to its end: loading, serving, signals,
//! failure.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow, ensure};
use minisgl_model::{Checkpoint, EngineLimits, RankGroup, RunningRanks};
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
use crate::startup::Startup;

/// Threads of the network side: detokenizing and writing take little, computing takes the rest.
const MAX_NETWORK_THREADS: usize = 4;

/// How long the step that runs may take to end, and the ranks after it, once they are told to.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long answers may take to reach their clients after the engine has failed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A model with what it is called, and where it came from.
pub(crate) struct Loaded {
    pub(crate) checkpoint: Checkpoint,
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
    let name = config.served_model_name.clone().unwrap_or(name);
    Ok(Loaded { checkpoint, group, text, name })
}

/// Serves until told to stop.
///
/// # Errors
/// If the server cannot start, or the engine fails.
pub(crate) fn serve(config: &Config, serve: &ServeConfig, startup: &Startup) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(MAX_NETWORK_THREADS))
        .thread_name("network")
        .enable_all()
        .build()?;
    let result = start_and_serve(&runtime, config, serve, startup);
    // Tokenizing for clients that are gone need not be waited for.
    runtime.shutdown_background();
    result
}

fn start_and_serve(
    runtime: &Runtime,
    config: &Config,
    serve: &ServeConfig,
    startup: &Startup,
) -> Result<()> {
    // First of all, so that a port in use is known before a model is loaded for minutes.
    let bound = BoundAddress::bind(&serve.host, serve.port)?;
    let Loaded { checkpoint, group, text, name } = load(config)?;
    log_limits(config, serve, group.limits(), &name);

    let _in_runtime = runtime.enter();
    let (engine, ended, ranks) = start_engine(group, config, serve)?;
    let options = ApiOptions {
        model_name: name,
        api_key: serve.api_key.clone(),
        max_body_bytes: serve.max_body_bytes,
        num_tokenizers: serve.num_tokenizers,
    };
    let api = Arc::new(Api::new(engine.clone(), Arc::new(text), options));
    let signals = Signals::listen()?;
    startup.is_over();
    let address = bound.address();
    let listener = bound.listen()?;
    let (stop, stopping) = watch::channel(false);
    let serving = runtime.spawn(http::serve(listener, api, HttpLimits::default(), stopping));
    tracing::info!("API server is ready to serve on {address}");

    runtime.block_on(async {
        let mut supervisor = Supervisor { engine, ranks, checkpoint, config, serve, signals };
        let result = supervisor.run(ended).await;
        stop.send_replace(true);
        serving.await?;
        result
    })
}

/// What becomes ready when the engine has ended.
type Ended = oneshot::Receiver<Option<Arc<str>>>;

fn start_engine(
    group: RankGroup,
    config: &Config,
    serve: &ServeConfig,
) -> Result<(Engine, Ended, Ranks)> {
    let ranks = Ranks::of(&group);
    let max_running = group.limits().scheduler.max_running_requests;
    let scheduler = Scheduler::new(group.limits().scheduler)?;
    let driver = Driver::new(scheduler, group, config.overlap);
    let limits = EngineConfig {
        max_open_requests: max_running.saturating_add(serve.max_queued_requests),
        step_timeout: config.engine.step_timeout,
    };
    let (engine, ended) = engine::start(driver, limits)?;
    Ok((engine, ended, ranks))
}

/// The threads of the ranks, which may outlive the engine if they hang.
pub(crate) struct Ranks {
    running: RunningRanks,
    on_gpus: bool,
}

impl Ranks {
    pub(crate) fn of(group: &RankGroup) -> Self {
        let on_gpus = group.limits().gpu_memory.is_some();
        Self { running: group.running_ranks(), on_gpus }
    }

    /// Once the engine has let go of them.
    ///
    /// # Errors
    /// If there are some that do not end.
    fn check_gone(&self) -> Result<()> {
        let left = self.running.ranks();
        ensure!(left.is_empty(), "the threads of ranks {left:?} do not end");
        Ok(())
    }

    /// As [`Ranks::check_gone`], for ranks that are to be started again in this process.
    pub(crate) fn check_replaceable(&self) -> Result<()> {
        match self.check_gone() {
            // Their memory is not free, and nobody waits for them.
            Err(error) if !self.on_gpus => {
                tracing::warn!("{error}; they are left behind");
                Ok(())
            }
            // What they wait for keeps the GPU from computing anything else.
            checked => checked.context("only a new process can have their GPUs"),
        }
    }
}

/// Waits for the end of a server, by a signal or a failure.
struct Supervisor<'a> {
    engine: Engine,
    ranks: Ranks,
    checkpoint: Checkpoint,
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
            let Self { engine, ranks, checkpoint, config, serve, signals } = self;
            (ended, self.ranks) = tokio::select! {
                restarted = restart(engine, ranks, checkpoint, config, serve) => {
                    restarted.context("cannot start the ranks again")?
                }
                () = signals.next() => return Err(failure),
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
        if tokio::time::timeout(FLUSH_TIMEOUT, all_closed(&engine)).await.is_err() {
            // Not by the engine, which is busy with a step, perhaps for ever.
            engine.abandon();
            let _ = tokio::time::timeout(FLUSH_TIMEOUT, all_closed(&engine)).await;
        }
        // Other nodes are told that this was meant.
        let _ = tokio::time::timeout(RELEASE_TIMEOUT, engine.released()).await;
        self.ranks.check_gone()
    }

    /// The failure as an error, after clients have been told.
    async fn report(&self, failure: Option<Arc<str>>) -> Error {
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, all_closed(&self.engine)).await;
        anyhow!("the engine has failed: {}", failure.as_deref().unwrap_or("it is gone"))
    }
}

/// Launches the ranks again, with the same files, since the tokenizer stays; puts a new engine in the
/// place of the old one.
async fn restart(
    engine: &Engine,
    ranks: &Ranks,
    checkpoint: &Checkpoint,
    config: &Config,
    serve: &ServeConfig,
) -> Result<(Ended, Ranks)> {
    // Their memory is needed.
    engine.released().await;
    ranks.check_replaceable()?;
    let (checkpoint, options) = (checkpoint.clone(), config.engine.clone());
    let launch = move || RankGroup::launch(&checkpoint, &options, &LoadProgress::new());
    let group = tokio::task::spawn_blocking(launch).await??;
    let (new, ended, ranks) = start_engine(group, config, serve)?;
    engine.replace_by(&new);
    Ok((ended, ranks))
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
