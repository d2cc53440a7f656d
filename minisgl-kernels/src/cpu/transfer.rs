//! Copies between host slices and tensors, and the conversion of checkpoint bytes.
//!
//! Never knows: file formats or tensor names.

use half::bf16;

use super::CpuDevice;
use super::simd::{Kernel, Simd};
use crate::convert::CheckpointDType;
use crate::dtype::Float;
use crate::rows::{Rows, RowsMut};
use crate::{DType, HostElement, ViewMut};

pub(crate) fn upload<T: HostElement>(cpu: &CpuDevice, source: &[T], target: RowsMut<'_, T>) {
    let len = target.row_len();
    cpu.for_each_part(target, len / 8, |first, mut target| {
        for i in 0..target.num_rows() {
            target.row_mut(i).copy_from_slice(&source[(first + i) * len..][..len]);
        }
    });
}

pub(crate) fn download<T: HostElement>(source: Rows<'_, T>, target: &mut [T]) {
    for (i, target) in target.chunks_exact_mut(source.row_len().max(1)).enumerate() {
        target.copy_from_slice(source.row(i));
    }
}

/// From this size on, several threads copy faster than one.
const PARALLEL_BYTES: usize = 256 << 10;

/// `target = source`.
pub(crate) fn copy_bytes(cpu: &CpuDevice, source: &[u8], target: &mut [u8]) {
    if target.len() < PARALLEL_BYTES {
        target.copy_from_slice(source);
        return;
    }
    cpu.for_each_part(target, 1, |first, target| {
        target.copy_from_slice(&source[first..first + target.len()]);
    });
}

/// Converts the bytes of checkpoint elements to as many elements of `target`.
pub(crate) fn convert_elements<T: Float>(
    cpu: &CpuDevice,
    source: &[u8],
    source_dtype: CheckpointDType,
    target: &mut [T],
) {
    let size = source_dtype.size_bytes();
    cpu.for_each_part(target, 1, |first, target| {
        let source = &source[first * size..][..target.len() * size];
        cpu.isa().run(Convert { source, source_dtype, target: RowsMut::one(target) });
    });
}

pub(crate) fn copy_from_checkpoint(
    cpu: &CpuDevice,
    source: &[u8],
    source_dtype: CheckpointDType,
    target: ViewMut<'_>,
) {
    match target.dtype() {
        DType::Bf16 => convert::<bf16>(cpu, source, source_dtype, target.host_rows()),
        _ => convert::<f32>(cpu, source, source_dtype, target.host_rows()),
    }
}

fn convert<T: Float>(
    cpu: &CpuDevice,
    source: &[u8],
    source_dtype: CheckpointDType,
    target: RowsMut<'_, T>,
) {
    let row_bytes = target.row_len() * source_dtype.size_bytes();
    cpu.for_each_part(target, row_bytes / 4, |first, target| {
        let source = &source[first * row_bytes..][..target.num_rows() * row_bytes];
        cpu.isa().run(Convert { source, source_dtype, target });
    });
}

struct Convert<'a, T> {
    source: &'a [u8],
    source_dtype: CheckpointDType,
    target: RowsMut<'a, T>,
}

impl<T: Float> Kernel for Convert<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _simd: S) {
        let row_bytes = self.target.row_len() * self.source_dtype.size_bytes();
        for i in 0..self.target.num_rows() {
            let source = &self.source[i * row_bytes..][..row_bytes];
            let target = self.target.row_mut(i);
            match self.source_dtype {
                CheckpointDType::F32 => convert_row(source, target, f32::from_le_bytes),
                CheckpointDType::Bf16 => {
                    convert_row(source, target, |bytes| bf16::from_le_bytes(bytes).to_f32());
                }
                CheckpointDType::F16 => {
                    convert_row(source, target, |bytes| widen_f16(u16::from_le_bytes(bytes)));
                }
            }
        }
    }
}

#[inline(always)]
fn convert_row<const N: usize, T: Float>(
    source: &[u8],
    target: &mut [T],
    widen: impl Fn([u8; N]) -> f32,
) {
    for (target, bytes) in target.iter_mut().zip(source.as_chunks().0) {
        *target = T::from_f32(widen(*bytes));
    }
}

/// An IEEE 754 binary16, exactly. Branch-free, so that a loop over it becomes vector code.
#[inline(always)]
fn widen_f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    // As the bits of an f32 the magnitude is a number 2¹¹² too small, subnormal or not.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let infinite_or_nan = f32::from_bits((magnitude << 13) | 0x7f80_0000);
    let value = if magnitude >= 0x7c00 { infinite_or_nan } else { scaled };
    f32::from_bits(value.to_bits() | sign)
}

#[cfg(test)]
mod tests;
