//! What the collectives of CPU ranks cost, in one process and over TCP: latency of small ones,
//! bandwidth of large ones.
//!
//! For tracking changes on one machine. Ranks share its cores, so with more ranks than cores the
//! figures include the scheduler's. Bandwidth counts one rank's message once; `memcpy` beside it
//! shows what one thread can copy at most. Every rank has a device of one thread.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on should panic")]

use std::hint::black_box;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use minisgl_comm::nodes::{Node, NodeConfig, Secret};
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

/// As [`time`], with one rank on each node; the nodes are threads here, connected over the loopback.
fn time_nodes(num_nodes: usize, num_calls: u64, len: usize) -> Duration {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let run = |node: usize| -> Result<_, CommError> {
        let config = NodeConfig {
            num_nodes,
            node,
            address: address.clone(),
            secret: Secret::new("of this benchmark".to_owned()),
            join_timeout: Duration::from_secs(60),
            timeout: Duration::from_secs(60),
        };
        let (mut ranks, links) = Node::join(config, &[])?.into_ranks(1)?;
        let mut ends = Vec::new();
        for (link, receiver) in links {
            receiver.spawn(ranks[0].abort_handle(), |_| {})?;
            ends.push(link);
        }
        let rank = ranks.remove(0);
        let device = Device::cpu(NonZeroUsize::MIN)?;
        let stream = device.new_stream()?;
        let mut data = device.zeros(DType::Bf16, [len])?;
        rank.all_reduce(&stream, data.view_mut())?;
        rank.barrier()?;
        let start = Instant::now();
        for _ in 0..num_calls {
            rank.all_reduce(&stream, data.view_mut())?;
        }
        rank.barrier()?;
        // No node may leave before all have the time.
        Ok((start.elapsed(), rank, ends))
    };
    let run = &run;
    thread::scope(|scope| {
        let nodes: Vec<_> = (0..num_nodes).map(|node| scope.spawn(move || run(node))).collect();
        let nodes: Vec<_> = nodes.into_iter().map(|node| node.join().unwrap().unwrap()).collect();
        nodes.iter().map(|(time, ..)| *time).max().unwrap_or_default()
    })
}

fn nodes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("all_reduce bfloat16 over TCP");
    for bytes in [4 << 10, 64 << 10, 1 << 20] {
        group.throughput(Throughput::Bytes(bytes as u64));
        for num_nodes in [2, 4] {
            let id = BenchmarkId::new(format!("{num_nodes} nodes"), bytes);
            group.bench_function(id, |bencher| {
                let len = bytes / DType::Bf16.size_bytes();
                bencher.iter_custom(|num_calls| time_nodes(num_nodes, num_calls, len));
            });
        }
    }
    group.finish();
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
    targets = latency, bandwidth, nodes, memcpy
}
criterion_main!(benches);
