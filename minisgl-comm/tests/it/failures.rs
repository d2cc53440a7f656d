//! Groups that are aborted, or whose ranks panic, leave or fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use minisgl_comm::{CommError, Communicator, SingleRank, ThreadRank, thread_group};
use minisgl_kernels::{DType, Device, Stream};

use crate::support::{Random, abort_reason, device_and_stream, run_ranks, tensor};

/// One call of a rank, on arrays of its own.
type Call = fn(&dyn Communicator, &Device, &Stream) -> Result<(), CommError>;

fn all_reduce(rank: &dyn Communicator, device: &Device, stream: &Stream) -> Result<(), CommError> {
    let mut data = tensor(device, DType::F32, [4], &[1.0; 4]);
    rank.all_reduce(stream, data.view_mut())
}

fn all_reduce_large(
    rank: &dyn Communicator,
    device: &Device,
    stream: &Stream,
) -> Result<(), CommError> {
    let mut data = device.zeros(DType::F32, [4, 50_000]).unwrap();
    rank.all_reduce(stream, data.view_mut())
}

fn all_gather(rank: &dyn Communicator, device: &Device, stream: &Stream) -> Result<(), CommError> {
    let input = tensor(device, DType::F32, [4], &[1.0; 4]);
    let mut output = device.zeros(DType::F32, [rank.world_size(), 4]).unwrap();
    rank.all_gather(stream, input.view(), output.view_mut())
}

fn broadcast(rank: &dyn Communicator, device: &Device, stream: &Stream) -> Result<(), CommError> {
    let mut data = tensor(device, DType::F32, [4], &[1.0; 4]);
    rank.broadcast(stream, data.view_mut(), 0)
}

fn barrier(rank: &dyn Communicator, _: &Device, _: &Stream) -> Result<(), CommError> {
    rank.barrier()
}

const CALLS: [Call; 5] = [all_reduce, all_reduce_large, all_gather, broadcast, barrier];

/// Calls that are not the same call as `all_reduce` above, and how each reads in a reason.
const OTHER_CALLS: [(Call, &str); 7] = [
    (barrier, "barrier()"),
    (all_gather, "all_gather(float32 [4])"),
    (broadcast, "broadcast(float32 [4], root 0)"),
    (
        |rank, device, stream| {
            let mut data = tensor(device, DType::Bf16, [4], &[1.0; 4]);
            rank.all_reduce(stream, data.view_mut())
        },
        "all_reduce(bfloat16 [4])",
    ),
    (
        |rank, device, stream| {
            let mut data = tensor(device, DType::F32, [5], &[1.0; 5]);
            rank.all_reduce(stream, data.view_mut())
        },
        "all_reduce(float32 [5])",
    ),
    (
        |rank, device, stream| {
            let mut data = tensor(device, DType::F32, [2, 2], &[1.0; 4]);
            rank.all_reduce(stream, data.view_mut())
        },
        "all_reduce(float32 [2, 2])",
    ),
    (all_reduce_large, "all_reduce(float32 [4, 50000])"),
];

#[test]
fn different_calls_abort_the_group_and_are_both_named() {
    for (other_call, other_name) in OTHER_CALLS {
        let reasons = run_ranks(3, |rank, device, stream| {
            let call = if rank.rank() == 1 { other_call } else { all_reduce };
            abort_reason(call(&rank, device, stream))
        });
        assert!(reasons.iter().all(|reason| *reason == reasons[0]), "{reasons:?}");
        for name in ["all_reduce(float32 [4])", other_name, "rank 1 called"] {
            assert!(reasons[0].contains(name), "{name} is not in: {}", reasons[0]);
        }
    }
}

#[test]
fn different_roots_abort_the_group() {
    let reasons = run_ranks(2, |rank, device, stream| {
        let mut data = tensor(device, DType::F32, [1], &[1.0]);
        abort_reason(rank.broadcast(stream, data.view_mut(), rank.rank()))
    });
    assert!(reasons[0].contains("root 0") && reasons[0].contains("root 1"), "{reasons:?}");
}

/// Calls with wrong arguments, and what the error says.
const WRONG_CALLS: [(Call, &str); 5] = [
    (
        |rank, device, stream| {
            let mut data = device.zeros(DType::I32, [4]).unwrap();
            rank.all_reduce(stream, data.view_mut())
        },
        "all_reduce: data has dtype int32, expected float32 or bfloat16",
    ),
    (
        |rank, device, stream| {
            let mut data = device.zeros(DType::F32, [4]).unwrap();
            rank.broadcast(stream, data.view_mut(), rank.world_size())
        },
        "broadcast: root is",
    ),
    (
        |rank, device, stream| {
            let input = device.zeros(DType::F32, [4]).unwrap();
            let mut output = device.zeros(DType::F32, [rank.world_size() + 1, 4]).unwrap();
            rank.all_gather(stream, input.view(), output.view_mut())
        },
        "all_gather: output has shape",
    ),
    (
        |rank, device, stream| {
            let input = device.zeros(DType::F32, [4]).unwrap();
            let mut output = device.zeros(DType::Bf16, [rank.world_size(), 4]).unwrap();
            rank.all_gather(stream, input.view(), output.view_mut())
        },
        "all_gather: output has dtype bfloat16, expected float32",
    ),
    (
        |rank, device, stream| {
            // Gaps inside the outermost rows: not a matrix.
            let mut data = device.zeros(DType::F32, [2, 2, 3]).unwrap();
            rank.all_reduce(stream, data.view_mut().columns(0..2).unwrap())
        },
        "cannot be reshaped",
    ),
];

