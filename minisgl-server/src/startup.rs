//! Signals until somebody listens to them: while a model is fetched and loaded, they end the process.
//!
//! The system would do that by itself, but for the first process of a container, where a signal that
//! nobody listens to does nothing.
//! Never knows what is started.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

/// Exit codes as shells have them: 128 and the number of the signal.
const INTERRUPTED: i32 = 130;
const TERMINATED: i32 = 143;

/// Listens to signals.
#[derive(Debug)]
pub(crate) struct Startup {
    /// Whether Ctrl-C ends the process.
    on_interrupt: Arc<AtomicBool>,
    /// Whether SIGTERM does.
    on_terminate: Arc<AtomicBool>,
}

impl Startup {
    /// From now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn watch() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupts, mut terminations) = {
            let _in_runtime = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let startup = Self {
            on_interrupt: Arc::new(AtomicBool::new(true)),
            on_terminate: Arc::new(AtomicBool::new(true)),
        };
        let (on_interrupt, on_terminate) =
            (startup.on_interrupt.clone(), startup.on_terminate.clone());
        let watch = async move {
            loop {
                let (ends, code) = tokio::select! {
                    _ = interrupts.recv() => (&on_interrupt, INTERRUPTED),
                    _ = terminations.recv() => (&on_terminate, TERMINATED),
                };
                if ends.load(Ordering::Acquire) {
                    std::process::exit(code);
                }
            }
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(watch))?;
        Ok(startup)
    }

    /// Somebody else listens to Ctrl-C.
    pub(crate) fn leave_interrupts(&self) {
        self.on_interrupt.store(false, Ordering::Release);
    }

    /// Somebody else listens to all signals.
    pub(crate) fn is_over(&self) {
        self.leave_interrupts();
        self.on_terminate.store(false, Ordering::Release);
    }
}
