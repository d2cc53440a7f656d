//! RMS norms, a row at a time.
//!
//! Never knows: which layer they belong to.

use half::bf16;

use super::CpuDevice;
use super::dot;
use super::simd::{Kernel, Operand, Simd};
use crate::rows::{Rows, RowsMut};
use crate::{DType, View, ViewMut};

pub(crate) fn rms_norm(cpu: &CpuDevice, x: View<'_>, weight: View<'_>, eps: f32, out: ViewMut<'_>) {
    match x.dtype() {
        DType::Bf16 => typed_rms_norm::<bf16>(cpu, x, weight, eps, out),
        _ => typed_rms_norm::<f32>(cpu, x, weight, eps, out),
    }
}

fn typed_rms_norm<T: Operand>(
    cpu: &CpuDevice,
    x: View<'_>,
    weight: View<'_>,
    eps: f32,
    out: ViewMut<'_>,
) {
    let (x, weight, out) = (x.host_rows::<T>(), weight.host_slice::<T>(), out.host_rows::<T>());
    cpu.for_each_part(out, x.row_len() / 4, |first, out| {
        cpu.isa().run(RmsNorm { x, first, weight, eps, out });
    });
}

struct RmsNorm<'a, T> {
    x: Rows<'a, T>,
    /// The row of `x` that becomes the first of `out`.
    first: usize,
    weight: &'a [T],
    eps: f32,
    out: RowsMut<'a, T>,
}

impl<T: Operand> Kernel for RmsNorm<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        for i in 0..self.out.num_rows() {
            let row = self.x.row(self.first + i);
            normalize(simd, row, self.weight, self.eps, self.out.row_mut(i));
        }
    }
}

pub(crate) fn add_rms_norm(
    cpu: &CpuDevice,
    x: ViewMut<'_>,
    residual: ViewMut<'_>,
    weight: View<'_>,
    eps: f32,
) {
    match x.dtype() {
        DType::Bf16 => typed_add_rms_norm::<bf16>(cpu, x, residual, weight, eps),
        _ => typed_add_rms_norm::<f32>(cpu, x, residual, weight, eps),
    }
}

fn typed_add_rms_norm<T: Operand>(
    cpu: &CpuDevice,
    x: ViewMut<'_>,
    residual: ViewMut<'_>,
    weight: View<'_>,
    eps: f32,
) {
    let weight = weight.host_slice::<T>();
    let rows = (x.host_rows::<T>(), residual.host_rows::<T>());
    cpu.for_each_part(rows, weight.len() / 2, |_, (x, residual)| {
        cpu.isa().run(AddRmsNorm { x, residual, weight, eps });
    });
}

struct AddRmsNorm<'a, T> {
    x: RowsMut<'a, T>,
    residual: RowsMut<'a, T>,
    weight: &'a [T],
    eps: f32,
}

impl<T: Operand> Kernel for AddRmsNorm<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        for i in 0..self.x.num_rows() {
            let residual = self.residual.row_mut(i);
            for (residual, x) in residual.iter_mut().zip(self.x.row(i)) {
                *residual = T::from_f32(residual.to_f32() + x.to_f32());
            }
            normalize(simd, residual, self.weight, self.eps, self.x.row_mut(i));
        }
    }
}

/// `out = weight · round(x / rms(x))`.
#[inline(always)]
fn normalize<S: Simd, T: Operand>(simd: S, x: &[T], weight: &[T], eps: f32, out: &mut [T]) {
    let scale = inverse_rms(simd, x, eps);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        let normalized = T::from_f32(x.to_f32() * scale);
        *out = T::from_f32(normalized.to_f32() * weight.to_f32());
    }
}

/// `1 / sqrt(mean(x²) + eps)`.
#[inline(always)]
pub(super) fn inverse_rms<S: Simd, T: Operand>(simd: S, x: &[T], eps: f32) -> f32 {
    let [[sum]] = dot::tile(simd, [x], [x], &[[]; 0]);
    1.0 / (sum / x.len() as f32 + eps).sqrt()
}
