//! Projections as 8-bit floats: every way their scales may be stored, and every way these can be wrong.

use minisgl_model::{Checkpoint, DTypeChoice, QuantizationChoice, RankGroup};
use minisgl_sched::SamplingParams;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use crate::files::{self, Rng, Tensors};
use crate::harness::{self, Quiet};

/// What shares a scale.
#[derive(Clone, Copy, Debug)]
enum Blocks {
    /// The whole matrix.
    None,
    /// A row.
    Rows,
    /// A block.
    Of(usize, usize),
}

impl Blocks {
    fn config(self) -> Value {
        match self {
            Self::None | Self::Rows => json!({"quant_method": "fp8"}),
            Self::Of(rows, columns) => {
                json!({"quant_method": "fp8", "weight_block_size": [rows, columns]})
            }
        }
    }
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
fn quantize(tensors: &Tensors, blocks: Blocks, rng: &mut Rng) -> (Tensors, Tensors) {
    let (mut fp8, mut plain) = (tensors.clone(), tensors.clone());
    for (name, (_, shape, _)) in tensors.iter().filter(|(name, _)| name.ends_with("_proj.weight")) {
        let [rows, columns] = shape[..] else { panic!("{name}") };
        let (height, width) = match blocks {
            Blocks::None => (rows, columns),
            Blocks::Rows => (1, columns),
            Blocks::Of(height, width) => (height, width),
        };
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
        let (scale_name, scale_shape) = match blocks {
            Blocks::None => (format!("{name}_scale"), vec![]),
            Blocks::Rows => (format!("{name}_scale"), scales.to_vec()),
            Blocks::Of(..) => (format!("{name}_scale_inv"), scales.to_vec()),
        };
        fp8.insert(scale_name, (Dtype::F32, scale_shape, scale_bytes));
        fp8.insert(name.clone(), (Dtype::F8_E4M3, shape.clone(), bytes));
    }
    (fp8, plain)
}

#[test]
fn fp8_weights_are_what_their_scales_make_of_them() {
    let tensors = files::read(&harness::golden().join("llama/model.safetensors"));
    // Blocks that divide the projections, that do not, and that are larger.
    let blocks = [Blocks::None, Blocks::Rows, Blocks::Of(32, 32), Blocks::Of(24, 40)];
    for blocks in blocks.into_iter().chain([Blocks::Of(128, 128)]) {
        let (fp8, plain) = quantize(&tensors, blocks, &mut Rng(7));
        let folder = tempfile::tempdir().unwrap();
        let mut config = files::config("llama");
        files::write(folder.path(), &plain, &config);
        let expected = files::generate(&Checkpoint::folder(folder.path()).unwrap(), 1);
        config["quantization_config"] = blocks.config();
        files::write(folder.path(), &fp8, &config);
        for tp_size in [1, 2, 8] {
            let output = files::generate(&Checkpoint::folder(folder.path()).unwrap(), tp_size);
            assert_eq!(output.tokens, expected.tokens, "{blocks:?} tp {tp_size}");
            if tp_size == 1 {
                assert_eq!(output, expected);
            }
        }
    }
}

/// Rounded by hand as the engine rounds, and so the same bits as when it does.
fn rounded(tensors: &Tensors) -> Tensors {
    let mut fp8 = tensors.clone();
    for (name, (_, shape, bytes)) in
        tensors.iter().filter(|(name, _)| name.ends_with("_proj.weight"))
    {
        let [rows, columns] = shape[..] else { panic!("{name}") };
        let values: Vec<f32> =
            bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let (mut numbers, mut scales) = (Vec::new(), Vec::new());
        for row in values.chunks(columns) {
            let scale = row.iter().map(|x| x.abs()).fold(0.0, f32::max) / 448.0;
            scales.extend(scale.to_le_bytes());
            // The nearest of all numbers there are; the even one of two that are as near.
            numbers.extend(row.iter().map(|x| {
                let distance = |byte: u8| (e4m3(byte) - x / scale).abs();
                let candidates = (0..=255u8).filter(|byte| byte & 0x7f != 0x7f);
                candidates
                    .min_by(|&a, &b| {
                        distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1)))
                    })
                    .unwrap()
            }));
        }
        fp8.insert(format!("{name}_scale"), (Dtype::F32, vec![rows, 1], scales));
        fp8.insert(name.clone(), (Dtype::F8_E4M3, shape.clone(), numbers));
    }
    fp8
}

fn generate_in_fp8(folder: &std::path::Path, tp_size: usize) -> harness::Output {
    let mut options = harness::options(tp_size, DTypeChoice::Float32);
    options.quantization = QuantizationChoice::Fp8;
    let checkpoint = Checkpoint::folder(folder).unwrap();
    let group = RankGroup::launch(&checkpoint, &options, &Quiet).unwrap();
    let sampling = SamplingParams { logprobs: Some(20), ..SamplingParams::GREEDY };
    let request = harness::request(1, &[3, 1, 4, 1, 5, 9, 2, 6], 6, sampling);
    harness::run(&mut harness::driver(group, true), vec![request]).remove(0)
}

