//! What the collectives of in-process ranks cost: latency of small ones, bandwidth of large ones.
//!
//! For tracking changes on one machine. Ranks share its cores, so with more ranks than cores the
//! figures include the scheduler's. Bandwidth counts one rank's message once; `memcpy` beside it
//! shows what one thread can copy at most. Every rank has a device of one thread.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on should panic")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use minisgl_comm::{CommError, Communicator, ThreadRank, thread_group};
use minisgl_kernels::{DType, Device, Stream, Tensor};

const WORLD_SIZES: [usize; 3] = [2, 4, 8];
/// From the hidden states of one decode step to those of a long prefill chunk.
const MESSAGE_BYTES: [usize; 4] = [4 << 10, 64 << 10, 1 << 20, 16 << 20];

/// The time that `num_calls` calls of `collective` take, all ranks making them at once.
fn time(
    world_size: usize,
    num_calls: u64,
    dtype: DType,
    len: usize,
    collective: impl Fn(&dyn Communicator, &Stream, &mut Tensor) -> Result<(), CommError> + Sync,
) -> Duration {
    let run = |rank: ThreadRank| -> Result<Duration, CommError> {
        let device = Device::cpu(NonZeroUsize::MIN)?;
        let stream = device.new_stream()?;
        let mut data = device.zeros(dtype, [len])?;
        // The first call pays for the staging memory.
        collective(&rank, &stream, &mut data)?;
        rank.barrier()?;
        let start = Instant::now();
        for _ in 0..num_calls {
            collective(&rank, &stream, &mut data)?;
        }
        rank.barrier()?;
        Ok(start.elapsed())
    };
    let run = &run;
    thread::scope(|scope| {
        let ranks = thread_group(world_size).unwrap().into_iter();
        let ranks: Vec<_> = ranks.map(|rank| scope.spawn(move || run(rank))).collect();
        let times = ranks.into_iter().map(|rank| rank.join().unwrap().unwrap());
        times.max().unwrap_or_default()
    })
}

fn latency(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("barrier");
    for world_size in WORLD_SIZES {
        group.bench_function(format!("{world_size} ranks"), |bencher| {
            bencher.iter_custom(|num_calls| {
                time(world_size, num_calls, DType::F32, 0, |rank, _, _| rank.barrier())
            });
        });
    }
    group.finish();
}

fn bandwidth(criterion: &mut Criterion) {
    for dtype in [DType::Bf16, DType::F32] {
        let mut group = criterion.benchmark_group(format!("all_reduce {dtype}"));
        for bytes in MESSAGE_BYTES {
            let len = bytes / dtype.size_bytes();
            group.throughput(Throughput::Bytes(bytes as u64));
            for world_size in WORLD_SIZES {
                let id = BenchmarkId::new(format!("{world_size} ranks"), bytes);
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|num_calls| {
                        time(world_size, num_calls, dtype, len, |rank, stream, data| {
                            rank.all_reduce(stream, data.view_mut())
                        })
                    });
                });
            }
        }
        group.finish();
    }
}

fn memcpy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memcpy");
    for bytes in MESSAGE_BYTES {
        let source = vec![1u8; bytes];
        let mut target = vec![0u8; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter(|| black_box(&mut target).copy_from_slice(black_box(&source)));
        });
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
}

criterion_group! {
    name = benches;
    config = short();
    targets = latency, bandwidth, memcpy
}
criterion_main!(benches);
