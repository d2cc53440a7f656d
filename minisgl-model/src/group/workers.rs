//! The threads of this process's ranks: fed over channels, and waited for when they are to end, but
//! not for ever: one that hangs, in a kernel perhaps, is left behind.
//! Never knows what they do.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::worker::Work;
use crate::ModelError;

/// How long threads may take to end once they are told to: longer than most steps.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// How long they may take after an abort before they count as those that hang.
const NOTICE: Duration = Duration::from_secs(1);

/// See the [module](self). Dropping it ends the threads.
#[derive(Debug)]
pub(super) struct Workers {
    work: Vec<Sender<Work>>,
    threads: Vec<JoinHandle<()>>,
    running: RunningRanks,
    end_timeout: Duration,
}

impl Workers {
    /// None yet. A step takes at most `step_timeout`; a thread that takes longer to end hangs.
    pub(super) fn new(step_timeout: Duration) -> Self {
        let end_timeout = step_timeout.min(END_TIMEOUT);
        Self {
            work: Vec::new(),
            threads: Vec::new(),
            running: RunningRanks::default(),
            end_timeout,
        }
    }

    /// Starts the thread of `rank`, which is to end when it is given no more work.
    pub(super) fn start(
        &mut self,
        rank: usize,
        body: impl FnOnce(Receiver<Work>) + Send + 'static,
    ) -> Result<(), ModelError> {
        let (work, receiver) = channel();
        let presence = self.running.begin(rank);
        let run = move || {
            body(receiver);
            drop(presence);
        };
        let thread = std::thread::Builder::new().name(format!("rank-{rank}")).spawn(run);
        self.threads.push(thread.map_err(|source| ModelError::Thread { rank, source })?);
        self.work.push(work);
        Ok(())
    }

    /// Where each of them takes its work from.
    pub(super) fn work(&self) -> &[Sender<Work>] {
        &self.work
    }

    /// Which threads have not ended yet.
    pub(super) fn running(&self) -> &RunningRanks {
        &self.running
    }

    /// The ranks that do not even end, after the group was aborted since one of them hangs: those that
    /// only waited for that one do.
    pub(super) fn who_hangs(&mut self) -> Vec<usize> {
        self.end(NOTICE)
    }

    /// Gives no more work, and waits for at most `timeout` until all have ended. Returns the ranks
    /// that have not.
    fn end(&mut self, timeout: Duration) -> Vec<usize> {
        self.work.clear();
        let left = self.running.wait(timeout);
        if left.is_empty() {
            for thread in self.threads.drain(..) {
                let _ = thread.join(); // A panic in it was reported as a failure.
            }
        }
        left
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end(self.end_timeout);
    }
}

/// Which ranks of a group still have a thread, known after the group is gone, too: a thread that
/// hangs keeps its memory and its device.
#[derive(Clone, Default)]
pub struct RunningRanks {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    ranks: Mutex<BTreeSet<usize>>,
    ended: Condvar,
}

impl RunningRanks {
    /// Their numbers.
    pub fn ranks(&self) -> Vec<usize> {
        self.lock().iter().copied().collect()
    }

    fn begin(&self, rank: usize) -> Presence {
        self.lock().insert(rank);
        Presence { rank, shared: self.shared.clone() }
    }

    /// Waits until there are none, but not for longer than `timeout`; returns those there are.
    pub fn wait(&self, timeout: Duration) -> Vec<usize> {
        let waited =
            self.shared.ended.wait_timeout_while(self.lock(), timeout, |ranks| !ranks.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.shared.ranks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RunningRanks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RunningRanks").field(&self.ranks()).finish()
    }
}

/// A rank's thread, while it runs.
struct Presence {
    rank: usize,
    shared: Arc<Shared>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.shared.ranks.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.rank);
        self.shared.ended.notify_all();
    }
}
