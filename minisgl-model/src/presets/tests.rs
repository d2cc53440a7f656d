//! Presets against what is public of the models: their sizes, and how they can be split.

use super::*;
use crate::ModelConfig;
use crate::shard::Shard;

/// Parameters as the hub shows them for the checkpoints, which count the norms of heads and biases.
const PUBLIC: [(&str, u64); 15] = [
    ("Qwen/Qwen3-0.6B", 596_049_920),
    ("Qwen/Qwen3-1.7B", 1_720_574_976),
    ("Qwen/Qwen3-4B", 4_022_468_096),
    ("Qwen/Qwen3-8B", 8_190_735_360),
    ("Qwen/Qwen3-14B", 14_768_307_200),
    ("Qwen/Qwen3-32B", 32_762_123_264),
    ("Qwen/Qwen3-30B-A3B", 30_532_122_624),
    ("Qwen/Qwen3-235B-A22B", 235_093_634_560),
    ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
    ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
    ("meta-llama/Llama-3.1-8B", 8_030_261_248),
    ("meta-llama/Llama-3.1-70B-Instruct", 70_553_706_496),
    ("meta-llama/Llama-3.2-1B", 1_235_814_400),
    ("meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824),
    ("mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552),
];

#[test]
fn presets_are_valid_and_as_large_as_their_names_say() {
    for name in preset_names() {
        let config = ModelConfig::load(&preset(name).unwrap()).unwrap();
        let billions = config.num_parameters() as f64 / 1e9;
        let is_size = |part: &str| part.strip_suffix('B').and_then(|size| size.parse().ok());
        let said: Option<f64> = name.split('-').find_map(is_size);
        // A name rounds, and some leave the embedding out.
        let said = said.unwrap();
        assert!((0.85..1.35).contains(&(billions / said)), "{name}: {billions} B");
    }
    assert!(preset("gpt2").is_none());
}

#[test]
fn parameters_are_those_of_the_published_checkpoints() {
    for (name, public) in PUBLIC {
        let config = ModelConfig::load(&preset(name).unwrap()).unwrap();
        let norms_of_heads =
            if config.architecture.parts(&config).qk_norm { 2 * config.head_dim } else { 0 };
        let biases = if config.architecture.parts(&config).qkv_bias {
            (config.num_qo_heads + 2 * config.num_kv_heads) * config.head_dim
        } else {
            0
        };
        let ours = config.num_parameters() + config.num_layers * (norms_of_heads + biases);
        assert_eq!(ours as u64, public, "{name}");
    }
}

/// All that can be split over 8 ranks are; what cannot says why.
#[test]
fn presets_split_over_1_2_4_and_8_ranks_or_say_why_not() {
    for name in preset_names() {
        let config = ModelConfig::load(&preset(name).unwrap()).unwrap();
        for world_size in [1, 2, 4, 8] {
            let divides = config.num_qo_heads.is_multiple_of(world_size);
            match Shard::new(&config, world_size - 1, world_size) {
                Ok(shard) => {
                    assert!(divides, "{name} over {world_size}");
                    assert_eq!(shard.vocab.end, config.vocab_size);
                }
                Err(error) => {
                    assert!(!divides, "{name} over {world_size}: {error}");
                    let heads = format!("{} attention heads cannot be", config.num_qo_heads);
                    assert!(error.to_string().contains(&heads), "{error}");
                }
            }
        }
    }
}
