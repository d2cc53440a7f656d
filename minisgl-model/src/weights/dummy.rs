//! Random weights in place of a checkpoint's, for measuring without files. A function of name and
//! index alone, so that the model is the same however it is sharded. Knows no model.

use std::ops::Range;

/// Standard deviation of matrices: what most models are initialized with.
const STD: f32 = 0.02;

/// Elements `columns` of row `row` of the tensor `name`, which has `num_columns` of them.
pub(super) fn row(name: &str, row: usize, num_columns: usize, columns: Range<usize>) -> Vec<f32> {
    if name.ends_with("norm.weight") {
        return vec![1.0; columns.len()];
    }
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3) // FNV-1a
    });
    // Uniform in ±√3 σ, which has the standard deviation σ.
    let width = 2.0 * 3f32.sqrt() * STD;
    let uniform = |column: usize| {
        let mut z = seed.wrapping_add((row * num_columns + column) as u64);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    columns.map(|column| width * uniform(column)).collect()
}
