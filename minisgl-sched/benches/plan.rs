//! What the scheduler costs per step, by requests running: plan and commit of a steady decode batch
//! on the radix cache. This is the time that overlap has to hide.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use minisgl_sched::{
    CacheKind, PageSize, Request, RequestId, Sample, SamplingParams, Scheduler, SchedulerConfig,
    StepOutput, StepPlan,
};

const PROMPT_TOKENS: usize = 512;
const MAX_TOKENS: usize = 1 << 20;

fn answer(plan: &StepPlan) -> StepOutput {
    let samples = plan.sampled().map(|_| Sample::Token { token: 5, logprobs: None }).collect();
    StepOutput { step: plan.step, samples }
}

/// A scheduler with `requests` of them decoding.
fn decoding(requests: usize, page_size: usize) -> Scheduler {
    let page_size = PageSize::new(page_size).expect("a page size");
    let config = SchedulerConfig {
        num_pages: requests * page_size.pages_for(PROMPT_TOKENS + MAX_TOKENS),
        page_size,
        cache: CacheKind::Radix,
        max_running_requests: requests,
        max_prefill_tokens: 8192,
        max_seq_len: PROMPT_TOKENS + MAX_TOKENS,
    };
    let mut scheduler = Scheduler::new(config).expect("good limits");
    for id in 0..requests as u64 {
        let request = Request {
            id: RequestId(id),
            prompt: (0..PROMPT_TOKENS as u32).map(|at| at * 7 + id as u32).collect(),
            max_tokens: MAX_TOKENS,
            stop_token_ids: Arc::from([2]),
            sampling: SamplingParams::GREEDY,
            adjustments: None,
        };
        scheduler.add(request).expect("it fits");
    }
    while scheduler.stats().running < requests {
        let plan = scheduler.plan().expect("prompts to compute");
        scheduler.commit(answer(&plan));
    }
    scheduler
}

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan_and_commit");
    group.sample_size(20);
    for requests in [1, 16, 64, 256] {
        // Pages enough for a million tokens each: 16 to the page keeps that small.
        let mut scheduler = decoding(requests, 16);
        group.throughput(Throughput::Elements(requests as u64));
        group.bench_function(BenchmarkId::new("decode", requests), |b| {
            b.iter(|| {
                let plan = scheduler.plan().expect("everybody decodes");
                scheduler.commit(answer(&plan)).len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
