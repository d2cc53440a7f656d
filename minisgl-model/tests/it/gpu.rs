//! A GPU against the CPU: the same tokens, however the GPU is used.

use minisgl_model::{DTypeChoice, DeviceChoice, EngineOptions};
use minisgl_sched::{CacheKind, PageSize, Request, SamplingParams, TokenId};

use crate::harness;

/// Prompts with common beginnings, half of them sampled with a seed.
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
        harness::request(id, &prompt, 12, sampling)
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
