//! Counter-based random numbers: a hash of coordinates instead of a state.
//!
//! Never knows: devices or ops. The definition is in the docs of
//! [`uniform`](crate::ops::sampling::uniform); everything here is exact on every backend.

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Output `index` of the SplitMix64 generator that was seeded with `seed`.
#[inline(always)]
fn splitmix64(seed: u64, index: i32) -> u64 {
    let steps = (i64::from(index) as u64).wrapping_add(1);
    let z = seed.wrapping_add(steps.wrapping_mul(GOLDEN_GAMMA));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The largest f32 below 1.
const MAX_UNIFORM: f32 = 1.0 - f32::EPSILON / 2.0;

/// What the variates of one position have in common.
pub(crate) fn position_key(seed: u64, position: i32) -> u64 {
    splitmix64(seed, position)
}

/// The variate of token `id` under a [`position_key`].
#[inline(always)]
pub(crate) fn uniform(position_key: u64, id: i32) -> f32 {
    const UNIT: f32 = 1.0 / (1u32 << 31) as f32;
    let top = (splitmix64(position_key, id) >> 34) as i32;
    let value = (2 * top + 1) as f32 * UNIT;
    if value < MAX_UNIFORM { value } else { MAX_UNIFORM }
}

#[cfg(test)]
mod tests;
