//! Page counts from made-up machines.

use std::num::NonZeroUsize;

use minisgl_kernels::DType;
use minisgl_sched::PageSize;

use super::*;
use crate::shard::Shard;

fn plan_for(
    free_mib: u64,
    change: impl FnOnce(&mut EngineOptions),
) -> Result<MemoryPlan, ModelError> {
    plan_with(free_mib, change, |_| {})
}

fn plan_with(
    free_mib: u64,
    change: impl FnOnce(&mut EngineOptions),
    formats: impl FnOnce(&mut Geometry),
) -> Result<MemoryPlan, ModelError> {
    let config = ModelConfig::parse(
        br#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 1024, "rms_norm_eps": 1e-5,
             "intermediate_size": 4096, "num_hidden_layers": 8, "rope_theta": 1e4, "head_dim": 128,
             "num_attention_heads": 8, "vocab_size": 32000, "max_position_embeddings": 4096}"#,
    )
    .unwrap();
    let mut options = EngineOptions {
        tp_size: NonZeroUsize::MIN,
        page_size: PageSize::new(16).unwrap(),
        max_running_requests: 64,
        max_prefill_tokens: 512,
        memory_ratio: Some(0.5),
        ..Default::default()
    };
    change(&mut options);
    let limits = StepLimits {
        max_tokens: 576,
        max_sequences: 64,
        max_pages_per_row: 256,
        page_size: 16,
        vocab_size: 32000,
    };
    let shard = Shard::new(&config, 0, 1).unwrap();
    let mut geometry = Geometry::new(&config, &shard, DType::Bf16);
    formats(&mut geometry);
    let layout = KvLayout {
        num_layers: 8,
        num_kv_heads: 8,
        head_dim: 128,
        dtype: geometry.kv_dtype,
        page_size: options.page_size,
    };
    let rank = (geometry, layout);
    let budget = Budget {
        free_bytes: (free_mib << 20) as usize,
        ratio: memory_ratio(&options, &Device::cpu(NonZeroUsize::MIN).unwrap())?,
        workspace_bytes: 0,
        max_positions: options.max_seq_len.unwrap_or(4096),
        device: "a test".to_owned(),
    };
    plan_within(&config, &options, &limits, &[rank], &budget)
}

#[test]
fn kv_pages_take_what_the_ratio_leaves() {
    let small = plan_for(2000, |_| {}).unwrap();
    let used = small.weight_bytes + small.step_bytes + small.kv_bytes;
    assert!(used <= 1000 << 20 && used + small.kv_bytes / small.num_pages > 1000 << 20);
    let larger = plan_for(4000, |_| {}).unwrap();
    assert_eq!(larger.weight_bytes, small.weight_bytes);
    assert!(larger.num_pages > small.num_pages);
    let huge = plan_for(4_000_000, |_| {}).unwrap();
    assert_eq!(huge.num_pages, 64 * 256, "no more than requests can hold");
}

#[test]
fn what_does_not_fit_is_an_error_with_advice() {
    let error = plan_for(100, |_| {}).unwrap_err().to_string();
    assert!(error.contains("50 MiB are available") && error.contains("--memory-ratio"), "{error}");
    let error = plan_for(4000, |options| options.num_pages = Some(1 << 20)).unwrap_err();
    assert!(matches!(error, ModelError::OutOfMemory { .. }));
    assert_eq!(plan_for(4000, |options| options.num_pages = Some(7)).unwrap().num_pages, 7);
    for ratio in [0.0, -1.0, 1.5, f64::NAN] {
        let error = plan_for(4000, |options| options.memory_ratio = Some(ratio)).unwrap_err();
        assert!(error.to_string().contains("use more than 0 and at most 1"));
    }
    assert!(plan_for(4000, |options| options.num_pages = Some(0)).is_err());
}

#[test]
fn weights_and_keys_in_8_bit_floats_take_half_the_bytes() {
    let plan = |formats: fn(&mut Geometry)| plan_with(2000, |_| {}, formats).unwrap();
    let plain = plan(|_| {});
    let quantized = plan(|geometry| geometry.fp8_projections = true);
    // A layer of this model: its projections by rows and columns.
    let shapes = [(3 * 1024, 1024), (1024, 1024), (2 * 4096, 1024), (1024, 4096)];
    let saved: usize = shapes.iter().map(|(rows, columns)| rows * (columns - 4)).sum();
    assert_eq!(plain.weight_bytes - quantized.weight_bytes, 8 * saved);
    // The activations of the widest projection and a scale, for every token.
    assert_eq!(quantized.step_bytes - plain.step_bytes, 576 * (4096 + 4));
    assert!(quantized.num_pages > plain.num_pages);

    let narrow = plan(|geometry| geometry.kv_dtype = DType::F8E4M3);
    assert_eq!((narrow.weight_bytes, narrow.step_bytes), (plain.weight_bytes, plain.step_bytes));
    assert!((2 * plain.num_pages..=2 * plain.num_pages + 1).contains(&narrow.num_pages));
    assert!(narrow.kv_bytes.abs_diff(plain.kv_bytes) <= plain.kv_bytes / plain.num_pages);
}

/// 128 elements of 4 bytes for every position.
#[test]
fn the_table_of_rotations_counts() {
    let step_bytes = |max_seq_len| {
        plan_for(2000, |options| options.max_seq_len = Some(max_seq_len)).unwrap().step_bytes
    };
    assert_eq!(step_bytes(4096) - step_bytes(1024), (4096 - 1024) * 128 * 4);
}

/// Counts and a copy of the logits, of 4 bytes each, for every row and id; and what does not grow
/// with both.
#[test]
fn what_penalties_need_counts() {
    let step_bytes = plan_for(2000, |_| {}).unwrap().step_bytes;
    assert!(Sampler::bytes(32_000, 32_000, 64) >= 64 * 32_000 * 8);
    assert!(step_bytes > Sampler::bytes(32_000, 32_000, 64));
}
