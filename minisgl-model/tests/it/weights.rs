//! Reading checkpoints: layouts of files, element types, names, and how much is read.

use std::cell::Cell;
use std::fs;

use half::{bf16, f16};
use minisgl_model::weights::SafetensorsFiles;
use minisgl_model::{Checkpoint, DTypeChoice, LaunchObserver, RankGroup};
use safetensors::tensor::Dtype;
use serde_json::json;

use crate::files::{self, Tensors};
use crate::harness::{self, Quiet};

/// Counts bytes, and keeps what it is warned of.
#[derive(Default)]
struct Count {
    loaded: Cell<u64>,
    warnings: std::cell::RefCell<Vec<String>>,
}

impl LaunchObserver for Count {
    fn rank_ready(&self, _rank: usize, _world_size: usize) {}

    fn weights_loaded(&self, bytes: u64, _total: u64) {
        self.loaded.set(bytes);
    }

    fn warn(&self, message: &str) {
        self.warnings.borrow_mut().push(message.to_owned());
    }
}

#[test]
fn ranks_read_the_checkpoint_once_between_them() {
    for case in ["llama", "qwen3-untied", "qwen3-moe", "llama-fp8"] {
        let checkpoint = harness::checkpoint(case);
        let stored = SafetensorsFiles::open(&checkpoint).unwrap();
        // On every rank: norms and routers; and KV heads where there are fewer than ranks.
        let replicated = |names: &[&str]| -> u64 {
            let is = |name: &&str| names.iter().any(|part| name.contains(part));
            let bytes = |name| stored.get(name).map_or(0, |tensor| tensor.bytes.len() as u64);
            stored.names().filter(is).map(bytes).sum()
        };
        for tp_size in [1, 2, 4, 8] {
            let count = Count::default();
            let options = harness::options(tp_size, DTypeChoice::Auto);
            drop(RankGroup::launch(&checkpoint, &options, &count).unwrap());
            let kv_copies = if case == "qwen3-untied" { 1 } else { (tp_size as u64 / 2).max(1) };
            let allowed = stored.total_bytes()
                + (tp_size as u64 - 1) * replicated(&["norm", "mlp.gate.weight"])
                + (kv_copies - 1) * replicated(&["k_proj", "v_proj"]);
            let loaded = count.loaded.get();
            assert!(loaded <= allowed + allowed / 20, "{case} tp {tp_size}: {loaded} of {allowed}");
            assert!(loaded >= allowed - allowed / 20, "{case} tp {tp_size}: {loaded} of {allowed}");
        }
    }
}

#[test]
fn tensors_nobody_asked_for_are_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = files::read(&harness::golden().join("llama/model.safetensors"));
    for name in ["model.layers.0.self_attn.rotary_emb.inv_freq", "score.weight"] {
        tensors.insert(name.to_owned(), (Dtype::F32, vec![2], vec![0; 8]));
    }
    files::write(folder.path(), &tensors, &files::config("llama"));
    let count = Count::default();
    let checkpoint = Checkpoint::folder(folder.path()).unwrap();
    drop(RankGroup::launch(&checkpoint, &harness::options(4, DTypeChoice::Auto), &count).unwrap());
    let warnings = count.warnings.into_inner();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("2 tensors of the checkpoint are not used"), "{warnings:?}");
}

#[test]
fn other_layouts_of_the_files_are_found_or_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let tensors = files::read(&harness::golden().join("llama/model.safetensors"));
    files::write(path, &tensors, &files::config("llama"));
    let whole = files::generate(&Checkpoint::folder(path).unwrap(), 1);
    // Shards without an index, in an order of their own, with the consolidated twin beside them.
    fs::rename(path.join("model.safetensors"), path.join("consolidated.safetensors")).unwrap();
    for (part, is_first) in [("b-1", true), ("a-2", false)] {
        let half: Tensors = tensors
            .iter()
            .filter(|(name, _)| name.contains("layers.0") == is_first)
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        files::write(path, &half, &files::config("llama"));
        let name = format!("{part}.safetensors");
        fs::rename(path.join("model.safetensors"), path.join(name)).unwrap();
    }
    assert_eq!(files::generate(&Checkpoint::folder(path).unwrap(), 2).tokens, whole.tokens);

    for name in ["a-2", "b-1", "consolidated"] {
        fs::remove_file(path.join(format!("{name}.safetensors"))).unwrap();
    }
    fs::write(path.join("pytorch_model.bin"), b"\x80\x02").unwrap();
    let options = harness::options(1, DTypeChoice::Auto);
    let checkpoint = Checkpoint::folder(path).unwrap();
    let error = RankGroup::launch(&checkpoint, &options, &Quiet).unwrap_err().to_string();
    assert!(error.contains("`pytorch_model.bin` is not supported: pickled weights"), "{error}");
}

