//! Which job is next, and that all are run.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use anyhow::bail;

use super::{Job, State, mem_available, run};

fn jobs(sizes: &[u64]) -> Vec<Job<u64>> {
    sizes.iter().map(|&bytes| Job { item: bytes, bytes }).collect()
}

#[test]
fn the_first_that_fits_is_next() {
    let mut state =
        State { waiting: jobs(&[7, 5, 3, 1]), running: 0, running_bytes: 0, failure: None };
    let mut taken = Vec::new();
    while let Some(job) = state.take(10) {
        taken.push(job.item);
    }
    assert_eq!(taken, [7, 3]);
    state.running = 1;
    state.running_bytes = 3;
    assert_eq!(state.take(10).map(|job| job.item), Some(5));
}

#[test]
fn a_job_that_never_fits_runs_alone() {
    let mut state = State { waiting: jobs(&[70]), running: 1, running_bytes: 1, failure: None };
    assert!(state.take(10).is_none());
    state.running = 0;
    state.running_bytes = 0;
    assert_eq!(state.take(10).map(|job| job.item), Some(70));
    assert!(state.take(10).is_none());
}

#[test]
fn all_run_within_the_limits() {
    let (bytes, count) = (AtomicU64::new(0), AtomicUsize::new(0));
    let done = Mutex::new(Vec::new());
    run(jobs(&[4, 1, 3, 2, 5, 6]), 3, 8, |size| {
        assert!(bytes.fetch_add(size, Ordering::SeqCst) + size <= 8);
        assert!(count.fetch_add(1, Ordering::SeqCst) < 3);
        done.lock().unwrap().push(size);
        bytes.fetch_sub(size, Ordering::SeqCst);
        count.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    })
    .unwrap();
    let mut done = done.into_inner().unwrap();
    done.sort_unstable();
    assert_eq!(done, [1, 2, 3, 4, 5, 6]);
    run(jobs(&[]), 3, 8, |_| bail!("there is nothing to run")).unwrap();
}

#[test]
fn after_a_failure_nothing_is_begun() {
    let begun = AtomicUsize::new(0);
    let error = run(jobs(&[3, 2, 1]), 1, 8, |size| {
        begun.fetch_add(1, Ordering::SeqCst);
        bail!("job {size}")
    });
    assert_eq!(error.unwrap_err().to_string(), "job 3");
    assert_eq!(begun.into_inner(), 1);
}

#[test]
fn available_memory_is_read_from_linux() {
    let text = "MemTotal:  100 kB\nMemFree:  10 kB\nMemAvailable:      25 kB\n";
    assert_eq!(mem_available(text), Some(25 << 10));
    assert_eq!(mem_available("MemTotal: 100 kB\n"), None);
    assert_eq!(mem_available("MemAvailable: many kB\n"), None);
}
