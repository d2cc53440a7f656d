//! The thread of one rank: loads, says it is ready, then runs steps until its channel ends.
//! Knows its own engine; never the plans behind the batches.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use minisgl_comm::{AbortHandle, CommError, Communicator};
use minisgl_sched::{StepId, StepOutput};

use crate::ModelError;
use crate::batch::HostBatch;
use crate::engine::{Engine, MAX_LAUNCHED};

/// How often a thread whose device is busy looks whether it is done: a small part of the shortest
/// step.
const POLL: Duration = Duration::from_micros(20);

/// What a rank's thread does next.
enum Next {
    Launch(Work),
    /// The oldest step is done.
    Finish,
    End,
}

/// One step to run.
pub(super) struct Work {
    pub(super) step: StepId,
    pub(super) batch: Arc<HostBatch>,
}

/// What a rank's thread tells the group.
#[derive(Debug)]
pub(super) enum Report {
    /// Loading gets on.
    Progress(Progress),
    /// The engine is complete.
    Ready { rank: usize, unused_tensors: Vec<String> },
    /// Rank 0's samples of a step; those of the other ranks are the same.
    Sampled(StepOutput),
    /// The rank is gone, and with it the group.
    Failed { rank: usize, error: ModelError },
}

/// How a rank's loading gets on; all but the first from rank 0 alone.
#[derive(Debug)]
pub(super) enum Progress {
    /// So many more bytes of the checkpoint are read.
    Loaded(u64),
    /// Which sums take which way.
    SumsMeasured(String),
    /// So many shapes of matrix multiplications are to be measured.
    TuningGemms(usize),
    /// And they were, in this time.
    GemmsTuned(Duration),
    /// So many graphs were captured, in this time.
    GraphsCaptured(usize, Duration),
}

/// What a rank's thread is given.
pub(super) struct RankThread {
    pub(super) rank: usize,
    pub(super) work: Receiver<Work>,
    pub(super) reports: Sender<Report>,
    pub(super) abort: AbortHandle,
}

/// What a rank's thread has so far. Dropping any of it tells the others that the rank has left.
#[derive(Default)]
pub(super) struct Holdings {
    /// Until there is an engine, which has it then.
    pub(super) comm: Option<Box<dyn Communicator>>,
    pub(super) engine: Option<Engine>,
}

impl RankThread {
    /// Builds the engine with `load`, which returns the names of tensors that nobody uses; then runs
    /// steps. An error or a panic ends the group.
    pub(super) fn run(
        self,
        load: impl FnOnce(&mut Holdings, &Sender<Report>) -> Result<Vec<String>, ModelError>,
    ) {
        let mut holdings = Holdings::default();
        let done = catch_unwind(AssertUnwindSafe(|| self.serve(load, &mut holdings)));
        let rank = self.rank;
        let error = match done {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => {
                let message = format!("panicked: {}", panic_message(&*panic));
                ModelError::Rank { rank, message }
            }
        };
        let reason = format!("rank {rank} failed: {error}");
        // First tell why, then wake the others: theirs is only the echo. Then leave.
        let _ = self.reports.send(Report::Failed { rank, error });
        self.abort.abort(&reason);
        drop(holdings);
    }

    fn serve(
        &self,
        load: impl FnOnce(&mut Holdings, &Sender<Report>) -> Result<Vec<String>, ModelError>,
        holdings: &mut Holdings,
    ) -> Result<(), ModelError> {
        let unused_tensors = load(holdings, &self.reports)?;
        let engine = holdings.engine.as_mut().expect("it was loaded");
        // Nobody listens any more: the group is being dropped, and this thread ends with it.
        let send = |report| self.reports.send(report).is_ok();
        if !send(Report::Ready { rank: self.rank, unused_tensors }) {
            return Ok(());
        }
        let mut launched = VecDeque::new();
        loop {
            let work = match self.next(engine, launched.is_empty())? {
                Next::Launch(Work { step, batch }) => {
                    launched.push_back((step, engine.launch(&batch)?));
                    if launched.len() < MAX_LAUNCHED {
                        continue;
                    }
                    launched.pop_front()
                }
                Next::Finish => launched.pop_front(),
                Next::End => return Ok(()),
            };
            let Some((step, ticket)) = work else { continue };
            let samples = engine.finish(ticket)?;
            if self.rank == 0 && !send(Report::Sampled(StepOutput { step, samples })) {
                return Ok(());
            }
        }
    }

    /// Waits for something to do. While steps run, both the next one and their end are waited for:
    /// the device must never wait for this thread.
    fn next(&self, engine: &Engine, idle: bool) -> Result<Next, ModelError> {
        if idle {
            return Ok(self.work.recv().map_or(Next::End, Next::Launch));
        }
        // What is done is reported first: on the CPU launching the next step computes it.
        while !engine.is_done()? {
            if let Some(reason) = self.abort.reason() {
                return Err(CommError::Aborted { reason }.into());
            }
            match self.work.recv_timeout(POLL) {
                Ok(work) => return Ok(Next::Launch(work)),
                Err(RecvTimeoutError::Disconnected) => return Ok(Next::End),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        Ok(Next::Finish)
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("for no stated reason")
}
