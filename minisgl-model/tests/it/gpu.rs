//! A GPU against the CPU: the same tokens, however the GPU is used.

use minisgl_model::{DTypeChoice, DeviceChoice, EngineOptions, StepClock};
use minisgl_sched::{CacheKind, PageSize, Request, SamplingParams, TokenId};

use crate::harness;

/// Prompts with common beginnings, half of them sampled with a seed, the last ones with adjusted
/// logits.
fn requests() -> Vec<Request> {
    let token = |family: u64, at: u64| ((family * 131 + at * 29 + at * at) % 320) as TokenId;
    let request = |id: u64| {
        let shared = (0..(id % 4) * 17).map(|at| token(id % 2, at));
        let own = (0..1 + (id * 7) % 30).map(|at| token(100 + id, at));
        let prompt: Vec<TokenId> = shared.chain(own).collect();
        let sampling = match id % 3 {
            0 => SamplingParams::GREEDY,
            1 => SamplingParams { temperature: 0.8, seed: id, ..SamplingParams::GREEDY },
            _ => SamplingParams {
                temperature: 0.9,
                top_k: 30,
                top_p: 0.9,
                min_p: 0.01,
                seed: id,
                ..SamplingParams::GREEDY
            },
        };
        let request = harness::request(id, &prompt, 12, sampling);
        if id < 15 { request } else { harness::adjusted(request, harness::adjustments(id)) }
    };
    (0..21).map(request).collect()
}

fn tokens(case: &str, options: &EngineOptions, overlap: bool) -> Vec<Vec<TokenId>> {
    let mut driver = harness::driver(harness::launch(case, options).unwrap(), overlap);
    // Twice, so that the prefix cache has something to give.
    let first = harness::run(&mut driver, requests());
    let second = harness::run(&mut driver, requests());
    first.into_iter().chain(second).map(|output| output.tokens).collect()
}

/// In f32, where rounding turns no choice: with graphs and without, overlapped or not, with the
/// prefix cache or without, whatever the page size.
#[test]
fn every_way_of_using_a_gpu_gives_the_tokens_of_the_cpu() {
    if !harness::on_gpu() {
        println!("skipped, since MINISGL_TEST_CUDA names no number of GPUs");
        return;
    }
    let one = harness::options(1, DTypeChoice::Float32);
    let cpu = EngineOptions { device: DeviceChoice::Cpu, ..one };
    for (case, &tp_size) in ["llama", "qwen3", "qwen2-window", "qwen3-moe"]
        .into_iter()
        .flat_map(|case| harness::tp_sizes().iter().map(move |tp_size| (case, tp_size)))
    {
        let gpu = harness::options(tp_size, DTypeChoice::Float32);
        let expected = tokens(case, &cpu, true);
        for (graphs, overlap, cache, page_size) in [
            (0, false, CacheKind::Naive, 1),
            (0, true, CacheKind::Radix, 16),
            (8, false, CacheKind::Radix, 1),
            (24, true, CacheKind::Radix, 4),
            (24, true, CacheKind::Naive, 16),
        ] {
            let options = EngineOptions {
                cuda_graph_max_bs: Some(graphs),
                cache,
                page_size: PageSize::new(page_size).unwrap(),
                ..gpu.clone()
            };
            let got = tokens(case, &options, overlap);
            let what = format!(
                "{case} tp {tp_size}: graphs {graphs}, overlap {overlap}, {cache}, {page_size}"
            );
            for (request, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert_eq!(got, expected, "{what}, request {request}");
            }
        }
    }
}

/// In bf16, with every attention backend, for head sizes that all of them have: log-probabilities
/// within what bf16 rounds, and the same greedy tokens up to where that may turn a choice.
#[test]
fn every_attention_backend_gives_the_log_probabilities_of_the_cpu() {
    if !harness::on_gpu() {
        println!("skipped, since MINISGL_TEST_CUDA names no number of GPUs");
        return;
    }
    const TOLERANCE: f32 = 0.05;
    let sampling = SamplingParams { logprobs: Some(2), ..SamplingParams::GREEDY };
    let prompt = |id: u64| (0..5 + 37 * id).map(|at| ((at * 29 + id) % 150) as TokenId).collect();
    let run = |case: &str, options: &EngineOptions| {
        let mut driver = harness::driver(harness::launch(case, options).unwrap(), true);
        let request = |id| {
            let prompt: Vec<TokenId> = prompt(id);
            harness::request(id, &prompt, 10, sampling)
        };
        harness::run(&mut driver, (0..5).map(request).collect())
    };
    let gpu = harness::options(1, DTypeChoice::Bfloat16);
    let cpu = EngineOptions { device: DeviceChoice::Cpu, ..gpu.clone() };
    for case in ["llama-head128", "llama-head256"] {
        let expected = run(case, &cpu);
        for (attention, page_size) in
            [("auto", 1), ("fi", 16), ("native", 4), ("fa,fi", 16), ("fi,native", 1)]
        {
            if case == "llama-head256" && attention.starts_with("fa") {
                continue; // Hopper's kernels end at 128.
            }
            let options = EngineOptions {
                attention: attention.parse().unwrap(),
                page_size: PageSize::new(page_size).unwrap(),
                ..gpu.clone()
            };
            for (id, (got, want)) in run(case, &options).iter().zip(&expected).enumerate() {
                for step in 0..want.tokens.len() {
                    let what = format!("{case} {attention}, request {id}, step {step}");
                    let (ours, theirs) = (&got.logprobs[step], &want.logprobs[step]);
                    let margin = theirs.top[0].1 - theirs.top[1].1;
                    if got.tokens[step] != want.tokens[step] {
                        assert!(margin <= 2.0 * TOLERANCE, "{what}: another token");
                        break;
                    }
                    let difference = (ours.chosen - theirs.chosen).abs();
                    assert!(difference <= TOLERANCE, "{what}: {difference}");
                }
            }
        }
    }
}

/// Also with steps that are launched before the one before is done. On the CPU without a GPU.
#[test]
fn a_clock_sees_every_step_and_the_gaps_between_them() {
    let several = *harness::tp_sizes().last().unwrap();
    for (tp_size, overlap) in [(1, false), (1, true), (several, true)] {
        let clock = StepClock::default();
        let options = EngineOptions {
            step_clock: Some(clock.clone()),
            ..harness::options(tp_size, DTypeChoice::Float32)
        };
        let mut driver = harness::driver(harness::launch("llama", &options).unwrap(), overlap);
        let mut steps_before = 0;
        for _ in 0..2 {
            harness::run(&mut driver, requests());
            let steps = driver.stats().steps;
            let times = clock.take().unwrap();
            assert_eq!(times.gaps.len() as u64, steps - steps_before - 1);
            assert!(times.busy > 0.0 && times.gaps.iter().all(|gap| *gap >= 0.0), "{times:?}");
            steps_before = steps;
        }
    }
}
