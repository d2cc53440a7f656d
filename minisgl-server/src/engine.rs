//! The engine thread: the only one that touches the scheduler and the executor.
//!
//! An [`Engine`] is a handle for the async side: it opens [`Submission`]s, each the requests of one
//! API call, and knows whether the thread is well. Commands go to the thread over one channel, and
//! one message per step with the events of all requests comes back; a task hands them on, which for
//! 256 clients is twice as fast as if the thread woke each of them. The thread sleeps while there is
//! nothing to do.
//!
//! All queues are bounded: at most [`EngineConfig::max_open_requests`] requests are open at a time,
//! each sends at most three commands and gets at most `max_tokens + 1` events, and at most
//! [`MAX_BATCHES`] messages wait for the task.
//! Never knows text, HTTP, or what executes the steps.

mod submission;
mod thread;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, mpsc as std_mpsc};
use std::time::{Duration, Instant};
use std::{io, panic};

use minisgl_sched::{Driver, Event, Executor, FinishReason, Request, RequestId, Stats};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::submission::{Submission, Update};

/// Messages of the engine thread that wait to be handed on, one per step.
pub const MAX_BATCHES: usize = 64;

/// What the engine is held to.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Requests open at a time, whether they run or wait; more are refused.
    pub max_open_requests: usize,
    /// A step that takes longer than this is believed to hang. What executes the steps is to give it
    /// up then; here it is only reported.
    pub step_timeout: Duration,
}

/// A handle of the engine thread, or of the one that has taken its place.
#[derive(Clone, Debug)]
pub struct Engine {
    current: Arc<RwLock<Arc<Shared>>>,
}

/// How the thread is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes requests.
    Ready,
    /// It finishes what is open, and takes nothing more.
    Draining,
    /// One step has taken longer than [`EngineConfig::step_timeout`].
    Stalled,
    /// It has ended, for this reason.
    Failed(Arc<str>),
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many requests are open as are allowed.
    #[error("the request queue is full: {open} of {max} requests are open")]
    QueueFull {
        /// Requests open.
        open: usize,
        /// The limit.
        max: usize,
    },
    /// The server is about to stop.
    #[error("the server is shutting down")]
    Draining,
    /// The engine thread has ended.
    #[error("the engine has failed")]
    Failed,
}

#[derive(Debug)]
struct Shared {
    commands: std_mpsc::Sender<Command>,
    /// Who waits for the events of a request; `None` once no more events will come.
    routes: Mutex<Option<HashMap<RequestId, Route>>>,
    next_id: AtomicU64,
    open: AtomicUsize,
    config: EngineConfig,
    draining: AtomicBool,
    failure: OnceLock<Arc<str>>,
    stats: Mutex<Stats>,
    started: Instant,
    /// When the current step began, in milliseconds after `started`, plus one; 0 between steps.
    step_began: AtomicU64,
    /// Whether the thread has dropped the driver, and with it what executes the steps.
    released: watch::Sender<bool>,
}

/// Where the events of one request go, and its index among the requests of one call.
#[derive(Debug)]
struct Route {
    index: usize,
    updates: mpsc::UnboundedSender<Update>,
}

#[derive(Debug)]
enum Command {
    Submit(Request),
    Abort(RequestId),
    /// Ask the executor how it is: it may have broken while it had nothing to do.
    Check,
    Stop,
}

/// Starts the thread, and the task that hands its events on. Returns a handle and what becomes ready
/// when the thread has ended: with the reason if that was not asked for.
///
/// # Errors
/// If the thread cannot be started.
///
/// # Panics
/// If called outside of a Tokio runtime.
pub fn start<E: Executor + Send + 'static>(
    mut driver: Driver<E>,
    config: EngineConfig,
) -> io::Result<(Engine, oneshot::Receiver<Option<Arc<str>>>)> {
    let (commands, received_commands) = std_mpsc::channel();
    let (batches, received_batches) = mpsc::channel(MAX_BATCHES);
    let (ended, has_ended) = oneshot::channel();
    let check: std_mpsc::Sender<Command> = commands.clone();
    // If nobody receives it, the thread has ended.
    driver.on_failure(Box::new(move || drop(check.send(Command::Check))));
    let shared = Arc::new(Shared {
        commands,
        routes: Mutex::new(Some(HashMap::new())),
        next_id: AtomicU64::new(1),
        open: AtomicUsize::new(0),
        config,
        draining: AtomicBool::new(false),
        failure: OnceLock::new(),
        stats: Mutex::new(driver.stats()),
        started: Instant::now(),
        step_began: AtomicU64::new(0),
        released: watch::Sender::new(false),
    });
    let for_thread = shared.clone();
    let body = move || {
        // The driver is not looked at again after a panic, only dropped.
        let mut driver = driver;
        let run = || thread::run(&mut driver, &received_commands, &batches, &for_thread);
        let failure: Option<Arc<str>> = match panic::catch_unwind(panic::AssertUnwindSafe(run)) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Arc::from(error.to_string())),
            Err(payload) => Some(Arc::from(panic_message(payload.as_ref()))),
        };
        if let Some(reason) = &failure {
            tracing::error!("the engine has failed: {reason}");
            for_thread.failure.get_or_init(|| reason.clone());
        }
        // Whoever waits for events learns it before whoever waits for the end.
        drop(batches);
        // Nobody may be waiting for the end.
        let _ = ended.send(failure);
        // This may take as long as the ranks take to notice.
        drop(driver);
        for_thread.released.send_replace(true);
    };
    std::thread::Builder::new().name("engine".to_owned()).spawn(body)?;
    tokio::spawn(route(received_batches, shared.clone()));
    Ok((Engine { current: Arc::new(RwLock::new(shared)) }, has_ended))
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("no message"))
}

