//! What the engine thread does. Knows the driver and its commands; never who sent them.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc as std_mpsc;

use minisgl_sched::{Driver, Event, Executor, FinishReason};
use tokio::sync::mpsc;

use super::{Command, Shared};

/// Runs steps until told to stop, or nobody listens any more.
pub(super) fn run<E: Executor>(
    driver: &mut Driver<E>,
    commands: &std_mpsc::Receiver<Command>,
    batches: &mpsc::Sender<Vec<Event>>,
    shared: &Shared,
) -> Result<(), E::Error> {
    loop {
        let mut events = Vec::new();
        if driver.is_idle() {
            let Ok(command) = commands.recv() else { return Ok(()) };
            if !obey(driver, command, &mut events)? {
                return Ok(());
            }
        }
        while let Ok(command) = commands.try_recv() {
            if !obey(driver, command, &mut events)? {
                return Ok(());
            }
        }
        shared.step_began.store(shared.now(), Ordering::Release);
        events.extend(driver.step()?);
        *shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = driver.stats();
        if !events.is_empty() && batches.blocking_send(events).is_err() {
            return Ok(());
        }
        shared.step_began.store(0, Ordering::Release);
    }
}

/// Returns whether to go on.
fn obey<E: Executor>(
    driver: &mut Driver<E>,
    command: Command,
    events: &mut Vec<Event>,
) -> Result<bool, E::Error> {
    match command {
        Command::Submit(request) => {
            let id = request.id;
            if let Err(error) = driver.add(request) {
                let reason = FinishReason::Error(error.to_string().into());
                events.push(Event::Finished { id, reason, cached_tokens: 0 });
            }
        }
        Command::Abort(id) => events.extend(driver.abort(id)),
        Command::Check => driver.check()?,
        Command::Stop => return Ok(false),
    }
    Ok(true)
}
