//! Rotary tables against those of transformers.

use minisgl_model::ModelConfig;
use minisgl_model::rope::{cos_sin_table, inverse_frequencies};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    head_dim: usize,
    partial_rotary_factor: f64,
    max_position_embeddings: usize,
    rope_theta: f64,
    rope_scaling: Value,
    inv_freq: Vec<f64>,
    positions: Vec<usize>,
    cos: Vec<Vec<f32>>,
    sin: Vec<Vec<f32>>,
}

/// Partial rotation is refused.
fn is_supported(case: &Case) -> bool {
    case.partial_rotary_factor == 1.0
}

#[test]
fn tables_agree_with_transformers() {
    let json = std::fs::read(harness::golden().join("rope.json")).unwrap();
    let fixture: Fixture = serde_json::from_slice(&json).unwrap();
    let cases: Vec<&Case> = fixture.cases.iter().filter(|case| is_supported(case)).collect();
    assert!(cases.len() >= 9);
    for case in cases {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 64,
            "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 10,
            "rms_norm_eps": 1e-5, "head_dim": case.head_dim, "rope_theta": case.rope_theta,
            "max_position_embeddings": case.max_position_embeddings,
            "rope_scaling": case.rope_scaling,
        });
        let rope = ModelConfig::parse(config.to_string().as_bytes()).unwrap().rope;
        for (ours, theirs) in inverse_frequencies(&rope, case.head_dim).iter().zip(&case.inv_freq) {
            assert!((ours / theirs - 1.0).abs() < 1e-6, "{}: {ours} {theirs}", case.name);
        }
        let table = cos_sin_table(&rope, case.head_dim, 0..256);
        for (index, position) in case.positions.iter().enumerate() {
            let row = &table[position * case.head_dim..][..case.head_dim];
            let expected = case.cos[index].iter().chain(&case.sin[index]);
            for (ours, theirs) in row.iter().zip(expected) {
                assert!((ours - theirs).abs() < 1e-4, "{} at {position}", case.name);
            }
            let alone = cos_sin_table(&rope, case.head_dim, *position..position + 1);
            assert_eq!(alone, row, "a row does not depend on where the table begins");
        }
    }
}