/// Hands events on until the thread ends, then tells all that still wait.
async fn route(mut batches: mpsc::Receiver<Vec<Event>>, shared: Arc<Shared>) {
    while let Some(batch) = batches.recv().await {
        let mut routes = shared.routes();
        let Some(routes) = routes.as_mut() else { return };
        for event in batch {
            let (id, is_last) = match &event {
                Event::Token { id, .. } => (*id, false),
                Event::Finished { id, .. } => (*id, true),
            };
            // Nobody waits for a request whose client has gone.
            let Some(route) = routes.get(&id) else { continue };
            let _ = route.updates.send(Update { index: route.index, event });
            if is_last {
                routes.remove(&id);
            }
        }
    }
    shared.close_routes();
}

impl Shared {
    fn routes(&self) -> MutexGuard<'_, Option<HashMap<RequestId, Route>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all that still wait that nothing more will come.
    fn close_routes(&self) {
        for (id, route) in self.routes().take().into_iter().flatten() {
            let _ = route.updates.send(Update { index: route.index, event: self.lost(id) });
        }
    }

    /// The last event of a request when the thread has ended.
    fn lost(&self, id: RequestId) -> Event {
        let reason = match self.failure.get() {
            Some(_) => FinishReason::Error("the engine has failed".into()),
            None => FinishReason::Abort,
        };
        Event::Finished { id, reason, cached_tokens: 0 }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1
    }
}

impl Engine {
    fn shared(&self) -> Arc<Shared> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes this handle and all its clones handles of `other`'s thread. What was opened before stays
    /// with the old one.
    pub fn replace_by(&self, other: &Engine) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = other.shared();
    }

    /// Waits until the thread has ended and let go of what executes the steps.
    pub async fn released(&self) {
        let mut released = self.shared().released.subscribe();
        // An error means that whoever could say it is gone.
        let _ = released.wait_for(|released| *released).await;
    }

    /// Reserves room for `count` requests.
    ///
    /// # Errors
    /// [`Refusal`], before any work is done for the requests.
    pub fn open(&self, count: usize) -> Result<Submission, Refusal> {
        let shared = self.shared();
        if shared.failure.get().is_some() {
            return Err(Refusal::Failed);
        }
        if shared.draining.load(Ordering::Acquire) {
            return Err(Refusal::Draining);
        }
        let max = shared.config.max_open_requests;
        let more = |open: usize| open.checked_add(count).filter(|open| *open <= max);
        match shared.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Submission::new(shared, count)),
            Err(open) => Err(Refusal::QueueFull { open, max }),
        }
    }

    /// How many requests may be open at a time.
    pub fn max_open_requests(&self) -> usize {
        self.shared().config.max_open_requests
    }

    /// How many are open: what was reserved and not yet given back.
    pub fn open_requests(&self) -> usize {
        self.shared().open.load(Ordering::Acquire)
    }

    /// The scheduler's counts after the last step.
    pub fn stats(&self) -> Stats {
        *self.shared().stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the thread is. Costs nothing.
    pub fn health(&self) -> Health {
        let shared = self.shared();
        if let Some(reason) = shared.failure.get() {
            return Health::Failed(reason.clone());
        }
        let began = shared.step_began.load(Ordering::Acquire);
        let timeout = shared.config.step_timeout.as_millis() as u64;
        if began != 0 && shared.now().saturating_sub(began) > timeout {
            return Health::Stalled;
        }
        if shared.draining.load(Ordering::Acquire) { Health::Draining } else { Health::Ready }
    }

    /// Takes no more requests from now on.
    pub fn drain(&self) {
        self.shared().draining.store(true, Ordering::Release);
    }

    /// Ends all open requests with an abort, whatever the thread does: for one that does not
    /// [`stop`](Engine::stop), since its step hangs.
    pub fn abandon(&self) {
        self.drain();
        self.shared().close_routes();
    }

    /// Ends the thread after the step it is at; requests still open end with an abort.
    pub fn stop(&self) {
        self.drain();
        // If nobody receives it, the thread has ended.
        let _ = self.shared().commands.send(Command::Stop);
    }
}