#[test]
fn a_wrong_call_fails_its_rank_and_wakes_the_others() {
    for (wrong_call, message) in WRONG_CALLS {
        run_ranks(3, |rank, device, stream| {
            if rank.rank() == 2 {
                let error = wrong_call(&rank, device, stream).unwrap_err();
                assert!(error.to_string().contains(message), "{error}");
                assert!(!matches!(error, CommError::Aborted { .. }));
            } else {
                let reason = abort_reason(all_reduce(&rank, device, stream));
                assert!(reason.starts_with("rank 2: ") && reason.contains(message), "{reason}");
            }
            abort_reason(rank.barrier());
        });
        let (device, stream) = device_and_stream();
        let single = SingleRank::new();
        let error = wrong_call(&single, &device, &stream).err();
        // A layout that a single rank never has to look at is no error.
        if let Some(error) = error {
            assert!(error.to_string().contains(message), "{error}");
            abort_reason(single.barrier());
        }
    }
}

#[test]
fn an_abort_wakes_whoever_waits_in_any_collective() {
    for call in CALLS {
        // Rank 2 never comes. The others wait, or are about to, when it aborts.
        run_ranks(3, |rank, device, stream| {
            if rank.rank() == 2 {
                rank.abort("gave up");
                rank.abort("too late");
            } else {
                assert_eq!(abort_reason(call(&rank, device, stream)), "gave up");
            }
            for later in CALLS {
                assert_eq!(abort_reason(later(&rank, device, stream)), "gave up");
            }
        });
    }
}

#[test]
fn an_abort_from_outside_ends_a_busy_group_at_any_point() {
    for seed in 0..200 {
        let ranks = thread_group(4).unwrap();
        let handle = ranks[0].abort_handle();
        let num_calls = AtomicUsize::new(0);
        let num_calls_until_abort = Random::new(seed, 0).below(60);
        thread::scope(|scope| {
            for rank in ranks {
                let num_calls = &num_calls;
                scope.spawn(move || {
                    let (device, stream) = device_and_stream();
                    let mut calls = Random::new(seed, 1);
                    let failed = loop {
                        num_calls.fetch_add(1, Ordering::Relaxed);
                        let call = CALLS[calls.below(CALLS.len())];
                        if let failed @ Err(_) = call(&rank, &device, &stream) {
                            break failed;
                        }
                    };
                    assert_eq!(abort_reason(failed), "watchdog");
                    // The others may still be inside the last collective that was complete.
                    for later in CALLS {
                        let failed = later(&rank, &device, &stream);
                        assert_eq!(abort_reason(failed), "watchdog");
                    }
                });
            }
            while num_calls.load(Ordering::Relaxed) < num_calls_until_abort {
                thread::yield_now();
            }
            handle.clone().abort("watchdog");
        });
    }
}

#[test]
fn a_rank_that_leaves_fails_the_others() {
    for call in CALLS {
        run_ranks(3, |rank, device, stream| {
            rank.barrier().unwrap();
            if rank.rank() != 1 {
                assert_eq!(abort_reason(call(&rank, device, stream)), "rank 1 left the group");
            }
        });
    }
}

#[test]
fn a_rank_that_panics_fails_the_others() {
    let outcomes = thread::scope(|scope| {
        let body = |rank: ThreadRank| {
            let (device, stream) = device_and_stream();
            all_reduce(&rank, &device, &stream).unwrap();
            assert_ne!(rank.rank(), 1, "a panic of the test's own");
            abort_reason(all_reduce_large(&rank, &device, &stream))
        };
        let ranks = thread_group(3).unwrap().into_iter();
        let ranks: Vec<_> = ranks.map(|rank| scope.spawn(move || body(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().ok()).collect::<Vec<_>>()
    });
    let reason = Some("rank 1 panicked".to_owned());
    assert_eq!(outcomes, [reason.clone(), None, reason]);
}

#[test]
fn a_single_rank_can_be_aborted_too() {
    let (device, stream) = device_and_stream();
    let single = SingleRank::new();
    single.abort_handle().abort("drain");
    for call in CALLS {
        assert_eq!(abort_reason(call(&single, &device, &stream)), "drain");
    }
}

#[test]
fn a_group_of_none_is_refused() {
    assert!(matches!(thread_group(0), Err(CommError::WorldSize { world_size: 0 })));
}
