//! Checkpoints and options that are wrong: one clear error each, from whatever rank finds it.

use std::fs;
use std::sync::Mutex;

use minisgl_model::{
    AllReduceChoice, AttentionChoice, Checkpoint, DTypeChoice, DeviceChoice, EngineOptions,
    LaunchObserver, RankGroup,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::harness::{self, Quiet};

/// The `llama` fixture in a folder of its own, to be damaged.
struct Copy {
    folder: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(harness::golden().join("llama").join(file), folder.path().join(file)).unwrap();
        }
        Self { folder }
    }

    fn edit_config(&self, field: &str, value: Value) {
        let path = self.folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config[field] = value;
        fs::write(path, config.to_string()).unwrap();
    }

    fn drop_tensors(&self, names: &[&str]) {
        let path = self.folder.path().join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let kept = tensors.tensors().into_iter().filter(|(name, _)| !names.contains(&&**name));
        safetensors::serialize_to_file(kept, None, &path).unwrap();
    }

    fn error(&self, options: &EngineOptions) -> String {
        let checkpoint = Checkpoint::folder(self.folder.path()).unwrap();
        RankGroup::launch(&checkpoint, options, &Quiet).unwrap_err().to_string()
    }
}

fn options(tp_size: usize) -> EngineOptions {
    harness::options(tp_size, DTypeChoice::Auto)
}

#[test]
fn missing_and_misshapen_tensors_are_listed() {
    let copy = Copy::new();
    copy.drop_tensors(&["model.layers.1.mlp.up_proj.weight", "model.norm.weight"]);
    copy.edit_config("vocab_size", json!(332));
    for tp_size in [1, 4] {
        let error = copy.error(&options(tp_size));
        let lines: Vec<&str> = error.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "the checkpoint does not fit its config.json:",
                "model.embed_tokens.weight has shape [331, 64], expected [332, 64]",
                "model.layers.1.mlp.up_proj.weight is missing",
                "model.norm.weight is missing",
                "lm_head.weight has shape [331, 64], expected [332, 64]",
            ]
        );
    }
}

#[test]
fn a_truncated_checkpoint_is_refused() {
    let copy = Copy::new();
    let path = copy.folder.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(copy.error(&options(2)).contains("model.safetensors is not a valid safetensors file"));
}

#[test]
fn a_stretched_rotation_lengthens_the_context() {
    let copy = Copy::new();
    let context = |max_seq_len: Option<usize>| {
        let options = EngineOptions { max_seq_len, num_pages: Some(2048), ..options(1) };
        let checkpoint = Checkpoint::folder(copy.folder.path()).unwrap();
        RankGroup::launch(&checkpoint, &options, &Quiet).map(|group| group.limits().context_len)
    };
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 200});
    copy.edit_config("rope_scaling", yarn);
    assert_eq!(context(None).unwrap(), 800);
    assert_eq!(context(Some(256)).unwrap(), 256);
    copy.edit_config("rope_scaling", json!({"rope_type": "linear", "factor": 4.0}));
    assert_eq!(context(None).unwrap(), 256);
    assert_eq!(context(Some(1024)).unwrap(), 1024);
    assert!(context(Some(1025)).unwrap_err().to_string().contains("has 1 to 1024 positions"));
}

#[test]
fn options_that_do_not_fit_the_model_are_named() {
    let copy = Copy::new();
    assert_eq!(
        copy.error(&options(3)),
        "--tp 3 does not work for this model: 2 KV heads cannot be split evenly; use a divisor of 2"
    );
    assert!(copy.error(&options(16)).starts_with("--tp 16 does not work for this model"));
    let mut too_long = options(1);
    too_long.max_seq_len = Some(257);
    assert!(copy.error(&too_long).contains("the model has 1 to 256 positions"));
    let mut half = options(1);
    half.dtype = DTypeChoice::Float16;
    assert!(copy.error(&half).contains("there are no kernels for float16"));
    let mut attention = options(1);
    attention.attention = "fa,fi".parse::<AttentionChoice>().unwrap();
    assert_eq!(copy.error(&attention), "--attn fa,fi needs a GPU; the CPU has only auto");
    let mut none = options(1);
    none.max_running_requests = 0;
    assert!(copy.error(&none).contains("--max-running-requests 0 is not allowed"));
    let mut huge = options(1);
    huge.num_pages = Some(usize::MAX);
    assert!(copy.error(&huge).contains("not enough memory"));
    copy.edit_config("max_position_embeddings", json!(1 << 20));
    let mut rows = options(1);
    rows.max_running_requests = 1 << 12;
    assert_eq!(
        copy.error(&rows),
        "--max-running-requests 4096 with 1048576 pages each is more than the 2^31 - 1 entries of a \
         page table: lower it, or raise --page-size"
    );
}

#[test]
fn a_missing_gpu_is_one_sentence() {
    let mut gpu = options(1);
    gpu.device = DeviceChoice::Cuda;
    let error = Copy::new().error(&gpu);
    assert!(!error.contains('\n') && error.len() > 20, "{error}");
}

#[test]
fn ways_to_sum_on_gpus_are_refused_on_cpus() {
    for (all_reduce, name) in [(AllReduceChoice::Nccl, "nccl"), (AllReduceChoice::P2p, "p2p")] {
        for tp_size in [1, 2] {
            let cpu = EngineOptions { device: DeviceChoice::Cpu, ..options(tp_size) };
            let error = harness::launch("llama", &EngineOptions { all_reduce, ..cpu }).unwrap_err();
            let expected = format!("--all-reduce {name} is for GPUs: use auto on CPUs");
            assert_eq!(error.to_string(), expected);
        }
    }
}

/// Keeps the warnings.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl LaunchObserver for Warnings {
    fn rank_ready(&self, _rank: usize, _world_size: usize) {}

    fn weights_loaded(&self, _bytes: u64, _total: u64) {}

    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn graphs_that_a_cpu_does_not_have_are_a_warning_to_whoever_asks_for_them() {
    for (asked, warned) in [(None, false), (Some(0), false), (Some(8), true)] {
        let options =
            EngineOptions { device: DeviceChoice::Cpu, cuda_graph_max_bs: asked, ..options(1) };
        let warnings = Warnings::default();
        RankGroup::launch(&harness::checkpoint("llama"), &options, &warnings).unwrap();
        let warnings = warnings.0.into_inner().unwrap();
        let expected = "--cuda-graph-max-bs does nothing: there are no graphs on a CPU";
        assert_eq!(warnings, [expected][..usize::from(warned)], "{asked:?}");
    }
}
