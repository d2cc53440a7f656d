//! Throughput of the ops, beside what the machine itself can do.
//!
//! For finding regressions and distances from the ceiling, not for claims about whole models. All
//! cores are used, so anything else that runs shows. `cargo bench -p minisgl-kernels`, or
//! `cargo bench -p minisgl-kernels -- gemm` for a part.
//!
//! Every weight-bound case cycles through copies of its weights that together exceed the caches.
#![expect(clippy::unwrap_used, reason = "a bench that fails should stop")]

mod ceiling;

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use half::bf16;
use minisgl_kernels::ops::sampling::{
    History, Penalties, argmax, gumbel_argmax, penalize_logits, uniform,
};
use minisgl_kernels::ops::{self, AttentionParams, PagedKv, VarlenBatch};
use minisgl_kernels::{DType, Device, Stream, Tensor};

/// A Llama-like layer: hidden size, and heads of attention.
const HIDDEN: usize = 4096;
const NUM_Q_HEADS: usize = 32;
const NUM_KV_HEADS: usize = 8;
const HEAD_DIM: usize = 128;
const VOCAB: usize = 151_936;
const FLOATS: [DType; 2] = [DType::F32, DType::Bf16];

/// More than a last-level cache of a few cores holds.
const COLD_BYTES: usize = 256 << 20;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn stream() -> Stream {
    let device = Device::cpu(NonZeroUsize::new(threads()).unwrap()).unwrap();
    device.new_stream().unwrap()
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(1));
    group
}

/// Uniform numbers in `-1..1`; never zeros, which some hardware multiplies faster.
fn random<const N: usize>(stream: &Stream, dtype: DType, shape: [usize; N]) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n as i32).map(|id| 2.0 * uniform(n as u64, 0, id) - 1.0).collect();
    match dtype {
        DType::Bf16 => {
            let values: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
            Tensor::from_slice(stream.device(), shape, &values).unwrap()
        }
        _ => Tensor::from_slice(stream.device(), shape, &values).unwrap(),
    }
}

fn ids(stream: &Stream, ids: &[i32]) -> Tensor {
    Tensor::from_slice(stream.device(), [ids.len()], ids).unwrap()
}

fn bench_ceiling(criterion: &mut Criterion) {
    let mut group = group(criterion, "ceiling");
    let memory = ceiling::memory(COLD_BYTES);
    group.throughput(Throughput::Bytes(COLD_BYTES as u64));
    group.bench_function("read", |b| b.iter(|| ceiling::read(&memory, threads())));
    let rounds = 1_000_000;
    group.throughput(Throughput::Elements(ceiling::flops(rounds) * threads() as u64));
    group.bench_function("f32 multiply-add (elements are flops)", |b| {
        b.iter(|| ceiling::multiply_add(rounds, threads()));
    });
}

fn bench_gemm(criterion: &mut Criterion) {
    let stream = stream();
    let mut group = group(criterion, "gemm 4096x4096");
    for dtype in FLOATS {
        let weight_bytes = HIDDEN * HIDDEN * dtype.size_bytes();
        let weights: Vec<Tensor> = (0..COLD_BYTES / weight_bytes)
            .map(|_| random(&stream, dtype, [HIDDEN, HIDDEN]))
            .collect();
        for m in [1, 8, 256] {
            let x = random(&stream, dtype, [m, HIDDEN]);
            let mut out = stream.device().zeros(dtype, [m, HIDDEN]).unwrap();
            let mut next = weights.iter().cycle();
            let mut run = |group: &mut BenchmarkGroup<'_, WallTime>, unit: &str| {
                group.bench_function(BenchmarkId::new(format!("{dtype} m={m}"), unit), |b| {
                    b.iter(|| {
                        let w = next.next().unwrap();
                        ops::gemm(&stream, x.view(), w.view(), None, out.view_mut()).unwrap();
                    });
                });
            };
            if m < 256 {
                group.throughput(Throughput::Bytes(weight_bytes as u64));
                run(&mut group, "weights");
            } else {
                group.throughput(Throughput::Elements((2 * m * HIDDEN * HIDDEN) as u64));
                run(&mut group, "elements are flops");
            }
        }
    }
}

/// One step of `num_sequences` sequences with `q_len` queries each after `kv_len - q_len` others.
fn bench_attention_step(
    group: &mut BenchmarkGroup<'_, WallTime>,
    dtype: DType,
    (num_sequences, q_len, kv_len): (usize, usize, usize),
    throughput: Throughput,
) {
    const PAGE_SIZE: usize = 16;
    let stream = stream();
    let pages_each = kv_len.div_ceil(PAGE_SIZE);
    let pool_shape = [num_sequences * pages_each * PAGE_SIZE, NUM_KV_HEADS, HEAD_DIM];
    let (k_pool, v_pool) = (random(&stream, dtype, pool_shape), random(&stream, dtype, pool_shape));
    // Pages of a sequence are spread over the pool.
    let page_table: Vec<i32> = (0..num_sequences * pages_each)
        .map(|i| (i % pages_each * num_sequences + i / pages_each) as i32)
        .collect();
    let page_table =
        Tensor::from_slice(stream.device(), [num_sequences, pages_each], &page_table).unwrap();
    let range = 0..num_sequences as i32;
    let rows = ids(&stream, &range.clone().collect::<Vec<_>>());
    let starts: Vec<i32> = (0..=num_sequences).map(|j| (j * q_len) as i32).collect();
    let cu_seqlens_q = ids(&stream, &starts);
    let kv_lens = ids(&stream, &vec![kv_len as i32; num_sequences]);
    let q = random(&stream, dtype, [num_sequences * q_len, NUM_Q_HEADS, HEAD_DIM]);
    let mut out = stream.device().zeros(dtype, q.shape()).unwrap();
    let kv = PagedKv {
        k_pool: k_pool.view(),
        v_pool: v_pool.view(),
        page_table: page_table.view(),
        page_size: PAGE_SIZE,
    };
    let batch = VarlenBatch {
        rows: rows.view(),
        cu_seqlens_q: cu_seqlens_q.view(),
        kv_lens: kv_lens.view(),
    };
    let params = AttentionParams { scale: (HEAD_DIM as f32).powf(-0.5), window: None };
    group.throughput(throughput);
    let name = if q_len == 1 { "decode" } else { "prefill" };
    group.bench_function(format!("{name} {dtype} {num_sequences}x{q_len} of {kv_len}"), |b| {
        b.iter(|| {
            ops::paged_attention(&stream, q.view(), kv, batch, params, out.view_mut()).unwrap();
        });
    });
}