#[test]
fn fp8_weights_are_kept_as_they_are_for_fp8_arithmetic() {
    let tensors = files::read(&harness::golden().join("llama/model.safetensors"));
    let [made, kept, other] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut config = files::config("llama");
    files::write(made.path(), &tensors, &config);
    config["quantization_config"] = Blocks::Rows.config();
    files::write(kept.path(), &rounded(&tensors), &config);
    assert_eq!(generate_in_fp8(kept.path(), 1), generate_in_fp8(made.path(), 1));
    // A scale for a whole matrix is one for each row; numbers that rounding would not make.
    let (by_matrix, _) = quantize(&tensors, Blocks::None, &mut Rng(7));
    let mut by_row = by_matrix.clone();
    for (name, (_, shape, _)) in by_matrix.iter().filter(|(name, _)| name.ends_with("_proj.weight"))
    {
        let (_, scale_shape, bytes) = by_row.get_mut(&format!("{name}_scale")).unwrap();
        (*scale_shape, *bytes) = (vec![shape[0], 1], bytes.repeat(shape[0]));
    }
    files::write(other.path(), &by_matrix, &config);
    let outputs = [1, 2, 8].map(|tp_size| generate_in_fp8(other.path(), tp_size));
    files::write(other.path(), &by_row, &config);
    for (tp_size, output) in [1, 2, 8].into_iter().zip(outputs) {
        assert_eq!(generate_in_fp8(other.path(), tp_size), output, "tp {tp_size}");
    }
}

/// Scales of blocks are not those of rows: such weights are widened, and rounded again.
#[test]
fn fp8_weights_in_blocks_are_rounded_again_for_fp8_arithmetic() {
    let tensors = files::read(&harness::golden().join("llama/model.safetensors"));
    let (fp8, plain) = quantize(&tensors, Blocks::Of(32, 32), &mut Rng(7));
    let [blocks, floats] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut config = files::config("llama");
    files::write(floats.path(), &plain, &config);
    config["quantization_config"] = Blocks::Of(32, 32).config();
    files::write(blocks.path(), &fp8, &config);
    assert_eq!(generate_in_fp8(blocks.path(), 1), generate_in_fp8(floats.path(), 1));
}

#[test]
fn scales_of_activations_are_not_reported_as_unused() {
    let tensors = files::read(&harness::golden().join("llama/model.safetensors"));
    let (mut fp8, _) = quantize(&tensors, Blocks::None, &mut Rng(7));
    let scale = (Dtype::F32, vec![1], 0.5f32.to_le_bytes().to_vec());
    fp8.insert("model.layers.0.mlp.up_proj.input_scale".to_owned(), scale);
    let folder = tempfile::tempdir().unwrap();
    let mut config = files::config("llama");
    config["quantization_config"] = Blocks::None.config();
    files::write(folder.path(), &fp8, &config);
    // The observer of this launch panics at a warning.
    files::generate(&Checkpoint::folder(folder.path()).unwrap(), 2);
}

#[test]
fn fp8_without_usable_scales_is_refused() {
    let tensors = files::read(&harness::golden().join("llama/model.safetensors"));
    let (fp8, _) = quantize(&tensors, Blocks::Of(32, 32), &mut Rng(7));
    let name = "model.layers.1.mlp.up_proj.weight_scale_inv".to_owned();
    let error = |blocks: Option<Blocks>, change: &dyn Fn(&mut Tensors)| {
        let mut tensors = fp8.clone();
        change(&mut tensors);
        let folder = tempfile::tempdir().unwrap();
        let mut config = files::config("llama");
        if let Some(blocks) = blocks {
            config["quantization_config"] = blocks.config();
        }
        files::write(folder.path(), &tensors, &config);
        let checkpoint = Checkpoint::folder(folder.path()).unwrap();
        let options = harness::options(2, DTypeChoice::Float32);
        RankGroup::launch(&checkpoint, &options, &Quiet).unwrap_err().to_string()
    };
    let right = Some(Blocks::Of(32, 32));
    let missing = error(right, &|tensors| drop(tensors.remove(&name)));
    assert!(missing.contains("up_proj.weight is fp8, but"), "{missing}");
    for bad in [f32::NAN, f32::INFINITY] {
        let not_finite = error(right, &|tensors| {
            let (_, _, bytes) = tensors.get_mut(&name).unwrap();
            bytes[4..8].copy_from_slice(&bad.to_le_bytes());
        });
        let expected = format!("up_proj.weight_scale_inv has the value {bad}");
        assert!(not_finite.contains(&expected), "{not_finite}");
    }
    let misshapen = error(right, &|tensors| {
        tensors.insert(name.clone(), (Dtype::F32, vec![7, 3], vec![0; 84]));
    });
    assert!(misshapen.contains("[7, 3], which does not fit [128, 64]"), "{misshapen}");
    let integers = error(right, &|tensors| {
        tensors.insert(name.clone(), (Dtype::I32, vec![4, 2], vec![0; 32]));
    });
    assert!(integers.contains("_scale_inv is not of float32"), "{integers}");
    // What the config says is what counts.
    for wrong in [Blocks::Of(64, 32), Blocks::None] {
        let error = error(Some(wrong), &|_| ());
        assert!(error.contains("which does not fit [64, 64] in blocks of [64, "), "{error}");
    }
    let unsaid = error(None, &|_| ());
    assert!(unsaid.contains("is fp8, but config.json has no quantization_config"), "{unsaid}");
}
