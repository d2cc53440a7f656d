//! Reading checkpoints: fp8, other spellings, how much is read, and files made to do harm.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use minisgl_model::weights::SafetensorsFiles;
use minisgl_model::{Checkpoint, DTypeChoice, LaunchObserver, RankGroup};
use minisgl_sched::SamplingParams;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};
use serde_json::{Value, json};

use crate::harness::{self, Output, Quiet};

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let owned = |(name, view): (String, TensorView<'_>)| {
        (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
    };
    tensors.tensors().into_iter().map(owned).collect()
}

fn write(folder: &Path, tensors: &Tensors, config: &Value) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

fn config(case: &str) -> Value {
    let path = harness::golden().join(case).join("config.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn generate(checkpoint: &Checkpoint, tp_size: usize) -> Output {
    let options = harness::options(tp_size, DTypeChoice::Float32);
    let group = RankGroup::launch(checkpoint, &options, &Quiet).unwrap();
    let sampling = SamplingParams { logprobs: Some(20), ..SamplingParams::GREEDY };
    let request = harness::request(1, &[3, 1, 4, 1, 5, 9, 2, 6], 6, sampling);
    harness::run(&mut harness::driver(group, true), vec![request]).remove(0)
}

/// The value of an E4M3 byte, from its definition.
fn e4m3(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7) / 8.0);
    let magnitude =
        if exponent == 0 { mantissa / 64.0 } else { (1.0 + mantissa) * 2f32.powi(exponent - 7) };
    sign * magnitude
}

/// Replaces the projections by random fp8 numbers; also returns what they stand for, in f32.
fn quantize(tensors: &Tensors, block: Option<usize>, rng: &mut Rng) -> (Tensors, Tensors) {
    let (mut fp8, mut plain) = (tensors.clone(), tensors.clone());
    for (name, (_, shape, _)) in tensors.iter().filter(|(name, _)| name.ends_with("_proj.weight")) {
        let [rows, columns] = shape[..] else { panic!("{name}") };
        let (height, width) = block.map_or((rows, columns), |block| (block, block));
        let scales = [rows.div_ceil(height), columns.div_ceil(width)];
        let scale: Vec<f32> =
            (0..scales[0] * scales[1]).map(|_| (rng.below(1000) + 1) as f32 / 9e5).collect();
        let bytes: Vec<u8> = (0..rows * columns)
            .map(|_| {
                loop {
                    let byte = rng.below(256) as u8;
                    if byte & 0x7f != 0x7f {
                        break byte;
                    }
                }
            })
            .collect();
        let value = |index: usize| {
            let (row, column) = (index / columns, index % columns);
            e4m3(bytes[index]) * scale[row / height * scales[1] + column / width]
        };
        let values = (0..bytes.len()).flat_map(|index| value(index).to_le_bytes()).collect();
        plain.insert(name.clone(), (Dtype::F32, shape.clone(), values));
        let scale_bytes: Vec<u8> = scale.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        let (scale_name, scale_shape) = match block {
            Some(_) => (format!("{name}_scale_inv"), scales.to_vec()),
            None => (format!("{name}_scale"), vec![]),
        };
        fp8.insert(scale_name, (Dtype::F32, scale_shape, scale_bytes));
        fp8.insert(name.clone(), (Dtype::F8_E4M3, shape.clone(), bytes));
    }
    (fp8, plain)
}

#[test]
fn fp8_weights_are_what_their_scales_make_of_them() {
    let tensors = read(&harness::golden().join("llama/model.safetensors"));
    for block in [None, Some(32), Some(128)] {
        let (fp8, plain) = quantize(&tensors, block, &mut Rng(7));
        let folder = tempfile::tempdir().unwrap();
        let mut config = config("llama");
        write(folder.path(), &plain, &config);
        let expected = generate(&Checkpoint::folder(folder.path()).unwrap(), 1);
        config["quantization_config"] = json!({"quant_method": "fp8"});
        write(folder.path(), &fp8, &config);
        for tp_size in [1, 2] {
            let output = generate(&Checkpoint::folder(folder.path()).unwrap(), tp_size);
            assert_eq!(output.tokens, expected.tokens, "block {block:?} tp {tp_size}");
            if tp_size == 1 {
                assert_eq!(output, expected);
            }
        }
    }
}

