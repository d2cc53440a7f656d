//! How long sums over ranks take, and the ceilings that stand beside them: copying, and waking a
//! thread. Never knows a model.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use minisgl_comm::Communicator;
use minisgl_kernels::{DType, Device};

use crate::group::{Connect, connect_all, devices};
use crate::{EngineOptions, LaunchObserver, ModelError};

/// The fastest of so many series counts.
const SERIES: usize = 5;
/// What the calls of one series sum together, and how many they are.
const SERIES_BYTES: usize = 256 << 20;
const CALLS: std::ops::RangeInclusive<usize> = 16..=1000;
const WAKES: u32 = 20_000;

/// The time of one call.
#[derive(Clone, Debug)]
pub struct SumTimes {
    /// The device of the ranks.
    pub device: String,
    /// Whether they are GPUs.
    pub on_gpus: bool,
    /// Which sizes are summed how, if that was measured before.
    pub measured: Option<String>,
    /// For each size that was asked for.
    pub times: Vec<Duration>,
}

/// Sums arrays of bfloat16 of so many bytes over the ranks of `options`, which it starts for that:
/// the same ones, and the same ways, as those of a model.
///
/// # Errors
/// [`ModelError`] if the ranks cannot be started, do not have the memory, or fail.
pub fn time_sums(
    options: &EngineOptions,
    sizes: &[usize],
    observer: &dyn LaunchObserver,
) -> Result<SumTimes, ModelError> {
    let devices = devices(options, observer)?;
    let connects = connect_all(&devices, options, observer)?;
    // With the rank: who leaves aborts what others still do, so all leave together, after the threads.
    type Timed = (Vec<Duration>, Option<String>, Box<dyn Communicator>);
    let run = |connect: Connect, device: &Device| -> Result<Timed, ModelError> {
        let mut comm = connect()?;
        let stream = device.new_stream()?;
        let measured = comm.measure(&stream)?;
        let mut times = Vec::new();
        for bytes in sizes {
            let num_calls = (SERIES_BYTES / bytes.max(&1)).clamp(*CALLS.start(), *CALLS.end());
            let mut data = device.zeros(DType::Bf16, [bytes / DType::Bf16.size_bytes()])?;
            // The first call pays for staging memory.
            comm.all_reduce(&stream, data.view_mut())?;
            let mut best = Duration::MAX;
            for _ in 0..SERIES {
                stream.synchronize()?;
                comm.barrier()?;
                let begun = Instant::now();
                for _ in 0..num_calls {
                    comm.all_reduce(&stream, data.view_mut())?;
                }
                stream.synchronize()?;
                best = best.min(begun.elapsed() / num_calls as u32);
            }
            times.push(best);
        }
        Ok((times, measured, comm))
    };
    let run = &run;
    let results: Vec<_> = thread::scope(|scope| {
        let pairs = connects.into_iter().zip(&devices);
        let ranks: Vec<_> =
            pairs.map(|(connect, device)| scope.spawn(move || run(connect, device))).collect();
        ranks.into_iter().map(|rank| rank.join()).collect()
    });
    let mut measured = None;
    let mut slowest = vec![Duration::ZERO; sizes.len()];
    for (rank, result) in results.into_iter().enumerate() {
        let panicked = |_| ModelError::Rank { rank, message: "panicked".to_owned() };
        let (times, found, _rank) = result.map_err(panicked)??;
        measured = found;
        for (slowest, time) in slowest.iter_mut().zip(times) {
            *slowest = time.max(*slowest);
        }
    }
    Ok(SumTimes {
        device: devices[0].description(),
        on_gpus: matches!(devices[0], Device::Cuda(_)),
        measured,
        times: slowest,
    })
}

/// How long one thread takes to copy so many bytes of the host's memory.
pub fn time_memcpy(bytes: usize) -> Duration {
    let (source, mut target) = (vec![1u8; bytes], vec![0u8; bytes]);
    let num_calls = (SERIES_BYTES / bytes.max(1)).clamp(*CALLS.start(), *CALLS.end());
    let series = || {
        let begun = Instant::now();
        for _ in 0..num_calls {
            black_box(&mut target).copy_from_slice(black_box(&source));
        }
        begun.elapsed() / num_calls as u32
    };
    std::iter::repeat_with(series).take(SERIES).min().unwrap_or_default()
}

/// How long it takes until a thread runs that another one wakes: half of a round trip between two
/// that take turns and sleep in between.
pub fn time_wake() -> Duration {
    let turn = &AtomicU32::new(0);
    let main = &thread::current();
    thread::scope(|scope| {
        let wait_for = move |value| {
            while turn.load(Ordering::Acquire) != value {
                thread::park();
            }
        };
        let other = scope.spawn(move || {
            for round in 0..WAKES {
                wait_for(2 * round + 1);
                turn.store(2 * round + 2, Ordering::Release);
                main.unpark();
            }
        });
        let begun = Instant::now();
        for round in 0..WAKES {
            turn.store(2 * round + 1, Ordering::Release);
            other.thread().unpark();
            wait_for(2 * round + 2);
        }
        begun.elapsed() / (2 * WAKES)
    })
}
