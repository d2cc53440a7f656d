//! Elements that keys and values may be stored as, and how they are read.
//!
//! Never knows: where they are stored.

use half::bf16;

use crate::cpu::simd::Operand;
use crate::{F8E4M3, HostElement};

/// Elements of a KV pool for attention in `T`.
pub(super) trait Stored<T: Operand>: HostElement {
    /// Whether [`Stored::read`] needs room.
    const IS_WIDENED: bool;

    /// The elements as T: where they are, or in `room`, which is as long if it is needed.
    fn read<'r>(row: &'r [Self], room: &'r mut [T]) -> &'r [T];
}

impl Stored<f32> for f32 {
    const IS_WIDENED: bool = false;

    #[inline(always)]
    fn read<'r>(row: &'r [Self], _room: &'r mut [f32]) -> &'r [f32] {
        row
    }
}

impl Stored<bf16> for bf16 {
    const IS_WIDENED: bool = false;

    #[inline(always)]
    fn read<'r>(row: &'r [Self], _room: &'r mut [bf16]) -> &'r [bf16] {
        row
    }
}

/// Exact in either.
impl<T: Operand> Stored<T> for F8E4M3 {
    const IS_WIDENED: bool = true;

    #[inline(always)]
    fn read<'r>(row: &'r [Self], room: &'r mut [T]) -> &'r [T] {
        for (wide, narrow) in room.iter_mut().zip(row) {
            *wide = T::from_f32(narrow.to_f32());
        }
        room
    }
}
