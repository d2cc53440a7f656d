//! From decisions to a running group: starts one thread per rank, each of which loads its part, and
//! waits until all are ready. Never knows options that are decided already, or a step.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use minisgl_cache::KvPool;
use minisgl_comm::CommError;
use minisgl_kernels::Device;

use super::launch::{Decisions, Launch};
use super::members::Member;
use super::nodes::Unheard;
use super::placement::RankSetup;
use super::worker::{Holdings, Progress, RankThread, Report};
use super::workers::Workers;
use super::{LaunchObserver, RankGroup};
use crate::batch::BatchBuilder;
use crate::decoder::Decoder;
use crate::engine::Engine;
use crate::weights::{Loader, Source};
use crate::{EngineOptions, ModelError};

/// How long the rank that is at fault is waited for once another one has failed because of it.
const ECHO_TIMEOUT: Duration = Duration::from_secs(1);

impl Launch {
    /// Starts the threads and waits until all ranks are ready: those of all nodes on node 0, and its
    /// own on another. If that fails, no thread is left that still works, but for one that hangs.
    ///
    /// - `members`: one for each rank of this process.
    pub(super) fn start(
        self,
        members: Vec<Member>,
        unheard: Option<Unheard>,
        options: &EngineOptions,
        observer: &dyn LaunchObserver,
    ) -> Result<RankGroup, ModelError> {
        let Self { decisions, ranks, mut limits, .. } = self;
        let decisions = Arc::new(decisions);
        let builder = || {
            BatchBuilder::new(
                options.page_size,
                options.max_running_requests,
                decisions.limits.max_pages_per_row,
                decisions.graph_sizes.clone(),
            )
        };
        let first_device = ranks[0].device.clone();
        let group = members[0].abort.clone();
        let local: BTreeSet<usize> = ranks.iter().map(|rank| rank.shard.rank).collect();
        let (report, reports) = channel();
        // Whatever fails from here on, dropping it waits for the threads.
        let mut workers = Workers::new(options.step_timeout);
        for (setup, Member { connect, abort }) in ranks.into_iter().zip(members) {
            let (rank, reports, decisions) =
                (setup.shard.rank, report.clone(), Arc::clone(&decisions));
            let run = move |work| {
                let thread = RankThread { rank, work, reports, abort };
                thread.run(|holdings, reports| {
                    holdings.comm = Some(connect()?);
                    load(&decisions, setup, holdings, reports)
                });
            };
            workers.start(rank, run).inspect_err(|error| group.abort(&error.to_string()))?;
        }
        let listen =
            |unheard: Unheard| unheard.listen(&group, &report, workers.work().to_vec(), builder());
        // The other nodes are to hear of a failure, not of a leave.
        let abort = |error: &ModelError| group.abort(&error.to_string());
        let nodes = unheard.map(listen).transpose().inspect_err(abort)?;
        drop(report);
        let waiting = Waiting {
            world_size: limits.tp_size,
            awaited: if local.contains(&0) { limits.tp_size } else { local.len() },
            local,
            timeout: options.init_timeout,
        };
        if let Err(error) = waiting.await_ready(&decisions, &reports, observer) {
            abort(&error);
            return Err(match error {
                ModelError::Timeout { what, option, seconds, .. } => {
                    ModelError::Timeout { what, option, seconds, ranks: workers.who_hangs() }
                }
                other => other,
            });
        }
        if matches!(first_device, Device::Cuda(_)) {
            limits.gpu_memory = Some(first_device.memory().inspect_err(|error| {
                group.abort(&error.to_string());
            })?);
        }
        Ok(RankGroup {
            builder: builder(),
            limits,
            reports,
            in_flight: Default::default(),
            abort: group,
            nodes,
            workers,
            step_timeout: options.step_timeout,
            broken: None,
        })
    }
}

/// What is waited for while ranks load.
struct Waiting {
    world_size: usize,
    /// Ranks, those of other nodes included.
    awaited: usize,
    /// The ranks of this process that are not ready. Another node looks after its own.
    local: BTreeSet<usize>,
    /// How long these may take from one sign of progress to the next.
    timeout: Duration,
}