fn bench_attention(criterion: &mut Criterion) {
    let mut group = group(criterion, "attention");
    for dtype in FLOATS {
        let kv_len = 4096;
        for num_sequences in [1, 8] {
            let row_bytes = NUM_KV_HEADS * HEAD_DIM * dtype.size_bytes();
            let bytes = 2 * num_sequences * kv_len * row_bytes;
            let throughput = Throughput::Bytes(bytes as u64);
            bench_attention_step(&mut group, dtype, (num_sequences, 1, kv_len), throughput);
        }
        // Multiplications and additions of the visible half of both products.
        let q_len = 512;
        let flops = 4 * NUM_Q_HEADS * HEAD_DIM * q_len * (q_len + 1) / 2;
        let throughput = Throughput::Elements(flops as u64);
        bench_attention_step(&mut group, dtype, (1, q_len, q_len), throughput);
    }
}

fn bench_rows(criterion: &mut Criterion) {
    let stream = stream();
    let mut group = group(criterion, "rows");
    for dtype in FLOATS {
        let t = 256;
        let x = random(&stream, dtype, [t, HIDDEN]);
        let weight = random(&stream, dtype, [HIDDEN]);
        let mut out = stream.device().zeros(dtype, [t, HIDDEN]).unwrap();
        group.throughput(Throughput::Bytes((2 * t * HIDDEN * dtype.size_bytes()) as u64));
        group.bench_function(format!("rms_norm {dtype} 256x4096"), |b| {
            b.iter(|| {
                let out = out.view_mut();
                ops::rms_norm(&stream, x.view(), weight.view(), 1e-6, out).unwrap();
            });
        });
        let mut out = stream.device().zeros(dtype, [t, HIDDEN / 2]).unwrap();
        group.throughput(Throughput::Bytes((3 * t * HIDDEN / 2 * dtype.size_bytes()) as u64));
        group.bench_function(format!("silu_and_mul {dtype} 256x2048"), |b| {
            b.iter(|| ops::silu_and_mul(&stream, x.view(), out.view_mut()).unwrap());
        });
    }
}

fn bench_sampling(criterion: &mut Criterion) {
    let stream = stream();
    let mut group = group(criterion, "sampling 151936");
    for n in [1, 8] {
        let logits = random(&stream, DType::F32, [n, VOCAB]);
        let floats =
            |value: f32| Tensor::from_slice(stream.device(), [n], &vec![value; n]).unwrap();
        let (mut value, mut id) = (floats(0.0), ids(&stream, &vec![0; n]));
        group.throughput(Throughput::Elements((n * VOCAB) as u64));
        group.bench_function(format!("argmax n={n}"), |b| {
            b.iter(|| {
                let outs = (value.view_mut(), id.view_mut());
                argmax(&stream, logits.view(), 0, outs.0, outs.1).unwrap();
            });
        });
        let (inv_temperature, threshold) = (floats(1.0), floats(f32::NEG_INFINITY));
        let seeds = Tensor::from_slice(stream.device(), [n], &vec![7u64; n]).unwrap();
        let positions = ids(&stream, &vec![3; n]);
        group.bench_function(format!("gumbel_argmax n={n}"), |b| {
            b.iter(|| {
                gumbel_argmax(
                    &stream,
                    logits.view(),
                    inv_temperature.view(),
                    threshold.view(),
                    seeds.view(),
                    positions.view(),
                    0,
                    value.view_mut(),
                    id.view_mut(),
                )
                .unwrap();
            });
        });
        // Every eighth token was output; neutral for the values, so that they stay as they are.
        let counts: Vec<i32> = (0..n * VOCAB).map(|i| i32::from(i % 8 == 0)).collect();
        let counts = Tensor::from_slice(stream.device(), [n, VOCAB], &counts).unwrap();
        let prompts = stream.device().zeros(DType::I32, [n, VOCAB.div_ceil(32)]).unwrap();
        let rows = ids(&stream, &(0..n as i32).collect::<Vec<_>>());
        let (repetition, frequency, presence) = (floats(1.0), floats(1.0), floats(-1.0));
        let mut changed = random(&stream, DType::F32, [n, VOCAB]);
        group.bench_function(format!("penalize_logits n={n}"), |b| {
            b.iter(|| {
                let history = History { counts: counts.view(), prompts: prompts.view() };
                let penalties = Penalties {
                    repetition: repetition.view(),
                    frequency: frequency.view(),
                    presence: presence.view(),
                };
                let (target, rows) = (changed.view_mut(), rows.view());
                penalize_logits(&stream, target, &history, rows, &penalties, 0).unwrap();
            });
        });
        black_box(&value);
    }
}

criterion_group!(benches, bench_ceiling, bench_gemm, bench_attention, bench_rows, bench_sampling);
criterion_main!(benches);