#[test]
fn every_float_type_is_converted_to_that_of_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let original = files::read(&harness::golden().join("llama/model.safetensors"));
    // Numbers that all three types have.
    let coarse = |bytes: &[u8]| -> Vec<f32> {
        let value = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap());
        bytes.chunks_exact(4).map(|b| (value(b) * 64.0).round() / 64.0).collect()
    };
    let stored = |dtype: Dtype| -> Tensors {
        let bytes = |bytes: &[u8]| -> Vec<u8> {
            let values = coarse(bytes).into_iter();
            match dtype {
                Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
                Dtype::F16 => values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
                _ => values.flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect(),
            }
        };
        let convert = |(name, (_, shape, data)): (&String, &(Dtype, Vec<usize>, Vec<u8>))| {
            (name.clone(), (dtype, shape.clone(), bytes(data)))
        };
        original.iter().map(convert).collect()
    };
    let mut outputs = Vec::new();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        files::write(folder.path(), &stored(dtype), &files::config("llama"));
        outputs.push(files::generate(&Checkpoint::folder(folder.path()).unwrap(), 2));
    }
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], outputs[2]);
    // Some of each in one checkpoint.
    let mut mixed = stored(Dtype::F32);
    for (index, (name, tensor)) in stored(Dtype::F16).into_iter().enumerate() {
        if index % 3 == 0 {
            mixed.insert(name, tensor);
        }
    }
    files::write(folder.path(), &mixed, &files::config("llama"));
    assert_eq!(
        files::generate(&Checkpoint::folder(folder.path()).unwrap(), 4).tokens,
        outputs[0].tokens
    );

    let name = "model.layers.2.mlp.down_proj.weight";
    let (_, shape, bytes) = mixed[name].clone();
    mixed
        .insert(name.to_owned(), (Dtype::I32, shape, bytes[..].repeat(2)[..64 * 128 * 4].to_vec()));
    files::write(folder.path(), &mixed, &files::config("llama"));
    let checkpoint = Checkpoint::folder(folder.path()).unwrap();
    let options = harness::options(1, DTypeChoice::Auto);
    let error = RankGroup::launch(&checkpoint, &options, &Quiet).unwrap_err().to_string();
    assert!(error.contains("down_proj.weight is not of float32, float16, bfloat16"), "{error}");
}

#[test]
fn a_tied_head_is_the_embedding_whether_it_is_stored_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = files::read(&harness::golden().join("qwen3/model.safetensors"));
    assert!(!tensors.contains_key("lm_head.weight"));
    let expected = files::generate(&harness::checkpoint("qwen3"), 2);
    let (dtype, shape, bytes) = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".to_owned(), (dtype, shape, vec![0; bytes.len()]));
    files::write(folder.path(), &tensors, &files::config("qwen3"));
    // No warning of an unused tensor either: it is known for what it is.
    let output = files::generate(&Checkpoint::folder(folder.path()).unwrap(), 2);
    assert_eq!(output, expected);

    tensors.remove("lm_head.weight");
    let mut untied = files::config("qwen3");
    untied["tie_word_embeddings"] = json!(false);
    files::write(folder.path(), &tensors, &untied);
    let checkpoint = Checkpoint::folder(folder.path()).unwrap();
    let options = harness::options(2, DTypeChoice::Auto);
    let error = RankGroup::launch(&checkpoint, &options, &Quiet).unwrap_err().to_string();
    assert!(error.contains("lm_head.weight is missing"), "{error}");
}

#[test]
fn missing_misshapen_and_duplicate_tensors_are_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut tensors = files::read(&harness::golden().join("llama/model.safetensors"));
    let norm = tensors["model.norm.weight"].clone();
    files::write(path, &Tensors::from([("model.norm.weight".to_owned(), norm)]), &json!({}));
    fs::rename(path.join("model.safetensors"), path.join("b.safetensors")).unwrap();
    tensors.remove("model.layers.1.self_attn.o_proj.weight");
    tensors.get_mut("lm_head.weight").unwrap().1 = vec![64, 331];
    files::write(path, &tensors, &files::config("llama"));
    fs::rename(path.join("model.safetensors"), path.join("a.safetensors")).unwrap();
    let checkpoint = Checkpoint::folder(path).unwrap();
    let options = harness::options(4, DTypeChoice::Auto);
    let error = RankGroup::launch(&checkpoint, &options, &Quiet).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "the checkpoint does not fit its config.json:",
            "model.norm.weight is given twice, in a.safetensors and in b.safetensors",
            "model.layers.1.self_attn.o_proj.weight is missing",
            "lm_head.weight has shape [64, 331], expected [331, 64]",
        ]
    );
}

#[test]
fn a_checkpoint_of_another_model_is_an_error_of_bounded_length() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = files::config("llama");
    config["num_hidden_layers"] = json!(100);
    files::write(folder.path(), &Tensors::new(), &config);
    let checkpoint = Checkpoint::folder(folder.path()).unwrap();
    let options = harness::options(1, DTypeChoice::Auto);
    let error = RankGroup::launch(&checkpoint, &options, &Quiet).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 102, "{error}");
    // Nine tensors a layer, the embedding, the last norm and the head.
    assert!(error.ends_with("and 803 more"), "{error}");
}
