//! What a decode step costs, by batch size and number of ranks, on dummy weights in the shape of a
//! small model (26 M parameters in bf16). For tracking regressions; the end-to-end benchmark is
//! another one.

use std::num::NonZeroUsize;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use minisgl_model::{Checkpoint, EngineOptions, LaunchObserver, RankGroup};
use minisgl_sched::{Driver, PageSize, Request, RequestId, SamplingParams, Scheduler};

const CONFIG: &[u8] = br#"{
    "architectures": ["Qwen3ForCausalLM"], "hidden_size": 512, "intermediate_size": 1536,
    "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
    "vocab_size": 16384, "max_position_embeddings": 1048576, "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16"
}"#;

struct Quiet;

impl LaunchObserver for Quiet {
    fn rank_ready(&self, _rank: usize, _world_size: usize) {}

    fn weights_loaded(&self, _bytes: u64, _total: u64) {}

    fn warn(&self, _message: &str) {}
}

/// `requests` of them, decoding, with contexts of some 64 tokens to begin with.
fn decoding(requests: usize, tp_size: usize) -> Driver<RankGroup> {
    let options = EngineOptions {
        tp_size: NonZeroUsize::new(tp_size).expect("at least one rank"),
        page_size: PageSize::new(16).expect("a page size"),
        max_running_requests: requests,
        max_seq_len: Some(1 << 15),
        dummy_weights: true,
        ..Default::default()
    };
    let checkpoint = Checkpoint::Embedded(&[("config.json", CONFIG)]);
    let group = RankGroup::launch(&checkpoint, &options, &Quiet).expect("it launches");
    let scheduler = Scheduler::new(group.limits().scheduler).expect("good limits");
    let max_tokens = scheduler.max_seq_len() - 64;
    let mut driver = Driver::new(scheduler, group, true);
    for id in 0..requests as u64 {
        let request = Request {
            id: RequestId(id),
            prompt: (0..64).map(|at| (at * 97 + id as u32 * 31) % 16384).collect(),
            max_tokens,
            stop_token_ids: [].into(),
            sampling: SamplingParams::GREEDY,
            adjustments: None,
        };
        driver.add(request).expect("it fits");
    }
    while driver.stats().generated_tokens < requests as u64 {
        driver.step().expect("the group is alive");
    }
    driver
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_step");
    group.sample_size(20);
    for (requests, tp_size) in [(1, 1), (8, 1), (32, 1), (8, 2), (8, 4)] {
        let mut driver = decoding(requests, tp_size);
        group.throughput(Throughput::Elements(requests as u64));
        let id = BenchmarkId::new(format!("batch{requests}"), format!("tp{tp_size}"));
        group.bench_function(id, |b| {
            b.iter(|| driver.step().expect("the group is alive").len());
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
