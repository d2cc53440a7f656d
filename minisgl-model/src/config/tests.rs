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
fn rotations_are_stretched_to_longer_contexts() {
    let positions = |scaling: Value| {
        let config = with(json!({"rope_scaling": scaling})).unwrap();
        (config.context_len(), config.max_positions())
    };
    let yarn = |factor: f64, original: usize| json!({"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original});
    // As Qwen's makers tell users to write it into the config, whose positions stay as they were.
    assert_eq!(positions(yarn(4.0, 200)), (800, 800));
    assert_eq!(positions(yarn(4.0, 64)), (256, 256));
    assert_eq!(positions(yarn(1.5, 32)), (256, 256));
    assert_eq!(positions(json!({"rope_type": "yarn", "factor": 2})), (512, 512));
    // Some configs have the positions before the stretch here, some those after.
    assert_eq!(positions(json!({"type": "linear", "factor": 4})), (256, 1024));
    assert_eq!(positions(json!({"type": "linear", "factor": 1e30})), (256, 1 << 28));
    assert_eq!(positions(json!({"rope_type": "dynamic", "factor": 4})), (256, 256));
    assert_eq!(positions(json!({})), (256, 256));
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
    let mut deep = window.clone();
    deep.as_object_mut().unwrap().remove("max_window_layers");
    assert_eq!(with(deep.clone()).unwrap().windows, [None; 3]);
    deep["num_hidden_layers"] = json!(29);
    assert_eq!(with(deep).unwrap().windows[27..], [None, Some(16)]);
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
fn llama_2_leaves_out_the_base_of_its_frequencies() {
    let config = with(json!({"rope_theta": null, "rope_scaling": null})).unwrap();
    assert_eq!(config.rope, RopeConfig { theta: 1e4, scaling: RopeScaling::Default });
}

#[test]
fn positions_may_be_scaled_in_every_way_but_longrope() {
    let scaling = |fields: Value| {
        let mut config = json!({"rope_scaling": fields});
        config["max_position_embeddings"] = json!(128);
        with(config).map(|config| config.rope.scaling)
    };
    assert_eq!(scaling(json!({"rope_type": "default"})).unwrap(), RopeScaling::Default);
    let dynamic = scaling(json!({"rope_type": "dynamic", "factor": 2.0})).unwrap();
    assert_eq!(dynamic, RopeScaling::Default, "up to the positions the model was made for");
    let yarn = scaling(json!({"type": "yarn", "factor": 4.0})).unwrap();
    let RopeScaling::Yarn { factor, original_max, attention_factor, beta_fast, .. } = yarn else {
        panic!("{yarn:?}");
    };
    assert_eq!((factor, original_max, beta_fast), (4.0, 128, 32.0));
    assert!((attention_factor - (0.1 * 4f64.ln() + 1.0)).abs() < 1e-12);
    let error = scaling(json!({"type": "su", "factor": 4.0})).unwrap_err().to_string();
    assert!(error.contains("rope type `su` is not supported"), "{error}");
}

#[test]
fn fp8_is_read_and_other_quantization_refused_by_name() {
    let quantized = |fields: Value| with(json!({"quantization_config": fields}));
    assert_eq!(with(json!({})).unwrap().fp8, None);
    let whole = quantized(json!({"quant_method": "fp8", "activation_scheme": "static"})).unwrap();
    assert_eq!(whole.fp8, Some(Fp8Config { block: None }));
    let block = json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 64]});
    assert_eq!(quantized(block).unwrap().fp8, Some(Fp8Config { block: Some([128, 64]) }));
    for (fields, expected) in [
        (json!({"quant_method": "awq", "bits": 4}), "quantization `awq` is not supported"),
        (json!({"quant_method": "gptq", "bits": 4}), "quantization `gptq` is not supported"),
        (
            json!({"quant_method": "compressed-tensors", "format": "float-quantized"}),
            "quantization `compressed-tensors` is not supported: float32, float16, bfloat16",
        ),
        (json!({"load_in_4bit": true}), "quantization `bitsandbytes` is not supported"),
        (json!({"bits": 4}), "quantization `unknown` is not supported"),
        (json!({"quant_method": "fp8", "fmt": "e5m2"}), "fp8 format `e5m2` is not supported"),
        (
            json!({"quant_method": "fp8", "weight_block_size": [128]}),
            "weight_block_size = [128] is not allowed: use two sizes",
        ),
        (
            json!({"quant_method": "fp8", "weight_block_size": [0, 128]}),
            "= [0, 128] is not allowed",
        ),
    ] {
        let error = quantized(fields).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
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
        (json!({"rope_theta": 0}), "rope_theta = 0 is not allowed"),
        (json!({"torch_dtype": "int4"}), "dtype `int4` is not supported"),
        (json!({"hidden_act": "gelu"}), "hidden_act `gelu` is not supported: only silu is"),
        (
            json!({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}),
            "rope type `longrope` is not supported: default, linear, dynamic, llama3 and yarn are",
        ),
        (json!({"rope_scaling": {"rope_type": "llama3"}}), "factor is missing"),
        (
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}),
            "rope_parameters `by type of layer` is not supported",
        ),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor `0.5` is not supported"),
        (json!({"num_attention_heads": 1 << 17}), "num_attention_heads = 131072 is not allowed"),
        (json!({"hidden_size": "64"}), "config.json is not valid: invalid type: string"),
        (json!({"hidden_size": -64}), "config.json is not valid"),
    ] {
        let error = with(changes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(ModelConfig::parse(b"[]").is_err());
    assert!(ModelConfig::parse(b"{").unwrap_err().to_string().contains("EOF"));
}
