//! Writes a checkpoint of random weights in a well-known model's shape, loads it, and says how fast
//! and in how much memory.
//!
//! ```text
//! load [--model NAME] [--tp N] [--folder FOLDER] [--keep]
//! ```
//! Without arguments, a model of a few million parameters, on 2 ranks, in a folder that is removed
//! afterwards. `--model` is the name of a preset such as `meta-llama/Llama-3.1-8B`. A folder that has
//! a checkpoint already is loaded as it is, and never removed.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use minisgl_model::{
    Checkpoint, DeviceChoice, EngineOptions, LaunchObserver, ModelConfig, RankGroup, preset,
};

/// The size of a shard of the checkpoint, about.
const SHARD_BYTES: usize = 4 << 30;

const TINY: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5,
    "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 4000,
    "max_position_embeddings": 256
}"#;

struct Arguments {
    model: Option<String>,
    tp_size: NonZeroUsize,
    folder: Option<PathBuf>,
    keep: bool,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let two = NonZeroUsize::MIN.saturating_add(1);
    let mut arguments = Arguments { model: None, tp_size: two, folder: None, keep: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--model" => arguments.model = Some(value()?),
            "--tp" => arguments.tp_size = value()?.parse()?,
            "--folder" => arguments.folder = Some(value()?.into()),
            "--keep" => arguments.keep = true,
            _ => return Err(format!("unknown argument {word}").into()),
        }
    }
    Ok(arguments)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let config = match &arguments.model {
        Some(name) => preset(name).ok_or_else(|| format!("there is no preset {name}"))?,
        None => Checkpoint::Config(TINY.into()),
    };
    let unnamed = std::env::temp_dir().join(format!("minisgl-load-{}", std::process::id()));
    let folder = arguments.folder.unwrap_or(unnamed);
    let existed = folder.join("config.json").exists();
    if !existed {
        fs::create_dir_all(&folder)?;
        let started = Instant::now();
        let bytes = write_checkpoint(&config, &folder)?;
        show(format_args!("wrote {}", speed(bytes, started)));
    }
    let result = load(&folder, arguments.tp_size);
    if !existed && !arguments.keep {
        fs::remove_dir_all(&folder)?;
    }
    result
}

fn load(folder: &Path, tp_size: NonZeroUsize) -> Result<(), Box<dyn Error>> {
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        tp_size,
        // Next to nothing but weights.
        num_pages: Some(64),
        max_running_requests: 1,
        max_prefill_tokens: 16,
        max_seq_len: Some(64),
        ..Default::default()
    };
    let observer = Count::default();
    let before = memory("VmHWM")?;
    let started = Instant::now();
    let group = RankGroup::launch(&Checkpoint::folder(folder)?, &options, &observer)?;
    show(format_args!(
        "tp {tp_size}: loaded {}, {:.2} G parameters of {} in {}",
        speed(observer.bytes.get(), started),
        group.limits().num_parameters as f64 / 1e9,
        group.limits().architecture,
        group.limits().dtype,
    ));
    show(format_args!(
        "memory: weights {:.2} GB; resident at most {:.2} GB before {:.2} GB, of it now the engine's \
         own {:.2} GB, and pages of the files {:.2} GB",
        group.limits().memory.weight_bytes as f64 / 1e9,
        memory("VmHWM")?,
        before,
        memory("RssAnon")?,
        memory("RssFile")?,
    ));
    Ok(())
}

fn speed(bytes: u64, started: Instant) -> String {
    let (seconds, gigabytes) = (started.elapsed().as_secs_f64(), bytes as f64 / 1e9);
    format!("{gigabytes:.3} GB in {seconds:.2} s, {:.2} GB/s", gigabytes / seconds)
}

/// A line of `/proc/self/status`, in GB; 0 where there is none.
fn memory(field: &str) -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let Some(kib) = line.and_then(|line| line.split_whitespace().next()) else { return Ok(0.0) };
    Ok(kib.parse::<f64>()? * 1024.0 / 1e9)
}

/// Shards of whole tensors and their index, in the layout of the hub.
fn write_checkpoint(config: &Checkpoint, folder: &Path) -> Result<u64, Box<dyn Error>> {
    let tensors = tensors(&ModelConfig::load(config)?);
    let bytes = |(_, shape): &(String, Vec<usize>)| 2 * shape.iter().product::<usize>();
    let mut shards: Vec<Vec<(String, Vec<usize>)>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in tensors {
        if filled > 0 && filled + bytes(&tensor) > SHARD_BYTES {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes(&tensor);
        shards[..].last_mut().ok_or("there is a shard")?.push(tensor);
    }
    let (mut map, mut total) = (serde_json::Map::new(), 0);
    for (index, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len());
        let (mut header, mut end) = (serde_json::Map::new(), 0);
        for tensor in shard {
            let start = end;
            end += bytes(tensor);
            let (tensor, shape) = tensor;
            let info = serde_json::json!({
                "dtype": "BF16", "shape": shape, "data_offsets": [start, end]
            });
            header.insert(tensor.clone(), info);
            map.insert(tensor.clone(), name.clone().into());
        }
        write_file(&folder.join(&name), &serde_json::to_string(&header)?, end)?;
        total += end as u64;
    }
    let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string())?;
    fs::write(folder.join("config.json"), config.require("config.json")?)?;
    Ok(total)
}

/// A safetensors file with `len` bytes of bfloat16 numbers between 1/64 and 1/32, in no order.
fn write_file(path: &Path, header: &str, len: usize) -> Result<(), Box<dyn Error>> {
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut state = header.len() as u64;
    let number = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        [(state >> 57) as u8, 0x3c | (state >> 48) as u8 & 0x80]
    };
    let block: Vec<u8> = (0..1 << 19).flat_map(number).collect();
    for start in (0..len).step_by(block.len()) {
        file.write_all(&block[..block.len().min(len - start)])?;
    }
    file.into_inner()?.sync_all()?;
    Ok(())
}

/// Names and shapes of a dense decoder without biases.
fn tensors(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (h, i, d) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let (q, kv) = (config.num_qo_heads * d, config.num_kv_heads * d);
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, h])];
    for layer in 0..config.num_layers {
        let mut layer_tensors = vec![
            ("input_layernorm", vec![h]),
            ("self_attn.q_proj", vec![q, h]),
            ("self_attn.k_proj", vec![kv, h]),
            ("self_attn.v_proj", vec![kv, h]),
            ("self_attn.o_proj", vec![h, q]),
            ("post_attention_layernorm", vec![h]),
            ("mlp.gate_proj", vec![i, h]),
            ("mlp.up_proj", vec![i, h]),
            ("mlp.down_proj", vec![h, i]),
        ];
        if config.architecture.parts(config).qk_norm {
            layer_tensors.extend([("self_attn.q_norm", vec![d]), ("self_attn.k_norm", vec![d])]);
        }
        let named = layer_tensors.into_iter();
        tensors.extend(
            named.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)),
        );
    }
    tensors.push(("model.norm.weight".to_owned(), vec![h]));
    if !config.tie_word_embeddings {
        tensors.push(("lm_head.weight".to_owned(), vec![config.vocab_size, h]));
    }
    tensors
}

#[derive(Default)]
struct Count {
    bytes: std::cell::Cell<u64>,
}

impl LaunchObserver for Count {
    fn rank_ready(&self, _rank: usize, _world_size: usize) {}

    fn weights_loaded(&self, bytes: u64, _total: u64) {
        self.bytes.set(bytes);
    }

    fn warn(&self, message: &str) {
        show(format_args!("{message}"));
    }
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn show(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}
