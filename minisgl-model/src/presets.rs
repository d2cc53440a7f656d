//! The shapes of well-known models by their name on the hub, so that `--dummy-weight` needs no file
//! at all. Written from their public configurations; never weights, never a tokenizer.

use serde_json::{Value, json};

use crate::Checkpoint;

/// A family's common fields, and what differs between its sizes.
struct Family {
    common: fn() -> Value,
    models: &'static [Model],
}

/// `[hidden, intermediate, layers, query heads, KV heads, head_dim, vocabulary]`, tied embeddings.
struct Model {
    names: &'static [&'static str],
    sizes: [usize; 7],
    tied: bool,
}

const fn model(names: &'static [&'static str], sizes: [usize; 7], tied: bool) -> Model {
    Model { names, sizes, tied }
}

const FAMILIES: &[Family] = &[
    Family {
        common: qwen3,
        models: &[
            model(&["Qwen/Qwen3-0.6B"], [1024, 3072, 28, 16, 8, 128, 151936], true),
            model(&["Qwen/Qwen3-1.7B"], [2048, 6144, 28, 16, 8, 128, 151936], true),
            model(&["Qwen/Qwen3-4B"], [2560, 9728, 36, 32, 8, 128, 151936], true),
            model(&["Qwen/Qwen3-8B"], [4096, 12288, 36, 32, 8, 128, 151936], false),
            model(&["Qwen/Qwen3-14B"], [5120, 17408, 40, 40, 8, 128, 151936], false),
            model(&["Qwen/Qwen3-32B"], [5120, 25600, 64, 64, 8, 128, 151936], false),
        ],
    },
    Family {
        common: qwen3_30b_a3b,
        models: &[model(&["Qwen/Qwen3-30B-A3B"], [2048, 6144, 48, 32, 4, 128, 151936], false)],
    },
    Family {
        common: qwen3_235b_a22b,
        models: &[model(&["Qwen/Qwen3-235B-A22B"], [4096, 12288, 94, 64, 4, 128, 151936], false)],
    },
    Family {
        common: qwen2_5,
        models: &[
            model(&["Qwen/Qwen2.5-0.5B-Instruct"], [896, 4864, 24, 14, 2, 64, 151936], true),
            model(&["Qwen/Qwen2.5-1.5B-Instruct"], [1536, 8960, 28, 12, 2, 128, 151936], true),
            model(&["Qwen/Qwen2.5-3B-Instruct"], [2048, 11008, 36, 16, 2, 128, 151936], true),
            model(&["Qwen/Qwen2.5-7B-Instruct"], [3584, 18944, 28, 28, 4, 128, 152064], false),
            model(&["Qwen/Qwen2.5-14B-Instruct"], [5120, 13824, 48, 40, 8, 128, 152064], false),
            model(&["Qwen/Qwen2.5-32B-Instruct"], [5120, 27648, 64, 40, 8, 128, 152064], false),
            model(&["Qwen/Qwen2.5-72B-Instruct"], [8192, 29568, 80, 64, 8, 128, 152064], false),
        ],
    },
    Family {
        common: llama3_1,
        models: &[
            model(
                &["meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct"],
                [4096, 14336, 32, 32, 8, 128, 128256],
                false,
            ),
            model(
                &[
                    "meta-llama/Llama-3.1-70B",
                    "meta-llama/Llama-3.1-70B-Instruct",
                    "meta-llama/Llama-3.3-70B-Instruct",
                ],
                [8192, 28672, 80, 64, 8, 128, 128256],
                false,
            ),
            model(
                &["meta-llama/Llama-3.1-405B", "meta-llama/Llama-3.1-405B-Instruct"],
                [16384, 53248, 126, 128, 8, 128, 128256],
                false,
            ),
        ],
    },
    Family {
        common: llama3_2,
        models: &[
            model(
                &["meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct"],
                [2048, 8192, 16, 32, 8, 64, 128256],
                true,
            ),
            model(
                &["meta-llama/Llama-3.2-3B", "meta-llama/Llama-3.2-3B-Instruct"],
                [3072, 8192, 28, 24, 8, 128, 128256],
                true,
            ),
        ],
    },
    Family {
        common: mistral,
        models: &[model(
            &["mistralai/Mistral-7B-v0.3", "mistralai/Mistral-7B-Instruct-v0.3"],
            [4096, 14336, 32, 32, 8, 128, 32768],
            false,
        )],
    },
    Family {
        common: mistral_small,
        models: &[model(
            &["mistralai/Mistral-Small-3.1-24B-Instruct-2503"],
            [5120, 32768, 40, 32, 8, 128, 131072],
            false,
        )],
    },
];

/// The preset of this name, if there is one.
pub fn preset(name: &str) -> Option<Checkpoint> {
    FAMILIES.iter().find_map(|family| {
        let model = family.models.iter().find(|model| model.names.contains(&name))?;
        let [hidden, intermediate, layers, qo_heads, kv_heads, head_dim, vocab] = model.sizes;
        let mut config = (family.common)();
        config["hidden_size"] = json!(hidden);
        config["intermediate_size"] = json!(intermediate);
        config["num_hidden_layers"] = json!(layers);
        config["num_attention_heads"] = json!(qo_heads);
        config["num_key_value_heads"] = json!(kv_heads);
        config["head_dim"] = json!(head_dim);
        config["vocab_size"] = json!(vocab);
        config["tie_word_embeddings"] = json!(model.tied);
        Some(Checkpoint::Config(config.to_string().into_bytes()))
    })
}

/// The names of all presets.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|family| family.models).flat_map(|model| model.names).copied()
}

fn qwen3() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"], "torch_dtype": "bfloat16", "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "max_position_embeddings": 40960, "eos_token_id": 151645
    })
}

fn qwen3_30b_a3b() -> Value {
    qwen3_moe(768)
}

fn qwen3_235b_a22b() -> Value {
    qwen3_moe(1536)
}

fn qwen3_moe(intermediate_size: usize) -> Value {
    json!({
        "architectures": ["Qwen3MoeForCausalLM"], "torch_dtype": "bfloat16", "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "max_position_embeddings": 40960, "eos_token_id": 151645,
        "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": true,
        "moe_intermediate_size": intermediate_size
    })
}

fn qwen2_5() -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"], "torch_dtype": "bfloat16", "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "max_position_embeddings": 32768, "eos_token_id": 151645
    })
}

fn llama3_1() -> Value {
    llama3(8.0)
}

fn llama3_2() -> Value {
    llama3(32.0)
}

fn llama3(factor: f64) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5,
        "rope_theta": 5e5, "max_position_embeddings": 131072,
        "eos_token_id": [128001, 128008, 128009],
        "rope_scaling": {
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192
        }
    })
}

fn mistral() -> Value {
    json!({
        "architectures": ["MistralForCausalLM"], "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5,
        "rope_theta": 1e6, "max_position_embeddings": 32768, "eos_token_id": 2
    })
}

fn mistral_small() -> Value {
    json!({
        "architectures": ["Mistral3ForConditionalGeneration"], "torch_dtype": "bfloat16",
        "rms_norm_eps": 1e-5, "rope_theta": 1e9, "max_position_embeddings": 131072,
        "eos_token_id": 2
    })
}

#[cfg(test)]
mod tests;
