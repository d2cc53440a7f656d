//! Meetings complete together, or fail together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;

mod protocol;

fn reason(result: Result<(), CommError>) -> String {
    match result {
        Err(CommError::Aborted { reason }) => reason.to_string(),
        other => panic!("expected an abort, got {other:?}"),
    }
}

#[test]
fn nobody_passes_before_all_have_come() {
    const MEETINGS: usize = 500;
    for world_size in [1, 2, 3, 8] {
        let rendezvous = Rendezvous::new(world_size, 0);
        let num_arrivals = AtomicUsize::new(0);
        thread::scope(|scope| {
            for rank in 0..world_size {
                let (rendezvous, num_arrivals) = (&rendezvous, &num_arrivals);
                scope.spawn(move || {
                    for meeting in 1..=MEETINGS {
                        num_arrivals.fetch_add(1, Ordering::Relaxed);
                        rendezvous.meet(rank, Call::Barrier).unwrap();
                        // The others may have come for the next meeting already, but not further.
                        let seen = num_arrivals.load(Ordering::Relaxed);
                        assert!((meeting * world_size..(meeting + 1) * world_size).contains(&seen));
                    }
                });
            }
        });
    }
}

#[test]
fn an_abort_wakes_who_waits_and_fails_who_comes_later() {
    let rendezvous = Rendezvous::new(3, 0);
    thread::scope(|scope| {
        let waiting = [0, 1].map(|rank| {
            let rendezvous = &rendezvous;
            scope.spawn(move || rendezvous.meet(rank, Call::Barrier))
        });
        while rendezvous.lock().num_arrived < 2 {
            thread::yield_now();
        }
        rendezvous.abort("first");
        rendezvous.abort("second");
        for rank in waiting {
            assert_eq!(reason(rank.join().unwrap()), "first");
        }
    });
    assert_eq!(reason(rendezvous.meet(2, Call::Barrier)), "first");
    assert_eq!(reason(rendezvous.meet(0, Call::Barrier)), "first");
}

#[test]
fn a_complete_meeting_survives_an_abort_before_its_ranks_wake() {
    for _ in 0..500 {
        let rendezvous = Rendezvous::new(2, 0);
        thread::scope(|scope| {
            let other = scope.spawn(|| rendezvous.meet(0, Call::Barrier));
            rendezvous.meet(1, Call::Barrier).unwrap();
            rendezvous.abort("rank 1 left the group");
            other.join().unwrap().unwrap();
        });
    }
}
