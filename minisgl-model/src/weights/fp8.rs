//! FP8 weights: 8-bit floats (OCP OFP8 E4M3) with one scale per tensor or per block, widened at
//! load or kept (see `loader/native`). Knows where the scales are, not what the weights are for.

use minisgl_kernels::F8E4M3;
use minisgl_kernels::convert::CheckpointDType;

use super::files::{FileDType, SafetensorsFiles};

/// The scales of one matrix: element `[row, column]` is multiplied by that of its block.
#[derive(Debug)]
pub(super) struct Scales {
    values: Vec<f32>,
    per_row: usize,
    block: [usize; 2],
}

impl Scales {
    /// The scales of the matrix `name`, and the name of the tensor they are in: for blocks of
    /// `[rows, columns]`, `*_scale_inv` `[ceil(rows / block), ceil(columns / block)]` as DeepSeek-V3
    /// and Qwen3-FP8 have it; without blocks, a single number or one per row in `*_scale_inv` or
    /// `*_scale`.
    pub(super) fn find(
        files: &SafetensorsFiles,
        name: &str,
        shape: &[usize],
        block: Option<[usize; 2]>,
    ) -> Result<(Self, String), String> {
        let [rows, columns] = *shape else { return Err(format!("{name} is fp8 but no matrix")) };
        let candidates = [format!("{name}_scale_inv"), format!("{name}_scale")];
        let found = candidates.into_iter().find_map(|name| Some((files.get(&name)?, name)));
        let Some((tensor, scale_name)) = found else {
            return Err(format!("{name} is fp8, but {name}_scale_inv is missing"));
        };
        let FileDType::Plain(dtype) = tensor.dtype else {
            return Err(format!("{scale_name} is not of float32, float16 or bfloat16"));
        };
        let whole = [rows.max(1), columns.max(1)];
        let (block, fits) = match (block, tensor.shape) {
            (Some([height, width]), [block_rows, block_columns]) => {
                let expected = [rows.div_ceil(height), columns.div_ceil(width)];
                ([height, width], [*block_rows, *block_columns] == expected)
            }
            (None, [] | [1] | [1, 1]) => (whole, true),
            (None, [per_row] | [per_row, 1]) => ([1, whole[1]], *per_row == rows),
            _ => (whole, false),
        };
        if !fits {
            return Err(format!(
                "{scale_name} has shape {:?}, which does not fit {shape:?} in blocks of {block:?}",
                tensor.shape
            ));
        }
        let values = widen(tensor.bytes, dtype);
        if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
            return Err(format!("{scale_name} has the value {bad}"));
        }
        Ok((Self { values, per_row: columns.div_ceil(block[1]), block }, scale_name))
    }

    /// The scale of one element.
    pub(super) fn of(&self, row: usize, column: usize) -> f32 {
        self.values[row / self.block[0] * self.per_row + column / self.block[1]]
    }
}

/// The numbers that all bytes stand for.
pub(super) struct Decoder([f32; 256]);

impl Decoder {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|byte| F8E4M3::from_bits(byte as u8).to_f32()))
    }

    /// Appends the scaled float32 bytes of a part of row `row` that begins at column `first`.
    pub(super) fn append(
        &self,
        out: &mut Vec<u8>,
        fp8: &[u8],
        scales: &Scales,
        row: usize,
        first: usize,
    ) {
        // Run by run of columns that have the same scale.
        let (mut column, mut rest) = (first, fp8);
        while !rest.is_empty() {
            let end = (column / scales.block[1] + 1) * scales.block[1];
            let (run, after) = rest.split_at(rest.len().min(end - column));
            let scale = scales.of(row, column);
            for byte in run {
                out.extend((self.0[usize::from(*byte)] * scale).to_le_bytes());
            }
            (column, rest) = (end, after);
        }
    }
}

fn widen(bytes: &[u8], dtype: CheckpointDType) -> Vec<f32> {
    let pair = |bytes: &[u8]| [bytes[0], bytes[1]];
    let chunks = bytes.chunks_exact(dtype.size_bytes());
    match dtype {
        CheckpointDType::F32 => {
            chunks.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        CheckpointDType::F16 => {
            chunks.map(|b| half::f16::from_le_bytes(pair(b)).to_f32()).collect()
        }
        CheckpointDType::Bf16 => {
            chunks.map(|b| half::bf16::from_le_bytes(pair(b)).to_f32()).collect()
        }
    }
}
