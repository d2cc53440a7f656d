//! Where the ranks of a group wait for each other: a barrier that can be aborted, and that makes
//! sure all came for the same call.
//!
//! Never knows: what is exchanged there.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::CommError;
use crate::call::Call;

/// The meeting point of a fixed number of ranks, used again and again.
pub(crate) struct Rendezvous {
    world_size: usize,
    /// What messages call rank 0.
    first_rank: usize,
    state: Mutex<State>,
    // Signalled when `generation` or `abort_reason` changes.
    changed: Condvar,
    /// Called once, after the abort; empty from then on.
    hooks: Mutex<Vec<Hook>>,
}

type Hook = Box<dyn FnOnce(&str) + Send>;

/// What is decided under the lock. That the waiting around it is right is checked in all orders by
/// `tests/protocol.rs`, which runs these very functions.
#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    /// How often all ranks have met.
    generation: u64,
    /// How many have come since.
    num_arrived: usize,
    /// Who came first since, and for what.
    first: Option<(usize, Call)>,
    abort_reason: Option<Arc<str>>,
}

/// What a rank finds that comes to a meeting.
enum Arrival {
    /// It is the last one; the others are to be woken.
    Complete,
    /// It has to wait until this generation is over.
    Wait(u64),
    /// Others have come for another call: the rank that came first, and its call.
    Mismatch(usize, Call),
}

impl State {
    fn new() -> Self {
        Self { generation: 0, num_arrived: 0, first: None, abort_reason: None }
    }

    /// `rank` of `world_size` has come for `call`.
    fn arrive(&mut self, world_size: usize, rank: usize, call: Call) -> Result<Arrival, CommError> {
        let (first_rank, first_call) = *self.first.get_or_insert((rank, call));
        if first_call != call {
            return Ok(Arrival::Mismatch(first_rank, first_call));
        }
        self.check()?;
        self.num_arrived += 1;
        if self.num_arrived < world_size {
            return Ok(Arrival::Wait(self.generation));
        }
        self.num_arrived = 0;
        self.first = None;
        self.generation += 1;
        Ok(Arrival::Complete)
    }

    /// Whether a rank that came in `generation` has to wait on.
    fn must_wait(&self, generation: u64) -> bool {
        self.generation == generation && self.abort_reason.is_none()
    }

    /// How the meeting of `generation` has ended, once nobody has to wait for it.
    fn outcome(&self, generation: u64) -> Result<(), CommError> {
        if self.generation == generation { self.check() } else { Ok(()) }
    }

    /// Returns whether this was the first abort: then all who wait are to be woken.
    fn abort(&mut self, reason: &str) -> bool {
        let is_first = self.abort_reason.is_none();
        if is_first {
            self.abort_reason = Some(reason.into());
        }
        is_first
    }

    fn check(&self) -> Result<(), CommError> {
        match &self.abort_reason {
            None => Ok(()),
            Some(reason) => Err(CommError::Aborted { reason: reason.clone() }),
        }
    }
}

impl Rendezvous {
    pub(crate) fn new(world_size: usize, first_rank: usize) -> Self {
        let state = Mutex::new(State::new());
        Self { world_size, first_rank, state, changed: Condvar::new(), hooks: Mutex::default() }
    }

    /// Waits until every rank has come for `call`. What the ranks did before is visible to all of
    /// them after. A meeting that was complete before an abort still counts as complete.
    ///
    /// # Errors
    /// [`CommError::Aborted`] if the group was aborted before all had come. A rank that comes for
    /// another call than the first one aborts it.
    pub(crate) fn meet(&self, rank: usize, call: Call) -> Result<(), CommError> {
        let mut state = self.lock();
        match state.arrive(self.world_size, rank, call)? {
            Arrival::Complete => {
                drop(state);
                self.changed.notify_all();
                Ok(())
            }
            Arrival::Wait(generation) => self
                .changed
                .wait_while(state, |state| state.must_wait(generation))
                .unwrap_or_else(PoisonError::into_inner)
                .outcome(generation),
            Arrival::Mismatch(first_rank, first_call) => {
                let [rank, first_rank] = [rank, first_rank].map(|rank| self.first_rank + rank);
                let reason =
                    format!("rank {rank} called {call}, but rank {first_rank} called {first_call}");
                self.abort_locked(&mut state, &reason);
                drop(state);
                self.run_hooks();
                self.check()
            }
        }
    }

    /// # Errors
    /// [`CommError::Aborted`] if the group was aborted.
    pub(crate) fn check(&self) -> Result<(), CommError> {
        self.lock().check()
    }

    /// Fails every rank that waits and every later meeting. The first reason stays.
    pub(crate) fn abort(&self, reason: &str) {
        self.abort_locked(&mut self.lock(), reason);
        self.run_hooks();
    }

    /// Why the group was aborted, if it was.
    pub(crate) fn abort_reason(&self) -> Option<Arc<str>> {
        self.lock().abort_reason.clone()
    }

    /// Waits for an abort, but not for long.
    pub(crate) fn abort_reason_within(&self, time: Duration) -> Option<Arc<str>> {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), time, |state| state.abort_reason.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.abort_reason.clone()
    }

    /// Calls `hook` with the reason once the group is aborted; at once if it is already.
    pub(crate) fn on_abort(&self, hook: Hook) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(hook);
        // An abort that came before, or meanwhile, may have missed it.
        self.run_hooks();
    }

    /// Calls the hooks if the group is aborted. Holds no lock while it does, since a hook may abort.
    fn run_hooks(&self) {
        if let Some(reason) = self.abort_reason() {
            let hooks =
                std::mem::take(&mut *self.hooks.lock().unwrap_or_else(PoisonError::into_inner));
            hooks.into_iter().for_each(|hook| hook(&reason));
        }
    }

    /// Passes on `result` of rank `rank`, after aborting the group if it is a failure.
    pub(crate) fn abort_on_error(
        &self,
        rank: usize,
        result: Result<(), CommError>,
    ) -> Result<(), CommError> {
        match &result {
            Ok(()) | Err(CommError::Aborted { .. }) => {}
            Err(error) => self.abort(&format!("rank {}: {error}", self.first_rank + rank)),
        }
        result
    }

    fn abort_locked(&self, state: &mut State, reason: &str) {
        if state.abort(reason) {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, so a poisoned state would still be sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Aborts a group from outside: for a supervisor, a watchdog, or whoever learns that a rank is in
/// trouble. Clones abort the same group. It outlives the group harmlessly.
#[derive(Clone)]
pub struct AbortHandle {
    rendezvous: Arc<Rendezvous>,
}

impl AbortHandle {
    pub(crate) fn new(rendezvous: Arc<Rendezvous>) -> Self {
        Self { rendezvous }
    }

    /// As [`Communicator::abort`](crate::Communicator::abort). Never blocks for long.
    pub fn abort(&self, reason: &str) {
        self.rendezvous.abort(reason);
    }

    /// Why the group was aborted, if it was.
    pub fn reason(&self) -> Option<Arc<str>> {
        self.rendezvous.abort_reason()
    }

    /// Why the group was aborted; waits for it, but not for long.
    pub(crate) fn reason_within(&self, time: Duration) -> Option<Arc<str>> {
        self.rendezvous.abort_reason_within(time)
    }

    /// Calls `hook` with the reason, once, when the group is aborted; at once if it has been. It is
    /// called by whoever aborts, so it must not wait for a rank.
    pub fn on_abort(&self, hook: impl FnOnce(&str) + Send + 'static) {
        self.rendezvous.on_abort(Box::new(hook));
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle").field("reason", &self.reason()).finish()
    }
}

#[cfg(test)]
mod tests;
