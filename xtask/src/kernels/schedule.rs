//! Jobs in parallel, as many as fit in memory.
//!
//! Never knows: what a job does, beyond how much memory it takes.

use std::{
    fs,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Error, Result};

/// A job and about how much memory it takes.
pub(super) struct Job<T> {
    pub(super) item: T,
    pub(super) bytes: u64,
}

/// What waits, and what runs.
struct State<T> {
    /// The largest first, since it takes longest.
    waiting: Vec<Job<T>>,
    running: usize,
    running_bytes: u64,
    failure: Option<Error>,
}

impl<T> State<T> {
    /// The largest job that fits beside those that run. One that fits in no budget runs alone.
    fn take(&mut self, budget: u64) -> Option<Job<T>> {
        let left = budget.saturating_sub(self.running_bytes);
        let fits = |job: &Job<T>| job.bytes <= left;
        let next = match self.waiting.iter().position(fits) {
            None if self.running == 0 && !self.waiting.is_empty() => 0,
            next => next?,
        };
        let job = self.waiting.remove(next);
        self.running += 1;
        self.running_bytes += job.bytes;
        Some(job)
    }
}

/// Runs all of `jobs`, at most `most` at once, and together within `budget` bytes. After a failure
/// no further one is begun; the first is returned.
pub(super) fn run<T: Send>(
    mut jobs: Vec<Job<T>>,
    most: usize,
    budget: u64,
    work: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    jobs.sort_by_key(|job| std::cmp::Reverse(job.bytes));
    let threads = most.clamp(1, jobs.len().max(1));
    let state = Mutex::new(State { waiting: jobs, running: 0, running_bytes: 0, failure: None });
    let changed = Condvar::new();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut guard = lock(&state);
                while guard.failure.is_none() && !guard.waiting.is_empty() {
                    let Some(job) = guard.take(budget) else {
                        guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
                        continue;
                    };
                    drop(guard);
                    let bytes = job.bytes;
                    let result = work(job.item);
                    guard = lock(&state);
                    guard.running -= 1;
                    guard.running_bytes -= bytes;
                    if let Err(error) = result {
                        guard.failure.get_or_insert(error);
                    }
                    changed.notify_all();
                }
            });
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failure.map_or(Ok(()), Err)
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What Linux says could be allocated now, in bytes; all there is elsewhere.
pub(super) fn available_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    mem_available(&text).unwrap_or(u64::MAX)
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests;
