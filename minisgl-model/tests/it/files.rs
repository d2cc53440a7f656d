//! Checkpoints to be changed: their tensors as bytes by name, written back to a folder of their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use minisgl_model::{Checkpoint, DTypeChoice, RankGroup};
use minisgl_sched::SamplingParams;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};
use serde_json::Value;

use crate::harness::{self, Output, Quiet};

/// A generator of numbers that only have to differ.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// By name: element type, shape, bytes.
pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub(crate) fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let owned = |(name, view): (String, TensorView<'_>)| {
        (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
    };
    tensors.tensors().into_iter().map(owned).collect()
}

pub(crate) fn write(folder: &Path, tensors: &Tensors, config: &Value) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

pub(crate) fn config(case: &str) -> Value {
    let path = harness::golden().join(case).join("config.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub(crate) fn generate(checkpoint: &Checkpoint, tp_size: usize) -> Output {
    let options = harness::options(tp_size, DTypeChoice::Float32);
    let group = RankGroup::launch(checkpoint, &options, &Quiet).unwrap();
    let sampling = SamplingParams { logprobs: Some(20), ..SamplingParams::GREEDY };
    let request = harness::request(1, &[3, 1, 4, 1, 5, 9, 2, 6], 6, sampling);
    harness::run(&mut harness::driver(group, true), vec![request]).remove(0)
}
