//! Projections and KV as 8-bit floats: against `transformers` with the same rounding spelled out
//! (`tests/golden/make_fp8.py`), for every number of ranks; what is refused; a GPU against the CPU.

use minisgl_model::{DTypeChoice, DeviceChoice, EngineOptions, KvCacheDType, QuantizationChoice};
use minisgl_sched::{Request, SamplingParams, TokenId};
use serde::Deserialize;

use crate::harness::{self, Output};

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    case: String,
    prompts: Vec<Vec<TokenId>>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    weights: bool,
    kv: bool,
    tp: usize,
    /// By prompt and step.
    results: Vec<Vec<Step>>,
}

#[derive(Deserialize)]
struct Step {
    /// The five most likely tokens with their log-probabilities.
    top: Vec<(TokenId, f32)>,
}

/// How far log-probabilities may be from the reference's. Sums in another order differ in their last
/// bits, and now and then that turns how a number is rounded to eight bits: then this step and those
/// after it differ by what one such rounding makes. So all steps must be near, and of all runs together
/// almost all very near.
struct Tolerance {
    very_near: f32,
    near: f32,
    /// The part of the steps that must be very near.
    most: f32,
}

const F32: Tolerance = Tolerance { very_near: 1e-3, near: 0.1, most: 0.9 };
/// Activations are rounded to bf16 before they are to eight bits, which turns about one rounding in
/// thirty. (What each op makes of bf16 is held to the reference by the kernels' own tests.)
const BF16: Tolerance = Tolerance { very_near: 0.25, near: 0.9, most: 0.9 };
/// A GPU's sums of 8-bit floats have fewer bits than f32, so it turns more roundings. (On an H100 0.7 of
/// the steps were very near.)
const GPU: Tolerance = Tolerance { very_near: 0.05, near: 0.2, most: 0.6 };

fn options(tp_size: usize, dtype: DTypeChoice, weights: bool, kv: bool) -> EngineOptions {
    EngineOptions {
        quantization: if weights { QuantizationChoice::Fp8 } else { QuantizationChoice::None },
        kv_cache_dtype: if kv { KvCacheDType::Fp8 } else { KvCacheDType::Auto },
        ..harness::options(tp_size, dtype)
    }
}

/// The largest difference of each step; a prompt ends where another token was chosen, which must have
/// been nearly as likely.
fn differences(outputs: &[Output], results: &[Vec<Step>], near: f32, what: &str) -> Vec<f32> {
    let mut differences = Vec::new();
    for (prompt, (output, steps)) in outputs.iter().zip(results).enumerate() {
        for (index, step) in steps.iter().enumerate() {
            let ours = &output.logprobs[index];
            let difference = |(token, logprob): &(TokenId, f32)| {
                let found = ours.top.iter().find(|(id, _)| id == token);
                // On a GPU one that is not among ours may be little less likely than the last of these.
                let last = ours.top.last().filter(|_| harness::on_gpu());
                found.or(last).map_or(f32::INFINITY, |(_, ours)| (ours - logprob).abs())
            };
            differences.push(step.top.iter().map(difference).fold(0.0, f32::max));
            if output.tokens[index] != step.top[0].0 {
                let margin = step.top[0].1 - step.top[1].1;
                assert!(margin <= 2.0 * near, "{what} prompt {prompt} step {index}: other token");
                break;
            }
        }
    }
    differences
}

