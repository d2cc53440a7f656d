//! Random weights in place of a checkpoint's: only a config is needed, and the model is one and the
//! same however it is split.

use minisgl_model::{Checkpoint, DTypeChoice, EngineOptions, RankGroup, preset};
use minisgl_sched::{SamplingParams, TokenLogprobs};
use serde_json::{Value, json};

use crate::files;
use crate::harness::{self, Quiet};

/// The log-probabilities of the first tokens after a prompt.
fn logprobs(config: &Value, tp_size: usize) -> Vec<TokenLogprobs> {
    let checkpoint = Checkpoint::Config(config.to_string().into_bytes());
    let options =
        EngineOptions { dummy_weights: true, ..harness::options(tp_size, DTypeChoice::Float32) };
    let group = RankGroup::launch(&checkpoint, &options, &Quiet).unwrap();
    let sampling = SamplingParams { logprobs: Some(20), ..SamplingParams::GREEDY };
    let request = harness::request(1, &[1, 2, 3], 4, sampling);
    harness::run(&mut harness::driver(group, true), vec![request]).remove(0).logprobs
}

/// Whether the most likely tokens are as likely; the order of sums differs between numbers of ranks.
fn assert_close(ours: &TokenLogprobs, other: &TokenLogprobs, what: &str) {
    for ((_, a), (_, b)) in ours.top.iter().zip(&other.top) {
        assert!((a - b).abs() < 1e-4, "{what}: {a} {b}");
    }
}

#[test]
fn every_architecture_runs_from_its_config_alone_on_any_number_of_ranks() {
    for case in ["llama", "qwen2", "qwen3", "qwen3-moe", "qwen3-fp8", "mistral", "mistral3"] {
        let config = files::config(case);
        let alone = logprobs(&config, 1);
        assert!(alone[0].top[0].1.is_finite() && alone[0].top[0].1 > alone[0].top[19].1, "{case}");
        assert_eq!(alone, logprobs(&config, 1), "{case}");
        for tp_size in [2, 4, 8] {
            assert_close(&alone[0], &logprobs(&config, tp_size)[0], &format!("{case} {tp_size}"));
        }
    }
}

/// A preset with fewer and narrower layers, so that a test has the time for it.
#[test]
fn presets_run_without_any_file() {
    for name in ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-30B-A3B", "meta-llama/Llama-3.2-1B-Instruct"] {
        let Some(Checkpoint::Config(json)) = preset(name) else { panic!("{name}") };
        let mut config: Value = serde_json::from_slice(&json).unwrap();
        for (field, size) in [
            ("hidden_size", 128),
            ("intermediate_size", 64),
            ("moe_intermediate_size", 32),
            ("num_hidden_layers", 2),
            ("vocab_size", 2000),
            ("max_position_embeddings", 512),
        ] {
            config[field] = json!(size);
        }
        let alone = logprobs(&config, 1);
        assert_close(&alone[0], &logprobs(&config, 4)[0], name);
        // Weights of the usual scale: no token stands out, and all are not the same.
        let top = &alone[0].top;
        assert!(top[0].1 < -3.0 && top[0].1 - top[19].1 > 0.05, "{name}: {top:?}");
    }
}