impl Waiting {
    fn await_ready(
        mut self,
        decisions: &Decisions,
        reports: &Receiver<Report>,
        observer: &dyn LaunchObserver,
    ) -> Result<(), ModelError> {
        let total = match &decisions.source {
            Source::Files(files) => files.total_bytes(),
            Source::Dummy => 0,
        };
        let (mut loaded, mut ready) = (0, 0);
        while ready < self.awaited {
            let report = match self.local.is_empty() {
                true => reports.recv().map_err(RecvTimeoutError::from),
                false => reports.recv_timeout(self.timeout),
            };
            match report {
                Ok(Report::Progress(progress)) => match progress {
                    Progress::Loaded(bytes) => {
                        loaded += bytes;
                        // Of dummy weights there is nothing to read.
                        if loaded > 0 {
                            observer.weights_loaded(loaded, total.max(loaded));
                        }
                    }
                    Progress::SumsMeasured(found) => observer.sums_measured(&found),
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
                    self.local.remove(&rank);
                    observer.rank_ready(rank, self.world_size);
                }
                Ok(Report::Failed { error, .. }) => return Err(cause(error, reports)),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(ModelError::Timeout {
                        what: "loading has not got on for",
                        option: "--dist-init-timeout",
                        seconds: self.timeout.as_secs_f64(),
                        ranks: Vec::new(),
                    });
                }
                Ok(Report::Sampled(_)) | Err(RecvTimeoutError::Disconnected) => {
                    let message = "ended before it was ready".to_owned();
                    return Err(ModelError::Rank { rank: 0, message });
                }
            }
        }
        Ok(())
    }
}

/// Why a rank has failed that says `error`: if that is the abort by another rank, which may be heard
/// before the other one's own report, what the other one says.
fn cause(error: ModelError, reports: &Receiver<Report>) -> ModelError {
    let is_echo = |error: &ModelError| matches!(error, ModelError::Comm(CommError::Aborted { .. }));
    let deadline = Instant::now() + ECHO_TIMEOUT;
    while is_echo(&error) {
        let left = deadline.saturating_duration_since(Instant::now());
        match reports.recv_timeout(left) {
            Ok(Report::Failed { error: other, .. }) if !is_echo(&other) => return other,
            Ok(_) => {}
            // All have said what they know, or it was another node.
            Err(_) => break,
        }
    }
    error
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
    holdings: &mut Holdings,
    reports: &Sender<Report>,
) -> Result<Vec<String>, ModelError> {
    let RankSetup { shard, geometry, layout, device, attention } = setup;
    let Decisions {
        config,
        dtype,
        limits,
        max_seq_len,
        memory,
        source,
        graph_sizes,
        gemm_cache,
        step_clock,
    } = decisions;
    let stream = device.new_stream()?;
    // Nobody is to load what nobody will use.
    let go_on = || Ok(holdings.comm.as_ref().map_or(Ok(()), |comm| comm.check())?);
    // If nobody listens, this thread finds out later.
    let report = |progress| drop(reports.send(Report::Progress(progress)));
    // Of what all ranks do alike.
    let report_once = |progress| {
        if shard.rank == 0 {
            report(progress)
        }
    };
    let loaded = |bytes| {
        report(Progress::Loaded(bytes));
        go_on()
    };
    let loader = Loader::new(source, &stream, *dtype, &loaded);
    let decoder = Decoder::load(config, &shard, *max_seq_len, &loader, geometry, &device)?;
    let mut unused = loader.finish()?;
    if config.tie_word_embeddings {
        unused.retain(|name| name != "lm_head.weight"); // A copy of the embedding.
    }
    let pool = KvPool::new(&device, layout, memory.num_pages)?;
    go_on()?;
    let mut comm = holdings.comm.take().expect("the rank is connected");
    if let Some(found) = comm.measure(&stream)? {
        report_once(Progress::SumsMeasured(found));
    }
    let engine = Engine::new(stream, comm, decoder, pool, *limits, attention)?;
    let engine = holdings.engine.insert(engine);
    // All ranks take the same time: they wait for each other.
    if let Some(clock) = step_clock.as_ref().filter(|_| shard.rank == 0) {
        engine.time_steps(clock.clone());
    }
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
    Ok(unused)
}
