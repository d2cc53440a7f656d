//! Greedy tokens and their log-probabilities against Hugging Face transformers, for every fixture
//! and every number of ranks.

use std::collections::BTreeSet;

use minisgl_sched::{SamplingParams, TokenId};
use serde::Deserialize;

use crate::harness::{self, Output};

#[derive(Deserialize)]
struct Golden {
    prompts: Vec<Vec<TokenId>>,
    runs: Vec<Run>,
}

/// The reference run in one dtype.
#[derive(Deserialize)]
struct Run {
    dtype: String,
    tolerance: Tolerance,
    results: Vec<Expected>,
}

#[derive(Deserialize)]
struct Tolerance {
    /// How far any one log-probability may stray.
    max: f32,
}

#[derive(Deserialize)]
struct Expected {
    token_ids: Vec<TokenId>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    /// The five most likely tokens with their log-probabilities.
    top: Vec<(TokenId, f32)>,
    margin: f32,
}

fn check(case: &str) {
    let path = harness::golden().join(case).join("golden.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for reference in &golden.runs {
        let dtype = reference.dtype.parse().unwrap();
        for &tp_size in harness::tp_sizes() {
            let group = harness::launch(case, &harness::options(tp_size, dtype)).unwrap();
            let mut driver = harness::driver(group, true);
            let sampling = SamplingParams { logprobs: Some(20), ..SamplingParams::GREEDY };
            let requests = golden.prompts.iter().zip(0..).map(|(prompt, id)| {
                harness::request(id, prompt, reference.results[0].token_ids.len(), sampling)
            });
            let outputs = harness::run(&mut driver, requests.collect());
            for (index, (output, expected)) in outputs.iter().zip(&reference.results).enumerate() {
                let what = format!("{case} {} tp {tp_size} prompt {index}", reference.dtype);
                compare(output, expected, reference.tolerance.max, &what);
            }
        }
    }
}

/// Tokens must be equal wherever the reference's margin is above the tolerance; up to the first
/// difference, its five most likely tokens must have its log-probabilities.
fn compare(output: &Output, expected: &Expected, tolerance: f32, what: &str) {
    for (index, step) in expected.steps.iter().enumerate() {
        let ours = &output.logprobs[index];
        for (token, logprob) in &step.top {
            let found = ours.top.iter().find(|(id, _)| id == token);
            let difference = found.map_or(f32::INFINITY, |(_, ours)| (ours - logprob).abs());
            assert!(difference <= tolerance, "{what} step {index} token {token}: {difference}");
        }
        if output.tokens[index] != expected.token_ids[index] {
            assert!(step.margin <= tolerance, "{what} step {index}: another token");
            return;
        }
        assert_eq!(ours.chosen, ours.top[0].1, "greedy is the most likely one");
    }
}

macro_rules! golden {
    ($($name:ident: $case:literal,)*) => {
        const CASES: &[&str] = &[$($case),*];
        $(
            #[test]
            fn $name() {
                check($case);
            }
        )*
    };
}

golden! {
    llama: "llama",
    llama3_rope_sharded_files: "llama3-rope",
    llama_linear: "llama-linear",
    llama_dynamic: "llama-dynamic",
    llama_yarn_in_rope_parameters: "llama-yarn",
    llama_bias: "llama-bias",
    llama_bf16: "llama-bf16",
    llama_stored_in_f16: "llama-f16",
    llama_fp8_by_tensor: "llama-fp8",
    llama_heads_of_80: "llama-head80",
    llama_heads_of_96: "llama-head96",
    llama_heads_of_128: "llama-head128",
    llama_heads_of_256: "llama-head256",
    mistral_with_a_window: "mistral",
    mistral3_text_part: "mistral3",
    qwen2: "qwen2",
    qwen2_with_windows_by_layer: "qwen2-window",
    qwen3: "qwen3",
    qwen3_untied: "qwen3-untied",
    qwen3_bf16: "qwen3-bf16",
    qwen3_fp8_by_block: "qwen3-fp8",
    qwen3_moe: "qwen3-moe",
    qwen3_moe_sparse_step: "qwen3-moe-sparse-step",
    qwen3_moe_bf16: "qwen3-moe-bf16",
}

#[test]
fn every_fixture_is_compared() {
    let entries = std::fs::read_dir(harness::golden()).unwrap().map(Result::unwrap);
    let folders = entries.filter(|entry| entry.path().join("golden.json").exists());
    let folders: BTreeSet<String> =
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    let cases: BTreeSet<String> = CASES.iter().map(|case| (*case).to_owned()).collect();
    assert_eq!(folders, cases);
}
