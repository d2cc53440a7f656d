//! The thread that looks after one rank: it finds errors and collectives that hang, and ends the
//! communicator when the group is aborted.
//!
//! Never knows: what the collectives are.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use minisgl_kernels::{Device, Event, Stream};

use super::handle::Handle;
use crate::CommError;
use crate::rendezvous::Rendezvous;

/// How often it looks. An abort wakes it.
const INTERVAL: Duration = Duration::from_millis(100);

/// Shared by a rank and its watchdog.
pub(super) struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// A mark behind some collective, and when it was put there. Only one at a time: if the stream
    /// moves on it passes, and a later collective gets the next one.
    mark: Option<Instant>,
    event: Event,
    should_end: bool,
}

impl Watch {
    pub(super) fn start(
        rank: usize,
        device: &Device,
        handle: Arc<Handle>,
        rendezvous: Arc<Rendezvous>,
        timeout: Duration,
    ) -> Result<(Arc<Self>, JoinHandle<()>), CommError> {
        let state = State { mark: None, event: Event::new(device)?, should_end: false };
        let watch = Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() });
        let woken = Arc::downgrade(&watch);
        rendezvous.on_abort(Box::new(move |_| {
            if let Some(watch) = woken.upgrade() {
                // Without the lock, which the rank may hold while the driver lets it wait. Who is just
                // between looking and waiting looks again after an interval.
                watch.changed.notify_all();
            }
        }));
        let body = {
            let watch = watch.clone();
            move || watch.run(rank, &handle, &rendezvous, timeout)
        };
        let thread = thread::Builder::new().name(format!("watchdog-{rank}"));
        let failed = |error: std::io::Error| CommError::Nccl {
            call: "starting a watchdog",
            message: error.to_string(),
        };
        Ok((watch, thread.spawn(body).map_err(failed)?))
    }

    /// A collective was put into `stream`.
    pub(super) fn mark(&self, stream: &Stream) -> Result<(), CommError> {
        let mut state = self.lock();
        if state.mark.is_none() {
            state.event.record(stream)?;
            state.mark = Some(Instant::now());
        }
        Ok(())
    }

    pub(super) fn end(&self) {
        self.lock().should_end = true;
        self.changed.notify_all();
    }

    fn run(&self, rank: usize, handle: &Handle, rendezvous: &Rendezvous, timeout: Duration) {
        let mut state = self.lock();
        while !state.should_end {
            if rendezvous.abort_reason().is_some() {
                return handle.abort();
            }
            if let Some(since) = state.mark {
                match state.event.is_done() {
                    Ok(true) => state.mark = None,
                    Ok(false) if since.elapsed() > timeout => {
                        let seconds = timeout.as_secs_f64();
                        let reason =
                            format!("rank {rank}: a collective takes longer than {seconds} s");
                        state.mark = None;
                        drop(state);
                        rendezvous.abort(&reason);
                        return handle.abort();
                    }
                    Ok(false) => {}
                    Err(error) => {
                        drop(state);
                        rendezvous.abort(&format!("rank {rank}: {error}"));
                        return handle.abort();
                    }
                }
            }
            drop(state);
            if let Err(error) = handle.async_error("a collective") {
                rendezvous.abort(&format!("rank {rank}: {error}"));
                return handle.abort();
            }
            state = self.lock();
            if !state.should_end && rendezvous.abort_reason().is_none() {
                let waited = self.changed.wait_timeout(state, INTERVAL);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
