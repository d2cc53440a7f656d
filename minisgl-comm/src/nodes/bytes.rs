//! Arrays as bytes, little-endian and row-major, and back.
//!
//! Never knows: what the bytes are sent with.

use half::bf16;
use minisgl_kernels::{DType, F8E4M3, HostElement, Stream, View, ViewMut};

use crate::CommError;

/// Appends the elements of `source`.
pub(super) fn append(
    stream: &Stream,
    source: View<'_>,
    bytes: &mut Vec<u8>,
) -> Result<(), CommError> {
    match source.dtype() {
        DType::F32 => append_as(stream, source, bytes, f32::to_le_bytes),
        DType::Bf16 => append_as(stream, source, bytes, bf16::to_le_bytes),
        DType::F8E4M3 => append_as(stream, source, bytes, |x: F8E4M3| [x.to_bits()]),
        DType::I32 => append_as(stream, source, bytes, i32::to_le_bytes),
        DType::U64 => append_as(stream, source, bytes, u64::to_le_bytes),
    }
}

fn append_as<T: HostElement, const N: usize>(
    stream: &Stream,
    source: View<'_>,
    bytes: &mut Vec<u8>,
    to_bytes: fn(T) -> [u8; N],
) -> Result<(), CommError> {
    let mut elements = vec![T::default(); source.num_elements()];
    stream.download(source, &mut elements)?;
    let start = bytes.len();
    bytes.resize(start + elements.len() * N, 0);
    for (target, element) in bytes[start..].chunks_exact_mut(N).zip(elements) {
        target.copy_from_slice(&to_bytes(element));
    }
    Ok(())
}

/// Fills `target` with elements from `bytes`, of which there are just enough.
pub(super) fn fill(stream: &Stream, bytes: &[u8], target: ViewMut<'_>) -> Result<(), CommError> {
    match target.dtype() {
        DType::F32 => fill_as(stream, bytes, target, f32::from_le_bytes),
        DType::Bf16 => fill_as(stream, bytes, target, bf16::from_le_bytes),
        DType::F8E4M3 => fill_as(stream, bytes, target, |[bits]| F8E4M3::from_bits(bits)),
        DType::I32 => fill_as(stream, bytes, target, i32::from_le_bytes),
        DType::U64 => fill_as(stream, bytes, target, u64::from_le_bytes),
    }
}

fn fill_as<T: HostElement, const N: usize>(
    stream: &Stream,
    bytes: &[u8],
    target: ViewMut<'_>,
    from_bytes: fn([u8; N]) -> T,
) -> Result<(), CommError> {
    let (chunks, _) = bytes.as_chunks::<N>();
    let elements: Vec<T> = chunks.iter().map(|chunk| from_bytes(*chunk)).collect();
    Ok(stream.upload(&elements, target)?)
}
