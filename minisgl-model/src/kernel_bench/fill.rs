//! Inputs for measuring. Random ones: with zeros, arithmetic takes less power, and a GPU runs faster
//! than it does with anything else. Never knows what they are for.

use half::bf16;
use minisgl_kernels::{DType, Error, Shape, Stream, Tensor, ops};

/// Elements of the block that is repeated.
const BLOCK: usize = 1 << 22;

/// A tensor of bfloat16, uniform in ±`width`.
pub(super) fn noise(stream: &Stream, shape: impl Into<Shape>, width: f32) -> Result<Tensor, Error> {
    let shape = shape.into();
    let mut tensor = stream.device().zeros(DType::Bf16, shape)?;
    let row = shape.dims().last().copied().unwrap_or(1).max(1);
    let num_rows = tensor.num_elements() / row;
    let block_rows = (BLOCK / row).clamp(1, num_rows.max(1));
    let values: Vec<bf16> = (0..block_rows * row).map(|index| uniform(index, width)).collect();
    let block = Tensor::from_slice(stream.device(), [block_rows, row], &values)?;
    let mut rows = tensor.view_mut().reshape([num_rows, row])?;
    for first in (0..num_rows).step_by(block_rows) {
        let end = num_rows.min(first + block_rows);
        let source = block.view().rows(0..end - first)?;
        ops::copy(stream, source, rows.reborrow().rows(first..end)?)?;
    }
    // Before the block goes.
    stream.synchronize()?;
    Ok(tensor)
}

/// A function of the index alone.
fn uniform(index: usize, width: f32) -> bf16 {
    let mut z = (index as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bf16::from_f32(width * (2.0 * (z >> 40) as f32 / (1u64 << 24) as f32 - 1.0))
}
