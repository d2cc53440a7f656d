//! Configs as the hub has them, in both spellings, and every way they can be wrong.

use serde_json::{Value, json};

use super::*;

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2,
        "vocab_size": 331, "rms_norm_eps": 1e-5, "max_position_embeddings": 256,
        "rope_theta": 10000.0, "torch_dtype": "bfloat16", "eos_token_id": [1, 2],
        "hidden_act": "silu", "some_new_field": {"nobody": "knows"}
    })
}

/// The config with some fields replaced, or removed where the new value is null.
fn with(changes: Value) -> Result<ModelConfig, ModelError> {
    let mut config = llama();
    for (field, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(config.as_object_mut().unwrap().remove(field)),
            value => config[field] = value.clone(),
        }
    }
    ModelConfig::parse(config.to_string().as_bytes())
}

#[test]
fn defaults_are_those_of_transformers() {
    let config = with(json!({})).unwrap();
    assert_eq!((config.head_dim, config.group_size()), (8, 4));
    assert_eq!(config.dtype, CheckpointDType::Bf16);
    assert_eq!(config.eos_token_ids, [1, 2]);
    assert_eq!(config.windows, [None; 3]);
    assert!(!config.tie_word_embeddings && !config.attention_bias && !config.mlp_bias);
    let config = with(json!({
        "num_key_value_heads": null, "torch_dtype": null, "eos_token_id": 7, "head_dim": 32,
    }));
    let config = config.unwrap();
    assert_eq!((config.num_kv_heads, config.head_dim), (8, 32));
    assert_eq!((config.dtype, config.eos_token_ids), (CheckpointDType::F32, vec![7]));
}

#[test]
fn both_spellings_of_rope_and_dtype_are_read() {
    let scaling = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32
    });
    let old = with(json!({"rope_scaling": scaling, "rope_theta": 5e5})).unwrap();
    let mut parameters = scaling.clone();
    parameters["rope_theta"] = json!(5e5);
    let new = with(json!({
        "rope_theta": null, "rope_parameters": parameters, "torch_dtype": null,
        "dtype": "bfloat16",
    }));
    assert_eq!(old, new.unwrap());
    assert_eq!(old.rope.theta, 5e5);
    assert!(matches!(old.rope.scaling, RopeScaling::Llama3 { original_max: 32, .. }));
    let oldest = with(json!({"rope_scaling": {"type": "linear", "factor": 2.0}})).unwrap();
    assert_eq!(oldest.rope.scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn sliding_windows_are_read_where_the_architecture_has_them() {
    let window = json!({
        "architectures": ["Qwen3ForCausalLM"], "use_sliding_window": true, "sliding_window": 16,
        "max_window_layers": 1
    });
    assert_eq!(with(window.clone()).unwrap().windows, [None, Some(16), Some(16)]);
    let mut typed = window.clone();
    typed["layer_types"] = json!(["sliding_attention", "full_attention", "sliding_attention"]);
    assert_eq!(with(typed).unwrap().windows, [Some(16), None, Some(16)]);
    let mut off = window.clone();
    off["use_sliding_window"] = json!(false);
    assert_eq!(with(off).unwrap().windows, [None; 3]);
    let mut bad = window;
    bad["layer_types"] = json!(["full_attention"]);
    assert!(with(bad).unwrap_err().to_string().contains("has 1 entries for 3 layers"));
}

#[test]
fn mistral_has_its_window_in_all_layers_and_may_be_wrapped() {
    let mistral = json!({"architectures": ["MistralForCausalLM"], "sliding_window": 16});
    assert_eq!(with(mistral).unwrap().windows, [Some(16); 3]);
    let mut text = llama();
    text["architectures"] = json!(["MistralForCausalLM"]);
    text["eos_token_id"] = json!(5);
    let mut fields = text.as_object().unwrap().clone();
    fields.remove("torch_dtype");
    let wrapped = json!({
        "architectures": ["Mistral3ForConditionalGeneration"], "text_config": fields,
        "torch_dtype": "float16", "eos_token_id": 6, "vision_config": {"hidden_size": 7}
    });
    let config = ModelConfig::parse(wrapped.to_string().as_bytes()).unwrap();
    assert_eq!(config.architecture, Architecture::Mistral3);
    assert_eq!((config.hidden_size, config.dtype), (64, CheckpointDType::F16));
    assert_eq!(config.eos_token_ids, [5]);
}

#[test]
fn experts_are_in_the_layers_that_the_config_says() {
    let moe = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 24, "norm_topk_prob": true
    });
    let config = with(moe.clone()).unwrap();
    let experts = config.moe.as_ref().unwrap();
    assert_eq!((experts.num_experts, experts.top_k, experts.intermediate_size), (8, 2, 24));
    assert_eq!(experts.is_sparse, [true; 3]);
    let mut changed = moe.clone();
    changed["mlp_only_layers"] = json!([0]);
    assert_eq!(with(changed.clone()).unwrap().moe.unwrap().is_sparse, [false, true, true]);
    changed["decoder_sparse_step"] = json!(2);
    assert_eq!(with(changed).unwrap().moe.unwrap().is_sparse, [false, true, false]);
    let mut new_name = moe.clone();
    new_name["num_local_experts"] =
        new_name.as_object_mut().unwrap().remove("num_experts").unwrap();
    assert_eq!(with(new_name).unwrap().moe, config.moe);
    let mut bad = moe;
    bad["num_experts_per_tok"] = json!(9);
    assert!(with(bad).unwrap_err().to_string().contains("num_experts_per_tok = 9 is not allowed"));
    assert_eq!(with(json!({"num_experts": 8})).unwrap().moe, None, "llama has none");
}

#[test]
fn what_is_wrong_is_named_with_what_is_allowed() {
    for (changes, expected) in [
        (
            json!({"architectures": ["GPT2LMHeadModel"]}),
            "architecture `GPT2LMHeadModel` is not supported: LlamaForCausalLM, MistralForCausalLM, ",
        ),
        (json!({"architectures": null}), "architecture `none` is not supported"),
        (json!({"hidden_size": null}), "config.json: hidden_size is missing"),
        (json!({"num_hidden_layers": 0}), "num_hidden_layers = 0 is not allowed: use 1 to 1024"),
        (json!({"vocab_size": 1u64 << 40}), "vocab_size = 1099511627776 is not allowed"),
        (json!({"num_key_value_heads": 3}), "8 is not a multiple of the 3 KV heads"),
        (json!({"head_dim": 7}), "head_dim = 7 is not allowed"),
        (json!({"rms_norm_eps": -1.0}), "rms_norm_eps = -1 is not allowed"),
        (json!({"rope_theta": null}), "rope_theta is missing"),
        (json!({"rope_theta": 0}), "rope_theta = 0 is not allowed"),
        (json!({"torch_dtype": "int4"}), "dtype `int4` is not supported"),
        (json!({"hidden_act": "gelu"}), "hidden_act `gelu` is not supported: only silu is"),
        (
            json!({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}),
            "rope type `longrope` is not supported: default, linear, dynamic, llama3 and yarn are",
        ),
        (json!({"rope_scaling": {"rope_type": "llama3"}}), "factor is missing"),
        (
            json!({"quantization_config": {"quant_method": "awq"}}),
            "quantization `awq` is not supported",
        ),
        (json!({"hidden_size": "64"}), "config.json is not valid: invalid type: string"),
        (json!({"hidden_size": -64}), "config.json is not valid"),
    ] {
        let error = with(changes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(ModelConfig::parse(b"[]").is_err());
    assert!(ModelConfig::parse(b"{").unwrap_err().to_string().contains("EOF"));
}