#[test]
fn fp8_without_usable_scales_is_refused() {
    let tensors = read(&harness::golden().join("llama/model.safetensors"));
    let (fp8, _) = quantize(&tensors, Some(32), &mut Rng(7));
    let name = "model.layers.1.mlp.up_proj.weight_scale_inv".to_owned();
    let error = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = fp8.clone();
        change(&mut tensors);
        let folder = tempfile::tempdir().unwrap();
        let mut config = config("llama");
        config["quantization_config"] = json!({"quant_method": "fp8"});
        write(folder.path(), &tensors, &config);
        let checkpoint = Checkpoint::folder(folder.path()).unwrap();
        let options = harness::options(2, DTypeChoice::Float32);
        RankGroup::launch(&checkpoint, &options, &Quiet).unwrap_err().to_string()
    };
    let missing = error(&|tensors| drop(tensors.remove(&name)));
    assert!(missing.contains("up_proj.weight is fp8, but"), "{missing}");
    let not_finite = error(&|tensors| {
        let (_, _, bytes) = tensors.get_mut(&name).unwrap();
        bytes[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(not_finite.contains("up_proj.weight_scale_inv has the value NaN"), "{not_finite}");
    let misshapen = error(&|tensors| {
        tensors.insert(name.clone(), (Dtype::F32, vec![7, 3], vec![0; 84]));
    });
    assert!(misshapen.contains("[7, 3], which does not fit [128, 64]"), "{misshapen}");
}

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
    for case in ["llama", "qwen3-untied", "qwen3-moe"] {
        let checkpoint = harness::checkpoint(case);
        let files = SafetensorsFiles::open(&checkpoint).unwrap();
        // On every rank: norms and routers; and KV heads where there are fewer than ranks.
        let replicated = |names: &[&str]| -> u64 {
            let is = |name: &&str| names.iter().any(|part| name.contains(part));
            let bytes = |name| files.get(name).map_or(0, |tensor| tensor.bytes.len() as u64);
            files.names().filter(is).map(bytes).sum()
        };
        for tp_size in [1, 2, 4, 8] {
            let count = Count::default();
            let options = harness::options(tp_size, DTypeChoice::Auto);
            drop(RankGroup::launch(&checkpoint, &options, &count).unwrap());
            let kv_copies = if case == "qwen3-untied" { 1 } else { (tp_size as u64 / 2).max(1) };
            let allowed = files.total_bytes()
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
    let mut tensors = read(&harness::golden().join("llama/model.safetensors"));
    for name in ["model.layers.0.self_attn.rotary_emb.inv_freq", "score.weight"] {
        tensors.insert(name.to_owned(), (Dtype::F32, vec![2], vec![0; 8]));
    }
    write(folder.path(), &tensors, &config("llama"));
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
    let tensors = read(&harness::golden().join("llama/model.safetensors"));
    write(path, &tensors, &config("llama"));
    let whole = generate(&Checkpoint::folder(path).unwrap(), 1);
    // Shards without an index, in an order of their own, with the consolidated twin beside them.
    fs::rename(path.join("model.safetensors"), path.join("consolidated.safetensors")).unwrap();
    for (part, is_first) in [("b-1", true), ("a-2", false)] {
        let half: Tensors = tensors
            .iter()
            .filter(|(name, _)| name.contains("layers.0") == is_first)
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        write(path, &half, &config("llama"));
        let name = format!("{part}.safetensors");
        fs::rename(path.join("model.safetensors"), path.join(name)).unwrap();
    }
    assert_eq!(generate(&Checkpoint::folder(path).unwrap(), 2).tokens, whole.tokens);

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
fn damaged_headers_never_panic_and_never_allocate_much() {
    let whole = fs::read(harness::golden().join("llama/model.safetensors")).unwrap();
    let header_len = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config("llama").to_string()).unwrap();
    let checkpoint = Checkpoint::folder(folder.path()).unwrap();
    let mut rng = Rng(11);
    let mut refused = 0;
    for round in 0..1500 {
        let mut file = whole.clone();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(8 + header_len);
            match rng.below(4) {
                0 => file[at] = rng.next() as u8,
                1 => file[at] ^= 1 << rng.below(8),
                2 => file[at] = b"0123456789[]{},:\"-eE"[rng.below(20)],
                _ => file.truncate(at.max(rng.below(file.len()))),
            }
            file.resize(file.len().max(8 + header_len), 0);
        }
        if round % 10 == 0 {
            file[..8].copy_from_slice(&rng.next().to_le_bytes());
        }
        fs::write(folder.path().join("model.safetensors"), &file).unwrap();
        match SafetensorsFiles::open(&checkpoint) {
            Err(_) => refused += 1,
            Ok(files) => {
                for name in files.names() {
                    let tensor = files.get(name).unwrap();
                    assert!(tensor.bytes.len() <= file.len());
                }
            }
        }
    }
    assert!(refused > 1000, "{refused} of 1500 were refused");
}