fn check(dtype: DTypeChoice, cpu: &Tolerance) {
    let path = harness::golden().join("fp8.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let tolerance = if harness::on_gpu() && dtype == DTypeChoice::Float32 { &GPU } else { cpu };
    let (mut num_steps, mut num_very_near) = (0, 0);
    for Case { case, prompts, runs } in &golden.cases {
        for Run { weights, kv, tp, results } in runs {
            if !harness::tp_sizes().contains(tp) {
                continue;
            }
            let what = format!("{case} {dtype:?} weights {weights} kv {kv} tp {tp}");
            let group = match harness::launch(case, &options(*tp, dtype, *weights, *kv)) {
                Ok(group) => group,
                Err(error) if harness::on_gpu() => {
                    let error = error.to_string();
                    assert!(error.contains("on a GPU that must be a multiple of 16"), "{error}");
                    continue;
                }
                Err(error) => panic!("{what}: {error}"),
            };
            let sampling = SamplingParams { logprobs: Some(20), ..SamplingParams::GREEDY };
            let requests = prompts.iter().zip(0..);
            let requests = requests
                .map(|(prompt, id)| harness::request(id, prompt, results[0].len(), sampling));
            let outputs = harness::run(&mut harness::driver(group, true), requests.collect());
            let differences = differences(&outputs, results, tolerance.near, &what);
            let largest = differences.iter().copied().fold(0.0, f32::max);
            assert!(largest <= tolerance.near, "{what}: {largest}");
            num_steps += differences.len();
            num_very_near += differences.iter().filter(|&&d| d <= tolerance.very_near).count();
        }
    }
    let part = num_very_near as f32 / num_steps as f32;
    assert!(part >= tolerance.most, "{part} of {num_steps} steps are very near");
}

#[test]
fn quantized_in_f32_is_what_the_rounding_makes_of_transformers() {
    check(DTypeChoice::Float32, &F32);
}

#[test]
fn quantized_in_bf16_is_near_to_that() {
    check(DTypeChoice::Bfloat16, &BF16);
}

/// The rounding must show, or the comparison would be of nothing.
#[test]
fn quantized_differs_from_not_quantized() {
    let run = |weights, kv| {
        let group = harness::launch("llama", &options(1, DTypeChoice::Float32, weights, kv));
        let sampling = SamplingParams { logprobs: Some(5), ..SamplingParams::GREEDY };
        let request = harness::request(1, &[3, 1, 4, 1, 5, 9, 2, 6], 1, sampling);
        let output = harness::run(&mut harness::driver(group.unwrap(), false), vec![request]);
        output[0].logprobs[0].chosen
    };
    let plain = run(false, false);
    for (weights, kv) in [(true, false), (false, true)] {
        let difference = (run(weights, kv) - plain).abs();
        assert!((1e-3..0.5).contains(&difference), "{difference}");
    }
}

#[test]
fn what_is_quantized_is_said_and_counted() {
    let tp_size = harness::tp_sizes().iter().copied().take(2).max().unwrap();
    let limits = |weights, kv| {
        let options = options(tp_size, DTypeChoice::Float32, weights, kv);
        let group = harness::launch("qwen3", &options);
        group.unwrap().limits().clone()
    };
    let (plain, both) = (limits(false, false), limits(true, true));
    assert_eq!(plain.number_formats(), "float32");
    assert_eq!(both.number_formats(), "float32 with projections in fp8 and KV in fp8_e4m3");
    assert_eq!(limits(false, true).number_formats(), "float32 with KV in fp8_e4m3");
    assert_eq!(both.kv_bytes_per_token * 4, plain.kv_bytes_per_token);
    assert_eq!(both.memory.kv_bytes * 4, plain.memory.kv_bytes);
    assert!(both.step_weight_bytes < plain.step_weight_bytes);
}

#[test]
fn experts_are_refused_by_name() {
    let options = options(1, DTypeChoice::Float32, true, false);
    let error = harness::launch("qwen3-moe", &options).unwrap_err().to_string();
    let expected = "fp8 is for dense models; Qwen3MoeForCausalLM has experts: use none";
    assert!(error.contains("--quantization") && error.contains(expected), "{error}");
}

/// With heads and sizes that a GPU has kernels for, in bf16, captured as graphs and not.
#[test]
fn a_gpu_gives_the_log_probabilities_of_the_cpu() {
    if !harness::on_gpu() {
        println!("skipped, since MINISGL_TEST_CUDA names no number of GPUs");
        return;
    }
    const TOLERANCE: f32 = 0.15;
    let sampling = SamplingParams { logprobs: Some(2), ..SamplingParams::GREEDY };
    let request = |id: u64| -> Request {
        let prompt: Vec<TokenId> =
            (0..5 + 37 * id).map(|at| ((at * 29 + id) % 150) as TokenId).collect();
        harness::request(id, &prompt, 10, sampling)
    };
    let run = |case: &str, options: &EngineOptions| {
        let mut driver = harness::driver(harness::launch(case, options).unwrap(), true);
        harness::run(&mut driver, (0..5).map(request).collect())
    };
    for case in ["llama-head128", "llama-head256", "llama-head80"] {
        for (weights, kv) in [(true, false), (false, true), (true, true)] {
            let gpu = options(1, DTypeChoice::Bfloat16, weights, kv);
            let cpu = EngineOptions { device: DeviceChoice::Cpu, ..gpu.clone() };
            let expected = run(case, &cpu);
            for graphs in [0, 8] {
                let options = EngineOptions { cuda_graph_max_bs: Some(graphs), ..gpu.clone() };
                for (id, (got, want)) in run(case, &options).iter().zip(&expected).enumerate() {
                    for step in 0..want.tokens.len() {
                        let what = format!("{case} {weights} {kv} {graphs}, {id}, step {step}");
                        let (ours, theirs) = (&got.logprobs[step], &want.logprobs[step]);
                        if got.tokens[step] != want.tokens[step] {
                            let margin = theirs.top[0].1 - theirs.top[1].1;
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
}

/// Hopper's own attention kernels know no such pool, and say so.
#[test]
fn a_backend_without_kernels_for_an_8_bit_pool_is_refused() {
    if !harness::on_gpu() {
        println!("skipped, since MINISGL_TEST_CUDA names no number of GPUs");
        return;
    }
    let mut options = options(1, DTypeChoice::Bfloat16, false, true);
    options.attention = "fa,fi".parse().unwrap();
    let error = harness::launch("llama-head128", &options).unwrap_err().to_string();
    assert!(error.contains("no kernels for a KV pool of 8-bit floats"), "{error}");
}
